"""Clusters of points, their middle and spread, and fast approximate distances for comparing them."""

from __future__ import annotations

import torch
from torch import Tensor

LOOKED_AT = 1024  # points, at least, for a middle and a spread


def k_means(points: Tensor, count: int, rng: torch.Generator | None = None, iterations: int = 10) -> Tensor:
    """Centres, shape (count, d), of clusters of the points, shape (n, d), n ≥ count, by Lloyd's iteration.

    They start at points drawn at random, from torch's global generator by default. Memory n·count. The nearest centre
    is found in single precision, around the points' mean and in units of their extent.
    """
    centers = points[torch.randperm(len(points), generator=rng, device=points.device)[:count]].clone()
    middle = points.mean(dim=0)
    away = points - middle
    extent = away.abs().max().clamp_min(torch.finfo(away.dtype).tiny)
    away = (away / extent).float()
    for _ in range(iterations):
        near = ((centers - middle) / extent).float()
        # ‖p − c‖² without ‖p‖², which is the same for all centres
        nearest = torch.addmm(near.square().sum(dim=1), away, near.T, alpha=-2).argmin(dim=1)
        sums = torch.zeros_like(centers).index_add_(0, nearest, points)
        sizes = torch.bincount(nearest, minlength=count)[:, None]
        centers = torch.where(sizes > 0, sums / sizes.clamp_min(1), centers)
    return centers


def middle_and_spread(points: Tensor) -> tuple[Tensor, float]:
    """The medians of the coordinates, shape (d,), and of the distances from there, in float64, of points (n, d).

    Half of the points may lie anywhere. If more than half of them coincide, the spread is the mean of the distances.
    With many points only every k-th is used, about 2,000 at most.
    """
    points = points[:: max(1, len(points) // LOOKED_AT)].double()
    middle = points.T.contiguous().median(dim=1).values  # several times faster than along columns
    away = points - middle
    unit = away.abs().max().clamp_min(1e-290)  # no square over- or underflows
    lengths = unit * torch.linalg.vector_norm(away / unit, dim=1)
    return middle, float(lengths.median() if lengths.median() > 0 else lengths.mean())


def fast_distances(x: Tensor, centers: Tensor) -> Tensor:
    """Distances (b, k), good enough to compare them: by the expansion of the square."""
    squares = x.square().sum(dim=1, keepdim=True) + centers.square().sum(dim=1)
    return torch.addmm(squares, x, centers.T, alpha=-2).clamp_min_(0).sqrt_()
