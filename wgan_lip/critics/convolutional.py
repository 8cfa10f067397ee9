"""A critic for images: residual layers on patches, then dense ones."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

from wgan_lip.critics.base import Critic
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers import (
    Conv2d,
    ConvGradientFlow,
    Flatten,
    GradientFlow,
    LabelPlanes,
    Linear,
    LipschitzLayer,
    Unflatten,
)
from wgan_lip.utils.checks import InputError, check_sizes

__all__ = ["ConvolutionalCritic"]


class ConvolutionalCritic(Critic):
    r"""Family A with shared weights: gradient-flow layers on patches of an image, then on all of it.

    .. math:: f = v \circ \varphi_L \circ \cdots \circ \varphi_1 \circ Q \circ \psi_B \circ \cdots \circ \psi_1 \circ P

    P maps every square of `patch` × `patch` pixels to one pixel with more channels, an isometry if there are enough
    channels. ψ are :class:`ConvGradientFlow` layers on 2 × 2 windows, every other one shifted by a pixel, so that each
    layer mixes the windows of the one before. Q, φ and v are as in :class:`ResNetCritic`. All norms are Euclidean.

    Windows that do not overlap keep the rows of their kernels orthonormal, so folds keep the gradient norm at 1.
    Kernels of overlapping windows are rescaled, which bounds their norm but lets the gradient shrink.

    With K labels, the samples are rows (b, c·h·w + K), P reads each label coordinate as one more plane
    (:class:`LabelPlanes`), and the certificate is about pixels and label together; see
    :meth:`wgan_lip.data.FiniteSource.with_labels`.

    Arguments:
        image_shape: (c, h, w); the samples may come as rows (b, c·h·w) too. Height and width of more than twice
            `patch`, odd ones too.
        patch: Height and width of the squares; 4 by default, and 2 for images below 16 pixels.
        channels: Channels of the image after P; (c + K)·patch² by default, as many as an isometry needs.
        conv_depth: Number B of layers on patches.
        width: Width of the state after Q.
        depth: Number L of dense layers.
        activation: A key of :data:`wgan_lip.lipschitz.layers.ACTIVATIONS`, or `spline`.
        bias_scale: The layers' biases start uniform in [−bias_scale, bias_scale]; see :class:`ResNetCritic`.
        heads: Number of potentials on the one body; see :class:`Critic`.
        label_count: K; 0 for samples without labels.

    Raises:
        InputError: Samples without an image shape, or images that are too small.

    Example:
        >>> import torch
        >>> critic = ConvolutionalCritic((3, 8, 9))
        >>> critic(torch.zeros(5, 3, 8, 9)).shape
        torch.Size([5])

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), Theorem 3.1
    """

    def __init__(
        self,
        image_shape: Sequence[int] | None,
        *,
        patch: int | None = None,
        channels: int | None = None,
        conv_depth: int = 2,
        width: int = 128,
        depth: int = 6,
        activation: str = "relu",
        bias_scale: float = 0.1,
        heads: int = 1,
        label_count: int = 0,
    ) -> None:
        if image_shape is None or len(image_shape) != 3:
            raise InputError(
                f"image_shape must be (c, h, w), not {image_shape}. For samples that are not images use ResNetCritic."
            )
        c, *size = image_shape
        patch = (4 if min(size) >= 16 else 2) if patch is None else patch
        channels = (c + label_count) * patch**2 if channels is None else channels
        check_sizes(patch=patch, channels=channels, conv_depth=conv_depth, width=width, depth=depth, heads=heads)
        least = 2 * patch + 1  # three patches, so that shifted windows fit
        if c < 1 or min(size) < least:
            raise InputError(
                f"Images must have at least {least} × {least} pixels for patches of {patch}, not shape "
                f"{tuple(image_shape)}. Use smaller patches, or ResNetCritic."
            )
        margins = _margin(size[0], patch), _margin(size[1], patch)
        h, w = ((pixels + 2 * margin) // patch for pixels, margin in zip(size, margins))
        dim, state = math.prod(image_shape) + label_count, Norm.euclidean(width)
        common: dict[str, Any] = {"activation": activation, "bias_scale": bias_scale}
        layers: OrderedDict[str, LipschitzLayer] = OrderedDict(unflatten=Unflatten(image_shape))
        if label_count:
            layers["unflatten"] = LabelPlanes(image_shape, label_count)
        layers["patches"] = Conv2d(c + label_count, channels, patch, stride=patch, padding=margins)
        for index in range(conv_depth):
            layers[f"conv_{index + 1}"] = ConvGradientFlow(channels, 2 * channels, shift=index % 2, **common)
        layers["rows"] = Flatten(channels * h * w)
        layers["gather"] = Linear(Norm.euclidean(channels * h * w), state)
        for index in range(depth):
            layers[f"block_{index + 1}"] = GradientFlow(width, max(1, width // 2), **common)
        layers["readout"] = Linear(state, Norm((1,) * heads))
        super().__init__(dim, layers, heads)

    @classmethod
    def examples(cls) -> Iterator[ConvolutionalCritic]:
        yield cls((1, 5, 6), channels=4, width=6, depth=1)
        yield cls((1, 5, 5), channels=4, width=6, depth=1, label_count=2)


def _margin(pixels: int, patch: int) -> int:
    """The least padding on both sides so that patches reach all pixels."""
    return next(margin for margin in range(patch) if (pixels + 2 * margin) // patch * patch >= pixels + margin)
