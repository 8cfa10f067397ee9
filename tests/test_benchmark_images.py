"""The suite on real images: its splits, what it divides by, and what it does where data are missing."""

from __future__ import annotations

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from wgan_lip.benchmarks import cases as case_files
from wgan_lip.benchmarks import contest, image_pairs, images
from wgan_lip.benchmarks.image_pairs import PAIRS, ImagePair
from wgan_lip.benchmarks.images import METHODS, ImageCase
from wgan_lip.benchmarks.methods import Method
from wgan_lip.cli import main
from wgan_lip.data import Digits, TensorSource
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers import Linear, Squeeze
from wgan_lip.transport import solve


def rows(samples):
    return {tuple(row) for row in samples.tolist()}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(contest, "START", 256)
    monkeypatch.setattr(images, "SEARCHED", 16)

    def outcomes(cases, workers):
        for case in cases:
            yield case, case.measured()

    monkeypatch.setattr(case_files, "_outcomes", outcomes)


# Splits ------------------------------------------------------------------------------------------------------------


def test_the_digits_are_split_by_class_and_nothing_held_out_is_trained_on():
    pair = ImagePair("digits", "/nowhere")
    assert pair.absent() is None
    x, y, x_test, y_test = pair.samples
    assert len(x) == len(y) == 650 and pair.image_shape == (1, 8, 8) and pair.dim == 64
    source = Digits()
    every, labels = torch.cat((source.train, source.test)), torch.cat((source.train_labels, source.test_labels))
    assert rows(x) | rows(x_test) == rows(every[labels < 5]) and rows(y) | rows(y_test) == rows(every[labels >= 5])
    assert len(x) + len(x_test) + len(y) + len(y_test) == len(every)
    scale = pair.scale
    assert scale == 2.0 ** round(math.log2(scale)) and 0.5 < float(pair.scaled[0].norm(dim=1).median()) < 2
    for of_pixels, of_critics in zip(pair.samples, pair.scaled):  # distances change by the scale alone
        assert torch.allclose(torch.pdist(of_pixels[:9]), scale * torch.pdist(of_critics[:9]), rtol=1e-5)
    again = ImagePair("digits", "/elsewhere")
    assert all(torch.equal(a, b) for a, b in zip(pair.samples, again.samples)) and repr(again) == repr(pair)


@pytest.fixture
def source(monkeypatch):
    """A set in the place of MNIST: 120 training images and 60 test images, in two classes."""
    rng = torch.Generator().manual_seed(0)
    images_of = torch.rand(180, 784, generator=rng)
    found = TensorSource(images_of[:120], test=images_of[120:])
    found.train_labels, found.test_labels = torch.arange(120) % 10, torch.arange(60) % 10
    monkeypatch.setattr(image_pairs, "_mnist", lambda root: found)
    monkeypatch.setattr(image_pairs, "MNIST_TRAINED", 40)
    monkeypatch.setattr(image_pairs, "HELD_OUT", 20)
    return found


@pytest.mark.parametrize("name", ["mnist", "mnist_gaussian", "mnist_blurred"])
def test_training_and_held_out_images_come_from_their_own_files(source, name):
    x, y, x_test, y_test = PAIRS[name](None)
    assert len(x) <= 40 and len(x_test) <= 20
    assert rows(x) <= rows(source.train) and rows(x_test) <= rows(source.test)
    assert all(float(z.min()) >= 0 and float(z.max()) <= 1 for z in (x, y, x_test, y_test))
    if name == "mnist":
        assert not rows(x) & rows(y)
        assert rows(x) <= rows(source.train[source.train_labels < 5])
        assert rows(y_test) <= rows(source.test[source.test_labels >= 5])


def test_blurred_images_are_others_blurred(source):
    x, y, *_ = PAIRS["mnist_blurred"](None)
    blurred = gaussian_filter(
        source.train.double().numpy().reshape(-1, 28, 28), (0, 0.7, 0.7), mode="constant", radius=(0, 3, 3)
    ).reshape(-1, 784)
    nearest = np.abs(y.numpy()[:, None] - blurred[None]).max(axis=2)
    origins = nearest.argmin(axis=1)
    assert nearest.min(axis=1).max() < 1e-6
    assert not rows(x) & rows(source.train[torch.from_numpy(origins)])


def test_a_gaussian_has_the_mean_and_the_principal_covariance_of_the_images(monkeypatch):
    rng = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(12, 12, generator=rng)).Q
    spread = torch.tensor([0.05, 0.04, 0.03] + [0.001] * 9)
    data = 0.5 + (torch.randn(4000, 12, generator=rng) * spread) @ basis.T
    found = TensorSource(data[:3000], test=data[3000:])
    _, y, _, y_test = image_pairs._against_gaussian(found, 3000, 3)
    assert len(y) == 3000 and len(y_test) == 1000
    assert torch.allclose(y.mean(dim=0), torch.full((12,), 0.5), atol=0.01)
    principal = basis[:, :3] @ torch.diag(spread[:3] ** 2) @ basis[:, :3].T
    assert torch.allclose(y.T.cov(), principal, atol=2e-4)
    assert int(torch.linalg.matrix_rank(y.T.cov(), atol=1e-7)) == 3


# Measures ----------------------------------------------------------------------------------------------------------


def projection(dim, factor=1.0):
    """x ↦ factor · (mean of x's coordinates) · √dim, which has slope `factor`."""
    critic = nn.Sequential(Linear(Norm.euclidean(dim), Norm((1,))), Squeeze())
    with torch.no_grad():
        critic[0].weight.fill_(factor / math.sqrt(dim))
    return critic


@pytest.mark.parametrize(("factor", "baseline"), [(1.0, False), (3.0, True)])
def test_values_are_over_the_constant_or_over_the_slope_and_in_pixels(factor, baseline, monkeypatch):
    """A linear function of a known slope, untrained: its values are known, and its exact W1 bounds them."""
    method = Method(partial(projection, factor=factor), baseline=baseline)
    monkeypatch.setattr(image_pairs.ImagePair, "title", "digits")
    pair = ImagePair("digits", "")
    row = ImageCase({"pair": "digits", "method": "m", "seed": 0}, pair, method, 0.0, 8).measured()
    x, y, x_test, y_test = pair.samples
    known = 8.0 * float(x_test.double().mean() - y_test.double().mean())  # √64
    assert row["held_out"] == pytest.approx(known, rel=1e-5)
    assert row["train"] == pytest.approx(8.0 * float(x.double().mean() - y.double().mean()), rel=1e-5)
    assert row["over"] == ("steepest slope found" if baseline else "certified constant")
    assert row["found"] == pytest.approx(factor, rel=1e-5) and row["lipschitz"] == pytest.approx(factor, rel=1e-5)
    assert row["ray_gradient_norm"] == pytest.approx(factor, rel=1e-5)
    exact = solve(x_test, y_test).value
    assert row["exact"] == pytest.approx(exact, rel=1e-5) and abs(row["held_out"]) < exact


def test_a_value_above_the_certificate_is_a_bug(monkeypatch):
    monkeypatch.setattr(images, "estimate_lipschitz", lambda *_, **__: 1.5)
    case = ImageCase({"pair": "digits", "method": "m", "seed": 0}, ImagePair("digits", ""), Method(projection), 0.0, 8)
    with pytest.raises(RuntimeError, match="a bug in a proof"):
        case.measured()


# The suite ---------------------------------------------------------------------------------------------------------


def test_the_suite_says_what_it_left_out_and_goes_on_where_it_stopped(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(images, "find_spec", lambda name: None)
    out, root = tmp_path / "out", tmp_path / "data"
    overrides = (
        f"overrides=['pairs=digits,mnist','methods=residual,convolutional,torchlip','seconds=0.05','root={root}']"
    )
    command = ["benchmark", "suite=images", f"out={out}", "seeds=[0,1]", overrides]
    assert main(command) == 0
    first = capsys.readouterr()
    assert first.err.count("steps") == 4
    assert f"Left out: pair mnist: no MNIST/raw in {root}" in first.out
    assert "Left out: method torchlip: deel-torchlip is not installed" in first.out
    results = json.loads((out / "results.json").read_text())
    assert results["command"].startswith("wgan-lip benchmark suite=images seeds=[0,1] ")
    assert set(results["skipped"]) == {"pair mnist", "method torchlip"}
    assert {(row["method"], row["seed"]) for row in results["rows"]} == {
        ("residual", 0), ("residual", 1), ("convolutional", 0), ("convolutional", 1),
    }  # fmt: skip
    for row in results["rows"]:
        assert row["lipschitz"] <= 1 and row["found"] <= row["lipschitz"] and row["held_out"] <= row["exact"]
    assert (out / "images.png").read_bytes().startswith(b"\x89PNG")
    assert main(command) == 0
    assert capsys.readouterr().err == ""  # nothing is run again
    assert (out / "table.md").read_text() in first.out


def test_a_suite_without_any_data_is_refused(tmp_path, capsys):
    overrides = f"overrides=['pairs=mnist,cifar10','root={tmp_path}']"
    assert main(["benchmark", "suite=images", f"out={tmp_path / 'out'}", overrides]) == 2
    error = capsys.readouterr().err
    assert "no MNIST/raw" in error and "cifar10_jpeg or cifar-10-batches-py" in error


def test_methods_can_be_told_apart_by_their_settings():
    settings = [json.dumps(method.settings(), sort_keys=True) for method in METHODS.values()]
    assert len(set(settings)) == len(settings)


def test_settings_are_chosen_by_training_samples_only():
    pair, tuning = ImagePair("digits", "/nowhere"), ImagePair("digits", "/nowhere", tuning=True)
    x, y = pair.samples[:2]
    trained_x, trained_y, judged_x, judged_y = tuning.samples
    assert torch.equal(torch.cat((trained_x, judged_x)), x) and torch.equal(torch.cat((trained_y, judged_y)), y)
    assert len(judged_x) == len(judged_y) == 130
    assert repr(tuning) != repr(pair)  # a case's file says by which it was judged


def test_the_page_says_where_the_default_leads_and_where_it_does_not():
    rows = [
        {"pair": pair, "method": method, "seed": 0, "held_out": value, "over": "certified constant"}
        for pair, method, value in (
            ("digits", "residual", 1.5), ("digits", "torchlip", 1.6), ("digits", "image", 1.7),
            ("mnist", "residual", 4.4), ("mnist", "torchlip", 4.0), ("mnist", "clipped_nothing", None),
        )
        if method in images.METHODS
    ]  # fmt: skip
    told = images._losses(rows)
    assert "- digits: 1.500, 6.2 % behind torchlip (1.600); of ours, image has 1.700." in told
    assert "- mnist: 4.400, 10.0 % ahead of torchlip (4.000)." in told
    assert images._losses([row for row in rows if row["method"] != "torchlip"]) == ""
