"""Typed schemas, read from the signatures of the classes and functions that a configuration feeds."""

from __future__ import annotations

import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from wgan_lip.cli.overrides import GIVEN, plain
from wgan_lip.runs.targets import check_trust, target_class
from wgan_lip.utils.checks import InputError

__all__ = ["RUN", "checked", "run_named"]

RUN = {"run": str, "trust": list}  # the keys that name a run

UNIONS = (typing.Union, types.UnionType)
CHECKED = {bool: (bool,), int: (int,), float: (int, float), str: (str,), type(None): (type(None),)}


def checked(
    config: DictConfig,
    root: Mapping[str, Any],
    sections: Mapping[str, Callable] | None = None,
    built: Collection[str] = (),
) -> dict[str, Any]:
    """Resolves a composed configuration and checks the name and type of every key.

    Arguments:
        config: What Hydra composed.
        root: Key → type of the entries outside all sections.
        sections: Section → the function whose keyword arguments it holds.
        built: Sections that name a class by `_target_`, of :data:`wgan_lip.runs.targets.ROLES`. A section whose class
            the user named keeps only the keys given with it; see :func:`begun_anew`.

    Returns:
        Plain dictionaries, lists and scalars.

    Raises:
        InputError: A missing section or value, an unknown key (the legal ones are named) or a wrong type, with the
            key's path.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise InputError(f"{' and '.join(missing)} must be given, as {missing[0]}=VALUE.")
    try:
        settings = plain(config)
    except OmegaConfBaseException as error:
        raise InputError(f"The configuration can't be resolved: {str(error).splitlines()[0]}") from None
    sections = sections or {}
    if absent := [key for key in (*root, *sections, *built) if key not in settings]:
        raise InputError(
            f"The configuration lacks {absent[0]}. Leave out the override that removes it, such as ~{absent[0]}."
        )
    trust = check_trust(settings.get("trust", ()))
    if trust and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that nothing there hides an installed module
    for key, value in settings.items():
        if key in built and isinstance(value, dict) and "_target_" in value:
            if isinstance(given := value.pop(GIVEN, None), list):
                value = settings[key] = {name: value[name] for name in ("_target_", *given) if name in value}
            _check_built(key, key, value, trust)
        elif isinstance(value, dict) and key in sections:
            _check_section(key, value, legal := _signature(sections[key]))
            if absent := [name for name in legal if name not in value]:
                lacking = f"{key}.{absent[0]}"
                raise InputError(
                    f"The configuration lacks {lacking}. Leave out the override that removes it, such as ~{lacking}."
                )
        elif key in sections:
            raise InputError(f"{key} is a section, not a value such as {value!r}. Change it by {key}.KEY=VALUE.")
        elif key in built:
            raise InputError(
                f"{key} must be a section with _target_, not {value!r}. "
                "Choose from its group, as in optimizer@critic_optimizer=sgd."
            )
        else:
            _check_section("", {key: value}, root)
    return settings


def run_named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :func:`wgan_lip.runs.run.load_run`, from the keys of :data:`RUN`."""
    return {"directory": settings["run"], "trust": settings["trust"]}


def _check_built(role: str, name: str, section: Mapping[str, Any], trust: Collection[str]) -> None:
    """Checks a section that names a class, and the sections inside it, as for a critic made of critics."""
    _check_section(name, section, _signature(target_class(role, section["_target_"], trust=trust)))
    for key, value in section.items():
        if isinstance(value, dict) and "_target_" in value:
            _check_built(role, f"{name}.{key}", value, trust)


def _check_section(name: str, section: Mapping[str, Any], legal: Mapping[str, Any]) -> None:
    prefix = f"{name}." if name else ""
    for key, value in section.items():
        if key == "_target_":
            continue
        if key not in legal and ANY not in legal:
            raise InputError(f"There is no key {prefix}{key}. Keys: {', '.join(prefix + known for known in legal)}.")
        kind = legal.get(key, Any)
        kinds = typing.get_args(kind) if typing.get_origin(kind) in UNIONS else (kind,)
        if not all(kind in CHECKED for kind in kinds):
            continue  # such as a tuple of floats, which its class checks
        if not any(type(value) in CHECKED[kind] for kind in kinds):
            names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            remedy = f" Quote it, as {prefix}{key}='\"{value}\"'." if str in kinds else ""
            raise InputError(f"{prefix}{key} must be of type {names}, not {value!r}.{remedy}")


ANY = "**"  # among the keywords of a function that accepts any


def _signature(function: Callable) -> dict[str, Any]:
    """Keyword → annotated type of what `function`, or a class's constructor, takes from a configuration."""
    try:
        hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except Exception:  # a user's class may have annotations that exist only for type checkers
        hints = {}
    legal = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            legal[ANY] = Any
        elif name != "params":
            legal[name] = _without_tensor(hints.get(name, Any))
    return legal


def _without_tensor(kind: Any) -> Any:
    """Torch's optimisers take `float | Tensor`; a configuration has floats only."""
    parts = [part for part in typing.get_args(kind) if part is not Tensor]
    return parts[0] if typing.get_origin(kind) in UNIONS and len(parts) == 1 else kind
