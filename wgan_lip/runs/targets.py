"""Configuration → object: the few classes that a file may name, and those of packages that the user trusts.

A section of a configuration names a class by `_target_` and gives its keyword arguments. The section's name is the role
of the class: a file may name only classes of :data:`ROLES`, each in its role, so that loading it runs only code of this
package and of torch, and a data set named as the critic downloads nothing. Modules of other packages are added by
`trust`, which the user states for one call or one command, and which is never read from a file.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip.data import Source
from wgan_lip.utils.checks import InputError, check_memory, one_line, out_of_memory
from wgan_lip.utils.rebuilding import Rebuildable, built_with

__all__ = ["IN_PYTHON", "ROLES", "build", "check_trust", "class_named", "load_weights", "made_in_python", "recipe",
           "target_class"]  # fmt: skip

IN_PYTHON = "in_python"  # stands for the module of an object built in Python from more than plain data

ROLES: dict[str, tuple[tuple[str, ...], type]] = {
    "data": (("wgan_lip.data",), Source),
    "critic": (("wgan_lip.critics",), nn.Module),
    "generator": (("wgan_lip.generators",), nn.Module),
    "critic_optimizer": (("torch.optim", "wgan_lip.lipschitz.optimizers"), torch.optim.Optimizer),
    "generator_optimizer": (("torch.optim", "wgan_lip.lipschitz.optimizers"), torch.optim.Optimizer),
}
"""Role → the modules whose classes a configuration may name in it, and the base class they must have."""

KINDS: dict[type, str] = {
    Source: "a wgan_lip.data.Source",
    nn.Module: "a torch module",
    torch.optim.Optimizer: "a torch optimiser",
}


def check_trust(trust: Collection[str]) -> tuple[str, ...]:
    """Returns `trust` as names of packages or modules. Raises :class:`InputError` if it is anything else."""
    names = [trust] if isinstance(trust, str) or not isinstance(trust, Collection) else list(trust)
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise InputError(f"trust must name packages, as in trust=[mypackage], not {name!r}.")
    return tuple(names)


def target_class(role: str, target: Any, *, trust: Collection[str] = ()) -> type[Any]:
    """The class that `_target_: target` names in the section `role`.

    Arguments:
        role: One of :data:`ROLES`.
        target: A class of the role's modules, or `package.module.Class` of a trusted package.
        trust: Packages or modules whose code may run; a name includes everything below it.

    Raises:
        InputError: Any other target, or a module of a trusted package that can't be imported.
    """
    homes, base = ROLES[role]
    module, _, name = str(target).rpartition(".")
    if module == IN_PYTHON:
        keyword = {"data": "source"}.get(role, role)
        raise InputError(
            f"The {role} of this run is a {name} that was built in Python, and no configuration can rebuild it. "
            f"Pass it in: wgan_lip.load_run(folder, {keyword}=...), or wgan_lip.train(..., resume='auto') to resume."
        )
    trusted = any(f"{module}.".startswith(f"{package}.") for package in check_trust(trust))
    found = getattr(_imported(module), name, None) if (trusted or module in homes) and name.isidentifier() else None
    if inspect.isclass(found) and issubclass(found, base) and not inspect.isabstract(found):
        return found
    package = module.split(".")[0]
    if trusted:
        remedy = f"It must be a class of {module}, and {KINDS[base]}."
    elif package.isidentifier() and package not in ("torch", "wgan_lip"):
        remedy = f"If it is yours, or you trust all code of {package}, say so by trust=[{package}]."
    else:
        remedy = "Other classes must come from a package that you trust by name, trust=[mypackage]."
    raise InputError(f"{role}._target_ must name a class of {' or '.join(homes)}, not {target!r}. {remedy}")


def build(role: str, config: Any, *args: Any, trust: Collection[str] = (), **offered: Any) -> Any:
    """Builds the object that the section `role` of a configuration describes.

    Arguments:
        role: See :func:`target_class`.
        config: `_target_` and the keyword arguments of that class. They may include sections of the same role, which
            are built first, as for a critic made of critics.
        args: Positional arguments that come first.
        trust: See :func:`target_class`.
        offered: Keyword arguments passed if the class has them and `config` does not set them: the data's sizes.

    Raises:
        InputError: An illegal target, an unknown key (the legal ones are named), or arguments the class refuses.
    """
    if not isinstance(config, Mapping) or "_target_" not in config:
        raise InputError(f"{role} must be a section with _target_, not {config!r}.")
    cls = target_class(role, config["_target_"], trust=trust)
    try:
        keywords = {
            key: _with_parts(role, value, trust=trust, **offered) for key, value in config.items() if key != "_target_"
        }
    except RecursionError:
        raise InputError(f"The sections inside {role} are nested too deeply.") from None
    parameters = inspect.signature(cls).parameters
    legal = [
        name for name, parameter in parameters.items() if parameter.kind in NAMED and name not in ("self", "params")
    ]
    unknown = sorted(map(str, set(keywords) - set(legal)))
    if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        raise InputError(f"{cls.__name__} has no key {', '.join(unknown)}. Its keys: {', '.join(legal)}.")
    taken = {name: value for name, value in offered.items() if name in legal and name not in keywords}
    if issubclass(cls, nn.Module) and cls.__module__.startswith("wgan_lip."):
        _check_room(cls, {**keywords, **taken})
    try:
        return cls(*args, **keywords, **taken)
    except InputError:
        raise
    except Exception as error:  # whatever a class raises on arguments that it does not take
        if out_of_memory(error):
            raise
        raise InputError(f"{cls.__name__} can't be built with these settings: {one_line(error)}.") from error


def recipe(role: str, thing: object) -> dict[str, Any]:
    """The section of a configuration from which :func:`build` can rebuild an object.

    If there is none, because it was built from objects or its class can't be found in a module, the section names the
    class in the module :data:`IN_PYTHON`: the caller must then pass the object in again.
    """
    kind = type(thing)
    homes = [home for home in ROLES[role][0] if getattr(_imported(home), kind.__name__, None) is kind]
    home = homes[0] if homes else kind.__module__
    arguments = _sections(role, built_with(thing))
    if arguments is None or home == "__main__" or kind.__qualname__ != kind.__name__:
        return made_in_python(thing)
    return {"_target_": f"{home}.{kind.__name__}", **arguments}


def _with_parts(role: str, value: Any, **settings: Any) -> Any:
    """A value of a configuration, with the sections in it built."""
    if isinstance(value, list):
        return [_with_parts(role, part, **settings) for part in value]
    return build(role, value, **settings) if isinstance(value, Mapping) and "_target_" in value else value


def _sections(role: str, value: Any) -> Any:
    """The arguments an object was built with, objects among them as their recipes; None if one has no recipe."""
    if isinstance(value, (dict, list)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        parts = {key: _sections(role, part) for key, part in pairs}
        if any(part is None and value[key] is not None for key, part in parts.items()):
            return None
        return parts if isinstance(value, dict) else list(parts.values())
    if not isinstance(value, Rebuildable):
        return value
    section = recipe(role, value) if isinstance(value, ROLES[role][1]) else made_in_python(value)
    return None if section["_target_"].startswith(f"{IN_PYTHON}.") else section


def made_in_python(thing: object) -> dict[str, Any]:
    """The section of an object that no configuration can build: its class, and what distinguishes it from others."""
    section: dict[str, Any] = {"_target_": f"{IN_PYTHON}.{type(thing).__name__}"}
    if isinstance(thing, Source):
        return section | {"fingerprint": thing.fingerprint()}
    if isinstance(thing, nn.Module):
        return section | {"parameters": sum(parameter.numel() for parameter in thing.parameters())}
    return section


def class_named(section: Any) -> str:
    """The class that a section of a configuration names, without its module, or "?" if it names none."""
    return str(section.get("_target_", "?")).rpartition(".")[2] if isinstance(section, Mapping) else "?"


def _check_room(cls: type[nn.Module], keywords: Mapping[str, Any]) -> None:
    """Refuses a module larger than memory: the system might otherwise kill the process without a message."""
    try:
        with torch.random.fork_rng(devices=()), torch.device("meta"):
            need: float = sum(entry.nbytes for entry in cls(**keywords).state_dict().values())
    except Exception as error:  # wrong arguments, which building it reports, or a class that reads tensor values
        need = math.inf if "overflow" in str(error) else 0
    check_memory(need, f"the weights of {cls.__name__}", "Lower its sizes.")


def load_weights(module: nn.Module, state: Any) -> str:
    """Loads a saved state dict into `module`; returns in words why it does not fit, or "" if it does."""
    try:
        if problem := _misfits(state, module.state_dict()):
            return problem
        module.load_state_dict(state)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        return one_line(error)
    return ""


def _misfits(saved: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """The first differences between a saved state dict and the expected one, in words; empty if there are none."""
    shapes, wanted = ({name: tuple(entry.shape) for name, entry in state.items()} for state in (saved, expected))
    problems = [f"{name} is missing" for name in wanted if name not in shapes]
    problems += [f"{name} does not belong to this class" for name in shapes if name not in wanted]
    problems += [
        f"{name} has shape {shapes[name]}, not {wanted[name]}"
        for name in wanted
        if shapes.get(name, wanted[name]) != wanted[name]
    ]
    more = [f"and {len(problems) - 3} more"] if len(problems) > 3 else []
    return ", ".join([*problems[:3], *more])


NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever the user's own module raises
        raise InputError(
            f"The module {module} can't be imported: {one_line(error)}. "
            "Install it, or start the command in the folder that contains it."
        ) from error
