"""What is told on a terminal: nothing that could steer it, and no failure where it is gone."""

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
    r"""`text` without anything that steers a terminal: such characters are spelt out, as in `\x1b`.

    Those are the control characters (but for the newline), marks of direction, lone surrogates, and whatever else has
    no glyph. Names and reasons read from a folder may hold them, to forge or to hide what stands around them.
    """
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: str, stream: TextIO | None = None) -> None:
    """Prints :func:`printable` text, in characters that the stream can take; by default to the standard output.

    A console that is gone is no failure: the work was done for the files, and what else is said goes nowhere.

    Raises:
        OSError: The standard output leads to a file that can't be written to, such as on a full disk: there the text
            is the result.
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
    """Letters that fit in a line of the standard output: by `COLUMNS`, or its terminal; any number without."""
    return shutil.get_terminal_size((sys.maxsize, 24)).columns


def takeable(text: str, stream: TextIO) -> str:
    """:func:`printable` text, in characters of a stream's encoding."""
    text, encoding = printable(text), getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.replace("≤", "<=").replace("±", "+-").encode("ascii", "replace").decode()
    return text


def warn(text: str) -> None:
    """Says one line on the standard error, under the name of the program."""
    say(f"wgan-lip: {' '.join(text.split())}", sys.stderr)


def shown(path: Path) -> str:
    """A path as short as it can be typed: relative to here where that is below here."""
    here = Path.cwd()
    return str(path.resolve().relative_to(here)) if path.resolve().is_relative_to(here) else str(path)


def streams_made() -> None:
    """Gives a process that was started without a console, as by some services, streams that lead nowhere."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115 - for good


def let_go(stream: TextIO) -> None:
    """Points a stream to nowhere, so that nothing fails on it again: not even Python, which flushes it at exit."""
    with suppress(OSError, ValueError):  # one that has no descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _hung_up(error: OSError, stream: TextIO) -> bool:
    """Whether nobody reads a pipe any more, or a terminal was closed."""
    if error.errno == errno.EIO:  # of a disk as well
        return stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
    return isinstance(error, ConnectionError)  # a broken pipe is one
