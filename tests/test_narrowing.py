"""The narrowing interval against truth: exact matchings in 50 digits, rational numbers on lines, oracles, liars."""

import itertools
import math
import threading
from contextlib import contextmanager
from fractions import Fraction
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wgan_lip import estimate_w1
from wgan_lip.data import ORACLES
from wgan_lip.transport import (
    Plan,
    TransportError,
    exact,
    narrow,
    narrowing,
    patches,
    rounding,
    solve,
    solves_at_once,
)
from wgan_lip.utils import checks
from wgan_lip.utils.checks import InputError

mpmath.mp.dps = 50

SMALL = {
    "DENSE": 0,
    "COARSEST": 4,
    "POINTS_PER_CELL": 2,
    "FIRST_EDGES": 2,
    "ADDED_EDGES": 2,
    "KEPT_EDGES": 3,
}
PATCHES = {"SMALLEST_PATCH": 5, "RELIEF": 20}


@contextmanager
def small(**constants):
    """Levels, cells, pricing and dropped edges at sizes at which they would not be needed."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (SMALL | constants).items():
            patch.setattr(narrowing, name, value)
        for name, value in PATCHES.items():
            patch.setattr(patches, name, value)
        yield patch


def intervals(x, y, **options):
    found = list(itertools.islice(narrow(x, y, **options), 500))
    assert len(found) < 500
    return found


def assert_encloses(found, low, high=None, weights=(None, None)):
    """No lower bound exceeds `low`, no upper one is below `high`, or both are the truth; the intervals only narrow."""
    high = low if high is None else high
    for last, one in zip([None, *found], found):
        bounds = one.transport
        assert bounds.lower <= low and high <= bounds.upper
        assert bounds.lower <= bounds.value <= bounds.upper
        if last is not None:
            assert last.transport.lower <= bounds.lower and bounds.upper <= last.transport.upper
        for marginal, weight in zip(bounds.plan.marginals, weights):
            wanted = np.ones(len(marginal)) if weight is None else np.asarray(weight, dtype=float)
            np.testing.assert_allclose(marginal / marginal.sum(), wanted / wanted.sum(), atol=1e-9)
    assert [one.optimal for one in found[:-1]] == [False] * (len(found) - 1)


def spread(x, y):
    z = np.concatenate([x, y]).astype(float)
    return math.hypot(*np.ptp(z, axis=0)) + 1e-130 * np.abs(z).max() + 1e-300  # what vanishes beside the points


def width(found):
    return found[-1].transport.upper - found[-1].transport.lower


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# --- exact truth in few points ----------------------------------------------------------------------------------------


def exact_distance(p, q):
    squares = ((mpmath.mpf(float(s)) - mpmath.mpf(float(t))) ** 2 for s, t in zip(p, q, strict=True))
    return mpmath.sqrt(mpmath.fsum(squares))


def best_matching(x, y, a, b):
    """W1 to 50 digits: points repeated until all masses are equal, then the best matching, over subsets of y."""
    size = math.lcm(sum(a), sum(b))
    left = [i for i, w in enumerate(a) for _ in range(w * size // sum(a))]
    right = [j for j, w in enumerate(b) for _ in range(w * size // sum(b))]
    d = [[exact_distance(p, q) for q in y] for p in x]
    costs = {0: mpmath.mpf(0)}
    for i in left:
        further = {}
        for used, cost in costs.items():
            for k in range(size):
                if not used >> k & 1:
                    both, total = used | 1 << k, cost + d[i][right[k]]
                    if both not in further or total < further[both]:
                        further[both] = total
        costs = further
    return costs[(1 << size) - 1] / size


KINDS = ["normal", "integers", "equal", "line", "clusters", "huge spread"]


def points(rng, kind, count, d):
    z = rng.standard_normal((count, d))
    if kind == "integers":
        return rng.integers(-2, 3, (count, d)).astype(float)
    if kind == "equal":
        return np.ones((count, d))
    if kind == "line":
        return z[:, :1] * np.arange(1, d + 1)
    if kind == "clusters":
        return z + 1e7 * rng.integers(0, 2, (count, 1))
    if kind == "huge spread":
        return z * 10.0 ** rng.integers(-100, 100, (count, 1))
    return z


@st.composite
def problems(draw, fewest=1):
    """x, y, and weights that are whole numbers, of totals whose least common multiple is at most 8."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    d, kind = draw(st.integers(1, 4)), draw(st.sampled_from(KINDS))
    scale = draw(st.sampled_from([1, 1e8, 1e-8, 1e100, 1e-100]))
    offset = draw(st.sampled_from([0, 0, 1e6]))
    sides = []
    totals = [(8, 8), (7, 7), (6, 3), (2, 6), (8, 4), (8, 2), (1, 8), (5, 1)]
    for total in draw(st.sampled_from([pair for pair in totals if min(pair) >= fewest])):
        weights = [1] * total
        if draw(st.booleans()):
            cuts = rng.integers(0, total + 1, rng.integers(fewest - 1, total))
            weights = np.diff(np.sort([0, *cuts, total])).tolist()  # some of them 0
        sides.append(((points(rng, kind, len(weights), d) + offset) * scale, weights))
    (x, a), (y, b) = sides
    common = draw(st.integers(0, min(len(x), len(y))))
    y[:common] = x[:common]
    return x, a, y, b


def given_weights(a, b):
    """Weights as they are passed: none where all are 1, else of equal totals."""
    uniform_a, uniform_b = set(a) == {1}, set(b) == {1}
    return {
        "a": None if uniform_a else np.array(a) * (1 if uniform_b else sum(b)),
        "b": None if uniform_b else np.array(b) * (1 if uniform_a else sum(a)),
    }


@settings(max_examples=260, deadline=None)
@given(problems(), st.integers(1, 4), st.sampled_from([1, 10**6]))
def test_every_interval_holds_the_best_matching(problem, coarsest, patched):
    x, a, y, b = problem
    with small(COARSEST=coarsest, PATCHED=patched):
        found = intervals(x, y, **given_weights(a, b))
    assert_encloses(found, best_matching(x, y, a, b), weights=(a, b))
    assert found[-1].optimal and width(found) <= 1e-12 * spread(x, y)


@settings(max_examples=100, deadline=None)
@given(problems(fewest=2), st.booleans())
def test_every_estimate_holds_the_best_matching(problem, at_once):
    x, a, y, b = problem
    with small(**({"DENSE": 10**6} if at_once else {})):
        result = estimate_w1(x, y, critic=None, **given_weights(a, b))
    truth = best_matching(x, y, a, b)
    assert result.lower <= truth <= result.upper
    assert result.lower <= result.value <= result.upper and result.exact in (None, result.value)
    assert result.stopped == "optimal" and result.upper - result.lower <= 1e-12 * spread(x, y)


# --- rational truth on lines through space ----------------------------------------------------------------------------

DIRECTIONS = [(5, (3, 4)), (3, (1, 2, 2)), (2, (1, 1, 1, 1)), (7, (2, 3, 6))]


def on_a_line(places_x, places_y, a, b):
    """The integral of |F - G|, in rational numbers."""
    total_a, total_b = sum(map(Fraction, a)), sum(map(Fraction, b))
    jumps = [(int(p), Fraction(w) / total_a) for p, w in zip(places_x, a)]
    jumps += [(int(q), -Fraction(w) / total_b) for q, w in zip(places_y, b)]
    jumps.sort()
    levels = itertools.accumulate(w for _, w in jumps)
    return sum(abs(level) * (t[0] - s[0]) for level, s, t in zip(levels, jumps, jumps[1:]))


@settings(max_examples=140, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 120),
    st.integers(1, 120),
    st.sampled_from(DIRECTIONS),
    st.sampled_from([3, 1000, 10**9]),
    st.sampled_from([0, 10**6]),
    st.sampled_from([0, 332, -332]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 10**6]),
)
def test_every_interval_holds_the_rational_truth_on_a_line(
    seed, n, m, way, reach, offset, power, weigh_a, weigh_b, patched
):
    rng, (length, direction) = np.random.default_rng(seed), way
    places = [rng.integers(-reach, reach + 1, size) for size in (n, m)]
    weights = [rng.random(size) * (rng.random(size) < 0.8) + np.eye(1, size)[0] for size in (n, m)]
    a, b = (weight if weigh else None for weigh, weight in zip((weigh_a, weigh_b), weights))
    if weigh_a and weigh_b:
        b *= a.sum() / b.sum()
    x, y = ((place[:, None] * np.array(direction) + offset) * 2.0**power for place in places)
    with small(PATCHED=patched):
        found = intervals(x, y, a=a, b=b)
    shares = [np.ones(size) if weight is None else weight for size, weight in ((n, a), (m, b))]
    truth = on_a_line(*places, *(share.tolist() for share in shares)) * length * Fraction(2) ** power
    low, high = Fraction(found[-1].transport.lower), Fraction(found[-1].transport.upper)
    assert low <= truth <= high
    assert_encloses(found, low, high, weights=(a, b))
    assert found[-1].optimal and width(found) <= 1e-11 * spread(x, y)


# --- oracles: exact truth at any size ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORACLES)
def test_every_interval_holds_the_mean_length_of_an_oracles_pairs(name):
    options = {"draws": 20_000} if name in ("funnel", "ray_monotone") else {}
    x, y = ORACLES[name](dim=3, **options).pair(250, torch.Generator().manual_seed(1))
    truth = mpmath.fsum(exact_distance(p, q) for p, q in zip(x, y)) / len(x)
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(2))]
    rounding = 1e-13 * spread(x.numpy(), y.numpy())  # of the pairs, which lie on the rays but for it
    for pairs in ((x, y), (x, shuffled)):
        with small(COARSEST=16, FIRST_EDGES=3, KEPT_EDGES=5):
            found = intervals(*pairs)
        assert_encloses(found, truth, truth - rounding)
        assert found[-1].optimal and width(found) <= 1e-11 * spread(x.numpy(), y.numpy())
        result = estimate_w1(*pairs, critic=None)
        assert result.lower <= truth <= result.upper + rounding


# --- how it ends ------------------------------------------------------------------------------------------------------

MANY = np.repeat(normal(20, 3), 10, 0)
CASES = {
    "plain": (normal(200, 2), normal(180, 2, seed=1) + 1),
    "few and many": (normal(100, 2), normal(3000, 2, seed=1)),
    "many and few": (normal(3000, 2), normal(100, 2, seed=1)),
    "two": (normal(400, 3), normal(2, 3, seed=1)),
    "one": (normal(400, 3), normal(1, 3, seed=1)),
    "one and one": (np.ones((1, 3)), np.ones((1, 3))),
    "all equal": (np.ones((100, 2)), np.ones((90, 2))),
    "duplicates": (MANY, MANY[::-1][:150] + np.eye(3)[0]),
    "equal sets": (normal(200, 2), normal(200, 2)[::-1].copy()),
    "lattice": (np.indices((14, 14)).reshape(2, -1).T, np.indices((10, 20)).reshape(2, -1).T),
    "small lattice": (
        np.random.default_rng(0).integers(0, 3, (300, 2)),
        np.random.default_rng(1).integers(0, 3, (200, 2)),
    ),
    "far cluster": (np.concatenate([normal(100, 2), normal(100, 2, seed=2) + 1e8]), normal(200, 2, seed=1)),
    "line in space": (normal(200, 1) * np.ones(5), normal(150, 1, seed=1) * np.ones(5)),
    "d = 1": (normal(300, 1), normal(200, 1, seed=1)),
    "d = 784": (normal(60, 784), normal(50, 784, seed=1) + 0.1),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("constants", "relative"),
    [
        ({}, 1e-10),
        ({"COARSEST": 64, "FIRST_EDGES": 5, "ADDED_EDGES": 8, "KEPT_EDGES": 10}, 1e-11),
        ({"COARSEST": 64, "FIRST_EDGES": 5, "ADDED_EDGES": 8, "KEPT_EDGES": 10, "PATCHED": 10}, 1e-11),
    ],
)
def test_the_interval_narrows_until_it_meets_the_exact_solver(case, constants, relative):
    x, y = CASES[case]
    truth = solve(x, y)
    with small(**constants):
        found = intervals(x, y)
    for one in found:
        assert one.transport.lower <= truth.upper and truth.lower <= one.transport.upper
    assert_encloses(found, found[-1].transport.lower, found[-1].transport.upper)
    assert found[-1].optimal
    ordinary = truth.lower > 0 and case != "far cluster"
    assert width(found) <= relative * (truth.upper if ordinary else spread(x, y))


@pytest.mark.parametrize("side", ["both", "a", "b"])
@pytest.mark.parametrize("dense", [0, 10**6])
def test_weightless_points_are_in_no_plan_and_change_nothing(side, dense):
    x, y, rng = normal(150, 2), normal(120, 2, seed=1) + 1, np.random.default_rng(0)
    a, b = rng.random(150), rng.random(120)
    a[::3] = b[1::2] = 0
    x[::3], y[1::2] = 1e200, -1e200
    if side != "b":
        keep_x = a > 0
    else:
        a, x, keep_x = None, normal(150, 2), np.ones(150, bool)
    if side == "a":
        b, y = None, normal(120, 2, seed=1) + 1
    if a is not None and b is not None:
        b *= a.sum() / b.sum()
    keep_y = np.ones(120, bool) if b is None else b > 0
    truth = solve(x[keep_x], y[keep_y], a=None if a is None else a[keep_x], b=None if b is None else b[keep_y])
    with small(DENSE=dense):
        found = intervals(x, y, a=a, b=b)
    assert_encloses(found, found[-1].transport.lower, found[-1].transport.upper, weights=(a, b))
    bounds = found[-1].transport
    assert found[-1].optimal and width(found) < 1e-11 * bounds.upper
    assert bounds.lower <= truth.upper and truth.lower <= bounds.upper
    for one in found:
        plan = one.transport.plan
        assert plan.shape == (150, 120) and keep_x[plan.rows].all() and keep_y[plan.columns].all()
        assert one.transport.upper < 1e3  # no mass travels to where the weightless are


@pytest.mark.parametrize("dense", [0, 10**6])
def test_weights_of_any_precision_and_size(dense):
    x, y = normal(60, 2), normal(50, 2, seed=1)
    single = torch.tensor(np.random.default_rng(0).random(60)).softmax(0).float()
    with small(DENSE=dense):
        found = intervals(x, y, a=single, b=torch.full((50,), 1 / 50))  # totals differ in the eighth digit
        assert found[-1].optimal and width(found) < 1e-6
        extreme = 10.0 ** np.linspace(-320, 300, 60)
        found = intervals(x, y, a=extreme)  # some are nothing beside the largest: whole cells are
        truth = solve(x[-5:], y, a=extreme[-5:])
        assert found[-1].optimal and found[-1].transport.value == pytest.approx(truth.value, rel=1e-12)


def test_only_above_the_limit_is_the_problem_not_looked_at_at_once():
    x, y = normal(101, 2), normal(100, 2, seed=1)
    with small(DENSE=100**2):
        assert solves_at_once(100, 100, 2) and solves_at_once(10**6, 10**6, 1) and not solves_at_once(101, 100, 2)
        assert [one.stage for one in intervals(x[:100], y)] == ["on a line", "exact solver"]
        found = intervals(x, y)
        weighted = intervals(x, y, a=np.arange(101) > 0)  # one point less has mass
    assert found[1].stage.endswith("cells") and found[-1].stage.startswith("pricing")
    assert weighted[-1].stage == "exact solver"
    truth = solve(x, y)
    assert found[-1].transport.value == pytest.approx(truth.value, rel=1e-13)


def test_many_points_beside_few_are_not_looked_at_at_once():
    """Where the simplex took minutes for 3 and 100,000."""
    assert solves_at_once(3, 1000, 2) and not solves_at_once(3, 10**5, 2) and not solves_at_once(10**5, 3, 2)
    x, y = normal(3, 2), normal(400, 2, seed=1)
    truth = solve(x, y)
    with small(DENSE=10**6, LONGEST=300, COARSEST=64):
        found = intervals(x, y)
    assert len(found) > 2 and found[-1].optimal
    assert found[-1].transport.value == pytest.approx(truth.value, rel=1e-13)


@pytest.mark.parametrize("d", [1, 2, 40])
@pytest.mark.parametrize("masses", [None, np.arange(3000.0)])
def test_one_point_has_one_plan(d, masses, monkeypatch):
    """W1 is a mean distance, for which nothing is solved."""
    monkeypatch.setattr(exact, "network_simplex", lambda *_: pytest.fail("there is nothing to solve"))
    x, y = normal(1, d), normal(3000, d, seed=1)
    truth = np.average(np.linalg.norm(y - x, axis=1), weights=masses)
    for pair, weights in (((x, y), {"b": masses}), ((y, x), {"a": masses}), ((np.repeat(x, 4, 0), y), {"b": masses})):
        (found,) = intervals(*pair, **weights)
        bounds = found.transport
        assert found.optimal and bounds.value == pytest.approx(truth, rel=1e-13)
        assert bounds.lower <= bounds.value <= bounds.upper <= bounds.lower + 1e-12
        assert solve(*pair, **weights).value == bounds.value


def test_blocks_change_nothing():
    x, y = normal(80, 3), normal(70, 3, seed=1)
    with small() as patch:
        whole = intervals(x, y)
        patch.setattr(narrowing, "CHUNK", 64)
        patch.setattr(rounding, "CHUNK", 64)
        blocks = intervals(x, y)
    assert [one.stage for one in whole] == [one.stage for one in blocks]
    assert blocks[-1].transport.value == pytest.approx(whole[-1].transport.value, rel=1e-14)


def test_the_potential_and_the_plan_are_those_of_the_bounds():
    x, y = normal(150, 2), normal(130, 2, seed=1) + 1
    with small():
        found = intervals(x, y)
    for one in found:
        bounds = one.transport
        f = bounds.potential
        assert bounds.lower <= max(0, f(x).mean() - f(y).mean()) + 1e-9
        assert bounds.upper == pytest.approx(bounds.plan.cost(x, y), rel=1e-11)
    assert bounds.lower == pytest.approx(f(x).mean() - f(y).mean(), rel=1e-11)


# --- deadlines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dense", [0, 10**6])
@pytest.mark.parametrize("d", [1, 2])
def test_after_the_deadline_there_is_one_interval(dense, d):
    x, y = normal(100, d), normal(90, d, seed=1)
    truth = solve(x, y)
    with small(DENSE=dense):
        (found,) = narrow(x, y, deadline=-math.inf)
    assert found.transport.lower <= truth.lower and truth.upper <= found.transport.upper
    assert found.optimal == (d == 1)  # on the line, sorting is the first interval


@pytest.mark.parametrize("ticks", [1, 2, 20, 40, 10**6])  # at 2 before the first level
def test_a_deadline_on_the_way_ends_it_with_valid_bounds(ticks):
    x, y = normal(200, 2), normal(180, 2, seed=1) + 1
    truth, clock = solve(x, y), itertools.count()
    with small() as patch:
        patch.setattr(narrowing, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        found = intervals(x, y, deadline=ticks)
    for one in found:
        assert one.transport.lower <= truth.upper and truth.lower <= one.transport.upper
    assert found[-1].optimal == (ticks == 10**6)
    assert (len(found) == 1) == (ticks <= 2)


def test_a_solver_that_does_not_end_is_left_at_the_deadline():
    started, released, left = threading.Event(), threading.Event(), []

    def stuck(*_):
        started.set()
        left.append(not released.wait(60))
        raise TransportError("too late for anyone to hear")

    x, y = normal(30, 2), normal(30, 2, seed=1)
    with small() as patch:
        patch.setattr(narrowing, "network_simplex", stuck)
        found = intervals(x, y, deadline=narrowing.time.monotonic() + 0.2)
        assert started.is_set() and not left  # it is still at work
        released.set()
    assert len(found) == 1


def test_an_exact_solver_that_does_not_end_is_left_at_the_deadline():
    started, released, left = threading.Event(), threading.Event(), []

    def stuck(*_):
        started.set()
        left.append(not released.wait(60))

    x, y = normal(30, 2), normal(30, 2, seed=1)
    with small(DENSE=10**6, GRACE=0.0) as patch:
        patch.setattr(narrowing, "solve_problem", stuck)
        found = intervals(x, y, deadline=narrowing.time.monotonic() + 0.2)
        assert started.is_set() and not left  # it is still at work
        released.set()
    assert [one.stage for one in found] == ["on a line"]


# --- solvers that lie -------------------------------------------------------------------------------------------------

LIES = {
    "a constant far away": lambda plan, u, v: (plan, u - 1e15, v + 1e15),
    "another": lambda plan, u, v: (plan, u + 1e16, v - 1e16),
    "one that hides all": lambda plan, u, v: (plan, u - 1e200, v + 1e200),
    "noise": lambda plan, u, v: (plan, u + normal(len(u)), v + normal(len(v), seed=1)),
    "large noise": lambda plan, u, v: (plan, u + 1e9 * normal(len(u)), v + 1e9 * normal(len(v), seed=1)),
    "zeros": lambda plan, u, v: (plan, 0 * u, 0 * v),
    "one edge": lambda plan, u, v: (Plan(plan.rows[:1], plan.columns[:1], plan.mass[:1], plan.shape), u, v),
    "permuted": lambda plan, u, v: (Plan(plan.rows[::-1].copy(), plan.columns, plan.mass, plan.shape), u, v),
    "half the mass": lambda plan, u, v: (
        Plan(plan.rows, plan.columns, plan.mass * (plan.rows % 2 + 1e-9), plan.shape),
        u,
        v,
    ),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("patched", [10, 10**6])
def test_a_solver_that_lies_widens_the_interval_and_never_falsifies_it(lie, patched):
    x, y = normal(40, 2), normal(30, 2, seed=1) + 1
    truth, simplex = solve(x, y), narrowing.network_simplex
    with small(COARSEST=16, PATCHED=patched) as patch:
        for module in (narrowing, patches):
            patch.setattr(module, "network_simplex", lambda *problem: LIES[lie](*simplex(*problem)))
        found = intervals(x, y)
    for one in found:
        assert one.transport.lower <= truth.upper and truth.lower <= one.transport.upper
    assert len(found) > 2


def test_a_solver_that_fails_says_so_after_the_first_interval():
    def failing(*_):
        raise TransportError("The solver ended with code 3.")

    x, y = normal(40, 2), normal(30, 2, seed=1)
    with small() as patch:
        patch.setattr(narrowing, "network_simplex", failing)
        rounds = narrow(x, y)
        assert next(rounds).transport.lower <= solve(x, y).lower
        with pytest.raises(TransportError, match="code 3"):
            next(rounds)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_at_the_call():
    x = normal(5, 2)
    broken = x.copy()
    broken[3, 1] = np.nan
    with pytest.raises(InputError, match="row 3"):
        narrow(broken, x)
    with pytest.raises(InputError, match="same dimension"):
        narrow(x, normal(5, 3))
    with pytest.raises(InputError, match="non-negative"):
        narrow(x, x, a=-np.ones(5))


def test_memory_is_asked_for_by_the_point_not_by_the_pair(monkeypatch):
    x, y = normal(5001, 2), normal(5001, 2, seed=1)
    monkeypatch.setattr(checks, "available_memory", lambda: 2**29)
    with pytest.raises(InputError, match="narrow"):
        solve(x, y)
    assert not next(narrow(x, y)).optimal
    monkeypatch.setattr(checks, "available_memory", lambda: 2**20)
    with pytest.raises(InputError, match=r"interval around W1 between 5001 and 5001 samples"):
        narrow(x, y)
    assert not solves_at_once(len(x), len(y), 2)
