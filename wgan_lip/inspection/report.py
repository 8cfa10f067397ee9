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
    """Writes a report of a run, in any state, as a page in a single file.

    Arguments:
        run: A run, or its folder.
        out: The file, relative to the run's folder, or an absolute path.
        data: Whether to open the data it was trained on, for what only they can show.

    Returns:
        The file.

    Raises:
        InputError: Not a run, a run with damaged records, or a place that cannot be written to. Missing checkpoints or
            data are not an error: the page reports them.
    """
    return write_report(look_at(run if isinstance(run, Run) else Run(run), data=data), out)


def place_in(run: Run, given: str | Path) -> Path:
    """A path relative to the run's folder, or an absolute one. Raises :class:`InputError` if a link leads out of it."""
    path = Path(given).expanduser()
    stated = Path(os.path.normpath(run.directory.resolve() / path))
    if not path.is_absolute() and (led := stated.resolve()) != stated:
        raise InputError(f"{given} in {run.directory} is a link to {led}. Give that path instead.")
    return run.directory / path


def write_report(looked: Inspection, out: str | Path) -> Path:
    """Writes the page about an inspected run; see :func:`report`."""
    path = place_in(looked.run, out)
    try:
        path.parent.stat()  # before the page is drawn, which takes seconds
        return write_whole(path, utf8(run_page(looked)).encode())
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}. Give another file by out=FILE.") from None
