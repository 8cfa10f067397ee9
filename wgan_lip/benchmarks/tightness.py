"""Suite tightness: for every critic, the constant that is proved beside the steepest slope that a search finds."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip.benchmarks.machine import threads, write_page, write_results
from wgan_lip.critics import ConvolutionalCritic, FixedWidthCritic, ResNetCritic, SortingCritic
from wgan_lip.critics.compiled import critic_from_transport
from wgan_lip.data import Digits, Gaussians8, Moons
from wgan_lip.lipschitz.adversary import estimate_lipschitz
from wgan_lip.lipschitz.certificates import certify, evaluate
from wgan_lip.lipschitz.layers import ACTIVATIONS
from wgan_lip.transport import solve
from wgan_lip.utils.numbers import rounded_up
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.dual import fitted

__all__ = ["measure"]

SAMPLES = {"plane": 200, "digits": 50}  # of each law; all pairs of digits are pieces of a compiled critic
STEPS = 500  # full-batch ascents of every critic that is trained

PLANE: dict[str, Callable[[], nn.Module]] = {
    **{
        f"residual, {name}": partial(ResNetCritic, 2, width=64, depth=6, activation=name, bias_scale=0.2)
        for name in (*ACTIVATIONS, "spline")
    },
    "residual, maximum norm": lambda: ResNetCritic(2, width=64, depth=6, norm="max", bias_scale=1.0),
    "residual, cones read-out": lambda: ResNetCritic(2, width=64, depth=6, bias_scale=0.2, readout="cones"),
    "fixed width": lambda: FixedWidthCritic(2, depth=16),
    "sorting, pairs": lambda: SortingCritic(2, width=64, depth=4),
    "sorting, full": lambda: SortingCritic(2, width=64, depth=4, group=64),
}
DIGITS: dict[str, Callable[[], nn.Module]] = {
    "residual, relu": lambda: ResNetCritic(64, width=128, depth=6),
    "sorting, pairs": lambda: SortingCritic(64, width=128, depth=4),
    "convolutional": lambda: ConvolutionalCritic((1, 8, 8)),
}


LOOSE = 1.05  # constant over steepest slope


def measure(seeds: list[int], out: Path) -> str:
    """Trains every critic by the same full-batch ascents, compiles others, and searches them all, on one thread."""
    rows: list[dict[str, Any]] = []
    with threads():
        for seed in seeds:
            pairs = {"moons, gaussians8": (PLANE, *_plane(seed)), "digits 0-4, 5-9": (DIGITS, *_digits())}
            for data, (zoo, x, y) in pairs.items():
                exact = solve(x, y).value
                for name, make in _makers(zoo, x, y).items():
                    torch.manual_seed(seed)
                    rows.append({"data": data, "critic": name, "seed": seed, "exact": exact, **_row(name, make, x, y)})
                    write_results("tightness", seeds, out, threads=1, rows=rows)
    table = _table(rows)
    how = f"One thread; {STEPS} full-batch ascents, or compiled."
    write_page(out, title="How tight a certificate is", how=how, parts=[table, READING, _loose(rows)])
    return table


READING = """\
The proved constant beside the steepest slope that a search finds: multi-start ascent of difference quotients and of
gradient norms. A KR value over exact W1 below 1 is what these few ascents left undone, not a gap of the certificate."""


def _loose(rows: list[dict[str, Any]]) -> str:
    loose = [row for row in rows if row["lipschitz"] > LOOSE * row["found"]]
    if not loose:
        return f"No constant is more than {LOOSE} times the steepest slope found."
    told = (f"{row['critic']} on {row['data']} ({row['lipschitz'] / row['found']:.3f})" for row in loose)
    return f"**Where it is loose.** More than {LOOSE} times the steepest slope found: {', '.join(told)}."


def _makers(zoo: dict[str, Callable[[], nn.Module]], x: Tensor, y: Tensor) -> dict[str, Callable[[], nn.Module]]:
    trained = {name: lambda make=make: fitted(make(), x, y, steps=STEPS) for name, make in zoo.items()}
    families = ("resnet", "fixed_width")
    return {**trained, **{f"compiled, {f}": partial(critic_from_transport, x, y, family=f) for f in families}}


def _row(name: str, make: Callable[[], nn.Module], x: Tensor, y: Tensor) -> dict[str, Any]:
    start = time.perf_counter()
    critic = make()
    made = time.perf_counter()
    lipschitz = certify(critic).lipschitz
    certified = time.perf_counter()
    found = estimate_lipschitz(critic, torch.cat((x, y)))
    searched = time.perf_counter()
    if found > lipschitz:
        raise RuntimeError(f"The certificate of '{name}' states {lipschitz}, but a search found {found}: a bug.")
    values = evaluate(critic, torch.cat((x, y))).values
    value = float(values[: len(x)].mean() - values[len(x) :].mean())
    return {
        "lipschitz": lipschitz, "found": found, "kr_value": value, "seconds_making": made - start,
        "seconds_certifying": certified - made, "seconds_searching": searched - certified,
    }  # fmt: skip


def _plane(seed: int) -> tuple[Tensor, Tensor]:
    return Moons().reference(SAMPLES["plane"], seed).double(), Gaussians8().reference(SAMPLES["plane"], seed).double()


def _digits() -> tuple[Tensor, Tensor]:
    source = Digits()
    low = source.train_labels < 5
    return source.train[low][: SAMPLES["digits"]].double(), source.train[~low][: SAMPLES["digits"]].double()


def _table(rows: list[dict[str, Any]]) -> str:
    heads = ["samples", "critic", "Lip ≤", "largest gradient found", "KR value over exact W1", "s to make"]
    cells = (
        [row["data"], row["critic"], rounded_up(row["lipschitz"], 7), f"{row['found']:.4f}",
         f"{row['kr_value'] / row['exact']:.4f}", f"{row['seconds_making']:.1f}", f"{row['seconds_certifying']:.2f}"]
        for row in rows
    )  # fmt: skip
    return markdown_table([*heads, "s to certify"], cells) + "\n"
