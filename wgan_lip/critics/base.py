"""The base of all critics: certified layers in sequence."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip.lipschitz.layers import Flatten, Solver, Squeeze
from wgan_lip.lipschitz.layers.base import renew_chain, start_chain
from wgan_lip.utils.checks import InputError, check_pair
from wgan_lip.utils.clusters import middle_and_spread
from wgan_lip.utils.rebuilding import BUILT_WITH, Rebuildable

__all__ = ["Critic"]


class Critic(Rebuildable, nn.Sequential):
    """Potentials f: R^d → R as a sequence of certified layers; maps (b, d), or (b, c, h, w), to values (b,).

    Its Lipschitz constant is whatever :func:`wgan_lip.certify` proves for the weights it holds; training with
    :func:`wgan_lip.constrain_steps` keeps that at 1.

    With k > 1 heads it holds k potentials on one body and maps to (b, k). The certificate is then in the maximum norm
    of the k values: the constant holds for each potential. The vector of all k is not 1-Lipschitz in the Euclidean
    norm; it is √k-Lipschitz there.

    Attributes:
        dim: Dimension d of the samples.
        heads: Number k of potentials.
        spread: Spread of the samples as found by :meth:`start_at`: the median of their distances from the middle; 1
            before. :func:`wgan_lip.parameter_groups` scales the rates of lengths by it.
        guarantee: What training guarantees about its constant; see Note [Guarantees] of
            :mod:`wgan_lip.critics.baselines`.
    """

    guarantee: str = "certified"
    spread: float = 1.0

    def __init__(self, dim: int, layers: Mapping[str, nn.Module], heads: int = 1) -> None:
        end = {"squeeze": Squeeze()} if heads == 1 else {}
        super().__init__(OrderedDict({"flatten": Flatten(dim), **layers, **end}))
        self.dim, self.heads = dim, heads

    @classmethod
    def examples(cls) -> Iterator[Critic]:
        """A few small critics of this class, which the tests try to break: by default one, of dimension 3, if that is
        the only argument without a default."""
        try:
            critic = cls(3)  # type: ignore[call-arg]  # a subclass brings the layers
        except TypeError as error:
            raise NotImplementedError(
                f"{cls.__name__} has no examples, and {cls.__name__}(3) fails: {error}. Write a classmethod examples "
                "that yields small critics, as in: yield cls(3, width=8)"
            ) from error
        yield critic

    def another(self) -> Critic:
        """A critic built like this one, with new weights."""
        args, keywords = getattr(self, BUILT_WITH)
        return type(self)(*_anew(args), **_anew(keywords))

    @torch.no_grad()
    def start_at(self, x: Tensor, y: Tensor, *, solver: Solver | None = None) -> None:
        """Starts each layer at the states that reach it. Random, from torch's global generator.

        Also measures the samples' spread, for learning rates. Residual layers put their folds where the states are
        (:meth:`wgan_lip.lipschitz.layers.GradientFlow.start_at`), cones their tips
        (:meth:`wgan_lip.lipschitz.layers.Cones.start_at`). Other layers start as they were built.

        Arguments:
            x: Samples of P, shape (n, d).
            y: Samples of Q, shape (m, d).
            solver: Puts cones on the potential of an exact plan between their states.

        Raises:
            InputError: Samples that are unusable or have another dimension.
        """
        states = self._states(x, y)
        self.spread = middle_and_spread(states)[1] or 1.0
        start_chain(self, states, len(x), solver=solver)

    @torch.no_grad()
    def renew(self, x: Tensor, y: Tensor) -> int:
        """Renews each layer at the states that reach it: moves parts that affect no sample to the samples; f stays.

        See :meth:`wgan_lip.lipschitz.layers.Cones.renew`; other layers of the package have nothing to renew.

        Arguments:
            x: Samples of P, shape (n, d).
            y: Samples of Q, shape (m, d).

        Returns:
            How many cones, or other parts of layers, moved.

        Raises:
            InputError: Samples that are unusable or have another dimension.
        """
        return renew_chain(self, self._states(x, y), len(x))

    def split_frozen(self) -> tuple[nn.Sequential, nn.Sequential]:
        """The layers before the first one that trains, and all others: outputs of the former at fixed samples can be
        computed once. Both parts hold this critic's own layers."""
        layers = list(self.named_children())
        trains = [any(parameter.requires_grad for parameter in layer.parameters()) for _, layer in layers]
        first = trains.index(True) if True in trains else len(layers)
        return nn.Sequential(OrderedDict(layers[:first])), nn.Sequential(OrderedDict(layers[first:]))

    def _states(self, x: Tensor, y: Tensor) -> Tensor:
        """Both sample sets (n + m, d), checked, with the dtype and device of the parameters."""
        x, y = check_pair(x, y)
        if x.shape[1] != self.dim:
            raise InputError(f"Samples must have dimension {self.dim}, that of the critic, not shape {tuple(x.shape)}.")
        return torch.cat((x, y)).to(next(self.parameters()))


def _anew(argument: Any) -> Any:
    """A copy of a critic's argument that shares no module with it."""
    if isinstance(argument, Critic):
        return argument.another()
    if isinstance(argument, (list, tuple)):
        return [_anew(part) for part in argument]
    if isinstance(argument, dict):
        return {name: _anew(part) for name, part in argument.items()}
    return copy.deepcopy(argument) if isinstance(argument, nn.Module) else argument
