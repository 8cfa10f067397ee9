"""How many operations a training step hands to the device, which on a GPU is what a small critic's step costs."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from wgan_lip import certify, constrain_steps, parameter_groups
from wgan_lip.critics import FixedWidthCritic, ResNetCritic, SortingCritic
from wgan_lip.critics.baselines import SpectralNormCritic
from wgan_lip.lipschitz.bounds import Norm, upper_bound_norm
from wgan_lip.lipschitz.layers import GradientFlow, Linear, Retraction
from wgan_lip.lipschitz.layers.constraints import COPIED, SemiOrthogonal
from wgan_lip.training.refitting import refitted
from wgan_lip.wasserstein.dual import ascend, fitted

WAITS = {  # each asks the device for a number, and waits for it
    "aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten.equal", "aten.masked_select", "aten.unique2",
    "aten._assert_async", "aten.bincount", "aten.histc",
}  # fmt: skip


class Operations(TorchDispatchMode):
    """Counts what computes: no views, and no marks of the profiler."""

    def __init__(self):
        super().__init__()
        self.counted = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().partition(".")[0].replace("::", ".")
        if not (function.is_view or name in ("aten.detach", "aten._unsafe_view") or name.startswith("profiler.")):
            self.counted[name] += 1
        return function(*args, **(kwargs or {}))


def step_of(critic, dim):
    """The operations of an optimiser's step on `critic`, projection and retraction included; all of a critic step."""
    optimizer = torch.optim.Adam(parameter_groups(critic), fused=True)
    constrain_steps(optimizer, critic)
    x, y = torch.randn(2, 32, dim)
    for _ in range(2):
        ascend(critic, optimizer, x, y)
    with Operations() as step:
        optimizer.step()
    with Operations() as whole:
        ascend(critic, optimizer, x, y)
    return step.counted, whole.counted


def test_the_step_of_the_default_digits_critic_is_less_than_sixty_operations():
    step, whole = step_of(ResNetCritic(64), 64)
    assert step.total() <= 56, step
    assert whole.total() <= 178, whole


@pytest.mark.parametrize("kind", [ResNetCritic, FixedWidthCritic, SortingCritic])
def test_a_deeper_critic_takes_no_more_operations_to_step(kind):
    counts = []
    for depth in (3, 9):
        torch.manual_seed(0)
        step, _ = step_of(kind(8, depth=depth), 8)
        counts.append(step.total())
    assert counts[0] == counts[1] <= 145


@pytest.mark.parametrize(
    "critic", [ResNetCritic(6), FixedWidthCritic(6, depth=3), SortingCritic(6, width=16, depth=3)],
    ids=lambda critic: type(critic).__name__,
)  # fmt: skip
def test_no_step_waits_for_the_device(critic):
    _, whole = step_of(critic, 6)
    assert not WAITS & whole.keys()


def test_fits_of_copies_step_all_parameters_of_a_group_in_one_operation():
    critic = ResNetCritic(4, width=16, depth=2)
    x, y = torch.randn(2, 64, 4)
    for fit in (lambda: fitted(critic, x, y, steps=2), lambda: refitted(critic, x, y, steps=2)):
        with Operations() as counted:
            fit()
        assert counted.counted["aten._fused_adam_"] >= 2
        assert counted.counted["aten.addcdiv_"] == counted.counted["aten._foreach_addcdiv_"] == 0


# What is found once ------------------------------------------------------------------------------------------------


@pytest.fixture
def found(monkeypatch):
    """How often layers were asked for their constraints."""
    asked = []
    of_layer = GradientFlow.constraints

    def constraints(layer):
        asked.append(layer)
        return of_layer(layer)

    monkeypatch.setattr(GradientFlow, "constraints", constraints)
    return asked


def test_constraints_are_looked_for_once(found):
    critic = ResNetCritic(4, width=8, depth=2)
    optimizer = torch.optim.Adam(critic.parameters(), fused=True)
    constrain_steps(optimizer, critic)
    found.clear()
    for _ in range(3):
        ascend(critic, optimizer, *torch.randn(2, 16, 4))
    assert len(found) == 2  # one for each residual layer


CHANGES = {
    "a layer replaced": lambda chain: chain.__setitem__(1, GradientFlow(4, 2)),
    "a layer appended": lambda chain: chain.append(GradientFlow(4, 2)),
    "a layer inserted": lambda chain: chain.insert(0, GradientFlow(4, 2)),
    "a layer taken out": lambda chain: chain.__delitem__(1),
    "a parameter replaced": lambda chain: setattr(chain[1], "weight", nn.Parameter(torch.randn(3, 4))),
    "other data": lambda chain: setattr(chain[1].weight, "data", torch.randn(3, 4)),
    "another dtype": lambda chain: chain.double(),
    "loaded in place of": lambda chain: chain.load_state_dict(
        {name: value.clone() for name, value in chain.state_dict().items()}, assign=True
    ),
    "a layer deeper inside": lambda chain: setattr(chain[2][0], "more", GradientFlow(4, 4)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_found_anew(change, found):
    chain = nn.Sequential(GradientFlow(4, 2), GradientFlow(4, 3), nn.Sequential(GradientFlow(4, 2)))
    retraction = Retraction(chain)
    retraction()
    CHANGES[change](chain)
    found.clear()
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.mul_(50).add_(1)
    for layer in (module for module in chain.modules() if isinstance(module, GradientFlow)):
        layer.weight.grad = torch.ones_like(layer.weight)
    retraction.project()
    retraction()
    flows = [module for module in chain.modules() if isinstance(module, GradientFlow)]
    assert len(found) == len(flows)  # once more
    assert all(upper_bound_norm(flow.weight) <= 1 + 1e-12 and 0 <= flow.tau <= 2 for flow in flows)


def test_a_retraction_in_use_can_be_copied_with_its_module():
    retraction = Retraction(nn.Sequential(Linear(Norm((4,)), Norm((1, 3))), GradientFlow(4, 2)))
    retraction()
    other = copy.deepcopy(retraction)
    with torch.no_grad():
        for parameter in (*other.module.parameters(), *retraction.module.parameters()):
            parameter.mul_(9).add_(1)
    before = [parameter.detach().clone() for parameter in retraction.module.parameters()]
    other()
    assert all(torch.equal(old, new) for old, new in zip(before, retraction.module.parameters()))
    assert other.module[0].claim().lipschitz <= 1 and other.module[1].claim().lipschitz <= 1


def test_power_iteration_goes_on_with_the_weights_of_the_step():
    """Its u is made of weights as they are at each retraction, not as they were when constraints were found."""
    critic = SpectralNormCritic(4, width=8, depth=1)
    layer = next(module for module in critic.modules() if hasattr(module, "u"))
    retraction = Retraction(critic)
    retraction()
    with torch.no_grad():
        layer.weight.copy_(torch.linalg.qr(torch.randn(len(layer.weight), layer.weight.shape[1]))[0])
        layer.weight[0] = 100  # a new first singular direction
    for _ in range(50):
        retraction()
    first = torch.linalg.svd(layer.weight.detach()).U[:, 0]
    assert abs(float(first @ layer.u)) == pytest.approx(1, abs=1e-4)


# What is treated together ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tall_and_wide_weights_of_one_shape_are_treated_together_as_apart(dtype):
    shapes = ((4, 6), (6, 4), (4, 3, 1, 2), (6, 2, 2), (4, 6))
    parts = [(2 * torch.randn(shape)).to(dtype) for shape in shapes]
    gradients = [torch.randn(shape).to(dtype) for shape in shapes]
    apart, flat = copy.deepcopy(parts), copy.deepcopy(gradients)
    together = [SemiOrthogonal(part) for part in parts]
    assert len({constraint.kind for constraint in together}) == 1
    SemiOrthogonal.retract_together(together)
    SemiOrthogonal.project_together(together, gradients)
    close = {"rtol": 0, "atol": 8 * torch.finfo(dtype).eps}
    for part, gradient, alone, its in zip(parts, gradients, apart, flat):
        SemiOrthogonal(alone).retract()
        SemiOrthogonal(alone).project(its)
        assert torch.allclose(part, alone, **close) and torch.allclose(gradient, its, rtol=0, atol=4 * close["atol"])
        assert upper_bound_norm(part.flatten(1)) <= (1 if dtype != torch.float64 else 1 + 1e-13)


def test_weights_that_would_be_long_to_copy_are_treated_alone_on_a_cpu():
    one, other = (SemiOrthogonal(torch.randn(COPIED // 64 + 1, 64)) for _ in range(2))
    assert one.kind != other.kind
    for constraint in (one, other):
        constraint.retract()
        assert upper_bound_norm(constraint.part) <= 1


@pytest.mark.parametrize("rate", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("kind", [ResNetCritic, FixedWidthCritic, SortingCritic])
def test_the_constant_stays_at_one_after_steps_of_any_size(kind, rate):
    torch.manual_seed(0)
    critic = kind(5, depth=4)
    optimizer = torch.optim.Adam(critic.parameters(), lr=rate, fused=True)
    constrain_steps(optimizer, critic)
    for _ in range(4):
        ascend(critic, optimizer, torch.randn(16, 5), torch.randn(16, 5) + 1)
        assert certify(critic).lipschitz <= 1
