"""The global random generators, as a state that goes into a checkpoint and back."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import rich.style  # noqa: F401 - importing it draws from Python's generator, so do it before any state is set
import torch

__all__ = ["global_rng_state", "set_global_rng_state"]


def global_rng_state() -> dict[str, Any]:
    """States of torch's CPU generator, every GPU's, NumPy's and Python's: tensors and plain values."""
    numpys = np.random.get_state(legacy=False)
    keys = torch.from_numpy(numpys["state"]["key"].astype(np.int64))
    version, internal, gauss_next = random.getstate()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": gpus,
        "numpy": (numpys["bit_generator"], keys, numpys["state"]["pos"], numpys["has_gauss"], numpys["gauss"]),
        "python": (version, torch.tensor(internal), gauss_next),
    }


def set_global_rng_state(state: Mapping[str, Any]) -> None:
    """Puts the generators back as :func:`global_rng_state` found them; skips GPUs that do not exist here."""
    torch.set_rng_state(state["torch"].cpu())
    for index, gpu in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(gpu.cpu(), index)
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss_next))
