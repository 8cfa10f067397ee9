"""W1 between two sample sets or laws: the whole estimate, from a certified interval to bounds on the laws."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from wgan_lip.data import Law
from wgan_lip.lipschitz.certificates import Proof, prove
from wgan_lip.metrics.excess import halved_checked
from wgan_lip.transport import (
    Crew,
    Narrowed,
    Problem,
    TransportError,
    check_room,
    meet,
    narrow_problem,
    solves_at_once,
)
from wgan_lip.utils.checks import InputError, check_choice, check_memory, check_pair, common_origin
from wgan_lip.wasserstein.fitting import FitProgress, check_critic, fit_checked
from wgan_lip.wasserstein.interval import InvariantViolation, proved_lower_bound
from wgan_lip.wasserstein.population import METHODS, proved_bounds, proved_range
from wgan_lip.wasserstein.result import Progress, W1Estimate
from wgan_lip.wasserstein.sides import (
    FEWEST,
    MOST,
    Sides,
    divided,
    told_of_laws,
    told_of_samples,
    told_of_weights,
)
from wgan_lip.wasserstein.two_sample import two_sample_test

__all__ = ["Progress", "W1Estimate", "check_estimate", "estimate_w1"]

FIT_SECONDS = 30.0  # for a critic, at most
LEAST = 0.1  # seconds for a critic if no time is left: enough for one that needs no training
GRACE = 1.0  # seconds that a floor already running may take beyond the time, if nothing comes after it
TESTED = 1000  # samples of each side for the test of equal laws, at most
TESTING = 1e-3  # seconds that it takes for each of them, roughly
PRODUCTS = 2**34  # products of numbers, at most, in the distances of that test
SPLITS = (1, 5)  # halvings for the floor: for an estimate about the samples, and for one about the laws too


def estimate_w1(
    x: Tensor | ArrayLike | Law,
    y: Tensor | ArrayLike | Law,
    *,
    a: Tensor | ArrayLike | None = None,
    b: Tensor | ArrayLike | None = None,
    laws: bool = False,
    critic: str | nn.Module | None = None,
    critic_steps: int | None = None,
    seconds: float = 60.0,
    tolerance: float = 0.0,
    samples: int = 5000,
    level: float = 0.95,
    method: str = "betting",
    diameters: tuple[float | None, float | None] = (None, None),
    generators: tuple[float | None, float | None] = (None, None),
    device: torch.device | str = "cpu",
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    crew: Crew | None = None,
) -> W1Estimate:
    r"""Encloses W1 between two sample sets, and, if asked, bounds W1 between their laws.

    .. math:: \frac{1}{L} (E_{P_n} f - E_{Q_m} f) \leq W_1(P_n, Q_m) \leq \sum_k \pi_k \|x_{i_k} - y_{j_k}\|

    for any L-Lipschitz f and any coupling π. On the line, and up to n m = 4 million pairs, the exact solver makes both
    ends meet. Beyond, they approach each other round by round (:func:`wgan_lip.transport.narrow`), and meet if time
    allows. Two samples of one law are apart, too, in many dimensions by far: so W1 comes with a floor, the part that
    sampling alone explains, and the excess over it (:func:`wgan_lip.metrics.halved`).

    With `laws`, or a critic, the laws are compared as well: by a test of their equality (:func:`two_sample_test
    <wgan_lip.wasserstein.two_sample.two_sample_test>`), and by a critic that is trained on one part of the samples,
    chosen by a second, and evaluated on a third, which yields the bounds. It trains only while it improves.

    Arguments:
        x: Samples of P, shape (n, d), or (n,) for scalars, n ≥ 2; any real dtype, any device; a data frame or an
            AnnData object too. Or a law: the interval is then about `samples` draws from it; others train the critic.
        y: Samples of Q, shape (m, d), or a law. Columns that have names on both sides are matched by them.
        a: Non-negative weights of x, shape (n,), of any positive total, by which they are divided: counts are as good
            as probabilities. Uniform by default.
        b: Non-negative weights of y, shape (m,), as for x.
        laws: Whether to compare the laws too, by `critic` "auto" unless another one is given.
        critic: A name of :func:`wgan_lip.wasserstein.candidates.critic_names`, or your own critic (b, d) → (b,) that
            can be certified, which is then trained. None, without `laws`, for the interval and the floor only.
        critic_steps: Critic steps of each candidate in the first round, `steps` of
            :func:`wgan_lip.wasserstein.fitting.fit_critic`. The critic then takes the time it needs, and results with
            equal seeds are equal on one machine. None lets time decide.
        seconds: Total time. An exact solver, or a floor, already running may end up to a second later. What matters
            most goes first: the first interval, an exact solver, then the floor and the test of equal laws, for which
            there may be no time. With a critic, its proof and its values come on top.
        tolerance: The interval is narrow enough if upper − lower ≤ tolerance · upper.
        samples: How many to draw from a law.
        level: Confidence of statements about the laws, in (0, 1): that of the bounds; their equality is rejected at
            1 − level.
        method: betting, bernstein or normal; see :func:`wgan_lip.population_bounds`.
        diameters: Diameters of the supports of P and Q, for an upper bound on the laws' W1; laws know their own.
        generators: Lipschitz constants of the generators of P and Q, for the same, if they are Gaussian-driven.
        device: Where edges are priced and the critic is trained.
        seed: Seed of the splits, the draws and the critic.
        on_progress: Called after every stage.
        crew: Other processes that price edges along with this one; see :class:`wgan_lip.transport.Crew`.

    Returns:
        :class:`W1Estimate`. An interruption (Ctrl-C) ends the estimate with what is known by then.

    Raises:
        InputError: Unusable samples, weights or settings; columns whose names differ.
        UncertifiableError: A critic that cannot be certified.
        InvariantViolation: A lower bound above an upper one, which would refute a proof.

    Guarantee:
        lower ≤ W1(P_n, Q_m) ≤ upper, rounding included, for the samples and weights as given. It says nothing about the
        laws, whose W1 is smaller on average, in many dimensions by far. `population` does, at its level and under its
        assumptions, and so does `pvalue`: two statements, so together they hold with confidence 1 − 2(1 − level). The
        p-value uses at most 1,000 samples of each side, and fewer in more than 4,000 dimensions. Floor and excess are
        estimates.

    References:
        Optimal transport, old and new (Villani, 2009), Theorem 5.10

    Example:
        >>> result = estimate_w1([[0.0, 0.0], [1.0, 0.0]], [[0.0, 2.0], [1.0, 2.0]])
        >>> result.exact
        2.0
        >>> result.lower <= 2.0 <= result.upper
        True
    """
    start = time.monotonic()
    critic = "auto" if laws and critic is None else critic
    x, y, note = common_origin(x, y)
    given, problem = _checked(
        x, y, a=a, b=b, critic=critic, critic_steps=critic_steps, seconds=seconds, tolerance=tolerance, samples=samples,
        level=level, method=method, diameters=diameters, generators=generators, seed=seed,
    )  # fmt: skip
    sides = divided(*given, a, b, samples, diameters, seed)
    if problem is None:
        problem = Problem.of_checked(sides.x, sides.y, a, b)
    end = start + seconds
    rounds = narrow_problem(problem, device=device, deadline=end, crew=crew)
    interval = _Interval(start, tolerance, next(rounds), on_progress)
    fitted = proof = population = halves = pvalue = None
    weighted = a is not None or b is not None
    stopped = ""
    notes = tuple(filter(None, [note]))
    notes += (*told_of_weights((a, b), problem.shape), *told_of_samples(sides.x, sides.y))
    try:
        interval.tell(interval.best.stage)
        if solves_at_once(*problem.size):
            stopped = interval.narrow(rounds)
        if not weighted and min(problem.shape) >= 4:
            left = max(0.0, end - time.monotonic())
            last = interval.best.optimal and critic is None
            until = end + GRACE if last else end - left / 2
            try:
                try:
                    halves = halved_checked(sides.x, sides.y, SPLITS[critic is not None], seed, end=until)
                    interval.tell("floor")
                except TimeoutError:
                    notes += (f"There is no floor: it did not fit into {seconds:g} s.",)
                takes = TESTING * min(len(sides.x) + len(sides.y), 2 * TESTED)
                if critic is not None and time.monotonic() + takes < end:
                    pvalue = _pvalue(sides, seed)
                    interval.tell("test of equal laws")
                elif critic is not None:
                    notes += (f"There is no test of equal laws: it did not fit into {seconds:g} s.",)
            except (InputError, TransportError) as error:  # numbers so large or small that they leave no room
                notes += (f"There is no floor or no test of equal laws: {error}",)
        if critic is not None:
            left = end - time.monotonic()
            budget = max(LEAST, min(FIT_SECONDS, left if stopped else left / 4))
            fitted = fit_checked(
                sides.train[0],
                sides.train[1],
                x_validation=sides.validation[0],
                y_validation=sides.validation[1],
                critic=critic,
                seconds=budget if critic_steps is None else math.inf,
                steps=critic_steps,
                seed=seed,
                device=device,
                on_progress=interval.fitting,
            )
            proof = prove(fitted.critic)
            if not interval.best.optimal or len(sides.x) + len(sides.y) <= MOST:  # also a check of both proofs
                interval.raise_to(proved_lower_bound(proof, sides.x, sides.y, a, b))
        if not stopped:
            stopped = interval.narrow(rounds)
        if critic is not None:
            notes += sides.unbounded
        if proof is not None and sides.test is not None:
            clip = _finite_range(proof, *sides.clip)
            if clip is None:
                what = "the critic is constant on the samples that trained it"
                notes += (f"There are no bounds on W1 of the laws: {what}.",)
            else:
                population = proved_bounds(
                    proof,
                    *sides.test,
                    clip=clip,
                    level=level,
                    method=method,
                    diameters=sides.diameters,
                    generators=generators,
                    transport=interval.best.transport,
                    seed=seed,
                )
                told = told_of_laws(given, problem)
                population = replace(population, assumptions=(*told, *population.assumptions))
                notes += told
    except KeyboardInterrupt:
        stopped = "interrupted"
    bounds, lower = interval.best.transport, interval.lower
    exact = max(bounds.value, lower) if interval.best.optimal and meet(lower, bounds.upper) else None
    if interval.best.optimal and exact is None:
        notes += (
            "There is no exact value: some samples are so far away that rounding of their distances keeps the two ends "
            "apart.",
        )
    return W1Estimate(
        lower=lower,
        upper=bounds.upper,
        exact=exact,
        value=(lower + bounds.upper) / 2 if exact is None else exact,
        halves=halves,
        pvalue=pvalue,
        population=population,
        critic=None if proof is None or fitted is None else fitted.critic,
        proof=proof,
        dual=bounds.potential,
        plan=bounds.plan,
        x=sides.x,
        y=sides.y,
        seconds=time.monotonic() - start,
        seed=seed,
        stopped=stopped,
        level=level,
        history=tuple(interval.history),
        notes=notes,
    )


def check_estimate(
    x: Tensor | ArrayLike | Law,
    y: Tensor | ArrayLike | Law,
    *,
    a: Tensor | ArrayLike | None,
    b: Tensor | ArrayLike | None,
    critic: str | nn.Module | None,
    critic_steps: int | None,
    seconds: float,
    tolerance: float,
    samples: int,
    level: float,
    method: str,
    diameters: tuple[float | None, float | None],
    generators: tuple[float | None, float | None],
    seed: int,
    **_: object,
) -> None:
    """Raises :class:`InputError` at once for arguments that :func:`estimate_w1` could not use."""
    _checked(
        x, y, a=a, b=b, critic=critic, critic_steps=critic_steps, seconds=seconds, tolerance=tolerance, samples=samples,
        level=level, method=method, diameters=diameters, generators=generators, seed=seed,
    )  # fmt: skip


def _checked(
    x: Tensor | ArrayLike | Law,
    y: Tensor | ArrayLike | Law,
    *,
    a: Tensor | ArrayLike | None,
    b: Tensor | ArrayLike | None,
    critic: str | nn.Module | None,
    critic_steps: int | None,
    seconds: float,
    tolerance: float,
    samples: int,
    level: float,
    method: str,
    diameters: tuple[float | None, float | None],
    generators: tuple[float | None, float | None],
    seed: int,
) -> tuple[tuple[Tensor | Law, Tensor | Law], Problem | None]:
    """Laws as they are, samples as checked tensors, and the transport problem if both are samples."""
    if not 0 < seconds < math.inf:
        raise InputError(f"seconds must be positive and finite, not {seconds}.")
    if not 0 <= tolerance < 1:
        raise InputError(f"tolerance, relative to W1, must be at least 0 and below 1, not {tolerance}.")
    for name, number, least in (("samples", samples, FEWEST), ("critic_steps", critic_steps, 1), ("seed", seed, 0)):
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < least):
            raise InputError(f"{name} must be an integer of at least {least}, not {number!r}.")
    for name, numbers in (("diameters", diameters), ("generators", generators)):
        if not all(number is None or 0 <= number < math.inf for number in numbers):
            raise InputError(f"{name} must be finite and at least 0, or None if unknown, not {numbers}.")
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, not {level}. Use 0.95 for 95 % confidence.")
    check_choice(method, METHODS, "method")
    for name, source, weights in (("x", x, a), ("y", y, b)):
        if isinstance(source, Law) and weights is not None:
            raise InputError(f"{name} is a law, which takes no weights. Give samples, or no weights.")
    rows = check_pair(*(torch.zeros(2, side.dim) if isinstance(side, Law) else side for side in (x, y)), minimum=2)
    if critic is not None:
        check_critic(critic, rows[0].shape[1])
    drawn = 3 * samples * sum(side.dim for side in (x, y) if isinstance(side, Law))  # numbers, of 8 bytes each
    check_memory(8 * drawn, f"three draws of {samples} samples", "Lower samples.")
    problem = Problem.of_checked(*rows, a, b)
    check_room(problem)
    given = x if isinstance(x, Law) else rows[0], y if isinstance(y, Law) else rows[1]
    return given, None if drawn else problem


class _Interval:
    """The interval so far, and its history."""

    def __init__(
        self, start: float, tolerance: float, first: Narrowed, on_progress: Callable[[Progress], None] | None
    ) -> None:
        self.start, self.tolerance, self.on_progress = start, tolerance, on_progress
        self.best, self.lower = first, first.transport.lower
        self.critic: float | None = None
        self.history: list[Progress] = []

    def narrow(self, rounds: Iterator[Narrowed]) -> str:
        """Narrows until the ends meet, are close enough, or no time is left; returns which."""
        while not self.best.optimal:
            if self.best.transport.upper - self.lower <= self.tolerance * self.best.transport.upper:
                return "tolerance"
            try:
                self.best = next(rounds)
            except StopIteration:
                return "time"
            self.raise_to(self.best.transport.lower)
            self.tell(self.best.stage)
        return "optimal"

    def raise_to(self, lower: float) -> None:
        """Takes another lower bound into account."""
        if lower > self.best.transport.upper:
            raise InvariantViolation(
                f"The certified dual value {lower!r} exceeds the cost of a coupling, {self.best.transport.upper!r}. "
                "One of the two proofs is wrong: please report this with the samples."
            )
        self.lower = max(self.lower, lower)

    def fitting(self, progress: FitProgress) -> None:
        self.critic = progress.validation_value if math.isfinite(progress.validation_value) else None
        self.tell(f"critic, round {progress.round}/{progress.rounds}")

    def tell(self, stage: str) -> None:
        seconds = time.monotonic() - self.start
        self.history.append(Progress(seconds, stage, self.lower, self.best.transport.upper, self.critic))
        if self.on_progress is not None:
            self.on_progress(self.history[-1])


def _pvalue(sides: Sides, seed: int) -> float:
    """The p-value of equal laws, by so many samples of each side at most that distances take little time and memory."""
    rng = torch.Generator().manual_seed(seed)
    most = min(TESTED, math.isqrt(PRODUCTS // sides.x.shape[1]) // 2 + 2)
    x, y = (
        side if len(side) <= most else side[torch.randperm(len(side), generator=rng)[:most]]
        for side in (sides.x, sides.y)
    )
    return two_sample_test(x, y, seed=seed).pvalue


def _finite_range(proof: Proof, x: Tensor, y: Tensor) -> tuple[float, float] | None:
    """The range of :func:`proved_range`; None for a critic that is constant on these samples."""
    try:
        return proved_range(proof, x, y)
    except InputError:
        return None
