"""Suite coverage: how often the confidence bounds on W1 of two laws hold, where W1 is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wgan_lip.benchmarks.machine import threads, write_results
from wgan_lip.data.oracles import Ball, Grid, MixtureDilation, Oracle, RayMonotone, Simplex
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.population import bernstein_lower_bound, betting_lower_bound, normal_lower_bound

__all__ = ["measure"]

REPETITIONS = 1000
SIZES = (100, 500, 5000)
LEVEL = 0.95
CALIBRATION = 200_000  # samples that fix the range of the potential, beyond which it is clipped
BLOCK = 50  # repetitions at once


def measure(seeds: list[int], out: Path) -> str:
    """Bounds W1 from `REPETITIONS` pairs of sample sets of each size, with the potential itself as the critic."""
    oracles = (
        Ball(dim=2),
        MixtureDilation(dim=2),
        Simplex(dim=2),
        Grid(dim=2),
        RayMonotone(dim=16, funnels=16, seed=1),
    )
    rows = []
    with threads():
        for seed in seeds:
            rows += [_row(oracle, n, seed) for oracle in oracles for n in SIZES]
    write_results("coverage", seeds, out, level=LEVEL, rows=rows)
    return _table(rows)


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
