"""What a critic is: certified layers in a row."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from wgan_lip.checks import InputError
from wgan_lip.layers import Flatten, LipschitzLayer, Squeeze

__all__ = ["Critic", "check_sizes"]


class Critic(nn.Sequential):
    """Potentials f: R^d → R as a sequence of certified layers; maps (b, d), or (b, c, h, w), to values (b,).

    Its Lipschitz constant is whatever :func:`wgan_lip.certify` proves for the weights it holds; training with
    :func:`wgan_lip.retract_after_steps` keeps that at 1.

    With k > 1 heads it holds k potentials over one body and maps to (b, k). The certificate is then in the maximum
    norm of the k values: each potential, and each gap of two at two points, obeys the one constant. The vector of all
    k is not 1-Lipschitz in the Euclidean norm; it is √k-Lipschitz there.

    Attributes:
        dim: Dimension d of the samples.
        heads: Number k of potentials.
    """

    def __init__(self, dim: int, layers: OrderedDict[str, LipschitzLayer], heads: int = 1) -> None:
        if heads == 1:
            layers["squeeze"] = Squeeze()
        super().__init__(OrderedDict(flatten=Flatten(dim), **layers))
        self.dim, self.heads = dim, heads


def check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"Expected {name} of at least 1. Got {size}.")
