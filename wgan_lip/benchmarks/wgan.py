"""Suite wgan: every experiment on small data, and what its generator shows beyond sampling."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wgan_lip.benchmarks.machine import write_results
from wgan_lip.runs.run import Run
from wgan_lip.training import DivergedError, NonFiniteError, RefutedError
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.numbers import plus_minus, rounded, rounded_down, rounded_up
from wgan_lip.utils.tables import markdown_table

__all__ = ["measure", "recall_of", "train_case"]

CASES = ("gaussians8", "gaussians25", "swissroll", "moons", "checkerboard", "digits")


def measure(seeds: list[int], overrides: list[str], out: Path) -> str:
    """Every experiment on small data: excess over the floor, recall, certificate, interval, seconds."""
    rows: list[dict[str, Any]] = []
    for case in CASES:
        for seed in seeds:
            row = train_case(out / f"{case}-{seed}", [f"experiment={case}", f"seed={seed}", *overrides])
            rows.append({"case": case, "seed": seed, **row})
            write_results("wgan", seeds, out, overrides, rows=rows)
    return _table(rows)


def train_case(directory: Path, arguments: list[str], *, may_stop: bool = False) -> dict[str, Any]:
    """The command and the summary of a run, which is trained unless it lies finished in `directory`.

    Arguments:
        directory: The run's folder. What was interrupted there goes on.
        arguments: Of `wgan-lip train`.
        may_stop: Whether a game may stop itself; its row then says why in `stopped`, and has no scores.

    Raises:
        InputError: A run of other arguments in `directory`, or a run that failed.
    """
    row = {"command": f"wgan-lip {shlex.join(['train', *arguments])}"}
    past = _past(directory, arguments)
    if past is None or past.status["state"] != "finished":
        if may_stop and past is not None and _stopped_itself(past):
            return {**row, "stopped": past.status["reason"]}
        process = [sys.executable, "-m", "wgan_lip", "train", *arguments, f"hydra.run.dir={directory}"]
        status = subprocess.run(process if past is None else [*process, "resume=auto"], check=False).returncode
        if status and not (may_stop and _past(directory, arguments) and _stopped_itself(Run(directory))):
            raise InputError(f"Expected {row['command']} to finish. It ended with status {status}.")
        if status:
            return {**row, "stopped": Run(directory).status["reason"]}
    summary = Run(directory).summary
    assert summary is not None  # a finished run has one
    return {**row, **summary}


def _past(directory: Path, arguments: list[str]) -> Run | None:
    """The run that lies in a folder, or None; other arguments than its own are refused."""
    if not (directory / "config.yaml").exists():
        return None
    run = Run(directory)
    if run.overrides != arguments:
        raise InputError(
            f"Expected {directory} to hold {shlex.join(arguments)}. Got {shlex.join(run.overrides)}. "
            "Choose another out=DIR."
        )
    return run


def _stopped_itself(run: Run) -> bool:
    """Whether its game diverged or was refuted, which it would again."""
    return run.status.get("kind") in {error.__name__ for error in (DivergedError, NonFiniteError, RefutedError)}


def recall_of(row: Mapping[str, Any]) -> str:
    """Recall of the generated samples, and of real ones in their place."""
    near = row["scores"]["samples"]
    return f"{near['values']['recall']:.3f} ({near['floors']['recall']:.3f})"


def _kept_up(row: Mapping[str, Any]) -> str:
    """The critic's value on held-out samples, and that of a refitted copy."""
    critic = row.get("critic")
    return "" if critic is None else f"{rounded(critic['trained'], 3)} / {rounded(critic['refitted'], 3)}"


def _table(rows: list[dict[str, Any]]) -> str:
    heads = ["data", "seed", "excess over floor", "of real samples", "recall (real)", "critic, held out / refitted"]
    heads += [
        "W1 over floor",
        "interval, lower ≤ W1 ≤ upper",
        "modes",
        "within 3σ",
        "Lip ≤",
        "gradient found",
        "seconds",
    ]
    cells = []
    for row in rows:
        interval, score, modes = row["interval"], row["score"], row["modes"]
        coverage = (f"{modes['covered']}/{modes['total']}", f"{100 * modes['within']:.1f} %") if modes else ("", "")
        ends = rounded_down(interval["lower"]), rounded(interval["exact"], 4), rounded_up(interval["upper"])
        cells.append([
            row["case"], row["seed"], plus_minus(score["excess"], score["error"]),
            plus_minus(score["real"], score["real_error"]), recall_of(row), _kept_up(row),
            f"{score['ratio']:.2f} ± {score['spread']:.2f}", " ≤ ".join(ends), *coverage,
            rounded_up(row["lipschitz"], 7), f"{row['largest_gradient_found']:.4f}", f"{row['training_seconds']:.0f}",
        ])  # fmt: skip
    return markdown_table(heads, cells) + "\n"
