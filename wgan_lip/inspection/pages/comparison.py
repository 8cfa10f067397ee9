"""Runs side by side as a page."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from wgan_lip import figures
from wgan_lip.inspection.compare import MOST_DRAWN, RULE, Comparison
from wgan_lip.inspection.pages.page import Cell, Section, figure, page, paragraph, table
from wgan_lip.utils.numbers import clock_time, rounded, rounded_up

__all__ = ["comparison_page"]

TERMS = (
    "Excess over the floor: W1 between generated and test samples, beyond what sampling explains, W1(g, t) − "
    "½ [W1(g, g′) + W1(t, r)]; lower is better, and around that of real samples, on either side, it is as good as they "
    "are. It does not detect copies of training samples. Precision: the share of generated samples near a real one; "
    "recall: the share of real samples near a generated one; each divided by what real samples reach in the "
    "generator's place, so 1 is good. Exact W1: between generated and test samples, by exact transport. Proved: the "
    "share of it that a critic proves from below. Gradient: mean gradient norm of the critic along transport rays, 1 "
    "for a KR potential. Lip(f) ≤: the proved Lipschitz constant, the largest of a setting's runs. A star marks values "
    "from the last audit of a run without final scores."
)
MEASURED = {
    "excess over floor": "score", "precision": "precision", "recall": "recall", "exact W1": "exact",
    "proved": "proved", "gradient": "gradient", "Lip(f) ≤": "lipschitz",
}  # fmt: skip
"""Column head → measure."""


def comparison_page(compared: Comparison) -> str:
    """A comparison as a page in one file; a click on a heading sorts its tables, which are readable without scripts.

    Arguments:
        compared: The runs.

    Returns:
        HTML that needs no other file and makes no request.
    """
    count = len(compared.entries)
    top = ""
    for league, lead in compared.best.items():
        why = f" Why: {escape(lead.why())}" if lead.why() else ""
        top += (
            f"<p><strong>Best on {escape(league)}: {escape(lead.verdict())}</strong>{why} Its best run: "
            f"{escape(str(lead.run.directory))}, excess {escape(lead.run.told_score())}.</p>"
        )
    top += paragraph(f"{compared.headline()}. {RULE}")
    sections = [
        Section("Settings", _groups(compared)),
        Section("Score against time and images", _courses(compared)),
        Section("Samples", _samples(compared)),
        Section("Runs", _runs(compared)),
        Section("How the settings differ", _differences(compared)),
        Section("How to read this page", paragraph(TERMS)),
    ]
    return page(f"{count} runs compared", top, sections, sortable=True, wide=True)


def _groups(compared: Comparison) -> str:
    heads = ("setting", "runs", *MEASURED, "time", "behind the best")
    rows = []
    for group in compared.groups:
        cells: list[str | Cell] = [group.label, Cell(str(len(group.entries)), len(group.entries))]
        cells += [Cell(group.told(name), group.mean_and_spread(name)[0]) for name in MEASURED.values()]
        seconds = group.mean_and_spread("seconds")[0]
        lead = compared.behind.get(group.label)
        told = f"{lead.told_gap()}{f', {lead.told_pvalue()}' if lead.shared > 1 else ''}" if lead else "–"
        rows.append([*cells, Cell(_time(seconds), seconds), Cell(told, lead.gap if lead else math.nan)])
    real = {rounded(mean, 2) for group in compared.groups if math.isfinite(mean := group.mean_and_spread("real")[0])}
    caption = "Mean ± standard deviation over the runs of a setting, which differ in their seed"
    if real:
        caption += f"; real samples in the generator's place have an excess of {', '.join(sorted(real))}"
    return table(caption, heads, rows, sortable=True)


def _courses(compared: Comparison) -> str:
    drawn = compared.courses()
    if not drawn:
        return paragraph("No run has been audited.")
    ends = "; ".join(
        f"{label}: last {', '.join(_number(course[-1][2]) for course in courses)}" for label, courses in drawn.items()
    )
    parts = []
    for by, what in (("seconds", "time of training"), ("samples", "generated samples seen")):
        alt = f"Excess over the floor of the audits against {what}. {ends}."
        more = ", which do not depend on the machine" if by == "samples" else ""
        drawing = figures.inline_svg(figures.score_against(drawn, by=by), alt, key=f"courses-{by}")
        parts.append(figure(drawing, f"Against {what}{more}."))
    how = (
        "Each line is the mean over the runs of a setting, and its band their range. The dashed line is 0, around "
        "which real samples scatter: lower is better, and earlier is faster."
    )
    return paragraph(how) + f'<div class="grid">{"".join(parts)}</div>'


def _samples(compared: Comparison) -> str:
    parts = []
    for group in compared.groups[:MOST_DRAWN]:
        if (run := group.best()).drawn:
            parts.append(figure(run.drawn, f"{group.label}: its best run, {run.directory.name}, {run.told_score()}"))
    if not parts:
        return paragraph("No run has a picture of its samples yet.")
    rest = len(compared.groups) - MOST_DRAWN
    more = f" The {rest} lowest-ranked settings are left out." if rest > 0 else ""
    how = f"For each setting, samples.png of the run with the lowest excess.{more}"
    return paragraph(how) + f'<div class="grid">{"".join(parts)}</div>'


def _runs(compared: Comparison) -> str:
    heads = ("run", "setting", "seed", "state", *MEASURED, "time")
    above = _common([entry.directory for _, entry in compared.entries])
    rows: list[list[str | Cell]] = []
    for group, entry in compared.entries:
        cells: list[str | Cell] = [str(entry.directory.relative_to(above)), group.label, Cell(str(entry.seed))]
        cells.append(f"{entry.standing.state}, step {entry.standing.step}")
        for name in MEASURED.values():
            value = entry.measure(name)
            text = {"score": entry.told_score(), "lipschitz": _constant(value)}.get(name) or _number(value, 3)
            cells.append(Cell(text, value))
        rows.append([*cells, Cell(_time(entry.seconds), entry.seconds)])
    return table(f"Every run, in {above}" if above != Path() else "Every run", heads, rows, sortable=True)


def _common(folders: Sequence[Path]) -> Path:
    """The folder that contains all of them; an empty path if there is none."""
    try:
        return Path(os.path.commonpath([folder.parent for folder in folders]))
    except ValueError:  # some are relative, some absolute
        return Path()


def _differences(compared: Comparison) -> str:
    if not compared.differences:
        return paragraph("There is one setting.")
    caption, labels = "Keys whose values differ between settings", [group.label for group in compared.groups]
    if len(labels) > max(3, len(compared.differences)):  # one row per setting, so that the table stays narrow
        columns = zip(labels, *compared.differences.values(), strict=True)
        return table(caption, ("setting", *compared.differences), list(columns))
    return table(caption, ("key", *labels), [(key, *values) for key, values in compared.differences.items()])


def _number(value: float, digits: int = 4) -> str:
    return rounded(value, digits) if math.isfinite(value) else "–"


def _constant(value: float) -> str:
    return rounded_up(value, 4) if math.isfinite(value) else "–"


def _time(seconds: float) -> str:
    return clock_time(seconds) if math.isfinite(seconds) else "–"
