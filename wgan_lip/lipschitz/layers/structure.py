"""Maps that move or scale coordinates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wgan_lip.lipschitz.bounds import Norm, product_up, upper_bound_vector_norm
from wgan_lip.lipschitz.layers.base import (
    CHANNELS_FIRST,
    IMAGES,
    Claim,
    Kinks,
    LipschitzLayer,
    Rounding,
    Summary,
    no_kinks,
)
from wgan_lip.utils.checks import InputError

__all__ = [
    "Flatten",
    "Identity",
    "LabelPlanes",
    "Normalize",
    "PixelShuffle",
    "PixelUnshuffle",
    "Squeeze",
    "Unflatten",
]


class Identity(LipschitzLayer):
    """x ↦ x on a state of the given norm."""

    summary = Summary("x", "any")

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return x

    def claim(self) -> Claim:
        return Claim(1.0, "identity", self.norm, self.norm)

    def kinks(self, width: int) -> Kinks:
        return no_kinks(width)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(Norm((1, 2))), (3,)

    def extra_repr(self) -> str:
        return str(self.norm)


class Flatten(LipschitzLayer):
    """Takes samples of any shape (b, …) with `dim` entries each to rows (b, dim); an isometry.

    Raises:
        InputError: The entries of a sample are not `dim` in number.
    """

    summary = Summary("moves coordinates")

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1) if x.ndim > 1 else x
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise InputError(
                f"Samples must have {self.dim} entries each, such as shape (b, {self.dim}), not shape "
                f"{tuple(x.shape)}. Check that the critic was built for this data's dimension."
            )
        return rows

    def claim(self) -> Claim:
        norm = Norm.euclidean(self.dim)
        return Claim(1.0, "isometry", norm, norm, axes=CHANNELS_FIRST, axes_added=None)

    def kinks(self, width: int) -> Kinks:
        return no_kinks(width)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(4), (4,)
        yield cls(6), (1, 2, 3)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Unflatten(LipschitzLayer):
    """Takes rows (b, d) to samples (b, *shape), d the product of `shape`; an isometry, undone by :class:`Flatten`.

    Arguments:
        shape: Shape of one sample, such as (c, h, w).
    """

    summary = Flatten.summary

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        if not self.shape or min(self.shape) < 1:
            raise InputError(f"shape must hold sizes of at least 1, not {self.shape}.")

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, self.shape)

    def claim(self) -> Claim:
        norm = Norm.euclidean(math.prod(self.shape))
        return Claim(1.0, "isometry", norm, norm, axes_added=len(self.shape) - 1)

    def kinks(self, width: int) -> Kinks:
        return no_kinks(width)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls((2, 1, 3)), (6,)

    def extra_repr(self) -> str:
        return f"shape={self.shape}"


class LabelPlanes(LipschitzLayer):
    r"""Takes rows of pixels and a label, (b, c·h·w + K), to images with K more planes, (b, c + K, h, w); an isometry.

    .. math:: (x, u) \mapsto (x, w u_1 \mathbf 1, \ldots, w u_K \mathbf 1), \qquad w \le 1 / \sqrt{h w}

    w is the largest float32 whose square times h·w is at most 1, so the planes together have the norm of u, up to
    rounding.

    Arguments:
        image_shape: (c, h, w) of the pixels.
        label_count: K.
    """

    summary = Summary("(x, u) ↦ image x with each uᵢ/√(hw) as a plane more")

    def __init__(self, image_shape: Sequence[int], label_count: int) -> None:
        super().__init__()
        self.image_shape, self.label_count = tuple(image_shape), label_count
        if len(self.image_shape) != 3 or min(*self.image_shape, label_count) < 1:
            raise InputError(
                f"image_shape must be (c, h, w) and label_count at least 1, not {self.image_shape} and {label_count}."
            )

        weight = np.float32(1 / math.sqrt(self._area))
        while Fraction(float(weight)) ** 2 * self._area > 1:
            weight = np.nextafter(weight, np.float32(0))
        self.weight = float(weight)

    @property
    def _area(self) -> int:
        return math.prod(self.image_shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        pixels, label = x.split([math.prod(self.image_shape), self.label_count], dim=1)
        planes = (self.weight * label)[:, :, None, None].expand(-1, -1, *self.image_shape[1:])
        return torch.cat([pixels.unflatten(1, self.image_shape), planes], dim=1)

    def claim(self) -> Claim:
        c, h, w = self.image_shape
        norms = Norm.euclidean(c * h * w + self.label_count), Norm.euclidean((c + self.label_count) * h * w)
        stretch = Fraction(self.weight) ** 2 * self._area
        lipschitz = 1.0 if stretch <= 1 else math.sqrt(stretch) * (1 + 2.0**-50)
        return Claim(lipschitz, "isometry", *norms, Rounding(1, lipschitz, 0.0), axes_added=2)

    def kinks(self, width: int) -> Kinks:
        return no_kinks(width)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls((2, 2, 3), 3), (15,)

    def extra_repr(self) -> str:
        return f"image_shape={self.image_shape}, label_count={self.label_count}"


class PixelUnshuffle(LipschitzLayer):
    """Takes every `factor` × `factor` square of pixels to one pixel of factor² times the channels; an isometry.

    Arguments:
        factor: Divides height and width of the images, shape (b, c, h, w).
    """

    summary = Flatten.summary

    def __init__(self, factor: int) -> None:
        super().__init__()
        if factor < 1:
            raise InputError(f"factor must be at least 1, not {factor}.")
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x, self.factor)

    def claim(self) -> Claim:
        return Claim(1.0, "isometry", Norm.euclidean(), Norm.euclidean(), axes=IMAGES)

    def kinks(self, width: int) -> Kinks:
        return no_kinks(width)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(2), (4, 2, 4)  # either way

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


class PixelShuffle(PixelUnshuffle):
    """The inverse of :class:`PixelUnshuffle`; an isometry.

    Arguments:
        factor: Its square divides the number of channels.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(x, self.factor)

    def claim(self) -> Claim:
        return super().claim()

    def kinks(self, width: int) -> Kinks:
        return super().kinks(width)


class Normalize(LipschitzLayer):
    r"""Centres and scales every channel, as data pipelines do; before a critic it states the certificate in raw units.

    .. math:: x_c \mapsto (x_c - \mathrm{mean}_c) / \mathrm{std}_c

    Mean and std are buffers: they lie in the state dict, so a certificate's hash covers them.

    Arguments:
        mean: One number for each channel, axis 1 of the samples.
        std: One positive number for each channel.

    Guarantee:
        Constant 1/min_c std_c, rounded up, in any norm that does not grow when coordinates shrink.

    Example:
        >>> Normalize([0.5], [0.25]).claim().lipschitz
        4.0
    """

    nonexpansive = False
    summary = Summary("(x − mean)/std, a channel each", "any", "1/least std")
    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.get_default_dtype()).clone())
        if self.mean.ndim != 1 or self.mean.shape != self.std.shape or not len(self.std):
            raise InputError(
                f"mean and std must have one entry for each channel, not shapes {tuple(self.mean.shape)} and "
                f"{tuple(self.std.shape)}. Write [0.5] for images with one channel."
            )
        self.claim()

    def forward(self, x: Tensor) -> Tensor:
        if max(len(self.mean), len(self.std)) not in (1, *x.shape[1:2]):  # broadcasting would repeat a channel
            raise InputError(f"Samples must have {len(self.std)} channels, not shape {tuple(x.shape)}.")
        per_channel = (-1, *[1] * (x.ndim - 2))
        return (x - self.mean.view(per_channel)) / self.std.view(per_channel)

    def claim(self) -> Claim:
        smallest, shift = self.std.min().item(), upper_bound_vector_norm(self.mean)
        if not (0 < smallest < math.inf and self.std.isfinite().all()):
            raise InputError(
                f"std must be positive and finite, not {self.std.tolist()}. Drop channels where it is not."
            )
        inverse = 1.0 / smallest
        # Only powers of two have exact inverses.
        largest = inverse if math.frexp(smallest)[0] == 0.5 else math.nextafter(inverse, math.inf)
        rounding = Rounding(4, largest, product_up(largest, shift))
        return Claim(largest, "1/min(std)", rounding=rounding, axes=CHANNELS_FIRST)

    def kinks(self, width: int) -> Kinks:
        return no_kinks(width)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls([0.5, -1.0], [2.0, 0.3]), (2, 2, 3)
        yield cls([0.5], [0.25]), (3,)

    def extra_repr(self) -> str:
        return f"channels={len(self.std)}"


class Squeeze(LipschitzLayer):
    """Takes a column (b, 1) to the values of a potential (b,)."""

    summary = Summary("a column (b, 1) to values (b,)", "any")

    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze(-1)

    def claim(self) -> Claim:
        return Claim(1.0, "isometry", Norm((1,)), Norm((1,)), axes_added=-1)

    def kinks(self, width: int) -> Kinks:
        return no_kinks(width)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(), (1,)
