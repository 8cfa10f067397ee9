"""Mass that both sets have at one point stays there: what is left is solved, and all that comes out is about all of it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from wgan_lip.transport import distances, narrow, narrowing, problem, solve, upper_bound_plan_cost
from wgan_lip.transport.distances import lowest_cones


def grid(side):
    return np.stack(np.meshgrid(*[np.arange(side)] * 2), -1).reshape(-1, 2).astype(float)


def test_counts_on_common_points_are_solved_where_they_differ(solved):
    points, rng = grid(16)[:250], np.random.default_rng(0)
    a = rng.integers(1, 100, 250)
    b = a.copy()
    b[:3], b[3:6] = b[:3] - 1, b[3:6] + 1
    result = solve(points, points, a=a, b=b)
    assert solved == [(3, 3)] and (result.plan.mass > 0).all()
    truth = ot.emd2(a / a.sum(), b / b.sum(), cdist(points, points))
    assert result.value == pytest.approx(truth, rel=1e-9) and result.exact == result.value
    assert result.upper - result.lower < 1e-13 * result.value
    sent, got = result.plan.marginals
    assert sent == pytest.approx(a / a.sum(), rel=1e-12) and got == pytest.approx(b / b.sum(), rel=1e-12)
    assert upper_bound_plan_cost(points, points, result.plan, a, b) == pytest.approx(result.upper, rel=1e-9)
    f = result.potential(points)
    assert (a * f).sum() / a.sum() - (b * f).sum() / b.sum() == pytest.approx(result.value, rel=1e-9)


def test_whole_masses_stay_whole():
    """Each of 3 and 2 equal rows: what stays, and what leaves, in parts of the whole, exactly."""
    x, y = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 0.0], [2.0, 0.0]])
    result = solve(x, y)
    parts = {}
    for i, j, mass in zip(result.plan.rows, result.plan.columns, result.plan.mass):
        parts[i, j] = parts.get((i, j), 0) + Fraction(mass).limit_denominator(100)
    assert sum(part for (i, j), part in parts.items() if j == 0) == Fraction(1, 2)
    assert all(sum(part for (i, _), part in parts.items() if i == k) == Fraction(1, 3) for k in range(3))
    assert sum(part for (i, j), part in parts.items() if j == 0 and i < 2) == Fraction(1, 2)  # none of it travels
    assert result.value == pytest.approx(2 / 6 + 1 / 3, rel=1e-14)  # 1/6 from 0 to 2, 1/3 from 1 to 2


def test_the_value_is_exact_beside_mass_that_stays_however_much(solved):
    x, y = np.array([[0.0, 0.0], [1.0, 1.0], [1e6, 0.0]]), np.array([[0.0, 3.0], [1.0, 1.0], [1e6, 0.0]])
    result = solve(x, y, a=[1, 10**6, 10**9], b=[1, 10**6, 10**9])
    assert solved == []  # one point on either side has one plan
    assert result.value == pytest.approx(3 / (1 + 10**6 + 10**9), rel=1e-14)
    assert result.upper - result.lower < 1e-13 * result.value


def test_where_all_mass_stays_the_potential_has_values_everywhere():
    x = np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    for bounds in (solve(x, x), *(step.transport for step in narrow(x, x))):
        assert bounds.lower == 0.0 <= bounds.upper < 1e-300
        assert np.isfinite(bounds.potential(1e9 * x + 3)).all()


points = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=10)


@settings(deadline=None, max_examples=25)
@given(points, points, st.sampled_from(["uniform", "counts", "real"]), st.booleans(), st.integers(0, 1000))
def test_any_sets_with_points_in_common_have_the_w1_of_the_full_problem(x, y, weighted, sparse, seed):
    x, y = np.array(x, dtype=float), np.array(y, dtype=float)
    rng = np.random.default_rng(seed)
    a, b = np.ones(len(x)), np.ones(len(y))
    if weighted == "counts":
        a, b = rng.integers(0, 5, len(x)) + 0.0, rng.integers(0, 5, len(y)) + 0.0
        a[0], b[0] = a[0] + 1, b[0] + 1
    elif weighted == "real":
        a, b = rng.random(len(x)), rng.random(len(y))
    given_weights = {} if weighted == "uniform" else {"a": a, "b": b}
    truth = ot.emd2(a / a.sum(), b / b.sum(), cdist(x, y))
    with pytest.MonkeyPatch.context() as patch:
        if sparse:
            for name, value in {"DENSE": 0, "COARSEST": 2, "POINTS_PER_CELL": 2}.items():
                patch.setattr(narrowing, name, value)
        found = [step.transport for step in narrow(x, y, **given_weights)]
    for bounds in [*found, solve(x, y, **given_weights)]:
        assert bounds.lower <= truth + 1e-12 and truth - 1e-12 <= bounds.upper
        sent, got = bounds.plan.marginals
        assert sent == pytest.approx(a / a.sum(), abs=1e-12) and got == pytest.approx(b / b.sum(), abs=1e-12)
        weights = (a, b) if given_weights else (None, None)
        assert upper_bound_plan_cost(x, y, bounds.plan, *weights) == pytest.approx(bounds.upper, abs=1e-12)
        f_x, f_y = bounds.potential(x), bounds.potential(y)
        dual = (a * f_x).sum() / a.sum() - (b * f_y).sum() / b.sum()
        assert max(0, dual) == pytest.approx(bounds.lower, abs=1e-10)
    assert found[-1].value == pytest.approx(truth, abs=1e-12)


def test_weights_that_differ_by_rounding_only_are_equal():
    x, rng = np.random.default_rng(0).standard_normal((200, 3)), np.random.default_rng(1)
    a = rng.random(200)
    result = solve(x, x, a=a, b=a / 3 * 1.7)
    assert result.lower == 0 <= result.value <= result.upper < 1e-13


def test_tiny_real_masses_are_not_lost(solved):
    x = np.random.default_rng(0).standard_normal((50, 2))
    a = np.random.default_rng(1).random(50)
    b = a.copy()
    b[0], b[1] = b[0] + 1e-9, b[1] - 1e-9
    result = solve(x, x, a=a, b=b)
    moved = 1e-9 * np.linalg.norm(x[0] - x[1]) / a.sum()
    assert solved == [] and result.value == pytest.approx(moved, rel=1e-5)
    assert result.lower <= moved * (1 + 1e-5) and moved * (1 - 1e-5) <= result.upper and result.upper < 2 * moved


def test_rows_of_one_key_are_told_apart(monkeypatch):
    monkeypatch.setattr(problem, "_keys", lambda rows: np.zeros(len(rows), dtype=np.int64))
    x, y = np.array([[0.0, 1], [0, 2], [0, 1], [3, 1]]), np.array([[0.0, 1], [5, 2], [3, 4], [0, 2]])
    assert solve(x, y).value == pytest.approx(ot.emd2([], [], cdist(x, y)))


# --- distances by products --------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    st.integers(17, 60), st.sampled_from([0.0, 1e3]), st.sampled_from([1e-9, 1e-3, 1.0]), st.integers(0, 10**6)
)  # fmt: skip
def test_products_keep_their_bound_and_the_cones_are_the_lowest(d, offset, near, seed):
    """Beside pairs that almost coincide, and cones whose heights almost agree."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((30, d)) / d + offset
    y = np.concatenate([x[:10] + near * rng.standard_normal((10, d)), rng.standard_normal((15, d)) / d + offset])
    truth = cdist(x, y)
    of_x, of_y = torch.from_numpy(x), torch.from_numpy(y)
    costs, relative = distances.distances(of_x, of_y)
    assert (np.abs(costs - truth) <= (relative + 1e-15) * truth).all()
    offsets = truth[rng.integers(30)] + 1e-13 * rng.standard_normal(25)  # all cones of one height there, but for 1e-13
    values, error = lowest_cones(of_x, of_y, offsets, costs, relative)
    assert np.abs(values - (truth - offsets).min(1)).max() <= 2 * error <= 1e-12
    clusters = np.concatenate([x, x + 1e6])
    costs, relative = distances.distances(torch.from_numpy(clusters), torch.from_numpy(clusters))
    assert (costs.diagonal() == 0).all() and relative <= (d / 2 + 4) * 2.0**-53


@pytest.mark.parametrize(("n", "m"), [(60, 50), (50, 60)])
def test_in_many_dimensions_the_interval_is_as_narrow_as_by_differences(n, m):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, 300)), rng.standard_normal((m, 300)) * 1.1
    y[:20] = x[:20] + 1e-7
    result = solve(x, y)
    assert result.upper - result.lower < 1e-12 * result.value
    assert result.value == pytest.approx(ot.emd2([], [], cdist(x, y)), rel=1e-12)
    f = result.potential(np.concatenate([x, y]))
    assert result.lower <= f[:n].mean() - f[n:].mean() + 1e-13
    ends = np.linalg.norm(x[:, None] - y, axis=2)
    assert (np.abs(f[:n, None] - f[n:]) <= ends + 1e-12).all()


@pytest.mark.parametrize("mean", [3, 2000, 10**5])
def test_counts_of_any_size_on_common_points_are_solved_without_rounding(mean):
    """The totals have a common multiple of up to 2^50, which the solver would take for infeasible."""
    rng = np.random.default_rng(mean)
    points = rng.standard_normal((250, 2))
    a, b = rng.poisson(mean, (2, 250)).astype(float)
    found = solve(points, points, a=a, b=b)
    known = ot.emd2(a / a.sum(), b / b.sum(), cdist(points, points), numItermax=10**7)
    assert found.value == pytest.approx(known, rel=1e-9)
    assert 0 <= found.upper - found.lower <= 1e-13
    leaves, arrives = found.plan.marginals
    np.testing.assert_allclose(leaves, a / a.sum(), rtol=1e-13)
    np.testing.assert_allclose(arrives, b / b.sum(), rtol=1e-13)
