"""Critics trained on fresh samples of laws whose truth is known, and measured against it."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from wgan_lip.benchmarks.cases import Piece, mean_of, number, percent
from wgan_lip.benchmarks.methods import SOLVERS, Method
from wgan_lip.critics import Critic
from wgan_lip.data.sources import TEST, derived_generator
from wgan_lip.lipschitz.adversary import estimate_lipschitz
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import Solver, constrain_steps
from wgan_lip.training import SCHEDULES
from wgan_lip.transport import Plan
from wgan_lip.utils.numbers import rounded_up
from wgan_lip.utils.pacing import largest_in_time
from wgan_lip.utils.slopes import gradients
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.dual import ascend, kr_value
from wgan_lip.wasserstein.interval import estimate_ray_gradient_norm

__all__ = [
    "BATCH",
    "Case",
    "Pair",
    "Trainable",
    "method_table",
    "steps_in_time",
    "train_and_measure",
    "trained",
]

BATCH = 512  # samples of each law per step
START = 16_384  # samples of each law, at most, that a critic starts from
START_ENTRIES = 2**25  # coordinates of these, at most
STARTING = 0.1  # of the time, at most, for a start
SIZING = 0.3  # of that, for finding the number of samples
PLANNING = 0.7  # of the rest of it, for the plan
RACE = 0.15  # of the time, for each start of a method with several, including the start itself
JUDGED = 2  # several starts are judged on this many times the samples of each law that they started from, at least
CHUNK = 4096  # pairs measured at a time, at most
ENTRIES = 2**22  # coordinates of these, at most
MOST_ENTRIES = 2**27  # coordinates of all measured pairs, at most; then a larger error is accepted
ERROR = 0.003  # target standard error of value and truth, relative to W1
SEARCHED = 128  # points in the search for the steepest slope, each with a quarter as many moves
MOST_CHUNKS = 256  # after which a larger error is accepted
COSINE_CHUNKS = 4  # on which gradients are compared
ROUNDING = 1e-9  # by which a computed value may exceed what bounds it; relative


class Trainable(Protocol):
    """Two laws P and Q that critics can be trained on."""

    @property
    def dim(self) -> int:
        """The dimension d of both."""

    def sample(self, n: int, m: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """For training: n samples of P and m of Q, all independent, shapes (n, d) and (m, d)."""


@runtime_checkable
class Staying(Trainable, Protocol):
    """Two laws known by samples that stay the same."""

    def through(self, layers: nn.Module) -> Trainable:
        """The two laws after `layers`."""


class Pair(Trainable, Protocol):
    """Two laws with a known optimal plan and potential; every :class:`wgan_lip.data.oracles.Oracle` is one."""

    def pair(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """For measuring: n optimal pairs, none of them seen in training, shapes (n, d) each."""

    def gradient(self, x: Tensor) -> Tensor:
        """The potential's gradient at points of P, shape (n, d); 0 where it has none."""


def train_and_measure(
    method: Method, pair: Pair, *, seconds: float, batch: int = BATCH, seed: int = 0
) -> dict[str, Any]:
    r"""Trains one critic on fresh independent samples, in float32, and measures it on fresh pairs, in float64.

    The optimiser ascends the KR dual, real and fake samples in one pass, with learning rates by a schedule in time. A
    :class:`~wgan_lip.critics.Critic` starts at samples of each law, 16,384 if that takes at most a tenth of the time.
    Time is processor time of this process, so other work on the machine makes the wait longer but does not change the
    result; drawing samples counts, and so does the start. With zero seconds the critic is measured as it was built,
    from 128 samples.

    Note [Starts]
        An exact plan between many samples in many dimensions may take longer than the training itself, and so may
        clustering them. So a start takes a tenth of the time: a part of it goes to larger and larger sets of samples,
        up to 16,384 of each law, then the start is made at that many, with a plan between as many of these as the rest
        allows. A potential from fewer samples hurts cones less than fewer tips.

        If a method has several starts, a critic trains from each for 15 % of the time, with its learning rate falling
        to zero. The one with the greatest dual value on fresh samples of each law, twice as many as in the smallest
        start, trains on, from the initial rate.

    With optimal pairs :math:`(x_i, y_i)`, gradients :math:`\nabla f^*` of the potential, and a certified L:

    .. math:: \text{value} = \frac1n \sum_i f(x_i) - f(y_i), \qquad
              \text{truth} = \frac1n \sum_i \|x_i - y_i\|, \qquad
              \text{cosine} = \frac1n \sum_i \frac{\langle \nabla f(x_i), \nabla f^*(x_i) \rangle}
                                                  {\|\nabla f(x_i)\| \|\nabla f^*(x_i)\|}

    Arguments:
        method: The critic.
        pair: The laws.
        seconds: Processor time of training.
        batch: Samples of each law per step.
        seed: Seed of the critic, of its samples, and of the pairs.

    Returns:
        A row of plain figures: `steps`, `seconds`, the `start` it trained on from, `guarantee` (in words); `value`,
        `truth`, their `ratio`, each with its standard error `…_error` over `pairs` pairs; `cosine` at points of P where
        the potential has a gradient (None where it has none), and its error; the certified constant `lipschitz`;
        `certified_ratio`, that of value over constant to truth; the steepest slope `found`, and `tightness`, lipschitz
        over found (None if the critic is flat); `ray_gradient_norm`, the mean gradient norm at quarter points of
        x_i → y_i. A critic whose weights are not finite after training has a reason `failed` in place of the measures.

    Raises:
        RuntimeError: A slope, or a value over truth, above the certified constant: a bug in a proof.

    Guarantee:
        `lipschitz` is certified. `value` over `lipschitz` is at most `truth`, on the same pairs, up to rounding.
        Everything else is an estimate, and depends on the machine's speed.

    References:
        Kantorovich Strikes Back! Wasserstein GANs are not Optimal Transport? (Korotin, Kolesov, Burnaev, 2022), the
        measures; Optimal Transport, Old and New (Villani, 2009), Theorem 5.10

    Example:
        >>> from wgan_lip.critics import ResNetCritic
        >>> from wgan_lip.data.oracles import Shift
        >>> row = train_and_measure(Method(ResNetCritic), Shift(dim=2), seconds=0.0)
        >>> row["value"] <= row["truth"]
        True
    """
    critic, how = trained(method, pair, seconds=seconds, batch=batch, seed=seed)
    guarantee = getattr(critic, "guarantee", "certified")
    row = {**how, "guarantee": guarantee}
    if "failed" in row:
        return row
    return {**row, **_measured(critic, pair, derived_generator(seed, TEST))}


def trained(
    method: Method, pair: Trainable, *, seconds: float, batch: int, seed: int
) -> tuple[nn.Module, dict[str, Any]]:
    """The critic of a method after the given processor time, and how it was trained; see Note [Starts].

    Returns:
        The critic, and `steps`, `seconds`, the `start` it trained on from, and, if its weights are not finite, a
        reason `failed`.
    """
    _warm_up(method, pair.dim, batch)
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    began, steps = time.process_time(), 0
    critic = method.critic(pair.dim, **method.arguments)
    starts = method.starts if isinstance(critic, Critic) else ()
    raced: dict[str, tuple[int, Critic]] = {}
    for start in starts:
        racing = time.process_time()
        candidate = method.critic(pair.dim, **method.arguments)
        assert isinstance(candidate, Critic)  # as the first one
        size = _start(candidate, pair, start, STARTING * seconds, rng)
        if len(starts) > 1:
            steps += _ascended(candidate, method, pair, RACE * seconds, batch, rng, racing)
        raced[start] = size, candidate
    if starts:
        best = starts[0] if len(starts) == 1 else _best(raced, pair, rng)
        critic, starts = raced[best][1], (best,)
    now = time.process_time()
    steps += _ascended(critic, method, pair, seconds - (now - began), batch, rng, now)
    how = {"steps": steps, "start": next(iter(starts), None), "seconds": time.process_time() - began}
    if not all(bool(weight.isfinite().all()) for weight in critic.parameters()):
        how["failed"] = f"its weights are not finite after {steps} steps"
    return critic, how


def _start(critic: Critic, pair: Trainable, start: str, seconds: float, rng: torch.Generator) -> int:
    """Starts a critic at as many samples of each law as the time allows; returns their number. See Note [Starts]."""
    began, solver = time.process_time(), SOLVERS[start]

    def at(size: int, solver: Solver | None) -> None:
        critic.start_at(*_drawn(pair, size, rng), solver=solver)

    def in_time(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        assert solver is not None
        left = PLANNING * (began + seconds - time.process_time())
        return largest_in_time(lambda n: solver(x[:n], y[:n]), len(x), left, clock=time.process_time)[1]

    trial, most = None if solver is None else _flat, max(1, min(START, START_ENTRIES // pair.dim))
    size, _ = largest_in_time(lambda size: at(size, trial), most, SIZING * seconds, growth=1, clock=time.process_time)
    if solver is not None:
        at(size, in_time)
    return size


def _flat(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
    """A solver that takes no time, to time a start without one."""
    return lambda points: torch.zeros_like(points[:, 0])


@torch.no_grad()
def _best(raced: Mapping[str, tuple[int, Critic]], pair: Trainable, rng: torch.Generator) -> str:
    """The start whose critic has the greatest dual value on fresh samples."""
    samples = _drawn(pair, JUDGED * min(size for size, _ in raced.values()), rng)
    return max(raced, key=lambda start: float(kr_value(raced[start][1], *samples)))


def _ascended(
    critic: nn.Module,
    method: Method,
    pair: Trainable,
    seconds: float,
    batch: int,
    rng: torch.Generator,
    began: float,
) -> int:
    """Trains until `seconds` after `began`, in processor time; returns the number of critic steps.

    Layers that do not train are evaluated once if the samples are fixed.
    """
    steps, ascending = 0, critic
    if isinstance(critic, Critic) and isinstance(pair, Staying):
        front, rest = critic.split_frozen()
        if next(front.parameters(), None) is not None:
            pair, ascending = pair.through(front), rest
    optimizer = method.new_optimizer(critic)
    constrain_steps(optimizer, ascending)
    for steps in steps_in_time(optimizer, seconds, method.schedule, began):  # noqa: B007
        ascend(ascending, optimizer, *_drawn(pair, batch, rng))
    return steps


def steps_in_time(
    optimizer: torch.optim.Optimizer, seconds: float, schedule: str, began: float | None = None
) -> Iterator[int]:
    """Numbers steps from 1 while processor time is left, and sets the learning rates of each by a schedule in time.

    Arguments:
        optimizer: The optimiser, at its initial rates.
        seconds: Time since `began`, a reading of `time.process_time`; by default since the first step.
        schedule: A key of :data:`wgan_lip.training.SCHEDULES`.
    """
    began = time.process_time() if began is None else began
    rates, steps = [group["lr"] for group in optimizer.param_groups], 0
    while (elapsed := time.process_time() - began) < seconds:
        for group, rate in zip(optimizer.param_groups, rates):
            group["lr"] = rate * SCHEDULES[schedule](elapsed / seconds)
        steps += 1
        yield steps


def _drawn(pair: Trainable, size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Independent samples of both laws, (size, d) each, in float32."""
    x, y = pair.sample(size, size, rng)
    return x.float(), y.float()


def _warm_up(method: Method, dim: int, batch: int) -> None:
    """A step and the starts of a throwaway critic: a new process takes seconds to load what it needs."""
    critic = method.critic(dim, **method.arguments)
    x, y = torch.randn(2, batch, dim)
    ascend(critic, torch.optim.Adam(critic.parameters()), x, y)
    for start in method.starts:
        if (solver := SOLVERS[start]) is not None:
            solver(x[:2], y[:2])


def _measured(critic: nn.Module, pair: Pair, rng: torch.Generator) -> dict[str, Any]:
    lipschitz = certify(critic).lipschitz
    exact = copy.deepcopy(critic).double().eval()
    values = _values(exact, pair, rng)
    found = estimate_lipschitz(exact, torch.cat(pair.pair(_chunk(pair), rng)), starts=SEARCHED, steps=SEARCHED // 4)
    certified = values["value"] / lipschitz if lipschitz > 0 else 0.0
    if found > lipschitz or certified > values["truth"] * (1 + ROUNDING):
        raise RuntimeError(
            f"The certificate states {lipschitz}, but a search found the slope {found}, or the value {values['value']} "
            f"exceeds the mean length {values['truth']} of the pairs: a bug in a proof."
        )
    return {
        **values,
        **_cosine(exact, pair, rng),
        "lipschitz": lipschitz,
        "certified_ratio": certified / values["truth"],
        "found": found,
        "tightness": lipschitz / found if found > 0 else None,
        "ray_gradient_norm": _ray_gradient_norm(exact, pair, rng),
    }


@torch.no_grad()
def _values(critic: nn.Module, pair: Pair, rng: torch.Generator) -> dict[str, Any]:
    """Value, truth and their ratio, on as many pairs as their standard errors need."""
    gaps, lengths = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    for _ in range(max(1, min(MOST_CHUNKS, MOST_ENTRIES // (pair.dim * _chunk(pair))))):
        x, y = pair.pair(_chunk(pair), rng)
        u, v = critic(torch.cat((x, y)).double()).split(len(x))
        gaps, lengths = torch.cat((gaps, u - v)), torch.cat((lengths, torch.linalg.vector_norm(x - y, dim=1)))
        truth = lengths.mean()
        if max(_error(gaps), _error(lengths)) <= ERROR * truth:
            break
    value, ratio = gaps.mean(), gaps.mean() / truth
    return {
        "value": float(value),
        "value_error": _error(gaps),
        "truth": float(truth),
        "truth_error": _error(lengths),
        "ratio": float(ratio),
        "ratio_error": _error(gaps - ratio * lengths) / float(truth),
        "pairs": len(gaps),
    }


def _chunk(pair: Trainable) -> int:
    """Pairs measured at a time."""
    return max(1, min(CHUNK, ENTRIES // pair.dim))


def _error(sample: Tensor) -> float:
    """The standard error of the mean."""
    return float(sample.std()) / math.sqrt(len(sample))


def _cosine(critic: nn.Module, pair: Pair, rng: torch.Generator) -> dict[str, float | None]:
    """The mean cosine of the critic's gradient to the potential's, where it has one; 0 where the critic is flat."""
    cosines = []
    for _ in range(COSINE_CHUNKS):
        x = pair.pair(_chunk(pair), rng)[0].double()
        truth = pair.gradient(x)
        known = truth.any(dim=1)
        if known.any():
            cosines.append(nn.functional.cosine_similarity(gradients(critic, x[known]), truth[known], dim=1))
    if not cosines:
        return {"cosine": None, "cosine_error": None}
    every = torch.cat(cosines)
    return {"cosine": float(every.mean()), "cosine_error": _error(every)}


def _ray_gradient_norm(critic: nn.Module, pair: Pair, rng: torch.Generator) -> float:
    x, y = pair.pair(_chunk(pair), rng)
    moved = (x != y).any(dim=1)
    x, y = x[moved].double(), y[moved].double()
    each = np.arange(len(x))
    return estimate_ray_gradient_norm(critic, x, y, Plan(each, each, np.full(len(x), 1 / len(x)), (len(x), len(x))))


Laws = TypeVar("Laws", bound=Trainable)


@dataclass(frozen=True)
class Case(Piece, Generic[Laws]):
    """One critic on one pair, from one seed.

    Attributes:
        labels: Among them `method`, by name, and `seed`.
        pair: The laws.
        method: The critic.
        seconds: Processor time of training.
        batch: Samples of each law per step.
    """

    pair: Laws
    method: Method
    seconds: float
    batch: int = BATCH

    def measured(self: Case[Pair]) -> dict[str, Any]:
        """Trains the critic."""
        return train_and_measure(
            self.method, self.pair, seconds=self.seconds, batch=self.batch, seed=self.labels["seed"]
        )

    def in_words(self, row: Mapping[str, Any]) -> str:
        if "failed" in row:
            return row["failed"]
        cosine = "none" if row["cosine"] is None else f"{row['cosine']:.4f}"
        return (
            f"cosine {cosine}, value {percent(row['ratio'])} of W1, Lip ≤ {row['lipschitz']:.7g}, {row['steps']} "
            f"steps, {row['seconds']:.0f} s"
        )

    def settings(self) -> dict[str, Any]:
        return {
            **self.labels,
            "pair": repr(self.pair),
            **self.method.settings(),
            "seconds": self.seconds,
            "batch": self.batch,
        }


def method_table(rows: Sequence[Mapping[str, Any]], above: Callable[[Mapping[str, Any]], bool] | None = None) -> str:
    """The means over all pairs and seeds, one line per method; for constants, and their excess, the largest.

    Arguments:
        rows: Rows from :func:`run_cases`.
        above: Whether a row's cosine is above the best published one, if there are published ones.
    """
    heads = ["critic", "guarantee", "cases", "cosine", *(["above the best published"] if above else [])]
    heads += ["value / W1", "certified / W1", "Lip ≤", "Lip ≤ over steepest slope", "gradient norm on rays", "steps"]
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        every = [row for row in rows if row["method"] == method]
        of = [row for row in every if "failed" not in row]
        cases = str(len(of)) if len(of) == len(every) else f"{len(of)} of {len(every)}"
        cells = [method, every[0]["guarantee"], cases]
        if of:
            cells += [number(mean_of(of, "cosine"), "{:.4f}"), *([str(sum(map(above, of)))] if above else [])]
            cells += [percent(mean_of(of, "ratio")), percent(mean_of(of, "certified_ratio"))]
            cells += [rounded_up(max(row["lipschitz"] for row in of), 7)]
            cells += [number(max((row["tightness"] for row in of if row["tightness"]), default=None), "{:.5g}")]
            cells += [number(mean_of(of, "ray_gradient_norm"), "{:.4f}"), number(mean_of(of, "steps"), "{:,.0f}")]
        lines.append(cells)
    return markdown_table(heads, lines)
