"""Suite coverage: how often the confidence bounds on W1 and sliced W1 of two laws hold, where these are known."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from wgan_lip.benchmarks.machine import threads, write_page, write_results
from wgan_lip.data.oracles import Ball, Grid, MixtureDilation, Oracle, RayMonotone, Simplex
from wgan_lip.transport import solve
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.population import bernstein_lower_bound, betting_lower_bound, normal_lower_bound
from wgan_lip.wasserstein.sliced import mean_projection, sliced_w1

__all__ = ["measure"]

REPETITIONS = 1000
SIZES = (100, 500, 5000)
LEVEL = 0.95
CALIBRATION = 200_000  # samples that fix the range of the potential, beyond which it is clipped
BLOCK = 50  # repetitions at once
SLICED_REPETITIONS = 200
SLICED_SIZES = (1000, 5000)
DIRECTIONS = 100
TRIM = 0.1
UPPER_REPETITIONS = 20
UPPER_DIMS, UPPER_SIZES = (2, 8, 32), (500, 2000)


def measure(seeds: list[int], out: Path) -> str:
    """Bounds W1 from `REPETITIONS` pairs of sample sets of each size, with the potential itself as the critic."""
    oracles = (
        Ball(dim=2),
        MixtureDilation(dim=2),
        Simplex(dim=2),
        Grid(dim=2),
        RayMonotone(dim=16, funnels=16, seed=1),
    )
    rows, sliced, upper = [], [], []
    with threads():
        for seed in seeds:
            rows += [_row(oracle, n, seed) for oracle in oracles for n in SIZES]
            sliced += [_sliced_row(name, dim, n, seed) for name in SLICED for dim in (2, 16) for n in SLICED_SIZES]
            upper += [_upper_row(dim, n, seed) for dim in UPPER_DIMS for n in UPPER_SIZES]
    more: dict[str, Any] = {"trim": TRIM, "directions": DIRECTIONS, "sliced": sliced, "upper": upper}
    write_results("coverage", seeds, out, level=LEVEL, rows=rows, **more)
    table = f"{_table(rows)}\n{_sliced_table(sliced)}\n{_upper_table(upper)}"
    title, how = "How often the bounds on W1 of the laws hold", f"One thread, level {LEVEL}."
    write_page(out, title=title, how=how, parts=[table, READING])
    return table


READING = f"""\
**Lower bounds.** {REPETITIONS:,} repetitions with n + n samples, the critic being the potential of the pair; in
brackets how far below W1 the bound lies on average. A share of {REPETITIONS:,} repetitions scatters by 0.7 %. Normal
bounds hold as n grows, the others at every n.

**Sliced W1.** Trimmed by {TRIM:g} at both ends, {DIRECTIONS} directions, {SLICED_REPETITIONS} repetitions.

**Upper bounds.** Those of `population_bounds` for supports of known diameter, {UPPER_REPETITIONS} repetitions. Beside
them the least that a bound through the triangle inequality can be, one made of W1(P_n, Q_n) and of bounds on
W1(P, P_n) and W1(Q, Q_n), such as those of *Efficient distribution learning with error bounds in Wasserstein distance*
(Figueiredo, Adams, Laurenti, 2026): in the mean it is at least W1(P_n, Q_n) + ½ [W1(P_n, P'_n) + W1(Q_n, Q'_n)] with
fresh samples, however it is computed. Its slack shrinks like n^(-1/d), ours like n^(-1/2)."""


def _trimmed_moment(trim: float) -> float:
    """Mean of |Z| between the quantiles of levels `trim` and 1 − `trim` of a standard normal Z."""
    normal = NormalDist()
    return 2 * (normal.pdf(0) - normal.pdf(normal.inv_cdf(1 - trim))) / (1 - 2 * trim)


SLICED = {
    "shift by 2": (1.0, 2.0, lambda dim, trim: 2 * mean_projection(dim)),
    "dilation by 2": (2.0, 0.0, lambda dim, trim: _trimmed_moment(trim)),
    "equal laws": (1.0, 0.0, lambda dim, trim: 0.0),
}
"""Standard normal laws against others: standard deviation, shift, and the trimmed sliced W1 in closed form."""


def _sliced_row(name: str, dim: int, n: int, seed: int, repetitions: int | None = None) -> dict[str, Any]:
    scale, shift, truth = SLICED[name][0], SLICED[name][1], SLICED[name][2](dim, TRIM)
    rng = torch.Generator().manual_seed(seed)
    covered, lowers, uppers = 0, [], []
    repetitions = repetitions or SLICED_REPETITIONS
    for repetition in range(repetitions):
        x, y = torch.randn(2, n, dim, generator=rng, dtype=torch.float64)
        y = scale * y + shift / math.sqrt(dim)
        found = sliced_w1(x, y, trim=TRIM, level=LEVEL, directions=DIRECTIONS, seed=repetition)
        upper = math.inf if found.upper is None else found.upper
        covered += found.lower <= truth <= upper
        lowers.append(found.lower)
        uppers.append(upper)
    return {
        "laws": name, "dim": dim, "n": n, "seed": seed, "sliced_w1": truth, "coverage": covered / repetitions,
        "lower": math.fsum(lowers) / repetitions, "upper": math.fsum(uppers) / repetitions,
    }  # fmt: skip


def _upper_row(dim: int, n: int, seed: int) -> dict[str, Any]:
    """The upper bound for supports of known diameter, and the least that a bound through the triangle can be.

    That is W1(P_n, Q_n) plus a bound on each of W1(P, P_n) and W1(Q, Q_n), as in Efficient distribution learning with
    error bounds in Wasserstein distance (Figueiredo, Adams, Laurenti, 2026). If these hold, their sum is at least
    ½ [W1(P_n, P'_n) + W1(Q_n, Q'_n)] in the mean, with fresh samples P'_n, Q'_n, however they are computed.
    """
    rng = torch.Generator().manual_seed(seed)
    along = torch.zeros(dim, dtype=torch.float64)
    along[0] = 1.0
    each = (1 + LEVEL) / 2  # as beside a lower bound, so that both ends hold at LEVEL
    slack = math.sqrt(math.log(1 / (1 - each)) * dim / n)  # McDiarmid's, of two cubes of diameter √d
    covered, ours, triangles = 0, [], []
    for _ in range(UPPER_REPETITIONS):
        x, x_fresh, y, y_fresh = torch.rand(4, n, dim, generator=rng, dtype=torch.float64)
        between = solve(x, y + along).value
        found = between + slack
        covered += found >= 1.0
        ours.append(found)
        triangles.append(between + (solve(x, x_fresh).value + solve(y, y_fresh).value) / 2)
    mean_of = {"upper": math.fsum(ours), "triangle": math.fsum(triangles), "coverage": covered}
    return {"dim": dim, "n": n, "seed": seed, "w1": 1.0, **{k: v / UPPER_REPETITIONS for k, v in mean_of.items()}}


def _row(oracle: Oracle, n: int, seed: int) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(seed)
    x, y = oracle.sample(CALIBRATION, CALIBRATION, rng)
    both = torch.cat((oracle.potential(x), oracle.potential(y)))
    low, high = float(both.min()), float(both.max())
    reach = high - low
    bounds: dict[str, list[float]] = {"normal": [], "bernstein": [], "betting": []}
    for _ in range(REPETITIONS // BLOCK):
        at_x, at_y = (values.clamp(low, high).view(BLOCK, n) for values in _values(oracle, BLOCK * n, rng))
        differences = (at_x - at_y).clamp(-reach, reach)
        bounds["normal"] += normal_lower_bound(at_x, LEVEL, minus=at_y).tolist()
        bounds["bernstein"] += bernstein_lower_bound(differences, -reach, reach, LEVEL).tolist()
        bounds["betting"] += betting_lower_bound(differences, -reach, reach, LEVEL).tolist()
    methods = {
        name: {"coverage": sum(bound <= oracle.w1 for bound in found) / len(found),
               "slack": 1 - math.fsum(found) / len(found) / oracle.w1}
        for name, found in bounds.items()
    }  # fmt: skip
    return {"oracle": oracle.name, "dim": oracle.dim, "n": n, "seed": seed, "w1": oracle.w1, "methods": methods}


def _values(oracle: Oracle, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    x, y = oracle.sample(n, n, rng)
    return oracle.potential(x), oracle.potential(y)


def _table(rows: list[dict[str, Any]]) -> str:
    def cells(row: dict[str, Any]) -> list[str]:
        found = [f"{100 * of['coverage']:.1f} % (−{100 * of['slack']:.1f} %)" for of in row["methods"].values()]
        return [row["oracle"], row["dim"], row["n"], *found]

    return markdown_table(["laws", "d", "n", *rows[0]["methods"]], map(cells, rows)) + "\n"


def _sliced_table(rows: list[dict[str, Any]]) -> str:
    cells = (
        [row["laws"], row["dim"], row["n"], f"{row['sliced_w1']:.3f}", f"{row['lower']:.3f} to {row['upper']:.3f}",
         f"{100 * row['coverage']:.1f} %"]
        for row in rows
    )  # fmt: skip
    return markdown_table(["normal laws", "d", "n", "sliced W1", "mean interval", "covers"], cells) + "\n"


def _upper_table(rows: list[dict[str, Any]]) -> str:
    cells = (
        [row["dim"], row["n"], f"{row['w1']:.3f}", f"{row['upper']:.3f}", f"{100 * row['coverage']:.1f} %",
         f"{row['triangle']:.3f}"]
        for row in rows
    )  # fmt: skip
    heads = ["d", "n", "W1", "mean upper bound", "covers", "mean of a bound through the triangle, at least"]
    return f"Uniform laws on two cubes of side 1, one side apart:\n\n{markdown_table(heads, cells)}\n"
