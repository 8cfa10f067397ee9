"""When a game ends: its steps, samples, seconds, and audits without a better one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wgan_lip.training.game import Game

__all__ = ["Budget"]


@dataclass(frozen=True)
class Budget:
    """The limits of a game; None for no such limit.

    Attributes:
        steps: Generator steps.
        batch_size: Generated samples a step.
        max_images: Generated samples in all.
        max_seconds: Seconds of the clock in all, those before an interruption included.
        patience: Audits in a row without a better score.
    """

    steps: int
    batch_size: int
    max_images: int | None = None
    max_seconds: float | None = None
    patience: int | None = None

    @property
    def total(self) -> int:
        """The steps that `steps` and `max_images` allow, over which learning rates move."""
        return self.steps if self.max_images is None else min(self.steps, math.ceil(self.max_images / self.batch_size))

    def spent(self, game: Game) -> str | None:
        """Why `game` is over, in words; None while it is not."""
        if game.step >= self.steps:
            return f"all {self.steps} steps are done"
        if game.step >= self.total:
            return f"{self.max_images} images are generated, the most allowed"
        if self.patience is not None and game.stale >= self.patience:
            return f"none of the last {self.patience} audits was better"
        if self.max_seconds is not None and game.seconds >= self.max_seconds:
            return f"{self.max_seconds:g} seconds have passed, the most allowed"
        return None
