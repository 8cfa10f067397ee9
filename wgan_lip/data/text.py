"""Tables in text files: delimiter, decimal mark, encoding and names, detected if they are unambiguous.

If they are not, the table is refused, and the message names the option that settles it. So a first row that may hold
names never silently becomes a sample, nor half of 1,5 a number.
"""

from __future__ import annotations

import codecs
import gzip
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wgan_lip.data.dialects import GAPS, NO_CHARACTER, NUMBER, Dialect, find_dialect, lines
from wgan_lip.data.tables import (
    Samples,
    TableOptions,
    check_size,
    choose_columns,
    import_pyarrow,
    place_of,
)
from wgan_lip.utils.checks import InputError, check_memory, counts, few

__all__ = ["read_text"]

WHOLE = r"^[+-]?[0-9]+$"
LONG = r"^[+-]?[0-9]{16,}$"  # whole numbers that may lie beyond 2^53
HALF = r"^(-0|[+-]?0[0-9]+|[+-]?[0-9]{2,}[eE].*)$"  # not how numbers are written, but half of -0,5, 1,05 or 1,25e9
THOUSANDS = {mark: rf"^[+-]?[1-9][0-9]{{0,2}}{re.escape(mark)}[0-9]{{3}}$" for mark in ".,"}
DECIMALS = r"^[^.,]*[.,]?([0-9]*).*$"
YEARS = (1800, 2100)
BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before that of UTF-16, which it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
PREAMBLE = re.compile(r"([ \t]*(?P<comment>#.*)?|sep=(?P<delimiter>.))\n")  # the last as Excel writes it
FILL = "Fill gaps, drop columns of text by drop=, and name the column of row names by index=."


@dataclass(frozen=True, eq=False)
class _Table:
    """A text split into cells.

    Attributes:
        path: The file.
        text: Its rows, of which the first may hold names.
        above: The number of lines above them.
        comment: The last of these, if it is a comment.
        dialect: How its cells are separated.
        first: The cells of the first row.
        columns: The cells of the rows below, one pyarrow array per column.
    """

    path: Path
    text: str
    above: int
    comment: str
    dialect: Dialect
    first: list[str]
    columns: list[Any]

    def refusal(self, got: str, remedy: str = FILL) -> InputError:
        return InputError(f"{self.path} must hold rows of numbers, all of one length, but has {got}. {remedy}")

    def place(self, columns: Iterable[int], *, header: bool) -> str:
        """Describes the first cell of these columns that is not a number, or the first row of another length."""
        rows, width = self.dialect.reader(self.text), len(self.columns)
        if header:
            next(rows)
        for row in rows:
            row, line = row or [""] * (width == 1), self.above + rows.line_num
            for column in columns:
                if column < len(row) and not self.dialect.is_number(row[column].strip()):
                    title = f" ({self.first[column]})" if header and column < len(self.first) else ""
                    return f"{row[column]!r} in column {column + 1}{title}, line {line}"
            if row and len(row) != width:
                return f"{len(row)} columns in line {line}, {width} above it"
        return "rows that can't be separated"

    def numbers(self, column: int) -> np.ndarray | None:
        """A column below the first row; None if one of its cells is not a number."""
        import pyarrow.compute as pc

        cells = self.columns[column]
        if pc.all(pc.match_substring_regex(cells, NUMBER[self.dialect.decimal])).as_py() is False:
            return None
        cells = pc.utf8_ltrim(cells, "+")
        if self.dialect.decimal == ",":
            cells = pc.replace_substring(cells, ",", ".")
        return pc.cast(cells, "double").to_numpy()

    def decimals(self, columns: Iterable[int]) -> np.ndarray:
        """The least and greatest numbers of decimals in each of these columns below the first row, shape (k, 2)."""
        import pyarrow.compute as pc

        lengths = (
            pc.utf8_length(pc.replace_substring_regex(self.columns[column], DECIMALS, r"\1")) for column in columns
        )
        return np.array([[pc.min(each).as_py(), pc.max(each).as_py()] for each in lengths])

    def example(self, pattern: str, columns: Iterable[int], *, unless: str = "^$") -> str | None:
        """The first cell of these columns that matches `pattern` but not `unless`; None if there is none."""
        import pyarrow.compute as pc

        for cells in (self.columns[column] for column in columns):
            found = pc.and_not(pc.match_substring_regex(cells, pattern), pc.match_substring_regex(cells, unless))
            if (row := pc.index(found, True).as_py()) >= 0:
                return cells[row].as_py()
        return None

    def with_first_row(self) -> _Table:
        """The same table with the first row added to the columns."""
        import pyarrow

        heads = [pyarrow.array([cell], pyarrow.large_string()) for cell in self.first]
        columns = [pyarrow.chunked_array([head, *column.chunks]) for head, column in zip(heads, self.columns)]
        return replace(self, columns=columns)


def read_text(path: Path, options: TableOptions, limit: int) -> Samples:
    """Reads a table of numbers from a text file, which may be compressed by gzip.

    UTF-8, UTF-16, UTF-32 and eight-bit encodings are recognised; in the last, names that are not ASCII may come out
    wrong. Blank lines, and lines that begin with # above the first row, are skipped.

    Arguments:
        path: The file.
        options: See :class:`TableOptions`.
        limit: Bytes that the text, and its numbers, may take in memory.

    Returns:
        Numbers rounded to the nearest float64, shape (n, d).

    Raises:
        InputError: A table that can be read in two ways (the option that settles it is named), one larger than `limit`,
            text or gaps instead of numbers, rows of unequal lengths, whole numbers that float64 can't hold.
    """
    import_pyarrow(path)
    table = _split(path, _decoded(path, limit), options, limit)
    numbers = [table.numbers(column) for column in range(len(table.columns))]
    header, names, notes = _names(table, numbers, options)
    if not header and table.first:
        table = table.with_first_row()
        numbers = [
            np.concatenate([[table.dialect.number(cell)], below])
            if below is not None and table.dialect.is_number(cell)
            else None
            for cell, below in zip(table.first, numbers)
        ]
    kept, left_out = choose_columns(path, names, len(numbers), numbers[0] if numbers else None, options)
    values = [column for column in (numbers[place] for place in kept) if column is not None]
    if len(values) < len(kept):
        raise table.refusal(table.place(kept, header=header))
    _check_cells(table, kept, options)
    stacked = np.column_stack(values) if values else np.empty((0, 1))
    chosen = None if names is None else tuple(names[column] for column in kept)
    labels = None
    if options.by is not None:
        labels = tuple(table.columns[place_of(path, names, len(numbers), options.by)].to_pylist())
    return Samples(torch.from_numpy(stacked), chosen, (*notes, *left_out), labels=labels)


def _decoded(path: Path, limit: int) -> str:
    """The text of a file, with \n at the end of each line."""
    with path.open("rb") as file:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        stream = gzip.GzipFile(fileobj=file) if packed else file
        content = stream.read(limit + 1)
    check_size(path, len(content), limit, each=1)
    encoding = next((name for mark, name in BOMS.items() if content.startswith(mark)), None)
    if encoding is None and b"\0" in content[:1000]:  # UTF-16 without a mark: numbers have a zero in every other byte
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        if encoding is not None or b"\0" in content:
            raise
        text = content.decode("cp1252", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _split(path: Path, text: str, options: TableOptions, limit: int) -> _Table:
    """Splits a text into cells."""
    above, start, comment, delimiter = 0, 0, "", options.delimiter
    while (line := PREAMBLE.match(text, start)) is not None:
        above, start, comment = above + 1, line.end(), (line["comment"] or "").strip("# \t")
        delimiter = delimiter or line["delimiter"]
    text = text[start:]
    dialect = find_dialect(path, text, delimiter, options.decimal)
    text = dialect.prepared(text)
    reader = dialect.reader(text)
    first = [cell.strip() for cell in next(reader, [])]
    below = "".join(itertools.islice(lines(text), reader.line_num, None)).rstrip("\n")
    width = len(next(dialect.rows(below), first))
    cells = width * (1 + below.count("\n"))
    check_size(path, cells, limit)
    check_memory(4 * len(text) + 16 * cells, f"the table {path}", "Save it as .npy.")
    table = _Table(path, text, above, comment, dialect, first, [[]] * width)
    try:
        columns = _columns(below, width, dialect.delimiter or NO_CHARACTER)
    except ValueError:  # from pyarrow: a row of another length
        raise table.refusal(table.place(range(width), header=not any(map(dialect.is_number, first)))) from None
    table = replace(table, columns=columns)
    if width > 1 and first[width - 1 :] in ([], [""]) and table.example(".", [width - 1]) is None:
        table = replace(table, first=first[: width - 1], columns=columns[:-1])  # rows that end with a delimiter
    return table


def _columns(text: str, width: int, delimiter: str) -> list[Any]:
    """The cells of each column as text."""
    import pyarrow
    import pyarrow.compute as pc
    from pyarrow import csv

    names = [str(column) for column in range(width)]
    if not text:
        return [pyarrow.chunked_array([], pyarrow.large_string())] * width
    table = csv.read_csv(
        pyarrow.BufferReader(text.encode()),
        read_options=csv.ReadOptions(column_names=names),
        parse_options=csv.ParseOptions(
            delimiter=delimiter, newlines_in_values='"' in text, ignore_empty_lines=width > 1
        ),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pyarrow.large_string())),
    )
    return [pc.utf8_trim_whitespace(column) for column in table.columns]


def _names(
    table: _Table, numbers: Sequence[np.ndarray | None], options: TableOptions
) -> tuple[bool, tuple[str, ...] | None, tuple[str, ...]]:
    """Whether the first row holds names; the names of the columns, if any; notes about them."""
    first, width, path = table.first, len(table.columns), table.path
    header = options.header
    notes: tuple[str, ...] = ()
    unnamed = len(first) == width - 1 and _names_rows(table, numbers[0])
    if header is None:
        header, notes = _is_header(table, numbers, by_width=unnamed)
    if not header:
        names = next(table.dialect.rows(table.dialect.prepared(table.comment)), []) if options.header is None else []
        fitting = len(names) == width > 1 and not any(map(table.dialect.is_number, names))
        return False, tuple(names) if fitting else None, ()
    if unnamed:
        first = ["", *first]
    if len(first) != width:
        raise InputError(
            f"{path} has {len(first)} names above rows of {width} cells. Correct the first line; if 1,5 is one number, "
            "say decimal=comma."
        )
    return True, tuple(first), notes


def _names_rows(table: _Table, first: np.ndarray | None) -> bool:
    """Whether the first column holds row names, as R writes them, if it alone has no name above it."""
    if first is None:
        return True
    if table.dialect.delimiter == "," and not table.example(r"\.", range(1, len(table.columns))):  # as in 1,5 and 2,5
        return len(first) > 4 and counts(first)
    return np.array_equal(first, np.floor(first)) and len(np.unique(first)) == len(first)


def _is_header(table: _Table, numbers: Sequence[np.ndarray | None], *, by_width: bool) -> tuple[bool, tuple[str, ...]]:
    """Whether the first row holds names, and notes about it. Raises :class:`InputError` if that is unclear."""
    first, path = table.first, table.path
    are_numbers = list(map(table.dialect.is_number, first))
    if by_width or not any(are_numbers):
        return by_width or any(cell.lower() not in GAPS for cell in first), ()
    if len(first) != len(numbers):
        rows = table.dialect.reader(table.text)
        next(rows), next(rows)
        raise table.refusal(f"{len(numbers)} columns in line {table.above + rows.line_num}, {len(first)} above it")
    below = {place: column for place, column in enumerate(numbers) if are_numbers[place] and column is not None}
    if not below or not len(next(iter(below.values()))):
        return False, ()
    told, values = few([cell for cell in first if cell], 3), np.column_stack(list(below.values()))
    why, clear = _like_names(table, list(below), values)
    if why and (clear or not all(are_numbers)):
        if (values == [table.dialect.number(first[column]) for column in below]).all(axis=1).any():
            raise table.refusal(f"a row below that repeats the first line, {told}", "Leave it out.")
        return True, (f"The first line of {path}, {told}, was taken for names; header=false reads it as a sample.",)
    if why:
        raise InputError(f"The first line of {path}, {told}, may hold names: {why}. Say header=true or header=false.")
    return False, ()


def _like_names(table: _Table, columns: Sequence[int], below: np.ndarray) -> tuple[str, bool]:
    """Why a first row of numbers may hold names, or "" if nothing suggests it; and whether it must hold names.

    Arguments:
        table: The text.
        columns: The columns that hold numbers.
        below: These numbers, without the first row, shape (n, k).
    """
    cells = [table.first[column] for column in columns]
    values = np.array(list(map(table.dialect.number, cells)))
    (n, k), steps = below.shape, np.diff(values)
    if len(set(values.tolist())) < k or not np.isfinite(values).all():
        return "", False
    whole = all(re.match(WHOLE, cell) for cell in cells)
    digits, (least, most) = np.array([len(re.sub(DECIMALS, r"\1", cell)) for cell in cells]), table.decimals(columns).T
    shorter = (2 * digits <= least) & (least > 0)  # with fewer decimals than the rows below
    alone = shorter.all() or (n > 4 and ((digits > most) & (most == 0)).all())
    alone = alone or (not any("e" in cell.lower() for cell in cells) and table.example("^[^eE]*$", columns) is None)
    line, _, rest = table.text.partition("\n")
    if re.fullmatch(r'("[^"]*"(\W|$))+', line) and '"' not in rest:
        return "it alone is in quotes", True
    if whole and counts(values) and (values[0] == 0 or k > 2 or alone):
        return f"it holds {few(cells, 2)}, like numbered columns", shorter.any() and k > 1 and n * k > 5
    if alone:
        return "its numbers are formatted differently from those below", False
    rises, even = k > 1 and (steps > 0).all(), k > 1 and np.allclose(steps, steps[0], rtol=1e-6, atol=0)
    if rises and (k > 5 or (k > 3 and even)) and (np.diff(below) > 0).all(axis=1).mean() < 0.5:
        return "its numbers rise from column to column, and those below don't", False
    recent = [(YEARS[0] <= numbers) & (numbers <= YEARS[1]) for numbers in (values, below)]
    if whole and (k == 1 or rises) and recent[0].all() and not recent[1].all(axis=1).any():
        return "it holds years, and no row below does", False
    low, high = below.min(axis=0), below.max(axis=0)
    if n > 4 and (k > 1 or whole) and ((values < 2 * low - high) | (values > 2 * high - low)).all():
        return "it lies far from all rows below", False
    return "", False


def _check_cells(table: _Table, columns: Sequence[int], options: TableOptions) -> None:
    """Raises :class:`InputError` for cells that may mean a different number, or one that float64 can't hold."""
    import pyarrow.compute as pc

    between, mark = table.dialect.delimiter, table.dialect.decimal
    if options.decimal is None and (mark == "," or between == ";"):
        marked = table.example(re.escape(mark), columns)
        if marked and table.example(re.escape(mark), columns, unless=THOUSANDS[mark]) is None:
            raise InputError(
                f"The marks in numbers of {table.path}, such as {marked}, may separate decimals or thousands. Say "
                f"decimal={'comma' if mark == ',' else 'point'}, or remove the marks."
            )
    commas_only = options.decimal is None and between == "," and table.example(r"\.", columns) is None
    if commas_only and (half := table.example(HALF, columns)) is not None:
        raise InputError(
            f"The commas in {table.path} may be decimal marks, since {half} is an unusual way to write a number. Say "
            "decimal=comma, or decimal=point if they separate columns."
        )
    for column in columns:
        cells = table.columns[column]
        for cell in map(str, cells.filter(pc.match_substring_regex(cells, LONG))):
            if int(cell) != int(float(cell)):
                raise InputError(
                    f"float64 can't represent {cell} in {table.path}. Subtract a common offset from all samples."
                )
