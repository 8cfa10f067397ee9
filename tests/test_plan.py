"""The dry run: it says what a training would be, refuses what a training would, and writes nothing."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from conftest import TINY

from wgan_lip import critics
from wgan_lip.cli import dry_run, main
from wgan_lip.cli.dry_run import describe, estimate_memory, estimate_step_seconds
from wgan_lip.data import Digits
from wgan_lip.generators import MLPGenerator
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.training.settings import Training
from wgan_lip.wasserstein.dual import ascend

SOURCE = Digits()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def small(kind="ResNetCritic", **settings):
    torch.manual_seed(0)
    return getattr(critics, kind)(64, **settings), MLPGenerator(64, low=0.0, high=1.0, latent_dim=4, width=16)


def test_it_shows_settings_modules_constants_steps_and_memory_and_writes_nothing(capsys):
    assert main(["train", "--dry-run", *TINY, "seed=7"]) == 0
    screen = capsys.readouterr().out
    for expected in ("seed: 7", "  steps: 6", "_target_: wgan_lip.critics.ResNetCritic", "Lip ≤", "block_2", "GradientFlow(dim=128",
                     "of the generator, and 8 of the critic", "Training, about", "ms  per critic step", "in total", "free now on", "Nothing was written"):  # fmt: skip
        assert expected in screen
    assert max(map(len, screen.splitlines())) <= 120
    totals = [int(number.replace(",", "")) for number in re.findall(r"^  all +([\d,]+)", screen, re.MULTILINE)]
    critic = critics.ResNetCritic(64, depth=2)
    assert totals == [sum(p.numel() for p in MLPGenerator(64, latent_dim=16, width=8).parameters()),
                      sum(p.numel() for p in critic.parameters())]  # fmt: skip
    assert list(Path().iterdir()) == []


def test_it_counts_boosted_steps_within_the_budget(capsys):
    boosts = ["training.boost_first=2", "training.boost_every=3", "training.boost_steps=10"]
    assert main(["train", "--dry-run", *TINY, *boosts]) == 0
    assert "6  of the generator, and 44 of the critic" in capsys.readouterr().out  # 2 + 4 of 10, 2 of 1
    assert main(["train", "--dry-run", *TINY, *boosts, "training.max_images=50"]) == 0
    assert "4  of the generator, and 33 of the critic" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--dry-run", "training.steps=0"], "training.steps must be above zero, not 0"),
        (["train", "--dry-run", "critic.widht=3"], "train has no key critic.widht. Did you mean critic.width"),
        (["train", "training.audit_size=1", "--dry-run"], "training.audit_size must be at least 2, not 1"),
        (["train", "--dry-run", "--multirun", "seed=1,2"], "--dry-run shows a single run, not a sweep"),
        (["train", "seed=1,2", "-m", "--dry-run"], "--dry-run shows a single run, not a sweep"),
        (["train", "--dry-run", "hydra.mode=MULTIRUN", "seed=1,2"], "--dry-run shows a single run, not a sweep"),
        (["certify", "run=x", "--dry-run"], "--dry-run works only with wgan-lip train, not with certify"),
    ],
)  # fmt: skip
def test_it_refuses_in_one_line_what_cannot_be_trained_or_shown(arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == "" and captured.err.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_it_leaves_a_run_that_is_named_alone(tiny_run, capsys):
    before = {path.name: path.read_bytes() for path in tiny_run.iterdir()}
    assert main(["train", *TINY, "--dry-run", f"resume={tiny_run}", f"hydra.run.dir={tiny_run}"]) == 0
    assert "resume" not in capsys.readouterr().out
    assert before == {path.name: path.read_bytes() for path in tiny_run.iterdir()} and list(Path().iterdir()) == []


def test_a_critic_is_described_by_its_proof_as_training_keeps_it_and_stays_as_it_is():
    critic, generator = small(width=8, depth=2, readout="cones", centers=4)
    with torch.no_grad():
        critic.lift.weight.mul_(5) if hasattr(critic, "lift") else critic.block_1.weight.mul_(5)
    before = copy.deepcopy(critic.state_dict())
    rows = describe(critic, SOURCE.test[:2], certified=True)
    assert [row.path for row in rows] == [layer.path for layer in certify(critic).layers]
    assert max(row.lipschitz for row in rows) <= 1 < certify(critic).lipschitz
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in critic.parameters())
    assert [row.shape for row in rows][:2] == [(64,), (8,)] and rows[-1].shape == ()
    assert all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())
    assert not any(module._forward_hooks for module in critic.modules())
    assert [row.shape for row in describe(generator, torch.randn(2, 4), certified=False)][-1] == (64,)


def test_the_time_of_a_training_is_its_steps_times_their_seconds():
    rows = dry_run._times(Training(steps=10, critic_steps=2, warmup_steps=0, boost_first=0), 0.25, 0.5)
    assert "0:00:10" in rows[0] and "500.0 ms" in rows[1] and "250.0 ms" in rows[2]


def test_steps_are_timed_on_copies():
    critic, generator = small(width=32)
    before = [copy.deepcopy(player.state_dict()) for player in (critic, generator)]
    seconds = estimate_step_seconds(
        SOURCE, generator, critic,
        critic_optimizer=lambda module: torch.optim.Adam(module.parameters()),
        generator_optimizer=lambda module: torch.optim.SGD(module.parameters(), lr=1.0), batch_size=16,
    )  # fmt: skip
    assert all(0 < found < 60 for found in seconds)
    for player, state in zip((critic, generator), before):
        assert all(torch.equal(value, state[name]) for name, value in player.state_dict().items())


@pytest.mark.parametrize("kind", ["ResNetCritic", "SortingCritic", "PenalizedCritic"])
def test_the_memory_of_a_step_is_what_autograd_keeps_of_it(kind):
    critic, generator = small(kind, width=32)
    memory = estimate_memory(
        SOURCE, generator, critic,
        critic_optimizer=lambda module: torch.optim.Adam(module.parameters()),
        generator_optimizer=lambda module: torch.optim.SGD(module.parameters()), batch_size=256, audit_size=100,
    )  # fmt: skip
    weights = {
        name: 4 * sum(p.numel() for p in player.parameters()) for name, player in (("c", critic), ("g", generator))
    }
    assert memory["gradients"] == sum(weights.values())
    assert memory["weights of the generator, its average and the critic"] >= 2 * weights["g"] + weights["c"]
    assert 2 * weights["c"] <= memory["optimisers"] <= 2 * weights["c"] + 100 * len(list(critic.parameters()))
    assert memory["data"] >= 4 * SOURCE.train.numel() + 4 * SOURCE.test.numel()

    kept: dict[int, int] = {}  # every tensor is alive until the backward pass, so no address comes twice
    own = {p.untyped_storage().data_ptr() for p in critic.parameters()}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x, y = SOURCE.train[:256], torch.rand(256, 64)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ascend(critic, torch.optim.Adam(critic.parameters()), x, y)
    (activations,) = (count for purpose, count in memory.items() if purpose.startswith("activations"))
    assert 0.8 * sum(kept.values()) <= activations <= 1.6 * sum(kept.values())
