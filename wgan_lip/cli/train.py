"""The job behind `wgan-lip train`: starts a run or resumes one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from wgan_lip.cli import screens
from wgan_lip.cli.overrides import spelt
from wgan_lip.cli.players import built_players, resolved
from wgan_lip.runs.checkpoints import Checkpointing
from wgan_lip.runs.resuming import find_run
from wgan_lip.training.scoring import Evaluation
from wgan_lip.training.session import Session
from wgan_lip.training.settings import Training
from wgan_lip.utils.devices import rank
from wgan_lip.utils.terminal import say, shown

__all__ = ["train"]


def train(config: DictConfig, given: Sequence[str] = ()) -> float | None:
    """Trains a generator against a certified critic in Hydra's output folder, or resumes a run in its folder.

    Arguments:
        config: The settings.
        given: Overrides of the command line that are already in `config` and unknown to Hydra.

    Returns:
        The excess over the floor; None on ranks other than 0.
    """
    hydra = HydraConfig.get()
    directory = Path(hydra.runtime.output_dir)
    try:
        settings = resolved(config)
        resume, sweep = settings.pop("resume"), hydra.mode == RunMode.MULTIRUN
        overrides = [*(item for item in hydra.overrides.task if not item.startswith("resume=")), *given]
        run = Session(
            directory=directory,
            config=settings,
            build=lambda: built_players(settings),
            past=lambda: find_run(directory, settings, resume, sweep=sweep),
            training=Training(**settings["training"]),
            evaluation=Evaluation(**settings["evaluation"]),
            checkpoint=Checkpointing(**settings["checkpoint"]),
            seed=settings["seed"],
            overrides=overrides,
            command=" ".join(["wgan-lip train", *overrides]),
            way_back=lambda directory: f"wgan-lip train {spelt('resume', shown(directory))}",
            tracking=settings["tracking"],
            told=lambda run: say(screens.finished(run)),
        ).run()
    finally:
        with suppress(OSError):  # removes the folder that Hydra made, if nothing was written to it
            directory.rmdir()
    return run.summary["score"].get("excess") if rank() == 0 and run.summary else None
