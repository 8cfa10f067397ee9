"""What a training is made of: its settings, checked; its data, its players and their optimisers, built."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn
from torch.optim import Optimizer

from wgan_lip.cli.schema import checked
from wgan_lip.data import Source
from wgan_lip.lipschitz.optimizers import parameter_groups
from wgan_lip.runs.checkpoints import check_schedule
from wgan_lip.runs.targets import ROLES, build
from wgan_lip.training import train_wgan
from wgan_lip.training.scoring import check_scoring, score_run
from wgan_lip.utils.checks import InputError, check_seed
from wgan_lip.utils.devices import find_device, keep_freed_memory, set_threads

__all__ = ["build_optimizer", "built_players", "resolved"]

NO_SETTINGS = ("source", "critic", "generator", "critic_optimizer", "generator_optimizer", "seed", "state", "pause")
"""What :func:`wgan_lip.train_wgan` takes that no section `training` may hold."""


def resolved(config: DictConfig) -> dict[str, Any]:
    """The settings of a training, as plain data. Raises :class:`wgan_lip.InputError`; see :func:`checked`."""
    settings = checked(
        config,
        root={"seed": int, "device": str, "threads": int | None, "trust": list, "resume": str | None},
        sections={"training": train_wgan, "evaluation": score_run, "checkpoint": check_schedule},
        built=ROLES,
    )
    check_schedule(**settings["checkpoint"])
    if foreign := [name for name in NO_SETTINGS if name in settings["training"]]:
        raise InputError(f"Expected settings of training. Got training.{foreign[0]}. Leave it out.")
    return settings


def built_players(settings: Mapping[str, Any]) -> tuple[Source, dict[str, Any], dict[str, Any]]:
    """The source, the players with their optimisers, and the sizes of the data that they were built for."""
    device = find_device(settings["device"])
    set_threads(settings["threads"])
    keep_freed_memory()
    seed, trust = check_seed(settings["seed"]), settings["trust"]
    torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
    source = build("data", settings["data"], trust=trust).to(device)
    check_scoring(source, **settings["evaluation"])
    sizes = source.sizes
    players = {name: build(name, settings[name], trust=trust, **sizes).to(device) for name in ("critic", "generator")}
    optimizers = {f"{name}_optimizer": build_optimizer(name, settings, player) for name, player in players.items()}
    return source, {**players, **optimizers}, sizes


def build_optimizer(name: str, settings: Mapping[str, Any], player: nn.Module) -> Optimizer:
    """The optimiser of the critic, over :func:`wgan_lip.parameter_groups` with its `lr` as c, or of the generator."""
    config, role = settings[f"{name}_optimizer"], f"{name}_optimizer"
    if not math.isfinite(rate := config.get("lr", 0.0)):
        raise InputError(f"Expected a finite {role}.lr. Got {rate}.")
    groups = {"lr": rate} if "lr" in config else {}
    parameters = parameter_groups(player, **groups) if name == "critic" else player.parameters()
    return build(role, config, parameters, trust=settings["trust"])
