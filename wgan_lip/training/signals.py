"""Signals that ask a run to stop: it finishes its step and saves."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

__all__ = ["Interrupted", "StopRequests"]


class Interrupted(KeyboardInterrupt):
    """A run that a signal asked to stop has stopped; `status` is what the process should exit with."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.status = 128 + signum


class StopRequests:
    """Within the block, Ctrl-C and SIGTERM raise :class:`Interrupted`; while `deferred`, they are noted in `asked`.

    A second Ctrl-C does not wait. Outside the main thread, where Python handles no signals, nothing changes.

    Attributes:
        deferred: Whether a signal waits for the player of the game to ask.
        asked: The signal that came, or None.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.deferred, self.asked = False, None

    def __enter__(self) -> StopRequests:
        main = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS} if main else {}
        return self

    def __exit__(self, *failure: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def obey(self) -> None:
        """Raises :class:`Interrupted`, for the signal that came here or, if none did, to another process."""
        raise Interrupted(signal.SIGTERM if self.asked is None else self.asked)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.deferred or (self.asked is not None and number == signal.SIGINT):
            raise Interrupted(number)
        self.asked = number
        name = signal.Signals(number).name
        os.write(2, f"wgan-lip: {name}: saving after this step; Ctrl-C once more does not wait\n".encode())
