"""Samples of a trained generator, block by block: any number from one seed, one per seed, or along a walk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from wgan_lip.generators import draw_latents, latent_dim

__all__ = ["sample_blocks", "sample_by_seeds", "sample_walk"]

BLOCK = 256  # samples at a time: enough to keep the processor busy, in little memory


def sample_blocks(generator: nn.Module, n: int, rng: torch.Generator, *, label: int | None = None) -> Iterator[Tensor]:
    """n samples in blocks of shape (b, d), on the CPU.

    Arguments:
        generator: Latents (b, k) → samples (b, d), on any device.
        n: Number of samples.
        rng: Source of latents, on the CPU: equal seeds then give equal samples on every device, up to rounding.
        label: The label of all samples, for a conditional generator; drawn if None.
    """
    sizes = (min(BLOCK, n - done) for done in range(0, n, BLOCK))
    return _through(generator, (draw_latents(generator, size, rng, labels=label) for size in sizes))


def sample_by_seeds(generator: nn.Module, seeds: Iterable[int], *, label: int | None = None) -> Iterator[Tensor]:
    """One sample per seed, in order, in blocks of shape (b, d), on the CPU.

    A sample depends only on its seed, up to rounding: other block sizes may change the order of summation.

    Arguments:
        generator: Latents (b, k) → samples (b, d), on any device.
        seeds: Each at least 0 and below 2^31.
        label: The label of all samples, for a conditional generator; drawn if None.
    """
    rng, waiting = torch.Generator(), iter(seeds)
    blocks = iter(lambda: list(islice(waiting, BLOCK)), [])

    def latents(block: list[int]) -> Tensor:
        return torch.cat([draw_latents(generator, 1, rng.manual_seed(seed), labels=label) for seed in block])

    return _through(generator, map(latents, blocks))


def sample_walk(
    generator: nn.Module, seeds: Sequence[int], frames: int, *, label: int | None = None
) -> Iterator[Tensor]:
    r"""Samples along a walk through the latents of the seeds and back to the first, in blocks of shape (b, d).

    .. math:: z(t) = \cos(\tfrac\pi2 t) \, z_i + \sin(\tfrac\pi2 t) \, z_{i+1}, \qquad 0 \le t < 1

    With z_i and z_{i+1} standard normal and independent, every z(t) is standard normal: each frame is a sample like any
    other. At the seeds themselves it is the sample of :func:`sample_by_seeds`.

    Arguments:
        generator: Latents (b, k) → samples (b, d), on any device.
        seeds: At least two, each at least 0 and below 2^31.
        frames: Number of samples, spread evenly along the walk, which is closed: the last frame is next to the first.
        label: The label of all frames, for a conditional generator; if None, each has the label of the nearer seed.
    """
    rng, size = torch.Generator(), latent_dim(generator)
    stops = torch.cat([draw_latents(generator, 1, rng.manual_seed(seed), labels=label) for seed in seeds])
    place = torch.arange(frames, dtype=torch.float64) * len(stops) / frames
    first = place.floor().long().clamp(max=len(stops) - 1)
    second = (first + 1) % len(stops)
    turned = ((place - first) * math.pi / 2)[:, None]
    walk = torch.where((place - first < 0.5)[:, None], stops[first], stops[second])  # for the labels after the latents
    walk[:, :size] = torch.cos(turned) * stops[first, :size] + torch.sin(turned) * stops[second, :size]
    return _through(generator, iter(walk.to(stops.dtype).split(BLOCK)))


@torch.no_grad()
def _through(generator: nn.Module, latents: Iterator[Tensor]) -> Iterator[Tensor]:
    device = next(generator.parameters()).device
    for block in latents:
        yield generator(block.to(device)).cpu()
