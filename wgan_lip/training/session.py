"""Training with a folder: records to trackers, checkpoints, status, and scores and pictures at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from wgan_lip import figures
from wgan_lip.data import Source
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.runs.checkpoints import Checkpointing, Checkpoints
from wgan_lip.runs.folder import (
    CERTIFICATE,
    METRICS,
    SUMMARY,
    claimed,
    create_run,
    failures_recorded,
    read_status,
    reopen_run,
    set_status,
)
from wgan_lip.runs.resuming import is_finished, last_state
from wgan_lip.runs.run import Run
from wgan_lip.runs.tracking import Console, JsonLinesTracker, Tracker, Trackers, open_tracker
from wgan_lip.training.board import TrainingBoard
from wgan_lip.training.game import Record, StoppedError
from wgan_lip.training.loop import train_wgan
from wgan_lip.training.ranks import OtherRankError, Ranks
from wgan_lip.training.scoring import Evaluation, score_run
from wgan_lip.training.settings import Training
from wgan_lip.training.signals import StopRequests
from wgan_lip.utils.checks import InputError, one_line, out_of_memory
from wgan_lip.utils.files import write_json
from wgan_lip.utils.terminal import say, shown, warn

__all__ = ["Players", "Session"]


@dataclass(frozen=True)
class Players:
    """The parts of a training run: its data, generator and critic, and their optimisers."""

    source: Source
    generator: nn.Module
    critic: nn.Module
    generator_optimizer: Optimizer
    critic_optimizer: Optimizer


@dataclass(frozen=True)
class Past:
    """The progress of a run before it is trained further.

    Attributes:
        directory: Its folder; None for a new run.
        finished: Whether nothing is left to train or to score.
        state: Its training state; None if there is none yet.
        checkpoint: The step of its `checkpoint.pt`, if that is undamaged.
    """

    directory: Path | None = None
    finished: bool = False
    state: Mapping[str, Any] | None = None
    checkpoint: int | None = None

    @property
    def first(self) -> int | None:
        """The first step that will be recorded again; None for a new run."""
        return None if self.directory is None else self.state["step"] + 1 if self.state else 0


@dataclass(frozen=True, kw_only=True)
class Session:
    """A training run in a folder, from its start, or from where it stopped, to its scores.

    If several processes train together, rank 0 handles the folder and makes the decisions.

    Attributes:
        directory: The folder of a new run.
        config: The full settings, as stored in the run's `config.yaml`.
        build: Builds the parts; called once it is clear that there is something to train.
        past: Finds the run to resume, or returns None to start a new one.
        training, evaluation, checkpoint: The settings of the loop, of the scores, of the checkpoints.
        seed: Seed of latents and of the choice of samples.
        overrides: The overrides of the command, which the folder keeps as a record.
        command: What started the training, in words.
        way_back: Folder → the command that resumes an interrupted run, in words.
        tracking: Names of :data:`wgan_lip.runs.tracking.TRACKERS`, or trackers.
        callbacks: Called with every record, on rank 0, after it was written.
        told: Called with the finished run, on rank 0.
    """

    directory: Path
    config: Mapping[str, Any]
    build: Callable[[], Players]
    past: Callable[[], Run | None]
    training: Training
    evaluation: Evaluation
    checkpoint: Checkpointing
    seed: int
    overrides: Sequence[str] = ()
    command: str
    way_back: Callable[[Path], str]
    tracking: Sequence[str | Tracker] = ("tensorboard",)
    callbacks: Sequence[Callable[[Record], object]] = ()
    told: Callable[[Run], object] | None = None

    def run(self) -> Run:
        """Trains, scores and draws; returns the run.

        Raises:
            InputError: Settings, data or networks that cannot be trained; a folder that cannot be written to.
            StoppedError: Training stopped itself; its state was saved.
            KeyboardInterrupt: A signal, after saving; a subclass for SIGTERM and SIGHUP.
        """
        ranks, saver = Ranks(), None
        with StopRequests() as stop, ExitStack() as held, _word_left(ranks):
            past = ranks.by_first(lambda: self._past(held))
            if past.directory is not None and past.finished:
                run = Run(past.directory)
                if ranks.rank == 0:
                    step = run.status["step"]
                    say(f"{shown(run.directory)} is already finished, at step {step}: there is nothing left to train")
                return run
            players = self.build()
            records = train_wgan(
                players.source,
                players.generator,
                players.critic,
                self.training,
                generator_optimizer=players.generator_optimizer,
                critic_optimizer=players.critic_optimizer,
                seed=self.seed,
                state=past.state,
                pause=lambda step: stop.asked is not None or (saver is not None and saver.due(step)),
                first_look=self.training.audit_first,
            )
            directory = ranks.by_first(lambda: self._opened(past, held))
            reopened = partial(
                Run, directory, trust=self.config["trust"], critic=players.critic, generator=players.generator,
                source=players.source,
            )  # fmt: skip
            run = reopened()
            if ranks.rank:
                _follow(directory, records, stop, ranks)
                return run
            saver = Checkpoints(directory, players.source.sizes, self.checkpoint, step=past.checkpoint)
            with (
                self._way_back_told(directory),
                failures_recorded(directory),
                _kept(directory, saver),
                self._watched(directory, past.first) as trackers,
            ):
                board = TrainingBoard(
                    trackers, players.source, self.config, self.command, goes_on=bool(past.first)
                )  # fmt: skip
                steps = records if past.first is None else _gone_on(records)
                self._train(reopened, steps, saver, stop, ranks, board, past.first)
                self._conclude(run, board)
            if self.told is not None:
                self.told(run)
            return run

    def _past(self, held: ExitStack) -> Past:
        run = self.past()
        if run is None:
            return Past()
        if is_finished(run, self.config):
            return Past(run.directory, finished=True)
        held.enter_context(claimed(run.directory))
        state, checkpoint = last_state(run, self.config)
        return Past(run.directory, state=state, checkpoint=checkpoint)

    def _opened(self, past: Past, held: ExitStack) -> Path:
        """The folder to write to: a new run's, or that of the past one."""
        if past.directory is None:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                held.enter_context(claimed(self.directory))
            except OSError as error:
                raise InputError(f"{self.directory} can't be written to: {error.strerror}.") from None
            create_run(self.directory, self.config, list(self.overrides))
            say(f"training in {shown(self.directory)}", sys.stderr)
            return self.directory
        reopen_run(past.directory, self.config, list(self.overrides))
        warn(f"resuming {shown(past.directory)} at step {past.state['step'] if past.state else 0}")
        return past.directory

    @contextmanager
    def _way_back_told(self, directory: Path) -> Iterator[None]:
        """If a run is ended early from outside, says how to resume it."""
        try:
            yield
        except StoppedError:
            raise
        except BaseException:
            warn(f"To resume this run: {self.way_back(directory)}")
            raise

    def _watched(self, directory: Path, first: int | None) -> Trackers:
        """The trackers, opened if given by name."""
        with ExitStack() as opened:
            trackers = [
                opened.enter_context(open_tracker(tracker, directory, resume_step=first))
                if isinstance(tracker, str)
                else tracker
                for tracker in self.tracking
            ]
            opened.pop_all()  # all of them were opened
        return Trackers(*trackers)

    def _train(
        self, reopened: Callable[[], Run], records: Iterator[Record], saver: Checkpoints, stop: StopRequests,
        ranks: Ranks, board: TrainingBoard, first: int | None,
    ) -> None:  # fmt: skip
        """Trains to the end: records to the trackers and callbacks, checkpoints and status to the folder."""
        directory, new = reopened().directory, not first
        with Trackers(
            Console(self.training.steps, start_step=max(0, (first or 0) - 1)),
            JsonLinesTracker(directory / METRICS, resume_step=first),
        ) as lines:
            stop.deferred = True
            for record in records:
                stopping = ranks.any(stop.asked is not None)

                def write(record: Record = record, stopping: bool = stopping) -> None:
                    nonlocal new
                    if record.scalars:
                        lines.record(record)
                    if record.note:
                        warn(f"step {record.step}: {record.note}")
                    board.record(record, pictured=new and bool(record.scalars))
                    if record.audited or not record.scalars or stopping or saver.due(record.step):
                        lines.flush()  # records must be on disk before the checkpoint that a resumed run starts from
                        board.flush()
                        saver.save(record.game.state_dict(), best=record.improved)
                        set_status(directory, "running", step=record.step, reason=record.ended)
                    if record.step == 0 and record.audited:
                        _draw(reopened(), record.game.source)  # something to look at while it trains
                    new = new and not record.scalars
                    for callback in self.callbacks:
                        callback(record)

                ranks.by_first(write)
                if stopping:
                    stop.obey()
        stop.deferred = False
        if stop.asked is not None:
            stop.obey()

    def _conclude(self, run: Run, board: TrainingBoard) -> None:
        """Scores the run on disk, and draws its pictures."""
        source = run.source
        summary = {
            **score_run(run, source, self.evaluation),
            "training_seconds": round(run.metrics[-1]["time"], 2),
            "rollbacks": run.checkpoint["game"]["rollbacks"],
        }
        certify(run.critic, units=run.units).save(run.directory / CERTIFICATE)
        write_json(run.directory / SUMMARY, summary)
        board.scores(summary, run.step)
        _draw(run, source)
        early = run.step < self.training.steps
        set_status(run.directory, "finished", step=run.step, reason=run.status["reason"] if early else None)


@contextmanager
def _word_left(ranks: Ranks) -> Iterator[None]:
    """Tells the other ranks why this one stops."""
    try:
        yield
    except OtherRankError:
        raise
    except Exception as error:
        ranks.leave(str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}")
        raise


@contextmanager
def _kept(directory: Path, saver: Checkpoints) -> Iterator[None]:
    """Saves the state if training stopped itself; if nothing more can be written, says what is saved."""
    try:
        yield
    except StoppedError as error:
        saver.save(error.game.state_dict())
        set_status(directory, "running", step=error.game.step)
        raise
    except OSError as error:
        kept = "Nothing has been saved yet." if saver.step is None else f"Step {saver.step} is saved."
        raise InputError(
            f"{directory} can't be written to: {error.strerror or error}. {kept} "
            f"Make room or give write access, then resume {directory}."
        ) from error


def _gone_on(records: Iterator[Record]) -> Iterator[Record]:
    """The records of a resumed run; if training fails before the first one, its checkpoint is to blame.

    Raises:
        InputError: The checkpoint holds something that torch loads but that training fails on, such as an optimiser's
            state of other shapes.
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
            f"Training fails on this checkpoint: {one_line(error)}. Restore an earlier one, or train again."
        ) from error
    yield first
    yield from records


def _follow(directory: Path, records: Iterator[Record], stop: StopRequests, ranks: Ranks) -> None:
    """Trains along with rank 0, which writes the records; notes in the run's status if rank 0 was killed."""
    stop.deferred = True
    try:
        for _ in records:
            stopping = ranks.any(stop.asked is not None)
            ranks.by_first(lambda: None)
            if stopping:
                stop.obey()
    except OtherRankError as error:
        for _ in range(20):  # the system takes a moment to release the lock of a dead process
            with suppress(InputError, OSError), claimed(directory):
                if read_status(directory)["state"] == "running":
                    set_status(directory, "failed", reason=str(error))
                break
            time.sleep(0.1)
        raise


def _draw(run: Run, source: Source) -> None:
    """Draws the pictures in the run's folder, from its current checkpoint and records."""
    samples = run.sample(64 if source.image_shape is not None else min(2000, max(64, len(source.test))))
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
