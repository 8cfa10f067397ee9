"""What a training is made of: its settings, checked; its data, its players and their optimisers, built."""

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
    """The settings of a training, as plain data. Raises :class:`wgan_lip.InputError`; see :func:`checked`."""
    settings = checked(
        config,
        root={"seed": int, "device": str, "threads": int | None, "trust": list, "tracking": list, "resume": str | None},
        sections={"training": Training, "evaluation": Evaluation, "checkpoint": Checkpointing},
        built=ROLES,
    )
    check_tracking(settings["tracking"])
    return settings


def built_players(settings: Mapping[str, Any]) -> Players:
    """The data, the players and their optimisers."""
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
            raise InputError(f"Expected a finite {role}.{key}. Got {value}.")
    _check_steps(role, config, player, trust=settings["trust"])
    groups = {"lr": config["lr"]} if "lr" in config else {}
    parameters = parameter_groups(player, **groups) if name == "critic" else player.parameters()
    return build(role, config, parameters, trust=settings["trust"])


def _check_steps(role: str, config: Mapping[str, Any], player: nn.Module, *, trust: Collection[str]) -> None:
    """Refuses an optimiser that could not take a step in a training: a number that has a gradient is moved by one."""
    number = nn.Parameter(next(player.parameters()).new_zeros(1, 1))
    number.grad = torch.zeros_like(number)
    optimizer = build(role, config, [{"params": [number], "semi_orthogonal": True}], trust=trust)  # which Muon asks for
    try:
        optimizer.step()
    except Exception as error:  # such as for want of a closure, or of sparse gradients
        raise InputError(
            f"Expected {role} to step on dense gradients, without a closure. Got {type(optimizer).__name__}: "
            f"{one_line(error)}. Choose another, such as optimizer@{role}=adam."
        ) from error
