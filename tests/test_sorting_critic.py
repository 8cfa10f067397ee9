"""The sorting family, and what several heads over one body are certified for."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from wgan_lip import certify
from wgan_lip.critics import FixedWidthCritic, ResNetCritic, SortingCritic
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers import GroupSort, Linear, constrain_steps
from wgan_lip.utils.checks import InputError, UncertifiableError


def set_(parameter, value):
    with torch.no_grad():
        parameter.copy_(torch.as_tensor(value, dtype=torch.float64))


def jacobians(critic, x):
    return torch.func.vmap(torch.func.jacrev(lambda v: critic(v[None])[0]))(x)


@pytest.mark.parametrize("group", [1, 2, 4, 16])
def test_a_fresh_critic_is_a_potential_of_constant_1(group):
    critic = SortingCritic(3, width=16, depth=3, group=group)
    assert critic(torch.randn(7, 3)).shape == (7,)
    certificate = certify(critic)
    assert 0.99 < certificate.lipschitz <= 1
    assert (certificate.norm_in, certificate.norm_out) == ("Euclidean(3)", "Euclidean(1)")
    kinds = [type(layer) for layer in critic][1:-1]
    assert kinds == [Linear, GroupSort] * 3 + [Linear]


def test_with_square_layers_the_gradient_norm_is_1_everywhere():
    critic = SortingCritic(8, width=8, depth=4, group=4).double()
    norms = jacobians(critic, torch.randn(200, 8, dtype=torch.float64)).norm(dim=1)
    assert torch.allclose(norms, torch.ones_like(norms), atol=1e-4)


def test_one_full_sort_is_the_absolute_value():
    critic = SortingCritic(1, width=2, depth=1, bias_scale=0.0).double()
    r = math.sqrt(0.5)
    set_(critic.affine_1.weight, [[r], [-r]])
    set_(critic.readout.weight, [[r, -r]])
    x = torch.linspace(-3, 3, 101, dtype=torch.float64)[:, None]
    assert torch.allclose(critic(x), x[:, 0].abs(), atol=1e-14)


def test_it_stays_at_constant_1_after_steps_of_any_size():
    critic = SortingCritic(3, width=6, depth=2, group=3)
    optimizer = torch.optim.SGD(critic.parameters(), lr=1e4)
    constrain_steps(optimizer, critic)
    for _ in range(3):
        optimizer.zero_grad()
        critic(torch.randn(20, 3)).square().sum().backward()
        optimizer.step()
        assert certify(critic).lipschitz <= 1


def test_biases_start_in_the_given_units():
    biases = torch.cat([m.bias.detach() for m in SortingCritic(3, bias_scale=40.0) if isinstance(m, Linear)][:-1])
    assert 35 < biases.abs().max() <= 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(width=10, group=4), "divide the width 10; 4 does not"),
        (dict(width=0), "width must be at least 1"),
        (dict(depth=0), "depth must be at least 1"),
        (dict(heads=0), "heads must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        SortingCritic(2, **arguments)


# Several heads

FAMILIES = {
    "residual": lambda heads: ResNetCritic(3, width=8, depth=2, heads=heads),
    "residual, maximum norm": lambda heads: ResNetCritic(3, width=8, depth=3, norm="max", heads=heads),
    "residual, cones": lambda heads: ResNetCritic(3, width=8, depth=2, readout="cones", heads=heads),
    "fixed width": lambda heads: FixedWidthCritic(3, depth=2, heads=heads),
    "sorting": lambda heads: SortingCritic(3, width=8, depth=2, group=4, heads=heads),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("steps", [0, 10])
def test_every_head_obeys_the_one_constant_and_the_vector_its_multiple_by_root_k(family, steps):
    critic = FAMILIES[family](4)
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.1)
    constrain_steps(optimizer, critic)
    for _ in range(steps):
        optimizer.zero_grad()
        (-critic(torch.randn(32, 3)).std(dim=0).sum()).backward()
        optimizer.step()
    certificate = certify(critic)
    assert (certificate.norm_out, certificate.lipschitz <= 1) == ("max(4)", True)
    found = jacobians(critic.double(), 3 * torch.randn(500, 3, dtype=torch.float64))
    bound = certificate.lipschitz * (1 + 1e-12)
    assert found.norm(dim=2).max() <= bound
    assert torch.linalg.matrix_norm(found, 2).max() <= math.sqrt(4) * bound
    for first, second in itertools.combinations(range(4), 2):
        assert (found[:, first] - found[:, second]).norm(dim=1).max() <= 2 * bound

    x, y = torch.randn(2, 500, 3, dtype=torch.float64)
    gap = (critic(x) - critic(y)).abs().amax(1)
    assert (gap <= bound * (x - y).norm(dim=1)).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_heads_need_the_root_of_k_in_the_euclidean_norm(family):
    """Which is why the certificate is stated in the maximum norm."""
    critic = FAMILIES[family](4).double()
    with torch.no_grad():
        weight = critic.readout.offsets if family == "residual, cones" else critic.readout.weight
        weight.copy_(weight[:1].clone().expand_as(weight))
    x = torch.randn(300, 3, dtype=torch.float64)
    single = jacobians(critic, x).norm(dim=2).max()
    joint = torch.linalg.matrix_norm(jacobians(critic, x), 2).max()
    assert joint.item() == pytest.approx(2 * single.item(), rel=1e-9)


def test_each_norm_of_the_heads_has_its_own_claim_and_the_two_do_not_mix():
    """Peers claim 1 in the Euclidean norm for rows of norm 1, whose joint constant may be √k."""
    rows = nn.functional.normalize(1 + 0.1 * torch.randn(10, 16, dtype=torch.float64), dim=1)
    one_by_one = Linear(Norm.euclidean(16), Norm((1,) * 10)).double()
    joint = Linear(Norm.euclidean(16), Norm.euclidean(10)).double()
    for layer in (one_by_one, joint):
        set_(layer.weight, rows)
    spectral = torch.linalg.matrix_norm(rows, 2).item()
    assert spectral > 3.1
    assert certify(one_by_one).lipschitz == pytest.approx(1, rel=1e-12)
    assert certify(joint).lipschitz == pytest.approx(spectral, rel=1e-9)
    behind = Linear(Norm.euclidean(10), Norm((1,))).double()
    assert certify(nn.Sequential(joint, behind)).lipschitz >= spectral * 0.999
    with pytest.raises(
        UncertifiableError, match=r"proved for inputs in Euclidean\(10\), but the layer before it ends in max\(10\)"
    ):
        certify(nn.Sequential(one_by_one, behind))


def test_one_head_gives_values_and_more_give_rows():
    assert SortingCritic(2, width=4)(torch.zeros(5, 2)).shape == (5,)
    assert SortingCritic(2, width=4, heads=3)(torch.zeros(5, 2)).shape == (5, 3)
    assert SortingCritic(4, width=4)(torch.zeros(5, 1, 2, 2)).shape == (5,)
