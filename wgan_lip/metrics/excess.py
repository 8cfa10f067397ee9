"""The main score: W1 between generated and held-out samples in excess of what sampling alone explains."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import takewhile
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wgan_lip.data import FiniteSource, Source, ToySource
from wgan_lip.transport import BYTES_PER_PAIR, Problem, solve_problem
from wgan_lip.utils.checks import InputError, check_memory, check_pair
from wgan_lip.utils.numbers import plus_minus, rounded
from wgan_lip.utils.printing import Bar, Printed, Row, number_line

__all__ = ["Excess", "Floor", "Halves", "Pool", "excess_over_floor", "halved", "halved_checked", "real_pools"]

FRESH = 1_000_000  # added to seeds, so that held-out samples of a law are not its reference samples
LARGEST_HALF, LARGEST_HALF_ON_THE_LINE = 1000, 100_000  # samples in a half, at most, for speed
PRODUCTS = 2**33  # products of numbers, at most, in the distances between two halves


class Pool:
    """Samples of one law, from which disjoint draws are taken as long as there are enough.

    Arguments:
        rows: The samples, shape (N, d); or a function from their indices, shape (n,), to samples, shape (n, d); or, if
            every seed gives fresh ones, a function (n, seed) → n independent samples.
        size: The number N, for a function of indices; None for one of seeds.
    """

    def __init__(self, rows: Tensor | Callable[..., Tensor], size: int | None = None) -> None:
        self._rows: Callable[..., Tensor] = rows.__getitem__ if isinstance(rows, Tensor) else rows
        self.size = len(rows) if isinstance(rows, Tensor) else size

    def take(self, n: int, draw: int, seed: int) -> Tensor:
        """The n samples of draw number `draw`, shape (n, d); `seed` fixes the order of all."""
        if self.size is None:
            return self._rows(n, seed + draw)
        turn, block = divmod(draw, self.size // n)  # the samples are reshuffled when they are used up
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(seed + 1000 * turn))
        index = order[block * n : (block + 1) * n]
        return self._rows(index)

    def most(self, n: int, seed: int) -> Tensor:
        """n different samples, or all if there are fewer, shape (at most n, d)."""
        return self.take(n if self.size is None else min(n, self.size), 0, seed)

    def apart(self, n: int) -> float:
        """How many draws of n samples share none."""
        return math.inf if self.size is None else self.size // n


@dataclass(frozen=True)
class Excess(Printed):
    """W1 beyond what sampling explains, for generated samples and for real ones in their place.

    Attributes:
        excess: Mean over the draws of W1(g, t) − ½ [W1(g, g′) + W1(t, r)], in the units of the samples. Signed.
        error: Its standard error.
        real: The same for real samples in place of the generated ones; NaN if there are too few.
        real_error: Its standard error.
        w1: Mean of W1(g, t).
        floor: Mean of W1(t, r), r and t both real.
        ratio: `w1 / floor`, an older score, which rewards blur. 1 if both are zero, infinite if only the floor is.
        spread: Standard deviation of W1(g, t) over the draws, divided by `floor`.
        n: Samples in each set.
        draws: How many times the sets were drawn.
    """

    excess: float
    error: float
    real: float
    real_error: float
    w1: float
    floor: float
    ratio: float
    spread: float
    n: int
    draws: int

    def headline(self) -> str:
        return f"W1 in excess of its floor, over {self.draws} draws of {self.n:,} samples"

    def summary_rows(self) -> list[Row]:
        spread = f"{rounded(self.ratio, 4)} ± {rounded(self.spread, 2)}"
        return [
            Row(
                "Excess over the floor",
                plus_minus(self.excess, self.error),
                "± standard error; 0 for equal laws",
            ),
            Row("  of real samples", plus_minus(self.real, self.real_error), "in place of the generated ones"),
            Row("W1(generated, test)", rounded(self.w1, 4), "mean over the draws"),
            Row("Floor W1(real, test)", rounded(self.floor, 4), "what sampling alone explains"),
            Row("  W1 over floor", spread if self.floor > 0 else "none: floor 0", "an older score, which rewards blur"),
        ]

    def picture(self) -> str:
        errors = {"Excess": (self.excess, self.error), "Of real samples": (self.real, self.real_error)}
        bars = [Bar(name, value - error, value + error, value, proved=False) for name, (value, error) in errors.items()]
        return number_line(bars, "; ".join(f"{name}: {plus_minus(*pair)}" for name, pair in errors.items()))

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Halves(Printed):
    """W1 between halves of two sample sets, against W1 between the two halves of each; see :func:`halved`.

    Attributes:
        excess: `w1` less `floor`, in the units of the samples. Signed; 0 in the mean for equal laws.
        error: Its standard error, as far as the splits show it; None for one split.
        w1: Mean of the four W1(x_i, y_j), over all splits.
        floor: Mean of W1(x_1, x_2) and W1(y_1, y_2): what sampling alone explains at n samples.
        n: Samples in each half.
        splits: How many times the sets were halved.
    """

    excess: float
    error: float | None
    w1: float
    floor: float
    n: int
    splits: int

    def headline(self) -> str:
        times = "once" if self.splits == 1 else f"{self.splits} times"
        return f"W1 between halves of {self.n:,} samples, split {times}, against W1 within each set"

    def summary_rows(self) -> list[Row]:
        spread = "" if self.error is None else "; ± standard error over the splits"
        return [
            Row("Excess", self.text(), f"W1 between halves less the floor, 0 for equal laws{spread}"),
            Row("Floor", rounded(self.floor, 4), "W1 between halves of one set: what sampling alone explains"),
        ]

    def text(self) -> str:
        """The excess, with its error if there is one."""
        return plus_minus(self.excess, math.nan if self.error is None else self.error)

    def bar(self) -> Bar:
        """The excess on a number line."""
        error = self.error or 0.0
        return Bar("Excess", self.excess - error, self.excess + error, self.excess, proved=False)

    def picture(self) -> str:
        floor = Bar("Floor", self.floor, self.floor, self.floor, proved=False)
        return number_line([self.bar(), floor], f"Excess: {self.text()}; floor: {rounded(self.floor, 4)}")


def halved(x: Tensor, y: Tensor, *, splits: int = 1, seed: int = 0) -> Halves:
    r"""How far apart two sample sets are, less what W1 owes to the number of samples: by halves of each.

    .. math:: \text{excess} = E \Bigl[ \tfrac14 \sum_{i, j} W_1(x_i, y_j)
        - \tfrac12 \bigl( W_1(x_1, x_2) + W_1(y_1, y_2) \bigr) \Bigr]

    over random splits, with all halves of the same size n = ⌊min(n_x, n_y)/2⌋, at most 1,000 (100,000 on the line, and
    fewer in more than 8,000 dimensions). It is the excess of :func:`excess_over_floor`, by the same formula, with one
    sample set on either side.

    Arguments:
        x: Samples of P, shape (n_x, d), n_x ≥ 4.
        y: Samples of Q, shape (n_y, d), n_y ≥ 4.
        splits: How many times the sets are split at random.
        seed: Seed of the splits.

    Guarantee:
        That of :func:`excess_over_floor`: the excess is 0 in the mean for equal laws, and signed. `error` follows the
        rule given there: the standard deviation over the splits, over the root of the number of splits that share no
        sample, which is one unless halves are capped. Splits of the same samples are not independent, and cannot show
        the error of the samples themselves: it is a guide, not a confidence interval. Whether the laws differ is a
        question for a permutation test. W1 is not certified here.

    Raises:
        InputError: Fewer than four samples on a side, no split, or samples for which W1 is not defined.

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> x, y = torch.randn(2, 400, 2, generator=rng)
        >>> found = halved(x + torch.tensor([3.0, 4.0]), y)
        >>> 4.5 < found.excess < 5.5 and found.n == 200  # W1 of the laws is 5
        True
    """
    if splits < 1 or min(len(x), len(y)) < 4:
        raise InputError(
            f"Halves need at least four samples on each side, not {len(x)} and {len(y)}, and splits of at least 1, "
            f"not {splits}."
        )
    return halved_checked(*check_pair(x, y), splits, seed)


def halved_checked(x: Tensor, y: Tensor, splits: int, seed: int, *, end: float = math.inf) -> Halves:
    """:func:`halved` for checked samples, with fewer splits if `time.monotonic` reaches `end`.

    Raises:
        TimeoutError: Not even one split was solved by then.
    """
    dim = x.shape[1]
    most = LARGEST_HALF_ON_THE_LINE if dim == 1 else min(LARGEST_HALF, math.isqrt(PRODUCTS // dim) + 1)
    n = min(most, min(len(x), len(y)) // 2)
    rng = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, 0x4A1F)).generate_state(1)[0]))
    between, within = [], []
    for _ in range(splits):
        (x_1, x_2), (y_1, y_2) = (
            side[torch.randperm(len(side), generator=rng)[: 2 * n].to(side.device)].split(n) for side in (x, y)
        )
        pairs = [(x_1, y_1), (x_1, y_2), (x_2, y_1), (x_2, y_2), (x_1, x_2), (y_1, y_2)]
        solved = [_solved(*pair) for pair in takewhile(lambda _: time.monotonic() <= end, pairs)]
        if len(solved) < len(pairs):
            break
        between.append(solved[:4])
        within.append(solved[4:])
    if not between:
        raise TimeoutError
    excesses = list(map(_excess, between, within))
    excess, error = _mean(excesses, min(len(x), len(y)) // (2 * n))
    w1, floor = fmean(map(fmean, between)), fmean(map(fmean, within))
    return Halves(excess, error if len(excesses) > 1 else None, w1, floor, n, len(excesses))


def _excess(between: Sequence[float], within: Sequence[float]) -> float:
    """Mean W1 between sets of two laws less mean W1 between sets of one law; all sets have one size."""
    return fmean(between) - fmean(within)


class Floor:
    r"""Real samples, drawn once, against which any number of generators is scored; see :func:`excess_over_floor`.

    W1(t, r) and the excess of real samples do not depend on the generator: they are computed here.

    Arguments:
        test: Held-out samples t.
        real: Other real samples r, from the law to be learnt.
        size: Samples n in each set, lowered to what `test` holds.
        draws: How many times the sets are drawn.
        seed: Seed of the draws.

    Raises:
        InputError: No draw, fewer than n real samples, or sets for which W1 is not defined.
    """

    def __init__(self, test: Tensor | Pool, real: Tensor | Pool, *, size: int, draws: int = 10, seed: int = 0) -> None:
        if draws < 1 or size < 1:
            raise InputError(f"draws and size must be at least 1, not {draws} and {size}.")
        self.test, self.reals = _pool(test), _pool(real)
        n = self.n = size if self.test.size is None else min(size, self.test.size)
        self.draws, self.seed = draws, seed
        sets = 3 if self.reals.size is None else min(3, self.reals.size // n)
        if sets < 1:
            raise InputError(f"At least {n} real samples besides the held-out ones are needed, not {self.reals.size}.")
        self.floors: list[float] = []
        reals: list[float] = []
        for k in range(draws):
            t = self.test.take(n, k, seed)
            r, *others = self.reals.take(sets * n, k, seed).split(n)
            self.floors.append(_w1(t, r))
            if others:
                s, other = others[0], (*others, r)[1]  # with two sets r stands in for s′: only pairs must be disjoint
                reals.append(_excess([_w1(s, t)], [_w1(s, other), self.floors[-1]]))
        self.real, self.real_error = _mean(reals, min(self.test.apart(n), self.reals.apart(sets * n)))

    def excess(self, generated: Tensor | Pool, *, draws: int | None = None) -> Excess:
        """The excess of a generator over this floor.

        Arguments:
            generated: Its samples.
            draws: Number of draws to use, from the first; all by default.

        Raises:
            InputError: Fewer than 2n generated samples, or samples for which W1 is not defined.
        """
        pool, n = _pool(generated), self.n
        values = self.each(pool, draws=draws)
        excess, error = _mean(
            [excess for excess, _ in values], min(pool.apart(2 * n), self.test.apart(n), self.reals.apart(n))
        )
        w1s, floor = [w1 for _, w1 in values], fmean(self.floors[:draws])
        w1 = fmean(w1s)
        ratio = w1 / floor if floor > 0 else (1.0 if w1 == 0 else math.inf)
        spread = stdev(w1s) / floor if len(w1s) > 1 and floor > 0 else 0.0
        return Excess(excess, error, self.real, self.real_error, w1, floor, ratio, spread, n, len(w1s))

    def each(self, generated: Tensor | Pool, *, draws: int | None = None) -> list[tuple[float, float]]:
        """The excess and W1(g, t) of every draw; see :meth:`excess`."""
        pool, n = _pool(generated), self.n
        if pool.size is not None and pool.size < 2 * n:
            raise InputError(f"At least {2 * n} generated samples, two sets of {n}, are needed, not {pool.size}.")
        values = []
        for k, floor in enumerate(self.floors[:draws]):
            g, other = pool.take(2 * n, k, self.seed).split(n)
            w1 = _w1(g, self.test.take(n, k, self.seed))
            values.append((_excess([w1], [_w1(g, other), floor]), w1))
        return values


def _mean(values: list[float], apart: float) -> tuple[float, float]:
    """The mean of some draws, `apart` of which share no sample, and its standard error, NaN for one draw."""
    if not values:
        return math.nan, math.nan
    error = stdev(values) / math.sqrt(min(len(values), apart)) if len(values) > 1 else math.nan
    return fmean(values), error


def excess_over_floor(
    generated: Tensor | Pool, test: Tensor | Pool, real: Tensor | Pool, *, size: int = 2000, draws: int = 10,
    seed: int = 0,
) -> Excess:  # fmt: skip
    r"""How far generated samples are from held-out ones, less what W1 owes to the number of samples.

    .. math:: \text{excess} = E \Bigl[ W_1(g, t) - \tfrac12 \bigl( W_1(g, g') + W_1(t, r) \bigr) \Bigr]

    over disjoint sets of n samples each: g and g′ generated, t held out, r other real samples. The mean of a few draws
    comes with its standard error, and with the same for real samples in place of g and g′.

    Arguments:
        generated: Samples of the generator, at least 2n.
        test: Held-out real samples.
        real: Other real samples: at least n; 2n to score real samples in the generator's place, 3n for all sets of that
            to be disjoint, too.
        size: Samples n in each set, lowered to what `test` holds.
        draws: How many times the sets are drawn, at least ten for a final figure.
        seed: Seed of the draws.

    Guarantee:
        The excess is zero in the mean if generated and real samples have one law, and tends to W1 of the two laws as n
        grows, if both have a first moment; for laws far apart it may stay below that by the floor. It is signed and
        never clipped: for a good generator it scatters around zero, as that of real samples does.

        Not covered: that its mean is never negative has not been proved. Copies of training samples go unnoticed, since
        r and the copies have one law: see :func:`wgan_lip.metrics.memorisation`. W1 is computed to about 1e-8 of the
        samples' size, and is not certified.

        The standard error is the standard deviation of a draw over the root of the number of draws that share no
        sample, since an average over subsets varies no more than one over as many disjoint ones (Hoeffding, 1948). If
        `test` has no more than n samples, all draws share them; the error from their choice is common to the excess and
        to that of real samples, so compare the two.

    Raises:
        InputError: No draw; too few samples; samples that are not finite or differ in dimension.

    References:
        The energy distance has this form, with mean distances in place of W1: Energy statistics (Székely, Rizzo,
        2013). So do Sinkhorn divergences: Learning Generative Models with Sinkhorn Divergences (Genevay, Peyré,
        Cuturi, 2018), https://arxiv.org/abs/1706.00292. For the variance: A class of statistics with asymptotically
        normal distribution (Hoeffding, 1948)

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> x = torch.randn(4, 600, 2, generator=rng)
        >>> found = excess_over_floor(x[0] + torch.tensor([3.0, 4.0]), x[1], x[2], size=100)
        >>> 4.5 < found.excess < 5 and abs(found.real) < 0.1  # W1 of the laws is 5
        True
    """
    return Floor(test, real, size=size, draws=draws, seed=seed).excess(generated)


def real_pools(source: Source, size: int, seed: int = 0) -> tuple[Pool, Pool]:
    """Held-out samples of a source, and other real ones, for sets of `size` samples.

    From a law both are drawn fresh, so no two draws share samples; otherwise they are the test and the training set.

    Raises:
        InputError: The source has fewer samples.
    """
    if isinstance(source, ToySource):
        return Pool(lambda n, seed: source.reference(n, FRESH + seed)), Pool(source.reference)
    if isinstance(source, FiniteSource) and source.size is not None:
        return Pool(source.test), Pool(lambda index: source.rows(index).cpu(), source.size)
    size = min(size, len(source.test))
    for sets in (3, 2):
        with suppress(InputError):
            return Pool(source.test), Pool(source.reference(sets * size, seed))
    return Pool(source.test), Pool(source.reference(size, seed))


def _pool(samples: Tensor | Pool) -> Pool:
    return samples if isinstance(samples, Pool) else Pool(samples)


def _w1(x: Tensor, y: Tensor) -> float:
    """Exact W1 between two sets of equal size."""
    return _solved(*check_pair(x, y))


def _solved(x: Tensor, y: Tensor) -> float:
    """Exact W1 between two checked sets of equal size."""
    if x.shape[1] > 1:
        check_memory(BYTES_PER_PAIR * len(x) * len(y), f"W1 of {len(x)} and {len(y)} samples", "Lower `size`.")
    return solve_problem(Problem.of_checked(x, y)).value
