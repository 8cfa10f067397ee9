"""The base of all layers: a map, a claim about its Lipschitz constant, and constraints that keep the claim at 1."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers.constraints import Constraint
from wgan_lip.utils.checks import InputError

__all__ = [
    "ANY_AXES",
    "CHANNELS_FIRST",
    "IMAGES",
    "VECTORS",
    "Claim",
    "Kinks",
    "LipschitzLayer",
    "Rounding",
    "Solver",
    "Summary",
    "check_axes",
    "check_images",
    "kinks_at",
    "members_changed",
    "new_bias",
    "no_kinks",
    "overridden_below",
    "remember_members",
    "renew_chain",
    "start_chain",
    "unrolled",
]

# Axes of one sample, after that of the batch; no tensor has more than 64.
VECTORS = range(1, 2)  # (b, d)
IMAGES = range(3, 4)  # (b, c, h, w)
CHANNELS_FIRST = range(1, 64)  # (b, c) and (b, c, …)
ANY_AXES = range(64)

Kinks = tuple[Tensor, Tensor]
"""Rows (k, h) and offsets (k,), float64: a layer's formula changes only on {y : rows @ y + offsets = 0}."""

Solver = Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]
"""Solves optimal transport between samples (n, d) and (m, d); returns a potential, (k, d) → (k,), in float64."""


@dataclass(frozen=True)
class Rounding:
    """Error bound of a float64 evaluation: at most γ_operations · (gain·‖x‖ + offset·√p) in Euclidean norm.

    p is the number of positions, h·w, of the larger of input and output of shape (b, c, h, w); 1 for vectors. For a
    coordinatewise map, one without norms, p is the number of coordinates. With `sums_all`, one more operation for each
    entry of a sample: for sums along axes whose length the layer does not know.
    """

    operations: int = 0
    gain: float = 0.0
    offset: float = 0.0
    sums_all: bool = False


@dataclass(frozen=True)
class Claim:
    """What a layer proves about itself: ‖φ(x) − φ(y)‖_out ≤ lipschitz · ‖x − y‖_in for all x, y, and by what method.

    Attributes:
        lipschitz: The constant.
        method: How it is proved.
        norm_in: Norm of the input; None for maps that keep any norm they meet (coordinatewise maps, the identity).
        norm_out: Norm of the output; None as for `norm_in`.
        rounding: Error bound of a float64 evaluation.
        axes: The numbers of axes of a sample, after that of the batch, for which all this holds: `range(1, 2)` for
            vectors (b, d), `range(3, 4)` for images (b, c, h, w). By default vectors of that width where `norm_in` has
            a dimension, and any number where it has none.
        axes_added: How many axes the layer adds to a sample; None if it flattens all of them into one.
    """

    lipschitz: float
    method: str
    norm_in: Norm | None = None
    norm_out: Norm | None = None
    rounding: Rounding = Rounding()
    axes: range = range(0)
    axes_added: int | None = 0

    def __post_init__(self) -> None:
        if not self.axes:
            object.__setattr__(self, "axes", VECTORS if self.norm_in is not None and self.norm_in.blocks else ANY_AXES)


@dataclass(frozen=True)
class Summary:
    """The row of a layer in the table of layers, in words; layers with equal rows share one.

    Attributes:
        map: What it does to x.
        norm: The norm of its constant, from input to output if they differ.
        constant: The constant.
    """

    map: str
    norm: str = "Euclidean"
    constant: str = "1"


def no_kinks(width: int) -> Kinks:
    """No kinks: those of a map that is affine on states of `width` coordinates."""
    return torch.zeros(0, width, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)


def kinks_at(breaks: Sequence[float], rows: Tensor, offsets: Tensor) -> Kinks:
    """Kinks of a function of each coordinate whose slope changes at `breaks`, after x ↦ rows @ x + offsets."""
    rows, offsets = rows.detach().double(), offsets.detach().double()
    return rows.repeat(len(breaks), 1), torch.cat([offsets[:0], *(offsets - position for position in breaks)])


def check_axes(axes: range, found: int, shape: tuple[int, ...] | None = None) -> None:
    """Raises :class:`InputError` if a layer that takes samples of `axes` axes gets samples of `found` axes."""
    if found in axes:
        return
    kinds = {VECTORS: "vectors (b, d)", range(2, 3): "signals (b, c, l)", IMAGES: "images (b, c, h, w)"}
    wanted = kinds.get(axes, f"samples of {'at least ' if len(axes) > 1 else ''}{axes[0]} axes")
    got = f"{found} axes" if shape is None else f"shape {tuple(shape)}"
    few = ", whose first axis torch may read as channels. Put an Unflatten before it."
    raise InputError(
        f"This layer takes {wanted}, not samples of {got}{few if found < axes[0] else '. Put a Flatten before it.'}"
    )


def check_images(x: Tensor) -> Tensor:
    """Returns x, shape (b, c, h, w), or raises :class:`InputError`: torch reads the first of three axes as channels."""
    if x.ndim != 4:
        raise InputError(f"Images must have shape (b, c, h, w), not {tuple(x.shape)}. Use x[None] for a single image.")
    return x


def new_bias(size: int, scale: float) -> Tensor:
    """An initial bias, shape (size,), uniform in [−scale, scale]. Raises :class:`InputError` for an invalid scale."""
    if not 0 <= scale < math.inf:
        raise InputError(f"bias_scale must be finite and at least 0, not {scale}.")
    return torch.empty(size).uniform_(-scale, scale)


class LipschitzLayer(nn.Module, ABC):
    """A map with a provable Lipschitz constant between two normed spaces.

    A subclass writes `forward` and :meth:`claim`. For everything else the package asks the layer, by the methods and
    attributes below, whose defaults suit most layers. `tests/test_contract.py` finds every subclass, and tries to break
    the claims of its :meth:`examples`.

    Attributes:
        lengths: Names of its parameters that are lengths, in the units of the samples; None for a layer that trains
            like torch's own. See :func:`wgan_lip.parameter_groups`.
        nonexpansive: Whether its :meth:`constraints` keep the claimed constant at most 1 in training.
        reads_distances: Whether it depends on distances between the states that reach it, as cones do, so that the
            layers before it should preserve them at the start.
        summary: Its row in the table of layers; by default the first line of its docstring.
    """

    lengths: ClassVar[tuple[str, ...] | None] = ("bias",)
    nonexpansive: ClassVar[bool] = True
    reads_distances: ClassVar[bool] = False
    summary: ClassVar[Summary | None] = None

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        remember_members(cls)

    @abstractmethod
    def claim(self) -> Claim:
        """Proves a constant for the weights as they are stored now. Raises :class:`InputError` if not finite."""

    def constraints(self) -> Iterator[Constraint]:
        """The sets that keep the claimed constant at 1, as views of this layer's own parameters."""
        return iter(())

    def kinks(self, width: int) -> Kinks | None:
        """Where a piecewise affine layer changes its formula, for states of `width` coordinates, images as rows.

        :func:`wgan_lip.enumerate_lipschitz` cuts space there. :func:`no_kinks` for an affine layer; None, the default,
        where the kinks are not known, or not on hyperplanes. A subclass with another `forward` states its own.
        """
        return None

    def start_at(self, x: Tensor, y: Tensor, *, solver: Solver | None = None, keep_distances: bool = False) -> None:
        """Sets parameters, in place, to suit the states of P and of Q that reach the layer; by default none.

        Called by :meth:`wgan_lip.critics.Critic.start_at`, without gradients, once the layers before it have started.

        Arguments:
            x: States of P, shape (n, …).
            y: States of Q, shape (m, …).
            solver: Solves optimal transport between states, for a layer that starts at a potential.
            keep_distances: Whether a later layer depends on distances between states; see `reads_distances`.
        """

    def renew(self, x: Tensor, y: Tensor) -> int:
        """Moves parts of the layer that no state uses to where states are, in place; by default there are none.

        Called by :meth:`wgan_lip.critics.Critic.renew`, without gradients; the layer's values at the states stay.

        Arguments:
            x: States of P, shape (n, …).
            y: States of Q, shape (m, …).

        Returns:
            How many parts moved.
        """
        return 0

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        """A few small layers of this class, one for each kind of setting, each with the shape of a sample it takes."""
        raise NotImplementedError(
            f"{cls.__name__} has no examples, so nothing tests its claim. Write a classmethod examples that yields "
            "small layers, each with the shape of one sample, as in: yield cls(4), (4,)"
        )


# What the classes of layers and their bases were when they were defined. What a claim proves is about these.
_MEMBERS: WeakKeyDictionary[type, dict[str, object]] = WeakKeyDictionary()
INERT = frozenset({  # no function depends on these, and no proof
    "_abc_impl", "breaks", "constraints", "examples", "extra_repr", "kinks", "kinks_along", "lengths", "nonexpansive",
    "reads_distances", "renew", "start_at", "summary",
})  # fmt: skip
CALLS = ("__call__", "_call_impl", "__getattr__", "__getattribute__")  # the way to forward and to the weights


def remember_members(*kinds: type) -> None:
    """Remembers what `kinds` and their bases define now, for :func:`members_changed`; only the first call counts."""
    for kind in kinds:
        for base in kind.__mro__:
            if base not in (object, ABC) and base not in _MEMBERS:
                _MEMBERS[base] = _members(base)


def members_changed(kind: type) -> list[str]:
    """What `kind` and its bases have gained, lost or replaced since they were remembered, as `Class.name`."""
    changed = []
    for base in kind.__mro__:
        then, now = _MEMBERS.get(base, {}), _members(base)
        if base in _MEMBERS:
            names = (name for name in then.keys() | now.keys() if then.get(name) is not now.get(name))
            changed += sorted(f"{base.__qualname__}.{name}" for name in names)
    return changed


def overridden_below(kind: type, answers: Collection[str]) -> list[str]:
    """What `kind` overrides of the class that defines the first of `answers` it has: those it inherits may be about
    another function."""
    order = kind.__mro__
    given = next(i for i, base in enumerate(order) if set(answers) & vars(base).keys())
    names = {name for base in order[:given] for name in vars(base) if hasattr(order[given], name)}
    return sorted(name for name in names - INERT if not name.startswith("__"))


def _members(kind: type) -> dict[str, object]:
    """Methods and settings of the class itself; of nn.Module, which other libraries extend, the way to forward only."""
    watched = (*CALLS, "__iter__")
    if kind is nn.Module:
        return {name: vars(kind).get(name) for name in (*watched, "forward")}
    return {
        name: value
        for name, value in vars(kind).items()
        if name in watched or not (name.startswith("__") or name == "_abc_impl")
    }


remember_members(LipschitzLayer, nn.Sequential, nn.ModuleList)


def unrolled(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers of nested Sequentials, in the order of application, with their paths."""
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        for name, child in module._modules.items():  # named_children() would skip a layer that is used twice
            if child is not None:
                yield from unrolled(child, f"{path}.{name}" if path else name)
    else:
        yield path or type(module).__name__, module


def start_chain(chain: nn.Module, states: Tensor, n: int, *, solver: Solver | None = None) -> None:
    """Starts each layer of a chain at the n samples of P, and those of Q after them, that reach it."""
    layers = [layer for _, layer in unrolled(chain)]
    last = max((i for i, layer in enumerate(layers) if getattr(layer, "reads_distances", False)), default=0)
    for index, layer in enumerate(layers):
        if isinstance(layer, LipschitzLayer):
            layer.start_at(states[:n], states[n:], solver=solver, keep_distances=index < last)
        states = layer(states)


def renew_chain(chain: nn.Module, states: Tensor, n: int) -> int:
    """Renews each layer of a chain at the samples that reach it; returns how many parts moved."""
    moved = 0
    for _, layer in unrolled(chain):
        if isinstance(layer, LipschitzLayer):
            moved += layer.renew(states[:n], states[n:])
        states = layer(states)
    return moved


def kept_by_training(critic: nn.Module) -> str:
    """What training with constraints guarantees about a critic's constant, in words; see Note [Guarantees] of the
    baselines.

    A critic that does not say so itself is certified if all its parameters belong to layers that prove their constant:
    then a bound holds for any weights that training leaves. Whether it stays at 1 is up to their constraints; the
    certificate says so.
    """
    own = all(
        isinstance(module, LipschitzLayer) or next(module.parameters(recurse=False), None) is None
        for module in critic.modules()
    )
    return str(getattr(critic, "guarantee", "certified" if own else "not certified"))
