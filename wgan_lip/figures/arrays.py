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

MAX_POINTS = 2000  # most points of each cloud; more would hide the critic


def as_numpy(samples: Samples) -> np.ndarray:
    return np.asarray(samples.detach().cpu() if isinstance(samples, Tensor) else samples, dtype=np.float64)


def finite_points(samples: Samples, dim: int) -> np.ndarray:
    """The finite points among the first ones, shape (n, dim)."""
    points = as_numpy(samples)
    if points.ndim != 2 or points.shape[1] != dim:
        raise InputError(f"points must have shape (n, {dim}), not {points.shape}. Check the dimension of the data.")
    points = points[:MAX_POINTS]
    return points[np.isfinite(points).all(1)]


def like_of(critic: Callable[[Tensor], Tensor], samples: Samples) -> Tensor:
    """A tensor with the dtype and device that the critic takes."""
    like = next(critic.parameters(), None) if isinstance(critic, nn.Module) else None
    if like is not None:
        return like
    if isinstance(samples, Tensor) and samples.is_floating_point():
        return samples
    return torch.empty(0, dtype=torch.float64)


def values_at(critic: Callable[[Tensor], Tensor], points: np.ndarray, like: Tensor) -> np.ndarray:
    """The critic's values at points of shape (k, d), shape (k,)."""
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
    """Indices of both ends of at most `lines` entries of a plan, drawn in proportion to their masses."""
    rows, columns = np.asarray(rows), np.asarray(columns)
    mass = check_weights(mass, np.size(rows), "plan_mass")
    if rows.shape != mass.shape or columns.shape != mass.shape:
        raise InputError(
            f"plan_rows, plan_columns and plan_mass must have one shape (k,), not {rows.shape}, {columns.shape} and "
            f"{mass.shape}."
        )
    count = min(lines, int(np.count_nonzero(mass)))
    drawn = np.random.default_rng(0).choice(len(mass), count, replace=False, p=mass / mass.sum())
    return rows[drawn], columns[drawn]
