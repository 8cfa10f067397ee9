"""The guard against divergence: values that are not finite, or far from those at the start."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgan_lip.training.game import DivergedError, Game, NonFiniteError

__all__ = ["Guard", "table_of_values"]

CALMING = 0.5  # factor of the learning rates at a rollback


def table_of_values(game: Game) -> Tensor:
    """Dual value and generator's loss of every step since the last record, shape (steps, 2), on the CPU."""
    return torch.stack(game.values).cpu() if game.values else torch.empty(0, 2)


class Guard:
    """Detects divergence, and puts training back to its last good state a limited number of times.

    Arguments:
        game: The training state, which is good.
        divergence: How many times the mean dual value of the first record a later one may be; None for no limit.
        max_rollbacks: How often training is put back, in total, before it stops.
    """

    def __init__(self, game: Game, *, divergence: float | None, max_rollbacks: int) -> None:
        self.game, self.divergence, self.max_rollbacks = game, divergence, max_rollbacks
        self.last_good = game.snapshot()

    def approve(self) -> None:
        """Remembers the current state as good."""
        self.last_good = self.game.snapshot()

    def recover(self, table: Tensor, *, logged: bool) -> str | None:
        """Puts training back if it diverged, and says so in words; returns None if it did not.

        The draws continue instead of being repeated, and both learning rates are halved.

        Arguments:
            table: See :func:`table_of_values`.
            logged: Whether this is a record with figures: only these are compared with the first one.

        Raises:
            DivergedError: There were already `max_rollbacks`; the state is the last good one. A
                :class:`NonFiniteError` if values are not finite.
        """
        kind, problem = DivergedError, self._far(table) if logged else None
        if (not_finite := _not_finite(self.game, table)) is not None:
            kind, problem = NonFiniteError, not_finite
        if problem is None:
            return None
        if self.game.rollbacks >= self.max_rollbacks:
            self.game.load_state_dict(self.last_good)
            after = f" after {self.max_rollbacks} rollbacks" if self.max_rollbacks else ""
            raise kind(
                f"Training diverged{after}: {problem}. The last good state, after step {self.game.step}, was kept. "
                "Lower the learning rates, check the data, or raise `max_rollbacks`.",
                self.game,
            )
        _roll_back(self.game, self.last_good)
        return (
            f"{problem}: back to step {self.game.step} with learning rates halved, rollback {self.game.rollbacks} of "
            f"{self.max_rollbacks}"
        )

    def _far(self, table: Tensor) -> str | None:
        if self.divergence is None:
            return None
        value = abs(float(table[:, 0].mean()))
        if self.game.first_value is None:
            self.game.first_value = value
        if not value > self.divergence * self.game.first_value:
            return None
        return (
            f"a mean dual value of {value:.3g} up to step {self.game.step}, more than "
            f"`divergence` = {self.divergence:g} times the first, {self.game.first_value:.3g}"
        )


def _not_finite(game: Game, table: Tensor) -> str | None:
    bad = (~torch.isfinite(table)).nonzero()
    culprits = [f"parameter {name}" for name in _non_finite_parameters(game)]
    if not len(bad) and not culprits:
        return None
    first = game.step - len(table) + 1
    step, column = (first + int(bad[0, 0]), int(bad[0, 1])) if len(bad) else (game.step, -1)
    what = ["the critic's dual value", "the generator's loss", "a parameter"][column]
    named = f"; no longer finite: {', '.join(culprits[:4])}" if culprits else ""
    return f"NaN or infinity in {what} at step {step}{named}"


def _non_finite_parameters(game: Game) -> list[str]:
    named = [(f"{owner}.{name}", parameter) for owner in ("generator", "critic")
             for name, parameter in getattr(game, owner).named_parameters()]  # fmt: skip
    sizes = torch.stack(torch._foreach_norm([parameter.detach() for _, parameter in named])).cpu()
    return [name for (name, _), size in zip(named, sizes.tolist()) if not math.isfinite(size)]


def _roll_back(game: Game, good: Mapping[str, Any]) -> None:
    rollbacks, seconds = game.rollbacks + 1, game.seconds
    game.load_state_dict(copy.deepcopy(dict(good)), randomness=False)
    game.rollbacks, game.seconds = rollbacks, seconds
    factor = CALMING ** (rollbacks - good["rollbacks"])
    for scheduler in (game.generator_scheduler, game.critic_scheduler):
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
        for group in scheduler.optimizer.param_groups:
            group["lr"] *= factor
