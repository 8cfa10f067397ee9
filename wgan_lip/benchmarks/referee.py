"""Suite referee: what plans and potentials of others prove about W1, and how far they are from optimal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from wgan_lip.benchmarks.machine import threads, write_page, write_results
from wgan_lip.data import Digits, Gaussians8, Moons
from wgan_lip.data.oracles import RayMonotone
from wgan_lip.transport import solve
from wgan_lip.utils.numbers import rounded, rounded_down, rounded_up
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.referee import certify_plan, certify_potential

__all__ = ["measure"]

SAMPLES = 300  # of each law
EPSILONS = (1.0, 0.1, 0.02)  # of Sinkhorn, and the blur of GeomLoss, in units of W1
ITERATIONS = 300  # of Sinkhorn
DIRECTIONS = 200  # of sliced plans
BATCHES, BATCH = 100, 64  # of mini-batch plans

Pair = tuple[np.ndarray, np.ndarray]
Duals = tuple[np.ndarray | None, np.ndarray | None]
Found = tuple[Any, Duals | None]
"""A plan and dual variables, either of which may be None."""


def measure(seeds: list[int], out: Path) -> str:
    """Referees every tool on samples whose W1 is known, on one thread; GeomLoss where it is installed."""
    rows: list[dict[str, Any]] = []
    with threads():
        for seed in seeds:
            for data, (x, y) in _pairs(seed).items():
                exact = solve(x, y)
                for tool, call in _tools(exact.value, seed):
                    start = time.perf_counter()
                    plan, duals = call(x, y)
                    seconds = time.perf_counter() - start
                    row = {"data": data, "tool": tool, "seed": seed, "exact": exact.value, "seconds": seconds}
                    rows.append({**row, **_proved(x, y, plan, duals)})
                write_results("referee", seeds, out, threads=1, rows=rows)
    table = _table(rows)
    how = f"One thread; {SAMPLES} + {SAMPLES} samples of each pair. Figures are medians over the seeds."
    write_page(out, title="What plans and potentials of others prove", how=how, parts=[READING, table])
    return table


READING = f"""\
Tools for optimal transport return a transport plan, dual variables (u, v), or both, and values computed from them. How
far these are from W1, and on which side, the tools do not know: plans of Sinkhorn and of slices are not optimal,
mini-batch plans do not have the right marginals, and dual variables of entropic transport violate u_i + v_j ≤ |x_i −
y_j|. Here `certify_plan` and `certify_potential` take what each tool returned and prove an interval around W1 from it.
The exact W1 beside each pair is by `wgan_lip.transport.solve`, with proof.

All columns but the last are in percent of the exact W1.

- **plan's cost**: Σ π_ij |x_i − y_j| of the plan as returned, divided by its total mass. Below 100 % its marginals are
  wrong.
- **W1 ≤**: what the plan proves once its marginals are repaired; above 100 % by what it lacks of optimal, and by the
  repair.
- **dual value**: the mean of u plus that of v as returned. Above 100 % it is no lower bound; below, nothing says that
  it is one.
- **W1 ≥**: what u, or v, proves once the other is its c-transform. Never above 100 %.
- **marginals off**: |row sums − weights| and |column sums − weights| of the plan, all added up, of a mass of 1 on each
  side.

ε is the regularisation of POT's Sinkhorn ({ITERATIONS} iterations at most), and blur that of GeomLoss (p = 1, scaling
0.9), both in units of W1. GeomLoss raw has the plan exp((u + v − c)/ε)/(n m), which it never forms itself; debiased,
it has potentials of the Sinkhorn divergence, which belong to no plan. Sliced plans are the best of {DIRECTIONS}
directions, or their mean. The last row is the mean of exact plans between random subsets. A dash stands for what a
tool does not return."""


def _proved(x: np.ndarray, y: np.ndarray, plan: Any, duals: Duals | None) -> dict[str, float | None]:
    start = time.perf_counter()
    found = certify_potential(x, y, duals) if plan is None and duals is not None else certify_plan(x, y, plan, duals)
    return {
        "lower": None if found.potential is None else found.lower, "upper": None if found.plan is None else found.upper,
        "dual": found.dual, "cost": found.cost, "off": found.off, "seconds_proving": time.perf_counter() - start,
    }  # fmt: skip


def _pairs(seed: int) -> dict[str, Pair]:
    source, rng = Digits(seed=seed), torch.Generator().manual_seed(seed)
    digits = [source.train[source.train_labels < 5], source.train[source.train_labels >= 5]]
    pairs = {
        "8 Gaussians, moons": (Gaussians8(radius=1.45).reference(SAMPLES, seed), Moons().reference(SAMPLES, seed)),
        "16 funnels in R^16": RayMonotone(dim=16, funnels=16, seed=1).sample(SAMPLES, SAMPLES, rng),
        "digits 0-4, 5-9": (digits[0][:SAMPLES], digits[1][:SAMPLES]),
    }
    return {name: (x.double().numpy(), y.double().numpy()) for name, (x, y) in pairs.items()}


def _tools(w1: float, seed: int) -> Iterator[tuple[str, Callable[[np.ndarray, np.ndarray], Found]]]:
    for epsilon in EPSILONS:
        yield f"POT, Sinkhorn, ε = {epsilon:g} W1", partial(_sinkhorn, epsilon=epsilon * w1)
    if find_spec("geomloss") is not None:
        for epsilon in EPSILONS:
            for debias in (False, True):
                name = f"GeomLoss, {'debiased' if debias else 'raw'}, blur {epsilon:g} W1"
                yield name, partial(_geomloss, blur=epsilon * w1, debias=debias)
    for name in ("min_sliced_transport_plan", "expected_sliced_plan"):
        yield f"POT, {name}, {DIRECTIONS} directions", partial(_sliced, name=name, seed=seed)
    yield f"mean of {BATCHES} exact plans of {BATCH} + {BATCH} samples", partial(_batches, seed=seed)


def _sinkhorn(x: np.ndarray, y: np.ndarray, *, epsilon: float) -> Found:
    import ot

    cost = ot.dist(x, y, metric="euclidean")
    settings = {"method": "sinkhorn_log", "numItermax": ITERATIONS, "log": True, "warn": False}
    plan, log = ot.sinkhorn(ot.unif(len(x)), ot.unif(len(y)), cost, epsilon, **settings)
    return plan, (epsilon * (log["log_u"] + np.log(len(x))), epsilon * (log["log_v"] + np.log(len(y))))  # beside a, b


def _geomloss(x: np.ndarray, y: np.ndarray, *, blur: float, debias: bool) -> Found:
    """Of its potentials; raw ones also give the plan that it never forms, exp((u + v - c)/ε) with ε = blur."""
    from geomloss import SamplesLoss

    loss = SamplesLoss("sinkhorn", p=1, blur=blur, scaling=0.9, debias=debias, potentials=True, backend="tensorized")
    u, v = (values.flatten().numpy() for values in loss(torch.from_numpy(x), torch.from_numpy(y)))
    if debias:
        return None, (u, v)
    return np.exp((u[:, None] + v - np.linalg.norm(x[:, None] - y, axis=2)) / blur), (u, v)


def _sliced(x: np.ndarray, y: np.ndarray, *, name: str, seed: int) -> Found:
    import ot

    plan, _ = getattr(ot, name)(x, y, metric="euclidean", n_projections=DIRECTIONS, seed=seed, dense=False)
    return plan, None


def _batches(x: np.ndarray, y: np.ndarray, *, seed: int) -> Found:
    """The mean of exact plans between random subsets, of mini-batch transport (Fatras et al., 2020)."""
    import ot

    rng, mean = np.random.default_rng(seed), np.zeros((len(x), len(y)))
    for _ in range(BATCHES):
        rows, columns = (rng.choice(len(side), min(BATCH, len(side)), replace=False) for side in (x, y))
        cost = ot.dist(x[rows], y[columns], metric="euclidean")
        mean[np.ix_(rows, columns)] += ot.emd(ot.unif(len(rows)), ot.unif(len(columns)), cost)
    return mean, None


def _table(rows: list[dict[str, Any]]) -> str:
    """Of each pair of sample sets, the medians over seeds, in percent of exact W1: what a tool says, and what that
    proves."""
    heads = ["plan or potential", "plan's cost", "W1 ≤", "dual value", "W1 ≥", "marginals off"]
    tables = []
    for data in dict.fromkeys(row["data"] for row in rows):
        here, lines = [row for row in rows if row["data"] == data], []
        for tool in dict.fromkeys(row["tool"] for row in here):
            group, cells = [row for row in here if row["tool"] == tool], []
            for key, text in (("cost", rounded), ("upper", rounded_up), ("dual", rounded), ("lower", rounded_down)):
                known = [100 * row[key] / row["exact"] for row in group if row[key] is not None]
                cells.append(f"{text(median(known), 4)} %" if known else "–")
            off = [row["off"] for row in group if row["off"] is not None]
            lines.append([tool, *cells, f"{median(off):.1e}" if off else "–"])
        exact = rounded(median(row["exact"] for row in here), 6)
        tables.append(f"**{data}**: W1 = {exact}\n\n{markdown_table(heads, lines)}\n")
    return "\n".join(tables)
