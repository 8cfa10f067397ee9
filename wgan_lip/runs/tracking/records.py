"""What trackers take, and many of them as one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor


class RecordLike(Protocol):
    """What happened at one step of a training or an estimate: `scalars` maps a tag `group/name` to its value."""

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
        """Lets what was recorded reach the disk."""

    def __exit__(self, *failure: object) -> None:
        self.close()


class Tracker(Closing):
    """A place where a training is watched. A new one overrides :meth:`record`, and what else the place can show.

    It is a callable on records, too, so that it can stand wherever a callback can. A `with` block that ends in an
    exception marks the run there as failed, where the place knows of that.
    """

    @abstractmethod
    def record(self, record: RecordLike) -> None:
        """Takes the scalars of a step."""

    def __call__(self, record: RecordLike) -> None:
        self.record(record)

    def close(self) -> None:
        """Ends the run there; by default there is nothing to end."""

    def image(self, tag: str, array: np.ndarray, step: int, *, colors: int | None = None) -> None:
        """Takes a picture: uint8, shape (h, w, 3), which so many `colors` are enough for."""

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        """Takes a text."""

    def histogram(self, tag: str, values: Tensor | np.ndarray, step: int) -> None:
        """Takes values whose distribution matters."""

    def surface(self, tag: str, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray, step: int) -> None:
        """Takes a surface of triangles over the plane; see :meth:`TensorBoardTracker.surface`."""

    def hparams(self, params: Mapping[str, Any]) -> None:
        """Takes the settings of the run, by name, once and before all else; again where a run goes on."""


class Trackers(Tracker):
    """Sends everything to each tracker in turn; closes all of them, also where one of them fails to close."""

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
