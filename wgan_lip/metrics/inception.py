"""Features of Inception, for FID and KID, from a weights file that the user has."""

from __future__ import annotations

import hashlib
import io
import math
from pathlib import Path

import torch
from torch import Tensor

from wgan_lip.data import Source, import_torchvision
from wgan_lip.utils.checks import InputError, one_line

__all__ = ["Inception", "image_range"]

PUBLISHED = "weights-inception-2015-12-05-6726825d.pth"


def image_range(source: Source) -> tuple[tuple[int, int, int], float, float]:
    """Shape of a source's images, and their values of black and white. Refuses a source without."""
    if source.image_shape is None or source.low is None or source.high is None:
        raise InputError(f"Expected images, for FID and KID. Got {source.name}. Leave out inception_weights.")
    return source.image_shape, source.low, source.high


class Inception:
    """The network of 2015 that FID is defined by, with the weights of a file; nothing is ever downloaded.

    Scores agree with published ones where the file is torch-fidelity's `weights-inception-2015-12-05-6726825d.pth`, and
    images, number of samples and reference set are those of the publication.

    Arguments:
        weights_path: The file, a state dict.

    Attributes:
        weights_sha256: Hash of the file; scores taken with different hashes are not comparable.

    Raises:
        InputError: No such file, one that holds other weights, or torch-fidelity is not installed.

    References:
        Rethinking the Inception Architecture for Computer Vision (Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, 2015),
        https://arxiv.org/abs/1512.00567
    """

    def __init__(self, weights_path: str | Path) -> None:
        path = Path(weights_path).expanduser()
        if not path.is_file():
            raise InputError(
                f"Expected the weights of Inception at {path}. Got no file. FID and KID need {PUBLISHED} of "
                "torch-fidelity; leave inception_weights out to do without."
            )
        import_torchvision()  # which torch-fidelity imports
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError:
            raise InputError(
                "Expected torch-fidelity, for FID and KID. Got none. Install wgan-lip[fid], or leave out "
                "inception_weights."
            ) from None
        content = path.read_bytes()
        self.weights_sha256 = hashlib.sha256(content).hexdigest()
        try:
            # torch-fidelity unpickles its file without restrictions, so it gets a copy of what was read with them.
            copy = io.BytesIO()
            torch.save(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), copy)
            copy.seek(0)
            self._network = FeatureExtractorInceptionV3("wgan-lip", ["2048"], feature_extractor_weights_path=copy)
        except Exception as error:  # torch.load raises many unrelated types on another file
            raise InputError(
                f"Expected {path} to hold the weights of Inception as torch-fidelity names them. Got "
                f"{one_line(error)}. Take {PUBLISHED}."
            ) from None
        self._network.eval()

    @torch.no_grad()
    def embedded(
        self, samples: Tensor, image_shape: tuple[int, int, int], low: float = 0.0, high: float = 1.0, batch: int = 50
    ) -> Tensor:
        """Features of images, shape (n, 2048); grey becomes RGB, values become bytes, the size 299 × 299.

        Arguments:
            samples: Images of 1 or 3 channels, shape (n, c·h·w); labels behind the pixels are not read.
            image_shape: (c, h, w).
            low, high: The values of black and white; what lies beyond is clipped.
            batch: Images at once.

        Raises:
            InputError: Images of other than 1 or 3 channels.
        """
        if image_shape[0] not in (1, 3):
            raise InputError(f"Expected images of 1 or 3 channels, for FID and KID. Got {image_shape[0]}.")
        samples = samples[:, : math.prod(image_shape)]
        images = ((samples - low) / (high - low) * 255).round().clamp(0, 255).byte().unflatten(1, image_shape)
        rgb = images.expand(-1, 3, -1, -1)
        return torch.cat([self._network(part.contiguous())[0] for part in rgb.split(batch)])
