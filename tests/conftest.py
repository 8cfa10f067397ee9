"""Shared by all tests: one thread, seeded, and one tiny run that the command line made."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

# Before torch is imported: processes that tests start inherit it, and share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
import torch.distributed as dist

torch.set_num_threads(1)  # tests run in parallel processes
os.environ["COLUMNS"] = "1000"  # so that no screen is wrapped, unless a test is about that
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
    "training.audit_refits=0",
    "evaluation.size=30",
    "evaluation.repeats=2",
    "evaluation.fit_steps=3",
    "evaluation.classifier_steps=3",
    "generator.width=8",
    "critic.depth=2",
    "device=cpu",
    "training.audit_first=false",
    "tracking=[]",
]
# As users have it, where a test looks at that.
WATCHED = ["training.audit_first=true", "training.audit_refits=1", "tracking=[tensorboard]"]


@pytest.fixture(scope="session", autouse=True)
def quick_runs() -> Iterator[None]:
    """What takes most of a run of a few steps, and is the same in all of them.

    The final scores search less for a steep slope; test_adversary tests the search, test_installation a run with all of
    it. And Hydra does not compose every command twice: the first time, it looks for `hydra.mode`, which is None unless
    it was typed.
    """
    from hydra._internal.hydra import Hydra

    from wgan_lip.training import scoring

    genuine = Hydra.get_mode

    def mode(hydra, config_name, overrides):
        typed = any(override.lstrip("+~").startswith(("hydra.mode", "hydra=")) for override in overrides)
        return genuine(hydra, config_name=config_name, overrides=overrides) if typed else None

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scoring, "estimate_lipschitz", partial(scoring.estimate_lipschitz, starts=32, steps=8))
        patched.setattr(Hydra, "get_mode", mode)
        yield


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
        assert main(["train", *TINY, *WATCHED, f"hydra.run.dir={directory}"]) == 0
    finally:
        os.chdir(before)
    return directory


def on_two_ranks(work, folder: Path) -> list:
    """What `work(Ranks())` returns, or the error it raises as text, in two processes."""
    from wgan_lip.training import Ranks

    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            try:
                dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
                result = work(Ranks())
            except BaseException as error:
                result = f"{type(error).__name__}: {error}"
            (folder / f"{rank}.json").write_text(json.dumps(result))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    paths = [folder / f"{rank}.json" for rank in range(2)]
    return [json.loads(path.read_text()) if path.exists() else None for path in paths]


def started_ranks(*arguments: str) -> list[int]:
    """Two processes with what torchrun tells them, without its watch over them; their errors go to `RANK.txt`."""
    from wgan_lip.cli import main

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            status = 99
            try:
                os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                                  MASTER_PORT=str(port))  # fmt: skip
                sys.stdout = sys.stderr = open(f"{rank}.txt", "w", buffering=1)  # noqa: SIM115 - until it ends
                status = main(list(arguments))
            finally:
                os._exit(status)
        children.append(child)
    return children


def statuses(children: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
