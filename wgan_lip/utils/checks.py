"""Checks of input, whose errors say what is wrong, with the value, and what to do."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip.utils.terminal import printable

__all__ = [
    "InputError",
    "UncertifiableError",
    "as_tensor",
    "available_memory",
    "check_choice",
    "check_memory",
    "check_pair",
    "check_samples",
    "check_seed",
    "check_sizes",
    "check_weights",
    "column_names",
    "common_origin",
    "counts",
    "few",
    "match_columns",
    "one_line",
    "out_of_memory",
]


class InputError(ValueError):
    """Some input cannot be used; the message says what is wrong with it, and what to do."""


class UncertifiableError(InputError):
    """A module has no proof; the message names its path, and what to do."""


def check_choice(value: str, choices: Sequence[str], what: str) -> str:
    """Returns `value` if it is one of `choices`, else raises :class:`InputError` naming all of them."""
    if value not in choices:
        raise InputError(f"{what} must be one of {', '.join(choices)}, not {value!r}.")
    return value


def column_names(samples: object) -> tuple[str, ...] | None:
    """The names of a data frame's columns, or of an AnnData object's variables; None for anything without names."""
    labels = _labels(samples)
    return None if labels is None else tuple(map(str, labels))


def match_columns(
    x: tuple[str, ...] | None, y: tuple[str, ...] | None, sides: tuple[str, str] = ("x", "y")
) -> list[int] | None:
    """The column of y with the name of each column of x; None if they have one order already, or no names.

    Arguments:
        x: The names of the columns on one side.
        y: Those on the other.
        sides: Their names in error messages.

    Raises:
        InputError: A name on one side only, or twice on one side while the order differs.
    """
    if x is None or y is None or x == y:
        return None
    if len(set(x)) < len(x) or len(set(y)) < len(y):
        twice = next(name for names in (x, y) for name in names if names.count(name) > 1)
        raise InputError(
            f"The columns of {' and '.join(sides)} can't be matched by name: {twice!r} is there twice on one side, and "
            "their order differs. Rename one of the two."
        )
    only = [set(one) - set(other) for one, other in ((x, y), (y, x))]
    if any(only):
        apart = " and ".join(f"{few(sorted(names))} in {side} only" for side, names in zip(sides, only) if names)
        raise InputError(
            f"The columns of {' and '.join(sides)} differ: {apart}. Choose those that both have, or rename "
            "them. Arrays without names are compared column by column."
        )
    return [y.index(name) for name in x]


def as_tensor(samples: Any, name: str) -> Tensor:
    """Real numbers of any shape as a float32, float64 or uint8 tensor with the same values.

    Arguments:
        samples: A tensor; or an array, a list, a sparse matrix, a data frame (pandas, polars, Arrow) or an AnnData
            object, which are copied. Pixels, of dtype uint8, stay as they are; other integers become float64; floats of
            fewer than 32 bits become float32.
        name: Their name in error messages.

    Raises:
        InputError: Not real numbers, masked entries, a column of a frame without numbers (it is named), quantised or
            sparse tensors or tensors without values, integers that float64 cannot hold.
    """
    if not isinstance(samples, Tensor):
        array = _as_array(samples, name)
        return torch.from_numpy(np.array(array if array.dtype == np.uint8 else _floats(array, name), order="C"))
    unusable = {
        "a nested tensor": (samples.is_nested, "Its samples have different sizes: pad or resize them."),
        "a tensor on the meta device": (samples.is_meta, "It has no values: load it with its data."),
        "a quantised tensor": (samples.is_quantized, "Use x.dequantize()."),
        f"layout {samples.layout}": (samples.layout != torch.strided, "Use x.to_dense()."),
    }
    for got, (applies, remedy) in unusable.items():
        if applies:
            raise InputError(f"{name} must be a dense tensor of real numbers, not {got}. {remedy}")
    if samples.dtype in (torch.float32, torch.float64, torch.uint8):
        return samples
    if samples.is_complex() or samples.dtype == torch.bool:
        raise InputError(f"{name} must hold real numbers, not {samples.dtype}. Convert it to float64.")
    if samples.dtype in (torch.int64, torch.uint64):
        return torch.from_numpy(_floats(samples.cpu().numpy(), name)).to(samples.device)
    try:
        return samples.to(torch.float32 if samples.is_floating_point() else torch.float64)
    except (RuntimeError, TypeError):  # packed numbers of four bits and the like
        raise InputError(f"{name} must hold real numbers, not {samples.dtype}. Use float32.") from None


def check_samples(samples: Any, name: str, *, minimum: int = 1) -> Tensor:
    """Turns an array of samples into a finite real tensor of shape (n, d).

    Arguments:
        samples: Real numbers as :func:`as_tensor` takes them, shape (n, d), or (n,) for n scalars. float32 and float64
            stay as they are, on their device.
        name: Their name in error messages.
        minimum: The least n that is accepted.

    Raises:
        InputError: See :func:`as_tensor`; neither one- nor two-dimensional, d = 0, fewer than `minimum` rows, or a
            row that is not finite (the first is named).
    """
    samples = as_tensor(samples, name)
    if samples.dtype == torch.uint8:
        samples = samples.double()
    if samples.ndim == 1:
        samples = samples[:, None]
    shape = tuple(samples.shape)
    if samples.ndim != 2:
        remedy = "Give an array of samples." if samples.ndim == 0 else "Flatten each sample into one row."
        raise InputError(f"{name} must have shape (n, d), not {shape}. {remedy}")
    if shape[1] == 0:
        raise InputError(f"{name} must have at least one column, not shape {shape}.")
    if shape[0] < minimum:
        need = "one sample" if minimum == 1 else f"{minimum} samples"
        raise InputError(f"{name} must have at least {need}, not {shape[0]}. Give more samples.")
    if math.isfinite(
        samples.detach().sum()
    ):  # NaN and infinity survive a sum, which takes an eighth of the time of checking each number
        return samples
    finite = torch.isfinite(samples).all(dim=1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise InputError(
            f"{name} must be finite, but {int((~finite).sum())} of {shape[0]} rows hold NaN or infinity, the first of "
            f"them row {row}. Remove or repair these rows."
        )
    return samples


def check_pair(x: Any, y: Any, *, minimum: int = 1) -> tuple[Tensor, Tensor]:
    """Checks two sample sets, (n, d) and (m, d), of the same dimension d.

    If both have column names, as data frames do, y is returned with its columns in the order of x.

    Raises:
        InputError: See :func:`check_samples` and :func:`match_columns`; dimensions that differ.
    """
    order = match_columns(column_names(x), column_names(y))
    x, y = check_samples(x, "x", minimum=minimum), check_samples(y, "y", minimum=minimum)
    if x.shape[1] != y.shape[1]:
        raise InputError(
            f"x and y must have the same dimension, not shapes {tuple(x.shape)} and {tuple(y.shape)}. "
            "Check that both hold the same features."
        )
    return x, y if order is None else y[:, order]


def common_origin(x: Any, y: Any) -> tuple[Any, Any, str]:
    """Two sets of integers that float64 cannot hold, such as times in nanoseconds, counted from a common origin.

    Returns:
        Both sets less the least of each column, exactly, and a sentence that says so; as they were, and "", if float64
        holds them, or if they are not two sets of integers of one dimension. Shifting both leaves every distance
        between them unchanged.
    """
    sides = [side for side in map(_integers, (x, y)) if side is not None and len(side)]
    if len(sides) < 2 or sides[0].shape[1] != sides[1].shape[1]:
        return x, y, ""
    if all(_unlike(side) is None for side in sides):
        return x, y, ""
    sides = [side.astype(object) for side in sides]  # Python's integers, which never overflow
    origin = np.minimum(*(side.min(axis=0) for side in sides))
    sides = [side - origin for side in sides]
    if max(side.max() for side in sides) > 2**53:
        return x, y, ""
    told = few([str(number) for number in origin])
    note = f"x and y hold integers beyond 2^53, which float64 can't tell apart: both were counted from {told}."
    return sides[0].astype(np.float64), sides[1].astype(np.float64), note


@overload
def check_weights(weights: None, n: int, name: str) -> None: ...
@overload
def check_weights(weights: Tensor | ArrayLike, n: int, name: str) -> np.ndarray: ...
def check_weights(weights: Tensor | ArrayLike | None, n: int, name: str) -> np.ndarray | None:
    """Checks non-negative finite weights, shape (n,), of positive total; None stands for uniform weights."""
    if weights is None:
        return None
    if isinstance(weights, Tensor):
        weights = weights.detach().cpu()
        weights = weights.double() if weights.dtype == torch.bool else as_tensor(weights, name)
    array = np.asanyarray(weights)
    array = _floats(_as_array(array.astype(np.uint8) if array.dtype.kind == "b" else array, name), name)
    if array.shape != (n,):
        raise InputError(f"{name} must hold {n} weights, shape ({n},), not shape {array.shape}.")
    if not np.isfinite(array).all() or (array < 0).any():
        row = int(np.flatnonzero(~np.isfinite(array) | (array < 0))[0])
        raise InputError(f"{name} must be finite and non-negative, not {array[row]} at position {row}.")
    if not array.any():
        raise InputError(f"{name} must have a positive total; all are zero.")
    return array.astype(np.float64)


def few(words: Sequence[str], most: int = 5) -> str:
    """The first few of many words, for a sentence, without anything that a terminal would act upon."""
    return printable(", ".join(words[:most])) + (f" and {len(words) - most} more" if len(words) > most else "")


def _labels(samples: object) -> list[Any] | None:
    """The labels of a frame's columns, as frame[label] takes them; None for anything else."""
    if isinstance(samples, (Tensor, np.ndarray)):
        return None
    for attribute in ("var_names", "column_names", "columns"):  # in AnnData, Arrow, pandas and polars
        if (labels := getattr(samples, attribute, None)) is not None:
            return list(labels)
    return None


def _as_array(samples: Any, name: str) -> np.ndarray:
    """Anything that holds real numbers as an array of integers or floats."""
    if hasattr(samples, "var_names"):
        samples = samples.X
    elif (labels := _labels(samples)) is not None:
        return _stacked(samples, labels, name)
    if hasattr(samples, "toarray"):
        numbers = math.prod(samples.shape)
        check_memory(8 * numbers, f"{name}, a sparse matrix of {numbers:.3g} entries", "Reduce its dimension first.")
        samples = samples.toarray()
    try:
        array = np.asanyarray(samples)
    except ValueError:
        raise InputError(f"{name} must have shape (n, d), but its rows have unequal lengths.") from None
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} must hold real numbers, not {array.dtype}. Convert it to float64.")
    if isinstance(array, np.ma.MaskedArray) and (masked := np.ma.getmaskarray(array)).any():
        raise InputError(
            f"{name} must not have masked entries, but has {masked.sum()}, the first in row "
            f"{np.argwhere(masked)[0][0] if masked.ndim else 0}. Remove or repair these rows."
        )
    return np.asarray(array)


def _integers(samples: Any) -> np.ndarray | None:
    """Samples that are integers of up to 64 bits, shape (n, d); None for all others."""
    if isinstance(samples, Tensor) and samples.dtype in (torch.int64, torch.uint64):
        samples = samples.cpu().numpy()
    try:
        array = np.asarray(samples) if isinstance(samples, (list, tuple)) else samples
    except ValueError:  # rows of unequal lengths
        return None
    if type(array) is not np.ndarray or array.dtype.kind not in "iu" or array.ndim not in (1, 2):
        return None
    return array.reshape(len(array), -1) if len(array) else None


def _stacked(frame: Any, labels: list[Any], name: str) -> np.ndarray:
    """The columns of a frame side by side."""
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise InputError(f"{name} has two columns named {twice!r}. Rename one of them.")
    columns = []
    for label in labels:
        if str(label).startswith("Unnamed: 0"):  # pandas' name for an index that it wrote and read again
            raise InputError(f"{name} has a column of row numbers, {label!r}. Drop it.")
        column = f"column {label!r} of {name}"
        try:
            numbers = frame[label]
        except TypeError:  # a frame that is not computed yet
            kind = type(frame).__name__
            raise InputError(f"{name} must be a data frame in memory, not a {kind}. Collect it first.") from None
        columns.append(_floats(_as_array(numbers, column), column))
        if len(columns) == 1 < len(labels) and len(columns[0]) > 2 and counts(columns[0]):
            raise InputError(
                f"The first column of {name}, {label!r}, counts {columns[0][0]:.0f}, {columns[0][1]:.0f}, … Drop it "
                "if it numbers the rows; if it is a coordinate, give the frame as an array."
            )
    return np.column_stack(columns) if columns else np.empty((len(frame), 0))


def counts(numbers: np.ndarray) -> bool:
    """Whether numbers are 0, 1, 2, … or 1, 2, 3, …"""
    return len(numbers) > 0 and numbers[0] in (0, 1) and np.array_equal(numbers, numbers[0] + np.arange(len(numbers)))


def _floats(array: np.ndarray, name: str) -> np.ndarray:
    """A float32 or float64 array with the same values."""
    if array.dtype.kind == "f" and array.dtype.itemsize <= 4:
        return array.astype(np.float32, copy=False)
    if (value := _unlike(array)) is not None:
        remedy = "Convert it to float64." if array.dtype.kind == "f" else "Subtract a common offset from all samples."
        raise InputError(f"{name} must hold numbers that float64 can represent, not {value!s}. {remedy}")
    return array.astype(np.float64, copy=False)


def _unlike(array: np.ndarray) -> Any:
    """The first number that float64 can't represent, or None."""
    if array.dtype.itemsize < 8 or array.dtype == np.float64:
        return None
    if array.dtype.kind == "f":
        differ = np.isfinite(array) & (array.astype(np.float64) != array)
        return array[differ][0] if differ.any() else None
    large = array[(array > 2**53) | (array < -(2**53))] if array.dtype.kind == "i" else array[array > 2**53]
    return next((value for value in large.tolist() if int(float(value)) != value), None)


def available_memory() -> int | None:
    """Bytes available without swapping; None if the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def check_memory(need: float, purpose: str, remedy: str) -> None:
    """Raises :class:`InputError` if less memory than `need` bytes is available."""
    available = available_memory()
    if available is not None and need > available:
        size = f"{need / 2**30:.3g}" if need < 2.0**70 else "over a trillion"
        raise InputError(
            f"There is not enough memory for {purpose}: {size} GiB are needed, {available / 2**30:.3g} GiB are "
            f"available. {remedy}"
        )


def one_line(error: BaseException) -> str:
    """Another library's error in one line: its type and the first sentence of its message."""
    message = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".:")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: torch raises a plain RuntimeError, so its message decides."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate" in str(error))


def check_seed(seed: int) -> int:
    """Returns `seed`, or raises :class:`InputError` if torch's generators would mistake it for another one.

    They read the low 32 bits, and bit 31 is set in the seeds of the data's own streams: `wgan_lip.data.sources`.
    """
    if not isinstance(seed, numbers.Integral) or not 0 <= seed < 2**31:
        raise InputError(f"seed must be an integer from 0 to 2^31 − 1, not {seed!r:.60}.")
    return int(seed)


def check_sizes(*, least: int = 1, **sizes: int) -> None:
    """Raises :class:`InputError`, naming the first size below `least`, or a depth above 10,000 layers."""
    for name, size in sizes.items():
        if size < least:
            raise InputError(f"{name} must be at least {least}, not {size}.")
        if "depth" in name and size > 10_000:
            raise InputError(f"{name} must be at most 10,000 layers, not {size}.")
