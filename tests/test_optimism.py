"""OptimisticAdam: Adam's step twice, less the one before."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import TINY
from torch import nn

from wgan_lip.cli import main
from wgan_lip.lipschitz.optimizers import OptimisticAdam


def gradients(module: nn.Module, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=rng)


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_is_twice_adams_less_the_one_before(fused):
    torch.manual_seed(0)
    player = nn.Linear(3, 2)
    adam_moves = copy.deepcopy(player)  # by Adam from the same gradients, wherever it is
    optimizer = OptimisticAdam(player.parameters(), 0.1, betas=(0.5, 0.9), fused=fused)
    reference = torch.optim.Adam(adam_moves.parameters(), 0.1, betas=(0.5, 0.9))
    last = None
    for seed in range(5):
        starts = [[p.detach().clone() for p in of.parameters()] for of in (player, adam_moves)]
        gradients(player, seed)
        gradients(adam_moves, seed)
        optimizer.step()
        reference.step()
        deltas = [p.detach() - start for p, start in zip(adam_moves.parameters(), starts[1])]
        for index, (parameter, start) in enumerate(zip(player.parameters(), starts[0])):
            due = start + deltas[index] if last is None else start + 2 * deltas[index] - last[index]
            assert torch.allclose(parameter.detach(), due, atol=1e-6)
        last = deltas


def test_it_settles_where_adam_circles():
    def distance(kind: type[torch.optim.Optimizer]) -> float:
        x, y = (nn.Parameter(torch.tensor(1.0)) for _ in range(2))
        players = [kind([player], lr=0.03, betas=(0.0, 0.999)) for player in (x, y)]
        for _ in range(1500):
            x.grad, y.grad = y.detach().clone(), -x.detach().clone()  # min over x, max over y of x·y
            for player in players:
                player.step()
        return float(torch.hypot(x, y).detach())

    assert distance(OptimisticAdam) < 0.1 < 1.5 < distance(torch.optim.Adam)


def test_it_goes_on_bit_by_bit():
    def played(steps: range, state: list[dict] | None = None) -> tuple[nn.Module, list[dict]]:
        torch.manual_seed(0)
        player = nn.Linear(3, 2)
        optimizer = OptimisticAdam(player.parameters(), 0.1)
        if state is not None:
            for part, saved in zip((player, optimizer), copy.deepcopy(state)):
                part.load_state_dict(saved)
        for seed in steps:
            gradients(player, seed)
            optimizer.step()
        return player, [player.state_dict(), optimizer.state_dict()]

    whole, _ = played(range(6))
    _, half = played(range(3))
    resumed, _ = played(range(3, 6), half)
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), resumed.parameters()))


def test_parameters_without_a_gradient_stay_and_a_closure_is_called():
    moved, still = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = OptimisticAdam([moved, still], 0.1)
    moved.grad = torch.ones(2)
    assert optimizer.step(lambda: torch.tensor(3.0)) == 3.0
    assert torch.allclose(moved, torch.tensor(0.9), atol=1e-4) and torch.equal(still, torch.ones(2))
    assert set(optimizer.state) == {moved}


@pytest.mark.parametrize("player", ["generator", "critic"])
def test_either_player_may_be_optimistic(player, tmp_path):
    arguments = [*TINY, f"optimizer@{player}_optimizer=optimistic", f"hydra.run.dir={tmp_path / 'run'}"]
    assert main(["train", *arguments]) == 0
