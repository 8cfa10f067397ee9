"""What moves while a game is played: a state that goes into a checkpoint and back, and the records of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip.data import Source
from wgan_lip.training.randomness import global_rng_state, set_global_rng_state
from wgan_lip.utils.checks import InputError, one_line
from wgan_lip.wasserstein.interval import InvariantViolation

__all__ = ["DivergedError", "Game", "NonFiniteError", "Record", "RefutedError", "StoppedError"]


class StoppedError(RuntimeError):
    """The game stopped before its end; `game` holds the players as they should be kept."""

    def __init__(self, message: str, game: Game) -> None:
        super().__init__(message)
        self.game = game


class DivergedError(StoppedError):
    """The game went astray. The message names the step and the culprit; `game` is in its last good state."""


class NonFiniteError(DivergedError):
    """A value stopped being finite."""


class RefutedError(StoppedError, InvariantViolation):
    """A certified dual value above the exact W1, at an audit; `game` holds the critic that shows it."""


@dataclass
class Game:
    """The two players and all that moves while they play; what a checkpoint holds.

    Attributes:
        source: Where samples come from. Its position goes along where it keeps one, in `state_dict` and
            `load_state_dict`.
        generator: Latents (b, k) → samples (b, d).
        critic: Samples (b, d) → values (b,).
        ema: Exponential moving average of the generator, the player to sample from.
        generator_optimizer: Minimises over the generator.
        critic_optimizer: Maximises over the critic, which is retracted after every step.
        generator_scheduler: Moves the generator's learning rate.
        critic_scheduler: Moves the critic's.
        latent_rng: Source of latents, on the players' device.
        data_rng: Source of training samples.
        data: What the source says of its data; see :meth:`wgan_lip.data.Source.fingerprint`.
        step: Generator steps done.
        warmed: Dual ascents done before the first generator step.
        seconds: Seconds of the clock, over all the processes that played it.
        best: The best score of an audit so far, the lower the better.
        stale: Audits since then.
        rollbacks: How often the game was put back because it diverged.
        first_value: Mean dual value of the first record, in size; None before it.
        values: Dual value and generator's loss of every step since the last record, shape (2,) each, on the device.
        global_rngs: States of torch's, numpy's and Python's own generators after the last whole step, of every rank.
    """

    source: Source
    generator: nn.Module
    critic: nn.Module
    ema: nn.Module
    generator_optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer
    generator_scheduler: torch.optim.lr_scheduler.LRScheduler
    critic_scheduler: torch.optim.lr_scheduler.LRScheduler
    latent_rng: torch.Generator
    data_rng: torch.Generator
    data: str
    step: int = 0
    warmed: int = 0
    seconds: float = 0.0
    best: float = math.inf
    stale: int = 0
    rollbacks: int = 0
    first_value: float | None = None
    values: list[Tensor] = field(default_factory=list)
    global_rngs: Sequence[Mapping[str, Any]] = field(default_factory=lambda: [global_rng_state()])

    PARTS = ("generator", "critic", "ema", "generator_optimizer", "critic_optimizer",
             "generator_scheduler", "critic_scheduler")  # fmt: skip
    RNGS = ("latent_rng", "data_rng")
    COUNTS = ("step", "warmed", "seconds", "best", "stale", "rollbacks", "first_value")

    def state_dict(self) -> dict[str, Any]:
        """Everything that moves, as tensors and plain values; loads with `torch.load(weights_only=True)`."""
        state: dict[str, Any] = {name: _plain(getattr(self, name).state_dict()) for name in self.PARTS}
        state |= {name: getattr(self, name).get_state() for name in self.RNGS}
        state |= {name: getattr(self, name) for name in self.COUNTS}
        state |= {"values": torch.stack(self.values) if self.values else torch.empty(0, 2)}
        state |= {"data": self.data, "units": self.source.units}
        if hasattr(self.source, "state_dict"):
            state["source"] = self.source.state_dict()
        return {**state, "global_rngs": list(self.global_rngs)}

    def load_state_dict(self, state: Mapping[str, Any], *, randomness: bool = True) -> None:
        """Puts everything back as it was when `state` was taken.

        The process's own generators are set when the game is played on, not here.

        Arguments:
            state: What :meth:`state_dict` gave.
            randomness: Whether the draws of latents and samples go back as well, or go on.

        Raises:
            InputError: It lacks something, or is that of other players or of other data.
        """
        wanted = {*self.PARTS, *self.RNGS, *self.COUNTS, "values", "global_rngs"}
        if not isinstance(state, Mapping) or (missing := sorted(wanted - state.keys())):
            what = type(state).__name__ if not isinstance(state, Mapping) else f"one without {', '.join(missing)}"
            raise InputError(f"Expected the state of a game, from record.game.state_dict(). Got {what}. Train again.")
        wrong = [name for name in self.COUNTS if not isinstance(state[name], int | float | None)]
        wrong += [] if isinstance(state["values"], Tensor) else ["values"]
        wrong += [] if isinstance(state["global_rngs"], Sequence) else ["global_rngs"]
        if wrong:
            raise InputError(f"Expected the state of this game's {wrong[0]}. Got {state[wrong[0]]!r:.60}. Train again.")
        if (begun_with := state.get("data", self.data)) != self.data:  # earlier versions kept none
            raise InputError(
                f"Expected the data that this training began with: {begun_with}. Got {self.data}. "
                "Restore them, or train anew."
            )
        for name in (*self.PARTS, *(self.RNGS if randomness else ())):
            part = getattr(self, name)
            try:
                if isinstance(part, torch.Generator):
                    part.set_state(state[name].cpu())
                else:
                    part.load_state_dict(copy.deepcopy(state[name]))  # an optimiser would write to what it is given
            except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
                raise InputError(
                    f"Expected the state of this game's {name}. Got another: {one_line(error)}. "
                    "Build the players as they were, on the same kind of device."
                ) from None
        if randomness and hasattr(self.source, "load_state_dict"):
            self.source.load_state_dict(state["source"])
        for name in self.COUNTS:
            setattr(self, name, state[name])
        self.global_rngs = state["global_rngs"] if randomness else self.global_rngs
        device = next(self.critic.parameters()).device
        self.values = list(state["values"].to(device).unbind())

    def set_global_rng(self, rank: int) -> None:
        """Sets the process's own generators; a rank that there was none of before keeps its own."""
        if rank < len(self.global_rngs):
            set_global_rng_state(self.global_rngs[rank])

    def improves(self, score: float) -> bool:
        """Takes note of an audit's score; whether it is the best so far. NaN never is."""
        improved = score < self.best
        self.best, self.stale = (score, 0) if improved else (self.best, self.stale + 1)
        return improved

    def snapshot(self) -> dict[str, Any]:
        """A copy of the state that further play does not touch."""
        return copy.deepcopy(self.state_dict())


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """The state of an optimiser or a scheduler with its rates as numbers, wherever captured steps have put them."""
    if "param_groups" in state:
        groups = [
            {**group, "lr": float(group["lr"]), "capturable": False} if isinstance(group.get("lr"), Tensor) else group
            for group in state["param_groups"]
        ]
        return {**state, "param_groups": groups}
    if "_last_lr" in state:
        return {**state, "_last_lr": [float(rate) for rate in state["_last_lr"]]}
    return state


@dataclass(frozen=True)
class Record:
    """What is known after `step` generator steps.

    Attributes:
        step: Generator steps done.
        scalars: Tag → value; see `wgan_lip.runs.tracking` for the tags. Empty at a pause and at a rollback.
        game: The live players, for checkpoints and pictures. It moves on when the iteration does.
        audited: Whether this record holds a bracketing by exact transport.
        improved: Whether the score of that is the best so far.
        note: What a person should know of, such as a rollback.
        ended: Why this record is the last one, in words.
    """

    step: int
    scalars: Mapping[str, float]
    game: Game = field(repr=False, compare=False)
    audited: bool = False
    improved: bool = False
    note: str | None = None
    ended: str | None = None
