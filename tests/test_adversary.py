"""The adversary: exact where it enumerates, never above the truth where it searches, and hard to hide from."""

from __future__ import annotations

import copy
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn

from wgan_lip.critics import FixedWidthCritic, ResNetCritic, SortingCritic
from wgan_lip.lipschitz.adversary import (
    STOCK_BREAKS,
    _jacobian,
    _kinks,
    _Search,
    enumerate_lipschitz,
    estimate_lipschitz,
    find_steepest_slope,
)
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import (
    Absolute,
    Flatten,
    GradientFlow,
    GroupSort,
    Householder,
    Identity,
    Linear,
    MaxMin,
    Normalize,
    Parallel,
    Pointwise,
    RescaledGradientFlow,
    Spline,
    Squeeze,
    Unflatten,
    constrain_steps,
)
from wgan_lip.utils.checks import InputError, UncertifiableError
from wgan_lip.wasserstein.dual import ascend

FAMILIES = {
    "A": lambda dim, **k: ResNetCritic(dim, width=6, depth=3, bias_scale=0.5, **k),
    "A max": lambda dim, **k: ResNetCritic(dim, width=8, depth=3, norm="max", bias_scale=1.0, **k),
    "A hardtanh": lambda dim, **k: ResNetCritic(dim, width=4, depth=3, activation="hardtanh", **k),
    "B": lambda dim, **k: FixedWidthCritic(dim, depth=4, hidden=2, **k),
    "sorting": lambda dim, **k: SortingCritic(dim, width=6, depth=3, group=3, bias_scale=0.5, **k),
}
EVERY = pytest.mark.parametrize("family", FAMILIES)
STATES = pytest.mark.parametrize("state", ["fresh", "trained", "disturbed"])


def build(family, state, dim, **options):
    return put_into(state, FAMILIES[family](dim, **options), dim)


def put_into(state, critic, dim):
    if state == "disturbed":
        with torch.no_grad():
            for parameter in critic.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    if state == "trained":
        optimizer = torch.optim.Adam(critic.parameters(), lr=0.02)
        constrain_steps(optimizer, critic)
        for _ in range(15):
            ascend(critic, optimizer, torch.randn(32, dim) + 1, 2 * torch.randn(32, dim))
    return critic


def gradient_norms(critic, x):
    """For each point the largest over heads, in float64."""
    x = x.double().requires_grad_(True)
    values = copy.deepcopy(critic).double()(x.clone()).reshape(len(x), -1)
    rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0].norm(dim=1) for column in values.unbind(1)]
    return torch.stack(rows).amax(0)


def affine(weight, bias=None):
    weight = torch.as_tensor(weight, dtype=torch.float64)
    layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(torch.zeros(len(weight)) if bias is None else torch.as_tensor(bias))
    return layer


def box(dim, radius=1.0):
    return torch.full((dim,), -radius), torch.full((dim,), radius)


# Enumeration: closed forms


def test_the_absolute_value_has_two_pieces():
    found = enumerate_lipschitz(nn.Sequential(affine([[-3.0]], [1.0]), Absolute()), *box(1))
    assert (found.lipschitz, found.cells) == (3.0, 2)


def test_only_pieces_inside_the_box_count():
    """max(0, 5·(x − 2)) is flat left of 2."""
    critic = nn.Sequential(affine([[5.0]], [-10.0]), nn.ReLU())
    assert enumerate_lipschitz(critic, *box(1, 1.9)).lipschitz == 0
    assert enumerate_lipschitz(critic, *box(1, 2.1)).lipschitz == 5


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.differing_executors])
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(2, 6))
def test_a_maximum_of_pieces_is_as_steep_as_the_steepest_that_wins_somewhere(seed, dim, count):
    """Whether a piece wins inside the box is decided by a linear programme; integers make ties and repeats common."""
    rng = np.random.default_rng(seed)
    slopes, offsets = rng.integers(-2, 3, (count, dim)).astype(float), rng.integers(-1, 2, count).astype(float)
    steepest = 0.0
    for i in range(count):
        others = [j for j in range(count) if (slopes[j] != slopes[i]).any() or offsets[j] != offsets[i]]
        margin = 0.0 if others else 1.0
        if others:
            lead = np.column_stack((slopes[others] - slopes[i], np.ones(len(others))))
            bounds = [(-1, 1)] * dim + [(None, 9)]
            margin = -linprog([0.0] * dim + [-1.0], lead, offsets[i] - offsets[others], bounds=bounds).fun
        if margin > 1e-7:
            steepest = max(steepest, float(np.linalg.norm(slopes[i])))
    first = affine(np.eye(1, count))
    critic = nn.Sequential(affine(slopes, offsets), GroupSort(count, count), first, Squeeze())
    assert enumerate_lipschitz(critic, *box(dim)).lipschitz == pytest.approx(steepest, rel=1e-12)


def test_folds_are_isometries_on_every_piece():
    flows = [GradientFlow(3, 2) for _ in range(3)]
    critic = nn.Sequential(*flows, Linear(Norm((3,)), Norm((1,))), Squeeze()).double()
    for _ in range(3):
        for flow in flows:
            with torch.no_grad():
                flow.weight.copy_(torch.linalg.qr(torch.randn(3, 2, dtype=torch.float64))[0].T)
                critic[3].weight.copy_(nn.functional.normalize(torch.randn(1, 3, dtype=torch.float64)))
        found = enumerate_lipschitz(critic, *box(3, 2.0))
        assert found.cells > 8
        assert found.lipschitz == pytest.approx(1, rel=1e-12)


def test_a_layer_that_is_used_twice_acts_twice():
    layer = affine([[2.0]], [0.5])
    found = enumerate_lipschitz(nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU()), *box(1))
    assert (found.lipschitz, found.cells) == (4.0, 2)


# Enumeration: numbers of cells


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.differing_executors])
@given(st.integers(0, 10**6), st.integers(0, 9))
def test_lines_in_general_position_cut_a_square_by_the_formula(seed, count):
    """1 + number of lines that meet the square + number of their crossings inside."""
    rng = np.random.default_rng(seed)
    normals, offsets = rng.normal(size=(count, 2)), rng.normal(size=count) * 0.7
    meeting = np.abs(offsets) < np.abs(normals).sum(axis=1)
    crossings = 0
    for i, j in combinations(range(count), 2):
        crossings += bool((np.abs(np.linalg.solve(normals[[i, j]], -offsets[[i, j]])) < 1).all())
    critic = nn.Sequential(affine(np.vstack((normals, [[0, 0]])), [*offsets, 1.0]), nn.ReLU())
    assert enumerate_lipschitz(critic, *box(2)).cells == 1 + meeting.sum() + crossings


@pytest.mark.parametrize(("dim", "count"), [(2, 7), (3, 6), (4, 6)])
def test_planes_in_general_position_cut_space_by_the_formula(dim, count):
    critic = nn.Sequential(affine(torch.randn(count, dim), torch.randn(count)), nn.ReLU())
    expected = sum(math.comb(count, i) for i in range(dim + 1))
    assert enumerate_lipschitz(critic, *box(dim, 1000.0)).cells == expected


@pytest.mark.parametrize(("dim", "count"), [(2, 9), (3, 7), (4, 6)])
def test_planes_through_one_point_cut_space_by_the_formula(dim, count):
    normals = torch.randn(count, dim, dtype=torch.float64)
    critic = nn.Sequential(affine(normals, normals @ torch.full((dim,), 0.3, dtype=torch.float64)), nn.ReLU())
    expected = 2 * sum(math.comb(count - 1, i) for i in range(dim))
    assert enumerate_lipschitz(critic, *box(dim)).cells == expected


@pytest.mark.parametrize("dim", [2, 3, 4, 5])
def test_sorting_has_a_cell_for_every_order(dim):
    assert enumerate_lipschitz(nn.Sequential(GroupSort(dim, dim)), *box(dim)).cells == math.factorial(dim)


PIECES = {  # of the real line [-9, 9], by the definition of each map
    "Absolute": (Absolute(), 2),
    "Pointwise relu": (Pointwise("relu"), 2),
    "Pointwise leaky_relu": (Pointwise("leaky_relu"), 2),
    "Pointwise hardtanh": (Pointwise("hardtanh"), 3),
    "Spline": (Spline(1, knots=5, radius=2.0), 6),
    "nn.Hardtanh": (nn.Hardtanh(-2, 3), 3),
    "nn.LeakyReLU": (nn.LeakyReLU(0.3), 2),
    "nn.PReLU": (nn.PReLU(), 2),
    "nn.ReLU": (nn.ReLU(), 2),
    "nn.ReLU6": (nn.ReLU6(), 3),
    "nn.Softshrink": (nn.Softshrink(2.0), 3),
    "nn.Identity": (nn.Identity(), 1),
    "nn.Flatten": (nn.Flatten(), 1),
    "Identity": (Identity(Norm((1,))), 1),
    "Flatten": (Flatten(1), 1),
    "Squeeze": (Squeeze(), 1),
    "nn.Linear": (nn.Linear(1, 3), 1),
    "Linear": (Linear(Norm((1,)), Norm((2,))), 1),
    "Normalize": (Normalize([1.0], [2.0]), 1),
    "GradientFlow": (GradientFlow(1, 1), 2),
    "RescaledGradientFlow": (RescaledGradientFlow(1, 1), 2),
    "GroupSort": (nn.Sequential(affine([[1.0], [0.0], [0.0]], [0.0, 1.0, -1.0]), GroupSort(3, 3)), 3),
    "MaxMin": (nn.Sequential(affine([[1.0]] * 2 + [[0.0]] * 2), MaxMin(4, stride=2)), 2),
    "Householder": (nn.Sequential(affine([[1.0], [0.5]]), Householder(2)), 2),
    "Parallel": (nn.Sequential(affine([[1.0]] * 3, [0, 0, 1.0]), Parallel(MaxMin(2), GradientFlow(1, 1))), 2),
}


@pytest.mark.parametrize("name", PIECES)
def test_each_layer_has_the_pieces_of_its_definition(name):
    layer, pieces = PIECES[name]
    assert enumerate_lipschitz(nn.Sequential(layer), *box(1, 9.0)).cells == pieces


def test_every_module_of_torchs_that_can_be_enumerated_is_in_this_test():
    assert STOCK_BREAKS.keys() <= {type(module) for layer, _ in PIECES.values() for module in layer.modules()}


LAYERS = {  # on 4 channels, with weights that make every kind of piece
    "Absolute": Absolute,
    "Spline": lambda: Spline(4, knots=5),
    "hardtanh": lambda: Pointwise("hardtanh"),
    "softshrink": nn.Softshrink,
    "GradientFlow relu": lambda: GradientFlow(4, 3),
    "GradientFlow hardtanh": lambda: GradientFlow(4, 3, activation="hardtanh"),
    "GradientFlow spline": lambda: GradientFlow(4, 3, activation=Spline(3, knots=3)),
    "RescaledGradientFlow": lambda: RescaledGradientFlow(4, 3),
    "GroupSort 2": lambda: GroupSort(4, 2),
    "GroupSort 4": lambda: GroupSort(4, 4),
    "MaxMin": lambda: MaxMin(4),
    "MaxMin stride 2": lambda: MaxMin(4, stride=2),
    "Householder": lambda: Householder(4),
    "Parallel": lambda: Parallel(GradientFlow(1, 1), GroupSort(3, 3)),
    "nested": lambda: nn.Sequential(nn.Sequential(MaxMin(4), nn.Sequential(nn.ReLU()))),
}


def disturbed(name):
    layer = LAYERS[name]().double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return layer


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "nested"])
def test_each_layer_is_affine_between_its_kinks(name):
    """Points on the same side of every kink have one Jacobian."""
    layer = disturbed(name)
    x = 1.5 * torch.randn(1000, 4, dtype=torch.float64)
    _, jacobian = _jacobian(layer, x)
    rows, offsets = _kinks(layer, 4)
    _, side = torch.unique(x @ rows.T + offsets > 0, dim=0, return_inverse=True)
    assert side.max() > 0
    for group in range(int(side.max()) + 1):
        there = jacobian[side == group]
        assert torch.allclose(there, there[:1].expand_as(there), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_is_enumerated_between_affine_maps(name):
    layer = disturbed(name)
    critic = nn.Sequential(affine(torch.randn(4, 2), torch.randn(4) / 3), layer, affine(torch.randn(3, 4))).double()
    assert_exact(critic, 2, enumerate_lipschitz(critic, *box(2, 1.5)), 1.5)


# Enumeration: random critics


def assert_exact(critic, dim, found, radius):
    """No sampled slope is steeper, and the slope found is there."""
    assert float(gradient_norms(critic, found.point[None])) == pytest.approx(found.lipschitz, rel=1e-12)
    assert (found.point.abs() < radius).all()
    x = radius * (2 * torch.rand(20_000, dim, dtype=torch.float64) - 1)
    slopes = gradient_norms(critic, x)
    assert float(slopes.max()) <= found.lipschitz * (1 + 1e-9)
    distinct = torch.unique((slopes * 1e7).round())
    assert len(distinct) <= found.cells


@EVERY
@STATES
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_enumeration_of_a_critic_is_exact_and_below_its_certificate(family, state, dim):
    critic = build(family, state, dim)
    found = enumerate_lipschitz(critic, -2.0, 2.0)
    assert found.cells > 1
    assert_exact(critic, dim, found, 2.0)
    assert found.lipschitz <= certify(critic).lipschitz * (1 + 1e-12)


@EVERY
@pytest.mark.parametrize("state", ["trained", "disturbed"])
def test_the_search_reaches_the_enumeration_and_not_more(family, state):
    """Behind a clamp to the box the search sees no other slopes than those inside."""
    critic = build(family, state, 2)
    exact = enumerate_lipschitz(critic, -2.0, 2.0).lipschitz
    found = estimate_lipschitz(nn.Sequential(nn.Hardtanh(-2.0, 2.0), critic), torch.randn(50, 2))
    assert 0.98 * exact < found <= exact * (1 + 1e-9)


@EVERY
def test_the_steepest_head_counts(family):
    critic = build(family, "disturbed", 2, heads=3)
    with torch.no_grad():
        critic.readout.weight[1] *= 3
    found = enumerate_lipschitz(critic, *box(2))
    assert_exact(critic, 2, found, 1.0)
    single = copy.deepcopy(critic)
    single.readout.weight.data = single.readout.weight.data[1:2]
    single.readout.bias.data = single.readout.bias.data[1:2]
    assert found.lipschitz == pytest.approx(enumerate_lipschitz(single, *box(2)).lipschitz, rel=1e-12)


def test_pieces_that_agree_but_for_rounding_are_one():
    """3·0.1 and 0.3 are two numbers; their tiny difference has a sign that cuts the box, and means nothing."""
    repeated = affine([[0.1, 0.7], [0.3, 2.1]]), affine([[3.0, 0.0], [0.0, 1.0]])
    assert enumerate_lipschitz(nn.Sequential(*repeated, MaxMin(2)), *box(2)).cells == 1


def test_thin_pieces_are_met_down_to_a_billionth_of_the_box():
    def spike(width):
        """Slope 1/width on an interval of that width, flat elsewhere."""
        return nn.Sequential(affine([[1 / width]], [-0.3 / width]), nn.Hardtanh(0.0, 1.0))

    assert enumerate_lipschitz(spike(2.0**-26), *box(1)).lipschitz == 2.0**26
    assert enumerate_lipschitz(spike(2.0**-40), *box(1)).lipschitz == 0


@pytest.mark.parametrize("scale", [1e-8, 1e8])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_cells_do_not_depend_on_scale_and_offset(scale, offset):
    critic = build("A", "fresh", 2).double()
    plain = enumerate_lipschitz(critic, *box(2))
    there = nn.Sequential(
        affine([[1 / scale, 0.0], [0.0, 1 / scale]], [offset] * 2), affine(torch.eye(2), [-offset] * 2)
    )
    found = enumerate_lipschitz(nn.Sequential(there, critic), *(scale * side.double() for side in box(2)))
    assert found.cells == plain.cells
    assert found.lipschitz * scale == pytest.approx(plain.lipschitz, rel=1e-12)


def test_the_enumeration_leaves_the_critic_unchanged():
    critic = build("B", "fresh", 2).eval()
    before, state = copy.deepcopy(critic.state_dict()), torch.get_rng_state()
    with torch.no_grad():
        enumerate_lipschitz(critic, -1.0, 1.0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(critic.state_dict()[name], value) for name, value in before.items())
    assert all(p.dtype == torch.float32 and p.requires_grad and p.grad is None for p in critic.parameters())


REFUSED = {
    "smooth": (lambda: ResNetCritic(2, width=4, depth=1, activation="tanh"), "block_1"),
    "smooth in parallel": (lambda: FixedWidthCritic(2, depth=1, activation="softplus"), "block_1"),
    "stock": (lambda: nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Tanh())), "0.1"),
    "unknown": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)), "1"),
    "subclass": (lambda: nn.Sequential(type("Mine", (nn.ReLU,), {})()), "0"),
    "subclass of a layer": (lambda: nn.Sequential(type("Mine", (MaxMin,), {"forward": lambda _, x: x**2})(2)), "0"),
    "sorted images": (lambda: nn.Sequential(Unflatten((2, 1, 2)), MaxMin(2, Norm.euclidean())), "1"),
    "inner subclass": (
        lambda: nn.Sequential(
            GradientFlow(2, 1, activation=type("Mine", (Absolute,), {"forward": lambda _, x: x**2})())
        ),
        "0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_layers_whose_kinks_are_not_known_are_refused_by_path(name):
    make, path = REFUSED[name]
    with pytest.raises(UncertifiableError, match=f"At '{path}': The kinks of .* are not known.*estimate_lipschitz"):
        enumerate_lipschitz(make(), *box(4 if name == "sorted images" else 2))


@pytest.mark.parametrize(
    ("critic", "low", "high", "message"),
    [
        (nn.Sequential(affine(torch.ones(1, 2))), -1.0, 1.0, "low and high must have shape"),
        (nn.Sequential(affine(torch.ones(1, 2))), torch.zeros(2), torch.ones(3), "low and high must have shape"),
        (nn.Sequential(affine(torch.ones(1, 2))), torch.zeros(1, 2), torch.ones(1, 2), "low and high must have shape"),
        (nn.Sequential(affine(torch.ones(1, 2))), torch.zeros(2), 0.0, "low must be below high"),
        (
            nn.Sequential(affine(torch.ones(1, 2))),
            torch.zeros(2),
            torch.tensor([1.0, math.nan]),
            "low must be below high",
        ),
        (nn.Sequential(affine(torch.ones(1, 2))), torch.zeros(2), math.inf, "low must be below high"),
        (nn.Sequential(affine(torch.ones(1, 40))), *box(40), "in dimension 40 has"),
        (nn.Sequential(affine(torch.eye(2)), nn.Hardtanh(-0.5, 0.5)), *box(2), "more cells"),
    ],
)
def test_a_bad_box_and_a_large_critic_are_refused(critic, low, high, message):
    with pytest.raises(InputError, match=message):
        enumerate_lipschitz(critic, low, high, most_cells=7 if "cells" in message else 20_000)


# The search: never above the truth


def spiky(width):
    """Flat, but for slope 1/width in a slab of that width."""
    return nn.Sequential(affine([[1 / width, 0.0]], [-0.3 / width]), nn.Hardtanh(0.0, 1.0))


HOSTILE = {
    "steep and narrow": lambda: spiky(1e-5),
    "too narrow to find": lambda: spiky(1e-14),
    "flat": lambda: nn.Sequential(affine([[0.0, 0.0]], [3.0]), nn.ReLU()),
    "dead": lambda: nn.Sequential(affine([[1.0, 2.0]], [-1e9]), nn.ReLU()),
    "large weights": lambda: nn.Sequential(affine(1e8 * torch.randn(4, 2)), nn.ReLU(), affine(1e8 * torch.randn(1, 4))),
    "small weights": lambda: nn.Sequential(
        affine(1e-8 * torch.randn(4, 2)), nn.ReLU(), affine(1e-8 * torch.randn(1, 4))
    ),
    "beyond the squares": lambda: nn.Sequential(affine([[1e200, 1e200]]), nn.Identity()),
    "up and down": lambda: nn.Sequential(affine(1e8 * torch.eye(2)), nn.Tanh(), affine([[1e-8, 1e-8]])),
    "offset": lambda: nn.Sequential(affine(torch.eye(2), [1e6] * 2), nn.ReLU(), affine([[1.0, 0.0]], [-1e6])),
    "all digits lost": lambda: nn.Sequential(affine([[1.0, 0.0]], [1e16]), nn.Identity(), affine([[1.0]], [-1e16])),
    "some digits lost": lambda: nn.Sequential(
        affine([[1.0, 0.0], [0.0, 1e-3]], [0.0, 1e16]), affine([[1.0, 1.0]], [-1e16])
    ),
    "gradients overflow": lambda: nn.Sequential(affine([[1e-300, 0.0]]), affine([[1e200]]), affine([[1e200]])),
    "cancelling": lambda: nn.Sequential(affine([[1e8, 0.0], [1e8, 1.0]]), affine([[1e8, -1e8]])),
}


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("name", HOSTILE)
def test_the_search_stays_below_the_certificate_of_hostile_critics(name, offset):
    critic = HOSTILE[name]()
    x = torch.randn(30, 2, dtype=torch.float64) + offset
    assert 0 <= estimate_lipschitz(critic, x, starts=128, steps=40) <= certify(critic).lipschitz


@pytest.mark.parametrize("activation", ["relu", "tanh", "softplus"])
@pytest.mark.parametrize("family", ["A", "B"])
@STATES
def test_the_search_stays_below_the_certificate_of_every_critic(family, activation, state):
    make = {"A": ResNetCritic, "B": FixedWidthCritic}[family]
    critic = put_into(state, make(2, depth=2, hidden=2, activation=activation), 2)
    assert 0 < estimate_lipschitz(critic, torch.randn(50, 2), starts=128, steps=20) <= certify(critic).lipschitz


def test_values_that_overflow_are_no_slope():
    critic = nn.Sequential(affine([[1e200, 0.0]]))
    assert 0 < estimate_lipschitz(critic, 1e150 * torch.randn(30, 2, dtype=torch.float64), starts=32) <= 1e200


def test_digits_lost_to_cancellation_are_no_slope():
    """Evaluated in float64 these values move in steps of 2, so their difference quotients are anything."""
    critic = HOSTILE["all digits lost"]()
    x = torch.linspace(0, 3, 40, dtype=torch.float64)[:, None].repeat(1, 2)
    values = critic(x).detach().squeeze(1)
    assert float(((values[1:] - values[:-1]) / (x[1:, 0] - x[:-1, 0])).max()) > 10
    assert estimate_lipschitz(critic, x) <= 1


class Carry(nn.Module):
    """x ↦ straight(x) + out(relu(into(x)))."""

    def __init__(self, straight, into, out):
        super().__init__()
        self.straight, self.into, self.out = straight, into, out

    def forward(self, x):
        return self.straight(x) + self.out(torch.relu(self.into(x)))


def test_mixed_slopes_on_a_kink_are_no_slope():
    """2t − relu(t) + relu(−t) = t; at t = 0, where all samples are, autograd gives 2."""
    critic = nn.Sequential(Carry(affine([[2.0]]), affine([[1.0], [-1.0]]), affine([[-1.0, 1.0]])))
    x = torch.zeros(50, 1)
    assert float(gradient_norms(critic, x).max()) == 2
    assert 0.999 < estimate_lipschitz(critic, x) <= 1


# The search: hard to hide from


class StraightThrough(nn.Module):
    """x ↦ 3x, with the gradient of x."""

    def forward(self, x):
        return x + (2 * x).detach()


def test_a_slope_that_autograd_denies_is_found_by_differences():
    critic = nn.Sequential(affine([[0.6, 0.8]]), StraightThrough())
    found = find_steepest_slope(critic, torch.randn(20, 2))
    assert 2.99 < found.value <= 3
    u, v = found.point[None], found.partner[None]
    assert float((critic(u) - critic(v)).detach().abs() / (u - v).norm()) == pytest.approx(found.value, rel=1e-2)


def cone(dim):
    """The largest |x_i|: slope 1 in every piece."""
    rows = torch.cat((torch.eye(dim), -torch.eye(dim)))
    return nn.Sequential(affine(rows), GroupSort(2 * dim, 2 * dim), affine(torch.eye(1, 2 * dim)), Squeeze())


KNOWN = {
    "linear": (lambda: nn.Sequential(affine([[3.0, 4.0, 12.0]])), 3, 13.0),
    "linear of the package": (lambda: nn.Sequential(Linear(Norm((3,)), Norm((1,))), Squeeze()), 3, 1.0),
    "fold": (lambda: nn.Sequential(GradientFlow(2, 1), Linear(Norm((2,)), Norm((1,))), Squeeze()), 2, 1.0),
    "cone": (lambda: cone(5), 5, 1.0),
    "tanh": (lambda: nn.Sequential(affine([[0.6] * 25], [2.0]), nn.Tanh(), affine([[2.0]])), 25, 6.0),
    "two heads": (lambda: nn.Sequential(affine([[1.0, 0.0], [0.0, -7.0]])), 2, 7.0),
    "beyond the squares": (lambda: nn.Sequential(affine([[3e200, 4e200]])), 2, 5e200),
    "in place": (lambda: nn.Sequential(nn.ReLU(inplace=True), affine([[3.0, 4.0]])), 2, 5.0),
}


@pytest.mark.parametrize("samples", [1, 20])
@pytest.mark.parametrize("name", KNOWN)
def test_the_search_reaches_a_known_constant(name, samples):
    make, dim, truth = KNOWN[name]
    found = find_steepest_slope(make(), torch.randn(samples, dim))
    assert 0.999 * truth < found.value <= truth * (1 + 1e-6)
    assert float(gradient_norms(make(), found.point[None])) >= found.value or name.startswith(("linear of", "fold"))


def test_the_search_finds_a_steep_corner_away_from_the_samples():
    """max(0, 5·(x − 2)) is flat at the samples around 0; the search moves to where it is steep."""
    critic = nn.Sequential(affine([[5.0]], [-10.0]), nn.ReLU(), Squeeze())
    x = torch.randn(100, 1, dtype=torch.float64).clamp(-1.9, 1.9)
    assert estimate_lipschitz(critic, x) == pytest.approx(5, rel=1e-11)


def tip(dim):
    """A cone whose slope grows in ever smaller balls (of the 1-norm) around one point: 4⁵ times the outermost."""
    centre = torch.full((dim,), 0.7, dtype=torch.float64)
    sides = torch.cat((torch.eye(dim), -torch.eye(dim))).double()
    steepness = -(4.0 ** torch.arange(6)) / (2 * dim**0.5)
    rows = steepness[:, None].repeat(1, 2 * dim)
    start = torch.tensor([8.0, 1, 1, 1, 1, 1])
    layers = (affine(sides, -sides @ centre), nn.ReLU(), affine(rows, start), nn.ReLU(), affine(torch.ones(1, 6)))
    return nn.Sequential(*layers), float(-steepness.sum() * dim**0.5)


def test_the_search_climbs_to_a_steep_tip_that_random_points_miss():
    dim = 16
    critic, truth = tip(dim)
    x = torch.randn(200, dim)
    cloud = x.repeat(200, 1) + torch.randn(40_000, dim) * 10 ** torch.empty(40_000, 1).uniform_(-3, 0.5)
    assert float(gradient_norms(critic, cloud).max()) < truth / 100
    assert estimate_lipschitz(critic, x) == pytest.approx(truth, rel=1e-9)


def steep_at_one_point():
    """Σ tanh over 25 directions: slope 5 at one point only, nearly flat at samples around 0."""
    directions = torch.linalg.qr(torch.randn(25, 25, dtype=torch.float64))[0]
    return nn.Sequential(affine(directions, torch.ones(25)), nn.Tanh(), affine(torch.ones(1, 25))), directions


def test_pairs_alone_climb_their_difference_quotient():
    search = _Search(steep_at_one_point()[0], torch.randn(50, 25, dtype=torch.float64), 256, 0)
    assert 4.5 < search.ascend_quotients(40).value <= 5


def test_the_search_uses_curvature():
    critic, directions = steep_at_one_point()
    found = find_steepest_slope(critic, torch.randn(50, 25))
    assert found.value > 0.9999 * 5
    assert torch.allclose(found.point @ directions.T, -torch.ones(25, dtype=torch.float64), atol=0.02)


# The search: manners


@pytest.mark.parametrize("family", ["A", "B"])
def test_the_search_leaves_the_critic_and_the_generators_unchanged(family):
    critic = build(family, "fresh", 2).eval()
    critic(torch.randn(3, 2)).sum().backward()
    critic.lift.train()
    x = torch.randn(4, 2)
    kept = x.clone()
    before, state = copy.deepcopy(critic.state_dict()), torch.get_rng_state()
    grads, versions = [p.grad.clone() for p in critic.parameters()], [p._version for p in critic.parameters()]
    modes = [m.training for m in critic.modules()]
    with torch.no_grad():
        estimate_lipschitz(critic, x, starts=8, steps=10)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, kept)
    assert all(torch.equal(critic.state_dict()[name], value) for name, value in before.items())
    assert all(torch.equal(p.grad, g) for p, g in zip(critic.parameters(), grads))
    assert [p._version for p in critic.parameters()] == versions
    assert [m.training for m in critic.modules()] == modes
    assert all(p.dtype == torch.float32 and p.requires_grad for p in critic.parameters())


def test_the_search_is_a_function_of_its_seed():
    critic, x = build("A", "disturbed", 2), torch.randn(20, 2)
    first, again, other = (find_steepest_slope(critic, x, starts=8, steps=6, seed=seed) for seed in (3, 3, 4))
    assert first.value == again.value > 0
    assert torch.equal(first.point, again.point)
    assert not torch.equal(first.point, other.point)
    assert estimate_lipschitz(critic, x, starts=8, steps=6, seed=3) == first.value


@pytest.mark.parametrize(
    "x", [torch.zeros(1, 2), torch.ones(5, 2), torch.full((3, 2), 1e-30), torch.full((3, 2), 1e12)]
)
def test_the_search_works_from_one_sample_and_from_equal_ones(x):
    critic = build("A", "disturbed", 2)
    assert 0 < estimate_lipschitz(critic, x, starts=32, steps=4) <= certify(critic).lipschitz


@pytest.mark.parametrize(("starts", "steps"), [(0, 4), (7, 4), (8, -1)])
def test_bad_numbers_of_starts_and_steps_are_refused(starts, steps):
    with pytest.raises(InputError, match="starts must be even"):
        estimate_lipschitz(nn.Sequential(affine([[1.0]])), torch.zeros(2, 1), starts=starts, steps=steps)
