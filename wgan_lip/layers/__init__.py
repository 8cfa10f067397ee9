"""1-Lipschitz maps by construction; each knows its norm in, norm out and constant.

A layer is one class with three parts, and is all that a new layer needs:

- `forward`, its formula;
- `claim()`, what can be proved about it for the weights as they are stored now;
- `constraints()`, the sets its parameters are pulled back to after every optimiser step (see :class:`Retraction`).

Nothing rests on the constraints being kept: a claim is computed from the weights, so weights that were spiked, loaded
or trained without retraction give a larger constant, never a wrong one.

Channels are the second axis: vectors are (b, d), images (b, c, h, w).
"""

from wgan_lip.layers.activations import ACTIVATIONS, Activation, Pointwise
from wgan_lip.layers.affine import Linear
from wgan_lip.layers.base import Claim, LipschitzLayer, Rounding
from wgan_lip.layers.flows import GradientFlow
from wgan_lip.layers.retraction import Retraction, retract_after_steps
from wgan_lip.layers.sorting import MaxMin
from wgan_lip.layers.stock import STOCK_CLAIMS
from wgan_lip.layers.structure import Flatten, Identity, Parallel, Squeeze

__all__ = [
    "ACTIVATIONS",
    "STOCK_CLAIMS",
    "Activation",
    "Claim",
    "Flatten",
    "GradientFlow",
    "Identity",
    "Linear",
    "LipschitzLayer",
    "MaxMin",
    "Parallel",
    "Pointwise",
    "Retraction",
    "Rounding",
    "Squeeze",
    "retract_after_steps",
]
