"""The jobs behind the commands: each takes Hydra's composed configuration."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer

from wgan_lip import figures
from wgan_lip.certificates import Certificate, verify
from wgan_lip.certificates import certify as certify_critic
from wgan_lip.checks import InputError
from wgan_lip.cli import benchmark as benchmarks
from wgan_lip.cli import screens
from wgan_lip.cli.devices import find_device, set_threads
from wgan_lip.cli.estimate import estimate
from wgan_lip.cli.inspecting import RUN, inspect, run_named
from wgan_lip.cli.schema import checked
from wgan_lip.data import Source
from wgan_lip.files import write_whole
from wgan_lip.generators import draw_latents
from wgan_lip.runs import (
    CERTIFICATE,
    METRICS,
    SUMMARY,
    Run,
    check_seed,
    create_run,
    failures_recorded,
    load_run,
    save_checkpoint,
    set_status,
    write_json,
)
from wgan_lip.scoring import check_scoring, score_run
from wgan_lip.targets import build
from wgan_lip.tracking import Console, JsonLinesTracker, TensorBoardTracker, Trackers
from wgan_lip.training import Game, Record, StoppedError, train_wgan

__all__ = ["benchmark", "certify", "estimate", "inspect", "sample", "train"]

BUILT: dict[str, type] = {
    "data": Source,
    "critic": nn.Module,
    "generator": nn.Module,
    "critic_optimizer": Optimizer,
    "generator_optimizer": Optimizer,
}
"""Sections that name a class, and what it has to be."""

HPARAM_METRICS = ["eval/w1_over_floor", "w1/lower", "w1/exact", "certificate/lipschitz"]


def train(config: DictConfig) -> float:
    """Trains a generator against a certified critic in Hydra's output folder; returns the score over the floor."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        settings = checked(
            config,
            root={"seed": int, "device": str, "threads": int | None, "trust": list},
            sections={"training": train_wgan, "evaluation": score_run},
            built=BUILT,
        )
        device = find_device(settings["device"])
        set_threads(settings["threads"])
        torch.manual_seed(check_seed(settings["seed"]))
        trust = settings["trust"]
        source = build(settings["data"], trust=trust).to(device)
        check_scoring(source, **settings["evaluation"])
        sizes = {"dim": source.dim, "low": source.low, "high": source.high, "image_shape": source.image_shape}
        critic = build(settings["critic"], trust=trust, **sizes).to(device)
        generator = build(settings["generator"], trust=trust, **sizes).to(device)
        optimizers = {
            "critic_optimizer": build(settings["critic_optimizer"], critic.parameters(), trust=trust),
            "generator_optimizer": build(settings["generator_optimizer"], generator.parameters(), trust=trust),
        }
        records = train_wgan(source, generator, critic, **optimizers, **settings["training"], seed=settings["seed"])
        create_run(directory, settings, list(HydraConfig.get().overrides.task))
    except Exception:
        with suppress(OSError):
            directory.rmdir()  # Hydra made it; nothing was written yet
        raise
    with failures_recorded(directory), _stopped_game_kept(directory, sizes):
        seconds = _play(directory, settings, source, sizes, records)
        return _conclude(directory, settings, source, seconds)


@contextmanager
def _stopped_game_kept(directory: Path, sizes: dict[str, Any]) -> Iterator[None]:
    """Keeps the players where the game stopped itself."""
    try:
        yield
    except StoppedError as error:
        save_checkpoint(directory, error.game.state_dict(), sizes)
        set_status(directory, "running", step=error.game.step)
        raise


def _play(directory: Path, settings: dict, source: Source, sizes: dict, records: Iterator[Record]) -> float:
    """Plays the game to its end: records to the trackers, checkpoints and status to the folder. Returns seconds."""
    start, record = time.monotonic(), None
    with Trackers(
        Console(settings["training"]["steps"]),
        JsonLinesTracker(directory / METRICS),
        board := TensorBoardTracker(directory),
    ) as trackers:
        board.text("config", f"```yaml\n{OmegaConf.to_yaml(OmegaConf.create(settings))}```")
        board.hparams(_flat(settings), HPARAM_METRICS)
        try:
            for record in records:
                trackers.record(record)
                if record.audited:
                    save_checkpoint(directory, record.game.state_dict(), sizes)
                    set_status(directory, "running", step=record.step)
                    board.image("samples", _audit_picture(record.game, source), record.step)
        except KeyboardInterrupt:
            if record is not None:
                save_checkpoint(directory, record.game.state_dict(), sizes)
                set_status(directory, "running", step=record.game.step)
            raise
    return time.monotonic() - start


def _conclude(directory: Path, settings: dict, source: Source, seconds: float) -> float:
    """Scores the run as it lies on disk, draws its pictures, and shows the last screen."""
    run = load_run(directory, trust=settings["trust"])
    summary = {**score_run(run, source, **settings["evaluation"]), "training_seconds": round(seconds, 2)}
    certify_critic(run.critic, units=run.units).save(directory / CERTIFICATE)
    write_json(directory / SUMMARY, summary)
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


@torch.no_grad()
def _audit_picture(game: Game, source: Source) -> np.ndarray:
    """The averaged generator at fixed latents, through time."""
    rng = torch.Generator(game.latent_rng.device).manual_seed(0)
    count = 64 if source.image_shape is not None else 1000
    samples = game.ema(draw_latents(game.ema, count, rng)).cpu()
    if source.image_shape is not None:
        return figures.sample_grid(samples, source.image_shape)
    if source.dim == 2:
        return figures.to_array(figures.landscape(game.critic, source.test[:count], samples, modes=source.modes))
    return figures.to_array(figures.generated_cloud(source.test[:count], samples))


def certify(config: DictConfig) -> None:
    """Certifies the saved critic anew, holds the stored certificate against it, and writes it."""
    run = load_run(**run_named(checked(config, root=RUN)))
    proved = certify_critic(run.critic, units=run.units)
    path = run.directory / CERTIFICATE
    note = "new"
    if path.exists():
        try:
            verify(Certificate.load(path), run.critic)
            note = "agrees with the stored one"
        except InputError as error:
            note = f"replaces a stored one that did not verify: {error}"
    proved.save(path)
    screens.show(screens.certificate(proved, path, note))


def sample(config: DictConfig) -> None:
    """Draws n samples of a run's averaged generator into a file."""
    settings = checked(config, root={**RUN, "n": int, "out": str, "seed": int})
    out = Path(settings["out"]).expanduser()
    if out.suffix not in (".npy", ".png"):
        raise InputError(f"Expected out to end in .npy or .png. Got {settings['out']!r}.")
    if not out.parent.is_dir():
        raise InputError(f"Expected out in a folder that exists. Got {out}. Make {out.parent} first.")
    run = load_run(**run_named(settings))
    samples = run.sample(settings["n"], seed=settings["seed"])
    if out.suffix == ".npy":
        write_whole(out, lambda stream: np.save(stream, samples.numpy()))
    elif run.image_shape is not None:
        from PIL import Image

        grid = Image.fromarray(figures.sample_grid(samples, run.image_shape))
        write_whole(out, lambda stream: grid.save(stream, format="PNG"))
    else:
        figures.save(figures.generated_cloud(run.source.test, samples), out, dpi=150)
    print(f"{settings['n']} samples of {run.directory} at step {run.step}: {out}")


def benchmark(config: DictConfig) -> None:
    """Runs a suite of measurements and prints its table."""
    settings = checked(config, root={"suite": str, "seeds": list, "overrides": list, "out": str})
    screens.show(benchmarks.benchmark(**settings))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Section.key → scalar, as TensorBoard's table of hyperparameters wants them."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
