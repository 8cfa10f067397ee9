"""The parts of a training step: samples, the generator's step, its average, the learning rates."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from wgan_lip.data import Source
from wgan_lip.lipschitz.layers import Retraction
from wgan_lip.training.ranks import Ranks
from wgan_lip.utils.devices import flushed_denormals

__all__ = [
    "PRECISIONS",
    "SCHEDULES",
    "average",
    "compiled",
    "descend",
    "draw",
    "playing",
    "scheduler",
    "settler",
]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Name → inner arithmetic of the generator in training."""

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "linear_to_tenth": lambda progress: 1.0 - 0.9 * progress,
    "late_linear": lambda progress: min(1.0, 2.0 - 2.0 * progress),
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}
"""Share of the run done → factor of the learning rate; `late_linear` keeps it at 1 for the first half of the run."""


def scheduler(optimizer: torch.optim.Optimizer, schedule: str, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The scheduler that follows `schedule`, a key of :data:`SCHEDULES`, over `steps` steps."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, SCHEDULES[schedule](step / steps)))


def draw(source: Source, size: int, rng: torch.Generator, device: torch.device) -> Tensor:
    """Training samples (size, d) on `device`; through pinned memory from the CPU to a GPU."""
    x = source.sample(size, rng)
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


def playing(module: nn.Module, precision: str) -> Callable[[Tensor], Tensor]:
    """The function that evaluates the generator in training, with its inner arithmetic in `precision`.

    Its output has the precision of its input. Parameters and their gradients stay as they are.
    """
    if precision == "float32":
        return module

    def rounded(latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, PRECISIONS[precision]):
            return module(latents).to(latents.dtype)

    return rounded


def compiled(module: nn.Module) -> nn.Module:
    """The module compiled by `torch.compile`, with the same parameters."""
    made = torch.compile(module)
    assert isinstance(made, nn.Module)  # torch annotates a function
    # While it traces, the compiler reads the gradient of samples that are not leaves, and warns about that.
    warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor that is not a leaf", module=r"torch\._dynamo")
    return made


def settler(clip: float | None, ranks: Ranks) -> Callable[[nn.Module], None]:
    """The function called between a gradient and its step: averages it over the ranks and clips it to norm `clip`.

    The norm is that of the gradient without the part that retraction undoes, which the step drops.
    """

    retraction: Retraction | None = None

    def settle(player: nn.Module) -> None:
        nonlocal retraction
        ranks.average([parameter.grad for parameter in player.parameters() if parameter.grad is not None])
        if clip is not None:
            if retraction is None or retraction.module is not player:
                retraction = Retraction(player)
            retraction.project()
            nn.utils.clip_grad_norm_(player.parameters(), clip)

    return settle


@flushed_denormals()
def descend(
    generator: nn.Module,
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    latents: Tensor,
    *,
    play: Callable[[Tensor], Tensor] | None = None,
    value: Callable[[Tensor], Tensor] | None = None,
    parts: int = 1,
    settle: Callable[[nn.Module], None] | None = None,
) -> Tensor:
    """One step of the generator on −E f(G(z)), without gradients of the critic. Returns the loss, detached.

    Arguments:
        generator: The generator, which takes the step.
        critic: The critic.
        optimizer: Built on the generator's parameters.
        latents: z, shape (b, k).
        play: Evaluates the generator; see :func:`playing`.
        value: Evaluates the critic.
        parts: Equal parts of the batch over which the gradient is accumulated: memory for b/parts samples.
        settle: Called with the generator between gradient and step.
    """
    play, value = generator if play is None else play, critic if value is None else value
    critic.requires_grad_(False)
    optimizer.zero_grad(set_to_none=True)
    losses = []
    for some in latents.chunk(parts):
        loss = -value(play(some)).mean()
        (loss if parts == 1 else loss / parts).backward()
        losses.append(loss.detach())
    if settle is not None:
        settle(generator)
    optimizer.step()
    critic.requires_grad_(True)
    return losses[0] if parts == 1 else torch.stack(losses).mean()


@flushed_denormals()
@torch.no_grad()
def average(ema: nn.Module, generator: nn.Module, weight: float) -> None:
    """Moves the average by `weight` towards the generator; buffers are copied."""
    torch._foreach_lerp_(list(ema.parameters()), list(generator.parameters()), weight)
    for averaged, current in zip(ema.buffers(), generator.buffers()):
        averaged.copy_(current)
