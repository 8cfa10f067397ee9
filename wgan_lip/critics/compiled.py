"""Max-min functions and their exact compilation into critics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import linprog
from scipy.spatial.distance import cdist
from torch import Tensor, nn

from wgan_lip.critics import FixedWidthCritic, ResNetCritic
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers import Linear, LipschitzExtension, Retraction, Squeeze
from wgan_lip.lipschitz.layers.constraints import MARGIN
from wgan_lip.transport import Potential, Problem, solve_problem
from wgan_lip.utils.checks import InputError, check_choice, check_samples
from wgan_lip.utils.numbers import rounded
from wgan_lip.utils.printing import Printed, Row

__all__ = [
    "MaxMinFunction",
    "compile_cones",
    "compile_fixed_width",
    "compile_resnet",
    "critic_from_transport",
    "interpolate",
]

_U = 2.0**-53
_CHUNK = 2**22  # entries of one block of values: 32 MiB
_STEEP = 1e-12  # by how much rounding may have raised a slope of norm 1
_RADIUS = 1e-8  # the smallest ball in which an inequality counts as strict; its unit is made in `_somewhere`
_INFEASIBLE = 2  # scipy's status of a linear programme without a solution


@dataclass(frozen=True, eq=False, repr=False)
class MaxMinFunction(Printed):
    r"""A continuous piecewise-affine function on R^d, as a maximum of minima of its pieces.

    .. math:: f(x) = \max_i \min_{j \in S_i} (a_j^\top x + b_j)

    Every continuous piecewise-affine function has this form.

    Arguments:
        slopes: The a_j, shape (p, d). Held in float64, like the intercepts.
        intercepts: The b_j, shape (p,).
        groups: The S_i, each an array of indices of pieces. A piece may be in several groups.

    Raises:
        InputError: Slopes or intercepts that are not finite or of other shapes, no group, an empty group, an index out
            of range.

    References:
        Max-min representation of piecewise linear functions (Ovchinnikov, 2002)

    Example:
        >>> tent = MaxMinFunction([[1.0], [-1.0]], [0.0, 2.0], [[0, 1]])
        >>> tent(np.array([[0.5], [1.5]]))
        array([0.5, 0.5])
    """

    slopes: np.ndarray
    intercepts: np.ndarray
    groups: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        slopes = _array(self.slopes, "slopes")
        intercepts = _values(self.intercepts, len(slopes), "intercepts")
        groups = tuple(np.asarray(group) for group in self.groups)
        if not groups:
            raise InputError("groups must hold at least one group of pieces.")
        for number, group in enumerate(groups):
            if group.ndim != 1 or group.size == 0 or group.dtype.kind not in "iu":
                raise InputError(
                    f"Each group must be a non-empty list of indices of pieces; group {number} has shape "
                    f"{group.shape} and dtype {group.dtype}."
                )
            if group.min() < 0 or group.max() >= len(slopes):
                raise InputError(
                    f"Indices in groups must be in 0..{len(slopes) - 1}, not {group.min()}..{group.max()} as in group "
                    f"{number}."
                )
        object.__setattr__(self, "slopes", slopes)
        object.__setattr__(self, "intercepts", intercepts)
        object.__setattr__(self, "groups", tuple(group.astype(np.int64) for group in groups))

    def headline(self) -> str:
        return f"A piecewise-affine function in dimension {self.dim:,}"

    def summary_rows(self) -> list[Row]:
        return [
            Row("Made of", f"{len(self.slopes):,} affine pieces"),
            Row("Groups", f"{len(self.groups):,}", "the largest of their minima is f"),
            Row("Steepest piece", rounded(self.bound(), 7), "its slope: Lip(f) or more, up to rounding"),
        ]

    @property
    def dim(self) -> int:
        return self.slopes.shape[1]

    def __call__(self, x: Tensor | ArrayLike) -> Tensor | np.ndarray:
        """Evaluates f at x, shape (n, d): float64 values (n,) on the CPU. Arrays give an array, tensors a tensor.

        Memory stays bounded. Raises :class:`InputError` if x has another dimension.
        """
        points = _array(x, "x", minimum=0)
        if points.shape[1] != self.dim:
            raise InputError(f"x must have dimension {self.dim}, that of the function, not shape {points.shape}.")
        members = np.concatenate(self.groups)
        starts = np.cumsum([0, *map(len, self.groups[:-1])])
        step = max(1, _CHUNK // (len(members) + len(self.slopes)))
        parts = []
        for start in range(0, max(1, len(points)), step):
            pieces = self.slopes @ points[start : start + step].T + self.intercepts[:, None]  # (p, step)
            parts.append(np.minimum.reduceat(pieces[members], starts, axis=0).max(axis=0))
        values = np.concatenate(parts)
        return torch.from_numpy(values) if isinstance(x, Tensor) else values

    def bound(self) -> float:
        """The largest ‖a_j‖: a Lipschitz constant of f, quick to compute, and not always the smallest."""
        return float(_lengths(self.slopes).max())

    def lipschitz(self) -> float:
        """The Lipschitz constant of f on R^d: the largest ‖a_j‖ among the pieces that f equals on an open set.

        A piece of group i is active where it is the least of S_i and every other group has some piece below it: a
        depth-first search over that piece of every other group, with one linear programme for each branch. Steeper
        pieces come first, and the first active one ends the search. At worst Π|S_i| programmes per piece, usually a
        few.

        Guarantee:
            Exact up to rounding, except that pieces active in no ball of radius above 1e-8 s/L may be missed. L is the
            steepest slope, and s the spread of the intercepts, seen from where it is least, and at least a millionth of
            the largest. :meth:`bound` misses none.
        """
        norms = _lengths(self.slopes)
        for piece in np.argsort(-norms, kind="stable"):
            same = (self.slopes == self.slopes[piece]).all(axis=1) & (self.intercepts == self.intercepts[piece])
            others = [group for group in self.groups if not same[group].any()]
            for group in self.groups:
                if piece in group and _somewhere(self, [piece], others, under=(piece, group[~same[group]])):
                    return float(norms[piece])
        return self.bound()

    @staticmethod
    def random(
        dim: int, groups: int, pieces: int, *, seed: int | np.random.Generator = 0, lipschitz: float = 1.0
    ) -> MaxMinFunction:
        """A random function: about half of its slopes have norm `lipschitz`, the others less.

        Arguments:
            dim: d.
            groups: Number of groups.
            pieces: Number of pieces; a group takes between one and all of them.
            seed: Seed of the random numbers, or their generator.
            lipschitz: Bound on the norms of the slopes.
        """
        rng = np.random.default_rng(seed)
        slopes = rng.standard_normal((pieces, dim))
        slopes *= (np.minimum(1, rng.uniform(0, 2, pieces)) / np.linalg.norm(slopes, axis=1))[:, None]
        members = tuple(
            rng.choice(pieces, rng.integers(1, pieces, endpoint=True), replace=False) for _ in range(groups)
        )
        return MaxMinFunction(lipschitz * _at_most_1(slopes), rng.standard_normal(pieces), members)


def interpolate(points: Tensor | ArrayLike, values: Tensor | ArrayLike, *, prune: bool = True) -> MaxMinFunction:
    r"""A 1-Lipschitz function on R^d with given values at given points.

    .. math:: f = \max_i \min_j g_{ij}, \qquad g_{ij}(x) = c_i + (c_j - c_i) \frac{(z_j - z_i)^\top (x - z_i)}
        {\|z_j - z_i\|^2}

    g_ij equals c_i at z_i and c_j at z_j, so f(z_k) = c_k for every k; its slope is at most the largest slope between
    two of the points, and so is that of f.

    Arguments:
        points: The z_i, shape (N, d).
        values: The c_i, shape (N,), with |c_i − c_j| ≤ ‖z_i − z_j‖.
        prune: Keep only enough pieces and groups for f(z_k) = c_k, chosen greedily; all N² otherwise. The two functions
            agree at the points.

    Returns:
        The function; every stored slope has norm at most 1. O(N³ d) operations, O(N (N + d)) memory besides the result.

    Raises:
        InputError: Unusable points or values, or values that no 1-Lipschitz function takes.

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), the restricted
        Stone–Weierstrass theorem; Sorting out Lipschitz function approximation (Anil, Lucas, Grosse, 2019)
    """
    points = _array(points, "points")
    values = _values(values, len(points), "values")
    _check_1_lipschitz(points, values)
    unit = _unit(points, values)
    points, first = np.unique(points, axis=0, return_index=True)
    points, values = points / unit, values[first] / unit
    side = points, values, points, values, _chords
    every = np.arange(len(points))
    return _max_min(*side, _enough(*side) if prune else dict.fromkeys(every, every), unit)


def critic_from_transport(
    x: Tensor | ArrayLike, y: Tensor | ArrayLike, *, family: str = "resnet"
) -> ResNetCritic | FixedWidthCritic:
    r"""A critic that attains W1 between two sample sets, without training: exact optimal transport, compiled.

    .. math:: f = \max_i \min_{j \in S_i} \left( c_i - \frac{(y_j - x_i)^\top (x - x_i)}{\|y_j - x_i\|} \right)

    with c the values of an optimal potential. The piece of group i towards y_j falls as steeply as possible and is at
    most c(y_j) there; so f(x_i) ≥ c(x_i) and f(y_j) ≤ c(y_j), and E_P f − E_Q f ≥ W1. It cannot be more, since f is
    1-Lipschitz. Redundant groups and pieces are left out; if −f, built from y to x, takes fewer pieces, that is
    compiled instead. All slopes have norm 1, so a retraction changes neither family.

    Arguments:
        x: Samples of P, shape (n, d).
        y: Samples of Q, shape (m, d).
        family: `resnet`, see :func:`compile_resnet`, or `fixed_width`, see :func:`compile_fixed_width`. In many
            dimensions nearly n·m pieces are needed: the width of the one, and the depth of the other, with (d + 3)²
            numbers in each block.

    Returns:
        The critic, in float64. Its certified constant is at most 1 and its KR dual value W1(P_n, Q_m) up to rounding,
        which :func:`wgan_lip.transport.solve` encloses. In float32 it keeps seven digits of the values, not of their
        differences.

    Raises:
        InputError: Unusable samples, or an unknown family.

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), Theorems 3.1 and 4.1; Optimal
        transport, old and new (Villani, 2009), Theorem 5.10

    Example:
        >>> from wgan_lip.wasserstein.dual import kr_value
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
        >>> critic = critic_from_transport(x, x + torch.tensor([3.0, 4.0]))
        >>> round(kr_value(critic, x, x + torch.tensor([3.0, 4.0])).item(), 9)
        5.0
    """
    check_choice(family, ["resnet", "fixed_width"], "family")
    problem = Problem.of(x, y)
    x, y, potential = problem.x, problem.y, solve_problem(problem).potential  # equal samples need one piece
    high, low = potential(x).numpy(), potential(y).numpy()
    centre = torch.cat((x, y)).mean(dim=0)  # far from the origin the intercepts would lose digits
    x, y = (x - centre).numpy(), (y - centre).numpy()
    unit = _unit(x, y, high, low)
    x, y, high, low = x / unit, y / unit, high / unit, low / unit
    sides = (x, high, y, low, _cones), (y, -low, x, -high, _cones)
    groups = [_enough(*side) for side in sides]
    pieces = [sum(map(len, group.values())) for group in groups]
    mirrored = pieces[1] < pieces[0]
    function = _max_min(*sides[mirrored], groups[mirrored], unit)
    critic: ResNetCritic | FixedWidthCritic = (
        compile_resnet(function) if family == "resnet" else compile_fixed_width(function)
    )
    with torch.no_grad():
        critic.lift.bias.sub_(critic.lift.weight @ centre)
        if mirrored:
            critic.get_parameter("readout.weight").neg_()
            critic.get_parameter("readout.bias").neg_()
    return critic


def compile_resnet(function: MaxMinFunction) -> ResNetCritic:
    r"""Compiles a max-min function into a critic of family A, with the maximum norm: exact on R^d up to rounding.

    The lift maps x to all pieces, one coordinate each; tournaments of sorted pairs find the minimum of every group at
    once, then the maximum of those. Slot g·2^a + k holds the k-th piece of group g, both padded to powers of two by
    repetition; after a layers slot (g + 1)·2^a − 1 holds the group's minimum, after b more slot 2^a − 1 the value.

    Returns:
        `ResNetCritic(dim, width=2^(a + b), depth=a + b, norm="max")` in float64, a = ⌈log2 max|S_i|⌉,
        b = ⌈log2 #groups⌉, at least one layer. Its certified constant is at most 1. Retraction keeps slopes of norm 1,
        and lengthens shorter ones to 1, since the rows of a trained lift have norm 1.

    Raises:
        InputError: A slope of norm above 1.

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), Theorem 3.1
    """
    slopes, _ = _nonexpansive(function)
    low, high = (max(map(len, function.groups)) - 1).bit_length(), (len(function.groups) - 1).bit_length()
    low = max(low, 1 - high)  # a critic has at least one layer
    slots = np.stack([np.resize(group, 2**low) for group in function.groups])
    slots = np.resize(slots, (2**high, 2**low)).ravel()
    with torch.device("meta"):  # random weights of this width would take longer than everything else
        critic = ResNetCritic(function.dim, width=len(slots), depth=low + high, norm="max").double()
    critic.to_empty(device="cpu")
    shrink = 1 - MARGIN * np.finfo(np.float64).eps  # as retraction does: room for a proof that rounds up
    with torch.no_grad():
        torch.index_select(torch.from_numpy(slopes), 0, torch.from_numpy(slots), out=critic.lift.weight).mul_(shrink)
        critic.lift.bias.copy_(torch.from_numpy(function.intercepts[slots]))
        critic.get_parameter("readout.weight").zero_()[0, 2**low - 1] = shrink
        critic.get_parameter("readout.bias").zero_()
    return critic


def compile_cones(potential: Potential) -> nn.Sequential:
    r"""Turns a potential of a transport solution into a critic that can be certified, (b, d) → (b,), in float64.

    .. math:: f(z) = s \min_j (\|z - p_j\| - v_j)

    A minimum of cones is 1-Lipschitz by its form, so the certified constant is at most 1 whatever the numbers are. The
    critic's weights do not train; memory stays bounded if gradients in z are not asked for either.
    """
    cones = LipschitzExtension.through(potential.points, -potential.offsets)
    sign = [] if potential.sign > 0 else [Linear(Norm((1,)), Norm((1,))).double()]
    for layer in sign:
        with torch.no_grad():
            layer.weight.fill_(-(1 - 2.0**-48))  # so that its certified norm is at most 1
    return nn.Sequential(cones, *sign, Squeeze()).eval().requires_grad_(False)


def compile_fixed_width(function: MaxMinFunction) -> FixedWidthCritic:
    r"""Compiles a max-min function into a critic of family B, of width d + 3: exact on R^d up to rounding.

    z carries x unchanged (τ = 0). A block leaves (max, min) of two scalars in s_1, s_2: the affine maps keep the least
    so far and load the group's next piece next to it, then compare the group's minimum with the maximum so far, kept in
    s_3.

    The rows of a trained affine map have norms that add up to 1. A piece of slope shorter than that is loaded as

    .. math:: c\,(s_1 - s_2) + a^\top z + b, \qquad 2c + \|a\| = 1

    where s_1 = s_2, for which one more block copies the scalar that is kept; so retraction does not change the
    function.

    Returns:
        `FixedWidthCritic(dim, depth=depth, hidden=1)` in float64, of depth at most Σ|S_i| + 1 if all slopes have norm
        1, and at most one more for each shorter piece. Its certified constant is at most 1.

    Raises:
        InputError: A slope of norm above 1.

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), Theorem 4.1
    """
    slopes, norms = _nonexpansive(function)
    spare = np.where(norms < 1 - _STEEP, (1 - norms) / 2, 0.0)
    pieces = np.column_stack((spare, -spare, np.zeros(len(slopes)), slopes))
    # Row k keeps the scalar s_{k + 1} for k < 3, and loads piece k − 3 otherwise.
    rows = torch.from_numpy(np.concatenate((np.eye(3, function.dim + 3), pieces)))
    biases = torch.from_numpy(np.concatenate((np.zeros(3), function.intercepts)))
    program = _program([(3 + group).tolist() for group in function.groups], {*(3 + np.flatnonzero(spare)).tolist()})

    critic = FixedWidthCritic(function.dim, depth=len(program), hidden=1).double()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.zero_()
        critic.lift.weight[:3, 0] = 1  # any unit row, the same for all three scalars
        critic.lift.weight[3:] = torch.eye(function.dim)
        for number, triple in enumerate(program, start=1):
            critic.get_parameter(f"block_{number}.layers.2.weight")[0, 0] = 1
            weight = critic.get_parameter(f"affine_{number}.weight")
            weight[:3], weight[3:, 3:] = rows[list(triple)], torch.eye(function.dim)
            critic.get_parameter(f"affine_{number}.bias")[:3] = biases[list(triple)]
        critic.readout.weight[0, 0] = 1
    Retraction(critic)()
    return critic


def _program(groups: list[list[int]], short: set[int]) -> list[tuple[int, int, int]]:
    """What each affine map writes to (s_1, s_2, s_3): a scalar, 0 to 2, or a piece, numbered as in `groups`.

    Pieces in `short` need s_1 = s_2 when they are loaded. The last map writes the value to all three.
    """
    s1, s2, s3 = range(3)
    program: list[tuple[int, int, int]] = []
    best = None  # where the maximum of the groups so far is
    for group in groups:
        first, *rest = group
        if best is None:
            program.append((first, rest[0] if rest else first, s3))  # the lift's scalars are equal
        else:
            if short & {*group[:2]}:
                program.append((best, best, best))
            program.append((first, rest[0] if rest else best, best))
        for piece in rest[1:]:
            if piece in short:
                program.append((s2, s2, s3))
            program.append((s2, piece, s3))
        if best is not None and rest:
            program.append((s2, s3, s3))
        best = s2 if best is None else s1
    value = s1 if len(groups) > 1 else s2
    return [*program, (value, value, value)]


def _enough(
    centres: np.ndarray,
    heights: np.ndarray,
    points: np.ndarray,
    values: np.ndarray,
    slopes_towards: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> dict[int, np.ndarray]:
    """Enough groups and pieces for :func:`_max_min`, chosen greedily: a few points for each of a few centres.

    Each group is at most `values` at the points, and their maximum at least `heights` at the centres.
    """
    tolerance = 16 * _U * cdist(centres, points).max()
    chosen, reached = [], np.eye(len(centres), dtype=bool)
    for i, (centre, height) in enumerate(zip(centres, heights)):
        steps, rises = points - centre, values - height
        slopes = slopes_towards(steps, rises)
        covers = slopes @ steps.T <= rises + tolerance  # (pieces, points)
        np.fill_diagonal(covers, True)
        pieces = _cover(covers)
        chosen.append(pieces)
        steps, rises = centres - centre, heights - height
        alive = np.flatnonzero(steps @ slopes[pieces[0]] >= rises - tolerance)  # few, before the large product
        lowest = (steps[alive] @ slopes[pieces].T).min(axis=1)
        reached[i, alive[lowest >= rises[alive] - tolerance]] = True
    return {i: chosen[i] for i in _cover(reached)}


def _max_min(
    centres: np.ndarray,
    heights: np.ndarray,
    points: np.ndarray,
    values: np.ndarray,
    slopes_towards: Callable[[np.ndarray, np.ndarray], np.ndarray],
    groups: dict[int, np.ndarray],
    unit: float,
) -> MaxMinFunction:
    """max_i min_j of pieces through (centre i, height i) with slopes towards point j, by `groups`; times `unit`."""
    ends = np.cumsum([0, *map(len, groups.values())])
    slopes, intercepts = np.empty((ends[-1], points.shape[1])), np.empty(ends[-1])
    for (i, chosen), start, end in zip(groups.items(), ends, ends[1:]):
        rows = slopes[start:end]
        rows[:] = _at_most_1(slopes_towards(points[chosen] - centres[i], values[chosen] - heights[i]))
        intercepts[start:end] = unit * (heights[i] - rows @ centres[i])
    return MaxMinFunction(slopes, intercepts, tuple(np.split(np.arange(ends[-1]), ends[1:-1])))


def _chords(steps: np.ndarray, rises: np.ndarray) -> np.ndarray:
    """The slopes, along `steps` (k, d), of the pieces that rise by `rises` (k,) there; 0 for a zero step."""
    squares = np.square(steps).sum(axis=1)
    return steps * np.divide(rises, squares, out=np.zeros_like(rises), where=squares > 0)[:, None]


def _cones(steps: np.ndarray, rises: np.ndarray) -> np.ndarray:
    """The unit slopes that fall most along `steps` (k, d), whatever `rises` are; the first axis for a zero step."""
    lengths = np.linalg.norm(steps, axis=1, keepdims=True)
    axis = np.eye(1, steps.shape[1])
    return np.where(lengths > 0, -steps / np.where(lengths > 0, lengths, 1), axis)


def _cover(covers: np.ndarray) -> np.ndarray:
    """Indices of a few rows of a square boolean matrix, true on its diagonal, that cover every column: greedily."""
    chosen: list[int] = []
    gains, missing = covers.sum(axis=1), np.ones(len(covers), dtype=bool)
    while missing.any():
        best = int(gains.argmax())
        if gains[best] == 1:  # every column takes its own row
            return np.array([*chosen, *np.flatnonzero(missing)])
        chosen.append(best)
        gains -= covers[:, missing & covers[best]].sum(axis=1)
        missing &= ~covers[best]
    return np.array(chosen)


def _somewhere(
    function: MaxMinFunction, upper: Sequence[int], groups: list[np.ndarray], *, under: tuple[int, np.ndarray]
) -> bool:
    """Whether, on an open set, each of `groups` has a piece below every piece of `upper`.

    Arguments:
        function: The function with these pieces.
        upper: Indices of pieces.
        groups: Groups of which some piece must be below.
        under: A piece and others that it must also be below.
    """
    # Seen from where the intercepts differ least, and in units in which neither they nor the slopes are large, so what
    # counts as thin depends neither on the origin nor on the units of x and f.
    steepest = function.bound() or 1.0
    slopes = function.slopes / steepest
    line = np.column_stack((slopes, np.ones(len(slopes))))
    origin = -np.linalg.lstsq(line, function.intercepts / steepest)[0][:-1]
    intercepts = function.intercepts / steepest + slopes @ origin
    rounding = 1e-6 * float(np.abs(function.intercepts).max()) / steepest  # many times over
    scale = max(float(np.ptp(intercepts)), rounding) or 1.0
    intercepts = intercepts / scale

    def below(piece: int, others: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Unit normals N and offsets e of {x: N x ≤ e}, where `piece` is below `others`; None if it never is."""
        normals, offsets = slopes[piece] - slopes[others], intercepts[others] - intercepts[piece]
        lengths = _lengths(normals)
        slanted = lengths > 0
        if (offsets[~slanted] <= 0).any():
            return None
        return normals[slanted] / lengths[slanted, None], offsets[slanted] / lengths[slanted]

    def search(normals: np.ndarray, offsets: np.ndarray, groups: list[list]) -> bool:
        """The largest ball, of radius at most 1, that the half-spaces leave; then a group not below at its centre."""
        cost = np.append(np.zeros(function.dim), -1.0)
        result = linprog(
            cost,
            A_ub=np.column_stack((normals, np.ones(len(normals)))),
            b_ub=offsets,
            bounds=[*[(None, None)] * function.dim, (0.0, 1.0)],
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
        )
        if result.status == _INFEASIBLE:
            return False
        if not result.success:
            return True  # err on the side of missing no piece
        centre, radius = result.x[:-1], result.x[-1]
        if radius < _RADIUS:
            return False
        depths = [[(e - n @ centre).min(initial=np.inf) for n, e in group] for group in groups]
        open_groups = [g for g, depth in enumerate(depths) if max(depth, default=-np.inf) < _RADIUS]
        if not open_groups:
            return True
        branch = min(open_groups, key=lambda g: len(groups[g]))
        rest = groups[:branch] + groups[branch + 1 :]
        for k in np.argsort(-np.array(depths[branch]), kind="stable"):
            n, e = groups[branch][k]
            if search(np.concatenate((normals, n)), np.concatenate((offsets, e)), rest):
                return True
        return False

    start = below(*under)
    halves = [[half for piece in group if (half := below(piece, upper)) is not None] for group in groups]
    return start is not None and search(*start, halves)


def _nonexpansive(function: MaxMinFunction) -> tuple[np.ndarray, np.ndarray]:
    """The slopes and their norms, with rounding above 1 removed. Raises :class:`InputError` for a slope above 1."""
    norms = _lengths(function.slopes)
    steepest = int(norms.argmax())
    if norms[steepest] > 1 + _STEEP:
        raise InputError(
            f"Slopes must have norm at most 1, not {norms[steepest]:.17g} as for piece {steepest}. Divide slopes and "
            "intercepts by it, and multiply the critic's values."
        )
    slopes = function.slopes if norms[steepest] <= 1 else function.slopes / np.maximum(norms, 1)[:, None]
    return slopes, np.minimum(norms, 1)


def _lengths(rows: np.ndarray) -> np.ndarray:
    """Euclidean norms of the rows (k, d), whose squares may over- or underflow."""
    largest = np.abs(rows).max(axis=1, initial=0.0)
    unit = np.where(largest > 0, largest, 1)
    return unit * np.linalg.norm(rows / unit[:, None], axis=1)


def _unit(*arrays: np.ndarray) -> float:
    """A power of two above all entries, to divide by where squares would over- or underflow."""
    return math.ldexp(1.0, math.frexp(max(float(np.abs(array).max()) for array in arrays))[1])


def _at_most_1(slopes: np.ndarray) -> np.ndarray:
    """The slopes (p, d), shortened if of norm above 1 or too close to tell: each at most 1 in real arithmetic."""
    norms = np.linalg.norm(slopes, axis=1, keepdims=True) * (1 + (slopes.shape[1] + 8) * _U)
    return slopes / np.maximum(norms, 1)


def _check_1_lipschitz(points: np.ndarray, values: np.ndarray) -> None:
    """Raises :class:`InputError` naming two points whose values differ by more than their distance, and rounding."""
    unit = _unit(points, values)
    distances = unit * cdist(points / unit, points / unit)
    excess = np.abs(values[:, None] - values) - (1 + _STEEP) * distances
    i, j = np.unravel_index(excess.argmax(), excess.shape)
    if excess[i, j] > 8 * _U * np.abs(values).max():
        rise, run = abs(values[i] - values[j]), distances[i, j]
        slope = f"slope {rise / run:.17g}" if run else "two values for one point"
        raise InputError(
            f"No 1-Lipschitz function takes these values: {slope} between points {min(i, j)} and "
            f"{max(i, j)}, values {rise:.9g} apart at distance {run:.9g}. Divide all values by the largest slope."
        )


def _array(samples: Tensor | ArrayLike, name: str, *, minimum: int = 1) -> np.ndarray:
    samples = samples.clone() if isinstance(samples, Tensor) else samples  # arrays are copied there
    return check_samples(samples, name, minimum=minimum).detach().cpu().double().numpy()


def _values(values: Tensor | ArrayLike, count: int, name: str) -> np.ndarray:
    values = values if isinstance(values, Tensor) else np.asarray(values)
    if values.shape != (count,):
        raise InputError(f"{name} must have shape ({count},), one for each row, not {tuple(values.shape)}.")
    return _array(values[:, None], name)[:, 0]
