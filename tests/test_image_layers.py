"""Layers for images, against their dense matrices, Jacobians and exact arithmetic."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wgan_lip.lipschitz.bounds import Norm, gamma
from wgan_lip.lipschitz.certificates import certify, evaluate, weights_sha256
from wgan_lip.lipschitz.layers import (
    Conv2d,
    ConvGradientFlow,
    Flatten,
    L2Pool2d,
    Linear,
    MaxPool2d,
    Normalize,
    PixelShuffle,
    PixelUnshuffle,
    Retraction,
    ScaledAvgPool2d,
    Squeeze,
    Unflatten,
    constrain_steps,
)
from wgan_lip.lipschitz.layers.convolutions import Convolution
from wgan_lip.utils.checks import InputError


def dense(function, *shape):
    """The matrix of an affine map's linear part on samples of `shape`, from unit samples, float64."""
    size = math.prod(shape)
    with torch.no_grad():
        at_zero = function(torch.zeros(1, *shape, dtype=torch.float64))
        return (function(torch.eye(size, dtype=torch.float64).view(size, *shape)) - at_zero).flatten(1).mT


def norm(function, *shape):
    matrix = dense(function, *shape)
    return torch.linalg.matrix_norm(matrix, 2).item() if matrix.numel() else 0.0


def claimed(module):
    return module.claim().lipschitz


GEOMETRIES = [
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 2, "stride": 2, "padding": 1},
    {"kernel_size": (2, 3), "stride": (3, 3), "padding": (0, 1), "groups": 2},
    {"kernel_size": 2, "stride": 3, "dilation": 2, "padding": 2},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 2, "groups": 2},
    {"kernel_size": 2},
    {"kernel_size": (1, 4), "stride": (1, 2), "padding": (0, 2)},
    {"kernel_size": 3, "stride": 2, "dilation": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 2},
    {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    {"kernel_size": 3, "stride": 2, "padding": 1, "padding_mode": "circular"},
    {"kernel_size": 3, "stride": 3, "padding": 1, "padding_mode": "circular", "groups": 2},
    {"kernel_size": (2, 3), "dilation": (1, 2), "padding": (0, 2), "padding_mode": "circular"},
    {"kernel_size": 2, "stride": 2, "padding_mode": "circular"},
]
EVERY_GEOMETRY = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)


def fits(convolution, h, w):
    covered = all(n + 2 * p >= e for n, p, e in zip((h, w), convolution.padding, convolution.extent))
    return covered and all(n >= p for n, p in zip((h, w), convolution.padding))


def sizes(convolution):
    return [(h, w) for h, w in ((1, 1), (2, 3), (3, 3), (4, 5), (5, 4), (6, 6), (7, 5)) if fits(convolution, h, w)]


@EVERY_GEOMETRY
def test_a_convolution_is_torchs_own(geometry):
    layer, stock = Conv2d(2, 4, **geometry), nn.Conv2d(2, 4, **geometry)
    stock.load_state_dict(layer.state_dict())
    for h, w in sizes(layer.convolution):
        x = torch.randn(3, 2, h, w)
        assert torch.allclose(layer(x), stock(x), atol=1e-6)


@EVERY_GEOMETRY
def test_the_adjoint_is_the_transposed_matrix_at_every_size(geometry):
    """⟨Kx, y⟩ = ⟨x, Kᵀy⟩ for all x and y, on odd sizes, uncovered borders and wrapped margins."""
    convolution = Conv2d(2, 4, **geometry).convolution
    kernel = torch.randn_like(Conv2d(2, 4, **geometry).weight, dtype=torch.float64)
    assert sizes(convolution)
    for h, w in sizes(convolution):
        forwards = dense(lambda x: convolution(x, kernel), 2, h, w)
        shape = convolution(torch.zeros(1, 2, h, w, dtype=torch.float64), kernel).shape[1:]
        backwards = dense(lambda y: convolution.adjoint(y, kernel, (h, w)), *shape)  # noqa: B023
        assert torch.allclose(backwards, forwards.mT, atol=1e-12)


@EVERY_GEOMETRY
@pytest.mark.parametrize("weights", ["fresh", "noise", "retracted", "spiked", "huge", "rank one", "bfloat16"])
def test_the_claim_of_a_convolution_bounds_its_matrix_at_every_size(geometry, weights):
    layer = Conv2d(2, 2, **geometry)
    with torch.no_grad():
        if weights != "fresh":
            layer.weight.normal_()
        if weights == "spiked":
            layer.weight.view(-1)[0] = 1e6
        if weights == "huge":
            layer.weight.mul_(1e30)
        if weights == "rank one":
            layer.weight.copy_(layer.weight[:1, :1] * torch.tensor([1.0, -2.0]).view(2, 1, 1, 1))
        if weights in ("retracted", "spiked", "rank one"):
            Retraction(layer)()
    if weights == "bfloat16":
        layer = layer.bfloat16()
    limit = claimed(layer)
    layer = copy.deepcopy(layer).double()
    assert max(norm(layer, 2, h, w) for h, w in sizes(layer.convolution)) <= limit * (1 + 1e-12)
    if weights in ("fresh", "retracted", "spiked", "rank one"):
        assert limit <= 1


@EVERY_GEOMETRY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_retraction_repairs_any_kernel(geometry, dtype):
    for scale in (1e-30, 1e-6, 1.0, 1e30):
        layer = Conv2d(4, 6, **geometry).to(dtype)
        with torch.no_grad():
            layer.weight.normal_().mul_(scale)
        Retraction(layer)()
        assert layer.weight.isfinite().all()
        assert 0.0 < claimed(layer) <= 1


def test_a_wide_kernel_that_attains_its_bound_is_certified_in_double_precision():
    """A positive kernel has its largest response to a constant image, where no slack hides rounding."""
    layer = Conv2d(32, 32, 3, padding=1).double()
    nn.init.uniform_(layer.weight)
    Retraction(layer)()
    assert 1 - 1e-12 < claimed(layer) <= 1


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 2), (4, 2)])
def test_positive_kernels_attain_what_overlapping_windows_allow(stride, dilation):
    """A peer scales by the windows that overlap, but counts them as if taps were not dilated: 1.5 for 1."""
    layer = Conv2d(1, 1, 3, stride=stride, dilation=dilation).double()
    nn.init.ones_(layer.weight)
    Retraction(layer)()
    true = norm(layer, 1, 20, 20)
    assert true <= claimed(layer) <= 1
    assert true > 0.8


def test_retraction_reaches_kernels_in_any_memory_format():
    for geometry in ({"kernel_size": 2, "stride": 2}, {"kernel_size": 3}):
        layer = Conv2d(4, 4, **geometry).to(memory_format=torch.channels_last)
        with torch.no_grad():
            layer.weight.mul_(100)
        Retraction(layer)()
        assert 0.1 < claimed(layer) <= 1


def test_a_small_kernel_grows_back():
    """Rescaling that only shrank would leave a kernel stuck at the size a bad step gave it."""
    for geometry in ({"kernel_size": 2, "stride": 2}, {"kernel_size": 3, "padding": 1}):
        layer = Conv2d(3, 3, **geometry)
        with torch.no_grad():
            layer.weight.mul_(1e-3)
        retraction = Retraction(layer)
        for _ in range(30):
            retraction()
        assert 0.9 < claimed(layer) <= 1


def test_patches_and_single_pixels_keep_orthonormal_rows():
    for geometry in ({"kernel_size": 2, "stride": 2}, {"kernel_size": 1}, {"kernel_size": (1, 3), "stride": 3}):
        layer = Conv2d(4, 3, **geometry)
        with torch.no_grad():
            layer.weight.add_(0.1 * torch.randn_like(layer.weight))
        retraction = Retraction(layer)
        for _ in range(8):
            retraction()
        singular = torch.linalg.svdvals(dense(copy.deepcopy(layer).double(), 4, 4, 6))
        assert torch.allclose(singular[singular > 1e-6], torch.ones(()).double(), atol=1e-5)


def test_groups_count_by_their_largest_norm_not_by_their_product():
    """A peer multiplies the groups' norms: 0.75 for 2.24."""
    layer = Conv2d(2, 2, 2, stride=2, groups=2)
    with torch.no_grad():
        layer.weight[0] *= 2
        layer.weight[1] *= 0.1
    assert claimed(layer) == pytest.approx(2.0, rel=1e-5)
    assert norm(layer.double(), 2, 4, 4) == pytest.approx(2.0, rel=1e-5)


FLOWS = [g for g in GEOMETRIES if g not in ({"kernel_size": 1},)]


@pytest.mark.parametrize("geometry", FLOWS, ids=str)
@pytest.mark.parametrize("weights", ["fresh", "retracted", "tripled", "negative step"])
def test_no_slope_of_a_residual_layer_exceeds_its_claim(geometry, weights):
    layer = ConvGradientFlow(2, 4, **geometry)
    with torch.no_grad():
        if weights == "retracted":
            layer.weight.normal_().mul_(100)
            layer.tau.fill_(1e3)
            Retraction(layer)()
        if weights == "tripled":
            layer.weight.mul_(3)
        if weights == "negative step":
            layer.tau.fill_(-0.5)
    limit = claimed(layer)
    assert (limit <= 1) == (weights in ("fresh", "retracted"))
    layer = layer.double()
    for h, w in sizes(layer.convolution):
        x = torch.randn(4, 2, h, w, dtype=torch.float64)
        jacobians = torch.func.vmap(torch.func.jacrev(lambda image: layer(image[None])[0]))(x)
        slopes = torch.linalg.matrix_norm(jacobians.reshape(4, 2 * h * w, 2 * h * w), 2)
        assert slopes.max() <= limit * (1 + 1e-9)
        assert (jacobians.reshape(4, 2 * h * w, -1) - jacobians.reshape(4, 2 * h * w, -1).mT).abs().max() < 1e-9


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_folds_of_patches_keep_the_gradient_norm(shift):
    layer = ConvGradientFlow(3, 6, bias_scale=0.5, shift=shift)
    x = torch.randn(20, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(20, 3, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        layer.double().weight.copy_(nn.init.orthogonal_(torch.empty(6, 12)).view(6, 3, 2, 2))
    (layer(x) * direction).sum().backward()
    assert torch.allclose(x.grad.flatten(1).norm(dim=1), direction.flatten(1).norm(dim=1), rtol=1e-6)
    assert not torch.allclose(x.grad, direction)


def test_pixels_that_no_window_reaches_stay_as_they_are():
    layer = ConvGradientFlow(2, 8)
    x = torch.randn(5, 2, 5, 7)
    moved = layer(x) != x
    assert not moved[:, :, 4].any()
    assert not moved[:, :, :, 6].any()
    assert moved[:, :, :4, :6].any(dim=0).all()
    layer.shift = 1
    moved = layer(x) != x
    assert not moved[:, :, 0].any()
    assert not moved[:, :, :, 0].any()
    assert moved[:, :, 1:, 1:].any(dim=0).all()


def test_circular_flows_commute_with_shifts_and_shifted_patches_mix_across_borders():
    layer = ConvGradientFlow(2, 3, 3, stride=1, padding=1, padding_mode="circular")
    x = torch.randn(2, 2, 5, 6)
    assert torch.allclose(layer(x).roll((2, 1), (2, 3)), layer(x.roll((2, 1), (2, 3))), atol=1e-5)
    x.requires_grad_(True)
    stack = nn.Sequential(ConvGradientFlow(2, 8, bias_scale=0), ConvGradientFlow(2, 8, shift=1, bias_scale=0))
    stack(x)[:, :, 2, 2].sum().backward()
    assert (x.grad[:, :, :4, :4] != 0).float().mean() > 0.5  # four patches of the first layer meet in one of the second


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    groups=st.sampled_from([1, 2]),
    circular=st.booleans(),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    seed=st.integers(0, 99),
)
def test_retracted_kernels_have_norm_at_most_1_whatever_the_geometry(
    kernel, stride, dilation, padding, groups, circular, size, seed
):
    if circular:
        padding = tuple(min(p, d * (k - 1) // 2) for p, k, d in zip(padding, kernel, dilation))
    torch.manual_seed(seed)
    layer = Conv2d(
        2,
        4,
        kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
        padding_mode="circular" if circular else "zeros",
    ).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn_like(layer.weight) * 10 ** torch.randn_like(layer.weight))
        Retraction(layer)()
    assert claimed(layer) <= 1
    if fits(layer.convolution, *size):
        assert norm(layer, 2, *size) <= claimed(layer) * (1 + 1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2d(2, 2, 3, padding=2, padding_mode="circular"), "Circular padding must be at most"),
        (lambda: Conv2d(2, 2, 2, stride=2, padding=1, padding_mode="circular"), "Circular padding must be at most"),
        (lambda: Conv2d(2, 2, 3, padding_mode="reflect"), "zeros, circular"),
        (lambda: Conv2d(3, 2, 3, groups=2), "divisible by 2 groups"),
        (lambda: Conv2d(0, 2, 3), "Channels must be at least 1"),
        (lambda: ConvGradientFlow(2, 2, 0), "Sizes must be at least 1"),
        (lambda: ConvGradientFlow(2, 2, shift=-1), "shift must be at least 0"),
        (lambda: Conv2d(2, 2, 3, padding=-1), "padding at least 0"),
        (lambda: Conv2d(2, 2, (3, 3, 3)), "one number, or two"),
        (lambda: ScaledAvgPool2d(0), "at least 1"),
        (lambda: PixelUnshuffle(0), "at least 1"),
        (lambda: Unflatten((2, 0)), "at least 1"),
        (lambda: Normalize([0.0], [0.0]), "positive and finite"),
        (lambda: Normalize([0.0], [math.inf]), "positive and finite"),
        (lambda: Normalize([math.nan], [1.0]), "finite"),
        (lambda: Normalize([0.0, 1.0], [1.0]), "one entry for each channel"),
        (lambda: Normalize(0.0, 1.0), r"Write \[0.5\]"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


# --- pooling and structure ---


@pytest.mark.parametrize("kernel", [1, 2, 3, (2, 3)])
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (3, 3)])
def test_scaled_average_pooling_has_constant_exactly_1(kernel, size):
    """Also where the windows don't divide the image; a peer's ceil_mode has 2.0 there."""
    layer = ScaledAvgPool2d(kernel)
    assert norm(layer, 2, *size) == pytest.approx(1.0, rel=1e-12)
    assert claimed(layer) == 1.0


@pytest.mark.parametrize("make", [L2Pool2d, MaxPool2d, ScaledAvgPool2d])
@pytest.mark.parametrize("kernel", [2, (1, 3)])
def test_pooling_is_nonexpansive_and_drops_what_fills_no_window(make, kernel):
    layer = make(kernel)
    x, y = torch.randn(2, 500, 2, 5, 7, dtype=torch.float64)
    y[:250] = x[:250] + 1e-4 * y[:250]
    y[250:] *= 10
    moved = (layer(x) - layer(y)).flatten(1).norm(dim=1)
    assert (moved <= claimed(layer) * (x - y).flatten(1).norm(dim=1) * (1 + 1e-9)).all()
    p, q = layer.kernel_size
    beyond = x.clone()
    beyond[:, :, 5 // p * p :] += 1
    beyond[:, :, :, 7 // q * q :] += 1
    assert torch.equal(layer(beyond), layer(x))
    assert layer(x).shape[2:] == (5 // p, 7 // q)


def test_pooling_computes_what_it_says():
    x = torch.tensor([[[[3.0, 4.0, 1.0], [0.0, -5.0, 1.0]]]])
    assert MaxPool2d(2)(x).item() == 4.0
    assert ScaledAvgPool2d(2)(x).item() == 1.0
    assert L2Pool2d(2)(x).item() == pytest.approx(math.sqrt(50))
    assert torch.equal(L2Pool2d((1, 2))(x).flatten(), torch.tensor([5.0, 5.0]))


def test_the_norm_of_a_window_has_a_finite_gradient_at_zero_and_a_unit_one_elsewhere():
    x = torch.zeros(1, 1, 2, 4)
    x[..., 2:] = torch.tensor([[1e-20, 0], [2e-20, 0]])
    x.requires_grad_(True)
    L2Pool2d(2)(x).sum().backward()
    assert torch.equal(x.grad[..., :2], torch.zeros(1, 1, 2, 2))
    assert x.grad.isfinite().all()
    y = torch.randn(3, 2, 4, 4, requires_grad=True)
    L2Pool2d(2)(y)[:, 0, 0, 0].sum().backward()
    assert torch.allclose(y.grad.flatten(1).norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(
    ("layer", "shape"), [(PixelUnshuffle(2), (3, 4, 6)), (PixelShuffle(3), (9, 2, 1)), (Unflatten((2, 3, 2)), (12,))]
)
def test_structure_is_an_isometry(layer, shape):
    matrix = dense(layer, *shape)
    assert torch.equal(matrix.mT @ matrix, torch.eye(matrix.shape[1], dtype=torch.float64))
    assert claimed(layer) == 1.0


def test_shuffles_and_flattening_undo_one_another():
    x = torch.randn(4, 2, 6, 4)
    assert torch.equal(PixelShuffle(2)(PixelUnshuffle(2)(x)), x)
    assert torch.equal(Unflatten((2, 6, 4))(Flatten(48)(x)), x)


def test_normalising_states_a_certificate_in_raw_units():
    """A critic behind (x − 0.5)/0.25 is four times steeper in raw pixels; the hash covers mean and std."""
    critic = nn.Sequential(Flatten(4), Linear(Norm((4,)), Norm((1,))), Squeeze())
    raw = nn.Sequential(Unflatten((1, 2, 2)), Normalize([0.5], [0.25]), *critic)
    assert certify(raw).lipschitz == pytest.approx(4 * certify(critic).lipschitz, rel=1e-12)
    assert certify(raw).lipschitz >= 4 * certify(critic).lipschitz
    x = torch.rand(7, 4)
    assert torch.allclose(raw(x), critic((x - 0.5) / 0.25), atol=1e-6)
    other = nn.Sequential(Unflatten((1, 2, 2)), Normalize([0.4], [0.25]), *critic)
    assert weights_sha256(other) != weights_sha256(raw)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=4))
def test_the_inverse_of_the_smallest_std_is_rounded_up(stds):
    from fractions import Fraction

    layer = Normalize(torch.zeros(len(stds)), torch.ones(len(stds))).double()
    layer.std.copy_(torch.tensor(stds, dtype=torch.float64))
    exact = 1 / Fraction(layer.std.min().item())
    assert exact <= Fraction(claimed(layer)) <= exact * (1 + Fraction(1, 2**50))


def test_no_channel_is_repeated_to_meet_a_mean():
    """Broadcast to three channels, one of images would grow by √3."""
    layer = Normalize([0.0] * 3, [1.0] * 3)
    for shape in ((2, 1, 2, 2), (2, 1), (2, 2)):
        with pytest.raises(InputError, match="3 channels"):
            layer(torch.zeros(shape))
    assert Normalize([1.0], [0.5])(torch.zeros(2, 3)).shape == (2, 3)


def test_what_stands_in_place_of_a_convolution_is_refused():
    class Tenfold(Convolution):
        def __call__(self, *arguments):
            return 10 * super().__call__(*arguments)

    for layer in (Conv2d(1, 1, 2), ConvGradientFlow(1, 1)):
        layer.convolution = Tenfold(*dataclasses.asdict(layer.convolution).values())
        with pytest.raises(InputError, match="Convolution is now a Tenfold"):
            certify(layer)


def test_a_kernel_size_set_later_changes_map_and_claim_together():
    layer = ScaledAvgPool2d(2)
    layer.kernel_size = (1, 3)
    assert norm(layer, 1, 2, 6) == pytest.approx(1.0)


def test_the_error_of_a_residual_layer_counts_underflow_before_a_large_step():
    """x − τw·relu(wx) with wx below the smallest number and τw far above 1."""
    flow = ConvGradientFlow(1, 1, 1).double()
    critic = nn.Sequential(Unflatten((1, 1, 1)), flow, Flatten(1), Squeeze())
    w, tau, x = 1e-40, 1e100, 1e-284
    with torch.no_grad():
        flow.weight.fill_(w)
        flow.bias.zero_()
        flow.tau.fill_(tau)
    found = evaluate(critic, torch.tensor([[x]], dtype=torch.float64))
    truth = Fraction(x) - Fraction(tau) * Fraction(w) ** 2 * Fraction(x)
    assert abs(truth - Fraction(found.values.item())) <= found.error.item() < 1e-200


def test_the_error_of_a_residual_layer_counts_weights_that_underflow_under_a_huge_bias():
    flow = ConvGradientFlow(1, 1, 1).double()
    tiny = 5e-324
    with torch.no_grad():
        flow.weight.fill_(3 * tiny)
        flow.bias.fill_(1e300)
        flow.tau.fill_(0.5)
    rounding = flow.claim().rounding
    exact = -Fraction(0.5) * Fraction(3 * tiny) * Fraction(1e300)
    error = abs(Fraction(flow(torch.zeros(1, 1, 1, 1, dtype=torch.float64)).item()) - exact)
    assert error > Fraction(1e-16) * abs(exact), "the case must underflow"
    assert error <= Fraction(gamma(rounding.operations)) * Fraction(rounding.offset)


@pytest.mark.parametrize("shape", [(2, 4, 6), (2, 5, 7), (2, 2, 3)])
def test_windows_that_tile_an_image_are_those_of_a_convolution(shape):
    layer = Conv2d(2, 3, (2, 3), stride=(2, 3)).double()
    torch.nn.init.uniform_(layer.bias)
    x = torch.randn(4, *shape, dtype=torch.float64)
    found = layer(x)
    assert torch.allclose(found, F.conv2d(x, layer.weight, layer.bias, (2, 3)), atol=1e-14)
    y = torch.randn_like(found)
    adjoint = layer.convolution.adjoint(y, layer.weight, shape[1:])
    forward = found - layer.bias.view(1, -1, 1, 1)
    assert (adjoint * x).sum().item() == pytest.approx((y * forward).sum().item(), rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 3, 8), (2, 8, 3)])
def test_images_that_tiles_do_not_fit_are_refused(shape):
    with pytest.raises(InputError, match=re.escape(f"h at least 4 and w at least 4, not {(5, *shape)}")):
        Conv2d(2, 3, 4, stride=4)(torch.zeros(5, *shape))


def test_normalising_acts_on_channels_of_rows_and_images():
    layer = Normalize([1.0, 2.0], [0.5, 4.0])
    assert torch.equal(layer(torch.tensor([[1.0, 6.0]])), torch.tensor([[0.0, 1.0]]))
    assert torch.equal(layer(torch.ones(1, 2, 2, 2))[0, :, 0, 0], torch.tensor([0.0, -0.25]))


# --- rounding ---


@pytest.mark.parametrize(
    "layer",
    [
        Conv2d(2, 4, 3, padding=1),
        Conv2d(2, 4, 3, padding=1, stride=2, padding_mode="circular", groups=2),
        Conv2d(2, 3, 2, stride=2, padding=1),
        ScaledAvgPool2d((2, 3)),
        Normalize([0.3, 1e3], [0.7, 3.0]),
    ],
    ids=str,
)
def test_rounding_of_affine_layers_stays_within_the_stated_bound(layer):
    """Against the dense matrix, whose entries are single products and so exact, times x with 64 bits of mantissa."""
    layer = copy.deepcopy(layer).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    linear = copy.deepcopy(layer)
    if hasattr(linear, "bias"):
        nn.init.zeros_(linear.bias)
    if isinstance(linear, Normalize):
        linear.mean.zero_()
    shape = (2, 5, 6)
    matrix = dense(linear, *shape).numpy().astype(np.longdouble)
    at_zero = layer(torch.zeros(1, *shape, dtype=torch.float64)).flatten().detach().numpy().astype(np.longdouble)
    x = torch.randn(300, 60, dtype=torch.float64) * 10.0 ** torch.randint(-3, 4, (300, 1))
    values = layer(x.view(-1, *shape)).detach()
    error = values.flatten(1).numpy() - (x.numpy().astype(np.longdouble) @ matrix.T + at_zero)
    error = np.sqrt(np.square(error).sum(axis=1)).astype(np.float64)
    rounding = layer.claim().rounding
    positions = max(30, math.prod(values.shape[2:]))
    allowed = gamma(rounding.operations) * (rounding.gain * x.norm(dim=1) + rounding.offset * math.sqrt(positions))
    assert (torch.from_numpy(error) <= allowed).all()
    assert error.max() > 0


@pytest.mark.parametrize("padding", [0, 2])
def test_rounding_of_residual_layers_and_norms_stays_within_the_stated_bound(padding):
    """Against the formula in 64 bits of mantissa, with dense matrices of K."""
    flow = ConvGradientFlow(2, 3, (2, 3), stride=1, padding=padding, bias_scale=2.0).double()
    with torch.no_grad():
        flow.weight.mul_(100)  # so that the rounding of K dwarfs that of x
    matrix = dense(lambda x: flow.convolution(x, flow.weight), 2, 4, 5).numpy().astype(np.longdouble)
    windows = matrix.shape[0] // 3
    bias = flow.bias.detach().numpy().astype(np.longdouble).repeat(windows)
    x = torch.randn(300, 40, dtype=torch.float64) * 10.0 ** torch.randint(-3, 4, (300, 1))
    wide = x.numpy().astype(np.longdouble)
    exact = wide - flow.tau.item() * np.maximum(wide @ matrix.T + bias, 0) @ matrix
    pooled = L2Pool2d((2, 5))
    with torch.no_grad():
        for layer, reference in (
            (flow, exact),
            (pooled, np.sqrt(np.square(wide.reshape(-1, 2, 2, 2, 5)).sum(axis=(3, 4))).reshape(-1, 4)),
        ):
            values = layer(x.view(-1, 2, 4, 5)).flatten(1).numpy()
            error = np.sqrt(np.square(values - reference).sum(axis=1)).astype(np.float64)
            rounding = layer.claim().rounding
            offset = rounding.offset * math.sqrt(20)
            allowed = gamma(rounding.operations) * (rounding.gain * x.norm(dim=1) + offset)
            assert (torch.from_numpy(error) <= allowed).all()
            assert error.max() > 0


def test_the_norm_of_tiny_windows_is_within_its_rounding():
    """Squares of 1e-200 vanish; the offset pays for it."""
    layer = L2Pool2d(2)
    x = torch.full((1, 1, 2, 2), 1e-200, dtype=torch.float64)
    rounding = layer.claim().rounding
    missed = abs(layer(x).item() - 2e-200)
    assert missed > 0
    assert missed <= gamma(rounding.operations) * (rounding.gain * 2e-200 + rounding.offset * 2)


def test_evaluation_of_an_image_critic_brackets_its_float32_values():
    critic = nn.Sequential(
        Unflatten((1, 6, 6)),
        Conv2d(1, 4, 2, stride=2),
        ConvGradientFlow(4, 8),
        ConvGradientFlow(4, 8, padding=1),
        Flatten(36),
        Linear(Norm((36,)), Norm((1,))),
        Squeeze(),
    )
    x = torch.randn(50, 36)
    evaluation = evaluate(critic, x)
    assert torch.allclose(evaluation.values, critic(x).double(), atol=1e-5)
    assert evaluation.error.max() < 1e-10
    assert certify(critic).lipschitz <= 1


def test_training_an_image_critic_keeps_its_certificate():
    critic = nn.Sequential(
        Conv2d(1, 6, 3, padding=1),
        ConvGradientFlow(6, 6, 3, stride=1, padding=1),
        L2Pool2d(2),
        ConvGradientFlow(6, 12),
        Flatten(24),
        Linear(Norm((24,)), Norm((1,))),
        Squeeze(),
    )
    optimizer = torch.optim.Adam(critic.parameters(), lr=1.0)
    constrain_steps(optimizer, critic)
    x = torch.rand(32, 1, 4, 4)
    y = F.avg_pool2d(x, 3, 1, 1)
    for _ in range(5):
        optimizer.zero_grad()
        (critic(y).mean() - critic(x).mean()).backward()
        optimizer.step()
        assert certify(critic).lipschitz <= 1
