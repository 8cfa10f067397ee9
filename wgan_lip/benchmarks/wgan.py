"""Suite wgan: every experiment on small data, and what its generator shows beyond sampling."""

from __future__ import annotations

import math
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from wgan_lip.benchmarks.cases import percent
from wgan_lip.benchmarks.machine import write_page, write_results
from wgan_lip.runs.run import Run
from wgan_lip.training import DivergedError, NonFiniteError, RefutedError
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.numbers import plus_minus, rounded, rounded_up
from wgan_lip.utils.tables import markdown_table

__all__ = ["EXCESS_HEADS", "excess_of", "measure", "recall_of", "train_case"]

CASES = ("gaussians8", "gaussians25", "swissroll", "moons", "checkerboard", "digits")


def measure(seeds: list[int], overrides: list[str], out: Path) -> str:
    """Every experiment on small data: excess over the floor, recall, certificate, interval, seconds."""
    rows: list[dict[str, Any]] = []
    for case in CASES:
        for seed in seeds:
            row = train_case(out / f"{case}-{seed}", [f"experiment={case}", f"seed={seed}", *overrides])
            rows.append({"case": case, "seed": seed, **row})
            write_results("wgan", seeds, out, overrides, rows=rows)
    table = _table(rows)
    write_page(out, title="WGANs with certified critics on small data", how="", parts=[table, READING])
    return table


READING = """\
The excess over the floor is W1(g, t) − ½ [W1(g, g′) + W1(t, r)], beside it that of real samples in the generator's
place; `±` is the spread over seeds; of modes the fewest count, of constants the largest. Recall in brackets is that of
real samples: where it is lower, the samples are thinner than the data, which the excess hardly sees."""


def train_case(directory: Path, arguments: list[str], *, may_stop: bool = False) -> dict[str, Any]:
    """The command and the summary of a run, which is trained unless `directory` holds it finished.

    Arguments:
        directory: The run's folder. An interrupted run in it is resumed.
        arguments: Arguments of `wgan-lip train`.
        may_stop: Whether training may stop itself; its row then gives the reason in `stopped`, and has no scores.

    Raises:
        InputError: A run with other arguments in `directory`, or a run that failed.
    """
    row = {"command": f"wgan-lip {shlex.join(['train', *arguments])}"}
    past = _past(directory, arguments)
    if past is None or past.status["state"] != "finished":
        if may_stop and past is not None and _stopped_itself(past):
            return {**row, "stopped": past.status["reason"]}
        process = [sys.executable, "-m", "wgan_lip", "train", *arguments, f"hydra.run.dir={directory}"]
        status = subprocess.run(process if past is None else [*process, "resume=auto"], check=False).returncode
        if status and not (may_stop and _past(directory, arguments) and _stopped_itself(Run(directory))):
            raise InputError(f"{row['command']} ended with status {status}.")
        if status:
            return {**row, "stopped": Run(directory).status["reason"]}
    summary = Run(directory).summary
    assert summary is not None  # a finished run has one
    return {**row, **summary}


def _past(directory: Path, arguments: list[str]) -> Run | None:
    """The run in a folder, or None; raises :class:`InputError` if it has other arguments."""
    if not (directory / "config.yaml").exists():
        return None
    run = Run(directory)
    if run.overrides != arguments:
        raise InputError(
            f"{directory} holds a run with {shlex.join(run.overrides)}, not {shlex.join(arguments)}. Choose another "
            "out=DIR."
        )
    return run


def _stopped_itself(run: Run) -> bool:
    """Whether training diverged or refuted a proof, which it would again."""
    return run.status.get("kind") in {error.__name__ for error in (DivergedError, NonFiniteError, RefutedError)}


def recall_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean recall of the generated samples, and of real ones in their place."""
    near = [row["scores"]["samples"] for row in rows]
    return " ".join(
        form.format(fmean(scores[side]["recall"] for scores in near))
        for form, side in (("{:.3f}", "values"), ("({:.3f})", "floors"))
    )


def excess_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Cells: the mean excess and its spread over seeds, the least, the greatest, and the mean of real samples."""
    excesses, reals = ([row["score"][name] for row in rows] for name in ("excess", "real"))
    spread = stdev(excesses) if len(excesses) > 1 else math.nan
    ends = [rounded(edge(excesses), 3) for edge in (min, max)]
    return [plus_minus(fmean(excesses), spread), *ends, rounded(fmean(reals), 3)]


EXCESS_HEADS = ("excess over floor, mean ± spread over seeds", "least", "greatest", "of real samples", "recall (real)")


def _kept_up(rows: Sequence[Mapping[str, Any]]) -> str:
    """The critic's mean value on held-out samples, and that of a refitted copy."""
    critics = [row["critic"] for row in rows if row.get("critic") is not None]
    if not critics:
        return ""
    return " / ".join(rounded(fmean(critic[name] for critic in critics), 3) for name in ("trained", "refitted"))


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a data set: means over seeds; of modes the fewest, of constants and of slopes the largest."""
    heads = ["data", "seeds", *EXCESS_HEADS, "critic, held out / refitted", "W1 over floor", "modes", "within 3σ"]
    heads += ["Lip ≤", "gradient found", "seconds"]
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        of = [row for row in rows if row["case"] == case]
        modes = [row["modes"] for row in of if row["modes"]]
        covered = f"{min(each['covered'] for each in modes)}/{modes[0]['total']}" if modes else ""
        lines.append([
            case, len(of), *excess_of(of), recall_of(of), _kept_up(of),
            f"{fmean(row['score']['ratio'] for row in of):.2f}", covered,
            percent(fmean(each["within"] for each in modes) if modes else None),
            rounded_up(max(row["lipschitz"] for row in of), 7),
            f"{max(row['largest_gradient_found'] for row in of):.4f}",
            f"{median(row['training_seconds'] for row in of):.0f}",
        ])  # fmt: skip
    return markdown_table(heads, lines) + "\n"
