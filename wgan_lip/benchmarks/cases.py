"""The cases of a suite: each is measured in a separate process and kept in a file; overrides, and cells of tables."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from statistics import fmean
from typing import Any

from wgan_lip.benchmarks.machine import machine, threads
from wgan_lip.utils.checks import InputError, one_line
from wgan_lip.utils.devices import keep_freed_memory
from wgan_lip.utils.files import write_json

__all__ = ["Piece", "mean_of", "number", "parse_overrides", "percent", "positive_number", "run_cases", "some_of"]

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WORKERS = min(2, CPUS)  # cases at a time, each on one thread


@dataclass(frozen=True)
class Piece(ABC):
    """A part of a suite that is measured separately.

    Attributes:
        labels: The first entries of its row. Its file is named after them.
    """

    labels: dict[str, Any]

    @property
    def name(self) -> str:
        return "-".join(str(value) if isinstance(value, str) else f"{k}{value}" for k, value in self.labels.items())

    @abstractmethod
    def measured(self) -> dict[str, Any]:
        """The figures of its row."""

    @abstractmethod
    def in_words(self, row: Mapping[str, Any]) -> str:
        """Its row in a few words."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything its result depends on, except the machine and the code, as JSON holds it."""


def run_cases(cases: Sequence[Piece], out: Path, *, workers: int | None = None) -> list[dict[str, Any]]:
    """Measures all cases; their rows, in order.

    Every case runs in a separate process, on one thread. Its row is written to `out/cases/NAME.json` when it ends: a
    case whose file holds the same settings is not run again. One line per case goes to standard error.

    Arguments:
        cases: Cases with different names.
        out: The suite's folder.
        workers: Cases at a time; two, or one on a machine with a single core.

    Raises:
        InputError: A file with other settings, before any case is run; a case that failed.
    """
    folder = out / "cases"
    folder.mkdir(parents=True, exist_ok=True)
    files = {case.name: folder / f"{case.name}.json" for case in cases}
    rows = {case.name: row for case in cases if (row := _stored(files[case.name], case)) is not None}
    missing = [case for case in cases if case.name not in rows]
    for case, row in _outcomes(missing, WORKERS if workers is None else workers):
        rows[case.name] = {**case.labels, **row}
        content = {"settings": case.settings(), "machine": machine(), "row": rows[case.name]}
        write_json(files[case.name], content)
        print(f"[{len(rows)}/{len(cases)}] {case.name}: {case.in_words(row)}", file=sys.stderr, flush=True)
    return [rows[case.name] for case in cases]


def _stored(path: Path, case: Piece) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        settings, row = content["settings"], dict(content["row"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {one_line(error)}. Delete it.") from None
    wanted = json.loads(json.dumps(case.settings()))
    if settings != wanted:
        keys = [key for key in {**wanted, **settings} if settings.get(key) != wanted.get(key)]
        differ = ", ".join(f"{key} {settings.get(key)!r} instead of {wanted.get(key)!r}" for key in keys)
        raise InputError(f"{path} has other settings: {differ}. Choose another out=DIR.")
    return row


def _outcomes(cases: Iterable[Piece], workers: int) -> Iterator[tuple[Piece, dict[str, Any]]]:
    """The cases with their rows, as they end; `workers` processes at a time, none of which outlives the caller."""
    context = multiprocessing.get_context("spawn")
    waiting = list(cases)[::-1]
    running: dict[Connection, tuple[Piece, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                case = waiting.pop()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(sender, case), daemon=True)
                running[receiver] = case, process
                process.start()
                sender.close()
            for receiver in {*running}.intersection(wait(list(running))):
                case, process = running[receiver]
                try:
                    row = receiver.recv()
                except EOFError:
                    process.join()
                    row = f"its process ended with status {process.exitcode}"
                _end(receiver, process)
                del running[receiver]
                if isinstance(row, str):
                    raise InputError(
                        f"The case {case.name} failed: {row}. Finished cases are kept: run the command again, or leave "
                        "this case out by overrides."
                    )
                yield case, row
    finally:
        for receiver, (_, process) in running.items():
            _end(receiver, process)


def _end(receiver: Connection, process: SpawnProcess) -> None:
    receiver.close()
    if process.pid is not None:
        process.kill()
        process.join()
    process.close()


def _child(sender: Connection, case: Piece) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    keep_freed_memory()
    with sender:
        try:
            with threads():
                row: dict[str, Any] | str = case.measured()
        except Exception as error:  # whatever it is, the parent reports it in one line
            row = one_line(error)
        sender.send(row)


def parse_overrides(overrides: Iterable[str], legal: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """`KEY=VALUE` by key, each value read by its key's function.

    Raises:
        InputError: Another form, an unknown key, a key given twice, or a value that its function refuses.
    """
    read: dict[str, Any] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or key not in legal:
            raise InputError(
                f"Overrides must have the form KEY=VALUE with KEY in {', '.join(legal)}, not {override!r}."
            )
        if key in read:
            raise InputError(f"The override {key} is given twice. Give it once.")
        read[key] = legal[key](value)
    return read


def some_of(choices: Iterable[Any], what: str) -> Callable[[str], list[Any]]:
    """Reads a list such as `2,16` of `choices`, which keep their order."""
    known = {str(choice): choice for choice in choices}

    def read(value: str) -> list[Any]:
        names = [name.strip() for name in value.split(",")]
        for name in names:
            if name not in known:
                raise InputError(f"{what} must be among {', '.join(known)}, not {name!r}.")
        return [choice for name, choice in known.items() if name in names]

    return read


def positive_number(what: str) -> Callable[[str], float]:
    """Reads a positive finite number."""

    def read(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            raise InputError(f"{what} must be a positive number, not {value!r}.")
        return number

    return read


def mean_of(rows: Iterable[Mapping[str, Any]], key: str) -> float | None:
    """The mean of the figures present; None if there are none."""
    figures = [row[key] for row in rows if row.get(key) is not None]
    return fmean(figures) if figures else None


def number(value: float | None, form: str) -> str:
    """A table cell: the number in `form`, or nothing for None."""
    return "" if value is None else form.format(value)


def percent(share: float | None) -> str:
    """A table cell: a share as a percentage with one decimal, or nothing for None."""
    return "" if share is None else f"{round(100 * share, 1) + 0.0:.1f} %"  # no -0.0
