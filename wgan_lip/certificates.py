"""Proof that Lip(f) ≤ L, layer by layer, re-checkable."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module_state

from wgan_lip.bounds import Norm, gamma, product_up, upper_bound_norm, upper_bound_vector_norm
from wgan_lip.checks import InputError, UncertifiableError, check_samples
from wgan_lip.files import write_whole
from wgan_lip.layers import Claim, LipschitzLayer, Rounding

__all__ = [
    "Certificate",
    "Evaluation",
    "LayerCertificate",
    "certify",
    "estimate_lipschitz",
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
        norm_in: Norm of the input space, in the units of the samples as f receives them.
        norm_out: Norm of the output space; `Euclidean(1)` for a potential.
        layers: One entry a layer, in the order of application.
        weights_sha256: Hash of names, dtypes, shapes and bytes of all weights.
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
    covers: str

    def save(self, path: str | Path) -> None:
        """Writes the certificate as JSON, whole or not at all."""
        write_whole(path, (json.dumps(asdict(self), indent=2) + "\n").encode())

    @staticmethod
    def load(path: str | Path) -> Certificate:
        """Reads a certificate. It is a claim until :func:`verify` has proved it again. Raises :class:`InputError`."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            expected = {field.name for field in fields(Certificate)}
            if not isinstance(content, dict) or set(content) != expected:
                raise ValueError(f"its keys are not {', '.join(sorted(expected))}")
            for part in (content, *content["layers"]):
                for key, value in part.items():
                    wanted = {"lipschitz": (int, float), "layers": (list,)}.get(key, (str,))
                    if type(value) not in wanted:
                        raise ValueError(f"{key} is {value!r}")
            layers = tuple(LayerCertificate(**layer) for layer in content.pop("layers"))
            return Certificate(layers=layers, **content)
        except FileNotFoundError:
            raise InputError(f"Expected a certificate at {path}. Got no such file. Run `wgan-lip certify`.") from None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"Expected a certificate at {path}. Got: {error}. Run `wgan-lip certify` again.") from None


@dataclass(frozen=True)
class Evaluation:
    """Values of a critic in float64, shape (n,), and for each the largest distance to its real-arithmetic value."""

    values: Tensor
    error: Tensor


def certify(critic: nn.Module) -> Certificate:
    r"""Proves a Lipschitz constant for `critic`, with its weights as they are now.

    .. math:: \mathrm{Lip}(f_L \circ \cdots \circ f_1) \le \prod_l \mathrm{Lip}(f_l)

    Arguments:
        critic: A :class:`LipschitzLayer`, or an `nn.Sequential` of those and of `nn.Linear`, `nn.ReLU`,
            `nn.LeakyReLU`, `nn.Tanh`, `nn.Identity`, `nn.Flatten()`. Any device, dtype and mode.

    Returns:
        The certificate; `critic` is unchanged.

    Raises:
        UncertifiableError: A module without a proof, one whose forward was replaced or hooked, or two neighbours whose
            norms do not meet; the message names its path.
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
        constants.append(claim.lipschitz)
        description = " ".join(repr(module).split())
        layers.append(LayerCertificate(path, description, _name(before), _name(after), claim.lipschitz, claim.method))
    lipschitz = product_up(*constants)
    return Certificate(
        lipschitz=lipschitz,
        norm_in=_name(norm_in),
        norm_out=_name(norm_out),
        layers=tuple(layers),
        weights_sha256=weights_sha256(critic),
        covers=(
            "An upper bound on the Lipschitz constant of the real-arithmetic function with these weights, from "
            f"{_name(norm_in)} to {_name(norm_out)}, in the units of the samples as the critic receives them. "
            "Rounding in a floating-point evaluation is not part of it."
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
    proved = certify(critic)
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
                f"Expected at '{then.path}' {then.layer}. Got at '{now.path}' {now.layer}. "
                "The certificate is about another architecture; certify this critic anew."
            )
    pairs = [(now.path, now.lipschitz, then.lipschitz) for now, then in zip(proved.layers, certificate.layers)]
    for path, now, then in [*pairs, ("the whole critic", proved.lipschitz, certificate.lipschitz)]:
        if not math.isclose(now, then, rel_tol=1e-9, abs_tol=1e-300):
            raise InputError(
                f"Expected the constant {then} for {path}. Proved {now}. "
                "The certificate was altered; certify this critic anew."
            )
    if (certificate.norm_in, certificate.norm_out) != (proved.norm_in, proved.norm_out):
        raise InputError(
            f"Expected norms {certificate.norm_in} and {certificate.norm_out}. Got {proved.norm_in} and "
            f"{proved.norm_out}. The certificate was altered; certify this critic anew."
        )
    return proved


def weights_sha256(module: nn.Module) -> str:
    """Hash of names, dtypes, shapes and bytes of all entries of the state dict, in order of name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        stored = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {stored.dtype} {tuple(stored.shape)}\n".encode())
        digest.update(stored.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def evaluate(critic: nn.Module, x: Tensor) -> Evaluation:
    r"""Evaluates `critic` in float64 and bounds how far each value can be from real arithmetic.

    .. math:: e_l = \mathrm{Lip}(f_l) \, e_{l-1} + \gamma_{k_l} (g_l \|x_{l-1}\| + o_l), \qquad e_0 = 0

    with the :class:`wgan_lip.layers.Rounding` (k, g, o) of each layer.

    Arguments:
        critic: As for :func:`certify`; a float64 copy is evaluated on the CPU.
        x: Samples, shape (n, d), any real dtype; they convert to float64 exactly.

    Returns:
        Values and error bounds, each (n,), float64.

    Guarantee:
        Error bounds hold for any order of summation; elementary functions are taken to be accurate to 8 ulp.

    References:
        Accuracy and stability of numerical algorithms (Higham, 2002), section 3.5
    """
    state = check_samples(x, "x").detach().cpu().double().clone()  # a module may work in place
    error = state.new_zeros(len(state))
    for _, module, claim, *_ in _proofs(copy.deepcopy(critic).cpu().double()):
        rounding = claim.rounding
        if rounding.operations:
            largest = state.abs().flatten(1).amax(dim=1) if state.ndim > 1 else state.abs()
            unit = largest.clamp_min(1e-300).view(-1, *[1] * (state.ndim - 1))
            size = unit.flatten() * (state / unit).flatten(1).norm(dim=1) if state.ndim > 1 else largest
            local = gamma(rounding.operations) * 1.01 * (rounding.gain * (size + error) + rounding.offset)
            underflow = 1e-290 * (1 + rounding.gain)  # 1e17 operations' worth
            error = (claim.lipschitz * error + local + underflow) * (1 + 2.0**-40)
        else:
            error = claim.lipschitz * error * (1 + 2.0**-40)
        state = module(state)
    if state.ndim != 1:
        raise InputError(f"Expected a potential with values (n,). Got {tuple(state.shape)}. End it with Squeeze().")
    return Evaluation(state, error)


def estimate_lipschitz(critic: nn.Module, x: Tensor, *, starts: int = 1024, steps: int = 40, seed: int = 0) -> float:
    r"""Searches for the largest gradient norm of `critic`: an estimate from below, which proves nothing from above.

    Multi-start random ascent in float64: from samples, from points between them and from a wide cloud around them,
    each start moves to a random neighbour wherever the gradient norm grows; step lengths shrink over the search.

    Arguments:
        critic: The potential, (b, d) → (b,).
        x: Samples to start from, shape (n, d).
        starts: Number of starts.
        steps: Number of moves a start.
        seed: Seed of the search.

    Returns:
        The largest ‖∇f‖ met, at most the certified L, and at most Lip(f) away from kinks, where autograd picks one of
        several slopes. Beside L it says how tight L is.
    """
    x = check_samples(x, "x").detach().cpu().double()
    critic = copy.deepcopy(critic).cpu().double()
    rng = torch.Generator().manual_seed(seed)
    first, second, third = (x[torch.randint(len(x), (starts,), generator=rng)] for _ in range(3))
    scale = (x - x.mean(0)).norm(dim=1).mean().clamp_min(1e-12)
    noise = torch.randn(starts, x.shape[1], generator=rng, dtype=x.dtype)
    third_of = torch.arange(starts) % 3
    mix = torch.rand(starts, 1, generator=rng, dtype=x.dtype)
    between = first + mix * (second - first)
    cloud = third + scale * noise
    points = torch.where((third_of == 0)[:, None], first, torch.where((third_of == 1)[:, None], between, cloud))

    def gradient_norm(at: Tensor) -> Tensor:
        at = at.detach().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(critic(at).sum(), at)
        return gradient.norm(dim=1)

    best = gradient_norm(points)
    for step in range(steps):
        length = scale * 10.0 ** (-3 * step / steps) / math.sqrt(x.shape[1])
        proposal = points + length * torch.randn(points.shape, generator=rng, dtype=x.dtype)
        found = gradient_norm(proposal)
        better = found > best
        points, best = torch.where(better[:, None], proposal, points), torch.where(better, found, best)
    return float(best.max())


def _proofs(critic: nn.Module) -> Iterator[tuple[str, nn.Module, Claim, Norm | None, Norm | None]]:
    """Each layer with its path, its claim, and the norms before and after it, which must meet."""
    state = None
    for path, module in _chain(critic):
        claim = _claim(path, module)
        if claim.norm_in is not None and state is not None and claim.norm_in != state:
            raise UncertifiableError(
                f"Expected '{path}' to take the norm before it, {state}. Got a layer for {claim.norm_in}. "
                "Put a Linear(norm_in, norm_out) between them."
            )
        before = claim.norm_in or state
        state = claim.norm_out or before
        yield path, module, claim, before, state


def _chain(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers that a forward pass applies one after the other, with their paths."""
    _refuse_disguises(module, path)
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        for name, child in module._modules.items():  # named_children() would skip a layer that is used twice
            yield from _chain(child, f"{path}.{name}" if path else name)
    else:
        for inner_path, inner in module.named_modules():
            _refuse_disguises(inner, ".".join(part for part in (path, inner_path) if part))
        yield path or type(module).__name__, module


def _refuse_disguises(module: nn.Module, path: str) -> None:
    """Refuses whatever makes calling `module` differ from its class's forward, or its weights from its state dict."""
    kind = type(module)
    disguises = {
        "a method replaced on the instance": {"forward", "claim", "_call_impl"} & module.__dict__.keys(),
        "forward hooks": module._forward_hooks or module._forward_pre_hooks,
        "global forward hooks": _module_state._global_forward_hooks or _module_state._global_forward_pre_hooks,
        "a parametrized weight": "parametrizations" in module._modules,
        "a class that overrides __call__": kind.__call__ is not nn.Module.__call__,
        "a class that overrides __iter__": isinstance(module, nn.Sequential) and kind.__iter__ is not SEQUENTIAL_ITER,
        "a tensor that is neither parameter nor buffer": any(isinstance(v, Tensor) for v in module.__dict__.values()),
    }
    for what, present in disguises.items():
        if present:
            raise UncertifiableError(
                f"Expected a plain module at '{path or kind.__name__}': its class's forward on its own weights. "
                f"Got {what}. Remove it; a parametrization by torch.nn.utils.parametrize.remove_parametrizations."
            )
    if isinstance(module, LipschitzLayer):
        order = kind.__mro__
        proves = next(i for i, cls in enumerate(order) if "claim" in cls.__dict__)
        computes = next(i for i, cls in enumerate(order) if "forward" in cls.__dict__)
        if proves > computes:
            raise UncertifiableError(
                f"At '{path or kind.__name__}': Expected {kind.__name__}, which overrides forward, to override claim() "
                "as well. An inherited proof is about another function."
            )


SEQUENTIAL_ITER = nn.Sequential.__iter__


def _claim(path: str, module: nn.Module) -> Claim:
    try:
        if isinstance(module, LipschitzLayer):
            return module.claim()
        if type(module) in STOCK_CLAIMS:
            return STOCK_CLAIMS[type(module)](module)
        raise UncertifiableError(
            f"Expected layers with a provable constant. Got {type(module).__name__}. Use a layer of wgan_lip.layers, "
            "or derive from LipschitzLayer and prove its constant in claim()."
        )
    except InputError as error:
        raise type(error)(f"At '{path}': {error}") from None


def _linear_claim(module: nn.Linear) -> Claim:
    offset = 0.0 if module.bias is None else upper_bound_vector_norm(module.bias)
    rounding = Rounding(module.in_features + 4, upper_bound_vector_norm(module.weight), offset)
    norms = Norm.euclidean(module.in_features), Norm.euclidean(module.out_features)
    return Claim(upper_bound_norm(module.weight), "spectral norm by verified Cholesky", *norms, rounding)


def _leaky_relu_claim(module: nn.LeakyReLU) -> Claim:
    if not math.isfinite(module.negative_slope):
        raise InputError(f"Expected a finite negative_slope. Got {module.negative_slope}.")
    slope = max(1.0, abs(module.negative_slope))
    return Claim(slope, "largest slope", rounding=Rounding(1, slope))


def _flatten_claim(module: nn.Flatten) -> Claim:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise UncertifiableError("Expected nn.Flatten() over all but the first axis. Got other axes. Use the default.")
    return Claim(1.0, "isometry")


STOCK_CLAIMS: dict[type[nn.Module], Callable[[nn.Module], Claim]] = {
    nn.Flatten: _flatten_claim,
    nn.Identity: lambda _: Claim(1.0, "identity"),
    nn.LeakyReLU: _leaky_relu_claim,
    nn.Linear: _linear_claim,
    nn.ReLU: lambda _: Claim(1.0, "largest slope"),
    nn.Tanh: lambda _: Claim(1.0, "largest slope", rounding=Rounding(16, 1.0)),
}


def _name(norm: Norm | None) -> str:
    return "any" if norm is None else str(norm)
