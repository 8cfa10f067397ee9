"""Samples of a trained generator, block by block: any number of them, from one seed or one a seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor, nn

from wgan_lip.generators import draw_latents

__all__ = ["sample_blocks", "sample_by_seeds"]

BLOCK = 256  # samples at a time: enough for the processor, and little memory for any image


def sample_blocks(generator: nn.Module, n: int, rng: torch.Generator, *, label: int | None = None) -> Iterator[Tensor]:
    """n samples in blocks of shape (b, d), on the CPU.

    Arguments:
        generator: Latents (b, k) → samples (b, d), on any device.
        n: How many.
        rng: Source of latents, on the CPU: equal seeds then give equal samples on every device, up to rounding.
        label: The label of all, for a conditional generator; drawn if None.
    """
    sizes = (min(BLOCK, n - done) for done in range(0, n, BLOCK))
    return _through(generator, (draw_latents(generator, size, rng, labels=label) for size in sizes))


def sample_by_seeds(generator: nn.Module, seeds: Iterable[int], *, label: int | None = None) -> Iterator[Tensor]:
    """One sample a seed, in their order, in blocks of shape (b, d), on the CPU.

    A sample depends on its own seed alone, but for rounding: blocks of other sizes may be added up in another order.

    Arguments:
        generator: Latents (b, k) → samples (b, d), on any device.
        seeds: Each from 0 and below 2^31.
        label: The label of all, for a conditional generator; drawn if None.
    """
    rng, waiting = torch.Generator(), iter(seeds)
    blocks = iter(lambda: list(islice(waiting, BLOCK)), [])

    def latents(block: list[int]) -> Tensor:
        return torch.cat([draw_latents(generator, 1, rng.manual_seed(seed), labels=label) for seed in block])

    return _through(generator, map(latents, blocks))


@torch.no_grad()
def _through(generator: nn.Module, latents: Iterator[Tensor]) -> Iterator[Tensor]:
    device = next(generator.parameters()).device
    for block in latents:
        yield generator(block.to(device)).cpu()
