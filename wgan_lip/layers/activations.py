"""Monotone functions of one variable, applied to every coordinate."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wgan_lip.checks import check_choice
from wgan_lip.layers.base import Claim, LipschitzLayer, Rounding

__all__ = ["ACTIVATIONS", "Activation", "Pointwise", "as_activation"]


class Activation(LipschitzLayer):
    """A function σ of one variable applied to every coordinate, in any norm; a residual layer takes it as its σ = γ'.

    A subclass states the range of its slopes; everything else about its constant follows from that.
    """

    roundings: int = 1
    """Roundings of one evaluation, relative to |σ(t)|; they hold in float64."""

    @abstractmethod
    def slopes(self) -> tuple[float, float]:
        """A proved range lo ≤ (σ(s) − σ(t))/(s − t) ≤ hi, as stored now. Raises :class:`InputError` if not finite."""

    @abstractmethod
    def at_zero(self) -> float:
        """A bound on |σ(0)|, over all coordinates."""

    def claim(self) -> Claim:
        low, high = self.slopes()
        largest = max(abs(low), abs(high))
        rounding = Rounding(self.roundings, largest, self.at_zero())
        return Claim(largest, f"slopes in [{low:.6g}, {high:.6g}]", rounding=rounding)


# Note [Activations]
# The residual layer needs σ = γ' with γ convex: non-decreasing, and 1-Lipschitz. Softplus goes through logaddexp:
# torch's own switches to the identity above a threshold, a jump of 2e-9 that no Lipschitz constant covers. The slack
# counts roundings of one evaluation; torch's float64 elementary functions are taken to be accurate to 8 units in the
# last place, piecewise-linear ones are exact but for one product.
@dataclass(frozen=True)
class Formula:
    function: Callable[[Tensor], Tensor]
    at_zero: float = 0.0
    roundings: int = 1


ACTIVATIONS: dict[str, Formula] = {
    "relu": Formula(torch.relu),
    "leaky_relu": Formula(lambda t: F.leaky_relu(t, 0.1)),
    "hardtanh": Formula(F.hardtanh),
    "tanh": Formula(torch.tanh, roundings=16),
    "softplus": Formula(lambda t: torch.logaddexp(t, t.new_zeros(())), at_zero=math.log(2.0), roundings=32),
}


class Pointwise(Activation):
    """A named activation without parameters, slopes in [0, 1].

    Arguments:
        name: A key of :data:`ACTIVATIONS`.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = check_choice(name, list(ACTIVATIONS), "activation")
        self.roundings = ACTIVATIONS[name].roundings

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.name].function(x)

    def slopes(self) -> tuple[float, float]:
        return 0.0, 1.0

    def at_zero(self) -> float:
        return ACTIVATIONS[self.name].at_zero

    def extra_repr(self) -> str:
        return self.name


def as_activation(activation: str | Activation) -> Activation:
    """The activation itself, or the one of that name. Raises :class:`InputError` for an unknown name."""
    return activation if isinstance(activation, Activation) else Pointwise(activation)
