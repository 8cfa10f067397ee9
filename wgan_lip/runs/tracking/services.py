"""Trackers by name: TensorBoard, and services whose packages are imported only if they are named."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from wgan_lip.runs.folder import read_status
from wgan_lip.runs.tracking.records import RecordLike, Tracker
from wgan_lip.runs.tracking.tensorboard import TensorBoardTracker
from wgan_lip.utils.checks import InputError, check_choice, one_line
from wgan_lip.utils.terminal import warn

__all__ = ["TRACKERS", "check_tracking", "open_tracker"]

PROJECT = "wgan_lip"


class Service(Tracker):
    """A service that holds many runs, and knows a resumed run by its name.

    Infinities and NaN, at which charts break off, are left out; `metrics.jsonl` keeps everything. Services do not
    delete anything: steps that an interrupted run recorded after its last checkpoint appear twice once it is resumed.

    Arguments:
        directory: The run's folder. A run that is later trained in its place counts as another run.
    """

    def __init__(self, directory: Path) -> None:
        place = f"{directory.name} {read_status(directory).get('started')!r}"
        self.name, self.id = directory.name, sha256(os.fsencode(place)).hexdigest()[:12]


class WandbTracker(Service):
    """Weights & Biases, configured by its environment variables; `WANDB_MODE=offline` keeps all in the run's folder.

    The axis of its charts is `step`, because wandb's counter counts calls and would refuse steps that are recorded
    again. Texts go into the summary.
    """

    def __init__(self, directory: Path, resume_step: int | None = None) -> None:
        import wandb

        super().__init__(directory)
        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), dir=directory, id=self.id, name=self.name,
            resume="allow", reinit="create_new", settings=wandb.Settings(console="off"),
        )  # fmt: skip
        self._run.define_metric("*", step_metric="step")

    def record(self, record: RecordLike) -> None:
        self._run.log({"step": record.step, **_finite(record)})

    def image(self, tag: str, array: np.ndarray, step: int, *, colors: int | None = None) -> None:
        self._run.log({"step": step, tag: self._wandb.Image(array)})

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        self._run.summary[tag] = markdown

    def histogram(self, tag: str, values: Tensor | np.ndarray, step: int) -> None:
        if (finite := _finite_values(values)).size:
            self._run.log({"step": step, tag: self._wandb.Histogram(finite)})

    def hparams(self, params: Mapping[str, Any]) -> None:
        self._run.config.update(dict(params), allow_val_change=True)

    def close(self) -> None:
        self._run.finish()

    def __exit__(self, *failure: Any) -> None:
        self._run.finish(exit_code=0 if failure[0] is None else 1)


class TrackioTracker(Service):
    """Trackio, which keeps everything on this machine, in `TRACKIO_DIR`, and raises an alert if a run stops early."""

    def __init__(self, directory: Path, resume_step: int | None = None) -> None:
        import trackio

        super().__init__(directory)
        self._trackio = trackio
        with redirect_stdout(sys.stderr):  # it prints where it keeps its data
            self._run = trackio.init(project=PROJECT, name=f"{self.name}-{self.id}", resume="allow", embed=False)

    def record(self, record: RecordLike) -> None:
        self._run.log(_finite(record), step=record.step)

    def image(self, tag: str, array: np.ndarray, step: int, *, colors: int | None = None) -> None:
        self._run.log({tag: self._trackio.Image(array)}, step=step)

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        self._run.log({tag: self._trackio.Markdown(markdown)}, step=step)

    def histogram(self, tag: str, values: Tensor | np.ndarray, step: int) -> None:
        if (finite := _finite_values(values)).size:
            self._run.log({tag: self._trackio.Histogram(finite)}, step=step)

    def hparams(self, params: Mapping[str, Any]) -> None:
        self._run.config.update({name: value for name, value in params.items() if not name.startswith("_")})

    def close(self) -> None:
        with redirect_stdout(sys.stderr):
            self._trackio.finish()

    def __exit__(self, *failure: Any) -> None:
        if failure[0] is not None:
            with redirect_stdout(sys.stderr):
                self._run.alert("Training stopped early", one_line(failure[1]), self._trackio.AlertLevel.ERROR)
        self.close()


class MlflowTracker(Service):
    """MLflow, at `MLFLOW_TRACKING_URI`, or in its database in the current folder, `mlflow.db`.

    Its telemetry over the network is switched off unless `MLFLOW_DISABLE_TELEMETRY=false` is set.
    """

    def __init__(self, directory: Path, resume_step: int | None = None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        super().__init__(directory)
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        self._client = MlflowClient()
        found = self._client.get_experiment_by_name(project)
        experiment = self._client.create_experiment(project) if found is None else found.experiment_id
        before = self._client.search_runs([experiment], f"tags.{PROJECT} = '{self.id}'")
        run = before[0] if before else self._client.create_run(experiment, tags={PROJECT: self.id}, run_name=self.name)
        self._run, self._params = run.info.run_id, set(run.data.params)
        self._client.update_run(self._run, "RUNNING")

    def record(self, record: RecordLike) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        scalars = [Metric(tag, value, now, record.step) for tag, value in _finite(record).items()]
        self._client.log_batch(self._run, metrics=scalars)

    def image(self, tag: str, array: np.ndarray, step: int, *, colors: int | None = None) -> None:
        self._client.log_image(self._run, array, key=tag, step=step)

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        self._client.log_text(self._run, markdown, f"{tag}.md")

    def hparams(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        new = [Param(name, str(value)) for name, value in params.items() if name not in self._params]  # never changed
        self._client.log_batch(self._run, params=new)

    def close(self) -> None:
        self._client.set_terminated(self._run)

    def __exit__(self, *failure: Any) -> None:
        state = "FINISHED" if failure[0] is None else "FAILED" if issubclass(failure[0], Exception) else "KILLED"
        self._client.set_terminated(self._run, state)


class _Spared(Tracker):
    """A service whose failures end its tracking, with a line of warning, but not the training."""

    def __init__(self, name: str, service: Tracker) -> None:
        self._name, self._service = name, service
        self._failed = False

    def _tell(self, method: str, *arguments: Any, **keywords: Any) -> None:
        if self._failed:
            return
        try:
            getattr(self._service, method)(*arguments, **keywords)
        except Exception as error:  # of classes that only the service knows
            self._failed = True
            warn(f"Tracking by {self._name} failed and is off from now on: {one_line(error)}. Training continues.")

    def record(self, record: RecordLike) -> None:
        self._tell("record", record)

    def image(self, tag: str, array: np.ndarray, step: int, *, colors: int | None = None) -> None:
        self._tell("image", tag, array, step, colors=colors)

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        self._tell("text", tag, markdown, step)

    def histogram(self, tag: str, values: Tensor | np.ndarray, step: int) -> None:
        self._tell("histogram", tag, values, step)

    def hparams(self, params: Mapping[str, Any]) -> None:
        self._tell("hparams", params)

    def flush(self) -> None:
        self._tell("flush")

    def close(self) -> None:
        self._tell("close")

    def __exit__(self, *failure: Any) -> None:
        self._tell("__exit__", *failure)


TRACKERS: dict[str, Callable[[Path, int | None], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "trackio": TrackioTracker,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}
"""Name → a function that opens the tracker of a run's folder, given the first step to be recorded again, if any.

All of them work without a network: wandb with `WANDB_MODE=offline`, after which `wandb sync` uploads the run.
"""


def check_tracking(tracking: Sequence[str | Tracker]) -> None:
    """Refuses unknown trackers, and those whose package is not installed.

    Raises:
        InputError: Names the tracker, and what to install.
    """
    if isinstance(tracking, str) or not isinstance(tracking, Sequence):
        raise InputError(f"tracking must be a list of trackers, such as [tensorboard], not {tracking!r}.")
    for number, name in enumerate(tracking):
        if isinstance(name, Tracker):
            continue
        if not isinstance(name, str):
            raise InputError(f"tracking must hold trackers or their names, not {name!r}.")
        if name in tracking[:number]:
            raise InputError(f"tracking names {name} twice. Name it once.")
        spec = importlib.util.find_spec(check_choice(name, list(TRACKERS), "tracking"))
        if spec is None or spec.origin is None:  # a folder of that name, such as wandb's runs, is not the package
            raise InputError(f"tracking={name} needs the package {name}, which is not installed: pip install {name}")


def open_tracker(name: str, directory: Path, *, resume_step: int | None = None) -> Tracker:
    """The tracker of that name for the run in `directory`; see :data:`TRACKERS`.

    Raises:
        InputError: There is no such tracker, or the service refuses, for example because nobody is logged in.
    """
    check_tracking([name])
    if name == "tensorboard":
        return TRACKERS[name](directory, resume_step)
    try:
        return _Spared(name, TRACKERS[name](directory, resume_step))
    except Exception as error:  # of classes that only the service knows
        raise InputError(f"tracking={name} can't be started: {one_line(error)}.") from error


def _finite(record: RecordLike) -> dict[str, float]:
    scalars = {tag: float(value) for tag, value in record.scalars.items()}
    return {tag: value for tag, value in scalars.items() if np.isfinite(value)}


def _finite_values(values: Tensor | np.ndarray) -> np.ndarray:
    values = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    return values[np.isfinite(values)]
