"""Oracles that move mass along a fixed direction, or along the radius."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import gammainc, gammaincinv
from torch import Tensor

from wgan_lip.data.oracles.base import Oracle, mean_norm, positive, unit
from wgan_lip.utils.checks import InputError

__all__ = ["Lift", "Marginal", "Radial", "Shift"]


@dataclass(frozen=True, kw_only=True)
class _Lifted(Oracle):
    r""":math:`y = x + h(x) e` with :math:`h \geq 0`, x ~ N(0, I), :math:`e = (1, \dots, 1) / \sqrt{d}`;
    :math:`f(x) = -\langle x, e \rangle`."""

    length: float = positive(1.0)

    @property
    def w1(self) -> float:
        return self.length

    def _pair(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x = self._normal(n, rng)
        return x, x + self._heights(x)[:, None] / math.sqrt(self.dim)

    def _evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return -x.sum(1) / math.sqrt(self.dim), torch.full_like(x, -1 / math.sqrt(self.dim))

    @abstractmethod
    def _heights(self, x: Tensor) -> Tensor: ...


class Shift(_Lifted):
    r"""P = N(0, I) and Q = N(t, I) with :math:`t = \ell e`; :math:`W_1 = \ell`.

    Arguments:
        dim: The dimension d.
        length: The length :math:`\ell` of the shift, along :math:`e = (1, \dots, 1) / \sqrt{d}`.
    """

    name = "shift"

    def _heights(self, x: Tensor) -> Tensor:
        return torch.full((len(x),), self.length, dtype=x.dtype)


class Lift(_Lifted):
    r"""P = N(0, I), bent into Q: :math:`y = x + \ell \tfrac{\|x\|^2}{d} e`; :math:`W_1 = \ell`.

    Arguments:
        dim: The dimension d.
        length: The mean :math:`\ell` of the heights, along :math:`e = (1, \dots, 1) / \sqrt{d}`.
    """

    name = "lift"

    def _heights(self, x: Tensor) -> Tensor:
        return self.length * x.square().mean(1)


@dataclass(frozen=True, kw_only=True)
class Marginal(Oracle):
    r"""Only the first coordinate changes, from N(0, 1) to N(m, s²); the others are N(0, I) on both sides.

    .. math:: f(x) = \pm |x_1 - t|, \qquad t = \tfrac{m}{1 - s}, \qquad
        W_1 = \sigma \sqrt{\tfrac{2}{\pi}} e^{-m^2 / 2 \sigma^2} + m \, \mathrm{erf} \tfrac{m}{\sigma \sqrt{2}},
        \qquad \sigma = |1 - s|

    with + where s < 1. The distribution functions cross at t.

    Arguments:
        dim: The dimension d.
        mean: m.
        std: s, not 1, for which the change is a shift.
    """

    name = "marginal"
    mean: float = 1.0
    std: float = positive(0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.mean):
            raise InputError(f"mean must be finite, not {self.mean}.")
        if self.std == 1:
            raise InputError("std must differ from 1, for which this is a shift. Use Shift(length=mean).")

    @property
    def w1(self) -> float:
        sigma = abs(1 - self.std)
        spread = sigma * math.sqrt(2 / math.pi) * math.exp(-0.5 * (self.mean / sigma) ** 2)
        return spread + self.mean * math.erf(self.mean / (sigma * math.sqrt(2)))

    def _pair(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x = self._normal(n, rng)
        return x, torch.cat([self.mean + self.std * x[:, :1], x[:, 1:]], dim=1)

    def _evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sign = math.copysign(1.0, 1 - self.std)
        beyond = x[:, :1] - self.mean / (1 - self.std)
        return sign * beyond[:, 0].abs(), torch.cat([sign * beyond.sign(), torch.zeros_like(x[:, 1:])], dim=1)


@dataclass(frozen=True, kw_only=True)
class Radial(Oracle):
    r"""P uniform on a ball around 0, Q = N(0, I): both isotropic, so only the radius moves.

    .. math:: f(x) = -\big| \|x\| - r \big|, \qquad W_1 = E\|y\| - E\|x\| + 2 \int_0^r (G - F)

    F and G are the distribution functions of the two radii; they cross once, at r, or never, in which case r = 0.

    Arguments:
        dim: The dimension d.
        std: The standard deviation of a coordinate under P. The ball has the radius :math:`\sqrt{d + 2}` times that.
    """

    name = "radial"
    std: float = positive(1.0)

    @property
    def _radius(self) -> float:
        return self.std * math.sqrt(self.dim + 2)

    @cached_property
    def _crossing(self) -> float:
        # G(s) / sᵈ falls as s grows, so T(s) − s changes its sign at most once. Below the start, G has negligible mass
        # and would underflow.
        start = math.sqrt(2 * gammaincinv(self.dim / 2, 1e-100))
        if start >= self._radius or self._rearranged(start) <= start:
            return 0.0
        return brentq(lambda s: self._rearranged(s) - s, start, self._radius, xtol=1e-15, rtol=1e-15)

    @property
    def w1(self) -> float:
        d, r, mean = self.dim, self._crossing, mean_norm(self.dim)
        below = r * gammainc(d / 2, r**2 / 2) - mean * gammainc((d + 1) / 2, r**2 / 2)  # ∫ G up to r
        below -= r / (d + 1) * (r / self._radius) ** d  # ∫ F up to r
        return float(mean - self._radius * d / (d + 1) + 2 * below)

    def _rearranged(self, radius: float | np.ndarray) -> float | np.ndarray:
        """T = F⁻¹ ∘ G: the radius under P of the same quantile as `radius` under Q."""
        return self._radius * gammainc(self.dim / 2, radius**2 / 2) ** (1 / self.dim)

    def _pair(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        y = self._normal(n, rng)
        radius = torch.linalg.vector_norm(y, dim=1)
        return torch.from_numpy(self._rearranged(radius.numpy()))[:, None] * unit(y), y

    def _evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        short = self._crossing - torch.linalg.vector_norm(x, dim=1)
        return -short.abs(), short.sign()[:, None] * unit(x)
