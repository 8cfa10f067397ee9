"""Critics on principal coordinates and the energies of the rest: few coordinates, so cheaper steps."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from wgan_lip.critics.base import Critic
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers import GradientFlow, Linear, LipschitzLayer, PrincipalEnergies, block_groups
from wgan_lip.utils.checks import InputError, check_sizes

__all__ = ["ImageCritic", "PrincipalCritic"]

AXES, WIDTH = 192, 128  # principal coordinates and width of the state, at most, by default


class PrincipalCritic(Critic):
    r"""Residual layers on the first principal coordinates and the energies of what they leave out.

    .. math:: f = v \circ \varphi_L \circ \cdots \circ \varphi_1 \circ Q \circ P

    P is :class:`wgan_lip.lipschitz.layers.PrincipalEnergies`, which :meth:`Critic.start_at` sets from samples and
    training leaves unchanged, unless `trained`; Q, φ and v are as in :class:`ResNetCritic`. Start it at samples: before
    that its axes are random. Muon trains it better than Adam.

    Arguments:
        dim: Dimension d of the samples.
        axes: Principal coordinates; by default 192, or half of d if that is less. With few, a step takes less time, but
            after some thousand steps the critic stops improving.
        groups: Groups of coordinates whose energies are taken; see :class:`PrincipalEnergies`. One by default.
        width: Width h of the state; by default that of P's output, up to 128. If they are equal, there is no Q.
        depth: Number L of residual layers.
        activation: A key of :data:`wgan_lip.lipschitz.layers.ACTIVATIONS`, or `spline`.
        bias_scale: The layers' biases start uniform in [−bias_scale, bias_scale], in the samples' units; see
            :class:`ResNetCritic`.
        heads: Number of potentials on the one body; see :class:`Critic`.
        trained: Whether P trains with the rest. Its axes then turn to what the laws have in common, or differ in, and
            its energies become distances from a subspace; but P is evaluated in each step, so that steps on fixed
            samples take several times as long.

    Example:
        >>> critic = PrincipalCritic(100, axes=8)
        >>> critic(torch.zeros(5, 100)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        dim: int,
        *,
        axes: int | None = None,
        groups: Sequence[int] | Tensor | None = None,
        width: int | None = None,
        depth: int = 4,
        activation: str = "relu",
        bias_scale: float = 0.05,
        heads: int = 1,
        trained: bool = False,
    ) -> None:
        check_sizes(dim=dim, depth=depth, heads=heads)
        axes = max(1, min(AXES, dim // 2)) if axes is None else axes
        principal = PrincipalEnergies(dim, axes, groups, trained=trained)
        width = min(principal.width, WIDTH) if width is None else width
        check_sizes(width=width)
        state = Norm.euclidean(width)
        layers: OrderedDict[str, LipschitzLayer] = OrderedDict(principal=principal)
        if width != principal.width:
            layers["lift"] = Linear(Norm.euclidean(principal.width), state)
        for index in range(depth):
            layers[f"block_{index + 1}"] = GradientFlow(
                width, max(1, width // 2), activation=activation, bias_scale=bias_scale
            )
        layers["readout"] = Linear(state, Norm((1,) * heads))
        super().__init__(dim, layers, heads)


class ImageCritic(PrincipalCritic):
    """A :class:`PrincipalCritic` for images: energies in square blocks of pixels, all channels together.

    With K labels the samples are rows (b, c·h·w + K), and the rest of each label coordinate is a separate energy.

    Arguments:
        image_shape: (c, h, w); the samples may come as rows (b, c·h·w) too.
        axes: Principal coordinates; by default 192, or half of the dimension if that is less.
        block: Height and width of the blocks; by default 8 for images of 16 pixels and more, else 2.
        partitions: Number of partitions into blocks, shifted against each other, which share all energies equally.
        width, depth, activation, bias_scale, heads, trained: As for :class:`PrincipalCritic`.
        label_count: K; 0 for samples without labels.

    Raises:
        InputError: Samples without an image shape.

    Example:
        >>> critic = ImageCritic((3, 16, 16), axes=8)
        >>> critic(torch.zeros(5, 3, 16, 16)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        image_shape: Sequence[int] | None,
        *,
        axes: int | None = None,
        block: int | None = None,
        partitions: int = 1,
        width: int | None = None,
        depth: int = 4,
        activation: str = "relu",
        bias_scale: float = 0.05,
        heads: int = 1,
        label_count: int = 0,
        trained: bool = False,
    ) -> None:
        if image_shape is None or len(image_shape) != 3:
            raise InputError(
                f"image_shape must be (c, h, w), not {image_shape}. For samples that are not images use "
                "PrincipalCritic or ResNetCritic."
            )
        check_sizes(partitions=partitions)
        block = (8 if min(image_shape[1:]) >= 16 else 2) if block is None else block
        check_sizes(block=block)
        shares = [
            _shares(block_groups(image_shape, block, shift=index * block // partitions)) / partitions
            for index in range(partitions)
        ]
        groups = torch.block_diag(torch.cat(shares), torch.eye(label_count)) if label_count else torch.cat(shares)
        super().__init__(
            math.prod(image_shape) + label_count,
            axes=axes, groups=groups, width=width, depth=depth, activation=activation, bias_scale=bias_scale,
            heads=heads, trained=trained,
        )  # fmt: skip

    @classmethod
    def examples(cls) -> Iterator[ImageCritic]:
        yield cls((1, 4, 5), axes=3, depth=1)
        yield cls((2, 4, 4), axes=3, block=2, partitions=2, width=6, depth=2)
        yield cls((1, 4, 4), axes=3, depth=1, label_count=2, trained=True)


def _shares(groups: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(groups).T.float()
