r"""Shared by the bounds on transport: points in a common unit, weights, means, and the rounding of each.

Note [Rounding]
~~~~~~~~~~~~~~~
With u = 2^-53, a distance computed from differences has the relative error (d/2 + 2) u to first order, in whichever
order its d squares are added: u for a difference, doubled by the square, u for the square, (d - 1) u for the sum, all
halved by the root, and u for the root itself. The bounds use r = (d/2 + 4) u. The expansion |x|^2 + |y|^2 - 2 x.y has
no such bound and is never used; data are never centred, which would round them.

Squares overflow above 1e154 and vanish below 1e-162. Samples are therefore measured in a power of two near their
spread (`unit_of`). The division is exact except for numbers that are tiny compared with the spread: the loss there, and
in squares that underflow or are flushed to zero, stays below sqrt(d) 2^-500 units for a distance (`vanishing`).

Sums are taken by `math.fsum`, which rounds once, and the remaining error is added outward.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip.utils.checks import InputError, check_pair, check_samples

U = 2.0**-53  # rounding to nearest: fl(t) = t (1 + e), |e| <= U
SMALLEST = 2.0**-1070  # more than one operation loses by underflow
LARGEST = 1e280  # coordinates beyond it are refused, so that no bound overflows
CACHED = 2**15  # entries of a block that stays in the processor's cache
CHUNK = 2**22  # entries of one block of distances: 32 MiB
GPU_CHUNK = 2**27  # the same on a GPU, where a block is to take longer than its launches: 1 GiB


def block_entries(device: torch.device) -> int:
    """Entries of one block of distances on a device."""
    return CHUNK if device.type == "cpu" else GPU_CHUNK


def as_points(x: Tensor | ArrayLike, y: Tensor | ArrayLike) -> tuple[Tensor, Tensor]:
    x, y = check_pair(x, y)
    return x.detach().cpu().double(), y.detach().cpu().double()


def as_values(values: Tensor | ArrayLike, name: str) -> Tensor:
    values = values if isinstance(values, Tensor) else np.asarray(values)
    if values.ndim != 1:
        raise InputError(f"{name} must have shape (n,), one value for each sample, not {tuple(values.shape)}.")
    return check_samples(values[:, None], name)[:, 0].detach().double()


def unit_of(x: Tensor, y: Tensor) -> float:
    """A power of two near the largest side of the common bounding box of x and y; see Note [Rounding]."""
    low, high = torch.minimum(x.amin(0), y.amin(0)), torch.maximum(x.amax(0), y.amax(0))
    largest = max(float(high.max()), -float(low.min()))
    if largest > LARGEST:
        raise InputError(f"Coordinates must be at most {LARGEST:g} in absolute value, not {largest:g}. Rescale them.")
    spread = float((high - low).max())
    exponent = math.frexp(spread)[1] if spread else -1000
    exponent = max(exponent, math.frexp(largest)[1] - 1000, -1000)  # neither 1/unit nor largest/unit overflows
    return math.ldexp(1.0, exponent)


def distance_error(d: int) -> float:
    """The relative error r of a Euclidean distance computed from differences; see Note [Rounding]."""
    return (d / 2 + 4) * U


def vanishing(d: int) -> float:
    """The absolute error of such a distance by underflow, in units; see Note [Rounding]."""
    return math.sqrt(d) * 2.0**-500


def normalised(weights: np.ndarray) -> np.ndarray:
    """The weights times the power of two that brings the largest into [1/2, 1): no sum or product overflows."""
    return np.ldexp(weights, -int(np.frexp(weights.max())[1]))


def weighted_mean(values: np.ndarray, weights: np.ndarray | None) -> float:
    if weights is None:
        return math.fsum(values.tolist()) / len(values)
    return math.fsum((weights * values).tolist()) / math.fsum(weights.tolist())
