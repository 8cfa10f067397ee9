"""The exact solver: POT's network simplex, or sorting on the line, verified."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike
from scipy.sparse import coo_matrix
from torch import Tensor

from wgan_lip.transport.distances import distances, lowest_cones
from wgan_lip.transport.plans import Plan, is_whole
from wgan_lip.transport.potentials import Potential
from wgan_lip.transport.problem import Problem, Transport, TransportError
from wgan_lip.transport.rounding import SMALLEST
from wgan_lip.utils.checks import check_memory

__all__ = ["BYTES_PER_PAIR", "network_simplex", "plan_problem", "solve", "solve_line", "solve_problem"]

ALWAYS = 2**24  # bytes that are always available
LARGEST_TOTAL = 20  # bits of the total of the masses given to the solver
BYTES_PER_PAIR = 40  # measured peak of the dense solver: costs, plan and the solver's own arcs


def solve(
    x: Tensor | ArrayLike,
    y: Tensor | ArrayLike,
    *,
    a: Tensor | ArrayLike | None = None,
    b: Tensor | ArrayLike | None = None,
) -> Transport:
    r"""Solves the transport problem between two sample sets exactly, and encloses its value.

    .. math:: W_1(P, Q) = \min_\pi \int \|x - y\| \, d\pi = \max_{\mathrm{Lip}(f) \leq 1} E_P f - E_Q f,
        \qquad P = \sum_i a_i \delta_{x_i} \Big/ \sum_i a_i, \quad Q = \sum_j b_j \delta_{y_j} \Big/ \sum_j b_j

    On the line (d = 1) by sorting, in O((n + m) log(n + m)). Otherwise by the network simplex of POT, whose time
    grows a little faster than n m and whose memory is about 40 n m bytes.

    Arguments:
        x: Samples of P, shape (n, d), any real dtype, any device. They are used in float64, on the CPU.
        y: Samples of Q, shape (m, d).
        a: Non-negative weights of x, shape (n,), of any positive total, by which they are divided: counts are as good
            as probabilities. Uniform by default.
        b: Non-negative weights of y, shape (m,), as for x.

    Returns:
        The interval, the plan and a potential. The potential has its apexes at the smaller of the two sets.

    Raises:
        InputError: Unusable samples or weights; coordinates beyond 1e280; less memory available than the solver needs.
        TransportError: The solver did not reach an optimum.

    Guarantee:
        lower <= W1(P, Q) <= upper for the numbers as given, whatever the solver did, on IEEE 754 arithmetic. Its
        width is that of rounding, about 1e-14 of the spread of the samples: far outliers or clusters make it wide
        compared with a small W1. The interval is about these weighted points: it says nothing about the laws they were
        drawn from, whose W1 is smaller on average.

    References:
        Optimal Transport, Old and New (Villani, 2009), Theorem 5.10; Displacement interpolation using Lagrangian
        mass transport (Bonneel et al., 2011), the solver; POT: Python Optimal Transport (Flamary et al., 2021)

    Example:
        >>> result = solve([[0.0, 0.0], [1.0, 0.0]], [[0.0, 2.0], [1.0, 2.0]])
        >>> result.value
        2.0
        >>> result.upper - result.lower < 1e-13
        True
    """
    return solve_problem(Problem.of(x, y, a, b))


def plan_problem(problem: Problem) -> Plan:
    """An optimal plan between the samples, of total mass 1, as :func:`solve` returns it, without bounds."""
    return problem.of_samples(_optimum(problem, problem.x / problem.unit, problem.y / problem.unit)[0])


def solve_problem(problem: Problem) -> Transport:
    """:func:`solve` for samples and weights that have been checked."""
    unit = problem.unit
    x, y = problem.x / unit, problem.y / unit
    plan, u, v, costs, relative = _optimum(problem, x, y)
    if costs is None:
        points, dual, sign = (problem.y, v, 1) if len(y) <= len(x) else (problem.x, u, -1)
        potential = Potential.trusted(points, unit * torch.from_numpy(centred(dual)), sign=sign)
        return problem.enclose(plan, potential, *potential.at_both(problem.x, problem.y))

    # f has its apexes at the smaller set, and is at most -v_j there, or at least u_i. The offsets are as large as the
    # dual variables of the larger set allow: the solver's own carry its rounding.
    if len(y) <= len(x):
        v = centred((costs - u[:, None]).min(0))
        values, error = lowest_cones(x, y, v, costs, relative)
        at_x, at_y = unit * torch.from_numpy(values), -unit * torch.from_numpy(v)
        potential = Potential.trusted(problem.y, -at_y)
    else:
        u = centred((costs - v).min(1))
        values, error = lowest_cones(y, x, u, costs.T, relative)
        at_x, at_y = unit * torch.from_numpy(u), -unit * torch.from_numpy(values)
        potential = Potential.trusted(problem.x, at_x, sign=-1)
    return problem.enclose(plan, potential, at_x, at_y, unit * error + SMALLEST)


def _optimum(problem: Problem, x: Tensor, y: Tensor) -> tuple[Plan, np.ndarray, np.ndarray, np.ndarray | None, float]:
    """An optimal plan between points in units, the dual variables, and, unless d = 1, the result of
    :func:`distances`."""
    if x.shape[1] == 1:
        return *solve_line(x.numpy(), y.numpy(), problem.a, problem.b), None, 0.0
    check_dense(len(x), len(y))
    costs, relative = distances(x, y)
    solver = _only_plan if 1 in costs.shape else network_simplex
    return *solver(problem.a, problem.b, costs), costs, relative


def _only_plan(a: np.ndarray, b: np.ndarray, costs: np.ndarray) -> tuple[Plan, np.ndarray, np.ndarray]:
    """:func:`network_simplex` where one side is a single point, to which all mass travels."""
    n, m = costs.shape
    plan = Plan(np.arange(n).repeat(m), np.tile(np.arange(m), n), a if m == 1 else b, (n, m))
    return (plan, costs[:, 0], np.zeros(1)) if m == 1 else (plan, np.zeros(1), costs[0])


def centred(dual: np.ndarray) -> np.ndarray:
    """A constant added to f changes no mean difference, only rounding."""
    return dual - (dual.max() + dual.min()) / 2


def check_dense(n: int, m: int) -> None:
    """Raises :class:`InputError` if all edges between n and m points do not fit into memory."""
    if (need := BYTES_PER_PAIR * n * m) < ALWAYS:  # asking the system takes as long as a small problem's overhead
        return
    check_memory(
        need,
        f"an exact plan between {n} and {m} samples",
        "Use wgan_lip.estimate_w1 or wgan_lip.transport.narrow, which compute distances block by block.",
    )


def network_simplex(
    a: np.ndarray, b: np.ndarray, costs: np.ndarray | coo_matrix
) -> tuple[Plan, np.ndarray, np.ndarray]:
    """An optimal plan of a transport problem, dense or with the edges of a sparse matrix only, by POT.

    Arguments:
        a: Positive masses of the n sources.
        b: Positive masses of the m sinks, of the same total.
        costs: Cost of a unit of mass on each edge, shape (n, m).

    Returns:
        The plan, in the unit of the masses, and dual variables u (n,), v (m,), u_i + v_j at most the cost of any edge.

    Raises:
        TransportError: The solver ended without an optimal plan.
    """
    import ot  # slow to import, and needed here only

    # The default limit on iterations is reached from a few thousand samples on, and the plan is then wrong. Leftover
    # flow is measured against an absolute tolerance, though masses that large are rounded by more.
    unit = math.ldexp(1.0, max(0, math.frexp(a.sum())[1] - LARGEST_TOTAL))
    matrix, log = ot.emd(
        a / unit, b / unit, costs, numItermax=10**9, log=True, center_dual=False, check_marginals=False
    )
    if log["result_code"] != 1:
        raise TransportError(
            f"The solver found no optimal plan between {len(a)} and {len(b)} samples; it ended with code "
            f"{log['result_code']}: {log['warning']}. Subsample, or scale the samples so that their distances are of "
            "comparable size."
        )
    if isinstance(matrix, np.ndarray):
        rows, columns = np.nonzero(matrix > 0)
        mass = matrix[rows, columns]
    else:
        rows, columns, mass = matrix.row, matrix.col, matrix.data
    mass = unit * mass
    if unit > 1 and is_whole(a) and is_whole(b):
        mass = np.rint(mass)
    carries = mass > 0
    rows, columns, mass = rows[carries], columns[carries], mass[carries]
    if not (mass.any() and all(np.isfinite(numbers).all() for numbers in (mass, log["u"], log["v"]))):
        raise TransportError("The solver returned a plan or dual variables that are not finite.")
    return Plan(rows.astype(np.int64), columns.astype(np.int64), mass, costs.shape), log["u"], log["v"]


def solve_line(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[Plan, np.ndarray, np.ndarray]:
    """The same on the line, for points of shape (n, 1) and (m, 1): the quantile coupling, and f' = -sign(F - G)."""
    n, m = len(x), len(y)
    x, y = x[:, 0], y[:, 0]
    order_x, order_y = np.argsort(x, kind="stable"), np.argsort(y, kind="stable")
    exact: DTypeLike = (
        np.int64 if is_whole(a) and is_whole(b) else np.longdouble
    )  # levels of whole numbers do not round
    jumps_x, jumps_y = a[order_x].astype(exact), b[order_y].astype(exact)
    levels_x, levels_y = np.cumsum(jumps_x), np.cumsum(jumps_y)
    if levels_x.dtype.kind == "f":
        levels_x, levels_y = levels_x / levels_x[-1], levels_y / levels_y[-1]
    levels = np.sort(np.concatenate([levels_x, levels_y]), kind="stable")  # two sorted runs: merged in linear time
    levels = levels[np.diff(levels, prepend=levels[:1] - 1) > 0]
    mass = np.diff(levels, prepend=levels[:1] * 0)
    rows, columns = order_x[np.searchsorted(levels_x, levels)], order_y[np.searchsorted(levels_y, levels)]

    merged = np.concatenate([x[order_x], y[order_y]])  # merged in the same way
    order = np.argsort(merged, kind="stable")
    difference = np.cumsum(np.concatenate([jumps_x, -jumps_y])[order])  # F - G on the gap after each point
    steps = -np.sign(difference[:-1]) * np.diff(merged[order])
    f = np.empty(n + m)
    f[np.concatenate([order_x, n + order_y])[order]] = np.concatenate([[0.0], np.cumsum(steps, dtype=np.longdouble)])
    return Plan(rows, columns, mass.astype(np.float64), (n, m)), f[:n], -f[n:]
