"""A training from Python: a run like one of the command line, that is killed and goes on, and opens without models."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import wgan_lip
from wgan_lip import Checkpointing, Evaluation, InputError, ResNetCritic, Tracker, Training
from wgan_lip.cli import main
from wgan_lip.data import Gaussians8, Moons, TensorSource
from wgan_lip.generators import MLPGenerator
from wgan_lip.inspection.compare import compare_runs
from wgan_lip.runs.checkpoints import read_checkpoint
from wgan_lip.runs.folder import read_json
from wgan_lip.runs.tracking import read_records
from wgan_lip.training.board import TrainingBoard

ROOT = Path(wgan_lip.__file__).resolve().parents[1]
QUICK = {"steps": 6, "batch_size": 16, "critic_steps": 1, "warmup_steps": 2, "log_every": 2, "audit_every": 3,
         "audit_size": 20, "audit_scores": False, "audit_refits": 0}  # fmt: skip
SCORED = Evaluation(size=30, repeats=2, fit_steps=2, directions=8)
(SCRIPT,) = (code for code in re.findall(r"```python\n(.*?)```", (ROOT / "wgan_lip/guides/training.md").read_text(), re.DOTALL)
             if "wgan_lip.train(" in code)  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TrainingBoard, "_show", lambda *_: None)


def players(seed: int = 0, width: int = 8) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(seed)
    return MLPGenerator(2, latent_dim=2, width=8, depth=1), ResNetCritic(2, width=width, depth=2)


def trained(out="mine", source=None, generator=None, critic=None, **settings):
    default = players()
    settings = QUICK | {"evaluation": SCORED, "tracking": ()} | settings
    source = Moons(test_size=40) if source is None else source
    return wgan_lip.train(source, generator or default[0], critic or default[1], out=out, **settings)


def by_hand() -> nn.Module:
    torch.manual_seed(1)
    generator = nn.Sequential(nn.Linear(2, 2))
    generator.latent_dim = 2
    return generator


SHOW = TrainingBoard._show
ROWS = torch.randn(120, 2, generator=torch.Generator().manual_seed(3))


def test_the_script_of_the_readme_is_short_killed_and_goes_on(tmp_path):
    """Twenty-five lines besides imports; a process that is killed at a checkpoint, and one that takes over from it."""
    lines = [line for line in SCRIPT.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 25 and "hydra" not in SCRIPT
    brief = SCRIPT.replace("steps=400", "steps=100").replace("every=100", "every=25")
    (tmp_path / "mine.py").write_text(brief)
    run, environment = [sys.executable, "mine.py"], {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(run, stderr=subprocess.PIPE, env=environment) as first:
        checkpoint, deadline = Path("outputs/mine/checkpoint.pt"), time.monotonic() + 120
        while not checkpoint.exists() and time.monotonic() < deadline and first.poll() is None:
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
    assert checkpoint.exists(), "it ended before it was killed"
    assert wgan_lip.Run("outputs/mine").status["state"] == "interrupted"
    done = subprocess.run(run, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "resuming outputs/mine at step" in done.stderr and "all 100 steps are done" in done.stdout
    assert "Excess over the floor" in done.stdout and Path("outputs/mine/report.html").exists()
    assert [record["step"] for record in read_records("outputs/mine/metrics.jsonl")] == list(range(0, 101, 25))


def test_it_is_the_run_that_the_command_line_trains(capsys):
    """The same players, seeds and settings: the same records, weights and scores, bit by bit."""
    given = [f"training.{name}={str(value).lower()}" for name, value in QUICK.items()]
    given += ["evaluation.size=30", "evaluation.repeats=2", "evaluation.fit_steps=2", "evaluation.directions=8"]
    command = ["train", *given, "data=moons", "data.test_size=40", "critic.width=8", "critic.depth=2",
               "generator.latent_dim=2", "generator.width=8", "generator.depth=1", "tracking=[]",
               "hydra.run.dir=typed", "device=cpu"]  # fmt: skip
    assert main(command) == 0
    typed = wgan_lip.load_run("typed")
    torch.manual_seed(0)
    critic = ResNetCritic(2, width=8, depth=2)
    generator = MLPGenerator(2, latent_dim=2, width=8, depth=1)
    run = trained(critic=critic, generator=generator)
    for part in ("critic", "generator"):
        for one, two in zip(getattr(run, part).parameters(), getattr(typed, part).parameters()):
            assert torch.equal(one, two)
    timed = ("time", "perf/")
    for one, two in zip(run.metrics, typed.metrics, strict=True):
        assert {k: v for k, v in one.items() if not k.startswith(timed)} == {
            k: v for k, v in two.items() if not k.startswith(timed)
        }
    assert run.interval == typed.interval and run.scores == typed.scores
    assert run.certificate == typed.certificate


def test_a_run_of_plain_parts_opens_from_its_folder_alone_for_every_command(capsys):
    run = trained()
    assert run.config["critic"] == {"_target_": "wgan_lip.critics.ResNetCritic", "dim": 2, "width": 8, "depth": 2}
    assert run.config["data"] == {"_target_": "wgan_lip.data.Moons", "test_size": 40}
    again = wgan_lip.load_run("mine")
    assert torch.equal(again.sample(5, seed=3), run.sample(5, seed=3))
    capsys.readouterr()
    assert main(["inspect", "run=mine"]) == 0 and "Re-proved now" in capsys.readouterr().out
    assert main(["certify", "run=mine"]) == 0
    assert main(["sample", "run=mine", "n=4", "out=rows.npy"]) == 0
    assert main(["train", "resume=mine"]) == 0 and "there is nothing left to train" in capsys.readouterr().out
    trained("other", generator=players(5)[0])
    assert len(compare_runs([wgan_lip.Run("mine"), wgan_lip.Run("other")]).entries) == 2


def test_what_no_configuration_can_build_is_handed_over_again(capsys):
    source, generator = TensorSource(ROWS), by_hand()
    run = trained(source=source, generator=generator)
    assert run.config["generator"] == {"_target_": "in_python.Sequential", "parameters": 6}
    assert run.config["data"] == {"_target_": "in_python.TensorSource", "fingerprint": source.fingerprint()}
    assert run.summary["guarantee"] == "certified"
    with pytest.raises(InputError, match=r"generator of this run is a Sequential that was built in Python.*generator="):
        wgan_lip.load_run("mine")
    with pytest.raises(InputError, match="data of this run is a TensorSource that was built in Python.*source="):
        _ = wgan_lip.load_run("mine", generator=by_hand()).source
    again = wgan_lip.load_run("mine", generator=by_hand(), source=TensorSource(ROWS))
    assert torch.equal(again.sample(5), run.sample(5)) and again.source.size == source.size
    with pytest.raises(InputError, match="Linear passed in is not the generator of mine"):
        wgan_lip.load_run("mine", generator=nn.Linear(3, 2))
    with pytest.raises(InputError, match="The data have changed since mine was trained"):
        _ = wgan_lip.load_run("mine", generator=by_hand(), source=TensorSource(ROWS + 1)).source
    # What needs no model works without, and says what is missing.
    bare = wgan_lip.Run("mine")
    assert bare.scores == run.scores and bare.interval == run.interval and "W1(generated, test)" in str(bare)
    assert main(["inspect", "run=mine"]) == 0
    screen = capsys.readouterr().out
    assert "Excess over the floor" in screen and "Re-proved now" in screen  # its critic is a ResNetCritic
    assert main(["sample", "run=mine", "n=4", "out=rows.npy"]) == 2
    assert "built in Python" in capsys.readouterr().err
    assert main(["train", "resume=mine"]) == 2 and "resume='auto'" in capsys.readouterr().err


def test_auto_goes_on_bit_by_bit_where_an_interrupted_run_stopped():
    whole = trained("whole", source=TensorSource(ROWS), generator=by_hand())

    def stopped(record):
        if record.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained("mine", source=TensorSource(ROWS), generator=by_hand(), callbacks=[stopped],
                checkpoint=Checkpointing(every=1))  # fmt: skip
    assert wgan_lip.Run("mine").status["state"] == "interrupted"
    run = trained("mine", source=TensorSource(ROWS), generator=by_hand(), resume="auto")
    assert run.status["state"] == "finished"
    states = [read_checkpoint(one.directory / "checkpoint.pt")["game"] for one in (whole, run)]
    for part in ("critic", "generator", "ema"):
        for name, entry in states[0][part].items():
            assert torch.equal(entry, states[1][part][name]), (part, name)
    assert [record["step"] for record in run.metrics] == [record["step"] for record in whole.metrics]
    assert run.interval == whole.interval


def test_a_finished_run_is_returned_and_another_configuration_is_refused(capsys):
    first = trained()
    with pytest.raises(InputError, match="mine already holds a run"):
        trained()
    assert "nothing is left" not in capsys.readouterr().out
    again = trained(resume="auto")
    assert "there is nothing left to train" in capsys.readouterr().out and again.scores == first.scores
    with pytest.raises(InputError, match=r"training.batch_size was 16, now 8; critic.width was 8, now 4"):
        trained(resume="auto", batch_size=8, critic=players(width=4)[1])
    rows = trained("rows", source=TensorSource(ROWS), generator=by_hand())
    with pytest.raises(InputError, match="data.fingerprint was '96 \\+ 24 samples"):
        trained("rows", source=TensorSource(ROWS + 1), generator=by_hand(), resume="auto")
    moved = trained("moved", source=TensorSource(ROWS + 1), generator=by_hand())
    compared = compare_runs([rows, moved])
    assert len(compared.groups) == 2, "other data are another group, of another league"


def test_plain_layers_in_a_row_are_a_certified_critic_and_a_liar_among_them_is_not():
    from wgan_lip.lipschitz.bounds import Norm
    from wgan_lip.lipschitz.layers import GradientFlow, Linear, Squeeze
    from wgan_lip.lipschitz.layers.base import kept_by_training

    layers = [
        Linear(Norm.euclidean(2), Norm.euclidean(8)),
        GradientFlow(8, 4),
        Linear(Norm.euclidean(8), Norm.euclidean(1)),
    ]
    assert kept_by_training(nn.Sequential(*layers, Squeeze())) == "certified"
    assert kept_by_training(nn.Sequential(*layers, nn.Linear(1, 1))) == "not certified"
    assert kept_by_training(players()[1]) == "certified"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": 0}, "`steps` must be above zero, not 0"),
        ({"steps": 2.5}, "`steps` must be an integer, not 2.5"),
        ({"ema_ramp": 2}, "`ema_ramp` must be at most 1"),
        ({"critic_schedule": "fast"}, "`critic_schedule` must be one of constant"),
        ({"resume": "yes"}, "resume must be 'auto' or None, not 'yes'"),
        ({"seed": -1}, "seed must be an integer from 0"),
        ({"tracking": ["tensorbord"]}, "tracking must be one of tensorboard, trackio, wandb, mlflow"),
        ({"tracking": "tensorboard"}, r"list of trackers, such as \[tensorboard\]"),
        ({"critic": "resnet"}, "critic must be a Module, not str"),
        ({"source": ROWS}, "source must be a Source, not Tensor. Wrap a tensor in wgan_lip.data.TensorSource"),
        ({"critic": nn.Sequential(nn.Bilinear(2, 2, 1))}, "Bilinear"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"seed": "a"}, "seed must be an integer from 0 to 2.31 − 1, not 'a'"),
        ({"out": ""}, "out must be the folder of the run, such as outputs/mine, not ''"),
        ({"evaluation": {"size": 50}}, "evaluation must be a wgan_lip.Evaluation"),
        ({"checkpoint": 100}, "checkpoint must be a wgan_lip.Checkpointing, not 100"),
        ({"callbacks": print}, "callbacks must be a list of functions"),
        ({"callbacks": [3]}, "callback must be a function of a record, not 3"),
        ({"generator_optimizer": "adam"}, "generator_optimizer must be a torch optimiser, not 'adam'"),
        (
            {"critic_optimizer": torch.optim.SGD([torch.ones(1, requires_grad=True)])},
            "must be built on the parameters of the ResNetCritic",
        ),
        (
            {"generator": MLPGenerator(3, latent_dim=2, width=8)},
            r"output shape is \(b, 3\), but the data have shape \(b, 2\)",
        ),
        (
            {"generator": MLPGenerator(2, latent_dim=2, width=8).requires_grad_(False)},
            "generator has no parameters to train",
        ),
        ({"batch_size": 10**6, "source": TensorSource(ROWS)}, "`batch_size` must be at most"),
        ({"evaluation": Evaluation(neighbour=400)}, "`neighbour` must be below the number of samples"),
        ({"out": "/proc/mine"}, "can't be written to"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(settings, says):
    with pytest.raises(InputError, match=says):
        trained(**settings)
    assert not Path("mine").exists()
    with pytest.raises(TypeError, match=r"train\(\) has no setting stpes. Did you mean steps\?"):
        trained(stpes=3)


def test_settings_are_the_same_by_name_in_python_and_in_the_configuration():
    """One default for each, and no key that only one of them has."""
    yaml = wgan_lip.cli.config_directory() / "train.yaml"
    from omegaconf import OmegaConf

    config = OmegaConf.load(yaml)
    for section, kind in (("training", Training), ("evaluation", Evaluation), ("checkpoint", Checkpointing)):
        assert dict(config[section]) == vars(kind()), section


def test_callbacks_and_trackers_get_every_record_and_pictures(monkeypatch):
    monkeypatch.setattr(TrainingBoard, "_show", SHOW)

    class Seen(Tracker):
        def __init__(self):
            self.steps, self.pictures, self.texts, self.settings, self.closed = [], set(), set(), {}, []

        def record(self, record):
            self.steps.append(record.step)

        def image(self, tag, array, step, *, colors=None):
            assert array.dtype == "uint8" and array.ndim == 3
            self.pictures.add((tag, step))

        def text(self, tag, markdown, step=0):
            self.texts.add(tag)

        def hparams(self, params):
            self.settings.update(params)

        def close(self):
            self.closed.append("closed")

    tracker, records = Seen(), []
    trained(tracking=[tracker], callbacks=[records.append], out="mine")
    assert tracker.steps[:-1] == [record.step for record in records if record.scalars] == [0, 2, 3, 4, 6]
    assert tracker.steps[-1] == 7, "the final scores, a step behind"
    assert {step for tag, step in tracker.pictures if tag == "at_a_glance/samples"} == {0, 3, 6}, (
        "at once, and at audits"
    )
    assert {"about/configuration", "about/environment", "certificate/layers"} <= tracker.texts
    assert tracker.settings["training.steps"] == 6 and tracker.closed == ["closed"]
    assert records[-1].ended == "all 6 steps are done"


def test_threads_are_given_back(monkeypatch):
    seen, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        trained(callbacks=[lambda record: seen.append(torch.get_num_threads())])
        assert set(seen) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_trained_optimisers_of_ones_own_are_used_and_named():
    generator, critic = players()
    ways = torch.optim.SGD(generator.parameters(), lr=0.0), torch.optim.SGD(critic.parameters(), lr=0.0)
    before = [parameter.clone() for parameter in generator.parameters()]
    run = trained(generator=generator, critic=critic, generator_optimizer=ways[0], critic_optimizer=ways[1])
    assert all(torch.equal(one, two) for one, two in zip(before, generator.parameters()))
    assert run.config["critic_optimizer"] == {"_target_": "in_python.SGD"}


def test_a_run_that_is_not_finished_says_so_and_prints():
    with pytest.raises(KeyboardInterrupt):

        def stop(record):
            raise KeyboardInterrupt

        trained(callbacks=[stop])
    run = wgan_lip.Run("mine")
    with pytest.raises(InputError, match="mine is interrupted and has no final scores yet"):
        _ = run.scores
    assert "interrupted at step" in str(run) and "audit" in str(run)
    (run.directory / "metrics.jsonl").write_text("garbage\ngarbage\n")
    (run.directory / "config.yaml").write_text("]")
    assert "<b" not in wgan_lip.Run("mine")._repr_html_() and "?" in str(wgan_lip.Run("mine"))


def test_the_report_of_a_run_is_that_of_the_command(capsys):
    run = trained()
    path = run.report("page.html")
    assert path == Path("mine/page.html") and "Certificate" in path.read_text()
    assert wgan_lip.report("mine", "second.html") == Path("mine/second.html")
    with pytest.raises(InputError, match="Give another file by out="):
        run.report("nowhere/deep/page.html")
    assert read_json(Path("mine/summary.json"))["score"]["excess"] == run.scores.excess


def test_arguments_are_kept_as_plain_data_only():
    from wgan_lip.runs.targets import build, recipe

    critic = ResNetCritic(2, width=8, depth=2, readout="cones", centers=4)
    assert recipe("critic", critic) == {"_target_": "wgan_lip.critics.ResNetCritic", "dim": 2, "width": 8, "depth": 2,
                                        "readout": "cones", "centers": 4}  # fmt: skip
    built = build("critic", recipe("critic", critic))
    assert [p.shape for p in built.parameters()] == [p.shape for p in critic.parameters()]
    import copy

    assert recipe("critic", copy.deepcopy(critic)) == recipe("critic", critic)
    assert recipe("data", Gaussians8()) == {"_target_": "wgan_lip.data.Gaussians8"}
    assert recipe("data", TensorSource(ROWS))["_target_"] == "in_python.TensorSource"
    assert recipe("generator", nn.Linear(2, 2)) == {"_target_": "in_python.Linear", "parameters": 6}
