"""W1 between all pairs of groups: cell types, classes, sites, conditions."""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip.data import pooled_scaling
from wgan_lip.data.sources import Source
from wgan_lip.metrics.excess import halved
from wgan_lip.transport import Problem, narrow_problem
from wgan_lip.utils.checks import InputError, check_samples, check_seed, column_names, few
from wgan_lip.utils.files import write_whole
from wgan_lip.utils.numbers import rounded
from wgan_lip.utils.printing import Printed, Row
from wgan_lip.utils.tables import markdown_table
from wgan_lip.utils.terminal import printable

__all__ = ["PairwiseW1", "pairwise_w1", "split_labels"]

MOST = 100  # groups; a column with more values does not define groups
SHOWN = 20  # groups of a table or picture, at most
FIELDS = ("lower", "exact", "value", "upper", "excess")


@dataclass(frozen=True, eq=False, repr=False)
class PairwiseW1(Printed):
    """W1 between the samples of all pairs of g groups, enclosed. Matrices are symmetric, (g, g), 0 on the diagonal.

    Attributes:
        names: Names of the groups.
        sizes: Number of samples in each.
        used: How many of them the numbers are about.
        lower: At most W1 of the samples, with proof.
        exact: W1 of the samples; NaN where the two ends did not meet.
        value: The best single number between the ends.
        upper: At least W1 of the samples, with proof.
        excess: W1 beyond its floor, by halves: about 0 for groups of one law, of either sign; NaN if a group has fewer
            than four samples, or if it was not asked for. Use it to compare groups of different sizes.
        dim: Dimension of the samples.
        units: What one unit of W1 is, in words.
        seconds: Time taken.
        seed: Seed of the draws.
        notes: What the reader should know, in sentences.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    used: tuple[int, ...]
    lower: np.ndarray
    exact: np.ndarray
    value: np.ndarray
    upper: np.ndarray
    excess: np.ndarray
    dim: int
    units: str
    seconds: float
    seed: int
    notes: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The pairs of different groups, by their numbers, first < second."""
        return list(combinations(range(len(self.names)), 2))

    def headline(self) -> str:
        pairs = "1 pair" if len(self.pairs) == 1 else f"{len(self.pairs):,} pairs"
        return f"W1 between {len(self.names)} groups in dimension {self.dim:,}, {pairs}"

    def summary_rows(self) -> list[Row]:
        near, far = (
            min(self.pairs, key=lambda pair: self.value[pair]),
            max(self.pairs, key=lambda pair: self.value[pair]),
        )
        rows = [self._row("Closest", near), self._row("Farthest", far)]
        if np.isfinite(self.excess).all():
            rows.append(self._row("Most beyond floor", max(self.pairs, key=lambda pair: self.excess[pair])))
        groups = [f"{name} ({size:,})" for name, size in zip(self.names, self.sizes)]
        rows += [Row("Groups", few(groups, 12)), Row("One unit is", self.units)]
        return [*rows, *(Row("Note", note) for note in self.notes)]

    def _row(self, what: str, pair: tuple[int, int]) -> Row:
        one, other = (self.names[k] for k in pair)
        excess = self.excess[pair]
        beyond = "" if math.isnan(excess) else f", {rounded(excess, 3)} beyond its floor"
        return Row(what, f"W1 = {rounded(self.value[pair], 4)}{beyond}", f"{one} – {other}")

    def table(self, what: str = "value", digits: int = 4) -> str:
        """One of the matrices in Markdown, the first 20 groups: lower, exact, value, upper or excess."""
        matrix, shown = self._matrix(what), [printable(name) for name in self.names[:SHOWN]]
        lines = zip(shown, matrix[:SHOWN, :SHOWN])
        rows = [[name, *(rounded(number, digits) for number in line)] for name, line in lines]
        left = len(self.names) - len(shown)
        return markdown_table(["", *shown], rows) + (f"\n\n… and {left} more groups" if left else "")

    def _matrix(self, what: str) -> np.ndarray:
        if what not in FIELDS:
            raise InputError(f"There is no matrix {what!r}. Choose one of {', '.join(FIELDS)}.")
        return getattr(self, what)

    def csv(self) -> str:
        """All pairs, one per line, after a header: group_x, group_y, n, m, lower, exact, value, upper, excess."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["group_x", "group_y", "n", "m", *FIELDS])
        for i, j in self.pairs:
            numbers = (float(getattr(self, field)[i, j]) for field in FIELDS)
            cells = ("" if math.isnan(number) else repr(number) for number in numbers)
            writer.writerow([self.names[i], self.names[j], self.used[i], self.used[j], *cells])
        return text.getvalue()

    def save_csv(self, path: str | os.PathLike[str]) -> Path:
        """Writes :meth:`csv`, whole or not at all."""
        return write_whole(path, self.csv().encode())

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data, as `result.json` holds it."""
        return {
            "groups": list(self.names),
            "sizes": list(self.sizes),
            "used": list(self.used),
            **{field: getattr(self, field).tolist() for field in FIELDS},
            "dim": self.dim,
            "units": self.units,
            "seconds": round(self.seconds, 3),
            "seed": self.seed,
            "notes": list(self.notes),
        }

    def picture(self) -> str:
        """The values as a table in shades of blue, the first 20 groups."""
        shown, top = [printable(name) for name in self.names[:SHOWN]], float(self.value.max()) or 1.0
        cell = "padding: 0.1em 0.5em; text-align: right"
        heads = "".join(f'<th style="{cell}">{escape(name)}</th>' for name in shown)
        lines = []
        for i, name in enumerate(shown):
            cells = "".join(
                f'<td style="{cell}; background: rgba(31, 134, 199, {0.75 * self.value[i, j] / top:.3f})">'
                f"{rounded(self.value[i, j], 3)}</td>"
                for j in range(len(shown))
            )
            lines.append(f'<tr><th style="{cell}">{escape(name)}</th>{cells}</tr>')
        return f'<table aria-label="W1 of all pairs"><tr><th></th>{heads}</tr>{"".join(lines)}</table>'


def pairwise_w1(
    samples: Any,
    groups: str | Sequence[Any] | ArrayLike,
    *,
    size: int | None = 1000,
    standardise: str | None = None,
    excess: bool = True,
    seconds: float = 30.0,
    seed: int = 0,
    device: torch.device | str = "cpu",
    names: Sequence[str] | None = None,
    on_pair: Callable[[int, int], None] | None = None,
) -> PairwiseW1:
    r"""Encloses W1 between the samples of every two groups.

    Arguments:
        samples: All samples, shape (n, d): an array, a tensor, a data frame, an AnnData object.
        groups: The group of each sample, n labels; or the name of the column that holds them, in a data frame, where it
            is then not a coordinate, or in `obs` of an AnnData object. Samples without a label are left out.
        size: The most samples of a group to use, drawn at random: W1 of samples depends on their number, so groups of
            equal size compare best. None takes all.
        standardise: sd or mad: every column is divided by its pooled spread within the groups, see
            :func:`wgan_lip.standardise`. None keeps the units.
        excess: Whether to compute the excess, which takes half as long again.
        seconds: Time for narrowing the interval of a pair of more than 4 million edges; others are solved at once.
        seed: Seed of the draws.
        device: Where edges are priced.
        names: Names of the columns, for messages; a data frame has its own.
        on_pair: Called after every pair with the numbers of pairs done and in total.

    Returns:
        :class:`PairwiseW1`; groups in the order of a categorical column, else sorted.

    Raises:
        InputError: Unusable samples; other than one label for each sample, or than 2 to 100 groups of at least two
            samples; no such column; what :func:`wgan_lip.standardise` refuses.

    Guarantee:
        lower ≤ W1 ≤ upper for the samples used, as in :func:`wgan_lip.transport.solve`. It says nothing about the laws.
        `excess` is 0 in the mean for two groups of one law, and has no certificate; with many pairs some are away from
        0 by chance: :func:`wgan_lip.two_sample_test` tests a pair.

    Example:
        >>> found = pairwise_w1([[0.0], [1.0], [3.0], [4.0], [0.0], [1.0]], ["a", "a", "b", "b", "c", "c"])
        >>> found.names, found.value.tolist()
        (('a', 'b', 'c'), [[0.0, 3.0, 0.0], [3.0, 0.0, 3.0], [0.0, 3.0, 0.0]])
    """
    start = time.monotonic()
    check_seed(seed)
    if size is not None and (not isinstance(size, int) or size < 2):
        raise InputError(f"size must be an integer of at least 2, or None for all, not {size!r}.")
    if not seconds > 0:
        raise InputError(f"seconds must be positive, not {seconds}.")
    samples, labels = _taken_apart(samples, groups)
    columns = names or column_names(samples)
    rows = check_samples(samples, "samples", minimum=2).detach().cpu()
    called, members, notes = split_labels(labels, len(rows))
    chosen = [_drawn(index, size, seed, number) for number, index in enumerate(members)]
    parts = [rows[torch.from_numpy(index)] for index in chosen]
    units, told = Source.units, list(notes)
    if standardise is not None:
        scaling = pooled_scaling([rows[torch.from_numpy(index)] for index in members], by=standardise, names=columns)
        parts, units = [scaling.of(part) for part in parts], scaling.units
        told += scaling.notes
    used = [len(part) for part in parts]
    if any(len(index) > count for index, count in zip(members, used)):
        told.append(f"{size:,} samples were drawn from each larger group.")
    if min(used) < max(used):
        told.append(
            f"Groups have {min(used):,} to {max(used):,} samples. W1 of fewer samples is larger: compare pairs by "
            "their excess."
        )

    matrices = {field: np.zeros((len(called), len(called))) for field in FIELDS}
    pairs = list(combinations(range(len(called)), 2))
    for done, (i, j) in enumerate(pairs, 1):
        for field, number in _pair(parts[i], parts[j], excess, seconds, seed, device).items():
            matrices[field][i, j] = matrices[field][j, i] = number
        if on_pair is not None:
            on_pair(done, len(pairs))
    sizes = tuple(map(len, members))
    return PairwiseW1(
        called, sizes, tuple(used), **matrices, dim=rows.shape[1], units=units, seconds=time.monotonic() - start,
        seed=seed, notes=tuple(told),
    )  # fmt: skip


def split_labels(labels: Any, n: int) -> tuple[tuple[str, ...], list[np.ndarray], tuple[str, ...]]:
    """The groups that n labels make: their names, the indices of their samples, and notes on what was left out.

    Raises:
        InputError: See :func:`pairwise_w1`.
    """
    order = getattr(getattr(labels, "cat", labels), "categories", None)
    labels = labels.tolist() if isinstance(labels, (Tensor, np.ndarray)) else list(labels)
    if len(labels) != n:
        raise InputError(f"groups must hold one label for each of {n} samples, not {len(labels)}.")
    found: dict[Any, list[int]] = {}
    for row, label in enumerate(labels):
        if isinstance(label, (list, tuple, dict)):
            raise InputError(f"Labels of groups must be single values, not {label!r} as in row {row}.")
        if label is not None and label == label and str(label) != "":  # NaN is unlike itself
            found.setdefault(label, []).append(row)
    if len(found) > MOST:
        told = few(list(map(str, found)), 3)
        raise InputError(f"There are {len(found):,} different labels: {told}. Bin them into at most {MOST} groups.")
    keys = [key for key in order if key in found] if order is not None else sorted(found, key=_place)
    notes = []
    if missing := n - sum(map(len, found.values())):
        notes.append(f"{missing:,} of {n:,} samples have no label, and were left out.")
    if single := [str(key) for key in keys if len(found[key]) < 2]:
        notes.append(f"Groups of a single sample were left out: {few(single)}.")
        keys = [key for key in keys if len(found[key]) > 1]
    if len(keys) < 2:
        raise InputError(
            f"At least two groups with two samples each are needed. Found {len(keys)}: "
            f"{few(list(map(str, keys))) or 'none'}."
        )
    return tuple(map(str, keys)), [np.array(found[key]) for key in keys], tuple(notes)


def _place(label: Any) -> tuple[bool, float, str]:
    """A sort key: numbers in order, then words in order."""
    with suppress(TypeError, ValueError):
        if math.isfinite(number := float(label)):
            return False, number, ""
    return True, 0.0, str(label)


def _taken_apart(samples: Any, groups: Any) -> tuple[Any, Any]:
    """Samples without the column that groups them, and that column."""
    if not isinstance(groups, str):
        return samples, groups
    if hasattr(samples, "obs") and hasattr(samples, "var_names"):
        known = list(samples.obs.columns)
        if groups in known:
            return samples, samples.obs[groups]
        raise InputError(f"obs has no column {groups!r}. It has {few(known, 20) or 'none'}.")
    names = column_names(samples)
    if names is None:
        raise InputError(f"Only a data frame can have a column {groups!r}. Give one label for each sample instead.")
    if groups not in names:
        raise InputError(f"The data frame has no column {groups!r}. It has {few(names, 20)}.")
    others = [name for name in names if name != groups]
    labels = samples[groups]
    labels = labels.to_pylist() if hasattr(labels, "to_pylist") else labels
    return (samples.select(others) if hasattr(samples, "select") else samples[others]), labels


def _drawn(index: np.ndarray, size: int | None, seed: int, number: int) -> np.ndarray:
    if size is None or len(index) <= size:
        return index
    return np.sort(np.random.default_rng((seed, number)).choice(index, size, replace=False))


def _pair(
    x: Tensor, y: Tensor, excess: bool, seconds: float, seed: int, device: torch.device | str
) -> dict[str, float]:
    rounds = narrow_problem(Problem.of_checked(x, y), device=device, deadline=time.monotonic() + seconds)
    (found,) = deque(rounds, maxlen=1)
    lower, upper = found.transport.lower, found.transport.upper
    exact = found.transport.exact if found.optimal else None
    beyond = halved(x, y, seed=seed).excess if excess and min(len(x), len(y)) >= 4 else math.nan
    return {
        "lower": lower,
        "exact": math.nan if exact is None else exact,
        "value": (lower + upper) / 2 if exact is None else exact,
        "upper": upper,
        "excess": beyond,
    }
