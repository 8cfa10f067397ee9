"""The measurements behind the README's tables."""

from __future__ import annotations

import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from wgan_lip.checks import InputError, check_choice
from wgan_lip.cli.screens import rounded_down, rounded_up
from wgan_lip.files import write_whole
from wgan_lip.runs import Run, versions, write_json
from wgan_lip.tracking import rounded

__all__ = ["SUITES", "benchmark"]

WGAN_CASES = ("gaussians8", "gaussians25", "swissroll", "moons", "checkerboard", "digits")


def benchmark(suite: str, seeds: list[int], overrides: list[str], out: str) -> str:
    """Runs a suite into the folder `out`, skipping the cases that are finished there; returns its table.

    Writes `results.json` (figures, commands, machine, versions) after every case, and `table.md` at the end.

    Raises:
        InputError: An unknown suite, no seeds, or a case that failed.
    """
    check_choice(suite, list(SUITES), "suite")
    if not seeds or not all(type(seed) is int for seed in seeds):
        raise InputError(f"Expected seeds as a list of integers, such as seeds=[0,1,2]. Got {seeds}.")
    return SUITES[suite](seeds, [str(override) for override in overrides], Path(out))


def _wgan(seeds: list[int], overrides: list[str], out: Path) -> str:
    """Every experiment on small data: exact W1(generated, test) over its floor, certificate, interval, seconds."""
    rows: list[dict[str, Any]] = []
    for case in WGAN_CASES:
        for seed in seeds:
            directory = out / f"{case}-{seed}"
            command = ["train", f"experiment={case}", f"seed={seed}", *overrides]
            if not _finished(directory, command[1:]):
                if (directory / "status.json").exists():
                    shutil.rmtree(directory)  # a case that was interrupted starts again
                process = [sys.executable, "-m", "wgan_lip", *command, f"hydra.run.dir={directory}"]
                status = subprocess.run(process, check=False).returncode
                if status:
                    raise InputError(f"Expected {shlex.join(command)} to finish. It ended with status {status}.")
            summary = Run(directory).summary
            rows.append({"case": case, "seed": seed, "command": f"wgan-lip {shlex.join(command)}", **summary})
            write_json(out / "results.json", {"suite": "wgan", "machine": _machine(), "rows": rows})
    table = _wgan_table(rows)
    write_whole(out / "table.md", table.encode())
    return table


def _finished(directory: Path, overrides: list[str]) -> bool:
    if not (directory / "config.yaml").exists() or Run(directory).status["state"] != "finished":
        return False
    if Run(directory).overrides != overrides:
        raise InputError(
            f"Expected {directory} to hold {shlex.join(overrides)}. Got {shlex.join(Run(directory).overrides)}. "
            "Choose another out=DIR."
        )
    return True


def _wgan_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| data | seed | W1 over floor | interval, lower ≤ W1 ≤ upper | modes | within 3σ | Lip ≤ | gradient found "
        "| seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        interval, score, modes = row["interval"], row["score"], row["modes"]
        coverage = (f"{modes['covered']}/{modes['total']}", f"{100 * modes['within']:.1f} %") if modes else ("", "")
        lines.append(
            f"| {row['case']} | {row['seed']} | {score['ratio']:.2f} ± {score['spread']:.2f} "
            f"| {rounded_down(interval['lower'])} ≤ {rounded(interval['exact'], 4)} ≤ {rounded_up(interval['upper'])} "
            f"| {coverage[0]} | {coverage[1]} | {rounded_up(row['lipschitz'], 7)} "
            f"| {row['largest_gradient_found']:.4f} | {row['training_seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _machine() -> dict[str, str]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {**versions(), "processor": _processor(), "memory": _memory(), "gpu": gpu}


def _memory() -> str:
    try:
        import psutil  # the extra `benchmark`
    except ImportError:
        return "unknown: install wgan-lip[benchmark]"
    return f"{psutil.virtual_memory().total / 2**30:.0f} GiB"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


SUITES = {"wgan": _wgan}
