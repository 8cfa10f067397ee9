"""The measurements behind the README's tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wgan_lip.benchmarks import (
    coverage,
    density,
    funnels,
    layers,
    oracles,
    rivals,
    step_cost,
    tensorboard,
    tightness,
    w1,
    wgan,
)
from wgan_lip.utils.checks import InputError, check_choice
from wgan_lip.utils.files import write_whole

__all__ = ["SUITES", "benchmark"]

SUITES: dict[str, Callable[[list[int], list[str], Path], str]] = {
    "wgan": wgan.measure,
    "layers": layers.measure,
    "tightness": tightness.measure,
    "density": density.measure,
    "coverage": coverage.measure,
    "w1": w1.measure,
    "w1_large": w1.measure_large,
    "funnels": funnels.measure,
    "oracles": oracles.measure,
    "rivals": rivals.measure,
    "step_cost": step_cost.measure,
    "tensorboard": tensorboard.measure,
}
TRAINING = ("wgan", "funnels", "oracles", "rivals", "tensorboard")  # suites that take overrides


def benchmark(suite: str, seeds: list[int], overrides: list[str], out: str) -> str:
    """Runs a suite into the folder `out`; returns its table.

    Writes `results.json` (figures, commands, machine, versions), after every case where a case takes long, and
    `table.md` at the end.

    Raises:
        InputError: An unknown suite, no seeds, overrides where no run is trained, or a case that failed.
    """
    check_choice(suite, list(SUITES), "suite")
    if not seeds or not all(type(seed) is int for seed in seeds):
        raise InputError(f"Expected seeds as a list of integers, such as seeds=[0,1,2]. Got {seeds}.")
    if overrides and suite not in TRAINING:
        raise InputError(f"Expected no overrides with suite={suite}, which trains no run. Got {overrides}.")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    table = SUITES[suite](seeds, [str(override) for override in overrides], folder)
    write_whole(folder / "table.md", table.encode())
    return table
