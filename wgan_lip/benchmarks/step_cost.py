"""Suite step_cost: what a step of each certified critic costs beside one of an unconstrained perceptron."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip import figures
from wgan_lip.benchmarks.machine import threads, write_page, write_results
from wgan_lip.benchmarks.peers import torchlip_critic
from wgan_lip.critics import ConvolutionalCritic, FixedWidthCritic, ResNetCritic, SortingCritic
from wgan_lip.lipschitz.layers import Conv2d, ConvGradientFlow, GradientFlow, Linear, constrain_steps
from wgan_lip.lipschitz.optimizers import parameter_groups
from wgan_lip.utils.checks import one_line
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.dual import ascend

__all__ = ["convolutions", "measure", "perceptron"]

WIDTHS = {"cpu": (256,), "cuda": (256, 1024)}
DEPTH = 6
BATCH = 512  # samples of both laws, in one pass
IMAGE = (3, 32, 32)
WARM, ROUNDS = 5, 60
PARTS = ("forward and backward", "projection", "optimiser", "retraction")

Make = Callable[[], nn.Module]


LIMIT = 1.3  # of a twin's step, which the default critic is to stay below
READING = f"""\
One critic step ({BATCH} samples of both laws in one pass, backward, Adam with projection and retraction) over that of
an unconstrained ReLU network of the same shape: {DEPTH} layers, width and input as in the table, the convolutional
critic on {" x ".join(map(str, IMAGE))}. Forward and backward, projection, optimiser and retraction are
fractions of the twin's step. Memory is parameters, gradients, Adam's state and what backward keeps, over the twin's;
"one" is a graph without breaks under `torch.compile`."""


def measure(seeds: list[int], out: Path) -> str:
    """Steps every critic and its twin in turn, on one thread, on the GPU too where there is one.

    A twin has the critic's linear maps, or convolutions, with ReLU, and no constraint. Both take the same fused Adam.
    On a CPU the clock is the thread's, which stands still while other processes run. Memory is that of parameters,
    gradients, Adam's moments, and all that the forward pass keeps for the backward pass.
    """
    rows: list[dict[str, Any]] = []
    with threads():
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            for width in WIDTHS[device]:
                for seed in seeds:
                    for name, (critic, twin, dim) in _pairs(width).items():
                        torch.manual_seed(seed)
                        of = {"critic": name, "width": width, "device": device, "seed": seed}
                        rows.append({**of, **_row(critic, twin, dim, device)})
                        write_results("step_cost", seeds, out, threads=1, rows=rows)
    _draw(rows, out)
    table = _table(rows)
    costly = [row for row in rows if row["ratio"] > LIMIT]
    losses = "**Where it loses.** " + (
        "; ".join(f"{row['critic']} on {row['device']} costs {row['ratio']:.2f} of its twin" for row in costly) + "."
        if costly
        else f"No critic costs more than {LIMIT} of its twin."
    )
    parts = [table, READING, "![parts of a step, over the twin's](step_cost.png)", losses]
    how = "One thread; a critic and its twin in turns in one process, ratios of medians."
    write_page(out, title="What a training step costs", how=how, parts=parts)
    return table


def _pairs(width: int) -> dict[str, tuple[Make, Make, int]]:
    """Critic, twin and the samples' dimension, by the critic's name."""
    residual = partial(ResNetCritic, width, width=width, depth=DEPTH)
    sorting = partial(SortingCritic, width, width=width, depth=DEPTH)
    critics: dict[str, Make] = {
        "residual": residual,
        "residual, cones": partial(residual, readout="cones"),
        "sorting, pairs": sorting,
        "sorting, full": partial(sorting, group=width),
        "fixed width": partial(FixedWidthCritic, width, depth=DEPTH),
    }
    if _installed("deel.torchlip"):
        critics["deel-torchlip, pairs"] = partial(torchlip_critic, width, width=width, depth=DEPTH)
    pairs = {name: (make, lambda: perceptron(width, width), width) for name, make in critics.items()}
    pairs["convolutional"] = (lambda: ConvolutionalCritic(IMAGE), partial(convolutions, IMAGE), math.prod(IMAGE))
    return pairs


def _installed(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def perceptron(dim: int, width: int) -> nn.Module:
    """The unconstrained twin of a residual critic: as many layers of that width, with ReLU."""
    widths = [dim, *[width] * DEPTH]
    hidden = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 1), nn.Flatten(0))


def convolutions(image: tuple[int, int, int]) -> nn.Sequential:
    """The convolutions and linear maps of :class:`ConvolutionalCritic` with ReLU, one behind the other.

    A residual layer gives two maps, the second of its adjoint's shape, with weights of its own.
    """
    critic = ConvolutionalCritic(image)
    layers: list[nn.Module] = [nn.Unflatten(1, image)]
    for name, layer in critic.named_children():
        if isinstance(layer, Conv2d):
            (channels, c, *_), conv = layer.weight.shape, layer.convolution
            layers.append(nn.Conv2d(c, channels, conv.kernel_size, conv.stride, conv.padding))
        elif isinstance(layer, ConvGradientFlow):
            hidden, channels, *size = layer.weight.shape
            layers += [nn.Conv2d(channels, hidden, (size[0], size[1]), (size[0], size[1])), nn.ReLU()]
            layers += [nn.ConvTranspose2d(hidden, channels, (size[0], size[1]), (size[0], size[1])), nn.ReLU()]
        elif isinstance(layer, GradientFlow):
            hidden, width = layer.weight.shape
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.ReLU()]
        elif isinstance(layer, Linear):
            rows, columns = layer.weight.shape
            layers += [nn.Flatten(), nn.Linear(columns, rows), nn.ReLU() if name == "gather" else nn.Flatten(0)]
    return nn.Sequential(*layers)


class _Steps:
    """Ascents of one module, with the time at which each part of a step ends."""

    def __init__(self, module: nn.Module, dim: int, device: str) -> None:
        self.module, self.device = module.to(device), device
        self.samples = torch.randn(BATCH, dim, device=device).tensor_split(2)
        self.optimizer = torch.optim.Adam(parameter_groups(module), fused=True)
        self.optimizer.register_step_pre_hook(self._mark)
        self.optimizer.register_step_post_hook(self._mark)
        constrain_steps(self.optimizer, module)  # hooks run in the order in which they were registered
        self.optimizer.register_step_pre_hook(self._mark)
        self.times: list[float] = []

    def __call__(self) -> list[float]:
        """Takes a step; returns the seconds of each of :data:`PARTS`."""
        self.times = []
        self._mark()
        ascend(self.module, self.optimizer, *self.samples)
        self._mark()
        return [end - start for start, end in pairwise(self.times)]

    def _mark(self, *_: Any) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter() if self.device == "cuda" else time.thread_time())

    def bytes(self) -> int:
        """Of parameters, gradients, moments, and of every tensor that a forward pass keeps, each storage once."""
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            value = self.module(torch.cat(self.samples))
        parameters = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in self.module.parameters()}
        del value  # alive until here, so that no two tensors took one place
        return 4 * sum(parameters.values()) + sum(size for at, size in kept.items() if at not in parameters)


def _row(critic: Make, twin: Make, dim: int, device: str) -> dict[str, Any]:
    ours, theirs = (_Steps(make(), dim, device) for make in (critic, twin))
    found: list[tuple[list[float], list[float]]] = []
    for index in range(WARM + ROUNDS):
        both = ours(), theirs()
        if index >= WARM:
            found.append(both)
    seconds, base = ([sum(parts) for parts in each] for each in zip(*found))
    low, _, high = quantiles((a / b for a, b in zip(seconds, base)), n=4)
    spent = [median(parts) for parts in zip(*(ours_ for ours_, _ in found))]
    return {
        "milliseconds": 1e3 * median(seconds), "twin_milliseconds": 1e3 * median(base),
        "ratio": median(seconds) / median(base), "quartiles": [low, high],
        "parts": {part: value / median(base) for part, value in zip(PARTS, spent)},
        "memory": ours.bytes() / theirs.bytes(), "graph_break": _graph_break(critic(), dim),
    }  # fmt: skip


def _graph_break(module: nn.Module, dim: int) -> str | None:
    """Why the module's two passes are not one graph each, None where they are."""
    torch.compiler.reset()
    try:
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")  # which needs no compiler of C++
        compiled(torch.randn(BATCH, dim)).sum().backward()
    except Exception as error:  # a compiler may fail in any way
        return one_line(error)
    return None


def _draw(rows: list[dict[str, Any]], out: Path) -> None:
    """Medians over the seeds."""
    bars = {}
    for device, width, critic in dict.fromkeys((row["device"], row["width"], row["critic"]) for row in rows):
        of = [row for row in rows if (row["device"], row["width"], row["critic"]) == (device, width, critic)]
        where = "" if device == "cpu" and len(WIDTHS["cpu"]) == 1 else f", {width} on {device}"
        bars[critic + where] = {part: median(row["parts"][part] for row in of) for part in PARTS}
    figure = figures.stacked_bars(bars, quantity="time of a step over its unconstrained twin's", mark=1.0)
    figures.save(figure, out / "step_cost.png", dpi=130)


def _table(rows: list[dict[str, Any]]) -> str:
    heads = ["critic", "width", "device", "seed", "ms", "over its twin", "quartiles", *PARTS, "memory", "graph"]

    def cells(row: dict[str, Any]) -> list[str]:
        low, high = row["quartiles"]
        parts = [f"{row['parts'][part]:.2f}" for part in PARTS]
        figures = [f"{row['milliseconds']:.2f}", f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}", *parts]
        graph = "broken" if row["graph_break"] else "one"
        return [row["critic"], row["width"], row["device"], row["seed"], *figures, f"{row['memory']:.2f}", graph]

    return markdown_table(heads, map(cells, rows)) + "\n"
