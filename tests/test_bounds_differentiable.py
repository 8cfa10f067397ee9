"""Differentiable bounds: at least the truth in the working precision, with finite gradients, and never a read-back."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wgan_lip.lipschitz.bounds import convolution_row_scale, gram_bound, row_scale, upper_bound_convolution_norm
from wgan_lip.utils.checks import InputError


def true_norm(matrix):
    """In float64, after scaling: the stored entries convert exactly."""
    matrix = matrix.detach().double()
    scale = matrix.abs().max().clamp_min(1e-300)
    return float(torch.linalg.matrix_norm(matrix / scale, 2) * scale)


def structured(m, n, kind, generator):
    matrix = torch.randn(m, n, generator=generator, dtype=torch.float64)
    if kind == "orthogonal":
        square = torch.linalg.qr(torch.randn(max(m, n), max(m, n), generator=generator, dtype=torch.float64))[0]
        matrix = square[:m, :n]
    elif kind == "rank one":
        matrix = matrix[:, :1] * matrix[:1]
    elif kind == "graded":
        matrix = matrix * 10.0 ** -torch.arange(m, dtype=torch.float64)[:, None]
    elif kind == "one row":
        matrix = matrix * (torch.arange(m) == 0)[:, None]
    elif kind == "positive":
        matrix = matrix.abs()
    return matrix


KINDS = ["gaussian", "orthogonal", "rank one", "graded", "one row", "positive"]


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from(KINDS),
    st.integers(0, 2**31),
    st.sampled_from([(torch.float64, 150), (torch.float32, 18), (torch.bfloat16, 18), (torch.float16, 2)]),
    st.floats(-1, 1),
    st.integers(0, 6),
)
def test_gram_iteration_bounds_the_norm_from_above_at_every_iteration(m, n, kind, seed, precision, size, iterations):
    dtype, decades = precision
    matrix = structured(m, n, kind, torch.Generator().manual_seed(seed)) * 10.0 ** (size * decades)
    matrix = matrix.to(dtype)
    truth = true_norm(matrix)
    bound = gram_bound(matrix, iterations=iterations)
    assert bound.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(bound.double()) >= truth * (1 - 1e-14)
    worst = min(m, n) ** (1 / (4 * 2**iterations))
    eps = torch.finfo(bound.dtype).eps
    assert float(bound.double()) <= truth * worst * (1 + 500 * eps) + 1e-30


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_gram_iteration_bounds_large_matrices_in_their_own_precision(kind, dtype):
    for m, n in ((200, 200), (64, 300), (300, 64)):
        matrix = structured(m, n, kind, torch.Generator().manual_seed(m)).to(dtype)
        truth = true_norm(matrix)
        bound = float(gram_bound(matrix, iterations=5))
        assert truth * (1 - 1e-14) <= bound <= truth * 1.05


def test_small_squares_that_a_long_sum_loses_are_covered():
    """4096 ones and 2^20 squares of 1e-7, each below half a unit in the last place of the sum so far."""
    row = torch.cat((torch.ones(4096), torch.full((2**20,), 1e-7).sqrt()))[None]
    truth = float(row.double().square().sum())
    assert float(gram_bound(row, iterations=1).double()) ** 2 >= truth
    assert float(row_scale(row).double()) >= truth


def test_orthonormal_rows_are_exact_without_iteration():
    matrix = structured(16, 40, "orthogonal", torch.Generator().manual_seed(0))
    for iterations in (0, 3):
        assert float(gram_bound(matrix, iterations=iterations)) == pytest.approx(1.0, rel=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.0, 1e-40, 1e-30, 1.0, 1e30])
def test_gradients_are_finite_at_zero_and_at_huge_weights(size, dtype):
    matrix = (size * torch.randn(6, 4, dtype=torch.float64)).to(dtype).requires_grad_(True)
    bound = gram_bound(matrix)
    bound.backward()
    assert bound.isfinite()
    assert bound >= true_norm(matrix) * (1 - 1e-14)
    assert matrix.grad.isfinite().all()
    assert matrix.grad.abs().max() <= 2


def test_the_gradient_of_gram_iteration_is_that_of_the_norm():
    matrix = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    gram_bound(matrix, iterations=9).backward()
    u, _, v = torch.linalg.svd(matrix.detach())
    assert torch.allclose(matrix.grad, torch.outer(u[:, 0], v[0]), atol=1e-6)
    for bounded in (lambda w: gram_bound(w, iterations=2), row_scale, lambda w: convolution_row_scale(w[..., None], 2)):
        assert torch.autograd.gradcheck(bounded, (matrix.detach().clone().requires_grad_(True),))


def test_a_batch_is_bounded_matrix_by_matrix():
    batch = torch.randn(3, 2, 5, 4, dtype=torch.float64) * torch.tensor([1e-5, 1.0])[:, None, None]
    bounds = gram_bound(batch)
    assert bounds.shape == (3, 2)
    for index in itertools.product(range(3), range(2)):
        assert bounds[index] == pytest.approx(float(gram_bound(batch[index])), rel=1e-14)


def test_nothing_is_read_back_from_the_device():
    """The meta device has no values to read."""
    with torch.device("meta"):
        assert gram_bound(torch.empty(4, 5)).shape == ()
        assert row_scale(torch.empty(4, 5), q=torch.empty(4)).shape == (4,)
        assert convolution_row_scale(torch.empty(4, 2, 3, 3), 2, 1, 2, q=torch.empty(4)).shape == (4,)


def smallest_eigenvalue(scale, matrix):
    return float(torch.linalg.eigvalsh(torch.diag(scale.double()) - matrix.double() @ matrix.double().mT)[0])


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from(KINDS),
    st.integers(0, 2**31),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    st.booleans(),
)
def test_row_scales_dominate_the_gram_matrix(m, n, kind, seed, dtype, weighted):
    generator = torch.Generator().manual_seed(seed)
    matrix = structured(m, n, kind, generator).to(dtype)
    q = 10 ** (2 * torch.rand(m, generator=generator) - 1).to(dtype) if weighted else None
    scale = row_scale(matrix, q)
    assert scale.shape == (m,)
    assert scale.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert smallest_eigenvalue(scale, matrix) >= -1e-14 * float(scale.double().max())
    weights = torch.ones(m) if q is None else q
    formula = (matrix.double() @ matrix.double().mT).abs() @ weights.double() / weights.double()
    assert (scale.double() >= formula * (1 - 1e-14)).all()
    loose = 1e-12 if dtype == torch.float64 else 1e-4
    assert (scale.double() <= formula * (1 + loose) + loose * formula.max() * (0 if q is None else 100)).all()


def test_orthonormal_rows_have_scale_1_and_zero_rows_scale_0():
    matrix = structured(16, 40, "orthogonal", torch.Generator().manual_seed(0))
    assert torch.allclose(row_scale(matrix), torch.ones(16, dtype=torch.float64), atol=1e-11)
    matrix[3] = 0
    scale = row_scale(matrix)
    assert scale[3] == 0
    assert scale[2] >= 1


def by_definition(kernel, stride, dilation, groups, q):
    """T_i = Σ_j Σ_o |Σ_c Σ_m K_i[c, m] K_j[c, m'] | q_j/q_i, over pairs of taps whose distance o is a multiple of s."""
    kernel = kernel.double().numpy()
    q = np.ones(len(kernel)) if q is None else q.double().numpy()
    rows = len(kernel) // groups
    taps = list(itertools.product(*map(range, kernel.shape[2:])))
    scale = np.zeros(len(kernel))
    for i, j in itertools.product(range(len(kernel)), repeat=2):
        if i // rows != j // rows:
            continue
        products: dict[tuple, float] = {}
        for m, other in itertools.product(taps, repeat=2):
            offset = tuple(d * (a - b) for a, b, d in zip(m, other, dilation))
            if all(o % s == 0 for o, s in zip(offset, stride)):
                product = kernel[(i, slice(None), *m)] @ kernel[(j, slice(None), *other)]
                products[offset] = products.get(offset, 0.0) + product
        scale[i] += sum(map(abs, products.values())) * q[j] / q[i]
    return scale


def true_convolution_norm(kernel, size, **arguments):
    groups = arguments["groups"]
    kind = {3: nn.Conv1d, 4: nn.Conv2d}[kernel.ndim]
    channels = kernel.shape[1] * groups
    layer = kind(channels, kernel.shape[0], kernel.shape[2:], bias=False, dtype=torch.float64, **arguments)
    layer.weight.data = kernel
    dim = channels * math.prod(size)
    with torch.no_grad():
        matrix = layer(torch.eye(dim, dtype=torch.float64).view(dim, channels, *size)).flatten(1)
    return float(torch.linalg.matrix_norm(matrix, 2))


@st.composite
def kernels(draw):
    axes = draw(st.sampled_from([1, 1, 2]))
    each = lambda values: tuple(draw(values) for _ in range(axes))  # noqa: E731
    groups = draw(st.sampled_from([1, 2]))
    shape = (groups * draw(st.integers(1, 2)), draw(st.integers(1, 2)), *each(st.integers(1, 4)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    kernel = torch.randn(shape, generator=generator, dtype=torch.float64)
    q = 10 ** torch.rand(shape[0], generator=generator, dtype=torch.float64) if draw(st.booleans()) else None
    return kernel, each(st.integers(1, 4)), each(st.integers(1, 3)), groups, q


@settings(deadline=None, max_examples=150)
@given(kernels(), st.integers(0, 3))
def test_scaled_kernels_have_norm_at_most_1_on_every_grid(case, padding):
    kernel, stride, dilation, groups, q = case
    scale = convolution_row_scale(kernel, stride, dilation, groups, q)
    assert torch.allclose(scale, torch.from_numpy(by_definition(*case)), rtol=1e-12, atol=0)
    scaled = kernel / scale.sqrt().view(-1, *[1] * (kernel.ndim - 1))
    arguments = {"stride": stride, "dilation": dilation, "groups": groups}
    spans = [d * (k - 1) + 1 for k, d in zip(kernel.shape[2:], dilation)]
    for grow in (0, 1, 3):
        size = tuple(max(span - 2 * padding, 1) + grow for span in spans)
        assert true_convolution_norm(scaled, size, padding=padding, **arguments) <= 1 + 1e-13
    size = tuple(s * -(-span // s) for s, span in zip(stride, spans))
    half = tuple((span - 1) // 2 for span in spans)
    wrapped = true_convolution_norm(scaled, size, padding=half, padding_mode="circular", **arguments)
    assert wrapped <= 1 + 1e-13
    assert upper_bound_convolution_norm(scaled, padding=padding, **arguments) <= 1 + 1e-9


def test_circular_outputs_that_meet_round_the_torus_need_stride_1():
    """The case that the docstring excludes: three windows of stride 2 on five pixels share two."""
    kernel = torch.ones(1, 1, 3, dtype=torch.float64)
    arguments = {"stride": 2, "padding": 1, "dilation": 1, "groups": 1, "padding_mode": "circular"}
    truth = true_convolution_norm(kernel, (5,), **arguments)
    assert truth**2 > float(convolution_row_scale(kernel, 2))
    assert truth**2 <= float(convolution_row_scale(kernel, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_convolution_row_scales_hold_in_the_working_precision(dtype):
    for shape in ((8, 4, 3, 3), (6, 3, 5), (2, 16, 2, 2, 2)):
        kernel = torch.randn(shape).to(dtype)
        axes = len(shape) - 2
        truth = by_definition(kernel, (1,) * axes, (1,) * axes, 1, None)
        scale = convolution_row_scale(kernel).double().numpy()
        assert (scale >= truth).all()
        assert (scale <= truth * (1 + 1e-3)).all()


def test_a_kernel_of_one_tap_is_a_matrix():
    matrix = torch.randn(5, 3, dtype=torch.float64)
    for kernel in (matrix[..., None], matrix[..., None, None]):
        assert torch.allclose(convolution_row_scale(kernel, 3, 2), row_scale(matrix), rtol=1e-13, atol=0)


def test_a_zero_filter_has_scale_0():
    kernel = torch.randn(4, 2, 3, 3)
    kernel[1] = 0
    scale = convolution_row_scale(kernel, groups=2)
    assert scale[1] == 0
    assert (scale[[0, 2, 3]] > 0).all()
    assert (convolution_row_scale(torch.zeros(2, 2, 3)) == 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gram_bound(torch.ones(3)), "matrix"),
        (lambda: row_scale(torch.ones(3)), "matrix"),
        (lambda: convolution_row_scale(torch.ones(3, 3)), "kernel"),
        (lambda: convolution_row_scale(torch.ones(3, 3, 3), groups=2), "groups"),
        (lambda: convolution_row_scale(torch.ones(3, 3, 3), stride=0), "stride"),
        (lambda: convolution_row_scale(torch.ones(3, 3, 3), dilation=(1, 1)), "dilation"),
    ],
)
def test_what_is_no_matrix_or_kernel_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
