"""Suite tensorboard: how heavy the event file of a long run is, and how long TensorBoard takes to show it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from wgan_lip.benchmarks.machine import milliseconds, write_page, write_results
from wgan_lip.runs.run import Run
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.tables import markdown_table

__all__ = ["measure", "seconds_until", "served", "serving"]

LENGTH = ["training.steps=5000", "training.log_every=5", "training.audit_every=100"]
SMALL = [
    "critic.width=16", "critic.depth=2", "generator.width=32", "training.batch_size=64", "training.audit_size=200",
    "training.critic_steps=1", "evaluation.fit_steps=0", "evaluation.repeats=1", "evaluation.size=200",
]  # fmt: skip
CASES = {"points": "data=moons", "images": "data=digits"}
PATIENCE = 120.0  # seconds for the server


def measure(seeds: list[int], overrides: list[str], out: Path) -> str:
    """One long run of points of the plane and one of images, and the server over each."""
    rows: list[dict[str, Any]] = []
    for name, data in CASES.items():
        for seed in seeds:
            directory = out / f"{name}-{seed}" / "run"
            command = ["train", data, *LENGTH, *SMALL, f"seed={seed}", *overrides]
            shutil.rmtree(directory.parent, ignore_errors=True)
            process = [sys.executable, "-m", "wgan_lip", *command, f"hydra.run.dir={directory}"]
            if status := subprocess.run(process, check=False, stdout=subprocess.DEVNULL).returncode:
                raise InputError(f"{' '.join(command)} ended with status {status}.")
            run = Run(directory)
            audits = [record for record in run.metrics if "w1/exact" in record]
            row = {"case": name, "seed": seed, "command": f"wgan-lip {' '.join(command)}", "steps": run.status["step"]}
            row |= {"records": len(run.metrics), "audits": len(audits), "training_seconds": run.metrics[-1]["time"]}
            row["bytes"] = sum(file.stat().st_size for file in directory.glob("events.out.tfevents.*"))
            rows.append(row | served(directory.parent, last=audits[-1]["step"]))
            write_results("tensorboard", seeds, out, overrides, rows=rows)
    table = _table(rows)
    how = "Seconds from the start of the server to the last audit, milliseconds of what its pages ask for."
    write_page(out, title="TensorBoard over long runs", how=how, parts=[table])
    return table


def served(logdir: Path, last: int) -> dict[str, float]:
    """Seconds from the start of the server to the last audit, and milliseconds of what its pages ask for then."""
    with serving(logdir) as (_, ask):
        return {
            "seconds_to_last_step": seconds_until(ask, last),
            "curve_ms": milliseconds(lambda: ask("scalars/scalars", run="run", tag="w1/critic")),
            "tags_ms": milliseconds(lambda: ask("scalars/tags")),
        }


def seconds_until(ask: Callable[..., Any], last: int) -> float:
    """Waits until the server shows the audit at step `last` of the run named run."""
    start = time.perf_counter()
    while not _reaches(ask, last):
        if time.perf_counter() - start > PATIENCE:
            raise InputError(f"TensorBoard did not serve step {last} within {PATIENCE:g} s. Try again.")
        time.sleep(0.05)
    return time.perf_counter() - start


def _reaches(ask: Callable[..., Any], last: int) -> bool:
    try:
        curve = ask("scalars/scalars", run="run", tag="w1/exact")
    except (URLError, OSError):
        return False  # it has not started, or not read that far
    return bool(curve) and curve[-1][1] == last


@contextmanager
def serving(logdir: Path) -> Iterator[tuple[str, Callable[..., Any]]]:
    """TensorBoard over a folder: its address, and a function that asks one of its plugins."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    address = f"http://127.0.0.1:{port}/"

    def ask(path: str, **query: str) -> Any:
        with urlopen(f"{address}data/plugin/{path}?{urlencode(query)}", timeout=30) as answer:
            return json.load(answer)

    try:
        yield address, ask
    finally:
        process.terminate()
        process.wait(timeout=30)


def _table(rows: list[dict[str, Any]]) -> str:
    heads = ["run", "steps", "records", "audits", "event file, MB", "s until its last step is served", "ms a curve"]
    cells = (
        [row["case"], row["steps"], row["records"], row["audits"], f"{row['bytes'] / 1e6:.2f}",
         f"{row['seconds_to_last_step']:.1f}", f"{row['curve_ms']:.0f}"]
        for row in rows
    )  # fmt: skip
    return markdown_table(heads, cells) + "\n"
