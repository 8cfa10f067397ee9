"""What `wgan-lip train --dry-run` shows: settings, modules with their constants, steps, time and memory."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from wgan_lip.cli.players import build_optimizer, built_players, resolved
from wgan_lip.data import Source
from wgan_lip.generators import draw_latents
from wgan_lip.lipschitz.bounds import product_up
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import Retraction, constrain_steps
from wgan_lip.runs.folder import yaml_text
from wgan_lip.training import train_wgan
from wgan_lip.training.settings import Training
from wgan_lip.transport import BYTES_PER_PAIR
from wgan_lip.utils.checks import available_memory
from wgan_lip.utils.numbers import clock_time, rounded_up
from wgan_lip.utils.terminal import say
from wgan_lip.wasserstein.dual import ascend, kr_value

__all__ = ["ModuleRow", "describe", "dry_run", "estimate_memory", "estimate_step_seconds"]

REPEATS, TIMED = 50, 0.5  # at most so many steps are timed, for about so many seconds


def dry_run(config: DictConfig) -> None:
    """Builds everything that a training run would use, shows it, and writes nothing."""
    settings = resolved(config)
    settings.pop("resume")
    players, training = built_players(settings), Training(**settings["training"])
    source, critic, generator = players.source, players.critic, players.generator
    train_wgan(  # refuses what training would refuse; takes no step
        source,
        generator,
        critic,
        training,
        generator_optimizer=players.generator_optimizer,
        critic_optimizer=players.critic_optimizer,
        seed=settings["seed"],
    )
    device = next(critic.parameters()).device
    latents = draw_latents(generator, 2, torch.Generator(device).manual_seed(0))
    optimizers = {
        "critic_optimizer": partial(build_optimizer, "critic", settings),
        "generator_optimizer": partial(build_optimizer, "generator", settings),
    }
    part = training.batch_size // training.accumulate
    memory = estimate_memory(source, generator, critic, **optimizers, batch_size=part, audit_size=training.audit_size)
    seconds = estimate_step_seconds(source, generator, critic, **optimizers, batch_size=part)
    say(
        "\n".join([
            yaml_text(settings).rstrip(),
            "",
            *_table("Generator", describe(generator, latents, certified=False)),
            "",
            *_table("Critic", describe(critic, source.test[:2].to(device), certified=True)),
            "",
            *_counts(training, source),
            "",
            *_times(training, *(training.accumulate * of_part for of_part in seconds)),
            "",
            *_memory(memory, device),
            "",
            "  Nothing was written. Leave --dry-run out to train.",
        ])
    )  # fmt: skip


def _counts(training: Training, source: Source) -> list[str]:
    """How much there is to do."""
    steps, batch, size = training.total, training.batch_size, source.size
    critic_steps = training.in_all(steps)
    passes = f"{critic_steps * batch / size:,.1f} passes through {size:,}" if size else "fresh samples of a law"
    audits = math.ceil(steps / training.audit_every)
    return [
        _row("Steps", f"{steps:,}", f"of the generator, and {critic_steps:,} of the critic"),
        _row("Real samples", f"{critic_steps * batch:,}", passes),
        _row("Generated samples", f"{(critic_steps + steps) * batch:,}", f"in batches of {batch:,}"),
        _row("Audits", f"{audits:,}", f"of {min(training.audit_size, len(source.test)):,} samples of each law"),
    ]


def _times(training: Training, critic_step: float, generator_step: float) -> list[str]:
    steps = training.total
    total = steps * generator_step + training.in_all(steps) * critic_step
    limit = "" if training.max_seconds is None else f"; max_seconds ends it after {clock_time(training.max_seconds)}"
    return [
        _row("Training, about", clock_time(total), f"at this machine's speed now, without audits and scores{limit}"),
        _row("", f"{1e3 * generator_step:.1f} ms", "per generator step"),
        _row("", f"{1e3 * critic_step:.1f} ms", "per critic step"),
    ]


def _memory(memory: Mapping[str, int], device: torch.device) -> list[str]:
    total = sum(memory.values())
    free = available_memory() if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    lines = [_row("Memory, about" if not index else "", _size(count), purpose)
             for index, (purpose, count) in enumerate(memory.items())]  # fmt: skip
    lines.append(_row("", _size(total), "in total, besides torch itself"))
    if free is not None:
        enough = "" if total < free else "; too little: lower training.batch_size, or the sizes of critic and generator"
        lines.append(_row("", _size(free), f"free now on {device}{enough}"))
    return lines


def _size(count: int) -> str:
    for unit, width in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 2**width:
            return f"{count / 2**width:.1f} {unit}"
    return f"{count} B"


def _table(title: str, rows: Sequence[ModuleRow]) -> list[str]:
    """One line per module, cut at 120 columns."""
    cells = [["module", "output", "parameters", "layer"]]
    for row in rows:
        shape = "" if row.shape is None else " x ".join(map(str, row.shape)) or "scalar"
        cells.append([row.path, shape, f"{row.parameters:,}", row.layer])
    cells.append(["all", "", f"{sum(row.parameters for row in rows):,}", ""])
    constants = [row.lipschitz for row in rows if row.lipschitz is not None]
    if constants:
        shown = ["Lip ≤", *map(partial(rounded_up, digits=7), [*constants, product_up(*constants)])]
        cells = [[*line[:3], constant, line[3]] for line, constant in zip(cells, shown)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]
    return [title, *(f"  {line}"[:120] for line in lines)]


def _row(name: str, figure: str, comment: str) -> str:
    return f"  {name:<17} {figure:>14}  {comment}"


@dataclass(frozen=True)
class ModuleRow:
    """A module: its path, its layer, its output shape, its number of parameters, its Lipschitz constant if proved."""

    path: str
    layer: str
    shape: tuple[int, ...] | None
    parameters: int
    lipschitz: float | None = None


def describe(player: nn.Module, batch: Tensor, *, certified: bool) -> list[ModuleRow]:
    """The layers of a generator or a critic, in order.

    Arguments:
        player: The module before the first step. It is left unchanged.
        batch: A batch of its input, (b, …), b ≥ 2.
        certified: Whether to list the layers of its proof, retracted as in training, with their constants; otherwise
            the modules that contain no others are listed.
    """
    player, constants = copy.deepcopy(player).eval(), {}
    found = dict(player.named_modules())
    if certified:
        Retraction(player)()
        constants = {layer.path: layer.lipschitz for layer in certify(player).layers}
        modules = {path: found.get(path, player) for path in constants}
    else:
        modules = {path: module for path, module in found.items() if next(module.children(), None) is None}
    shapes: dict[str, tuple[int, ...]] = {}
    for path, module in modules.items():
        module.register_forward_hook(lambda _, __, output, path=path: shapes.update({path: tuple(output.shape[1:])}))
    with torch.no_grad():
        player(batch)
    return [
        ModuleRow(
            path or type(player).__name__,
            " ".join(repr(module).split()).replace("( ", "(").replace(" )", ")"),
            shapes.get(path),
            sum(parameter.numel() for parameter in module.parameters()),
            constants.get(path),
        )
        for path, module in modules.items()
    ]


def estimate_memory(
    source: Source,
    generator: nn.Module,
    critic: nn.Module,
    *,
    generator_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    critic_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    batch_size: int,
    audit_size: int,
) -> dict[str, int]:
    """Bytes that training takes, by purpose, measured on copies of generator and critic with small batches.

    Torch itself, workspaces of single operations and the allocator's fragmentation are not counted.

    Arguments:
        source: The data.
        generator: Latents (b, k) → samples (b, d).
        critic: Samples (b, d) → values (b,).
        generator_optimizer: Module → its optimiser.
        critic_optimizer: Module → its optimiser.
        batch_size: Samples b of each law per step.
        audit_size: Samples of each law in an audit.
    """
    generator, critic = copy.deepcopy(generator).train(), copy.deepcopy(critic).train()
    device = next(critic.parameters()).device
    rng = torch.Generator(device).manual_seed(0)
    optimizers = critic_optimizer(critic), generator_optimizer(generator)
    saved = {}
    for size in (2, 6):
        x, latents = source.test[:1].expand(size, -1).to(device), draw_latents(generator, size, rng)
        with torch.no_grad():
            y = generator(latents)
        with _saved_bytes((critic, generator)) as ascent:
            ascend(critic, optimizers[0], x, y)
        with _saved_bytes((critic, generator)) as descent:
            (-kr_value(critic, x, generator(latents))).backward()
        saved[size] = max(ascent[0], descent[0])
    optimizers[1].step()
    weights = [_bytes(_tensors(player)) for player in (generator, critic)]
    moments = sum(_bytes(state) for optimizer in optimizers for state in _states(optimizer))
    slope = (saved[6] - saved[2]) / 4
    audited = min(audit_size, len(source.test))
    return {
        "data": _bytes(value for value in vars(source).values() if isinstance(value, Tensor)),
        "weights of the generator, its average and the critic": 2 * weights[0] + weights[1],
        "gradients": sum(_bytes(player.parameters()) for player in (generator, critic)),
        "optimisers": moments,
        "last good state": 2 * weights[0] + weights[1] + moments,
        f"activations of a step, {batch_size} samples": round(max(0, saved[2] + slope * (batch_size - 2))),
        f"an audit, {audited} x {audited} distances": BYTES_PER_PAIR * audited**2,
    }


def estimate_step_seconds(
    source: Source,
    generator: nn.Module,
    critic: nn.Module,
    *,
    generator_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    critic_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    batch_size: int,
) -> tuple[float, float]:
    """Seconds per critic step and per generator step on copies of both networks: medians over about a second.

    The arguments are those of :func:`estimate_memory`. Reading or drawing the samples is not counted.
    """
    generator, critic = copy.deepcopy(generator).train(), copy.deepcopy(critic).train()
    device = next(critic.parameters()).device
    rng = torch.Generator(device).manual_seed(0)
    critic_steps, generator_steps = critic_optimizer(critic), generator_optimizer(generator)
    constrain_steps(critic_steps, critic)
    x = source.test[torch.arange(batch_size) % len(source.test)].to(device)

    def critic_step() -> None:
        with torch.no_grad():
            y = generator(draw_latents(generator, batch_size, rng))
        ascend(critic, critic_steps, x, y)

    def generator_step() -> None:
        generator_steps.zero_grad(set_to_none=True)
        (-critic(generator(draw_latents(generator, batch_size, rng))).mean()).backward()
        generator_steps.step()

    return _median_seconds(critic_step, device), _median_seconds(generator_step, device)


def _median_seconds(call: Callable[[], None], device: torch.device) -> float:
    found: list[float] = []
    while len(found) < 4 or (len(found) < REPEATS and sum(found) < TIMED):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    return median(found[2:])  # during the first ones, torch still loads things


@contextmanager
def _saved_bytes(players: tuple[nn.Module, ...]) -> Iterator[list[int]]:
    """Counts the bytes that autograd keeps for the backward pass, without the networks' parameters and buffers."""
    seen = {tensor.untyped_storage().data_ptr() for player in players for tensor in _tensors(player)}
    kept: list[Tensor] = []  # so that no storage is freed and counted again under its old address
    total = [0]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            kept.append(tensor.detach())
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total


def _tensors(player: nn.Module) -> Iterator[Tensor]:
    yield from player.parameters()
    yield from player.buffers()


def _states(optimizer: torch.optim.Optimizer) -> Iterator[list[Tensor]]:
    for state in optimizer.state.values():
        yield [value for value in state.values() if isinstance(value, Tensor)]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
