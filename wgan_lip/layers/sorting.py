"""Maps that permute coordinates by their values: gradient-flow layers that need no weights."""

from __future__ import annotations

import torch
from torch import Tensor

from wgan_lip.bounds import Norm
from wgan_lip.checks import InputError
from wgan_lip.layers.base import Claim, LipschitzLayer

__all__ = ["MaxMin"]


class MaxMin(LipschitzLayer):
    r"""Sorts pairs of channels, (x_1, x_2) ↦ (max, min): nonexpansive in the Euclidean and in the maximum norm.

    It is the gradient-flow layer x − 2Wᵀ relu(Wx) with one row (e_2 − e_1)/√2 a pair.

    Arguments:
        dim: Width of the state, shape (b, dim) or (b, dim, …); a multiple of 2·stride.
        norm: Euclidean or maximum norm of that width, or the Euclidean norm of any size, for images; the maximum norm
            by default.
        stride: Distance between the two of a pair: (0, stride), (1, stride + 1), ….

    References:
        Sorting out Lipschitz function approximation (Anil, Lucas, Grosse, 2019)
    """

    def __init__(self, dim: int, norm: Norm | None = None, *, stride: int = 1) -> None:
        super().__init__()
        if stride < 1 or dim < 2 * stride or dim % (2 * stride):
            raise InputError(
                f"Expected an even width, a multiple of twice the stride {stride}. Got {dim}. MaxMin sorts pairs."
            )
        self.dim, self.stride = dim, stride
        self.norm = norm or Norm((1,) * dim)
        if self.norm not in (Norm((1,) * dim), Norm.euclidean(dim), Norm.euclidean()):
            raise InputError(f"Expected the Euclidean or maximum norm of width {dim}. Got {self.norm}.")

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.unflatten(1, (-1, 2, self.stride)).unbind(2)  # (b, pairs, stride, …)
        return torch.stack((torch.maximum(first, second), torch.minimum(first, second)), dim=2).flatten(1, 3)

    def claim(self) -> Claim:
        return Claim(1.0, "sorting is nonexpansive", self.norm, self.norm)

    def extra_repr(self) -> str:
        return f"{self.norm}" + (f", stride={self.stride}" if self.stride > 1 else "")
