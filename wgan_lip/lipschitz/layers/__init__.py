"""1-Lipschitz maps by construction; each knows its norms of input and output, and its constant.

A layer is one class in one file, and is named nowhere else. It defines:

- `forward`, its formula;
- `claim()`, what can be proved about it for the weights as they are stored now;
- `constraints()`, the sets its parameters are pulled back to after every optimiser step (see :class:`Retraction`);
- `kinks()`, where the formula of a piecewise affine layer changes, for :func:`wgan_lip.enumerate_lipschitz`;
- `start_at()` and `renew()`, what happens to it when a critic starts at samples, or is renewed in training;
- `lengths`, which of its parameters have the units of the samples, for :func:`wgan_lip.parameter_groups`;
- `summary`, its row in the table of layers, and `examples()`, small layers that the tests try to break.

All but the first two have defaults; see :class:`LipschitzLayer`.

Nothing rests on the constraints being kept: a claim is computed from the weights, so weights that were spiked, loaded
or trained without retraction give a larger constant, never a wrong one.

Channels are the second axis: vectors are (b, d), images (b, c, h, w).
"""

from wgan_lip.lipschitz.layers.activations import ACTIVATIONS, Absolute, Activation, Pointwise, Spline
from wgan_lip.lipschitz.layers.affine import Linear
from wgan_lip.lipschitz.layers.base import Claim, Kinks, LipschitzLayer, Rounding, Solver, Summary, new_bias, no_kinks
from wgan_lip.lipschitz.layers.branches import Branches, Maximum, Minimum, Mixture, Parallel, WeightedSum
from wgan_lip.lipschitz.layers.cones import Cones, LipschitzExtension
from wgan_lip.lipschitz.layers.convolutions import Conv2d, ConvGradientFlow
from wgan_lip.lipschitz.layers.flows import GradientFlow, RescaledGradientFlow
from wgan_lip.lipschitz.layers.pooling import L2Pool2d, MaxPool2d, ScaledAvgPool2d
from wgan_lip.lipschitz.layers.principal import PrincipalEnergies, block_groups
from wgan_lip.lipschitz.layers.retraction import Retraction, constrain_steps
from wgan_lip.lipschitz.layers.sorting import GroupSort, Householder, MaxMin
from wgan_lip.lipschitz.layers.stock import STOCK_CLAIMS
from wgan_lip.lipschitz.layers.structure import (
    Flatten,
    Identity,
    LabelPlanes,
    Normalize,
    PixelShuffle,
    PixelUnshuffle,
    Squeeze,
    Unflatten,
)

__all__ = [
    "ACTIVATIONS",
    "STOCK_CLAIMS",
    "Absolute",
    "Activation",
    "Branches",
    "Claim",
    "Cones",
    "Conv2d",
    "ConvGradientFlow",
    "Flatten",
    "GradientFlow",
    "GroupSort",
    "Householder",
    "Identity",
    "Kinks",
    "L2Pool2d",
    "LabelPlanes",
    "Linear",
    "LipschitzExtension",
    "LipschitzLayer",
    "MaxMin",
    "MaxPool2d",
    "Maximum",
    "Minimum",
    "Mixture",
    "Normalize",
    "Parallel",
    "PixelShuffle",
    "PixelUnshuffle",
    "Pointwise",
    "PrincipalEnergies",
    "RescaledGradientFlow",
    "Retraction",
    "Rounding",
    "ScaledAvgPool2d",
    "Solver",
    "Spline",
    "Squeeze",
    "Summary",
    "Unflatten",
    "WeightedSum",
    "block_groups",
    "constrain_steps",
    "new_bias",
    "no_kinks",
]
