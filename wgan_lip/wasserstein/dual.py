"""The Kantorovich–Rubinstein dual: its value, and a critic step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from wgan_lip.lipschitz.layers import constrain_steps
from wgan_lip.lipschitz.optimizers import LEARNING_RATE, parameter_groups
from wgan_lip.utils.devices import flushed_denormals

__all__ = ["Penalized", "ascend", "fitted", "kr_value"]


@runtime_checkable
class Penalized(Protocol):
    """A critic kept near 1-Lipschitz by a penalty in the objective, not by its layers."""

    def penalty(self, x: Tensor, y: Tensor) -> Tensor:
        """The term to subtract from the dual value at samples x (n, d) and y (m, d): a scalar with gradient."""


def kr_value(critic: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    r"""The KR dual value of `critic`, in one pass over both sample sets.

    .. math:: E_{P_n} f - E_{Q_m} f

    Arguments:
        critic: The potential f, (b, d) → (b,).
        x: Samples of P, shape (n, d).
        y: Samples of Q, shape (m, d).

    Returns:
        A scalar tensor with gradient, in the units of the samples if f is 1-Lipschitz. Positive at a good critic.

    Guarantee:
        None by itself. Divided by a certified Lipschitz constant it is at most W1(P_n, Q_m) up to rounding; see
        :func:`wgan_lip.wasserstein.interval.kr_lower_bound` for the bound that counts the rounding.

    References:
        Optimal transport, old and new (Villani, 2009), Remark 6.5
    """
    values = critic(torch.cat((x, y)))  # (n + m,)
    return values[: len(x)].mean() - values[len(x) :].mean()


@flushed_denormals()
def ascend(
    critic: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, *,
    parts: int = 1, settle: Callable[[nn.Module], None] | None = None,
) -> Tensor:  # fmt: skip
    """Takes one critic step up the KR dual; returns the value before it, detached, on the samples' device.

    A critic that is :class:`Penalized` ascends the value less its penalty.

    Arguments:
        critic: The potential f, (b, d) → (b,).
        optimizer: Optimiser over its parameters.
        x: Samples of P, shape (b, d).
        y: Samples of Q, shape (b, d).
        parts: Equal parts, one after another, from which the gradient is gathered: memory for b/parts samples.
        settle: Called with the critic between gradient and step, for example to clip the gradient.
    """
    optimizer.zero_grad(set_to_none=True)
    values = []
    for some_x, some_y in zip(x.chunk(parts), y.chunk(parts)):
        value = kr_value(critic, some_x, some_y)
        loss = critic.penalty(some_x, some_y) - value if isinstance(critic, Penalized) else -value
        (loss if parts == 1 else loss / parts).backward()
        values.append(value.detach())
    if settle is not None:
        settle(critic)
    optimizer.step()
    return values[0] if parts == 1 else torch.stack(values).mean()


def fitted(
    critic: nn.Module, x: Tensor, y: Tensor, *, steps: int = 300, learning_rate: float = LEARNING_RATE
) -> nn.Module:
    """Returns a copy of `critic` trained on the KR dual of all of x and y; `critic` is unchanged.

    The copy's certified dual value on the same x and y is as valid a lower bound as that of any critic, and closer to
    W1(P_n, Q_m), because the copy was fitted to these samples. It says nothing more about other samples. If training
    lowers the dual value, the copy keeps the weights it started from. For a critic whose constant changes, such as a
    :class:`Penalized` one, compare the certified bounds of the two instead.

    Arguments:
        critic: The potential to start from.
        x: Samples of P, shape (n, d).
        y: Samples of Q, shape (m, d).
        steps: Number of full-batch Adam steps, with learning rates falling to zero along a cosine.
        learning_rate: The initial c of :func:`wgan_lip.parameter_groups`.
    """
    critic = copy.deepcopy(critic).requires_grad_(True)
    parameter = next(critic.parameters())
    x, y = x.to(parameter), y.to(parameter)
    optimizer = torch.optim.Adam(parameter_groups(critic, learning_rate), fused=True)
    constrain_steps(optimizer, critic)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    start = copy.deepcopy(critic)
    for _ in range(steps):
        ascend(critic, optimizer, x, y)
        schedule.step()
    with torch.no_grad():
        return critic if kr_value(critic, x, y) >= kr_value(start, x, y) else start
