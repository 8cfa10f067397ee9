"""Claims about modules of torch.nn, for the arguments and weights they hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import nn

from wgan_lip.lipschitz.bounds import (
    Norm,
    padding_multiplicity,
    product_up,
    upper_bound_convolution_norm,
    upper_bound_norm,
    upper_bound_vector_norm,
)
from wgan_lip.lipschitz.bounds.convolutions import padding_margins
from wgan_lip.lipschitz.bounds.dense import root_up
from wgan_lip.lipschitz.layers.base import Claim, Rounding
from wgan_lip.lipschitz.layers.convolutions import summed_products, upper_bound_absolute_norm
from wgan_lip.utils.checks import InputError, UncertifiableError

__all__ = ["STOCK_CLAIMS"]

# Note [Stock claims]
# Claims for images hold at every size. torch's float64 convolutions and pools on the CPU are sums of products in some
# order, which is all that the rounding bounds assume.
ANY = Norm.euclidean()


def _linear_claim(module: nn.Linear) -> Claim:
    offset = 0.0 if module.bias is None else upper_bound_vector_norm(module.bias)
    rows, columns = module.weight.shape
    rounding = Rounding(columns + 4, upper_bound_vector_norm(module.weight), offset)
    norms = Norm.euclidean(columns), Norm.euclidean(rows)
    return Claim(upper_bound_norm(module.weight), "spectral norm by verified Cholesky", *norms, rounding)


def _convolution_claim(module: nn.Conv1d | nn.Conv2d) -> Claim:
    spans = [d * (k - 1) + 1 for k, d in zip(module.weight.shape[2:], module.dilation)]
    margins = padding_margins(module.padding, spans, module.stride)
    if module.padding_mode != "zeros" and margins != _pairs(module._reversed_padding_repeated_twice):
        raise UncertifiableError(  # torch applies these, and not `padding`
            f"Expected the padding of the construction. Got {module.padding}. Build a new {type(module).__name__}."
        )
    bound = upper_bound_convolution_norm(
        module.weight,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        groups=module.groups,
        padding_mode=module.padding_mode,
    )
    copies = padding_multiplicity(module.padding_mode, margins)
    return _sum_claim(module, bound, "norm of the convolution at any size", copies)


def _transposed_claim(module: nn.ConvTranspose1d | nn.ConvTranspose2d) -> Claim:
    # The adjoint of a convolution with zero padding; padding and output_padding only say which of its rows are kept.
    bound = upper_bound_convolution_norm(
        module.weight, stride=module.stride, dilation=module.dilation, groups=module.groups
    )
    return _sum_claim(module, bound, "norm of the adjoint convolution at any size")


def _sum_claim(module: nn.Module, bound: float, method: str, copies: int = 1) -> Claim:
    rounding = Rounding(
        operations=summed_products(module.weight, module.groups) + 4,
        gain=1.01 * math.sqrt(copies) * upper_bound_absolute_norm(module.weight, module.groups),
        offset=0.0 if module.bias is None else upper_bound_vector_norm(module.bias),
    )
    return Claim(bound, method, ANY, ANY, rounding)


def _padding_claim(module: nn.Module, padding_mode: str) -> Claim:
    if padding_mode == "circular" and min(module.padding) < 0:  # beside positive padding, torch leaves memory unset
        raise UncertifiableError(
            f"Expected circular padding of at least 0. Got {module.padding}. Crop in a layer before."
        )
    copies = padding_multiplicity(padding_mode, _pairs(module.padding))
    return Claim(root_up(copies), "root of the most copies of one pixel", ANY, ANY)


def _average_claim(module: nn.AvgPool1d | nn.AvgPool2d) -> Claim:
    r"""A depthwise convolution with equal weights, where all windows divide by the same number.

    Else, along each axis, ‖A‖² ≤ ‖A‖_1 ‖A‖_∞ for the matrix A of the averages; ‖A‖_∞ ≤ 1, and ‖A‖_1 over all sizes.
    """
    kernel, stride, padding = _geometry(module, module.kernel_size, module.stride, module.padding)
    divisor = getattr(module, "divisor_override", None)
    whole = not module.ceil_mode and (module.count_include_pad or not any(padding))
    if divisor or whole:
        size = abs(divisor or math.prod(kernel))
        window = upper_bound_convolution_norm(torch.ones(1, 1, *kernel), stride=stride)
        bound = product_up(window, _inverse_up(size))
        method = "norm of the convolution with equal weights"
    else:
        sums = [_largest_column_sum(module, *geometry) for geometry in zip(kernel, stride, padding)]
        bound = product_up(*(root_up(total) for total in sums))
        method = "root of the most that one pixel adds to all averages"
    return Claim(bound, method, ANY, ANY, Rounding(math.prod(kernel) + 4, 1.01 * bound))


def _largest_column_sum(module: nn.AvgPool1d | nn.AvgPool2d, kernel: int, stride: int, padding: int) -> float:
    """The most that one pixel adds to all averages along one axis, over all sizes.

    What a pixel adds depends on its distance to either border, up to the width of a window, and on how the windows
    meet the far border, which repeats with the stride: sizes up to twice the window plus the stride show every case.
    """
    largest = 0.0
    for size in range(1, 2 * (kernel + padding + stride) + 1):
        pixels = torch.eye(size, dtype=torch.float64, device="cpu")[:, None]
        with suppress(RuntimeError):  # torch refuses images smaller than a window
            averages = F.avg_pool1d(pixels, kernel, stride, padding, module.ceil_mode, module.count_include_pad)
            largest = max(largest, averages.sum(dim=2).max().item())
    return largest * (1 + 2.0**-40)


def _maximum_claim(module: nn.MaxPool1d | nn.MaxPool2d) -> Claim:
    if module.return_indices:
        raise UncertifiableError("Expected return_indices=False. Got True. Indices jump; drop them.")
    stride = module.kernel_size if module.stride is None else module.stride
    axes = zip(*_geometry(module, module.kernel_size, stride, module.padding, module.dilation))
    if any(_misses_small_images(*axis, module.ceil_mode) for axis in axes):
        raise UncertifiableError(
            f"Expected windows that meet every image. Got {module}: at a small size one lies on padding alone, where "
            "torch gives -inf and writes outside its memory. Pad in a layer before, as by ReplicationPad2d."
        )
    return Claim(root_up(_overlap(module, module.dilation)), "root of the most windows that see one pixel", ANY, ANY)


def _misses_small_images(kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> bool:
    """Whether, along one axis, some image is so small that the taps of a window step over it, from padding to padding.

    The first tap beyond the padding in front falls on a pixel below `dilation`, which an image of that size lacks.
    """
    for window, start in enumerate(range(-padding, 0, stride)):
        size = start % dilation  # the largest image that this window steps over; none of size 0
        steps, rest = divmod(size + 2 * padding - dilation * (kernel - 1) - 1, stride)
        if size and window <= steps + (ceil_mode and rest > 0):
            return True
    return False


def _power_claim(module: nn.LPPool1d | nn.LPPool2d) -> Claim:
    if module.norm_type != 2 or module.ceil_mode:
        raise UncertifiableError(
            f"Expected norm_type=2 and ceil_mode=False. Got {module.norm_type} and {module.ceil_mode}. Use L2Pool2d."
        )
    (kernel,) = _geometry(module, module.kernel_size)
    constant = root_up(_overlap(module, 1))
    # Squares below 1e-308 vanish, which costs up to 1e-154 of a value: the offset pays for that.
    rounding = Rounding(math.prod(kernel) + 32, 1.01 * constant, 1e-130)
    return Claim(constant, "root of the most windows that see one pixel", ANY, ANY, rounding)


def _overlap(module: nn.Module, dilation: int | Sequence[int]) -> int:
    """The most windows that see one pixel: along an axis, the taps that fall on one residue of the stride."""
    stride = module.kernel_size if module.stride is None else module.stride
    axes = zip(*_geometry(module, module.kernel_size, stride, dilation))
    return math.prod(math.ceil(k * math.gcd(s, d) / s) for k, s, d in axes)


def _adaptive_average_claim(module: nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d) -> Claim:
    size = module.output_size
    if any(n != 1 for n in (size if isinstance(size, tuple) else (size,))):
        raise UncertifiableError(
            f"Expected output_size=1. Got {size}. Its windows depend on the size of the image; use ScaledAvgPool2d."
        )
    # A mean of n pixels errs by at most γ_n/√n of the image's norm, which is below γ_m for n ≤ m², more than any memory
    # holds for this m.
    return Claim(1.0, "a mean", ANY, ANY, Rounding(2**20, 1.01))


def _leaky_relu_claim(module: nn.LeakyReLU) -> Claim:
    if not math.isfinite(module.negative_slope):
        raise InputError(f"Expected a finite negative_slope. Got {module.negative_slope}.")
    slope = max(1.0, abs(module.negative_slope))
    return Claim(slope, "largest slope", rounding=Rounding(1, slope))


def _prelu_claim(module: nn.PReLU) -> Claim:
    upper_bound_vector_norm(module.weight)  # refuses what is not finite
    slope = max(1.0, module.weight.detach().abs().max().item())
    return Claim(slope, "largest slope", rounding=Rounding(1, slope))


def _flatten_claim(module: nn.Flatten) -> Claim:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise UncertifiableError("Expected nn.Flatten() over all but the first axis. Got other axes. Use the default.")
    return Claim(1.0, "isometry")


def _unflatten_claim(module: nn.Unflatten) -> Claim:
    if module.dim != 1:
        raise UncertifiableError(f"Expected nn.Unflatten of axis 1. Got axis {module.dim}. Use Unflatten(shape).")
    return Claim(1.0, "isometry", ANY, ANY)


def _refuse(module: nn.Module, remedy: str) -> NoReturn:
    raise UncertifiableError(f"Expected layers with a provable constant. Got {type(module).__name__}. {remedy}")


def _geometry(module: nn.Module, *values: int | Sequence[int]) -> list[list[int]]:
    """Each value as one number a spatial axis of the module."""
    axes = 1 if type(module).__name__.endswith("1d") else 2
    return [[value] * axes if isinstance(value, int) else list(value) * (axes // len(value)) for value in values]


def _pairs(padding: Sequence[int]) -> list[tuple[int, int]]:
    """torch's (before, after) of the last axis, then of the one before it, …, as pairs in order of the axes."""
    return list(zip(padding[::2], padding[1::2]))[::-1]


def _inverse_up(number: int) -> float:
    inverse = 1 / number
    return inverse if number & (number - 1) == 0 else math.nextafter(inverse, math.inf)


_ISOMETRY = Claim(1.0, "isometry", ANY, ANY)
_SLOPE_1 = Claim(1.0, "largest slope")

STOCK_CLAIMS: dict[type[nn.Module], Callable[[nn.Module], Claim]] = {
    nn.ChannelShuffle: lambda _: _ISOMETRY,
    nn.Flatten: _flatten_claim,
    nn.Hardtanh: lambda _: _SLOPE_1,
    nn.Identity: lambda _: Claim(1.0, "identity"),
    nn.LeakyReLU: _leaky_relu_claim,
    nn.Linear: _linear_claim,
    nn.PReLU: _prelu_claim,
    nn.PixelShuffle: lambda _: _ISOMETRY,
    nn.PixelUnshuffle: lambda _: _ISOMETRY,
    nn.ReLU: lambda _: _SLOPE_1,
    nn.ReLU6: lambda _: _SLOPE_1,
    nn.Softshrink: lambda _: Claim(1.0, "largest slope", rounding=Rounding(1, 1.0)),
    nn.Softsign: lambda _: Claim(1.0, "largest slope", rounding=Rounding(4, 1.0)),
    nn.Tanh: lambda _: Claim(1.0, "largest slope", rounding=Rounding(16, 1.0)),
    nn.Unflatten: _unflatten_claim,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d), _convolution_claim),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d), _transposed_claim),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d), _average_claim),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d), _adaptive_average_claim),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d), _maximum_claim),
    **dict.fromkeys((nn.LPPool1d, nn.LPPool2d), _power_claim),
    **dict.fromkeys(
        (nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d), partial(_padding_claim, padding_mode="zeros")
    ),
    **dict.fromkeys((nn.ReflectionPad1d, nn.ReflectionPad2d), partial(_padding_claim, padding_mode="reflect")),
    **dict.fromkeys((nn.ReplicationPad1d, nn.ReplicationPad2d), partial(_padding_claim, padding_mode="replicate")),
    **dict.fromkeys((nn.CircularPad1d, nn.CircularPad2d), partial(_padding_claim, padding_mode="circular")),
    **dict.fromkeys(
        (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
        partial(_refuse, remedy="In training it is a function of the batch. Use Normalize with fixed mean and std."),
    ),
    **dict.fromkeys(
        (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
        partial(_refuse, remedy="Training and evaluation are two functions. Take it out."),
    ),
}
