"""The command line, end to end on a tiny budget, and every way a user can get it wrong."""

from __future__ import annotations

import inspect
import json
import math
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY, WATCHED
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wgan_lip.cli import COMMANDS, config_directory, main, screens
from wgan_lip.cli.overrides import with_jobs_named
from wgan_lip.cli.sweeps import side_by_side
from wgan_lip.critics import ConvolutionalCritic, FixedWidthCritic, ResNetCritic, SortingCritic
from wgan_lip.lipschitz.certificates import Certificate, certify, verify
from wgan_lip.lipschitz.layers import Retraction
from wgan_lip.runs.run import Run, load_run
from wgan_lip.runs.targets import target_class
from wgan_lip.runs.tracking import MEANINGS

CRITICS = [
    ["critic=resnet"], ["critic=resnet_plane"], ["critic=fixed_width"], ["critic=sorting"], ["critic=convolutional"],
    ["critic.norm=max"], ["critic.readout=cones", "critic.centers=8"], ["critic.activation=spline"],
]  # fmt: skip
SETS_2D = ("gaussians8", "gaussians25", "swissroll", "moons", "checkerboard")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def only_run(folder: str = "outputs/train") -> Path:
    (directory,) = Path(folder).iterdir()
    return directory


def refused(capsys, *arguments: str) -> str:
    """Runs a command that must fail with status 2 and one line; returns the line."""
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("wgan-lip: "), captured.err
    assert "Traceback" not in captured.err and captured.out == ""
    return lines[0]


def test_a_run_leaves_everything_it_promises(tiny_run):
    names = {path.name for path in tiny_run.iterdir()}
    assert names >= {"config.yaml", "overrides.json", "checkpoint.pt", "certificate.json", "summary.json", "status.json",
                     "metrics.jsonl", "samples.png", "interval.png"}  # fmt: skip
    assert json.loads((tiny_run / "overrides.json").read_text())[0] == TINY[0]
    (events,) = tiny_run.glob("events.out.tfevents.*")
    board = EventAccumulator(str(events), size_guidance={"scalars": 0, "images": 0}).Reload()
    assert [event.step for event in board.Scalars("w1/exact")] == [0, 3, 6]
    assert [event.step for event in board.Images("at_a_glance/samples")] == [0, 3, 6]
    assert {"w1/lower", "w1/upper", "w1/critic", "certificate/lipschitz", "critic/grad_norm", "generator/loss",
            "eval/excess", "eval/excess_real", "eval/w1_over_floor", "critic/held_out", "critic/refitted",
            "perf/samples_per_second", "at_a_glance/excess", "at_a_glance/proved_share", "relative/exact"} <= set(
        board.Tags()["scalars"]
    ) <= MEANINGS.keys()  # fmt: skip
    with Image.open(tiny_run / "samples.png") as picture:
        assert picture.size[0] > 300


def test_the_last_screen_says_what_a_person_needs(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["train", *TINY, *WATCHED]) == 0
    screen = capsys.readouterr().out
    directory = only_run()
    summary = Run(directory).summary
    for expected in ("Lip(f) ≤ ", "≤ W1 = ", "Floor W1(real, test)", "Excess over the floor", "W1 over floor", "Critic, held out", "Copies", "Sliced W1, W2 ", "MMD ",
                     "Precision, recall ", "Density, coverage ", "KID of features ", "excess of W1 ", "real samples: ",
                     "needs the weights of Inception", f"{directory}/samples.png",
                     f"{directory}/checkpoint.pt", f"{directory}/events.out.tfevents", "tensorboard --logdir"):  # fmt: skip
        assert expected in screen
    assert f"{summary['interval']['n']} + {summary['interval']['n']} samples" in screen
    assert summary["scores"].keys() == {"samples", "features"}
    assert all(scores["values"].keys() == scores["floors"].keys() for scores in summary["scores"].values())


@pytest.mark.parametrize("name", SETS_2D)
def test_2d_experiments_run_with_either_critic(name, capsys):
    critic = "fixed_width" if name == "moons" else "resnet"
    one_thread = "threads=1"  # the recipe's two would wait for those of a test beside this one
    assert main(["train", f"experiment={name}", f"critic={critic}", "data.test_size=30", one_thread, *TINY]) == 0
    summary = Run(only_run()).summary
    assert summary["interval"]["dim"] == 2
    assert (summary["modes"] is not None) == name.startswith("gaussians")
    assert ("Modes" in capsys.readouterr().out) == name.startswith("gaussians")


@pytest.mark.parametrize("choice", CRITICS, ids=" ".join)
def test_a_run_of_any_critic_reloads_as_it_was_proved_and_scored(choice, capsys):
    assert main(["train", *choice, *TINY, "evaluation.fit_steps=0"]) == 0
    run = load_run(only_run())
    stored = Certificate.load(run.directory / "certificate.json")
    assert verify(stored, run.critic) == certify(run.critic, units=run.units) == stored
    assert run.summary["lipschitz"] == stored.lipschitz <= 1
    assert all(run.config["critic"][key.split(".")[1]] for key in (part.split("=")[0] for part in choice) if "." in key)
    capsys.readouterr()
    assert main(["certify", f"run={run.directory}"]) == 0
    screen = capsys.readouterr().out
    assert "agrees with the stored one" in screen and max(map(len, screen.splitlines())) <= 120
    assert main(["sample", f"run={run.directory}", "n=5", "out=x.npy"]) == 0
    assert np.array_equal(np.load("x.npy"), load_run(run.directory).sample(5).numpy())


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adamw"])
def test_every_optimizer_keeps_the_certificate(optimizer):
    assert main(["train", f"optimizer@critic_optimizer={optimizer}", *TINY]) == 0
    assert Run(only_run()).summary["lipschitz"] <= 1


def test_vectors_from_a_file_train(capsys):
    np.save("x.npy", np.random.default_rng(0).normal(size=(100, 3)))
    assert main(["train", "data=file", "data.path=x.npy", *TINY]) == 0
    run = load_run(only_run())
    assert run.sample(4).shape == (4, 3) and run.image_shape is None


def test_a_sweep_runs_every_job_in_a_folder_named_by_what_differs(capsys):
    assert main(["train", "--multirun", "critic=resnet,fixed_width", "seed=0,1", *TINY]) == 0
    jobs = [Run(path) for path in Path("outputs/multirun").glob("*/*") if path.is_dir()]
    names = {job.directory.name for job in jobs}
    assert names == {f"critic={critic},seed={seed}" for critic in ("resnet", "fixed_width") for seed in (0, 1)}
    (sweep,) = Path("outputs/multirun").iterdir()
    assert f"wgan-lip compare runs={sweep}" in capsys.readouterr().out.splitlines()[-1]
    targets = sorted((job.config["critic"]["_target_"].split(".")[-1], job.config["seed"]) for job in jobs)
    assert targets == [("FixedWidthCritic", 0), ("FixedWidthCritic", 1), ("ResNetCritic", 0), ("ResNetCritic", 1)]
    assert all(job.status["state"] == "finished" for job in jobs)


def test_a_sweep_goes_to_a_launcher_of_jobs(capsys):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra cluster")
    jobs = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5", "hydra.sweep.dir=jobs"]
    assert main(["train", "--multirun", *jobs, "seed=0,1", *TINY]) == 0
    assert [load_run(Path("jobs") / name).status["state"] for name in ("seed=0", "seed=1")] == ["finished"] * 2


def test_jobs_run_side_by_side_and_a_failure_among_them_is_told(capfd):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra jobs")
    assert main(["train", "--multirun", "jobs=2", "critic=resnet,convolutional", "data=moons", *TINY]) == 2
    (finished,) = Path("outputs/multirun").glob("*/*/checkpoint.pt")
    told = capfd.readouterr().err.splitlines()
    assert Run(finished.parent).status["state"] == "finished" and finished.parent.name == "critic=resnet"
    assert any(line.startswith("critic=resnet: step ") for line in told), "lines of jobs carry their names"
    assert "failed" in told[-2] and told[-2].endswith("critic=convolutional")
    assert "image_shape must be (c, h, w)" in told[-1]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["jobs=0", "--multirun", "seed=0,1"], "jobs must be how many jobs of a sweep run at a time"),
        (["jobs=two", "--multirun", "seed=0,1"], "jobs must be how many jobs of a sweep run at a time"),
        (["jobs=2", "seed=0"], "jobs=2 works only in a sweep. Add --multirun"),
        (["jobs=2", "--multirun", "seed=0,1", "hydra/launcher=submitit_local"], "Leave out one of them"),
    ],
)
def test_jobs_that_make_no_sense_are_refused(typed, message, capsys):
    assert main(["train", *typed]) == 2
    assert message in capsys.readouterr().err and not Path("outputs").exists()


def test_jobs_need_a_launcher_that_is_named_where_it_is_not_installed(monkeypatch, capsys):
    monkeypatch.setattr("wgan_lip.cli.sweeps._installed", lambda plugin: False)
    assert main(["train", "--multirun", "jobs=2", "seed=0,1"]) == 2
    assert "pip install wgan-lip[jobs]" in capsys.readouterr().err
    assert side_by_side(["--multirun", "jobs=1", "seed=0,1"]) == ["--multirun", "seed=0,1"]


@pytest.mark.parametrize("width", [80, 64])
def test_the_last_screen_breaks_no_word_on_a_narrow_terminal(tiny_run, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    narrow = screens.finished(Run(tiny_run))
    monkeypatch.setenv("COLUMNS", "200")
    wide = screens.finished(Run(tiny_run))
    assert narrow.split() == wide.split(), "the same words in the same order"
    long = [line for line in narrow.splitlines() if len(line) > width]
    assert all(re.fullmatch(r" *\S+|    \S*tensorboard --logdir \S+", line) for line in long), long


@pytest.mark.parametrize(
    ("typed", "left_out"),
    [
        (["--multirun", "critic=resnet,cones", "training.steps=5"], '"training.steps"'),
        (["seed=range(0,3)", "+extra.key=1", "-m"], '"extra.key"'),
        (["-m", "optimizer@critic_optimizer=adam,sgd", "optimizer@generator_optimizer=sgd", "hydra.verbose=true"], ""),
    ],
)
def test_jobs_of_a_sweep_are_named_by_what_was_swept(typed, left_out):
    assert with_jobs_named(typed) == [
        "hydra.sweep.subdir=${hydra.job.override_dirname}",
        f"hydra.job.config.override_dirname.exclude_keys=[{left_out}]",
        *typed,
    ]


@pytest.mark.parametrize(
    "typed",
    [
        ["critic=resnet,cones"],  # no sweep
        ["-m", "seed=1"],
        ["-m", "data.path=a/b.npy,c.npy", "data=file"],  # a slash would be a folder
        ["-m", "critic.width=[1,2],[3]"],
        ["-m", f"trust=a,{'b' * 200}"],
        ["-m", "seed=0,1", "hydra.sweep.subdir=mine"],
        ["-m", "seed=0,1", "critic=("],  # told where Hydra composes
    ],
)
def test_other_jobs_keep_their_numbers(typed):
    assert with_jobs_named(typed) == typed


def test_a_sweep_goes_on_after_a_job_that_is_refused(capsys):
    assert main(["train", "--multirun", "critic=convolutional,resnet", "data=moons", *TINY]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("wgan-lip: ")]
    assert "failed" in lines[0] and "critic=convolutional" in lines[0] and "critic=resnet" not in lines[0]
    assert "image_shape must be (c, h, w)" in lines[1] and len(lines) == 2
    (finished,) = Path("outputs/multirun").glob("*/*/checkpoint.pt")
    assert Run(finished.parent).config["critic"]["_target_"].endswith("ResNetCritic")


def test_two_runs_within_a_second_do_not_collide():
    for _ in range(2):
        assert main(["train", *TINY, "evaluation.fit_steps=0"]) == 0
    assert len(list(Path("outputs/train").iterdir())) == 2


def test_usage_lists_every_command(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    assert main([]) == 2
    assert main(["--version"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["dance"],
            "There is no command 'dance'. Commands: train, estimate, test, certify, inspect, compare, sample, export,",
        ),
        (["train", "experiment=atlantis"], "There is no experiment=atlantis. Choices: checkerboard, cifar10"),
        (["train", "critic=cubic"], "There is no critic=cubic. Choices: clipped, cones, cones_plane"),
        (["train", "critic=resnte"], "There is no critic=resnte. Did you mean critic=resnet? Choices: clipped"),
        (["train", "critic.widht=3"], "train has no key critic.widht. Did you mean critic.width"),
        (["train", "critic.abc=3"], "critic has no key 'abc'. Its keys are width, depth, hidden, activation"),
        (["train", "batch_size=3"], "train has no key batch_size. Did you mean training.batch_size?"),
        (["train", "optimizer=sgd"], "Say which: optimizer@critic_optimizer=CHOICE or optimizer@generator_optimizer=C"),
        (["train", "abc=3"], "train has no key 'abc'. Its keys are experiment, data, critic"),
        (["train", "+critic.foo=1"], "There is no key critic.foo"),
        (["train", "+foo=1"], "There is no key foo"),
        (["train", "critic.width=five"], "critic.width must be of type int or null, not 'five'"),
        (["train", "critic.width=2.5"], "critic.width must be of type int or null, not 2.5"),
        (["train", "critic.depth=0"], "depth must be at least 1, not 0"),
        (["train", "critic.activation=sine"], "relu, leaky_relu, hardtanh, tanh, softplus, spline, not 'sine'"),
        (["train", "critic.norm=l7"], "norm must be one of euclidean, max, not 'l7'"),
        (["train", "critic.norm=max", "critic.width=100"], "a width that is a power of 2"),
        (["train", "critic.norm=max", "critic.readout=cones"], 'readout "linear"'),
        (["train", "critic.readout=foo"], "readout must be one of linear, cones, not 'foo'"),
        (["train", "critic.centers=0"], "centers must be at least 1, not 0"),
        (["train", "critic.bias_scale=-1"], "-1"),
        (
            ["train", "critic=fixed_width", "critic.norm=max"],
            "critic has no key 'norm'. Its keys are depth, hidden, activation",
        ),
        (["train", "critic=sorting", "critic.group=3"], "group must divide the width 128; 3 does not"),
        (["train", "critic=sorting", "critic.group=0"], "group must divide the width 128; 0 does not"),
        (["train", "critic=convolutional", "critic.patch=99"], "at least 199 × 199 pixels for patches of 99"),
        (["train", "critic=convolutional", "critic.channels=-1"], "channels must be at least 1, not -1"),
        (["train", "critic=convolutional", "critic.conv_depth=0"], "conv_depth must be at least 1, not 0"),
        (["train", "critic=convolutional", "data=moons"], "image_shape must be (c, h, w), not None"),
        (["train", "experiment=moons", "critic=convolutional"], "For samples that are not images use ResNetCritic"),
        (["train", "critic.heads=3"], "critic has no key 'heads'"),
        (["train", "+critic.heads=3"], "Build it with heads=1"),
        (["train", "+critic.heads=0"], "heads must be at least 1, not 0"),
        (["train", "+critic.dim=5"], "such as shape (b, 5)"),
        (["train", "+generator.dim=5"], "The generator's output shape is (b, 5), but the data have shape (b, 64)"),
        (["train", "evaluation.size=-4"], "evaluation.size must be at least 2, not -4"),
        (["train", "evaluation.neighbour=0"], "evaluation.neighbour must be at least 1, not 0"),
        (
            ["train", "evaluation.neighbour=500"],
            "evaluation.neighbour must be below the number of samples, 500, not 500. Lower it, or raise evaluation.size.",
        ),
        (["train", "evaluation.inception_weights=w.pth"], "There is no file w.pth with the weights of Inception"),
        (["train", "data=moons", "evaluation.inception_weights=w.pth"], "FID and KID need images; moons has none"),
        (["train", "training.batch_size=1298"], "training.batch_size must be at most 1297"),
        (["train", "evaluation.repeats=0"], "evaluation.repeats must be at least 1, not 0"),
        (["train", "evaluation.fit_steps=-1"], "evaluation.fit_steps must be at least 0, not -1"),
        (["train", "data.test_size=1000"], "the number of training samples, not 1000. Lower evaluation.size"),
        (["train", "training.critic_schedule=3"], "training.critic_schedule must be of type str, not 3"),
        (["train", "training.steps=0"], "training.steps must be above zero, not 0"),
        (["train", "critic_optimizer.lr=fast"], "critic_optimizer.lr must be of type float, not 'fast'"),
        (["train", "critic_optimizer.lr=-1"], "Invalid learning rate: -1"),
        (["train", "critic._target_=os.system"], "_target_ must name a class"),
        (["train", "critic_optimizer=sgd"], "as in optimizer@critic_optimizer=sgd"),
        (["train", "training=3"], "training"),
        (["train", "device=abacus"], "device must be auto, cpu, cuda or cuda:N, not 'abacus'"),
        (["train", "device=cuda:99"], "device=cuda:99 is not available"),
        (["train", "seed=x"], "seed must be of type int, not 'x'"),
        (["train", "seed=-1"], "seed must be an integer from 0 to 2^31 − 1, not -1"),
        (["train", "seed=99999999999999999999"], "not 99999999999999999999"),
        (["train", "threads=0"], "threads must be at least 1, not 0"),
        (["train", "data=file"], "data.path must be given"),
        (["train", "data=file", "data.path=none.npy"], "none.npy"),
        (["train", "data=mnist", "data.download=false", "data.root=empty"], "MNIST"),
        (["train", "critic.width="], "critic.width"),
        (["train", "critic.width={"], "'critic.width={' can't be read as key=value"),
        (["certify"], "run must be given, as run=VALUE"),
        (["certify", "run=nowhere"], "There is no folder nowhere"),
        (["inspect", "run=nowhere"], "There is no folder nowhere"),
        (["sample", "run=nowhere", "out=x.npy"], "There is no folder nowhere"),
    ],
)
def test_a_mistake_gets_one_clear_line_and_leaves_nothing(arguments, message, capsys):
    assert message in refused(capsys, *arguments)
    assert [path for path in Path.cwd().rglob("*") if path.is_file()] == []
    assert not list(Path("outputs").glob("train/*"))


def test_final_scores_beyond_the_memory_are_refused_before_the_first_step(monkeypatch, capsys):
    monkeypatch.setattr("wgan_lip.utils.checks.available_memory", lambda: 40 * 300**2 - 1)
    message = refused(capsys, "train", "data=moons", "evaluation.size=300")
    assert "memory for W1 between 300 and 300 samples" in message and "Lower evaluation.size" in message
    assert not list(Path("outputs").glob("train/*"))


@pytest.mark.parametrize(
    "settings", [["critic.width=10000000000"], ["data=moons", "training.batch_size=1000000000000"]]
)
def test_sizes_beyond_the_memory_are_told_in_one_line_with_what_to_lower(settings, capsys):
    """Sizes are told before anything of them is built."""
    assert main(["train", *settings]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"not enough memory for .* [0-9.]+ GiB are available", line)
    assert ("Lower training.batch_size" in line) == ("data=moons" in settings)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((50, 2), np.nan), "the first of them row 0"),
        (np.array([[1.0, 2.0]] * 9 + [[np.inf, 0.0]]), "row 9"),
        (np.ones((7, 2, 2, 2, 2)), "shape (n, d)"),
        (np.ones((1, 2)), "at least"),
        (np.ones((0, 2)), "at least"),
        (np.array([["a", "b"]] * 4), "real numbers"),
        (np.ones((5, 2)) * 1j, "real numbers"),
    ],
)
def test_unusable_data_is_refused(array, message, capsys):
    np.save("x.npy", array)
    assert message in refused(capsys, "train", "data=file", "data.path=x.npy")


def test_a_file_that_is_not_what_its_ending_says_is_refused(capsys):
    for name in ("x.npy", "x.npz", "x.pt", "x.csv"):
        Path(name).write_bytes(b"\x00\x01 not data")
        assert name in refused(capsys, "train", "data=file", f"data.path={name}")


def test_an_existing_run_is_not_written_over(tiny_run, capsys):
    before = {path.name: path.read_bytes() for path in tiny_run.iterdir()}
    assert "already holds a run" in refused(capsys, "train", f"hydra.run.dir={tiny_run}")
    assert before == {path.name: path.read_bytes() for path in tiny_run.iterdir()}


def test_a_run_that_diverges_keeps_its_last_good_state(capsys):
    assert main(["train", *TINY, "generator_optimizer.lr=1e38", "training.generator_schedule=constant"]) == 1
    assert "Training diverged: NaN or infinity" in capsys.readouterr().err
    run = load_run(only_run())
    assert run.status["state"] == "failed" and "finite" in run.status["reason"]
    assert torch.isfinite(run.sample(3)).all()
    assert main(["inspect", f"run={run.directory}"]) == 0
    screen = capsys.readouterr().out
    assert "failed" in screen and "Re-proved now" in screen


def test_certify_holds_the_stored_certificate_against_the_weights(tiny_run, tmp_path, capsys):
    copy = shutil.copytree(tiny_run, tmp_path / "copy")
    assert main(["certify", f"run={copy}"]) == 0
    assert "agrees with the stored one" in capsys.readouterr().out
    path = copy / "certificate.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"lipschitz": 0.5}))
    assert main(["certify", f"run={copy}"]) == 0
    assert "did not verify" in capsys.readouterr().out
    assert json.loads(path.read_text()) == content


@pytest.mark.parametrize(
    "critic",
    [
        ConvolutionalCritic((1, 28, 28), width=16, depth=10),
        ResNetCritic(9, width=128, depth=10, readout="cones"),
        ResNetCritic(9, norm="max", depth=10),
        FixedWidthCritic(784, depth=1, hidden=3),
        SortingCritic(9, width=128, depth=10),
    ],
    ids=lambda critic: type(critic).__name__,
)
def test_a_certificate_fits_a_screen_of_120_columns(critic):
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter *= 1 - 1 / math.pi  # step sizes and bounds with all their digits
    Retraction(critic)()
    proved = certify(critic, units="one")
    lines = screens.certificate(
        proved, Path("outputs/train/2026-11-22_23-44-42-327706/certificate.json"), "new"
    ).splitlines()
    assert max(map(len, lines)) <= 120
    table = lines[2 : 2 + len(proved.layers)]
    for line, layer in zip(table, proved.layers, strict=True):
        assert line.startswith(layer.path) and layer.norm_out in line and line.endswith(layer.method)
    assert lines[1].split() == ["(samples)", proved.norm_in]


def test_inspect_shows_runs_in_any_state(tiny_run, tmp_path, capsys):
    assert main(["inspect", f"run={tiny_run}"]) == 0
    screen = capsys.readouterr().out
    assert "finished at step 6" in screen and "Re-proved now" in screen
    assert main(["inspect", f"run={tiny_run}", "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"] == Run(tiny_run).summary
    copy = shutil.copytree(tiny_run, tmp_path / "copy")
    for name in ("summary.json", "checkpoint.pt", "status.json"):
        (copy / name).unlink()
        assert main(["inspect", f"run={copy}", "out=null"]) == 0  # test_report has the pages of runs in any state
        screen = capsys.readouterr().out
        assert "Last audit" in screen
    assert "No certificate" in screen and "unknown" in screen


@pytest.mark.parametrize(
    ("file", "content"),
    [("summary.json", '{"a": 1}'), ("summary.json", ""), ("config.yaml", "["), ("metrics.jsonl", "garbage\n{}\n")],
)
def test_inspect_names_a_damaged_file(tiny_run, tmp_path, capsys, file, content):
    copy = shutil.copytree(tiny_run, tmp_path / "copy")
    if file == "metrics.jsonl":
        (copy / "summary.json").unlink()
    (copy / file).write_text(content)
    assert file in refused(capsys, "inspect", f"run={copy}")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": 3}', '{"state": "finished", "step": -1}', '{"step": 1}'])
def test_a_damaged_status_hides_nothing_else(tiny_run, tmp_path, capsys, content):
    copy = shutil.copytree(tiny_run, tmp_path / "copy")
    (copy / "status.json").write_text(content)
    assert main(["inspect", f"run={copy}", *(["out=null"] if content else [])]) == 0  # one page of them all
    screen = capsys.readouterr().out
    assert (
        "unknown at step 0" in screen and "its status.json is damaged" in screen and "Excess over the floor" in screen
    )


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("resnet", {}), ("fixed_width", {}), ("sorting", {}), ("convolutional", {}), ("image", {}), ("clipped", {}),
        ("gradient_penalty", {}), ("one_sided_penalty", {"one_sided": True}), ("spectral_norm", {}), ("groupsort", {}),
        ("resnet_plane", {"width": 64, "depth": 10, "bias_scale": 0.2}), ("resnet_wide", {"width": 256}),
        ("sorting_small", {"width": 64, "depth": 3, "group": 16}), ("sorting_full", {"depth": 2, "group": 128}), ("mean", {}),
        ("convolutional_small", {"depth": 4}), ("convolutional_labels", {"depth": 4, "channels": 32}),
        ("cones", {"depth": 0, "readout": "cones", "centers": 1024}),
        ("cones_plane", {"depth": 0, "readout": "cones", "centers": 128, "cooling": 0.05}),
    ],
)  # fmt: skip
def test_a_critic_file_states_every_key_of_its_class_at_its_default(name, changed):
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        stated = dict(compose("train", overrides=[f"critic={name}"]).critic)
        if name == "mean":
            assert stated.pop("of") == compose("train", overrides=["critic=sorting_small"]).critic
    parameters = inspect.signature(target_class("critic", stated.pop("_target_"))).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    sizes = {"heads": 1, "label_count": 0}  # the data's, or the game's
    assert sizes | stated == sizes | defaults | changed


def test_every_critic_file_is_tested_and_every_key_of_a_plain_one_is_explained():
    files = {path.stem: path.read_text() for path in (config_directory() / "critic").glob("*.yaml")}
    ours = {
        "resnet",
        "resnet_plane",
        "resnet_wide",
        "cones",
        "cones_plane",
        "fixed_width",
        "sorting",
        "sorting_small",
        "sorting_full",
        "mean",
        "convolutional",
        "convolutional_small",
        "convolutional_labels",
        "image",
    }
    assert files.keys() == ours | {"clipped", "gradient_penalty", "one_sided_penalty", "spectral_norm", "groupsort"}
    for text in files.values():
        head, *lines = text.splitlines()
        assert head.startswith("# ")
        if "defaults:" not in lines:
            assert all(" # " in line for line in lines if not line.startswith("_target_"))


@pytest.mark.parametrize(
    ("player", "name"),
    [
        ("critic", "fixed_width"), ("generator", "mlp"), ("generator", "dcgan"),
        ("critic_optimizer", "rmsprop"), ("generator_optimizer", "rmsprop"),
    ],
)  # fmt: skip
def test_an_experiment_takes_another_choice_as_its_file_has_it(player, name):
    """But for learning rates, which belong to the experiment."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        chosen = f"optimizer@{player}={name}" if "optimizer" in player else f"{player}={name}"
        plain = compose("train", overrides=[chosen])[player]
        for path in (config_directory() / "experiment").glob("*.yaml"):
            config = compose("train", overrides=[f"experiment={path.stem}", chosen])[player]
            assert {**config, "lr": None} == {**plain, "lr": None}, path


def test_every_experiment_and_choice_composes():
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        for group in ("data", "critic", "generator", "experiment"):
            for path in (config_directory() / group).glob("*.yaml"):
                config = compose("train", overrides=[f"{group}={path.stem}"])
                for section in ("data", "critic", "generator", "critic_optimizer", "generator_optimizer"):
                    assert target_class(section, config[section]["_target_"])


def test_a_benchmark_measures_every_case_once(monkeypatch, capsys):
    from wgan_lip.benchmarks import wgan

    def forked(process, check):
        """As a copy of this process, which has all imported; test_cli_resuming has a case in a fresh one."""
        assert process[:3] == [sys.executable, "-m", "wgan_lip"] and not check
        child, status = os.fork(), 99
        if child == 0:
            try:
                GlobalHydra.instance().clear()
                status = main(process[3:])
            finally:
                os._exit(status)
        return SimpleNamespace(returncode=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    monkeypatch.setattr(wgan, "subprocess", SimpleNamespace(run=forked))
    monkeypatch.setattr(wgan, "CASES", ("gaussians8", "digits"))
    overrides = ",".join(f"'{setting}'" for setting in [*TINY, "evaluation.fit_steps=0", "threads=1"])
    written = []
    for _ in range(2):
        assert main(["benchmark", "seeds=[1]", f"overrides=[{overrides}]"]) == 0
        folder = Path("outputs/benchmark/wgan")
        rows = json.loads((folder / "results.json").read_text())["rows"]
        assert [(row["case"], row["seed"]) for row in rows] == [("gaussians8", 1), ("digits", 1)]
        assert rows[1]["command"].startswith("wgan-lip train experiment=digits seed=1 training.steps=6")
        table = (folder / "table.md").read_text()
        assert table in capsys.readouterr().out and table.count("\n") == 4
        written.append({path: path.stat().st_mtime_ns for path in folder.glob("*/checkpoint.pt")})
    assert len(written[0]) == 2 and written[0] == written[1]
    assert "Choose another out=DIR" in refused(capsys, "benchmark", "seeds=[1]", "overrides=['training.steps=7']")


@pytest.mark.parametrize("bad", ["suite=poetry", "seeds=[]", "seeds=[x]"])
def test_a_benchmark_refuses_what_it_cannot_measure(bad, capsys):
    assert f"{bad.split('=')[0]} must be" in refused(capsys, "benchmark", bad)


def test_a_refuted_certificate_stops_the_run_and_keeps_the_evidence(monkeypatch, capsys):
    from wgan_lip.training import audit
    from wgan_lip.wasserstein.interval import InvariantViolation

    def refuted(*arguments, **settings):
        raise InvariantViolation("Expected lower <= upper.")

    monkeypatch.setattr(audit, "bracket", refuted)
    assert main(["train", *TINY]) == 1
    assert "At step 3: Expected lower <= upper." in capsys.readouterr().err
    run = load_run(only_run())
    assert (run.status["state"], run.status["step"], run.step) == ("failed", 3, 3)


def test_a_failure_in_the_final_scores_is_recorded(monkeypatch):
    from wgan_lip.training import session

    def full(*_, **__):
        raise OSError(28, "No space left on device", "summary.json")

    monkeypatch.setattr(session, "write_json", full)
    assert main(["train", *TINY]) == 2
    run = load_run(only_run())
    assert run.status["state"] == "failed" and "No space left" in run.status["reason"] and run.step == 6
