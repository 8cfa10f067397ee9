r"""Steps captured once and replayed in one launch: on a GPU, launches dominate the time of a step of small networks.

Note [Captured steps]
    A capture records which operations a step sends to the device, with their addresses, and replays exactly these. So
    it is valid as long as all tensors stay at their addresses: parameters, buffers, the optimiser's state, and learning
    rates, which are therefore tensors on the device. Inputs are copied to their addresses at the capture. If a tensor
    has moved, as after a rollback, steps are taken as written, and captured again once all tensors stay in place.
    Nothing of a capture goes into a checkpoint, where learning rates are plain numbers.

    A replay computes the same as the step as written, by the same kernels. They differ only by the rounding of learning
    rates to float32 on the device, at most 2^-24 of each; on a CPU, where only tests capture, not at all.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from wgan_lip.utils.checks import one_line
from wgan_lip.wasserstein.dual import Penalized

__all__ = ["CAPTURES", "CapturedStep", "moved_by", "obstacle"]

Step = Callable[..., Tensor]
Capture = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]

SETTLED = 2  # calls in a row with all tensors in place, after which a step is captured


def _graph(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The step as a CUDA graph; its result is overwritten by the next replay."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


CAPTURES: dict[str, Capture] = {"cuda": _graph}
"""Kind of device → a function that captures a step without arguments and returns its replay."""


class CapturedStep:
    """A step as a function of tensors, first taken as written, then replayed; see Note [Captured steps].

    Arguments:
        step: Takes inputs of one shape, changes the tensors of `moved`, and returns a tensor.
        moved: Returns all other tensors that the step reads or writes and that outlive it.
        capture: One of :data:`CAPTURES`; None to take all steps as written.

    Attributes:
        replayed: Number of steps that were replays.
    """

    def __init__(self, step: Step, moved: Callable[[], Iterable[Tensor]], capture: Capture | None) -> None:
        self.step, self.moved, self.capture = step, moved, capture
        self.replay: Callable[[], Tensor] | None = None
        self.inputs: list[Tensor] = []
        self.places: list[object] = []
        self.settled = self.replayed = 0

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Takes the step. Its result may be overwritten by the next one."""
        if self.capture is None:
            return self.step(*inputs)
        places: list[object] = [tensor.data_ptr() for tensor in self.moved()]
        places += [(tensor.shape, tensor.dtype) for tensor in inputs]
        if places != self.places:
            self.places, self.replay, self.settled = places, None, 0
        if self.replay is None:
            self.settled += 1
            if self.settled <= SETTLED or not self._captured(inputs):
                return self.step(*inputs)
        torch._foreach_copy_(self.inputs, list(inputs))
        self.replayed += 1
        assert self.replay is not None
        return self.replay()

    def _captured(self, inputs: Sequence[Tensor]) -> bool:
        """Whether the step could be captured; if not, warns, and no further step is captured."""
        assert self.capture is not None
        self.inputs = [tensor.clone() for tensor in inputs]
        try:
            self.replay = self.capture(partial(self.step, *self.inputs))
        except RuntimeError as error:
            self.capture = None
            warnings.warn(f"Steps are not captured: {one_line(error)}. Training continues without.", stacklevel=2)
        return self.capture is not None


def moved_by(players: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> list[Tensor]:
    """The tensors that steps of `optimizers` read and write; learning rates are put on the device."""
    device = next(players[0].parameters()).device
    tensors: list[Tensor] = []
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        if not isinstance(group["lr"], Tensor):
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float32, device=device)
            group["capturable"] = device.type == "cuda"
        tensors.append(group["lr"])
    for player in players:
        tensors += [*player.parameters(), *player.buffers()]
    for state in (state for optimizer in optimizers for state in optimizer.state.values()):
        tensors += [value for value in state.values() if isinstance(value, Tensor)]
    return tensors


def obstacle(
    critic: nn.Module, optimizers: Iterable[torch.optim.Optimizer], *, ranks: int, compiled: bool
) -> str | None:
    """Why steps can't be captured, in words; None if they can."""
    if isinstance(critic, Penalized):
        return f"{type(critic).__name__} draws the points of its penalty on the CPU"
    if ranks > 1:
        return "several processes exchange messages in each of them"
    if compiled:
        return "torch.compile launches them by itself"
    for optimizer in optimizers:
        known = isinstance(optimizer, torch.optim.Adam)  # AdamW is one
        if not known or not all(group.get("fused") for group in optimizer.param_groups):
            return f"{type(optimizer).__name__} keeps its learning rate on the CPU; fused Adam and AdamW do not"
    return None
