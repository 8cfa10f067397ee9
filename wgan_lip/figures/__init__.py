"""Pictures of samples, critics and intervals.

Every function returns a new `matplotlib.figure.Figure` or an array; nothing touches pyplot or its backend.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

# Name → its module, loaded on demand: Matplotlib takes half a second to load, and few commands draw.
_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
_HOMES = {name.name: str(node.module) for node in _STUB.body if isinstance(node, ast.ImportFrom) for name in node.names}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """Loads a picture's module on first use."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'wgan_lip.figures' has no attribute {name!r}; it has {', '.join(__all__)}")
