"""Pictures of distributions on the line."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip.figures.arrays import Samples, as_numpy, like_of, values_at
from wgan_lip.figures.style import BLUE, INK, VERMILION, legend, light, styled
from wgan_lip.utils.checks import InputError, check_weights

MAX_STEPS = 2000  # most steps of each distribution function; smaller ones would be less than a pixel high


@styled
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
        potential: A potential to draw below: maps points, shape (k, 1), to values, shape (k,) or (k, 1).
        title: Title of the figure.

    Large samples are thinned to quantiles 1/2000 apart. The axis extends half a width beyond the quantiles of 1 % and
    99 %, so that a few outliers do not squeeze the rest.

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
        values = values_at(potential, grid[:, None], like_of(potential, x))
        panels[1].plot(grid, values, color=INK, linewidth=1.6)
        panels[1].set(ylabel="potential $f(t)$ (data units)")
        rule = "a KR potential falls at slope 1 where $F > G$, and rises at slope 1 where $F < G$"
        panels[1].set_title(rule, loc="left", fontsize=10)
    panels[-1].set(xlabel="$t$ (data units)")
    for panel in panels:
        light(panel)
    legend(figure, axes, title)
    return figure


def _distribution(samples: Samples, weights: ArrayLike | None, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Sorted points, and the share of the mass up to each; for many samples, quantiles 1 / MAX_STEPS apart."""
    points = as_numpy(samples)
    if points.ndim != 2 or points.shape[1] != 1 or not len(points) or not np.isfinite(points).all():
        raise InputError(f"{name} must be finite and of shape (n, 1); its shape is {points.shape}. Check the data.")
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
