"""How samples spread: over the modes of a mixture, within them, and overall."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from scipy.special import gammainc
from torch import Tensor

from wgan_lip.utils.checks import InputError, check_pair, check_samples
from wgan_lip.utils.numbers import rounded
from wgan_lip.utils.printing import Printed, Row

__all__ = ["ModeCoverage", "mode_coverage", "spread_over_real"]


@dataclass(frozen=True)
class ModeCoverage(Printed):
    """How samples spread over the modes of a mixture.

    Attributes:
        covered: Number of modes that hold enough samples; see :func:`mode_coverage`.
        total: Number k of modes.
        within: Share of all samples that lie near a mode.
        width: Standard deviation per coordinate of the samples near a mode around their mean, over that of the
            mixture's own samples near a mode: 1 in the mean for these, below 1 if modes are too narrow. NaN if no mode
            has two samples.
    """

    covered: int
    total: int
    within: float
    width: float

    def headline(self) -> str:
        return f"How samples spread over {self.total:,} modes"

    def summary_rows(self) -> list[Row]:
        return [
            Row("Modes", f"{self.covered} of {self.total} covered", f"{100 * self.within:.1f} % of samples near one"),
            Row("Width", rounded(self.width, 3), "of a mode, over that of the mixture; below 1 if too narrow"),
        ]


def mode_coverage(
    samples: Tensor | ArrayLike, modes: Tensor | ArrayLike, std: float, *, radius: float = 3.0, share: float = 0.1
) -> ModeCoverage:
    r"""Counts the modes of a mixture of k equal components that samples reach.

    A sample is near its nearest mode if it lies within `radius · std` of it. A mode is covered if at least one sample,
    and at least `share · n / k` samples, are near it: a tenth of its fair share by default.

    For samples of the mixture itself, with isotropic components in d dimensions, the share near a mode is
    :math:`P(\chi_d \leq r)`: for d = 2 it is :math:`1 - e^{-r^2 / 2}`, 98.9 % at three standard deviations.

    Arguments:
        samples: Generated samples, shape (n, d).
        modes: Component means, shape (k, d).
        std: Standard deviation of a component, in the units of `samples`.
        radius: How many standard deviations count as near.
        share: The fraction of its fair share n / k that a mode needs.

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
            f"samples and modes must have the same dimension, not shapes {tuple(samples.shape)} and "
            f"{tuple(modes.shape)}. Use the modes of the source that the generator learnt."
        )
    for name, number in (("std", std), ("radius", radius), ("share", share)):
        if not (math.isfinite(number) and number > 0):
            raise InputError(f"{name} must be positive and finite, not {number}.")
    modes = modes.to(samples)
    distances = torch.cdist(samples, modes, compute_mode="donot_use_mm_for_euclid_dist")  # (n, k)
    distance, nearest = distances.min(dim=1)  # (n,), (n,)
    near = distance <= radius * std
    counts = torch.bincount(nearest[near], minlength=len(modes))  # (k,)
    enough = max(1.0, share * len(samples) / len(modes))
    width = _deviation(samples[near], nearest[near], len(modes)) / (std * _deviation_within(radius, samples.shape[1]))
    return ModeCoverage(int((counts >= enough).sum()), len(modes), float(near.double().mean()), width)


def spread_over_real(samples: Tensor | ArrayLike, real: Tensor | ArrayLike) -> float:
    r"""How far apart generated samples are, relative to real ones: 0 for a generator of a single point.

    .. math:: \frac{E \|G(z) - G(z')\|}{E \|x - x'\|}

    Arguments:
        samples: Generated samples, shape (n, d), n ≥ 2.
        real: Real samples, shape (m, d), m ≥ 2.

    Returns:
        The ratio; NaN if all real samples are equal.

    Raises:
        InputError: Samples that are not finite matrices of equal width and at least two rows.
    """
    samples, real = check_pair(samples, real, minimum=2)
    generated, apart = (float(torch.pdist(cloud.detach().cpu().double()).mean()) for cloud in (samples, real))
    return generated / apart if apart > 0 else math.nan


def _deviation(samples: Tensor, mode: Tensor, count: int) -> float:
    """Standard deviation per coordinate around the means of the modes, unbiased in its square; NaN without any."""
    samples = samples.double()
    sizes = torch.bincount(mode, minlength=count)
    means = samples.new_zeros(count, samples.shape[1]).index_add(0, mode, samples) / sizes[:, None].clamp_min(1)
    freedom = int((sizes - 1).clamp_min(0).sum()) * samples.shape[1]
    return math.sqrt(float((samples - means[mode]).square().sum()) / freedom) if freedom else math.nan


def _deviation_within(radius: float, dim: int) -> float:
    r"""Standard deviation per coordinate of a standard normal law within a radius.

    .. math:: E[\chi_d^2 \mid \chi_d \le r] = d \, P(\chi_{d+2} \le r) / P(\chi_d \le r)
    """
    return math.sqrt(gammainc(dim / 2 + 1, radius**2 / 2) / gammainc(dim / 2, radius**2 / 2))
