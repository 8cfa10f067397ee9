"""Affine maps between normed spaces."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wgan_lip.lipschitz.bounds import Norm, upper_bound_operator_norm, upper_bound_vector_norm
from wgan_lip.lipschitz.layers.base import Claim, Kinks, LipschitzLayer, Rounding, Summary, no_kinks
from wgan_lip.lipschitz.layers.constraints import Constraint, SemiOrthogonal, UnitRows, Zero
from wgan_lip.lipschitz.layers.retraction import Retraction

__all__ = ["Linear"]


class Linear(LipschitzLayer):
    r"""Affine map of norm at most 1 between two block-max norms.

    .. math:: x \mapsto A x + b, \qquad \|A\|_{* \to *} \le \max_i \sum_j \|A_{ij}\|_2 = 1

    A scalar output block keeps Σ_j‖A_ij‖ = 1. An output block of several rows keeps a semi-orthogonal matrix on the
    largest input block and zeros on the others, as in the reference (there c = 0, A orthogonal).

    Arguments:
        norm_in: Norm of the input, shape (b, norm_in.dim).
        norm_out: Norm of the output, shape (b, norm_out.dim).

    Guarantee:
        Constant max_i Σ_j‖A_ij‖, each block norm verified.

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), Theorems 3.1 and 4.1
    """

    summary = Summary("Ax + b", "any block-max to any", "max over rows of blocks of Σ‖A_ij‖")

    def __init__(self, norm_in: Norm, norm_out: Norm) -> None:
        super().__init__()
        self.norm_in, self.norm_out = norm_in, norm_out
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(norm_out.dim, norm_in.dim)))
        self.bias = nn.Parameter(torch.zeros(norm_out.dim))
        Retraction(self)()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def claim(self) -> Claim:
        bound = upper_bound_operator_norm(self.weight, self.norm_in, self.norm_out)
        rounding = Rounding(
            operations=self.norm_in.dim + 4,
            gain=upper_bound_vector_norm(self.weight),
            offset=upper_bound_vector_norm(self.bias),
        )
        return Claim(bound, "max_i sum_j |A_ij| by verified Cholesky", self.norm_in, self.norm_out, rounding)

    def constraints(self) -> Iterator[Constraint]:
        largest = max(self.norm_in.slices, key=lambda block: block.stop - block.start)
        start = 0
        for size, group in groupby(self.norm_out.blocks):
            count = len(list(group))
            rows = slice(start, start + size * count)
            start = rows.stop
            if size == 1:  # neighbouring scalar blocks in one go
                yield UnitRows(self.weight[rows], self.norm_in)
                continue
            for block in self.weight[rows].split(size):
                yield SemiOrthogonal(block[:, largest])
                others = (block[:, : largest.start], block[:, largest.stop :])
                yield from (Zero(other) for other in others if other.numel())

    def kinks(self, width: int) -> Kinks:
        return no_kinks(width)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        norms = ((3,), (5,)), ((5,), (3,)), ((4,), (1, 1, 1, 4)), ((2, 1, 3), (3, 3, 1)), ((1,) * 4, (1,) * 3)
        for blocks_in, blocks_out in norms:
            yield cls(Norm(blocks_in), Norm(blocks_out)), (sum(blocks_in),)

    def extra_repr(self) -> str:
        return f"{self.norm_in} -> {self.norm_out}"
