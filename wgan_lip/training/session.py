"""A training with a folder: records to trackers, checkpoints, status, and the scores and pictures at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wgan_lip import figures
from wgan_lip.data import Source
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.runs.checkpoints import Checkpoints
from wgan_lip.runs.folder import (
    CERTIFICATE,
    METRICS,
    SUMMARY,
    claimed,
    read_status,
    set_status,
)
from wgan_lip.runs.run import Run, load_run
from wgan_lip.runs.tracking import Console, JsonLinesTracker, Trackers
from wgan_lip.training.board import TrainingBoard
from wgan_lip.training.game import Record, StoppedError
from wgan_lip.training.ranks import OtherRankError, Ranks
from wgan_lip.training.scoring import score_run
from wgan_lip.training.signals import StopRequests
from wgan_lip.utils.checks import InputError, one_line, out_of_memory
from wgan_lip.utils.files import write_json
from wgan_lip.utils.terminal import warn

__all__ = ["conclude", "follow", "kept", "play", "word_left"]


@contextmanager
def word_left(ranks: Ranks) -> Iterator[None]:
    """Lets the other ranks know why this one stops."""
    try:
        yield
    except OtherRankError:
        raise
    except Exception as error:
        ranks.leave(str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}")
        raise


@contextmanager
def kept(directory: Path, saver: Checkpoints) -> Iterator[None]:
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
            f"Make room or give write access, then resume {directory}."
        ) from error


def play(
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
        for record in records if first is None else _gone_on(records):
            stopping = ranks.any(stop.asked is not None)

            def write(record: Record = record, stopping: bool = stopping) -> None:
                if record.scalars:
                    trackers.record(record)
                    board.record(record)
                if record.note:
                    warn(f"step {record.step}: {record.note}")
                    board.text("about/note", record.note, record.step)
                if record.audited or not record.scalars or stopping or saver.due(record.step):
                    trackers.flush()  # what a resumed run builds on is on the disk before the checkpoint is
                    board.flush()
                    saver.save(record.game.state_dict(), best=record.improved)
                    set_status(directory, "running", step=record.step, reason=record.ended)

            ranks.by_first(write)
            if stopping:
                stop.obey()
    stop.deferred = False
    if stop.asked is not None:
        stop.obey()


def _gone_on(records: Iterator[Record]) -> Iterator[Record]:
    """The records of a run that goes on; where it gets to none, its checkpoint is to blame.

    Raises:
        InputError: It holds what a game stops at, though torch takes it: such as an optimiser's state of other shapes.
    """
    try:
        first = next(records)
    except StopIteration:
        return
    except (StoppedError, OtherRankError, InputError):
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if out_of_memory(error):
            raise
        raise InputError(
            f"Expected a checkpoint that can be trained on. Got one at which it stops: {one_line(error)}. Restore an "
            "earlier one, or train again."
        ) from error
    yield first
    yield from records


def follow(directory: Path, records: Iterator[Record], stop: StopRequests, ranks: Ranks) -> None:
    """Plays the game along with rank 0, which writes about it; notes in the run's status where that was killed."""
    stop.deferred = True
    try:
        for _ in records:
            stopping = ranks.any(stop.asked is not None)
            ranks.by_first(lambda: None)
            if stopping:
                stop.obey()
    except OtherRankError as error:
        for _ in range(20):  # the system takes a moment to let go of a dead process's folder
            with suppress(InputError, OSError), claimed(directory):
                if read_status(directory)["state"] == "running":
                    set_status(directory, "failed", reason=str(error))
                break
            time.sleep(0.1)
        raise


def conclude(directory: Path, settings: dict, source: Source, board: TrainingBoard) -> Run:
    """Scores the run as it lies on disk and draws its pictures; returns it, finished."""
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
    return Run(directory)


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
