"""The sets that training keeps parameters in, each with its retraction and its projection of gradients.

Note [Projected gradients]
    A step of an optimiser is followed by a retraction R, which takes weights back to their set. What a gradient has
    along directions that R takes back moves nothing, but it fills the moments of an optimiser such as Adam, and most of
    a gradient can be of that kind: longer weights almost always raise the dual value. So gradients are first pulled
    back through the derivative of R at weights of the set,

    .. math:: G \\mapsto (\\mathrm{D} R_W)^* G,

    which on a smooth set is the orthogonal projection on its tangent space, or nearly so.

    References:
        Optimization algorithms on matrix manifolds (Absil, Mahony, Sepulchre, 2008), sections 3.6 and 4.1
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wgan_lip.lipschitz.bounds import Norm, convolution_row_scale

__all__ = ["BoundedConvolution", "Box", "Constraint", "Point", "SemiOrthogonal", "UnitRows", "Zero"]

Tensors = tuple[Tensor, ...] | list[Tensor]
MARGIN = 16.0  # units in the last place by which retracted weights stay inside their set, for a proof that rounds up


@dataclass(frozen=True, eq=False)
class Constraint(ABC):
    """A set that training keeps a part of a parameter in.

    Attributes:
        part: The parameter, or a view of it.
        of_norm_1: Whether parts in the set have norm 1, or nearly so, whatever their shape: their entries are then of
            the size that :func:`wgan_lip.parameter_groups` goes by.
        semi_orthogonal: Whether they are semi-orthogonal matrices.
    """

    of_norm_1: ClassVar[bool] = False
    semi_orthogonal: ClassVar[bool] = False
    part: Tensor

    @abstractmethod
    def retract(self) -> None:
        """Takes the part back to the set, in place, from wherever a step has put it."""

    @abstractmethod
    def project(self, gradient: Tensor) -> None:
        """Takes out of the part's gradient, in place, what retraction would undo; see Note [Projected gradients].

        The part is taken to be in its set, where retraction left it.
        """


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
    def kind(self) -> tuple[int, int, torch.dtype, torch.device]:
        """Those of one kind are retracted and projected together."""
        return len(self.part), self.part[0].numel(), self.part.dtype, self.part.device

    def retract(self) -> None:
        self.retract_together([self])

    def project(self, gradient: Tensor) -> None:
        self.project_together([self], [gradient])

    @staticmethod
    def retract_together(constraints: Sequence[SemiOrthogonal]) -> None:
        """Retracts parts of one kind, in few calls of torch's."""
        parts = [constraint.part for constraint in constraints]
        retracted = _newton_schulz([part.flatten(1) for part in parts])
        torch._foreach_copy_(parts, [new.view(part.shape) for new, part in zip(retracted, parts)])

    @staticmethod
    def project_together(constraints: Sequence[SemiOrthogonal], gradients: Sequence[Tensor]) -> None:
        """Projects the gradients of parts of one kind."""
        weights = [_at_least_single(constraint.part.flatten(1)) for constraint in constraints]
        flat = [_at_least_single(gradient.flatten(1)) for gradient in gradients]  # views, mostly
        wide = weights[0].shape[0] <= weights[0].shape[1]
        turned = [weight.mT for weight in weights]
        squares = _products(flat, turned) if wide else _products(turned, flat)
        factors = [square + square.mT for square in squares]
        normal = (factors, weights) if wide else (weights, factors)
        _add_products(flat, *normal, alpha=-0.5)
        for gradient, projected in zip(gradients, flat):
            if projected.data_ptr() != gradient.data_ptr():
                gradient.copy_(projected.view(gradient.shape))


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

    def retract(self) -> None:
        self.part.copy_(_margin(self.part) * self._scaled(self.part))

    def project(self, gradient: Tensor) -> None:
        with torch.enable_grad():
            kernel = self._scaled(self.part.detach()).requires_grad_()
            (pulled,) = torch.autograd.grad(self._scaled(kernel), kernel, gradient.double())
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

    def retract(self) -> None:
        weight, size, _ = self._measured()
        self.part.copy_(_margin(self.part) * (weight / size))

    def project(self, gradient: Tensor) -> None:
        weight, size, slope = self._measured()
        along = (gradient * weight).sum(dim=1, keepdim=True) / size
        gradient.copy_(gradient - along * slope)

    def _measured(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows w of a scale at which no square over- or underflows, N(w), shape (m, 1), and its gradient at w."""
        weight = _at_least_single(self.part)
        tiny = torch.finfo(weight.dtype).tiny
        weight = weight / weight.abs().amax(dim=1, keepdim=True).clamp_min(tiny)
        if max(self.norm.blocks) == 1:
            return weight, weight.abs().sum(dim=1, keepdim=True).clamp_min(tiny), weight.sign()
        blocks = weight.split(self.norm.blocks, dim=1)
        # No Tensor.norm, which adds the squares one by one: in wide rows that rounds by more than the margin.
        lengths = [block.square().sum(dim=1, keepdim=True).sqrt() for block in blocks]
        slope = torch.cat([block / length.clamp_min(tiny) for block, length in zip(blocks, lengths)], dim=1)
        return weight, torch.cat(lengths, dim=1).sum(dim=1, keepdim=True).clamp_min(tiny), slope


@dataclass(frozen=True, eq=False)
class Zero(Constraint):
    """All entries zero."""

    def retract(self) -> None:
        self.part.zero_()

    def project(self, gradient: Tensor) -> None:
        gradient.zero_()


@dataclass(frozen=True, eq=False)
class Point(Constraint):
    """The entries of `point`, of the same shape."""

    point: Tensor

    def retract(self) -> None:
        self.part.copy_(self.point)

    def project(self, gradient: Tensor) -> None:
        gradient.zero_()


@dataclass(frozen=True, eq=False)
class Box(Constraint):
    """low ≤ entries ≤ high. Inside no direction is lost, and at a bound the next gradient may lead back."""

    low: float
    high: float

    def retract(self) -> None:
        self.part.clamp_(self.low, self.high)

    def project(self, gradient: Tensor) -> None:
        pass


def _newton_schulz(weights: list[Tensor]) -> Tensors:
    """The guarded step of :class:`SemiOrthogonal` for weights of one shape (m, n), which it may overwrite.

    What scales and adds goes into the smaller Gram matrices, (3/2)V − ½VVᵀV = (3/2 I − ½VVᵀ)V, so that few passes
    over the weights remain beside the two products.
    """
    margin, weights = _margin(weights[0]), [_at_least_single(weight) for weight in weights]
    ends = torch.stack([end for weight in weights for end in (weight.amax(), weight.amin())])
    scales = ends.abs().view(-1, 2).amax(dim=1).clamp_min_(1.0).reciprocal_()
    torch._foreach_mul_(weights, scales.unbind())  # the squares of huge weights stay finite
    turned = [weight.mT for weight in weights]
    wide = weights[0].shape[0] <= weights[0].shape[1]
    gram = torch.stack(_products(weights, turned) if wide else _products(turned, weights))
    square = gram.abs().sum(dim=2).amax(dim=1)[:, None, None]  # at least the squared norm
    shrink = (2.999 / square).clamp_max_(1.0)
    root = margin * shrink.sqrt()
    factor = gram.mul_(-0.5 * shrink * root)
    factor.diagonal(dim1=1, dim2=2).add_(1.5 * root[:, :, 0])
    factors = factor.unbind()
    return _products(factors, weights) if wide else _products(weights, factors)


def _products(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensors:
    """The product of every pair: in one launch on a GPU; one by one on a CPU, which copies no factor."""
    if left[0].is_cuda:
        return (torch.stack(tuple(left)) @ torch.stack(tuple(right))).unbind()
    return [a @ b for a, b in zip(left, right)]


def _add_products(sums: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor], *, alpha: float) -> None:
    """Adds alpha times the product of every pair to `sums`, in place."""
    if sums[0].is_cuda:
        torch._foreach_add_(list(sums), list(_products(left, right)), alpha=alpha)
    else:
        for total, a, b in zip(sums, left, right):
            total.addmm_(a, b, alpha=alpha)


def _margin(weight: Tensor) -> float:
    return 1.0 - MARGIN * torch.finfo(weight.dtype).eps


def _at_least_single(weight: Tensor) -> Tensor:
    return weight.to(torch.promote_types(weight.dtype, torch.float32))
