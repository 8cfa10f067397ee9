"""The measurements behind every figure.

A suite is the function `measure` of a module of this package, and has the module's name; `measure_large` of the module
`w1` is the suite `w1_large`. It takes seeds, its folder, and, if it needs them, overrides, a stage and minutes, writes
`results.json` through :func:`wgan_lip.benchmarks.machine.write_results`, and returns its table.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from wgan_lip.utils.checks import InputError, check_choice
from wgan_lip.utils.discovery import import_all
from wgan_lip.utils.files import write_whole

__all__ = ["benchmark", "suites"]


def suites() -> dict[str, Callable[..., str]]:
    """Every suite, by name."""
    return {
        f"{module.__name__.rpartition('.')[2]}{name.removeprefix('measure')}": function
        for module in import_all(__name__)
        for name, function in vars(module).items()
        if name.startswith("measure") and getattr(function, "__module__", None) == module.__name__
    }


def benchmark(
    suite: str,
    seeds: list[int],
    overrides: list[str],
    out: str,
    stage: str | None = None,
    minutes: float | None = None,
) -> str:
    """Runs a suite, or one stage of it, into the folder `out`; returns its table.

    Writes `results.json` (figures, commands, machine, versions), after every case if cases take long, and `table.md` at
    the end.

    Raises:
        InputError: An unknown suite, no seeds, overrides, a stage or minutes for a suite that takes none, or a case
            that failed.
    """
    known = suites()
    measure = known[check_choice(suite, list(known), "suite")]
    if not seeds or not all(type(seed) is int for seed in seeds):
        raise InputError(f"seeds must be a list of integers, such as seeds=[0,1,2], not {seeds}.")
    takes_overrides = "overrides" in signature(measure).parameters
    if overrides and not takes_overrides:
        raise InputError(f"suite={suite} takes no overrides. Leave out {overrides}.")
    more: dict[str, Any] = {"overrides": [str(override) for override in overrides]} if takes_overrides else {}
    for name, value in (("stage", stage), ("minutes", minutes)):
        if value is not None:
            if name not in signature(measure).parameters:
                raise InputError(f"suite={suite} takes no {name}. Leave out {name}={value}.")
            more[name] = value
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    table = measure(seeds=seeds, out=folder, **more)
    write_whole(folder / "table.md", table.encode())
    return table
