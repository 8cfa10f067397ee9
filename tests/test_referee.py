"""The referee: what a plan or a potential of any origin proves, against exact transport and closed forms."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix, csr_matrix

import wgan_lip
from wgan_lip.critics import ResNetCritic
from wgan_lip.transport import Plan, solve
from wgan_lip.utils.checks import InputError


def exact(x, y, a=None, b=None):
    a = np.ones(len(x)) if a is None else a
    b = np.ones(len(y)) if b is None else b
    cost = np.linalg.norm(x[:, None] - y[None], axis=2)
    return ot.emd2(a / a.sum(), b / b.sum(), cost)


def pair(seed=0, n=40, m=30, d=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + 1


def holds(interval, truth):
    return interval.lower <= truth * (1 + 1e-12) and truth * (1 - 1e-12) <= interval.upper


def test_an_optimal_plan_and_its_duals_prove_the_exact_value():
    x, y = pair()
    cost = np.linalg.norm(x[:, None] - y[None], axis=2)
    plan, log = ot.emd(ot.unif(40), ot.unif(30), cost, log=True)
    found = wgan_lip.certify_plan(x, y, plan, (log["u"], log["v"]))
    assert found.lower <= found.upper
    for end in (found.lower, found.upper, found.cost, found.dual):
        assert end == pytest.approx(log["cost"], rel=1e-12)
    assert found.off < 1e-13
    assert wgan_lip.certify_potential(x, y, log["u"]).lower == pytest.approx(log["cost"], rel=1e-12)
    assert wgan_lip.certify_potential(x, y, (None, log["v"])).lower == pytest.approx(log["cost"], rel=1e-12)


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.02])
def test_sinkhorn_is_enclosed_and_its_own_value_is_not_believed(epsilon):
    x, y = pair(1)
    cost = np.linalg.norm(x[:, None] - y[None], axis=2)
    plan, log = ot.sinkhorn(
        ot.unif(40), ot.unif(30), cost, epsilon, method="sinkhorn_log", numItermax=30, log=True, warn=False
    )
    truth = exact(x, y)
    duals = (epsilon * log["log_u"], epsilon * log["log_v"])
    found = wgan_lip.certify_plan(x, y, plan, duals)
    assert holds(found, truth)
    assert found.cost == pytest.approx((plan * cost).sum() / plan.sum(), rel=1e-12)
    assert found.lower > 0.8 * truth
    assert found.upper < (1.8 if epsilon == 1.0 else 1.2) * truth


def test_a_plan_of_wrong_marginals_costs_what_the_repair_costs():
    """Half of the mass of the second point lacks: normalised, the first point gives 1/6 too much, by hand."""
    found = wgan_lip.certify_plan([[0.0], [1.0]], [[2.0], [3.0]], [[1.0, 0.0], [0.0, 0.5]])
    assert found.upper == pytest.approx(2.0, rel=1e-14)
    assert found.off == pytest.approx(2 / 3, rel=0.02) and found.off >= 2 / 3  # (2/3, 1/3) for (1/2, 1/2), twice
    assert found.cost == pytest.approx(2.0)
    assert found.lower == 0.0 and found.potential is None
    all_to_one = wgan_lip.certify_plan([[0.0], [1.0]], [[2.0], [3.0]], [[1.0, 0.0], [1.0, 0.0]])
    assert all_to_one.cost == pytest.approx(1.5)  # cheaper than W1 = 2, and no coupling
    assert all_to_one.upper == pytest.approx(2.0, rel=1e-14)


def test_all_kinds_of_plans_are_one():
    x, y = pair(2, 5, 4)
    truth = solve(x, y)
    dense = truth.plan.dense()
    tensor = torch.from_numpy(dense)
    for plan in (
        truth.plan,
        dense,
        dense.tolist(),
        csr_matrix(dense),
        coo_matrix(dense),
        tensor,
        tensor.to_sparse(),
        7 * dense,
    ):
        assert wgan_lip.certify_plan(x, y, plan).upper == pytest.approx(truth.value, rel=1e-12)


def test_all_kinds_of_potentials_are_one():
    x, y = pair(3, 20, 25)
    truth = solve(x, y)
    critic = wgan_lip.estimate_w1(x, y).potential
    at_x, at_y = truth.potential(x), truth.potential(y)
    for potential in (
        truth.potential,
        critic,
        lambda z: truth.potential(z) + 5,
        at_x,
        torch.from_numpy(at_x),
        (at_x, -at_y),
        (None, list(-at_y)),
    ):
        found = wgan_lip.certify_potential(x, y, potential)
        assert found.lower == pytest.approx(truth.value, rel=1e-12) and found.lower <= truth.upper
        assert found.upper == math.inf and found.plan is None


def test_a_potential_that_is_not_lipschitz_proves_no_more_than_w1():
    x, y = pair(4)
    found = wgan_lip.certify_potential(x, y, lambda z: -10 * z.sum(1))
    assert found.dual > 2 * exact(x, y)
    assert 0 < found.lower <= exact(x, y)
    assert wgan_lip.certify_potential(x, y, np.zeros(len(x))).lower > 0  # the distance from the samples of the other
    assert wgan_lip.certify_potential(x, x, np.arange(len(x))).lower == 0


def test_a_lipschitz_critic_loses_nothing():
    x, y = pair(5)
    critic = ResNetCritic(3, width=16, depth=2)
    found = wgan_lip.certify_potential(x, y, critic)
    assert found.lower >= wgan_lip.kr_lower_bound(critic, torch.from_numpy(x), torch.from_numpy(y)) - 1e-6
    assert found.lower <= exact(x, y)


points = st.lists(st.tuples(*[st.floats(-1e3, 1e3).map(lambda t: round(t, 3))] * 2), min_size=1, max_size=6)
masses = st.floats(0, 1e3) | st.sampled_from([0.0, 5e-324, 1e-300, 1.0])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_plan_and_any_potential_enclose_w1(data):
    x, y = (np.array(data.draw(points)) for _ in range(2))
    n, m = len(x), len(y)
    plan = np.array(data.draw(st.lists(masses, min_size=n * m, max_size=n * m))).reshape(n, m)
    plan[0, 0] += not plan.any()
    a, b = (
        np.array(data.draw(st.lists(st.integers(0, 5), min_size=k, max_size=k).filter(any)), dtype=float)
        for k in (n, m)
    )
    u = np.array(data.draw(st.lists(st.floats(-1e4, 1e4), min_size=n, max_size=n)))
    v = np.array(data.draw(st.lists(st.floats(-1e4, 1e4), min_size=m, max_size=m)))
    found = wgan_lip.certify_plan(x, y, plan, (u, v), a=a, b=b)
    truth = exact(x, y, a, b)
    slack = 1e-9 * (1 + truth)
    assert 0 <= found.lower <= truth + slack
    assert truth - slack <= found.upper
    box = np.linalg.norm(np.maximum(x.max(0), y.max(0)) - np.minimum(x.min(0), y.min(0)))
    assert found.upper <= box * (1 + 1e-9) or found.off > 0  # a coupling costs no more than the diameter
    assert found.upper <= found.cost + box * found.off + slack  # what the marginals are off travels no further


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_on_the_line_the_sorted_plan_and_the_distribution_functions_meet(data):
    """W1 on the line is the integral of |F − G|, here by SciPy."""
    from scipy.stats import wasserstein_distance

    x, y = (np.array(data.draw(st.lists(st.integers(-50, 50), min_size=5, max_size=5)), dtype=float) for _ in range(2))
    plan = np.zeros((5, 5))
    plan[np.argsort(x), np.argsort(y)] = 1
    solved = solve(x[:, None], y[:, None])
    found = wgan_lip.certify_plan(x[:, None], y[:, None], plan, solved.potential)
    truth = wasserstein_distance(x, y)
    assert found.upper == pytest.approx(truth, rel=1e-12, abs=1e-12)
    assert found.lower == pytest.approx(truth, rel=1e-12, abs=1e-12)


def test_a_repaired_plan_has_the_marginals_asked_for():
    rng = np.random.default_rng(0)
    x, y = pair(8, 7, 5)
    a, b = rng.random(7), rng.random(5)
    dense = rng.random((7, 5)) ** 3 * (rng.random((7, 5)) < 0.5)
    found = wgan_lip.certify_plan(x, y, dense, a=a, b=b)
    plan = found.plan.dense()
    assert plan.min() >= 0
    np.testing.assert_allclose(plan.sum(1), a / a.sum(), atol=1e-15)
    np.testing.assert_allclose(plan.sum(0), b / b.sum(), atol=1e-15)
    again = wgan_lip.certify_plan(x, y, plan, a=a, b=b)
    assert again.upper == pytest.approx(found.upper, rel=1e-12) and again.off < 1e-14
    np.testing.assert_allclose(again.plan.dense(), plan, atol=1e-15)  # nothing to repair


def test_a_plan_between_halves_is_repaired_to_one_between_all():
    x, y = pair(6, 40, 40)
    half = solve(x[:20], y[:20]).plan
    found = wgan_lip.certify_plan(x, y, Plan(half.rows, half.columns, half.mass, (40, 40)))
    assert exact(x, y) <= found.upper < 1.5 * exact(x, y)
    assert found.off == pytest.approx(2.0, rel=0.02)


def test_what_stands_on_the_screen():
    x, y = pair(7, 6, 6)
    solved = solve(x, y)
    both = wgan_lip.certify_plan(x, y, solved.plan, solved.potential)
    assert "W1 between 6 and 6 samples in dimension 3" in str(both) and "certified; width" in str(both)
    assert "marginals repaired" in str(both) and "made 1-Lipschitz" in str(both)
    one = wgan_lip.certify_potential(x, y, solved.potential)
    assert "inf" not in str(one) and "upper" not in str(one)
    with pytest.raises(AttributeError):
        one.lower = 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan": np.ones((3, 2))}, r"has shape \(3, 2\), but there are 2 samples x and 3 samples y"),
        ({"plan": np.array([[1, -1e-9, 0], [0, 1, 1]])}, r"move -1e-09 of mass, from x\[0\] to y\[1\]"),
        ({"plan": np.array([[1, np.nan, 0], [0, 1, 1]])}, r"move nan of mass, from x\[0\]"),
        ({"plan": np.zeros((2, 3))}, "moves no mass"),
        ({"plan": np.ones(6)}, r"has shape \(6,\)"),
        ({"potential": np.zeros(3)}, r"has 3 values at x, but there are 2 samples.*\(None, v\)"),
        ({"potential": (np.zeros(2), np.zeros(2))}, "has 2 values at y, but there are 3"),
        ({"potential": (None, None)}, "with at most one None"),
        ({"potential": lambda z: z}, "must have shape"),
        ({"potential": [0.0, np.inf]}, "finite"),
        ({"a": [1.0, -1.0]}, "non-negative"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {"x": np.zeros((2, 2)), "y": np.ones((3, 2)), "plan": np.ones((2, 3)), **change}
    with pytest.raises(InputError, match=message):
        wgan_lip.certify_plan(**arguments)
