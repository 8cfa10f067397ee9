"""The final scores of a run: its interval, its exact score over the floor, its critic's tightness."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from wgan_lip.data import Source
from wgan_lip.lipschitz.adversary import estimate_lipschitz
from wgan_lip.lipschitz.certificates import prove
from wgan_lip.metrics import Inception, compare, mode_coverage, trained_classifier, w1_over_floor
from wgan_lip.metrics.inception import image_range
from wgan_lip.runs.run import Run
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError
from wgan_lip.wasserstein.dual import fitted
from wgan_lip.wasserstein.interval import bracket, estimate_ray_gradient_norm

__all__ = ["check_scoring", "score_run"]


def check_scoring(
    source: Source,
    *,
    size: int = 2000,
    repeats: int = 5,
    fit_steps: int = 300,
    neighbour: int | None = None,
    directions: int = 512,
    classifier_steps: int = 400,
    inception_weights: str | None = None,
) -> None:
    """Refuses settings that :func:`score_run` could not use on `source`, so that no run is played in vain.

    Raises:
        InputError: A count that is too small, a neighbour beyond the samples, more samples than `source` has for
            training, or weights of Inception that cannot be used.
    """
    counts = {
        "size": (size, 2), "repeats": (repeats, 1), "fit_steps": (fit_steps, 0),
        "neighbour": (1 if neighbour is None else neighbour, 1), "directions": (directions, 1),
        "classifier_steps": (classifier_steps, 0),
    }  # fmt: skip
    for name, (value, least) in counts.items():
        if value < least:
            raise InputError(f"Expected `{name}` of at least {least}. Got {value}.")
    if neighbour is not None and neighbour >= (samples := len(source.test[:size])):
        raise InputError(
            f"Expected `neighbour` below the number of samples, {samples}. Got {neighbour}. Lower it, or raise `size`."
        )
    try:
        source.reference(len(source.test[:size]), seed=0)
    except InputError as error:
        raise InputError(f"{error} Lower `size`, or the size of the test set.") from None
    if inception_weights is not None:
        image_range(source)
        Inception(inception_weights)


def score_run(
    run: Run,
    source: Source,
    *,
    size: int = 2000,
    repeats: int = 5,
    fit_steps: int = 300,
    neighbour: int | None = None,
    directions: int = 512,
    classifier_steps: int = 400,
    inception_weights: str | None = None,
) -> dict[str, Any]:
    """Scores a run as it lies on disk, on the CPU.

    Arguments:
        run: The run.
        source: Its data.
        size: Samples n of each law, at most the test set.
        repeats: Draws of generated and of real samples in the score over the floor.
        fit_steps: Ascents of a copy of the critic on the evaluated samples, which closes the interval from below;
            0 for none.
        neighbour: Whose distance is the radius of a neighbourhood, below n; see :func:`wgan_lip.metrics.compare`.
        directions: Of the sliced distances.
        classifier_steps: Training steps of the classifier on whose features labelled images are scored too; 0 for none.
        inception_weights: A weights file, for FID and KID; see :class:`wgan_lip.metrics.Inception`.

    Returns:
        Plain data: `interval` (lower, upper, exact, n, dim, and lower_as_trained, the trained critic's own bound),
        `score` (see :class:`wgan_lip.metrics.ScoreOverFloor`), `scores` (see :func:`wgan_lip.metrics.compare`), `modes`
        or None, `lipschitz`, `guarantee`,
        `largest_gradient_found`, `ray_gradient_norm`.

    Raises:
        InputError: See :func:`check_scoring`.
        wgan_lip.wasserstein.interval.InvariantViolation: A certified lower bound above the exact value.
    """
    check_scoring(
        source, size=size, repeats=repeats, fit_steps=fit_steps, neighbour=neighbour, directions=directions,
        classifier_steps=classifier_steps,
    )  # fmt: skip
    test = source.test[:size]
    generated = run.sample(len(test), seed=0)
    proof = prove(run.critic)
    transport = solve(test, generated)
    trained = bracket(proof, test, generated, transport=transport)
    best = trained
    if fit_steps > 0:
        candidate = bracket(fitted(run.critic, test, generated, steps=fit_steps), test, generated, transport=transport)
        best = max(trained, candidate, key=lambda interval: interval.lower)
    coverage = None
    if source.modes is not None and source.mode_std is not None:
        coverage = asdict(mode_coverage(generated, source.modes, source.mode_std))
    scores = compare(
        generated,
        source,
        neighbour=neighbour,
        directions=directions,
        classifier=trained_classifier(source, steps=classifier_steps) if classifier_steps > 0 else None,
        inception=None if inception_weights is None else Inception(inception_weights),
    )
    return {
        "interval": {
            "lower": best.lower, "exact": best.exact, "upper": best.upper, "lower_as_trained": trained.lower,
            "n": best.n, "dim": best.dim,
        },
        "score": asdict(w1_over_floor(lambda n, seed: run.sample(n, seed=seed), source, size=size, repeats=repeats)),
        "scores": {space: asdict(compared) for space, compared in scores.items()},
        "modes": coverage,
        "lipschitz": proof.certificate.lipschitz,
        "guarantee": getattr(run.critic, "guarantee", "not certified"),
        "largest_gradient_found": estimate_lipschitz(run.critic, test),
        "ray_gradient_norm": estimate_ray_gradient_norm(run.critic, test, generated, transport.plan),
    }  # fmt: skip
