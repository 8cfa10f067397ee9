"""Samples of any dimension."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from wgan_lip.figures.arrays import Samples, as_numpy, finite_points
from wgan_lip.figures.style import BLUE, VERMILION, legend, light, scatter, styled


@styled
def generated_cloud(
    real: Samples, generated: Samples, *, title: str | None = None, labels: tuple[str, str] = ("real", "generated")
) -> Figure:
    """Draws two clouds of any dimension in the plane that shows the real one best.

    The plane is spanned by the first two principal components of the real points, with fixed signs, so that pictures
    of one run can be compared. In one dimension, two histograms are drawn.

    Arguments:
        real: Points, shape (n, d).
        generated: Points, shape (m, d); those that are not finite are left out.
        title: Title of the figure.
        labels: Names of the two clouds.
    """
    dim = as_numpy(real).shape[-1]
    clouds = finite_points(real, dim), finite_points(generated, dim)
    figure = Figure(figsize=(6.0, 5.4), layout="constrained")
    axes = figure.add_subplot()
    if dim == 1:
        bins = list(np.histogram_bin_edges(np.concatenate(clouds), bins=60))
        for cloud, color, label in zip(clouds, (BLUE, VERMILION), labels, strict=True):
            axes.hist(cloud.ravel(), bins, density=True, histtype="stepfilled", alpha=0.45, color=color, label=label)
        axes.set(xlabel="$x$ (data units)", ylabel="density (1 / data units)")
    else:
        mean = clouds[0].mean(0)
        _, spread, components = np.linalg.svd(clouds[0] - mean, full_matrices=False)
        plane = np.zeros((2, dim))
        plane[: min(2, len(components))] = components[:2]
        plane *= np.where(plane[[0, 1], np.abs(plane).argmax(1)] < 0, -1.0, 1.0)[:, None]
        scatter(axes, [(cloud - mean) @ plane.T for cloud in clouds], labels)
        share = np.pad(100 * spread**2 / max(float((spread**2).sum()), 1e-300), (0, 1))
        axes.set_xlabel(f"first component (data units, {share[0]:.0f} % of variance)")
        axes.set_ylabel(f"second ({share[1]:.0f} % of variance)")
        axes.set_aspect("equal", adjustable="datalim")
        light(axes)
    legend(figure, axes, title)
    return figure
