"""The moves of the game: samples, a descent of the generator, its average, the learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from wgan_lip.data import Source

__all__ = ["SCHEDULES", "average", "descend", "draw", "scheduler"]

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "linear_to_tenth": lambda progress: 1.0 - 0.9 * progress,
    "late_linear": lambda progress: min(1.0, 2.0 - 2.0 * progress),
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}
"""Share of the run done → factor of the learning rate; `late_linear` holds it for the first half of the run."""


def scheduler(optimizer: torch.optim.Optimizer, schedule: str, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The scheduler that follows `schedule`, a key of :data:`SCHEDULES`, over `steps` steps."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, SCHEDULES[schedule](step / steps)))


def draw(source: Source, size: int, rng: torch.Generator, device: torch.device) -> Tensor:
    """Training samples (size, d) on `device`; through pinned memory where they come from the CPU to a GPU."""
    x = source.sample(size, rng)
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


def descend(generator: nn.Module, critic: nn.Module, optimizer: torch.optim.Optimizer, latents: Tensor) -> Tensor:
    """One descent of the generator on −E f(G(z)); the critic takes no gradient. Returns the loss, detached."""
    critic.requires_grad_(False)
    optimizer.zero_grad(set_to_none=True)
    loss = -critic(generator(latents)).mean()
    loss.backward()
    optimizer.step()
    critic.requires_grad_(True)
    return loss.detach()


@torch.no_grad()
def average(ema: nn.Module, generator: nn.Module, weight: float) -> None:
    """Moves the average by `weight` towards the generator; buffers are copied."""
    torch._foreach_lerp_(list(ema.parameters()), list(generator.parameters()), weight)
    for averaged, current in zip(ema.buffers(), generator.buffers()):
        averaged.copy_(current)
