"""Going on with a run: which one, and whether it is still the same."""

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
"""Settings, or sections of them, that may change when a run goes on: they are not part of the game."""

PLACES = ("data.path", "data.test_path", "data.root", "data.download")
"""Settings that say where the data lie: they may change where the data are the same."""

RESCHEDULING = ("training.steps", "training.max_images")
"""Settings that may rise where learning rates are constant; elsewhere these move over all the steps."""

PROLONGING = (*RESCHEDULING, "training.max_seconds", "training.patience")
"""Settings with which a finished run is played on, where they rise."""


def find_run(directory: Path, settings: Mapping[str, Any], resume: str | None, *, sweep: bool) -> Run | None:
    """The run to go on with, or None where a new one begins.

    Arguments:
        directory: Hydra's output folder.
        settings: The configuration, checked.
        resume: The setting of that name: None; `auto`, for the newest run of this configuration that is neither
            finished nor played by another process, beside `directory` or in it; or the folder of a run.
        sweep: Whether the folder is that of a job in a sweep.

    Raises:
        InputError: A run of another configuration (each key that differs is named), or one that must not go on.
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
    """Returns a run that may go on with these settings.

    Raises:
        InputError: It is of another configuration (each key that differs is named), or its critic was refuted.
    """
    if differing := differences(run.config, settings, free=(*FREE, *PLACES)):
        raise InputError(
            f"Expected the configuration of {run.directory}. Got another: {'; '.join(differing)}. "
            "Leave these out, or train anew without resume."
        )
    if _refuted(run):
        raise InputError(f"Expected a run that may go on. Got {run.directory}: {run.status['reason']} Train anew.")
    return run


def _unfinished(folders: Iterable[Path]) -> Iterator[Run]:
    """The training runs among folders that may go on; a line is printed about one whose configuration is damaged."""
    for folder in folders:
        try:
            run = Run(folder)
        except InputError:  # no run, or an estimate
            continue
        try:
            if run.config and run.status["state"] != "finished" and not _refuted(run):
                yield run
        except InputError as error:
            warn(f"{error} It is passed over.")


def _begun(run: Run) -> float:
    """When a run began; what a status that is damaged or missing can't say, the time of its configuration does."""
    return run.status.get("started") or (run.directory / CONFIG).stat().st_mtime


def is_finished(run: Run, settings: Mapping[str, Any]) -> bool:
    """Whether nothing is left to play or to score, under settings that may allow more than the run's own did."""
    before, after = flat(run.config), flat(settings)
    prolonged = any(_rises(before.get(key), after.get(key)) for key in PROLONGING)
    return run.status["state"] == "finished" and not prolonged and _is_scored(run)


def _is_scored(run: Run) -> bool:
    with suppress(InputError):
        return run.summary is not None
    return False


def last_state(run: Run, settings: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, int | None]:
    """The state of a run's game, and the step of its `checkpoint.pt`; None for one that is damaged or missing.

    A line is printed about each checkpoint that is damaged and gives way to the one before.

    Raises:
        InputError: All checkpoints are damaged; or the data lie elsewhere now, and the state does not say which they
            were.
    """
    found = newest_whole(run.directory, tell=warn)
    if found is None:
        return None, None
    path, content = found
    moved = differences(run.config, settings)
    if moved and "data" not in content["game"]:
        raise InputError(
            f"Expected the data where they were, since {run.directory} is of a version that kept no hash of them. Got: "
            f"{'; '.join(moved)}. Put them back, or train anew without resume."
        )
    return content["game"], content["game"]["step"] if path.name == CHECKPOINT else None


def _refuted(run: Run) -> bool:
    return run.status.get("kind") == "RefutedError"


def differences(saved: Mapping[str, Any], now: Mapping[str, Any], free: Iterable[str] = FREE) -> list[str]:
    """Every setting that `saved` has otherwise than `now`, in words, but for those that are free to change.

    A setting that `saved` lacks is from a later version than the run: its default leaves a game as it was.
    """
    before, after = flat(saved), flat(now)
    differing = [key for key in before if key not in after or before[key] != after[key]]
    lines = []
    for key in differing:
        if any(_lies_under(key, section) for section in free):
            continue
        was, is_now = (repr(side[key]) if key in side else "not there" for side in (before, after))
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
    """Whether a limit allows more than it did; None is no limit."""
    return isinstance(before, int | float) and (after is None or (isinstance(after, int | float) and after > before))
