"""Checkpoints of a run on disk: the last few and the best, each written completely or not at all."""

from __future__ import annotations

import io
import math
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from wgan_lip.utils.checks import InputError, one_line, out_of_memory
from wgan_lip.utils.files import LEFTOVERS, beside, open_regular, write_whole
from wgan_lip.utils.settings import Settings, above

__all__ = ["BEST", "CHECKPOINT", "Checkpointing", "Checkpoints", "newest_whole", "read_checkpoint", "save_checkpoint"]

CHECKPOINT, BEST = "checkpoint.pt", "best.pt"
EARLIER = re.compile(r"checkpoint-(\d+)\.pt")


def save_checkpoint(directory: Path, state: Mapping[str, Any], sizes: Mapping[str, Any]) -> Path:
    """Writes the training state and the data's sizes to one file: under a temporary name, synced, then renamed."""
    buffer = io.BytesIO()  # torch.save hides the errors of a stream, such as a full disk
    torch.save({"format": 2, "sizes": dict(sizes), "game": dict(state)}, buffer)
    return write_whole(directory / CHECKPOINT, lambda stream: stream.write(buffer.getbuffer()))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what :func:`save_checkpoint` wrote, to the CPU.

    Its bytes are checked against the checksums in the file, which torch writes but never checks.

    Raises:
        InputError: It is damaged, if only by one bit, or not a checkpoint.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as stream:
            _check_archive(stream)
            stream.seek(0)
            checkpoint = torch.load(stream, map_location="cpu", weights_only=True)
        sizes, game = dict(checkpoint["sizes"]), dict(checkpoint["game"])
        sizes = {"image_shape": sizes["image_shape"], **sizes}
        if type(game["step"]) is not int or game["step"] < 0:
            raise ValueError(f"its step is {game['step']!r}")
        _check_sizes(**sizes)
        return {"sizes": sizes, "game": game}
    except Exception as error:  # zipfile and torch.load raise many unrelated types on a damaged file
        if out_of_memory(error):
            raise
        raise InputError(
            f"{path.name} in {path.parent} is damaged: {one_line(error)}. Restore it, or train again."
        ) from None


def _check_sizes(*, image_shape: Any, dim: Any = None, low: Any = None, high: Any = None, **others: Any) -> None:
    """Raises ValueError on sizes that no data can have."""
    if dim is not None and (type(dim) is not int or dim < 1):
        raise ValueError(f"its dim is {dim!r}")
    if image_shape is not None:
        sides = list(image_shape) if isinstance(image_shape, list | tuple) else []
        if len(sides) != 3 or any(type(side) is not int or side < 1 for side in sides):
            raise ValueError(f"its image_shape is {image_shape!r}")
        if dim is not None and math.prod(sides) > dim:  # labels may follow the pixels
            raise ValueError(f"its image_shape is {image_shape!r}, in dimension {dim}")
    for name, value in (("low", low), ("high", high)):
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            raise ValueError(f"its {name} is {value!r}")


def _check_archive(stream: BinaryIO, block: int = 2**20) -> None:
    """Checks the content of a torch file, which is a zip archive without compression, against its checksums.

    Raises:
        zipfile.BadZipFile: The bytes are not those that were stored, or there are entries that no torch file has:
            compressed ones, which may be of any size, or overlapping ones.
    """
    size = stream.seek(0, os.SEEK_END)
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > size or any(e.compress_type for e in entries):
            raise zipfile.BadZipFile("its entries are larger than the file, or compressed")
        for entry in entries:
            with archive.open(entry) as content:
                while content.read(block):
                    pass  # zipfile compares the checksum at the end of an entry


def newest_whole(directory: Path, tell: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The newest undamaged checkpoint, and its content; None if there is no checkpoint.

    Arguments:
        directory: The run's folder.
        tell: Called with a line about each damaged checkpoint, for which the one before is used.

    Raises:
        InputError: All of them are damaged.
    """
    paths = [path for path in (directory / CHECKPOINT, *_earlier(directory)) if path.exists()]
    for path in paths:
        try:
            return path, read_checkpoint(path)
        except InputError as error:
            if path == paths[-1]:
                raise
            tell(f"{error} Using the checkpoint before it.")
    return None


@dataclass(frozen=True, kw_only=True)
class Checkpointing(Settings):
    """When checkpoints are written, in addition to those at every audit and at the end.

    Attributes:
        every: Generator steps between checkpoints; None for no such rule.
        minutes: Minutes of training since the last checkpoint; None for no such rule.
        keep: How many are kept, including `checkpoint.pt` but not `best.pt`.
    """

    every: int | None = above(0, 500, optional=True)
    minutes: float | None = above(0, 10.0, optional=True)
    keep: int = above(0, 2, most=10_000)


class Checkpoints:
    """Writes a run's checkpoints and keeps the last few: `checkpoint.pt`, then `checkpoint-STEP.pt`, and `best.pt`.

    From the first one on there is always a complete `checkpoint.pt`; earlier ones are links to its old file.

    Arguments:
        directory: The run's folder.
        sizes: The data's sizes, stored in each checkpoint.
        settings: When one is due, and how many are kept.
        step: The step of the existing `checkpoint.pt`; None if there is none to keep.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        directory: Path,
        sizes: Mapping[str, Any],
        settings: Checkpointing = Checkpointing(),
        *,
        step: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory, self.sizes, self.settings, self.step = directory, sizes, settings, step
        self._clock, self._saved_at = clock, clock()
        for leftover in directory.glob(LEFTOVERS):  # of a process that was killed
            leftover.unlink(missing_ok=True)

    def due(self, step: int) -> bool:
        """Whether a checkpoint is due after `step` steps."""
        every, minutes = self.settings.every, self.settings.minutes
        by_steps = every is not None and step > 0 and step % every == 0 and step != self.step
        return by_steps or (minutes is not None and self._clock() - self._saved_at >= 60 * minutes)

    def save(self, state: Mapping[str, Any], *, best: bool = False) -> None:
        """Writes `checkpoint.pt`, keeps its predecessors, and makes it `best.pt` as well if `best`.

        Raises:
            OSError: A full disk, a folder that can't be written to. The previous checkpoint is then intact.
        """
        newest = self.directory / CHECKPOINT
        if self.step is not None and self.settings.keep > 1 and self.step != state["step"]:
            _link(newest, self.directory / f"checkpoint-{self.step}.pt")
        save_checkpoint(self.directory, state, self.sizes)
        self.step, self._saved_at = state["step"], self._clock()
        if best:
            _link(newest, self.directory / BEST)
        earlier = [path for path in _earlier(self.directory) if _step(path) < self.step]
        for path in {*_earlier(self.directory)} - {*earlier[: self.settings.keep - 1]}:
            path.unlink(missing_ok=True)


def _earlier(directory: Path) -> list[Path]:
    """Checkpoints before the newest, the latest first."""
    return sorted((path for path in directory.iterdir() if EARLIER.fullmatch(path.name)), key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _link(source: Path, target: Path) -> None:
    """Makes `target` a link to the file that `source` names now, or a copy if the file system has no links."""
    temporary = beside(target)
    try:
        os.link(source, temporary)
    except OSError:
        with open(source, "rb") as stream:
            write_whole(target, lambda copy: shutil.copyfileobj(stream, copy))
        return
    try:
        os.replace(temporary, target)
    finally:
        with suppress(OSError):  # the rename of a link onto itself leaves it
            temporary.unlink(missing_ok=True)
