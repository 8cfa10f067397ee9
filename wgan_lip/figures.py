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
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter, StrMethodFormatter
from numpy.typing import ArrayLike
from torch import Tensor, nn

from wgan_lip.checks import InputError, check_weights
from wgan_lip.files import write_whole

__all__ = [
    "cdf_pair",
    "error_curves",
    "generated_cloud",
    "interval_history",
    "interval_over_time",
    "landscape",
    "real_beside_generated",
    "sample_grid",
    "save",
    "score_curves",
    "score_dots",
    "stacked_bars",
    "to_array",
    "transport_lines",
]

Samples = Tensor | ArrayLike

# Blue and vermilion of Okabe and Ito's palette: told apart by every common kind of colour vision.
BLUE, VERMILION, INK = "#0072B2", "#D55E00", "#222222"
HEIGHT = LinearSegmentedColormap.from_list("height", ["#8593a6", "#b4bfcc", "#dfe4e8", "#fcfbf7"])
SLOPE = LinearSegmentedColormap.from_list("slope", ["#E69F00", "#CC79A7", "#009E73", "#00382A"])
MAX_POINTS = 2000  # of each cloud; more would hide the critic
MAX_STEPS = 2000  # of each distribution function; a step less than a pixel high is not seen
MARKS = [  # of as many curves: colours of that palette, and shapes and lines for who sees none
    (BLUE, "o", "-"), (VERMILION, "s", "-"), (INK, "*", (0, (5, 2))), ("#009E73", "^", (0, (1, 1.2))),
    ("#CC79A7", "v", (0, (1, 1.2))), ("#E69F00", "D", (0, (1, 1.2))), ("#56B4E9", "P", (0, (1, 1.2))),
    ("#777777", "X", (0, (1, 1.2))), (INK, "<", (0, (1, 1.2))), ("#8C6D00", ">", (0, (1, 1.2))),
]  # fmt: skip
WIDTH_FLOOR = 1e-15  # relative widths below it are beneath the rounding of float64

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
    figure = Figure(figsize=(6.4, 5.8), layout="constrained")
    axes = _terrain(figure, critic, _like(critic, real), clouds, resolution, arrows)
    _scatter(axes, clouds, labels)
    if modes is not None:
        axes.plot(*_points(modes, 2).T, "+", color="black", markersize=8, markeredgewidth=1.2, label="modes")
    _legend(figure, axes, title)
    return figure


@_styled
def stacked_bars(
    bars: Mapping[str, Mapping[str, float]], *, quantity: str, mark: float | None = None, title: str | None = None
) -> Figure:
    """Draws horizontal bars of parts one after the other, with their sums.

    Arguments:
        bars: For each bar, by its label, the parts: lengths by name, at most four names.
        quantity: What the lengths are, with units.
        mark: Where a dashed line stands.
        title: Stands above.
    """
    figure = Figure(figsize=(7.2, 1.2 + 0.38 * len(bars)), layout="constrained")
    axes = figure.subplots()
    names = dict.fromkeys(name for parts in bars.values() for name in parts)
    start = np.zeros(len(bars))
    for name, color in zip(names, (BLUE, "#56B4E9", VERMILION, INK)):
        lengths = np.array([parts.get(name, 0.0) for parts in bars.values()])
        axes.barh(range(len(bars)), lengths, left=start, color=color, height=0.62, label=name)
        start += lengths
    for index, total in enumerate(start):
        axes.text(total, index, f" {total:.2f}", va="center")
    if mark is not None:
        axes.axvline(mark, color=INK, linestyle=(0, (4, 3)), linewidth=1)
    axes.set(xlabel=quantity, xlim=(0, 1.1 * start.max()), title=title)
    axes.set_yticks(range(len(bars)), list(bars))
    axes.invert_yaxis()
    _light(axes)
    figure.legend(loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)
    return figure


@_styled
def transport_lines(
    potential: Callable[[Tensor], Tensor], x: Samples, y: Samples,
    plan_rows: ArrayLike, plan_columns: ArrayLike, plan_mass: ArrayLike, *,
    title: str | None = None, lines: int = 200,
) -> Figure:  # fmt: skip
    r"""Draws a potential on the plane, and the lines of a transport plan coloured by the slope it attains along them.

    .. math:: s_k = \frac{f(x_{i_k}) - f(y_{j_k})}{\|x_{i_k} - y_{j_k}\|}

    A Kantorovich potential falls at slope 1 along every line of an optimal plan; no 1-Lipschitz function falls faster.

    Arguments:
        potential: Maps points, shape (k, 2), to values, shape (k,) or (k, 1); torch differentiates it.
        x: Samples of P, shape (n, 2).
        y: Samples of Q, shape (m, 2).
        plan_rows: Indices into x, shape (k,).
        plan_columns: Indices into y, shape (k,).
        plan_mass: Masses that travel, shape (k,).
        title: Stands above.
        lines: Lines drawn at most. More are thinned out at random, in proportion to their masses, alike in every call;
            lines too short to be seen are left out.

    Raises:
        InputError: Points that are not in the plane; a plan of unequal lengths, without mass, or of other samples.
    """
    points = _numpy(x), _numpy(y)
    rows, columns = _drawn_plan(plan_rows, plan_columns, plan_mass, lines)
    for index, cloud, name in ((rows, points[0], "x"), (columns, points[1], "y")):
        if index.dtype.kind not in "iu" or not ((index >= 0) & (index < len(cloud))).all():
            raise InputError(f"Expected a plan of indices into {len(cloud)} points of {name}. Got another plan.")
    clouds = tuple(_points(_first(cloud, index), 2) for cloud, index in zip(points, (rows, columns), strict=True))
    like = _like(potential, x)
    figure = Figure(figsize=(7.4, 5.8), layout="constrained")
    axes = _terrain(figure, potential, like, clouds, resolution=161, arrows=0)

    starts, ends = points[0][rows], points[1][columns]
    lengths = np.linalg.norm(starts - ends, axis=1)
    seen = lengths > 1e-3 * float(np.ptp(axes.get_xlim()))
    starts, ends, lengths = starts[seen], ends[seen], lengths[seen]
    if seen.any():
        with np.errstate(invalid="ignore"):  # infinities of a dead critic
            slopes = (_values(potential, starts, like) - _values(potential, ends, like)) / lengths
        slopes = np.nan_to_num(slopes, posinf=0.0, neginf=0.0)
        shades = Normalize(min(0.0, float(slopes.min())), max(1.0, float(slopes.max())))
        drawn = LineCollection(np.stack([starts, ends], 1), cmap=SLOPE, norm=shades, linewidths=1.3, zorder=1)
        drawn.set_array(slopes)
        axes.add_collection(drawn, autolim=False)
        axes.plot([], [], color=SLOPE(1.0), label="carried from x to y by the plan")  # for the legend
        label = r"slope $(f(x) - f(y))\,/\,\|x - y\|$ along each line (1 is perfect)"
        figure.colorbar(drawn, ax=axes, pad=0.02, label=label)
    _scatter(axes, clouds, ("x", "y"))
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
    _light(axes)
    _legend(figure, axes, title)
    return figure


@_styled
def interval_over_time(
    seconds: ArrayLike, lower: ArrayLike, upper: ArrayLike, *, exact: float | None = None,
    estimates: ArrayLike | None = None, title: str | None = None, truth: float | None = None,
) -> Figure:  # fmt: skip
    """Draws the certified interval of W1 narrowing over time, and below it its relative width.

    What was proved stays proved: a bound is drawn from its time on, and the best one so far is shown. Time is on a
    logarithmic axis where it spans more than a factor of 30. Until there is an upper bound, the interval is unbounded
    and its relative width 1.

    Arguments:
        seconds: Times at which the bounds were known, in order, shape (k,).
        lower: Lower bounds, shape (k,).
        upper: Upper bounds, shape (k,), at first possibly infinite.
        exact: W1 of the two sample sets, where it is known.
        estimates: A critic's values on held-out samples, shape (k,), NaN where there is none: no bounds of W1.
        title: Stands above.
        truth: W1 of the two laws behind the samples, where it is known; it may lie outside the interval.

    Raises:
        InputError: Arrays of other shapes, NaN among times or bounds, or times that are not finite and in order.
    """
    times, lower, upper = (np.asarray(values, dtype=np.float64) for values in (seconds, lower, upper))
    estimates = np.full(times.shape, math.nan) if estimates is None else np.asarray(estimates, dtype=np.float64)
    if times.ndim != 1 or not times.shape == lower.shape == upper.shape == estimates.shape:
        shapes = ", ".join(str(values.shape) for values in (times, lower, upper, estimates))
        raise InputError(f"Expected seconds, lower, upper and estimates of one shape (k,). Got {shapes}.")
    if not (np.isfinite(times).all() and (np.diff(times) >= 0).all()) or np.isnan([lower, upper]).any():
        raise InputError("Expected finite times in order, and bounds that are numbers. Sort the records by time.")
    figure = Figure(figsize=(6.8, 5.4), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    if len(times):
        _narrowing(axes, below, times, np.maximum.accumulate(lower), np.minimum.accumulate(upper), estimates)
    else:
        axes.text(0.5, 0.5, "no interval was recorded", ha="center", va="center", transform=axes.transAxes)
    if exact is not None:
        axes.axhline(exact, color=VERMILION, linewidth=1.4, label="exact $W_1$ of the samples")
    if truth is not None:
        axes.axhline(truth, color=INK, linestyle=(0, (5, 3)), linewidth=1, label="known $W_1$ of the two laws")
    finite = [lower, upper[upper <= 3 * upper.min(initial=math.inf)], estimates, exact, truth]
    known = np.concatenate([np.atleast_1d(values) for values in finite if values is not None])
    known = known[np.isfinite(known)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    margin = 0.06 * (high - low or abs(high) or 1.0)
    axes.set(ylim=(low - margin, high + margin), ylabel="$W_1$ (data units)")
    below.set(ylabel="relative width", xlabel="time (s)")
    for panel in (axes, below):
        _light(panel)
    _legend(figure, axes, title)
    return figure


def _narrowing(
    axes: Axes, below: Axes, times: np.ndarray, lower: np.ndarray, upper: np.ndarray, estimates: np.ndarray
) -> None:
    """The two panels of :func:`interval_over_time`, all arrays of shape (k,), k > 0."""
    positive = times[times > 0]
    logarithmic = len(positive) > 1 and positive[-1] > 30 * positive[0]
    if logarithmic:
        times = np.maximum(times, positive[0])  # what was known at time 0 is shown from the left end on
        axes.set_xscale("log")
        below.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        end = times[-1] * (times[-1] / times[0]) ** 0.05
    else:
        end = times[-1] + (0.05 * float(np.ptp(times)) or 1.0)
    axes.set_xlim(times[0], end)
    until = np.append(times, end)  # the last interval holds from then on
    lower, upper = np.append(lower, lower[-1]), np.append(upper, upper[-1])
    bounded = np.isfinite(upper)
    width = np.ones(len(until))
    np.divide(upper - lower, upper, out=width, where=bounded & (upper > 0))
    width[upper == 0] = 0.0

    top = np.where(bounded, upper, 1e3 * np.abs([*lower, *upper[bounded], 1.0]).max())  # off the picture
    axes.fill_between(until, lower, top, step="post", color=BLUE, alpha=0.2, linewidth=0, label="certified interval")
    for bound in (lower, np.where(bounded, upper, math.nan)):
        axes.step(until, bound, where="post", color=BLUE, linewidth=1.2)
    if np.isfinite(estimates).any():
        axes.plot(times, estimates, ".", color="#CC79A7", markersize=5, label="critic on held-out samples")
    below.step(until, np.maximum(width, WIDTH_FLOOR), where="post", color=BLUE, linewidth=1.6)
    share = f"{100 * width[-1]:.2g}" if width[-1] < 0.995 else "100"
    below.set_title(f"(upper − lower) / upper: {share} % at the end", loc="left", fontsize=10)
    narrow, wide = max(width.min(), WIDTH_FLOOR), max(width.max(), WIDTH_FLOOR)
    rounding = narrow < 1e3 * WIDTH_FLOOR
    below.set(yscale="log", ylim=(WIDTH_FLOOR / 10 if rounding else narrow / 2, 2 * wide))
    below.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if wide < 30 * narrow else (1,)))
    below.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    below.yaxis.set_minor_formatter(NullFormatter())
    if rounding:
        below.axhline(WIDTH_FLOOR, color=INK, linestyle=(0, (1, 2)), linewidth=1)
        below.annotate("rounding of float64", (times[0], WIDTH_FLOOR), (4, 3), textcoords="offset points", fontsize=9)


@_styled
def cdf_pair(
    x: Samples, y: Samples, a: ArrayLike | None = None, b: ArrayLike | None = None, *,
    potential: Callable[[Tensor], Tensor] | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    r"""Draws the distribution functions of two samples on the line; the area between them is W1.

    .. math:: W_1(P, Q) = \int |F(t) - G(t)| \, dt, \qquad f' = -\operatorname{sign}(F - G)

    Arguments:
        x: Samples of P, shape (n, 1).
        y: Samples of Q, shape (m, 1).
        a: Weights of x, shape (n,); uniform by default.
        b: Weights of y, shape (m,); uniform by default.
        potential: Is drawn below: maps points, shape (k, 1), to values, shape (k,) or (k, 1).
        title: Stands above.

    Many samples are thinned to quantiles 1/2000 apart. The axis leaves half a width of room beside the quantiles of
    1 % and 99 %, so that a few outliers do not hide all others.

    Raises:
        InputError: Samples that are not finite and of shape (n, 1), or unusable weights.
    """
    (at_x, f), (at_y, g) = _distribution(x, a, "x"), _distribution(y, b, "y")
    merged = np.union1d(at_x, at_y)
    level_f, level_g = (_level(merged, at, level) for at, level in ((at_x, f), (at_y, g)))
    bulk = [at[np.searchsorted(level, share)] for at, level in ((at_x, f), (at_y, g)) for share in (0.01, 0.99)]
    side = 0.5 * float(np.ptp(bulk)) or 1.0
    left, right = max(min(bulk) - side, merged[0] - side / 10), min(max(bulk) + side, merged[-1] + side / 10)
    ends = np.array([min(left, merged[0]), *merged, max(right, merged[-1])])
    level_f, level_g = (np.array([0.0, *level, 1.0]) for level in (level_f, level_g))

    figure = Figure(figsize=(6.8, 3.8 if potential is None else 5.6), layout="constrained")
    panels = figure.subplots(1 if potential is None else 2, 1, sharex=True, squeeze=False)[:, 0]
    axes = panels[0]
    axes.fill_between(ends, level_f, level_g, step="post", color=INK, alpha=0.15, linewidth=0, label="area: $W_1$")
    axes.step(ends, level_f, where="post", color=BLUE, linewidth=1.6, label="$F$, of x")
    axes.step(ends, level_g, where="post", color=VERMILION, linewidth=1.6, label="$G$, of y")
    axes.set(xlim=(left, right), ylabel="share of samples at most $t$")
    if potential is not None:
        grid = np.linspace(left, right, 2001)
        values = _values(potential, grid[:, None], _like(potential, x))
        panels[1].plot(grid, values, color=INK, linewidth=1.6)
        panels[1].set(ylabel="potential $f(t)$ (data units)")
        rule = "an optimal potential falls at slope 1 where $F > G$, rises at slope 1 where $F < G$"
        panels[1].set_title(rule, loc="left", fontsize=10)
    panels[-1].set(xlabel="$t$ (data units)")
    for panel in panels:
        _light(panel)
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
        _light(axes)
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
        _light(axes)
        axes.legend(frameon=False, fontsize=9)
    every[0].set_ylabel(quantity)
    if title:
        figure.suptitle(title)
    return figure


@_styled
def score_curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], *, size: str, quantity: str,
    title: str | None = None,
) -> Figure:  # fmt: skip
    """Draws scores, at most 1, against sizes on a logarithmic axis, four panels a row on common axes, with one legend.

    Arguments:
        panels: For each panel, by its name, the curves: (size, score) pairs by label. A label keeps its colour, its
            mark and its line throughout; "best published" is dashed.
        size: What the sizes are of.
        quantity: What the scores are.
        title: Stands above.
    """
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(max(6.4, 2.9 * columns), 1.6 + 2.5 * rows), layout="constrained")
    every = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    styles = _styles(label for curves in panels.values() for label in curves)
    points = [point for curves in panels.values() for curve in curves.values() for point in curve]
    for axes, (name, curves) in zip(every.flat, panels.items()):
        for label, curve in curves.items():
            color, marker, line = styles[label]
            axes.plot(*np.array(curve).T, color=color, marker=marker, linestyle=line, markersize=5, linewidth=1.3)
        axes.set_title(name, loc="left")
        axes.set_xscale("log", base=2)
        axes.set(
            ylim=(min(score for _, score in [(0, 0.0), *points]) - 0.03, 1.0), xticks=sorted({at for at, _ in points})
        )
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        _light(axes)
    for axes in every.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in every.flat[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel(size)
        axes.tick_params(labelbottom=True)
    for axes in every[:, 0]:
        axes.set_ylabel(quantity)
    _shared_legend(figure, styles, title)
    return figure


@_styled
def score_dots(marks: Mapping[str, Mapping[str, float]], *, quantity: str, title: str | None = None) -> Figure:
    """Draws scores as marks, a line a subject, with one legend.

    Arguments:
        marks: By label, the score of each subject, by its name.
        quantity: What the scores are.
        title: Stands above.
    """
    subjects = list(dict.fromkeys(subject for scores in marks.values() for subject in scores))
    figure = Figure(figsize=(7.6, 1.8 + 0.34 * len(subjects)), layout="constrained")
    axes = figure.subplots()
    styles = {label: (color, marker, "none") for label, (color, marker, _) in _styles(marks).items()}
    for index, (label, scores) in enumerate(marks.items()):
        color, marker, _ = styles[label]
        shift = 0.5 * ((index + 0.5) / len(marks) - 0.5)  # so that equal scores stay apart
        heights = [subjects.index(subject) + shift for subject in scores]
        axes.plot(list(scores.values()), heights, linestyle="none", color=color, marker=marker, markersize=6)
    axes.axvline(1.0, color=INK, linewidth=0.9, zorder=0)
    axes.set(xlabel=quantity, ylim=(len(subjects) - 0.5, -0.5), yticks=range(len(subjects)), yticklabels=subjects)
    _light(axes)
    _shared_legend(figure, styles, title)
    return figure


def _styles(labels: Iterable[str]) -> dict[str, tuple]:
    """Colour, mark and line of each label; a published curve gets those in ink, whichever comes first."""
    names = list(dict.fromkeys(labels))
    published = [name for name in names if name.startswith("best published")]
    others = iter([style for index, style in enumerate(MARKS) if index != 2 or not published])
    return {name: MARKS[2] if name in published else next(others) for name in names}


def _shared_legend(figure: Figure, styles: Mapping[str, tuple], title: str | None) -> None:
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle=line, label=label)
        for label, (color, marker, line) in styles.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False, fontsize=9)
    if title:
        figure.suptitle(title)


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


def _like(critic: Callable[[Tensor], Tensor], samples: Samples) -> Tensor:
    """A tensor of the dtype and on the device that the critic takes."""
    like = next(critic.parameters(), None) if isinstance(critic, nn.Module) else None
    if like is not None:
        return like
    given = isinstance(samples, Tensor) and samples.is_floating_point()
    return samples if given else torch.empty(0, dtype=torch.float64)


def _values(critic: Callable[[Tensor], Tensor], points: np.ndarray, like: Tensor) -> np.ndarray:
    """The critic at points of shape (k, d), shape (k,)."""
    with torch.no_grad():
        values = critic(torch.as_tensor(points, dtype=like.dtype, device=like.device))
    return values.double().cpu().numpy().reshape(len(points))


def _terrain(
    figure: Figure, critic: Callable[[Tensor], Tensor], like: Tensor, clouds: Sequence[np.ndarray],
    resolution: int, arrows: int,
) -> Axes:  # fmt: skip
    """Axes around two clouds of the plane, with the critic's values and, where `arrows` > 0, its gradient field."""
    centre, half = _square(np.concatenate(clouds))

    def lattice(offsets: np.ndarray) -> np.ndarray:
        return np.stack(np.meshgrid(centre[0] + offsets, centre[1] + offsets), -1)

    grid = lattice(np.linspace(-half, half, resolution))
    across, up = grid[..., 0], grid[..., 1]
    values = np.ma.masked_invalid(_values(critic, grid.reshape(-1, 2), like).reshape(resolution, resolution))
    lowest, highest = (values.min(), values.max()) if values.count() else (0.0, 1.0)
    levels = MaxNLocator(18).tick_values(lowest, highest)
    axes = figure.add_subplot(aspect="equal")
    filled = axes.contourf(across, up, values, levels, cmap=HEIGHT)
    if values.count() and lowest < highest:
        axes.contour(across, up, values, levels, colors=INK, linewidths=0.4, alpha=0.3)
    if arrows:
        cell = 2 * half / arrows
        tails = lattice((np.arange(arrows) + 0.5) * cell - half)
        points = torch.as_tensor(tails.reshape(-1, 2), dtype=like.dtype, device=like.device).requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(critic(points).sum(), points)
        gradient = np.nan_to_num(gradient.double().cpu().numpy(), posinf=0.0, neginf=0.0).reshape(arrows, arrows, 2)
        steepest = max(1.0, float(np.linalg.norm(gradient, axis=-1).max()))
        field = axes.quiver(
            tails[..., 0], tails[..., 1], gradient[..., 0], gradient[..., 1],
            angles="xy", scale_units="xy", scale=steepest / (0.8 * cell), pivot="mid",
            width=0.0019, headwidth=4.5, headlength=5, headaxislength=4.5, minlength=0.3, color=INK, alpha=0.5,
        )  # fmt: skip
        figure.get_layout_engine().set(rect=(0, 0, 1, 0.96))  # room for the key above the axes
        axes.quiverkey(field, 0.97, 1.035, 1, r"$\|\nabla f\| = 1$", labelpos="W", labelsep=0.12)
    axes.set(xlim=across[0, [0, -1]], ylim=up[[0, -1], 0], xlabel="$x_1$ (data units)", ylabel="$x_2$ (data units)")
    figure.colorbar(filled, ax=axes, pad=0.02, label="critic value $f(x)$")
    return axes


def _drawn_plan(rows: ArrayLike, columns: ArrayLike, mass: ArrayLike, lines: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the two ends of at most `lines` entries of a plan, drawn in proportion to their masses."""
    rows, columns = np.asarray(rows), np.asarray(columns)
    mass = check_weights(mass, np.size(rows), "plan_mass")
    if rows.shape != mass.shape or columns.shape != mass.shape:
        raise InputError(f"Expected plan_rows and plan_columns of one shape (k,). Got {rows.shape}, {columns.shape}.")
    count = min(lines, np.count_nonzero(mass))
    drawn = np.random.default_rng(0).choice(len(mass), count, replace=False, p=mass / mass.sum())
    return rows[drawn], columns[drawn]


def _first(points: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The points, those of the index before all others."""
    index = np.unique(index)
    return np.concatenate([points[index], np.delete(points, index, axis=0)])


def _distribution(samples: Samples, weights: ArrayLike | None, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Points in order, and the share of the mass up to each; of many samples, quantiles 1 / MAX_STEPS apart."""
    points = _numpy(samples)
    if points.ndim != 2 or points.shape[1] != 1 or not len(points) or not np.isfinite(points).all():
        raise InputError(f"Expected {name} finite and of shape (n, 1). Got shape {points.shape}. Check the data.")
    points, weights = points[:, 0], check_weights(weights, len(points), f"the weights of {name}")
    if weights is None:
        points, share = np.sort(points), np.arange(1, len(points) + 1) / len(points)
    else:
        order = np.argsort(points)
        points, share = points[order], np.cumsum(weights[order])
        share /= share[-1]
    if len(points) > MAX_STEPS:
        kept = np.unique(np.searchsorted(share, np.linspace(0, 1, MAX_STEPS + 1)))
        points, share = points[kept], share[kept]
    return points, share


def _level(at: np.ndarray, points: np.ndarray, share: np.ndarray) -> np.ndarray:
    """A distribution function, given by its steps, at the points `at`."""
    return np.concatenate([[0.0], share])[np.searchsorted(points, at, side="right")]


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


def _light(axes: Axes) -> None:
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, axes: Axes, title: str | None) -> None:
    handles, names = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False, markerscale=1.6)
    if title:
        axes.set_title(title, pad=8, loc="left")
