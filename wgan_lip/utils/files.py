"""Files written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["write_json", "write_whole"]


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


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all."""
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())
