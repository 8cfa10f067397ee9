"""Proof that Lip(f) ≤ L, layer by layer, re-checkable."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from operator import itemgetter
from pathlib import Path

import torch
from torch import Tensor, nn

from wgan_lip.lipschitz.bounds import Norm, product_up
from wgan_lip.lipschitz.proofs import (
    ProvedLayer,
    Step,
    claim_of,
    described,
    described_layers,
    evaluate_steps,
    first_norm,
    proved_layers,
    steps_of,
)
from wgan_lip.utils.checks import InputError, check_samples
from wgan_lip.utils.files import read_regular, write_json
from wgan_lip.utils.numbers import rounded_up
from wgan_lip.utils.printing import Printed, Row

__all__ = [
    "Certificate",
    "Evaluation",
    "LayerCertificate",
    "Proof",
    "certify",
    "claim_of",
    "described_layers",
    "evaluate",
    "prove",
    "verify",
    "weights_sha256",
]


@dataclass(frozen=True)
class LayerCertificate:
    """One layer's part of a proof: where it sits, what it is, its norm in and out, its constant, and the method."""

    path: str
    layer: str
    norm_in: str
    norm_out: str
    lipschitz: float
    method: str


@dataclass(frozen=True, repr=False)
class Certificate(Printed):
    """A proved constant: |f(x) − f(y)|_out ≤ lipschitz · ‖x − y‖_in for all x, y.

    Attributes:
        lipschitz: The bound L, the layers' constants multiplied and rounded up.
        norm_in: Norm of the input space.
        norm_out: Norm of the output space; `Euclidean(1)` for a potential.
        layers: One entry for each layer, in the order of application. Those of critics side by side come before the
            entry of the layer that joins them, below its path, and count in its constant alone.
        weights_sha256: Hash of names, dtypes, shapes and bytes of all weights.
        architecture_sha256: Hash of the class names and all settings of the layers, in the order of application.
        units: What one unit of the input space is, in words.
        covers: What the number covers, and what it does not.
        sha256: Hash of all other fields, which gives away a certificate that was edited.

    Guarantee:
        Holds for the real-arithmetic function whose weights and settings have these hashes, in train and eval mode
        alike, but for batch normalisation, whose layers are about eval mode. Floating-point evaluation of f adds
        rounding, which :func:`evaluate` bounds.
    """

    lipschitz: float
    norm_in: str
    norm_out: str
    layers: tuple[LayerCertificate, ...]
    weights_sha256: str
    architecture_sha256: str
    units: str
    covers: str
    sha256: str

    def check_potential(self, dim: int) -> None:
        """Raises :class:`InputError` unless this is about a scalar potential on R^dim, with a finite constant."""
        euclidean = str(Norm.euclidean(dim)), str(Norm.euclidean())
        if self.norm_in not in euclidean or self.norm_out != str(Norm((1,))):
            raise InputError(
                f"The critic must be a scalar potential on Euclidean({dim}), not a map from {self.norm_in} to "
                f"{self.norm_out}. Check its dimension, and that it has one head."
            )
        if not math.isfinite(self.lipschitz):
            raise InputError(f"The critic's Lipschitz constant is {self.lipschitz}. Train with retraction.")

    def headline(self) -> str:
        return f"A bound on the Lipschitz constant of a map from {self.norm_in} to {self.norm_out}"

    def bound_row(self, name: str = "Lipschitz constant") -> Row:
        """The constant and the weights that it is about, for screens with other figures."""
        return Row(name, f"Lip(f) ≤ {rounded_up(self.lipschitz, 7)}", f"weights {self.weights_sha256[:12]}")

    def summary_rows(self) -> list[Row]:
        kinds = Counter(_kind(layer) for layer in self.layers).most_common()
        named = [f"{count} {kind}" for kind, count in kinds[:4]]
        beyond = [f"{sum(count for _, count in kinds[4:])} more"] if len(kinds) > 4 else []
        rows = [self.bound_row(), Row("Layers", str(len(self.layers)), ", ".join(named + beyond))]
        if self.layers:
            steepest = max(self.layers, key=lambda layer: layer.lipschitz)
            at = f"at {steepest.path}, {_kind(steepest)}: {steepest.method}"
            rows.append(Row("  largest constant", rounded_up(steepest.lipschitz, 7), at))
        return [*rows, Row("One unit is", self.units)]

    def save(self, path: str | Path) -> None:
        """Writes the certificate as JSON, whole or not at all."""
        write_json(path, asdict(self))

    @staticmethod
    def load(path: str | Path) -> Certificate:
        """Reads a certificate. It is a claim until :func:`verify` has proved it again. Raises :class:`InputError`."""
        try:
            text = read_regular(path).decode()
            content = json.loads(text, object_pairs_hook=_without_repeats, parse_int=float)
            expected = {field.name for field in fields(Certificate)}
            if not isinstance(content, dict) or set(content) != expected:
                raise ValueError(f"its keys are not {', '.join(sorted(expected))}")
            for part in (content, *content["layers"]):
                for key, value in part.items():
                    wanted = {"lipschitz": float, "layers": list}.get(key, str)
                    if type(value) is not wanted:
                        raise ValueError(f"{key} is {value!r}")
            layers = tuple(LayerCertificate(**layer) for layer in content.pop("layers"))
            return Certificate(layers=layers, **content)
        except FileNotFoundError:
            raise InputError(f"There is no certificate at {path}. Run `wgan-lip certify`.") from None
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} is not a certificate: {error}. Run `wgan-lip certify` again.") from None


@dataclass(frozen=True)
class Evaluation:
    """Values of a critic in float64, shape (n,), and for each the largest distance to its real-arithmetic value.

    For a critic with k heads, values have shape (n, k), and the distance is the largest over heads, shape (n,).
    """

    values: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Proof(Printed):
    """A critic as it was when it was proved, to be evaluated at many samples without proving it again.

    It holds its own copy of the weights: later optimiser steps do not reach it, and a bound that divides by its
    constant cannot be about other weights. :func:`prove` makes it.

    Attributes:
        certificate: The critic's certificate at that moment.
    """

    certificate: Certificate
    _steps: tuple[Step, ...]

    def headline(self) -> str:
        return f"Proof about a map from {self.certificate.norm_in} to {self.certificate.norm_out}, with a copy of it"

    def summary_rows(self) -> list[Row]:
        return self.certificate.summary_rows()

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> Evaluation:
        """:func:`evaluate` of the critic at that moment, at samples x (n, d) that have been checked."""
        x = x.detach().cpu().double()
        widest = max([x.shape[1], *(step.widest for step in self._steps)])
        rows = x.split(max(16, 2**21 // widest))
        # Cloned, for a module may work in place.
        parts = [evaluate_steps(self._steps, part.clone(), x.new_zeros(len(part))) for part in rows]
        values, error = (torch.cat(tensors) for tensors in zip(*parts))
        if values.ndim != 1 and (values.ndim > 2 or values.shape[1] == 1):
            raise InputError(
                f"A potential must return values of shape (n,), not {tuple(values.shape)}. End it with Squeeze()."
            )
        return Evaluation(values, error)


DEFAULT_UNITS = "the unit of the samples as the critic receives them"


def certify(critic: nn.Module, *, units: str = DEFAULT_UNITS) -> Certificate:
    r"""Proves a Lipschitz constant for `critic`, with its weights as they are now.

    .. math:: \mathrm{Lip}(f_L \circ \cdots \circ f_1) \le \prod_l \mathrm{Lip}(f_l)

    Arguments:
        critic: A :class:`LipschitzLayer`, or an `nn.Sequential` of those and of the torch.nn modules in
            :data:`wgan_lip.lipschitz.layers.STOCK_CLAIMS`. Any device, dtype and mode.
        units: In words, what one unit of the input space is; it is stated in the certificate and changes no number.
            To certify in the units from before a scaling (x − mean)/std, certify
            `nn.Sequential(Normalize(mean, std), critic)`.

    Returns:
        The certificate; `critic` is unchanged.

    Raises:
        UncertifiableError: A module without a proof, one whose call was replaced, hooked or compiled, one whose class
            was changed after it was defined, or two neighbours whose norms or axes do not match; the message names its
            path.
        InputError: Weights that are not finite.

    Guarantee:
        See :class:`Certificate`. No power iteration, no sampling, no state. The function is what the classes computed
        when they were defined: a method that is replaced later, on an object or on a class, is detected and refused.
        Not detected are changes to the functions that these methods call, such as those of torch.nn.functional.

    Example:
        >>> from wgan_lip.critics import ResNetCritic
        >>> certify(ResNetCritic(2, width=8, depth=2)).lipschitz <= 1
        True

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), sections 3 and 4
    """
    return _certificate(critic, tuple(proved_layers(critic)), units)


def prove(critic: nn.Module | Proof, certificate: Certificate | None = None, *, units: str = DEFAULT_UNITS) -> Proof:
    """Proves `critic` once, for any number of evaluations.

    Arguments:
        critic: As for :func:`certify`. A :class:`Proof` is returned as it is.
        certificate: A certificate said to be about this critic, refused if it is not; see :func:`verify`.
        units: As for :func:`certify`.

    Raises:
        InputError: A certificate that is about other weights, about another architecture, or edited.
        UncertifiableError: See :func:`certify`.
    """
    if isinstance(critic, Proof):
        proof = critic
    else:
        proved = tuple(proved_layers(critic))
        steps = steps_of(proved, copy.deepcopy(critic).cpu().double())
        proof = Proof(_certificate(critic, proved, units), steps)
    if certificate is not None:
        _hold_against(certificate, proof.certificate)
    return proof


def verify(certificate: Certificate, critic: nn.Module | Proof, *, units: str | None = None) -> Certificate:
    """Proves `certificate` again for `critic`, or refuses.

    Arguments:
        certificate: A certificate, for example from :meth:`Certificate.load`.
        critic: The critic it is said to be about.
        units: What one unit of the input space is, where that is known; the certificate must say the same.

    Returns:
        A certificate proved now. Its constants agree with the given ones up to rounding (relative 1e-9), by which two
        machines may differ; everything else is the same.

    Raises:
        InputError: Other weights, another architecture, or a certificate that was edited.
        UncertifiableError: See :func:`certify`.
    """
    if units is not None and certificate.units != units:
        raise InputError(f"The certificate is in other units: {certificate.units!r}, not {units!r}. Certify again.")
    proved = critic.certificate if isinstance(critic, Proof) else certify(critic, units=certificate.units)
    _hold_against(certificate, proved)
    return proved


def _certificate(critic: nn.Module, layers: tuple[ProvedLayer, ...], units: str) -> Certificate:
    norm_in, norm_out = first_norm(layers), layers[-1].after if layers else None
    proved = Certificate(
        lipschitz=product_up(*(part.constant for part in layers)),
        norm_in=_name(norm_in),
        norm_out=_name(norm_out),
        layers=tuple(_rows(layers)),
        weights_sha256=weights_sha256(critic),
        architecture_sha256=_architecture_sha256(layers),
        units=units,
        covers=(
            "An upper bound on the Lipschitz constant of the real-arithmetic function with these weights, from "
            f"{_name(norm_in)} to {_name(norm_out)}. Rounding in an evaluation, in "
            "float32, bfloat16 or float64, is not part of it; `evaluate` bounds that of float64."
        ),
        sha256="",
    )
    return replace(proved, sha256=_digest(proved))


def _rows(layers: Iterable[ProvedLayer]) -> Iterator[LayerCertificate]:
    for layer in layers:
        module = layer.module
        maps = getattr(module, "layers", ())
        of_chains = [part for part, own in zip(layer.parts, maps) if isinstance(own, nn.Sequential)]
        for part in of_chains:
            yield from _rows(part)
        text = f"{type(module).__name__}({module.extra_repr()})" if of_chains else " ".join(repr(module).split())
        names = _name(layer.before), _name(layer.after)
        yield LayerCertificate(layer.path, text, *names, layer.constant, layer.claim.method)


def _in_a_row(layers: Sequence[LayerCertificate]) -> list[LayerCertificate]:
    """The layers that are applied one after the other: all except those of critics side by side."""
    joins = tuple(f"{layer.path}." for layer in layers)
    return [layer for layer in layers if not layer.path.startswith(joins)]


def _hold_against(certificate: Certificate, proved: Certificate) -> None:
    """Raises :class:`InputError` where a certificate is not what was proved just now."""
    altered = "The certificate was altered"
    again = "Certify this critic again."
    if proved.weights_sha256 != certificate.weights_sha256:
        raise InputError(
            f"The certificate is about other weights: hash {certificate.weights_sha256:.12}…, not "
            f"{proved.weights_sha256[:12]}…. {again}"
        )
    if len(proved.layers) != len(certificate.layers):
        raise InputError(
            f"The certificate is about another architecture: {len(certificate.layers)} layers, not "
            f"{len(proved.layers)}. {again}"
        )
    for now, then in zip(proved.layers, certificate.layers):
        if (now.path, now.layer) != (then.path, then.layer):
            raise InputError(
                f"The certificate is about another architecture: {then.layer!r} at {then.path!r}, not {now.layer!r} "
                f"at {now.path!r}. {again}"
            )
        for name in ("norm_in", "norm_out", "method"):
            if getattr(now, name) != getattr(then, name):
                raise InputError(
                    f"{altered}: {name} at {then.path!r} is {getattr(then, name)!r}, not {getattr(now, name)!r}. "
                    f"{again}"
                )
    if proved.architecture_sha256 != certificate.architecture_sha256:
        raise InputError(
            f"The certificate is about another architecture: hash {certificate.architecture_sha256:.12}…, not "
            f"{proved.architecture_sha256[:12]}…. {again}"
        )
    pairs = [(now.path, now.lipschitz, then.lipschitz) for now, then in zip(proved.layers, certificate.layers)]
    for path, found, stated in [*pairs, ("the whole critic", proved.lipschitz, certificate.lipschitz)]:
        if not math.isclose(found, stated, rel_tol=1e-9, abs_tol=1e-300):
            raise InputError(f"{altered}: it states the constant {stated} for {path}, where {found} is proved. {again}")
    if certificate.lipschitz != (product := product_up(*(layer.lipschitz for layer in _in_a_row(certificate.layers)))):
        raise InputError(
            f"{altered}: it states {certificate.lipschitz!r}, but the layers' constants multiply to {product!r}. "
            f"{again}"
        )
    for name in ("norm_in", "norm_out", "covers"):
        if getattr(certificate, name) != getattr(proved, name):
            raise InputError(
                f"{altered}: {name} is {getattr(certificate, name)!r}, not {getattr(proved, name)!r}. {again}"
            )
    if certificate.sha256 != (digest := _digest(certificate)):
        raise InputError(f"{altered}: its fields have hash {digest[:12]}…, not {certificate.sha256:.12}…. {again}")


def _digest(certificate: Certificate) -> str:
    content = {name: value for name, value in asdict(certificate).items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def weights_sha256(module: nn.Module) -> str:
    """Hash of names, dtypes, shapes and bytes of all parameters and buffers, in order of name.

    That is the state dict, and whatever a hook or `persistent=False` keeps out of it.
    """
    digest = hashlib.sha256()
    parameters, buffers = module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)
    for name, tensor in sorted([*parameters, *buffers], key=itemgetter(0)):
        stored = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {stored.dtype} {tuple(stored.shape)}\n".encode())
        digest.update(stored.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def evaluate(critic: nn.Module, x: Tensor) -> Evaluation:
    r"""Evaluates `critic` in float64 and bounds how far each value can be from real arithmetic.

    .. math:: e_l = \mathrm{Lip}(f_l) \, e_{l-1} + \gamma_{k_l} (g_l \|x_{l-1}\| + o_l), \qquad e_0 = 0

    with the :class:`wgan_lip.lipschitz.layers.Rounding` (k, g, o) of each layer.

    Arguments:
        critic: As for :func:`certify`; a float64 copy is evaluated on the CPU.
        x: Samples, shape (n, d), any real dtype; they convert to float64 exactly.

    Returns:
        Values and error bounds, each (n,), float64; for a critic with k heads, values of shape (n, k).

    Raises:
        UncertifiableError: See :func:`certify`.
        InputError: The values are not (n,), or a map of images meets samples without channels.

    Guarantee:
        Error bounds hold for any order of summation; elementary functions are taken to be accurate to 8 ulp.

    References:
        Accuracy and stability of numerical algorithms (Higham, 2002), section 3.5
    """
    x = check_samples(x, "x")
    return prove(critic).evaluate(x)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key appears twice")
    return content


def _kind(layer: LayerCertificate) -> str:
    """The class of a layer, without its settings."""
    return layer.layer.partition("(")[0].strip()


def _name(norm: Norm | None) -> str:
    return "any" if norm is None else str(norm)


def _architecture_sha256(layers: Iterable[ProvedLayer]) -> str:
    """Hash of class names and settings, layer by layer, in the order of application.

    A class is known by its name alone, whatever module it lives in, so that code may move.
    """
    content = [described(layer.module, layer.path) for layer in layers]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
