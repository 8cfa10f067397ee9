"""The final scores of a run: its interval, its excess over the floor, and how good its critic is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor

from wgan_lip.data import FiniteSource, Source
from wgan_lip.lipschitz.adversary import estimate_lipschitz
from wgan_lip.lipschitz.certificates import prove
from wgan_lip.metrics import (
    Floor,
    Inception,
    Pool,
    blurred,
    check_features,
    compare,
    features_of,
    memorisation,
    mode_coverage,
    real_pools,
)
from wgan_lip.metrics.inception import image_range
from wgan_lip.metrics.memorisation import LEAST
from wgan_lip.metrics.scores import BLUR
from wgan_lip.runs.run import Run
from wgan_lip.training.refitting import keeps_up
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError
from wgan_lip.wasserstein.dual import fitted
from wgan_lip.wasserstein.interval import bracket, estimate_ray_gradient_norm

__all__ = ["check_scoring", "score_run"]

FIT = 4096  # fresh samples of each law to which a copy of the critic is refitted


def check_scoring(
    source: Source,
    *,
    size: int = 2000,
    repeats: int = 10,
    fit_steps: int = 300,
    neighbour: int | None = None,
    directions: int = 512,
    features: str | None = "classifier",
    classifier_steps: int = 400,
    inception_weights: str | None = None,
) -> None:
    """Refuses settings that :func:`score_run` could not use on `source`, so that no run is played in vain.

    Raises:
        InputError: A count that is too small, a neighbour beyond the samples, more samples than `source` has for
            training, or features or weights of Inception that cannot be used.
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
    check_features(features, source)
    if inception_weights is not None:
        image_range(source)
        Inception(inception_weights)


def score_run(
    run: Run,
    source: Source,
    *,
    size: int = 2000,
    repeats: int = 10,
    fit_steps: int = 300,
    neighbour: int | None = None,
    directions: int = 512,
    features: str | None = "classifier",
    classifier_steps: int = 400,
    inception_weights: str | None = None,
) -> dict[str, Any]:
    """Scores a run as it lies on disk, on the CPU.

    Arguments:
        run: The run.
        source: Its data.
        size: Samples n of each law, at most the test set.
        repeats: Draws of generated and of real samples in the excess over the floor.
        fit_steps: Ascents of a copy of the critic on the evaluated samples, which closes the interval from below, and
            of one on fresh samples, which tells whether the critic kept up; 0 for none.
        neighbour: Whose distance is the radius of a neighbourhood, below n; see :func:`wgan_lip.metrics.compare`.
        directions: Of the sliced distances.
        features: What images are scored on, too: `classifier`, `lite0`, a file of weights, or None; see
            :func:`wgan_lip.metrics.features_of`.
        classifier_steps: Training steps of the classifier; 0 for none.
        inception_weights: A weights file, for FID and KID; see :class:`wgan_lip.metrics.Inception`.

    Returns:
        Plain data: `interval` (lower, upper, exact, n, dim, and lower_as_trained, the trained critic's own bound),
        `score`, the headline (see :class:`wgan_lip.metrics.Excess`), of images with `blurred`, the excess of blurred
        real ones in the generator's place; `scores` (see :func:`wgan_lip.metrics.compare`); `modes` or None;
        `memorisation` where there is a training set; `critic` (see :class:`wgan_lip.training.refitting.HeldOut`) where
        `fit_steps` is not 0; `lipschitz`, `guarantee`, `largest_gradient_found`, `ray_gradient_norm`.

    Raises:
        InputError: See :func:`check_scoring`.
        wgan_lip.wasserstein.interval.InvariantViolation: A certified lower bound above the exact value.
    """
    check_scoring(
        source, size=size, repeats=repeats, fit_steps=fit_steps, neighbour=neighbour, directions=directions,
        features=features, classifier_steps=classifier_steps,
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
        draws=repeats,
        features=features_of(features, source, classifier_steps=classifier_steps),
        inception=None if inception_weights is None else Inception(inception_weights),
    )
    return {
        "interval": {
            "lower": best.lower, "exact": best.exact, "upper": best.upper, "lower_as_trained": trained.lower,
            "n": best.n, "dim": best.dim,
        },
        "score": _headline(run, source, size, repeats),
        "scores": {space: asdict(compared) for space, compared in scores.items()},
        "modes": coverage,
        **_copies(source, generated),
        **(_kept_up(run, source, generated, fit_steps) if fit_steps > 0 else {}),
        "lipschitz": proof.certificate.lipschitz,
        "guarantee": getattr(run.critic, "guarantee", "not certified"),
        "largest_gradient_found": estimate_lipschitz(run.critic, test),
        "ray_gradient_norm": estimate_ray_gradient_norm(run.critic, test, generated, transport.plan),
    }  # fmt: skip


def _headline(run: Run, source: Source, size: int, draws: int) -> dict[str, Any]:
    """The excess of the generator and of real samples, and that of blurred ones by two draws."""
    size = min(size, len(source.test))
    test, real = real_pools(source, size)
    floor = Floor(test, real, size=size, draws=draws)
    score = floor.excess(Pool(lambda n, seed: run.sample(n, seed=seed)))
    shape = source.image_shape
    if shape is not None and (real.size is None or real.size >= 2 * floor.n):
        images = Pool(lambda n, seed: blurred(real.take(n, seed, seed=1), shape, BLUR))
        return {**score.as_dict(), "blurred": floor.excess(images, draws=2).excess}
    return score.as_dict()


def _copies(source: Source, generated: Tensor) -> dict[str, Any]:
    """How many samples are copies of training samples; nothing where these are endless, or too few are held out."""
    if not isinstance(source, FiniteSource) or len(source.test) < LEAST:
        return {}
    return {"memorisation": asdict(memorisation(generated, source.train, source.test))}


def _kept_up(run: Run, source: Source, generated: Tensor, steps: int) -> dict[str, Any]:
    fresh = real_pools(source, len(generated))[1].most(FIT, seed=1), run.sample(FIT, seed=1)
    return {"critic": asdict(keeps_up(run.critic, fresh, (source.test[: len(generated)], generated), steps=steps))}
