"""What a game must not do unnoticed: reach values that are not finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wgan_lip.training.game import Game

__all__ = ["table_of_values", "trouble"]


def table_of_values(game: Game) -> Tensor:
    """Dual value and generator's loss of every step since the last record, shape (steps, 2), on the CPU."""
    return torch.stack(game.values).cpu() if game.values else torch.empty(0, 2)


def trouble(game: Game, table: Tensor) -> str | None:
    """What is not finite in `table`, the values since the last record, or among the parameters; None if all is well."""
    bad = (~torch.isfinite(table)).nonzero()
    culprits = [f"parameter {name}" for name in _non_finite_parameters(game)]
    if not len(bad) and not culprits:
        return None
    first = game.step - len(table) + 1
    step, column = (first + int(bad[0, 0]), int(bad[0, 1])) if len(bad) else (game.step, -1)
    what = ["the critic's dual value", "the generator's loss", "a parameter"][column]
    named = f"; not finite now: {', '.join(culprits[:4])}" if culprits else ""
    return f"NaN or infinity in {what} at step {step}{named}"


def _non_finite_parameters(game: Game) -> list[str]:
    named = [(f"{owner}.{name}", parameter) for owner in ("generator", "critic")
             for name, parameter in getattr(game, owner).named_parameters()]  # fmt: skip
    sizes = torch.stack(torch._foreach_norm([parameter.detach() for _, parameter in named])).cpu()
    return [name for (name, _), size in zip(named, sizes.tolist()) if not math.isfinite(size)]
