"""Convolutions: affine maps and residual layers on images of any size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wgan_lip.lipschitz.bounds import Norm, upper_bound_convolution_norm, upper_bound_vector_norm
from wgan_lip.lipschitz.layers.activations import Activation, as_activation
from wgan_lip.lipschitz.layers.base import (
    IMAGES,
    Claim,
    Kinks,
    LipschitzLayer,
    Rounding,
    Summary,
    check_images,
    new_bias,
    no_kinks,
)
from wgan_lip.lipschitz.layers.constraints import BoundedConvolution, Box, Constraint, SemiOrthogonal
from wgan_lip.lipschitz.layers.flows import euler_step_constant
from wgan_lip.lipschitz.layers.retraction import Retraction
from wgan_lip.utils.checks import InputError, UncertifiableError, check_choice

__all__ = ["Conv2d", "ConvGradientFlow", "Convolution", "summed_products", "upper_bound_absolute_norm"]

Pair = tuple[int, int]


@dataclass(frozen=True)
class Convolution:
    r"""A convolution K of images (b, c, h, w) with kernels (m, c/groups, p, q), and its adjoint Kᵀ, for every size.

    Arguments:
        kernel_size, stride, padding, dilation, groups: As in `torch.nn.Conv2d`, all of them pairs but `groups`.
        padding_mode: `zeros` or `circular`.

    Raises:
        InputError: Sizes out of range, or circular padding that is so wide that outputs repeat.
    """

    kernel_size: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    padding_mode: str

    def __post_init__(self) -> None:
        check_choice(self.padding_mode, ["zeros", "circular"], "padding_mode")
        if min(*self.kernel_size, *self.stride, *self.dilation, self.groups, *(p + 1 for p in self.padding)) < 1:
            raise InputError(f"Sizes must be at least 1 and padding at least 0, not {self}.")
        if self.padding_mode == "circular" and any(2 * p >= e for p, e in zip(self.padding, self.extent)):
            raise InputError(
                f"Circular padding must be at most {tuple((e - 1) // 2 for e in self.extent)}, not {self.padding}: "
                "more would repeat outputs, which the bound on the kernel does not cover."
            )

    @property
    def extent(self) -> Pair:
        """Height and width that the taps of a kernel span."""
        (p, q), (vertical, horizontal) = self.kernel_size, self.dilation
        return vertical * (p - 1) + 1, horizontal * (q - 1) + 1

    @property
    def wraps(self) -> bool:
        return self.padding_mode == "circular" and self.padding != (0, 0)

    @property
    def disjoint(self) -> bool:
        """Whether no two windows share a pixel, so that the norm of K is that of the kernel as a matrix."""
        return not self.wraps and all(e <= s for e, s in zip(self.extent, self.stride))

    @property
    def meeting_stride(self) -> Pair:
        """Distances between windows are multiples of it; wrapped round an image of any size, they take any value."""
        return (1, 1) if self.wraps else self.stride

    @property
    def tiles(self) -> bool:
        """Whether windows are tiles of the image, so that K is one product of matrices on all of them."""
        return (
            self.stride == self.kernel_size and self.dilation == (1, 1) and self.padding == (0, 0) and self.groups == 1
        )

    def __call__(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None, *, shift: int = 0) -> Tensor:
        """K x + b, where no window reaches the first `shift` rows and columns of x."""
        if self.tiles:
            places = self._places(x.shape, kernel, shift, x.device)  # (rows, columns, c, p, q)
            tiles = x.flatten(1).index_select(1, places.flatten()).view(-1, kernel[0].numel())
            found = F.linear(tiles, kernel.flatten(1), bias)
            return found.unflatten(0, (-1, *places.shape[:2])).permute(0, 3, 1, 2)
        x = x[:, :, shift:, shift:]
        vertical, horizontal = padding = self.padding
        if self.wraps:
            x = F.pad(x, (horizontal, horizontal, vertical, vertical), mode="circular")
            padding = (0, 0)
        return F.conv2d(x, kernel, bias, self.stride, padding, self.dilation, self.groups)

    def _places(self, shape: Sequence[int], kernel: Tensor, shift: int, device: torch.device) -> Tensor:
        """Where a row of c·h·w entries holds those of each tile: selecting them is faster than strided copies."""
        (p, q), (c, h, w) = self.kernel_size, shape[1:]
        if c != kernel.shape[1] or h < p + shift or w < q + shift:
            raise InputError(
                f"Images must have shape (b, {kernel.shape[1]}, h, w), h at least {p + shift} and w at least "
                f"{q + shift}, not {tuple(shape)}."
            )
        places = torch.arange(c * h * w, device=device).view(c, h, w)
        places = places[:, shift : h - (h - shift) % p, shift : w - (w - shift) % q]
        return places.unflatten(2, (-1, q)).unflatten(1, (-1, p)).permute(1, 3, 0, 2, 4)

    def adjoint(self, y: Tensor, kernel: Tensor, size: Pair) -> Tensor:
        """Kᵀ y, shape (b, c, *size), for y of the shape that K gives to images of that size."""
        if self.tiles:
            return self.plus_adjoint(y.new_zeros(y.shape[0], kernel.shape[1], *size), y, kernel)
        padding = (0, 0) if self.wraps else self.padding
        padded = [n + 2 * (p - q) for n, p, q in zip(size, self.padding, padding)]
        unseen = [
            (n + 2 * q - e) % s for n, q, e, s in zip(padded, padding, self.extent, self.stride)
        ]  # rows and columns at the end that no window reaches
        x = F.conv_transpose2d(y, kernel, None, self.stride, padding, unseen, self.groups, self.dilation)
        if self.wraps:
            for axis, n, p in zip((2, 3), size, self.padding):
                places = torch.arange(-p, n + p, device=x.device) % n
                shape = (*x.shape[:axis], n, *x.shape[axis + 1 :])
                x = x.new_zeros(shape).index_add(axis, places, x)
        return x

    def plus_adjoint(self, x: Tensor, y: Tensor, kernel: Tensor, *, shift: int = 0) -> Tensor:
        """x + Kᵀ y, where no window reaches the first `shift` rows and columns of x."""
        if self.tiles:
            places = self._places(x.shape, kernel, shift, x.device)
            tiles = y.permute(0, 2, 3, 1).flatten(0, 2) @ kernel.flatten(1)
            return x.flatten(1).index_add(1, places.flatten(), tiles.view(x.shape[0], places.numel())).view(x.shape)
        step = self.adjoint(y, kernel, (x.shape[2] - shift, x.shape[3] - shift))
        return x + F.pad(step, (shift, 0, shift, 0))

    def new_kernel(self, channels_in: int, channels_out: int) -> Tensor:
        """A kernel to start from: semi-orthogonal on disjoint windows, else on one tap each (delta-orthogonal)."""
        if min(channels_in, channels_out) < 1 or channels_in % self.groups or channels_out % self.groups:
            raise InputError(
                f"Channels must be at least 1 and divisible by {self.groups} groups, not {channels_in} and "
                f"{channels_out}."
            )
        kernel = torch.zeros(channels_out, channels_in // self.groups, *self.kernel_size)
        for part in kernel.chunk(self.groups):
            if self.disjoint:
                nn.init.orthogonal_(part.flatten(1))
            else:
                centre = part[:, :, self.kernel_size[0] // 2, self.kernel_size[1] // 2]
                centre.copy_(nn.init.orthogonal_(torch.empty(centre.shape)))
        return kernel

    def upper_bound_norm(self, kernel: Tensor) -> float:
        """Bounds the norm of K from above, for images of every size."""
        return upper_bound_convolution_norm(
            kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            padding_mode=self.padding_mode,
        )

    def constraint(self, kernel: Tensor) -> Iterator[Constraint]:
        if self.disjoint:
            for part in kernel.chunk(self.groups):
                yield SemiOrthogonal(part)
        else:
            yield BoundedConvolution(kernel, self.meeting_stride, self.dilation, self.groups)

    def __str__(self) -> str:
        parts = [f"kernel_size={self.kernel_size}"]
        defaults = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, "padding_mode": "zeros"}
        parts += [f"{name}={getattr(self, name)}" for name, value in defaults.items() if getattr(self, name) != value]
        return ", ".join(parts)


class Conv2d(LipschitzLayer):
    r"""Affine convolution of norm at most 1, in the Euclidean norms of images of any size.

    .. math:: x \mapsto K x + b, \qquad \|K\| \le 1

    Disjoint windows (those no larger than the stride; 1 × 1 kernels among them) keep a semi-orthogonal kernel, which
    is tight. Kernels of overlapping windows are rescaled, row by row; see :class:`Retraction`.

    Arguments:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups: As in `torch.nn.Conv2d`.
        padding_mode: `zeros` or `circular`; circular padding no wider than (extent − 1)/2.

    Guarantee:
        A verified bound on ‖K‖ that holds for every size of image.

    References:
        Almost-orthogonal layers for efficient general-purpose Lipschitz networks (Prach, Lampert, 2022); Dynamical
        isometry and a mean field theory of CNNs (Xiao et al., 2018), for the start of overlapping kernels
    """

    summary = Summary("Kx + b", "Euclidean, any size", "‖K‖ on the torus")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        self.convolution = Convolution(
            _pair(kernel_size), _pair(stride), _pair(padding), _pair(dilation), groups, padding_mode
        )
        self.weight = nn.Parameter(self.convolution.new_kernel(in_channels, out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        Retraction(self)()

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(check_images(x), self.weight, self.bias)

    def claim(self) -> Claim:
        rounding = Rounding(
            operations=summed_products(self.weight, self.convolution.groups) + 4,
            gain=upper_bound_absolute_norm(self.weight, self.convolution.groups),
            offset=upper_bound_vector_norm(self.bias),
        )
        bound = _genuine(self.convolution).upper_bound_norm(self.weight)
        norm = Norm.euclidean()
        return Claim(bound, "norm of the convolution at any size", norm, norm, rounding, IMAGES)

    def constraints(self) -> Iterator[Constraint]:
        return self.convolution.constraint(self.weight)

    def kinks(self, width: int) -> Kinks:
        return no_kinks(width)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(2, 4, 2, stride=2, padding=1, groups=2), (2, 3, 3)
        yield cls(3, 2, 1), (3, 2, 1)
        yield cls(2, 2, 3, padding=1, dilation=(1, 2)), (2, 3, 3)
        yield cls(2, 1, 3, padding=1, stride=2, padding_mode="circular"), (2, 3, 4)

    def extra_repr(self) -> str:
        channels_out, channels_in = len(self.weight), self.weight.shape[1] * self.convolution.groups
        return f"{channels_in}, {channels_out}, {self.convolution}"


class ConvGradientFlow(LipschitzLayer):
    r"""Residual layer on images: one explicit Euler step of a negative gradient flow; see :class:`GradientFlow`.

    .. math:: \varphi(x) = x - \tau K^\top \sigma(K x + b), \qquad 0 \le \tau \le 2 / \|K\|^2

    K is a convolution and Kᵀ its adjoint. By default the windows are patches, stride = kernel size: K keeps orthonormal
    rows, so that with ReLU and τ = 2 (the start) the layer folds every patch and keeps the gradient norm. Pixels at the
    border that no window reaches stay as they are. Layers with different shifts mix patches; so does padding, but a
    window that hangs over the border has no orthonormal rows there, and the gradient shrinks.

    Arguments:
        channels: Channels c of the images (b, c, h, w), of any size.
        hidden: Rows of K at each position.
        kernel_size, padding, dilation, groups: As in `torch.nn.Conv2d`.
        stride: The kernel size by default.
        padding_mode: `zeros` or `circular`; circular padding no wider than (extent − 1)/2.
        shift: Rows and columns at the start that no window reaches.
        activation: A key of :data:`wgan_lip.lipschitz.layers.ACTIVATIONS`, `spline`, or an :class:`Activation` of
            width `hidden`.
        bias_scale: The biases start uniform in [−bias_scale, bias_scale], in the data's units.

    Guarantee:
        That of :class:`GradientFlow`, with B ≥ ‖K‖ verified for every size of image.

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), section 2
    """

    summary = Summary(
        "x − τKᵀσ(Kx + b), any kernel, stride, padding, dilation, groups", "Euclidean, any size", "max(1, τ‖K‖² − 1)"
    )

    def __init__(
        self,
        channels: int,
        hidden: int,
        kernel_size: int | Pair = 2,
        *,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        shift: int = 0,
        activation: str | Activation = "relu",
        bias_scale: float = 1.0,
    ) -> None:
        super().__init__()
        stride = kernel_size if stride is None else stride
        self.convolution = Convolution(
            _pair(kernel_size), _pair(stride), _pair(padding), _pair(dilation), groups, padding_mode
        )
        if shift < 0:
            raise InputError(f"shift must be at least 0, not {shift}.")
        self.shift = shift
        self.activation = as_activation(activation, hidden)
        self.weight = nn.Parameter(self.convolution.new_kernel(channels, hidden))
        self.bias = nn.Parameter(new_bias(hidden, bias_scale))
        self.tau = nn.Parameter(torch.tensor(2.0))
        Retraction(self)()

    def forward(self, x: Tensor) -> Tensor:
        slope = self.activation(self.convolution(check_images(x), self.weight, self.bias, shift=self.shift))
        # The weight has fewer entries than the slope, shape (b, m, …).
        return self.convolution.plus_adjoint(x, slope, -self.tau * self.weight, shift=self.shift)

    def claim(self) -> Claim:
        bound = _genuine(self.convolution).upper_bound_norm(self.weight)
        tau = self.tau.item()
        constant = euler_step_constant(tau, bound, self.activation)
        size = upper_bound_absolute_norm(self.weight, self.convolution.groups)
        steepest = max(1.0, self.activation.claim().lipschitz)
        # Along an axis, n pixels have at most n + 2p ≤ (1 + 2p)n windows.
        windows = math.sqrt(math.prod(1 + 2 * p for p in self.convolution.padding))
        slope = steepest * upper_bound_vector_norm(self.bias) + self.activation.at_zero() * math.sqrt(len(self.weight))
        slope += 1e-250  # for products that underflow before tau multiplies them
        rounding = Rounding(
            operations=2 * summed_products(self.weight, self.convolution.groups) + self.activation.roundings + 12,
            gain=1.01 * (1 + abs(tau) * size * size * steepest),
            offset=1.01 * windows * (abs(tau) * size + 1e-290) * slope,  # 1e-290 for entries of tau K that underflow
        )
        method = f"max(1, tau*B^2 - 1), tau = {tau:.6g}, B = {bound:.9g} at any size"
        return Claim(constant, method, Norm.euclidean(), Norm.euclidean(), rounding, IMAGES)

    def constraints(self) -> Iterator[Constraint]:
        yield from self.convolution.constraint(self.weight)
        yield Box(self.tau, 0.0, 2.0)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(1, 2, shift=1), (1, 4, 3)
        yield cls(2, 2, 3, stride=1, padding=1, activation="tanh"), (2, 3, 3)
        wrapped = cls(2, 4, (1, 3), stride=(1, 2), padding=(0, 1), groups=2, padding_mode="circular")
        yield wrapped, (2, 2, 4)

    def extra_repr(self) -> str:
        hidden, channels = len(self.weight), self.weight.shape[1] * self.convolution.groups
        shift = f", shift={self.shift}" if self.shift else ""
        return f"channels={channels}, hidden={hidden}, {self.convolution}{shift}"


def upper_bound_absolute_norm(kernel: Tensor, groups: int) -> float:
    r"""Bounds the norm of a convolution with all taps made positive, which its rounding is measured against.

    .. math:: \| |K| \|^2 \le \| |K| \|_1 \, \| |K| \|_\infty

    Arguments:
        kernel: Shape (m, c/groups, …), any number of spatial axes.
        groups: Number of groups.
    """
    taps = kernel.detach().cpu().double().abs().flatten(2).sum(dim=2).unflatten(0, (groups, -1))  # (g, m/g, c/g)
    rows, columns = taps.sum(dim=2).max().item(), taps.sum(dim=1).max().item()
    return 1.001 * math.sqrt(rows) * math.sqrt(columns)


def summed_products(kernel: Tensor, groups: int) -> int:
    """The most products that one entry of K x or Kᵀ y sums."""
    return max(kernel[0].numel(), kernel[:, 0].numel() // groups)


def _genuine(convolution: Convolution) -> Convolution:
    """The convolution, or an error if something else took its place, which may compute another map."""
    if type(convolution) is not Convolution:
        raise UncertifiableError(f"The layer's Convolution is now a {type(convolution).__name__}. Build a new layer.")
    return convolution


def _pair(value: int | Pair) -> Pair:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2:
        raise InputError(f"Give one number, or two for height and width, not {value}.")
    return pair
