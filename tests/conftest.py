"""Shared by all tests: one thread, seeded, and one tiny run that the command line made."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # tests run in parallel processes
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as on a terminal, where the tests were started by nohup too

TINY = [
    "training.steps=6",
    "training.batch_size=16",
    "training.critic_steps=1",
    "training.warmup_steps=2",
    "training.log_every=3",
    "training.audit_every=3",
    "training.audit_size=20",
    "evaluation.size=30",
    "evaluation.repeats=2",
    "evaluation.fit_steps=3",
    "evaluation.classifier_steps=3",
    "generator.width=8",
    "critic.depth=2",
    "device=cpu",
]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def solved(monkeypatch):
    """The shapes of all problems that the network simplex gets."""
    import ot  # slow to load, and needed by few

    shapes, genuine = [], ot.emd

    def counting(a, b, costs, **settings):
        shapes.append((len(a), len(b)))
        return genuine(a, b, costs, **settings)

    monkeypatch.setattr(ot, "emd", counting)
    return shapes


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on the digits; tests must not write to it."""
    from wgan_lip.cli import main

    directory = tmp_path_factory.mktemp("runs") / "tiny"
    before = Path.cwd()
    os.chdir(directory.parent)
    try:
        assert main(["train", *TINY, f"hydra.run.dir={directory}"]) == 0
    finally:
        os.chdir(before)
    return directory
