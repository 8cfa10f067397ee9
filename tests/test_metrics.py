"""Laws of the scores, against closed forms."""

from __future__ import annotations

import dataclasses
import math
from statistics import fmean, stdev

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from wgan_lip.data import Digits, Gaussians8, Gaussians25, LoaderSource, Moons
from wgan_lip.metrics import (
    Excess,
    Floor,
    Pool,
    blurred,
    excess_over_floor,
    frechet_wavelet_distance,
    memorisation,
    mode_coverage,
    real_pools,
    wavelet_packets,
)
from wgan_lip.metrics.excess import halved
from wgan_lip.metrics.memorisation import _nearest
from wgan_lip.transport import solve
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
    with pytest.raises(InputError, match=f"{list(bad)[-1]} must be positive"):
        mode_coverage(torch.zeros(3, 2), torch.zeros(1, 2), **bad)


def test_coverage_refuses_modes_of_another_dimension():
    with pytest.raises(InputError, match="samples and modes must have the same dimension"):
        mode_coverage(torch.zeros(3, 2), torch.zeros(1, 3), 1.0)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_the_width_of_modes_is_that_of_the_samples_over_that_of_the_mixture(factor):
    source = Gaussians8()
    samples = source.sample(40_000, torch.Generator().manual_seed(2))
    nearest = source.modes[torch.cdist(samples, source.modes).argmin(dim=1)]
    scaled = torch.lerp(nearest, samples, factor)
    assert mode_coverage(scaled, source.modes, source.mode_std, radius=9).width == pytest.approx(factor, rel=0.01)
    if factor < 1:
        assert mode_coverage(scaled, source.modes, source.mode_std).width == pytest.approx(1.008 * factor, rel=0.02)


def test_the_width_within_a_radius_has_the_truncated_law_as_its_measure_and_needs_two_samples():
    source = Gaussians25()
    samples = source.sample(40_000, torch.Generator().manual_seed(3))
    assert mode_coverage(samples, source.modes, source.mode_std, radius=1.0).width == pytest.approx(1, rel=0.02)
    assert math.isnan(mode_coverage(source.modes, source.modes, source.mode_std).width)


# --- the excess over the floor ----------------------------------------------------------------------------------------


def normal(n: int, d: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fresh(d: int = 2, shift: float = 0.0) -> Pool:
    return Pool(lambda n, seed: normal(n, d, seed) + shift)


def test_the_excess_is_its_definition_on_the_sets_that_were_drawn():
    generated, test, real = Pool(normal(20) + 1), Pool(normal(10, seed=2)), Pool(normal(30, seed=3))
    found = excess_over_floor(generated, test, real, size=10, draws=3, seed=5)
    excesses, reals = [], []
    for k in range(3):
        (g, other), t = generated.take(20, k, 5).split(10), test.take(10, k, 5)
        r, s, apart = real.take(30, k, 5).split(10)
        excesses.append(solve(g, t).value - (solve(g, other).value + solve(t, r).value) / 2)
        reals.append(solve(s, t).value - (solve(s, apart).value + solve(t, r).value) / 2)
    assert found.excess == pytest.approx(fmean(excesses), rel=1e-9) and found.real == pytest.approx(
        fmean(reals), rel=1e-9
    )
    assert found.error == pytest.approx(stdev(excesses), rel=1e-6), "no two draws share no sample"


def test_of_points_the_excess_is_their_distance_and_real_samples_have_none():
    found = excess_over_floor(torch.tensor([[3.0, 4.0]]).expand(20, 2), torch.zeros(10, 2), torch.zeros(30, 2), size=10)
    assert (found.excess, found.error, found.real, found.floor, found.ratio) == (5.0, 0.0, 0.0, 0.0, math.inf)
    assert excess_over_floor(torch.zeros(20, 2), torch.zeros(10, 2), torch.zeros(30, 2), size=10).ratio == 1.0


def test_of_equal_laws_the_mean_is_zero_and_values_have_both_signs():
    found = excess_over_floor(fresh(), Pool(lambda n, seed: normal(n, 2, 10_000 + seed)),
                              Pool(lambda n, seed: normal(n, 2, 20_000 + seed)), size=20, draws=300)  # fmt: skip
    assert abs(found.excess) < 4 * found.error and abs(found.real) < 4 * found.real_error
    assert found.w1 > 20 * found.error, "W1 itself is far from zero"
    single = [
        excess_over_floor(fresh(), normal(20, seed=k), normal(60, seed=k + 99), size=20, draws=1).excess
        for k in (7, 8, 9, 10, 11)
    ]
    assert min(single) < 0 < max(single)


def test_it_tends_to_w1_of_the_laws():
    """Of two normal laws on the line that are three apart."""
    found = excess_over_floor(fresh(1, 3.0), normal(4000, 1, 8), normal(6000, 1, 9), size=400)
    assert abs(found.excess - 3) < 4 * found.error < 0.5


def test_the_error_is_the_scatter_of_the_figure_where_pools_are_large_and_cautious_where_they_are_small():
    def figures(pool: int) -> list[Excess]:
        return [
            excess_over_floor(
                normal(pool, seed=3 * k), normal(pool, seed=3 * k + 1), normal(pool, seed=3 * k + 2), size=15, draws=5
            )
            for k in range(60)
        ]

    for pool, least in ((225, 0.8), (45, 1.0)):
        found = figures(pool)
        scatter, told = stdev(score.excess for score in found), fmean(score.error for score in found)
        assert told > least * scatter * 0.8
        assert pool == 45 or told < 1.4 * scatter


def test_draws_of_a_pool_are_disjoint_until_it_is_used_up():
    pool = Pool(torch.arange(12.0)[:, None])
    turns = [torch.cat([pool.take(4, 3 * turn + k, 1) for k in range(3)]).flatten() for turn in (0, 1)]
    assert all(turn.sort().values.tolist() == list(range(12)) for turn in turns) and not torch.equal(*turns)
    assert (pool.apart(5), pool.apart(4), fresh().apart(4)) == (2, 3, math.inf)
    by_number = Pool(lambda index: index[:, None].float(), 12)
    assert torch.equal(by_number.take(4, 2, 1), pool.take(4, 2, 1))


def test_with_few_real_samples_sets_are_shared_and_then_real_ones_have_no_score():
    test, generated = normal(10), normal(20, seed=2)
    shared = excess_over_floor(generated, test, normal(29, seed=3), size=10, draws=2)
    assert math.isfinite(shared.real)
    alone = excess_over_floor(generated, test, normal(19, seed=3), size=10, draws=2)
    assert math.isnan(alone.real) and math.isfinite(alone.excess)
    with pytest.raises(InputError, match="At least 10 real samples besides the held-out ones are needed, not 9"):
        excess_over_floor(generated, test, normal(9, seed=3), size=10)
    with pytest.raises(InputError, match="At least 20 generated samples, two sets of 10, are needed, not 19"):
        excess_over_floor(generated[1:], test, normal(30), size=10)
    with pytest.raises(InputError, match="draws and size must be at least 1"):
        excess_over_floor(generated, test, normal(30), size=10, draws=0)
    with pytest.raises(InputError, match="same dimension"):
        excess_over_floor(normal(20, 3), test, normal(30), size=10)


def test_one_floor_serves_many_generators_and_the_first_draws_alone():
    floor = Floor(normal(40), normal(90, seed=2), size=10, draws=4)
    generated = normal(80, seed=3) + 1
    assert floor.excess(generated) == excess_over_floor(generated, normal(40), normal(90, seed=2), size=10, draws=4)
    first = floor.excess(generated, draws=1)
    assert first.draws == 1 and math.isnan(first.error) and first.excess == floor.each(generated)[0][0]


def test_copies_of_training_samples_have_no_excess():
    """What the docstring says it does not see."""
    source = Digits()
    found = excess_over_floor(source.reference(1000, 3), *real_pools(source, 500), size=500, draws=3)
    assert abs(found.excess - found.real) < 4 * max(found.error, found.real_error)


def test_a_score_prints_with_its_error_beside_real_samples_and_is_frozen():
    score = Excess(-0.01234, 0.0051, 0.00201, 0.004, 1.4, 1.38, 1.01, 0.01, 500, 10)
    head, excess, real, *_ = str(score).splitlines()
    assert "10 draws of 500" in head and "-0.0123 ± 0.0051" in excess and "0.0020 ± 0.0040" in real
    assert "unknown" in str(dataclasses.replace(score, real=math.nan)).splitlines()[2]
    assert dataclasses.replace(score, real=math.nan)._repr_html_().count("<rect") == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        score.excess = 0.0


def test_laws_give_fresh_held_out_samples_finite_data_their_own_and_loaders_what_a_pass_has():
    test, real = real_pools(Moons(test_size=5), 50)
    assert test.size is None and len(test.take(50, 0, 0)) == 50
    assert not torch.equal(test.take(50, 0, 0), test.take(50, 1, 0)) and not torch.equal(
        test.take(9, 0, 0), real.take(9, 0, 0)
    )
    digits = Digits()
    test, real = real_pools(digits, 500)
    assert (test.size, real.size) == (500, 1297)
    rows = {row.tobytes() for row in digits.train.numpy()}
    assert all(row.tobytes() in rows for row in real.take(50, 1, 0).numpy())
    loader = DataLoader(TensorDataset(normal(25).float()), batch_size=5)
    test, real = real_pools(LoaderSource(loader, test=normal(10, seed=4).float()), 10)
    assert (test.size, real.size) == (10, 20)


# --- copies -----------------------------------------------------------------------------------------------------------


def test_copies_are_told_from_fresh_samples_and_blurred_or_far_ones_are_no_copies():
    rows = normal(4000, 3)
    train, test, new = rows[:2000], rows[2000:3000], rows[3000:]
    copied, free = memorisation(train[:500], train, test), memorisation(new, train, test)
    assert copied.value == 1 and copied.ratio == 0
    assert abs(free.value) < 3 * free.error and free.ratio == pytest.approx(free.real_ratio, rel=0.1)
    fifth = memorisation(torch.cat([train[:200], new[:800]]), train, test)
    assert fifth.value == pytest.approx(0.2, abs=3 * fifth.error) and fifth.value > 3 * fifth.error
    near = memorisation(train[:500] + 0.01 * normal(500, 3, seed=5), train, test)
    assert near.value > 0.9
    for away in (0.1 * new, new + 50, normal(1000, 3, seed=6) * 5):
        assert memorisation(away, train, test).value < 0.1


def test_its_error_is_the_scatter_of_samples_of_the_law():
    values = []
    for seed in range(60):
        rows = normal(600, 2, seed)
        values.append(memorisation(rows[400:], rows[:300], rows[300:400]))
    scatter = stdev(found.value for found in values)
    assert abs(fmean(found.value for found in values)) < 4 * scatter / math.sqrt(60)
    assert values[0].error == pytest.approx(scatter, rel=0.6)


def test_nearest_distances_are_those_of_all_pairs_and_equal_rows_are_no_copies():
    queries, rows = normal(40, 5), normal(9000, 5, seed=2)
    expected = torch.cdist(queries, rows, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1).values
    assert torch.allclose(_nearest(queries, rows), expected, rtol=1e-12)
    constant = torch.ones(60, 2)
    assert memorisation(constant, constant, constant).value < 0
    with pytest.raises(InputError, match="At least 40 held-out samples are needed to tell copies from chance, not 39"):
        memorisation(normal(5), normal(50), normal(39))


# --- images -----------------------------------------------------------------------------------------------------------


def test_haar_packets_keep_norms_and_the_mean_of_one_packet_moves_with_brightness():
    images = torch.rand(30, 3 * 8 * 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for level in (1, 2, 3):
        packets = wavelet_packets(images, (3, 8, 8), level)
        assert packets.shape == (30, 4**level, 3 * (8 // 2**level) ** 2)
        assert torch.allclose(packets.flatten(1).norm(dim=1), images.norm(dim=1))
        coefficients = packets.shape[2]
        expected = coefficients * (0.1 * 2**level) ** 2 / 4**level  # only the packet of sums moves
        assert frechet_wavelet_distance(images + 0.1, images, (3, 8, 8), level=level) == pytest.approx(expected)
    assert frechet_wavelet_distance(images, images, (3, 8, 8)) == pytest.approx(0, abs=1e-9)
    assert wavelet_packets(torch.zeros(2, 35), (1, 5, 7), 2).shape == (2, 16, 4)
    with pytest.raises(InputError, match="at least 8 × 8 pixels"):
        wavelet_packets(torch.zeros(2, 9), (1, 3, 3))


def test_blur_keeps_constants_and_mass_is_gaussian_and_leaves_labels():
    shape = (2, 21, 21)
    point = torch.zeros(1, 2, 21, 21)
    point[0, 0, 10, 10] = 1
    spread = blurred(torch.cat([point.flatten(1), torch.ones(1, 3)], dim=1), shape, 1.5)
    assert torch.equal(spread[:, -3:], torch.ones(1, 3)) and not spread[0, 441:882].any()
    image = spread[0, :441].view(21, 21).double()
    assert float(image.sum()) == pytest.approx(1, abs=1e-5)
    offsets = torch.arange(-10.0, 11.0).double()
    assert float((image.sum(dim=0) * offsets**2).sum()) == pytest.approx(1.5**2, rel=0.05)  # cut at three deviations
    assert torch.allclose(image, image.T) and torch.allclose(
        blurred(torch.ones(1, 882), shape, 2.0), torch.ones(1, 882)
    )


def test_blurred_images_exceed_real_ones_where_w1_over_floor_forgives_them():
    source = Digits()
    floor = Floor(*real_pools(source, 400), size=400, draws=3)
    sharp = floor.excess(source.reference(1000, 7))
    blurry = floor.excess(blurred(source.reference(1000, 7), source.image_shape, 1.0))
    assert blurry.excess > sharp.excess + 5 * max(sharp.error, blurry.error)
    faint = floor.excess(blurred(source.reference(1000, 7), source.image_shape, 0.5))
    assert faint.ratio < sharp.ratio and faint.excess > sharp.excess


def test_sets_of_one_point_have_no_excess_and_no_floor():
    one = torch.full((12, 3), 0.57735, dtype=torch.float64)
    both = halved(one, one)
    assert both.excess == both.floor == 0.0
    apart = halved(one, one + torch.tensor([3.0, 4.0, 0.0]))
    assert apart.excess == pytest.approx(5.0) and apart.floor == 0.0
