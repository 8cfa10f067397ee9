"""The search for a critic's steepest slope: how tight a certificate is, and whether it is wrong.

A search bounds the Lipschitz constant from below; enumerating all linear pieces gives it exactly, for tiny critics.

Note [What a slope found can overstate]
    On a kink, autograd takes one slope of each layer, and a composition can mix slopes that no point near it has: with
    relu'(0) = 0, the gradient of 2t − relu(t) + relu(−t) = t at t = 0 is 2. The mixture is at most every certified L,
    which covers all slopes of each layer, but can be above Lip(f). So all starts are moved off kinks by a jitter.

    Rounding of a gradient is small compared with L, so lowering it by a relative 2⁻⁴⁰ keeps it below L. The values in a
    difference quotient can lose all their digits where large numbers cancel; so it is lowered by how far the same
    values are off in float32, which loses digits 2²⁹ times as fast.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wgan_lip.lipschitz.layers.base import Kinks, LipschitzLayer, kinks_at, overridden_below, unrolled
from wgan_lip.utils.checks import InputError, UncertifiableError, check_samples
from wgan_lip.utils.numbers import rounded, rounded_down
from wgan_lip.utils.printing import Printed, Row

__all__ = [
    "STOCK_BREAKS",
    "Enumeration",
    "SteepestSlope",
    "enumerate_lipschitz",
    "estimate_lipschitz",
    "find_steepest_slope",
]

LOWERED = 1 - 2.0**-40


@dataclass(frozen=True, repr=False)
class SteepestSlope(Printed):
    """The steepest slope that a search found.

    Attributes:
        value: The slope, lowered by what rounding can have added.
        point: Where, shape (d,), float64.
        partner: The other end, shape (d,), if `value` is a difference quotient; None if it is a gradient norm.
    """

    value: float
    point: Tensor
    partner: Tensor | None = None

    def headline(self) -> str:
        return f"The steepest slope that a search found, in dimension {len(self.point)}"

    def summary_rows(self) -> list[Row]:
        found = "a gradient norm" if self.partner is None else "a difference quotient of two points"
        return [Row("Slope", f"Lip(f) ≥ {rounded_down(self.value, 7)}", found)]


def estimate_lipschitz(critic: nn.Module, x: Tensor, *, starts: int = 512, steps: int = 80, seed: int = 0) -> float:
    """The `value` of :func:`find_steepest_slope`: an estimate of Lip(f) from below, which proves nothing from above."""
    return find_steepest_slope(critic, x, starts=starts, steps=steps, seed=seed).value


def find_steepest_slope(
    critic: nn.Module, x: Tensor, *, starts: int = 512, steps: int = 80, seed: int = 0
) -> SteepestSlope:
    r"""Searches for the steepest slope of `critic`, in float64 on a copy.

    .. math:: \sup_{u \ne v} \frac{|f(u) - f(v)|}{\|u - v\|} = \sup_u \|\nabla f(u)\|

    In the first half of the steps pairs (u, v) ascend their difference quotient, which sees a steep piece from afar:
    both ends move along its gradient, by lengths in proportion to ‖u − v‖. In the second half single points ascend
    ‖∇f‖, which is constant on linear pieces, by trials: in a random direction, along the gradient (on which a convex f
    steepens one way, a concave one the other), and on the line through another point; the flattest points give way to
    copies of steeper ones. Where f has curvature, the steepest points then climb ‖∇f‖ by its own gradient.

    Arguments:
        critic: The potential, (b, d) → (b,), or several, (b, d) → (b, k), of which the steepest counts.
        x: Samples to start from, shape (n, d); points between them and in a wide cloud around them are starts, too.
        starts: Number of points, an even number.
        steps: Number of moves of each point.
        seed: Seed of the search.

    Returns:
        The steepest slope found: at most the certified L, and at most Lip(f); see Note [What a slope found can
        overstate]. `critic` is unchanged.
    """
    x = check_samples(x, "x").detach().cpu().double()
    if starts < 2 or starts % 2 or steps < 0:
        raise InputError(f"starts must be even and at least 2, and steps at least 0, not {starts} and {steps}.")
    search = _Search(copy.deepcopy(critic).cpu().double(), x, starts, seed)
    quotient = search.ascend_quotients(steps // 2)
    search.ascend_gradients(steps - steps // 2)
    search.climb(steps // 2)
    best = int(search.norms.argmax())
    gradient = SteepestSlope(float(search.norms[best]) * LOWERED, search.points[best])
    return max(gradient, quotient, key=lambda slope: slope.value)


class _Search:
    """Points, and at each the gradient of one of the critic's heads."""

    def __init__(self, critic: nn.Module, x: Tensor, starts: int, seed: int) -> None:
        self.critic, self.dim, self.rng = critic, x.shape[1], torch.Generator().manual_seed(seed)
        centre = x.mean(0)
        self.scale = float(_norm(x - centre).mean()) or float(_norm(centre)) or 1.0
        first, second = (x[torch.randint(len(x), (starts,), generator=self.rng)] for _ in range(2))
        between = first + self.uniform(starts) * (second - first)
        cloud = centre + self.scale * 10 ** (2 * self.uniform(starts) - 0.5) * _unit(self.normal(starts))
        kind = (torch.arange(starts) % 3)[:, None]
        points = torch.where(kind == 0, first, torch.where(kind == 1, between, cloud))
        jitter = 1e-7 * self.scale + 1e-12 * _norm(points)
        self.points = points + jitter[:, None] * self.normal(starts)
        with torch.no_grad():
            heads = critic(self.points[:1].clone()).numel()
        self.heads = torch.arange(starts // 2).repeat(2) % heads  # one head for both ends of a pair
        _, self.gradients = self.slopes(self.points, self.heads)
        self.norms = _norm(self.gradients)

    def uniform(self, count: int) -> Tensor:
        return torch.rand(count, 1, generator=self.rng, dtype=torch.float64)

    def normal(self, count: int) -> Tensor:
        return torch.randn(count, self.dim, generator=self.rng, dtype=torch.float64)

    def lengths(self, count: int) -> Tensor:
        """Random lengths of moves, from 3e-4 to 10 times the spread of the samples."""
        return self.scale * 10 ** (4.5 * self.uniform(count) - 3.5)

    def slopes(self, points: Tensor, heads: Tensor, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Value and gradient of each point's head, (n,) and (n, d)."""
        with torch.enable_grad():
            points = points if create_graph else points.detach().requires_grad_(True)
            values = _values(self.critic, points, heads)
            (gradients,) = torch.autograd.grad(values.sum(), points, create_graph=create_graph)
        return values.detach(), gradients

    def offer(self, points: Tensor, gradients: Tensor) -> None:
        """Moves to `points` where they are steeper."""
        norms = _norm(gradients)
        better = norms > self.norms
        self.points = torch.where(better[:, None], points, self.points)
        self.gradients = torch.where(better[:, None], gradients, self.gradients)
        self.norms = torch.where(better, norms, self.norms)

    def ascend_quotients(self, steps: int) -> SteepestSlope:
        r"""Moves both ends of pairs along the gradient of q = |f(u) − f(v)|/‖u − v‖.

        .. math:: \|u - v\| \nabla_u q = \pm \nabla f(u) - q n, \quad
                  \|u - v\| \nabla_v q = -(\pm \nabla f(v) - q n), \quad n = \frac{u - v}{\|u - v\|}
        """
        pairs = len(self.points) // 2
        ends = self.points.unflatten(0, (2, pairs))  # far apart, to see far
        outward = torch.tensor([1.0, -1.0], dtype=ends.dtype)[:, None, None]
        pace = ends.new_full((pairs, 1), 0.5)

        def measure(ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """Values (2, pairs, 1), gradients (2, pairs, d), quotients (pairs, 1)."""
            values, gradients = self.slopes(ends.flatten(0, 1), self.heads)
            self.offer(ends.flatten(0, 1), gradients)
            values = values.view(2, pairs, 1)
            return values, gradients.view_as(ends), (values[0] - values[1]) / _norm(ends[0] - ends[1])[:, None]

        values, gradients, quotients = measure(ends)
        for _ in range(steps):
            gap = ends[0] - ends[1]
            distance = _norm(gap)[:, None]
            pull = outward * (quotients.sign() * gradients - quotients.abs() * gap / distance)
            push = _unit(pull.transpose(0, 1).flatten(1)).unflatten(1, (2, -1)).transpose(0, 1)
            moved = ends + pace * distance * push
            new_values, new_gradients, new_quotients = measure(moved)
            better = new_quotients.abs() > quotients.abs()
            ends, values = torch.where(better, moved, ends), torch.where(better, new_values, values)
            gradients = torch.where(better, new_gradients, gradients)
            quotients = torch.where(better, new_quotients, quotients)
            pace = torch.where(better, 1.5 * pace, 0.4 * pace)

        with torch.no_grad():
            single = _values(copy.deepcopy(self.critic).float(), ends.flatten(0, 1).float(), self.heads)
        astray = (single.double() - values.flatten()).abs().max()
        sure = ((values[0] - values[1]).abs().squeeze(1) - 2 * astray) / _norm(ends[0] - ends[1])
        sure = torch.where(sure.isfinite(), sure, 0.0)
        best = int(sure.argmax())
        return SteepestSlope(float(sure[best]) * LOWERED, ends[0, best], ends[1, best])

    def ascend_gradients(self, steps: int) -> None:
        """Tries moves, keeps those to steeper points, and now and then replaces flat points by copies of steep ones."""
        count = len(self.points)
        for step in range(steps):
            if step % 5 == 4:
                order = self.norms.argsort(descending=True)
                pool = max(1, count // 2 if step < steps // 2 else count // 16)
                copied = order[torch.randint(pool, (count - count // 2,), generator=self.rng)]
                kept = torch.cat((order[: count // 2], copied))
                self.points, self.gradients = self.points[kept], self.gradients[kept]
                self.norms, self.heads = self.norms[kept], self.heads[kept]
            kind = torch.randint(3, (count, 1), generator=self.rng)
            lengths = self.lengths(count)
            wander = lengths * self.normal(count) / self.dim**0.5
            along = lengths * (self.uniform(count) - 0.5).sign() * _unit(self.gradients)
            towards = self.points[torch.randint(count, (count,), generator=self.rng)] - self.points
            line = (3 * self.uniform(count) - 1) * towards
            moved = self.points + torch.where(kind == 0, wander, torch.where(kind == 1, along, line))
            self.offer(moved, self.slopes(moved, self.heads)[1])

    def climb(self, steps: int) -> None:
        """Ascends ‖∇f‖ by its gradient, from the steepest points; does nothing where f has no curvature."""
        top = self.norms.topk(min(64, len(self.norms))).indices
        self.points, self.gradients, self.norms = self.points[top], self.gradients[top], self.norms[top]
        self.heads = self.heads[top]
        length = self.scale * self.norms.new_full((len(top), 1), 0.1)
        try:
            uphill = self.uphill(self.points)[1]
        except RuntimeError:  # a module without second derivatives, such as torch.cdist
            return
        if not uphill.any():
            return
        for _ in range(steps):
            moved = self.points + length * _unit(uphill)
            gradients, new_uphill = self.uphill(moved)
            better = (_norm(gradients) > self.norms)[:, None]
            self.offer(moved, gradients)
            uphill = torch.where(better, new_uphill, uphill)
            length = torch.where(better, 1.6 * length, 0.4 * length)

    def uphill(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """∇f and a multiple of ∇‖∇f‖², zero where f is linear, each (n, d)."""
        points = points.detach().requires_grad_(True)
        _, gradients = self.slopes(points, self.heads, create_graph=True)
        along = (gradients * _unit(gradients.detach())).sum()
        if not along.requires_grad:
            return gradients.detach(), torch.zeros_like(points)
        (uphill,) = torch.autograd.grad(along, points, allow_unused=True, materialize_grads=True)
        return gradients.detach(), uphill


def _values(critic: nn.Module, points: Tensor, heads: Tensor) -> Tensor:
    values = critic(points.clone()).reshape(len(points), -1)  # cloned: a module may work in place
    return values.gather(1, heads[:, None]).squeeze(1)


def _norm(rows: Tensor) -> Tensor:
    """Euclidean norms along the last axis, without overflow on the way; 0 for rows that are not finite."""
    largest = rows.abs().amax(-1, keepdim=True).clamp_min(1e-300)
    norms = (largest * (rows / largest).norm(dim=-1, keepdim=True)).squeeze(-1)
    return torch.where(norms.isfinite(), norms, 0.0)


def _unit(rows: Tensor) -> Tensor:
    return rows / _norm(rows)[..., None].clamp_min(1e-300)


@dataclass(frozen=True, repr=False)
class Enumeration(Printed):
    """All linear pieces of a critic on a box.

    Attributes:
        lipschitz: The largest gradient norm among them: the Lipschitz constant on the box.
        cells: Number of cells that the kinks cut the box into; on each of them every layer is affine.
        point: An interior point of a steepest cell, shape (d,), float64.
    """

    lipschitz: float
    cells: int
    point: Tensor

    def headline(self) -> str:
        return f"All linear pieces of a critic on a box in dimension {len(self.point)}"

    def summary_rows(self) -> list[Row]:
        return [
            Row("Lipschitz constant", rounded(self.lipschitz, 10), "the largest gradient norm, up to rounding"),
            Row("Cells", f"{self.cells:,}", "on each of which the critic is affine"),
        ]


def enumerate_lipschitz(
    critic: nn.Module, low: Tensor | float, high: Tensor | float, *, most_cells: int = 20_000
) -> Enumeration:
    r"""Finds the Lipschitz constant of a tiny piecewise-linear critic on a box, by visiting every linear piece.

    .. math:: \mathrm{Lip}(f) = \max_{C} \|\nabla f|_C\|, \qquad [low, high] = \bigcup C

    Layer by layer: on a cell the state is an affine function of x, read off at an interior point, so each kink of the
    next layer is a hyperplane there; those that cut the cell split it. A cell is kept as its corners, each with the
    facets it lies on, so splitting needs no linear programme: new corners lie on edges, and two corners share an edge
    if no third one lies on all facets that they share.

    Arguments:
        critic: An `nn.Sequential` of layers that state their `kinks()`, and of torch's in :data:`STOCK_BREAKS`; with
            one head or several, of which the steepest counts.
        low: Lower corner of the box, shape (d,), or one number.
        high: Upper corner of the box, shape (d,), or one number.
        most_cells: Raises an error if there are more cells.

    Returns:
        The constant, exact up to rounding, except for pieces thinner than 1e-9 of the box, which are skipped. It is the
        gradient norm at `point`, so never above Lip(f). Kinks that leave no trace in f cut cells, too. Modules are
        trusted to compute their class's forward, which :func:`wgan_lip.certify` makes sure of. `critic` is unchanged.

    Raises:
        UncertifiableError: A layer whose kinks are not known; the message names its path.
        InputError: Not a box, or a critic with too many pieces.

    Example:
        >>> critic = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
        >>> _ = nn.init.ones_(critic[0].weight)  # so that the kink, at −bias, is in the box
        >>> found = enumerate_lipschitz(critic, torch.tensor([-9.0]), torch.tensor([9.0]))
        >>> found.cells
        2

    References:
        Exactly computing the local Lipschitz constant of ReLU networks (Jordan, Dimakis, 2020)
        The double description method (Motzkin, Raiffa, Thompson, Thrall, 1953), for the cells
    """
    critic = copy.deepcopy(critic).cpu().double()
    cells = [_box(critic, low, high, most_cells)]
    diameter = float(np.linalg.norm(np.ptp(cells[0].corners, axis=0)))
    before = nn.Sequential()
    for path, module in unrolled(critic):
        centres = _centres(cells)
        state, jacobian = _jacobian(before, centres)
        try:
            rows, offsets = _kinks(module, state.shape[1])
        except UncertifiableError as error:
            raise UncertifiableError(f"At '{path}': {error}") from None
        if len(rows):
            forms = rows @ jacobian  # (cells, kinks, d)
            levels = state @ rows.T + offsets
            reach = centres.norm(dim=1)[:, None] + diameter
            rounding = 1e-12 * ((state.abs() + jacobian.norm(dim=2) * reach) @ rows.abs().T + offsets.abs())
            slack = 1e-9 * diameter * forms.norm(dim=2) + rounding
            pieces: list[_Cell] = []
            for cell, centre, *kinks in zip(cells, *(t.numpy() for t in (centres, forms, levels, slack))):
                pieces += _pieces(cell, centre, kinks, most_cells - len(pieces))
            cells = pieces
        before.append(module)
    centres = _centres(cells)
    steepest = _jacobian(before, centres)[1].norm(dim=2).amax(1)  # over heads
    worst = int(steepest.argmax())
    return Enumeration(float(steepest[worst]), len(cells), centres[worst])


STOCK_BREAKS: dict[type[nn.Module], Callable[[Any], Sequence[float]]] = {
    nn.Flatten: lambda _: (),
    nn.Hardtanh: lambda module: (module.min_val, module.max_val),
    nn.Identity: lambda _: (),
    nn.LeakyReLU: lambda _: (0.0,),
    nn.Linear: lambda _: (),
    nn.PReLU: lambda _: (0.0,),
    nn.ReLU: lambda _: (0.0,),
    nn.ReLU6: lambda _: (0.0, 6.0),
    nn.Softshrink: lambda module: (-module.lambd, module.lambd),
}
"""Where the slope of a torch module changes, in each coordinate. Layers of this package say so themselves."""

KINKS = {"kinks", "breaks"}  # a class that overrides what its base computes with overrides one of them


def _kinks(module: nn.Module, width: int) -> Kinks:
    found = None
    if isinstance(module, LipschitzLayer):
        if not any(
            overridden_below(type(part), KINKS) for part in module.modules() if isinstance(part, LipschitzLayer)
        ):
            found = module.kinks(width)
    elif type(module) in STOCK_BREAKS:
        found = kinks_at(STOCK_BREAKS[type(module)](module), torch.eye(width), torch.zeros(width))
    if found is None:
        raise UncertifiableError(
            f"The kinks of {' '.join(repr(module).split())} are not known: only piecewise-linear layers can be "
            "enumerated. Search with estimate_lipschitz instead, or define kinks() in a layer of your own."
        )
    return found


@dataclass(frozen=True)
class _Cell:
    """A polytope: its corners (p, d), and which of its facets (q,) each corner lies on, (p, q)."""

    corners: np.ndarray
    facets: np.ndarray


def _box(critic: nn.Module, low: Tensor | float, high: Tensor | float, most_corners: int) -> _Cell:
    ends = [torch.as_tensor(bound, dtype=torch.float64).cpu() for bound in (low, high)]
    dim = max(end.numel() for end in ends) if any(end.ndim for end in ends) else getattr(critic, "dim", 0)
    if {end.shape for end in ends} - {(), (dim,)} or not dim:
        raise InputError(
            f"low and high must have shape (d,), not {tuple(ends[0].shape)} and {tuple(ends[1].shape)}. "
            "Plain numbers will do for a critic that knows its dimension."
        )
    lows, highs = (end.expand(dim).numpy() for end in ends)
    if not (np.isfinite(highs - lows).all() and (lows < highs).all()):
        raise InputError(f"low must be below high, and both finite, not {lows} and {highs}.")
    if 2**dim > most_corners:
        raise InputError(
            f"A box in dimension {dim} has 2^{dim} corners, too many to enumerate. Search with estimate_lipschitz."
        )
    corners = np.array(list(product(*zip(lows, highs))))
    return _Cell(corners, np.concatenate((corners == low, corners == high), axis=1))


def _centres(cells: list[_Cell]) -> Tensor:
    """An interior point of each cell, (cells, d)."""
    return torch.from_numpy(np.stack([cell.corners.mean(axis=0) for cell in cells]))


def _jacobian(function: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Values (n, p) and Jacobians (n, p, d) of a function of rows."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        values = function(x.clone()).reshape(len(x), -1)
        rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in values.unbind(1)]
    return values.detach(), torch.stack(rows, dim=1)


def _pieces(cell: _Cell, centre: np.ndarray, kinks: Iterable[np.ndarray], most: int) -> list[_Cell]:
    """Cuts `cell` by all kinks form·(x − centre) + level = 0."""
    pieces = [cell]
    for form, level, slack in zip(*kinks):
        pieces = [half for piece in pieces for half in _halves(piece, (piece.corners - centre) @ form + level, slack)]
        if len(pieces) > most:
            raise InputError(
                "This critic has more cells than most_cells. Take a smaller box, raise most_cells, or search with "
                "estimate_lipschitz."
            )
    return pieces


def _halves(cell: _Cell, values: np.ndarray, slack: float) -> list[_Cell]:
    """Cuts a cell by a hyperplane, given its form's values at the corners, unless one half is thinner than slack."""
    above, below = values > slack, values < -slack
    if not (above.any() and below.any()):
        return [cell]
    shared = cell.facets[above][:, None] & cell.facets[below]  # (p, q, facets)
    holders = ~(shared @ ~cell.facets.T)  # (p, q, corners): those that lie on all shared facets
    i, j = np.nonzero(holders.sum(axis=2) == 2)  # edges: no corner but the two ends
    top, bottom = np.flatnonzero(above)[i], np.flatnonzero(below)[j]
    weight = (values[top] / (values[top] - values[bottom]))[:, None]
    new = (1 - weight) * cell.corners[top] + weight * cell.corners[bottom]
    halves = []
    for kept in (~below, ~above):
        facets = np.concatenate((cell.facets[kept], shared[i, j]))
        on_cut = np.concatenate((~(above | below)[kept], np.ones(len(new), dtype=bool)))
        halves.append(_Cell(np.concatenate((cell.corners[kept], new)), np.column_stack((facets, on_cut))))
    return halves
