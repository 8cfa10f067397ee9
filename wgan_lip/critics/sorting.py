"""The sorting family: norm-constrained affine maps with sorting between them."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from wgan_lip.critics.base import Critic
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers import GroupSort, Linear, LipschitzLayer, new_bias
from wgan_lip.utils.checks import check_sizes

__all__ = ["SortingCritic"]


class SortingCritic(Critic):
    r"""Semi-orthogonal affine maps with sorting between them, without residual connections.

    .. math:: f = v \circ \operatorname{sort} \circ A_L \circ \cdots \circ \operatorname{sort} \circ A_1

    All norms Euclidean; A_1: R^d → R^h, v a unit row. Sorting keeps the gradient norm, and so do orthogonal A_l.

    Arguments:
        dim: Dimension d of the samples.
        width: Width h of the state.
        depth: Number L of affine maps, each followed by a sort.
        group: Channels sorted together, a divisor of the width; the width itself sorts the whole state.
        bias_scale: The biases of A_l start uniform in [−bias_scale, bias_scale], as in
            :class:`wgan_lip.critics.ResNetCritic`.
        heads: Number of potentials on the one body; see :class:`Critic`.

    Example:
        >>> import torch
        >>> critic = SortingCritic(2, width=16, depth=3, group=4)
        >>> critic(torch.zeros(5, 2)).shape
        torch.Size([5])

    References:
        Sorting out Lipschitz function approximation (Anil, Lucas, Grosse, 2019)
    """

    def __init__(
        self,
        dim: int,
        *,
        width: int = 128,
        depth: int = 4,
        group: int = 2,
        bias_scale: float = 0.1,
        heads: int = 1,
    ) -> None:
        check_sizes(dim=dim, width=width, depth=depth, heads=heads)
        state = Norm.euclidean(width)
        layers: OrderedDict[str, LipschitzLayer] = OrderedDict()
        for index in range(1, depth + 1):
            affine = Linear(Norm.euclidean(dim) if index == 1 else state, state)
            affine.bias = nn.Parameter(new_bias(width, bias_scale))
            layers[f"affine_{index}"] = affine
            layers[f"sort_{index}"] = GroupSort(width, group, state)
        layers["readout"] = Linear(state, Norm((1,) * heads))
        super().__init__(dim, layers, heads)
