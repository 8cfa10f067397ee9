"""The transport problem as solvers take it, and their answers verified."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip.transport.plans import Plan, lower_bound_kr, upper_bound_plan_cost
from wgan_lip.transport.potentials import Potential
from wgan_lip.transport.rounding import unit_of
from wgan_lip.utils.checks import InputError, check_pair, check_weights

__all__ = ["Problem", "Transport", "TransportError"]


class TransportError(RuntimeError):
    """The solver ended without an optimal plan, or its answer contradicts itself."""


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


@dataclass(frozen=True, eq=False)
class Problem:
    """Two weighted sample sets, checked, in float64, without the points that carry no mass.

    Attributes:
        x: Samples of P of positive weight, shape (n, d), on the CPU.
        y: Samples of Q of positive weight, shape (m, d).
        a: Their weights, shape (n,), of any total; None if uniform.
        b: Likewise, shape (m,).
        rows: Where the rows of x stand among the samples that were given, shape (n,).
        columns: Likewise for y, shape (m,).
        shape: The numbers of samples that were given.
        unit: A power of two near the spread of the samples; see Note [Rounding].
    """

    x: Tensor
    y: Tensor
    a: np.ndarray | None
    b: np.ndarray | None
    rows: np.ndarray
    columns: np.ndarray
    shape: tuple[int, int]
    unit: float

    @staticmethod
    def of(
        x: Tensor | ArrayLike, y: Tensor | ArrayLike, a: Tensor | ArrayLike | None, b: Tensor | ArrayLike | None
    ) -> Problem:
        """Checks samples and weights. Raises :class:`InputError`."""
        x, y = (points.detach().cpu().double() for points in check_pair(x, y))
        shape = (len(x), len(y))
        weights_a, weights_b = check_weights(a, shape[0], "a"), check_weights(b, shape[1], "b")
        if weights_a is not None and weights_b is not None:
            _check_totals(weights_a, weights_b, max(1e-9, 8 * _epsilon(a), 8 * _epsilon(b)))
        x, weights_a, rows = _drop_weightless(x, weights_a)
        y, weights_b, columns = _drop_weightless(y, weights_b)
        return Problem(x, y, weights_a, weights_b, rows, columns, shape, unit_of(x, y))

    def enclose(self, plan: Plan, potential: Potential, values_x: Tensor, values_y: Tensor, error: float) -> Transport:
        """Encloses W1 between any potential and any plan, of whatever origin.

        Arguments:
            plan: A plan between the kept points.
            potential: A 1-Lipschitz function.
            values_x: No more than its values at x, shape (n,), but for `error`.
            values_y: No less than its values at y, shape (m,), but for `error`.
            error: A bound on the absolute rounding error of each of those.
        """
        lower = max(0.0, lower_bound_kr(values_x, values_y, self.a, self.b, error=error))
        upper = upper_bound_plan_cost(self.x, self.y, plan, self.a, self.b)
        if not lower <= upper:
            raise TransportError(
                f"The lower bound {lower} exceeds the upper bound {upper}. Please report these samples."
            )
        value = min(max(plan.cost(self.x, self.y), lower), upper)
        plan = Plan(self.rows[plan.rows], self.columns[plan.columns], plan.mass, self.shape)
        return Transport(value, lower, upper, plan, potential)


def _drop_weightless(points: Tensor, weights: np.ndarray | None) -> tuple[Tensor, np.ndarray | None, np.ndarray]:
    """Only the points of positive weight, with their weights and their indices."""
    if weights is None:
        return points, None, np.arange(len(points))
    kept = np.flatnonzero(weights)
    return points[torch.from_numpy(kept)], weights[kept], kept


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
