"""Proofs and plans that are handed on are about what they are used for, or refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from wgan_lip.critics import ResNetCritic
from wgan_lip.data import Moons
from wgan_lip.inspection.explore import explore
from wgan_lip.lipschitz import certificates, proofs
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.certificates import Certificate, certify, prove
from wgan_lip.lipschitz.layers import Linear, Squeeze
from wgan_lip.transport import Plan, solve
from wgan_lip.utils.checks import InputError
from wgan_lip.wasserstein.dual import ascend
from wgan_lip.wasserstein.interval import bracket, kr_lower_bound
from wgan_lip.wasserstein.population import population_bounds


def linear_critic(slope=1.0):
    critic = nn.Sequential(Linear(Norm((2,)), Norm((1,))), Squeeze()).double()
    with torch.no_grad():
        critic[0].weight.copy_(torch.tensor([[slope, 0.0]]))
    return critic


X, Y = (torch.randn(30, 2, generator=torch.Generator().manual_seed(seed)).double() for seed in (0, 1))
X = X + torch.tensor([2.0, 0.0])
TRUTH = solve(X, Y).value

USES = {
    "kr_lower_bound": lambda critic, certificate: kr_lower_bound(critic, X, Y, certificate),
    "bracket": lambda critic, certificate: bracket(critic, X, Y, certificate=certificate).lower,
    "population_bounds": lambda critic, certificate: (
        population_bounds(critic, X, Y, clip=(-9.0, 9.0), level=0.1, certificate=certificate).lower
    ),
    "explore": lambda critic, certificate: (
        explore(critic, Moons(), Y.float(), certificate=certificate).certificate.lipschitz
    ),
}
EVERY_USE = pytest.mark.parametrize("use", USES)


@EVERY_USE
def test_an_old_certificate_is_refused_after_steps_without_retraction(use):
    """It gave 1,688 as a lower bound where W1 is 2.7."""
    critic = ResNetCritic(2, width=16, depth=2)
    old = certify(critic)
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.1)
    for _ in range(30):
        ascend(critic, optimizer, X.float(), Y.float())
    now = certify(critic).lipschitz
    assert now > 10, "the old certificate would be false"
    with pytest.raises(InputError, match="about other weights.*Certify this critic again"):
        USES[use](critic, old)
    assert kr_lower_bound(critic, X, Y) <= TRUTH
    assert kr_lower_bound(critic, X, Y, certify(critic)) == kr_lower_bound(critic, X, Y)


FORGERIES = {
    "a smaller constant": lambda c: dataclasses.replace(c, lipschitz=c.lipschitz / 100),
    "a slightly smaller constant": lambda c: dataclasses.replace(c, lipschitz=c.lipschitz * (1 - 9e-10)),
    "a larger constant": lambda c: dataclasses.replace(c, lipschitz=2 * c.lipschitz),
    "the hash of these weights in a certificate of others": lambda c: dataclasses.replace(
        certify(linear_critic(0.01)), weights_sha256=c.weights_sha256
    ),
    "another space": lambda c: dataclasses.replace(c, norm_in="Euclidean(5)"),
    "other units": lambda c: dataclasses.replace(c, units="a mile"),
    "another method": lambda c: dataclasses.replace(
        c, layers=(dataclasses.replace(c.layers[0], method="seen in a dream"), *c.layers[1:])
    ),
}


@EVERY_USE
@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize("signed", [False, True])
def test_a_forged_file_changes_no_bound(use, forgery, signed, tmp_path):
    """Nor does one whose fields were hashed anew, whatever it says."""
    critic = linear_critic(3.0)
    forged = FORGERIES[forgery](certify(critic))
    if signed:
        forged = dataclasses.replace(forged, sha256=certificates._digest(forged))
    forged.save(tmp_path / "certificate.json")
    forged = Certificate.load(tmp_path / "certificate.json")
    try:
        found = USES[use](critic, forged)
    except InputError as refusal:
        assert "again" in str(refusal)
        return
    assert signed and forgery == "other units" and found == USES[use](critic, certify(critic))


@EVERY_USE
def test_an_honest_file_gives_what_no_file_gives(use, tmp_path):
    critic = linear_critic(3.0)
    certify(critic, units="a mile").save(tmp_path / "certificate.json")
    assert USES[use](critic, Certificate.load(tmp_path / "certificate.json")) == USES[use](critic, None)


@pytest.mark.parametrize("use", ["kr_lower_bound", "bracket", "population_bounds"])
def test_a_proof_may_be_handed_on_and_is_not_made_again(use, monkeypatch):
    critic = linear_critic(3.0)
    expected, proof = USES[use](critic, None), prove(critic)
    monkeypatch.setattr(proofs, "_claim", lambda *_: 1 / 0)
    assert USES[use](proof, None) == USES[use](proof, proof.certificate) == expected
    with torch.no_grad():
        critic[0].weight.mul_(100)
    assert USES[use](proof, None) == expected, "it is about the weights that were proved"


# Plans


def test_a_plan_of_other_samples_is_refused():
    """It gave [0, 0.556] where W1 is 6.957."""
    rng = torch.Generator().manual_seed(2)
    x, y = torch.randn(50, 2, generator=rng), torch.randn(50, 2, generator=rng) + 5
    near = solve(x, x + 0.3)
    assert near.upper < 0.5 < 5 < solve(x, y).lower
    with pytest.raises(InputError, match="transport is not for these samples: its plan costs"):
        bracket(ResNetCritic(2, width=4, depth=1), x, y, transport=near)


def test_a_plan_of_another_shape_is_refused():
    """A plan of 3 and 4 points of another dimension passed for 30 and 30."""
    rng = torch.Generator().manual_seed(3)
    other = solve(torch.randn(3, 7, generator=rng), torch.randn(4, 7, generator=rng))
    with pytest.raises(InputError, match=r"plan must have shape \(30, 30\), not \(3, 4\)"):
        bracket(linear_critic(), X, Y, transport=other)


def test_a_plan_with_other_marginals_is_refused():
    """All mass between one near pair costs little, and moves nothing else."""
    transport = solve(X, Y)
    plan = Plan([0], [int((X[0] - Y).norm(dim=1).argmin())], [1.0], (30, 30))
    forged = dataclasses.replace(transport, plan=plan, upper=plan.cost(X, Y), value=plan.cost(X, Y))
    with pytest.raises(InputError, match="transport is not for these samples"):
        bracket(linear_critic(), X, Y, transport=forged)
    weighted = solve(X, Y, a=np.arange(1.0, 31.0))
    with pytest.raises(InputError, match="transport is not for these samples"):
        bracket(linear_critic(), X, Y, transport=weighted)


@pytest.mark.parametrize("upper", [0.5, 1 - 1e-8, 1 + 1e-8, 2.0, math.nan, math.inf])
def test_a_cost_that_is_not_that_of_the_plan_is_refused(upper):
    transport = solve(X, Y)
    with pytest.raises(InputError, match="but it states"):
        bracket(linear_critic(), X, Y, transport=dataclasses.replace(transport, upper=upper * transport.upper))


def test_exact_is_claimed_of_no_plan_that_only_says_it_is_optimal():
    """All pairs alike is a coupling of these samples, at twice the cost of the best; nothing proves it exact."""
    best, (i, j) = solve(X, Y), np.indices((30, 30)).reshape(2, -1)
    plan = Plan(i, j, np.full(900, 1 / 900), (30, 30))
    cost = plan.cost(X, Y)
    forged = dataclasses.replace(best, plan=plan, lower=cost, value=cost, upper=math.nextafter(cost, math.inf))
    interval = bracket(linear_critic(), X, Y, transport=forged)
    assert interval.exact is None and interval.lower <= best.value < 0.95 * cost < cost <= interval.upper
    assert bracket(linear_critic(), X, Y, transport=dataclasses.replace(best, lower=0.0)).exact == best.value


def test_samples_that_moved_since_are_seen():
    x, y = X.clone(), Y.clone()
    transport = solve(x, y)
    x[3] += 100
    with pytest.raises(InputError, match="transport is not for these samples"):
        bracket(linear_critic(), x, y, transport=transport)


@pytest.mark.parametrize("case", ["plain", "equal rows", "one set twice", "huge", "tiny"])
def test_the_plan_of_these_samples_gives_the_interval_that_is_solved_for(case):
    scale = {"huge": 1e150, "tiny": 1e-150}.get(case, 1.0)
    x, y = scale * X, scale * Y
    if case == "equal rows":
        x, y = x.round(), y.round()
    if case == "one set twice":
        y = x.flip(0)
    given = bracket(linear_critic(), x, y, transport=solve(x, y))
    plain = bracket(linear_critic(), x, y)
    assert given.lower == plain.lower and given.exact == plain.exact
    assert given.upper == pytest.approx(plain.upper, rel=1e-12, abs=1e-14 * scale)


def test_beside_far_points_exact_is_claimed_where_it_is():
    """A far point of both sets is mass that stays where it is, whatever its distance from all others."""
    x, y = (torch.cat((z, torch.tensor([[0.5, 1e16]], dtype=torch.float64))) for z in (X, Y))
    truth = solve(X, Y).value * 30 / 31
    for transport in (None, solve(x, y)):
        interval = bracket(linear_critic(), x, y, transport=transport)
        assert interval.exact is None or interval.exact == pytest.approx(truth, rel=1e-9)
        assert interval.lower <= truth <= interval.upper


def test_the_certificate_on_disk_names_all_that_was_hashed(tmp_path):
    critic = ResNetCritic(2, width=4, depth=1)
    certify(critic).save(tmp_path / "certificate.json")
    content = json.loads((tmp_path / "certificate.json").read_text())
    hashes = [content[name] for name in ("weights_sha256", "architecture_sha256", "sha256")]
    assert all(len(name) == 64 for name in hashes) and len(set(hashes)) == 3
    other = copy.deepcopy(critic)
    assert certify(other) == Certificate.load(tmp_path / "certificate.json")
