"""The neural estimate: fitted critics against closed forms and exact transport."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from wgan_lip import certify
from wgan_lip.critics import ResNetCritic
from wgan_lip.data import Moons
from wgan_lip.data.oracles import Dilation, Marginal, RayMonotone, Shift
from wgan_lip.lipschitz.certificates import weights_sha256
from wgan_lip.lipschitz.layers import Squeeze
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError, UncertifiableError
from wgan_lip.wasserstein import candidates, fitting
from wgan_lip.wasserstein.candidates import Candidate, critic_names
from wgan_lip.wasserstein.dual import kr_value
from wgan_lip.wasserstein.fitting import fit_critic
from wgan_lip.wasserstein.interval import bracket, kr_lower_bound


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(oracle, n, *, seed=0):
    """Training, validation and held-out samples, n, n/4 and n of each law."""
    x, y = oracle.sample(2 * n + n // 4, 2 * n + n // 4, generator(seed))
    parts = [n, n // 4, n]
    return tuple(zip(x.split(parts), y.split(parts)))


def fitted(training, validation, **settings):
    settings = {"seconds": math.inf, "steps": 5, **settings}
    x_validation, y_validation = validation
    return fit_critic(*training, x_validation=x_validation, y_validation=y_validation, **settings)


@torch.no_grad()
def value(fit, samples):
    return kr_value(fit.critic, *samples).item()


# Truth -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("oracle", "steps", "share"),
    [
        (RayMonotone(dim=8, funnels=4, draws=50_000), 10, 0.9),
        (Dilation(dim=16, factor=1.5), 5, 0.95),
        (Shift(dim=16, length=3.0), 5, 0.98),
        (Marginal(dim=1), 10, 0.95),
        (Marginal(dim=16, mean=0.0), 10, 0.95),
    ],
    ids=lambda case: getattr(case, "name", ""),
)
def test_held_out_values_approach_the_w1_of_the_laws_from_below(oracle, steps, share):
    training, validation, held_out = drawn(oracle, 1000)
    fit = fitted(training, validation, steps=steps)
    potential = oracle.potential(held_out[0]).mean() - oracle.potential(held_out[1]).mean()
    noise = abs(potential.item() - oracle.w1) + 0.01 * oracle.w1
    assert share * oracle.w1 - noise <= value(fit, held_out) <= oracle.w1 + 2 * noise
    assert certify(fit.critic).lipschitz <= 1


def test_two_samples_of_one_law_are_told_apart_by_no_more_than_noise():
    for dim in (2, 16):
        x, y = torch.randn(2, 1000, dim, generator=generator(), dtype=torch.float64)
        fit = fitted((x[:400], y[:400]), (x[400:600], y[400:600]))
        noise = math.sqrt(2 / 400)  # the standard error of the difference of means of 1-Lipschitz values
        assert abs(value(fit, (x[600:], y[600:]))) < 4 * noise
        assert abs(fit.validation_value) < 6 * math.sqrt(2 / 200)


def test_simple_pairs_have_simple_critics():
    assert fitted(*drawn(Shift(dim=8, length=2.0), 400)[:2], steps=2).name == "linear"
    assert fitted(*drawn(Dilation(dim=8, factor=2.0), 400)[:2], critic="cones", steps=10).name == "cones-1-"
    assert fitted(*drawn(Dilation(dim=8, factor=0.3), 400)[:2], critic="cones", steps=10).name == "cones-1+"


@pytest.mark.parametrize(
    ("critic", "dim"), [(name, dim) for name in critic_names() for dim in (1, 5) if (name, dim) != ("fixed_width", 1)]
)
def test_no_value_exceeds_exact_transport_on_the_same_samples(critic, dim):
    x = torch.randn(60, dim, generator=generator(1))
    y = 0.5 * torch.randn(50, dim, generator=generator(2)) + 1
    training, validation = (x[:40], y[:30]), (x[40:], y[30:])
    fit = fitted(training, validation, critic=critic, steps=1)
    for samples, stated in ((training, fit.train_value), (validation, fit.validation_value)):
        exact = solve(*samples).value
        assert stated <= exact * (1 + 1e-12)
        assert bracket(fit.critic, *samples).lower == pytest.approx(max(stated, 0), abs=1e-9)
    assert fit.train_value > 0.2 * exact
    assert fit.steps > 0
    assert not fit.critic.training
    assert fit.name == critic or critic in ("auto", "cones")


def test_weights_stand_for_repeated_rows():
    x = torch.randn(80, 2, generator=generator())
    y = torch.randn(60, 2, generator=generator(1)) + torch.tensor([2.0, 0.0])
    a = torch.zeros(80)
    a[:40] = torch.arange(1.0, 41.0)
    x[40:] += 1000.0  # weightless, and never drawn: the linear direction would change
    b = torch.rand(60, generator=generator(2))
    fit = fitted((x, y), (x[:40], y), a=a, b=b)
    exact = solve(x, y, a=a / a.sum(), b=b / b.sum()).value
    assert 0.9 * exact < fit.train_value <= exact * (1 + 1e-9)


# Units -----------------------------------------------------------------------------------------------------------


def test_a_scale_by_a_power_of_two_changes_the_value_by_it_and_nothing_else():
    training, validation, _ = drawn(RayMonotone(dim=3, funnels=4, draws=10), 100)
    base = fitted(training, validation, steps=1)
    for power in (-600, 27, 600):
        scaled = fitted(*(tuple(z * 2.0**power for z in pair) for pair in (training, validation)), steps=1)
        assert scaled.name == base.name
        assert scaled.train_value == base.train_value * 2.0**power
        assert scaled.validation_value == base.validation_value * 2.0**power
        assert certify(scaled.critic).lipschitz == certify(base.critic).lipschitz <= 1


def test_any_scale_and_offset_will_do():
    training, validation, held_out = drawn(RayMonotone(dim=3, funnels=4, draws=10), 300)
    base = value(fitted(training, validation, critic="cones", steps=5), held_out)
    for scale, offset in ((1e-8, 0.0), (1e8, 0.0), (1.0, 1e6), (1e-8, 1e-2), (1e8, -1e14)):
        moved = [tuple(scale * z + offset for z in pair) for pair in (training, validation, held_out)]
        fit = fitted(*moved[:2], critic="cones", steps=5)
        assert value(fit, moved[2]) / scale == pytest.approx(base, rel=0.03)
        assert certify(fit.critic).lipschitz <= 1
        lower = kr_lower_bound(fit.critic, *moved[0])
        assert lower == pytest.approx(fit.train_value, rel=1e-6)  # little is lost to the rounding of its evaluation


@pytest.mark.parametrize("critic", critic_names())
def test_degenerate_samples_have_w1_as_well(critic):
    one = torch.full((2, 3), 5.0)
    fit = fitted((one, one), (one, one), critic=critic, steps=1)
    assert fit.train_value == pytest.approx(0, abs=1e-12)
    apart = fitted((one[:1], one[:1] + 1), (one, one + 1), critic=critic, steps=1)
    assert 0.5 < apart.train_value <= math.sqrt(3) * (1 + 1e-12)


def test_an_outlier_does_not_set_the_scale():
    training, validation, held_out = drawn(RayMonotone(dim=3, funnels=4, draws=10), 400)
    base = value(fitted(training, validation, critic="cones", steps=10), held_out)
    training[0][0] = 1e7
    assert value(fitted(training, validation, critic="cones", steps=10), held_out) > 0.9 * base


# Samplers --------------------------------------------------------------------------------------------------------


def test_samplers_give_fresh_batches():
    source, seen = Moons(), []

    def moons(n, rng):
        seen.append(source.sample(n, rng))
        return seen[-1]

    def shifted(n, rng):
        return source.sample(n, rng).double() + torch.tensor([3.0, 4.0])

    fit = fitted((shifted, moons), (shifted(300, generator()), moons(300, generator())), critic="cones")
    assert fit.validation_value == pytest.approx(5, abs=0.4)
    assert fit.train_value == pytest.approx(5, abs=0.3)
    batches = {float(rows[0, 0]) for rows in seen}
    assert len(batches) >= 5 * 15 + 2  # no two alike, but for those that all candidates share


def test_a_sampler_may_meet_a_finite_set():
    y = torch.zeros(5, 2)
    fit = fitted((lambda n, rng: torch.randn(n, 2, generator=rng), y), (torch.randn(400, 2), y))
    assert fit.train_value == pytest.approx(math.sqrt(math.pi / 2), abs=0.05)  # E|N(0, I)| in the plane


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (lambda n, rng: torch.zeros(n, 3), "dimension 2"),
        (lambda n, rng: torch.zeros(n - 1, 2), "4095 samples instead of 4096"),
        (lambda n, rng: torch.full((n, 2), math.nan), "samples drawn by x must be finite"),
        (lambda n, rng: "rows", "real numbers"),
    ],
)
def test_a_sampler_that_draws_something_else_is_named(sampler, message):
    with pytest.raises(InputError, match=message):
        fitted((sampler, torch.randn(5, 2)), (torch.randn(5, 2), torch.randn(5, 2)))


# A critic of one's own -------------------------------------------------------------------------------------------


def test_a_module_is_copied_and_trained():
    critic = ResNetCritic(2, width=16, depth=2).double()
    before = weights_sha256(critic)
    x, y = torch.randn(200, 2) + 2, torch.randn(200, 2)
    fit = fitted((x[:100], y[:100]), (x[100:], y[100:]), critic=critic, steps=20)
    assert weights_sha256(critic) == before != weights_sha256(fit.critic)
    assert fit.name == "ResNetCritic"
    assert fit.validation_value > kr_value(critic, x[100:].double(), y[100:].double()).item() + 0.1
    assert certify(fit.critic).lipschitz <= 1 + 1e-12
    assert next(fit.critic.parameters()).dtype == torch.float64


def test_the_value_of_a_critic_without_constraints_is_over_its_certified_constant():
    critic = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1), Squeeze())
    x, y = torch.randn(200, 2) + 3, torch.randn(200, 2)
    fit = fitted((x[:100], y[:100]), (x[100:], y[100:]), critic=critic, steps=40)
    constant = certify(fit.critic).lipschitz
    assert constant > 1.05
    assert fit.train_value == pytest.approx(value(fit, (x[:100], y[:100])) / constant, abs=1e-5)
    assert 0 < fit.train_value <= solve(x[:100], y[:100]).value


def test_a_critic_that_leaves_the_numbers_is_kept_as_it_was_before():
    critic = nn.Sequential(nn.Linear(2, 1), Squeeze())
    x, y = torch.full((2, 50, 2), 1e30) * torch.tensor([1.0, -1.0])[:, None, None]  # gradients overflow in float32
    fit = fitted((x, y), (x, y), critic=critic)
    assert weights_sha256(fit.critic) == weights_sha256(critic)
    assert math.isfinite(fit.train_value)


def test_a_critic_with_nothing_to_train_is_evaluated():
    critic = ResNetCritic(2, width=8, depth=1).requires_grad_(False)
    x, y = torch.randn(50, 2) + 1, torch.randn(50, 2)
    fit = fitted((x, y), (x, y), critic=critic)
    assert fit.steps == 0
    assert weights_sha256(fit.critic) == weights_sha256(critic)


# The run ---------------------------------------------------------------------------------------------------------


def test_a_fit_is_a_function_of_its_arguments():
    training, validation, _ = drawn(RayMonotone(dim=3, funnels=4, draws=10), 100)
    state = torch.get_rng_state()
    fits = [fitted(training, validation, seed=seed, steps=1) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert weights_sha256(fits[0].critic) == weights_sha256(fits[1].critic) != weights_sha256(fits[2].critic)
    assert fits[0].train_value == fits[1].train_value
    assert fits[0].steps == fits[1].steps


def test_progress_is_told():
    told = []
    training, validation, _ = drawn(Shift(dim=2), 100)
    fit = fitted(training, validation, on_progress=told.append)
    assert [one.steps for one in told] == sorted(one.steps for one in told)
    assert [one.seconds for one in told] == sorted(one.seconds for one in told)
    assert [one.validation_value for one in told] == sorted(one.validation_value for one in told)
    rounds = {one.round for one in told}
    assert rounds == set(range(1, max(rounds) + 1)) and 4 <= max(rounds) <= told[0].rounds
    assert told[-1].steps == fit.steps
    assert told[-1].validation_value >= fit.validation_value - 1e-5
    assert {"linear", "resnet", fit.name} <= {one.name for one in told}


def test_no_time_at_all_gives_a_certified_start():
    training, validation, _ = drawn(Shift(dim=2), 100)
    fit = fitted(training, validation, seconds=1e-9)
    assert fit.steps == 0
    assert fit.train_value > 0.9
    assert certify(fit.critic).lipschitz <= 1


GOOD = torch.randn(6, 2, generator=generator())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": GOOD[:, :1]}, "x must have dimension 2"),
        ({"y": GOOD[:, 0]}, "y must have dimension 2"),
        ({"x": GOOD * math.nan}, "x must be finite"),
        ({"x": GOOD[:0]}, "at least one sample"),
        ({"x_validation": GOOD[:1]}, "at least 2 samples"),
        ({"y_validation": GOOD[:, :1]}, "same dimension"),
        ({"a": torch.ones(5)}, "a must hold 6 weights"),
        ({"b": -torch.ones(6)}, "b must be finite and non-negative"),
        ({"x": lambda n, rng: GOOD[:n], "a": torch.ones(6)}, "x is a sampler, which takes no weights a"),
        ({"critic": "gan"}, "auto, cones, principal, resnet, sorting, fixed_width"),
        ({"critic": None}, "a name or a torch module"),
        ({"critic": ResNetCritic(3, width=8, depth=1)}, r"Euclidean\(2\)"),
        ({"seconds": 0}, "seconds must be positive"),
        ({"seconds": math.nan}, "seconds must be positive"),
        ({"steps": 0}, "steps must be an integer"),
        ({"seed": -1}, "seed must be an integer"),
        ({"device": "abacus"}, "can't use the device"),
    ],
)
def test_bad_input_is_told_in_one_line(change, message):
    arguments = {"x": GOOD, "y": GOOD, "x_validation": GOOD, "y_validation": GOOD, **change}
    with pytest.raises(InputError, match=message):
        fit_critic(arguments.pop("x"), arguments.pop("y"), **arguments)


def test_a_critic_without_a_proof_is_refused():
    with pytest.raises(UncertifiableError, match="Bilinear"):
        fitted((GOOD, GOOD), (GOOD, GOOD), critic=nn.Sequential(nn.Bilinear(2, 2, 1)))


def test_without_time_each_candidate_is_looked_at_once(monkeypatch):
    """In 300,000 dimensions a look takes seconds, and without an ascent since the last one it shows nothing new."""
    looks, genuine = [], fitting._Trainee.look
    monkeypatch.setattr(fitting._Trainee, "look", lambda trainee: looks.append(trainee) or genuine(trainee))
    training, validation, _ = drawn(Shift(dim=3, length=1.0), 40)
    assert fitted(training, validation, critic="resnet", seconds=1e-9).steps == 0
    assert len(looks) == 1
    looks.clear()
    fit = fitted(training, validation, critic="resnet", steps=1)
    assert fit.steps == 2**fitting.ROUNDS - 1, "short rounds end no fit"
    assert len(looks) == 1 + fitting.ROUNDS + fit.steps // fitting.CHECK_EVERY


# When it ends ----------------------------------------------------------------------------------------------------


class Some(Candidate):
    """Of one family."""


class Other(Candidate):
    """Of another."""


class Trainee:
    """Stands for a candidate in training: gains what it is told to, round by round, and notes the lengths of these."""

    may_exceed = fitting._Trainee.may_exceed
    cut = False

    def released(self, steps, clock):
        return None

    def promise(self, seconds):
        return self.value + self.promised

    def __init__(self, value, *gains, values=(0.0, 0.0), trains=True, candidate=None, promised=0.0):
        self.candidate, self.promised = candidate or Some(), promised
        self.value, self.gains, self.trains, self.lengths = value, list(gains), trains, []
        self.values = torch.tensor([value, value]) + torch.tensor(values), torch.zeros(2)

    def train(self, length, parts, clock):
        self.lengths.append(length)
        gain = self.gains.pop(0) if self.gains else 0.0
        self.value += max(gain, 0.0)
        return gain if gain > 0 else -math.inf


def lengths_of(*trainees, steps=10):
    fitting._rounds(list(trainees), steps, fitting._Clock(0.0, math.inf, None))
    return [trainee.lengths for trainee in trainees]


def test_a_candidate_trains_while_it_gains_and_no_longer():
    doubled = [10, 20, 40, 80, 160, 320, 640]
    assert lengths_of(Trainee(0.0)) == [doubled[:1]]
    assert lengths_of(Trainee(0.0, 1.0, 0.5)) == [doubled[:3]]
    assert lengths_of(Trainee(0.0, *[1.0] * 99)) == [doubled]
    assert lengths_of(Trainee(9.0, trains=False), Trainee(0.0, 1.0)) == [[], doubled[:1]], "9 is out of reach"
    assert lengths_of(Trainee(9.0, trains=False), Trainee(0.0, 4.0, 1.0)) == [[], doubled[:2]], "4 + 8 is not"


def test_of_those_that_gain_the_better_half_goes_on():
    found = lengths_of(*(Trainee(value, *[1.0] * 99) for value in (0.1, 0.2, 0.3, 0.4)))
    assert list(map(len, found)) == [1, 1, 2, 7]


def test_at_first_candidates_compete_within_their_families():
    cones = [Trainee(value, *[1.0] * 99) for value in (0.3, 0.4, 0.5, 0.6)]
    network = Trainee(0.1, *[1.0] * 99, candidate=Other())
    assert list(map(len, lengths_of(*cones, network))) == [1, 1, 2, 7, fitting.FAMILIES + 1]


def test_where_time_is_short_the_best_one_trains_on_alone_in_one_go():
    cones = [Trainee(value, *[1.0] * 99) for value in (0.3, 0.4)]
    network = Trainee(0.1, *[2.0] * 99, candidate=Other())
    network.cut = True
    rounds = [10 * 2**index for index in range(fitting.ROUNDS)]
    short = fitting.FAMILIES
    assert lengths_of(*cones, network)[2] == [*rounds[:short], sum(rounds[short:])]
    assert cones[1].lengths == rounds[:short]


def test_where_time_is_short_the_one_goes_on_that_promises_most():
    quick, slow = Trainee(5.0, *[1.0] * 99), Trainee(0.1, *[2.0] * 99, candidate=Other(), promised=9.0)
    quick.cut = slow.cut = True
    assert list(map(len, lengths_of(quick, slow))) == [fitting.FAMILIES, fitting.FAMILIES + 1]


def test_a_promise_is_what_ever_weaker_doublings_add_up_to():
    """After 100 ascents, at 10 a second: 70 seconds make them 800, three doublings."""
    trainee = SimpleNamespace(value=1.0, doubling=0.5, pace=10.0, steps=100)
    fading = fitting.FADING
    expected = 1.0 + 0.5 * (fading + fading**2 + fading**3)
    assert fitting._Trainee.promise(trainee, 70.0) == pytest.approx(expected)
    assert fitting._Trainee.promise(trainee, 0.0) == 1.0


def test_a_round_tells_what_a_doubling_gains_and_how_fast_it_goes():
    training, validation, _ = drawn(Shift(dim=2, length=2.0), 200)
    seen = []
    genuine = fitting._Trainee.train

    def train(trainee, steps, part, clock):
        before = trainee.steps, trainee.value
        gain = genuine(trainee, steps, part, clock)
        seen.append((*before, trainee.steps, trainee.value, trainee.doubling, trainee.pace))
        return gain

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting._Trainee, "train", train)
        fitted(training, validation, steps=10, critic="resnet")
    later = [round_ for round_ in seen if 0 < round_[0] < round_[2]]
    assert later
    for steps, value_before, steps_after, value_after, doubling, pace in later:
        assert doubling * math.log2(steps_after / steps) == pytest.approx(value_after - value_before) and pace > 0


def test_families_share_the_time_and_each_shares_its_part_among_its_members():
    cones, network = [Trainee(0.0) for _ in range(3)], Trainee(0.0, candidate=Other())
    assert fitting._shares([*cones, network]) == pytest.approx([1 / 6] * 3 + [1 / 2])
    network.candidate.say = 3.0
    assert fitting._shares([*cones, network]) == pytest.approx([1 / 12] * 3 + [3 / 4])


def test_what_validation_samples_cannot_tell_apart_is_no_reason_to_go_on():
    """Values (1, −1) around their mean at two samples of P: the standard error of the difference of the means is 1."""
    chosen, other = Trainee(2.0), Trainee(2.0, values=(1.0, -1.0))
    assert fitting._paired_error(chosen.values, other.values) == pytest.approx(1.0)
    assert [other.may_exceed(chosen, gain) for gain in (0.0, 0.99, 1.01)] == [False, False, True]
    assert chosen.may_exceed(chosen, 0.0)


def test_a_fit_of_a_shift_ends_early_and_finds_it():
    """A linear potential is there from the start, and nothing that trains is told from it."""
    training, validation, held_out = drawn(Shift(dim=2, length=2.0), 200)
    fit = fitted(training, validation, steps=fitting.STEPS, critic="cones")
    everything = fitting.STEPS * (2**fitting.ROUNDS - 1)
    assert 0 < fit.steps < 5 * everything, "ten candidates in full would be ten times that"
    noise = math.sqrt(2 / 200)
    assert value(fit, held_out) == pytest.approx(2.0, abs=4 * noise)


@pytest.mark.parametrize(("left", "allowed"), [(40.0, 4.0), (math.inf, math.inf)])
def test_the_plan_that_cones_start_at_takes_a_tenth_of_the_time_left_at_most(left, allowed, monkeypatch):
    asked = []

    def largest(call, most, seconds, **_):
        asked.append((most, seconds))
        return 100, call(100)

    monkeypatch.setattr(candidates, "largest_in_time", largest)
    x, y = drawn(Shift(dim=4), 300)[0]
    start = candidates.Start(candidates.Units.of(x, y), x.float(), y.float(), generator(), lambda: left)
    assert len(list(candidates._cones(start))) > 2
    assert asked == [(300, allowed)]
