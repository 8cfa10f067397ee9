"""Players that cannot be trained to the end, refused before any time is spent on them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from wgan_lip.data import Source
from wgan_lip.generators import draw_latents
from wgan_lip.utils.checks import InputError, check_memory, one_line
from wgan_lip.wasserstein.dual import Penalized
from wgan_lip.wasserstein.interval import kr_lower_bound

__all__ = ["check_players", "method_of"]


def check_players(source: Source, generator: nn.Module, critic: nn.Module, *, batch_size: int, compiled: bool) -> None:
    """Refuses players that do not fit the data or one another, a critic that can't be certified, too large a batch."""
    for name, player in (("generator", generator), ("critic", critic)):
        if not isinstance(player, nn.Module):
            raise InputError(f"Expected {name} to be a torch module. Got {player!r:.60}. Build it first.")
        if next(player.parameters(), None) is None:
            raise InputError(f"Expected a {name} with parameters to train. Got {type(player).__name__} with none.")
    if not isinstance(source, Source):
        raise InputError(
            f"Expected a Source of samples. Got {source!r:.60}. "
            "Wrap tensors in wgan_lip.data.TensorSource, a DataLoader in wgan_lip.data.LoaderSource."
        )
    if source.size is not None and batch_size > source.size:
        raise InputError(
            f"Expected a batch no larger than the training set, {source.size} samples. Got {batch_size}. "
            "Lower `batch_size`."
        )
    if len(source.test) < 2:
        raise InputError(
            f"Expected at least 2 held-out samples, for the audits. Got {len(source.test)}. Hold out more of the data."
        )
    device = next(critic.parameters()).device
    test = source.test[:2]
    if device.type == "cpu":
        check_memory(2 * batch_size * test[0].nbytes, f"a batch of {batch_size} samples of each law",
                     "Lower `batch_size`.")  # fmt: skip
    with torch.no_grad():
        try:
            latents = draw_latents(generator, len(test), torch.Generator(device).manual_seed(0))
            values = critic(torch.cat((test.to(device), copy.deepcopy(generator)(latents))))
        except InputError:
            raise
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:  # on what does not meet
            raise InputError(
                f"Expected players that fit the samples, {tuple(test.shape)}, {test.dtype}. Got: {one_line(error)}. "
                "Build them for this dimension, dtype and device."
            ) from error
    if values.shape != (2 * len(test),):
        raise InputError(
            f"Expected a critic with one value a sample. Got values {tuple(values.shape)} for {2 * len(test)} samples. "
            "Build it with heads=1; end your own with Squeeze()."
        )
    kr_lower_bound(critic, test, test)  # refuses what an audit would
    if compiled and isinstance(critic, Penalized):
        raise InputError(
            f"Expected, with `compile`, a critic without a penalty. Got {type(critic).__name__}, which is "
            "differentiated twice: torch.compile can't. Leave `compile` out."
        )


def method_of(critic: nn.Module, name: str, setting: str) -> Callable[[Tensor, Tensor], object]:
    """The critic's method of that name, which takes samples of both laws. Refuses a critic that has none."""
    method = getattr(critic, name, None)
    if not callable(method):
        raise InputError(
            f"Expected, with `{setting}`, a critic with a method {name}, as those of wgan_lip.critics "
            f"have. Got {type(critic).__name__}. Leave `{setting}` out."
        )
    return method
