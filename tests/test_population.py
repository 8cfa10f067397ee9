"""Confidence bounds on W1 of the laws: judged by laws whose W1 is known, by 50 digits, and by counted failures."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from wgan_lip.critics import ResNetCritic
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import Flatten, Linear, MaxMin, Squeeze
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError, UncertifiableError
from wgan_lip.wasserstein.population import (
    _unit_interval,
    bernstein_lower_bound,
    betting_lower_bound,
    clip_range,
    differences,
    normal_lower_bound,
    population_bounds,
)

FINITE = {"betting": betting_lower_bound, "bernstein": bernstein_lower_bound}
METHODS = pytest.mark.parametrize("method", ["betting", "bernstein", "normal"])
BOUNDED = pytest.mark.parametrize("bound", FINITE.values(), ids=FINITE)

# Bounded laws on [0, 1] with their means: the critic x ↦ x attains W1 between such a law and the unit mass at 0.
LAWS = {
    "uniform": (lambda rng, shape: rng.random(shape), 0.5),
    "narrow": (lambda rng, shape: 0.5 + 0.1 * (rng.random(shape) - 0.5), 0.5),
    "skewed": (lambda rng, shape: rng.random(shape) ** 4, 0.2),
    "coin": (lambda rng, shape: (rng.random(shape) < 0.3) * 1.0, 0.3),
}
RARE = 1 / 500
LAWS_AND_RARE = {**LAWS, "rare zeros": (lambda rng, shape: (rng.random(shape) >= RARE) * 1.0, 1 - RARE)}


def linear_critic(direction, scale=1.0, bias=0.0):
    """x ↦ scale · <direction, x> / ‖direction‖ + bias."""
    dim = len(direction)
    critic = nn.Sequential(Flatten(dim), Linear(Norm((dim,)), Norm((1,))), Squeeze()).double()
    direction = torch.as_tensor(direction, dtype=torch.float64)
    with torch.no_grad():
        critic[1].weight.copy_(scale * direction[None] / direction.norm())
        critic[1].bias.fill_(bias)
    return critic


# Coverage


@BOUNDED
@pytest.mark.parametrize("law", LAWS_AND_RARE)
def test_finite_sample_bounds_cover_bounded_laws_rare_values_included(bound, law):
    draw, mean = LAWS_AND_RARE[law]
    for n in (20, 500):
        bounds = bound(draw(np.random.default_rng(1), (1000, n)), 0.0, 1.0, 0.95)
        assert bounds.shape == (1000,)
        assert (bounds <= mean).mean() >= 0.94


@pytest.mark.parametrize("law", ["uniform", "narrow", "coin"])
def test_the_normal_bound_covers_at_its_level_where_samples_are_many(law):
    draw, mean = LAWS[law]
    covered = normal_lower_bound(draw(np.random.default_rng(2), (4000, 500)), 0.95) <= mean
    assert 0.93 <= covered.mean() <= 0.97


def test_the_normal_bound_on_a_difference_covers_with_unequal_sizes_and_variances():
    rng = np.random.default_rng(3)
    x, y = 1 + 3 * rng.standard_normal((4000, 300)), rng.standard_normal((4000, 900))
    assert 0.935 <= (normal_lower_bound(x, 0.95, minus=y) <= 1).mean() <= 0.965
    assert 0.935 <= (normal_lower_bound(y, 0.95, minus=x) <= -1).mean() <= 0.965


def test_the_normal_bound_fails_where_rare_values_carry_the_mean():
    draw, mean = LAWS_AND_RARE["rare zeros"]
    covered = normal_lower_bound(draw(np.random.default_rng(4), (1000, 500)), 0.95) <= mean
    assert covered.mean() < 0.7  # a sample without a zero has no variance: 1/e of them


@METHODS
@pytest.mark.parametrize("dim", [1, 2])
def test_both_ends_cover_w1_of_shifted_laws_for_unequal_sizes(method, dim):
    """P is Q shifted by 1/4 along the first axis, Q uniform on the unit cube: W1 = 1/4, the critic is linear."""
    rng = np.random.default_rng(5)
    critic = linear_critic([1.0, 0.0][:dim])
    certificate = certify(critic)
    diameters = (math.sqrt(dim), math.sqrt(dim))
    lower = []
    for repetition in range(100):
        x, y = rng.random((60, dim)) + 0.25 * np.eye(dim)[0], rng.random((90, dim))
        found = population_bounds(
            critic, x, y, clip=(0.0, 1.25), method=method, certificate=certificate, diameters=diameters, seed=repetition
        )
        assert found.upper >= 0.25
        assert (found.level, found.method, found.n, found.m, found.dim) == (0.95, method, 60, 90, dim)
        lower.append(found.lower)
    assert np.mean(np.array(lower) <= 0.25) >= (0.93 if method == "normal" else 0.97)
    assert np.mean(lower) > (0.08 if method != "bernstein" else -1)


def test_a_gaussian_pair_is_bounded_without_known_support_because_clipping_is_lipschitz():
    """N(t, I) and N(0, I) in two dimensions: W1 = |t|."""
    shift = torch.tensor([0.6, 0.8], dtype=torch.float64)
    critic = linear_critic(shift)
    clip = clip_range(critic, torch.randn(2000, 2).double() + shift, torch.randn(2000, 2).double())
    lower = []
    for repetition in range(100):
        x, y = torch.randn(400, 2, dtype=torch.float64) + shift, torch.randn(400, 2, dtype=torch.float64)
        found = population_bounds(critic, x, y, clip=clip, seed=repetition)
        assert found.upper is None
        lower.append(found.lower)
    assert np.mean(np.array(lower) <= 1) >= 0.94
    assert 0.75 < np.mean(lower) < 0.95


def test_a_critic_that_learnt_the_samples_is_held_to_account_on_fresh_ones():
    """P = Q uniform on the cube in six dimensions, W1 = 0, where 30 samples each are 0.5 apart."""
    rng = np.random.default_rng(6)
    x, y = rng.random((30, 6)), rng.random((30, 6))
    assert solve(x, y).value > 0.4
    assert population_bounds(ResNetCritic(6, width=8, depth=1), x, y, clip=(-1.0, 1.0)).lower == 0.0


@METHODS
def test_samples_that_were_sorted_after_being_drawn_do_no_harm(method):
    """P = Q, where pairs of equal ranks would hide the variance."""
    rng, critic = np.random.default_rng(7), linear_critic([1.0])
    certificate = certify(critic)
    positive = 0
    for repetition in range(100):
        x, y = np.sort(rng.random((80, 1)), axis=0), np.sort(rng.random((80, 1)), axis=0)
        found = population_bounds(
            critic, x, y, clip=(0.0, 1.0), method=method, certificate=certificate, seed=repetition
        )
        positive += found.lower > 0
    assert positive <= 9


@pytest.mark.parametrize("known", [("diameters", 1.0), ("generators", 0.5)])
def test_the_upper_deviation_is_large_enough_where_the_value_is_a_mean(known):
    """Far-apart laws on the line: W1 of samples is the difference of means, whose deviation has a known law."""
    name, number = known
    rng, critic = np.random.default_rng(8), linear_critic([1.0])
    certificate, covered = certify(critic), []
    for _ in range(300):
        x, y = 10 + (rng.random((12, 1)) < 0.5), 1.0 * (rng.random((7, 1)) < 0.5)
        if name == "generators":  # half of a standard normal
            x, y = 10 + 0.5 * rng.standard_normal((12, 1)), 0.5 * rng.standard_normal((7, 1))
        found = population_bounds(
            critic, x, y, clip=(0.0, 11.0), level=0.8, certificate=certificate, **{name: (number, number)}
        )
        covered.append(found.upper >= 10)
    assert np.mean(covered) >= 0.95  # half the root would cover 0.86


# Against the formulas, in 50 digits


def exact(z, level, low=None, high=None):
    """The normal bound, or with a range the empirical Bernstein bound, of the stored numbers."""
    with mpmath.workdps(50):
        z, n, alpha = [mpmath.mpf(float(v)) for v in z], len(z), 1 - mpmath.mpf(level)
        mean = mpmath.fsum(z) / n
        variance = mpmath.fsum((v - mean) ** 2 for v in z) / (n - 1)
        if low is None:
            return mean - mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(level) - 1) * mpmath.sqrt(variance / n)
        log = mpmath.log(2 / alpha)
        width = mpmath.mpf(high) - mpmath.mpf(low)
        return mean - mpmath.sqrt(2 * variance * log / n) - 7 * width * log / (3 * (n - 1))


SAMPLES = st.tuples(
    st.lists(st.floats(0, 1, width=32), min_size=2, max_size=30),
    st.sampled_from([0.0, 1.0, -1e6]),
    st.sampled_from([1e-200, 1e-3, 1.0, 1e200]),
    st.sampled_from([0.5, 0.8, 0.95, 1 - 1e-9]),
)


@settings(deadline=None, max_examples=80)
@given(SAMPLES)
def test_normal_and_bernstein_bounds_are_their_formulas_rounded_down(case):
    values, offset, scale, level = case
    z = scale * (np.array(values) + offset)
    low, high = scale * offset, scale * (offset + 1)
    tolerance = 1e-13 * scale * (1 + abs(offset)) * len(z)
    normal, wanted = normal_lower_bound(z, level), exact(z, level)
    assert normal <= wanted
    assert normal >= wanted - tolerance
    bernstein, wanted = bernstein_lower_bound(z, low, high, level), max(mpmath.mpf(low), exact(z, level, low, high))
    assert bernstein <= wanted
    assert bernstein >= wanted - tolerance


@settings(deadline=None, max_examples=25)
@given(SAMPLES)
def test_the_betting_bound_is_where_the_capital_first_reaches_its_target(case):
    values, _, scale, level = case
    z = np.array(values)
    bound = betting_lower_bound(scale * z, 0.0, scale, level) / scale
    with mpmath.workdps(50):
        z, n, target = [mpmath.mpf(v) for v in values], len(values), 1 / (1 - mpmath.mpf(level))
        total, squares, bets = mpmath.mpf(1) / 2, mpmath.mpf(1) / 4, []
        for i, value in enumerate(z, start=1):
            bets.append(mpmath.sqrt(2 * mpmath.log(target) / (n * squares / i)))
            total += value
            squares += (value - total / (i + 1)) ** 2

        def largest_capital(mean):
            capitals = [mpmath.mpf(1)]
            for value, bet in zip(z, bets):
                capitals.append(capitals[-1] * (1 + min(bet, mpmath.mpf(3) / 4 / mean) * (value - mean)))
            return max(capitals[1:])

        assert bound >= 0
        if bound > 0:
            assert largest_capital(mpmath.mpf(float(bound)) * (1 - mpmath.mpf(10) ** -14)) >= target
        assert largest_capital(mpmath.mpf(float(bound)) + mpmath.mpf(10) ** -11) < target


def test_the_upper_bound_is_the_value_of_the_samples_plus_the_stated_root():
    x, y = np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 1.0], [0.5, 1.0]])
    critic, transport = linear_critic([0.0, -1.0]), solve(x, y)
    log = math.log(2 / 0.1)  # half of 10 % for each end

    def upper(**known):
        return population_bounds(critic, x, y, clip=(-1.0, 0.0), level=0.9, transport=transport, **known).upper

    wanted = transport.upper + math.sqrt(log / 2 * (2.0**2 / 2 + 3.0**2 / 3))
    assert upper(diameters=(2.0, 3.0)) == pytest.approx(wanted, rel=1e-14)
    wanted = transport.upper + math.sqrt(2 * log * (2.0**2 / 2 + 3.0**2 / 3))
    assert upper(generators=(2.0, 3.0)) == pytest.approx(wanted, rel=1e-14)
    wanted = transport.upper + math.sqrt(log * (2.0**2 / 2 / 2 + 2 * 3.0**2 / 3))
    assert upper(diameters=(2.0, None), generators=(None, 3.0)) == pytest.approx(wanted, rel=1e-14)
    assert upper(diameters=(2.0, 3.0), generators=(5.0, 1.0)) == upper(diameters=(2.0, 2.0))
    assert upper(diameters=(2.0, None)) is None


# Laws of the bounds


def test_betting_is_the_tighter_of_the_two_that_hold_at_every_size():
    rng = np.random.default_rng(9)
    for draw, _ in LAWS_AND_RARE.values():
        for n in (20, 500):
            z = draw(rng, (200, n))
            betting, bernstein = (FINITE[name](z, 0.0, 1.0, 0.95) for name in ("betting", "bernstein"))
            assert (betting >= bernstein - 1e-12).all()


@pytest.mark.parametrize("law", LAWS)
def test_slack_falls_like_the_root_of_the_number_of_samples(law):
    rng = np.random.default_rng(10)
    few, many = (LAWS[law][0](rng, shape) for shape in ((200, 500), (20, 8000)))

    def ratio(bound, *arguments):
        return (few.mean(axis=1) - bound(few, *arguments)).mean() / (many.mean(axis=1) - bound(many, *arguments)).mean()

    assert 3.9 < ratio(normal_lower_bound, 0.95) < 4.1
    assert 3.6 < ratio(betting_lower_bound, 0.0, 1.0, 0.95) < (9 if law == "narrow" else 4.6)
    assert 4 < ratio(bernstein_lower_bound, 0.0, 1.0, 0.95) < 16  # from the root to the range


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from(list(LAWS)), st.integers(2, 100))
def test_more_confidence_is_never_a_higher_bound(seed, law, n):
    z = LAWS[law][0](np.random.default_rng(seed), (20, n))
    levels = [0.5, 0.8, 0.9, 0.95, 0.99, 1 - 1e-6]
    for bound in (*FINITE.values(), lambda z, low, high, level: normal_lower_bound(z, level)):
        bounds = np.array([bound(z, 0.0, 1.0, level) for level in levels])
        assert (np.diff(bounds, axis=0) <= 1e-12).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-250, 1e-3, 7.0, 1e250]), st.sampled_from([0.0, -3.0, 100.0]))
def test_bounds_follow_an_affine_change_of_unit(seed, scale, offset):
    z = LAWS["uniform"][0](np.random.default_rng(seed), (5, 40))
    low, high = scale * offset, scale * (offset + 1)
    moved = np.clip(scale * (z + offset), low, high)
    for bound in FINITE.values():
        found = bound(moved, low, high, 0.9) / scale
        assert found == pytest.approx(bound(z, 0.0, 1.0, 0.9) + offset, rel=1e-11, abs=1e-11)
    assert normal_lower_bound(moved, 0.9) / scale == pytest.approx(normal_lower_bound(z, 0.9) + offset, rel=1e-12)


def test_constant_samples_cost_only_what_the_range_does():
    z = np.full(100, 0.7)
    log = math.log(40)
    assert 0.7 - 1e-13 < normal_lower_bound(z, 0.95) <= 0.7
    assert bernstein_lower_bound(z, 0.0, 1.0, 0.95) == pytest.approx(0.7 - 7 * log / 3 / 99, abs=1e-12)
    assert 0.7 - 1.5 * log / 100 < betting_lower_bound(z, 0.0, 1.0, 0.95) <= 0.7
    for bound in FINITE.values():
        assert bound(np.zeros(100), 0.0, 1.0, 0.95) == 0.0
    assert bernstein_lower_bound(np.ones(2), -5.0, 1.0, 0.95) == -5.0  # no mean is less than the range


def test_a_batch_is_bounded_row_by_row_and_any_kind_of_array_is_taken():
    z = np.random.default_rng(11).random((3, 2, 50))
    for bound in (*FINITE.values(), lambda z, low, high, level: normal_lower_bound(z, level)):
        bounds = bound(z, 0.0, 1.0, 0.95)
        assert bounds.shape == (3, 2)
        assert bounds[2, 1] == bound(torch.tensor(z[2, 1]), 0.0, 1.0, 0.95) == bound(z[2, 1].tolist(), 0.0, 1.0, 0.95)


# Two samples and a critic


@METHODS
def test_the_critics_constant_is_divided_out(method):
    x, y = torch.rand(50, 1, dtype=torch.float64) + 2, torch.rand(40, 1, dtype=torch.float64)
    once = population_bounds(linear_critic([1.0]), x, y, clip=(0.0, 3.0), method=method)
    scaled = population_bounds(linear_critic([1.0], 7.0), x, y, clip=(0.0, 21.0), method=method)
    assert scaled.lower == pytest.approx(once.lower, rel=1e-10)
    assert 0.5 < once.lower < 2.5
    assert population_bounds(linear_critic([1.0], 0.0), x, y, clip=(-1.0, 1.0), method=method).lower == 0.0


def test_groups_of_unequal_size_leave_no_sample_out():
    critic, x, y = linear_critic([1.0]), torch.ones(100, 1), torch.zeros(60, 1)

    def lower(**changes):
        return population_bounds(critic, **{"x": x, "y": y, "clip": (0.0, 1.0), "level": 0.5} | changes).lower

    assert lower(method="bernstein") == pytest.approx(1 - 7 * 2 * math.log(4) / 3 / 59, rel=1e-12)
    for place in range(100):
        less = x.clone()
        less[place] = 0.0
        assert lower(x=less) < lower()
        assert lower(x=x[:60] + 0.0, y=1 - less) < lower()  # now y is the larger sample


def test_order_and_groups_are_drawn_by_the_seed():
    critic, x, y = linear_critic([1.0]), torch.linspace(1, 2, 300)[:, None], torch.zeros(200, 1)
    lowers = [population_bounds(critic, x, y, clip=(0.0, 2.0), seed=seed).lower for seed in (0, 0, 1, 2)]
    assert lowers[0] == lowers[1]
    assert len(set(lowers)) == 3
    assert 1.3 < min(lowers) <= max(lowers) < 1.5


@pytest.mark.parametrize("method", ["betting", "normal"])
@settings(deadline=None, max_examples=25)
@given(st.floats(-4, 4), st.floats(-4, 4), st.sampled_from([0.0, 1e8, 1e15, -7e15]))
@example(0.07, 0.0, 1e15)
def test_rounding_of_the_critic_never_lifts_the_bound(method, a, b, bias):
    """f(x) = (x + bias) − bias, which rounds to multiples of 1/8 and more; W1 of unit masses at a and b is |a − b|."""
    critic = nn.Sequential(linear_critic([1.0], bias=bias)[:2], linear_critic([1.0], bias=-bias)[1:])
    x, y = torch.full((400, 1), a, dtype=torch.float64), torch.full((401, 1), b, dtype=torch.float64)
    found = population_bounds(critic, x, y, clip=(-4.0, 4.0), method=method, level=0.5)
    assert found.lower <= abs(a - b)
    if bias == 0 and a > b:
        assert found.lower == pytest.approx(a - b, abs=1e-12 if method == "normal" else 0.05)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e6]))
def test_differences_are_those_of_group_means_rounded_down(n, m, seed, offset):
    rng = np.random.default_rng(seed)
    samples, count = (offset + rng.random(n), offset + rng.random(m)), min(n, m)
    found = differences(*samples, 1.0)
    assert found.shape == (count,)
    edges = [np.arange(count + 1) * len(sample) // count for sample in samples]
    assert all(np.ptp(np.diff(edge)) <= 1 for edge in edges)
    for i, difference in enumerate(found):
        parts = [sample[edge[i] : edge[i + 1]] for sample, edge in zip(samples, edges)]
        means = [sum(map(Fraction, part)) / len(part) for part in parts]
        assert Fraction(difference) <= means[0] - means[1]
        assert difference >= float(means[0] - means[1]) - 1e-14 * (1 + offset)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_values_are_scaled_to_the_unit_interval_rounding_down(values, low, reach):
    high = low + reach
    values = np.clip(low + reach * np.array(values), low, high)
    unit, width = _unit_interval(values, low, high)
    assert 0 <= unit.min() <= unit.max() <= 1
    for scaled, value in zip(unit, values):
        assert Fraction(low) + Fraction(width) * Fraction(scaled) <= Fraction(value)
    assert low + width * unit == pytest.approx(values, rel=1e-12, abs=1e-12 * reach)


@METHODS
def test_overflow_in_the_critic_counts_as_the_worst_value(method):
    critic = linear_critic([1.0, 1.0])
    huge = torch.full((30, 2), 1.7e308, dtype=torch.float64)
    near = torch.zeros(30, 2, dtype=torch.float64)
    assert population_bounds(critic, huge, near, clip=(0.0, 1.0), method=method).lower == 0.0
    assert population_bounds(critic, near + 1, -huge, clip=(0.0, 1.0), method=method).lower == 0.0
    assert population_bounds(critic, near + 1, near, clip=(0.0, 1.0), method=method).lower > 0.0


def test_a_given_certificate_and_a_given_solution_are_used():
    critic, x, y = linear_critic([1.0]), torch.ones(200, 1), torch.zeros(200, 1)
    certificate, transport = certify(critic), solve(x, y)
    known = {"clip": (0.0, 1.0), "diameters": (0.0, 0.0)}
    plain = population_bounds(critic, x, y, **known)
    assert plain == population_bounds(critic, x, y, **known, certificate=certificate, transport=transport)
    weaker = dataclasses.replace(certificate, lipschitz=2.0)
    with pytest.raises(InputError, match="altered"):
        population_bounds(critic, x, y, **known, certificate=weaker)
    looser = dataclasses.replace(transport, upper=9.0)
    assert population_bounds(critic, x, y, **known, transport=looser).upper == pytest.approx(9.0)
    other = dataclasses.replace(certificate, norm_in="Euclidean(5)")
    with pytest.raises(InputError, match="Euclidean"):
        population_bounds(critic, x, y, **known, certificate=other)


def test_two_ends_share_the_level_and_one_end_has_it_alone():
    x, y = torch.rand(80, 1, dtype=torch.float64) + 1, torch.rand(80, 1, dtype=torch.float64)
    critic = linear_critic([1.0])
    both = population_bounds(critic, x, y, clip=(0.0, 2.0), level=0.9, diameters=(1.0, 1.0))
    alone = population_bounds(critic, x, y, clip=(0.0, 2.0), level=0.95)
    assert both.lower == alone.lower < 1 < both.upper
    assert (both.level, alone.level, alone.upper) == (0.9, 0.95, None)
    assert any("Each end alone holds at level 0.95" in sentence for sentence in both.assumptions)
    assert any("P has a support of diameter at most 1." in sentence for sentence in both.assumptions)
    assert any("no upper bound" in sentence and "P and of Q" in sentence for sentence in alone.assumptions)
    half = population_bounds(critic, x, y, clip=(0.0, 2.0), generators=(0.3, None), method="normal")
    assert half.upper is None
    assert any("0.3-Lipschitz generator" in sentence for sentence in half.assumptions)
    assert any("no upper bound" in sentence and "of Q," in sentence for sentence in half.assumptions)
    assert any("central limit theorem" in sentence for sentence in half.assumptions)


def test_the_clip_range_leaves_out_few_extremes_and_never_all():
    critic = linear_critic([1.0])
    x = torch.arange(1000.0)[:, None]
    assert clip_range(critic, x[:500], x[500:]) == (5.0, 994.0)
    assert clip_range(critic, x[:2], x[2:5]) == (0.0, 4.0)
    rare = torch.ones(1000, 1)
    rare[0] = 0.0
    assert clip_range(critic, rare, rare[:1]) == (0.0, 1.0)
    with pytest.raises(InputError, match="trained critic, which is not constant"):
        clip_range(critic, rare[1:], rare[1:])


# Refusals


def test_what_cannot_be_bounded_is_refused_with_a_remedy():
    critic, x, y = linear_critic([1.0, 0.0]), torch.rand(5, 2), torch.rand(5, 2)
    for level in (0.0, 1.0, -1.0, 95.0, math.nan):
        with pytest.raises(InputError, match="level must be between 0 and 1"):
            population_bounds(critic, x, y, clip=(0.0, 1.0), level=level)
        for bound in FINITE.values():
            with pytest.raises(InputError, match="level must be between 0 and 1"):
                bound([0.0, 1.0], 0.0, 1.0, level)
        with pytest.raises(InputError, match="level must be between 0 and 1"):
            normal_lower_bound([0.0, 1.0], level)
    for clip in ((1.0, 1.0), (1.0, 0.0), (0.0, math.inf), (math.nan, 1.0)):
        with pytest.raises(InputError, match="range must be finite.*clip_range"):
            population_bounds(critic, x, y, clip=clip)
    with pytest.raises(InputError, match="x must have at least 2 samples"):
        population_bounds(critic, x[:1], y, clip=(0.0, 1.0))
    with pytest.raises(InputError, match="y must have at least 2 samples"):
        population_bounds(critic, x, y[:1], clip=(0.0, 1.0))
    with pytest.raises(InputError, match="method must be one of"):
        population_bounds(critic, x, y, clip=(0.0, 1.0), method="hoeffding")
    line = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])  # farther apart than any is from the first
    with pytest.raises(InputError, match="Samples of P are 2.0 apart, beyond the diameter 1.9"):
        population_bounds(critic, line, y, clip=(0.0, 1.0), diameters=(1.9, 2.0))
    assert population_bounds(critic, line, y, clip=(0.0, 1.0), diameters=(2.0, 2.0)).upper > 0
    for number in (-1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="diameter for Q must be finite"):
            population_bounds(critic, x, y, clip=(0.0, 1.0), diameters=(2.0, number))
        with pytest.raises(InputError, match="Lipschitz constant for Q must be finite"):
            population_bounds(critic, x, y, clip=(0.0, 1.0), generators=(2.0, number))
    for bound in FINITE.values():
        with pytest.raises(InputError, match="fixed before"):
            bound([0.0, 1.0 + 1e-12], 0.0, 1.0, 0.95)
        with pytest.raises(InputError, match="At least two values"):
            bound([0.5], 0.0, 1.0, 0.95)
        with pytest.raises(InputError, match="must be finite"):
            bound([0.5, math.nan], 0.0, 1.0, 0.95)


def test_what_is_no_potential_on_these_samples_is_refused():
    x, y = torch.rand(5, 2), torch.rand(5, 2)
    for critic, message in (
        (ResNetCritic(3, width=4, depth=1), r"scalar potential on Euclidean\(2\), not a map from Euclidean\(3\)"),
        (nn.Sequential(nn.Linear(2, 2)), "to Euclidean"),
        (nn.Sequential(MaxMin(2), Linear(Norm((1, 1)), Norm((1,))), Squeeze()), r"from max\(2\)"),
    ):
        with pytest.raises(InputError, match=message):
            population_bounds(critic, x, y, clip=(0.0, 1.0))
    with pytest.raises(UncertifiableError):
        population_bounds(nn.Sequential(nn.Linear(2, 1), nn.Dropout()), x, y, clip=(0.0, 1.0))
    wild = ResNetCritic(2, width=4, depth=4).double()
    with torch.no_grad():
        for parameter in wild.parameters():
            parameter.mul_(1e60)
    with pytest.raises(InputError, match="Lipschitz constant is inf"):
        population_bounds(wild, x, y, clip=(0.0, 1.0))
