"""Functions of one variable, applied to every coordinate."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wgan_lip.lipschitz.layers.base import (
    ANY_AXES,
    CHANNELS_FIRST,
    Claim,
    Kinks,
    LipschitzLayer,
    Rounding,
    Summary,
    kinks_at,
)
from wgan_lip.lipschitz.layers.constraints import Box, Constraint
from wgan_lip.utils.checks import InputError, check_choice

__all__ = ["ACTIVATIONS", "Absolute", "Activation", "Pointwise", "Spline", "as_activation"]


class Activation(LipschitzLayer):
    """A function σ of one variable applied to every coordinate, in any norm; a residual layer takes it as its σ = γ'.

    A subclass states the range of its slopes; everything else about its constant follows from that.
    """

    axes: ClassVar[range] = ANY_AXES
    """The numbers of axes of a sample that it takes; see :class:`Claim`."""
    summary = Summary("a function of each coordinate", "any", "its steepest slope")

    @property
    def roundings(self) -> int:
        """Roundings of one evaluation, relative to |steepest slope · t| + |σ(0)|; they hold in float64."""
        return 1

    @abstractmethod
    def slopes(self) -> tuple[float, float]:
        """A proved range lo ≤ (σ(s) − σ(t))/(s − t) ≤ hi, as stored now. Raises :class:`InputError` if not finite."""

    @abstractmethod
    def at_zero(self) -> float:
        """A bound on |σ(0)|, over all coordinates."""

    def breaks(self) -> Sequence[float] | None:
        """Where a piecewise linear σ changes its slope, in any coordinate; None, the default, for any other σ."""
        return None

    def kinks(self, width: int) -> Kinks | None:
        return self.kinks_along(torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64))

    def kinks_along(self, rows: Tensor, offsets: Tensor) -> Kinks | None:
        """The kinks of x ↦ σ(rows @ x + offsets), for rows (m, h) and offsets (m,)."""
        breaks = self.breaks()
        return None if breaks is None else kinks_at(breaks, rows, offsets)

    def claim(self) -> Claim:
        low, high = self.slopes()
        largest = max(abs(low), abs(high))
        rounding = Rounding(self.roundings, largest, self.at_zero())
        return Claim(largest, f"slopes in [{low:.6g}, {high:.6g}]", rounding=rounding, axes=self.axes)


# Note [Activations]
# The residual layer needs σ = γ' with γ convex: non-decreasing, and 1-Lipschitz. Softplus goes through logaddexp:
# torch's own switches to the identity above a threshold, a jump of 2e-9 that no Lipschitz constant covers. The slack
# counts roundings of one evaluation; torch's float64 elementary functions are taken to be accurate to 8 units in the
# last place, piecewise-linear ones are exact but for one product.
@dataclass(frozen=True)
class Formula:
    """A function of one variable, with what is proved about it: the range of its slopes, a bound on |σ(0)|, the
    roundings of an evaluation, and, where it is piecewise linear, where its slope changes."""

    function: Callable[[Tensor], Tensor]
    slopes: tuple[float, float]
    at_zero: float = 0.0
    roundings: int = 1
    breaks: tuple[float, ...] | None = None


ACTIVATIONS: Mapping[str, Formula] = MappingProxyType({
    "relu": Formula(torch.relu, (0.0, 1.0), breaks=(0.0,)),
    "leaky_relu": Formula(lambda t: F.leaky_relu(t, 0.1), (0.1, 1.0), breaks=(0.0,)),
    "hardtanh": Formula(F.hardtanh, (0.0, 1.0), breaks=(-1.0, 1.0)),
    "tanh": Formula(torch.tanh, (0.0, 1.0), roundings=16),
    "softplus": Formula(
        lambda t: torch.logaddexp(t, t.new_zeros(())), (0.0, 1.0), at_zero=math.log(2.0), roundings=32
    ),
})  # fmt: skip
"""Activations by name. Do not add to it: derive from :class:`Activation` for one of your own, and prove its slopes."""


class Pointwise(Activation):
    """A named activation without parameters.

    Arguments:
        name: A key of :data:`ACTIVATIONS`.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = check_choice(name, list(ACTIVATIONS), "activation")

    @property
    def roundings(self) -> int:
        return ACTIVATIONS[self.name].roundings

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.name].function(x)

    def slopes(self) -> tuple[float, float]:
        return ACTIVATIONS[self.name].slopes

    def at_zero(self) -> float:
        return ACTIVATIONS[self.name].at_zero

    def breaks(self) -> Sequence[float] | None:
        return ACTIVATIONS[self.name].breaks

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        for name in ACTIVATIONS:
            yield cls(name), (3,)

    def extra_repr(self) -> str:
        return self.name


class Absolute(Activation):
    """x ↦ |x|, coordinate by coordinate; slopes −1 and 1, so a 1-Lipschitz map in any norm, and no rounding.

    Its negative is the gradient-flow layer x − 2Wᵀ relu(Wx) with W = I. As the σ of a residual layer it would expand,
    as its slopes go below 0.
    """

    roundings = 0

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(), (3,)

    def breaks(self) -> Sequence[float]:
        return (0.0,)

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()

    def slopes(self) -> tuple[float, float]:
        return -1.0, 1.0

    def at_zero(self) -> float:
        return 0.0


class Spline(Activation):
    r"""A trained linear spline for each channel, monotone and 1-Lipschitz where its slopes are in [0, 1].

    .. math:: \sigma(t) = \int_0^t s_{j(u)} \, du, \qquad j(u) = \text{the piece that holds } u

    The pieces are the intervals between uniform knots on [−radius, radius], and the two outer rays. σ(0) = 0: a bias
    belongs before it. It starts as the ReLU, so that a residual layer starts as a fold.

    Arguments:
        width: Number of channels of the input, shape (b, width) or (b, width, …).
        knots: Number of knots, odd, so that 0 is one of them; each channel has knots + 1 slopes.
        radius: The outermost knots are at ±radius, in the units of the input.

    Guarantee:
        Constant max |s| over the stored slopes.

    References:
        Improving Lipschitz-constrained neural networks by learning activation functions (Ducotterd, Goujon, Bohra,
        Perdios, Neumayer, Unser, 2024)
    """

    axes = CHANNELS_FIRST

    def __init__(self, width: int, *, knots: int = 9, radius: float = 1.0) -> None:
        super().__init__()
        if width < 1 or knots < 3 or knots % 2 == 0 or not 0 < radius < math.inf:
            raise InputError(
                "A spline needs a width of at least 1, an odd number of knots of at least 3, and a finite radius above "
                f"0, not width={width}, knots={knots}, radius={radius}."
            )
        self.radius = radius
        self.slope = nn.Parameter((torch.arange(knots + 1) > knots // 2).float().repeat(width, 1))

    @property
    def roundings(self) -> int:
        # Intercept i steps from 0 sums i changes of slope times knots, at most i(i + 1)·L·step in size, L the steepest
        # slope, with i + 4 roundings each; 16 more, relative to L|t|, for the affine piece and for taking the next one.
        half = self.slope.shape[1] // 2
        return half * (half + 4) + 16

    def forward(self, x: Tensor) -> Tensor:
        width, pieces = self.slope.shape
        if x.ndim < 2 or x.shape[1] != width:
            raise InputError(f"Inputs must have shape (b, {width}) or (b, {width}, …), not {tuple(x.shape)}.")
        half = pieces // 2
        step = self.radius / (half - 1)
        with torch.no_grad():  # relative to x also near 0, where adding first would round x away
            piece = (x / step).floor().clamp(-half, half - 1).long().clamp(-half, half - 1)  # the second for NaN
            start = torch.arange(half, pieces * width, pieces, device=x.device)  # where each channel's piece 0 is
            piece = piece + start.view(-1, *[1] * (x.ndim - 2))  # (b, width, …)
        return torch.addcmul(_intercepts(self.slope, step).flatten()[piece], self.slope.flatten()[piece], x)

    def slopes(self) -> tuple[float, float]:
        low, high = (bound.item() for bound in self.slope.detach().aminmax())
        if not math.isfinite(high - low):
            raise InputError(f"The slopes are not finite, in [{low}, {high}]. Reload the last good checkpoint.")
        return low, high

    def at_zero(self) -> float:
        return 0.0

    def constraints(self) -> Iterator[Constraint]:
        yield Box(self.slope, 0.0, 1.0)

    def breaks(self) -> Sequence[float]:
        half = self.slope.shape[1] // 2 - 1
        return [self.radius * knot / half for knot in range(-half, half + 1)]

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(4, knots=5), (4,)
        yield cls(2), (2, 1, 3)

    def extra_repr(self) -> str:
        width, pieces = self.slope.shape
        return f"width={width}, knots={pieces - 1}, radius={self.radius}"


def _intercepts(slope: Tensor, step: float) -> Tensor:
    """σ(t) = intercept + slope·t on each piece: intercepts of shape (width, pieces), 0 on the two next to 0."""
    half = slope.shape[1] // 2
    knots = step * torch.arange(1 - half, half, device=slope.device, dtype=slope.dtype)
    change = -slope.diff(dim=1) * knots  # (width, pieces − 1), one for each knot
    left = change[:, :half].flip(1).cumsum(1).flip(1)
    return torch.cat((-left, change[:, half - 1 :].cumsum(1)), dim=1)


def as_activation(activation: str | Activation, width: int) -> Activation:
    """The activation itself, or the one of that name for `width` channels: a key of :data:`ACTIVATIONS`, or `spline`.

    Raises :class:`InputError` for an unknown name.
    """
    if isinstance(activation, Activation):
        return activation
    check_choice(activation, [*ACTIVATIONS, "spline"], "activation")
    return Spline(width) if activation == "spline" else Pointwise(activation)
