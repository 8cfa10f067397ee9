"""Several processes that price for one: each finds the lowest cones at its share of the points."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from wgan_lip.transport import pricing
from wgan_lip.transport.cells import FEW_DIMENSIONS, Tree
from wgan_lip.transport.pricing import Lowest, distances_to, lowest_cones

__all__ = ["Crew", "lowest_on"]

WORTH = 2**24  # components of all differences below which one process is as fast as several
PATIENCE = 60.0  # seconds beyond the deadline to wait for an answer
LONGEST = timedelta(days=30)  # of one estimate
DONE, LATE, FAILED = range(3)  # how a share ended


class _Task(NamedTuple):
    """What rank 0 asks of the others, and the shapes of the tensors that follow."""

    width: int
    both: bool
    left: float
    points: torch.Size
    shares: list[int]


class Crew:
    """Rank 0 of torch's default process group, which computes, and the others, which price for it.

    Every rank creates one, at the same time. Then rank 0 asks for the :meth:`lowest` cones, as often as it likes, and
    :meth:`dismiss` ends :meth:`serve` on the others. Each of them holds its share of the points, and the apexes, while
    it works on them, and nothing in between. If one fails, or doesn't answer, rank 0 goes on alone.

    Arguments:
        device: Where this process prices.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.group = dist.new_group(backend="gloo", timeout=LONGEST)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def lowest(
        self,
        z: Tensor,
        points: Tensor,
        offsets: Tensor,
        width: int = 1,
        *,
        both: bool = False,
        check: Callable[[], None] = lambda: None,
        left: float,
        tree: Callable[[], Tree],
    ) -> Lowest:
        """:func:`wgan_lip.transport.pricing.lowest_cones` for tensors on the CPU, shared among all ranks; on rank 0.

        Arguments:
            left: Seconds that the others may take.

        Raises:
            TimeoutError: One of them was late.
        """
        alone = (self.device, z, points, offsets, width)
        if self.size == 1 or len(z) < self.size or len(z) * points.numel() < WORTH:
            return lowest_on(*alone, both=both, check=check, tree=tree)
        try:
            found = self._shared(*alone, both, check, left, tree)
        except RuntimeError:  # a message failed, for whatever reason
            self.size, found = 1, None
        except BaseException:
            self.size = 1  # the others are in an unknown state: no message would reach them
            raise
        if isinstance(found, Exception):
            raise found
        return lowest_on(*alone, both=both, check=check, tree=tree) if found is None else found

    def _shared(
        self,
        device: torch.device,
        z: Tensor,
        points: Tensor,
        offsets: Tensor,
        width: int,
        both: bool,
        check: Callable[[], None],
        left: float,
        tree: Callable[[], Tree],
    ) -> Lowest | Exception | None:
        """What all ranks found, or the error of a late one; None if one failed, and all are dismissed."""
        near = z.shape[1] <= FEW_DIMENSIONS and len(z) * len(points) >= pricing.MANY  # shares lie together, as cells do
        order = tree().order if near else torch.arange(len(z))
        shares = order.tensor_split(self.size)
        task = _Task(width, both, left, points.shape, list(map(len, shares)))
        dist.broadcast_object_list([task], 0, group=self.group)
        for tensor in (points, offsets):
            dist.broadcast(tensor.contiguous(), 0, group=self.group)
        for rank, share in enumerate(shares[1:], 1):
            dist.send(z[share], rank, group=self.group)
        found: list[Lowest] = []
        late: Exception | None = None
        try:
            found.append(lowest_on(device, z[shares[0]], points, offsets, width, both=both, check=check))
        except Exception as error:  # raised only after the others have answered, too
            late = error
        states = [int(self._received(torch.empty(1, dtype=torch.long), rank, left)) for rank in range(1, self.size)]
        for rank, (state, share) in enumerate(zip(states, shares[1:]), 1):
            if state == DONE:
                heights = torch.empty(len(share), width, dtype=torch.float64)
                answer = (
                    heights,
                    torch.empty_like(heights, dtype=torch.long),
                    torch.empty(len(points), dtype=torch.long),
                )
                found.append(Lowest(*(self._received(part, rank, left) for part in answer)))
        if late is not None or LATE in states:
            return late or TimeoutError()
        if FAILED in states:
            self.dismiss()
            return None
        return _merged(found, shares, z, points, offsets, both)

    def _received(self, tensor: Tensor, rank: int, left: float) -> Tensor:
        work = dist.irecv(tensor, rank, group=self.group)
        if work is not None:  # None for a rank outside of the group
            work.wait(timedelta(seconds=min(max(left, 0.0) + PATIENCE, LONGEST.total_seconds())))
        return tensor

    def dismiss(self) -> None:
        """Ends the service of the others."""
        if self.size > 1 and self.rank == 0:
            self.size = 1
            with suppress(RuntimeError):  # they have gone before
                dist.broadcast_object_list([None], 0, group=self.group)

    def serve(self) -> None:
        """Prices for rank 0, on another one, until it is dismissed or rank 0 is gone."""
        with suppress(RuntimeError):
            while (task := self._next()) is not None:
                points = torch.empty(task.points, dtype=torch.float64)
                offsets = torch.empty(task.points[0], dtype=torch.float64)
                z = torch.empty(task.shares[self.rank], task.points[1], dtype=torch.float64)
                for tensor in (points, offsets):
                    dist.broadcast(tensor, 0, group=self.group)
                dist.recv(z, 0, group=self.group)
                state, found = DONE, None
                try:
                    check = _until(time.monotonic() + task.left)
                    found = lowest_on(self.device, z, points, offsets, task.width, both=task.both, check=check)
                except TimeoutError:
                    state = LATE
                except Exception:
                    state = FAILED
                dist.send(torch.tensor([state]), 0, group=self.group)
                for part in found or ():
                    dist.send(part.contiguous(), 0, group=self.group)

    def _next(self) -> _Task | None:
        held: list[_Task | None] = [None]
        dist.broadcast_object_list(held, 0, group=self.group)
        return held[0]


def lowest_on(
    device: torch.device,
    z: Tensor,
    points: Tensor,
    offsets: Tensor,
    width: int,
    *,
    both: bool,
    check: Callable[[], None],
    tree: Callable[[], Tree] | None = None,
) -> Lowest:
    """:func:`wgan_lip.transport.pricing.lowest_cones` on a device, from and to the CPU."""
    z, points, offsets = (part.to(device) for part in (z, points, offsets))
    return Lowest(*(part.cpu() for part in lowest_cones(z, points, offsets, width, both=both, check=check, tree=tree)))


def _until(deadline: float) -> Callable[[], None]:
    def check() -> None:
        if time.monotonic() > deadline:
            raise TimeoutError

    return check


def _merged(
    found: list[Lowest], shares: Sequence[Tensor], z: Tensor, points: Tensor, offsets: Tensor, both: bool
) -> Lowest:
    """The shares joined: the lowest cones at all z, and for each cone the best of its nearest points."""
    order = torch.cat(list(shares))
    heights, cones = (torch.cat(parts) for parts in list(zip(*found))[:2])
    heights, cones = (torch.empty_like(part).index_copy_(0, order, part) for part in (heights, cones))
    nearest = found[0].nearest
    if both:
        nearest = torch.stack([share[part.nearest] for share, part in zip(shares, found)], 1)  # (m, size)
        rise = distances_to(z, points, nearest) - offsets[:, None] - heights[nearest, 0]
        nearest = nearest.gather(1, rise.argmin(1, keepdim=True))[:, 0]
    return Lowest(heights, cones, nearest)
