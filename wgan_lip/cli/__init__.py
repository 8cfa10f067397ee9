"""Hydra's door: `wgan-lip COMMAND [key=value …]`."""

from __future__ import annotations

import os
import re
import sys
import traceback
import warnings
from contextlib import nullcontext, redirect_stderr
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from wgan_lip.cli.overrides import DRY_RUN, arranged, begun_anew, dry, quoted
from wgan_lip.cli.sweeps import JobFailed, JobOutcome, Jobs, Labelled, side_by_side
from wgan_lip.utils.checks import InputError, one_line, out_of_memory
from wgan_lip.utils.devices import rank, world_size
from wgan_lip.utils.terminal import let_go, say, shown, streams_made, warn

__all__ = ["COMMANDS", "config_directory", "main"]

COMMANDS = {
    "train": "train a generator against a certified critic",
    "estimate": "W1 between two sample sets or laws, with an interval that holds",
    "test": "whether two sample sets are of one law, and how far apart their laws are at least",
    "certify": "prove the saved critic's Lipschitz constant anew",
    "inspect": "what a run did, in one screen and a page",
    "compare": "runs side by side, or those of a sweep",
    "sample": "draw samples from a run's generator",
    "export": "the players of a run as files that need no training code",
    "benchmark": "the measurements behind the README's tables",
}

SWITCHES = {"--json": "json=true"}
"""What other tools spell as a flag → how it is spelt here."""


USAGE = """\
wgan-lip COMMAND [key=value ...] [group=choice ...]

Wasserstein generative modelling with critics whose Lipschitz constant is proved.

commands:
{commands}

  wgan-lip COMMAND --help     groups, choices and every key of a command
  wgan-lip train              the default: scikit-learn's digits, a few minutes on a CPU
  wgan-lip train --dry-run    what it would be: settings, modules with constants, steps, time, memory; writes nothing
  wgan-lip train --multirun critic=resnet,fixed_width seed=0,1,2 [jobs=2]
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 1 (the run failed), 2 (bad input), 130 or 143 (stopped)."""
    streams_made()
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        say(USAGE.format(commands="\n".join(f"  {name:10}{what}" for name, what in COMMANDS.items())))
        return 0 if arguments else 2
    command, *overrides = arguments
    if command == "--version":
        import wgan_lip

        say(wgan_lip.__version__)
        return 0
    if command not in COMMANDS:
        return _refuse(f"Expected a command: {', '.join(COMMANDS)}. Got {command!r}. See wgan-lip --help.")
    job = command
    try:
        world_size()
        if DRY_RUN in overrides:
            job, overrides = "dry_run", dry(command, overrides)
        overrides = arranged([SWITCHES.get(override, override) for override in overrides])
        if command == "train":
            overrides = side_by_side(overrides)
    except InputError as error:
        warn(str(error))
        return 2
    return _guarded(command, begun_anew([quoted(override) for override in overrides]), job)


def config_directory(command: str = "train") -> Path:
    """Where a command's configuration lies: `configs/`, beside the package in a checkout, inside it in a wheel.

    That of train, which alone has groups, is at its top; beside their folders, `critic=` of another command would be
    the choice of a group, so the others' are in `configs/commands/`.
    """
    package = Path(__file__).resolve().parent.parent
    inside = package / "configs"
    configs = inside if inside.is_dir() else package.parent / "configs"
    return configs if command == "train" else configs / "commands"


def _guarded(command: str, overrides: list[str], job: str) -> int:
    """Runs a command with every failure a user can cause told in one line."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from wgan_lip.training import OtherRankError

    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            _run(command, overrides, job)
    except InputError as error:
        return _refuse(_in_keys(command, str(error)))
    except (HydraException, OmegaConfBaseException) as error:
        return _refuse(_explained(command, overrides, error))
    except BrokenPipeError:  # of Hydra's own prints, as in `wgan-lip train --help | head`
        let_go(sys.stdout)
    except OSError as error:
        return _refuse(f"Expected to read and write {error.filename or 'the run folder'}. Got: {error.strerror}.")
    except JobFailed as error:
        return _refuse(str(error), status=error.status)
    except _stopped() as error:
        return _refuse(_in_keys(command, str(error)), status=1)
    except OtherRankError as error:
        return _refuse(str(error), status=1) if rank() == 0 else 1  # the rank that stopped has said why
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return _refuse(f"Expected sizes that fit into memory. Got: {one_line(error)}. {_smaller(command)}", status=1)
    except KeyboardInterrupt as stop:
        return _refuse(str(stop) or "interrupted", status=getattr(stop, "status", 130))
    return 0


def _run(command: str, overrides: list[str], job_name: str) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig, OmegaConf

    from wgan_lip.cli import processes
    from wgan_lip.cli.overrides import resumed, set_aside, spelt, with_jobs_named

    aside = None
    if command == "train":
        overrides, aside = set_aside(with_jobs_named(overrides))
    overrides = processes.prepared(command, overrides)
    processes.join()
    failures: list[Exception] = []
    jobs = Jobs()

    def job(config: DictConfig) -> float | None:
        """Keeps a failure for the end: Hydra would print about it, and a sweep goes on with the next job."""
        hydra, away = HydraConfig.get(), jobs.elsewhere
        sweep, name = str(hydra.sweep.dir), str(hydra.job.override_dirname)
        try:
            work = getattr(import_module(f"wgan_lip.cli.{job_name}"), job_name)
            with redirect_stderr(Labelled(sys.stderr, name)) if away else nullcontext():
                score = work(config) if aside is None else work(resumed(config, aside), given=aside)
            outcome = JobOutcome(sweep, name)
        except Exception as error:
            score, status = None, 2 if isinstance(error, InputError | OSError) else 1
            outcome = JobOutcome(sweep, name, _in_keys(command, str(error)), status)
            if not away:
                failures.append(error)
            elif not isinstance(error, (InputError, OSError, *_stopped())):
                traceback.print_exc()
        if hydra.mode == RunMode.MULTIRUN:
            jobs.tell(outcome)
        return score

    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions in composition come to _guarded instead of being printed
    saved, sys.argv = sys.argv, [f"wgan-lip {command}", *overrides]
    folder = str(config_directory(command))
    OmegaConf.register_new_resolver("groups", _groups, replace=True)
    try:
        hydra.main(version_base="1.3", config_path=folder, config_name=command)(job)()
    except SystemExit as end:  # Hydra's own, such as after --help
        if end.code:
            raise InputError(f"Hydra does not take these flags together. See wgan-lip {command} --help.") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # Hydra's own: a job keeps its failures
        raise InputError(
            f"These overrides can't be composed: {one_line(error)}. Name choices of groups in letters, such as "
            f"critic=resnet; see wgan-lip {command} --help."
        ) from None
    finally:
        sys.argv = saved
    outcomes = jobs.outcomes()
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    if command == "train" and len(outcomes) - len(failed) > 1:
        say(f"  Compare them with     wgan-lip compare {spelt('runs', shown(Path(outcomes[0].sweep)))}")
    if failed:
        names = "; ".join(outcome.name for outcome in failed)
        _refuse(f"These jobs of the sweep failed, for the reasons that follow: {names}")
    for outcome in failed[:-1]:
        _refuse(str(outcome.failure))
    if failures:
        raise failures[-1]
    if failed:
        raise JobFailed(failed[-1])
    processes.part()


def _stopped() -> tuple[type[Exception], ...]:
    """How a command stops by itself, with a message that says why."""
    from wgan_lip.training import StoppedError
    from wgan_lip.transport import TransportError
    from wgan_lip.wasserstein.interval import InvariantViolation

    return StoppedError, InvariantViolation, TransportError


def _groups() -> str:
    """Each group of train's configuration with its choices, a line each."""
    groups = sorted(path for path in config_directory().iterdir() if path.is_dir() and path.name != "commands")
    choices = ([file.stem for file in sorted(group.glob("*.yaml"))] for group in groups)
    return "\n".join(f"  {group.name}: {', '.join(names)}" for group, names in zip(groups, choices))


def _warn(message: Warning | str, *place: Any, **more: Any) -> None:
    warn(str(message))


def _smaller(command: str) -> str:
    """What to lower where memory ran out."""
    if command != "train":
        return "Lower them."
    return (
        "Raise training.accumulate, which takes a batch in parts and keeps the game; or lower training.batch_size, "
        "training.audit_size, or the sizes of critic and generator."
    )


def _in_keys(command: str, message: str) -> str:
    """A message of the rooms below, which name settings as Python does, with the keys of the command line."""
    from wgan_lip.runs.checkpoints import Checkpointing
    from wgan_lip.training.scoring import Evaluation
    from wgan_lip.training.settings import Training

    if command != "train":
        return message.replace("wgan_lip.law_of_rows(x)", "stream=true")
    sections = {"checkpoint": Checkpointing, "evaluation": Evaluation, "training": Training}
    keys = {setting.name: f"{section}.{setting.name}" for section, kind in sections.items() for setting in fields(kind)}
    return re.sub(r"`(\w+)`", lambda found: keys.get(found[1], found[0]), message)


def _refuse(message: str, status: int = 2) -> int:
    warn(f"rank {rank()}: {message}" if rank() else message)
    return status


def _explained(command: str, overrides: list[str], error: Exception) -> str:
    """One line from Hydra's several, with the legal keys where a key was not known."""
    from hydra.errors import OverrideParseException

    message = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if isinstance(error, OverrideParseException):
        return f"Expected key=value. Got {error.override!r}: {message.split(' See https')[0]}"
    message = re.split(r" full_key:| Config search path:", message)[0]
    unknown = re.search(r"Could not override '([\w.@/]+)'", message)
    if not unknown:
        return message
    path, _, key = unknown.group(1).rpartition(".")
    legal = _legal_keys(command, [o for o in overrides if re.fullmatch(r"[\w/@]+=[\w,]+", o)], path)
    return f"Expected a key of {path or command}: {', '.join(legal)}. Got {key!r}." if legal else message


def _legal_keys(command: str, choices: list[str], path: str) -> list[str]:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import DictConfig, OmegaConf

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_directory(command)), version_base="1.3"):
        for kept in (choices, []):
            try:
                config = compose(command, overrides=kept)
            except Exception:  # the choices hold the very key that is not known
                continue
            section = OmegaConf.select(config, path) if path else config
            if isinstance(section, DictConfig):
                recipes = ["experiment"] if command == "train" and not path else []  # null, so not in what is composed
                return recipes + [str(key) for key in section if key != "_target_"]
    return []
