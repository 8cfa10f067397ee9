"""Composes and runs a command by Hydra; every failure that a user can cause is reported in one line."""

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

from wgan_lip.cli.help import all_keys, nearest_choices, nearest_keys, sections_of
from wgan_lip.cli.overrides import DRY_RUN, arranged, begun_anew, dry, quoted
from wgan_lip.cli.sweeps import JobFailed, JobOutcome, Jobs, Labelled, side_by_side
from wgan_lip.utils.checks import InputError, one_line, out_of_memory
from wgan_lip.utils.devices import rank, world_size
from wgan_lip.utils.terminal import let_go, say, shown, warn

__all__ = ["run_command"]

SWITCHES = {"--json": "json=true"}
"""A flag of other tools → its spelling here."""


def run_command(command: str, overrides: list[str], configs: Path) -> int:
    """Runs a command with its overrides as typed; returns the exit status, as `main` does.

    Arguments:
        command: One of `wgan_lip.cli.COMMANDS`.
        overrides: What follows it.
        configs: The folder of its configuration.
    """
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
    return _guarded(command, begun_anew([quoted(override) for override in overrides]), job, configs)


def _guarded(command: str, overrides: list[str], job: str, configs: Path) -> int:
    """Runs a command, reporting every failure a user can cause in one line."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from wgan_lip.training import OtherRankError

    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            _run(command, overrides, job, configs)
    except InputError as error:
        return _refuse(_in_keys(command, str(error)))
    except (HydraException, OmegaConfBaseException) as error:
        return _refuse(_explained(command, overrides, error, configs))
    except BrokenPipeError:  # from what Hydra prints, as in `wgan-lip train --help | head`
        let_go(sys.stdout)
    except OSError as error:
        return _refuse(f"{error.filename or 'The run folder'} can't be read or written: {error.strerror}.")
    except JobFailed as error:
        return _refuse(str(error), status=error.status)
    except _stopped() as error:
        return _refuse(_in_keys(command, str(error)), status=1)
    except OtherRankError as error:
        return _refuse(str(error), status=1) if rank() == 0 else 1  # the rank that stopped has already said why
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return _refuse(f"Out of memory: {one_line(error)}. {_smaller(command)}", status=1)
    except KeyboardInterrupt as stop:
        return _refuse(str(stop) or "interrupted", status=getattr(stop, "status", 130))
    return 0


def _run(command: str, overrides: list[str], job_name: str, configs: Path) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig

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
        """Keeps a failure for the end: Hydra would print it, and a sweep continues with the next job."""
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

    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that exceptions in composition reach _guarded instead of being printed
    saved, sys.argv = sys.argv, [f"wgan-lip {command}", *overrides]
    try:
        hydra.main(version_base="1.3", config_path=str(configs), config_name=command)(job)()
    except SystemExit as end:  # from Hydra, such as after --help
        if end.code:
            raise InputError(f"Hydra does not accept these flags together. See wgan-lip {command} --help.") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # from Hydra: a job keeps its failures
        raise InputError(
            f"Hydra can't compose these overrides: {one_line(error)}. Choose from a group by name, such as "
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
        _refuse(f"These jobs of the sweep failed, for the reasons below: {names}")
    for outcome in failed[:-1]:
        _refuse(str(outcome.failure))
    if failures:
        raise failures[-1]
    if failed:
        raise JobFailed(failed[-1])
    processes.part()


def _stopped() -> tuple[type[Exception], ...]:
    """The errors by which a command stops itself, with a message that says why."""
    from wgan_lip.training import StoppedError
    from wgan_lip.transport import TransportError
    from wgan_lip.wasserstein.interval import InvariantViolation

    return StoppedError, InvariantViolation, TransportError


def _warn(message: Warning | str, *place: Any, **more: Any) -> None:
    warn(str(message))


def _smaller(command: str) -> str:
    """What to lower where memory ran out."""
    if command != "train":
        return "Lower the sizes."
    return (
        "Raise training.accumulate, which evaluates a batch in parts and takes the same steps; or lower "
        "training.batch_size, training.audit_size, or the sizes of critic and generator."
    )


def _in_keys(command: str, message: str) -> str:
    """A message of the rooms below, which name settings as Python does, in the keys of the command line."""
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


def _explained(command: str, overrides: list[str], error: Exception, configs: Path) -> str:
    """Hydra's message in one line, with the legal keys if a key is unknown."""
    from hydra.errors import OverrideParseException

    message = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} can't be read as key=value: {message.split(' See https')[0]}"
    message = re.split(r" full_key:| Config search path:", message)[0]
    if choice := re.search(r"Could not find '(\w+)/([\w.@-]+)'", message):
        return nearest_choices(choice[1], choice[2], configs)
    unknown = re.search(r"Could not override '([\w.@/]+)'", message)
    if not unknown:
        return message
    name = unknown.group(1)
    if command == "train" and (typed := sections_of(name, configs)):
        return f"{name} can fill several sections. Say which: {' or '.join(f'{one}=CHOICE' for one in typed)}."
    path, _, key = name.rpartition(".")
    legal = _legal_keys(command, [o for o in overrides if re.fullmatch(r"[\w/@]+=[\w,]+", o)], path, configs)
    if path and legal:
        near = [f"{path}.{one}" for one in nearest_keys(key, legal)]
    else:
        near = nearest_keys(name, all_keys(command, configs))
    if near:
        return f"{command} has no key {name}. Did you mean {' or '.join(near)}?"
    return f"{path or command} has no key {key!r}. Its keys are {', '.join(legal)}." if legal else message


def _legal_keys(command: str, choices: list[str], path: str, configs: Path) -> list[str]:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import DictConfig, OmegaConf

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(configs), version_base="1.3"):
        for kept in (choices, []):
            try:
                config = compose(command, overrides=kept)
            except Exception:  # the unknown key is among the choices
                continue
            section = OmegaConf.select(config, path) if path else config
            if isinstance(section, DictConfig):
                recipes = ["experiment"] if command == "train" and not path else []  # null, so not in what is composed
                return recipes + [str(key) for key in section if key != "_target_"]
    return []
