r"""W1 beyond dense memory: an interval that narrows until its two ends meet.

Of the n m edges between two sample sets, an optimal plan uses n + m at most. So the transport problem is solved on few
edges, by POT's network simplex, and its dual variables price all the others (:mod:`wgan_lip.transport.pricing`): an
edge shorter than u_i + v_j would make the plan cheaper, and is added. When none is left, the plan is optimal.

Every round gives a plan, and an upper bound with it. Every pricing gives the lower bound of the potential

.. math:: f(z) = \min_j (\|z - y_j\| - v_j), \qquad f(y_j) \leq -v_j,

in the same pass, since the least priced edge of x_i is the value of f there. So both ends are valid bounds at every
moment; the rest only brings them together faster. The first interval comes from projections to a line. The first edges
are those that the potential of a coarser problem, between the means of cells, makes almost tight. Pricing starts near
the best potential so far and moves towards that of the last plan: the dual variables of sparse problems oscillate. Many
points in few dimensions are solved patch by patch (:mod:`wgan_lip.transport.patches`) before the simplex gets them all.

References:
    A sparse multiscale algorithm for dense optimal transport (Schmitzer, 2016); Stabilized column generation for highly
    degenerate multiple-depot vehicle scheduling problems (Pessoa et al., 2010), on the smoothing of Wentges (1997)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, TimeoutError
from dataclasses import dataclass, replace
from functools import cached_property, partial
from threading import Thread
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import coo_matrix
from torch import Tensor

from wgan_lip.transport.cells import FEW_DIMENSIONS, Halving, Tree
from wgan_lip.transport.exact import BYTES_PER_PAIR, network_simplex, solve_problem
from wgan_lip.transport.patches import Sparse, ascended, relieved
from wgan_lip.transport.plans import Plan, dealt
from wgan_lip.transport.potentials import Potential, block_distances
from wgan_lip.transport.pricing import Lowest
from wgan_lip.transport.problem import Problem, Transport, TransportError
from wgan_lip.transport.rounding import CHUNK
from wgan_lip.transport.sharing import Crew, lowest_on
from wgan_lip.transport.starts import first_bounds
from wgan_lip.utils.checks import check_memory

__all__ = ["Narrowed", "check_room", "narrow", "narrow_problem", "solves_at_once"]

DENSE = 2_000**2  # edges up to which the problem is solved with all of them at once
LONGEST = 20_000  # points on the longer side, at most, for that: the simplex is slow with many points against a few
COARSEST = 2**10  # cells of the problem that is solved with all its edges
POINTS_PER_CELL = 6  # at least, from one level to the next
FIRST_EDGES = 10  # per point, on either side
ADDED_EDGES = 8  # per point of x and pricing, at most
PATCHED = 2**15  # points on either side from which a problem is first solved patch by patch, in few dimensions
WORTHWHILE = 0.5  # share of the gap that a round on patches must close, or else the whole problem is solved
FEW_EDGES = 0.01  # per point: so few new ones change hardly anything
KEPT_EDGES = 40  # per point, on average, when edges are dropped
SMOOTHING = 0.4  # share of the best potential in the first pricing; its k-th power in the k-th
GRACE = 1.0  # seconds that an exact solver already running may take beyond the deadline
MET = 1e-13  # relative distance of the ends that counts as rounding
TRUSTED = 1e-10  # distance of the ends, relative to the spread, at which a solver that reports optimality is trusted
COARSE = 1e-3  # relative distance that is enough for a coarser problem
COARSE_ROUNDS = 8
VAGUE = 0.1  # relative distance of the ends beyond which cells are no guide
REMEDY = "Draw from the rows instead, by wgan_lip.law_of_rows(x)."
_BYTES = 2**28  # blocks of distances, and the solver's library
_BYTES_PER_POINT = 3_200  # edges, their keys and costs, the solver's own arcs: twice the peak measured in 2-D and 16-D
_BYTES_PER_COORDINATE = 44  # measured peak: the samples in float64, in units, in the order of cells, in float32


@dataclass(frozen=True, eq=False)
class Narrowed:
    """An interval, and how it was found.

    Attributes:
        transport: The best bounds so far, with the plan of the upper and the potential of the lower one. Its `value` is
            the cost of that plan.
        stage: The last stage, in words.
        optimal: Whether all edges were priced and none would make the plan cheaper.
    """

    transport: Transport
    stage: str
    optimal: bool = False


def narrow(
    x: Tensor | ArrayLike,
    y: Tensor | ArrayLike,
    *,
    a: Tensor | ArrayLike | None = None,
    b: Tensor | ArrayLike | None = None,
    device: torch.device | str = "cpu",
    deadline: float = math.inf,
) -> Iterator[Narrowed]:
    r"""Narrows an interval around W1 of two sample sets, in memory that grows with n + m.

    Arguments:
        x: Samples of P, shape (n, d), any real dtype, any device.
        y: Samples of Q, shape (m, d).
        a: Non-negative weights of x, shape (n,), of any positive total, by which they are divided: counts are as good
            as probabilities. Uniform by default.
        b: Non-negative weights of y, shape (m,), as for x.
        device: Where edges are priced: candidates by float32 products, bounds by float64 differences.
        deadline: Reading of `time.monotonic` at which the iteration ends.

    Returns:
        An iterator of :class:`Narrowed` whose intervals only narrow; bad input is refused at the call. The first takes
        O((n + m) (d + log(n + m))) time. It ends when the plan is optimal, or at the deadline, at most a second later
        if all edges are solved at once. A round takes O(n m d) time, and in up to 3 dimensions far less.

    Raises:
        InputError: See :func:`wgan_lip.transport.solve`.
        TransportError: The solver ended without a plan.

    Guarantee:
        Every interval contains W1 of these weighted points, as that of :func:`wgan_lip.transport.solve` does, whatever
        the solver did. How soon it narrows depends on the samples.
    """
    return narrow_problem(Problem.of(x, y, a, b), device=device, deadline=deadline)


def narrow_problem(
    problem: Problem, *, device: torch.device | str = "cpu", deadline: float = math.inf, crew: Crew | None = None
) -> Iterator[Narrowed]:
    """:func:`narrow` for checked samples and weights; edges are priced by the crew, if there is one."""
    check_room(problem)
    return _narrow(problem, _Scanner(torch.device(device), deadline, crew))


def check_room(problem: Problem) -> None:
    """Raises :class:`InputError` if narrowing, or the exact solver in its place, needs more memory than there is."""
    n, m, d = problem.size
    if d == 1:
        return
    points = _BYTES + (_BYTES_PER_POINT + _BYTES_PER_COORDINATE * d) * (n + m)
    need = BYTES_PER_PAIR * n * m if solves_at_once(n, m, d) else points
    check_memory(need, f"an interval around W1 between {n} and {m} samples", REMEDY)


def solves_at_once(n: int, m: int, d: int) -> bool:
    """Whether :func:`narrow` solves with all edges between n and m distinct points at once."""
    return d == 1 or min(n, m) == 1 or (n * m <= DENSE and max(n, m) <= LONGEST)


def _narrow(problem: Problem, scanner: _Scanner) -> Iterator[Narrowed]:
    n, m, d = problem.size
    if d == 1 or min(n, m) == 1:
        yield Narrowed(solve_problem(problem), "sorting" if d == 1 else "the only plan", True)
        return
    best = first_bounds(problem)
    met = best.upper - best.lower <= MET * best.upper
    yield Narrowed(best, "on a line", met)
    if met or time.monotonic() > scanner.deadline:
        return
    if solves_at_once(*problem.size):
        try:
            solved = _apart(partial(solve_problem, problem), scanner.left + GRACE)
        except TimeoutError:
            return
        yield Narrowed(_better(best, solved), "exact solver", True)
        return
    try:
        coarse, between, samples = _levels(problem, scanner.check)
        distances = torch.cat(list(block_distances(coarse.x, coarse.y)))
        plan, _, v = scanner.solve(coarse.a, coarse.b, distances.numpy())
        while True:
            best = _better(best, _coarse_bounds(problem, samples, coarse, plan, v, scanner))
            yield Narrowed(best, f"{len(coarse.x)} and {len(coarse.y)} cells")
            wide = problem.size[2] > FEW_DIMENSIONS and best.upper - best.lower > VAGUE * best.upper
            fine = samples if wide else next(between, samples)  # cells are wide, and smaller ones hardly narrower
            rounds = _rounds(fine, *_first_edges(fine, coarse, plan, v, scanner), scanner)
            if fine is samples:
                break
            for count, found in enumerate(rounds, 1):
                plan, v = found.plan, found.v
                if found.gap <= COARSE * found.cost or count == COARSE_ROUNDS:
                    break
            coarse = fine
        for count, found in enumerate(rounds, 1):
            best = _better(best, _bounds(problem, found))
            width, scale = best.upper - best.lower, best.upper + problem.unit
            met = width <= MET * best.upper
            yield Narrowed(best, f"pricing {count}", met or (found.optimal and width <= TRUSTED * scale))
            if met:
                return
    except _LateError:
        return


# --- levels: the problem itself, and those between the means of cells ------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Level:
    """Points x (n, d) and y (m, d) in units of the problem, masses a (n,) and b (m,) of equal total, and the cell of
    every sample of the problem at this level."""

    x: Tensor
    y: Tensor
    a: np.ndarray
    b: np.ndarray
    cell_x: np.ndarray
    cell_y: np.ndarray
    halving_x: Halving | None = None
    halving_y: Halving | None = None

    @cached_property
    def tree_x(self) -> Tree:
        return Tree.of(self.x, self.halving_x)

    @cached_property
    def tree_y(self) -> Tree:
        return Tree.of(self.y, self.halving_y)


def _levels(problem: Problem, check: Callable[[], None]) -> tuple[_Level, Iterator[_Level], _Level]:
    """The coarsest level, those between, and the problem itself. Cells are halved on demand: the first interval does
    not wait for the last level. An exception from `check`, called between levels, ends it."""
    x, y = problem.x / problem.unit, problem.y / problem.unit
    halvings = Halving(x.numpy()), Halving(y.numpy())
    depths = _depths(len(x)), _depths(len(y))
    count = max(map(len, depths))

    def level(number: int) -> _Level:  # the side with fewer points waits at its coarsest
        check()
        parts = []
        for points, mass, halving, of_side in zip((x, y), (problem.a, problem.b), halvings, depths):
            depth = of_side[max(0, number - count + len(of_side))]
            cell = np.arange(len(points)) if depth is None else halving.cells(depth)
            parts.append((*_means(points, mass, cell), cell))
        (mean_x, mass_x, cell_x), (mean_y, mass_y, cell_y) = parts
        return _Level(mean_x, mean_y, mass_x, mass_y, cell_x, cell_y)

    whole = _Level(x, y, problem.a, problem.b, np.arange(len(x)), np.arange(len(y)), *halvings)
    return level(0), map(level, range(1, count)), whole


def _depths(n: int) -> list[int | None]:
    """How often n points are halved, from the coarsest cells to the finest; None for single points."""
    if n <= COARSEST:
        return [None]
    depths, count = [], n
    while count > COARSEST:
        depths.append(int(math.log2(count / POINTS_PER_CELL)))
        count = 2 ** depths[-1]
    return [*reversed(depths)]


def _means(points: Tensor, mass: np.ndarray, cell: np.ndarray) -> tuple[Tensor, np.ndarray]:
    total = np.bincount(cell, mass)
    means = [(np.bincount(cell, mass * column) / total).clip(column.min(), column.max()) for column in points.numpy().T]
    return torch.from_numpy(np.stack(means, axis=1)), total


# --- bounds -----------------------------------------------------------------------------------------------------------


def _better(best: Transport, new: Transport) -> Transport:
    """The higher lower bound with its potential, the lower upper bound with its plan."""
    high, low = max(best, new, key=lambda bounds: bounds.lower), min(best, new, key=lambda bounds: bounds.upper)
    if not high.lower <= low.upper:
        raise TransportError(f"The lower bound {high.lower} exceeds the upper bound {low.upper}. Please report these.")
    return replace(low, lower=high.lower, potential=high.potential, value=max(low.value, high.lower))


def _coarse_bounds(
    problem: Problem, fine: _Level, coarse: _Level, plan: Plan, v: np.ndarray, scanner: _Scanner
) -> Transport:
    """The potential of a coarser problem at the samples themselves, and its plan distributed among them."""
    v = _centred(v)
    potential = Potential.trusted(problem.unit * coarse.y, problem.unit * torch.from_numpy(v))
    values, errors = [], []
    sides = ((fine.x, problem.x, lambda: fine.tree_x), (fine.y, problem.y, lambda: fine.tree_y))
    for points, samples, tree in sides:
        _, apex, _ = scanner.lowest(points, coarse.y, torch.from_numpy(v), tree=tree)
        value, error = potential.enclosed(samples, apex=apex[:, 0])
        values.append(value)
        errors.append(error)
    plan = dealt(plan, fine.a, fine.b, coarse.cell_x, coarse.cell_y)
    return problem.enclose(plan, potential, values[0], values[1], max(errors))


def _bounds(problem: Problem, found: _Round) -> Transport:
    v = problem.unit * torch.from_numpy(found.v)
    potential = Potential.trusted(problem.y, v)
    values, error = potential.enclosed(problem.x, apex=found.apex)
    return problem.enclose(found.plan, potential, values, -v, error)


def _centred(v: np.ndarray) -> np.ndarray:
    """Adding a constant to a potential changes no mean difference, only rounding, including that of comparing cones; so
    it is added first."""
    return v - (v.max() + v.min()) / 2


# --- rounds of pricing ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Round:
    """The plan of one sparse problem, and the potential at which edges were priced, with its lowest cone at each x."""

    plan: Plan
    cost: float
    v: np.ndarray
    apex: Tensor
    gap: float
    optimal: bool


def _first_edges(
    fine: _Level, coarse: _Level, plan: Plan, v: np.ndarray, scanner: _Scanner
) -> tuple[np.ndarray, Plan, np.ndarray, np.ndarray]:
    """Keys i m + j of the edges that the coarse potential makes almost tight, and of a plan; the plan; dual
    variables."""
    m, offsets = len(fine.y), torch.from_numpy(v)
    trees = {"x": lambda: fine.tree_x, "y": lambda: fine.tree_y}
    f_x = scanner.lowest(fine.x, coarse.y, offsets, tree=trees["x"]).heights[:, 0]
    f_y = scanner.lowest(fine.y, coarse.y, offsets, tree=trees["y"]).heights[:, 0]
    to = scanner.lowest(fine.x, fine.y, -f_y, min(FIRST_EDGES, m), tree=trees["x"]).cones
    of = scanner.lowest(fine.y, fine.x, f_x, min(FIRST_EDGES, len(fine.x)), tree=trees["y"]).cones
    parent_x, parent_y = _parents(fine.cell_x, coarse.cell_x), _parents(fine.cell_y, coarse.cell_y)
    fine_plan = dealt(plan, fine.a, fine.b, parent_x, parent_y)
    keys = [
        (torch.arange(len(to))[:, None] * m + to).flatten().numpy(),
        (of * m + torch.arange(m)[:, None]).flatten().numpy(),
        fine_plan.rows * m + fine_plan.columns,
    ]
    if len(fine.x) == m:
        keys.append(np.arange(m) * (m + 1))
    return np.unique(np.concatenate(keys)), fine_plan, f_x.numpy(), -f_y.numpy()


def _parents(cell: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """The coarser cell that contains each cell."""
    parents = np.empty(cell.max() + 1, dtype=np.int64)
    parents[cell] = coarse
    return parents


def _rounds(
    level: _Level, edges: np.ndarray, plan: Plan, u: np.ndarray, v: np.ndarray, scanner: _Scanner
) -> Iterator[_Round]:
    """Solves on few edges, prices all, adds those that would make the plan cheaper; ends when there are none.

    With many points in few dimensions it first solves patch by patch, which brings both ends close in time that grows
    with the edges; the simplex then starts from there."""
    n, m, total = len(level.x), len(level.y), math.fsum(level.a)
    centre, highest, lowest_cost, share = v, -math.inf, math.inf, 1.0
    flat = level.x.shape[1] <= FEW_DIMENSIONS
    many = flat and min(n, m) >= PATCHED
    by_patches, gap, new = many, math.inf, edges
    pool: tuple[Tensor, Tensor] | None = None
    while True:
        rows, columns = edges // m, edges % m
        lengths = _lengths(level, rows, columns)
        if many and len(new) > FEW_EDGES * max(n, m):
            sparse = Sparse(level.x.numpy(), level.y.numpy(), level.a, level.b, rows, columns, lengths)
            u, v = scanner.timely(partial(ascended, sparse, u, v, scanner.check))
        if by_patches:
            plan = scanner.timely(partial(relieved, sparse, plan, u, v, scanner.check))
        else:
            # Lengths reduced by the last dual variables have the same optimum, close to where the solver starts.
            reduced = coo_matrix((lengths - u[rows] - v[columns], (rows, columns)), shape=(n, m))
            plan, more_u, more_v = scanner.solve(level.a, level.b, reduced)
            u, v = u + more_u, v + more_v
            if pool is not None and not flat:
                new = _new(level, pool, u, v, edges)
                if 0 < len(new) <= FEW_EDGES * max(n, m):  # pricing takes longer than solving: use the last once more
                    edges = np.union1d(edges, new)
                    continue
        cost = float(plan.mass @ _lengths(level, plan.rows, plan.columns)) / total
        progress = cost < lowest_cost
        lowest_cost = min(lowest_cost, cost)
        share = share * SMOOTHING if share > 0.02 else 0.0
        while True:
            priced = _centred(share * centre + (1 - share) * v)
            heights, to, nearest = scanner.lowest(
                level.x, level.y, torch.from_numpy(priced), min(ADDED_EDGES, m), both=True, tree=lambda: level.tree_x
            )
            value = float(level.a @ heights[:, 0].numpy() + level.b @ priced) / total
            if value > highest:
                highest, centre, progress = value, priced, True
            pool = to, nearest
            new = _new(level, pool, u, v, edges)
            if len(new) or not share:
                break
            share = 0.0
        optimal = not len(new) and not by_patches
        yield _Round(plan, cost, priced, to[:, 0], lowest_cost - highest, optimal)
        if optimal:
            return
        slack = lengths - u[rows] - v[columns]
        kept = KEPT_EDGES * max(n, m)
        if progress and len(edges) > 1.5 * kept:  # otherwise equally cheap plans could alternate for ever
            edges = edges[slack <= np.partition(slack, kept)[kept]]
        edges = np.union1d(np.union1d(edges, plan.rows * m + plan.columns), new)
        last, gap = gap, lowest_cost - highest
        by_patches = by_patches and len(new) > FEW_EDGES * max(n, m) and gap < WORTHWHILE * last


def _new(level: _Level, pool: tuple[Tensor, Tensor], u: np.ndarray, v: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Keys of the edges among the nearest of either side that are new and shorter than u_i + v_j."""
    (to, nearest), (n, m) = pool, (len(level.x), len(level.y))
    rows = np.concatenate([np.repeat(np.arange(n), to.shape[1]), nearest.numpy()])
    columns = np.concatenate([to.numpy().ravel(), np.arange(m)])
    shorter = _lengths(level, rows, columns) < u[rows] + v[columns]
    return np.setdiff1d(rows[shorter] * m + columns[shorter], edges)


def _lengths(level: _Level, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    step = max(1, CHUNK // level.x.shape[1])
    pairs = zip(torch.from_numpy(rows).split(step), torch.from_numpy(columns).split(step), strict=True)
    return torch.cat([torch.linalg.vector_norm(level.x[i] - level.y[j], dim=1) for i, j in pairs]).numpy()


class _LateError(Exception):
    """The deadline has passed."""


def _apart(call: Callable[[], Any], seconds: float) -> Any:
    """Returns the result of `call`, run in a separate thread: a solver that cannot be stopped is left to finish by
    itself when the user interrupts, or, with TimeoutError, after `seconds`."""
    answer: Future = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=run, daemon=True).start()
    return answer.result(timeout=None if seconds == math.inf else seconds)


@dataclass(frozen=True)
class _Scanner:
    """Solves on few edges and looks at all of them, block by block, on a device, until a deadline."""

    device: torch.device
    deadline: float
    crew: Crew | None = None

    @property
    def left(self) -> float:
        """Seconds to the deadline."""
        return max(0.0, self.deadline - time.monotonic())

    def solve(
        self, a: np.ndarray, b: np.ndarray, costs: np.ndarray | coo_matrix
    ) -> tuple[Plan, np.ndarray, np.ndarray]:
        """:func:`network_simplex`, left to finish by itself at the deadline."""
        return self.timely(partial(network_simplex, a, b, costs))

    def timely(self, call: Callable[[], Any]) -> Any:
        """Returns the result of `call`, which is left to finish by itself at the deadline."""
        try:
            return _apart(call, self.left)
        except TimeoutError:
            raise _LateError from None

    def lowest(
        self,
        z: Tensor,
        points: Tensor,
        offsets: Tensor,
        width: int = 1,
        *,
        tree: Callable[[], Tree],
        both: bool = False,
    ) -> Lowest:
        """:func:`lowest_cones` on the device, or on those of the crew; tensors come from and go to the CPU."""
        if self.crew is None:
            return lowest_on(self.device, z, points, offsets, width, both=both, check=self.check, tree=tree)
        try:
            return self.crew.lowest(z, points, offsets, width, both=both, check=self.check, left=self.left, tree=tree)
        except TimeoutError:
            raise _LateError from None

    def check(self) -> None:
        """Ends the search once the deadline has passed."""
        if time.monotonic() > self.deadline:
            raise _LateError
