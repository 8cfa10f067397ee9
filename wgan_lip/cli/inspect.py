"""The job behind `wgan-lip inspect`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from wgan_lip.cli import screens
from wgan_lip.cli.schema import RUN, checked, run_named
from wgan_lip.inspection.explore import explore
from wgan_lip.inspection.look import Inspection, look_at
from wgan_lip.inspection.report import place_in, write_report
from wgan_lip.runs.run import Run
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.files import json_text, utf8, write_whole
from wgan_lip.utils.terminal import say

__all__ = ["inspect", "written"]


def inspect(config: DictConfig) -> None:
    """Shows on one screen what a run did, and writes a longer report as a page."""
    settings = checked(config, root={**RUN, "json": bool, "open_data": bool, "out": str | None, "pictures": str | None})
    looked = look_at(Run(**run_named(settings)), data=settings["open_data"])
    if settings["json"]:
        say(json_text(_plain(looked), indent=2))
    else:
        say(screens.inspection(looked))
        if settings["out"] is not None:
            say(screens.place("Report", write_report(looked, settings["out"])))
    if settings["pictures"] is not None:
        folder = _explored(looked, place_in(looked.run, settings["pictures"]))
        if not settings["json"]:
            say(screens.place("What its critic sees", folder))


def _explored(looked: Inspection, folder: Path) -> Path:
    """Writes what a run's critic sees, one file per picture."""
    if looked.source is None or looked.generated is None:
        why = looked.unopened or looked.problem
        raise InputError(f"pictures needs the run's critic and data, which can't be opened: {why}")
    seen = explore(looked.run.critic, looked.source, looked.generated, certificate=looked.certificate)
    try:
        seen.save(folder)
    except OSError as error:
        raise InputError(f"{folder} can't be written: {error.strerror}. Give pictures=FOLDER.") from None
    return folder


def written(path: Path, text: str, remedy: str) -> Path:
    """Writes a whole text file, or raises :class:`InputError` with the key that names another place."""
    try:
        return write_whole(path, utf8(text).encode())
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}. Give {remedy}.") from None


def _plain(looked: Inspection) -> dict[str, Any]:
    """The inspection as plain data, for scripts."""
    run, standing = looked.run, looked.standing
    shown = (
        "final",
        "lower",
        "lower_as_trained",
        "exact",
        "upper",
        "floor",
        "score",
        "score_error",
        "real",
        "real_error",
        "ratio",
        "recall",
        "coverage",
        "width",
        "copies",
        "trained",
        "refitted",
        "gradient",
        "tightness",
        "spread",
    )
    return {
        "run": str(run.directory),
        "status": run.status,
        "summary": run.summary,
        "standing": {name: getattr(standing, name) for name in shown},
        "findings": [asdict(finding) for finding in looked.findings],
        "last_record": run.metrics[-1] if run.metrics else None,
        "certificate": asdict(looked.certificate) if looked.certificate else None,
        "problem": looked.problem,
    }
