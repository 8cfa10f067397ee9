"""Wasserstein generative modelling with critics whose Lipschitz constant is proved.

Two concepts carry the package. A *certified critic* is a network whose Lipschitz constant is bounded by a proof about
its stored weights (:func:`certify`). An *interval* lower ≤ W1 ≤ upper stands between such a critic's dual value and
the cost of a transport plan (:func:`bracket`).
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# Public name → the module that has it, as the stub tells type checkers too.
_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
_HOMES = {name.name: str(node.module) for node in _STUB.body if isinstance(node, ast.ImportFrom) for name in node.names}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first asked for, so that the library never imports what it doesn't use."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'wgan_lip' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
