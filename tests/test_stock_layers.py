"""Claims about torch's own modules, against their dense matrices at many sizes."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from contextlib import suppress
from fractions import Fraction

import flint
import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wgan_lip.lipschitz.bounds import gamma
from wgan_lip.lipschitz.certificates import certify, evaluate, verify
from wgan_lip.lipschitz.layers import ACTIVATIONS, STOCK_CLAIMS, Flatten, Squeeze, Unflatten
from wgan_lip.utils.checks import InputError, UncertifiableError

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch copies its input: no matter here


def dense(module, *shape):
    """The matrix of the module's linear part on samples of `shape`, float64: its columns are images of unit samples."""
    module = module.double()
    size = math.prod(shape)
    with torch.no_grad():
        at_zero = module(torch.zeros(1, *shape, dtype=torch.float64))
        return (module(torch.eye(size, dtype=torch.float64).view(size, *shape)) - at_zero).flatten(1).mT


def norm(module, *shape):
    return torch.linalg.matrix_norm(dense(module, *shape), 2).item()


def claimed(module):
    return certify(module).lipschitz


def largest_norm(module, shapes):
    """The largest norm over all shapes that torch accepts; fails where it accepts none."""
    norms = []
    for shape in shapes:
        try:
            norms.append(norm(module, *shape))
        except RuntimeError:  # an image that is smaller than a window, or than the padding allows
            continue
    return max(norms)


def images(channels, sizes=(1, 2, 3, 4, 5, 7)):
    return [(channels, h, w) for h, w in itertools.combinations_with_replacement(sizes, 2)]


MODES = ("zeros", "circular", "reflect", "replicate")
CONVOLUTIONS = [
    {"kernel_size": kernel, "padding": padding, "padding_mode": mode, **others}
    for mode in MODES
    for kernel, padding in ((3, 0), (3, 1), (3, 2), (2, 1), ((1, 4), (0, 2)), (5, "same"), (4, "same"))
    for others in ({}, {"stride": 2, "dilation": 2}, {"groups": 2}, {"stride": (2, 3)})
    if not (padding == "same" and "stride" in others)
]


@pytest.mark.parametrize("arguments", CONVOLUTIONS, ids=str)
def test_the_claim_of_a_convolution_bounds_its_matrix_at_every_size(arguments):
    module = nn.Conv2d(2, 2, **arguments)
    largest = largest_norm(module, images(2, (1, 3, 4, 6)))
    assert largest <= claimed(module) * (1 + 1e-12)
    assert claimed(module) <= 6 * largest


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_the_claim_of_a_convolution_along_one_axis_bounds_its_matrix(mode, stride, padding):
    module = nn.Conv1d(2, 4, 3, stride=stride, padding=padding, dilation=2, groups=2, padding_mode=mode)
    assert largest_norm(module, [(2, n) for n in range(1, 12)]) <= claimed(module) * (1 + 1e-12)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"stride": 2},
        {"stride": 2, "output_padding": 1, "padding": 1},
        {"stride": 2, "dilation": 3, "output_padding": 2},
        {"groups": 2, "padding": 2},
    ],
    ids=str,
)
def test_the_claim_of_a_transposed_convolution_bounds_its_matrix(arguments):
    for module, shapes in (
        (nn.ConvTranspose1d(4, 2, 3, **arguments), [(4, n) for n in range(1, 9)]),
        (nn.ConvTranspose2d(4, 2, 3, **arguments), images(4, (1, 2, 4))),
    ):
        largest = largest_norm(module, shapes)
        assert largest <= claimed(module) * (1 + 1e-12)
        assert claimed(module) <= 4 * largest


AVERAGES = [
    {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil, "count_include_pad": include}
    for kernel, stride in ((2, 2), (3, 3), (3, 1), (3, 2), (2, 3), (4, 3))
    for padding in (0, 1)
    for ceil in (False, True)
    for include in (False, True)
]


@pytest.mark.parametrize("arguments", AVERAGES, ids=str)
def test_the_claim_of_an_average_bounds_its_matrix_at_every_size(arguments):
    line = nn.AvgPool1d(**arguments)
    along_a_line = largest_norm(line, [(1, n) for n in range(1, 25)])
    assert along_a_line <= claimed(line) * (1 + 1e-12)
    assert claimed(line) <= 1.5 * along_a_line
    square = nn.AvgPool2d(**arguments)
    assert largest_norm(square, images(1)) <= claimed(square) * (1 + 1e-12)


def test_what_a_pixel_adds_to_averages_shows_at_small_sizes():
    """The claim enumerates a few sizes; here are far larger ones."""
    for arguments in AVERAGES:
        module = nn.AvgPool1d(**arguments)
        for n in range(25, 60):
            columns = F.avg_pool1d(torch.eye(n, dtype=torch.float64)[:, None], **arguments).sum(dim=2)
            assert math.sqrt(columns.max()) <= max(claimed(module), 1) * (1 + 1e-12)


def test_disjoint_averages_are_tight():
    assert claimed(nn.AvgPool2d(2)) == pytest.approx(0.5, rel=1e-12)
    assert claimed(nn.AvgPool2d(3)) == pytest.approx(1 / 3, rel=1e-12)
    assert claimed(nn.AvgPool1d(4)) == pytest.approx(0.5, rel=1e-12)
    assert claimed(nn.AvgPool2d((1, 3), stride=(1, 3))) == pytest.approx(1 / math.sqrt(3), rel=1e-12)


def test_partial_windows_of_an_average_do_not_shrink():
    """A peer scales ceil_mode averages by √4 and states 1: the last pixel of an odd image then doubles."""
    module = nn.AvgPool2d(2, ceil_mode=True)
    assert norm(module, 1, 3, 3) == pytest.approx(1.0)
    assert 1.0 <= claimed(module) <= 1 + 1e-9


@pytest.mark.parametrize("divisor", [1, 3, 4, 100])
def test_a_divisor_of_ones_own_scales_the_claim(divisor):
    """A peer states 1 for divisor_override=1 after scaling by √4; the plain module has 2."""
    for ceil in (False, True):
        module = nn.AvgPool2d(2, divisor_override=divisor, ceil_mode=ceil)
        assert norm(module, 1, 4, 4) == pytest.approx(2 / divisor)
        assert 2 / divisor <= claimed(module) <= 2 / divisor * (1 + 1e-12)


@pytest.mark.parametrize("kernel", [1, 2, 3, (2, 3)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_the_claim_of_a_maximum_is_the_most_windows_that_see_a_pixel(kernel, stride, dilation):
    """One pixel that is larger than all others shows in all windows that see it, and moves all of them."""
    module = nn.MaxPool2d(kernel, stride, dilation=dilation)
    most = 0.0
    for h, w in ((13, 13), (14, 15)):
        outputs = module(torch.eye(h * w).view(h * w, 1, h, w))
        most = max(most, outputs.flatten(1).norm(dim=1).max().item())
    assert claimed(module) == pytest.approx(most)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
def test_a_maximum_of_padding_alone_is_refused_and_no_other(dilation, ceil_mode):
    """There torch gives -inf, and differentiating it corrupts memory: MaxPool2d(2, 1, 1, 3) at 2 x 2 pixels aborts."""
    refused = 0
    for kernel, stride, padding in itertools.product((1, 2, 3, 4, 5), (1, 2, 3, 4), (0, 1, 2)):
        if 2 * padding > kernel:
            continue  # torch refuses it
        module = nn.MaxPool1d(kernel, stride, padding, dilation, ceil_mode=ceil_mode)
        smallest = []
        for size in range(1, 16):
            with suppress(RuntimeError), torch.no_grad():  # an image smaller than a window
                smallest.append(module(torch.zeros(1, 1, size)).min().item())
        if -math.inf in smallest:
            refused += 1
            with pytest.raises(UncertifiableError, match=r"on padding alone.* Pad in a layer before"):
                certify(nn.Sequential(module))
        else:
            assert claimed(module) >= 1
    assert (refused > 0) == (dilation > 1)
    with pytest.raises(UncertifiableError, match="MaxPool2d"):
        certify(nn.Sequential(nn.MaxPool2d((3, 2), 1, (0, 1), dilation=(1, 2))))


def test_dilated_windows_overlap_although_the_stride_is_the_kernel():
    """A peer lets MaxPool2d(2, 2, dilation=2) pass as 1-Lipschitz. Each of its windows of stride 1 repeats a pixel."""
    assert claimed(nn.MaxPool2d(2, 2, dilation=2)) == 2.0
    assert claimed(nn.MaxPool2d(2, 1, dilation=2)) == 2.0
    assert claimed(nn.MaxPool2d(2)) == 1.0


@pytest.mark.parametrize("make", [nn.MaxPool2d, lambda *a, **k: nn.LPPool2d(2, *a, **k)])
@pytest.mark.parametrize(("kernel", "stride"), [(2, None), (3, 2), (2, 1), ((1, 3), (2, 1))])
def test_the_claim_of_a_nonlinear_pool_bounds_its_slopes(make, kernel, stride):
    module = make(kernel, stride)
    x, y = torch.randn(2, 400, 2, 7, 6, dtype=torch.float64)
    y[:200] = x[:200] + 1e-3 * y[:200]
    quotient = (module(x) - module(y)).flatten(1).norm(dim=1) / (x - y).flatten(1).norm(dim=1)
    assert quotient.max() <= claimed(module) * (1 + 1e-9)
    impulse = torch.zeros(1, 2, 7, 6, dtype=torch.float64)
    impulse[0, 0, 2, 2] = 1
    assert module(impulse).norm() == pytest.approx(claimed(module))


PADDINGS = [
    make(padding)
    for make in (nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d)
    for padding in (0, 1, 2, (0, 2, 0, 0), (1, 0, 0, 2), (-1, 2, 0, -1), (0, 0, 1, 1))
    if not (make is nn.CircularPad2d and padding == (-1, 2, 0, -1))
] + [nn.ConstantPad2d((1, 0, 2, 1), 3.0), nn.ConstantPad1d(1, 2.0), nn.ReplicationPad1d((0, 3)), nn.CircularPad1d(2)]


@pytest.mark.parametrize("module", PADDINGS, ids=str)
def test_the_claim_of_a_padding_is_the_root_of_its_most_copies(module):
    line = type(module).__name__.endswith("1d")
    largest = largest_norm(module, [(1, n) for n in range(1, 9)] if line else images(1))
    assert largest <= claimed(module) * (1 + 1e-12)
    crops = min(module.padding) < 0
    assert claimed(module) <= largest * (1.3 if crops else 1 + 1e-9)


ISOMETRIES = {
    nn.PixelShuffle(2): (8, 3, 2),
    nn.PixelUnshuffle(2): (2, 4, 6),
    nn.ChannelShuffle(3): (6, 2, 2),
    nn.Unflatten(1, (2, 3)): (6, 2),
    nn.Flatten(): (3, 2, 2),
}


@pytest.mark.parametrize("module", ISOMETRIES, ids=str)
def test_shuffles_are_isometries(module):
    matrix = dense(module, *ISOMETRIES[module])
    assert torch.equal(matrix.mT @ matrix, torch.eye(matrix.shape[1], dtype=torch.float64))
    assert claimed(module) == 1.0


def test_a_mean_over_all_pixels_has_constant_at_most_1():
    for module, shapes in ((nn.AdaptiveAvgPool2d(1), images(2)), (nn.AdaptiveAvgPool1d(1), [(2, n) for n in (1, 5)])):
        assert largest_norm(module, shapes) == pytest.approx(1.0)
        assert claimed(module) == 1.0


SCALARS = [
    nn.CELU(0.7),
    nn.ELU(0.5),
    nn.ELU(-2.5),
    nn.GELU(),
    nn.GELU(approximate="tanh"),
    nn.Hardsigmoid(),
    nn.Hardswish(),
    nn.LogSigmoid(),
    nn.Mish(),
    nn.SELU(),
    nn.Sigmoid(),
    nn.SiLU(),
    nn.Softplus(beta=2.0),
    nn.Softplus(beta=-1.5),
    nn.Tanhshrink(),
    nn.Hardtanh(-0.5, 2.0),
    nn.LeakyReLU(-3.0),
    nn.PReLU(init=-2.0),
    nn.ReLU(),
    nn.ReLU6(),
    nn.Softshrink(0.3),
    nn.Softsign(),
    nn.Tanh(),
]


@pytest.mark.parametrize("module", SCALARS, ids=str)
def test_the_claim_of_a_function_of_one_variable_is_its_largest_slope(module):
    t = torch.linspace(-8, 8, 16001, dtype=torch.float64)
    slopes = module.double()(t).diff().abs() / t.diff()
    assert slopes.max().item() <= claimed(module) * (1 + 1e-9)
    assert slopes.max().item() == pytest.approx(claimed(module), rel=1e-3)


def test_padding_changed_after_construction_is_refused_where_torch_ignores_the_change():
    for mode in ("circular", "reflect", "replicate"):
        module = nn.Conv1d(1, 1, 3, padding=2, padding_mode=mode)
        module.padding = (0,)
        with pytest.raises(UncertifiableError, match="padding was changed to"):
            certify(module)
        module.padding = (2,)
        module._reversed_padding_repeated_twice = [2, 5]
        with pytest.raises(UncertifiableError, match="padding was changed to"):
            certify(module)


def test_other_arguments_changed_after_construction_change_the_claim():
    module = nn.Conv2d(1, 1, 3, stride=3, bias=False)
    nn.init.ones_(module.weight)
    module.stride, module.padding, module.dilation = (1, 1), (2, 2), (2, 2)
    assert norm(module, 1, 9, 9) <= claimed(module)
    pool = nn.MaxPool2d(2)
    pool.stride = 1
    assert claimed(pool) == 2.0
    linear = nn.Linear(5, 1)
    linear.in_features = 2
    assert certify(linear).norm_in == "Euclidean(5)"


def test_claims_of_images_do_not_depend_on_the_default_device_or_dtype():
    module = nn.Sequential(nn.Conv2d(2, 2, 3), nn.AvgPool2d(3, 2, ceil_mode=True))
    expected = claimed(module)
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float16)
    try:
        assert claimed(module) == expected
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


REFUSED = {
    "BatchNorm2d": (nn.BatchNorm2d(2), "depends on the batch. Use Normalize"),
    "Dropout2d": (nn.Dropout2d(), "between training and evaluation. Remove it"),
    "BatchNorm2d without statistics": (nn.BatchNorm2d(2, track_running_stats=False).eval(), "running statistics"),
    "CELU": (nn.CELU(-1.0), "for CELU above 0"),
    "GLU": (nn.GLU(), "GLU has no provable constant"),
    "LogSoftmax": (nn.LogSoftmax(1), "without bound. Use Softmax"),
    "Softmax over the batch": (nn.Softmax(0), "may be the batch"),
    "Softmax by rank": (nn.Softmax(), "may be the batch"),
    "Softplus without a slope": (nn.Softplus(beta=0.0), "beta must be finite and not 0"),
    "Softplus with a jump": (nn.Softplus(beta=10.0, threshold=0.1), "at least 15, below which torch's softplus jumps"),
    "Upsample to a size": (nn.Upsample(size=7), "integer scale_factor"),
    "Upsample by a fraction": (nn.Upsample(scale_factor=1.5), "integer scale_factor"),
    "Upsample to the corners": (nn.UpsamplingBilinear2d(scale_factor=2), "align_corners=False"),
    "bicubic": (nn.Upsample(scale_factor=2, mode="bicubic"), "mode='nearest'"),
    "uneven copies": (nn.Upsample(scale_factor=41), "copy pixels evenly"),
    "Hardshrink": (nn.Hardshrink(), "Hardshrink has no provable constant"),
    "indices": (nn.MaxPool2d(2, return_indices=True), "return_indices=False"),
    "cubic pool": (nn.LPPool2d(3, 2), "norm_type=2"),
    "partial pool": (nn.LPPool2d(2, 2, ceil_mode=True), "ceil_mode=False"),
    "adaptive": (nn.AdaptiveAvgPool2d((1, 2)), "output_size=1"),
    "adaptive to the input": (nn.AdaptiveAvgPool2d((None, 1)), "output_size=1"),
    "unflatten the batch": (nn.Unflatten(0, (1, 2)), "axis 1"),
    "unset memory": (nn.CircularPad2d((-1, 2, 0, 0)), "at least 0, not .*Crop in a layer before"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_proof_is_refused_with_a_remedy(name):
    module, message = REFUSED[name]
    with pytest.raises(UncertifiableError, match=message):
        certify(nn.Sequential(module))


def test_a_weight_that_is_not_finite_is_refused():
    for module in (nn.Conv2d(1, 1, 2), nn.ConvTranspose2d(1, 1, 2), nn.PReLU()):
        for value in (math.nan, math.inf):
            nn.init.constant_(module.weight, value)
            with pytest.raises(ValueError, match="finite"):
                certify(module)


@pytest.mark.parametrize("arguments", CONVOLUTIONS, ids=str)
def test_rounding_of_a_convolution_is_relative_to_its_absolute_products(arguments):
    module = nn.Conv2d(2, 2, **arguments, bias=False)
    gain = STOCK_CLAIMS[nn.Conv2d](module).rounding.gain
    with torch.no_grad():
        module.weight.abs_()
    assert largest_norm(module, images(2, (1, 2, 3, 4, 6))) <= gain


def test_the_norm_of_tiny_windows_is_within_its_rounding():
    """Their squares vanish."""
    critic = nn.Sequential(Unflatten((1, 2, 2)), nn.LPPool2d(2, 2), Flatten(1), Squeeze())
    found = evaluate(critic, torch.full((1, 4), 1e-170, dtype=torch.float64))
    assert abs(found.values.item() - 2e-170) <= found.error.item() < 1e-140


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(2, 3, 3, padding=2, padding_mode="circular"),
        nn.Conv2d(2, 4, (3, 2), stride=2, groups=2, padding=(2, 1), padding_mode="replicate"),
        nn.ConvTranspose2d(2, 4, 3, stride=2, groups=2, output_padding=1),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(2, divisor_override=3),
        nn.AdaptiveAvgPool2d(1),
    ],
    ids=str,
)
def test_rounding_stays_within_the_stated_bound(module):
    """Against the dense matrix, whose entries are single products and so exact, times x with 64 bits of mantissa."""
    module = copy.deepcopy(module).double()
    matrix = dense(module, 2, 5, 5).numpy().astype(np.longdouble)
    at_zero = module(torch.zeros(1, 2, 5, 5, dtype=torch.float64)).flatten().detach().numpy().astype(np.longdouble)
    x = torch.randn(200, 50, dtype=torch.float64) * 10.0 ** torch.randint(-3, 4, (200, 1))
    values = module(x.view(-1, 2, 5, 5)).detach()
    error = values.flatten(1).numpy() - (x.numpy().astype(np.longdouble) @ matrix.T + at_zero)
    error = np.sqrt(np.square(error).sum(axis=1)).astype(np.float64)
    rounding = STOCK_CLAIMS[type(module)](module).rounding
    positions = max(25, math.prod(values.shape[2:]))
    allowed = gamma(rounding.operations) * (rounding.gain * x.norm(dim=1) + rounding.offset * math.sqrt(positions))
    assert (torch.from_numpy(error) <= allowed).all()
    assert error.max() > 0


def test_evaluation_bounds_cover_images():
    """The values in float64, plus and minus their error bounds, hold the values of the same critic with 50 digits."""
    critic = nn.Sequential(
        Unflatten((1, 4, 4)),
        nn.Conv2d(1, 2, 3),
        nn.LPPool2d(2, 2),
        nn.Softsign(),
        Flatten(2),
        nn.Linear(2, 1),
        Squeeze(),
    ).double()
    x = torch.randn(5, 16, dtype=torch.float64)
    evaluation = evaluate(critic, x)
    kernel, bias, weight, shift = (p.detach() for p in critic.parameters())
    for row, value, error in zip(x.view(-1, 4, 4), evaluation.values, evaluation.error):
        with mpmath.workdps(50):
            total = mpmath.mpf(shift.item())
            for channel in range(2):
                squares = [
                    mpmath.fsum(
                        mpmath.mpf(kernel[channel, 0, i, j].item()) * mpmath.mpf(row[u + i, v + j].item())
                        for i in range(3)
                        for j in range(3)
                    )
                    + mpmath.mpf(bias[channel].item())
                    for u in range(2)
                    for v in range(2)
                ]
                pooled = mpmath.sqrt(mpmath.fsum(t**2 for t in squares))
                total += mpmath.mpf(weight[0, channel].item()) * pooled / (1 + pooled)
            assert abs(total - mpmath.mpf(value.item())) <= error.item()
            assert error < 1e-12


@pytest.mark.parametrize(
    ("mode", "kernel", "padding"), [("reflect", 3, 1), ("replicate", 3, 2), ("replicate", 5, 2), ("circular", 3, 2)]
)
def test_padding_that_repeats_pixels_counts(mode, kernel, padding):
    """Peers ignore it, and state 1 for these mean filters."""
    module = nn.Conv2d(1, 1, kernel, padding=padding, padding_mode=mode, bias=False)
    nn.init.constant_(module.weight, 1 / kernel**2)
    limit = claimed(module)
    largest = largest_norm(module, [(1, n, n) for n in range(2, 8)])
    assert 1.05 < largest <= limit <= 5 * largest


def test_even_kernels_and_groups_are_bounded_as_torch_applies_them():
    for module in (nn.Conv2d(2, 2, 2, padding=1), nn.Conv2d(2, 2, 4, padding=2), nn.Conv2d(4, 4, 2, groups=4)):
        channels = module.in_channels
        assert largest_norm(module, images(channels, (3, 6))) <= claimed(module)
    with torch.no_grad():
        module.weight.zero_()[0] = 1.0
        module.weight[1] = 0.5  # a product of the groups' norms would be 0
    assert claimed(module) == pytest.approx(4.0, rel=1e-2)


# Smooth activations


def tanh(t):
    return 1 - 2 / (1 + (2 * t).exp())


SMOOTH = {  # as ball arithmetic takes them
    nn.GELU(): lambda t: t * (1 + (t / flint.arb(2).sqrt()).erf()) / 2,
    nn.GELU(approximate="tanh"): lambda t: (
        t * (1 + tanh((2 / flint.arb.pi()).sqrt() * (t + flint.arb(0.044715) * t * t * t))) / 2
    ),
    nn.Mish(): lambda t: t * (1 - 2 / (1 + (1 + t.exp()) * (1 + t.exp()))),
    nn.SiLU(): lambda t: t / (1 + (-t).exp()),
}


@pytest.mark.parametrize("module", SMOOTH, ids=str)
def test_the_slope_of_a_smooth_activation_is_proved_by_ball_arithmetic(module):
    """With derivatives s, s₁, s₂ of σ', |s(t)| ≤ |s(c)| + |s₁(c)| r + ½ max|s₂| r² on |t − c| ≤ r; else it is halved.

    Beyond ±12, σ'(t) is within 0.01 of 0 on the left and of 1 on the right: the tails fall like (1 + t²) e^{-|t|}.
    """
    limit = flint.arb(claimed(module))
    pieces, tightest, count = [(-12.0, 12.0)], 0.0, 0
    while pieces:
        left, right = pieces.pop()
        centre, radius = (left + right) / 2, (right - left) / 2
        count += 1
        assert count < 20_000
        balls = flint.arb(centre), flint.arb(centre, radius)
        try:
            at, on = (SMOOTH[module](flint.arb_series([t, 1], 4)).coeffs() for t in balls)
        except ValueError:  # a quotient by a ball around 0
            pieces += [(left, centre), (centre, right)]
            continue
        if abs(at[1]) + 2 * abs(at[2]) * radius + 3 * abs(on[3]) * radius * radius <= limit:
            tightest = max(tightest, float(abs(at[1]).lower()))
        else:
            pieces += [(left, centre), (centre, right)]
    assert claimed(module) * (1 - 1e-13) <= tightest <= claimed(module)


EXACT = {
    nn.CELU(0.7): lambda t: t if t > 0 else mpmath.mpf(0.7) * mpmath.expm1(t / mpmath.mpf(0.7)),
    nn.ELU(-2.5): lambda t: t if t > 0 else -2.5 * mpmath.expm1(t),
    nn.GELU(): lambda t: t * mpmath.ncdf(t),
    nn.GELU(approximate="tanh"): lambda t: (
        t * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (t + mpmath.mpf(0.044715) * t**3))) / 2
    ),
    nn.Hardsigmoid(): lambda t: max(mpmath.mpf(0), min(mpmath.mpf(6), t + 3)) / 6,
    nn.Hardswish(): lambda t: t * max(mpmath.mpf(0), min(mpmath.mpf(6), t + 3)) / 6,
    nn.LogSigmoid(): lambda t: -mpmath.log1p(mpmath.exp(-t)),
    nn.Mish(): lambda t: t * mpmath.tanh(mpmath.log1p(mpmath.exp(t))),
    nn.SELU(): lambda t: (
        mpmath.mpf("1.0507009873554804934193349852946")
        * (t if t > 0 else mpmath.mpf("1.6732632423543772848170429916717") * mpmath.expm1(t))
    ),
    nn.Sigmoid(): lambda t: 1 / (1 + mpmath.exp(-t)),
    nn.SiLU(): lambda t: t / (1 + mpmath.exp(-t)),
    nn.Softplus(): lambda t: mpmath.log1p(mpmath.exp(t)),
    nn.Softplus(beta=-0.3, threshold=15.0): lambda t: mpmath.log1p(mpmath.exp(mpmath.mpf(-0.3) * t)) / mpmath.mpf(-0.3),
    nn.Softsign(): lambda t: t / (1 + abs(t)),
    nn.Tanh(): mpmath.tanh,
    nn.Tanhshrink(): lambda t: t - mpmath.tanh(t),
}


@pytest.mark.parametrize("module", EXACT, ids=str)
def test_the_error_of_an_activation_encloses_the_50_digit_value(module):
    magnitudes = 10.0 ** torch.linspace(-300, 2.8, 60, dtype=torch.float64)
    near = torch.linspace(-30, 30, 121, dtype=torch.float64)
    x = torch.cat((magnitudes, -magnitudes, near))[:, None]
    found = evaluate(nn.Sequential(module, Squeeze()), x)
    with mpmath.workdps(400):
        for t, value, error in zip(x[:, 0].tolist(), found.values.tolist(), found.error.tolist()):
            assert abs(mpmath.mpf(value) - EXACT[module](mpmath.mpf(t))) <= error
    assert found.error.max() <= (1e-5 if isinstance(module, nn.Softplus) else 1e-8)


def test_the_identity_beyond_the_threshold_of_a_softplus_is_in_the_error():
    """torch jumps by 2e-9 there, and by more where the threshold is lower."""
    for threshold in (20.0, 15.0):
        module = nn.Softplus(threshold=threshold)
        x = torch.tensor([[threshold + 1e-9]], dtype=torch.float64)
        found = evaluate(nn.Sequential(module, Squeeze()), x)
        gap = abs(found.values.item() - math.log1p(math.exp(x.item())))
        assert 0.5 * math.log1p(math.exp(-threshold)) < gap <= found.error.item() < 3 * gap


# Softmax


@pytest.mark.parametrize(
    ("dim", "shape"), [(1, (5,)), (-1, (5,)), (1, (3, 2, 2)), (-1, (2, 2, 3)), (-2, (2, 3)), (2, (2, 3))]
)
@pytest.mark.parametrize("kind", [nn.Softmax, nn.Softmin])
def test_no_slope_of_a_softmax_exceeds_one_half_which_is_attained(kind, dim, shape):
    module = kind(dim)
    assert claimed(module) == 0.5

    def slopes(x):
        jacobian = torch.func.jacrev(lambda v: module(v.view(1, *shape)).flatten())
        return torch.linalg.svdvals(torch.func.vmap(jacobian)(x.flatten(1)))[:, 0]

    found = slopes(3 * torch.randn(50, *shape, dtype=torch.float64))
    assert 0.2 < found.max() <= 0.5
    even = torch.full(shape, 1e3 if kind is nn.Softmin else -1e3, dtype=torch.float64)
    even.movedim(dim if dim < 0 else dim - 1, 0)[:2] = 0  # all the mass on two entries
    assert slopes(even[None]).item() == pytest.approx(0.5, rel=1e-12)


def test_softmax_over_channels_is_that_of_softmax2d():
    assert certify(nn.Softmax2d()).lipschitz == 0.5
    critic = nn.Sequential(Unflatten((2, 2, 1)), nn.Softmax2d(), Flatten(4), nn.Linear(4, 1), Squeeze())
    assert evaluate(critic, torch.randn(3, 4)).values.shape == (3,)


MIXING = {
    "the last axis of values": nn.Sequential(nn.Linear(2, 1), Squeeze(), nn.Softmax(-1)),
    "the first axis of values": nn.Sequential(nn.Linear(2, 1), Squeeze(), nn.Softmax(1)),
    "the last but one of vectors": nn.Sequential(nn.Softmax(-2), nn.Linear(2, 1), Squeeze()),
    "channels without images": nn.Sequential(nn.Softmax2d(), nn.Linear(2, 1), Squeeze()),
}


@pytest.mark.parametrize("case", MIXING)
def test_a_softmax_over_the_samples_is_refused(case):
    with pytest.raises(InputError, match="takes samples of at least"):
        evaluate(MIXING[case], torch.randn(4, 2))


def test_the_constant_of_a_log_softmax_grows_without_bound():
    for n in (4, 100):
        x = torch.zeros(n, dtype=torch.float64)
        x[0] = 100
        jacobian = torch.func.jacrev(lambda v: torch.log_softmax(v, 0))(x)
        assert torch.linalg.matrix_norm(jacobian, 2).item() == pytest.approx(math.sqrt(n), rel=1e-9)


def test_the_error_of_a_softmax_encloses_the_50_digit_value():
    critic = nn.Sequential(nn.Softmax(1), nn.Linear(6, 1), Squeeze()).double()
    x = torch.randn(30, 6, dtype=torch.float64) * 10 ** torch.linspace(-3, 3, 30, dtype=torch.float64)[:, None]
    found = evaluate(critic, x)
    weight, bias = critic[1].weight[0].tolist(), critic[1].bias.item()
    with mpmath.workdps(50):
        for row, value, error in zip(x.tolist(), found.values.tolist(), found.error.tolist()):
            shares = [mpmath.exp(mpmath.mpf(t)) for t in row]
            truth = mpmath.fdot(weight, shares) / mpmath.fsum(shares) + mpmath.mpf(bias)
            assert abs(mpmath.mpf(value) - truth) <= error
    assert found.error.max() < 1e-10


# Enlarged images

UPSAMPLES = {
    nn.Upsample(scale_factor=2): images(1, (1, 2, 3)),
    nn.Upsample(scale_factor=3): images(1, (1, 2, 3)),
    nn.Upsample(scale_factor=(2, 3)): images(1, (1, 2, 3)),
    nn.Upsample(scale_factor=7, mode="nearest-exact"): images(1, (1, 2)),
    nn.UpsamplingNearest2d(scale_factor=2): images(2, (1, 2)),
    nn.Upsample(scale_factor=(3,)): [(2, n) for n in (1, 2, 5)],
    nn.Upsample(scale_factor=3, mode="linear"): [(2, n) for n in range(1, 7)],
    nn.Upsample(scale_factor=2, mode="bilinear"): images(1, (1, 2, 3, 5)),
    nn.Upsample(scale_factor=(2, 5), mode="bilinear"): images(1, (1, 2, 3)),
    nn.Upsample(scale_factor=2, mode="trilinear"): [(1, 1, 2, 3), (1, 2, 2, 2)],
    nn.Upsample(scale_factor=(2, 1, 3)): [(1, 1, 2, 3), (1, 2, 2, 2)],
}


@pytest.mark.parametrize("module", UPSAMPLES, ids=str)
def test_the_claim_of_an_upsampling_is_the_root_of_the_copies(module):
    for shape in UPSAMPLES[module]:
        found = norm(module, *shape)
        assert found == pytest.approx(claimed(module), rel=1e-12) and found <= claimed(module) * (1 + 1e-14)


def test_a_factor_that_serves_signals_and_images_is_claimed_for_images_and_refused_for_volumes():
    module = nn.Upsample(scale_factor=2)
    assert claimed(module) == 2.0 > norm(module, 1, 5) == pytest.approx(math.sqrt(2))
    assert norm(module, 1, 2, 2, 2) == pytest.approx(math.sqrt(8))
    critic = nn.Sequential(Unflatten((1, 2, 2, 2)), module, Flatten(64), nn.Linear(64, 1), Squeeze())
    with pytest.raises(UncertifiableError, match="'1'"):
        certify(critic)


def test_torch_repeats_a_pixel_once_more_by_the_factors_that_are_refused():
    row = torch.arange(3000.0)[None, None]
    assert F.interpolate(row, scale_factor=41, mode="nearest").flatten().long().bincount().max() == 42


def test_the_error_of_a_linear_upsampling_encloses_the_exact_value():
    enlarge = nn.Upsample(scale_factor=3, mode="linear")
    critic = nn.Sequential(Unflatten((1, 7)), enlarge, Flatten(21), nn.Linear(21, 1), Squeeze()).double()
    x = torch.randn(20, 7, dtype=torch.float64)
    found = evaluate(critic, x)
    weight = [Fraction(w) for w in critic[3].weight[0].tolist()]
    for row, value, error in zip(x.tolist(), found.values.tolist(), found.error.tolist()):
        total = Fraction(critic[3].bias.item())
        for i, w in enumerate(weight):
            place = max(Fraction(2 * i + 1, 6) - Fraction(1, 2), Fraction(0))
            low = int(place)
            total += w * (Fraction(row[low]) * (1 - place + low) + Fraction(row[min(low + 1, 6)]) * (place - low))
        assert abs(Fraction(value) - total) <= Fraction(error)
    assert found.error.max() < 1e-12


# Three spatial axes

VOLUMES = [(2, a, b, c) for a, b, c in ((1, 1, 1), (2, 2, 2), (1, 3, 4), (3, 3, 3), (4, 2, 3))]


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv3d(2, 2, 2),
        nn.Conv3d(2, 3, 3, padding=1),
        nn.Conv3d(2, 2, (1, 2, 3), stride=(1, 2, 1), padding=(0, 1, 1), groups=2),
        nn.Conv3d(2, 1, 2, padding=1, padding_mode="circular"),
        nn.Conv3d(2, 1, 3, padding=1, padding_mode="replicate"),
        nn.ConvTranspose3d(2, 3, 2, stride=2, output_padding=1),
        nn.AvgPool3d(2, 1, padding=1, count_include_pad=False),
        nn.AvgPool3d((1, 2, 2)),
        nn.AdaptiveAvgPool3d(1),
        nn.ReplicationPad3d(1),
        nn.ReflectionPad3d((1, 0, 0, 1, 1, 1)),
        nn.CircularPad3d(1),
        nn.ZeroPad3d((0, 1, -1, 0, 0, 2)),
    ],
    ids=str,
)
def test_the_claim_of_a_map_of_volumes_bounds_its_matrix(module):
    torch.manual_seed(0)  # weights made at import depend on what was imported before
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()
    largest = largest_norm(module, VOLUMES)
    assert largest <= claimed(module) * (1 + 1e-12)
    assert claimed(module) <= 6 * largest


@pytest.mark.parametrize("make", [nn.MaxPool3d, lambda *a: nn.LPPool3d(2, *a)])
@pytest.mark.parametrize(("kernel", "stride"), [(2, None), (2, 1), ((1, 2, 2), (1, 1, 2))])
def test_the_claim_of_a_nonlinear_pool_of_volumes_is_attained_by_an_impulse(make, kernel, stride):
    impulse = torch.zeros(1, 1, 4, 4, 4, dtype=torch.float64)
    impulse[0, 0, 1, 1, 1] = 1
    module = make(kernel, stride)
    assert module(impulse).norm() == pytest.approx(claimed(module))


# Batch normalisation in eval mode


def batch_norm(kind=nn.BatchNorm1d, **arguments):
    module = kind(3, **arguments)
    module.running_var.copy_(torch.tensor([0.04, 1.0, 9.0]))
    module.running_mean.copy_(torch.tensor([1e3, -2.0, 0.5]))
    if module.affine:
        with torch.no_grad():
            module.weight.copy_(torch.tensor([0.5, -3.0, 2.0]))
            module.bias.copy_(torch.tensor([1.0, 1e4, 0.0]))
    return module.eval()


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 2, 2), (3, 1, 2, 2)])
@pytest.mark.parametrize("affine", [True, False])
def test_the_claim_of_batch_normalisation_in_eval_mode_is_its_largest_slope(shape, affine):
    kind = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d, 4: nn.BatchNorm3d}[len(shape)]
    module = batch_norm(kind, affine=affine)
    weight = torch.tensor([0.5, 3.0, 2.0] if affine else [1.0, 1.0, 1.0], dtype=torch.float64)
    expected = (weight / (module.running_var.double() + 1e-5).sqrt()).max().item()
    assert claimed(module) == pytest.approx(expected, rel=1e-12)
    found = norm(module, *shape)
    assert found == pytest.approx(expected, rel=1e-8) and found <= claimed(module) * (1 + 1e-8)


def test_a_certificate_of_batch_normalisation_is_about_eval_mode():
    critic = nn.Sequential(batch_norm(), nn.Linear(3, 1), Squeeze()).eval()
    certificate = certify(critic)
    assert "eval mode" in certificate.layers[0].method
    critic.train()
    for attempt in (certify, lambda c: evaluate(c, torch.randn(4, 3)), lambda c: verify(certificate, c)):
        with pytest.raises(UncertifiableError, match=r"'0'.*call eval\(\)"):
            attempt(critic)
    assert verify(certificate, critic.eval()) == certificate


def test_the_error_of_batch_normalisation_encloses_the_50_digit_value():
    critic = nn.Sequential(batch_norm().double(), nn.Linear(3, 1).double(), Squeeze())
    x = torch.randn(30, 3, dtype=torch.float64) * 10 ** torch.linspace(-3, 6, 30, dtype=torch.float64)[:, None] + 1e3
    found = evaluate(critic, x)
    layer, linear = critic[0], critic[1]
    with mpmath.workdps(50):
        columns = [t.tolist() for t in (layer.running_mean, layer.running_var, layer.weight, layer.bias)]
        for row, value, error in zip(x.tolist(), found.values.tolist(), found.error.tolist()):
            total = mpmath.mpf(linear.bias.item())
            for t, mean, var, scale, shift, w in zip(row, *columns, linear.weight[0].tolist()):
                state = (mpmath.mpf(t) - mpmath.mpf(mean)) / mpmath.sqrt(mpmath.mpf(var) + mpmath.mpf(layer.eps))
                total += mpmath.mpf(w) * (state * mpmath.mpf(scale) + mpmath.mpf(shift))
            assert abs(mpmath.mpf(value) - total) <= error
    assert found.error.max() < 1e-6


@pytest.mark.parametrize(
    ("name", "value"),
    [("running_var", -1.0), ("running_var", math.nan), ("running_mean", math.inf), ("weight", math.nan)],
)
def test_statistics_that_make_no_function_are_refused(name, value):
    module = batch_norm()
    getattr(module, name).data[1] = value
    with pytest.raises(InputError, match="finite|above 0"):
        certify(module)


def test_the_tables_of_what_is_proved_are_frozen():
    """An entry that is added states nothing that anyone has proved."""
    for table, key in ((STOCK_CLAIMS, nn.GLU), (ACTIVATIONS, "gelu")):
        with pytest.raises(TypeError):
            table[key] = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        ACTIVATIONS["relu"].slopes = (0.0, 0.5)
