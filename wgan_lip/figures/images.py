"""Pictures of samples that are images."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from wgan_lip.figures.arrays import Samples, as_numpy
from wgan_lip.figures.style import styled
from wgan_lip.utils.checks import InputError


def sample_grid(
    samples: Samples, image_shape: tuple[int, int, int], *, columns: int | None = None, scale: int | None = None,
    gap: int = 2, value_range: tuple[float, float] = (0.0, 1.0),
) -> np.ndarray:  # fmt: skip
    """Arranges images in a grid, enlarged by whole factors, so that every pixel stays a sharp square.

    Arguments:
        samples: Images, one per row, shape (n, c * h * w) or (n, c, h, w). Entries after the pixels of a row, such as
            a label, are not drawn.
        image_shape: (c, h, w), with c = 1 (grey) or c = 3.
        columns: Images in a row; about the square root of n by default.
        scale: Side of an enlarged pixel; by default enough for an image to be 40 wide or high.
        gap: Pixels between images, in grey.
        value_range: The values shown as black and white; values beyond are clipped. NaN is shown in magenta.

    Returns:
        The picture, uint8, shape (rows * h * scale + (rows - 1) * gap, columns * w * scale + (columns - 1) * gap, 3).
    """
    channels, height, width = image_shape
    images = as_numpy(samples)
    if images.ndim == 2:
        images = images[:, : channels * height * width]
    if channels not in (1, 3) or not images.size or images[0].size != channels * height * width:
        raise InputError(
            f"Samples of shape {images.shape} can't be drawn as images of shape {channels} x {height} x {width}. Check "
            "image_shape, which is (channels, height, width) with 1 or 3 channels."
        )
    columns = columns or math.ceil(math.sqrt(len(images)))
    scale = scale or math.ceil(40 / max(height, width))
    images = images.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)

    low, high = value_range
    broken = np.isnan(images).any(-1)
    pixels = np.rint(255 * np.clip((np.nan_to_num(images, nan=low) - low) / (high - low), 0, 1)).astype(np.uint8)
    pixels = np.repeat(pixels, 3 // channels, axis=-1)
    pixels[broken] = (255, 0, 255)
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)

    height, width = height * scale, width * scale
    rows = math.ceil(len(images) / columns)
    grid = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 128, dtype=np.uint8)
    for index, image in enumerate(pixels):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        grid[top : top + height, left : left + width] = image
    return grid


@styled
def real_beside_generated(
    real: Samples, generated: Samples, image_shape: tuple[int, int, int], *, columns: int = 8, count: int = 64,
    value_range: tuple[float, float] = (0.0, 1.0), title: str | None = None,
) -> Figure:  # fmt: skip
    """Draws the first `count` real and generated images side by side, pixel for pixel at 100 dots per inch.

    Arguments:
        real: Images, shape (n, c * h * w).
        generated: Images, shape (m, c * h * w).
        image_shape: (c, h, w).
        columns: Images in a row of each panel.
        count: Images of each panel, at most.
        value_range: As in :func:`sample_grid`.
        title: Title of the figure.
    """
    clouds = as_numpy(real)[:count], as_numpy(generated)[:count]
    grids = [sample_grid(cloud, image_shape, columns=columns, value_range=value_range) for cloud in clouds]
    side, top, between, bottom = 12, 60 if title else 34, 24, 12
    panel = max(grid.shape[1] for grid in grids)
    wide, high = 2 * (side + panel) + between, top + max(grid.shape[0] for grid in grids) + bottom
    figure = Figure(figsize=(wide / 100, high / 100))
    for index, (grid, name) in enumerate(zip(grids, ("real", "generated"), strict=True)):
        left = side + index * (panel + between)
        box = (left / wide, 1 - (top + grid.shape[0]) / high, grid.shape[1] / wide, grid.shape[0] / high)
        axes = figure.add_axes(box)
        axes.imshow(grid, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        axes.set_title(name)
    if title:
        figure.suptitle(title, y=1 - 8 / high, va="top", fontsize=12)
    return figure


@styled
def ranked_images(
    real: Samples, real_values: Samples, generated: Samples, generated_values: Samples,
    image_shape: tuple[int, int, int], *, count: int = 48, columns: int = 8,
    value_range: tuple[float, float] = (0.0, 1.0), title: str | None = None,
) -> Figure:  # fmt: skip
    """Draws real and generated images ordered by a critic's values, highest first.

    Arguments:
        real: Images, shape (n, c * h * w).
        real_values: The critic's values, shape (n,).
        generated: Images, shape (m, c * h * w).
        generated_values: The critic's values, shape (m,).
        image_shape: (c, h, w).
        count: Images of each panel, at most: at evenly spaced ranks, including the first and the last.
        columns: Images in a row.
        value_range: As in :func:`sample_grid`.
        title: Title of the figure.
    """
    figure = Figure(figsize=(5.4, 8.6), layout="constrained")
    panels = figure.subplots(2, 1)
    clouds = ("real", real, real_values), ("generated", generated, generated_values)
    for axes, (name, images, values) in zip(panels, clouds, strict=True):
        values = as_numpy(values)
        order = np.argsort(-values, kind="stable")
        shown = order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))]
        grid = sample_grid(as_numpy(images)[shown], image_shape, columns=columns, value_range=value_range)
        axes.imshow(grid, interpolation="nearest")
        first = values[shown[::columns]]
        height = grid.shape[0] / len(first)
        axes.set_yticks((np.arange(len(first)) + 0.5) * height, [f"{value:.3g}" for value in first])
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.set_title(f"{name}, of {len(order)}: highest first", loc="left")
        axes.set_ylabel("critic value of the first in each row")
        for spine in axes.spines.values():
            spine.set_visible(False)
    if title:
        figure.suptitle(title)
    return figure


@styled
def image_table(
    rows: list[list[np.ndarray]], captions: list[list[str]], heads: list[str], image_shape: tuple[int, int, int], *,
    value_range: tuple[float, float] = (0.0, 1.0), title: str | None = None,
) -> Figure:  # fmt: skip
    """Draws images in a table, each with a line of text below.

    Arguments:
        rows: Of equal lengths; each image of shape (c * h * w,).
        captions: One for each image.
        heads: One for each column, of one or more lines.
        image_shape: (c, h, w).
        value_range: As in :func:`sample_grid`.
        title: Title of the figure.
    """
    columns, gap, side = len(heads), 26, 74
    scale = math.ceil(side / max(image_shape[1:]))
    high, wide = image_shape[1] * scale + gap, image_shape[2] * scale + gap
    canvas = np.full((high * len(rows), wide * columns, 3), 255, dtype=np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            tile = sample_grid(image[None], image_shape, columns=1, scale=scale, value_range=value_range)
            top, left = row * high, column * wide + gap // 2
            canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    head = 10 + 16 * max(text.count("\n") + 1 for text in heads) + (28 if title else 0)
    figure = Figure(figsize=(canvas.shape[1] / 100, (canvas.shape[0] + head) / 100))
    axes = figure.add_axes((0, 0, 1, canvas.shape[0] / (canvas.shape[0] + head)))
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for column, text in enumerate(heads):
        axes.text((column + 0.5) * wide, -5, text, ha="center", va="bottom", fontsize=10, clip_on=False)
    for row, texts in enumerate(captions):
        for column, text in enumerate(texts):
            axes.text((column + 0.5) * wide, (row + 1) * high - gap + 2, text, ha="center", va="top", fontsize=9)
    if title:
        figure.suptitle(title, y=1 - 6 / (canvas.shape[0] + head), va="top", fontsize=12)
    return figure
