"""Trackers by name: TensorBoard, and services whose packages are imported only where they are named."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from wgan_lip.runs.tracking.records import RecordLike, Tracker
from wgan_lip.runs.tracking.tensorboard import TensorBoardTracker
from wgan_lip.utils.checks import InputError, check_choice

__all__ = ["TRACKERS", "check_tracking", "open_tracker"]

PROJECT = "wgan_lip"


def _name(directory: Path) -> str:
    """A name by which a service finds the run of a folder again: the folder's, and a hash of where it lies."""
    place = directory.resolve()
    return f"{place.name}-{sha256(os.fsencode(place)).hexdigest()[:8]}"


class WandbTracker(Tracker):
    """Weights & Biases, as its own environment variables say; `WANDB_MODE=offline` keeps all in the run's folder."""

    def __init__(self, directory: Path, resume_step: int | None = None) -> None:
        import wandb

        self._wandb, name = wandb, _name(directory)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), dir=directory, id=name, name=directory.name,
            resume="allow",
        )  # fmt: skip

    def record(self, record: RecordLike) -> None:
        self._run.log(dict(record.scalars), step=record.step)

    def image(self, tag: str, array: np.ndarray, step: int, *, colors: int | None = None) -> None:
        self._run.log({tag: self._wandb.Image(array)}, step=step)

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        self._run.summary[tag] = markdown

    def histogram(self, tag: str, values: Tensor | np.ndarray, step: int) -> None:
        values = np.asarray(values.cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
        if (finite := values[np.isfinite(values)]).size:
            self._run.log({tag: self._wandb.Histogram(finite)}, step=step)

    def hparams(self, params: Any) -> None:
        self._run.config.update(dict(params), allow_val_change=True)

    def close(self) -> None:
        self._run.finish()

    def __exit__(self, *failure: object) -> None:
        self._run.finish(exit_code=0 if failure[0] is None else 1)


class TrackioTracker(Tracker):
    """Trackio, which keeps all on this machine."""

    def __init__(self, directory: Path, resume_step: int | None = None) -> None:
        import trackio

        self._trackio = trackio
        trackio.init(project=PROJECT, name=_name(directory), resume="allow", embed=False)

    def record(self, record: RecordLike) -> None:
        self._trackio.log(dict(record.scalars), step=record.step)

    def image(self, tag: str, array: np.ndarray, step: int, *, colors: int | None = None) -> None:
        self._trackio.log({tag: self._trackio.Image(array)}, step=step)

    def hparams(self, params: Any) -> None:
        self._trackio.context_vars.current_run.get().config.update(params)

    def close(self) -> None:
        self._trackio.finish()


class MlflowTracker(Tracker):
    """MLflow, at `MLFLOW_TRACKING_URI` or in files here."""

    def __init__(self, directory: Path, resume_step: int | None = None) -> None:
        from mlflow import MlflowClient

        self._client, name = MlflowClient(), _name(directory)
        found = self._client.get_experiment_by_name(PROJECT)
        experiment = self._client.create_experiment(PROJECT) if found is None else found.experiment_id
        before = self._client.search_runs([experiment], f"tags.folder = '{name}'")
        run = before[0] if before else self._client.create_run(experiment, tags={"folder": name}, run_name=name)
        self._run = run.info.run_id

    def record(self, record: RecordLike) -> None:
        for tag, value in record.scalars.items():
            self._client.log_metric(self._run, tag, value, step=record.step)

    def image(self, tag: str, array: np.ndarray, step: int, *, colors: int | None = None) -> None:
        self._client.log_image(self._run, array, f"{tag}/{step:08d}.png")

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        self._client.log_text(self._run, markdown, f"{tag}.md")

    def hparams(self, params: Any) -> None:
        for name, value in params.items():
            self._client.log_param(self._run, name, value)

    def close(self) -> None:
        self._client.set_terminated(self._run)

    def __exit__(self, *failure: object) -> None:
        self._client.set_terminated(self._run, "FINISHED" if failure[0] is None else "FAILED")


TRACKERS: dict[str, Callable[[Path, int | None], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "trackio": TrackioTracker,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}
"""Name → what opens the tracker of a run's folder, given the first step that will be recorded again, if any."""


def check_tracking(tracking: Sequence[str | Tracker]) -> None:
    """Refuses names that no tracker has, and those whose package is not installed.

    Raises:
        InputError: The name, and what to install.
    """
    if isinstance(tracking, str):
        raise InputError(f"Expected a list of trackers, such as [tensorboard]. Got {tracking!r}.")
    for name in tracking:
        if isinstance(name, str) and importlib.util.find_spec(check_choice(name, list(TRACKERS), "tracking")) is None:
            raise InputError(f"tracking={name} needs the package {name}, which is not installed: pip install {name}")


def open_tracker(name: str, directory: Path, *, resume_step: int | None = None) -> Tracker:
    """The tracker of that name for the run in `directory`; see :data:`TRACKERS`."""
    check_tracking([name])
    return TRACKERS[name](directory, resume_step)
