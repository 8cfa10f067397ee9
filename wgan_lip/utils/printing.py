"""Results that print well: a few lines of text by `print`, the same with a small picture in a notebook."""

from __future__ import annotations

import math
import sys
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from wgan_lip.utils.terminal import printable

__all__ = ["LINES", "Bar", "Printed", "Row", "number_line", "wrapped"]

LINES = 15  # of a result, at most; the rest is in its fields
CELL = 600  # characters in a cell, at most: a name or a note may have any length
NAME, FIGURE, WIDTH = 21, 27, 118  # columns for a name, for a figure, and for a line of running text
BLUE, VERMILION = "#1f86c7", "#d55e00"  # at least 3.5 : 1 on white and on the dark grey of notebooks


class Row(NamedTuple):
    """A figure with its name before it, indented if it belongs to the row above, and a comment after it.

    A sentence in place of a figure, with no comment, takes the space of both, in as many lines as it needs.
    """

    name: str
    figure: str
    comment: str = ""

    def cells(self, most: int = sys.maxsize) -> Row:
        """The cells without line breaks and terminal control characters, cut to `most` characters."""
        name, figure, comment = (printable(" ".join(cell.split())) for cell in self)
        name = "  " * self.name.startswith("  ") + name
        return Row(*(cell if len(cell) <= most else f"{cell[:most]} …" for cell in (name, figure, comment)))

    def lines(self, width: int = sys.maxsize) -> list[str]:
        """The row in lines of at most `width` characters, except for longer words."""
        name, figure, comment = self.cells()
        head, beside = f"  {name:<{NAME}} ", NAME + FIGURE + 5
        if not comment:
            figures = wrapped(figure, min(WIDTH, width) - len(head)) or [""]
            return [f"{' ' * len(head) if number else head}{line}".rstrip() for number, line in enumerate(figures)]
        line = f"{head}{figure:<{FIGURE}}  {comment}"
        if len(line) <= width:
            return [line]
        if len(figure) > FIGURE or width - beside < 20:  # the comment goes below
            return [head + figure, *(" " * len(head) + line for line in wrapped(comment, width - len(head)))]
        first, *rest = wrapped(comment, width - beside)
        return [f"{head}{figure:<{FIGURE}}  {first}", *(" " * beside + line for line in rest)]


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Text in lines of at most `width` characters, without breaking words; all but the first start with `indent`."""
    return textwrap.wrap(
        text, max(width, 20), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )  # fmt: skip


class Printed(ABC):
    """A result for a person to read.

    A class provides a headline and rows, and a picture if one helps. `print` and notebooks show these; a command's
    screen includes the rows. Printing computes nothing, draws no samples, and never fails.

    A dataclass whose own `repr` would run over pages gets the short one by `repr=False`.
    """

    @abstractmethod
    def headline(self) -> str:
        """What this is, in a line."""

    @abstractmethod
    def summary_rows(self) -> list[Row]:
        """Its figures, the most important first."""

    def picture(self) -> str:
        """HTML of a small picture, readable on light and on dark pages; none by default."""
        return ""

    def __str__(self) -> str:
        lines = [line for row in self.summary_rows() for line in row.cells(CELL).lines()]
        if len(lines) > LINES - 1:
            beyond = len(lines) - (LINES - 2)
            lines = [*lines[: LINES - 2], f"  … {beyond} more lines: see its fields"]
        return "\n".join([_headline(self), *lines])

    def __repr__(self) -> str:
        first = [row.cells(CELL).figure for row in self.summary_rows()[:1]]
        return f"<{type(self).__name__}: {', '.join([_headline(self), *first])}>"

    def _repr_html_(self) -> str:
        rows = self.summary_rows()
        shown = rows if len(rows) < LINES else rows[: LINES - 2]
        body = "".join(map(_html, shown))
        if len(shown) < len(rows):
            body += _html(Row("", f"… {len(rows) - len(shown)} more rows: see its fields"))
        return (
            f'<div><div><strong>{escape(_headline(self))}</strong></div><table style="{_TABLE}">'
            f"<tbody>{body}</tbody></table>{self.picture()}</div>"
        )


_TABLE = "border-collapse: collapse; margin: 0.3em 0"
_CELL = "text-align: left; vertical-align: top; padding: 0.1em 1.2em 0.1em"  # a notebook's own style aligns right


def _headline(result: Printed) -> str:
    return Row("", result.headline()).cells(CELL).figure


def _html(row: Row) -> str:
    name, figure, comment = row.cells(CELL)
    indent = 1.2 if name.startswith(" ") else 0
    head = f'<th scope="row" style="{_CELL} {indent}em; font-weight: normal; opacity: 0.8">{escape(name.strip())}</th>'
    if not comment:
        return f'<tr>{head}<td colspan="2" style="{_CELL} 0; max-width: 50em">{escape(figure)}</td></tr>'
    return f'<tr>{head}<td style="{_CELL} 0">{escape(figure)}</td><td style="{_CELL} 0">{escape(comment)}</td></tr>'


class Bar(NamedTuple):
    """An interval on a number line.

    Attributes:
        label: Its name.
        low: Its lower end.
        high: Its upper end; infinite if there is none.
        at: A value to mark, in the interval or outside; None for none.
        proved: Whether the interval is certain, or only holds with a confidence or a standard error.
    """

    label: str
    low: float
    high: float
    at: float | None = None
    proved: bool = True


def number_line(bars: Sequence[Bar], alt: str) -> str:
    """Intervals above each other on a number line that includes 0, as an `<svg>` element in the colours of the text.

    Arguments:
        bars: The intervals; those without a finite lower end, or that are empty, are left out.
        alt: Alternative text for readers who cannot see it.

    Returns:
        The element; "" if there is nothing to draw, or numbers that no axis can hold.
    """
    bars = [bar for bar in bars if math.isfinite(bar.low) and bar.low <= bar.high]
    ends = [0.0, *(end for bar in bars for end in bar[1:4] if end is not None and math.isfinite(end))]
    least, most = min(ends), max(ends)
    span = most - least if most > least else 1.0
    if not bars or not 1e-290 < span < 1e290 or max(-least, most) > 1e290:
        return ""
    left, right, pitch = 150.0, 530.0, 24
    foot = pitch * len(bars) + 4

    def place(value: float) -> float:
        return left + (value - least) / (1.08 * span) * (right - left)

    drawn = []
    for number, (label, low, high, at, proved) in enumerate(bars):
        middle = pitch * number + 14
        begin, end = place(low), right if high == math.inf else place(high)
        width = max(end - begin, 2.0)
        drawn.append(
            f'<text x="{left - 10:.0f}" y="{middle + 4}" text-anchor="end">{escape(printable(label))}</text>'
            f'<rect x="{begin - (width - (end - begin)) / 2:.2f}" y="{middle - 5}" width="{width:.2f}" height="10" '
            f'fill="{BLUE}" fill-opacity="{1 if proved else 0.4}" stroke="{BLUE}"/>'
        )
        if high == math.inf:
            drawn.append(f'<path d="M{right:.0f} {middle - 9}l11 9l-11 9z" fill="{BLUE}" stroke="none"/>')
        if at is not None and math.isfinite(at):
            x = place(at)
            drawn.append(f'<path d="M{x:.2f} {middle - 9}v18" stroke="{VERMILION}" stroke-width="2.5"/>')
    for tick in _ticks(least, least + span):
        x = place(tick)
        drawn.append(
            f'<path d="M{x:.2f} {foot}v5" stroke="currentColor"/>'
            f'<text x="{x:.2f}" y="{foot + 18}" text-anchor="middle">{tick:.4g}</text>'
        )
    return (
        f'<svg role="img" aria-label="{escape(printable(alt))}" viewBox="0 0 560 {foot + 24}" width="560" '
        f'height="{foot + 24}" style="max-width: 100%; display: block; margin: 0.4em 0" font-size="12" '
        'font-family="sans-serif" fill="currentColor" xmlns="http://www.w3.org/2000/svg">'
        f'<path d="M{left:.0f} {foot}H{right:.0f}" stroke="currentColor"/>{"".join(drawn)}</svg>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Three to eight round numbers from `low` to `high`."""
    rough = (high - low) / 3
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(power * factor for factor in (1, 2, 5) if power * factor <= rough * (1 + 1e-9))
    return [step * count for count in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
