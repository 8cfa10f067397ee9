"""The base of sample sources: training, held-out and reference samples, which stay apart."""

from __future__ import annotations

import hashlib
import inspect
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from wgan_lip.utils.checks import InputError
from wgan_lip.utils.rebuilding import Rebuildable

__all__ = [
    "REFERENCE",
    "TEST",
    "FiniteSource",
    "Source",
    "as_float32",
    "as_samples",
    "check_positive",
    "derived_generator",
    "digest_of",
    "required",
    "split_rows",
    "warn_of_scales",
]

TEST, REFERENCE = 0, 1
COARSE = 1e-3  # times a column's spread: samples rounded by more than this are no longer those that were given
MERGED = 0.05  # share of the rows that may become equal without a warning
APART = 1e3  # ratio of two columns' ranges from which on the narrow one weighs a millionth in a squared distance


def derived_generator(seed: int, purpose: int) -> torch.Generator:
    """A generator for `TEST` or `REFERENCE`, whose stream is used for nothing else.

    torch's CPU generator reads the low 32 bits of its seed. Bit 31 keeps these streams apart from every
    `manual_seed` below 2^31, bit 30 keeps the two purposes apart.
    """
    if seed < 0:
        raise InputError(f"seed must be at least 0, not {seed}.")
    mixed = int(np.random.SeedSequence([seed, purpose]).generate_state(1)[0])
    return torch.Generator().manual_seed(mixed >> 2 | purpose << 30 | 1 << 31)


def check_positive(*, or_zero: bool = False, **values: float) -> None:
    """Raises :class:`InputError`, naming the first value that is not finite and positive (or zero, if allowed)."""
    for name, value in values.items():
        if not (math.isfinite(value) and (value > 0 or (or_zero and value == 0))):
            raise InputError(f"{name} must be positive{' or zero' * or_zero} and finite, not {value}.")


class Source(Rebuildable, ABC):
    """Where real samples come from.

    Attributes:
        name: Its name, by which a class that needs no argument is found; see :func:`wgan_lip.data.named_sources`.
        whole: Arguments with which `test` and the training samples together are all samples of the set.
        dim: The dimension d of a sample.
        test: Held-out samples, shape (m, d), on the CPU. Never drawn by `sample` or `reference`.
        size: Number of training samples if they are a finite set, else None.
        label_scale: s, if the last K coordinates of a sample are its label, s times a unit vector; else None. See
            :meth:`FiniteSource.with_labels`.
        label_shares: The share of each of the K classes in the training samples if samples carry labels, else None.
        image_shape: (c, h, w) if samples are images, else None; d is c·h·w, and K more with labels.
        low, high: The range of every coordinate, apart from labels, if known, else None.
        modes: Component means of a Gaussian mixture, shape (k, d), else None.
        mode_std: The components' common standard deviation (isotropic), else None.
        units: In words, what one unit of a coordinate is, for the certificates of critics trained on it.
        device: Where `sample` puts its rows; see :meth:`to`.
    """

    name: str
    whole: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    dim: int
    test: Tensor
    size: int | None = None
    label_scale: float | None = None
    label_shares: tuple[float, ...] | None = None
    image_shape: tuple[int, int, int] | None = None
    low: float | None = None
    high: float | None = None
    modes: Tensor | None = None
    mode_std: float | None = None
    units: str = "the unit of the samples as the source gives them"
    device: torch.device = torch.device("cpu")

    @property
    def sizes(self) -> dict[str, Any]:
        """Sizes that networks are built for: dim, low, high, image_shape; with labels their number, shares, scale."""
        sizes = {name: getattr(self, name) for name in ("dim", "low", "high", "image_shape")}
        if self.label_shares is None:
            return sizes
        labels = {name: getattr(self, name) for name in ("label_shares", "label_scale")}
        return sizes | labels | {"label_count": len(self.label_shares)}

    @abstractmethod
    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draws n independent training samples, shape (n, d), with a CPU generator: equal on every device."""

    @abstractmethod
    def reference(self, n: int, seed: int) -> Tensor:
        """Draws n distinct samples of the training law, shape (n, d), on the CPU, fixed by `seed`."""

    @classmethod
    def examples(cls) -> Iterator[Source]:
        """A few sources of this class, for the tests of what is promised here; by default the one built without
        arguments, if there is one."""
        if not required(cls):
            yield cls()

    def fingerprint(self) -> str:
        """In words, what distinguishes these data from others, so that a resumed run uses the data it began with.

        For a law these are its class and dimension; its settings are known to the code that built it.
        """
        return f"{type(self).__name__} of dimension {self.dim}"

    def to(self, device: torch.device | str) -> Source:
        """Lets `sample` return rows on `device`; a finite training set is moved there once. Returns itself."""
        self.device = torch.device(device)
        return self


class FiniteSource(Source):
    """A finite set of real samples, split into `train` and `test`; its law is uniform on the rows of `train`.

    Rows of dtype uint8 are pixels: they stay so in memory, and are returned as float32 divided by 255.

    Rows that are equal in the data may fall on both sides of a split.

    Attributes:
        train_labels, test_labels: Class of each row, shapes (n,) and (m,), on the CPU, if known.
        classes: Their names in order, if known.
    """

    size: int
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    classes: tuple[str, ...] | None = None

    def __init__(self, train: Tensor, test: Tensor) -> None:
        self._stored, self.test = train, as_samples(test)
        self.size, self.dim = train.shape

    def with_labels(self, scale: float = 1.0) -> FiniteSource:
        r"""Joins to each sample its label, as K more coordinates, s times a unit vector. Returns itself.

        Training on such samples is conditional: P is then the joint law of (x, s·e_y), a generator gets y and returns
        (G(z, y), s·e_y), and a critic is a function of both. A certificate refers to the distance

        .. math:: \sqrt{\|x - x'\|^2 + 2 s^2 [y \ne y']}

        so with constant 1 the critic is 1-Lipschitz in x for each label, and its values for two labels of one x differ
        by at most s·√2. If generated labels have the shares of the real ones, W1 of the joint laws is at most the mean
        over the labels of W1 between the laws given the label, and equal to it if s·√2 is at least the diameter of
        the x.

        Arguments:
            scale: s, in the units of the samples. The smaller it is, the less a sample of the wrong class costs.

        Raises:
            InputError: No labels, labels that are already joined, or a scale that is not positive.
        """
        if self.train_labels is None or self.test_labels is None:
            raise InputError(
                f"label_scale conditions on labels, and this {type(self).__name__} has none. Leave it out."
            )
        if self.label_scale is not None:
            raise InputError("The labels are already joined to these samples. Call with_labels only once.")
        check_positive(label_scale=scale)
        count = 1 + int(max(self.train_labels.max(), self.test_labels.max()))
        shares = self.train_labels.bincount(minlength=count).double() / self.size
        self.label_scale, self.label_shares = scale, tuple(shares.tolist())
        self.test, self.dim = self._joined(self.test, self.test_labels), self.dim + count
        self.units = f"{self.units}; labels are joined as vectors of length {scale}"
        return self

    @property
    def train(self) -> Tensor:
        """All training samples, shape (n, d), on :attr:`device`; for pixels a new tensor of four times their memory."""
        return self._joined(as_samples(self._stored), self.train_labels)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        index = torch.randint(self.size, (n,), generator=rng)
        return self._with_labels_of(index, self._augmented(self._unlabelled(index), rng))

    def reference(self, n: int, seed: int) -> Tensor:
        if not 1 <= n <= self.size:
            raise InputError(f"n must be between 1 and {self.size}, the number of training samples, not {n}.")
        return self.rows(torch.randperm(self.size, generator=derived_generator(seed, REFERENCE))[:n]).cpu()

    def fingerprint(self) -> str:
        """The number and dimension of the samples, and a hash of their values, of the split and of the labels."""
        digest = digest_of(self._stored, self.test, self.train_labels, self.test_labels)
        return f"{self.size} + {len(self.test)} samples of dimension {self.dim}, sha256 {digest}"

    def to(self, device: torch.device | str) -> Source:
        self._stored = self._stored.to(device)
        return super().to(device)

    def rows(self, index: Tensor) -> Tensor:
        """Training samples by index, shape (k, d), on :attr:`device`; `index` has shape (k,) and is on the CPU."""
        return self._with_labels_of(index, self._unlabelled(index))

    def _unlabelled(self, index: Tensor) -> Tensor:
        return as_samples(self._stored[index.to(self._stored.device, non_blocking=True)])

    def _augmented(self, samples: Tensor, rng: torch.Generator) -> Tensor:
        """The samples as training sees them, without labels."""
        return samples

    def _with_labels_of(self, index: Tensor, samples: Tensor) -> Tensor:
        if self.label_scale is None or self.train_labels is None:
            return samples
        return self._joined(samples, self.train_labels[index])

    def _joined(self, samples: Tensor, labels: Tensor | None) -> Tensor:
        if labels is None or self.label_scale is None or self.label_shares is None:
            return samples
        unit = torch.nn.functional.one_hot(labels, len(self.label_shares)).to(samples, non_blocking=True)
        return torch.cat([samples, self.label_scale * unit], dim=1)


def required(kind: type) -> list[str]:
    """The required arguments of a class's constructor."""
    parameters = inspect.signature(kind).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def as_samples(stored: Tensor) -> Tensor:
    """Samples as a source returns them: pixels, of dtype uint8, as float32 divided by 255; others as they are."""
    return stored.float() / 255 if stored.dtype == torch.uint8 else stored


def digest_of(*tensors: Tensor | None) -> str:
    """The first 16 digits of a SHA-256 of dtypes, shapes and values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is not None:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def as_float32(rows: Tensor, name: str) -> Tensor:
    """Samples in float32, in which training computes.

    A column's spread is the mean distance of its numbers from their median.

    Arguments:
        rows: Finite samples, shape (n, d). Any dtype but float64 is returned as it is.
        name: What error messages call them.

    Raises:
        InputError: A number beyond float32's range, or a column that rounding moves by more than a thousandth of its
            spread on average: its numbers could no longer be told apart, as with 10⁸ and 10⁸ + 1.

    Warns:
        UserWarning: More than one in twenty rows would become equal to another one.
    """
    if rows.dtype != torch.float64:
        return rows
    rounded = rows.float()
    if not rounded.isfinite().all():
        largest = torch.finfo(torch.float32).max
        raise InputError(f"{name} holds values above {largest:.1e}, the largest float32. Rescale them.")
    spread, moved = torch.cat([_spread_and_rounding(part) for part in rows.split(2**24 // len(rows) + 1, dim=1)], dim=1)
    if not moved.any():
        return rounded
    before, after = _distinct(rows), _distinct(rounded)
    merged = f"{before - after} of {before} different rows become equal to others"
    worst = int((moved / spread).where(spread > 0, 0).argmax())
    if 0 < COARSE * spread[worst] < moved[worst]:
        column = rows[:, worst, None]
        middle = column.median()
        _, left = _spread_and_rounding(column - middle)
        remedy = "Subtract each column's median: no distance changes" if left < moved[worst] / 2 else "Rescale it"
        raise InputError(
            f"Training computes in float32, which is too coarse for {name}: column {worst + 1} has median {middle:.8g} "
            f"and spread {spread[worst]:.2g}, and rounding moves it by {moved[worst]:.2g}, so {_distinct(column)} "
            f"different values become {_distinct(column.float())}, and {merged}. {remedy}."
        )
    if before - after > MERGED * before:
        warnings.warn(f"Training computes in float32, where {merged} in {name}.", stacklevel=2)
    return rounded


def _spread_and_rounding(rows: Tensor) -> Tensor:
    """Per column, the mean distance of its numbers from their median, and from their float32 value; shape (2, d)."""
    return torch.stack([(rows - other).abs().mean(dim=0) for other in (rows.median(dim=0).values, rows.float())])


def warn_of_scales(rows: Tensor, name: str) -> None:
    """Warns of columns whose ranges differ by orders of magnitude: the narrow ones hardly affect distances."""
    ranges = rows.amax(dim=0).double() - rows.amin(dim=0).double()
    narrowest = int(ranges.where(ranges > 0, math.inf).argmin())
    widest = int(ranges.argmax())
    if ranges[widest] >= APART * ranges[narrowest] > 0:
        warnings.warn(
            f"Column {widest + 1} of {name} ranges over {ranges[widest]:.2g}, but column {narrowest + 1} only over "
            f"{ranges[narrowest]:.2g}, so that it hardly affects distances and W1. Divide each column by its scale, "
            "such as its standard deviation.",
            stacklevel=2,
        )


def _distinct(rows: Tensor) -> int:
    """The number of different rows."""
    plain = (rows + 0.0).contiguous().cpu().numpy()  # turns -0.0 into 0.0
    return len(np.unique(plain.view(f"V{plain.itemsize * plain.shape[1]}")))


def split_rows(n: int, test_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Splits range(n) at random into training rows, shape (n - test_size,), and test rows, shape (test_size,)."""
    if n < 2:
        raise InputError(f"At least 2 samples are needed to hold some out, not {n}. Give more.")
    if not 1 <= test_size < n:
        raise InputError(f"test_size must be between 1 and {n - 1} for {n} samples, not {test_size}.")
    rows = torch.randperm(n, generator=derived_generator(seed, TEST))
    return rows[test_size:], rows[:test_size]
