"""The sets that training keeps parameters in, each with its retraction and its projection of gradients.

Note [Projected gradients]
    A step of an optimiser is followed by a retraction R, which takes weights back to their set. The part of a gradient
    that R undoes moves nothing, but it fills the moments of an optimiser such as Adam, and most of a gradient can be of
    that kind: longer weights almost always raise the dual value. So gradients are first pulled back through the
    derivative of R at weights of the set,

    .. math:: G \\mapsto (\\mathrm{D} R_W)^* G,

    which on a smooth set is the orthogonal projection on its tangent space, or nearly so.

    References:
        Optimization algorithms on matrix manifolds (Absil, Mahony, Sepulchre, 2008), sections 3.6 and 4.1
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from wgan_lip.lipschitz.bounds import Norm, convolution_row_scale

__all__ = ["BoundedConvolution", "Box", "Constraint", "SemiOrthogonal", "UnitRows", "Zero"]

MARGIN = 16.0  # units in the last place by which retracted weights stay inside their set, for a proof that rounds up
SHRUNK = 2.999  # the squared norm of weights that were shrunk: at most 3, whatever rounds
COPIED = 2**15  # entries of a matrix that are copied to treat it with others, at most, on a CPU
WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32}  # dtypes whose sums overflow, or round by much


@dataclass(frozen=True, eq=False)
class Constraint(ABC):
    """A set that training keeps a part of a parameter in.

    Constraints of one class and one :attr:`kind` are treated together, in as many torch calls as one of them: a step of
    a small critic spends most of its time in these calls.

    Attributes:
        part: The parameter, or a view of it.
        of_norm_1: Whether parts in the set have norm 1, or nearly so, whatever their shape: their entries then have the
            size that :func:`wgan_lip.parameter_groups` assumes.
        semi_orthogonal: Whether they are semi-orthogonal matrices.
    """

    of_norm_1: ClassVar[bool] = False
    semi_orthogonal: ClassVar[bool] = False
    part: Tensor

    @property
    def kind(self) -> Hashable:
        """A key that is equal for constraints treated together; by default each is treated alone."""
        return id(self)

    def retract(self) -> None:
        """Takes the part back to the set, in place, wherever a step has put it."""
        self.retract_together([self])

    def project(self, gradient: Tensor) -> None:
        """Removes from the part's gradient, in place, what retraction would undo; see Note [Projected gradients].

        The part is assumed to be in its set, where retraction left it.
        """
        self.project_together([self], [gradient])

    @classmethod
    @abstractmethod
    def retract_together(cls, constraints: Sequence[Any]) -> None:
        """:meth:`retract` of constraints of this class and one kind."""

    @classmethod
    @abstractmethod
    def project_together(cls, constraints: Sequence[Any], gradients: Sequence[Tensor]) -> None:
        """:meth:`project` of constraints of this class and one kind."""


@dataclass(frozen=True, eq=False)
class SemiOrthogonal(Constraint):
    r"""All singular values of a matrix (m, n) at most 1, and pushed towards 1; a part (m, …) is read as (m, n).

    Retraction is one Newton–Schulz step:

    .. math:: W \mapsto \tfrac32 V - \tfrac12 V V^\top V, \qquad V = W \min(1, \sqrt{3 / s}), \qquad s \ge \|W\|^2

    where s is the largest absolute row sum of the Gram matrix. t ↦ (3t − t³)/2 takes [0, √3] into [0, 1], so *one*
    step leaves ‖W‖ ≤ 1 however large the optimiser's step was, and near the set it converges quadratically. A factor
    1 − 16·eps keeps rounding on the safe side; half precision, in which sums overflow, goes through float32.

    The projection is the pull-back through that step, with orthonormal rows (m ≤ n) or columns:

    .. math:: G \mapsto G - \tfrac12 (G W^\top + W G^\top) W \qquad\text{or}\qquad
              G \mapsto G - \tfrac12 W (W^\top G + G^\top W)

    References:
        An iterative algorithm for computing the best estimate of an orthogonal matrix (Björck, Bowie, 1971)
    """

    of_norm_1 = semi_orthogonal = True

    @property
    def kind(self) -> Hashable:
        """The shape, with a tall matrix treated as its transpose.

        Large matrices are treated alone on a CPU, where copying them together takes longer than the torch calls.
        """
        alone = self.part.device.type == "cpu" and self.part.numel() > COPIED
        shape = sorted((len(self.part), self.part[0].numel()))
        return *shape, self.part.dtype, self.part.device, id(self) if alone else None

    @classmethod
    def retract_together(cls, constraints: Sequence[SemiOrthogonal]) -> None:
        parts = [constraint.part for constraint in constraints]
        torch._foreach_copy_(parts, _unstacked(_newton_schulz(_stacked(parts), _margin(parts[0])), parts))

    @classmethod
    def project_together(cls, constraints: Sequence[SemiOrthogonal], gradients: Sequence[Tensor]) -> None:
        weights, along = _stacked([constraint.part for constraint in constraints]), _stacked(gradients)
        square = along @ weights.mT
        projected = along.baddbmm_(square + square.mT, weights, alpha=-0.5)
        torch._foreach_copy_(list(gradients), _unstacked(projected, gradients))


@dataclass(frozen=True, eq=False)
class BoundedConvolution(Constraint):
    r"""The convolution with a kernel K (m, c/groups, p, q) has norm at most 1 at every size.

    Retraction normalises row by row, by the absolute sums of the kernel's spatial Gram matrix:

    .. math:: K_i \mapsto K_i / \sqrt{T_i}, \qquad T_i = \sum_j \sum_o |(K \star K)_{ij}[o]|

    diag(T) ⪰ KKᵀ leaves ‖K‖ ≤ 1 in one go. It enlarges rows as well as it shrinks them, so that no kernel stays small.
    Gradients are pulled back through it.

    References:
        Almost-orthogonal layers for efficient general-purpose Lipschitz networks (Prach, Lampert, 2022)
    """

    of_norm_1 = True
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def retract_together(cls, constraints: Sequence[BoundedConvolution]) -> None:
        for constraint in constraints:
            constraint.part.copy_(_margin(constraint.part) * constraint._scaled(constraint.part))

    @classmethod
    def project_together(cls, constraints: Sequence[BoundedConvolution], gradients: Sequence[Tensor]) -> None:
        for constraint, gradient in zip(constraints, gradients):
            with torch.enable_grad():
                kernel = constraint._scaled(constraint.part.detach()).requires_grad_()
                (pulled,) = torch.autograd.grad(constraint._scaled(kernel), kernel, gradient.double())
            gradient.copy_(pulled)

    def _scaled(self, kernel: Tensor) -> Tensor:
        """Each row over the root of its T_i, in float64; zero rows stay zero.

        In float64 the rounding of T is far below float32's margin, and no GPU takes its products for permission to use
        TF32. T is raised by four roundings a product, so that the certified bound, which counts one, is at most 1 as
        well.
        """
        limits = torch.finfo(torch.float64)
        wide = kernel.double()
        wide = wide / wide.detach().abs().amax().clamp_min(limits.tiny)  # the result is the same for any scale
        scale = convolution_row_scale(wide, self.stride, self.dilation, self.groups)
        scale = scale * (1 + 4 * limits.eps * kernel[0].numel())
        return wide * scale.where(scale > limits.tiny, 1.0).rsqrt().view(-1, 1, 1, 1)


@dataclass(frozen=True, eq=False)
class UnitRows(Constraint):
    r"""Every row of a matrix (m, n) has block norms, over `norm`, that add up to 1.

    Retraction divides each row w by the sum N(w) = Σ_k ‖w_k‖ of its block norms; zero rows stay zero. The projection is
    the pull-back through that:

    .. math:: g_k \mapsto g_k - \langle g, w \rangle \frac{w_k}{\|w_k\|}

    which is g − ⟨g, w⟩ w for a single block, and g − ⟨g, w⟩ sign(w) for blocks of size 1.
    """

    of_norm_1 = True
    norm: Norm

    @property
    def kind(self) -> Hashable:
        return self.norm, self.part.dtype, self.part.device

    @classmethod
    def retract_together(cls, constraints: Sequence[UnitRows]) -> None:
        parts = [constraint.part for constraint in constraints]
        rows, _ = cls._unit(parts, constraints[0].norm)
        torch._foreach_copy_(parts, (rows * _margin(parts[0])).split([len(part) for part in parts]))

    @classmethod
    def project_together(cls, constraints: Sequence[UnitRows], gradients: Sequence[Tensor]) -> None:
        rows, slope = cls._unit([constraint.part for constraint in constraints], constraints[0].norm)
        along = _joined(gradients)
        projected = along.addcmul((along * rows).sum(dim=1, keepdim=True), slope, value=-1)
        torch._foreach_copy_(list(gradients), projected.split([len(gradient) for gradient in gradients]))

    @staticmethod
    def _unit(parts: Sequence[Tensor], norm: Norm) -> tuple[Tensor, Tensor]:
        """The rows over their N(w), in float64, in which no square of float32's over- or underflows, and N's gradient.

        Shape (rows of all parts, n) each.
        """
        rows = _joined(parts)
        tiny = torch.finfo(rows.dtype).tiny
        if parts[0].dtype == rows.dtype:
            rows = rows / rows.abs().amax(dim=1, keepdim=True).clamp_min(tiny)
        if max(norm.blocks) == 1:
            return rows / rows.abs().sum(dim=1, keepdim=True).clamp_min_(tiny), rows.sign()
        # No Tensor.norm, which adds the squares one by one: in wide rows that rounds by more than float64's margin.
        blocks = rows.split(norm.blocks, dim=1)
        lengths = [block.square().sum(dim=1, keepdim=True).sqrt_().clamp_min_(tiny) for block in blocks]
        if len(blocks) == 1:
            return (unit := rows / lengths[0]), unit
        slope = torch.cat([block / length for block, length in zip(blocks, lengths)], dim=1)
        return rows / torch.cat(lengths, dim=1).sum(dim=1, keepdim=True), slope


@dataclass(frozen=True, eq=False)
class Zero(Constraint):
    """All entries zero."""

    @property
    def kind(self) -> Hashable:
        return self.part.dtype, self.part.device

    @classmethod
    def retract_together(cls, constraints: Sequence[Zero]) -> None:
        torch._foreach_zero_([constraint.part for constraint in constraints])

    @classmethod
    def project_together(cls, constraints: Sequence[Zero], gradients: Sequence[Tensor]) -> None:
        torch._foreach_zero_(list(gradients))


@dataclass(frozen=True, eq=False)
class Box(Constraint):
    """low ≤ entries ≤ high. Inside, no direction is lost; at a bound, the next gradient may lead back."""

    low: float
    high: float

    @property
    def kind(self) -> Hashable:
        return self.low, self.high, self.part.dtype, self.part.device

    @classmethod
    def retract_together(cls, constraints: Sequence[Box]) -> None:
        parts = [constraint.part for constraint in constraints]
        torch._foreach_clamp_min_(parts, constraints[0].low)
        torch._foreach_clamp_max_(parts, constraints[0].high)

    @classmethod
    def project_together(cls, constraints: Sequence[Box], gradients: Sequence[Tensor]) -> None:
        pass


def _newton_schulz(weights: Tensor, margin: float) -> Tensor:
    """The guarded step of :class:`SemiOrthogonal`, times `margin`, for weights (k, m, n), m ≤ n, which it overwrites.

    What scales and adds goes into the smaller Gram matrices, (3/2)V − ½VVᵀV = (3/2 I − ½VVᵀ)V, so that few passes
    over the weights remain beside the two products.
    """
    weights.div_(weights.abs().amax(dim=(1, 2), keepdim=True).clamp_min_(1.0))  # the squares of huge ones stay finite
    gram = weights @ weights.mT
    square = gram.abs().sum(dim=2, keepdim=True).amax(dim=1, keepdim=True)  # at least the squared norm
    shrink = square.clamp_min_(SHRUNK).div_(SHRUNK).rsqrt_()  # 1 for weights near the set
    gram.mul_(shrink.pow(3).mul_(-0.5 * margin))
    gram.diagonal(dim1=1, dim2=2).add_(shrink[:, :, 0].mul_(1.5 * margin))
    return gram @ weights


def _stacked(matrices: Sequence[Tensor]) -> Tensor:
    """Tensors (m, …) of one kind, as matrices with no more rows than columns, in float32 at least; of one, a view."""
    flat = [matrix.flatten(1) for matrix in matrices]
    wide = [matrix if len(matrix) <= matrix.shape[1] else matrix.mT for matrix in flat]
    stacked = torch.stack(wide) if len(wide) > 1 else wide[0][None]
    return stacked.to(WIDER.get(stacked.dtype, stacked.dtype))


def _unstacked(stacked: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The way back from :func:`_stacked`: views of the shapes of `like`."""
    turned = (len(part) > part[0].numel() for part in like)
    flat = (matrix.mT if turn else matrix for matrix, turn in zip(stacked.unbind(), turned))
    return [matrix.view(part.shape) for matrix, part in zip(flat, like)]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """The rows of all parts, in float64."""
    return (parts[0] if len(parts) == 1 else torch.cat(list(parts))).double()


def _margin(weight: Tensor) -> float:
    return 1.0 - MARGIN * torch.finfo(weight.dtype).eps
