"""A first interval around W1, within seconds at any size: both sets seen on a line."""

from __future__ import annotations

from collections.abc import Iterator

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

TRIED = 2**22  # numbers of the samples by which ways to the line are compared, of either side
FEW = 5000  # samples, likewise
PRODUCTS = 8  # of the power iteration


class Shadow(Potential):
    r"""A 1-Lipschitz function of one number, which is itself a 1-Lipschitz function of the point.

    .. math:: f(z) = g(t(z)), \qquad t(z) = \langle w, z - c \rangle, \ \|w\| \leq 1, \quad \text{or}
        \quad t(z) = \|z - c\|

    Arguments:
        line: g, of dimension 1, in the units of `unit`.
        centre: c, shape (d,), likewise.
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
        places, error = _places(z / self.unit, self.centre.to(z.device), self.way)
        values, rounding = self.line.enclosed(places[:, None])
        return self.unit * values, 1.01 * self.unit * (error + rounding) + SMALLEST


def first_bounds(problem: Problem) -> Transport:
    """Encloses W1 in O((n + m) (d + log(n + m))) time: below by that of the sets' images under a 1-Lipschitz map to the
    line, above by the coupling that is sorted along such a map, or that of the i-th x with the i-th y if cheaper.

    The maps are the distance from the common mean and the projections on some axes: that from mean to mean, those along
    which the variances and the two of them together differ most, the widest coordinate. A part of the samples tells
    which of them to take.
    """
    (x, a), (y, b) = parts = [_part(problem.x / problem.unit, problem.a), _part(problem.y / problem.unit, problem.b)]
    centre = torch.cat([x, y]).mean(0)
    found = []
    for way in (None, *_axes(*parts)):
        places = [_places(points, centre, way)[0][:, None].numpy() for points in (x, y)]
        plan = solve_line(*places, a, b)[0]
        distance = np.abs(places[0][plan.rows, 0] - places[1][plan.columns, 0])
        found.append((weighted_mean(distance, plan.mass), plan._cost(x, y), way))
    below, above = max(found, key=lambda one: one[0])[2], min(found, key=lambda one: one[1])[2]

    x, y, a, b = problem.x / problem.unit, problem.y / problem.unit, problem.a, problem.b
    places = [_places(points, centre, below)[0] for points in (x, y)]
    plan, _, v = solve_line(*(place[:, None].numpy() for place in places), a, b)
    line = Potential.trusted(places[1][:, None], torch.from_numpy(v - (v.max() + v.min()) / 2))
    potential = Shadow(line, centre, below, problem.unit)
    plans = [plan]
    if above is not below:
        plans.append(solve_line(*(_places(points, centre, above)[0][:, None].numpy() for points in (x, y)), a, b)[0])
    if np.array_equal(a, b):
        plans.append(Plan(np.arange(len(x)), np.arange(len(x)), a, (len(x), len(x))))
    plan = min(plans, key=lambda plan: plan._cost(problem.x, problem.y))
    return problem.enclose(plan, potential, *potential.at_both(problem.x, problem.y))


def _part(points: Tensor, mass: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Few of the points (n, d), evenly, and their masses, of total 1."""
    n, d = points.shape
    step = max(1, n // max(2, min(FEW, TRIED // d)))
    return points[::step], mass[::step] / mass[::step].sum()


def _axes(of_x: tuple[Tensor, np.ndarray], of_y: tuple[Tensor, np.ndarray]) -> Iterator[Tensor]:
    """Vectors w, shape (d,), of norms at most 1."""
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
        way = difference / difference.norm() + side if difference.norm() > 0 else side
        for _ in range(PRODUCTS):
            terms = [points.T @ (mass * (points @ way)) for points, mass in zip(centred, weights)]
            way = terms[0] + sign * terms[1]
            way = way / way.norm() if way.norm() > 0 else way
        ways.append(way)
    for way in ways:
        if 0 < way.norm() < torch.inf:
            yield way / way.norm() * (1 - (len(way) + 16) * U)


def _places(z: Tensor, centre: Tensor, way: Tensor | None) -> tuple[Tensor, float]:
    """t(z), shape (k,), and a bound on the rounding of each, in the units of z."""
    d, away = z.shape[1], z - centre
    distance = torch.linalg.vector_norm(away, dim=1)
    if way is None:
        return distance, distance_error(d) * float(distance.detach().max()) + vanishing(d)
    # Each of the d terms is rounded at most d times, in any order, and each of the differences once before.
    return away @ way, 1.01 * (d + 3) * U * float(distance.detach().max()) + vanishing(d)
