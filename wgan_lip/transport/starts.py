"""A first interval around W1, within seconds at any size, from projections to a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from wgan_lip.transport.exact import solve_line
from wgan_lip.transport.plans import Plan
from wgan_lip.transport.potentials import Potential
from wgan_lip.transport.problem import Problem, Transport
from wgan_lip.transport.rounding import SMALLEST, U, distance_error, vanishing, weighted_mean
from wgan_lip.utils.printing import Row

__all__ = ["Shadow", "first_bounds"]

TRIED = 2**22  # numbers, on either side, by which maps to the line are compared
FEW = 5000  # samples of either side by which they are compared, at most
WORTH = 0.99  # share of the cost of one plan below which another is worth sorting for
PRODUCTS = 8  # of the power iteration

Solution = tuple[Plan, np.ndarray, np.ndarray]


class Shadow(Potential):
    r"""A 1-Lipschitz function of a number that is itself a 1-Lipschitz function of the point.

    .. math:: f(z) = g(t(z)), \qquad t(z) = \langle w, z - c \rangle, \ \|w\| \leq 1, \quad \text{or}
        \quad t(z) = \|z - c\|

    Arguments:
        line: g, of dimension 1, in the units of `unit`.
        centre: c, shape (d,), in the units of `unit`.
        way: w, shape (d,); None for the distance from c.
        unit: A power of two near the spread of the samples.

    Guarantee:
        That of :class:`Potential`. w is shortened by more than the rounding of its norm.
    """

    def __init__(self, line: Potential, centre: Tensor, way: Tensor | None, unit: float) -> None:
        self.line, self.centre, self.way, self.unit = line, centre, way, unit
        self.points, self.offsets, self.sign = centre[None], centre.new_zeros(1), 1

    def summary_rows(self) -> list[Row]:
        along = "the distance from a centre" if self.way is None else "the projection on an axis"
        return [Row("A function of", along), *self.line.summary_rows()]

    def enclosed(self, z: Tensor, *, apex: Tensor | None = None) -> tuple[Tensor, float]:
        """:meth:`with_error` at checked points z (k, d), float64."""
        way = None if self.way is None else self.way.to(z.device)
        places, error = _places(z / self.unit, self.centre.to(z.device), way)
        values, rounding = self.line.enclosed(places[:, None])
        return self.unit * values, 1.01 * self.unit * (error + rounding) + SMALLEST


def first_bounds(problem: Problem) -> Transport:
    """Encloses W1 in O((n + m) (d + log(n + m))) time: below by W1 of the images under a 1-Lipschitz map to the line,
    above by the coupling sorted along such a map, or that of the i-th x with the i-th y if cheaper.

    The maps are the distance from the common mean and the projections on some axes: from mean to mean, those of the
    largest sum and difference of the variances, the widest coordinate. A part of the samples decides which to take.
    """
    if len(problem.x) == len(problem.y) == 1 and torch.equal(problem.x, problem.y):  # one point has no unit
        there, here = np.zeros(1, dtype=np.int64), Potential.trusted(problem.y, torch.zeros(1, dtype=torch.float64))
        return problem.enclose(Plan(there, there, problem.a, (1, 1)), here, *here.at_both(problem.x, problem.y))
    unit, sides = problem.unit, ((problem.x, problem.a), (problem.y, problem.b))
    parts = [_part(points, mass) for points, mass in sides]
    near = parts[0][0][0] / unit  # sums of differences from it do not overflow, whatever the common offset
    centre = near + torch.cat([points / unit - near for points, _ in parts]).mean(0)

    def on_line(sides: Iterable[tuple[Tensor, np.ndarray]], way: Tensor | None) -> tuple[list[np.ndarray], Solution]:
        (x, a), (y, b) = sides
        places = [_places(points / unit, centre, way)[0][:, None].numpy() for points in (x, y)]
        return places, solve_line(places[0], places[1], a, b)

    found = []
    for way in (None, *_axes(*((points / unit - centre, mass) for points, mass in parts))):
        (x, y), (plan, _, _) = on_line(parts, way)
        distances = np.abs(x[plan.rows, 0] - y[plan.columns, 0])
        found.append((weighted_mean(distances, plan.mass), plan._cost(parts[0][0], parts[1][0]), way))
    (_, cost, below), (_, least, above) = max(found, key=lambda one: one[0]), min(found, key=lambda one: one[1])
    if least > WORTH * cost:
        above = below

    (_, places), (plan, _, v) = on_line(sides, below)
    line = Potential.trusted(torch.from_numpy(places), torch.from_numpy(v - (v.max() + v.min()) / 2))
    potential = Shadow(line, centre, below, unit)
    plans = [plan]
    if above is not below:
        plans.append(on_line(sides, above)[1][0])
    if np.array_equal(problem.a, problem.b):
        n = len(problem.a)
        plans.append(Plan(np.arange(n), np.arange(n), problem.a, (n, n)))
    plan = min(plans, key=lambda plan: plan._cost(problem.x, problem.y))
    return problem.enclose(plan, potential, *potential.at_both(problem.x, problem.y))


def _part(points: Tensor, mass: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Some of the points (n, d), evenly spread, and their masses, of total 1."""
    n, d = points.shape
    step = max(1, n // max(2, min(FEW, TRIED // d)))
    return points[::step], mass[::step] / mass[::step].sum()


def _axes(of_x: tuple[Tensor, np.ndarray], of_y: tuple[Tensor, np.ndarray]) -> Iterator[Tensor]:
    """Vectors w, shape (d,), of norms at most 1, given points and masses of total 1."""
    means, centred, weights = [], [], []
    for points, mass in (of_x, of_y):
        weights.append(torch.from_numpy(mass))
        means.append(weights[-1] @ points)
        centred.append(points - means[-1])
    widest = torch.cat([of_x[0], of_y[0]]).var(0, correction=0).argmax()
    side = torch.nn.functional.one_hot(widest, len(means[0])).double()
    yield side
    difference = means[0] - means[1]
    ways = [difference]
    for sign in (1, -1):  # the axes along which the variances have the largest sum, and the largest difference
        way = side if (toward := _unit_vector(difference)) is None else side + toward
        for _ in range(PRODUCTS):
            terms = [points.T @ (mass * (points @ way)) for points, mass in zip(centred, weights)]
            if (further := _unit_vector(terms[0] + sign * terms[1])) is None:
                break
            way = further
        ways.append(way)
    for way in ways:
        if (axis := _unit_vector(way)) is not None:
            yield axis


def _unit_vector(way: Tensor) -> Tensor | None:
    """The vector scaled to a norm just below 1; None for zero."""
    largest = way.abs().amax()
    if not 0 < largest < torch.inf:
        return None
    way = way / largest  # whose squares do not vanish
    return way / way.norm() * (1 - (len(way) + 16) * U)


def _places(z: Tensor, centre: Tensor, way: Tensor | None) -> tuple[Tensor, float]:
    """t(z), shape (k,), and a bound on the rounding of each, in the units of z."""
    d, away = z.shape[1], z - centre
    distance = torch.linalg.vector_norm(away, dim=1)
    if way is None:
        return distance, distance_error(d) * float(distance.detach().max()) + vanishing(d)
    # Each of the d terms is rounded at most d times, in any order, and each of the differences once before.
    return away @ way, 1.01 * (d + 3) * U * float(distance.detach().max()) + vanishing(d)
