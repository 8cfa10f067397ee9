"""Histograms, images and other arrays of mass as points with weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wgan_lip.utils.checks import InputError, as_tensor
from wgan_lip.utils.numbers import rounded
from wgan_lip.utils.printing import Printed, Row

__all__ = ["GridPair", "grid_pair"]


@dataclass(frozen=True, eq=False, repr=False)
class GridPair(Printed):
    """Two arrays of mass on one regular grid, as points with weights, in the order of the flattened arrays.

    Attributes:
        points: Centres of all N cells, shape (N, k), float64.
        a: Masses of x there, shape (N,), divided by their total.
        b: Masses of y, shape (N,).
        shape: Shape of the arrays.
        spacing: Distance between neighbouring cells along each of the k axes.
        totals: Total masses of x and y, as given.
    """

    points: Tensor
    a: Tensor
    b: Tensor
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    totals: tuple[float, float]

    @property
    def notes(self) -> tuple[str, ...]:
        """How the masses were rescaled, in a sentence; empty if both are probabilities."""
        if all(math.isclose(total, 1.0, rel_tol=1e-6) for total in self.totals):
            return ()
        first, second = self.totals
        if math.isclose(first, second, rel_tol=1e-12):
            return (f"Both arrays were divided by their total mass, {rounded(first, 6)}.",)
        return (
            f"The total masses differ: {rounded(first, 6)} in x and {rounded(second, 6)} in y. Each array was divided "
            "by its total, so W1 compares where the mass lies, not how much there is.",
        )

    def headline(self) -> str:
        return f"Two arrays of mass on a grid of {' × '.join(f'{size:,}' for size in self.shape)} cells"

    def summary_rows(self) -> list[Row]:
        return [
            Row("Cells with mass", f"{self.a.count_nonzero():,} and {self.b.count_nonzero():,}"),
            Row("Spacing", ", ".join(f"{step:g}" for step in self.spacing), "units of length, along each axis"),
            *(Row("Note", note) for note in self.notes),
        ]


def grid_pair(x: Any, y: Any, *, spacing: float | Sequence[float] = 1.0) -> GridPair:
    r"""Two arrays of equal shape as mass on a regular grid: histograms, images, densities, counts.

    .. math:: P = \sum_i \frac{x_i}{\sum_k x_k} \, \delta_{(i + 1/2) h}, \qquad i = (i_1, \dots, i_k), \quad
        (i + 1/2) h = ((i_1 + 1/2) h_1, \dots, (i_k + 1/2) h_k)

    and Q is built from y in the same way, with h = `spacing`. :func:`wgan_lip.estimate_w1` of the points with these
    weights gives their W1, in the unit of the spacing. Cells without mass cost no time.

    Arguments:
        x: Masses, at least 0, of any shape (h_1, …, h_k), k ≥ 1, with at least two cells: a tensor, an array, a list.
        y: Masses of the same shape.
        spacing: Distance between neighbouring cells, one number for all axes or one for each.

    Raises:
        InputError: Shapes that differ; masses that are negative or not finite (the first one is named); no mass at all;
            a spacing that is not positive and finite, or one for another number of axes.

    Guarantee:
        The points are the cells' centres and the weights are the masses, divided by their total in float64. A cell is
        one point: a histogram does not say where in a cell its mass lies, which may change W1 of the underlying laws by
        half a cell's diagonal for each of the two.

    Example:
        >>> import wgan_lip
        >>> grid = grid_pair([0, 3, 1, 0], [0, 0, 3, 1], spacing=0.5)  # moved by one bin
        >>> wgan_lip.estimate_w1(grid.points, grid.points, a=grid.a, b=grid.b, critic=None).exact
        0.5
    """
    masses = [_masses(array, name) for name, array in (("x", x), ("y", y))]
    shape, other = (tuple(array.shape) for array in masses)
    if shape != other:
        raise InputError(
            f"x and y must lie on the same grid, but have shapes {shape} and {other}. Bin or crop them in the same way."
        )
    steps = (spacing,) * len(shape) if isinstance(spacing, (int, float)) else tuple(spacing)
    if len(steps) != len(shape):
        raise InputError(f"spacing must be one number, or one for each of the {len(shape)} axes, not {list(steps)}.")
    if not all(isinstance(step, (int, float)) and 0 < step < math.inf for step in steps):
        raise InputError(f"spacing must be positive and finite, not {spacing}.")
    with np.errstate(over="ignore"):
        totals = [float(array.sum()) for array in masses]
    for name, total in zip("xy", totals):
        if not 0 < total < math.inf:
            got = "holds no mass: all its cells are 0" if total == 0 else "holds more mass than float64 can add up"
            raise InputError(f"{name} {got}.")
    points = (np.argwhere(np.ones(shape, dtype=bool)) + 0.5) * np.array(steps)
    a, b = (torch.from_numpy(array.ravel() / total) for array, total in zip(masses, totals))
    return GridPair(torch.from_numpy(points), a, b, shape, tuple(map(float, steps)), (totals[0], totals[1]))


def _masses(array: Any, name: str) -> np.ndarray:
    masses = as_tensor(array, name).detach().cpu().double().numpy()
    if masses.ndim == 0 or masses.size < 2:
        raise InputError(f"{name} must be an array of masses with at least two cells, not of shape {masses.shape}.")
    wrong = ~np.isfinite(masses) | (masses < 0)
    if wrong.any():
        cell = tuple(map(int, np.argwhere(wrong)[0]))
        raise InputError(
            f"The masses of {name} must be finite and at least 0, not {masses[cell]:g} as in cell {cell}, the first of "
            f"{int(wrong.sum())} such cells. Subtract the background, or clip at 0, if that is what they mean."
        )
    return masses
