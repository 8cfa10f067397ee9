"""Trained splines: exact against 50 digits, monotone and 1-Lipschitz, bounded by what is stored when they are not."""

from __future__ import annotations

import copy
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wgan_lip.critics import FixedWidthCritic, ResNetCritic
from wgan_lip.lipschitz.bounds import Norm, gamma
from wgan_lip.lipschitz.certificates import certify, evaluate, verify
from wgan_lip.lipschitz.layers import Absolute, GradientFlow, Linear, Retraction, Spline, Squeeze, constrain_steps
from wgan_lip.utils.checks import InputError


def set_(parameter, value):
    with torch.no_grad():
        parameter.copy_(torch.as_tensor(value, dtype=torch.float64))


def spline(slopes, radius=1.0):
    slopes = torch.as_tensor(slopes, dtype=torch.float64)
    layer = Spline(len(slopes), knots=slopes.shape[1] - 1, radius=radius).double()
    set_(layer.slope, slopes)
    return layer


def exact(slopes, radius, t):
    """σ(t) in mpmath: each slope times the signed length of its piece between 0 and t."""
    half = len(slopes) // 2
    knots = [mpmath.mpf(radius) * k / (half - 1) for k in range(1 - half, half)]
    ends = [-mpmath.inf, *knots, mpmath.inf]
    t, total = mpmath.mpf(t), mpmath.mpf(0)
    for slope, left, right in zip(slopes, ends, ends[1:]):
        if left >= 0:
            total += mpmath.mpf(slope) * max(min(t, right) - left, 0)
        else:
            total -= mpmath.mpf(slope) * max(right - max(t, left), 0)
    return total


# Values and slopes


@settings(deadline=None, max_examples=80)
@given(
    half=st.integers(1, 6),
    radius=st.sampled_from([1.0, 0.3, 1e-5, 7e3, 1 / 3]),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1.0, 3.0, 1e-3]),
)
def test_the_spline_is_the_integral_of_its_slopes_to_the_rounding_it_states(half, radius, seed, size):
    rng = np.random.default_rng(seed)
    slopes = size * rng.standard_normal(2 * half + 2)
    knots = radius * np.arange(-half, half + 1) / half
    t = np.concatenate([
        2 * radius * rng.standard_normal(8), knots, np.nextafter(knots, np.inf), np.nextafter(knots, -np.inf),
        radius * np.array([1e-20, -1e-20, 1e-300, -1e-300, 1e20, -1e20]), [1e300, -1e300],
    ])  # fmt: skip
    layer = spline(slopes[None], radius)
    found = layer(torch.from_numpy(t)[:, None])[:, 0].tolist()
    steepest = np.abs(slopes).max()
    assert layer.claim().rounding.operations == layer.roundings
    with mpmath.workdps(50):
        for point, value in zip(t.tolist(), found):
            allowed = gamma(layer.roundings) * steepest * abs(point) + 1e-300
            assert abs(exact(slopes.tolist(), radius, point) - mpmath.mpf(value)) <= allowed


def test_it_starts_as_the_relu():
    t = 3 * torch.randn(500, 4)
    assert torch.equal(Spline(4)(t), torch.relu(t))
    assert Spline(4).claim().lipschitz == 1.0
    flow = GradientFlow(5, 3, activation="spline")
    jacobians = torch.func.vmap(torch.func.jacrev(lambda v: flow(v[None])[0]))(torch.randn(50, 5))
    singular = torch.linalg.svdvals(jacobians)
    assert torch.allclose(singular, torch.ones_like(singular), atol=1e-5), "a fold keeps the gradient norm"


@pytest.mark.parametrize("shape", [(), (4,), (2, 5)])
def test_each_channel_has_its_own_spline_at_each_position(shape):
    slopes = torch.rand(3, 6, dtype=torch.float64)
    x = torch.randn(7, 3, *shape, dtype=torch.float64)
    found = spline(slopes)(x)
    assert found.shape == x.shape
    for channel in range(3):
        alone = spline(slopes[channel : channel + 1])(x[:, channel].reshape(-1, 1))
        assert torch.equal(found[:, channel].reshape(-1, 1), alone)


def test_gradients_are_those_of_the_function():
    layer = spline(torch.rand(3, 8) - 0.2, 0.9)
    x = torch.randn(6, 3, 2, dtype=torch.float64, requires_grad=True)
    slope = layer.slope.detach().clone().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x, s: torch.func.functional_call(layer, {"slope": s}, (x,)), (x, slope))


@settings(deadline=None, max_examples=60)
@given(low=st.floats(-4, 4), high=st.floats(-4, 4), seed=st.integers(0, 2**32 - 1))
def test_the_claim_is_the_steepest_stored_slope_and_is_attained(low, high, seed):
    low, high = min(low, high), max(low, high)
    slopes = low + (high - low) * torch.rand(2, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    layer = spline(slopes)
    assert layer.slopes() == (slopes.min().item(), slopes.max().item())
    claimed = layer.claim().lipschitz
    assert claimed == slopes.abs().max().item()
    t = torch.linspace(-2, 2, 4001, dtype=torch.float64)[:, None].repeat(1, 2)
    quotient = layer(t).detach().diff(dim=0).abs() / t.diff(dim=0)
    assert quotient.max() == pytest.approx(claimed, abs=1e-9)


def test_one_retraction_makes_any_slopes_monotone_and_1_lipschitz():
    layer = Spline(5, knots=7)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e4)
    constrain_steps(optimizer, layer)
    layer(torch.randn(50, 5)).square().sum().backward()
    optimizer.step()
    low, high = layer.slopes()
    assert 0 <= low <= high <= 1
    t = torch.linspace(-3, 3, 2001, dtype=torch.float64)[:, None].repeat(1, 5)
    rise = layer.double()(t).diff(dim=0)
    assert rise.min() >= -1e-14 and (rise <= t.diff(dim=0) + 1e-14).all()


def test_slopes_are_trained_towards_a_function():
    goal = spline([[0.1, 0.9, 0.3, 0.0, 0.7, 1.0]])
    layer = Spline(1, knots=5).double()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    constrain_steps(optimizer, layer)
    t = 2 * torch.randn(300, 1, dtype=torch.float64)
    for _ in range(250):
        optimizer.zero_grad()
        (layer(t) - goal(t)).square().mean().backward()
        optimizer.step()
    assert torch.allclose(layer.slope, goal.slope, atol=0.05)


# What is refused


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_claim_is_made_about_slopes_that_are_not_finite(value):
    slopes = torch.rand(2, 6)
    slopes[1, 3] = value
    flow = GradientFlow(4, 2, activation=Spline(2, knots=5))
    set_(flow.activation.slope, slopes)
    for layer in (spline(slopes), flow):
        with pytest.raises(InputError, match="finite"):
            layer.claim()


def test_a_nan_stays_a_nan():
    x = torch.tensor([[0.5, math.nan]])
    found = Spline(2)(x)
    assert found[0, 0] == 0.5 and found[0, 1].isnan()


@pytest.mark.parametrize(
    "arguments",
    [
        dict(width=0),
        dict(width=2, knots=1),
        dict(width=2, knots=8),
        dict(width=2, radius=0.0),
        dict(width=2, radius=math.inf),
    ],
)
def test_impossible_knots_are_refused(arguments):
    with pytest.raises(InputError, match="odd number of knots of at least 3"):
        Spline(**arguments)


def test_a_spline_of_another_width_is_refused():
    with pytest.raises(InputError, match=r"Inputs must have shape \(b, 3\)"):
        GradientFlow(5, 4, activation=Spline(3))(torch.randn(2, 5))
    with pytest.raises(InputError, match="Inputs must"):
        Spline(3)(torch.randn(3))


def test_a_certificate_covers_the_knots():
    layer = Spline(3, radius=1.0)
    other = Spline(3, radius=1.0000001)
    other.load_state_dict(layer.state_dict())
    verify(certify(layer), copy.deepcopy(layer))
    with pytest.raises(InputError, match="another architecture"):
        verify(certify(layer), other)


# In layers and critics


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.7, 1.0), (0.2, 3.0), (-2.0, -1.0)])
def test_a_residual_layer_with_any_slopes_is_bounded_by_its_claim_which_is_attained(low, high):
    slopes = low + (high - low) * torch.rand(3, 6)
    slopes[0, 0], slopes[1, -1] = low, high
    layer = GradientFlow(5, 3, activation=Spline(3, knots=5)).double()
    set_(layer.activation.slope, slopes)
    set_(layer.weight, torch.linalg.qr(torch.randn(5, 3, dtype=torch.float64)).Q.T)
    x = 30 * torch.randn(2000, 5, dtype=torch.float64)
    found = torch.linalg.svdvals(torch.func.vmap(torch.func.jacrev(lambda v: layer(v[None])[0]))(x)).max().item()
    claimed = layer.claim().lipschitz
    assert found <= claimed * (1 + 1e-12)
    assert found == pytest.approx(claimed, rel=1e-9)


def test_the_absolute_value_as_activation_is_known_to_expand():
    layer = GradientFlow(4, 2, activation=Absolute())
    assert layer.claim().lipschitz == pytest.approx(3.0, rel=1e-5)
    x = torch.zeros(1, 1, dtype=torch.float64)
    assert torch.equal(Absolute()(x - 2), x + 2)
    claim = Absolute().claim()
    assert (claim.lipschitz, claim.norm_in, claim.norm_out, claim.rounding.operations) == (1.0, None, None, 0)


@pytest.mark.parametrize("family", [ResNetCritic, FixedWidthCritic])
def test_critics_take_it_by_name_and_train_it(family):
    critic = family(3, depth=2, activation="spline")
    splines = [module for module in critic.modules() if isinstance(module, Spline)]
    assert len(splines) == 2 and splines[0] is not splines[1]
    before = [layer.slope.detach().clone() for layer in splines]
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.1)
    constrain_steps(optimizer, critic)
    for _ in range(3):
        optimizer.zero_grad()
        critic(torch.randn(64, 3)).square().sum().backward()
        optimizer.step()
        assert certify(critic).lipschitz <= 1
    assert all(not torch.equal(a, b.slope) for a, b in zip(before, splines))
    assert "radius=1.0" in certify(critic).layers[2].layer


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_the_error_encloses_the_50_digit_value(scale):
    slopes = (3 * torch.rand(3, 10, dtype=torch.float64) - 1).tolist()
    flow = GradientFlow(2, 3, activation=Spline(3, radius=0.7)).double()
    set_(flow.activation.slope, slopes)
    readout = Linear(Norm((2,)), Norm((1,))).double()
    outer = spline([[0.2, 1.5, -0.3, 0.4]])
    x = scale * torch.randn(10, 2, dtype=torch.float64)
    found = evaluate(nn.Sequential(flow, readout, outer, Squeeze()), x)
    with mpmath.workdps(50):
        weight, bias, tau = flow.weight.tolist(), flow.bias.tolist(), mpmath.mpf(flow.tau.item())
        for row, value, error in zip(x.tolist(), found.values.tolist(), found.error.tolist()):
            inner = [mpmath.fdot(w, row) + mpmath.mpf(b) for w, b in zip(weight, bias)]
            bent = [exact(s, 0.7, t) for s, t in zip(slopes, inner)]
            state = [mpmath.mpf(v) - tau * mpmath.fdot(c, bent) for v, c in zip(row, zip(*weight))]
            truth = exact([0.2, 1.5, -0.3, 0.4], 1.0, mpmath.fdot(readout.weight[0].tolist(), state))
            assert abs(truth - mpmath.mpf(value)) <= error
            assert error <= 1e-11 * (1 + scale)


def test_the_retraction_finds_a_spline_inside_a_layer():
    layer = GradientFlow(3, 2, activation="spline")
    set_(layer.activation.slope, 7.0)
    assert layer.claim().lipschitz > 10
    Retraction(layer)()
    assert layer.claim().lipschitz == 1.0
