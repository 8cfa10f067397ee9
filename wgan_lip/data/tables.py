"""Samples as read from a file, and the choice of a table's columns."""

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
"""The head of row names without a name, and what pandas makes of it on reading and writing the table again."""
ROWS = r"(?i)index|level_0|idx|id|row|row[_ ]?(id|names?|numbers?)|X1?|\.\.\.1"
"""Common heads of row names and row numbers; the last comes from R, on reading and writing the table again."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples read from a file.

    Attributes:
        values: Samples, shape (n, d); bytes, of dtype uint8, only if they are pixels.
        names: The names of the d columns in the file; None if it has none.
        notes: What was left out and what was taken for names, in sentences.
        image_shape: (c, h, w) with c·h·w = d if samples are images.
        labels: The n cells of the column that groups the samples, if one was named; an empty cell is None or "".
    """

    values: Tensor
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    labels: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class TableOptions:
    """How to read a table or an array; with None an option is detected, and the file refused if it is ambiguous.

    Arguments:
        header: Whether the first line holds the names of the columns.
        index: The column of row names or row numbers, which is left out: its name, or its number, from 0. True means
            the first column, False that there is none.
        columns: The columns to read, in this order, by name or number; all by default.
        drop: Columns to leave out, by name or number.
        delimiter: The separator of columns: one character, or comma, semicolon, tab, pipe, or space for any run of
            blanks.
        decimal: The decimal mark, point or comma.
        obsm: The embedding to read from an `.h5ad` file, such as X_pca; X by default.
        layout: The order of the axes of an array of images; see :func:`wgan_lip.data.images.image_rows`.
        by: The column that groups the samples, and is then not a coordinate, by name or number; for an `.h5ad` file the
            name of a column of obs.

    Raises:
        InputError: An option of the wrong type or with an unknown value.
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
            raise InputError(f"header must be true or false, not {self.header!r}.")
        if self.index is not None and type(self.index) not in (bool, int, str):
            raise InputError(f"index must be a column, true or false, not {self.index!r}.")
        if self.by is not None and type(self.by) not in (int, str):
            raise InputError(f"by must be the name or the number of a column, not {self.by!r}.")
        for option in ("columns", "drop"):
            chosen = getattr(self, option)
            chosen = [chosen] if type(chosen) in (int, str) else chosen
            if chosen is not None and not (chosen and all(type(column) in (int, str) for column in chosen)):
                raise InputError(f"{option} must be names or numbers of columns, not {chosen!r}.")
            object.__setattr__(self, option, chosen and tuple(chosen))
        for option, words in (("delimiter", DELIMITERS), ("decimal", DECIMALS)):
            object.__setattr__(self, option, words.get(getattr(self, option), getattr(self, option)))
        if self.delimiter is not None and (len(str(self.delimiter)) != 1 or self.delimiter in ('"', "\n", "\r")):
            raise InputError(
                f"delimiter must be one character, or one of {', '.join(DELIMITERS)}, not {self.delimiter!r}."
            )
        if self.decimal is not None and self.decimal not in DECIMALS.values():
            raise InputError(f"decimal must be point or comma, not {self.decimal!r}.")

    @property
    def given(self) -> list[str]:
        """The names of the options that were given."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]


def choose_columns(
    path: Path, names: Sequence[str] | None, width: int, first: np.ndarray | None, options: TableOptions
) -> tuple[list[int], tuple[str, ...]]:
    """The columns of a table that are coordinates, and notes on those that are left out without being asked to.

    The first column is taken for row names if it alone has no name, and holds text or whole numbers.

    Arguments:
        path: The table.
        names: The names of its columns, None if it has none.
        width: The number of columns.
        first: The numbers in the first column; None if it holds text.
        options: See :class:`TableOptions`.

    Raises:
        InputError: An unknown column; a first column that may be row numbers or a coordinate.
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
    """The number of a column given by name or number. Raises :class:`InputError` if there is no such column."""
    if names is not None and str(column) in names:
        return list(names).index(str(column))
    if type(column) is int and 0 <= column < width:
        return column
    known = f"0 to {width - 1}" if names is None else few([name or "(no name)" for name in names], 20)
    raise InputError(f"{path} has no column {column!r}. Its columns: {known}.")


def _names_rows(path: Path, name: str | None, numbers: np.ndarray | None) -> bool:
    """Whether the first of several columns, called `name`, holds row names."""
    choice = "Say index=true if it names the rows, index=false if it is a coordinate."
    if name is not None and re.fullmatch(UNNAMED, name):
        if numbers is None or (numbers == np.floor(numbers)).all():
            return True
        raise InputError(f"The first column of {path} has no name, though the others do. {choice}")
    if numbers is None or len(numbers) < 3:
        return False
    ordered = np.sort(numbers)
    if counts(numbers) or (len(numbers) > 5 and counts(ordered)):
        once = "counts" if counts(numbers) else "holds once each of"
        raise InputError(f"The first column of {path} {once} {ordered[0]:.0f}, {ordered[1]:.0f}, … {choice}")
    if re.fullmatch(ROWS, name or "") and (ordered == np.floor(ordered)).all() and (np.diff(ordered) > 0).all():
        raise InputError(f"The first column of {path}, {name}, holds a different whole number in every row. {choice}")
    return False


def check_size(path: Path, numbers: int, limit: int, *, each: int = 8) -> None:
    """Raises :class:`InputError` if so many numbers, of so many bytes each, take more than `limit` bytes."""
    if each * numbers > limit:
        raise InputError(
            f"{path} takes {each * numbers / 2**30:.3g} GiB and does not fit into {limit / 2**30:.3g} GiB of memory. "
            "Save it as .npy, from which only the rows in use are read."
        )


def import_pyarrow(path: Path) -> Any:
    """Imports pyarrow, in a version in which files can't run code."""
    try:
        import pyarrow

        version = pyarrow.__version__
    except ImportError:
        version = "0"
    if int(version.split(".")[0]) < 15:  # older ones could be made to run code by a file's metadata
        found = "which is not installed" if version == "0" else f"and version {version} is installed"
        raise InputError(f"Reading {path} needs pyarrow 15 or newer, {found}. Install it, or save a .npy file.")
    return pyarrow
