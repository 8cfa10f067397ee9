"""The job behind `wgan-lip train`: a new run, or one that goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from wgan_lip.cli import screens
from wgan_lip.cli.overrides import spelt
from wgan_lip.cli.players import built_players, resolved
from wgan_lip.runs.checkpoints import Checkpoints
from wgan_lip.runs.folder import claimed, create_run, failures_recorded, reopen_run
from wgan_lip.runs.resuming import find_run, is_finished, last_state
from wgan_lip.runs.run import Run
from wgan_lip.training import Ranks, StoppedError, train_wgan
from wgan_lip.training.board import TrainingBoard
from wgan_lip.training.session import conclude, follow, kept, play, word_left
from wgan_lip.training.signals import StopRequests
from wgan_lip.utils.terminal import say, warn

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


def train(config: DictConfig, given: Sequence[str] = ()) -> float | None:
    """Trains a generator against a certified critic in Hydra's output folder, or goes on with a run in its own.

    Where several processes play, rank 0 has the folder and the last word.

    Arguments:
        config: The settings.
        given: Overrides of the command line that are in `config` and that Hydra does not know of.

    Returns:
        The excess over the floor; None on the other ranks.
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
            overrides = [*(item for item in hydra.overrides.task if not item.startswith("resume=")), *given]
            directory = ranks.by_first(lambda: _opened(directory, past, settings, overrides, held))
        except BaseException:
            _leave(directory)
            raise
        saver = None
        if ranks.rank:
            follow(directory, records, stop, ranks)
            return None
        saver = Checkpoints(directory, sizes, **settings["checkpoint"], step=past.checkpoint)
        with (
            _way_back_told(directory),
            failures_recorded(directory),
            kept(directory, saver),
            TrainingBoard(directory, source, settings, overrides, purge_step=past.first) as board,
        ):
            play(directory, settings, records, saver, stop, ranks, board, first=past.first)
            run = conclude(directory, settings, source, board)
        say(screens.finished(run))
        return run.summary["score"]["excess"]


@contextmanager
def _way_back_told(directory: Path) -> Iterator[None]:
    """Where a run ends early, and not by itself: says where it is, and how it goes on."""
    try:
        yield
    except StoppedError:
        raise
    except BaseException:
        warn(f"To go on with this run: wgan-lip train {spelt('resume', screens.shown(directory))}")
        raise


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
        held.enter_context(claimed(directory))
        create_run(directory, settings, overrides)
        say(f"training in {screens.shown(directory)}", sys.stderr)
        return directory
    _leave(directory, unless=past.directory)
    reopen_run(past.directory, settings, overrides)
    warn(f"going on with {screens.shown(past.directory)} at step {past.state['step'] if past.state else 0}")
    return past.directory


def _leave(directory: Path, unless: Path | None = None) -> None:
    """Takes away the folder that Hydra made, where nothing was written to it."""
    if unless is None or directory.resolve() != unless.resolve():
        with suppress(OSError):
            directory.rmdir()


def _nothing_left(finished: Path, directory: Path) -> float | None:
    _leave(directory, unless=finished)
    run = Run(finished)
    say(f"{screens.shown(finished)} is finished, at step {run.status['step']}: nothing is left to train")
    return run.summary["score"].get("excess")
