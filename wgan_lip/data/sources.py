"""What a sample source is: training samples, held-out samples, reference samples, which never meet."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from wgan_lip.checks import InputError

__all__ = [
    "REFERENCE",
    "TEST",
    "FiniteSource",
    "Source",
    "as_samples",
    "check_positive",
    "derived_generator",
    "split_rows",
]

TEST, REFERENCE = 0, 1


def derived_generator(seed: int, purpose: int) -> torch.Generator:
    """A generator for `TEST` or `REFERENCE` whose stream no other purpose shares.

    torch's CPU generator reads the low 32 bits of its seed. Bit 31 keeps these streams apart from every
    `manual_seed` below 2^31, bit 30 keeps the two purposes apart.
    """
    if seed < 0:
        raise InputError(f"Expected a seed of at least 0. Got {seed}.")
    mixed = int(np.random.SeedSequence([seed, purpose]).generate_state(1)[0])
    return torch.Generator().manual_seed(mixed >> 2 | purpose << 30 | 1 << 31)


def check_positive(*, or_zero: bool = False, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and (value > 0 or (or_zero and value == 0))):
            raise InputError(f"Expected {name} to be positive{' or zero' * or_zero} and finite. Got {value}.")


class Source(ABC):
    """Where real samples come from.

    Attributes:
        name: Its name among :data:`SOURCES`.
        dim: The dimension d of a sample.
        test: Held-out samples, shape (m, d), on the CPU. Never drawn by `sample` or `reference`.
        size: Number of training samples where they are a finite set, else None.
        image_shape: (c, h, w) with c·h·w = d where samples are images, else None.
        low, high: The range of every coordinate where it is known, else None.
        modes: Component means of a Gaussian mixture, shape (k, d), else None.
        mode_std: The components' common standard deviation (isotropic), else None.
        units: In words, what one unit of a coordinate is, for the certificates of critics trained on it.
        device: Where `sample` puts its rows; see :meth:`to`.
    """

    name: str
    dim: int
    test: Tensor
    size: int | None = None
    image_shape: tuple[int, int, int] | None = None
    low: float | None = None
    high: float | None = None
    modes: Tensor | None = None
    mode_std: float | None = None
    units: str = "the unit of the samples as the source gives them"
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draws n independent training samples, shape (n, d), with a CPU generator: equal on every device."""

    @abstractmethod
    def reference(self, n: int, seed: int) -> Tensor:
        """Draws n distinct samples of the training law, shape (n, d), on the CPU, fixed by `seed`."""

    def to(self, device: torch.device | str) -> Source:
        """Lets `sample` hand out rows on `device`; a finite training set is moved there once. Returns itself."""
        self.device = torch.device(device)
        return self


class FiniteSource(Source):
    """A finite set of real samples, split into `train` and `test`; its law is uniform on the rows of `train`.

    Rows of dtype uint8 are pixels: they stay so in memory, and are handed out as float32 divided by 255.

    Rows that are equal in the data may fall on both sides of a split.

    Attributes:
        train_labels, test_labels: Class of each row, shapes (n,) and (m,), on the CPU, where known.
        classes: Their names in order, where known.
    """

    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    classes: tuple[str, ...] | None = None

    def __init__(self, train: Tensor, test: Tensor) -> None:
        self._stored, self.test = train, as_samples(test)
        self.size, self.dim = train.shape

    @property
    def train(self) -> Tensor:
        """All training samples, shape (n, d), on :attr:`device`; of pixels a new tensor, four times their memory."""
        return as_samples(self._stored)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        return self.rows(torch.randint(self.size, (n,), generator=rng))

    def reference(self, n: int, seed: int) -> Tensor:
        if not 1 <= n <= self.size:
            raise InputError(f"Expected between 1 and {self.size} reference samples, the size of train. Got {n}.")
        return self.rows(torch.randperm(self.size, generator=derived_generator(seed, REFERENCE))[:n]).cpu()

    def to(self, device: torch.device | str) -> Source:
        self._stored = self._stored.to(device)
        return super().to(device)

    def rows(self, index: Tensor) -> Tensor:
        """Training samples by number, shape (k, d), on :attr:`device`; `index` has shape (k,)."""
        return as_samples(self._stored[index.to(self._stored.device, non_blocking=True)])


def as_samples(stored: Tensor) -> Tensor:
    return stored.float() / 255 if stored.dtype == torch.uint8 else stored


def split_rows(n: int, test_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Splits range(n) at random into training rows, shape (n - test_size,), and test rows, shape (test_size,)."""
    if not 1 <= test_size < n:
        raise InputError(f"Expected a test_size between 1 and {n - 1}, for {n} samples. Got {test_size}.")
    rows = torch.randperm(n, generator=derived_generator(seed, TEST))
    return rows[test_size:], rows[:test_size]
