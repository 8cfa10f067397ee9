"""The facts that the theory guide uses, on the package's own layers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wgan_lip.critics import compiled, maximum, minimum
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import Flatten, GradientFlow, Linear, Squeeze

FAR = torch.cat((torch.linspace(-1000, 1000, 401), torch.linspace(-4, 4, 321)))[:, None].double()
NEAR = torch.linspace(-3, 3, 301)[:, None].double()


def zigzag(t):
    """N: slopes +1, −1, +1, kinks at −1 and 1."""
    return torch.where(t < -1, t + 2, torch.where(t > 1, t - 2, -t))[:, 0]


def piece(slope, offset):
    layer = Linear(Norm((1,)), Norm((1,)))
    with torch.no_grad():
        layer.weight.fill_(slope)
        layer.bias.fill_(offset)
    return nn.Sequential(Flatten(1), layer, Squeeze()).double()


def fold(position):
    """t ↦ position − |t − position|, a residual layer with W = 1, τ = 2."""
    layer = GradientFlow(1, 1).double()
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.tau.fill_(2.0)
        layer.bias.fill_(-position)
    return layer


def test_the_lattice_and_the_families_with_maximum_norms_hold_the_zigzag_on_all_of_the_line():
    pieces = [piece(1.0, 2.0), piece(-1.0, 0.0), piece(1.0, -2.0)]
    function = compiled.MaxMinFunction([[1.0], [-1.0], [1.0]], [2.0, 0.0, -2.0], [[0, 1], [2]])
    critics = {
        "lattice": maximum(minimum(*pieces[:2]), pieces[2]),
        "A": compiled.compile_resnet(function),
        "B": compiled.compile_fixed_width(function),
    }
    for name, critic in critics.items():
        critic = critic.double()
        assert torch.allclose(critic(FAR), zigzag(FAR), rtol=1e-6, atol=2e-6), name
        assert certify(critic).lipschitz <= 1 + 1e-12, name


def test_two_euclidean_folds_hold_it_on_an_interval_and_no_further():
    """x ↦ −|x + 1|, and then a fold of what lies below −2, up to shifts; folds keep what is below, so it is flipped."""
    flip = [piece(-1.0, 0.0)[1], fold(3.0), piece(-1.0, 0.0)[1]]
    critic = nn.Sequential(fold(-1.0), *flip, piece(1.0, 2.0)[1], Squeeze()).double()
    assert certify(critic).lipschitz <= 1 + 1e-12
    assert torch.allclose(critic(NEAR), zigzag(NEAR), atol=1e-12)
    assert not torch.allclose(critic(2 * NEAR), zigzag(2 * NEAR), atol=0.5)


def test_two_functions_side_by_side_cost_the_root_of_2_in_the_euclidean_norm():
    for norm, constant in ((Norm((2,)), 2**0.5), (Norm((1, 1)), 1.0)):
        both = Linear(Norm((1,)), norm)
        with torch.no_grad():
            both.weight.fill_(1.0)
        assert both.claim().lipschitz == pytest.approx(constant, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6), st.floats(0.01, 1.0))
def test_opposite_directions_stay_opposite_under_a_fold_only_where_it_does_not_see_them(width, hidden, seed, share):
    """‖φ^∞(p) − φ^∞(−p)‖ = 2‖(I − (τ/2)WᵀW)p‖, which is below 2‖p‖ by what W sees of p."""
    rng = torch.Generator().manual_seed(seed)
    layer = GradientFlow(width, hidden).double().requires_grad_(False)
    with torch.no_grad():
        weight = torch.randn(hidden, width, generator=rng, dtype=torch.float64)
        layer.weight.copy_(weight / torch.linalg.matrix_norm(weight, 2))
        layer.tau.fill_(2 * share)
    p = nn.functional.normalize(torch.randn(1, width, generator=rng, dtype=torch.float64))
    far = 1e9
    recession = [layer(sign * far * p) / far for sign in (1, -1)]
    gap = (recession[0] - recession[1]).norm()
    seen = layer.weight @ p[0]
    formula = 2 * (p[0] - share * layer.weight.T @ seen).norm()
    assert gap == pytest.approx(formula.item(), abs=1e-7)
    assert gap <= 2 * (1 - share * seen.square().sum() / 2) + 1e-7  # ‖(I − A)p‖² ≤ ⟨p, (I − A)p⟩ ≤ 1 − share‖Wp‖²
    unseen = p[0] - torch.linalg.pinv(layer.weight) @ seen
    if unseen.norm() > 1e-3:
        kept = nn.functional.normalize(unseen[None])
        assert torch.allclose(layer(far * kept) - layer(-far * kept), 2 * far * kept, rtol=1e-9)
