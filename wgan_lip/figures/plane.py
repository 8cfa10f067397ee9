"""Critics in the plane: their values, gradients, and the lines of a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip.figures.arrays import Samples, as_numpy, drawn_plan, finite_points, gradients_at, like_of, values_at
from wgan_lip.figures.style import HEIGHT, INK, SLOPE, VERMILION, legend, scatter, styled
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.numbers import rounded_up


@styled
def landscape(
    critic: Callable[[Tensor], Tensor], real: Samples, generated: Samples, *,
    title: str | None = None, modes: Samples | None = None, labels: tuple[str, str] = ("real", "generated"),
    resolution: int = 161, arrows: int = 17,
) -> Figure:  # fmt: skip
    r"""Draws a critic in the plane: its values, its gradient field, and the samples it separates.

    Arguments:
        critic: Maps points, shape (k, 2), to values, shape (k,) or (k, 1); torch differentiates it.
        real: Points, shape (n, 2).
        generated: Points, shape (m, 2); those that are not finite are left out.
        title: Title of the figure.
        modes: Centres of the modes, if the data have any, shape (j, 2).
        labels: Names of the two clouds.
        resolution: Grid points along each axis, evaluated in one batch.
        arrows: Gradient arrows along each axis. An arrow of norm 1 is as long as its cell is wide; if the gradient is
            steeper somewhere, all arrows shrink in proportion.
    """
    clouds = finite_points(real, 2), finite_points(generated, 2)
    figure = Figure(figsize=(6.4, 5.8), layout="constrained")
    axes = terrain(figure, critic, like_of(critic, real), clouds, resolution, arrows)
    scatter(axes, clouds, labels)
    if modes is not None:
        axes.plot(*finite_points(modes, 2).T, "+", color="black", markersize=8, markeredgewidth=1.2, label="modes")
    legend(figure, axes, title)
    return figure


@styled
def level_lines(
    critic: Callable[[Tensor], Tensor], real: Samples, generated: Samples, *,
    title: str | None = None, labels: tuple[str, str] = ("real", "generated"), resolution: int = 161, lines: int = 12,
) -> Figure:  # fmt: skip
    """Draws the level lines of a critic in the plane, each labelled with its value.

    Where the gradient has norm 1, neighbouring lines are as far apart as their values differ, and further apart where
    it is smaller. A 1-Lipschitz critic never has them closer.

    Arguments:
        critic: Maps points, shape (k, 2), to values, shape (k,) or (k, 1).
        real: Points, shape (n, 2).
        generated: Points, shape (m, 2); those that are not finite are left out.
        title: Title of the figure.
        labels: Names of the two clouds.
        resolution: Grid points along each axis, evaluated in one batch.
        lines: About so many lines.
    """
    clouds = finite_points(real, 2), finite_points(generated, 2)
    grid = grid_around(clouds, resolution)
    values = np.ma.masked_invalid(values_at(critic, grid.reshape(-1, 2), like_of(critic, real)))
    figure = Figure(figsize=(6.0, 5.8), layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    scatter(axes, clouds, labels, s=5, alpha=0.35, linewidths=0, zorder=0)
    if values.count() and values.min() < values.max():
        levels = MaxNLocator(lines).tick_values(values.min(), values.max())
        drawn = axes.contour(
            grid[..., 0],
            grid[..., 1],
            values.reshape(resolution, resolution),
            levels,
            colors=INK,
            linewidths=1.0,
            linestyles="solid",
        )
        axes.clabel(drawn, fontsize=9, fmt="%g")
        axes.plot([], [], color=INK, linewidth=1.0, label=f"lines of equal $f$, {levels[1] - levels[0]:g} apart")
    _frame(axes, grid)
    legend(figure, axes, title)
    return figure


@styled
def gradient_map(
    critic: Callable[[Tensor], Tensor], real: Samples, generated: Samples, *, bound: float | None = None,
    title: str | None = None, labels: tuple[str, str] = ("real", "generated"), resolution: int = 161,
) -> Figure:  # fmt: skip
    """Draws the norm of a critic's gradient in the plane, and marks the proved constant on its scale.

    Arguments:
        critic: Maps points, shape (k, 2), to values, shape (k,) or (k, 1); torch differentiates it.
        real: Points, shape (n, 2).
        generated: Points, shape (m, 2); those that are not finite are left out.
        bound: A certified Lipschitz constant, which no gradient exceeds.
        title: Title of the figure.
        labels: Names of the two clouds.
        resolution: Grid points along each axis, evaluated in one batch.
    """
    clouds = finite_points(real, 2), finite_points(generated, 2)
    grid = grid_around(clouds, resolution)
    norms = np.linalg.norm(gradients_at(critic, grid.reshape(-1, 2), like_of(critic, real)), axis=1)
    top = max(1.0, float(norms.max()))
    top = 1.04 * max(top, bound if bound is not None and bound <= 3 * top else 0.0)
    figure = Figure(figsize=(6.4, 5.8), layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    (left, below), (right, above) = grid[0, 0], grid[-1, -1]
    shades = axes.imshow(
        norms.reshape(resolution, resolution), cmap=SLOPE, vmin=0.0, vmax=top, origin="lower",
        extent=(left, right, below, above), interpolation="nearest",
    )  # fmt: skip
    pale, few = ("white", "#F0E442"), [cloud[:300] for cloud in clouds]
    scatter(axes, few, labels, pale, s=7, alpha=0.8, linewidths=0.4, edgecolors=INK)
    _frame(axes, grid)
    bar = figure.colorbar(shades, ax=axes, pad=0.02, label=r"gradient norm $\|\nabla f\|$ (KR potential: 1 on rays)")
    if bound is not None:
        bar.ax.axhline(min(bound, top), color=VERMILION, linewidth=3, clip_on=False)
        text = f"certified:\n≤ {rounded_up(bound, 7)}" + ("" if bound <= top else ",\noff this scale")
        bar.ax.text(0.5, 1.015, text, ha="center", va="bottom", fontsize=9, transform=bar.ax.transAxes)
    legend(figure, axes, title)
    return figure


@styled
def transport_lines(
    potential: Callable[[Tensor], Tensor], x: Samples, y: Samples,
    plan_rows: ArrayLike, plan_columns: ArrayLike, plan_mass: ArrayLike, *,
    title: str | None = None, lines: int = 200,
) -> Figure:  # fmt: skip
    r"""Draws a potential in the plane, and the lines of a transport plan coloured by its slope along them.

    .. math:: s_k = \frac{f(x_{i_k}) - f(y_{j_k})}{\|x_{i_k} - y_{j_k}\|}

    A Kantorovich potential falls at slope 1 along every line of an optimal plan; no 1-Lipschitz function falls faster.

    Arguments:
        potential: Maps points, shape (k, 2), to values, shape (k,) or (k, 1); torch differentiates it.
        x: Samples of P, shape (n, 2).
        y: Samples of Q, shape (m, 2).
        plan_rows: Indices into x, shape (k,).
        plan_columns: Indices into y, shape (k,).
        plan_mass: Masses that are moved, shape (k,).
        title: Title of the figure.
        lines: Most lines to draw. If there are more, they are sampled in proportion to their masses, the same in every
            call; lines too short to see are left out.

    Raises:
        InputError: Points that are not in the plane; a plan of unequal lengths, without mass, or of other samples.
    """
    points = as_numpy(x), as_numpy(y)
    rows, columns = drawn_plan(plan_rows, plan_columns, plan_mass, lines)
    for index, cloud, name in ((rows, points[0], "x"), (columns, points[1], "y")):
        if index.dtype.kind not in "iu" or not ((index >= 0) & (index < len(cloud))).all():
            raise InputError(f"The plan's indices do not fit {name}, which has {len(cloud)} points.")
    clouds = tuple(finite_points(_first(cloud, index), 2) for cloud, index in zip(points, (rows, columns), strict=True))
    like = like_of(potential, x)
    figure = Figure(figsize=(7.4, 5.8), layout="constrained")
    axes = terrain(figure, potential, like, clouds, resolution=161, arrows=0)

    starts, ends = points[0][rows], points[1][columns]
    lengths = np.linalg.norm(starts - ends, axis=1)
    seen = lengths > 1e-3 * float(np.ptp(axes.get_xlim()))
    starts, ends, lengths = starts[seen], ends[seen], lengths[seen]
    if seen.any():
        with np.errstate(invalid="ignore"):  # infinities of a dead critic
            slopes = (values_at(potential, starts, like) - values_at(potential, ends, like)) / lengths
        slopes = np.nan_to_num(slopes, posinf=0.0, neginf=0.0)
        shades = Normalize(min(0.0, float(slopes.min())), max(1.0, float(slopes.max())))
        drawn = LineCollection(list(np.stack([starts, ends], 1)), cmap=SLOPE, norm=shades, linewidths=1.3, zorder=1)
        drawn.set_array(slopes)
        axes.add_collection(drawn, autolim=False)
        axes.plot([], [], color=SLOPE(1.0), label="carried from x to y by the plan")  # for the legend
        figure.colorbar(drawn, ax=axes, pad=0.02, label="slope along each line (KR potential: 1)")
    scatter(axes, clouds, ("x", "y"))
    legend(figure, axes, title)
    return figure


def terrain(
    figure: Figure, critic: Callable[[Tensor], Tensor], like: Tensor, clouds: Sequence[np.ndarray],
    resolution: int, arrows: int,
) -> Axes:  # fmt: skip
    """Axes around two clouds in the plane, with the critic's values and, if `arrows` > 0, its gradient field."""
    centre, half = _square(np.concatenate(clouds))
    grid = _lattice(centre, np.linspace(-half, half, resolution))
    across, up = grid[..., 0], grid[..., 1]
    values = np.ma.masked_invalid(values_at(critic, grid.reshape(-1, 2), like).reshape(resolution, resolution))
    lowest, highest = (values.min(), values.max()) if values.count() else (0.0, 1.0)
    levels = MaxNLocator(18).tick_values(lowest, highest)
    axes = figure.add_subplot(aspect="equal")
    filled = axes.contourf(across, up, values, levels, cmap=HEIGHT)
    if values.count() and lowest < highest:
        axes.contour(across, up, values, levels, colors=INK, linewidths=0.4, alpha=0.3)
    if arrows:
        cell = 2 * half / arrows
        tails = _lattice(centre, (np.arange(arrows) + 0.5) * cell - half)
        gradient = gradients_at(critic, tails.reshape(-1, 2), like).reshape(arrows, arrows, 2)
        steepest = max(1.0, float(np.linalg.norm(gradient, axis=-1).max()))
        field = axes.quiver(
            tails[..., 0], tails[..., 1], gradient[..., 0], gradient[..., 1],
            angles="xy", scale_units="xy", scale=steepest / (0.8 * cell), pivot="mid",
            width=0.0019, headwidth=4.5, headlength=5, headaxislength=4.5, minlength=0.3, color=INK, alpha=0.5,
        )  # fmt: skip
        figure.set_layout_engine("constrained", rect=(0, 0, 1, 0.96))  # room for the key above the axes
        axes.quiverkey(field, 0.97, 1.035, 1, r"$\|\nabla f\| = 1$", labelpos="W", labelsep=0.12)
    _frame(axes, grid)
    figure.colorbar(filled, ax=axes, pad=0.02, label="critic value $f(x)$")
    return axes


def _first(points: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The points, with those of the index first."""
    index = np.unique(index)
    return np.concatenate([points[index], np.delete(points, index, axis=0)])


def _square(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre, shape (2,), and half side of a padded square around the points."""
    if not len(points):
        return np.zeros(2), 1.0
    low, high = points.min(0), points.max(0)
    half = float((high - low).max()) / 2
    return (low + high) / 2, 1.12 * half if half > 0 else 1.0


def grid_around(clouds: Sequence[np.ndarray], resolution: int) -> np.ndarray:
    """Points of a square around two clouds, shape (resolution, resolution, 2)."""
    centre, half = _square(np.concatenate(clouds))
    return _lattice(centre, np.linspace(-half, half, resolution))


def _lattice(centre: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(centre[0] + offsets, centre[1] + offsets), -1)


def _frame(axes: Axes, grid: np.ndarray) -> None:
    (left, below), (right, above) = grid[0, 0], grid[-1, -1]
    axes.set(xlim=(left, right), ylim=(below, above), xlabel="$x_1$ (data units)", ylabel="$x_2$ (data units)")
