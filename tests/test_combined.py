"""Critics made of critics: their values, their constants, and that all of a critic's services reach every part."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wgan_lip.benchmarks.methods import METHODS
from wgan_lip.cli import main
from wgan_lip.critics import (
    CombinedCritic,
    MeanCritic,
    PenalizedCritic,
    PrincipalCritic,
    ResNetCritic,
    SortingCritic,
    clipped,
    maximum,
    mean,
    minimum,
    mixture,
    scaled,
    shifted,
    weighted_sum,
)
from wgan_lip.generators import MLPGenerator
from wgan_lip.lipschitz.adversary import find_steepest_slope
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.certificates import Certificate, certify, evaluate, prove, verify
from wgan_lip.lipschitz.layers import (
    GradientFlow,
    Identity,
    Linear,
    Maximum,
    Minimum,
    Parallel,
    Squeeze,
    WeightedSum,
    constrain_steps,
)
from wgan_lip.runs.export import export_players, load_exported
from wgan_lip.runs.run import load_run
from wgan_lip.runs.targets import build, recipe
from wgan_lip.utils.checks import InputError, UncertifiableError
from wgan_lip.wasserstein.dual import ascend
from wgan_lip.wasserstein.fitting import fit_critic


def affine(slope, offset=0.0, dtype=torch.float64):
    """x ↦ ⟨slope, x⟩ + offset, whose constant is |slope|."""
    layer = Linear(Norm((len(slope),)), Norm((1,)))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([slope]))
        layer.bias.fill_(offset)
    return nn.Sequential(layer, Squeeze()).to(dtype)


def small(kind=SortingCritic, **arguments):
    return kind(3, width=6, depth=2, **arguments)


STEEP, FLAT = affine([0.0, 3.0]), affine([1.0, 0.0], 2.0)
X = torch.randn(50, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
F, G = 3 * X[:, 1], X[:, 0] + 2
TABLE = {
    "maximum": (maximum(STEEP, FLAT), torch.maximum(F, G), 3.0),
    "minimum": (minimum(STEEP, FLAT), torch.minimum(F, G), 3.0),
    "mean": (mean(STEEP, FLAT), (F + G) / 2, 2.0),
    "mean of three": (mean(STEEP, FLAT, FLAT), (F + 2 * G) / 3, 5 / 3),
    "weighted sum": (weighted_sum([STEEP, FLAT], [0.5, -2.0], 1.0), F / 2 - 2 * G + 1, 3.5),
    "difference of one and the same": (weighted_sum([FLAT, FLAT], [1.0, -1.0]), 0 * G, 2.0),
    "scaled": (scaled(STEEP, -0.25), -F / 4, 0.75),
    "shifted": (shifted(FLAT, 5.0), G + 5, 1.0),
    "clipped": (clipped(FLAT, 1.5, 2.5), G.clamp(1.5, 2.5), 1.0),
    "clipped from above": (clipped(STEEP, high=0.0), F.clamp_max(0), 3.0),
    "nested": (clipped(maximum(scaled(STEEP, 0.5), minimum(FLAT, STEEP)), low=0.0),
               torch.maximum(F / 2, torch.minimum(G, F)).clamp_min(0), 3.0),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_values_and_constants_are_those_of_the_closed_form(name):
    critic, values, constant = TABLE[name]
    assert torch.allclose(critic(X), values, rtol=1e-14, atol=1e-14)
    found = certify(critic).lipschitz
    assert constant * (1 - 1e-15) <= found <= constant * (1 + 1e-12)


@pytest.mark.parametrize("name", TABLE)
def test_an_evaluation_encloses_the_values_in_real_arithmetic(name):
    """Dyadic samples and weights, on which the closed form is exact."""
    critic, _, _ = TABLE[name]
    x = (8 * X).round() / 8
    f, g = 3 * x[:, 1], x[:, 0] + 2
    truth = {
        "maximum": torch.maximum(f, g),
        "weighted sum": f / 2 - 2 * g + 1,
        "clipped": g.clamp(1.5, 2.5),
        "nested": torch.maximum(f / 2, torch.minimum(g, f)).clamp_min(0),
    }.get(name)
    found = evaluate(critic, x)
    assert (found.error > 0).all() and found.error.max() < 1e-12
    assert torch.allclose(found.values, critic(x), rtol=1e-13, atol=1e-13)
    if truth is not None:
        assert ((found.values - truth).abs() <= found.error).all()


def test_the_error_of_an_evaluation_comes_from_every_part():
    """Nothing but the second part loses digits, by cancellation of numbers near 2⁵⁰."""
    far = affine([1.0, 0.0], 2.0**50)
    losing = nn.Sequential(*far[:1], nn.Hardtanh(-math.inf, math.inf), *shifted_back(2.0**50), Squeeze())
    x = torch.tensor([[0.1, 0.0]], dtype=torch.float64)
    for critic in (maximum(FLAT, losing), minimum(FLAT, losing), mean(FLAT, losing), mixture(FLAT, losing).double()):
        found = evaluate(critic, x)
        exact = {Maximum: 2.1, Minimum: 0.1}.get(type(critic.combined), (2.1 + 0.1) / 2)
        assert abs(found.values.item() - exact) <= found.error.item()
    assert abs(evaluate(minimum(FLAT, losing), x).values.item() - 0.1) > 1e-3, "the test loses no digits"


def shifted_back(offset):
    return [affine([1.0], -offset)[0]]


# The algebra of it: whatever is combined, slopes stay below the constant, and the constant is that of the rule.

LEAVES = st.builds(lambda a, b, c: affine([a, b], c), *[st.integers(-4, 4).map(float)] * 3)


def of_parts(parts):
    several = st.lists(parts, min_size=1, max_size=3)
    numbers = st.integers(-3, 3).map(float)
    return st.one_of(
        several.map(lambda critics: maximum(*critics)),
        several.map(lambda critics: minimum(*critics)),
        several.map(lambda critics: mean(*critics)),
        st.tuples(several, numbers, numbers).map(lambda t: weighted_sum(t[0], [t[1]] * len(t[0]), t[2])),
        st.tuples(parts, numbers).map(lambda pair: clipped(pair[0], pair[1])),
    )


def constant_of(critic):
    """By the rules, from the leaves."""
    if not isinstance(critic, CombinedCritic):
        return critic[0].weight.norm().item()
    parts = [constant_of(part) for part in critic.combined.layers]
    if isinstance(critic.combined, WeightedSum):
        return sum(abs(weight) * part for weight, part in zip(critic.combined.weights, parts))
    return max(parts)


def value_of(critic, x):
    if not isinstance(critic, CombinedCritic):
        return (x @ critic[0].weight.T + critic[0].bias)[:, 0]
    parts = torch.stack([value_of(part, x) for part in critic.combined.layers])
    match critic.combined:
        case Maximum():
            value = parts.max(dim=0).values
        case Minimum():
            value = parts.min(dim=0).values
        case WeightedSum(weights=weights, shift=shift):
            value = (x.new_tensor(weights)[:, None] * parts).sum(dim=0) + shift
    return value.clamp_min(critic.clip.min_val) if hasattr(critic, "clip") else value


@settings(max_examples=25, deadline=None)
@given(st.recursive(LEAVES, of_parts, max_leaves=6).filter(lambda critic: isinstance(critic, CombinedCritic)))
def test_combinations_of_combinations_have_the_values_and_constants_of_the_rules(critic):
    proof = prove(critic)
    assert proof.certificate.lipschitz == pytest.approx(constant_of(critic), rel=1e-10, abs=1e-300)
    assert proof.certificate.lipschitz >= constant_of(critic) * (1 - 1e-15)
    found, truth = proof.evaluate(X), value_of(critic, X)
    assert torch.allclose(found.values, truth, rtol=1e-12, atol=1e-12) and torch.equal(critic(X), found.values)
    x = X.clone().requires_grad_(True)
    (slopes,) = torch.autograd.grad(critic(x).sum(), x)
    assert slopes.norm(dim=1).max() <= proof.certificate.lipschitz * (1 + 1e-12)
    verify(proof.certificate, critic)


def test_a_mean_of_any_number_of_critics_is_at_most_1():
    """Five times the float next to 1/5 is more than 1."""
    unit = nn.Sequential(Identity(Norm((1,))), Squeeze())  # of constant 1, without a bound's slack
    for count in range(1, 50):
        assert 1 - 1e-15 <= certify(mean(*[unit] * count)).lipschitz <= 1


def test_a_mixture_is_trained_and_stays_at_1():
    critic = mixture(small(), small(ResNetCritic), weights=[3.0, -1.0])
    assert torch.allclose(critic.combined.weight, torch.tensor([[0.75, -0.25]]), atol=1e-5)
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.1)
    constrain_steps(optimizer, critic)
    before = critic.combined.weight.clone()
    for _ in range(3):
        ascend(critic, optimizer, torch.randn(20, 3) + 1, torch.randn(20, 3))
        weights = critic.combined.weight.detach()
        assert weights.abs().sum() <= 1 and certify(critic).lipschitz <= 1
    assert (weights - before).abs().max() > 0.01


# Every part is reached.


def test_a_step_moves_and_retracts_every_part():
    critic = clipped(maximum(small(), minimum(small(ResNetCritic), small())), -5.0, 5.0)
    parts = {name: value.clone() for name, value in critic.named_parameters()}
    optimizer = torch.optim.SGD(critic.parameters(), lr=1.0)
    constrain_steps(optimizer, critic)
    for parameter in critic.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    weights = [(name, value) for name, value in critic.named_parameters() if value.ndim == 2]
    assert len(weights) == 10 and all(not torch.equal(value, parts[name]) for name, value in weights)
    assert certify(critic).lipschitz <= 1
    with torch.no_grad():
        critic.get_parameter("combined.layers.0.combined.layers.1.combined.layers.0.lift.weight").mul_(7)
    assert certify(critic).lipschitz == pytest.approx(7, rel=0.05)
    constrain_steps(other := torch.optim.SGD(critic.parameters(), lr=0.0), critic)
    other.step()
    assert certify(critic).lipschitz <= 1


def test_parts_start_at_the_samples_and_cones_in_them_are_renewed():
    cones = ResNetCritic(3, depth=0, readout="cones", centers=5)
    principal = PrincipalCritic(3, axes=1)
    critic = mean(small(), maximum(cones), principal)
    x, y = torch.randn(60, 3) + 5, 3 * torch.randn(60, 3) - 4
    alone = copy.deepcopy(cones)
    torch.manual_seed(1)
    critic.start_at(x, y)
    assert critic.spread > 2
    tips = cones.readout.centers
    assert not torch.allclose(tips, alone.readout.centers)
    distances = torch.cdist(tips.detach(), torch.cat((x, y)))
    assert distances.min(dim=1).values.max() < 4, "the tips are where the samples are"
    axis = torch.linalg.svd(torch.cat((x, y)) - torch.cat((x, y)).mean(0))[2][0]
    assert abs(principal.principal.weight[0] @ axis) > 0.99
    with torch.no_grad():
        cones.readout.centers[0] += 1e4  # felt nowhere
    alone = copy.deepcopy(cones)
    moved = []
    for each in (critic, alone):
        torch.manual_seed(2)
        moved.append(each.renew(x, y))
    assert moved[0] == moved[1] >= 1
    assert torch.equal(cones.readout.centers, alone.readout.centers)


def test_parts_are_shared_and_members_are_not():
    part = small()
    assert maximum(part, small()).combined.layers[0] is part
    critic = MeanCritic(MeanCritic(part, members=2), members=3)
    weights = [p for name, p in critic.named_parameters() if name.endswith("affine_1.weight")]
    assert len(weights) == len({id(weight) for weight in weights}) == 6
    assert all(not torch.equal(weights[0], other) for other in weights[1:])
    assert all(type(member) is MeanCritic for member in critic.combined.layers)


def test_a_part_that_works_in_place_leaves_the_samples_of_the_others():
    inner = nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True), *affine([1.0, 1.0]))
    critic = maximum(inner, affine([1.0, 0.0]))
    x = torch.tensor([[-1.0, -2.0], [3.0, -9.0]], dtype=torch.float64)
    expected = torch.tensor([0.0, 3.0], dtype=torch.float64)
    assert torch.allclose(evaluate(critic, x).values, expected)
    assert torch.allclose(critic(x.clone()), expected)


# What is refused.


def test_what_is_wrong_inside_a_part_is_refused_by_its_path():
    critic = maximum(small(), scaled(small(), 0.5))
    path = r"combined\.layers\.1\.combined\.layers\.0\.affine_1"
    inner = critic.get_submodule("combined.layers.1.combined.layers.0.affine_1")
    handle = inner.register_forward_hook(lambda module, args, output: 10 * output)
    with pytest.raises(UncertifiableError, match=f"{path}.*forward hooks"):
        certify(critic)
    handle.remove()
    inner.forward = lambda x: 10 * x
    with pytest.raises(UncertifiableError, match=f"{path}.*a method replaced"):
        certify(critic)
    del inner.forward
    inner.weight.data[0, 0] = math.nan
    with pytest.raises(InputError, match=rf"At '{path}'.*finite"):
        certify(critic)


@pytest.mark.parametrize(
    ("kind", "name"), [(Maximum, "together"), (WeightedSum, "carried"), (nn.ModuleList, "__iter__")]
)
def test_a_rule_that_was_changed_after_it_was_defined_is_refused(kind, name, monkeypatch):
    critic = weighted_sum([small()], [1.0]) if kind is WeightedSum else maximum(small())
    genuine = getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda self, *given: genuine(self, *given))
    with pytest.raises(UncertifiableError, match=rf"changed after it was defined \({kind.__name__}\.{name}\)"):
        certify(critic)


def test_a_rule_of_ones_own_needs_a_constant_of_its_own():
    class Total(Maximum):
        def together(self, values):
            return sum(values)

    class Proved(Total):
        def joint_constant(self, constants):
            return sum(constants)

    with pytest.raises(UncertifiableError, match="Total overrides together, so it must override"):
        certify(Total(STEEP, FLAT))
    assert certify(Proved(STEEP, FLAT)).lipschitz == pytest.approx(4)


def test_a_part_without_a_proof_is_refused():
    with pytest.raises(UncertifiableError, match=r"'combined\.layers\.1\.1'.*LayerNorm has no"):
        critic = maximum(small(), small())
        critic.combined.layers[1] = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
        certify(critic)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: maximum(), "at least one"),
        (lambda: maximum(small(), SortingCritic(4, width=6)), "the same dimension, not 3, 4"),
        (lambda: maximum(small(), small(heads=2)), "the same number of heads, not 1, 2"),
        (lambda: maximum(small(), "sorting"), "a list of at least one critic"),
        (lambda: CombinedCritic(small()), "a list of at least one critic"),
        (lambda: CombinedCritic([small()], "median"), "rule"),
        (lambda: mean(PenalizedCritic(3, width=4)), "PenalizedCritic is trained with a penalty"),
        (lambda: weighted_sum([small()], [1.0, 2.0]), "weights must be 1 finite numbers"),
        (lambda: scaled(small(), math.inf), "finite numbers"),
        (lambda: shifted(small(), math.nan), "shift must be finite"),
        (lambda: mixture(small(), small(), weights=[0.0, 0.0]), "must not all be 0"),
        (lambda: CombinedCritic([small()], "maximum", weights=[1.0]), "A maximum takes no weights"),
        (lambda: CombinedCritic([small()], "mixture", shift=1.0), "A mixture takes no shift"),
        (lambda: clipped(small(), 1.0, 1.0), "low must be below high, not 1.0 and 1.0"),
        (lambda: clipped(small(), math.nan), "low must be below high"),
        (lambda: MeanCritic(small(), members=0), "members must be at least 1, not 0"),
        (lambda: MeanCritic(nn.Linear(3, 1)), "a critic of this package"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(make, message):
    with pytest.raises(InputError, match=message) as told:
        make()
    assert "\n" not in str(told.value)


def test_layers_in_other_norms_do_not_join():
    flow = GradientFlow(2, 2)
    with pytest.raises(InputError, match="inside Maximum must return values, in their maximum norm, not Euclidean"):
        certify(Maximum(flow, flow))
    with pytest.raises(InputError, match="Maps inside Maximum must have the same norms"):
        certify(Maximum(affine([1.0]), affine([1.0, 2.0])))


# Certificates.


def test_a_certificate_lists_the_layers_of_parts_which_count_in_the_join_alone(tmp_path):
    critic = clipped(mean(small(), small()), -1.0, 1.0)
    certificate = certify(critic)
    rows = {row.path: row for row in certificate.layers}
    inner = [path for path in rows if path.startswith("combined.layers.0.combined.layers.1.")]
    assert [path.rpartition(".")[2] for path in inner] == [name for name, _ in small().named_children()]
    assert rows["combined.layers.0.combined"].layer.startswith("WeightedSum(weights=(0.5, 0.5)")
    assert list(rows)[-3:] == ["combined", "clip", "squeeze"]
    certificate.save(tmp_path / "certificate.json")
    assert verify(Certificate.load(tmp_path / "certificate.json"), critic) == certificate
    for changed in (mean(small(), small()), clipped(mean(small(), small()), -1.0, 1.5)):
        changed.load_state_dict({k: v for k, v in critic.state_dict().items() if k in changed.state_dict()}, False)
        with pytest.raises(InputError, match="about"):
            verify(certificate, changed)


def test_settings_of_the_rule_are_part_of_the_architecture():
    parts = [small(), small()]
    of = [
        weighted_sum(parts, weights, shift) for weights, shift in (([0.5, 0.5], 0), ([0.5, -0.5], 0), ([0.5, 0.5], 1))
    ]
    assert len({certify(critic).architecture_sha256 for critic in of}) == 3
    assert len({certify(critic).weights_sha256 for critic in of}) == 1


def test_a_proof_keeps_its_own_copy_of_every_part():
    critic = maximum(small(), small())
    proof, x = prove(critic), torch.randn(5, 3)
    before = proof.evaluate(x).values
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.mul_(2)
    assert torch.equal(proof.evaluate(x).values, before)


def test_critics_side_by_side_on_blocks():
    critic = Parallel(small(), small(ResNetCritic), GradientFlow(2, 2))
    certificate = certify(critic)
    assert (certificate.norm_in, certificate.norm_out) == ("block-max(3+3+2)", "block-max(1+1+2)")
    x = torch.randn(7, 8)
    apart = [critic.layers[0](x[:, :3])[:, None], critic.layers[1](x[:, 3:6])[:, None], critic.layers[2](x[:, 6:])]
    assert torch.equal(critic(x), torch.cat(apart, dim=1))
    assert 0.99 < certificate.lipschitz <= 1


# Its services.


@pytest.mark.parametrize(
    "make", [lambda: MeanCritic(small(), members=3), lambda: clipped(minimum(small(), small()), 0.0)]
)
def test_a_configuration_builds_it_again(make):
    critic = make()
    section = recipe("critic", critic)
    other = build("critic", section, dim=3, image_shape=None)
    other.load_state_dict(critic.state_dict())
    assert certify(other) == certify(critic) and recipe("critic", other) == section


def test_one_with_a_part_that_no_configuration_builds_says_so():
    assert recipe("critic", maximum(small(), nn.Sequential(*small())))["_target_"] == "in_python.CombinedCritic"


def test_a_section_within_a_section_may_name_critics_only():
    inner = {"_target_": "torch.optim.Adam", "lr": 0.1}
    with pytest.raises(InputError, match="critic._target_ must name a class"):
        build("critic", {"_target_": "wgan_lip.critics.MeanCritic", "of": inner}, dim=3)
    deep = {"_target_": "wgan_lip.critics.CombinedCritic", "critics": []}
    for _ in range(2000):
        deep = {"_target_": "wgan_lip.critics.CombinedCritic", "critics": [deep]}
    with pytest.raises(InputError):
        build("critic", deep, dim=3)


def test_it_is_exported_and_loaded(tmp_path):
    critic, generator = (
        clipped(MeanCritic(SortingCritic(2, width=4, depth=1), members=2), -1.0, 1.0),
        MLPGenerator(2, width=4),
    )
    configs = {"critic": recipe("critic", critic), "generator": recipe("generator", generator)}
    certificate = export_players(tmp_path / "out", critic=critic, generator=generator, configs=configs,
                                 sizes={"dim": 2}, units="one")  # fmt: skip
    again = load_exported(tmp_path / "out")
    assert again.certificate == certificate
    x = torch.randn(9, 2)
    program = torch.export.load(tmp_path / "out" / "critic.pt2").module()
    assert torch.equal(again.critic(x), critic(x)) and torch.allclose(program(x), critic(x), atol=1e-6)


def test_it_is_fitted_and_finds_what_no_part_can():
    """W1 of ½δ₋₁ + ½δ₁ to δ₀, each a little spread, is about 1 by |x|, the maximum of two affine parts, and by none."""
    rng = torch.Generator().manual_seed(0)
    x = torch.cat((torch.full((100, 1), -1.0), torch.full((100, 1), 1.0))) + 0.01 * torch.randn(200, 1, generator=rng)
    y = 0.01 * torch.randn(200, 1, generator=rng)
    critic = maximum(SortingCritic(1, width=1, depth=1, group=1), SortingCritic(1, width=1, depth=1, group=1))
    with torch.no_grad():
        critic.get_parameter("combined.layers.0.affine_1.weight").fill_(-1.0)
        critic.get_parameter("combined.layers.1.affine_1.weight").fill_(1.0)
        for index in range(2):
            critic.get_parameter(f"combined.layers.{index}.readout.weight").fill_(1.0)
    fit = fit_critic(x, y, x_validation=x, y_validation=y, critic=critic, steps=20, seconds=math.inf)
    assert certify(fit.critic).lipschitz <= 1
    assert 0.95 < fit.validation_value < 1.05


def test_slopes_are_below_the_constant_and_near_it():
    critic = minimum(shifted(small(), 100.0), scaled(small(), -2.0))  # the second, near 0
    slope = find_steepest_slope(critic, 5 * torch.randn(50, 3), starts=128, steps=20).value
    part = find_steepest_slope(critic.combined.layers[1], 5 * torch.randn(50, 3), starts=128, steps=20).value
    assert 0.8 * part < slope <= certify(critic).lipschitz <= 2


def test_the_command_line_trains_a_mean_of_any_kind_and_loads_it_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of = ["critic=mean", "critic@critic.of=resnet", "critic.of.width=8", "critic.of.depth=1", "critic.members=3"]
    tiny = [override for override in TINY if not override.startswith("critic.")]
    assert main(["train", "data=moons", "data.test_size=30", "hydra.run.dir=run", *of, *tiny]) == 0
    run = load_run("run")
    assert [type(member) for member in run.critic.combined.layers] == [ResNetCritic] * 3
    assert len({member.readout.weight.sum().item() for member in run.critic.combined.layers}) == 3
    assert verify(Certificate.load("run/certificate.json"), run.critic).lipschitz <= 1
    assert run.summary["interval"]["lower"] <= run.summary["interval"]["exact"]


def test_the_suites_train_it():
    method = METHODS["sorting_mean_4"]
    critic = method.critic(3, **method.arguments)
    optimizer = method.new_optimizer(critic)
    constrain_steps(optimizer, critic)
    before = copy.deepcopy(critic)
    ascend(critic, optimizer, torch.randn(20, 3) + 1, torch.randn(20, 3))
    assert len(critic.combined.layers) == 4 and critic.combined.layers[0].readout.norm_in.dim == 32
    assert certify(critic).lipschitz <= 1
    assert not torch.equal(before(torch.ones(1, 3)), critic(torch.ones(1, 3)))
