"""Samples and critics as arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from wgan_lip.utils.checks import InputError, check_weights
from wgan_lip.utils.slopes import gradients

Samples = Tensor | ArrayLike

MAX_POINTS = 2000  # of each cloud; more would hide the critic


def as_numpy(samples: Samples) -> np.ndarray:
    return np.asarray(samples.detach().cpu() if isinstance(samples, Tensor) else samples, dtype=np.float64)


def finite_points(samples: Samples, dim: int) -> np.ndarray:
    """The finite ones of the first points, shape (n, dim)."""
    points = as_numpy(samples)
    if points.ndim != 2 or points.shape[1] != dim:
        raise InputError(f"Expected points of shape (n, {dim}). Got shape {points.shape}. Check the data's dimension.")
    points = points[:MAX_POINTS]
    return points[np.isfinite(points).all(1)]


def like_of(critic: Callable[[Tensor], Tensor], samples: Samples) -> Tensor:
    """A tensor of the dtype and on the device that the critic takes."""
    like = next(critic.parameters(), None) if isinstance(critic, nn.Module) else None
    if like is not None:
        return like
    if isinstance(samples, Tensor) and samples.is_floating_point():
        return samples
    return torch.empty(0, dtype=torch.float64)


def values_at(critic: Callable[[Tensor], Tensor], points: np.ndarray, like: Tensor) -> np.ndarray:
    """The critic at points of shape (k, d), shape (k,)."""
    with torch.no_grad():
        values = critic(torch.as_tensor(points, dtype=like.dtype, device=like.device))
    return values.double().cpu().numpy().reshape(len(points))


def gradients_at(critic: Callable[[Tensor], Tensor], points: np.ndarray, like: Tensor) -> np.ndarray:
    """The critic's gradients at points of shape (k, d), shape (k, d); infinities and NaN as zero."""
    found = gradients(critic, torch.as_tensor(points, dtype=like.dtype, device=like.device))
    return np.nan_to_num(found.double().cpu().numpy(), posinf=0.0, neginf=0.0)


def gradient_norms(critic: Callable[[Tensor], Tensor], points: Samples) -> np.ndarray:
    """Norms of the critic's gradient at points of shape (k, d), shape (k,)."""
    return np.linalg.norm(gradients_at(critic, as_numpy(points), like_of(critic, points)), axis=1)


def drawn_plan(rows: ArrayLike, columns: ArrayLike, mass: ArrayLike, lines: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the two ends of at most `lines` entries of a plan, drawn in proportion to their masses."""
    rows, columns = np.asarray(rows), np.asarray(columns)
    mass = check_weights(mass, np.size(rows), "plan_mass")
    if rows.shape != mass.shape or columns.shape != mass.shape:
        raise InputError(f"Expected plan_rows and plan_columns of one shape (k,). Got {rows.shape}, {columns.shape}.")
    count = min(lines, int(np.count_nonzero(mass)))
    drawn = np.random.default_rng(0).choice(len(mass), count, replace=False, p=mass / mass.sum())
    return rows[drawn], columns[drawn]
