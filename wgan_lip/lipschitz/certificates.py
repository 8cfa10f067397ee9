"""Proof that Lip(f) ≤ L, layer by layer, re-checkable."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from fractions import Fraction
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module_state

from wgan_lip.lipschitz.bounds import Norm, gamma, product_up
from wgan_lip.lipschitz.layers import STOCK_CLAIMS, Branches, Claim, LipschitzLayer
from wgan_lip.lipschitz.layers.base import CALLS, VECTORS, check_axes, members_changed, overridden_below
from wgan_lip.utils.checks import InputError, UncertifiableError, check_samples
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
        layers: One entry a layer, in the order of application. Those of critics side by side stand before the entry of
            the layer that joins them, below its path, and count in its constant alone.
        weights_sha256: Hash of names, dtypes, shapes and bytes of all weights.
        architecture_sha256: Hash of the class names and all settings of the layers, in the order of application.
        units: In words, what one unit of the input space is.
        covers: What the number is about, and what it is not.
        sha256: Hash of all other fields, which tells a certificate that was edited.

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
                f"Expected a scalar potential on Euclidean({dim}). Got a map from {self.norm_in} to {self.norm_out}. "
                "Check the critic's dimension, and that it has one head."
            )
        if not math.isfinite(self.lipschitz):
            raise InputError(f"Expected a finite Lipschitz constant. Got {self.lipschitz}. Train with retraction.")

    def headline(self) -> str:
        return f"A bound on the Lipschitz constant of a map from {self.norm_in} to {self.norm_out}"

    def bound_row(self, name: str = "Lipschitz constant") -> Row:
        """The constant and the weights that it is about, for screens where other figures stand beside it."""
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
            raise InputError(f"Expected a certificate at {path}. Got no such file. Run `wgan-lip certify`.") from None
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"Expected a certificate at {path}. Got: {error}. Run `wgan-lip certify` again.") from None


@dataclass(frozen=True)
class Evaluation:
    """Values of a critic in float64, shape (n,), and for each the largest distance to its real-arithmetic value.

    Of a critic with k heads, values of shape (n, k), and for each sample the largest distance of any of them.
    """

    values: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Proof(Printed):
    """A critic as it was when it was proved, to be evaluated at many samples without proving it again.

    It holds its own copy of the weights, so that steps of an optimiser after the proof do not reach it, and a bound
    that divides by its constant cannot be about other weights. :func:`prove` makes it.

    Attributes:
        certificate: Of the critic, at that moment.
    """

    certificate: Certificate
    _steps: tuple[_Step, ...]

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
        parts = [_evaluate(self._steps, part.clone(), x.new_zeros(len(part))) for part in rows]
        values, error = (torch.cat(tensors) for tensors in zip(*parts))
        if values.ndim != 1 and (values.ndim > 2 or values.shape[1] == 1):
            raise InputError(
                f"Expected a potential with values (n,). Got {tuple(values.shape)}. End it with Squeeze()."
            )
        return Evaluation(values, error)


DEFAULT_UNITS = "the unit of the samples as the critic receives them"


def certify(critic: nn.Module, *, units: str = DEFAULT_UNITS) -> Certificate:
    r"""Proves a Lipschitz constant for `critic`, with its weights as they are now.

    .. math:: \mathrm{Lip}(f_L \circ \cdots \circ f_1) \le \prod_l \mathrm{Lip}(f_l)

    Arguments:
        critic: A :class:`LipschitzLayer`, or an `nn.Sequential` of those and of the modules of torch.nn in
            :data:`wgan_lip.lipschitz.layers.STOCK_CLAIMS`. Any device, dtype and mode.
        units: In words, what one unit of the input space is; it is stated in the certificate and changes no number.
            To certify in the units from before a scaling (x − mean)/std, certify
            `nn.Sequential(Normalize(mean, std), critic)`.

    Returns:
        The certificate; `critic` is unchanged.

    Raises:
        UncertifiableError: A module without a proof, one whose call was replaced, hooked or compiled, one whose class
            was changed after it was defined, or two neighbours whose norms or axes do not meet; the message names its
            path.
        InputError: Weights that are not finite.

    Guarantee:
        See :class:`Certificate`. No power iteration, no sampling, no state. The function is what the classes computed
        when they were defined: a method that is replaced later, on an object or on a class, is seen and refused. What
        is not seen are changes of the functions that these methods call, such as those of torch.nn.functional.

    Example:
        >>> from wgan_lip.critics import ResNetCritic
        >>> certify(ResNetCritic(2, width=8, depth=2)).lipschitz <= 1
        True

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), sections 3 and 4
    """
    return _certificate(critic, tuple(_proofs(critic)), units)


def prove(critic: nn.Module | Proof, certificate: Certificate | None = None, *, units: str = DEFAULT_UNITS) -> Proof:
    """Proves `critic` once, for any number of evaluations.

    Arguments:
        critic: As for :func:`certify`. A :class:`Proof` is returned as it is.
        certificate: One that is said to be about this critic, and is refused where it is not; see :func:`verify`.
        units: As for :func:`certify`.

    Raises:
        InputError: A certificate that is about other weights, about another architecture, or edited.
        UncertifiableError: See :func:`certify`.
    """
    if isinstance(critic, Proof):
        proof = critic
    else:
        proved = tuple(_proofs(critic))
        steps = _steps(proved, copy.deepcopy(critic).cpu().double())
        proof = Proof(_certificate(critic, proved, units), steps)
    if certificate is not None:
        _hold_against(certificate, proof.certificate)
    return proof


def verify(certificate: Certificate, critic: nn.Module | Proof, *, units: str | None = None) -> Certificate:
    """Proves `certificate` again for `critic`, or refuses.

    Arguments:
        certificate: For instance from :meth:`Certificate.load`.
        critic: The critic it is said to be about.
        units: What one unit of the input space is, where that is known; the certificate must say the same.

    Returns:
        A certificate proved now. Its constants agree with the given ones up to rounding (relative 1e-9), by which two
        machines may differ; the rest of it is the same.

    Raises:
        InputError: Other weights, another architecture, or a certificate that was edited.
        UncertifiableError: See :func:`certify`.
    """
    if units is not None and certificate.units != units:
        raise InputError(f"Expected as units {certificate.units!r}. Got {units!r}. Certify this critic anew.")
    proved = critic.certificate if isinstance(critic, Proof) else certify(critic, units=certificate.units)
    _hold_against(certificate, proved)
    return proved


def _certificate(critic: nn.Module, layers: tuple[_Layer, ...], units: str) -> Certificate:
    norm_in, norm_out = _first_norm(layers), layers[-1].after if layers else None
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


def _rows(layers: Iterable[_Layer]) -> Iterator[LayerCertificate]:
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
    """Those that are applied one after the other: all but the layers of critics side by side."""
    joins = tuple(f"{layer.path}." for layer in layers)
    return [layer for layer in layers if not layer.path.startswith(joins)]


def _hold_against(certificate: Certificate, proved: Certificate) -> None:
    """Raises :class:`InputError` where a certificate is not what was proved just now."""
    again = "certify this critic anew."
    if proved.weights_sha256 != certificate.weights_sha256:
        raise InputError(
            f"Expected the weights with hash {certificate.weights_sha256:.12}…. Got {proved.weights_sha256[:12]}…. "
            f"The certificate is about other weights; {again}"
        )
    if len(proved.layers) != len(certificate.layers):
        raise InputError(
            f"Expected {len(certificate.layers)} layers. Got {len(proved.layers)}. "
            f"The certificate is about another architecture; {again}"
        )
    for now, then in zip(proved.layers, certificate.layers):
        if (now.path, now.layer) != (then.path, then.layer):
            raise InputError(
                f"Expected at {then.path!r} {then.layer!r}. Got at {now.path!r} {now.layer!r}. "
                f"The certificate is about another architecture; {again}"
            )
        for name in ("norm_in", "norm_out", "method"):
            if getattr(now, name) != getattr(then, name):
                raise InputError(
                    f"Expected as {name} at {then.path!r} {getattr(then, name)!r}. Got {getattr(now, name)!r}. "
                    f"The certificate was altered; {again}"
                )
    if proved.architecture_sha256 != certificate.architecture_sha256:
        raise InputError(
            f"Expected the settings with hash {certificate.architecture_sha256:.12}…. Got "
            f"{proved.architecture_sha256[:12]}…. The certificate is about another architecture; {again}"
        )
    pairs = [(now.path, now.lipschitz, then.lipschitz) for now, then in zip(proved.layers, certificate.layers)]
    for path, found, stated in [*pairs, ("the whole critic", proved.lipschitz, certificate.lipschitz)]:
        if not math.isclose(found, stated, rel_tol=1e-9, abs_tol=1e-300):
            raise InputError(
                f"Expected the constant {stated} for {path}. Proved {found}. The certificate was altered; {again}"
            )
    if certificate.lipschitz != (product := product_up(*(layer.lipschitz for layer in _in_a_row(certificate.layers)))):
        raise InputError(
            f"Expected the product of the layers' constants, {product!r}. Got {certificate.lipschitz!r}. "
            f"The certificate was altered; {again}"
        )
    for name in ("norm_in", "norm_out", "covers"):
        if getattr(certificate, name) != getattr(proved, name):
            raise InputError(
                f"Expected as {name} {getattr(certificate, name)!r}. Got {getattr(proved, name)!r}. "
                f"The certificate was altered; {again}"
            )
    if certificate.sha256 != (digest := _digest(certificate)):
        raise InputError(
            f"Expected fields with hash {certificate.sha256:.12}…. Got {digest[:12]}…. "
            f"The certificate was altered; {again}"
        )


def _digest(certificate: Certificate) -> str:
    content = {name: value for name, value in asdict(certificate).items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def weights_sha256(module: nn.Module) -> str:
    """Hash of names, dtypes, shapes and bytes of all parameters and buffers, in order of name.

    Those are the entries of the state dict, and what a hook or `persistent=False` keeps out of it.
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
        Values and error bounds, each (n,), float64; of a critic with k heads, values of shape (n, k).

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


@dataclass(frozen=True, eq=False)
class _Step:
    """A layer of a proof's own copy, in float64, under the claim that was proved.

    Attributes:
        path, module, claim: Its own.
        largest: The size of its largest weight.
        parts: The steps of each map, of :class:`Branches`.
    """

    path: str
    module: nn.Module
    claim: Claim
    largest: float
    parts: tuple[tuple[_Step, ...], ...] = ()

    @property
    def widest(self) -> int:
        """The most coordinates of a state that is known, together with those beside it."""
        within = sum(max((step.widest for step in part), default=0) for part in self.parts)
        return max(within, self.claim.norm_out.dim if self.claim.norm_out else 0)


def _steps(layers: Iterable[_Layer], module: nn.Module) -> tuple[_Step, ...]:
    """The steps of `module`, a copy of what the layers were proved of."""
    steps = []
    for layer, (_, own) in zip(layers, _chain(module), strict=True):
        weights = [tensor for tensor in own.parameters(recurse=not layer.parts) if tensor.numel()]
        largest = max((tensor.abs().max().item() for tensor in weights), default=0.0)
        parts = tuple(_steps(part, inner) for part, inner in zip(layer.parts, getattr(own, "layers", ())))
        steps.append(_Step(layer.path, own, layer.claim, largest, parts))
    return tuple(steps)


def _evaluate(steps: Iterable[_Step], state: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """The values at a few samples, which stay in the processor's cache through all layers, and their errors, from
    states that stray by `error`, (b,)."""
    for step in steps:
        path, claim, rounding = step.path, step.claim, step.claim.rounding
        _check_state(path, claim, state)
        if step.parts:
            state, error, carried, apply = _reached(step, state, error)
        else:
            carried, apply = claim.lipschitz * error, step.module
        largest = state.reshape(len(error), -1).abs().amax(dim=1)
        # Beyond, a sum of products may overflow within the layer, and a ReLU hide it.
        carried[~(max(1.0, step.largest, rounding.gain) * largest + rounding.offset < LARGEST)] = math.inf
        if rounding.operations:
            unit = largest.clamp_min(1e-300).view(-1, *[1] * (state.ndim - 1))
            size = unit.flatten() * (state / unit).flatten(1).norm(dim=1) if state.ndim > 1 else largest
            operations = rounding.operations + (state[0].numel() if rounding.sums_all else 0)
            before, state = state, apply(state)
            # Coordinatewise maps stray in every coordinate by themselves, maps of vectors in every vector of an image.
            of_vectors = claim.norm_in is not None and (len(claim.axes) == 1 or before.ndim == 2)
            first = 2 if of_vectors else 1
            positions = max(math.prod(before.shape[first:]), math.prod(state.shape[first:]))
            offset = rounding.offset * math.sqrt(positions) * 1.01
            local = gamma(operations) * 1.01 * (rounding.gain * (size + error) + offset)
            underflow = 1e-290 * (1 + rounding.gain)  # 1e17 operations' worth
            error = (carried + local + underflow) * (1 + 2.0**-40)
        else:
            state = apply(state)
            error = carried * (1 + 2.0**-40)
        if state.ndim == 0 or len(state) != len(error):
            raise InputError(
                f"At '{path}': Expected one value, or state, for each of {len(error)} samples. Got shape "
                f"{tuple(state.shape)}. Put a Flatten or an Unflatten before it."
            )
        error[~state.reshape(len(error), -1).isfinite().all(dim=1)] = math.inf  # a later layer may clip an overflow
    return state, error.nan_to_num(nan=math.inf, posinf=math.inf)


def _reached(step: _Step, state: Tensor, error: Tensor) -> tuple[Tensor, Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """What maps side by side make of the state, one behind the other, how far it strays, how far the join carries that,
    and the join."""
    module = cast(Branches, step.module)
    reached = [_evaluate(part, own, error) for part, own in zip(step.parts, module.inputs(state))]
    values, errors = [value for value, _ in reached], torch.stack([stray for _, stray in reached])
    beside = torch.cat([value.reshape(len(error), -1) for value in values], dim=1)
    return beside, errors.sum(dim=0), module.carried(errors), lambda _: module.join(values)


def _check_state(path: str, claim: Claim, state: Tensor) -> None:
    """Refuses states of other axes or another width than the claim is about. Raises :class:`InputError`."""
    try:
        check_axes(claim.axes, state.ndim - 1, state.shape)
    except InputError as error:
        raise InputError(f"At '{path}': {error}") from None
    width = claim.norm_in.dim if claim.axes == VECTORS and claim.norm_in is not None else 0
    if width and state.shape[1] != width:
        raise InputError(f"At '{path}': Expected states of shape (b, {width}). Got {tuple(state.shape)}.")


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key stands there twice")
    return content


LARGEST = 1e290  # sums of 1e18 such numbers stay finite


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer with its path, its claim, and the norms before and after it."""

    path: str
    module: nn.Module
    claim: Claim
    before: Norm | None
    after: Norm | None
    axes_after: int | None
    parts: tuple[tuple[_Layer, ...], ...] = ()

    @property
    def constant(self) -> float:
        return float(self.claim.lipschitz)


def claim_of(module: nn.Module) -> Claim:
    """What is proved of a layer, or of a chain of them as a whole, but for its rounding; see :func:`certify`."""
    return _composed(tuple(_proofs(module)))


def _composed(layers: tuple[_Layer, ...]) -> Claim:
    """What layers one after the other prove together, of vectors where they are more than one."""
    if len(layers) == 1:
        return layers[0].claim
    norms = _first_norm(layers), layers[-1].after if layers else None
    axes = layers[-1].axes_after if layers else None
    added = 0 if axes is None else axes - 1
    lipschitz = product_up(*(layer.constant for layer in layers))
    return Claim(lipschitz, f"product of {len(layers)} layers", *norms, axes=VECTORS, axes_added=added)


def _first_norm(layers: Iterable[_Layer]) -> Norm | None:
    return next((layer.before for layer in layers if layer.before is not None), None)


def _proofs(critic: nn.Module, within: str = "") -> Iterator[_Layer]:
    """The layers in the order of application, whose norms and axes must meet; `within` is the path of the critic, if it
    is one of several side by side."""
    state = None  # as long as no layer has said what it takes
    axes = 1 if within else None  # side by side they take vectors
    for path, module in _chain(critic, within):
        parts: tuple[tuple[_Layer, ...], ...] = ()
        if isinstance(module, Branches) and type(module).claim is Branches.claim:
            parts = tuple(tuple(_proofs(own, f"{path}.layers.{index}")) for index, own in enumerate(module.layers))
        claim = _claim(path, module, *parts)
        norm_in, norm_out = claim.norm_in, claim.norm_out
        if axes is None and (len(claim.axes) == 1 or claim.axes_added):
            axes = claim.axes[0]
        if axes is not None:
            try:
                check_axes(claim.axes, axes)
            except InputError as error:
                raise UncertifiableError(f"At '{path}': {error}") from None
            norms = [norm for norm in (norm_in, norm_out) if norm is not None and norm.blocks]
            if axes > 1 and norms:  # of every vector along an axis, which adds up in Euclidean norms alone
                if any(len(norm.blocks) > 1 for norm in norms):
                    raise UncertifiableError(
                        f"Expected vectors (b, d) at '{path}', proved from {norm_in} to {norm_out}. Got samples "
                        f"of {axes} axes. Put a Flatten before it, or prove it in Euclidean norms."
                    )
                norm_in = norm_out = Norm.euclidean()
        if norm_in is not None and state is not None and not norm_in.meets(state):
            raise UncertifiableError(
                f"Expected '{path}' to take the norm before it, {state}. Got a layer for {norm_in}. "
                "Put a Linear(norm_in, norm_out) between them."
            )
        before = norm_in or state
        state = norm_out or before
        if claim.axes_added is None:
            axes = 1
        elif axes is not None:
            axes += claim.axes_added
        yield _Layer(path, module, claim, before, state, axes, parts)


def _chain(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers that a forward pass applies one after the other, with their paths."""
    if not isinstance(module, nn.Module):
        raise UncertifiableError(f"Expected a torch module. Got {module!r:.60}. Build it first.")
    _refuse_disguises(module, path)
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        for name, child in module._modules.items():  # named_children() would skip a layer that is used twice
            yield from _chain(child, f"{path}.{name}" if path else name)
    else:
        for inner_path, inner in module.named_modules():
            _refuse_disguises(inner, ".".join(part for part in (path, inner_path) if part))
        yield path or type(module).__name__, module


def _refuse_disguises(module: nn.Module, path: str) -> None:
    """Refuses whatever makes calling `module` differ from its class's forward, or its weights from their entries."""
    kind = type(module)
    weights = [v for v in (*module._parameters.values(), *module._buffers.values()) if v is not None]
    changed = members_changed(kind)
    disguises = {
        "a method replaced on the instance": any(callable(getattr(kind, name, None)) for name in module.__dict__),
        "forward hooks": module._forward_hooks or module._forward_pre_hooks,
        "global forward hooks": _module_state._global_forward_hooks or _module_state._global_forward_pre_hooks,
        "a parametrized weight": "parametrizations" in module._modules,
        "a compiled call": module._compiled_call_impl is not None,
        f"a class that was changed after it was defined ({', '.join(changed[:3])})": changed,
        "a class that overrides __call__": any(getattr(kind, name) is not getattr(nn.Module, name) for name in CALLS),
        "a class that overrides __iter__": issubclass(kind, nn.Sequential) and kind.__iter__ is not SEQUENTIAL_ITER,
        "a tensor that is neither parameter nor buffer": any(isinstance(v, Tensor) for v in module.__dict__.values()),
        "a weight that is no dense tensor of real numbers": not all(map(_plain, weights)),
    }
    for what, present in disguises.items():
        if present:
            raise UncertifiableError(
                f"Expected a plain module at '{path or kind.__name__}': its class's forward on its own weights. "
                f"Got {what}. Remove it; a parametrization by torch.nn.utils.parametrize.remove_parametrizations."
            )
    proofs = JOINT_PROOFS if isinstance(module, Branches) else PROOFS
    if isinstance(module, LipschitzLayer) and (overridden := overridden_below(kind, proofs)):
        raise UncertifiableError(
            f"At '{path or kind.__name__}': Expected {kind.__name__}, which overrides {', '.join(overridden)}, to "
            f"override {sorted(proofs)[0]}() as well. An inherited proof is about another function."
        )


SEQUENTIAL_ITER = nn.Sequential.__iter__
PROOFS = {"claim", "slopes"}  # a class that overrides what its base computes with overrides one of them
JOINT_PROOFS = {"claim", "joint", "joint_constant"}  # of maps side by side


def _plain(weight: Tensor) -> bool:
    """Whether the entries are what any operation sees; a subclass, such as a quantised weight, may compute with others.

    Buffers of integers, such as permutations, are left to the layer's own claim.
    """
    real = weight.is_floating_point() or not (isinstance(weight, nn.Parameter) or weight.is_complex())
    plain = type(weight) in (Tensor, nn.Parameter) and weight.layout == torch.strided
    return real and plain and not (weight.is_meta or weight.is_quantized or weight.is_neg())


def _claim(path: str, module: nn.Module, *parts: tuple[_Layer, ...]) -> Claim:
    try:
        if not isinstance(module, LipschitzLayer) and type(module) not in STOCK_CLAIMS:
            raise UncertifiableError(
                f"Expected layers with a provable constant. Got {type(module).__name__}. Use a layer of "
                "wgan_lip.lipschitz.layers, or derive from LipschitzLayer and prove its constant in claim()."
            )
        if parts:
            claim = cast(Branches, module).joint([_composed(part) for part in parts])
        elif isinstance(module, LipschitzLayer):
            claim = module.claim()
        else:
            claim = STOCK_CLAIMS[type(module)](module)
        if not claim.lipschitz >= 0:  # NaN included, which a zero after it would hide
            raise UncertifiableError(f"Expected a constant of at least 0. Got {claim.lipschitz}. Mend its claim().")
        return claim
    except InputError as error:
        raise type(error)(f"At '{path}': {error}") from None


def _kind(layer: LayerCertificate) -> str:
    """The class of a layer, without its settings."""
    return layer.layer.partition("(")[0].strip()


def _name(norm: Norm | None) -> str:
    return "any" if norm is None else str(norm)


_INTERNAL = frozenset(vars(nn.Module()))  # torch's own, and what a certificate hashes or refuses elsewhere


def _architecture_sha256(layers: Iterable[_Layer]) -> str:
    """Hash of class names and settings, layer by layer, in the order of application.

    A class is known by its name alone, whatever module it lives in, so that code may move.
    """
    content = [_described(layer.module, layer.path) for layer in layers]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def described_layers(critic: nn.Module) -> list[tuple[str, nn.Module, list[Any]]]:
    """Path, module and description of each layer in the order of application: the descriptions are what
    `architecture_sha256` of a certificate is the hash of. Raises :class:`UncertifiableError`, as :func:`certify`."""
    return [(path, module, _described(module, path)) for path, module in _chain(critic)]


def _described(module: nn.Module, path: str) -> list[Any]:
    """Class name, settings and parts of a layer, as JSON holds them; of a chain side by side with others, its layers
    alone, as of the critic itself."""
    settings = {}
    chain = isinstance(module, nn.Sequential)
    for name, value in vars(module).items():
        if chain or name in _INTERNAL:
            continue
        try:
            settings[name] = _plain_setting(value)
        except TypeError as error:
            raise UncertifiableError(
                f"Expected settings at '{path}' that a certificate can hold: numbers, text, sequences, dataclasses of "
                f"those. Got {error} as {name}. Keep it as a parameter, a buffer or a part, or in the class."
            ) from None
    parts = [
        [name, None if part is None else _described(part, f"{path}.{name}")] for name, part in module._modules.items()
    ]
    return ["Sequential" if chain else type(module).__qualname__, settings, parts]


def _plain_setting(value: Any) -> Any:
    """A setting as JSON holds it; equal numbers are equal. Raises TypeError for what has no such form."""
    match value:
        case None | bool() | str():
            return value
        case int() | float():
            finite = isinstance(value, int) or math.isfinite(value)
            return {"number": str(Fraction(value)) if finite else repr(value)}
        case np.generic():
            return _plain_setting(value.item())
        case torch.dtype() | torch.device():
            return str(value)
        case list() | tuple() | range():
            return [_plain_setting(part) for part in value]
        case set() | frozenset():
            return sorted(map(_plain_setting, value), key=json.dumps)
        case Mapping():
            return {"mapping": [[_plain_setting(key), _plain_setting(part)] for key, part in value.items()]}
    if is_dataclass(value) and not isinstance(value, type):
        named = [[field.name, _plain_setting(getattr(value, field.name))] for field in fields(value)]
        return {type(value).__qualname__: named}
    raise TypeError(f"a {type(value).__name__}")
