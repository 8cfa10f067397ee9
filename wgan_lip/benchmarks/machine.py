"""What a figure was measured on, and how long a call takes there."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from wgan_lip.runs.folder import read_json, versions
from wgan_lip.utils.files import write_json, write_whole

__all__ = ["in_turns", "machine", "milliseconds", "peak_memory", "threads", "turns_of", "write_page", "write_results"]


@contextmanager
def threads(count: int = 1) -> Iterator[None]:
    """So many threads for torch and for every BLAS: one, so that figures do not depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def milliseconds(call: Callable[[], Any], *, repeats: int = 9, seconds: float = 3.0) -> float:
    """The median time of a call: after one that warms up, up to `repeats` calls within about `seconds`."""
    call()
    times: list[float] = []
    while len(times) < repeats and sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * median(times)


def turns_of(
    calls: Mapping[str, Callable[[], Any]], *, turns: int, seconds: float, children: bool = False
) -> list[dict[str, float]]:
    """CPU seconds of every call, turn by turn: what disturbs one call disturbs the others.

    Arguments:
        calls: By name, warmed up.
        turns: At most; there are three at least, and no more after `seconds` of them.
        seconds: Of all turns together.
        children: Count the processes that a call starts and waits for, not its own.
    """
    found: list[dict[str, float]] = []
    while len(found) < 3 or (len(found) < turns and sum(sum(turn.values()) for turn in found) < seconds):
        turn = {}
        for name, call in calls.items():
            start = _cpu_seconds(children)
            call()
            turn[name] = _cpu_seconds(children) - start
        found.append(turn)
    return found


def in_turns(calls: Mapping[str, Callable[[], Any]], **settings: Any) -> dict[str, float]:
    """The median CPU seconds of every call; settings as :func:`turns_of` takes them."""
    found = turns_of(calls, **settings)
    return {name: median(turn[name] for turn in found) for name in calls}


def _cpu_seconds(children: bool) -> float:
    times = os.times()
    return times.children_user + times.children_system if children else time.process_time()


def peak_memory(*, reset: bool = False) -> int | None:
    """The process's peak of resident bytes since the last reset, None where the system does not say."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is resident now
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None


def machine() -> dict[str, str]:
    """Versions, processor, memory and GPU, to stand beside figures."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {**versions(), "processor": _processor(), "memory": _memory(), "gpu": gpu}


def write_results(suite: str, seeds: Sequence[int], out: Path, overrides: Sequence[str] = (), **content: Any) -> None:
    """Writes `out/results.json`: the command, the machine, and the content, such as all rows."""
    arguments = f""" "overrides=[{",".join(f"'{override}'" for override in overrides)}]\"""" if overrides else ""
    command = f"wgan-lip benchmark suite={suite} seeds=[{','.join(map(str, seeds))}]{arguments}"
    write_json(out / "results.json", {"suite": suite, "command": command, "machine": machine(), **content})


def write_page(out: Path, *, title: str, how: str, parts: Sequence[str]) -> None:
    """Writes `out/README.md`, in Markdown: the title, the command and the machine of `results.json`, how it measured,
    and the parts."""
    results = read_json(out / "results.json")
    about = results["machine"]
    made = f"{about['processor']}, {about['machine']}, torch {about['torch']}. {how}"
    text = [f"# {title}", f"    {results['command']}", made, *(part.strip() for part in parts if part)]
    write_whole(out / "README.md", ("\n\n".join(text) + "\n").encode())


def _memory() -> str:
    try:
        import psutil  # the extra `benchmark`
    except ImportError:
        return "unknown: install wgan-lip[benchmark]"
    return f"{psutil.virtual_memory().total / 2**30:.0f} GiB"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
