"""Finding what a package defines: its modules, and the classes in them that stand for something."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import TypeVar

__all__ = ["concrete_subclasses", "import_all"]

Kind = TypeVar("Kind")


def import_all(package: str) -> list[ModuleType]:
    """Every module of a package and of those inside it, imported, in alphabetical order; a plain module gives itself.

    Where a module only does something when it is run, as `__main__`, it is left out.
    """
    root = importlib.import_module(package)
    inner = pkgutil.walk_packages(getattr(root, "__path__", []), f"{package}.")
    names = sorted(module.name for module in inner if not module.name.endswith(".__main__"))
    return [root, *(importlib.import_module(name) for name in names)]


def concrete_subclasses(base: type[Kind]) -> list[type[Kind]]:
    """All classes below `base` that exist now and lack no method, by the names of their modules."""
    found: dict[type[Kind], None] = {}  # a class with two bases comes once
    below = [base]
    while below:
        for kind in below.pop(0).__subclasses__():
            if kind not in found:
                found[kind] = None
                below.append(kind)
    return sorted((kind for kind in found if not inspect.isabstract(kind)), key=lambda kind: kind.__module__)
