"""Pulling weights back to their constraints after an optimiser's step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from wgan_lip.lipschitz.bounds import Norm, convolution_row_scale
from wgan_lip.lipschitz.layers.base import BoundedConvolution, Box, LipschitzLayer, SemiOrthogonal, UnitRows, Zero

__all__ = ["Retraction", "retract_after_steps"]


class Retraction:
    r"""Pulls the parameters of all layers in `module` back to their constraints; no autograd, no host synchronisation.

    Semi-orthogonal weights take one Newton–Schulz step, all weights of one shape together:

    .. math:: W \mapsto \tfrac32 V - \tfrac12 V V^\top V, \qquad V = W \min(1, \sqrt{3 / s}), \qquad s \ge \|W\|^2

    where s is the largest absolute row sum of the Gram matrix. t ↦ (3t − t³)/2 takes [0, √3] into [0, 1], so *one*
    step leaves ‖W‖ ≤ 1 however large the optimiser's step was, and near the constraint it converges quadratically.
    A factor 1 − 16·eps keeps rounding on the safe side; half precision, in which sums overflow, goes through float32.

    Kernels K of overlapping windows are normalised row by row, by the absolute sums of their spatial Gram matrix:

    .. math:: K_i \mapsto K_i / \sqrt{T_i}, \qquad T_i = \sum_j \sum_o |(K \star K)_{ij}[o]|

    diag(T) ⪰ KKᵀ leaves ‖K‖ ≤ 1 in one go. It enlarges rows as well as it shrinks them, so that no kernel stays small.

    Arguments:
        module: Any module; its :class:`LipschitzLayer` submodules and their parameters are found at every call, so it
            may move between devices and dtypes, and layers may be added or replaced.

    References:
        An iterative algorithm for computing the best estimate of an orthogonal matrix (Björck, Bowie, 1971);
        Almost-orthogonal layers for efficient general-purpose Lipschitz networks (Prach, Lampert, 2022)
    """

    MARGIN: ClassVar[float] = 16.0

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @torch.no_grad()
    def __call__(self) -> None:
        by_shape: defaultdict[tuple, list[Tensor]] = defaultdict(list)
        layers = (layer for layer in self.module.modules() if isinstance(layer, LipschitzLayer))
        for layer in layers:
            for constraint in layer.constraints():
                match constraint:
                    case SemiOrthogonal(weight):
                        shape = len(weight), weight[0].numel()
                        by_shape[shape, weight.dtype, weight.device].append(weight)
                    case BoundedConvolution(weight, stride, dilation, groups):
                        weight.copy_(self._margin(weight) * _scaled_rows(weight, stride, dilation, groups))
                    case UnitRows(weight, norm):
                        weight.copy_(self._margin(weight) * _unit_rows(weight, norm))
                    case Zero(weight):
                        weight.zero_()
                    case Box(value, low, high):
                        value.clamp_(low, high)
        for weights in by_shape.values():
            retracted = self._newton_schulz([weight.flatten(1) for weight in weights])
            torch._foreach_copy_(weights, [new.view(weight.shape) for new, weight in zip(retracted, weights)])

    @classmethod
    def _margin(cls, weight: Tensor) -> float:
        return 1.0 - cls.MARGIN * torch.finfo(weight.dtype).eps

    @classmethod
    def _newton_schulz(cls, weights: list[Tensor]) -> Sequence[Tensor]:
        """One guarded step for weights of one shape (m, n), which it may overwrite.

        What scales and adds goes into the smaller Gram matrices, (3/2)V − ½VVᵀV = (3/2 I − ½VVᵀ)V, so that few passes
        over the weights remain beside the two products.
        """
        margin, weights = cls._margin(weights[0]), [_at_least_single(weight) for weight in weights]
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


def _products(left: Sequence[Tensor], right: Sequence[Tensor]) -> Sequence[Tensor]:
    """The product of every pair: in one launch on a GPU; one by one on a CPU, which copies no factor."""
    if left[0].is_cuda:
        return (torch.stack(tuple(left)) @ torch.stack(tuple(right))).unbind()
    return [a @ b for a, b in zip(left, right)]


def _unit_rows(weight: Tensor, norm: Norm) -> Tensor:
    """Each row over the sum of its block norms, shape (m, n); zero rows stay zero."""
    weight = _at_least_single(weight)
    tiny = torch.finfo(weight.dtype).tiny
    weight = weight / weight.abs().amax(dim=1, keepdim=True).clamp_min(tiny)  # no square over- or underflows
    if max(norm.blocks) == 1:
        total = weight.abs().sum(dim=1, keepdim=True)
    else:  # no Tensor.norm, which adds the squares one by one: in wide rows that rounds by more than the margin
        squares = [part.square().sum(dim=1, keepdim=True) for part in weight.split(norm.blocks, dim=1)]
        total = torch.cat(squares, dim=1).sqrt().sum(dim=1, keepdim=True)
    return weight / total.clamp_min(tiny)


def _at_least_single(weight: Tensor) -> Tensor:
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


def _scaled_rows(kernel: Tensor, stride: tuple[int, int], dilation: tuple[int, int], groups: int) -> Tensor:
    """Each row of a convolution over the root of its T_i, in float64; zero rows stay zero.

    In float64 the rounding of T is far below float32's margin, and no GPU takes its products for permission to use
    TF32. T is raised by four roundings a product, so that the certified bound, which counts one, is at most 1 as well.
    """
    limits = torch.finfo(torch.float64)
    wide = kernel.double()
    wide = wide / wide.abs().amax().clamp_min(limits.tiny)
    scale = convolution_row_scale(wide, stride, dilation, groups) * (1 + 4 * limits.eps * kernel[0].numel())
    return wide * scale.clamp_min(limits.tiny).rsqrt().view(-1, 1, 1, 1)


_RETRACTED: WeakKeyDictionary[torch.optim.Optimizer, list[nn.Module]] = WeakKeyDictionary()


def retract_after_steps(optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
    """Registers the :class:`Retraction` of `module` on `optimizer`: it runs after every `optimizer.step()`.

    Works with any torch optimiser and any training loop, which cannot forget it. Registering twice does no harm and
    nothing more.

    Example:
        >>> from wgan_lip.lipschitz.layers import GradientFlow
        >>> layer = GradientFlow(4, 2)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=100.0)
        >>> retract_after_steps(optimizer, layer)
        >>> layer(torch.ones(3, 4)).sum().backward()
        >>> optimizer.step()
        >>> layer.claim().lipschitz
        1.0
    """
    registered = _RETRACTED.setdefault(optimizer, [])
    if any(known is module for known in registered):
        return
    registered.append(module)
    retraction = Retraction(module)
    optimizer.register_step_post_hook(lambda *_: retraction())
