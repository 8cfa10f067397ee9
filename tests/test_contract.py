"""The contract that every layer and every critic keeps: its claim bounds it, whatever happens to its weights."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from wgan_lip.critics import ConvolutionalCritic, FixedWidthCritic, ResNetCritic, SortingCritic
from wgan_lip.critics.baselines import GroupSortCritic
from wgan_lip.lipschitz.adversary import enumerate_lipschitz
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import (
    ACTIVATIONS,
    Cones,
    Conv2d,
    ConvGradientFlow,
    Flatten,
    GradientFlow,
    GroupSort,
    Householder,
    Identity,
    LabelPlanes,
    Linear,
    LipschitzExtension,
    LipschitzLayer,
    MaxMin,
    Parallel,
    RescaledGradientFlow,
    Spline,
    Unflatten,
    constrain_steps,
)
from wgan_lip.lipschitz.layers.normalised import BjorckLinear
from wgan_lip.lipschitz.layers.table import layer_table
from wgan_lip.lipschitz.optimizers import parameter_groups
from wgan_lip.utils.checks import UncertifiableError
from wgan_lip.utils.discovery import concrete_subclasses, import_all

BLOCK = (1, 1, 1, 4)


def stock():
    layers = (nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.LeakyReLU(0.2), nn.Linear(5, 4), nn.Tanh())
    return nn.Sequential(nn.Flatten(), *layers, nn.Sequential(nn.Tanh(), nn.Identity(), nn.Linear(4, 1)))


def twice():
    flow = GradientFlow(4, 3)
    return nn.Sequential(flow, flow, Linear(Norm((4,)), Norm((1,))))


def scaled(layer, dim=5):
    """A layer whose constant is 1 for all its weights, behind one whose constant is not."""
    return nn.Sequential(Linear(Norm((dim,)), Norm((dim,))), layer)


# name: (constructor, blocks of the input norm, blocks of the output norm), of what is built from layers.
CASES = {
    "ResNetCritic of cones": (lambda: scaled(ResNetCritic(5, readout="cones", centers=8)), (5,), (1,)),
    "used twice": (twice, (4,), (1,)),
    "stock modules": (stock, (3,), (1,)),
    **{
        f"ResNetCritic {name}": (lambda name=name: ResNetCritic(3, width=8, depth=2, activation=name), (3,), (1,))
        for name in ACTIVATIONS
    },
    **{
        f"FixedWidthCritic {name}": (lambda name=name: FixedWidthCritic(3, depth=2, activation=name), (3,), (1,))
        for name in ACTIVATIONS
    },
    "ConvolutionalCritic": (
        lambda: ConvolutionalCritic((1, 5, 6), channels=4, width=6, depth=1, bias_scale=0.5),
        (30,),
        (1,),
    ),
    "ResNetCritic on the line": (lambda: ResNetCritic(1, width=4, depth=3), (1,), (1,)),
    "ResNetCritic narrow": (lambda: ResNetCritic(6, width=3, depth=2, hidden=5), (6,), (1,)),
    "ResNetCritic spline": (lambda: ResNetCritic(3, width=8, depth=2, activation="spline"), (3,), (1,)),
    "FixedWidthCritic on the line": (lambda: FixedWidthCritic(1, depth=3), (1,), (1,)),
    "SortingCritic": (lambda: SortingCritic(3, width=8, depth=2, group=4), (3,), (1,)),
    "GroupSortCritic": (lambda: scaled(GroupSortCritic(3, width=8, depth=2), 3), (3,), (1,)),
    "SortingCritic of several heads": (lambda: SortingCritic(3, width=4, depth=2, heads=3), (3,), (1,) * 3),
}


def collected(base):
    """Every class below `base` that the package defines, and those of modules that were imported before, as by
    `pytest -p my_layers`; classes of other tests aside."""
    for package in ("wgan_lip.lipschitz", "wgan_lip.critics"):
        import_all(package)
    kinds = concrete_subclasses(base)
    return [kind for kind in kinds if not kind.__module__.startswith("test_")]


def example(kind, index):
    """An example of a layer as a case: rows in and rows out, so that its claim is measured like any other."""

    def wrapped():
        layer, shape = list(kind.examples())[index]
        claim, out = layer.claim(), layer(torch.zeros(2, *shape)).detach()
        parts = [Unflatten(shape), layer] if len(shape) > 1 else [layer]
        parts += [Flatten(out[0].numel())] if out.ndim > 2 else []
        blocks_in = as_rows(claim.norm_in, math.prod(shape), (math.prod(shape),))
        blocks_out = as_rows(claim.norm_out, out[0].numel(), blocks_in)
        if always_1(layer):  # its weights show in the constant of another layer before it
            parts.insert(0, Linear(Norm(blocks_in), Norm(blocks_in)))
        return (nn.Sequential(*parts) if len(parts) > 1 else layer), blocks_in, blocks_out

    return lambda: wrapped()[0], *wrapped()[1:]


def as_rows(norm, width, other):
    """The blocks of a norm on rows of so many coordinates, or `other` where it is any."""
    if norm is None:
        return other
    return norm.blocks if sum(norm.blocks) == width else (width,)


def always_1(layer):
    """Whether it has weights that its constant does not depend on."""
    other = copy.deepcopy(layer)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(3)
    unchanged = math.isclose(other.claim().lipschitz, layer.claim().lipschitz, rel_tol=1e-9)
    return any(True for _ in layer.parameters()) and unchanged


LAYERS = {
    f"{kind.__name__} {i}": (kind, i) for kind in collected(LipschitzLayer) for i, _ in enumerate(kind.examples())
}
CASES |= {name: example(*of) for name, of in LAYERS.items()}
EVERY = pytest.mark.parametrize("name", CASES)
WITH_WEIGHTS = [name for name in CASES if any(True for _ in CASES[name][0]().parameters())]
PACKAGE_WEIGHTS = [name for name in WITH_WEIGHTS if name != "stock modules"]
KEPT = [name for name in PACKAGE_WEIGHTS if name not in LAYERS or LAYERS[name][0].nonexpansive]  # at 1, by training


def build(name):
    torch.manual_seed(1)
    make, blocks_in, blocks_out = CASES[name]
    return make(), Norm(blocks_in), Norm(blocks_out)


def constant(module):
    return certify(module).lipschitz


def norm_of(vectors, norm):
    return torch.stack([vectors[:, block].norm(dim=1) for block in norm.slices]).amax(0)


def outputs(module, x, norm_out):
    values = module(x)
    return values.reshape(len(x), norm_out.dim)


def cloud(norm_in, count):
    """Points at scales 1e-3 to 1e3, float64."""
    x = torch.randn(count, norm_in.dim, dtype=torch.float64)
    return x * 10 ** (6 * torch.rand(count, 1, dtype=torch.float64) - 3)


def steepest(module, norm_in, norm_out, count=120):
    """The largest norm among Jacobians at many points, from below, dense and in float64.

    Exact for a Euclidean input and for scalar output blocks (where the dual norm is a sum of block norms); otherwise
    the largest over many unit vectors.
    """
    module = copy.deepcopy(module).double()
    x = cloud(norm_in, count).requires_grad_(True)
    values = outputs(module, x, norm_out)
    rows = [
        torch.autograd.grad(values[:, i].sum(), x, retain_graph=True, allow_unused=True)[0] for i in range(norm_out.dim)
    ]
    jacobian = torch.stack(rows, dim=1).detach()  # (b, p, d)
    jacobian = jacobian[jacobian.isfinite().flatten(1).all(dim=1)]
    largest = 0.0
    for block in norm_out.slices:
        part = jacobian[:, block]
        scale = part.abs().amax().clamp_min(1e-300)
        part = part / scale
        if len(norm_in.blocks) == 1:
            found = torch.linalg.svdvals(part)[:, 0]
        elif part.shape[1] == 1:
            found = sum(part[:, 0, s].norm(dim=1) for s in norm_in.slices)
        else:
            directions = torch.randn(100, norm_in.dim, dtype=torch.float64)
            for s in norm_in.slices:
                directions[:, s] /= directions[:, s].norm(dim=1, keepdim=True)
            found = torch.einsum("bpd,kd->bkp", part, directions).norm(dim=2).amax(1)
        largest = max(largest, float(found.max() * scale))
    return largest


def quotient(module, norm_in, norm_out, count=200):
    """The largest difference quotient between random points, less what rounding can add."""
    module = copy.deepcopy(module).double()
    x = cloud(norm_in, count)
    step = cloud(norm_in, count)
    y = torch.cat((x[: count // 2] + step[: count // 2], x[count // 2 :].roll(1, 0)))
    with torch.no_grad():
        at_x, at_y = outputs(module, x, norm_out), outputs(module, y, norm_out)
    rounding = 1e-12 * (at_x.norm(dim=1) + at_y.norm(dim=1))
    found = (norm_of(at_x - at_y, norm_out) - rounding) / norm_of(x - y, norm_in)
    return float(found[found.isfinite()].max())


def assert_bounded(module, norm_in, norm_out):
    claimed = constant(module)
    assert claimed >= 0  # and not NaN
    assert quotient(module, norm_in, norm_out) <= claimed * (1 + 1e-9)
    assert steepest(module, norm_in, norm_out) <= claimed * (1 + 1e-9)
    return claimed


@EVERY
def test_the_claim_bounds_every_slope(name):
    module, norm_in, norm_out = build(name)
    assert_bounded(module, norm_in, norm_out)


ANY_SIZE = Norm.euclidean()
NORMS = {
    "GradientFlow": (lambda: GradientFlow(5, 3), Norm((5,)), Norm((5,))),
    "Linear tall": (lambda: Linear(Norm((3,)), Norm((5,))), Norm((3,)), Norm((5,))),
    "Linear lift to blocks": (lambda: Linear(Norm((4,)), Norm(BLOCK)), Norm((4,)), Norm(BLOCK)),
    "Linear block read-out": (lambda: Linear(Norm(BLOCK), Norm((1,))), Norm(BLOCK), Norm((1,))),
    "MaxMin maximum norm": (lambda: MaxMin(6), Norm((1,) * 6), Norm((1,) * 6)),
    "MaxMin Euclidean": (lambda: MaxMin(6, Norm((6,))), Norm((6,)), Norm((6,))),
    "GroupSort maximum norm": (lambda: GroupSort(6, 3), Norm((1,) * 6), Norm((1,) * 6)),
    "Householder": (lambda: Householder(4), Norm((4,)), Norm((4,))),
    "Spline": (lambda: Spline(2), None, None),
    "RescaledGradientFlow": (lambda: RescaledGradientFlow(5, 3), Norm((5,)), Norm((5,))),
    "LipschitzExtension": (lambda: LipschitzExtension(5, 4, heads=3), Norm((5,)), Norm((1,) * 3)),
    "Cones": (lambda: Cones(5, 4, heads=3), Norm((5,)), Norm((1,) * 3)),
    "Parallel": (
        lambda: Parallel(MaxMin(2), Identity(Norm((1,))), GradientFlow(4, 2)), Norm(BLOCK), Norm(BLOCK),
    ),
    "Parallel affine": (
        lambda: Parallel(Linear(Norm((3,)), Norm((1, 2))), GradientFlow(2, 2)), Norm((3, 2)), Norm((1, 2, 2)),
    ),
    "Flatten": (lambda: Flatten(4), Norm((4,)), Norm((4,))),
    "LabelPlanes": (lambda: LabelPlanes((2, 2, 3), 3), Norm((15,)), Norm((30,))),
    "Conv2d": (lambda: Conv2d(2, 4, 2, stride=2), ANY_SIZE, ANY_SIZE),
    "ConvGradientFlow": (lambda: ConvGradientFlow(1, 2), ANY_SIZE, ANY_SIZE),
    "BjorckLinear": (lambda: BjorckLinear(5, 3), Norm((5,)), Norm((3,))),
}  # fmt: skip


@pytest.mark.parametrize("name", NORMS)
def test_the_claim_of_a_layer_is_in_the_norms_stated_here(name):
    make, norm_in, norm_out = NORMS[name]
    claim = make().claim()
    assert (claim.norm_in, claim.norm_out) == (norm_in, norm_out)


@pytest.mark.parametrize("name", [name for name in CASES if name not in LAYERS])
def test_the_certificate_is_in_the_norms_stated_here(name):
    module, norm_in, norm_out = build(name)
    certificate = certify(module)
    assert (certificate.norm_in, certificate.norm_out) == (str(norm_in), str(norm_out))


@pytest.mark.parametrize("name", KEPT)
def test_a_fresh_module_has_constant_at_most_1(name):
    module, _, _ = build(name)
    assert 0.99 < constant(module) <= 1


@EVERY
def test_the_claim_does_not_depend_on_mode_copy_precision_or_storage(name):
    module, _, _ = build(name)
    claimed = certify(module)
    assert certify(module.train()) == certify(module.eval()) == claimed
    assert certify(copy.deepcopy(module)) == claimed
    assert constant(copy.deepcopy(module).double()) == claimed.lipschitz

    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    other = CASES[name][0]()
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert certify(other) == claimed
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(3)
    if any(True for _ in module.parameters()):
        assert constant(other) > claimed.lipschitz, "a stale constant"
    other.load_state_dict(module.state_dict())
    assert certify(other) == claimed


@EVERY
def test_train_and_eval_are_one_function(name):
    module, norm_in, norm_out = build(name)
    x = cloud(norm_in, 50).float()
    assert torch.equal(outputs(module.train(), x, norm_out), outputs(module.eval(), x, norm_out))


@EVERY
def test_one_sample_and_none_are_batches(name):
    module, norm_in, norm_out = build(name)
    module = module.double()
    x = cloud(norm_in, 9)
    together = outputs(module, x, norm_out)
    for i in range(9):
        assert torch.allclose(outputs(module, x[i : i + 1], norm_out), together[i : i + 1], rtol=1e-12, atol=1e-12)
    assert len(module(x[:0])) == 0


@EVERY
def test_float32_and_float64_agree(name):
    module, norm_in, norm_out = build(name)
    x = cloud(norm_in, 200).float()
    single = outputs(module, x, norm_out)
    double = outputs(copy.deepcopy(module).double(), x.double(), norm_out)
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    size = 1 + x.double().norm(dim=1, keepdim=True)
    assert ((single - double).abs() <= 1e-5 * size).all()


def spiked(p):
    p.view(-1)[0] = 1e3 * (p.view(-1)[0].abs() + 1)


def rank_one(p):
    if p.ndim == 2:
        p.copy_(p[:, :1] * p[:1])


DISTURBANCES = {
    "spiked": spiked,
    "zero": lambda p: p.zero_(),
    "rank one": rank_one,
    "huge": lambda p: p.mul_(1e30),
    "tiny": lambda p: p.mul_(1e-30),
    "tripled": lambda p: p.mul_(3),
    "noisy": lambda p: p.add_(torch.randn_like(p)),
    "bfloat16": lambda p: p.copy_(p.bfloat16()),
    "negative": lambda p: p.neg_(),
    "negative tau": lambda p: p.fill_(-3) if p.ndim == 0 else None,
    "barely negative tau": lambda p: p.fill_(-0.01) if p.ndim == 0 else None,
    "huge tau": lambda p: p.fill_(1e3) if p.ndim == 0 else None,
}


@pytest.mark.parametrize("disturbance", DISTURBANCES)
@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_the_claim_bounds_disturbed_weights(name, disturbance):
    module, norm_in, norm_out = build(name)
    with torch.no_grad():
        for parameter in module.parameters():
            DISTURBANCES[disturbance](parameter)
    claimed = assert_bounded(module, norm_in, norm_out)
    if disturbance == "zero" and isinstance(module, Linear):
        assert claimed == 0.0


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_the_claim_bounds_a_module_cast_to_bfloat16(name):
    module, norm_in, norm_out = build(name)
    module = module.bfloat16()
    assert_bounded(module, norm_in, norm_out)
    assert constant(module) < 1.1 or name == "stock modules"


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_the_claim_is_about_the_weights_in_place_now(name):
    """No cache: a change made behind torch's back, by a view of the memory, changes the claim."""
    module, _, _ = build(name)
    before = constant(module)
    for parameter in module.parameters():
        parameter.detach().numpy().reshape(-1)[...] *= np.float32(3)
    assert constant(module) > before


OPTIMISERS = {
    "Adam": lambda p: torch.optim.Adam(p, lr=1e3),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=10.0, weight_decay=0.05),
    "SGD": lambda p: torch.optim.SGD(p, lr=1e4, momentum=0.9, nesterov=True),
    "SGD maximising": lambda p: torch.optim.SGD(p, lr=1e2, maximize=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e2),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=1.0, max_iter=3),
}


@pytest.mark.parametrize(
    ("optimiser", "dtype"), [*((name, torch.float32) for name in OPTIMISERS), ("Adam", torch.float64)]
)
@pytest.mark.parametrize("name", KEPT)
def test_the_constant_stays_at_most_1_after_every_step_of_any_optimiser(name, optimiser, dtype):
    module, norm_in, norm_out = build(name)
    module = module.to(dtype)
    optimizer = OPTIMISERS[optimiser](module.parameters())
    constrain_steps(optimizer, module)
    x = torch.randn(16, norm_in.dim, dtype=dtype)
    target = torch.randn(16, norm_out.dim, dtype=dtype)

    def closure():
        optimizer.zero_grad()
        loss = torch.sqrt((outputs(module, x, norm_out) - target).square() + 1).sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
        assert all(p.isfinite().all() for p in module.parameters())
        assert constant(module) <= 1 + 1e-9
    assert_bounded(module, norm_in, norm_out)


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("disturbance", [d for d in DISTURBANCES if d != "tiny"])
def test_one_step_repairs_disturbed_weights(name, disturbance):
    module, _, _ = build(name)
    with torch.no_grad():
        for parameter in module.parameters():
            DISTURBANCES[disturbance](parameter)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    constrain_steps(optimizer, module)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert constant(module) <= 1 + 1e-9


@pytest.mark.parametrize("name", KEPT)
def test_one_step_repairs_tiny_weights(name):
    test_one_step_repairs_disturbed_weights(name, "tiny")


@pytest.mark.parametrize("name", PACKAGE_WEIGHTS)
def test_a_nan_is_never_hidden_by_a_finite_claim(name):
    module, _, _ = build(name)
    for victim in range(len(list(module.parameters()))):
        bad = copy.deepcopy(module)
        with torch.no_grad():
            list(bad.parameters())[victim].view(-1)[-1] = math.nan
        with pytest.raises(ValueError, match="finite"):
            certify(bad)


# --- what a layer says of itself to the rest of the package


EXAMPLES = pytest.mark.parametrize("name", LAYERS)


def built(name):
    torch.manual_seed(1)
    kind, index = LAYERS[name]
    return list(kind.examples())[index]


def disturbed(name):
    layer, shape = built(name)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return layer.double(), shape


def test_every_layer_has_examples_and_a_row_in_the_table():
    for kind in collected(LipschitzLayer):
        assert any(name.startswith(f"{kind.__name__} ") for name in LAYERS)
        assert f"`{kind.__name__}`" in layer_table(kind.__module__)


def test_a_layer_without_examples_is_told_what_to_add():
    kind = type("Bare", (LipschitzLayer,), {"claim": lambda self: None})
    with pytest.raises(NotImplementedError, match="Bare has no examples.*yield cls"):
        kind.examples()


@EXAMPLES
def test_a_layer_is_affine_between_its_kinks(name):
    """Points on the same side of every kink have one Jacobian."""
    layer, shape = disturbed(name)
    width = math.prod(shape)
    kinks = layer.kinks(width)
    if kinks is None:
        return
    rows, offsets = kinks
    assert rows.shape == (len(offsets), width) and rows.dtype == offsets.dtype == torch.float64
    x = 1.5 * torch.randn(300, width, dtype=torch.float64)
    x.requires_grad_(True)
    values = layer(x.reshape(300, *shape)).reshape(300, -1)
    slopes = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in values.unbind(1)]
    jacobian = torch.stack(slopes, dim=1)
    sides = nn.functional.pad(x @ rows.T + offsets > 0, (0, 1))  # one column more, for a layer without kinks
    _, side = torch.unique(sides, dim=0, return_inverse=True)
    for group in side.unique():
        there = jacobian[side == group]
        assert torch.allclose(there, there[:1].expand_as(there), rtol=0, atol=1e-12)


@EXAMPLES
def test_the_enumeration_of_a_layer_with_kinks_meets_its_steepest_slope(name):
    """On a plane through its inputs, between affine maps; no sampled slope is steeper, and the one found is there."""
    layer, shape = disturbed(name)
    width = math.prod(shape)
    size = layer(torch.zeros(1, *shape).double()).numel()
    parts = [nn.Linear(2, width), *([Unflatten(shape)] if len(shape) > 1 else []), layer]
    critic = nn.Sequential(*parts, nn.Flatten() if size > 1 else nn.Identity()).double()
    if layer.kinks(width) is None:
        with pytest.raises(UncertifiableError, match=type(layer).__name__):
            enumerate_lipschitz(critic, -torch.ones(2), torch.ones(2))
        return
    found = enumerate_lipschitz(critic, -torch.ones(2), torch.ones(2))

    def slopes(x):
        x = x.requires_grad_(True)
        rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0].norm(dim=1)
                for column in critic(x).reshape(len(x), -1).unbind(1)]  # fmt: skip
        return torch.stack(rows).amax()

    assert float(slopes(found.point[None])) == pytest.approx(found.lipschitz, rel=1e-12)
    assert float(slopes(2 * torch.rand(2000, 2, dtype=torch.float64) - 1)) <= found.lipschitz * (1 + 1e-9)


@EXAMPLES
def test_a_layer_starts_at_states_and_is_renewed_within_its_claim(name):
    layer, shape = built(name)
    x, y = torch.randn(40, *shape) + 3, 2 * torch.randn(30, *shape)
    for keep_distances in (True, False):
        with torch.no_grad():
            layer.start_at(x, y, keep_distances=keep_distances)
        module = nn.Sequential(*([Unflatten(shape)] if len(shape) > 1 else []), layer)
        assert constant(module) <= 1 or not layer.nonexpansive
    with torch.no_grad():
        before = layer(torch.cat((x, y)))
        moved = layer.renew(x, y)
    assert isinstance(moved, int) and moved >= 0
    if not moved:
        assert torch.equal(layer(torch.cat((x, y))), before)


@EXAMPLES
def test_every_weight_of_a_layer_has_a_rate(name):
    layer, _ = built(name)
    if parameters := list(layer.parameters()):
        groups = parameter_groups(layer)
        assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in parameters}
        assert all(math.isfinite(group["lr"]) and group["lr"] > 0 for group in groups)
        known = {name for part in layer.modules() for name, _ in part.named_parameters(recurse=False)}
        assert layer.lengths is None or set(layer.lengths) <= known | {"bias"}
