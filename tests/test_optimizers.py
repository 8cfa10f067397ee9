"""Rates by shape and unit, and Muon: one object that steps as torch's own Muon and Adam do."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from conftest import TINY
from torch import nn

from wgan_lip import InputError, certify, constrain_steps, load_run, parameter_groups
from wgan_lip.cli import main
from wgan_lip.critics import (
    ClippedCritic,
    ConvolutionalCritic,
    FixedWidthCritic,
    GroupSortCritic,
    PenalizedCritic,
    ResNetCritic,
    SortingCritic,
    SpectralNormCritic,
)
from wgan_lip.lipschitz.layers import Conv2d, Flatten, GradientFlow, LipschitzExtension, Squeeze
from wgan_lip.lipschitz.optimizers import Muon, rescale_lengths
from wgan_lip.training.moves import scheduler
from wgan_lip.wasserstein.dual import ascend


def rates(module, **settings):
    """By a parameter's name, over c."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = parameter_groups(module, lr=1.0, **settings)
    return {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}


CRITICS = {
    "residual": lambda: ResNetCritic(6, width=16, depth=2),
    "spline": lambda: ResNetCritic(6, width=16, depth=2, activation="spline"),
    "maximum norm": lambda: ResNetCritic(6, width=16, depth=2, norm="max"),
    "cones": lambda: ResNetCritic(6, depth=2, readout="cones", centers=9),
    "fixed width": lambda: FixedWidthCritic(6, depth=2),
    "sorting": lambda: SortingCritic(6, width=16, depth=2),
    "convolutional": lambda: ConvolutionalCritic((1, 8, 8), width=16, depth=1),
    "clipped": lambda: ClippedCritic(6, width=16),
    "penalized": lambda: PenalizedCritic(6, width=16),
    "spectral norm": lambda: SpectralNormCritic(6, width=16),
    "groupsort": lambda: GroupSortCritic(6, width=16),
}
OURS = ("residual", "spline", "maximum norm", "cones", "fixed width", "sorting", "convolutional")


@pytest.mark.parametrize("name", CRITICS)
def test_every_parameter_is_in_one_group(name):
    critic = CRITICS[name]()
    grouped = [parameter for group in parameter_groups(critic) for parameter in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, critic.parameters()))
    torch.optim.Adam(parameter_groups(critic))  # which refuses one that is there twice


@pytest.mark.parametrize("name", OURS)
def test_rates_of_certified_critics(name):
    critic = CRITICS[name]()
    found = rates(critic, spread=3.0)
    for parameter, rate in found.items():
        tensor = critic.get_parameter(parameter)
        if parameter.endswith("weight"):
            m, n = len(tensor), tensor[0].numel()
            assert rate == pytest.approx(1 / math.sqrt(max(m, n)))
        elif parameter.endswith("bias"):
            assert rate == pytest.approx(3 / 40)
        else:
            assert parameter.endswith(("tau", "slope", "centers", "offsets", "coldness")) and rate == 1 / 40


@pytest.mark.parametrize("name", [name for name in CRITICS if name not in OURS])
def test_plain_weights_of_other_methods_have_their_usual_rate(name):
    assert set(rates(CRITICS[name](), spread=3.0).values()) == {1 / 100}


def test_rates_of_a_module_of_ones_own():
    kernel = Conv2d(2, 4, 3)
    cones = LipschitzExtension(16, 5)
    module = nn.Sequential(kernel, Flatten(16), nn.Linear(16, 16), cones, Squeeze())
    found = rates(module, spread=2.0)
    assert found["0.weight"] == pytest.approx(1 / math.sqrt(18)) and found["0.bias"] == 2 / 40
    assert found["2.weight"] == found["2.bias"] == 1 / 100
    assert found["3.centers"] == found["3.offsets"] == 2 / 40


def test_frozen_parameters_are_left_out_and_shared_ones_come_once():
    layer = GradientFlow(4, 2)
    module = nn.Sequential(layer, layer, GradientFlow(4, 3).requires_grad_(False))
    assert set(rates(module)) == {"0.weight", "0.bias", "0.tau"}
    with pytest.raises(InputError, match="parameters to train"):
        parameter_groups(module.requires_grad_(False))


@pytest.mark.parametrize("lr", [-1.0, math.nan, math.inf])
def test_rates_that_make_no_sense_are_refused(lr):
    with pytest.raises(InputError, match="lr must be finite and at least 0"):
        parameter_groups(GradientFlow(4, 2), lr)


def test_a_critic_takes_the_spread_from_where_it_starts():
    """Distances of (±3, ±4) from 0 are 5; a far outlier does not change their median."""
    critic = ResNetCritic(2, width=8, depth=1)
    x = torch.tensor([[3.0, 4], [-3, 4], [3, -4], [-3, -4], [1e6, 0]])
    assert rates(critic)["block_1.bias"] == pytest.approx(1 / 40)
    critic.start_at(x, x)
    assert rates(critic)["block_1.bias"] == pytest.approx(5 / 40, rel=0.5)
    symmetric = x[:4]
    critic.start_at(symmetric, symmetric + 0.0)
    same = copy.deepcopy(critic)
    assert rates(same)["block_1.bias"] == rates(critic)["block_1.bias"]
    critic.start_at(symmetric * 0, symmetric * 0)
    assert rates(critic)["block_1.bias"] == pytest.approx(1 / 40)


def test_rates_of_lengths_follow_the_spread_and_schedules_go_on():
    critic = ResNetCritic(2, width=8, depth=1)
    optimizer = torch.optim.Adam(parameter_groups(critic, 0.1))
    schedule = scheduler(optimizer, "linear", 10)
    before = [group["lr"] for group in optimizer.param_groups]
    rescale_lengths(optimizer, 4.0)
    rescale_lengths(optimizer, 4.0)
    after = [group["lr"] for group in optimizer.param_groups]
    ratios = [b / a for a, b in zip(before, after)]
    assert sorted(set(ratios)) == pytest.approx([1.0, 4.0])
    schedule.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.9 * rate for rate in after])


# Muon --------------------------------------------------------------------------------------------------------------


def gradients(critic, seed):
    rng = torch.Generator().manual_seed(seed)
    for parameter in critic.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=rng)


def test_muon_steps_as_torchs_muon_and_adam_do():
    torch.manual_seed(0)
    critic = ResNetCritic(6, width=16, depth=2)
    other = copy.deepcopy(critic)
    optimizer = Muon(parameter_groups(critic, 0.05), momentum=0.9, betas=(0.8, 0.95))
    matrices = [other.lift.weight, other.block_1.weight, other.block_2.weight]  # (16, 6), (8, 16), (8, 16)
    numbers = [p for name, p in other.named_parameters() if not name.endswith("weight")]
    alone = [{"params": [m], "lr": 0.05 / math.sqrt(max(1, m.shape[0] / m.shape[1]))} for m in matrices]
    reference = [
        torch.optim.Muon(alone, weight_decay=0.0, momentum=0.9),  # which makes tall ones √(m/n) as fast
        torch.optim.Adam(numbers, lr=0.05 / 40, betas=(0.8, 0.95)),
        torch.optim.Adam([other.readout.weight], lr=0.05 / 4, betas=(0.8, 0.95)),
    ]
    for seed in range(4):
        gradients(critic, seed)
        gradients(other, seed)
        optimizer.step()
        for one in reference:
            one.step()
        for mine, theirs in zip(critic.parameters(), other.parameters()):
            assert torch.allclose(mine, theirs, atol=1e-6)


def test_a_step_of_muon_has_the_norm_that_it_is_told():
    torch.manual_seed(0)
    critic = ResNetCritic(6, width=32, depth=1)
    optimizer = Muon(parameter_groups(critic, 0.05))
    for scale in (1e-6, 1.0, 1e6):
        gradients(critic, 0)
        for parameter in critic.parameters():
            parameter.grad *= scale
        before = critic.block_1.weight.detach().clone()
        optimizer.step()
        singular = torch.linalg.svdvals(critic.block_1.weight.detach() - before)
        assert (singular > 0.05 * 0.5).all() and (singular < 0.05 * 1.5).all()


@pytest.mark.parametrize("name", ["residual", "sorting", "convolutional", "fixed width"])
def test_muon_keeps_the_constant_and_goes_on_bit_by_bit(name):
    def played(steps, state=None):
        torch.manual_seed(0)
        critic = CRITICS[name]()
        optimizer = Muon(parameter_groups(critic, 0.1))
        constrain_steps(optimizer, critic)
        schedule = scheduler(optimizer, "linear", 8)
        if state is not None:
            for part, saved in zip((critic, optimizer, schedule), state):
                part.load_state_dict(copy.deepcopy(saved))
        rng = torch.Generator().manual_seed(0)
        x, y = torch.randn(2, 20, critic.dim, generator=rng)
        for _ in range(steps):
            ascend(critic, optimizer, x, y + 1)
            schedule.step()
            assert certify(critic).lipschitz <= 1
        return critic, [part.state_dict() for part in (critic, optimizer, schedule)]

    whole, _ = played(6)
    _, half = played(3)
    resumed, _ = played(3, half)
    for one, other in zip(whole.parameters(), resumed.parameters()):
        assert torch.equal(one, other)


def test_muon_is_one_object_to_those_that_hold_it():
    critic = ResNetCritic(6, width=16, depth=1)
    optimizer = Muon(parameter_groups(critic))
    gradients(critic, 0)
    loss = optimizer.step(lambda: torch.tensor(3.0))
    assert loss == 3.0
    assert set(optimizer.state) == set(critic.parameters())
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in critic.parameters())
    more = nn.Parameter(torch.ones(2))
    optimizer.add_param_group({"params": [more], "lr": 0.5})
    more.grad = torch.ones(2)
    optimizer.step()
    assert torch.allclose(more, torch.tensor(0.5))


def test_muon_is_refused_where_nothing_is_semi_orthogonal():
    for module in (nn.Linear(3, 3), ResNetCritic(3, depth=0, readout="cones", centers=4)):
        with pytest.raises(InputError, match=r"there are none. Use Adam"):
            Muon(parameter_groups(module))


def test_muon_and_rates_from_the_command_line(tmp_path):
    assert main(["train", *TINY, "optimizer@critic_optimizer=muon", f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    finished = load_run(tmp_path / "run")
    groups = finished.checkpoint["game"]["critic_optimizer"]["param_groups"]
    assert any(group.get("semi_orthogonal") for group in groups)
    assert certify(finished.critic).lipschitz <= 1
