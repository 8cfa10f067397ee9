"""What only a GPU can show; skipped where there is none."""

from __future__ import annotations

import pytest
import torch

import wgan_lip
from wgan_lip.critics import ConvolutionalCritic, FixedWidthCritic, PenalizedCritic, ResNetCritic, SortingCritic
from wgan_lip.data import Digits, Moons
from wgan_lip.generators import MLPGenerator, draw_latents
from wgan_lip.lipschitz.certificates import certify, weights_sha256
from wgan_lip.lipschitz.layers import constrain_steps
from wgan_lip.lipschitz.optimizers import parameter_groups
from wgan_lip.training import Training, capturing, train_wgan
from wgan_lip.training.moves import average, descend
from wgan_lip.transport import narrow, narrowing, solve
from wgan_lip.wasserstein.dual import ascend

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
CRITICS = {
    "family A": lambda: ResNetCritic(64, width=32, depth=4).cuda(),
    "family A, maximum norm": lambda: ResNetCritic(64, width=32, depth=5, norm="max").cuda(),
    "family A, splines, cones": lambda: ResNetCritic(
        64, width=32, depth=4, activation="spline", readout="cones"
    ).cuda(),
    "family A, cones, no lift": lambda: ResNetCritic(64, readout="cones").cuda(),
    "family B": lambda: FixedWidthCritic(64, depth=4).cuda(),
    "sorting": lambda: SortingCritic(64, width=32, depth=3, group=8).cuda(),
    "convolutional": lambda: ConvolutionalCritic((1, 8, 8), width=32, depth=2).cuda(),
}


@pytest.mark.parametrize("name", CRITICS)
def test_a_certificate_is_the_same_on_either_device(name):
    critic = CRITICS[name]()
    there = certify(critic)
    here = certify(critic.cpu())
    assert there == here
    assert weights_sha256(critic) == here.weights_sha256


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("rate", [1e-3, 1.0, 100.0])
def test_retraction_on_the_gpu_keeps_the_constant_at_one(name, rate):
    critic = CRITICS[name]()
    optimizer = torch.optim.Adam(critic.parameters(), lr=rate, fused=True)
    constrain_steps(optimizer, critic)
    for _ in range(5):
        ascend(critic, optimizer, torch.randn(64, 64, device="cuda"), torch.randn(64, 64, device="cuda") + 1)
        assert certify(critic).lipschitz <= 1


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("source", [Digits, Moons])
def test_a_training_step_never_waits_for_the_gpu(name, source):
    source = source().to("cuda")
    critic = CRITICS[name]() if source.dim == 64 else ResNetCritic(2, width=16, depth=2).cuda()
    generator = MLPGenerator(source.dim, latent_dim=4, width=16, low=source.low, high=source.high).cuda()
    ema = MLPGenerator(source.dim, latent_dim=4, width=16, low=source.low, high=source.high).cuda()
    players = [torch.optim.Adam(player.parameters(), fused=True) for player in (critic, generator)]
    constrain_steps(players[0], critic)
    rng, data_rng = torch.Generator("cuda").manual_seed(0), torch.Generator().manual_seed(0)

    def step() -> None:
        x = source.sample(32, data_rng)
        with torch.no_grad():
            y = generator(draw_latents(generator, 32, rng))
        ascend(critic, players[0], x, y)
        descend(generator, critic, players[1], draw_latents(generator, 32, rng))
        average(ema, generator, 0.1)

    step()  # allocations and library handles
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_game_on_the_gpu_keeps_the_invariant_and_comes_home():
    source = Moons(test_size=100).to("cuda")
    critic, generator = ResNetCritic(2, width=16, depth=2).cuda(), MLPGenerator(2, width=16).cuda()
    *_, last = train_wgan(
        source, generator, critic, Training(steps=20, log_every=10, audit_every=10, audit_size=50),
        critic_optimizer=torch.optim.Adam(critic.parameters()),
        generator_optimizer=torch.optim.Adam(generator.parameters()),
    )  # fmt: skip
    assert last.scalars["w1/lower"] <= last.scalars["w1/exact"] <= last.scalars["w1/upper"]
    assert all(torch.isfinite(parameter).all() for parameter in last.game.ema.cpu().parameters())


@pytest.mark.parametrize("name", CRITICS)
def test_captured_steps_are_those_that_are_written(name, monkeypatch):
    """Equal kernels in an equal order, and rates rounded to float32: equal up to what Adam makes of that."""
    captured, capture = [], capturing.CAPTURES["cuda"]
    monkeypatch.setitem(capturing.CAPTURES, "cuda", lambda step: (captured.append(1), capture(step))[1])
    values = []
    for by_graph in (False, True):
        torch.manual_seed(0)
        critic, source = CRITICS[name](), Digits().to("cuda")
        generator = MLPGenerator(64, latent_dim=4, width=16, low=source.low, high=source.high).cuda()
        *_, last = train_wgan(
            source, generator, critic,
            Training(steps=30, critic_steps=2, warmup_steps=5, log_every=30, audit_every=30, audit_size=50,
                     audit_refits=0, capture=by_graph),
            critic_optimizer=torch.optim.Adam(parameter_groups(critic), fused=True),
            generator_optimizer=torch.optim.Adam(generator.parameters(), fused=True),
        )  # fmt: skip
        assert certify(critic).lipschitz <= 1
        values.append(last.scalars["w1/critic"])
        rates = [group["lr"] for group in last.game.state_dict()["critic_optimizer"]["param_groups"]]
        assert rates == pytest.approx([0.0] * len(rates), abs=1e-9)  # the schedule has moved them in replays too
    assert len(captured) == 2
    assert values[1] == pytest.approx(values[0], rel=5e-2)


def test_a_captured_game_goes_on_where_it_stopped():
    ends = []
    for stop in (None, 20):
        torch.manual_seed(0)
        state = None
        for _ in range(1 if stop is None else 2):
            torch.manual_seed(0)
            source = Moons(test_size=100).to("cuda")
            critic, generator = ResNetCritic(2, width=16, depth=2).cuda(), MLPGenerator(2, width=16).cuda()
            records = train_wgan(
                source, generator, critic,
                Training(steps=40, log_every=20, audit_every=20, audit_size=50, audit_refits=0, capture=True),
                critic_optimizer=torch.optim.Adam(parameter_groups(critic), fused=True),
                generator_optimizer=torch.optim.Adam(generator.parameters(), fused=True), state=state,
            )  # fmt: skip
            for record in records:
                if state is None and record.step == stop:
                    state = record.game.snapshot()
                    break
        ends.append([parameter.detach().clone() for parameter in critic.parameters()])
    assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-4) for one, other in zip(*ends))


def test_a_penalty_is_not_captured_and_says_why():
    critic, generator = PenalizedCritic(2, width=8).cuda(), MLPGenerator(2, width=8).cuda()
    with pytest.warns(UserWarning, match="draws the points of its penalty on the CPU"):
        list(train_wgan(
            Moons(test_size=50).to("cuda"), generator, critic,
            Training(steps=2, audit_every=2, audit_size=20, audit_refits=0, capture=True),
            critic_optimizer=torch.optim.Adam(critic.parameters(), fused=True),
            generator_optimizer=torch.optim.Adam(generator.parameters(), fused=True),
        ))  # fmt: skip


@pytest.mark.parametrize("rate", [1e-3, 1.0])
def test_retraction_keeps_the_constant_where_tf32_is_allowed(rate):
    critic = ResNetCritic(64, width=128, depth=3).cuda()
    optimizer = torch.optim.Adam(critic.parameters(), lr=rate, fused=True)
    constrain_steps(optimizer, critic)
    torch.set_float32_matmul_precision("high")
    try:
        for _ in range(3):
            ascend(critic, optimizer, torch.randn(64, 64, device="cuda"), torch.randn(64, 64, device="cuda") + 1)
            assert certify(critic).lipschitz <= 1
    finally:
        torch.set_float32_matmul_precision("highest")


def test_edges_priced_on_the_gpu_give_the_exact_value(monkeypatch):
    monkeypatch.setattr(narrowing, "DENSE", 0)
    monkeypatch.setattr(narrowing, "COARSEST", 64)
    x, y = torch.randn(900, 3, dtype=torch.float64), 1 + torch.randn(700, 3, dtype=torch.float64)
    truth = solve(x, y)
    *_, last = narrow(x, y, device="cuda")
    assert last.optimal
    assert last.transport.lower <= truth.upper and truth.lower <= last.transport.upper
    assert last.transport.upper - last.transport.lower < 1e-11 * truth.value


def test_an_estimate_on_the_gpu_holds():
    x, y = torch.randn(300, 2), 1 + torch.randn(300, 2)
    result = wgan_lip.estimate_w1(x, y, laws=True, critic_steps=5, device="cuda")
    assert result.lower <= result.exact <= result.upper
    assert result.certificate.lipschitz <= 1
    assert next(result.potential.parameters()).device.type == "cpu"
