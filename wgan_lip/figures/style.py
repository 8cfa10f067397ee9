"""The common style of pictures, and how they are saved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from wgan_lip.utils.files import write_whole

# Blue and vermilion of Okabe and Ito's palette, distinguishable with every common kind of colour vision.
BLUE, VERMILION, INK = "#0072B2", "#D55E00", "#222222"
HEIGHT = LinearSegmentedColormap.from_list("height", ["#8593a6", "#b4bfcc", "#dfe4e8", "#fcfbf7"])
SLOPE = LinearSegmentedColormap.from_list("slope", ["#E69F00", "#CC79A7", "#009E73", "#00382A"])
MARKS = [  # of as many curves: colours of that palette, with shapes and lines for readers who see no colours
    (BLUE, "o", "-"), (VERMILION, "s", "-"), (INK, "*", (0, (5, 2))), ("#009E73", "^", (0, (1, 1.2))),
    ("#CC79A7", "v", (0, (1, 1.2))), ("#E69F00", "D", (0, (1, 1.2))), ("#56B4E9", "P", (0, (1, 1.2))),
    ("#777777", "X", (0, (1, 1.2))), (INK, "<", (0, (1, 1.2))), ("#8C6D00", ">", (0, (1, 1.2))),
]  # fmt: skip

styled = rc_context({"font.size": 10, "axes.titlesize": 11, "axes.edgecolor": INK, "figure.dpi": 100})


def to_array(figure: Figure, *, dpi: float | None = None) -> np.ndarray:
    """Renders a figure, by default at its resolution: uint8, shape (h, w, 3)."""
    if dpi is not None:
        figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save(figure: Figure, path: str | os.PathLike[str], *, dpi: float = 100) -> Path:
    """Writes a figure as PNG in one step: a reader never sees half of it, even if the disk is full."""
    canvas = FigureCanvasAgg(figure)
    return write_whole(path, lambda stream: canvas.print_figure(stream, format="png", dpi=dpi))


def narrowed(figure: Figure, width: float) -> Figure:
    """The figure at a width in inches, with letters as large as before, for a narrow page."""
    across, high = figure.get_size_inches()
    figure.set_size_inches(width, high * width / across)
    return figure


def scatter(
    axes: Axes, clouds: Sequence[np.ndarray], labels: Sequence[str], colors: Sequence[str] = (BLUE, VERMILION),
    **style: Any,
) -> None:  # fmt: skip
    size = float(np.clip(8000 / max(1, *map(len, clouds)), 9, 26))
    style = {"s": size, "alpha": 0.85, "linewidths": 0.3, "edgecolors": "white", **style}
    for cloud, color, marker, label in zip(clouds, colors, "o^", labels, strict=True):
        axes.scatter(cloud[:, 0], cloud[:, 1], c=color, marker=marker, label=label, **style)


def light(axes: Axes) -> None:
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def legend(figure: Figure, axes: Axes, title: str | None) -> None:
    handles, names = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, names, loc="outside lower center", ncols=len(names), frameon=False, markerscale=1.6,
            columnspacing=1.2, handletextpad=0.4, handlelength=1.5,
        )  # fmt: skip
    if title:
        axes.set_title(title, pad=8, loc="left")
