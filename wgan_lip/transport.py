r"""Exact optimal transport by POT: plans, potentials, verified.

The solver is never believed. What it returns is a plan, whose cost bounds :math:`W_1` from above, and dual values,
which define a 1-Lipschitz potential whose Kantorovich-Rubinstein value bounds :math:`W_1` from below. Both bounds are
recomputed here from the samples; a wrong answer of the solver widens the interval and never falsifies it.

Note [Rounding]
~~~~~~~~~~~~~~~
With u = 2^-53, a distance computed from differences has the relative error (d/2 + 2) u to first order, in whichever
order its d squares are added: u for a difference, doubled by the square, u for the square, (d - 1) u for the sum, all
halved by the root, and u for the root itself. The bounds use r = (d/2 + 4) u. The expansion |x|^2 + |y|^2 - 2 x.y has
no such bound and is never used; data are never centred, which would round them.

Squares overflow above 1e154 and vanish below 1e-162. Samples are therefore measured in a power of two near their
spread (`_unit`). The division is exact except for numbers that vanish beside the spread: what is lost there, and in
squares that underflow or are flushed to zero, stays below sqrt(d) 2^-500 units for a distance (`_vanishing`).

Sums are taken by `math.fsum`, which rounds once, and what is left is added outward.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist
from torch import Tensor

from wgan_lip.checks import InputError, check_pair, check_samples, check_weights

__all__ = ["Plan", "Potential", "Transport", "TransportError", "lower_bound_kr", "solve", "upper_bound_plan_cost"]

_U = 2.0**-53  # rounding to nearest: fl(t) = t (1 + e), |e| <= _U
_SMALLEST = 2.0**-1070  # more than one operation loses by underflow
_LARGEST = 1e280  # coordinates beyond it are refused, so that no bound overflows
_CHUNK = 2**22  # entries of one block of distances: 32 MiB
_BYTES_PER_PAIR = 40  # measured peak of the dense solver: costs, plan and the solver's own arcs


class TransportError(RuntimeError):
    """The solver ended without an optimal plan, or its answer contradicts itself."""


@dataclass(frozen=True, eq=False)
class Plan:
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

    def __post_init__(self) -> None:
        mass = check_weights(self.mass, np.size(self.mass), "plan.mass")
        object.__setattr__(self, "mass", mass)
        for name, size in zip(("rows", "columns"), self.shape, strict=True):
            index = np.asarray(getattr(self, name))
            if index.shape != mass.shape or index.dtype.kind not in "iu":
                raise InputError(
                    f"Expected plan.{name} to hold {len(mass)} integers, one for each mass. "
                    f"Got shape {index.shape} and dtype {index.dtype}."
                )
            if index.min() < 0 or index.max() >= size:
                raise InputError(f"Expected plan.{name} in 0..{size - 1}. Got {index.min()}..{index.max()}.")
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
        x, y = _points(x, y)
        unit = _unit(x, y)
        return unit * _mean(_lengths(x / unit, y / unit, self), _normalised(self.mass))

    def dense(self) -> np.ndarray:
        """The plan as a matrix, shape (n, m)."""
        matrix = np.zeros(self.shape)
        np.add.at(matrix, (self.rows, self.columns), self.mass)
        return matrix


class Potential:
    r"""A 1-Lipschitz function on all of :math:`\mathbb{R}^d`, made of cones.

    .. math:: f(z) = s \min_j \left( \|z - p_j\| - v_j \right), \qquad s \in \{1, -1\}

    A minimum of 1-Lipschitz functions is 1-Lipschitz, whatever the offsets are. With s = 1, the points of y and an
    optimal dual variable v of y, :math:`E_P f - E_Q f = W_1(P, Q)`; likewise with s = -1, the points of x and the
    dual variable u of x.

    Arguments:
        points: The apexes :math:`p_j`, shape (m, d).
        offsets: The :math:`v_j`, shape (m,), in the units of `points`.
        sign: s.

    Guarantee:
        The function is 1-Lipschitz; a computed value differs from it by no more than :meth:`with_error` says.

    References:
        Extension of range of functions (McShane, 1934); Optimal Transport, Old and New (Villani, 2009), Theorem 5.10
    """

    def __init__(self, points: Tensor | ArrayLike, offsets: Tensor | ArrayLike, *, sign: int = 1) -> None:
        self.points = check_samples(points, "points").detach().double()
        self.offsets = _values(offsets, "offsets")
        if self.offsets.shape[0] != self.points.shape[0]:
            raise InputError(
                f"Expected one offset for each of {self.points.shape[0]} points. Got {self.offsets.shape[0]}."
            )
        if sign not in (1, -1):
            raise InputError(f"Expected sign to be 1 or -1. Got {sign!r}.")
        self.sign = sign

    def __repr__(self) -> str:
        return f"Potential(points={tuple(self.points.shape)}, sign={self.sign})"

    def __call__(self, z: Tensor | ArrayLike) -> Tensor | np.ndarray:
        """Evaluates f at z, shape (k, d): float64 values of shape (k,), on the device of z, differentiable in z.

        Arrays give an array, tensors a tensor. The gradient has norm 1 except at the apexes, where it is 0. Memory
        stays bounded, with and without gradients. Raises :class:`InputError` where z has another dimension.
        """
        values, _ = self.with_error(z)
        return values if isinstance(z, Tensor) else values.numpy()

    def with_error(self, z: Tensor | ArrayLike) -> tuple[Tensor, float]:
        """Evaluates f at z, shape (k, d), with a bound on the rounding error of each of the (k,) values.

        The error is that of ordinary float64 arithmetic, in the units of z; see Note [Rounding].
        """
        z = check_samples(z, "z").double()
        d = self.points.shape[1]
        if z.shape[1] != d:
            raise InputError(f"Expected points of dimension {d}, that of the potential. Got shape {tuple(z.shape)}.")
        points, offsets = self.points.to(z.device), self.offsets.to(z.device)
        largest_offset = float(offsets.abs().max())
        with torch.no_grad():
            unit = max(_unit(z, points), math.ldexp(1.0, math.frexp(largest_offset)[1] - 1000))  # no offset overflows
        z, points, offsets, largest_offset = z / unit, points / unit, offsets / unit, largest_offset / unit
        with torch.no_grad():
            apex = _lowest_cone_line(z, points, offsets) if d == 1 else _lowest_cone(z, points, offsets)
        heights = torch.linalg.vector_norm(z - points[apex], dim=1) - offsets[apex]

        # A height errs by (r + u) (|f| + |v|): once here, twice where the cones were compared. On the line they are
        # compared through v +- (p - c), at the cost of the span of the points.
        error = 3 * (_distance_error(d) + _U) * (float(heights.detach().abs().max()) + largest_offset)
        if d == 1:
            error += 5 * _U * (float(points.max() - points.min()) + largest_offset)
        return self.sign * unit * heights, 1.01 * unit * (error + _vanishing(d)) + _SMALLEST


@dataclass(frozen=True, eq=False)
class Transport:
    """W1 between two weighted sample sets, solved and verified.

    Attributes:
        value: The cost of the plan: the best single number, inside [lower, upper].
        lower: No more than W1: the Kantorovich-Rubinstein value of `potential`, rounding subtracted.
        upper: No less than W1: the cost of `plan`, with its marginals' defects and rounding added.
        plan: The coupling, of total mass 1, between the points as they were given.
        potential: A 1-Lipschitz f with E_P f - E_Q f = W1(P, Q) up to rounding.

    All distances are in the units of the samples.
    """

    value: float
    lower: float
    upper: float
    plan: Plan
    potential: Potential


def solve(
    x: Tensor | ArrayLike,
    y: Tensor | ArrayLike,
    *,
    a: Tensor | ArrayLike | None = None,
    b: Tensor | ArrayLike | None = None,
) -> Transport:
    r"""Solves the transport problem between two sample sets exactly, and encloses its value.

    .. math:: W_1(P, Q) = \min_\pi \int \|x - y\| \, d\pi = \max_{\mathrm{Lip}(f) \leq 1} E_P f - E_Q f,
        \qquad P = \sum_i a_i \delta_{x_i} \Big/ \sum_i a_i, \quad Q = \sum_j b_j \delta_{y_j} \Big/ \sum_j b_j

    On the line (d = 1) by sorting, in O((n + m) log(n + m)). Otherwise by the network simplex of POT, whose time
    grows a little faster than n m and whose memory is about 40 n m bytes.

    Arguments:
        x: Samples of P, shape (n, d), any real dtype, any device. They are used in float64, on the CPU.
        y: Samples of Q, shape (m, d).
        a: Non-negative weights of x, shape (n,), of any positive total; uniform by default.
        b: Non-negative weights of y, shape (m,). Where both are given, the totals have to agree.

    Returns:
        The interval, the plan and a potential. The potential has its apexes at the smaller of the two sets.

    Raises:
        InputError: Unusable samples or weights; totals that differ by more than rounding; coordinates beyond 1e280;
            less memory available than the solver needs.
        TransportError: The solver did not reach an optimum.

    Guarantee:
        lower <= W1(P, Q) <= upper for the numbers as given, whatever the solver did, on IEEE 754 arithmetic. Its
        width is that of rounding, about 1e-14 of the spread of the samples: far outliers or clusters make it wide
        beside a small W1. The interval concerns these weighted points: it says nothing about the laws they were drawn
        from, whose W1 is smaller on average. Integers beyond 2^53 are rounded first.

    References:
        Optimal Transport, Old and New (Villani, 2009), Theorem 5.10; Displacement interpolation using Lagrangian
        mass transport (Bonneel et al., 2011), the solver; POT: Python Optimal Transport (Flamary et al., 2021)

    Example:
        >>> result = solve([[0.0, 0.0], [1.0, 0.0]], [[0.0, 2.0], [1.0, 2.0]])
        >>> result.value
        2.0
        >>> result.upper - result.lower < 1e-13
        True
    """
    x, y = _points(x, y)
    shape = (len(x), len(y))
    weights_a, weights_b = check_weights(a, shape[0], "a"), check_weights(b, shape[1], "b")
    if weights_a is not None and weights_b is not None:
        _check_totals(weights_a, weights_b, max(1e-9, 8 * _epsilon(a), 8 * _epsilon(b)))
    x, weights_a, kept_x = _drop_weightless(x, weights_a)
    y, weights_b, kept_y = _drop_weightless(y, weights_b)

    unit = _unit(x, y)
    solver = _solve_line if x.shape[1] == 1 else _solve_dense
    plan, u, v = solver((x / unit).numpy(), (y / unit).numpy(), weights_a, weights_b)

    points, dual, sign = (y, v, 1) if len(y) <= len(x) else (x, u, -1)
    dual = dual - (dual.max() + dual.min()) / 2  # a constant added to f changes no mean difference, only rounding
    potential = Potential(points, unit * dual, sign=sign)
    (values_x, error_x), (values_y, error_y) = potential.with_error(x), potential.with_error(y)
    lower = max(0.0, lower_bound_kr(values_x, values_y, weights_a, weights_b, error=max(error_x, error_y)))
    upper = upper_bound_plan_cost(x, y, plan, weights_a, weights_b)
    if not lower <= upper:
        raise TransportError(f"The lower bound {lower} exceeds the upper bound {upper}. Please report these samples.")
    value = min(max(plan.cost(x, y), lower), upper)
    plan = Plan(kept_x[plan.rows], kept_y[plan.columns], plan.mass, shape)
    return Transport(value, lower, upper, plan, potential)


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
        A number that never errs high, in the units of f. It may be negative.

    Guarantee:
        Rounding of the means is subtracted. Where f is 1-Lipschitz the number is a lower bound on W1(P, Q); that f
        is 1-Lipschitz, and that `error` holds, is the caller's to prove.

    Raises:
        InputError: Values that are not finite numbers of shape (n,), unusable weights, a negative error.

    References:
        Optimal Transport, Old and New (Villani, 2009), Remark 6.5
    """
    if not 0 <= error < math.inf:
        raise InputError(f"Expected error to be finite and non-negative. Got {error}.")
    means, sizes, count = [], 0.0, 0
    for values, weights, name in ((values_x, a, "x"), (values_y, b, "y")):
        array = _values(values, f"values_{name}").cpu().numpy()
        weights = check_weights(weights, len(array), "weights")
        means.append(_mean(array, None if weights is None else _normalised(weights)))
        sizes += float(np.abs(array).max())
        count += len(array)
    # Each mean: product, sum, total and quotient round once; then the difference of the means, and these lines.
    slack = (2 * error + 8 * _U * sizes + count * _SMALLEST) * (1 + 8 * _U)
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
        A number that never errs low, in the units of the samples: rounding is added.

    Guarantee:
        Holds for every plan and for these weighted points only. How tight it is depends on the plan alone.

    Raises:
        InputError: Unusable samples or weights, or a plan of another shape.
    """
    x, y = _points(x, y)
    if plan.shape != (len(x), len(y)):
        raise InputError(f"Expected a plan of shape {(len(x), len(y))}. Got {plan.shape}.")
    a, b = check_weights(a, len(x), "a"), check_weights(b, len(y), "b")
    unit, d = _unit(x, y), x.shape[1]
    x, y = x / unit, y / unit
    mass = _normalised(plan.mass)
    bound = _mean(_lengths(x, y, plan), mass) * (1 + _distance_error(d) + 6 * _U)
    for points, index, weights in ((x, plan.rows, a), (y, plan.columns, b)):
        box = torch.linalg.vector_norm(points.amax(0) - points.amin(0))
        bound += 0.505 * (float(box) + _vanishing(d)) * _marginal_defect(index, mass, weights, len(points))
    bound = (bound * (1 + 8 * _U) + 2 * _vanishing(d)) * unit
    return math.nextafter(bound + _SMALLEST, math.inf)


def _solve_dense(
    x: np.ndarray, y: np.ndarray, a: np.ndarray | None, b: np.ndarray | None
) -> tuple[Plan, np.ndarray, np.ndarray]:
    """An optimal plan and the dual variables u (n,), v (m,) with u_i + v_j <= |x_i - y_j|, by POT."""
    import ot  # slow to import, and needed here only

    n, m = len(x), len(y)
    _check_memory(n, m)
    a, b = _probabilities(a, n).astype(np.float64), _probabilities(b, m).astype(np.float64)
    # The default limit on iterations is met from a few thousand samples on, and the plan is then wrong.
    matrix, log = ot.emd(a, b, cdist(x, y), numItermax=10**9, log=True)
    if log["result_code"] != 1:
        raise TransportError(
            f"Expected an optimal plan between {n} and {m} samples. The solver ended with code {log['result_code']}: "
            f"{log['warning']}. Subsample, or scale the samples so that their distances are of comparable size."
        )
    rows, columns = np.nonzero(matrix > 0)
    return Plan(rows, columns, matrix[rows, columns], (n, m)), log["u"], log["v"]


def _solve_line(
    x: np.ndarray, y: np.ndarray, a: np.ndarray | None, b: np.ndarray | None
) -> tuple[Plan, np.ndarray, np.ndarray]:
    """The same on the line, shapes (n, 1) and (m, 1): the quantile coupling, and f' = -sign(F - G)."""
    n, m = len(x), len(y)
    x, y = x[:, 0], y[:, 0]
    order_x, order_y = np.argsort(x, kind="stable"), np.argsort(y, kind="stable")
    if a is None and b is None:  # in units of 1/(n m), where all levels are integers
        jumps_x, jumps_y = np.full(n, m), np.full(m, n)
    else:
        jumps_x, jumps_y = _probabilities(a, n), _probabilities(b, m)
    levels_x, levels_y = np.cumsum(jumps_x[order_x]), np.cumsum(jumps_y[order_y])
    if levels_x.dtype.kind == "f":
        levels_x, levels_y = levels_x / levels_x[-1], levels_y / levels_y[-1]
    levels = np.union1d(levels_x, levels_y)
    mass = np.diff(levels, prepend=levels[:1] * 0) / levels[-1]
    rows, columns = order_x[np.searchsorted(levels_x, levels)], order_y[np.searchsorted(levels_y, levels)]

    merged = np.concatenate([x, y])
    order = np.argsort(merged, kind="stable")
    difference = np.cumsum(np.concatenate([jumps_x, -jumps_y])[order])  # F - G on the gap after each point
    steps = -np.sign(difference[:-1]) * np.diff(merged[order])
    f = np.empty(n + m)
    f[order] = np.concatenate([[0.0], np.cumsum(steps, dtype=np.longdouble)])
    return Plan(rows, columns, mass.astype(np.float64), (n, m)), f[:n], -f[n:]


def _lowest_cone(z: Tensor, points: Tensor, offsets: Tensor) -> Tensor:
    """argmin_j |z - p_j| - v_j, shape (k,), block by block."""
    blocks = z.split(max(1, _CHUNK // len(points)))
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cat([(torch.cdist(block, points, compute_mode=mode) - offsets).argmin(1) for block in blocks])


def _lowest_cone_line(z: Tensor, points: Tensor, offsets: Tensor) -> Tensor:
    """The same on the line, in O((k + m) log m): the best cone at or left of z against the best one right of it."""
    p, order = points[:, 0].sort()
    v, z, m = offsets[order], z[:, 0], len(p)
    centred = p - p[m // 2]
    best_left = torch.cummax(v + centred, 0).indices
    best_right = m - 1 - torch.cummax((v - centred).flip(0), 0).indices.flip(0)
    split = torch.searchsorted(p, z.contiguous(), right=True)
    left, right = best_left[(split - 1).clamp(min=0)], best_right[split.clamp(max=m - 1)]
    return order[torch.where((z - p[left]).abs() - v[left] <= (z - p[right]).abs() - v[right], left, right)]


def _points(x: Tensor | ArrayLike, y: Tensor | ArrayLike) -> tuple[Tensor, Tensor]:
    x, y = check_pair(x, y)
    return x.detach().cpu().double(), y.detach().cpu().double()


def _values(values: Tensor | ArrayLike, name: str) -> Tensor:
    values = values if isinstance(values, Tensor) else np.asarray(values)
    if values.ndim != 1:
        raise InputError(f"Expected {name} of shape (n,), one value a sample. Got shape {tuple(values.shape)}.")
    return check_samples(values[:, None], name)[:, 0].detach().double()


def _drop_weightless(points: Tensor, weights: np.ndarray | None) -> tuple[Tensor, np.ndarray | None, np.ndarray]:
    """Only the points of positive weight, with their weights and their indices."""
    if weights is None:
        return points, None, np.arange(len(points))
    kept = np.flatnonzero(weights)
    return points[torch.from_numpy(kept)], weights[kept], kept


def _unit(x: Tensor, y: Tensor) -> float:
    """A power of two near the largest side of the common bounding box of x and y; see Note [Rounding]."""
    low, high = torch.minimum(x.amin(0), y.amin(0)), torch.maximum(x.amax(0), y.amax(0))
    largest = max(float(high.max()), -float(low.min()))
    if largest > _LARGEST:
        raise InputError(f"Expected coordinates of at most {_LARGEST:g}. Got {largest:g}. Rescale the samples.")
    spread = float((high - low).max())
    exponent = math.frexp(spread)[1] if spread else -1000
    exponent = max(exponent, math.frexp(largest)[1] - 1000, -1000)  # neither 1/unit nor largest/unit overflows
    return math.ldexp(1.0, exponent)


def _distance_error(d: int) -> float:
    """The relative error r of a Euclidean distance computed from differences; see Note [Rounding]."""
    return (d / 2 + 4) * _U


def _vanishing(d: int) -> float:
    """The absolute error of such a distance by underflow, in units; see Note [Rounding]."""
    return math.sqrt(d) * 2.0**-500


def _lengths(x: Tensor, y: Tensor, plan: Plan) -> np.ndarray:
    """How far each mass of the plan travels, shape (k,)."""
    rows, columns = torch.from_numpy(plan.rows), torch.from_numpy(plan.columns)
    blocks = zip(rows.split(step := max(1, _CHUNK // x.shape[1])), columns.split(step), strict=True)
    return torch.cat([torch.linalg.vector_norm(x[i] - y[j], dim=1) for i, j in blocks]).numpy()


def _normalised(weights: np.ndarray) -> np.ndarray:
    """The weights times the power of two that brings the largest into [1/2, 1): no sum or product overflows."""
    return np.ldexp(weights, -int(np.frexp(weights.max())[1]))


def _mean(values: np.ndarray, weights: np.ndarray | None) -> float:
    if weights is None:
        return math.fsum(values.tolist()) / len(values)
    return math.fsum((weights * values).tolist()) / math.fsum(weights.tolist())


def _probabilities(weights: np.ndarray | None, size: int) -> np.ndarray:
    """The weights over their total, in extended precision where the machine has it, shape (size,)."""
    weights = (np.ones(size) if weights is None else _normalised(weights)).astype(np.longdouble)
    return weights / weights.sum()


def _marginal_defect(index: np.ndarray, mass: np.ndarray, weights: np.ndarray | None, size: int) -> float:
    """An upper bound on the l1 distance between the plan's normalised marginal and the normalised weights."""
    counts = np.bincount(index, minlength=size)
    if weights is None and (counts == 1).all() and (mass == mass[0]).all():
        return 0.0  # a permutation: exactly uniform
    marginal = np.zeros(size, np.longdouble)
    np.add.at(marginal, index, mass)
    marginal /= math.fsum(mass.tolist())
    if weights is None:
        wanted = 1 / np.longdouble(size)
    else:
        weights = _normalised(weights)
        wanted = weights.astype(np.longdouble) / math.fsum(weights.tolist())
    # Adding up the c masses of a point errs by c eps of their sum; totals and quotients by less than 16 u in all.
    roundings = float(counts.max()) * float(np.finfo(np.longdouble).eps) + 16 * _U
    return 1.01 * (float(np.abs(marginal - wanted).sum()) + roundings)


def _epsilon(weights: Tensor | ArrayLike) -> float:
    """The relative spacing of the numbers in which weights were given; 0 for integers."""
    if isinstance(weights, Tensor):
        return torch.finfo(weights.dtype).eps if weights.is_floating_point() else 0.0
    dtype = np.asarray(weights).dtype
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0


def _check_totals(a: np.ndarray, b: np.ndarray, tolerance: float) -> None:
    exponent = int(np.frexp(max(a.max(), b.max()))[1])
    total_a, total_b = (math.fsum(np.ldexp(weights, -exponent).tolist()) for weights in (a, b))
    if abs(total_a - total_b) > tolerance * max(total_a, total_b):
        raise InputError(
            f"Expected a and b of equal total mass. Got {a.sum():.17g} and {b.sum():.17g}. "
            "Divide each by its total if both stand for probabilities."
        )


def _available_memory() -> int | None:
    """Bytes that can be had without swapping, None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _check_memory(n: int, m: int) -> None:
    need, available = _BYTES_PER_PAIR * n * m, _available_memory()
    if available is not None and need > available:
        size = math.isqrt(available // (2 * _BYTES_PER_PAIR))
        raise InputError(
            f"Expected {need / 2**30:.3g} GiB of memory for an exact plan between {n} and {m} samples. "
            f"Got {available / 2**30:.3g} GiB available. Subsample: {size} of each would take half of it."
        )
