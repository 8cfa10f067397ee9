"""Solving patch by patch: dual variables rise and stay allowed, plans get cheaper and stay plans."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix

from wgan_lip.transport import TransportError, patches
from wgan_lip.transport.exact import network_simplex
from wgan_lip.transport.patches import Sparse, ascended, relieved


@contextmanager
def constants(**values):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(patches, name, value)
        yield patch


def problem(n, m, d, *, near, weigh=False, seed=0):
    """Few edges, of the nearest points of either side and of a random plan, so that there is one; that plan."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), 1.2 * rng.standard_normal((m, d)) + 0.1
    a, b = (rng.integers(1, 6, size).astype(float) if weigh else np.ones(size) for size in (n, m))
    a, b = a * b.sum(), b * a.sum()
    costs = np.linalg.norm(x[:, None] - y[None], axis=2)
    plan, _, _ = network_simplex(a, b, rng.random((n, m)))
    to, of = costs.argsort(1)[:, :near], costs.argsort(0)[:near]
    keys = [(np.arange(n)[:, None] * m + to).ravel(), (of * m + np.arange(m)).ravel(), plan.rows * m + plan.columns]
    keys = np.unique(np.concatenate(keys))
    rows, columns = keys // m, keys % m
    return Sparse(x, y, a, b, rows, columns, costs[rows, columns]), plan


def value(sparse, u, v):
    return sparse.a @ u + sparse.b @ v


def optimum(sparse):
    matrix = coo_matrix((sparse.costs, (sparse.rows, sparse.columns)), shape=(len(sparse.a), len(sparse.b)))
    plan, _, _ = network_simplex(sparse.a, sparse.b, matrix)
    return cost(sparse, plan)


def cost(sparse, plan):
    return plan.mass @ np.linalg.norm(sparse.x[plan.rows] - sparse.y[plan.columns], axis=1)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(2, 3),
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from([3, 10, 40]),
    st.sampled_from([0.0, 0.1, 10.0]),
)
def test_the_dual_value_rises_and_no_edge_forbids_it(seed, n, m, d, near, weigh, smallest, noise):
    sparse, _ = problem(n, m, d, near=near, weigh=weigh, seed=seed)
    rng, best = np.random.default_rng(seed), optimum(sparse)
    u, v = noise * rng.standard_normal(n), noise * rng.standard_normal(m)
    before = value(sparse, *sparse.tightened(u, v))
    with constants(SMALLEST_PATCH=smallest, PARTS=2):
        u, v = ascended(sparse, u, v)
    scale = np.abs(u).max() + np.abs(v).max() + sparse.costs.max()
    assert sparse.slack(u, v).min() >= -1e-13 * scale
    after, rounding = value(sparse, u, v), 1e-12 * scale * sparse.a.sum()
    assert before - rounding <= after <= best + rounding


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(2, 3),
    st.booleans(),
    st.sampled_from([3, 20, 200]),
)
def test_a_plan_gets_cheaper_and_stays_one(seed, n, m, d, weigh, relief):
    sparse, plan = problem(n, m, d, near=5, weigh=weigh, seed=seed)
    best, before = optimum(sparse), cost(sparse, plan)
    with constants(RELIEF=relief):
        plan = relieved(sparse, plan, np.zeros(n), np.zeros(m))
    for marginal, mass in zip(plan.marginals, (sparse.a, sparse.b)):
        np.testing.assert_allclose(marginal, mass, rtol=1e-12)
    assert best * (1 - 1e-12) <= cost(sparse, plan) <= before * (1 + 1e-12)
    edges = set((sparse.rows * m + sparse.columns).tolist())
    assert edges.issuperset((plan.rows * m + plan.columns).tolist())


@pytest.mark.parametrize("weigh", [False, True])
def test_one_patch_of_all_is_the_whole_problem(weigh):
    sparse, plan = problem(300, 250, 2, near=8, weigh=weigh)
    with constants(SMALLEST_PATCH=50, PARTS=1, RELIEF=300):
        u, v = ascended(sparse, np.zeros(300), np.zeros(250))
        plan = relieved(sparse, plan, u, v)
    assert value(sparse, u, v) == pytest.approx(optimum(sparse), rel=1e-11)
    assert cost(sparse, plan) == pytest.approx(optimum(sparse), rel=1e-11)


def test_a_patch_that_the_solver_fails_on_waits():
    sparse, plan = problem(100, 90, 2, near=5)

    def failing(*_):
        raise TransportError("no")

    with constants(SMALLEST_PATCH=10, RELIEF=20, network_simplex=failing):
        u, v = ascended(sparse, np.zeros(100), np.zeros(90))
        same = relieved(sparse, plan, u, v)
    assert value(sparse, u, v) >= value(sparse, *sparse.tightened(np.zeros(100), np.zeros(90))) - 1e-12
    assert cost(sparse, same) == pytest.approx(cost(sparse, plan), rel=1e-14)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing_and_what_one_raises_ends_all(threads):
    sparse, plan = problem(300, 280, 2, near=5)
    before = torch.get_num_threads()
    with constants(SMALLEST_PATCH=20, RELIEF=30):
        alone = ascended(sparse, np.zeros(300), np.zeros(280))
        cheaper = relieved(sparse, plan, *alone)
        torch.set_num_threads(threads)
        try:
            shared = ascended(sparse, np.zeros(300), np.zeros(280))
            assert all(np.array_equal(one, other) for one, other in zip(alone, shared))
            assert np.array_equal(relieved(sparse, plan, *shared).mass, cheaper.mass)
            calls = iter(range(5))
            with pytest.raises(StopIteration):
                ascended(sparse, *alone, check=lambda: next(calls))
        finally:
            torch.set_num_threads(before)
