"""Output to a terminal: without control characters, and without failing if the terminal is gone."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

__all__ = ["columns", "let_go", "printable", "say", "shown", "streams_made", "takeable", "warn"]


def printable(text: str) -> str:
    r"""`text` without characters that control a terminal: these are escaped, as in `\x1b`.

    They are the control characters (except the newline), direction marks, lone surrogates, and anything else without a
    glyph. Names and messages read from a folder may hold them, to forge or hide the text around them.
    """
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: str, stream: TextIO | None = None) -> None:
    """Prints :func:`printable` text, in characters that the stream can encode; by default to the standard output.

    A console that is gone is not an error: the results are in files, and further output is discarded.

    Raises:
        OSError: The standard output is a file that can't be written to, such as on a full disk: there the text is the
            result.
    """
    stream = sys.stdout if stream is None else stream
    try:
        print(takeable(text, stream), file=stream, flush=True)
    except ValueError:  # it was closed
        return
    except OSError as error:
        if stream is sys.stdout and not _hung_up(error, stream):
            raise
        let_go(stream)


def columns() -> int:
    """Characters per line of the standard output: by `COLUMNS`, or its terminal; unlimited without either."""
    return shutil.get_terminal_size((sys.maxsize, 24)).columns


def takeable(text: str, stream: TextIO) -> str:
    """:func:`printable` text, in characters that a stream can encode."""
    text, encoding = printable(text), getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.replace("≤", "<=").replace("±", "+-").encode("ascii", "replace").decode()
    return text


def warn(text: str) -> None:
    """Prints one line to the standard error, after the name of the program."""
    say(f"wgan-lip: {' '.join(text.split())}", sys.stderr)


def shown(path: Path) -> str:
    """A path as short as it can be typed: relative if it is below the working directory."""
    here = Path.cwd()
    return str(path.resolve().relative_to(here)) if path.resolve().is_relative_to(here) else str(path)


def streams_made() -> None:
    """Gives a process that was started without a console, as by some services, streams that discard everything."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115 - for good


def let_go(stream: TextIO) -> None:
    """Redirects a stream to nowhere, so that nothing fails on it again, not even Python's flush at exit."""
    with suppress(OSError, ValueError):  # a stream without a descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _hung_up(error: OSError, stream: TextIO) -> bool:
    """Whether a pipe has no reader any more, or a terminal was closed."""
    if error.errno == errno.EIO:  # which disks raise as well
        return stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
    return isinstance(error, ConnectionError)  # a broken pipe is one
