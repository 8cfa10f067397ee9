"""Files written whole or not at all, and read only if they are regular files."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["LEFTOVERS", "beside", "json_text", "open_regular", "read_regular", "utf8", "write_json", "write_whole"]

LEFTOVERS = ".*.tmp"
"""The pattern of the temporary files of :func:`write_whole`; a killed process leaves one behind."""

NO_LINK = getattr(os, "O_NOFOLLOW", 0)
NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def utf8(text: str) -> str:
    """Text that can be written as UTF-8: other characters, as in some file names, are escaped."""
    return text.encode(errors="backslashreplace").decode()


def write_whole(path: str | os.PathLike[str], content: bytes | Callable[[BinaryIO], object]) -> Path:
    """Writes a file under a temporary name, syncs it to the disk, then renames it.

    At any instant, even if the process is killed, a reader finds the old file or the new one. The temporary name is
    random and must not exist, so no link placed in someone else's folder can redirect the content.

    Arguments:
        path: The file to write or replace.
        content: Its bytes, or a function that writes them to a stream.

    Raises:
        OSError: A full disk, or a folder that can't be written to; `path` is then unchanged.
    """
    path = Path(path)
    temporary = beside(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(temporary, flags, 0o666), "wb") as stream:
        try:
            if callable(content):
                content(stream)
            else:
                stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)
    return path


def beside(path: Path) -> Path:
    """A temporary name in the folder of `path` that is not in use."""
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Opens a regular file, and nothing that could block or never end, such as a pipe, or a device for reading.

    Arguments:
        path: The file. For writing, it must not be a link.
        flags: Flags of :func:`os.open`.

    Returns:
        Its descriptor.

    Raises:
        OSError: It can't be opened, or is not a regular file.
    """
    reads = flags == os.O_RDONLY
    descriptor = os.open(path, flags | NO_WAIT | (0 if reads else NO_LINK), 0o666)
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not reads)):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    return descriptor


def read_regular(path: str | os.PathLike[str], *, limit: int | None = None) -> bytes:
    """The content of a file. Raises OSError as :func:`open_regular` does, or if it holds more than `limit` bytes."""
    with os.fdopen(open_regular(path), "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if limit is not None and size > limit:
            raise OSError(errno.EFBIG, f"it holds {size} bytes, more than {limit}", os.fspath(path))
        return stream.read() if limit is None else stream.read(limit)


def _sync_folder(folder: Path) -> None:
    """Syncs a rename to the disk, if the system can."""
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
    """Content as JSON that every reader accepts: NaN and infinities, which JSON cannot hold, become null."""
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, Sequence) and not isinstance(content, str):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
