"""The job behind `wgan-lip test`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor

from wgan_lip.cli import screens
from wgan_lip.cli.estimate import TABLE, open_sides, removed_if_refused
from wgan_lip.cli.schema import checked
from wgan_lip.data import Opened
from wgan_lip.runs.folder import RESULT, create_run, failures_recorded, set_status, versions
from wgan_lip.utils.checks import check_memory, check_seed
from wgan_lip.utils.devices import find_device, set_threads
from wgan_lip.utils.files import write_json
from wgan_lip.utils.terminal import say
from wgan_lip.wasserstein.two_sample import check_test, two_sample_test

__all__ = ["test"]

ROOT = {
    "x": str, "y": str | None, "key_x": str | None, "key_y": str | None, "dim": int | None, "method": str,
    "permutations": int | None, "effect": bool, "level": float, "samples": int, "device": str, "threads": int | None,
    "seed": int, "trust": list,
    **{f"{option}{side}": kind for option, kind in TABLE.items() for side in ("", "_x", "_y")},
}  # fmt: skip


def test(config: DictConfig) -> float:
    """Tests two sample sets in Hydra's output folder; returns the p-value."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    with removed_if_refused(directory):
        settings = checked(config, root=ROOT)
        set_threads(settings["threads"])
        sides = open_sides(settings)
        arguments, notes = _arguments(settings, sides)
        check_test(**arguments)
    create_run(directory, settings, list(HydraConfig.get().overrides.task))
    with failures_recorded(directory):
        result = two_sample_test(**arguments)
        result = replace(result, notes=(*notes, *result.notes))
        content = {
            **result.as_dict(),
            "x": sides[0].name,
            "y": sides[1].name,
            "units": " and ".join(dict.fromkeys(side.law.units for side in sides)),
            "versions": versions(),
        }
        write_json(directory / RESULT, content)
        set_status(directory, "finished")
    say(screens.tested(result, directory, (sides[0].name, sides[1].name)))
    return result.pvalue


def _arguments(settings: Mapping[str, Any], sides: tuple[Opened, Opened]) -> tuple[dict[str, Any], list[str]]:
    """The arguments of :func:`wgan_lip.two_sample_test`, and notes about the samples."""
    rng = torch.Generator().manual_seed(check_seed(settings["seed"]))
    count = settings["samples"]
    numbers = count * sum(side.law.dim for side in sides if side.rows is None)
    check_memory(8 * numbers, f"draws of {count} samples", "Lower samples.")
    notes = [note for side in sides for note in side.notes]
    drawn: list[Tensor] = []
    for side in sides:
        rows = side.law.sample(count, rng) if side.rows is None else side.rows
        if side.rows is None and side.law.size is not None:
            notes.append(f"{len(rows):,} rows were drawn from the {side.law.size:,} of {side.name}, with replacement.")
        drawn.append(rows)
    passed = ("method", "permutations", "effect", "level", "seed")
    arguments = {
        **{name: settings[name] for name in passed},
        "a": None,
        "b": None,
        "device": find_device(settings["device"]),
    }
    return {"x": drawn[0], "y": drawn[1], **arguments}, notes
