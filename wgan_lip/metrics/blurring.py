"""Blur, the damage that distances forgive most easily."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["blurred"]


def blurred(samples: Tensor, image_shape: tuple[int, int, int], sigma: float) -> Tensor:
    """Images under a Gaussian filter, in the same shape; columns after the pixels stay unchanged.

    Arguments:
        samples: Images, shape (n, c·h·w) or wider.
        image_shape: (c, h, w).
        sigma: Standard deviation of the filter, in pixels; it is cut off at 3 sigma, and edges are continued.
    """
    pixels = math.prod(image_shape)
    images = samples[:, :pixels].unflatten(1, image_shape)
    reach = max(1, math.ceil(3 * sigma))
    weights = torch.exp(-(torch.arange(-reach, reach + 1).to(images) ** 2) / (2 * sigma**2))
    weights = (weights / weights.sum()).expand(image_shape[0], 1, 1, -1)
    rows = F.conv2d(F.pad(images, (reach, reach, 0, 0), mode="replicate"), weights, groups=image_shape[0])
    columns = F.pad(rows, (0, 0, reach, reach), mode="replicate")
    both = F.conv2d(columns, weights.transpose(2, 3), groups=image_shape[0])
    return torch.cat([both.flatten(1), samples[:, pixels:]], dim=1)
