"""The suite for a GPU, on a CPU: every stage at small sizes, and what is kept between them."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from wgan_lip import InputError, benchmarks, certify
from wgan_lip.benchmarks import gpu
from wgan_lip.cli import main
from wgan_lip.critics import PenalizedCritic
from wgan_lip.runs.run import Run
from wgan_lip.wasserstein.dual import Penalized

SMALL = ["device=cpu", "sizes=small"]


def setting(out=Path(), seconds=1e6):
    return gpu.Setting(torch.device("cpu"), gpu.SIZES[gpu.SMALL], time.monotonic() + seconds, out, None, 0)


def test_every_stage_of_the_issue_is_there_and_documented():
    text = (Path(__file__).parents[1] / "configs/commands/benchmark.yaml").read_text()
    assert all(name in text for name in gpu.STAGES)
    assert gpu.MINUTES <= 8


def test_steps_and_certificates_are_measured_once_and_kept(tmp_path, capsys):
    for stage in ("steps", "certificates"):
        table = benchmarks.benchmark("gpu", [0], SMALL, str(tmp_path), stage=stage, minutes=8)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["device"] == "cpu" and set(results["stages"]) == {"steps", "certificates"}
    for row in results["stages"]["steps"].values():
        assert row["critic"] > 0 and row["twin"] > 0 and row["ratio"] > 0
        assert row["lipschitz"] <= 1 and row["lipschitz, captured"] <= 1
        assert row["apart"] == 0 and not row["critic replayed"]  # nothing is captured on a CPU
    assert all(row["equal"] and row["lipschitz"] <= 1 for row in results["stages"]["certificates"].values())
    assert "certificates" in table and "steps" in table
    page = (tmp_path / "README.md").read_text()
    assert "Not measured yet:** checks, recipes, pricing_plane" in page
    before = (tmp_path / "results.json").read_text()
    capsys.readouterr()
    benchmarks.benchmark("gpu", [0], SMALL, str(tmp_path), stage="steps")
    assert capsys.readouterr().err == ""  # no case is taken again
    assert json.loads(before)["stages"] == json.loads((tmp_path / "results.json").read_text())["stages"]


@pytest.mark.parametrize("stage", ["pricing_plane", "pricing_16"])
def test_pricing_encloses_and_says_how_it_came_there(stage, tmp_path):
    row = gpu.STAGES[stage](setting(tmp_path))["gaussians"]()
    assert row["n"] == 2100 and row["dim"] == {"pricing_plane": 2, "pricing_16": 16}[stage]
    assert row["met"] and row["lower"] <= row["upper"] and row["width"] < 1e-9
    widths = [step["upper"] - step["lower"] for step in row["history"]]
    assert widths == sorted(widths, reverse=True) and any("pricing" in step["stage"] for step in row["history"])


def test_pricing_stops_with_its_time():
    row = gpu.STAGES["pricing_16"](setting(seconds=0))["gaussians"]()
    assert not row["met"] and math.isfinite(row["upper"]) and row["lower"] <= row["upper"]


@pytest.mark.parametrize("certified", [True, False])
def test_the_training_of_record_goes_on_in_pieces_and_ends_where_one_without_a_break_ends(certified, tmp_path):
    pieces, whole = tmp_path / "pieces", tmp_path / "whole"
    first = gpu._piece(certified, setting(pieces, seconds=0))
    assert first["unfinished"] and 0 < first["step"] < first["of"] == 6
    second = gpu._piece(certified, setting(pieces))
    assert "unfinished" not in second and second["step"] == 6
    assert [record["step"] for record in second["scores"]] == [0, 3, 6]
    assert second["summary"]["score"]["ratio"] > 0
    (run,) = (Run(folder) for folder in pieces.iterdir() if folder.is_dir())
    assert [record["step"] for record in run.metrics] == [0, 3, 6]
    if certified:
        assert gpu._piece(certified, setting(whole))["step"] == 6
        one, two = (
            torch.load(out / "record-certified" / "checkpoint.pt", weights_only=True)["game"] for out in (whole, pieces)
        )
        for part in ("ema", "critic"):
            assert all(torch.equal(one[part][name], two[part][name]) for name in one[part])


def test_the_twin_has_the_convolutions_and_a_penalty():
    twin = gpu._PenalizedTwin((1, 8, 8))
    assert isinstance(twin, Penalized) and any(isinstance(layer, nn.Conv2d) for layer in twin.modules())
    assert twin(torch.randn(5, 64)).shape == (5,)
    assert twin.penalty(torch.randn(5, 64), torch.randn(5, 64)).item() > 0
    certified = gpu.ConvolutionalCritic((1, 8, 8))
    sizes = [sum(parameter.numel() for parameter in critic.parameters()) for critic in (twin, certified)]
    assert 1 < sizes[0] / sizes[1] < 2.5  # a residual layer has its weight once, its twin twice
    assert isinstance(twin, PenalizedCritic) and certify(certified).lipschitz <= 1


def test_operations_are_counted():
    row = gpu._operations(setting())
    assert 100 < row["operations"] < 200 and row["of"]["aten::_fused_adam_"] == 4


def test_recipes_are_commands_that_the_command_line_takes(tmp_path, monkeypatch, capsys):
    taken = []

    def case(directory, arguments):
        taken.append(arguments)
        assert main(["train", *arguments, "--cfg", "job"]) == 0
        return {"command": "wgan-lip train"}

    class Finished:
        metrics = ({"perf/steps_per_second": 3.0, "perf/samples_per_second": 30.0},)

    monkeypatch.setattr(gpu, "train_case", case)
    monkeypatch.setattr(gpu, "Run", lambda directory: Finished)
    for measured in gpu.STAGES["recipes"](setting(tmp_path)).values():
        assert measured()["steps_per_second"] == 3
    assert ["training.capture=false" in arguments for arguments in taken] == [True, False]
    large = gpu.Setting(torch.device("cpu"), gpu.SIZES[gpu.LARGE], 0, tmp_path, Path("data"), 0)
    for measured in list(gpu.STAGES["recipes"](large).values()):
        measured()
    assert len(taken) == 2 + 8
    capsys.readouterr()


def test_without_its_time_nothing_is_begun_but_the_page_says_what_is_left(tmp_path):
    benchmarks.benchmark("gpu", [0], SMALL, str(tmp_path), minutes=1e-9)
    assert "Not measured yet:** checks, steps" in (tmp_path / "README.md").read_text()


BAD = {
    "an unknown stage": ({"stage": "step"}, "stage"),
    "no time": ({"minutes": 0.0}, "minutes must be positive"),
    "another key": ({"overrides": ["sizes=small", "size=3"]}, "KEY in device, sizes, data"),
    "unknown sizes": ({"overrides": ["sizes=tiny"]}, "sizes must be among large, small"),
    "two seeds": ({"seeds": [0, 1]}, "one seed"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_are_refused(case, tmp_path):
    given, message = BAD[case]
    arguments = {"seeds": [0], "overrides": SMALL, **given}
    with pytest.raises(InputError, match=message):
        benchmarks.benchmark("gpu", out=str(tmp_path), **arguments)


def test_results_of_other_sizes_are_not_mixed(tmp_path):
    benchmarks.benchmark("gpu", [0], SMALL, str(tmp_path), minutes=1e-9)
    with pytest.raises(InputError, match="of another device or other sizes"):
        benchmarks.benchmark("gpu", [0], ["device=cpu"], str(tmp_path), minutes=1e-9)


def test_a_stage_is_for_suites_that_have_some(tmp_path):
    with pytest.raises(InputError, match="suite=layers takes no stage"):
        benchmarks.benchmark("layers", [0], [], str(tmp_path), stage="steps")
    with pytest.raises(InputError, match="suite=layers takes no minutes"):
        benchmarks.benchmark("layers", [0], [], str(tmp_path), minutes=3.0)


def test_the_record_asks_for_its_data():
    with pytest.raises(InputError, match="data=DIR"):
        gpu._images(gpu.Setting(torch.device("cpu"), gpu.SIZES[gpu.LARGE], 0, Path(), None, 0))
