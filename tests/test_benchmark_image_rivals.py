"""The suite that trains one generator of images against several critics: its scores along the way, and its page."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch

from wgan_lip.benchmarks import cases as case_files
from wgan_lip.benchmarks import image_rivals
from wgan_lip.benchmarks.image_rivals import RIVALS, ImageRival, Images, ImageSet, _lead
from wgan_lip.benchmarks.images import shaped
from wgan_lip.cli import main
from wgan_lip.data import Digits, ImageSource
from wgan_lip.generators import DCGANGenerator


def digits(root, tuning):
    source = Digits(test_size=200)
    train, test = ((16 * rows).to(torch.uint8).mul(15).view(-1, 1, 8, 8) for rows in (source.train, source.test))
    return ImageSource(train, test, source.train_labels, source.test_labels)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(image_rivals, "SETS", {"mnist": ImageSet(digits, 2, "classifier", classifier_steps=40)})
    monkeypatch.setattr(image_rivals, "absent", lambda name, root: None)
    for name, size in {"SAMPLES": 120, "SCORED": 50, "DRAWS": 2, "QUERIES": 40, "STEPS": (2, 4, 10**9)}.items():
        monkeypatch.setattr(image_rivals, name, size)
    monkeypatch.setattr(case_files, "_outcomes", lambda cases, workers: ((case, case.measured()) for case in cases))


def test_the_page_compares_at_equal_times_and_at_equal_steps(small, tmp_path, capsys):
    overrides = "overrides=['sets=mnist','critics=sorting_mean,clipped,gradient_penalty','seconds=0.3']"
    assert main(["benchmark", "suite=image_rivals", f"out={tmp_path}", "seeds=[0,1]", overrides]) == 0
    page, screen = (tmp_path / "README.md").read_text(), capsys.readouterr().out
    for told in (
        "**At equal time.**",
        "**After 4 generator steps.**",
        "the best of the others, `",
    ):
        assert told in page and told in screen
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["sets"]["mnist"]["features"].startswith("classifier of accuracy")
    for row in results["rows"]:
        marks = [(each["steps"], each["seconds"]) for each in row["along"]]
        assert marks == sorted(marks) and {2, 4} <= {step for step, _ in marks}
        assert row["along"][-1] | {"memorisation": 0} == row["final"] | {"memorisation": 0}
        assert row["steps"] >= marks[-2][0] and 0.3 <= row["seconds"] < 3
        assert (row["lipschitz"] is None) is (row["critic"] == "gradient_penalty")
        assert row["critic"] != "sorting_mean" or 0.9 < row["lipschitz"] <= 1
        assert 0 <= row["final"]["read"] <= 1 and row["final"]["rarest_class"] <= 0.1 <= row["final"]["commonest_class"]
        assert (tmp_path / "samples" / f"mnist-{row['critic']}-seed{row['seed']}.npy").exists()
    names = ["mnist_seconds.png", "mnist_samples.png", "mnist_grid.png"]
    assert (
        sorted(path.name for path in tmp_path.glob("*.png"))
        == sorted(names)
        == sorted(re.findall(r"\((\w+\.png)\)", page))
    )


@pytest.mark.parametrize("name", RIVALS)
def test_every_rival_trains(name, small, tmp_path):
    case = ImageRival({"set": "mnist", "critic": name, "seed": 0}, Images("mnist", ""), RIVALS[name], 0.05, tmp_path)
    assert json.loads(json.dumps(case.settings()))["rival"]["method"]["learning_rate"] > 0
    steps = [step for step, _, _ in case._trained(digits(None, False), *players(case))]
    assert steps[-1] >= 1


def players(case):
    method = shaped(case.rival.method, (1, 8, 8))
    generator = DCGANGenerator((1, 8, 8), low=0.0, high=1.0, latent_dim=64, channels=2)
    return generator, method.critic(64, **method.arguments)


def test_a_training_that_stops_itself_is_counted_and_the_others_go_on(small, tmp_path, monkeypatch):
    def stopped(self, source, generator, critic):
        yield 1, 0.1, generator
        raise image_rivals.DivergedError("At step 2 the dual value is NaN.", None)

    monkeypatch.setattr(ImageRival, "_trained", stopped)
    case = ImageRival({"set": "mnist", "critic": "clipped", "seed": 0}, Images("mnist", ""), RIVALS["clipped"], 1.0,
                      tmp_path)  # fmt: skip
    row = {**case.labels, **case.measured()}
    assert row["stopped"] == "At step 2 the dual value is NaN." and row["final"]["steps"] == 1
    assert f"| clipped, 1 of 1 stopped | {RIVALS['clipped'].tries} |" in image_rivals._table(
        [row], case.images, image_rivals._final
    )


def test_a_lead_is_told_in_standard_errors_of_the_differences_seed_by_seed():
    excesses = {"sorting_mean": [1.0, 2.0], "residual": [9.0, 9.0], "clipped": [1.5, 2.7], "groupsort": [8.0, 8.0]}
    rows = [{"critic": critic, "seed": seed, "final": {"excess": excess}}
            for critic, of in excesses.items() for seed, excess in enumerate(of)]  # fmt: skip
    error = math.sqrt(((0.5 - 0.6) ** 2 + (0.7 - 0.6) ** 2) / 1 / 2)
    assert _lead(rows, image_rivals._final) == (
        "`sorting_mean` is ahead of the best of the others, `clipped`, by an excess of "
        f"0.600 ± {error:.3f} (standard error, 2 seeds)."
    )


def test_without_images_the_suite_says_where_it_looked(tmp_path, capsys):
    overrides = f"overrides=['root={tmp_path}']"
    assert main(["benchmark", "suite=image_rivals", f"out={tmp_path / 'out'}", overrides]) == 2
    assert f"no MNIST/raw in {tmp_path}" in capsys.readouterr().err
