"""All oracles by name, and oracles built from others."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from wgan_lip.data.oracles.base import Oracle
from wgan_lip.data.oracles.cones import Dilation, Funnel, MixtureDilation, RayMonotone, Simplex
from wgan_lip.data.oracles.directions import Lift, Marginal, Radial, Shift
from wgan_lip.data.oracles.projections import Ball, Dirac, Grid, Subspace
from wgan_lip.data.sources import check_positive
from wgan_lip.utils.checks import InputError, check_choice, check_samples

__all__ = ["ORACLES", "Contamination", "Moved"]


@dataclass(frozen=True, kw_only=True)
class Contamination(Oracle):
    r"""P of another oracle, against a mixture of its P and Q: :math:`W_1(P, (1 - \varepsilon) P + \varepsilon Q)
    = \varepsilon W_1(P, Q)`, with the same potential.

    Arguments:
        dim: The dimension d.
        fraction: ε, above 0 and at most 1.
        base: Name of the other oracle, in its default form.
    """

    name = "contamination"
    fraction: float = 0.2
    base: str = "dilation"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.fraction <= 1:
            raise InputError(f"fraction must be above 0 and at most 1, not {self.fraction}.")
        check_choice(self.base, [name for name in ORACLES if name != self.name], "base")

    @cached_property
    def _oracle(self) -> Oracle:
        return ORACLES[self.base](dim=self.dim)

    @property
    def w1(self) -> float:
        return self.fraction * self._oracle.w1

    @property
    def w1_error(self) -> float:
        return self.fraction * self._oracle.w1_error

    def _pair(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = self._oracle._pair(n, rng)
        return x, torch.where(torch.rand(n, 1, generator=rng, dtype=torch.float64) < self.fraction, y, x)

    def _evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._oracle._evaluate(x)


@dataclass(frozen=True, eq=False)
class Moved(Oracle):
    r"""Another oracle under :math:`z \mapsto s V z + t`, where V has orthonormal columns; W1 becomes s W1.

    A square V rotates, `torch.eye(D, d)` pads with D − d zeros.

    .. math:: x \mapsto s f(V^\top (x - t) / s)

    Arguments:
        oracle: The other oracle, of dimension d.
        isometry: V, shape (D, d); the identity by default.
        shift: t, shape (D,); zero by default.
        scale: s > 0.

    Raises:
        InputError: Unusable shapes or numbers; columns of V that are not orthonormal to 1e-12.

    Example:
        >>> Moved(Shift(length=2.0), isometry=torch.eye(5, 2), scale=3.0).w1
        6.0
    """

    name = "moved"
    oracle: Oracle
    isometry: Tensor | None = None
    shift: Tensor | None = None
    scale: float = 1.0
    dim: int = field(init=False)

    def __post_init__(self) -> None:
        check_positive(scale=self.scale)
        object.__setattr__(self, "dim", len(self._affine[0]))

    @cached_property
    def _affine(self) -> tuple[Tensor, Tensor]:
        """V and t, checked, in float64."""
        d = self.oracle.dim
        isometry = torch.eye(d) if self.isometry is None else self.isometry
        isometry = check_samples(isometry, "isometry").detach().to("cpu", torch.float64)
        if isometry.shape[1] != d:
            raise InputError(f"isometry must have shape (D, {d}), not {tuple(isometry.shape)}.")
        defect = float((isometry.T @ isometry - torch.eye(d)).abs().max())
        if defect > 1e-12:
            raise InputError(
                f"The columns of isometry must be orthonormal, but VᵀV differs from the identity by {defect:.1e}. "
                "Use the Q of torch.linalg.qr, in float64."
            )
        shift = isometry.new_zeros(len(isometry)) if self.shift is None else torch.as_tensor(self.shift)
        shift = check_samples(shift[None], "shift")[0].detach().to("cpu", torch.float64)
        if shift.shape != isometry.shape[:1]:
            raise InputError(f"shift must have shape ({len(isometry)},), not {tuple(shift.shape)}.")
        return isometry, shift

    @property
    def w1(self) -> float:
        return self.scale * self.oracle.w1

    @property
    def w1_error(self) -> float:
        return self.scale * self.oracle.w1_error

    def _pair(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        (x, y), (isometry, shift) = self.oracle._pair(n, rng), self._affine
        return self.scale * x @ isometry.T + shift, self.scale * y @ isometry.T + shift

    def _evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        isometry, shift = self._affine
        values, gradient = self.oracle._evaluate((x - shift) @ isometry / self.scale)
        return self.scale * values, gradient @ isometry.T


ORACLES: dict[str, type[Oracle]] = {
    oracle.name: oracle
    for oracle in (
        Shift,
        Lift,
        Marginal,
        Radial,
        Dirac,
        Ball,
        Subspace,
        Grid,
        Dilation,
        MixtureDilation,
        Simplex,
        Funnel,
        RayMonotone,
        Contamination,
    )
}
