"""Suite calls: seconds of the calls that people make first, beside POT and SciPy, and whether `seconds=` is kept.

Everything runs in one process on one thread, in turns. Commands have a process each, with interpreter and imports.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import torch

import wgan_lip
from wgan_lip.benchmarks.machine import in_turns, threads, write_page, write_results
from wgan_lip.utils.numbers import rounded, rounded_down, rounded_up
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.interval import width_text

__all__ = ["measure"]

PAIRS = ((500, 2), (500, 50), (2000, 50))
"""Samples of each law, and their dimension."""
TURNS, SECONDS = 9, 20.0  # at most, and about so many seconds of turns after the first three
LIFTED = 10**9  # iterations of POT's exact solver
COMMAND = "wgan-lip estimate"
LIMITED = (
    (20, 20, 300_000, 10.0),
    (3, 100_000, 20, 10.0),
    (200_000, 100, 50, 10.0),
    (5_000, 5_000, 784, 10.0),
    (20_000, 20_000, 50, 5.0),
    (30_000, 30_000, 3, 10.0),
    (1_000_000, 1_000_000, 2, 20.0),
)
"""Samples of P and of Q, their dimension, and the seconds given."""


def measure(seeds: list[int], out: Path) -> str:
    """Measures every call on two shifted Gaussian sets, and the command `wgan-lip estimate` on the first pair."""
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        for n, dim in PAIRS:
            rng = np.random.default_rng(seed)
            x, y = rng.standard_normal((n, dim)), rng.standard_normal((n, dim)) + 0.5
            with threads(1):
                for call in _calls(x, y).values():
                    call()  # imports, and pages of memory
                seconds = in_turns(_calls(x, y), turns=TURNS, seconds=SECONDS)
                if not rows:
                    seconds |= in_turns({COMMAND: partial(_command, x, y)}, turns=3, seconds=SECONDS, children=True)
            rows.append({"seed": seed, "n": n, "dim": dim, "seconds": seconds})
            write_results("calls", seeds, out, rows=rows)
    with threads(1):
        limited = [_limited(seed, *shape) for seed in seeds for shape in LIMITED]
    write_results("calls", seeds, out, rows=rows, limited=limited)
    parts = [_table(rows), _limits(limited)]
    write_page(out, title="What the first calls cost", how="One thread.", parts=parts)
    return "\n".join(parts)


def _calls(x: np.ndarray, y: np.ndarray) -> dict[str, Callable[[], Any]]:
    import ot
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    mass = np.full(len(x), 1 / len(x))
    of_x, of_y = torch.from_numpy(x), torch.from_numpy(y)
    return {
        "ot.emd2": lambda: ot.emd2(mass, mass, ot.dist(x, y, "euclidean"), numItermax=LIFTED),
        "SciPy's assignment": lambda: linear_sum_assignment(cdist(x, y)),
        "w1": lambda: wgan_lip.w1(of_x, of_y),
        "estimate_w1": lambda: wgan_lip.estimate_w1(x, y),
        "estimate_w1, laws=True": lambda: wgan_lip.estimate_w1(x, y, laws=True),
        "two_sample_test": lambda: wgan_lip.two_sample_test(x, y),
        "sliced_w1": lambda: wgan_lip.sliced_w1(x, y),
    }


def _limited(seed: int, n: int, m: int, dim: int, given: float) -> dict[str, Any]:
    """How long an estimate takes when given `given` seconds."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, dim), np.float32), 1.2 * rng.standard_normal((m, dim), np.float32)
    start = time.monotonic()
    found = wgan_lip.estimate_w1(x, y, seconds=given)
    taken = time.monotonic() - start
    shape = {"seed": seed, "n": n, "m": m, "dim": dim}
    return {**shape, "given": given, "taken": taken, "lower": found.lower, "upper": found.upper}


def _command(x: np.ndarray, y: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (("x", x), ("y", y)):
            np.save(Path(folder, f"{name}.npy"), rows)
        command = [sys.executable, "-m", "wgan_lip", "estimate", "x=x.npy", "y=y.npy", "threads=1"]
        run(command, cwd=folder, check=True, capture_output=True)


def _table(rows: list[dict[str, Any]]) -> str:
    calls = list(dict.fromkeys(call for row in rows for call in row["seconds"]))
    heads = ["CPU seconds", *(f"{row['n']:,} + {row['n']:,}, d = {row['dim']}" for row in rows)]
    cells = [
        [call, *(rounded(row["seconds"][call], 2) if call in row["seconds"] else "" for row in rows)] for call in calls
    ]
    return "\n".join([markdown_table(heads, cells), "", _LEGEND]) + "\n"


def _limits(rows: list[dict[str, Any]]) -> str:
    heads = ["n", "m", "d", "`seconds=`", "took, s", "interval", "width"]
    cells = [
        [
            f"{row['n']:,}",
            f"{row['m']:,}",
            f"{row['dim']:,}",
            f"{row['given']:g}",
            f"{row['taken']:.1f}",
            f"[{rounded_down(row['lower'], 5)}, {rounded_up(row['upper'], 5)}]",
            width_text(row["lower"], row["upper"]).removeprefix("width "),
        ]
        for row in rows
    ]
    return f"**Whether `seconds=` is kept**, by the clock\n\n{markdown_table(heads, cells)}\n"


_LEGEND = """\
Medians of CPU time, one thread. `ot.emd2` and the assignment are given the distances they compute, and return a number.
`w1` has a gradient. `estimate_w1` returns proved bounds, a floor and the excess over it; with `laws=True` besides a
bound on W1 of the laws, by a critic that it trains, and a p by permutation. The command is `estimate_w1` with
`laws=True` and pictures, interpreter and imports included."""
