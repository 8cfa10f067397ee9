"""Norms of convolutions: at least that of the dense matrix torch's own layer has, whatever its arguments; and tight."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import wgan_lip.lipschitz.bounds.convolutions as convolutions
from wgan_lip.lipschitz.bounds import padding_multiplicity, upper_bound_convolution_norm, upper_bound_norm
from wgan_lip.utils.checks import InputError

MODES = ["zeros", "circular", "reflect", "replicate"]
EVERY_MODE = pytest.mark.parametrize("padding_mode", MODES)
ROUNDING = 1e-13  # of the referee, a float64 SVD

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch copies its input: no matter here


def dense(layer, channels, size):
    """The matrix of a linear map of images, from unit vectors."""
    dim = channels * math.prod(size)
    with torch.no_grad():
        return layer(torch.eye(dim, dtype=torch.float64).view(dim, channels, *size)).flatten(1).T


def true_norm(layer, channels, size):
    return float(torch.linalg.matrix_norm(dense(layer, channels, size), 2))


def convolution(kernel, **arguments):
    """torch's layer with this kernel; None where torch refuses the arguments."""
    groups = arguments.get("groups", 1)
    kind = {3: nn.Conv1d, 4: nn.Conv2d}[kernel.ndim]
    sizes = kernel.shape[1] * groups, kernel.shape[0], tuple(kernel.shape[2:])
    try:
        layer = kind(*sizes, bias=False, dtype=torch.float64, **arguments)
    except ValueError:
        return None
    layer.weight.data = kernel
    return layer


def norm_or_refused(layer, channels, size):
    """The norm, or None where torch refuses an input of this size."""
    try:
        layer(torch.zeros(1, channels, *size, dtype=torch.float64))
    except RuntimeError:
        return None
    return true_norm(layer, channels, size)


@EVERY_MODE
def test_the_bound_is_at_least_the_norm_for_every_combination_of_arguments_on_a_line(padding_mode):
    seen = 0
    for k, padding, stride, dilation, groups in itertools.product(
        (1, 2, 3), (0, 1, 2, "same"), (1, 2, 3), (1, 2), (1, 2)
    ):
        kernel = torch.randn(2, 2 // groups, k, dtype=torch.float64)
        arguments = {"padding": padding, "stride": stride, "dilation": dilation, "groups": groups}
        layer = convolution(kernel, padding_mode=padding_mode, **arguments)
        if layer is None:
            continue
        every_size = upper_bound_convolution_norm(kernel, padding_mode=padding_mode, **arguments)
        for n in (1, 2, 3, 5, 6):
            truth = norm_or_refused(layer, 2, (n,))
            if truth is None:
                continue
            assert truth <= every_size * (1 + ROUNDING)
            if n in (2, 5, 6):
                bound = upper_bound_convolution_norm(kernel, padding_mode=padding_mode, size=(n,), **arguments)
                assert truth * (1 - ROUNDING) <= bound <= every_size * (1 + 1e-9)
                seen += 1
    assert seen > 200


@st.composite
def planes(draw):
    """A kernel with small integers, arguments and a size, in two dimensions."""
    pair = lambda values: draw(st.tuples(values, values))  # noqa: E731
    groups = draw(st.sampled_from([1, 1, 2]))
    k = pair(st.integers(1, 4))
    shape = (groups * draw(st.integers(1, 2)), draw(st.integers(1, 2)), *k)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kernel = torch.from_numpy(rng.standard_normal(shape))
    if draw(st.booleans()):  # alternating or constant signs: the norm sits at single frequencies
        kernel = kernel.abs() * (-1.0) ** torch.arange(k[1])
    arguments = {
        "stride": pair(st.integers(1, 4)),
        "padding": draw(st.one_of(st.just("same"), st.tuples(st.integers(0, 4), st.integers(0, 4)))),
        "dilation": pair(st.integers(1, 3)),
        "groups": groups,
        "padding_mode": draw(st.sampled_from(MODES)),
    }
    return kernel, arguments, pair(st.integers(1, 7))


@settings(deadline=None, max_examples=250)
@given(planes())
def test_the_bound_is_at_least_the_norm_whatever_the_arguments_in_the_plane(case):
    kernel, arguments, size = case
    layer = convolution(kernel, **arguments)
    assume(layer is not None)
    channels = kernel.shape[1] * arguments["groups"]
    truth = norm_or_refused(layer, channels, size)
    assume(truth is not None)
    bound = upper_bound_convolution_norm(kernel, size=size, **arguments)
    assert truth * (1 - ROUNDING) <= bound
    assert truth * (1 - ROUNDING) <= upper_bound_convolution_norm(kernel, **arguments)


@pytest.mark.parametrize(
    ("k", "stride", "dilation", "groups", "size"),
    [
        ((3, 3), (1, 1), (1, 1), 1, (4, 5)),
        ((3, 3), (2, 2), (1, 1), 1, (6, 8)),
        ((3, 5), (1, 1), (1, 1), 2, (5, 7)),
        ((3, 3), (1, 1), (2, 1), 1, (6, 5)),
        ((3, 3), (2, 3), (2, 1), 2, (4, 6)),
        ((5, 1), (3, 1), (1, 1), 1, (6, 3)),
        ((3, 3), (4, 4), (2, 2), 1, (8, 8)),
    ],
)
def test_circular_padding_of_half_the_kernel_is_exact(k, stride, dilation, groups, size):
    arguments = {
        "stride": stride,
        "padding": tuple(d * (n - 1) // 2 for n, d in zip(k, dilation)),
        "dilation": dilation,
        "groups": groups,
        "padding_mode": "circular",
    }
    for _ in range(4):
        kernel = torch.randn(4, 4 // groups, *k, dtype=torch.float64)
        truth = true_norm(convolution(kernel, **arguments), 4, size)
        bound = upper_bound_convolution_norm(kernel, size=size, **arguments)
        assert truth * (1 - ROUNDING) <= bound <= truth * (1 + 1e-9)


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize(
    ("k", "stride", "dilation"), [((2, 2), 2, 1), ((2, 3), (2, 4), 1), ((2, 2), 3, 2), ((1, 1), 1, 1), ((2, 2), 2, 2)]
)
def test_patches_that_share_no_pixel_are_exact_at_every_size(k, stride, dilation, padding_mode):
    kernel = torch.randn(6, 2, *k, dtype=torch.float64)
    arguments = {"stride": stride, "dilation": dilation, "groups": 2, "padding_mode": padding_mode}
    truth = true_norm(convolution(kernel, **arguments), 4, (7, 9))
    if (k, stride, dilation) == ((2, 2), 2, 2):  # taps on one residue: pixels shared all the same
        assert upper_bound_convolution_norm(kernel, **arguments) > truth
        return
    for size in ((7, 9), None):
        bound = upper_bound_convolution_norm(kernel, size=size, **arguments)
        assert truth * (1 - ROUNDING) <= bound <= truth * (1 + 1e-9)


def test_a_single_output_sees_no_pixel_twice():
    """The head of a convolutional critic: a kernel as large as the image."""
    kernel = torch.randn(3, 5, 4, 4, dtype=torch.float64)
    for arguments in ({"size": (4, 4)}, {"size": (5, 5), "dilation": 2, "padding": 1}, {"size": (5, 6), "stride": 9}):
        bound = upper_bound_convolution_norm(kernel, **arguments)
        assert bound <= upper_bound_norm(kernel.flatten(1)) * (1 + 1e-12)
        size = arguments.pop("size")
        assert bound >= true_norm(convolution(kernel, **arguments), 5, size) * (1 - ROUNDING)


@pytest.mark.parametrize(("size", "most"), [(4, 0.25), (8, 0.08), (14, 0.03)])
def test_zero_padding_costs_less_the_larger_the_image(size, most):
    kernel = torch.randn(3, 3, 3, 3, dtype=torch.float64)
    truth = true_norm(convolution(kernel, padding=1), 3, (size, size))
    bound = upper_bound_convolution_norm(kernel, padding=1, size=(size, size))
    assert truth <= bound <= truth * (1 + most)


def test_without_a_size_the_bound_is_the_limit_of_large_images():
    for kernel, stride in ((torch.randn(3, 2, 3, 3), 1), (torch.randn(3, 2, 4, 4), 2), (torch.randn(2, 2, 9), 2)):
        size = (252,) if kernel.ndim == 3 else (126, 126)
        padding = (kernel.shape[-1] - 1) // 2
        every_size = upper_bound_convolution_norm(kernel, padding=padding, stride=stride)
        large = upper_bound_convolution_norm(kernel, padding=padding, stride=stride, size=size)
        assert large * (1 - 1e-9) <= every_size <= large * 1.004


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3))
def test_the_largest_value_between_two_grid_points_is_covered(taps):
    """|a + b z + c z²| on the circle, squared, is a parabola in cos ω."""
    a, b, c = taps
    assume(max(map(abs, taps)) > 0.1)
    candidates = [-1.0, 1.0]
    if a * c:
        candidates.append(min(1.0, max(-1.0, -b * (a + c) / (4 * a * c))))
    truth = math.sqrt(
        max(a * a + b * b + c * c + 2 * b * (a + c) * t + 2 * a * c * (2 * t * t - 1) for t in candidates)
    )
    bound = upper_bound_convolution_norm(torch.tensor([[taps]], dtype=torch.float64))
    assert truth * (1 - 1e-13) <= bound <= truth * (1 + 2e-6)


def test_the_factor_of_the_grid_is_needed():
    """The norm lies between grid points, so that the largest value on the grid falls short of it."""
    kernel = torch.tensor([[[1.0, 0.3, -0.77]]], dtype=torch.float64)
    a, b, c = kernel.flatten().tolist()
    t = -b * (a + c) / (4 * a * c)
    truth = math.sqrt(a * a + b * b + c * c + 2 * b * (a + c) * t + 2 * a * c * (2 * t * t - 1))
    grid = np.abs(np.fft.fft([a, b, c], 2048)).max()
    assert grid < truth * (1 - 1e-8)
    assert upper_bound_convolution_norm(kernel) >= truth


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 1, 2), (3, 2, 2, 1)])
def test_a_transposed_convolution_has_the_norm_of_its_adjoint(stride, padding, dilation, groups):
    kernel = torch.randn(4, 2, 3, 3, dtype=torch.float64)
    layer = nn.ConvTranspose2d(
        4, 2 * groups, 3, stride, padding, 0, groups, bias=False, dilation=dilation, dtype=torch.float64
    )
    layer.weight.data = kernel
    truth = true_norm(layer, 4, (4, 5))
    size = layer(torch.zeros(1, 4, 4, 5, dtype=torch.float64)).shape[2:]
    arguments = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    for given_size in (size, None):
        bound = upper_bound_convolution_norm(kernel, size=given_size, **arguments)
        assert truth * (1 - ROUNDING) <= bound <= truth * 1.7


@pytest.mark.parametrize(
    ("tap", "arguments", "truth"),
    [
        (1 / 9, {"padding": 1, "padding_mode": "reflect"}, 4 / 3),
        (1 / 9, {"padding": 2, "padding_mode": "replicate"}, 2.0),
        (1 / 9, {"padding": 2, "padding_mode": "circular"}, 5 / 3),
        (1 / 6, {"stride": 2, "dilation": 2}, 1.5),
    ],
)
def test_what_other_libraries_bound_by_1(tap, arguments, truth):
    """3×3 kernels they scale to norm 1, forgetting that padding repeats pixels and that dilation meets the stride."""
    kernel = torch.full((1, 1, 3, 3), tap, dtype=torch.float64)
    layer = convolution(kernel, **arguments)
    found = [norm_or_refused(layer, 1, (n, n)) for n in (2, 3, 4, 5, 8, 16)]
    largest = max(norm for norm in found if norm is not None)
    assert largest > 0.85 * truth
    assert upper_bound_convolution_norm(kernel, **arguments) >= largest


def test_the_largest_group_counts_not_their_product():
    kernel = torch.cat((torch.full((1, 1, 3), 1.0), torch.full((1, 1, 3), 0.5)))
    assert upper_bound_convolution_norm(kernel, groups=2) == pytest.approx(3.0, rel=1e-9)


@pytest.mark.parametrize("exponent", [-1060, -900, -30, 7, 900])
def test_scaling_by_powers_of_two_scales_the_bound(exponent):
    kernel = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    scaled = torch.from_numpy(np.ldexp(kernel.numpy(), exponent))
    bound = upper_bound_convolution_norm(scaled, padding=1, size=(4, 4))
    if exponent > -1000:
        expected = math.ldexp(upper_bound_convolution_norm(kernel, padding=1, size=(4, 4)), exponent)
        assert bound == pytest.approx(expected, rel=1e-15)
    exact = convolution(torch.from_numpy(np.ldexp(scaled.numpy(), -exponent)), padding=1)
    assert math.ldexp(bound, -exponent) >= true_norm(exact, 2, (4, 4)) * (1 - ROUNDING)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_stored_entries_of_any_precision_convert_exactly(dtype):
    kernel = torch.randn(2, 2, 3, 3).to(dtype).requires_grad_(True)
    bound = upper_bound_convolution_norm(kernel, padding=1)
    assert bound == upper_bound_convolution_norm(kernel.detach().double().numpy(), padding=1)


def test_a_zero_kernel_has_norm_0():
    for size in ((4, 4), None):
        assert upper_bound_convolution_norm(torch.zeros(2, 2, 3, 3), padding=1, size=size) == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(value):
    kernel = torch.randn(2, 2, 3)
    kernel[1, 1, 1] = value
    with pytest.raises(InputError, match="finite"):
        upper_bound_convolution_norm(kernel)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding_mode": "mirror"}, "padding_mode"),
        ({"stride": 0}, "stride"),
        ({"stride": (1, 2)}, "1 spatial axes"),
        ({"stride": 1.5}, "stride"),
        ({"dilation": 0}, "dilation"),
        ({"padding": -1}, "padding"),
        ({"padding": "full"}, "padding"),
        ({"padding": "same", "stride": 2}, "same"),
        ({"groups": 3}, "groups"),
        ({"groups": 0}, "groups"),
        ({"size": (2,)}, "must be at least 3"),
        ({"size": (0,)}, "size"),
        ({"size": (4, 4)}, "size"),
    ],
)
def test_arguments_that_torch_does_not_accept_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        upper_bound_convolution_norm(torch.randn(2, 2, 3), **arguments)


@pytest.mark.parametrize("shape", [(2, 2), (2, 0, 3), (2, 2, 0)])
def test_what_is_no_kernel_is_refused(shape):
    with pytest.raises(InputError, match="kernel"):
        upper_bound_convolution_norm(torch.ones(shape))


# Lies: routines that may return anything, without making the bound too small.
LIES = {
    "zeros": lambda honest: np.zeros_like(honest) if isinstance(honest, np.ndarray) else torch.zeros_like(honest),
    "half": lambda honest: honest / 2,
    "slightly less": lambda honest: honest * (1 - 1e-9),
    "NaN": lambda honest: honest * math.nan,
    "negative": lambda honest: -honest,
    "huge": lambda honest: honest * 1e200,
    "reversed": lambda honest: honest[::-1].copy() if isinstance(honest, np.ndarray) else honest.flip(0),
    "one for all": lambda honest: honest * 0 + honest[:1],
}


def no_error(factor):
    return factor, torch.zeros(factor.shape[0], dtype=torch.int32)


ROUTINES = {
    "cosine": (np, "cos", lambda lie, honest: lambda x: lie(honest(x))),
    "sine": (np, "sin", lambda lie, honest: lambda x: lie(honest(x))),
    "eigenvalues": (torch.linalg, "eigvalsh", lambda lie, honest: lambda a: lie(honest(a))),
    "Cholesky": (torch.linalg, "cholesky_ex", lambda lie, honest: lambda a: no_error(lie(honest(a)[0]))),
    "power iteration": (convolutions, "_power_iteration", lambda lie, honest: lambda a: lie(honest(a))),
    "dense eigenvalues": (np.linalg, "eigvalsh", lambda lie, honest: lambda a: lie(honest(a))),
    "dense Cholesky": (np.linalg, "cholesky", lambda lie, honest: lambda a: lie(honest(a))),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("routine", ROUTINES)
def test_no_routine_that_lies_makes_the_bound_too_small(monkeypatch, routine, lie):
    generator = torch.Generator().manual_seed(0)
    kernels = [
        torch.randn(3, 3, 3, 3, generator=generator, dtype=torch.float64),
        torch.randn(1, 1, 3, 3, generator=generator, dtype=torch.float64).abs() * (-1.0) ** torch.arange(3),
    ]
    cases = [(kernel, {"padding": 1, "padding_mode": "circular", "size": (6, 7)}) for kernel in kernels]
    cases += [(kernel, {"padding": 1}) for kernel in kernels]
    truths = [
        true_norm(convolution(kernel, padding=1, padding_mode="circular"), kernel.shape[1], (6, 7))
        for kernel in kernels
    ]
    calls = []
    where, name, wrap = ROUTINES[routine]
    honest = getattr(where, name)

    def liar(*arguments):
        calls.append(name)
        return wrap(LIES[lie], honest)(*arguments)

    with np.errstate(all="ignore"):
        for (kernel, arguments), truth in zip(cases, truths * 2):
            monkeypatch.setattr(where, name, liar)
            bound = upper_bound_convolution_norm(kernel, **arguments)
            monkeypatch.undo()
            assert truth * (1 - ROUNDING) <= bound < math.inf
            if routine == "power iteration":  # it only saves time
                assert bound <= truth * 1.1
    assert calls


@pytest.mark.parametrize(
    "turn",
    [lambda x: 0 * x, lambda x: 2 * x, lambda x: x / 2, lambda x: -x, lambda x: x + 0.1],
    ids=["all 1", "even ones twice", "half the way", "the other half", "turned"],
)
def test_points_that_are_not_all_roots_of_unity_are_refused(monkeypatch, turn):
    """Cosine and sine lie alike, so that all points are on the circle; the largest norm is at the root −1."""
    kernel = torch.tensor([[[1.0, -2.0, 1.0]]], dtype=torch.float64)
    assert convolutions._roots_of_unity(6)[1] < 1e-14
    cos, sin = np.cos, np.sin
    monkeypatch.setattr(np, "cos", lambda x: cos(turn(x)))
    monkeypatch.setattr(np, "sin", lambda x: sin(turn(x)))
    assert convolutions._roots_of_unity(6)[1] == math.inf
    bound = upper_bound_convolution_norm(kernel, padding=1, padding_mode="circular", size=(6,))
    assert 4.0 <= bound < 4.0 + 1e-9  # sums of taps need no frequencies


@pytest.mark.parametrize("turn", [lambda x: x + 1e-9, lambda x: x * (1 - 1e-9)], ids=["turned", "spread less"])
def test_points_near_the_roots_of_unity_are_as_far_as_stated(monkeypatch, turn):
    cos, sin = np.cos, np.sin
    angles = np.pi / 3 * np.arange(4)
    truth = np.abs(np.exp(1j * turn(angles)) - np.exp(1j * angles)).max()
    monkeypatch.setattr(np, "cos", lambda x: cos(turn(x)))
    monkeypatch.setattr(np, "sin", lambda x: sin(turn(x)))
    assert truth <= convolutions._roots_of_unity(6)[1] <= 3 * truth
    kernel = torch.tensor([[[1.0, -2.0, 1.0]]], dtype=torch.float64)
    assert upper_bound_convolution_norm(kernel, padding=1, padding_mode="circular", size=(6,)) >= 4.0


def test_points_inside_the_circle_are_refused(monkeypatch):
    """0.99^1000 is next to 0, so that |z^1000 − 1| is about 1 and says nothing about the distance."""
    cos, sin = np.cos, np.sin
    monkeypatch.setattr(np, "cos", lambda x: 0.99 * cos(x))
    monkeypatch.setattr(np, "sin", lambda x: 0.99 * sin(x))
    assert convolutions._roots_of_unity(1000)[1] == math.inf


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
def test_two_routines_that_lie_together_cost_tightness_only(monkeypatch, factor):
    """The eigenvalues are too small and the Cholesky factorisation of an indefinite matrix is said to succeed."""
    kernel = torch.randn(3, 3, 3, 3, dtype=torch.float64)
    truth = true_norm(convolution(kernel, padding=1, padding_mode="circular"), 3, (6, 7))
    eigenvalues = torch.linalg.eigvalsh

    def succeeding(shifted):
        factors = factor * torch.diag_embed(shifted.diagonal(dim1=1, dim2=2).abs().sqrt()).to(shifted.dtype)
        return factors, torch.zeros(len(shifted), dtype=torch.int32)

    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda a: eigenvalues(a) / 2)
    monkeypatch.setattr(torch.linalg, "cholesky_ex", succeeding)
    bound = upper_bound_convolution_norm(kernel, padding=1, padding_mode="circular", size=(6, 7))
    assert truth <= bound <= 3 * truth


def test_routines_that_fail_cost_tightness_only(monkeypatch):
    kernel = torch.randn(3, 3, 3, 3, dtype=torch.float64)
    truth = true_norm(convolution(kernel, padding=1, padding_mode="circular"), 3, (6, 7))

    def failing(*_):
        raise torch.linalg.LinAlgError("no convergence")

    monkeypatch.setattr(torch.linalg, "eigvalsh", failing)
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda a: (a, torch.ones(len(a), dtype=torch.int32)))
    bound = upper_bound_convolution_norm(kernel, padding=1, padding_mode="circular", size=(6, 7))
    assert truth <= bound <= 3 * truth


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 1000])
def test_roots_of_unity_are_as_near_as_stated(count):
    mpmath = pytest.importorskip("mpmath")
    roots, distance = convolutions._roots_of_unity(count)
    assert distance < 1e-14
    with mpmath.workdps(40):
        for j, root in enumerate(roots.tolist()):
            assert abs(mpmath.expjpi(mpmath.mpf(2 * j) / count) - mpmath.mpc(root)) <= distance


def test_ball_arithmetic_agrees_with_a_bound_by_frequencies():
    """c²·I − K̂(ω)K̂(ω)* is positive definite at every frequency, by Sylvester's criterion in balls."""
    flint = pytest.importorskip("flint")
    kernel = torch.randn(3, 3, 3, dtype=torch.float64)
    size = 7
    bound = upper_bound_convolution_norm(kernel, padding=1, padding_mode="circular", size=(size,))
    smaller = bound * (1 - 1e-11)

    def dominates(c):
        minors = []
        for j in range(size):
            phases = [(flint.acb(2 * j * m) / size).exp_pi_i() for m in range(3)]
            spectrum = flint.acb_mat(
                [[sum(z * w for z, w in zip(phases, taps)) for taps in row] for row in kernel.tolist()]
            )
            adjoint = spectrum.conjugate().transpose()
            gap = flint.acb(c) ** 2 * flint.acb_mat(3, 3, [float(i == k) for i in range(3) for k in range(3)])
            gap = gap - spectrum * adjoint
            minors += [flint.acb_mat([[gap[i, k] for k in range(n)] for i in range(n)]).det().real for n in range(1, 4)]
        return all(minor > 0 for minor in minors)

    with flint.ctx.workprec(200):
        assert dominates(bound)
        assert not dominates(smaller)


def copies(padding_mode, padding, size):
    """How often F.pad repeats a pixel, by padding every unit image."""
    mode = {"zeros": "constant"}.get(padding_mode, padding_mode)
    flat = [pad for pair in reversed(padding) for pad in pair]
    dim = math.prod(size)
    images = torch.eye(dim).view(dim, 1, *size)
    return int(F.pad(images, flat, mode=mode).flatten(1).sum(dim=1).max())


@EVERY_MODE
def test_pixels_are_counted_as_torch_pads_them(padding_mode):
    for before, after in itertools.product(range(4), repeat=2):
        counts = []
        for n in range(1, 10):
            try:
                counts.append(copies(padding_mode, [(before, after)], (n,)))
            except RuntimeError:
                continue
            assert padding_multiplicity(padding_mode, [(before, after)], (n,)) == counts[-1]
        assert padding_multiplicity(padding_mode, [(before, after)]) == max(counts)
    assert padding_multiplicity(padding_mode, [(1, 2), (0, 1)], (4, 3)) == copies(
        padding_mode, [(1, 2), (0, 1)], (4, 3)
    )


@EVERY_MODE
def test_negative_padding_crops(padding_mode):
    assert padding_multiplicity(padding_mode, [(-1, -2)], (6,)) == 1
    assert padding_multiplicity(padding_mode, [(-1, -2)]) == 1
    for n in range(3, 9):
        for padding in ((-1, 1), (2, -1), (1, -2)):
            try:
                count = copies(padding_mode, [padding], (n,))
            except RuntimeError:
                continue
            assert count <= padding_multiplicity(padding_mode, [padding], (n,))
            assert count <= padding_multiplicity(padding_mode, [padding])


def test_an_unknown_padding_is_refused():
    with pytest.raises(InputError, match="padding_mode"):
        padding_multiplicity("mirror", [(1, 1)])
