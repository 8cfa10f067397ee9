"""Inception features for FID and KID, from a weights file that the user has."""

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
    """Shape of a source's images, and their values of black and white. Raises :class:`InputError` for other sources."""
    if source.image_shape is None or source.low is None or source.high is None:
        raise InputError(f"FID and KID need images; {source.name} has none. Leave out inception_weights.")
    return source.image_shape, source.low, source.high


class Inception:
    """The network of 2015 that defines FID, with weights from a file; nothing is ever downloaded.

    Scores agree with published ones if the file is torch-fidelity's `weights-inception-2015-12-05-6726825d.pth`, and
    images, number of samples and reference set are those of the publication.

    Arguments:
        weights_path: The file, a state dict.

    Attributes:
        weights_sha256: Hash of the file; scores with different hashes are not comparable.

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
                f"There is no file {path} with the weights of Inception. FID and KID need torch-fidelity's "
                f"{PUBLISHED}; leave out inception_weights to do without."
            )
        import_torchvision()  # which torch-fidelity imports
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError:
            raise InputError(
                "FID and KID need torch-fidelity, which is not installed. Install wgan-lip[fid], or leave out "
                "inception_weights."
            ) from None
        content = path.read_bytes()
        self.weights_sha256 = hashlib.sha256(content).hexdigest()
        try:
            # torch-fidelity unpickles its file without restrictions, so it gets a copy of what was read safely.
            copy = io.BytesIO()
            torch.save(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), copy)
            copy.seek(0)
            self._network = FeatureExtractorInceptionV3("wgan-lip", ["2048"], feature_extractor_weights_path=copy)
        except Exception as error:  # torch.load raises many unrelated types on another file
            raise InputError(
                f"{path} does not hold the weights of Inception as torch-fidelity names them: "
                f"{one_line(error)}. Use {PUBLISHED}."
            ) from None
        self._network.eval()

    @torch.no_grad()
    def embedded(
        self, samples: Tensor, image_shape: tuple[int, int, int], low: float = 0.0, high: float = 1.0, batch: int = 50
    ) -> Tensor:
        """Features of images, shape (n, 2048); grey becomes RGB, values become bytes, the size 299 × 299.

        Arguments:
            samples: Images of 1 or 3 channels, shape (n, c·h·w); labels after the pixels are not read.
            image_shape: (c, h, w).
            low, high: The values of black and white; values beyond are clipped.
            batch: Images at once.

        Raises:
            InputError: Images of other than 1 or 3 channels.
        """
        if image_shape[0] not in (1, 3):
            raise InputError(f"FID and KID need images of 1 or 3 channels, not {image_shape[0]}.")
        samples = samples[:, : math.prod(image_shape)]
        images = ((samples - low) / (high - low) * 255).round().clamp(0, 255).byte().unflatten(1, image_shape)
        rgb = images.expand(-1, 3, -1, -1)
        return torch.cat([self._network(part.contiguous())[0] for part in rgb.split(batch)])
