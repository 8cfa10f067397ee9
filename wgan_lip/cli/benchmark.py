"""The job behind `wgan-lip benchmark`."""

from __future__ import annotations

from omegaconf import DictConfig

from wgan_lip import benchmarks
from wgan_lip.cli.schema import checked
from wgan_lip.training.signals import StopRequests
from wgan_lip.utils.terminal import say

__all__ = ["benchmark"]


def benchmark(config: DictConfig) -> None:
    """Runs a suite of measurements and prints its table."""
    root = {"suite": str, "stage": str | None, "minutes": float | None, "seeds": list, "overrides": list, "out": str}
    settings = checked(config, root=root)
    with StopRequests():  # so that a signal, too, ends the processes of a suite
        say(benchmarks.benchmark(**settings))
