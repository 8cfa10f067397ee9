"""The user's own samples as a source: tensors, arrays, or a loader of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip.data.images import image_rows
from wgan_lip.data.sources import (
    REFERENCE,
    FiniteSource,
    Source,
    as_float32,
    as_samples,
    derived_generator,
    digest_of,
    split_rows,
    warn_of_scales,
)
from wgan_lip.utils.checks import InputError, as_tensor, check_samples, column_names, match_columns, one_line

__all__ = ["LoaderSource", "TensorSource"]


class TensorSource(FiniteSource):
    """Samples in a tensor or an array.

    Arguments:
        samples: Vectors (n, d), also as a data frame, or images (n, c, h, w), (n, h, w, c) or (n, h, w). Pixels of
            dtype uint8 stay so in memory and are returned divided by 255; any other dtype becomes float32.
        test: Held-out samples of the same kind, the columns of data frames matched by name; None holds out a part of
            `samples`, drawn at random.
        test_fraction: The share held out if `test` is None.
        layout: The order of the axes of images; see :func:`wgan_lip.data.images.image_rows`.
        low: Least value an entry can take, or None; 0 for pixels.
        high: Greatest value an entry can take, or None; 1 for pixels.
        units: In words, what one unit of an entry is; certificates state it.
        seed: Fixes the split.

    Raises:
        InputError: Entries that are not finite or not real, or that float32 would merge, see
            :func:`wgan_lip.data.sources.as_float32`; shapes that differ, too few samples.

    Warns:
        UserWarning: Rows that float32 makes equal, or columns of vectors whose ranges differ by orders of magnitude.

    Example:
        >>> source = TensorSource(torch.rand(50, 1, 8, 8), low=0.0, high=1.0)
        >>> source.dim, source.image_shape, len(source.test)
        (64, (1, 8, 8), 10)
    """

    name = "tensors"

    def __init__(
        self,
        samples: Tensor | ArrayLike,
        test: Tensor | ArrayLike | None = None,
        *,
        test_fraction: float = 0.2,
        layout: str | None = None,
        low: float | None = None,
        high: float | None = None,
        units: str | None = None,
        seed: int = 0,
    ) -> None:
        train, self.image_shape = _rows(samples, "samples", layout, minimum=1 if test is not None else 2)
        train = as_float32(train, "samples")
        if self.image_shape is None:
            warn_of_scales(train, "samples")
        if test is None:
            if not 0 < test_fraction < 1:
                raise InputError(f"test_fraction must be between 0 and 1, not {test_fraction}.")
            count = min(len(train) - 1, max(1, round(test_fraction * len(train))))
            kept, held_out = split_rows(len(train), count, seed)
            train, test_rows = train[kept], train[held_out]
        else:
            test_rows, shape = _rows(test, "test", layout)
            order = match_columns(column_names(samples), column_names(test), ("samples", "test"))
            test_rows = test_rows if order is None else test_rows[:, order]
            _check_same(train, self.image_shape, test_rows, shape)
            test_rows = as_float32(test_rows, "test")
        super().__init__(train, test_rows)
        self.low, self.high = _range(train, low, high)
        self.units = units or self.units


class LoaderSource(Source):
    """Batches from a `torch.utils.data.DataLoader`, or from any iterable that can be iterated over again and again.

    Rows come in the loader's order, as many as are asked for: batches of the loader and of training need not have the
    same size. When an epoch ends, the next one begins.

    Arguments:
        loader: Yields batches: tensors (b, d), (b, c, h, w), (b, h, w, c) or (b, h, w), or tuples or lists that begin
            with one. Pixels of dtype uint8 are divided by 255.
        test: Held-out samples: a tensor or an array, or another loader, from which `test_size` rows are read.
        test_size: The most rows to read from a loader of held-out samples.
        pick: Batch → tensor, for a loader with other kinds of batches.
        layout: The order of the axes of images; see :func:`wgan_lip.data.images.image_rows`.
        low: Least value an entry can take, or None.
        high: Greatest value an entry can take, or None.
        units: In words, what one unit of an entry is; certificates state it.

    Raises:
        InputError: A loader that yields nothing or other kinds of batches, can be iterated over only once, or has
            persistent workers, which do not restart with an epoch.

    Note:
        Every epoch begins with a seed drawn by the training loop: it is set on the loader's generator and on its
        sampler's, so that equal seeds give equal order, also in workers. `state_dict` keeps that seed, the number of
        batches read since, and the rows not returned yet. A source that loads the state reads those batches again
        without using them, and continues exactly, unless the sampler uses other randomness.

    Example:
        >>> loader = torch.utils.data.DataLoader(torch.rand(60, 3), batch_size=16, shuffle=True)
        >>> source = LoaderSource(loader, torch.rand(20, 3))
        >>> source.sample(50, torch.Generator().manual_seed(0)).shape
        torch.Size([50, 3])
    """

    name = "loader"

    def __init__(
        self,
        loader: Iterable[Any],
        test: Tensor | np.ndarray | Iterable[Any],
        *,
        test_size: int = 2000,
        pick: Callable[[Any], Tensor] | None = None,
        layout: str | None = None,
        low: float | None = None,
        high: float | None = None,
        units: str | None = None,
    ) -> None:
        for what, given in (("loader", loader), ("test", test)):
            if isinstance(given, Iterator) or not hasattr(given, "__iter__"):
                raise InputError(
                    f"{what} must allow any number of passes, as a DataLoader or a list of batches does, and a "
                    f"{type(given).__name__} does not."
                )
        if getattr(loader, "persistent_workers", False):
            raise InputError("The loader's workers must restart in every epoch. Use persistent_workers=False.")
        self._loader, self._pick, self._layout = loader, pick or _first, layout
        self._test_given = hasattr(test, "__array__")
        if self._test_given:
            held_out, self.image_shape = _rows(test, "test", layout)
            held_out = as_float32(held_out, "test")
        else:
            held_out, self.image_shape = self._head(test, test_size, "test")
        first, shape = self._head(loader, 1, "loader")
        _check_same(first, shape, held_out, self.image_shape)
        self.test, self.dim = as_samples(held_out), held_out.shape[1]
        if self.image_shape is None:
            warn_of_scales(self.test, "test")
        self.low, self.high = _range(first, low, high)
        self.units = units or self.units
        self._batches: Iterator[Tensor] | None = None
        self._pass = {"passes": 0, "seed": 0, "taken": 0}
        self._rest = torch.empty(0, self.dim)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        rows, missing = [self._rest[:n]], n - len(self._rest)
        self._rest = self._rest[n:]
        while missing > 0:
            batch = self._next(rng)
            rows.append(batch[:missing])
            self._rest = batch[missing:]
            missing -= len(batch)
        return torch.cat(rows).to(self.device, non_blocking=True)

    def reference(self, n: int, seed: int) -> Tensor:
        """The first n rows of a separate pass, which does not disturb the epoch in progress."""
        if n < 1:
            raise InputError(f"n, the number of reference samples, must be at least 1, not {n}.")
        found: list[Tensor] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(derived_generator(seed, REFERENCE).initial_seed()))
            for batch in self._one_pass(seed, passes=0):
                found.append(batch)
                if sum(map(len, found)) >= n:
                    return torch.cat(found)[:n]
        rows = sum(map(len, found))
        raise InputError(f"n must be at most {rows}, the number of samples in an epoch of the loader, not {n}.")

    def fingerprint(self) -> str:
        """The dimension, the size of the loader's data set if it has one, and a hash of held-out samples in an array.

        The loader's samples do not enter: they may be endless, or drawn afresh in every epoch.
        """
        data: Any = getattr(self._loader, "dataset", self._loader)
        what = "batches" if data is self._loader else "samples"
        count = f"{len(data)} " if hasattr(data, "__len__") else ""
        held_out = f", held out sha256 {digest_of(self.test)}" if self._test_given else ""
        return f"a loader of {count}{what} of dimension {self.dim}{held_out}"

    def state_dict(self) -> dict[str, Any]:
        """The position in the epoch, and the rows read from the loader but not returned yet."""
        return {**self._pass, "rest": self._rest.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from `state`; earlier batches are skipped when the next one is needed."""
        if not isinstance(state, Mapping) or set(state) != {*self._pass, "rest"}:
            raise InputError("The saved state of the data is not that of a LoaderSource. Train again.")
        self._pass, self._rest = {name: int(state[name]) for name in self._pass}, state["rest"].clone()
        self._batches = None

    def _next(self, rng: torch.Generator) -> Tensor:
        """The next batch, from the epoch in progress or a new one."""
        if self._batches is None and self._pass["taken"] > 0:
            self._catch_up()
        for _ in range(2):
            batch = next(self._batches, None) if self._batches is not None else None
            if batch is not None:
                self._pass["taken"] += 1
                return batch
            seed = int(torch.randint(2**31, (), generator=rng))
            self._pass = {"passes": self._pass["passes"] + 1, "seed": seed, "taken": 0}
            self._batches = self._one_pass(seed, self._pass["passes"])
        raise InputError("The loader yielded no batch in this epoch. Lower its batch_size.")

    def _catch_up(self) -> None:
        """Restarts the epoch of a loaded state and skips the batches that were used."""
        self._batches = self._one_pass(self._pass["seed"], self._pass["passes"])
        with torch.random.fork_rng(devices=[]):
            for number in range(self._pass["taken"]):
                if next(self._batches, None) is None:
                    raise InputError(
                        f"The loader ended after {number} batches, but {self._pass['taken']} were used before the "
                        "state was saved. Give the same data."
                    )

    def _one_pass(self, seed: int, passes: int) -> Iterator[Tensor]:
        """The rows of the loader's batches, in the order that `seed` gives."""
        sampler: Any = getattr(self._loader, "sampler", None)
        parts: list[Any] = [self._loader, sampler, getattr(self._loader, "batch_sampler", None)]
        for part in parts:
            if hasattr(part, "generator"):
                part.generator = torch.Generator().manual_seed(seed)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(passes)
        for batch in self._loader:
            yield as_samples(self._checked(batch, "loader")[0]).float()

    def _checked(self, batch: Any, name: str) -> tuple[Tensor, tuple[int, int, int] | None]:
        try:
            return _rows(self._pick(batch), f"a batch of {name}", self._layout)
        except (IndexError, KeyError, TypeError) as error:
            raise InputError(
                f"A batch of {name} must be a tensor or begin with one, and is a {type(batch).__name__} "
                f"({one_line(error)}). Say by pick= which part of it to use."
            ) from error

    def _head(self, loader: Iterable[Any], rows: int, name: str) -> tuple[Tensor, tuple[int, int, int] | None]:
        """The first rows of a loader, leaving torch's random state as it was."""
        found: list[Tensor] = []
        with torch.random.fork_rng(devices=[]):
            for batch in loader:
                part, shape = self._checked(batch, name)
                found.append(part)
                if sum(map(len, found)) >= rows:
                    break
        if not found:
            raise InputError(f"{name} yielded no batch. Lower its batch_size, or check the data.")
        return as_float32(torch.cat(found), name)[:rows], shape


def _first(batch: Any) -> Tensor:
    return batch[0] if isinstance(batch, (tuple, list)) else batch


def _rows(
    samples: Any, name: str, layout: str | None, *, minimum: int = 1
) -> tuple[Tensor, tuple[int, int, int] | None]:
    """Samples as rows (n, d) on the CPU, pixels in uint8; and the shape of an image, or None."""
    if not hasattr(samples, "shape"):
        raise TypeError(f"{type(samples).__name__} is not a tensor")
    samples = as_tensor(samples, name).detach().cpu()
    are_images = samples.ndim in (3, 4) or layout is not None
    rows, image_shape = image_rows(samples, name, layout) if are_images else (samples, None)
    if samples.dtype != torch.uint8 or rows.ndim != 2 or len(rows) < minimum:
        rows = check_samples(rows, name, minimum=minimum)
    return rows, image_shape


def _range(rows: Tensor, low: float | None, high: float | None) -> tuple[float | None, float | None]:
    return (0.0, 1.0) if rows.dtype == torch.uint8 and low is None and high is None else (low, high)


def _check_same(train: Tensor, shape: object, test: Tensor, test_shape: object) -> None:
    if (train.shape[1], shape) != (test.shape[1], test_shape):
        expected, got = (shape or train.shape[1]), (test_shape or test.shape[1])
        raise InputError(f"The held-out samples must have shape {expected}, as the training samples do, not {got}.")
