"""Both ends of every interval against matchings in 50 digits: costs that tie within float32, and solvers that lie."""

from __future__ import annotations

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_narrowing import best_matching, intervals, normal, small

from wgan_lip import estimate_w1
from wgan_lip.transport import TransportError, pricing, solve


def around(rng, count, d, closeness):
    """Points whose distances from the origin are 1 up to `closeness`."""
    z = rng.standard_normal((count, d))
    return z / np.linalg.norm(z, axis=1, keepdims=True) * (1 + closeness * rng.standard_normal((count, 1)))


def corners(rng, count, d, closeness):
    """Corners of a cube, which many distances have in common, and some of which are the same."""
    return rng.integers(0, 2, (count, d)) + closeness * rng.standard_normal((count, d))


def axes(rng, count, d, closeness):
    """Points on the axes, all equally far from one another."""
    return np.eye(count, d) + closeness * rng.standard_normal((count, d))


def equal(rng, count, d, closeness):
    return np.ones((count, d)) + closeness * rng.standard_normal((count, d))


@st.composite
def tied(draw):
    """Two sets of 6 or 7 rows whose costs differ by `closeness`, far from the origin or not, on any scale."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    d, count = draw(st.sampled_from([8, 20, 60])), draw(st.sampled_from([6, 7]))
    kind = draw(st.sampled_from([around, corners, axes, equal]))
    closeness = draw(st.sampled_from([0.0, 1e-15, 1e-12, 1e-8, 1e-6]))
    x, y = kind(rng, count, d, closeness), kind(rng, count, d, closeness)
    if kind is around:
        x = closeness * rng.standard_normal((count, d))
    elif kind is axes:
        y = -y
    if draw(st.booleans()):
        x[-1] = y[-1] = x[0]  # a row that comes twice, and on both sides
    if draw(st.booleans()):
        y[0] *= 2.0**20  # beside which float32 knows nothing of the others
    offset, power = draw(st.sampled_from([0.0, 0.0, 1e4, 1e8, 1e13])), draw(st.sampled_from([0, 0, -140, 90]))
    return (x + offset) * 2.0**power, (y + offset) * 2.0**power


@settings(max_examples=40, deadline=None)
@given(tied())
def test_both_ends_hold_where_float32_tells_no_cost_from_another(sides):
    x, y = sides
    with small() as patch:
        for name, value in {"FEWEST": 0, "FEW_DIMENSIONS": 0, "EXTRA": 1}.items():
            patch.setattr(pricing, name, value)
        found = intervals(x, y)
    truth = best_matching(x, y, [1] * len(x), [1] * len(y))
    for bounds in (*(one.transport for one in found), solve(x, y)):
        assert bounds.lower <= truth <= bounds.upper
    spread = float(np.linalg.norm(np.ptp(np.concatenate([x, y]), axis=0)))
    width = found[-1].transport.upper - found[-1].transport.lower
    assert found[-1].optimal and width <= 1e-12 * spread + 1e-280


def altered(**changes):
    """A solver that changes what it found: its plan, a matrix or the masses of edges, and its dual variables."""

    def lie(answer, log):
        dense = isinstance(answer, np.ndarray)
        plan = answer if dense else answer.data
        plan = changes.get("plan", lambda plan: plan)(plan)
        if not dense:
            answer.data = plan
        duals = {name: changes["duals"](log[name]) for name in "uv"} if "duals" in changes else {}
        return plan if dense else answer, {**log, **duals}

    return lie


LIES = {
    "duals in float32": altered(duals=lambda u: u.astype(np.float32).astype(float)),
    "duals negated": altered(duals=lambda u: -u),
    "duals reversed": altered(duals=lambda u: u[::-1].copy()),
    "duals of another problem": altered(duals=lambda u: np.linspace(-3.0, 8.0, len(u))),
    "duals a little too high": altered(duals=lambda u: u + 1e-9),
    "no duals": altered(duals=lambda u: u * np.nan),
    "infinite duals": altered(duals=lambda u: u + np.inf),
    "a plan turned round": altered(plan=lambda plan: plan[::-1].copy()),
    "a plan with mass made up": altered(plan=lambda plan: plan + 0.5 * plan.max()),
    "a plan with mass lost": altered(plan=lambda plan: plan * (np.arange(len(plan)) % 3 > 0).reshape(-1, *plan[:1].shape[1:])),
    "a plan of half the size": altered(plan=lambda plan: plan / 2),
    "negative masses": altered(plan=lambda plan: plan - 0.3 * plan.max()),
    "a plan of nothing": altered(plan=lambda plan: 0 * plan),
    "a plan of no numbers": altered(plan=lambda plan: np.nan * plan),
}  # fmt: skip


@pytest.mark.parametrize("d", [3, 40])
@pytest.mark.parametrize("lie", LIES)
def test_a_lying_solver_falsifies_nothing(lie, d, monkeypatch):
    """It widens the interval, or is found out."""
    x, y, emd = normal(7, d), normal(7, d, seed=1) + 0.5, ot.emd
    truth = best_matching(x, y, [1] * 7, [1] * 7)
    monkeypatch.setattr(ot, "emd", lambda *problem, **options: LIES[lie](*emd(*problem, **options)))

    def narrowed(**constants):
        with small(COARSEST=3, **constants) as patch:
            patch.setattr(pricing, "FEWEST", 0)
            return [one.transport for one in intervals(x, y)]

    def estimated():
        with small(COARSEST=3):
            return [estimate_w1(x, y)]

    for bounded in (lambda: [solve(x, y)], narrowed, lambda: narrowed(DENSE=100), estimated):
        try:
            found = bounded()
        except TransportError:
            assert lie in ("no duals", "infinite duals", "a plan of nothing", "a plan of no numbers")
            continue
        for bounds in found:
            assert bounds.lower <= truth <= bounds.upper
