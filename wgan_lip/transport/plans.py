"""Plans, and the two inequalities around W1: the cost of a plan above it, the value of a potential below it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip.transport.rounding import (
    CACHED,
    SMALLEST,
    U,
    as_points,
    as_values,
    distance_error,
    normalised,
    unit_of,
    vanishing,
    weighted_mean,
)
from wgan_lip.utils.checks import InputError, check_weights
from wgan_lip.utils.numbers import rounded
from wgan_lip.utils.printing import Printed, Row

__all__ = ["Plan", "lower_bound_kr", "upper_bound_plan_cost"]


@dataclass(frozen=True, eq=False, repr=False)
class Plan(Printed):
    r"""A sparse coupling: `mass[k]` travels from point `rows[k]` of x to point `columns[k]` of y.

    Arguments:
        rows: Indices into x, shape (k,).
        columns: Indices into y, shape (k,).
        mass: Finite non-negative masses of positive total, shape (k,). The plans of :func:`solve` have total 1.
        shape: The number of points on either side, (n, m).

    Raises:
        InputError: Arrays of unequal length, an index out of range, a negative or non-finite mass, no mass at all.
    """

    rows: np.ndarray
    columns: np.ndarray
    mass: np.ndarray
    shape: tuple[int, int]

    def headline(self) -> str:
        return f"A coupling of {self.shape[0]:,} and {self.shape[1]:,} points"

    def summary_rows(self) -> list[Row]:
        return [Row("Coupling", f"{len(self.mass):,} pairs", f"of total mass {rounded(float(self.mass.sum()), 10)}")]

    def __post_init__(self) -> None:
        mass = check_weights(self.mass, np.size(self.mass), "plan.mass")
        object.__setattr__(self, "mass", mass)
        for name, size in zip(("rows", "columns"), self.shape, strict=True):
            index = np.asarray(getattr(self, name))
            if index.shape != mass.shape or index.dtype.kind not in "iu":
                raise InputError(
                    f"plan.{name} must hold {len(mass)} integers, one for each mass, not {index.dtype} of shape "
                    f"{index.shape}."
                )
            if index.min() < 0 or index.max() >= size:
                raise InputError(f"plan.{name} must be in 0..{size - 1}, not {index.min()}..{index.max()}.")
            object.__setattr__(self, name, index.astype(np.int64, copy=False))

    @property
    def marginals(self) -> tuple[np.ndarray, np.ndarray]:
        """The mass that leaves each point of x, shape (n,), and that reaches each point of y, shape (m,)."""
        n, m = self.shape
        return np.bincount(self.rows, self.mass, n), np.bincount(self.columns, self.mass, m)

    def cost(self, x: Tensor | ArrayLike, y: Tensor | ArrayLike) -> float:
        """The mean Euclidean distance travelled, in the units of x, shape (n, d), and y, shape (m, d).

        An ordinary floating-point number; :func:`upper_bound_plan_cost` is the bound on W1.
        """
        return self._cost(*as_points(x, y))

    def _cost(self, x: Tensor, y: Tensor) -> float:
        unit = unit_of(x, y)
        return unit * weighted_mean(lengths(x / unit, y / unit, self.rows, self.columns), normalised(self.mass))

    def dense(self) -> np.ndarray:
        """The plan as a matrix, shape (n, m)."""
        matrix = np.zeros(self.shape)
        np.add.at(matrix, (self.rows, self.columns), self.mass)
        return matrix


def lower_bound_kr(
    values_x: Tensor | ArrayLike,
    values_y: Tensor | ArrayLike,
    a: Tensor | ArrayLike | None = None,
    b: Tensor | ArrayLike | None = None,
    *,
    error: float = 0.0,
) -> float:
    r"""Bounds the Kantorovich-Rubinstein value of a potential from below, given its values at the samples.

    .. math:: E_P f - E_Q f = \sum_i a_i f(x_i) \Big/ \sum_i a_i - \sum_j b_j f(y_j) \Big/ \sum_j b_j

    Arguments:
        values_x: f at the samples of P, shape (n,).
        values_y: f at the samples of Q, shape (m,).
        a: Weights of x, shape (n,); uniform by default.
        b: Weights of y, shape (m,); uniform by default.
        error: A bound on the absolute error of every given value.

    Returns:
        A number that is never too high, in the units of f. It may be negative.

    Guarantee:
        Rounding of the means is subtracted. If f is 1-Lipschitz the number is a lower bound on W1(P, Q); proving that
        f is 1-Lipschitz, and that `error` holds, is up to the caller.

    Raises:
        InputError: Values that are not finite numbers of shape (n,), unusable weights, a negative error.

    References:
        Optimal Transport, Old and New (Villani, 2009), Remark 6.5
    """
    if not 0 <= error < math.inf:
        raise InputError(f"error must be finite and non-negative, not {error}.")
    at_x, at_y = (
        as_values(values, f"values_{name}").cpu().numpy() for values, name in ((values_x, "x"), (values_y, "y"))
    )
    return kr_value_down(
        at_x, at_y, check_weights(a, len(at_x), "weights"), check_weights(b, len(at_y), "weights"), error
    )


def kr_value_down(
    values_x: np.ndarray, values_y: np.ndarray, a: np.ndarray | None, b: np.ndarray | None, error: float
) -> float:
    """:func:`lower_bound_kr` for checked values and weights."""
    means, sizes, count = [], 0.0, 0
    for array, weights in ((values_x, a), (values_y, b)):
        means.append(weighted_mean(array, None if weights is None else normalised(weights)))
        sizes += float(np.abs(array).max())
        count += len(array)
    # Each mean: product, sum, total and quotient round once; then the difference of the means, and these lines.
    slack = (2 * error + 8 * U * sizes + count * SMALLEST) * (1 + 8 * U)
    return math.nextafter(means[0] - means[1] - slack, -math.inf)


def upper_bound_plan_cost(
    x: Tensor | ArrayLike,
    y: Tensor | ArrayLike,
    plan: Plan,
    a: Tensor | ArrayLike | None = None,
    b: Tensor | ArrayLike | None = None,
) -> float:
    r"""Bounds W1 from above by the cost of any plan; its marginals need not be right.

    .. math:: W_1(P, Q) \leq \sum_k \pi_k \|x_{i_k} - y_{j_k}\|
        + \tfrac{1}{2} \mathrm{diam}(x) \|a' - a\|_1 + \tfrac{1}{2} \mathrm{diam}(y) \|b' - b\|_1

    with a', b' the marginals of :math:`\pi` and all masses normalised: the triangle inequality, and mass moved within
    a set travels no further than its diameter, which is bounded by that of its bounding box.

    Arguments:
        x: Samples of P, shape (n, d).
        y: Samples of Q, shape (m, d).
        plan: Any plan of shape (n, m), of any total.
        a: Weights of x, shape (n,); uniform by default.
        b: Weights of y, shape (m,); uniform by default.

    Returns:
        A number that is never too low, in the units of the samples: rounding is added.

    Guarantee:
        Holds for every plan and for these weighted points only. How tight it is depends on the plan alone.

    Raises:
        InputError: Unusable samples or weights, or a plan of another shape.
    """
    x, y = as_points(x, y)
    if plan.shape != (len(x), len(y)):
        raise InputError(f"plan must have shape {(len(x), len(y))}, not {plan.shape}.")
    unit = unit_of(x, y)
    weights = check_weights(a, len(x), "a"), check_weights(b, len(y), "b")
    return plan_cost(x, y, plan, *weights, unit)[1]


def plan_cost(
    x: Tensor, y: Tensor, plan: Plan, a: np.ndarray | None, b: np.ndarray | None, unit: float
) -> tuple[float, float]:
    """The plan's cost, and :func:`upper_bound_plan_cost`, for checked samples (float64, on the CPU) and weights; `unit`
    is a power of two near the spread of the samples."""
    defects = [
        marginal_defect(index, plan.mass, weights, len(points))
        for points, index, weights in ((x, plan.rows, a), (y, plan.columns, b))
    ]
    d = x.shape[1]
    far = lengths(x / unit, y / unit, plan.rows, plan.columns)
    if not any(defects) and not far.any() and torch.equal(x[plan.rows], y[plan.columns]):
        return 0.0, 0.0  # nothing moves
    cost = weighted_mean(far, normalised(plan.mass))
    bound = cost * (1 + distance_error(d) + 6 * U)
    for points, defect in zip((x, y), defects):
        if defect:
            box = torch.linalg.vector_norm(points.amax(0) / unit - points.amin(0) / unit)
            bound += 0.505 * (float(box) + vanishing(d)) * defect
    bound = (bound * (1 + 8 * U) + 2 * vanishing(d)) * unit
    return unit * cost, math.nextafter(bound + SMALLEST, math.inf)


def dealt(plan: Plan, a: np.ndarray, b: np.ndarray, cell_x: np.ndarray, cell_y: np.ndarray) -> Plan:
    """Turns a plan between cells into one between their points: each edge's mass is distributed in order of the points.

    Arguments:
        plan: Between cells of x and cells of y.
        a: Masses of the points of x, shape (n,); those of a cell add up to what leaves it.
        b: Masses of the points of y, shape (m,), as for x.
        cell_x: The cell of each point of x, shape (n,).
        cell_y: The cell of each point of y, shape (m,).
    """
    lines = []
    for edge_cell, point_cell, mass in ((plan.rows, cell_x, a), (plan.columns, cell_y, b)):
        edges, points = np.argsort(edge_cell, kind="stable"), np.argsort(point_cell, kind="stable")
        ends = np.cumsum(plan.mass[edges])
        begin = np.empty(len(edges))
        begin[edges] = ends - plan.mass[edges]  # of each edge, where all mass lies on a line, cell by cell
        reached = np.cumsum(mass[points])
        edge = edges[np.searchsorted(ends, reached).clip(max=len(edges) - 1)]  # the edge on which each point ends
        lines.append((points, reached, begin, edge, reached - begin[edge]))
    edge = np.concatenate([lines[0][3], lines[1][3], np.arange(len(plan.mass))])
    cut = np.concatenate([lines[0][4], lines[1][4], plan.mass])  # measured along the edge
    order = np.lexsort((cut, edge))
    edge, cut = edge[order], cut[order]
    first = np.diff(edge, prepend=-1) > 0
    mass = np.where(first, cut, np.diff(cut, prepend=0.0))
    kept = mass > 0
    edge, middle, mass = edge[kept], (cut - mass / 2)[kept], mass[kept]
    rows, columns = (
        points[np.searchsorted(reached, begin[edge] + middle).clip(max=len(points) - 1)]
        for points, reached, begin, _, _ in lines
    )
    return Plan(rows, columns, mass, (len(a), len(b)))


def is_whole(masses: np.ndarray) -> bool:
    """Whether these are integers that float64 adds up without rounding."""
    return bool((masses == np.floor(masses)).all() and masses.sum() < 2**53)


def lengths(x: Tensor, y: Tensor, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The distances, by differences, from x (n, d) to y (m, d) along the edges rows[k], columns[k], shape (k,)."""
    step = max(1, min(len(rows), CACHED // x.shape[1]))
    starts, ends = np.empty((2, step, x.shape[1]))
    squares = np.empty(len(rows))
    for k in range(0, len(rows), step):
        block = slice(k, k + step)
        way, end = (memory[: len(rows[block])] for memory in (starts, ends))
        np.take(x.numpy(), rows[block], 0, out=way, mode="clip")  # without "clip", NumPy copies what it writes
        np.take(y.numpy(), columns[block], 0, out=end, mode="clip")
        way -= end
        np.einsum("ij,ij->i", way, way, out=squares[block])
    return np.sqrt(squares)


def marginal_defect(index: np.ndarray, mass: np.ndarray, weights: np.ndarray | None, size: int) -> float:
    """An upper bound on the l1 distance between the plan's normalised marginal and the normalised weights."""
    counts = np.bincount(index, minlength=size)
    if weights is None and (counts == 1).all() and (mass == mass[0]).all():
        return 0.0  # a permutation: exactly uniform
    whole = np.ones(size) if weights is None else weights
    assert len(whole) == size  # others would broadcast, and hide a defect
    if is_whole(mass) and is_whole(whole):
        share, rest = divmod(mass.sum(), whole.sum())
        if not rest and np.array_equal(np.bincount(index, mass, size), share * whole):
            return 0.0  # sums of whole numbers do not round
    mass = normalised(mass)
    marginal = np.zeros(size, np.longdouble)
    np.add.at(marginal, index, mass)
    marginal /= math.fsum(mass.tolist())
    if weights is None:
        wanted = np.ones(size, np.longdouble) / size
    else:
        weights = normalised(weights)
        wanted = weights.astype(np.longdouble) / math.fsum(weights.tolist())
    # Adding up the c masses of a point errs by c eps of their sum; totals and quotients by less than 16 u in all.
    roundings = float(counts.max()) * float(np.finfo(np.longdouble).eps) + 16 * U
    return 1.01 * (float(np.abs(marginal - wanted).sum()) + roundings)
