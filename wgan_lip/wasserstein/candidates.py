r"""The candidates that compete in :func:`wgan_lip.wasserstein.fitting.fit_critic`.

Note [Candidates]
    Which critic finds a potential from samples depends on the pair, and a few candidates cover most cases. In order of
    simplicity:

    - `linear`: :math:`f(x) = \langle x, e \rangle`, along the difference of the means; a shift.
    - `cones-1`: :math:`f(x) = \pm (\|x - c\| + b)`; dilations, atoms.
    - `ridge`: :math:`f(x) = \pm \min_k (|\langle x, e \rangle - c_k| + b_k)`; a change in one coordinate among many.
      Here e is the direction between the means, or the first or last axis of the covariances' difference, whichever
      shows the larger W1.
    - `cones-K`: :math:`f(x) = \pm \min_k (\|x - c_k\| + b_k)`. Every potential of two finite sets has this form, with
      cones at one of the sets; fewer cones generalise where the exact ones do not.
    - `principal`: family A on principal coordinates and the energy of the rest, in more than 128 dimensions: steps are
      a few times cheaper than those of `resnet`, since the rest is computed once.
    - `resnet`: family A, for what cones do not describe.

    The centres start at k-means centres of the samples of one law or both; the heights start at an exact potential of a
    subsample, so that no cone starts, and stays, above all others.

Note [Units]
    Candidates train in float32 on (x − c)/s, with c near the samples' middle and s a power of two near their spread.
    The returned critic includes that scaling, and multiplies its values by s, in float64, so its certificate is about
    the raw units; powers of two keep the constant at 1.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from wgan_lip.critics import Critic, FixedWidthCritic, PrincipalCritic, ResNetCritic, SortingCritic
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import Linear, LipschitzExtension, Normalize, Retraction, Squeeze
from wgan_lip.lipschitz.optimizers import Muon, parameter_groups
from wgan_lip.transport import Potential, Problem, Transport, solve_problem
from wgan_lip.utils.clusters import fast_distances, k_means, middle_and_spread
from wgan_lip.utils.discovery import concrete_subclasses, import_all
from wgan_lip.utils.pacing import largest_in_time

__all__ = ["Candidate", "OwnCandidate", "Start", "Units", "candidates", "critic_names", "place"]

AXES = 64  # of a principal critic
SOLVED = 800  # samples of each law, at most, in the transport problem solved exactly
SOLVING = 0.1  # of the time left, at most, for that
WIDTH = 128  # of networks, at most: in the time of a fit, many steps of a narrow network find more
LARGEST_COVARIANCE = 1024  # dimension up to which covariances are decomposed
PROOF_SPEED = 1e9  # d·h² per second for building and proving a network of width h, on one slow core
CHUNK = 1024  # samples converted to units at a time
LEARNING_RATE = 0.2  # the c of parameter_groups
FEW_DIMENSIONS = 64  # dimensions up to which cones are as promising as networks
BUILDING = 0.1  # of the time left, at most, for building the candidates of one class
SIGNS = {-1.0: "-", 1.0: "+"}


@dataclass(frozen=True, eq=False)
class Units:
    """z = (x − centre)/scale, centre (d,) in float64, scale a power of two; see Note [Units]."""

    centre: Tensor
    scale: float

    @staticmethod
    def of(x: Tensor, y: Tensor) -> Units:
        centre, spread = middle_and_spread(torch.cat((x, y)))
        exponent = round(math.log2(spread)) if spread > 0 else 0
        return Units(centre, 2.0 ** min(max(exponent, -900), 900))

    def normalised(self, samples: Tensor) -> Tensor:
        """The samples, shape (n, d), in these units, in float32."""
        z = torch.empty(samples.shape, dtype=torch.float32)
        for part, rows in zip(z.split(CHUNK), samples.split(CHUNK)):
            far = rows.double().sub(self.centre).div_(self.scale)
            part.copy_(far.clamp_(-1e15, 1e15))  # squares of outliers stay finite; the final values are not clamped
        return z

    def wrapped(self, layers: list[nn.Module], sign: float) -> nn.Sequential:
        """sign · scale · g((x − centre)/scale) in float64, from the layers of g, which map (b, d) to (b, 1)."""
        ones = torch.ones(len(self.centre))
        normalize = Normalize(0 * ones, ones).double()
        rescale = Linear(Norm((1,)), Norm((1,))).double()
        with torch.no_grad():
            normalize.mean.copy_(self.centre)  # in float64, not rounded to torch's default dtype
            normalize.std.fill_(self.scale)
            rescale.weight.fill_(sign * self.scale * (1 - 2.0**-48))  # so that its certified norm is at most scale
        parts: OrderedDict[str, nn.Module] = OrderedDict(normalize=normalize)
        parts.update((f"layer_{index}", layer.double()) for index, layer in enumerate(layers, 1))
        return nn.Sequential(OrderedDict(**parts, rescale=rescale, squeeze=Squeeze()))


@dataclass(frozen=True, eq=False)
class Start:
    """What candidates are built from.

    Attributes:
        units: The units of x and y.
        x: Samples of P in these units, shape (n, d).
        y: Samples of Q, shape (m, d).
        rng: The generator for draws.
        time_left: The seconds left.
        asked_for: Whether the family was asked for by name, and is not one of several that compete.
    """

    units: Units
    x: Tensor
    y: Tensor
    rng: torch.Generator
    time_left: Callable[[], float]
    asked_for: bool = False

    @property
    def dim(self) -> int:
        return self.x.shape[1]


class Candidate(ABC):
    """The module that is trained, in its own units, and the certified critic it becomes.

    A class of candidates is found by its `family`, and named nowhere else.

    Attributes:
        family: The name by which `critic` of :func:`wgan_lip.estimate_w1` asks for this class; None if it has none.
        simplicity: Its place among the classes that compete under `auto`, the simplest first; None if it does not
            compete.
        slow_to_build: Whether its candidates are built after those of other classes.
        name: The candidate's name.
        module: What is trained: (b, d) → (b,).
        units: The units of the module.
        unit: One unit of its values, in the units of the samples.
        spread: The spread of the samples in the module's units, roughly; for its learning rates.
        batch: Samples of each law in one critic step.
        compact: Whether :meth:`prepared` reduces the dimension so much that it is worth computing once for all samples.
        say: The share of the first rounds that all candidates of its class have together, relative to others.
    """

    family: ClassVar[str | None] = None
    simplicity: ClassVar[float | None] = None
    slow_to_build: ClassVar[bool] = False
    name: str
    module: nn.Module
    units: Units
    spread: float = 1.0
    batch: int = 512
    compact: bool = False
    say: float = 1.0

    @classmethod
    def proposed(cls, start: Start) -> Iterator[Candidate]:
        """Its candidates, the simplest first, each built on demand."""
        return iter(())

    @property
    def unit(self) -> float:
        return self.units.scale

    def prepared(self, samples: Tensor) -> Tensor:
        """The module's inputs, from samples in its units."""
        return samples

    def new_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """An optimiser over a copy of the module, at the initial learning rates."""
        groups = parameter_groups(module, LEARNING_RATE, spread=self.spread)
        return torch.optim.Adam(groups, betas=(0.9, 0.99), fused=True)

    def constant(self, module: nn.Module) -> float:
        """A proved Lipschitz constant of `module`."""
        return certify(module).lipschitz

    def released(self, module: nn.Module) -> Candidate | None:
        """The candidate that goes on from a trained copy of the module and trains what was held fixed, if anything."""
        return None

    def finished(self, module: nn.Module) -> nn.Module:
        """The certified critic, in raw units, from a trained copy of the module."""
        *layers, _ = module.children()  # all but the squeeze
        return self.units.wrapped(layers, 1.0)


class _Network(Candidate):
    """A critic of the package."""

    batch = 256

    def __init__(self, module: nn.Module, units: Units) -> None:
        self.name, self.module, self.units = str(self.family), module, units

    @classmethod
    def proposed(cls, start: Start) -> Iterator[Candidate]:
        if start.asked_for or start.dim * _width(start.dim) ** 2 < PROOF_SPEED * start.time_left():
            critic = cls.built(start.dim)
            critic.start_at(start.x, start.y)
            yield cls(critic, start.units)

    @staticmethod
    @abstractmethod
    def built(dim: int) -> Critic:
        """The critic, for samples of dimension d."""


class _ResNet(_Network):
    family = "resnet"
    simplicity = 2

    def new_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return Muon(parameter_groups(module, spread=self.spread), betas=(0.9, 0.99))

    @staticmethod
    def built(dim: int) -> Critic:
        return ResNetCritic(dim, width=_width(dim), depth=4, bias_scale=_bias_scale(dim))


class _Principal(_Network):
    """Its first layer does not train: its outputs are computed once."""

    family = "principal"
    simplicity = 1.5
    compact = True

    def __init__(self, critic: PrincipalCritic, units: Units) -> None:
        self.front, module = critic.split_frozen()
        super().__init__(module, units)

    @classmethod
    def proposed(cls, start: Start) -> Iterator[Candidate]:
        few = start.dim * AXES**2 < PROOF_SPEED * start.time_left()
        if start.asked_for or (start.dim > WIDTH and few):
            critic = cls.built(start.dim)
            critic.start_at(start.x, start.y)
            yield cls(critic, start.units)

    @staticmethod
    def built(dim: int) -> PrincipalCritic:
        return PrincipalCritic(dim, axes=min(AXES, max(1, dim // 2)))

    @torch.no_grad()
    def prepared(self, samples: Tensor) -> Tensor:
        return self.front(samples)

    def released(self, module: nn.Module) -> Candidate:
        whole = nn.Sequential(*copy.deepcopy(self.front).children(), *copy.deepcopy(module).children())
        return _Released(whole.requires_grad_(True), self.units)

    def finished(self, module: nn.Module) -> nn.Module:
        *layers, _ = module.children()
        return self.units.wrapped([*self.front.children(), *layers], 1.0)


class _Released(_ResNet):
    """A principal critic whose axes train too."""

    def __init__(self, module: nn.Module, units: Units) -> None:
        super().__init__(module, units)
        self.name = "principal, released"


class _Sorting(_Network):
    family = "sorting"

    @staticmethod
    def built(dim: int) -> Critic:
        return SortingCritic(dim, width=_width(dim), depth=4, bias_scale=_bias_scale(dim))


class _FixedWidth(_Network):
    family = "fixed_width"

    @staticmethod
    def built(dim: int) -> Critic:
        return FixedWidthCritic(dim)


class OwnCandidate(Candidate):
    """The user's own module, for samples of the given spread."""

    unit = 1.0

    def __init__(self, module: nn.Module, spread: float) -> None:
        self.name, self.module, self.spread = type(module).__name__, module, spread
        self.like = next(module.parameters(), torch.zeros(()))
        if not 0 < spread < torch.finfo(self.like.dtype).max / 1e3:  # rates in proportion to it must be numbers
            self.spread = 1.0

    def prepared(self, samples: Tensor) -> Tensor:
        return samples.to(self.like.dtype)

    def finished(self, module: nn.Module) -> nn.Module:
        return module.requires_grad_(True)


class _LinearCandidate(Candidate):
    """The projection on the direction between the means, which needs no training."""

    simplicity = 0

    def __init__(self, x: Tensor, y: Tensor, units: Units) -> None:
        direction = x.mean(dim=0) - y.mean(dim=0)
        if not direction.any():
            direction[0] = 1
        module = nn.Sequential(_projection(direction), Squeeze())
        self.name, self.module, self.units = "linear", module, units

    @classmethod
    def proposed(cls, start: Start) -> Iterator[Candidate]:
        yield cls(start.x, start.y, start.units)


class _Cones(nn.Module):
    r"""x ↦ sign · min_k(‖x − c_k‖ + b_k), for training: only the lowest cone of each sample is differentiated.

    It is found by a matrix product, which may pick the wrong one of two cones that are nearly equal, at hardly any
    loss. Several times faster than :class:`LipschitzExtension`, whose values do not have that error.
    """

    lengths = ("centers", "offsets")  # see parameter_groups

    def __init__(self, centers: Tensor, offsets: Tensor, sign: float) -> None:
        super().__init__()
        self.centers, self.offsets, self.sign = nn.Parameter(centers), nn.Parameter(offsets), sign

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            lowest = (fast_distances(x, self.centers) + self.offsets).argmin(dim=1)  # (b,)
        ray = x - self.centers[lowest]
        return self.sign * (torch.linalg.vector_norm(ray, dim=1) + self.offsets[lowest])


class _ConesCandidate(Candidate):
    """Cones, trained as :class:`_Cones`, finished as :class:`LipschitzExtension`; after a fixed layer, or none."""

    family = "cones"
    simplicity = 1
    slow_to_build = True

    def __init__(
        self,
        name: str,
        centers: Tensor,
        potential: Potential,
        sign: float,
        units: Units,
        *before: Linear,
    ) -> None:
        heights, _ = potential.enclosed(centers.double())
        cones = _Cones(centers, sign * heights.float(), sign)
        self.name, self.module, self.units = name, nn.Sequential(*before, cones), units
        self.say = min(1.0, FEW_DIMENSIONS / len(units.centre))

    @classmethod
    def proposed(cls, start: Start) -> Iterator[Candidate]:
        return _cones(start)

    def constant(self, module: nn.Module) -> float:
        return 1.0  # that of cones, and at most that of the layer before them

    def finished(self, module: nn.Module) -> nn.Module:
        *before, last = module.children()
        cones = cast(_Cones, last)
        layer = LipschitzExtension.through(cones.centers.detach().double(), cones.offsets.detach().double())
        return self.units.wrapped([*before, layer], cones.sign)


def candidates(
    critic: str, units: Units, x: Tensor, y: Tensor, rng: torch.Generator, time_left: Callable[[], float]
) -> Iterator[Candidate]:
    """The candidates that a name stands for, from samples in `units`, each built on demand.

    If several compete, those that cannot be built and proved in `time_left` seconds are left out, as are further
    candidates of a class that has used its share of the time; the first one never is.
    """
    start = Start(units, x, y, rng, time_left, asked_for=critic != "auto")
    for kind in [_families()[critic]] if start.asked_for else sorted(_competing(), key=lambda kind: kind.slow_to_build):
        end = (1 - BUILDING) * time_left()
        for candidate in kind.proposed(start):
            yield candidate
            if time_left() <= 0:
                return
            if time_left() < end:
                break


def critic_names() -> list[str]:
    """The names that `critic` may take: `auto` for all that compete, or one family."""
    return ["auto", *_families()]


def _kinds() -> list[type[Candidate]]:
    import_all(__package__)
    return concrete_subclasses(Candidate)


def _families() -> dict[str, type[Candidate]]:
    """The classes by name, in order of simplicity."""
    kinds = sorted(_kinds(), key=place)
    return {kind.family: kind for kind in kinds if "family" in vars(kind) and kind.family is not None}


def _competing() -> list[type[Candidate]]:
    kinds = [kind for kind in _kinds() if "simplicity" in vars(kind)]
    return sorted(kinds, key=place)


def place(kind: type[Candidate]) -> float:
    """The place of a class of candidates in order of simplicity."""
    return math.inf if kind.simplicity is None else kind.simplicity


def _width(dim: int) -> int:
    """Width of the networks' states, for samples of dimension d."""
    return min(WIDTH, max(64, dim))


def _bias_scale(dim: int) -> float:
    return 2 / math.sqrt(_width(dim))  # the size of a unit row's product with samples of norm 1, in that dimension


def _cones(start: Start) -> Iterator[Candidate]:
    """Cones of both signs, the fewest first; see Note [Candidates]."""
    units, x, y, rng = start.units, start.x, start.y, start.rng
    most, seconds = min(SOLVED, max(len(x), len(y))), SOLVING * start.time_left()
    _, potential = largest_in_time(lambda size: _solved(x[:size], y[:size]).potential, most, seconds)
    both = torch.cat((x, y))
    for sign in SIGNS:
        yield _ConesCandidate(f"cones-1{SIGNS[sign]}", both.mean(dim=0, keepdim=True), potential, sign, units)
    if x.shape[1] > 1:
        yield from _ridges(units, x, y, rng)
    for count, origins in ((16, ("ends", "both")), (64, ("ends", "both")), (256, ("both",))):
        for sign in SIGNS:
            for origin in origins:
                # P gathers at the tips of falling cones, Q at those of rising ones.
                points = both if origin == "both" else x if sign < 0 else y
                if count < len(points):
                    centers = k_means(points, count, rng)
                    yield _ConesCandidate(f"cones-{count}{SIGNS[sign]} ({origin})", centers, potential, sign, units)


def _ridges(units: Units, x: Tensor, y: Tensor, rng: torch.Generator) -> Iterator[Candidate]:
    """Functions of one direction, of both signs."""
    directions = [x.mean(dim=0) - y.mean(dim=0)]
    if min(len(x), len(y)) >= 2 and x.shape[1] <= LARGEST_COVARIANCE:
        axes = torch.linalg.eigh(x.T.cov() - y.T.cov()).eigenvectors
        directions += [axes[:, 0], axes[:, -1]]
    layers = [_projection(direction) for direction in directions]
    solutions = [_solved(layer(x), layer(y)) for layer in layers]
    layer, solution = max(zip(layers, solutions), key=lambda pair: pair[1].value)
    points = layer(torch.cat((x, y)))
    for sign in SIGNS:
        centers = k_means(points, min(16, len(points)), rng)
        yield _ConesCandidate(f"ridge{SIGNS[sign]}", centers, solution.potential, sign, units, layer)


def _projection(direction: Tensor) -> Linear:
    """x ↦ ⟨x, e⟩, (b, d) → (b, 1), not trained; e is the direction, shape (d,), scaled to length 1, or 0."""
    layer = Linear(Norm.euclidean(len(direction)), Norm((1,))).requires_grad_(False)
    layer.weight.copy_(direction[None])
    Retraction(layer)()
    return layer


def _solved(x: Tensor, y: Tensor) -> Transport:
    """The exact solution between samples in units, which are finite."""
    return solve_problem(Problem.of_checked(x, y))
