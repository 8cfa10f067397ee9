"""The suite on images with a known plan: its laws, its truths against exact transport, and its screens."""

from __future__ import annotations

import json

import pytest
import torch

from wgan_lip.benchmarks import cases as case_files
from wgan_lip.benchmarks import contest, image_funnels
from wgan_lip.benchmarks.image_funnels import PAIRS, ImageLaw, Subspace, moved_images
from wgan_lip.cli import main
from wgan_lip.transport import solve


def pixels(n, seed, low=0, high=256):
    return torch.randint(low, high, (n, 3, 4, 4), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def images(name, side=4):
    """Dark images to train on, bright ones held out."""
    return moved_images(name, ImageLaw(pixels(100, 0, high=128), side), ImageLaw(pixels(60, 1, low=128), side))


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def test_images_lie_in_the_cube_with_noise_of_a_hundredth(rng):
    law = ImageLaw(torch.tensor([0, 255, 51], dtype=torch.uint8)[:, None, None, None].expand(3, 3, 4, 4), 4)
    y = law.draw(3000, rng)
    assert y.shape == (3000, law.dim) and y.abs().max() <= 1.2
    clean = y.mean(dim=1)
    for value in (-1.0, 1.0, -0.6):
        of = y[(clean - value).abs() < 0.1]
        assert len(of) > 900 and float(of.mean()) == pytest.approx(value, abs=1e-3)
        assert float(of.std()) == pytest.approx(0.01, rel=0.02)


def test_larger_images_are_interpolated_between_pixels():
    ramp = torch.arange(4).mul(60).to(torch.uint8).expand(1, 3, 4, 4)
    scaled = ImageLaw(ramp, 8).scaled(ramp).view(3, 8, 8)
    quarters = torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]) * 60 / 127.5 - 1  # centres of half pixels
    assert torch.allclose(scaled, quarters.expand(3, 8, 8), atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_are_an_optimal_plan(name, rng, monkeypatch):
    monkeypatch.setattr(image_funnels, "SPANNED", 5)
    pair = images(name)
    x, y = pair.pair(60, rng)
    lengths = (x - y).norm(dim=1)
    assert float(lengths.min()) > 0 and solve(x, y).value == pytest.approx(float(lengths.mean()), rel=1e-9)


@pytest.mark.parametrize("name", PAIRS)
def test_gradients_point_along_the_pairs(name, rng, monkeypatch):
    monkeypatch.setattr(image_funnels, "SPANNED", 5)
    pair = images(name)
    x, y = pair.pair(60, rng)
    along = (x - y) / (x - y).norm(dim=1, keepdim=True)
    assert torch.allclose(pair.gradient(x), along, atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_critics_train_on_training_images_and_are_measured_on_others(name, rng):
    pair = images(name)
    assert pair.pair(50, rng)[1].mean(dim=1).min() > 0 > pair.sample(1, 50, rng)[1].mean(dim=1).max()
    near = pair.sample(50, 1, rng)[0]
    moved = pair.truth.moved(pair.trained.draw(50, rng), rng)
    assert near.dtype == moved.dtype == torch.float32 and near.isfinite().all()


def test_apexes_are_in_the_unit_cube_and_their_heights_small():
    oracle = images("16_funnels").truth
    assert oracle.centres.shape == (16, 48) and 0.9 < oracle.centres.abs().max() <= 1
    assert 0 < oracle.biases.abs().max() < 0.5 and (oracle.power, oracle.half_width) == (100.0, 1.2)


def test_a_subspace_is_spanned_by_the_images_given(rng):
    spanning = torch.randn(3, 20, generator=rng)
    truth, at = Subspace(spanning), torch.randn(7, 20, generator=rng, dtype=torch.float64)
    weights = torch.linalg.lstsq(spanning.double().T, at.T).solution  # the nearest point, by another way
    away = at - weights.T @ spanning.double()
    assert torch.allclose(truth.gradient(at), -away / away.norm(dim=1, keepdim=True), atol=1e-9)


def test_the_suite_sets_published_figures_beside_its_own(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(image_funnels, "_pixels", lambda root: (pixels(100, 0), pixels(60, 1)))
    monkeypatch.setattr(image_funnels, "SIDES", (4,))
    monkeypatch.setattr(image_funnels, "SPANNED", 5)
    monkeypatch.setattr(contest, "CHUNK", 64)
    monkeypatch.setattr(contest, "ERROR", 1.0)
    monkeypatch.setattr(case_files, "_outcomes", lambda cases, workers: ((case, case.measured()) for case in cases))
    monkeypatch.setattr(contest, "SEARCHED", 8)
    overrides = "overrides=['methods=image,gradient_penalty','pairs=1_funnel,subspace','seconds=0.01']"
    assert main(["benchmark", "suite=image_funnels", f"out={tmp_path}", "seeds=[0]", overrides]) == 0
    screen = capsys.readouterr().out
    assert "**1 funnel, dimension 48**" in screen and "**Distance to the span of 64 images, dimension 48**" in screen
    assert "| published, best cosine | none | 0.953 | 82.0 % |" in screen
    assert "compare loosely" in screen and "16 funnels" not in screen
    page = (tmp_path / "README.md").read_text()
    assert "of 100 training images, measured on pairs of 60 others" in page
    behind = (
        "image: behind the best published cosine in 1 funnel (48); certifies less than 97.0 % of W1 in 1 funnel (48), "
    )
    assert behind + "distance to the span of 64 images (48)." in page and "gradient_penalty: behind" not in page
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["method"] for row in rows] == 2 * ["image", "gradient_penalty"]
    for row in rows:
        assert row["certified_ratio"] <= 1 and row["found"] <= row["lipschitz"]


def test_without_the_images_the_suite_says_where_it_looked(tmp_path, capsys):
    overrides = f"overrides=['root={tmp_path}']"
    assert main(["benchmark", "suite=image_funnels", f"out={tmp_path / 'out'}", overrides]) == 2
    assert f"no cifar10_jpeg or cifar-10-batches-py in {tmp_path}" in capsys.readouterr().err
