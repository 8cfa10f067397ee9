"""All scores of generated samples, each with the value that real samples reach in their place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from wgan_lip.data import Source
from wgan_lip.metrics.blurring import blurred
from wgan_lip.metrics.classifier import Classifier
from wgan_lip.metrics.excess import excess_over_floor
from wgan_lip.metrics.features import Features
from wgan_lip.metrics.inception import Inception, image_range
from wgan_lip.metrics.similarity import frechet_distance, kernel_distance, similarity
from wgan_lip.metrics.wavelets import frechet_wavelet_distance
from wgan_lip.utils.numbers import plus_minus, rounded
from wgan_lip.utils.printing import Printed, Row

__all__ = ["BLUR", "FRECHET_FROM", "Compared", "compare", "on_features"]

FRECHET_FROM = 10_000  # samples from which the bias of a Fréchet distance of features no longer hides differences
BLUR = 1.0  # standard deviation, in pixels, of the blur that a generator is compared with
WAVELET_SIDE = 8  # pixels below which images have no meaningful wavelet packets


@dataclass(frozen=True)
class Compared(Printed):
    """Scores of generated samples, and of as many real ones in their place.

    Attributes:
        values: Name of a score → its value between generated and held-out samples.
        floors: Name of a score → its value between reference and held-out samples, which are both real. A generator of
            their law reaches it in the mean; blurred or copied samples can beat it.
        blurs: Name of a score → its value between blurred real samples and held-out ones; only for features.
        errors: Name of a score → standard errors of its value and of its floor, if they are known.
        n: Samples in each of the three sets.
        extractor: What was scored: the samples, or features of a network with the hash of its weights.
    """

    values: dict[str, float]
    floors: dict[str, float]
    n: int
    extractor: str
    blurs: dict[str, float] = field(default_factory=dict)
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)

    def headline(self) -> str:
        return f"Scores of {self.n:,} generated samples, on {self.extractor}"

    def summary_rows(self) -> list[Row]:
        rows = []
        for name, value in self.values.items():
            errors = self.errors.get(name, (math.nan, math.nan))
            real = plus_minus(self.floors[name], errors[1]) if name in self.floors else "unknown"
            blur = f"; blurred: {rounded(self.blurs[name], 3)}" if name in self.blurs else ""
            rows.append(Row(name, plus_minus(value, errors[0]), f"real samples: {real}{blur}"))
        return rows


def compare(
    generated: Tensor,
    source: Source,
    *,
    neighbour: int | None = None,
    directions: int = 512,
    draws: int = 10,
    features: Features | None = None,
    inception: Inception | None = None,
    seed: int = 0,
) -> dict[str, Compared]:
    """Compares generated samples with as many held-out ones, and real training samples with the same.

    Arguments:
        generated: Samples, shape (n, d), on the CPU; n at most the number of held-out and of training samples.
        source: The source of the held-out and the reference samples.
        neighbour: The k of :func:`wgan_lip.metrics.neighbourhoods`; by default 5, or n − 1 if that is less.
        directions: Number of directions of the sliced distances.
        draws: Draws of the excess on features; see :func:`wgan_lip.metrics.excess_over_floor`.
        features: Features on which images are compared, too; see :func:`wgan_lip.metrics.features_of`.
        inception: The network for FID and KID.
        seed: Seed of the reference samples.

    Returns:
        `samples`, and, if available, `features` and `inception`. `features` of a classifier includes its
        :meth:`~wgan_lip.metrics.Classifier.reading` and, if samples carry labels, `as_labelled`: the share that it
        classifies as their label.

    Raises:
        InputError: Fewer than two samples or than `neighbour` needs, or unusable ones.
    """
    n = min(len(generated), len(source.test))
    test, reference, generated = source.test[:n], source.reference(n, seed), generated[:n]
    options = {"k": min(5, n - 1) if neighbour is None else neighbour, "directions": directions}
    shape = source.image_shape

    def both(
        score: Callable[[Tensor, Tensor], dict[str, float]], embed: Callable[[Tensor], Tensor], extractor: str
    ) -> Compared:
        at_test = embed(test)
        return Compared(score(embed(generated), at_test), score(embed(reference), at_test), n, extractor)

    def on_samples(x: Tensor, y: Tensor) -> dict[str, float]:
        wavelets = {}
        if shape is not None and min(shape[1:]) >= WAVELET_SIDE:
            wavelets = {"wavelet_frechet": frechet_wavelet_distance(x, y, shape)}
        return similarity(x, y, **options) | wavelets

    found = {"samples": both(on_samples, lambda samples: samples, "the samples")}
    if features is not None and shape is not None:
        third = n // 3  # three disjoint sets of real samples, and two of generated ones
        at_test, at_reference, at_generated, at_blurred = (
            features.embedded(samples) for samples in (test, reference, generated, blurred(reference, shape, BLUR))
        )
        values, floors, blurs = (on_features(x, at_test, **options) for x in (at_generated, at_reference, at_blurred))
        errors = {}
        if third > 0:
            excess = excess_over_floor(at_generated, at_test, at_reference, size=third, draws=draws, seed=seed)
            values["excess"], floors["excess"] = excess.excess, excess.real
            errors["excess"] = excess.error, excess.real_error
        if isinstance(features, Classifier):
            for scores, samples, at in ((values, generated, at_generated), (floors, reference, at_reference)):
                scores |= features.reading(at)
                if source.label_shares is not None:
                    scores["as_labelled"] = _as_labelled(samples, features.head(at), len(source.label_shares))
        found["features"] = Compared(values, floors, n, features.description, blurs, errors)
    if inception is not None:
        pixels = image_range(source)
        found["inception"] = both(
            lambda x, y: {"fid": frechet_distance(x, y), "kid": kernel_distance(x, y)},
            lambda samples: inception.embedded(samples, *pixels),
            f"Inception of 2015, weights {inception.weights_sha256}",
        )
    return found


def on_features(x: Tensor, y: Tensor, *, k: int = 5, directions: int = 512) -> dict[str, float]:
    """Scores of two sets of features, by name: KID, those of :func:`wgan_lip.metrics.similarity`, Fréchet from 10,000.

    Sliced W2 of features is known as MIND: MIND (Berthet et al., 2026), https://arxiv.org/abs/2605.06797.
    """
    scores = {"kid": kernel_distance(x, y), **similarity(x, y, k=k, directions=directions)}
    if min(len(x), len(y)) >= FRECHET_FROM:
        scores["frechet"] = frechet_distance(x, y)
    return scores


def _as_labelled(samples: Tensor, logits: Tensor, label_count: int) -> float:
    """The share of samples whose greatest logit, shape (n, classes), is that of the label they carry."""
    labels = samples[:, -label_count:].argmax(dim=1)
    return float((logits.argmax(dim=1) == labels).double().mean())
