"""Distances between sample sets, and how well one covers the other, without any network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip.utils.checks import InputError, check_pair
from wgan_lip.utils.numbers import rounded
from wgan_lip.utils.printing import Printed, Row

__all__ = ["Neighbourhoods", "frechet_distance", "kernel_distance", "mmd", "neighbourhoods", "sliced_wasserstein"]


@dataclass(frozen=True)
class Neighbourhoods(Printed):
    """How the neighbourhoods of generated and of real samples overlap; see :func:`neighbourhoods`.

    Attributes:
        precision: Share of generated samples that lie in the neighbourhood of a real one.
        recall: Share of real samples that lie in the neighbourhood of a generated one.
        density: Mean number of real neighbourhoods that a generated sample lies in, over k; 1 in expectation if both
            have one law without atoms, and not bounded by 1.
        coverage: Share of real samples in whose neighbourhood a generated one lies.
        k: The neighbour whose distance is the radius of a neighbourhood.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    k: int

    def headline(self) -> str:
        return f"How neighbourhoods of generated and real samples overlap, to neighbour {self.k}"

    def summary_rows(self) -> list[Row]:
        return [
            Row("Precision", rounded(self.precision, 3), "share of generated samples near a real one"),
            Row("Recall", rounded(self.recall, 3), "share of real samples near a generated one"),
            Row("Density", rounded(self.density, 3), "real neighbourhoods around a generated sample; 1 for equal laws"),
            Row("Coverage", rounded(self.coverage, 3), "share of real samples with a generated one near"),
        ]


def sliced_wasserstein(
    x: Tensor | ArrayLike, y: Tensor | ArrayLike, *, p: int = 1, directions: int = 512, seed: int = 0
) -> float:
    r"""The sliced p-Wasserstein distance of two sample sets, by random directions.

    .. math:: SW_p^p = \frac1k \sum_{i=1}^k W_p^p(\theta_i^\top P_n, \theta_i^\top Q_m), \qquad
              W_p^p = \int_0^1 |F^{-1}(t) - G^{-1}(t)|^p \, dt

    On the line W_p is exact for any two sizes, up to rounding.

    Arguments:
        x: Samples of P, shape (n, d).
        y: Samples of Q, shape (m, d).
        p: 1 or more.
        directions: Number k of directions, uniform on the sphere.
        seed: Seed of the directions.

    Returns:
        The distance, in the units of the samples. It is at most W_p: a projection brings points closer. In d dimensions
        it is smaller by a factor of about √d, so compare it with its floor, not with W_p.

    Raises:
        InputError: Unusable samples, or `p` or `directions` below 1.

    References:
        Sliced and Radon Wasserstein Barycenters of Measures (Bonneel, Rabin, Peyré, Pfister, 2015)

    Example:
        >>> x = torch.zeros(3, 1)
        >>> sliced_wasserstein(x, x + 2, directions=4)
        2.0
    """
    x, y = (samples.double() for samples in check_pair(x, y))
    if p < 1 or directions < 1:
        raise InputError(f"p and directions must be at least 1, not {p} and {directions}.")
    rng = torch.Generator().manual_seed(seed)
    theta = torch.randn(x.shape[1], directions, generator=rng, dtype=torch.float64).to(x.device)
    theta /= torch.linalg.vector_norm(theta, dim=0)
    at_x, at_y = ((samples @ theta).sort(dim=0).values for samples in (x, y))  # (n, k), (m, k)
    n, m = len(x), len(y)
    # Both quantile functions are constant between neighbouring multiples of 1/n and 1/m; in units of 1/(n·m):
    edges = torch.cat([m * torch.arange(n + 1), n * torch.arange(m + 1)]).unique().to(x.device)
    start, length = edges[:-1], edges.diff().double() / (n * m)
    gaps = (at_x[start // m] - at_y[start // n]).abs() ** p
    return float((length @ gaps).mean() ** (1 / p))


def mmd(x: Tensor | ArrayLike, y: Tensor | ArrayLike) -> float:
    r"""The maximum mean discrepancy of two sample sets, with Gaussian kernels scaled to the second one.

    .. math:: MMD^2 = \overline{k(x, x')} + \overline{k(y, y')} - 2 \, \overline{k(x, y)}, \qquad
              k(u, v) = \frac13 \sum_{s \in \{h/2,\, h,\, 2h\}} e^{-\|u - v\|^2 / 2 s^2}

    h is the median distance of two different rows of y, so one kernel serves all sets that are compared with y. Means
    are over all pairs: the distance of the two empirical measures, zero if they are equal.

    Arguments:
        x: Generated samples, shape (n, d).
        y: Real samples, shape (m, d), m of at least 2.

    Returns:
        A number between 0 and √2.

    Raises:
        InputError: Unusable samples.

    References:
        A Kernel Two-Sample Test (Gretton, Borgwardt, Rasch, Schölkopf, Smola, 2012), equation 5
    """
    return _mmd(_by_products(*_prepared(x, y)))


def neighbourhoods(x: Tensor | ArrayLike, y: Tensor | ArrayLike, *, k: int = 5) -> Neighbourhoods:
    """Precision, recall, density and coverage of generated samples x among real samples y.

    The neighbourhood of a sample is the closed ball up to its k-th neighbour in its own set, not counting itself. A
    sample exactly as far away as that neighbour lies in it, and so does an equal one if the radius is 0. Distances that
    differ by less than their rounding, relatively (d + 4) · 2⁻⁵², count as equal.

    Arguments:
        x: Generated samples, shape (n, d).
        y: Real samples, shape (m, d).
        k: Which neighbour; below n and m.

    Raises:
        InputError: Unusable samples, or `k` below 1 or too large.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi, Karras, Laine, Lehtinen,
        Aila, 2019), https://arxiv.org/abs/1904.06991, for precision and recall
        Reliable Fidelity and Diversity Metrics for Generative Models (Naeem, Oh, Uh, Choi, Yoo, 2020),
        https://arxiv.org/abs/2002.09797, for density and coverage
    """
    x, y = _prepared(x, y)
    return _neighbourhoods(x, y, _by_products(x, y), k)


def similarity(x: Tensor | ArrayLike, y: Tensor | ArrayLike, *, k: int = 5, directions: int = 512) -> dict[str, float]:
    """All scores of this module that need only samples, by name, computing pairwise distances once.

    Arguments:
        x: Generated samples, shape (n, d).
        y: Real samples, shape (m, d).
        k: See :func:`neighbourhoods`.
        directions: See :func:`sliced_wasserstein`.
    """
    prepared = _prepared(x, y)
    distances = _by_products(*prepared)
    overlap = _neighbourhoods(*prepared, distances, k)
    return {
        "sliced_w1": sliced_wasserstein(x, y, p=1, directions=directions),
        "sliced_w2": sliced_wasserstein(x, y, p=2, directions=directions),
        "mmd": _mmd(distances),
        "precision": overlap.precision,
        "recall": overlap.recall,
        "density": overlap.density,
        "coverage": overlap.coverage,
    }


def frechet_distance(x: Tensor | ArrayLike, y: Tensor | ArrayLike) -> float:
    r"""The squared 2-Wasserstein distance of the normal laws with the moments of two sample sets.

    .. math:: \|\mu_x - \mu_y\|^2 + \operatorname{tr} \bigl( \Sigma_x + \Sigma_y - 2 (\Sigma_x \Sigma_y)^{1/2} \bigr)

    On Inception features it is the FID.

    Arguments:
        x: Samples, shape (n, d), n of at least 2.
        y: Samples, shape (m, d), m of at least 2.

    Raises:
        InputError: Unusable samples.

    References:
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel, Ramsauer,
        Unterthiner, Nessler, Hochreiter, 2017), https://arxiv.org/abs/1706.08500
    """
    x, y = (samples.double() for samples in check_pair(x, y, minimum=2))
    # With Σ = AᵀA for the centred samples A, the trace of the root is the sum of the singular values of A_x A_yᵀ; those
    # of the triangular factors are the same, and they are as small as d.
    (mean_x, root_x), (mean_y, root_y) = _moments(x), _moments(y)
    shared = torch.linalg.svdvals(root_x @ root_y.T).sum()
    distance = (mean_x - mean_y).square().sum() + root_x.square().sum() + root_y.square().sum() - 2 * shared
    return float(distance.clamp_min(0))


def kernel_distance(x: Tensor | ArrayLike, y: Tensor | ArrayLike) -> float:
    r"""The unbiased squared maximum mean discrepancy with a polynomial kernel; it may be negative.

    .. math:: k(u, v) = (u^\top v / d + 1)^3

    On Inception features it is the KID, here of all samples at once.

    Arguments:
        x: Samples, shape (n, d), n of at least 2.
        y: Samples, shape (m, d), m of at least 2.

    Raises:
        InputError: Unusable samples.

    References:
        Demystifying MMD GANs (Bińkowski, Sutherland, Arbel, Gretton, 2018), https://arxiv.org/abs/1801.01401
    """
    x, y = (samples.double() for samples in check_pair(x, y, minimum=2))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def mean_of_pairs(values: Tensor) -> Tensor:
        return (values.sum() - values.diagonal().sum()) / (len(values) * (len(values) - 1))

    return float(mean_of_pairs(kernel(x, x)) + mean_of_pairs(kernel(y, y)) - 2 * kernel(x, y).mean())


Distances = tuple[Tensor, Tensor, Tensor]  # within x, (n, n), within y, (m, m), and between them, (n, m)


def _prepared(x: Tensor | ArrayLike, y: Tensor | ArrayLike) -> tuple[Tensor, Tensor]:
    x, y = check_pair(x, y, minimum=2)
    return x.double(), y.double()


def _by_products(x: Tensor, y: Tensor) -> Distances:
    """Distances of all pairs by matrix products, fast but inexact in the last digits; see Note [Neighbours]."""
    x, y = x - y.mean(dim=0), y - y.mean(dim=0)
    within_x, within_y, between = (_distances(*pair, "use_mm_for_euclid_dist") for pair in ((x, x), (y, y), (x, y)))
    return within_x.fill_diagonal_(0), within_y.fill_diagonal_(0), between


def _by_differences(x: Tensor, y: Tensor) -> Distances:
    """Distances of all pairs by differences of coordinates: 0 for equal rows, else to within 2 + d/2 roundings.

    In units of a power of two that leaves all entries below 1, so that no square overflows.
    """
    exponent = math.frexp(max(x.abs().max().item(), y.abs().max().item()))[1]
    x, y = (samples * 2.0 ** -max(exponent, -1000) for samples in (x, y))
    within_x, within_y, between = (
        _distances(*pair, "donot_use_mm_for_euclid_dist") for pair in ((x, x), (y, y), (x, y))
    )
    return within_x, within_y, between


def _distances(x: Tensor, y: Tensor, mode: str) -> Tensor:
    return torch.cdist(x, y, compute_mode=mode)


def _mmd(distances: Distances) -> float:
    within_x, within_y, between = distances
    m = len(within_y)
    scale = within_y[torch.triu_indices(m, m, 1).unbind()].median()
    scale = scale.where(scale > 0, 1)  # if half of the pairs coincide

    def mean(distances: Tensor) -> Tensor:
        ratios = (distances / scale).square()
        kernels = [torch.exp(-ratios / (2 * factor**2)).mean() for factor in (0.5, 1, 2)]
        return (kernels[0] + kernels[1] + kernels[2]) / 3

    return float((mean(within_x) + mean(within_y) - 2 * mean(between)).clamp_min(0).sqrt())


# Note [Neighbours]
# By the matrix product a squared distance errs by at most 8 (d + 8) u M², for the unit roundoff u = 2⁻⁵³ and M the
# largest norm seen from the mean of y: by d + 2 products of total size at most 4 M², by the squared norms among them,
# and by the centring. A radius, the k-th smallest of such numbers, errs by no more. Where the squares of a distance and
# a radius differ by more than both errors, it is certain which is larger. If for a single pair they do not, as for
# duplicates and integers, everything is computed again by differences, which takes ten times as long.


def _neighbourhoods(x: Tensor, y: Tensor, distances: Distances, k: int) -> Neighbourhoods:
    smallest = min(len(x), len(y))
    if not 1 <= k < smallest:
        raise InputError(f"k must be from 1 to {smallest - 1}, below both numbers of samples, not {k}.")
    dim = x.shape[1]
    radii, between = _radii(distances, k), distances[2]
    largest = max(float((samples - y.mean(dim=0)).square().sum(dim=1).max()) for samples in (x, y))
    doubt = 16 * (dim + 8) * 2.0**-53 * largest
    if not all(bool(((between.square() - radius.square()).abs() > doubt).all()) for radius in radii):
        distances = _by_differences(x, y)
        (of_x, of_y), slack = _radii(distances, k), 1 + (dim + 4) * 2.0**-52
        radii, between = (of_x * slack, of_y * slack), distances[2]
    near_generated, near_real = (between <= radius for radius in radii)  # (n, m)
    return Neighbourhoods(
        precision=float(near_real.any(dim=1).double().mean()),
        recall=float(near_generated.any(dim=0).double().mean()),
        density=float(near_real.sum(dim=1).double().mean() / k),
        coverage=float(near_real.any(dim=0).double().mean()),
        k=k,
    )


def _radii(distances: Distances, k: int) -> tuple[Tensor, Tensor]:
    """The distance of the k-th neighbour of each x, shape (n, 1), and of each y, shape (m,)."""
    radius_x, radius_y = (within.kthvalue(k + 1, dim=1).values for within in distances[:2])
    return radius_x[:, None], radius_y


def _moments(samples: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (d,), and R with RᵀR the covariance, at most d rows."""
    mean = samples.mean(dim=0)
    return mean, torch.linalg.qr((samples - mean) / (len(samples) - 1) ** 0.5, mode="r").R
