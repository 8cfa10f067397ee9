"""Gradients of a critic at points."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["gradients"]


def gradients(critic: Callable[[Tensor], Tensor], points: Tensor, *, create_graph: bool = False) -> Tensor:
    """∇f at points of shape (b, d), shape (b, d), for an f that acts on each row separately.

    With `create_graph` they can be differentiated again, as a gradient penalty needs.
    """
    at = points.detach().requires_grad_(True)
    with torch.enable_grad():
        (found,) = torch.autograd.grad(critic(at).sum(), at, create_graph=create_graph)
    return found
