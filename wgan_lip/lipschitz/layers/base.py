"""What a layer is: a map, a claim about its Lipschitz constant, and constraints that keep the claim at 1."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.utils.checks import InputError

__all__ = [
    "BoundedConvolution",
    "Box",
    "Claim",
    "Constraint",
    "LipschitzLayer",
    "Rounding",
    "SemiOrthogonal",
    "UnitRows",
    "Zero",
    "new_bias",
]


@dataclass(frozen=True)
class Rounding:
    """How far a float64 evaluation can stray: by at most γ_operations · (gain·‖x‖ + offset·√p) in Euclidean norm.

    p is the number of positions, h·w, of the larger of input and output of shape (b, c, h, w); 1 for vectors. For a
    coordinatewise map, one without norms, p is the number of coordinates.
    """

    operations: int = 0
    gain: float = 0.0
    offset: float = 0.0


@dataclass(frozen=True)
class Claim:
    """What a layer proves about itself: ‖φ(x) − φ(y)‖_out ≤ lipschitz · ‖x − y‖_in for all x, y, and by what method.

    `norm_in` and `norm_out` are None for maps that keep any norm they meet (coordinatewise maps, the identity).
    """

    lipschitz: float
    method: str
    norm_in: Norm | None = None
    norm_out: Norm | None = None
    rounding: Rounding = Rounding()


@dataclass(frozen=True)
class SemiOrthogonal:
    """Constraint: all singular values of `weight` (m, n) at most 1, and pushed towards 1; (m, …) is read as (m, n)."""

    weight: Tensor


@dataclass(frozen=True)
class BoundedConvolution:
    """Constraint: the convolution with the kernel `weight` (m, c/groups, p, q) has norm at most 1 at every size."""

    weight: Tensor
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


@dataclass(frozen=True)
class UnitRows:
    """Constraint: every row of `weight` (m, n) has block norms, over `norm`, that add up to 1."""

    weight: Tensor
    norm: Norm


@dataclass(frozen=True)
class Zero:
    """Constraint: `weight` is zero."""

    weight: Tensor


@dataclass(frozen=True)
class Box:
    """Constraint: low ≤ value ≤ high."""

    value: Tensor
    low: float | Tensor
    high: float | Tensor


Constraint = SemiOrthogonal | BoundedConvolution | UnitRows | Zero | Box


def new_bias(size: int, scale: float) -> Tensor:
    """A bias to start from, shape (size,), uniform in [−scale, scale]. Raises :class:`InputError` for another scale."""
    if not 0 <= scale < math.inf:
        raise InputError(f"Expected bias_scale of at least 0 and finite. Got {scale}.")
    return torch.empty(size).uniform_(-scale, scale)


class LipschitzLayer(nn.Module, ABC):
    """A map with a provable Lipschitz constant between two normed spaces."""

    @abstractmethod
    def claim(self) -> Claim:
        """Proves a constant for the weights as they are stored now. Raises :class:`InputError` if not finite."""

    def constraints(self) -> Iterator[Constraint]:
        """The sets that keep the claimed constant at 1, as views of this layer's own parameters."""
        return iter(())
