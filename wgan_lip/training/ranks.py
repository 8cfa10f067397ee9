"""Several processes that play one game: each takes its share of a batch, and all of them stay equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wgan_lip.data import Source
from wgan_lip.lipschitz.certificates import certify, weights_sha256
from wgan_lip.utils.checks import InputError, one_line

__all__ = ["OtherRankError", "Ranks"]

Result = TypeVar("Result")
FAILURE = "wgan_lip/failure"  # where a rank that stops leaves its reason for the others


class OtherRankError(RuntimeError):
    """Another rank stopped, or went another way; the message holds its reason where it left one."""


class Ranks:
    """The processes of torch's default process group, or this one alone where there is none.

    All ranks draw the same batch and take their share of it, so that the game, its random state and its checkpoints
    are, up to rounding, those of one process with the same batch. Gradients are averaged after the whole backward pass,
    in one message: nothing hooks into autograd, so any critic may be differentiated twice. What one rank alone decides,
    or measures, is told to the others through the CPU.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
    """

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
        """Replaces a module's buffers, and parameters if asked to, by those of rank 0."""
        if self.size > 1:
            tensors = [*(module.parameters() if parameters else ()), *module.buffers()]
            for tensor in tensors:
                self._together(lambda tensor=tensor: dist.broadcast(tensor.detach(), 0))

    def any(self, answer: bool) -> bool:
        """Whether one of the ranks says yes."""
        if self.size == 1:
            return answer
        votes = torch.tensor([float(answer)])
        self._together(lambda: dist.all_reduce(votes, dist.ReduceOp.MAX))
        return bool(votes[0])

    def told(self, value: Any) -> Any:
        """The value of rank 0."""
        if self.size == 1:
            return value
        held = [value]
        self._together(lambda: dist.broadcast_object_list(held, 0))
        return held[0]

    def gathered(self, value: Any) -> list[Any]:
        """The values of all ranks, in order."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        self._together(lambda: dist.all_gather_object(values, value))
        return values

    def by_first(self, work: Callable[[], Result]) -> Result:
        """What `work` returns on rank 0, where alone it is done. Where it raises there, all ranks raise.

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
        result, problem = self.told((result, None if error is None else str(error)))
        if error is not None:
            raise error
        if problem is not None:
            raise OtherRankError(f"rank 0 stopped: {problem}")
        return result

    def check_equal(self, critic: nn.Module, *modules: nn.Module) -> None:
        """Holds the weights of all ranks, and the certificates that each proves of its critic, against one another.

        Raises:
            OtherRankError: They differ: such as by ranks on unlike processors, or by a module that draws or counts on
                its own.
        """
        if self.size > 1:
            mine = (*(weights_sha256(module) for module in (critic, *modules)), certify(critic).lipschitz)
            unequal = [rank for rank, theirs in enumerate(self.gathered(mine)) if theirs != self.told(mine)]
            if unequal:
                raise OtherRankError(
                    f"Expected equal weights and certificates on all ranks. Got others on rank {unequal[0]} than on "
                    "rank 0. Use equal processors and versions, and players without a state of their own."
                )

    def checked_data(self, source: Source) -> str:
        """What the source says of its data, the same on all ranks.

        Raises:
            InputError: They differ; OtherRankError on the ranks that follow.
        """
        data = self.gathered(source.fingerprint())
        unequal = [rank for rank, theirs in enumerate(data) if theirs != data[0]]
        if unequal:
            raise (OtherRankError if self.rank else InputError)(
                f"Expected the same data on all ranks. Got {data[0]} on rank 0 and {data[unequal[0]]} on rank "
                f"{unequal[0]}. Give them the same files."
            )
        return data[0]

    def leave(self, reason: str) -> None:
        """Leaves word for the others why this rank stops."""
        if self.size > 1:
            try:
                dist.distributed_c10d._get_default_store().set(FAILURE, f"rank {self.rank} stopped: {reason}")
            except Exception:
                return  # the store went before

    def _together(self, message: Callable[[], Any]) -> None:
        try:
            message()
        except RuntimeError as error:
            lost = f"another rank was killed, or can't be reached ({one_line(error)})"
            raise OtherRankError(self._reason() or lost) from None

    def _reason(self) -> str | None:
        try:
            store = dist.distributed_c10d._get_default_store()
            return store.get(FAILURE).decode() if store.check([FAILURE]) else None
        except Exception:
            return None

    def check_divides(self, batch_size: int, parts: int) -> None:
        """Refuses a batch that the ranks, and the parts of each, do not divide."""
        if batch_size % (self.size * parts):
            by = " × ".join(
                [f"the number of ranks ({self.size})"] * (self.size > 1) + [f"`accumulate` ({parts})"] * (parts > 1)
            )
            raise InputError(f"`batch_size` must be divisible by {by}. Got {batch_size}.")
