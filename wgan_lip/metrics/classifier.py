"""A small classifier, trained here, whose features stand in for those of a large one, which would need a download."""

from __future__ import annotations

import hashlib
import math
import weakref
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wgan_lip.data import FiniteSource, Source
from wgan_lip.utils.checks import InputError

__all__ = ["Classifier", "trained_classifier"]

SURE = 0.9  # probability of a class from which a sample counts as read
LEARNING_RATE = 5e-3
"""Of Adam at first; it falls to 0. On MNIST 5,000 steps reach an accuracy of 0.990, where 2e-3 reaches 0.988."""

_TRAINED: weakref.WeakKeyDictionary[Source, dict[tuple[int, int, int], Classifier]] = weakref.WeakKeyDictionary()
"""Source → (steps, batch_size, seed) → what was trained."""


class Classifier(nn.Module):
    """Two or three convolutions and a hidden layer, (b, c·h·w) → (b, classes), on images of any size.

    Attributes:
        accuracy: Share of held-out images that it classifies correctly; NaN before training.
        class_count: Number of classes.
    """

    def __init__(self, image_shape: tuple[int, int, int], class_count: int, width: int = 64) -> None:
        super().__init__()
        channels, *size = image_shape
        self.image_shape, self.class_count, self.accuracy = tuple(image_shape), class_count, float("nan")
        layers: list[nn.Module] = []
        for after in (16, 32):
            layers += [nn.Conv2d(channels, after, 3, padding=1), nn.ReLU()]
            if min(size) >= 8:
                layers.append(nn.MaxPool2d(2))
                size = [pixels // 2 for pixels in size]
            channels = after
        layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, width), nn.ReLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(width, class_count)

    def features(self, samples: Tensor) -> Tensor:
        """Inputs of the last layer, shape (b, width), for samples (b, c·h·w); labels after the pixels are not read."""
        return self.body(samples[:, : math.prod(self.image_shape)].unflatten(1, self.image_shape))

    def forward(self, samples: Tensor) -> Tensor:
        return self.head(self.features(samples))

    @torch.no_grad()
    def embedded(self, samples: Tensor, batch: int = 500) -> Tensor:
        """:meth:`features` for many samples, shape (n, width), without gradients."""
        return torch.cat([self.features(part) for part in samples.split(batch)])

    @torch.no_grad()
    def reading(self, features: Tensor) -> dict[str, float]:
        """Shares of samples, from their features, shape (n, width).

        Returns:
            `read`, the share whose class has a probability of at least 0.9, and `rarest_class` and `commonest_class`,
            the shares of the classes that fewest and most samples are taken for.
        """
        probabilities = self.head(features).softmax(dim=1)  # (n, classes)
        shares = probabilities.argmax(dim=1).bincount(minlength=self.class_count) / len(features)
        read = (probabilities.amax(dim=1) >= SURE).double().mean()
        return {"read": float(read), "rarest_class": float(shares.min()), "commonest_class": float(shares.max())}

    @property
    def description(self) -> str:
        """A description in words, with its accuracy and the hash of its weights."""
        return f"classifier of accuracy {self.accuracy:.3f}, weights {self.weights_sha256}"

    @property
    def weights_sha256(self) -> str:
        """A hash of the weights, to tell whether two scores used the same classifier."""
        content = b"".join(parameter.detach().cpu().numpy().tobytes() for parameter in self.parameters())
        return hashlib.sha256(content).hexdigest()


def trained_classifier(source: Source, *, steps: int = 400, batch_size: int = 128, seed: int = 0) -> Classifier | None:
    """A classifier of a source's labels, trained on its training images on the CPU, once per process and source.

    Equal for equal source, arguments and number of threads. It takes seconds: it need not be good, as long as its
    features tell apart what pixels do not.

    Arguments:
        source: Images with labels.
        steps: Steps of Adam.
        batch_size: Images per step.
        seed: Seed of weights and batches.

    Returns:
        The classifier, or None if `source` has no labelled images.

    Raises:
        InputError: `steps` or `batch_size` below 1.
    """
    if min(steps, batch_size) < 1:
        raise InputError(f"steps and batch_size must be at least 1, not {steps} and {batch_size}.")
    if not isinstance(source, FiniteSource) or source.image_shape is None or source.train_labels is None:
        return None
    known = _TRAINED.setdefault(source, {})
    settings = steps, batch_size, seed
    if settings not in known:
        known[settings] = _train(source, *settings)
    return known[settings]


def _train(source: FiniteSource, steps: int, batch_size: int, seed: int) -> Classifier:
    shape, labels, held_out = source.image_shape, source.train_labels, source.test_labels
    assert shape is not None and labels is not None and held_out is not None  # as :func:`trained_classifier` asks
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = Classifier(shape, int(max(labels.max(), held_out.max())) + 1)
    optimizer = torch.optim.Adam(classifier.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    with torch.enable_grad():
        for index in _batches(len(labels), steps, batch_size, seed):
            loss = F.cross_entropy(classifier(source.rows(index).cpu()), labels[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    classifier.requires_grad_(False)
    guesses = torch.cat([classifier(part).argmax(dim=1) for part in source.test.split(500)])
    classifier.accuracy = float((guesses == held_out).double().mean())
    return classifier


def _batches(n: int, steps: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield torch.randint(n, (batch_size,), generator=rng)
