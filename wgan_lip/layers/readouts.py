"""Nonlinear last layers: from a Euclidean state to one or more scalars."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wgan_lip.bounds import Norm, upper_bound_vector_norm
from wgan_lip.checks import InputError, check_samples
from wgan_lip.layers.base import Claim, LipschitzLayer, Rounding

__all__ = ["LipschitzExtension"]


class LipschitzExtension(LipschitzLayer):
    r"""The lowest of a set of cones: the largest 1-Lipschitz function that is at most b_j at the point c_j.

    .. math:: f(z) = \min_j (\|z - c_j\| + b_j)

    Optimal potentials of W1 have this form, with the centres c_j at the samples. The gradient norm is 1 almost
    everywhere. Several heads share the centres and have offsets b of their own.

    Distances are computed by differences: the expansion ‖z‖² − 2zᵀc + ‖c‖² cancels. Memory b·k, with heads b·heads·k.

    Arguments:
        dim: Width of the state, shape (b, dim); the output has shape (b, heads).
        centers: Number k of centres.
        heads: Number of scalars, in the maximum norm.
        scale: The centres start Gaussian with this standard deviation in each coordinate, in the state's units.

    Guarantee:
        Constant exactly 1 for all finite centres and offsets, a minimum of 1-Lipschitz functions.

    References:
        Extension of range of functions (McShane, 1934)
    """

    def __init__(self, dim: int, centers: int, *, heads: int = 1, scale: float = 1.0) -> None:
        super().__init__()
        if min(dim, centers, heads) < 1:
            raise InputError(
                f"Expected a width, a number of centers and of heads of at least 1. Got {dim}, {centers} and {heads}."
            )
        self.centers = nn.Parameter(scale * torch.randn(centers, dim))
        self.offsets = nn.Parameter(torch.zeros(heads, centers))

    @classmethod
    def through(cls, points: Tensor, values: Tensor) -> LipschitzExtension:
        """The extension of values (k,) at points (k, d), which it takes there if they are 1-Lipschitz on the points.

        Raises :class:`InputError` for points that are not finite or not of shape (k, d), and for other than k values.
        """
        points, values = check_samples(points, "points"), check_samples(values.reshape(-1, 1), "values")[:, 0]
        if len(points) != len(values):
            raise InputError(f"Expected one value a point. Got {len(values)} values at {len(points)} points.")
        layer = cls(points.shape[1], len(points)).to(points)
        with torch.no_grad():
            layer.centers.copy_(points)
            layer.offsets.copy_(values)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        single = torch.promote_types(x.dtype, torch.float32)  # there are no distances in half precision
        points, centers = x.to(single), self.centers.to(single)
        distance = torch.cdist(points, centers, compute_mode="donot_use_mm_for_euclid_dist")  # (b, k)
        return (distance[:, None] + self.offsets).amin(dim=2).to(x.dtype)

    def claim(self) -> Claim:
        heads, dim = len(self.offsets), self.centers.shape[1]
        each = math.sqrt(heads) * 1.01  # the error vector of all heads
        size = upper_bound_vector_norm(self.centers) + upper_bound_vector_norm(self.offsets)
        # Squares that underflow cost 1e-154 a coordinate; those that overflow hide a cone, which may be the lowest.
        offset = each * (size + 1e-130) if size < 1e130 else math.inf
        rounding = Rounding(dim + 8, each, offset)
        return Claim(1.0, "minimum of cones", Norm.euclidean(dim), Norm((1,) * heads), rounding)

    def extra_repr(self) -> str:
        return f"dim={self.centers.shape[1]}, centers={len(self.centers)}, heads={len(self.offsets)}"
