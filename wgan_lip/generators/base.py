"""What a generator is: layers from latents to numbers, and the range that the numbers end in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wgan_lip.checks import InputError, check_choice

__all__ = ["ACTIVATIONS", "Generator", "as_activation", "check_sizes", "draw_latents"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


class Generator(nn.Module):
    """Latents (b, k) → samples (b, d).

    Where the range [low, high] of the data is known, the last layer's output is squashed into it by a sigmoid;
    otherwise it stays as it is.

    Attributes:
        layers: Latents (b, k) → (b, d), before the range.
        latent_dim: Dimension k of the standard normal latents.
        low: Least value an entry of a sample can take, or None.
        high: Greatest value an entry of a sample can take, or None.
    """

    def __init__(self, layers: nn.Module, latent_dim: int, low: float | None, high: float | None) -> None:
        super().__init__()
        self.layers, self.latent_dim, self.low, self.high = layers, latent_dim, low, high

    def forward(self, latents: Tensor) -> Tensor:
        samples = self.layers(latents)  # (b, d)
        if self.low is None or self.high is None:
            return samples
        return self.low + (self.high - self.low) * torch.sigmoid(samples)


def draw_latents(generator: nn.Module, n: int, rng: torch.Generator) -> Tensor:
    """Standard normal latents (n, generator.latent_dim) on the device of `rng`."""
    return torch.randn(n, generator.latent_dim, generator=rng, device=rng.device)


def as_activation(name: str) -> nn.Module:
    """A new activation. Raises :class:`InputError` naming the legal ones."""
    return ACTIVATIONS[check_choice(name, list(ACTIVATIONS), "activation")]()


def check_sizes(**sizes: int) -> None:
    if min(sizes.values()) < 1:
        got = ", ".join(f"{name}={size}" for name, size in sizes.items())
        raise InputError(f"Expected sizes of at least 1. Got {got}.")
