"""The jobs behind the commands: each takes Hydra's composed configuration."""

from __future__ import annotations

from omegaconf import DictConfig

from wgan_lip import benchmarks
from wgan_lip.cli import screens
from wgan_lip.cli.compare import compare
from wgan_lip.cli.dry_run import plan
from wgan_lip.cli.estimate import estimate
from wgan_lip.cli.export import export
from wgan_lip.cli.inspect import inspect
from wgan_lip.cli.sample import sample
from wgan_lip.cli.schema import RUN, checked, run_named
from wgan_lip.cli.train import train
from wgan_lip.lipschitz.certificates import Certificate, verify
from wgan_lip.lipschitz.certificates import certify as certify_critic
from wgan_lip.runs.run import (
    CERTIFICATE,
    load_run,
)
from wgan_lip.utils.checks import InputError

__all__ = ["benchmark", "certify", "compare", "estimate", "export", "inspect", "plan", "sample", "train"]


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


def benchmark(config: DictConfig) -> None:
    """Runs a suite of measurements and prints its table."""
    settings = checked(config, root={"suite": str, "seeds": list, "overrides": list, "out": str})
    screens.show(benchmarks.benchmark(**settings))
