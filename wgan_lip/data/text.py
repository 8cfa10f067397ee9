"""Tables in text files: delimiter, decimal mark, encoding and names, found where they are clear.

Where they are not, the table is refused, and the message names the choice that settles it. So no first row that may be
a row of names becomes a sample, and no half of 1,5 becomes a number of its own, without a word.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wgan_lip.data.tables import (
    DELIMITERS,
    Samples,
    TableOptions,
    check_size,
    choose_columns,
    counts,
    import_pyarrow,
)
from wgan_lip.utils.checks import InputError, check_memory, few

__all__ = ["read_text"]

NUMBER = {  # by decimal mark; a point may end a number, as in numpy's "1.", a comma may not
    ".": r"(?i)^[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|nan|inf|infinity)$",
    ",": r"(?i)^[+-]?(([0-9]+(,[0-9]+)?|,[0-9]+)(e[+-]?[0-9]+)?|nan|inf|infinity)$",
}
WHOLE = r"^[+-]?[0-9]+$"
LONG = r"^[+-]?[0-9]{16,}$"  # whole numbers that may lie beyond 2^53
HALF = r"^(-0|[+-]?0[0-9]+|[+-]?[0-9]{2,}[eE].*)$"  # no number is written so, but half of -0,5 and 1,05 and 1,25e9 is
THOUSANDS = {mark: rf"^[+-]?[1-9][0-9]{{0,2}}{re.escape(mark)}[0-9]{{3}}$" for mark in ".,"}
YEARS = (1800, 2100)
GAPS = ("", "na", "n/a", "null", "none")  # what stands where a number is missing
BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before that of UTF-16, which it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
USUAL = {".csv": ",", ".tsv": "\t", ".txt": " "}
PREAMBLE = re.compile(r"([ \t]*(?P<comment>#.*)?|sep=(?P<delimiter>.))\n")  # the last as Excel writes it
NO_CHARACTER = "\x1f"  # stands for the delimiter of a single column
FILL = "Fill gaps, drop columns of text by drop=, and name a column of row names by index=."


@dataclass(frozen=True)
class _Dialect:
    """How a text says where a number begins and where its decimals do.

    Attributes:
        delimiter: A character; " " is any run of blanks, "" stands for a single column.
        decimal: A point or a comma.
    """

    delimiter: str
    decimal: str

    def __str__(self) -> str:
        words = {character: word for word, character in DELIMITERS.items()}
        delimiter = f"delimiter={words.get(self.delimiter, self.delimiter)} " if self.delimiter else ""
        return f"{delimiter}decimal={words.get(self.decimal, 'point')}"

    def prepared(self, text: str) -> str:
        """The text with one character between two columns."""
        return re.sub(r"(?m)^ | $", "", re.sub(r"[ \t]+", " ", text)) if self.delimiter == " " else text

    def reader(self, lines: Iterable[str]) -> Any:
        return csv.reader(lines, delimiter=self.delimiter or NO_CHARACTER, skipinitialspace=True)

    def rows(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """The cells of each row, without the blanks around them."""
        return ([cell.strip() for cell in row] for row in self.reader(lines) if row)

    def is_number(self, cell: str) -> bool:
        return re.match(NUMBER[self.decimal], cell) is not None

    def number(self, cell: str) -> float:
        return float(cell.replace(self.decimal, "."))

    def meaning(self, rows: Sequence[list[str]]) -> list[list[float | str]] | None:
        """The rows below the first as numbers, row names and gaps; None where they are something else."""
        if len(set(map(len, rows))) != 1:
            return None
        meant = [[self.number(cell) if self.is_number(cell) else cell for cell in row] for row in rows]
        texts = [cell for row in meant for cell in row[1:] or row if type(cell) is str]
        if any(cell.lower() not in GAPS for cell in texts) or len(texts) == sum(len(row[1:] or row) for row in meant):
            return None
        return None if any(type(row[0]) is str and self._is_cut_wrongly(row[0]) for row in meant) else meant

    def _is_cut_wrongly(self, name: str) -> bool:
        """Whether a row name holds what would be a number of its own in another dialect."""
        return any(re.match(pattern, part) for part in re.split("[,;|\t ]", name) for pattern in NUMBER.values())


@dataclass(frozen=True, eq=False)
class _Table:
    """A text taken apart.

    Attributes:
        path: Where it was read.
        text: Its rows, of which the first may hold names.
        above: How many lines stand above them.
        comment: The last of these, where it is a comment.
        dialect: How its cells are told apart.
        first: The cells of the first row.
        columns: The cells of the rows below, a column each, as arrays of pyarrow.
    """

    path: Path
    text: str
    above: int
    comment: str
    dialect: _Dialect
    first: list[str]
    columns: list[Any]

    def refusal(self, got: str, remedy: str = FILL) -> InputError:
        return InputError(f"Expected {self.path} to hold equally long rows of numbers. Got {got}. {remedy}")

    def place(self, columns: Iterable[int], header: bool) -> str:
        """Where the first cell of these columns stands that holds no number, or the first row of another length."""
        rows, width = self.dialect.reader(io.StringIO(self.text)), len(self.columns)
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
        return "rows that can't be told apart"

    def numbers(self, column: int) -> np.ndarray | None:
        """A column below the first row; None where one of its cells holds no number."""
        import pyarrow.compute as pc

        cells = pc.utf8_trim_whitespace(self.columns[column])
        if pc.all(pc.match_substring_regex(cells, NUMBER[self.dialect.decimal])).as_py() is False:
            return None
        cells = pc.utf8_ltrim(cells, "+")
        if self.dialect.decimal == ",":
            cells = pc.replace_substring(cells, ",", ".")
        return pc.cast(cells, "double").to_numpy()

    def decimals(self, columns: Iterable[int]) -> tuple[int, int]:
        """The least and the greatest number of decimals in these columns, below the first row."""
        import pyarrow.compute as pc

        mark = re.escape(self.dialect.decimal)
        kept = rf"^[^{mark}]*{mark}?([0-9]*).*$"
        digits = [pc.utf8_length(pc.replace_substring_regex(self.columns[column], kept, r"\1")) for column in columns]
        return min(pc.min(each).as_py() for each in digits), max(pc.max(each).as_py() for each in digits)

    def matching(self, pattern: str, columns: Iterable[int]) -> list[str]:
        """The different cells of these columns, below the first row, that match."""
        import pyarrow.compute as pc

        trimmed = [pc.utf8_trim_whitespace(self.columns[column]) for column in columns]
        found = [cells.filter(pc.match_substring_regex(cells, pattern)).unique().to_pylist() for cells in trimmed]
        return [cell for cells in found for cell in cells]

    def with_first_row(self) -> _Table:
        """The same, with the first row among those below it."""
        import pyarrow

        heads = [pyarrow.array([cell], pyarrow.large_string()) for cell in self.first]
        columns = [pyarrow.chunked_array([head, *column.chunks]) for head, column in zip(heads, self.columns)]
        return replace(self, columns=columns)


def read_text(path: Path, options: TableOptions, limit: int) -> Samples:
    """Reads a table of numbers from a text file, also one compressed by gzip.

    UTF-8, UTF-16, UTF-32 and eight-bit encodings are told apart; of the last, names that are not ASCII may come out
    differently. Blank lines, and lines that begin with # above the first row, are skipped.

    Arguments:
        path: The file.
        options: See :class:`TableOptions`.
        limit: Bytes that the text, and its numbers, may take in memory.

    Returns:
        Numbers rounded to the nearest float64, shape (n, d).

    Raises:
        InputError: A table that can be read in two ways (the choice is named), one larger than `limit`, text or gaps
            where numbers are due, rows of unequal lengths, whole numbers that float64 can't hold.
    """
    import_pyarrow(path)
    table = _split(path, _decoded(path, limit), options, limit)
    numbers = [table.numbers(column) for column in range(len(table.columns))]
    header, names, notes = _names(table, numbers, options)
    if not header and table.first:
        table = table.with_first_row()
        numbers = [table.numbers(column) for column in range(len(table.columns))]
    kept, left_out = choose_columns(path, names, len(numbers), numbers[0] if numbers else None, options)
    if any(numbers[column] is None for column in kept):
        raise table.refusal(table.place(kept, header))
    _check_cells(table, kept, options)
    values = np.column_stack([numbers[column] for column in kept]) if kept else np.empty((0, 1))
    return Samples(values, names and tuple(names[column] for column in kept), (*notes, *left_out))


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
    """Takes a text apart."""
    above, start, comment, delimiter = 0, 0, "", options.delimiter
    while (line := PREAMBLE.match(text, start)) is not None:
        above, start, comment = above + 1, line.end(), (line["comment"] or "").strip("# \t")
        delimiter = delimiter or line["delimiter"]
    text = text[start:]
    dialect = _dialect(path, text, delimiter, options.decimal)
    text = dialect.prepared(text)
    stream = io.StringIO(text)
    first = next(dialect.rows(stream), [])
    below = text[stream.tell() :].rstrip("\n")
    width = len(next(dialect.rows(io.StringIO(below)), first))
    cells = width * (1 + below.count("\n"))
    check_size(path, cells, limit)
    check_memory(4 * len(text) + 16 * cells, f"the table {path}", "Save it as .npy.")
    table = _Table(path, text, above, comment, dialect, first, [[]] * width)
    try:
        columns = _columns(below, width, dialect.delimiter or NO_CHARACTER)
    except ValueError:  # of pyarrow: a row of another length
        header = not any(map(dialect.is_number, first))
        raise table.refusal(table.place(range(width), header)) from None
    table = replace(table, columns=columns)
    if width > 1 and first[width - 1 :] in ([], [""]) and not table.matching(".", [width - 1]):
        table = replace(table, first=first[: width - 1], columns=columns[:-1])  # rows that end with a delimiter
    return table


def _columns(text: str, width: int, delimiter: str) -> list[Any]:
    """The cells of each column as text."""
    import pyarrow
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
    return table.columns


def _dialect(path: Path, text: str, delimiter: str | None, decimal: str | None) -> _Dialect:
    """The one in which the rows below the first are numbers, but for their names."""
    lines, more = _head(text)
    below = "".join(lines[1:] or lines)
    usual = _Dialect(delimiter or USUAL[Path(path.name.lower().removesuffix(".gz")).suffix], decimal or ".")
    candidates = [
        _Dialect(between, mark)
        for between in ([usual.delimiter, "", *DELIMITERS.values()] if delimiter is None else [delimiter])
        for mark in (".," if decimal is None else decimal)
        if (between != mark or '"' in below) and (between != " " or delimiter or "\t" not in below)
    ]
    ways: dict[_Dialect, list[list[float | str]]] = {}
    even: list[_Dialect] = []  # ways in which the first row has as many cells as those below, and several
    named: list[_Dialect] = []  # those in which it names the columns
    numbers: dict[_Dialect, int] = {}
    for dialect in candidates:
        try:
            rows = list(dialect.rows(io.StringIO(dialect.prepared("".join(lines)))))
        except csv.Error:  # such as a cell of a megabyte, where the delimiter is another one
            continue
        rest = rows[1 : -1 if more else None] or rows
        meaning = dialect.meaning(rest)
        if meaning is not None and repr(meaning) not in map(repr, ways.values()):
            ways[dialect] = meaning
            if len(rows[0]) == len(meaning[0]) > 1:
                even.append(dialect)
                named += [dialect] * (not any(map(dialect.is_number, rows[0])))
        if len(set(map(len, rest))) == 1 and len(rest[0]) > 1:
            numbers[dialect] = sum(map(dialect.is_number, itertools.chain(*rest)))
    if not ways:  # columns of text: they may be left out, or are told of
        return max(numbers, key=lambda dialect: numbers[dialect], default=usual)
    if len(ways) > 1 and len(named) == 1:
        return named[0]
    if len(ways) > 1 and usual.delimiter == "," and usual in even:
        return usual
    ways_told, width = list(ways), len(next(iter(ways.values()))[0])
    if width == 1 and ways_told[0].decimal == "," and delimiter is decimal is None and re.search('^[^"]*,', below):
        ways_told.append(_Dialect(",", "."))  # in which rows have gaps or unequal lengths
    if len(ways_told) > 1:
        raise InputError(f"The table {path} can be read in two ways. Say {ways_told[0]}, or {ways_told[1]}.")
    return ways_told[0]


def _head(text: str) -> tuple[list[str], bool]:
    """Some of the first lines, and whether there are more."""
    lines: list[str] = []
    for line in io.StringIO(text):
        if len(lines) == 100 or (len(lines) > 2 and sum(map(len, lines)) > 200_000):
            return lines, True
        lines.append(line)
    return lines, False


def _names(
    table: _Table, numbers: Sequence[np.ndarray | None], options: TableOptions
) -> tuple[bool, tuple[str, ...] | None, tuple[str, ...]]:
    """Whether the first row holds names; the names of the columns, if there are any; what to say of it."""
    first, width, path = table.first, len(table.columns), table.path
    header, notes = options.header, ()
    unnamed = len(first) == width - 1 and _names_rows(table, numbers[0])
    if header is None:
        header, notes = _is_header(table, numbers, by_width=unnamed)
    if not header:
        names = next(table.dialect.rows([table.comment]), []) if options.header is None else []
        fitting = len(names) == width > 1 and not any(map(table.dialect.is_number, names))
        return False, tuple(names) if fitting else None, ()
    if unnamed:
        first = ["", *first]
    if len(first) != width:
        raise InputError(
            f"Expected {path} to name each of its columns. Got {len(first)} names above rows of {width} cells. Repair "
            "the first line; where 1,5 is one number, say decimal=comma."
        )
    return True, tuple(first), notes


def _names_rows(table: _Table, first: np.ndarray | None) -> bool:
    """Whether a first column without a name above it, though there is one above each other, names the rows, as of R."""
    if first is None:
        return True
    if table.dialect.delimiter == "," and not table.matching(r"\.", range(1, len(table.columns))):  # of 1,5 and 2,5
        return len(first) > 4 and counts(first)
    return np.array_equal(first, np.floor(first)) and len(np.unique(first)) == len(first)


def _is_header(table: _Table, numbers: Sequence[np.ndarray | None], *, by_width: bool) -> tuple[bool, tuple[str, ...]]:
    """Whether the first row holds names, and what to say of it. Raises :class:`InputError` where it may."""
    first, path = table.first, table.path
    are_numbers = list(map(table.dialect.is_number, first))
    if by_width or not any(are_numbers):
        return by_width or any(cell.lower() not in GAPS for cell in first), ()
    if len(first) != len(numbers):
        rows = table.dialect.reader(io.StringIO(table.text))
        next(rows), next(rows)
        raise table.refusal(f"{len(numbers)} columns in line {table.above + rows.line_num}, {len(first)} above it")
    columns = [column for column in range(len(first)) if are_numbers[column] and numbers[column] is not None]
    if not columns or not len(numbers[columns[0]]):
        return False, ()
    told = few([cell for cell in first if cell], 3)
    values = np.column_stack([numbers[column] for column in columns])
    why, clear = _like_names(table, columns, values)
    if why and (clear or not all(are_numbers)):
        names = [table.dialect.number(first[column]) for column in columns]
        if (values == names).all(axis=1).any():
            raise table.refusal(f"a row below that repeats the first line, {told}", "Leave it out.")
        return True, (f"The first line of {path}, {told}, was taken for names; header=false reads it as a sample.",)
    if why:
        raise InputError(f"The first line of {path}, {told}, may hold names: {why}. Say header=true or header=false.")
    return False, ()


def _like_names(table: _Table, columns: Sequence[int], below: np.ndarray) -> tuple[str, bool]:
    """Why the first row may hold names, "" where nothing speaks for it, though it holds numbers; whether it must.

    Arguments:
        table: The text.
        columns: Those that hold numbers.
        below: These numbers, without the first row, shape (n, k).
    """
    cells = [table.first[column] for column in columns]
    values = np.array(list(map(table.dialect.number, cells)))
    (n, k), steps = below.shape, np.diff(values)
    if len(set(values.tolist())) < k or not np.isfinite(values).all():
        return "", False
    whole = all(re.match(WHOLE, cell) for cell in cells)
    digits = [len(re.sub(r"^[^.,]*[.,]?([0-9]*).*$", r"\1", cell)) for cell in cells]
    least, most = table.decimals(columns)
    alone = 2 * max(digits) <= least > 0 or (n > 4 and min(digits) > most == 0)  # as another programme writes numbers
    alone = alone or (not any("e" in cell.lower() for cell in cells) and not table.matching("^[^eE]*$", columns))
    counting = whole and counts(values)
    line, _, rest = table.text.partition("\n")
    if re.fullmatch(r'("[^"]*"(\W|$))+', line) and '"' not in rest:
        return "it alone stands in quotes", True
    if counting and (values[0] == 0 or k > 2 or alone):
        return f"it holds {few(cells, 2)}, as of numbered columns", alone and k > 1 and n * k > 5
    if alone:
        return "its numbers are written in another way than those below", False
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
    """Raises :class:`InputError` for cells of numbers that may mean another number, or that float64 can't hold."""
    between, mark = table.dialect.delimiter, table.dialect.decimal
    if options.decimal is None and (mark == "," or between == ";"):
        marked = table.matching(re.escape(mark), columns)
        if marked and all(re.match(THOUSANDS[mark], cell) for cell in marked):
            raise InputError(
                f"The marks in numbers of {table.path}, such as {marked[0]}, may set off decimals or thousands. Say "
                f"decimal={'comma' if mark == ',' else 'point'}, or take the marks out."
            )
    comma_only = options.decimal is None and between == "," and not table.matching(r"\.", columns)
    if comma_only and (halves := table.matching(HALF, columns)):
        raise InputError(
            f"The commas in {table.path} may be decimal marks: numbers are not written {halves[0]}. Say "
            "decimal=comma, or decimal=point if they stand between columns."
        )
    for cell in table.matching(LONG, columns):
        if int(cell) != int(float(cell)):
            raise InputError(
                f"Expected {table.path} to hold numbers that float64 can hold. Got {cell}. Subtract a common offset "
                "from all samples."
            )
