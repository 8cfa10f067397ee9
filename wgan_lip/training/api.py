"""Training from Python, with everything that the command line offers."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, ParamSpec

import torch
from torch import nn
from torch.optim import Optimizer

from wgan_lip.data import Source
from wgan_lip.lipschitz.optimizers import parameter_groups
from wgan_lip.runs.checkpoints import Checkpointing
from wgan_lip.runs.folder import CONFIG
from wgan_lip.runs.resuming import same_run
from wgan_lip.runs.run import Run
from wgan_lip.runs.targets import made_in_python, recipe
from wgan_lip.runs.tracking import Tracker, check_tracking
from wgan_lip.training.game import Record
from wgan_lip.training.scoring import Evaluation
from wgan_lip.training.session import Players, Session
from wgan_lip.training.settings import Training
from wgan_lip.utils.checks import InputError, check_seed
from wgan_lip.utils.devices import keep_freed_memory, set_threads

__all__ = ["train"]

CRITIC_RATE = 0.03  # c of parameter_groups; see outputs/reference/wgan/critic_rate.json
ADAM: dict[str, Any] = {"betas": [0.5, 0.9], "fused": True}  # if no optimiser is given

P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True)
class Arguments(Training):
    """The arguments of :func:`train`: data, generator, critic, the settings of :class:`Training`, and the others."""

    source: Source = field(kw_only=False)
    generator: nn.Module = field(kw_only=False)
    critic: nn.Module = field(kw_only=False)
    out: str | Path
    resume: Literal["auto"] | None = None
    generator_optimizer: Optimizer | None = None
    critic_optimizer: Optimizer | None = None
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpointing = Checkpointing()
    tracking: Sequence[str | Tracker] = ("tensorboard",)
    callbacks: Sequence[Callable[[Record], object]] = ()
    seed: int = 0
    threads: int | None = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, kind in (("generator", nn.Module), ("critic", nn.Module), ("source", Source)):
            if not isinstance(thing := getattr(self, name), kind):
                remedy = "Build it first." if kind is nn.Module else "Wrap a tensor in wgan_lip.data.TensorSource."
                raise InputError(f"{name} must be a {kind.__name__}, not {type(thing).__name__}. {remedy}")
        for name, kind in (("evaluation", Evaluation), ("checkpoint", Checkpointing)):
            if not isinstance(given := getattr(self, name), kind):
                raise InputError(f"{name} must be a wgan_lip.{kind.__name__}, not {given!r:.60}.")
        if not isinstance(self.out, str | Path) or not str(self.out).strip():
            raise InputError(f"out must be the folder of the run, such as outputs/mine, not {self.out!r}.")
        if self.resume not in (None, "auto"):
            raise InputError(f"resume must be 'auto' or None, not {self.resume!r}.")
        for name, player in (("generator_optimizer", self.generator), ("critic_optimizer", self.critic)):
            _check_optimizer(name, getattr(self, name), player)
        if isinstance(self.callbacks, str) or not isinstance(self.callbacks, Sequence):
            raise InputError(f"callbacks must be a list of functions of a record, not {self.callbacks!r:.60}.")
        if uncallable := [callback for callback in self.callbacks if not callable(callback)]:
            raise InputError(f"Each callback must be a function of a record, not {uncallable[0]!r:.60}.")
        check_seed(self.seed)
        check_tracking(self.tracking)

    def run(self) -> Run:
        """Trains; see :func:`train`."""
        out = Path(self.out).expanduser()
        players = self._players()
        self.evaluation.check(players.source)
        config = self._config()
        command = f"wgan_lip.train({type(self.source).__name__}, ..., out={str(out)!r})"
        session = Session(
            directory=out,
            config=config,
            build=lambda: players,
            past=lambda: same_run(Run(out), config) if self.resume and (out / CONFIG).exists() else None,
            training=self,
            evaluation=self.evaluation,
            checkpoint=self.checkpoint,
            seed=self.seed,
            overrides=[command],
            command=command,
            way_back=lambda directory: f"wgan_lip.train(..., out={str(directory)!r}, resume='auto')",
            tracking=self.tracking,
            callbacks=self.callbacks,
        )
        with _threads(self.threads):
            keep_freed_memory()
            directory = session.run().directory
        return Run(directory, critic=self.critic, generator=self.generator, source=self.source)

    def _players(self) -> Players:
        """Data and networks on the critic's device, with their optimisers: Adam if none is given."""
        for name in ("critic", "generator"):
            if not any(parameter.requires_grad for parameter in getattr(self, name).parameters()):
                raise InputError(f"The {name} has no parameters to train.")
        ascent, descent = self.critic_optimizer, self.generator_optimizer
        if ascent is None:
            ascent = torch.optim.Adam(parameter_groups(self.critic, CRITIC_RATE), **ADAM)
        if descent is None:
            descent = torch.optim.Adam(self.generator.parameters(), lr=1e-3, **ADAM)
        device = next(self.critic.parameters()).device
        return Players(self.source.to(device), self.generator, self.critic, descent, ascent)

    def _config(self) -> dict[str, Any]:
        """The settings as stored in a run's folder, in the sections of the command line."""
        return {
            "seed": self.seed,
            "device": str(next(self.critic.parameters()).device),
            "threads": self.threads,
            "trust": [],
            "tracking": [name for name in self.tracking if isinstance(name, str)],
            "training": {setting.name: getattr(self, setting.name) for setting in fields(Training)},
            "evaluation": asdict(self.evaluation),
            "checkpoint": asdict(self.checkpoint),
            "data": recipe("data", self.source),
            "critic": recipe("critic", self.critic),
            "generator": recipe("generator", self.generator),
            "critic_optimizer": _optimizer_recipe(self.critic_optimizer, CRITIC_RATE),
            "generator_optimizer": _optimizer_recipe(self.generator_optimizer, 1e-3),
        }


def _check_optimizer(name: str, given: object, player: nn.Module) -> None:
    if given is None:
        return
    if not isinstance(given, Optimizer):
        raise InputError(f"{name} must be a torch optimiser, not {given!r:.60}.")
    own = {id(parameter) for parameter in player.parameters()}
    if not any(id(parameter) in own for group in given.param_groups for parameter in group["params"]):
        what = type(player).__name__
        raise InputError(f"{name} must be built on the parameters of the {what}, and is built on others.")


def _optimizer_recipe(given: Optimizer | None, rate: float) -> dict[str, Any]:
    """The section of an optimiser: the class of one that was given, or everything the default needs."""
    if given is not None:
        return made_in_python(given)
    return {"_target_": "torch.optim.Adam", "lr": rate, **ADAM}


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Lets torch compute with so many threads, and restores the number afterwards."""
    before = torch.get_num_threads()
    set_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _as_function(arguments: Callable[P, Arguments]) -> Callable[P, Run]:
    """A function that takes the arguments of a class, typed for editors and type checkers."""

    @functools.wraps(arguments, assigned=(), updated=())
    def train(*args: P.args, **keywords: P.kwargs) -> Run:
        known = inspect.signature(arguments).parameters
        if unknown := [name for name in keywords if name not in known]:
            close = difflib.get_close_matches(unknown[0], known, n=1)
            raise TypeError(f"train() has no setting {unknown[0]}." + f" Did you mean {close[0]}?" * bool(close))
        return arguments(*args, **keywords).run()

    train.__signature__ = inspect.signature(arguments).replace(return_annotation=Run)  # type: ignore[attr-defined]
    return train


train = _as_function(Arguments)
train.__doc__ = r"""Trains a generator against a certified critic, in a folder: `wgan-lip train`, from Python.

The folder holds the same as that of a run from the command line: checkpoints, records, TensorBoard's events, the
certificate, the final scores and pictures. `wgan-lip inspect run=FOLDER` and all other commands work on it, and a
process that was killed can resume where it was, bit by bit on a CPU.

Arguments:
    source: Where samples x (b, d) come from: one of :mod:`wgan_lip.data`; a tensor in a
        :class:`wgan_lip.data.TensorSource`, a DataLoader in a :class:`wgan_lip.data.LoaderSource`.
    generator: Latents (b, k) → samples (b, d), with an attribute `latent_dim` = k. Trained in place.
    critic: Samples (b, d) → values (b,), of layers that can be certified. Trained in place.
    out: The run's folder: a new one, or that of a run to resume.
    resume: "auto" resumes the run in `out`, if there is one of this configuration, and returns it if it is finished.
        None refuses a folder with a run.
    steps, batch_size, ...: Every setting of :class:`wgan_lip.Training`, by name.
    generator_optimizer: Built on the generator's parameters; None for Adam at 1e-3.
    critic_optimizer: Built on the critic's parameters; None for Adam on :func:`wgan_lip.parameter_groups`, c = 0.03.
    evaluation: How the run is scored at its end; see :class:`wgan_lip.Evaluation`.
    checkpoint: When checkpoints are written; see :class:`wgan_lip.Checkpointing`.
    tracking: Names of :data:`wgan_lip.runs.tracking.TRACKERS`: tensorboard, trackio, wandb, mlflow; or your own
        trackers, of :class:`wgan_lip.Tracker`.
    callbacks: Called with every :class:`wgan_lip.training.Record`, after it was written.
    seed: Seed of latents and of the choice of samples.
    threads: CPU threads of torch during training; small networks gain nothing from more. None keeps torch's choice.

Returns:
    The run: `run.scores`, `run.interval`, `run.certificate`, `run.sample(64)`, `run.report()`.

Guarantee:
    `run.certificate` is a proof about the critic's stored weights, and `run.interval` encloses W1 of the samples it
    names. Scores are estimates, some with standard errors.

Raises:
    InputError: Settings, data or networks that cannot be trained, or a run in `out` with another configuration: each
        setting that differs is named.
    StoppedError: Training diverged; the networks were saved.
    UncertifiableError: A critic without a proof.

Example:
    >>> from wgan_lip.critics import ResNetCritic
    >>> from wgan_lip.data import Moons
    >>> from wgan_lip.generators import MLPGenerator
    >>> run = train(Moons(), MLPGenerator(2, width=16), ResNetCritic(2, width=16), out="outputs/moons",
    ...             steps=20)  # doctest: +SKIP
"""
