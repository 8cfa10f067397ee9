r"""Patches: a sparse transport problem solved part by part, in few dimensions, in time that grows with its edges.

The network simplex moves a whole subtree in every pivot, and takes about (n + m)^2 time; on patches of a few hundred
points it takes hardly any. While a patch is solved, the rest of the problem is held fixed:

- Dual variables (:func:`ascended`). An edge between two patches has the slack s = c - u - v >= 0, and either of its
  ends may rise by s / 2, so that every edge stays feasible whatever the other patches do. Within a patch, that is a
  transport problem with one more source and one more sink, which take at that price whatever mass the patch does not
  place within. Its dual variables raise the dual value or leave it unchanged.
- Plan (:func:`relieved`). The mass that a plan takes from the points of a patch may reach its targets by other edges.

Patches change from pass to pass, and the passes of :func:`ascended` merge them in pairs, since what is left to gain
then involves larger parts. So the simplex on the whole problem starts near its optimum.

References:
    Domain decomposition for entropy regularized optimal transport (Bonafini & Schmitzer, 2021), of plans;
    Nonlinear programming (Bertsekas, 1999), section 6.3, block coordinate ascent
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from threading import Thread

import numpy as np
import torch
from scipy.sparse import coo_matrix

from wgan_lip.transport.cells import split
from wgan_lip.transport.exact import network_simplex
from wgan_lip.transport.plans import Plan
from wgan_lip.transport.problem import TransportError

__all__ = ["Sparse", "ascended", "relieved"]

SMALLEST_PATCH = 100  # points of either side, about
PARTS = 4  # patches of the last pass
RELIEF = 1000  # points of either side, about, of the patches of a plan
RELIEFS = 4  # passes over a plan
KEPT = 1e-9  # relative change of a point's mass that counts as rounding, or what POT leaves out

Ends = tuple[np.ndarray, np.ndarray]  # something of either side, shapes (n,) and (m,)


@dataclass(frozen=True, eq=False)
class Sparse:
    """A transport problem between points x (n, d) and y (m, d) of masses a (n,) and b (m,), on few edges.

    Attributes:
        rows: Where each edge begins, shape (k,), in order; every point of x has one.
        columns: Where it ends, shape (k,); every point of y has one.
        costs: Cost of a unit of mass, shape (k,).
    """

    x: np.ndarray
    y: np.ndarray
    a: np.ndarray
    b: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    costs: np.ndarray

    @cached_property
    def by_column(self) -> np.ndarray:
        """The edges in order of their ends, shape (k,)."""
        return np.argsort(self.columns, kind="stable")

    @cached_property
    def starts(self) -> Ends:
        """Where the edges of each x begin in their own order, and those of each y in the order of `by_column`."""
        rows, columns = self.rows, self.columns[self.by_column]
        return np.flatnonzero(np.diff(rows, prepend=-1)), np.flatnonzero(np.diff(columns, prepend=-1))

    def least(self, values: np.ndarray, side: int) -> np.ndarray:
        """The least of the edges' values (k,) at each point of x (side 0) or y (side 1)."""
        return np.minimum.reduceat(values[self.by_column] if side else values, self.starts[side])

    def slack(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The cost of each edge less the dual variables of its ends, shape (k,)."""
        return self.costs - u[self.rows] - v[self.columns]

    def tightened(self, u: np.ndarray, v: np.ndarray) -> Ends:
        """The largest u that is feasible with v, then the largest v that is feasible with it."""
        u = u + self.least(self.slack(u, v), 0)
        return u, v + self.least(self.slack(u, v), 1)

    def patched(self, count: int, turn: int, u: np.ndarray, v: np.ndarray) -> Ends:
        """The patch of every x, and of every y: one side is cut into `count` cells along axes that depend on `turn`;
        the other joins those that its tightest edges lead to."""
        side, depth = turn % 2, count.bit_length() - 1
        points = self.y if side else self.x
        axes = np.linalg.qr(np.random.default_rng(turn).standard_normal(2 * [points.shape[1]]))[0]
        cells = split(points @ axes, depth)
        slack, other = self.slack(u, v), 1 - side
        order = self.by_column if other else slice(None)
        slack, starts = slack[order], self.starts[other]
        least = np.minimum.reduceat(slack, starts)
        tightest = np.flatnonzero(slack == np.repeat(least, np.diff(starts, append=len(slack))))
        ends = [ends[order][tightest] for ends in (self.rows, self.columns)]
        others = np.empty(len(least), dtype=np.int64)
        others[ends[other]] = cells[ends[side]]
        return (others, cells) if side else (cells, others)


def ascended(problem: Sparse, u: np.ndarray, v: np.ndarray, check: Callable[[], None] = lambda: None) -> Ends:
    """Feasible dual variables with a higher dual value, from any given ones.

    Arguments:
        problem: The sparse problem.
        u: Dual variables of x, shape (n,); they may be infeasible.
        v: Those of y, shape (m,).
        check: Called between patches; an exception from it ends the ascent.
    """
    u, v = problem.tightened(u, v)
    count = 1 << max(0, min(len(u), len(v)) // SMALLEST_PATCH).bit_length()
    turn = 0
    while count >= PARTS:
        u, v = problem.tightened(*_swept(problem, u, v, *problem.patched(count, turn, u, v), check))
        count, turn = count // 2, turn + 1
    return u, v


def _swept(
    problem: Sparse, u: np.ndarray, v: np.ndarray, patch_x: np.ndarray, patch_y: np.ndarray, check: Callable[[], None]
) -> Ends:
    """One pass over patches, which are numbered from 0: those of all x (n,) and y (m,)."""
    slack, count = problem.slack(u, v), 1 + max(patch_x.max(), patch_y.max())
    inside = patch_x[problem.rows] == patch_y[problem.columns]
    room = np.where(inside, np.inf, slack / 2)
    rooms = problem.least(room, 0), problem.least(room, 1)
    (of_x, starts_x, place_x), (of_y, starts_y, place_y) = _grouped(patch_x, count), _grouped(patch_y, count)
    edges = np.flatnonzero(inside)
    order, starts, _ = _grouped(patch_x[problem.rows[edges]], count)
    edges = edges[order]
    u, v = u.copy(), v.copy()

    def improve(patch: int) -> None:
        check()
        i, j, k = (
            members[begins[patch] : begins[patch + 1]]
            for members, begins in ((of_x, starts_x), (of_y, starts_y), (edges, starts))
        )
        if len(i) and len(j):
            ends = place_x[problem.rows[k]], place_y[problem.columns[k]]
            rise = _rise(problem.a[i], problem.b[j], *ends, slack[k], rooms[0][i], rooms[1][j])
            u[i] += rise[0]
            v[j] += rise[1]

    _each(improve, count)
    return u, v


def _rise(
    a: np.ndarray,
    b: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    slack: np.ndarray,
    room_a: np.ndarray,
    room_b: np.ndarray,
) -> Ends:
    """The change of a patch's dual variables, given the slack that edges to other patches leave: the rest of the
    problem takes and gives mass at that price, and between its own source and sink for free."""
    outlets, inlets = np.flatnonzero(room_a < np.inf), np.flatnonzero(room_b < np.inf)
    n, m, total_a, total_b = len(a), len(b), a.sum(), b.sum()
    passing = max(total_a, total_b)  # straight through, so that its price is certain
    ends = (
        np.concatenate([rows, outlets, np.full(len(inlets) + 1, n)]),
        np.concatenate([columns, np.full(len(outlets), m), inlets, [m]]),
    )
    costs = np.concatenate([slack, room_a[outlets], room_b[inlets], [0.0]])
    masses = np.append(a, total_b + passing), np.append(b, total_a + passing)
    try:
        _, u, v = network_simplex(*masses, coo_matrix((costs, ends), shape=(n + 1, m + 1)))
    except TransportError:  # a patch that is infeasible only by rounding: it waits for the next pass
        return np.zeros(n), np.zeros(m)
    return u[:n] - u[n], v[:m] + u[n]


def relieved(
    problem: Sparse, plan: Plan, u: np.ndarray, v: np.ndarray, check: Callable[[], None] = lambda: None
) -> Plan:
    """A plan that is no more expensive than the given one, on edges of the problem; u and v speed it up."""
    slack = problem.slack(u, v)
    count = 1 << (min(len(u), len(v)) // RELIEF).bit_length()
    for turn in range(RELIEFS):
        plan = _relieved_once(problem, plan, slack, problem.patched(count, turn, u, v)[turn % 2], turn % 2, check)
    return plan


def _relieved_once(
    problem: Sparse, plan: Plan, slack: np.ndarray, patch: np.ndarray, side: int, check: Callable[[], None]
) -> Plan:
    """One pass over the patches of one side, each with the part of the plan that begins, or ends, in it."""
    count = 1 + int(patch.max())
    carrying, begins, _ = _grouped(patch[(plan.rows, plan.columns)[side]], count)
    edges, starts, _ = _grouped(patch[(problem.rows, problem.columns)[side]], count)
    parts = [(plan.rows, plan.columns, plan.mass)] * count  # each is replaced

    def improve(number: int) -> None:
        check()
        now = carrying[begins[number] : begins[number + 1]]
        parts[number] = plan.rows[now], plan.columns[now], plan.mass[now]
        if not len(now):  # such as when a solver returned no plan
            return
        (i, at_i), (j, at_j) = (np.unique(ends[now], return_inverse=True) for ends in (plan.rows, plan.columns))
        k = edges[starts[number] : starts[number + 1]]
        rows, known_i = _found(problem.rows[k], i)
        columns, known_j = _found(problem.columns[k], j)
        known = known_i & known_j
        costs = coo_matrix((slack[k[known]], (rows[known], columns[known])), shape=(len(i), len(j)))
        masses = np.bincount(at_i, plan.mass[now]), np.bincount(at_j, plan.mass[now])
        try:
            better, _, _ = network_simplex(*masses, costs)
        except TransportError:
            return
        if all(np.allclose(*pair, rtol=KEPT, atol=0) for pair in zip(better.marginals, masses)):
            parts[number] = i[better.rows], j[better.columns], better.mass

    _each(improve, count)
    rows, columns, mass = (np.concatenate(of_all) for of_all in zip(*parts))
    return Plan(rows, columns, mass, plan.shape)


def _found(values: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The position of each value among sorted others, and whether it is there."""
    place = np.searchsorted(among, values).clip(max=len(among) - 1)
    return place, among[place] == values


def _grouped(group: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The members of `count` groups, group after group; where each group begins, shape (count + 1,); and the position
    of every member within its group."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(count + 1))
    place = np.empty(len(group), dtype=np.int64)
    place[order] = np.arange(len(group)) - starts[group[order]]
    return order, starts, place


def _each(call: Callable[[int], None], count: int) -> None:
    """Calls `call` with all numbers below `count`, on as many threads as torch may use; raises what a call raised."""
    numbers = iter(range(count))
    failed: list[BaseException] = []

    def work(numbers: Iterator[int]) -> None:
        try:
            for number in numbers:  # one interpreter lock: each number is drawn once
                if failed:
                    return
                call(number)
        except BaseException as error:
            failed.append(error)

    threads = [
        Thread(target=partial(work, numbers), daemon=True) for _ in range(min(count, torch.get_num_threads()) - 1)
    ]
    for thread in threads:
        thread.start()
    work(numbers)
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
