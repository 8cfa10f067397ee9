"""Images on disk, read as pixels, and folders of images; unreadable ones are counted and named."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from wgan_lip.data.images import ImageSource
from wgan_lip.data.readers import reading
from wgan_lip.data.sources import TEST, as_samples, check_positive, derived_generator, split_rows
from wgan_lip.utils.checks import InputError, check_choice, check_memory

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ImageFolder", "list_images", "load_pixels", "read_pixels"]

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MODES = {
    "1": "L",
    "L": "L",
    "LA": "L",
    "RGB": "RGB",
    "RGBA": "RGB",
    "P": "RGB",
    "PA": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}
"""Pillow's modes of 8 bits → what an opaque image becomes."""
NAMED = 10  # most images that a message names


class ImageFolder(ImageSource):
    """A folder of images, including its subfolders. The folders directly below it are classes, by name.

    See :func:`list_images` for which files are read, and :func:`read_pixels` for how.

    Arguments:
        path: The folder.
        test_path: A folder of held-out images, with the same classes; by default they are drawn from `path`.
        test_fraction: Share of the images to hold out if there is no `test_path`, drawn at random.
        pixels: Height and width: the middle square of each image is scaled to it. By default all must have one size.
        channels: 1 turns colours to grey, 3 turns grey to colours. By default all images must agree.
        corrupt: What to do with images that can't be read: `stop` refuses them, `skip` warns and leaves them out. Both
            count them and name the first ten.
        seed: Fixes the split, and the order of the held-out images.
        flip, shift: Augmentation; see :class:`ImageSource`.
        label_scale: Joins labels to the samples; see :meth:`FiniteSource.with_labels`.

    Raises:
        InputError: No images or only one, images that cannot be read or are of several sizes, a class without images in
            the folder or on one side of the split, or classes that differ between `path` and `test_path`.

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
            raise InputError(f"test_fraction must be between 0 and 1, not {test_fraction}.")
        check_choice(corrupt, ["stop", "skip"], "corrupt")
        if pixels is not None:
            check_positive(pixels=pixels)
        if channels not in (None, 1, 3):
            raise InputError(f"channels must be 1, 3 or null, not {channels}.")
        read = partial(_read_folder, size=pixels, channels=channels, corrupt=corrupt)
        images, labels, classes = read(Path(path).expanduser())
        if test_path is None:
            train, test = split_rows(len(images), max(1, round(test_fraction * len(images))), seed)
            sides = images[train], images[test]
            labelled: tuple[Tensor | None, Tensor | None] = (
                (None, None) if labels is None else (labels[train], labels[test])
            )
        else:
            held, held_labels, held_classes = read(Path(test_path).expanduser())
            if held.shape[1:] != images.shape[1:]:
                raise InputError(
                    f"The images in {path} and {test_path} must have one shape (c, h, w), not "
                    f"{tuple(images.shape[1:])} and {tuple(held.shape[1:])}. Set pixels and channels."
                )
            if held_classes != classes:
                apart = sorted(set(classes or ()) ^ set(held_classes or ()))
                raise InputError(
                    f"{path} and {test_path} must have the same classes, but only one of them has {', '.join(apart)}. "
                    "Add or remove the folders."
                )
            order = torch.randperm(len(held), generator=derived_generator(seed, TEST))  # so that classes are mixed
            held_labels = None if held_labels is None else held_labels[order]
            sides, labelled = (images, held[order]), (labels, held_labels)
        _check_classes(path, classes, *labelled)
        super().__init__(*sides, *labelled, classes=classes, flip=flip, shift=shift, label_scale=label_scale)


def list_images(folder: Path) -> list[Path]:
    """All images in a folder and its subfolders, sorted by name; links to folders are followed.

    Files and folders whose names begin with a dot are left out, and so is a link to a folder above itself. A broken
    link is listed, and reading it fails.

    Raises:
        InputError: No image, or a folder that can't be read.
    """
    with reading(folder, "folder of images"):
        found = sorted(_images_below(folder, ()))
    if not found:
        raise InputError(f"There are no images ({' '.join(ENDINGS)}) in {folder}. Check the folder.")
    return found


def _images_below(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    above = (*above, folder.resolve())
    with os.scandir(folder) as entries:  # which mostly knows without asking the disk whether an entry is a folder
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if path.resolve() not in above:
                    yield from _images_below(path, above)
            elif path.suffix.lower() in ENDINGS and (entry.is_file() or not path.exists()):
                yield path


def read_pixels(path: Path, *, size: int | None = None, channels: int | None = None) -> Tensor:
    """The pixels of an image as it should be seen, shape (c, h, w): grey has c = 1, everything else 3.

    The camera's orientation (EXIF) is applied; an alpha channel without effect is ignored.

    Arguments:
        path: The image.
        size: Height and width; the image is cropped to its middle square, which is scaled to this size. By default
            pixels are as stored.
        channels: 1 turns colours to grey, 3 turns grey to colours; by default as stored.

    Returns:
        Bytes, uint8; for a grey image of 16 bits float32, divided by 65535.

    Raises:
        InputError: A damaged file, a pixel that is not opaque, or 16 bits in colour, of which Pillow reads only 8.
    """
    from PIL import Image, ImageOps

    with reading(path, "image"), path.open("rb") as file, Image.open(file) as stored:
        deep = any(";16" in str(tile[3]) for tile in stored.tile)
        image = _opaque(ImageOps.exif_transpose(stored), path, deep)
        if channels == 1 and image.mode == "RGB":
            image = image.convert("L")
        if size is not None and image.size != (size, size):
            side = min(image.size)
            left, top = ((pixels - side) // 2 for pixels in image.size)
            middle = image.crop((left, top, left + side, top + side))
            image = middle.resize((size, size), Image.Resampling.LANCZOS)
        values = np.array(image)  # (h, w) or (h, w, 3)
    pixels = torch.from_numpy(values.reshape(*values.shape[:2], -1)).permute(2, 0, 1)
    pixels = pixels.clamp(0, 1) if deep else pixels  # scaling overshoots
    return pixels.expand(3, -1, -1) if channels == 3 else pixels


def _opaque(image: Image.Image, path: Path, deep: bool) -> Image.Image:
    """The image in mode L or RGB; a `deep` one, grey of 16 bits, in mode F with values in [0, 1]."""
    from PIL import Image

    if deep and image.mode[0] != "I":
        raise InputError(
            f"{path} is in colour with 16 bits a channel, of which only 8 can be read. Save it with 8: "
            "Image.open(path).save(path)."
        )
    if not deep and image.mode not in MODES:
        raise InputError(
            f"{path} has mode {image.mode}, and must be grey or RGB with 8 bits. Save image.convert('RGB')."
        )
    if deep:
        values = np.asarray(image)
        opaque = not (values == image.info.get("transparency")).any()
        image = Image.fromarray((values / 65535).astype(np.float32))
    else:
        opaque = not image.has_transparency_data or image.convert("RGBA").getchannel("A").getextrema()[0] == 255
        image = image.convert(MODES[image.mode])
    if not opaque:
        raise InputError(
            f"{path} has transparent pixels. Put it on a background and save that: "
            "Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image.convert('RGBA')).convert('RGB')."
        )
    return image


def load_pixels(
    paths: Sequence[Path], *, size: int | None = None, channels: int | None = None, corrupt: str = "stop"
) -> tuple[Tensor, Tensor]:
    """Reads images of one shape.

    Arguments:
        paths: The images.
        size, channels: See :func:`read_pixels`.
        corrupt: `stop` or `skip`; see :class:`ImageFolder`.

    Returns:
        Pixels, shape (n, c, h, w), uint8, or float32 in [0, 1] if any image has 16 bits; and their indices in
        `paths`, shape (n,).

    Raises:
        InputError: Images that cannot be read, or that have several shapes; none that can be read; too little memory.

    Warns:
        UserWarning: Images were left out.
    """
    check_choice(corrupt, ["stop", "skip"], "corrupt")
    read = partial(_read_or_error, size=size, channels=channels)
    pixels: Tensor | None = None
    kept: list[int] = []
    broken: list[tuple[Path, InputError]] = []
    shapes: dict[tuple[int, ...], Path] = {}
    counts: Counter[tuple[int, ...]] = Counter()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for index, (path, image) in enumerate(zip(paths, pool.map(read, paths, chunksize=64))):
            if isinstance(image, InputError):
                broken.append((path, image))
                continue
            if pixels is None or image.dtype.itemsize > pixels.dtype.itemsize:  # the first, or the first of 16 bits
                pixels = _room(len(paths), image, pixels)
            counts[tuple(image.shape)] += 1
            shapes.setdefault(tuple(image.shape), path)
            if image.shape == pixels.shape[1:]:
                pixels[len(kept)] = image if image.dtype == pixels.dtype else as_samples(image)
                kept.append(index)
    if broken:
        told = _told(broken, len(paths))
        if corrupt == "stop" or not kept:
            remedy = "Repair or remove them" + (", or leave them out by corrupt=skip." if kept else ".")
            raise InputError(f"Can't read {told} {remedy}")
        warnings.warn(f"Left out {told}", stacklevel=2)
    if len(counts) > 1:
        told = ", ".join(f"{shape} {count} times, such as {shapes[shape]}" for shape, count in counts.most_common(3))
        raise InputError(
            f"The images must have one shape (c, h, w), and have {told}. Set pixels to scale all to one size, and "
            "channels=3 or channels=1 to give all the same channels."
        )
    if pixels is None:
        raise InputError("There are no images to read.")
    return pixels[: len(kept)], torch.tensor(kept)


def _room(count: int, image: Tensor, before: Tensor | None) -> Tensor:
    """Room for `count` images like this one, holding the earlier images of 8 bits."""
    need = count * image.numel() * image.dtype.itemsize
    check_memory(need, f"{count} images", "Choose fewer, or smaller pixels.")
    room = torch.empty((count, *image.shape), dtype=image.dtype)
    if before is not None and before.shape == room.shape:
        room.copy_(as_samples(before))
    return room


def _told(broken: list[tuple[Path, InputError]], total: int) -> str:
    names = ", ".join(str(path) for path, _ in broken[:NAMED])
    more = f" and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
    return f"{len(broken)} of {total} images: {names}{more}. The first error: {broken[0][1]}"


def _check_classes(path: str, classes: tuple[str, ...] | None, train: Tensor | None, test: Tensor | None) -> None:
    if classes is None or train is None or test is None:
        return
    for side, labels in (("training", train), ("held-out", test)):
        counts = labels.bincount(minlength=len(classes))
        lacking = [name for name, count in zip(classes, counts.tolist()) if not count]
        if lacking:
            raise InputError(
                f"There are no {side} images of class {', '.join(lacking)} in {path}. Add images, or change "
                "test_fraction or seed."
            )


def _read_or_error(path: Path, *, size: int | None, channels: int | None) -> Tensor | InputError:
    try:
        return read_pixels(path, size=size, channels=channels)
    except InputError as error:
        return error


def _read_folder(
    folder: Path, *, size: int | None, channels: int | None, corrupt: str
) -> tuple[Tensor, Tensor | None, tuple[str, ...] | None]:
    """Pixels, labels and the names of the classes; no labels if images lie in the folder itself."""
    if not folder.is_dir():
        raise InputError(f"There is no folder of images at {folder}. Check the path.")
    paths = list_images(folder)
    pixels, kept = load_pixels(paths, size=size, channels=channels, corrupt=corrupt)
    homes = [path.relative_to(folder).parts[0] for path in paths]
    if any(path.parent == folder for path in paths):
        return pixels, None, None
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))
    if empty := sorted(set(classes) - {homes[index] for index in kept.tolist()}):
        raise InputError(
            f"{folder} has class folders without images: {', '.join(empty)}. Add some, or remove the folders."
        )
    number = {name: index for index, name in enumerate(classes)}
    return pixels, torch.tensor([number[homes[index]] for index in kept.tolist()]), classes
