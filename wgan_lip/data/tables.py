"""What is read from a file, and which of a table's columns are samples."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from wgan_lip.utils.checks import InputError, counts, few

__all__ = ["DELIMITERS", "Samples", "TableOptions", "check_size", "choose_columns", "import_pyarrow", "place_of"]

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
DECIMALS = {"point": ".", "comma": ","}
UNNAMED = r"(Unnamed: 0[.0-9]*)?"
"""What stands above row names that have no name, and what pandas calls them when it has read and written them again."""
ROWS = r"(?i)index|level_0|idx|id|row|row[_ ]?(id|names?|numbers?)|X1?|\.\.\.1"
"""Names that are given to row names and row numbers, the last by R when it has read and written them again."""


@dataclass(frozen=True, eq=False)
class Samples:
    """What was read from a file.

    Attributes:
        values: Samples, shape (n, d); bytes, of dtype uint8, only where they are pixels.
        names: What the file calls the d columns; None where it does not.
        notes: What was left out and what was taken for names, in sentences.
        image_shape: (c, h, w) with c·h·w = d where samples are images.
        labels: The n cells of the column that groups the samples, where one was named; None or "" where one is empty.
    """

    values: Tensor
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    labels: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class TableOptions:
    """What is known of a table or an array; None lets it be found, and refused where it is not clear.

    Arguments:
        header: Whether the first line holds the names of the columns.
        index: The column of row names or row numbers, which is left out: its name, or its number, from 0. True stands
            for the first column, False says that there is none.
        columns: The columns that are read, in this order, by name or number; all by default.
        drop: Columns that are left out, by name or number.
        delimiter: What stands between columns: one character, or comma, semicolon, tab, pipe, or space for any run of
            blanks.
        decimal: The decimal mark, point or comma.
        obsm: The embedding that is read of an `.h5ad` file, such as X_pca; X by default.
        layout: The order of the axes of an array of images; see :func:`wgan_lip.data.images.image_rows`.
        by: The column that groups the samples, and is then no coordinate, by name or number; of an `.h5ad` file the
            name of a column of obs.

    Raises:
        InputError: An option of another kind.
    """

    header: bool | None = None
    index: bool | int | str | None = None
    columns: Sequence[int | str] | None = None
    drop: Sequence[int | str] | None = None
    delimiter: str | None = None
    decimal: str | None = None
    obsm: str | None = None
    layout: str | None = None
    by: int | str | None = None

    def __post_init__(self) -> None:
        if self.header is not None and type(self.header) is not bool:
            raise InputError(f"Expected header to be true or false. Got {self.header!r}.")
        if self.index is not None and type(self.index) not in (bool, int, str):
            raise InputError(f"Expected index to be a column, true or false. Got {self.index!r}.")
        if self.by is not None and type(self.by) not in (int, str):
            raise InputError(f"The column that groups the samples must be a name or a number. Got by={self.by!r}.")
        for option in ("columns", "drop"):
            chosen = getattr(self, option)
            chosen = [chosen] if type(chosen) in (int, str) else chosen
            if chosen is not None and not (chosen and all(type(column) in (int, str) for column in chosen)):
                raise InputError(f"Expected {option} to be names or numbers of columns. Got {chosen!r}.")
            object.__setattr__(self, option, chosen and tuple(chosen))
        for option, words in (("delimiter", DELIMITERS), ("decimal", DECIMALS)):
            object.__setattr__(self, option, words.get(getattr(self, option), getattr(self, option)))
        if self.delimiter is not None and (len(str(self.delimiter)) != 1 or self.delimiter in ('"', "\n", "\r")):
            raise InputError(
                f"Expected delimiter to be one character or {', '.join(DELIMITERS)}. Got {self.delimiter!r}."
            )
        if self.decimal is not None and self.decimal not in DECIMALS.values():
            raise InputError(f"Expected decimal to be point or comma. Got {self.decimal!r}.")

    @property
    def given(self) -> list[str]:
        """The names of the options that were given."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]


def choose_columns(
    path: Path, names: Sequence[str] | None, width: int, first: np.ndarray | None, options: TableOptions
) -> tuple[list[int], tuple[str, ...]]:
    """Which columns of a table are samples, and notes on those that are left out unasked.

    The first column is taken for row names where it has no name above it, though the others have, and holds text or
    whole numbers.

    Arguments:
        path: The table.
        names: What its columns are called, None where it does not say.
        width: How many columns there are.
        first: The numbers in the first one; None where it holds text.
        options: See :class:`TableOptions`.

    Raises:
        InputError: An unknown column; a first column that may number the rows or be a coordinate.
    """

    def number(column: int | str) -> int:
        return place_of(path, names, width, column)

    dropped = [number(column) for column in (*(options.drop or ()), *([] if options.by is None else [options.by]))]
    if options.index is not None and options.index is not False:
        dropped.append(0 if options.index is True else number(options.index))
    if options.columns is not None:
        return [column for column in map(number, options.columns) if column not in dropped], ()
    kept = [column for column in range(width) if column not in dropped]
    may_name = options.index is None and 0 in kept and width > 1
    if may_name and _names_rows(path, None if names is None else names[0], first):
        return kept[1:], (f"The first column of {path} was taken for row names; index=false reads it.",)
    return kept, ()


def place_of(path: Path, names: Sequence[str] | None, width: int, column: int | str) -> int:
    """The number of a column that is named, or numbered. Raises :class:`InputError` where there is none."""
    if names is not None and str(column) in names:
        return list(names).index(str(column))
    if type(column) is int and 0 <= column < width:
        return column
    known = f"0 to {width - 1}" if names is None else few([name or "(no name)" for name in names], 20)
    raise InputError(f"Expected a column of {path}: {known}. Got {column!r}.")


def _names_rows(path: Path, name: str | None, numbers: np.ndarray | None) -> bool:
    """Whether the first of several columns, called `name`, holds no samples."""
    choice = "Say index=true where it names the rows, index=false where it is a coordinate."
    if name is not None and re.fullmatch(UNNAMED, name):
        if numbers is None or (numbers == np.floor(numbers)).all():
            return True
        raise InputError(f"The first column of {path} has no name, though the others have. {choice}")
    if numbers is None or len(numbers) < 3:
        return False
    ordered = np.sort(numbers)
    if counts(numbers) or (len(numbers) > 5 and counts(ordered)):
        once = "counts" if counts(numbers) else "holds each once of"
        raise InputError(f"The first column of {path} {once} {ordered[0]:.0f}, {ordered[1]:.0f}, … {choice}")
    if re.fullmatch(ROWS, name or "") and (ordered == np.floor(ordered)).all() and (np.diff(ordered) > 0).all():
        raise InputError(f"The first column of {path}, {name}, holds another whole number in every row. {choice}")
    return False


def check_size(path: Path, numbers: int, limit: int, *, each: int = 8) -> None:
    """Raises :class:`InputError` where so many numbers, of so many bytes each, take more than `limit` bytes."""
    if each * numbers > limit:
        raise InputError(
            f"Expected {path} to fit into {limit / 2**30:.3g} GiB of memory. Got {each * numbers / 2**30:.3g} GiB. "
            "Save it as .npy, of which only the rows in use are read."
        )


def import_pyarrow(path: Path) -> Any:
    """pyarrow, of a version whose files can't run code."""
    try:
        import pyarrow

        version = pyarrow.__version__
    except ImportError:
        version = "0"
    if int(version.split(".")[0]) < 15:  # older ones could be made to run code by a file's metadata
        got = "none" if version == "0" else version
        raise InputError(f"Expected pyarrow 15 or newer, to read {path}. Got {got}. Install it, or save a .npy file.")
    return pyarrow
