"""The job behind `wgan-lip compare`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from wgan_lip.cli import screens
from wgan_lip.cli.inspect import written
from wgan_lip.cli.schema import checked
from wgan_lip.inspection.compare import MEASURES, RULE, Comparison, compare_runs, find_runs
from wgan_lip.inspection.pages import comparison_page
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.files import json_text
from wgan_lip.utils.printing import wrapped
from wgan_lip.utils.terminal import columns, say

__all__ = ["compare"]

COLUMNS = {
    "runs": lambda group: str(len(group.entries)),
    "excess over floor": lambda group: group.told("score", 4),
    "precision": lambda group: group.told("precision"),
    "recall": lambda group: group.told("recall"),
    "exact W1": lambda group: group.told("exact", 4),
    "gradient": lambda group: group.told("gradient"),
    "Lip(f) ≤": lambda group: group.told("lipschitz"),
    "seconds": lambda group: group.told("seconds"),
}
"""Column head → what a group shows below it; a narrow screen leaves out the last ones."""


def compare(config: DictConfig) -> None:
    """Shows runs side by side, and writes a table of them and a page about them."""
    settings = checked(config, root={"runs": Any, "out": str | None, "json": bool})
    given = settings["runs"] if isinstance(settings["runs"], list) else [settings["runs"]]
    if not given or not all(isinstance(path, str) for path in given):
        raise InputError(f"runs must name folders, as runs=DIR or runs='[DIR,DIR]', not {settings['runs']!r}.")
    compared = compare_runs(find_runs(given))
    if settings["json"]:
        say(json_text(_plain(compared), indent=2))
        return
    say(_screen(compared))
    if settings["out"] is not None:
        folder = Path(settings["out"]).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} can't be created: {error.strerror}. Give {REMEDY}.") from None
        written(folder / "compare.csv", _table(compared), REMEDY)
        written(folder / "compare.html", comparison_page(compared), REMEDY)
        say(screens.place("Table", folder / "compare.csv"))
        say(screens.place("Page", folder / "compare.html"))


REMEDY = "out=FOLDER, or out=null for none"


def _plain(compared: Comparison) -> dict[str, Any]:
    """The comparison as plain data, for scripts."""
    return {
        "rule": RULE,
        "best": [
            {
                "on": league, "setting": lead.first.label, "score": lead.first.mean_and_spread("score")[0],
                "run": str(lead.run.directory), "next": lead.second and lead.second.label, "gap": lead.gap,
                "error": lead.error, "pvalue": lead.pvalue, "shared_seeds": lead.shared,
            }
            for league, lead in compared.best.items()
        ],
        "configurations": [
            {"label": group.label, "runs": [str(entry.directory) for entry in group.entries]}
            | {name: dict(zip(("mean", "spread"), group.mean_and_spread(name))) for name in MEASURES}
            for group in compared.groups
        ],
        "runs": _rows(compared),
    }  # fmt: skip


def _rows(compared: Comparison) -> list[dict[str, Any]]:
    """One row per run."""
    return [
        {
            "run": str(entry.directory), "configuration": group.label, "seed": entry.seed,
            "state": entry.standing.state, "step": entry.standing.step, "final": entry.standing.final,
            **{name: entry.measure(name) for name in MEASURES},
        }
        for group, entry in compared.entries
    ]  # fmt: skip


def _table(compared: Comparison) -> str:
    """Comma-separated values, one line per run."""
    rows, stream = _rows(compared), io.StringIO()
    writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _unlike_a_formula(cell) for name, cell in row.items()} for row in rows)
    return stream.getvalue()


def _unlike_a_formula(cell: Any) -> Any:
    """Text that a spreadsheet shows as it is: it would run text that begins like a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip().startswith(("=", "+", "-", "@")) else cell


def _screen(compared: Comparison) -> str:
    width = min(columns(), 118)
    rows = [["setting", *COLUMNS]]
    rows += [[group.label, *(shown(group) for shown in COLUMNS.values())] for group in compared.groups]
    lines = [*_aligned(rows, columns()), ""]

    def tell(text: str) -> None:
        lines.extend(f"  {line}" for line in wrapped(" ".join(text.split()), width - 2, "  "))

    for league, lead in compared.best.items():
        tell(f"Best on {league}: {lead.verdict()}")
        if why := lead.why():
            tell(f"  Why: {why}")
        tell(f"  Its best run: {lead.run.directory}, excess {lead.run.told_score()}")
    if any(not entry.standing.final for _, entry in compared.entries):
        tell("Note: Runs without final scores are judged by their last audit.")
    tell(RULE)
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]], width: int, widest: int = 60) -> list[str]:
    """Columns side by side, as many as fit; a first cell that is too wide gets a separate line."""
    rows = [[" ".join(cell.split()) for cell in row] for row in rows]
    widest = max(len(rows[0][0]), min(widest, width // 3))
    widths = [max(len(row[column]) for row in rows if len(row[column]) <= widest) for column in range(len(rows[0]))]
    while len(widths) > 2 and sum(widths) + 2 * len(widths) > width:
        widths.pop()
    lines = []
    for first, *others in rows:
        rest = "  ".join(cell.ljust(width) for cell, width in zip(others, widths[1:]))
        if len(first) > widest:
            lines.append(f"  {first}")
            first = ""
        lines.append(f"  {first.ljust(widths[0])}  {rest}".rstrip())
    return lines
