"""The two families of *Approximation theory for 1-Lipschitz ResNets* (Murari, Furuya, Schönlieb, 2025)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from wgan_lip.critics.base import Critic
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers import (
    Cones,
    GradientFlow,
    Identity,
    Linear,
    LipschitzLayer,
    MaxMin,
    Parallel,
    Retraction,
    new_bias,
)
from wgan_lip.utils.checks import InputError, check_choice, check_sizes

__all__ = ["FixedWidthCritic", "ResNetCritic"]


class ResNetCritic(Critic):
    r"""Family A, of growing width and depth.

    .. math:: f = v \circ \varphi_L \circ \cdots \circ \varphi_1 \circ Q

    Q: R^d → R^h is semi-orthogonal, φ_l are gradient-flow layers (:class:`wgan_lip.lipschitz.layers.GradientFlow`),
    v a unit row; all norms Euclidean. Whether these are dense in the scalar 1-Lipschitz functions on compact sets is
    open to us: the lattice argument of Theorem 3.1 puts functions side by side, and two of them cost √2 in the
    Euclidean norm. On all of R they represent no function with slopes +1, −1, +1; see `wgan-lip guide theory`.

    With `norm="max"` the state carries the maximum norm: the rows of Q have norm at most 1 each, φ_l are the
    gradient-flow layers that are nonexpansive in it, those that sort disjoint pairs (layer l at distance 2^((l − 1)
    mod log2 h)), and v has absolute row sum at most 1. Functions side by side then cost nothing: every maximum of
    minima of 1-Lipschitz affine pieces is represented, for h and L large enough, so these are dense on compact sets.

    Arguments:
        dim: Dimension d of the samples.
        width: Width h of the state; a power of 2 with `norm="max"`. By default 128 with a linear read-out and d
            before cones, which need no more dimensions than the samples have. With h = d there is no Q, which the W_l
            and v could absorb.
        depth: Number L of residual layers; by default 6 with a linear read-out, 2 before cones, where 0 is possible.
        hidden: Rows of each W_l; half the width by default. Not with `norm="max"`.
        activation: A key of :data:`wgan_lip.lipschitz.layers.ACTIVATIONS`, or `spline`; with `norm="max"` only `relu`,
            which sorts.
        bias_scale: The layers' biases start uniform in [−bias_scale, bias_scale]. The lift spreads d coordinates over
            h, so about R·√(d/h) for data of radius R spreads the folds over the data; ten times as much leaves most
            of them outside, and training slow. With `norm="max"` these are the biases of the lift, in the data's units.
        norm: `euclidean` or `max`.
        heads: Number of potentials on the one body; see :class:`Critic`.
        readout: `linear`, or `cones`, with :class:`wgan_lip.lipschitz.layers.Cones` as v; not with `norm="max"`.
        centers: Number of those cones.
        scale: Initial scale of those cones, about the samples' standard deviation. Better: :meth:`Critic.start_at`.
        cooling: How fast the cones' temperature falls: 6 for fixed samples, 0.05 for adversarial training.

    Example:
        >>> critic = ResNetCritic(2, width=16, depth=3)
        >>> critic(torch.zeros(5, 2)).shape
        torch.Size([5])

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), Theorem 3.1
    """

    lift: Linear

    def __init__(
        self,
        dim: int,
        *,
        width: int | None = None,
        depth: int | None = None,
        hidden: int | None = None,
        activation: str = "relu",
        bias_scale: float = 0.1,
        norm: str = "euclidean",
        heads: int = 1,
        readout: str = "linear",
        centers: int = 256,
        scale: float = 1.0,
        cooling: float = 6.0,
    ) -> None:
        check_choice(norm, ["euclidean", "max"], "norm")
        check_choice(readout, ["linear", "cones"], "readout")
        width = (128 if readout == "linear" else dim) if width is None else width
        depth = (6 if readout == "linear" else 2) if depth is None else depth
        check_sizes(dim=dim, width=width, heads=heads, centers=centers)
        check_sizes(depth=depth, least=1 if readout == "linear" else 0)
        if norm == "max" and (
            width & (width - 1) or width < 2 or hidden is not None or activation != "relu" or readout != "linear"
        ):
            raise InputError(
                'norm="max" needs a width that is a power of 2, no hidden, activation "relu" and readout "linear", '
                f"since its layers sort pairs and have no weights; not width={width}, hidden={hidden}, "
                f"activation={activation!r}, readout={readout!r}."
            )
        state = Norm.euclidean(width) if norm == "euclidean" else Norm((1,) * width)
        hidden = max(1, width // 2) if hidden is None else hidden
        layers: OrderedDict[str, LipschitzLayer] = OrderedDict()
        if width != dim or norm == "max":  # an orthogonal square Q adds nothing: W_l and v absorb it
            layers["lift"] = Linear(Norm.euclidean(dim), state)
        for index in range(depth):
            layers[f"block_{index + 1}"] = (
                GradientFlow(width, hidden, activation=activation, bias_scale=bias_scale)
                if norm == "euclidean"
                else MaxMin(width, state, stride=2 ** (index % (width.bit_length() - 1)))
            )
        if readout == "linear":
            layers["readout"] = Linear(state, Norm((1,) * heads))
        else:
            layers["readout"] = Cones(width, centers, heads=heads, scale=scale, cooling=cooling)
        super().__init__(dim, layers, heads)
        if norm == "max":
            self.lift.bias = nn.Parameter(new_bias(width, bias_scale))


class FixedWidthCritic(Critic):
    r"""Family B, of fixed width h = d + 3, with norm-constrained affine maps between the blocks.

    .. math:: f = v \circ A_L \circ \Phi_L \circ \cdots \circ A_1 \circ \Phi_1 \circ Q

    The state (s_1, s_2, s_3, z), z ∈ R^d, carries the norm max(|s_1|, |s_2|, |s_3|, ‖z‖). A block Φ sorts (s_1, s_2),
    keeps s_3, and moves z by a gradient-flow layer. Dense in the scalar 1-Lipschitz functions as L grows.

    Arguments:
        dim: Dimension d of the samples.
        depth: Number L of blocks.
        hidden: Rows of each W_l; half of d, at least 1, by default.
        activation: A key of :data:`wgan_lip.lipschitz.layers.ACTIVATIONS`, or `spline`.
        bias_scale: The layers' biases start uniform in [−bias_scale, bias_scale], about the radius of the data.
        heads: Number of potentials on the one body; see :class:`Critic`.

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), Theorem 4.1
    """

    lift: Linear
    readout: Linear

    def __init__(
        self,
        dim: int,
        *,
        depth: int = 16,
        hidden: int | None = None,
        activation: str = "relu",
        bias_scale: float = 1.5,
        heads: int = 1,
    ) -> None:
        check_sizes(dim=dim, depth=depth, heads=heads)
        state = Norm((1, 1, 1, dim))
        hidden = max(1, dim // 2) if hidden is None else hidden
        layers: OrderedDict[str, LipschitzLayer] = OrderedDict(lift=Linear(Norm.euclidean(dim), state))
        for index in range(1, depth + 1):
            flow = GradientFlow(dim, hidden, activation=activation, bias_scale=bias_scale)
            layers[f"block_{index}"] = Parallel(MaxMin(2), Identity(Norm((1,))), flow)
            layers[f"affine_{index}"] = Linear(state, state)
        layers["readout"] = Linear(state, Norm((1,) * heads))
        super().__init__(dim, layers, heads)
        self._start_as_running_maximum(bias_scale)

    @torch.no_grad()
    def _start_as_running_maximum(self, bias_scale: float) -> None:
        """Starts as the maximum of one random piece per block: s_1 ← s_1, s_2 ← u·z + β, s_3 ← s_3; f = s_1.

        Rows that mix all of the state, the other natural start, dilute each scalar, more so with depth.
        """
        for name, layer in self.named_children():
            if name.startswith("affine") and isinstance(layer, Linear):
                piece = nn.functional.normalize(torch.randn(self.dim), dim=0)
                layer.weight[:3] = 0
                layer.weight[0, 0] = layer.weight[2, 2] = 1
                layer.weight[1, 3:] = piece
                layer.bias[1].uniform_(-0.3 * bias_scale, 0.3 * bias_scale)
        self.readout.weight[:] = torch.eye(self.heads, self.dim + 3)
        Retraction(self)()
