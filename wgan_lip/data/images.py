"""Image sets: pixels and their augmentation, scikit-learn's digits, noise in the form of images."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from wgan_lip.data.sources import FiniteSource, check_positive, split_rows
from wgan_lip.utils.checks import InputError, check_choice, check_memory

__all__ = ["LAYOUTS", "Digits", "FakeImages", "ImageSource", "image_rows"]

Images = TypeVar("Images", Tensor, np.ndarray)
LAYOUTS = ("nchw", "nhwc", "nhw")
"""Orders of the axes of image arrays: n images, c channels, h rows, w columns."""


class Digits(FiniteSource):
    """scikit-learn's 1,797 handwritten digits, 8 × 8 pixels, which come with its wheel: nothing is downloaded.

    Arguments:
        test_size: Number of held-out images, drawn at random.
        seed: Fixes the split.
        label_scale: Joins labels to the samples; see :meth:`FiniteSource.with_labels`.

    Raises:
        InputError: A `test_size` that leaves no image for training or for testing.

    References:
        Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), https://doi.org/10.24432/C50P49
    """

    name = "digits"
    image_shape = (1, 8, 8)
    low, high = 0.0, 1.0
    units = "a pixel's range from blank to full ink, 16 in the raw data"

    train_labels: Tensor
    test_labels: Tensor

    def __init__(self, test_size: int = 500, seed: int = 0, label_scale: float | None = None) -> None:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)  # (1797, 64) whole numbers from 0 to 16
        images, labels = torch.from_numpy(pixels).float() / 16, torch.from_numpy(labels)
        train, test = split_rows(len(images), test_size, seed)
        super().__init__(images[train], images[test])
        self.train_labels, self.test_labels = labels[train], labels[test]
        if label_scale is not None:
            self.with_labels(label_scale)


class ImageSource(FiniteSource):
    """Images of 8 bits, kept as bytes and returned with values in [0, 1].

    Distances between samples, and with them W1 and every Lipschitz constant, are Euclidean in pixels scaled this way;
    in raw values they would be 255 times as large.

    Augmentation, off by default, changes the training law: `sample` draws from the images and their mirror images or
    translates. `reference` and `test` are never augmented, so scores and their floor refer to the original images.

    Arguments:
        train: Training images, uint8, shape (n, c, h, w).
        test: Held-out images, uint8, shape (m, c, h, w).
        train_labels, test_labels: Class of each image, if known.
        classes: Names of the classes, if known.
        flip: Whether `sample` mirrors every other image, left to right.
        shift: `sample` moves each image by up to this many pixels up or down, left or right; its border is repeated.
        label_scale: Joins labels to the samples; see :meth:`FiniteSource.with_labels`.

    Raises:
        InputError: A `shift` below 0 or as large as the image.
    """

    image_shape: tuple[int, int, int]
    low, high = 0.0, 1.0
    units = "a pixel's range from black to white, 255 in raw data of 8 bits, 65535 of 16"

    def __init__(
        self,
        train: Tensor,
        test: Tensor,
        train_labels: Tensor | None = None,
        test_labels: Tensor | None = None,
        *,
        classes: tuple[str, ...] | None = None,
        flip: bool = False,
        shift: int = 0,
        label_scale: float | None = None,
    ) -> None:
        super().__init__(train.flatten(1), test.flatten(1))
        c, h, w = train.shape[1:]
        self.image_shape = c, h, w
        if not 0 <= shift < min(h, w):
            raise InputError(f"shift must be at least 0 and smaller than the images, {self.image_shape}, not {shift}.")
        self.train_labels, self.test_labels, self.classes = train_labels, test_labels, classes
        self.flip, self.shift = flip, shift
        if label_scale is not None:
            self.with_labels(label_scale)

    def _augmented(self, samples: Tensor, rng: torch.Generator) -> Tensor:
        if not (self.flip or self.shift):
            return samples
        n = len(samples)
        _, h, w = self.image_shape
        down, right = torch.randint(-self.shift, self.shift + 1, (2, n, 1), generator=rng)
        rows = (torch.arange(h) + down).clamp(0, h - 1)  # (n, h), the image row that each new row comes from
        columns = (torch.arange(w) + right).clamp(0, w - 1)  # (n, w)
        if self.flip:
            columns = columns.where(torch.rand(n, 1, generator=rng) < 0.5, columns.flip(1))
        pixels = (rows[:, :, None] * w + columns[:, None, :]).flatten(1).to(samples.device)  # (n, h·w)
        channels = samples.unflatten(1, (-1, h * w))
        return channels.gather(2, pixels[:, None].expand_as(channels)).flatten(1)


class FakeImages(ImageSource):
    """Noise in the form of images, to try a size without data: every byte is uniform and independent.

    Arguments:
        channels, height, width: Shape of an image.
        count: Number of training images.
        test_size: Number of held-out images.
        label_count: Number of classes; labels are uniform.
        seed: Fixes pixels and labels.
        label_scale: Joins labels to the samples; see :meth:`FiniteSource.with_labels`.

    Raises:
        InputError: A number that is not positive.
    """

    name = "fake"

    def __init__(
        self,
        channels: int = 3,
        height: int = 32,
        width: int = 32,
        count: int = 2000,
        test_size: int = 500,
        label_count: int = 10,
        seed: int = 0,
        label_scale: float | None = None,
    ) -> None:
        check_positive(channels=channels, height=height, width=width, count=count, test_size=test_size)
        check_positive(label_count=label_count)
        rng = torch.Generator().manual_seed(seed)
        shape = (count + test_size, channels, height, width)
        check_memory(math.prod(shape), f"{shape[0]} images", "Lower count, test_size, height or width.")
        pixels = torch.randint(256, shape, dtype=torch.uint8, generator=rng)
        labels = torch.randint(label_count, shape[:1], generator=rng)
        sides = [count, test_size]
        super().__init__(*pixels.split(sides), *labels.split(sides), label_scale=label_scale)


def image_rows(images: Images, name: str, layout: str | None = None) -> tuple[Images, tuple[int, int, int]]:
    """Images in an array as rows, flattened channel by channel.

    Arguments:
        images: A tensor or an array, shape (n, c, h, w), (n, h, w, c) or (n, h, w).
        name: What error messages call them.
        layout: Which of these, one of :data:`LAYOUTS`; by default it is found from the shape. Channels are the axis of
            size 1 or 3; if neither or both could be, h and w are two equal axes that differ from the third.

    Returns:
        Rows, shape (n, c·h·w), and (c, h, w).

    Raises:
        InputError: A number of axes that does not fit `layout`, or a shape from which the layout is unclear.
    """
    shape = tuple(images.shape)
    if layout is None:
        layout = _layout(shape)
        if layout is None:
            raise InputError(
                f"The shape of {name}, {shape}, does not show which axis holds the channels. Give layout, one of "
                f"{', '.join(LAYOUTS)}."
            )
    check_choice(layout, LAYOUTS, "layout")
    if len(shape) != len(layout):
        raise InputError(
            f"layout={layout} means {len(layout)} axes, but {name} has shape {shape}. Change or leave out layout."
        )
    if layout == "nhw":
        images = images[:, None]
    elif layout == "nhwc":
        images = images.swapaxes(1, 3).swapaxes(2, 3)
    _, c, h, w = images.shape
    return images.reshape(len(images), c * h * w), (c, h, w)


def _layout(shape: tuple[int, ...]) -> str | None:
    if len(shape) == 3:
        return None if shape[2] in (1, 3) else "nhw"  # which may be one image, (h, w, c)
    _, first, second, third = shape
    channels_first, channels_last = first in (1, 3), third in (1, 3)
    if channels_first == channels_last:
        channels_first, channels_last = second == third != first, first == second != third
    return {(True, False): "nchw", (False, True): "nhwc"}.get((channels_first, channels_last))
