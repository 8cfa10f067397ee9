"""The parts of a training run: its checked settings; its data, generator, critic and optimisers, built."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn
from torch.optim import Optimizer

from wgan_lip.cli.schema import checked
from wgan_lip.lipschitz.optimizers import parameter_groups
from wgan_lip.runs.checkpoints import Checkpointing
from wgan_lip.runs.targets import ROLES, build
from wgan_lip.runs.tracking import check_tracking
from wgan_lip.training.scoring import Evaluation
from wgan_lip.training.session import Players
from wgan_lip.training.settings import Training
from wgan_lip.utils.checks import InputError, check_seed, one_line
from wgan_lip.utils.devices import find_device, keep_freed_memory, set_threads

__all__ = ["build_optimizer", "built_players", "resolved"]


def resolved(config: DictConfig) -> dict[str, Any]:
    """The settings of a training run, as plain data. Raises :class:`wgan_lip.InputError`; see :func:`checked`."""
    settings = checked(
        config,
        root={"seed": int, "device": str, "threads": int | None, "trust": list, "tracking": list, "resume": str | None},
        sections={"training": Training, "evaluation": Evaluation, "checkpoint": Checkpointing},
        built=ROLES,
    )
    check_tracking(settings["tracking"])
    return settings


def built_players(settings: Mapping[str, Any]) -> Players:
    """The data, generator, critic and their optimisers."""
    device = find_device(settings["device"])
    set_threads(settings["threads"])
    keep_freed_memory()
    seed, trust = check_seed(settings["seed"]), settings["trust"]
    torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
    source = build("data", settings["data"], trust=trust).to(device)
    Evaluation(**settings["evaluation"]).check(source)
    critic, generator = (
        build(name, settings[name], trust=trust, **source.sizes).to(device) for name in ("critic", "generator")
    )
    return Players(
        source, generator, critic,
        generator_optimizer=build_optimizer("generator", settings, generator),
        critic_optimizer=build_optimizer("critic", settings, critic),
    )  # fmt: skip


def build_optimizer(name: str, settings: Mapping[str, Any], player: nn.Module) -> Optimizer:
    """The optimiser of the critic, over :func:`wgan_lip.parameter_groups` with its `lr` as c, or of the generator."""
    config, role = settings[f"{name}_optimizer"], f"{name}_optimizer"
    for key, value in config.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{role}.{key} must be finite, not {value}.")
    _check_steps(role, config, player, trust=settings["trust"])
    groups = {"lr": config["lr"]} if "lr" in config else {}
    parameters = parameter_groups(player, **groups) if name == "critic" else player.parameters()
    return build(role, config, parameters, trust=settings["trust"])


def _check_steps(role: str, config: Mapping[str, Any], player: nn.Module, *, trust: Collection[str]) -> None:
    """Refuses an optimiser that could not take a step in training, by letting it move a single number."""
    number = nn.Parameter(next(player.parameters()).new_zeros(1, 1))
    number.grad = torch.zeros_like(number)
    optimizer = build(role, config, [{"params": [number], "semi_orthogonal": True}], trust=trust)  # as Muon requires
    try:
        optimizer.step()
    except Exception as error:  # such as one that needs a closure or sparse gradients
        raise InputError(
            f"{role} must take steps with dense gradients and no closure, which {type(optimizer).__name__} cannot "
            f"({one_line(error)}). Choose another, such as optimizer@{role}=adam."
        ) from error
