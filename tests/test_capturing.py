"""Steps that are captured: here by a recorder of torch's operations, which replays them without a line of Python."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from wgan_lip import certify, parameter_groups
from wgan_lip.critics import FixedWidthCritic, ResNetCritic, SortingCritic
from wgan_lip.critics.baselines import PenalizedCritic, SpectralNormCritic
from wgan_lip.data import Moons
from wgan_lip.generators import MLPGenerator
from wgan_lip.lipschitz.optimizers import Muon
from wgan_lip.training import Training, capturing, train_wgan
from wgan_lip.training.capturing import CapturedStep, obstacle


class Recorder(TorchDispatchMode):
    """Keeps every operation with the tensors that it took and made; all of them stay where they are."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        # As seen now: views in place change what a tensor looks like afterwards.
        as_seen = tree_map_only(torch.Tensor, torch.ops.aten.alias.default, (args, kwargs or {}))
        made = function(*args, **(kwargs or {}))
        name = function.name()
        assert "local_scalar_dense" not in name and "nonzero" not in name, f"{name} waits for the device"
        if not name.startswith("profiler") and torch.Tag.inplace_view not in function.tags:
            taken = {tensor.data_ptr() for tensor in tree_leaves(as_seen) if isinstance(tensor, torch.Tensor)}
            new = [torch.ops.aten.alias(one) if isinstance(one, torch.Tensor) and one.data_ptr() not in taken else None
                   for one in tree_leaves(made)]  # fmt: skip
            self.operations.append((function, *as_seen, new))
        return made

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, new in self.operations:
            again = tree_leaves(function(*args, **kwargs))
            for place, result in zip(new, again):
                if place is not None:
                    place.copy_(result)


class Recorded:
    """Captures on a CPU, as CUDA graphs do on a GPU: fixed operations on fixed addresses, which alone are replayed."""

    def __init__(self):
        self.captures = 0

    def __call__(self, step):
        self.captures += 1
        recorder = Recorder()
        with recorder:
            result = step()
        fresh = [True]  # recording took a step already; a capture on a GPU takes none

        def replay():
            if not fresh.pop() if fresh else True:
                recorder.replay()
            return result

        return replay


@pytest.fixture
def recorded(monkeypatch):
    recorded = Recorded()
    monkeypatch.setitem(capturing.CAPTURES, "cpu", recorded)
    return recorded


CRITICS = {
    "residual": lambda: ResNetCritic(2, width=16, depth=3),
    "fixed width": lambda: FixedWidthCritic(2, depth=2),
    "sorting": lambda: SortingCritic(2, width=16, depth=2),
    "cones": lambda: ResNetCritic(2, width=8, depth=1, readout="cones", centers=16),
    "spectral": lambda: SpectralNormCritic(2, width=8, depth=1),
}


def played(critic="residual", *, state=None, optimizer=torch.optim.Adam, generator=None, **settings):
    """All records of a small training, each with the state at it."""
    torch.manual_seed(0)
    critic = CRITICS[critic]()
    generator = generator or MLPGenerator(2, latent_dim=2, width=8)
    settings = {"steps": 12, "critic_steps": 2, "warmup_steps": 3, "log_every": 6, "audit_every": 12, "audit_size": 16,
                "audit_scores": False, "audit_refits": 0, "score": "w1/upper", **settings}  # fmt: skip
    records = train_wgan(
        Moons(test_size=32), generator, critic, Training(**settings), state=state,
        critic_optimizer=optimizer(parameter_groups(critic), fused=True),
        generator_optimizer=torch.optim.Adam(generator.parameters(), lr=1e-2, fused=True),
    )  # fmt: skip
    return [(record, record.game.snapshot()) for record in records]


def same(one, other):
    """Whether two states are equal bit by bit, the clock apart."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one if key != "seconds")
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return one == other or (one != one and other != other)


def nearly(one, other):
    """Whether two states are equal up to the rounding of learning rates to float32."""
    if isinstance(one, dict):
        return all(nearly(one[key], other[key]) for key in one if key not in ("seconds", "global_rngs"))
    if isinstance(one, (list, tuple)):
        return all(map(nearly, one, other))
    if isinstance(one, torch.Tensor):
        return torch.allclose(one.double(), other.double(), rtol=1e-3, atol=1e-4)
    return one == other or one == pytest.approx(other, rel=1e-4)


GAMES = {
    **{name: {"critic": name} for name in CRITICS},
    "clipped, in parts": {"critic_clip": 0.5, "generator_clip": 0.1, "accumulate": 4},
    "in bfloat16": {"precision": "bfloat16"},
    "boosted": {"boost_first": 2, "boost_steps": 4},
    "on one batch": {"reuse_batch": True},
    "from the data on, renewed": {"critic": "cones", "start_at_data": True, "renew_every": 5},
}


@pytest.mark.parametrize("game", GAMES)
def test_captured_steps_are_those_that_are_written(game, recorded, monkeypatch):
    """Bit by bit those of Python at the same rates, on the device; up to the rounding of rates those at other ones."""
    captured = played(**GAMES[game], capture=True)
    assert recorded.captures >= 2
    monkeypatch.setitem(capturing.CAPTURES, "cpu", lambda step: step)
    again = played(**GAMES[game], capture=True)
    for (_, one), (_, other) in zip(captured, again):
        assert [part for part in one if part != "seconds" and not same(one[part], other[part])] == []
    written = played(**GAMES[game])
    for (one, _), (other, _) in zip(written, captured):
        assert one.scalars["w1/critic"] == pytest.approx(other.scalars["w1/critic"], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("then", [True, False])
def test_a_captured_training_goes_on_where_it_stopped(then, recorded):
    """Captured again, bit by bit; as written, up to the rounding of rates."""
    whole = played(capture=True)
    stored = io.BytesIO()
    torch.save(whole[0][1], stored)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    assert all(type(group["lr"]) is float for group in state["critic_optimizer"]["param_groups"])
    assert all(type(rate) is float for rate in state["critic_scheduler"]["_last_lr"])
    resumed = played(capture=then, state=state)
    for part in ("critic", "generator", "ema", "latent_rng"):
        assert (same if then else nearly)(whole[-1][1][part], resumed[-1][1][part])
    assert not then or same(whole[-1][1], resumed[-1][1])


def test_learning_rates_move_in_replays(recorded):
    """A rate that a capture held as a number would never fall: then the last steps would be as long as the first."""
    *_, (last, _) = played(capture=True, steps=40, log_every=40, audit_every=40)
    rates = [float(group["lr"]) for group in last.game.critic_optimizer.param_groups]
    assert rates == pytest.approx([0.0] * len(rates), abs=1e-9)
    assert recorded.captures == 2
    assert certify(last.game.critic).lipschitz <= 1


def test_after_a_rollback_steps_are_captured_anew(recorded):
    class Failing(MLPGenerator):
        """Gives NaN once."""

        calls = 0

        def forward(self, latents):
            self.calls += 1
            made = super().forward(latents)
            return made * float("nan") if self.calls == 60 else made

    games = played(capture=True, steps=60, log_every=5, max_rollbacks=3, divergence=1e6,
                   generator=Failing(2, latent_dim=2, width=8))  # fmt: skip
    assert games[-1][0].step == 60
    critic = games[-1][0].game.critic
    with torch.no_grad():
        assert all(parameter.isfinite().all() for parameter in critic.parameters())
    before = recorded.captures
    state = games[-1][1]
    assert played(capture=True, steps=80, log_every=5, state=state)[-1][0].step == 80
    assert recorded.captures == before + 2


def test_what_cannot_be_captured_goes_on_as_written_and_says_so_once(monkeypatch):
    def refuses(step):
        raise RuntimeError("not permitted")

    monkeypatch.setitem(capturing.CAPTURES, "cpu", refuses)
    with pytest.warns(
        UserWarning, match="not captured: RuntimeError: not permitted. Training continues without."
    ) as told:
        captured = played(capture=True)
    assert len([one for one in told if "captured" in str(one.message)]) == 2  # of either player
    assert nearly(played()[-1][1], captured[-1][1])


@pytest.mark.parametrize(
    ("optimizer", "why"),
    [(lambda groups, fused: torch.optim.SGD(groups), "SGD keeps its learning rate on the CPU"),
     (lambda groups, fused: torch.optim.Adam(groups), "Adam keeps its learning rate"),
     (lambda groups, fused: Muon(groups), "Muon keeps its learning rate")],
)  # fmt: skip
def test_an_optimiser_with_its_rate_on_the_cpu_is_not_captured(optimizer, why, recorded):
    with pytest.warns(UserWarning, match=why):
        played(optimizer=optimizer, capture=True, steps=2)
    assert recorded.captures == 0


def test_what_stands_against_a_capture_is_told():
    adam = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], fused=True)
    critic = nn.Identity()
    assert obstacle(critic, [adam], ranks=1, compiled=False) is None
    assert "several processes" in obstacle(critic, [adam], ranks=2, compiled=False)
    assert "torch.compile" in obstacle(critic, [adam], ranks=1, compiled=True)
    assert "penalty on the CPU" in obstacle(PenalizedCritic(2, width=8), [adam], ranks=1, compiled=False)


def test_nothing_is_captured_unasked_nor_on_a_cpu(recorded, monkeypatch):
    played()
    assert recorded.captures == 0
    monkeypatch.delitem(capturing.CAPTURES, "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        played(capture=True)


def test_a_step_is_captured_once_all_is_settled_and_anew_where_something_moved():
    weight, log = torch.zeros(3), []
    recorded = Recorded()

    def step(x):
        log.append("written")
        weight.add_(x)
        return weight.sum()

    held = [weight]
    captured = CapturedStep(step, lambda: held, recorded)
    for count in range(1, 7):
        assert captured(torch.ones(3)).item() == 3 * count
    assert log == ["written"] * 3  # two as written, one recorded
    assert captured.replayed == 4
    other, weight = weight, weight.clone()
    held[:] = [weight]
    assert captured(torch.ones(3)).item() == 21
    assert other.sum() == 18 and log == ["written"] * 4
    assert captured(torch.ones(1)).item() == 24  # another shape
    assert len(log) == 5
