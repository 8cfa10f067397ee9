"""The suite `scores`: what each damage does, and a page that says which score does not see it."""

from __future__ import annotations

import json
import math
from functools import partial

import pytest
import torch
from matplotlib.figure import Figure

from wgan_lip import figures
from wgan_lip.benchmarks import benchmark, scores
from wgan_lip.benchmarks.scores import DAMAGES, Case
from wgan_lip.data import Gaussians8
from wgan_lip.metrics import features_of
from wgan_lip.utils.checks import InputError


@pytest.fixture
def images() -> Case:
    """Two classes of images of 8 × 8 pixels."""
    rng = torch.Generator().manual_seed(0)
    train, test, fresh = torch.rand(900, 64, generator=rng).split(300)
    return Case(train, test, fresh, torch.arange(300) % 2, 100, (1, 8, 8))


def damaged(case: Case, name: str) -> torch.Tensor:
    return DAMAGES[name](case, torch.Generator().manual_seed(1))


def rows_of(samples: torch.Tensor) -> set[bytes]:
    return {row.tobytes() for row in samples.numpy()}


def test_every_damage_is_what_it_says(images):
    for name in DAMAGES:
        assert damaged(images, name).shape == images.fresh.shape and torch.equal(
            damaged(images, name), damaged(images, name)
        )
    spread = {name: float(damaged(images, name).std()) for name in ("blur σ 0.5", "blur σ 1", "blur σ 2")}
    assert float(images.fresh.std()) > spread["blur σ 0.5"] > spread["blur σ 1"] > spread["blur σ 2"]
    brighter = damaged(images, "brighter") - images.fresh
    assert float(brighter.min()) >= 0 and float(brighter.max()) <= 0.05 + 1e-6
    assert torch.equal(damaged(images, "shuffled").sort(dim=1).values, images.fresh.sort(dim=1).values)
    assert rows_of(damaged(images, "lost modes")) <= rows_of(images.fresh[images.labels == 0])
    assert len(rows_of(damaged(images, "repeated"))) == 30
    assert rows_of(damaged(images, "copies")) == rows_of(images.train)
    copied = sum(row.tobytes() in rows_of(images.train) for row in damaged(images, "a fifth copies").numpy())
    assert 35 <= copied <= 85
    narrowed = damaged(images, "narrowed")
    for label in (0, 1):
        own, real = narrowed[images.labels == label], images.fresh[images.labels == label]
        assert torch.allclose(own.mean(0), real.mean(0), atol=1e-6) and torch.allclose(own.std(0), 0.75 * real.std(0))


def test_blocks_are_moved_whole(images):
    before = images.fresh.view(-1, 2, 4, 2, 4).permute(0, 1, 3, 2, 4).reshape(-1, 4, 16)
    after = damaged(images, "shuffled").view(-1, 2, 4, 2, 4).permute(0, 1, 3, 2, 4).reshape(-1, 4, 16)
    for some, others in zip(before[:20], after):
        assert rows_of(some) == rows_of(others)
    assert not torch.equal(before, after)


def test_the_page_says_what_is_seen_and_what_is_not(tmp_path, monkeypatch):
    some = ("blur σ 2", "copies", "a fifth copies")
    monkeypatch.setattr(scores, "DRAWS", 4)
    monkeypatch.setitem(scores.SPLITS, "digits", (300, 300, 150))
    monkeypatch.setattr(scores, "DAMAGES", {name: DAMAGES[name] for name in some})
    monkeypatch.setattr(scores, "PICTURED", ("real", "blur σ 2"))
    monkeypatch.setattr(scores, "features_of", partial(features_of, classifier_steps=40))
    overrides = ["cases=digits,mnist", f"mnist={tmp_path / 'nowhere'}"]
    table = benchmark("scores", [0], overrides, str(tmp_path / "out"))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "nowhere" in results["absent"]["mnist"] and {row["case"] for row in results["rows"]} == {"digits"}
    moved = {(row["space"], row["score"], row["damage"]): row["moved"] for row in results["rows"]}
    assert moved["samples", "excess of W1", "blur σ 2"] > 3 and moved["classifier", "KID", "blur σ 2"] > 3
    assert moved["samples", "memorisation", "copies"] > 3 > abs(moved["samples", "excess of W1", "copies"])
    for row in results["rows"]:
        worse = row["damaged"] - row["real"]
        worse = -worse if row["score"] in scores.HIGHER else worse
        assert row["moved"] == pytest.approx(worse / row["error"]) or row["error"] == 0
    (excess,) = [line for line in table.splitlines() if line.startswith("| excess of W1 |")]
    assert "copies, a fifth copies" in excess.split("|")[-3]
    page = (tmp_path / "out" / "README.md").read_text()
    assert (
        page.startswith("# Know your scores") and table in page and results["command"] in page and "- mnist: " in page
    )
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"digits.png", "digits_damages.png"}


def test_overrides_that_mean_nothing_and_no_data_at_all_are_refused(tmp_path):
    with pytest.raises(InputError, match="Overrides must be cases=…, mnist=DIR or cifar10=DIR, not steps=3"):
        scores.measure([0], ["steps=3"], tmp_path)
    with pytest.raises(InputError, match="There are no data for any case: .*nowhere"):
        scores.measure([0], ["cases=mnist", f"mnist={tmp_path / 'nowhere'}"], tmp_path)


def test_the_plane_has_modes_and_no_images():
    case = scores._case("gaussians8", {}, 0)
    assert isinstance(case.law, Gaussians8) and case.image_shape is None and not case.features
    narrowed = damaged(case, "narrowed")
    near = scores._of_samples(case, narrowed[:1000], case.test[:1000])
    assert near["width of modes"] == pytest.approx(0.75, abs=0.03) and near["modes covered"] == 8
    assert scores._of_samples(case, damaged(case, "lost modes")[:1000], case.test[:1000])["modes covered"] == 4


def test_a_matrix_of_scores_leaves_out_what_was_not_measured():
    figure = figures.score_matrix({"a": {"x": 12.0, "y": -5.0}, "b": {"x": 2.0, "y": math.nan}}, seen=3, title="t")
    assert isinstance(figure, Figure)
    assert [text.get_text() for text in figure.axes[0].texts] == ["+12", "-5", "·"]
