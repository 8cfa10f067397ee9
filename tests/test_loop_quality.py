"""What a serious loop offers: boosts, ramps, clipping, rollbacks, budgets, accumulation, precision, compilation."""

from __future__ import annotations

import copy
import math
import time
from functools import partial

import pytest
import torch
from test_resuming import differences, through_a_file
from test_training import Gaussian, Shift, play

from wgan_lip.critics import PenalizedCritic, ResNetCritic
from wgan_lip.generators import MLPGenerator
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.training import DivergedError, NonFiniteError
from wgan_lip.training.moves import descend, playing
from wgan_lip.training.settings import Averaging
from wgan_lip.utils.checks import InputError
from wgan_lip.wasserstein.dual import ascend


def counted(monkeypatch) -> list[int]:
    """Dual ascents before each generator step."""
    from wgan_lip.training import loop

    counts, real_ascend, real_descend = [0], loop.ascend, loop.descend

    def ascending(*arguments, **keywords):
        counts[-1] += 1
        return real_ascend(*arguments, **keywords)

    def descending(*arguments, **keywords):
        counts.append(0)
        return real_descend(*arguments, **keywords)

    monkeypatch.setattr(loop, "ascend", ascending), monkeypatch.setattr(loop, "descend", descending)
    return counts


def test_boosted_steps_come_at_the_start_and_regularly(monkeypatch):
    counts = counted(monkeypatch)
    list(play(warmup_steps=0, critic_steps=1, boost_steps=5, boost_first=2, boost_every=4))
    assert counts == [5, 5, 1, 5, 1, 1, 1, 5, 0]


def test_cones_are_renewed_at_the_samples_of_the_moment(monkeypatch):
    moved, real = [], ResNetCritic.renew

    def renewing(critic, x, y):
        moved.append((len(x), len(y), y.mean().item(), real(critic, x, y)))
        return moved[-1][-1]

    monkeypatch.setattr(ResNetCritic, "renew", renewing)
    critic = ResNetCritic(2, readout="cones", centers=16)
    *_, last = play(critic=critic, start_at_data=True, renew_every=3, critic_lr=0.1, lr=0.5, steps=10)
    assert [sizes for *sizes, _, _ in moved] == [[2048, 2048]] * 4  # before steps 1, 4, 7 and 10
    assert len({mean for _, _, mean, _ in moved}) == 4 and sum(count for *_, count in moved) > 0
    assert certify(last.game.critic).lipschitz <= 1
    moved.clear()
    list(play(critic=ResNetCritic(2, readout="cones", centers=16)))
    assert moved == []


def test_the_average_ramps_up():
    ramp = Averaging(ema_half_life=1000.0, ema_ramp=0.05)
    for images, half_life in ((100, 5.0), (10_000, 500.0), (20_000, 1000.0), (10**9, 1000.0)):
        assert 1 - ramp.weight(10, images) == pytest.approx(0.5 ** (10 / half_life), rel=1e-12)
    assert 1 - Averaging(ema_half_life=1000.0, ema_ramp=0.0).weight(1000, 1) == 0.5
    *_, slow = play(ema_half_life=1e9, ema_ramp=0.0)
    *_, ramped = play(ema_half_life=1e9, ema_ramp=0.05)
    assert torch.equal(slow.game.generator.theta, ramped.game.generator.theta)
    gaps = [(last.game.ema.theta - last.game.generator.theta).norm() for last in (slow, ramped)]
    assert gaps[1] < 0.1 * gaps[0]


def test_gradients_are_shortened_to_the_clip():
    norms = []

    class Watching(torch.optim.SGD):
        def step(self, closure=None):
            gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            norms.append(torch.stack([g.norm() for g in gradients]).norm().item())
            return super().step(closure)

    list(play(critic_optimizer=Watching, critic_clip=1e-3))
    assert len(norms) == 11 and all(norm == pytest.approx(1e-3, rel=1e-3) for norm in norms)
    *_, still = play(generator_clip=1e-12, lr=0.0)
    assert still.step == 8


class Treacherous(Gaussian):
    """Some of its draws are NaN."""

    def __init__(self, bad: set[int]) -> None:
        super().__init__()
        self.bad = bad

    def sample(self, n, rng):
        samples = super().sample(n, rng)
        return samples * (math.nan if self.draws in self.bad else 1.0)


def test_a_game_that_is_not_finite_goes_back_and_on_and_says_so():
    source = Treacherous({9, 20})  # 3 warm-up draws and one a step: step 6 is bad, and one some steps later
    records = list(
        play(source=source, steps=20, max_rollbacks=2, critic_schedule="constant", generator_schedule="constant")
    )
    notes = [(record.step, record.note) for record in records if record.note]
    assert [step for step, _ in notes] == [4, 14]
    assert "NaN or infinity in the critic's dual value at step 6" in notes[0][1] and "rollback 1 of 2" in notes[0][1]
    assert [record.step for record in records] == [2, 4, 4, 6, 8, 10, 12, 14, 14, 16, 18, 20]
    logged = [record for record in records if record.scalars]
    assert [record.scalars.get("guard/rollbacks", 0) for record in logged] == [0, 0, 1, 1, 1, 1, 1, 2, 2, 2]
    assert records[-1].game.critic_optimizer.param_groups[0]["lr"] == pytest.approx(0.01 / 4)
    assert records[-1].game.generator_optimizer.param_groups[0]["lr"] == pytest.approx(0.02 / 4)
    assert all(math.isfinite(value) for record in records for value in record.scalars.values())


def test_a_warm_up_that_is_not_finite_is_played_again():
    source = Treacherous({2})
    first, *rest = play(source=source, max_rollbacks=1)
    assert first.step == 0 and "at step 0; no longer finite: parameter critic" in first.note
    assert [record.step for record in rest] == [2, 4, 6, 8] and rest[-1].game.warmed == 3
    assert source.draws == 3 + 3 + 8
    with pytest.raises(NonFiniteError, match="at step 0; .* after step 0, was kept") as caught:
        list(play(source=Treacherous({2})))
    assert math.isfinite(certify(caught.value.game.critic).lipschitz)


def test_rollbacks_come_to_an_end_in_the_last_good_state():
    with pytest.raises(
        NonFiniteError, match=r"after 2 rollbacks: .*The last good state, after step 4, was kept"
    ) as caught:
        list(play(source=Gaussian(poison_from=9), max_rollbacks=2))
    assert caught.value.game.step == 4 and math.isfinite(certify(caught.value.game.critic).lipschitz)
    with pytest.raises(NonFiniteError, match=r"dual value at step 6; .* The last good"):
        list(play(source=Gaussian(poison_from=9)))


def test_a_game_put_back_and_interrupted_goes_on_bit_by_bit():
    whole = list(play(source=Treacherous({9}), steps=12, max_rollbacks=1))
    for stop in (2, 3, 6):  # before, at and after the rollback
        records = []
        for record in play(source=(source := Treacherous({9})), steps=12, max_rollbacks=1):
            records.append(record)
            if len(records) == stop:
                break
        state = through_a_file(record.game.state_dict())
        rest = list(play(source=source, steps=12, max_rollbacks=1, state=state))
        assert [record.step for record in records + rest] == [record.step for record in whole]
        assert differences(rest[-1].game.state_dict(), whole[-1].game.state_dict()) == []


def test_a_dual_value_far_above_the_first_is_divergence():
    far = Gaussian()
    real = far.sample
    far.sample = lambda n, rng: real(n, rng) + (1000.0 if far.draws > 8 else 0.0)
    with pytest.raises(DivergedError, match=r"more than `divergence` = 10 times the first, .*after step 4, was kept"):
        list(play(source=far, divergence=10.0))
    far.draws = 0
    assert list(play(source=far))[-1].step == 8


def test_patience_ends_the_game_at_an_audit_without_a_better_one():
    records = list(play(lr=0.0, steps=400, audit_every=4, patience=3, score="eval/w1_test"))
    audits = [record for record in records if record.audited]
    assert [record.improved for record in audits] == [True, False, False, False]
    assert records[-1].step == 16 and records[-1].ended == "none of the last 3 audits was better"
    state = through_a_file(records[-1].game.state_dict())
    assert list(play(lr=0.0, steps=400, audit_every=4, patience=3, score="eval/w1_test", state=state)) == []
    *_, last = play(lr=0.0, steps=24, audit_every=4, patience=9, score="-certificate/lipschitz")
    assert last.ended == "all 24 steps are done"


def test_a_score_that_no_audit_has_is_refused_at_the_call():
    with pytest.raises(InputError, match=r"`score` must be one of w1/lower, .*not 'eval/fid'"):
        play(score="eval/fid")


def test_seconds_end_the_game_over_all_processes():
    begun = time.monotonic()
    *_, last = play(steps=10**9, audit_every=10**9, log_every=10**9, max_seconds=0.3)
    assert 0.3 <= time.monotonic() - begun < 30 and last.audited
    assert last.ended == "0.3 seconds have passed, the limit of max_seconds"
    state = through_a_file(last.game.state_dict())
    assert list(play(steps=10**9, max_seconds=0.3, state=state)) == []
    assert next(play(steps=10**9, log_every=1, max_seconds=1e9, state=state)).step == last.step + 1


def test_images_end_the_game_and_learning_rates_reach_their_end():
    *_, last = play(steps=1000, batch_size=32, max_images=32 * 6)
    assert (last.step, last.audited, last.ended) == (6, True, "192 images were generated, the limit of max_images")
    assert last.game.generator_optimizer.param_groups[0]["lr"] == 0


@pytest.mark.parametrize("parts", [1, 4])
def test_a_gradient_gathered_in_parts_is_that_of_the_batch(parts):
    torch.manual_seed(0)
    x, y, latents = torch.randn(16, 2), torch.randn(16, 2) + 1, torch.randn(16, 4)
    for make in (lambda: ResNetCritic(2, width=8, depth=2).double(), lambda: PenalizedCritic(2, width=8).double()):
        torch.manual_seed(1)
        critic, generator = make(), MLPGenerator(2, latent_dim=4, width=8).double()
        if isinstance(critic, PenalizedCritic):
            # a mean over samples, without draws
            critic.penalty = lambda x, y, critic=critic: critic(x).square().mean()
        gradients = []
        for split in (1, parts):
            still = torch.optim.SGD([*critic.parameters(), *generator.parameters()], lr=0.0)
            value = ascend(critic, still, x.double(), y.double(), parts=split)
            ascent = [p.grad.clone() for p in critic.parameters() if p.grad is not None]
            loss = descend(generator, critic, still, latents.double(), parts=split)
            gradients.append([value, loss, *ascent, *[p.grad.clone() for p in generator.parameters()]])
        assert all(torch.allclose(one, two, atol=1e-12) for one, two in zip(*gradients))


def test_accumulation_plays_the_same_game():
    values = [[record.scalars["w1/critic"] for record in play(accumulate=parts)] for parts in (1, 2, 8)]
    assert values[1] == pytest.approx(values[0], rel=1e-4) and values[2] == pytest.approx(values[0], rel=1e-4)


def test_bfloat16_stays_inside_the_generator(monkeypatch):
    generator = MLPGenerator(2, latent_dim=2, width=16)
    latents = torch.randn(50, 2)
    rounded = playing(generator, "bfloat16")(latents)
    exact = generator(latents)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    assert torch.allclose(rounded, exact, atol=0.05)
    from wgan_lip.training import loop

    seen, real = set(), loop.ascend

    def watching(critic, optimizer, x, y, **keywords):
        seen.add((x.dtype, y.dtype, torch.is_autocast_enabled("cpu")))
        return real(critic, optimizer, x, y, **keywords)

    monkeypatch.setattr(loop, "ascend", watching)
    critic = ResNetCritic(2, width=16, depth=2)
    *_, last = play(generator=generator, critic=critic, precision="bfloat16", steps=40, lr=0.01)
    assert seen == {(torch.float32, torch.float32, False)}
    assert {p.dtype for p in (*critic.parameters(), *generator.parameters())} == {torch.float32}
    assert certify(critic).lipschitz <= 1
    assert last.scalars["w1/lower"] <= last.scalars["w1/exact"] <= last.scalars["w1/upper"]


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_compiled_players_play_the_same_game(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    games = []
    for compiled in (False, True):
        torch.manual_seed(2)
        games.append(list(play(generator=MLPGenerator(2, latent_dim=2, width=8), compile=compiled)))
    plain, compiled = games
    for one, two in zip(plain, compiled):
        assert two.scalars["w1/critic"] == pytest.approx(one.scalars["w1/critic"], rel=1e-3)
    assert plain[-1].game.state_dict()["critic"].keys() == compiled[-1].game.state_dict()["critic"].keys()
    assert certify(compiled[-1].game.critic).lipschitz <= 1


def test_a_penalty_cannot_be_compiled():
    with pytest.raises(InputError, match="`compile` does not work with PenalizedCritic.*Leave `compile` out"):
        play(critic=PenalizedCritic(2, width=8), compile=True)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"boost_steps": 0}, "`boost_steps` must be above zero, not 0"),
        ({"boost_every": 0}, "`boost_every` must be above zero, not 0. Leave it null"),
        ({"renew_every": 0}, "`renew_every` must be above zero, not 0. Leave it null"),
        ({"critic_clip": -1.0}, "`critic_clip` must be above zero"),
        ({"ema_ramp": -0.1}, "`ema_ramp` must be at least 0"),
        ({"ema_ramp": math.nan}, "`ema_ramp` must be at least 0, not nan"),
        ({"max_rollbacks": -1}, "`max_rollbacks` must be at least 0"),
        ({"divergence": 0.5}, "`divergence` must be above 1, not 0.5"),
        ({"patience": 0}, "`patience` must be above zero"),
        ({"max_seconds": math.nan}, "`max_seconds` must be above zero, not nan"),
        ({"accumulate": 5}, r"`batch_size` must be divisible by `accumulate` \(5\), and 32 is not"),
        ({"precision": "float8"}, "`precision` must be one of float32, bfloat16"),
    ],
)
def test_settings_of_the_loop_that_make_no_sense_are_refused(setting, message):
    with pytest.raises(InputError, match=message):
        play(**setting)


def test_the_players_given_are_those_that_play():
    generator = Shift()
    before = copy.deepcopy(generator)
    *_, last = play(generator=generator)
    assert last.game.generator is generator and not torch.equal(before.theta, generator.theta)
