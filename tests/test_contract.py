"""The contract that every layer and every critic keeps: its claim bounds it, whatever happens to its weights."""

from __future__ import annotations

import copy
import inspect
import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from wgan_lip.critics import ConvolutionalCritic, FixedWidthCritic, ResNetCritic, SortingCritic
from wgan_lip.critics.baselines import GroupSortCritic
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import (
    ACTIVATIONS,
    Absolute,
    Cones,
    Conv2d,
    ConvGradientFlow,
    Flatten,
    GradientFlow,
    GroupSort,
    Householder,
    Identity,
    L2Pool2d,
    LabelPlanes,
    Linear,
    LipschitzExtension,
    LipschitzLayer,
    MaxMin,
    MaxPool2d,
    Normalize,
    Parallel,
    PixelShuffle,
    PixelUnshuffle,
    RescaledGradientFlow,
    ScaledAvgPool2d,
    Spline,
    Squeeze,
    Unflatten,
    constrain_steps,
)
from wgan_lip.lipschitz.layers.normalised import BjorckLinear

BLOCK = (1, 1, 1, 4)


def stock():
    layers = (nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.LeakyReLU(0.2), nn.Linear(5, 4), nn.Tanh())
    return nn.Sequential(nn.Flatten(), *layers, nn.Sequential(nn.Tanh(), nn.Identity(), nn.Linear(4, 1)))


def twice():
    flow = GradientFlow(4, 3)
    return nn.Sequential(flow, flow, Linear(Norm((4,)), Norm((1,))))


def on_images(make, *shape):
    """The case of a layer for images (c, h, w): rows in and rows out, so that its claim is measured like any other."""
    size = make()(torch.zeros(1, *shape)).numel()
    return lambda: nn.Sequential(Unflatten(shape), make(), Flatten(size)), (math.prod(shape),), (size,)


def scaled(layer, dim=5):
    """A layer whose constant is 1 for all its weights, behind one whose constant is not."""
    return nn.Sequential(Linear(Norm((dim,)), Norm((dim,))), layer)


# name: (constructor, blocks of the input norm, blocks of the output norm). The norms are stated here once more, for
# the claims to be measured against.
CASES = {
    **{
        f"GradientFlow {name}": (lambda name=name: GradientFlow(5, 3, activation=name), (5,), (5,))
        for name in ACTIVATIONS
    },
    "GradientFlow overcomplete": (lambda: GradientFlow(3, 7), (3,), (3,)),
    "GradientFlow on the line": (lambda: GradientFlow(1, 1), (1,), (1,)),
    "Linear tall": (lambda: Linear(Norm((3,)), Norm((5,))), (3,), (5,)),
    "Linear wide": (lambda: Linear(Norm((5,)), Norm((3,))), (5,), (3,)),
    "Linear read-out": (lambda: Linear(Norm((5,)), Norm((1,))), (5,), (1,)),
    "Linear lift to blocks": (lambda: Linear(Norm((4,)), Norm(BLOCK)), (4,), BLOCK),
    "Linear of blocks": (lambda: Linear(Norm(BLOCK), Norm(BLOCK)), BLOCK, BLOCK),
    "Linear block read-out": (lambda: Linear(Norm(BLOCK), Norm((1,))), BLOCK, (1,)),
    "Linear maximum norm": (lambda: Linear(Norm((1,) * 4), Norm((1,) * 3)), (1,) * 4, (1,) * 3),
    "Linear several blocks": (lambda: Linear(Norm((2, 1, 3)), Norm((3, 3, 1))), (2, 1, 3), (3, 3, 1)),
    "MaxMin maximum norm": (lambda: MaxMin(6), (1,) * 6, (1,) * 6),
    "MaxMin Euclidean": (lambda: MaxMin(6, Norm((6,))), (6,), (6,)),
    "GroupSort maximum norm": (lambda: GroupSort(6, 3), (1,) * 6, (1,) * 6),
    "GroupSort Euclidean": (lambda: GroupSort(6, 6, Norm((6,))), (6,), (6,)),
    "GroupSort of images": on_images(lambda: GroupSort(4, 4, Norm.euclidean()), 4, 2, 1),
    "Householder": (lambda: scaled(Householder(4), 4), (4,), (4,)),
    "Absolute": (lambda: nn.Sequential(Identity(Norm((1, 2))), Absolute()), (1, 2), (1, 2)),
    "Spline of images": on_images(lambda: Spline(2), 2, 1, 3),
    "GradientFlow spline": (lambda: GradientFlow(5, 3, activation="spline"), (5,), (5,)),
    "RescaledGradientFlow": (lambda: scaled(RescaledGradientFlow(5, 3)), (5,), (5,)),
    "RescaledGradientFlow overcomplete": (lambda: scaled(RescaledGradientFlow(3, 7), 3), (3,), (3,)),
    "LipschitzExtension": (lambda: scaled(LipschitzExtension(5, 4)), (5,), (1,)),
    "LipschitzExtension of several heads": (lambda: scaled(LipschitzExtension(5, 4, heads=3)), (5,), (1,) * 3),
    "Cones": (lambda: scaled(Cones(5, 9)), (5,), (1,)),
    "Cones of several heads": (lambda: scaled(Cones(5, 4, heads=3)), (5,), (1,) * 3),
    "ResNetCritic of cones": (lambda: scaled(ResNetCritic(5, readout="cones", centers=8)), (5,), (1,)),
    "Identity": (lambda: Identity(Norm((1, 2))), (1, 2), (1, 2)),
    "Parallel": (lambda: Parallel(MaxMin(2), Identity(Norm((1,))), GradientFlow(4, 2)), BLOCK, BLOCK),
    "Parallel affine": (lambda: Parallel(Linear(Norm((3,)), Norm((1, 2))), GradientFlow(2, 2)), (3, 2), (1, 2, 2)),
    "Flatten": (lambda: Flatten(4), (4,), (4,)),
    "Squeeze": (lambda: Squeeze(), (1,), (1,)),
    "PixelUnshuffle": on_images(lambda: PixelUnshuffle(2), 2, 4, 6),
    "LabelPlanes": (lambda: nn.Sequential(LabelPlanes((2, 2, 3), 3), Flatten(30)), (15,), (30,)),
    "PixelShuffle": on_images(lambda: PixelShuffle(2), 8, 2, 1),
    "Normalize": on_images(lambda: Normalize([0.5, -1.0], [2.0, 0.3]), 2, 2, 3),
    "ScaledAvgPool2d": on_images(lambda: ScaledAvgPool2d(2), 1, 5, 4),
    "L2Pool2d": on_images(lambda: L2Pool2d((1, 3)), 2, 2, 3),
    "MaxPool2d": on_images(lambda: MaxPool2d(2), 2, 2, 4),
    "Conv2d of patches": on_images(lambda: Conv2d(2, 4, 2, stride=2, padding=1, groups=2), 2, 3, 3),
    "Conv2d pointwise": on_images(lambda: Conv2d(3, 2, 1), 3, 2, 1),
    "Conv2d overlapping": on_images(lambda: Conv2d(2, 2, 3, padding=1, dilation=(1, 2)), 2, 3, 3),
    "Conv2d circular": on_images(lambda: Conv2d(2, 1, 3, padding=1, stride=2, padding_mode="circular"), 2, 3, 4),
    "ConvGradientFlow of patches": on_images(lambda: ConvGradientFlow(1, 2, shift=1), 1, 4, 3),
    "ConvGradientFlow overlapping": on_images(
        lambda: ConvGradientFlow(2, 2, 3, stride=1, padding=1, activation="tanh"), 2, 3, 3
    ),
    "ConvGradientFlow circular": on_images(
        lambda: ConvGradientFlow(2, 4, (1, 3), stride=(1, 2), padding=(0, 1), groups=2, padding_mode="circular"),
        2,
        2,
        4,
    ),
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
    "BjorckLinear": (lambda: scaled(BjorckLinear(5, 3)), (5,), (3,)),
    "BjorckLinear tall": (lambda: scaled(BjorckLinear(3, 7), 3), (3,), (7,)),
    "GroupSortCritic": (lambda: scaled(GroupSortCritic(3, width=8, depth=2), 3), (3,), (1,)),
    "SortingCritic of several heads": (lambda: SortingCritic(3, width=4, depth=2, heads=3), (3,), (1,) * 3),
}
EVERY = pytest.mark.parametrize("name", CASES)
WITH_WEIGHTS = [name for name in CASES if any(True for _ in CASES[name][0]().parameters())]
PACKAGE_WEIGHTS = [name for name in WITH_WEIGHTS if name != "stock modules"]


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


@EVERY
def test_the_claim_is_in_the_norms_stated_here(name):
    module, norm_in, norm_out = build(name)
    certificate = certify(module)
    assert certificate.norm_in == str(norm_in)
    assert certificate.norm_out in (str(norm_out), str(Norm.euclidean()))  # of any dimension, behind images
    if isinstance(module, LipschitzLayer):
        assert (module.claim().norm_in, module.claim().norm_out) == (norm_in, norm_out)


@pytest.mark.parametrize("name", PACKAGE_WEIGHTS)
def test_a_fresh_module_has_constant_at_most_1(name):
    module, _, _ = build(name)
    assert constant(module) <= 1
    assert constant(module) > 0.99


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("name", PACKAGE_WEIGHTS)
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


@pytest.mark.parametrize("name", PACKAGE_WEIGHTS)
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


@pytest.mark.parametrize("name", PACKAGE_WEIGHTS)
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


def test_every_layer_of_the_package_is_in_the_contract():
    import wgan_lip.lipschitz.layers as layers

    kinds = {value for value in vars(layers).values() if isinstance(value, type) and issubclass(value, LipschitzLayer)}
    kinds = {kind for kind in kinds if not inspect.isabstract(kind)}
    covered = {type(module) for make, _, _ in CASES.values() for module in make().modules()}
    assert kinds <= covered
