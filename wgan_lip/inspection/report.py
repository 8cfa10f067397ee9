"""The report of a run, written into its folder."""

from __future__ import annotations

import os
from pathlib import Path

from wgan_lip.inspection.look import Inspection, look_at
from wgan_lip.inspection.pages import run_page
from wgan_lip.runs.run import Run
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.files import utf8, write_whole

__all__ = ["place_in", "report", "write_report"]


def report(run: Run | str | Path, out: str | Path = "report.html", *, data: bool = True) -> Path:
    """Writes what a run did, in any state, as a page in one file that needs no other.

    Arguments:
        run: A run, or its folder.
        out: Where, below the run's folder, or an absolute path.
        data: Whether to open the data it was trained on, for what only they can show.

    Returns:
        The file.

    Raises:
        InputError: No run, one whose records are damaged, or a place that cannot be written to. A checkpoint or data
            that are missing are no error: the page says so.
    """
    return write_report(look_at(run if isinstance(run, Run) else Run(run), data=data), out)


def place_in(run: Run, given: str | Path) -> Path:
    """A path below the run's folder, or an absolute one. Raises :class:`InputError` where a link leads out of it."""
    path = Path(given).expanduser()
    stated = Path(os.path.normpath(run.directory.resolve() / path))
    if not path.is_absolute() and (led := stated.resolve()) != stated:
        raise InputError(f"Expected to write {given} in {run.directory}. Got a link there, to {led}. Give that path.")
    return run.directory / path


def write_report(looked: Inspection, out: str | Path) -> Path:
    """Writes the page about a run that was looked at; see :func:`report`."""
    path = place_in(looked.run, out)
    try:
        return write_whole(path, utf8(run_page(looked)).encode())
    except OSError as error:
        raise InputError(f"Expected to write {path}. Got: {error.strerror}. Give another place by out=.") from None
