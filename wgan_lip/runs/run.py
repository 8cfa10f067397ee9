"""A run on disk, loaded: configuration, records, the trained players.

Nothing that is read from a run's folder can execute code: weights load with `weights_only=True`, configuration is
plain data, and the classes it names must lie in the few modules of :data:`wgan_lip.runs.targets.ROLES`, each in its own
role, or in packages that the caller trusts. What the run itself says about trust is ignored.
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
    """Loads a run with its trained players.

    Arguments:
        directory: A folder that :func:`wgan_lip.train` or `wgan-lip train` wrote.
        checkpoint: `last`, or `best`, of the audit that scored best.
        trust: Packages whose modules the run may name, and whose code then runs; see
            :func:`wgan_lip.runs.targets.target_class`. A run trained with some needs them named again.
        critic: A critic as the run's was before it was trained, where no configuration can build it: of layers put
            together by hand, or of a class of your own. A copy of it takes the trained weights.
        generator: The same of the generator.
        source: The run's data, where they came from Python; held against those that the run was trained on.

    Returns:
        :class:`Run`, whose `critic`, `generator`, `config` and `metrics` are at hand.

    Raises:
        InputError: No such folder, no run, no checkpoint, a file in it that is damaged, or a class of a package that
            is not trusted.
    """
    run = Run(directory, checkpoint=checkpoint, trust=trust, critic=critic, generator=generator, source=source)
    _ = run.checkpoint, run.critic, run.generator
    return run


class Run(Printed):
    """A run's folder, read when asked; works on running, failed and half-written runs as far as they go.

    Arguments:
        directory: The folder.
        checkpoint, trust, critic, generator, source: See :func:`load_run`.

    Raises:
        InputError: The folder doesn't exist or isn't a run's. Each attribute raises it if its file is missing or
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
                raise InputError(f"Expected {name}= to be a torch module, built. Got {given!r:.60}.")
        self._source = source
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
        """The resolved configuration, as plain data; each of :data:`wgan_lip.runs.targets.ROLES` in it is a section."""
        config = read_yaml(self.directory / CONFIG)
        for name in ("training", "evaluation", "checkpoint", *ROLES):
            if not isinstance(config.get(name, {}), dict):
                raise self._damaged(CONFIG, f"it has no section {name}")
        return config

    @cached_property
    def overrides(self) -> list[str]:
        """What was given on the command line: a record of it, which nothing goes by."""
        try:
            return read_json_list(self.directory / OVERRIDES)
        except FileNotFoundError as error:
            raise self._damaged(OVERRIDES, str(error.strerror)) from None

    @property
    def command(self) -> str:
        """What started it: a command line, or a call in Python. A record, as :attr:`overrides` is."""
        called = self.overrides[:1] and self.overrides[0].startswith("wgan_lip.train(")
        return self.overrides[0] if called else " ".join(["wgan-lip train", *self.overrides])

    @property
    def status(self) -> dict[str, Any]:
        """The content of `status.json`, read afresh.

        `state` is unknown where that is missing or damaged, and interrupted where it says running and no process holds
        the folder any more.
        """
        try:
            status = read_status(self.directory)
        except FileNotFoundError:
            return {"state": "unknown", "reason": f"there is no {STATUS}", "step": 0}
        except InputError:
            return {"state": "unknown", "reason": f"its {STATUS} is damaged", "step": 0}
        if status["state"] == "running" and is_claimed(self.directory) is False:
            return status | {"state": "interrupted", "reason": "its process ended without a word: it was killed"}
        return status

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """The final numbers, NaN where they are not finite; or None while there are none."""
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
        """The certified interval of W1 between generated and held-out samples, of a run that is finished."""
        found = self._concluded["interval"]
        return RunInterval(**{setting.name: found[setting.name] for setting in fields(RunInterval)})

    @property
    def scores(self) -> RunScores:
        """The final scores of the generator, of a run that is finished."""
        return RunScores.of(self._concluded)

    @property
    def _concluded(self) -> dict[str, Any]:
        if self.summary is None:
            state = self.status["state"]
            raise InputError(f"{self.directory} is {state}, and has no final scores yet. Finish it, by resume.")
        return self.summary

    @cached_property
    def certificate(self) -> Certificate:
        """The proof about the critic's stored weights: computed now, so that nothing is believed."""
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
        if isinstance(stated := self.checkpoint["game"].get("units"), str):
            return stated
        data = self._section("data")
        units = target_class("data", data.get("_target_"), trust=self.trust).units  # of a version that kept none
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
        """The data the run was trained on, opened again where they are, never downloaded; see :meth:`check_data`."""
        if self._source is not None:
            return self.check_data(self._source)
        section = self._section("data")
        takes = inspect.signature(target_class("data", section.get("_target_"), trust=self.trust)).parameters
        offline = {"download": False} if "download" in takes else {}
        return self.check_data(build("data", section | offline, trust=self.trust))

    def check_data(self, source: Source) -> Source:
        """Returns the source if its data are those that the run's checkpoint was trained on, as far as that says.

        Raises:
            InputError: They are others; both are named.
        """
        path = self.directory / self._file
        trained_on = self.checkpoint["game"].get("data") if path.exists() else None
        if trained_on is not None and trained_on != (found := source.fingerprint()):
            raise InputError(
                f"Expected the data that {self.directory} was trained on: {trained_on}. Got {found}. Restore them."
            )
        return source

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """n samples of the averaged generator, shape (n, d); the same for the same seed. Raises :class:`InputError`."""
        if not isinstance(n, numbers.Integral) or n < 1:
            raise InputError(f"Expected n samples, a whole number of at least one. Got n={n!r:.60}.")
        return torch.cat(list(sample_blocks(self.generator, n, torch.Generator().manual_seed(check_seed(seed)))))

    def walk(self, frames: int, *, seeds: Sequence[int] = range(8), label: int | None = None) -> Tensor:
        """Samples along a closed walk through the latents of the seeds, shape (frames, d): a short film.

        See :func:`wgan_lip.runs.sampling.sample_walk`. Raises :class:`InputError`.
        """
        if not isinstance(frames, numbers.Integral) or frames < 1:
            raise InputError(f"Expected frames of a walk, a whole number of at least one. Got {frames!r:.60}.")
        if len(seeds) < 2:
            raise InputError(f"A walk needs at least two seeds. Got {list(seeds)}.")
        return torch.cat(list(sample_walk(self.generator, [check_seed(s) for s in seeds], int(frames), label=label)))

    def report(self, out: str | Path = "report.html") -> Path:
        """Writes what the run did as a page in one file, below its folder; see :func:`wgan_lip.report`."""
        return wgan_lip.report(self, out)  # by the public name: the pages lie above this room

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
        """The interval, and the samples as they are drawn in the run's folder."""
        line = "" if self._read("summary", None) is None else self.interval.picture()
        drawn = self.drawn_samples()
        return f'{line}<div style="max-width: 24em">{drawn}</div>' if drawn else line

    def drawn_samples(self) -> str:
        """The picture of samples in the run's folder as HTML; nothing where there is none."""
        pixels = b""
        with suppress(OSError):
            pixels = read_regular(self.directory / SAMPLES, limit=LARGEST_PICTURE)
        if not pixels.startswith(PNG):
            return ""
        source = f"data:image/png;base64,{b64encode(pixels).decode()}"
        return f'<img style="max-width: 100%" alt="Samples, as they were drawn at the end" src="{source}">'

    def _read(self, name: str, otherwise: Any) -> Any:
        """An attribute, or something else where its file is damaged: printing fails nowhere."""
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
                    f"The {type(given).__name__} handed over is not the {section} of {self.directory}: {problem}."
                )
            raise self._damaged(self._file, f"its {section} does not fit {CONFIG}: {problem}")
        return player.eval().requires_grad_(False)

    def _damaged(self, name: str, error: str) -> InputError:
        return damaged(self.directory / name, ValueError(error))


def _checked_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Final numbers of which all that is shown anywhere is there, and is a number where it should be one.

    Raises:
        ArithmeticError, AttributeError, LookupError, TypeError, ValueError: Something is missing, or something else.
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
    """Numbers by name; JSON has null for those that are not finite."""
    numbers = {name: math.nan if section[name] is None else section[name] for name in names}
    if wrong := [name for name, value in numbers.items() if type(value) not in (int, float)]:
        raise ValueError(f"its {wrong[0]} is no number")
    return {name: float(value) for name, value in numbers.items()}


def _counts(section: Mapping[str, Any], names: Iterable[str]) -> dict[str, int]:
    if wrong := [name for name in names if type(section[name]) is not int or section[name] < 0]:
        raise ValueError(f"its {wrong[0]} is no count")
    return {name: section[name] for name in names}
