"""Which samples of an estimate serve for what: draws from laws, and splits of samples into separate parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wgan_lip.data import Law
from wgan_lip.transport import Problem
from wgan_lip.utils.checks import check_weights
from wgan_lip.utils.numbers import rounded

__all__ = ["FEWEST", "MOST", "Sides", "divided", "told_of_laws", "told_of_samples", "told_of_weights"]

SPLIT = (0.5, 0.2)  # shares of the samples that train the critic and that choose it; the rest bounds the laws
FEWEST, MOST = 10, 10**6  # samples worth splitting; from more than the most, some are drawn
RANGES = 50.0  # ratio of the ranges of two sides above which their units are doubted
COUNTING = 10  # rows from which a column that counts them is doubted


@dataclass(frozen=True, eq=False)
class Sides:
    """Which samples serve for what, P first and Q second in every pair.

    Attributes:
        x, y: The samples that the interval is about, shapes (n, d) and (m, d).
        train: What trains the critic: samples, or, if they can be drawn without end, functions of n and a generator.
        validation: Samples that choose it.
        clip: Samples that fix its range for the bounds on the laws.
        test: Samples that bound the laws; None if none could be held out.
        diameters: Diameters of the supports, None if unknown.
        unbounded: Why there are no bounds on the laws, in a sentence; empty if there may be.
    """

    x: Tensor
    y: Tensor
    train: tuple[Any, Any]
    validation: tuple[Tensor, Tensor]
    clip: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor] | None
    diameters: tuple[float | None, float | None]
    unbounded: tuple[str, ...]


def divided(
    x: Tensor | Law,
    y: Tensor | Law,
    a: Tensor | ArrayLike | None,
    b: Tensor | ArrayLike | None,
    samples: int,
    diameters: tuple[float | None, float | None],
    seed: int,
) -> Sides:
    """Draws from laws, and splits checked samples."""
    given, weights, unbounded = (x, y), (a, b), []
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
        unbounded.append(f"There are no bounds on W1 of the laws: {why}.")
    known_x, known_y = (
        source.diameter if diameter is None and isinstance(source, Law) else diameter
        for source, diameter in zip(given, diameters)
    )
    x, y = (samples_of.detach().cpu() for samples_of in rows)
    pairs = (train_x, train_y), (validation_x, validation_y), (clip_x, clip_y)
    return Sides(x, y, *pairs, tests, (known_x, known_y), tuple(unbounded))


def told_of_laws(given: tuple[Tensor | Law, Tensor | Law], problem: Problem) -> tuple[str, ...]:
    """Notes on the laws P and Q that the reader might not expect."""
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
                f"{repeated:,} of the {len(side.samples):,} samples of {name} repeat another one, and count as "
                "separate draws. If they are copies, the confidence is void: leave the copies out."
            )
    return tuple(told)


def told_of_samples(x: Tensor, y: Tensor) -> Iterator[str]:
    """Likely mistakes in samples x (n, d) and y (m, d): units that differ, a column that counts the rows."""
    ranges = [float(side.max()) - float(side.min()) for side in (x, y)]
    if min(ranges) > 0 and max(ranges) > RANGES * min(ranges):
        (a, b), (c, d) = ((rounded(float(end), 4) for end in (side.min(), side.max())) for side in (x, y))
        yield f"x lies between {a} and {b}, y between {c} and {d}: check that both are in the same units."
    for name, side in zip("xy", (x, y)):
        if side.shape[1] > 1 and len(side) >= COUNTING:
            rows = torch.arange(len(side), dtype=side.dtype, device=side.device)
            for column in (side[1] - side[0] == 1).nonzero().flatten().tolist():
                if (side[:, column] - side[0, column]).equal(rows):
                    first = rounded(float(side[0, column]), 6)
                    what = f"Column {column + 1} of {name} counts its rows from {first} on"
                    yield f"{what}. If it is an index, leave it out: it is compared as data."


def told_of_weights(weights: tuple[Tensor | ArrayLike | None, ...], sizes: tuple[int, ...]) -> Iterator[str]:
    """Notes on weights that are not probabilities, such as counts."""
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
    """Independent streams for the two sides: from one stream, draws of an oracle's two laws would be paired."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, side]).generate_state(1)[0]))
