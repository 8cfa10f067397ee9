"""Laws of the WGAN game, on laws whose optimum is known."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from wgan_lip.critics import ConvolutionalCritic, FixedWidthCritic, ResNetCritic
from wgan_lip.data import FiniteSource, Source
from wgan_lip.generators import MLPGenerator, draw_latents
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import Claim, Linear, Squeeze, constrain_steps
from wgan_lip.training import SCHEDULES, NonFiniteError, Training, train_wgan
from wgan_lip.utils.checks import InputError, UncertifiableError
from wgan_lip.wasserstein.interval import InvariantViolation

MEAN = torch.tensor([1.0, -2.0])


class Gaussian(Source):
    """N(MEAN, I), of which `poison_from` makes NaN from that draw on."""

    name, dim = "gaussian", 2

    def __init__(self, poison_from: float = math.inf) -> None:
        self.draws, self.poison_from = 0, poison_from
        self.test = self.reference(60, 99)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        self.draws += 1
        samples = MEAN + torch.randn(n, 2, generator=rng)
        return samples * (math.nan if self.draws >= self.poison_from else 1.0)

    def reference(self, n: int, seed: int) -> Tensor:
        return MEAN + torch.randn(n, 2, generator=torch.Generator().manual_seed(1000 + seed))


class Shift(nn.Module):
    """z ↦ z + θ: its WGAN optimum is θ = MEAN."""

    latent_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(2))

    def forward(self, latents: Tensor) -> Tensor:
        return latents + self.theta


class LyingLinear(Linear):
    """Claims constant 1 and triples its input."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)

    def claim(self) -> Claim:
        return Claim(1.0, "believe me", self.norm_in, self.norm_out, super().claim().rounding)


def play(
    source=None, generator=None, critic=None, critic_optimizer=torch.optim.Adam, lr=0.02, critic_lr=0.01, **settings
):
    torch.manual_seed(0)
    source, generator = source or Gaussian(), generator or Shift()
    critic = critic or ResNetCritic(2, width=16, depth=2)
    settings = {"steps": 8, "batch_size": 32, "critic_steps": 1, "warmup_steps": 3, "log_every": 2, "audit_every": 4,
                "audit_size": 30, "audit_refits": 0, "ema_half_life": 64.0} | settings  # fmt: skip
    around = {name: settings.pop(name) for name in ("seed", "state", "pause") if name in settings}
    return train_wgan(
        source, generator, critic, Training(**settings),
        generator_optimizer=torch.optim.Adam(generator.parameters(), lr=lr),
        critic_optimizer=critic_optimizer(critic.parameters(), lr=critic_lr),
        **around,
    )  # fmt: skip


@pytest.mark.parametrize(
    "critic", [lambda: ResNetCritic(2, width=16, depth=2), lambda: FixedWidthCritic(2, depth=6)], ids="AB"
)
def test_the_generator_finds_the_optimum_of_a_translation(critic):
    *_, last = play(
        critic=critic(),
        steps=250,
        critic_steps=2,
        batch_size=256,
        audit_every=250,
        lr=0.02,
        critic_lr=0.05,
        critic_schedule="linear_to_tenth",
    )
    assert (last.game.ema.theta - MEAN).norm() < 0.25
    assert (last.game.generator.theta - MEAN).norm() < 0.25


def test_a_critic_starts_at_the_samples_if_asked_to():
    far = Gaussian()
    far.sample = lambda n, rng: 1000 + torch.randn(n, 2, generator=rng)
    critic = ResNetCritic(2, readout="cones", centers=8)
    first = next(iter(play(far, critic=critic, start_at_data=True, steps=1, log_every=1, audit_every=1)))
    falling = critic.readout.unit * critic.readout.centers[critic.readout.rising :]
    assert (falling - 1000).abs().max() < 300 and first.scalars["certificate/lipschitz"] <= 1
    other = ResNetCritic(2, readout="cones", centers=8)
    next(iter(play(far, critic=other, steps=1, log_every=1, audit_every=1)))
    assert (other.readout.unit * other.readout.centers).abs().max() < 50


def test_a_critic_that_cannot_start_at_samples_is_refused():
    plain = nn.Sequential(Linear(Norm.euclidean(2), Norm((1,))), Squeeze())
    with pytest.raises(InputError, match="`start_at_data` needs a critic with a method start_at"):
        play(critic=plain, start_at_data=True)
    with pytest.raises(InputError, match="`renew_every` needs a critic with a method renew"):
        play(critic=plain, renew_every=5)


def test_records_come_in_order_and_every_audit_keeps_the_invariant():
    records = list(play(steps=9))
    assert [record.step for record in records] == [2, 4, 6, 8, 9]
    assert [record.audited for record in records] == [False, True, False, True, True]
    for record in records:
        assert all(math.isfinite(value) for value in record.scalars.values())
        assert record.audited == ("w1/exact" in record.scalars)
        if record.audited:
            lower, exact, upper = (record.scalars[f"w1/{end}"] for end in ("lower", "exact", "upper"))
            assert 0 <= lower <= exact <= upper
            assert upper - exact < 1e-9 * exact
            assert record.scalars["certificate/lipschitz"] <= 1


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.RMSprop, torch.optim.AdamW])
def test_any_optimizer_keeps_the_critic_certified(optimizer):
    *_, last = play(critic_optimizer=optimizer)
    assert certify(last.game.critic).lipschitz <= 1


def test_equal_seeds_play_equal_games():
    games = [list(play(seed=seed))[-1].game for seed in (3, 3, 4)]
    thetas = [game.generator.theta.detach() for game in games]
    assert torch.equal(thetas[0], thetas[1])
    assert not torch.equal(thetas[0], thetas[2])


@pytest.mark.parametrize(("accumulate", "generated"), [(1, [False, True]), (2, [False] * 4 + [True] * 2)])
def test_a_reused_batch_is_generated_once_and_seen_by_both(accumulate, generated):
    """The steps of a plain loop with two critic steps, of which the second shares the generator's latents."""
    generator, critic, source, calls = Shift(), ResNetCritic(2, width=4, depth=1), Gaussian(), []
    mine = copy.deepcopy(critic), copy.deepcopy(generator)
    generator.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    settings = Training(
        steps=3, batch_size=8, critic_steps=2, warmup_steps=0, reuse_batch=True, accumulate=accumulate, audit_every=3,
        audit_size=8, audit_refits=0, critic_schedule="constant", generator_schedule="constant",
    )  # fmt: skip
    by_critic, by_generator = (torch.optim.SGD(player.parameters(), lr=0.1) for player in (critic, generator))
    records = train_wgan(
        source, generator, critic, settings, critic_optimizer=by_critic, generator_optimizer=by_generator
    )
    calls.clear()
    record = next(records)
    assert record.step == 3
    assert calls[: 3 * len(generated)] == 3 * generated  # with gradients only where the generator takes a step
    optimizers = [torch.optim.SGD(player.parameters(), lr=0.1) for player in mine]
    constrain_steps(optimizers[0], mine[0])
    by_data, by_latents = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    values = []
    for _ in range(3):
        for _ in range(2):
            x, samples = source.sample(8, by_data), mine[1](draw_latents(mine[1], 8, by_latents))
            optimizers[0].zero_grad()
            value = mine[0](x).mean() - mine[0](samples.detach()).mean()
            (-value).backward()
            optimizers[0].step()
        optimizers[1].zero_grad()
        loss = -mine[0](samples).mean()
        loss.backward()
        optimizers[1].step()
        values.append([value.item(), loss.item()])
    trained = torch.cat([p.flatten() for player in (critic, generator) for p in player.parameters()])
    assert torch.allclose(trained, torch.cat([p.flatten() for player in mine for p in player.parameters()]), atol=1e-6)
    told = [record.scalars["w1/critic"], record.scalars["generator/loss"]]
    assert told == pytest.approx(torch.tensor(values).mean(dim=0).tolist(), abs=1e-5)


def test_the_state_holds_all_that_moves():
    *_, last = play()
    state = copy.deepcopy(last.game.state_dict())
    draws = [torch.rand(3, generator=last.game.latent_rng), torch.rand(3, generator=last.game.data_rng)]
    theta = last.game.ema.theta.clone()
    last.game.step = 0
    with torch.no_grad():
        last.game.ema.theta.zero_()
    last.game.load_state_dict(state)
    assert last.game.step == 8
    assert torch.equal(last.game.ema.theta, theta)
    again = [torch.rand(3, generator=last.game.latent_rng), torch.rand(3, generator=last.game.data_rng)]
    assert all(torch.equal(one, two) for one, two in zip(draws, again))


def test_the_average_has_the_stated_half_life():
    from wgan_lip.training.moves import average

    ema, generator = Shift(), Shift()
    with torch.no_grad():
        generator.theta.fill_(1.0)
    for _ in range(10):  # ten steps of 100 samples are one half-life of 1000
        average(ema, generator, weight=1 - 0.5 ** (100 / 1000))
    assert torch.allclose(ema.theta, torch.tensor(0.5))


def test_each_player_follows_its_schedule():
    cases = {"linear": (0.5, 0), "cosine": (0.5, 0), "constant": (1, 1), "linear_to_tenth": (0.55, 0.1),
             "late_linear": (1, 0)}  # fmt: skip
    assert cases.keys() == SCHEDULES.keys()
    for schedule, (half, end) in cases.items():
        rates = [
            (record.game.generator_optimizer.param_groups[0]["lr"] / 0.02,
             record.game.critic_optimizer.param_groups[0]["lr"] / 0.01)
            for record in play(generator_schedule=schedule, critic_schedule="linear_to_tenth")
        ]  # fmt: skip
        assert rates[1] == pytest.approx((half, 0.55))
        assert rates[-1] == pytest.approx((end, 0.1))


def test_a_value_that_is_not_finite_stops_the_run_at_its_step_with_the_last_good_state():
    # 3 warm-up draws and one a step: draw 9 is step 6; records at 2, 4, 6
    records, error = [], None
    thetas = {}
    try:
        for record in play(source=Gaussian(poison_from=9)):
            records.append(record.step)
            thetas[record.step] = record.game.generator.theta.detach().clone()
    except NonFiniteError as caught:
        error = caught
    assert records == [2, 4]
    assert "dual value at step 6" in str(error)
    assert error.game.step == 4
    assert torch.equal(error.game.generator.theta, thetas[4])
    assert math.isfinite(certify(error.game.critic).lipschitz)


def test_a_generator_that_blows_up_is_named():
    with pytest.raises(NonFiniteError, match=r"at step 2.*generator\.theta.*after step 0"):
        list(play(lr=math.inf))


def test_a_critic_that_lies_about_its_constant_is_caught_by_exact_transport():
    critic = ResNetCritic(2, width=4, depth=1)
    critic.readout = LyingLinear(Norm.euclidean(4), Norm((1,)))
    with pytest.raises(InvariantViolation, match="exceeds the cost of a coupling"):
        list(play(critic=critic, steps=200, lr=1e-6))


def test_a_critic_without_a_proof_is_refused_before_training():
    source = Gaussian()
    critic = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1), nn.Flatten(0))
    with pytest.raises(UncertifiableError, match="At '1'.*BatchNorm1d"):
        list(play(source=source, critic=critic))
    assert source.draws == 0


@pytest.mark.parametrize(
    ("player", "message"),
    [
        (
            {"critic": ResNetCritic(2, width=8, depth=1, heads=3)},
            r"one value per sample, shape \(4,\), not \(4, 3\).* heads=1",
        ),
        ({"critic": nn.Sequential(nn.Linear(2, 1))}, r"one value per sample, shape \(4,\), not \(4, 1\).*Squeeze\(\)"),
        ({"critic": nn.Sequential(ResNetCritic(2, width=8, depth=1), nn.Dropout())}, "At '1': .*Dropout.*Remove it"),
        (
            {"critic": ConvolutionalCritic((1, 8, 8), depth=1)},
            r"64 entries each, such as shape \(b, 64\), not shape \(4, 2\)",
        ),
        ({"critic": ResNetCritic(3, width=8, depth=1)}, r"shape \(b, 3\).*not shape \(4, 2\)"),
        (
            {"critic": nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))},
            r"critic fails on its input, \(4, 2\), torch.float32.* shapes",
        ),
        (
            {"critic": ResNetCritic(2, width=8, depth=1).double()},
            "The critic fails on its input.*same dtype.*Build it for",
        ),
        ({"critic": nn.Sequential(Linear(Norm((1, 1)), Norm((1,))), Squeeze())}, r"on Euclidean\(2\), not .* max\(2\)"),
        ({"generator": nn.Linear(2, 2)}, "a Linear, has no latent_dim"),
        (
            {"generator": MLPGenerator(3, latent_dim=2, width=4)},
            r"output shape is \(b, 3\), but the data have shape \(b, 2\)",
        ),
    ],
)
def test_players_that_do_not_fit_are_refused_at_the_call(player, message):
    source = Gaussian()
    with pytest.raises(InputError, match=message):
        play(source=source, **player)
    assert source.draws == 0


@pytest.mark.parametrize("nothing", [0, lambda x: x[:, 0], torch.ones(3), ResNetCritic, nn.Flatten(0)])
@pytest.mark.parametrize("name", ["source", "generator", "critic"])
def test_what_is_no_player_is_refused_at_the_call(name, nothing):
    critic = ResNetCritic(2, width=8, depth=1)
    players = {"source": Gaussian(), "generator": Shift(), "critic": critic} | {name: nothing}
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)
    with pytest.raises(
        InputError,
        match=f"{name} (must be a torch module|must be a wgan_lip.data.Source)|The {name}, .*, has no parameters",
    ):
        train_wgan(**players, generator_optimizer=optimizer, critic_optimizer=optimizer)


def test_tensors_train_once_they_are_wrapped_as_the_refusal_says():
    with pytest.raises(InputError, match=r"Wrap tensors in wgan_lip.data.TensorSource"):
        play(source=torch.randn(80, 2).unbind())
    data = MEAN + torch.randn(80, 2)
    *_, last = play(source=FiniteSource(data[:50], data[50:]))
    assert last.step == 8


def test_checking_the_players_leaves_them_as_they_were():
    generator = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    generator.latent_dim = 2
    critic = ResNetCritic(2, width=8, depth=1)
    before = copy.deepcopy([generator.state_dict(), critic.state_dict()])
    play(generator=generator, critic=critic)
    for state, kept in zip([generator.state_dict(), critic.state_dict()], before):
        assert all(torch.equal(state[name], kept[name]) for name in kept)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "`steps` must be above zero, not 0"),
        ({"warmup_steps": -1}, "`warmup_steps` must be at least 0, not -1"),
        ({"batch_size": -3}, "`batch_size` must be above zero, not -3"),
        ({"ema_half_life": math.nan}, "`ema_half_life` must be above zero, not nan"),
        ({"audit_size": 1}, "`audit_size` must be at least 2, not 1"),
        ({"critic_schedule": "wavy"}, "`critic_schedule` must be one of constant, .*cosine, not 'wavy'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting, message):
    with pytest.raises(InputError, match=message):
        list(play(**setting))


def test_a_batch_larger_than_the_training_set_is_refused():
    source = FiniteSource(torch.randn(20, 2), torch.randn(20, 2))
    with pytest.raises(InputError, match="`batch_size` must be at most 20, the size of the training set, not 21"):
        play(source=source, batch_size=21)


def test_an_audit_holds_every_score_beside_its_floor_unless_left_out():
    names = {"sliced_w1", "sliced_w2", "mmd", "precision", "recall", "density", "coverage"}
    *_, last = play(steps=4, audit_every=4)
    *_, plain = play(steps=4, audit_every=4, audit_scores=False)
    assert {f"eval/{name}{end}" for name in names for end in ("", "_floor")} <= last.scalars.keys()
    assert not {f"eval/{name}" for name in names} & plain.scalars.keys()
