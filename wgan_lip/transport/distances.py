r"""All Euclidean distances between two sets at once, and the lowest cones by them.

Note [Products]
~~~~~~~~~~~~~~~
In many dimensions, ‖x‖² + ‖y‖² − 2 x·y by matrix products is many times as fast as differences, but its error is
relative to the norms: with both sets centred and s = ‖x‖² + ‖y‖², the square errs by at most (2 d + 14) u s, of which
the two norms and the product have 2 d + 8, and the rounding of the centred points the rest, in whichever order sums are
taken. Squares below s / 32 are therefore computed again, by differences. What remains has the relative error
32 (d + 8) u, far above that of differences at worst, and hardly above it in practice. So products serve to find plans,
dual variables and cones; no bound rests on them. A cone can be the lowest if its height by products exceeds the least
of all by no more than the errors of both: these are few, and compared by differences.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from wgan_lip.transport.plans import lengths
from wgan_lip.transport.rounding import U, distance_error, vanishing

__all__ = ["distances", "lowest_cones"]

WIDE = 16  # coordinates, from which products are faster
NEAR = 1 / 32  # of ‖x‖² + ‖y‖²: squares below it are computed by differences
FEW = 1 / 8  # of all pairs: if more are so near, all are computed by differences


def distances(x: Tensor, y: Tensor) -> tuple[np.ndarray, float]:
    """The distances of all x (n, d) to all y (m, d), in units, float64, shape (n, m), and a bound on the relative error
    of each; see Note [Products]."""
    d = x.shape[1]
    if d <= WIDE:
        return cdist(x.numpy(), y.numpy()), distance_error(d)
    centre = (x.mean(0) + y.mean(0)) / 2
    of_x, of_y = x - centre, y - centre
    squares_x, squares_y = of_x.square().sum(1), of_y.square().sum(1)
    norms = squares_x[:, None] + squares_y
    squares = torch.addmm(norms, of_x, of_y.T, alpha=-2)
    rows, columns = (index.numpy() for index in (squares < norms.mul_(NEAR)).nonzero(as_tuple=True))
    del norms
    if len(rows) > FEW * squares.numel():
        return cdist(x.numpy(), y.numpy()), distance_error(d)
    costs = squares.sqrt_().numpy()  # NaN below 0, which is near
    if len(rows):
        costs[rows, columns] = lengths(x, y, rows, columns)
    return costs, (d + 8) / NEAR * U


def lowest_cones(
    z: Tensor, points: Tensor, offsets: np.ndarray, costs: np.ndarray, relative: float
) -> tuple[np.ndarray, float]:
    """min_j ‖z_i − p_j‖ − v_j, shape (k,), and a bound on the error of each, from the distances of all pairs.

    Arguments:
        z: Where, in units, shape (k, d).
        points: The apexes, in units, shape (m, d).
        offsets: The v_j, in units, shape (m,).
        costs: Their distances, shape (k, m), as :func:`distances` has them.
        relative: The bound on their relative error.
    """
    d = z.shape[1]
    heights = costs - offsets
    values = heights.min(1)
    largest = float(np.abs(offsets).max())
    if relative > distance_error(d):
        # Distances at the least height stay below |value| + |v|; those of any that is truly lower hardly exceed it.
        margin = 2.1 * (relative + 2 * U) * (float(np.abs(values).max()) + largest) + vanishing(d)
        rows, columns = np.nonzero(heights <= (values + margin)[:, None])
        exact = (
            cdist(z.numpy(), points.numpy())[rows, columns]
            if len(rows) > FEW * heights.size
            else lengths(z, points, rows, columns)
        )
        values = np.minimum.reduceat(exact - offsets[columns], np.searchsorted(rows, np.arange(len(z))))
    error = (distance_error(d) + 2 * U) * (float(np.abs(values).max()) + 2 * largest)
    return values, 1.01 * error + vanishing(d)
