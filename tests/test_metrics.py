"""Laws of the scores, against closed forms."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from wgan_lip.data import FiniteSource, Gaussians8, Gaussians25, Moons
from wgan_lip.metrics import ScoreOverFloor, mode_coverage, w1_over_floor
from wgan_lip.utils.checks import InputError


@pytest.mark.parametrize("source", [Gaussians8(), Gaussians25()], ids=lambda source: source.name)
@pytest.mark.parametrize("radius", [1.0, 3.0])
def test_true_mixture_covers_all_modes_with_the_chi_share_within(source, radius):
    samples = source.sample(20_000, torch.Generator().manual_seed(1))
    coverage = mode_coverage(samples, source.modes, source.mode_std, radius=radius)
    assert coverage.covered == coverage.total == len(source.modes)
    share = 1 - math.exp(-(radius**2) / 2)
    assert abs(coverage.within - share) < 5 * math.sqrt(share * (1 - share) / 20_000)


def test_a_mode_counts_from_its_demanded_share_on():
    modes = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    samples = modes[torch.tensor([0] * 95 + [1] * 5)]  # 5 is exactly a tenth of the fair share 50
    assert mode_coverage(samples, modes, 1.0).covered == 2
    assert mode_coverage(samples, modes, 1.0, share=0.11).covered == 1
    assert mode_coverage(samples[:95], modes, 1.0, share=1e-9).covered == 1  # an empty mode is never covered


def test_samples_beyond_the_radius_count_nowhere():
    modes = torch.zeros(1, 2)
    samples = torch.tensor([[0.0, 3.0], [0.0, 3.01]])
    assert mode_coverage(samples, modes, 1.0).within == 0.5
    assert mode_coverage(samples + 100, modes, 1.0).covered == 0


@pytest.mark.parametrize("bad", [{"std": 0.0}, {"std": math.nan}, {"std": 1, "radius": -1.0}, {"std": 1, "share": 0}])
def test_coverage_refuses_scales_that_are_not_positive(bad):
    with pytest.raises(InputError, match=f"Expected {list(bad)[-1]} to be positive"):
        mode_coverage(torch.zeros(3, 2), torch.zeros(1, 2), **bad)


def test_coverage_refuses_modes_of_another_dimension():
    with pytest.raises(InputError, match="samples and modes of equal dimension"):
        mode_coverage(torch.zeros(3, 2), torch.zeros(1, 3), 1.0)


def shifted(source, shift):
    """A generator that returns the test set itself, moved by `shift`."""
    return lambda n, seed: source.test[:n].double() + torch.tensor(shift)


def test_value_and_floor_of_one_law_agree_on_average():
    source = Moons(test_size=100)
    score = w1_over_floor(lambda n, seed: source.sample(n, torch.Generator().manual_seed(seed)), source, repeats=40)
    assert abs(score.ratio - 1) < 4 * math.sqrt(2 / 40) * score.spread
    assert 0 < score.spread < 0.5
    assert score.ratio == score.value / score.floor
    assert (score.n, score.repeats) == (100, 40)


def test_value_of_a_translate_is_its_length():
    source = Moons(test_size=200)
    score = w1_over_floor(shifted(source, [3.0, 4.0]), source, repeats=2)
    assert score.value == pytest.approx(5.0, rel=1e-9)
    assert score.spread == pytest.approx(0.0, abs=1e-9)


def test_a_zero_floor_gives_no_error():
    class Point(FiniteSource):
        def __init__(self):
            super().__init__(torch.zeros(4, 2), torch.zeros(4, 2))

    assert w1_over_floor(shifted(Point(), [0.0, 0.0]), Point()).ratio == 1.0
    assert w1_over_floor(shifted(Point(), [1.0, 0.0]), Point()).ratio == math.inf


def test_no_draw_and_another_dimension_are_refused():
    source = Moons(test_size=5)
    with pytest.raises(InputError, match="at least one draw"):
        w1_over_floor(shifted(source, [0.0, 0.0]), source, repeats=0)
    with pytest.raises(InputError, match="equal dimension"):
        w1_over_floor(lambda n, seed: torch.zeros(n, 3), source)


def test_scores_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ScoreOverFloor(1.0, 1.0, 1.0, 0.0, 2, 1).value = 0.0
