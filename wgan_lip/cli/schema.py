"""Typed schemas, read off the signatures of the classes and functions that a configuration feeds."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from wgan_lip.checks import InputError
from wgan_lip.runs import target_class

__all__ = ["checked"]

UNIONS = (typing.Union, types.UnionType)
CHECKED = {bool: (bool,), int: (int,), float: (int, float), str: (str,), type(None): (type(None),)}


def checked(
    config: DictConfig,
    root: Mapping[str, Any],
    sections: Mapping[str, Callable] | None = None,
    built: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Resolves a composed configuration and checks the name and type of every key.

    Arguments:
        config: What Hydra composed.
        root: Key → type of the entries outside all sections.
        sections: Section → the function whose keyword arguments it holds.
        built: Sections that name their class by `_target_`.

    Returns:
        Plain dictionaries, lists and scalars.

    Raises:
        InputError: A missing value, an unknown key (the legal ones are named) or a wrong type, with the key's path.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise InputError(f"Expected a value for {', '.join(missing)}. Got none. Give it as {missing[0]}=VALUE.")
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(f"Expected a configuration that resolves. Got: {str(error).splitlines()[0]}") from None
    for key, value in plain.items():
        if isinstance(value, dict) and "_target_" in value:
            _check_section(key, value, _signature(target_class(value["_target_"])))
        elif isinstance(value, dict) and key in (sections or {}):
            _check_section(key, value, _signature(sections[key]))
        elif key in built:
            raise InputError(
                f"Expected {key} to be a section with _target_. Got {value!r}. "
                "Name a choice through its group, as in optimizer@critic_optimizer=sgd."
            )
        else:
            _check_section("", {key: value}, root)
    return plain


def _check_section(name: str, section: Mapping[str, Any], legal: Mapping[str, Any]) -> None:
    prefix = f"{name}." if name else ""
    for key, value in section.items():
        if key == "_target_":
            continue
        if key not in legal:
            raise InputError(f"Expected keys {', '.join(prefix + known for known in legal)}. Got {prefix}{key}.")
        kinds = typing.get_args(legal[key]) or (legal[key],)
        if not all(kind in CHECKED for kind in kinds):
            continue  # such as a tuple of floats: the class that takes it checks it
        if not any(type(value) in CHECKED[kind] for kind in kinds):
            names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise InputError(f"Expected {prefix}{key} of type {names}. Got {value!r}. Give a value of that type.")


def _signature(function: Callable) -> dict[str, Any]:
    """Keyword → annotated type of what `function`, or the constructor of a class, takes from a configuration."""
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    legal = [name for name in inspect.signature(function).parameters if name != "params"]
    return {name: _without_tensor(hints.get(name, Any)) for name in legal}


def _without_tensor(kind: Any) -> Any:
    """Torch's optimisers take `float | Tensor`; a configuration has floats only."""
    parts = [part for part in typing.get_args(kind) if part is not Tensor]
    return parts[0] if typing.get_origin(kind) in UNIONS and len(parts) == 1 else kind
