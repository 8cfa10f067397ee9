"""Suite oracles: critics trained and measured on laws that are no funnels, so that nothing is tuned to those."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wgan_lip import figures
from wgan_lip.benchmarks.cases import (
    mean_of,
    number,
    parse_overrides,
    percent,
    positive_number,
    run_cases,
    some_of,
)
from wgan_lip.benchmarks.contest import ROUNDING, Case, Pair, method_table
from wgan_lip.benchmarks.machine import write_page, write_results
from wgan_lip.benchmarks.methods import COMPARED, METHODS
from wgan_lip.data import Digits, Gaussians8, Gaussians25
from wgan_lip.data.oracles import ORACLES, RayMonotone, Simplex
from wgan_lip.data.sources import FiniteSource, Source
from wgan_lip.utils.tables import markdown_table

__all__ = ["PAIRS", "Translation", "measure"]

DIM = 16  # of the oracles; mixtures are on the plane, digits have 64 dimensions
SECONDS = 10.0  # of training, for every method
SOURCES: dict[str, type[Source]] = {source.name: source for source in (Gaussians8, Gaussians25, Digits)}


@dataclass(frozen=True)
class Translation:
    r"""A law P and its translate: :math:`y \sim x + t` with :math:`t = \ell (1, \dots, 1) / \sqrt d`.

    .. math:: f(x) = -\langle x, t \rangle / \ell, \qquad W_1 = \ell

    Where the law is known by a sampler, all samples are fresh. Where there are rows only, such as digits, training
    draws with replacement, x from one half of the training rows and y from the other; pairs are held-out rows, drawn
    with replacement, and their translates.

    Arguments:
        source: A key of `SOURCES`.
        length: :math:`\ell`.
    """

    source: str
    length: float = 1.0

    @cached_property
    def _source(self) -> Source:
        return SOURCES[self.source]()

    @property
    def dim(self) -> int:
        return self._source.dim

    @property
    def _shift(self) -> float:
        return self.length / math.sqrt(self.dim)

    def sample(self, n: int, m: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        if not isinstance(self._source, FiniteSource):
            return self._source.sample(n, rng), self._source.sample(m, rng) + self._shift
        rows = self._source.train
        middle = len(rows) // 2
        return _drawn(rows[:middle], n, rng), _drawn(rows[middle:], m, rng) + self._shift

    def pair(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        finite = isinstance(self._source, FiniteSource)
        x = _drawn(self._source.test, n, rng) if finite else self._source.sample(n, rng)
        return x.double(), x.double() + self._shift

    def gradient(self, x: Tensor) -> Tensor:
        return torch.full_like(x, -1 / math.sqrt(self.dim))


def _drawn(rows: Tensor, n: int, rng: torch.Generator) -> Tensor:
    return rows[torch.randint(len(rows), (n,), generator=rng)]


PAIRS: dict[str, Callable[[], Pair]] = {
    **{name: partial(oracle, dim=DIM) for name, oracle in ORACLES.items() if name != RayMonotone.name},
    **{name: partial(Translation, name) for name in SOURCES},
}


def measure(seeds: list[int], overrides: list[str], out: Path) -> str:
    """Trains every method on every pair; draws `oracles.png`.

    Arguments:
        seeds: Of critics and samples; random parameters of the pairs stay the same.
        overrides: `pairs=shift,digits`, `methods=cones,linear`, `seconds=10`; all by default.
        out: The suite's folder; see :func:`wgan_lip.benchmarks.cases.run_cases`.
    """
    legal = {
        "pairs": some_of(PAIRS, "pairs"),
        "methods": some_of(METHODS, "methods"),
        "seconds": positive_number("seconds"),
    }
    chosen = {"pairs": PAIRS, "methods": COMPARED, "seconds": SECONDS, **parse_overrides(overrides, legal)}
    cases = [
        Case({"pair": pair, "method": method, "seed": seed}, PAIRS[pair](), METHODS[method], chosen["seconds"])
        for seed, pair, method in product(dict.fromkeys(seeds), chosen["pairs"], chosen["methods"])
    ]
    rows = [_without_kinks(row) for row in run_cases(cases, out)]
    more = {"seconds": chosen["seconds"], "pairs": {name: repr(PAIRS[name]()) for name in chosen["pairs"]}}
    methods = {name: METHODS[name].settings() for name in chosen["methods"]}
    write_results("oracles", seeds, out, overrides, threads=1, **more, methods=methods, rows=rows)
    _draw(rows, out)
    table = _table(rows)
    how = f"{chosen['seconds']:g} seconds of processor time a critic, one thread."
    parts = [table, "![what each critic certifies of W1](oracles.png)", _leaders(rows)]
    write_page(out, title="Critics against known potentials", how=how, parts=parts)
    return table


def _leaders(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which method certifies most of W1 on which pairs."""
    pairs, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in ("pair", "method"))
    ahead: dict[str, list[str]] = {}
    for pair in pairs:
        values = {m: _mean(rows, pair, m, "certified_ratio") for m in methods}
        known = {method: value for method, value in values.items() if value is not None}
        if known:
            ahead.setdefault(max(known, key=lambda method: known[method]), []).append(pair)
    told = [f"- {method} on {', '.join(of)}" for method, of in ahead.items()]
    return "\n".join(["**Who certifies most of W1**", "", *told])


def _without_kinks(row: dict[str, Any]) -> dict[str, Any]:
    """No cosines on a simplex: the potential has kinks at the corners, where all of P is, and any of many gradients."""
    return {**row, "cosine": None, "cosine_error": None} if row["pair"] == Simplex.name else row


def _mean(rows: Sequence[Mapping[str, Any]], pair: str, method: str, key: str) -> float | None:
    return mean_of([row for row in rows if row["pair"] == pair and row["method"] == method], key)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table a measure, pairs by methods, means over seeds; then a line a method."""
    pairs, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in ("pair", "method"))
    lines: list[str] = []
    for title, key, form in _MEASURES:
        cells = [[pair, *(form(_mean(rows, pair, method, key)) for method in methods)] for pair in pairs]
        lines += [f"**{title}**", "", markdown_table(["pair", *methods], cells), ""]
    return "\n".join([*lines, "**Means over pairs**", "", method_table(rows), "", _LEGEND]) + "\n"


def _share(ratio: float | None) -> str:
    above = ratio is not None and ratio > 1 + ROUNDING
    return percent(ratio) + " ▲" * above


_MEASURES: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("Value / W1", "ratio", _share),
    ("Mean cosine of gradients", "cosine", lambda value: number(value, "{:.4f}")),
    ("Mean gradient norm on transport rays", "ray_gradient_norm", lambda value: number(value, "{:.4f}")),
    ("Certified constant over the steepest slope found", "tightness", lambda value: number(value, "{:.5g}")),
)

_LEGEND = f"""\
Oracles of {DIM} dimensions in their default forms; two mixtures on the plane, and digits, each against its translate.
▲: above the mean length of the pairs it was measured on, which no 1-Lipschitz critic can be. The potential of a
simplex has kinks at the corners, where all of P is, and no cosine. Digits: a critic sees 1,297 rows, one half as P
and the other, moved, as Q, and is measured on 500 held-out rows and their translates: value / W1 counts what it learnt
of the law, not of the rows. "certified": its constant stays at most 1; "certified, conservative": a valid constant that
is not reached; "not certified": nothing in its training bounds it."""


def _draw(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Certified value over W1, a line a pair, a mark a method."""
    pairs, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in ("pair", "method"))
    marks = {
        method.replace("_", " "): {
            pair.replace("_", " "): share
            for pair in pairs
            if (share := _mean(rows, pair, method, "certified_ratio")) is not None
        }
        for method in methods
    }
    figure = figures.score_dots(
        marks,
        quantity="value over its certified constant, over $W_1$",
        title="What each critic certifies of $W_1$",
    )
    figures.save(figure, out / "oracles.png", dpi=130)
