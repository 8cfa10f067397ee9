"""Checks that refuse what could not be trained to the end, before any time is spent on it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from wgan_lip.data import Source
from wgan_lip.generators import draw_latents
from wgan_lip.training.settings import Training
from wgan_lip.utils.checks import InputError, check_memory, one_line
from wgan_lip.wasserstein.dual import Penalized
from wgan_lip.wasserstein.interval import kr_lower_bound

__all__ = ["check_players", "method_of"]


def check_players(source: Source, generator: nn.Module, critic: nn.Module, settings: Training) -> None:
    """Refuses networks that do not fit the data or each other, a critic that can't be certified, too large a batch."""
    batch_size = settings.batch_size
    for name, player in (("generator", generator), ("critic", critic)):
        if not isinstance(player, nn.Module):
            raise InputError(f"{name} must be a torch module, not {player!r:.60}. Build it first.")
        if next(player.parameters(), None) is None:
            raise InputError(f"The {name}, {type(player).__name__}, has no parameters to train.")
    if not isinstance(source, Source):
        raise InputError(
            f"source must be a wgan_lip.data.Source, not {source!r:.60}. "
            "Wrap tensors in wgan_lip.data.TensorSource, a DataLoader in wgan_lip.data.LoaderSource."
        )
    if source.size is not None and batch_size > source.size:
        raise InputError(f"`batch_size` must be at most {source.size}, the size of the training set, not {batch_size}.")
    if len(source.test) < 2:
        raise InputError(
            f"Audits need at least 2 held-out samples, and there are {len(source.test)}. Hold out more of the data."
        )
    device = next(critic.parameters()).device
    test = source.test[:2]
    if device.type == "cpu":
        check_memory(2 * batch_size * test[0].nbytes, f"a batch of {batch_size} samples of each law",
                     "Lower `batch_size`.")  # fmt: skip
    latents = draw_latents(generator, len(test), torch.Generator(device).manual_seed(0))
    made = _tried("generator", lambda: copy.deepcopy(generator)(latents), latents)
    if made.shape != test.shape:
        raise InputError(
            f"The generator's output shape is (b, {', '.join(map(str, made.shape[1:]))}), but the data have shape "
            f"(b, {test.shape[1]}). Build it for this dimension."
        )
    if not bool(torch.isfinite(made).all()):
        raise InputError("The generator's samples are not finite before the first step. Check its weights.")
    both = torch.cat((test.to(device), made))
    values = _tried("critic", lambda: critic(both), both)
    if values.shape != (len(both),):
        raise InputError(
            f"The critic must return one value per sample, shape ({len(both)},), not {tuple(values.shape)}. "
            "Build it with heads=1; end your own with Squeeze()."
        )
    kr_lower_bound(critic, test, test)  # refuses what an audit would refuse
    if settings.compile and isinstance(critic, Penalized):
        raise InputError(
            f"`compile` does not work with {type(critic).__name__}, whose penalty is differentiated twice, which "
            "torch.compile can't do. Leave `compile` out."
        )


def _tried(name: str, play: Callable[[], Tensor], given: Tensor) -> Tensor:
    """The output of a network on its first rows of input."""
    try:
        with torch.no_grad():
            return play()
    except InputError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"The {name} fails on its input, {tuple(given.shape)}, {given.dtype}: {one_line(error)}. Build it for this "
            "dimension, dtype and device."
        ) from error


def method_of(critic: nn.Module, name: str, setting: str) -> Callable[[Tensor, Tensor], object]:
    """The critic's method of that name, which takes samples of both laws. Refuses a critic without it."""
    method = getattr(critic, name, None)
    if not callable(method):
        raise InputError(
            f"`{setting}` needs a critic with a method {name}, as those of wgan_lip.critics have, and "
            f"{type(critic).__name__} has none. Leave `{setting}` out."
        )
    return method
