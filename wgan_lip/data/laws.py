"""Laws from which fresh samples can be drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from wgan_lip.data.oracles import Oracle
from wgan_lip.data.sources import Source, check_positive
from wgan_lip.utils.checks import InputError, as_tensor, check_samples
from wgan_lip.utils.numbers import rounded_up
from wgan_lip.utils.printing import Printed, Row


@dataclass(frozen=True, eq=False)
class Law(Printed):
    """A law to draw independent samples from.

    Arguments:
        dim: The dimension d of a sample.
        draw: (n, CPU generator) → n samples, shape (n, d).
        units: In words, what one unit of a coordinate is.
        diameter: A bound on the distance between any two points of its support, or None if none is known.
        size: The number of rows if the law is uniform on the rows of a finite set, else None.
        name: What messages call these rows.

    Raises:
        InputError: A dimension that is not positive, a diameter that is negative or not finite.

    Example:
        >>> law = Law(2, lambda n, rng: torch.rand(n, 2, generator=rng), diameter=box_diameter(0.0, 1.0, 2))
        >>> law.sample(5, torch.Generator().manual_seed(0)).shape
        torch.Size([5, 2])
    """

    dim: int
    draw: Callable[[int, torch.Generator], Tensor]
    units: str = Source.units
    diameter: float | None = None
    size: int | None = None
    name: str = "a finite set"

    def __post_init__(self) -> None:
        check_positive(dim=self.dim)
        if self.diameter is not None:
            check_positive(or_zero=True, diameter=self.diameter)

    def headline(self) -> str:
        return f"A law to draw samples from, in dimension {self.dim:,}"

    def summary_rows(self) -> list[Row]:
        drawn = "a fresh sample" if self.size is None else f"one of {self.size:,} equally likely rows of {self.name}"
        rows = [Row("Each draw", drawn)]
        if self.diameter is not None:
            rows.append(Row("Diameter of support", f"≤ {rounded_up(self.diameter)}"))
        return [*rows, Row("One unit is", self.units)]

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draws n independent samples, shape (n, d), float32 or float64, on the CPU; equal for equal states of `rng`.

        Raises:
            InputError: n below 1, or a `draw` that does not return n finite samples of dimension d.
        """
        if n < 1:
            raise InputError(f"n, the number of samples to draw, must be at least 1, not {n}.")
        with torch.no_grad():
            samples = check_samples(self.draw(n, rng), "the samples drawn").cpu()
        if samples.shape != (n, self.dim):
            raise InputError(f"draw must return shape ({n}, {self.dim}), not {tuple(samples.shape)}.")
        return samples


def law_of_rows(
    rows: np.ndarray | Tensor, name: str = "rows", *, units: str = Source.units, diameter: float | None = None
) -> Law:
    """The uniform law on the rows of an array, which may stay on disk: rows are read when they are drawn.

    Arguments:
        rows: Real numbers, shape (n, d), or (n,) for scalars, such as a tensor or an `np.memmap`. It is kept, not
            copied.
        name: What messages call it.
        units, diameter: See :class:`Law`.

    Raises:
        InputError: Not an array of real numbers, more than two dimensions, fewer than two rows; when drawn, a row that
            is not finite (it is named).
    """
    if not isinstance(rows, (np.ndarray, Tensor)) or isinstance(rows, np.ma.MaskedArray):
        raise InputError(f"{name} must be an array or a tensor, not a {type(rows).__name__}.")
    if rows.ndim == 1:
        rows = rows[:, None]
    shape = tuple(rows.shape)
    if len(shape) != 2:
        raise InputError(f"{name} must have shape (n, d), not {shape}. Flatten each sample into one row.")
    check_samples(rows[:2], name, minimum=2)

    def draw(n: int, rng: torch.Generator) -> Tensor:
        index = torch.randint(shape[0], (n,), generator=rng)
        drawn = as_tensor(rows[index.numpy() if isinstance(rows, np.ndarray) else index.to(rows.device)], name)
        finite = drawn.isfinite().all(dim=1).cpu()
        if not finite.all():
            row = int(index[~finite].min())
            raise InputError(f"Row {row} of {name} holds NaN or infinity. Repair or remove it.")
        return drawn

    return Law(shape[1], draw, units, diameter, shape[0], name)


def law_of_source(source: Source) -> Law:
    """The law of a source's training samples, with the diameter of the source's range, up to rounding of draws."""
    diameter = None
    if source.low is not None and source.high is not None and source.label_scale is None:
        diameter = box_diameter(source.low, source.high, source.dim)
    return Law(source.dim, source.sample, source.units, diameter, source.size)


def law_of_oracle(oracle: Oracle, side: int) -> Law:
    """One of an oracle's laws, P for `side` 0 and Q for 1, in float64.

    Generators in equal states draw coupled pairs from the two sides, not independent samples: use a separate generator
    for each side.
    """
    if side not in (0, 1):
        raise InputError(f"side must be 0, for P, or 1, for Q, not {side!r}.")
    return Law(oracle.dim, lambda n, rng: oracle.pair(n, rng)[side])


def box_diameter(low: float, high: float, dim: int) -> float:
    """The diameter of [low, high]^dim, (high − low)·√dim, rounded up."""
    square = (Fraction(high) - Fraction(low)) ** 2 * dim
    diameter = (high - low) * math.sqrt(dim)
    while math.isfinite(diameter) and Fraction(diameter) ** 2 < square:
        diameter = math.nextafter(diameter, math.inf)
    return diameter
