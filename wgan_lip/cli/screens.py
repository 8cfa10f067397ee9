"""The plain text that a command prints at its end."""

from __future__ import annotations

import math
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from wgan_lip.inspection.findings import Finding
from wgan_lip.inspection.look import Inspection
from wgan_lip.lipschitz.certificates import Certificate
from wgan_lip.lipschitz.witness import CHECKER
from wgan_lip.runs.folder import CERTIFICATE, RESULT
from wgan_lip.runs.results import last_audit_row, result_rows
from wgan_lip.runs.run import CHECKPOINT, Run
from wgan_lip.runs.targets import class_named
from wgan_lip.utils.numbers import clock_time, rounded, rounded_up
from wgan_lip.utils.printing import NAME, Row, wrapped
from wgan_lip.utils.terminal import columns, shown
from wgan_lip.wasserstein.groups import PairwiseW1
from wgan_lip.wasserstein.result import W1Estimate
from wgan_lip.wasserstein.two_sample import TwoSampleTest

__all__ = ["certificate", "estimated", "exported", "finished", "inspection", "place", "tested", "witnessed"]


def finished(run: Run) -> str:
    """The last screen of a training run."""
    return "\n".join([_headline(run), "", *_lines(result_rows(run.summary or {})), "", *_places(run)])


def inspection(looked: Inspection) -> str:
    """One screen about a run in any state."""
    run, certificate = looked.run, looked.certificate
    lines = [_headline(run), "", *_trained(run)]
    if run.summary is not None:
        lines += _lines(result_rows(run.summary))
    else:
        lines += _lines([last_audit_row(run.metrics)])
    if math.isfinite(looked.standing.tightness):
        share = f"{100 * looked.standing.tightness:.1f} %"
        lines.append(_row("Tightness", share, "largest gradient found, over the proved constant"))
    if math.isfinite(looked.standing.gradient):
        lines.append(_row("Gradient on rays", f"{looked.standing.gradient:.3f}", "mean norm; 1 for a KR potential"))
    if certificate is not None:
        weights = f"{len(certificate.layers)} layers, weights {certificate.weights_sha256[:12]}"
        lines += ["", _row("Re-proved now", f"Lip(f) ≤ {rounded_up(certificate.lipschitz, 7)}", weights)]
    else:
        lines += ["", f"  No certificate: {looked.problem}"]
    return "\n".join([*(line.rstrip() for line in lines), *_found(looked.findings), "", *_places(run)])


def certificate(proved: Certificate, path: Path, note: str) -> str:
    """A certificate as a table, one line per layer; each layer's input norm is the one in the line above."""
    rows = [("layer", "norm out", "Lip ≤", "method"), ("(samples)", proved.norm_in, "", "")]
    rows += [(x.path, x.norm_out, rounded_up(x.lipschitz, 9), x.method) for x in proved.layers]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]) for row in rows]
    return "\n".join([
        *(line.rstrip() for line in table),
        "",
        f"Lip(f) ≤ {proved.lipschitz!r} from {proved.norm_in} to {proved.norm_out}",
        f"one unit is {proved.units}",
        f"weights {proved.weights_sha256}",
        f"{path} ({note})",
    ])  # fmt: skip


def witnessed(path: str, claim: str) -> str:
    """Where a witness is, what it proves, and how others can check it."""
    return f"\n{path} proves {claim}\ncheck it with Python alone: python {CHECKER} {path}"


def exported(run: Run, proved: Certificate, out: Path) -> str:
    """What was exported, and how to open it."""
    files = {
        "Weights": "critic.safetensors, generator.safetensors",
        "Architecture": "export.json",
        "Certificate": CERTIFICATE,
        "Programs": "critic.pt2, generator.pt2" if (out / "critic.pt2").exists() else "none (programs=false)",
    }
    return "\n".join([
        f"{shown(out)}: the critic and the averaged generator of {shown(run.directory)} at step {run.step}",
        "",
        *proved.bound_row("Critic").lines(),
        *(f"  {name:<21} {file}" for name, file in files.items()),
        f"  {'Open it with':<21} wgan_lip.load_exported({str(out)!r}), which proves the certificate again",
    ])  # fmt: skip


def estimated(result: W1Estimate, directory: Path, names: tuple[str, str], known: tuple[float, float] | None) -> str:
    """What an estimate found."""
    lines = [
        f"{shown(directory)}: {names[0]} against {names[1]}, {clock_time(result.seconds)}",
        "",
        _row("Samples", f"{result.n} and {result.m}", f"in dimension {result.dim}"),
        *_lines(result.summary_rows()),
    ]
    if known is not None:
        error, how = (f" ± {rounded(known[1], 2)}", "± standard error") if known[1] > 0 else ("", "in closed form")
        lines.append(_row("Known W1", f"{rounded(known[0], 5)}{error}", f"of these two laws, {how}"))
    return "\n".join(line.rstrip() for line in lines)


def grouped(result: PairwiseW1, directory: Path, name: str, notes: Sequence[str]) -> str:
    """What an estimate of all pairs found."""
    lines = [
        f"{shown(directory)}: {len(result.names)} groups of {name}, {clock_time(result.seconds)}",
        "",
        "W1 of the samples",
        "",
        result.table(),
    ]
    if all(math.isfinite(number) for number in result.excess.ravel()):
        what = "Excess over the floor that sampling explains; 0 on average for groups from one law"
        lines += ["", what, "", result.table("excess", 3)]
    lines += ["", *_lines([*result.summary_rows(), *(Row("Note", note) for note in notes)])]
    return "\n".join(line.rstrip() for line in lines)


def written(directory: Path) -> str:
    """The files that an estimate wrote, the last lines of its screen."""
    files = {
        "Result": RESULT,
        "Interval over time": "interval.png",
        "Potential": "potential.png",
        "Critic": "critic.png",
        "Samples": "samples.png",
        "Certificate": CERTIFICATE,
    }
    return "\n".join(["", *_paths(directory, files)])


def tested(result: TwoSampleTest, directory: Path, names: tuple[str, str]) -> str:
    """The last screen of a two-sample test."""
    lines = [
        f"{shown(directory)}: {names[0]} against {names[1]}, {clock_time(result.seconds)}",
        "",
        _row("Samples", f"{result.n} and {result.m}", f"in dimension {result.dim}"),
        *_lines(result.summary_rows()),
    ]
    return "\n".join([*(line.rstrip() for line in lines), "", place("Result", directory / RESULT)])


def _headline(run: Run) -> str:
    reason = run.status.get("reason")
    lines = wrapped(_one_line(run.headline()), columns(), "  ")
    return "\n".join([*lines, *([f"  {_one_line(reason)}"] if reason else [])])


def _row(name: str, figure: str, comment: str) -> str:
    return "\n".join(line.rstrip() for line in Row(name, figure, comment).lines(columns()))


def _lines(rows: Iterable[Row]) -> list[str]:
    return [line for row in rows for line in row.lines(columns())]


def _one_line(text: str) -> str:
    """Text from a folder, in one line, so that it can't pass for lines of the screen."""
    return " ".join(text.split())


def _trained(run: Run) -> list[str]:
    """What was trained, in one row, as far as a damaged or older configuration says."""
    config = {"training": {}, **run.config}
    names = [class_named(config.get(name)) for name in ("generator", "critic", "data")]
    steps, batch = (config["training"].get(key, "?") for key in ("steps", "batch_size"))
    plan = f"on {names[2]}; {steps} steps planned, batch size {batch}; seed {config.get('seed', '?')}"
    return [_row("Trained", f"{names[0]}, {names[1]}", plan)]


def _found(findings: Sequence[Finding]) -> list[str]:
    """The findings with their remedies, in lines that fit the screen."""
    lines = [""] if findings else []
    for finding in findings:
        text = f"{'Warning' if finding.serious else 'Note'}: {finding.name}: {finding.text}. {finding.remedy}"
        lines += [f"  {line}" for line in wrapped(text, min(columns(), 116) - 2, "  ")]
    return lines


def _places(run: Run) -> list[str]:
    files = {
        "Samples": "samples.png",
        "Interval over time": "interval.png",
        "Checkpoint": CHECKPOINT,
        "Certificate": CERTIFICATE,
        "Records": "metrics.jsonl",
    }
    return _paths(run.directory, files)


def _paths(directory: Path, files: dict[str, str]) -> list[str]:
    """The files that exist, with TensorBoard's, and how to look at them."""
    lines = [place(name, directory / file) for name, file in files.items() if (directory / file).exists()]
    for events in sorted(directory.glob("events.out.tfevents.*"))[:1]:
        lines.append(place("TensorBoard events", events))
    beside_python = Path(sys.executable).parent / "tensorboard"  # if the environment is not activated
    board = shown(beside_python) if beside_python.exists() and not shutil.which("tensorboard") else "tensorboard"
    return [*lines, _beside("Look at it", shlex.join([board, "--logdir", shown(directory)]))]


def place(name: str, path: Path) -> str:
    """Says where something was written."""
    return _beside(name, shown(path))


def _beside(name: str, text: str) -> str:
    """Text to copy, kept in one line: beside its name, or below it if the screen is narrow."""
    line = f"  {name:<{NAME}} {text}"
    return line if len(line) <= columns() else f"  {name}\n    {text}"
