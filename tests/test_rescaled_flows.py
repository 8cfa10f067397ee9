"""The rescaled gradient-flow layer: constant 1 for every weight, without a constraint that could be missed."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wgan_lip.lipschitz.bounds import upper_bound_norm
from wgan_lip.lipschitz.certificates import certify, evaluate
from wgan_lip.lipschitz.layers import ACTIVATIONS, GradientFlow, RescaledGradientFlow, Squeeze
from wgan_lip.utils.checks import InputError


def set_(parameter, value):
    with torch.no_grad():
        parameter.copy_(torch.as_tensor(value, dtype=torch.float64))


def rescaled(weight, bias=0.0, activation="relu"):
    weight = torch.as_tensor(weight, dtype=torch.float64)
    layer = RescaledGradientFlow(weight.shape[1], len(weight), activation=activation).double()
    set_(layer.weight, weight)
    set_(layer.bias, torch.as_tensor(bias, dtype=torch.float64).expand(len(weight)))
    return layer


def steepest(layer, x):
    jacobians = torch.func.vmap(torch.func.jacrev(lambda v: layer(v[None])[0]))(x)
    return torch.linalg.svdvals(jacobians).max().item()


HOSTILE = {
    "dense": lambda w: w,
    "zero": lambda w: 0 * w,
    "rank one": lambda w: w[:, :1] * w[:1],
    "equal rows": lambda w: w[:1].expand_as(w),
    "a zero row": lambda w: w * (torch.arange(len(w)) > 0)[:, None],
    "spiked": lambda w: w + 1e6 * (torch.arange(w.numel()) == 1).view(w.shape),
    "huge": lambda w: 1e30 * w,
    "tiny": lambda w: 1e-30 * w,
    "graded": lambda w: w * 10.0 ** (-5 * torch.arange(len(w)))[:, None],
    "near the largest float": lambda w: 1e300 * w,
    "subnormal": lambda w: 1e-310 * w,
}


@pytest.mark.parametrize("activation", [*ACTIVATIONS, "spline"])
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize(("dim", "hidden"), [(5, 3), (3, 7)])
def test_the_constant_is_1_for_every_weight(kind, dim, hidden, activation):
    layer = rescaled(HOSTILE[kind](torch.randn(hidden, dim, dtype=torch.float64)), torch.randn(hidden), activation)
    assert layer.claim().lipschitz == 1.0
    assert steepest(layer, 3 * torch.randn(60, dim, dtype=torch.float64)) <= 1 + 1e-12


@settings(deadline=None, max_examples=100)
@given(
    m=st.integers(1, 7),
    n=st.integers(1, 7),
    seed=st.integers(0, 2**32 - 1),
    exponent=st.integers(-300, 300),
    spread=st.sampled_from([0.0, 3.0, 30.0, 200.0]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_the_rescaled_weight_has_norm_at_most_1_and_is_finite(m, n, seed, exponent, spread, dtype):
    rng = np.random.default_rng(seed)
    graded = rng.standard_normal((m, n)) * 10.0 ** rng.uniform(-spread, 0, (m, n))
    weight = torch.from_numpy(graded * 10.0 ** min(exponent, 300)).to(dtype)
    layer = RescaledGradientFlow(n, m).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(weight.nan_to_num(0, torch.finfo(dtype).max, torch.finfo(dtype).min))
    assert upper_bound_norm(layer.rescaled()) <= 1 + (m * n + 32) * torch.finfo(dtype).eps  # rounding of WWᵀ
    x = torch.randn(4, n, dtype=dtype, requires_grad=True)
    layer(x).sum().backward()
    assert layer(x).isfinite().all() and x.grad.isfinite().all()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_scale_of_the_weight_does_not_matter(scale):
    weight = torch.randn(3, 5)
    one, other = RescaledGradientFlow(5, 3), RescaledGradientFlow(5, 3)
    for layer, factor in ((one, 1.0), (other, scale)):
        set_(layer.weight, factor * weight.double())
        set_(layer.bias, 0.3)
    x = torch.randn(20, 5)
    assert torch.allclose(one(x), other(x), atol=1e-6)


def test_orthogonal_rows_of_any_length_make_a_fold():
    rows = torch.linalg.qr(torch.randn(6, 3, dtype=torch.float64)).Q.T
    layer = rescaled(rows * torch.tensor([[1e-3], [1.0], [50.0]]), 0.2)
    flow = GradientFlow(6, 3).double()
    set_(flow.weight, rows)
    set_(flow.bias, 0.2)
    x = torch.randn(50, 6, dtype=torch.float64)
    assert torch.allclose(layer(x), flow(x), atol=1e-12)


def test_a_fresh_layer_keeps_the_gradient_norm():
    layer = RescaledGradientFlow(6, 3).double()
    jacobians = torch.func.vmap(torch.func.jacrev(lambda v: layer(v[None])[0]))(torch.randn(50, 6).double())
    assert torch.allclose(torch.linalg.svdvals(jacobians), torch.ones(50, 6).double(), atol=1e-5)


def test_it_is_the_same_function_in_float32_also_at_size():
    layer = RescaledGradientFlow(256, 128)
    x = torch.randn(20, 256)
    single = layer(x)
    assert torch.allclose(single.double(), layer.double()(x.double()), atol=2e-5)


def test_zero_rows_are_dropped_exactly_and_can_come_back():
    weight = torch.randn(4, 5, dtype=torch.float64)
    weight[[0, 2]] = 0
    layer, without = rescaled(weight, 0.7, "softplus"), rescaled(weight[[1, 3]], 0.7, "softplus")
    x = torch.randn(30, 5, dtype=torch.float64)
    assert torch.allclose(layer(x), without(x), atol=1e-14)
    assert torch.equal(rescaled(0 * weight, 0.7, "softplus")(x), x)
    layer(x).square().sum().backward()
    assert layer.weight.grad.isfinite().all() and layer.weight.grad[0].abs().max() > 0


@pytest.mark.parametrize("seed", range(5))
def test_row_lengths_do_what_the_weights_q_of_the_reference_do(seed):
    """x − 2Wᵀ T⁻¹ relu(Wx + T^{1/2}b), T_i = Σ_j |WWᵀ|_ij q_j/q_i: the layer with the weight diag(q)W."""
    torch.manual_seed(seed)
    weight, q = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64).exp()
    bias, x = torch.randn(4, dtype=torch.float64), torch.randn(40, 3, dtype=torch.float64)
    scale = ((weight @ weight.T).abs() * q / q[:, None]).sum(1)
    reference = x - 2 * (torch.relu(x @ weight.T + scale.sqrt() * bias) / scale) @ weight
    assert torch.allclose(rescaled(q[:, None] * weight, bias)(x), reference, atol=1e-12)


def test_any_steps_of_any_size_leave_the_constant_at_1():
    layer = RescaledGradientFlow(4, 6)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e6)
    assert list(layer.constraints()) == []
    for _ in range(5):
        optimizer.zero_grad()
        layer(torch.randn(20, 4)).square().sum().backward()
        optimizer.step()
        assert layer.claim().lipschitz == 1.0
        assert upper_bound_norm(layer.rescaled()) <= 1 + 1e-6


def test_gradients_are_those_of_the_function():
    layer = rescaled(torch.randn(3, 4), torch.randn(3), "softplus")
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    weight = layer.weight.detach().clone().requires_grad_(True)
    call = torch.func.functional_call
    assert torch.autograd.gradcheck(lambda x, w: call(layer, {"weight": w}, (x,)), (x, weight))


@pytest.mark.parametrize(("low", "high"), [(-0.7, 1.0), (0.2, 3.0), (-2.0, -1.0), (0.0, 0.5)])
def test_slopes_beyond_0_and_1_are_in_the_claim_which_is_attained(low, high):
    rows = torch.linalg.qr(torch.randn(5, 3, dtype=torch.float64)).Q.T
    layer = rescaled(rows, torch.randn(3), "spline")
    slopes = low + (high - low) * torch.rand(3, 10)
    slopes[0, 0], slopes[1, -1] = low, high
    set_(layer.activation.slope, slopes)
    found, claimed = steepest(layer, 30 * torch.randn(2000, 5, dtype=torch.float64)), layer.claim().lipschitz
    assert found <= claimed * (1 + 1e-12)
    assert found == pytest.approx(claimed, rel=1e-9)


@pytest.mark.parametrize("bad", ["weight", "bias"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_claim_is_made_about_weights_that_are_not_finite(bad, value):
    layer = RescaledGradientFlow(3, 2)
    with torch.no_grad():
        getattr(layer, bad).view(-1)[1] = value
    with pytest.raises(InputError, match="finite"):
        certify(layer)


@pytest.mark.parametrize(("dim", "hidden"), [(0, 3), (3, 0)])
def test_sizes_below_1_are_refused(dim, hidden):
    with pytest.raises(InputError, match="at least 1"):
        RescaledGradientFlow(dim, hidden)


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if kind != "near the largest float"])
@pytest.mark.parametrize(
    ("activation", "scale", "bias"),
    [("relu", 1e-9, 1.0), ("softplus", 1.0, 1.0), ("relu", 1e6, 1.0), ("relu", 1.0, 1e9)],
)
def test_the_error_encloses_the_50_digit_value(kind, activation, scale, bias):
    weight = HOSTILE[kind](torch.randn(3, 4, dtype=torch.float64))
    layer = rescaled(weight, bias * torch.randn(3), activation)
    readout = nn.Linear(4, 1).double()
    x = scale * torch.randn(6, 4, dtype=torch.float64)
    found = evaluate(nn.Sequential(layer, readout, Squeeze()), x)
    bend = {"relu": lambda t: max(t, mpmath.mpf(0)), "softplus": lambda t: mpmath.log1p(mpmath.exp(t))}[activation]
    with mpmath.workdps(60):
        w = mpmath.matrix(weight.tolist())
        gram = w * w.T
        for i in range(w.rows):
            total = sum(abs(gram[i, j]) for j in range(w.rows))
            for j in range(w.cols):
                w[i, j] = w[i, j] / mpmath.sqrt(total) if total else mpmath.mpf(0)
        rows = w.tolist()
        for point, value, error in zip(x.tolist(), found.values.tolist(), found.error.tolist()):
            bent = [bend(mpmath.fdot(row, point) + mpmath.mpf(b)) for row, b in zip(rows, layer.bias.tolist())]
            state = [mpmath.mpf(p) - 2 * mpmath.fdot(column, bent) for p, column in zip(point, zip(*rows))]
            truth = mpmath.fdot(readout.weight[0].tolist(), state) + mpmath.mpf(readout.bias.item())
            assert abs(truth - mpmath.mpf(value)) <= error
            if kind in ("dense", "zero", "rank one", "equal rows", "a zero row", "huge", "tiny"):
                assert error <= 1e-10 * (scale + bias)


def test_rows_too_short_to_be_told_apart_are_in_the_error():
    """Rows of lengths 1 and 1e-200: the short one is lost in float64, and the error says so."""
    layer = rescaled([[1.0, 0.0], [0.0, 1e-200]])
    found = evaluate(nn.Sequential(layer, nn.Linear(2, 1).double(), Squeeze()), torch.ones(1, 2))
    assert found.error.item() > 1
