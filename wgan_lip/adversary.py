"""The search for a critic's steepest slope: how tight a certificate is, and whether it is wrong."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from wgan_lip.checks import check_samples

__all__ = ["estimate_lipschitz"]


def estimate_lipschitz(critic: nn.Module, x: Tensor, *, starts: int = 1024, steps: int = 40, seed: int = 0) -> float:
    r"""Searches for the largest gradient norm of `critic`: an estimate from below, which proves nothing from above.

    Multi-start random ascent in float64: from samples, from points between them and from a wide cloud around them,
    each start moves to a random neighbour wherever the gradient norm grows; step lengths shrink over the search.

    Arguments:
        critic: The potential, (b, d) → (b,).
        x: Samples to start from, shape (n, d).
        starts: Number of starts.
        steps: Number of moves a start.
        seed: Seed of the search.

    Returns:
        The largest ‖∇f‖ met, at most the certified L, and at most Lip(f) away from kinks, where autograd picks one of
        several slopes. Beside L it says how tight L is.
    """
    x = check_samples(x, "x").detach().cpu().double()
    critic = copy.deepcopy(critic).cpu().double()
    rng = torch.Generator().manual_seed(seed)
    first, second, third = (x[torch.randint(len(x), (starts,), generator=rng)] for _ in range(3))
    scale = (x - x.mean(0)).norm(dim=1).mean().clamp_min(1e-12)
    noise = torch.randn(starts, x.shape[1], generator=rng, dtype=x.dtype)
    third_of = torch.arange(starts) % 3
    mix = torch.rand(starts, 1, generator=rng, dtype=x.dtype)
    between = first + mix * (second - first)
    cloud = third + scale * noise
    points = torch.where((third_of == 0)[:, None], first, torch.where((third_of == 1)[:, None], between, cloud))

    def gradient_norm(at: Tensor) -> Tensor:
        at = at.detach().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(critic(at).sum(), at)
        return gradient.norm(dim=1)

    best = gradient_norm(points)
    for step in range(steps):
        length = scale * 10.0 ** (-3 * step / steps) / math.sqrt(x.shape[1])
        proposal = points + length * torch.randn(points.shape, generator=rng, dtype=x.dtype)
        found = gradient_norm(proposal)
        better = found > best
        points, best = torch.where(better[:, None], proposal, points), torch.where(better, found, best)
    return float(best.max())
