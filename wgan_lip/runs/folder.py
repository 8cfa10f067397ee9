"""The folder of a run: its files, its lock and its status.

A folder may come from anyone. Its files are read as plain data: JSON, and YAML without tags or aliases, up to a size.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import yaml

import wgan_lip
from wgan_lip.runs.checkpoints import CHECKPOINT
from wgan_lip.utils.checks import InputError, one_line
from wgan_lip.utils.files import open_regular, read_regular, utf8, write_json, write_whole

__all__ = [
    "CERTIFICATE",
    "CONFIG",
    "METRICS",
    "OVERRIDES",
    "RESULT",
    "STATUS",
    "SUMMARY",
    "claimed",
    "create_run",
    "damaged",
    "failures_recorded",
    "is_claimed",
    "read_json",
    "read_json_list",
    "read_status",
    "read_yaml",
    "reopen_run",
    "set_status",
    "versions",
    "yaml_text",
]

CONFIG, CERTIFICATE, LOCK = "config.yaml", "certificate.json", ".lock"
METRICS, OVERRIDES, STATUS, SUMMARY = "metrics.jsonl", "overrides.json", "status.json", "summary.json"
RESULT = "result.json"  # of an estimate

STATES = ("running", "finished", "interrupted", "failed", "unknown")
LARGEST_YAML, LARGEST_JSON = 2**18, 2**24  # bytes; a configuration or a summary has about 3,000


def create_run(directory: str | Path, config: Mapping[str, Any], overrides: list[str]) -> Path:
    """Makes a run's folder and writes its configuration, its overrides and a first status.

    Raises:
        InputError: The folder already holds a run (nothing is overwritten), or can't be written to.
    """
    directory = Path(directory)
    taken = [name for name in (CHECKPOINT, CONFIG, STATUS, METRICS) if os.path.lexists(directory / name)]
    if taken:
        raise InputError(
            f"{directory} already holds a run ({', '.join(taken)}). Choose another folder, or resume the run."
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write_settings(directory, config, overrides)
        set_status(directory, "running")
    except OSError as error:
        raise InputError(f"{directory} can't be written to: {error.strerror}.") from None
    return directory


def reopen_run(directory: Path, config: Mapping[str, Any], overrides: list[str]) -> None:
    """Prepares a run's folder to continue: the configuration may now allow more, and the summary is removed.

    Arguments:
        directory: Its folder.
        config: Its configuration from now on.
        overrides: The overrides given now; they replace earlier ones of the same keys in the record.
    """
    keys = {override.partition("=")[0] for override in overrides}
    before: list[str] = []
    with suppress(InputError, FileNotFoundError):
        before = [entry for entry in read_json_list(directory / OVERRIDES) if entry.partition("=")[0] not in keys]
    _write_settings(directory, config, [*before, *overrides])
    (directory / SUMMARY).unlink(missing_ok=True)
    set_status(directory, "running")


def _write_settings(directory: Path, config: Mapping[str, Any], overrides: list[str]) -> None:
    if (name := utf8(str(directory))) != str(directory):  # TensorBoard can't write there
        raise InputError(f"The name of the run folder, {name}, is not UTF-8. Rename it, or choose another.")
    write_json(directory / OVERRIDES, overrides)
    write_whole(directory / CONFIG, yaml_text(config).encode())


def yaml_text(config: Mapping[str, Any]) -> str:
    """A configuration, plain data, as the text of `config.yaml`."""
    return yaml.dump(dict(config), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a mapping of plain data: strings, numbers, booleans, null, lists, and mappings by strings.

    Tags and aliases are refused: tags would name classes, and aliases can turn a few lines into gigabytes. Text that
    looks like an interpolation stays text.

    Raises:
        InputError: Anything else, or more than :data:`LARGEST_YAML` bytes.
    """
    try:
        content = yaml.load(read_regular(path, limit=LARGEST_YAML).decode(), Loader=_PlainLoader)
        if not isinstance(content, dict):
            raise ValueError("not a mapping")
        return _of_text(content)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise damaged(path, error) from None


class _PlainLoader(yaml.SafeLoader):
    """YAML as :func:`read_yaml` accepts it."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it holds an alias. Write out the value instead")
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag not in PLAIN_TAGS:
            raise ValueError(f"it holds a value with the tag {node.tag}")
        return super().construct_object(node, deep)

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[str, Any]:
        mapping = super().construct_mapping(node, deep)
        if unnamed := [key for key in mapping if not isinstance(key, str)]:
            raise ValueError(f"it holds the key {unnamed[0]!r}, which is not a string")
        return mapping


class _PlainDumper(yaml.SafeDumper):
    """YAML without aliases, even if two settings are the same object."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.Node:
        """Text, quoted if it has characters to escape, some of which a reader would take for line ends."""
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')


_PlainDumper.add_representer(str, _PlainDumper.represent_str)


PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}
# A date in a configuration is text, as for OmegaConf, which composed it.
_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in PLAIN_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Locks a run's folder for this process; the system releases the lock when the process ends, however it ends.

    Raises:
        InputError: Another process holds the lock.
    """
    descriptor = open_regular(directory / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        if _locked(descriptor) is False:
            raise InputError(f"{directory} is being trained by another process. Wait for it, or stop it.")
        yield
    finally:
        os.close(descriptor)


def is_claimed(directory: Path) -> bool | None:
    """Whether another process has locked a run's folder; None if that is unknown, for example without a lock file."""
    try:
        descriptor = open_regular(directory / LOCK)
    except OSError:
        return None
    try:
        held = _locked(descriptor, shared=True)
        return None if held is None else not held
    finally:
        os.close(descriptor)


def _locked(descriptor: int, *, shared: bool = False) -> bool | None:
    """Whether this process got a lock; None on a system or file system without locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def set_status(
    directory: Path, state: str, *, reason: str | None = None, kind: str | None = None, step: int | None = None
) -> None:
    """Writes `status.json`: running, finished, interrupted or failed, the reason, the step, time and versions.

    `kind` is the class of the error behind a failure. The starting time, and the step if none is given, are kept from
    the old file if it can be read.
    """
    now = time.time()
    before = {"started": now, "step": 0}
    with suppress(InputError, FileNotFoundError):
        before |= read_status(directory)
    after = {"state": state, "reason": reason, "kind": kind, "step": before["step"] if step is None else step}
    write_json(directory / STATUS, {**before, **after, "pid": os.getpid(), "updated": now, "versions": versions()})


def read_status(directory: Path) -> dict[str, Any]:
    """Reads what :func:`set_status` wrote: `state` and `step`, and if present `reason`, the times and versions.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It is damaged, or holds something that no status holds.
    """
    path = directory / STATUS
    content = read_json(path)
    legal = {
        "state": lambda value: value in STATES,
        "step": lambda value: type(value) is int and 0 <= value < 2**63,
        "reason": lambda value: value is None or isinstance(value, str),
        "kind": lambda value: value is None or isinstance(value, str),
        "started": _is_time,
        "updated": _is_time,
        "versions": lambda value: isinstance(value, dict) and all(isinstance(part, str) for part in value.values()),
    }
    content = {"step": 0} | content
    for key, is_legal in legal.items():
        if (key in content or key == "state") and not is_legal(content.get(key)):
            raise damaged(path, ValueError(f"its {key} is {str(content.get(key))[:60]!r}"))
    return {key: content[key] for key in legal if key in content}


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e11  # until the year 5138


@contextmanager
def failures_recorded(directory: Path) -> Iterator[None]:
    """Records in the run's status why it ended early."""
    try:
        yield
    except BaseException as error:
        state, reason = "failed", f"{type(error).__name__}: {error}"
        if isinstance(error, KeyboardInterrupt):
            state, reason = "interrupted", str(error) or "interrupted by the user"
        elif isinstance(error, InputError):
            reason = str(error)
        with suppress(OSError):  # such as on a full disk
            set_status(directory, state, reason=reason, kind=type(error).__name__)
        raise


def versions() -> dict[str, str]:
    """The versions that the numbers of this run were computed with."""
    return {
        "wgan_lip": wgan_lip.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It is damaged, or larger than :data:`LARGEST_JSON`.
    """
    return _read_json(path, dict)


def read_json_list(path: Path) -> list[str]:
    """Reads a JSON list, its entries as text. Raises as :func:`read_json` does."""
    return [str(entry) for entry in _read_json(path, list)]


def _read_json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(read_regular(path, limit=LARGEST_JSON))
        if not isinstance(content, kind):
            raise ValueError(f"it holds a {type(content).__name__}, not a {kind.__name__}")
        return _of_text(content)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, error) from None


def _of_text(content: Any) -> Any:
    """Returns plain data whose strings are text or file names of any bytes. Raises ValueError on other strings."""
    json.dumps(content, ensure_ascii=False).encode(errors="surrogateescape")
    return content


def damaged(path: Path, error: Exception) -> InputError:
    """The error about a file of a run that can't be used."""
    what = getattr(error, "strerror", None) or (str(error) if type(error) is ValueError else one_line(error))
    return InputError(f"{path.name} in {path.parent} is damaged: {what}. Restore it, or train again.")
