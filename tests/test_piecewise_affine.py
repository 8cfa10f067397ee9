"""Max-min functions: exact values, exact constants, and critics that equal them with a certificate of 1."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wgan_lip import certify, constrain_steps
from wgan_lip.critics import FixedWidthCritic, ResNetCritic
from wgan_lip.critics import compiled as piecewise_affine
from wgan_lip.critics.compiled import (
    MaxMinFunction,
    compile_fixed_width,
    compile_resnet,
    critic_from_transport,
    interpolate,
)
from wgan_lip.lipschitz.bounds import Norm, upper_bound_operator_norm
from wgan_lip.lipschitz.layers import Retraction
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError
from wgan_lip.wasserstein.dual import kr_value

COMPILERS = [compile_resnet, compile_fixed_width]
FAMILIES = ["resnet", "fixed_width"]
SEEDS = st.integers(0, 2**31)


@st.composite
def functions(draw, largest_dim=6, most=6):
    shape = draw(st.integers(1, largest_dim)), draw(st.integers(1, most)), draw(st.integers(1, most))
    return MaxMinFunction.random(*shape, seed=draw(SEEDS))


def cloud(dim, count=100, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, dim, generator=generator, dtype=torch.float64)


def unit_slopes(function):
    """The same groups, all slopes of norm 1."""
    norms = np.linalg.norm(function.slopes, axis=1, keepdims=True)
    return MaxMinFunction(function.slopes / norms, function.intercepts, function.groups)


def slope_at(function, points):
    """Norm of the slope of the piece that the function equals, at points where only one does."""
    pieces = points @ function.slopes.T + function.intercepts
    return np.linalg.norm(function.slopes, axis=1)[np.abs(pieces - function(points)[:, None]).argmin(axis=1)]


def in_every_cell(function):
    """Points in every cell of the arrangement of {piece j = piece k}, on the line or in the plane.

    On the line between the crossings and beyond. In the plane around every vertex, for each cell has one.
    """
    pairs = list(itertools.combinations(range(len(function.slopes)), 2))
    normals = np.array([function.slopes[j] - function.slopes[k] for j, k in pairs])
    offsets = np.array([function.intercepts[k] - function.intercepts[j] for j, k in pairs])
    if function.dim == 1:
        crossing = normals[:, 0] != 0
        crossings = np.sort(offsets[crossing] / normals[crossing, 0])
        ends = crossings[[0, -1]] + [-1, 1] if len(crossings) else np.zeros(1)
        return np.concatenate((ends, (crossings[1:] + crossings[:-1]) / 2))[:, None]
    angles = np.linspace(0, 2 * np.pi, 181)
    circle = 1e-5 * np.column_stack((np.cos(angles), np.sin(angles)))
    vertices = [
        np.linalg.solve(normals[[p, q]], offsets[[p, q]])
        for p, q in itertools.combinations(range(len(pairs)), 2)
        if abs(np.linalg.det(normals[[p, q]])) > 1e-9
    ]
    return (np.array(vertices)[:, None] + circle).reshape(-1, 2)


# Values


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_the_value_is_the_max_of_mins_in_exact_arithmetic(data):
    eighths = st.integers(-80, 80).map(lambda k: k / 8)  # products and sums of these are exact
    dim, pieces = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    row = st.lists(eighths, min_size=dim, max_size=dim)
    slopes = data.draw(st.lists(row, min_size=pieces, max_size=pieces))
    intercepts = data.draw(st.lists(eighths, min_size=pieces, max_size=pieces))
    group = st.lists(st.integers(0, pieces - 1), min_size=1, max_size=5)
    groups = data.draw(st.lists(group, min_size=1, max_size=4))
    points = data.draw(st.lists(row, min_size=1, max_size=5))
    function = MaxMinFunction(slopes, intercepts, groups)
    for point, value in zip(points, function(np.array(points))):
        affine = [
            sum(Fraction(a) * Fraction(t) for a, t in zip(slope, point)) + Fraction(b)
            for slope, b in zip(slopes, intercepts)
        ]
        assert Fraction(value) == max(min(affine[j] for j in group) for group in groups)


def test_values_do_not_depend_on_the_chunks_or_the_container(monkeypatch):
    function, x = MaxMinFunction.random(3, 4, 5), cloud(3, 50)
    values = function(x)
    assert isinstance(values, torch.Tensor) and values.dtype == torch.float64
    assert isinstance(function(x.numpy()), np.ndarray)
    monkeypatch.setattr(piecewise_affine, "_CHUNK", 1)
    assert np.allclose(function(x.numpy()), values, rtol=0, atol=1e-14)
    assert function(x[:0]).shape == (0,)
    assert function(x.float()[:2]).dtype == torch.float64


def test_a_function_keeps_its_own_numbers():
    slopes = torch.ones(1, 2, dtype=torch.float64)
    function = MaxMinFunction(slopes, torch.zeros(1), [[0]])
    slopes.mul_(5)
    assert function.bound() == pytest.approx(2**0.5)


@pytest.mark.parametrize(
    "slopes, intercepts, groups, message",
    [
        ([[1.0], [np.nan]], [0, 0], [[0, 1]], "slopes must be finite.*row 1"),
        ([[1.0], [2.0]], [0, np.inf], [[0, 1]], "intercepts must be finite.*row 1"),
        ([[1.0], [2.0]], [0], [[0, 1]], r"intercepts must have shape \(2,\)"),
        ([[1.0, 2.0], [1.0]], [0, 0], [[0]], "unequal lengths"),
        ([[1.0]], [0], [], "at least one group"),
        ([[1.0]], [0], [[0], []], "group 1 has shape"),
        ([[1.0]], [0], [[0.0]], "group 0.*dtype float64"),
        ([[1.0]], [0], [[0], [0, 1]], "0..0, not 0..1 as in group 1"),
        ([[1.0]], [0], [[-1]], "in group 0"),
    ],
)
def test_functions_that_make_no_sense_are_refused(slopes, intercepts, groups, message):
    with pytest.raises(InputError, match=message):
        MaxMinFunction(slopes, intercepts, groups)


def test_points_of_another_dimension_are_refused():
    with pytest.raises(InputError, match="dimension 2"):
        MaxMinFunction.random(2, 1, 1)(cloud(3))


def test_random_functions_have_slopes_up_to_the_bound():
    function = MaxMinFunction.random(4, 5, 40, seed=3, lipschitz=0.5)
    norms = np.linalg.norm(function.slopes, axis=1)
    assert norms.max() <= 0.5
    assert (norms > 0.499).any() and (norms < 0.4).any()
    assert len({len(group) for group in function.groups}) > 1
    assert np.array_equal(function.slopes, MaxMinFunction.random(4, 5, 40, seed=3, lipschitz=0.5).slopes)


# Constants


@given(functions(largest_dim=2, most=4))
@settings(max_examples=30, deadline=None)
def test_the_lipschitz_constant_is_the_steepest_slope_of_all_cells(function):
    if len(np.unique(function.slopes, axis=0)) > function.dim:  # else there is no vertex
        assert function.lipschitz() == pytest.approx(slope_at(function, in_every_cell(function)).max(), abs=1e-9)


@pytest.mark.parametrize("steep, high, origin", [(1e9, 1.0, 0.0), (1e-9, 1.0, 0.0), (1.0, 1.0, 1e8), (1e200, 1.0, 0.0)])
def test_units_and_origin_do_not_change_the_constant(steep, high, origin):
    # max(min(2x, 1), min(x/2, 0)), and a third group, min(0, x − 9), that is nowhere above both
    plain = MaxMinFunction([[2.0], [0.0], [0.5], [0.0], [1.0]], [0, 1, 0, 0, -9], [[0, 1], [2, 3], [3, 4]])
    slopes = steep * plain.slopes
    moved = MaxMinFunction(slopes, high * (plain.intercepts - plain.slopes[:, 0] * origin), plain.groups)
    assert plain.lipschitz() == 2
    assert moved.lipschitz() == pytest.approx(2 * steep, rel=1e-12)
    assert moved.bound() == pytest.approx(2 * steep, rel=1e-12)


def test_a_steep_piece_that_another_group_covers_does_not_count():
    function = MaxMinFunction([[3.0], [0.0], [1.0]], [0, 0, 0], [[0, 1], [2]])  # max(min(3x, 0), x) = x
    assert function.bound() == 3
    assert function.lipschitz() == 1
    assert np.array_equal(function(np.array([[-2.0], [2.0]])), [-2, 2])


@pytest.mark.parametrize("place", [1 / 3, 1e3 / 7, -1e6 / 3])
def test_where_all_pieces_meet_rounding_makes_no_cell(place):
    # max(min(3t, 0), t) = t with t = x − place
    function = MaxMinFunction([[3.0], [0.0], [1.0]], [-3 * place, 0, -place], [[0, 1], [2]])
    assert function.lipschitz() == 1


def test_a_piece_that_decides_in_two_groups_at_once_counts():
    function = MaxMinFunction([[3.0], [0.0], [3.0], [1.0]], [0, 0, 0, 0], [[0, 1], [2, 3]])  # 3x on x < 0, in both
    assert function.lipschitz() == 3


@pytest.mark.parametrize("groups", [[[0, 1], [2], [3]], [[3], [2], [0, 1]], [[2], [0, 1], [3]]])
def test_a_piece_must_beat_all_groups_at_once(groups):
    # max(min(3x, 0), x - 2, x + 2) = x + 2: where 3x is above x - 2 and below 0, x + 2 is above it
    function = MaxMinFunction([[3.0], [0.0], [1.0], [1.0]], [0, 0, -2, 2], groups)
    assert function.lipschitz() == 1


def test_equal_pieces_of_one_group_count():
    assert MaxMinFunction([[2.0], [2.0], [1.0]], [0, 0, 0], [[0, 1, 2]]).lipschitz() == 2


def test_a_constant_function_has_constant_0():
    assert MaxMinFunction([[0.0, 0.0]], [7.0], [[0]]).lipschitz() == 0


def test_a_piece_that_never_decides_but_holds_its_group_down_stays():
    # max(min(2x, 0), min(x/2, -x/2)) = min(x/2, 0): without 2x, its group would be 0 on x < 0
    function = MaxMinFunction([[2.0], [0.0], [0.5], [-0.5]], [0, 0, 0, 0], [[0, 1], [2, 3]])
    x = np.linspace(-3, 3, 101)[:, None]
    assert np.array_equal(function(x), np.minimum(x[:, 0] / 2, 0))
    assert function.lipschitz() == 0.5


# Compilation


def depth_of(critic):
    return sum(name.startswith("block") for name, _ in critic.named_children())


def restored(critic):
    if isinstance(critic, ResNetCritic):
        fresh = ResNetCritic(critic.dim, width=len(critic.lift.weight), depth=depth_of(critic), norm="max")
    else:
        fresh = FixedWidthCritic(critic.dim, depth=depth_of(critic), hidden=1)
    fresh = fresh.double()
    fresh.load_state_dict(critic.state_dict())
    return fresh


@pytest.mark.parametrize("compiler", COMPILERS)
@given(function=functions())
@settings(max_examples=20, deadline=None)
def test_a_compiled_critic_is_the_function_with_a_certificate_of_1(compiler, function):
    critic = compiler(function)
    x = torch.cat((cloud(function.dim, 40), cloud(function.dim, 40, 30.0)))
    assert critic(x).dtype == torch.float64
    assert (critic(x) - function(x)).abs().max() <= 1e-10
    certificate = certify(critic)
    assert certificate.lipschitz <= 1
    assert all(layer.lipschitz <= 1 for layer in certificate.layers)
    assert (certificate.norm_in, certificate.norm_out) == (f"Euclidean({function.dim})", "Euclidean(1)")
    assert torch.equal(restored(critic)(x), critic(x))


@pytest.mark.parametrize("compiler", COMPILERS)
@given(function=functions(), tight=st.booleans())
@settings(max_examples=15, deadline=None)
def test_retraction_leaves_a_compiled_critic_where_it_is(compiler, function, tight):
    """In family A where slopes have norm 1, its rows' norm; in family B always."""
    function = unit_slopes(function) if tight or compiler is compile_resnet else function
    critic, x = compiler(function), cloud(function.dim)
    Retraction(critic)()
    assert (critic(x) - function(x)).abs().max() <= 1e-10
    assert certify(critic).lipschitz <= 1


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_compiled_critic_trains_on_from_the_function(compiler):
    function = MaxMinFunction.random(3, 3, 4, seed=5)
    function = unit_slopes(function) if compiler is compile_resnet else function
    critic, x = compiler(function), cloud(3)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-6)
    constrain_steps(optimizer, critic)
    for _ in range(3):
        optimizer.zero_grad()
        critic(x).square().sum().backward()
        optimizer.step()
        assert certify(critic).lipschitz <= 1 + 1e-9
    moved = (critic(x) - function(x)).abs().max()
    assert 1e-8 < moved < 1e-2  # by the steps, and by no more
    optimizer.param_groups[0]["lr"] = 0.1
    for _ in range(3):
        optimizer.step()
        assert certify(critic).lipschitz <= 1 + 1e-9


@given(function=functions())
@settings(max_examples=30, deadline=None)
def test_sizes_are_as_the_theory_says(function):
    sizes = [len(group) for group in function.groups]
    resnet, fixed = compile_resnet(function), compile_fixed_width(unit_slopes(function))
    depth = max(1, sum(int(np.ceil(np.log2(size))) for size in (max(sizes), len(sizes))))
    assert resnet.lift.weight.shape == (2**depth, function.dim)
    assert depth_of(resnet) == depth
    assert fixed.lift.weight.shape == (function.dim + 3, function.dim)
    assert depth_of(fixed) <= sum(sizes) + 1
    assert depth_of(compile_fixed_width(function)) <= 2 * sum(sizes) + 1


@pytest.mark.parametrize("compiler", COMPILERS)
def test_smallest_and_flat_functions_compile(compiler):
    x = cloud(2)
    for slopes, intercepts, groups in [
        ([[0.6, 0.8]], [2.0], [[0]]),
        ([[0.0, 0.0]], [2.0], [[0]]),
        ([[0.3, 0.0], [0.0, 1.0]], [2.0, 1.0], [[0], [1]]),
    ]:
        function = MaxMinFunction(slopes, intercepts, groups)
        critic = compiler(function)
        assert (critic(x) - function(x)).abs().max() <= 1e-12
        assert certify(critic).lipschitz <= 1


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("dim", [40, 200])
def test_the_certificate_is_1_in_many_dimensions(compiler, dim):
    critic = compiler(MaxMinFunction.random(dim, 2, 3))
    assert certify(critic).lipschitz <= 1
    Retraction(critic)()
    assert certify(critic).lipschitz <= 1


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_slope_above_1_is_refused_and_rounding_forgiven(compiler):
    with pytest.raises(InputError, match=r"norm at most 1, not 1.25\d* as for piece 1"):
        compiler(MaxMinFunction([[1.0, 0.0], [1.0, 0.75]], [0, 0], [[0, 1]]))
    critic = compiler(MaxMinFunction([[1 + 5e-13, 0.0]], [0], [[0]]))
    assert certify(critic).lipschitz <= 1


def test_row_sums_count_what_every_level_of_a_sum_by_halving_loses():
    row = np.zeros(4096)
    row[0], row[2 ** np.arange(12)] = 1, 0.99 * 2.0**-53  # each is lost when it is added to 1
    exact = sum(Fraction(t) for t in row)
    bound = upper_bound_operator_norm(np.stack((row, row)), Norm((1,) * 4096), Norm((1, 1)))
    assert exact <= Fraction(bound) <= exact * (1 + Fraction(1, 10**14))


@pytest.mark.parametrize("transpose", [False, True])
def test_a_block_of_one_large_column_or_row_is_bounded_by_its_length(transpose):
    block = np.zeros((3, 3))
    block[:, 0] = 1
    bound = upper_bound_operator_norm(block.T if transpose else block, Norm((3,)), Norm((3,)))
    in_blocks = np.zeros((4, 4))
    in_blocks[1:, 1:] = block.T if transpose else block
    assert upper_bound_operator_norm(in_blocks, Norm((1, 3)), Norm((1, 3))) == pytest.approx(bound, rel=1e-12)
    assert bound == pytest.approx(3**0.5, rel=1e-12)


@pytest.mark.parametrize("dim", [2, 30, 800])
def test_a_signed_permutation_of_a_block_is_bounded_to_a_few_roundings(dim):
    matrix = np.zeros((dim + 1, dim + 1))
    matrix[1 + np.random.default_rng(0).permutation(dim), np.arange(1, dim + 1)] = -1
    bound = upper_bound_operator_norm(matrix, Norm((1, dim)), Norm((1, dim)))
    assert 1 <= bound <= 1 + 32 * 2.0**-53  # the margin of a retraction


# Interpolation


def lipschitz_values(points, seed, slope=1.0):
    rng = np.random.default_rng(seed)
    cones = rng.standard_normal((4, points.shape[1]))
    return (slope * np.linalg.norm(points[:, None] - cones, axis=2) + rng.standard_normal(4)).min(axis=1)


@given(
    SEEDS, st.integers(1, 5), st.integers(1, 25), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([1.0, 1e-3, 1e3])
)
@settings(max_examples=40, deadline=None)
def test_the_interpolant_takes_the_values(seed, dim, count, slope, scale):
    points = np.random.default_rng(seed).standard_normal((count, dim))
    values = scale * lipschitz_values(points, seed, slope)
    points *= scale
    points[: count // 4] = points[count // 4 : 2 * (count // 4)]  # duplicates
    values[: count // 4] = values[count // 4 : 2 * (count // 4)]
    for prune in (True, False):
        function = interpolate(points, values, prune=prune)
        assert np.abs(function(points) - values).max() <= 1e-12 * max(1, np.abs(values).max())
        for row in function.slopes[:20]:
            assert sum(Fraction(a) ** 2 for a in row) <= 1
    critic = compile_resnet(interpolate(points, values))
    assert certify(critic).lipschitz <= 1
    assert (critic(torch.from_numpy(points)) - torch.from_numpy(values)).abs().max() <= 1e-10 * max(1, scale)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_interpolant_is_no_steeper_than_its_values(dim):
    points = np.random.default_rng(1).standard_normal((7, dim))
    values = lipschitz_values(points, 1, 0.7)
    run = np.linalg.norm(points[:, None] - points, axis=2) + np.eye(7)
    steepest = (np.abs(values[:, None] - values) / run).max()
    function = interpolate(points, values)
    assert function.lipschitz() == pytest.approx(steepest, rel=1e-9)
    assert function.bound() <= steepest * (1 + 1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_values_are_taken_in_any_units(scale):
    points, values = scale * np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 9.0]]), scale * np.array([0.0, 5.0, 2.0])
    for prune in (True, False):
        assert np.abs(interpolate(points, values, prune=prune)(points) - values).max() <= 1e-14 * scale
    with pytest.raises(InputError, match="slope 1.2 between points 0 and 1"):
        interpolate(points, 1.2 * values)


def test_pruned_interpolants_are_small():
    points = np.linspace(0, 1, 40)[:, None]
    line = interpolate(points, 0.5 * points[:, 0])
    assert sum(map(len, line.groups)) <= 2
    tent = interpolate(points, np.minimum(points[:, 0], 1 - points[:, 0]))
    assert sum(map(len, tent.groups)) <= 4
    assert sum(map(len, interpolate(points, 0.5 * points[:, 0], prune=False).groups)) == 1600
    plane = np.random.default_rng(0).standard_normal((60, 2))
    assert sum(map(len, interpolate(plane, lipschitz_values(plane, 3)).groups)) < 1200


def test_values_that_no_1_lipschitz_function_takes_are_refused():
    points = np.array([[0.0], [5.0], [1.0]])
    with pytest.raises(InputError, match=r"slope 1.5 between points 0 and 2"):
        interpolate(points, [0.0, 0.0, 1.5])
    with pytest.raises(InputError, match=r"slope 1.00000000\d+ between points 1 and 2"):
        interpolate(points, [4.0, 0.0, 4 * (1 + 1e-11)])
    with pytest.raises(InputError, match=r"two values for one point between points 0 and 1"):
        interpolate([[1.0], [1.0]], [0.0, 1e-6])
    with pytest.raises(InputError, match=r"values must have shape \(3,\)"):
        interpolate(points, [0.0])
    with pytest.raises(InputError, match="values must be finite.*row 2"):
        interpolate(points, [0.0, 0.0, np.nan])
    assert interpolate(points, [0.0, 1.0, 1 + 1e-14])(points)[2] == pytest.approx(1, abs=1e-12)


# Transport


def clouds(dim, n, m, kind):
    x, y = cloud(dim, n, 1.0, seed=1), cloud(dim, m, 0.5, seed=2) + 0.3
    if kind == "duplicates":
        x[n // 2 :] = x[0]
        y[: min(n, m) // 2] = x[: min(n, m) // 2]
    elif kind == "identical":
        y = x.clone()
    elif kind == "collinear":
        x, y = x[:, :1] * torch.ones(dim), y[:, :1] * torch.ones(dim)
    elif kind == "far away":
        x, y = x + 1e4, y + 1e4
    elif kind == "small":
        x, y = 1e-6 * x, 1e-6 * y
    elif kind in ("tiny", "huge"):
        scale = 1e-200 if kind == "tiny" else 1e200
        x, y = scale * x, scale * y
    elif kind == "all in one place":
        x, y = torch.zeros(n, dim), torch.zeros(m, dim)
    return x.double(), y.double()


KINDS = ["plain", "duplicates", "identical", "collinear", "far away", "small", "tiny", "huge", "all in one place"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim, n, m", [(1, 9, 7), (2, 5, 14), (5, 8, 8), (30, 4, 3)])
def test_a_critic_from_transport_attains_w1(family, kind, dim, n, m):
    x, y = clouds(dim, n, m, kind)
    critic = critic_from_transport(x, y, family=family)
    value = solve(x, y).value
    with torch.no_grad():
        assert kr_value(critic, x, y).item() == pytest.approx(value, rel=1e-9, abs=1e-9 * float(x.abs().max()))
        Retraction(critic)()
        assert kr_value(critic, x, y).item() == pytest.approx(value, rel=1e-9, abs=1e-9 * float(x.abs().max()))
    assert certify(critic).lipschitz <= 1


def test_a_shift_costs_its_length():
    x, shift = cloud(3, 30), torch.tensor([2.0, -1.0, 2.0])
    critic = critic_from_transport(x, x + shift)
    assert kr_value(critic, x, x + shift).item() == pytest.approx(3, abs=1e-12)


def test_both_orientations_are_compiled():
    """Fewer pieces serve where the groups sit in the wider cloud; the other way about, the critic is mirrored."""
    x, y = cloud(4, 12, 1.0, seed=1), cloud(4, 12, 0.3, seed=2)
    there, back = critic_from_transport(x, y), critic_from_transport(y, x)
    assert {there.readout.weight.sum().sign().item(), back.readout.weight.sum().sign().item()} == {-1.0, 1.0}
    value = solve(x, y).value
    assert kr_value(there, x, y).item() == pytest.approx(value, abs=1e-11)
    assert kr_value(back, y, x).item() == pytest.approx(value, abs=1e-11)


def test_on_the_line_two_slopes_are_enough():
    x, y = cloud(1, 60, seed=3), cloud(1, 45, seed=4)
    critic = critic_from_transport(x, y)
    assert len(critic.lift.weight) <= 16
    assert kr_value(critic, x, y).item() == pytest.approx(solve(x, y).value, abs=1e-11)


def test_unusable_samples_are_refused():
    with pytest.raises(InputError, match="same dimension"):
        critic_from_transport(cloud(2), cloud(3))
    with pytest.raises(InputError, match="finite"):
        critic_from_transport(cloud(2) * np.nan, cloud(2))
    with pytest.raises(InputError, match="family"):
        critic_from_transport(cloud(2), cloud(2), family="both")
