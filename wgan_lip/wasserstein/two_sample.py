"""Two-sample tests: whether two laws are equal, and a lower bound on their distance."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from itertools import chain, combinations, islice
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip.data import Law
from wgan_lip.lipschitz.bounds import gamma
from wgan_lip.transport import BYTES_PER_PAIR
from wgan_lip.transport.distances import distances
from wgan_lip.transport.exact import network_simplex
from wgan_lip.transport.rounding import distance_error, unit_of
from wgan_lip.utils.checks import InputError, check_choice, check_memory, check_pair, check_seed, common_origin
from wgan_lip.utils.devices import find_device
from wgan_lip.utils.numbers import percent, rounded, rounded_down, rounded_up
from wgan_lip.utils.printing import Bar, Printed, Row, number_line
from wgan_lip.wasserstein.betting import BettingTest
from wgan_lip.wasserstein.population import check_level

__all__ = ["TwoSampleTest", "check_test", "two_sample_test"]

STATISTICS = {
    "combined": "product of the p-values of energy distance and sliced W1",
    "energy": "energy distance",
    "w1": "W1 of the samples",
    "excess": "W1 in excess of its floor",
    "sliced_w1": "mean W1 along random directions",
    "mmd": "squared MMD, a Gaussian kernel as wide as the median distance",
    "betting": "logarithm of the largest capital",
}
"""Method → what its statistic is."""
PARTS = {"combined": ("energy", "sliced_w1")}
"""Method → the methods whose p-values it combines."""
PERMUTATIONS = {"combined": 999, "energy": 999, "w1": 199, "excess": 199, "sliced_w1": 999, "mmd": 999}
"""Method → permutations by default. Each permutation for w1 and excess takes exact plans."""
MOST = 10_000_000  # permutations
DIRECTIONS = 100
CHUNK = 2**22  # entries of a block of permutations: 32 MiB
SOLVED = 1e-9  # difference up to which two exact values count as equal, relative to the largest distance
SUBSAMPLE = "Test a random subsample, such as x[torch.randperm(len(x))[:5000]]."

Statistic = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From orders of the pooled samples, shape (b, n + m), the first n taken as x: values (b,), and bounds (b,) on their
rounding."""


@dataclass(frozen=True)
class TwoSampleTest(Printed):
    """Whether two laws are equal, and a lower bound on their W1.

    Attributes:
        statistic: The method's statistic; see :func:`two_sample_test`.
        pvalue: p-value of equal laws: if they are equal, it is at most α with probability at most α, for every α.
        w1_lower: W1 of the laws is at least this, in the units of the samples, with confidence `level`; 0 if nothing
            above 0 was found, None if the method gives no bound.
        method: combined, energy, w1, excess, sliced_w1, mmd or betting.
        level: Confidence of `w1_lower`; `rejected` compares the p-value with 1 − level.
        permutations: How many splits of the samples the statistic was compared with; None for betting.
        n: Number of samples of P.
        m: Number of samples of Q.
        dim: Their dimension.
        seed: Seed of the permutations, or of the order of the samples.
        seconds: Time taken.
        notes: What the reader should know, in sentences.

    It unpacks like SciPy's results: `statistic, pvalue = two_sample_test(x, y)`.
    """

    statistic: float
    pvalue: float
    w1_lower: float | None
    method: str
    level: float
    permutations: int | None
    n: int
    m: int
    dim: int
    seed: int | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[float]:
        return iter((self.statistic, self.pvalue))

    @property
    def rejected(self) -> bool:
        """Whether equality of the laws is rejected: pvalue ≤ 1 − level."""
        return self.pvalue <= float(self._alpha)

    @property
    def joint_level(self) -> float:
        """The confidence that a rejection and the bound are both right.

        A bound by betting is one statement with its p-value; with a p-value by permutation there are two statements,
        whose error probabilities add up.
        """
        statements = 1 if self.w1_lower is None or self.method == "betting" else 2
        return max(0.0, float(1 - statements * self._alpha))

    @property
    def _alpha(self) -> Decimal:
        return 1 - Decimal(repr(float(self.level)))

    def headline(self) -> str:
        return f"Are two laws equal? From {self.n:,} and {self.m:,} samples in dimension {self.dim:,}"

    def summary_rows(self) -> list[Row]:
        verdict = "rejected" if self.rejected else "not rejected"
        permuted = "" if self.permutations is None else f", {self.permutations:,} permutations"
        p = rounded_up(self.pvalue * (1 - 2.0**-50), 3)  # 1/1000 is shown as such, though its float is above it
        rows = [
            Row("Equal laws", f"p = {p}", f"{verdict} at {percent(float(self._alpha))}"),
            Row("  statistic", rounded(self.statistic, 4), f"{STATISTICS[self.method]}{permuted}"),
        ]
        if self.w1_lower is not None:
            found = f"with {percent(self.level)} confidence, by betting"
            rows.append(Row("W1 of the laws", f"≥ {rounded_down(self.w1_lower)}", found))
            if self.method != "betting":
                rows.append(Row("  jointly", percent(self.joint_level), "confidence in p and this bound together"))
        return [*rows, *(Row("Note", note) for note in self.notes)]

    def picture(self) -> str:
        if self.w1_lower is None:
            return ""
        bar = Bar("W1 of the laws", self.w1_lower, math.inf, proved=False)
        return number_line([bar], self.summary_rows()[2].figure)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data, as `result.json` holds it."""
        plain = {**asdict(self), "seconds": round(self.seconds, 3), "notes": list(self.notes)}
        return {**plain, "rejected": self.rejected, "joint_level": self.joint_level}


def two_sample_test(
    x: Tensor | ArrayLike,
    y: Tensor | ArrayLike,
    *,
    method: str = "combined",
    permutations: int | None = None,
    effect: bool = False,
    level: float = 0.95,
    a: None = None,
    b: None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> TwoSampleTest:
    r"""Tests whether the laws P of x and Q of y are equal; with an effect size, a lower bound on their W1.

    By permutation, with a statistic T of the samples, and T_b that of a random split of the pooled samples into n and
    m:

    .. math:: p = \frac{1 + \#\{b : T_b \ge T\}}{1 + B}

    `combined`, the default: by energy distance and sliced W1, on the same splits; T is the product of the two p-values
    of a split among all of them, and small values count: equal laws are rejected as rarely as by one of them, and laws
    that only one of them tells apart are found nearly as often as by that one. `energy`: the
    energy distance :math:`2\,\overline{\|x - y\|} - \overline{\|x - x'\|} - \overline{\|y - y'\|}`, means over all
    pairs, in the units of the samples (the square of `scipy.stats.energy_distance`, which is for the line).
    `w1`: exact W1 of the samples. `excess`: what it has beyond a floor, with random halves of :math:`\lfloor \min(n, m)
    / 2 \rfloor` samples, the mean of W1(x_i, y_j) less :math:`\frac12 [W_1(x_1, x_2) + W_1(y_1, y_2)]`. `sliced_w1`:
    the mean W1 along 100 random directions. `mmd`: the squared maximum mean discrepancy
    :math:`\overline{k(x, x')} + \overline{k(y, y')} - 2\,\overline{k(x, y)}`, :math:`k(u, v) = e^{-\|u - v\|^2 / 2h^2}`
    with h the median distance of the pooled samples.

    By betting (`method="betting"`): the samples go to :class:`BettingTest` in random pairs. The p-value and `w1_lower`
    are then one statement, which holds jointly at `level`.

    Arguments:
        x: Independent samples of P, shape (n, d), or (n,) for scalars, n ≥ 2; any real dtype, any device; a data frame
            or an AnnData object too.
        y: Independent samples of Q, shape (m, d), m ≥ 2, independent of x. Columns that have names on both sides are
            matched by them.
        method: combined, energy, w1, excess, sliced_w1, mmd or betting. Which finds what: `wgan-lip benchmark
            suite=tests`.
        permutations: B; by default 999, for w1 and excess 199. If there are no more splits than B besides the given
            one, all are taken, and p is exact.
        effect: True adds `w1_lower` by betting to a p-value by permutation. It is a second statement: `joint_level` is
            that of both.
        level: Confidence, in (0, 1).
        a: Weights are not supported; anything but None is refused.
        b: As for a.
        device: Where permutations are evaluated: cpu, cuda, cuda:N or auto. w1 and excess solve on the CPU.
        seed: Seed of the permutations, directions, halves and pairs; do not choose it by the result.

    Returns:
        :class:`TwoSampleTest`.

    Raises:
        InputError: Unusable samples or settings, weights, columns whose names differ, or less memory available than
            needed: about 16 (n + m)² bytes, for mmd 32 (n + m)²; for w1 and excess 40 n m more. On the line, energy, w1
            and sliced_w1 need no distances.

    Guarantee:
        If P = Q and all samples are independent, the p-value is at most α with probability at most α, at every n and m:
        ties, and values that differ by less than their rounding, count against a rejection. `w1_lower` is at most
        W1(P, Q) with probability at least `level`, whatever the laws are. A p-value that is not small is no evidence
        that the laws are equal.

    References:
        Energy statistics (Székely, Rizzo, 2013); A Kernel Two-Sample Test (Gretton et al., 2012); for the added 1:
        Permutation P-values should never be zero (Phipson, Smyth, 2010); for p-values combined on the same splits:
        Permutation tests for complex data (Pesarin, Salmaso, 2010), chapter 4

    Example:
        >>> x = np.random.default_rng(0).normal(size=(200, 2))
        >>> two_sample_test(x[:100], x[100:] + 1.0).pvalue
        0.001
    """
    start = time.monotonic()
    x, y, count, where, seed, note = check_test(
        x, y, method=method, permutations=permutations, effect=effect, level=level, a=a, b=b, device=device, seed=seed
    )
    result = _permuted(x, y, method, count, level, where, seed) if count else _bet(x, y, level, seed)
    if effect and count:
        bet = _bet(x, y, level, seed)
        result = replace(result, w1_lower=bet.w1_lower, notes=(*result.notes, *bet.notes))
    return replace(result, seconds=time.monotonic() - start, notes=(*filter(None, [note]), *result.notes))


def check_test(
    x: Tensor | ArrayLike,
    y: Tensor | ArrayLike,
    *,
    method: str,
    permutations: int | None,
    effect: bool,
    level: float,
    a: None,
    b: None,
    device: torch.device | str,
    seed: int,
) -> tuple[Tensor, Tensor, int, torch.device, int, str]:
    """Checks the arguments of :func:`two_sample_test` before anything is computed.

    Returns:
        The samples, float64 on the CPU, the number of permutations (0 for betting), device and seed, and a note on the
        samples, or "".
    """
    check_choice(method, tuple(STATISTICS), "method")
    check_level(level)
    if a is not None or b is not None:
        raise InputError(
            "A two-sample test takes independent samples, without weights. If the weights are counts, repeat the "
            "samples, by np.repeat(x, a, axis=0)."
        )
    if method == "betting" and permutations is not None:
        raise InputError(f"method=betting takes no permutations. Leave out permutations={permutations}.")
    count = PERMUTATIONS.get(method, 0) if permutations is None else permutations
    whole = isinstance(count, Integral) and not isinstance(count, bool)
    if permutations is not None and not (whole and 1 <= count <= MOST):
        raise InputError(f"permutations must be an integer from 1 to {MOST:,}, not {count!r:.40}.")
    if type(effect) is not bool:
        raise InputError(f"effect must be True or False, not {effect!r}.")
    for name, samples in (("x", x), ("y", y)):
        if isinstance(samples, Law):
            raise InputError(f"{name} must hold samples, not a law. Draw from it: law.sample(n, generator).")
    x, y, note = common_origin(x, y)
    x, y = (samples.detach().cpu().double() for samples in check_pair(x, y, minimum=2))
    unit_of(x, y)  # refuses coordinates beyond what sums of squares can hold
    return x, y, int(count), find_device(str(device)), check_seed(seed), note


def _bet(x: Tensor, y: Tensor, level: float, seed: int) -> TwoSampleTest:
    rng = _stream(seed)
    x, y = (samples[torch.from_numpy(rng.permutation(len(samples)))] for samples in (x, y))
    test = BettingTest(level=level, expected=min(len(x), len(y))).update(x, y)
    return TwoSampleTest(
        test.statistic, test.pvalue, test.w1_lower, "betting", level, None, len(x), len(y), x.shape[1], seed,
        notes=test.notes,
    )  # fmt: skip


def _permuted(
    x: Tensor, y: Tensor, method: str, permutations: int, level: float, device: torch.device, seed: int
) -> TwoSampleTest:
    n, m, dim = len(x), len(y), x.shape[1]
    rng = _stream(seed)
    unit = unit_of(x, y)
    pooled = (torch.cat((x, y)) / unit).to(device)
    statistics = [_statistic(part, pooled, n, rng) for part in PARTS.get(method, (method,))]
    # Excess takes random halves. With many samples the number of splits would have millions of digits.
    every = method != "excess" and math.comb(n + m, 2) <= permutations + 1 >= math.comb(n + m, n)
    permutations = math.comb(n + m, n) - 1 if every else permutations

    given = torch.from_numpy(np.concatenate((rng.permutation(n), n + rng.permutation(m))))[None]
    orders = chain([given], _every_other_split(n, m) if every else _random_orders(n + m, permutations, rng))
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in statistics]
    for block in orders:
        for statistic, of_splits in zip(statistics, found):
            values, errors = statistic(block.to(device))
            of_splits.append((values.cpu(), errors.cpu()))
    parts = [tuple(map(torch.cat, zip(*of_splits))) for of_splits in found]  # values and errors, the given split first
    if len(parts) == 1:
        ((values, errors),) = parts
        value, reached = float(values[0]), int((values + errors + errors[0] >= values[0])[1:].sum())
    else:
        products = torch.stack([_ranks(values, errors) for values, errors in parts]).prod(dim=0)  # below 2^53
        value = float(products[0]) / len(products) ** len(parts)
        reached = int((products <= products[0])[1:].sum())
    notes = []
    if every:
        notes.append(f"p is exact: all {permutations + 1:,} splits of the samples were taken.")
    value = value if method in ("mmd", *PARTS) else value * unit
    pvalue = (1 + reached) / (1 + permutations)
    result = TwoSampleTest(value, pvalue, None, method, level, permutations, n, m, dim, seed, notes=tuple(notes))
    if not replace(result, pvalue=1 / (1 + permutations)).rejected:
        remedy = "give more samples" if every else "raise permutations"
        notes.append(f"p can't be below 1/{1 + permutations}, so equality can't be rejected at this level: {remedy}.")
    return replace(result, notes=tuple(notes))


def _ranks(values: Tensor, errors: Tensor) -> Tensor:
    """For each split, how many of all splits have at least its value, itself included, shape (B + 1,).

    Where rounding leaves doubt, the given split, the first one, gets the largest possible rank, and the others the
    smallest, so the p-value from these is no smaller than in real arithmetic.
    """
    lowest = (values - errors).sort().values
    surely = len(values) - torch.searchsorted(lowest, values + errors)
    surely += (values - errors < values + errors).long()  # itself, where it is not counted
    surely[0] = (values + errors + errors[0] >= values[0]).sum()
    return surely


def _stream(seed: int) -> np.random.Generator:
    """A random stream other than those that torch or NumPy may have used to draw samples from `seed`."""
    return np.random.default_rng([seed, 0x7E57])


def _random_orders(total: int, count: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """`count` permutations of `total` samples in blocks, shape (b, total)."""
    block = max(1, CHUNK // total)
    for start in range(0, count, block):
        yield torch.from_numpy(rng.random((min(block, count - start), total))).argsort(dim=1)


def _every_other_split(n: int, m: int) -> Iterator[Tensor]:
    """Every split of n + m samples into n and m but the one given, in blocks, shape (b, n + m)."""
    splits = combinations(range(n + m), n)
    next(splits)  # the one given
    while block := list(islice(splits, max(1, CHUNK // (n + m)))):
        chosen = torch.zeros(len(block), n + m).scatter_(1, torch.tensor(block), 1.0)
        yield chosen.argsort(dim=1, descending=True, stable=True)


def _statistic(method: str, pooled: Tensor, n: int, rng: np.random.Generator) -> Statistic:
    m, dim = len(pooled) - n, pooled.shape[1]
    if dim == 1 and method in ("energy", "w1", "sliced_w1"):  # every direction is the line
        return _along_lines(pooled, n, power=2 if method == "energy" else 1)
    if method == "sliced_w1":
        theta = torch.from_numpy(rng.standard_normal((dim, DIRECTIONS)))
        theta = (theta / torch.linalg.vector_norm(theta, dim=0)).to(pooled)
        return _along_lines((pooled - pooled[0]) @ theta, n, power=1)  # far from the origin, digits would be lost
    pairs = len(pooled) ** 2
    need = (32 if method == "mmd" else 16) * pairs + (BYTES_PER_PAIR * n * m if method in ("w1", "excess") else 0)
    check_memory(need, f"a test by {method} with the distances of {len(pooled)} samples", SUBSAMPLE)
    apart, relative = _distances(pooled)
    if method == "energy":
        # |s|ᵀD|s| ≤ 4|s|ᵀr for the row means r, by the triangle inequality over all samples
        return _quadratic(-apart, n, 4 * apart.mean(dim=1), relative)
    if method == "mmd":
        return _quadratic(_kernel(apart), n, torch.full_like(apart[0], 4.0), relative)
    return _solved(apart.cpu().numpy(), n, excess=method == "excess")


def _distances(pooled: Tensor) -> tuple[Tensor, float]:
    """Distances of all pairs, shape (n + m, n + m), and a bound on the relative error of each."""
    if pooled.device.type == "cpu":
        rows, relative = distances(pooled, pooled)
        return torch.from_numpy(rows), relative
    found = torch.cdist(pooled, pooled, compute_mode="donot_use_mm_for_euclid_dist")
    return found, distance_error(pooled.shape[1])


def _signs(orders: Tensor, n: int) -> Tensor:
    """1/n for samples in x, −1/m for those in y, shape (b, n + m)."""
    signs = torch.full(orders.shape, -1 / (orders.shape[1] - n), dtype=torch.float64, device=orders.device)
    return signs.scatter_(1, orders[:, :n], 1 / n)


def _quadratic(matrix: Tensor, n: int, size: Tensor, relative: float) -> Statistic:
    """sᵀMs for the signs s of a split, given |s|ᵀ|M||s| ≤ |s|ᵀ·`size`, for distances with that relative error."""
    relative = gamma(4 * len(matrix) + 64) + 3 * relative

    def evaluate(orders: Tensor) -> tuple[Tensor, Tensor]:
        signs = _signs(orders, n)
        return ((signs @ matrix) * signs).sum(dim=1), relative * (signs.abs() @ size)

    return evaluate


def _kernel(apart: Tensor) -> Tensor:
    """A Gaussian kernel as wide as the median distance of two different samples."""
    total = len(apart)  # the zeros on the diagonal sort first
    width = apart.flatten().kthvalue(total + (total * total - total + 1) // 2).values
    width = width if width > 0 else apart.mean()  # where half of the pairs coincide
    return apart.div(width if width > 0 else 1.0).square_().mul_(-0.5).exp_()


def _along_lines(positions: Tensor, n: int, power: int) -> Statistic:
    r"""The mean over lines of :math:`\int |F - G|`, which is W1, or of :math:`2 \int (F - G)^2`, the energy distance.

    Arguments:
        positions: Positions of all samples on k lines, shape (n + m, k).
        n: How many of them belong to x.
        power: 1 or 2.
    """
    places, order = positions.sort(dim=0)
    gaps = places.diff(dim=0)  # (n + m − 1, k)
    relative = 4 * gamma(2 * len(places) + 16) * gaps.sum(dim=0).mean()
    lines = list(zip(order.T, gaps.T))

    def evaluate(orders: Tensor) -> tuple[Tensor, Tensor]:
        signs = _signs(orders, n).T.contiguous()
        values = torch.zeros(len(orders), dtype=torch.float64, device=orders.device)
        for line, gap in lines:
            steps = signs[line].cumsum_(dim=0)[:-1]  # F − G on every gap
            values += gap @ (steps.abs_() if power == 1 else steps.square_().mul_(2))
        return values / len(lines), relative.expand(len(orders))

    return evaluate


def _solved(apart: np.ndarray, n: int, *, excess: bool) -> Statistic:
    """Exact W1 of the two parts, or its excess over its floor."""
    scale = float(apart.max()) or 1.0  # the solver's tolerance is absolute

    def w1(rows: np.ndarray, columns: np.ndarray) -> float:
        costs = apart[np.ix_(rows, columns)] / scale
        a, b = (np.full(len(part), 1 / len(part)) for part in (rows, columns))
        plan, _, _ = network_simplex(a, b, costs)
        return float(plan.mass @ costs[plan.rows, plan.columns]) * scale

    def value(order: np.ndarray) -> float:
        x, y = order[:n], order[n:]
        if not excess:
            return w1(x, y)
        half = min(len(x), len(y)) // 2
        first, second, third, fourth = x[:half], x[half : 2 * half], y[:half], y[half : 2 * half]
        apart = math.fsum(w1(of_x, of_y) for of_x in (first, second) for of_y in (third, fourth))
        return apart / 4 - (w1(first, second) + w1(third, fourth)) / 2

    def evaluate(orders: Tensor) -> tuple[Tensor, Tensor]:
        values = [value(order) for order in orders.cpu().numpy()]
        return torch.tensor(values, dtype=torch.float64), torch.full((len(values),), SOLVED * scale).double()

    return evaluate
