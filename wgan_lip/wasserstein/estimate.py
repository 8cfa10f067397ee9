"""W1 between two sample sets or laws: the whole estimate, from a certified interval to bounds on the laws."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from wgan_lip.data import Law
from wgan_lip.lipschitz.certificates import Certificate, Proof, prove
from wgan_lip.transport import Narrowed, Plan, Potential, Problem, check_room, meet, narrow_problem, solves_at_once
from wgan_lip.utils.checks import InputError, check_choice, check_memory, check_pair, check_weights, common_origin
from wgan_lip.utils.numbers import interval_text, rounded
from wgan_lip.utils.printing import Bar, Printed, Row, number_line
from wgan_lip.wasserstein.fitting import FitProgress, check_critic, fit_checked
from wgan_lip.wasserstein.interval import InvariantViolation, proved_lower_bound, samples_text, width_text
from wgan_lip.wasserstein.population import METHODS, PopulationBounds, proved_bounds, proved_range

__all__ = ["Progress", "W1Estimate", "check_estimate", "estimate_w1"]

SPLIT = (0.5, 0.2)  # shares of the samples that train the critic and that choose it; the rest bounds the laws
FEWEST, MOST = 10, 10**6  # samples that are worth splitting; more than the most are drawn from
ENDED = {
    "optimal": "",
    "tolerance": "; narrow enough by tolerance=",
    "time": "; more seconds= narrow it",
    "interrupted": "; interrupted",
}
"""Why an estimate stopped → what is said of an interval that is no narrower."""
FIT_SECONDS = 30.0  # of a critic, at most


@dataclass(frozen=True)
class Progress:
    """Where an estimate stands.

    Attributes:
        seconds: Since it began.
        stage: What was done last, in words.
        lower: The best lower bound so far.
        upper: The best upper bound so far.
        critic: The critic's dual value on the samples that choose it, an estimate; None where there is none yet.
    """

    seconds: float
    stage: str
    lower: float
    upper: float
    critic: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class W1Estimate(Printed):
    """W1 between two sample sets, enclosed; and, where samples could be held out, W1 between their laws.

    Attributes:
        lower: No more than W1 of the samples (of the weighted empirical measures P_n and Q_m), with proof.
        upper: No less than it, with proof.
        exact: W1 of the samples where the problem was solved to optimality and `lower` and `upper` agree to a relative
            1e-9. None elsewhere: beside points that are very far away, rounding keeps the two apart.
        value: The best single number in [lower, upper]: `exact`, or the middle.
        population: Confidence bounds on W1 of the laws from held-out samples; None where nothing could be held out or
            the critic is constant, `notes` then say why; where no critic was trained; after an interruption.
        certificate: Proof of the Lipschitz constant of `potential`; None where no critic was trained.
        potential: The critic, (k, d) tensor → (k,), as an `nn.Module`. Where no critic was trained, the potential of
            the lower bound.
        dual: The potential of `lower`: a minimum of cones with a proof in its definition. Its dual value is `lower`,
            unless the critic's is better.
        plan: The coupling of `upper`.
        x: The samples of P that the interval is about, shape (n, d), on the CPU: those given, or drawn from a law.
        y: The samples of Q, shape (m, d).
        seconds: Taken in all.
        seed: Of every draw.
        stopped: optimal, tolerance, time or interrupted.
        history: How the interval narrowed.
        notes: What the reader should know, in sentences.

    All distances are in the units of the samples.
    """

    lower: float
    upper: float
    exact: float | None
    value: float
    population: PopulationBounds | None
    certificate: Certificate | None
    potential: nn.Module | Potential
    dual: Potential
    plan: Plan
    x: Tensor
    y: Tensor
    seconds: float
    seed: int
    stopped: str
    history: tuple[Progress, ...]
    notes: tuple[str, ...]

    @property
    def n(self) -> int:
        """Number of samples of P."""
        return len(self.x)

    @property
    def m(self) -> int:
        """Number of samples of Q."""
        return len(self.y)

    @property
    def dim(self) -> int:
        """Dimension of the samples."""
        return self.x.shape[1]

    def headline(self) -> str:
        return samples_text(self.n, self.m, self.dim)

    def summary_rows(self) -> list[Row]:
        interval, width = interval_text(self.lower, self.upper), width_text(self.lower, self.upper)
        if self.exact is None:
            rows = [Row("W1 of the samples", interval, f"certified; {width}{ENDED[self.stopped]}")]
        else:
            rows = [
                Row("W1 of the samples", f"W1 = {rounded(self.exact, 10)}", "exact: solved to optimality"),
                Row("  certified", interval, f"{width}, by rounding"),
            ]
        if self.population is not None:
            rows += self.population.summary_rows()[:-1]
        if self.certificate is not None:
            rows.append(self.certificate.bound_row("Certified critic"))
        rows += [Row("Note", note) for note in self.notes]
        if self.stopped == "interrupted" and self.population is None:
            rows.append(Row("Note", "It was interrupted: what was still to come is missing."))
        return rows if self.population is None else [*rows, *self.population.summary_rows()[-1:]]

    def picture(self) -> str:
        bars = [Bar("W1 of the samples", self.lower, self.upper, self.exact)]
        bars += [] if self.population is None else [self.population.bar()]
        return number_line(bars, "; ".join(f"{row.name}: {row.figure}" for row in self.summary_rows()[:2]))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        r"""The cost of `plan` between samples that may have moved, differentiable in them.

        .. math:: \sum_k \pi_k \|x_{i_k} - y_{j_k}\|, \qquad \nabla_{x_i} = \sum_{k : i_k = i} \pi_k
            \frac{x_i - y_{j_k}}{\|x_i - y_{j_k}\|}

        At the samples of an exact estimate this is W1, and the gradient is one of W1: the plan stays optimal where W1
        is differentiable (the envelope theorem). Elsewhere it is the gradient of the upper bound. The critic gives
        another gradient, :math:`\nabla f(x_i)/n`, through :func:`wgan_lip.wasserstein.dual.kr_value` at `potential`.

        Arguments:
            x: Samples of P, shape (n, d), in the order of the estimate.
            y: Samples of Q, shape (m, d).

        Returns:
            A scalar tensor. Points that coincide add no gradient.

        Raises:
            InputError: Other numbers of samples, or another dimension.
        """
        if x.shape != (self.n, self.dim) or y.shape != (self.m, self.dim):
            raise InputError(
                f"Expected x and y of shapes {(self.n, self.dim)} and {(self.m, self.dim)}, those of the estimate. "
                f"Got {tuple(x.shape)} and {tuple(y.shape)}."
            )
        rows, columns = (torch.from_numpy(index).to(x.device) for index in (self.plan.rows, self.plan.columns))
        mass = torch.as_tensor(self.plan.mass / self.plan.mass.sum(), dtype=x.dtype, device=x.device)
        return (mass * torch.linalg.vector_norm(x[rows] - y[columns], dim=1)).sum()

    def as_dict(self) -> dict[str, Any]:
        """All that is plain data, as `result.json` holds it."""
        return {
            "lower": self.lower,
            "upper": self.upper,
            "exact": self.exact,
            "value": self.value,
            "population": None if self.population is None else asdict(self.population),
            "lipschitz": None if self.certificate is None else self.certificate.lipschitz,
            "n": self.n,
            "m": self.m,
            "dim": self.dim,
            "seconds": round(self.seconds, 3),
            "seed": self.seed,
            "stopped": self.stopped,
            "notes": list(self.notes),
            "history": [asdict(progress) for progress in self.history],
        }


def estimate_w1(
    x: Tensor | ArrayLike | Law,
    y: Tensor | ArrayLike | Law,
    *,
    a: Tensor | ArrayLike | None = None,
    b: Tensor | ArrayLike | None = None,
    critic: str | nn.Module | None = "auto",
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
) -> W1Estimate:
    r"""Encloses W1 between two sample sets, and bounds W1 between their laws.

    .. math:: \frac{1}{L} (E_{P_n} f - E_{Q_m} f) \leq W_1(P_n, Q_m) \leq \sum_k \pi_k \|x_{i_k} - y_{j_k}\|

    for any L-Lipschitz f and any coupling π. On the line, and up to n m = 4 million pairs, the exact solver makes both
    ends meet. Beyond, they approach each other round by round (:func:`wgan_lip.transport.narrow`), and meet if time
    allows. Beside it a critic is trained: on one part of the samples, chosen by a second, and evaluated on a third,
    which yields the bounds on the laws.

    Arguments:
        x: Samples of P, shape (n, d), or (n,) for scalars, n ≥ 2; any real dtype, any device; a data frame or an
            AnnData object too. Or a law: the interval is then about `samples` draws of it, and others train the critic.
        y: Samples of Q, shape (m, d), or a law. Columns that have names on both sides are matched by them.
        a: Non-negative weights of x, shape (n,), of any positive total, by which they are divided: counts are as good
            as probabilities. Uniform by default.
        b: Non-negative weights of y, shape (m,), likewise.
        critic: A name of :func:`wgan_lip.wasserstein.candidates.critic_names`, an own critic (b, d) → (b,) that can be
            certified, which is then trained, or None for none.
        critic_steps: Ascents of each candidate in the first round, `steps` of
            :func:`wgan_lip.wasserstein.fitting.fit_critic`. The critic then takes the time it needs, and results of
            equal seeds are equal on one machine. None lets time decide.
        seconds: Time for all of it. An exact solver that has begun is not cut short.
        tolerance: The interval is narrow enough where upper − lower ≤ tolerance · upper.
        samples: How many to draw from a law.
        level: Confidence of the bounds on the laws, in (0, 1).
        method: betting, bernstein or normal; see :func:`wgan_lip.population_bounds`.
        diameters: Of the supports of P and Q, for an upper bound on the laws' W1; those of laws are known to them.
        generators: Lipschitz constants of the generators of P and Q, likewise, if they are Gaussian-driven.
        device: Where edges are priced and the critic is trained.
        seed: Of the splits, the draws and the critic.
        on_progress: Called after every stage.

    Returns:
        :class:`W1Estimate`. An interruption (Ctrl-C) ends the estimate with what is known by then.

    Raises:
        InputError: Unusable samples, weights or settings; columns whose names differ.
        UncertifiableError: A critic that cannot be certified.
        InvariantViolation: A lower bound above an upper one, which would refute a proof.

    Guarantee:
        lower ≤ W1(P_n, Q_m) ≤ upper, rounding included, for the samples and weights as given. It says nothing about the
        laws, whose W1 is smaller on average, in many dimensions by far. `population` does, at its level and under its
        assumptions.

    References:
        Optimal transport, old and new (Villani, 2009), Theorem 5.10

    Example:
        >>> result = estimate_w1([[0.0, 0.0], [1.0, 0.0]], [[0.0, 2.0], [1.0, 2.0]], critic=None)
        >>> result.exact
        2.0
        >>> result.lower <= 2.0 <= result.upper
        True
    """
    start = time.monotonic()
    x, y, note = common_origin(x, y)
    given, problem = _checked(
        x, y, a=a, b=b, critic=critic, critic_steps=critic_steps, seconds=seconds, tolerance=tolerance, samples=samples,
        level=level, method=method, diameters=diameters, generators=generators, seed=seed,
    )  # fmt: skip
    sides = _sides(*given, a, b, samples, diameters, seed)
    if problem is None:
        problem = Problem.of_checked(sides.x, sides.y, a, b)
    rounds = narrow_problem(problem, device=device, deadline=start + seconds)
    interval = _Interval(start, tolerance, next(rounds), on_progress)
    fitted = proof = population = None
    stopped, notes = "", (*filter(None, [note]), *_totals((a, b), problem.shape), *sides.notes)
    try:
        interval.tell(interval.best.stage)
        if solves_at_once(*problem.size):
            stopped = interval.narrow(rounds)
        if critic is not None:
            left = max(1.0, start + seconds - time.monotonic())
            budget = min(FIT_SECONDS, left if stopped else left / 4)
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
            if not interval.best.optimal or len(sides.x) + len(sides.y) <= MOST:  # of either proof also a check
                interval.raise_to(proved_lower_bound(proof, sides.x, sides.y, a, b))
        if not stopped:
            stopped = interval.narrow(rounds)
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
                laws = _told_of_laws(given, problem)
                population = replace(population, assumptions=(*laws, *population.assumptions))
                notes += laws
    except KeyboardInterrupt:
        stopped = "interrupted"
    bounds, lower = interval.best.transport, interval.lower
    exact = max(bounds.value, lower) if interval.best.optimal and meet(lower, bounds.upper) else None
    if interval.best.optimal and exact is None:
        notes += (
            "There is no exact value: some samples are so far away that the rounding of their distances keeps the two "
            "ends apart.",
        )
    return W1Estimate(
        lower=lower,
        upper=bounds.upper,
        exact=exact,
        value=(lower + bounds.upper) / 2 if exact is None else exact,
        population=population,
        certificate=None if proof is None else proof.certificate,
        potential=bounds.potential if proof is None or fitted is None else fitted.critic,
        dual=bounds.potential,
        plan=bounds.plan,
        x=sides.x,
        y=sides.y,
        seconds=time.monotonic() - start,
        seed=seed,
        stopped=stopped,
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
    """Refuses at once what :func:`estimate_w1` could not use, given its arguments. Raises :class:`InputError`."""
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
    """Laws as they are, samples as checked tensors, and the problem between the two where both are samples."""
    if not 0 < seconds < math.inf:
        raise InputError(f"Expected seconds to be positive and finite. Got {seconds}.")
    if not 0 <= tolerance < 1:
        raise InputError(f"Expected a tolerance of at least 0 and below 1, relative to W1. Got {tolerance}.")
    for name, number, least in (("samples", samples, FEWEST), ("critic_steps", critic_steps, 1), ("seed", seed, 0)):
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < least):
            raise InputError(f"Expected {name} to be a whole number of at least {least}. Got {number!r}.")
    for name, numbers in (("diameters", diameters), ("generators", generators)):
        if not all(number is None or 0 <= number < math.inf for number in numbers):
            raise InputError(f"Expected {name} to be finite and at least 0, or None where unknown. Got {numbers}.")
    if not 0 < level < 1:
        raise InputError(f"Expected a level between 0 and 1. Got {level}. Use 0.95 for 95 % confidence.")
    check_choice(method, METHODS, "method")
    for name, source, weights in (("x", x, a), ("y", y, b)):
        if isinstance(source, Law) and weights is not None:
            raise InputError(f"Expected no weights for {name}, which is a law. Got some. Give samples, or no weights.")
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
        """Goes on until the ends meet, are close enough, or no time is left; returns which."""
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
                f"Expected a certified dual value of at most the cost of a coupling, {self.best.transport.upper!r}. "
                f"Got {lower!r}. One of the two proofs is wrong: please report this with the samples."
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


@dataclass(frozen=True, eq=False)
class _Sides:
    """What is done with which samples, P first and Q second in every pair.

    Attributes:
        x, y: Those that the interval is about, shapes (n, d) and (m, d).
        train: What trains the critic: samples, or where they can be drawn without end, functions of n and a generator.
        validation: Samples that choose it.
        clip: Samples that fix its range for the bounds on the laws.
        test: Samples that bound the laws; None where none could be held out.
        diameters: Of the supports, None where unknown.
        notes: What the reader should know.
    """

    x: Tensor
    y: Tensor
    train: tuple[Any, Any]
    validation: tuple[Tensor, Tensor]
    clip: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor] | None
    diameters: tuple[float | None, float | None]
    notes: tuple[str, ...]


def _sides(
    x: Tensor | Law,
    y: Tensor | Law,
    a: Tensor | ArrayLike | None,
    b: Tensor | ArrayLike | None,
    samples: int,
    diameters: tuple[float | None, float | None],
    seed: int,
) -> _Sides:
    """Draws from laws, and splits checked samples."""
    given, weights, notes = (x, y), (a, b), []
    rngs = [_generator(seed, side) for side in (0, 1)]
    rows = [side.sample(samples, rng) if isinstance(side, Law) else side for side, rng in zip(given, rngs)]
    parts: list[tuple[Any, Tensor, Tensor, Tensor | None]] = []
    for source, samples_of, weight, rng in zip(given, rows, weights, rngs):
        samples_of = samples_of.detach().cpu()
        if isinstance(source, Law):
            validation, clip = (source.sample(samples, rng) for _ in range(2))
            parts.append((source.sample, validation, clip, samples_of))
        elif weight is not None:
            chosen = _weighted_rows(samples_of, weight)
            parts.append((chosen, chosen(len(samples_of), rng), samples_of, None))
        elif len(samples_of) < FEWEST:
            parts.append((samples_of, samples_of, samples_of, None))
        else:
            shuffled = samples_of[torch.randperm(len(samples_of), generator=rng)[:MOST]]
            cuts = [int(share * len(shuffled)) for share in (SPLIT[0], SPLIT[0] + SPLIT[1])]
            train, validation, test = torch.tensor_split(shuffled, cuts)
            parts.append((train, validation, train, test))
    (train_x, validation_x, clip_x, test_x), (train_y, validation_y, clip_y, test_y) = parts
    tests = None if test_x is None or test_y is None else (test_x, test_y)
    if tests is None:
        why = (
            "with weights, samples are no independent draws"
            if any(w is not None for w in weights)
            else (f"it takes {FEWEST} samples of each to hold some out")
        )
        notes.append(f"There are no bounds on W1 of the laws: {why}.")
    known_x, known_y = (
        source.diameter if diameter is None and isinstance(source, Law) else diameter
        for source, diameter in zip(given, diameters)
    )
    x, y = (samples_of.detach().cpu() for samples_of in rows)
    pairs = (train_x, train_y), (validation_x, validation_y), (clip_x, clip_y)
    return _Sides(x, y, *pairs, tests, (known_x, known_y), tuple(notes))


def _told_of_laws(given: tuple[Tensor | Law, Tensor | Law], problem: Problem) -> tuple[str, ...]:
    """What the laws P and Q are, where that is less than the reader may think."""
    told = []
    for name, source, side in zip("PQ", given, problem.sides):
        repeated = len(side.samples) - len(side.points)
        if isinstance(source, Law) and source.size is not None:
            told.append(
                f"{name} is the uniform law on the {source.size:,} rows of {source.name}: W1 of the laws is about "
                "these rows, not about what they were sampled from."
            )
        elif not isinstance(source, Law) and repeated:
            told.append(
                f"{repeated:,} of the {len(side.samples):,} samples of {name} repeat another one, and count as draws "
                "of their own. If they are copies, the confidence is void: leave the copies out."
            )
    return tuple(told)


def _finite_range(proof: Proof, x: Tensor, y: Tensor) -> tuple[float, float] | None:
    """That of :func:`proved_range`; None for a critic that is constant on these samples, where there is none."""
    try:
        return proved_range(proof, x, y)
    except InputError:
        return None


def _totals(weights: tuple[Tensor | ArrayLike | None, ...], sizes: tuple[int, ...]) -> Iterator[str]:
    """What was done to weights that are no probabilities, such as counts."""
    for name, given, size in zip("xy", weights, sizes):
        total = 1.0 if given is None else float(check_weights(given, size, name).sum())
        if not math.isclose(total, 1, rel_tol=1e-6):
            yield f"The weights of {name} were divided by their total, {total:.6g}."


def _weighted_rows(rows: Tensor, weights: Tensor | ArrayLike) -> Callable[[int, torch.Generator], Tensor]:
    """Draws rows with probabilities proportional to their weights."""
    chances = torch.from_numpy(check_weights(weights, len(rows), "weights"))
    chances = chances / chances.max()
    return lambda n, rng: rows[torch.multinomial(chances, n, replacement=True, generator=rng)]


def _generator(seed: int, side: int) -> torch.Generator:
    """Independent streams for the two sides: draws of an oracle's two laws with one stream would be pairs."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, side]).generate_state(1)[0]))
