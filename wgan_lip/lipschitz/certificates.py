"""Proof that Lip(f) ≤ L, layer by layer, re-checkable."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from operator import itemgetter
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module_state

from wgan_lip.lipschitz.bounds import Norm, gamma, product_up
from wgan_lip.lipschitz.layers import STOCK_CLAIMS, Claim, LipschitzLayer
from wgan_lip.utils.checks import InputError, UncertifiableError, check_samples
from wgan_lip.utils.files import write_json

__all__ = [
    "Certificate",
    "Evaluation",
    "LayerCertificate",
    "certify",
    "evaluate",
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


@dataclass(frozen=True)
class Certificate:
    """A proved constant: |f(x) − f(y)|_out ≤ lipschitz · ‖x − y‖_in for all x, y.

    Attributes:
        lipschitz: The bound L, the layers' constants multiplied and rounded up.
        norm_in: Norm of the input space.
        norm_out: Norm of the output space; `Euclidean(1)` for a potential.
        layers: One entry a layer, in the order of application.
        weights_sha256: Hash of names, dtypes, shapes and bytes of all weights.
        units: In words, what one unit of the input space is.
        covers: What the number is about, and what it is not.

    Guarantee:
        Holds for the real-arithmetic function whose weights are the stored numbers with this hash, in train and eval
        mode alike. Floating-point evaluation of f adds rounding, which :func:`evaluate` bounds.
    """

    lipschitz: float
    norm_in: str
    norm_out: str
    layers: tuple[LayerCertificate, ...]
    weights_sha256: str
    units: str
    covers: str

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

    def save(self, path: str | Path) -> None:
        """Writes the certificate as JSON, whole or not at all."""
        write_json(path, asdict(self))

    @staticmethod
    def load(path: str | Path) -> Certificate:
        """Reads a certificate. It is a claim until :func:`verify` has proved it again. Raises :class:`InputError`."""
        try:
            text = Path(path).read_text(encoding="utf-8")
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
    """Values of a critic in float64, shape (n,), and for each the largest distance to its real-arithmetic value."""

    values: Tensor
    error: Tensor


def certify(critic: nn.Module, *, units: str = "the unit of the samples as the critic receives them") -> Certificate:
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
        UncertifiableError: A module without a proof, one whose call was replaced, hooked or compiled, or two
            neighbours whose norms do not meet; the message names its path.
        InputError: Weights that are not finite.

    Guarantee:
        See :class:`Certificate`. No power iteration, no sampling, no state.

    Example:
        >>> from wgan_lip.critics import ResNetCritic
        >>> certify(ResNetCritic(2, width=8, depth=2)).lipschitz <= 1
        True

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), sections 3 and 4
    """
    layers, constants = [], []
    norm_in = norm_out = None
    for path, module, claim, before, after in _proofs(critic):
        norm_in, norm_out = norm_in or before, after
        constants.append(float(claim.lipschitz))
        description = " ".join(repr(module).split())
        layers.append(LayerCertificate(path, description, _name(before), _name(after), constants[-1], claim.method))
    lipschitz = product_up(*constants)
    return Certificate(
        lipschitz=lipschitz,
        norm_in=_name(norm_in),
        norm_out=_name(norm_out),
        layers=tuple(layers),
        weights_sha256=weights_sha256(critic),
        units=units,
        covers=(
            "An upper bound on the Lipschitz constant of the real-arithmetic function with these weights, from "
            f"{_name(norm_in)} to {_name(norm_out)}. Rounding in an evaluation, in "
            "float32, bfloat16 or float64, is not part of it; `evaluate` bounds that of float64."
        ),
    )


def verify(certificate: Certificate, critic: nn.Module) -> Certificate:
    """Proves `certificate` again for `critic`, or refuses.

    Arguments:
        certificate: For instance from :meth:`Certificate.load`.
        critic: The critic it is said to be about.

    Returns:
        A certificate proved now, which agrees with the given one up to rounding (relative 1e-9).

    Raises:
        InputError: Other weights, another architecture, or a number that is not what the proof gives.
        UncertifiableError: See :func:`certify`.
    """
    proved = certify(critic, units=certificate.units)
    if proved.weights_sha256 != certificate.weights_sha256:
        raise InputError(
            f"Expected the weights with hash {certificate.weights_sha256[:12]}…. Got {proved.weights_sha256[:12]}…. "
            "The certificate is about other weights; certify this critic anew."
        )
    if len(proved.layers) != len(certificate.layers):
        raise InputError(
            f"Expected {len(certificate.layers)} layers. Got {len(proved.layers)}. "
            "The certificate is about another architecture; certify this critic anew."
        )
    for now, then in zip(proved.layers, certificate.layers):
        if (now.path, now.layer, now.norm_in, now.norm_out) != (then.path, then.layer, then.norm_in, then.norm_out):
            raise InputError(
                f"Expected at {then.path!r} {then.layer!r}. Got at {now.path!r} {now.layer!r}. "
                "The certificate is about another architecture; certify this critic anew."
            )
    pairs = [(now.path, now.lipschitz, then.lipschitz) for now, then in zip(proved.layers, certificate.layers)]
    for path, now, then in [*pairs, ("the whole critic", proved.lipschitz, certificate.lipschitz)]:
        if not math.isclose(now, then, rel_tol=1e-9, abs_tol=1e-300):
            raise InputError(
                f"Expected the constant {then} for {path}. Proved {now}. "
                "The certificate was altered; certify this critic anew."
            )
    for name in ("norm_in", "norm_out", "covers"):
        if getattr(certificate, name) != getattr(proved, name):
            raise InputError(
                f"Expected as {name} {getattr(certificate, name)!r}. Got {getattr(proved, name)!r}. "
                "The certificate was altered; certify this critic anew."
            )
    return proved


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


@torch.no_grad()
def evaluate(critic: nn.Module, x: Tensor) -> Evaluation:
    r"""Evaluates `critic` in float64 and bounds how far each value can be from real arithmetic.

    .. math:: e_l = \mathrm{Lip}(f_l) \, e_{l-1} + \gamma_{k_l} (g_l \|x_{l-1}\| + o_l), \qquad e_0 = 0

    with the :class:`wgan_lip.lipschitz.layers.Rounding` (k, g, o) of each layer.

    Arguments:
        critic: As for :func:`certify`; a float64 copy is evaluated on the CPU.
        x: Samples, shape (n, d), any real dtype; they convert to float64 exactly.

    Returns:
        Values and error bounds, each (n,), float64.

    Raises:
        UncertifiableError: See :func:`certify`.
        InputError: The values are not (n,), or a map of images meets samples without channels.

    Guarantee:
        Error bounds hold for any order of summation; elementary functions are taken to be accurate to 8 ulp.

    References:
        Accuracy and stability of numerical algorithms (Higham, 2002), section 3.5
    """
    x = check_samples(x, "x").detach().cpu().double()
    proofs = list(_proofs(copy.deepcopy(critic).cpu().double()))
    layers = [(path, module, claim, _largest(module)) for path, module, claim, *_ in proofs]
    widest = max([x.shape[1], *(norm.dim for *_, norm in proofs if norm is not None)])
    rows = x.split(max(16, 2**21 // widest))
    parts = [_evaluate(layers, part.clone()) for part in rows]  # cloned, for a module may work in place
    values, error = (torch.cat(tensors) for tensors in zip(*parts))
    if values.ndim != 1:
        raise InputError(f"Expected a potential with values (n,). Got {tuple(values.shape)}. End it with Squeeze().")
    return Evaluation(values, error)


def _largest(module: nn.Module) -> float:
    """The size of the largest weight."""
    return max((tensor.abs().max().item() for tensor in module.parameters() if tensor.numel()), default=0.0)


def _evaluate(layers: list[tuple[str, nn.Module, Claim, float]], state: Tensor) -> tuple[Tensor, Tensor]:
    """The values at a few samples, which stay in the processor's cache through all layers, and their errors."""
    error = state.new_zeros(len(state))
    for path, module, claim, weight in layers:
        rounding = claim.rounding
        axes = {"1d": 1, "2d": 2}.get(type(module).__name__[-2:])
        if axes and state.ndim != axes + 2:
            raise InputError(
                f"At '{path}': Expected samples with channels and {axes} more axes. Got {tuple(state.shape)}, whose "
                "first axis torch may read as channels. Put an Unflatten before it."
            )
        largest = state.reshape(len(error), -1).abs().amax(dim=1)
        # Beyond, a sum of products may overflow within the layer, and a ReLU hide it.
        error[~(max(1.0, weight, rounding.gain) * largest + rounding.offset < LARGEST)] = math.inf
        if rounding.operations:
            unit = largest.clamp_min(1e-300).view(-1, *[1] * (state.ndim - 1))
            size = unit.flatten() * (state / unit).flatten(1).norm(dim=1) if state.ndim > 1 else largest
            before, state = state, module(state)
            # Coordinatewise maps stray in every coordinate by themselves, maps of vectors in every vector of an image.
            first = 1 if claim.norm_in is None or (claim.norm_in.blocks and before.ndim > 2) else 2
            positions = max(math.prod(before.shape[first:]), math.prod(state.shape[first:]))
            offset = rounding.offset * math.sqrt(positions) * 1.01
            local = gamma(rounding.operations) * 1.01 * (rounding.gain * (size + error) + offset)
            underflow = 1e-290 * (1 + rounding.gain)  # 1e17 operations' worth
            error = (claim.lipschitz * error + local + underflow) * (1 + 2.0**-40)
        else:
            state = module(state)
            error = claim.lipschitz * error * (1 + 2.0**-40)
        error[~state.reshape(len(error), -1).isfinite().all(dim=1)] = math.inf  # a later layer may clip an overflow
    return state, error.nan_to_num(nan=math.inf, posinf=math.inf)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key stands there twice")
    return content


LARGEST = 1e290  # sums of 1e18 such numbers stay finite


def _proofs(critic: nn.Module) -> Iterator[tuple[str, nn.Module, Claim, Norm | None, Norm | None]]:
    """Each layer with its path, its claim, and the norms before and after it, which must meet."""
    state = None
    for path, module in _chain(critic):
        claim = _claim(path, module)
        if claim.norm_in is not None and state is not None and not claim.norm_in.meets(state):
            raise UncertifiableError(
                f"Expected '{path}' to take the norm before it, {state}. Got a layer for {claim.norm_in}. "
                "Put a Linear(norm_in, norm_out) between them."
            )
        before = claim.norm_in or state
        state = claim.norm_out or before
        yield path, module, claim, before, state


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
    disguises = {
        "a method replaced on the instance": any(callable(getattr(kind, name, None)) for name in module.__dict__),
        "forward hooks": module._forward_hooks or module._forward_pre_hooks,
        "global forward hooks": _module_state._global_forward_hooks or _module_state._global_forward_pre_hooks,
        "a parametrized weight": "parametrizations" in module._modules,
        "a compiled call": module._compiled_call_impl is not None,
        "a class that overrides __call__": any(getattr(kind, name) is not getattr(nn.Module, name) for name in CALLS),
        "a class that overrides __iter__": isinstance(module, nn.Sequential) and kind.__iter__ is not SEQUENTIAL_ITER,
        "a tensor that is neither parameter nor buffer": any(isinstance(v, Tensor) for v in module.__dict__.values()),
        "a weight that is no dense tensor of real numbers": not all(map(_plain, weights)),
    }
    for what, present in disguises.items():
        if present:
            raise UncertifiableError(
                f"Expected a plain module at '{path or kind.__name__}': its class's forward on its own weights. "
                f"Got {what}. Remove it; a parametrization by torch.nn.utils.parametrize.remove_parametrizations."
            )
    if isinstance(module, LipschitzLayer):
        order = kind.__mro__
        proves = next(i for i, cls in enumerate(order) if PROOFS & cls.__dict__.keys())
        overridden = {name for cls in order[:proves] for name in cls.__dict__ if hasattr(order[proves], name)}
        overridden = sorted(name for name in overridden - INERT if not name.startswith("__"))
        if overridden:
            raise UncertifiableError(
                f"At '{path or kind.__name__}': Expected {kind.__name__}, which overrides {', '.join(overridden)}, to "
                "override claim() as well. An inherited proof is about another function."
            )


SEQUENTIAL_ITER = nn.Sequential.__iter__
CALLS = ("__call__", "_call_impl", "__getattr__", "__getattribute__")  # the way to forward and to the weights
PROOFS = {"claim", "slopes"}  # a class that overrides what its base computes with overrides one of them
INERT = {"_abc_impl", "constraints", "extra_repr"}  # no function depends on them


def _plain(weight: Tensor) -> bool:
    """Whether the entries are what any operation sees; a subclass, such as a quantised weight, may compute with others.

    Buffers of integers, such as permutations, are left to the layer's own claim.
    """
    real = weight.is_floating_point() or not (isinstance(weight, nn.Parameter) or weight.is_complex())
    plain = type(weight) in (Tensor, nn.Parameter) and weight.layout == torch.strided
    return real and plain and not (weight.is_meta or weight.is_quantized or weight.is_neg())


def _claim(path: str, module: nn.Module) -> Claim:
    try:
        if not isinstance(module, LipschitzLayer) and type(module) not in STOCK_CLAIMS:
            raise UncertifiableError(
                f"Expected layers with a provable constant. Got {type(module).__name__}. Use a layer of "
                "wgan_lip.lipschitz.layers, or derive from LipschitzLayer and prove its constant in claim()."
            )
        claim = module.claim() if isinstance(module, LipschitzLayer) else STOCK_CLAIMS[type(module)](module)
        if not claim.lipschitz >= 0:  # NaN included, which a zero after it would hide
            raise UncertifiableError(f"Expected a constant of at least 0. Got {claim.lipschitz}. Mend its claim().")
        return claim
    except InputError as error:
        raise type(error)(f"At '{path}': {error}") from None


def _name(norm: Norm | None) -> str:
    return "any" if norm is None else str(norm)
