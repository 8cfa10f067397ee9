"""Records to TensorBoard, JSON lines and the console."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from torch import Tensor

from wgan_lip.checks import InputError
from wgan_lip.files import write_whole

__all__ = [
    "ESTIMATE_CHARTS",
    "TRAINING_CHARTS",
    "Console",
    "IntervalConsole",
    "JsonLinesTracker",
    "RecordLike",
    "StagedRecordLike",
    "TensorBoardTracker",
    "Tracker",
    "Trackers",
    "clock_time",
    "interval_digits",
    "interval_text",
    "read_records",
    "rounded",
    "rounded_down",
    "rounded_up",
]


class RecordLike(Protocol):
    """What happened at one step of a training or an estimate: `scalars` maps a tag `group/name` to its value."""

    @property
    def step(self) -> int: ...
    @property
    def scalars(self) -> Mapping[str, float]: ...


class StagedRecordLike(RecordLike, Protocol):
    """A record of an estimate; `stage` says in words what it is doing."""

    @property
    def stage(self) -> str: ...


class Tracker(Protocol):
    """A place where records go."""

    def record(self, record: RecordLike) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class _Closing(AbstractContextManager):
    """Closes itself at the end of a `with` block."""

    @abstractmethod
    def close(self) -> None: ...

    def flush(self) -> None:
        """Lets what was recorded reach the disk."""

    def __exit__(self, *failure: object) -> None:
        self.close()


class Trackers(_Closing):
    """Sends every record to each tracker in turn; closes all of them, also where one of them fails to close."""

    def __init__(self, *trackers: Tracker) -> None:
        self._trackers = trackers
        self._stack = ExitStack()
        for tracker in trackers:
            self._stack.push(tracker if isinstance(tracker, AbstractContextManager) else closing(tracker))

    def record(self, record: RecordLike) -> None:
        for tracker in self._trackers:
            tracker.record(record)

    def flush(self) -> None:
        for tracker in self._trackers:
            tracker.flush()

    def close(self) -> None:
        self._stack.close()

    def __exit__(self, *failure: object) -> None:
        self._stack.__exit__(*failure)


# Note [Tags of custom scalars]. The server matches every tag of a chart as a regular expression, from its start. The
# page escapes the tags of a Margin chart before it asks for them, so a `$` there would be a literal dollar; the tags of
# a Multiline chart it sends as they are, so without a `$` `w1/exact` would also draw `w1/exact_test`. A Margin chart
# draws nothing unless its three tags hold the same steps. An estimate knows the exact value at its end, if at all, so
# its chart has the lower bound in the place of the value.
TRAINING_CHARTS = {
    "wgan_lip": {
        "W1: certified interval around the exact value": ["Margin", ["w1/exact", "w1/lower", "w1/upper"]],
        "W1: the critic's estimate and the exact value": ["Multiline", ["w1/critic$", "w1/exact$"]],
        "Lipschitz constant: certified upper bound": ["Multiline", ["certificate/lipschitz$"]],
        "Gradient norm of the critic": ["Multiline", ["critic/grad_norm$"]],
    }
}
ESTIMATE_CHARTS = {
    "wgan_lip estimate": {
        "W1: certified interval": ["Margin", ["w1/lower", "w1/lower", "w1/upper"]],
        "W1: both ends, the exact value and the critic's estimate": [
            "Multiline",
            ["w1/lower$", "w1/upper$", "w1/exact$", "w1/critic$"],
        ],
    }
}


class TensorBoardTracker(_Closing):
    """Writes one event file of scalars, pictures, text, histograms, hyperparameters and a chart of the W1 interval.

    TensorBoard keeps scalars in single precision, and its charts break off at an infinity, which is left out here. An
    interval without an upper bound is left out at both ends. :class:`JsonLinesTracker` keeps everything in full.

    Arguments:
        directory: Where the event file goes; the run in TensorBoard carries its name.
        purge_step: On resume, the first step that will be recorded again: TensorBoard then forgets what the
            interrupted run wrote at this step or later. None for a new run.
        charts: The charts of the page "Custom scalars": `TRAINING_CHARTS` or `ESTIMATE_CHARTS`.
    """

    def __init__(
        self, directory: str | os.PathLike[str], purge_step: int | None = None, *,
        charts: Mapping[str, Mapping[str, list]] = TRAINING_CHARTS,
    ) -> None:  # fmt: skip
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(os.fspath(directory), purge_step=purge_step, flush_secs=10)
        self._session_end: Any = None
        self._resumed = bool(purge_step)
        if not purge_step:  # a resumed run has its layout already, at step 0
            self._writer.add_custom_scalars(charts)

    def record(self, record: RecordLike) -> None:
        writer = self._open_writer()
        scalars = {tag: float(value) for tag, value in record.scalars.items()}
        if math.isinf(scalars.get("w1/upper", 0.0)):
            scalars.pop("w1/lower", None)  # see Note [Tags of custom scalars]: the ends share their steps
        for tag, value in scalars.items():
            if not math.isinf(value):
                writer.add_scalar(tag, value, record.step)

    def image(self, tag: str, array: np.ndarray, step: int) -> None:
        """Writes a picture: uint8, shape (h, w, 3)."""
        self._open_writer().add_image(tag, array, step, dataformats="HWC")

    def figure(self, tag: str, picture: str | os.PathLike[str] | np.ndarray, step: int) -> None:
        """Writes a picture from a PNG file, or from an array as :meth:`image` takes it."""
        if not isinstance(picture, np.ndarray):
            from PIL import Image

            with Image.open(picture) as image:
                picture = np.asarray(image.convert("RGB"))
        self.image(tag, picture, step)

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        self._open_writer().add_text(tag, markdown, step)

    def histogram(self, tag: str, values: Tensor | np.ndarray, step: int) -> None:
        """Writes the histogram of the finite values; where there is none, writes nothing."""
        values = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
        finite = values[np.isfinite(values)]
        if finite.size:
            self._open_writer().add_histogram(tag, finite, step)

    def hparams(self, params: Mapping[str, Any], metrics: list[str]) -> None:
        """Writes the hyperparameters and names the scalar tags to set beside them; call it once, before training.

        The summaries go through the run's own file: `SummaryWriter.add_hparams` would open a second run. The session
        is marked a success by :meth:`close`, and left open where a `with` block ends in an exception. A resumed run has
        its hyperparameters already, and only ends their session.

        Arguments:
            params: Values by name. Numbers stay numbers; anything but numbers and strings is written as `str(value)`.
            metrics: Tags of scalars.
        """
        from torch.utils.tensorboard.summary import hparams

        plain = {name: value if type(value) in (int, float, str) else str(value) for name, value in params.items()}
        experiment, session_start, self._session_end = hparams(plain, dict.fromkeys(metrics))
        for summary in () if self._resumed else (experiment, session_start):
            self._open_writer().file_writer.add_summary(summary)

    def flush(self) -> None:
        self._open_writer().flush()

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            if self._session_end is not None:
                writer.file_writer.add_summary(self._session_end)
        finally:
            writer.close()

    def __exit__(self, *failure: object) -> None:
        if failure[0] is not None:
            self._session_end = None
        self.close()

    def _open_writer(self) -> Any:
        if self._writer is None:  # SummaryWriter would silently start a second event file
            raise ValueError("Expected an open TensorBoardTracker. This one is closed. Record before closing.")
        return self._writer


class JsonLinesTracker(_Closing):
    """Writes each record as one line of strict JSON: `{"step": 3, "time": 1.52, "w1/lower": 0.41, ...}`.

    `time` counts seconds of work since the run began; a resumed run goes on from the last line it keeps. JSON has no
    number for NaN and the infinities: they are written as the strings "NaN", "Infinity" and "-Infinity", which
    :func:`read_records` turns back into floats.

    Every line goes to the operating system at once, so a killed process loses at most the line it was writing. A line
    that does not fit on the disk is taken back before the OSError goes on.

    Arguments:
        path: The file. Its folder must exist.
        resume_step: The first step that will be recorded again. Lines at this step or later, and a half-written last
            line, are dropped. None for a new run.

    Raises:
        FileExistsError: The file has lines, and `resume_step` is None.
    """

    def __init__(self, path: str | os.PathLike[str], resume_step: int | None = None) -> None:
        path = Path(path)
        seconds = 0.0
        if path.exists() and path.stat().st_size:
            if resume_step is None:
                raise FileExistsError(
                    f"Expected no records in a new run. {path} holds some. Choose another directory, or resume."
                )
            kept = [record for record in read_records(path) if record["step"] < resume_step]
            seconds = max((record.get("time", 0.0) for record in kept), default=0.0)
            write_whole(path, "".join(map(_line, kept)).encode())
        self._start = time.monotonic() - seconds
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open until close()

    def record(self, record: RecordLike) -> None:
        scalars = {tag: float(value) for tag, value in record.scalars.items()}
        seconds = round(time.monotonic() - self._start, 3)
        data = _line({"step": int(record.step), "time": seconds, **scalars}).encode()
        end = self._file.seek(0, os.SEEK_END)
        try:
            while data:  # an unbuffered write may take a part only
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
    """Reads what :class:`JsonLinesTracker` wrote, without a last line that was cut short.

    Raises:
        InputError: A line that is not the last one is no record.
    """
    lines = [(number, line) for number, line in enumerate(Path(path).read_bytes().split(b"\n"), 1) if line.strip()]
    records = []
    for number, line in lines:
        try:
            record = json.loads(line)
            step, items = record["step"], record.items()
            records.append({"step": int(step)} | {tag: float(value) for tag, value in items if tag != "step"})
        except (ValueError, TypeError, KeyError, AttributeError):
            if number != lines[-1][0]:
                raise InputError(
                    f"Expected one JSON record a line in {path}. Line {number} is none: {line[:60]!r}. Delete it."
                ) from None
    return records


def _line(record: Mapping[str, float]) -> str:
    names = {math.inf: "Infinity", -math.inf: "-Infinity"}
    strict = {tag: v if math.isfinite(v) else names.get(v, "NaN") for tag, v in record.items()}
    return json.dumps(strict, allow_nan=False) + "\n"


class _Screen(_Closing):
    """A line that says how things stand: below a live bar on a terminal, printed from time to time elsewhere."""

    def __init__(self, stream: TextIO | None, interval: float, clock: Callable[[], float]) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._interval, self._clock = interval, clock
        self._start, self._printed_at = clock(), -math.inf
        self._latest: dict[str, float] = {}
        self._unprinted = False
        self._terminal = self._stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        self._live: Any = None

    @abstractmethod
    def _status(self) -> str:
        """The line."""

    @abstractmethod
    def _share(self) -> float:
        """How much of the bar is done, from 0 to 1."""

    def close(self) -> None:
        """Gives the terminal back; elsewhere prints the last record, if that is still to do."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        elif not self._terminal and self._unprinted:
            self._print()

    def _show(self, now: bool) -> None:
        """Shows what came: at once on a terminal or if `now`, else only where the last line is old enough."""
        self._unprinted = True
        if self._terminal:
            self._live = self._live or self._start_live()
        elif now or self._clock() - self._printed_at >= self._interval:
            self._print()

    def _print(self) -> None:
        self._unprinted, self._printed_at = False, self._clock()
        print(self._text(), file=self._stream, flush=True)

    def _text(self) -> str:
        """The line, in characters that the stream can take."""
        status, encoding = self._status(), getattr(self._stream, "encoding", None) or "utf-8"
        try:
            status.encode(encoding)
        except UnicodeEncodeError:
            return status.replace("≤", "<=").encode("ascii", "replace").decode()
        return status

    def _start_live(self) -> Any:
        from rich import console, live, progress_bar, table, text

        def bar() -> table.Table:
            rows = table.Table.grid(expand=True)
            rows.add_row(progress_bar.ProgressBar(1.0, self._share()))
            rows.add_row(text.Text(self._text()))
            return rows

        display = live.Live(console=console.Console(file=self._stream, highlight=False), get_renderable=bar)
        display.start()
        return display


class Console(_Screen):
    """Shows where the run stands: a live bar on a terminal, plain lines elsewhere.

    Plain lines come with every record that holds an audit (`w1/exact`), with the last step, and otherwise at most one
    in `interval` seconds. Bounds are rounded outward: what is printed is never tighter than what was proved.

    Arguments:
        total_steps: Generator steps of the whole run.
        stream: Where to write; standard error by default, which leaves standard output to results.
        start_step: Steps done before, where a run is resumed.
        interval: Seconds between plain lines.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, total_steps: int, stream: TextIO | None = None, *, start_step: int = 0, interval: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        super().__init__(stream, interval, clock)
        self._total, self._first, self._step = total_steps, start_step, start_step
        self._audit: RecordLike | None = None

    def record(self, record: RecordLike) -> None:
        self._step = record.step
        self._latest.update(record.scalars)
        audit = "w1/exact" in record.scalars
        if audit or "w1/lower" in record.scalars:
            self._audit = record
        self._show(now=audit or record.step >= self._total)

    def _share(self) -> float:
        return self._step / max(self._total, 1)

    def _status(self) -> str:
        elapsed, done = self._clock() - self._start, self._step - self._first
        left = clock_time(elapsed * (self._total - self._step) / done) if done > 0 else "?"
        progress = f"step {self._step}/{self._total}  {100 * self._share():.1f}%  "
        return "  ".join([f"{progress}elapsed {clock_time(elapsed)}  left {left}", *self._figures()])

    def _figures(self) -> list[str]:
        """The latest key figures; an interval from an earlier step carries that step."""
        figures = []
        if self._audit is not None:
            interval = _interval(self._audit.scalars)
            figures.append(interval if self._audit.step == self._step else f"{interval} at step {self._audit.step}")
        if "w1/critic" in self._latest:
            figures.append(f"critic {rounded(self._latest['w1/critic'], 4)}")
        if "certificate/lipschitz" in self._latest:
            figures.append(f"Lip ≤ {rounded(self._latest['certificate/lipschitz'], 6, ROUND_CEILING)}")
        return figures


class IntervalConsole(_Screen):
    """Shows how an estimate of W1 stands: a live bar on a terminal, plain lines elsewhere.

    The line holds the stage, the time, the interval and its width over its upper end. The time goes on between records
    on a terminal. Plain lines come with every stage of a new name (a number at its end makes no new name), with the
    last record, and otherwise at most one in `interval` seconds. Bounds are rounded outward, to as many digits as
    their width asks for.

    Arguments:
        seconds: The time limit, which fills the bar; `math.inf` for none.
        stream: Where to write; standard error by default, which leaves standard output to results.
        interval: Seconds between plain lines.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, seconds: float, stream: TextIO | None = None, *, interval: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        super().__init__(stream, interval, clock)
        self._limit, self._stage = seconds, ""

    def record(self, record: StagedRecordLike) -> None:
        before, self._stage = self._stage, record.stage
        self._latest.update(record.scalars)
        self._show(now=before.rstrip("0123456789/ ") != record.stage.rstrip("0123456789/ "))

    def _share(self) -> float:
        return min(1.0, (self._clock() - self._start) / max(self._limit, 1e-9))

    def _status(self) -> str:
        elapsed = clock_time(self._clock() - self._start)
        parts = [self._stage, f"{elapsed} of {clock_time(self._limit)}" if math.isfinite(self._limit) else elapsed]
        if {"w1/lower", "w1/upper"} & self._latest.keys():
            parts.append(_interval(self._latest))
        upper = self._latest.get("w1/upper", math.inf)
        if 0 < upper < math.inf:
            percent = (upper - self._latest.get("w1/lower", 0.0)) / upper * 100
            parts.append(f"width {rounded(percent, 2, ROUND_CEILING)} %")
        if "w1/critic" in self._latest:
            parts.append(f"critic {rounded(self._latest['w1/critic'], 4)}")
        return "  ".join(parts)


def interval_digits(lower: float, upper: float) -> int:
    """Significant digits that show how wide the interval is: two of its width, four at least, 17 at most."""
    if not lower < upper < math.inf:
        return 17 if lower == upper else 4
    return min(max(4, 2 + math.ceil(math.log10(max(-lower, upper) / (upper - lower)))), 17)


def interval_text(lower: float, upper: float, exact: float | None = None) -> str:
    """`lower ≤ W1 = exact ≤ upper`, with the ends rounded outward; an infinite upper end is left out."""
    digits = interval_digits(lower, upper)
    text = f"{rounded(lower, digits, ROUND_FLOOR)} ≤ W1"
    text = text if exact is None else f"{text} = {rounded(exact, digits)}"
    return text if upper == math.inf else f"{text} ≤ {rounded(upper, digits, ROUND_CEILING)}"


def _interval(scalars: Mapping[str, float]) -> str:
    return interval_text(scalars.get("w1/lower", 0.0), scalars.get("w1/upper", math.inf), scalars.get("w1/exact"))


def rounded(value: float, digits: int, rounding: str = ROUND_HALF_EVEN) -> str:
    number = Context(prec=digits, rounding=rounding).create_decimal_from_float(float(value))
    plain = f"{number:f}"
    return plain if len(plain) <= 12 else str(number)


def rounded_down(value: float, digits: int = 4) -> str:
    """A lower bound as text that is one as well."""
    return rounded(value, digits, ROUND_FLOOR)


def rounded_up(value: float, digits: int = 4) -> str:
    """An upper bound as text that is one as well."""
    return rounded(value, digits, ROUND_CEILING)


def clock_time(seconds: float) -> str:
    minutes, seconds = divmod(int(max(seconds, 0.0)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
