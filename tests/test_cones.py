"""The cones as a read-out: their formula to 50 digits, slopes of at most 1, one function in both precisions, and how
they start and train."""

from __future__ import annotations

import copy
import io
import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wgan_lip.critics import FixedWidthCritic, ResNetCritic, SortingCritic
from wgan_lip.data.oracles import RayMonotone
from wgan_lip.lipschitz.bounds import Norm, gamma
from wgan_lip.lipschitz.certificates import certify, evaluate, weights_sha256
from wgan_lip.lipschitz.layers import Cones, GradientFlow, Retraction, Squeeze, constrain_steps
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError
from wgan_lip.wasserstein.dual import ascend, kr_value
from wgan_lip.wasserstein.interval import kr_lower_bound

SHAPES = pytest.mark.parametrize(("dim", "count", "heads"), [(1, 1, 1), (3, 2, 1), (2, 7, 3), (20, 40, 1), (4, 3, 2)])


def cones(dim, count, heads=1, *, unit=4.0, temperature=0.1, dtype=torch.float64):
    """Cones at random, in each head at other heights; the temperature in units."""
    layer = Cones(dim, count, heads=heads).to(dtype)
    with torch.no_grad():
        layer.unit.fill_(unit)
        layer.centers.copy_(0.25 * torch.randn(count, dim))
        layer.offsets.copy_(0.25 * torch.randn(heads, count))
        layer.coldness.fill_(-math.log(temperature) / 6)
    return layer


def wide(layer):
    return copy.deepcopy(layer).double()


def exact(layer, x):
    """The formula of :class:`Cones` at the stored parameters: rows of mpmath numbers, (b, heads)."""
    with mpmath.workdps(50):
        number = lambda tensor: mpmath.mpf(tensor.item())  # noqa: E731
        unit = number(layer.unit)
        temperature = unit * mpmath.exp(max(-20, min(0, -6 * number(layer.coldness))))

        def soft(values):
            largest = max(values)
            return largest + temperature * mpmath.log(
                mpmath.fsum(mpmath.exp((v - largest) / temperature) for v in values)
            )

        rows = []
        for point in x:
            distances = [
                mpmath.norm([number(p) - unit * number(c) for p, c in zip(point, center)]) for center in layer.centers
            ]
            row = []
            for offsets in layer.offsets:
                rho = [distance + unit * number(b) for distance, b in zip(distances, offsets)]
                rising, falling = rho[: len(rho) // 2], rho[len(rho) // 2 :]
                row.append(-soft([*(-r for r in rising), -soft([-r for r in falling])]))
            rows.append(row)
        return rows


def allowed(layer, x):
    """The largest error of each row that the claim admits, (b,)."""
    rounding = layer.claim().rounding
    return gamma(rounding.operations) * (rounding.gain * x.norm(dim=1) + rounding.offset)


def assert_enclosed(layer, x):
    """The float64 values err by at most what is claimed. Where one is no number, the evaluation must say infinity."""
    with torch.no_grad():
        found = layer(x).tolist()
    truths = exact(layer, x)
    with mpmath.workdps(50):
        for row, truth, most in zip(found, truths, allowed(layer, x).tolist()):
            if most < math.inf and all(map(math.isfinite, row)):
                assert mpmath.norm([mpmath.mpf(v) - t for v, t in zip(row, truth)]) <= most
    if layer.offsets.shape[0] == 1:
        evaluation = evaluate(nn.Sequential(layer, Squeeze()), x)
        with mpmath.workdps(50):
            for value, truth, error in zip(evaluation.values.tolist(), truths, evaluation.error.tolist()):
                assert error == math.inf or abs(mpmath.mpf(value) - truth[0]) <= error
        return evaluation.error
    return allowed(layer, x)


# The formula


@SHAPES
@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 0.1, 1.0])
def test_the_error_encloses_the_50_digit_value(dim, count, heads, temperature):
    layer = cones(dim, count, heads, temperature=temperature)
    error = assert_enclosed(layer, torch.randn(6, dim, dtype=torch.float64))
    assert (error < 1e-9).all()
    error = assert_enclosed(layer, (layer.unit * layer.centers).detach())
    assert (error < 1e-9).all()


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 9),
    unit=st.sampled_from([5e-324, 1e-300, 1e-170, 1e-60, 1e-9, 1.0, 1e12, 1e125, 1e140, 1e200, 1e307]),
    coldness=st.sampled_from([-1e308, -10.0, -3.0, 0.0, 1.0, 3.4, 1e6, 1e308]),
    size=st.sampled_from([0.0, 1e-200, 1e-8, 1.0, 1e6]),
    height=st.sampled_from([0.0, 1e-8, 1.0, 1e9]),
    at=st.sampled_from([0.0, 1e-150, 1e-3, 1.0, 1e4]),
)
def test_the_error_encloses_it_at_the_ends_of_the_range(seed, count, unit, coldness, size, height, at):
    torch.manual_seed(seed)
    layer = cones(2, count, unit=unit)
    with torch.no_grad():
        layer.centers.mul_(size)
        layer.centers[count // 2 :] = layer.centers[0]
        layer.offsets.mul_(height)
        layer.coldness.fill_(coldness)
        x = torch.cat((layer.unit * layer.centers[:2], at * unit * torch.randn(2, 2)))
    assert_enclosed(layer, torch.cat((torch.zeros(1, 2), x[x.isfinite().all(dim=1)])))


def test_what_a_frozen_temperature_costs_in_rounding_is_claimed():
    """Where all cones stand at one point, nothing but T log k is left of the value, and its rounding."""
    layer = cones(1, 9)
    with torch.no_grad():
        layer.centers.zero_()
        layer.offsets.zero_()
        layer.coldness.fill_(1e3)
    error = assert_enclosed(layer, torch.zeros(1, 1, dtype=torch.float64))
    assert 1e-25 < error.item() < 1e-18  # T = 4 exp(-20)


def test_many_cones_far_from_the_origin_stay_enclosed():
    layer = cones(3, 300, temperature=1e-3)
    with torch.no_grad():
        layer.centers.add_(1e5)
    x = (layer.unit * layer.centers[::100]).detach() + 1e-3
    assert (assert_enclosed(layer, x) < 1e-3).all()


@pytest.mark.parametrize("size", [1e120, 1e200])
def test_a_cone_too_far_away_for_its_square_is_in_the_error(size):
    layer = cones(1, 2, unit=1.0)
    with torch.no_grad():
        layer.centers.copy_(torch.tensor([[size], [0.0]], dtype=torch.float64))
        layer.offsets.copy_(torch.tensor([[-1.5 * size, 0.0]], dtype=torch.float64))
    found = evaluate(nn.Sequential(layer, Squeeze()), torch.zeros(1, 1))
    assert found.error.item() == math.inf or abs(-0.5 * size - found.values.item()) <= found.error.item()
    assert size > 1e130 or found.error.item() < 1e-12 * size


@SHAPES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1e-8, 1e-2, 1.0])
def test_the_soft_maximum_is_as_near_to_the_hard_one_as_its_temperature(dim, count, heads, temperature, dtype):
    """0 ≤ smax − max ≤ T log n for n values."""
    layer = cones(dim, count, heads, temperature=temperature, dtype=dtype)
    x = torch.randn(100, dim, dtype=dtype)
    distances = (x[:, None].double() - layer.unit.double() * layer.centers.double()).norm(dim=2)
    rho = (distances[:, None] + layer.unit.double() * layer.offsets.double()).detach()
    rising, falling = rho.split((count // 2, count - count // 2), dim=2)
    hard = torch.cat((rising, (-falling).amax(dim=2, keepdim=True)), dim=2).amin(dim=2)
    slack = 100 * torch.finfo(dtype).eps
    surplus = layer(x).detach().double() - hard
    assert (surplus >= -4 * temperature * math.log(count // 2 + 1) - slack).all()
    assert (surplus <= 4 * temperature * math.log(count - count // 2) + slack).all()


# Slopes


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 9),
    heads=st.integers(1, 3),
    temperature=st.sampled_from([1e-8, 1e-3, 1.0]),
    weights=st.sampled_from(["random", "spiked", "zero", "huge", "one point", "tiny"]),
)
def test_each_head_has_slope_at_most_1_whatever_the_weights(seed, count, heads, temperature, weights):
    torch.manual_seed(seed)
    layer = cones(3, count, heads, temperature=temperature)
    with torch.no_grad():
        for parameter in (layer.centers, layer.offsets):
            if weights == "spiked":
                parameter.view(-1)[0] = 1e6
            elif weights == "one point":
                parameter[:] = parameter[:1]
            elif weights != "random":
                parameter.mul_({"zero": 0.0, "huge": 1e30, "tiny": 1e-30}[weights])
        size = float(layer.unit * layer.centers.abs().amax()) + 1e-3
        x, y = (size * torch.randn(40, 3, dtype=torch.float64) for _ in range(2))
        y[::2] = x[::2] + 1e-3 * size * torch.randn(20, 3)
        y[: min(count, 9)] = (layer.unit * layer.centers)[:9]
        gap = (layer(x) - layer(y)).abs().amax(dim=1)
    assert (gap <= (x - y).norm(dim=1) * (1 + 1e-14) + allowed(layer, x) + allowed(layer, y)).all()
    assert layer.claim().lipschitz == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_have_norm_at_most_1_and_1_when_cold(dtype):
    x = torch.randn(200, 5, dtype=dtype, requires_grad=True)
    for temperature in (1e-7, 0.03, 1.0):
        (gradient,) = torch.autograd.grad(cones(5, 12, temperature=temperature, dtype=dtype)(x).sum(), x)
        norms = gradient.norm(dim=1)
        assert norms.max() <= 1 + 100 * torch.finfo(dtype).eps
        assert (norms.median() > 0.999) == (temperature == 1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_a_centre_moves_nothing_and_spoils_nothing(count, dtype):
    """The slope of a cone is 0 at its tip; that of the others goes on."""
    layer = cones(4, count, temperature=1e-7, dtype=dtype)
    with torch.no_grad():
        layer.centers.copy_(torch.eye(6, 4)[-count:])  # the last two, where there are so many, coincide
        layer.centers[: count // 2] += 1e3  # what rises is high where it is far
        layer.offsets.zero_()
    x = (layer.unit * layer.centers[-1:]).detach().requires_grad_(True)
    layer(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros(1, 4, dtype=dtype))
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
    assert layer.offsets.grad.sum() == -4


@SHAPES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_heights_share_one_slope_among_rising_and_falling_cones(dim, count, heads, dtype):
    """∂f/∂b is at least 0 for rising cones, at most 0 for falling ones, and of total size 1 in each head."""
    layer = cones(dim, count, heads, dtype=dtype)
    layer(torch.randn(50, dim, dtype=dtype)).mean(dim=0).sum().backward()
    slopes = layer.offsets.grad / layer.unit
    assert (slopes[:, : count // 2] >= 0).all() and (slopes[:, count // 2 :] <= 0).all()
    assert torch.allclose(slopes.abs().sum(dim=1), torch.ones(heads, dtype=dtype), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("count", "heads"), [(1, 1), (2, 1), (5, 2)])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_gradients_agree_with_difference_quotients(count, heads, temperature):
    layer = cones(3, count, heads, temperature=temperature)
    values = [p.detach().clone().requires_grad_(True) for p in layer.parameters()]
    names = [name for name, _ in layer.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(call, (x, *values))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_second_derivatives_are_refused_and_never_wrong(dtype):
    """As :mod:`wgan_lip.lipschitz.adversary` expects, which then searches without them."""
    x = torch.randn(4, 3, dtype=dtype, requires_grad=True)
    critic = nn.Sequential(GradientFlow(3, 2).to(dtype), cones(3, 6, dtype=dtype))
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives|not implemented"):
        gradient.square().sum().backward()


# Single precision


def gradients(layer, x, weight):
    """Values, and the gradients of a weighted sum of them by x and every parameter, in float64."""
    x = x.detach().clone().requires_grad_(True)
    values = layer(x)
    inputs = [x, *layer.parameters()]
    found = torch.autograd.grad((values * weight.to(x.dtype)).sum(), inputs)
    return [tensor.detach().double() for tensor in (values, *found)]


@pytest.mark.parametrize("temperature", [1e-4, 0.1, 1.0])
@pytest.mark.parametrize(("count", "heads"), [(1, 1), (2, 1), (30, 1), (30, 4)])
@pytest.mark.parametrize("where", ["near", "far from the origin", "at centres"])
def test_single_precision_is_the_same_function_with_the_same_gradients(where, count, heads, temperature):
    layer = cones(6, count, heads, temperature=temperature, dtype=torch.float32)
    with torch.no_grad():
        if where == "far from the origin":
            layer.centers.add_(1e3)
    x = (4 * layer.centers).detach() if where == "at centres" else 4 * layer.centers.detach()[0] + torch.randn(64, 6)
    weight = torch.rand(len(x), heads) + 0.5
    single, double = gradients(layer, x, weight), gradients(wide(layer), x.double(), weight.double())
    # Rounding of a value moves the shares of two cones by its size over T.
    height = 4e-3 if where == "far from the origin" else 1e-5  # of one offset there: 1e3 eps, and of a distance at most
    tolerance = height * (1 + 1 / (4 * temperature))
    if where != "far from the origin":
        assert torch.allclose(single[0], double[0], rtol=1e-5, atol=1e-5)
    names = ["values", "x", "centers", "offsets", "coldness"]
    for name, one, other in zip(names, single, double):
        scale = other.abs().max() + 1
        assert (one - other).abs().max() <= tolerance * scale, name


@pytest.mark.parametrize("distance", [1e-1, 1e-2, 1e-3])
def test_a_slope_near_a_centre_errs_by_the_rounding_of_its_difference(distance):
    layer = cones(8, 1, dtype=torch.float32)
    direction = nn.functional.normalize(torch.randn(50, 8), dim=1)
    x = ((4 * layer.centers).detach() + distance * direction).requires_grad_(True)
    layer(x).sum().backward()
    expected = 4 * layer.centers.detach().double() - x.detach().double()
    expected = expected / expected.norm(dim=1, keepdim=True)
    assert (x.grad - expected).norm(dim=1).max() <= 1e-6 / distance


@pytest.mark.parametrize("heads", [1, 3])
def test_centres_that_coincide_cost_single_precision_half_its_digits_at_most(heads):
    """Only the nearest centre is measured by differences, and a twin is as near."""
    layer = cones(6, 12, heads, dtype=torch.float32)
    with torch.no_grad():
        layer.centers[1::2] = layer.centers[::2]
        x = (4 * layer.centers).detach() + 1e-6 * torch.randn(12, 6)
        half = 8 * math.sqrt(torch.finfo(torch.float32).eps)
        assert (layer(x).double() - wide(layer)(x.double())).abs().max() < half
    x.requires_grad_(True)
    layer(x).sum(dim=1).mean().backward()
    assert all(tensor.grad.isfinite().all() for tensor in (x, *layer.parameters()))
    assert (x.grad.norm(dim=1) * 12 <= heads * 1.01).all()


@pytest.mark.parametrize("outlier", [1e3, 1e6])
def test_a_sample_far_out_spoils_no_other_of_its_batch(outlier):
    layer = cones(4, 30, dtype=torch.float32)
    x = torch.randn(20, 4)
    alone = layer(x)
    x[-1] = outlier
    assert torch.allclose(layer(x)[:-1], alone[:-1], rtol=0, atol=1e-6)
    assert layer(x[:0]).shape == (0, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_dtype_and_rounds_once_or_twice(dtype):
    layer, x = cones(3, 5, 2, dtype=dtype), torch.randn(6, 3).to(dtype)
    found = layer(x)
    assert found.dtype == dtype
    assert torch.allclose(found.double(), wide(layer)(x.double()), rtol=0, atol=8 * torch.finfo(dtype).eps)
    found.sum().backward()
    assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, of a Function
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("count", "heads"), [(1, 1), (6, 2)])
def test_it_compiles_as_one_graph(count, heads, dtype):
    layer, x = cones(3, count, heads, dtype=dtype), torch.randn(7, 3, dtype=dtype)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    weight = torch.rand(7, heads)
    for one, other in zip(gradients(compiled, x, weight), gradients(layer, x, weight)):
        assert torch.allclose(one, other, rtol=0, atol=20 * torch.finfo(dtype).eps)


# Weights


@pytest.mark.parametrize("name", ["centers", "offsets", "coldness", "unit"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_claim_is_made_about_weights_that_are_not_finite(name, value):
    layer = cones(3, 4, 2)
    with torch.no_grad():
        getattr(layer, name).view(-1)[-1] = value
    with pytest.raises(InputError, match="finite"):
        certify(layer)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_no_claim_is_made_about_a_unit_that_is_none(value):
    with pytest.raises(InputError, match="unit must be above 0, not"):
        certify(cones(3, 4, unit=value))


@pytest.mark.parametrize("arguments", [(0, 3), (3, 0), (3, 2, 0)])
def test_sizes_below_1_are_refused(arguments):
    dim, centers, *heads = arguments
    with pytest.raises(InputError, match="at least 1"):
        Cones(dim, centers, heads=heads[0] if heads else 1)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(InputError, match="scale must be finite and above 0"):
        Cones(2, 3, scale=scale)


def test_a_state_dict_holds_the_whole_function():
    layer, x = cones(3, 5, 2, dtype=torch.float32, unit=7.3), torch.randn(9, 3)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other = Cones(3, 5, heads=2)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    for twin in (other, copy.deepcopy(layer)):
        assert torch.equal(twin(x), layer(x))
        assert weights_sha256(twin) == weights_sha256(layer)
        assert certify(twin) == certify(layer)
    with torch.no_grad():
        other.unit.mul_(2)
    assert weights_sha256(other) != weights_sha256(layer), "the unit is part of the function"
    assert wide(layer)(x.double()).dtype == torch.float64


@pytest.mark.parametrize(("coldness", "kept"), [(-1.0, 0.0), (0.0, 0.0), (1.5, 1.5), (1e9, 20 / 6)])
def test_the_retraction_keeps_the_temperature_in_its_range_and_all_else_as_it_is(coldness, kept):
    layer = cones(3, 5)
    with torch.no_grad():
        layer.coldness.fill_(coldness)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    value = layer(torch.ones(1, 3))
    Retraction(layer)()
    after = layer.state_dict()
    assert after.pop("coldness").item() == pytest.approx(kept, rel=1e-15)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    assert torch.allclose(layer(torch.ones(1, 3)), value, rtol=0, atol=1e-14), "outside its range it does nothing"


@pytest.mark.parametrize("exponent", [-20, 10, 20])
def test_it_trains_alike_in_all_units(exponent):
    """Note [Units]: with samples in units 2^e as large, values come out 2^e as large, bit by bit."""

    def trained(scale):
        torch.manual_seed(1)
        x, y = scale * torch.randn(100, 3), scale * (torch.randn(100, 3) + 1)
        critic = ResNetCritic(3, depth=0, readout="cones", centers=10)
        critic.start_at(x, y)
        optimizer = torch.optim.Adam(critic.parameters(), lr=0.01, eps=1e-30)
        constrain_steps(optimizer, critic)
        for _ in range(8):
            ascend(critic, optimizer, x, y)
        return critic(torch.cat((x, y))).detach()

    assert torch.equal(trained(2.0**exponent), 2.0**exponent * trained(1.0))


# Where it starts


@pytest.mark.parametrize(("n", "m", "count", "heads"), [(40, 60, 12, 1), (40, 60, 12, 3), (5, 3, 30, 1), (7, 1, 1, 2)])
def test_every_cone_starts_with_one_mean_a_group(n, m, count, heads):
    """Mean 0, but for T log(cones of the group), what softness adds, and two T more for the group that rises."""
    x, y = 3 * torch.randn(n, 4) + 5, 3 * torch.randn(m, 4)
    layer = Cones(4, count, heads=heads)
    layer.start_at(x, y)
    layer, states = wide(layer), torch.cat((x, y)).double()
    centers = (layer.unit * layer.centers).detach()
    means = (states[:, None] - centers).norm(dim=2).mean(dim=0) + (layer.unit * layer.offsets).detach()  # (heads, k)
    temperature, rising = layer.temperature.item(), count // 2
    for group, head_start in ((slice(0, rising), 2.0), (slice(rising, count), 0.0)):
        for mean in means[:, group].flatten().tolist():
            size = group.stop - group.start
            assert mean == pytest.approx(temperature * (math.log(size) + head_start), abs=1e-5)
    spread = (states - states.mean(dim=0)).square().mean().sqrt().item()
    assert layer.unit.item() == pytest.approx(4 * spread, rel=1e-6)
    assert temperature == pytest.approx(0.1 * spread * math.sqrt(4), rel=1e-6)
    for group, own in ((centers[:rising], y), (centers[rising:], x)):
        chosen = group[: len(own)]
        apart = (chosen[:, None] - own.double()).norm(dim=2).amin(dim=1)
        assert not len(apart) or apart.max() < 1e-5, "a centre is a state of its own side"
        assert len(chosen.unique(dim=0)) == len(chosen)
        rest = group[len(own) :]
        assert len(rest) == 0 or len(own) == 1 or len(rest.round(decimals=6).unique(dim=0)) == len(rest)


def by_transport(x, y):
    return solve(x, y).potential


@pytest.mark.parametrize("swapped", [False, True])
def test_a_start_on_the_true_potential_is_nearly_all_of_w1(swapped):
    """Its tips need a group of cones each way round: falling ones for the funnels, rising ones where the laws swap."""
    oracle = RayMonotone(dim=4, funnels=16)
    x, y = oracle.sample(4096, 4096, torch.Generator().manual_seed(0))
    sign = -1.0 if swapped else 1.0
    if swapped:
        x, y = y, x
    torch.manual_seed(0)
    critic = ResNetCritic(4, depth=0, readout="cones", centers=512)
    critic.start_at(x.float(), y.float(), solver=lambda x, y: lambda points: sign * oracle.potential(points))
    assert 0.8 * oracle.w1 < kr_value(critic, x.float(), y.float()).item()
    assert certify(critic).lipschitz <= 1


def test_a_start_from_a_plan_beats_one_from_samples_on_samples_of_neither():
    oracle, rng = RayMonotone(dim=4, funnels=64), torch.Generator().manual_seed(0)
    x, y = (samples.float() for samples in oracle.sample(4096, 4096, rng))
    fresh = [samples.float() for samples in oracle.sample(8192, 8192, rng)]
    values = {}
    for name, solver in (("samples", None), ("plan", by_transport)):
        torch.manual_seed(0)
        critic = ResNetCritic(4, depth=0, readout="cones", centers=256)
        critic.start_at(x, y, solver=solver)
        values[name] = kr_value(critic, *fresh).item()
    assert max(0.8 * oracle.w1, 2 * values["samples"]) < values["plan"] <= 1.02 * oracle.w1


def test_tips_stand_on_the_potential_and_as_sharp_as_they_are_apart():
    layer = Cones(2, 40, heads=2).double()
    x, y = torch.randn(200, 2).double(), torch.randn(200, 2).double() + 3
    layer.start_at(x, y, solver=lambda x, y: lambda points: 0.5 * points[:, 0])
    tips, heights = layer.unit * layer.centers, layer.unit * layer.offsets  # (k, 2), (heads, k)
    assert torch.equal(heights[0], heights[1])
    torch.testing.assert_close(heights[0, :20], 0.5 * tips[:20, 0])  # rising
    shift = heights[0, 20:] + 0.5 * tips[20:, 0]  # falling ones may stand higher, all alike
    torch.testing.assert_close(shift, shift[:1].expand(20))
    apart = torch.cat([torch.cdist(of, of).fill_diagonal_(math.inf).amin(dim=1) for of in tips.split(20)]).median()
    torch.testing.assert_close(layer.temperature, 0.1 * apart)
    assert layer.unit <= 6 * apart / math.sqrt(2) * (1 + 1e-9)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 5), (2, 2), (7, 3), (40, 40)])
@pytest.mark.parametrize("count", [1, 2, 5, 64])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_a_start_from_a_plan_takes_any_number_of_samples_equal_ones_as_well(n, m, count, spread):
    torch.manual_seed(0)
    critic = ResNetCritic(3, depth=0, readout="cones", centers=count)
    x, y = 2 + spread * torch.randn(n, 3), 5 + spread * torch.randn(m, 3)
    critic.start_at(x, y, solver=by_transport)
    assert critic(x).isfinite().all() and certify(critic).lipschitz <= 1
    if count > 1 and not spread:
        distance = 3 * math.sqrt(3)
        assert 0.5 * distance < kr_value(critic, x, y).item() <= distance * (1 + 1e-5)


def test_only_spread_makes_a_unit():
    layer = Cones(3, 6)
    layer.start_at(torch.full((4, 3), 7.0), torch.full((5, 3), 7.0))
    assert layer.unit.item() == 4.0
    assert torch.allclose(4 * layer.centers, torch.full((6, 3), 7.0))
    values = layer(torch.randn(5, 3) + 7)
    values.sum().backward()
    assert values.isfinite().all() and certify(layer).lipschitz <= 1
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_the_scale_is_that_of_the_samples():
    layer = Cones(50, 200, scale=3.0)
    assert layer.unit.item() == pytest.approx(12.0, rel=0.05)
    assert (layer.unit * layer.centers).std().item() == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(4, 3), torch.zeros(4, 3), "3"),
        (torch.zeros(4, 1), torch.zeros(4, 1), "1"),
        (torch.zeros(4, 2), torch.zeros(4, 3), "same dimension"),
        (torch.zeros(0, 2), torch.zeros(4, 2), "at least one sample"),
        (torch.full((4, 2), math.nan), torch.zeros(4, 2), "finite"),
        (torch.zeros(4), torch.zeros(4, 2), "same dimension"),
    ],
)
@pytest.mark.parametrize("where", [Cones(2, 4), ResNetCritic(2, readout="cones", centers=4), SortingCritic(2, width=4)])
def test_states_that_do_not_fit_are_refused_and_change_nothing(where, x, y, message):
    before = weights_sha256(where)
    with pytest.raises(InputError, match=message):
        where.start_at(x, y)
    assert weights_sha256(where) == before


def folded(critic, states):
    """For each residual layer the share of the states that reach it which each row of W folds."""
    with torch.no_grad():
        for layer in critic:
            if isinstance(layer, GradientFlow):
                yield ((states @ layer.weight.T + layer.bias) > 0).double().mean(dim=0)
            states = layer(states)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_before_cones_start_by_folding_one_state_in_fifty(dtype):
    critic = ResNetCritic(6, depth=3, readout="cones", centers=9).to(dtype)
    x, y = 9 * torch.randn(300, 6, dtype=dtype) + 4, torch.randn(201, 6, dtype=dtype)
    critic.start_at(x, y)
    shares = torch.stack(list(folded(critic, torch.cat((x, y)))))
    assert shares.shape == (3, 3)
    assert ((shares * 501 - 10).abs() <= 1.01).all()  # a state on the fold itself may round to either side
    assert certify(critic).lipschitz <= 1


def test_rows_before_a_linear_readout_start_by_folding_any_share():
    critic = ResNetCritic(3, width=64, depth=6)
    x, y = torch.randn(200, 3) + 30, 5 * torch.randn(200, 3)
    weights = {name: value.clone() for name, value in critic.state_dict().items()}
    critic.start_at(x, y)
    shares = torch.stack(list(folded(critic, torch.cat((x, y)))))
    assert 0 <= shares.min() < 0.1 and 0.9 < shares.max() <= 1
    assert 0.4 < shares.mean() < 0.6
    changed = {name for name, value in critic.state_dict().items() if not torch.equal(value, weights[name])}
    assert changed == {f"block_{index}.bias" for index in range(1, 7)}


@pytest.mark.parametrize("critic", [FixedWidthCritic(3, depth=2), SortingCritic(3, width=4, depth=2)])
def test_other_layers_start_as_they_were_built(critic):
    before = weights_sha256(critic)
    critic.start_at(torch.randn(20, 3), torch.randn(20, 3))
    assert weights_sha256(critic) == before


# As the read-out of a critic


@pytest.mark.parametrize("heads", [1, 3])
def test_a_residual_critic_ends_with_it(heads):
    critic = ResNetCritic(3, width=8, depth=2, readout="cones", centers=5, heads=heads)
    assert isinstance(critic.readout, Cones)
    assert critic.readout.centers.shape == (5, 8) and critic.readout.offsets.shape == (heads, 5)
    certificate = certify(critic)
    assert 0.99 < certificate.lipschitz <= 1
    assert certificate.norm_out == str(Norm((1,) * heads))
    assert critic(torch.randn(6, 3)).shape == ((6,) if heads == 1 else (6, heads))
    optimizer = torch.optim.Adam(critic.parameters(), lr=1.0)
    constrain_steps(optimizer, critic)
    critic(torch.randn(6, 3)).square().sum().backward()
    optimizer.step()
    assert certify(critic).lipschitz <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(readout="cubic"), "linear, cones, not 'cubic'"),
        (dict(readout="cones", centers=0), "centers must be at least 1"),
        (dict(readout="cones", norm="max", width=8), "readout \"linear\".*width=8.*'cones'"),
    ],
)
def test_readouts_that_do_not_exist_or_do_not_fit_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ResNetCritic(2, **arguments)


# Training


@pytest.mark.parametrize("depth", [0, 2])
def test_it_learns_the_potential_of_funnels(depth):
    oracle, rng = RayMonotone(dim=4, funnels=4), torch.Generator().manual_seed(0)
    critic = ResNetCritic(4, depth=depth, readout="cones", centers=32)
    critic.start_at(*oracle.sample(512, 512, rng))
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3)
    constrain_steps(optimizer, critic)
    warm = critic.readout.temperature.item()
    for _ in range(300):
        ascend(critic, optimizer, *(samples.float() for samples in oracle.sample(256, 256, rng)))
    x, y = oracle.pair(4000, rng)
    truth = (x - y).norm(dim=1).mean().item()
    assert 0.95 * truth < kr_lower_bound(critic, x, y) <= truth  # measured over five seeds: 0.994 to 0.998
    assert critic.readout.temperature.item() < 0.5 * warm, "the temperature falls by itself"


def test_cones_do_without_residual_layers_and_say_what_they_need():
    critic = ResNetCritic(3, readout="cones", centers=4, depth=0)
    assert [name for name, _ in critic.named_children()] == ["flatten", "readout", "squeeze"]
    with pytest.raises(InputError, match="depth must be at least 0, not -1"):
        ResNetCritic(3, readout="cones", depth=-1)
    with pytest.raises(InputError, match="depth must be at least 1, not 0"):
        ResNetCritic(3, depth=0)


# Renewal


def hardened(layer, temperature):
    with torch.no_grad():
        layer.coldness.fill_(-math.log(temperature) / layer.cooling)
    return layer


@SHAPES
@pytest.mark.parametrize("temperature", [1e-8, 1e-3, 0.1])
def test_a_renewal_moves_f_by_less_than_its_temperature_where_samples_are(dim, count, heads, temperature):
    layer = hardened(cones(dim, count, heads), temperature)
    with torch.no_grad():
        layer.offsets[:, 1::2] += 50.0  # far from mattering anywhere, in both groups
    x, y = torch.randn(60, dim).double(), torch.randn(40, dim).double()
    before = copy.deepcopy(layer)
    moved = layer.renew(x, y)
    assert moved >= count // 2 - 1 and moved == (layer.centers != before.centers).any(dim=1).sum()
    states = torch.cat((x, y))
    assert (
        (layer(states) - before(states)).abs() <= (math.log(2) + math.log(10 / 9)) * layer.temperature + 1e-12
    ).all()
    assert layer.temperature == before.temperature and layer.unit == before.unit


def test_what_moves_are_the_cones_without_a_sample_to_samples_of_their_law():
    layer = hardened(cones(2, 12), 1e-6)
    x, y = torch.randn(50, 2).double(), 5 + torch.randn(50, 2).double()
    layer.start_at(x, y)
    with torch.no_grad():
        hardened(layer, 1e-6)
        layer.offsets[0, 2], layer.offsets[0, 9] = 50.0, 50.0
    shares = layer._largest_shares(torch.cat((x, y)))
    truth = (
        torch.autograd.functional.jacobian(
            lambda offsets: torch.func.functional_call(layer, {"offsets": offsets}, torch.cat((x, y)))[:, 0],
            layer.offsets.detach(),
        )[:, 0]
        / layer.unit
    )  # (b, k): what f feels of each height is the share of its cone
    assert torch.allclose(truth.abs().amax(dim=0), shares, atol=1e-6)
    idle = shares < 0.1 / 6
    assert idle[2] and idle[9] and not idle.all()
    before = layer.centers.detach().clone()
    assert layer.renew(x, y) == idle.sum()
    assert torch.equal((layer.centers != before).any(dim=1), idle)
    tips = (layer.unit * layer.centers).detach()
    for group, law in ((slice(0, 6), y), (slice(6, None), x)):
        assert (torch.cdist(tips[group][idle[group]], law).amin(dim=1) < 1e-12).all()


def test_moved_cones_train_again():
    layer = hardened(cones(2, 16, dtype=torch.float32), 1e-6)
    x, y = torch.randn(256, 2), 3 + torch.randn(256, 2)
    with torch.no_grad():
        layer.offsets[0, ::3] += 50.0
    felt = []
    for _ in range(2):
        layer.zero_grad()
        (layer(x).mean() - layer(y).mean()).backward()
        felt.append((layer.offsets.grad != 0).sum().item())
        layer.renew(x, y)
    assert felt[1] > felt[0]


def test_a_critic_renews_its_cones_from_the_states_that_reach_them():
    critic = ResNetCritic(3, width=8, depth=2, readout="cones", centers=16, cooling=0.05)
    x, y = torch.randn(300, 3), 2 + torch.randn(300, 3)
    critic.start_at(x, y)
    hardened(critic.readout, 1e-4)
    assert critic.readout.cooling == 0.05 and critic.readout.coldness > 100
    with torch.no_grad():
        critic.readout.offsets[0, 3] += 50
    before = critic(x).detach()
    moved = critic.renew(x, y)
    states = torch.cat((x, y))
    for layer in list(critic)[:-2]:
        states = layer(states).detach()
    tips = (critic.readout.unit * critic.readout.centers).detach()
    assert moved >= 1 and torch.cdist(tips[3][None], states).min() < 1e-5
    assert (critic(x) - before).abs().max() < 1e-2 and certify(critic).lipschitz <= 1
    assert ResNetCritic(3, width=8, depth=2).renew(x, y) == 0
    with pytest.raises(InputError, match="Samples must have dimension 3"):
        critic.renew(x[:, :2], y[:, :2])
    with pytest.raises(InputError, match="States must have width 8"):
        critic.readout.renew(x, y)


@pytest.mark.parametrize("cooling", [0.0, -1.0, math.inf, math.nan])
def test_a_cooling_that_is_no_rate_is_refused(cooling):
    with pytest.raises(InputError, match="cooling must be finite and above 0"):
        Cones(2, 4, cooling=cooling)


def test_a_smaller_cooling_starts_at_the_same_temperature_and_falls_slower():
    layers, x, y = [], torch.randn(200, 2), 1 + torch.randn(200, 2)
    for cooling in (6.0, 0.05):
        torch.manual_seed(0)
        layer = Cones(2, 32, cooling=cooling)
        layer.start_at(x, y)
        layers.append(layer)
    assert layers[0].temperature.item() == pytest.approx(layers[1].temperature.item(), rel=1e-5)
    start = layers[0].temperature.item()
    for layer in layers:
        critic = nn.Sequential(layer, Squeeze())
        optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3)
        constrain_steps(optimizer, critic)
        for _ in range(100):
            ascend(critic, optimizer, x, y)
    assert layers[0].temperature < 0.5 * start < 0.9 * start < layers[1].temperature
