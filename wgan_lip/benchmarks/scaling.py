"""Suite scaling: seconds of exact transport over dimension and number of samples, by this package and by others.

Two Gaussian sets of n samples each, of unequal variance and mean. POT gets its distances by `ot.dist`, as its users
compute them. All tools run in one process on one thread, in turns, so that what disturbs one disturbs the others; a
figure is the median of the turns' CPU time, and a ratio the median of the turns' ratios; another tool that takes more
than five seconds is called once. Tools that only approximate W1 run twice, the first time for what they load or
compile; their relative error is told with their time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from wgan_lip.benchmarks.machine import threads, turns_of, write_page, write_results
from wgan_lip.transport import narrow, solve
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.numbers import rounded
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.loss import w1

__all__ = ["measure"]

DIMS, SIZES = (2, 16, 64, 384, 784), (256, 1000, 2000)
TURNS, SECONDS = 15, 20.0  # at most, and about so many seconds of turns after the first three
OURS = ("solve", "w1", "narrow")
LONG = 5.0  # seconds of a first call after which another tool is not called again
LIFTED = 10**9  # iterations of the exact solver
AGREE = 1e-9  # relative, between exact tools
LAZY = 5 * 10**8  # coordinates of all pairs, beyond which the lazy tool takes minutes
SLOW = 2000  # samples of either law beyond which some tools take minutes, and the one for little memory is at home
BLUR = 0.05  # of the approximate ones, in W1: they smooth the plan over such distances


def measure(seeds: list[int], out: Path, overrides: Sequence[str] = ()) -> str:
    """Measures every tool at every size in every dimension; `dims=2,16` and `sizes=256,1000` choose some of them."""
    grid = {"dims": DIMS, "sizes": SIZES}
    for override in overrides:
        key, _, numbers = override.partition("=")
        if key not in grid or not all(number.isdigit() and int(number) for number in numbers.split(",")):
            raise InputError(f"Overrides must be like 'dims=2,16' or 'sizes=256,1000', not {override!r}.")
        grid[key] = tuple(int(number) for number in numbers.split(","))
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        for dim in grid["dims"]:
            for n in grid["sizes"]:
                with threads(1):
                    row = {"seed": seed, "dim": dim, "n": n, **_measured(_tools(*_pair(dim, n, seed)))}
                    approximate = _approximate(*_pair(dim, n, seed), row["w1"])
                    rows.append({**row, "approximate": {name: _once(tool) for name, tool in approximate.items()}})
                write_results("scaling", seeds, out, overrides, rows=rows)
    table = _table(rows)
    how = "One thread; medians of the turns."
    write_page(out, title="Seconds of exact transport by size and dimension", how=how, parts=[table])
    return table


def _pair(dim: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, dim)), 1.1 * rng.standard_normal((n, dim)) + 0.3


def _tools(x: np.ndarray, y: np.ndarray) -> dict[str, Callable[[], float]]:
    """Each returns W1; samples and imports are ready."""
    import ot
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    mass = np.full(len(x), 1 / len(x))
    of_x, of_y = torch.from_numpy(x), torch.from_numpy(y)

    def assigned() -> float:
        costs = cdist(x, y)
        return float(costs[linear_sum_assignment(costs)].mean())

    def narrowed() -> float:
        *_, last = narrow(x, y)
        return last.transport.value

    every = {
        "POT": lambda: float(ot.emd2(mass, mass, ot.dist(x, y, "euclidean"), numItermax=LIFTED)),
        "POT lazy": lambda: float(ot.lp.emd2_lazy(x, y, metric="euclidean", numItermax=LIFTED, return_matrix=False)),
        "SciPy": assigned,
        "solve": lambda: solve(x, y).value,
        "w1": lambda: w1(of_x, of_y).item(),
        "narrow": narrowed,
    }
    left_out = {"POT lazy", "SciPy"} if len(x) > SLOW else {"narrow"}  # below, narrowing is solving
    left_out |= {"POT lazy"} if len(x) * y.size > LAZY else set()
    return {name: tool for name, tool in every.items() if name not in left_out}


def _approximate(x: np.ndarray, y: np.ndarray, w1: float) -> dict[str, Callable[[], float]]:
    """The tools that are installed of those that approximate W1, which is given for their choice of scale."""
    tools: dict[str, Callable[[], float]] = {}
    if len(x) > SLOW:
        return tools
    if find_spec("geomloss") is not None:
        from geomloss import SamplesLoss

        blurred = SamplesLoss("sinkhorn", p=1, blur=BLUR * w1, scaling=0.9, backend="tensorized")
        of_x, of_y = torch.from_numpy(x), torch.from_numpy(y)
        tools["GeomLoss"] = lambda: blurred(of_x, of_y).item()
    if find_spec("ott") is not None:
        import jax
        from ott.geometry import costs, pointcloud
        from ott.solvers import linear

        def entropic(x: jax.Array, y: jax.Array) -> jax.Array:
            geometry = pointcloud.PointCloud(x, y, cost_fn=costs.Euclidean(), epsilon=BLUR * w1)
            return linear.solve(geometry).primal_cost

        compiled = jax.jit(entropic)
        tools["OTT-JAX"] = lambda: float(compiled(x, y))
    return tools


def _once(tool: Callable[[], float]) -> dict[str, float]:
    """What a tool returns, and the CPU seconds of its second call."""
    tool()
    start = time.process_time()
    value = tool()
    return {"value": value, "seconds": time.process_time() - start}


def _measured(tools: dict[str, Callable[[], float]]) -> dict[str, Any]:
    values, first = {}, {}
    for name, tool in tools.items():
        start = time.process_time()
        values[name] = tool()
        first[name] = time.process_time() - start
    if max(values.values()) - min(values.values()) > AGREE * max(values.values()):
        raise RuntimeError(f"The tools disagree about W1: {values}.")
    again = {name: tool for name, tool in tools.items() if first[name] < LONG or name in ("POT", *OURS)}
    turns = turns_of(again, turns=TURNS, seconds=SECONDS)
    seconds = {name: median(turn[name] for turn in turns) if name in again else first[name] for name in tools}
    ratios = {name: median(turn[name] / turn["POT"] for turn in turns) for name in again if name != "POT"}
    return {"w1": values["POT"], "turns": len(turns), "seconds": seconds, "ratios": ratios}


def _table(rows: list[dict[str, Any]]) -> str:
    exact = list(dict.fromkeys(name for row in rows for name in row["seconds"]))
    approximate = list(dict.fromkeys(name for row in rows for name in row["approximate"]))
    heads = ["d", "n", *(f"{name}, ms" for name in exact), "solve / POT", "w1 / POT", "turns", *approximate]
    lines = []
    for row in rows:
        quick = min(row["seconds"].values())
        cells = {name: rounded(1e3 * seconds, 3) for name, seconds in row["seconds"].items()}
        shown = [f"**{cells[name]}**" if row["seconds"].get(name) == quick else cells.get(name, "") for name in exact]
        ratios = [f"{row['ratios'][name]:.2f}" for name in ("solve", "w1")]
        others = [_told(row["approximate"].get(name), row["w1"]) for name in approximate]
        lines.append([str(row["dim"]), f"{row['n']:,}", *shown, *ratios, str(row["turns"]), *others])
    return "\n".join([markdown_table(heads, lines), "", *_growth(rows), "", _LEGEND, "", _slower(rows)]) + "\n"


def _told(found: dict[str, float] | None, w1: float) -> str:
    return "" if found is None else f"{rounded(1e3 * found['seconds'], 3)} ms, {found['value'] / w1 - 1:+.1%}"


def _slower(rows: list[dict[str, Any]]) -> str:
    """Where another exact tool takes less time."""
    places: dict[str, list[str]] = {}
    for row in rows:
        name = min(row["seconds"], key=row["seconds"].__getitem__)
        if name not in OURS:
            by = min(row["seconds"][one] for one in OURS if one in row["seconds"]) / row["seconds"][name]
            places.setdefault(name, []).append(f"({row['dim']}, {row['n']:,}) by {by:.2f}")
    told = [f"{name} is faster at (d, n) = {', '.join(where)}" for name, where in places.items()]
    return f"Where ours is slower: {'; '.join(told) or 'nowhere here'}."


def _growth(rows: list[dict[str, Any]]) -> list[str]:
    """The exponent of n from the smallest to the largest size, in each dimension."""
    lines = []
    for dim in dict.fromkeys(row["dim"] for row in rows):
        of_dim = sorted((row["n"], row["seconds"]) for row in rows if row["dim"] == dim)
        (least, first), (most, last) = of_dim[0], of_dim[-1]
        if least < most:
            both = [name for name in first if name in last]
            told = (f"{name} {math.log(last[name] / first[name]) / math.log(most / least):.2f}" for name in both)
            lines.append(f"Growth in n, d = {dim}, from {least:,} to {most:,}: exponents {', '.join(told)}.")
    return lines


_LEGEND = """\
One thread. POT: `ot.dist` and `ot.emd2`, no gradient, no bounds; lazy: `ot.lp.emd2_lazy`, which holds no matrix of
distances, where all pairs have at most 5·10⁸ coordinates. SciPy: `linear_sum_assignment` of `cdist`, for as many
samples of either law. solve: W1 between proved bounds, with plan and potential, from arrays. w1: the differentiable
loss, forward, from tensors. narrow: what `estimate_w1` takes beyond 2,000 samples, in memory that grows with n. Median
CPU time of all turns, the least in bold. GeomLoss (Sinkhorn divergence, `blur` 0.05 W1) and OTT-JAX (Sinkhorn in
float32, epsilon 0.05 W1, the cost of its plan) approximate W1: CPU time of a second call, and relative error. Slow
tools stop at 2,000 samples."""
