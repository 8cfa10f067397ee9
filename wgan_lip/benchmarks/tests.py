"""Suite tests: level and power of the two-sample tests, and how often the bound on W1 of the laws holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from wgan_lip.benchmarks.cases import Piece, parse_overrides, positive_number, run_cases, some_of
from wgan_lip.benchmarks.image_pairs import FOLDERS
from wgan_lip.benchmarks.machine import write_page, write_results
from wgan_lip.data import MNIST, Digits
from wgan_lip.data.oracles import Ball, Dilation, MixtureDilation, Oracle, Shift
from wgan_lip.metrics.blurring import blurred
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.two_sample import two_sample_test

__all__ = ["LAWS", "Tested", "measure"]

LEVEL = 0.95
DRAWS = 400  # of samples for power; five times as many for the level, and a half for coverage
PERMUTATIONS = 199
SAMPLES = 100  # of each law
ROOT = "~/.cache/wgan_lip"
KINDS = {"level": 1000, "level_betting": 100, "power": 200, "betting": 100, "coverage": 100}
"""Kind of piece → draws in one."""
DEFAULT = "combined"
RIVALS = (DEFAULT, "energy", "mmd", "sliced_w1", "C2ST")
CLOSE = 0.05  # of power, within which the default counts as one of the best

Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
"""n independent samples of each of two laws, shapes (n, d) each."""


def _equal(root: str) -> Draw:
    """Two standard normal samples in the plane"""
    return lambda n, rng: (_normal(n, 2, rng), _normal(n, 2, rng))


def _blobs(root: str) -> Draw:
    """Four blobs at the corners of a square, round against oblong ones, nine to one"""
    turned = math.sqrt(0.5) * torch.tensor([[3.0, 3.0], [-1 / 3, 1 / 3]], dtype=torch.float64)

    def draw(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = (5.0 * torch.randint(2, (n, 2), generator=rng) for _ in range(2))
        return x + _normal(n, 2, rng), y + _normal(n, 2, rng) @ turned

    return draw


def _shift(root: str) -> Draw:
    """Normal in 50 dimensions, means 0.9 apart"""
    apart = torch.full((50,), 0.9 / math.sqrt(50), dtype=torch.float64)
    return lambda n, rng: (_normal(n, 50, rng) + apart, _normal(n, 50, rng))


def _variance(root: str) -> Draw:
    """Normal in 20 dimensions, standard deviations 1.15 and 1"""
    return lambda n, rng: (1.15 * _normal(n, 20, rng), _normal(n, 20, rng))


def _digits(root: str) -> Draw:
    """Scikit-learn's digits against digits of which three in ten became eights"""
    source = Digits()
    rows, labels = torch.cat((source.train, source.test)), torch.cat((source.train_labels, source.test_labels))
    eights = rows[labels == 8]

    def draw(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = (_some(rows, n, rng) for _ in range(2))
        return x, torch.where(torch.rand(n, 1, generator=rng) < 0.3, _some(eights, n, rng), y)

    return draw


def _mnist(root: str) -> Draw:
    """MNIST against MNIST blurred by 0.6 pixels"""
    rows = MNIST(root, download=False, test_size=None).test
    damaged = blurred(rows, (1, 28, 28), 0.6)
    return lambda n, rng: (_some(rows, n, rng), _some(damaged, n, rng))


LAWS: dict[str, Callable[[str], Draw]] = {
    "blobs": _blobs, "shift": _shift, "variance": _variance, "digits": _digits, "mnist": _mnist,
}  # fmt: skip
"""Pair of different laws → what opens it, from the folder that holds MNIST."""
KNOWN: dict[str, Oracle] = {
    "shift2": Shift(dim=2), "ball2": Ball(dim=2), "mixture2": MixtureDilation(dim=2), "dilation16": Dilation(dim=16),
}  # fmt: skip
"""Pairs of laws whose W1 is known."""


def measure(seeds: list[int], overrides: list[str], out: Path) -> str:
    """Draws samples of equal and of different laws, and tests them by every method, on the same draws.

    Arguments:
        seeds: Of the draws.
        overrides: `draws=100`; `cases=level,blobs,coverage`; `root=DIR`, the folder that holds MNIST, by default where
            configurations keep it. Nothing is downloaded.
        out: The suite's folder; see :func:`wgan_lip.benchmarks.cases.run_cases`. It gets a page, `README.md`.

    Raises:
        InputError: An override that is none of these.
    """
    legal: dict[str, Callable[[str], Any]] = {
        "draws": positive_number("draws"),
        "cases": some_of(["level", *LAWS, "coverage"], "cases"),
        "root": str,
    }
    chosen: dict[str, Any] = {"draws": DRAWS, "cases": ["level", *LAWS, "coverage"], "root": ROOT}
    chosen |= parse_overrides(overrides, legal)
    draws, root = max(2, round(chosen["draws"])), str(Path(chosen["root"]).expanduser())
    absent = {
        name: f"no {' or '.join(places)} in {chosen['root']}"
        for name in chosen["cases"]
        if (places := FOLDERS.get(name, ())) and not any((Path(root) / place).is_dir() for place in places)
    }
    pieces = [
        piece
        for seed in dict.fromkeys(seeds)
        for name in chosen["cases"]
        if name not in absent
        for piece in _pieces(name, draws, seed, root)
    ]
    rows = run_cases(pieces, out, workers=1)
    tables = _tables(rows)
    more = {"level": LEVEL, "samples": SAMPLES, "permutations": PERMUTATIONS, "draws": draws, "skipped": absent}
    write_results("tests", seeds, out, overrides, threads=1, **more, rows=rows)
    text = "\n".join([*tables, *(f"Left out: {name}: {why}" for name, why in absent.items())]) + "\n"
    how = f"One thread. {SAMPLES} samples of each law, {PERMUTATIONS} permutations, the same draws for all methods."
    title = "Two-sample tests: level, power, coverage"
    write_page(out, title=title, how=how, parts=[text, *_reading(rows, draws)])
    return text


def _pieces(name: str, draws: int, seed: int, root: str) -> list[Tested]:
    """The pieces of a case; draws of one are numbered on through its pieces."""
    wanted = {"level": {"level": 5 * draws, "level_betting": 5 * draws // 4}, "coverage": {"coverage": draws // 2}}
    kinds = wanted.get(name, {"power": draws, "betting": draws})
    pairs = list(KNOWN) if name == "coverage" else ["equal" if name == "level" else name]
    return [
        Tested({"kind": kind, "pair": pair, "first": first, "seed": seed}, min(block, total - first), root)
        for kind, total in kinds.items()
        for pair in pairs
        for block in (KINDS[kind],)
        for first in range(0, total, block)
    ]


@dataclass(frozen=True)
class Tested(Piece):
    """Some draws of a pair of laws, each tested by one method or by several.

    Attributes:
        labels: `kind`, `pair`, the number of the `first` draw, and `seed`.
        draws: How many draws.
        root: The folder that holds MNIST.
    """

    draws: int
    root: str = field(repr=False)

    def settings(self) -> dict[str, Any]:
        kept = {"samples": SAMPLES, "permutations": PERMUTATIONS, "level": LEVEL}
        return {**self.labels, "methods": list(self.methods), "draws": self.draws, **kept}

    @property
    def methods(self) -> tuple[str, ...]:
        return {"level": (DEFAULT,), "power": RIVALS}.get(self.labels["kind"], ("betting",))

    def in_words(self, row: Mapping[str, Any]) -> str:
        shares = {name: sum(p <= 1 - LEVEL + 1e-12 for p in ps) / self.draws for name, ps in row["pvalues"].items()}
        return ", ".join(f"{name} rejected {100 * share:.1f} %" for name, share in shares.items())

    def measured(self) -> dict[str, Any]:
        """Lists over the draws: `pvalues` by method, and where betting is among them its bounds `w1_lower`."""
        kind, name = self.labels["kind"], self.labels["pair"]
        oracle = KNOWN[name] if kind == "coverage" else None
        draw = {"equal": _equal, **LAWS}[name](self.root) if oracle is None else _law(oracle)
        pvalues: dict[str, list[float]] = {method: [] for method in self.methods}
        bounds: list[float] = []
        for number in range(self.labels["first"], self.labels["first"] + self.draws):
            seed = 1_000_000 * self.labels["seed"] + number  # the same draw for every kind of piece
            x, y = draw(SAMPLES, torch.Generator().manual_seed(seed))
            for method in self.methods:
                if method == "C2ST":
                    pvalues[method].append(_classifier_pvalue(x, y, seed))
                    continue
                permutations = None if method == "betting" else PERMUTATIONS
                found = two_sample_test(x, y, method=method, permutations=permutations, level=LEVEL, seed=number)
                pvalues[method].append(found.pvalue)
                if found.w1_lower is not None:
                    bounds.append(found.w1_lower)
        known = {"w1": oracle.w1} if oracle is not None else {}
        return {"draws": self.draws, "pvalues": pvalues, **({"w1_lower": bounds} if bounds else {}), **known}


def _law(oracle: Oracle) -> Draw:
    return lambda n, rng: oracle.sample(n, n, rng)


def _normal(n: int, dim: int, rng: torch.Generator) -> Tensor:
    return torch.randn(n, dim, generator=rng, dtype=torch.float64)


def _some(rows: Tensor, n: int, rng: torch.Generator) -> Tensor:
    return rows[torch.randint(len(rows), (n,), generator=rng)]


def _classifier_pvalue(x: Tensor, y: Tensor, seed: int) -> float:
    """A classifier two-sample test (Lopez-Paz, Oquab, 2017): the accuracy of a logistic regression on a held-out half,
    against a fair coin."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = torch.cat((x, y)).double().numpy()
    labels = np.repeat([0, 1], [len(x), len(y)])
    rng = np.random.default_rng(seed)
    halves = [np.array_split(rng.permutation(np.flatnonzero(labels == side)), 2) for side in (0, 1)]
    train, held = (np.concatenate(parts) for parts in zip(*halves))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(rows[train], labels[train])
    right = int((model.predict(rows[held]) == labels[held]).sum())
    return float(binom.sf(right - 1, len(held), 0.5))


def _of(rows: Iterable[Mapping[str, Any]], kind: str, pair: str | None = None) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["kind"] == kind and pair in (None, row["pair"])]


def _rejections(rows: Iterable[Mapping[str, Any]], method: str) -> tuple[int, int]:
    """How many rejected at 1 − level, and of how many."""
    pvalues = list(chain.from_iterable(row["pvalues"][method] for row in rows if method in row["pvalues"]))
    return sum(p <= 1 - LEVEL + 1e-12 for p in pvalues), len(pvalues)


def _power(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Pair → method → share of rejections."""
    found: dict[str, dict[str, float]] = {}
    for pair in dict.fromkeys(row["pair"] for row in rows if row["kind"] in ("power", "betting")):
        for method in (*RIVALS, "betting"):
            count, total = _rejections([*_of(rows, "power", pair), *_of(rows, "betting", pair)], method)
            if total:
                found.setdefault(pair, {})[method] = count / total
    return found


def _tables(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines: list[str] = []
    levels = []
    for kind, method in (("level", DEFAULT), ("level_betting", "betting")):
        count, total = _rejections(_of(rows, kind), method)
        if total:
            most = int(binom.ppf(0.99, total, 1 - LEVEL))
            levels.append([method, total, count, f"{100 * count / total:.1f} %", most])
    if levels:
        heads = ["test", "draws of equal laws", "rejected", "share", "at most, 99 % of the time"]
        lines += ["**Level 5 %: equal laws**", "", markdown_table(heads, levels), ""]
    power = _power(rows)
    if power:
        cells = []
        for pair, shares in power.items():
            best = max(share for method, share in shares.items() if method in RIVALS)
            shown = [
                "" if method not in shares
                else f"**{shares[method]:.3f}**" if shares[method] == best and method in RIVALS
                else f"{shares[method]:.3f}"
                for method in (*RIVALS, "betting")
            ]  # fmt: skip
            bounds = list(chain.from_iterable(row["w1_lower"] for row in _of(rows, "betting", pair)))
            cells.append([pair, *shown, f"{np.mean(bounds):.3g}" if bounds else ""])
        heads = ["laws", *(f"{name} (default)" if name == DEFAULT else name for name in RIVALS), "betting", "mean δ"]
        lines += [
            "**Power: share of draws in which equality is rejected at 5 %**",
            "",
            markdown_table(heads, cells),
            "",
        ]
    coverage = []
    for pair in dict.fromkeys(row["pair"] for row in _of(rows, "coverage")):
        of = _of(rows, "coverage", pair)
        bounds = list(chain.from_iterable(row["w1_lower"] for row in of))
        w1 = of[0]["w1"]
        held = sum(bound <= w1 for bound in bounds)
        coverage.append(
            [pair, KNOWN[pair].dim, f"{w1:.4f}", len(bounds), f"{100 * held / len(bounds):.1f} %",
             f"{100 * np.mean(bounds) / w1:.1f} %"]
        )  # fmt: skip
    if coverage:
        heads = ["laws", "d", "W1", "draws", "δ ≤ W1", "mean δ / W1"]
        lines += ["**Coverage of δ at 95 %, where W1 of the laws is known**", "", markdown_table(heads, coverage), ""]
    return lines


def _reading(rows: Sequence[Mapping[str, Any]], draws: int) -> list[str]:
    """How to read the tables, and where the default loses."""
    power = _power(rows)
    lines = [
        "**How to read it**",
        "",
        "Energy, MMD (a Gaussian kernel as wide as the median distance) and sliced W1 (100 directions) get their p by "
        "permutation; combined, the product of the p-values of energy and sliced W1, is permuted once more. C2ST is "
        "the accuracy of a logistic regression on a held-out half. Betting pays for what the "
        "others do not give: it may be looked at after every pair, and δ bounds W1 of the laws from below, in the "
        f"units of the samples. A share of {draws} draws has a standard error of at most {0.5 / math.sqrt(draws):.3f}.",
        "",
    ]
    named = {"equal": _equal, **LAWS}
    told = [f"- {name}: {(named[name].__doc__ or name).rstrip('.')}." for name in power]
    lines += [*told, ""] if told else []
    if power:
        best = {pair: max(share for name, share in of.items() if name in RIVALS) for pair, of in power.items()}
        lost = {pair: best[pair] - of[DEFAULT] for pair, of in power.items() if best[pair] - of[DEFAULT] > CLOSE}
        lines += [f"The default is within {CLOSE} of the best on {len(power) - len(lost)} of {len(power)} pairs."]
        for pair, gap in lost.items():
            winner = max(RIVALS, key=lambda name: power[pair].get(name, 0.0))
            found = f"{winner} rejects in {power[pair][winner]:.3f} of the draws, {gap:.3f} more"
            lines.append(f"It loses on {pair}: {found}.")
    return ["\n".join(lines)]
