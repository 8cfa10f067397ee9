"""A critic along the lines of a transport plan, and its values on two clouds, in any dimension."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip.figures.arrays import Samples, as_numpy, drawn_plan, like_of, values_at
from wgan_lip.figures.style import BLUE, INK, SLOPE, VERMILION, legend, light, styled


@styled
def ray_profiles(
    critic: Callable[[Tensor], Tensor], x: Samples, y: Samples,
    plan_rows: ArrayLike, plan_columns: ArrayLike, plan_mass: ArrayLike, *,
    title: str | None = None, rays: int = 100, points: int = 33,
) -> Figure:  # fmt: skip
    r"""Draws how a critic falls along the lines of a transport plan, against the distance from their starts.

    .. math:: s \mapsto f(x) - f\Bigl(x + s \frac{y - x}{\|y - x\|}\Bigr), \qquad 0 \le s \le \|x - y\|

    A Kantorovich potential falls by s, along the diagonal; a 1-Lipschitz critic stays below it.

    Arguments:
        critic: Maps points, shape (k, d), to values, shape (k,) or (k, 1).
        x: Samples of P, shape (n, d).
        y: Samples of Q, shape (m, d).
        plan_rows: Indices into x, shape (k,).
        plan_columns: Indices into y, shape (k,).
        plan_mass: Masses that are moved, shape (k,).
        title: Title of the figure.
        rays: Most lines to draw; if there are more, they are sampled in proportion to their masses, the same in every
            call.
        points: Evaluations along each line.
    """
    rows, columns = drawn_plan(plan_rows, plan_columns, plan_mass, rays)
    starts, ends = as_numpy(x)[rows], as_numpy(y)[columns]
    lengths = np.linalg.norm(ends - starts, axis=1)
    kept = np.isfinite(lengths) & (lengths > 0)
    starts, ends, lengths = starts[kept], ends[kept], lengths[kept]
    shares = np.linspace(0.0, 1.0, points)
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    longest = float(lengths.max(initial=0.0)) or 1.0
    axes.plot([0, longest], [0, longest], color=INK, linestyle=(0, (5, 3)), label="KR potential: slope 1")
    if len(lengths):
        along = starts[:, None] + shares[:, None] * (ends - starts)[:, None]  # (rays, points, d)
        values = values_at(critic, along.reshape(-1, along.shape[-1]), like_of(critic, x)).reshape(len(lengths), points)
        with np.errstate(invalid="ignore"):  # infinities of a dead critic
            falls = np.nan_to_num(values[:, :1] - values, posinf=0.0, neginf=0.0)
        slopes = falls[:, -1] / lengths
        shades = Normalize(min(0.0, float(slopes.min())), max(1.0, float(slopes.max())))
        curves = np.stack([shares * lengths[:, None], falls], -1)
        drawn = LineCollection(list(curves), cmap=SLOPE, norm=shades, linewidths=1.0, alpha=0.6)
        drawn.set_array(slopes)
        axes.add_collection(drawn)
        figure.colorbar(drawn, ax=axes, pad=0.02, label="slope of the line (KR potential: 1)")
        low, high = min(0.0, float(falls.min())), max(longest, float(falls.max()))
    else:
        low, high = 0.0, longest
    axes.set(
        xlim=(0, 1.02 * longest), ylim=(low, 1.05 * high),
        xlabel="distance from the real sample (data units)",
        ylabel="fall of the critic (data units)",
    )  # fmt: skip
    light(axes)
    legend(figure, axes, title)
    return figure


@styled
def value_histograms(
    real_values: Samples, generated_values: Samples, *, title: str | None = None,
    labels: tuple[str, str] = ("real", "generated"),
) -> Figure:  # fmt: skip
    """Draws the distributions of a critic's values on two clouds, with their means.

    Arguments:
        real_values: Shape (n,).
        generated_values: Shape (m,); values that are not finite are left out.
        title: Title of the figure.
        labels: Names of the two clouds.
    """
    values = [cloud[np.isfinite(cloud)] for cloud in (as_numpy(real_values), as_numpy(generated_values))]
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    bins = list(np.histogram_bin_edges(np.concatenate(values), bins=40))
    for cloud, color, label, line in zip(values, (BLUE, VERMILION), labels, ("-", (0, (5, 2))), strict=True):
        if len(cloud):
            axes.hist(
                cloud, bins, histtype="stepfilled", alpha=0.4, color=color, weights=np.full(len(cloud), 1 / len(cloud))
            )
            axes.axvline(
                cloud.mean(), color=color, linewidth=2, linestyle=line, label=f"{label}, mean {cloud.mean():.4g}"
            )
    axes.set(xlabel="critic value $f(x)$", ylabel="share of samples")
    light(axes)
    legend(figure, axes, title)
    return figure
