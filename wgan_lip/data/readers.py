"""Vectors from files; nothing that is read can run code."""

from __future__ import annotations

import csv
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wgan_lip.data.sources import FiniteSource, as_float32, split_rows, warn_of_scales
from wgan_lip.utils.checks import InputError, check_choice, check_samples, one_line

__all__ = ["ENDINGS", "VectorFile", "map_rows", "read_samples", "reading"]

NUMBERS = "file of plain numbers, without Python objects"


class VectorFile(FiniteSource):
    """The samples of a file, as :func:`read_samples` reads them, in float32.

    Arguments:
        path: The file.
        key: Which array, where the file holds several.
        test_fraction: Share of the samples that is held out, drawn at random; at least one sample.
        seed: Fixes the split.

    Raises:
        InputError: See :func:`read_samples` and :func:`wgan_lip.data.sources.as_float32`; fewer than two samples, or a
            `test_fraction` that leaves nothing for one of the sides.

    Warns:
        UserWarning: Rows that float32 makes equal, or columns whose ranges differ by orders of magnitude.
    """

    name = "file"
    units = "the unit of the numbers in the file"

    def __init__(self, path: str, key: str | None = None, test_fraction: float = 0.2, seed: int = 0) -> None:
        if not 0 < test_fraction < 1:
            raise InputError(f"Expected test_fraction between 0 and 1. Got {test_fraction}.")
        samples = as_float32(check_samples(read_samples(path, key), str(path), minimum=2), str(path))
        warn_of_scales(samples, str(path))
        train, test = split_rows(len(samples), max(1, round(test_fraction * len(samples))), seed)
        super().__init__(samples[train], samples[test])


def read_samples(path: str | Path, key: str | None = None) -> Tensor:
    """Reads samples from a file; nothing in the file is ever run.

    Arguments:
        path: `.npy`, `.npz`, `.pt` (a tensor, or a dictionary of tensors), `.csv` or `.tsv` (a first row without any
            number is a header), or `.parquet` (needs the extra `parquet`; a data frame's index is left out).
        key: Which array of an `.npz` or `.pt` file; needed where it holds several.

    Returns:
        Samples, shape (n, d), float32 or float64 as stored (whole numbers and text become float64).

    Raises:
        InputError: No such file, unknown ending, a file that is not what its ending says, a missing or unknown key,
            text where numbers are due, pyarrow that is lacking or old, or no finite matrix with at least one row.
    """
    path = Path(path)
    with reading(path, NUMBERS):
        path = path.expanduser()
        if path.is_dir():
            raise InputError(f"Expected {path} to be a file. Got a folder. Name a file inside it.")
        check_choice(path.suffix.lower(), ENDINGS, f"the ending of {path}")
        if not path.exists():
            raise InputError(f"Expected a file at {path}. Got nothing there. Check the path, seen from {Path.cwd()}.")
        samples = _READERS[path.suffix.lower()](path, key)
    if isinstance(samples, np.ndarray) and not samples.dtype.isnative:
        samples = samples.astype(samples.dtype.newbyteorder("="))
    return check_samples(samples, str(path))


def map_rows(path: Path, key: str | None = None) -> np.ndarray:
    """The array of a `.npy` file, left on the disk. Raises :class:`InputError`; its entries are not looked at."""
    with reading(path, NUMBERS):
        return _pick(np.lib.format.open_memmap(path, mode="r"), key, path)


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Tells every failure to read `path`, which should be a whole `kind`, as an :class:`InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a damaged file raises whatever its parser happens to meet
        if isinstance(error, OSError) and error.errno is not None:  # of the system, not of a parser
            message = f"Expected to read {path}. Got {one_line(error)}. Check its permissions."
        else:
            whole = f"{path.suffix} {kind}".strip()
            message = f"Expected {path} to be a whole {whole}. Got {one_line(error)}. Save it anew."
        raise InputError(message) from error


def _read_npy(path: Path, key: str | None) -> np.ndarray:
    with path.open("rb") as file:
        return _pick(np.lib.format.read_array(file, allow_pickle=False), key, path)


def _read_npz(path: Path, key: str | None) -> np.ndarray:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):  # np.load would read any of its formats
            raise ValueError("no zip archive")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            return _pick(archive, key, path)


def _read_pt(path: Path, key: str | None) -> Tensor:
    tensor = _pick(torch.load(path, map_location="cpu", weights_only=True), key, path).detach()
    if tensor.layout != torch.strided:
        raise InputError(f"Expected {path} to hold a dense tensor. Got {tensor.layout}. Save tensor.to_dense().")
    return tensor


def _read_table(path: Path, key: str | None) -> np.ndarray:
    delimiter = {".csv": ",", ".tsv": "\t"}[path.suffix.lower()]
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = next(csv.reader(file, delimiter=delimiter), [])
        header = [] if any(map(_is_number, first)) else first
        if not header:
            file.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "loadtxt: input contained no data")
                table = np.loadtxt(file, delimiter=delimiter, comments=None, quotechar='"', ndmin=2)
        except UnicodeDecodeError:
            raise
        except ValueError as error:
            file.seek(0)
            rows = csv.reader(file, delimiter=delimiter)
            got = _first_bad_row(rows, next(rows) if header else []) or one_line(error)
            raise InputError(
                f"Expected {path} to hold equally long rows of numbers below a header row without any. Got {got}. "
                "Drop or encode columns of text, fill gaps."
            ) from error
    return _pick(table, key, path)


def _read_parquet(path: Path, key: str | None) -> np.ndarray:
    try:
        import pyarrow
        from pyarrow import parquet, types

        version = pyarrow.__version__
    except ImportError:
        version = "0"
    if int(version.split(".")[0]) < 15:  # older ones could be made to run code by a file's metadata
        got = "none" if version == "0" else version
        raise InputError(
            f"Expected pyarrow 15 or newer, to read {path}. Got {got}. Install wgan-lip[parquet], or save a .npy file."
        )
    with path.open("rb") as file:
        table = parquet.ParquetFile(file).read()
    index = (table.schema.pandas_metadata or {}).get("index_columns", [])  # what a data frame calls its rows
    fields = [field for field in table.schema if field.name not in index]
    for field in fields:
        if not (types.is_integer(field.type) or types.is_floating(field.type)):
            raise InputError(
                f"Expected {path} to hold columns of numbers. Got type {field.type} in column {field.name!r}. "
                "Drop or encode this column."
            )
    columns = [table.column(field.name).to_numpy() for field in fields]
    return _pick(np.column_stack(columns) if columns else np.empty((table.num_rows, 0)), key, path)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _first_bad_row(rows: Any, header: list[str]) -> str:
    """Says where a csv reader's first field that is no number, or row of another length, stands (numpy's own message
    counts rows without the header and blank lines; a person counts lines)."""
    width = 0
    for row in filter(None, rows):
        for column, field in enumerate(row):
            if not _is_number(field):
                title = f" ({header[column]})" if column < len(header) else ""
                return f"{field!r} in column {column + 1}{title}, line {rows.line_num}"
        width = width or len(row)
        if len(row) != width:
            return f"{len(row)} columns in line {rows.line_num}, {width} above it"
    return ""


_READERS = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".pt": _read_pt,
    ".csv": _read_table,
    ".tsv": _read_table,
    ".parquet": _read_parquet,
}
ENDINGS = list(_READERS)


def _pick(content: Any, key: str | None, path: Path) -> Tensor | np.ndarray:
    """The array called `key`, or the only one."""
    if not isinstance(content, Mapping):
        if key is not None:
            raise InputError(f"Expected no key for {path}, which holds one array. Got key={key!r}. Leave it out.")
        content, key = {None: content}, None
    elif key is None and len(content) == 1:
        key = next(iter(content))
    elif key is None or key not in content:
        got = "no key" if key is None else f"key={key!r}"
        raise InputError(f"Expected a key of {path}: one of {', '.join(map(str, content)) or '(none)'}. Got {got}.")
    array = content[key]
    if not isinstance(array, (Tensor, np.ndarray)):
        raise InputError(f"Expected {path} to hold a tensor. Got {type(array).__name__}. Save one of shape (n, d).")
    return array
