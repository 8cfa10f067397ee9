"""A 1-Lipschitz potential made of cones, evaluated with a bound on its rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import overload

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip.transport.rounding import SMALLEST, U, as_values, block_entries, distance_error, unit_of, vanishing
from wgan_lip.utils.checks import InputError, check_samples
from wgan_lip.utils.printing import Printed, Row

__all__ = ["Potential", "block_distances"]


class Potential(Printed):
    r"""A 1-Lipschitz function on all of :math:`\mathbb{R}^d`, made of cones.

    .. math:: f(z) = s \min_j \left( \|z - p_j\| - v_j \right), \qquad s \in \{1, -1\}

    A minimum of 1-Lipschitz functions is 1-Lipschitz, whatever the offsets are. With s = 1, the points of y and an
    optimal dual variable v of y, :math:`E_P f - E_Q f = W_1(P, Q)`; the same holds with s = -1, the points of x and
    the dual variable u of x.

    Arguments:
        points: The apexes :math:`p_j`, shape (m, d).
        offsets: The :math:`v_j`, shape (m,), in the units of `points`.
        sign: s.

    Guarantee:
        The function is 1-Lipschitz; a computed value differs from it by no more than :meth:`with_error` says.

    References:
        Extension of range of functions (McShane, 1934); Optimal Transport, Old and New (Villani, 2009), Theorem 5.10
    """

    def __init__(self, points: Tensor | ArrayLike, offsets: Tensor | ArrayLike, *, sign: int = 1) -> None:
        self.points = check_samples(points, "points").detach().double()
        self.offsets = as_values(offsets, "offsets")
        if self.offsets.shape[0] != self.points.shape[0]:
            raise InputError(
                f"offsets must hold one value for each of {self.points.shape[0]} points, not {self.offsets.shape[0]}."
            )
        if sign not in (1, -1):
            raise InputError(f"sign must be 1 or -1, not {sign!r}.")
        self.sign = sign

    @classmethod
    def trusted(cls, points: Tensor, offsets: Tensor, *, sign: int = 1) -> Potential:
        """A potential from checked points (m, d) and offsets (m,), float64."""
        potential = cls.__new__(cls)
        potential.points, potential.offsets, potential.sign = points, offsets, sign
        return potential

    def headline(self) -> str:
        return f"A 1-Lipschitz function in dimension {self.points.shape[1]:,}"

    def summary_rows(self) -> list[Row]:
        return [Row("Minimum of" if self.sign > 0 else "Maximum of", f"{len(self.points):,} cones")]

    @overload
    def __call__(self, z: Tensor) -> Tensor: ...
    @overload
    def __call__(self, z: ArrayLike) -> np.ndarray: ...
    def __call__(self, z: Tensor | ArrayLike) -> Tensor | np.ndarray:
        """Evaluates f at z, shape (k, d): float64 values of shape (k,), on the device of z, differentiable in z.

        Arrays give an array, tensors a tensor. The gradient has norm 1 except at the apexes, where it is 0. Memory
        stays bounded, with and without gradients. Raises :class:`InputError` where z has another dimension.
        """
        values, _ = self.with_error(z)
        return values if isinstance(z, Tensor) else values.numpy()

    def with_error(self, z: Tensor | ArrayLike, *, apex: Tensor | None = None) -> tuple[Tensor, float]:
        """Evaluates f at z, shape (k, d), with a bound on the rounding error of each of the (k,) values.

        The error is that of ordinary float64 arithmetic, in the units of z; see Note [Rounding].

        Arguments:
            z: Where, shape (k, d).
            apex: The lowest cone at each z, shape (k,), if known from comparing :func:`block_distances` less the
                offsets. With another cone, the values are an upper bound on s f.
        """
        z = check_samples(z, "z").double()
        d = self.points.shape[1]
        if z.shape[1] != d:
            raise InputError(f"z must have dimension {d}, that of the potential, not shape {tuple(z.shape)}.")
        return self.enclosed(z, apex=apex)

    def at_both(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
        """Values at checked samples x (n, d) and y (m, d), and a bound on the error of each."""
        (at_x, error_x), (at_y, error_y) = self.enclosed(x), self.enclosed(y)
        return at_x, at_y, max(error_x, error_y)

    def enclosed(self, z: Tensor, *, apex: Tensor | None = None) -> tuple[Tensor, float]:
        """:meth:`with_error` at checked points z (k, d), float64."""
        d = self.points.shape[1]
        points, offsets = self.points.to(z.device), self.offsets.to(z.device)
        largest_offset = float(offsets.abs().max())
        with torch.no_grad():
            unit = max(unit_of(z, points), math.ldexp(1.0, math.frexp(largest_offset)[1] - 1000))  # no offset overflows
        z, points, offsets, largest_offset = z / unit, points / unit, offsets / unit, largest_offset / unit
        if apex is None:
            with torch.no_grad():
                apex = (_lowest_cone_line if d == 1 else _lowest_cone)(z, points, offsets)
        heights = torch.linalg.vector_norm(z - points[apex], dim=1) - offsets[apex]

        # A height errs by (r + u) (|f| + |v|): once here, twice where the cones were compared. On the line they are
        # compared through v +- (p - c), at the cost of the span of the points.
        error = 3 * (distance_error(d) + U) * (float(heights.detach().abs().max()) + largest_offset)
        if d == 1:
            error += 5 * U * (float(points.max() - points.min()) + largest_offset)
        return self.sign * unit * heights, 1.01 * unit * (error + vanishing(d)) + SMALLEST


def block_distances(z: Tensor, points: Tensor) -> Iterator[Tensor]:
    """The Euclidean distances, by differences, of successive rows of z (k, d) to all of the points (m, d)."""
    for block in z.split(max(1, block_entries(z.device) // len(points))):
        yield torch.cdist(block, points, compute_mode="donot_use_mm_for_euclid_dist")


def _lowest_cone(z: Tensor, points: Tensor, offsets: Tensor) -> Tensor:
    """argmin_j |z - p_j| - v_j, shape (k,), block by block."""
    apex = torch.empty(len(z), dtype=torch.long, device=z.device)
    start = 0
    for distances in block_distances(z, points):
        torch.argmin(distances - offsets, 1, out=apex[start : start + len(distances)])
        start += len(distances)
    return apex


def _lowest_cone_line(z: Tensor, points: Tensor, offsets: Tensor) -> Tensor:
    """The same on the line, in O((k + m) log m): the best cone at or left of z against the best one right of it."""
    p, order = points[:, 0].sort()
    z, place = z[:, 0].sort()  # in order, neighbours look at the same memory
    v, m = offsets[order], len(p)
    centred = p - p[m // 2]
    best_left = torch.cummax(v + centred, 0).indices
    best_right = m - 1 - torch.cummax((v - centred).flip(0), 0).indices.flip(0)
    split = torch.searchsorted(p, z, right=True)
    left, right = best_left[(split - 1).clamp(min=0)], best_right[split.clamp(max=m - 1)]
    lower = torch.where((z - p[left]).abs() - v[left] <= (z - p[right]).abs() - v[right], left, right)
    return torch.empty_like(place).scatter_(0, place, order[lower])
