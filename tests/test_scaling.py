"""Columns in units of their pooled spread: shifts of known size come out in standard deviations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import wgan_lip
from wgan_lip.utils.checks import InputError


def test_the_scale_is_the_pooled_standard_deviation():
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (50, 3)), rng.normal(-7, 5, (70, 3))
    found = wgan_lip.standardise(x, y)
    pooled = np.sqrt((49 * x.var(axis=0, ddof=1) + 69 * y.var(axis=0, ddof=1)) / 118)
    assert found.scaling.scales.numpy() == pytest.approx(pooled, rel=1e-12)
    assert found.x.numpy() == pytest.approx(x / pooled) and found.y.numpy() == pytest.approx(y / pooled)
    assert found.units == "pooled standard deviations" and "pooled standard deviations" in str(found)


def test_w1_of_a_shift_is_its_size_in_standard_deviations():
    x = np.random.default_rng(1).normal(size=(300, 2)) * [1e-3, 1e6]
    spread = x.std(axis=0, ddof=1)  # that of x and of y, but for the count of means that were taken off
    both = wgan_lip.standardise(x, x + np.array([3e-3, 0]))
    result = wgan_lip.estimate_w1(both.x, both.y, critic=None)
    assert result.exact == pytest.approx(3e-3 / spread[0], rel=1e-3)


def test_outliers_do_not_move_the_robust_scale():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2000, 1)), rng.normal(size=(2000, 1)) + 1
    x[:20] = 1e9
    assert float(wgan_lip.standardise(x, y, by="mad").scaling.scales) == pytest.approx(1, rel=0.1)
    clean = wgan_lip.standardise(x[20:], y, by="mad").scaling.scales
    whole = np.concatenate([x[20:] - np.median(x[20:]), y - np.median(y)])
    assert float(clean) == pytest.approx(
        stats.median_abs_deviation(whole, center=lambda *_, **__: 0.0, axis=None, scale="normal"), rel=2e-3
    )


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-150, 1e150), st.sampled_from(["sd", "mad"]), st.integers(0, 9))
def test_units_of_the_columns_do_not_matter(unit, by, seed):
    x, y = torch.randn(2, 40, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found, other = (wgan_lip.standardise(factor * x, factor * y, by=by) for factor in (1.0, unit))
    assert torch.allclose(found.x, other.x, rtol=1e-10) and torch.allclose(found.y, other.y, rtol=1e-10)


def test_a_common_offset_does_not_blur_the_scale():
    x, y = torch.randn(2, 200, 1, dtype=torch.float64)
    near, far = (wgan_lip.standardise(x + by, y + by).scaling.scales for by in (0.0, 1e9))
    assert torch.allclose(near, far, rtol=1e-6)


def test_constant_columns_are_kept_and_told():
    x, y = torch.randn(2, 20, 3)
    x[:, 1] = y[:, 1] = 0.1
    found = wgan_lip.standardise(x, y)
    assert found.scaling.constant == (1,) and found.scaling.scales[1] == 1
    assert "Column 1 is constant, and adds nothing" in found.scaling.notes[-1]


def test_names_of_a_frame_are_used_and_matched():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(3)
    x = pandas.DataFrame({"length": rng.normal(size=30), "mass": 1000 * rng.normal(size=30), "site": np.zeros(30)})
    y = x.copy()[["mass", "site", "length"]]
    found = wgan_lip.standardise(x, y)
    assert torch.equal(found.x, found.y) and found.names == ("length", "mass", "site")
    assert "'site' is constant" in found.scaling.notes[-1]
    y["site"] = 1.0
    with pytest.raises(InputError, match="Column 'site' has no spread within the groups but differs between them"):
        wgan_lip.standardise(x, y)


def test_what_can_not_be_scaled_is_refused():
    x, y = torch.randn(2, 20, 2)
    x[:15, 0] = y[:15, 0] = 0
    with pytest.raises(InputError, match="Column 0 holds one value in half of the rows.*Use the standard deviation"):
        wgan_lip.standardise(x, y, by="mad")
    assert wgan_lip.standardise(x, y).scaling.constant == ()
    with pytest.raises(InputError, match="sd, mad.*not 'range'"):
        wgan_lip.standardise(x, y, by="range")
    with pytest.raises(InputError, match="same dimension"):
        wgan_lip.standardise(x, torch.randn(20, 3))
