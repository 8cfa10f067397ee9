"""Several processes that train together: each takes its share of a batch, and all of them stay equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wgan_lip.data import Source
from wgan_lip.lipschitz.certificates import certify, weights_sha256
from wgan_lip.utils.checks import InputError, one_line

__all__ = ["PATIENCE", "WORK", "OtherRankError", "Ranks"]

PATIENCE = timedelta(minutes=5)
"""How long a rank waits for the others in a training step; a rank that takes longer has stopped or hangs."""
WORK = timedelta(minutes=30)
"""How long the others wait for the work of rank 0 alone: scores, pictures, checkpoints."""

Result = TypeVar("Result")
FAILURE = "wgan_lip/failure"  # the key where a rank that stops leaves its reason for the others
PLACE = "wgan_lip/place"  # the key where each rank writes how many messages it has reached


def _store() -> dist.Store:
    return dist.distributed_c10d._get_default_store()


class OtherRankError(RuntimeError):
    """Another rank stopped or diverged from this one; the message holds its reason if it left one."""


class Ranks:
    """The processes of torch's default process group, or just this one if there is none.

    All ranks draw the same batch and take their share of it, so training, its random state and its checkpoints are, up
    to rounding, those of a single process with the same batch. Gradients are averaged after the full backward pass, in
    one message: nothing hooks into autograd, so any critic may be differentiated twice. What a single rank decides or
    measures is sent to the others through the CPU.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
    """

    messages = 0  # number of messages that this process took part in

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)

    def share(self, batch: Tensor) -> Tensor:
        """This rank's rows of a batch that all of them hold, shape (b, …) → (b / size, …)."""
        return batch if self.size == 1 else batch.tensor_split(self.size)[self.rank]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors, of one dtype and device, by their means over the ranks, in one message."""
        if self.size > 1 and tensors:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            self._together(lambda: dist.all_reduce(flat))
            parts = flat.div_(self.size).split([tensor.numel() for tensor in tensors])
            torch._foreach_copy_(list(tensors), [part.view_as(tensor) for part, tensor in zip(parts, tensors)])

    def take_over(self, module: nn.Module, *, parameters: bool) -> None:
        """Replaces a module's buffers, and its parameters if asked, by those of rank 0."""
        if self.size > 1:
            tensors = [*(module.parameters() if parameters else ()), *module.buffers()]
            for tensor in tensors:
                self._together(partial(dist.broadcast, tensor.detach(), 0))

    def any(self, answer: bool) -> bool:
        """Whether any of the ranks says yes."""
        if self.size == 1:
            return answer
        votes = torch.tensor([float(answer)])
        self._together(lambda: dist.all_reduce(votes, dist.ReduceOp.MAX))
        return bool(votes[0])

    def told(self, value: Any, *, after_work: bool = False) -> Any:
        """The value of rank 0; with `after_work` the others wait as long as its work may take."""
        if self.size == 1:
            return value
        held = [value]
        self._together(lambda: dist.broadcast_object_list(held, 0, group=self._unhurried if after_work else None))
        return held[0]

    @cached_property
    def _unhurried(self) -> dist.ProcessGroup:
        return dist.new_group(backend="gloo", timeout=WORK)

    def gathered(self, value: Any) -> list[Any]:
        """The values of all ranks, in order."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        self._together(lambda: dist.all_gather_object(values, value))
        return values

    def by_first(self, work: Callable[[], Result]) -> Result:
        """Does `work` on rank 0 only, and returns its result on all ranks. If it raises, all ranks raise.

        Raises:
            OtherRankError: On the other ranks, with the message.
        """
        if self.size == 1:
            return work()
        error: BaseException | None = None
        result = None
        if self.rank == 0:
            try:
                result = work()
            except Exception as raised:
                error = raised
        result, problem = self.told((result, None if error is None else str(error)), after_work=True)
        if error is not None:
            raise error
        if problem is not None:
            raise OtherRankError(f"rank 0 stopped: {problem}")
        return result

    def check_equal(self, critic: nn.Module, *modules: nn.Module) -> None:
        """Compares the weights of all ranks, and the certificates that each proves of its critic.

        Raises:
            OtherRankError: They differ, for example because ranks run on different processors, or because a module
                draws or counts by itself.
        """
        if self.size > 1:
            mine = (*(weights_sha256(module) for module in (critic, *modules)), certify(critic).lipschitz)
            unequal = [rank for rank, theirs in enumerate(self.gathered(mine)) if theirs != self.told(mine)]
            if unequal:
                raise OtherRankError(
                    f"Weights or certificates on rank {unequal[0]} differ from those on rank 0. Use the same "
                    "processors and versions on all ranks, and networks that do not draw or count by themselves."
                )

    def checked_data(self, source: Source) -> str:
        """The fingerprint of the data, which must be the same on all ranks.

        Raises:
            InputError: They differ; OtherRankError on ranks other than 0.
        """
        data = self.gathered(source.fingerprint())
        unequal = [rank for rank, theirs in enumerate(data) if theirs != data[0]]
        if unequal:
            raise (OtherRankError if self.rank else InputError)(
                f"All ranks need the same data, but rank 0 has {data[0]} and rank {unequal[0]} has {data[unequal[0]]}. "
                "Give them the same files."
            )
        return data[0]

    def leave(self, reason: str) -> None:
        """Tells the others why this rank stops."""
        if self.size > 1:
            with suppress(Exception):  # the store may be gone already
                _store().set(FAILURE, f"rank {self.rank} stopped: {reason}")

    def _together(self, message: Callable[[], Any]) -> None:
        """Exchanges a message in which all ranks take part.

        Raises:
            OtherRankError: One of them has stopped, was killed, or does not answer in time.
        """
        Ranks.messages += 1
        try:
            _store().set(f"{PLACE}/{self.rank}", str(Ranks.messages))
            message()
        except RuntimeError as error:
            raise OtherRankError(self._reason(one_line(error))) from None

    def _reason(self, error: str) -> str:
        """Why a message failed: the reason left by the rank that stopped, or which ranks have not got this far."""
        try:
            store = _store()
            store.set_timeout(timedelta(seconds=10))
            if store.check([FAILURE]):
                return store.get(FAILURE).decode()
            places = [f"{PLACE}/{rank}" for rank in range(self.size)]
            behind = [rank for rank, place in enumerate(places)
                      if not store.check([place]) or int(store.get(place)) < Ranks.messages]  # fmt: skip
        except Exception:  # the store is gone, with the rank that held it
            behind = [0] * (self.rank > 0)
        who = f"rank {', '.join(map(str, behind))}" if behind else "another rank"
        if "timed out" in error.lower():
            return f"{who} did not answer in time: it was stopped, or hangs ({error})"
        return f"{who} was killed, or can't be reached ({error})"

    def check_divides(self, batch_size: int, parts: int) -> None:
        """Refuses a batch size that is not divisible by the number of ranks and of parts."""
        if batch_size % (self.size * parts):
            by = " × ".join(
                [f"the number of ranks ({self.size})"] * (self.size > 1) + [f"`accumulate` ({parts})"] * (parts > 1)
            )
            raise InputError(f"`batch_size` must be divisible by {by}, and {batch_size} is not.")
