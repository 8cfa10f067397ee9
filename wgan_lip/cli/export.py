"""The job behind `wgan-lip export`: a run's critic and generator as files that need no training code."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from wgan_lip.cli import screens
from wgan_lip.cli.schema import RUN, checked, run_named
from wgan_lip.runs.export import export_players
from wgan_lip.runs.folder import versions
from wgan_lip.runs.run import load_run
from wgan_lip.utils.terminal import say

__all__ = ["export"]


def export(config: DictConfig) -> None:
    """Exports the critic, its certificate and the averaged generator of a run."""
    settings = checked(config, root={**RUN, "checkpoint": str, "out": str, "programs": bool})
    run = load_run(**run_named(settings), checkpoint=settings["checkpoint"])
    out = Path(settings["out"]).expanduser()
    certificate = export_players(
        out,
        critic=run.critic,
        generator=run.generator,
        configs={name: run.config[name] for name in ("critic", "generator")},
        sizes=run.checkpoint["sizes"],
        units=run.units,
        programs=settings["programs"],
        about={"step": run.step, "versions": versions()},
    )
    say(screens.exported(run, certificate, out))
