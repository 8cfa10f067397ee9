"""An anytime-valid two-sample test with a lower bound on W1 of the laws, by betting on certified critics."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.certificates import Proof, prove
from wgan_lip.lipschitz.layers import Linear, LipschitzExtension, Squeeze
from wgan_lip.transport import TransportError, solve
from wgan_lip.transport.rounding import unit_of, vanishing
from wgan_lip.utils.checks import InputError, check_pair, column_names, match_columns
from wgan_lip.utils.numbers import percent, rounded, rounded_down, rounded_up
from wgan_lip.utils.printing import Printed, Row
from wgan_lip.wasserstein.population import (
    HALVINGS,
    check_level,
    differences,
    enclosed_values,
    log_capital,
    proved_range,
)

__all__ = ["BettingTest"]

FIRST = 8  # pairs before the first critics
GROWTH = 1.5  # ratio of pairs between successive fits of the critics
FITTED = 1000  # pairs that critics are fitted to, at most: the latest
SOLVED = 500  # samples of each law in the transport problem solved for cones
AXES = 6  # principal axes that cones are projected to
RIDGE = 0.1  # added to the variances of a discriminant, relative to their mean

Fit = Callable[[Tensor, Tensor], "nn.Module | None"]
"""From earlier samples x (n, d) and y (m, d) to a critic, (b, d) → (b,), or None if these give none."""


@dataclass
class _Kind:
    """Critics of one kind: the current one, and how earlier ones did on samples that were new to them."""

    fit: Fit
    proof: Proof | None = None
    clip: tuple[float, float] = (0.0, 0.0)
    values: list[np.ndarray] = field(default_factory=list)

    def refit(self, x: Tensor, y: Tensor) -> None:
        self.proof = None
        with suppress(InputError, TransportError):  # constant on all samples, not finite, or not solved
            critic = self.fit(x, y)
            if critic is not None:
                proof = prove(critic)
                self.clip, self.proof = proved_range(proof, x, y), proof

    def differences(self, x: Tensor, y: Tensor) -> tuple[np.ndarray, float]:
        """Floats at most (g(x_i) − g(y_i))/L of pairs, for the clipped critic g, and their lower limit, −R."""
        assert self.proof is not None
        scale, width = self.proof.certificate.lipschitz, math.nextafter(self.clip[1] - self.clip[0], math.inf)
        reach = math.nextafter(width / scale, math.inf)
        apart = differences(*enclosed_values(self.proof, x, y, *self.clip), width) / scale
        return np.maximum(np.nextafter(apart - 2 * vanishing(x.shape[1]), -np.inf), -reach), -reach


class BettingTest(Printed):
    r"""Tests whether two laws P and Q are equal while samples come in, and bounds W1(P, Q) from below.

    A gambler bets on pairs of samples, in the order in which they come. With a critic g that is proved L-Lipschitz and
    clipped to a range,

    .. math:: z_i = \frac{g(x_i) - g(y_i)}{L}, \qquad
        K_t(\delta) = \prod_{i \le t} \bigl( 1 + \lambda_i(\delta) (z_i - \delta) \bigr), \qquad
        \lambda_i(\delta) = \min\Bigl( \lambda_i, \frac{3}{4 (R_i + \delta)} \Bigr)

    where R is the width of the range over L, so that −R ≤ z. Critic, range and λ depend only on earlier pairs: critics
    are refitted whenever there are half as many pairs again, and the kind is chosen by how critics of that kind did on
    pairs that were new to them. E z_i ≤ W1(P, Q), so K(δ) is a non-negative supermartingale if W1(P, Q) ≤ δ, and
    reaches 1/α with probability at most α (Ville). Every factor decreases in δ, so

    .. math:: p = \min\Bigl( 1, \frac{1}{\max_t K_t(0)} \Bigr), \qquad
        \delta = \sup \bigl\{ \delta \ge 0 : \max_t K_t(\delta) \ge 1/\alpha \bigr\}

    Arguments:
        level: Confidence 1 − α of `w1_lower`, in (0, 1).
        expected: How many pairs are expected in all, which sizes the bets; any number is valid, and a good guess makes
            `w1_lower` larger. None: twice as many as at the next fit.

    Attributes:
        pairs: Pairs so far.
        n: Samples of P so far.
        m: Samples of Q so far.

    Raises:
        InputError: A level outside (0, 1), or fewer than one pair expected.

    Guarantee:
        If pairs are independent draws, `w1_lower` is at most W1(P, Q) with probability at least `level`, and, if P = Q,
        p is at most α with probability at most α. Both hold at all times at once: look as often as you like, and stop
        when you like. The two are one statement: p ≤ 1 − level if `w1_lower` > 0. Rounding is accounted for, including
        that of evaluating the critic. Within a pair, x and y may depend on each other. Weighted samples, and laws that
        drift, are not covered.

    References:
        Estimating means of bounded random variables by betting (Waudby-Smith, Ramdas, 2023); Sequential Predictive
        Two-Sample and Independence Testing (Podkopaev, Ramdas, 2023), for tests by betting on learnt critics; Étude
        critique de la notion de collectif (Ville, 1939)

    Example:
        >>> rng = np.random.default_rng(0)
        >>> test = BettingTest()
        >>> while test.pvalue > 0.001:
        ...     test = test.update(rng.normal(3.0, 1.0, (20, 2)), rng.normal(0.0, 1.0, (20, 2)))
        >>> 0 < test.w1_lower < 3 * 2**0.5
        True
    """

    method = "betting"

    def __init__(self, *, level: float = 0.95, expected: int | None = None) -> None:
        self.level = check_level(level)
        if expected is not None and expected < 1:
            raise InputError(f"expected must be at least 1, or None if unknown, not {expected}.")
        self.pairs = self.n = self.m = 0
        self._expected = expected
        self._next = FIRST
        self._kinds = [_Kind(fit) for fit in (_mean, _discriminant, _radius, _cones, _projected_cones)]
        self._chosen: tuple[_Kind, float] | None = None  # the kind that is bet on, and the bet λ
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._bets: list[tuple[np.ndarray, float, float]] = []  # z, −R and λ of successive pairs
        self._unit = 1.0
        self._names: tuple[str, ...] | None = None
        self._dim: int | None = None

    def update(self, x: Tensor | ArrayLike, y: Tensor | ArrayLike) -> BettingTest:
        """Takes in new pairs, and returns the test itself.

        Arguments:
            x: Independent samples of P, shape (n, d), or (n,) for scalars, as :func:`wgan_lip.two_sample_test` takes
                them; x_i and y_i are a pair, in this order.
            y: Samples of Q, shape (m, d). If n ≠ m, the larger set is split into min(n, m) groups of neighbours, and
                the mean of each group takes the place of a sample. n and m must not depend on the samples.

        Raises:
            InputError: Unusable samples, or samples with other columns than before; the test is then unchanged.
        """
        names = column_names(x)
        order = match_columns(self._names, names, ("earlier samples", "x"))
        x, y = (samples.detach().cpu().double() for samples in check_pair(x, y))
        x, y = (samples if order is None else samples[:, order] for samples in (x, y))
        if self._dim not in (None, x.shape[1]):
            raise InputError(f"Samples must have dimension {self._dim}, like those before, not {x.shape[1]}.")
        unit = unit_of(x, y) if self._dim is None else self._unit
        x, y = x / unit, y / unit
        if not bool(x.isfinite().all() and y.isfinite().all()):
            raise InputError(f"These samples are far larger than those before, about {unit:.1g}. Check their units.")
        if self._dim is None:
            self._names, self._dim, self._unit = names, x.shape[1], unit
        count = min(len(x), len(y))
        ends_x, ends_y = ([k * len(samples) // count for k in range(count + 1)] for samples in (x, y))
        done = 0
        while done < count:
            upto = min(count, done + self._next - self.pairs)
            self._take(x[ends_x[done] : ends_x[upto]], y[ends_y[done] : ends_y[upto]], upto - done)
            done = upto
        return self

    @property
    def statistic(self) -> float:
        """The natural logarithm of the largest capital against equal laws, ln max_t K_t(0); at least 0."""
        return max(0.0, float(self._log_capital(0.0)))

    @property
    def pvalue(self) -> float:
        """p-value of equal laws, valid at all times at once."""
        return min(1.0, math.nextafter(math.exp(-self.statistic) * (1 + 2.0**-48), math.inf))

    @property
    def w1_lower(self) -> float:
        """δ: W1 of the laws is at least this, in the units of the samples, with confidence `level` at all times."""
        wanted = -math.log(1 - self.level) * (1 + 2.0**-48)
        if self.statistic < wanted:
            return 0.0
        below, above = 0.0, max(float(z.max()) for z, _, _ in self._bets)  # from the largest z on, no factor exceeds 1
        for _ in range(HALVINGS):
            middle = (below + above) / 2
            below, above = (middle, above) if self._log_capital(middle) >= wanted else (below, middle)
        return below * self._unit

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader should know, in sentences."""
        if not self._bets:
            return (f"No bet on {self.pairs} pairs: {FIRST} pairs fit the first critics, and the next judge them.",)
        return ()

    def headline(self) -> str:
        return f"A two-sample test by betting, after {self.pairs:,} pairs"

    def summary_rows(self) -> list[Row]:
        bound = f"with {percent(self.level)} confidence, at all times"
        return [
            Row("Equal laws", f"p = {rounded_up(self.pvalue, 3)}", "valid at all times at once"),
            Row("  statistic", rounded(self.statistic, 4), "logarithm of the largest capital"),
            Row("W1 of the laws", f"≥ {rounded_down(self.w1_lower)}", bound),
            *(Row("Note", note) for note in self.notes),
        ]

    def _log_capital(self, delta: float) -> Any:
        """log max_t K_t(δ), rounding subtracted; 0 or less if no bet was made."""
        if not self._bets:
            return 0.0
        sizes = [len(z) for z, _, _ in self._bets]
        values = np.concatenate([z for z, _, _ in self._bets])
        lows, bets = (np.repeat([entry[place] for entry in self._bets], sizes) for place in (1, 2))
        return log_capital(values, bets, lows, np.array(delta))

    def _take(self, x: Tensor, y: Tensor, count: int) -> None:
        """Bets on `count` pairs that come before the next fit, and refits once it is reached."""
        for kind in self._kinds:
            if kind.proof is not None:
                z, low = kind.differences(x, y)
                kind.values.append(z)
                if self._chosen is not None and kind is self._chosen[0]:
                    self._bets.append((z, low, self._chosen[1]))
        self._seen.append((x, y))
        self.pairs, self.n, self.m = self.pairs + count, self.n + len(x), self.m + len(y)
        if self.pairs == self._next:
            self._next = math.ceil(GROWTH * self.pairs)
            self._refit()

    def _refit(self) -> None:
        x, y = (torch.cat(rows)[-FITTED:] for rows in zip(*self._seen))
        self._seen = [(x, y)]
        horizon = self._expected if self._expected and self._expected > self.pairs else 2 * self._next
        log = -2 * math.log(1 - self.level)
        best: tuple[float, float] = 0.0, 0.0
        self._chosen = None
        for kind in self._kinds:
            kind.refit(x, y)
            if kind.proof is None or not kind.values:
                continue
            kind.values = [np.concatenate(kind.values)[-(self.pairs // 2) :]]  # those of better critics, and enough
            mean, variance = float(kind.values[0].mean()), _variance(kind.values[0])
            bet = math.sqrt(log / (horizon * variance))
            # The bound on the mean to expect once all bets are made, or else the surer gain.
            judged = max(0.0, mean - variance * bet), mean / math.sqrt(variance)
            if judged > best and mean > variance * bet / 2:  # otherwise the capital would fall
                best, self._chosen = judged, (kind, bet)


def _variance(values: np.ndarray) -> float:
    """The variance of new values, with one more value off by half of their range."""
    half = float(values.max() - values.min()) / 2
    variance = (half**2 + float(np.square(values - values.mean()).sum())) / (len(values) + 1)
    return max(variance, 1e-12 * float(np.square(values).max()), 1e-300)


def _linear(weight: Tensor) -> Linear:
    """x ↦ weight x, for orthonormal rows (k, d)."""
    rows, dim = weight.shape
    layer = Linear(Norm.euclidean(dim), Norm.euclidean(rows)).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def _towards(direction: Tensor) -> nn.Module | None:
    """The 1-Lipschitz function that grows in a direction (d,)."""
    length = torch.linalg.vector_norm(direction)
    return nn.Sequential(_linear((direction / length)[None]), Squeeze()) if length > 0 else None


def _mean(x: Tensor, y: Tensor) -> nn.Module | None:
    return _towards(x.mean(dim=0) - y.mean(dim=0))


def _discriminant(x: Tensor, y: Tensor) -> nn.Module | None:
    """The 1-Lipschitz function along Fisher's discriminant, with a ridge."""
    apart = x.mean(dim=0) - y.mean(dim=0)
    rows = torch.cat((x - x.mean(dim=0), y - y.mean(dim=0)))
    ridge = RIDGE * rows.square().sum() / min(rows.shape)
    if not ridge > 0 or x.shape[1] == 1:
        return None
    if rows.shape[1] <= len(rows):
        scatter = rows.T @ rows
        return _towards(torch.linalg.solve(scatter.diagonal_scatter(scatter.diagonal() + ridge), apart))
    gram = rows @ rows.T  # (S + λ)⁻¹ a = (a − Rᵀ (RRᵀ + λ)⁻¹ R a)/λ
    inner = torch.linalg.solve(gram.diagonal_scatter(gram.diagonal() + ridge), rows @ apart)
    return _towards(apart - rows.T @ inner)


def _radius(x: Tensor, y: Tensor) -> nn.Module | None:
    """The distance from the middle of all samples, or its negative."""
    centre = torch.cat((x, y)).mean(dim=0, keepdim=True)
    cone = LipschitzExtension.through(centre, torch.zeros(1).double())
    outside = torch.linalg.vector_norm(x - centre, dim=1).mean() - torch.linalg.vector_norm(y - centre, dim=1).mean()
    return nn.Sequential(cone, _linear(torch.sign(outside).reshape(1, 1)), Squeeze()) if outside != 0 else None


def _cones(x: Tensor, y: Tensor) -> nn.Module | None:
    """The optimal potential of the samples."""
    return nn.Sequential(_extension(x, y), Squeeze())


def _projected_cones(x: Tensor, y: Tensor) -> nn.Module | None:
    """The optimal potential of the samples on their first principal axes."""
    if x.shape[1] <= AXES:
        return None
    both = torch.cat((x, y))
    both = both - both.mean(dim=0)
    axes = torch.randn(x.shape[1], AXES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for _ in range(8):  # subspace iteration: any orthonormal axes will do, and these cost little in many dimensions
        axes = torch.linalg.qr(both.T @ (both @ axes)).Q
    front = _linear(axes.T)
    with torch.no_grad():
        return nn.Sequential(front, _extension(front(x), front(y)), Squeeze())


def _extension(x: Tensor, y: Tensor) -> LipschitzExtension:
    """The minimum of cones at y that extends an optimal potential of some of the samples."""
    x, y = x[-SOLVED:], y[-SOLVED:]
    return LipschitzExtension.through(y, solve(x, y).potential(y))
