"""Resuming a run: which one, and whether its configuration is still the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from wgan_lip.runs.checkpoints import CHECKPOINT, newest_whole
from wgan_lip.runs.folder import CONFIG, is_claimed
from wgan_lip.runs.run import Run
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.tables import flat
from wgan_lip.utils.terminal import warn

__all__ = ["differences", "find_run", "is_finished", "last_state", "same_run"]

FREE = (
    "device",
    "threads",
    "trust",
    "tracking",
    "checkpoint",
    "training.max_rollbacks",
    "training.max_seconds",
    "training.patience",
)
"""Settings, or sections of them, that may change when a run is resumed: they do not affect its steps."""

PLACES = ("data.path", "data.test_path", "data.root", "data.download")
"""Settings that say where the data are: they may change if the data are the same."""

RESCHEDULING = ("training.steps", "training.max_images")
"""Settings that may rise if learning rates are constant; otherwise rates depend on the total number of steps."""

PROLONGING = (*RESCHEDULING, "training.max_seconds", "training.patience")
"""Settings that, if raised, let a finished run train on."""


def find_run(directory: Path, settings: Mapping[str, Any], resume: str | None, *, sweep: bool) -> Run | None:
    """The run to resume, or None to start a new one.

    Arguments:
        directory: Hydra's output folder.
        settings: The configuration, checked.
        resume: The setting of that name: None; `auto`, for the newest run of this configuration, in `directory` or
            beside it, that is neither finished nor being trained by another process; or the folder of a run.
        sweep: Whether the folder belongs to a job in a sweep.

    Raises:
        InputError: A run of another configuration (each key that differs is named), or one that can't be resumed.
    """
    if resume is None:
        return None
    if resume != "auto" or (directory / CONFIG).exists():
        return same_run(Run(directory if resume == "auto" else resume), settings)
    siblings = directory.parent.parent.glob("*/*") if sweep else directory.parent.iterdir()
    for run in sorted(_unfinished(siblings), key=lambda run: (_begun(run), run.directory.name), reverse=True):
        if not is_claimed(run.directory) and not differences(run.config, settings):
            return run
    return None


def same_run(run: Run, settings: Mapping[str, Any]) -> Run:
    """Returns a run that may continue with these settings.

    Raises:
        InputError: It has another configuration (each key that differs is named), or its critic was refuted.
    """
    if differing := differences(run.config, settings, free=(*FREE, *PLACES)):
        raise InputError(
            f"{run.directory} was started with other settings: {'; '.join(differing)}. Leave these out, or start a new "
            "run without resume."
        )
    if _refuted(run):
        raise InputError(f"{run.directory} can't be resumed: {run.status['reason']} Start a new run.")
    return run


def _unfinished(folders: Iterable[Path]) -> Iterator[Run]:
    """The training runs among folders that can be resumed; prints a line about one with a damaged configuration."""
    for folder in folders:
        try:
            run = Run(folder)
        except InputError:  # not a run, or an estimate
            continue
        try:
            if run.config and run.status["state"] != "finished" and not _refuted(run):
                yield run
        except InputError as error:
            warn(f"{error} Skipping it.")


def _begun(run: Run) -> float:
    """When a run began: from its status or, if that is damaged or missing, from the time of its configuration."""
    return run.status.get("started") or (run.directory / CONFIG).stat().st_mtime


def is_finished(run: Run, settings: Mapping[str, Any]) -> bool:
    """Whether nothing is left to train or to score, under settings that may allow more than the run's did."""
    before, after = flat(run.config), flat(settings)
    prolonged = any(_rises(before.get(key), after.get(key)) for key in PROLONGING)
    return run.status["state"] == "finished" and not prolonged and _is_scored(run)


def _is_scored(run: Run) -> bool:
    with suppress(InputError):
        return run.summary is not None
    return False


def last_state(run: Run, settings: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, int | None]:
    """A run's training state, and the step of its `checkpoint.pt`; None for one that is damaged or missing.

    Prints a line about each damaged checkpoint, for which the one before is used.

    Raises:
        InputError: All checkpoints are damaged; or the data have moved, and the state does not say which they were.
    """
    found = newest_whole(run.directory, tell=warn)
    if found is None:
        return None, None
    path, content = found
    moved = differences(run.config, settings)
    if moved and "data" not in content["game"]:
        raise InputError(
            f"The data of {run.directory} have moved ({'; '.join(moved)}), and it is from a version that kept no hash "
            "of them. Put them back, or start a new run without resume."
        )
    return content["game"], content["game"]["step"] if path.name == CHECKPOINT else None


def _refuted(run: Run) -> bool:
    return run.status.get("kind") == "RefutedError"


def differences(saved: Mapping[str, Any], now: Mapping[str, Any], free: Iterable[str] = FREE) -> list[str]:
    """The settings in which `saved` and `now` differ, in words, except those that are free to change.

    A setting that `saved` lacks is newer than the run; its default leaves training unchanged.
    """
    before, after = flat(saved), flat(now)
    differing = [key for key in before if key not in after or before[key] != after[key]]
    lines = []
    for key in differing:
        if any(_lies_under(key, section) for section in free):
            continue
        was, is_now = (repr(side[key]) if key in side else "missing" for side in (before, after))
        if key in RESCHEDULING and key in before and key in after and _rises(before[key], after[key]):
            unless = [name for name in ("critic_schedule", "generator_schedule")
                      if after.get(f"training.{name}") != "constant"]  # fmt: skip
            if not unless:
                continue
            lines.append(f"{key} was {was}, now {is_now}, which needs training.{unless[0]}=constant from the start")
        else:
            lines.append(f"{key} was {was}, now {is_now}")
    return lines


def _lies_under(key: str, section: str) -> bool:
    return key == section or key.startswith(f"{section}.")


def _rises(before: Any, after: Any) -> bool:
    """Whether a limit allows more than before; None is no limit."""
    return isinstance(before, int | float) and (after is None or (isinstance(after, int | float) and after > before))
