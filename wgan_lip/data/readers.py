"""Vectors from files; nothing that is read can run code."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wgan_lip.data.columnar import dense, read_h5ad, read_parquet
from wgan_lip.data.images import ImageSource, image_rows
from wgan_lip.data.sources import FiniteSource, as_float32, as_samples, split_rows, warn_of_scales
from wgan_lip.data.tables import Samples, TableOptions, check_size
from wgan_lip.data.text import read_text
from wgan_lip.utils.checks import InputError, as_tensor, available_memory, check_choice, check_samples, one_line

__all__ = [
    "ENDINGS",
    "VectorFile",
    "ending_of",
    "holds_parquet",
    "map_rows",
    "options_of",
    "read_array",
    "read_file",
    "read_samples",
    "reading",
]

NUMBERS = "file of plain numbers, without Python objects"


class VectorFile(FiniteSource):
    """The samples of a file, as :func:`read_file` reads them, in float32; pixels stay bytes, see :class:`FiniteSource`.

    Arguments:
        path: The file.
        key: Which array, if the file holds several.
        header, index, columns, drop, delimiter, decimal, obsm, layout: Options of a table or an array; see
            :class:`TableOptions`.
        test_fraction: Share of the samples to hold out, drawn at random; at least one sample.
        seed: Fixes the split.

    Raises:
        InputError: See :func:`read_file` and :func:`wgan_lip.data.sources.as_float32`; fewer than two samples, or a
            `test_fraction` that leaves nothing for training or for testing.

    Warns:
        UserWarning: A column was left out, or a line of numbers taken for names; rows that become equal in float32, or
            columns whose ranges differ by orders of magnitude.
    """

    name = "file"
    units = "the unit of the numbers in the file"

    def __init__(
        self,
        path: str,
        key: str | None = None,
        header: bool | None = None,
        index: bool | int | str | None = None,
        columns: Sequence[int | str] | None = None,
        drop: Sequence[int | str] | None = None,
        delimiter: str | None = None,
        decimal: str | None = None,
        obsm: str | None = None,
        layout: str | None = None,
        test_fraction: float = 0.2,
        seed: int = 0,
    ) -> None:
        if not 0 < test_fraction < 1:
            raise InputError(f"test_fraction must be between 0 and 1, not {test_fraction}.")
        read = read_file(path, key, TableOptions(header, index, columns, drop, delimiter, decimal, obsm, layout))
        for note in read.notes:
            warnings.warn(note, stacklevel=2)
        samples, self.image_shape = read.values, read.image_shape
        if samples.dtype == torch.uint8:
            self.low, self.high, self.units = ImageSource.low, ImageSource.high, ImageSource.units
        else:
            samples = as_float32(check_samples(samples, str(path), minimum=2), str(path))
        if self.image_shape is None:
            warn_of_scales(samples, str(path))
        train, test = split_rows(len(samples), max(1, round(test_fraction * len(samples))), seed)
        super().__init__(samples[train], samples[test])


def read_samples(path: str | Path, key: str | None = None, options: TableOptions | None = None) -> Tensor:
    """The values that :func:`read_file` reads, shape (n, d), pixels in [0, 1]. Raises :class:`InputError`."""
    return as_samples(read_file(path, key, options).values)


def read_file(
    path: str | Path,
    key: str | None = None,
    options: TableOptions | None = None,
    *,
    memory_limit: int | None = None,
) -> Samples:
    """Reads samples from a file; nothing in the file is ever run.

    ============================  ======================================================================================
    `.npy` `.npz`                 arrays, (n, d), or (n,) for scalars, or of images; sparse matrices of scipy
    `.pt`                         a tensor of these shapes, or a dictionary of tensors
    `.csv` `.tsv` `.txt`          tables of text, see :func:`wgan_lip.data.text.read_text`; also `.csv.gz` and so on
    `.parquet`, a folder of them  see :func:`wgan_lip.data.columnar.read_parquet`
    `.h5ad`                       see :func:`wgan_lip.data.columnar.read_h5ad`; needs the extra `h5ad`
    ============================  ======================================================================================

    Arguments:
        path: The file.
        key: Which array of an `.npz` or `.pt` file; needed if it holds several.
        options: Options of a table or an array.
        memory_limit: Bytes that the samples may take in memory; by default all that is available.

    Returns:
        The samples, the names of their columns, and what was left out. Images are flattened by
        :func:`wgan_lip.data.images.image_rows`. Values are a tensor of shape (n, d), float32 or float64 as stored;
        whole numbers and text become float64, except the bytes of images.

    Raises:
        InputError: No such file, unknown ending, a pipe or device, a file that is not what its ending says, a missing
            or unknown key, an option that the file does not take, text instead of numbers, a table that can be read in
            several ways, more than `memory_limit`, a missing library, or no finite matrix with at least one row.
    """
    path, options = Path(path), options or TableOptions()
    read = _read(path, key, options, memory_limit)
    if options.layout is not None or read.values.ndim in (3, 4):
        with reading(path, NUMBERS):
            rows, shape = image_rows(as_tensor(read.values, str(path)), str(path), options.layout)
        pixels = rows.dtype == torch.uint8 and rows.numel() > 0
        return replace(read, values=rows if pixels else check_samples(rows, str(path)), image_shape=shape)
    return replace(read, values=check_samples(read.values, str(path)))


def read_array(path: str | Path, key: str | None = None, options: TableOptions | None = None) -> Tensor:
    """An array of any shape, such as a histogram, from a file that :func:`read_file` reads; a table has two axes.

    Raises:
        InputError: See :func:`read_file`; but here, arrays of images are kept as they are, and numbers need not be
            finite.
    """
    return _read(Path(path), key, options or TableOptions(), None).values


def _read(path: Path, key: str | None, options: TableOptions, memory_limit: int | None) -> Samples:
    """The content of a file, with values of any shape."""
    limit = available_memory() or 2**32 if memory_limit is None else memory_limit
    with reading(path, NUMBERS):
        path = path.expanduser()
        if path.is_dir() and not holds_parquet(path):
            raise InputError(f"{path} is a folder. Name a file inside it.")
        ending = ".parquet" if path.is_dir() else ending_of(path)
        check_choice(ending, ENDINGS, f"the ending of {path}")
        if not path.exists():
            raise InputError(f"There is no file {path}. Check the path, relative to {Path.cwd()}.")
        if not (path.is_dir() or path.is_file()):
            raise InputError(f"{path} is a pipe or a device. Save its content as a file.")
        if foreign := [option for option in options.given if option not in options_of(path)]:
            raise InputError(f"{path} is a {ending} file, and does not take {foreign[0]}. Leave it out.")
        if ending != ".npy" and path.is_file():
            check_size(path, path.stat().st_size, limit, each=1)
        return _READERS[ending](path, key, options, limit)


def ending_of(path: Path) -> str:
    """`.csv` of points.csv, `.csv.gz` of points.csv.gz."""
    name = Path(path.name.lower())
    return Path(name.stem).suffix + ".gz" if name.suffix == ".gz" else name.suffix


def options_of(path: Path) -> tuple[str, ...]:
    """Which of :class:`TableOptions` a file or folder takes."""
    if path.is_dir():
        return _TAKES[".parquet"] if holds_parquet(path) else ()
    return _TAKES.get(ending_of(path), ())


def holds_parquet(folder: Path) -> bool:
    """Whether a folder holds Parquet files, directly or in folders such as year=2020 of a partitioned data frame."""
    return any(True for pattern in ("*.parquet", "*=*/**/*.parquet") for _ in folder.glob(pattern))


def map_rows(path: Path, key: str | None = None) -> np.ndarray:
    """The array of a `.npy` file, left on disk. Raises :class:`InputError`; its entries are not checked."""
    with reading(path, NUMBERS):
        _check_no_key(path, key, "one array")
        return np.lib.format.open_memmap(path, mode="r")


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turns every failure to read `path`, which should be a complete `kind`, into an :class:`InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # for a damaged file, parsers raise all kinds of errors
        if isinstance(error, OSError) and error.errno is not None:  # from the system, not from a parser
            message = f"{path} can't be read: {one_line(error)}. Check its permissions."
        else:
            whole = f"{path.suffix} {kind}".strip()
            message = f"{path} is not a complete {whole}: {one_line(error)}. Save it again."
        raise InputError(message) from error


def _read_npy(path: Path, key: str | None, options: TableOptions, limit: int) -> Samples:
    with path.open("rb") as file:
        _check_array(path, file, limit)
        file.seek(0)
        return Samples(_tensor(np.lib.format.read_array(file, allow_pickle=False), key, path))


def _read_npz(path: Path, key: str | None, options: TableOptions, limit: int) -> Samples:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):  # np.load would accept any of its formats
            raise ValueError("not a zip archive")
        with zipfile.ZipFile(file) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            is_sparse = {"format", "shape", "data"} <= members.keys()  # as scipy.sparse.save_npz writes it
            for name in members if is_sparse else [_key(members, key, path)]:
                with archive.open(members[name]) as member:
                    _check_array(path, member, limit)
        file.seek(0)
        if is_sparse:
            from scipy import sparse

            _check_no_key(path, key, "one sparse matrix")
            return Samples(as_tensor(dense(path, sparse.load_npz(file), limit), str(path)))
        with np.load(file, allow_pickle=False) as archive:
            return Samples(_tensor(archive, key, path))


def _read_pt(path: Path, key: str | None, options: TableOptions, limit: int) -> Samples:
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                check_size(path, sum(member.file_size for member in archive.infolist()), limit, each=1)
        file.seek(0)
        tensor = _pick(torch.load(file, map_location="cpu", weights_only=True), key, path)
    if isinstance(tensor, Tensor):  # an expanded tensor stores a repeated number only once
        check_size(path, tensor.numel(), limit, each=_bytes_of(tensor.dtype))
    return Samples(as_tensor(tensor, str(path)).detach())


def _plain(read: Callable[[Path, TableOptions, int], Samples]) -> Callable[..., Samples]:
    """The reader of a kind of file that has no arrays to choose from."""

    def without_key(path: Path, key: str | None, options: TableOptions, limit: int) -> Samples:
        _check_no_key(path, key, "a table")
        return read(path, options, limit)

    return without_key


TEXT = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
_READERS: dict[str, Callable[[Path, str | None, TableOptions, int], Samples]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".pt": _read_pt,
    **dict.fromkeys(TEXT, _plain(read_text)),
    ".parquet": _plain(read_parquet),
    ".h5ad": _plain(read_h5ad),
}
ENDINGS = list(_READERS)
_TAKES = {
    **dict.fromkeys((".npy", ".npz", ".pt"), ("layout",)),
    **dict.fromkeys(TEXT, ("header", "index", "columns", "drop", "delimiter", "decimal", "by")),
    ".parquet": ("index", "columns", "drop", "by"),
    ".h5ad": ("columns", "drop", "obsm", "by"),
}


def _check_array(path: Path, stream: Any, limit: int) -> None:
    """Refuses an array in NumPy's format, starting at the position of `stream`, that would take more than `limit`."""
    version, _ = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(stream)
    check_size(path, math.prod(shape), limit, each=_bytes_of(dtype))


def _bytes_of(dtype: Any) -> int:
    """Bytes per number once read: float32 for floats of up to 32 bits, float64 for everything else."""
    is_float = dtype.is_floating_point if isinstance(dtype, torch.dtype) else dtype.kind == "f"
    return 4 if is_float and dtype.itemsize <= 4 else 8


def _check_no_key(path: Path, key: str | None, holds: str) -> None:
    if key is not None:
        raise InputError(f"{path} holds {holds}, and does not take key={key!r}. Leave it out.")


def _key(content: Mapping[str, Any], key: str | None, path: Path) -> str:
    """The key of the array called `key`, or of the only one."""
    if key is None and len(content) == 1:
        return next(iter(content))
    if key is None or key not in content:
        known = ", ".join(map(str, content)) or "(none)"
        if key is None:
            raise InputError(f"{path} holds {len(content)} arrays. Choose one by its key: {known}.")
        raise InputError(f"{path} has no array key={key!r}. Its keys: {known}.")
    return key


def _tensor(content: Any, key: str | None, path: Path) -> Tensor:
    return as_tensor(_pick(content, key, path), str(path))


def _pick(content: Any, key: str | None, path: Path) -> Tensor | np.ndarray:
    """The array called `key`, or the only one."""
    if isinstance(content, Mapping):
        array = content[_key(content, key, path)]
    else:
        _check_no_key(path, key, "one array")
        array = content
    if not isinstance(array, (Tensor, np.ndarray)):
        raise InputError(f"{path} must hold a tensor, not a {type(array).__name__}. Save one of shape (n, d).")
    return array
