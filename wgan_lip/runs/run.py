"""A run on disk: configuration, status, reload.

Nothing that is read from a run's folder can execute code: weights load with `weights_only=True`, configuration is
plain data, and the classes it names must lie in the few modules of :data:`wgan_lip.runs.targets.TARGETS`, or in packages
that the caller trusts. What the run itself says about trust is not heard.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

import wgan_lip
from wgan_lip.data import Source
from wgan_lip.runs.checkpoints import BEST, CHECKPOINT, read_checkpoint
from wgan_lip.runs.sampling import sample_blocks
from wgan_lip.runs.targets import build, check_trust, load_weights, target_class
from wgan_lip.runs.tracking import read_records
from wgan_lip.utils.checks import InputError, check_choice, one_line
from wgan_lip.utils.files import write_whole

__all__ = [
    "CERTIFICATE",
    "CHECKPOINT",
    "METRICS",
    "RESULT",
    "SUMMARY",
    "Run",
    "check_seed",
    "claimed",
    "create_run",
    "failures_recorded",
    "is_claimed",
    "load_run",
    "reopen_run",
    "set_status",
    "versions",
    "write_json",
]

CONFIG, CERTIFICATE, LOCK = "config.yaml", "certificate.json", ".lock"
METRICS, OVERRIDES, STATUS, SUMMARY = "metrics.jsonl", "overrides.json", "status.json", "summary.json"
RESULT = "result.json"  # of an estimate


def check_seed(seed: int) -> int:
    """Returns `seed`, or raises :class:`InputError` where torch's generators would take it for another one.

    They read the low 32 bits, and bit 31 is set in the seeds of the data's own streams: `wgan_lip.data.sources`.
    """
    if not 0 <= seed < 2**31:
        raise InputError(f"Expected a seed of at least 0 and below 2^31. Got {seed}.")
    return seed


def create_run(directory: str | Path, config: Mapping[str, Any], overrides: list[str]) -> Path:
    """Makes a run's folder and writes its configuration, its overrides and a first status.

    Raises:
        InputError: The folder holds a run already (nothing is overwritten), or can't be written to.
    """
    directory = Path(directory)
    taken = [name for name in (CHECKPOINT, CONFIG, STATUS, METRICS) if (directory / name).exists()]
    if taken:
        raise InputError(
            f"Expected an empty run folder. Got {directory}, which holds {', '.join(taken)}. "
            "Choose another hydra.run.dir."
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write_settings(directory, config, overrides)
        set_status(directory, "running")
    except OSError as error:
        raise InputError(f"Expected a folder that can be written to. Got {directory}: {error.strerror}.") from None
    return directory


def reopen_run(directory: Path, config: Mapping[str, Any], overrides: list[str]) -> None:
    """Lets a run go on: its configuration may allow more than it did, and what was concluded from it goes."""
    _write_settings(directory, config, overrides)
    (directory / SUMMARY).unlink(missing_ok=True)
    set_status(directory, "running")


def _write_settings(directory: Path, config: Mapping[str, Any], overrides: list[str]) -> None:
    write_json(directory / OVERRIDES, overrides)
    write_whole(directory / CONFIG, OmegaConf.to_yaml(OmegaConf.create(dict(config))).encode())


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Holds a run's folder for this process; the system lets go of it when the process ends, however it ends.

    Raises:
        InputError: Another process holds it.
    """
    with open(directory / LOCK, "a") as stream:
        if not _lock(stream):
            raise InputError(
                f"Expected a run that nobody plays. Got {directory}, which another process is playing. Wait for it, "
                "or stop it."
            )
        yield


def is_claimed(directory: Path) -> bool:
    """Whether another process holds a run's folder."""
    if not (directory / LOCK).exists():
        return False
    with open(directory / LOCK, "a") as stream:
        return not _lock(stream)


def _lock(stream: TextIO) -> bool:
    try:
        import fcntl
    except ImportError:  # a system without such locks
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without such locks
        return True
    return True


def set_status(directory: Path, state: str, *, reason: str | None = None, step: int | None = None) -> None:
    """Writes `status.json`: running, finished, interrupted or failed, the reason, the step, time and versions.

    When the run began, and the step where none is given, stay as they stand there.
    """
    path, now = directory / STATUS, time.time()
    before = {"started": now, "step": 0} | (_read_json(path) if path.exists() else {})
    after = {"state": state, "reason": reason, "step": before["step"] if step is None else step}
    write_json(path, {**before, **after, "pid": os.getpid(), "updated": now, "versions": versions()})


@contextmanager
def failures_recorded(directory: Path) -> Iterator[None]:
    """Writes to the run's status why it ended early."""
    try:
        yield
    except BaseException as error:
        state, reason = "failed", f"{type(error).__name__}: {error}"
        if isinstance(error, KeyboardInterrupt):
            state, reason = "interrupted", str(error) or "interrupted by the user"
        elif isinstance(error, InputError):
            reason = str(error)
        with suppress(OSError):  # such as on a full disk
            set_status(directory, state, reason=reason)
        raise


def versions() -> dict[str, str]:
    """What a number in this run was made with."""
    return {
        "wgan_lip": wgan_lip.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }


def load_run(directory: str | Path, *, checkpoint: str = "last", trust: Collection[str] = ()) -> Run:
    """Loads a run with its trained players.

    Arguments:
        directory: A folder that `wgan-lip train` wrote.
        checkpoint: `last`, or `best`, of the audit that scored best.
        trust: Packages whose modules the run may name, and whose code then runs; see
            :func:`wgan_lip.runs.targets.target_class`. A run trained with some needs them named again.

    Returns:
        :class:`Run`, whose `critic`, `generator`, `config` and `metrics` are at hand.

    Raises:
        InputError: No such folder, no run, no checkpoint, a file in it that is damaged, or a class of a package that
            is not trusted.
    """
    run = Run(directory, checkpoint=checkpoint, trust=trust)
    _ = run.checkpoint, run.critic, run.generator
    return run


class Run:
    """A run's folder, read when asked; works on running, failed and half-written runs as far as they go.

    Arguments:
        directory: The folder.
        checkpoint: See :func:`load_run`.
        trust: Likewise.

    Raises:
        InputError: The folder doesn't exist or isn't a run's. Each attribute raises it if its file is missing or
            damaged.
    """

    def __init__(self, directory: str | Path, *, checkpoint: str = "last", trust: Collection[str] = ()) -> None:
        self.trust = check_trust(trust)
        self._file = {"last": CHECKPOINT, "best": BEST}[check_choice(checkpoint, ["last", "best"], "checkpoint")]
        self.directory = Path(directory).expanduser()
        if not self.directory.is_dir():
            raise InputError(f"Expected the folder of a run. Got {self.directory}, which is no folder. Check the path.")
        if not (self.directory / CONFIG).exists():
            raise InputError(
                f"Expected the folder of a run. Got {self.directory}, which has no {CONFIG}. Give a folder that "
                "`wgan-lip train` wrote, such as one under outputs/train."
            )
        if (self.directory / RESULT).exists():
            raise InputError(
                f"Expected the folder of a training run. Got {self.directory}, that of an estimate. Read its {RESULT}."
            )

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, as plain data."""
        try:
            config = OmegaConf.to_container(OmegaConf.load(self.directory / CONFIG), resolve=False)
        except Exception as error:  # the YAML reader's errors share no base with OmegaConf's
            raise self._damaged(CONFIG, one_line(error)) from None
        if not isinstance(config, dict):
            raise self._damaged(CONFIG, "not a mapping")
        return config

    @cached_property
    def overrides(self) -> list[str]:
        """What was given on the command line."""
        try:
            return [str(override) for override in json.loads((self.directory / OVERRIDES).read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError) as error:
            raise self._damaged(OVERRIDES, one_line(error)) from None

    @property
    def status(self) -> dict[str, Any]:
        """The content of `status.json`, read afresh; `state` is unknown where there is none."""
        path = self.directory / STATUS
        unknown = {"state": "unknown", "reason": f"there is no {STATUS}", "step": 0}
        return unknown | _read_json(path) if path.exists() else unknown

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """The final numbers, or None while there are none."""
        path = self.directory / SUMMARY
        if not path.exists():
            return None
        summary = _read_json(path)
        expected = {"interval", "score", "modes", "lipschitz", "largest_gradient_found", "training_seconds"}
        if not expected <= summary.keys():
            raise self._damaged(SUMMARY, f"it lacks {', '.join(sorted(expected - summary.keys()))}")
        return summary

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """All records, in order; a half-written last line is left out."""
        path = self.directory / METRICS
        return read_records(path) if path.exists() else []

    @cached_property
    def checkpoint(self) -> dict[str, Any]:
        path = self.directory / self._file
        if not path.exists():
            raise InputError(
                f"Expected {self._file} in {self.directory}. Got none; the run's state is {self.status['state']}. "
                "Wait for its first audit, or train again."
            )
        return read_checkpoint(path)

    @property
    def step(self) -> int:
        """Generator steps done at the checkpoint."""
        return int(self.checkpoint["game"]["step"])

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(c, h, w) where the samples are images, else None."""
        shape = self.checkpoint["sizes"]["image_shape"]
        return None if shape is None else tuple(shape)

    @property
    def units(self) -> str:
        """In words, what one unit of its samples is; see :attr:`wgan_lip.data.Source.units`."""
        data = self._section("data")
        units = target_class(data.get("_target_"), trust=self.trust).units
        scale = data.get("label_scale")
        return units if scale is None else f"{units}; labels are joined as vectors of length {scale}"

    @cached_property
    def critic(self) -> nn.Module:
        """The trained critic, (b, d) → (b,), on the CPU."""
        return self._player("critic", "critic")

    @cached_property
    def generator(self) -> nn.Module:
        """The averaged generator, (b, k) → (b, d), on the CPU."""
        return self._player("generator", "ema")

    @cached_property
    def source(self) -> Source:
        """The data the run was trained on, built anew."""
        return build(self._section("data"), trust=self.trust)

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """n samples of the averaged generator, shape (n, d); the same for the same seed. Raises :class:`InputError`."""
        if n < 1:
            raise InputError(f"Expected at least one sample. Got n={n}.")
        return torch.cat(list(sample_blocks(self.generator, n, torch.Generator().manual_seed(check_seed(seed)))))

    def _section(self, name: str) -> dict[str, Any]:
        if not isinstance(self.config.get(name), dict):
            raise self._damaged(CONFIG, f"it has no section {name}")
        return self.config[name]

    def _player(self, section: str, saved_as: str) -> nn.Module:
        player = build(self._section(section), trust=self.trust, **self.checkpoint["sizes"])
        saved = self.checkpoint["game"].get(saved_as)
        if problem := "its weights are missing" if saved is None else load_weights(player, saved):
            raise self._damaged(self._file, f"its {section} does not fit {CONFIG}: {problem}")
        return player.eval().requires_grad_(False)

    def _damaged(self, name: str, error: object) -> InputError:
        return InputError(
            f"Expected a whole {name} in {self.directory}. Got a damaged one: {error}. Restore it, or train again."
        )


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all."""
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"Expected JSON in {path}. Got a damaged file: {error}. Restore it, or train again.") from None
    if not isinstance(content, dict):
        raise InputError(f"Expected a JSON object in {path}. Got {type(content).__name__}.")
    return content
