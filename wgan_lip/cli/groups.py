"""The job behind `wgan-lip estimate x=FILE by=COLUMN`: W1 between all pairs of groups."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from wgan_lip import figures
from wgan_lip.cli import screens
from wgan_lip.data import Opened, TableOptions, open_samples
from wgan_lip.runs.folder import RESULT, set_status, versions
from wgan_lip.utils.checks import InputError, check_seed
from wgan_lip.utils.devices import find_device
from wgan_lip.utils.files import write_json
from wgan_lip.utils.terminal import say
from wgan_lip.wasserstein.groups import PairwiseW1, pairwise_w1, split_labels

__all__ = ["PAIRS", "estimate_groups", "open_groups"]

PAIRS = "pairs.csv"
ALONE = ("y", "a", "b", "key_y", "dim", "grid", "stream")
"""Keys for two sample sets, which have no meaning with `by`."""


def open_groups(settings: Mapping[str, Any], options: TableOptions) -> tuple[Opened, Tensor]:
    """The samples with their labels, and their rows. Raises :class:`InputError` if they have no groups."""
    if given := [key for key in ALONE if settings[key] not in (None, False)]:
        raise InputError(f"by={settings['by']} compares groups of x, and does not take {given[0]}. Leave it out.")
    opened = open_samples(settings["x"], key=settings["key_x"], options=options)
    if opened.rows is None or opened.labels is None:
        raise InputError(
            f"by needs a table that fits into memory (.csv .parquet .h5ad) or a data set with classes, and "
            f"{settings['x']} is neither."
        )
    split_labels(opened.labels, len(opened.rows))
    return opened, opened.rows


def estimate_groups(directory: Path, settings: Mapping[str, Any], opened: Opened, rows: Tensor) -> float:
    """Encloses W1 between all pairs, writes and prints the result; returns the largest value."""
    names = opened.names or [str(column) for column in range(rows.shape[1])]
    result = pairwise_w1(
        rows,
        opened.labels or (),
        size=settings["size"],
        standardise=settings["standardise"],
        seconds=settings["seconds"],
        seed=check_seed(settings["seed"]),
        device=find_device(settings["device"]),
        names=names,
        on_pair=_tell if sys.stderr.isatty() else None,
    )
    content = {**result.as_dict(), "x": opened.name, "by": settings["by"], "versions": versions()}
    if settings["standardise"] is None:
        content["units"] = opened.law.units
    content["notes"] = [*opened.notes, *content["notes"]]
    write_json(directory / RESULT, content)
    result.save_csv(directory / PAIRS)
    say(screens.grouped(result, directory, opened.name, opened.notes))
    written = {"Result": directory / RESULT, "All pairs": directory / PAIRS}
    for name, figure in _pictures(result).items():
        written[f"Heat map, {name}"] = figures.save(figure, directory / f"{name}.png", dpi=130)
    set_status(directory, "finished")
    say("\n".join(["", *(screens.place(name, path) for name, path in written.items())]))
    return float(result.value.max())


def _pictures(result: PairwiseW1) -> dict[str, figures.Figure]:
    draw = partial(figures.distance_matrix, names=result.names)
    drawn = {"w1": draw(result.value, title="W1 of the samples, all pairs of groups")}
    if np.isfinite(result.excess).any():
        drawn["excess"] = draw(result.excess, quantity="excess", title="W1 beyond what sampling explains")
    return drawn


def _tell(done: int, total: int) -> None:
    print(f"\r  {done}/{total} pairs", end="\n" if done == total else "", file=sys.stderr, flush=True)
