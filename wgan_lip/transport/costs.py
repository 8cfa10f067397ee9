r"""Exact transport for any cost: other norms, squared distances, cosines, a function, a matrix; with a dual pair.

.. math:: \min_\pi \sum_{ij} \pi_{ij} c_{ij} = \max \Big\{ \sum_i a_i u_i + \sum_j b_j v_j :
    u_i + v_j \leq c_{ij} \text{ for all } i, j \Big\}

Any plan bounds it from above and any feasible pair from below. The solver's pair is feasible up to rounding; here it is
made feasible: costs are lowered by the largest error of their computation, then v_j = min_i c_ij - u_i, rounded down
again. So u_i + v_j <= c_ij holds in real arithmetic, whatever the solver did.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist
from torch import Tensor

from wgan_lip.transport.exact import network_simplex
from wgan_lip.transport.plans import Plan, kr_value_down, marginal_defect
from wgan_lip.transport.problem import TransportError, masses_of, meet
from wgan_lip.transport.rounding import LARGEST, U, as_points, normalised, unit_of, weighted_mean
from wgan_lip.utils.checks import InputError, as_tensor, check_choice, check_memory, check_weights
from wgan_lip.utils.numbers import interval_text, rounded
from wgan_lip.utils.printing import Bar, Printed, Row, number_line

__all__ = ["COSTS", "TransportCost", "transport_cost"]

COSTS = {
    "euclidean": "Euclidean distances",
    "l1": "L1 distances",
    "linf": "L∞ distances",
    "sqeuclidean": "squared Euclidean distances",
    "cosine": "1 − cosine",
}
METRICS = ("euclidean", "l1", "linf")
_SCIPY = {"l1": "cityblock", "linf": "chebyshev"}  # names of the others in cdist
BYTES_PER_PAIR = 72  # costs, those rounded down, heights, the plan, and the solver's own arcs
REMEDY = "Give fewer samples."
SAMPLED = 40  # points on which a claimed metric is checked
TRIANGLE = 1e-9  # relative excess of a side over the way round that counts as rounding

Cost = str | Callable[[np.ndarray, np.ndarray], ArrayLike] | ArrayLike | Tensor


@dataclass(frozen=True, eq=False, repr=False)
class TransportCost(Printed):
    """The least cost of transport between two weighted sample sets, solved and verified.

    Attributes:
        value: The cost of the plan: the best single number, inside [lower, upper].
        lower: At most the least cost: the value of the dual pair, rounding subtracted.
        upper: At least the least cost: the cost of `plan`, with its marginals' defects and rounding added.
        plan: The coupling, of total mass 1, between the samples as they were given.
        u: The dual variables of x, shape (n,).
        v: Those of y, shape (m,): u_i + v_j <= c_ij in real arithmetic for all i and j.
        cost: The cost of moving a unit of mass, in words.
        metric: Whether the cost is a metric, so that `value` is W1 in that metric; for a function or a matrix, whether
            it was declared one and no counterexample was found.
        note: What to know about this; "" if nothing.

    All are in the units of the cost: for squared distances, W2 squared.
    """

    value: float
    lower: float
    upper: float
    plan: Plan
    u: np.ndarray
    v: np.ndarray
    cost: str
    metric: bool
    note: str = ""

    @property
    def exact(self) -> float | None:
        """`value` where the two ends agree to a relative 1e-9, else None."""
        return self.value if meet(self.lower, self.upper) else None

    def headline(self) -> str:
        n, m = self.plan.shape
        return f"Optimal transport between {n:,} and {m:,} samples for {self.cost}, solved and verified"

    def summary_rows(self) -> list[Row]:
        rows = [
            Row("Least cost", interval_text(self.lower, self.upper, self.exact), "certified"),
            Row("  best value", rounded(self.value, 10), "the cost of the plan"),
            *self.plan.summary_rows(),
            Row("Metric", "yes" if self.metric else "no", "so this is W1" if self.metric else "so this is not W1"),
        ]
        return [*rows, Row("Note", self.note)] if self.note else rows

    def picture(self) -> str:
        bar = Bar("least cost", self.lower, self.upper, self.exact)
        return number_line([bar], interval_text(self.lower, self.upper, self.exact))


def transport_cost(
    x: Tensor | ArrayLike | None,
    y: Tensor | ArrayLike | None,
    cost: Cost = "euclidean",
    *,
    a: Tensor | ArrayLike | None = None,
    b: Tensor | ArrayLike | None = None,
    scale: Tensor | ArrayLike | None = None,
    metric: bool = False,
) -> TransportCost:
    r"""Solves the transport problem between two sample sets exactly, for any cost, and encloses its value.

    =================  =============================================================  ======================
    `cost`             :math:`c_{ij}`, with weights :math:`w_k` of the coordinates    metric
    =================  =============================================================  ======================
    ``"euclidean"``    :math:`(\sum_k w_k (x_{ik} - y_{jk})^2)^{1/2}`                 yes: W1
    ``"l1"``           :math:`\sum_k w_k |x_{ik} - y_{jk}|`                           yes: W1 in that norm
    ``"linf"``         :math:`\max_k w_k |x_{ik} - y_{jk}|`                           yes: W1 in that norm
    ``"sqeuclidean"``  :math:`\sum_k w_k (x_{ik} - y_{jk})^2`                         no: W2 squared
    ``"cosine"``       :math:`1 - x_i \cdot y_j / (\|x_i\| \|y_j\|)`                  no
    a function         what it returns for x (n, d) and y (m, d): an (n, m) array     if you say so
    a matrix           its entries, shape (n, m); x and y may be None                 if you say so
    =================  =============================================================  ======================

    Arguments:
        x: Samples of P, shape (n, d).
        y: Samples of Q, shape (m, d).
        cost: See above. A function gets NumPy arrays of float64. Costs must be finite; they may be negative.
        a: Non-negative weights of x, shape (n,), of any positive total, by which they are divided; uniform by default.
        b: Non-negative weights of y, shape (m,), as for x.
        scale: Non-negative weights w of the coordinates, shape (d,), at least one positive, for the first four costs; 1
            by default. Where some are 0, "metric" means: between the points without these coordinates.
        metric: Declares a function or a matrix to be a metric. The function is checked on pairs of 40 samples: it must
            be symmetric, 0 only between equal points, and satisfy the triangle inequality. For a matrix, only
            c_ij <= c_il + c_kl + c_kj can be checked, which follows from that.

    Returns:
        The interval, the plan, and a dual pair.

    Raises:
        InputError: Unusable samples, weights, scale or costs; a claimed metric that is not one (the points are named);
            less memory than the solver needs.
        TransportError: The solver did not reach an optimum.

    Guarantee:
        lower <= least cost <= upper for the numbers as given, whatever the solver did, on IEEE 754 arithmetic; the
        entries of a matrix, and what a function returns, are taken as exact. Passing the check does not prove a metric.

    References:
        Optimal Transport, Old and New (Villani, 2009), Theorem 5.10; Computational Optimal Transport (Peyré and Cuturi,
        2019), section 3.2, on c-transforms

    Example:
        >>> transport_cost([[0.0, 0.0], [1.0, 0.0]], [[3.0, 4.0], [4.0, 4.0]], "l1").value
        7.0
        >>> transport_cost([[0.0, 0.0], [1.0, 0.0]], [[3.0, 4.0], [4.0, 4.0]], "sqeuclidean").value
        25.0
    """
    table = _table(x, y, cost, scale, metric)
    n, m = table.shape
    check_memory(BYTES_PER_PAIR * n * m, f"an exact plan between {n} and {m} samples", REMEDY)
    a, b = check_weights(a, n, "a"), check_weights(b, m, "b")
    (rows, no_rows), (columns, no_columns) = (
        (np.arange(k), np.empty(0, dtype=np.int64)) if w is None else (np.flatnonzero(w), np.flatnonzero(w == 0))
        for w, k in ((a, n), (b, m))
    )
    a, b = None if a is None else a[rows], None if b is None else b[columns]
    costs = table.between(rows, columns)
    least, most = float(costs.min()), float(costs.max())
    if not -LARGEST <= least <= most <= LARGEST:
        got = least if not least >= -LARGEST else most
        raise InputError(f"Costs must be at most {LARGEST:g} in absolute value, not {got:g}. Rescale them.")

    # The solver gets costs from 0 to about 1. That affects the plan, but no bound.
    base = min(0.0, least)
    size = math.ldexp(1.0, math.frexp(most - base)[1]) if most > base else 1.0
    masses = masses_of(*(np.ones(len(k)) if w is None else w for w, k in ((a, rows), (b, columns))))
    plan, _, part = network_simplex(*masses, (costs - base) / size)

    low = costs - table.error(costs)
    if least >= 0:
        low = np.maximum(low, 0.0)
    u, v = np.empty(n), np.empty(m)
    u[rows] = _below(low - size * (part - (part.max() + part.min()) / 2))
    v[columns] = _below(low.T - u[rows])
    u[no_rows] = _below(table.low(no_rows, columns) - v[columns])
    v[no_columns] = _below(table.low(np.arange(n), no_columns).T - u)

    lower = kr_value_down(u[rows], -v[columns], a, b, 0.0)
    lower = max(0.0, lower) if least >= 0 else lower
    value, upper, exact = _paid(plan, costs, table.error, a, b)
    edges = rows[plan.rows], columns[plan.columns]
    if value == 0.0 == least and exact and table.coincide(*edges):
        upper = 0.0  # nothing moves
    if not lower <= upper:
        raise TransportError(f"The lower bound {lower} exceeds the upper bound {upper}. Please report these samples.")
    value = min(max(value, lower), upper)
    plan = Plan(*edges, plan.mass / plan.mass.sum(), (n, m))
    return TransportCost(value, lower, upper, plan, u, v, table.words, table.metric, table.note)


def _below(heights: np.ndarray) -> np.ndarray:
    """The least of each row, at most its value in real arithmetic although differences are rounded to nearest."""
    return np.nextafter(heights.min(1), -math.inf)


def _paid(
    plan: Plan, costs: np.ndarray, error: Callable[[np.ndarray], np.ndarray], a: np.ndarray | None, b: np.ndarray | None
) -> tuple[float, float, bool]:
    """The plan's cost, an upper bound on the least cost, and whether its marginals are exact: excess mass is taken from
    the plan, and what is then missing, at most half of their l1 defects, travels at the highest cost."""
    paid, mass = costs[plan.rows, plan.columns], normalised(plan.mass)
    lacks = sum(
        marginal_defect(index, plan.mass, w, k)
        for index, w, k in zip((plan.rows, plan.columns), (a, b), costs.shape, strict=True)
    )
    cost = weighted_mean(paid, mass)
    bound = weighted_mean(paid + error(paid), mass) + 8 * U * weighted_mean(np.abs(paid) + error(paid), mass)
    if lacks:
        highest = float((costs.max() + error(costs.max())) - min(0.0, costs.min()))
        bound += 0.505 * lacks * highest
    return cost, math.nextafter(bound + 4 * U * abs(bound), math.inf), not lacks


# --- costs, and the errors of their computation -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Table:
    """All costs between n and m samples.

    Attributes:
        shape: (n, m).
        between: The costs between samples with these two lists of indices, a new array.
        error: A bound on the error of each cost, as a function of it.
        coincide: Whether the samples at the two ends of each edge are known to be equal.
        words: The costs in words.
        metric: Whether they are a metric.
        note: What to know about that.
    """

    shape: tuple[int, int]
    between: Callable[[np.ndarray, np.ndarray], np.ndarray]
    error: Callable[[np.ndarray], np.ndarray]
    coincide: Callable[[np.ndarray, np.ndarray], bool]
    words: str
    metric: bool
    note: str = ""

    def low(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        costs = self.between(rows, columns)
        return costs - self.error(costs)


def _table(
    x: Tensor | ArrayLike | None,
    y: Tensor | ArrayLike | None,
    cost: Cost,
    scale: Tensor | ArrayLike | None,
    metric: bool,
) -> _Table:
    if isinstance(cost, str):
        check_choice(cost, list(COSTS), "cost")
        if x is None or y is None:
            raise InputError("x and y must be samples, not None: only a matrix of costs works without them.")
        return _named(*as_points(x, y), cost, scale)
    if scale is not None:
        raise InputError(f"scale works only with {', '.join(set(COSTS) - {'cosine'})}. Apply it in your own cost.")
    if not callable(cost):
        shape = tuple(None if points is None else len(as_tensor(points, name)) for name, points in (("x", x), ("y", y)))
        matrix = _matrix(cost, shape, "cost")
        note = _tried_matrix(matrix) if metric else ""
        return _given(matrix, "costs given as a matrix", metric, note)
    if x is None or y is None:
        raise InputError("A cost that is a function needs samples x and y, not None.")
    x, y = (points.numpy() for points in as_points(x, y))
    matrix = _matrix(cost(x, y), (len(x), len(y)), "the costs that the function returns")
    note = _tried_function(cost, x, y) if metric else ""
    return _given(matrix, f"the cost {getattr(cost, '__name__', type(cost).__name__)}", metric, note)


def _matrix(costs: ArrayLike | Tensor, shape: tuple[int | None, ...], name: str) -> np.ndarray:
    matrix = as_tensor(costs, name).detach().cpu().double().numpy()
    wanted = ", ".join("nm"[axis] if size is None else str(size) for axis, size in enumerate(shape))
    if matrix.ndim != 2 or not matrix.size or any(s not in (None, k) for s, k in zip(shape, matrix.shape)):
        raise InputError(f"{name} must have shape ({wanted}), not {matrix.shape}.")
    if not np.isfinite(matrix).all():
        i, j = np.argwhere(~np.isfinite(matrix))[0]
        raise InputError(f"{name} must be finite, not {matrix[i, j]} at ({i}, {j}). Use a large cost instead.")
    return matrix


def _given(matrix: np.ndarray, words: str, metric: bool, note: str) -> _Table:
    """Costs that are exact as they are."""
    return _Table(
        (matrix.shape[0], matrix.shape[1]),
        lambda rows, columns: matrix[np.ix_(rows, columns)],
        np.zeros_like,
        lambda rows, columns: True,
        words,
        metric,
        note,
    )


def _named(x: Tensor, y: Tensor, cost: str, scale: Tensor | ArrayLike | None) -> _Table:
    d = x.shape[1]
    words, weights = COSTS[cost], None
    if scale is not None:
        if cost == "cosine":
            raise InputError("The cosine cost takes no scale. Multiply the coordinates by it instead.")
        weights = check_weights(scale, d, "scale")
        words += ", coordinates weighted"

    if cost == "cosine":
        ends = _directions(x, "x"), _directions(y, "y")
        tilt = (d / 2 + 6) * U  # how far a computed direction is from the true one

        def between(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
            return cdist(ends[0][rows], ends[1][columns], "sqeuclidean") / 2

        def error(costs: np.ndarray) -> np.ndarray:
            return 1.01 * ((d + 8) * U * costs + 2 * tilt * np.sqrt(2 * costs) + 4 * tilt**2)
    else:
        power = 2 if cost == "sqeuclidean" else 1
        # By differences, with one rounding for each, one for a weight, and those of the sum, halved by a root.
        relative = {"euclidean": d / 2 + 5, "l1": d + 4, "linf": 4, "sqeuclidean": d + 8}[cost] * U
        units = []  # of all calls: underflow errs by less than 2^-490 of the largest

        def between(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
            if not (len(rows) and len(columns)):
                return np.empty((len(rows), len(columns)))
            p, q = x[torch.from_numpy(rows)], y[torch.from_numpy(columns)]
            unit = unit_of(p, q)
            factor, given = unit**power if unit < 2.0**500 else math.inf, {}
            if weights is not None:
                even = 2 * (int(np.frexp(weights.max())[1]) // 2)
                given = {"w": np.ldexp(weights, -even)}
                factor *= 2.0 ** (even // 2 if cost == "euclidean" else even)
            units.append(factor)
            if not 0 < factor * d < math.inf:
                raise InputError(f"The {words} of these samples exceed the range of float64. Rescale the samples.")
            ends_p, ends_q = (p / unit).numpy(), (q / unit).numpy()
            if given and cost == "linf":  # cdist takes weights of this norm for a choice of coordinates
                highest = np.zeros((len(p), len(q)))
                for weight, at_p, at_q in zip(given["w"], ends_p.T, ends_q.T):
                    np.maximum(highest, weight * np.abs(at_p[:, None] - at_q), out=highest)
                return factor * highest
            return factor * cdist(ends_p, ends_q, _SCIPY.get(cost, cost), **given)

        def error(costs: np.ndarray) -> np.ndarray:
            return 1.01 * relative * costs + d * 2.0**-490 * max(units)

    def coincide(rows: np.ndarray, columns: np.ndarray) -> bool:
        return torch.equal(x[torch.from_numpy(rows)], y[torch.from_numpy(columns)])

    return _Table((len(x), len(y)), between, error, coincide, words, cost in METRICS)


def _directions(points: Tensor, name: str) -> np.ndarray:
    """The rows at length 1, shape (n, d)."""
    largest = points.abs().amax(1)
    if not largest.all():
        row = int((largest == 0).nonzero()[0])
        raise InputError(f"Row {row} of {name} is zero, so it has no direction for the cosine cost. Drop it.")
    points = torch.ldexp(points, -torch.frexp(largest).exponent[:, None])
    return (points / torch.linalg.vector_norm(points, dim=1, keepdim=True)).numpy()


# --- claimed metrics --------------------------------------------------------------------------------------------------


def _tried_function(cost: Callable[[np.ndarray, np.ndarray], ArrayLike], x: np.ndarray, y: np.ndarray) -> str:
    points = np.unique(np.concatenate([part[_spread(len(part), SAMPLED // 2)] for part in (x, y)]), axis=0)
    d = _matrix(cost(points, points), (len(points), len(points)), "the costs that the function returns")
    around = (d[:, :, None] + d[None]).min(1)
    tolerance = TRIANGLE * float(np.abs(d).max())
    for broken, what in (
        (np.abs(d - d.T) > tolerance, "the costs there and back differ"),
        (np.eye(len(d), dtype=bool) & (np.abs(d) > tolerance), "the cost of staying is not 0"),
        (~np.eye(len(d), dtype=bool) & (d <= 0), "the cost between different points is not positive"),
        (d > around + tolerance, "a way round by a third point is cheaper"),
    ):
        if broken.any():
            i, j = np.argwhere(broken)[0]
            raise InputError(
                f"This cost is not a metric: between {points[i].tolist()} and {points[j].tolist()}, at {d[i, j]:.9g}, "
                f"{what}. Leave metric=True out."
            )
    return f"That the cost is a metric was checked on {len(points)} of the samples, not proved."


def _tried_matrix(matrix: np.ndarray) -> str:
    rows, columns = (_spread(size, SAMPLED) for size in matrix.shape)
    c = matrix[np.ix_(rows, columns)]
    between_rows = (c[:, None] + c[None]).min(2)  # over the third way, by y_l
    around = (between_rows[:, :, None] + c[None]).min(1)
    broken = (c < 0) | (c > around + TRIANGLE * np.abs(c).max())
    if broken.any():
        i, j = np.argwhere(broken)[0]
        raise InputError(
            f"These costs are not a metric: at ({rows[i]}, {columns[j]}) the cost is {c[i, j]:.9g}, but "
            + ("no distance is negative" if c[i, j] < 0 else f"the way round by two others costs {around[i, j]:.9g}")
            + ". Leave metric=True out."
        )
    return (
        "That the costs are a metric is assumed: a matrix between two sets does not hold the distances within them. "
        f"c_ij <= c_il + c_kl + c_kj was checked on {len(rows)} rows and {len(columns)} columns."
    )


def _spread(size: int, most: int) -> np.ndarray:
    """At most `most` indices, evenly spread."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(np.int64))
