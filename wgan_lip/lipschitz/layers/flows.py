"""Residual layers: explicit Euler steps of negative gradient flows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wgan_lip.lipschitz.bounds import Norm, gamma, product_up, upper_bound_norm, upper_bound_vector_norm
from wgan_lip.lipschitz.layers.activations import ACTIVATIONS, Activation, as_activation
from wgan_lip.lipschitz.layers.base import Claim, Kinks, LipschitzLayer, Rounding, Solver, Summary, new_bias
from wgan_lip.lipschitz.layers.constraints import Box, Constraint, SemiOrthogonal
from wgan_lip.lipschitz.layers.retraction import Retraction
from wgan_lip.utils.checks import InputError, UncertifiableError

__all__ = ["GradientFlow", "RescaledGradientFlow", "euler_step_constant"]


class GradientFlow(LipschitzLayer):
    r"""Residual layer: one explicit Euler step of a negative gradient flow, nonexpansive in the Euclidean norm.

    .. math:: \varphi(x) = x - \tau W^\top \sigma(W x + b), \qquad 0 \le \tau \le 2 / \|W\|^2

    The step τ is trained. With ReLU, ‖W‖ = 1 and τ = 2 (the start) the layer folds space and keeps the gradient norm.

    Arguments:
        dim: Width h of the state x, shape (b, h).
        hidden: Rows m of W, shape (m, h).
        activation: A key of :data:`wgan_lip.lipschitz.layers.ACTIVATIONS`, `spline`, or an :class:`Activation` of
            width m.
        bias_scale: The biases start uniform in [−bias_scale, bias_scale], in the data's units.

    Guarantee:
        With B ≥ ‖W‖ verified and the activation's slopes in [lo, hi], the symmetric matrix I − τWᵀDW has its spectrum
        in [1 − max(τ·lo, τ·hi, 0)B², 1 − min(τ·lo, τ·hi, 0)B²], whose larger end in size is the constant: that is
        max(1, τB² − 1) for τ ≥ 0 and slopes in [0, 1].

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), section 2
    """

    summary = Summary("x − τWᵀσ(Wx + b)", constant="max(1, τ‖W‖² − 1)")

    def __init__(
        self, dim: int, hidden: int, *, activation: str | Activation = "relu", bias_scale: float = 1.0
    ) -> None:
        super().__init__()
        if dim < 1 or hidden < 1:
            raise InputError(f"dim and hidden must be at least 1, not {dim} and {hidden}.")
        self.activation = as_activation(activation, hidden)
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(hidden, dim)))
        self.bias = nn.Parameter(new_bias(hidden, bias_scale))
        self.tau = nn.Parameter(torch.tensor(2.0))
        Retraction(self)()

    def forward(self, x: Tensor) -> Tensor:
        slope = self.activation(F.linear(x, self.weight, self.bias))  # (b, m)
        return torch.addmm(x, slope, -self.tau * self.weight)  # (b, h); W has fewer entries than σ, and τ than W

    def claim(self) -> Claim:
        hidden, dim = self.weight.shape
        norm = Norm.euclidean(dim)
        bound = upper_bound_norm(self.weight)
        tau = self.tau.item()
        constant = euler_step_constant(tau, bound, self.activation)
        size = upper_bound_vector_norm(self.weight)
        steepest = self.activation.claim().lipschitz
        slope = max(1.0, steepest) * upper_bound_vector_norm(self.bias) + self.activation.at_zero() * math.sqrt(hidden)
        slope += 1e-250  # for products that underflow before tau multiplies them
        rounding = Rounding(
            operations=dim + hidden + self.activation.roundings + 8,
            gain=1.01 * (1 + abs(tau) * size * size * max(1.0, steepest)),
            offset=1.01 * (abs(tau) * size + 1e-290) * slope,  # 1e-290 for entries of tau W that underflow
        )
        method = f"max(1, tau*B^2 - 1), tau = {tau:.6g}, B = {bound:.9g} by verified Cholesky"
        return Claim(constant, method, norm, norm, rounding)

    def constraints(self) -> Iterator[Constraint]:
        yield SemiOrthogonal(self.weight)
        yield Box(self.tau, 0.0, 2.0)

    def kinks(self, width: int) -> Kinks | None:
        return self.activation.kinks_along(self.weight, self.bias)

    @torch.no_grad()
    def start_at(self, x: Tensor, y: Tensor, *, solver: Solver | None = None, keep_distances: bool = False) -> None:
        """Takes the biases with which each row of W folds some share of the states, drawn from torch's generator.

        Arguments:
            x: States of P, shape (n, h).
            y: States of Q, shape (m, h).
            solver: Ignored.
            keep_distances: Whether each row folds only 2 % of the states, so that distances between them survive;
                otherwise any share.
        """
        rows = (torch.cat((x, y)) @ self.weight.T).sort(dim=0).values  # (n + m, rows of W)
        share = rows.new_full(rows.shape[1:], 0.02) if keep_distances else torch.rand_like(rows[0])
        self.bias.copy_(-rows.gather(0, ((1 - share) * (len(rows) - 1)).round().long()[None])[0])

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        for activation in (*ACTIVATIONS, "spline"):
            yield cls(5, 3, activation=activation), (5,)
        yield cls(3, 7), (3,)
        yield cls(1, 1), (1,)

    def extra_repr(self) -> str:
        hidden, dim = self.weight.shape
        return f"dim={dim}, hidden={hidden}"


class RescaledGradientFlow(LipschitzLayer):
    r"""Residual layer whose constant is 1 for every finite W, without retraction: W is rescaled in each evaluation.

    .. math:: \varphi(x) = x - 2 V^\top \sigma(V x + b), \qquad V = T^{-1/2} W, \qquad
              T = \operatorname{diag}\Bigl(\sum_j |W W^\top|_{ij}\Bigr)

    T − WWᵀ is diagonally dominant, so ‖V‖ ≤ 1. A zero row of W is a zero row of V; orthogonal rows of any lengths
    become orthonormal.

    Note [The weights q]
        The reference weighs T_i = Σ_j |WWᵀ|_ij q_j/q_i with trained q > 0. Here the lengths of the rows do that:
        diag(q)W has the V that W has with q. Its x − 2Wᵀ T⁻¹ σ(Wx + T^{1/2}b) is the same map for the ReLU; in the
        form above b is in the data's units whatever the scale of W, and a vanishing row adds nothing but 0.

    Arguments:
        dim: Width h of the state x, shape (b, h).
        hidden: Rows m of W, shape (m, h).
        activation: As for :class:`GradientFlow`.
        bias_scale: The biases start uniform in [−bias_scale, bias_scale], in the data's units.

    Guarantee:
        Constant 1 where the activation's slopes are in [0, 1]; otherwise as for :class:`GradientFlow`, with τ = 2 and
        ‖V‖ ≤ 1.

    References:
        A unified algebraic perspective on Lipschitz neural networks (Araujo, Havens, Delattre, Allauzen, Hu, 2023)
        Almost-orthogonal layers for efficient general-purpose Lipschitz networks (Prach, Lampert, 2022)
    """

    summary = Summary(
        "x − 2Vᵀσ(Vx + b), V = T^(−1/2) W, T the absolute row sums of WWᵀ", constant="1, without retraction"
    )

    def __init__(
        self, dim: int, hidden: int, *, activation: str | Activation = "relu", bias_scale: float = 1.0
    ) -> None:
        super().__init__()
        if dim < 1 or hidden < 1:
            raise InputError(f"dim and hidden must be at least 1, not {dim} and {hidden}.")
        self.activation = as_activation(activation, hidden)
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(hidden, dim)))
        self.bias = nn.Parameter(new_bias(hidden, bias_scale))

    def forward(self, x: Tensor) -> Tensor:
        weight = _rescaled(self.weight)  # not through a method, which a subclass could override under the claim
        slope = self.activation(F.linear(x, weight, self.bias))  # (b, m)
        return torch.addmm(x, slope, weight, alpha=-2)  # (b, h)

    def rescaled(self) -> Tensor:
        """V, shape (m, h)."""
        return _rescaled(self.weight)

    def claim(self) -> Claim:
        hidden, dim = self.weight.shape
        norm = Norm.euclidean(dim)
        bias = upper_bound_vector_norm(self.bias)
        constant = euler_step_constant(2.0, 1.0, self.activation)
        steepest = max(1.0, self.activation.claim().lipschitz)
        at_zero = self.activation.at_zero() * math.sqrt(hidden)
        operations = dim + hidden + self.activation.roundings + 64
        drift = self._drift(gamma(operations))
        per_rounding = drift / gamma(operations)
        size = 1.01 * math.sqrt(hidden)  # of the computed V, as a vector
        rounding = Rounding(
            operations=operations,
            gain=1.01 * (1 + 2 * steepest * (size * size + per_rounding * (2 + drift))),
            offset=1.01 * 2 * (size + per_rounding) * (steepest * bias + at_zero),
        )
        return Claim(constant, "rows over the root of their sum in |W W^T|, tau = 2", norm, norm, rounding)

    def kinks(self, width: int) -> Kinks | None:
        return self.activation.kinks_along(self.rescaled(), self.bias)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(5, 3), (5,)
        yield cls(3, 7), (3,)

    def _drift(self, unit: float) -> float:
        """A bound on ‖V̂ − V‖ for the computed V̂.

        Each |WWᵀ|_ij has an error unit·‖w_i‖‖w_j‖, and T_i ≥ ‖w_i‖², so that T_i has the relative error
        unit·Σ_j‖w_j‖/‖w_i‖, half of which passes through the root. Where that is not small, the rows of V̂ and V still
        have lengths of at most 1.
        """
        upper_bound_vector_norm(self.weight)  # refuses weights that are not finite
        weight = self.weight.detach().cpu().double()
        rows = weight[weight.any(dim=1)]  # zero rows are exact
        if not len(rows):
            return 0.0
        rows = rows / rows.abs().amax()
        lengths = torch.maximum(rows.norm(dim=1), rows.abs().amax(dim=1))  # the squares of short rows may underflow
        relative = 1.01 * unit * (1 + lengths.sum() / lengths.min()).item()
        return 0.7 * relative if relative < 0.01 else 2.1 * math.sqrt(len(rows))

    def extra_repr(self) -> str:
        hidden, dim = self.weight.shape
        return f"dim={dim}, hidden={hidden}"


def _rescaled(weight: Tensor) -> Tensor:
    """V = T^{-1/2} W of :class:`RescaledGradientFlow`, shape (m, h)."""
    largest = weight.detach().abs().amax()
    weight = weight / largest.where(largest > 0, 1)  # V is the same for W of any scale
    scale = (weight @ weight.mT).abs().sum(dim=1)  # no margin for rounding: that would be another function
    return weight * scale.where(scale > torch.finfo(scale.dtype).tiny, 1).rsqrt()[:, None]


def euler_step_constant(tau: float, bound: float, activation: Activation) -> float:
    """The constant of x ↦ x − τ Wᵀσ(Wx + b) for ‖W‖ ≤ bound, rounded up. Raises :class:`InputError` for bad τ or σ."""
    if not isinstance(activation, Activation):
        raise UncertifiableError(f"{type(activation).__name__} does not state its slopes. Derive it from Activation.")
    if not math.isfinite(tau):
        raise InputError(f"The step tau is {tau}, not finite. Reload the last good checkpoint.")
    low, high = sorted(tau * slope for slope in activation.slopes())
    contracted = product_up(max(high, 0.0), bound, bound)  # the spectrum is at least 1 − contracted
    expanded = product_up(max(-low, 0.0), bound, bound)  # and at most 1 + expanded
    largest = 1.0 if contracted <= 2 else math.nextafter(contracted - 1, math.inf)
    return max(largest, math.nextafter(1 + expanded, math.inf)) if expanded else largest
