"""Maps side by side: on blocks of the state, or on the same samples and combined, as by a maximum or a mean."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor, nn

from wgan_lip.lipschitz.bounds import Norm, upper_bound_vector_norm
from wgan_lip.lipschitz.layers.base import (
    VECTORS,
    Claim,
    Kinks,
    LipschitzLayer,
    Rounding,
    Solver,
    Summary,
    renew_chain,
    start_chain,
)
from wgan_lip.lipschitz.layers.constraints import Constraint, UnitRows
from wgan_lip.lipschitz.layers.structure import Identity
from wgan_lip.utils.checks import InputError

__all__ = ["Branches", "Maximum", "Minimum", "Mixture", "Parallel", "WeightedSum"]


class Branches(LipschitzLayer):
    """Maps side by side, each a layer or a chain of them, such as a critic, whose outputs are joined.

    :func:`wgan_lip.certify` proves each of them separately, with all its checks, and :meth:`joint` what follows. So a
    subclass says what each map gets and how outputs are joined, and states the joint constant, the rounding of the
    join, and how far it carries their errors.

    Arguments:
        layers: The maps.
    """

    layers: nn.ModuleList

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        if not layers:
            raise InputError(f"{type(self).__name__} needs at least one map.")
        self.layers = nn.ModuleList(layers)

    def inputs(self, x: Tensor) -> Sequence[Tensor]:
        """The part of x that each map gets: by default a copy of x, as a module may work in place."""
        return [*(x.clone() for _ in self.layers[1:]), x]

    @abstractmethod
    def join(self, values: Sequence[Tensor]) -> Tensor:
        """The output, from those of the maps."""

    @abstractmethod
    def joint(self, claims: Sequence[Claim]) -> Claim:
        """The joint claim, from those of the maps; its rounding is that of :meth:`join` alone, of all values side by
        side. Raises :class:`InputError` for maps that cannot be joined."""

    def carried(self, errors: Tensor) -> Tensor:
        """A bound on the output's error, (b,), if the outputs of the maps have errors `errors`, (k, b)."""
        return errors.amax(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.join([layer(own) for layer, own in zip(self.layers, self.inputs(x))])

    def claim(self) -> Claim:
        from wgan_lip.lipschitz.proofs import claim_of  # which builds on the layers

        return self.joint([claim_of(layer) for layer in self.layers])

    @property
    def reads_distances(self) -> bool:  # type: ignore[override]  # as its maps do
        return any(getattr(part, "reads_distances", False) for layer in self.layers for part in layer.modules())

    def start_at(self, x: Tensor, y: Tensor, *, solver: Solver | None = None, keep_distances: bool = False) -> None:
        """Starts the maps that are chains; a single layer stays as it was built."""
        for layer, own in zip(self.layers, self.inputs(torch.cat((x, y)))):
            if isinstance(layer, nn.Sequential):
                start_chain(layer, own, len(x), solver=solver)

    def renew(self, x: Tensor, y: Tensor) -> int:
        pairs = zip(self.layers, self.inputs(torch.cat((x, y))))
        return sum(renew_chain(layer, own, len(x)) for layer, own in pairs if isinstance(layer, nn.Sequential))


class Parallel(Branches):
    r"""Layers side by side, each on its own blocks of the state; the constant is the largest of theirs.

    .. math:: (x_1, \ldots, x_k) \mapsto (\varphi_1(x_1), \ldots, \varphi_k(x_k))

    Guarantee:
        Constant max_i Lip(φ_i) in the block-max norm that joins the blocks of all parts. Not valid in the Euclidean
        norm of the whole state unless every part is Euclidean; it is not claimed there.
    """

    summary = Summary("layers side by side, each on its blocks", "block-max", "the largest")

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        from wgan_lip.lipschitz.proofs import claim_of

        claims = [layer.claim() if isinstance(layer, LipschitzLayer) else claim_of(layer) for layer in layers]
        self.widths = [self._concrete(claim.norm_in, layer).dim for claim, layer in zip(claims, layers)]

    def inputs(self, x: Tensor) -> Sequence[Tensor]:
        return x.split(self.widths, dim=-1)

    def join(self, values: Sequence[Tensor]) -> Tensor:
        return torch.cat([value[:, None] if value.ndim == 1 else value for value in values], dim=-1)

    def __repr__(self) -> str:
        return f"Parallel({', '.join(map(repr, self.layers))})"

    def joint(self, claims: Sequence[Claim]) -> Claim:
        norms_in = [self._concrete(claim.norm_in, layer) for claim, layer in zip(claims, self.layers)]
        norms_out = [self._concrete(claim.norm_out, layer) for claim, layer in zip(claims, self.layers)]
        widths = [norm.dim for norm in norms_in]
        if widths != self.widths:
            raise InputError(f"The layers now have widths {widths}, not {self.widths}. Build a new Parallel of them.")
        worst = max(claims, key=lambda claim: claim.lipschitz)
        norm_in = Norm(sum((norm.blocks for norm in norms_in), ()))
        norm_out = Norm(sum((norm.blocks for norm in norms_out), ()))
        return Claim(worst.lipschitz, f"largest of {len(claims)} parts: {worst.method}", norm_in, norm_out)

    def kinks(self, width: int) -> Kinks | None:
        known = []
        for layer, size in zip(self.layers, self.widths):
            part = layer.kinks(size) if isinstance(layer, LipschitzLayer) else None
            if part is None:
                return None
            known.append(part)
        return torch.block_diag(*(rows for rows, _ in known)), torch.cat([offsets for _, offsets in known])

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        from wgan_lip.lipschitz.layers.affine import Linear  # which builds on the room of this module
        from wgan_lip.lipschitz.layers.flows import GradientFlow

        yield cls(Identity(Norm((1, 1))), Identity(Norm((1,))), GradientFlow(4, 2)), (7,)
        yield cls(Linear(Norm((3,)), Norm((1, 2))), GradientFlow(2, 2)), (5,)
        yield cls(_potential(3), GradientFlow(2, 2), _potential(2)), (7,)

    @staticmethod
    def _concrete(norm: Norm | None, layer: nn.Module) -> Norm:
        if norm is None or not norm.blocks:
            raise InputError(f"A layer inside Parallel must state its norm and width; {layer} does not.")
        return norm


class _Together(Branches):
    """Maps of the same vectors (b, d) to values (b,) or (b, p), combined value by value to (b, p)."""

    method: ClassVar[str]

    def join(self, values: Sequence[Tensor]) -> Tensor:
        return self.together([value[:, None] if value.ndim == 1 else value for value in values])

    @abstractmethod
    def together(self, values: Sequence[Tensor]) -> Tensor:
        """The combined values; each is (b, p)."""

    @abstractmethod
    def joint_constant(self, constants: Sequence[Fraction]) -> Fraction:
        """The joint constant, from those of the maps."""

    def rounding(self) -> Rounding:
        """The rounding of :meth:`together`."""
        return Rounding()

    def joint(self, claims: Sequence[Claim]) -> Claim:
        first = claims[0]
        for claim in claims:
            if claim.norm_in is None or claim.norm_out is None or not (claim.norm_in.blocks and claim.norm_out.blocks):
                raise InputError(f"Maps inside {type(self).__name__} must state their norms and widths.")
            if (claim.norm_in, claim.norm_out) != (first.norm_in, first.norm_out):
                raise InputError(
                    f"Maps inside {type(self).__name__} must have the same norms, not {first.norm_in} to "
                    f"{first.norm_out} and {claim.norm_in} to {claim.norm_out}. Check that their dimensions and "
                    "numbers of heads agree."
                )
        if first.norm_out is not None and max(first.norm_out.blocks) > 1:
            raise InputError(
                f"Maps inside {type(self).__name__} must return values, in their maximum norm, not {first.norm_out}."
            )
        constants = [claim.lipschitz for claim in claims]
        finite = all(map(math.isfinite, constants))
        lipschitz = _float_up(self.joint_constant([Fraction(each) for each in constants])) if finite else math.inf
        told = ", ".join(f"{constant:.7g}" for constant in constants[:4]) + ", …" * (len(constants) > 4)
        method = f"{self.method} of {len(claims)} maps with constants {told}"
        return Claim(lipschitz, method, first.norm_in, first.norm_out, self.rounding(), axes=VECTORS)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(_potential(3), _potential(3)), (3,)
        yield cls(_potential(2, 2), _potential(2, 2), _potential(2, 2)), (2,)


class Maximum(_Together):
    r"""The largest of the values of several maps.

    .. math:: x \mapsto \max_i f_i(x), \qquad \mathrm{Lip} \le \max_i \mathrm{Lip}(f_i)

    :math:`x \mapsto (f_1(x), \ldots, f_k(x))` has that constant in the maximum norm of the k values, and the maximum of
    k numbers is 1-Lipschitz there.

    Arguments:
        layers: The maps, each a layer or a chain of them, from vectors (b, d) to values (b,) or (b, p).
    """

    summary = Summary("several maps of x, their largest value, their least", "any to maximum", "the largest")
    method = "maximum"

    def together(self, values: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(values), dim=-1).amax(dim=-1)

    def joint_constant(self, constants: Sequence[Fraction]) -> Fraction:
        return max(constants)


class Minimum(_Together):
    """The least of the values of several maps; see :class:`Maximum`."""

    summary = Maximum.summary
    method = "minimum"

    def together(self, values: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(values), dim=-1).amin(dim=-1)

    def joint_constant(self, constants: Sequence[Fraction]) -> Fraction:
        return max(constants)


class WeightedSum(_Together):
    r"""A sum of several maps with fixed weights.

    .. math:: x \mapsto \sum_i w_i f_i(x) + c, \qquad \mathrm{Lip} \le \sum_i |w_i| \mathrm{Lip}(f_i)

    Arguments:
        layers: The maps, as for :class:`Maximum`.
        weights: w, one for each map; by default 1/k rounded down, the mean.
        shift: c.
    """

    nonexpansive = False
    summary = Summary("Σ wᵢ fᵢ(x) of several maps, w fixed or trained", "any to maximum", "Σ|wᵢ| times theirs")
    method = "weighted sum"

    def __init__(self, *layers: nn.Module, weights: Sequence[float] | None = None, shift: float = 0.0) -> None:
        super().__init__(*layers)
        self.weights = _checked_weights(weights, len(layers)) if weights is not None else _mean_weights(len(layers))
        self.shift = float(shift)
        if not math.isfinite(self.shift):
            raise InputError(f"shift must be finite, not {shift}.")

    def together(self, values: Sequence[Tensor]) -> Tensor:
        total = self.weights[0] * values[0]
        for weight, value in zip(self.weights[1:], values[1:]):
            total = torch.add(total, value, alpha=weight)
        return total + self.shift if self.shift else total

    def joint_constant(self, constants: Sequence[Fraction]) -> Fraction:
        return sum((abs(Fraction(weight)) * constant for weight, constant in zip(self.weights, constants)), Fraction())

    def carried(self, errors: Tensor) -> Tensor:
        return (errors.new_tensor(self.weights).abs()[:, None] * errors).sum(dim=0)

    def rounding(self) -> Rounding:
        gain = upper_bound_vector_norm(torch.tensor(self.weights, dtype=torch.float64))
        return Rounding(len(self.weights) + 4, gain, abs(self.shift))

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield from super().examples()
        yield cls(_potential(3), _potential(3), weights=[0.25, -0.75], shift=-1.5), (3,)

    def extra_repr(self) -> str:
        return f"weights={self.weights}" + (f", shift={self.shift}" if self.shift else "")


class Mixture(_Together):
    r"""A sum of several maps with trained weights.

    .. math:: x \mapsto \sum_i w_i f_i(x), \qquad \mathrm{Lip} \le \sum_i |w_i| \mathrm{Lip}(f_i)

    Training keeps :math:`\sum_i |w_i| = 1`.

    Arguments:
        layers: The maps, as for :class:`Maximum`.
        weights: Initial w; equal by default. Divided by Σ|w_i|.
    """

    summary = WeightedSum.summary
    method = "weighted sum"

    def __init__(self, *layers: nn.Module, weights: Sequence[float] | None = None) -> None:
        super().__init__(*layers)
        start = _checked_weights(weights, len(layers)) if weights is not None else _mean_weights(len(layers))
        if not any(start):
            raise InputError("weights must not all be 0.")
        self.weight = nn.Parameter(torch.tensor([start], dtype=torch.float64).to(torch.get_default_dtype()))
        with torch.no_grad():
            for constraint in self.constraints():
                constraint.retract()

    def together(self, values: Sequence[Tensor]) -> Tensor:
        return (torch.stack(list(values), dim=-1) * self.weight).sum(dim=-1)

    def joint_constant(self, constants: Sequence[Fraction]) -> Fraction:
        upper_bound_vector_norm(self.weight)  # refuses weights that are not finite
        weights = self.weight.detach().double().flatten().tolist()
        return sum((abs(Fraction(weight)) * constant for weight, constant in zip(weights, constants)), Fraction())

    def carried(self, errors: Tensor) -> Tensor:
        return (self.weight.detach().to(errors).abs().view(-1, 1) * errors).sum(dim=0)

    def rounding(self) -> Rounding:
        return Rounding(len(self.layers) + 4, upper_bound_vector_norm(self.weight))

    def constraints(self) -> Iterator[Constraint]:
        yield UnitRows(self.weight, Norm((1,) * len(self.layers)))


def _float_up(exact: Fraction) -> float:
    """The least float that is no smaller, or the next one; inf if there is none."""
    try:
        number = float(exact)
    except OverflowError:
        return math.inf
    return number if Fraction(number) >= exact else math.nextafter(number, math.inf)


def _checked_weights(weights: Sequence[float], count: int) -> tuple[float, ...]:
    checked = tuple(float(weight) for weight in weights)
    if len(checked) != count or not all(map(math.isfinite, checked)):
        raise InputError(f"weights must be {count} finite numbers, one for each map, not {list(weights)}.")
    return checked


def _mean_weights(count: int) -> tuple[float, ...]:
    """1/k each, rounded down where k of them would be more than 1."""
    weight = 1 / count
    return (weight if Fraction(weight) * count <= 1 else math.nextafter(weight, 0.0),) * count


def _potential(dim: int, heads: int = 1) -> nn.Module:
    """A small chain to values (b,), or (b, heads), for examples."""
    from wgan_lip.lipschitz.layers.affine import Linear
    from wgan_lip.lipschitz.layers.flows import GradientFlow
    from wgan_lip.lipschitz.layers.structure import Squeeze

    end = [Squeeze()] if heads == 1 else []
    return nn.Sequential(GradientFlow(dim, 2), Linear(Norm((dim,)), Norm((1,) * heads)), *end)
