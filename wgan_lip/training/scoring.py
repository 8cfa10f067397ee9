"""The final scores of a run: its interval, its excess over the floor, and the quality of its critic."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from wgan_lip.data import FiniteSource, Source
from wgan_lip.lipschitz.adversary import estimate_lipschitz
from wgan_lip.lipschitz.certificates import prove
from wgan_lip.lipschitz.layers.base import kept_by_training
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
from wgan_lip.transport import BYTES_PER_PAIR, solve
from wgan_lip.utils.checks import InputError, check_memory
from wgan_lip.utils.settings import Settings, at_least
from wgan_lip.wasserstein.dual import fitted
from wgan_lip.wasserstein.interval import bracket, estimate_ray_gradient_norm

__all__ = ["Evaluation", "score_run"]

FIT = 4096  # fresh samples of each law on which a copy of the critic is refitted


@dataclass(frozen=True, kw_only=True)
class Evaluation(Settings):
    """How a run is scored at its end.

    Attributes:
        size: Samples n of each law, at most the size of the test set.
        repeats: Draws of generated and of real samples in the excess over the floor.
        fit_steps: Training steps of a copy of the critic on the evaluated samples, which raises the lower end of the
            interval, and of one on fresh samples, which shows whether the critic kept up; 0 for none.
        neighbour: The k, below n, whose k-th nearest neighbour sets the radius of a neighbourhood; see
            :func:`wgan_lip.metrics.compare`. None: 5, or fewer if there are not as many.
        directions: Number of random lines of the sliced distances.
        features: A network on whose features images are also scored: `classifier`, `lite0`, a file of weights, or
            None; see :func:`wgan_lip.metrics.features_of`.
        classifier_steps: Training steps of the classifier; 0 for none.
        inception_weights: A weights file, for FID and KID; see :class:`wgan_lip.metrics.Inception`.
    """

    size: int = at_least(2, 2000)
    repeats: int = at_least(1, 10, most=10_000)
    fit_steps: int = at_least(0, 300, most=10_000_000)
    neighbour: int | None = at_least(1, None)
    directions: int = at_least(1, 512, most=1_000_000)
    features: str | None = "classifier"
    classifier_steps: int = at_least(0, 400, most=10_000_000)
    inception_weights: str | None = None

    def check(self, source: Source) -> None:
        """Refuses what :func:`score_run` could not use on `source`, so that no run is trained in vain.

        Raises:
            InputError: `neighbour` is not below the number of samples, `source` has too few samples for training or W1
                of them takes too much memory, or features or weights of Inception cannot be used.
        """
        samples = len(source.test[: self.size])
        if self.neighbour is not None and self.neighbour >= samples:
            raise InputError(
                f"`neighbour` must be below the number of samples, {samples}, not {self.neighbour}. "
                "Lower it, or raise `size`."
            )
        try:
            source.reference(samples, seed=0)
        except InputError as error:
            raise InputError(f"{error} Lower `size`, or the size of the test set.") from None
        check_features(self.features, source)
        if source.dim > 1:
            need = BYTES_PER_PAIR * samples**2
            check_memory(need, f"W1 between {samples} and {samples} samples", "Lower `size`.")
        if self.inception_weights is not None:
            image_range(source)
            Inception(self.inception_weights)


def score_run(run: Run, source: Source, evaluation: Evaluation = Evaluation()) -> dict[str, Any]:
    """Scores a run on disk, on the CPU.

    Arguments:
        run: The run.
        source: Its data.
        evaluation: The number of samples, and which scores.

    Returns:
        Plain data: `interval` (lower, upper, exact, n, dim, and lower_as_trained, the trained critic's bound);
        `score`, the headline (see :class:`wgan_lip.metrics.Excess`), for images with `blurred`, the excess of blurred
        real images in the generator's place; `scores` (see :func:`wgan_lip.metrics.compare`); `modes` or None;
        `memorisation` if there is a training set; `critic` (see :class:`wgan_lip.training.refitting.HeldOut`) if
        `fit_steps` is not 0; `lipschitz`, `guarantee`, `largest_gradient_found`, `ray_gradient_norm`.

    Raises:
        InputError: See :meth:`Evaluation.check`.
        wgan_lip.wasserstein.interval.InvariantViolation: A certified lower bound above the exact value.
    """
    evaluation.check(source)
    fit_steps, weights = evaluation.fit_steps, evaluation.inception_weights
    test = source.test[: evaluation.size]
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
        neighbour=evaluation.neighbour,
        directions=evaluation.directions,
        draws=evaluation.repeats,
        features=features_of(evaluation.features, source, classifier_steps=evaluation.classifier_steps),
        inception=None if weights is None else Inception(weights),
    )
    return {
        "interval": {
            "lower": best.lower, "exact": best.exact, "upper": best.upper, "lower_as_trained": trained.lower,
            "n": best.n, "dim": best.dim,
        },
        "score": _headline(run, source, evaluation.size, evaluation.repeats),
        "scores": {space: asdict(compared) for space, compared in scores.items()},
        "modes": coverage,
        **_copies(source, generated),
        **(_kept_up(run, source, generated, fit_steps) if fit_steps > 0 else {}),
        "lipschitz": proof.certificate.lipschitz,
        "guarantee": kept_by_training(run.critic),
        "largest_gradient_found": estimate_lipschitz(run.critic, test),
        "ray_gradient_norm": estimate_ray_gradient_norm(run.critic, test, generated, transport.plan),
    }  # fmt: skip


def _headline(run: Run, source: Source, size: int, draws: int) -> dict[str, Any]:
    """The excess of the generator and of real samples, and from two draws that of blurred images."""
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
    """The share of copied training samples; empty if training samples are endless, or too few are held out."""
    if not isinstance(source, FiniteSource) or len(source.test) < LEAST:
        return {}
    return {"memorisation": asdict(memorisation(generated, source.train, source.test))}


def _kept_up(run: Run, source: Source, generated: Tensor, steps: int) -> dict[str, Any]:
    fresh = real_pools(source, len(generated))[1].most(FIT, seed=1), run.sample(FIT, seed=1)
    return {"critic": asdict(keeps_up(run.critic, fresh, (source.test[: len(generated)], generated), steps=steps))}
