"""Services that a training is watched with, for real and without a network: what they hold is read from their stores."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import wgan_lip
from wgan_lip import Evaluation, InputError, ResNetCritic, Tracker
from wgan_lip.cli import main
from wgan_lip.data import Moons
from wgan_lip.generators import MLPGenerator
from wgan_lip.runs.folder import create_run
from wgan_lip.runs.tracking import TRACKERS, open_tracker, read_records
from wgan_lip.training.board import TrainingBoard

pytestmark = pytest.mark.filterwarnings("default")  # of packages that are none of ours

QUICK = {"steps": 6, "batch_size": 16, "critic_steps": 1, "warmup_steps": 2, "log_every": 1, "audit_every": 3,
         "audit_size": 20, "audit_scores": False, "audit_refits": 0}  # fmt: skip
PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@dataclass
class Stored:
    """A run as a service's store holds it: scalars tag → [(step, value)], other things by tag, and how it ended."""

    scalars: dict[str, list] = field(default_factory=lambda: defaultdict(list))
    pictures: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    histograms: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    texts: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    failed: bool = False


def stored_by_trackio(name: str) -> list[Stored]:
    database = sqlite3.connect("trackio/wgan_lip.db")
    runs: dict[str, Stored] = defaultdict(Stored)
    for run, step, line in database.execute(
        "SELECT run_id, step, metrics FROM metrics WHERE run_name LIKE ?", [f"{name}-%"]
    ):
        for tag, value in json.loads(line).items():
            kind = value["_type"].partition(".")[2] if isinstance(value, dict) else "scalar"
            if kind == "scalar":
                runs[run].scalars[tag].append((step, value))
            elif kind == "markdown":
                runs[run].texts[tag] = value["_value"]
            elif kind == "histogram":
                runs[run].histograms[tag].append(step)
            else:
                assert (Path("trackio/media") / value["file_path"]).exists()
                runs[run].pictures[tag].append(step)
    for run, settings in database.execute("SELECT run_id, config FROM configs"):
        if run in runs:
            runs[run].settings = {key: str(value) for key, value in json.loads(settings).items()}
    for (run,) in database.execute("SELECT run_id FROM alerts WHERE level = 'error'"):
        if run in runs:
            runs[run].failed = True
    return list(runs.values())


def stored_by_mlflow(name: str) -> list[Stored]:
    from mlflow import MlflowClient

    client, runs = MlflowClient(), []
    experiment = client.get_experiment_by_name("wgan_lip").experiment_id
    for run in client.search_runs([experiment], f"attributes.run_name = '{name}'"):
        stored = Stored(settings=run.data.params, failed=run.info.status != "FINISHED")
        for tag in run.data.metrics:
            stored.scalars[tag] = [
                (point.step, point.value) for point in client.get_metric_history(run.info.run_id, tag)
            ]
        for entry in client.list_artifacts(run.info.run_id, "images"):
            tag, _, step, *_ = Path(entry.path).name.replace("~", "/").split("+")
            if entry.path.endswith(".png"):
                stored.pictures[tag].append(int(step))
        for folder in ("about", "certificate"):
            for entry in client.list_artifacts(run.info.run_id, folder):
                text = Path(client.download_artifacts(run.info.run_id, entry.path)).read_text(encoding="utf-8")
                stored.texts[entry.path.removesuffix(".md")] = text
        runs.append(stored)
    return runs


def records_of_wandb(path: Path):
    """The records of a `.wandb` file: a header of 7 bytes, then parts of records in blocks, as LevelDB's logs."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 2**15 - place % 2**15) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(record)
            record = b""


def stored_by_wandb(name: str) -> list[Stored]:
    runs: dict[str, Stored] = defaultdict(Stored)
    for path in sorted(Path(name).glob("wandb/offline-run-*/*.wandb")):
        run = runs[path.stem]
        records, give_up = [], time.monotonic() + 60
        while not any(record.HasField("exit") for record in records):
            assert time.monotonic() < give_up, "its own process, which writes the file, has not ended the run"
            time.sleep(0.05)
            records = list(records_of_wandb(path))
        for record in records:
            if record.HasField("exit"):
                run.failed = record.exit.exit_code != 0
            for item in (*record.run.config.update, *record.config.update):
                run.settings[item.key] = str(json.loads(item.value_json))
            for item in record.summary.update:
                value = json.loads(item.value_json)
                if isinstance(value, str):
                    run.texts[item.key or item.nested_key[0]] = value
            line = {tuple(item.nested_key) or (item.key,): json.loads(item.value_json) for item in record.history.item}
            for (tag, *part), value in line.items():
                if part == ["_type"]:
                    shown = {"image-file": run.pictures, "histogram": run.histograms}[value]
                    shown[tag].append(line["step",])
                elif "/" in tag and not part:
                    run.scalars[tag].append((line["step",], value))
    return list(runs.values())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for all of them, for a database takes its time to be made, and Trackio reads its place once."""
    folder = tmp_path_factory.mktemp("services")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setattr(TrainingBoard, "_show", show)
        yield folder


def show(board: TrainingBoard, game: object, step: int) -> None:
    """A picture and a histogram, quicker than the board's own."""
    board._tracker.image("at_a_glance/samples", PICTURE, step, colors=128)
    board._tracker.histogram("critic/values_real", torch.tensor([1.0, 2.0, float("nan")]), step)


@pytest.fixture(params=["trackio", "mlflow", "wandb"])
def service(request, place):
    pytest.importorskip(request.param)
    return SimpleNamespace(name=request.param, stored=globals()[f"stored_by_{request.param}"])


def trained(out: str, tracking: list, stop: tuple[int, BaseException] | None = None, **settings):
    def stopped(record):
        if stop and record.step == stop[0]:
            raise stop[1]

    torch.manual_seed(0)
    players = MLPGenerator(2, latent_dim=2, width=8, depth=1), ResNetCritic(2, width=8, depth=2)
    scored = Evaluation(size=30, repeats=2, fit_steps=2, directions=8)
    return wgan_lip.train(Moons(test_size=40), *players, out=out, evaluation=scored, tracking=tracking,
                          callbacks=[stopped], **(QUICK | settings))  # fmt: skip


def test_a_run_is_one_run_there_with_all_that_it_recorded(service, capsys):
    run = trained(f"new_{service.name}", [service.name])
    (stored,) = service.stored(f"new_{service.name}")
    recorded = read_records(run.directory / "metrics.jsonl")
    for tag in ("w1/critic", "w1/lower", "w1/upper", "certificate/lipschitz"):
        assert stored.scalars[tag] == [(line["step"], line[tag]) for line in recorded if tag in line], tag
    assert stored.scalars["at_a_glance/excess"][-1] == (7, run.summary["score"]["excess"])
    assert sorted(stored.pictures["at_a_glance/samples"]) == [0, 3, 6]
    assert service.name == "mlflow" or stored.histograms["critic/values_real"] == [0, 3, 6]
    assert stored.texts["about/configuration"].startswith("```yaml\nseed: 0\n")
    assert stored.settings["training.steps"] == "6" and stored.settings["critic"] == "ResNetCritic"
    assert not stored.failed
    assert not capsys.readouterr().out.strip(), "the standard output is for results"


def test_a_run_that_fails_and_goes_on_is_one_run_there(service):
    name = f"resumed_{service.name}"
    with pytest.raises(RuntimeError, match="boom"):
        trained(name, [service.name], (5, RuntimeError("boom")))
    (stored,) = service.stored(name)
    assert stored.failed and [step for step, _ in stored.scalars["w1/critic"]] == [1, 2, 3, 4, 5]
    run = trained(name, [service.name], resume="auto")
    (stored,) = service.stored(name)
    recorded = {(line["step"], line["w1/critic"]) for line in read_records(run.directory / "metrics.jsonl")}
    assert set(stored.scalars["w1/critic"]) == recorded, "what is recorded again has the same values"
    assert sorted(stored.pictures["at_a_glance/samples"]) == [0, 3, 6]
    assert stored.settings["training.steps"] == "6"
    assert service.name == "trackio" or not stored.failed  # its alert stays


def test_another_run_in_the_same_place_is_another_run(service):
    """Settings before all else, no infinity, and an interrupt."""
    name, ids = f"again_{service.name}", []
    for seed in (0, 1):
        create_run(name, {"seed": seed}, [])
        with suppress(KeyboardInterrupt), open_tracker(service.name, Path(name)) as tracker:
            tracker.hparams({"training.steps": seed})
            tracker.record(
                SimpleNamespace(step=3, scalars={"w1/lower": 0.5, "w1/upper": math.inf, "at_end/x": math.nan})
            )
            raise KeyboardInterrupt
        ids.append(tracker._service.id)
        stored = service.stored(name)
        shutil.move(name, f"{name}_{seed}")
        assert all(run.failed and dict(run.scalars) == {"w1/lower": [(3, 0.5)]} for run in stored)
    assert len(stored) == (1 if service.name == "wandb" else 2), "wandb's lie in the run's folder"
    assert {run.settings["training.steps"] for run in stored} == ({"1"} if service.name == "wandb" else {"0", "1"})
    assert len(set(ids)) == 2


@pytest.fixture
def json_service(monkeypatch, tmp_path):
    """A service whose package is there: json."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TrainingBoard, "_show", lambda *_: None)
    return lambda opened: monkeypatch.setitem(TRACKERS, "json", opened)


def test_a_service_that_fails_is_left_and_the_training_goes_on(json_service, capsys):
    class Failing(Tracker):
        def __init__(self, directory, resume_step):
            self.steps = []

        def record(self, record):
            self.steps.append(record.step)
            if record.step == 3:
                raise RuntimeError("the server is gone. Look for it")

        def close(self):
            self.steps.append("closed")

    kept = []
    json_service(lambda *args: kept.append(Failing(*args)) or kept[-1])
    run = trained("mine", ["json"])
    assert run.status["state"] == "finished" and kept[0].steps == [0, 1, 2, 3]
    lines = [line for line in capsys.readouterr().err.splitlines() if "json" in line]
    assert lines == ["wgan-lip: Tracking by json failed and is off from now on: RuntimeError: the server is gone. Training "
                     "continues."]  # fmt: skip


def test_a_service_that_refuses_to_start_is_told_in_a_line_and_the_others_are_closed(
    json_service, tmp_path, monkeypatch
):
    closed = []

    class Closing(TRACKERS["tensorboard"]):
        def close(self):
            closed.append(True)
            super().close()

    monkeypatch.setitem(TRACKERS, "tensorboard", Closing)
    json_service(lambda *_: (_ for _ in ()).throw(ConnectionError("no network")))
    with pytest.raises(InputError, match=r"^tracking=json can't be started: ConnectionError: no network\.$"):
        trained("mine", ["tensorboard", "json"])
    assert closed == [True]


@pytest.mark.parametrize(
    ("tracking", "message"),
    [
        (["wandbb"], "tracking must be one of tensorboard, trackio, wandb, mlflow, not 'wandbb'."),
        (["not_installed"], "tracking=not_installed needs the package not_installed, which is not installed: pip install not_installed"),
        ("wandb", "tracking must be a list of trackers, such as [tensorboard], not 'wandb'."),
        (["tensorboard", "tensorboard"], "tracking names tensorboard twice. Name it once."),
        ([3], "tracking must hold trackers or their names, not 3."),
        (None, "tracking must be a list of trackers, such as [tensorboard], not None."),
    ],
)  # fmt: skip
def test_names_that_make_no_sense_are_refused_before_anything_is_written(
    tracking, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    if tracking == ["not_installed"]:
        monkeypatch.setitem(TRACKERS, "not_installed", TRACKERS["wandb"])
        Path("not_installed").mkdir()  # as wandb makes one of its own name, which no package is
    with pytest.raises(InputError) as refused:
        trained("mine", tracking)
    assert str(refused.value) == message
    typed = "null" if tracking is None else str(tracking).replace("'", "").replace(" ", "")
    assert main(["train", "data=moons", f"tracking={typed}", "hydra.run.dir=typed"]) != 0
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and "tracking" in told[0]
    assert not Path("typed").exists() and not Path("mine").exists()


def test_no_service_is_imported_by_asking_whether_it_is_there():
    code = (
        "import sys; import wgan_lip; from wgan_lip.runs.tracking import TRACKERS, check_tracking\n"
        "for name in TRACKERS:\n    try: check_tracking([name])\n    except wgan_lip.InputError: pass\n"
        "assert not {'wandb', 'trackio', 'mlflow', 'IPython'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


NOTEBOOK = """
import io, sys, time
from types import SimpleNamespace as Record
from wgan_lip.runs.tracking import Console, IntervalConsole
with Console(400) as console:
    for step in range(1, 301):
        console.record(Record(step=step, scalars={"w1/lower": 0.25, "w1/upper": 0.5}))
---
with IntervalConsole(60.0) as console:
    for k in range(40):
        console.record(Record(step=k, stage="critic: <fitting>", scalars={"w1/lower": 0.4, "w1/upper": 0.5}))
---
with Console(400, stream := io.StringIO()) as console:
    console.record(Record(step=400, scalars={"w1/critic": 0.25}))
print(stream.getvalue(), end="")
"""


def test_progress_in_a_notebook_is_one_output_that_changes():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = [nbformat.v4.new_code_cell(code) for code in NOTEBOOK.split("---\n")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    (training,), (estimate,), (plain,) = (cell.outputs for cell in notebook.cells)
    assert training.output_type == estimate.output_type == "display_data"
    assert "step 300/400  75.0%" in training.data["text/plain"] and "████" in training.data["text/plain"]
    assert "0.25 ≤ W1 ≤ 0.5" in training.data["text/html"] and "width: 75%" in training.data["text/html"]
    assert "critic: &lt;fitting&gt;  0:00:0" in estimate.data["text/html"]
    assert plain.text.startswith("step 400/400"), "a stream that was given gets lines"
