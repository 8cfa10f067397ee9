"""The interval: a certified critic never exceeds W1, is exact where it can be, and a forged proof is caught."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wgan_lip.critics import FixedWidthCritic, ResNetCritic
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import Flatten, Linear, MaxMin, Squeeze
from wgan_lip.transport import Plan, solve
from wgan_lip.utils.checks import InputError, UncertifiableError
from wgan_lip.wasserstein.dual import fitted, kr_value
from wgan_lip.wasserstein.interval import InvariantViolation, bracket, estimate_ray_gradient_norm, kr_lower_bound

FAMILIES = {
    "A": lambda dim: ResNetCritic(dim, width=6, depth=2),
    "B": lambda dim: FixedWidthCritic(dim, depth=2),
}
BOTH = pytest.mark.parametrize("family", FAMILIES)


def linear_critic(direction, scale=1.0, dtype=torch.float64):
    """x ↦ scale · <direction, x> / ‖direction‖."""
    dim = len(direction)
    critic = nn.Sequential(Flatten(dim), Linear(Norm((dim,)), Norm((1,))), Squeeze()).double()
    direction = torch.as_tensor(direction, dtype=torch.float64)
    with torch.no_grad():
        critic[1].weight.copy_(scale * direction[None] / direction.norm())
    return critic.to(dtype)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(list(FAMILIES)),
    st.integers(1, 3),
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1.0, 1e-6, 1e6]),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.booleans(),
)
def test_no_critic_exceeds_w1(family, dim, n, m, seed, scale, noise, integers):
    torch.manual_seed(seed)
    critic = FAMILIES[family](dim)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    x, y = scale * torch.randn(n, dim).double(), scale * (torch.randn(m, dim).double() + 1)
    if integers:
        x, y = (x / scale * 2).round(), (y / scale * 2).round()
    interval = bracket(critic, x, y)
    assert 0 <= interval.lower <= interval.upper
    assert interval.lower <= solve(x, y).upper
    assert kr_lower_bound(critic, y, x) <= interval.upper


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_critic_trained_on_these_very_samples_stays_below(family, dtype):
    x, y = torch.randn(16, 2), torch.randn(20, 2) + torch.tensor([2.0, 0.0])
    critic = fitted(FAMILIES[family](2), x, y, steps=60, learning_rate=0.01).to(dtype)
    interval = bracket(critic, x, y)
    assert 0.4 * interval.upper < interval.lower <= interval.upper
    assert interval.lower <= interval.exact * (1 + 1e-12)
    assert (interval.n, interval.m, interval.dim) == (16, 20, 2)
    assert interval.certificate == certify(critic)


@BOTH
def test_a_constant_of_7_is_divided_out(family):
    critic = FAMILIES[family](2).double()
    x, y = torch.randn(9, 2) + 1, torch.randn(7, 2)
    if kr_value(critic, x.double(), y.double()) < 0:
        x, y = y, x
    before = kr_lower_bound(critic, x, y)
    assert before > 0
    with torch.no_grad():
        critic.readout.weight.mul_(7)
    assert certify(critic).lipschitz == pytest.approx(7, rel=1e-5)
    assert kr_lower_bound(critic, x, y) == pytest.approx(before, rel=1e-9)


@pytest.mark.parametrize("scale", [1.0, 7.0, 1e-8, 1e8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_a_linear_critic_is_exact_on_a_shift(scale, dtype, offset):
    shift = torch.tensor([3.0, -4.0, 12.0], dtype=torch.float64)
    x = torch.randint(-8, 8, (40, 3)).double() / 4 + offset
    interval = bracket(linear_critic(shift, scale, dtype), x + shift, x)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    assert interval.lower <= 13 <= interval.upper
    assert interval.lower == pytest.approx(13, rel=tolerance * (1 + offset / 13))
    assert interval.upper == pytest.approx(13, rel=1e-12)
    assert interval.exact == pytest.approx(13, rel=1e-12)


@BOTH
def test_equal_and_duplicated_samples(family):
    critic = FAMILIES[family](2)
    x = torch.randn(12, 2)
    assert kr_lower_bound(critic, x, x) == 0.0
    assert kr_lower_bound(critic, x, x.flip(0)) == 0.0
    assert bracket(critic, x, x).upper <= 1e-12
    assert kr_lower_bound(critic, x.repeat(3, 1), x) == 0.0
    y = torch.randn(5, 2) + 2
    once, twice = kr_lower_bound(critic, x, y), kr_lower_bound(critic, x.repeat(2, 1), y.repeat(4, 1))
    assert once == pytest.approx(twice, rel=1e-12, abs=1e-14)


def test_one_sample_each_and_other_input_types():
    critic = linear_critic([1.0, 0.0])
    assert kr_lower_bound(critic, [[3, 0]], [[0, 0]]) == pytest.approx(3, rel=1e-12)
    assert kr_lower_bound(critic, torch.tensor([[3, 0]]), torch.zeros(2, 2).numpy()) == pytest.approx(3, rel=1e-12)
    assert bracket(critic, torch.tensor([[3.0, 0.0]]).bfloat16(), [[0.0, 0.0]]).exact == 3.0


@pytest.mark.parametrize("scale", [1e-250, 1e-170, 1e-100, 1e100, 1e150])
def test_samples_of_any_unit_are_bracketed(scale):
    shift = torch.tensor([0.3, -0.7, 0.2], dtype=torch.float64)
    critic = linear_critic(shift)
    for seed in range(20):
        x = scale * torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        y = x - scale * shift
        interval = bracket(critic, x, y)
        assert interval.lower <= interval.upper
        slack = (interval.upper - interval.lower) / interval.upper
        assert 1e-16 < slack < 1e-10


def test_a_zero_critic_bounds_by_zero_and_an_unbounded_one_is_refused():
    zero = linear_critic([1.0, 0.0], 0.0)
    assert kr_lower_bound(zero, torch.ones(2, 2), torch.zeros(2, 2)) == 0.0
    critic = ResNetCritic(2, width=4, depth=4).double()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.mul_(1e60)
    with pytest.raises(InputError, match="Lipschitz constant is inf"):
        kr_lower_bound(critic, torch.ones(2, 2), torch.zeros(2, 2))


class Understated(Linear):
    """Twice a linear map, under the claim of once."""

    def forward(self, x):
        return 2 * super().forward(x)

    def claim(self):
        return super().claim()


def test_a_false_proof_is_caught_by_the_plan():
    layer = Understated(Norm((2,)), Norm((1,))).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0]]))
    critic = nn.Sequential(layer, Squeeze())
    x, y = torch.tensor([[5.0, 0.0], [5.0, 1.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    proved = certify(critic)
    with pytest.raises(
        InvariantViolation, match=f"exceeds the cost .*L = {proved.lipschitz!r}.*{proved.weights_sha256}"
    ):
        bracket(critic, x, y, certificate=proved)
    assert not issubclass(InvariantViolation, InputError)


def test_a_given_solution_is_used_and_caught_if_wrong():
    critic = linear_critic([1.0, 0.0])
    x, y = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    transport = solve(x, y)
    interval = bracket(critic, x, y, transport=transport)
    assert (interval.upper, interval.exact) == (transport.upper, transport.value)
    with pytest.raises(InputError, match="transport is not for these samples"):
        bracket(critic, x, y, transport=dataclasses.replace(transport, upper=4.9))


@pytest.mark.parametrize("function", [kr_lower_bound, bracket])
def test_what_is_no_potential_on_these_samples_is_refused(function):
    x, y = torch.randn(4, 2), torch.randn(4, 2)
    with pytest.raises(InputError, match=r"scalar potential on Euclidean\(2\), not a map from Euclidean\(3\)"):
        function(ResNetCritic(3, width=4, depth=1), x, y)
    with pytest.raises(InputError, match="to Euclidean"):
        function(nn.Sequential(nn.Linear(2, 2)), x, y)
    with pytest.raises(InputError, match=r"from max\(2\)"):
        function(nn.Sequential(MaxMin(2), Linear(Norm((1, 1)), Norm((1,))), Squeeze()), x, y)
    with pytest.raises(InputError, match="same dimension"):
        function(ResNetCritic(2, width=4, depth=1), x, torch.randn(4, 3))
    with pytest.raises(InputError, match="at least one sample"):
        function(ResNetCritic(2, width=4, depth=1), x[:0], y)
    with pytest.raises(InputError, match="finite"):
        function(ResNetCritic(2, width=4, depth=1), x, torch.full((1, 2), math.inf))
    with pytest.raises(UncertifiableError):
        function(nn.Sequential(nn.Linear(2, 1), nn.Dropout()), x, y)


def test_the_interval_leaves_critic_and_samples_alone():
    critic = FAMILIES["A"](2)
    x, y = torch.randn(4, 2, requires_grad=True), torch.randn(3, 2)
    before, state = copy.deepcopy(critic.state_dict()), torch.get_rng_state()
    bracket(critic, x, y)
    assert all(torch.equal(v, before[k]) for k, v in critic.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert x.grad is None
    assert critic.training


# Gradient norms along rays


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_a_linear_critic_has_its_own_norm_along_every_ray(scale):
    x, y = torch.randn(6, 2, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
    found = estimate_ray_gradient_norm(linear_critic([1.0, 2.0], scale), x, y, solve(x, y).plan)
    assert found == pytest.approx(scale, rel=1e-12)


def test_the_mean_over_rays_is_weighted_by_mass_and_takes_the_quarter_points():
    """f = max(0, x): gradient 1 right of 0, else 0; two rays, of which the second crosses 0 between 1/4 and 1/2."""
    critic = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), Squeeze()).double()
    with torch.no_grad():
        critic[0].weight.fill_(1.0)
        critic[0].bias.zero_()
    x, y = torch.tensor([[1.0], [-0.4]]).double(), torch.tensor([[2.0], [0.6]]).double()
    for mass in ([0.5, 0.5], [0.1, 0.9]):
        plan = Plan([0, 1], [0, 1], mass, (2, 2))
        expected = mass[0] * 1 + mass[1] * 2 / 3
        assert estimate_ray_gradient_norm(critic, x, y, plan) == pytest.approx(expected, rel=1e-12)


@BOTH
def test_rays_never_show_more_than_the_constant(family):
    critic = FAMILIES[family](2).double()
    x, y = torch.randn(10, 2, dtype=torch.float64), torch.randn(10, 2, dtype=torch.float64) + 3
    assert 0 <= estimate_ray_gradient_norm(critic, x, y, solve(x, y).plan) <= certify(critic).lipschitz + 1e-12
    assert all(p.grad is None for p in critic.parameters())


def test_rays_take_the_same_samples_as_the_interval():

    critic = ResNetCritic(2, width=4, depth=1)
    x, y = torch.randn(4, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    assert bracket(critic, x, y).upper > 0
    assert 0 < estimate_ray_gradient_norm(critic, x, y, solve(x, y).plan) <= 1 + 1e-5
