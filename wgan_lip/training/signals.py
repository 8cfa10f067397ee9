"""Signals that ask a run to stop: it finishes its current step, and saves."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType

__all__ = ["Interrupted", "StopRequests"]


class Interrupted(KeyboardInterrupt):
    """A run stopped because a signal asked it to; `status` is the exit status of the process."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.status = 128 + signum


class StopRequests:
    """Within the block, Ctrl-C, SIGTERM and SIGHUP raise :class:`Interrupted`; while `deferred`, they are only noted.

    SIGHUP arrives when a terminal is closed or a connection drops; under nohup, which ignores it, it stays ignored. A
    second Ctrl-C does not wait. Outside the main thread, where Python handles no signals, nothing changes.

    Arguments:
        waits_for: What a signal waits for while `deferred`, in words.

    Attributes:
        deferred: Whether signals are only noted, for :meth:`obey`.
        asked: The first signal that was noted, or None.
    """

    SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

    def __init__(self, waits_for: str = "saving after this step") -> None:
        self.deferred = False
        self.asked: int | None = None
        self._waits_for = waits_for

    def __enter__(self) -> StopRequests:
        main = threading.current_thread() is threading.main_thread()
        heard = [number for number in self.SIGNALS if main and not _nohup(number)]
        self._before = {number: signal.signal(number, self._handle) for number in heard}
        return self

    def __exit__(self, *failure: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def obey(self) -> None:
        """Raises :class:`Interrupted`, for the signal that arrived here or, if none did, at another process."""
        raise Interrupted(signal.SIGTERM if self.asked is None else self.asked)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.deferred or (self.asked is not None and number == signal.SIGINT):
            raise Interrupted(number)
        self.asked = number if self.asked is None else self.asked
        line = f"wgan-lip: {signal.Signals(number).name}: {self._waits_for}; press Ctrl-C again to stop at once\n"
        with suppress(OSError):  # the terminal may be gone
            os.write(2, line.encode())


def _nohup(number: int) -> bool:
    return number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) is signal.SIG_IGN
