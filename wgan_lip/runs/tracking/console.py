"""Records as a live bar on a terminal or in a notebook, or as plain lines."""

from __future__ import annotations

import math
import os
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from decimal import ROUND_CEILING
from html import escape
from typing import Any, TextIO

from wgan_lip.runs.tracking.records import RecordLike, StagedRecordLike, Tracker
from wgan_lip.utils.numbers import clock_time, interval_text, rounded
from wgan_lip.utils.printing import BLUE
from wgan_lip.utils.terminal import let_go, printable, say, takeable

REFRESH = 0.25  # seconds between two states of a notebook's bar


class _Screen(Tracker):
    """A status line: below a live bar on a terminal or in a notebook, printed from time to time elsewhere."""

    def __init__(self, stream: TextIO | None, interval: float, clock: Callable[[], float]) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._cell = stream is None and _in_notebook()
        self._interval, self._clock = REFRESH if self._cell else interval, clock
        self._start, self._printed_at = clock(), -math.inf
        self._latest: dict[str, float] = {}
        self._unprinted = False
        self._terminal = self._stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        self._live: Any = None
        self._output: Any = None

    @abstractmethod
    def _status(self) -> str:
        """The line."""

    @abstractmethod
    def _share(self) -> float:
        """The share of the bar that is filled, from 0 to 1."""

    def close(self) -> None:
        """Releases the terminal; elsewhere prints the last record, if it has not been printed yet."""
        live, self._live = self._live, None
        if live is not None:
            try:
                live.stop()
            except OSError:  # the terminal was closed
                let_go(self._stream)
        elif not self._terminal and self._unprinted:
            self._print()

    def _show(self, now: bool) -> None:
        """Shows the news: at once on a terminal or if `now`, else only if the last line is old enough."""
        self._unprinted = True
        if self._terminal:
            self._live = self._live or self._start_live()
        elif now or self._clock() - self._printed_at >= self._interval:
            self._print()

    def _print(self) -> None:
        self._unprinted, self._printed_at = False, self._clock()
        if not self._cell:
            say(self._status(), self._stream)
        elif self._output is None:
            from IPython.display import display

            self._output = display(_Bar(self._share(), self._status()), display_id=True)
        else:
            self._output.update(_Bar(self._share(), self._status()))

    def _start_live(self) -> Any:
        from rich import console, live, progress_bar, table, text

        def bar() -> table.Table:
            rows = table.Table.grid(expand=True)
            rows.add_row(progress_bar.ProgressBar(1.0, self._share()))
            rows.add_row(text.Text(takeable(self._status(), self._stream)))
            return rows

        display = live.Live(console=console.Console(file=self._stream, highlight=False), get_renderable=bar)
        display.start()
        return display


class _Bar:
    """The bar and status line of a notebook, for light and dark pages."""

    def __init__(self, share: float, status: str) -> None:
        self._percent, self._status = round(100 * share), printable(status)

    def __repr__(self) -> str:
        done = self._percent // 4
        return f"{'█' * done}{'░' * (25 - done)}  {self._status}"

    def _repr_html_(self) -> str:
        return (
            f'<div role="progressbar" aria-valuenow="{self._percent}" style="max-width: 50em; height: 0.5em; '
            f'border: 1px solid {BLUE}; border-radius: 0.25em; margin: 0.3em 0"><div style="width: {self._percent}%; '
            f'height: 100%; background: {BLUE}"></div></div>'
            f'<div style="white-space: pre-wrap">{escape(self._status)}</div>'
        )


def _in_notebook() -> bool:
    """Whether this runs in a notebook's kernel, whose page can update its output."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class Console(_Screen):
    """Shows the progress of a run: a live bar on a terminal and in a notebook, plain lines elsewhere.

    Plain lines come with every record that holds an audit (`w1/exact`), with the last step, and otherwise at most once
    every `interval` seconds. Bounds are rounded outward: what is printed is never tighter than what was proved.

    Arguments:
        total_steps: Generator steps of the whole run.
        stream: Where to write; standard error by default, which leaves standard output to results.
        start_step: Steps done before a resumed run continues.
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
        self._best = math.inf  # excess over the floor so far

    def record(self, record: RecordLike) -> None:
        self._step = record.step
        self._latest.update(record.scalars)
        self._best = min(self._best, record.scalars.get("eval/excess", math.inf))  # NaN is never smaller
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
        """The latest key figures, the excess over the floor first; an interval from an earlier step names it."""
        figures = []
        if math.isfinite(self._best):
            figures.append(f"excess {rounded(self._latest['eval/excess'], 3)}, best {rounded(self._best, 3)}")
        if self._audit is not None:
            interval = _interval(self._audit.scalars)
            figures.append(interval if self._audit.step == self._step else f"{interval} at step {self._audit.step}")
        if "w1/critic" in self._latest:
            figures.append(f"critic {rounded(self._latest['w1/critic'], 4)}")
        if "certificate/lipschitz" in self._latest:
            figures.append(f"Lip ≤ {rounded(self._latest['certificate/lipschitz'], 6, ROUND_CEILING)}")
        return figures


class IntervalConsole(_Screen):
    """Shows the progress of an estimate of W1: a live bar on a terminal and in a notebook, plain lines elsewhere.

    The line holds the stage, the time, the interval and its width relative to its upper end. On a terminal, the time
    also advances between records. Plain lines come with every new stage (a number at the end of its name does not count
    as new), with the last record, and otherwise at most once every `interval` seconds. Bounds are rounded outward, to
    as many digits as their width calls for.

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

    def record(self, record: RecordLike) -> None:
        before = self._stage
        if isinstance(record, StagedRecordLike):
            self._stage = record.stage
        self._latest.update(record.scalars)
        self._show(now=before.rstrip("0123456789/ ") != self._stage.rstrip("0123456789/ "))

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


def _interval(scalars: Mapping[str, float]) -> str:
    return interval_text(scalars.get("w1/lower", 0.0), scalars.get("w1/upper", math.inf), scalars.get("w1/exact"))
