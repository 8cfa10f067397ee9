"""The report of one run as a page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from html import escape
from typing import Any

import torch
from torch import Tensor

import wgan_lip
from wgan_lip import figures
from wgan_lip.data import Source
from wgan_lip.inspection.explore import explore
from wgan_lip.inspection.findings import RULES, Standing, audits
from wgan_lip.inspection.look import Inspection
from wgan_lip.inspection.pages.page import Cell, Section, details, figure, marked, page, paragraph, preformatted, table
from wgan_lip.runs.targets import class_named
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.numbers import clock_time, plus_minus, rounded, rounded_down, rounded_up
from wgan_lip.utils.tables import flat

__all__ = ["run_page"]

HOW_TO_READ = {
    "W1": "The least mean distance over which generated samples must be moved to become the test samples, in the "
    "units of the data. It is never negative.",
    "Interval": "lower ≤ W1 ≤ upper, with a proof of both ends: the lower end is a critic's dual value divided by its "
    "certified constant, the upper end is the cost of a transport plan. It is about these samples, not about the laws "
    "they come from.",
    "An interval that does not close": "In high dimensions, two sample sets from one law are far apart. A critic "
    "trained on the laws leaves about that distance, the floor, unexplained. A gap well beyond the floor means that "
    "the critic should be larger or trained longer.",
    "Floor": "W1 between real training samples and the test samples: what sampling alone explains.",
    "Excess over the floor": "The headline: W1 beyond what sampling explains, W1(g, t) − ½ [W1(g, g′) + W1(t, r)], "
    "with g and g′ generated, t and r real. It has a sign, and is zero on average if both have the same law: compare "
    "it with that of real samples, in standard errors. It does not detect copies of training samples.",
    "W1 over floor": "W1 of the generator over the floor, an older score. It rewards blur: blurred images fall below "
    "the 1 of real ones.",
    "Critic on held-out samples": "Its mean on real minus its mean on generated samples that it was not trained on, "
    "and the same for a copy refitted to fresh samples. The two should be close.",
    "Certificate": "An upper bound on the critic's Lipschitz constant, proved for the stored weights, layer by layer. "
    "No slope exceeds it anywhere; the largest gradient found shows how tight it is.",
    "Gradient norm on rays": "A KR potential falls at slope 1 along every line on which mass travels. A critic far "
    "below 1 is not close to one yet.",
    "Critic's estimate": "The critic's mean on real minus its mean on generated samples, positive, and below W1 for a "
    "certified critic. It falls as the generator learns.",
    "When to stop": "When the excess over the floor stops falling. The generator's loss says nothing: it contains an "
    "arbitrary offset.",
}

NARROW = 4.6  # inches of a figure whose letters are still readable on a phone
HIGHER_IS_BETTER = {"precision", "recall", "density", "coverage"}


def run_page(looked: Inspection) -> str:
    """A run in any state as a page in one file.

    Arguments:
        looked: The inspected run.

    Returns:
        HTML that needs no other file and makes no request.
    """
    sections = [
        Section("What deserves a second look", _findings(looked)),
        Section("The interval over time", _history(looked)),
        Section("Certificate", _certificate(looked)),
        Section("Curves", _curves(looked)),
        Section("Samples, and what the critic sees in them", _samples(looked)),
        Section("Configuration", _configuration(looked)),
        Section("Environment", _environment(looked)),
        Section("How to read this page", _terms(HOW_TO_READ)),
    ]
    return page(f"Run {looked.run.directory.resolve().name}", _lead(looked), sections)


def _lead(looked: Inspection) -> str:
    run, standing = looked.run, looked.standing
    state = f'<span class="badge {escape(standing.state)}">{escape(standing.state)}</span>'
    config = {"training": {}, **run.config}
    planned = config["training"].get("steps")
    progress = f"at step {standing.step}" + (f" of {planned}" if planned else "")
    if run.summary is not None:
        progress += f", after {clock_time(run.summary['training_seconds'])} of training"
    reason = f" {reason.rstrip('.')}." if (reason := run.status.get("reason")) else ""
    names = {name: class_named(config.get(name)) for name in ("generator", "critic", "data")}
    lead = f"<p>{state} {escape(progress)}.{marked(reason)}</p>"
    lead += _headline(standing)
    lead += paragraph(f"{names['generator']} against {names['critic']} on {names['data']}. {_in_words(standing)}")
    if math.isfinite(standing.exact):
        lead += f'<figure class="wide">{_number_line(standing)}</figure>{_terms(_figures(looked))}'
    return lead


def _headline(run: Standing) -> str:
    """The score in bold; empty if there is none."""
    if not math.isfinite(run.score):
        return ""
    score = plus_minus(run.score, run.score_error) if run.final else f"{_number(run.score)}, at the last audit"
    return (
        f"<p><strong>Excess over the floor: {escape(score)}</strong>: W1 between generated and test samples, beyond "
        f"what sampling explains. Real samples have {_number(run.real)}; lower is better.</p>"
    )


def _in_words(run: Standing) -> str:
    if not math.isfinite(run.upper):
        return "There was no audit yet, so there is no interval."
    known = math.isfinite(run.exact)
    exact = f"the exact value is {rounded(run.exact, 4)}" if known else "the samples are too far away for an exact one"
    return (
        f"{'' if run.final else 'At the last audit, '}W1 between generated and test samples is between "
        f"{rounded_down(run.lower)} and {rounded_up(run.upper)}; {exact}. For fresh real samples it is "
        f"{rounded(run.floor, 4)}, the floor."
    )


def _figures(looked: Inspection) -> dict[str, str]:
    """The figures of the final screen, by name."""
    run, summary = looked.standing, looked.run.summary
    told = {
        "Excess over the floor": f"{_number(run.score)}; of real samples {_number(run.real)}",
        "W1, certified": f"{rounded_down(run.lower)} ≤ W1 = {rounded(run.exact, 4)} ≤ {rounded_up(run.upper)}",
        "Floor": f"{rounded(run.floor, 4)}, W1(real, test); W1 over it {_number(run.ratio)}, a score that rewards blur",
    }
    if summary is not None:
        interval, score = summary["interval"], summary["score"]
        told["W1, certified"] += f", {interval['n']} + {interval['n']} samples in dimension {interval['dim']}"
        if math.isfinite(run.score):
            generated, real = plus_minus(run.score, run.score_error), plus_minus(run.real, run.real_error)
            draws = f"{score['draws']} draws of {score['n']}"
            told["Excess over the floor"] = f"{generated}; of real samples {real}; {draws}"
        if math.isfinite(run.blurred):
            told["Excess of blurred real images"] = f"{_number(run.blurred)}, by a Gaussian filter of one pixel"
        if run.lower_as_trained != run.lower:
            told["Lower end as trained"] = f"{rounded_down(run.lower_as_trained)}, by the trained critic, not refitted"
    if math.isfinite(run.lipschitz):
        told["Critic"] = f"Lip(f) ≤ {rounded_up(run.lipschitz, 7)}; {run.guarantee}"
    if math.isfinite(run.tightness):
        told["Tightness"] = f"{100 * run.tightness:.1f} %, largest gradient found over the proved constant"
    if math.isfinite(run.gradient):
        told["Gradient norm on rays"] = f"{run.gradient:.3f}; a KR potential has 1"
    if math.isfinite(run.refitted):
        told["Critic on held-out samples"] = (
            f"{_number(run.trained)} as trained, {plus_minus(run.refitted, run.refitted_error)} refitted to fresh ones"
        )
    if math.isfinite(run.copies):
        told["Copies of training samples"] = f"{plus_minus(run.copies, run.copies_error)}; 0 on average without copying"
    if run.covered is not None:
        told["Modes"] = f"{run.covered}{f' of {run.modes}' if run.modes else ''} covered"
    return told


def _number_line(run: Standing) -> str:
    """The interval, the exact value and the floor on one line from 0."""
    marks = [value for value in (run.lower, run.exact, run.upper, run.floor) if math.isfinite(value)]
    end = 1.08 * max(marks) or 1.0

    def place(value: float) -> float:
        return 8 + 384 * min(max(value / end, 0.0), 1.0)

    left, right, exact = place(run.lower), place(run.upper), place(run.exact)
    alt = (
        f"A line from 0: the certified interval from {rounded_down(run.lower)} to {rounded_up(run.upper)} with the "
        f"exact value {rounded(run.exact, 4)} in it, and the floor at {rounded(run.floor, 4)}."
    )
    drawing = (
        '<line x1="8" x2="392" y1="40" y2="40" stroke="currentColor" stroke-opacity=".45"/>'
        f'<rect x="{left:.1f}" y="31" width="{max(right - left, 2):.1f}" height="18" fill="var(--band)" '
        'fill-opacity=".45" stroke="var(--band)"/>'
        f'<line x1="{exact:.1f}" x2="{exact:.1f}" y1="25" y2="55" stroke="var(--mark)" stroke-width="3"/>'
    )
    middle = (left + right) / 2
    texts = [(exact, 18, f"exact {rounded(run.exact, 4)}"), (middle, 90, "certified interval")]
    if math.isfinite(run.floor):
        floor = place(run.floor)
        drawing += f'<line x1="{floor:.1f}" x2="{floor:.1f}" y1="25" y2="58" stroke="currentColor" '
        drawing += 'stroke-dasharray="5 3"/>'
        texts.append((floor, 72, f"floor {rounded(run.floor, 4)}"))
    if not math.isfinite(run.floor) or floor > 120:
        texts.append((8, 72, "0"))
    words = "".join(
        f'<text x="{x:.1f}" y="{y}" text-anchor="{_anchor(x)}" font-size="13" fill="currentColor">{escape(text)}</text>'
        for x, y, text in texts
    )
    return f'<svg class="interval" role="img" aria-label="{escape(alt)}" viewBox="0 0 400 98">{drawing}{words}</svg>'


def _anchor(x: float) -> str:
    return "start" if x < 60 else "end" if x > 340 else "middle"


def _findings(looked: Inspection) -> str:
    boxes = []
    for found in looked.findings:
        level, kind = ("Warning", "finding serious") if found.serious else ("Note", "finding")
        boxes.append(
            f'<div class="{kind}"><h3><span class="level">{level}:</span> {escape(found.name)}</h3>'
            f"<p>{marked(_sentence(found.text))}</p><p>{marked(found.remedy)}</p></div>"
        )
    if not boxes:
        boxes.append(paragraph("None of the rules below found anything."))
    rules = [(rule.name, "warning" if rule.serious else "note", rule.statement) for rule in RULES]
    return "".join(boxes) + details("The rules behind this", table("Rules", ("finding", "kind", "rule"), rules))


def _history(looked: Inspection) -> str:
    records = audits(looked.run.metrics)
    if not records:
        return paragraph("There was no audit yet: the first comes after training.audit_every generator steps.")
    last = records[-1]
    alt = (
        f"The certified interval over {len(records)} audits, from {rounded_down(records[0]['w1/lower'])} to "
        f"{rounded_up(records[0]['w1/upper'])} at step {records[0]['step']}, to {rounded_down(last['w1/lower'])} to "
        f"{rounded_up(last['w1/upper'])} at step {last['step']}."
    )
    drawn = figures.interval_history(looked.run.metrics, floor=last.get("eval/w1_floor"))
    drawn.set_size_inches(NARROW, 3.4)
    drawing = figures.inline_svg(drawn, alt, key="interval")
    caption = (
        "W1 between a fixed held-out batch and the generator at fixed latents; the final scores differ, because they "
        "are those of the averaged generator on more samples. Both ends of the band are proved. In a good run, the "
        "exact value comes down to the floor, and the lower end follows."
    )
    heads = ("step", "lower", "exact", "upper", "excess over the floor", "gradient on rays", "Lip(f) ≤")
    return figure(drawing, caption) + details(
        f"All audits ({len(records)})", table("Audits", heads, [_audit(record) for record in records])
    )


def _audit(record: Mapping[str, float]) -> list[str]:
    plain = [record.get(tag, math.nan) for tag in ("eval/excess", "critic/grad_norm")]
    return [
        str(record["step"]),
        rounded_down(record["w1/lower"]),
        rounded(record["w1/exact"], 4),
        rounded_up(record["w1/upper"]),
        *(_number(value) for value in plain),
        _number(record.get("certificate/lipschitz", math.nan), up=True),
    ]


def _certificate(looked: Inspection) -> str:
    proved = looked.certificate
    if proved is None:
        return paragraph(f"No certificate could be proved: {looked.problem}")
    rows: list[list[str | Cell]] = [
        [layer.path, layer.norm_in, layer.norm_out, Cell(rounded_up(layer.lipschitz, 9)), layer.method]
        for layer in proved.layers
    ]
    facts = {
        "Constant": f"Lip(f) ≤ {rounded_up(proved.lipschitz, 9)}, from {proved.norm_in} to {proved.norm_out}",
        "One unit is": proved.units,
        "Weights": f"SHA-256 {proved.weights_sha256}",
        "It covers": proved.covers,
    }
    return (
        paragraph("Proved for the checkpoint's weights when this page was written, not read from a file.")
        + _terms(facts)
        + table("The proof, layer by layer", ("layer", "norm in", "norm out", "Lip ≤", "method"), rows)
    )


def _curves(looked: Inspection) -> str:
    records = looked.run.metrics
    if not records:
        return paragraph("Nothing was recorded yet.")
    told = {
        "value": ("critic's estimate", "w1/critic", "Good: it falls with the exact value, and stays below it."),
        "score": (
            "excess over the floor",
            "eval/excess",
            "Good: it comes down to that of real samples. Stop when it no longer falls.",
        ),
        "slope": ("mean gradient norm along rays", "critic/grad_norm", "Good: near 1 while there is much to learn."),
        "constant": ("certified constant", "certificate/lipschitz", "Good: it stays at 1."),
    }
    drawn = figures.training_curves(records)
    parts = []
    for name, (what, tag, good) in told.items():
        known = [record for record in records if math.isfinite(record.get(tag, math.nan))]
        course = f"from {_number(known[0][tag])} at step {known[0]['step']} " if known else ""
        course += f"to {_number(known[-1][tag])} at step {known[-1]['step']}" if known else "not recorded"
        drawing = figures.inline_svg(drawn[name], f"The {what} over the run: {course}.", key=f"curve-{name}")
        parts.append(figure(drawing, good))
    return f'<div class="grid">{"".join(parts)}</div>'


def _samples(looked: Inspection) -> str:
    samples, source, shape = looked.generated, looked.source, None
    if samples is None:
        drawn = looked.run.drawn_samples()
        why = paragraph(f"No new samples could be drawn: {looked.problem}")
        return why + (figure(drawn, "Samples drawn at the end of the run.") if drawn else "")
    if source is not None and bool(torch.isfinite(samples).all()):
        return _scores(looked) + _pictures(looked, source, samples)
    why = looked.unopened or "some generated samples are not finite"
    missing = paragraph(f"Real samples can't be shown beside generated ones: {why}")
    shape = looked.run.image_shape
    if shape is None or shape[0] not in (1, 3):
        return missing
    grid = figures.sample_grid(samples[:64], shape)
    alt = f"{min(64, len(samples))} generated images in a grid."
    return missing + figure(figures.inline_png(grid, alt), "Generated images.")


def _pictures(looked: Inspection, source: Source, samples: Tensor) -> str:
    """What the critic sees in real and generated samples."""
    parts = []
    if source.image_shape is not None and source.image_shape[0] in (1, 3):
        grid = figures.real_beside_generated(source.test, samples, source.image_shape, columns=5, count=40)
        alt = "A grid of real images beside a grid of generated ones."
        text = "Held-out images on the left, images of the averaged generator on the right, drawn from the checkpoint."
        parts.append(figure(figures.inline_png(grid, alt), text))
    try:
        seen = explore(looked.run.critic, source, samples, certificate=looked.certificate)
    except InputError as error:
        return "".join([*parts, paragraph(f"What the critic sees can't be shown: {error}")])
    for picture in seen.pictures.values():
        drawn = figures.inline_png(figures.narrowed(picture.figure, NARROW), picture.alt, dpi=160)
        parts.append(f"<div><h3>{escape(picture.title)}</h3>{figure(drawn, picture.caption)}</div>")
    return f'<div class="grid">{"".join(parts)}</div>'


def _scores(looked: Inspection) -> str:
    """Each score of the summary beside that of real samples."""
    rows: list[tuple[str, ...]] = []
    for space, compared in ((looked.run.summary or {}).get("scores") or {}).items():
        for name, value in compared["values"].items():
            better = "higher" if name in HIGHER_IS_BETTER else "lower"
            floor, blur = compared["floors"].get(name, math.nan), compared.get("blurs", {}).get(name, math.nan)
            texts = (_number(number) for number in (value, floor, blur))
            rows.append((f"{name.replace('_', ' ')}, {space}", *texts, better))
    if not rows:
        return ""
    return table(
        "Scores of generated samples",
        ("score", "generated", "real in their place", "real, blurred", "better"),
        rows,
    )


def _configuration(looked: Inspection) -> str:
    run = looked.run
    try:
        given = run.command
    except InputError as error:
        given = str(error)
    rows = [(key, _shown(value)) for key, value in flat(run.config).items()]
    return (
        paragraph("The command:")
        + preformatted(given, "Command")
        + details("Every setting of the run", table("Settings", ("key", "value"), rows))
    )


def _environment(looked: Inspection) -> str:
    run, status = looked.run, looked.run.status
    told = {"Folder": str(run.directory), "State": f"{status['state']}, step {status.get('step', 0)}"}
    for name, key in (("Started", "started"), ("Last written", "updated")):
        if key in status:
            told[name] = _moment(status[key])
    told |= {name.replace("_", "-"): str(version) for name, version in status.get("versions", {}).items()}
    told["This page"] = f"written by wgan-lip {wgan_lip.__version__}, {_moment(None)}"
    return _terms(told)


def _terms(terms: Mapping[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(term)}</dt><dd>{marked(text)}</dd>" for term, text in terms.items()) + "</dl>"


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: float, *, up: bool = False) -> str:
    return "–" if not math.isfinite(value) else rounded_up(value, 7) if up else rounded(value, 4)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _moment(seconds: float | None) -> str:
    moment = datetime.now(timezone.utc) if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
    return moment.strftime("%Y-%m-%d %H:%M UTC")
