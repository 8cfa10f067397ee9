"""Latent → sample."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from wgan_lip.checks import InputError, check_choice

__all__ = ["MLPGenerator", "draw_latents"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


class MLPGenerator(nn.Module):
    """Fully connected generator, (b, k) → (b, d).

    Where the range [low, high] of the data is known, the output is squashed into it by a sigmoid; otherwise it is
    affine.

    Arguments:
        dim: Dimension d of the samples.
        low: Least value an entry of a sample can take, or None.
        high: Greatest value an entry of a sample can take, or None.
        latent_dim: Dimension k of the standard normal latents.
        width: Width of the hidden layers.
        depth: Number of hidden layers.
        activation: One of relu, leaky_relu, silu, gelu, tanh.

    Example:
        >>> MLPGenerator(2, latent_dim=4)(torch.zeros(5, 4)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        dim: int,
        *,
        low: float | None = None,
        high: float | None = None,
        latent_dim: int = 8,
        width: int = 128,
        depth: int = 3,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if min(dim, latent_dim, width, depth) < 1:
            raise InputError(f"Expected sizes of at least 1. Got {dim=}, {latent_dim=}, {width=}, {depth=}.")
        check_choice(activation, list(ACTIVATIONS), "activation")
        self.latent_dim, self.low, self.high = latent_dim, low, high
        sizes = [latent_dim, *[width] * depth]
        layers = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, dim))

    def forward(self, latents: Tensor) -> Tensor:
        samples = self.layers(latents)  # (b, d)
        if self.low is None or self.high is None:
            return samples
        return self.low + (self.high - self.low) * torch.sigmoid(samples)


def draw_latents(generator: nn.Module, n: int, rng: torch.Generator) -> Tensor:
    """Standard normal latents (n, generator.latent_dim) on the device of `rng`."""
    return torch.randn(n, generator.latent_dim, generator=rng, device=rng.device)
