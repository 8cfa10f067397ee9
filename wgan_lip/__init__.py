"""Wasserstein generative modelling with critics whose Lipschitz constant is proved.

Two concepts carry the package. A *certified critic* is a network whose Lipschitz constant is bounded by a proof about
its stored weights (:func:`certify`). An *interval* lower ≤ W1 ≤ upper stands between such a critic's dual value and
the cost of a transport plan (:func:`bracket`).
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "lipschitz.adversary": ("enumerate_lipschitz", "estimate_lipschitz"),
    "lipschitz.certificates": ("Certificate", "certify", "verify"),
    "utils.checks": ("InputError", "UncertifiableError"),
    "critics": (
        "ClippedCritic",
        "ConvolutionalCritic",
        "FixedWidthCritic",
        "GroupSortCritic",
        "PenalizedCritic",
        "ResNetCritic",
        "SortingCritic",
        "SpectralNormCritic",
    ),
    "data": ("Law", "law_of_rows", "open_samples"),
    "runs.export": ("Exported", "export_players", "load_exported"),
    "wasserstein.estimate": ("W1Estimate", "estimate_w1"),
    "inspection.explore": ("Exploration", "explore"),
    "generators": ("DCGANGenerator", "MLPGenerator", "ResNetGenerator"),
    "lipschitz.layers": ("retract_after_steps",),
    "critics.compiled": (
        "MaxMinFunction",
        "compile_fixed_width",
        "compile_resnet",
        "critic_from_transport",
        "interpolate",
    ),
    "wasserstein.population": ("PopulationBounds", "clip_range", "population_bounds"),
    "runs.run": ("Run", "load_run"),
    "training": ("train_wgan",),
    "wasserstein.interval": ("W1Interval", "bracket", "kr_lower_bound"),
}
__all__ = ["__version__", *(name for names in _HOMES.values() for name in names)]


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first asked for, so that the library never imports what it doesn't use."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"wgan_lip.{home}"), name)
    raise AttributeError(f"module 'wgan_lip' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
