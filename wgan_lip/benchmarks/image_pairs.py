"""Pairs of laws of real images, with fixed splits: what the suite images trains and measures critics on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from wgan_lip.data import CIFAR10, MNIST, Digits, FiniteSource, ImageFolder
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.clusters import middle_and_spread

__all__ = ["PAIRS", "ImagePair", "Rows", "absent", "cifar"]

Samples = tuple[Tensor, Tensor, Tensor, Tensor]
"""Of P and Q for training, then of P and Q held out, pixels in [0, 1], shapes (n, d), (m, d), (k, d) and (l, d)."""

ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
DIGITS_TRAINED, MNIST_TRAINED, CIFAR_TRAINED, HELD_OUT = 650, 20_000, 10_000, 5_000  # of each law, at most
MNIST_AXES, CIFAR_AXES = 64, 256
CHUNK = 1024  # samples of one evaluation
BLUR = 0.7  # standard deviation, in pixels
FOLDERS = {"mnist": ("MNIST/raw",), "cifar10": ("cifar10_jpeg", "cifar-10-batches-py")}
"""First word of a pair's name → the folders of which one has to be there."""


def _digits(root: Path) -> Samples:
    """Scikit-learn's digits: 0 to 4 against 5 to 9."""
    source = Digits()
    images, labels = torch.cat((source.train, source.test)), torch.cat((source.train_labels, source.test_labels))
    low, high = images[labels < 5], images[labels >= 5]
    return low[:DIGITS_TRAINED], high[:DIGITS_TRAINED], low[DIGITS_TRAINED:], high[DIGITS_TRAINED:]


def _mnist_halves(root: Path) -> Samples:
    """MNIST: 0 to 4 against 5 to 9, the test images held out."""
    return _split_by(_mnist(root), range(5), MNIST_TRAINED)


def _mnist_gaussian(root: Path) -> Samples:
    """MNIST against the Gaussian on its first 64 principal axes, the mean added, clipped to [0, 1]."""
    return _against_gaussian(_mnist(root), MNIST_TRAINED, MNIST_AXES)


def _mnist_blurred(root: Path) -> Samples:
    """MNIST against other images of MNIST, blurred by 0.7 pixels."""
    source = _mnist(root)
    train, test = _shuffled(source.train)[: 2 * MNIST_TRAINED], _shuffled(source.test)[: 2 * HELD_OUT]
    x, y, x_test, y_test = *train.chunk(2), *test.chunk(2)
    return x, _blurred(y), x_test, _blurred(y_test)


def _cifar_halves(root: Path) -> Samples:
    """CIFAR-10: six animals against four vehicles, the test images held out."""
    source = cifar(root)
    classes = source.classes or ()
    return _split_by(source, [classes.index(name) for name in ANIMALS], CIFAR_TRAINED)


def _cifar_gaussian(root: Path) -> Samples:
    """CIFAR-10 against the Gaussian on its first 256 principal axes, the mean added, clipped to [0, 1]."""
    return _against_gaussian(cifar(root), CIFAR_TRAINED, CIFAR_AXES)


PAIRS: dict[str, Callable[[Path], Samples]] = {
    "digits": _digits,
    "mnist": _mnist_halves,
    "mnist_gaussian": _mnist_gaussian,
    "mnist_blurred": _mnist_blurred,
    "cifar10": _cifar_halves,
    "cifar10_gaussian": _cifar_gaussian,
}
"""Name → what reads it from the folder that holds the data sets."""


@dataclass(frozen=True)
class ImagePair:
    """Two laws known by samples, some of which are held out.

    Critics see (x − c)/s, with c near the middle of the training samples and s a power of two near their spread.

    Arguments:
        name: A key of :data:`PAIRS`.
        root: The folder that holds the data sets, as torchvision puts them there.
        tuning: Whether a fifth of the training samples is held out in place of those that figures are reported on:
            settings are to be chosen by it.

    Raises:
        InputError: On first use: data that are not there, or cannot be read.
    """

    name: str
    root: str = field(repr=False)
    tuning: bool = False

    @property
    def title(self) -> str:
        """What P and Q are, in words."""
        return (PAIRS[self.name].__doc__ or self.name).rstrip(".")

    def absent(self) -> str | None:
        """Where its data were looked for, in words, if they are not there."""
        return absent(self.name.partition("_")[0], self.root)

    @cached_property
    def samples(self) -> Samples:
        x, y, x_test, y_test = PAIRS[self.name](Path(self.root).expanduser())
        if not self.tuning:
            return x, y, x_test, y_test
        n, m = 4 * len(x) // 5, 4 * len(y) // 5
        return x[:n], y[:m], x[n:][:HELD_OUT], y[m:][:HELD_OUT]

    @property
    def dim(self) -> int:
        return self.samples[0].shape[1]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(c, h, w)."""
        return {64: (1, 8, 8), 784: (1, 28, 28), 3072: (3, 32, 32)}[self.dim]

    @cached_property
    def _units(self) -> tuple[Tensor, float]:
        middle, spread = middle_and_spread(torch.cat((self.samples[0][:HELD_OUT], self.samples[1][:HELD_OUT])))
        return middle.float(), 2.0 ** round(torch.tensor(spread).log2().item())

    @property
    def scale(self) -> float:
        """s: a value of a critic is s times as large in pixels."""
        return self._units[1]

    @cached_property
    def scaled(self) -> Samples:
        """The samples as critics see them."""
        middle, scale = self._units
        x, y, x_test, y_test = ((samples - middle) / scale for samples in self.samples)
        return x, y, x_test, y_test

    def sample(self, n: int, m: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """n training samples of P and m of Q, with replacement, as critics see them."""
        return Rows(*self.scaled[:2]).sample(n, m, rng)

    @torch.no_grad()
    def through(self, layers: nn.Module) -> Rows:
        """What layers, (b, d) → (b, k), make of the training samples, computed once."""
        x, y = (torch.cat([layers(rows) for rows in side.split(CHUNK)]) for side in self.scaled[:2])
        return Rows(x, y)


@dataclass(frozen=True, eq=False)
class Rows:
    """Two laws that are uniform on rows, shapes (n, d) and (m, d)."""

    x: Tensor
    y: Tensor

    @property
    def dim(self) -> int:
        return self.x.shape[1]

    def sample(self, n: int, m: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """n rows of x and m of y, with replacement."""
        sides = (self.x, n), (self.y, m)
        x, y = (rows[torch.randint(len(rows), (size,), generator=rng)] for rows, size in sides)
        return x, y


def _mnist(root: Path) -> FiniteSource:
    return MNIST(str(root), download=False, test_size=None)


def absent(name: str, root: str) -> str | None:
    """Where the data of that name were looked for, in words, if they are not in the folder."""
    places, folder = FOLDERS.get(name, ()), Path(root).expanduser()
    if not places or any((folder / place).is_dir() for place in places):
        return None
    return f"no {' or '.join(places)} in {folder}"


def cifar(root: Path) -> FiniteSource:
    """Torchvision's own files, or the images in folders by class, `cifar10_jpeg/train` and `cifar10_jpeg/test`."""
    folder = root / "cifar10_jpeg"
    if folder.is_dir():
        return ImageFolder(str(folder / "train"), test_path=str(folder / "test"))
    return CIFAR10(str(root), download=False, test_size=None)


def _split_by(source: FiniteSource, first: range | list[int], trained: int) -> Samples:
    """The classes `first` against the others."""
    if source.train_labels is None or source.test_labels is None:
        raise InputError("The images have no labels. Put them into one folder for each class.")
    sides = []
    for images, labels, most in (
        (source.train, source.train_labels, trained),
        (source.test, source.test_labels, HELD_OUT),
    ):
        chosen = torch.isin(labels, torch.tensor(first))
        sides += [_shuffled(images[chosen])[:most], _shuffled(images[~chosen])[:most]]
    x, y, x_test, y_test = sides
    return x, y, x_test, y_test


def _against_gaussian(source: FiniteSource, trained: int, axes: int) -> Samples:
    x, x_test = _shuffled(source.train)[:trained], _shuffled(source.test)[:HELD_OUT]
    mean = x.mean(dim=0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    spread = vectors[:, -axes:] * values[-axes:].clamp_min(0).sqrt()  # (d, axes)
    rng = torch.Generator().manual_seed(0)
    y, y_test = ((mean + torch.randn(len(rows), axes, generator=rng) @ spread.T).clamp(0, 1) for rows in (x, x_test))
    return x, y, x_test, y_test


def _blurred(rows: Tensor) -> Tensor:
    """Rows of square images of one channel, blurred by a Gaussian; outside there is nothing."""
    side = round(rows.shape[1] ** 0.5)
    at = torch.arange(-3.0, 4.0)
    weights = (-0.5 * (at / BLUR).square()).exp()
    weights = weights / weights.sum()
    images = torch.nn.functional.conv2d(rows.view(-1, 1, side, side), weights.view(1, 1, -1, 1), padding=(3, 0))
    return torch.nn.functional.conv2d(images, weights.view(1, 1, 1, -1), padding=(0, 3)).flatten(1)


def _shuffled(rows: Tensor) -> Tensor:
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
