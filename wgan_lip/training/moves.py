"""The moves of the game: samples, a descent of the generator, its average, the learning rates."""

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

__all__ = ["PRECISIONS", "SCHEDULES", "average", "compiled", "descend", "draw", "playing", "scheduler",
           "settler"]  # fmt: skip

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Name → inner arithmetic of a generator in the game."""

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


def playing(module: nn.Module, precision: str) -> Callable[[Tensor], Tensor]:
    """How a player is evaluated in the game, its inner arithmetic in `precision`.

    What comes out has the precision of what goes in. Parameters and their gradients stay as they are.
    """
    if precision == "float32":
        return module

    def rounded(latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, PRECISIONS[precision]):
            return module(latents).to(latents.dtype)

    return rounded


def compiled(module: nn.Module) -> nn.Module:
    """The module, of the same parameters, as `torch.compile` runs it."""
    made = torch.compile(module)
    assert isinstance(made, nn.Module)  # torch's annotation speaks of a function
    # While it traces, the compiler looks at the gradient of samples that are no leaf, and warns of that itself.
    warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor that is not a leaf", module=r"torch\._dynamo")
    return made


def settler(clip: float | None, ranks: Ranks) -> Callable[[nn.Module], None]:
    """What happens between a player's gradient and its step: its mean over the ranks, shortened to norm `clip`.

    What counts is the gradient without the part that retraction undoes, which the step itself drops.
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
    """One descent of the generator on −E f(G(z)); the critic takes no gradient. Returns the loss, detached.

    Arguments:
        generator: The player that moves.
        critic: The other one.
        optimizer: Over the generator's parameters.
        latents: z, shape (b, k).
        play: How the generator is evaluated; see :func:`playing`.
        value: How the critic is.
        parts: Equal parts, one after another, from which the gradient is gathered: memory for b/parts samples.
        settle: Called with the generator between its gradient and the step.
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
