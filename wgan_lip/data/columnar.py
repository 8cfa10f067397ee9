"""Tables in Parquet and in AnnData's .h5ad files, whose columns have names and types."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wgan_lip.data.tables import Samples, TableOptions, check_size, choose_columns, import_pyarrow, place_of
from wgan_lip.utils.checks import InputError, as_tensor, few

__all__ = ["dense", "read_h5ad", "read_parquet"]


def read_parquet(path: Path, options: TableOptions, limit: int) -> Samples:
    """Reads a Parquet file, or all those in a folder and its subfolders, in the order of their names.

    A column of lists of k numbers each, such as embeddings, becomes k columns. The index of a data frame is left out.

    Arguments:
        path: The file or folder.
        options: See :class:`TableOptions`.
        limit: Bytes that the samples may take in memory, uncompressed.

    Returns:
        Samples, shape (n, d), with the names of the columns.

    Raises:
        InputError: Columns that are not numbers, lists of unequal lengths, files whose columns differ, more numbers
            than `limit` allows.
    """
    import_pyarrow(path)
    from pyarrow import parquet

    files = sorted(file for file in path.rglob("*.parquet") if file.is_file()) if path.is_dir() else [path]
    blocks: list[list[np.ndarray]] = []
    names: list[str] = []
    kept: list[str] = []
    notes: tuple[str, ...] = ()
    numbers = 0
    labels: list[Any] = []
    for file in files:
        with file.open("rb") as stream:
            content = parquet.ParquetFile(stream)
            index = (content.schema_arrow.pandas_metadata or {}).get("index_columns", [])
            found = [name for name in content.schema_arrow.names if name not in index]
            if not names:
                names = found
                kept, notes = _kept(file, content, names, options, limit)
            if sorted(found) != sorted(names):
                raise InputError(f"{file} must have the same columns as {files[0]}, and has {', '.join(found)}.")
            numbers += sum(_size(content, name) for name in kept)
            if options.by is not None:
                by = names[place_of(path, names, len(names), options.by)]
                labels += content.read(columns=[by]).column(0).to_pylist()
            check_size(path, numbers, limit)
            table = content.read(columns=kept)
            blocks.append([_matrix(table.column(name), f"column {name!r} of {file}") for name in kept])
    widths = [[block.shape[1] for block in columns] for columns in blocks]
    if any(width != widths[0] for width in widths):
        raise InputError(f"The lists in the files of {path} have several lengths. Keep files with one length only.")
    titles = (
        name if block.ndim == 1 or block.shape[1] == 1 else f"{name}[{i}]"
        for name, block in zip(kept, blocks[0])
        for i in range(block.shape[1])
    )
    rows = [np.column_stack(columns) if columns else np.empty((0, 0)) for columns in blocks]
    values = torch.from_numpy(np.concatenate(rows))
    return Samples(values, tuple(titles), notes, labels=None if options.by is None else tuple(labels))


def _kept(
    path: Path, content: Any, names: Sequence[str], options: TableOptions, limit: int
) -> tuple[list[str], tuple[str, ...]]:
    """The names of the columns that hold samples, and notes on the others."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path} has two columns called {twice!r}. Rename one.")
    types = {name: content.schema_arrow.field(name).type for name in names}
    first = None
    if names and _is_number(types[names[0]]):
        check_size(path, _size(content, names[0]), limit)
        first = content.read(columns=[names[0]]).column(0).to_numpy()
    columns, notes = choose_columns(path, names, len(names), first, options)
    kept = [names[column] for column in columns]
    for name in kept:
        alone = len(kept) == 1 or options.columns is not None
        if not (_is_number(types[name]) or (_is_list(types[name]) and alone)):
            lists = [other for other in kept if _is_list(types[other])]
            remedy = f"columns=[{lists[0]}] reads lists alone" if lists else f"Encode it, or drop it by drop=[{name}]"
            raise InputError(f"Column {name!r} of {path} holds {types[name]}, not numbers. {remedy}.")
    return kept, notes


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return lists and _is_number(kind.value_type)


def _size(content: Any, name: str) -> int:
    """How many numbers a column holds, uncompressed."""
    groups = (content.metadata.row_group(number) for number in range(content.metadata.num_row_groups))
    chunks = (group.column(number) for group in groups for number in range(group.num_columns))
    return sum(chunk.num_values for chunk in chunks if f"{chunk.path_in_schema}.".startswith(f"{name}."))


def _matrix(column: Any, name: str) -> np.ndarray:
    """A column as numbers, shape (n, k) with k = 1 unless it holds lists."""
    import pyarrow
    import pyarrow.compute as pc
    from pyarrow import types

    k = 1
    if _is_list(column.type):
        lengths = pc.list_value_length(column).unique().to_pylist()
        if len(lengths) > 1 or None in lengths:
            raise InputError(f"The lists in {name} must have one length, not {lengths[0]} and {lengths[-1]}.")
        k, column = lengths[0] if lengths else 1, pc.list_flatten(column)
    if types.is_decimal(column.type):
        column = pc.cast(column, pyarrow.float64())
    return as_tensor(column.to_numpy(), name).numpy().reshape(-1, k)


def read_h5ad(path: Path, options: TableOptions, limit: int) -> Samples:
    """Reads X, or an embedding of the observations, from an AnnData file; links to other files are not followed.

    Arguments:
        path: The file.
        options: See :class:`TableOptions`; `obsm` is the embedding to read instead of X, `by` a column of obs.
        limit: Bytes that the samples may take in memory, uncompressed and with their zeros.

    Returns:
        Samples, shape (n, d), one per observation; if X was read, with the names of the variables.

    Raises:
        InputError: h5py is missing, an unknown embedding, more numbers than `limit` allows, no matrix of numbers.
    """
    try:
        import h5py
    except ImportError:
        raise InputError(f"Reading {path} needs h5py, which is not installed: pip install wgan-lip[h5ad]") from None
    with h5py.File(path, "r") as file:
        if options.obsm is None:
            matrix, variables = _inside(path, file, "X"), _inside(path, file, "var")
            index = variables.attrs.get("_index", "_index")
            names = tuple(_inside(path, variables, index).asstr()[...].tolist())
        else:
            known = sorted(file["obsm"]) if "obsm" in file else []
            if options.obsm not in known:
                raise InputError(f"{path} has no embedding obsm={options.obsm!r}. It has {', '.join(known) or 'none'}.")
            matrix, names = _inside(path, file, f"obsm/{options.obsm}"), None
        values = _stored(path, matrix, limit)
        labels = None if options.by is None else _labels(path, file, str(options.by))
    columns, notes = choose_columns(path, names, values.shape[1], None, replace(options, by=None))
    chosen = None if names is None else tuple(names[column] for column in columns)
    return Samples(as_tensor(values[:, columns], str(path)), chosen, notes, labels=labels)


def _labels(path: Path, file: Any, column: str) -> tuple[Any, ...]:
    """A column of obs, of text, numbers or categories; None where a category is missing."""
    import h5py

    observations = _inside(path, file, "obs")
    known = sorted(name for name in observations if name != observations.attrs.get("_index", "_index"))
    if column not in known:
        raise InputError(f"obs of {path} has no column {column!r}. It has {few(known, 20) or 'none'}.")
    found = _inside(path, observations, column)
    if isinstance(found, h5py.Dataset):
        return _cells(found)
    if found.attrs.get("encoding-type") != "categorical":
        raise InputError(f"{column} in obs of {path} holds no text, numbers or categories. Convert it to categories.")
    categories = _cells(_inside(path, found, "categories"))
    codes = _inside(path, found, "codes")[...].tolist()
    if codes and not -1 <= min(codes) <= max(codes) < len(categories):
        raise InputError(f"{column} in obs of {path} has categories that are not listed. Save the file again.")
    return tuple(None if code < 0 else categories[code] for code in codes)


def _cells(dataset: Any) -> tuple[Any, ...]:
    import h5py

    is_text = h5py.check_string_dtype(dataset.dtype) is not None
    return tuple((dataset.asstr()[...] if is_text else dataset[...]).tolist())


def _inside(path: Path, group: Any, name: str) -> Any:
    """The object at `name` in a group of an HDF5 file, if it is stored in this file."""
    import h5py

    for part in name.split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{name} in {path} is {'missing' if link is None else 'a link, which is not followed'}.")
        group = group[part]
    if isinstance(group, h5py.Dataset) and (group.external or group.is_virtual):
        raise InputError(f"{name} in {path} refers to other files. Copy its data into this one.")
    return group


def _stored(path: Path, matrix: Any, limit: int) -> np.ndarray:
    """A matrix of an AnnData file, dense or sparse."""
    import h5py
    from scipy import sparse

    kind = matrix.attrs.get("encoding-type", "array")
    if isinstance(matrix, h5py.Group) and kind in ("csr_matrix", "csc_matrix"):
        parts = [_inside(path, matrix, part) for part in ("data", "indices", "indptr")]
        check_size(path, sum(part.size for part in parts), limit)
        shape = tuple(int(size) for size in matrix.attrs["shape"])
        return dense(path, getattr(sparse, kind)(tuple(part[...] for part in parts), shape=shape), limit)
    if not isinstance(matrix, h5py.Dataset) or matrix.ndim != 2:
        raise InputError(f"{matrix.name} in {path} is not a matrix but of kind {kind}. Choose an embedding by obsm=.")
    check_size(path, matrix.size, limit)
    return matrix[...]


def dense(path: Path, matrix: Any, limit: int) -> np.ndarray:
    """A sparse matrix with its zeros; its indices are checked, since those of a damaged file could corrupt memory."""
    check_size(path, math.prod(matrix.shape), limit)
    if hasattr(matrix, "check_format"):
        matrix.check_format(full_check=True)
    return matrix.toarray()
