"""The laws of exact transport: the truth lies inside the interval, and the potential is what it says."""

import ast
import itertools
import math
import time
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wgan_lip import transport
from wgan_lip.transport import (
    Plan,
    Potential,
    TransportError,
    lower_bound_kr,
    solve,
    transport_cost,
    upper_bound_plan_cost,
)
from wgan_lip.utils import checks
from wgan_lip.utils.checks import InputError

mpmath.mp.dps = 50


def exact_distance(p, q):
    squares = ((mpmath.mpf(float(s)) - mpmath.mpf(float(t))) ** 2 for s, t in zip(p, q, strict=True))
    return mpmath.sqrt(mpmath.fsum(squares))


def brute_force(x, y, a=None, b=None):
    """W1 to 50 digits: repeat each point until all masses are equal, then try every matching."""
    a = [1] * len(x) if a is None else a
    b = [1] * len(y) if b is None else b
    size = math.lcm(sum(a), sum(b))
    left = [i for i, w in enumerate(a) for _ in range(w * size // sum(a))]
    right = [j for j, w in enumerate(b) for _ in range(w * size // sum(b))]
    assert size <= 6
    d = [[exact_distance(p, q) for q in y] for p in x]
    matchings = set(itertools.permutations(right))
    return min(sum(d[i][j] for i, j in zip(left, matching, strict=True)) for matching in matchings) / size


def assert_encloses(result, truth):
    assert mpmath.mpf(result.lower) <= truth <= mpmath.mpf(result.upper)
    assert result.lower <= result.value <= result.upper


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def relative_width(result):
    return (result.upper - result.lower) / result.value


# --- the interval -----------------------------------------------------------------------------------------------------

SIZES = [(1, 1), (1, 5), (4, 1), (2, 3), (6, 2), (5, 5)]


@pytest.mark.parametrize("d", [1, 2, 7])
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_interval_contains_brute_force(n, m, d):
    x, y = normal(n, d, seed=n), normal(m, d, seed=10 * m) + 0.5
    result = solve(x, y)
    assert_encloses(result, brute_force(x, y))
    assert relative_width(result) < 1e-13


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize(("offset", "scale"), [(1e6, 1), (0, 1e8), (0, 1e-8), (1e6, 1e-8), (0, 1e-160), (0, 1e200)])
def test_interval_survives_offset_and_scale(offset, scale, d):
    x, y = (normal(5, d) + offset) * scale, (normal(5, d, seed=1) + offset) * scale
    result = solve(x, y)
    assert_encloses(result, brute_force(x, y))
    assert relative_width(result) < 1e-11


def test_interval_contains_truth_at_the_edge_of_float64():
    for scale in (1e-318, 1e-300, 1e279):
        x, y = normal(3, 2) * scale, normal(3, 2, seed=1) * scale
        assert_encloses(solve(x, y), brute_force(x, y))
    x, y = np.array([[1e200, 0.0]]), np.array([[1e200, 1e-170]])  # an offset beyond every useful unit
    assert_encloses(solve(x, y), brute_force(x, y))


coordinates = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e3, 1e3), st.floats(-1e-3, 1e-3))


@st.composite
def weighted_pairs(draw):
    d = draw(st.integers(1, 3))
    sides = []
    for total in draw(st.sampled_from([(1, 5), (2, 3), (4, 4), (5, 5), (6, 3), (2, 6)])):
        weights = draw(st.lists(st.integers(0, 3), min_size=1, max_size=5).filter(lambda w: sum(w) > 0))
        while sum(weights) > total:
            weights[weights.index(max(weights))] -= 1
        weights[0] += total - sum(weights)
        sides += [draw(arrays(np.float64, (len(weights), d), elements=coordinates)), weights]
    return sides


@settings(max_examples=40, deadline=None)
@given(weighted_pairs())
def test_interval_contains_brute_force_with_weights(pair):
    x, a, y, b = pair
    result = solve(x, y, a=np.array(a) / sum(a), b=np.array(b) / sum(b))
    # Thirds are not numbers of float64: the truth moves by less than 1e-15 of the spread.
    spread = 1e-15 * float(np.ptp(np.concatenate([x, y]), axis=0).sum())
    truth = brute_force(x, y, a, b)
    assert result.lower - spread <= truth <= result.upper + spread
    assert result.upper - result.lower <= 100 * spread + 1e-140


@settings(max_examples=40, deadline=None)
@given(weighted_pairs())
def test_interval_contains_brute_force_with_integer_weights(pair):
    x, a, y, b = pair
    truth = brute_force(x, y, a, b)
    result = solve(x, y, a=a, b=b)  # each divided by its total
    assert_encloses(result, truth)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.data())
def test_interval_contains_brute_force_on_duplicates(n, d, data):
    x, y = (data.draw(arrays(np.float64, (n, d), elements=coordinates)) for _ in range(2))
    y[0] = x[-1]
    assert_encloses(solve(x, y), brute_force(x, y))


def exact_on_line(x, y, a, b):
    """The integral of |F - G|, in rational numbers."""
    points = sorted(
        [(Fraction(float(p)), Fraction(float(w)) / sum(map(Fraction, a))) for p, w in zip(x, a, strict=True)]
        + [(Fraction(float(q)), -Fraction(float(w)) / sum(map(Fraction, b))) for q, w in zip(y, b, strict=True)]
    )
    levels = itertools.accumulate(w for _, w in points)
    return sum(abs(c) * (t[0] - s[0]) for c, s, t in zip(levels, points, points[1:], strict=False))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([1, 2, 4]), st.integers(-140, 140), st.data())
def test_interval_contains_rational_truth_of_collinear_points(d, exponent, data):
    sides = []
    for size in (data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))):
        points = np.zeros((size, d))
        points[:, -1] = data.draw(arrays(np.float64, size, elements=coordinates)) * 10.0**exponent
        weights = data.draw(arrays(np.float64, size, elements=st.floats(0, 1)))
        weights[0] += 0.1
        sides.append((points, weights))
    (x, a), (y, b) = sides
    b *= a.sum() / b.sum()
    result = solve(x, y, a=a, b=b)
    truth = exact_on_line(x[:, -1], y[:, -1], a.tolist(), b.tolist())
    assert Fraction(result.lower) <= truth <= Fraction(result.upper)


@pytest.mark.parametrize("share", [1.484e-47, 1e-30, 1e-17, 1e-16, 1e-12])
@pytest.mark.parametrize("solved", [solve, transport_cost])
def test_a_mass_too_small_for_its_total_still_has_to_travel(share, solved):
    """All of P lies at one point of Q, but for a share of Q below the rounding error of its total."""
    x, y = np.array([[0.0, 1.0]]), np.array([[0.0, 1.0], [0.0, 0.0]])
    a, b = np.array([0.1]), np.array([0.1, share])
    truth = exact_on_line(x[:, 1], y[:, 1], a.tolist(), b.tolist())
    result = solved(x, y, a=a, b=b)
    assert Fraction(result.lower) <= truth <= Fraction(result.upper) < truth + Fraction(1e-14)


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 16, 128])
def test_shift_costs_its_length(d):
    x, shift = np.round(normal(300, d) * 2**20) / 2**20, np.round(normal(d, seed=1) * 2**20) / 2**20  # exact sums
    result = solve(x, x + shift)
    assert_encloses(result, exact_distance(shift, np.zeros(d)))
    assert relative_width(result) < 1e-11


@pytest.mark.parametrize("d", [1, 2, 16])
def test_dilation_costs_the_mean_norm(d):
    x = normal(300, d)
    result = solve(x, 2 * x)  # doubling is exact
    assert_encloses(result, mpmath.fsum(exact_distance(p, np.zeros(d)) for p in x) / len(x))
    assert relative_width(result) < 1e-12


def test_point_mass_costs_the_mean_distance():
    x = normal(200, 3)
    truth = mpmath.fsum(exact_distance(p, [1, 2, 3]) for p in x) / len(x)
    assert_encloses(solve(x, [[1, 2, 3]]), truth)
    assert_encloses(solve([[1, 2, 3]], x), truth)


@pytest.mark.parametrize(("n", "m"), [(200, 200), (200, 150)])
def test_line_agrees_with_the_simplex(n, m):
    x, y = normal(n, 1), 1.5 * normal(m, 1, seed=1) + 0.3
    a, b = np.random.default_rng(0).random(n), np.random.default_rng(1).random(m)
    a, b = a / a.sum(), b / b.sum()
    flat = solve(x, y, a=a, b=b)
    plane = solve(np.pad(x, ((0, 0), (0, 1))), np.pad(y, ((0, 0), (0, 1))), a=a, b=b)
    assert max(flat.lower, plane.lower) <= min(flat.upper, plane.upper)
    assert max(relative_width(flat), relative_width(plane)) < 1e-12


def test_line_is_fast_on_many_points():
    n = 200_000
    x, y = normal(n, 1), 1.5 * normal(n + 1, 1, seed=1)
    start = time.process_time()
    result = solve(x, y, a=np.random.default_rng(0).random(n))
    assert relative_width(result) < 1e-11
    assert time.process_time() - start < 10


@pytest.mark.parametrize("d", [1, 2, 5])
def test_identical_sets_are_at_distance_zero(d):
    x = normal(100, d) + 1e3
    result = solve(x, x[::-1].copy())
    assert result.lower == 0 <= result.upper < 1e-100
    result = solve(np.concatenate([x, x]), x)  # every point twice
    assert result.lower == 0 <= result.upper < 1e-12


def test_all_points_equal():
    for size in (1.0, 0.0, 1e-300, 1e200):
        result = solve(np.full((4, 2), size), np.full((3, 2), size))
        assert result.lower == 0 <= result.upper <= 1e-300 * size + 1e-320


# --- a metric ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 4])
def test_symmetry_and_triangle_inequality(d):
    x, y, z = normal(60, d), 2 * normal(50, d, seed=1), normal(40, d, seed=2) + 1
    xy, yx, yz, xz = solve(x, y), solve(y, x), solve(y, z), solve(x, z)
    assert max(xy.lower, yx.lower) <= min(xy.upper, yx.upper)
    assert xz.lower <= xy.upper + yz.upper


@pytest.mark.parametrize("d", [1, 3])
def test_zero_weights_are_absent_points(d):
    x, y = normal(40, d), normal(30, d, seed=1) + 1
    a, b = np.ones(40), np.ones(30)
    a[::3], b[1::2] = 0, 0
    a, b = a * b.sum(), b * a.sum()
    far = x.copy()
    far[::3] = 1e250
    kept, dropped = solve(x[a > 0], y[b > 0]), solve(far, y, a=a, b=b)
    assert max(kept.lower, dropped.lower) <= min(kept.upper, dropped.upper)
    assert relative_width(dropped) < 1e-12
    assert dropped.plan.shape == (40, 30)
    assert a[dropped.plan.rows].all() and b[dropped.plan.columns].all()


def test_weights_of_any_total_and_precision():
    x, y = normal(30, 2), normal(20, 2, seed=1)
    a = np.random.default_rng(0).random(30)
    reference = solve(x, y, a=a)
    for factor in (2.0**-1030, 2.0**1000):
        other = solve(x, y, a=a * factor)
        assert other.value == pytest.approx(reference.value, rel=1e-12)
    single = torch.tensor(a).softmax(0).float()
    solve(x, y, a=single, b=torch.full((20,), 1 / 20))  # totals differ in the eighth digit


# --- plan and potential -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 3])
def test_plan_has_its_marginals_and_the_value_is_its_cost(d):
    x, y, a = normal(50, d), normal(40, d, seed=1), np.random.default_rng(0).random(50)
    result = solve(x, y, a=a)
    plan = result.plan
    assert len(plan.mass) <= 50 + 40 - 1 and (plan.mass >= 0).all()
    np.testing.assert_allclose(plan.marginals[0], a / a.sum(), rtol=1e-12)
    np.testing.assert_allclose(plan.marginals[1], np.full(40, 1 / 40), rtol=1e-12)
    np.testing.assert_allclose(plan.dense().sum(1), plan.marginals[0], rtol=1e-14)
    distances = np.linalg.norm(x[:, None] - y[None], axis=2)
    assert result.value == pytest.approx((plan.dense() * distances).sum(), rel=1e-13)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.data())
def test_any_plan_bounds_from_above(d, data):
    x, y = (data.draw(arrays(np.float64, (3, d), elements=coordinates)) for _ in range(2))
    mass = data.draw(arrays(np.float64, 4, elements=st.floats(0.0625, 8)))
    rows, columns = (data.draw(arrays(np.int64, 4, elements=st.integers(0, 2))) for _ in range(2))
    assert brute_force(x, y) <= mpmath.mpf(upper_bound_plan_cost(x, y, Plan(rows, columns, mass, (3, 3))))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.sampled_from([1, -1]), st.data())
def test_any_potential_is_lipschitz_and_bounds_from_below(d, sign, data):
    x, y, points = (data.draw(arrays(np.float64, (3, d), elements=coordinates)) for _ in range(3))
    potential = Potential(points, data.draw(arrays(np.float64, 3, elements=coordinates)), sign=sign)
    (fx, ex), (fy, ey) = potential.with_error(torch.tensor(x)), potential.with_error(torch.tensor(y))
    assert lower_bound_kr(fx, fy, error=max(ex, ey)) <= brute_force(x, y)
    for p, q, f, g in zip(x, y, fx, fy, strict=True):
        assert abs(mpmath.mpf(float(f)) - float(g)) <= exact_distance(p, q) + ex + ey


@pytest.mark.parametrize(("d", "n"), [(1, 1), (1, 50), (2, 50), (9, 50)])
def test_potential_is_its_formula_within_its_error(d, n):
    points, offsets = normal(n, d) + 1e4, normal(n, seed=1)
    z = np.concatenate([normal(20, d, seed=2) + 1e4, points])
    values, error = Potential(points, offsets).with_error(z)
    truth = [min(exact_distance(q, p) - mpmath.mpf(float(v)) for p, v in zip(points, offsets, strict=True)) for q in z]
    assert error < 1e-12
    assert all(abs(mpmath.mpf(float(f)) - t) <= error for f, t in zip(values, truth, strict=True))


def test_offsets_may_dwarf_the_points():
    points = np.full((1, 2), 1e-300)
    assert Potential(points, [5e30])(points) == -5e30


def test_potential_blocks_change_nothing(monkeypatch):
    x, y = normal(40, 3), normal(30, 3, seed=1)
    whole = solve(x, y).potential(x)
    monkeypatch.setattr(transport.rounding, "CHUNK", 64)
    np.testing.assert_allclose(solve(x, y).potential(x), whole, rtol=1e-14)


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize(("n", "m"), [(40, 30), (30, 40)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_potential_attains_w1_with_unit_gradients(n, m, d, dtype):
    x, y = torch.tensor(normal(n, d), dtype=dtype), torch.tensor(normal(m, d, seed=1) + 1, dtype=dtype)
    result = solve(x, y)
    f = result.potential
    assert float(f(x).mean() - f(y).mean()) == pytest.approx(result.value, rel=1e-12)
    z = torch.tensor(3 * normal(200, d, seed=2), dtype=dtype, requires_grad=True)
    values = f(z)
    (gradient,) = torch.autograd.grad(values.sum(), z)
    assert values.dtype == torch.float64 and gradient.dtype == dtype
    torch.testing.assert_close(gradient.norm(dim=1), torch.ones(200, dtype=dtype))
    np.testing.assert_array_equal(f(z.detach().numpy()), values.detach().numpy())
    apex = f.points.clone().requires_grad_()
    assert torch.autograd.grad(f(apex).sum(), apex)[0].norm(dim=1).max() <= 1 + 1e-12  # no NaN at a cone's tip


def test_inputs_of_any_kind_agree():
    x, y = [[0, 0], [3, 4]], [[0, 1], [3, 5]]
    given = [solve(x, y), solve(np.array(x, np.float32), torch.tensor(y)), solve(torch.tensor(x).half(), np.array(y))]
    assert {round(result.value, 12) for result in given} == {1.0}


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_bad_samples_are_refused():
    x = normal(5, 2)
    broken = x.copy()
    broken[3, 1] = np.nan
    with pytest.raises(InputError, match="row 3"):
        solve(broken, x)
    with pytest.raises(InputError, match=r"same dimension.*\(5, 2\).*\(5, 3\)"):
        solve(x, normal(5, 3))
    with pytest.raises(InputError, match=r"1e\+300.*Rescale"):
        solve(x * 0 + 1e300, x)
    with pytest.raises(InputError, match="dimension 2"):
        solve(x, x).potential(normal(5, 3))


def test_bad_weights_are_refused():
    x = normal(2, 2)
    with pytest.raises(InputError, match=r"non-negative.*position 1"):
        solve(x, x, a=[0.5, -0.5])
    with pytest.raises(InputError, match=r"must hold \d weights"):
        solve(x, x, b=[1.0])


def test_bad_plans_and_potentials_are_refused():
    index = np.array([0, 1])
    with pytest.raises(InputError, match=r"columns must be in 0\.\.0, not 0\.\.1"):
        Plan(index, index, np.ones(2), (2, 1))
    with pytest.raises(InputError, match="rows must hold 2 integers"):
        Plan(index.astype(float), index, np.ones(2), (2, 2))
    with pytest.raises(InputError, match="position 0"):
        Plan(index, index, np.array([np.nan, 1]), (2, 2))
    with pytest.raises(InputError, match="plan must have shape"):
        upper_bound_plan_cost(normal(3, 2), normal(2, 2), Plan(index, index, np.ones(2), (2, 2)))
    with pytest.raises(InputError, match="offsets must hold one value"):
        Potential(normal(3, 2), np.zeros(2))
    with pytest.raises(InputError, match="sign"):
        Potential(normal(3, 2), np.zeros(3), sign=0)
    with pytest.raises(InputError, match="error"):
        lower_bound_kr([1.0], [0.0], error=math.nan)


def test_too_little_memory_is_refused_before_it_is_taken(monkeypatch):
    monkeypatch.setattr(checks, "available_memory", lambda: 10_000)
    with pytest.raises(InputError, match=r"GiB are available\. Use wgan_lip.estimate_w1"):
        solve(normal(700, 2), normal(700, 2, seed=1))
    solve(normal(700, 1), normal(700, 1, seed=1))  # the line needs none
    monkeypatch.setattr(checks, "available_memory", lambda: None)
    solve(normal(100, 2), normal(100, 2, seed=1))


def test_available_memory_is_a_plausible_number():
    available = checks.available_memory()
    assert available is None or available > 2**20


def test_unfinished_solver_is_an_error_and_a_lying_one_only_widens(monkeypatch):
    import ot

    emd, x, y = ot.emd, normal(30, 2), normal(30, 2, seed=1)
    truth = solve(x, y)
    monkeypatch.setattr(ot, "emd", lambda *args, **kwargs: emd(*args, **{**kwargs, "numItermax": 10}))
    with pytest.warns(UserWarning), pytest.raises(TransportError, match="code 3"):
        solve(x, y)

    def lying(a, b, costs, **kwargs):
        matrix, log = emd(a, b, costs, log=True)
        u, v = log["u"] + normal(30, seed=2), log["v"] + normal(30)
        return 0.3 * np.roll(matrix, 1, axis=0) + 0.1 * np.eye(30)[0], {**log, "u": u, "v": v}

    monkeypatch.setattr(ot, "emd", lying)
    result = solve(x, y)
    assert result.lower <= truth.lower <= truth.upper <= result.upper


def test_import_does_not_load_the_solver():
    tree = ast.parse(Path(transport.exact.__file__).read_text())
    at_import = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    assert "numpy" in at_import
    assert "ot" not in at_import
