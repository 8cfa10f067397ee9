"""Oracles that move mass towards, or away from, the apexes of cones."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from wgan_lip.data.oracles.base import Oracle, integer, mean_norm, positive, unit
from wgan_lip.data.sources import REFERENCE, check_positive, derived_generator
from wgan_lip.utils.checks import InputError

__all__ = ["Dilation", "Funnel", "MixtureDilation", "RayMonotone", "Simplex"]

_PARAMETERS = 2  # the purpose of the stream that random parameters come from, beside TEST and REFERENCE
_BLOCK = 2**20  # entries of one block of intermediate results: 8 MiB


class _Cones(Oracle):
    r""":math:`f(x) = \varsigma u(x)`, :math:`u(x) = \min_k (\|x - a_k\| + b_k)`, with a sign :math:`\varsigma`.

    The cells, in which one cone is lowest, are star-shaped around its apex: moving towards it never leaves the cell.
    """

    @property
    def _sign(self) -> float:
        return 1.0

    @property
    @abstractmethod
    def centres(self) -> Tensor:
        """The apexes, shape (k, d)."""

    @property
    def biases(self) -> Tensor:
        """The heights of the apexes, shape (k,)."""
        return self.centres.new_zeros(len(self.centres))

    def _distances(self, x: Tensor) -> Tensor:
        """The norms ‖x − a_k‖, shape (n, k), by differences."""
        return torch.cdist(x, self.centres.to(x), compute_mode="donot_use_mm_for_euclid_dist")

    def _blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Rows of x, few enough that matrices of shape (rows, k) and (rows, d) stay small."""
        return x.split(max(1, _BLOCK // max(len(self.centres), self.dim)))

    def _lowest(self, x: Tensor) -> Tensor:
        """The index of the lowest cone at x, shape (n,)."""
        with torch.no_grad():
            return torch.cat([(self._distances(block) + self.biases).argmin(dim=1) for block in self._blocks(x)])

    def _evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        k = self._lowest(x)
        ray = x - self.centres[k]
        return self._sign * (torch.linalg.vector_norm(ray, dim=1) + self.biases[k]), self._sign * unit(ray)


@dataclass(frozen=True, kw_only=True)
class Dilation(_Cones):
    r"""P = N(0, I) and Q = N(0, s² I).

    .. math:: f(x) = \pm \|x\|, \qquad W_1 = |1 - s| \sqrt{2} \, \Gamma(\tfrac{d + 1}{2}) / \Gamma(\tfrac{d}{2})

    with + where s ≤ 1.

    Arguments:
        dim: The dimension d.
        factor: s, which may be 0.
    """

    name = "dilation"
    factor: float = positive(0.5, or_zero=True)

    @property
    def w1(self) -> float:
        return abs(1 - self.factor) * mean_norm(self.dim)

    @property
    def _sign(self) -> float:
        return math.copysign(1.0, 1 - self.factor)

    @property
    def centres(self) -> Tensor:
        return torch.zeros(1, self.dim, dtype=torch.float64)

    def _pair(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x = self._normal(n, rng)
        return x, self.factor * x


@dataclass(frozen=True, kw_only=True)
class MixtureDilation(_Cones):
    r"""P uniform on k equal disjoint balls with equal weights; Q shrinks each ball by a separate factor.

    .. math:: f(x) = \min_k \|x - c_k\|, \qquad W_1 = \tfrac{1}{k} \sum_k (1 - s_k) \, \tfrac{d}{d + 1} \, r

    Arguments:
        dim: The dimension d.
        components: The number k of balls, at least 2. Their radius r is half the least distance between two centres.
        seed: Fixes the centres, drawn from N(0, 4 I), and the factors, drawn from [0, 1].
    """

    name = "mixture_dilation"
    components: int = integer(4, minimum=2)
    seed: int = integer(0, minimum=0)

    @cached_property
    def _parameters(self) -> tuple[Tensor, Tensor]:
        rng = derived_generator(self.seed, _PARAMETERS)
        centres = 2 * self._normal(self.components, rng)
        return centres, torch.rand(self.components, generator=rng, dtype=torch.float64)

    @property
    def centres(self) -> Tensor:
        return self._parameters[0]

    @property
    def factors(self) -> Tensor:
        """The :math:`s_k`, shape (k,)."""
        return self._parameters[1]

    @cached_property
    def radius(self) -> float:
        """The radius r of the balls."""
        return float(torch.pdist(self.centres).min()) / 2

    @property
    def w1(self) -> float:
        return float((1 - self.factors).mean()) * self.dim / (self.dim + 1) * self.radius

    def _pair(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        k = torch.randint(self.components, (n,), generator=rng)
        quantile = torch.rand(n, 1, generator=rng, dtype=torch.float64)
        z = self.radius * quantile ** (1 / self.dim) * unit(self._normal(n, rng))
        return self.centres[k] + z, self.centres[k] + self.factors[k, None] * z


@dataclass(frozen=True, kw_only=True)
class Simplex(_Cones):
    r"""Two random weightings p, q of the d + 1 corners of a regular simplex: a discrete pair.

    .. math:: f(x) = \min_i \left( \|x - z_i\| + \tfrac{\Delta}{2} \mathrm{sign}(p_i - q_i) \right), \qquad
        W_1 = \tfrac{\Delta}{2} \sum_i |p_i - q_i|

    f is McShane's extension of its values at the corners. Samples are independent draws of corners: frequencies vary
    from draw to draw, as in any sample.

    Arguments:
        dim: The dimension d.
        spacing: The distance Δ between any two corners.
        seed: Fixes the weights, both uniform among all weightings.

    References:
        Extension of range of functions (McShane, 1934)
    """

    name = "simplex"
    spacing: float = positive(1.0)
    seed: int = integer(0, minimum=0)

    @cached_property
    def centres(self) -> Tensor:
        corners = torch.eye(self.dim + 1, self.dim, dtype=torch.float64)
        corners[-1] = (1 + math.sqrt(self.dim + 1)) / self.dim
        return self.spacing / math.sqrt(2) * corners

    @cached_property
    def weights(self) -> Tensor:
        """p and q, shape (2, d + 1)."""
        weights = torch.empty(2, self.dim + 1, dtype=torch.float64)
        weights.exponential_(generator=derived_generator(self.seed, _PARAMETERS))
        return weights / weights.sum(1, keepdim=True)

    @property
    def _surplus(self) -> Tensor:
        return self.weights[0] - self.weights[1]

    @property
    def biases(self) -> Tensor:
        return self.spacing / 2 * self._surplus.sign()

    @property
    def w1(self) -> float:
        return self.spacing / 2 * float(self._surplus.abs().sum())

    def _pair(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        p, q = self.weights
        start = torch.multinomial(p, n, replacement=True, generator=rng)
        lacking = torch.multinomial((-self._surplus).clamp(min=0), n, replacement=True, generator=rng)
        stays = torch.rand(n, generator=rng, dtype=torch.float64) < (q / p)[start]  # the mass that p and q share
        return self.centres[start], self.centres[torch.where(stays, start, lacking)]


@dataclass(frozen=True, kw_only=True)
class Funnel(_Cones):
    r"""P is Q moved towards the apexes of random cones: :math:`x = a_k + \lambda (y - a_k)`, cone k lowest at y.

    .. math:: f = -u, \qquad u(x) = \min_k (\|x - a_k\| + b_k), \qquad W_1 = E\|x - y\|

    Here Q = N(0, I) and λ is uniform on [0, 1] and independent.

    Arguments:
        dim: The dimension d.
        funnels: The number of cones.
        seed: Fixes the apexes, drawn from N(0, I), and the biases, from N(0, 0.01), and the draws behind `w1`.
        draws: `w1` is the mean length of so many pairs, computed on first use, and `w1_error` its standard error.
    """

    name = "funnel"
    funnels: int = integer(4)
    seed: int = integer(0, minimum=0)
    draws: int = integer(1_000_000, minimum=2)
    _sign = -1.0

    @cached_property
    def _parameters(self) -> tuple[Tensor, Tensor]:
        rng = derived_generator(self.seed, _PARAMETERS)
        centres = self._draw_apexes(rng)
        return centres, 0.1 * torch.randn(self.funnels, generator=rng, dtype=torch.float64)

    @property
    def centres(self) -> Tensor:
        return self._parameters[0]

    @property
    def biases(self) -> Tensor:
        return self._parameters[1]

    @cached_property
    def _lengths(self) -> tuple[float, float]:
        """The mean of ‖x − y‖ and its standard error."""
        rng, step = derived_generator(self.seed, REFERENCE), max(1, _BLOCK // self.dim)
        sizes = [min(step, self.draws - start) for start in range(0, self.draws, step)]
        pairs = (self._pair(size, rng) for size in sizes)
        lengths = torch.cat([torch.linalg.vector_norm(x - y, dim=1) for x, y in pairs])
        return float(lengths.mean()), float(lengths.std()) / math.sqrt(self.draws)

    @property
    def w1(self) -> float:
        return self._lengths[0]

    @property
    def w1_error(self) -> float:
        return self._lengths[1]

    def sample(self, n: int, m: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x, _ = self.pair(n, rng)
        return x, self._draw(m, rng)  # without moving what is not used

    def _pair(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        y = self._draw(n, rng)
        return self.moved(y, rng), y

    def _draw(self, n: int, rng: torch.Generator) -> Tensor:
        """Samples of Q."""
        return self._normal(n, rng)

    def _draw_apexes(self, rng: torch.Generator) -> Tensor:
        """The apexes, by default drawn as samples of Q."""
        return self._draw(self.funnels, rng)

    def moved(self, y: Tensor, rng: torch.Generator) -> Tensor:
        """Moves points y of any law, shape (n, d), so that new and old positions are optimal pairs; in y's dtype."""
        shrink = torch.rand(len(y), 1, generator=rng, dtype=y.dtype)
        apex = self.centres.to(y)[self._lowest(y)]
        return apex + shrink * (y - apex)


@dataclass(frozen=True, kw_only=True)
class RayMonotone(Funnel):
    r"""The published benchmark: Q uniform on a cube, P is Q moved along the rays of random funnels, monotonically.

    The ray from the apex :math:`a_k` through y ends at e, where it leaves the cube or another funnel takes over, and

    .. math:: x = a_k + t^p (e - a_k), \qquad t = \|y - a_k\| / \|e - a_k\|

    so that mass gathers at the apexes. f = −u and :math:`W_1 = E\|x - y\|`, as for :class:`Funnel`.

    Arguments:
        dim: The dimension d.
        funnels: The number of cones; the published ones are 4, 16, 64 and 256.
        seed: Fixes the apexes, uniform on the cube, and the biases, from N(0, 0.01), and the draws behind `w1`.
        draws: The number of pairs behind `w1`.
        power: p ≥ 1.
        half_width: Half the side of the cube.
        apex_half_width: Half the side of the cube that apexes are drawn from; by default the same.

    References:
        Kantorovich Strikes Back! Wasserstein GANs are not Optimal Transport? (Korotin, Kolesov, Burnaev, 2022)

    Example:
        >>> oracle = RayMonotone(dim=3, funnels=16)
        >>> x, y = oracle.pair(100, torch.Generator().manual_seed(0))
        >>> lower = oracle.potential(x).mean() - oracle.potential(y).mean()
        >>> upper = (x - y).norm(dim=1).mean()
        >>> torch.testing.assert_close(lower, upper, rtol=0, atol=1e-14)
    """

    name = "ray_monotone"
    power: float = positive(8.0)
    half_width: float = positive(2.5)
    apex_half_width: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.apex_half_width is not None:
            check_positive(apex_half_width=self.apex_half_width)
        if self.power < 1:
            raise InputError(f"power must be at least 1, to move y towards its apex, not {self.power}.")

    def _draw(self, n: int, rng: torch.Generator) -> Tensor:
        return self._in_cube(n, self.half_width, rng)

    def _draw_apexes(self, rng: torch.Generator) -> Tensor:
        side = self.half_width if self.apex_half_width is None else self.apex_half_width
        return self._in_cube(self.funnels, side, rng)

    def _in_cube(self, n: int, half_width: float, rng: torch.Generator) -> Tensor:
        return half_width * (2 * torch.rand(n, self.dim, generator=rng, dtype=torch.float64) - 1)

    def moved(self, y: Tensor, rng: torch.Generator) -> Tensor:
        """As for :class:`Funnel`, for points of the cube; nothing is drawn."""
        return torch.cat([self._moved_along(block) for block in self._blocks(y)])

    def _moved_along(self, y: Tensor) -> Tensor:
        """x, shape (n, d), from y, shape (n, d), by matrices of shapes (n, k) and (n, d)."""
        centres, biases = self.centres.to(y), self.biases.to(y)
        distances = torch.cdist(y, centres, compute_mode="use_mm_for_euclid_dist")  # (n, k), several times as fast
        k = (distances + biases).argmin(dim=1)
        apex, side = centres[k], y.new_tensor(self.half_width)
        start = torch.linalg.vector_norm(y - apex, dim=1, keepdim=True)  # anew: products lose digits close to an apex
        height = start + biases[k, None]
        v = (y - apex) / start  # (n, d)
        cube = ((torch.copysign(side, v) - y) / v).amin(dim=1, keepdim=True)

        # On the ray u is height + r; funnel j takes over where ‖y + r v − a_j‖ = δ_j + r, for δ_j = height − b_j.
        delta = height - biases  # (n, k)
        ahead = (y * v).sum(dim=1, keepdim=True) - v @ centres.T  # (y − a_j)·v
        r = (distances - delta) * (distances + delta) / (2 * (delta - ahead))
        rivals = (r > 0) & (r > -delta)
        rivals.scatter_(1, k[:, None], False)
        border = r.where(rivals, math.inf).amin(dim=1, keepdim=True)
        whole = start + torch.minimum(cube, border)
        return apex + (start / whole) ** self.power * whole * v
