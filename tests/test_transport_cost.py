"""Exact transport at other costs: closed forms, linear programs, rational arithmetic, and costs that are no metric."""

from __future__ import annotations

import itertools
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

import wgan_lip
from wgan_lip.transport import solve, transport_cost
from wgan_lip.utils.checks import InputError

mpmath.mp.dps = 50


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def program(costs, a=None, b=None):
    """The least cost by SciPy's simplex."""
    n, m = costs.shape
    a, b = np.ones(n) if a is None else a, np.ones(m) if b is None else b
    sums = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    return linprog(costs.ravel(), A_eq=sums, b_eq=np.concatenate([a / a.sum(), b / b.sum()])).fun


def exact_cost(p, q, cost, scale):
    p, q, w = ([mpmath.mpf(float(t)) for t in part] for part in (p, q, scale))
    steps = [abs(s - t) for s, t in zip(p, q, strict=True)]
    if cost == "cosine":
        dot, norms = mpmath.fsum(s * t for s, t in zip(p, q)), [mpmath.norm(end) for end in (p, q)]
        return 1 - dot / (norms[0] * norms[1])
    if cost == "linf":
        return max(k * t for k, t in zip(w, steps))
    if cost == "l1":
        return mpmath.fsum(k * t for k, t in zip(w, steps))
    squares = mpmath.fsum(k * t * t for k, t in zip(w, steps))
    return mpmath.sqrt(squares) if cost == "euclidean" else squares


NAMED = ["euclidean", "l1", "linf", "sqeuclidean", "cosine"]


@pytest.mark.parametrize("cost", NAMED)
@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 4), st.sampled_from([0, 1e6]), st.booleans(),
    st.sampled_from([1e-150, 1e-3, 1.0, 1e100]), st.integers(0, 2**31 - 1),
)  # fmt: skip
def test_the_interval_holds_the_truth_to_50_digits(cost, n, d, offset, weighted, size, seed):
    x, y = (size * (normal(n, d, seed=seed + k) + offset) for k in range(2))
    scale = np.random.default_rng(seed).random(d) + 0.1 if weighted and cost != "cosine" else None
    result = transport_cost(x, y, cost, scale=scale)
    c = [[exact_cost(p, q, cost, np.ones(d) if scale is None else scale) for q in y] for p in x]
    truth = min(mpmath.fsum(c[i][j] for i, j in enumerate(order)) for order in itertools.permutations(range(n))) / n
    assert mpmath.mpf(result.lower) <= truth <= mpmath.mpf(result.upper)
    assert result.lower <= result.value <= result.upper
    largest = float(max(map(max, c)))
    assert result.upper - result.lower <= 1e-13 * largest + (cost == "cosine") * 1e-14
    for (i, u), (j, v) in itertools.product(enumerate(result.u), enumerate(result.v)):
        assert mpmath.mpf(u) + mpmath.mpf(v) <= c[i][j]


@pytest.mark.parametrize("cost", NAMED)
def test_they_agree_with_a_linear_program_with_weights(cost):
    x, y = normal(12, 3), normal(9, 3, seed=1) + 0.5
    a, b = np.random.default_rng(2).random(12), np.random.default_rng(3).random(9)
    a[4] = b[0] = 0
    result = transport_cost(x, y, cost, a=a, b=b)
    name = {"l1": "cityblock", "linf": "chebyshev"}.get(cost, cost)
    costs = cdist(x, y, name)
    assert result.value == pytest.approx(program(costs, a, b), rel=1e-9)
    assert result.exact == result.value
    assert (result.u[:, None] + result.v <= costs + 1e-14).all()  # also where there is no weight
    sent, got = result.plan.marginals
    assert sent == pytest.approx(a / a.sum(), abs=1e-12) and got == pytest.approx(b / b.sum(), abs=1e-12)
    assert result.metric == (cost in ("euclidean", "l1", "linf"))
    assert ("so this is not W1" in str(result)) == (not result.metric)


def test_euclidean_costs_give_w1():
    x, y = normal(40, 5), normal(30, 5, seed=1) + 1
    one, other = transport_cost(x, y), solve(x, y)
    assert max(one.lower, other.lower) <= min(one.upper, other.upper)
    assert wgan_lip.transport_cost is transport_cost


@pytest.mark.parametrize(("cost", "length"), [("l1", 7.0), ("linf", 4.0), ("euclidean", 5.0), ("sqeuclidean", 25.0)])
def test_a_shift_costs_its_length(cost, length):
    x = normal(50, 2)
    result = transport_cost(x, x + np.array([3.0, 4.0]), cost)
    assert result.value == pytest.approx(length, rel=1e-12)
    scaled = transport_cost(x, x + np.array([3.0, 4.0]), cost, scale=[2.0, 0.0])
    truth = {"l1": 6.0, "linf": 6.0, "euclidean": 3 * 2**0.5, "sqeuclidean": 18.0}[cost]
    assert scaled.value == pytest.approx(truth, rel=1e-12)


def test_a_rotation_costs_one_less_its_cosine():
    angles = np.linspace(0, 0.5, 20)
    x, y = (np.exp(np.arange(20) % 3)[:, None] * np.stack([np.cos(t), np.sin(t)], 1) for t in (angles, angles + 2))
    assert transport_cost(x, y, "cosine").value <= 1 - np.cos(2)  # the cost is concave in the angle there
    near = transport_cost(x, 3 * x[::-1], "cosine")
    assert near.value < 1e-15  # lengths don't count


@pytest.mark.parametrize("cost", NAMED)
def test_equal_sets_cost_nothing(cost):
    x = normal(20, 3) + 5
    result = transport_cost(x, x[::-1], cost)
    assert result.lower == result.value == result.exact == result.upper == 0


def test_w2_of_two_dilations_is_the_mean_square():
    """x to 2 x is the gradient of a convex function, so optimal."""
    x = normal(60, 3)
    assert transport_cost(x, 2 * x, "sqeuclidean").value == pytest.approx((x**2).sum(1).mean(), rel=1e-12)


whole = st.integers(-20, 20)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.data())
def test_a_matrix_is_taken_as_exact(n, data):
    """Rational costs: the least of all matchings, and a dual pair that is feasible as it stands."""
    matrix = np.array(data.draw(st.lists(st.lists(whole, min_size=n, max_size=n), min_size=n, max_size=n))) / 7
    result = transport_cost(None, None, matrix)
    c = [[Fraction(float(entry)) for entry in row] for row in matrix]
    truth = min(sum(c[i][j] for i, j in enumerate(order)) for order in itertools.permutations(range(n))) / n
    assert Fraction(result.lower) <= truth <= Fraction(result.upper)
    assert result.upper - result.lower <= 1e-14
    assert all(Fraction(u) + Fraction(v) <= c[i][j] for i, u in enumerate(result.u) for j, v in enumerate(result.v))
    assert not result.metric


def test_a_function_is_asked_once_and_its_answer_is_exact():
    x, y = normal(15, 2), normal(10, 2, seed=1)
    result = transport_cost(x, y, lambda p, q: torch.cdist(torch.tensor(p), torch.tensor(q)) ** 0.5, metric=True)
    assert result.metric and "not proved" in result.note
    assert result.value == pytest.approx(program(cdist(x, y) ** 0.5), rel=1e-9)


def test_a_claimed_metric_that_is_none_is_refused_and_a_matrix_is_taken_on_trust():
    x, y = normal(15, 2), normal(10, 2, seed=1)
    with pytest.raises(InputError, match="a way round by a third point is cheaper"):
        transport_cost(x, y, lambda p, q: cdist(p, q) ** 2, metric=True)
    with pytest.raises(InputError, match="the cost of staying is not 0"):
        transport_cost(x, y, lambda p, q: cdist(p, q) + 1, metric=True)
    with pytest.raises(InputError, match="there and back differ"):
        transport_cost(x, y, lambda p, q: cdist(p, q) + np.maximum(0, p[:, :1] - q[:, 0]), metric=True)
    with pytest.raises(InputError, match="different points is not positive"):
        transport_cost(x, np.flip(x, 1), lambda p, q: np.abs(p.sum(1)[:, None] - q.sum(1)).round(12), metric=True)
    with pytest.raises(InputError, match="the way round by two others costs"):
        transport_cost(x, y, cdist(x, y) ** 4, metric=True)
    with pytest.raises(InputError, match="no distance is negative"):
        transport_cost(x, y, cdist(x, y) - 1, metric=True)
    result = transport_cost(x, y, cdist(x, y), metric=True)
    assert result.metric and "is assumed" in result.note
    assert result.value == pytest.approx(solve(x, y).value, rel=1e-12)


def test_a_lying_solver_only_widens(monkeypatch):
    import ot

    emd, costs = ot.emd, normal(8, 8)
    truth = transport_cost(None, None, costs)

    def lying(a, b, costs, **kwargs):
        matrix, log = emd(a, b, costs, **kwargs)
        return 0.3 * np.roll(matrix, 1, axis=0) + 0.1 * np.eye(8)[0], {**log, "v": log["v"] + normal(8)}

    monkeypatch.setattr(ot, "emd", lying)
    result = transport_cost(None, None, costs)
    assert result.lower <= truth.upper and truth.lower <= result.upper


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((normal(3, 2), normal(3, 2), "l2"), {}, "cost must be one of euclidean, l1"),
        ((None, normal(3, 2), "l1"), {}, "x and y must be samples"),
        ((None, None, lambda p, q: p), {}, "a function needs samples x and y, not None"),
        ((normal(3, 2), normal(2, 2), np.zeros((2, 3))), {}, r"cost must have shape \(3, 2\), not \(2, 3\)"),
        ((None, None, [[0.0, np.inf]]), {}, "cost must be finite"),
        ((None, None, [[1e300]]), {}, "Costs must be at most"),
        ((np.zeros((2, 2)), normal(2, 2), "cosine"), {}, "Row 0 of x is zero"),
        ((normal(3, 2), normal(3, 2), "l1"), {"scale": [1.0]}, "scale must hold 2 weights"),
        ((normal(3, 2), normal(3, 2), "cosine"), {"scale": [1.0, 1.0]}, "no scale"),
        ((None, None, [[1.0]]), {"scale": [1.0]}, "scale works only with"),
        ((1e200 * normal(3, 2), normal(3, 2), "sqeuclidean"), {}, "exceed the range of float64"),
        ((normal(3, 2), normal(3, 2), "l1"), {"a": [1.0, -1.0, 1.0]}, "non-negative"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, settings, message):
    with pytest.raises(InputError, match=message):
        transport_cost(*arguments, **settings)
