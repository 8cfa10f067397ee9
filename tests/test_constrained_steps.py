"""Projected gradients: what each constraint takes out, where it finds its part, and when a step does it."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wgan_lip import certify, constrain_steps
from wgan_lip.critics import ConvolutionalCritic, FixedWidthCritic, ResNetCritic, SortingCritic
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers import Conv2d, GradientFlow, Linear, LipschitzLayer, Retraction, Squeeze
from wgan_lip.lipschitz.layers.constraints import BoundedConvolution, Box, SemiOrthogonal, UnitRows, Zero
from wgan_lip.training.moves import settler
from wgan_lip.training.ranks import Ranks
from wgan_lip.wasserstein.dual import ascend, kr_value


def parameter(*shape, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(*shape, generator=rng, dtype=torch.float64).to(dtype))


CONSTRAINTS = {
    "wide": lambda: SemiOrthogonal(parameter(3, 5)),
    "tall": lambda: SemiOrthogonal(parameter(5, 3)),
    "square": lambda: SemiOrthogonal(parameter(4, 4)),
    "patches": lambda: SemiOrthogonal(parameter(3, 2, 2, 2)),
    "columns of a matrix": lambda: SemiOrthogonal(parameter(4, 7)[:, 2:6]),
    "unit rows": lambda: UnitRows(parameter(3, 5), Norm.euclidean(5)),
    "rows of absolute sum 1": lambda: UnitRows(parameter(3, 5), Norm((1,) * 5)),
    "rows over blocks": lambda: UnitRows(parameter(2, 6), Norm((1, 2, 3))),
    "convolution": lambda: BoundedConvolution(parameter(3, 2, 3, 3), (1, 1), (1, 1), 1),
    "grouped, strided convolution": lambda: BoundedConvolution(parameter(4, 2, 3, 3), (2, 2), (1, 1), 2),
    "zero": lambda: Zero(parameter(2, 3)),
    "box": lambda: Box(parameter(6), -1e6, 1e6),
}


def settled(name):
    """The constraint with its part in the set, where many retractions lead."""
    constraint = CONSTRAINTS[name]()
    with torch.no_grad():
        for _ in range(200):
            constraint.retract()
    return constraint


@pytest.mark.parametrize("name", CONSTRAINTS)
@torch.no_grad()
def test_projection_is_the_gradient_of_what_a_step_and_its_retraction_do(name):
    """By central differences of v ↦ ⟨G, R(v)⟩ at weights of the set, with R the retraction itself."""
    constraint = settled(name)
    part, start = constraint.part, constraint.part.clone()
    direction = torch.randn(start.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    projected = direction.clone()
    constraint.project(projected)
    step, expected = 1e-6, torch.zeros_like(start)
    for index in range(start.numel()):
        moved = torch.zeros(start.numel(), dtype=torch.float64)
        moved[index] = step
        values = []
        for sign in (1, -1):
            part.copy_(start + sign * moved.view(start.shape))
            constraint.retract()
            values.append((direction * part).sum())
        expected.view(-1)[index] = (values[0] - values[1]) / (2 * step)
    assert torch.allclose(projected, expected, atol=2e-7, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), seed=st.integers(0, 99))
def test_projected_gradients_of_orthogonal_weights_are_tangent(rows, columns, seed):
    weight = nn.init.orthogonal_(parameter(rows, columns, seed=seed))
    constraint = SemiOrthogonal(weight.detach())
    gradient = parameter(rows, columns, seed=seed + 100).detach()
    projected = gradient.clone()
    constraint.project(projected)
    mixed = projected @ weight.T if rows <= columns else projected.T @ weight
    assert torch.allclose(mixed, -mixed.T, atol=1e-12)  # so WWᵀ, or WᵀW, stays the identity to first order
    assert projected.norm() <= gradient.norm() * (1 + 1e-12)
    again = projected.clone()
    constraint.project(again)
    assert torch.allclose(again, projected, atol=1e-12)
    other = parameter(rows, columns, seed=seed + 200).detach()
    along = other.clone()
    constraint.project(along)
    assert torch.allclose((along * gradient).sum(), (other * projected).sum(), atol=1e-12)  # orthogonal: self-adjoint


def test_weights_of_one_shape_are_projected_together_as_one_by_one():
    parts = [nn.init.orthogonal_(parameter(4, 6, seed=seed)).detach() for seed in range(3)]
    gradients = [parameter(4, 6, seed=9 + seed).detach() for seed in range(3)]
    together = [gradient.clone() for gradient in gradients]
    constraints = [SemiOrthogonal(part) for part in parts]
    SemiOrthogonal.project_together(constraints, together)
    for constraint, gradient, expected in zip(constraints, gradients, together):
        constraint.project(gradient)
        assert torch.equal(gradient, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_projected_in_single(dtype):
    weight = nn.init.orthogonal_(parameter(8, 16)).detach()
    gradient = 100 * parameter(8, 16, seed=1).detach()
    low = gradient.to(dtype)
    SemiOrthogonal(weight.to(dtype)).project(low)
    SemiOrthogonal(weight.to(dtype).double()).project(gradient)
    assert torch.allclose(low.double(), gradient, atol=3e-2 * float(gradient.abs().max()))


# Where the gradient of a part lies ---------------------------------------------------------------------------------


class Blocks(LipschitzLayer):
    """Constrains overlapping kinds of parts of one parameter, in one order of its axes."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, x):
        return x @ self.weight.T

    def claim(self):
        raise NotImplementedError

    def constraints(self):
        yield UnitRows(self.weight[:1], Norm.euclidean(self.weight.shape[1]))
        rows = self.weight[1:]
        yield SemiOrthogonal(rows[:, 2:])
        yield Zero(rows[:, :2])


def by_hand(weight, gradient):
    gradient = gradient.clone()
    row, rest = weight[:1], weight[1:, 2:]
    gradient[:1] -= (gradient[:1] * row).sum() * row
    part = gradient[1:, 2:]
    part -= 0.5 * (part @ rest.T + rest @ part.T) @ rest
    gradient[1:, :2] = 0
    return gradient


LAYOUTS = {
    "equal": lambda gradient: gradient.clone(),
    "turned": lambda gradient: gradient.T.contiguous().T,
    "a slice of more": lambda gradient: torch.cat((gradient, gradient), dim=1)[:, : gradient.shape[1]],
    "at an offset": lambda gradient: torch.cat((gradient, gradient))[len(gradient) :],
    "spread over every other": lambda gradient: gradient.repeat_interleave(2, dim=1)[:, ::2],
}


@pytest.mark.parametrize("of_weight", LAYOUTS)
@pytest.mark.parametrize("of_gradient", LAYOUTS)
def test_the_part_of_a_gradient_is_found_whatever_the_strides(of_weight, of_gradient):
    with torch.no_grad():
        weight = torch.zeros(4, 7, dtype=torch.float64)
        weight[0] = nn.functional.normalize(parameter(7).detach(), dim=0)
        weight[1:, 2:] = nn.init.orthogonal_(torch.empty(3, 5, dtype=torch.float64))
    gradient = parameter(4, 7, seed=1).detach()
    layer = Blocks(nn.Parameter(LAYOUTS[of_weight](weight)))
    layer.weight.grad = LAYOUTS[of_gradient](gradient)
    Retraction(layer).project()
    assert torch.allclose(layer.weight.grad, by_hand(weight, gradient), atol=1e-12)


def test_an_expanded_gradient_can_be_projected():
    layer = GradientFlow(4, 2)
    layer.weight.grad = torch.ones(1, 1).expand(2, 4)
    expected = torch.ones(2, 4)
    SemiOrthogonal(layer.weight.detach()).project(expected)
    Retraction(layer).project()
    assert torch.allclose(layer.weight.grad, expected)


def test_a_convolution_in_another_memory_format_is_projected_alike():
    torch.manual_seed(0)
    plain = Conv2d(3, 4, 2, stride=2)
    turned = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 6, 6)
    for layer in (plain, turned):
        layer(x).square().sum().backward()
        Retraction(layer).project()
    assert turned.weight.stride() != plain.weight.stride()
    assert torch.allclose(plain.weight.grad, turned.weight.grad, atol=1e-5)


def test_what_has_no_gradient_and_what_no_constraint_holds_stay():
    critic = ResNetCritic(3, width=8, depth=2)
    critic.block_1.weight.requires_grad_(False)
    critic(torch.randn(5, 3)).sum().backward()
    before = {name: p.grad.clone() for name, p in critic.named_parameters() if p.grad is not None}
    Retraction(critic).project()
    assert critic.block_1.weight.grad is None
    for name, old in before.items():
        same = torch.equal(old, critic.get_parameter(name).grad)
        assert same == (name.endswith(("bias", "tau")))


# Steps -------------------------------------------------------------------------------------------------------------

CRITICS = {
    "residual": lambda: ResNetCritic(6, width=16, depth=3),
    "sorting": lambda: SortingCritic(6, width=16, depth=3),
    "maximum norm": lambda: ResNetCritic(6, width=16, depth=3, norm="max"),
    "fixed width": lambda: FixedWidthCritic(6, depth=3),
    "convolutional": lambda: ConvolutionalCritic((1, 8, 8), width=16, depth=1),
}


def samples(critic, n=40):
    rng = torch.Generator().manual_seed(3)
    return torch.randn(n, critic.dim, generator=rng), torch.randn(n, critic.dim, generator=rng) + 0.5


@pytest.mark.parametrize("name", CRITICS)
def test_the_moments_of_an_optimiser_hold_nothing_that_retraction_undoes(name):
    torch.manual_seed(0)
    critic = CRITICS[name]()
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.9, 0.99))
    constrain_steps(optimizer, critic)
    other = copy.deepcopy(critic)
    (-kr_value(other, *samples(critic))).backward()
    Retraction(other).project()
    ascend(critic, optimizer, *samples(critic))
    for mine, theirs in zip(critic.parameters(), other.parameters()):
        assert torch.allclose(optimizer.state[mine]["exp_avg"], 0.1 * theirs.grad, atol=1e-7)


def test_a_step_projects_once_whoever_asks_how_often():
    layer = GradientFlow(4, 2).double()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    calls = []
    for _ in range(3):
        constrain_steps(optimizer, layer)
    optimizer.register_step_pre_hook(lambda *_: calls.append(len(optimizer._optimizer_step_pre_hooks)))
    layer(torch.ones(3, 4, dtype=torch.float64)).sum().backward()
    optimizer.step()
    assert calls == [2]


def test_gathered_gradients_are_projected_as_the_whole():
    torch.manual_seed(0)
    whole = ResNetCritic(6, width=16, depth=2).double()
    parts = copy.deepcopy(whole)
    x, y = (z.double() for z in samples(whole))
    for critic, count in ((whole, 1), (parts, 4)):
        optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
        constrain_steps(optimizer, critic)
        for _ in range(3):
            ascend(critic, optimizer, x, y, parts=count)
    for one, other in zip(whole.parameters(), parts.parameters()):
        assert torch.allclose(one, other, atol=1e-9)


def test_what_is_clipped_is_the_projected_gradient():
    """A normal part a thousand times as long would leave a clipped step a thousandth of its length."""
    layer = nn.Sequential(Linear(Norm.euclidean(4), Norm((1,))), Squeeze()).double()
    with torch.no_grad():
        layer[0].weight.copy_(torch.tensor([[1.0, 0, 0, 0]]))
    layer[0].weight.grad = torch.tensor([[1000.0, 1, 0, 0]], dtype=torch.float64)
    layer[0].bias.grad = torch.zeros(1, dtype=torch.float64)
    settler(0.5, Ranks())(layer)
    assert torch.allclose(layer[0].weight.grad, torch.tensor([[0.0, 0.5, 0, 0]], dtype=torch.float64), atol=1e-6)


def test_lbfgs_finds_the_best_linear_function():
    """W1 dual over unit vectors: the maximum is the distance of the means. Its gradient at the maximum is all normal."""
    torch.manual_seed(0)
    critic = nn.Sequential(Linear(Norm.euclidean(5), Norm((1,))), Squeeze()).double()
    x, y = torch.randn(2, 30, 5, dtype=torch.float64)
    optimizer = torch.optim.LBFGS(critic.parameters(), lr=0.5, max_iter=10, line_search_fn="strong_wolfe")
    constrain_steps(optimizer, critic)

    def closure():
        optimizer.zero_grad()
        loss = -kr_value(critic, x, y)
        loss.backward()
        return loss

    for _ in range(20):
        optimizer.step(closure)
        assert certify(critic).lipschitz <= 1
    best = (x.mean(dim=0) - y.mean(dim=0)).norm()
    assert kr_value(critic, x, y).item() == pytest.approx(best.item(), rel=1e-6)


@pytest.mark.parametrize("by_name", [False, True])
def test_a_closure_is_evaluated_at_retracted_weights_and_its_gradient_projected(by_name):
    layer = GradientFlow(4, 2).double()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    constrain_steps(optimizer, layer)
    with torch.no_grad():
        layer.weight.mul_(3)
    norms, tau = [], layer.tau

    def closure():
        optimizer.zero_grad()
        norms.append(torch.linalg.matrix_norm(layer.weight, 2).item())
        loss = 7 * layer(torch.ones(3, 4, dtype=torch.float64)).sum()
        loss.backward()
        return loss

    before = layer.weight
    loss = optimizer.step(closure=closure) if by_name else optimizer.step(closure)
    assert math.isfinite(loss.item()) and before is layer.weight and tau is layer.tau
    assert norms[0] <= 1
    mixed = layer.weight.grad @ layer.weight.detach().T
    assert certify(nn.Sequential(layer)).lipschitz <= 1 and mixed.isfinite().all()


@pytest.mark.parametrize("kind", [ResNetCritic, SortingCritic])
def test_projection_finds_more_of_a_shift_across_noise(kind):
    """The same steps with and without: Adam's moments are for what moves. Truth: the critic is 1-Lipschitz."""
    values = []
    for projecting in (True, False):
        torch.manual_seed(0)
        critic = kind(32, width=32, depth=3)
        optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2, betas=(0.9, 0.99))
        if projecting:
            constrain_steps(optimizer, critic)
        else:
            retraction = Retraction(critic)
            optimizer.register_step_post_hook(lambda *_, retraction=retraction: retraction())
        rng = torch.Generator().manual_seed(0)
        x = torch.randn(2000, 32, generator=rng) * torch.linspace(0.1, 1.5, 32)
        y = torch.randn(2000, 32, generator=rng) * torch.linspace(1.5, 0.1, 32)
        for step in range(150):
            rows = slice(256 * (step % 7), 256 * (step % 7 + 1))
            ascend(critic, optimizer, x[rows], y[rows])
        assert certify(critic).lipschitz <= 1
        values.append(kr_value(critic, x, y).item())
    assert values[0] > 1.02 * values[1]
