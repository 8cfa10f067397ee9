r"""W1 of the laws P and Q, bounded with confidence from held-out samples.

Note [Lowered values]
    The bounds on a mean hold for independent values whose means are equal or smaller, so each value may be replaced by
    a smaller float that depends only on its own sample. Rounding before the mean, from evaluating the critic,
    differences and scaling, is subtracted there, value by value; no bound on the rounding at unseen samples is needed.
    Rounding in the formulas themselves is subtracted afterwards. Logarithms are taken to be accurate to 8 ulp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from wgan_lip.lipschitz.bounds import gamma
from wgan_lip.lipschitz.certificates import Certificate, Proof, prove
from wgan_lip.transport import Problem, Transport, solve_problem
from wgan_lip.utils.checks import InputError, check_choice, check_pair
from wgan_lip.utils.numbers import percent, rounded, rounded_down, rounded_up
from wgan_lip.utils.printing import Bar, Printed, Row, number_line

__all__ = [
    "PopulationBounds",
    "bernstein_lower_bound",
    "betting_lower_bound",
    "check_level",
    "clip_range",
    "differences",
    "enclosed_values",
    "log_capital",
    "normal_lower_bound",
    "population_bounds",
    "proved_bounds",
    "proved_range",
]

METHODS = ("betting", "bernstein", "normal")
LARGEST_BET = 0.75  # of the capital, at most, that one bet can lose
HALVINGS = 44  # of [0, 1], in search of the bound: to 6e-14 of the range


@dataclass(frozen=True)
class PopulationBounds(Printed):
    """lower ≤ W1(P, Q) ≤ upper with the stated confidence, about the laws, in the units of the samples.

    Attributes:
        lower: The critic's held-out dual value less its uncertainty, at least 0.
        estimate: That value, (mean g(x) − mean g(y))/L for the clipped critic g: an unbiased estimate of a number that
            is at most W1(P, Q), without a confidence statement.
        upper: W1 of the samples plus its uncertainty, or None if the assumptions give no upper bound.
        level: Confidence, jointly for both ends if there are two. `lower` > `upper` has probability at most 1 − level
            if the assumptions hold, so it is a reason to doubt them.
        method: How the means are bounded: betting, bernstein or normal.
        assumptions: Everything the confidence rests on, in sentences.
        n: Number of held-out samples of P.
        m: Number of held-out samples of Q.
        dim: Their dimension.
    """

    lower: float
    estimate: float
    upper: float | None
    level: float
    method: str
    assumptions: tuple[str, ...]
    n: int
    m: int
    dim: int

    def headline(self) -> str:
        return f"W1 between two laws in dimension {self.dim:,}, with {percent(self.level)} confidence"

    def summary_rows(self) -> list[Row]:
        found = "" if self.estimate > 0 else ": nothing above 0 was found"
        return [
            Row("W1 of the laws", self._text(), f"with {percent(self.level)} confidence, by {self.method}"),
            Row("  estimate", rounded(self.estimate, 4), f"the critic's, on {self.n} + {self.m} held out{found}"),
            Row("Assuming", " ".join(self.assumptions)),
        ]

    def _text(self) -> str:
        end = "" if self.upper is None else f" ≤ {rounded_up(self.upper)}"
        return f"{rounded_down(self.lower)} ≤ W1{end}"

    def bar(self) -> Bar:
        """The bounds on a number line, the critic's estimate marked."""
        upper = math.inf if self.upper is None else self.upper
        return Bar("W1 of the laws", min(self.lower, upper), max(self.lower, upper), self.estimate, proved=False)

    def picture(self) -> str:
        return number_line([self.bar()], self._text())


def normal_lower_bound(z: Tensor | ArrayLike, level: float, *, minus: Tensor | ArrayLike | None = None) -> np.ndarray:
    r"""Bounds a mean, or a difference of two, from below by the central limit theorem.

    .. math:: \bar z - q \frac{s_z}{\sqrt n}, \qquad
        \bar z - \bar y - q \sqrt{\frac{s_z^2}{n} + \frac{s_y^2}{m}}, \qquad \Phi(q) = \mathrm{level}

    Arguments:
        z: Independent values from one law, shape (..., n); leading axes hold separate samples.
        level: Confidence, in (0, 1).
        minus: Values of a second law, independent of z, shape (..., m), whose mean is subtracted.

    Returns:
        One bound per sample, shape (...).

    Raises:
        InputError: Fewer than two values, values that are not finite, a level outside (0, 1).

    Guarantee:
        As n and m grow, the bound lies at or below the mean with a probability that tends to `level`, for any laws of
        finite variance that is not 0. At no given n does that hold for all laws: if rare values far below the others
        drive the mean, a sample without them misleads.

    References:
        Probability and measure (Billingsley, 1995), Theorem 27.2
    """
    samples = [_values(values) for values in ((z,) if minus is None else (z, minus))]
    # In a unit that is a power of two near the largest value, squares neither overflow nor vanish.
    largest = np.maximum.reduce([np.abs(values).max(axis=-1, initial=2.0**-1022) for values in samples])
    exponent = np.frexp(largest)[1]
    samples = [np.ldexp(values, -exponent[..., None]) for values in samples]
    means, variances = zip(*(_moments(values) for values in samples))
    sizes = [values.shape[-1] for values in samples]
    quantile = NormalDist().inv_cdf(check_level(level))
    error = quantile * np.sqrt(sum(variance / size for variance, size in zip(variances, sizes)))
    rounding = sum(gamma(size + 16) for size in sizes) * (1 + abs(quantile))
    return np.ldexp(means[0] - sum(means[1:]) - error - rounding, exponent)


def bernstein_lower_bound(z: Tensor | ArrayLike, low: float, high: float, level: float) -> np.ndarray:
    r"""Bounds the mean of bounded values from below by the empirical Bernstein inequality.

    .. math:: \bar z - \sqrt{\frac{2 s^2 \ln(2 / \alpha)}{n}} - \frac{7 (high - low) \ln(2 / \alpha)}{3 (n - 1)},
        \qquad \alpha = 1 - \mathrm{level}

    with the unbiased sample variance s², and not below `low`.

    Arguments:
        z: Independent values in [low, high], shape (..., n); leading axes hold separate samples.
        low: Least possible value, known before the values are seen.
        high: Greatest possible value, known before too.
        level: Confidence, in (0, 1).

    Returns:
        One bound per sample, shape (...).

    Raises:
        InputError: Fewer than two values, values outside [low, high], an empty range, a level outside (0, 1).

    Guarantee:
        At every n, the bound lies at or below the mean with probability at least `level`. The values need not come
        from one law: if their means differ, the bound is about the average of their means.

    References:
        Empirical Bernstein bounds and sample variance penalization (Maurer, Pontil, 2009), Theorem 4; Theorem 11 for
        values of several laws
    """
    unit, width = _unit_interval(z, low, high)
    n, log = unit.shape[-1], math.log(2 / (1 - check_level(level)))
    mean, variance = _moments(unit)
    deviation, remainder = np.sqrt(2 * variance * log / n), 7 * log / (3 * (n - 1))
    rounding = gamma(n + 32) * (mean + deviation + remainder)
    return _scaled_back(mean - deviation - remainder - rounding - 1e-150, low, width)  # squares below 1e-308 vanish


def betting_lower_bound(z: Tensor | ArrayLike, low: float, high: float, level: float) -> np.ndarray:
    r"""Bounds the mean of bounded values from below by betting against every smaller mean.

    .. math:: \inf \Bigl\{ \mu : \max_{t \le n} K_t(\mu) < \frac{1}{\alpha} \Bigr\}, \qquad
        K_t(\mu) = \prod_{i \le t} \Bigl( 1 + \min\Bigl( \lambda_i, \frac{3}{4 \mu} \Bigr) (z_i - \mu) \Bigr), \qquad
        \lambda_i = \sqrt{\frac{2 \ln(1 / \alpha)}{n \hat\sigma_{i - 1}^2}}

    for values in [0, 1], to which others are scaled; α = 1 − level, and

    .. math:: \hat\sigma_i^2 = \frac{1/4 + \sum_{j \le i} (z_j - \hat\mu_j)^2}{i + 1}, \qquad
        \hat\mu_i = \frac{1/2 + \sum_{j \le i} z_j}{i + 1}

    K is the capital of a gambler who starts with 1 and bets that the mean exceeds μ. If it does not, K is a
    non-negative supermartingale, which reaches 1/α with probability at most α.

    Arguments:
        z: Independent values in [low, high], shape (..., n), in an order that does not depend on them; leading axes
            hold separate samples.
        low: Least possible value, known before the values are seen.
        high: Greatest possible value, known before too.
        level: Confidence, in (0, 1).

    Returns:
        One bound per sample, shape (...). Another order of the values gives another, equally valid bound.

    Raises:
        InputError: Fewer than two values, values outside [low, high], an empty range, a level outside (0, 1).

    Guarantee:
        At every n, the bound lies at or below the mean with probability at least `level`. The values need only have
        equal means given those before them. Every factor of K decreases in μ, so the infimum is found by bisection; the
        μ returned is one where the capital was seen to exceed 1/α by more than rounding, or `low`.

    References:
        Estimating means of bounded random variables by betting (Waudby-Smith, Ramdas, 2023), section 4: the capital
        process that bets upwards, alone, with the predictable plug-in bets for a fixed n
    """
    unit, width = _unit_interval(z, low, high)
    n, log = unit.shape[-1], -math.log(1 - check_level(level))
    count = np.arange(2, n + 2)
    guess = (0.5 + np.cumsum(unit, axis=-1)) / count
    spread = (0.25 + np.cumsum(np.square(unit - guess), axis=-1)) / count
    spread = np.concatenate((np.full_like(spread[..., :1], 0.25), spread[..., :-1]), axis=-1)  # of the values before
    # Any bets are valid that depend only on the values before, so rounding in them does not matter.
    bets = np.sqrt(2 * log / (n * spread))

    below, above = np.zeros(unit.shape[:-1]), np.ones(unit.shape[:-1])
    for _ in range(HALVINGS):
        mean = (below + above) / 2
        refuted = log_capital(unit, bets, 0.0, mean) >= log * (1 + 2.0**-48)
        below, above = np.where(refuted, mean, below), np.where(refuted, above, mean)
    return _scaled_back(below, low, width)


def log_capital(z: np.ndarray, bets: np.ndarray, low: np.ndarray | float, mean: np.ndarray) -> np.ndarray:
    r"""The logarithm of the largest capital at any time, from bets that the mean of values exceeds a number.

    .. math:: \max_t \sum_{i \le t} \ln \Bigl(
        1 + \min\Bigl( \lambda_i, \frac{3}{4 (\mu - l_i)} \Bigr) (z_i - \mu) \Bigr)

    Arguments:
        z: The values, z_i ≥ l_i, shape (..., n), n ≥ 1.
        bets: The λ_i ≥ 0, each fixed before its value was seen, shape (..., n).
        low: The l_i, also fixed before, below every mean.
        mean: The number μ, shape (...).

    Guarantee:
        Rounding is subtracted. Every factor is at least 1/4 and decreases in μ, and so does the capital.
    """
    n, column = z.shape[-1], mean[..., None]
    gains = np.log(1 + np.minimum(bets, LARGEST_BET / (column - low)) * (z - column))
    # A factor errs by less than 16 u of itself, and so does its logarithm; a sum by γ of its terms.
    rounding = gamma(16 * n) + gamma(n + 32) * np.abs(gains).sum(axis=-1)
    return np.cumsum(gains, axis=-1).max(axis=-1) - rounding


def clip_range(critic: nn.Module | Proof, x_train: Tensor, y_train: Tensor) -> tuple[float, float]:
    """The range of `critic` on the training split, for :func:`population_bounds` on the held-out one.

    It leaves out the five least and the five greatest values, fewer below 1,000 samples. Clipping those costs little,
    since few held-out samples are beyond them; with heavy tails they would multiply the range.

    Arguments:
        critic: The potential f, (b, d) → (b,), or a proof of it.
        x_train: Samples of P that the critic has seen, shape (n, d).
        y_train: Samples of Q that it has seen, shape (m, d).

    Raises:
        InputError: Unusable samples, or a critic that is constant or not finite on them.
    """
    return proved_range(prove(critic), *check_pair(x_train, y_train))


def proved_range(proof: Proof, x_train: Tensor, y_train: Tensor) -> tuple[float, float]:
    """:func:`clip_range` for checked samples."""
    found = proof.evaluate(torch.cat((x_train.detach().cpu().double(), y_train.detach().cpu().double()))).values
    values = found.sort().values.tolist()
    trim = min(5, len(values) // 200)
    low, high = values[trim], values[-1 - trim]
    return _range(low, high) if low < high else _range(values[0], values[-1])


def population_bounds(
    critic: nn.Module | Proof,
    x: Tensor,
    y: Tensor,
    *,
    clip: tuple[float, float],
    level: float = 0.95,
    method: str = "betting",
    certificate: Certificate | None = None,
    diameters: tuple[float | None, float | None] = (None, None),
    generators: tuple[float | None, float | None] = (None, None),
    transport: Transport | None = None,
    seed: int = 0,
) -> PopulationBounds:
    r"""Bounds W1(P, Q) from independent samples x of P and y of Q, which the critic has not seen.

    .. math:: W_1(P, Q) \ge \frac{1}{L} (E_P g - E_Q g), \qquad g = \min(\max(f, low), high)

    and a lower confidence bound on the right side. If each law is known to have bounded support, or to be that of a
    Lipschitz generator of standard normal latents,

    .. math:: W_1(P, Q) \le E W_1(P_n, Q_m) \le
        W_1(P_n, Q_m) + \sqrt{2 \ln \frac{1}{\alpha} \Bigl( \frac{s_P^2}{n} + \frac{s_Q^2}{m} \Bigr)}

    with probability at least 1 − α, s being half the support's diameter, or the generator's Lipschitz constant. For two
    diameters this is McDiarmid's inequality, for two generators Gaussian concentration; the two can be mixed, since the
    squares are variance proxies of independent parts. If both ends are bounded, each gets half of 1 − level.

    **x, y must be independent of `critic` and `clip`.** On samples that trained the critic, chose its epoch or
    fixed the range, the lower bound says nothing about the laws; :func:`wgan_lip.kr_lower_bound` is about samples.

    Betting and Bernstein take independent differences g(x_i) − g(y_i). If n ≠ m, the larger sample is split into
    min(n, m) groups of nearly equal size, and each group's mean takes part: no sample is dropped, the level is not
    split. Groups and order are drawn by `seed`, so samples sorted after they were drawn do no harm.

    Arguments:
        critic: The potential f, (b, d) → (b,), fixed before x and y were drawn. It is proved here; a
            :class:`wgan_lip.lipschitz.certificates.Proof` of it saves doing so again.
        x: Held-out samples of P, shape (n, d), n ≥ 2.
        y: Held-out samples of Q, shape (m, d), m ≥ 2.
        clip: The range (low, high) to which f is clipped, fixed as well; see :func:`clip_range`.
        level: Confidence of all that is returned, jointly, in (0, 1).
        method: betting or bernstein, valid at every n and m, betting the tighter; normal, valid as they grow.
        certificate: A certificate said to be about this critic, refused if it is not. The divisor is always the
            constant that was proved.
        diameters: Diameters of the supports of P and Q, in the units of the samples; None if unknown.
        generators: Lipschitz constants of the generators of P and Q, if these are Gaussian-driven; None otherwise.
        transport: A solution for independent samples of P and Q, such as these or all there are, to save solving again
            for `upper`. They may be those that trained the critic, which the upper bound does not use. Which samples
            they are cannot be checked here.
        seed: Seed of the order of the samples; do not choose it by the result.

    Raises:
        InputError: Unusable samples, fewer than two of a law, a level outside (0, 1), an empty range, a diameter that
            the samples exceed, a critic that is not a scalar potential on Euclidean space.
        UncertifiableError: See :func:`wgan_lip.certify`.

    Guarantee:
        That of the method, for the clipped critic in real arithmetic: the rounding of its evaluation is subtracted.

    References:
        Concentration inequalities (Boucheron, Lugosi, Massart, 2013), Theorem 6.2 for bounded differences (McDiarmid,
        1989) and Theorem 5.6 for Gaussian concentration (Tsirelson, Ibragimov, Sudakov, 1976); Optimal transport, old
        and new (Villani, 2009), Theorem 4.8 for E W1(P_n, Q_m) ≥ W1(P, Q)
    """
    x, y = check_pair(x, y, minimum=2)
    check_choice(method, METHODS, "method")
    return proved_bounds(
        prove(critic, certificate), x, y, clip=clip, level=level, method=method, diameters=diameters,
        generators=generators, transport=transport, seed=seed,
    )  # fmt: skip


def proved_bounds(
    proof: Proof,
    x: Tensor,
    y: Tensor,
    *,
    clip: tuple[float, float],
    level: float,
    method: str,
    diameters: tuple[float | None, float | None],
    generators: tuple[float | None, float | None],
    transport: Transport | None,
    seed: int,
) -> PopulationBounds:
    """:func:`population_bounds` from checked samples."""
    x, y = (samples.detach().cpu().double() for samples in (x, y))
    low, high = _range(*clip)
    proof.certificate.check_potential(x.shape[1])
    spreads = [
        _spread(name, samples, diameter, constant)
        for name, samples, diameter, constant in zip("PQ", (x, y), diameters, generators)
    ]
    unbounded = [name for name, (spread, _) in zip("PQ", spreads) if spread is None]
    each = check_level(level) if unbounded else (1 + check_level(level)) / 2

    rng = torch.Generator().manual_seed(seed)
    of_x, of_y = (samples[torch.randperm(len(samples), generator=rng)] for samples in (x, y))
    at_x, at_y = enclosed_values(proof, of_x, of_y, low, high)
    if method == "normal":
        value = normal_lower_bound(at_x, each, minus=at_y)
    else:
        bound = betting_lower_bound if method == "betting" else bernstein_lower_bound
        reach = math.nextafter(high - low, math.inf)
        value = bound(differences(at_x, at_y, reach), -reach, reach, each)
    scale = proof.certificate.lipschitz
    lower = max(0.0, float(value) / scale * (1 - 2.0**-52)) if scale > 0 else 0.0
    estimate = float(at_x.mean() - at_y.mean()) / scale if scale > 0 else 0.0

    upper = None
    if not unbounded:
        transport = transport or solve_problem(Problem.of_checked(x, y))
        deviation = math.hypot(
            *(spread / math.sqrt(n) for (spread, _), n in zip(spreads, transport.plan.shape) if spread is not None)
        )
        upper = (transport.upper + math.sqrt(-2 * math.log(1 - each)) * deviation) * (1 + 2.0**-48)
    assumptions = (
        "x and y are independent samples of P and Q, drawn after the critic and its range were fixed.",
        f"The critic is {rounded_up(scale, 6)}-Lipschitz, as certified, and clipped to [{low:.6g}, {high:.6g}].",
        "The level is reached as n and m grow, by the central limit theorem."
        if method == "normal"
        else "The level holds at every n and m.",
        *(sentence for _, sentence in spreads if sentence),
        f"There is no upper bound: without the diameter of the support of {' and of '.join(unbounded)}, or a "
        "generator's Lipschitz constant, rare samples may be any distance away."
        if unbounded
        else f"Each end alone holds at level {each:.6g}.",
    )
    return PopulationBounds(lower, estimate, upper, level, method, assumptions, len(x), len(y), x.shape[1])


def enclosed_values(proof: Proof, x: Tensor, y: Tensor, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Floats at most the critic clipped to [low, high] at x, shape (n,), and at least it at y, shape (m,)."""
    at = proof.evaluate(torch.cat((x, y)))
    values, error = at.values.numpy(), at.error.numpy()
    with np.errstate(invalid="ignore"):
        below, above = np.nextafter(values - error, -np.inf)[: len(x)], np.nextafter(values + error, np.inf)[len(x) :]
    # Where the evaluation overflowed to NaN, only the range is known: fmax and fmin take the other argument.
    return np.fmin(np.fmax(below, low), high), np.fmax(np.fmin(above, high), low)


def differences(at_x: np.ndarray, at_y: np.ndarray, reach: float) -> np.ndarray:
    """Floats of shape (..., min(n, m)), at most the differences of means of groups of the two samples, in order."""
    count = min(at_x.shape[-1], at_y.shape[-1])
    means, rounding = [], 0.0
    for values in (at_x, at_y):
        starts = np.arange(count) * values.shape[-1] // count
        sizes = np.diff(starts, append=values.shape[-1])
        means.append(np.add.reduceat(values, starts, axis=-1) / sizes)
        rounding = rounding + gamma(int(sizes.max()) + 4) * np.add.reduceat(np.abs(values), starts, axis=-1) / sizes
    return np.clip(means[0] - means[1] - rounding, -reach, reach)


def _values(z: Tensor | ArrayLike) -> np.ndarray:
    values = np.asarray(z.detach().cpu() if isinstance(z, Tensor) else z, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] < 2:
        raise InputError(f"At least two values are needed, not shape {values.shape}. Draw more samples.")
    if not np.isfinite(values).all():
        raise InputError("Values must be finite, not NaN or infinity. Clip the critic to a range fixed in advance.")
    return values


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and unbiased variance rounded up; sums of squares are least about the exact mean."""
    n = values.shape[-1]
    mean = values.mean(axis=-1)
    return mean, np.square(values - mean[..., None]).sum(axis=-1) / (n - 1) * (1 + gamma(n + 8))


def _unit_interval(z: Tensor | ArrayLike, low: float, high: float) -> tuple[np.ndarray, float]:
    """Values w in [0, 1] and the width of the range, low + width · w ≤ z. See Note [Lowered values]."""
    low, high = _range(low, high)
    values, width = _values(z), math.nextafter(high - low, math.inf)
    if values.min() < low or values.max() > high:
        raise InputError(
            f"Values must be in [{low}, {high}], not [{values.min()}, {values.max()}]. "
            "Clip them to a range that was fixed before they were seen."
        )
    return np.maximum((values - low) / width * (1 - 2.0**-50) - 1e-300, 0.0), width


def _scaled_back(bound: np.ndarray, low: float, width: float) -> np.ndarray:
    """low + width · bound, rounded down, and at least `low`, as every mean is."""
    scaled = np.nextafter(width * bound, -np.inf)
    return np.maximum(np.nextafter(low + scaled, -np.inf), low)


def check_level(level: float) -> float:
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, not {level}. Use 0.95 for 95 % confidence.")
    return level


def _range(low: float, high: float) -> tuple[float, float]:
    if not (low < high and math.isfinite(high - low)):
        raise InputError(
            f"The range must be finite with low < high, not [{low}, {high}]. Use clip_range(critic, x_train, y_train) "
            "of a trained critic, which is not constant."
        )
    return low, high


def _spread(
    name: str, samples: Tensor, diameter: float | None, constant: float | None
) -> tuple[float | None, str | None]:
    """The s of a law in the upper bound, the smaller if two are known, and the assumption it rests on."""
    for what, number in (("diameter", diameter), ("Lipschitz constant", constant)):
        if number is not None and not 0 <= number < math.inf:
            raise InputError(f"The {what} for {name} must be finite and at least 0, or None if unknown, not {number}.")
    if diameter is not None:
        far = samples[torch.linalg.vector_norm(samples - samples[0], dim=1).argmax()]
        found = float(torch.linalg.vector_norm(samples - far, dim=1).max())
        if found > diameter * (1 + 1e-9):
            raise InputError(
                f"Samples of {name} are {found} apart, beyond the diameter {diameter} of its support. "
                "Give the diameter of all that can be drawn, or None."
            )
    if diameter is not None and (constant is None or diameter / 2 <= constant):
        return diameter / 2, f"{name} has a support of diameter at most {diameter:.6g}."
    if constant is not None:
        return constant, f"{name} is the law of a {constant:.6g}-Lipschitz generator of standard normal latents."
    return None, None
