"""What a person reads at the end of a command, as plain text."""

from __future__ import annotations

import math
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wgan_lip.inspection.findings import Finding
from wgan_lip.inspection.look import Inspection
from wgan_lip.lipschitz.certificates import Certificate
from wgan_lip.runs.folder import CERTIFICATE, RESULT
from wgan_lip.runs.run import CHECKPOINT, Run
from wgan_lip.utils.numbers import clock_time, plus_minus, rounded, rounded_down, rounded_up
from wgan_lip.utils.printing import FIGURE, NAME
from wgan_lip.utils.terminal import shown
from wgan_lip.wasserstein.estimate import W1Estimate

__all__ = ["certificate", "estimated", "exported", "finished", "inspection", "place"]


MARKS = {
    "certified": ("Certified critic", ""),
    "certified, conservative": ("Critic", "certified, conservative; "),
    "not certified": ("Critic", "not certified by its training; "),
}
"""A critic's guarantee → how its row begins, and its comment."""


SCORES = {
    "samples": {
        "Sliced W1, W2": ("sliced_w1", "sliced_w2"),
        "MMD": ("mmd",),
        "Precision, recall": ("precision", "recall"),
        "Density, coverage": ("density", "coverage"),
        "Fréchet of wavelets": ("wavelet_frechet",),
    },
    "features": {
        "KID of features": ("kid",),
        "  excess of W1": ("excess",),
        "  sliced W2 (MIND)": ("sliced_w2",),
        "  Fréchet": ("frechet",),
        "  precision, recall": ("precision", "recall"),
        "  density, coverage": ("density", "coverage"),
        "  read as labelled": ("as_labelled",),
    },
    "inception": {"FID, KID": ("fid", "kid")},
}
"""What the scores are taken on → title of a row → the scores in it."""


def finished(run: Run) -> str:
    """The last screen of a training run."""
    return "\n".join([_headline(run), "", *_results(run.summary), "", *_places(run)])


def inspection(looked: Inspection) -> str:
    """One screen about a run in any state."""
    run, certificate = looked.run, looked.certificate
    lines = [_headline(run), "", *_trained(run)]
    if run.summary is not None:
        lines += _results(run.summary)
    elif run.metrics:
        lines += _last_audit(run.metrics)
    else:
        lines.append(_row("Last record", "none", "nothing was recorded yet"))
    if math.isfinite(looked.standing.tightness):
        share = f"{100 * looked.standing.tightness:.1f} %"
        lines.append(_row("Tightness", share, "largest gradient found, over the proved constant"))
    if math.isfinite(looked.standing.gradient):
        lines.append(_row("Gradient on rays", f"{looked.standing.gradient:.3f}", "mean norm; a potential has 1"))
    if certificate is not None:
        weights = f"{len(certificate.layers)} layers, weights {certificate.weights_sha256[:12]}"
        lines += ["", _row("Re-proved now", f"Lip(f) ≤ {rounded_up(certificate.lipschitz, 7)}", weights)]
    else:
        lines += ["", f"  No certificate: {looked.problem}"]
    return "\n".join([*(line.rstrip() for line in lines), *_found(looked.findings), "", *_places(run)])


def certificate(proved: Certificate, path: Path, note: str) -> str:
    """A certificate as a table, one line a layer; each layer takes the norm of the line above it."""
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


def exported(run: Run, proved: Certificate, out: Path) -> str:
    """What was exported, and how to open it."""
    files = {
        "Weights": "critic.safetensors, generator.safetensors",
        "Architecture": "export.json",
        "Certificate": CERTIFICATE,
        "Programs": "critic.pt2, generator.pt2" if (out / "critic.pt2").exists() else "none, by programs=false",
    }
    return "\n".join([
        f"{shown(out)}: the critic and the averaged generator of {shown(run.directory)} at step {run.step}",
        "",
        *proved.bound_row("Critic").lines(),
        *(f"  {name:<21} {file}" for name, file in files.items()),
        f"  {'Open it by':<21} wgan_lip.load_exported({str(out)!r}), which proves the certificate again",
    ])  # fmt: skip


def estimated(result: W1Estimate, directory: Path, names: tuple[str, str], known: tuple[float, float] | None) -> str:
    """The last screen of an estimate."""
    lines = [
        f"{shown(directory)}: {names[0]} against {names[1]}, {clock_time(result.seconds)}",
        "",
        _row("Samples", f"{result.n} and {result.m}", f"in dimension {result.dim}"),
        *(line for row in result.summary_rows() for line in row.lines()),
    ]
    if known is not None:
        error, how = (f" ± {rounded(known[1], 2)}", "± standard error") if known[1] > 0 else ("", "in closed form")
        lines.append(_row("W1 as it is known", f"{rounded(known[0], 5)}{error}", f"of these two laws, {how}"))
    files = {
        "Result": RESULT,
        "Interval over time": "interval.png",
        "Potential": "potential.png",
        "Critic": "critic.png",
        "Samples": "samples.png",
        "Certificate": CERTIFICATE,
    }
    return "\n".join([*(line.rstrip() for line in lines), "", *_paths(directory, files)])


def _headline(run: Run) -> str:
    data, critic = (str(run.config.get(name, {}).get("_target_", "?")).split(".")[-1] for name in ("data", "critic"))
    status = run.status
    head = f"{shown(run.directory)}: {data}, {critic}, {status['state']} at step {status.get('step', 0)}"
    if run.summary is not None:
        head += f" after {clock_time(run.summary['training_seconds'])} of training"
    return _one_line(head) + (f"\n  {_one_line(status['reason'])}" if status.get("reason") else "")


def _results(summary: dict[str, Any]) -> list[str]:
    interval, score, modes = summary["interval"], summary["score"], summary["modes"]
    found, n, dim = summary["largest_gradient_found"], interval["n"], interval["dim"]
    name, mark = MARKS.get(summary["guarantee"], ("Critic", f"{summary['guarantee']}; "))
    critic, copies = summary.get("critic"), summary.get("memorisation")
    lines = [
        _row(name, f"Lip(f) ≤ {rounded_up(summary['lipschitz'], 7)}", f"{mark}largest gradient found: {found:.4f}"),
        _row("W1(generated, test)", _interval(**interval), f"{n} + {n} samples in dimension {dim}"),
        *_lower_end(interval["lower"], interval["lower_as_trained"]),
        _row("  upper end", rounded_up(interval["upper"]), "the cost of an optimal plan"),
        *_headline_score(score),
        _row("Floor W1(real, test)", rounded(score["floor"], 4), "what sampling alone explains"),
        _row(
            "  W1 over floor",
            f"{rounded(score['ratio'], 4)} ± {rounded(score['spread'], 2)}" if score["floor"] > 0 else "none: floor 0",
            "an older score, which rewards blur",
        ),
    ]
    if critic:
        text = f"{rounded(critic['trained'], 3)}; {plus_minus(critic['refitted'], critic['refitted_error'])}"
        lines.append(_row("Critic, held out", text, "as trained; refitted to fresh samples"))
    lines += _scores(summary.get("scores") or {})
    if copies:
        text = plus_minus(copies["value"], copies["error"])
        lines.append(_row("Copies", text, "of training samples, as a share; 0 in the mean for none"))
    if modes:
        covered = f"{modes['covered']} of {modes['total']} covered"
        lines.append(_row("Modes", covered, f"{100 * modes['within']:.1f} % of samples within 3 sigma of one"))
    return lines


def _lower_end(lower: float, as_trained: float) -> list[str]:
    trained = _row("  lower end", rounded_down(as_trained), "the critic as trained, over its constant")
    if lower == as_trained:  # no copy was fitted to the samples, or none was better
        return [trained]
    fitted = _row("  lower end", rounded_down(lower), "a critic fitted to these samples, over its constant")
    return [fitted, _row("", rounded_down(as_trained), "the critic as trained")]


def _headline_score(score: dict[str, Any]) -> list[str]:
    """The excess over the floor; nothing in runs of a version that had none."""
    if "excess" not in score:
        return []
    real = plus_minus(score["real"], score["real_error"])
    about = f"real samples: {real}; {score['draws']} draws of {score['n']}"
    lines = [_row("Excess over the floor", plus_minus(score["excess"], score["error"]), about)]
    if "blurred" in score:
        lines.append(_row("  of blurred images", rounded(score["blurred"], 3), "real ones, by one pixel"))
    return lines


def _scores(scores: dict[str, Any]) -> list[str]:
    """Each score beside what real samples reach in the generator's place."""
    lines = []
    for space, rows in SCORES.items():
        if space not in scores:
            continue
        values, floors = scores[space]["values"], scores[space]["floors"]
        for title, names in rows.items():
            if not set(names) <= values.keys():
                continue
            got, real = (", ".join(rounded(of[name], 3) for name in names) for of in (values, floors))
            lines.append(_row(title, got, f"real samples: {real}"))
    if "features" in scores:
        lines.append(_row("  features", "", f"of {scores['features']['extractor'].partition(', weights')[0]}"))
    if scores and "inception" not in scores:
        lines.append(_row("FID", "none", "without evaluation.inception_weights=FILE"))
    return lines


def _last_audit(records: list[dict[str, Any]]) -> list[str]:
    shown = {"w1/lower", "w1/exact", "w1/upper"}
    audits = [record for record in records if shown <= record.keys()]
    if not audits:
        return [_row("Last record", f"step {records[-1]['step']}", "no audit yet")]
    last = audits[-1]
    ends = {name: last[f"w1/{name}"] for name in ("lower", "exact", "upper")}
    score = f"step {last['step']}"
    if "eval/excess" in last:
        score += (
            f"; excess over the floor {rounded(last['eval/excess'], 3)}, real {plus_minus(last['eval/excess_real'])}"
        )
    return [_row("Last audit", _interval(**ends), score)]


def _interval(*, lower: float, exact: float | None, upper: float, **_: object) -> str:
    value = "" if exact is None or math.isnan(exact) else f" = {rounded(exact, 4)}"
    return f"{rounded_down(lower)} ≤ W1{value} ≤ {rounded_up(upper)}"


def _row(name: str, figure: str, comment: str) -> str:
    return f"  {name:<{NAME}} {_one_line(figure):<{FIGURE}}  {_one_line(comment)}"


def _one_line(text: str) -> str:
    """Text out of a folder, which must not look like the lines of a screen."""
    return " ".join(text.split())


def _trained(run: Run) -> list[str]:
    """What was trained, in one row; what a damaged or older configuration does not say is left out."""
    config = {"training": {}, **run.config}
    names = [str(config.get(name, {}).get("_target_", "?")).split(".")[-1] for name in ("generator", "critic", "data")]
    steps, batch = (config["training"].get(key, "?") for key in ("steps", "batch_size"))
    plan = f"on {names[2]}; {steps} steps of {batch} samples planned; seed {config.get('seed', '?')}"
    return [_row("Trained", f"{names[0]}, {names[1]}", plan)]


def _found(findings: Sequence[Finding]) -> list[str]:
    """Findings, each with its remedy, in lines that fit a screen."""
    lines = [""] if findings else []
    for finding in findings:
        text = f"{'Warning' if finding.serious else 'Note'}: {finding.name}: {finding.text}. {finding.remedy}"
        lines += textwrap.wrap(text, 116, initial_indent="  ", subsequent_indent="    ")
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
    """Those of the files that are there, with TensorBoard's, and how to look at them."""
    lines = [f"  {name:<21} {shown(directory / file)}" for name, file in files.items() if (directory / file).exists()]
    for events in sorted(directory.glob("events.out.tfevents.*"))[:1]:
        lines.append(f"  {'TensorBoard events':<21} {shown(events)}")
    beside_python = Path(sys.executable).parent / "tensorboard"  # where the environment is not activated
    board = shown(beside_python) if beside_python.exists() and not shutil.which("tensorboard") else "tensorboard"
    return [*lines, f"  {'Look at it':<21} {shlex.join([board, '--logdir', shown(directory)])}"]


def place(name: str, path: Path) -> str:
    """One line that says where something was written."""
    return f"  {name:<21} {shown(path)}"
