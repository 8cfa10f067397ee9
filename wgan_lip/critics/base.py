"""What a critic is: certified layers in a row."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from wgan_lip.lipschitz.layers import Cones, Flatten, GradientFlow, Solver, Squeeze
from wgan_lip.utils.checks import InputError, check_pair
from wgan_lip.utils.clusters import middle_and_spread
from wgan_lip.utils.rebuilding import Rebuildable

__all__ = ["Critic"]


class Critic(Rebuildable, nn.Sequential):
    """Potentials f: R^d → R as a sequence of certified layers; maps (b, d), or (b, c, h, w), to values (b,).

    Its Lipschitz constant is whatever :func:`wgan_lip.certify` proves for the weights it holds; training with
    :func:`wgan_lip.constrain_steps` keeps that at 1.

    With k > 1 heads it holds k potentials over one body and maps to (b, k). The certificate is then in the maximum
    norm of the k values: each potential, and each gap of two at two points, obeys the one constant. The vector of all
    k is not 1-Lipschitz in the Euclidean norm; it is √k-Lipschitz there.

    Attributes:
        dim: Dimension d of the samples.
        heads: Number k of potentials.
        spread: Of the samples, as :meth:`start_at` found it: the median of their distances from the middle; 1 before.
            :func:`wgan_lip.parameter_groups` scales the rates of lengths by it.
        guarantee: What training keeps of its constant; see Note [Guarantees] of :mod:`wgan_lip.critics.baselines`.
    """

    guarantee: ClassVar[str] = "certified"
    spread: float = 1.0

    def __init__(self, dim: int, layers: Mapping[str, nn.Module], heads: int = 1) -> None:
        end = {"squeeze": Squeeze()} if heads == 1 else {}
        super().__init__(OrderedDict({"flatten": Flatten(dim), **layers, **end}))
        self.dim, self.heads = dim, heads

    @torch.no_grad()
    def start_at(self, x: Tensor, y: Tensor, *, solver: Solver | None = None) -> None:
        """Starts folds and cones where the samples are; weights stay. Random, from torch's global generator.

        Also takes the samples' spread, for learning rates.

        A residual layer gets the biases with which each row of W folds some share of the states that reach it: 2 %
        before cones, so that distances between states survive, any share otherwise. For cones see
        :meth:`wgan_lip.lipschitz.layers.Cones.start_at`. Other layers start as they were built.

        Arguments:
            x: Samples of P, shape (n, d).
            y: Samples of Q, shape (m, d).
            solver: Puts cones on the potential of an exact plan between their states; see
                :meth:`wgan_lip.lipschitz.layers.Cones.start_at`. Other layers do not use it.

        Raises:
            InputError: Unusable samples, or of another dimension.
        """
        states, n = self._states(x, y), len(x)
        self.spread = middle_and_spread(states)[1] or 1.0
        with_cones = any(isinstance(layer, Cones) for layer in self)
        for layer in self:
            if isinstance(layer, Cones):
                layer.start_at(states[:n], states[n:], solver=solver)
            elif isinstance(layer, GradientFlow):
                rows = (states @ layer.weight.T).sort(dim=0).values  # (n + m, rows of W)
                share = rows.new_full(rows.shape[1:], 0.02) if with_cones else torch.rand_like(rows[0])
                layer.bias.copy_(-rows.gather(0, ((1 - share) * (len(rows) - 1)).round().long()[None])[0])
            states = layer(states)

    @torch.no_grad()
    def renew(self, x: Tensor, y: Tensor) -> int:
        """Moves cones that no sample feels to where samples are; f stays. Other layers have nothing to renew.

        See :meth:`wgan_lip.lipschitz.layers.Cones.renew`.

        Arguments:
            x: Samples of P, shape (n, d).
            y: Samples of Q, shape (m, d).

        Returns:
            How many cones moved.

        Raises:
            InputError: Unusable samples, or of another dimension.
        """
        states, moved = self._states(x, y), 0
        if not any(isinstance(layer, Cones) for layer in self):
            return 0
        for layer in self:
            if isinstance(layer, Cones):
                moved += layer.renew(states[: len(x)], states[len(x) :])
            states = layer(states)
        return moved

    def _states(self, x: Tensor, y: Tensor) -> Tensor:
        """Both sample sets (n + m, d), checked, as the parameters are."""
        x, y = check_pair(x, y)
        if x.shape[1] != self.dim:
            raise InputError(f"Expected samples of dimension {self.dim}, that of the critic. Got {tuple(x.shape)}.")
        return torch.cat((x, y)).to(next(self.parameters()))
