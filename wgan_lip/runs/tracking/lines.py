"""Records as lines of JSON."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from wgan_lip.runs.tracking.records import RecordLike, Tracker
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.files import json_text, open_regular, read_regular, write_whole

LARGEST = 2**30  # most bytes of records to read, about those of a million records


class JsonLinesTracker(Tracker):
    """Writes each record as one line of strict JSON: `{"step": 3, "time": 1.52, "w1/lower": 0.41, ...}`.

    `time` counts seconds of work since the run began; a resumed run continues from the last line it keeps. NaN and
    infinities, which JSON does not have, are written as null, which :func:`read_records` reads as NaN.

    Every line goes to the operating system at once, so a killed process loses at most the line it was writing. A line
    that does not fit on the disk is removed again before the OSError is raised.

    Arguments:
        path: The file. Its folder must exist.
        resume_step: The first step that will be recorded again. Lines from this step on, and a half-written last line,
            are dropped. None for a new run.

    Raises:
        FileExistsError: The file has lines, and `resume_step` is None.
    """

    def __init__(self, path: str | os.PathLike[str], resume_step: int | None = None) -> None:
        path = Path(path)
        seconds = 0.0
        if path.exists() and path.stat().st_size:  # a pipe has no size, and is refused below
            if resume_step is None:
                raise FileExistsError(
                    f"{path} already holds the records of a run. Choose another folder, or resume the run."
                )
            kept = [record for record in read_records(path) if record["step"] < resume_step]
            seconds = max((s for record in kept if math.isfinite(s := record.get("time", 0.0))), default=0.0)
            write_whole(path, "".join(map(_line, kept)).encode())
        self._start = time.monotonic() - seconds
        self._file = os.fdopen(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab", buffering=0)

    def record(self, record: RecordLike) -> None:
        scalars = {tag: float(value) for tag, value in record.scalars.items()}
        seconds = round(time.monotonic() - self._start, 3)
        data = _line({"step": int(record.step), "time": seconds, **scalars}).encode()
        end = self._file.seek(0, os.SEEK_END)
        try:
            while data:  # an unbuffered write may write only a part
                data = data[self._file.write(data) :]
        except BaseException:
            with suppress(OSError):
                self._file.truncate(end)
            raise

    def flush(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads what :class:`JsonLinesTracker` wrote, ignoring a last line that was cut short.

    Raises:
        InputError: A line other than the last is not a record, or the file can't be read.
    """
    try:
        content = read_regular(path, limit=LARGEST)
    except OSError as error:
        raise InputError(f"The records in {path} can't be read: {error.strerror}.") from None
    lines = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    records = []
    for number, line in lines:
        try:
            records.append(_record(json.loads(line)))
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
            if number != lines[-1][0]:
                raise InputError(f"Line {number} of {path} is not a JSON record: {line[:60]!r}. Delete it.") from None
    return records


def _record(content: Mapping[str, Any]) -> dict[str, Any]:
    """A step, and a number for every tag."""
    values = {tag: math.nan if value is None else float(value) for tag, value in content.items() if tag != "step"}
    if type(step := content["step"]) is not int or not 0 <= step < 2**63:
        raise ValueError(f"{step!r} is not a step")
    return {"step": step} | values


def _line(record: Mapping[str, float]) -> str:
    return json_text(record) + "\n"
