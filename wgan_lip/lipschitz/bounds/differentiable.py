"""Upper bounds of operator norms that are cheap and differentiable, for training.

Note [Rounding in the working precision]
    Everything is computed and returned in the dtype of the weights, or in float32 for half precision. A sum of k
    products errs by at most γ_k times the sum of their absolute values, in any order, γ_k ≤ (k + 8)·eps while
    k·eps ≤ 1/4 (Higham, Accuracy and stability of numerical algorithms, 2002, section 3.5); these margins are added,
    so the bounds hold in real arithmetic where no squares of entries underflow; products are computed in no less than
    their dtype (:func:`wgan_lip.utils.devices.full_precision`). No value is read back from the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wgan_lip.lipschitz.bounds.convolutions import gram_sums, per_axis, polyphase
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.devices import full_precision

__all__ = ["convolution_row_scale", "gram_bound", "row_scale"]


@full_precision()
def gram_bound(matrix: Tensor, *, iterations: int = 4) -> Tensor:
    r"""Bounds the spectral norm ‖W‖ from above by Gram iteration.

    .. math:: \|W\|^2 \le \min(\|G^m\|_F, \|G^m\|_\infty)^{1/m}, \qquad G = W W^\top, \quad m = 2^{\text{iterations}}

    Each power is scaled to a largest entry of 1 before it is squared; the bound does not depend on these factors, so
    they carry no gradient, and it is finite for weights of any size, zero included.

    Arguments:
        matrix: Shape (..., m, n), any real floating type.
        iterations: Number of squarings.

    Returns:
        Bounds of shape (...), exceeding ‖W‖ by at most the factor min(m, n)^{1/4m}, and rounding.

    Raises:
        InputError: Not a matrix.

    Guarantee:
        See Note [Rounding in the working precision]. Not a certificate: those take :func:`upper_bound_norm`.

    References:
        Efficient bound of Lipschitz constant for convolutional layers by Gram iteration (Delattre, Barthélemy, Araujo,
        Allauzen, 2023)
    """
    if matrix.ndim < 2:
        raise InputError(f"matrix must have shape (..., m, n), not {tuple(matrix.shape)}.")
    working = matrix if matrix.dtype == torch.float64 else matrix.float()
    power = working if working.shape[-2] <= working.shape[-1] else working.mT
    eps, tiny = torch.finfo(power.dtype).eps, torch.finfo(power.dtype).tiny
    steps = []
    for _ in range(iterations + 1):
        scale = power.detach().abs().amax(dim=(-2, -1)).clamp_min(tiny)
        power = power / scale[..., None, None]
        inner = power.shape[-1]
        # ‖A‖² ≤ ‖fl(A Aᵀ)‖ + γ‖A‖_F²; A Aᵀ even where A itself should be symmetric, which rounding may break
        steps.append((scale, (inner + 12) * eps * power.square().sum(dim=-1).sum(dim=-1)))
        power = power @ power.mT
    side = power.shape[-1]
    frobenius = power.square().sum(dim=-1).sum(dim=-1).clamp_min(tiny).sqrt()
    sums = torch.maximum(power.abs().sum(dim=-1).amax(dim=-1), power.abs().sum(dim=-2).amax(dim=-1))
    bound = torch.minimum(frobenius, sums) * (1 + (2 * side + 8) * eps)
    for scale, rounding in reversed(steps):
        bound = scale * (bound + rounding + tiny).sqrt() * (1 + 4 * eps)
    return bound


def row_scale(matrix: Tensor, q: Tensor | None = None) -> Tensor:
    r"""Scales of the rows of W that take its norm to at most 1 without iteration: ‖diag(T)^{-1/2} W‖ ≤ 1.

    .. math:: T_i = \sum_j |W W^\top|_{ij} \, q_j / q_i, \qquad \mathrm{diag}(T) \succeq W W^\top

    for every q > 0, by diagonal dominance. Orthonormal rows have T = 1.

    Arguments:
        matrix: Shape (m, n), any real floating type.
        q: Positive weights, shape (m,); None stands for ones.

    Returns:
        T, shape (m,). Zero rows have T_i = 0, which the caller has to clamp.

    Raises:
        InputError: Not a matrix.

    Guarantee:
        See Note [Rounding in the working precision].

    References:
        Almost-orthogonal layers for efficient general-purpose Lipschitz networks (Prach, Lampert, 2022)
        A unified algebraic perspective on Lipschitz neural networks (Araujo, Havens, Delattre, Allauzen, Hu, 2023)
    """
    if matrix.ndim != 2:
        raise InputError(f"matrix must have shape (m, n), not {tuple(matrix.shape)}.")
    return convolution_row_scale(matrix[..., None], q=q)


@full_precision()
def convolution_row_scale(
    kernel: Tensor,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    q: Tensor | None = None,
) -> Tensor:
    r"""Scales of the output channels that take a convolution's norm to at most 1: ‖diag(T)^{-1/2} K‖ ≤ 1.

    .. math:: T_i = \sum_j \sum_{s \mid o} |(K \star K)_{ij}[o]| \, q_j / q_i

    where (K ⋆ K)_ij[o] is the product of filters i and j shifted by o, a multiple of the stride s, in one group.

    Arguments:
        kernel: Shape (c_out, c_in/groups, *k), any real floating type.
        stride, dilation: An integer, or one for each spatial axis.
        groups: Number of groups of channels.
        q: Positive weights, shape (c_out,); None stands for ones.

    Returns:
        T, shape (c_out,). Zero filters have T_i = 0, which the caller has to clamp.

    Raises:
        InputError: Not a kernel, or an argument that torch does not accept either.

    Guarantee:
        Holds for every size with zero padding, and with circular padding of at most half the kernel where the stride
        divides the size (outputs that meet round the torus may be closer than a stride otherwise: take stride 1). See
        Note [Rounding in the working precision].

    References:
        Almost-orthogonal layers for efficient general-purpose Lipschitz networks (Prach, Lampert, 2022)
        A unified algebraic perspective on Lipschitz neural networks (Araujo, Havens, Delattre, Allauzen, Hu, 2023)
    """
    if kernel.ndim < 3 or groups < 1 or kernel.shape[0] % groups:
        raise InputError(
            f"kernel must have shape (c_out, c_in/groups, *k), not {tuple(kernel.shape)} with {groups} groups."
        )
    axes = kernel.ndim - 2
    strides, dilations = per_axis(stride, axes, "stride", 1), per_axis(dilation, axes, "dilation", 1)
    working = kernel if kernel.dtype == torch.float64 else kernel.float()
    sums = gram_sums(polyphase(working.unflatten(0, (groups, -1)), strides, dilations))
    weights = sums.new_ones(sums.shape[:2]) if q is None else q.to(sums.dtype).view(groups, -1)
    scale = (sums @ weights[..., None])[..., 0] / weights
    return scale.flatten() * (1 + (sums.shape[1] + 8) * torch.finfo(sums.dtype).eps)
