"""Convolutional generators, for images of any channels and size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from wgan_lip.generators.base import Generator, as_activation
from wgan_lip.utils.checks import InputError, check_choice, check_sizes

__all__ = ["DCGANGenerator", "ResNetGenerator"]

START = 4  # least height and width of the first image, if there is a second one

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "group": lambda channels: nn.GroupNorm(math.gcd(8, channels), channels),
    "batch": nn.BatchNorm2d,
    "none": lambda channels: nn.Identity(),
}


class DCGANGenerator(Generator):
    """Transposed convolutions that double height and width, (b, k) → (b, c·h·w).

    The first image has 4 to 7 pixels along the shorter side; images smaller than 8 pixels are not doubled at all. Other
    sizes are cropped from the middle of the next larger one.

    Arguments:
        image_shape: (c, h, w), all of them at least 1.
        low, high: The range of a pixel, or None; see :class:`Generator`.
        latent_dim: Dimension k of the standard normal latents.
        channels: Channels of the last hidden image; each image before it has twice as many.
        norm: The norm before each activation: `group` (each sample separately), `batch` (as in the paper; in training,
            the samples of a batch then depend on each other) or `none`.
        activation: One of relu, leaky_relu, silu, gelu, tanh.
        label_shares, label_scale: Labels; see :class:`Generator`.

    Raises:
        InputError: Samples that are not images, sizes below 1, or an unknown norm or activation.

    Example:
        >>> import torch
        >>> DCGANGenerator((3, 28, 30), latent_dim=4, channels=8)(torch.zeros(5, 4)).shape
        torch.Size([5, 2520])

    References:
        Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks
        (Radford, Metz, Chintala, 2015), https://arxiv.org/abs/1511.06434
    """

    def __init__(
        self,
        image_shape: Sequence[int] | None,
        *,
        low: float | None = None,
        high: float | None = None,
        latent_dim: int = 64,
        channels: int = 64,
        norm: str = "group",
        activation: str = "relu",
        label_shares: Sequence[float] | None = None,
        label_scale: float = 1.0,
    ) -> None:
        (c, *size), doublings = _check(image_shape, norm, latent_dim, channels)
        widths = [channels * 2**index for index in range(max(0, doublings - 1), -1, -1)]
        layers: list[nn.Module] = [_Start(latent_dim + len(label_shares or ()), widths[0], size, doublings)]
        for before, after in zip(widths, [*widths[1:], c]):
            layers += [NORMS[norm](before), as_activation(activation)]
            doubling = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
            layers.append(doubling if doublings else nn.Conv2d(before, after, 3, padding=1))
        super().__init__(
            nn.Sequential(*layers, _Crop(size)),
            latent_dim,
            low=low,
            high=high,
            label_shares=label_shares,
            label_scale=label_scale,
        )


class ResNetGenerator(Generator):
    """Residual blocks that double height and width, (b, k) → (b, c·h·w).

    Sizes as in :class:`DCGANGenerator`. A block maps x to U(x) + conv(σ(n(conv(U(σ(n(x))))))), where U doubles each
    pixel, n is the norm and σ the activation.

    Arguments:
        image_shape: (c, h, w), all of them at least 1.
        low, high: The range of a pixel, or None; see :class:`Generator`.
        latent_dim: Dimension k of the standard normal latents.
        channels: Channels of all hidden images.
        norm: The norm before each activation: `group` (each sample separately), `batch` (as in the paper; in training,
            the samples of a batch then depend on each other) or `none`.
        activation: One of relu, leaky_relu, silu, gelu, tanh.
        label_shares, label_scale: Labels; see :class:`Generator`.

    Raises:
        InputError: Samples that are not images, sizes below 1, or an unknown norm or activation.

    Example:
        >>> import torch
        >>> ResNetGenerator((1, 8, 8), latent_dim=4, channels=8)(torch.zeros(5, 4)).shape
        torch.Size([5, 64])

    References:
        Improved training of Wasserstein GANs (Gulrajani et al., 2017), appendix C, https://arxiv.org/abs/1704.00028
    """

    def __init__(
        self,
        image_shape: Sequence[int] | None,
        *,
        low: float | None = None,
        high: float | None = None,
        latent_dim: int = 64,
        channels: int = 64,
        norm: str = "group",
        activation: str = "relu",
        label_shares: Sequence[float] | None = None,
        label_scale: float = 1.0,
    ) -> None:
        (c, *size), doublings = _check(image_shape, norm, latent_dim, channels)
        blocks = [_Block(channels, norm, activation) for _ in range(doublings)]
        layers = nn.Sequential(
            _Start(latent_dim + len(label_shares or ()), channels, size, doublings),
            *blocks,
            NORMS[norm](channels),
            as_activation(activation),
            nn.Conv2d(channels, c, 3, padding=1),
            _Crop(size),
        )
        super().__init__(layers, latent_dim, low=low, high=high, label_shares=label_shares, label_scale=label_scale)


class _Start(nn.Module):
    """Latents (b, k) → an image (b, channels, ⌈h / 2^n⌉, ⌈w / 2^n⌉), to be doubled n times."""

    def __init__(self, latent_dim: int, channels: int, size: Sequence[int], doublings: int) -> None:
        super().__init__()
        self.shape = (channels, *(-(-pixels // 2**doublings) for pixels in size))
        self.linear = nn.Linear(latent_dim, math.prod(self.shape))

    def forward(self, latents: Tensor) -> Tensor:
        return self.linear(latents).unflatten(1, self.shape)


class _Block(nn.Module):
    def __init__(self, channels: int, norm: str, activation: str) -> None:
        super().__init__()
        self.before = nn.Sequential(NORMS[norm](channels), as_activation(activation))
        self.after = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            NORMS[norm](channels),
            as_activation(activation),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return _doubled(x) + self.after(_doubled(self.before(x)))


class _Crop(nn.Module):
    """The middle (b, c, h, w) of larger images, as rows (b, c·h·w)."""

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = tuple(size)

    def forward(self, x: Tensor) -> Tensor:
        (h, w), (top, left) = self.size, ((have - want) // 2 for have, want in zip(x.shape[2:], self.size))
        return x[:, :, top : top + h, left : left + w].flatten(1)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _check(image_shape: Sequence[int] | None, norm: str, latent_dim: int, channels: int) -> tuple[Sequence[int], int]:
    """The shape, and how often the first image is doubled."""
    if image_shape is None or len(image_shape) != 3:
        raise InputError(
            f"This generator makes images, and needs image_shape (c, h, w), not {image_shape}. For other samples use "
            "MLPGenerator."
        )
    c, h, w = image_shape
    check_sizes(c=c, h=h, w=w, latent_dim=latent_dim, channels=channels)
    check_choice(norm, list(NORMS), "norm")
    return image_shape, max(0, (min(h, w) // START).bit_length() - 1)
