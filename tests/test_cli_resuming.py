"""A run survives whatever ends its process, and goes on as if nothing had happened."""

from __future__ import annotations

import json
import math
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_resuming import differences

from wgan_lip.benchmarks.wgan import train_case
from wgan_lip.cli import main
from wgan_lip.data import VectorFile
from wgan_lip.inspection.look import look_at
from wgan_lip.runs.checkpoints import CHECKPOINT, Checkpointing, Checkpoints, newest_whole, read_checkpoint
from wgan_lip.runs.folder import claimed, create_run, set_status
from wgan_lip.runs.resuming import differences as differing
from wgan_lip.runs.run import Run, load_run
from wgan_lip.training.signals import Interrupted, StopRequests
from wgan_lip.utils.checks import InputError

LONGER = [*TINY, "tracking=[tensorboard]", "training.audit_first=true", "training.steps=12", "training.log_every=2", "training.audit_every=6", "evaluation.fit_steps=0",
          "evaluation.repeats=1"]  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    if not request.node.originalname.startswith("test_a_signal_saves"):  # pictures take most of so short a run
        monkeypatch.setattr("wgan_lip.training.session._draw", lambda *_: None)
        monkeypatch.setattr("wgan_lip.training.board.TrainingBoard._show", lambda *_: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of the run that nothing interrupted."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    before = Path.cwd()
    os.chdir(directory.parent)
    try:
        assert main(["train", *LONGER, f"hydra.run.dir={directory}"]) == 0
    finally:
        os.chdir(before)
    return directory


def runs() -> list[Path]:
    return sorted(Path("outputs/train").iterdir())


def signalled(monkeypatch, number: int, step: int) -> None:
    """Sends this process a signal right after the given step of the next game."""
    from wgan_lip.training import loop

    real, sent = loop.average, []

    def average(*arguments, **keywords):
        real(*arguments, **keywords)
        sent.append(0)
        if len(sent) == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(loop, "average", average)


def content(run: Path) -> tuple[list, dict]:
    """What must not depend on interruptions: the records, without times, and the last state."""
    records = [
        {tag: value for tag, value in record.items() if tag != "time" and not tag.startswith("perf/")}
        for record in Run(run).metrics
    ]
    return records, read_checkpoint(run / CHECKPOINT)["game"]


def assert_same(run: Path, whole: Path) -> None:
    (records, state), (records_whole, state_whole) = content(run), content(whole)
    assert records == records_whole
    assert differences(state, state_whole) == []
    assert Run(run).status["state"] == "finished"


def curve(run: Path, tag: str) -> list[tuple[int, float]]:
    board = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in board.Scalars(tag)]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_saves_and_the_run_goes_on_as_if_there_had_been_none(whole, monkeypatch, capfd, number, status):
    with monkeypatch.context() as patched:
        signalled(patched, number, step=5)
        assert main(["train", *LONGER]) == status
    (run,) = runs()
    told = capfd.readouterr().err
    assert f"interrupted by {number.name}" in told
    assert told.startswith(f"training in {run}\n") and f"To resume this run: wgan-lip train resume={run}\n" in told
    assert (Run(run).status["state"], Run(run).status["step"], load_run(run).step) == ("interrupted", 5, 5)
    assert main(["train", f"resume={run}"]) == 0
    assert "resuming" in capfd.readouterr().err
    assert_same(run, whole)
    assert runs() == [run]
    for tag in ("w1/critic", "w1/exact"):
        assert curve(run, tag) == curve(whole, tag)
    assert [record["step"] for record in Run(run).metrics] == [0, 2, 4, 6, 8, 10, 12]
    overrides = json.loads((run / "overrides.json").read_text())
    assert overrides == LONGER and "resume" not in (run / "config.yaml").read_text()


def test_a_benchmark_goes_on_with_a_case_that_was_interrupted(whole, monkeypatch, capfd, tmp_path):
    case = tmp_path / "case"
    with monkeypatch.context() as patched:
        signalled(patched, signal.SIGTERM, step=5)
        assert main(["train", *LONGER, f"hydra.run.dir={case}"]) == 143
    row = train_case(case, LONGER)
    assert re.search(r"resuming \S*case at step 5", capfd.readouterr().err)
    assert row["score"] == Run(whole).summary["score"] and "resume" not in row["command"]
    assert_same(case, whole)
    with pytest.raises(InputError, match="Choose another out=DIR"):
        train_case(case, [*LONGER, "seed=1"])


@pytest.mark.parametrize("kind", ["NonFiniteError", "RefutedError", "DivergedError"])
def test_a_benchmark_does_not_play_again_what_stopped_itself(kind, tmp_path):
    create_run(tmp_path / "case", {}, ["seed=3"])
    set_status(tmp_path / "case", "failed", reason="far", kind=kind)
    row = train_case(tmp_path / "case", ["seed=3"], may_stop=True)
    assert row == {"command": "wgan-lip train seed=3", "stopped": "far"}


def test_auto_takes_the_newest_unfinished_run_of_the_configuration_or_a_new_one(whole, monkeypatch):
    for seed in (0, 0, 1):
        with monkeypatch.context() as patched:
            signalled(patched, signal.SIGTERM, step=3)
            assert main(["train", *LONGER, f"seed={seed}"]) == 143
    older, newer, other = runs()
    for name, text in {
        "torn/config.yaml": "[",
        "estimate/result.json": "{}",
        "file": "",
        "bare/config.yaml": "a: 1",
    }.items():
        path = Path("outputs/train") / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    Path("outputs/train/estimate/config.yaml").write_text("x: 1")
    with claimed(older):
        assert main(["train", *LONGER, "seed=0", "resume=auto"]) == 0
        assert_same(newer, whole)
        assert main(["train", *LONGER, "seed=0", "resume=auto"]) == 0
    assert Run(older).status["state"] == Run(other).status["state"] == "interrupted"
    (new,) = {path for path in runs() if (path / CHECKPOINT).exists()} - {older, newer, other}
    assert_same(new, whole)


def test_auto_in_a_folder_of_its_own_goes_on_until_it_is_finished(whole, monkeypatch, capsys):
    command = ["train", *LONGER, "hydra.run.dir=mine", "resume=auto"]
    with monkeypatch.context() as patched:
        signalled(patched, signal.SIGTERM, step=7)
        assert main(command) == 143
    assert main(command) == 0
    assert_same(Path("mine"), whole)
    before = {path: path.read_bytes() for path in Path("mine").iterdir()}
    capsys.readouterr()
    assert main(command) == 0
    assert "mine is already finished, at step 12: there is nothing left to train" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in Path("mine").iterdir()}


def test_a_sweep_goes_on_in_its_folder(monkeypatch):
    command = ["train", "--multirun", *LONGER, "seed=0,1", "hydra.sweep.dir=sweep", "resume=auto"]
    with monkeypatch.context() as patched:
        signalled(patched, signal.SIGINT, step=14)
        assert main(command) == 130
    assert [Run(Path("sweep") / f"seed={job}").status["state"] for job in "01"] == ["finished", "interrupted"]
    before = (Path("sweep/seed=0") / CHECKPOINT).stat().st_mtime_ns
    assert main(command) == 0
    assert [Run(Path("sweep") / f"seed={job}").status["state"] for job in "01"] == ["finished", "finished"]
    assert (Path("sweep/seed=0") / CHECKPOINT).stat().st_mtime_ns == before


def interrupted_in(folder: Path, step: int, *settings: str) -> Path:
    """The run in a folder of its own that SIGTERM interrupted at the given step, without pictures."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("wgan_lip.training.board.TrainingBoard._show", lambda *_: None)
            signalled(patched, signal.SIGTERM, step=step)
            assert main(["train", *LONGER, *settings, "hydra.run.dir=run"]) == 143
    finally:
        os.chdir(before)
    return folder / "run"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run that was interrupted at step 7, to copy."""
    return interrupted_in(tmp_path_factory.mktemp("stopped"), 7)


@pytest.fixture
def interrupted(stopped) -> Path:
    return Path(shutil.copytree(stopped, "run"))


def refused(capsys, *arguments: str) -> str:
    """The last line of a command that must end with status 2."""
    capsys.readouterr()
    assert main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.strip().splitlines()[-1]


def test_another_configuration_is_refused_by_every_key_that_differs(interrupted, capsys):
    before = {path: path.read_bytes() for path in interrupted.iterdir()}
    changes = ["critic_optimizer.lr=0.5", "training.batch_size=8", "critic=fixed_width", "training.steps=14"]
    line = refused(capsys, "resume=run", *changes)
    assert "training.batch_size was 16, now 8" in line and "critic_optimizer.lr was 0.03, now 0.5" in line
    assert "critic._target_ was 'wgan_lip.critics.ResNetCritic', now 'wgan_lip.critics.FixedWidthCritic'" in line
    assert "training.steps was 12, now 14, which needs training.critic_schedule=constant from the start" in line
    assert "resume" not in line.split("Leave")[0] and "seed" not in line
    assert before == {path: path.read_bytes() for path in interrupted.iterdir()}
    assert main(["train", "resume=run", "checkpoint.keep=5", "threads=2"]) == 0


@pytest.fixture(scope="module")
def stopped_on_a_file(tmp_path_factory) -> Path:
    """A run on the file x.npy beside it that was interrupted at step 5, to copy."""
    folder = tmp_path_factory.mktemp("on_a_file")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(80, 2)))
    return interrupted_in(folder, 5, "data=file", "data.path=x.npy")


@pytest.fixture
def on_a_file(stopped_on_a_file) -> np.ndarray:
    """The rows of x.npy, on which `run` was interrupted at step 5."""
    shutil.copytree(stopped_on_a_file, "run")
    shutil.copyfile(stopped_on_a_file.parent / "x.npy", "x.npy")
    return np.load("x.npy")


def test_a_run_goes_on_with_the_same_data_wherever_they_lie_now(on_a_file, capsys):
    assert main(["train", *LONGER, "data=file", "data.path=x.npy", "hydra.run.dir=whole"]) == 0
    Path("elsewhere").mkdir()
    torch.save(torch.from_numpy(on_a_file), "elsewhere/x.pt")
    Path("x.npy").unlink()
    assert "There is no file x.npy" in refused(capsys, "resume=run")
    assert main(["train", "resume=run", "data.path=elsewhere/x.pt"]) == 0
    assert_same(Path("run"), Path("whole"))
    assert Run("run").config["data"]["path"] == "elsewhere/x.pt" and len(Run("run").source.train) == 64


def test_a_run_does_not_go_on_with_other_data_and_names_both(on_a_file, capsys):
    begun = Run("run").source.fingerprint()
    for change in (on_a_file + 5, on_a_file[::-1], on_a_file[:-1], np.c_[on_a_file, on_a_file]):
        np.save("x.npy", change)
        np.save("y.npy", change)
        now = VectorFile("x.npy").fingerprint()
        for moved in ([], ["data.path=y.npy"]):
            before = {path: path.read_bytes() for path in Path("run").iterdir()}
            assert f"began: they were {begun}, and are now {now}. Restore them" in refused(capsys, "resume=run", *moved)
            assert before == {path: path.read_bytes() for path in Path("run").iterdir()}
        with pytest.raises(
            InputError, match=re.escape(f"run was trained: they were {begun}, and are now {now}. Restore")
        ):
            _ = Run("run").source
    assert main(["inspect", "run=run", "out=null"]) == 0  # without the data
    assert look_at(Run("run")).source is None and begun in look_at(Run("run")).unopened
    assert "data.seed was 0, now 1" in refused(capsys, "resume=run", "data.path=y.npy", "data.seed=1")


def test_auto_takes_a_run_of_data_elsewhere_for_another(on_a_file):
    shutil.copyfile("x.npy", "y.npy")
    again = ["train", *LONGER, "data=file", "data.path=y.npy", "resume=auto"]
    Path("outputs/train").mkdir(parents=True), Path("run").rename("outputs/train/run")
    assert main(again) == 0
    assert len(runs()) == 2 and Run("outputs/train/run").status["state"] == "interrupted"


def test_data_of_a_run_that_kept_no_hash_must_lie_where_they_were(on_a_file, capsys):
    for path in Path("run").glob("*.pt"):
        checkpoint = read_checkpoint(path)
        del checkpoint["game"]["data"]
        torch.save(checkpoint, path)
    shutil.copyfile("x.npy", "y.npy")
    line = refused(capsys, "resume=run", "data.path=y.npy")
    assert "data.path was 'x.npy', now 'y.npy'" in line and "kept no hash" in line
    assert main(["train", "resume=run"]) == 0


def test_a_finished_run_with_constant_schedules_can_be_prolonged(whole):
    constant = ["training.critic_schedule=constant", "training.generator_schedule=constant"]
    assert main(["train", *LONGER, *constant, "training.steps=8", "hydra.run.dir=short"]) == 0
    assert main(["train", "resume=short", "training.steps=12"]) == 0
    assert main(["train", *LONGER, *constant, "hydra.run.dir=long"]) == 0
    records, state = content(Path("short"))
    longer, longer_state = content(Path("long"))
    assert differences(state, longer_state) == []
    assert Run("short").config == Run("long").config
    assert 8 in [r["step"] for r in records] and [r for r in records if r["step"] != 8] == [
        r for r in longer if r["step"] != 8
    ]


def test_limits_end_a_run_early_and_a_higher_one_plays_on(capsys):
    limited = [*LONGER, "training.max_seconds=0.001", "hydra.run.dir=run"]
    assert main(["train", *limited]) == 0
    assert "finished at step 1 after" in (screen := capsys.readouterr().out)
    assert "0.001 seconds have passed" in screen and Run("run").status["state"] == "finished"
    assert main(["train", *limited, "resume=auto"]) == 0
    assert "there is nothing left to train" in capsys.readouterr().out
    assert main(["train", "resume=run", "training.max_seconds=null"]) == 0
    assert (Run("run").status["reason"], load_run("run").step) == (None, 12)


def test_a_rollback_is_told_counted_and_written_down(monkeypatch, capsys):
    from wgan_lip.training import loop

    real, drawn = loop.draw, []

    def draw(*arguments):
        drawn.append(0)
        return real(*arguments) * (math.nan if len(drawn) == 9 else 1.0)

    monkeypatch.setattr(loop, "draw", draw)
    assert main(["train", *LONGER, "training.max_rollbacks=1", "hydra.run.dir=run"]) == 0
    told = capsys.readouterr().err
    assert "step 6: NaN or infinity in the critic's dual value at step 7" in told and "rollback 1 of 1" in told
    assert Run("run").summary["rollbacks"] == Run("run").metrics[-1]["guard/rollbacks"] == 1
    board = EventAccumulator("run", size_guidance={"tensors": 0}).Reload()
    assert any("rollback 1 of 1" in str(event.tensor_proto) for event in board.Tensors("about/note/text_summary"))


@pytest.mark.parametrize("name", ["state", "pause", "seed", "critic"])
def test_what_is_no_setting_of_training_is_refused(name, capsys):
    assert f"There is no key training.{name}." in refused(capsys, *TINY, f"+training.{name}=1")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(whole, interrupted, capsys):
    path = interrupted / CHECKPOINT
    path.write_bytes(path.read_bytes()[:1000])
    assert (interrupted / "checkpoint-6.pt").exists()
    capsys.readouterr()
    assert main(["train", "resume=run"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert any("damaged" in line and "Using the checkpoint before it" in line for line in lines)
    assert any("at step 6" in line for line in lines)
    assert_same(interrupted, whole)
    assert curve(interrupted, "w1/critic") == curve(whole, "w1/critic")


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(interrupted, capsys):
    for path in interrupted.glob("*.pt"):
        path.write_bytes(b"torn")
    assert "checkpoint-6.pt in run is damaged" in refused(capsys, "resume=run")


def test_a_run_without_a_checkpoint_begins_again_in_its_folder(whole, interrupted):
    for path in interrupted.glob("*.pt"):
        path.unlink()
    assert main(["train", "resume=run"]) == 0
    assert_same(interrupted, whole)
    assert curve(interrupted, "w1/critic") == curve(whole, "w1/critic")


def test_what_cannot_go_on_is_refused(tiny_run, interrupted, capsys):
    assert "There is no folder nowhere" in refused(capsys, "resume=nowhere")
    assert "Use resume=auto with --multirun" in refused(capsys, "--multirun", "resume=run", "seed=0,1")
    with claimed(interrupted):
        assert "is being trained by another process" in refused(capsys, "resume=run")
    status = json.loads((interrupted / "status.json").read_text())
    status.update(state="failed", kind="RefutedError", reason="At step 6: a bound was above.")
    (interrupted / "status.json").write_text(json.dumps(status))
    assert "At step 6: a bound was above. Start a new run" in refused(capsys, "resume=run")
    assert main(["train", f"resume={tiny_run}"]) == 0


def test_differences_are_named_by_key_and_value():
    saved = {"a": {"b": 1, "c": 2}, "device": "cpu", "training": {"steps": 5}}
    now = {"a": {"b": 1, "new": 7}, "device": "cuda", "training": {"steps": 4}, "trust": ["x"]}
    assert differing(saved, now) == ["a.c was 2, now missing", "training.steps was 5, now 4"]


def test_a_full_disk_stops_the_run_with_the_last_checkpoint_whole(whole, monkeypatch, capsys):
    real, full = os.fsync, []

    def fsync(stream):
        if full:
            raise OSError(28, "No space left on device")
        real(stream)
        full.extend([0] * (Path("run/checkpoint.pt").exists()))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        line = refused(capsys, *LONGER, "hydra.run.dir=run")
    assert "can't be written to: No space left on device. Step 0 is saved." in line and "then resume" in line
    assert load_run("run").step == 0
    assert main(["train", "resume=run"]) == 0
    assert_same(Path("run"), whole)


def test_a_folder_that_cannot_be_written_to_is_refused(capsys):
    assert "/proc/run" in refused(capsys, *LONGER, "hydra.run.dir=/proc/run")


def test_the_last_few_checkpoints_and_the_best_are_kept(tmp_path):
    state = {"step": 0, "weights": torch.zeros(3)}
    saver = Checkpoints(tmp_path, {"image_shape": None}, Checkpointing(every=2, minutes=None, keep=3))
    for step in range(1, 8):
        assert saver.due(step) == (step % 2 == 0)
        saver.save({**state, "step": step, "weights": torch.full((3,), float(step))}, best=step == 4)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"checkpoint.pt", "checkpoint-6.pt", "checkpoint-5.pt", "best.pt"}
    for name, step in {"checkpoint.pt": 7, "checkpoint-6.pt": 6, "checkpoint-5.pt": 5, "best.pt": 4}.items():
        assert (
            read_checkpoint(tmp_path / name)["game"]["weights"][0]
            == read_checkpoint(tmp_path / name)["game"]["step"]
            == step
        )


def test_a_checkpoint_is_due_by_the_clock(tmp_path):
    now = [0.0]
    saver = Checkpoints(tmp_path, {"image_shape": None}, Checkpointing(every=None, minutes=0.5), clock=lambda: now[0])
    assert not saver.due(10)
    now[0] = 30.0
    assert saver.due(11)
    saver.save({"step": 11})
    assert not saver.due(12)


@pytest.mark.parametrize("setting", ["every=0", "minutes=-1", "keep=0", "minutes=nan"])
def test_schedules_of_checkpoints_that_make_no_sense_are_refused(setting, capsys):
    assert f"checkpoint.{setting.split('=')[0]}" in refused(capsys, *TINY, f"checkpoint.{setting}")


def test_a_second_interrupt_does_not_wait():
    with pytest.raises(Interrupted, match="SIGINT"), StopRequests() as stop:
        stop.deferred = True
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_hang_up_that_nohup_ignores_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequests() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.asked is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_whose_process_is_gone_is_not_said_to_run(interrupted, capsys):
    status = json.loads((interrupted / "status.json").read_text())
    (interrupted / "status.json").write_text(json.dumps(status | {"state": "running", "reason": None}))
    with claimed(interrupted):
        assert Run(interrupted).status["state"] == "running"
    assert Run(interrupted).status["state"] == "interrupted" and "killed" in Run(interrupted).status["reason"]
    capsys.readouterr()
    assert main(["inspect", "run=run", "out=null", "open_data=false"]) == 0
    assert "interrupted at step 7" in capsys.readouterr().out
    assert main(["train", *LONGER, "hydra.run.dir=run", "resume=auto"]) == 0
    (interrupted / "status.json").write_text(json.dumps(status | {"state": "running"}))
    (interrupted / ".lock").unlink()  # as where a file system has no locks
    assert Run(interrupted).status["state"] == "running"


@pytest.mark.parametrize(
    "content", ["", '{"state": "interr', '{"state": 7}', '{"state": "running", "started": "then"}', None]
)
def test_auto_goes_on_with_a_run_whose_status_is_torn(whole, stopped, content, capsys):
    shutil.copytree(stopped, "outputs/train/run")
    (run,) = runs()
    (run / "status.json").unlink() if content is None else (run / "status.json").write_text(content)
    assert main(["train", *LONGER, "resume=auto"]) == 0
    assert f"{run} at step 7" in capsys.readouterr().err
    assert runs() == [run]
    assert_same(run, whole)


def test_auto_says_which_run_it_cannot_read(interrupted, capsys):
    Path("outputs/train/torn").mkdir(parents=True)
    Path("outputs/train/torn/config.yaml").write_text("[")
    assert main(["train", *LONGER, "resume=auto"]) == 0
    assert "config.yaml in outputs/train/torn is damaged" in capsys.readouterr().err.replace(f"{Path.cwd()}/", "")


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("{}")])
def test_a_finished_run_without_its_scores_is_scored_again(whole, damage, tmp_path):
    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    damage(copy / "summary.json")
    assert main(["train", f"resume={copy}"]) == 0
    assert Run(copy).summary["score"] == Run(whole).summary["score"]
    assert_same(copy, whole)


def test_final_scores_stand_once_however_often_they_are_taken(whole, monkeypatch):
    def killed(run, source):
        if run.summary is not None:
            raise KeyboardInterrupt

    for _ in range(2):  # after the scores were written, and before the run was finished
        with monkeypatch.context() as patched:
            patched.setattr("wgan_lip.training.session._draw", killed)
            resume = ["resume=run"] if Path("run").exists() else [*LONGER, "hydra.run.dir=run"]
            assert main(["train", *resume]) == 130
    assert main(["train", "resume=run"]) == 0
    assert_same(Path("run"), whole)
    for tag in ("at_a_glance/excess", "at_a_glance/proved_share", "w1/exact"):
        assert curve(Path("run"), tag) == curve(whole, tag)
    steps = [step for step, *_ in curve(Path("run"), "at_a_glance/excess")]
    assert len(steps) == len({*steps})


class Gone:
    """A console of which nothing is left: whatever is written to it fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def write(self, text: str = "") -> int:
        raise self.error

    flush = fileno = write

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("I/O operation on closed file")])
def test_a_console_that_is_gone_is_no_failure(whole, monkeypatch, error):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Gone(error)), patched.setattr(sys, "stderr", Gone(error))
        assert main(["train", *LONGER, "hydra.run.dir=run"]) == 0
        assert main(["inspect", "run=run", "out=null", "open_data=false"]) == 0
    assert_same(Path("run"), whole)


BRIEF = [*TINY, "data=moons", "data.test_size=30", "training.steps=2", "evaluation.fit_steps=0", "evaluation.repeats=1"]
"""A run whose process does not take long to start either."""


def test_a_pipe_that_is_closed_early_leaves_a_finished_run_and_status_0():
    command = f"{sys.executable} -m wgan_lip train {' '.join(BRIEF)} hydra.run.dir=run 2>&1"
    done = subprocess.run(["bash", "-c", f"({command}; echo $? > status) | head -n 1"], capture_output=True, text=True)
    assert done.stdout == "training in run\n" and done.stderr == ""
    assert Path("status").read_text() == "0\n" and Run("run").status["state"] == "finished"


def test_a_run_without_a_console_is_finished():
    command = f"{sys.executable} -m wgan_lip train {' '.join(BRIEF)} hydra.run.dir=run"
    assert subprocess.run(["bash", "-c", f"{command} <&- >&- 2>&-"]).returncode == 0
    assert Run("run").status["state"] == "finished"


@pytest.mark.parametrize("shown", ["--help", "--cfg job"])
def test_help_of_which_nobody_reads_the_end_is_no_failure(shown):
    command = f"{sys.executable} -m wgan_lip train {shown} 2>errors; echo $? > status"
    subprocess.run(["bash", "-c", f"({command}) | true"], check=True)
    assert Path("status").read_text() == "0\n" and Path("errors").read_text() == ""


def test_a_result_that_a_full_disk_cannot_take_is_a_failure(tiny_run, monkeypatch):
    full = open("/dev/full", "w")  # noqa: SIM115 - closing it fails
    monkeypatch.setattr(sys, "stdout", full)
    assert main(["inspect", f"run={tiny_run}", "out=null", "open_data=false"]) == 2
    with pytest.raises(OSError, match="No space left"):
        full.close()


def test_a_run_that_cannot_be_written_to_is_certified_all_the_same(tiny_run, monkeypatch, capsys):
    def read_only(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("wgan_lip.lipschitz.certificates.write_whole", read_only, raising=False)
    monkeypatch.setattr("wgan_lip.utils.files.write_whole", read_only)
    assert main(["certify", f"run={tiny_run}"]) == 0
    told = capsys.readouterr().out
    assert "Lip(f) ≤ 0.99" in told and "not written: Read-only file system; it agrees with the stored one" in told


def test_importing_what_a_training_needs_draws_from_no_generator():
    code = """
import random
import numpy as np
import wgan_lip.training
random.seed(0), np.random.seed(0)
before = random.getstate(), np.random.get_state()[1].tolist()
import ot, rich.console, rich.live, rich.progress_bar, rich.table, rich.text, sklearn.datasets, sklearn.linear_model
import matplotlib.pyplot, torch.utils.tensorboard, hydra
assert before == (random.getstate(), np.random.get_state()[1].tolist())
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


SERVER = """
import os, sys
import wgan_lip.cli.certify, hydra, ot, matplotlib.pyplot, torch.utils.tensorboard, sklearn.datasets
from wgan_lip.cli import main
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(main(line.split()))
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def test_a_process_killed_at_any_instant_loses_no_more_than_since_its_last_checkpoint():
    """Kills a real process WGAN_LIP_KILLS times, 3 by default, each time at a random instant of its life."""
    settings = [*TINY, "tracking=[tensorboard]", "training.audit_first=true", "training.steps=60", "training.log_every=5", "training.audit_every=20", "checkpoint.every=10",
                "checkpoint.keep=3", "evaluation.fit_steps=0", "evaluation.repeats=1"]  # fmt: skip
    assert main(["train", *settings, "hydra.run.dir=whole"]) == 0
    life = 0.5 + 1.5 * Run("whole").metrics[-1]["time"]
    rng, killed = random.Random(0), 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", SERVER], bufsize=0, env=environment, **pipes) as server:

        def attempt(seconds: float) -> bool:
            """Trains in a process of its own; whether that ended by itself before it was killed."""
            server.stdin.write(f"train {' '.join(settings)} hydra.run.dir=run resume=auto\n".encode())
            child = int(server.stdout.readline())
            if not select.select([server.stdout], [], [], seconds)[0]:
                os.kill(child, signal.SIGKILL)  # if it ended just now, the server has not been asked for its status yet
            status = int(server.stdout.readline())
            assert status in (0, signal.SIGKILL)
            return status == 0

        while killed < int(os.environ.get("WGAN_LIP_KILLS", 3)):
            if attempt(rng.uniform(0.0, life)):
                assert_same(Path("run"), Path("whole"))
                shutil.rmtree("run")
                continue
            killed += 1
            if not Path("run/config.yaml").exists():
                continue
            played = max((record["step"] for record in Run("run").metrics), default=0)
            found = newest_whole(Path("run"), tell=pytest.fail)
            step = 0 if found is None else found[1]["game"]["step"]
            assert step >= 10 * math.ceil(played / 10) - 10
        while not attempt(100.0):
            pass
        server.stdin.close()
    assert_same(Path("run"), Path("whole"))
    assert curve(Path("run"), "w1/critic") == curve(Path("whole"), "w1/critic")
