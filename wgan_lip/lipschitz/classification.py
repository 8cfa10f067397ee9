"""Classifiers whose answers are proved to hold within a radius: one potential per class, on one proved body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wgan_lip.lipschitz.certificates import Proof, prove
from wgan_lip.utils.checks import InputError, check_samples
from wgan_lip.utils.printing import Printed, Row

__all__ = ["CertifiedAccuracy", "certified_accuracy", "hinge", "hinge_kr"]

_MOVES = {"max": 2.0, "Euclidean": 2**0.5}  # a difference of two scores, over what all of them move by in this norm
_ROUNDING = 1e-15  # relative, of a difference or a product in float64, and more


def hinge(scores: Tensor, labels: Tensor, margin: float = 1.0) -> Tensor:
    r"""The multi-class hinge loss, a scalar.

    .. math:: \frac1b \sum_i \max\bigl(0,\; m - f_{y_i}(x_i) + \max_{j \ne y_i} f_j(x_i)\bigr)

    For 1-Lipschitz f_j it is zero where all answers hold within the radius m/2.

    Arguments:
        scores: f(x), one column per class, shape (b, k), k ≥ 2.
        labels: y, integers from 0 to k − 1, shape (b,).
        margin: m, in the units of the samples.

    References:
        On the algorithmic implementation of multiclass kernel-based vector machines (Crammer, Singer, 2001)
    """
    own, best = _own_and_best_other(scores, labels)
    return (margin - own + best).clamp(min=0).mean()


def hinge_kr(scores: Tensor, labels: Tensor, margin: float = 1.0, weight: float = 10.0) -> Tensor:
    r"""The hinge loss less the KR dual values of every class against the others, a scalar.

    .. math:: w \operatorname{hinge}_m(f, y)
              - \frac1k \sum_j \bigl( E[f_j(x) \mid y = j] - E[f_j(x) \mid y \ne j] \bigr)

    The dual values push samples as far from the boundary as they can go, where the hinge is satisfied with m/2. A class
    without samples in the batch, or with all of them, is left out.

    Arguments:
        scores, labels, margin: See :func:`hinge`.
        weight: w.

    References:
        Achieving robustness in classification using optimal transport with hinge regularization (Serrurier, Mamalet,
        González-Sanz, Boissin, Loubes, del Barrio, 2021), the multi-class loss
    """
    own = torch.nn.functional.one_hot(labels.long(), scores.shape[1]).to(scores)  # (b, k)
    counts = own.sum(dim=0)
    others = len(own) - counts
    inside = (scores * own).sum(dim=0) / counts.clamp(min=1)
    outside = (scores * (1 - own)).sum(dim=0) / others.clamp(min=1)
    values = (inside - outside)[(counts > 0) & (others > 0)]
    return weight * hinge(scores, labels, margin) - values.sum() / scores.shape[1]


@dataclass(frozen=True, repr=False)
class CertifiedAccuracy(Printed):
    """How many samples a classifier labels correctly, and for how many no change within a radius alters that.

    Attributes:
        n: Number of samples.
        correct: How many are labelled correctly, in real arithmetic.
        radii: Euclidean, in the units of the samples as the classifier receives them.
        certified: For each radius, how many are labelled correctly at every point within it.
        lipschitz: The certified constant, of each score or of all together.
    """

    n: int
    correct: int
    radii: tuple[float, ...]
    certified: tuple[int, ...]
    lipschitz: float

    def headline(self) -> str:
        return f"A classifier on {self.n:,} samples"

    def summary_rows(self) -> list[Row]:
        shares = [
            Row(f"Within {radius:g}", f"{count / self.n:.2%}", "certified: no change up to that norm alters these")
            for radius, count in zip(self.radii, self.certified)
        ]
        return [Row("Accuracy", f"{self.correct / self.n:.2%}", f"{self.correct:,} of {self.n:,}"), *shares]


def certified_accuracy(
    classifier: nn.Module | Proof, x: Tensor, labels: Tensor, *, radii: Sequence[float] = (0.1,)
) -> CertifiedAccuracy:
    r"""The accuracy of a classifier, and a lower bound on its accuracy under any perturbation of a given norm.

    Within radius r, the margin :math:`f_y(x) - \max_{j \ne y} f_j(x)` changes by at most 2 L r if each score has
    constant L, as the heads of a critic do, and by √2 L r if all together have it in the Euclidean norm. A larger
    margin keeps its sign.

    Arguments:
        classifier: With k ≥ 2 scores, such as `ResNetCritic(d, heads=k)`; layers that :func:`wgan_lip.certify` proves.
        x: Samples, shape (n, d).
        labels: Integers from 0 to k − 1, shape (n,).
        radii: Radii r ≥ 0.

    Raises:
        InputError: Samples that are not finite; labels that are not of shape (n,) or not among the classes; a negative
            radius; a classifier with one score, or one proved in other norms.
        UncertifiableError: A layer that cannot be proved.

    Guarantee:
        Every sample counted in `certified` is labelled correctly at every point within the radius, in real arithmetic,
        for the stored weights; rounding is accounted for. Perturbations in other norms, and samples that were not
        given, are not covered.

    References:
        Lipschitz-margin training (Tsuzuku, Sato, Sugiyama, 2018), Proposition 1, for all scores together

    Example:
        >>> from wgan_lip.critics import ResNetCritic
        >>> classifier, x = ResNetCritic(2, heads=3), torch.zeros(4, 2)
        >>> answers = classifier(x).argmax(dim=1)
        >>> certified_accuracy(classifier, x, answers, radii=[1e6]).certified
        (0,)
    """
    x = check_samples(x, "x")
    if not all(radius >= 0 for radius in radii):
        raise InputError(f"radii must be at least 0, not {list(radii)}.")
    proof = prove(classifier)
    certificate = proof.certificate
    kind = certificate.norm_out.partition("(")[0]
    if not certificate.norm_in.startswith("Euclidean") or kind not in _MOVES:
        raise InputError(
            f"Certified radii need a map from a Euclidean norm to a maximum or Euclidean norm of scores, not from "
            f"{certificate.norm_in} to {certificate.norm_out}. Give the critic heads: ResNetCritic(d, heads=k)."
        )
    found = proof.evaluate(x)
    labels = _checked(labels, found.values)
    own, best = _own_and_best_other(found.values, labels)
    margin = own - best
    margin = margin - 2 * found.error - _ROUNDING * (own.abs() + best.abs())
    moves = _MOVES[kind] * certificate.lipschitz * (1 + _ROUNDING)  # for each unit of the radius
    held = [int((margin > moves * radius).sum()) for radius in radii]
    correct = int((margin > 0).sum())
    return CertifiedAccuracy(len(x), correct, tuple(map(float, radii)), tuple(held), certificate.lipschitz)


def _own_and_best_other(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The score of each sample's own class and the greatest of the others, shape (b,) each."""
    index = labels.long()[:, None]
    own = scores.gather(1, index)[:, 0]
    return own, scores.scatter(1, index, -torch.inf).amax(dim=1)


def _checked(labels: Tensor, scores: Tensor) -> Tensor:
    if scores.ndim != 2:
        raise InputError("A classifier needs at least two scores, not one. Give it heads=k, one for each class.")
    labels = torch.as_tensor(labels).cpu()
    if labels.shape != scores.shape[:1]:
        raise InputError(f"labels must have shape ({len(scores)},), one for each sample, not {tuple(labels.shape)}.")
    classes = scores.shape[1]
    if labels.is_floating_point() or not bool(((labels >= 0) & (labels < classes)).all()):
        raise InputError(f"labels must be integers from 0 to {classes - 1}, one for each score.")
    return labels
