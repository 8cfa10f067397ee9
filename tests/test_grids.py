"""Arrays of mass on a grid: W1 of bumps that moved, against SciPy and linear programmes on the cells."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import wasserstein_distance

import wgan_lip
from wgan_lip.utils.checks import InputError


def w1(x, y, **options) -> float:
    grid = wgan_lip.grid_pair(x, y, **options)
    return wgan_lip.estimate_w1(grid.points, grid.points, a=grid.a, b=grid.b, critic=None).value


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, np.ndarray.tolist])
def test_a_bump_that_moved_is_as_far_as_it_moved(kind):
    bump = np.zeros((20, 30))
    bump[4:9, 5:9] = np.random.default_rng(0).random((5, 4))
    moved = np.roll(bump, (6, 8), axis=(0, 1))
    assert w1(kind(bump), kind(moved)) == pytest.approx(10)
    assert w1(kind(bump), kind(moved), spacing=(0.5, 0.25)) == pytest.approx(math.hypot(3, 2))


def test_three_axes():
    volume = np.zeros((4, 5, 6))
    volume[1, 1, 1] = 2
    other = np.zeros((4, 5, 6))
    other[2, 3, 3] = 2
    assert w1(volume, other, spacing=2.0) == pytest.approx(6)


masses = arrays(np.float64, 12, elements=st.floats(0, 100, allow_subnormal=False).map(lambda mass: round(mass, 3)))


@settings(max_examples=30, deadline=None)
@given(masses.filter(np.any), masses.filter(np.any), st.sampled_from([0.01, 1.0, 250.0]))
def test_in_one_dimension_it_is_scipys_distance(x, y, spacing):
    centres = spacing * (np.arange(12) + 0.5)
    expected = wasserstein_distance(centres, centres, x, y)
    assert w1(x, y, spacing=spacing) == pytest.approx(expected, rel=1e-9, abs=1e-9 * spacing)


def test_images_agree_with_pot_on_all_cells():
    rng = np.random.default_rng(3)
    x, y = rng.random((2, 7, 9)) * (rng.random((2, 7, 9)) < 0.5)
    cells = np.argwhere(np.ones((7, 9))) * [1.5, 0.5]
    expected = ot.emd2(x.ravel() / x.sum(), y.ravel() / y.sum(), ot.dist(cells, cells, "euclidean"))
    assert w1(x, y, spacing=(1.5, 0.5)) == pytest.approx(expected, rel=1e-9)


def test_pixels_and_counts_are_masses():
    x, y = np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.uint8)
    x[0, 0], y[0, 2] = 255, 255
    assert w1(x, y) == pytest.approx(2)


def test_differing_totals_are_told():
    grid = wgan_lip.grid_pair([1, 2, 0], [0, 3, 3])
    assert grid.totals == (3, 6) and grid.a.sum() == 1 and grid.b.tolist() == [0, 0.5, 0.5]
    assert "3 in x and 6 in y" in grid.notes[0] and "The total masses differ" in str(grid)
    assert "divided by their total mass, 3" in wgan_lip.grid_pair([1, 2, 0], [0, 3, 0]).notes[0]
    assert wgan_lip.grid_pair([0.25, 0.75], [1.0, 0.0]).notes == ()


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        ([[1.0, 2.0]], [1.0, 2.0], {}, r"shapes \(1, 2\) and \(2,\)"),
        ([1.0, -2.0], [1.0, 2.0], {}, r"not -2 as in cell \(1,\)"),
        ([[1.0, 1.0], [math.nan, 2.0]], [[1.0, 1.0], [1.0, 2.0]], {}, r"not nan as in cell \(1, 0\)"),
        ([1.0, 2.0], [1.0, math.inf], {}, "masses of y.*not inf"),
        ([1.0, 2.0], [0.0, 0.0], {}, "y holds no mass"),
        ([1e308, 1e308], [1.0, 0.0], {}, "x holds more mass"),
        ([1.0, 2.0], [1.0, 0.0], {"spacing": 0}, "spacing.*not 0"),
        ([1.0, 2.0], [1.0, 0.0], {"spacing": math.nan}, "spacing.*not nan"),
        ([1.0, 2.0], [1.0, 0.0], {"spacing": (1, 2)}, r"one for each of the 1 axes, not \[1, 2\]"),
        (5.0, 5.0, {}, r"at least two cells, not of shape \(\)"),
        (np.zeros((0, 3)), np.zeros((0, 3)), {}, "at least two cells"),
        (["a"], ["b"], {}, "real numbers"),
    ],
)
def test_bad_arrays_are_refused(x, y, options, message):
    with pytest.raises(InputError, match=message):
        wgan_lip.grid_pair(x, y, **options)
