"""Suite wgan: every experiment on small data, scored over its floor."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from wgan_lip.checks import InputError
from wgan_lip.cli.benchmark.machine import machine
from wgan_lip.runs import Run, write_json
from wgan_lip.tracking import rounded, rounded_down, rounded_up

__all__ = ["measure", "train_case"]

CASES = ("gaussians8", "gaussians25", "swissroll", "moons", "checkerboard", "digits")


def measure(seeds: list[int], overrides: list[str], out: Path) -> str:
    """Every experiment on small data: exact W1(generated, test) over its floor, certificate, interval, seconds."""
    rows: list[dict[str, Any]] = []
    for case in CASES:
        for seed in seeds:
            row = train_case(out / f"{case}-{seed}", [f"experiment={case}", f"seed={seed}", *overrides])
            rows.append({"case": case, "seed": seed, **row})
            write_json(out / "results.json", {"suite": "wgan", "machine": machine(), "rows": rows})
    return _table(rows)


def train_case(directory: Path, arguments: list[str], *, may_stop: bool = False) -> dict[str, Any]:
    """The command and the summary of a run, which is trained unless it lies finished in `directory`.

    Arguments:
        directory: The run's folder. What was interrupted there starts again.
        arguments: Of `wgan-lip train`.
        may_stop: Whether a run may fail; its row then says why in `stopped`, and has no scores.

    Raises:
        InputError: A finished run of other arguments in `directory`, or a run that failed.
    """
    row = {"command": f"wgan-lip {shlex.join(['train', *arguments])}"}
    if not _finished(directory, arguments):
        if (directory / "status.json").exists():
            shutil.rmtree(directory)
        process = [sys.executable, "-m", "wgan_lip", "train", *arguments, f"hydra.run.dir={directory}"]
        status = subprocess.run(process, check=False).returncode
        if status and not (may_stop and status == 1 and (directory / "status.json").exists()):
            raise InputError(f"Expected {row['command']} to finish. It ended with status {status}.")
        if status:
            return {**row, "stopped": Run(directory).status["reason"]}
    return {**row, **Run(directory).summary}


def _finished(directory: Path, overrides: list[str]) -> bool:
    if not (directory / "config.yaml").exists() or Run(directory).status["state"] != "finished":
        return False
    if Run(directory).overrides != overrides:
        raise InputError(
            f"Expected {directory} to hold {shlex.join(overrides)}. Got {shlex.join(Run(directory).overrides)}. "
            "Choose another out=DIR."
        )
    return True


def _table(rows: list[dict[str, Any]]) -> str:
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
