"""Whether a critic keeps up with its generator: its held-out value beside that of a copy refitted to the generator."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip.lipschitz.layers import constrain_steps
from wgan_lip.lipschitz.optimizers import LEARNING_RATE, parameter_groups
from wgan_lip.wasserstein.dual import ascend

__all__ = ["HeldOut", "held_out_value", "keeps_up", "refitted"]


@dataclass(frozen=True)
class HeldOut:
    """Two critics on samples that neither was fitted to; see :func:`keeps_up`.

    Attributes:
        trained: Mean of the trained critic on held-out real samples minus its mean on generated ones.
        trained_error: Its standard error.
        refitted: The same for the refitted copy.
        refitted_error: Its standard error.
        n: Number of real samples; there are as many generated ones.
    """

    trained: float
    trained_error: float
    refitted: float
    refitted_error: float
    n: int


@torch.no_grad()
def held_out_value(critic: nn.Module, real: Tensor, generated: Tensor) -> tuple[float, float]:
    """Mean of a critic on real minus its mean on generated samples, in its precision, and the standard error.

    An unbiased estimate of E f(x) − E f(G(z)) for samples the critic has not seen: on average at most W1 of the two
    laws if the critic is 1-Lipschitz.

    Arguments:
        critic: (b, d) → (b,).
        real: Held-out samples, shape (n, d), n at least 2.
        generated: Fresh samples, shape (m, d), m at least 2.
    """
    like = next(critic.parameters())
    values = [critic(samples.to(like)).double() for samples in (real, generated)]
    variance = sum(float(at.var()) / len(at) for at in values)
    return float(values[0].mean() - values[1].mean()), math.sqrt(variance)


def refitted(
    critic: nn.Module, real: Tensor, generated: Tensor, *, steps: int = 100, batch_size: int = 256,
    learning_rate: float = LEARNING_RATE, seed: int = 0,
) -> nn.Module:  # fmt: skip
    """A copy of `critic`, trained further on the dual with batches of the samples; `critic` stays unchanged.

    Arguments:
        critic: The critic to start from.
        real: Samples of the training law, shape (n, d).
        generated: Samples of the current generator, shape (m, d).
        steps: Training steps, by constrained Adam, with a learning rate that falls to zero along a cosine.
        batch_size: Samples of each law per step, at most.
        learning_rate: The initial c of :func:`wgan_lip.parameter_groups`.
        seed: Seed of the batches.
    """
    critic = copy.deepcopy(critic).requires_grad_(True)
    real, generated = (samples.to(next(critic.parameters())) for samples in (real, generated))
    optimizer = torch.optim.Adam(parameter_groups(critic, learning_rate), betas=(0.5, 0.99), fused=True)
    constrain_steps(optimizer, critic)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    rng = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        for _ in range(steps):
            some = (samples[torch.randint(len(samples), (batch_size,), generator=rng)] for samples in (real, generated))
            ascend(critic, optimizer, *some)
            schedule.step()
    return critic.requires_grad_(False)


def keeps_up(critic: nn.Module, fit: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], **options: Any) -> HeldOut:
    """Compares the trained critic and a copy refitted to fresh samples, both on held-out samples.

    Arguments:
        critic: The trained critic.
        fit: Real samples of the training law, and generated ones, for the copy.
        held_out: Real and generated samples that are not among them.
        options: Options of :func:`refitted`.
    """
    trained = held_out_value(critic, *held_out)
    return HeldOut(*trained, *held_out_value(refitted(critic, *fit, **options), *held_out), n=len(held_out[0]))
