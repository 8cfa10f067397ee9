"""Nonlinear last layers: from a Euclidean state to one or more scalars."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip.lipschitz.bounds import Norm, upper_bound_vector_norm
from wgan_lip.lipschitz.layers.base import Claim, LipschitzLayer, Rounding, Solver, Summary
from wgan_lip.lipschitz.layers.constraints import Box, Constraint
from wgan_lip.utils.checks import InputError, check_pair, check_samples
from wgan_lip.utils.clusters import k_means

__all__ = ["Cones", "LipschitzExtension"]

_STRIDE = 4.0  # standard deviations of the samples that a coordinate of a tip moves when its parameter moves by 1
_WARMTH = 0.1  # the initial temperature, in distances of the samples from their mean
_COLDEST = 20.0  # natural logarithm of the largest factor by which it falls: beyond, quotients by it exceed float32
_HEAD_START = 2.0  # how far rising cones start above falling ones, in temperatures
_SOLVED = 8192  # states of each law whose transport is solved exactly
_REACH = 6.0  # distances between neighbouring tips, over the root of the dimension, that tips move so, at most
_CHUNK = 2**22  # distances of one block
_SHARPNESS = 0.1  # the temperature at a start from a solver, in distances between neighbouring tips
_IDLE = 0.1  # a cone whose largest share at the samples is below this part of an equal share moves to where they are


class LipschitzExtension(LipschitzLayer):
    r"""The lowest of a set of cones: the largest 1-Lipschitz function that is at most b_j at the point c_j.

    .. math:: f(z) = \min_j (\|z - c_j\| + b_j)

    Optimal potentials of W1 have this form, with the centres c_j at the samples. The gradient norm is 1 almost
    everywhere. Several heads share the centres, but not the offsets b.

    Distances are computed by differences: the expansion ‖z‖² − 2zᵀc + ‖c‖² cancels. Memory b·k, with heads b·heads·k;
    without gradients, a few blocks of 32 MiB.

    Arguments:
        dim: Width of the state, shape (b, dim); the output has shape (b, heads).
        centers: Number k of centres.
        heads: Number of scalars, in the maximum norm.
        scale: The centres start Gaussian with this standard deviation in each coordinate, in the state's units.

    Guarantee:
        Constant exactly 1 for all finite centres and offsets, a minimum of 1-Lipschitz functions.

    References:
        Extension of range of functions (McShane, 1934)
    """

    lengths = ("centers", "offsets")
    reads_distances = True
    summary = Summary("min_j(‖z − c_j‖ + b_j)", "Euclidean to scalars")

    def __init__(self, dim: int, centers: int, *, heads: int = 1, scale: float = 1.0) -> None:
        super().__init__()
        if min(dim, centers, heads) < 1:
            raise InputError(f"dim, centers and heads must be at least 1, not {dim}, {centers} and {heads}.")
        self.centers = nn.Parameter(scale * torch.randn(centers, dim))
        self.offsets = nn.Parameter(torch.zeros(heads, centers))

    @classmethod
    def through(cls, points: Tensor, values: Tensor) -> LipschitzExtension:
        """The extension of values (k,) at points (k, d), which it takes there if they are 1-Lipschitz on the points.

        Raises :class:`InputError` for points that are not finite or not of shape (k, d), and for other than k values.
        """
        points, values = check_samples(points, "points"), check_samples(values.reshape(-1, 1), "values")[:, 0]
        if len(points) != len(values):
            raise InputError(f"values must hold one value for each of {len(points)} points, not {len(values)}.")
        layer = cls(points.shape[1], len(points)).to(points)
        with torch.no_grad():
            layer.centers.copy_(points)
            layer.offsets.copy_(values)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        _check_states(x, self.centers)
        single = torch.promote_types(x.dtype, torch.float32)  # there are no distances in half precision
        points, centers = x.to(single), self.centers.to(single)
        blocks = points.split(max(1, _CHUNK // self.offsets.numel()))  # without gradients only one is held at a time
        return torch.cat([self._lowest(block, centers) for block in blocks]).to(x.dtype)

    def _lowest(self, points: Tensor, centers: Tensor) -> Tensor:
        distance = torch.cdist(points, centers, compute_mode="donot_use_mm_for_euclid_dist")  # (b, k)
        return (distance[:, None] + self.offsets).amin(dim=2)

    def claim(self) -> Claim:
        heads, dim = len(self.offsets), self.centers.shape[1]
        each = math.sqrt(heads) * 1.01  # the error vector of all heads
        size = upper_bound_vector_norm(self.centers) + upper_bound_vector_norm(self.offsets)
        # Squares that underflow cost 1e-154 a coordinate; those that overflow hide a cone, which may be the lowest.
        offset = each * (size + 1e-130) if size < 1e130 else math.inf
        rounding = Rounding(dim + 8, each, offset)
        return Claim(1.0, "minimum of cones", Norm.euclidean(dim), Norm((1,) * heads), rounding)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(5, 4), (5,)
        yield cls(5, 4, heads=3), (5,)

    def extra_repr(self) -> str:
        return f"dim={self.centers.shape[1]}, centers={len(self.centers)}, heads={len(self.offsets)}"


class Cones(LipschitzLayer):
    r"""A trainable potential: a soft minimum of rising cones and of one soft maximum of falling ones.

    .. math::
        f(z) = \operatorname{smin}_T \bigl\{ \rho_1, \dots, \rho_r, \,
               \operatorname{smax}_T \{-\rho_j : j > r\} \bigr\}, \qquad
        \rho_j(z) = \|z - c_j\| + b_j, \qquad \operatorname{smax}_T(v) = T \log \sum_j e^{v_j / T}

    and smin(v) = −smax(−v). Their gradients are convex combinations, so f is 1-Lipschitz at every temperature T > 0.
    As T falls, f becomes hard and its gradient norm 1. T is trained with the rest and falls by itself. A hard maximum
    would train only the highest cone at each sample; a soft one trains all. Far from the samples f falls, so a
    generator that ascends f gains nothing by leaving them.

    Several heads share the centres, but not the offsets.

    Note [Units]
        An optimiser like Adam moves every parameter by about its learning rate, whatever the units of the samples. So
        c = s·`centers`, b = s·`offsets` and T = s·exp(−q·`coldness`) with q, `cooling`, and s, `unit`, four standard
        deviations of the states, not trained: cones then train at the rate of the layers before them, in any units.
        Tips that start on a potential are nearly where they should be: there s is at most six of their distances over
        √dim, so that a step moves a tip by a share of its distance to the next, in the plane as in 128 dimensions.

    Note [Distances]
        In float64 distances are taken by differences, which the certified evaluation relies on. In single precision
        they come from a product of matrices, an order faster in many dimensions, which cancels where z is near a
        centre: there, at the nearest centre of each sample, they are taken again by differences. A slope is
        (z − c)/‖z − c‖ in both.

    Arguments:
        dim: Width of the state, shape (b, dim); the output has shape (b, heads).
        centers: Number k of cones; the first ⌊k/2⌋ rise, the others fall.
        heads: Number of scalars, in the maximum norm.
        scale: The standard deviation of the states, in each coordinate: the centres start there. :meth:`start_at`
            takes it, and centres, from samples.
        cooling: q, how fast T falls. At 6, for samples that stay, Adam makes f hard within some hundred steps
            at 5e-3. In adversarial training the samples keep moving, and a critic that is hard too early follows them
            with only a few cones: 0.05 takes 20,000 steps at that rate to become hard.

    Guarantee:
        Constant exactly 1 for all finite parameters.

    References:
        Extension of range of functions (McShane, 1934); Smooth minimization of non-smooth functions (Nesterov, 2005),
        section 4.1
    """

    lengths = ()  # see Note [Units]
    reads_distances = True
    summary = Summary(
        "soft minimum of rising cones ‖z − c_j‖ + b_j and of a soft maximum of falling ones", "Euclidean to scalars"
    )
    unit: Tensor

    def __init__(self, dim: int, centers: int, *, heads: int = 1, scale: float = 1.0, cooling: float = 6.0) -> None:
        super().__init__()
        if min(dim, centers, heads) < 1:
            raise InputError(f"dim, centers and heads must be at least 1, not {dim}, {centers} and {heads}.")
        for name, value in (("scale", scale), ("cooling", cooling)):
            if not 0 < value < math.inf:
                raise InputError(f"{name} must be finite and above 0, not {value}.")
        self.rising, self.cooling = centers // 2, float(cooling)
        self.register_buffer("unit", torch.tensor(1.0))
        self.centers = nn.Parameter(torch.empty(centers, dim))
        self.offsets = nn.Parameter(torch.empty(heads, centers))
        self.coldness = nn.Parameter(torch.tensor(_coldness(dim) / self.cooling))
        self.start_at(*(scale * torch.randn(max(centers, 64), dim) for _ in range(2)))

    @property
    def temperature(self) -> Tensor:
        """T, a scalar, in the units of the states."""
        return self.unit * (-self.cooling * self.coldness).clamp(-_COLDEST, 0).exp()

    def forward(self, x: Tensor) -> Tensor:
        _check_states(x, self.centers)
        single = torch.promote_types(x.dtype, torch.float32)  # there are no distances in half precision
        unit = self.unit.to(single)
        centers, offsets = unit * self.centers.to(single), unit * self.offsets.to(single)
        # What is exported has to be differentiable by itself, without the function's own backward.
        fast = single == torch.float32 and not torch.compiler.is_exporting()
        function = _fast_cones if fast else _cones
        return function(x.to(single), centers, offsets, self.temperature.to(single), self.rising).to(x.dtype)

    @torch.no_grad()
    def start_at(self, x: Tensor, y: Tensor, *, solver: Solver | None = None, keep_distances: bool = False) -> None:
        """Falling cones start at states of P, rising ones at states of Q: there their tips are in an optimal potential.

        Without a solver, tips are states drawn at random. Every cone starts with mean 0 over all states, and so do
        both groups, except that rising ones start a little above, so that falling ones count at first: from equal
        heights they would share the samples for long, and a group far above is never trained.

        With one, tips start at k-means centres, on the potential of an exact plan between up to 8,192 states of each
        law: rising cones bound it from above, falling ones from below. The group whose bound has the larger dual value
        on other states leads: f starts as that bound. The temperature is a tenth of the distance between neighbouring
        tips, so f starts almost hard.

        Arguments:
            x: States of P, shape (n, dim).
            y: States of Q, shape (m, dim).
            solver: Gives a potential of optimal transport between two sample sets, a function (k, dim) → (k,), such as
                `lambda x, y: wgan_lip.transport.solve(x, y).potential`.
            keep_distances: Ignored by cones, which end a critic.

        Raises:
            InputError: States that are not finite, or of another width.
        """
        x, y = self._states(x, y)
        count, dim = self.centers.shape
        states = torch.cat((x[:512], y[:512])).double()
        scale = (states - states.mean(dim=0)).square().mean().sqrt()
        self.unit.copy_(_STRIDE * scale.where(scale > 0, 1))
        self.coldness.fill_(_coldness(dim) / self.cooling)
        if solver is None:
            centers = torch.cat((_rows(y, self.rising), _rows(x, count - self.rising))).double()
            offsets = -torch.cdist(states, centers).mean(dim=0)
            for sign, group in _groups(self.rising, count):
                ahead = _HEAD_START if sign < 0 else 0.0
                offsets[group] += self.temperature.double() * (math.log(group.stop - group.start) + ahead)
        else:
            centers, offsets = self._on_potential(x.double(), y.double(), solver)
        self.centers.copy_(centers / self.unit.double())
        self.offsets.copy_((offsets / self.unit.double()).expand_as(self.offsets))

    @torch.no_grad()
    def renew(self, x: Tensor, y: Tensor) -> int:
        r"""Moves cones that matter at no state to where states are; there f stays what it was, up to T.

        Falling cones move to states of P, rising ones to states of Q, drawn at random. At a point c, the cones through
        f(c) touch f: f(c) − ‖z − c‖ ≤ f(z) ≤ f(c) + ‖z − c‖, as f is 1-Lipschitz. So they change no hard f, and a moved
        cone has a sample, and with it a gradient, again. K moved cones of a group start T·log(1 + K) below, or above,
        f(c), so that all together they move a soft f by at most T·log 2. A cone matters if its share in the slope of f
        reaches a tenth of an equal one at some state: those that leave take no more than T·log(10/9) along. Elsewhere
        f loses what they gave.

        Arguments:
            x: States of P, shape (n, dim).
            y: States of Q, shape (m, dim).

        Returns:
            How many cones moved.

        Raises:
            InputError: States that are not finite, or of another width.
        """
        x, y = self._states(x, y)
        shares, moves = self._largest_shares(torch.cat((x, y))), []
        for sign, group in _groups(self.rising, len(self.centers)):
            least = _IDLE / (group.stop - group.start)
            idle = group.start + (shares[group] < least).nonzero()[:, 0]
            tips = _rows(y if sign < 0 else x, len(idle))
            heights = self.temperature * math.log1p(len(idle)) - sign * self(tips).T  # (heads, moved)
            moves.append((idle, tips, heights))
        for idle, tips, heights in moves:
            self.centers[idle] = tips.to(self.centers) / self.unit
            self.offsets[:, idle] = heights.to(self.offsets) / self.unit
        return sum(len(idle) for idle, _, _ in moves)

    def _largest_shares(self, states: Tensor) -> Tensor:
        """The largest share of each cone in the slope of f, over states (b, dim) and heads: shape (k,)."""
        distance = torch.cdist(states, self.unit * self.centers, compute_mode="donot_use_mm_for_euclid_dist")
        cones = (distance[:, None] + self.unit * self.offsets) / self.temperature  # (b, heads, k)
        groups = _groups(self.rising, len(self.centers))
        within = torch.cat([torch.softmax(-cones[..., group], dim=2) for _, group in groups], dim=2)
        values = torch.stack([sign * torch.logsumexp(-cones[..., group], dim=2) for sign, group in groups], dim=2)
        between = torch.softmax(-values, dim=2)  # (b, heads, groups)
        sizes = torch.tensor([group.stop - group.start for _, group in groups], device=states.device)
        return (within * between.repeat_interleave(sizes, dim=2)).amax(dim=(0, 1))

    def _states(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Both, checked."""
        x, y = check_pair(x, y)
        if x.shape[1] != self.centers.shape[1]:
            raise InputError(
                f"States must have width {self.centers.shape[1]}, not shape {tuple(x.shape)}. Give the states that "
                "reach this layer."
            )
        return x, y

    def _on_potential(self, x: Tensor, y: Tensor, solver: Solver) -> tuple[Tensor, Tensor]:
        """Tips (k, dim) and heights (k,) on an exact potential of half the states; sets the temperature."""
        count = len(self.centers)
        solved = max(1, min(_SOLVED, min(len(x), len(y)) // 2))
        potential = solver(x[:solved], y[:solved])
        centers = torch.cat((_tips(y, self.rising), _tips(x, count - self.rising)))
        offsets = potential(centers).to(centers)
        offsets[self.rising :] *= -1
        apart = torch.cat([_nearest_other(centers[group]) for _, group in _groups(self.rising, count)]).median()
        if apart > 0:
            self.unit.clamp_(max=_REACH * apart / math.sqrt(x.shape[1]))
            coldness = -math.log(_SHARPNESS * apart / self.unit)
            self.coldness.fill_(min(max(0.0, coldness), _COLDEST) / self.cooling)
        if 0 < self.rising < count and solved < min(len(x), len(y)):
            other = torch.cat((x[solved : 2 * solved], y[solved : 2 * solved]))
            heights = torch.cdist(other, centers) + offsets  # (n + m, k)
            above, below = heights[:, : self.rising].amin(dim=1), -heights[:, self.rising :].amin(dim=1)
            n = len(x[solved : 2 * solved])
            if above[:n].mean() - above[n:].mean() > below[:n].mean() - below[n:].mean():
                offsets[self.rising :] -= (above - below).amax()  # the falling bound rises over the other one
        return centers, offsets

    def claim(self) -> Claim:
        (heads, count), dim = self.offsets.shape, self.centers.shape[1]
        each = math.sqrt(heads) * 1.01  # the error vector of all heads
        unit = upper_bound_vector_norm(self.unit[None])
        if not self.unit > 0:
            raise InputError(f"unit must be above 0, not {self.unit.item()}. Reload the last good checkpoint.")
        upper_bound_vector_norm(self.coldness[None])  # refuses one that is not finite
        exponent = max(-_COLDEST, min(-self.cooling * self.coldness.item(), 0.0))
        temperature = 1.01 * unit * math.exp(exponent)
        size = 1.01 * unit * (upper_bound_vector_norm(self.centers) + upper_bound_vector_norm(self.offsets))
        # Squares that underflow cost 1e-154 a coordinate; those that overflow hide a cone, which may be the lowest.
        # A soft maximum passes errors on as they are. Its own: two roundings of each exponent, which moves the sum by
        # at most their size times their weight, k roundings of the sum, and 8 ulp of exp, of log and of T.
        offset = each * (4 * size + 64 * temperature * (24 + math.log(count)) + 1e-130) if size < 1e130 else math.inf
        rounding = Rounding(dim + count + 64, 4 * each, offset)
        return Claim(1.0, "soft minimum and maximum of cones", Norm.euclidean(dim), Norm((1,) * heads), rounding)

    def constraints(self) -> Iterator[Constraint]:
        yield Box(self.coldness, 0.0, _COLDEST / self.cooling)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(5, 9), (5,)
        yield cls(5, 4, heads=3), (5,)

    def extra_repr(self) -> str:
        return f"dim={self.centers.shape[1]}, centers={len(self.centers)}, heads={len(self.offsets)}"


def _check_states(x: Tensor, centers: Tensor) -> None:
    """Refuses states of another rank, whose distances would be taken along another axis."""
    if x.ndim != 2 or x.shape[1] != centers.shape[1]:
        raise InputError(f"States must have shape (b, {centers.shape[1]}), not {tuple(x.shape)}. Flatten each sample.")


def _coldness(dim: int) -> float:
    """The logarithm of unit/T at the start; 0, the warmest, in very many dimensions."""
    return max(0.0, math.log(_STRIDE / (_WARMTH * math.sqrt(dim))))


def _rows(rows: Tensor, count: int) -> Tensor:
    """`count` random rows; if there are fewer, some repeat, with a small shift relative to their spread."""
    chosen = rows[torch.randperm(len(rows), device=rows.device)[:count]]
    if len(chosen) == count:
        return chosen
    again = rows[torch.randint(len(rows), (count - len(chosen),), device=rows.device)]
    return torch.cat((chosen, again + 0.1 * rows.std(dim=0, correction=0) * torch.randn_like(again)))


def _tips(rows: Tensor, count: int) -> Tensor:
    """`count` tips among the rows: means of clusters, or, if there are fewer rows, as :func:`_rows`."""
    return k_means(rows, count) if 0 < count < len(rows) else _rows(rows, count)


def _nearest_other(points: Tensor) -> Tensor:
    """The distance of each point to the nearest other one, shape (k,); 0 if there is no other."""
    return torch.cdist(points, points).fill_diagonal_(math.inf).amin(dim=1).nan_to_num(posinf=0.0)


def _cones(z: Tensor, centers: Tensor, offsets: Tensor, temperature: Tensor, rising: int) -> Tensor:
    """The formula of :class:`Cones`, distances by differences: (b, heads)."""
    distance = torch.cdist(z, centers, compute_mode="donot_use_mm_for_euclid_dist")  # (b, k)
    cones = distance[:, None] + offsets  # (b, heads, k)
    groups = []
    if rising:
        groups.append(-_soft_maximum(-cones[..., :rising], temperature))
    if rising < len(centers):
        groups.append(_soft_maximum(-cones[..., rising:], temperature))
    return -_soft_maximum(-torch.stack(groups, dim=-1), temperature)


def _soft_maximum(values: Tensor, temperature: Tensor) -> Tensor:
    """T log Σ exp(v_j/T) over the last axis."""
    largest = values.detach().amax(dim=-1, keepdim=True)
    return largest[..., 0] + temperature * ((values - largest) / temperature).exp().sum(dim=-1).log()


class _FastCones(torch.autograd.Function):
    """:func:`_cones` in single precision; see Note [Distances] of :class:`Cones`. Not differentiable twice."""

    @staticmethod
    def forward(z: Tensor, centers: Tensor, offsets: Tensor, temperature: Tensor, rising: int) -> tuple[Tensor, ...]:
        middle = centers.mean(dim=0)
        near, squares = z - middle, (z - middle).square().sum(dim=1, keepdim=True)
        saved, values, entropies = [], [], []
        for sign, group in _groups(rising, len(centers)):
            c, b = centers[group] - middle, offsets[:, group]
            sizes = squares + c.square().sum(dim=1)
            # What cancels is noise below eps times the squares; a floor there keeps the slopes at 1.
            floor = torch.finfo(z.dtype).eps * sizes.amax(dim=1, keepdim=True)  # of each sample, whatever the batch
            distance = sizes.addmm_(near, c.T, alpha=-2).clamp_(min=floor).sqrt_()  # (b, k)
            nearest = distance.argmin(dim=1, keepdim=True)
            exact = torch.linalg.vector_norm(near - c[nearest[:, 0]], dim=1, keepdim=True)
            v = -b - distance.scatter_(1, nearest, exact)[:, None]  # (b, heads, k)
            share = torch.softmax(v / temperature, dim=2)
            largest, index = share.max(dim=2, keepdim=True)
            top = v.gather(2, index)
            surplus = -temperature * largest.log()  # of the soft over the hard maximum
            mean = torch.linalg.vecdot(share, v)[..., None]
            saved += [distance.scatter_(1, nearest, exact.where(exact > 0, torch.inf)), share]
            values.append(sign * (top + surplus))
            entropies.append(sign * (top + surplus - mean) / temperature)
        both, entropy = torch.cat(values, dim=2), torch.cat(entropies, dim=2)  # (b, heads, groups)
        share = torch.softmax(-both / temperature, dim=2)
        value = both.amin(dim=2) + temperature * share.amax(dim=2).log()
        mean = (share * both).sum(dim=2)
        by_temperature = (share * entropy).sum(dim=2) + (value - mean) / temperature
        return value, share, by_temperature, *saved

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        z, centers, _, _, ctx.rising = inputs
        ctx.save_for_backward(z, centers, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        z, centers, of_groups, by_temperature, *saved = (tensor.detach() for tensor in ctx.saved_tensors)
        steepness, middle = gradient.detach(), centers.mean(dim=0)
        near, at_z, at_centers, at_offsets = z - middle, torch.zeros_like(z), [], []
        for index, (sign, group) in enumerate(_groups(ctx.rising, len(centers))):
            c, distance, share = centers[group] - middle, saved[2 * index], saved[2 * index + 1]
            steep = share * (-sign * steepness * of_groups[..., index])[..., None]  # ∂/∂ρ, (b, heads, k)
            at_offsets.append(steep.sum(dim=0))
            slopes = steep.sum(dim=1).div_(distance)  # (b, k)
            at_z += slopes.sum(dim=1, keepdim=True) * near - slopes @ c
            at_centers.append(slopes.sum(dim=0)[:, None] * c - slopes.T @ near)
        found = at_z, torch.cat(at_centers), torch.cat(at_offsets, dim=1), (steepness * by_temperature).sum()
        return *_Once.apply(gradient, *ctx.saved_tensors[:2], *found), None


class _Once(torch.autograd.Function):
    """Passes gradients on, and refuses to be differentiated. A `once_differentiable` lets second derivatives pass
    where only z depends on what is differentiated, as in a gradient penalty, with these slopes as constants."""

    @staticmethod
    def forward(
        gradient: Tensor, z: Tensor, centers: Tensor, at_z: Tensor, at_centers: Tensor, at_offsets: Tensor,
        at_temperature: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        return tuple(found.view_as(found) for found in (at_z, at_centers, at_offsets, at_temperature))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, ...]:
        raise RuntimeError("Cones has no second derivatives, so it can't be trained with a gradient penalty.")


def _fast_cones(*arguments: Tensor | int) -> Tensor:
    return _FastCones.apply(*arguments)[0]


def _groups(rising: int, count: int) -> list[tuple[float, slice]]:
    """The sign of f over the soft maximum of −ρ, and the cones, of each group that is not empty."""
    groups = (-1.0, slice(0, rising)), (1.0, slice(rising, count))
    return [(sign, group) for sign, group in groups if group.stop > group.start]
