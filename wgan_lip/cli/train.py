"""The job behind `wgan-lip train`: a new run, or one that goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from wgan_lip import figures
from wgan_lip.certificates import certify
from wgan_lip.checkpoints import Checkpoints
from wgan_lip.checks import InputError
from wgan_lip.cli import screens
from wgan_lip.cli.board import TrainingBoard
from wgan_lip.cli.players import built_players, resolved
from wgan_lip.cli.resuming import find_run, is_finished, last_state
from wgan_lip.cli.signals import StopRequests
from wgan_lip.data import Source
from wgan_lip.runs import (
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
from wgan_lip.scoring import score_run
from wgan_lip.tracking import Console, JsonLinesTracker, Trackers
from wgan_lip.training import Record, StoppedError, train_wgan

__all__ = ["train"]


def train(config: DictConfig) -> float:
    """Trains a generator against a certified critic in Hydra's output folder, or goes on with a run in its own.

    Returns the score over the floor.
    """
    hydra = HydraConfig.get()
    directory = Path(hydra.runtime.output_dir)
    with StopRequests() as stop, ExitStack() as held:
        try:
            settings = resolved(config)
            resume, state, step = settings.pop("resume"), None, None
            run = find_run(directory, settings, resume, sweep=hydra.mode == RunMode.MULTIRUN)
            if run is not None:
                if is_finished(run, settings):
                    return _nothing_left(run, directory)
                held.enter_context(claimed(run.directory))
                state, step = last_state(run)
            source, players, sizes = built_players(settings)
            records = train_wgan(
                source, **players, **settings["training"], seed=settings["seed"], state=state,
                pause=lambda step: stop.asked is not None or saver.due(step),
            )  # fmt: skip
            overrides = [override for override in hydra.overrides.task if not override.startswith("resume=")]
            if run is None:
                create_run(directory, settings, overrides)
                held.enter_context(claimed(directory))
            else:
                _leave(directory, unless=run.directory)
                directory = run.directory
                reopen_run(directory, settings, overrides)
                print(f"wgan-lip: going on with {directory} at step {state['step'] if state else 0}", file=sys.stderr)
        except BaseException:
            _leave(directory)
            raise
        saver = Checkpoints(directory, sizes, **settings["checkpoint"], step=step)
        first = None if run is None else state["step"] + 1 if state else 0
        with (
            failures_recorded(directory),
            _kept(directory, saver),
            TrainingBoard(directory, source, settings, overrides, purge_step=first) as board,
        ):
            _play(directory, settings, records, saver, stop, board, first=first)
            return _conclude(directory, settings, source, board)


def _leave(directory: Path, unless: Path | None = None) -> None:
    """Takes away the folder that Hydra made, where nothing was written to it."""
    if unless is None or directory.resolve() != unless.resolve():
        with suppress(OSError):
            directory.rmdir()


def _nothing_left(run: Run, directory: Path) -> float:
    _leave(directory, unless=run.directory)
    print(f"{run.directory} is finished, at step {run.status['step']}: nothing is left to train")
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
    board: TrainingBoard, *, first: int | None,
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
            if record.scalars:
                trackers.record(record)
                board.record(record)
            if record.audited or not record.scalars or stop.asked or saver.due(record.step):
                trackers.flush()  # what a resumed run builds on is on the disk before the checkpoint is
                board.flush()
                saver.save(record.game.state_dict(), best=record.improved)
                set_status(directory, "running", step=record.step)
            stop.obey()
    stop.deferred = False
    stop.obey()


def _conclude(directory: Path, settings: dict, source: Source, board: TrainingBoard) -> float:
    """Scores the run as it lies on disk, draws its pictures, and shows the last screen."""
    run = load_run(directory, trust=settings["trust"])
    seconds = run.metrics[-1]["time"]
    summary = {**score_run(run, source, **settings["evaluation"]), "training_seconds": round(seconds, 2)}
    certify(run.critic, units=run.units).save(directory / CERTIFICATE)
    write_json(directory / SUMMARY, summary)
    board.scores(summary, run.step)
    _draw(run, source)
    set_status(directory, "finished", step=run.step)
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
