"""The state of a training run, which goes into a checkpoint and back, and its records."""

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
    """Training stopped before its end; `game` holds the state to keep."""

    def __init__(self, message: str, game: Game) -> None:
        super().__init__(message)
        self.game = game


class DivergedError(StoppedError):
    """Training diverged. The message names the step and the cause; `game` is in its last good state."""


class NonFiniteError(DivergedError):
    """A value stopped being finite."""


class RefutedError(StoppedError, InvariantViolation):
    """An audit found a certified dual value above the exact W1; `game` holds the critic that shows it."""


@dataclass
class Game:
    """The training state: generator, critic and everything else that changes; the content of a checkpoint.

    Attributes:
        source: Where samples come from. If it keeps a position, with `state_dict` and `load_state_dict`, that is saved.
        generator: Latents (b, k) → samples (b, d).
        critic: Samples (b, d) → values (b,).
        ema: Exponential moving average of the generator, the one to sample from.
        generator_optimizer: Minimises over the generator.
        critic_optimizer: Maximises over the critic, which is retracted after every step.
        generator_scheduler: The generator's learning rate.
        critic_scheduler: The critic's learning rate.
        latent_rng: Generator of the latents, on the device of the networks.
        data_rng: Generator of the training samples.
        data: The fingerprint of the data; see :meth:`wgan_lip.data.Source.fingerprint`.
        step: Generator steps done.
        warmed: Critic steps done before the first generator step.
        seconds: Wall-clock seconds, over all processes that trained it.
        best: The best score of an audit so far; lower is better.
        stale: Audits since then.
        rollbacks: How often training was put back because it diverged.
        first_value: Absolute mean dual value of the first record; None before it.
        values: Dual value and generator loss of every step since the last record, shape (2,) each, on the device.
        global_rngs: States of torch's, NumPy's and Python's global generators after the last full step, for every rank.
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
        """Everything that changes, as tensors and plain values; loads with `torch.load(weights_only=True)`."""
        state: dict[str, Any] = {name: _plain(getattr(self, name).state_dict()) for name in self.PARTS}
        state |= {name: getattr(self, name).get_state() for name in self.RNGS}
        state |= {name: getattr(self, name) for name in self.COUNTS}
        state |= {"values": torch.stack(self.values) if self.values else torch.empty(0, 2)}
        state |= {"data": self.data, "units": self.source.units}
        if hasattr(self.source, "state_dict"):
            state["source"] = self.source.state_dict()
        return {**state, "global_rngs": list(self.global_rngs)}

    def load_state_dict(self, state: Mapping[str, Any], *, randomness: bool = True) -> None:
        """Restores everything to what it was when `state` was taken.

        The global random generators are set when training continues, not here.

        Arguments:
            state: What :meth:`state_dict` returned.
            randomness: Whether the draws of latents and samples are put back as well; otherwise they continue.

        Raises:
            InputError: The state is incomplete, or belongs to other networks or other data.
        """
        wanted = {*self.PARTS, *self.RNGS, *self.COUNTS, "values", "global_rngs"}
        if not isinstance(state, Mapping) or (missing := sorted(wanted - state.keys())):
            if not isinstance(state, Mapping):
                raise InputError(f"state must be what record.game.state_dict() returned, not a {type(state).__name__}.")
            raise InputError(f"The training state is incomplete: {', '.join(missing)} is missing. Train again.")
        wrong = [name for name in self.COUNTS if not isinstance(state[name], int | float | None)]
        wrong += [] if isinstance(state["values"], Tensor) else ["values"]
        wrong += [] if isinstance(state["global_rngs"], Sequence) else ["global_rngs"]
        if wrong:
            raise InputError(f"The training state is damaged: its {wrong[0]} is {state[wrong[0]]!r:.60}. Train again.")
        if (begun_with := state.get("data", self.data)) != self.data:  # earlier versions kept none
            raise InputError(
                f"The data have changed since this training began: they were {begun_with}, and are now {self.data}. "
                "Restore them, or start a new run."
            )
        for name in (*self.PARTS, *(self.RNGS if randomness else ())):
            part = getattr(self, name)
            try:
                if isinstance(part, torch.Generator):
                    part.set_state(state[name].cpu())
                else:
                    part.load_state_dict(copy.deepcopy(state[name]))  # an optimiser would write to its argument
            except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
                raise InputError(
                    f"The saved state does not fit the {name}: {one_line(error)}. "
                    "Build generator, critic and optimisers as they were, on the same kind of device."
                ) from None
        if randomness and hasattr(self.source, "load_state_dict"):
            self.source.load_state_dict(state["source"])
        for name in self.COUNTS:
            setattr(self, name, state[name])
        self.global_rngs = state["global_rngs"] if randomness else self.global_rngs
        device = next(self.critic.parameters()).device
        self.values = list(state["values"].to(device).unbind())

    def set_global_rng(self, rank: int) -> None:
        """Sets the global random generators; a rank that did not exist before keeps its own."""
        if rank < len(self.global_rngs):
            set_global_rng_state(self.global_rngs[rank])

    def improves(self, score: float) -> bool:
        """Records an audit's score; returns whether it is the best so far. NaN never is."""
        improved = score < self.best
        self.best, self.stale = (score, 0) if improved else (self.best, self.stale + 1)
        return improved

    def snapshot(self) -> dict[str, Any]:
        """A copy of the state, which further training does not change."""
        return copy.deepcopy(self.state_dict())


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """The state of an optimiser or a scheduler with its rates as numbers, even if captured steps made them tensors."""
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
    """The record after `step` generator steps.

    Attributes:
        step: Generator steps done.
        scalars: Tag → value; see `wgan_lip.runs.tracking` for the tags. Empty at a pause and at a rollback.
        game: The live training state, for checkpoints and pictures. It changes as the iteration continues.
        audited: Whether this record holds an audit, with an interval by exact transport.
        improved: Whether the audit's score is the best so far.
        note: Something a person should know, such as a rollback.
        ended: Why this record is the last one, in words.
    """

    step: int
    scalars: Mapping[str, float]
    game: Game = field(repr=False, compare=False)
    audited: bool = False
    improved: bool = False
    note: str | None = None
    ended: str | None = None
