"""Oracles that move every point to the nearest point of a closed set."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.integrate import quad
from scipy.special import gammaincc, hyp1f1
from torch import Tensor

from wgan_lip.data.oracles.base import Oracle, integer, mean_norm, positive, unit
from wgan_lip.utils.checks import InputError

__all__ = ["Ball", "Dirac", "Grid", "Subspace"]


class _Projection(Oracle):
    r""":math:`y = \pi(x)`, the nearest point of a closed set C; :math:`f(x) = \mathrm{dist}(x, C)`,
    :math:`W_1 = E f(x)`."""

    def _draw(self, n: int, rng: torch.Generator) -> Tensor:
        return self._normal(n, rng)

    def _pair(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x = self._draw(n, rng)
        return x, self._nearest(x)

    def _evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        ray = x - self._nearest(x)
        return torch.linalg.vector_norm(ray, dim=1), unit(ray)

    @abstractmethod
    def _nearest(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Dirac(_Projection):
    r"""P = N(0, I) and Q an atom a.

    .. math:: f(x) = \|x - a\|, \qquad
        W_1 = \sqrt{2} \, \frac{\Gamma(\frac{d + 1}{2})}{\Gamma(\frac{d}{2})} \,
        {}_1F_1 \left( -\tfrac{1}{2}; \tfrac{d}{2}; -\tfrac{\|a\|^2}{2} \right)

    Arguments:
        dim: The dimension d.
        distance: The norm of :math:`a = \|a\| (1, \dots, 1) / \sqrt{d}`.
    """

    name = "dirac"
    distance: float = positive(1.0, or_zero=True)

    @property
    def w1(self) -> float:
        return mean_norm(self.dim) * float(hyp1f1(-0.5, self.dim / 2, -(self.distance**2) / 2))

    def _nearest(self, x: Tensor) -> Tensor:
        return torch.full_like(x, self.distance / math.sqrt(self.dim))


@dataclass(frozen=True, kw_only=True)
class Ball(_Projection):
    r"""P = N(0, I) and Q its nearest points in the ball :math:`\|y\| \leq r`.

    .. math:: f(x) = (\|x\| - r)_+, \qquad W_1 = E (\|x\| - r)_+

    Arguments:
        dim: The dimension d.
        radius: r.
    """

    name = "ball"
    radius: float = positive(1.0)

    @property
    def w1(self) -> float:
        d, half = self.dim, self.radius**2 / 2
        return float(mean_norm(d) * gammaincc((d + 1) / 2, half) - self.radius * gammaincc(d / 2, half))

    def _nearest(self, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return torch.where(norm > self.radius, self.radius * unit(x), x)


@dataclass(frozen=True, kw_only=True)
class Subspace(_Projection):
    r"""P = N(0, I) and Q its orthogonal projection on a subspace: the first c coordinates become 0.

    .. math:: f(x) = \|(x_1, \dots, x_c)\|, \qquad
        W_1 = \sqrt{2} \, \Gamma(\tfrac{c + 1}{2}) / \Gamma(\tfrac{c}{2})

    Arguments:
        dim: The dimension d.
        codimension: c ≤ d.
    """

    name = "subspace"
    codimension: int = integer(1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codimension > self.dim:
            raise InputError(f"codimension must be at most dim = {self.dim}, not {self.codimension}.")

    @property
    def w1(self) -> float:
        return mean_norm(self.codimension)

    def _nearest(self, x: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x[:, : self.codimension]), x[:, self.codimension :]], dim=1)


@dataclass(frozen=True, kw_only=True)
class Grid(_Projection):
    r"""P uniform on :math:`[0, 1]^d`, Q uniform on the centres of its :math:`k^d` cells.

    .. math:: f(x) = \mathrm{dist}(x, \text{centres}), \qquad W_1 = \tfrac{1}{k} E\|U\|, \qquad
        E\|U\| = \tfrac{1}{\sqrt{\pi}} \int_0^\infty \left( 1 - \phi(s)^d \right) \frac{ds}{s^2}, \qquad
        \phi(s) = E e^{-s^2 U_1^2}

    with U uniform on :math:`[-\tfrac{1}{2}, \tfrac{1}{2}]^d`. In the plane
    :math:`W_1 = (\sqrt{2} + \sinh^{-1} 1) / 6k`.

    Arguments:
        dim: The dimension d.
        cells: The number k of cells along a side.
    """

    name = "grid"
    cells: int = integer(4)

    @cached_property
    def w1(self) -> float:
        d, end = self.dim, 20.0
        nodes, weights = np.polynomial.legendre.leggauss(64)
        nodes, weights = (nodes + 1) / 4, weights / 2  # the mean over [0, 1/2]

        def integrand(s: float) -> float:
            gap = -weights @ np.expm1(-((s * nodes) ** 2))  # 1 − φ(s), without cancellation
            return -math.expm1(d * math.log1p(-gap)) / s**2

        body, _ = quad(integrand, 0, end, epsabs=0, epsrel=1e-13, limit=200)
        tail = 1 / end - math.pi ** (d / 2) * end ** (-d - 1) / (d + 1)  # φ(s) = √π / s, for erf(10) rounds to 1
        return (body + tail) / math.sqrt(math.pi) / self.cells

    def _draw(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.rand(n, self.dim, generator=rng, dtype=torch.float64)

    def _nearest(self, x: Tensor) -> Tensor:
        return ((self.cells * x).floor().clamp(0, self.cells - 1) + 0.5) / self.cells
