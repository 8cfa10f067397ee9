"""The job behind `wgan-lip train`: a new run, or one that goes on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from wgan_lip.cli import screens
from wgan_lip.cli.players import built_players, resolved
from wgan_lip.runs.checkpoints import Checkpoints
from wgan_lip.runs.folder import claimed, create_run, failures_recorded, reopen_run
from wgan_lip.runs.resuming import find_run, is_finished, last_state
from wgan_lip.runs.run import Run
from wgan_lip.training import Ranks, train_wgan
from wgan_lip.training.board import TrainingBoard
from wgan_lip.training.session import conclude, follow, kept, play, word_left
from wgan_lip.training.signals import StopRequests

__all__ = ["train"]


@dataclass(frozen=True)
class Past:
    """Where a run stands before it is played.

    Attributes:
        directory: Its folder; None for a new run.
        finished: Whether nothing is left to play or to score.
        state: The state of its game; None where there is none yet.
        checkpoint: The step of its whole `checkpoint.pt`, if there is one.
    """

    directory: Path | None = None
    finished: bool = False
    state: Mapping[str, Any] | None = None
    checkpoint: int | None = None

    @property
    def first(self) -> int | None:
        """The first step that will be recorded again; None for a new run."""
        return None if self.directory is None else self.state["step"] + 1 if self.state else 0


def train(config: DictConfig) -> float | None:
    """Trains a generator against a certified critic in Hydra's output folder, or goes on with a run in its own.

    Where several processes play, rank 0 has the folder and the last word.

    Returns the score over the floor; None on the other ranks.
    """
    hydra, ranks = HydraConfig.get(), Ranks()
    directory = Path(hydra.runtime.output_dir)
    if ranks.rank:
        _leave(directory)
    with StopRequests() as stop, ExitStack() as held, word_left(ranks):
        try:
            settings = resolved(config)
            resume, sweep = settings.pop("resume"), hydra.mode == RunMode.MULTIRUN
            past = ranks.by_first(lambda: _past(find_run(directory, settings, resume, sweep=sweep), settings, held))
            if past.finished:
                return _nothing_left(past.directory, directory) if ranks.rank == 0 else None
            source, players, sizes = built_players(settings)
            records = train_wgan(
                source, **players, **settings["training"], seed=settings["seed"], state=past.state,
                pause=lambda step: stop.asked is not None or (saver is not None and saver.due(step)),
            )  # fmt: skip
            overrides = [override for override in hydra.overrides.task if not override.startswith("resume=")]
            directory = ranks.by_first(lambda: _opened(directory, past, settings, overrides, held))
        except BaseException:
            _leave(directory)
            raise
        saver = None
        if ranks.rank:
            follow(records, stop, ranks)
            return None
        saver = Checkpoints(directory, sizes, **settings["checkpoint"], step=past.checkpoint)
        with (
            failures_recorded(directory),
            kept(directory, saver),
            TrainingBoard(directory, source, settings, overrides, purge_step=past.first) as board,
        ):
            play(directory, settings, records, saver, stop, ranks, board, first=past.first)
            run = conclude(directory, settings, source, board)
        screens.show(screens.finished(run))
        return run.summary["score"]["ratio"]


def _past(run: Run | None, settings: Mapping[str, Any], held: ExitStack) -> Past:
    if run is None:
        return Past()
    if is_finished(run, settings):
        return Past(run.directory, finished=True)
    held.enter_context(claimed(run.directory))
    state, checkpoint = last_state(run, settings)
    return Past(run.directory, state=state, checkpoint=checkpoint)


def _opened(directory: Path, past: Past, settings: dict, overrides: list[str], held: ExitStack) -> Path:
    """The folder to write to: a new run's, or that of the past one."""
    if past.directory is None:
        create_run(directory, settings, overrides)
        held.enter_context(claimed(directory))
        return directory
    _leave(directory, unless=past.directory)
    reopen_run(past.directory, settings, overrides)
    step = past.state["step"] if past.state else 0
    print(f"wgan-lip: going on with {past.directory} at step {step}", file=sys.stderr)
    return past.directory


def _leave(directory: Path, unless: Path | None = None) -> None:
    """Takes away the folder that Hydra made, where nothing was written to it."""
    if unless is None or directory.resolve() != unless.resolve():
        with suppress(OSError):
            directory.rmdir()


def _nothing_left(finished: Path, directory: Path) -> float:
    _leave(directory, unless=finished)
    run = Run(finished)
    print(f"{finished} is finished, at step {run.status['step']}: nothing is left to train")
    return run.summary["score"]["ratio"]
