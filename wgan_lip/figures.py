"""Pictures of samples, critics and intervals.

Every function returns a `matplotlib.figure.Figure` of its own or an array; nothing touches pyplot or its backend.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from numpy.typing import ArrayLike
from torch import Tensor, nn

from wgan_lip.checks import InputError
from wgan_lip.files import write_whole

__all__ = [
    "error_curves",
    "generated_cloud",
    "interval_history",
    "landscape",
    "real_beside_generated",
    "sample_grid",
    "save",
    "to_array",
]

Samples = Tensor | ArrayLike

# Blue and vermilion of Okabe and Ito's palette: told apart by every common kind of colour vision.
BLUE, VERMILION, INK = "#0072B2", "#D55E00", "#222222"
HEIGHT = LinearSegmentedColormap.from_list("height", ["#8593a6", "#b4bfcc", "#dfe4e8", "#fcfbf7"])
MAX_POINTS = 2000  # of each cloud; more would hide the critic

_styled = rc_context({"font.size": 10, "axes.titlesize": 11, "axes.edgecolor": INK, "figure.dpi": 100})


@_styled
def landscape(
    critic: Callable[[Tensor], Tensor], real: Samples, generated: Samples, *,
    title: str | None = None, modes: Samples | None = None, labels: tuple[str, str] = ("real", "generated"),
    resolution: int = 161, arrows: int = 17,
) -> Figure:  # fmt: skip
    r"""Draws a critic on the plane: its values, its gradient field, and the samples it tells apart.

    Arguments:
        critic: Maps points, shape (k, 2), to values, shape (k,) or (k, 1); torch differentiates it.
        real: Points, shape (n, 2).
        generated: Points, shape (m, 2); those that are not finite are left out.
        title: Stands above.
        modes: Centres of the modes, where the data has any, shape (j, 2).
        labels: Names of the two clouds.
        resolution: Grid points along each axis, evaluated in one batch.
        arrows: Gradient arrows along each axis. An arrow of norm 1 is as long as its cell is wide; where the gradient
            is steeper somewhere, all arrows shrink alike.
    """
    clouds = _points(real, 2), _points(generated, 2)
    centre, half = _square(np.concatenate(clouds))
    like = next(critic.parameters(), None) if isinstance(critic, nn.Module) else None
    if like is None:
        like = real if isinstance(real, Tensor) and real.is_floating_point() else torch.empty(0, dtype=torch.float64)

    def lattice(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, Tensor]:
        across, up = np.meshgrid(centre[0] + offsets, centre[1] + offsets)
        points = torch.as_tensor(np.stack([across, up], -1).reshape(-1, 2), dtype=like.dtype, device=like.device)
        return across, up, points

    across, up, points = lattice(np.linspace(-half, half, resolution))
    with torch.no_grad():
        values = np.ma.masked_invalid(critic(points).double().cpu().numpy().reshape(resolution, resolution))
    lowest, highest = (values.min(), values.max()) if values.count() else (0.0, 1.0)
    levels = MaxNLocator(18).tick_values(lowest, highest)

    cell = 2 * half / arrows
    tails_across, tails_up, tails = lattice((np.arange(arrows) + 0.5) * cell - half)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(critic(tails.requires_grad_()).sum(), tails)
    gradient = np.nan_to_num(gradient.double().cpu().numpy(), posinf=0.0, neginf=0.0).reshape(arrows, arrows, 2)
    steepest = max(1.0, float(np.linalg.norm(gradient, axis=-1).max()))

    figure = Figure(figsize=(6.4, 5.8), layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    filled = axes.contourf(across, up, values, levels, cmap=HEIGHT)
    if values.count() and lowest < highest:
        axes.contour(across, up, values, levels, colors=INK, linewidths=0.4, alpha=0.3)
    field = axes.quiver(
        tails_across, tails_up, gradient[..., 0], gradient[..., 1],
        angles="xy", scale_units="xy", scale=steepest / (0.8 * cell), pivot="mid",
        width=0.0019, headwidth=4.5, headlength=5, headaxislength=4.5, minlength=0.3, color=INK, alpha=0.5,
    )  # fmt: skip
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.96))  # room for the key above the axes
    axes.quiverkey(field, 0.97, 1.035, 1, r"$\|\nabla f\| = 1$", labelpos="W", labelsep=0.12)
    _scatter(axes, clouds, labels)
    if modes is not None:
        axes.plot(*_points(modes, 2).T, "+", color="black", markersize=8, markeredgewidth=1.2, label="modes")
    axes.set(xlim=across[0, [0, -1]], ylim=up[[0, -1], 0], xlabel="$x_1$ (data units)", ylabel="$x_2$ (data units)")
    figure.colorbar(filled, ax=axes, pad=0.02, label="critic value $f(x)$")
    _legend(figure, axes, title)
    return figure


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
    images = _numpy(samples)
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


@_styled
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
    clouds = _numpy(real)[:count], _numpy(generated)[:count]
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


@_styled
def interval_history(
    records: Iterable[Mapping[str, float]], *, floor: float | None = None, title: str | None = None
) -> Figure:
    """Draws the certified interval of W1, and the exact value in it, against the generator steps.

    Arguments:
        records: As :func:`wgan_lip.tracking.read_records` gives them; those without an audit are passed over.
        floor: W1 between two real sample sets, the least that a perfect generator would show.
        title: Stands above.
    """
    audits = [record for record in records if "w1/lower" in record or "w1/exact" in record]
    steps = np.array([record["step"] for record in audits])
    lower, exact, upper = np.array(
        [[record.get(tag, math.nan) for record in audits] for tag in ("w1/lower", "w1/exact", "w1/upper")]
    )
    upper[np.isinf(upper)] = math.nan
    marker = "o" if len(audits) <= 40 else None
    figure = Figure(figsize=(6.8, 4.0), layout="constrained")
    axes = figure.add_subplot()
    if audits:
        axes.fill_between(steps, lower, upper, color=BLUE, alpha=0.2, linewidth=0, label="certified interval")
        for bound in (lower, upper):
            axes.plot(steps, bound, color=BLUE, linewidth=0.8, marker=marker, markersize=2)
        if np.isfinite(exact).any():
            axes.plot(steps, exact, color=VERMILION, linewidth=1.6, marker=marker, markersize=3, label="exact $W_1$")
    else:
        axes.text(0.5, 0.5, "no audit was recorded", ha="center", va="center", transform=axes.transAxes)
    if floor is not None:
        axes.axhline(floor, color=INK, linestyle=(0, (5, 3)), linewidth=1, label="floor: real against real")
    axes.set(xlabel="generator step", ylabel="$W_1$ (data units)")
    axes.set_ylim(bottom=min(0.0, float(np.nanmin(lower, initial=0.0))))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, axes, title)
    return figure


@_styled
def generated_cloud(
    real: Samples, generated: Samples, *, title: str | None = None, labels: tuple[str, str] = ("real", "generated")
) -> Figure:
    """Draws two clouds of any dimension in the plane that shows the real one best.

    The plane is spanned by the two first principal components of the real points, with their signs fixed, so that
    pictures of one run can be compared. In one dimension two histograms are drawn.

    Arguments:
        real: Points, shape (n, d).
        generated: Points, shape (m, d); those that are not finite are left out.
        title: Stands above.
        labels: Names of the two clouds.
    """
    dim = _numpy(real).shape[-1]
    clouds = _points(real, dim), _points(generated, dim)
    figure = Figure(figsize=(6.0, 5.4), layout="constrained")
    axes = figure.add_subplot()
    if dim == 1:
        bins = np.histogram_bin_edges(np.concatenate(clouds), bins=60)
        for cloud, color, label in zip(clouds, (BLUE, VERMILION), labels, strict=True):
            axes.hist(cloud.ravel(), bins, density=True, histtype="stepfilled", alpha=0.45, color=color, label=label)
        axes.set(xlabel="$x$ (data units)", ylabel="density (1 / data units)")
    else:
        mean = clouds[0].mean(0)
        _, spread, components = np.linalg.svd(clouds[0] - mean, full_matrices=False)
        plane = np.zeros((2, dim))
        plane[: min(2, len(components))] = components[:2]
        plane *= np.where(plane[[0, 1], np.abs(plane).argmax(1)] < 0, -1.0, 1.0)[:, None]
        _scatter(axes, [(cloud - mean) @ plane.T for cloud in clouds], labels)
        share = np.pad(100 * spread**2 / max(float((spread**2).sum()), 1e-300), (0, 1))
        axes.set_xlabel(f"first principal component of the {labels[0]} data (data units, {share[0]:.0f} % of variance)")
        axes.set_ylabel(f"second (data units, {share[1]:.0f} % of variance)")
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, axes, title)
    return figure


@_styled
def error_curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], *, quantity: str, title: str | None = None
) -> Figure:
    """Draws errors against sizes, both on logarithmic axes, one panel beside the other with a common error axis.

    Arguments:
        panels: For each panel, by the name of its size, the curves: (size, error) pairs by label. Labels that begin
            with one word share its colour; those that begin with "bound" are dashed.
        quantity: What the errors are of, with units.
        title: Stands above.
    """
    figure = Figure(figsize=(4.6 * len(panels), 4.0), layout="constrained")
    words = dict.fromkeys(label.split()[0].strip(",") for curves in panels.values() for label in curves)
    colors = dict(zip(words, (BLUE, VERMILION, INK, "#009E73")))  # of Okabe and Ito's palette
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (size, curves) in zip(every, panels.items()):
        for (label, points), marker in zip(curves.items(), "osD^v"):
            word = label.split()[0].strip(",")
            style = (0, (4, 3)) if word == "bound" else "-"
            axes.plot(
                *np.array(points).T, color=colors[word], linestyle=style, marker=marker, markersize=4, label=label
            )
        axes.set(yscale="log", xlabel=size)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.grid(color=INK, alpha=0.12, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    every[0].set_ylabel(quantity)
    if title:
        figure.suptitle(title)
    return figure


def to_array(figure: Figure) -> np.ndarray:
    """Renders a figure at its own resolution: uint8, shape (h, w, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save(figure: Figure, path: str | os.PathLike[str], *, dpi: float = 100) -> Path:
    """Writes a figure as PNG in one step: a reader sees no half of it, also where the disk is full."""
    canvas = FigureCanvasAgg(figure)
    return write_whole(path, lambda stream: canvas.print_figure(stream, format="png", dpi=dpi))


def _numpy(samples: Samples) -> np.ndarray:
    return np.asarray(samples.detach().cpu() if isinstance(samples, Tensor) else samples, dtype=np.float64)


def _points(samples: Samples, dim: int) -> np.ndarray:
    """The finite ones of the first points, shape (n, dim)."""
    points = _numpy(samples)
    if points.ndim != 2 or points.shape[1] != dim:
        raise InputError(f"Expected points of shape (n, {dim}). Got shape {points.shape}. Check the data's dimension.")
    points = points[:MAX_POINTS]
    return points[np.isfinite(points).all(1)]


def _square(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre, shape (2,), and half side of a padded square around the points."""
    if not len(points):
        return np.zeros(2), 1.0
    low, high = points.min(0), points.max(0)
    half = float((high - low).max()) / 2
    return (low + high) / 2, 1.12 * half if half > 0 else 1.0


def _scatter(axes: Axes, clouds: Sequence[np.ndarray], labels: Sequence[str]) -> None:
    style = {"s": float(np.clip(8000 / max(1, *map(len, clouds)), 9, 26)), "linewidths": 0.3, "edgecolors": "white"}
    for cloud, color, marker, label in zip(clouds, (BLUE, VERMILION), "o^", labels, strict=True):
        axes.scatter(*cloud.T, c=color, marker=marker, alpha=0.85, label=label, **style)


def _legend(figure: Figure, axes: Axes, title: str | None) -> None:
    handles, names = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False, markerscale=1.6)
    if title:
        axes.set_title(title, pad=8, loc="left")
