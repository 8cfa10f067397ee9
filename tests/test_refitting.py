"""Whether the critic keeps up: its value on held-out samples beside that of a refitted copy."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from wgan_lip.critics import ResNetCritic
from wgan_lip.data import Moons
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.training import Training, train_wgan
from wgan_lip.training.refitting import held_out_value, keeps_up, refitted


def normal(n: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)) + torch.tensor([shift, 0.0])


class First(nn.Module):
    """The first coordinate: the potential of a translation along it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, samples):
        return self.weight * samples[:, 0]


def test_the_value_of_the_potential_of_a_translation_is_its_length_within_its_error():
    value, error = held_out_value(First(), normal(4000, 1, 3.0), normal(2000, 2))
    assert error == pytest.approx(math.sqrt(1 / 4000 + 1 / 2000), rel=0.05) and abs(value - 3) < 4 * error


def test_errors_are_the_scatter_of_values():
    found = [held_out_value(First(), normal(50, 2 * k), normal(50, 2 * k + 1)) for k in range(300)]
    scatter = float(torch.tensor([value for value, _ in found]).std())
    assert scatter == pytest.approx(sum(error for _, error in found) / 300, rel=0.15)


def test_a_copy_finds_what_an_idle_critic_missed_and_the_critic_stays_as_it_is():
    critic = ResNetCritic(2, width=16, depth=3)
    with torch.no_grad():
        critic(normal(2, 0))
    before = {name: weight.clone() for name, weight in critic.state_dict().items()}
    held = normal(2000, 1, 3.0), normal(2000, 2)
    found = keeps_up(critic, (normal(2000, 3, 3.0), normal(2000, 4)), held, steps=150, learning_rate=0.2)
    assert found.refitted > 2.5 and found.refitted < 3 + 4 * found.refitted_error and found.n == 2000
    assert found.trained < 0.8 * found.refitted
    assert all(torch.equal(weight, before[name]) for name, weight in critic.state_dict().items())
    copy = refitted(critic, normal(200, 3, 3.0), normal(200, 4), steps=20)
    assert certify(copy).lipschitz <= 1 and not any(weight.requires_grad for weight in copy.parameters())


def test_of_equal_laws_no_copy_is_clearly_above_zero():
    critic = ResNetCritic(2, width=16, depth=3)
    found = keeps_up(critic, (normal(4000, 3), normal(4000, 4)), (normal(2000, 1), normal(2000, 2)), steps=60)
    assert abs(found.refitted) < 4 * found.refitted_error


class Line(nn.Module):
    latent_dim = 2

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, latents):
        return self.layer(latents)


@pytest.mark.parametrize(("refits", "expected"), [(0, set()), (1, {8}), (2, {4, 8}), (9, {2, 4, 6, 8})])
def test_copies_are_refitted_at_few_audits_evenly_spread_and_move_nothing(refits, expected):
    def played(count: int) -> dict[int, dict]:
        torch.manual_seed(0)
        generator, critic = Line(), ResNetCritic(2, width=8, depth=2)
        records = train_wgan(
            Moons(test_size=40), generator, critic,
            Training(steps=8, batch_size=16, warmup_steps=2, audit_every=2, log_every=2, audit_size=30,
                     audit_refits=count),
            critic_optimizer=torch.optim.Adam(critic.parameters(), lr=1e-2),
            generator_optimizer=torch.optim.Adam(generator.parameters(), lr=1e-3),
        )  # fmt: skip
        return {record.step: dict(record.scalars) for record in records}

    scalars = played(refits)
    assert {step for step, record in scalars.items() if "critic/refitted" in record} == expected
    assert all(
        {"critic/held_out", "critic/held_out_error", "eval/excess", "eval/excess_real"} <= set(r)
        for r in scalars.values()
    )
    without = played(0)
    for step, record in without.items():
        same = {tag: value for tag, value in record.items() if not tag.startswith("perf/")}
        assert same == {tag: scalars[step][tag] for tag in same}
