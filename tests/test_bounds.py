"""Operator norms: at least the truth, by exact rational arithmetic, whatever numpy's routines return; and tight."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wgan_lip.lipschitz.bounds import (
    Norm,
    gamma,
    product_up,
    upper_bound_norm,
    upper_bound_operator_norm,
    upper_bound_vector_norm,
)
from wgan_lip.lipschitz.bounds.dense import root_up
from wgan_lip.utils.checks import InputError

RNG = np.random.default_rng(0)


def exact_gram(matrix):
    """A Aᵀ or AᵀA, the smaller of the two, in rational numbers."""
    a = np.asarray(matrix, dtype=np.float64)
    rows = [[Fraction(v) for v in row] for row in (a if a.shape[0] <= a.shape[1] else a.T).tolist()]
    return [[sum(p * q for p, q in zip(r, s)) for s in rows] for r in rows]


def is_psd(matrix):
    """Whether a rational symmetric matrix is positive semi-definite: exact LDLᵀ."""
    a = [row[:] for row in matrix]
    for k in range(len(a)):
        if a[k][k] < 0:
            return False
        if a[k][k] == 0:
            if any(a[i][k] != 0 for i in range(k, len(a))):
                return False
            continue
        for i in range(k + 1, len(a)):
            factor = a[i][k] / a[k][k]
            for j in range(k, len(a)):
                a[i][j] -= factor * a[k][j]
    return True


def dominates(bound, matrix):
    """Whether bound ≥ ‖matrix‖, decided exactly: bound²·I − A Aᵀ is positive semi-definite."""
    if math.isnan(bound) or bound < 0:
        return False
    if bound == math.inf:
        return True
    gram = exact_gram(matrix)
    square = Fraction(bound) ** 2
    return is_psd([[(square if i == j else 0) - v for j, v in enumerate(row)] for i, row in enumerate(gram)])


def true_norm(matrix):
    """The spectral norm to 50 digits."""
    with mpmath.workdps(50):
        return max(mpmath.svd_r(mpmath.matrix(np.asarray(matrix, dtype=np.float64).tolist()), compute_uv=False))


def excess(bound, matrix):
    with mpmath.workdps(50):
        return float(mpmath.mpf(bound) / true_norm(matrix) - 1)


def orthogonal(n, m=None):
    q, _ = np.linalg.qr(RNG.standard_normal((n, n)))
    return q[:, : m or n]


def hilbert(n):
    return 1.0 / (np.arange(n)[:, None] + np.arange(n)[None, :] + 1)


def graded(n, low, high):
    scales = 10.0 ** np.linspace(low, high, n)
    return scales[:, None] * RNG.standard_normal((n, n))


def single_entry(value, shape=(3, 4)):
    matrix = np.zeros(shape)
    matrix[1, 2] = value
    return matrix


def hadamard(n):
    matrix = np.ones((1, 1))
    while matrix.shape[0] < n:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


STRUCTURED = {
    "random": RNG.standard_normal((5, 5)),
    "random wide": RNG.standard_normal((3, 9)),
    "random tall": RNG.standard_normal((9, 3)),
    "hilbert": hilbert(6),
    "orthogonal": orthogonal(6),
    "orthogonal tall": orthogonal(6, 3),
    "rank one": np.outer(RNG.standard_normal(5), RNG.standard_normal(6)),
    "ones": np.ones((5, 7)),
    "nearly equal singular values": orthogonal(5) * (1 + 1e-15 * np.arange(5)) @ orthogonal(5),
    "two largest 1e-8 apart": orthogonal(4) * np.array([1, 1 - 1e-8, 0.5, 1e-9]) @ orthogonal(4),
    "graded 1e-150..1e150": graded(4, -150, 150),
    "graded 1e-12..1": graded(5, -12, 0),
    "around 1e300": 1e300 * RNG.standard_normal((4, 4)),
    "around 1e-300": 1e-300 * RNG.standard_normal((4, 4)),
    "around 1e-160, squares underflow": 1e-160 * RNG.standard_normal((4, 4)),
    "subnormal": 5e-324 * RNG.integers(-9, 10, (4, 4)),
    "largest float": np.full((1, 1), np.finfo(float).max),
    "smallest float": np.full((1, 1), 5e-324),
    "1 and the smallest float": np.array([[1.0, 5e-324], [5e-324, 1.0]]),
    "single entry": single_entry(-3.7),
    "single subnormal entry": single_entry(5e-324),
    "single row": RNG.standard_normal((1, 8)),
    "single column": RNG.standard_normal((8, 1)),
    "one zero row": np.vstack([np.zeros(4), RNG.standard_normal((3, 4))]),
    "integers": RNG.integers(-9, 10, (5, 6)).astype(float),
    "large integers": RNG.integers(-(2**52), 2**52, (4, 4)).astype(float),
    "cancelling product": np.array([[1e8, 1.0, -1e8], [1e8, -1.0, -1e8], [1.0, 1e8, 1.0]]),
}
SMALL = pytest.mark.parametrize("matrix", STRUCTURED.values(), ids=STRUCTURED)


@SMALL
def test_the_bound_is_at_least_the_norm_exactly(matrix):
    assert dominates(upper_bound_norm(matrix), matrix)


def test_the_exact_referee_can_say_no():
    matrix = STRUCTURED["integers"]
    truth = float(true_norm(matrix))
    assert not dominates(truth * (1 - 1e-15), matrix)
    assert dominates(truth * (1 + 1e-15), matrix)
    assert not dominates(math.nan, matrix)


@SMALL
def test_the_bound_is_tight_and_never_above_the_frobenius_norm(matrix):
    bound = upper_bound_norm(matrix)
    if bound == math.inf:
        assert np.abs(matrix).max() > 1e308
        return
    if np.abs(matrix).max() > 1e-307:  # subnormal numbers have few digits
        assert 0 <= excess(bound, matrix) < 1e-13
    with mpmath.workdps(50):
        frobenius = mpmath.sqrt(mpmath.fsum(mpmath.mpf(v) ** 2 for v in matrix.ravel().tolist()))
        assert bound <= frobenius * (1 + mpmath.mpf(2) ** -40) + 1e-323


@settings(deadline=None, max_examples=120)
@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["dense", "integers", "graded", "rank one", "sparse", "nearly orthogonal"]),
    st.integers(-320, 300),
)
def test_the_bound_dominates_whatever_the_matrix(m, n, seed, kind, exponent):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((m, n))
    if kind == "integers":
        matrix = rng.integers(-3, 4, (m, n)).astype(float)
    elif kind == "graded":
        matrix = matrix * 10.0 ** rng.uniform(-20, 0, (m, n))
    elif kind == "rank one":
        matrix = matrix[:, :1] * matrix[:1]
    elif kind == "sparse":
        matrix = matrix * (rng.random((m, n)) < 0.3)
    elif kind == "nearly orthogonal":
        matrix = np.linalg.qr(rng.standard_normal((5, 5)))[0][:m, :n] + 1e-14 * matrix
    matrix = matrix * 10.0**exponent
    bound = upper_bound_norm(matrix)
    assert dominates(bound, matrix)
    assert upper_bound_norm(matrix.T) >= 0
    if np.abs(matrix).max() > 1e-300:
        assert excess(bound, matrix) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_stored_entries_of_any_precision_convert_exactly(dtype):
    weight = torch.randn(4, 6, dtype=torch.float64).to(dtype).requires_grad_(True)
    bound = upper_bound_norm(weight)
    assert bound == upper_bound_norm(weight.detach().double().numpy())
    assert dominates(bound, weight.detach().double().numpy())


@pytest.mark.parametrize("size", [16, 256, 1024])
def test_large_integer_matrices_of_known_norm(size):
    """H Hᵀ = n·I; Kronecker products multiply norms: ‖H ⊗ B‖ = √n ‖B‖."""
    root = math.isqrt(size)
    bound = upper_bound_norm(hadamard(size))
    assert root <= bound <= root * (1 + 1e-9)
    if size == 16:
        small = np.array([[3.0, 0.0], [4.0, 5.0]])  # squared norm 45
        bound = upper_bound_norm(np.kron(hadamard(size), small))
        assert Fraction(bound) ** 2 >= size * 45
        assert bound <= math.sqrt(size * 45) * (1 + 1e-12)


@pytest.mark.parametrize("shape", [(512, 512), (512, 200), (64, 1024)])
@pytest.mark.parametrize("kind", ["gaussian", "orthogonal", "low rank"])
def test_relative_excess_at_size_512(shape, kind):
    matrix = RNG.standard_normal(shape)
    if kind == "orthogonal":
        matrix = np.linalg.qr(matrix if shape[0] >= shape[1] else matrix.T)[0]
    elif kind == "low rank":
        matrix = matrix[:, :3] @ RNG.standard_normal((3, shape[1]))
    truth = np.linalg.norm(matrix, 2)
    bound = upper_bound_norm(matrix)
    assert truth * (1 - 1e-13) <= bound <= truth * (1 + 1e-9)


@pytest.mark.parametrize("size", [3, 12])
def test_ball_arithmetic_agrees(size):
    flint = pytest.importorskip("flint")
    matrix = RNG.standard_normal((size, size + 1))
    balls = flint.arb_mat([[flint.arb(v) for v in row] for row in matrix.tolist()])
    with flint.ctx.workprec(200):
        eigenvalues = flint.acb_mat(balls * balls.transpose()).eig(algorithm="approx")
        truth = max(float(value.real.mid()) for value in eigenvalues) ** 0.5
        square = flint.arb(upper_bound_norm(matrix)) ** 2
        shifted = square * flint.arb_mat(size, size, [float(i == j) for i in range(size) for j in range(size)])
        shifted = shifted - balls * balls.transpose()
        minors = [
            flint.arb_mat([[shifted[i, j] for j in range(k)] for i in range(k)]).det() for k in range(1, size + 1)
        ]
    assert all(minor > 0 for minor in minors)  # Sylvester's criterion
    assert upper_bound_norm(matrix) == pytest.approx(truth, rel=1e-12)


# What the eigenvalue and Cholesky routines may answer without falsifying a bound.


def raising(*_, **__):
    raise np.linalg.LinAlgError


GUESSES = {
    "too small": lambda true: 0.3 * true,
    "slightly too small": lambda true: true * (1 - 1e-9),
    "zero": lambda true: 0 * true,
    "negative": lambda true: -5 * true,
    "large": lambda true: 1e6 * true,
    "huge": lambda true: np.full_like(true, 1e308),
    "infinite": lambda true: np.full_like(true, np.inf),
    "minus infinite": lambda true: np.full_like(true, -np.inf),
    "nan": lambda true: np.full_like(true, np.nan),
}
FACTORS = {
    "honest": None,
    "zero": np.zeros_like,
    "identity": lambda s: np.eye(len(s)),
    "noise": lambda s: np.random.default_rng(1).standard_normal(s.shape),
    "huge": lambda s: np.full_like(s, 1e300),
    "infinite": lambda s: np.full_like(s, np.inf),
    "nan": lambda s: np.full_like(s, np.nan),
    "one nan": lambda s: np.where(np.eye(len(s)) * (np.arange(len(s)) == 0), np.nan, 0.0),
    "diagonal only": lambda s: np.diag(np.sqrt(np.abs(np.diag(s)))),
    "root of the absolute": lambda s: np.linalg.qr(np.abs(s))[1],
}
LIARS = [STRUCTURED[k] for k in ("random", "random wide", "ones", "orthogonal", "around 1e300", "single row")]


def lie(monkeypatch, guess=None, factor=None):
    honest = np.linalg.eigvalsh
    if guess is not None:
        monkeypatch.setattr(np.linalg, "eigvalsh", lambda s: guess(honest(s)))
    if factor is not None:
        monkeypatch.setattr(np.linalg, "cholesky", factor)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the lies overflow
@pytest.mark.parametrize("guess", GUESSES.values(), ids=GUESSES)
@pytest.mark.parametrize("factor", FACTORS.values(), ids=FACTORS)
def test_lying_routines_cost_tightness_never_validity(monkeypatch, guess, factor):
    lie(monkeypatch, guess, factor)
    for matrix in LIARS:
        bound = upper_bound_norm(matrix)
        assert dominates(bound, matrix)
        if bound < math.inf:
            with mpmath.workdps(50):
                frobenius = mpmath.sqrt(mpmath.fsum(mpmath.mpf(v) ** 2 for v in matrix.ravel().tolist()))
            assert bound <= frobenius * (1 + 1e-12)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("routine", ["eigvalsh", "cholesky"])
@pytest.mark.parametrize("answer", [raising, lambda s: np.full(s.shape[-1:], np.nan)], ids=["raises", "nan"])
def test_lying_routines_never_falsify_a_block_norm(monkeypatch, routine, answer):
    matrix = RNG.standard_normal((4, 6))
    monkeypatch.setattr(np.linalg, routine, answer)
    bound = upper_bound_operator_norm(matrix, Norm((2, 4)), Norm((3, 1)))
    monkeypatch.undo()
    assert bound >= max(
        np.linalg.norm(matrix[:3, 2:], 2), np.linalg.norm(matrix[3, :2]) + np.linalg.norm(matrix[3, 2:])
    )


# Block norms


def extreme_points(norm, count, rng):
    """Points of norm 1 whose blocks all have norm 1: the unit ball is their convex hull; (count, dim)."""
    points = rng.standard_normal((count, norm.dim))
    for block in norm.slices:
        points[:, block] /= np.linalg.norm(points[:, block], axis=1, keepdims=True)
    return points


def norm_of(points, norm):
    return np.max([np.linalg.norm(points[:, block], axis=1) for block in norm.slices], axis=0)


BLOCKS = [(1,), (3,), (1, 1), (1, 1, 1, 2), (2, 2), (2, 1, 3), (1, 1, 1, 1)]


@pytest.mark.parametrize("blocks_in", BLOCKS, ids=str)
@pytest.mark.parametrize("blocks_out", BLOCKS, ids=str)
def test_block_norms_dominate_brute_force_maximisation(blocks_in, blocks_out):
    norm_in, norm_out = Norm(blocks_in), Norm(blocks_out)
    rng = np.random.default_rng(1)
    matrix = rng.standard_normal((norm_out.dim, norm_in.dim))
    bound = upper_bound_operator_norm(matrix, norm_in, norm_out)
    points = extreme_points(norm_in, 4000, rng)
    found = norm_of(points @ matrix.T, norm_out).max()
    assert found <= bound * (1 + 1e-14)
    if max(blocks_out) == 1 or len(blocks_in) == 1:  # the bound is exact
        exact = 0.0
        for rows in norm_out.slices:
            exact = max(exact, sum(float(true_norm(matrix[rows, columns])) for columns in norm_in.slices))
        assert exact <= bound * (1 + 1e-15)
        assert bound <= exact * (1 + 1e-12)
        assert found > 0.8 * bound
    joint = Norm((norm_in.dim,)), Norm((norm_out.dim,))
    assert upper_bound_operator_norm(matrix, *joint) == upper_bound_norm(matrix)


def test_closed_forms():
    matrix = RNG.standard_normal((4, 6))
    rational = [[abs(Fraction(v)) for v in row] for row in matrix.tolist()]
    maximum_in, maximum_out = Norm((1,) * 6), Norm((1,) * 4)
    row_sum = max(sum(row) for row in rational)
    bound = upper_bound_operator_norm(matrix, maximum_in, maximum_out)
    assert row_sum <= Fraction(bound) <= row_sum * Fraction(1 + 1e-13)

    bound = upper_bound_operator_norm(matrix, Norm((6,)), maximum_out)  # 2 → ∞: the largest row norm
    squared = max(sum(v * v for v in row) for row in rational)
    assert squared <= Fraction(bound) ** 2 <= squared * Fraction(1 + 1e-13)

    bound = upper_bound_operator_norm(matrix[:1], maximum_in, Norm((1,)))  # ∞ → scalar: the l1 norm
    assert sum(rational[0]) <= Fraction(bound) <= sum(rational[0]) * Fraction(1 + 1e-13)

    signs = np.array(list(itertools.product([-1, 1], repeat=6)))  # ∞ → 2: at most the sum of column norms
    bound = upper_bound_operator_norm(matrix, maximum_in, Norm((4,)))
    assert np.linalg.norm(signs @ matrix.T, axis=1).max() <= bound
    assert bound <= np.linalg.norm(matrix, axis=0).sum() * (1 + 1e-12)


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32 - 1), st.integers(-300, 300), st.booleans())
def test_row_sums_are_bounded_exactly(seed, exponent, spread):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((3, 5)) * 10.0**exponent
    if spread:
        matrix = matrix * 10.0 ** np.clip(rng.uniform(-200, 0, (3, 5)), -300 - exponent, 0)
    bound = upper_bound_operator_norm(matrix, Norm((1,) * 5), Norm((1,) * 3))
    assert Fraction(bound) >= max(sum(abs(Fraction(v)) for v in row) for row in matrix.tolist())
    scalar_out = upper_bound_operator_norm(matrix[:1], Norm((2, 3)), Norm((1,)))
    with mpmath.workdps(60):
        parts = [mpmath.sqrt(mpmath.fsum(mpmath.mpf(v) ** 2 for v in matrix[0, s])) for s in Norm((2, 3)).slices]
        assert mpmath.mpf(scalar_out) >= mpmath.fsum(parts)


def test_block_norms_of_extreme_matrices():
    for scale in (1e-320, 1e-200, 1e200, 1e306):
        matrix = scale * np.array([[1.0, 2.0, 2.0], [4.0, 3.0, 0.0], [0.0, 0.0, 1.0]])
        bound = upper_bound_operator_norm(matrix, Norm((1, 2)), Norm((1, 2)))
        assert bound >= max(scale * (1 + math.sqrt(8)), scale * (4 + 3)) * (1 - 1e-15)
    assert upper_bound_operator_norm(np.zeros((3, 3)), Norm((1, 2)), Norm((2, 1))) == 0.0


@pytest.mark.parametrize("scale", [5e-324, 1e-200, 1.0, 1e200, 1e307])
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 4), (2, 2, 2)])
def test_vector_norms_are_bounded_exactly(scale, shape):
    vector = RNG.standard_normal(shape) * scale
    bound = upper_bound_vector_norm(torch.from_numpy(np.atleast_1d(vector)))
    squared = sum(Fraction(v) ** 2 for v in np.ravel(vector).tolist())
    assert Fraction(bound) ** 2 >= squared
    if scale > 1e-300:
        assert Fraction(bound) ** 2 <= squared * (1 + Fraction(1, 10**13))


def test_the_vector_norm_of_nothing_is_zero():
    assert upper_bound_vector_norm(torch.zeros(0)) == 0.0
    assert upper_bound_vector_norm(torch.zeros(5)) == 0.0


# Scalars


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e308, allow_subnormal=True), max_size=6))
def test_products_round_up(factors):
    product = product_up(*factors)
    assert product == math.inf or Fraction(product) >= math.prod(map(Fraction, factors))


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 10), max_size=6))
def test_products_are_tight(factors):
    exact = math.prod(map(Fraction, factors))
    assert exact <= Fraction(product_up(*factors)) <= exact * (1 + Fraction(1, 2**48))


def test_roots_round_up_and_are_exact_for_squares():
    for number in [*range(1, 2000), *(1 + 2.0**-k for k in range(53)), 2**53 - 1, 1e300]:
        root = root_up(number)
        assert Fraction(root) ** 2 >= Fraction(number)
        assert Fraction(math.nextafter(math.nextafter(root, 0), 0)) ** 2 < Fraction(number)
    assert [root_up(n * n) for n in range(100)] == list(range(100))


def test_products_of_ones_and_zeros_are_exact():
    assert product_up() == 1.0
    assert product_up(1.0, 1.0, 1.0) == 1.0
    assert product_up(1.0, 0.3, 1.0) == 0.3
    assert product_up(3.0, 0.0, 5.0) == 0.0
    assert product_up(1e-200, 1e-200) > 0.0
    assert product_up(1e200, 1e200) == math.inf


def test_a_product_with_zero_is_zero_even_after_an_overflow():

    assert product_up(1e200, 1e200, 0.0) >= 0.0
    assert product_up(0.0, math.inf) >= 0.0


@pytest.mark.parametrize("operations", [1, 2, 3, 7, 1000, 10**6, 10**9 + 7, 9 * 10**13 - 1])
def test_gamma_is_rounded_up(operations):
    exact = Fraction(operations, 2**53) / (1 - Fraction(operations, 2**53))
    assert exact <= Fraction(gamma(operations)) <= exact * (1 + Fraction(1, 2**48))


def test_gamma_refuses_what_its_formula_does_not_cover():
    assert gamma(0) == 0.0
    with pytest.raises(InputError, match="at most 9e13"):
        gamma(2**53)


# Refusals and norms


@pytest.mark.parametrize("bound", [upper_bound_norm, lambda a: upper_bound_operator_norm(a, Norm((1, 1)), Norm((2,)))])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(bound, bad):
    for matrix in (np.array([[1.0, bad], [0.0, 1.0]]), torch.tensor([[bad, 0.0], [0.0, 0.0]])):
        with pytest.raises(InputError, match="must be finite"):
            bound(matrix)
    with pytest.raises(InputError, match="must be finite"):
        upper_bound_vector_norm(torch.tensor([1.0, bad]))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,), (2, 2, 2), ()])
def test_what_is_not_a_matrix_is_refused(shape):
    with pytest.raises(InputError, match="non-empty matrix"):
        upper_bound_norm(np.ones(shape))


def test_complex_matrices_are_refused():

    with pytest.raises(InputError):
        upper_bound_norm(torch.tensor([[3 + 4j]]))
    with pytest.raises(InputError):
        upper_bound_norm(np.array([[3 + 4j]]))


def test_a_matrix_that_disagrees_with_its_norms_is_refused():
    with pytest.raises(InputError, match=r"shape \(4, 3\), not \(3, 4\)"):
        upper_bound_operator_norm(np.ones((3, 4)), Norm((1, 2)), Norm((4,)))


def test_norms_know_their_blocks():
    norm = Norm((1, 1, 1, 4))
    assert norm.dim == 7
    assert norm.slices == [slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 7)]
    assert Norm.euclidean(5) == Norm((5,))
    names = [str(n) for n in (Norm((1,)), Norm((5,)), Norm((1, 1)), norm, Norm((4, 1, 1, 1)), Norm((2, 3)))]
    assert names == [
        "Euclidean(1)",
        "Euclidean(5)",
        "max(2)",
        "block-max(1+1+1+4)",
        "block-max(4+1+1+1)",
        "block-max(2+3)",
    ]


@pytest.mark.parametrize("blocks", [(0,), (2, -1), (3, 0)])
def test_empty_blocks_are_refused(blocks):
    with pytest.raises(InputError, match="must have size at least 1"):
        Norm(blocks)


def test_only_the_euclidean_norm_of_any_size_meets_others():
    anonymous = Norm.euclidean()
    assert anonymous.meets(Norm((5,))) and Norm((5,)).meets(anonymous) and anonymous.meets(anonymous)
    assert not anonymous.meets(Norm((1, 1))) and not Norm((1, 4)).meets(anonymous)
    assert not Norm((5,)).meets(Norm((4,))) and not Norm((2, 3)).meets(Norm((3, 2)))
    assert str(anonymous) == "Euclidean"


def test_bounds_leave_their_input_alone():
    weight = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    before = weight.detach().clone()
    upper_bound_norm(weight)
    upper_bound_operator_norm(weight, Norm((2, 2)), Norm((1, 2)))
    assert torch.equal(weight.detach(), before)
    assert weight.grad is None
