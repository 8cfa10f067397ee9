"""Suite scaling_large: how soon W1 is enclosed where no other tool gets, up to a million samples a side.

Every pair is narrowed in a process of its own, until it is as narrow as asked or its time is up; how narrow it was by
when is kept.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wgan_lip.benchmarks.cases import Piece, parse_overrides, positive_number, run_cases, some_of
from wgan_lip.benchmarks.machine import peak_memory, threads, write_page, write_results
from wgan_lip.data.oracles import Funnel
from wgan_lip.transport import meet, narrow
from wgan_lip.utils.numbers import rounded, rounded_down, rounded_up
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.interval import width_text

__all__ = ["measure"]

SECONDS = 600.0
CORES = 2  # threads of a pair


@dataclass(frozen=True)
class LargePair(Piece):
    """A pair of many samples, and how far it is to be narrowed.

    Attributes:
        labels: `pair`, `dim`, `n`, `seed`.
        width: Relative to the upper end, at which it is narrow enough.
        seconds: After which it is left.
        cores: Threads.
    """

    width: float
    seconds: float
    cores: int

    def measured(self) -> dict[str, Any]:
        import ot  # noqa: F401  # ready before the clock starts, as the samples are

        x, y = _pair(**self.labels)
        history: list[dict[str, Any]] = []
        before, start, cpu = peak_memory(reset=True), time.monotonic(), time.process_time()
        with threads(self.cores):
            for found in narrow(x, y, deadline=start + self.seconds):
                lower, upper = found.transport.lower, found.transport.upper
                spent = {"seconds": time.monotonic() - start, "cpu_seconds": time.process_time() - cpu}
                history.append({"stage": found.stage, "lower": lower, "upper": upper, **spent})
                print(f"{self.name}, {found.stage}: {self.in_words(history[-1])}", file=sys.stderr, flush=True)
                if upper - lower <= self.width * upper or meet(lower, upper):
                    break
        peak = peak_memory()
        mebibytes = None if before is None or peak is None else (peak - before) / 2**20
        return {**history[-1], "optimal": found.optimal, "mebibytes": mebibytes, "history": history}

    def in_words(self, row: Mapping[str, Any]) -> str:
        return f"{width_text(row['lower'], row['upper'])} after {row['seconds']:.0f} s, {row['cpu_seconds']:.0f} CPU s"

    def settings(self) -> dict[str, Any]:
        return {**self.labels, "width": self.width, "seconds": self.seconds, "cores": self.cores}


PAIRS = {
    "exact-50": ("gaussians", 50, 20_000, 0.0),
    "many-2": ("gaussians", 2, 100_000, 1e-4),
    "many-50": ("gaussians", 50, 100_000, 0.05),
    "funnels-2": ("funnels", 2, 100_000, 1e-3),
    "million-2": ("gaussians", 2, 1_000_000, 0.01),
    "million-funnels-2": ("funnels", 2, 1_000_000, 0.05),
}
"""By name: the laws, dimension, samples of each side, and the relative width that is narrow enough."""


def measure(seeds: list[int], out: Path, overrides: Sequence[str] = ()) -> str:
    """Narrows every pair of many samples; a pair that has been measured into the same folder is not measured again.

    `pairs=exact-50,million-2` chooses some of them; `seconds=60` is the most for each, `cores=1` its threads.
    """
    legal = {
        "pairs": some_of(PAIRS, "pairs"),
        "seconds": positive_number("seconds"),
        "cores": some_of(range(1, 65), "cores"),
    }
    chosen = {"pairs": list(PAIRS), "seconds": SECONDS, "cores": [CORES], **parse_overrides(overrides, legal)}
    cases = []
    for seed in seeds:
        for name in chosen["pairs"]:
            pair, dim, n, width = PAIRS[name]
            labels = {"pair": pair, "dim": dim, "n": n, "seed": seed}
            cases.append(LargePair(labels, width, chosen["seconds"], chosen["cores"][0]))
    rows = run_cases(cases, out, workers=1)
    write_results("scaling_large", seeds, out, overrides, rows=rows)
    table = _table(rows)
    many = "s" * (chosen["cores"][0] > 1)
    how = f"{chosen['cores'][0]} thread{many}; every pair in a process of its own, the samples ready."
    write_page(out, title="W1 of up to a million samples", how=how, parts=[table, *map(_course, rows)])
    return table


def _pair(pair: str, dim: int, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """N(0, I) and N(0, 1.44 I), or the funnels; all samples independent."""
    rng = torch.Generator().manual_seed(seed)
    if pair == "funnels":
        x, y = Funnel(dim=dim, funnels=16).sample(n, n, rng)
        return x.double(), y.double()
    x, y = torch.randn(2, n, dim, generator=rng, dtype=torch.float64)
    return x, 1.2 * y


def _table(rows: list[dict[str, Any]]) -> str:
    heads = ["pair", "d", "n", "first interval", "within 5 %", "last interval", "width", "s", "CPU s", "MiB"]
    lines = []
    for row in rows:
        first = row["history"][0]
        near = (told for told in row["history"] if told["upper"] - told["lower"] <= 0.05 * told["upper"])
        lines.append(
            [
                row["pair"],
                str(row["dim"]),
                f"{row['n']:,}",
                f"{_ends(first)} after {rounded(first['seconds'], 2)} s",
                "" if (told := next(near, None)) is None else f"{rounded(told['seconds'], 2)} s",
                _ends(row),
                "optimal" if row["optimal"] else width_text(row["lower"], row["upper"]).removeprefix("width "),
                rounded(row["seconds"], 3),
                rounded(row["cpu_seconds"], 3),
                "" if row["mebibytes"] is None else f"{row['mebibytes']:.0f}",
            ]
        )
    return f"{markdown_table(heads, lines)}\n\n{_LEGEND}\n"


def _course(row: dict[str, Any]) -> str:
    """How a pair was narrowed."""
    heads = ["", "interval", "width", "s", "CPU s"]
    lines = [
        [
            told["stage"],
            _ends(told),
            width_text(told["lower"], told["upper"]).removeprefix("width "),
            rounded(told["seconds"], 3),
            rounded(told["cpu_seconds"], 3),
        ]
        for told in row["history"]
    ]
    return f"**{row['pair']}** (d = {row['dim']}, n = {row['n']:,})\n\n{markdown_table(heads, lines)}"


def _ends(told: Mapping[str, Any]) -> str:
    return f"[{rounded_down(told['lower'], 5)}, {rounded_up(told['upper'], 5)}]"


_LEGEND = """\
gaussians: N(0, I) against N(0, 1.44 I). All intervals are certified. s: wall time from the samples on; MiB: the peak of
memory above that of the samples."""
