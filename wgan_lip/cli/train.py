"""The job behind `wgan-lip train`: a new run, or one that goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from wgan_lip import figures
from wgan_lip.cli import screens
from wgan_lip.cli.players import built_players, resolved
from wgan_lip.data import Source
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.runs.checkpoints import Checkpoints
from wgan_lip.runs.resuming import find_run, is_finished, last_state
from wgan_lip.runs.run import (
    CERTIFICATE,
    METRICS,
    SUMMARY,
    Run,
    claimed,
    create_run,
    failures_recorded,
    load_run,
    reopen_run,
    set_status,
    write_json,
)
from wgan_lip.runs.tracking import Console, JsonLinesTracker, Trackers
from wgan_lip.training import OtherRankError, Ranks, Record, StoppedError, train_wgan
from wgan_lip.training.board import TrainingBoard
from wgan_lip.training.scoring import score_run
from wgan_lip.training.signals import StopRequests
from wgan_lip.utils.checks import InputError

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
    with StopRequests() as stop, ExitStack() as held, _word_left(ranks):
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
            _follow(records, stop, ranks)
            return None
        saver = Checkpoints(directory, sizes, **settings["checkpoint"], step=past.checkpoint)
        with (
            failures_recorded(directory),
            _kept(directory, saver),
            TrainingBoard(directory, source, settings, overrides, purge_step=past.first) as board,
        ):
            _play(directory, settings, records, saver, stop, ranks, board, first=past.first)
            return _conclude(directory, settings, source, board)


@contextmanager
def _word_left(ranks: Ranks) -> Iterator[None]:
    """Lets the other ranks know why this one stops."""
    try:
        yield
    except OtherRankError:
        raise
    except Exception as error:
        ranks.leave(str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}")
        raise


def _past(run: Run | None, settings: Mapping[str, Any], held: ExitStack) -> Past:
    if run is None:
        return Past()
    if is_finished(run, settings):
        return Past(run.directory, finished=True)
    held.enter_context(claimed(run.directory))
    state, checkpoint = last_state(run)
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


@contextmanager
def _kept(directory: Path, saver: Checkpoints) -> Iterator[None]:
    """Keeps the players where the game stopped itself; says what is saved where nothing more can be."""
    try:
        yield
    except StoppedError as error:
        saver.save(error.game.state_dict())
        set_status(directory, "running", step=error.game.step)
        raise
    except OSError as error:
        kept = "Nothing was saved before." if saver.step is None else f"Step {saver.step} is saved whole."
        raise InputError(
            f"Expected to write to {directory}. Got: {error.strerror or error}. {kept} "
            f"Mend that, then go on with resume={directory}."
        ) from error


def _play(
    directory: Path, settings: dict, records: Iterator[Record], saver: Checkpoints, stop: StopRequests,
    ranks: Ranks, board: TrainingBoard, *, first: int | None,
) -> None:  # fmt: skip
    """Plays the game to its end: records to the trackers, checkpoints and status to the folder.

    `first` is the first step that a run that goes on will record again, None for a new run.
    """
    with Trackers(
        Console(settings["training"]["steps"], start_step=max(0, (first or 0) - 1)),
        JsonLinesTracker(directory / METRICS, resume_step=first),
    ) as trackers:
        stop.deferred = True
        for record in records:
            stopping = ranks.any(stop.asked is not None)
            if record.scalars:
                trackers.record(record)
                board.record(record)
            if record.note:
                print(f"wgan-lip: step {record.step}: {record.note}", file=sys.stderr)
                board.text("about/note", record.note, record.step)
            if record.audited or not record.scalars or stopping or saver.due(record.step):
                trackers.flush()  # what a resumed run builds on is on the disk before the checkpoint is
                board.flush()
                saver.save(record.game.state_dict(), best=record.improved)
                set_status(directory, "running", step=record.step, reason=record.ended)
            if stopping:
                stop.obey()
    stop.deferred = False
    if stop.asked is not None:
        stop.obey()


def _follow(records: Iterator[Record], stop: StopRequests, ranks: Ranks) -> None:
    """Plays the game along with rank 0, which writes about it."""
    stop.deferred = True
    for _ in records:
        if ranks.any(stop.asked is not None):
            stop.obey()


def _conclude(directory: Path, settings: dict, source: Source, board: TrainingBoard) -> float:
    """Scores the run as it lies on disk, draws its pictures, and shows the last screen."""
    run = load_run(directory, trust=settings["trust"])
    seconds = run.metrics[-1]["time"]
    summary = {
        **score_run(run, source, **settings["evaluation"]),
        "training_seconds": round(seconds, 2),
        "rollbacks": run.checkpoint["game"]["rollbacks"],
    }
    certify(run.critic, units=run.units).save(directory / CERTIFICATE)
    write_json(directory / SUMMARY, summary)
    board.scores(summary, run.step)
    _draw(run, source)
    early = run.step < settings["training"]["steps"]
    set_status(directory, "finished", step=run.step, reason=run.status["reason"] if early else None)
    screens.show(screens.finished(Run(directory)))
    return summary["score"]["ratio"]


def _draw(run: Run, source: Source) -> None:
    samples = run.sample(min(2000, max(64, len(source.test))))
    floor = run.metrics[-1].get("eval/w1_floor") if run.metrics else None
    figures.save(figures.interval_history(run.metrics, floor=floor), run.directory / "interval.png")
    if source.image_shape is not None:
        grid = figures.real_beside_generated(source.test, samples, source.image_shape)
        figures.save(grid, run.directory / "samples.png")
    elif source.dim == 2:
        picture = figures.landscape(run.critic, source.test, samples, modes=source.modes)
        figures.save(picture, run.directory / "samples.png", dpi=150)
    else:
        figures.save(figures.generated_cloud(source.test, samples), run.directory / "samples.png", dpi=150)
