"""Checks of input: what was required, what came, and the remedy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

__all__ = [
    "InputError",
    "UncertifiableError",
    "available_memory",
    "check_choice",
    "check_memory",
    "check_pair",
    "check_samples",
    "check_seed",
    "check_sizes",
    "check_weights",
    "one_line",
    "out_of_memory",
]


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what was required, what came, the remedy."""


class UncertifiableError(InputError):
    """A module stands in the way of a proof; the message names its path and how to give it a bound."""


def check_choice(value: str, choices: Sequence[str], what: str) -> str:
    """Returns `value` if it is one of `choices`, else raises :class:`InputError` naming all of them."""
    if value not in choices:
        raise InputError(f"Expected {what} to be one of {', '.join(choices)}. Got {value!r}.")
    return value


def check_samples(samples: Tensor | ArrayLike, name: str, *, minimum: int = 1) -> Tensor:
    """Turns an array of samples into a finite real tensor of shape (n, d).

    Arguments:
        samples: Tensor or array of real numbers, shape (n, d). Integers become float64 (exactly, up to 2^53);
            half precision becomes float32; float32 and float64 stay as they are, on their device.
        name: What the error message calls them.
        minimum: The least n that is accepted.

    Raises:
        InputError: Not an array of numbers, complex, not two-dimensional, d = 0, fewer than `minimum` rows, or a
            row that is not finite (the first one is named).
    """
    if not isinstance(samples, Tensor):
        try:
            array = np.asarray(samples)
        except ValueError:
            raise InputError(f"Expected {name} of shape (n, d). Got rows of unequal lengths.") from None
        if array.dtype.kind not in "fiu":
            raise InputError(f"Expected {name} to hold real numbers. Got dtype {array.dtype}. Convert it to float64.")
        if array.dtype.itemsize > 8 or array.dtype.kind == "u":
            array = array.astype(np.float64)
        elif not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        samples = torch.from_numpy(np.array(array, order="C", copy=True))
    if samples.is_complex() or samples.dtype == torch.bool:
        raise InputError(f"Expected {name} to hold real numbers. Got dtype {samples.dtype}. Convert it to float64.")
    if samples.dtype in (torch.float16, torch.bfloat16):
        samples = samples.to(torch.float32)
    elif not samples.is_floating_point():
        samples = samples.to(torch.float64)
    shape = tuple(samples.shape)
    if samples.ndim != 2:
        remedy = "Use x[:, None] for scalars." if samples.ndim == 1 else "Flatten each sample into one row."
        raise InputError(f"Expected {name} of shape (n, d). Got shape {shape}. {remedy}")
    if shape[1] == 0:
        raise InputError(f"Expected {name} with at least one column. Got shape {shape}.")
    if shape[0] < minimum:
        need = "one sample" if minimum == 1 else f"{minimum} samples"
        raise InputError(f"Expected {name} with at least {need}. Got {shape[0]}. Give more samples.")
    finite = torch.isfinite(samples).all(dim=1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise InputError(
            f"Expected {name} to be finite. Got NaN or infinity in {int((~finite).sum())} of {shape[0]} rows, "
            f"the first of them row {row}. Remove or repair these rows."
        )
    return samples


def check_pair(x: Tensor | ArrayLike, y: Tensor | ArrayLike, *, minimum: int = 1) -> tuple[Tensor, Tensor]:
    """Checks two sample sets, (n, d) and (m, d), of the same dimension d. Raises :class:`InputError`."""
    x, y = check_samples(x, "x", minimum=minimum), check_samples(y, "y", minimum=minimum)
    if x.shape[1] != y.shape[1]:
        raise InputError(
            f"Expected x and y of equal dimension. Got {tuple(x.shape)} and {tuple(y.shape)}. "
            "Check that both hold the same features."
        )
    return x, y


@overload
def check_weights(weights: None, n: int, name: str) -> None: ...
@overload
def check_weights(weights: Tensor | ArrayLike, n: int, name: str) -> np.ndarray: ...
def check_weights(weights: Tensor | ArrayLike | None, n: int, name: str) -> np.ndarray | None:
    """Checks non-negative finite weights, shape (n,), of positive total; None stands for uniform weights."""
    if weights is None:
        return None
    if isinstance(weights, Tensor):
        weights = weights.detach().cpu().to(torch.float32 if weights.dtype == torch.bfloat16 else weights.dtype)
    array = np.asarray(weights)
    if array.dtype.kind not in "fiub":
        raise InputError(f"Expected {name} to hold real numbers. Got dtype {array.dtype}. Convert it to float64.")
    array = array.astype(np.float64)
    if array.shape != (n,):
        raise InputError(f"Expected {name} of shape ({n},), one weight a sample. Got shape {array.shape}.")
    if not np.isfinite(array).all() or (array < 0).any():
        row = int(np.flatnonzero(~np.isfinite(array) | (array < 0))[0])
        raise InputError(f"Expected {name} to be finite and non-negative. Got {array[row]} at position {row}.")
    if not array.any():
        raise InputError(f"Expected {name} with a positive total. Got all zeros.")
    return array


def available_memory() -> int | None:
    """Bytes that can be had without swapping, None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def check_memory(need: int, purpose: str, remedy: str) -> None:
    """Raises :class:`InputError` where less memory than `need` bytes is available."""
    available = available_memory()
    if available is not None and need > available:
        raise InputError(
            f"Expected {need / 2**30:.3g} GiB of memory for {purpose}. "
            f"Got {available / 2**30:.3g} GiB available. {remedy}"
        )


def one_line(error: BaseException) -> str:
    """An error of another library in one line: its type and the first sentence of its message."""
    message = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".:")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: torch tells it by a RuntimeError, of which only the message is its own."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate" in str(error))


def check_seed(seed: int) -> int:
    """Returns `seed`, or raises :class:`InputError` where torch's generators would take it for another one.

    They read the low 32 bits, and bit 31 is set in the seeds of the data's own streams: `wgan_lip.data.sources`.
    """
    if not 0 <= seed < 2**31:
        raise InputError(f"Expected a seed of at least 0 and below 2^31. Got {seed}.")
    return seed


def check_sizes(*, least: int = 1, **sizes: int) -> None:
    """Raises :class:`InputError`, naming the first size below `least`, or a depth above 10,000 layers."""
    for name, size in sizes.items():
        if size < least:
            raise InputError(f"Expected {name} of at least {least}. Got {size}.")
        if "depth" in name and size > 10_000:
            raise InputError(f"Expected {name} of at most 10,000 layers. Got {size}.")
