"""A referee for any solver: the interval around W1 that a plan, or a potential, from anywhere proves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from wgan_lip.lipschitz.witness import encoded
from wgan_lip.transport import Plan, Potential, lower_bound_kr, upper_bound_plan_cost
from wgan_lip.transport.plans import marginal_defect
from wgan_lip.transport.repair import as_plan, repaired
from wgan_lip.transport.rounding import as_points, as_values
from wgan_lip.utils.checks import InputError, check_weights
from wgan_lip.utils.files import write_json
from wgan_lip.utils.numbers import interval_text, rounded, rounded_down, rounded_up
from wgan_lip.utils.printing import Bar, Printed, Row, number_line
from wgan_lip.wasserstein.interval import InvariantViolation, samples_text, width_text

__all__ = ["CertifiedInterval", "certify_plan", "certify_potential"]

Duals = tuple[ArrayLike | Tensor | None, ArrayLike | Tensor | None]
AnyPotential = Callable[[Any], Any] | Duals | ArrayLike | Tensor
ROWS = 4096  # samples given to a module at a time


@dataclass(frozen=True, eq=False, repr=False)
class CertifiedInterval(Printed):
    """lower ≤ W1(P_n, Q_m) ≤ upper, proved by a plan and a potential that someone else found.

    Attributes:
        lower: The dual value of `potential`, rounded down; 0 without one.
        upper: The cost of `plan`, rounded up; infinite without one.
        plan: The plan as given, or repaired if that is cheaper; None without one.
        potential: The cones that the given potential was turned into; None without one.
        cost: The cost of the plan as given, which proves nothing if its marginals are off; None without one.
        off: The l1 distance of the given plan's marginals from the weights, both sides together; None without one.
        dual: The dual value of the potential as given, which proves nothing if it is not 1-Lipschitz; None without
            one, or if it is known on one side only.
        x: The samples of P, shape (n, d), float64.
        y: The samples of Q, shape (m, d).
        a: The weights of x, shape (n,), None for uniform ones.
        b: The weights of y, shape (m,).

    All distances are in the units of the samples.
    """

    lower: float
    upper: float
    plan: Plan | None
    potential: Potential | None
    cost: float | None
    off: float | None
    dual: float | None
    x: Tensor
    y: Tensor
    a: np.ndarray | None
    b: np.ndarray | None

    def save_witness(self, path: str | Path) -> None:
        """Writes what proves this interval to someone who does not trust this package; see
        :func:`wgan_lip.save_witness` for critics.

        The file holds the samples, the weights, the plan and the dual variables of one side, as JSON.
        :data:`wgan_lip.lipschitz.witness.CHECKER`, one file that needs only Python, proves both ends from them again,
        by integers: `python check_witness.py FILE`. In the plane, where floating point with a proved margin excludes
        most pairs, that takes a second for 2,000 points on each side and 6 for 10,000, about as n^1.7 (suites
        `witness`, `witness_large`). On the line and in many dimensions it looks at nearly all pairs.

        Arguments:
            path: The file, written whole or not at all.

        Raises:
            InputError: An interval without a plan, or without a potential.
        """
        if self.plan is None or self.potential is None:
            raise InputError("A witness needs both ends: certify_plan(x, y, plan, potential).")
        a, b = (np.ones(len(side)) if w is None else w for side, w in ((self.x, self.a), (self.y, self.b)))
        arrays = {
            "x": self.x, "y": self.y, "a": a, "b": b, "offsets": self.potential.offsets, "rows": self.plan.rows,
            "columns": self.plan.columns, "mass": self.plan.mass,
        }  # fmt: skip
        coded = {name: encoded(array, name) for name, array in arrays.items()}
        apexes = "y" if self.potential.sign > 0 else "x"
        write_json(path, {**coded, "apexes": apexes, "lower": self.lower, "upper": self.upper})

    def headline(self) -> str:
        return samples_text(len(self.x), len(self.y), self.x.shape[1])

    def summary_rows(self) -> list[Row]:
        width = "" if self.plan is None or self.potential is None else f"; {width_text(self.lower, self.upper)}"
        rows = [Row("W1 of the samples", interval_text(self.lower, self.upper), f"certified{width}")]
        if self.potential is not None:
            given = "" if self.dual is None else f"; as given {rounded(self.dual, 7)}"
            rows.append(Row("  lower end", rounded_down(self.lower), f"the potential, made 1-Lipschitz{given}"))
        if self.cost is not None and self.off is not None:
            given = f"the plan, marginals repaired; as given {rounded(self.cost, 7)}, off by {rounded_up(self.off, 2)}"
            rows.append(Row("  upper end", rounded_up(self.upper), given))
        return rows

    def picture(self) -> str:
        bar = Bar("W1 of the samples", self.lower, self.upper)
        return number_line([bar], interval_text(self.lower, self.upper))


def certify_plan(
    x: Tensor | ArrayLike,
    y: Tensor | ArrayLike,
    plan: Any,
    potential: AnyPotential | None = None,
    *,
    a: Tensor | ArrayLike | None = None,
    b: Tensor | ArrayLike | None = None,
) -> CertifiedInterval:
    r"""Bounds W1 of two sample sets from above by any transport plan, from any solver.

    .. math:: W_1(P_n, Q_m) \le \sum_{ij} \tilde\pi_{ij} \|x_i - y_j\|

    where :math:`\tilde\pi` is the plan with its marginals repaired: surplus is taken off in proportion, and missing
    mass travels in order along an axis.

    Arguments:
        x: Samples of P, shape (n, d).
        y: Samples of Q, shape (m, d).
        plan: A matrix (n, m) of non-negative masses with any total: an array or a tensor, sparse ones of SciPy or torch
            too, or a :class:`wgan_lip.transport.Plan`; for example from POT, OTT or GeomLoss.
        potential: Gives the lower end as well; see :func:`certify_potential`.
        a: Non-negative weights of x, shape (n,), of any positive total; uniform by default.
        b: Non-negative weights of y, shape (m,).

    Returns:
        The interval, with the plan that proves it. Without `potential` its lower end is 0.

    Raises:
        InputError: Unusable samples, weights, plan or potential.

    Guarantee:
        The upper end holds for every plan, converged or not, in real arithmetic: rounding is accounted for. It is about
        these weighted samples. A plan between subsamples counts as one between all samples, and is repaired.

    Example:
        >>> found = certify_plan([[0.0], [1.0]], [[2.0], [3.0]], [[1.0, 0.0], [1.0, 0.0]])  # all to one: no coupling
        >>> found.cost, round(found.upper, 9)
        (1.5, 2.0)

    References:
        Near-linear time approximation algorithms for optimal transport via Sinkhorn iteration (Altschuler, Weed,
        Rigollet, 2017)
    """
    problem = _Samples.of(x, y, a, b)
    given = as_plan(plan, (len(problem.x), len(problem.y)))
    return problem.interval(given, potential)


def certify_potential(
    x: Tensor | ArrayLike,
    y: Tensor | ArrayLike,
    potential: AnyPotential,
    *,
    a: Tensor | ArrayLike | None = None,
    b: Tensor | ArrayLike | None = None,
) -> CertifiedInterval:
    r"""Bounds W1 of two sample sets from below by any potential, 1-Lipschitz or not, from any solver.

    .. math:: W_1(P_n, Q_m) \ge E_{P_n} \tilde f - E_{Q_m} \tilde f, \qquad
        \tilde f(z) = \min_j \bigl( \|z - y_j\| - v_j \bigr)

    The c-transform :math:`\tilde f` is 1-Lipschitz whatever v is. It is taken at the samples of y and at those of x,
    and transformed once more, which never lowers the value; the best one, as a set of cones, proves the bound. If the
    potential was 1-Lipschitz, this loses nothing.

    Arguments:
        x: Samples of P, shape (n, d).
        y: Samples of Q, shape (m, d).
        potential: One of these:

            - a function f of points (k, d) with values (k,), for :math:`E_P f - E_Q f`: an `nn.Module`, such as a
              critic, which gets tensors, or any other function, which gets NumPy arrays;
            - its values at the samples of x, shape (n,);
            - dual variables (u, v) of shapes (n,) and (m,), for :math:`E_P u + E_Q v` under
              :math:`u_i + v_j \le \|x_i - y_j\|`, as POT, OTT and GeomLoss return them; one of them may be None.

        a: Non-negative weights of x, shape (n,), of any positive total; uniform by default.
        b: Non-negative weights of y, shape (m,).

    Returns:
        The interval, with the cones that prove its lower end. Its upper end is infinite.

    Raises:
        InputError: Unusable samples or weights; values that are not finite or of another shape.

    Guarantee:
        The lower end holds for every potential, in real arithmetic: rounding is subtracted. It is about these weighted
        samples, and at least 0. Values in other units, such as those of a critic of slope 100, prove less than they
        would after division.

    Example:
        >>> certify_potential([[0.0], [1.0]], [[2.0], [4.0]], lambda z: -3 * z[:, 0]).lower > 2.4  # W1 is 2.5
        True

    References:
        Optimal Transport, Old and New (Villani, 2009), Definition 5.2 and Theorem 5.10
    """
    return _Samples.of(x, y, a, b).interval(None, potential)


@dataclass(frozen=True, eq=False)
class _Samples:
    """Checked samples and weights."""

    x: Tensor
    y: Tensor
    a: np.ndarray | None
    b: np.ndarray | None

    @staticmethod
    def of(x: Any, y: Any, a: Any, b: Any) -> _Samples:
        x, y = as_points(x, y)
        return _Samples(x, y, check_weights(a, len(x), "a"), check_weights(b, len(y), "b"))

    def interval(self, plan: Plan | None, potential: AnyPotential | None) -> CertifiedInterval:
        upper, best, cost, off = math.inf, None, None, None
        if plan is not None:
            cost, off, upper, best = plan.cost(self.x, self.y), self._off(plan), *self._above(plan)
        lower, cones, dual = (0.0, None, None) if potential is None else self._below(potential)
        if lower > upper:
            raise InvariantViolation(
                f"The lower bound {lower!r} of the potential exceeds the upper bound {upper!r} of the plan. One of the "
                "two is wrong: please report these samples."
            )
        return CertifiedInterval(lower, upper, best, cones, cost, off, dual, self.x, self.y, self.a, self.b)

    def _off(self, plan: Plan) -> float:
        sides = (plan.rows, self.a, len(self.x)), (plan.columns, self.b, len(self.y))
        return sum(marginal_defect(index, plan.mass, weights, size) for index, weights, size in sides)

    def _above(self, plan: Plan) -> tuple[float, Plan]:
        """The better of the plan as it is, where half of its marginals' error travels the diameter, and repaired."""
        a, b = (
            np.full(len(points), 1 / len(points)) if weights is None else weights / weights.sum()
            for points, weights in ((self.x, self.a), (self.y, self.b))
        )
        plans = [plan] if self._off(plan) == 0.0 else [repaired(self.x, self.y, plan, a, b), plan]
        bounds = [(upper_bound_plan_cost(self.x, self.y, each, self.a, self.b), each) for each in plans]
        return min(bounds, key=lambda bound: bound[0])

    def _below(self, potential: AnyPotential) -> tuple[float, Potential, float | None]:
        u, v = self._duals(potential)
        starts = [Potential(self.x, u, sign=-1)] if u is not None else []
        starts += [Potential(self.y, v)] if v is not None else []
        found = []
        for start in starts:
            for _ in range(2):  # as it is, and transformed to the other side
                at_x, at_y, error = start.at_both(self.x, self.y)
                tight = {1: Potential(self.y, -at_y), -1: Potential(self.x, at_x, sign=-1)}
                found.append((lower_bound_kr(at_x, at_y, self.a, self.b, error=error), tight[start.sign]))
                start = tight[-start.sign]
        lower, best = max(found, key=lambda one: one[0])
        dual = None
        if u is not None and v is not None:
            dual = float(np.average(u, weights=self.a) + np.average(v, weights=self.b))
        return max(0.0, lower), best, dual

    def _duals(self, potential: AnyPotential) -> tuple[Tensor | None, Tensor | None]:
        """Dual variables at x, shape (n,), and at y, shape (m,), those that are known."""
        if isinstance(potential, tuple):
            if len(potential) != 2 or all(values is None for values in potential):
                raise InputError(
                    f"Dual variables must be a pair (u, v) with at most one None; this tuple has {len(potential)} "
                    f"entries, {sum(values is None for values in potential)} of them None."
                )
            given = potential
        elif callable(potential):
            at_x, at_y = (_values_of(potential, points) for points in (self.x, self.y))
            given = at_x, -as_values(at_y, "the potential at y")
        else:
            given = potential, None
        duals = []
        for values, name, points in ((given[0], "x", self.x), (given[1], "y", self.y)):
            if values is not None:
                values = as_values(values, f"the potential at {name}").cpu()
                if len(values) != len(points):
                    raise InputError(
                        f"The potential has {len(values)} values at {name}, but there are {len(points)} samples. "
                        "Give values at y alone as (None, v)."
                    )
            duals.append(values)
        return duals[0], duals[1]


def _values_of(potential: Callable[[Any], Any], points: Tensor) -> Any:
    """A module gets tensors of its parameters' dtype and device, any other function float64 arrays."""
    if not isinstance(potential, nn.Module):
        return potential(points.numpy().copy())
    like = next(potential.parameters(), points)
    with torch.no_grad():
        return torch.cat([potential(block.to(like)) for block in points.split(ROWS)])
