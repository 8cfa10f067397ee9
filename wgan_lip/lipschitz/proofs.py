"""What is proved about a critic, layer by layer, and its evaluation with error bounds from that."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module_state

from wgan_lip.lipschitz.bounds import Norm, gamma, product_up
from wgan_lip.lipschitz.layers import STOCK_CLAIMS, Branches, Claim, LipschitzLayer
from wgan_lip.lipschitz.layers.base import CALLS, VECTORS, check_axes, members_changed, overridden_below
from wgan_lip.utils.checks import InputError, UncertifiableError

__all__ = [
    "ProvedLayer",
    "Step",
    "claim_of",
    "described",
    "described_layers",
    "evaluate_steps",
    "first_norm",
    "proved_layers",
    "steps_of",
]


_INTERNAL = frozenset(vars(nn.Module()))  # torch's own, and what a certificate hashes or refuses elsewhere


@dataclass(frozen=True, eq=False)
class ProvedLayer:
    """A layer with its path, its claim, and the norms before and after it."""

    path: str
    module: nn.Module
    claim: Claim
    before: Norm | None
    after: Norm | None
    axes_after: int | None
    parts: tuple[tuple[ProvedLayer, ...], ...] = ()

    @property
    def constant(self) -> float:
        return float(self.claim.lipschitz)


def claim_of(module: nn.Module) -> Claim:
    """What is proved about a layer, or a chain of layers as a whole, without its rounding; see :func:`certify`."""
    return _composed(tuple(proved_layers(module)))


def _composed(layers: tuple[ProvedLayer, ...]) -> Claim:
    """What layers one after the other prove together, for vectors if there are several layers."""
    if len(layers) == 1:
        return layers[0].claim
    norms = first_norm(layers), layers[-1].after if layers else None
    axes = layers[-1].axes_after if layers else None
    added = 0 if axes is None else axes - 1
    lipschitz = product_up(*(layer.constant for layer in layers))
    return Claim(lipschitz, f"product of {len(layers)} layers", *norms, axes=VECTORS, axes_added=added)


def first_norm(layers: Iterable[ProvedLayer]) -> Norm | None:
    return next((layer.before for layer in layers if layer.before is not None), None)


def proved_layers(critic: nn.Module, within: str = "") -> Iterator[ProvedLayer]:
    """The layers in the order of application, whose norms and axes must match; `within` is the path of the critic, if
    it is one of several side by side."""
    state = None  # as long as no layer has said what it takes
    axes = 1 if within else None  # side by side they take vectors
    for path, module in _chain(critic, within):
        parts: tuple[tuple[ProvedLayer, ...], ...] = ()
        if isinstance(module, Branches) and type(module).claim is Branches.claim:
            parts = tuple(
                tuple(proved_layers(own, f"{path}.layers.{index}")) for index, own in enumerate(module.layers)
            )
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
                        f"'{path}' is proved from {norm_in} to {norm_out}, for vectors (b, d), and gets samples of "
                        f"{axes} axes. Put a Flatten before it, or prove it in Euclidean norms."
                    )
                norm_in = norm_out = Norm.euclidean()
        if norm_in is not None and state is not None and not norm_in.meets(state):
            raise UncertifiableError(
                f"'{path}' is proved for inputs in {norm_in}, but the layer before it ends in {state}. "
                "Put a Linear(norm_in, norm_out) between them."
            )
        before = norm_in or state
        state = norm_out or before
        if claim.axes_added is None:
            axes = 1
        elif axes is not None:
            axes += claim.axes_added
        yield ProvedLayer(path, module, claim, before, state, axes, parts)


def _chain(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers that a forward pass applies one after the other, with their paths."""
    if not isinstance(module, nn.Module):
        raise UncertifiableError(f"The critic must be a torch module, not {module!r:.60}. Build it first.")
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
        "a weight that is not a dense tensor of real numbers": not all(map(_plain, weights)),
    }
    for what, present in disguises.items():
        if present:
            raise UncertifiableError(
                f"The module at '{path or kind.__name__}' has {what}, so a proof of its class may not hold for it. "
                "Remove it; a parametrization by torch.nn.utils.parametrize.remove_parametrizations."
            )
    proofs = JOINT_PROOFS if isinstance(module, Branches) else PROOFS
    if isinstance(module, LipschitzLayer) and (overridden := overridden_below(kind, proofs)):
        raise UncertifiableError(
            f"At '{path or kind.__name__}': {kind.__name__} overrides {', '.join(overridden)}, so it must override "
            f"{sorted(proofs)[0]}() as well. An inherited proof is about another function."
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


def _claim(path: str, module: nn.Module, *parts: tuple[ProvedLayer, ...]) -> Claim:
    try:
        if not isinstance(module, LipschitzLayer) and type(module) not in STOCK_CLAIMS:
            raise UncertifiableError(
                f"{type(module).__name__} has no provable constant. Use a layer of wgan_lip.lipschitz.layers, or "
                "derive from LipschitzLayer and prove its constant in claim()."
            )
        if parts:
            claim = cast(Branches, module).joint([_composed(part) for part in parts])
        elif isinstance(module, LipschitzLayer):
            claim = module.claim()
        else:
            claim = STOCK_CLAIMS[type(module)](module)
        if not claim.lipschitz >= 0:  # NaN included, which a zero after it would hide
            raise UncertifiableError(f"A constant must be at least 0, not {claim.lipschitz}. Correct its claim().")
        return claim
    except InputError as error:
        raise type(error)(f"At '{path}': {error}") from None


def described_layers(critic: nn.Module) -> list[tuple[str, nn.Module, list[Any]]]:
    """Path, module and description of each layer in the order of application: `architecture_sha256` of a certificate
    is the hash of the descriptions. Raises :class:`UncertifiableError`, as :func:`certify`."""
    return [(path, module, described(module, path)) for path, module in _chain(critic)]


def described(module: nn.Module, path: str) -> list[Any]:
    """Class name, settings and parts of a layer, as JSON holds them; for a chain side by side with others only its
    layers, as for the critic itself."""
    settings = {}
    chain = isinstance(module, nn.Sequential)
    for name, value in vars(module).items():
        if chain or name in _INTERNAL:
            continue
        try:
            settings[name] = _plain_setting(value)
        except TypeError as error:
            raise UncertifiableError(
                f"The setting {name} at '{path}' is {error}, which a certificate can't hold: only numbers, text, "
                "sequences, dataclasses of those. Keep it as a parameter, a buffer or a submodule, or in the class."
            ) from None
    parts = [
        [name, None if part is None else described(part, f"{path}.{name}")] for name, part in module._modules.items()
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


LARGEST = 1e290  # sums of 1e18 such numbers stay finite


@dataclass(frozen=True, eq=False)
class Step:
    """A layer of a proof's own copy, in float64, under the claim that was proved.

    Attributes:
        path, module, claim: Those of the layer.
        largest: The size of its largest weight.
        parts: The steps of each map of :class:`Branches`.
    """

    path: str
    module: nn.Module
    claim: Claim
    largest: float
    parts: tuple[tuple[Step, ...], ...] = ()

    @property
    def widest(self) -> int:
        """The most coordinates of a state that is known, together with those beside it."""
        within = sum(max((step.widest for step in part), default=0) for part in self.parts)
        return max(within, self.claim.norm_out.dim if self.claim.norm_out else 0)


def steps_of(layers: Iterable[ProvedLayer], module: nn.Module) -> tuple[Step, ...]:
    """The steps of `module`, a copy of the critic whose layers were proved."""
    steps = []
    for layer, (_, own) in zip(layers, _chain(module), strict=True):
        weights = [tensor for tensor in own.parameters(recurse=not layer.parts) if tensor.numel()]
        largest = max((tensor.abs().max().item() for tensor in weights), default=0.0)
        parts = tuple(steps_of(part, inner) for part, inner in zip(layer.parts, getattr(own, "layers", ())))
        steps.append(Step(layer.path, own, layer.claim, largest, parts))
    return tuple(steps)


def evaluate_steps(steps: Iterable[Step], state: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
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
                f"At '{path}': the output must have one row for each of {len(error)} samples, not shape "
                f"{tuple(state.shape)}. Put a Flatten or an Unflatten before it."
            )
        error[~state.reshape(len(error), -1).isfinite().all(dim=1)] = math.inf  # a later layer may clip an overflow
    return state, error.nan_to_num(nan=math.inf, posinf=math.inf)


def _reached(step: Step, state: Tensor, error: Tensor) -> tuple[Tensor, Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """The outputs of maps side by side, concatenated; how far they stray, how far the join carries that, and the
    join."""
    module = cast(Branches, step.module)
    reached = [evaluate_steps(part, own, error) for part, own in zip(step.parts, module.inputs(state))]
    values, errors = [value for value, _ in reached], torch.stack([stray for _, stray in reached])
    beside = torch.cat([value.reshape(len(error), -1) for value in values], dim=1)
    return beside, errors.sum(dim=0), module.carried(errors), lambda _: module.join(values)


def _check_state(path: str, claim: Claim, state: Tensor) -> None:
    """Raises :class:`InputError` for states with other axes or another width than the claim is about."""
    try:
        check_axes(claim.axes, state.ndim - 1, state.shape)
    except InputError as error:
        raise InputError(f"At '{path}': {error}") from None
    width = claim.norm_in.dim if claim.axes == VECTORS and claim.norm_in is not None else 0
    if width and state.shape[1] != width:
        raise InputError(f"At '{path}': states must have shape (b, {width}), not {tuple(state.shape)}.")
