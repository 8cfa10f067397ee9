"""Image sets that torchvision downloads and reads."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from wgan_lip.data.folders import load_pixels
from wgan_lip.data.images import ImageSource
from wgan_lip.data.sources import TEST, Source, derived_generator
from wgan_lip.utils.checks import InputError, check_choice, one_line

__all__ = ["CIFAR10", "MNIST", "CelebA", "FashionMNIST", "import_torchvision"]


def import_torchvision() -> ModuleType:
    """Imports torchvision, even if its compiled operators do not load.

    A torchvision wheel built for CUDA can't load its operators together with a CPU-only torch, and its import then
    fails because it refers to two operators that were never declared. Declaring them lets the import succeed. They have
    no code: data sets, transforms and image grids use neither.
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


class TorchvisionImages(ImageSource):
    """A set with a given split: all its training images, and held-out images drawn from its test images.

    If the files are there, no network is used.
    """

    whole = MappingProxyType({"test_size": None})
    place: ClassVar[str]  # the folder of its files, below the root
    files: ClassVar[str]  # what must be there

    def __init__(self, root: str, download: bool, test_size: int | None, seed: int, **options: Any) -> None:
        folder = Path(root).expanduser()
        train, train_labels = self._opened(folder, "train", download)
        test, test_labels = self._opened(folder, "test", download)
        test_size = len(test) if test_size is None else test_size
        if not 1 <= test_size <= len(test):
            raise InputError(f"test_size must be between 1 and {len(test)}, not {test_size}.")
        rows = torch.randperm(len(test), generator=derived_generator(seed, TEST))[:test_size]
        if test_labels is not None:
            test_labels = test_labels[rows]
        super().__init__(train, test[rows], train_labels, test_labels, classes=self.classes, **options)

    def _opened(self, folder: Path, split: str, download: bool) -> tuple[Tensor, Tensor | None]:
        try:
            return self._read(import_torchvision().datasets, str(folder), split, download)
        except InputError:
            raise
        except Exception as error:  # torchvision asserts, and for a damaged file parsers raise all kinds of errors
            raise InputError(
                f"{type(self).__name__} can't be read from {folder / self.place}: {one_line(error)}. "
                f"Put {self.files} there{'' if download else ' or set download=true'}."
            ) from error

    @classmethod
    def examples(cls) -> Iterator[Source]:
        return iter(())  # these classes read files; tests/test_images.py writes small ones

    @abstractmethod
    def _read(self, datasets: ModuleType, root: str, split: str, download: bool) -> tuple[Tensor, Tensor | None]:
        """Images of the split `train` or `test`, uint8, shape (n, c, h, w), and labels, shape (n,)."""


class MNIST(TorchvisionImages):
    """MNIST, 28 × 28 pixels: the 60,000 training images, and held-out images from the 10,000 test images.

    Arguments:
        root: Folder that holds, or will hold, `MNIST/raw` with the four idx files.
        download: Whether torchvision may download the files that are not there.
        test_size: Number of held-out images, drawn at random from the test images; all of them if None.
        seed: Fixes which.
        flip, shift: Augmentation; see :class:`ImageSource`.
        label_scale: Joins labels to the samples; see :meth:`FiniteSource.with_labels`.

    Raises:
        InputError: The files are absent and cannot be downloaded, or are damaged, or `test_size` is too large.

    References:
        Gradient-Based Learning Applied to Document Recognition (LeCun et al., 1998),
        https://doi.org/10.1109/5.726791
    """

    name = "mnist"
    place, files = "MNIST/raw", "its four idx files"

    def __init__(
        self,
        root: str = "~/.cache/wgan_lip",
        download: bool = True,
        test_size: int | None = 2000,
        seed: int = 0,
        flip: bool = False,
        shift: int = 0,
        label_scale: float | None = None,
    ) -> None:
        super().__init__(root, download, test_size, seed, flip=flip, shift=shift, label_scale=label_scale)

    def _read(self, datasets: ModuleType, root: str, split: str, download: bool) -> tuple[Tensor, Tensor]:
        found = getattr(datasets, type(self).__name__)(root, train=split == "train", download=download)
        return found.data.reshape(len(found.targets), 1, 28, 28), found.targets


class FashionMNIST(MNIST):
    """Fashion-MNIST, 28 × 28 pixels: the 60,000 training images, and held-out images from the 10,000 test images.

    Arguments:
        root: Folder that holds, or will hold, `FashionMNIST/raw` with the four idx files.
        download: Whether torchvision may download the files that are not there.
        test_size: Number of held-out images, drawn at random from the test images; all of them if None.
        seed: Fixes which.
        flip, shift: Augmentation; see :class:`ImageSource`.
        label_scale: Joins labels to the samples; see :meth:`FiniteSource.with_labels`.

    Raises:
        InputError: The files are absent and cannot be downloaded, or are damaged, or `test_size` is too large.

    References:
        Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms
        (Xiao, Rasul, Vollgraf, 2017), https://arxiv.org/abs/1708.07747
    """

    name = "fashion_mnist"
    place = "FashionMNIST/raw"


class CIFAR10(TorchvisionImages):
    """CIFAR-10, 32 × 32 pixels in colour: 50,000 training images, and held-out images from the 10,000 test images.

    The set is a pickle, which could run code. torchvision unpickles its files only where their MD5 sums are those of
    the published ones.

    Arguments:
        root: Folder that holds, or will hold, `cifar-10-batches-py`.
        download: Whether torchvision may download the files that are not there.
        test_size: Number of held-out images, drawn at random from the test images; all of them if None.
        seed: Fixes which.
        flip, shift: Augmentation; see :class:`ImageSource`.
        label_scale: Joins labels to the samples; see :meth:`FiniteSource.with_labels`.

    Raises:
        InputError: The files are absent and cannot be downloaded, or are damaged, or `test_size` is too large.

    References:
        Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009)
    """

    name = "cifar10"
    place, files = "cifar-10-batches-py", "its batches"

    def __init__(
        self,
        root: str = "~/.cache/wgan_lip",
        download: bool = True,
        test_size: int | None = 2000,
        seed: int = 0,
        flip: bool = False,
        shift: int = 0,
        label_scale: float | None = None,
    ) -> None:
        super().__init__(root, download, test_size, seed, flip=flip, shift=shift, label_scale=label_scale)

    def _read(self, datasets: ModuleType, root: str, split: str, download: bool) -> tuple[Tensor, Tensor]:
        found = datasets.CIFAR10(root, train=split == "train", download=download)
        self.classes = tuple(found.classes)
        return torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(found.targets)


class CelebA(TorchvisionImages):
    """CelebA's aligned faces: 162,770 training images, and held-out images from the 19,962 test images.

    The middle square of each, 178 × 178 pixels, is scaled to `pixels` × `pixels`. Its download needs the package gdown.

    Arguments:
        root: Folder that holds, or will hold, `celeba` with `img_align_celeba` and the lists beside it.
        download: Whether torchvision may download the files that are not there.
        pixels: Height and width.
        count: Number of training images, the first ones; all of them if None, which at 64 × 64 pixels takes 2 GB.
        attribute: The attribute that becomes the label, 0 or 1, such as Smiling.
        test_size: Number of held-out images, drawn at random from the test images; all of them if None.
        seed: Fixes which.
        flip, shift: Augmentation; see :class:`ImageSource`.
        label_scale: Joins labels to the samples; see :meth:`FiniteSource.with_labels`.
        corrupt: What to do with images that can't be read; see :class:`wgan_lip.data.ImageFolder`.

    Raises:
        InputError: The files are absent and cannot be downloaded, or are damaged, `test_size` is too large, or there
            is no such attribute.

    References:
        Deep Learning Face Attributes in the Wild (Liu, Luo, Wang, Tang, 2015), https://arxiv.org/abs/1411.7766
    """

    name = "celeba"
    place, files = "celeba", "img_align_celeba and the lists"

    def __init__(
        self,
        root: str = "~/.cache/wgan_lip",
        download: bool = True,
        pixels: int = 64,
        count: int | None = None,
        attribute: str | None = None,
        test_size: int | None = 2000,
        seed: int = 0,
        flip: bool = False,
        shift: int = 0,
        corrupt: str = "stop",
        label_scale: float | None = None,
    ) -> None:
        self._options: dict[str, Any] = {"size": pixels, "channels": 3, "corrupt": corrupt}
        self._limits, self._attribute = {"train": count, "test": None}, attribute
        super().__init__(root, download, test_size, seed, flip=flip, shift=shift, label_scale=label_scale)

    def _read(self, datasets: ModuleType, root: str, split: str, download: bool) -> tuple[Tensor, Tensor | None]:
        found = datasets.CelebA(root, split=split, download=download)
        folder = Path(root) / self.place / "img_align_celeba"
        pixels, kept = load_pixels([folder / name for name in found.filename[: self._limits[split]]], **self._options)
        if self._attribute is None:
            return pixels, None
        names = [name for name in found.attr_names if name]
        column = names.index(check_choice(self._attribute, names, "attribute"))
        return pixels, found.attr[kept, column]
