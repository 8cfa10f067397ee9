"""Certificates: above every slope, re-checkable, about these weights only, and refused where there is no proof."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re

import mpmath
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from wgan_lip.critics import FixedWidthCritic, ResNetCritic
from wgan_lip.lipschitz import certificates, layers, proofs
from wgan_lip.lipschitz.bounds import Norm, gamma, product_up
from wgan_lip.lipschitz.certificates import Certificate, certify, evaluate, prove, verify, weights_sha256
from wgan_lip.lipschitz.layers import (
    ACTIVATIONS,
    STOCK_CLAIMS,
    Absolute,
    Cones,
    Conv2d,
    Flatten,
    GradientFlow,
    GroupSort,
    Identity,
    L2Pool2d,
    LabelPlanes,
    Linear,
    MaxMin,
    Parallel,
    RescaledGradientFlow,
    Spline,
    Squeeze,
    Unflatten,
    constrain_steps,
)
from wgan_lip.lipschitz.layers.normalised import SpectralNormLinear
from wgan_lip.utils.checks import InputError, UncertifiableError
from wgan_lip.wasserstein.dual import ascend

FAMILIES = {"A": lambda **k: ResNetCritic(2, width=4, depth=2, **k), "B": lambda **k: FixedWidthCritic(2, depth=2, **k)}
BOTH = pytest.mark.parametrize("family", FAMILIES)


def set_(parameter, value):
    with torch.no_grad():
        parameter.copy_(torch.as_tensor(value, dtype=torch.float64))


def disturb(critic, scale=0.3):
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return critic


def trained(critic, steps=15):
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.02)
    constrain_steps(optimizer, critic)
    for _ in range(steps):
        ascend(critic, optimizer, torch.randn(32, 2) + 1, 2 * torch.randn(32, 2))
    return critic


# The 50-digit referee

EXACT = {
    "relu": lambda t: max(t, mpmath.mpf(0)),
    "leaky_relu": lambda t: t if t > 0 else mpmath.mpf(0.1) * t,
    "hardtanh": lambda t: max(min(t, mpmath.mpf(1)), mpmath.mpf(-1)),
    "tanh": mpmath.tanh,
    "softplus": lambda t: mpmath.log1p(mpmath.exp(t)) if t < 200 else t,
}


def exact_affine(weight, bias, x):
    rows = weight.detach().double().tolist()
    return [mpmath.fdot(r, x) + mpmath.mpf(b) for r, b in zip(rows, bias.detach().double().tolist())]


def exact_value(module, x):
    """The real-arithmetic value of a layer or a chain at a list of mpf, to the working precision."""
    match module:
        case nn.Sequential():
            for child in module:
                x = exact_value(child, x)
            return x
        case GradientFlow():
            slope = [EXACT[module.activation.name](t) for t in exact_affine(module.weight, module.bias, x)]
            tau = mpmath.mpf(module.tau.item())
            columns = module.weight.detach().double().T.tolist()
            return [v - tau * mpmath.fdot(c, slope) for v, c in zip(x, columns)]
        case Linear() | nn.Linear():
            return exact_affine(module.weight, module.bias, x)
        case MaxMin():
            return [f(x[i], x[i + 1]) for i in range(0, len(x), 2) for f in (max, min)]
        case Parallel():
            parts, start = [], 0
            for child, width in zip(module.layers, module.widths):
                parts += exact_value(child, x[start : start + width])
                start += width
            return parts
        case nn.Tanh():
            return [mpmath.tanh(t) for t in x]
        case nn.ReLU():
            return [max(t, mpmath.mpf(0)) for t in x]
        case nn.LeakyReLU():
            return [t if t > 0 else mpmath.mpf(module.negative_slope) * t for t in x]
        case Identity() | Flatten() | Squeeze() | nn.Identity() | nn.Flatten():
            return x
    raise AssertionError(f"no referee for {module}")


def exact_values(critic, x):
    with mpmath.workdps(50):
        return [exact_value(critic, [mpmath.mpf(v) for v in row])[0] for row in x.double().tolist()]


def exact_norm(weight):
    return max(mpmath.svd_r(mpmath.matrix(weight.detach().double().tolist()), compute_uv=False))


# Domination and exactness


@BOTH
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("state", ["fresh", "trained", "disturbed"])
def test_the_constant_dominates_gradients_at_thousands_of_points(family, activation, state):
    critic = FAMILIES[family](activation=activation)
    if state == "trained":
        critic = trained(critic)
    elif state == "disturbed":
        critic = disturb(critic, 1.0)
    certified = certify(critic).lipschitz
    assert certified <= (math.inf if state == "disturbed" else 1)
    x = (torch.randn(3000, 2, dtype=torch.float64) * 10 ** (4 * torch.rand(3000, 1) - 2)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(copy.deepcopy(critic).double()(x).sum(), x)
    assert gradient.norm(dim=1).max() <= certified * (1 + 1e-12)


@pytest.mark.parametrize("scale", [0.0, 0.3, 2.0])
def test_the_constant_dominates_the_product_of_norms_to_50_digits(scale):
    critic = disturb(ResNetCritic(2, width=4, depth=3), scale)
    with mpmath.workdps(50):
        product = exact_norm(critic.lift.weight) * exact_norm(critic.readout.weight)
        for flow in (critic.block_1, critic.block_2, critic.block_3):
            tau = mpmath.mpf(flow.tau.item())
            curvature = abs(tau) * exact_norm(flow.weight) ** 2
            product *= max(1, curvature - 1) if tau >= 0 else 1 + curvature
        certified = mpmath.mpf(certify(critic).lipschitz)
        assert product <= certified
        assert certified <= product * mpmath.mpf(1.01 if scale else 1 + 1e-12)


def test_the_constant_is_exact_where_the_singular_vectors_meet():
    critic = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.LeakyReLU(3.0), nn.Linear(2, 1)).double()
    set_(critic[0].weight, [[2.0, 0.0], [0.0, 1.0]])
    set_(critic[2].weight, [[5.0, 0.0], [0.0, 1.0]])
    set_(critic[4].weight, [[0.5, 0.0]])
    set_(critic[0].bias, 0.0)
    set_(critic[2].bias, -100.0)
    certified = certify(critic).lipschitz
    assert certified == pytest.approx(2 * 5 * 3 * 0.5, rel=1e-12)
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(critic(x).sum(), x)
    assert gradient.norm().item() == pytest.approx(15, rel=1e-15)
    assert certified >= 15


def test_constants_of_stock_activations():
    linear = nn.Linear(1, 1).double()
    set_(linear.weight, 1.0)
    for module, slope in [(nn.LeakyReLU(-4.0), 4.0), (nn.LeakyReLU(0.1), 1.0), (nn.Tanh(), 1.0)]:
        assert certify(nn.Sequential(linear, module)).lipschitz == pytest.approx(slope, rel=1e-12)
    assert certify(nn.Sequential()).lipschitz == 1.0


def test_a_slope_that_is_not_a_number_is_refused():
    with pytest.raises(InputError):
        certify(nn.Sequential(nn.Linear(1, 1), nn.LeakyReLU(math.nan)))


def test_a_layer_used_twice_counts_twice():
    linear = nn.Linear(3, 3)
    once, twice = certify(nn.Sequential(linear)), certify(nn.Sequential(linear, linear))
    assert twice.lipschitz == pytest.approx(once.lipschitz**2, rel=1e-12)
    assert [layer.path for layer in twice.layers] == ["0", "1"]
    inner = nn.Sequential(linear)
    assert certify(nn.Sequential(inner, inner, inner)).lipschitz == pytest.approx(once.lipschitz**3, rel=1e-12)


def test_layers_are_listed_in_the_order_of_application():
    certificate = certify(FixedWidthCritic(2, depth=1))
    assert [layer.path for layer in certificate.layers] == [
        "flatten",
        "lift",
        "block_1",
        "affine_1",
        "readout",
        "squeeze",
    ]
    state = certificate.norm_in
    for layer in certificate.layers:
        assert layer.norm_in == state
        state = layer.norm_out
    assert state == certificate.norm_out == "Euclidean(1)"
    product = math.prod(layer.lipschitz for layer in certificate.layers)
    assert product <= certificate.lipschitz <= product * (1 + 1e-14)


# What stands in the way of a proof


class Scaled(GradientFlow):
    """Overrides forward, and so invalidates the proof it inherits."""

    def forward(self, x):
        return 10 * super().forward(x)


class ScaledAndProved(Scaled):
    def claim(self):
        return dataclasses.replace(super().claim(), lipschitz=10 * super().claim().lipschitz)


class ShuffledSequential(nn.Sequential):
    def forward(self, x):
        return 10 * super().forward(x)


def hooked(register):
    layer = GradientFlow(2, 2)
    getattr(layer, register)(lambda *arguments: None)
    return layer


def patched():
    layer = GradientFlow(2, 2)
    layer.forward = lambda x: 100 * x
    return layer


def patched_part():
    layer = Parallel(MaxMin(2), GradientFlow(2, 2))
    layer.layers[1].forward = lambda x: 100 * x
    return layer


def hooked_sequential():
    inner = nn.Sequential(GradientFlow(2, 2))
    inner.register_forward_hook(lambda module, args, output: 10 * output)
    return inner


OBSTACLES = {
    "BatchNorm1d": (lambda: nn.BatchNorm1d(2), "BatchNorm1d has no provable constant"),
    "Dropout": (lambda: nn.Dropout(), "Dropout has no"),
    "LayerNorm": (lambda: nn.LayerNorm(2), "LayerNorm has no"),
    "GLU": (lambda: nn.GLU(), "GLU has no"),
    "ModuleList": (lambda: nn.ModuleList([nn.Linear(2, 2)]), "ModuleList has no"),
    "subclass of Sequential": (lambda: ShuffledSequential(nn.Linear(2, 2)), "ShuffledSequential has no"),
    "subclass of nn.Linear": (lambda: type("Twice", (nn.Linear,), {})(2, 2), "Twice has no"),
    "overridden forward": (lambda: Scaled(2, 2), "Scaled overrides forward, so it must override claim"),
    "forward hook": (lambda: hooked("register_forward_hook"), "forward hooks"),
    "forward pre-hook": (lambda: hooked("register_forward_pre_hook"), "forward hooks"),
    "patched forward": (patched, "a method replaced"),
    "hook on a container": (hooked_sequential, "forward hooks"),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Linear(2, 2)), "remove_parametrizations"),
    "spectral norm on a layer": (lambda: parametrizations.spectral_norm(GradientFlow(2, 2)), "parametrized weight"),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(2, 2)), "parametrized weight"),
    "wrong width": (
        lambda: GradientFlow(3, 2),
        r"proved for inputs in Euclidean\(3\), but the layer before it ends in Euclidean\(2\)",
    ),
    "other norm": (lambda: MaxMin(2), r"proved for inputs in max\(2\).*Put a Linear"),
    "Flatten of other axes": (lambda: nn.Flatten(0), "all but the first axis"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_obstacles_are_refused_with_their_path_and_a_remedy(name):
    make, message = OBSTACLES[name]
    critic = nn.Sequential()
    critic.add_module("lift", nn.Linear(2, 2))
    critic.add_module("inner", nn.Sequential(nn.Identity(), make()))
    with pytest.raises(UncertifiableError, match=f"(?s)'inner.1.*{message}"):
        certify(critic)
    if "proved for inputs" not in message:
        with pytest.raises(UncertifiableError):
            evaluate(critic, torch.zeros(1, 2))


def test_evaluate_refuses_norms_that_do_not_meet():

    # error bound is a product of constants in different norms, without a proof.
    critic = nn.Sequential(Linear(Norm((1, 1)), Norm((1, 1))), Linear(Norm((2,)), Norm((1,))), Squeeze())
    with pytest.raises(UncertifiableError):
        certify(critic)
    with pytest.raises(UncertifiableError):
        evaluate(critic, torch.ones(1, 2))


def test_an_obstacle_inside_parallel_is_found():
    with pytest.raises(UncertifiableError, match=r"'layers\.1'.*a method replaced"):
        certify(patched_part())
    layer = Parallel(MaxMin(2), parametrizations.spectral_norm(GradientFlow(2, 2)))
    with pytest.raises(UncertifiableError, match="parametrized weight"):
        certify(layer)


class Mixed:
    def forward(self, x):
        return super().forward(x)


class MixedFlow(Mixed, GradientFlow):
    def claim(self):
        return super().claim()


PATCHES = {
    "forward of a layer": (lambda: GradientFlow(2, 2), GradientFlow, "forward"),
    "forward of a base": (lambda: MixedFlow(2, 2), GradientFlow, "forward"),
    "forward of a class that is no module": (lambda: MixedFlow(2, 2), Mixed, "forward"),
    "claim of a layer": (lambda: MaxMin(2, Norm((2,))), MaxMin, "claim"),
    "slopes of an activation in a layer": (lambda: GradientFlow(2, 2), layers.Pointwise, "slopes"),
    "forward of a module of torch": (lambda: nn.ReLU(), nn.ReLU, "forward"),
    "helper of a module of torch": (lambda: nn.Conv2d(1, 1, 1), nn.Conv2d, "_conv_forward"),
    "call of every module": (lambda: nn.ReLU(), nn.Module, "__call__"),
    "forward of a sequence": (lambda: nn.Sequential(nn.ReLU()), nn.Sequential, "forward"),
    "setting of a class": (lambda: SpectralNormLinear(2, 2), SpectralNormLinear, "FLOOR"),
    "new method of a class": (lambda: GradientFlow(2, 2), GradientFlow, "_wrapped"),
}


@pytest.mark.parametrize("case", PATCHES)
def test_a_class_that_was_changed_after_it_was_defined_is_refused(case, monkeypatch):
    make, kind, name = PATCHES[case]
    layer = make()
    expected = certify(layer)
    original = getattr(kind, name, None)
    replaced = 1.0 if isinstance(original, float) else lambda self, *a: 10 * original(self, *a)
    monkeypatch.setattr(kind, name, replaced, raising=False)
    with pytest.raises(UncertifiableError, match=rf"changed after it was defined \({kind.__name__}\.{name}\)"):
        certify(layer)
    monkeypatch.undo()
    assert certify(layer) == expected


def test_parts_of_parallel_that_are_not_the_widths_it_splits_by_are_refused():
    layer = Parallel(MaxMin(2), Identity(Norm((4,))))
    layer.layers[0], layer.layers[1] = MaxMin(4), Identity(Norm((2,)))
    with pytest.raises(InputError, match=r"widths \[4, 2\], not \[2, 4\]"):
        certify(layer)
    with pytest.raises(InputError, match="must state its norm and width"):
        Parallel(Conv2d(1, 1, 1), MaxMin(2))


def test_an_overridden_forward_inside_parallel_is_found():

    with pytest.raises(UncertifiableError, match="override claim"):
        certify(Parallel(MaxMin(2), Scaled(2, 2)))


def test_an_overridden_forward_with_its_own_claim_is_accepted():
    assert certify(ScaledAndProved(2, 2)).lipschitz == pytest.approx(10, rel=1e-5)


class Calls(GradientFlow):
    def __call__(self, x):
        return 10 * super().__call__(x)


class Repeats(nn.Sequential):
    """Sequential.forward follows __iter__; the weights and the layers are listed once."""

    def __iter__(self):
        return iter(list(self._modules.values()) * 9)


def patched_claim():
    layer = GradientFlow(2, 2)
    claim = dataclasses.replace(layer.claim(), lipschitz=0.1)
    layer.claim = lambda: claim
    return layer


class CallsImplementation(GradientFlow):
    def _call_impl(self, x):
        return 10 * super()._call_impl(x)


class CallsSequence(nn.Sequential):
    def _call_impl(self, x):
        return 10 * super()._call_impl(x)


class RescalesLess(RescaledGradientFlow):
    """Overrides what its base computes with, under the claim of its base."""

    def rescaled(self):
        return 10 * super().rescaled()


class Reads(nn.Sequential):
    def __getattr__(self, name):
        return super().__getattr__(name)


class Deceptive(torch.Tensor):
    """A weight that operations see otherwise than their entries, as those of quantised layers do."""


def compiled():
    layer = GradientFlow(2, 2)
    layer._compiled_call_impl = lambda x: 100 * x
    return layer


def weighted(weight):
    layer = nn.Linear(2, 2, bias=False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


DISGUISES = {
    "overridden _call_impl": lambda: CallsImplementation(2, 2),
    "overridden _call_impl of a sequence": lambda: CallsSequence(nn.Linear(2, 2)),
    "overridden helper": lambda: RescalesLess(2, 2),
    "overridden __getattr__": lambda: Reads(nn.Linear(2, 2)),
    "compiled call": compiled,
    "tensor of another class": lambda: weighted(torch.eye(2).as_subclass(Deceptive)),
    "meta tensor": lambda: nn.Linear(2, 2, device="meta"),
    "sparse weight": lambda: weighted(torch.eye(2).to_sparse()),
    "integer weight": lambda: weighted(torch.eye(2, dtype=torch.int64)),
    "negated view": lambda: weighted(torch._neg_view(torch.eye(2, dtype=torch.float64))),
    "overridden __call__": lambda: Calls(2, 2),
    "overridden __iter__": lambda: Repeats(nn.Linear(2, 2), nn.Linear(2, 2)),
    "replaced claim": patched_claim,
}


@pytest.mark.parametrize("name", DISGUISES)
def test_disguises_are_refused(name):
    with pytest.raises(UncertifiableError):
        certify(nn.Sequential(DISGUISES[name]()))


def test_a_global_forward_hook_is_refused():

    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: 10 * output)
    try:
        with pytest.raises(UncertifiableError):
            certify(nn.Sequential(GradientFlow(2, 2)))
    finally:
        handle.remove()


def test_weights_outside_the_state_dict_are_refused_or_hashed():

    critic = nn.Sequential(GradientFlow(2, 2), Linear(Norm((2,)), Norm((1,))), Squeeze())
    del critic[0].bias
    critic[0].bias = torch.zeros(2)
    try:
        certificate = certify(critic)
    except InputError:
        return
    critic[0].bias = torch.ones(2)
    with pytest.raises(InputError):
        verify(certificate, critic)


@pytest.mark.parametrize("constant", [math.nan, -1.0])
def test_a_constant_that_is_none_is_refused_also_before_a_zero(constant):
    class Wrong(Absolute):
        def claim(self):
            return dataclasses.replace(super().claim(), lipschitz=constant)

    zero = nn.Linear(2, 2)
    torch.nn.init.zeros_(zero.weight)
    with pytest.raises(UncertifiableError, match="'0'.*at least 0"):
        certify(nn.Sequential(Wrong(), zero))


def test_weights_that_the_state_dict_leaves_out_are_hashed():
    hidden, popped = (nn.Sequential(nn.Linear(2, 1), Squeeze()) for _ in range(2))
    bias = hidden[0].bias.detach()
    del hidden[0].bias
    hidden[0].register_buffer("bias", bias, persistent=False)
    popped.register_state_dict_post_hook(lambda module, state, prefix, local: state.pop("0.bias", None))
    for critic in (hidden, popped):
        certificate = certify(critic)
        critic[0].bias.data.add_(1)
        with pytest.raises(InputError, match="other weights"):
            verify(certificate, critic)


def test_a_processor_that_flushes_subnormal_weights_is_refused():
    layer = nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 1e-40)
    assert certify(layer).lipschitz >= layer.weight.item() > 0
    if torch.set_flush_denormal(True):
        try:
            with pytest.raises(InputError, match="set_flush_denormal"):
                certify(layer)
        finally:
            torch.set_flush_denormal(False)


def test_complex_weights_are_refused():

    with pytest.raises(InputError):
        certify(nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64)))


@BOTH
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_with_their_path(family, value):
    critic = FAMILIES[family]()
    with torch.no_grad():
        critic.readout.weight[0, 1] = value
    with pytest.raises(InputError, match="'readout'.*must be finite"):
        certify(critic)


@BOTH
def test_certify_leaves_the_critic_and_the_generators_unchanged(family):
    critic = FAMILIES[family]().eval()
    critic(torch.randn(3, 2)).sum().backward()
    critic.lift.train()
    before = copy.deepcopy(critic.state_dict())
    grads = [p.grad.clone() for p in critic.parameters()]
    modes = [m.training for m in critic.modules()]
    versions = [p._version for p in critic.parameters()]
    state = torch.get_rng_state()
    certify(critic)
    evaluate(critic, torch.zeros(2, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(critic.state_dict()[k], v) for k, v in before.items())
    assert all(torch.equal(p.grad, g) for p, g in zip(critic.parameters(), grads))
    assert [m.training for m in critic.modules()] == modes
    assert [p._version for p in critic.parameters()] == versions
    assert all(p.dtype == torch.float32 and p.requires_grad for p in critic.parameters())


# Files and verification


@BOTH
@pytest.mark.parametrize("scale", [0.0, 0.7])
def test_the_json_round_trip_is_exact(family, scale, tmp_path):
    certificate = certify(disturb(FAMILIES[family](), scale))
    certificate.save(tmp_path / "certificate.json")
    assert Certificate.load(tmp_path / "certificate.json") == certificate


@BOTH
def test_a_certificate_is_verified_for_its_critic(family, tmp_path):
    critic = disturb(FAMILIES[family]())
    certificate = certify(critic)
    assert verify(certificate, critic) == certificate
    other = FAMILIES[family]()
    other.load_state_dict(critic.state_dict())
    assert verify(certificate, other.eval()) == certificate
    lead = certificate.layers[1]
    elsewhere = layer_changed(certificate, 1, lipschitz=lead.lipschitz * (1 + 1e-12))
    product = product_up(*(layer.lipschitz for layer in elsewhere.layers))
    elsewhere = signed(dataclasses.replace(elsewhere, lipschitz=product))
    assert elsewhere != certificate and verify(elsewhere, critic) == certificate, "another machine rounds otherwise"


def layer_changed(certificate, index, **changes):
    layers = list(certificate.layers)
    layers[index] = dataclasses.replace(layers[index], **changes)
    return dataclasses.replace(certificate, layers=tuple(layers))


def signed(certificate):
    """With the hash of the fields it has now."""
    return dataclasses.replace(certificate, sha256=certificates._digest(certificate))


ALTERATIONS = {
    "constant down": lambda c: dataclasses.replace(c, lipschitz=c.lipschitz * 0.999),
    "constant slightly down": lambda c: dataclasses.replace(c, lipschitz=c.lipschitz * (1 - 1e-8)),
    "constant down by less than two machines differ": lambda c: dataclasses.replace(
        c, lipschitz=c.lipschitz * (1 - 9e-10)
    ),
    "constant down by one bit": lambda c: dataclasses.replace(c, lipschitz=math.nextafter(c.lipschitz, 0)),
    "layer constant down by less": lambda c: layer_changed(c, 1, lipschitz=c.layers[1].lipschitz * (1 - 9e-10)),
    "units": lambda c: dataclasses.replace(c, units="a thousandth of what it was"),
    "method": lambda c: layer_changed(c, 2, method="a proof of somebody else"),
    "architecture": lambda c: dataclasses.replace(c, architecture_sha256="0" * 64),
    "hash of the fields": lambda c: dataclasses.replace(c, sha256="0" * 64),
    "no hash of the fields": lambda c: dataclasses.replace(c, sha256=""),
    "constant up": lambda c: dataclasses.replace(c, lipschitz=c.lipschitz * 1.001),
    "constant zero": lambda c: dataclasses.replace(c, lipschitz=0.0),
    "constant negative": lambda c: dataclasses.replace(c, lipschitz=-c.lipschitz),
    "constant nan": lambda c: dataclasses.replace(c, lipschitz=math.nan),
    "constant infinite": lambda c: dataclasses.replace(c, lipschitz=math.inf),
    "layer constant": lambda c: layer_changed(c, 1, lipschitz=0.5),
    "layer nan": lambda c: layer_changed(c, 1, lipschitz=math.nan),
    "layer text": lambda c: layer_changed(c, 2, layer="Identity()"),
    "layer path": lambda c: layer_changed(c, 2, path="elsewhere"),
    "layer norm": lambda c: layer_changed(c, 2, norm_out="max(4)"),
    "layer removed": lambda c: dataclasses.replace(c, layers=c.layers[1:]),
    "layer repeated": lambda c: dataclasses.replace(c, layers=(*c.layers, c.layers[-1])),
    "norm": lambda c: dataclasses.replace(c, norm_in="max(2)"),
    "what it covers": lambda c: dataclasses.replace(c, covers="Rounding too."),
    "layers in another order": lambda c: dataclasses.replace(c, layers=c.layers[::-1]),
    "hash": lambda c: dataclasses.replace(c, weights_sha256="0" * 64),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_altered_certificate_is_refused(name):
    critic = ResNetCritic(2, width=4, depth=2)
    with pytest.raises(InputError, match=r"The certificate (is about other|is about another|was altered|is in other)"):
        verify(ALTERATIONS[name](certify(critic)), critic)


def test_a_refusal_is_one_line_whatever_the_file_says():
    critic = ResNetCritic(2, width=4, depth=1)
    for changes in ({"path": "a\nb"}, {"layer": "a\r\nb"}):
        with pytest.raises(InputError) as refusal:
            verify(layer_changed(certify(critic), 0, **changes), critic)
        assert len(str(refusal.value).splitlines()) == 1


def test_one_unit_in_the_last_place_of_any_weight_is_refused():
    critic = ResNetCritic(2, width=2, depth=1)
    certificate = certify(critic)
    for parameter in critic.parameters():
        entry = parameter.detach().view(-1)[:1]
        before = entry.clone()
        entry.copy_(torch.nextafter(before, torch.full_like(before, 9.0)))
        with pytest.raises(InputError, match="other weights"):
            verify(certificate, critic)
        entry.copy_(before)
    verify(certificate, critic)


@pytest.mark.parametrize("name", ["units", "method", "constant down by less than two machines differ"])
def test_a_certificate_that_was_edited_on_disk_is_refused(name, tmp_path):
    critic, path = ResNetCritic(2, width=4, depth=2), tmp_path / "certificate.json"
    ALTERATIONS[name](certify(critic)).save(path)
    with pytest.raises(InputError, match="The certificate was altered.*Certify this critic again"):
        verify(Certificate.load(path), critic)


def test_a_forgery_that_is_signed_anew_is_not_what_comes_back():
    """Whoever signs can say anything of units; constants are those of the proof, and units can be asked for."""
    critic = ResNetCritic(2, width=4, depth=2)
    honest = certify(critic, units="a metre")
    with pytest.raises(InputError, match="constant"):
        verify(signed(layer_changed(honest, 1, lipschitz=0.5)), critic)
    with pytest.raises(InputError, match="it states the constant"):
        verify(signed(dataclasses.replace(honest, lipschitz=0.5)), critic)
    other = signed(dataclasses.replace(honest, units="a mile"))
    with pytest.raises(InputError, match="in other units: 'a mile', not 'a metre'"):
        verify(other, critic, units="a metre")
    assert verify(honest, critic, units="a metre") == honest


def changed(layer, name, value):
    setattr(layer, name, value)
    return layer


OTHER_SETTINGS = {
    "Cones.rising": (lambda: Cones(2, 6), "rising", 2),
    "Cones.cooling": (lambda: Cones(2, 6), "cooling", 5.0),
    "AvgPool2d.divisor_override": (lambda: nn.AvgPool2d(2), "divisor_override", 5),
    "AvgPool2d.stride": (lambda: nn.AvgPool2d(2), "stride", 1),
    "LabelPlanes.weight": (lambda: LabelPlanes((1, 2, 2), 1), "weight", 0.25),
    "Spline.radius": (lambda: Spline(2), "radius", 1.0000001),
    "MaxMin.stride": (lambda: MaxMin(8), "stride", 2),
    "GroupSort.group": (lambda: GroupSort(4, 4), "group", 2),
    "L2Pool2d.kernel_size": (lambda: L2Pool2d(2), "kernel_size", (1, 4)),
    "Pointwise.name": (lambda: GradientFlow(2, 2).activation, "name", "leaky_relu"),
    "LeakyReLU.negative_slope": (lambda: nn.LeakyReLU(), "negative_slope", 0.02),
    "Softmax.dim": (lambda: nn.Softmax(1), "dim", -1),
    "Upsample.mode": (lambda: nn.Upsample(scale_factor=2), "mode", "bilinear"),
    "Conv2d.padding": (lambda: nn.Conv2d(1, 1, 3), "padding", (1, 1)),
    "BatchNorm1d.eps": (lambda: nn.BatchNorm1d(2).eval(), "eps", 1e-3),
    "a part of a part": (lambda: Parallel(MaxMin(2), GradientFlow(2, 2)), "layers.1.activation.name", "tanh"),
}


@pytest.mark.parametrize("case", OTHER_SETTINGS)
def test_another_setting_with_equal_weights_is_refused(case):
    make, name, value = OTHER_SETTINGS[case]
    layer = make()
    certificate, weights = certify(nn.Sequential(layer)), weights_sha256(layer)
    owner, _, setting = name.rpartition(".")
    setattr(layer.get_submodule(owner), setting, value)
    assert weights_sha256(layer) == weights
    with pytest.raises(InputError, match="another architecture"):
        verify(certificate, nn.Sequential(layer))


def test_other_lengths_in_the_same_words_are_other_architectures():
    """Nothing that a repr leaves out, rounds or words alike is left out of the hash."""
    hashes = set()
    for radius in (1.0, math.nextafter(1.0, 2.0), 1 + 1e-15):
        hashes.add(certify(changed(Spline(2), "radius", radius)).architecture_sha256)
    assert len(hashes) == 3
    assert certify(changed(Spline(2), "radius", 1)).architecture_sha256 in hashes  # equal numbers are equal


def test_a_certificate_survives_a_move_of_the_code():
    """A class is known by its name, whatever module it lives in."""
    here, there = (
        type("Moved", (GradientFlow,), {"__module__": module, "claim": GradientFlow.claim}) for module in "ab"
    )
    one, other = here(3, 2), there(3, 2)
    other.load_state_dict(one.state_dict())
    assert verify(certify(one), other) == certify(other)
    renamed = type("Renamed", (GradientFlow,), {"claim": GradientFlow.claim})(3, 2)
    renamed.load_state_dict(one.state_dict())
    assert certify(renamed).architecture_sha256 != certify(one).architecture_sha256


@pytest.mark.parametrize("value", [lambda t: t, nn.Linear(2, 2).weight, [nn.ReLU()], {"key": torch.zeros(2)}, object()])
def test_settings_that_no_certificate_can_hold_are_refused(value):
    layer = nn.ReLU()
    layer.__dict__["extra"] = value
    with pytest.raises(UncertifiableError, match="'0'"):
        certify(nn.Sequential(layer))


@BOTH
def test_altered_weights_are_refused(family):
    critic = FAMILIES[family]()
    certificate = certify(critic)
    with torch.no_grad():
        critic.block_1.get_parameter("bias" if family == "A" else "layers.2.bias")[0] += 1e-7
    with pytest.raises(InputError, match="other weights.*Certify this critic again"):
        verify(certificate, critic)


def test_another_architecture_with_equal_weights_is_refused():
    critic, other = ResNetCritic(2, width=4, depth=2), ResNetCritic(2, width=4, depth=2, activation="tanh")
    other.load_state_dict(critic.state_dict())
    assert weights_sha256(other) == weights_sha256(critic)
    with pytest.raises(InputError, match="another architecture"):
        verify(certify(critic), other)
    first, second = nn.Sequential(nn.Linear(2, 1)), nn.Sequential(nn.Linear(2, 1), nn.ReLU())
    second.load_state_dict(first.state_dict())
    with pytest.raises(InputError, match="another architecture"):
        verify(certify(first), second)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", "null", '{"lipschitz": 1}', "\xff\xfe", '"text"', "[" * 200_000, '{"a": 1, "a": 2}'],
    ids=["empty", "cut", "list", "number", "null", "one key", "bytes", "string", "deep", "key twice"],
)
def test_other_json_is_refused(content, tmp_path):
    path = tmp_path / "certificate.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match="is not a certificate.*Run `wgan-lip certify` again"):
        Certificate.load(path)


def test_a_truncated_or_missing_certificate_is_refused(tmp_path):
    path = tmp_path / "certificate.json"
    with pytest.raises(InputError, match="There is no certificate at"):
        Certificate.load(path)
    certify(ResNetCritic(2, width=4, depth=1)).save(path)
    text = path.read_text()
    for length in (1, len(text) // 2, len(text) - 3):
        path.write_text(text[:length])
        with pytest.raises(InputError, match="is not a certificate"):
            Certificate.load(path)
    with pytest.raises(InputError):
        Certificate.load(tmp_path)  # a folder


@pytest.mark.parametrize(
    "change",
    [
        {"lipschitz": None},
        {"lipschitz": "high"},
        {"layers": None},
        {"layers": [{"path": "x"}]},
        {"layers": [3]},
        {"extra": 1},
    ],
    ids=str,
)
def test_json_of_another_shape_is_refused(change, tmp_path):
    path = tmp_path / "certificate.json"
    certify(ResNetCritic(2, width=4, depth=1)).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match="is not a certificate"):
        Certificate.load(path)


@pytest.mark.parametrize("change", ["hash", "layer constant"])
def test_json_of_wrong_types_is_refused_at_the_latest_by_verify(change, tmp_path):

    critic = ResNetCritic(2, width=4, depth=1)
    path = tmp_path / "certificate.json"
    certify(critic).save(path)
    content = json.loads(path.read_text())
    if change == "hash":
        content["weights_sha256"] = 5
    else:
        content["layers"][1]["lipschitz"] = "1.0"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError):
        verify(Certificate.load(path), critic)


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1" + "0" * 5000, "Infinity", "NaN", "-1", "1e999"])
def test_a_constant_out_of_range_is_refused(number, tmp_path):
    critic = ResNetCritic(2, width=4, depth=1)
    path = tmp_path / "certificate.json"
    certify(critic).save(path)
    path.write_text(re.sub(r'"lipschitz": [^,]+', f'"lipschitz": {number}', path.read_text(), count=1))
    with pytest.raises(InputError, match="it states the constant"):
        verify(Certificate.load(path), critic)


def test_a_whole_number_may_stand_without_its_point(tmp_path):
    critic = nn.Sequential(Squeeze())
    path = tmp_path / "certificate.json"
    certify(critic).save(path)
    path.write_text(path.read_text().replace("1.0", "1"))
    assert verify(Certificate.load(path), critic) == certify(critic)


# Hashes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_every_bit_of_every_weight_is_in_the_hash(dtype):
    critic = ResNetCritic(1, width=2, depth=1).to(dtype)
    seen = {weights_sha256(critic)}
    count = 1
    for parameter in critic.parameters():
        memory = parameter.detach().view(-1).view(torch.uint8)
        for byte in range(len(memory)):
            for bit in range(8):
                memory[byte] ^= 1 << bit
                seen.add(weights_sha256(critic))
                memory[byte] ^= 1 << bit
                count += 1
    assert len(seen) == count


def test_the_hash_covers_names_shapes_and_types_and_nothing_else():
    weights = torch.arange(6.0)
    hashes = set()
    for name, value in (("a", weights), ("b", weights), ("a", weights.view(2, 3)), ("a", weights.double())):
        module = nn.Module()
        module.register_buffer(name, value)
        hashes.add(weights_sha256(module))
        hashes.add(weights_sha256(copy.deepcopy(module).eval()))
        module.register_buffer(name, value.T.contiguous().T if value.ndim == 2 else value)
        hashes.add(weights_sha256(module))
    assert len(hashes) == 4


@BOTH
def test_the_hash_survives_mode_copies_and_storage(family, tmp_path):
    critic = FAMILIES[family]()
    expected = weights_sha256(critic)
    torch.save(critic.state_dict(), tmp_path / "weights.pt")
    other = FAMILIES[family]()
    assert weights_sha256(other) != expected
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert weights_sha256(other) == weights_sha256(critic.eval()) == weights_sha256(copy.deepcopy(critic)) == expected
    if torch.cuda.is_available():
        assert weights_sha256(copy.deepcopy(critic).cuda()) == expected


# Norms behind images


class Copies(layers.LipschitzLayer):
    """The first channel, as often as there are channels: 1 in the maximum norm, √channels in the Euclidean one."""

    def forward(self, x):
        return x[:, :1].expand_as(x).clone()

    def claim(self):
        norm = Norm((1,) * 4)
        return layers.Claim(1.0, "copies", norm, norm, axes=range(1, 64))


def test_a_constant_in_the_maximum_norm_is_no_constant_of_images():
    """It was taken over as a Euclidean one: 1, where the slope is 2."""
    assert certify(Copies()).norm_out == str(Norm((1,) * 4)) and certify(Copies()).lipschitz == 1.0
    images = nn.Sequential(Unflatten((4, 3, 1)), Copies())
    x = torch.zeros(2, 12)
    x[1, 0] = 1.0
    assert images(x).diff(dim=0).norm() == 2.0
    with pytest.raises(
        UncertifiableError, match=r"'1' is proved from max\(4\) to max\(4\), for vectors .*samples of 3 axes"
    ):
        certify(images)


# Evaluation with its error


@BOTH
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("offset", [0.0, 1e6, 1e-9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_error_encloses_the_50_digit_value(family, activation, offset, dtype):
    critic = disturb(FAMILIES[family](activation=activation), 0.2)
    scale = 1e-9 if offset == 1e-9 else 1.0
    x = (scale * torch.randn(6, 2, dtype=torch.float64) + offset).to(dtype)
    found = evaluate(critic, x)
    assert found.values.dtype == found.error.dtype == torch.float64
    truth = exact_values(critic, x)
    with mpmath.workdps(50):
        for value, error, exact in zip(found.values.tolist(), found.error.tolist(), truth):
            assert abs(mpmath.mpf(value) - exact) <= error
    assert found.error.max() <= 1e-11 * (100 + abs(offset))


@pytest.mark.parametrize("slope", [0.01, 3.0])
def test_the_error_encloses_stock_networks_too(slope):
    critic = nn.Sequential(
        nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 4), nn.LeakyReLU(slope), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3),
        nn.ReLU(), nn.Linear(3, 1), Squeeze(),
    )  # fmt: skip
    for scale in (1.0, 1e5):
        x = scale * torch.randn(10, 2, dtype=torch.float64)
        found = evaluate(critic, x)
        with mpmath.workdps(50):
            for value, error, exact in zip(found.values.tolist(), found.error.tolist(), exact_values(critic, x)):
                assert abs(mpmath.mpf(value) - exact) <= error


@pytest.mark.parametrize("make", [lambda: nn.Linear(2, 1), lambda: Linear(Norm((2,)), Norm((1,)))], ids=["nn", "own"])
def test_the_error_counts_the_rounding_of_large_biases(make):
    critic = nn.Sequential(make(), Squeeze()).double()
    set_(critic[0].bias, 1e6 / 3)
    x = 1e-3 * torch.randn(30, 2, dtype=torch.float64)
    found = evaluate(critic, x)
    with mpmath.workdps(50):
        for value, error, exact in zip(found.values.tolist(), found.error.tolist(), exact_values(critic, x)):
            assert abs(mpmath.mpf(value) - exact) <= error


@pytest.mark.parametrize("scale", [1e-140, 1e-170, 1e-300, 1e-318])
def test_the_error_counts_underflow(scale):

    critic = nn.Sequential(nn.Linear(3, 1, bias=False), Squeeze()).double()
    x = scale * torch.randn(30, 3, dtype=torch.float64)
    found = evaluate(critic, x)
    with mpmath.workdps(50):
        weight = critic[0].weight[0].tolist()
        for value, error, row in zip(found.values.tolist(), found.error.tolist(), x.tolist()):
            assert abs(mpmath.mpf(value) - mpmath.fdot(weight, row)) <= error


@BOTH
def test_evaluation_agrees_with_the_forward_pass(family):
    critic = FAMILIES[family]().double()
    x = torch.randn(5, 2, dtype=torch.float64)
    assert torch.equal(evaluate(critic, x).values, critic(x).detach())
    assert torch.equal(evaluate(critic, x.requires_grad_(True)).values, critic(x).detach())


def test_the_error_counts_biases_in_every_row_of_an_image():
    """A linear map of one pixel at each of many channels adds its bias, and rounds, in each of them."""
    count = 500
    largest = nn.Sequential(nn.Unflatten(1, (1, count)), nn.MaxPool2d((count, 1)), nn.Flatten(), Squeeze())
    critic = nn.Sequential(nn.Unflatten(1, (count, 1)), nn.Linear(1, 1), largest).double()
    rounding = STOCK_CLAIMS[nn.Linear](critic[1]).rounding
    found = evaluate(critic, torch.zeros(1, count))
    assert found.error.item() >= math.sqrt(count) * gamma(rounding.operations) * rounding.offset


def test_the_error_of_a_layer_grows_with_the_constants_after_it():
    critic = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1), Squeeze()).double()
    set_(critic[0].weight, [[1e8 / 3, -1e8 / 3]])
    set_(critic[1].weight, 1e4)
    x = torch.randn(20, 1, dtype=torch.float64) * torch.tensor([1.0, 1.0 + 1e-9], dtype=torch.float64)
    found = evaluate(critic, x)
    with mpmath.workdps(50):
        for value, error, exact in zip(found.values.tolist(), found.error.tolist(), exact_values(critic, x)):
            assert abs(mpmath.mpf(value) - exact) <= error


def test_an_overflow_stays_in_the_error_when_a_later_layer_clips_it():
    critic = nn.Sequential(Unflatten((1, 2, 2)), L2Pool2d(2), nn.Flatten(), nn.Hardtanh(-1, 1e250), Squeeze())
    found = evaluate(critic, torch.tensor([[1e200] * 4, [1.0] * 4], dtype=torch.float64))
    assert found.error[0] == math.inf
    assert found.error[1] < 1e-12


@pytest.mark.parametrize("layer", [nn.Conv1d(3, 3, 1), nn.ZeroPad2d((0, 0, 1, -1)), Conv2d(3, 3, 1)], ids=str)
def test_samples_that_torch_would_take_for_channels_are_refused(layer):
    with pytest.raises(InputError, match="Put an Unflatten before it"):
        evaluate(nn.Sequential(layer, nn.Flatten(), nn.Linear(4, 1), Squeeze()), torch.zeros(3, 4))


def test_autocast_changes_neither_claim_nor_value():
    critic = nn.Sequential(Unflatten((1, 3, 3)), Conv2d(1, 2, 2), Flatten(8), nn.Linear(8, 1), Squeeze())
    x = torch.randn(3, 9)
    expected, values = certify(critic), evaluate(critic, x).values
    with torch.autocast("cpu", torch.bfloat16):
        assert certify(critic) == expected
        assert torch.equal(evaluate(critic, x).values, values)


def test_evaluation_leaves_the_samples_alone():

    critic = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 1), Squeeze()).double()
    x = torch.randn(5, 2, dtype=torch.float64)
    before = x.clone()
    evaluate(critic, x)
    assert torch.equal(x, before)


def test_evaluate_wants_a_potential_and_finite_samples():
    with pytest.raises(InputError, match="End it with Squeeze"):
        evaluate(nn.Sequential(nn.Linear(2, 1)), torch.zeros(3, 2))
    with pytest.raises(InputError, match="finite"):
        evaluate(ResNetCritic(2, width=4, depth=1), torch.full((3, 2), math.nan))


@pytest.mark.parametrize("thing", [None, abs, torch.zeros(3), nn.Linear, [nn.Linear(2, 1)], "critic"])
def test_what_is_no_module_is_refused(thing):
    with pytest.raises(UncertifiableError, match="must be a torch module"):
        certify(thing)


def test_an_overflow_inside_a_layer_is_in_the_error():
    """The first product sum is −inf, which the ReLU clips to 0; in real arithmetic it is positive."""
    flow = GradientFlow(3, 1).double()
    with torch.no_grad():
        flow.weight.copy_(torch.tensor([[-1e10, -1e10, 2.0e10]]))
        flow.bias.zero_()
        flow.tau.fill_(1e-11)
    x = torch.tensor([[1.7e298, 1.7e298, 1.7e298], [1.0, 2.0, 3.0]], dtype=torch.float64)
    error = evaluate(nn.Sequential(flow, nn.Linear(3, 1).double(), Squeeze()), x).error
    assert error.isinf().tolist() == [True, False]


def test_values_do_not_depend_on_how_many_samples_are_evaluated_at_once():
    critic = ResNetCritic(2, width=8, depth=2)
    x = torch.randn(50, 2)
    whole = evaluate(critic, x)
    for row in (0, 17, 49):
        one = evaluate(critic, x[row : row + 1])
        assert torch.allclose(one.values, whole.values[row], atol=1e-14) and one.error.item() == pytest.approx(
            whole.error[row].item()
        )


def test_an_activation_without_slopes_is_refused():
    critic = ResNetCritic(2, width=4, depth=1)
    critic.block_1.activation = nn.GELU()
    with pytest.raises(UncertifiableError, match="block_1.*GELU does not state its slopes"):
        certify(critic)


def test_underflow_before_a_huge_step_is_in_the_error():
    """W = 1e-40 and x = 1e-284: a product of 1e-324 rounds to 0 or to 5e-324, and the step of 1e100 carries it on."""
    flow = GradientFlow(1, 1).double()
    with torch.no_grad():
        flow.weight.fill_(1e-40)
        flow.bias.zero_()
        flow.tau.fill_(1e100)
    at = evaluate(nn.Sequential(flow, Squeeze()), torch.tensor([[1e-284]], dtype=torch.float64))
    weight, step, x = (mpmath.mpf(v) for v in (flow.weight.item(), flow.tau.item(), 1e-284))
    truth = x - step * weight * (weight * x)
    assert abs(mpmath.mpf(at.values.item()) - truth) <= mpmath.mpf(at.error.item())


# A proof that is kept


def test_a_proof_is_about_the_critic_as_it_was():
    critic, x = ResNetCritic(2, width=8, depth=2), torch.randn(20, 2)
    before, proof = evaluate(critic, x), prove(critic)
    assert proof.certificate == certify(critic)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.mul_(7)
    again = proof.evaluate(x)
    assert torch.equal(again.values, before.values) and torch.equal(again.error, before.error)
    assert prove(proof) is proof
    with pytest.raises(InputError, match="other weights"):
        verify(proof.certificate, critic)
    with pytest.raises(InputError, match="other weights"):
        prove(critic, proof.certificate)


def test_a_proof_takes_each_layer_once(monkeypatch):
    proved = []
    genuine = proofs._claim
    monkeypatch.setattr(proofs, "_claim", lambda path, module: proved.append(path) or genuine(path, module))
    critic = ResNetCritic(2, width=8, depth=2)
    proof = prove(critic)
    for _ in range(3):
        proof.evaluate(torch.randn(5, 2))
    assert proved == [layer.path for layer in proof.certificate.layers]


@pytest.mark.parametrize("name", ["A", "B"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_is_proved_of_weights_is_proved_of_them_in_double_precision(name, dtype):
    """A proof evaluates a float64 copy under the claims of the original."""
    critic = FAMILIES[name](activation="spline").to(dtype)
    claims = [proofs._claim(path, module) for path, module in proofs._chain(critic)]
    doubled = [proofs._claim(path, module) for path, module in proofs._chain(copy.deepcopy(critic).double())]
    assert claims == doubled
