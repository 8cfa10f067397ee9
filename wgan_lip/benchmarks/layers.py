"""Suite layers: how far each bound lies above the exact norm of its layer, and what it costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip.benchmarks.machine import milliseconds, threads, write_page, write_results
from wgan_lip.lipschitz.bounds import (
    convolution_row_scale,
    gram_bound,
    row_scale,
    upper_bound_convolution_norm,
    upper_bound_norm,
)
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.utils.tables import markdown_table

__all__ = ["measure"]

PROVED, REAL, BELOW = "yes", "up to rounding", "no: from below"
GRID = (10, 10)  # size of the images on which the exact norm of a convolution is computed


def measure(seeds: list[int], out: Path) -> str:
    """Measures every layer with every method that bounds it, on one thread; the seeds' medians."""
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    with threads():
        for seed in seeds:
            torch.manual_seed(seed)
            for layer, exact, methods in itertools.chain(_dense(), _convolutions(), _modules()):
                for method, (proves, bound) in methods.items():
                    excess = float(bound()) / exact - 1
                    found.setdefault((layer, method, proves), []).append((excess, milliseconds(bound)))
    rows = []
    for (layer, method, proves), figures in found.items():
        excess, time = torch.tensor(figures, dtype=torch.float64).median(dim=0).values.tolist()
        rows.append({"layer": layer, "method": method, "proves": proves, "excess": excess, "milliseconds": time})
    write_results("layers", seeds, out, threads=1, rows=rows)
    table = _table(rows)
    how = "One thread; medians over the seeds."
    write_page(out, title="Every layer's bound beside its exact norm", how=how, parts=[table, READING])
    return table


READING = f"""\
Exact norms are largest singular values of dense float64 matrices, those of convolutions on 8 channels of
{GRID[0]} x {GRID[1]} pixels. "Up to rounding" is an upper bound in real arithmetic whose float64 evaluation is not
certified in this use; power iteration approaches the norm from below and is used nowhere.

**Where it is loose.** Reflecting and replicating paddings are bounded through the norm of the padding itself. Zero
padding is bounded by a slightly larger torus: a few per cent on a small grid, less on larger ones. 3 x 3 kernels kept
at norm 1 by row sums end well below it; kernels on disjoint patches are tight, which is why `ConvolutionalCritic` is
built of those."""


Methods = dict[str, tuple[str, Callable[[], float | Tensor]]]


def _dense() -> Iterator[tuple[str, float, Methods]]:
    """Matrices, against the largest singular value by LAPACK in float64."""
    cases = {f"dense {n}x{n}, Gaussian": torch.randn(n, n) / math.sqrt(n) for n in (64, 256, 1024)}
    cases["dense 128x256, semi-orthogonal"] = nn.init.orthogonal_(torch.empty(128, 256))
    cases["dense 256x256, spiked"] = torch.randn(256, 256) / 16 + 100 * torch.eye(1, 256 * 256).view(256, 256)
    for name, weight in cases.items():
        exact = float(torch.linalg.matrix_norm(weight.double(), 2))
        double = weight.double()
        yield name, exact, {
            "verified Cholesky": (PROVED, partial(upper_bound_norm, weight)),
            "Gram iteration, 5": (REAL, partial(gram_bound, double, iterations=5)),
            "row sums (SDP)": (REAL, partial(_matrix_row_sums, double)),
            "Frobenius": (REAL, double.norm),
            "power iteration, 20": (BELOW, partial(_power_iteration, double, 20)),
        }  # fmt: skip


def _convolutions() -> Iterator[tuple[str, float, Methods]]:
    """Kernels with 8 channels in and out, against the operator's matrix on a 10 x 10 grid."""
    cases: dict[str, dict[str, Any]] = {
        "conv 3x3, zeros": dict(padding=1),
        "conv 3x3, circular": dict(padding=1, padding_mode="circular"),
        "conv 3x3, reflect": dict(padding=1, padding_mode="reflect"),
        "conv 3x3, replicate": dict(padding=1, padding_mode="replicate"),
        "conv 3x3, stride 2": dict(padding=1, stride=2),
        "conv 3x3, dilation 2": dict(padding=2, dilation=2),
        "conv 3x3, stride 2, dilation 2": dict(padding=2, stride=2, dilation=2),
        "conv 3x3, groups 4": dict(padding=1, groups=4),
        "conv 5x4, circular, padding 4": dict(kernel_size=(5, 4), padding=4, padding_mode="circular"),
        "conv 2x2, stride 2 (patches)": dict(kernel_size=2, stride=2),
    }
    for name, arguments in cases.items():
        module = nn.Conv2d(8, 8, **{"kernel_size": 3, "bias": False, **arguments}).double()
        exact = float(torch.linalg.matrix_norm(_operator(module, (8, *GRID)), 2))
        kernel = module.weight.detach()
        given = {key: getattr(module, key) for key in ("stride", "padding", "dilation", "groups", "padding_mode")}
        bound = partial(upper_bound_convolution_norm, kernel, **given)
        methods: Methods = {
            "Fourier, this size": (PROVED, partial(bound, size=GRID)),
            "Fourier, any size": (PROVED, partial(bound, size=None)),
        }
        if module.padding_mode == "zeros":
            methods["row sums (SDP)"] = (REAL, partial(_row_sums, kernel, given))
        yield name, exact, methods


def _modules() -> Iterator[tuple[str, float, Methods]]:
    """Modules of torch.nn without weights, on one channel of a 10 x 10 grid."""
    cases = {
        "avg-pool 2x2": nn.AvgPool2d(2),
        "avg-pool 3x3, stride 1, padding 1": nn.AvgPool2d(3, 1, 1),
        "avg-pool 3x3, stride 2, ceil mode": nn.AvgPool2d(3, 2, ceil_mode=True),
        "avg-pool 2x2, divisor 1": nn.AvgPool2d(2, divisor_override=1),
        "reflection pad 2": nn.ReflectionPad2d(2),
        "replication pad 2": nn.ReplicationPad2d(2),
        "pixel unshuffle 2": nn.PixelUnshuffle(2),
    }
    for name, module in cases.items():
        exact = float(torch.linalg.matrix_norm(_operator(module, (1, *GRID)), 2))
        yield name, exact, {"claim, any size": (PROVED, partial(_claimed, module))}


def _operator(module: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """The matrix of a linear module on inputs of this shape, (inputs, outputs), float64."""
    units = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    with torch.no_grad():
        return module(units).flatten(1)


def _claimed(module: nn.Module) -> float:
    return certify(module).lipschitz


def _matrix_row_sums(matrix: Tensor) -> Tensor:
    return row_scale(matrix).max().sqrt()


def _row_sums(kernel: Tensor, given: dict[str, Any]) -> Tensor:
    return convolution_row_scale(kernel, given["stride"], given["dilation"], given["groups"]).max().sqrt()


def _power_iteration(matrix: Tensor, steps: int) -> Tensor:
    vector = torch.randn(matrix.shape[1], dtype=matrix.dtype)
    for _ in range(steps):
        vector = matrix.mT @ (matrix @ (vector / vector.norm()))
    return (matrix @ (vector / vector.norm())).norm()


def _table(rows: list[dict[str, Any]]) -> str:
    cells = (
        [row["layer"], row["method"], row["proves"], f"{row['excess']:+.1e}", f"{row['milliseconds']:.2g}"]
        for row in rows
    )
    return markdown_table(["layer", "method", "a proof", "excess over the exact norm", "ms"], cells) + "\n"
