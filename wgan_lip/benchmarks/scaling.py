"""Suite scaling: seconds of exact transport over dimension and number of samples, by POT and by this package.

Two Gaussian sets of n samples each, of unequal variance and mean. POT gets its distances by `ot.dist`, as its users
compute them. All tools run in one process on one thread, in turns, so that what disturbs one disturbs the others; a
figure is the median of the turns' CPU time, and a ratio the median of the turns' ratios.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from wgan_lip.benchmarks.machine import threads, turns_of, write_page, write_results
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.numbers import rounded
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.loss import w1

__all__ = ["measure"]

DIMS, SIZES = (2, 16, 64, 384, 784), (256, 1000, 2000)
TURNS, SECONDS = 15, 20.0  # at most, and about so many seconds of turns after the first three
LIFTED = 10**9  # iterations of the exact solver
AGREE = 1e-9  # relative, between tools


def measure(seeds: list[int], out: Path, overrides: Sequence[str] = ()) -> str:
    """Measures every tool at every size in every dimension; `dims=2,16` and `sizes=256,1000` choose some of them."""
    grid = {"dims": DIMS, "sizes": SIZES}
    for override in overrides:
        key, _, numbers = override.partition("=")
        if key not in grid or not all(number.isdigit() and int(number) for number in numbers.split(",")):
            raise InputError(f"Expected overrides like 'dims=2,16' or 'sizes=256,1000'. Got {override!r}.")
        grid[key] = tuple(int(number) for number in numbers.split(","))
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        for dim in grid["dims"]:
            for n in grid["sizes"]:
                with threads(1):
                    rows.append({"seed": seed, "dim": dim, "n": n, **_measured(_tools(dim, n, seed))})
                write_results("scaling", seeds, out, overrides, rows=rows)
    table = _table(rows)
    how = "One thread; medians of the turns."
    write_page(out, title="Seconds of exact transport by size and dimension", how=how, parts=[table])
    return table


def _tools(dim: int, n: int, seed: int) -> dict[str, Callable[[], float]]:
    """Each returns W1; samples and imports are ready."""
    import ot

    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, dim)), 1.1 * rng.standard_normal((n, dim)) + 0.3
    mass = np.full(n, 1 / n)
    of_x, of_y = torch.from_numpy(x), torch.from_numpy(y)
    return {
        "POT": lambda: float(ot.emd2(mass, mass, ot.dist(x, y, "euclidean"), numItermax=LIFTED)),
        "solve": lambda: solve(x, y).value,
        "w1": lambda: w1(of_x, of_y).item(),
    }


def _measured(tools: dict[str, Callable[[], float]]) -> dict[str, Any]:
    values = {name: tool() for name, tool in tools.items()}
    if max(values.values()) - min(values.values()) > AGREE * max(values.values()):
        raise RuntimeError(f"The tools disagree about W1: {values}.")
    turns = turns_of(tools, turns=TURNS, seconds=SECONDS)
    seconds = {name: median(turn[name] for turn in turns) for name in tools}
    ratios = {name: median(turn[name] / turn["POT"] for turn in turns) for name in tools if name != "POT"}
    return {"w1": values["POT"], "turns": len(turns), "seconds": seconds, "ratios": ratios}


def _table(rows: list[dict[str, Any]]) -> str:
    heads = ["d", "n", "POT, ms", "solve, ms", "solve / POT", "w1, ms", "w1 / POT", "turns"]
    lines = [
        [
            str(row["dim"]),
            f"{row['n']:,}",
            rounded(1e3 * row["seconds"]["POT"], 3),
            *(
                cell
                for name in ("solve", "w1")
                for cell in (rounded(1e3 * row["seconds"][name], 3), f"{row['ratios'][name]:.2f}")
            ),
            str(row["turns"]),
        ]
        for row in rows
    ]
    return "\n".join([markdown_table(heads, lines), "", *_growth(rows), "", _LEGEND]) + "\n"


def _growth(rows: list[dict[str, Any]]) -> list[str]:
    """The exponent of n from the smallest to the largest size, in each dimension."""
    lines = []
    for dim in dict.fromkeys(row["dim"] for row in rows):
        of_dim = sorted((row["n"], row["seconds"]) for row in rows if row["dim"] == dim)
        (least, first), (most, last) = of_dim[0], of_dim[-1]
        if least < most:
            told = (f"{name} {math.log(last[name] / first[name]) / math.log(most / least):.2f}" for name in first)
            lines.append(f"Growth in n, d = {dim}, from {least:,} to {most:,}: exponents {', '.join(told)}.")
    return lines


_LEGEND = """\
One thread. POT: `ot.dist` and `ot.emd2`, no gradient, no bounds. solve: W1 between proved bounds, with plan and
potential, from arrays. w1: the differentiable loss, forward, from tensors. Median CPU time of all turns."""
