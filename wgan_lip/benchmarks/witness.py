"""Suites witness and witness_large: how long the checker of witnesses takes, in a Python without any package."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from wgan_lip.benchmarks.machine import threads, write_page, write_results
from wgan_lip.critics import MeanCritic, ResNetCritic
from wgan_lip.data.oracles import RayMonotone
from wgan_lip.lipschitz.witness import CHECKER, save_witness
from wgan_lip.transport import Plan, Potential
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.referee import CertifiedInterval

__all__ = ["measure", "measure_large"]

POINTS = (2_000, 10_000)  # a side, in the plane
MANY = (100_000,)
CRITICS = {
    "the default critic on digits": lambda: ResNetCritic(64),
    "the mean of four of them": lambda: MeanCritic(ResNetCritic(64), members=4),
}


def measure(seeds: list[int], out: Path) -> str:
    """Witnesses of critics, and of intervals around W1 of thousands of points."""
    return _measured("witness", seeds, out, list(CRITICS), POINTS)


def measure_large(seeds: list[int], out: Path) -> str:
    """A witness of an interval around W1 of 100,000 points a side, which takes minutes to check."""
    return _measured("witness_large", seeds, out, [], MANY)


def _measured(suite: str, seeds: list[int], out: Path, critics: list[str], points: tuple[int, ...]) -> str:
    rows: list[dict[str, Any]] = []
    with threads(), TemporaryDirectory() as folder:
        path = Path(folder) / "witness.json"
        for seed in seeds:
            for about in _saved(path, seed, critics, points):
                rows.append({**about, "seed": seed, "bytes": path.stat().st_size, **_checked(path)})
                write_results(suite, seeds, out, threads=1, rows=rows)
    lines = [[row["of"], f"{row['bytes'] / 1e6:.2f}", f"{row['cpu_seconds']:.1f}", row["line"]] for row in rows]
    table = markdown_table(["a witness of", "MB", "CPU s", "the checker's line begins"], lines) + "\n"
    write_page(out, title="How long a witness takes to check", how=HOW, parts=[table])
    return table


HOW = """\
By `python -I -S check_witness.py FILE`: the standard library alone, one process. The points are pairs of the oracle
RayMonotone(dim=2, funnels=16, seed=1), whose optimal plan and potential are known."""


def _saved(path: Path, seed: int, critics: list[str], points: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Saves one witness after the other in `path`, and says what each is of."""
    for name in critics:
        torch.manual_seed(seed)
        save_witness(CRITICS[name](), path)
        yield {"of": name}
    oracle = RayMonotone(dim=2, funnels=16, seed=1)
    for n in points:
        x, y = oracle.pair(n, torch.Generator().manual_seed(seed))
        plan, potential = Plan(np.arange(n), np.arange(n), np.ones(n), (n, n)), Potential(y, -oracle.potential(y))
        w1 = math.fsum((x - y).norm(dim=1).tolist()) / n  # which the checker has to prove, within 1e-12
        ends, unknown = (w1 - 1e-12, w1 + 1e-12), (None, None, None)  # its cost, what it is off, the dual value
        CertifiedInterval(*ends, plan, potential, *unknown, x, y, None, None).save_witness(path)
        yield {"of": f"W1, {n:,} and {n:,} points of R^2", "n": n}


def _checked(path: Path) -> dict[str, Any]:
    before = os.times()
    done = subprocess.run([sys.executable, "-I", "-S", CHECKER, path], capture_output=True, text=True, check=True)
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return {"cpu_seconds": seconds, "line": done.stdout.split(" from ")[0].split(" of ")[0].strip()}
