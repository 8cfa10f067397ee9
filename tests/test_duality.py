"""The dual's value and its ascent."""

from __future__ import annotations

import copy

import pytest
import torch

from wgan_lip import certify
from wgan_lip.critics import FixedWidthCritic, ResNetCritic
from wgan_lip.lipschitz.certificates import weights_sha256
from wgan_lip.lipschitz.layers import constrain_steps
from wgan_lip.wasserstein.dual import ascend, fitted, kr_value

FAMILIES = {
    "A": lambda: ResNetCritic(2, width=8, depth=2),
    "B": lambda: FixedWidthCritic(2, depth=2),
}
BOTH = pytest.mark.parametrize("family", FAMILIES)


def shifted(n=64, m=48, by=3.0):
    return torch.randn(n, 2) + by, torch.randn(m, 2)


@BOTH
@pytest.mark.parametrize(("n", "m"), [(5, 9), (1, 1), (40, 3)])
def test_the_value_is_the_difference_of_means(family, n, m):
    critic = FAMILIES[family]().double()
    x, y = torch.randn(n, 2, dtype=torch.float64), torch.randn(m, 2, dtype=torch.float64) + 1
    value = kr_value(critic, x, y)
    assert value.shape == ()
    assert value.item() == pytest.approx((critic(x).mean() - critic(y).mean()).item(), abs=1e-14)
    assert kr_value(critic, y, x).item() == pytest.approx(-value.item(), abs=1e-14)


@BOTH
def test_the_value_of_equal_samples_is_zero_in_train_mode(family):
    """One forward, one function: power iteration between two passes would break this."""
    critic = FAMILIES[family]().train()
    x = torch.randn(50, 2)
    assert kr_value(critic, x, x).item() == pytest.approx(0, abs=1e-6)


def test_the_value_has_the_gradient_of_its_formula():
    critic = FAMILIES["A"]().double()
    x, y = torch.randn(4, 2, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
    kr_value(critic, x, y).backward()
    grads = [p.grad.clone() for p in critic.parameters()]
    critic.zero_grad()
    (critic(x).mean() - critic(y).mean()).backward()
    for found, parameter in zip(grads, critic.parameters()):
        assert torch.allclose(found, parameter.grad, atol=1e-14)


def test_images_are_samples_too():
    critic = ResNetCritic(12, width=8, depth=1)
    x, y = torch.randn(3, 3, 2, 2), torch.randn(5, 3, 2, 2)
    assert torch.allclose(kr_value(critic, x, y), kr_value(critic, x.flatten(1), y.flatten(1)))


@BOTH
def test_ascent_raises_the_value_on_a_shift_and_keeps_the_constant(family):
    critic = FAMILIES[family]()
    x, y = shifted()
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.01)
    constrain_steps(optimizer, critic)
    values = [ascend(critic, optimizer, x, y).item() for _ in range(60)]
    assert sum(values[-5:]) > sum(values[:5])
    assert kr_value(critic, x, y).item() > values[0] + 0.5
    assert certify(critic).lipschitz <= 1


def test_ascent_returns_the_value_before_the_step_detached():
    critic = FAMILIES["A"]()
    x, y = shifted()
    before = kr_value(critic, x, y).item()
    optimizer = torch.optim.SGD(critic.parameters(), lr=1e-4)
    for parameter in critic.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)  # left over from elsewhere, to be dropped
    value = ascend(critic, optimizer, x, y)
    assert value.item() == pytest.approx(before, abs=1e-6)
    assert not value.requires_grad
    assert kr_value(critic, x, y).item() == pytest.approx(before, abs=0.1)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fitting_leaves_the_original_and_raises_the_value_of_a_certified_copy(family, dtype):
    critic = FAMILIES[family]().to(dtype).requires_grad_(False).eval()
    before, state = weights_sha256(critic), copy.deepcopy(critic.state_dict())
    x, y = shifted(24, 20)
    start = kr_value(critic, x.to(dtype), y.to(dtype)).item()
    better = fitted(critic, x, y, steps=40, learning_rate=0.01)
    assert weights_sha256(critic) == before
    assert all(torch.equal(critic.state_dict()[k], v) for k, v in state.items())
    assert not any(p.requires_grad for p in critic.parameters())
    assert kr_value(better, x.to(dtype), y.to(dtype)).item() > start
    assert certify(better).lipschitz <= 1 + 1e-9


@BOTH
@pytest.mark.parametrize("learning_rate", [2e-3, 0.3])
def test_fitting_never_returns_a_worse_copy(family, learning_rate):
    x, y = shifted(24, 20)
    critic = fitted(FAMILIES[family](), x, y, steps=60, learning_rate=0.01)
    start = kr_value(critic, x, y).item()
    for steps in (1, 2, 5):
        copy_ = fitted(critic, x, y, steps=steps, learning_rate=learning_rate)
        assert kr_value(copy_, x, y).item() >= start - 1e-6
        assert certify(copy_).lipschitz <= 1


def test_no_steps_of_fitting_change_nothing():
    critic = FAMILIES["A"]()
    assert weights_sha256(fitted(critic, *shifted(), steps=0)) == weights_sha256(critic)
