"""Files written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["json_text", "write_json", "write_whole"]


def write_whole(path: str | os.PathLike[str], content: bytes | Callable[[BinaryIO], object]) -> Path:
    """Writes a file under a temporary name, syncs it to the disk, then renames it.

    A reader, and a process killed at any instant, finds the old file or the new one.

    Arguments:
        path: The file to write or replace.
        content: Its bytes, or what writes them to a stream.

    Raises:
        OSError: A full disk, a folder that can't be written to; `path` is then as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            if callable(content):
                content(stream)
            else:
                stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _sync_folder(folder: Path) -> None:
    """Lets a renaming reach the disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Writes :func:`json_text`, whole or not at all."""
    return write_whole(path, (json_text(content, indent=2) + "\n").encode())


def json_text(content: Any, *, indent: int | None = None) -> str:
    """Content as JSON that every reader takes: NaN and the infinities, for which JSON has no number, become null."""
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, Sequence) and not isinstance(content, str):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
