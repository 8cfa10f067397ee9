"""Claims about torch's own modules, against their dense matrices at many sizes."""

from __future__ import annotations

import copy
import itertools
import math
from contextlib import suppress

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wgan_lip.lipschitz.bounds import gamma
from wgan_lip.lipschitz.certificates import certify, evaluate
from wgan_lip.lipschitz.layers import STOCK_CLAIMS, Flatten, Squeeze, Unflatten
from wgan_lip.utils.checks import UncertifiableError

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
        with pytest.raises(UncertifiableError, match="padding of the construction"):
            certify(module)
        module.padding = (2,)
        module._reversed_padding_repeated_twice = [2, 5]
        with pytest.raises(UncertifiableError, match="padding of the construction"):
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
    "BatchNorm2d": (nn.BatchNorm2d(2), "function of the batch. Use Normalize"),
    "Dropout2d": (nn.Dropout2d(), "two functions. Take it out"),
    "Sigmoid": (nn.Sigmoid(), "provable constant. Got Sigmoid"),
    "Softplus": (nn.Softplus(), "provable constant. Got Softplus"),
    "ELU": (nn.ELU(), "provable constant. Got ELU"),
    "Hardshrink": (nn.Hardshrink(), "provable constant. Got Hardshrink"),
    "indices": (nn.MaxPool2d(2, return_indices=True), "return_indices=False"),
    "cubic pool": (nn.LPPool2d(3, 2), "norm_type=2"),
    "partial pool": (nn.LPPool2d(2, 2, ceil_mode=True), "ceil_mode=False"),
    "adaptive": (nn.AdaptiveAvgPool2d((1, 2)), "output_size=1"),
    "adaptive to the input": (nn.AdaptiveAvgPool2d((None, 1)), "output_size=1"),
    "unflatten the batch": (nn.Unflatten(0, (1, 2)), "axis 1"),
    "unset memory": (nn.CircularPad2d((-1, 2, 0, 0)), "at least 0. Got .*Crop in a layer before"),
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
