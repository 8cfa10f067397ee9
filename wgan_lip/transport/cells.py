"""Cells: a set of points halved again and again, so that in few dimensions points of one cell lie close together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["FEW_DIMENSIONS", "Halving", "Tree", "split"]

FEW_DIMENSIONS = 3  # up to which cells of points are small
LEAF = 64  # points, about, in the smallest cell that is looked at as a whole
BRANCHES = 3  # halvings from one cell to those that are looked at next
SIDES = 32  # coordinates along which cells are halved, at most: more would hardly make them smaller
ROOT = 4096  # points, about, in the largest cell


def split(points: np.ndarray, depth: int, begun: tuple[np.ndarray, int] | None = None) -> np.ndarray:
    """The cell of each point (n, d), shape (n,), among 2^depth ≤ n cells: all are halved `depth` times along their
    widest side, among the SIDES on which the points spread most. The cell of a point after fewer halvings is the same
    number without its last bits; `begun` gives such cells and the number of halvings so far."""
    if points.shape[1] > SIDES:
        points = points[:, np.argpartition(-np.ptp(points, axis=0), SIDES)[:SIDES]]
    if begun is None:
        order, cell, done = np.arange(len(points)), np.zeros(len(points), dtype=np.int64), 0
    else:
        cell, done = begun
        order = np.argsort(cell, kind="stable")
        cell = cell[order]
    for _ in range(depth - done):
        start = np.searchsorted(cell, np.arange(cell[-1] + 1))
        ordered = points[order]
        low, high = np.minimum.reduceat(ordered, start), np.maximum.reduceat(ordered, start)
        widest = (high - low).argmax(1)[:, None]
        low, width = (np.take_along_axis(ends, widest, 1)[:, 0] for ends in (low, high - low))
        place = ordered[np.arange(len(points)), widest[cell, 0]] - low[cell]
        place = place / np.where(width > 0, width, 1)[cell]
        order = order[np.argsort(cell + place / 2, kind="stable")]  # one sort: cells stay where they are
        size = np.diff(start, append=len(points))
        cell = 2 * cell + (np.arange(len(points)) - start[cell] >= size[cell] // 2)
    found = np.empty_like(cell)
    found[order] = cell
    return found


class Halving:
    """The cells of points (n, d), halved on demand."""

    def __init__(self, points: np.ndarray) -> None:
        self.points, self._cell, self._depth = points, np.zeros(len(points), dtype=np.int64), 0

    def cells(self, depth: int) -> np.ndarray:
        """:func:`split`."""
        if depth > self._depth:
            self._cell, self._depth = split(self.points, depth, (self._cell, self._depth)), depth
        return self._cell >> (self._depth - depth)


@dataclass(frozen=True, eq=False)
class Tree:
    """Points in the order of their cells, and balls around the cells, from the largest to the smallest.

    Attributes:
        order: The points in the order of their cells, shape (n,).
        starts: For each level, where its cells begin, and n: shape (cells + 1,).
        centres: For each level, the centres of the cells, shape (cells, d).
        radii: For each level, the largest distance of a cell's points from its centre, shape (cells,).
    """

    order: Tensor
    starts: tuple[list[int], ...]
    centres: tuple[Tensor, ...]
    radii: tuple[Tensor, ...]

    @staticmethod
    def of(points: Tensor, halving: Halving | None = None) -> Tree:
        """The tree of points (n, d), float64, on the CPU, from cells that may have been found already."""
        n = len(points)
        depth = max(0, round(math.log2(n / LEAF)))
        cell = (Halving(points.numpy()) if halving is None else halving).cells(depth)
        order = np.argsort(cell, kind="stable")
        ordered, cell = points.numpy()[order], cell[order]
        starts, centres, radii = [], [], []
        for shift in reversed(range(0, min(depth, int(math.log2(ROOT / LEAF))) + 1, BRANCHES)):
            coarser = cell >> shift
            start = np.searchsorted(coarser, np.arange(coarser[-1] + 1))
            centre = (np.minimum.reduceat(ordered, start) + np.maximum.reduceat(ordered, start)) / 2
            radius = np.maximum.reduceat(np.linalg.norm(ordered - centre[coarser], axis=1), start)
            starts.append([*start.tolist(), n])
            centres.append(torch.from_numpy(centre))
            radii.append(torch.from_numpy(radius))
        return Tree(torch.from_numpy(order), tuple(starts), tuple(centres), tuple(radii))
