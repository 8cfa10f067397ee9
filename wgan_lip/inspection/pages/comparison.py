"""Runs side by side as a page."""

from __future__ import annotations

import math
from html import escape

from wgan_lip import figures
from wgan_lip.inspection.compare import RULE, Comparison, Entry, Group, Lead
from wgan_lip.inspection.pages.page import Cell, Section, figure, page, paragraph, table
from wgan_lip.utils.numbers import clock_time, rounded, rounded_down, rounded_up

__all__ = ["comparison_page", "score_of", "told_mean", "verdict"]

TERMS = (
    "Excess over the floor: what W1 between generated and test samples shows beyond sampling, W1(g, t) − "
    "½ [W1(g, g′) + W1(t, r)]; lower is better, and around that of real samples, of either sign, it is as good as they "
    "are. Copies of training samples go unseen in it. W1 over floor, an older score, rewards blur. Recall: how many "
    "real samples have a generated one near, over how many have a real one. Interval: lower ≤ W1 ≤ upper, proved at "
    "both ends, about the evaluated samples. Gradient: mean gradient norm of the critic along transport rays, 1 for a "
    "potential. Tightness: the largest gradient found over the proved constant. What has a star comes from the last "
    "audit of a run without final scores."
)


def comparison_page(compared: Comparison) -> str:
    """A comparison as a page in one file; its tables sort by a click on a heading, and can be read without scripts.

    Arguments:
        compared: The runs.

    Returns:
        HTML that needs no other file and makes no request.
    """
    count = sum(len(group.entries) for group in compared.groups)
    top = ""
    for league, lead in compared.best.items():
        top += (
            f"<p><strong>Best on {escape(league)}: {escape(verdict(lead))}</strong> Its best run: "
            f"{escape(str(lead.run.directory))}, excess {escape(score_of(lead.run))}.</p>"
        )
    top += paragraph(f"{count} runs in {len(compared.groups)} settings. {RULE}")
    sections = [
        Section("Settings", _groups(compared)),
        Section("Score against time and images", _courses(compared)),
        Section("Runs", _runs(compared)),
        Section("How the settings differ", _differences(compared)),
        Section("How to read this page", paragraph(TERMS)),
    ]
    return page(f"{count} runs compared", top, sections, sortable=True)


def score_of(entry: Entry) -> str:
    """A run's excess over the floor; with a star where it is that of an audit."""
    score = entry.standing.score
    return _number(score) + ("*" if math.isfinite(score) and not entry.standing.final else "")


def verdict(lead: Lead) -> str:
    """Which setting leads, by how much, and how sure that is, in a sentence or two."""
    seeds = len(lead.first.scores())
    over = f"{seeds} seeds" if seeds > 1 else "one seed"
    text = f"{lead.first.label}, excess over the floor {told_mean(lead.first, 'score')} over {over}"
    if lead.second is None:
        return f"{text}. No other setting has a score."
    text += f"; ahead of {lead.second.label} by {rounded(lead.gap, 3)}"
    if lead.shared > 1:
        known = f"{rounded(lead.pvalue, 2)}" if lead.pvalue >= 0.001 else "< 0.001"
        return f"{text} ± {rounded(lead.error, 2)} on {lead.shared} shared seeds (paired t-test, p = {known})."
    shared = "one shared seed" if lead.shared else "different seeds"
    return f"{text} on {shared}: not enough to tell them apart. Train both with the same seeds, as seed=0,1,2."


def told_mean(group: Group, name: str, digits: int = 4) -> str:
    """`mean ± spread` of a measure over a group's runs, a dash where no run has it."""
    mean, spread = group.mean_and_spread(name)
    if not math.isfinite(mean):
        return "–"
    return rounded(mean, digits) + (f" ± {rounded(spread, 2)}" if math.isfinite(spread) else "")


def _groups(compared: Comparison) -> str:
    heads = ("setting", "runs", "excess over floor", "of real samples", "W1 over floor", "recall", "lower",
             "exact W1", "upper", "gradient", "tightness", "time")  # fmt: skip
    rows = []
    for group in compared.groups:
        cells: list[str | Cell] = [group.label, Cell(str(len(group.entries)), len(group.entries))]
        for name in ("score", "real", "ratio", "recall", "lower", "exact", "upper", "gradient", "tightness"):
            cells.append(Cell(told_mean(group, name), group.mean_and_spread(name)[0]))
        seconds = group.mean_and_spread("seconds")[0]
        rows.append([*cells, Cell(_time(seconds), seconds)])
    caption = "Mean ± standard deviation over the runs of a setting, which differ in their seed"
    return table(caption, heads, rows, sortable=True)


def _courses(compared: Comparison) -> str:
    drawn = {group.label: [entry.course for entry in group.entries if entry.course] for group in compared.groups}
    drawn = {label: courses for label, courses in drawn.items() if courses}
    if not drawn:
        return paragraph("No run has been audited.")
    ends = "; ".join(
        f"{label}: last {', '.join(_number(course[-1][2]) for course in courses)}" for label, courses in drawn.items()
    )
    alt = f"Excess over the floor of the audits against seconds of training and against generated samples. {ends}."
    caption = (
        "Excess over the floor at the audits: a line is the mean over the runs of a setting, its band their range; the "
        "dashed line is 0, around which real samples scatter. Left: by seconds of training. Right: by generated "
        "samples, which do not depend on the machine."
    )
    return figure(figures.inline_svg(figures.score_against(drawn), alt, key="courses"), caption, wide=True)


def _runs(compared: Comparison) -> str:
    heads = ("run", "setting", "seed", "state", "step", "excess over floor", "W1 over floor", "recall", "lower",
             "exact W1", "upper", "Lip(f) ≤", "gradient", "tightness", "time")  # fmt: skip
    rows: list[list[str | Cell]] = []
    for group, entry in compared.entries:
        run = entry.standing
        ends = (
            (rounded_down(run.lower), _number(run.exact), rounded_up(run.upper)) if math.isfinite(run.exact) else "–––"
        )
        constant = rounded_up(run.lipschitz, 7) if math.isfinite(run.lipschitz) else "–"
        rows.append([
            str(entry.directory), group.label, Cell(str(entry.seed)), run.state, Cell(str(run.step), run.step),
            Cell(score_of(entry), run.score), Cell(_number(run.ratio), run.ratio),
            Cell(_number(run.recall), run.recall),
            *(Cell(text, value) for text, value in zip(ends, (run.lower, run.exact, run.upper))),
            Cell(constant, run.lipschitz), Cell(_number(run.gradient), run.gradient),
            Cell(_number(run.tightness), run.tightness), Cell(_time(entry.seconds), entry.seconds),
        ])  # fmt: skip
    return table("Every run", heads, rows, sortable=True)


def _differences(compared: Comparison) -> str:
    if not compared.differences:
        return paragraph("There is one setting.")
    heads = ("key", *(group.label for group in compared.groups))
    rows = [(key, *values) for key, values in compared.differences.items()]
    return table("Keys that do not have one value in all settings", heads, rows)


def _number(value: float) -> str:
    return rounded(value, 4) if math.isfinite(value) else "–"


def _time(seconds: float) -> str:
    return clock_time(seconds) if math.isfinite(seconds) else "–"
