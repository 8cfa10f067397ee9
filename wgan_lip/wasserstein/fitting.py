r"""A certified critic fitted to two sample sets, or two laws, with no tuning: the neural estimate of W1.

Note [Validation]
    In many dimensions the dual value of the training samples says nothing about the laws: it grows with every cone.
    So candidates compete on held-out samples, in rounds that are each twice as long as the one before, keep the better
    half and restart the learning rate. In the first rounds they compete within their families, which share the time:
    a network needs more time than cones before it shows its potential. If time cuts rounds short, a single candidate
    trains on, with one decay of the rate: the one that promises most for the time left, if each doubling of its steps
    gains a little less than the one before. The best so far is often only the quickest to start. A candidate is the
    better of its weights and of their running average, retracted: the average wins late, when weights move about, the
    weights early, when an average lags behind. In the end the simplest candidate wins that the validation samples
    cannot tell from the best: its value is within one standard error of the paired difference.

Note [Stopping]
    A candidate goes on to the next round only while that may matter. It leaves after a round whose gain is below one
    standard error of the paired difference of its validation values before and after the round. It also leaves if the
    validation samples could not tell it from the candidate that would be chosen now, even if every step of the next
    round gained as much as one of the last round, since gains shrink. The fit ends when no candidate is left: the
    validation samples could not detect any further gain. A round of fewer than STEPS steps is no reason to leave, as a
    few steps gain nothing.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import Retraction, constrain_steps
from wgan_lip.utils.checks import InputError, check_choice, check_pair, check_samples, check_weights, one_line
from wgan_lip.utils.clusters import middle_and_spread
from wgan_lip.utils.numbers import rounded
from wgan_lip.utils.printing import Printed, Row
from wgan_lip.wasserstein.candidates import Candidate, OwnCandidate, Units, candidates, critic_names, place
from wgan_lip.wasserstein.dual import ascend

__all__ = ["Fit", "FitProgress", "Sampler", "check_critic", "fit_checked", "fit_critic"]

Value = TypeVar("Value", float, Tensor)
Sampler = Callable[[int, torch.Generator], Tensor]
"""Draws n fresh samples of a law, shape (n, d), with a CPU generator."""

CHECK_EVERY = 25  # critic steps between two looks at the validation samples
LOOKING = 0.1  # of the time, at most, for looks when time is short
ROUNDS = 7
GROWTH = 1.5  # ratio of a round's time to that of the one before
FADING = 0.7  # assumed gain of a doubling of all steps, relative to that of the doubling before
HELD_FIXED = 0.4  # of the time left, for which a candidate's fixed parameters stay fixed, and
HELD_STEPS = 500  # critic steps before they are released
FAMILIES = 3  # rounds in which candidates compete within their families
STEPS = 50  # critic steps of a candidate in the first round; each round doubles them
AVERAGING = 0.01  # weight of the newest weights in their running average
START = 4096  # samples of each law that candidates start from, and validation samples they are compared on
CHUNK = 4096  # rows in one evaluation


@dataclass(frozen=True)
class FitProgress:
    """The progress of a fit.

    Attributes:
        seconds: Time since the fit began.
        steps: Critic steps so far, of all candidates.
        round: The current round, from 1.
        rounds: Number of rounds.
        name: The candidate in training.
        validation_value: The greatest validation value so far, of any candidate.
    """

    seconds: float
    steps: int
    round: int
    rounds: int
    name: str
    validation_value: float


@dataclass(frozen=True, eq=False, repr=False)
class Fit(Printed):
    """A certified critic and how it was found.

    Attributes:
        critic: The chosen critic, in eval mode, on the CPU; it takes samples in their own units.
        train_value: (E_P f − E_Q f)/L on the training samples; for a sampler, and for more than 4,096 samples without
            weights, on those that the fit started from.
        validation_value: The same on the validation samples. They chose the critic, so it is a little too high.
        steps: Critic steps of all candidates.
        seconds: The time it took.
        name: The chosen candidate.
    """

    critic: nn.Module
    train_value: float
    validation_value: float
    steps: int
    seconds: float
    name: str

    def headline(self) -> str:
        return f"A certified critic fitted to samples: {self.name}, after {self.steps:,} steps in {self.seconds:.1f} s"

    def summary_rows(self) -> list[Row]:
        return [
            Row("Validation value", rounded(self.validation_value, 4), "(E_P f − E_Q f)/L, which chose the critic"),
            Row("Training value", rounded(self.train_value, 4), "the same on the samples it was fitted to"),
        ]


def fit_critic(
    x: Tensor | ArrayLike | Sampler,
    y: Tensor | ArrayLike | Sampler,
    *,
    x_validation: Tensor | ArrayLike,
    y_validation: Tensor | ArrayLike,
    a: Tensor | ArrayLike | None = None,
    b: Tensor | ArrayLike | None = None,
    critic: str | nn.Module = "auto",
    seconds: float = 30.0,
    steps: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_progress: Callable[[FitProgress], None] | None = None,
) -> Fit:
    r"""Fits a certified critic to samples of P and Q, or to samplers, chosen on validation samples.

    .. math:: \max_f \frac{1}{L} (E_P f - E_Q f), \qquad L \ge \mathrm{Lip}(f) \text{ proved}

    One setting for all pairs; see Note [Candidates] and Note [Validation]. Muon for residual networks of full width and
    Adam for all others, with the learning rates of :func:`wgan_lip.parameter_groups` falling along a cosine in every
    round.

    Arguments:
        x: Training samples of P, shape (n, d), or a sampler of P: then no sample is seen twice.
        y: Training samples of Q, shape (m, d), or a sampler of Q.
        x_validation: Samples of P that choose the critic, shape (k, d), k ≥ 2, independent of those in x.
        y_validation: Samples of Q, shape (l, d), l ≥ 2, independent of those in y.
        a: Weights of x, shape (n,): batches are drawn by them. Not with a sampler.
        b: Weights of y, shape (m,).
        critic: `auto` for all of Note [Candidates]; `cones`, `principal`, `resnet`, `sorting` or `fixed_width` for one
            family; or a module of your own, which is copied and trained as it is, in raw units and its own dtype.
        seconds: Time limit for training. The chosen critic's proof, and its values at all samples, come on top.
            Candidates that could not even be built and proved in the time left do not take part.
        steps: Critic steps of each candidate in the first round, doubled every round; 50 by default. When they end: see
            Note [Stopping].
        seed: Seed of starts and batches.
        device: Where critics train.
        on_progress: Called at every look at the validation samples.

    Raises:
        InputError: Unusable samples, weights, settings, or an unknown name.
        UncertifiableError: A critic of your own without a proof; see :func:`wgan_lip.certify`.

    Guarantee:
        The critic can be certified, so its :func:`wgan_lip.kr_lower_bound` on any samples, these included, bounds their
        W1, and :func:`wgan_lip.population_bounds` on samples used for neither training nor validation bounds that of
        the laws. The two values here are computed without a bound on their rounding, and neither is a bound on W1 of
        the laws. With `seconds=math.inf` the fit is a function of its other arguments, on one machine with a fixed
        number of threads; `steps` then sets its length. Otherwise the clock affects the learning rate.

    References:
        Optimal transport, old and new (Villani, 2009), Remark 6.5; Sequential halving: Almost optimal exploration in
        multi-armed bandits (Karnin, Koren, Somekh, 2013), Figure 3; the rule of one standard error: Classification and
        regression trees (Breiman, Friedman, Olshen, Stone, 1984), section 3.4

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> x, y = torch.randn(400, 2, generator=rng) + 1, torch.randn(400, 2, generator=rng)
        >>> fit = fit_critic(x[:300], y[:300], x_validation=x[300:], y_validation=y[300:], steps=5)
        >>> fit.name, certify(fit.critic).lipschitz <= 1
        ('linear', True)
    """
    began = time.perf_counter()
    validation = check_pair(x_validation, y_validation, minimum=2)
    dim = validation[0].shape[1]
    check_critic(critic, dim)
    sides = _Side.of(x, a, dim, "x", "a"), _Side.of(y, b, dim, "y", "b")
    return _fit(sides, validation, critic, seconds, steps, seed, device, on_progress, began)


def fit_checked(
    x: Tensor | Sampler,
    y: Tensor | Sampler,
    *,
    x_validation: Tensor,
    y_validation: Tensor,
    critic: str | nn.Module,
    seconds: float,
    steps: int | None,
    seed: int,
    device: str | torch.device,
    on_progress: Callable[[FitProgress], None] | None,
) -> Fit:
    """:func:`fit_critic` with uniform weights, for checked samples and a checked critic."""
    began, dim = time.perf_counter(), x_validation.shape[1]
    sides = _Side(x, None, dim, "x"), _Side(y, None, dim, "y")
    return _fit(sides, (x_validation, y_validation), critic, seconds, steps, seed, device, on_progress, began)


def check_critic(critic: str | nn.Module, dim: int) -> None:
    """Raises :class:`InputError` unless `critic` is a known name, or a module proved to be a potential on R^dim."""
    if isinstance(critic, nn.Module):
        certify(critic).check_potential(dim)
    elif isinstance(critic, str):
        check_choice(critic, critic_names(), "critic")
    else:
        raise InputError(f"critic must be a name or a torch module, not {critic!r:.60}. Build it first.")


def _fit(
    sides: tuple[_Side, _Side],
    validation: tuple[Tensor, Tensor],
    critic: str | nn.Module,
    seconds: float,
    steps: int | None,
    seed: int,
    device: str | torch.device,
    on_progress: Callable[[FitProgress], None] | None,
    began: float,
) -> Fit:
    device = _check_settings(seconds, steps, seed, device)
    rng = _generator(seed)
    start = [side.start(rng) for side in sides]
    order = _generator(seed, stream=1)
    looked_at = [sample[torch.randperm(len(sample), generator=order)[:START]] for sample in validation]
    clock = _Clock(began, seconds, on_progress)
    with torch.random.fork_rng(devices=[]):  # layers are built from the global stream
        torch.manual_seed(seed)
        seen: tuple[Sequence[_Side], Sequence[Tensor]] = sides, looked_at  # by candidates
        if isinstance(critic, nn.Module):
            competing: Iterable[Candidate] = [OwnCandidate(critic, middle_and_spread(torch.cat(start))[1])]
        else:
            units = Units.of(*start)
            x, y = (units.normalised(sample) for sample in start)
            seen = [side.through(units.normalised, ahead=True) for side in sides], [*map(units.normalised, looked_at)]
            competing = candidates(critic, units, x, y, rng, lambda: clock.end - time.perf_counter())
        trainees: list[_Trainee] = []
        for candidate in competing:
            trainees.append(_Trainee(candidate, *seen, device, seed))
            trainees[-1].look()
            clock.report(trainees[-1])
        trainees.sort(key=lambda trainee: place(type(trainee.candidate)))
        _rounds(trainees, STEPS if steps is None else steps, clock)
        chosen = _simplest(trainees)
        finished = chosen.candidate.finished(chosen.best).cpu().eval()
    scale = certify(finished).lipschitz
    means = [side.mean(finished, sample) for side, sample in zip(sides, start)]
    held_out = [_values(finished, sample).mean().item() for sample in looked_at]
    return Fit(
        critic=finished,
        train_value=_over(means[0] - means[1], scale),
        validation_value=_over(held_out[0] - held_out[1], scale),
        steps=clock.steps,
        seconds=time.perf_counter() - began,
        name=chosen.candidate.name,
    )


class _Clock:
    """Time and steps of a fit, and reports of them."""

    def __init__(self, began: float, seconds: float, on_progress: Callable[[FitProgress], None] | None) -> None:
        self.began, self.end, self.on_progress = began, began + seconds, on_progress
        self.steps, self.round, self.greatest = 0, 1, -math.inf

    def share(self, part: float) -> tuple[float, float]:
        """Now, and the end of a share of the time left."""
        now = time.perf_counter()
        return now, now + max(0.0, self.end - now) * part

    def report(self, trainee: _Trainee) -> None:
        self.greatest = max(self.greatest, trainee.candidate.unit * trainee.value)
        if self.on_progress is not None:
            seconds = time.perf_counter() - self.began
            name = trainee.candidate.name
            self.on_progress(FitProgress(seconds, self.steps, self.round, ROUNDS, name, self.greatest))


def _rounds(trainees: list[_Trainee], steps: int, clock: _Clock) -> None:
    """Trains all, then the better half of those that still gain for twice as long, and so on; see Note [Stopping]."""
    field = [trainee for trainee in reversed(trainees) if trainee.trains]  # networks first, which take longest
    lengths = [steps * 2**index for index in range(ROUNDS)]
    while lengths and field:
        clock.round = ROUNDS - len(lengths) + 1
        length = lengths.pop(0)
        gains, left = [], 1.0  # of the round
        later = sum(GROWTH**index for index in range(1, len(lengths) + 1))  # rounds
        for trainee, share in zip(field, _shares(field)):
            gains.append(trainee.train(length, share / (left + later), clock))
            left -= share
        chosen = _simplest(trainees)
        going = [trainee for trainee, gain in zip(field, gains) if trainee.may_exceed(chosen, 2 * gain)]
        groups = list(_families(going).values()) if clock.round <= FAMILIES else [going]
        field = [trainee for group in groups for trainee in _better_half(group)]
        if lengths and clock.round >= FAMILIES and any(trainee.cut for trainee in field):
            lengths = [sum(lengths)]  # there is time for one round
            now, end = clock.share(1.0)
            field = [max(field, key=lambda trainee: trainee.promise(end - now))]
            if (released := field[0].released(lengths[0], clock)) is not None:
                trainees.insert(trainees.index(field[0]) + 1, released)
                field = [released]


def _families(field: list[_Trainee]) -> dict[type[Candidate], list[_Trainee]]:
    families: dict[type[Candidate], list[_Trainee]] = {}
    for trainee in field:
        families.setdefault(type(trainee.candidate), []).append(trainee)
    return families


def _shares(field: list[_Trainee]) -> list[float]:
    """Shares of a round's time: families by their `say`, members of a family equally."""
    families = _families(field)
    say = {family: members[0].candidate.say for family, members in families.items()}
    shares = [say[type(one.candidate)] / len(families[type(one.candidate)]) for one in field]
    return [share / sum(shares) for share in shares]


def _better_half(group: list[_Trainee]) -> list[_Trainee]:
    return sorted(group, key=lambda trainee: -trainee.value)[: math.ceil(len(group) / 2)]


def _simplest(trainees: list[_Trainee]) -> _Trainee:
    """The first trainee that the validation samples cannot tell from the best one."""
    best = max(trainees, key=lambda trainee: trainee.value)
    for trainee in trainees:
        if best.value - trainee.value <= _paired_error(best.values, trainee.values):
            return trainee
    return best


def _paired_error(values: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]) -> float:
    """The standard error of the difference of two dual values at the same samples, from the values at each."""
    gaps = [one - other for one, other in zip(values, others)]
    return math.sqrt(sum(gap.var().item() / len(gap) for gap in gaps))


class _Trainee:
    """A candidate in training, with the best of its weights and of their running averages so far.

    Attributes:
        best: The module with the greatest validation value so far.
        value: That value, over its certified constant.
        values: The values at the validation samples that give it, shapes (k,) and (l,), over the constant too.
    """

    def __init__(
        self,
        candidate: Candidate,
        sides: Sequence[_Side],
        validation: Sequence[Tensor],
        device: torch.device,
        seed: int,
    ) -> None:
        self.candidate, self.device, self.seed = candidate, device, seed
        self.seen = sides, validation
        self.module = copy.deepcopy(candidate.module).to(device)
        self.average = copy.deepcopy(self.module).requires_grad_(False)
        self.retract_average = Retraction(self.average)
        self.trains = any(parameter.requires_grad for parameter in self.module.parameters())
        self.steps, self.value, self.values = 0, -math.inf, (torch.zeros(2), torch.zeros(2))
        self.look_takes = 0.0  # seconds
        self.cut = False  # whether one of its rounds was cut short by time
        self.doubling, self.pace = 0.0, 0.0  # in the last round: gain for twice the steps; steps per second
        self.best = copy.deepcopy(self.average)
        self.validation = [self._prepared(sample) for sample in validation]
        self.rng = _generator(seed)  # the same batches for all candidates
        if self.trains:
            self.sides = [side.through(self._prepared, ahead=candidate.compact) for side in sides]
            self.optimizer = candidate.new_optimizer(self.module)
            self.rates = [group["lr"] for group in self.optimizer.param_groups]
            constrain_steps(self.optimizer, self.module)

    def train(self, steps: int, part: float, clock: _Clock) -> float:
        """Takes at most `steps` critic steps within a share of the time left; the rate falls with both.

        Returns the gain of the validation value, or −∞ if the trainee should not go on; see Note [Stopping].
        """
        start, end = clock.share(part)
        if start >= end:  # nothing has changed since the last look, which in many dimensions takes seconds
            return 0.0
        before, values, taken, looked = self.value, self.values, self.steps, start
        for step in range(steps):
            now = time.perf_counter()
            if now >= end:
                self.cut = True
                break
            progress = max(step / steps, (now - start) / (end - start))
            for group, rate in zip(self.optimizer.param_groups, self.rates):
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * progress))
            ascend(self.module, self.optimizer, *(side.batch(self.rng, self.candidate.batch) for side in self.sides))
            self.steps += 1
            clock.steps += 1
            self._average()
            if self.steps % CHECK_EVERY == 0 and (end == math.inf or now - looked > self.look_takes / LOOKING):
                if not self.look():
                    return -math.inf
                looked = time.perf_counter()
                clock.report(self)
        if self.look():
            clock.report(self)
        gain = self.value - before
        if taken and self.steps > taken and math.isfinite(gain):
            self.doubling = gain / math.log2(self.steps / taken)
            self.pace = (self.steps - taken) / (time.perf_counter() - start)
        if self.steps - taken < STEPS or not math.isfinite(before):
            return math.inf
        return gain if gain > _paired_error(self.values, values) else -math.inf

    def may_exceed(self, chosen: _Trainee, gain: float) -> bool:
        """Whether the validation samples could tell this one from the chosen one if its value grew by `gain`."""
        return self.value + gain >= chosen.value + _paired_error(self.values, chosen.values)

    def promise(self, seconds: float) -> float:
        """The value to expect after `seconds` more of training alone, if the gain from doubling the steps fades."""
        doublings = math.log2(1 + seconds * self.pace / max(1, self.steps))
        return self.value + self.doubling * FADING * (1 - FADING**doublings) / (1 - FADING)

    def released(self, steps: int, clock: _Clock) -> _Trainee | None:
        """Trains on for a share of the time left, then returns a trainee that goes on with nothing held fixed.

        None if that would be too early: with fixed axes, steps are a few times cheaper.
        """
        if not self.candidate.compact:
            return None
        self.train(steps, HELD_FIXED, clock)
        candidate = self.candidate.released(self.best)
        if candidate is None or self.steps < HELD_STEPS:
            return None
        released = _Trainee(candidate, *self.seen, self.device, self.seed)
        released.look()
        return released

    @torch.no_grad()
    def _average(self) -> None:
        weight = max(AVERAGING, 1 / (self.steps + 1))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.module.parameters()), weight)

    @torch.no_grad()
    def look(self) -> bool:
        """Validates weights and average, and keeps the best so far. False if one is no longer finite."""
        began = time.perf_counter()
        if self.steps:
            self.retract_average()
        for module in (self.average, self.module) if self.steps else (self.average,):
            values = [_values(module, sample) for sample in self.validation]
            value = (values[0].mean() - values[1].mean()).item()
            if not math.isfinite(value):
                return False
            constant = self.candidate.constant(module)
            if _over(value, constant) > self.value:
                self.value = _over(value, constant)
                self.values = _over(values[0], constant), _over(values[1], constant)
                self.best = copy.deepcopy(module).requires_grad_(False)
        self.look_takes = time.perf_counter() - began
        return True

    def _prepared(self, samples: Tensor) -> Tensor:
        return self.candidate.prepared(samples).to(self.device)


class _Side:
    """Training samples of one law: all rows, weighted rows, or a sampler."""

    def __init__(self, samples: Tensor | Sampler, weights: np.ndarray | None, dim: int, name: str) -> None:
        self.dim, self.name, self.cumulative, self.weights = dim, name, None, None
        self.sampler: Sampler | None = None
        self.prepare: Callable[[Tensor], Tensor] | None = None
        if not isinstance(samples, Tensor):
            self.sampler = samples
            return
        self.rows = samples.detach().cpu()
        self._check_dim(self.rows)
        if weights is not None:
            self.weights = torch.from_numpy(weights / weights.max())
            self.cumulative = self.weights.cumsum(0)

    @classmethod
    def of(
        cls, samples: Tensor | ArrayLike | Sampler, weights: Tensor | ArrayLike | None, dim: int, name: str, of: str
    ) -> _Side:
        """Checks samples and weights. Raises :class:`InputError`."""
        if callable(samples):
            if weights is not None:
                raise InputError(f"{name} is a sampler, which takes no weights {of}. Let the sampler draw by them.")
            return cls(samples, None, dim, name)
        rows = check_samples(samples, name)
        return cls(rows, check_weights(weights, len(rows), of), dim, name)

    def through(self, prepare: Callable[[Tensor], Tensor], *, ahead: bool) -> _Side:
        """This law transformed by `prepare`: batch by batch, or all rows in advance."""
        side = copy.copy(self)
        if ahead and side.sampler is None:
            side.rows = torch.cat([prepare(rows) for rows in side.rows.split(CHUNK)])
        else:
            before = self.prepare
            side.prepare = prepare if before is None else lambda rows: prepare(before(rows))
        return side

    def batch(self, rng: torch.Generator, size: int) -> Tensor:
        """Fresh samples, or rows drawn with replacement, shape (size, d); all rows if there are no more than that."""
        rows = self._drawn(rng, size)
        return rows if self.prepare is None else self.prepare(rows)

    def _drawn(self, rng: torch.Generator, size: int) -> Tensor:
        if self.sampler is not None:
            drawn = check_samples(self.sampler(size, rng), f"the samples drawn by {self.name}").detach().cpu()
            self._check_dim(drawn)
            if len(drawn) != size:
                raise InputError(f"The sampler {self.name} drew {len(drawn)} samples instead of {size}.")
            return drawn
        if self.weights is None or self.cumulative is None:
            if len(self.rows) <= size:
                return self.rows
            return self.rows[torch.randint(len(self.rows), (size,), generator=rng)]
        level = torch.rand(size, generator=rng, dtype=torch.float64) * self.cumulative[-1]
        drawn = torch.searchsorted(self.cumulative, level, right=True)
        return self.rows[drawn.clamp_max(int(self.weights.nonzero()[-1]))]

    def start(self, rng: torch.Generator) -> Tensor:
        """The samples that candidates start from, in random order, shape (k, d), k ≤ START."""
        if self.sampler is None and self.weights is None and len(self.rows) <= START:
            return self.rows[torch.randperm(len(self.rows), generator=rng)]
        return self.batch(rng, START)

    @torch.no_grad()
    def mean(self, critic: nn.Module, start: Tensor) -> float:
        """The mean of `critic` over all rows, by their weights; over `start` for a sampler, and for too many rows."""
        some = self.sampler is not None or (self.weights is None and len(self.rows) > START)
        values = _values(critic, start if some else self.rows)
        return float(values.mean() if some or self.weights is None else (values @ self.weights) / self.weights.sum())

    def _check_dim(self, samples: Tensor) -> None:
        if samples.shape[1] != self.dim:
            raise InputError(
                f"{self.name} must have dimension {self.dim}, that of the validation samples, not shape "
                f"{tuple(samples.shape)}. Check that all hold the same features."
            )


@torch.no_grad()
def _values(module: nn.Module, samples: Tensor) -> Tensor:
    """The values of `module`, shape (n,), computed in its dtype, a few rows at a time, in float64 on the CPU."""
    dtype = next(module.parameters(), samples).dtype
    return torch.cat([module(rows.to(dtype)).double().cpu() for rows in samples.split(CHUNK)])


def _over(value: Value, constant: float) -> Value:
    """`value` over a Lipschitz constant; 0 for a constant function."""
    return value / constant if constant > 0 else 0.0 * value


def _generator(seed: int, stream: int = 0) -> torch.Generator:
    """A stream of `seed` that is not the stream of `manual_seed(seed)`, by which validation samples may be drawn."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, 0xF17 + stream)).generate_state(1)[0]))


def _check_settings(seconds: float, steps: int | None, seed: int, device: str | torch.device) -> torch.device:
    if not seconds > 0:  # NaN as well
        raise InputError(f"seconds must be positive, not {seconds}.")
    for name, value, least in (("steps", steps, 1), ("seed", seed, 0)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise InputError(f"{name} must be an integer of at least {least}, not {value!r}.")
    try:
        device = torch.device(device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"torch can't use the device {device!r}: {one_line(error)}. Use cpu.") from None
    return device
