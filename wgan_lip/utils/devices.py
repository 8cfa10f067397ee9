"""Where a process computes: its device and threads, and its rank among the processes of one training run."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from wgan_lip.utils.checks import InputError

__all__ = [
    "find_device",
    "flushed_denormals",
    "full_precision",
    "keep_freed_memory",
    "local_rank",
    "rank",
    "set_threads",
    "world_size",
]

_HALF = 0.5
WHOLE = ("ieee", "none")  # torch's names for float32 products in full precision
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def set_threads(threads: int | None) -> None:
    """Sets torch's CPU threads; None leaves the default. Raises :class:`InputError` below 1, or for far too many."""
    if threads is None:
        return
    if threads < 1:
        raise InputError(f"threads must be at least 1, not {threads}.")
    if threads > (most := 16 * (os.cpu_count() or 1)):
        raise InputError(f"threads must be at most {most}, 16 per processor, not {threads}.")
    torch.set_num_threads(threads)


def find_device(name: str) -> torch.device:
    """The device for auto, cpu, cuda or cuda:N; with several processes, one GPU for each.

    Raises :class:`InputError` if there is none.
    """
    if world_size() > 1 and torch.cuda.is_available() and name in ("auto", "cuda"):
        name = f"cuda:{local_rank()}"
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device must be auto, cpu, cuda or cuda:N, not {name!r}.") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise InputError(f"device={name} is not available: torch finds {torch.cuda.device_count()} GPU(s). Use cpu.")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device must be auto, cpu, cuda or cuda:N, not {name!r}.")
    return device


@contextmanager
def full_precision() -> Iterator[None]:
    """Float32 matrix products in full float32, on CPU and GPU, whatever torch allows: TF32, bfloat16, autocast.

    A bound that counts rounding in float32 does not hold for fewer bits, and weights retracted with fewer bits end up
    outside their set. torch's settings are restored afterwards. Convolutions are not changed.
    """
    products = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    allowed = [kind.fp32_precision for kind in products]
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        try:
            for kind, before in zip(products, allowed):
                if before not in WHOLE:
                    kind.fp32_precision = "ieee"
            yield
        finally:
            for kind, before in zip(products, allowed):
                if before not in WHOLE:
                    kind.fp32_precision = before


def keep_freed_memory(largest: int = 32 * 2**20) -> None:
    """Keeps freed blocks of up to `largest` bytes, at most 32 MiB, in the process; does nothing without glibc.

    By default glibc returns blocks of some MiB to the system when they are freed. A training step, which frees and
    takes the same blocks each time, then spends up to half its time on pages that the system clears again.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library, another system
        return
    mallopt(_MMAP_THRESHOLD, largest)
    mallopt(_TRIM_THRESHOLD, 4 * largest)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Within, this thread treats subnormal numbers as 0, if the processor can.

    Some processors are a hundred times slower with such numbers, and training makes many: shares of a soft maximum, an
    optimiser's moments of parameters without a gradient. Only for training steps: bounds count rounding with subnormal
    numbers kept.
    """
    before = sys.float_info.min * _HALF == 0.0  # Python follows the same rule
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def world_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """The rank of this process, from 0."""
    return _number("RANK", 0) if world_size() > 1 else 0


def local_rank() -> int:
    """Its rank on this machine, which is the index of its GPU."""
    return _number("LOCAL_RANK", 0) if world_size() > 1 else 0


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal():
        raise InputError(f"The environment variable {variable} must be an integer, not {text!r}. Unset it.")
    return int(text)
