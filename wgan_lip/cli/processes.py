"""The processes that torchrun starts: each composes the same configuration, and together they write one run."""

from __future__ import annotations

import os
import tempfile

from wgan_lip.utils.checks import InputError
from wgan_lip.utils.devices import local_rank, rank, world_size

__all__ = ["join", "part", "prepared"]

SHARED = ("train", "estimate")  # commands that several processes can share


def join() -> None:
    """Joins the other processes, if any: gloo between CPUs, NCCL between GPUs."""
    import torch
    import torch.distributed as dist

    from wgan_lip.training import ranks

    if world_size() > 1 and not dist.is_initialized():
        if absent := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
            raise InputError(
                f"WORLD_SIZE is {world_size()}, but {' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not "
                "set. Start the processes with torchrun, or unset WORLD_SIZE."
            )
        backends = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        if local_rank() < torch.cuda.device_count():  # the default device of this process's messages and draws
            torch.cuda.set_device(local_rank())
        dist.init_process_group(backends, timeout=ranks.PATIENCE)


def part() -> None:
    """Leaves the process group cleanly."""
    import torch.distributed as dist

    if world_size() > 1:
        dist.destroy_process_group()


def prepared(command: str, overrides: list[str]) -> list[str]:
    """The overrides with which this process composes: rank 0 keeps Hydra's folder, the others get a temporary one.

    Raises:
        InputError: A command, or a sweep, that runs in one process only.
    """
    if world_size() == 1:
        return overrides
    if command not in SHARED or {"--multirun", "-m"} & set(overrides):
        job = "a sweep" if command in SHARED else command
        raise InputError(f"wgan-lip runs {job} in one process, not {world_size()}. Run it without torchrun.")
    if rank() == 0:
        return overrides
    own = [override for override in overrides if not override.startswith("hydra.run.dir=")]
    return [*own, f"hydra.run.dir={tempfile.mkdtemp(prefix='wgan_lip-rank-')}"]
