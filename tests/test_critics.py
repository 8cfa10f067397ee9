"""The two families: shapes, norms, constants, and what they can represent."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from wgan_lip import certify, verify
from wgan_lip.critics import FixedWidthCritic, ResNetCritic
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers import ACTIVATIONS, GradientFlow, Linear, MaxMin, Parallel
from wgan_lip.utils.checks import InputError

FAMILIES = [ResNetCritic, FixedWidthCritic]


def set_(parameter, value):
    with torch.no_grad():
        parameter.copy_(torch.as_tensor(value, dtype=torch.float64))


def gradient_norms(critic, x):
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad(critic(x).sum(), x)[0].norm(dim=1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_a_fresh_critic_is_a_potential_of_constant_1(family, activation, dim):
    critic = family(dim, depth=3, activation=activation)
    assert critic.dim == dim
    assert critic(torch.randn(7, dim)).shape == (7,)
    certificate = certify(critic)
    assert 0 < certificate.lipschitz <= 1
    assert (certificate.norm_in, certificate.norm_out) == (f"Euclidean({dim})", "Euclidean(1)")


@pytest.mark.parametrize("family", FAMILIES)
def test_images_are_flattened(family):
    critic = family(12, depth=2)
    x = torch.randn(5, 3, 2, 2)
    assert torch.equal(critic(x), critic(x.flatten(1)))
    assert critic(x[:0]).shape == (0,)
    with pytest.raises(InputError, match="12 entries"):
        critic(torch.randn(5, 3, 2, 3))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bad", [{"dim": 0}, {"dim": 2, "depth": 0}, {"dim": 2, "hidden": 0}, {"dim": 2, "depth": -1}])
def test_sizes_below_1_are_refused(family, bad):
    with pytest.raises(InputError, match=r"at least 1"):
        family(**bad)


def test_a_width_below_1_is_refused():
    with pytest.raises(InputError, match="width must be at least 1, not 0"):
        ResNetCritic(2, width=0)


def test_family_a_has_the_layers_it_says():
    critic = ResNetCritic(3, width=10, depth=4, hidden=6)
    flows = [m for m in critic if isinstance(m, GradientFlow)]
    assert [tuple(f.weight.shape) for f in flows] == [(6, 10)] * 4
    assert [tuple(m.weight.shape) for m in critic if isinstance(m, Linear)] == [(10, 3), (1, 10)]
    assert ResNetCritic(3, width=10, depth=1).block_1.weight.shape == (5, 10)
    assert ResNetCritic(3, width=1, depth=1).block_1.weight.shape == (1, 1)
    assert ResNetCritic(9, width=2, depth=1)(torch.randn(4, 9)).shape == (4,)  # narrower than the data


def test_family_b_has_the_norm_and_layers_it_says():
    critic = FixedWidthCritic(5, depth=3)
    blocks = [m for m in critic if isinstance(m, Parallel)]
    affine = [m for m in critic if isinstance(m, Linear)]
    assert len(blocks) == 3
    assert [m.norm_in for m in affine] == [Norm((5,)), *[Norm((1, 1, 1, 5))] * 4]
    assert all(isinstance(b.layers[0], MaxMin) for b in blocks)
    assert all(b.claim().norm_in == b.claim().norm_out == Norm((1, 1, 1, 5)) for b in blocks)
    assert blocks[0].layers[2].weight.shape == (2, 5)
    assert FixedWidthCritic(1, depth=1).block_1.layers[2].weight.shape == (1, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_biases_start_in_the_given_units(family):
    critic = family(4, depth=3, bias_scale=40.0)
    biases = torch.cat([m.bias.flatten() for m in critic.modules() if isinstance(m, GradientFlow)])
    assert 10 < biases.abs().max() <= 40


def test_family_a_represents_minus_the_absolute_value():
    """-|x| = v ∘ φ ∘ Q with w = e_1, tau = 2: a fold, then the read-out of the first coordinate."""
    critic = ResNetCritic(1, width=2, depth=1, hidden=1).double()
    set_(critic.lift.weight, [[1.0], [0.0]])
    set_(critic.block_1.weight, [[1.0, 0.0]])
    set_(critic.block_1.bias, 0.0)
    set_(critic.block_1.tau, 2.0)
    set_(critic.readout.weight, [[1.0, 0.0]])
    x = torch.linspace(-3, 3, 101, dtype=torch.float64)[:, None]
    assert torch.equal(critic(x), -x[:, 0].abs())
    assert certify(critic).lipschitz == pytest.approx(1, rel=1e-12)


def test_family_b_represents_a_max_of_affine_pieces():
    """max(a·x + p, b·x + q), the comparator step of Theorem 4.1: s1, s2 hold the pieces, the block sorts them."""
    critic = FixedWidthCritic(2, depth=1).double()
    a, b = torch.tensor([0.6, 0.8], dtype=torch.float64), torch.tensor([-1.0, 0.0], dtype=torch.float64)
    set_(critic.lift.weight, torch.cat((torch.stack((a, b, 0 * a)), torch.eye(2, dtype=torch.float64))))
    set_(critic.lift.bias, [0.25, -0.5, 0.0, 0.0, 0.0])
    set_(critic.affine_1.weight, torch.eye(5))
    set_(critic.readout.weight, [[1.0, 0.0, 0.0, 0.0, 0.0]])
    x = 3 * torch.randn(300, 2, dtype=torch.float64)
    expected = torch.maximum(x @ a + 0.25, x @ b - 0.5)
    assert torch.allclose(critic(x), expected, atol=1e-14)
    assert certify(critic).lipschitz == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_units_scale_through(family):
    """A critic of samples in other units: f(c·x) has constant c·L, which a scaled lift shows."""
    critic = family(3, depth=2).double()
    before = certify(critic).lipschitz
    with torch.no_grad():
        critic.lift.weight.mul_(5)
    assert certify(critic).lipschitz == pytest.approx(5 * before, rel=1e-9)


def test_a_fresh_critic_of_family_a_keeps_most_of_its_gradient():
    critic = ResNetCritic(4, width=32, depth=6).double()
    norms = gradient_norms(critic, torch.randn(500, 4, dtype=torch.float64))
    assert norms.max() <= 1 + 1e-9
    assert norms.mean() > 0.5 / math.sqrt(32 / 4)


def test_the_maximum_norm_family_takes_the_max_of_mins_of_its_pieces():
    critic = ResNetCritic(3, width=8, depth=3, norm="max", bias_scale=1.0).double()
    with torch.no_grad():
        critic.readout.weight.copy_(torch.eye(8)[1:2])  # slot 1: min over bit 0, then max over bits 1 and 2
        critic.readout.bias.zero_()
        x = torch.randn(50, 3, dtype=torch.float64)
        pieces = critic.lift(x).view(50, 4, 2)
        assert torch.equal(critic(x), pieces.amin(2).amax(1))
    assert certify(critic).lipschitz <= 1
    assert {layer.norm_in for layer in certify(critic).layers[2:-1]} == {"max(8)"}


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_sorting_pairs_is_a_gradient_flow_layer(stride):
    sort = MaxMin(8, Norm((8,)), stride=stride)
    flow = GradientFlow(8, 4).double()
    first = [i for i in range(8) if not i // stride % 2]
    with torch.no_grad():
        flow.weight.zero_()
        flow.bias.zero_()
        for row, i in enumerate(first):
            flow.weight[row, i], flow.weight[row, i + stride] = -math.sqrt(0.5), math.sqrt(0.5)
    x = torch.randn(100, 8, dtype=torch.float64)
    assert torch.allclose(sort(x), flow(x), atol=1e-14)


@pytest.mark.parametrize(
    "arguments",
    [dict(width=12), dict(width=1), dict(width=8, hidden=2), dict(width=8, activation="tanh"), dict(norm="l1")],
)
def test_the_maximum_norm_family_refuses_what_it_cannot_hold(arguments):
    with pytest.raises(InputError, match="norm"):
        ResNetCritic(2, **{"norm": "max", **arguments})


@pytest.mark.parametrize("family", [ResNetCritic, FixedWidthCritic])
def test_an_average_of_two_critics_has_a_certificate_of_its_own(family):
    first, second = family(3, depth=2), family(3, depth=2)
    average = copy.deepcopy(first)
    with torch.no_grad():
        for mean, other in zip(average.parameters(), second.parameters()):
            mean.lerp_(other, 0.3)
    assert certify(average).lipschitz <= 1  # norms are convex
    assert len({certify(critic).weights_sha256 for critic in (first, second, average)}) == 3
    with pytest.raises(InputError, match="other weights"):
        verify(certify(first), average)
