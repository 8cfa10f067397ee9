"""Residual layers: explicit Euler steps of negative gradient flows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wgan_lip.bounds import Norm, product_up, upper_bound_norm, upper_bound_vector_norm
from wgan_lip.checks import InputError
from wgan_lip.layers.activations import Activation, as_activation
from wgan_lip.layers.base import Box, Claim, Constraint, LipschitzLayer, Rounding, SemiOrthogonal
from wgan_lip.layers.retraction import Retraction

__all__ = ["GradientFlow", "euler_step_constant"]


class GradientFlow(LipschitzLayer):
    r"""Residual layer: one explicit Euler step of a negative gradient flow, nonexpansive in the Euclidean norm.

    .. math:: \varphi(x) = x - \tau W^\top \sigma(W x + b), \qquad 0 \le \tau \le 2 / \|W\|^2

    The step τ is trained. With ReLU, ‖W‖ = 1 and τ = 2 (the start) the layer folds space and keeps the gradient norm.

    Arguments:
        dim: Width h of the state x, shape (b, h).
        hidden: Rows m of W, shape (m, h).
        activation: A key of :data:`wgan_lip.layers.ACTIVATIONS`, or an :class:`Activation` of width m.
        bias_scale: The biases start uniform in [−bias_scale, bias_scale], the data's units.

    Guarantee:
        With B ≥ ‖W‖ verified and the activation's slopes in [lo, hi], the symmetric matrix I − τWᵀDW has its spectrum
        in [1 − max(τ·lo, τ·hi, 0)B², 1 − min(τ·lo, τ·hi, 0)B²], whose larger end in size is the constant: that is
        max(1, τB² − 1) for τ ≥ 0 and slopes in [0, 1].

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), section 2
    """

    def __init__(
        self, dim: int, hidden: int, *, activation: str | Activation = "relu", bias_scale: float = 1.0
    ) -> None:
        super().__init__()
        if dim < 1 or hidden < 1:
            raise InputError(f"Expected a width and a hidden width of at least 1. Got {dim} and {hidden}.")
        self.activation = as_activation(activation)
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(hidden, dim)))
        self.bias = nn.Parameter(torch.empty(hidden).uniform_(-bias_scale, bias_scale))
        self.tau = nn.Parameter(torch.tensor(2.0))
        Retraction(self)()

    def forward(self, x: Tensor) -> Tensor:
        slope = self.activation(F.linear(x, self.weight, self.bias))  # (b, m)
        return torch.addmm(x, self.tau * slope, self.weight, alpha=-1)  # (b, h)

    def claim(self) -> Claim:
        hidden, dim = self.weight.shape
        norm = Norm.euclidean(dim)
        bound = upper_bound_norm(self.weight)
        tau = self.tau.item()
        constant = euler_step_constant(tau, bound, self.activation)
        size = upper_bound_vector_norm(self.weight)
        steepest = self.activation.claim().lipschitz
        at_zero = self.activation.at_zero() * math.sqrt(hidden)
        rounding = Rounding(
            operations=dim + hidden + self.activation.roundings + 8,
            gain=1.01 * (1 + abs(tau) * size * size * max(1.0, steepest)),
            offset=1.01 * abs(tau) * size * (max(1.0, steepest) * upper_bound_vector_norm(self.bias) + at_zero),
        )
        method = f"max(1, tau*B^2 - 1), tau = {tau:.6g}, B = {bound:.9g} by verified Cholesky"
        return Claim(constant, method, norm, norm, rounding)

    def constraints(self) -> Iterator[Constraint]:
        yield SemiOrthogonal(self.weight)
        yield Box(self.tau, 0.0, 2.0)

    def extra_repr(self) -> str:
        hidden, dim = self.weight.shape
        return f"dim={dim}, hidden={hidden}"


def euler_step_constant(tau: float, bound: float, activation: Activation) -> float:
    """The constant of x ↦ x − τ Wᵀσ(Wx + b) for ‖W‖ ≤ bound, rounded up. Raises :class:`InputError` for a bad τ."""
    if not math.isfinite(tau):
        raise InputError(f"Expected a finite step tau. Got {tau}. Reload the last good checkpoint.")
    low, high = sorted(tau * slope for slope in activation.slopes())
    contracted = product_up(max(high, 0.0), bound, bound)  # the spectrum is at least 1 − contracted
    expanded = product_up(max(-low, 0.0), bound, bound)  # and at most 1 + expanded
    largest = max(1.0, math.nextafter(contracted - 1, math.inf))
    return max(largest, math.nextafter(1 + expanded, math.inf)) if expanded else largest
