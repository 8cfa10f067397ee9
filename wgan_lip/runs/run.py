"""A run on disk, loaded: configuration, records, the trained generator and critic.

Nothing that is read from a run's folder can execute code: weights load with `weights_only=True`, configuration is plain
data, and the classes it names must be in the few modules of :data:`wgan_lip.runs.targets.ROLES`, each in its role, or
in packages that the caller trusts. A `trust` setting in the run's folder is ignored.
"""

from __future__ import annotations

import copy
import inspect
import math
import numbers
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import wgan_lip
from wgan_lip.data import Source
from wgan_lip.lipschitz.certificates import Certificate, certify
from wgan_lip.runs.checkpoints import BEST, CHECKPOINT, read_checkpoint
from wgan_lip.runs.folder import (
    CONFIG,
    METRICS,
    OVERRIDES,
    RESULT,
    STATUS,
    SUMMARY,
    damaged,
    is_claimed,
    read_json,
    read_json_list,
    read_status,
    read_yaml,
)
from wgan_lip.runs.results import RunInterval, RunScores, last_audit_row, result_rows
from wgan_lip.runs.sampling import sample_blocks, sample_walk
from wgan_lip.runs.targets import ROLES, build, check_trust, class_named, load_weights, target_class
from wgan_lip.runs.tracking import read_records
from wgan_lip.utils.checks import InputError, check_choice, check_seed
from wgan_lip.utils.files import read_regular
from wgan_lip.utils.numbers import clock_time
from wgan_lip.utils.printing import Printed, Row
from wgan_lip.utils.terminal import shown

__all__ = ["CHECKPOINT", "SAMPLES", "Run", "load_run"]

SAMPLES, LARGEST_PICTURE, PNG = "samples.png", 2**20, b"\x89PNG\r\n\x1a\n"


def load_run(
    directory: str | Path,
    *,
    checkpoint: str = "last",
    trust: Collection[str] = (),
    critic: nn.Module | None = None,
    generator: nn.Module | None = None,
    source: Source | None = None,
) -> Run:
    """Loads a run with its trained generator and critic.

    Arguments:
        directory: A folder that :func:`wgan_lip.train` or `wgan-lip train` wrote.
        checkpoint: `last`, or `best` for the audit with the best score.
        trust: Packages whose modules the run may name, and whose code then runs; see
            :func:`wgan_lip.runs.targets.target_class`. A run trained with trusted packages needs them named again.
        critic: A critic as it was before training, if no configuration can build it because it is made of layers by
            hand, or of your own class. A copy of it gets the trained weights.
        generator: The generator before training, in the same case.
        source: The run's data, if they came from Python; they are checked against those that the run was trained on.

    Returns:
        :class:`Run`, with its `critic`, `generator`, `config` and `metrics`.

    Raises:
        InputError: No such folder, no run, no checkpoint, a damaged file, or a class of a package that is not trusted.
    """
    run = Run(directory, checkpoint=checkpoint, trust=trust, critic=critic, generator=generator, source=source)
    _ = run.checkpoint, run.critic, run.generator
    return run


class Run(Printed):
    """A run's folder, read on demand; works on running, failed and half-written runs as far as possible.

    Arguments:
        directory: The folder.
        checkpoint, trust, critic, generator, source: See :func:`load_run`.

    Raises:
        InputError: The folder does not exist or is not a run's. Each attribute raises it if its file is missing or
            damaged.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        checkpoint: str = "last",
        trust: Collection[str] = (),
        critic: nn.Module | None = None,
        generator: nn.Module | None = None,
        source: Source | None = None,
    ) -> None:
        self.trust, self._handed_over = check_trust(trust), {"critic": critic, "generator": generator}
        for name, given in self._handed_over.items():
            if given is not None and not isinstance(given, nn.Module):
                raise InputError(f"{name} must be a torch module, not {given!r:.60}.")
        self._source = source
        self._file = {"last": CHECKPOINT, "best": BEST}[check_choice(checkpoint, ["last", "best"], "checkpoint")]
        self.directory = Path(directory).expanduser()
        if not self.directory.is_dir():
            raise InputError(f"There is no folder {self.directory}. Check the path of the run.")
        if not (self.directory / CONFIG).exists():
            raise InputError(
                f"{self.directory} is not the folder of a run: it has no {CONFIG}. Give a folder that `wgan-lip train` "
                "wrote, such as one under outputs/train."
            )
        if (self.directory / RESULT).exists():
            raise InputError(
                f"{self.directory} is the folder of an estimate, not of a training run. Read its {RESULT}."
            )

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, as plain data; each of :data:`wgan_lip.runs.targets.ROLES` in it is a section."""
        config = read_yaml(self.directory / CONFIG)
        for name in ("training", "evaluation", "checkpoint", *ROLES):
            if not isinstance(config.get(name, {}), dict):
                raise self._damaged(CONFIG, f"it has no section {name}")
        return config

    @cached_property
    def overrides(self) -> list[str]:
        """What was given on the command line: a record that nothing depends on."""
        try:
            return read_json_list(self.directory / OVERRIDES)
        except FileNotFoundError as error:
            raise self._damaged(OVERRIDES, str(error.strerror)) from None

    @property
    def command(self) -> str:
        """What started the run: a command line, or a call in Python; a record like :attr:`overrides`."""
        called = self.overrides[:1] and self.overrides[0].startswith("wgan_lip.train(")
        return self.overrides[0] if called else " ".join(["wgan-lip train", *self.overrides])

    @property
    def status(self) -> dict[str, Any]:
        """The content of `status.json`, read afresh.

        `state` is unknown if the file is missing or damaged, and interrupted if it says running but no process holds
        the folder any more.
        """
        try:
            status = read_status(self.directory)
        except FileNotFoundError:
            return {"state": "unknown", "reason": f"there is no {STATUS}", "step": 0}
        except InputError:
            return {"state": "unknown", "reason": f"its {STATUS} is damaged", "step": 0}
        if status["state"] == "running" and is_claimed(self.directory) is False:
            return status | {"state": "interrupted", "reason": "its process was killed"}
        return status

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """The final numbers, NaN for those that are not finite; None until the run is finished."""
        try:
            summary = read_json(self.directory / SUMMARY)
        except FileNotFoundError:
            return None
        try:
            return _checked_summary(summary)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise self._damaged(SUMMARY, what) from None

    @property
    def interval(self) -> RunInterval:
        """The certified interval of W1 between generated and held-out samples of a finished run."""
        found = self._concluded["interval"]
        return RunInterval(**{setting.name: found[setting.name] for setting in fields(RunInterval)})

    @property
    def scores(self) -> RunScores:
        """The final scores of the generator of a finished run."""
        return RunScores.of(self._concluded)

    @property
    def _concluded(self) -> dict[str, Any]:
        if self.summary is None:
            state = self.status["state"]
            raise InputError(f"{self.directory} is {state} and has no final scores yet. Finish it with resume.")
        return self.summary

    @cached_property
    def certificate(self) -> Certificate:
        """The proof about the critic's stored weights, computed now instead of trusting the stored certificate."""
        return certify(self.critic, units=self.units)

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
                f"{self.directory} has no {self._file}; the run is {self.status['state']}. "
                "Wait for its first audit, or train again."
            )
        return read_checkpoint(path)

    @property
    def step(self) -> int:
        """Generator steps done at the checkpoint."""
        return int(self.checkpoint["game"]["step"])

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(c, h, w) if the samples are images, else None."""
        shape = self.checkpoint["sizes"]["image_shape"]
        return None if shape is None else tuple(shape)

    @property
    def units(self) -> str:
        """In words, what one unit of its samples is; see :attr:`wgan_lip.data.Source.units`."""
        if isinstance(stated := self.checkpoint["game"].get("units"), str):
            return stated
        data = self._section("data")
        units = target_class("data", data.get("_target_"), trust=self.trust).units  # for versions that stored none
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
        """The data the run was trained on, opened again but never downloaded; see :meth:`check_data`."""
        if self._source is not None:
            return self.check_data(self._source)
        section = self._section("data")
        takes = inspect.signature(target_class("data", section.get("_target_"), trust=self.trust)).parameters
        offline = {"download": False} if "download" in takes else {}
        return self.check_data(build("data", section | offline, trust=self.trust))

    def check_data(self, source: Source) -> Source:
        """Returns the source if its data are those that the run was trained on, as far as the checkpoint says.

        Raises:
            InputError: They are not; both are named.
        """
        path = self.directory / self._file
        trained_on = self.checkpoint["game"].get("data") if path.exists() else None
        if trained_on is not None and trained_on != (found := source.fingerprint()):
            raise InputError(
                f"The data have changed since {self.directory} was trained: they were {trained_on}, and are now "
                f"{found}. Restore them."
            )
        return source

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """n samples of the averaged generator, shape (n, d); the same for the same seed. Raises :class:`InputError`."""
        if not isinstance(n, numbers.Integral) or n < 1:
            raise InputError(f"n must be a whole number of at least 1, not {n!r:.60}.")
        return torch.cat(list(sample_blocks(self.generator, n, torch.Generator().manual_seed(check_seed(seed)))))

    def walk(self, frames: int, *, seeds: Sequence[int] = range(8), label: int | None = None) -> Tensor:
        """Samples along a closed walk through the latents of the seeds, shape (frames, d): a short film.

        See :func:`wgan_lip.runs.sampling.sample_walk`. Raises :class:`InputError`.
        """
        if not isinstance(frames, numbers.Integral) or frames < 1:
            raise InputError(f"frames must be a whole number of at least 1, not {frames!r:.60}.")
        if len(seeds) < 2:
            raise InputError(f"A walk needs at least two seeds, not {list(seeds)}.")
        return torch.cat(list(sample_walk(self.generator, [check_seed(s) for s in seeds], int(frames), label=label)))

    def report(self, out: str | Path = "report.html") -> Path:
        """Writes a report of the run as a single page in its folder; see :func:`wgan_lip.report`."""
        return wgan_lip.report(self, out)  # by the public name, since the pages are in a room above this one

    def headline(self) -> str:
        names = {name: class_named(self._read("config", {}).get(name)) for name in ("data", "critic")}
        status = self.status
        head = (
            f"{shown(self.directory)}: {names['data']}, {names['critic']}, {status['state']} at step {status['step']}"
        )
        summary = self._read("summary", None)
        return head if summary is None else f"{head} after {clock_time(summary['training_seconds'])} of training"

    def summary_rows(self) -> list[Row]:
        summary = self._read("summary", None)
        return [last_audit_row(self._read("metrics", []))] if summary is None else result_rows(summary)

    def picture(self) -> str:
        """The interval, and the picture of samples in the run's folder."""
        line = "" if self._read("summary", None) is None else self.interval.picture()
        drawn = self.drawn_samples()
        return f'{line}<div style="max-width: 24em">{drawn}</div>' if drawn else line

    def drawn_samples(self) -> str:
        """The picture of samples in the run's folder as HTML; empty if there is none."""
        pixels = b""
        with suppress(OSError):
            pixels = read_regular(self.directory / SAMPLES, limit=LARGEST_PICTURE)
        if not pixels.startswith(PNG):
            return ""
        source = f"data:image/png;base64,{b64encode(pixels).decode()}"
        return f'<img style="max-width: 100%" alt="Samples drawn at the end" src="{source}">'

    def _read(self, name: str, otherwise: Any) -> Any:
        """An attribute, or `otherwise` if its file is damaged, so that printing never fails."""
        try:
            return getattr(self, name)
        except InputError:
            return otherwise

    def _section(self, name: str) -> dict[str, Any]:
        if name not in self.config:
            raise self._damaged(CONFIG, f"it has no section {name}")
        return self.config[name]

    def _player(self, section: str, saved_as: str) -> nn.Module:
        given = self._handed_over[section]
        if given is None:
            player = build(section, self._section(section), trust=self.trust, **self.checkpoint["sizes"])
        else:
            player = copy.deepcopy(given).cpu()
        saved = self.checkpoint["game"].get(saved_as)
        if problem := "its weights are missing" if saved is None else load_weights(player, saved):
            if given is not None:
                raise InputError(
                    f"The {type(given).__name__} passed in is not the {section} of {self.directory}: {problem}."
                )
            raise self._damaged(self._file, f"its {section} does not fit {CONFIG}: {problem}")
        return player.eval().requires_grad_(False)

    def _damaged(self, name: str, error: str) -> InputError:
        return damaged(self.directory / name, ValueError(error))


def _checked_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The final numbers, checked: everything that is shown is there, and is a number if it should be one.

    Raises:
        ArithmeticError, AttributeError, LookupError, TypeError, ValueError: Something is missing or of the wrong type.
    """
    interval, score, modes = (summary[name] for name in ("interval", "score", "modes"))
    return {
        **summary,
        **_numbers(summary, ("lipschitz", "largest_gradient_found", "training_seconds")),
        **_numbers(summary, {"ray_gradient_norm"} & summary.keys()),
        "guarantee": str(summary.get("guarantee", "certified")),
        "interval": interval
        | _numbers(interval, ("lower", "exact", "upper", "lower_as_trained"))
        | _counts(interval, ("n", "dim")),
        "score": score
        | _numbers(score, ("ratio", "spread", "floor"))
        | _numbers(score, {"excess", "error", "real", "real_error", "blurred"} & score.keys())
        | _counts(score, ("n", "draws" if "excess" in score else "repeats")),
        "modes": modes
        and modes | _counts(modes, ("covered", "total")) | _numbers(modes, {"within", "width"} & modes.keys()),
        **{name: _numbers(summary[name], summary[name]) for name in ("critic", "memorisation") if name in summary},
        "scores": {
            space: compared
            | {
                "extractor": str(compared.get("extractor")),
                "values": _numbers(compared["values"], compared["values"]),
                "floors": _numbers(compared["floors"], compared["values"]),
                "blurs": _numbers(compared.get("blurs", {}), compared.get("blurs", {})),
            }
            for space, compared in (summary.get("scores") or {}).items()
        },
    }


def _numbers(section: Mapping[str, Any], names: Iterable[str]) -> dict[str, float]:
    """Numbers by name; JSON holds null for those that are not finite."""
    numbers = {name: math.nan if section[name] is None else section[name] for name in names}
    if wrong := [name for name, value in numbers.items() if type(value) not in (int, float)]:
        raise ValueError(f"its {wrong[0]} is not a number")
    return {name: float(value) for name, value in numbers.items()}


def _counts(section: Mapping[str, Any], names: Iterable[str]) -> dict[str, int]:
    if wrong := [name for name in names if type(section[name]) is not int or section[name] < 0]:
        raise ValueError(f"its {wrong[0]} is not a count")
    return {name: section[name] for name in names}
