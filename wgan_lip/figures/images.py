"""Samples that are images."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from wgan_lip.checks import InputError
from wgan_lip.figures.arrays import Samples, as_numpy
from wgan_lip.figures.style import styled


def sample_grid(
    samples: Samples, image_shape: tuple[int, int, int], *, columns: int | None = None, scale: int | None = None,
    gap: int = 2, value_range: tuple[float, float] = (0.0, 1.0),
) -> np.ndarray:  # fmt: skip
    """Lays images out in rows, enlarged by whole factors, so that every pixel stays a sharp square.

    Arguments:
        samples: Images, one a row, shape (n, c * h * w) or (n, c, h, w).
        image_shape: (c, h, w), with c = 1 (grey) or c = 3.
        columns: Images in a row; about the square root of n by default.
        scale: Pixels a pixel; by default enough for an image to be 40 wide or high.
        gap: Pixels between images, in grey.
        value_range: The values shown black and white; what lies beyond is clipped. NaN is shown in magenta.

    Returns:
        The picture, uint8, shape (rows * h * scale + (rows - 1) * gap, columns * w * scale + (columns - 1) * gap, 3).
    """
    channels, height, width = image_shape
    images = as_numpy(samples)
    if channels not in (1, 3) or not images.size or images[0].size != channels * height * width:
        raise InputError(
            f"Expected at least one image of 1 or 3 channels, {channels} x {height} x {width} values. Got samples of "
            f"shape {images.shape}. Check image_shape, which is (channels, height, width)."
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
    """Draws the first `count` real and generated images side by side, pixel for pixel at 100 dots an inch.

    Arguments:
        real: Images, shape (n, c * h * w).
        generated: Images, shape (m, c * h * w).
        image_shape: (c, h, w).
        columns: Images in a row of each panel.
        count: Images of each panel, at most.
        value_range: As in :func:`sample_grid`.
        title: Stands above.
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
