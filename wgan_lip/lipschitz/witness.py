"""Witnesses: all that anyone needs to prove a critic's constant again, by :mod:`wgan_lip.lipschitz.check_witness`."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wgan_lip.lipschitz import check_witness, layers
from wgan_lip.lipschitz.bounds.convolutions import gram_sums, polyphase
from wgan_lip.lipschitz.bounds.dense import UNIT_ROUNDOFF, scaled_float64
from wgan_lip.lipschitz.certificates import DEFAULT_UNITS, certify
from wgan_lip.lipschitz.layers.convolutions import Convolution
from wgan_lip.lipschitz.layers.normalised import BjorckLinear, ClippedLinear
from wgan_lip.lipschitz.proofs import described_layers
from wgan_lip.utils.checks import UncertifiableError
from wgan_lip.utils.files import write_json

__all__ = ["CHECKER", "critic_witness", "encoded", "save_witness"]

CHECKER = Path(check_witness.__file__)
"""The file that checks a witness: it imports nothing of this package and no torch."""
OF_TORCH = (nn.Linear, nn.Hardtanh, nn.ModuleList)  # that the checker knows beside the layers of this package
OF_LINEAR = (nn.Linear, ClippedLinear)


def save_witness(critic: nn.Module, path: str | Path, *, units: str = DEFAULT_UNITS) -> float:
    """Writes what proves a critic's Lipschitz constant to someone who does not trust this package.

    The file holds the certificate, the architecture, the weights and hints, as JSON. :data:`CHECKER`, one file that
    needs only Python, proves the constant from them again: `python check_witness.py FILE`.

    Arguments:
        critic: As for :func:`wgan_lip.certify`, built of the layers of this package and `nn.Linear`.
        path: The file, written whole or not at all.
        units: As for :func:`wgan_lip.certify`.

    Returns:
        The constant that the witness proves: that of the certificate, or a larger one where windows of convolutions
        overlap, for which the checker's bound is not as sharp.

    Raises:
        UncertifiableError: A critic that :func:`wgan_lip.certify` refuses, or a layer that has no witness yet; the
            message names it.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from wgan_lip.critics import ResNetCritic
        >>> with TemporaryDirectory() as folder:
        ...     save_witness(ResNetCritic(2, width=8, depth=2), f"{folder}/witness.json") <= 1
        True
    """
    witness = critic_witness(critic, units=units)
    write_json(path, witness)
    return witness["lipschitz"]


def critic_witness(critic: nn.Module, *, units: str = DEFAULT_UNITS) -> dict[str, Any]:
    """The content of :func:`save_witness`, and its errors."""
    certificate = certify(critic, units=units)
    described = described_layers(critic)
    hints: dict[str, Any] = {}
    for path, module, _ in described:
        for name, inner in module.named_modules(remove_duplicate=False):
            at = path if not name else f"{path}.{name}"
            if not (type(inner) in OF_TORCH or _is_own(inner) or _is_chain(inner)):
                raise UncertifiableError(
                    f"At '{at}': there is no witness for {type(inner).__name__} yet. The certificate is valid; for a "
                    "witness, use layers of this package that the checker knows, or nn.Linear."
                )
            below = "" if module is critic else f"{path}."
            hints.update({f"{below}{name}{'.' if name else ''}{key}": hint for key, hint in _hints(inner)})
    named = [*critic.named_parameters(remove_duplicate=False), *critic.named_buffers(remove_duplicate=False)]
    witness = {
        "certificate": asdict(certificate),
        "architecture": [description for _, _, description in described],
        "weights": {name: encoded(tensor, name) for name, tensor in named},
        "hints": hints,
        "lipschitz": certificate.lipschitz,
    }
    try:
        square, _ = check_witness.bound_critic(witness)
    except ValueError as error:
        raise UncertifiableError(f"The certificate is valid, but the checker rejects its witness: {error}.") from None
    if square > Fraction(certificate.lipschitz) ** 2:
        witness["lipschitz"] = math.nextafter(float(check_witness.root_up(square)), math.inf)
    return witness


def encoded(array: Tensor | np.ndarray, name: str) -> dict[str, Any]:
    """An array as a witness holds it. Raises :class:`UncertifiableError` for a type that the checker does not read."""
    array = (array.detach().cpu() if isinstance(array, Tensor) else torch.from_numpy(array)).contiguous()
    dtype = str(array.dtype).removeprefix("torch.")
    if dtype not in check_witness.FORMATS:
        raise UncertifiableError(
            f"A witness can hold {', '.join(check_witness.FORMATS)}, but {name} is {dtype}. Convert it."
        )
    raw = array.reshape(-1).view(torch.uint8).numpy().tobytes()
    return {"dtype": dtype, "shape": list(array.shape), "data": base64.b64encode(raw).decode()}


def _is_own(module: nn.Module) -> bool:
    """Whether a class is of this package, and not a namesake that the checker would take for it."""
    return type(module).__module__.startswith(f"{layers.__name__}.")


def _is_chain(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _hints(module: nn.Module) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of a weight and its c, R and q of :mod:`wgan_lip.lipschitz.check_witness`, for each matrix that needs
    a norm."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or isinstance(module, layers.RescaledGradientFlow | BjorckLinear):
        return  # the latter are of norm 1 whatever the weight is
    match module:
        case layers.Linear():
            for (i, rows), (j, columns) in product(enumerate(module.norm_out.slices), enumerate(module.norm_in.slices)):
                yield from _of_matrix(f"weight[{i},{j}]", weight[rows, columns], [])
        case layers.Conv2d() | layers.ConvGradientFlow():
            geometry = module.convolution
            for group, part in enumerate(weight.chunk(geometry.groups)):
                if geometry.disjoint:
                    yield from _of_matrix(f"weight[{group}]", part.flatten(1), [0, 0])
                else:
                    yield f"weight[{group}]", {"c": 0, "factor": [], "q": _perron_vector(part, geometry)}
        case _:
            yield from _of_matrix("weight[0,0]" if type(module) in OF_LINEAR else "weight", weight, [])


def _of_matrix(name: str, matrix: Tensor, shift: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Nothing where one row or column makes the norm exact."""
    if min(matrix.shape) > 1 and (found := _shifted_factor(matrix)) is not None:
        yield name, {"c": found[0], "factor": [[shift, found[1]]]}


def _perron_vector(kernel: Tensor, geometry: Convolution) -> list[int]:
    """q > 0 for which the sums of |K K*| over j, times q_j/q_i, are nearly as low as they can be."""
    taps = polyphase(kernel.detach().cpu().double()[None], geometry.meeting_stride, geometry.dilation)
    q = np.abs(np.linalg.eigh(gram_sums(taps)[0].numpy())[1][:, -1])
    return [int(value * 2**30) + 1 for value in q / q.max()]


def _shifted_factor(matrix: Tensor) -> tuple[float, str] | None:
    """c just above the squared norm, and R with R Rᵀ near c I − A Aᵀ, coded; None where float64 finds none."""
    scaled, exponent = scaled_float64(matrix)
    if exponent is None or abs(exponent) > 400:
        return None
    scaled = scaled.T if scaled.shape[0] > scaled.shape[1] else scaled
    gram, side = scaled @ scaled.T, len(scaled)
    largest = float(np.linalg.eigvalsh(gram)[-1])
    for raise_by in (8.0, 64.0, 512.0, 4096.0):
        c = largest * (1 + raise_by * side * UNIT_ROUNDOFF)
        try:
            factor = np.linalg.cholesky(c * np.eye(side) - gram)
        except np.linalg.LinAlgError:
            continue
        coded = base64.b64encode(np.ldexp(factor, exponent).astype("<f8").tobytes()).decode()
        return math.ldexp(c, 2 * exponent), coded
    return None
