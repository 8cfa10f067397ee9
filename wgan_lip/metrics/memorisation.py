"""Whether generated samples are copies of training samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wgan_lip.utils.checks import InputError, check_pair
from wgan_lip.utils.numbers import plus_minus, rounded
from wgan_lip.utils.printing import Bar, Printed, Row, number_line

__all__ = ["Memorisation", "memorisation"]

ALPHA = 0.05  # share of held-out samples that count as near a training sample
LEAST = 40  # held-out samples: fewer have no such quantile
BLOCK, BATCH = 4096, 256  # real rows, and queries, at a time


@dataclass(frozen=True)
class Memorisation(Printed):
    """How many more generated than held-out samples lie close to training samples; see :func:`memorisation`.

    Attributes:
        value: 0 in the mean for samples of the law of the held-out ones, 1 for copies of training samples. Signed.
        error: Its standard error for samples of that law.
        ratio: Median of d(g, train) / d(g, test) over the generated samples.
        real_ratio: The same over held-out samples in their place.
        n: Number of generated samples.
    """

    value: float
    error: float
    ratio: float
    real_ratio: float
    n: int

    def headline(self) -> str:
        return f"Copies of training samples among {self.n:,} generated ones"

    def summary_rows(self) -> list[Row]:
        return [
            Row("Copies", plus_minus(self.value, self.error), "as a share; 0 in the mean for none, 1 for all"),
            Row("Distance ratio", rounded(self.ratio, 3), "to the nearest training over the nearest held-out sample"),
            Row("  of real samples", rounded(self.real_ratio, 3), "held out, in their place"),
        ]

    def picture(self) -> str:
        share = Bar("Copies", self.value - self.error, self.value + self.error, self.value, proved=False)
        return number_line([share], f"Copies: {plus_minus(self.value, self.error)}")


def memorisation(generated: Tensor, train: Tensor, test: Tensor) -> Memorisation:
    r"""Compares each generated sample's distance to the nearest training sample with that to the nearest held-out one.

    .. math:: \rho(g) = \frac{d(g, \text{train})}{d(g, \text{test}_1)}, \qquad
              \text{value} = \frac{P(\rho(g) < q) - \alpha}{1 - \alpha}

    for :math:`\alpha = 1/20`, the halves test₁ and test₂ of the held-out samples, and the α-quantile q of ρ over test₂.
    A twentieth of the held-out samples lies that close to a training sample, but all copies do. Blur, noise, and
    samples far from the data change both distances alike, which brings ρ towards 1 and the value below 0: only copying
    raises it. Distances are between samples as they are, so copies that were shifted, mirrored or recoloured go
    unnoticed.

    Arguments:
        generated: Samples, shape (n, d).
        train: All the training samples, shape (N, d).
        test: Held-out samples, shape (m, d), m at least 40.

    Raises:
        InputError: Unusable or too few samples.

    References:
        A non-parametric test to detect data-copying in generative models (Meehan, Chaudhuri, Dasgupta, 2020),
        https://arxiv.org/abs/2004.05675, which compares distances to the training set alone, and mistakes blur for
        copies

    Example:
        >>> x = torch.randn(600, 2, generator=torch.Generator().manual_seed(0))
        >>> memorisation(x[:100], x[:500], x[500:]).value
        1.0
    """
    check_pair(generated, test)
    check_pair(train, test)
    if len(test) < LEAST:
        raise InputError(f"At least {LEAST} held-out samples are needed to tell copies from chance, not {len(test)}.")
    rows, others = test[: len(test) // 2], test[len(test) // 2 :]
    near, usual = _ratios(generated, train, rows), _ratios(others, train, rows)
    share = float((near < torch.quantile(usual, ALPHA)).double().mean())
    deviation = math.sqrt(ALPHA * (1 - ALPHA) * (1 / len(near) + 1 / len(usual)))
    return Memorisation(
        value=(share - ALPHA) / (1 - ALPHA),
        error=deviation / (1 - ALPHA),
        ratio=float(near.median()),
        real_ratio=float(usual.median()),
        n=len(near),
    )


def _ratios(queries: Tensor, train: Tensor, test: Tensor) -> Tensor:
    """Distance to the nearest training over that to the nearest held-out sample, shape (n,); 1 if both are zero."""
    to_train, to_test = _nearest(queries, train), _nearest(queries, test)
    return torch.where(to_train == to_test, 1.0, to_train / to_test)


def _nearest(queries: Tensor, rows: Tensor) -> Tensor:
    """Distance of each query to its nearest row, shape (n,)."""
    # A matrix product finds three candidates, and differences decide, so that equal distances come out equal.
    queries, centre = queries.detach().cpu(), rows[:BLOCK].detach().cpu().float().mean(dim=0)
    found = torch.full((len(queries),), math.inf, dtype=torch.float64)
    for block in rows.split(BLOCK):
        block = block.detach().cpu()
        centred = block.float() - centre
        for nearest, some in zip(found.split(BATCH), queries.split(BATCH)):
            rough = torch.cdist(some.float() - centre, centred, compute_mode="use_mm_for_euclid_dist")
            candidates = block[rough.topk(min(3, len(block)), largest=False).indices].double()  # (b, 3, d)
            exact = (some.double()[:, None] - candidates).norm(dim=2).min(dim=1).values
            torch.minimum(nearest, exact, out=nearest)
    return found
