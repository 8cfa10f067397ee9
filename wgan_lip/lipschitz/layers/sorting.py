"""Maps that permute or reflect coordinates by their values: folds, which keep the gradient norm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip.lipschitz.bounds import Norm, upper_bound_vector_norm
from wgan_lip.lipschitz.layers.base import CHANNELS_FIRST, VECTORS, Claim, Kinks, LipschitzLayer, Rounding, Summary
from wgan_lip.utils.checks import InputError

__all__ = ["GroupSort", "Householder", "MaxMin"]

_CHUNK = 2**17  # entries sorted at a time: few enough for a processor's cache
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of a number


class MaxMin(LipschitzLayer):
    r"""Sorts pairs of channels, (x_1, x_2) ↦ (max, min): nonexpansive in the Euclidean and in the maximum norm.

    It is the gradient-flow layer x − 2Wᵀ relu(Wx) with one row (e_2 − e_1)/√2 for each pair.

    Arguments:
        dim: Width of the state, shape (b, dim) or (b, dim, …); a multiple of 2·stride.
        norm: Euclidean or maximum norm of that width, or the Euclidean norm of any size, for images; the maximum norm
            by default.
        stride: Distance between the two channels of a pair: (0, stride), (1, stride + 1), ….

    References:
        Sorting out Lipschitz function approximation (Anil, Lucas, Grosse, 2019)
    """

    summary = Summary("pairs, or groups, in order of size", "Euclidean or maximum")

    def __init__(self, dim: int, norm: Norm | None = None, *, stride: int = 1) -> None:
        super().__init__()
        if stride < 1 or dim < 2 * stride or dim % (2 * stride):
            raise InputError(f"MaxMin sorts pairs: dim must be a multiple of twice the stride {stride}; {dim} is not.")
        self.dim, self.stride = dim, stride
        self.norm = _check_norm(norm or Norm((1,) * dim), dim)

    def forward(self, x: Tensor) -> Tensor:
        return _max_min(x, self.stride)

    def claim(self) -> Claim:
        return Claim(1.0, "sorting is nonexpansive", self.norm, self.norm, axes=_axes(self.norm))

    def kinks(self, width: int) -> Kinks | None:
        if width != self.dim:
            return None  # of images
        first, second = torch.eye(width, dtype=torch.float64).unflatten(0, (-1, 2, self.stride)).unbind(1)
        return (first - second).flatten(0, 1), torch.zeros(width // 2, dtype=torch.float64)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(6), (6,)
        yield cls(8, Norm.euclidean(8), stride=2), (8,)
        yield cls(2, Norm.euclidean()), (2, 1, 3)

    def extra_repr(self) -> str:
        return f"{self.norm}" + (f", stride={self.stride}" if self.stride > 1 else "")


class GroupSort(LipschitzLayer):
    r"""Sorts each group of neighbouring channels, the largest first: nonexpansive in the Euclidean and maximum norms.

    .. math:: \|\operatorname{sort} x - \operatorname{sort} y\| \le \|x - y\|

    Groups of two are :class:`MaxMin`, one gradient-flow layer; a larger group is a composition of such layers, one for
    each stage of a sorting network.

    Arguments:
        dim: Width of the state, shape (b, dim) or (b, dim, …).
        group: Channels in a group, a divisor of `dim`; `dim` itself sorts the whole state.
        norm: As for :class:`MaxMin`.

    References:
        Sorting out Lipschitz function approximation (Anil, Lucas, Grosse, 2019)
    """

    summary = MaxMin.summary

    def __init__(self, dim: int, group: int, norm: Norm | None = None) -> None:
        super().__init__()
        if dim < 1 or group < 1 or dim % group:
            raise InputError(f"group must divide the width {dim}; {group} does not. Change one of the two.")
        self.dim, self.group = dim, group
        self.norm = _check_norm(norm or Norm((1,) * dim), dim)

    def forward(self, x: Tensor) -> Tensor:
        if self.group == 2:
            return _max_min(x, 1)
        return x.unflatten(1, (-1, self.group)).sort(dim=2, descending=True).values.flatten(1, 2)

    def claim(self) -> Claim:
        return Claim(1.0, "sorting is nonexpansive", self.norm, self.norm, axes=_axes(self.norm))

    def kinks(self, width: int) -> Kinks | None:
        if width != self.dim:
            return None  # of images
        groups = torch.eye(width, dtype=torch.float64).unflatten(0, (-1, self.group))
        first, second = torch.triu_indices(self.group, self.group, 1)
        rows = (groups[:, first] - groups[:, second]).flatten(0, 1)
        return rows, rows.new_zeros(len(rows))

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(6, 3), (6,)
        yield cls(6, 6, Norm.euclidean(6)), (6,)
        yield cls(4, 4, Norm.euclidean()), (4, 2, 1)

    def extra_repr(self) -> str:
        return f"{self.norm}, group={self.group}"


class Householder(LipschitzLayer):
    r"""Reflects pairs of channels where they lie below a line through 0 at a trained angle; nonexpansive, Euclidean.

    .. math:: x \mapsto x - 2 v \min(v^\top x, 0), \qquad v = (\sin \tfrac\theta2, -\cos \tfrac\theta2)

    It is the gradient-flow layer x − 2Wᵀ relu(Wx) with one row −vᵀ per pair. At the start, θ = π/2, it sorts the pairs.

    Arguments:
        dim: Width of the state, even, shape (b, dim) or (b, dim, …).
        norm: Euclidean norm of that width, the default, or of any size, for images.

    Guarantee:
        Constant exactly 1 for every finite angle: v has length 1 in real arithmetic.

    References:
        Improved deterministic ℓ2 robustness on CIFAR-10 and CIFAR-100 (Singla, Singla, Feizi, 2022)
    """

    summary = Summary("reflects one side of a learned line")

    def __init__(self, dim: int, norm: Norm | None = None) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise InputError(f"Householder reflects pairs: dim must be even and at least 2, not {dim}.")
        self.norm = norm or Norm.euclidean(dim)
        if self.norm not in (Norm.euclidean(dim), Norm.euclidean()):
            raise InputError(f"Householder needs a Euclidean norm of width {dim}, not {self.norm}. Use MaxMin instead.")
        self.angle = nn.Parameter(torch.full((dim // 2,), math.pi / 2))

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != 2 * len(self.angle):
            raise InputError(f"Inputs must have shape (b, {2 * len(self.angle)}, …), not {tuple(x.shape)}.")
        half = (self.angle / 2).view(-1, *[1] * (x.ndim - 2))
        sine, cosine = half.sin(), half.cos()
        first, second = x.unflatten(1, (-1, 2)).unbind(2)  # (b, pairs, …)
        below = 2 * torch.clamp_max(sine * first - cosine * second, 0)
        return torch.stack((first - sine * below, second + cosine * below), dim=2).flatten(1, 2)

    def claim(self) -> Claim:
        upper_bound_vector_norm(self.angle)  # refuses angles that are not finite
        # sine and cosine 16 roundings each, twice; products and sums 6
        rounding = Rounding(40, 6.0)
        return Claim(1.0, "reflections on one side", self.norm, self.norm, rounding, axes=_axes(self.norm))

    def kinks(self, width: int) -> Kinks | None:
        if width != 2 * len(self.angle):
            return None  # of images
        first, second = torch.eye(width, dtype=torch.float64).unflatten(0, (-1, 2)).unbind(1)
        half = self.angle.detach().double()[:, None] / 2
        return half.sin() * first - half.cos() * second, torch.zeros(width // 2, dtype=torch.float64)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(4), (4,)
        yield cls(2, Norm.euclidean()), (2, 2, 1)

    def extra_repr(self) -> str:
        return f"{self.norm}"


def _check_norm(norm: Norm, dim: int) -> Norm:
    if norm not in (Norm((1,) * dim), Norm.euclidean(dim), Norm.euclidean()):
        raise InputError(f"norm must be the Euclidean or maximum norm of width {dim}, not {norm}.")
    return norm


def _axes(norm: Norm) -> range:
    return VECTORS if norm.blocks else CHANNELS_FIRST


def _max_min(x: Tensor, stride: int) -> Tensor:
    pairs = x.unflatten(1, (-1, 2, stride))  # (b, pairs, 2, stride, …)
    traced = torch.compiler.is_compiling()  # or exported, perhaps to be differentiated later
    if traced or (x.requires_grad and torch.is_grad_enabled()):
        swap = pairs[:, :, 0] < pairs[:, :, 1]  # of both coordinates, so that ties get one slope
        if traced:  # a compiler fuses this, and does not see through the function below
            return torch.where(swap[:, :, None], pairs.flip(2), pairs).flatten(1, 3)
        return _Swap.apply(pairs, swap).flatten(1, 3)
    out = torch.empty_like(pairs, memory_format=torch.contiguous_format)
    samples = max(1, _CHUNK // max(1, x[:1].numel()))
    for part, into in zip(pairs.split(samples), out.split(samples)):
        first, second = part.unbind(2)
        into[:, :, 0] = torch.maximum(first, second)
        into[:, :, 1] = torch.minimum(first, second)
    return out.flatten(1, 3)


class _Swap(torch.autograd.Function):
    """Exchanges the two of a pair, shape (b, pairs, 2, …), where `swap`, shape (b, pairs, …), says so; its own adjoint.

    With t = u ⊕ v or 0, u ⊕ t and v ⊕ t are v and u, or u and v, bit by bit, without a branch. The index of a gather,
    which its gradient needs, would take longer to build than that, and 16 times the memory of `swap`.
    """

    @staticmethod
    def forward(pairs: Tensor, swap: Tensor) -> Tensor:
        bits = pairs.view(_BITS[pairs.element_size()])
        first, second = bits.unbind(2)
        change = torch.bitwise_xor(first, second).bitwise_and_(swap.to(bits.dtype).neg_())  # of all bits, or of none
        out = torch.empty_like(bits, memory_format=torch.contiguous_format)
        torch.bitwise_xor(first, change, out=out[:, :, 0])
        torch.bitwise_xor(second, change, out=out[:, :, 1])
        return out.view(pairs.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Swap.apply(gradient, *ctx.saved_tensors), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _Swap.apply(tangent, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], pairs: Tensor, swap: Tensor) -> tuple[Tensor, int]:
        batched = (
            part.expand(info.batch_size, *part.shape) if axis is None else part.movedim(axis, 0)
            for part, axis in zip((pairs, swap), in_dims)
        )
        pairs, swap = (part.flatten(0, 1) for part in batched)
        return _Swap.apply(pairs, swap).unflatten(0, (info.batch_size, -1)), 0
