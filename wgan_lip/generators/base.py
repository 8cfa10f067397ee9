"""The base of generators: layers from latents to numbers, and the range of these numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from wgan_lip.utils.checks import InputError, check_choice
from wgan_lip.utils.rebuilding import Rebuildable

__all__ = ["ACTIVATIONS", "Generator", "as_activation", "draw_latents", "latent_dim"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


class Generator(Rebuildable, nn.Module):
    """Latents (b, k) → samples (b, d); with labels, (b, k + K) → (b, d).

    If the range [low, high] of the data is known, a sigmoid maps the last layer's output into it; otherwise the output
    stays as it is.

    A conditional generator reads its label, a unit vector, from the last K coordinates of the latents, and appends it
    to its output, scaled by s: (z, e_y) → (G(z, y), s·e_y). See :meth:`wgan_lip.data.FiniteSource.with_labels`.

    Attributes:
        layers: Latents → samples, before the sigmoid and without labels.
        latent_dim: Dimension k of the standard normal latents.
        low: Least value an entry of a sample can take, or None.
        high: Greatest value an entry of a sample can take, or None.
        label_shares: Probability of each of the K labels that :func:`draw_latents` draws, or None.
        label_scale: s.
    """

    label_shares: Tensor | None

    def __init__(
        self,
        layers: nn.Module,
        latent_dim: int,
        *,
        low: float | None,
        high: float | None,
        label_shares: Sequence[float] | None = None,
        label_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.layers, self.latent_dim, self.low, self.high = layers, latent_dim, low, high
        shares = None if label_shares is None else torch.tensor(label_shares, dtype=torch.float64)
        self.register_buffer("label_shares", shares, persistent=False)
        self.label_scale = label_scale

    def forward(self, latents: Tensor) -> Tensor:
        samples = self.layers(latents)  # (b, d - K)
        if self.low is not None and self.high is not None:
            samples = self.low + (self.high - self.low) * torch.sigmoid(samples)
        if self.label_shares is None:
            return samples
        return torch.cat([samples, self.label_scale * latents[:, self.latent_dim :]], dim=1)


def latent_dim(generator: nn.Module) -> int:
    """Dimension k of a generator's latents. Raises :class:`InputError` if it has no `latent_dim`."""
    dim = getattr(generator, "latent_dim", None)
    if not isinstance(dim, int):
        raise InputError(f"The generator, a {type(generator).__name__}, has no latent_dim. Set it on the module.")
    return dim


def draw_latents(generator: nn.Module, n: int, rng: torch.Generator, *, labels: Tensor | int | None = None) -> Tensor:
    """Standard normal latents (n, k), k from :func:`latent_dim`, on the device of `rng`; (n, k + K) with K labels.

    Arguments:
        generator: The generator to draw latents for.
        n: Number of latents.
        rng: Source of random numbers.
        labels: The label of each, shape (n,), or one for all; drawn with the generator's shares if None.

    Raises:
        InputError: No latent_dim, labels for a generator without labels, or labels other than its K.
    """
    latents = torch.randn(n, latent_dim(generator), generator=rng, device=rng.device)
    shares = getattr(generator, "label_shares", None)
    if shares is None:
        if labels is not None:
            raise InputError(
                f"The generator was trained without labels, so label {labels} has no meaning. Leave it out."
            )
        return latents
    if labels is None:
        labels = torch.multinomial(shares.to(rng.device), n, replacement=True, generator=rng)
    labels = torch.as_tensor(labels, device=rng.device).expand(n)
    if labels.min() < 0 or labels.max() >= len(shares):
        raise InputError(f"Labels must be between 0 and {len(shares) - 1}, not {labels.unique().tolist()}.")
    return torch.cat([latents, nn.functional.one_hot(labels, len(shares)).to(latents)], dim=1)


def as_activation(name: str) -> nn.Module:
    """A new activation. Raises :class:`InputError` naming the legal ones."""
    return ACTIVATIONS[check_choice(name, list(ACTIVATIONS), "activation")]()
