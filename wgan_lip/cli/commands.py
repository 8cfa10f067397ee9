"""The jobs behind the commands: each takes Hydra's composed configuration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from wgan_lip import figures
from wgan_lip.certificates import Certificate, verify
from wgan_lip.certificates import certify as certify_critic
from wgan_lip.checks import InputError
from wgan_lip.cli import benchmark as benchmarks
from wgan_lip.cli import screens
from wgan_lip.cli.estimate import estimate
from wgan_lip.cli.inspecting import RUN, inspect, run_named
from wgan_lip.cli.schema import checked
from wgan_lip.cli.train import train
from wgan_lip.files import write_whole
from wgan_lip.runs import (
    CERTIFICATE,
    load_run,
)

__all__ = ["benchmark", "certify", "estimate", "inspect", "sample", "train"]


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
