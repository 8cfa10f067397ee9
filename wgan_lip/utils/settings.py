"""Settings that check themselves: a dataclass whose fields declare their limits."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any

from wgan_lip.utils.checks import InputError, check_choice

__all__ = ["Settings", "above", "at_least", "one_of"]

COUNT = 10**12  # the largest count of anything


def above(limit: float, default: Any, *, most: float = math.inf, optional: bool = False) -> Any:
    """A field for a finite number above `limit` and at most `most`; or None if `optional`, or by default."""
    return field(default=default, metadata={"above": limit, "most": most, "optional": optional or default is None})


def at_least(limit: float, default: Any, *, most: float = math.inf) -> Any:
    """A field for a number of at least `limit` and at most `most`; or None, if that is the default."""
    return field(default=default, metadata={"least": limit, "most": most, "optional": default is None})


def one_of(choices: Collection[str], default: str) -> Any:
    """A field for one of some words."""
    return field(default=default, metadata={"choices": choices})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of settings: frozen, keyword-only, with an error that names a setting whose value makes no sense.

    A subclass declares each setting once: its name and type, its default and its limits by :func:`above`,
    :func:`at_least` or :func:`one_of`, and what it means in the docstring.

    Raises:
        InputError: A value outside its limits.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Pace(Settings):
        ...     steps: int = above(0, 100)
        >>> Pace(steps=0)
        Traceback (most recent call last):
            ...
        wgan_lip.utils.checks.InputError: `steps` must be above zero, not 0.
    """

    def __post_init__(self) -> None:
        for setting in fields(self):
            limits, value = setting.metadata, getattr(self, setting.name)
            if not limits or (value is None and limits.get("optional")):
                continue
            if "choices" in limits:
                check_choice(value, list(limits["choices"]), f"`{setting.name}`")
                continue
            whole = "float" not in str(setting.type)
            if isinstance(value, bool) or not isinstance(value, numbers.Integral if whole else numbers.Real):
                kind = "an integer" if whole else "a number"
                raise InputError(f"`{setting.name}` must be {kind}, not {value!r:.60}.")
            if type(value) not in (int, float):  # such as numpy's
                value = int(float(value)) if whole else float(value)
                object.__setattr__(self, setting.name, value)
            remedy = " Leave it null for no limit." if limits["optional"] else ""
            low = limits.get("above", limits.get("least", -math.inf))
            high = min(limits["most"], COUNT) if whole else limits["most"]
            if "above" in limits and not low < value < math.inf:  # NaN as well
                must = f"above {'zero' if low == 0 else f'{low:g}'}{' and finite' * (value == math.inf)}"
            elif not low <= value:
                must = f"at least {low:g}"
            elif value > high:
                must = f"at most {high:,}"
            else:
                continue
            raise InputError(f"`{setting.name}` must be {must}, not {value}.{remedy}")
