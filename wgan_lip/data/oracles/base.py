"""The base of oracles: optimal pairs of two laws, their W1, and their potential with its gradient."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, ClassVar

import torch
from scipy.special import poch
from torch import Tensor

from wgan_lip.data.sources import check_positive
from wgan_lip.data.toy import ToySource
from wgan_lip.utils.checks import InputError, check_samples

__all__ = ["Oracle", "OracleSource", "integer", "mean_norm", "positive", "unit"]


def _check_integer(minimum: int, **values: int) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise InputError(f"{name} must be a whole number of at least {minimum}, not {value!r}.")


def _checked(default: float, check: Callable[..., None]) -> Any:
    """A field of an oracle; `check`, called with its name and value, raises if the value is unusable."""
    return field(default=default, metadata={"check": check})


def integer(default: int, minimum: int = 1) -> Any:
    """A field that holds a whole number of at least `minimum`."""
    return _checked(default, partial(_check_integer, minimum))


def positive(default: float, *, or_zero: bool = False) -> Any:
    """A field that holds a positive finite number."""
    return _checked(default, partial(check_positive, or_zero=or_zero))


@dataclass(frozen=True, kw_only=True)
class Oracle(ABC):
    r"""Two laws P and Q with known :math:`W_1(P, Q)` and potential; see Note [Exact pairs].

    All tensors are float64 and on the CPU. Random parameters are fixed by the oracle's `seed`.

    Arguments:
        dim: The dimension d.

    Attributes:
        name: Its name among :data:`ORACLES`.

    Raises:
        InputError: A parameter out of its range.

    References:
        Optimal Transport, Old and New (Villani, 2009), Theorem 5.10
    """

    name: ClassVar[str]
    dim: int = integer(2)

    def __post_init__(self) -> None:
        for parameter in fields(self):
            if "check" in parameter.metadata:
                parameter.metadata["check"](**{parameter.name: getattr(self, parameter.name)})

    @property
    @abstractmethod
    def w1(self) -> float:
        """W1(P, Q): up to rounding if `w1_error` is 0, else an estimate with that standard error."""

    @property
    def w1_error(self) -> float:
        """The standard error of `w1`."""
        return 0.0

    def pair(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws n independent optimal pairs: x from P and y from Q, shapes (n, d), with a CPU generator.

        Guarantee:
            The W1 of the two empirical measures is the mean of ‖x_i − y_i‖, up to rounding.
        """
        _check_integer(1, n=n)
        return self._pair(n, rng)

    def sample(self, n: int, m: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws n samples of P and m samples of Q, all independent, shapes (n, d) and (m, d)."""
        return self.pair(n, rng)[0], self.pair(m, rng)[1]

    def potential(self, x: Tensor) -> Tensor:
        """The maximiser f of E_P f − E_Q f among the 1-Lipschitz functions, at x, shape (n, d): values, shape (n,)."""
        return self._evaluate(self._points(x))[0]

    def gradient(self, x: Tensor) -> Tensor:
        """The gradient of f in closed form, shape (n, d): of norm 1, or 0 where f is constant; at a kink of f, 0 or the
        gradient of one of its pieces."""
        return self._evaluate(self._points(x))[1]

    def sources(self, test_size: int = 2000, seed: int = 0) -> tuple[OracleSource, OracleSource]:
        """P and Q as sample sources, with independent held-out samples; see :class:`OracleSource`."""
        return OracleSource(self, 0, test_size, 2 * seed), OracleSource(self, 1, test_size, 2 * seed + 1)

    @abstractmethod
    def _pair(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f and its gradient, shapes (n,) and (n, d)."""

    def _points(self, x: Tensor) -> Tensor:
        x = check_samples(x, "x").to("cpu", torch.float64)
        if x.shape[1] != self.dim:
            raise InputError(f"x must have shape (n, {self.dim}), as the oracle's points do, not {tuple(x.shape)}.")
        return x

    def _normal(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.randn(n, self.dim, generator=rng, dtype=torch.float64)


class OracleSource(ToySource):
    """One of the two laws of an oracle as a sample source, in float32.

    Arguments:
        oracle: The oracle.
        side: 0 for P, 1 for Q.
        test_size: The number m of held-out samples.
        seed: Fixes the held-out samples. With equal seeds, the held-out samples of both sides are coupled pairs.

    Raises:
        InputError: A `test_size` that is not positive.
    """

    name = "oracle"

    def __init__(self, oracle: Oracle, side: int, test_size: int = 2000, seed: int = 0) -> None:
        self.oracle, self.side, self.dim = oracle, side, oracle.dim
        super().__init__(test_size, seed)

    def _draw(self, n: int, rng: torch.Generator) -> Tensor:
        return self.oracle.pair(n, rng)[self.side].float()


def mean_norm(dim: int) -> float:
    """E‖N(0, I)‖ in `dim` dimensions: √2 Γ((d + 1)/2) / Γ(d/2)."""
    return math.sqrt(2) * float(poch(dim / 2, 0.5))


def unit(v: Tensor) -> Tensor:
    """The rows of v, shape (n, d), over their norms; 0 stays 0, and rows whose squares underflow stay small."""
    return torch.nn.functional.normalize(v, dim=1, eps=1e-150)
