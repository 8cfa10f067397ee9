"""Critics made of critics: lattice operations, sums, clipping and scaling, and the mean of several of one kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import nn

from wgan_lip.critics.base import Critic
from wgan_lip.lipschitz.layers import Branches, Maximum, Minimum, Mixture, WeightedSum
from wgan_lip.lipschitz.layers.base import kept_by_training
from wgan_lip.lipschitz.proofs import claim_of
from wgan_lip.utils.checks import InputError, check_choice, check_sizes

__all__ = [
    "RULES",
    "CombinedCritic",
    "MeanCritic",
    "clipped",
    "maximum",
    "mean",
    "minimum",
    "mixture",
    "scaled",
    "shifted",
    "weighted_sum",
]

RULES: Mapping[str, Callable[..., Branches]] = MappingProxyType(
    {"maximum": Maximum, "minimum": Minimum, "sum": WeightedSum, "mixture": Mixture}
)
"""How the values of several critics become one, by name."""

GUARANTEES = ("not certified", "certified, conservative", "certified")  # the weakest first


class CombinedCritic(Critic):
    r"""A critic made of critics for the same samples, whose values are combined, and then clipped.

    .. math:: f = \min(\max(J(f_1, \ldots, f_k), a), b)

    with J the maximum, the minimum, a sum with fixed weights, or one with trained weights. The critics become parts of
    this one, and are not copied: training one trains the other. They may be combined critics themselves.

    Arguments:
        critics: One or more, with the same dimension and number of heads; any modules that :func:`wgan_lip.certify`
            proves, such as fitted critics.
        rule: A key of :data:`RULES`: `maximum`, `minimum`, `sum` or `mixture`.
        weights: For a sum, one for each critic, by default 1/k; for a mixture, the initial ones.
        shift: A number added to a sum.
        low: a; None for no bound from below.
        high: b; None for no bound from above.

    Raises:
        InputError: Critics that do not fit together, or that are trained with a penalty, which would be lost.

    Guarantee:
        Each critic is certified separately. With constants L_i, the maximum and the minimum have max_i L_i, since
        x ↦ (f_1(x), …, f_k(x)) has it in the maximum norm and max is 1-Lipschitz there; sums have Σ |w_i| L_i.
        Clipping does not change it. Training keeps Σ |w_i| = 1 for a mixture.

    Example:
        >>> import torch
        >>> from wgan_lip.critics import ResNetCritic, SortingCritic
        >>> critic = CombinedCritic([ResNetCritic(2, width=8), SortingCritic(2, width=8)], "maximum", low=-1.0)
        >>> critic(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        critics: Sequence[nn.Module],
        rule: str = "sum",
        *,
        weights: Sequence[float] | None = None,
        shift: float = 0.0,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        check_choice(rule, list(RULES), "rule")
        given = [critics] if isinstance(critics, (str, nn.Module)) or not isinstance(critics, Sequence) else critics
        if given is not critics or not given or not all(isinstance(each, nn.Module) for each in given):
            kinds = ", ".join(type(each).__name__ for each in given) or "none"
            raise InputError(f"critics must be a list of at least one critic, not {kinds}.")
        for each in critics:
            if hasattr(each, "penalty"):
                raise InputError(
                    f"{type(each).__name__} is trained with a penalty, which would be lost in a combined critic. Use "
                    "critics without one."
                )
        if (weights is not None and rule not in ("sum", "mixture")) or (shift and rule != "sum"):
            raise InputError(f"A {rule} takes no {'shift' if shift and rule != 'sum' else 'weights'}. Leave it out.")
        settings: dict[str, Any] = {"weights": weights} if rule in ("sum", "mixture") else {}
        settings |= {"shift": shift} if rule == "sum" else {}
        layers: dict[str, nn.Module] = {"combined": RULES[rule](*critics, **settings)}
        if low is not None or high is not None:
            ends = -math.inf if low is None else float(low), math.inf if high is None else float(high)
            if not ends[0] < ends[1]:
                raise InputError(f"low must be below high, not {low} and {high}.")
            layers["clip"] = nn.Hardtanh(*ends)
        dim, heads = _sizes(critics)
        super().__init__(dim, layers, heads)
        self.guarantee = min((kept_by_training(each) for each in critics), key=GUARANTEES.index)
        total = sum(map(abs, getattr(layers["combined"], "weights", (0.0,))))
        if self.guarantee == "certified" and total > 1:
            self.guarantee = "certified, conservative"

    @classmethod
    def examples(cls) -> Iterator[Critic]:
        from wgan_lip.critics.resnet import ResNetCritic
        from wgan_lip.critics.sorting import SortingCritic

        sizes = [(ResNetCritic, {"width": 6, "depth": 1}), (SortingCritic, {"width": 6, "depth": 2, "heads": 2})]
        for kind, size in sizes:
            for rule in RULES:
                yield cls([kind(3, **size) for _ in range(2)], rule)
        yield cls([ResNetCritic(3, depth=1, readout="cones", centers=6), maximum(SortingCritic(3, width=4, depth=1))])
        yield scaled(clipped(SortingCritic(3, width=4, depth=1), -0.5, 4.0), -2.0)


class MeanCritic(CombinedCritic):
    r"""The mean of several critics of one kind, each with its own weights.

    .. math:: f = \frac{1}{k} \sum_i f_i

    Arguments:
        of: One of them; the others are built with the same arguments.
        members: Their number k.

    Guarantee:
        The mean of their constants; see :class:`CombinedCritic`.

    Example:
        >>> from wgan_lip.critics import SortingCritic
        >>> critic = MeanCritic(SortingCritic(2, width=8), members=4)
        >>> len(critic.combined.layers)
        4
    """

    def __init__(self, of: Critic, *, members: int = 2) -> None:
        check_sizes(members=members)
        if not isinstance(of, Critic):
            raise InputError(f"of must be a critic of this package, to build others like it, not {type(of).__name__}.")
        super().__init__([of, *(of.another() for _ in range(members - 1))])

    @classmethod
    def examples(cls) -> Iterator[Critic]:
        from wgan_lip.critics.sorting import SortingCritic

        yield cls(SortingCritic(3, width=4, depth=2, group=4), members=3)


def maximum(*critics: nn.Module) -> CombinedCritic:
    """The largest of the values of critics, with the largest of their constants; see :class:`CombinedCritic`.

    Example:
        >>> import torch
        >>> from wgan_lip import certify
        >>> from wgan_lip.critics import ResNetCritic
        >>> critic = maximum(ResNetCritic(2, width=8), ResNetCritic(2, width=8))
        >>> certify(critic).lipschitz <= 1
        True
    """
    return CombinedCritic(critics, "maximum")


def minimum(*critics: nn.Module) -> CombinedCritic:
    """The least of the values of critics, with the largest of their constants; see :class:`CombinedCritic`."""
    return CombinedCritic(critics, "minimum")


def mean(*critics: nn.Module) -> CombinedCritic:
    """The mean of critics, with the mean of their constants; see :class:`CombinedCritic`, and :class:`MeanCritic`."""
    return CombinedCritic(critics)


def weighted_sum(critics: Sequence[nn.Module], weights: Sequence[float], shift: float = 0.0) -> CombinedCritic:
    """Σ w_i f_i + shift, with the constant Σ |w_i| L_i; see :class:`CombinedCritic`."""
    return CombinedCritic(critics, weights=weights, shift=shift)


def mixture(*critics: nn.Module, weights: Sequence[float] | None = None) -> CombinedCritic:
    """Σ w_i f_i with trained weights, Σ |w_i| = 1, equal ones at the start; see :class:`CombinedCritic`."""
    return CombinedCritic(critics, "mixture", weights=weights)


def scaled(critic: nn.Module, factor: float) -> CombinedCritic:
    """A critic times a number, with its constant times |factor|; see :class:`CombinedCritic`."""
    return CombinedCritic([critic], weights=[factor])


def shifted(critic: nn.Module, shift: float) -> CombinedCritic:
    """A critic plus a number, with the same constant; see :class:`CombinedCritic`."""
    return CombinedCritic([critic], shift=shift)


def clipped(critic: nn.Module, low: float | None = None, high: float | None = None) -> CombinedCritic:
    """A critic with its values clipped to [low, high], with the same constant.

    None means no bound; see :class:`CombinedCritic`.
    """
    return CombinedCritic([critic], low=low, high=high)


def _sizes(critics: Sequence[nn.Module]) -> tuple[int, int]:
    """Dimension and number of heads of critics, which must agree."""
    found = []
    for each in critics:
        if isinstance(each, Critic):
            found.append((each.dim, each.heads))
            continue
        claim = claim_of(each)
        if claim.norm_in is None or claim.norm_out is None:
            raise InputError(f"Critics must know their dimension; {type(each).__name__} takes any.")
        found.append((claim.norm_in.dim, claim.norm_out.dim))
    for name, sizes in (("dimension", [size[0] for size in found]), ("number of heads", [size[1] for size in found])):
        if len(set(sizes)) > 1:
            raise InputError(f"Critics must have the same {name}, not {', '.join(map(str, sizes))}.")
    return found[0]
