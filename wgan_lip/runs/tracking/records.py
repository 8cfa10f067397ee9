"""The interface of trackers, and several trackers as one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor


class RecordLike(Protocol):
    """The record of one step of a training or an estimate: `scalars` maps a tag `group/name` to its value."""

    @property
    def step(self) -> int: ...
    @property
    def scalars(self) -> Mapping[str, float]: ...


@runtime_checkable
class StagedRecordLike(RecordLike, Protocol):
    """A record of an estimate; `stage` says in words what it is doing."""

    @property
    def stage(self) -> str: ...


class Closing(AbstractContextManager):
    """Closes itself at the end of a `with` block."""

    @abstractmethod
    def close(self) -> None: ...

    def flush(self) -> None:
        """Writes everything recorded so far to disk."""

    def __exit__(self, *failure: object) -> None:
        self.close()


class Tracker(Closing):
    """A service or file that receives the records of a training. A new one overrides :meth:`record`, and what else it
    can show.

    It can also be called with a record, and so be used as a callback. A `with` block that ends in an exception marks
    the run as failed, if the service supports that.
    """

    @abstractmethod
    def record(self, record: RecordLike) -> None:
        """Takes the scalars of a step."""

    def __call__(self, record: RecordLike) -> None:
        self.record(record)

    def close(self) -> None:
        """Ends the run in the tracker; by default there is nothing to end."""

    def image(self, tag: str, array: np.ndarray, step: int, *, colors: int | None = None) -> None:
        """Takes a picture: uint8, shape (h, w, 3); `colors`, if given, is how many colours it needs at most."""

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        """Takes a text."""

    def histogram(self, tag: str, values: Tensor | np.ndarray, step: int) -> None:
        """Takes values, to show their distribution."""

    def surface(self, tag: str, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray, step: int) -> None:
        """Takes a surface of triangles over the plane; see :meth:`TensorBoardTracker.surface`."""

    def hparams(self, params: Mapping[str, Any]) -> None:
        """Takes the settings of the run, by name, once and before anything else; again when a run is resumed."""


class Trackers(Tracker):
    """Sends everything to each tracker in turn; closes all of them, even if one fails to close."""

    def __init__(self, *trackers: Tracker) -> None:
        self._trackers = trackers
        self._stack = ExitStack()
        for tracker in trackers:
            self._stack.push(tracker)

    def __len__(self) -> int:
        return len(self._trackers)

    def record(self, record: RecordLike) -> None:
        for tracker in self._trackers:
            tracker.record(record)

    def image(self, tag: str, array: np.ndarray, step: int, *, colors: int | None = None) -> None:
        for tracker in self._trackers:
            tracker.image(tag, array, step, colors=colors)

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        for tracker in self._trackers:
            tracker.text(tag, markdown, step)

    def histogram(self, tag: str, values: Tensor | np.ndarray, step: int) -> None:
        for tracker in self._trackers:
            tracker.histogram(tag, values, step)

    def surface(self, tag: str, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray, step: int) -> None:
        for tracker in self._trackers:
            tracker.surface(tag, vertices, faces, colors, step)

    def hparams(self, params: Mapping[str, Any]) -> None:
        for tracker in self._trackers:
            tracker.hparams(params)

    def flush(self) -> None:
        for tracker in self._trackers:
            tracker.flush()

    def close(self) -> None:
        self._stack.close()

    def __exit__(self, *failure: Any) -> None:
        self._stack.__exit__(*failure)
