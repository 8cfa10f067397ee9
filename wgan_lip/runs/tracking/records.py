"""What trackers take, and many of them as one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from typing import Protocol


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


class Closing(AbstractContextManager):
    """Closes itself at the end of a `with` block."""

    @abstractmethod
    def close(self) -> None: ...

    def flush(self) -> None:
        """Lets what was recorded reach the disk."""

    def __exit__(self, *failure: object) -> None:
        self.close()


class Trackers(Closing):
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
