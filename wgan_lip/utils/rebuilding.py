"""Objects that remember their constructor arguments, so that a configuration can rebuild them."""

from __future__ import annotations

import inspect
from typing import Any

__all__ = ["BUILT_WITH", "Rebuildable", "built_with"]

BUILT_WITH = "_built_with"
"""The attribute that :class:`Rebuildable` adds."""


class Rebuildable:
    """A mixin for classes whose instances keep their constructor arguments."""

    def __new__(cls, *args: Any, **keywords: Any) -> Any:
        made = super().__new__(cls)
        object.__setattr__(made, BUILT_WITH, (args, keywords))
        return made


def built_with(thing: object) -> dict[str, Any] | None:
    """The arguments that an object was built with, by name; None if it doesn't know, or if one is not plain data.

    Plain data are None, booleans, numbers, strings, and lists or tuples of these. Instances of :class:`Rebuildable`
    count as plain, too.
    """
    if not isinstance(thing, Rebuildable):
        return None
    args, keywords = getattr(thing, BUILT_WITH)
    try:
        bound = inspect.signature(type(thing)).bind(*args, **keywords)
    except TypeError:  # a copy, which was not constructed
        return None
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return None
        named |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return {name: _listed(value) for name, value in named.items()} if all(map(_plain, named.values())) else None


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    return value is None or type(value) in (bool, int, float, str) or isinstance(value, Rebuildable)


def _listed(value: Any) -> Any:
    return [_listed(part) for part in value] if isinstance(value, (list, tuple)) else value
