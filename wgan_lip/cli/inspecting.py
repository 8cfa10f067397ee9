"""The job behind `wgan-lip inspect`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from omegaconf import DictConfig

from wgan_lip.cli import screens
from wgan_lip.cli.schema import checked
from wgan_lip.inspection import Inspection, look_at
from wgan_lip.runs import Run

__all__ = ["RUN", "inspect", "run_named"]

RUN = {"run": str, "trust": list}  # how a command is told of a run


def inspect(config: DictConfig) -> None:
    """Shows in one screen what a run did."""
    settings = checked(config, root={**RUN, "json": bool, "data": bool})
    looked = look_at(Run(**run_named(settings)), data=settings["data"])
    if settings["json"]:
        print(json.dumps(_strict(_plain(looked)), indent=2, allow_nan=False))
    else:
        screens.show(screens.inspection(looked))


def run_named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :class:`wgan_lip.runs.Run` in a command's settings."""
    return {"directory": settings["run"], "trust": settings["trust"]}


def _plain(looked: Inspection) -> dict[str, Any]:
    """What a script wants to know, as plain data."""
    run, standing = looked.run, looked.standing
    shown = (
        "final",
        "lower",
        "lower_as_trained",
        "exact",
        "upper",
        "floor",
        "score",
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


def _strict(content: Any) -> Any:
    """JSON has no number for NaN and the infinities: null."""
    if isinstance(content, Mapping):
        return {key: _strict(value) for key, value in content.items()}
    if isinstance(content, Sequence) and not isinstance(content, str):
        return [_strict(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
