"""Folders of images, read as pixels, with those that cannot be read named and counted."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from wgan_lip.data.images import ImageSource
from wgan_lip.data.readers import list_images, read_pixels
from wgan_lip.data.sources import TEST, check_positive, derived_generator, split_rows
from wgan_lip.utils.checks import InputError, check_choice, check_memory

__all__ = ["ImageFolder", "load_pixels"]

NAMED = 10  # images that a message names


class ImageFolder(ImageSource):
    """A folder of images, with those in folders below it. Folders directly below it are classes, by name.

    Arguments:
        path: The folder.
        test_path: A folder of held-out images, with the same classes; by default they are drawn from `path`.
        test_fraction: Share of the images that is held out where there is no `test_path`, drawn at random.
        pixels: Height and width: the middle square of each image is scaled to it. By default all must have one size.
        channels: 1 turns colours grey, 3 grey into colours. By default all must be alike.
        corrupt: What happens where images cannot be read: `stop` refuses them, `skip` warns and leaves them out. Both
            count them and name the first ten.
        seed: Fixes the split, and the order of the held-out images.
        flip, shift: Augmentation; see :class:`ImageSource`.
        label_scale: Joins labels to the samples; see :meth:`FiniteSource.with_labels`.

    Raises:
        InputError: No images, images that cannot be read or are of several sizes, a class without images in the
            folder or on one side of the split, or classes that differ between `path` and `test_path`.

    Warns:
        UserWarning: Images were left out.
    """

    name = "image_folder"

    def __init__(
        self,
        path: str,
        test_path: str | None = None,
        test_fraction: float = 0.2,
        pixels: int | None = None,
        channels: int | None = None,
        corrupt: str = "stop",
        seed: int = 0,
        flip: bool = False,
        shift: int = 0,
        label_scale: float | None = None,
    ) -> None:
        if not 0 < test_fraction < 1:
            raise InputError(f"Expected test_fraction between 0 and 1. Got {test_fraction}.")
        check_choice(corrupt, ["stop", "skip"], "corrupt")
        if pixels is not None:
            check_positive(pixels=pixels)
        if channels not in (None, 1, 3):
            raise InputError(f"Expected channels of 1, 3 or null. Got {channels}.")
        read = partial(_read_folder, size=pixels, channels=channels, corrupt=corrupt)
        images, labels, classes = read(Path(path).expanduser())
        if test_path is None:
            train, test = split_rows(len(images), max(1, round(test_fraction * len(images))), seed)
            sides = images[train], images[test]
            labelled = (None, None) if labels is None else (labels[train], labels[test])
        else:
            held, held_labels, held_classes = read(Path(test_path).expanduser())
            if held.shape[1:] != images.shape[1:]:
                raise InputError(
                    f"Expected images of one shape (c, h, w) in {path} and {test_path}. Got {tuple(images.shape[1:])} "
                    f"and {tuple(held.shape[1:])}. Set pixels and channels."
                )
            if held_classes != classes:
                apart = sorted(set(classes or ()) ^ set(held_classes or ()))
                raise InputError(
                    f"Expected the same classes in {path} and {test_path}. Got {', '.join(apart)} in only one of them. "
                    "Add or remove the folders."
                )
            order = torch.randperm(len(held), generator=derived_generator(seed, TEST))  # not a class after the other
            held_labels = None if held_labels is None else held_labels[order]
            sides, labelled = (images, held[order]), (labels, held_labels)
        _check_classes(path, classes, *labelled)
        super().__init__(*sides, *labelled, classes=classes, flip=flip, shift=shift, label_scale=label_scale)


def load_pixels(
    paths: Sequence[Path], *, size: int | None = None, channels: int | None = None, corrupt: str = "stop"
) -> tuple[Tensor, Tensor]:
    """Reads images of one shape.

    Arguments:
        paths: The images.
        size, channels: See :func:`wgan_lip.data.readers.read_pixels`.
        corrupt: `stop` or `skip`; see :class:`ImageFolder`.

    Returns:
        Pixels, uint8, shape (n, c, h, w), and which of `paths` they are, shape (n,).

    Raises:
        InputError: Images that cannot be read, or that have several shapes; none that can be read; too little memory.

    Warns:
        UserWarning: Images were left out.
    """
    check_choice(corrupt, ["stop", "skip"], "corrupt")
    read = partial(_read_or_error, size=size, channels=channels)
    pixels, kept, broken, shapes = torch.empty(0), [], [], {}
    counts: Counter[tuple[int, ...]] = Counter()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for index, (path, image) in enumerate(zip(paths, pool.map(read, paths, chunksize=64))):
            if isinstance(image, InputError):
                broken.append((path, image))
                continue
            if not counts:
                need = len(paths) * image.numel()
                check_memory(need, f"{len(paths)} images", "Choose fewer, or smaller pixels.")
                pixels = torch.empty((len(paths), *image.shape), dtype=torch.uint8)
            counts[tuple(image.shape)] += 1
            shapes.setdefault(tuple(image.shape), path)
            if image.shape == pixels.shape[1:]:
                pixels[len(kept)] = image
                kept.append(index)
    if broken:
        told = _told(broken, len(paths))
        if corrupt == "stop" or not kept:
            remedy = "Repair or remove them" + (", or leave them out by corrupt=skip." if kept else ".")
            raise InputError(f"Expected images that can be read. Got {told} {remedy}")
        warnings.warn(f"Left out {told}", stacklevel=2)
    if len(counts) > 1:
        told = ", ".join(f"{shape} {count} times, such as {shapes[shape]}" for shape, count in counts.most_common(3))
        raise InputError(
            f"Expected images of one shape (c, h, w). Got {told}. Set pixels to scale all to one size, channels=3 or "
            "channels=1 to give all the same channels."
        )
    return pixels[: len(kept)], torch.tensor(kept)


def _told(broken: list[tuple[Path, InputError]], total: int) -> str:
    names = ", ".join(str(path) for path, _ in broken[:NAMED])
    more = f" and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
    first = str(broken[0][1]).partition(". Got ")[2]
    return f"{len(broken)} of {total} that cannot be read: {names}{more}; of the first: {first}"


def _check_classes(path: str, classes: tuple[str, ...] | None, train: Tensor | None, test: Tensor | None) -> None:
    for side, labels in (("training", train), ("held-out", test)):
        if labels is None:
            continue
        counts = labels.bincount(minlength=len(classes))
        lacking = [name for name, count in zip(classes, counts.tolist()) if not count]
        if lacking:
            raise InputError(
                f"Expected {side} images of every class of {path}. Got none of {', '.join(lacking)}. "
                "Add images, or change test_fraction or seed."
            )


def _read_or_error(path: Path, *, size: int | None, channels: int | None) -> Tensor | InputError:
    try:
        return read_pixels(path, size=size, channels=channels)
    except InputError as error:
        return error


def _read_folder(
    folder: Path, *, size: int | None, channels: int | None, corrupt: str
) -> tuple[Tensor, Tensor | None, tuple[str, ...] | None]:
    """Pixels, labels and the names of the classes; no labels where images lie in the folder itself."""
    if not folder.is_dir():
        raise InputError(f"Expected a folder of images at {folder}. Got no folder. Check the path.")
    paths = list_images(folder)
    pixels, kept = load_pixels(paths, size=size, channels=channels, corrupt=corrupt)
    homes = [path.relative_to(folder).parts[0] for path in paths]
    if any(path.parent == folder for path in paths):
        return pixels, None, None
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))
    if empty := sorted(set(classes) - {homes[index] for index in kept.tolist()}):
        raise InputError(
            f"Expected images in every class folder of {folder}. Got none in {', '.join(empty)}. Add some, or remove "
            "the folder."
        )
    number = {name: index for index, name in enumerate(classes)}
    return pixels, torch.tensor([number[homes[index]] for index in kept.tolist()]), classes
