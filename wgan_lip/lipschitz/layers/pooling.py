"""Pooling over disjoint windows, which keeps the constant at 1."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers.base import (
    IMAGES,
    Claim,
    Kinks,
    LipschitzLayer,
    Rounding,
    Summary,
    check_images,
    no_kinks,
)
from wgan_lip.utils.checks import InputError

__all__ = ["L2Pool2d", "MaxPool2d", "ScaledAvgPool2d"]


class Pool2d(LipschitzLayer):
    """Takes every window of an image (b, c, h, w) to one pixel; rows and columns that fill no window are dropped.

    Arguments:
        kernel_size: Height and width of a window, or one number for both.
    """

    summary = Summary("disjoint windows")

    def __init__(self, kernel_size: int | tuple[int, int]) -> None:
        super().__init__()
        self.kernel_size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        if len(self.kernel_size) != 2 or min(self.kernel_size) < 1:
            raise InputError(f"kernel_size must be one or two integers of at least 1, not {kernel_size}.")

    @property
    def pixels(self) -> int:
        """Pixels of a window."""
        return math.prod(self.kernel_size)

    @abstractmethod
    def claim(self) -> Claim: ...

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(2), (2, 2, 4)
        yield cls((1, 3)), (1, 2, 5)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}"


class ScaledAvgPool2d(Pool2d):
    r"""Sums every window of p pixels and divides by √p: the mean, scaled up to constant 1.

    .. math:: y = \frac{1}{\sqrt p} \sum_{i \in \mathrm{window}} x_i

    The kernel is a unit row on disjoint windows. See :class:`Pool2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel_size) * math.sqrt(self.pixels)

    def claim(self) -> Claim:
        rounding = Rounding(self.pixels + 6, 1.01)
        return Claim(1.0, "unit rows on disjoint windows", Norm.euclidean(), Norm.euclidean(), rounding, IMAGES)

    def kinks(self, width: int) -> Kinks:
        return no_kinks(width)


class L2Pool2d(Pool2d):
    r"""The Euclidean norm of every window: it keeps the norm of the image, and the gradient norm away from zero.

    .. math:: y = \Big( \sum_{i \in \mathrm{window}} x_i^2 \Big)^{1/2}

    At a window of zeros its gradient is taken as zero. See :class:`Pool2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        (p, q), (h, w) = self.kernel_size, check_images(x).shape[2:]
        windows = x[..., : h // p * p, : w // q * q].unflatten(3, (-1, q)).unflatten(2, (-1, p))
        return torch.linalg.vector_norm(windows, dim=(3, 5))

    def claim(self) -> Claim:
        # Squares below 1e-308 vanish, which costs up to 1e-154 of a value: the offset pays for that.
        rounding = Rounding(self.pixels + 6, 1.01, 1e-130)
        return Claim(1.0, "a norm on disjoint windows", Norm.euclidean(), Norm.euclidean(), rounding, IMAGES)


class MaxPool2d(Pool2d):
    """The largest value of every window. See :class:`Pool2d`."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel_size)

    def claim(self) -> Claim:
        return Claim(1.0, "maxima of disjoint windows", Norm.euclidean(), Norm.euclidean(), axes=IMAGES)
