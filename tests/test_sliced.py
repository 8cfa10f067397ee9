"""The interval of sliced W1 holds as often as it says, where the truth has a closed form, and is not idle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad

import wgan_lip
from wgan_lip.benchmarks import coverage
from wgan_lip.utils.checks import InputError
from wgan_lip.wasserstein.sliced import mean_bounds, mean_projection, sliced_w1


def trimmed_normal(trim: float) -> float:
    """(1/(1 − 2δ)) ∫ |Φ⁻¹(u)| du from δ to 1 − δ."""
    found, _ = quad(lambda u: abs(stats.norm.ppf(u)), trim, 1 - trim, points=[0.5])
    return found / (1 - 2 * trim)


@pytest.mark.parametrize("dim", [1, 2, 3, 10, 768])
def test_the_mean_projection_is_the_first_moment_of_a_coordinate_on_the_sphere(dim):
    by_beta = 1.0 if dim == 1 else stats.beta(0.5, (dim - 1) / 2).expect(np.sqrt)
    assert mean_projection(dim) == pytest.approx(by_beta, rel=1e-6)


def _normals(rng, n, dim, shift, scale):
    x, y = torch.randn(2, n, dim, generator=rng, dtype=torch.float64)
    return x, scale * y + shift / math.sqrt(dim)


LAWS = {
    # Name: a pair of n samples each, sliced W1 of the laws trimmed by δ.
    "shift": (lambda rng, n: _normals(rng, n, 3, 2.0, 1.0), lambda trim: 2 * mean_projection(3)),
    "dilation": (lambda rng, n: _normals(rng, n, 2, 0.0, 3.0), lambda trim: 2 * trimmed_normal(trim)),
    "equal": (lambda rng, n: _normals(rng, n, 2, 0.0, 1.0), lambda trim: 0.0),
    "line": (lambda rng, n: _normals(rng, n, 1, 1.0, 1.0), lambda trim: 1.0),
    "no mean": (
        lambda rng, n: [torch.randn(n, 2, generator=rng) / torch.randn(n, 1, generator=rng).abs() + by for by in (0, 5)],
        lambda trim: math.hypot(5, 5) * mean_projection(2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAWS)
def test_the_interval_covers_the_truth(name):
    draw, truth = LAWS[name]
    rng, level, trim, missed = torch.Generator().manual_seed(1), 0.8, 0.2, 0
    for seed in range(50):
        found = sliced_w1(*draw(rng, 300), trim=trim, level=level, directions=40, seed=seed)
        assert found.lower <= found.value <= found.upper
        missed += not found.lower <= truth(trim) <= found.upper
    assert missed <= stats.binom.ppf(0.999, 50, 1 - level)


def test_more_samples_narrow_the_interval_around_the_truth():
    rng = torch.Generator().manual_seed(2)
    x, y = _normals(rng, 10_000, 2, 3.0, 1.0)
    widths = []
    for n in (1000, 10_000):
        found = sliced_w1(x[:n], y[:n], directions=300)
        assert found.lower <= 3 * mean_projection(2) <= found.upper
        widths.append(found.upper - found.lower)
    assert widths[1] < 0.7 and widths[1] < 0.65 * widths[0]
    assert 1.9 < found.w1_lower < 3  # W1 of the laws


def test_on_the_line_the_interval_is_that_of_the_bands():
    """Against the bands' definition, integrated at many more levels, as the authors' own programme does."""
    rng = np.random.default_rng(0)
    x, y, trim, level = rng.gamma(2.0, size=700), rng.normal(1.0, 2.0, size=500), 0.15, 0.9
    u = trim + (1 - 2 * trim) * (np.arange(200_000) + 0.5) / 200_000

    def band(samples):
        shift = math.sqrt(math.log(4 / (1 - level)) / (2 * len(samples)))
        return [np.quantile(samples, u + by, method="inverted_cdf") for by in (-shift, shift)]

    (x_low, x_high), (y_low, y_high) = band(x), band(y)
    low = np.maximum(np.maximum(x_low - y_high, y_low - x_high), 0).mean()
    high = np.maximum(x_high - y_low, y_high - x_low).mean()
    found = sliced_w1(x, y, trim=trim, level=level)
    assert found.directions == 1
    assert 0.95 * low <= found.lower <= low and high <= found.upper <= 1.02 * high
    own = [np.quantile(samples, u, method="inverted_cdf") for samples in (x, y)]
    assert found.value == pytest.approx(np.abs(own[0] - own[1]).mean(), rel=1e-4)


def test_without_trimming_the_value_is_w1_on_the_line_and_there_is_no_upper_end():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=37), rng.normal(size=53)
    found = sliced_w1(x, y, trim=0.0)
    assert found.value == pytest.approx(stats.wasserstein_distance(x, y), rel=1e-12)
    assert found.upper is None and "no upper bound" in str(found)


def test_without_trimming_there_is_a_lower_end_in_the_plane_too():
    x, y = _normals(torch.Generator().manual_seed(5), 3000, 2, 4.0, 1.0)
    found, trimmed = (sliced_w1(x, y, trim=trim, directions=300) for trim in (0.0, 0.1))
    assert found.upper is None and 1.6 < found.lower <= 4 * mean_projection(2)
    assert trimmed.w1_lower < found.w1_lower <= 4


def test_the_interval_moves_with_the_units_and_not_with_the_origin():
    rng = torch.Generator().manual_seed(3)
    x, y = _normals(rng, 800, 4, 2.0, 1.5)
    found, moved = (sliced_w1(*pair, directions=50) for pair in ((x, y), (1000 * x + 7e5, 1000 * y + 7e5)))
    for end in ("lower", "value", "upper", "w1_lower"):
        assert getattr(moved, end) == pytest.approx(1000 * getattr(found, end), rel=1e-6)


@pytest.mark.parametrize("dim", [2, 30])
def test_the_mean_over_directions_is_bounded_as_often_as_it_says(dim):
    """Where w is known: ρ|θ₁| has the largest tails that the range allows, by Note [Errors of two kinds]."""
    rng, level, reach = np.random.default_rng(4), 0.8, 3.0
    truth, below, above = reach * mean_projection(dim), 0, 0
    for _ in range(300):
        theta = rng.normal(size=(60, dim))
        w = reach * np.abs(theta[:, 0]) / np.linalg.norm(theta, axis=1)
        lower, upper = mean_bounds(w, w, reach, reach, dim, level)
        below, above = below + (lower > truth), above + (upper < truth)
    assert max(below, above) <= stats.binom.ppf(0.999, 300, 1 - level)
    assert 0.7 * truth < lower and upper < 1.6 * truth  # and the ends are not idle


def test_the_suite_counts_how_often_the_interval_covers():
    row = coverage._sliced_row("dilation by 2", 2, 600, 0, repetitions=3)
    assert row["sliced_w1"] == pytest.approx(trimmed_normal(0.1), rel=1e-6)
    assert row["coverage"] == 1 and row["lower"] < row["sliced_w1"] < row["upper"]
    assert "| dilation by 2 | 2 | 600 |" in coverage._sliced_table([row])


def test_identical_samples_and_constant_ones_are_no_trouble():
    x = torch.randn(300, 3)
    assert sliced_w1(x, x, directions=20).lower == 0.0
    found = sliced_w1(torch.zeros(1000, 2), torch.zeros(1000, 2) + torch.tensor([3.0, 4.0]), directions=400)
    assert found.lower <= 5 * mean_projection(2) <= found.upper and 3.5 < found.w1_lower <= 5
    assert sliced_w1(torch.ones(1000, 2), torch.ones(1000, 2), directions=40).upper < 1e-12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trim": 0.5}, "trim.*not 0.5"),
        ({"trim": -0.1}, "trim.*not -0.1"),
        ({"level": 1.0}, "level must be between 0 and 1"),
        ({"directions": 0}, "directions must be at least 1"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(InputError, match=message):
        wgan_lip.sliced_w1(torch.zeros(5, 2), torch.ones(5, 2), **options)


def test_bad_samples_are_named():
    with pytest.raises(InputError, match="at least 2 samples"):
        sliced_w1(torch.zeros(1, 2), torch.ones(5, 2))
