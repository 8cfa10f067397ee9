"""Settings and results as rows: nested settings flattened, tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["flat", "markdown_table"]


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Section.key → value, for every value that is not a section."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return values


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown, one line per row; missing cells of a short row stay empty."""
    filled = ([*row, *[""] * (len(heads) - len(row))] for row in rows)
    cells = ([str(cell).replace("|", r"\|") for cell in row] for row in (heads, ["---"] * len(heads), *filled))
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
