"""Suite density: both families close in on a smooth 1-Lipschitz function as they grow, compiled and trained."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip import figures
from wgan_lip.benchmarks.machine import threads, write_page, write_results
from wgan_lip.critics import FixedWidthCritic, ResNetCritic
from wgan_lip.critics.compiled import compile_fixed_width, compile_resnet, interpolate
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import constrain_steps
from wgan_lip.lipschitz.optimizers import parameter_groups
from wgan_lip.utils.numbers import rounded_up
from wgan_lip.utils.tables import markdown_table

__all__ = ["measure"]

GRIDS = (4, 6, 8, 12, 16)  # the lattice interpolates the target on k x k points of the square
WIDTHS = (4, 8, 16, 32, 64)
DEPTHS_A = (3, 12)
DEPTHS_B = (2, 4, 8, 16, 32)
STEPS = 3000
BATCH = 256


def target(x: Tensor) -> Tensor:
    r"""A smooth function with two maxima, two minima and saddles on the square [−1, 1]², shape (n, 2) → (n,).

    .. math:: f(x) = \frac{\sin 3x_1 + \sin 3x_2}{3\sqrt 2}, \qquad
        \|\nabla f\|^2 = \tfrac12 (\cos^2 3x_1 + \cos^2 3x_2) \le 1
    """
    return torch.sin(3 * x).sum(dim=1) / (3 * math.sqrt(2))


def measure(seeds: list[int], out: Path) -> str:
    """Measures the largest error on a fine grid of the square; draws `density.png`."""
    axis = torch.linspace(-1, 1, 161, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    rows: list[dict[str, Any]] = []

    def row(kind: str, family: str, size: int, seed: int | None, make: Callable[[], nn.Module], **more: Any) -> None:
        start = time.perf_counter()
        critic = make()
        seconds = time.perf_counter() - start
        with torch.no_grad():
            error = float((critic.double()(grid) - target(grid)).abs().max())
        shape = {
            "width": critic.get_parameter("lift.weight").shape[0],
            "depth": sum("block" in name for name, _ in critic.named_children()),
        }
        rows.append(
            {"kind": kind, "family": family, "size": size, "seed": seed, "error": error, **shape, **more,
             "lipschitz": certify(critic).lipschitz, "seconds": seconds}
        )  # fmt: skip

    with threads():
        for k in GRIDS:
            points = torch.cartesian_prod(*[torch.linspace(-1, 1, k, dtype=torch.float64)] * 2)
            function = interpolate(points, target(points))
            bound = 2 * math.sqrt(2) / (k - 1)  # no point of the square is farther than √2/(k − 1) from the lattice
            row("compiled", "A", k * k, None, partial(compile_resnet, function), bound=bound)
            row("compiled", "B", k * k, None, partial(compile_fixed_width, function), bound=bound)
        for seed in seeds:
            for depth in DEPTHS_A:
                for width in WIDTHS:
                    make = partial(ResNetCritic, 2, width=width, depth=depth, bias_scale=0.25)
                    row("trained", "A", width, seed, partial(_trained, make, seed))
            for depth in DEPTHS_B:
                row("trained", "B", depth, seed, partial(_trained, partial(FixedWidthCritic, 2, depth=depth), seed))
    _draw(rows, out)
    write_results("density", seeds, out, rows=rows)
    table = _table(rows)
    parts = ["![largest error of both families](density.png)", READING, table]
    write_page(out, title="How near both families come to a smooth function", how="", parts=parts)
    return table


READING = """\
Largest error on a fine grid of the square against a smooth 1-Lipschitz function. Compiled critics interpolate it on a
lattice, trained ones are fitted by least squares, medians over the seeds."""


def _trained(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Least squares on fresh uniform points by Adam, the learning rates falling along a cosine."""
    torch.manual_seed(seed)
    critic = make()
    optimizer = torch.optim.Adam(parameter_groups(critic))
    constrain_steps(optimizer, critic)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        x = 2 * torch.rand(BATCH, 2) - 1
        optimizer.zero_grad()
        (critic(x) - target(x)).square().mean().backward()
        optimizer.step()
        schedule.step()
    return critic


def _draw(rows: list[dict[str, Any]], out: Path) -> None:
    def curve(x: str, error: str = "error", **chosen: Any) -> list[tuple[float, float]]:
        """The medians over seeds, by size x, of the rows chosen."""
        of = [row for row in rows if all(row[key] == value for key, value in chosen.items())]
        return [(s, median(row[error] for row in of if row[x] == s)) for s in sorted({row[x] for row in of})]

    panels = {
        "points interpolated": {
            "compiled, one function in both families": curve("size", kind="compiled", family="A"),
            "bound 2r, r the covering radius": curve("size", "bound", kind="compiled", family="A"),
        },
        "width of family A": {
            "compiled, depth log2(width)": curve("width", kind="compiled", family="A"),
            **{f"trained, depth {d}": curve("width", kind="trained", family="A", depth=d) for d in DEPTHS_A},
        },
        "depth of family B, width 5": {
            "compiled": curve("depth", kind="compiled", family="B"),
            "trained": curve("depth", kind="trained", family="B"),
        },
    }
    figure = figures.error_curves(
        panels,
        quantity="largest error on the square",
        title="$f(x) = (\\sin 3x_1 + \\sin 3x_2)/(3\\sqrt{2})$ on $[-1, 1]^2$",
    )
    figures.save(figure, out / "density.png", dpi=130)


def _table(rows: list[dict[str, Any]]) -> str:
    """The medians over seeds."""
    lines = []
    groups: dict[tuple[str, str, int, int], list[dict[str, Any]]] = {}
    for row in rows:
        of = f", {row['size']} points" if row["kind"] == "compiled" else ""
        groups.setdefault((row["kind"] + of, row["family"], row["width"], row["depth"]), []).append(row)
    for (kind, family, width, depth), group in groups.items():
        error, lipschitz = median(row["error"] for row in group), max(row["lipschitz"] for row in group)
        lines.append([kind, family, width, depth, f"{error:.4f}", rounded_up(lipschitz, 7)])
    return markdown_table(["critic", "family", "width", "depth", "largest error", "Lip ≤"], lines) + "\n"
