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

__all__ = ["measure"]

CASES = ("gaussians8", "gaussians25", "swissroll", "moons", "checkerboard", "digits")


def measure(seeds: list[int], overrides: list[str], out: Path) -> str:
    """Every experiment on small data: exact W1(generated, test) over its floor, certificate, interval, seconds."""
    rows: list[dict[str, Any]] = []
    for case in CASES:
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
            write_json(out / "results.json", {"suite": "wgan", "machine": machine(), "rows": rows})
    return _table(rows)


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
