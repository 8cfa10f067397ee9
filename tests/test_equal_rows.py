"""Equal rows reach a solver once, with what one side has more of them; all that comes out is about the rows that were given."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

import wgan_lip
from wgan_lip.critics.compiled import critic_from_transport
from wgan_lip.transport import narrow, narrowing, solve, upper_bound_plan_cost
from wgan_lip.wasserstein.interval import kr_lower_bound


def answers(n, seed=0):
    """Answers of n people to three questions with three choices each, in two years."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, (n, 3)), np.minimum(2, rng.binomial(2, 0.6, (n, 3)))


def distinct(rows):
    values, counts = np.unique(rows, axis=0, return_counts=True)
    return values.astype(float), counts


def test_4000_rows_with_27_values_reach_the_solver_as_27(solved):
    x, y = answers(4000)
    result = wgan_lip.estimate_w1(x, y, critic=None)
    assert sum(solved[0]) == 27  # each of them stands on the side that has more of it
    (u, a), (v, b) = distinct(x), distinct(y)
    exact = ot.emd2(a / 4000, b / 4000, cdist(u, v))
    assert result.exact == pytest.approx(exact, rel=1e-12)
    assert (result.n, result.m) == result.plan.shape == (4000, 4000)
    assert result.x.shape == (4000, 3) and result.x.equal(torch.from_numpy(x).double())


def test_20000_rows_are_solved_exactly(solved):
    """They were narrowed before, without an exact value."""
    result = wgan_lip.estimate_w1(*answers(20_000), critic=None)
    assert sum(solved[0]) == 27 and result.stopped == "optimal"
    assert result.upper - result.lower <= 1e-12 * result.exact


def test_plan_and_potential_are_about_the_rows_that_were_given():
    x, y = answers(300)
    result = wgan_lip.estimate_w1(x, y, critic=None)
    leaving, reaching = result.plan.marginals
    assert leaving == pytest.approx(1 / 300, rel=1e-12) and reaching == pytest.approx(1 / 300, rel=1e-12)
    i, j = linear_sum_assignment(cdist(x, y))
    assert result.exact == pytest.approx(cdist(x, y)[i, j].mean(), rel=1e-12)
    assert result.plan.cost(x, y) == pytest.approx(result.exact, rel=1e-12)
    assert upper_bound_plan_cost(x, y, result.plan) == pytest.approx(result.upper, rel=1e-12)
    values = result.dual(np.concatenate([x, y]).astype(float))
    assert values[:300].mean() - values[300:].mean() == pytest.approx(result.exact, rel=1e-12)
    moved = torch.from_numpy(x).double().requires_grad_()
    loss = result.loss(moved, torch.from_numpy(y).double())
    assert loss.item() == pytest.approx(result.exact, rel=1e-12)
    assert torch.autograd.grad(loss, moved)[0].shape == (300, 3)


def test_a_critic_trains_on_all_rows_and_certifies_the_same_w1(solved):
    x, y = answers(400)
    result = wgan_lip.estimate_w1(x, y, critic="cones", critic_steps=1)
    assert sum(solved[0]) <= 27
    assert result.population.n == 120
    assert result.lower <= result.exact <= result.upper and result.certificate.lipschitz <= 1


def test_zero_is_zero_whatever_its_sign(solved):
    x = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0], [2.0, 1.0]])
    y = np.array([[-0.0, 3.0], [0.0, 3.0], [2.0, 3.0], [-0.0, 3.0]])
    assert solve(x, y).value == 2.0 and solved == [(2, 2)]


@pytest.mark.parametrize("weights", [None, "counts", "fractions"])
def test_equal_sets_in_another_order_are_at_distance_zero_exactly(weights):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (50, 2)).astype(float)
    order = rng.permutation(50)
    a = {None: None, "counts": rng.integers(1, 9, 50), "fractions": rng.integers(1, 9, 50) / 8}[weights]
    b = None if a is None else a[order]
    result = wgan_lip.estimate_w1(x, x[order], a=a, b=b, critic=None)
    assert result.lower == 0 <= result.upper < 1e-14
    if weights != "fractions":
        assert result.exact == result.upper == 0
    assert wgan_lip.estimate_w1(np.repeat(x, 3, axis=0), x, critic=None).exact == 0


def test_weightless_copies_carry_nothing(solved):
    x = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 0.0], [5.0, 0.0]])
    transport = solve(x, [[0.0, 1.0]], a=[1.0, 0.0, 2.0, 0.0])
    assert solved == [] and transport.value == 1.0  # one point on either side has one plan
    leaving, _ = transport.plan.marginals
    assert leaving == pytest.approx([1 / 3, 0, 2 / 3, 0])


rows = st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 1)), min_size=1, max_size=12)


@settings(deadline=None, max_examples=150)
@given(
    x=rows, y=rows, weighted=st.sampled_from(["no", "counts", "real"]), dim=st.sampled_from([1, 2]), small=st.booleans()
)
def test_any_sets_with_equal_rows_have_the_w1_of_the_full_problem(x, y, weighted, dim, small):
    x, y = (np.array(points, dtype=float)[:, :dim] for points in (x, y))
    rng = np.random.default_rng(len(x) * 100 + len(y))
    a, b = np.ones(len(x)), np.ones(len(y))
    if weighted == "counts":
        a, b = (rng.integers(1, 5, len(points)).astype(float) for points in (x, y))
    elif weighted == "real":
        a, b = rng.random(len(x)) + 0.1, rng.random(len(y)) + 0.1
    a, b = a * b.sum(), b * a.sum()  # of one total, and whole where they were
    given_weights = {} if weighted == "no" else {"a": a, "b": b}
    truth = ot.emd2(a / a.sum(), b / b.sum(), cdist(x, y))
    with pytest.MonkeyPatch.context() as patch:
        if small:
            for name, value in {"DENSE": 0, "COARSEST": 2, "POINTS_PER_CELL": 2}.items():
                patch.setattr(narrowing, name, value)
        found = [step.transport for step in narrow(x, y, **given_weights)]
    for bounds in found:
        assert bounds.lower <= truth + 1e-12 and truth - 1e-12 <= bounds.upper
        assert bounds.plan.shape == (len(x), len(y))
        leaving, reaching = bounds.plan.marginals
        assert leaving == pytest.approx(a / a.sum(), abs=1e-12) and reaching == pytest.approx(b / b.sum(), abs=1e-12)
    assert found[-1].value == pytest.approx(truth, abs=1e-12)
    weights = (a, b) if given_weights else (None, None)
    assert upper_bound_plan_cost(x, y, found[-1].plan, *weights) == pytest.approx(found[-1].upper, abs=1e-12)


def test_whole_masses_are_dealt_without_rounding():
    """300 and 77 rows: what each row of x sends is 77 of 23,100 parts, exactly."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 2, (300, 3)).astype(float), rng.integers(0, 2, (77, 3)).astype(float)
    plan = solve(x, y).plan
    parts = [Fraction(round(mass * 300 * 77)) for mass in plan.mass]
    assert plan.mass == pytest.approx([float(part / (300 * 77)) for part in parts], rel=1e-14)
    sent, got = [Fraction(0)] * 300, [Fraction(0)] * 77
    for i, j, part in zip(plan.rows, plan.columns, parts):
        sent[i] += part
        got[j] += part
    assert set(sent) == {77} and set(got) == {300}


def test_a_critic_compiled_from_equal_rows_is_that_of_the_distinct_ones():
    x, y = answers(500)
    critic = critic_from_transport(x, y)
    assert kr_lower_bound(critic, x, y) == pytest.approx(solve(x, y).value, rel=1e-9)
    assert critic.lift.weight.shape[0] <= 27 * 32


def test_the_floor_of_an_estimate_solves_distinct_rows_only(solved):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 3, (400, 3)), rng.integers(0, 3, (300, 3))
    result = wgan_lip.estimate_w1(x, y, critic=None)
    assert solved and max(map(max, solved)) <= 27 and result.floor is not None
