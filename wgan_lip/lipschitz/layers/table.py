"""The table of layers, from what each class says about itself."""

from __future__ import annotations

import inspect

from wgan_lip.lipschitz.layers.base import LipschitzLayer, Summary
from wgan_lip.utils.discovery import concrete_subclasses, import_all
from wgan_lip.utils.tables import markdown_table

__all__ = ["layer_table"]


def layer_table(package: str = __package__) -> str:
    """A row in Markdown for every layer that `package`, a package or a module, defines; equal rows are joined."""
    import_all(package)
    names: dict[Summary, list[str]] = {}
    for kind in concrete_subclasses(LipschitzLayer):  # type: ignore[type-abstract]
        if f"{kind.__module__}.".startswith(f"{package}."):
            summary = kind.summary or Summary((inspect.getdoc(kind) or "").partition("\n")[0])
            names.setdefault(summary, []).append(f"`{kind.__name__}`")
    rows = [(", ".join(kinds), row.map, row.norm, row.constant) for row, kinds in names.items()]
    return markdown_table(["layer", "map", "norm", "constant"], rows)
