"""All scores of generated samples, each beside its floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from wgan_lip import transport
from wgan_lip.data import Source
from wgan_lip.metrics.classifier import Classifier
from wgan_lip.metrics.inception import Inception, image_range
from wgan_lip.metrics.similarity import frechet_distance, kernel_distance, similarity

__all__ = ["Compared", "compare"]


@dataclass(frozen=True)
class Compared:
    """Scores of generated samples, and of as many real ones in their place.

    Attributes:
        values: Name of a score → its value between generated and held-out samples.
        floors: Name of a score → its value between reference and held-out samples, which are both real. No generator is
            expected to be better: below for distances, above for precision, recall, density and coverage.
        n: Samples of each of the three sets.
        extractor: What the scores were taken on: the samples, or features of a network with the hash of its weights.
    """

    values: dict[str, float]
    floors: dict[str, float]
    n: int
    extractor: str


def compare(
    generated: Tensor,
    source: Source,
    *,
    neighbour: int | None = None,
    directions: int = 512,
    classifier: Classifier | None = None,
    inception: Inception | None = None,
    seed: int = 0,
) -> dict[str, Compared]:
    """Compares generated samples with as many held-out ones, and real samples of the training law likewise.

    Arguments:
        generated: Samples, shape (n, d), on the CPU; n at most the number of held-out and of training samples.
        source: Gives the held-out and the reference samples.
        neighbour: The k of :func:`wgan_lip.metrics.neighbourhoods`; by default 5, or n − 1 where that is less.
        directions: Of the sliced distances.
        classifier: Whose features are compared too; see :func:`wgan_lip.metrics.trained_classifier`.
        inception: For FID and KID.
        seed: Of the reference samples.

    Returns:
        `samples`, and where there is what it takes `features` and `inception`. Where samples carry labels, `features`
        has `as_labelled` too: the share that the classifier reads as their label.

    Raises:
        InputError: Fewer than two samples or than `neighbour` asks for, or unusable ones.
    """
    n = min(len(generated), len(source.test))
    test, reference, generated = source.test[:n], source.reference(n, seed), generated[:n]
    options = {"k": min(5, n - 1) if neighbour is None else neighbour, "directions": directions}

    def both(
        score: Callable[[Tensor, Tensor], dict[str, float]], embed: Callable[[Tensor], Tensor], extractor: str
    ) -> Compared:
        at_test = embed(test)
        return Compared(score(embed(generated), at_test), score(embed(reference), at_test), n, extractor)

    found = {"samples": both(lambda x, y: similarity(x, y, **options), lambda samples: samples, "the samples")}
    if classifier is not None:
        name = f"classifier of accuracy {classifier.accuracy:.3f}, weights {classifier.weights_sha256}"

        def on_features(x: Tensor, y: Tensor) -> dict[str, float]:
            exact = {"w1": transport.solve(x, y).value, "frechet": frechet_distance(x, y)}
            return exact | similarity(x, y, **options)

        found["features"] = both(on_features, classifier.embedded, name)
        if source.label_shares is not None:
            count = len(source.label_shares)
            found["features"].values["as_labelled"] = _as_labelled(generated, classifier, count)
            found["features"].floors["as_labelled"] = _as_labelled(reference, classifier, count)
    if inception is not None:
        pixels = image_range(source)
        found["inception"] = both(
            lambda x, y: {"fid": frechet_distance(x, y), "kid": kernel_distance(x, y)},
            lambda samples: inception.embedded(samples, *pixels),
            f"Inception of 2015, weights {inception.weights_sha256}",
        )
    return found


def _as_labelled(samples: Tensor, classifier: Classifier, label_count: int) -> float:
    """The share of samples that the classifier reads as the label they carry."""
    labels = samples[:, -label_count:].argmax(dim=1)
    return float((classifier.head(classifier.embedded(samples)).argmax(dim=1) == labels).double().mean())
