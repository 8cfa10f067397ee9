"""Sample sources: toy laws, image sets, files.

A sample is a row of float32 numbers: every source hands out tensors of shape (n, d), images flattened from
(c, h, w) with pixel values in [0, 1]. Three draws never meet: `sample` (training), `test` (held out) and
`reference` (real samples against which a score's floor is measured).
"""

from __future__ import annotations

import csv
import math
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wgan_lip.checks import InputError, check_choice, check_samples

__all__ = [
    "MNIST",
    "SOURCES",
    "Checkerboard",
    "Digits",
    "FiniteSource",
    "Gaussians8",
    "Gaussians25",
    "MixtureSource",
    "Moons",
    "Source",
    "SwissRoll",
    "ToySource",
    "VectorFile",
    "import_torchvision",
    "read_samples",
]

_TEST, _REFERENCE = 0, 1


def _derived_generator(seed: int, purpose: int) -> torch.Generator:
    """A generator for `_TEST` or `_REFERENCE` whose stream no other purpose shares.

    torch's CPU generator reads the low 32 bits of its seed. Bit 31 keeps these streams apart from every
    `manual_seed` below 2^31, bit 30 keeps the two purposes apart.
    """
    if seed < 0:
        raise InputError(f"Expected a seed of at least 0. Got {seed}.")
    mixed = int(np.random.SeedSequence([seed, purpose]).generate_state(1)[0])
    return torch.Generator().manual_seed(mixed >> 2 | purpose << 30 | 1 << 31)


def _check_positive(*, or_zero: bool = False, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and (value > 0 or (or_zero and value == 0))):
            raise InputError(f"Expected {name} to be positive{' or zero' * or_zero} and finite. Got {value}.")


class Source(ABC):
    """Where real samples come from.

    Attributes:
        name: Its name among :data:`SOURCES`.
        dim: The dimension d of a sample.
        test: Held-out samples, shape (m, d), on the CPU. Never drawn by `sample` or `reference`.
        image_shape: (c, h, w) with c·h·w = d where samples are images, else None.
        low, high: The range of every coordinate where it is known, else None.
        modes: Component means of a Gaussian mixture, shape (k, d), else None.
        mode_std: The components' common standard deviation (isotropic), else None.
        device: Where `sample` puts its rows; see :meth:`to`.
    """

    name: str
    dim: int
    test: Tensor
    image_shape: tuple[int, int, int] | None = None
    low: float | None = None
    high: float | None = None
    modes: Tensor | None = None
    mode_std: float | None = None
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


class ToySource(Source):
    """A law on the plane with a sampler in closed form; a subclass supplies :meth:`_draw`.

    Arguments:
        test_size: The number m of held-out samples.
        seed: Fixes the held-out samples, which no generator seeded below 2^31 draws.

    Raises:
        InputError: A size or scale that is not positive.
    """

    dim = 2

    def __init__(self, test_size: int, seed: int) -> None:
        _check_positive(test_size=test_size)
        self.test = self._draw(test_size, _derived_generator(seed, _TEST))

    @abstractmethod
    def _draw(self, n: int, rng: torch.Generator) -> Tensor:
        """n independent samples of the law, shape (n, 2)."""

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        return self._draw(n, rng).to(self.device, non_blocking=True)

    def reference(self, n: int, seed: int) -> Tensor:
        _check_positive(n=n)
        return self._draw(n, _derived_generator(seed, _REFERENCE))


class MixtureSource(ToySource):
    r"""The Gaussian mixture :math:`\tfrac{1}{k} \sum_j N(m_j, \sigma^2 I)` on given modes, shape (k, 2)."""

    modes: Tensor
    mode_std: float

    def __init__(self, modes: Tensor, std: float, test_size: int, seed: int) -> None:
        _check_positive(std=std)
        self.modes, self.mode_std = modes, std
        super().__init__(test_size, seed)

    def _draw(self, n: int, rng: torch.Generator) -> Tensor:
        component = torch.randint(len(self.modes), (n,), generator=rng)
        return self.modes[component] + self.mode_std * torch.randn(n, 2, generator=rng)


class Gaussians8(MixtureSource):
    r"""Eight equal Gaussians on a ring: :math:`m_j = r (\cos \tfrac{j \pi}{4}, \sin \tfrac{j \pi}{4})`.

    Mean zero, covariance :math:`(r^2 / 2 + \sigma^2) I`.

    Arguments:
        radius: Radius r of the ring.
        std: Standard deviation σ of a component.
        test_size, seed: Number of held-out samples, and what fixes them.
    """

    name = "gaussians8"

    def __init__(self, radius: float = 1.5, std: float = 0.05, test_size: int = 2000, seed: int = 0) -> None:
        _check_positive(radius=radius)
        angle = torch.arange(8) * (math.pi / 4)
        super().__init__(radius * torch.stack([angle.cos(), angle.sin()], dim=1), std, test_size, seed)


class Gaussians25(MixtureSource):
    r"""Twenty-five equal Gaussians on a grid: :math:`m_{ij} = s (i, j)` with i, j in {-2, …, 2}.

    Mean zero, covariance :math:`(2 s^2 + \sigma^2) I`.

    Arguments:
        spacing: Distance s between neighbouring modes.
        std: Standard deviation σ of a component.
        test_size, seed: Number of held-out samples, and what fixes them.
    """

    name = "gaussians25"

    def __init__(self, spacing: float = 0.75, std: float = 0.05, test_size: int = 2000, seed: int = 0) -> None:
        _check_positive(spacing=spacing)
        line = spacing * torch.arange(-2.0, 3.0)
        super().__init__(torch.cartesian_prod(line, line), std, test_size, seed)


class SwissRoll(ToySource):
    r"""A spiral: :math:`\tfrac{r t}{4.5 \pi} (\cos t, \sin t) + \sigma \epsilon`.

    t is uniform on [1.5π, 4.5π], ε ~ N(0, I). Mean square norm :math:`\tfrac{13}{27} r^2 + 2 \sigma^2`; without noise
    the norm is uniform on [r / 3, r].

    Arguments:
        radius: Outer radius r of the roll.
        noise: Standard deviation σ of the noise.
        test_size, seed: Number of held-out samples, and what fixes them.
    """

    name = "swiss_roll"

    def __init__(self, radius: float = 2.0, noise: float = 0.05, test_size: int = 2000, seed: int = 0) -> None:
        _check_positive(radius=radius)
        _check_positive(noise=noise, or_zero=True)
        self.radius, self.noise = radius, noise
        super().__init__(test_size, seed)

    def _draw(self, n: int, rng: torch.Generator) -> Tensor:
        turn = (1 + 2 * torch.rand(n, 1, generator=rng)) / 3  # (n, 1), the norm over the radius
        angle = 4.5 * math.pi * turn
        spiral = self.radius * turn * torch.cat([angle.cos(), angle.sin()], dim=1)
        return spiral + self.noise * torch.randn(n, 2, generator=rng)


class Moons(ToySource):
    r"""Two interleaved half circles: :math:`\pm r (\cos t - \tfrac{1}{2}, \sin t - \tfrac{1}{4}) + \sigma \epsilon`.

    The sign is fair, t is uniform on [0, π], ε ~ N(0, I). Mean zero; the first coordinate has variance
    :math:`\tfrac{3}{4} r^2 + \sigma^2`, the second :math:`(\tfrac{9}{16} - \tfrac{1}{\pi}) r^2 + \sigma^2`.

    Arguments:
        radius: Radius r of the half circles.
        noise: Standard deviation σ of the noise.
        test_size, seed: Number of held-out samples, and what fixes them.
    """

    name = "moons"

    def __init__(self, radius: float = 1.0, noise: float = 0.05, test_size: int = 2000, seed: int = 0) -> None:
        _check_positive(radius=radius)
        _check_positive(noise=noise, or_zero=True)
        self.radius, self.noise = radius, noise
        super().__init__(test_size, seed)

    def _draw(self, n: int, rng: torch.Generator) -> Tensor:
        sign = 2.0 * torch.randint(2, (n, 1), generator=rng) - 1
        angle = math.pi * torch.rand(n, 1, generator=rng)
        circle = self.radius * sign * torch.cat([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)
        return circle + self.noise * torch.randn(n, 2, generator=rng)


class Checkerboard(ToySource):
    r"""Uniform on the dark squares of a board: density :math:`1 / (2 w^2)` where ⌊(x + w) / h⌋ + ⌊(y + w) / h⌋ is even.

    The board is [-w, w]² and has k × k squares of side h = 2w / k. Both marginals are uniform on [-w, w]; mean zero,
    variance :math:`w^2 / 3`, covariance :math:`h^2 / 4` of the two coordinates.

    Arguments:
        half_width: Half the side w of the board.
        cells: Even number k of squares along a side.
        test_size, seed: Number of held-out samples, and what fixes them.
    """

    name = "checkerboard"

    def __init__(self, half_width: float = 2.0, cells: int = 4, test_size: int = 2000, seed: int = 0) -> None:
        _check_positive(half_width=half_width, cells=cells)
        if cells % 2:
            raise InputError(f"Expected an even number of cells. Got {cells}. Take {cells + 1}.")
        self.low, self.high, self.cells = -half_width, half_width, cells
        super().__init__(test_size, seed)

    def _draw(self, n: int, rng: torch.Generator) -> Tensor:
        column = torch.randint(self.cells, (n,), generator=rng)
        row = 2 * torch.randint(self.cells // 2, (n,), generator=rng) + column % 2
        board = torch.stack([column, row], dim=1) + torch.rand(n, 2, generator=rng)  # (n, 2) in [0, k]
        return (2 * board / self.cells - 1) * self.high


class FiniteSource(Source):
    """A finite set of real samples, split into `train` and `test`; its law is uniform on the rows of `train`.

    Rows that are equal in the data may fall on both sides of a split.

    Attributes:
        train: Training samples, shape (n, d), on :attr:`device`.
        train_labels, test_labels: Class of each row, shapes (n,) and (m,), on the CPU, where known.
    """

    train_labels: Tensor | None = None
    test_labels: Tensor | None = None

    def __init__(self, train: Tensor, test: Tensor) -> None:
        self.train, self.test = train, test
        self.dim = train.shape[1]

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        rows = torch.randint(len(self.train), (n,), generator=rng)
        return self.train[rows.to(self.train.device, non_blocking=True)]

    def reference(self, n: int, seed: int) -> Tensor:
        if not 1 <= n <= len(self.train):
            raise InputError(f"Expected between 1 and {len(self.train)} reference samples, the size of train. Got {n}.")
        rows = torch.randperm(len(self.train), generator=_derived_generator(seed, _REFERENCE))[:n]
        return self.train[rows.to(self.train.device, non_blocking=True)].cpu()

    def to(self, device: torch.device | str) -> Source:
        self.train = self.train.to(device)
        return super().to(device)


def _split(n: int, test_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Splits range(n) at random into training rows, shape (n - test_size,), and test rows, shape (test_size,)."""
    if not 1 <= test_size < n:
        raise InputError(f"Expected a test_size between 1 and {n - 1}, for {n} samples. Got {test_size}.")
    rows = torch.randperm(n, generator=_derived_generator(seed, _TEST))
    return rows[test_size:], rows[:test_size]


class Digits(FiniteSource):
    """scikit-learn's 1,797 handwritten digits, 8 × 8 pixels, which lie inside its wheel: nothing is downloaded.

    Arguments:
        test_size: Number of held-out images, drawn at random.
        seed: Fixes the split.

    Raises:
        InputError: A `test_size` that leaves no image for one of the sides.

    References:
        Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), https://doi.org/10.24432/C50P49
    """

    name = "digits"
    image_shape = (1, 8, 8)
    low, high = 0.0, 1.0

    def __init__(self, test_size: int = 500, seed: int = 0) -> None:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)  # (1797, 64) whole numbers from 0 to 16
        images, labels = torch.from_numpy(pixels).float() / 16, torch.from_numpy(labels)
        train, test = _split(len(images), test_size, seed)
        super().__init__(images[train], images[test])
        self.train_labels, self.test_labels = labels[train], labels[test]


def import_torchvision() -> ModuleType:
    """Imports torchvision, also where its compiled operators do not load.

    A torchvision wheel built for CUDA cannot load its operators beside a CPU-only torch, and its import then fails
    because it describes two operators that were never declared. Declaring them lets the import pass. They stay
    without code: data sets, transforms and image grids use neither.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for operator in ("torchvision::nms", "torchvision::qnms"):
            torch.library.define(operator, "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision


class MNIST(FiniteSource):
    """MNIST, 28 × 28 pixels: the 60,000 training images, and held-out images out of the 10,000 test images.

    Arguments:
        root: Folder that holds, or will hold, `MNIST/raw` with the four idx files.
        download: Whether torchvision may download the files that are not there. With the files in place no network
            is used.
        test_size: Number of held-out images, drawn at random from the test images.
        seed: Fixes which.

    Raises:
        InputError: The files are absent and cannot be downloaded, or are damaged, or `test_size` is too large.

    References:
        Gradient-Based Learning Applied to Document Recognition (LeCun et al., 1998),
        https://doi.org/10.1109/5.726791
    """

    name = "mnist"
    image_shape = (1, 28, 28)
    low, high = 0.0, 1.0

    def __init__(
        self, root: str = "~/.cache/wgan_lip", download: bool = True, test_size: int = 2000, seed: int = 0
    ) -> None:
        folder = Path(root).expanduser()
        train, self.train_labels = self._read(folder, train=True, download=download)
        test, labels = self._read(folder, train=False, download=download)
        if not 1 <= test_size <= len(test):
            raise InputError(f"Expected a test_size between 1 and {len(test)}. Got {test_size}.")
        rows = torch.randperm(len(test), generator=_derived_generator(seed, _TEST))[:test_size]
        super().__init__(train, test[rows])
        self.test_labels = labels[rows]

    @staticmethod
    def _read(folder: Path, *, train: bool, download: bool) -> tuple[Tensor, Tensor]:
        """Images, shape (n, 784), in [0, 1], and labels, shape (n,)."""
        datasets = import_torchvision().datasets
        try:
            found = datasets.MNIST(str(folder), train=train, download=download)
            return found.data.reshape(len(found.targets), 28 * 28).float() / 255, found.targets
        except Exception as error:  # torchvision asserts, and a damaged file raises whatever its parser meets
            raise InputError(
                f"Expected MNIST in {folder / 'MNIST' / 'raw'}. Got {_one_line(error)}. "
                f"Put its four idx files there{'' if download else ' or set download=true'}."
            ) from error


class VectorFile(FiniteSource):
    """The samples of a file, as :func:`read_samples` reads them, in float32.

    Arguments:
        path: The file.
        key: Which array, where the file holds several.
        test_fraction: Share of the samples that is held out, drawn at random; at least one sample.
        seed: Fixes the split.

    Raises:
        InputError: See :func:`read_samples`; fewer than two samples, a value beyond float32's range, or a
            `test_fraction` that leaves nothing for one of the sides.
    """

    name = "file"

    def __init__(self, path: str, key: str | None = None, test_fraction: float = 0.2, seed: int = 0) -> None:
        if not 0 < test_fraction < 1:
            raise InputError(f"Expected test_fraction between 0 and 1. Got {test_fraction}.")
        samples = check_samples(read_samples(path, key), str(path), minimum=2).float()
        if not samples.isfinite().all():
            largest = torch.finfo(torch.float32).max
            raise InputError(f"Expected {path} to hold values up to {largest:.1e}, the largest float32. Rescale them.")
        train, test = _split(len(samples), max(1, round(test_fraction * len(samples))), seed)
        super().__init__(samples[train], samples[test])


def read_samples(path: str | Path, key: str | None = None) -> Tensor:
    """Reads samples from a file; nothing in the file is ever run.

    Arguments:
        path: `.npy`, `.npz`, `.pt` (a tensor, or a dictionary of tensors), `.csv` or `.tsv` (a first row without any
            number is a header).
        key: Which array of an `.npz` or `.pt` file; needed where it holds several.

    Returns:
        Samples, shape (n, d), float32 or float64 as stored (whole numbers and text become float64).

    Raises:
        InputError: No such file, unknown ending, a file that is not what its ending says, a missing or unknown key,
            text where numbers are due, or no finite matrix with at least one row.
    """
    path = Path(path).expanduser()
    try:
        if path.is_dir():
            raise InputError(f"Expected {path} to be a file. Got a folder. Name a file inside it.")
        check_choice(path.suffix.lower(), list(_READERS), f"the ending of {path}")
        if not path.exists():
            raise InputError(f"Expected a file at {path}. Got nothing there. Check the path, seen from {Path.cwd()}.")
        samples = _READERS[path.suffix.lower()](path, key)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"Expected to read {path}. Got {_one_line(error)}. Check its permissions.") from error
    except Exception as error:  # a damaged file raises whatever its parser happens to meet
        raise InputError(
            f"Expected {path} to be a whole {path.suffix} file of plain numbers, without Python objects. "
            f"Got {_one_line(error)}. Save it anew."
        ) from error
    if isinstance(samples, np.ndarray) and not samples.dtype.isnative:
        samples = samples.astype(samples.dtype.newbyteorder("="))
    return check_samples(samples, str(path))


def _read_npy(path: Path, key: str | None) -> np.ndarray:
    with path.open("rb") as file:
        return _pick(np.lib.format.read_array(file, allow_pickle=False), key, path)


def _read_npz(path: Path, key: str | None) -> np.ndarray:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):  # np.load would read any of its formats
            raise ValueError("no zip archive")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            return _pick(archive, key, path)


def _read_pt(path: Path, key: str | None) -> Tensor:
    tensor = _pick(torch.load(path, map_location="cpu", weights_only=True), key, path).detach()
    if tensor.layout != torch.strided:
        raise InputError(f"Expected {path} to hold a dense tensor. Got {tensor.layout}. Save tensor.to_dense().")
    return tensor


def _read_table(path: Path, key: str | None) -> np.ndarray:
    delimiter = {".csv": ",", ".tsv": "\t"}[path.suffix.lower()]
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = next(csv.reader(file, delimiter=delimiter), [])
        header = [] if any(map(_is_number, first)) else first
        if not header:
            file.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "loadtxt: input contained no data")
                table = np.loadtxt(file, delimiter=delimiter, comments=None, quotechar='"', ndmin=2)
        except UnicodeDecodeError:
            raise
        except ValueError as error:
            file.seek(0)
            rows = csv.reader(file, delimiter=delimiter)
            got = _first_bad_row(rows, next(rows) if header else []) or _one_line(error)
            raise InputError(
                f"Expected {path} to hold equally long rows of numbers below a header row without any. Got {got}. "
                "Drop or encode columns of text, fill gaps."
            ) from error
    return _pick(table, key, path)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _first_bad_row(rows: Any, header: list[str]) -> str:
    """Says where a csv reader's first field that is no number, or row of another length, stands (numpy's own message
    counts rows without the header and blank lines; a person counts lines)."""
    width = 0
    for row in filter(None, rows):
        for column, field in enumerate(row):
            if not _is_number(field):
                title = f" ({header[column]})" if column < len(header) else ""
                return f"{field!r} in column {column + 1}{title}, line {rows.line_num}"
        width = width or len(row)
        if len(row) != width:
            return f"{len(row)} columns in line {rows.line_num}, {width} above it"
    return ""


_READERS = {".npy": _read_npy, ".npz": _read_npz, ".pt": _read_pt, ".csv": _read_table, ".tsv": _read_table}


def _one_line(error: Exception) -> str:
    """The error's type and the first sentence of its message."""
    message = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".:")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _pick(content: Any, key: str | None, path: Path) -> Tensor | np.ndarray:
    """The array called `key`, or the only one."""
    if not isinstance(content, Mapping):
        if key is not None:
            raise InputError(f"Expected no key for {path}, which holds one array. Got key={key!r}. Leave it out.")
        content, key = {None: content}, None
    elif key is None and len(content) == 1:
        key = next(iter(content))
    elif key is None or key not in content:
        got = "no key" if key is None else f"key={key!r}"
        raise InputError(f"Expected a key of {path}: one of {', '.join(map(str, content)) or '(none)'}. Got {got}.")
    array = content[key]
    if not isinstance(array, (Tensor, np.ndarray)):
        raise InputError(f"Expected {path} to hold a tensor. Got {type(array).__name__}. Save one of shape (n, d).")
    return array


SOURCES: dict[str, type[Source]] = {
    source.name: source
    for source in (Gaussians8, Gaussians25, SwissRoll, Moons, Checkerboard, Digits, MNIST, VectorFile)
}
