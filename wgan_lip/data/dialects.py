"""The delimiter and the decimal mark of a text, found if they are unambiguous."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wgan_lip.data.tables import DELIMITERS
from wgan_lip.utils.checks import InputError

__all__ = ["GAPS", "NO_CHARACTER", "NUMBER", "Dialect", "find_dialect", "lines"]

NUMBER = {  # by decimal mark; a point may end a number, as in numpy's "1.", a comma may not
    ".": r"(?i)^[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|nan|inf|infinity)$",
    ",": r"(?i)^[+-]?(([0-9]+(,[0-9]+)?|,[0-9]+)(e[+-]?[0-9]+)?|nan|inf|infinity)$",
}
USUAL = {".csv": ",", ".tsv": "\t", ".txt": " "}
NO_CHARACTER = "\x1f"  # stands for the delimiter of a single column
GAPS = ("", "na", "n/a", "null", "none")  # what stands in place of a missing number


@dataclass(frozen=True)
class Dialect:
    """How a text separates its columns and marks decimals.

    Attributes:
        delimiter: A character; " " is any run of blanks, "" means a single column.
        decimal: A point or a comma.
    """

    delimiter: str
    decimal: str

    def __str__(self) -> str:
        words = {character: word for word, character in DELIMITERS.items()}
        delimiter = f"delimiter={words.get(self.delimiter, self.delimiter)} " if self.delimiter else ""
        return f"{delimiter}decimal={words.get(self.decimal, 'point')}"

    def prepared(self, text: str) -> str:
        """The text with a single character between columns."""
        return re.sub(r"(?m)^ | $", "", re.sub(r"[ \t]+", " ", text)) if self.delimiter == " " else text

    def reader(self, text: str) -> Any:
        """Yields the cells of each row, none for an empty line."""
        return csv.reader(lines(text), delimiter=self.delimiter or NO_CHARACTER, skipinitialspace=True)

    def rows(self, text: str) -> Iterator[list[str]]:
        """The cells of each row, without the blanks around them."""
        return ([cell.strip() for cell in row] for row in self.reader(text) if row)

    def is_number(self, cell: str) -> bool:
        return re.match(NUMBER[self.decimal], cell) is not None

    def number(self, cell: str) -> float:
        return float(cell.replace(self.decimal, "."))


@dataclass(frozen=True)
class _Way:
    """A text as read in one dialect.

    Attributes:
        dialect: How its cells are separated.
        first: The cells of the first row.
        rows: Some of the rows below, or the first if there are none: numbers, and text where a cell is not a number.
    """

    dialect: Dialect
    first: list[str]
    rows: list[list[float | str]]

    @staticmethod
    def of(dialect: Dialect, text: str, *, cut: bool) -> _Way | None:
        """Reads the beginning of a text, which may be `cut` within a row; None if its rows have unequal lengths."""
        try:
            rows = list(dialect.rows(dialect.prepared(text)))
        except csv.Error:  # such as a cell of a megabyte, if the delimiter is wrong
            return None
        below = rows[1 : -1 if cut else None] or rows
        if len(set(map(len, below))) != 1:
            return None
        meant = [[dialect.number(cell) if dialect.is_number(cell) else cell for cell in row] for row in below]
        return _Way(dialect, rows[0], meant)

    @property
    def width(self) -> int:
        return len(self.rows[0])

    @property
    def numbers(self) -> int:
        """How many of the cells below the first row are numbers."""
        return sum(type(cell) is float for row in self.rows for cell in row)

    @property
    def is_whole(self) -> bool:
        """Whether all cells below the first row are numbers, row names or gaps, and at least one is a number."""
        cells = [cell for row in self.rows for cell in row[1:] or row]
        words = [cell for cell in cells if type(cell) is str]
        return len(words) < len(cells) and all(cell.lower() in GAPS for cell in words) and not self._cuts_numbers()

    def _cuts_numbers(self) -> bool:
        """Whether a row name contains a number of another dialect, as "S1;1" in S1;1,5 does."""
        parts = (part for row in self.rows if type(row[0]) is str for part in re.split("[,;|\t ]", row[0]))
        return any(re.match(pattern, part) for part in parts for pattern in NUMBER.values())

    @property
    def is_even(self) -> bool:
        """Whether the first row has as many cells as those below, and several."""
        return len(self.first) == self.width > 1

    @property
    def is_named(self) -> bool:
        """Whether the first row names each of several columns."""
        return self.is_even and not any(map(self.dialect.is_number, self.first))


def find_dialect(path: Path, text: str, delimiter: str | None, decimal: str | None) -> Dialect:
    """The dialect in which the rows below the first are numbers, apart from row names."""
    head, cut = _head(text)
    below = head.partition("\n")[2] or head
    usual = Dialect(delimiter or USUAL[Path(path.name.lower().removesuffix(".gz")).suffix], decimal or ".")
    candidates = [
        Dialect(between, mark)
        for between in ([usual.delimiter, "", *DELIMITERS.values()] if delimiter is None else [delimiter])
        for mark in (".," if decimal is None else decimal)
        if (between != mark or '"' in below) and (between != " " or delimiter or "\t" not in below)
    ]
    possible = [way for way in (_Way.of(dialect, head, cut=cut) for dialect in candidates) if way is not None]
    ways: list[_Way] = []
    for way in possible:
        if way.is_whole and repr(way.rows) not in (repr(other.rows) for other in ways):
            ways.append(way)
    if not ways:  # columns of text: they may be left out, or are reported
        wide = [way for way in possible if way.width > 1]
        return max(wide, key=lambda way: way.numbers).dialect if wide else usual
    if len(ways) > 1:
        named = [way.dialect for way in ways if way.is_named]
        if len(named) == 1:
            return named[0]
        if usual.delimiter == "," and any(way.dialect == usual and way.is_even for way in ways):
            return usual
    told = [way.dialect for way in ways]
    if ways[0].width == 1 and told[0].decimal == "," and delimiter is decimal is None and re.search('^[^"]*,', below):
        told.append(Dialect(",", "."))  # in which rows have gaps or unequal lengths
    if len(told) > 1:
        raise InputError(f"The table {path} can be read in two ways. Say {told[0]}, or {told[1]}.")
    return told[0]


def _head(text: str) -> tuple[str, bool]:
    """The first lines, enough to find the dialect, and whether the text goes on."""
    found: list[str] = []
    size = 0
    for line in lines(text):
        if len(found) == 100 or (len(found) > 2 and size > 200_000):
            return "".join(found), True
        found.append(line)
        size += len(line)
    return "".join(found), False


def lines(text: str) -> Iterator[str]:
    """The lines of a text of any length, one at a time, without copying the text."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end
