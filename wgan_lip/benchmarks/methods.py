"""The critics that the suites train, and the variants that were tried before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from wgan_lip.critics import (
    ClippedCritic,
    Critic,
    FixedWidthCritic,
    GroupSortCritic,
    MeanCritic,
    PenalizedCritic,
    ResNetCritic,
    SortingCritic,
    SpectralNormCritic,
)
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers import GradientFlow, GroupSort, Linear, LipschitzLayer, Solver
from wgan_lip.lipschitz.optimizers import LEARNING_RATE, Muon, parameter_groups
from wgan_lip.transport import solve

__all__ = ["COMPARED", "METHODS", "SOLVERS", "Method", "interleaved", "mean_of"]

SOLVERS: dict[str, Solver | None] = {"samples": None, "transport": lambda x, y: solve(x, y).potential}


@dataclass(frozen=True)
class Method:
    """A critic and how it is trained.

    Attributes:
        critic: Called with the dimension and `arguments`.
        arguments: Keyword arguments.
        learning_rate: The c of :func:`wgan_lip.parameter_groups`, at the start.
        betas: Of the optimiser; of one without, such as SGD, the first is its momentum.
        optimizer: A class of `torch.optim` by name, or `Muon`: then :class:`wgan_lip.lipschitz.optimizers.Muon`.
        schedule: A key of :data:`wgan_lip.training.SCHEDULES`, over the time given.
        starts: How a :class:`~wgan_lip.critics.Critic` starts at samples: `samples`, or `transport`, with its cones on
            the potential of an exact plan between some. Where there are several, each trains for a while; where there
            is none, it starts as it was built.
        baseline: Whether others made it, and this package only trains it for comparison.
    """

    critic: Callable[..., nn.Module]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = LEARNING_RATE
    betas: tuple[float, float] = (0.9, 0.99)
    optimizer: str = "Adam"
    schedule: str = "cosine"
    starts: tuple[str, ...] = ("samples",)
    baseline: bool = False

    def settings(self) -> dict[str, Any]:
        """All that its result depends on, as JSON holds it."""
        return {
            "critic": self.critic.__qualname__,
            "arguments": dict(self.arguments),
            "learning_rate": self.learning_rate,
            "betas": list(self.betas),
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "starts": list(self.starts),
        }

    def new_optimizer(self, critic: nn.Module) -> torch.optim.Optimizer:
        """Over the critic's parameters, at the first learning rates."""
        moments = {"momentum": self.betas[0]} if self.optimizer in ("SGD", "RMSprop") else {"betas": self.betas}
        kind = Muon if self.optimizer == "Muon" else getattr(torch.optim, self.optimizer)
        return kind(parameter_groups(critic, self.learning_rate), **moments)


def interleaved(dim: int, *, between: str, width: int = 128, depth: int = 4) -> Critic:
    """Residual layers with a semi-orthogonal affine map (`affine`) or a sort of the whole state (`sort`) after each."""
    state = Norm.euclidean(width)
    layers: OrderedDict[str, LipschitzLayer] = OrderedDict(lift=Linear(Norm.euclidean(dim), state))
    for index in range(1, depth + 1):
        layers[f"block_{index}"] = GradientFlow(width, width // 2)
        layers[f"{between}_{index}"] = Linear(state, state) if between == "affine" else GroupSort(width, width, state)
    layers["readout"] = Linear(state, Norm((1,)))
    return Critic(dim, layers)


def mean_of(dim: int, *, members: int = 2, **arguments: Any) -> MeanCritic:
    """The mean of so many sorting critics."""
    return MeanCritic(SortingCritic(dim, **arguments), members=members)


_CONES = Method(
    ResNetCritic,
    {"depth": 0, "readout": "cones", "centers": 1024},
    learning_rate=0.2,
    starts=("transport", "samples"),
)
_LINEAR = Method(ResNetCritic, {"width": 128, "depth": 6})
_SMALL = Method(SortingCritic, {"width": 64, "depth": 3, "group": 16}, optimizer="Muon")


def _turned(method: Method, *, changes: Mapping[str, Any] | None = None, **arguments: Any) -> Method:
    """The method with other `arguments` of its critic, and other `changes` of its training."""
    return replace(method, arguments={**method.arguments, **arguments}, **(changes or {}))


# What the suites compare by default. Nothing here depends on the pair that a critic is trained on.
COMPARED: dict[str, Method] = {
    "cones": _CONES,
    "residual_cones": _turned(_CONES, depth=2),
    "linear": _LINEAR,
    "fixed_width": Method(FixedWidthCritic),
    "full_sort": Method(SortingCritic, {"width": 128, "depth": 3, "group": 128}),
    "clipped": Method(ClippedCritic, baseline=True),
    "gradient_penalty": Method(PenalizedCritic, betas=(0.0, 0.9), baseline=True),
    "one_sided_penalty": Method(PenalizedCritic, {"one_sided": True}, betas=(0.0, 0.9), baseline=True),
    "spectral_norm": Method(SpectralNormCritic, baseline=True),
    "groupsort": Method(GroupSortCritic, baseline=True),
}

# What else was tried, one choice turned at a time. They run where they are named.
_VARIANTS: dict[str, Method] = {
    "cones_transport": _turned(_CONES, changes={"starts": ("transport",)}),
    "cones_samples": _turned(_CONES, changes={"starts": ("samples",)}),
    "cones_unstarted": _turned(_CONES, changes={"starts": ()}),
    "cones_128": _turned(_CONES, centers=128),
    "cones_512": _turned(_CONES, centers=512),
    "cones_2048": _turned(_CONES, centers=2048),
    "cones_slow": _turned(_CONES, changes={"learning_rate": 0.04}),
    "cones_fast": _turned(_CONES, changes={"learning_rate": 0.8}),
    "cones_adam999": _turned(_CONES, changes={"betas": (0.9, 0.999)}),
    "cones_rmsprop": _turned(_CONES, changes={"optimizer": "RMSprop", "learning_rate": 0.04}),
    "cones_sgd": _turned(_CONES, changes={"optimizer": "SGD", "learning_rate": 40.0}),
    "cones_linear_schedule": _turned(_CONES, changes={"schedule": "linear"}),
    "cones_constant": _turned(_CONES, changes={"schedule": "constant"}),
    "linear_unstarted": _turned(_LINEAR, changes={"starts": ()}),
    "linear_shallow": _turned(_LINEAR, depth=2),
    "linear_deep": _turned(_LINEAR, depth=16),
    "linear_narrow": _turned(_LINEAR, width=64),
    "linear_wide": _turned(_LINEAR, width=256),
    "linear_slow": _turned(_LINEAR, changes={"learning_rate": 0.02}),
    "spline": _turned(_LINEAR, depth=4, activation="spline"),
    "leaky": _turned(_LINEAR, activation="leaky_relu"),
    "hardtanh": _turned(_LINEAR, activation="hardtanh"),
    "pairs": Method(SortingCritic, {"width": 128, "depth": 4, "group": 2}),
    "sorting_small": _SMALL,
    "sorting_mean": _turned(_SMALL, changes={"critic": mean_of}, members=2),
    "sorting_mean_4": _turned(_SMALL, changes={"critic": mean_of}, members=4, width=32),
    "residual_sorts": Method(interleaved, {"between": "sort"}),
    "residual_affine": Method(interleaved, {"between": "affine"}),
}

METHODS: dict[str, Method] = {**COMPARED, **_VARIANTS}
"""By name."""
