"""A run on disk, loaded: configuration, records, the trained players.

Nothing that is read from a run's folder can execute code: weights load with `weights_only=True`, configuration is
plain data, and the classes it names must lie in the few modules of :data:`wgan_lip.runs.targets.TARGETS`, or in
packages that the caller trusts. What the run itself says about trust is ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from wgan_lip.data import Source
from wgan_lip.runs.checkpoints import BEST, CHECKPOINT, read_checkpoint
from wgan_lip.runs.folder import CONFIG, METRICS, OVERRIDES, RESULT, STATUS, SUMMARY, read_json
from wgan_lip.runs.sampling import sample_blocks
from wgan_lip.runs.targets import build, check_trust, load_weights, target_class
from wgan_lip.runs.tracking import read_records
from wgan_lip.utils.checks import InputError, check_choice, check_seed, one_line

__all__ = ["CHECKPOINT", "Run", "load_run"]


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
        return unknown | read_json(path) if path.exists() else unknown

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """The final numbers, NaN where they are not finite; or None while there are none."""
        path = self.directory / SUMMARY
        if not path.exists():
            return None
        summary = read_json(path)
        expected = {"interval", "score", "modes", "lipschitz", "largest_gradient_found", "training_seconds"}
        if not expected <= summary.keys():
            raise self._damaged(SUMMARY, f"it lacks {', '.join(sorted(expected - summary.keys()))}")
        return {name: value if name == "modes" else _numbers(value) for name, value in summary.items()}

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
        """The data the run was trained on, built anew; see :meth:`check_data`."""
        return self.check_data(build(self._section("data"), trust=self.trust))

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


def _numbers(content: Any) -> Any:
    """NaN for null, which JSON has in its place."""
    if isinstance(content, dict):
        return {key: _numbers(value) for key, value in content.items()}
    return math.nan if content is None else content
