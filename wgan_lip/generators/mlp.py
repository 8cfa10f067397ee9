"""A fully connected generator, for samples of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from wgan_lip.generators.base import Generator, as_activation
from wgan_lip.utils.checks import check_sizes

__all__ = ["MLPGenerator"]


class MLPGenerator(Generator):
    """Fully connected generator, (b, k) → (b, d).

    Arguments:
        dim: Dimension d of the samples, including labels.
        low: Least value an entry of a sample can take, or None; see :class:`Generator`.
        high: Greatest value an entry of a sample can take, or None.
        latent_dim: Dimension k of the standard normal latents.
        width: Width of the hidden layers.
        depth: Number of hidden layers.
        activation: One of relu, leaky_relu, silu, gelu, tanh.
        label_shares, label_scale: Labels; see :class:`Generator`.

    Example:
        >>> import torch
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
        label_shares: Sequence[float] | None = None,
        label_scale: float = 1.0,
    ) -> None:
        labels = len(label_shares or ())
        check_sizes(dim=dim - labels, latent_dim=latent_dim, width=width, depth=depth)
        layers = []
        for before, after in pairwise([latent_dim + labels, *[width] * depth]):
            layers += [nn.Linear(before, after), as_activation(activation)]
        super().__init__(
            nn.Sequential(*layers, nn.Linear(width, dim - labels)),
            latent_dim,
            low=low,
            high=high,
            label_shares=label_shares,
            label_scale=label_scale,
        )
