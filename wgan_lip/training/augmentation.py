r"""Random changes of real and generated images alike, for training on few images.

Note [Augmentation]
    Without it a critic learns few images by heart: it tells them from generated ones by what other images of the same
    law lack. With random changes T_w, drawn independently of the images, it ascends

    .. math:: E_{x, w} f(T_w x) - E_{z, w} f(T_w G(z))

    which is the dual value of the function x ↦ E_w f(T_w x). Every T_w here is 1-Lipschitz: it mirrors, moves, covers
    or brightens all pixels by a rule that does not depend on them. So that function is 1-Lipschitz if f is, and its
    dual value bounds W1 from below as that of f does. Only training sees changed images: audits, certificates and
    scores are about f and images as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wgan_lip.utils.checks import InputError
from wgan_lip.utils.settings import Settings, at_least

__all__ = ["Augmentation", "Augmenter"]

NUMBERS = 6  # random numbers per image: mirror, two of a translation, two of a covered square, brightness


@dataclass(frozen=True, kw_only=True)
class Augmentation(Settings):
    """Random changes of real and generated images in training; none by default. See Note [Augmentation].

    Attributes:
        augment_flip: Whether every other image is mirrored, left to right.
        augment_shift: Largest move in pixels, up or down, left or right; what moves in is 0.
        augment_cutout: Side in pixels of a square that is set to 0, with its centre anywhere in the image.
        augment_brightness: Largest number that is added to all pixels or subtracted from them.
    """

    augment_flip: bool = False
    augment_shift: int = at_least(0, 0)
    augment_cutout: int = at_least(0, 0)
    augment_brightness: float = at_least(0, 0.0)


class Augmenter:
    """The changes of :class:`Augmentation` for images of one shape, as a function of images and random numbers.

    Arguments:
        settings: Which changes.
        image_shape: (c, h, w) of the images; None for samples that are not images.

    Attributes:
        numbers: Random numbers that an image takes; 0 if there is nothing to change.

    Raises:
        InputError: Changes of samples that are not images, or that leave nothing of them.

    Example:
        >>> dark = Augmenter(Augmentation(augment_cutout=1), (1, 2, 2))
        >>> dark(torch.ones(1, 4), torch.full((1, dark.numbers), 0.9))
        tensor([[1., 1., 1., 0.]])
    """

    def __init__(self, settings: Augmentation, image_shape: tuple[int, int, int] | None) -> None:
        self.settings = settings
        cutout, shift = settings.augment_cutout, settings.augment_shift
        self.numbers = NUMBERS if settings.augment_flip or shift or cutout or settings.augment_brightness else 0
        self.image_shape = (0, 0, 0) if image_shape is None else image_shape
        if not self.numbers:
            return
        if image_shape is None:
            raise InputError("Only images are augmented, and these samples have no image_shape. Leave augment_* out.")
        if max(shift, cutout) >= min(image_shape[1:]):
            raise InputError(
                f"augment_shift and augment_cutout must be smaller than the images, {image_shape}, not {shift} and "
                f"{cutout}."
            )

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """Random numbers for n images, shape (n, numbers), on the generator's device."""
        return torch.rand(n, self.numbers, generator=rng, device=rng.device)

    def __call__(self, samples: Tensor, numbers: Tensor) -> Tensor:
        """Changed samples, shape (n, d); labels after the pixels stay as they are.

        Arguments:
            samples: Images as rows, shape (n, d), d ≥ c·h·w.
            numbers: Uniform on [0, 1), shape (n, numbers).
        """
        if not self.numbers:
            return samples
        settings, (c, h, w) = self.settings, self.image_shape
        pixels, labels = samples.split((c * h * w, samples.shape[1] - c * h * w), dim=1)
        mirror, down, right, top, left, bright = (column[:, None] for column in numbers.unbind(1))  # (n, 1) each
        at_row, at_column = torch.arange(h, device=samples.device), torch.arange(w, device=samples.device)
        shift, half = settings.augment_shift, settings.augment_cutout / 2
        rows = at_row + ((2 * shift + 1) * down).floor().long() - shift  # (n, h), where each new row comes from
        columns = at_column + ((2 * shift + 1) * right).floor().long() - shift  # (n, w)
        shown = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
        if settings.augment_cutout:
            covered = ((at_row + 0.5 - h * top).abs() <= half)[:, :, None]
            shown &= ~(covered & ((at_column + 0.5 - w * left).abs() <= half)[:, None, :])
        if settings.augment_flip:
            columns = columns.where(mirror >= 0.5, w - 1 - columns)
        index = rows.clamp(0, h - 1)[:, :, None] * w + columns.clamp(0, w - 1)[:, None, :]  # (n, h, w)
        channels = pixels.unflatten(1, (c, h * w))
        changed = channels.gather(2, index.flatten(1)[:, None].expand_as(channels))
        changed = changed * shown.flatten(1)[:, None] + settings.augment_brightness * (2 * bright - 1)[:, :, None]
        return torch.cat((changed.flatten(1), labels), dim=1)
