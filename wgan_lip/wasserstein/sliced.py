r"""Sliced W1 of the laws P and Q, enclosed with confidence, without assumptions on their tails.

Note [Errors of two kinds]
    For a direction θ let w(θ) be the trimmed W1 of the laws projected on θ, which no sample shows exactly. For the N
    directions drawn, bands around the distribution functions give l_j ≤ w(θ_j) ≤ u_j, all at once. The directions are
    independent of the samples, so given the samples the w(θ_j) are independent draws whose mean is the sliced distance.
    The bound by betting takes them one by one. With l_j in place of w(θ_j), and bets that depend only on earlier
    directions, every factor of its capital can only shrink, so a mean that it refutes is rightly refuted.

    An upper bound on the mean needs a range. Let |X − c| ≤ r_P with probability at least 1 − δ, and |Y − c| ≤ r_Q as
    well. Trimmed by δ at both ends, a law on the line has no larger mean of absolute values than restricted to any
    event of probability 1 − δ or more, such as these. So for ρ = (r_P + r_Q)/(1 − 2δ), w(θ) is at most ρ times a mean
    of |⟨θ, v⟩| over unit vectors v, and by Jensen's inequality E (w(θ) − ρ s)₊ ≤ ρ E (|θ₁| − s)₊ for every s, which has
    a closed form. The part of w beyond ρ s is thus known to be small, and betting bounds the rest. In many dimensions
    |θ₁| is about 1/√d, and so is s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip.lipschitz.bounds import gamma
from wgan_lip.utils.checks import InputError, check_pair, check_seed, check_sizes
from wgan_lip.utils.numbers import percent, rounded, rounded_down, rounded_up
from wgan_lip.utils.printing import Bar, Printed, Row, number_line
from wgan_lip.wasserstein.population import betting_lower_bound

__all__ = ["SlicedW1", "mean_projection", "sliced_w1"]

SCOUTS = 32  # directions that show how large w may be, drawn before those that bound its mean
BLOCK = 2**20  # projected samples held at once
GRID = 20  # levels at which quantiles are bounded, per √n: their distance is 2 % of the width of the bands


@dataclass(frozen=True)
class SlicedW1(Printed):
    """lower ≤ SW1(P, Q) ≤ upper for the trimmed sliced W1 of the laws, with the stated confidence.

    Attributes:
        lower: The lower end, at least 0.
        value: Sliced W1 of the samples along the directions drawn, an estimate.
        upper: The upper end; None if there are too few samples to bound the quantiles next to the trimmed ends.
        w1_lower: (1 − 2 trim) · lower / E|θ₁|, at most W1(P, Q) itself, not trimmed and not sliced, whenever `lower` is
            at most SW1.
        level: Confidence of all of these jointly, samples and directions included.
        trim: The share of mass left out at either end of every projected law.
        directions: How many were drawn; 1 on the line, where there is only one.
        n: Number of samples of P.
        m: Number of samples of Q.
        dim: Their dimension.
    """

    lower: float
    value: float
    upper: float | None
    w1_lower: float
    level: float
    trim: float
    directions: int
    n: int
    m: int
    dim: int

    def headline(self) -> str:
        return f"Sliced W1 between two laws in dimension {self.dim:,}, with {percent(self.level)} confidence"

    def summary_rows(self) -> list[Row]:
        of = f"trimmed by {percent(self.trim)} at both ends" if self.trim else "not trimmed"
        rows = [
            Row("Sliced W1 of the laws", self._text(), f"{of}; {self.directions:,} directions, their error included"),
            Row("  of the samples", rounded(self.value, 4), f"{self.n:,} + {self.m:,} samples, along these directions"),
            Row("W1 of the laws", f"{rounded_down(self.w1_lower)} ≤ W1", "by the lower end, with the same confidence"),
        ]
        if self.upper is None:
            rows.append(
                Row(
                    "Note", "There is no upper bound: with so few samples, or no trimming, rare values can be anywhere."
                )
            )
        return rows

    def _text(self) -> str:
        end = "" if self.upper is None else f" ≤ {rounded_up(self.upper)}"
        return f"{rounded_down(self.lower)} ≤ SW1{end}"

    def picture(self) -> str:
        upper = math.inf if self.upper is None else self.upper
        return number_line([Bar("Sliced W1", self.lower, upper, self.value, proved=False)], self._text())


def mean_projection(dim: int) -> float:
    r"""E|θ₁| for θ uniform on the unit sphere of `dim` dimensions, by which sliced W1 of two points is less than W1.

    .. math:: E |\theta_1| = \frac{\Gamma(d / 2)}{\sqrt \pi \, \Gamma((d + 1) / 2)} \approx \sqrt{\frac{2}{\pi d}}

    Example:
        >>> round(mean_projection(1), 12), round(mean_projection(3), 12)
        (1.0, 0.5)
    """
    return math.exp(math.lgamma(dim / 2) - math.lgamma((dim + 1) / 2)) / math.sqrt(math.pi)


def sliced_w1(
    x: Tensor | ArrayLike,
    y: Tensor | ArrayLike,
    *,
    trim: float = 0.1,
    level: float = 0.95,
    directions: int = 500,
    seed: int = 0,
) -> SlicedW1:
    r"""Encloses the trimmed sliced W1 of two laws from independent samples.

    .. math:: SW_1 = E_\theta \, w(\theta), \qquad w(\theta) = \frac{1}{1 - 2 \delta} \int_\delta^{1 - \delta}
        \bigl| F_\theta^{-1}(u) - G_\theta^{-1}(u) \bigr| \, du

    with θ uniform on the unit sphere, F_θ and G_θ the distribution functions of ⟨θ, X⟩ and ⟨θ, Y⟩, and δ = `trim`. With
    probability at least 1 − ε/2, for all N directions drawn at once,

    .. math:: F_n^{-1}(u - t_n) \le F_\theta^{-1}(u) \le F_n^{-1}(u + t_n), \qquad
        t_n = \sqrt{\frac{1}{2 n} \ln \frac{8 N}{\varepsilon}}

    and the same for G, which bounds w(θ) from both sides at these directions. The other half of ε = 1 − level goes to
    the mean over all directions: a third of it to either end, the rest to the range that the upper end needs.

    Arguments:
        x: Independent samples of P, shape (n, d), n ≥ 2.
        y: Independent samples of Q, shape (m, d), m ≥ 2, independent of x.
        trim: The share δ of mass left out at either end, in [0, 1/2). There is an upper end only where δ exceeds t_n
            and t_m. `w1_lower` is largest without trimming.
        level: Confidence, in (0, 1).
        directions: Number N of directions. Bands widen with √ln N; the error of the mean falls with √N.
        seed: Seed of the directions; do not choose it by the result.

    Raises:
        InputError: Unusable samples, fewer than two of a law; a level, a trim or a number of directions out of range.

    Guarantee:
        At every n, m and N, for any two laws: no moments, no densities, no bounded supports are assumed. `lower` and
        `upper` enclose the trimmed distance, and W1(P, Q) is at least `w1_lower`, with probability at least `level`,
        over samples and directions. Rounding is included.

        Not covered: samples that are not independent, or repeated. The ends are conservative: the union bound over the
        directions widens the bands. The interval is about the laws, and its length falls with 1/√n in every dimension,
        but sliced W1 may be far smaller than W1: by the factor E|θ₁| for a shift, and by more if the laws differ in
        ways that no projection shows.

    References:
        Minimax confidence intervals for the sliced Wasserstein distance (Manole, Balakrishnan, Wasserman, 2022), by
        the bands of Dvoretzky, Kiefer and Wolfowitz with the constant of Massart (1990). The error of finitely many
        directions, not bounded there, is bounded here by Note [Errors of two kinds]

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> x, y = torch.randn(2, 2000, 2, generator=rng)
        >>> found = sliced_w1(x, y + torch.tensor([3.0, 4.0]), directions=200)  # the truth is 5 · 2/π = 3.18
        >>> 2.5 < found.lower < 3.18 < found.upper < 4 and 3 < found.w1_lower < 5
        True
    """
    x, y = (samples.detach().cpu().double() for samples in check_pair(x, y, minimum=2))
    check_sizes(directions=directions)
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, not {level}. Use 0.95 for 95 % confidence.")
    if not 0 <= trim < 0.5:
        raise InputError(f"trim, the share of mass left out at either end, must be in [0, 0.5), not {trim}.")
    (n, dim), m, error = x.shape, len(y), 1 - level
    rng = torch.Generator().manual_seed(check_seed(seed))
    centre, radius = _radius(x, y, trim, error / 12, rng)
    x, y = x - centre, y - centre
    count = 1 if dim == 1 else directions
    theta = torch.randn(dim, count if dim == 1 else SCOUTS + count, generator=rng, dtype=torch.float64)
    theta /= torch.linalg.vector_norm(theta, dim=0)

    bands = _Bands(n, m, trim, math.log((4 if dim == 1 else 8) * count / error))
    low, value, high = (np.concatenate(parts) for parts in zip(*map(bands.at, *_blocks(x, y, theta))))
    largest = max(float(torch.linalg.vector_norm(points, dim=1).amax()) for points in (x, y))
    rounding = 8 * gamma(dim + 16) * largest
    low = np.maximum(low * (1 - gamma(GRID * (n + m) + 16)) - rounding, 0.0)
    high = high * (1 + gamma(GRID * (n + m) + 16)) + rounding
    if dim == 1:
        lower, upper = float(low[0]), float(high[0])
    else:
        top = 1.5 * float(low[:SCOUTS].max())
        low, value, high = (part[SCOUTS:] for part in (low, value, high))
        lower, upper = mean_bounds(low, high, top, radius / (1 - 2 * trim), dim, 1 - error / 6)
    scale = (1 - 2 * trim) / mean_projection(dim) * (1 - 1e-12)
    return SlicedW1(
        lower, float(value.mean()), upper if upper < math.inf else None, scale * lower, level, trim, count, n, m, dim
    )


def mean_bounds(
    low: np.ndarray, high: np.ndarray, top: float, reach: float, dim: int, level: float
) -> tuple[float, float]:
    """Bounds on E w(θ) from low ≤ w ≤ high at independent directions, each at `level`; see Note [Errors of two kinds].

    Arguments:
        low: Lower bounds at N directions, shape (N,), at least 0.
        high: Upper bounds there, shape (N,), infinite where there are none.
        top: Level at which w is cut off for the lower end: any number that does not depend on these directions will do.
        reach: The number ρ; infinite if none is known.
        dim: The dimension of the directions, at least 2.
        level: The confidence of either bound.
    """
    lower = max(float(betting_lower_bound(np.minimum(low, top), 0.0, top, level)), 0.0) if top > 0 else 0.0
    if not (reach < math.inf and np.isfinite(high).all()):
        return lower, math.inf
    if reach == 0:
        return lower, 0.0
    unit = -math.log(1 - level) / len(high)  # the cost of a unit of range
    from scipy import stats  # takes a second to load

    square = stats.beta(0.5, (dim - 1) / 2)  # the law of θ₁²
    cut = math.sqrt(square.isf(min(unit, 0.5)))  # there, the part beyond grows as fast as the range shrinks
    beyond = mean_projection(dim) * (1 - cut**2) ** ((dim - 1) / 2) - cut * float(square.sf(cut**2))
    end = cut * reach
    left = float(betting_lower_bound(end - np.minimum(high, end), 0.0, end, level))
    return lower, (end - left + reach * max(beyond, 0.0)) * (1 + 1e-12)


def _radius(x: Tensor, y: Tensor, trim: float, error: float, rng: torch.Generator) -> tuple[Tensor, float]:
    """A point c, and r_P + r_Q, each beyond the (1 − trim)-quantile of distances to c except with probability `error`.

    A tenth of the samples chooses c; the others, which are independent of it, give the distances.
    """
    parts = [
        samples[torch.randperm(len(samples), generator=rng)].tensor_split([max(1, len(samples) // 10)])
        for samples in (x, y)
    ]
    centre = torch.cat([few for few, _ in parts]).mean(dim=0)
    radius = 0.0
    for _, others in parts:
        distances = torch.linalg.vector_norm(others - centre, dim=1).sort().values
        # The k-th least of the distances is below the quantile only if k of them are.
        from scipy import stats

        k = int(stats.binom.isf(error, len(others), 1 - trim)) + 1
        radius += float(distances[k - 1]) * (1 + 1e-12) if k <= len(others) else math.inf
    return centre, radius


class _Bands:
    """Bounds on the trimmed W1 of two laws on the line, from sorted samples of both.

    Arguments:
        n: Samples of P.
        m: Samples of Q.
        trim: The share left out at either end.
        log: ln(2/ε) for bands that miss one of the laws with probability ε each.
    """

    def __init__(self, n: int, m: int, trim: float, log: float) -> None:
        def places(size: int, levels: np.ndarray) -> Tensor:
            """Ranks of the sorted samples that are the quantiles, from 1; 0 and size + 1 where none is known."""
            return torch.from_numpy(np.ceil(size * levels).clip(0, size + 1).astype(np.int64))

        # Between two levels a quantile lies between those at either; this grid adds about 2 % to the bands.
        grid = np.linspace(trim, 1 - trim, 2 + int(GRID * math.sqrt(max(n, m))))
        by = [math.sqrt(log / (2 * size)) * (1 + 1e-9) + 1e-15 for size in (n, m)]
        self.low = [places(size, grid[:-1] - shift) for size, shift in zip((n, m), by)]
        self.high = [places(size, grid[1:] + shift) for size, shift in zip((n, m), by)]
        # The quantiles of the samples are constant between multiples of 1/n and 1/m.
        levels = np.concatenate([np.arange(size) / size for size in {n, m}])
        cuts = np.unique(np.concatenate([levels[(levels > trim) & (levels < 1 - trim)], [trim, 1 - trim]]))
        self.own = [places(size, (cuts[1:] + cuts[:-1]) / 2) for size in (n, m)]
        self.shares = torch.from_numpy(np.diff(cuts) / (1 - 2 * trim))

    def at(self, x: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lower bounds, values of the samples and upper bounds, shape (k,) each, along k directions.

        Arguments:
            x: Projected samples of P, shape (n, k).
            y: Projected samples of Q, shape (m, k).
        """
        ends = x.new_full((1, x.shape[1]), math.inf)
        x, y = (torch.cat([-ends, samples.sort(dim=0).values, ends]) for samples in (x, y))
        (x_low, y_low), (x_high, y_high) = ([x[of_x], y[of_y]] for of_x, of_y in (self.low, self.high))
        low = torch.maximum(x_low - y_high, y_low - x_high).clamp_(min=0.0).mean(dim=0)
        high = torch.maximum(x_high - y_low, y_high - x_low).mean(dim=0)
        value = self.shares @ (x[self.own[0]] - y[self.own[1]]).abs()
        return low.numpy(), value.numpy(), high.numpy()


def _blocks(x: Tensor, y: Tensor, theta: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Both sample sets projected, some directions at a time."""
    width = max(1, BLOCK // (len(x) + len(y)))
    blocks = theta.split(width, dim=1)
    return [x @ block for block in blocks], [y @ block for block in blocks]
