"""Sorting and reflecting layers: nonexpansive, isometries almost everywhere, and folds in the gradient-flow sense."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wgan_lip.critics import ResNetCritic, SortingCritic
from wgan_lip.lipschitz.bounds import Norm, gamma
from wgan_lip.lipschitz.certificates import certify, evaluate
from wgan_lip.lipschitz.layers import (
    Absolute,
    GradientFlow,
    GroupSort,
    Householder,
    MaxMin,
    Retraction,
    Squeeze,
    sorting,
)
from wgan_lip.utils.checks import InputError

ANGLES = [0.0, 0.3, math.pi / 2, 2.0, math.pi, 5.0, -40.0, 1e6]


def set_(parameter, value):
    with torch.no_grad():
        parameter.copy_(torch.as_tensor(value, dtype=torch.float64))


def householder(angles, norm=None):
    layer = Householder(2 * len(angles), norm).double()
    set_(layer.angle, angles)
    return layer


def flow(weight):
    """x ↦ x − 2Wᵀ relu(Wx)."""
    weight = torch.as_tensor(weight, dtype=torch.float64)
    layer = GradientFlow(weight.shape[1], len(weight)).double()
    set_(layer.weight, weight)
    set_(layer.bias, 0.0)
    set_(layer.tau, 2.0)
    return layer


def jacobians(layer, x):
    x = x.clone().requires_grad_(True)
    values = layer(x)
    rows = [torch.autograd.grad(values[:, i].sum(), x, retain_graph=True)[0] for i in range(values.shape[1])]
    return torch.stack(rows, dim=1)


LAYERS = {
    **{f"sort {group} of 12": (lambda group=group: GroupSort(12, group)) for group in (1, 2, 3, 4, 6, 12)},
    "max and min at distance 3": lambda: MaxMin(12, stride=3),
    "absolute value": Absolute,
    "reflections": lambda: householder(ANGLES[:6]),
}
PERMUTING = [name for name in LAYERS if name.startswith(("sort", "max"))]

# few values, so that ties are frequent
vectors = st.lists(
    st.one_of(st.sampled_from([-1.0, 0.0, -0.0, 1.0, 1e-300]), st.floats(-1e6, 1e6)), min_size=12, max_size=12
).map(lambda values: torch.tensor([values], dtype=torch.float64))


@pytest.mark.parametrize("name", LAYERS)
@settings(deadline=None, max_examples=60)
@given(x=vectors, y=vectors)
def test_no_two_points_move_apart(name, x, y):
    moved, before = LAYERS[name]()(x) - LAYERS[name]()(y), x - y
    rounding = 1e-14 * (x.norm() + y.norm())
    assert moved.norm() <= before.norm() + rounding
    if name != "reflections":
        assert moved.abs().max() <= before.abs().max()


@pytest.mark.parametrize("name", LAYERS)
def test_the_jacobian_is_an_isometry(name):
    singular = torch.linalg.svdvals(jacobians(LAYERS[name](), torch.randn(50, 12, dtype=torch.float64)))
    assert torch.allclose(singular, torch.ones_like(singular), atol=1e-14)


@pytest.mark.parametrize("name", PERMUTING)
def test_the_jacobian_is_a_permutation_also_at_ties(name):
    x = torch.randint(2, (50, 12)).double()
    found = jacobians(LAYERS[name](), x)
    assert torch.equal(found.sum(1), torch.ones(50, 12)) and torch.equal(found.sum(2), torch.ones(50, 12))
    assert set(found.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("group", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_each_group_is_sorted_at_each_position(group, shape):
    x = torch.randint(4, (5, 6, *shape)).float()
    found = GroupSort(6, group, Norm.euclidean())(x)
    assert found.shape == x.shape
    for start in range(0, 6, group):
        part = slice(start, start + group)
        assert torch.equal(found[:, part], x[:, part].sort(dim=1, descending=True).values)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_values_do_not_depend_on_gradients_chunks_or_transforms(monkeypatch, stride):
    layer, x = MaxMin(12, stride=stride), torch.randn(7, 12, 2)
    tracked = layer(x.clone().requires_grad_(True))
    assert torch.equal(layer(x), tracked)
    assert torch.equal(torch.func.vmap(lambda v: layer(v[None])[0])(x), tracked)
    for chunk in (1, 50, 100):
        monkeypatch.setattr(sorting, "_CHUNK", chunk)
        assert torch.equal(layer(x), tracked)
        assert layer(x[:0]).shape == (0, 12, 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(), (2, 3)])
@pytest.mark.parametrize("stride", [1, 3])
def test_pairs_are_exchanged_bit_by_bit_and_gradients_with_them(stride, shape, dtype):
    x = torch.randint(-2, 3, (40, 12, *shape)).to(dtype)
    x[0] = -0.0
    x[1, 0], x[2, 1] = math.inf, -math.inf
    x.requires_grad_(True)
    layer = MaxMin(12, Norm.euclidean(), stride=stride)
    assert torch.equal(layer(x), layer(x.detach()))
    gradient = torch.randn_like(x)
    layer(x).backward(gradient)
    first, second = x.detach().unflatten(1, (-1, 2, stride)).unbind(2)
    up, down = gradient.unflatten(1, (-1, 2, stride)).unbind(2)
    swap = first < second
    expected = torch.stack((torch.where(swap, down, up), torch.where(swap, up, down)), dim=2)
    assert torch.equal(x.grad, expected.flatten(1, 3))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own use, in forward mode
def test_pairs_are_differentiated_twice_forwards_and_in_one_graph():
    layer, x = MaxMin(6), torch.randn(5, 6, dtype=torch.float64)
    cubes = lambda v: (layer(v[None]) ** 3).sum()  # noqa: E731
    expected = torch.diag_embed(6 * x)  # sorting permutes, the sum of cubes does not mind
    for outer in (torch.func.jacfwd, torch.func.jacrev):
        assert torch.allclose(torch.func.vmap(outer(torch.func.jacrev(cubes)))(x), expected, atol=1e-14)
    x.requires_grad_(True)
    assert torch.autograd.gradgradcheck(lambda v: layer(v) ** 3, x)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), layer(x))
    assert torch.equal(jacobians(compiled, x), jacobians(layer, x))


def test_groups_of_two_are_max_and_min():
    x = torch.randn(50, 8, 3)
    assert torch.equal(GroupSort(8, 2)(x), MaxMin(8)(x))
    expected = torch.stack((torch.maximum(x[:, :4], x[:, 4:]), torch.minimum(x[:, :4], x[:, 4:])), dim=1)
    assert torch.equal(MaxMin(8, stride=4)(x), expected.flatten(1, 2))


def test_sorting_a_group_is_a_composition_of_gradient_flow_layers():
    """The sorting network of four: pairs (0, 2), (1, 3); then (0, 1), (2, 3); then (1, 2)."""
    r = math.sqrt(0.5)
    network = nn.Sequential(
        flow([[-r, 0, r, 0], [0, -r, 0, r]]), flow([[-r, r, 0, 0], [0, 0, -r, r]]), flow([[0, -r, r, 0]])
    )
    x = torch.randn(500, 4, dtype=torch.float64)
    assert torch.allclose(network(x), GroupSort(4, 4)(x), atol=1e-14)


def test_minus_the_absolute_value_is_the_gradient_flow_layer_of_the_identity():
    x = torch.randn(100, 3, dtype=torch.float64)
    assert torch.equal(flow(torch.eye(3))(x), -Absolute()(x))


@pytest.mark.parametrize("angle", ANGLES)
def test_a_reflection_is_the_gradient_flow_layer_of_its_line(angle):
    x = torch.randn(200, 2, dtype=torch.float64)
    row = [[-math.sin(angle / 2), math.cos(angle / 2)]]
    assert torch.allclose(householder([angle])(x), flow(row)(x), atol=1e-14)


def test_reflections_start_as_max_and_min():
    x = torch.randn(200, 6)
    assert torch.allclose(Householder(6)(x), MaxMin(6)(x), atol=1e-6)


def test_each_pair_and_position_is_reflected_by_its_own_angle():
    layer = householder(ANGLES[1:4], Norm.euclidean())
    x = torch.randn(5, 6, 2, 3, dtype=torch.float64)
    found = layer(x)
    for pair in range(3):
        for row, column in [(0, 0), (1, 2)]:
            part = slice(2 * pair, 2 * pair + 2)
            expected = householder([ANGLES[1 + pair]])(x[:, part, row, column])
            assert torch.allclose(found[:, part, row, column], expected, atol=1e-15)


def test_the_angle_is_trained():
    """One angle is found from samples of its reflection."""
    goal, layer = householder([1.0]), householder([1.8])
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    x = torch.randn(256, 2, dtype=torch.float64)
    for _ in range(80):
        optimizer.zero_grad()
        (layer(x) - goal(x)).square().mean().backward()
        optimizer.step()
    assert layer.angle.item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("angle", [*ANGLES, 1e30])
def test_reflections_have_constant_1_at_every_angle_and_are_claimed_in_the_euclidean_norm_only(angle):
    layer = householder([angle])
    claim = layer.claim()
    assert (claim.lipschitz, claim.norm_in, claim.norm_out) == (1.0, Norm((2,)), Norm((2,)))
    with pytest.raises(InputError, match="Euclidean norm of width 2, not max"):
        Householder(2, Norm((1, 1)))
    x = torch.tensor([[-1.0, 1.0]], dtype=torch.float64)  # the corner of the maximum norm's ball leaves it
    assert householder([math.pi / 4])(x).abs().max() > 1.2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_claim_is_made_about_angles_that_are_not_finite(value):
    with pytest.raises(InputError, match="finite"):
        householder([1.0, value]).claim()


@pytest.mark.parametrize("scale", [1e-170, 1.0, 1e8])
def test_the_rounding_of_reflections_is_within_what_is_stated(scale):
    layer = householder([0.3, 1e6])
    rounding = layer.claim().rounding
    allowed = gamma(rounding.operations) * rounding.gain
    assert allowed < 1e-13
    x = scale * torch.randn(30, 4, dtype=torch.float64)
    with mpmath.workdps(50):
        for row, found in zip(x.tolist(), layer(x).tolist()):
            truth = []
            for i, angle in enumerate(layer.angle.tolist()):
                sine, cosine = mpmath.sin(mpmath.mpf(angle) / 2), mpmath.cos(mpmath.mpf(angle) / 2)
                first, second = map(mpmath.mpf, row[2 * i : 2 * i + 2])
                below = min(sine * first - cosine * second, mpmath.mpf(0))
                truth += [first - 2 * sine * below, second + 2 * cosine * below]
            error = mpmath.norm([a - mpmath.mpf(b) for a, b in zip(truth, found)])
            assert error <= allowed * mpmath.norm(row)
    critic = nn.Sequential(layer, nn.Linear(4, 1).double(), Squeeze())
    plain = evaluate(critic[1:], layer(x).detach())
    assert torch.equal(evaluate(critic, x).values, plain.values)
    assert (evaluate(critic, x).error >= plain.error).all()
    assert scale < 1e-9 or (evaluate(critic, x).error > plain.error).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: GroupSort(6, 4),
        lambda: GroupSort(6, 0),
        lambda: GroupSort(0, 1),
        lambda: GroupSort(6, 2, Norm((3, 3))),
        lambda: GroupSort(6, 2, Norm((5,))),
        lambda: Householder(3),
        lambda: Householder(0),
        lambda: Householder(4, Norm((2, 2))),
        lambda: MaxMin(4, Norm((2, 2))),
    ],
)
def test_what_cannot_be_sorted_or_proved_is_refused(make):
    with pytest.raises(InputError, match="must be|must divide|needs"):
        make()


@pytest.mark.parametrize("norm", [Norm((6,)), Norm((1,) * 6), Norm.euclidean()], ids=str)
def test_sorting_is_claimed_in_both_norms(norm):
    layer = GroupSort(6, 3, norm)
    certificate = certify(layer)
    assert (certificate.lipschitz, certificate.norm_in, certificate.norm_out) == (1.0, str(norm), str(norm))
    assert "group=3" in certificate.layers[0].layer
    Retraction(layer)()  # nothing to pull back
    assert layer(torch.zeros(0, 6)).shape == (0, 6)


@pytest.mark.parametrize("shape", [(4, 2), (4, 8), (4, 2, 1, 1), (6,)])
def test_a_householder_layer_refuses_other_widths(shape):
    """Two channels would be broadcast to six, which expands by √6."""
    with pytest.raises(InputError, match="Inputs must have shape"):
        Householder(6, Norm.euclidean())(torch.randn(*shape))


@pytest.mark.parametrize(
    "make",
    [
        lambda s: GradientFlow(3, 2, bias_scale=s),
        lambda s: SortingCritic(3, bias_scale=s),
        lambda s: ResNetCritic(3, width=4, norm="max", bias_scale=s),
    ],
)
@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_a_scale_of_biases_that_is_none_is_refused(make, scale):
    with pytest.raises(InputError, match="bias_scale must be finite and at least 0"):
        make(scale)
