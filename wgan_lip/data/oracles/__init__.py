r"""Pairs of laws with known W1 and potential: the ground truth for estimates of W1.

Note [Exact pairs]
~~~~~~~~~~~~~~~~~~
Every oracle draws its two laws together, as pairs (x, y) that lie along the rays of one 1-Lipschitz function f:

.. math:: f(x) - f(y) = \|x - y\|

Averaged over the pairs, the left side bounds W1 from below, because f is 1-Lipschitz, and the right side from above,
because the pairs are a coupling. So the coupling is optimal and f is a potential, also for every finite set of pairs:
the empirical W1 of n pairs is the mean of their n lengths, exactly, and no solver is needed.
"""

from wgan_lip.data.oracles.base import Oracle, OracleSource
from wgan_lip.data.oracles.cones import Dilation, Funnel, MixtureDilation, RayMonotone, Simplex
from wgan_lip.data.oracles.derived import ORACLES, Contamination, Moved
from wgan_lip.data.oracles.directions import Lift, Marginal, Radial, Shift
from wgan_lip.data.oracles.projections import Ball, Dirac, Grid, Subspace

__all__ = [
    "ORACLES",
    "Ball",
    "Contamination",
    "Dilation",
    "Dirac",
    "Funnel",
    "Grid",
    "Lift",
    "Marginal",
    "MixtureDilation",
    "Moved",
    "Oracle",
    "OracleSource",
    "Radial",
    "RayMonotone",
    "Shift",
    "Simplex",
    "Subspace",
]
