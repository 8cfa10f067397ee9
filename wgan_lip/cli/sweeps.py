"""The jobs of a sweep: side by side in other processes where that is asked for, and what came of them."""

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
    """A job of a sweep failed in another process, with the exit status that is due."""

    def __init__(self, outcome: JobOutcome) -> None:
        super().__init__(outcome.failure)
        self.status = outcome.status


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended.

    Attributes:
        sweep: The folder of its sweep.
        name: What tells it from the others.
        failure: Why it failed, in a line; None where it did not.
        status: The exit status that is due for that.
    """

    sweep: str
    name: str
    failure: str | None = None
    status: int = 0


class Jobs:
    """Outcomes of jobs, of this process and of others that a launcher starts: files in a folder that all can reach."""

    def __init__(self) -> None:
        self._home, self._folder = os.getpid(), Path(tempfile.mkdtemp(prefix="wgan_lip-jobs-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)  # of copies in other processes, none

    @property
    def elsewhere(self) -> bool:
        """Whether this process is another than the one that began."""
        return os.getpid() != self._home

    def tell(self, outcome: JobOutcome) -> None:
        """Leaves word of a job that ended; a machine of a cluster that has no such folder leaves none."""
        if self._folder.is_dir():
            write_json(self._folder / f"{time.time_ns()}-{os.getpid()}.json", asdict(outcome))

    def outcomes(self) -> list[JobOutcome]:
        """What all of them told, in the order in which they ended."""
        notes = sorted(self._folder.glob("*.json"))
        return [JobOutcome(**json.loads(note.read_text(encoding="utf-8"))) for note in notes]


class Labelled(io.TextIOBase):
    """A stream whose lines begin with a name: several processes write to one terminal."""

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
    """Overrides of a sweep with `jobs=N` in them, as Hydra takes them: N jobs at a time, by its joblib launcher.

    Raises:
        InputError: No number, no sweep, another launcher beside it, or one that is not installed.
    """
    given = [override for override in overrides if override.startswith(KEY)]
    rest = [override for override in overrides if override not in given]
    if not given:
        return rest
    count = given[-1].removeprefix(KEY)
    if not count.isdecimal() or not int(count):
        raise InputError(f"Expected jobs=N, how many jobs of a sweep run at a time, such as jobs=2. Got {given[-1]}.")
    if not {"--multirun", "-m"} & set(rest):
        raise InputError(f"{given[-1]} is of a sweep. Got no --multirun. Add it, and lists such as seed=0,1,2.")
    if int(count) == 1:
        return rest
    if launchers := [override for override in rest if override.startswith("hydra/launcher=")]:
        raise InputError(f"{given[-1]} has a launcher of its own. Got {launchers[0]} beside it. Leave out one of them.")
    if not _installed("hydra_joblib_launcher"):
        raise InputError(
            f"{given[-1]} needs the package hydra-joblib-launcher, which is not installed: pip install wgan-lip[jobs]"
        )
    return ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={count}", *rest]


def _installed(plugin: str) -> bool:
    return bool(importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec(f"hydra_plugins.{plugin}"))
