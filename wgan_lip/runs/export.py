"""A trained critic and generator as files that need no training code: weights, architecture, programs, certificate."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from wgan_lip.generators import draw_latents, latent_dim
from wgan_lip.lipschitz.certificates import Certificate, certify, verify
from wgan_lip.runs.targets import build, load_weights
from wgan_lip.utils.checks import InputError, one_line
from wgan_lip.utils.files import beside, read_regular, write_json, write_whole
from wgan_lip.utils.printing import Printed, Row

__all__ = ["Exported", "export_players", "load_exported"]

ABOUT, CERTIFICATE = "export.json", "certificate.json"
PLAYERS = ("critic", "generator")


@dataclass(frozen=True, repr=False)
class Exported(Printed):
    """An exported critic and generator.

    Attributes:
        critic: Samples (b, d) → values (b,), in eval mode, on the CPU.
        generator: Latents (b, latent_dim) → samples (b, d), in eval mode, on the CPU.
        certificate: The certificate of `critic`, proved again on loading.
        about: The content of `export.json`.
    """

    critic: nn.Module
    generator: nn.Module
    certificate: Certificate
    about: Mapping[str, Any]

    def headline(self) -> str:
        return "An exported critic and generator"

    def summary_rows(self) -> list[Row]:
        players = {"Critic": self.critic, "Generator": self.generator}
        weights = {name: sum(weight.numel() for weight in player.parameters()) for name, player in players.items()}
        return [
            *(Row(name, type(player).__name__, f"{weights[name]:,} weights") for name, player in players.items()),
            self.certificate.bound_row("Certified critic"),
            Row("One unit is", self.certificate.units),
        ]


def export_players(
    out: str | os.PathLike[str],
    *,
    critic: nn.Module,
    generator: nn.Module,
    configs: Mapping[str, Mapping[str, Any]],
    sizes: Mapping[str, Any],
    units: str,
    programs: bool = True,
    about: Mapping[str, Any] | None = None,
) -> Certificate:
    """Writes critic and generator to a new folder, completely or not at all.

    Arguments:
        out: A folder that does not exist yet, or is empty. It gets `critic.safetensors`, `generator.safetensors`,
            `certificate.json`, `export.json` with the architectures and the SHA-256 of every other file, and with
            `programs` also `critic.pt2` and `generator.pt2`, which can be differentiated.
        critic: Samples (b, d) → values (b,), certifiable.
        generator: Latents (b, latent_dim) → samples (b, d).
        configs: `critic` and `generator` → what :func:`wgan_lip.runs.targets.build` builds them from.
        sizes: The data's sizes, offered to both: dim, low, high, image_shape.
        units: In words, what one unit of a sample is.
        programs: Whether to trace both by `torch.export`, for any batch size, into files that torch can run alone.
        about: Further content of `export.json`.

    Returns:
        The critic's certificate.

    Raises:
        InputError: A folder that is not empty, a module that `torch.export` can't trace, or a program whose weights or
            values are not the module's.
        UncertifiableError: See :func:`wgan_lip.certify`.

    Guarantee:
        The certificate is about the stored weights in the architecture that `export.json` names, in real arithmetic. A
        program has the same weights, bit by bit, and gave the same values on samples, up to float32's rounding, when it
        was written. The certificate says nothing about a program that others may have changed; and torch runs whatever
        a `.pt2` file says: open only files from people you trust.
    """
    out = Path(out).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder. Choose another folder by out=FOLDER.")
    players = {"critic": critic, "generator": generator}
    certificate = certify(critic, units=units)
    rng = torch.Generator().manual_seed(0)
    inputs = {"critic": torch.rand(12, int(sizes["dim"]), generator=rng), "generator": draw_latents(generator, 12, rng)}
    folder = beside(out)
    try:
        folder.mkdir(parents=True)
        certificate.save(folder / CERTIFICATE)
        for name, player in players.items():
            player = player.eval()
            state = {key: entry.detach().cpu().contiguous().clone() for key, entry in player.state_dict().items()}
            write_whole(folder / f"{name}.safetensors", save_tensors(state, metadata={"format": "pt"}))
            if programs:
                torch.export.save(_program(player, inputs[name], name), folder / f"{name}.pt2")
        content = {
            **{"format": 1, **{name: dict(configs[name]) for name in PLAYERS}, "sizes": dict(sizes), "units": units},
            **{"latent_dim": latent_dim(generator), "lipschitz": certificate.lipschitz, **(about or {})},
            "sha256": {path.name: _sha256(path.read_bytes()) for path in sorted(folder.iterdir())},
        }
        write_json(folder / ABOUT, content)
        if out.exists():
            out.rmdir()
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return certificate


def load_exported(directory: str | os.PathLike[str], *, trust: Collection[str] = ()) -> Exported:
    """Loads an exported critic and generator from weights and architecture, and proves the certificate again.

    Runs no code from the folder, and needs neither the programs nor the code for training.

    Arguments:
        directory: A folder that :func:`export_players` or `wgan-lip export` wrote.
        trust: Packages whose classes it may name; see :func:`wgan_lip.runs.targets.target_class`.

    Raises:
        InputError: A file that is missing, damaged or not the exported one; weights of another architecture; a
            certificate that is not about these weights, or that the proof does not confirm.
    """
    folder = Path(directory).expanduser()
    try:
        about = json.loads(read_regular(folder / ABOUT))
        sizes, hashes = dict(about["sizes"]), dict(about["sha256"])
        if sizes.get("image_shape") is not None:
            sizes["image_shape"] = tuple(sizes["image_shape"])
        configs = {name: dict(about[name]) for name in PLAYERS}
        for name in [CERTIFICATE, *(f"{player}.safetensors" for player in PLAYERS)]:
            if _sha256(read_regular(folder / name)) != hashes[name]:
                raise InputError(f"{name} in {folder} has changed since it was exported. Export the run again.")
        states = {name: load_tensors(read_regular(folder / f"{name}.safetensors")) for name in PLAYERS}
    except (OSError, ValueError, TypeError, KeyError, RecursionError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{folder} is not a folder that `wgan-lip export` wrote: {one_line(error)}. Export the run again."
        ) from None
    players = {}
    for name in PLAYERS:
        players[name] = build(name, configs[name], trust=trust, **sizes)
        if problem := load_weights(players[name], states[name]):
            raise InputError(f"The weights do not fit the {name} in {folder / ABOUT}: {problem}. Export the run again.")
        players[name].eval().requires_grad_(False)
    return Exported(
        **players, certificate=verify(Certificate.load(folder / CERTIFICATE), players["critic"]), about=about
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@torch.no_grad()
def _program(player: nn.Module, inputs: Tensor, name: str) -> torch.export.ExportedProgram:
    """The module as a program for any batch size, checked against it on these inputs, twelve rows."""
    weights = dict(player.named_parameters())
    batches = inputs.to(next(iter(weights.values()))).split((4, 1, 7))
    try:
        program = torch.export.export(player, (batches[0],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        values = [program.module()(batch) for batch in batches]
    except Exception as error:  # torch.export raises many unrelated types
        raise InputError(
            f"torch.export can't trace the {name}: {one_line(error)}. Correct its forward, or export with "
            "programs=false."
        ) from error
    stored = program.state_dict
    if not all(key in stored and torch.equal(stored[key], weight) for key, weight in weights.items()):
        raise InputError(f"torch.export made a program with other weights than the {name}'s. Use programs=false.")
    for batch, value in zip(batches, values):
        expected = player(batch)
        if value.shape != expected.shape or not torch.allclose(value, expected, rtol=1e-4, atol=1e-5):
            raise InputError(
                f"torch.export made a program with other values than the {name}'s. Does its forward depend on the "
                "batch size, or draw random numbers? Export with programs=false."
            )
    return program
