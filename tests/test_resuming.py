"""A game that was interrupted anywhere and goes on is, bit by bit, the game that never stopped."""

from __future__ import annotations

import io
import math
import random
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wgan_lip.critics import ResNetCritic, SpectralNormCritic
from wgan_lip.data import Gaussians8, ImageSource, LoaderSource, Source, TensorSource
from wgan_lip.training import Training, train_wgan
from wgan_lip.utils.checks import InputError


class Walking(Source):
    """Hands out its rows in order, shaken by numpy's and Python's own generators; its position is its own."""

    name, dim = "walking", 2

    def __init__(self) -> None:
        self.rows = torch.randn(97, 2, generator=torch.Generator().manual_seed(5))
        self.test, self.position = self.rows[:30] + 0.1, 0

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        rows = (self.position + torch.arange(n)) % len(self.rows)
        self.position = (self.position + n) % len(self.rows)
        shift = float(np.random.normal()) + random.gauss(0, 1)
        return self.rows[rows] + 0.01 * shift + 0.01 * torch.randn(n, 2, generator=rng)

    def reference(self, n: int, seed: int) -> Tensor:
        return self.rows[torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(seed))[:n]]

    def state_dict(self) -> dict:
        return {"position": self.position}

    def load_state_dict(self, state: dict) -> None:
        self.position = state["position"]


class Dropping(nn.Module):
    """A generator with dropout and running statistics: it draws from torch's global generator."""

    latent_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(latents)


def game(state=None, pause=None, source=None, optimizer=torch.optim.Adam, critic=ResNetCritic, **settings):
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    source, generator, critic = source or Walking(), Dropping(), critic(2, width=8, depth=2)
    settings = {"steps": 12, "batch_size": 16, "critic_steps": 2, "warmup_steps": 3, "log_every": 4, "audit_every": 8,
                "audit_size": 20} | settings  # fmt: skip
    return train_wgan(
        source, generator, critic, Training(**settings), state=state, pause=pause,
        generator_optimizer=optimizer(generator.parameters(), lr=1e-2),
        critic_optimizer=optimizer(critic.parameters(), lr=1e-2),
    )  # fmt: skip


def through_a_file(state: dict) -> dict:
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


def flat(value, path="") -> dict:
    if isinstance(value, dict):
        return {k: v for name in value for k, v in flat(value[name], f"{path}/{name}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, entry in enumerate(value) for k, v in flat(entry, f"{path}/{i}").items()}
    return {path: value}


def differences(one: dict, two: dict) -> list[str]:
    one, two = flat(one), flat(two)
    equal = {k for k in one.keys() & two.keys()
             if (torch.equal(one[k], two[k]) if isinstance(one[k], Tensor) else one[k] == two[k])}  # fmt: skip
    return sorted((one.keys() | two.keys()) - equal - {"/seconds"})


def figures(records) -> list:
    """NaN, such as the width of modes that no sample is in, as None: it is no value, and equals itself."""
    return [(r.step, {k: None if math.isnan(v) else v for k, v in r.scalars.items() if not k.startswith("perf/")})
            for r in records if r.scalars]  # fmt: skip


@cache
def whole_game(optimizer) -> tuple[list, dict]:
    *records, last = game(optimizer=optimizer)
    return figures([*records, last]), through_a_file(last.game.state_dict())


@pytest.mark.parametrize(  # in the warm-up, at its end, between and at records, near the end
    ("asked", "optimizer"),
    [*((asked, torch.optim.Adam) for asked in (2, 3, 4, 6, 7, 11, 14)), (7, torch.optim.RMSprop)],
)
def test_an_interrupted_game_goes_on_bit_by_bit(asked, optimizer):
    played, last = whole_game(optimizer)
    times = iter(range(1, 100))
    before, kept = [], None
    for record in game(pause=lambda step: next(times) == asked, optimizer=optimizer):
        before.append(record)
        if record.game.step + record.game.warmed == asked:
            kept = through_a_file(record.game.state_dict())
            break
    after = list(game(state=kept, optimizer=optimizer))
    assert figures(before) + figures(after) == played
    assert differences(after[-1].game.state_dict(), last) == []


def with_cones(dim, **_):
    return ResNetCritic(dim, readout="cones", centers=12)


@pytest.mark.parametrize(
    ("critic", "settings"),
    [
        (SpectralNormCritic, {}),
        (with_cones, {"start_at_data": True, "renew_every": 2}),
        (ResNetCritic, {"reuse_batch": True}),
    ],
)
def test_a_game_interrupted_after_every_step_is_the_whole_one(critic, settings):
    def played(state=None, **more):
        return game(state, critic=critic, source=Gaussians8(test_size=40), **settings, **more)

    whole = list(played())
    state, seen, done = None, [], False
    while not done:
        for record in played(state, pause=lambda step: True):
            seen.append(record)
            done = record.step == 12
            state = through_a_file(record.game.state_dict())
            break
    assert figures(seen) == figures(whole)
    assert differences(state, whole[-1].game.state_dict()) == []


def test_asking_and_saving_change_nothing():
    plain, asked = list(game()), []
    for record in game(pause=lambda step: True):
        asked.append(record)
        torch.rand(3), np.random.rand(3), random.random()  # such as pictures may do
    assert figures(plain) == figures(asked) and len(asked) == 15
    assert differences(plain[-1].game.state_dict(), asked[-1].game.state_dict()) == []


@pytest.mark.parametrize("scores", [True, False])
def test_an_audit_measures_what_it_names(scores):
    (record,) = game(steps=1, audit_every=1, audit_scores=scores, source=Gaussians8(test_size=40))
    not_audited = {"w1/critic", "generator/loss", "perf/steps_per_second", "perf/samples_per_second"}
    with pytest.raises(InputError, match="`score` must be one of") as caught:
        game(score="nothing", audit_scores=scores, source=Gaussians8(test_size=40))
    named = str(caught.value).split("one of ")[1].split(", not ")[0].split(", ")
    no_scores = {"critic/held_out_error", "critic/refitted", "critic/refitted_error"}  # errors, and not at every audit
    assert set(named) == record.scalars.keys() - not_audited - no_scores


def test_a_finished_game_has_nothing_more_to_play():
    *_, last = game()
    assert list(game(state=through_a_file(last.game.state_dict()))) == []


def test_a_game_without_a_schedule_can_be_prolonged():
    constant = {"critic_schedule": "constant", "generator_schedule": "constant"}
    *_, short = game(steps=8, **constant)
    *_, prolonged = game(state=through_a_file(short.game.state_dict()), **constant)
    *_, whole = game(**constant)
    assert differences(prolonged.game.state_dict(), whole.game.state_dict()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("critic_scheduler"), "critic_scheduler is missing"),
        (lambda state: state["critic"].popitem(), "does not fit the critic"),
        (lambda state: state.update(latent_rng=torch.zeros(16, dtype=torch.uint8)), "same kind of device"),
        (lambda state: state.update(generator_optimizer=3), "does not fit the generator_optimizer"),
        (lambda state: state["critic_optimizer"]["param_groups"].clear(), "does not fit the critic_optimizer"),
    ],
)
def test_the_state_of_another_game_is_refused_at_the_call(change, message):
    state = next(iter(game())).game.state_dict()
    change(state)
    with pytest.raises(InputError, match=message):
        game(state=state)


ROWS = torch.randn(60, 2, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    "other",
    [
        lambda: TensorSource(torch.cat([ROWS[:-1], ROWS[-1:].nextafter(torch.tensor(9.0))]), ROWS[:20]),
        lambda: TensorSource(ROWS, ROWS[:20].flip(0)),
        lambda: TensorSource(ROWS[:-1], ROWS[:20]),
        lambda: Walking(),
    ],
)
def test_the_state_of_a_game_on_other_data_is_refused_and_both_are_named(other):
    begun = TensorSource(ROWS, ROWS[:20])
    state = through_a_file(next(iter(game(source=begun))).game.state_dict())
    assert begun.fingerprint().startswith("60 + 20 samples of dimension 2, sha256 ")
    source = other()
    with pytest.raises(InputError) as caught:
        game(state=state, source=source)
    assert f"began: they were {begun.fingerprint()}, and are now {source.fingerprint()}. Restore" in str(caught.value)


def test_data_are_told_by_what_they_hold_wherever_they_lie():
    begun = TensorSource(ROWS, ROWS[:20])
    state = through_a_file(next(iter(game(source=begun))).game.state_dict())
    *_, again = game(state=state, source=TensorSource(ROWS.double().numpy(), ROWS[:20].clone()).to("cpu"))
    *_, whole = game(source=begun)
    assert differences(again.game.state_dict(), whole.game.state_dict()) == []
    del state["data"]  # as of an earlier version
    *_, again = game(state=state, source=begun)
    assert differences(again.game.state_dict(), whole.game.state_dict()) == []
    images = (torch.rand(6, 1, 4, 4) * 255).byte()
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    sources = [ImageSource(images, images, labels, other, **more) for other, more in (
        (labels, {}), (labels, {"flip": True}), (1 - labels, {}), (labels, {"label_scale": 1.0}))]  # fmt: skip
    prints = [source.fingerprint() for source in sources]
    assert prints[0] == prints[1] and len({*prints}) == 3
    loader = [torch.rand(5, 2)] * 4
    assert LoaderSource(loader, ROWS).fingerprint() == LoaderSource([ROWS[:9]] * 4, ROWS).fingerprint()
    assert LoaderSource(loader, ROWS).fingerprint() != LoaderSource(loader, ROWS[1:]).fingerprint()
    assert LoaderSource(loader, ROWS).fingerprint() != LoaderSource(loader[1:], ROWS).fingerprint()
    assert LoaderSource(loader, loader).fingerprint() == "a loader of 4 batches of dimension 2"


def test_what_is_no_state_is_refused():
    for nothing in (3, [], {}, {"game": 3}):
        with pytest.raises(
            InputError, match="(state must be what record.game.state_dict|The training state is incomplete)"
        ):
            game(state=nothing)
