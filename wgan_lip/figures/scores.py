"""Scores and errors of many cases side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, ScalarFormatter

from wgan_lip.figures.style import BLUE, INK, MARKS, VERMILION, light, styled


@styled
def stacked_bars(
    bars: Mapping[str, Mapping[str, float]], *, quantity: str, mark: float | None = None, title: str | None = None
) -> Figure:
    """Draws horizontal bars stacked from parts, with their sums.

    Arguments:
        bars: For each bar, by its label, the parts: lengths by name, at most four names.
        quantity: What the lengths are, with units.
        mark: Position of a dashed line.
        title: Title of the figure.
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
    light(axes)
    figure.legend(loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)
    return figure


@styled
def error_curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], *, quantity: str, title: str | None = None
) -> Figure:
    """Draws errors against sizes, both on logarithmic axes, in panels side by side with a common error axis.

    Arguments:
        panels: For each panel, by the name of its size, the curves: (size, error) pairs by label. Labels that begin
            with the same word share a colour; those that begin with "bound" are dashed.
        quantity: What the errors are, with units.
        title: Title of the figure.
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
        light(axes)
        axes.legend(frameon=False, fontsize=9)
    every[0].set_ylabel(quantity)
    if title:
        figure.suptitle(title)
    return figure


@styled
def score_curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], *, size: str, quantity: str,
    title: str | None = None,
) -> Figure:  # fmt: skip
    """Draws scores, at most 1, against sizes on a logarithmic axis, four panels per row with common axes and legend.

    Arguments:
        panels: For each panel, by its name, the curves: (size, score) pairs by label. A label keeps its colour, mark
            and line throughout; "best published" is dashed.
        size: What the sizes are.
        quantity: What the scores are.
        title: Title of the figure.
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
        light(axes)
    for axes in every.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in every.flat[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel(size)
        axes.tick_params(labelbottom=True)
    for axes in every[:, 0]:
        axes.set_ylabel(quantity)
    _shared_legend(figure, styles, title)
    return figure


@styled
def score_dots(
    marks: Mapping[str, Mapping[str, float]], *, quantity: str, title: str | None = None, mark: float = 1.0
) -> Figure:
    """Draws scores as marks, one line per subject, with one legend.

    Arguments:
        marks: By label, the score of each subject, by its name.
        quantity: What the scores are.
        title: Title of the figure.
        mark: Position of a line.
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
    axes.axvline(mark, color=INK, linewidth=0.9, zorder=0)
    axes.set(xlabel=quantity, ylim=(len(subjects) - 0.5, -0.5), yticks=range(len(subjects)), yticklabels=subjects)
    light(axes)
    _shared_legend(figure, styles, title)
    return figure


def _styles(labels: Iterable[str]) -> dict[str, tuple]:
    """Colour, mark and line of each label; a published curve gets the ones in ink, in whatever order they come."""
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


@styled
def score_matrix(moved: Mapping[str, Mapping[str, float]], *, seen: float, title: str | None = None) -> Figure:
    """Draws which score detects which damage: blue if it gets worse, white if it stays, red if it gets better.

    Arguments:
        moved: By score, the number of standard errors by which it gets worse under each damage.
        seen: The number of standard errors up to which a score counts as unchanged.
        title: Title of the figure.
    """
    damages = list(dict.fromkeys(damage for of in moved.values() for damage in of))
    values = np.array([[of.get(damage, math.nan) for damage in damages] for of in moved.values()])
    figure = Figure(figsize=(2.6 + 0.62 * len(damages), 1.6 + 0.27 * len(moved)), layout="constrained")
    axes = figure.subplots()
    shades = np.sign(values) * np.log10(np.clip(np.abs(values) / seen, 1, 100)) / 2  # 0 up to `seen`, 1 from 100 times
    axes.imshow(shades, cmap="RdBu", vmin=-1.6, vmax=1.6, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not math.isfinite(value):
            continue
        text = f"{value:+.0f}" if abs(value) < 1000 else f"{'+' if value > 0 else '−'}>999"
        axes.text(column, row, text if abs(value) > seen else "·", ha="center", va="center", fontsize=7.5, color=INK)
    axes.set_xticks(range(len(damages)), damages, rotation=40, ha="left", rotation_mode="anchor", fontsize=8.5)
    axes.set_yticks(range(len(moved)), list(moved), fontsize=8.5)
    axes.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel(f"standard errors by which a score gets worse; red: it prefers the damage; ·: up to {seen:g}")
    if title:
        figure.suptitle(title)
    return figure


@styled
def distance_matrix(
    values: np.ndarray, names: Sequence[str], *, quantity: str = "W1", title: str | None = None
) -> Figure:
    """Draws the distances of all pairs as a heat map, 0 white; with numbers in it for up to 20 groups.

    Arguments:
        values: Distances, shape (g, g); differences such as an excess may be negative, and are then red. NaN is grey.
        names: Names of the g groups.
        quantity: What the values are, with units.
        title: Title of the figure.
    """
    values, count = np.asarray(values, dtype=float), len(names)
    side = max(3.2, min(0.62 * count, 14))
    longest = max(map(len, names), default=0)
    figure = Figure(figsize=(side + 1.8 + 0.07 * longest, side + 0.6 + 0.07 * longest), layout="constrained")
    axes = figure.subplots()
    finite = values[np.isfinite(values)]
    top = float(np.abs(finite).max()) if finite.size and finite.any() else 1.0
    signed = bool((finite < 0).any())
    blues = LinearSegmentedColormap.from_list("distance", ["#ffffff", BLUE])
    both = LinearSegmentedColormap.from_list("difference", [VERMILION, "#ffffff", BLUE])
    colors = (both if signed else blues).with_extremes(bad="#cccccc")
    image = axes.imshow(np.ma.masked_invalid(values), cmap=colors, vmin=-top if signed else 0.0, vmax=top)
    if count <= 20:
        for (row, column), value in np.ndenumerate(values):
            if row != column and math.isfinite(value):
                axes.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=7.5, color=INK)
    axes.set_xticks(range(count), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=8.5)
    axes.set_yticks(range(count), names, fontsize=8.5)
    axes.tick_params(length=0)
    for edge in axes.spines.values():
        edge.set_visible(False)
    figure.colorbar(image, ax=axes, label=quantity, shrink=0.8)
    if title:
        axes.set_title(title, loc="left")
    return figure
