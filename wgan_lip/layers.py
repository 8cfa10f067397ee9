"""1-Lipschitz maps by construction; each knows its norm in, norm out and constant.

A layer is one class with three parts, and is all that a new layer needs:

- `forward`, its formula;
- `claim()`, what can be proved about it for the weights as they are stored now;
- `constraints()`, the sets its parameters are pulled back to after every optimiser step (see :class:`Retraction`).

Nothing rests on the constraints being kept: a claim is computed from the weights, so weights that were spiked, loaded
or trained without retraction give a larger constant, never a wrong one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wgan_lip.bounds import Norm, product_up, upper_bound_norm, upper_bound_operator_norm, upper_bound_vector_norm
from wgan_lip.checks import InputError, check_choice

__all__ = [
    "ACTIVATIONS",
    "Claim",
    "Flatten",
    "GradientFlow",
    "Identity",
    "Linear",
    "LipschitzLayer",
    "MaxMin",
    "Parallel",
    "Retraction",
    "Rounding",
    "Squeeze",
    "retract_after_steps",
]


@dataclass(frozen=True)
class Rounding:
    """How far a float64 evaluation can stray: by at most γ_operations · (gain·‖x‖ + offset) in Euclidean norm."""

    operations: int = 0
    gain: float = 0.0
    offset: float = 0.0


@dataclass(frozen=True)
class Claim:
    """What a layer proves about itself: ‖φ(x) − φ(y)‖_out ≤ lipschitz · ‖x − y‖_in for all x, y, and by what method.

    `norm_in` and `norm_out` are None for maps that keep any norm they meet (coordinatewise maps, the identity).
    """

    lipschitz: float
    method: str
    norm_in: Norm | None = None
    norm_out: Norm | None = None
    rounding: Rounding = Rounding()


@dataclass(frozen=True)
class SemiOrthogonal:
    """Constraint: all singular values of `weight` (m, n) at most 1, and pushed towards 1."""

    weight: Tensor


@dataclass(frozen=True)
class UnitRows:
    """Constraint: every row of `weight` (m, n) has block norms, over `norm`, that add up to 1."""

    weight: Tensor
    norm: Norm


@dataclass(frozen=True)
class Zero:
    """Constraint: `weight` is zero."""

    weight: Tensor


@dataclass(frozen=True)
class Box:
    """Constraint: low ≤ value ≤ high."""

    value: Tensor
    low: float
    high: float


Constraint = SemiOrthogonal | UnitRows | Zero | Box


class LipschitzLayer(nn.Module, ABC):
    """A map with a provable Lipschitz constant between two normed spaces."""

    @abstractmethod
    def claim(self) -> Claim:
        """Proves a constant for the weights as they are stored now. Raises :class:`InputError` if not finite."""

    def constraints(self) -> Iterator[Constraint]:
        """The sets that keep the claimed constant at 1, as views of this layer's own parameters."""
        return iter(())


# Note [Activations]
# The residual layer needs σ = γ' with γ convex: non-decreasing, and 1-Lipschitz. Softplus goes through logaddexp:
# torch's own switches to the identity above a threshold, a jump of 2e-9 that no Lipschitz constant covers. The slack
# counts roundings of one evaluation; torch's float64 elementary functions are taken to be accurate to 8 units in the
# last place, piecewise-linear ones are exact but for one product.
@dataclass(frozen=True)
class Activation:
    function: Callable[[Tensor], Tensor]
    at_zero: float = 0.0
    roundings: int = 1


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(torch.relu),
    "leaky_relu": Activation(lambda t: F.leaky_relu(t, 0.1)),
    "hardtanh": Activation(F.hardtanh),
    "tanh": Activation(torch.tanh, roundings=16),
    "softplus": Activation(lambda t: torch.logaddexp(t, t.new_zeros(())), at_zero=math.log(2.0), roundings=32),
}


class GradientFlow(LipschitzLayer):
    r"""Residual layer: one explicit Euler step of a negative gradient flow, nonexpansive in the Euclidean norm.

    .. math:: \varphi(x) = x - \tau W^\top \sigma(W x + b), \qquad 0 \le \tau \le 2 / \|W\|^2

    The step τ is trained. With ReLU, ‖W‖ = 1 and τ = 2 (the start) the layer folds space and keeps the gradient norm.

    Arguments:
        dim: Width h of the state x, shape (b, h).
        hidden: Rows m of W, shape (m, h).
        activation: A key of :data:`ACTIVATIONS`.
        bias_scale: The biases start uniform in [−bias_scale, bias_scale], the data's units.

    Guarantee:
        Constant max(1, τB² − 1), with B ≥ ‖W‖ verified and any real τ ≥ 0; 1 + |τ|B² for τ < 0.

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), section 2
    """

    def __init__(self, dim: int, hidden: int, *, activation: str = "relu", bias_scale: float = 1.0) -> None:
        super().__init__()
        if dim < 1 or hidden < 1:
            raise InputError(f"Expected a width and a hidden width of at least 1. Got {dim} and {hidden}.")
        self.activation = check_choice(activation, list(ACTIVATIONS), "activation")
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(hidden, dim)))
        self.bias = nn.Parameter(torch.empty(hidden).uniform_(-bias_scale, bias_scale))
        self.tau = nn.Parameter(torch.tensor(2.0))
        Retraction(self)()

    def forward(self, x: Tensor) -> Tensor:
        slope = ACTIVATIONS[self.activation].function(F.linear(x, self.weight, self.bias))  # (b, m)
        return torch.addmm(x, self.tau * slope, self.weight, alpha=-1)  # (b, h)

    def claim(self) -> Claim:
        hidden, dim = self.weight.shape
        norm = Norm.euclidean(dim)
        bound = upper_bound_norm(self.weight)
        tau = self.tau.item()
        if not math.isfinite(tau):
            raise InputError(f"Expected a finite step tau. Got {tau}. Reload the last good checkpoint.")
        curvature = product_up(abs(tau), bound, bound)
        lipschitz = max(1.0, _up(curvature - 1)) if tau >= 0 else _up(1 + curvature)
        activation = ACTIVATIONS[self.activation]
        size = upper_bound_vector_norm(self.weight)
        rounding = Rounding(
            operations=dim + hidden + activation.roundings + 8,
            gain=1.01 * (1 + abs(tau) * size * size),
            offset=1.01
            * abs(tau)
            * size
            * (upper_bound_vector_norm(self.bias) + activation.at_zero * math.sqrt(hidden)),
        )
        method = f"max(1, tau*B^2 - 1), tau = {tau:.6g}, B = {bound:.9g} by verified Cholesky"
        return Claim(lipschitz, method, norm, norm, rounding)

    def constraints(self) -> Iterator[Constraint]:
        yield SemiOrthogonal(self.weight)
        yield Box(self.tau, 0.0, 2.0)

    def extra_repr(self) -> str:
        hidden, dim = self.weight.shape
        return f"dim={dim}, hidden={hidden}, activation={self.activation}"


def _up(value: float) -> float:
    return math.nextafter(value, math.inf)


class Linear(LipschitzLayer):
    r"""Affine map of norm at most 1 between two block-max norms.

    .. math:: x \mapsto A x + b, \qquad \|A\|_{* \to *} \le \max_i \sum_j \|A_{ij}\|_2 = 1

    A scalar output block keeps Σ_j‖A_ij‖ = 1. An output block of several rows keeps a semi-orthogonal matrix on the
    largest input block and zeros on the others, as in the reference (there c = 0, A orthogonal).

    Arguments:
        norm_in: Norm of the input, shape (b, norm_in.dim).
        norm_out: Norm of the output, shape (b, norm_out.dim).

    Guarantee:
        Constant max_i Σ_j‖A_ij‖, each block norm verified.

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), Theorems 3.1 and 4.1
    """

    def __init__(self, norm_in: Norm, norm_out: Norm) -> None:
        super().__init__()
        self.norm_in, self.norm_out = norm_in, norm_out
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(norm_out.dim, norm_in.dim)))
        self.bias = nn.Parameter(torch.zeros(norm_out.dim))
        Retraction(self)()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def claim(self) -> Claim:
        bound = upper_bound_operator_norm(self.weight, self.norm_in, self.norm_out)
        rounding = Rounding(
            operations=self.norm_in.dim + 4,
            gain=upper_bound_vector_norm(self.weight),
            offset=upper_bound_vector_norm(self.bias),
        )
        return Claim(bound, "max_i sum_j |A_ij| by verified Cholesky", self.norm_in, self.norm_out, rounding)

    def constraints(self) -> Iterator[Constraint]:
        largest = max(self.norm_in.slices, key=lambda block: block.stop - block.start)
        start = 0
        for size, group in groupby(self.norm_out.blocks):
            count = len(list(group))
            rows = slice(start, start + size * count)
            start = rows.stop
            if size == 1:  # neighbouring scalar blocks in one go
                yield UnitRows(self.weight[rows], self.norm_in)
                continue
            for block in self.weight[rows].split(size):
                yield SemiOrthogonal(block[:, largest])
                yield Zero(block[:, : largest.start])
                yield Zero(block[:, largest.stop :])

    def extra_repr(self) -> str:
        return f"{self.norm_in} -> {self.norm_out}"


class MaxMin(LipschitzLayer):
    """Sorts neighbouring pairs, (x_1, x_2) ↦ (max, min): nonexpansive in the Euclidean and in the maximum norm.

    Arguments:
        dim: Even width of the state, shape (b, dim).
        norm: Euclidean or maximum norm of that width; the maximum norm by default.

    References:
        Sorting out Lipschitz function approximation (Anil, Lucas, Grosse, 2019)
    """

    def __init__(self, dim: int, norm: Norm | None = None) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise InputError(f"Expected an even width of at least 2. Got {dim}. MaxMin sorts pairs.")
        self.norm = norm or Norm((1,) * dim)
        if self.norm not in (Norm((1,) * dim), Norm.euclidean(dim)):
            raise InputError(f"Expected the Euclidean or maximum norm of width {dim}. Got {self.norm}.")

    def forward(self, x: Tensor) -> Tensor:
        first, second = x[..., ::2], x[..., 1::2]
        return torch.stack((torch.maximum(first, second), torch.minimum(first, second)), dim=-1).flatten(-2)

    def claim(self) -> Claim:
        return Claim(1.0, "sorting is nonexpansive", self.norm, self.norm)

    def extra_repr(self) -> str:
        return str(self.norm)


class Identity(LipschitzLayer):
    """x ↦ x on a state of the given norm."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return x

    def claim(self) -> Claim:
        return Claim(1.0, "identity", self.norm, self.norm)

    def extra_repr(self) -> str:
        return str(self.norm)


class Parallel(LipschitzLayer):
    r"""Layers side by side, each on its own blocks of the state; the constant is the largest of theirs.

    .. math:: (x_1, \ldots, x_k) \mapsto (\varphi_1(x_1), \ldots, \varphi_k(x_k))

    Guarantee:
        Constant max_i Lip(φ_i) in the block-max norm that joins the blocks of all parts. Not valid in the Euclidean
        norm of the whole state unless every part is Euclidean; it is not claimed there.
    """

    def __init__(self, *layers: LipschitzLayer) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.widths = [_concrete(layer.claim().norm_in, layer).dim for layer in layers]

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.layers, x.split(self.widths, dim=-1))
        return torch.cat([layer(part) for layer, part in parts], dim=-1)

    def __repr__(self) -> str:
        return f"Parallel({', '.join(map(repr, self.layers))})"

    def claim(self) -> Claim:
        claims = [layer.claim() for layer in self.layers]
        worst = max(claims, key=lambda claim: claim.lipschitz)
        norm_in = Norm(sum((_concrete(c.norm_in, self).blocks for c in claims), ()))
        norm_out = Norm(sum((_concrete(c.norm_out, self).blocks for c in claims), ()))
        rounding = Rounding(
            operations=max(c.rounding.operations for c in claims),
            gain=sum(c.rounding.gain for c in claims),
            offset=sum(c.rounding.offset for c in claims),
        )
        return Claim(worst.lipschitz, f"largest of {len(claims)} parts: {worst.method}", norm_in, norm_out, rounding)


class Flatten(LipschitzLayer):
    """Takes samples of any shape (b, …) with `dim` entries each to rows (b, dim); an isometry.

    Raises:
        InputError: The entries of a sample are not `dim` in number.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1) if x.ndim > 1 else x
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise InputError(
                f"Expected samples of shape (b, {self.dim}), or of {self.dim} entries each. Got {tuple(x.shape)}. "
                "Check that the critic was built for this data's dimension."
            )
        return rows

    def claim(self) -> Claim:
        return Claim(1.0, "isometry", Norm.euclidean(self.dim), Norm.euclidean(self.dim))

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Squeeze(LipschitzLayer):
    """Takes a column (b, 1) to the values of a potential (b,)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze(-1)

    def claim(self) -> Claim:
        return Claim(1.0, "isometry", Norm((1,)), Norm((1,)))


def _concrete(norm: Norm | None, layer: nn.Module) -> Norm:
    if norm is None:
        raise InputError(f"Expected a layer that states its norm. Got {layer} inside Parallel.")
    return norm


class Retraction:
    r"""Pulls the parameters of all layers in `module` back to their constraints; no autograd, no host synchronisation.

    Semi-orthogonal weights take one Newton–Schulz step, all weights of one shape in one batched product:

    .. math:: W \mapsto \tfrac32 V - \tfrac12 V V^\top V, \qquad V = W \min(1, \sqrt{3 / s}), \qquad s \ge \|W\|^2

    where s is the largest absolute row sum of the Gram matrix. t ↦ (3t − t³)/2 takes [0, √3] into [0, 1], so *one*
    step leaves ‖W‖ ≤ 1 however large the optimiser's step was, and near the constraint it converges quadratically.
    A factor 1 − 16·eps keeps rounding on the safe side.

    Arguments:
        module: Any module; its :class:`LipschitzLayer` submodules are found once, their parameters at every call, so
            the module may move between devices and dtypes.

    References:
        An iterative algorithm for computing the best estimate of an orthogonal matrix (Björck, Bowie, 1971)
    """

    MARGIN: ClassVar[float] = 16.0

    def __init__(self, module: nn.Module) -> None:
        self.layers = [layer for layer in module.modules() if isinstance(layer, LipschitzLayer)]

    @torch.no_grad()
    def __call__(self) -> None:
        by_shape: defaultdict[tuple, list[Tensor]] = defaultdict(list)
        for layer in self.layers:
            for constraint in layer.constraints():
                match constraint:
                    case SemiOrthogonal(weight):
                        by_shape[tuple(weight.shape), weight.dtype, weight.device].append(weight)
                    case UnitRows(weight, norm):
                        weight.copy_(self._margin(weight) * _unit_rows(weight, norm))
                    case Zero(weight):
                        weight.zero_()
                    case Box(value, low, high):
                        value.clamp_(low, high)
        for weights in by_shape.values():
            stacked = torch.stack(weights) if len(weights) > 1 else weights[0][None]
            torch._foreach_copy_(weights, list(self._newton_schulz(stacked).unbind()))

    @classmethod
    def _margin(cls, weight: Tensor) -> float:
        return 1.0 - cls.MARGIN * torch.finfo(weight.dtype).eps

    @classmethod
    def _newton_schulz(cls, weight: Tensor) -> Tensor:
        """One guarded step for a batch of weights, shape (k, m, n)."""
        largest = weight.abs().amax(dim=(1, 2), keepdim=True)
        weight = weight / largest.clamp_min(1.0)  # the squares of huge weights stay finite
        wide = weight.shape[1] <= weight.shape[2]
        gram = weight @ weight.mT if wide else weight.mT @ weight
        square = gram.abs().sum(dim=2).amax(dim=1)[:, None, None]  # at least the squared norm
        shrink = (2.999 / square).clamp_max(1.0)
        linear, cubic = 1.5 * shrink.sqrt(), 0.5 * shrink * shrink.sqrt()
        product = gram @ weight if wide else weight @ gram
        return cls._margin(weight) * (linear * weight - cubic * product)


def _unit_rows(weight: Tensor, norm: Norm) -> Tensor:
    """Each row over the sum of its block norms, shape (m, n); zero rows stay zero."""
    tiny = torch.finfo(weight.dtype).tiny
    weight = weight / weight.abs().amax(dim=1, keepdim=True).clamp_min(tiny)  # no square over- or underflows
    if max(norm.blocks) == 1:
        total = weight.abs().sum(dim=1, keepdim=True)
    else:
        total = torch.cat([part.norm(dim=1, keepdim=True) for part in weight.split(norm.blocks, dim=1)], dim=1)
        total = total.sum(dim=1, keepdim=True)
    return weight / total.clamp_min(tiny)


_RETRACTED: WeakKeyDictionary[torch.optim.Optimizer, list[nn.Module]] = WeakKeyDictionary()


def retract_after_steps(optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
    """Registers the :class:`Retraction` of `module` on `optimizer`: it runs after every `optimizer.step()`.

    Works with any torch optimiser and any training loop, which cannot forget it. Registering twice does no harm and
    nothing more.

    Example:
        >>> layer = GradientFlow(4, 2)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=100.0)
        >>> retract_after_steps(optimizer, layer)
        >>> layer(torch.ones(3, 4)).sum().backward()
        >>> optimizer.step()
        >>> layer.claim().lipschitz
        1.0
    """
    registered = _RETRACTED.setdefault(optimizer, [])
    if any(known is module for known in registered):
        return
    registered.append(module)
    retraction = Retraction(module)
    optimizer.register_step_post_hook(lambda *_: retraction())
