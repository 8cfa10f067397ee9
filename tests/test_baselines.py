"""What others constrain a critic by: their formulas, and certificates that hold whatever their training does."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path

import mpmath
import pytest
import torch
from conftest import TINY
from test_contract import DISTURBANCES, assert_bounded
from torch import nn

from wgan_lip.cli import main
from wgan_lip.critics import ClippedCritic, GroupSortCritic, PenalizedCritic, ResNetCritic, SpectralNormCritic
from wgan_lip.data import Moons
from wgan_lip.generators import MLPGenerator
from wgan_lip.lipschitz.adversary import estimate_lipschitz
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.certificates import Certificate, certify, evaluate, verify
from wgan_lip.lipschitz.layers import Squeeze, constrain_steps
from wgan_lip.lipschitz.layers.normalised import BjorckLinear, ClippedLinear, SpectralNormLinear
from wgan_lip.runs.run import Run, load_run
from wgan_lip.training import Training, train_wgan
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError
from wgan_lip.wasserstein.dual import Penalized, ascend, fitted, kr_value
from wgan_lip.wasserstein.interval import kr_lower_bound

BASELINES = {
    "clipped": lambda: ClippedCritic(3, width=16, depth=2, clip=0.1),
    "gradient_penalty": lambda: PenalizedCritic(3, width=16, depth=2),
    "one_sided_penalty": lambda: PenalizedCritic(3, width=16, depth=2, one_sided=True),
    "spectral_norm": lambda: SpectralNormCritic(3, width=16, depth=2),
    "groupsort": lambda: GroupSortCritic(3, width=16, depth=2),
}
EVERY = pytest.mark.parametrize("name", BASELINES)
PENALIZED = pytest.mark.parametrize("one_sided", [False, True])
LAYERS = {
    "clipped": lambda: ClippedLinear(5, 3, 0.1),
    "spectral norm": lambda: SpectralNormLinear(5, 3),
    "spectral norm, tall": lambda: SpectralNormLinear(2, 6),
    "Björck": lambda: BjorckLinear(5, 3),
    "Björck, tall": lambda: BjorckLinear(2, 6),
    "Björck, read-out": lambda: BjorckLinear(5, 1),
}


def samples(n=60, dim=3):
    return torch.randn(n, dim), 0.5 * torch.randn(n, dim) + 1


def steps(critic, count, optimizer=torch.optim.Adam, lr=1e-2):
    optimizer = optimizer(critic.parameters(), lr=lr)
    constrain_steps(optimizer, critic)
    x, y = samples()
    for _ in range(count):
        ascend(critic, optimizer, x, y)
    return critic


def loaded(critic):
    buffer = io.BytesIO()
    torch.save(critic.state_dict(), buffer)
    buffer.seek(0)
    other = copy.deepcopy(critic)
    for tensor in (*other.parameters(), *other.buffers()):
        tensor.detach().fill_(0.7)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    return other


def disturbed(critic, disturbance):
    with torch.no_grad():
        for parameter in critic.parameters():
            DISTURBANCES[disturbance](parameter)
    return critic


def matrix(layer):
    """The matrix of an affine layer in float64, from its values at the unit vectors."""
    layer = copy.deepcopy(layer).double()
    columns = layer.weight.shape[1]
    with torch.no_grad():
        return (layer(torch.eye(columns, dtype=torch.float64)) - layer(torch.zeros(1, columns).double())).T


def dense_product(critic):
    layers = [layer for layer in critic if hasattr(layer, "weight")]
    return math.prod(float(torch.linalg.matrix_norm(matrix(layer), 2)) for layer in layers)


# Certificates -------------------------------------------------------------------------------------------------------


STATES = {
    "fresh": lambda critic: critic,
    "after a step": lambda critic: steps(critic, 1),
    "trained": lambda critic: steps(critic, 60),
    "after huge steps": lambda critic: steps(critic, 3, lr=10.0),
    "loaded": lambda critic: loaded(steps(critic, 20)),
    "double": lambda critic: steps(critic, 20).double(),
    "bfloat16": lambda critic: steps(critic, 20).bfloat16(),
    "eval": lambda critic: steps(critic, 20).eval(),
    **{name: lambda critic, name=name: disturbed(critic, name) for name in ("spiked", "zero", "tripled", "rank one")},
}


@pytest.mark.parametrize("state", STATES)
@EVERY
def test_the_certificate_is_above_every_slope_and_is_the_product_of_the_dense_norms(name, state):
    critic = STATES[state](BASELINES[name]())
    certificate = certify(critic)
    assert (certificate.norm_in, certificate.norm_out) == ("Euclidean(3)", "Euclidean(1)")
    product = dense_product(critic)
    assert product * (1 - 1e-9) <= certificate.lipschitz
    if name != "groupsort":
        assert certificate.lipschitz <= product * (1 + 1e-6)
    found = estimate_lipschitz(critic, torch.randn(40, 3), starts=32, steps=10)
    assert found <= certificate.lipschitz * (1 + 1e-9)


@pytest.mark.parametrize("disturbance", DISTURBANCES)
@pytest.mark.parametrize("name", LAYERS)
def test_the_claim_bounds_disturbed_weights(name, disturbance):
    layer = disturbed(LAYERS[name](), disturbance)
    rows, columns = layer.weight.shape
    claimed = assert_bounded(layer, Norm.euclidean(columns), Norm.euclidean(rows))
    assert claimed >= float(torch.linalg.matrix_norm(matrix(layer), 2)) * (1 - 1e-9)
    if name.startswith("Björck"):
        assert claimed == 1


@pytest.mark.parametrize("name", LAYERS)
def test_a_nan_is_never_hidden_by_a_finite_claim(name):
    for index in range(len(list(LAYERS[name]().state_dict()))):
        layer = LAYERS[name]()
        list(layer.state_dict().values())[index].view(-1)[-1] = math.nan
        with pytest.raises(InputError, match="finite"):
            certify(layer)


@EVERY
def test_the_mark_says_what_training_keeps(name):
    """Certified: 1 at most, at every step. Conservative: bounded by the construction. Not certified: anything."""
    guarantee = type(BASELINES[name]()).guarantee
    constants = []
    for scale in (1, 30):
        critic = BASELINES[name]()
        optimizer = torch.optim.SGD(critic.parameters(), lr=0.0)
        constrain_steps(optimizer, critic)
        with torch.no_grad():
            for parameter in critic.parameters():
                parameter.mul_(scale)
        for _ in range(200):  # power iteration settles
            optimizer.step()
        constants.append(certify(critic).lipschitz)
    expected = {
        "clipped": "certified, conservative",
        "spectral_norm": "certified, conservative",
        "groupsort": "certified",
    }
    assert guarantee == expected.get(name, "not certified")
    if guarantee == "certified":
        assert max(constants) <= 1
    elif guarantee == "not certified":
        assert constants[1] > 1e4 * constants[0]
    else:
        assert constants[1] <= (1 + 1e-3 if name == "spectral_norm" else 0.1**3 * math.sqrt(3 * 16 * 16 * 16 * 16))


@EVERY
def test_two_evaluations_are_one_function_and_leave_no_trace(name):
    critic = BASELINES[name]().train()
    x, _ = samples()
    before = copy.deepcopy(critic.state_dict())
    assert kr_value(critic, x, x).item() == 0.0
    assert torch.equal(critic(x), critic(x)) and torch.equal(critic(x), critic.eval()(x))
    proved = certify(critic)
    assert certify(critic.train()) == proved == certify(copy.deepcopy(critic))
    assert all(torch.equal(before[key], value) for key, value in critic.state_dict().items())


@EVERY
def test_evaluation_uses_the_weights_of_now(name):
    critic, (x, _) = BASELINES[name](), samples()
    critic(x)
    steps(critic, 3)
    other = BASELINES[name]().eval()
    other(x)
    other.load_state_dict(critic.state_dict())
    assert torch.equal(other(x), critic(x))
    assert verify(certify(critic), other)


@EVERY
def test_a_critic_compiles_as_one_graph_and_exports_whole(name):
    critic, (x, _) = BASELINES[name](), samples()
    compiled = torch.compile(critic.train(), backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), critic(x), atol=1e-6)
    torch._dynamo.reset()
    assert torch.allclose(torch.export.export(critic, (x,)).module()(x), critic(x), atol=1e-6)


@EVERY
def test_images_and_no_samples_are_samples(name):
    critic = BASELINES[name]()
    assert critic.dim == 3 and critic.heads == 1
    assert torch.equal(critic(torch.ones(4, 1, 3, 1)), critic(torch.ones(4, 3)))
    assert critic(torch.ones(0, 3)).shape == (0,)


@EVERY
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_certified_bound_never_exceeds_w1(name, scale):
    x, y = (scale * part for part in samples(80))
    critic = steps(BASELINES[name](), 80)
    exact = solve(x, y).upper
    for better in (critic, fitted(critic, x, y, steps=40)):
        assert 0 <= kr_lower_bound(better, x, y) <= exact


# Clipped weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_the_clamp_is_obeyed_after_huge_steps(optimizer):
    critic = ClippedCritic(3, width=16, depth=2, clip=0.02)
    assert max(p.abs().max() for p in critic.parameters()) <= 0.02
    steps(critic, 3, optimizer, lr=1e6)
    sizes = torch.cat([p.detach().abs().flatten() for p in critic.parameters()])
    assert sizes.max() == torch.tensor(0.02) and (sizes == 0.02).float().mean() > 0.5


# Penalties ----------------------------------------------------------------------------------------------------------


def linear_critic(direction, **settings):
    """f(x) = ⟨x, direction⟩ + constant, for samples whose coordinates are above −100."""
    critic = PenalizedCritic(len(direction), width=len(direction), depth=1, **settings)
    with torch.no_grad():
        critic.affine_1.weight.copy_(torch.eye(len(direction)))
        critic.affine_1.bias.fill_(100.0)
        critic.readout.weight.copy_(direction[None])
    return critic


@PENALIZED
@pytest.mark.parametrize("length", [0.0, 0.25, 1.0, 3.0])
def test_the_penalty_of_a_linear_critic_has_its_closed_form(one_sided, length):
    direction = length * torch.tensor([0.6, -0.8])
    critic = linear_critic(direction, one_sided=one_sided, penalty_weight=7.0)
    penalty = critic.penalty(*samples(dim=2))
    excess = max(0.0, length - 1) if one_sided else length - 1
    assert penalty.item() == pytest.approx(7 * excess**2, abs=1e-5)
    penalty.backward()
    expected = 14 * excess * direction / max(length, 1e-9)
    assert torch.allclose(critic.readout.weight.grad[0], expected, atol=1e-4)


def test_the_points_are_uniform_between_the_samples():
    """f(t) = relu(t) has slope 0 on the half of [−1, 1] below 0, and 1 above."""
    critic = linear_critic(torch.ones(1), penalty_weight=1.0)
    with torch.no_grad():
        critic.affine_1.bias.zero_()
    ones = torch.ones(20_000, 1)
    for x, y, share in ((ones, -ones, 0.5), (-ones, ones, 0.5), (3 * ones, -ones, 0.25)):
        assert critic.penalty(x, y).item() == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / 20_000))


@PENALIZED
def test_the_penalty_has_the_gradient_of_its_formula(one_sided):
    critic = PenalizedCritic(2, width=4, depth=2, one_sided=one_sided, activation="tanh").double()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.mul_(3)
    x, y = (part.double() for part in samples(9, 2))
    state = critic.get_extra_state()

    def value():
        critic.set_extra_state(state)
        return critic.penalty(x, y)

    value().backward()
    for parameter in critic.parameters():
        direction = torch.randn_like(parameter)
        ends = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.add_(direction, alpha=step)
            ends.append(value().item())
            with torch.no_grad():
                parameter.sub_(direction, alpha=step)
        found = 0.0 if parameter.grad is None else (parameter.grad * direction).sum().item()
        assert found == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-6)


def test_ascent_takes_the_gradient_of_the_value_less_the_penalty():
    critic = linear_critic(torch.tensor([3.0, 4.0]))
    assert isinstance(critic, Penalized) and not isinstance(ResNetCritic(2), Penalized)
    x, y = samples(40, 2)
    value = kr_value(critic, x, y).item()
    for parameter in (*critic.affine_1.parameters(), critic.readout.bias):
        parameter.requires_grad_(False)
    returned = ascend(critic, torch.optim.SGD(critic.parameters(), lr=0.5), x, y)
    assert returned.item() == pytest.approx(value, rel=1e-6) and not returned.requires_grad
    # the value has the gradient mean x − mean y; the penalty 10 (5 − 1)² has 80 (0.6, 0.8)
    expected = torch.tensor([3.0, 4.0]) + 0.5 * (x.mean(0) - y.mean(0) - 80 * torch.tensor([0.6, 0.8]))
    assert torch.allclose(critic.readout.weight.detach()[0], expected, atol=1e-4)


def test_the_points_follow_the_seed_and_go_on_from_a_copy_or_a_checkpoint():
    x, y = samples(30)
    torch.manual_seed(5)
    critic = PenalizedCritic(3, width=8, depth=1)
    torch.manual_seed(5)
    again = PenalizedCritic(3, width=8, depth=1)
    torch.rand(3)  # what others draw makes no difference
    assert critic.penalty(x, y).item() == again.penalty(x, y).item()
    stored, twin = copy.deepcopy(critic.state_dict()), copy.deepcopy(critic)
    first, second = critic.penalty(x, y).item(), critic.penalty(x, y).item()
    assert first != second
    assert (twin.penalty(x, y).item(), twin.penalty(x, y).item()) == (first, second)
    again.load_state_dict(stored)
    assert again.penalty(x, y).item() == first
    before = certify(critic).weights_sha256
    critic.penalty(x, y)
    assert certify(critic).weights_sha256 == before


def test_unequal_numbers_of_samples_are_penalised_in_pairs():
    critic = linear_critic(torch.tensor([3.0, 4.0]))
    assert critic.penalty(torch.zeros(3, 2), torch.zeros(7, 2)).item() == pytest.approx(160, rel=1e-5)
    assert critic.penalty(torch.zeros(3, 1, 2), torch.zeros(2, 2)).item() == pytest.approx(160, rel=1e-5)


@PENALIZED
def test_a_penalised_value_exceeds_w1_and_its_certified_bound_does_not(one_sided):
    """At the optimum of the penalised objective the gradient is longer than 1: the reason for certificates."""
    x = torch.randn(100, 2)
    y = x + torch.tensor([3.0, 0.0])
    critic = PenalizedCritic(2, width=32, depth=2, one_sided=one_sided)
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3)
    for _ in range(300):
        ascend(critic, optimizer, x, y)
    assert kr_value(critic, x, y).item() > 3.05
    assert 0 < kr_lower_bound(critic, x, y) <= 3


# Spectral normalisation ---------------------------------------------------------------------------------------------


def test_power_iteration_moves_once_for_each_step_of_the_optimiser():
    layer = SpectralNormLinear(4, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    constrain_steps(optimizer, layer)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(3, 4))
    for _ in range(3):
        u, weight = layer.u.clone(), layer.weight.detach()
        for _ in range(4):
            layer(torch.randn(2, 4)).sum().backward()
        assert torch.equal(layer.u, u)
        optimizer.step()
        expected = weight @ (weight.T @ u)
        assert torch.allclose(layer.u, expected / expected.norm(), atol=1e-6)


def test_power_iteration_settles_at_the_norm():
    layer = SpectralNormLinear(6, 5)
    assert 1 <= layer.claim().lipschitz < 1.05
    with torch.no_grad():
        layer.weight.copy_(torch.randn(5, 6))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    constrain_steps(optimizer, layer)
    assert layer.claim().lipschitz > 1.01
    for _ in range(300):
        optimizer.step()
    assert 1 - 1e-6 <= layer.claim().lipschitz < 1 + 1e-5


def test_the_gradient_takes_u_and_v_as_constants():
    """∂(W/σ) contracted with G is (G − ⟨G, W/σ⟩ u vᵀ)/σ: equation 12 of the reference."""
    layer = SpectralNormLinear(4, 3).double()
    weight, u = layer.weight.detach(), layer.u
    v = weight.T @ u
    sigma, v = v.norm(), v / v.norm()
    x, g = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    (layer(x) * g).sum().backward()
    outer = g.T @ x
    expected = (outer - (outer * weight).sum() / sigma * torch.outer(u, v)) / sigma
    assert torch.allclose(layer.weight.grad, expected, atol=1e-12)


def test_a_zero_weight_keeps_its_direction_and_comes_back():
    layer = SpectralNormLinear(4, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    constrain_steps(optimizer, layer)
    with torch.no_grad():
        layer.weight.zero_()
    optimizer.step()
    assert layer.u.norm().item() == pytest.approx(1, abs=1e-6) and layer.claim().lipschitz == 0
    assert torch.equal(layer(torch.ones(2, 4)), layer.bias.expand(2, 3))
    with torch.no_grad():
        layer.weight.copy_(torch.randn(3, 4))
    for _ in range(300):
        optimizer.step()
    assert layer.claim().lipschitz < 1 + 1e-5


@pytest.mark.parametrize("factor", [0.0, 0.5, 1e30])
def test_a_direction_of_another_length_is_refused(factor):
    layer = SpectralNormLinear(4, 3)
    layer.u.mul_(factor)
    with pytest.raises(InputError, match="u must have length 1"):
        layer.claim()


def test_a_direction_that_misses_the_weight_is_told():
    layer = SpectralNormLinear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.tensor([1.0, 0.5])))
        layer.u.copy_(torch.tensor([0.0, 1.0]))
    assert layer.claim().lipschitz == pytest.approx(2, rel=1e-6)
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.tensor([1.0, 0.0])))
    claimed = layer.claim().lipschitz
    assert claimed == pytest.approx(1 / SpectralNormLinear.FLOOR, rel=1e-6)
    assert float(torch.linalg.matrix_norm(matrix(layer), 2)) == pytest.approx(claimed, rel=1e-6)


# Björck -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
@pytest.mark.parametrize("iterations", [0, 1, 5, 12])
def test_the_singular_values_are_those_of_the_scalar_iteration(shape, iterations):
    layer = BjorckLinear(*shape[::-1], iterations=iterations).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(shape))
    weight = layer.weight.detach()
    gram = weight @ weight.T if shape[0] <= shape[1] else weight.T @ weight
    left, expected, right = torch.linalg.svd(weight / gram.abs().sum(dim=1).max().sqrt(), full_matrices=False)
    for _ in range(iterations):
        expected = (3 * expected - expected**3) / 2
    assert torch.allclose(matrix(layer), left @ expected.diag() @ right, atol=1e-12)
    assert layer.claim().lipschitz == 1


def test_the_norm_is_at_most_1_for_spiked_weights_in_every_one_of_200_seeds():
    """Peers: NaN in 74 of 200."""
    for seed in range(200):
        layer = BjorckLinear(12, 9)
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(9, 12, generator=rng))
            layer.weight[seed % 9, seed % 12] += 10.0 ** (seed % 30)
        single = layer(torch.eye(12)) - layer.bias
        assert torch.linalg.svdvals(single.double())[0] <= 1 + 1e-5
        assert 1 - 1e-12 <= torch.linalg.svdvals(matrix(layer))[0] <= 1 + 1e-12


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (1, 4)])
def test_the_whole_iteration_is_differentiated(shape):
    """Peers: gradients 40 times too long, of a cubic term left out from the fifth step on."""
    layer = BjorckLinear(*shape[::-1]).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(shape))
    x = torch.randn(2, shape[1], dtype=torch.float64)

    def value(weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(value, tuple(layer.parameters()), eps=1e-6, atol=1e-7)


def test_orthonormal_weights_stay_as_they_are_through_training():
    critic = steps(GroupSortCritic(3, width=16, depth=2), 100)
    for layer in critic:
        if isinstance(layer, BjorckLinear):
            assert torch.linalg.svdvals(matrix(layer)).min() > 0.99


# Rounding -----------------------------------------------------------------------------------------------------------


def exact_rows(tensor):
    return mpmath.matrix([[mpmath.mpf(float(entry)) for entry in row] for row in tensor.double()])


def exact_spectral(layer):
    weight, u = exact_rows(layer.weight.detach()), exact_rows(layer.u[:, None])
    largest = max(abs(entry) for entry in weight)
    return weight / max(mpmath.norm(weight.T * u, 2), mpmath.mpf(SpectralNormLinear.FLOOR) * largest)


def exact_bjorck(layer):
    weight = exact_rows(layer.weight.detach())
    gram = weight * weight.T if weight.rows <= weight.cols else weight.T * weight
    weight = weight / mpmath.sqrt(max(sum(abs(gram[i, j]) for j in range(gram.cols)) for i in range(gram.rows)))
    for _ in range(layer.iterations):
        weight = 1.5 * weight - 0.5 * (weight * weight.T * weight)
    return weight


@pytest.mark.parametrize("ill", ["fresh", "graded", "spiked"])
@pytest.mark.parametrize("kind", ["spectral norm", "spectral norm, tall", "Björck", "Björck, tall"])
def test_the_error_of_an_evaluation_is_within_its_bound_of_fifty_digits(kind, ill):
    for seed in range(5):
        torch.manual_seed(seed)
        layer = LAYERS[kind]().double()
        with torch.no_grad():
            layer.weight.copy_(torch.randn(layer.weight.shape))
            if ill == "graded":
                layer.weight.mul_(10.0 ** -torch.arange(layer.weight.shape[1]).double())
            elif ill == "spiked":
                layer.weight[0, 0] = 1e6
        rows, columns = layer.weight.shape
        readout = nn.Linear(rows, 1, bias=False).double()
        x = 10 * torch.randn(6, columns, dtype=torch.float64)
        at = evaluate(nn.Sequential(layer, readout, Squeeze()), x)
        with mpmath.workdps(50):
            weight = exact_spectral(layer) if isinstance(layer, SpectralNormLinear) else exact_bjorck(layer)
            states = weight * exact_rows(x).T
            bias = exact_rows(layer.bias.detach()[:, None])
            row = exact_rows(readout.weight.detach())
            for column in range(len(x)):
                true = (row * (states[:, column] + bias))[0]
                distance = abs(mpmath.mpf(float(at.values[column])) - true)
                assert distance <= at.error[column].item() < 1e-6


def test_an_error_that_cannot_be_bounded_is_infinite():
    x, _ = samples()
    critic = GroupSortCritic(3, width=16, depth=2, iterations=30)
    assert evaluate(critic, x).error.max() < 1e-4
    critic.affine_1.iterations = 99
    assert evaluate(critic, x).error.isinf().all()


# Arguments and commands ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ClippedCritic(2, clip=0.0), "clip must be finite and above 0, not 0.0"),
        (lambda: ClippedCritic(2, clip=math.nan), "clip must be finite and above 0, not nan"),
        (lambda: ClippedCritic(0), "dim must be at least 1, not 0"),
        (lambda: PenalizedCritic(2, penalty_weight=-1.0), "penalty_weight must be finite and at least 0, not -1.0"),
        (lambda: PenalizedCritic(2, width=0), "width must be at least 1, not 0"),
        (lambda: SpectralNormCritic(2, depth=0), "depth must be at least 1, not 0"),
        (lambda: SpectralNormCritic(2, activation="sine"), "relu, .*not 'sine'"),
        (lambda: GroupSortCritic(2, width=9), "group must divide the width 9; 2 does not"),
        (lambda: GroupSortCritic(2, iterations=-1), "iterations must be from 0 to 30, not -1"),
        (lambda: GroupSortCritic(2, iterations=31), "iterations must be from 0 to 30, not 31"),
        (lambda: GroupSortCritic(2, bias_scale=-1.0), "bias_scale must be finite and at least 0"),
    ],
)
def test_what_makes_no_sense_is_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


@EVERY
def test_a_baseline_trains_from_the_command_line_and_reloads_as_it_was_proved(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert (
        main(["train", f"critic={name}", "data=gaussians8", *TINY, "training.steps=20", "training.audit_every=10"]) == 0
    )
    (directory,) = Path("outputs/train").iterdir()
    run = load_run(directory)
    assert type(run.critic) is type(BASELINES[name]())
    assert run.config["critic"].get("one_sided", False) == (name == "one_sided_penalty")
    stored = Certificate.load(directory / "certificate.json")
    assert verify(stored, run.critic).lipschitz == run.summary["lipschitz"]
    audits = [record for record in run.metrics if "w1/exact" in record]
    assert len(audits) == 2
    assert all(0 <= record["w1/lower"] <= record["w1/exact"] <= record["w1/upper"] for record in audits)
    interval = run.summary["interval"]
    assert interval["lower_as_trained"] <= interval["lower"] <= interval["exact"] <= interval["upper"]
    assert run.summary["largest_gradient_found"] <= run.summary["lipschitz"]
    capsys.readouterr()
    assert main(["certify", f"run={directory}"]) == 0
    screen = capsys.readouterr().out
    assert "agrees with the stored one" in screen and max(map(len, screen.splitlines())) <= 120


@pytest.mark.parametrize("name", ["gradient_penalty", "spectral_norm"])
def test_equal_seeds_play_equal_games(name):
    found, source = [], Moons()
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        critic = {"gradient_penalty": PenalizedCritic, "spectral_norm": SpectralNormCritic}[name](2, width=16, depth=2)
        generator = MLPGenerator(2, latent_dim=2, width=8)
        torch.manual_seed(len(found))  # of the game itself nothing hangs on the default generator
        records = train_wgan(
            source,
            generator,
            critic,
            Training(steps=6, batch_size=16, log_every=1, audit_size=20, audit_refits=0),
            critic_optimizer=torch.optim.Adam(critic.parameters(), lr=1e-3),
            generator_optimizer=torch.optim.Adam(generator.parameters(), lr=1e-3),
            seed=seed,
        )
        found.append([record.scalars["w1/critic"] for record in records])
    assert found[0] == found[1] != found[2]


def test_baselines_train_beside_ours_in_one_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = "resnet_plane,gradient_penalty,groupsort"
    sweep = ["train", "--multirun", f"critic={names}", "data=moons", *TINY, "evaluation.fit_steps=0"]
    assert main(sweep) == 0
    (sweep,) = Path("outputs/multirun").iterdir()
    jobs = [Run(sweep / f"critic={name}") for name in names.split(",")]
    kinds = [ResNetCritic, PenalizedCritic, GroupSortCritic]
    assert [type(job.critic) for job in jobs] == kinds
    assert all(job.status["state"] == "finished" for job in jobs)
