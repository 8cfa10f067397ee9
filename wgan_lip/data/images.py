"""Image sets: scikit-learn's digits, torchvision's MNIST."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from wgan_lip.checks import InputError, one_line
from wgan_lip.data.sources import TEST, FiniteSource, derived_generator, split_rows

__all__ = ["MNIST", "Digits", "import_torchvision"]


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
    units = "a pixel's range from blank to full ink, 16 in the raw data"

    def __init__(self, test_size: int = 500, seed: int = 0) -> None:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)  # (1797, 64) whole numbers from 0 to 16
        images, labels = torch.from_numpy(pixels).float() / 16, torch.from_numpy(labels)
        train, test = split_rows(len(images), test_size, seed)
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
    units = "a pixel's range from black to white, 255 in the raw data"

    def __init__(
        self, root: str = "~/.cache/wgan_lip", download: bool = True, test_size: int = 2000, seed: int = 0
    ) -> None:
        folder = Path(root).expanduser()
        train, self.train_labels = self._read(folder, train=True, download=download)
        test, labels = self._read(folder, train=False, download=download)
        if not 1 <= test_size <= len(test):
            raise InputError(f"Expected a test_size between 1 and {len(test)}. Got {test_size}.")
        rows = torch.randperm(len(test), generator=derived_generator(seed, TEST))[:test_size]
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
                f"Expected MNIST in {folder / 'MNIST' / 'raw'}. Got {one_line(error)}. "
                f"Put its four idx files there{'' if download else ' or set download=true'}."
            ) from error
