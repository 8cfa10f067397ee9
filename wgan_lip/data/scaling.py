"""Columns in units of their spread, so that no column dominates distances by its units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wgan_lip.utils.checks import InputError, check_choice, check_pair, column_names, few
from wgan_lip.utils.printing import Printed, Row

__all__ = ["SCALES", "Scaling", "Standardised", "pooled_scaling", "standardise"]

SCALES = {"sd": "pooled standard deviations", "mad": "pooled robust standard deviations (1.4826 MAD)"}
"""How spread is measured → the name of one unit of a coordinate."""
NORMAL = 1.482602218505602  # 1/Φ⁻¹(3/4): the standard deviation of a normal law over its median absolute deviation
ROUNDING = 2.0**-40  # times a column's values: a smaller spread is rounding


@dataclass(frozen=True, eq=False)
class Scaling:
    """The divisors of the columns.

    Attributes:
        scales: One positive number per column, shape (d,), float64; 1 for constant columns.
        constant: Indices of the constant columns, which add nothing to any distance.
        units: What one unit of a coordinate is after the division, in words.
        notes: What the reader should know, in sentences.
    """

    scales: Tensor
    constant: tuple[int, ...]
    units: str
    notes: tuple[str, ...]

    def of(self, samples: Tensor) -> Tensor:
        """Samples, shape (n, d), in these units: float64, on their device."""
        return samples.double() / self.scales.to(samples.device)


@dataclass(frozen=True, eq=False, repr=False)
class Standardised(Printed):
    """Two sample sets in units of the columns' pooled spread.

    Attributes:
        x: Samples of P, shape (n, d), float64.
        y: Samples of Q, shape (m, d).
        scaling: What their columns were divided by.
        names: Names of the columns, if the samples have any.
    """

    x: Tensor
    y: Tensor
    scaling: Scaling
    names: tuple[str, ...] | None = None

    @property
    def units(self) -> str:
        """What one unit of W1 is, in words."""
        return self.scaling.units

    def headline(self) -> str:
        return f"{len(self.x):,} and {len(self.y):,} samples in {self.units}"

    def summary_rows(self) -> list[Row]:
        scales = self.scaling.scales
        return [
            Row("Columns divided by", f"{scales.min():.4g} to {scales.max():.4g}", f"{len(scales):,} columns"),
            *(Row("Note", note) for note in self.scaling.notes),
        ]


def standardise(x: Any, y: Any, *, by: str = "sd") -> Standardised:
    r"""Divides every column of two sample sets by its pooled spread: W1 is then in pooled standard deviations.

    .. math:: s_k^2 = \frac{\sum_i (x_{ik} - \bar x_k)^2 + \sum_j (y_{jk} - \bar y_k)^2}{n + m - 2}

    for by="sd". For by="mad" it is 1.4826 times the median of all :math:`|x_{ik} - \tilde x_k|` and
    :math:`|y_{jk} - \tilde y_k|`, each set taken about its median, which outliers hardly change. It is the spread
    within the sets, as in Cohen's d: a shift of one column by its standard deviation is W1 = 1. Means are not
    subtracted, because W1 compares positions.

    Arguments:
        x: Samples of P, shape (n, d); also a data frame or an AnnData object.
        y: Samples of Q, shape (m, d), columns matched by name if both have names.
        by: sd or mad.

    Raises:
        InputError: Unusable samples; a column without spread within the sets that differs between them; or, with
            by="mad", a column in which half of the values are equal. The column is named.

    Guarantee:
        Constant columns stay as they are, add nothing to W1, and are listed in `scaling.notes`. The divisors are
        estimated from these samples and their sides: bounds on W1 of laws and permutation tests treat them as fixed
        units, which is not quite true with few samples.

    References:
        Statistical power analysis for the behavioral sciences (Cohen, 1988), section 2.5, for the pooled spread

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> x, y = torch.randn(2, 5000, 1, generator=rng)
        >>> both = standardise(1000 * x, 1000 * (y + 2))  # say, in metres instead of kilometres
        >>> print(both.units, round(float(both.y.mean() - both.x.mean()), 1))
        pooled standard deviations 2.0
    """
    names = column_names(x)
    x, y = check_pair(x, y, minimum=2)
    scaling = pooled_scaling([x, y], by=by, names=names)
    return Standardised(scaling.of(x), scaling.of(y), scaling, names)


def pooled_scaling(groups: Sequence[Tensor], *, by: str = "sd", names: Sequence[str] | None = None) -> Scaling:
    """The pooled spread of every column within several sample sets; see :func:`standardise`.

    Arguments:
        groups: Checked samples, shapes (n_g, d).
        by: sd or mad.
        names: Names of the columns, for messages.

    Raises:
        InputError: See :func:`standardise`.
    """
    check_choice(by, tuple(SCALES), "standardise")
    sets = [samples.detach().cpu().double() for samples in groups]
    origin = sets[0][0]  # so that squares lose no digits to a common offset
    centred, centres = [], []
    for samples in sets:
        samples = samples - origin
        centres.append(samples.mean(dim=0) if by == "sd" else samples.median(dim=0).values)
        centred.append(samples - centres[-1])
    deviations = torch.cat(centred)
    largest = torch.stack([samples.abs().amax(dim=0) for samples in sets]).amax(dim=0)
    if by == "sd":
        unit = deviations.abs().amax(dim=0).clamp(min=2.0**-1000)  # so that squares neither overflow nor underflow
        freedom = max(1, len(deviations) - len(sets))
        scales = unit * ((deviations / unit).square().sum(dim=0) / freedom).sqrt()
    else:
        scales = NORMAL * deviations.abs().median(dim=0).values

    whole = torch.cat([samples - origin for samples in sets])
    constant = (whole.amax(dim=0) - whole.amin(dim=0)) <= ROUNDING * largest
    flat = (scales <= ROUNDING * largest) & ~constant

    def called(columns: Tensor) -> str:
        return few([repr(names[k]) if names is not None else str(k) for k in columns.nonzero().flatten().tolist()])

    if flat.any():
        only, columns = int(flat.sum()) == 1, called(flat)
        why = (
            "has no spread within the groups but differs between them"
            if by == "sd"
            else "holds one value in half of the rows, so that its MAD is 0"
        )
        remedy = "Leave it out" if by == "sd" else "Use the standard deviation, sd, or leave it out"
        plural = "" if only else " Each of these"
        head = f"Column {columns} {why}." if only else f"Columns {columns} can't be standardised.{plural} {why}."
        raise InputError(f"{head} {remedy}.")
    scales = torch.where(constant, torch.ones_like(scales), scales)
    notes = [f"Columns were divided by their spread within the groups: distances are in {SCALES[by]}."]
    if constant.any():
        told = f"Column {called(constant)} is" if int(constant.sum()) == 1 else f"Columns {called(constant)} are"
        notes.append(f"{told} constant, and add{'s' if int(constant.sum()) == 1 else ''} nothing to any distance.")
    return Scaling(scales, tuple(constant.nonzero().flatten().tolist()), SCALES[by], tuple(notes))
