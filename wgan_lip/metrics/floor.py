"""Modes of a mixture, and the exact W1 over its floor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip import transport
from wgan_lip.data import Source
from wgan_lip.utils.checks import InputError, check_pair, check_samples

__all__ = ["ModeCoverage", "ScoreOverFloor", "mode_coverage", "spread_over_real", "w1_over_floor"]


@dataclass(frozen=True)
class ModeCoverage:
    """How samples spread over the modes of a mixture.

    Attributes:
        covered: Number of modes that hold enough samples; see :func:`mode_coverage`.
        total: Number k of modes.
        within: Share of all samples that lie near a mode.
    """

    covered: int
    total: int
    within: float


@dataclass(frozen=True)
class ScoreOverFloor:
    """An exact W1 to held-out samples beside the one that real samples reach.

    Attributes:
        value: Exact W1 between generated and test samples, in the units of the samples, mean over the draws.
        floor: Exact W1 between as many reference (real) samples and the same test samples, mean over the draws.
        ratio: `value / floor`, scattered around 1 for a perfect generator; 1 where both are zero, infinite where only
            the floor is.
        spread: Standard deviation of the generator's values over its draws, divided by `floor`.
        n: Samples of each set.
        repeats: Draws of each kind.
    """

    value: float
    floor: float
    ratio: float
    spread: float
    n: int
    repeats: int


def mode_coverage(
    samples: Tensor | ArrayLike, modes: Tensor | ArrayLike, std: float, *, radius: float = 3.0, share: float = 0.1
) -> ModeCoverage:
    r"""Counts the modes of a mixture of k equal components that samples reach.

    A sample is near its nearest mode if it lies within `radius · std` of it. A mode is covered if the samples near it
    number at least one and at least `share · n / k`, a tenth of its fair share by default.

    Of samples of the mixture itself, with isotropic components in d dimensions, the share near a mode is
    :math:`P(\chi_d \leq r)`: for d = 2 it is :math:`1 - e^{-r^2 / 2}`, 98.9 % at three standard deviations.

    Arguments:
        samples: Generated samples, shape (n, d).
        modes: Component means, shape (k, d).
        std: Standard deviation of a component, in the units of `samples`.
        radius: How many standard deviations count as near.
        share: The part of its fair share n / k that a mode needs.

    Raises:
        InputError: Samples or modes that are not finite matrices of equal width, or a `std`, `radius` or `share`
            that is not positive.

    References:
        VEEGAN: Reducing Mode Collapse in GANs using Implicit Variational Learning (Srivastava et al., 2017),
        https://arxiv.org/abs/1705.07761, counts modes and near samples; the demand for a share of them is ours.
    """
    samples, modes = check_samples(samples, "samples"), check_samples(modes, "modes")
    if samples.shape[1] != modes.shape[1]:
        raise InputError(
            f"Expected samples and modes of equal dimension. Got {tuple(samples.shape)} and {tuple(modes.shape)}. "
            "Take the modes of the source that the generator learnt."
        )
    for name, number in (("std", std), ("radius", radius), ("share", share)):
        if not (math.isfinite(number) and number > 0):
            raise InputError(f"Expected {name} to be positive and finite. Got {number}.")
    modes = modes.to(samples)
    distances = torch.cdist(samples, modes, compute_mode="donot_use_mm_for_euclid_dist")  # (n, k)
    distance, nearest = distances.min(dim=1)  # (n,), (n,)
    near = distance <= radius * std
    counts = torch.bincount(nearest[near], minlength=len(modes))  # (k,)
    enough = max(1.0, share * len(samples) / len(modes))
    return ModeCoverage(int((counts >= enough).sum()), len(modes), float(near.double().mean()))


def w1_over_floor(
    draw: Callable[[int, int], Tensor], source: Source, *, size: int | None = None, repeats: int = 5, seed: int = 0
) -> ScoreOverFloor:
    """Scores a generator by its exact W1 to held-out samples, and real samples likewise, each over several draws.

    On average, the W1 of two samples overstates the W1 of their laws, by an amount that depends on how many there
    are. Both numbers are therefore taken against one test set at one size, and only their comparison carries meaning.
    Both scatter with the draw (on :class:`~wgan_lip.data.Moons`, floors of 300 samples against one test set of 300
    lay between 0.096 and 0.198 over eight draws), hence the repeats.

    Arguments:
        draw: (n, seed) → n samples of the generator, shape (n, d).
        source: Gives the test set and the real samples of the training law.
        size: Samples n of each draw, and of the test set; the whole test set by default.
        repeats: Draws of each kind.
        seed: Seed of the first draw; the others follow.

    Raises:
        InputError: `repeats` below 1, or a source with fewer than n training samples.
    """
    if repeats < 1:
        raise InputError(f"Expected at least one draw. Got repeats={repeats}.")
    test = source.test[:size]
    n = len(test)
    values = [transport.solve(draw(n, seed + k), test).value for k in range(repeats)]
    floors = [transport.solve(source.reference(n, seed + k), test).value for k in range(repeats)]
    value, floor = fmean(values), fmean(floors)
    ratio = value / floor if floor > 0 else (1.0 if value == 0 else math.inf)
    spread = stdev(values) / floor if repeats > 1 and floor > 0 else 0.0
    return ScoreOverFloor(value, floor, ratio, spread, n, repeats)


def spread_over_real(samples: Tensor | ArrayLike, real: Tensor | ArrayLike) -> float:
    r"""How far apart generated samples lie, over how far apart real ones do: 0 for a generator of one point.

    .. math:: \frac{E \|G(z) - G(z')\|}{E \|x - x'\|}

    Arguments:
        samples: Generated samples, shape (n, d), n ≥ 2.
        real: Real samples, shape (m, d), m ≥ 2.

    Returns:
        The ratio; NaN where all real samples are equal.

    Raises:
        InputError: Samples that are not finite matrices of equal width and at least two rows.
    """
    samples, real = check_pair(samples, real, minimum=2)
    generated, apart = (float(torch.pdist(cloud.detach().cpu().double()).mean()) for cloud in (samples, real))
    return generated / apart if apart > 0 else math.nan
