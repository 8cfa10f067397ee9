"""The Fréchet wavelet distance of images, which needs no network."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wgan_lip.metrics.similarity import frechet_distance
from wgan_lip.utils.checks import InputError, check_pair

__all__ = ["frechet_wavelet_distance", "wavelet_packets"]


def frechet_wavelet_distance(
    x: Tensor, y: Tensor, image_shape: tuple[int, int, int], *, level: int | None = None
) -> float:
    """The Fréchet distances of the Haar wavelet packets of two sets of images, their mean over the packets.

    Arguments:
        x: Images, shape (n, c·h·w), n of at least 2; columns after the pixels are not read.
        y: Images, shape (m, c·h·w), m of at least 2.
        image_shape: (c, h, w).
        level: Level of the packets; by default at most 4, and such that a packet has sides of at least four pixels.

    Raises:
        InputError: Unusable samples, or images too small for one level.

    References:
        Fréchet Wavelet Distance: A Domain-Agnostic Metric for Image Generation (Veeramacheneni, Wolter, Kuehne, Gall,
        2025), https://arxiv.org/abs/2312.15289. Its package pins versions of SciPy that exclude others', so its 20
        lines are here; the default level is theirs for images of 64 pixels and more.
    """
    check_pair(x, y, minimum=2)
    packets = [wavelet_packets(samples.double(), image_shape, level) for samples in (x, y)]  # (n, p, k) each
    pairs = zip(packets[0].unbind(1), packets[1].unbind(1))
    return sum(frechet_distance(a, b) for a, b in pairs) / packets[0].shape[1]


def wavelet_packets(samples: Tensor, image_shape: tuple[int, int, int], level: int | None = None) -> Tensor:
    """Haar wavelet packets of images, shape (n, 4^level, k); see :func:`frechet_wavelet_distance`."""
    side = min(image_shape[1:])
    level = min(4, int(math.log2(side / 4))) if level is None and side >= 4 else level
    if level is None or not 1 <= level <= math.log2(side):
        raise InputError(
            f"Images must have at least 8 × 8 pixels, or enough for level={level}, not shape {image_shape}."
        )
    packets = samples[:, : math.prod(image_shape)].unflatten(1, (1, *image_shape))  # (n, p, c, h, w)
    for _ in range(level):
        packets = _halved(_halved(packets, 3), 4)
    return packets.flatten(2)


def _halved(packets: Tensor, axis: int) -> Tensor:
    """Sums and differences of neighbours along an axis, as twice as many packets; an odd last row is repeated."""
    if packets.shape[axis] % 2:
        packets = torch.cat([packets, packets.narrow(axis, packets.shape[axis] - 1, 1)], dim=axis)
    even, odd = packets.unflatten(axis, (-1, 2)).unbind(axis + 1)
    return torch.cat([even + odd, even - odd], dim=1) / math.sqrt(2)
