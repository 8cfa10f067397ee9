"""The transport problem as solvers take it, and their answers verified."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip.transport.plans import Plan, dealt, is_whole, kr_value_down, plan_cost_up
from wgan_lip.transport.potentials import Potential
from wgan_lip.transport.rounding import unit_of
from wgan_lip.utils.checks import check_pair, check_weights
from wgan_lip.utils.numbers import interval_text, rounded
from wgan_lip.utils.printing import Bar, Printed, Row, number_line

__all__ = ["Problem", "Side", "Transport", "TransportError", "meet"]


class TransportError(RuntimeError):
    """The solver ended without an optimal plan, or its answer contradicts itself."""


MEETING = 1e-9  # relative distance of the two ends at which the value between them is called exact


def meet(lower: float, upper: float) -> bool:
    """Whether two bounds are so close that the value between them may be called exact."""
    return upper - lower <= MEETING * upper


@dataclass(frozen=True, eq=False, repr=False)
class Transport(Printed):
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

    @property
    def exact(self) -> float | None:
        """`value` where the two ends agree to a relative 1e-9, else None: beside far points, rounding blurs it."""
        return self.value if meet(self.lower, self.upper) else None

    def headline(self) -> str:
        n, m = self.plan.shape
        return f"W1 between {n:,} and {m:,} samples, solved and verified"

    def summary_rows(self) -> list[Row]:
        return [
            Row("W1 of the samples", interval_text(self.lower, self.upper, self.exact), "certified"),
            Row("  best value", rounded(self.value, 10), "the cost of the plan"),
            *self.plan.summary_rows(),
        ]

    def picture(self) -> str:
        bar = Bar("W1 of the samples", self.lower, self.upper, self.exact)
        return number_line([bar], interval_text(self.lower, self.upper, self.exact))


@dataclass(frozen=True, eq=False)
class Side:
    """One weighted sample set, checked, in float64 on the CPU, without the samples that carry no mass.

    Attributes:
        samples: Those of positive weight, shape (n, d).
        weights: Their weights, shape (n,), of any total; None if uniform.
        index: Where they stand among the samples that were given, shape (n,).
        points: The distinct points among them, shape (k, d).
        place: At which of the points each sample is, shape (n,).
    """

    samples: Tensor
    weights: np.ndarray | None
    index: np.ndarray
    points: Tensor
    place: np.ndarray

    @staticmethod
    def of(samples: Tensor, weights: np.ndarray | None) -> Side:
        index = np.arange(len(samples)) if weights is None else np.flatnonzero(weights)
        if weights is not None:
            samples, weights = samples[torch.from_numpy(index)], weights[index]
        return Side(samples, weights, index, *_distinct(samples))

    @property
    def counts(self) -> np.ndarray:
        """The weights as numbers, shape (n,): 1 each if uniform."""
        return np.ones(len(self.samples)) if self.weights is None else self.weights

    def gathered(self, masses: np.ndarray) -> np.ndarray:
        """The masses (n,) of samples, added up at each of the points, shape (k,)."""
        return masses if len(self.points) == len(self.samples) else np.bincount(self.place, masses)


def _distinct(samples: Tensor) -> tuple[Tensor, np.ndarray]:
    """The distinct rows, and which of them each row is; the rows themselves where no two are equal."""
    widest = (samples.amax(0) - samples.amin(0)).argmax()
    if len(samples[:, widest].unique()) < len(samples):  # else one coordinate tells all of them apart
        points, place = samples.unique(dim=0, return_inverse=True)
        if len(points) < len(samples):
            return points, place.numpy()
    return samples, np.arange(len(samples))


@dataclass(frozen=True, eq=False)
class Problem:
    """Two weighted sample sets, checked, and what a solver has to know of them: distinct points, with their masses.

    Equal samples are one point of added mass: what a solver costs grows with the number of points. What comes out is
    about the samples again.

    Attributes:
        x: The distinct samples of P of positive weight, shape (n, d), float64, on the CPU.
        y: Those of Q, shape (m, d).
        a: Masses at x, shape (n,), of the total of b: whole numbers wherever the weights are, as uniform ones, which a
            solver then moves without error.
        b: Masses at y, shape (m,).
        sides: The samples behind x and y.
        masses: Those of the samples, which add up to a and b.
        shape: The numbers of samples that were given.
        unit: A power of two near the spread of the samples; see Note [Rounding].
    """

    x: Tensor
    y: Tensor
    a: np.ndarray
    b: np.ndarray
    sides: tuple[Side, Side]
    masses: tuple[np.ndarray, np.ndarray]
    shape: tuple[int, int]
    unit: float

    @property
    def size(self) -> tuple[int, int, int]:
        """Numbers of points of x and of y, and their dimension."""
        return len(self.x), len(self.y), self.x.shape[1]

    @staticmethod
    def of(
        x: Tensor | ArrayLike,
        y: Tensor | ArrayLike,
        a: Tensor | ArrayLike | None = None,
        b: Tensor | ArrayLike | None = None,
    ) -> Problem:
        """Checks samples and weights. Raises :class:`InputError`."""
        x, y = check_pair(x, y)
        return Problem.of_checked(x, y, a, b)

    @staticmethod
    def of_checked(
        x: Tensor, y: Tensor, a: Tensor | ArrayLike | None = None, b: Tensor | ArrayLike | None = None
    ) -> Problem:
        """Of samples (n, d) and (m, d) that have been checked; checks the weights. Raises :class:`InputError`."""
        x, y = (points.detach().cpu().double() for points in (x, y))
        shape = (len(x), len(y))
        weights_a, weights_b = check_weights(a, shape[0], "a"), check_weights(b, shape[1], "b")
        of_x, of_y = sides = Side.of(x, weights_a), Side.of(y, weights_b)
        masses = _masses(of_x.counts, of_y.counts)
        x, y = of_x.points, of_y.points
        return Problem(x, y, of_x.gathered(masses[0]), of_y.gathered(masses[1]), sides, masses, shape, unit_of(x, y))

    def enclose(self, plan: Plan, potential: Potential, values_x: Tensor, values_y: Tensor, error: float) -> Transport:
        """Encloses W1 between any potential and any plan, of whatever origin.

        Arguments:
            plan: A plan between the points.
            potential: A 1-Lipschitz function.
            values_x: No more than its values at x, shape (n,), but for `error`.
            values_y: No less than its values at y, shape (m,), but for `error`.
            error: A bound on the absolute rounding error of each of those.
        """
        (x, a), (y, b) = ((side.samples, side.weights) for side in self.sides)
        at_x, at_y = (values.numpy()[side.place] for values, side in zip((values_x, values_y), self.sides))
        lower = max(0.0, kr_value_down(at_x, at_y, a, b, error))
        if len(self.x) < len(x) or len(self.y) < len(y):
            plan = dealt(plan, *self.masses, *(side.place for side in self.sides))
        upper = plan_cost_up(x, y, plan, a, b)
        if not lower <= upper:
            raise TransportError(
                f"The lower bound {lower} exceeds the upper bound {upper}. Please report these samples."
            )
        value = min(max(plan._cost(x, y), lower), upper)
        rows, columns = self.sides[0].index[plan.rows], self.sides[1].index[plan.columns]
        return Transport(value, lower, upper, Plan(rows, columns, plan.mass / plan.mass.sum(), self.shape), potential)


def _masses(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Multiples of a and of b of equal total; whole numbers where both are."""
    if is_whole(a) and is_whole(b):
        total_a, total_b = int(a.sum()), int(b.sum())
        common = math.gcd(total_a, total_b)
        if total_a * total_b // common < 2**53:
            return a * (total_b // common), b * (total_a // common)
    a, b = (np.maximum(weights / weights.max(), 1e-300) for weights in (a, b))  # no cell without mass has a mean
    return a / math.fsum(a), b / math.fsum(b)
