"""Other constraints on a critic: clipped weights, penalties, spectral normalisation, Björck's iteration."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from wgan_lip.critics.base import Critic
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers import GroupSort, LipschitzLayer
from wgan_lip.lipschitz.layers.activations import as_activation
from wgan_lip.lipschitz.layers.normalised import BjorckLinear, ClippedLinear, SpectralNormLinear
from wgan_lip.utils.checks import InputError, check_sizes
from wgan_lip.utils.slopes import gradients

__all__ = ["ClippedCritic", "GroupSortCritic", "PenalizedCritic", "SpectralNormCritic"]

# Note [Guarantees]
# A critic's `guarantee` says what its training guarantees, not what `certify` proves, which holds for all of them:
# - "certified": the certified constant stays at most 1, so the dual value itself is a lower bound on W1.
# - "certified, conservative": the construction bounds the certified constant, but well above the steepest slope. The
#   dual value divided by it is a lower bound, lower than necessary.
# - "not certified": nothing bounds it. The dual value divided by the certified constant is still a lower bound, mostly
#   near 0; the dual value itself is not, and may exceed W1.


class ClippedCritic(Critic):
    r"""A perceptron with clipped weights, the critic of the first WGAN.

    .. math:: f = A_{L+1} \circ \sigma \circ A_L \circ \cdots \circ \sigma \circ A_1, \qquad |A_l|_{ij} \le c

    Arguments:
        dim: Dimension d of the samples.
        width: Width h of the hidden layers.
        depth: Number L of hidden layers.
        clip: Largest size c of a weight or bias; see :class:`ClippedLinear`.
        activation: A key of :data:`wgan_lip.lipschitz.layers.ACTIVATIONS`, or `spline`.

    Guarantee:
        `certify` multiplies verified norms. The constant is not chosen, and not attained: the dual value divided by it
        is a lower bound on W1, lower than necessary.

    Example:
        >>> ClippedCritic(2, width=16)(torch.zeros(5, 2)).shape
        torch.Size([5])

    References:
        Wasserstein GAN (Arjovsky, Chintala, Bottou, 2017), Algorithm 1
    """

    guarantee = "certified, conservative"

    def __init__(
        self, dim: int, *, width: int = 128, depth: int = 3, clip: float = 0.01, activation: str = "relu"
    ) -> None:
        super().__init__(dim, _perceptron(dim, width, depth, activation, lambda n, m: ClippedLinear(n, m, clip)))


class PenalizedCritic(Critic):
    r"""A perceptron without constraints, trained with a penalty on the length of its gradient.

    .. math:: \max_f \; E_P f - E_Q f - \lambda E \bigl( \|\nabla f(\hat x)\| - 1 \bigr)^2, \qquad
              \hat x = \varepsilon x + (1 - \varepsilon) y

    with ε uniform in [0, 1]. The one-sided penalty is zero where the gradient is shorter than 1.

    :func:`wgan_lip.wasserstein.dual.ascend`, and so :func:`wgan_lip.train_wgan`, subtracts :meth:`penalty` from the
    dual value. A critic wrapped in another module loses it.

    Arguments:
        dim: Dimension d of the samples.
        width: Width h of the hidden layers.
        depth: Number L of hidden layers.
        penalty_weight: λ.
        one_sided: Whether only gradients above 1 are penalised.
        activation: A key of :data:`wgan_lip.lipschitz.layers.ACTIVATIONS`, or `spline`.

    Guarantee:
        None: the penalty acts only near the points drawn, and the dual value may exceed W1. `certify` multiplies
        verified norms; divided by that product, which grows with width and depth, the dual value is a lower bound near
        0.

    Example:
        >>> critic = PenalizedCritic(2, width=16)
        >>> critic.penalty(torch.zeros(5, 2), torch.ones(5, 2)).item() > 0
        True

    References:
        Improved training of Wasserstein GANs (Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville, 2017), equation 3
        On the regularization of Wasserstein GANs (Petzka, Fischer, Lukovnikov, 2018), equation 9
    """

    guarantee = "not certified"

    def __init__(
        self,
        dim: int,
        *,
        width: int = 128,
        depth: int = 3,
        penalty_weight: float = 10.0,
        one_sided: bool = False,
        activation: str = "relu",
    ) -> None:
        if not 0 <= penalty_weight < math.inf:
            raise InputError(f"penalty_weight must be finite and at least 0, not {penalty_weight}.")
        super().__init__(dim, _perceptron(dim, width, depth, activation, nn.Linear))
        self.penalty_weight, self.one_sided = penalty_weight, one_sided
        # On the CPU, so that one seed draws the same points on every device.
        self.rng = torch.Generator().manual_seed(int(torch.randint(2**62, ())))

    def penalty(self, x: Tensor, y: Tensor) -> Tensor:
        """The weighted penalty at random points between x and y, shape (n, d) and (m, d): a scalar with gradient.

        Row i of x is paired with row i of y; the longer set is cut. Points are drawn from the critic's own random
        stream, seeded from torch's default generator at construction; its state is in the state dict, and copies
        continue it.
        """
        count = min(len(x), len(y))
        x, y = x[:count].flatten(1), y[:count].flatten(1)
        share = torch.rand(count, 1, generator=self.rng).to(x, non_blocking=True)
        slopes = gradients(self, torch.lerp(y, x, share), create_graph=True)  # (b, d)
        excess = torch.linalg.vector_norm(slopes, dim=1) - 1  # (b,)
        excess = excess.clamp_min(0) if self.one_sided else excess
        return self.penalty_weight * excess.square().mean()

    def get_extra_state(self) -> Tensor:
        return self.rng.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self.rng.set_state(state.cpu())


class SpectralNormCritic(Critic):
    r"""A perceptron with spectral normalisation.

    .. math:: f = A_{L+1} \circ \sigma \circ A_L \circ \cdots \circ \sigma \circ A_1, \qquad
              A_l(x) = W_l x / \hat\sigma_l + b_l

    Arguments:
        dim: Dimension d of the samples.
        width: Width h of the hidden layers.
        depth: Number L of hidden layers.
        activation: A key of :data:`wgan_lip.lipschitz.layers.ACTIVATIONS`, or `spline`.

    Guarantee:
        `certify` multiplies the layers' constants, each above 1 by the error of power iteration; see
        :class:`SpectralNormLinear`. Slopes fall far short of the product, since no layer keeps the gradient norm.

    Example:
        >>> SpectralNormCritic(2, width=16)(torch.zeros(5, 2)).shape
        torch.Size([5])

    References:
        Spectral normalization for generative adversarial networks (Miyato, Kataoka, Koyama, Yoshida, 2018)
    """

    guarantee = "certified, conservative"

    def __init__(self, dim: int, *, width: int = 128, depth: int = 3, activation: str = "relu") -> None:
        super().__init__(dim, _perceptron(dim, width, depth, activation, SpectralNormLinear))


class GroupSortCritic(Critic):
    r"""Weights orthonormalised in every evaluation, with sorting between them.

    .. math:: f = A_{L+1} \circ \operatorname{sort} \circ A_L \circ \cdots \circ \operatorname{sort} \circ A_1

    Every A_l is a :class:`BjorckLinear`. :class:`wgan_lip.critics.SortingCritic` is the same function, constrained by
    retraction instead, at a fraction of the cost.

    Arguments:
        dim: Dimension d of the samples.
        width: Width h of the state.
        depth: Number L of sorts.
        group: Channels sorted together, a divisor of the width; the width itself sorts the whole state.
        iterations: Björck steps for every weight in every evaluation.
        bias_scale: The biases start uniform in [−bias_scale, bias_scale].

    Guarantee:
        Constant 1 for all finite weights; see :class:`BjorckLinear`.

    Example:
        >>> GroupSortCritic(2, width=16)(torch.zeros(5, 2)).shape
        torch.Size([5])

    References:
        Sorting out Lipschitz function approximation (Anil, Lucas, Grosse, 2019)
    """

    guarantee = "certified"

    def __init__(
        self,
        dim: int,
        *,
        width: int = 128,
        depth: int = 3,
        group: int = 2,
        iterations: int = 12,
        bias_scale: float = 0.1,
    ) -> None:
        check_sizes(dim=dim, width=width, depth=depth)

        def linear(dim_in: int, dim_out: int) -> BjorckLinear:
            return BjorckLinear(dim_in, dim_out, iterations=iterations, bias_scale=bias_scale)

        layers: OrderedDict[str, LipschitzLayer] = OrderedDict()
        for index in range(1, depth + 1):
            layers[f"affine_{index}"] = linear(dim if index == 1 else width, width)
            layers[f"sort_{index}"] = GroupSort(width, group, Norm.euclidean(width))
        layers["readout"] = linear(width, 1)
        super().__init__(dim, layers)


def _perceptron(
    dim: int, width: int, depth: int, activation: str, linear: Callable[[int, int], nn.Module]
) -> OrderedDict[str, nn.Module]:
    """`depth` hidden layers (b, width), each an affine map followed by an activation, and a last map to (b, 1)."""
    check_sizes(dim=dim, width=width, depth=depth)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index in range(1, depth + 1):
        layers[f"affine_{index}"] = linear(dim if index == 1 else width, width)
        layers[f"activation_{index}"] = as_activation(activation, width)
    layers["readout"] = linear(width, 1)
    return layers
