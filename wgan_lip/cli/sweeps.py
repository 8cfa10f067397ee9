"""The jobs of a sweep, in parallel processes if asked for, and their outcomes."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from wgan_lip.utils.checks import InputError
from wgan_lip.utils.files import write_json

__all__ = ["JobFailed", "JobOutcome", "Jobs", "Labelled", "side_by_side"]

KEY = "jobs="


class JobFailed(Exception):
    """A job of a sweep failed in another process; `status` is the exit status to return."""

    def __init__(self, outcome: JobOutcome) -> None:
        super().__init__(outcome.failure)
        self.status = outcome.status


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended.

    Attributes:
        sweep: The folder of its sweep.
        name: What distinguishes it from the others.
        failure: Why it failed, in one line; None if it did not.
        status: The exit status to return.
    """

    sweep: str
    name: str
    failure: str | None = None
    status: int = 0


class Jobs:
    """Outcomes of jobs in this process and in others that a launcher starts, as files in a shared folder."""

    def __init__(self) -> None:
        self._home, self._folder = os.getpid(), Path(tempfile.mkdtemp(prefix="wgan_lip-jobs-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)  # not for copies in other processes

    @property
    def elsewhere(self) -> bool:
        """Whether this is not the process that began."""
        return os.getpid() != self._home

    def tell(self, outcome: JobOutcome) -> None:
        """Writes the outcome of a job, unless this machine of a cluster does not see the folder."""
        if self._folder.is_dir():
            write_json(self._folder / f"{time.time_ns()}-{os.getpid()}.json", asdict(outcome))

    def outcomes(self) -> list[JobOutcome]:
        """The outcomes of all jobs, in the order in which they ended."""
        notes = sorted(self._folder.glob("*.json"))
        return [JobOutcome(**json.loads(note.read_text(encoding="utf-8"))) for note in notes]


class Labelled(io.TextIOBase):
    """A stream that puts a name before each line, for several processes that write to one terminal."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name, self._line = stream, name, ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        self._stream.write("".join(f"{self._name}: {line}\n" for line in lines))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def side_by_side(overrides: Sequence[str]) -> list[str]:
    """Translates `jobs=N` among the overrides for Hydra: N jobs of a sweep at a time, by its joblib launcher.

    Raises:
        InputError: `jobs` is not a number, there is no sweep, another launcher is given, or joblib's is not installed.
    """
    given = [override for override in overrides if override.startswith(KEY)]
    rest = [override for override in overrides if override not in given]
    if not given:
        return rest
    count = given[-1].removeprefix(KEY)
    if not count.isdecimal() or not int(count):
        raise InputError(f"jobs must be how many jobs of a sweep run at a time, as in jobs=2, not {given[-1]}.")
    if not {"--multirun", "-m"} & set(rest):
        raise InputError(f"{given[-1]} works only in a sweep. Add --multirun and lists such as seed=0,1,2.")
    if int(count) == 1:
        return rest
    if launchers := [override for override in rest if override.startswith("hydra/launcher=")]:
        raise InputError(f"{given[-1]} and {launchers[0]} both choose a launcher. Leave out one of them.")
    if not _installed("hydra_joblib_launcher"):
        raise InputError(
            f"{given[-1]} needs the package hydra-joblib-launcher, which is not installed: pip install wgan-lip[jobs]"
        )
    return ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={count}", *rest]


def _installed(plugin: str) -> bool:
    return bool(importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec(f"hydra_plugins.{plugin}"))
