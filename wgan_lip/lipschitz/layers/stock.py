"""Claims about torch.nn modules, for their current arguments and weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
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
from wgan_lip.lipschitz.layers.base import ANY_AXES, CHANNELS_FIRST, Claim, Rounding, remember_members
from wgan_lip.lipschitz.layers.convolutions import summed_products, upper_bound_absolute_norm
from wgan_lip.utils.checks import InputError, UncertifiableError

__all__ = ["STOCK_CLAIMS"]

# Note [Stock claims]
# Claims for images hold at every size. torch's float64 convolutions and pools on the CPU are sums of products in some
# order, which is all that the rounding bounds assume. `spatial` is the number of axes after the channels.
ANY = Norm.euclidean()
_Padding = (
    nn.modules.padding._ConstantPadNd
    | nn.modules.padding._ReflectionPadNd
    | nn.modules.padding._ReplicationPadNd
    | nn.modules.padding._CircularPadNd
)
_AveragePool = nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d
_Pool = nn.modules.pooling._MaxPoolNd | nn.modules.pooling._LPPoolNd
LARGEST_SIDE = 2**22  # pixels of an enlarged image along an axis


def _linear_claim(module: nn.Linear) -> Claim:
    """For vectors, and for every vector along the last axis, which in the Euclidean norm has the same constant."""
    offset = 0.0 if module.bias is None else upper_bound_vector_norm(module.bias)
    rows, columns = module.weight.shape
    rounding = Rounding(columns + 4, upper_bound_vector_norm(module.weight), offset)
    norms = Norm.euclidean(columns), Norm.euclidean(rows)
    bound, method = upper_bound_norm(module.weight), "spectral norm by verified Cholesky"
    return Claim(bound, method, *norms, rounding, CHANNELS_FIRST)


def _convolution_claim(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, spatial: int) -> Claim:
    spans = [d * (k - 1) + 1 for k, d in zip(module.weight.shape[2:], module.dilation)]
    margins = padding_margins(module.padding, spans, module.stride)
    if module.padding_mode != "zeros" and margins != _pairs(module._reversed_padding_repeated_twice):
        raise UncertifiableError(  # torch applies these, and not `padding`
            f"padding was changed to {module.padding} after construction. Build a new {type(module).__name__}."
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
    return _sum_claim(module, bound, "norm of the convolution at any size", spatial, copies)


def _transposed_claim(module: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d, spatial: int) -> Claim:
    # The adjoint of a convolution with zero padding; padding and output_padding only say which of its rows are kept.
    bound = upper_bound_convolution_norm(
        module.weight, stride=module.stride, dilation=module.dilation, groups=module.groups
    )
    return _sum_claim(module, bound, "norm of the adjoint convolution at any size", spatial)


def _sum_claim(module: nn.modules.conv._ConvNd, bound: float, method: str, spatial: int, copies: int = 1) -> Claim:
    rounding = Rounding(
        operations=summed_products(module.weight, module.groups) + 4,
        gain=1.01 * math.sqrt(copies) * upper_bound_absolute_norm(module.weight, module.groups),
        offset=0.0 if module.bias is None else upper_bound_vector_norm(module.bias),
    )
    return Claim(bound, method, ANY, ANY, rounding, _images(spatial))


def _padding_claim(module: _Padding, spatial: int, padding_mode: str) -> Claim:
    if padding_mode == "circular" and min(module.padding) < 0:  # beside positive padding, torch leaves memory unset
        raise UncertifiableError(
            f"Circular padding must be at least 0, not {module.padding}. Crop in a layer before it."
        )
    copies = padding_multiplicity(padding_mode, _pairs(module.padding))
    return Claim(root_up(copies), "root of the most copies of one pixel", ANY, ANY, axes=_images(spatial))


def _average_claim(module: _AveragePool, spatial: int) -> Claim:
    r"""A depthwise convolution with equal weights, where all windows divide by the same number.

    Otherwise, along each axis, ‖A‖² ≤ ‖A‖_1 ‖A‖_∞ for the matrix A of averages; ‖A‖_∞ ≤ 1, and ‖A‖_1 over all sizes.
    """
    kernel, stride, padding = _geometry(spatial, module.kernel_size, module.stride, module.padding)
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
    return Claim(bound, method, ANY, ANY, Rounding(math.prod(kernel) + 4, 1.01 * bound), _images(spatial))


def _largest_column_sum(module: _AveragePool, kernel: int, stride: int, padding: int) -> float:
    """The most that one pixel adds to all averages along one axis, over all sizes.

    That depends on the pixel's distance to either border, up to the width of a window, and on how the windows meet the
    far border, which repeats with the stride: sizes up to twice the window plus the stride show every case.
    """
    largest = 0.0
    for size in range(1, 2 * (kernel + padding + stride) + 1):
        pixels = torch.eye(size, dtype=torch.float64, device="cpu")[:, None]
        with suppress(RuntimeError):  # torch refuses images smaller than a window
            averages = F.avg_pool1d(pixels, kernel, stride, padding, module.ceil_mode, module.count_include_pad)
            largest = max(largest, averages.sum(dim=2).max().item())
    return largest * (1 + 2.0**-40)


def _maximum_claim(module: nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d, spatial: int) -> Claim:
    if module.return_indices:
        raise UncertifiableError("With return_indices=True the output jumps. Set return_indices=False.")
    stride = module.kernel_size if module.stride is None else module.stride
    axes = zip(*_geometry(spatial, module.kernel_size, stride, module.padding, module.dilation))
    if any(_misses_small_images(*axis, ceil_mode=module.ceil_mode) for axis in axes):
        raise UncertifiableError(
            f"At a small image size, a window of {module} lies on padding alone, where torch gives -inf and writes "
            "outside its memory. Pad in a layer before it, such as ReplicationPad2d."
        )
    bound, method = root_up(_overlap(module, spatial, module.dilation)), "root of the most windows that see one pixel"
    return Claim(bound, method, ANY, ANY, axes=_images(spatial))


def _misses_small_images(kernel: int, stride: int, padding: int, dilation: int, *, ceil_mode: bool) -> bool:
    """Whether, along one axis, some image is so small that the taps of a window step over it, from padding to padding.

    The first tap beyond the padding in front falls on a pixel below `dilation`, which an image of that size lacks.
    """
    for window, start in enumerate(range(-padding, 0, stride)):
        size = start % dilation  # the largest image that this window steps over; none of size 0
        steps, rest = divmod(size + 2 * padding - dilation * (kernel - 1) - 1, stride)
        if size and window <= steps + (ceil_mode and rest > 0):
            return True
    return False


def _power_claim(module: nn.LPPool1d | nn.LPPool2d | nn.LPPool3d, spatial: int) -> Claim:
    if module.norm_type != 2 or module.ceil_mode:
        raise UncertifiableError(
            f"Only norm_type=2 with ceil_mode=False has a proof, not norm_type={module.norm_type} with "
            f"ceil_mode={module.ceil_mode}. Use L2Pool2d."
        )
    (kernel,) = _geometry(spatial, module.kernel_size)
    constant = root_up(_overlap(module, spatial, 1))
    # Squares below 1e-308 vanish, which costs up to 1e-154 of a value: the offset pays for that.
    rounding = Rounding(math.prod(kernel) + 32, 1.01 * constant, 1e-130)
    return Claim(constant, "root of the most windows that see one pixel", ANY, ANY, rounding, _images(spatial))


def _overlap(module: _Pool, spatial: int, dilation: int | Sequence[int]) -> int:
    """The most windows that see one pixel: along an axis, the taps that fall on one residue of the stride."""
    stride = module.kernel_size if module.stride is None else module.stride
    axes = zip(*_geometry(spatial, module.kernel_size, stride, dilation))
    return math.prod(math.ceil(k * math.gcd(s, d) / s) for k, s, d in axes)


def _adaptive_average_claim(module: nn.Module, spatial: int) -> Claim:
    size = module.output_size
    if any(n != 1 for n in (size if isinstance(size, tuple) else (size,))):
        raise UncertifiableError(
            f"With output_size={size} the windows depend on the image size; only output_size=1 has a proof. Use "
            "ScaledAvgPool2d."
        )
    return Claim(1.0, "a mean", ANY, ANY, Rounding(4, 1.01, sums_all=True), _images(spatial))


def _upsample_claim(module: nn.Upsample) -> Claim:
    r"""Copies of pixels, or convex combinations U of neighbours, with ‖U‖² ≤ ‖U‖_1 ‖U‖_∞.

    With a whole factor s, borders included, every pixel goes into s new ones along an axis, or its weights in them add
    up to s; the weights in a new one add up to 1. A constant image attains the product of the roots.
    """
    linear = {"linear": 1, "bilinear": 2, "trilinear": 3}
    factors = module.scale_factor
    if module.mode not in ("nearest", "nearest-exact", *linear) or module.align_corners:
        raise UncertifiableError(
            f"mode={module.mode!r} with align_corners={module.align_corners} has no proof. Use mode='nearest', or a "
            "linear mode with align_corners=False."
        )
    each = factors if isinstance(factors, tuple) else (factors,)
    copies = tuple(int(factor) for factor in each if factor is not None and factor >= 1 and factor % 1 == 0)
    if module.size is not None or len(copies) < len(each):
        raise UncertifiableError(
            f"With size={module.size}, scale_factor={factors}, how often a pixel is repeated depends on the image "
            "size. Give an integer scale_factor."
        )
    if module.mode in linear:
        axes = _images(linear[module.mode])
        copies = copies * linear[module.mode] if len(copies) == 1 else copies
    elif isinstance(factors, tuple):
        axes = _images(len(copies))
    else:
        axes, copies = range(2, 4), copies * 2  # signals as well, of which fewer copies are made
    if module.mode not in linear and not all(_copies_evenly(factor, module.mode) for factor in copies):
        raise UncertifiableError(f"torch does not copy pixels evenly by {factors}. Use a power of two.")
    constant = root_up(math.prod(copies))
    rounding = Rounding(64, 8 * constant, sums_all=True) if module.mode in linear else Rounding()
    return Claim(constant, "root of the copies of one pixel", ANY, ANY, rounding, axes)


@cache
def _copies_evenly(factor: int, mode: str) -> bool:
    """Whether the rounded index of torch, in single and in double precision, is i // factor for all i < LARGEST_SIDE.

    1/factor is rounded: by 41 and some other factors, one pixel is repeated once more and its neighbour once less.
    """
    if factor & (factor - 1) == 0:
        return True
    wanted = np.arange(LARGEST_SIDE // factor)
    for precision in ("float32", "float64"):
        half = np.array(0.5 if mode == "nearest-exact" else 0.0, precision)
        inverse = np.array(1.0 / factor, precision)
        for position in (wanted * factor, wanted * factor + factor - 1):  # the first and the last copy
            if not np.array_equal(np.floor((position.astype(precision) + half) * inverse), wanted):
                return False
    return True


def _softmax_claim(module: nn.Softmax | nn.Softmin | nn.Softmax2d, dim: int | None = None) -> Claim:
    r"""1/2, for every vector along an axis of a sample; p are its probabilities.

    .. math:: v^\top (\operatorname{diag} p - p p^\top) v = \operatorname{Var}_p(v) \le \tfrac14 (\max v - \min v)^2
        \le \tfrac12 \|v\|^2

    by Popoviciu's inequality on variances; p = (1/2, 1/2, 0, …) attains it.
    """
    axis = module.dim if dim is None else dim
    if not isinstance(axis, int) or axis == 0:
        raise UncertifiableError(
            f"dim must name an axis of a sample, not {axis}, which may be the batch. Use dim=1 or dim=-1."
        )
    axes = CHANNELS_FIRST[abs(axis) - 1 :]
    # Differences to the largest entry err by 2u·2‖x‖, exponentials by that and 8 ulp, the sum by one for each entry.
    return Claim(0.5, "variance of a bounded variable", ANY, ANY, Rounding(32, 1.0, 1.0, sums_all=True), axes)


def _batch_norm_claim(module: nn.modules.batchnorm._BatchNorm, axes: range) -> Claim:
    if module.training or module.running_var is None or module.running_mean is None:
        raise UncertifiableError(
            f"{type(module).__name__} has no provable constant in training, where it depends on the batch. Use "
            "Normalize with fixed mean and std, or call eval(), with running statistics."
        )
    upper_bound_vector_norm(torch.stack((module.running_mean, module.running_var)))  # refuses what is not finite
    variance = module.running_var.detach().cpu().double().numpy() + module.eps
    if not (variance > 0).all() or not math.isfinite(module.eps):
        raise InputError(f"running_var + eps must be above 0, not {variance.min()}. Reload the last good checkpoint.")
    weight = torch.ones(1) if module.weight is None else module.weight
    upper_bound_vector_norm(weight)
    scale = np.abs(weight.detach().cpu().double().numpy()) / np.sqrt(variance)
    slope = float(scale.max()) * (1 + 2.0**-49)
    shift = 0.0 if module.bias is None else upper_bound_vector_norm(module.bias)
    offset = shift + product_up(slope, upper_bound_vector_norm(module.running_mean))
    return Claim(slope, "largest slope, in eval mode", rounding=Rounding(24, 1.01 * slope, 1.01 * offset), axes=axes)


# Note [Slopes of smooth activations]
# Upper bounds on |σ'|, the last digit raised, each at the only turning point of σ' but its mirror image: the GELU's at
# √2, where σ'(t) = Φ(t) + tφ(t); the others' by interval arithmetic in the tests. Roundings count 8 ulp an elementary
# function, relative to the slope times |t|, or to a bound on the values near 0.
_SMOOTH: Mapping[type[nn.Module], tuple[float, Rounding]] = {
    nn.Hardsigmoid: (0.16666667163372040, Rounding(8, 0.2, 1.0)),  # as torch's gradient has it, 1/6 in float32
    nn.Hardswish: (1.5, Rounding(12, 1.5)),
    nn.LogSigmoid: (1.0, Rounding(32, 1.0, 1.0)),
    nn.Mish: (1.08849816125176, Rounding(48, 1.2)),
    nn.SELU: (1.7580993408473770, Rounding(32, 1.8, 1.8)),
    nn.Sigmoid: (0.25, Rounding(24, 0.25, 0.5)),
    nn.SiLU: (1.09983932012887, Rounding(24, 1.2)),
    nn.Softsign: (1.0, Rounding(4, 1.0)),
    nn.Tanh: (1.0, Rounding(16, 1.0)),
    nn.Tanhshrink: (1.0, Rounding(32, 1.0)),
}


def _smooth_claim(module: nn.Module) -> Claim:
    slope, rounding = _SMOOTH[type(module)]
    return Claim(slope, "largest slope", rounding=rounding)


def _gelu_claim(module: nn.GELU) -> Claim:
    slopes = {"none": 1.12890414518516, "tanh": 1.12899306865878}
    if module.approximate not in slopes:
        raise UncertifiableError(f"approximate must be 'none' or 'tanh', not {module.approximate!r}.")
    return Claim(slopes[module.approximate], "largest slope", rounding=Rounding(48, 1.2))


def _elu_claim(module: nn.ELU | nn.CELU) -> Claim:
    """t, and below 0 α(eᵗ − 1), or α(e^{t/α} − 1), whose slopes are unbounded if α is negative."""
    alpha = module.alpha
    if not math.isfinite(alpha) or (isinstance(module, nn.CELU) and not alpha > 0):
        raise UncertifiableError(f"alpha must be finite, and for CELU above 0, not {alpha}. Use 1.")
    slope = 1.0 if isinstance(module, nn.CELU) else max(1.0, abs(alpha))
    return Claim(slope, "largest slope", rounding=Rounding(32, slope, abs(alpha)))


def _softplus_claim(module: nn.Softplus) -> Claim:
    r"""log(1 + e^{βt})/β. Where βt exceeds a threshold, torch takes t for it: that is a matter of rounding.

    The values differ by log(1 + e^{−βt})/β there, which the offset covers: γ_32 is at least 2^{-48}. A threshold at
    which they differ by more than float32 rounding makes a different function, with a jump and no Lipschitz constant.
    """
    if not (math.isfinite(module.beta) and module.beta != 0 and 15 <= module.threshold < math.inf):
        raise UncertifiableError(
            "beta must be finite and not 0, and threshold finite and at least 15, below which torch's softplus jumps; "
            f"not {module.beta} and {module.threshold}. Use the default, 20."
        )
    jump = math.log1p(math.exp(-module.threshold)) / abs(module.beta)
    rounding = Rounding(32, 1.0, (1 + 2.0**-40) * (1 / abs(module.beta) + 2.0**48 * jump))
    return Claim(1.0, "largest slope; torch's threshold counts as rounding", rounding=rounding)


def _leaky_relu_claim(module: nn.LeakyReLU) -> Claim:
    if not math.isfinite(module.negative_slope):
        raise InputError(f"negative_slope must be finite, not {module.negative_slope}.")
    slope = max(1.0, abs(module.negative_slope))
    return Claim(slope, "largest slope", rounding=Rounding(1, slope))


def _prelu_claim(module: nn.PReLU) -> Claim:
    upper_bound_vector_norm(module.weight)  # refuses what is not finite
    slope = max(1.0, module.weight.detach().abs().max().item())
    axes = ANY_AXES if module.weight.numel() == 1 else CHANNELS_FIRST
    return Claim(slope, "largest slope", rounding=Rounding(1, slope), axes=axes)


def _flatten_claim(module: nn.Flatten) -> Claim:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise UncertifiableError("nn.Flatten must flatten all but the first axis. Use nn.Flatten() with its defaults.")
    return Claim(1.0, "isometry", axes=CHANNELS_FIRST, axes_added=None)


def _unflatten_claim(module: nn.Unflatten) -> Claim:
    if module.dim != 1:
        raise UncertifiableError(f"nn.Unflatten must unflatten axis 1, not axis {module.dim}. Use Unflatten(shape).")
    return Claim(1.0, "isometry", ANY, ANY, axes=CHANNELS_FIRST, axes_added=len(module.unflattened_size) - 1)


def _refuse(module: nn.Module, remedy: str) -> NoReturn:
    raise UncertifiableError(f"{type(module).__name__} has no provable constant. {remedy}")


def _geometry(spatial: int, *values: int | Sequence[int]) -> list[list[int]]:
    """Each value as one number per spatial axis."""
    return [[value] * spatial if isinstance(value, int) else list(value) * (spatial // len(value)) for value in values]


def _images(spatial: int) -> range:
    """Axes of a sample: channels and `spatial` more. With fewer, torch takes the batch for channels."""
    return range(spatial + 1, spatial + 2)


def _pairs(padding: Sequence[int]) -> list[tuple[int, int]]:
    """torch's (before, after) of the last axis, then of the one before it, …, as pairs in order of the axes."""
    return list(zip(padding[::2], padding[1::2]))[::-1]


def _inverse_up(number: int) -> float:
    inverse = 1 / number
    return inverse if number & (number - 1) == 0 else math.nextafter(inverse, math.inf)


def _by_axes(
    claim: Callable[..., Claim], *modules: type[nn.Module], **arguments: str
) -> dict[type[nn.Module], Callable]:
    """An entry for each of the modules, which have one, two and three spatial axes."""
    return {module: partial(claim, spatial=spatial, **arguments) for spatial, module in enumerate(modules, start=1)}


_SLOPE_1 = Claim(1.0, "largest slope")

STOCK_CLAIMS: Mapping[type[nn.Module], Callable[[Any], Claim]] = MappingProxyType({
    nn.ChannelShuffle: lambda _: Claim(1.0, "isometry", ANY, ANY, axes=CHANNELS_FIRST[1:]),
    nn.Flatten: _flatten_claim,
    nn.GELU: _gelu_claim,
    nn.Hardtanh: lambda _: _SLOPE_1,
    nn.Identity: lambda _: Claim(1.0, "identity"),
    nn.LeakyReLU: _leaky_relu_claim,
    nn.Linear: _linear_claim,
    nn.PReLU: _prelu_claim,
    nn.ReLU: lambda _: _SLOPE_1,
    nn.ReLU6: lambda _: _SLOPE_1,
    nn.Softmax2d: partial(_softmax_claim, dim=-3),
    nn.Softplus: _softplus_claim,
    nn.Softshrink: lambda _: Claim(1.0, "largest slope", rounding=Rounding(1, 1.0)),
    nn.Unflatten: _unflatten_claim,
    **dict.fromkeys(_SMOOTH, _smooth_claim),
    **dict.fromkeys((nn.ELU, nn.CELU), _elu_claim),
    **dict.fromkeys((nn.Softmax, nn.Softmin), _softmax_claim),
    nn.LogSoftmax: partial(
        _refuse, remedy="It grows with the root of the number of entries, without bound. Use Softmax."
    ),
    **dict.fromkeys(
        (nn.PixelShuffle, nn.PixelUnshuffle), lambda _: Claim(1.0, "isometry", ANY, ANY, axes=CHANNELS_FIRST[2:])
    ),
    **dict.fromkeys((nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d), _upsample_claim),
    **_by_axes(_convolution_claim, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    **_by_axes(_transposed_claim, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    **_by_axes(_average_claim, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    **_by_axes(_adaptive_average_claim, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    **_by_axes(_maximum_claim, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    **_by_axes(_power_claim, nn.LPPool1d, nn.LPPool2d, nn.LPPool3d),
    **_by_axes(_padding_claim, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, padding_mode="zeros"),
    **_by_axes(_padding_claim, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d, padding_mode="zeros"),
    **_by_axes(_padding_claim, nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d, padding_mode="reflect"),
    **_by_axes(
        _padding_claim, nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d, padding_mode="replicate"
    ),
    **_by_axes(_padding_claim, nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d, padding_mode="circular"),
    nn.BatchNorm1d: partial(_batch_norm_claim, axes=range(1, 3)),
    nn.BatchNorm2d: partial(_batch_norm_claim, axes=range(3, 4)),
    nn.BatchNorm3d: partial(_batch_norm_claim, axes=range(4, 5)),
    nn.SyncBatchNorm: partial(_batch_norm_claim, axes=CHANNELS_FIRST),
    **dict.fromkeys(
        (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
        partial(_refuse, remedy="Its output differs between training and evaluation. Remove it."),
    ),
})  # fmt: skip
"""By class: what is proved about the module as it is, or the reason why nothing is. Do not add to it: derive from
:class:`LipschitzLayer` for a layer of your own."""

remember_members(*STOCK_CLAIMS)
