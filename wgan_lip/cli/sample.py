"""The job behind `wgan-lip sample`: samples of a run's generator as a grid, a film, a folder of images, or rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from wgan_lip import figures
from wgan_lip.cli.schema import RUN, checked, run_named
from wgan_lip.generators import draw_latents
from wgan_lip.runs.run import Run, load_run
from wgan_lip.runs.sampling import sample_blocks, sample_by_seeds, sample_walk
from wgan_lip.utils.checks import InputError, check_seed
from wgan_lip.utils.devices import find_device
from wgan_lip.utils.files import write_whole
from wgan_lip.utils.terminal import say

__all__ = ["sample"]

GRID = 4096  # most images in one grid
STRIP = 16  # frames of a walk in one row
FRAME = 50  # milliseconds per frame of a film
PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def sample(config: DictConfig) -> None:
    """Draws from a run's averaged generator and writes a file or a folder."""
    settings = checked(
        config,
        root={
            **RUN, "checkpoint": str, "n": int | None, "seed": int, "seeds": Any, "walk": int | None,
            "label": int | None, "out": str, "device": str,
        },
    )  # fmt: skip
    walk, seeds = settings["walk"], None if settings["seeds"] is None else _seeds(settings["seeds"])
    if walk is not None and seeds is None:
        seeds = [range(8)]
    if settings["n"] is not None and seeds is not None:
        raise InputError(
            f"n={settings['n']} can't be combined with {'seeds' if walk is None else 'walk'}. Leave out one of them."
        )
    count = walk if walk is not None else sum(map(len, seeds)) if seeds is not None else (settings["n"] or 64)
    if count < 1 or settings["n"] == 0:
        raise InputError(f"{'n' if walk is None else 'walk'} must be at least 1, not {min(count, 0)}.")
    check_seed(settings["seed"])
    out = _place(settings["out"], count, film=walk is not None)
    device = find_device(settings["device"])
    run = load_run(**run_named(settings), checkpoint=settings["checkpoint"])
    generator, label = run.generator.to(device), settings["label"]
    draw_latents(generator, 1, torch.Generator(device), labels=label)  # refuses a label that does not exist
    names = (f"{number:0{len(str(count - 1))}d}.png" for number in range(count))
    if walk is not None:
        stops = list(chain.from_iterable(seeds or []))
        if len(stops) < 2:
            raise InputError(f"A walk needs at least two seeds, not seeds={stops}. Give more, such as seeds=0-7.")
        blocks = sample_walk(generator, stops, count, label=label)
    elif seeds is None:
        blocks = sample_blocks(generator, count, torch.Generator().manual_seed(settings["seed"]), label=label)
    else:
        blocks = sample_by_seeds(generator, chain.from_iterable(seeds), label=label)
        width = max(4, len(str(max(part[-1] for part in seeds))))
        names = (f"seed{seed:0{width}d}.png" for seed in chain.from_iterable(seeds))
    blocks = _finite(blocks, run)
    if out.suffix == ".npy":
        _write_rows(out, blocks, count)
    elif out.suffix == ".gif":
        _write_film(out, run, torch.cat(list(blocks)))
    elif out.suffix in PICTURES:
        _write_picture(out, run, torch.cat(list(blocks)), columns=None if walk is None else min(count, STRIP))
    else:
        _write_pictures(out, run, blocks, names)
    say(f"{count} samples of {run.directory} at step {run.step}: {out}")


def _seeds(given: Any) -> list[range]:
    """`0-63`, 5, or a list of these, as ranges. Raises :class:`InputError`."""
    ranges = []
    for part in given if isinstance(given, list) else [given]:
        found = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", str(part).strip())
        if not found or int(found[1]) > int(found[2] or found[1]):
            raise InputError(f"seeds can't be read from {part!r}. Give them as in seeds=0-63 or seeds=[7,0-9].")
        ranges.append(range(int(found[1]), check_seed(int(found[2] or found[1])) + 1))
    if not ranges:
        raise InputError("seeds=[] has no seed. Give at least one, as in seeds=0-63.")
    return ranges


def _place(given: str, count: int, *, film: bool) -> Path:
    """The file or folder to write to. Raises :class:`InputError` before anything is drawn."""
    out = Path(given).expanduser()
    if not out.suffix or given.endswith("/") or out.is_dir():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out} exists and is not an empty folder. Choose another folder by out=FOLDER/.")
        return out
    if out.suffix not in (".npy", *PICTURES, ".gif"):
        endings = ".npy, .png or .jpg" + ", or in .gif for a walk" * film
        raise InputError(f"out must end in {endings}, or be a folder such as out=pictures/, not {given!r}.")
    if out.suffix == ".gif" and not film:
        raise InputError(f"out={given} is a film, which needs a walk. Add walk=96, or use .png.")
    if not out.parent.is_dir():
        raise InputError(f"{out} can't be written: there is no folder {out.parent}. Make it first.")
    if out.suffix != ".npy" and count > GRID:
        raise InputError(f"One picture holds at most {GRID} samples, not {count}. Use out=FOLDER/ or out=FILE.npy.")
    return out


def _finite(blocks: Iterable[Tensor], run: Run) -> Iterator[Tensor]:
    """The blocks, as long as they are finite. Raises :class:`InputError` at the first that is not."""
    for block in blocks:
        if not bool(torch.isfinite(block).all()):
            raise InputError(
                f"The generator of {run.directory} at step {run.step} produces NaN or infinity. Use checkpoint=best, "
                "or train again."
            )
        yield block


def _write_rows(out: Path, blocks: Iterator[Tensor], count: int) -> None:
    """Rows (count, d) in NumPy's format, one block at a time, so that only one is in memory."""

    def write(stream: Any) -> None:
        first = next(blocks).numpy()
        header = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(stream, {**header, "shape": (count, first.shape[1])})
        for block in chain([first], (block.numpy() for block in blocks)):
            stream.write(np.ascontiguousarray(block).tobytes())

    write_whole(out, write)


def _write_picture(out: Path, run: Run, samples: Tensor, *, columns: int | None) -> None:
    """A grid of images, or a scatter of other samples."""
    if run.image_shape is None:
        pixels = figures.to_array(figures.generated_cloud(run.source.test, samples), dpi=150)
    else:
        pixels = figures.sample_grid(samples, run.image_shape, columns=columns, value_range=_range(run))
    _save(out, pixels)


def _write_film(out: Path, run: Run, samples: Tensor) -> None:
    """The frames one after another, in an endless loop."""
    from PIL import Image

    shape = _shape_of_images(run, "a film", "Use out=FILE.npy.")
    frames = [figures.sample_grid(row[None], shape, value_range=_range(run)) for row in samples]
    first, *rest = (Image.fromarray(pixels) for pixels in frames)
    write_whole(
        out,
        lambda stream: first.save(stream, "GIF", save_all=True, append_images=rest, duration=FRAME, loop=0),
    )


def _write_pictures(out: Path, run: Run, blocks: Iterator[Tensor], names: Iterable[str]) -> None:
    """One file per image, with its pixels as they are."""
    shape = _shape_of_images(run, "a folder of pictures", "Use out=FILE.npy, or out=FILE.png for a scatter plot.")
    out.mkdir(parents=True, exist_ok=True)
    names = iter(names)
    for block in blocks:
        for row in block:
            pixels = figures.sample_grid(row[None], shape, scale=1, value_range=_range(run))
            _save(out / next(names), pixels[..., 0] if shape[0] == 1 else pixels)


def _shape_of_images(run: Run, what: str, remedy: str) -> tuple[int, int, int]:
    if run.image_shape is None:
        dim = run.checkpoint["sizes"]["dim"]
        raise InputError(
            f"Only images can be drawn as {what}, and {run.directory} was trained on rows of {dim} numbers. {remedy}"
        )
    return run.image_shape


def _range(run: Run) -> tuple[float, float]:
    """The values shown as black and as white."""
    low, high = (run.checkpoint["sizes"].get(name) for name in ("low", "high"))
    return (0.0, 1.0) if low is None or high is None else (low, high)


def _save(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    kind = PICTURES[path.suffix]
    best = {"quality": 95} if kind == "JPEG" else {}
    write_whole(path, lambda stream: Image.fromarray(pixels).save(stream, format=kind, **best))
