"""A seeded search for critics that a certificate is wrong about: odd ranks, shapes, widths and axes for every layer.

Whatever is accepted has no slope above its constant, gives each sample a value of its own, and bounds W1 from below.
Whatever is refused is refused in one line.
"""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
import torch
from torch import nn

from wgan_lip.lipschitz import layers
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.certificates import certify, evaluate, prove
from wgan_lip.lipschitz.layers import STOCK_CLAIMS, LipschitzLayer
from wgan_lip.lipschitz.layers.normalised import BjorckLinear, ClippedLinear, SpectralNormLinear
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError
from wgan_lip.wasserstein.interval import kr_lower_bound

pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns of odd shapes; that is what they are here for


class Draw(random.Random):
    """Sizes that often fit a shape and often do not."""

    def shape(self):
        return tuple(self.choice((1, 2, 2, 3, 4)) for _ in range(self.choice((1, 1, 2, 2, 3, 3, 3, 4))))

    def width(self, shape):
        return self.choice((shape[0], shape[-1], math.prod(shape), self.randint(1, 4)))

    def even(self, shape):
        width = self.width(shape)
        return width + width % 2

    def norm(self, width):
        return self.choice((None, Norm.euclidean(width), Norm.euclidean()))

    def dim(self):
        return self.choice((-3, -2, -1, 1, 1, 2, 3))

    def two(self):
        return self.randint(1, 2)


def own(r, shape):
    """A layer of the package, of a random kind."""
    w, even = r.width(shape), r.even(shape)
    image = (*shape, 2, 2, 2)[:3]

    def parts():  # one of them steeper, so that the largest constant is not that of all
        flat = (nn.Sequential(layers.GradientFlow(w, 2), layers.Linear(Norm.euclidean(w), Norm((1,)))) for _ in "ab")
        return (*flat, nn.Linear(w, 1))

    kinds = {
        "Absolute": lambda: layers.Absolute(),
        "BjorckLinear": lambda: BjorckLinear(w, 3),
        "ClippedLinear": lambda: ClippedLinear(w, 3, 0.5),
        "Cones": lambda: layers.Cones(w, r.randint(1, 5), heads=r.two()),
        "Conv2d": lambda: layers.Conv2d(shape[0], 2, r.two(), stride=r.two(), padding=r.randint(0, 1)),
        "ConvGradientFlow": lambda: layers.ConvGradientFlow(shape[0], 2, r.two(), shift=r.randint(0, 1)),
        "Flatten": lambda: layers.Flatten(r.choice((w, math.prod(shape)))),
        "GradientFlow": lambda: layers.GradientFlow(w, 3, activation=r.choice(("relu", "tanh", "spline"))),
        "GroupSort": lambda: layers.GroupSort(w, w, r.norm(w)),
        "Householder": lambda: layers.Householder(even, r.choice((None, Norm.euclidean()))),
        "Identity": lambda: layers.Identity(r.choice((Norm.euclidean(w), Norm.euclidean()))),
        "L2Pool2d": lambda: layers.L2Pool2d(r.two()),
        "LabelPlanes": lambda: layers.LabelPlanes((1, 1, 2), max(1, math.prod(shape) - 2)),
        "Linear": lambda: layers.Linear(Norm.euclidean(w), Norm((1,) * 3)),
        "LipschitzExtension": lambda: layers.LipschitzExtension(w, r.randint(1, 4), heads=r.two()),
        "MaxMin": lambda: layers.MaxMin(even, r.norm(even)),
        "Maximum": lambda: layers.Maximum(*parts()),
        "Minimum": lambda: layers.Minimum(*parts()),
        "Mixture": lambda: layers.Mixture(*parts()),
        "WeightedSum": lambda: layers.WeightedSum(*parts(), weights=[0.5, -1.5, 2.0], shift=r.randint(-1, 1)),
        "MaxPool2d": lambda: layers.MaxPool2d(r.two()),
        "Normalize": lambda: layers.Normalize([0.5] * w, [0.25 + i for i in range(w)]),
        "Parallel": lambda: layers.Parallel(layers.MaxMin(2), layers.Identity(Norm.euclidean(max(1, w - 2)))),
        "PixelShuffle": lambda: layers.PixelShuffle(r.two()),
        "PixelUnshuffle": lambda: layers.PixelUnshuffle(r.two()),
        "Pointwise": lambda: layers.Pointwise(r.choice(list(layers.ACTIVATIONS))),
        "PrincipalEnergies": lambda: layers.PrincipalEnergies(w, r.randint(1, w), [r.randint(0, 1) for _ in range(w)]),
        "RescaledGradientFlow": lambda: layers.RescaledGradientFlow(w, 3),
        "ScaledAvgPool2d": lambda: layers.ScaledAvgPool2d(r.two()),
        "SpectralNormLinear": lambda: SpectralNormLinear(w, 3),
        "Spline": lambda: layers.Spline(w),
        "Squeeze": lambda: layers.Squeeze(),
        "Unflatten": lambda: layers.Unflatten(image),
    }
    kind = r.choice(list(kinds))
    return kind, kinds[kind]


def stock(r, shape):
    """A module of torch, of a random kind."""
    w, even, k = r.width(shape), r.even(shape), r.two()
    fitting = max(1, min(3, len(shape) - 1))
    spatial = r.choice((1, 2, 3, fitting, fitting, fitting))

    def by_axes(name):
        return getattr(nn, f"{name}{spatial}d")

    scale = r.choice((2, 3, (2,) * spatial))
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[spatial]
    kinds = {
        "AdaptiveAvgPool": lambda: by_axes("AdaptiveAvgPool")(1),
        "AvgPool": lambda: by_axes("AvgPool")(k, r.two(), ceil_mode=r.random() < 0.5),
        "BatchNorm": lambda: by_axes("BatchNorm")(w).eval(),
        "SyncBatchNorm": lambda: nn.SyncBatchNorm(w).eval(),
        "ChannelShuffle": lambda: nn.ChannelShuffle(k),
        "CircularPad": lambda: by_axes("CircularPad")(1),
        "ConstantPad": lambda: by_axes("ConstantPad")(r.randint(-1, 1), 2.0),
        "Conv": lambda: by_axes("Conv")(shape[0], 2, k, padding=r.randint(0, 1), stride=r.two()),
        "ConvTranspose": lambda: by_axes("ConvTranspose")(shape[0], 2, k, stride=r.two()),
        "ELU": lambda: nn.ELU(r.choice((0.5, -2.0))),
        "Flatten": lambda: nn.Flatten(r.choice((1, 1, 2, 0)), r.choice((-1, -1, 2))),
        "GELU": lambda: nn.GELU(),
        "LPPool": lambda: by_axes("LPPool")(2, k, r.two()),
        "LeakyReLU": lambda: nn.LeakyReLU(-1.5),
        "Linear": lambda: nn.Linear(w, 3),
        "MaxPool": lambda: by_axes("MaxPool")(k, r.two()),
        "PReLU": lambda: nn.PReLU(r.choice((1, w)), init=-2.0),
        "PixelShuffle": lambda: nn.PixelShuffle(k),
        "PixelUnshuffle": lambda: nn.PixelUnshuffle(k),
        "ReflectionPad": lambda: by_axes("ReflectionPad")(1),
        "ReplicationPad": lambda: by_axes("ReplicationPad")(1),
        "Sigmoid": lambda: nn.Sigmoid(),
        "Softmax": lambda: nn.Softmax(r.dim()),
        "Softmax2d": lambda: nn.Softmax2d(),
        "Softmin": lambda: nn.Softmin(r.dim()),
        "Unflatten": lambda: nn.Unflatten(r.choice((1, 1, 0, -1)), (k, max(1, even // k))),
        "Upsample": lambda: nn.Upsample(scale_factor=scale, mode=r.choice(("nearest", "nearest-exact", linear))),
        "ZeroPad": lambda: by_axes("ZeroPad")(r.randint(-1, 1)),
    }
    kind = r.choice(list(kinds))
    return kind, kinds[kind]


def critic_around(make, shape, x):
    """A potential on rows with the layer inside, at samples of that shape; None where torch refuses the layer there."""
    try:
        layer = make()
        before = [] if len(shape) == 1 else [nn.Unflatten(1, shape)]
        with torch.no_grad():
            state = nn.Sequential(*before, layer)(x.float())
    except (InputError, RuntimeError, ValueError, IndexError, TypeError):
        return None
    claim = layer.claim() if isinstance(layer, LipschitzLayer) else None
    blocks = claim.norm_in.blocks if claim is not None and claim.norm_in is not None else ()
    if len(blocks) > 1:  # a lift to the norm that the layer takes
        before = [layers.Linear(Norm.euclidean(math.prod(shape)), claim.norm_in), *before]
    after = []
    if state.ndim > 1:
        width = state[0].numel() if len(state) else 1
        in_blocks = claim is not None and claim.norm_out is not None and len(claim.norm_out.blocks) > 1
        if in_blocks:
            after = [layers.Linear(claim.norm_out, Norm((1,))), layers.Squeeze()]
        else:  # whatever width the layer states, all that comes out is read
            after = [nn.Flatten(), layers.Identity(Norm.euclidean()), nn.Linear(width, 1), layers.Squeeze()]
    return nn.Sequential(*before, layer, *after).double()


def steepest(critic, x):
    x = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(x.clone()).sum(), x)
    return gradient.norm(dim=1).nan_to_num().max().item()


def aimed(critic, x):
    """Turns the read-out to where the layer's Jacobian is largest at a sample."""
    places = [index for index, module in enumerate(critic) if isinstance(module, (nn.Linear, layers.Linear))]
    if not places or places[-1] != len(critic) - 2 or places[-1] == 0:
        return
    body, readout = critic[: places[-1]], critic[places[-1]]
    jacobian = torch.autograd.functional.jacobian(lambda v: body(v[None])[0], x[0])
    left = torch.linalg.svd(jacobian.nan_to_num(), full_matrices=False)[0][:, 0]
    with torch.no_grad():
        readout.weight.copy_(left[None] / (left.abs().sum() if isinstance(readout, layers.Linear) else 1))


def search(seed, trials):
    """Kinds accepted and refused, and how often; fails at a counterexample."""
    r, accepted, refused = Draw(seed), Counter(), Counter()
    for trial in range(trials):
        torch.manual_seed(seed * trials + trial)
        shape = r.shape()
        kind, make = (own if r.random() < 0.5 else stock)(r, shape)
        x = torch.randn(r.choice((2, 3, 4)), math.prod(shape), dtype=torch.float64) * 10 ** r.uniform(-1, 1)
        critic = critic_around(make, shape, x)
        if critic is None:
            continue
        told = f"seed {seed}, trial {trial}: {kind} at {shape}, {critic}"
        try:
            found = evaluate(critic, x)
        except InputError as refusal:
            assert len(str(refusal).splitlines()) == 1, told
            refused[kind] += 1
            continue
        accepted[kind] += 1
        aimed(critic, x)
        proof = prove(critic)
        found = proof.evaluate(x)
        alone = [proof.evaluate(x[row : row + 1]) for row in range(len(x))]
        assert found.values.shape == (len(x),), told
        gaps = (torch.cat([one.values for one in alone]) - found.values).abs()
        assert (gaps <= torch.cat([one.error for one in alone]) + found.error).all(), told
        cloud = torch.cat((x, x + 1e-3 * torch.randn_like(x), 10 * torch.randn_like(x)))
        assert steepest(critic, cloud) <= proof.certificate.lipschitz * (1 + 1e-9), told
        y = x + 0.1 * torch.randn_like(x)
        assert kr_lower_bound(proof, x, y) <= solve(x, y).upper, told
    return accepted, refused


def test_nothing_that_is_accepted_is_steeper_than_its_constant_or_mixes_samples():
    accepted, refused = search(seed=0, trials=300)
    assert sum(accepted.values()) > 100 and sum(refused.values()) > 30
    assert {"Softmax", "Linear", "MaxMin", "Conv", "Upsample", "BatchNorm"} <= set(accepted)
    assert len(refused) > 8


def test_the_search_knows_every_layer_and_module():
    """A new layer is one entry there."""
    r, names = Draw(1), set()
    for _ in range(4000):
        names.add((own if r.random() < 0.5 else stock)(r, r.shape())[0])
    exported = {
        name
        for name, kind in vars(layers).items()
        if isinstance(kind, type)
        and issubclass(kind, LipschitzLayer)
        and name not in ("LipschitzLayer", "Activation", "Branches")
    }
    assert exported <= names
    pointwise = {kind.__name__ for kind in STOCK_CLAIMS if not kind.__name__.endswith(("1d", "2d", "3d"))}
    assert {"Softmax", "Softmin", "Linear", "Flatten", "Unflatten", "Upsample", "PReLU"} <= pointwise & names


# The cases that were found before


def test_an_extension_on_states_of_another_rank_is_refused():
    """It would reduce over the wrong axis: certified 1, slope 4, a bound of 3.9999 where W1 is 1."""
    layer = layers.LipschitzExtension(1, 4)
    critic = nn.Sequential(nn.Unflatten(1, (4, 1)), layer, nn.Flatten(), nn.Linear(4, 1), layers.Squeeze())
    for attempt in (certify, lambda c: evaluate(c, torch.randn(3, 4)), lambda c: c(torch.randn(3, 4))):
        with pytest.raises(InputError, match=r"vectors \(b, d\)|shape \(b, 1\)"):
            attempt(critic)
    for layer in (layers.LipschitzExtension(3, 2), layers.Cones(3, 2)):
        for shape in ((3,), (2, 4), (2, 3, 3), (2, 1, 3)):
            with pytest.raises(InputError, match=r"[Ss]tates must have shape \(b, 3\)"):
                layer(torch.zeros(shape))


class Repeated(LipschitzLayer):
    """Says it is an isometry, and gives four rows for one."""

    def forward(self, x):
        return x.repeat(4, 1)

    def claim(self):
        return layers.Claim(1.0, "told", Norm.euclidean(2), Norm.euclidean(2))


class Pooled(Repeated):
    """Gives one row for all."""

    def forward(self, x):
        return x.mean(dim=0, keepdim=True)

    def claim(self):
        return super().claim()


@pytest.mark.parametrize("kind", [Repeated, Pooled])
def test_a_value_for_each_sample_is_checked(kind):
    """160 values for 40 samples are no evaluation: kr(x, x) was 8.57."""
    critic = nn.Sequential(kind(), layers.Linear(Norm.euclidean(2), Norm((1,))), layers.Squeeze())
    with pytest.raises(InputError, match=r"At '0': the output must have one row for each of 40 samples"):
        kr_lower_bound(critic, torch.randn(20, 2), torch.randn(20, 2))


def quarter_turn(name):
    """A quarter turn of the plane, in a class of that name."""

    def forward(self, x):
        return torch.stack((-x[:, 1], x[:, 0]), dim=1)

    def claim(self):
        return layers.Claim(1.0, "a rotation", Norm.euclidean(2), Norm.euclidean(2))

    return type(name, (LipschitzLayer,), {"forward": forward, "claim": claim})()


def test_no_letter_of_a_class_name_is_part_of_a_proof():
    values = []
    for name in ("QuarterTurn", "QuarterTurn1d", "QuarterTurn2d", "QuarterTurn3d"):
        torch.manual_seed(0)
        critic = nn.Sequential(quarter_turn(name), layers.Linear(Norm.euclidean(2), Norm((1,))), layers.Squeeze())
        assert certify(critic).lipschitz <= 1
        values.append(evaluate(critic, torch.tensor([[1.0, 2.0], [3.0, 4.0]])).values.tolist())
    assert values.count(values[0]) == 4


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 3), (5,)])
@pytest.mark.parametrize(
    "make", [lambda: layers.Conv2d(3, 2, 2), lambda: layers.ConvGradientFlow(3, 2), lambda: layers.L2Pool2d(2)]
)
def test_images_without_a_batch_are_refused_in_one_line(make, shape):
    with pytest.raises(InputError, match=r"Images must have shape \(b, c, h, w\), not .*x\[None\]"):
        make()(torch.zeros(shape))


def test_a_linear_map_of_every_vector_of_a_sample_is_bounded():
    """The same constant as for one vector, in the Euclidean norm of all of them."""
    inner, outer = nn.Linear(3, 5), nn.Linear(20, 1)
    critic = nn.Sequential(layers.Unflatten((4, 3)), inner, nn.Flatten(), outer, layers.Squeeze()).double()
    limit = certify(critic).lipschitz
    with torch.no_grad():
        matrix = outer.weight @ torch.kron(torch.eye(4, dtype=torch.float64), inner.weight)
    assert matrix.norm().item() <= limit
    largest = torch.linalg.matrix_norm(inner.weight, 2).item() * outer.weight.norm().item()
    assert limit == pytest.approx(largest, rel=1e-9)
    with pytest.raises(InputError, match="at least 1"):
        evaluate(nn.Sequential(nn.Linear(2, 1), layers.Squeeze(), nn.Linear(3, 3)), torch.randn(3, 2))
