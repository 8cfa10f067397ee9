"""The folder of a run: its files, who holds it, its status."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import torch
from omegaconf import OmegaConf

import wgan_lip
from wgan_lip.runs.checkpoints import CHECKPOINT
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.files import write_json, write_whole

__all__ = [
    "CERTIFICATE",
    "CONFIG",
    "METRICS",
    "OVERRIDES",
    "RESULT",
    "STATUS",
    "SUMMARY",
    "claimed",
    "create_run",
    "failures_recorded",
    "is_claimed",
    "read_json",
    "reopen_run",
    "set_status",
    "versions",
    "yaml_text",
]
import json

CONFIG, CERTIFICATE, LOCK = "config.yaml", "certificate.json", ".lock"
METRICS, OVERRIDES, STATUS, SUMMARY = "metrics.jsonl", "overrides.json", "status.json", "summary.json"
RESULT = "result.json"  # of an estimate


def create_run(directory: str | Path, config: Mapping[str, Any], overrides: list[str]) -> Path:
    """Makes a run's folder and writes its configuration, its overrides and a first status.

    Raises:
        InputError: The folder holds a run already (nothing is overwritten), or can't be written to.
    """
    directory = Path(directory)
    taken = [name for name in (CHECKPOINT, CONFIG, STATUS, METRICS) if (directory / name).exists()]
    if taken:
        raise InputError(
            f"Expected an empty run folder. Got {directory}, which holds {', '.join(taken)}. Choose another folder."
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write_settings(directory, config, overrides)
        set_status(directory, "running")
    except OSError as error:
        raise InputError(f"Expected a folder that can be written to. Got {directory}: {error.strerror}.") from None
    return directory


def reopen_run(directory: Path, config: Mapping[str, Any], overrides: list[str]) -> None:
    """Lets a run go on: its configuration may allow more than it did, and what was concluded from it goes."""
    _write_settings(directory, config, overrides)
    (directory / SUMMARY).unlink(missing_ok=True)
    set_status(directory, "running")


def _write_settings(directory: Path, config: Mapping[str, Any], overrides: list[str]) -> None:
    write_json(directory / OVERRIDES, overrides)
    write_whole(directory / CONFIG, yaml_text(config).encode())


def yaml_text(config: Mapping[str, Any]) -> str:
    """A configuration as it stands in `config.yaml`."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(config)))


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Holds a run's folder for this process; the system lets go of it when the process ends, however it ends.

    Raises:
        InputError: Another process holds it.
    """
    with open(directory / LOCK, "a") as stream:
        if not _lock(stream):
            raise InputError(
                f"Expected a run that nobody plays. Got {directory}, which another process is playing. Wait for it, "
                "or stop it."
            )
        yield


def is_claimed(directory: Path) -> bool:
    """Whether another process holds a run's folder."""
    if not (directory / LOCK).exists():
        return False
    with open(directory / LOCK, "a") as stream:
        return not _lock(stream)


def _lock(stream: TextIO) -> bool:
    try:
        import fcntl
    except ImportError:  # a system without such locks
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without such locks
        return True
    return True


def set_status(
    directory: Path, state: str, *, reason: str | None = None, kind: str | None = None, step: int | None = None
) -> None:
    """Writes `status.json`: running, finished, interrupted or failed, the reason, the step, time and versions.

    `kind` is the class of the error behind a failure. When the run began, and the step where none is given, stay as
    they stand there.
    """
    path, now = directory / STATUS, time.time()
    before = {"started": now, "step": 0} | (read_json(path) if path.exists() else {})
    after = {"state": state, "reason": reason, "kind": kind, "step": before["step"] if step is None else step}
    write_json(path, {**before, **after, "pid": os.getpid(), "updated": now, "versions": versions()})


@contextmanager
def failures_recorded(directory: Path) -> Iterator[None]:
    """Writes to the run's status why it ended early."""
    try:
        yield
    except BaseException as error:
        state, reason = "failed", f"{type(error).__name__}: {error}"
        if isinstance(error, KeyboardInterrupt):
            state, reason = "interrupted", str(error) or "interrupted by the user"
        elif isinstance(error, InputError):
            reason = str(error)
        with suppress(OSError):  # such as on a full disk
            set_status(directory, state, reason=reason, kind=type(error).__name__)
        raise


def versions() -> dict[str, str]:
    """What a number in this run was made with."""
    return {
        "wgan_lip": wgan_lip.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"Expected JSON in {path}. Got a damaged file: {error}. Restore it, or train again.") from None
    if not isinstance(content, dict):
        raise InputError(f"Expected a JSON object in {path}. Got {type(content).__name__}.")
    return content
