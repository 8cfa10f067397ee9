"""Finding what a package defines: its modules, and their concrete classes."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import TypeVar

__all__ = ["concrete_subclasses", "import_all"]

Kind = TypeVar("Kind")


def import_all(package: str) -> list[ModuleType]:
    """Every module of a package and its subpackages, imported, in alphabetical order; for a plain module, itself.

    Modules to be run, such as `__main__`, are left out.
    """
    root = importlib.import_module(package)
    inner = pkgutil.walk_packages(getattr(root, "__path__", []), f"{package}.")
    names = sorted(module.name for module in inner if not module.name.endswith(".__main__"))
    return [root, *(importlib.import_module(name) for name in names)]


def concrete_subclasses(base: type[Kind]) -> list[type[Kind]]:
    """All concrete subclasses of `base`, by the names of their modules.

    If a class was defined twice, as by rerunning a notebook cell, the last definition counts.
    """
    found: dict[tuple[str, str], type[Kind]] = {}
    seen, below = {base}, [base]
    while below:
        for kind in below.pop(0).__subclasses__():
            if kind not in seen:  # through another of its bases
                seen.add(kind)
                below.append(kind)
                found[kind.__module__, kind.__qualname__] = kind
    return sorted((kind for kind in found.values() if not inspect.isabstract(kind)), key=lambda kind: kind.__module__)
