"""A critic in the plane as a surface in space."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from wgan_lip.figures.arrays import Samples, finite_points, gradients_at, like_of, values_at
from wgan_lip.figures.plane import grid_around
from wgan_lip.figures.style import BLUE, SLOPE, VERMILION

TETRAHEDRON = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)
SIDES = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])


def potential_surface(
    critic: Callable[[Tensor], Tensor], real: Samples, generated: Samples, *, resolution: int = 33, samples: int = 100
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Builds the graph of a critic in the plane, with samples lying on it, in equal units along all three axes.

    The graph of a 1-Lipschitz critic rises at 45 degrees at most; a KR potential does so wherever mass travels. Its
    colour is the gradient norm, from orange (flat) to dark green (1). Real samples are blue, generated ones vermilion.

    Arguments:
        critic: Maps points, shape (k, 2), to values, shape (k,) or (k, 1); torch differentiates it.
        real: Points, shape (n, 2).
        generated: Points, shape (m, 2); those that are not finite are left out.
        resolution: Grid points along each axis.
        samples: Samples of each cloud, at most.

    Returns:
        Vertices (k, 3), triangles of indices into them (t, 3), and the vertices' colours (k, 3), uint8.
    """
    clouds = finite_points(real, 2)[:samples], finite_points(generated, 2)[:samples]
    grid = grid_around(clouds, resolution).reshape(-1, 2)
    like = like_of(critic, real)
    heights = np.nan_to_num(values_at(critic, grid, like), posinf=0.0, neginf=0.0)
    level, centre = heights.mean(), grid.mean(0)
    vertices = [np.column_stack([grid - centre, heights - level])]
    slopes = np.linalg.norm(gradients_at(critic, grid, like), axis=1)
    colors = [255 * SLOPE(np.minimum(slopes, 1.0))[:, :3]]
    corner = (np.arange(resolution - 1)[:, None] * resolution + np.arange(resolution - 1)).ravel()
    right, above = corner + 1, corner + resolution
    faces = [np.column_stack([corner, right, above]), np.column_stack([right, above + 1, above])]

    size, count = 0.008 * float(np.ptp(grid[:, 0])), len(grid)
    for cloud, color in zip(clouds, (BLUE, VERMILION), strict=True):
        lifted = np.nan_to_num(values_at(critic, cloud, like), posinf=0.0, neginf=0.0) - level if len(cloud) else []
        places = np.column_stack([cloud - centre, lifted])
        vertices.append((places[:, None] + size * TETRAHEDRON).reshape(-1, 3))
        faces.append((count + 4 * np.arange(len(cloud))[:, None, None] + SIDES).reshape(-1, 3))
        channels = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
        colors.append(np.tile(channels, (4 * len(cloud), 1)))
        count += 4 * len(cloud)
    return np.concatenate(vertices), np.concatenate(faces), np.concatenate(colors).round().astype(np.uint8)
