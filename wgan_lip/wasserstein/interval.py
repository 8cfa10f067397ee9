"""W1 of two sample sets, bracketed: dual lower bound, primal upper bound."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from wgan_lip.lipschitz.certificates import Certificate, Proof, prove
from wgan_lip.transport import Plan, Problem, Transport, lower_bound_kr, meet, solve_problem, upper_bound_plan_cost
from wgan_lip.utils.checks import InputError, check_pair
from wgan_lip.utils.numbers import interval_text, rounded, rounded_down, rounded_up
from wgan_lip.utils.printing import Bar, Printed, Row, number_line
from wgan_lip.utils.slopes import gradients

__all__ = [
    "InvariantViolation",
    "W1Interval",
    "bracket",
    "estimate_ray_gradient_norm",
    "kr_lower_bound",
    "proved_lower_bound",
]


class InvariantViolation(RuntimeError):
    """A certified lower bound exceeds a certified upper bound: one of the two proofs is wrong. The run must stop."""


@dataclass(frozen=True)
class W1Interval(Printed):
    """lower ≤ W1(P_n, Q_m) ≤ upper, about these samples only, in their units.

    Attributes:
        lower: The critic's certified dual value, at least 0.
        upper: Cost of a feasible coupling, rounded up.
        exact: The exact solver's value, which lies between the two ends; None if the solver's own bounds differ by
            more than a relative 1e-9, as they may if some points are very far away.
        certificate: Proof of the critic's Lipschitz constant.
        n: Number of samples of P.
        m: Number of samples of Q.
        dim: Their dimension.
    """

    lower: float
    upper: float
    exact: float | None
    certificate: Certificate
    n: int
    m: int
    dim: int

    def headline(self) -> str:
        return samples_text(self.n, self.m, self.dim)

    def summary_rows(self) -> list[Row]:
        constant = rounded_up(self.certificate.lipschitz, 7)
        interval = interval_text(self.lower, self.upper, self.exact)
        exact = [] if self.exact is None else [Row("  exact", rounded(self.exact, 10), "the solver's value")]
        return [
            Row("W1 of the samples", interval, f"certified; {width_text(self.lower, self.upper)}"),
            *exact,
            Row("  lower end", rounded_down(self.lower), f"the critic's dual value, with Lip(f) ≤ {constant}"),
            Row("  upper end", rounded_up(self.upper), "the cost of a coupling"),
        ]

    def picture(self) -> str:
        bar = Bar("W1 of the samples", self.lower, self.upper, self.exact)
        return number_line([bar], interval_text(self.lower, self.upper, self.exact))


def samples_text(n: int, m: int, dim: int) -> str:
    """What an interval is about, as its first printed line."""
    return f"W1 between {n:,} and {m:,} samples in dimension {dim:,}"


def width_text(lower: float, upper: float) -> str:
    """The width of an interval as a share of its upper end, rounded up."""
    percent = min(100.0, 100 * ((upper - lower) / upper)) if 0 < upper < math.inf else 100.0 * (upper > lower)
    return f"width {rounded_up(percent, 2)} %"


def kr_lower_bound(
    critic: nn.Module | Proof,
    x: Tensor,
    y: Tensor,
    certificate: Certificate | None = None,
    *,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
) -> float:
    r"""Bounds W1 of two sample sets from below by a certified critic.

    .. math:: W_1(P_n, Q_m) \ge \frac{1}{L} \bigl( E_{P_n} f - E_{Q_m} f \bigr)

    Arguments:
        critic: The potential f, (b, d) → (b,), of any Lipschitz constant that can be certified. It is proved here; a
            :class:`wgan_lip.lipschitz.certificates.Proof` of it saves doing so for every sample set.
        x: Samples of P, shape (n, d).
        y: Samples of Q, shape (m, d).
        certificate: A certificate said to be about this critic, refused if it is not. The divisor is always the
            constant that was proved.
        a: Non-negative weights of x, shape (n,); uniform by default.
        b: Non-negative weights of y, shape (m,).

    Returns:
        The bound, at least 0, in the units of the samples.

    Raises:
        InputError: Samples of different dimension, not finite, or empty; a critic that is not a scalar potential on
            Euclidean space; a certificate that is about other weights, or was edited.
        UncertifiableError: See :func:`wgan_lip.certify`.

    Guarantee:
        Holds for any such critic, trained or not, trained on these samples or others, with the rounding of its
        float64 evaluation subtracted. It is about these samples, not about the laws they came from.

    References:
        Optimal transport, old and new (Villani, 2009), Remark 6.5
    """
    x, y = check_pair(x, y)
    return proved_lower_bound(prove(critic, certificate), x, y, a, b)


def proved_lower_bound(
    proof: Proof, x: Tensor, y: Tensor, a: ArrayLike | None = None, b: ArrayLike | None = None
) -> float:
    """:func:`kr_lower_bound` for checked samples."""
    proof.certificate.check_potential(x.shape[1])
    if proof.certificate.lipschitz == 0.0:
        return 0.0
    at = proof.evaluate(torch.cat((x.detach().cpu().double(), y.detach().cpu().double())))
    at_x, at_y = at.values[: len(x)], at.values[len(x) :]
    value = lower_bound_kr(at_x, at_y, a, b, error=float(at.error.max())) / proof.certificate.lipschitz
    return max(0.0, value * (1 - 2.0**-52))


def bracket(
    critic: nn.Module | Proof,
    x: Tensor,
    y: Tensor,
    *,
    transport: Transport | None = None,
    certificate: Certificate | None = None,
) -> W1Interval:
    """Brackets W1 of two sample sets between a certified critic and an exact transport plan.

    Arguments:
        critic: As for :func:`kr_lower_bound`.
        x: Samples of P, shape (n, d).
        y: Samples of Q, shape (m, d).
        transport: The solution for these samples, to save solving again. The cost of its plan, marginals included, and
            the dual value of its potential are recomputed on the samples given.
        certificate: As for :func:`kr_lower_bound`.

    Raises:
        InvariantViolation: The certified dual value exceeds the cost of the plan, which theory forbids.
        InputError: A solution for other samples; see also :func:`kr_lower_bound` and :func:`wgan_lip.transport.solve`.
    """
    x, y = check_pair(x, y)
    proof = prove(critic, certificate)
    lower = proved_lower_bound(proof, x, y)
    if transport is None:
        transport = solve_problem(Problem.of_checked(x, y))
        dual, upper = transport.lower, transport.upper
    else:
        dual, upper = _recomputed(transport, x, y)
    if lower > upper:
        raise InvariantViolation(
            f"The certified dual value {lower!r} exceeds the cost of a coupling, {upper!r}, with "
            f"L = {proof.certificate.lipschitz!r} and weights {proof.certificate.weights_sha256}. "
            "One of the two bounds is wrong: please report this with the run's folder."
        )
    # At a potential the two differ by rounding.
    exact = min(max(lower, transport.value), upper) if meet(dual, upper) else None
    return W1Interval(lower, upper, exact, proof.certificate, len(x), len(y), x.shape[1])


def _recomputed(transport: Transport, x: Tensor, y: Tensor) -> tuple[float, float]:
    """The potential's dual value on these samples, rounded down, and the plan's cost, rounded up, marginals included.

    Raises:
        InputError: A plan of other samples.
    """
    upper = upper_bound_plan_cost(x, y, transport.plan)
    spread = max(float(points.double().amax() - points.double().amin()) for points in (x, y))
    if not abs(upper - transport.upper) <= 1e-9 * upper + 1e-12 * spread:
        raise InputError(
            f"transport is not for these samples: its plan costs {upper:.9g} on them, but it states "
            f"{transport.upper:.9g}. Solve for these samples, or leave transport out."
        )
    at_x, at_y, error = transport.potential.at_both(x.detach().cpu().double(), y.detach().cpu().double())
    return max(0.0, lower_bound_kr(at_x, at_y, error=error)), upper


def estimate_ray_gradient_norm(critic: nn.Module, x: Tensor, y: Tensor, plan: Plan) -> float:
    r"""Mean gradient norm of `critic` along transport rays, at the quarter points of each ray.

    .. math:: \tfrac13 \sum_{t \in \{1/4, 1/2, 3/4\}} E_{(x, y) \sim \pi} \|\nabla f((1 - t) x + t y)\|

    A Kantorovich potential has unit gradient there, so the gap to 1 shows how far the critic is from one.

    Arguments:
        critic: The potential f, (b, d) → (b,).
        x: Samples of P, shape (n, d).
        y: Samples of Q, shape (m, d).
        plan: An optimal plan between them.

    References:
        Improved training of Wasserstein GANs (Gulrajani et al., 2017), Proposition 1
    """
    x, y = check_pair(x, y)
    like = next(critic.parameters(), x)
    rows, columns = torch.as_tensor(plan.rows).cpu(), torch.as_tensor(plan.columns).cpu()
    start, end = x.detach().cpu()[rows].to(like), y.detach().cpu()[columns].to(like)  # (k, d) each
    mass = torch.as_tensor(plan.mass, dtype=start.dtype, device=start.device)
    points = torch.cat([torch.lerp(start, end, t) for t in (0.25, 0.5, 0.75)])
    norms = gradients(critic, points).norm(dim=1).view(3, -1).mean(dim=0)
    return float((norms * mass).sum() / mass.sum())
