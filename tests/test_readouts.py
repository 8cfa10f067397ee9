"""The Lipschitz extension: exact at its data, of slope 1, and the optimal potential when it is given."""

from __future__ import annotations

import copy
import math

import mpmath
import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wgan_lip.lipschitz.certificates import certify, evaluate
from wgan_lip.lipschitz.layers import LipschitzExtension, Squeeze
from wgan_lip.utils.checks import InputError


def extension(dim, centers, heads=1):
    layer = LipschitzExtension(dim, centers, heads=heads).double()
    with torch.no_grad():
        layer.offsets.copy_(torch.randn(heads, centers))
    return layer


@pytest.mark.parametrize(("dim", "centers", "heads"), [(1, 1, 1), (3, 5, 1), (2, 7, 4), (40, 3, 2)])
def test_it_is_the_minimum_of_its_cones(dim, centers, heads):
    layer = extension(dim, centers, heads)
    x = torch.randn(20, dim, dtype=torch.float64)
    found = layer(x)
    assert found.shape == (20, heads)
    for i, point in enumerate(x):
        for head in range(heads):
            cones = [(point - c).norm() + b for c, b in zip(layer.centers, layer.offsets[head])]
            assert found[i, head].item() == pytest.approx(min(cones).item(), abs=1e-12)
    assert layer(x[:0]).shape == (0, heads)


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 12),
    dim=st.integers(1, 5),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    kind=st.sampled_from(["random", "repeated points", "on a line"]),
)
def test_it_takes_1_lipschitz_values_at_its_points_and_is_the_largest_such_function(seed, count, dim, scale, kind):
    rng = np.random.default_rng(seed)
    points = scale * rng.standard_normal((count, dim))
    if kind == "repeated points":
        points[count // 2 :] = points[0]
    elif kind == "on a line":
        points = np.outer(scale * np.arange(count), np.eye(dim)[0])
    direction = rng.standard_normal(dim)
    direction /= np.linalg.norm(direction)
    anchor = scale * rng.standard_normal(dim)

    def other(z):  # a 1-Lipschitz function
        return np.minimum(z @ direction, np.linalg.norm(z - anchor, axis=1))

    layer = LipschitzExtension.through(torch.from_numpy(points), torch.from_numpy(other(points)))
    with torch.no_grad():
        at_points = layer(torch.from_numpy(points))[:, 0].numpy()
        z = 3 * scale * rng.standard_normal((50, dim))
        values = layer(torch.from_numpy(z))[:, 0].numpy()
    assert np.abs(at_points - other(points)).max() <= 1e-14 * scale * 100
    assert (values >= other(z) - 1e-13 * scale * 100).all()


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-3, 1.0, 1e6]), heads=st.integers(1, 3))
def test_each_head_has_slope_at_most_1_whatever_the_weights(seed, scale, heads):
    torch.manual_seed(seed)
    layer = extension(3, 6, heads)
    with torch.no_grad():
        layer.centers.mul_(scale)
        layer.offsets.mul_(scale)
    x, y = (scale * torch.randn(30, 3, dtype=torch.float64) for _ in range(2))
    y[::3] = layer.centers.detach().repeat(2, 1)[:10]
    gap = (layer(x) - layer(y)).abs().amax(1)
    assert (gap <= (x - y).norm(dim=1) + 1e-13 * scale).all()
    assert layer.claim().lipschitz == 1.0


def test_its_gradient_has_norm_1_and_is_0_at_a_centre():
    layer = extension(4, 6)
    x = torch.randn(100, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    assert torch.allclose(gradient.norm(dim=1), torch.ones(100, dtype=torch.float64), atol=1e-12)
    apart = LipschitzExtension.through(10 * torch.eye(4), torch.zeros(4))
    x = apart.centers.detach().clone().requires_grad_(True)
    apart(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros(4, 4))
    assert apart.centers.grad.isfinite().all() and torch.equal(apart.offsets.grad, torch.ones(1, 4))


def test_distances_do_not_cancel_far_from_the_origin():
    far = torch.full((1, 8), 1e4)
    layer = LipschitzExtension.through(far.repeat(40, 1), torch.zeros(40))
    x = far + torch.zeros(64, 8)
    x[:, 0] += 2.0**-6
    assert torch.equal(layer(x), torch.full((64, 1), 2.0**-6))
    assert (torch.cdist(x, layer.centers) - 2.0**-6).abs().max() > 1e-3  # what the Gram expansion would have given


def test_with_the_optimal_dual_it_attains_the_wasserstein_distance():
    """f = min_j(‖x − y_j‖ − v_j) has the KR value W1 on the samples that v is optimal for."""
    x, y = np.random.default_rng(0).standard_normal((40, 3)), np.random.default_rng(1).standard_normal((30, 3)) + 1
    cost = np.linalg.norm(x[:, None] - y[None], axis=2)
    plan, log = ot.emd([], [], cost, log=True)
    layer = LipschitzExtension.through(torch.from_numpy(y), torch.from_numpy(-log["v"]))
    value = (layer(torch.from_numpy(x)).mean() - layer(torch.from_numpy(y)).mean()).item()
    assert value == pytest.approx((plan * cost).sum(), abs=1e-12)


@pytest.mark.parametrize("bad", ["centers", "offsets"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_claim_is_made_about_weights_that_are_not_finite(bad, value):
    layer = extension(3, 4, 2)
    with torch.no_grad():
        getattr(layer, bad).view(-1)[1] = value
    with pytest.raises(InputError, match="finite"):
        certify(layer)


@pytest.mark.parametrize("arguments", [(0, 3), (3, 0), (3, 2, 0)])
def test_sizes_below_1_are_refused(arguments):
    dim, centers, *heads = arguments
    with pytest.raises(InputError, match="at least 1"):
        LipschitzExtension(dim, centers, heads=heads[0] if heads else 1)


def test_data_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="one value for each of 3 points, not 2"):
        LipschitzExtension.through(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(InputError, match="points must be finite"):
        LipschitzExtension.through(torch.full((3, 2), math.nan), torch.zeros(3))
    with pytest.raises(InputError, match="values must be finite"):
        LipschitzExtension.through(torch.zeros(3, 2), torch.full((3,), math.inf))


def test_centres_start_at_the_given_scale():
    assert LipschitzExtension(50, 200, scale=3.0).centers.std().item() == pytest.approx(3.0, rel=0.05)
    assert LipschitzExtension.through(torch.zeros(2, 3).double(), torch.ones(2)).centers.dtype == torch.float64


@pytest.mark.parametrize("scale", [1e-170, 1e-9, 1.0, 1e6])
@pytest.mark.parametrize("at", ["elsewhere", "the centres"])
def test_the_error_encloses_the_50_digit_value(scale, at):
    layer = extension(3, 5)
    with torch.no_grad():
        layer.centers.mul_(scale)
        layer.offsets.mul_(scale)
    x = scale * torch.randn(8, 3, dtype=torch.float64) if at == "elsewhere" else layer.centers.detach().clone()
    found = evaluate(nn.Sequential(layer, Squeeze()), x)
    with mpmath.workdps(50):
        for point, value, error in zip(x.tolist(), found.values.tolist(), found.error.tolist()):
            cones = [
                mpmath.norm([mpmath.mpf(p) - mpmath.mpf(q) for p, q in zip(point, center)]) + mpmath.mpf(offset)
                for center, offset in zip(layer.centers.tolist(), layer.offsets[0].tolist())
            ]
            assert abs(min(cones) - mpmath.mpf(value)) <= error
            assert error <= 1e-13 * scale + 1e-140


@pytest.mark.parametrize("size", [1e120, 1e200])
def test_a_cone_too_far_away_for_its_square_is_in_the_error(size):
    layer = extension(1, 2)
    with torch.no_grad():
        layer.centers.copy_(torch.tensor([[0.0], [size]], dtype=torch.float64))
        layer.offsets.copy_(torch.tensor([[1.0, -1.5 * size]], dtype=torch.float64))
    found = evaluate(nn.Sequential(layer, Squeeze()), torch.zeros(1, 1))
    assert abs(-0.5 * size - found.values.item()) <= found.error.item()
    assert size > 1e130 or found.error.item() < 1e-13 * size


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_dtype_and_rounds_once_or_twice(dtype):
    layer, x = extension(3, 5, 2).to(dtype), torch.randn(6, 3).to(dtype)
    found, wide = layer(x), copy.deepcopy(layer).double()(x.double())
    assert found.dtype == dtype
    assert torch.allclose(found.double(), wide, rtol=0, atol=8 * torch.finfo(dtype).eps)
