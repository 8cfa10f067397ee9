r"""A certified critic fitted to two sample sets, or two laws, with no tuning: the neural estimate of W1.

Note [Candidates]
    Which critic finds a potential from samples depends on the pair, and a few candidates cover most of it. They stand
    in order of simplicity:

    - `linear`: :math:`f(x) = \langle x, e \rangle`, along the difference of the means; a shift.
    - `cones-1`: :math:`f(x) = \pm (\|x - c\| + b)`; dilations, atoms.
    - `ridge`: :math:`f(x) = \pm \min_k (|\langle x, e \rangle - c_k| + b_k)`; a change of one coordinate among many.
      Here e is the direction between the means, or the first or last axis of the covariances' difference, whichever
      shows the larger W1.
    - `cones-K`: :math:`f(x) = \pm \min_k (\|x - c_k\| + b_k)`. Every potential of two finite sets has this form, with
      cones at one of the sets; fewer cones generalise where the exact ones do not.
    - `resnet`: family A, for what no cones describe.

    The centres start where k-means puts them, among the samples of one law or of both; the heights start at an exact
    potential of a subsample, so that no cone starts, and stays, above all others.

Note [Validation]
    In many dimensions the dual value of the training samples says nothing about the laws: it grows with every cone.
    So candidates compete on held-out samples, in rounds that each keep about the better third and restart the learning
    rate. At the end the simplest candidate wins that the validation samples cannot tell from the best: whose value is
    within one standard error of the paired difference.

Note [Units]
    Candidates train in float32 on (x − c)/s, with c near the samples' middle and s a power of two near their spread.
    The critic returned holds that scaling, and s times its values, in float64, so its certificate is about the raw
    units; powers of two keep the constant at 1.
"""

from __future__ import annotations

import copy
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from wgan_lip.critics import FixedWidthCritic, ResNetCritic, SortingCritic
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import (
    Linear,
    LipschitzExtension,
    Normalize,
    Retraction,
    Squeeze,
    fast_distances,
    k_means,
    retract_after_steps,
)
from wgan_lip.transport import Potential, solve
from wgan_lip.utils.checks import InputError, check_choice, check_pair, check_samples, check_weights, one_line
from wgan_lip.wasserstein.dual import ascend

__all__ = ["CRITICS", "Fit", "FitProgress", "Sampler", "fit_critic"]

Sampler = Callable[[int, torch.Generator], Tensor]
"""Draws n fresh samples of a law, shape (n, d), with a CPU generator."""

CRITICS = ("auto", "cones", "resnet", "sorting", "fixed_width")
BATCH = 512
LEARNING_RATE = 1e-2
CHECK_EVERY = 25  # ascents between two looks at the validation samples
ROUNDS = 4
STEPS = 300  # ascents of a candidate in the first round; each round doubles them
AVERAGING = 0.01  # weight of the newest weights in their running average
START = 4096  # samples of each law that candidates start from, and validation samples they are compared on
SOLVED = 800  # of them, those whose transport is solved exactly
CHUNK = 4096  # rows of one evaluation
LARGEST_COVARIANCE = 1024  # dimension up to which covariances are decomposed
SIGNS = {-1.0: "-", 1.0: "+"}


@dataclass(frozen=True)
class FitProgress:
    """What is known during a fit.

    Attributes:
        seconds: Since the fit began.
        steps: Ascents so far, of all candidates.
        round: The round that is on, from 1.
        rounds: Their number.
        name: The candidate in training.
        validation_value: The greatest validation value so far, of any candidate.
    """

    seconds: float
    steps: int
    round: int
    rounds: int
    name: str
    validation_value: float


@dataclass(frozen=True, eq=False)
class Fit:
    """A certified critic and how it came about.

    Attributes:
        critic: The chosen one, in eval mode, on the CPU; it takes samples in their own units.
        train_value: (E_P f − E_Q f)/L on the training samples; for a sampler, on the samples the fit began with.
        validation_value: Likewise on the validation samples. They chose the critic, so it errs a little high.
        steps: Ascents, of all candidates.
        seconds: The time it took.
        name: The candidate chosen.
    """

    critic: nn.Module
    train_value: float
    validation_value: float
    steps: int
    seconds: float
    name: str


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

    One setting for all pairs; see Note [Candidates] and Note [Validation]. Adam with retraction, the learning rate
    falling along a cosine in every round; what is validated is the running average of the weights, retracted.

    Arguments:
        x: Training samples of P, shape (n, d), or a sampler of P: then no sample is seen twice.
        y: Training samples of Q, shape (m, d), or a sampler of Q.
        x_validation: Samples of P that chose the critic, shape (k, d), k ≥ 2, independent of those in x.
        y_validation: Samples of Q, shape (l, d), l ≥ 2, likewise.
        a: Weights of x, shape (n,): batches are drawn by them. Not with a sampler.
        b: Weights of y, shape (m,).
        critic: `auto` for all of Note [Candidates]; `cones`, `resnet`, `sorting` or `fixed_width` for one family; or a
            module of your own, which is copied and trained as it is, in raw units and its own dtype.
        seconds: When ascents end at the latest. The chosen critic's values at all samples come on top.
        steps: Ascents of each candidate in the first round, doubled every round; 300 by default.
        seed: Of starts and batches.
        device: Where ascents run.
        on_progress: Called at every look at the validation samples.

    Raises:
        InputError: Unusable samples, weights, settings, or an unknown name.
        UncertifiableError: A critic of your own without a proof; see :func:`wgan_lip.certify`.

    Guarantee:
        The critic can be certified, so :func:`wgan_lip.kr_lower_bound` of it on any samples, these included, bounds
        their W1, and :func:`wgan_lip.population_bounds` on samples that are neither training nor validation ones bounds
        that of the laws. The two values here are computed without a bound on their rounding, and neither is a bound on
        W1 of the laws. With `seconds=math.inf` the fit is a function of its other arguments, on one machine with one
        number of threads; `steps` then sets its length. Otherwise the clock has a say in the learning rate.

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
    device = _check_settings(seconds, steps, seed, device)
    sides = _Side(x, a, dim, "x", "a"), _Side(y, b, dim, "y", "b")
    rng = _generator(seed)
    start = [side.start(rng) for side in sides]
    with torch.random.fork_rng(devices=[]):  # layers are built from the global stream
        torch.manual_seed(seed)
        if isinstance(critic, nn.Module):
            forms: list[_Form] = [_OwnForm(critic, dim)]
        elif isinstance(critic, str):
            forms = _forms(check_choice(critic, CRITICS, "critic"), _Units.of(*start), *start, rng)
        else:
            raise InputError(f"Expected critic to be a name or a torch module. Got {critic!r:.60}. Build it first.")
        clock = _Clock(began, seconds, on_progress)
        looked_at = [sample[torch.randperm(len(sample), generator=rng)[:START]] for sample in validation]
        trainees = [_Trainee(form, sides, looked_at, device, seed) for form in forms]
        for trainee in trainees:
            trainee.look()
            clock.report(trainee)
        _rounds(trainees, STEPS if steps is None else steps, clock)
        chosen = _simplest(trainees)
        finished = chosen.form.finished(chosen.best).cpu().eval()
    scale = certify(finished).lipschitz
    means = [side.mean(finished, sample) for side, sample in zip(sides, start)]
    held_out = [_values(finished, sample).mean().item() for sample in validation]
    return Fit(
        critic=finished,
        train_value=_over(means[0] - means[1], scale),
        validation_value=_over(held_out[0] - held_out[1], scale),
        steps=clock.steps,
        seconds=time.perf_counter() - began,
        name=chosen.form.name,
    )


class _Clock:
    """Time and ascents of a fit, and word of them."""

    def __init__(self, began: float, seconds: float, on_progress: Callable[[FitProgress], None] | None) -> None:
        self.began, self.end, self.on_progress = began, began + seconds, on_progress
        self.steps, self.round, self.greatest = 0, 1, -math.inf

    def share(self, parts: int) -> tuple[float, float]:
        """Now, and the end of one of `parts` equal parts of the time that is left."""
        now = time.perf_counter()
        return now, now + max(0.0, self.end - now) / parts

    def report(self, trainee: _Trainee) -> None:
        self.greatest = max(self.greatest, trainee.form.unit * trainee.value)
        if self.on_progress is not None:
            seconds = time.perf_counter() - self.began
            name = trainee.form.name
            self.on_progress(FitProgress(seconds, self.steps, self.round, ROUNDS, name, self.greatest))


def _rounds(trainees: list[_Trainee], steps: int, clock: _Clock) -> None:
    """Trains all, then the best third of them for twice as long, and so on."""
    field = [trainee for trainee in trainees if trainee.trains]
    for later in reversed(range(ROUNDS)):  # rounds after this one
        clock.round = ROUNDS - later
        for index, trainee in enumerate(field):
            # Every round has the same share of the time, every trainee the same share of its round.
            trainee.train(steps * 2 ** (clock.round - 1), len(field) * (later + 1) - index, clock)
        field = sorted(field, key=lambda trainee: -trainee.value)[: math.ceil(len(field) / 3)]


def _simplest(trainees: list[_Trainee]) -> _Trainee:
    """The first trainee that the validation samples cannot tell from the best one."""
    best = max(trainees, key=lambda trainee: trainee.value)
    for trainee in trainees:
        gaps = [of_best - of_this for of_best, of_this in zip(best.values, trainee.values)]
        error = math.sqrt(sum(gap.var().item() / len(gap) for gap in gaps))
        if best.value - trainee.value <= error:
            return trainee
    return best


class _Trainee:
    """A candidate in training, with the best of its running averages so far.

    Attributes:
        best: The module with the greatest validation value so far.
        value: That value, over its certified constant.
        values: The values at the validation samples behind it, shapes (k,) and (l,), over the constant likewise.
    """

    def __init__(
        self,
        form: _Form,
        sides: tuple[_Side, _Side],
        validation: list[Tensor],
        device: torch.device,
        seed: int,
    ) -> None:
        self.form, self.sides, self.device = form, sides, device
        self.module = copy.deepcopy(form.module).to(device)
        self.average = copy.deepcopy(self.module).requires_grad_(False)
        self.retract_average = Retraction(self.average)
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.trains = bool(parameters)
        self.steps, self.value, self.values = 0, -math.inf, (torch.zeros(2), torch.zeros(2))
        self.best = copy.deepcopy(self.average)
        self.validation = [form.prepared(sample).to(device) for sample in validation]
        self.rng = _generator(seed)  # the same batches for all candidates
        if self.trains:
            self.optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, betas=(0.9, 0.99))
            retract_after_steps(self.optimizer, self.module)

    def train(self, steps: int, parts: int, clock: _Clock) -> None:
        """At most `steps` ascents within one of `parts` equal parts of the time left; the rate falls with both."""
        start, end = clock.share(parts)
        for step in range(steps):
            now = time.perf_counter()
            if now >= end:
                break
            progress = max(step / steps, (now - start) / (end - start))
            for group in self.optimizer.param_groups:
                group["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * progress))
            batches = [self.form.prepared(side.batch(self.rng)).to(self.device) for side in self.sides]
            ascend(self.module, self.optimizer, *batches)
            self.steps += 1
            clock.steps += 1
            self._average()
            if self.steps % CHECK_EVERY == 0:
                if not self.look():
                    return
                clock.report(self)
        if self.look():
            clock.report(self)

    @torch.no_grad()
    def _average(self) -> None:
        weight = max(AVERAGING, 1 / (self.steps + 1))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.module.parameters()), weight)

    @torch.no_grad()
    def look(self) -> bool:
        """Validates the average, and keeps it where it is the best so far. False where it is not finite any more."""
        if self.steps:
            self.retract_average()
        values = [_values(self.average, sample) for sample in self.validation]
        value = (values[0].mean() - values[1].mean()).item()
        if not math.isfinite(value):
            return False
        constant = self.form.constant(self.average)
        if _over(value, constant) > self.value:
            self.value = _over(value, constant)
            self.values = tuple(_over(one, constant) for one in values)
            self.best = copy.deepcopy(self.average)
        return True


class _Side:
    """Training samples of one law: all rows, weighted rows, or a sampler."""

    def __init__(
        self, samples: Tensor | ArrayLike | Sampler, weights: Tensor | ArrayLike | None, dim: int, name: str, of: str
    ) -> None:
        self.dim, self.name, self.cumulative, self.weights = dim, name, None, None
        self.sampler = samples if callable(samples) else None
        if self.sampler is not None:
            if weights is not None:
                raise InputError(
                    f"Expected no weights {of} for a sampler {name}. Got some. Let the sampler draw by them."
                )
            return
        self.rows = check_samples(samples, name).detach().cpu()
        self._check_dim(self.rows)
        weights = check_weights(weights, len(self.rows), of)
        if weights is not None:
            self.weights = torch.from_numpy(weights / weights.max())
            self.cumulative = self.weights.cumsum(0)

    def batch(self, rng: torch.Generator, size: int = BATCH) -> Tensor:
        """Fresh samples, or rows drawn with replacement, shape (size, d); all rows where they are no more than that."""
        if self.sampler is not None:
            drawn = check_samples(self.sampler(size, rng), f"what the sampler {self.name} draws").detach().cpu()
            self._check_dim(drawn)
            if len(drawn) != size:
                raise InputError(f"Expected the sampler {self.name} to draw {size} samples. Got {len(drawn)}.")
            return drawn
        if self.cumulative is None:
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
        """The mean of `critic` over all rows, by their weights; over `start` for a sampler."""
        values = _values(critic, start if self.sampler is not None else self.rows)
        return float(values.mean() if self.weights is None else (values @ self.weights) / self.weights.sum())

    def _check_dim(self, samples: Tensor) -> None:
        if samples.shape[1] != self.dim:
            raise InputError(
                f"Expected {self.name} of dimension {self.dim}, that of the validation samples. Got "
                f"{tuple(samples.shape)}. Check that all hold the same features."
            )


@dataclass(frozen=True, eq=False)
class _Units:
    """z = (x − centre)/scale, centre (d,) in float64, scale a power of two; see Note [Units]."""

    centre: Tensor
    scale: float

    @staticmethod
    def of(x: Tensor, y: Tensor) -> _Units:
        z = torch.cat((x.double(), y.double()))
        centre = z.median(dim=0).values
        away = z - centre
        unit = away.abs().max().clamp_min(1e-290)
        lengths = unit * (away / unit).norm(dim=1)
        spread = lengths.median() if lengths.median() > 0 else lengths.mean()
        exponent = round(math.log2(spread)) if spread > 0 else 0
        return _Units(centre, 2.0 ** min(max(exponent, -900), 900))

    def normalised(self, samples: Tensor) -> Tensor:
        z = (samples.double() - self.centre) / self.scale
        return z.clamp(-1e15, 1e15).float()  # squares of outliers stay finite; they count in full at the end

    def wrapped(self, layers: list[nn.Module], sign: float) -> nn.Sequential:
        """sign · scale · g((x − centre)/scale) in float64, from the layers of g, which map (b, d) to (b, 1)."""
        ones = torch.ones(len(self.centre))
        normalize = Normalize(0 * ones, ones).double()
        rescale = Linear(Norm((1,)), Norm((1,))).double()
        with torch.no_grad():
            normalize.mean.copy_(self.centre)  # in float64, not rounded to torch's default dtype
            normalize.std.fill_(self.scale)
            rescale.weight.fill_(sign * self.scale * (1 - 2.0**-48))  # so that its certified norm is at most scale
        parts = OrderedDict(normalize=normalize)
        parts.update((f"layer_{index}", layer.double()) for index, layer in enumerate(layers, 1))
        return nn.Sequential(OrderedDict(**parts, rescale=rescale, squeeze=Squeeze()))


class _Form:
    """What is trained, in its own units, and the certified critic it becomes.

    Attributes:
        name: The candidate's name.
        module: What is trained: (b, d) → (b,).
        units: Those of the module.
        unit: What one unit of its values is, in those of the samples.
    """

    name: str
    module: nn.Module
    units: _Units

    @property
    def unit(self) -> float:
        return self.units.scale

    def prepared(self, samples: Tensor) -> Tensor:
        """Samples as the module takes them."""
        return self.units.normalised(samples)

    def constant(self, module: nn.Module) -> float:
        """A proved Lipschitz constant of `module`."""
        return certify(module).lipschitz

    def finished(self, module: nn.Module) -> nn.Module:
        """The certified critic, on raw units, from a trained copy of the module."""
        *layers, _ = module.children()  # all but the squeeze
        return self.units.wrapped(layers, 1.0)


class _NetworkForm(_Form):
    """A critic of the package."""

    def __init__(self, name: str, module: nn.Module, units: _Units) -> None:
        self.name, self.module, self.units = name, module, units


class _OwnForm(_Form):
    """A module that the user brings."""

    unit = 1.0

    def __init__(self, module: nn.Module, dim: int) -> None:
        certify(module).check_potential(dim)
        self.name, self.module = type(module).__name__, module
        self.like = next(module.parameters(), torch.zeros(()))

    def prepared(self, samples: Tensor) -> Tensor:
        return samples.to(self.like.dtype)

    def finished(self, module: nn.Module) -> nn.Module:
        return module.requires_grad_(True)


class _LinearForm(_Form):
    """The projection on the direction between the means, which needs no training."""

    def __init__(self, x: Tensor, y: Tensor, units: _Units) -> None:
        direction = x.mean(dim=0) - y.mean(dim=0)
        if not direction.any():
            direction[0] = 1
        module = nn.Sequential(_projection(direction), Squeeze())
        self.name, self.module, self.units = "linear", module, units


class _Cones(nn.Module):
    r"""x ↦ sign · min_k(‖x − c_k‖ + b_k), for training: only the lowest cone of each sample is differentiated.

    It is found by a product of matrices, which errs where two cones are all but equally low, by as little. Several
    times faster than :class:`LipschitzExtension`, whose values are proof against that.
    """

    def __init__(self, centers: Tensor, offsets: Tensor, sign: float) -> None:
        super().__init__()
        self.centers, self.offsets, self.sign = nn.Parameter(centers), nn.Parameter(offsets), sign

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            lowest = (fast_distances(x, self.centers) + self.offsets).argmin(dim=1)  # (b,)
        ray = x - self.centers[lowest]
        return self.sign * (torch.linalg.vector_norm(ray, dim=1) + self.offsets[lowest])


class _ConesForm(_Form):
    """Cones, trained as :class:`_Cones`, finished as :class:`LipschitzExtension`; behind a fixed layer, or none."""

    def __init__(
        self,
        name: str,
        centers: Tensor,
        potential: Potential,
        sign: float,
        units: _Units,
        *before: Linear,
    ) -> None:
        cones = _Cones(centers, sign * potential(centers.double()).float(), sign)
        self.name, self.module, self.units = name, nn.Sequential(*before, cones), units

    def constant(self, module: nn.Module) -> float:
        return 1.0  # that of cones, and at most that of the layer before them

    def finished(self, module: nn.Sequential) -> nn.Module:
        *before, cones = module
        layer = LipschitzExtension.through(cones.centers.detach().double(), cones.offsets.detach().double())
        return self.units.wrapped([*before, layer], cones.sign)


def _forms(critic: str, units: _Units, x: Tensor, y: Tensor, rng: torch.Generator) -> list[_Form]:
    """The candidates that a name stands for, in order of simplicity."""
    x, y, dim = units.normalised(x), units.normalised(y), x.shape[1]
    width = min(512, max(64, dim))
    bias_scale = 2 / math.sqrt(width)  # what a unit row makes of samples of norm 1, in `width` dimensions, and beyond
    networks: dict[str, Callable[[], nn.Module]] = {
        "resnet": partial(ResNetCritic, dim, width=width, depth=4, bias_scale=bias_scale),
        "sorting": partial(SortingCritic, dim, width=width, depth=4, bias_scale=bias_scale),
        "fixed_width": partial(FixedWidthCritic, dim),
    }
    if critic in networks:
        return [_NetworkForm(critic, networks[critic](), units)]
    cones = list(_cones(units, x, y, rng))
    if critic == "cones":
        return cones
    return [_LinearForm(x, y, units), *cones, _NetworkForm("resnet", networks["resnet"](), units)]


def _cones(units: _Units, x: Tensor, y: Tensor, rng: torch.Generator) -> Iterator[_Form]:
    """Cones of both signs, few ones first; see Note [Candidates]."""
    potential = solve(x[:SOLVED], y[:SOLVED]).potential
    both = torch.cat((x, y))
    for sign in SIGNS:
        yield _ConesForm(f"cones-1{SIGNS[sign]}", both.mean(dim=0, keepdim=True), potential, sign, units)
    if x.shape[1] > 1:
        yield from _ridges(units, x, y, rng)
    for count, origins in ((16, ("ends", "both")), (64, ("ends", "both")), (256, ("both",))):
        for sign in SIGNS:
            for origin in origins:
                # P gathers at the tips of falling cones, Q at those of rising ones.
                points = both if origin == "both" else x if sign < 0 else y
                if count < len(points):
                    centers = k_means(points, count, rng)
                    yield _ConesForm(f"cones-{count}{SIGNS[sign]} ({origin})", centers, potential, sign, units)


def _ridges(units: _Units, x: Tensor, y: Tensor, rng: torch.Generator) -> Iterator[_Form]:
    """Functions of one direction, of both signs."""
    directions = [x.mean(dim=0) - y.mean(dim=0)]
    if min(len(x), len(y)) >= 2 and x.shape[1] <= LARGEST_COVARIANCE:
        axes = torch.linalg.eigh(x.T.cov() - y.T.cov()).eigenvectors
        directions += [axes[:, 0], axes[:, -1]]
    layers = [_projection(direction) for direction in directions]
    solutions = [solve(layer(x), layer(y)) for layer in layers]
    layer, solution = max(zip(layers, solutions), key=lambda pair: pair[1].value)
    points = layer(torch.cat((x, y)))
    for sign in SIGNS:
        centers = k_means(points, min(16, len(points)), rng)
        yield _ConesForm(f"ridge{SIGNS[sign]}", centers, solution.potential, sign, units, layer)


def _projection(direction: Tensor) -> Linear:
    """x ↦ ⟨x, e⟩, (b, d) → (b, 1), for good; e is the direction, shape (d,), at length 1, or 0."""
    layer = Linear(Norm.euclidean(len(direction)), Norm((1,))).requires_grad_(False)
    layer.weight.copy_(direction[None])
    Retraction(layer)()
    return layer


@torch.no_grad()
def _values(module: nn.Module, samples: Tensor) -> Tensor:
    """The values of `module`, shape (n,), computed in its dtype, a few rows at a time, in float64 on the CPU."""
    dtype = next(module.parameters(), samples).dtype
    return torch.cat([module(rows.to(dtype)).double().cpu() for rows in samples.split(CHUNK)])


def _over(value: Tensor | float, constant: float) -> Tensor | float:
    """`value` over a Lipschitz constant; 0 for that of a constant function."""
    return value / constant if constant > 0 else 0.0 * value


def _generator(seed: int) -> torch.Generator:
    """A stream of `seed` that is not the stream of `manual_seed(seed)`, by which validation samples may be drawn."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, 0xF17)).generate_state(1)[0]))


def _check_settings(seconds: float, steps: int | None, seed: int, device: str | torch.device) -> torch.device:
    if not seconds > 0:  # NaN as well
        raise InputError(f"Expected seconds above zero. Got {seconds}.")
    for name, value, least in (("steps", steps, 1), ("seed", seed, 0)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise InputError(f"Expected {name} to be a whole number of at least {least}. Got {value!r}.")
    try:
        device = torch.device(device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(
            f"Expected a device that torch can use. Got {device!r}: {one_line(error)}. Take cpu."
        ) from None
    return device
