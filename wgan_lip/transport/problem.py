"""The transport problem as solvers take it, and the verification of their answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip.transport.plans import Plan, dealt, is_whole, kr_value_down, plan_cost
from wgan_lip.transport.potentials import Potential
from wgan_lip.transport.rounding import CHUNK, U, normalised, unit_of, vanishing
from wgan_lip.utils.checks import check_pair, check_weights
from wgan_lip.utils.numbers import interval_text, rounded
from wgan_lip.utils.printing import Bar, Printed, Row, number_line

__all__ = ["Problem", "Side", "Transport", "TransportError", "meet"]


class TransportError(RuntimeError):
    """The solver ended without an optimal plan, or its answer contradicts itself."""


ROUNDING = 2.0**-50  # relative difference at which two masses that are not integers count as equal
MEETING = 1e-9  # relative distance of the two ends at which the value between them is called exact


def meet(lower: float, upper: float) -> bool:
    """Whether two bounds are so close that the value between them can be called exact."""
    return upper - lower <= MEETING * upper


@dataclass(frozen=True, eq=False, repr=False)
class Transport(Printed):
    """W1 between two weighted sample sets, solved and verified.

    Attributes:
        value: The cost of the plan: the best single number, inside [lower, upper].
        lower: At most W1: the Kantorovich-Rubinstein value of `potential`, rounding subtracted.
        upper: At least W1: the cost of `plan`, with its marginals' defects and rounding added.
        plan: The coupling, of total mass 1, between the points as they were given.
        potential: A 1-Lipschitz f with E_P f - E_Q f = W1(P, Q) up to rounding.

    All distances are in the units of the samples.
    """

    value: float
    lower: float
    upper: float
    plan: Plan
    potential: Potential

    @property
    def exact(self) -> float | None:
        """`value` if the two ends agree to a relative 1e-9, else None: rounding for far points can keep them apart."""
        return self.value if meet(self.lower, self.upper) else None

    def headline(self) -> str:
        n, m = self.plan.shape
        return f"W1 between {n:,} and {m:,} samples, solved and verified"

    def summary_rows(self) -> list[Row]:
        return [
            Row("W1 of the samples", interval_text(self.lower, self.upper, self.exact), "certified"),
            Row("  best value", rounded(self.value, 10), "the cost of the plan"),
            *self.plan.summary_rows(),
        ]

    def picture(self) -> str:
        bar = Bar("W1 of the samples", self.lower, self.upper, self.exact)
        return number_line([bar], interval_text(self.lower, self.upper, self.exact))


@dataclass(frozen=True, eq=False)
class Side:
    """One weighted sample set, checked, in float64 on the CPU, without the samples that carry no mass.

    Attributes:
        samples: Those of positive weight, shape (n, d).
        weights: Their weights, shape (n,), of any total; None if uniform.
        index: Their indices among the given samples, shape (n,).
        points: The distinct points among them, shape (k, d).
        place: The index of each sample's point, shape (n,).
    """

    samples: Tensor
    weights: np.ndarray | None
    index: np.ndarray
    points: Tensor
    place: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """The weights as numbers, shape (n,): 1 each if uniform."""
        return np.ones(len(self.samples)) if self.weights is None else self.weights

    @property
    def merged(self) -> bool:
        """Whether some of the samples are equal."""
        return len(self.points) < len(self.samples)

    def gathered(self, masses: np.ndarray) -> np.ndarray:
        """The masses (n,) of samples, added up at each of the points, shape (k,)."""
        return np.bincount(self.place, masses) if self.merged else masses


@dataclass(frozen=True, eq=False)
class Problem:
    r"""Two weighted sample sets, checked, and what a solver needs to know of them: distinct points, with their masses.

    Equal samples are merged into one point, and mass that both sets have at a point stays there, since

    .. math:: W_1(P, Q) = \max_{\mathrm{Lip}(f) \leq 1} \int f \, d(P - Q) = s \, W_1(P', Q'),
        \qquad P - Q = s (P' - Q'),

    depends only on the difference. This holds for every metric, but not for squared distances. A solver's time grows
    with the number of points that are left. The result is about the samples again.

    Attributes:
        x: The points of P', distinct, shape (n, d), float64, on the CPU.
        y: Those of Q', shape (m, d).
        a: Masses at x, shape (n,), with the total of b: integers if the weights are, such as uniform ones, which a
            solver then moves without error.
        b: Masses at y, shape (m,).
        sides: The samples behind P and Q.
        masses: The masses of the samples.
        shape: The numbers of samples that were given.
        unit: A power of two near the spread of the points; see Note [Rounding].
        kept: The indices of x and y among the distinct points of either side.
        stays: The mass that stays where it is, as a plan between the distinct points; None if there is none.
        moved: The mass that moves, in the unit of `masses`.
        share: s, its share of all mass.
        weights: Masses at x and y of any total, None if uniform: those of P' and Q' up to `defect`.
        defect: A bound on the l1 distance between P - Q and s (P' - Q'), from rounding of sums of masses that are not
            integers; 0 for integers.
    """

    x: Tensor
    y: Tensor
    a: np.ndarray
    b: np.ndarray
    sides: tuple[Side, Side]
    masses: tuple[np.ndarray, np.ndarray]
    shape: tuple[int, int]
    unit: float
    kept: tuple[np.ndarray, np.ndarray]
    stays: Plan | None
    moved: float
    share: float
    weights: tuple[np.ndarray | None, np.ndarray | None]
    defect: float

    @property
    def size(self) -> tuple[int, int, int]:
        """Numbers of points of x and of y, and their dimension."""
        return len(self.x), len(self.y), self.x.shape[1]

    @staticmethod
    def of(
        x: Tensor | ArrayLike,
        y: Tensor | ArrayLike,
        a: Tensor | ArrayLike | None = None,
        b: Tensor | ArrayLike | None = None,
    ) -> Problem:
        """Checks samples and weights. Raises :class:`InputError`."""
        x, y = check_pair(x, y)
        return Problem.of_checked(x, y, a, b)

    @staticmethod
    def of_checked(
        x: Tensor, y: Tensor, a: Tensor | ArrayLike | None = None, b: Tensor | ArrayLike | None = None
    ) -> Problem:
        """The problem for checked samples (n, d) and (m, d); checks the weights. Raises :class:`InputError`."""
        shape = (len(x), len(y))
        x, y = (samples.detach().cpu().double() for samples in (x, y))
        sides, common = _sides(x, y, check_weights(a, shape[0], "a"), check_weights(b, shape[1], "b"))
        masses = masses_of(sides[0].counts, sides[1].counts)
        at = (sides[0].gathered(masses[0]), sides[1].gathered(masses[1]))
        whole = is_whole(masses[0]) and is_whole(masses[1])

        left, stays, defect = at, None, 0.0
        if len(common[0]):
            left, stays = _cancelled(at, common, whole)
        moved = math.fsum(left[0])
        share = 1.0 if stays is None else moved / math.fsum(at[0])
        kept = (np.flatnonzero(left[0]), np.flatnonzero(left[1]))
        x, y = (_rows(side.points, index) for side, index in zip(sides, kept))
        a, b = (masses[index] for masses, index in zip(left, kept))
        weights = (_unless_uniform(a), _unless_uniform(b))
        if not whole:
            if not (len(common[0]) or any(side.merged for side in sides)):
                weights = (sides[0].weights, sides[1].weights)
            else:
                defect = _defect(sides, common, kept, (a, b), share)
            a, b = a / math.fsum(a), b / math.fsum(b)  # a solver treats tiny masses as none
        return Problem(x, y, a, b, sides, masses, shape, unit_of(x, y), kept, stays, moved, share, weights, defect)

    def enclose(self, plan: Plan, potential: Potential, values_x: Tensor, values_y: Tensor, error: float) -> Transport:
        """Encloses W1 between any potential and any plan, of whatever origin.

        Arguments:
            plan: A plan between the points.
            potential: A 1-Lipschitz function.
            values_x: At most its values at x, shape (n,), up to `error`.
            values_y: At least its values at y, shape (m,), up to `error`.
            error: A bound on the absolute rounding error of each of those.
        """
        lower = kr_value_down(values_x.numpy(), values_y.numpy(), *self.weights, error)
        value, upper = plan_cost(self.x, self.y, plan, *self.weights, self.unit)
        lower, value, upper = self._of_all(lower, value, upper)
        if not lower <= upper:
            raise TransportError(
                f"The lower bound {lower} exceeds the upper bound {upper}. Please report these samples."
            )
        return Transport(min(max(value, lower), upper), lower, upper, self.of_samples(plan), potential)

    def _of_all(self, lower: float, value: float, upper: float) -> tuple[float, float, float]:
        """Bounds and value for W1(P, Q), from those for W1(P', Q')."""
        lower = max(0.0, lower)
        if self.share < 1.0:
            lower, value, upper = lower * self.share * (1 - 4 * U), value * self.share, upper * self.share * (1 + 4 * U)
            upper = math.nextafter(upper, math.inf) if upper else 0.0
        if self.defect:  # integrates to 0, so it travels at most the diameter, half of it on either side
            unit = unit_of(*(side.points for side in self.sides))
            low, high = (
                torch.stack([extreme(side.points / unit, 0) for side in self.sides])
                for extreme in (torch.amin, torch.amax)
            )
            box = float((high.amax(0) - low.amin(0)).norm()) + vanishing(self.x.shape[1])
            slack = 0.505 * box * self.defect * unit
            lower, upper = max(0.0, lower - slack), (upper + slack) * (1 + 2 * U)
        return lower, value, upper

    def of_samples(self, plan: Plan) -> Plan:
        """Turns a plan between the points x and y into one of total mass 1 between the given samples, including the
        mass that stays where it is."""
        rows, columns, mass = plan.rows, plan.columns, plan.mass
        (of_x, of_y), (kept_x, kept_y) = self.sides, self.kept
        if self.stays is not None:
            rows = np.concatenate([kept_x[rows], self.stays.rows])
            columns = np.concatenate([kept_y[columns], self.stays.columns])
            mass = np.concatenate([mass * (self.moved / mass.sum()), self.stays.mass])
        if of_x.merged or of_y.merged:
            plan = Plan(rows, columns, mass, (len(of_x.points), len(of_y.points)))
            plan = dealt(plan, *self.masses, of_x.place, of_y.place)
            rows, columns, mass = plan.rows, plan.columns, plan.mass
        return Plan(of_x.index[rows], of_y.index[columns], mass / mass.sum(), self.shape)


def _sides(
    x: Tensor, y: Tensor, a: np.ndarray | None, b: np.ndarray | None
) -> tuple[tuple[Side, Side], tuple[np.ndarray, np.ndarray]]:
    """Both sides, and the distinct points they have in common; none on the line, where sorting is as fast as looking
    for them."""
    index = [np.arange(len(rows)) if w is None else np.flatnonzero(w) for rows, w in ((x, a), (y, b))]
    samples = [_rows(rows, kept) for rows, kept in zip((x, y), index)]
    weights = [None if w is None else w[kept] for w, kept in zip((a, b), index)]
    nothing = np.empty(0, dtype=np.int64)
    if (labels := _labels(*samples)) is None:
        of_x, of_y = (Side(rows, w, kept, rows, np.arange(len(rows))) for rows, kept, w in zip(samples, index, weights))
        return (of_x, of_y), (nothing, nothing)
    names, sides = [], []
    for rows, kept, w, label in zip(samples, index, weights, np.split(labels, [len(samples[0])])):
        name, first, place = np.unique(label, return_index=True, return_inverse=True)
        if len(name) == len(rows):
            name, first, place = label, np.arange(len(rows)), np.arange(len(rows))
        names.append(name)
        sides.append(Side(rows, w, kept, _rows(rows, first), place))
    if x.shape[1] == 1:
        return (sides[0], sides[1]), (nothing, nothing)
    _, i, j = np.intersect1d(names[0], names[1], assume_unique=True, return_indices=True)
    return (sides[0], sides[1]), (i, j)


def _rows(points: Tensor, index: np.ndarray) -> Tensor:
    return points if len(index) == len(points) else points[torch.from_numpy(index)]


def _labels(x: Tensor, y: Tensor) -> np.ndarray | None:
    """A label for each row of x (n, d), then of y (m, d), shape (n + m,), equal for equal rows only; None if no two
    rows are equal."""
    varied = int((x[0] - x[-1]).abs().argmax())
    values = np.concatenate([x[:, varied].numpy(), y[:, varied].numpy()])
    values.sort()
    if not (values[1:] == values[:-1]).any():  # one coordinate tells all apart
        return None
    rows = torch.cat([x, y])
    _, first, label = np.unique(_keys(rows), return_index=True, return_inverse=True)
    label = first[label]
    step = max(1, CHUNK // rows.shape[1])
    if not all(torch.equal(rows[label[k : k + step]], rows[k : k + step]) for k in range(0, len(rows), step)):
        label = rows.unique(dim=0, return_inverse=True)[1].numpy()  # two rows of one key
    return label


def _keys(rows: Tensor) -> np.ndarray:
    """A 64-bit number for each row, shape (n,), equal for equal rows and hardly ever for others."""
    odd = np.random.default_rng(0).integers(-(2**63), 2**63, rows.shape[1]) | 1
    keys = []
    for block in rows.split(max(1, CHUNK // rows.shape[1])):
        bits = (block.numpy() + 0.0).view(np.int64)  # 0 and -0 are equal
        bits ^= bits >> 32  # numbers with few digits differ only in their high bits, which multiplication pushes out
        keys.append(bits @ odd)
    return np.concatenate(keys)


def _cancelled(
    at: tuple[np.ndarray, np.ndarray], common: tuple[np.ndarray, np.ndarray], whole: bool
) -> tuple[tuple[np.ndarray, np.ndarray], Plan | None]:
    """The masses at the distinct points of either side without what both have in common; and the latter, as a plan."""
    left, (i, j) = (at[0].copy(), at[1].copy()), common
    both = np.minimum(at[0][i], at[1][j])
    for mass, index in zip(left, common):
        rest = mass[index] - both
        mass[index] = rest if whole else np.where(rest <= ROUNDING * both, 0.0, rest)
    if not (left[0].any() and left[1].any()):  # equal measures: a solver gets one point of each, where nothing moves
        for mass, index in zip(left, common):
            mass[:] = 0.0
            mass[index[0]] = both[0]
        i, j, both = i[1:], j[1:], both[1:]
    stays = Plan(i, j, both, (len(at[0]), len(at[1]))) if len(both) else None
    return left, stays


def _unless_uniform(masses: np.ndarray) -> np.ndarray | None:
    return None if (masses == masses[0]).all() else masses


def _defect(
    sides: tuple[Side, Side],
    common: tuple[np.ndarray, np.ndarray],
    kept: tuple[np.ndarray, np.ndarray],
    masses: tuple[np.ndarray, np.ndarray],
    share: float,
) -> float:
    """An upper bound on the l1 distance between P - Q and s (P' - Q'), from the weights of the samples and the masses
    of the remaining points."""
    differences, most = [], 1
    for side, index, mass in zip(sides, kept, masses):
        weights = normalised(side.counts)
        wanted = np.zeros(len(side.points), np.longdouble)
        np.add.at(wanted, side.place, weights)
        wanted /= math.fsum(weights.tolist())
        mass = normalised(mass)
        wanted[index] -= share * (mass.astype(np.longdouble) / math.fsum(mass.tolist()))
        differences.append(wanted)
        most = max(most, int(np.bincount(side.place).max()))
    of_x, of_y = differences
    of_x[common[0]] -= of_y[common[1]]
    of_y[common[1]] = 0
    # Adding up the c masses of a point errs by c eps of their sum; totals and quotients by less than 32 u in all.
    roundings = 2 * most * float(np.finfo(np.longdouble).eps) + 32 * U
    return 1.01 * (float(np.abs(of_x).sum() + np.abs(of_y).sum()) + roundings)


def masses_of(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Multiples of a and of b with equal totals; integers if both are."""
    if is_whole(a) and is_whole(b):
        total_a, total_b = int(a.sum()), int(b.sum())
        common = math.gcd(total_a, total_b)
        if total_a * total_b // common < 2**53:
            return a * (total_b // common), b * (total_a // common)
    a, b = (np.maximum(weights / weights.max(), 1e-300) for weights in (a, b))  # no cell without mass has a mean
    return a / math.fsum(a), b / math.fsum(b)
