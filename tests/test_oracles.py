"""Oracles against truth: the exact solver on their pairs, quadrature in 50 digits, brute force along the rays."""

from __future__ import annotations

import dataclasses
import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wgan_lip.data import ORACLES, Moved, Oracle, OracleSource
from wgan_lip.data.oracles import cones
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError

DIMS = [1, 2, 3, 16]


def rng(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rotation(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(rows, columns, generator=rng(seed)).double())[0]


def oracle(name: str, **options) -> Oracle:
    if name in ("funnel", "ray_monotone"):
        options.setdefault("draws", 40_000)
    return ORACLES[name](**options)


def moved(name: str, dim: int) -> Moved:
    return Moved(oracle(name), isometry=rotation(dim, 2), shift=torch.linspace(-3, 5, dim), scale=0.3)


CASES = {f"{name}-{dim}": oracle(name, dim=dim) for name in ORACLES for dim in DIMS}
OTHERS = {
    "shift-far": oracle("shift", dim=3, length=40.0),
    "marginal-wider": oracle("marginal", dim=3, mean=-0.5, std=2.0),
    "marginal-centred": oracle("marginal", mean=0.0, std=0.1),
    "radial-inside": oracle("radial", dim=3, std=0.3),
    "radial-outside": oracle("radial", dim=5, std=3.0),
    "radial-line": oracle("radial", dim=1, std=0.9),
    "dirac-middle": oracle("dirac", dim=3, distance=0.0),
    "dirac-far": oracle("dirac", dim=4, distance=20.0),
    "ball-large": oracle("ball", dim=16, radius=4.0),
    "subspace-16-6": oracle("subspace", dim=16, codimension=6),
    "grid-1": oracle("grid", dim=3, cells=1),
    "grid-30": oracle("grid", dim=2, cells=30),
    "dilation-wider": oracle("dilation", dim=3, factor=3.0),
    "dilation-to-atom": oracle("dilation", dim=3, factor=0.0),
    "mixture-9": oracle("mixture_dilation", dim=3, components=9, seed=4),
    "simplex-wide": oracle("simplex", dim=5, spacing=7.0, seed=3),
    "funnel-64": oracle("funnel", dim=4, funnels=64, seed=2),
    "ray-64": oracle("ray_monotone", dim=4, funnels=64, seed=2),
    "ray-one": oracle("ray_monotone", dim=2, funnels=1, half_width=1.0, power=2.0),
    "ray-narrow": oracle("ray_monotone", dim=3, funnels=8, half_width=1.2, apex_half_width=0.5, power=10.0),
    "contaminated-rays": oracle("contamination", dim=3, base="ray_monotone", fraction=0.5),
    "moved-rays": moved("ray_monotone", 5),
    "moved-marginal": moved("marginal", 2),
    "moved-twice": Moved(moved("radial", 3), isometry=rotation(4, 3), scale=100.0),
}
ALL = CASES | OTHERS
EVERY = pytest.mark.parametrize("case", ALL.values(), ids=ALL)


def spread(*points: torch.Tensor) -> float:
    return max(float(z.abs().max()) for z in points)


# --- pairs ------------------------------------------------------------------------------------------------------------


@EVERY
def test_the_mean_length_of_pairs_is_the_solvers_w1_and_the_potential_attains_it(case):
    x, y = case.pair(160, rng())
    assert x.shape == y.shape == (160, case.dim) and x.dtype == y.dtype == torch.float64
    truth = solve(x, y)
    assert truth.value > 0
    assert float((x - y).norm(dim=1).mean()) == pytest.approx(truth.value, rel=1e-10)
    assert float(case.potential(x).mean() - case.potential(y).mean()) == pytest.approx(truth.value, rel=1e-10)


@EVERY
def test_every_single_pair_lies_along_a_ray(case):
    x, y = case.pair(2000, rng(2))
    gap = case.potential(x) - case.potential(y) - (x - y).norm(dim=1)
    assert float(gap.abs().max()) <= 1e-14 * case.dim * (1 + spread(x, y))


@EVERY
def test_the_gradient_points_along_the_rays(case):
    x, y = case.pair(500, rng(3))
    length = (x - y).norm(dim=1, keepdim=True)
    far = length[:, 0] > 1e-3 * length.max()
    for share in (0.2, 0.5, 0.8):
        found = case.gradient(y + share * (x - y))
        torch.testing.assert_close(found[far], ((x - y) / length)[far], rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(sorted(ALL)), st.integers(0, 2**20), st.sampled_from([1e-6, 0.01, 1.0, 30.0]))
def test_the_potential_is_1_lipschitz(name, seed, step):
    case, stream = ALL[name], rng(seed)
    u = torch.cat([*case.pair(20, stream), 10 * torch.randn(20, case.dim, generator=stream).double()])
    v = torch.cat([u + step * torch.randn(u.shape, generator=stream).double(), u.flip(0)])
    u = torch.cat([u, u])
    change = (case.potential(u) - case.potential(v)).abs()
    assert bool((change <= (u - v).norm(dim=1) + 1e-14 * case.dim * (1 + spread(u, v))).all())


@EVERY
def test_the_gradient_is_that_of_the_potential_and_has_norm_1_or_0(case):
    x, y = case.pair(20, rng(4))
    size, h = spread(x, y), 1e-6 * spread(x, y)
    z = torch.cat([x, (x + y) / 2, size * torch.randn(20, case.dim, generator=rng(5)).double()])
    gradient = case.gradient(z)
    norm = gradient.norm(dim=1)
    assert bool((((norm - 1).abs() < 1e-12) | (norm == 0)).all())
    offsets = h * torch.cat([torch.eye(case.dim), -torch.eye(case.dim)]).double()
    around = z[:, None] + offsets  # (60, 2 d, d)
    values = case.potential(around.flatten(0, 1)).reshape(len(z), 2, case.dim)
    slopes = (values[:, 0] - values[:, 1]) / (2 * h)
    # In a kink, or too near to one, a function has no gradient to compare with: its one-sided slopes differ.
    middle = case.potential(z)[:, None]
    smooth = ((values[:, 0] + values[:, 1] - 2 * middle).abs() < 1e-3 * h).all(dim=1)
    assert int(smooth.sum()) >= (20 if case.name in ("simplex", "contamination") else 30)
    torch.testing.assert_close(gradient[smooth], slopes[smooth], rtol=0, atol=2e-4)


# --- W1 of the laws ---------------------------------------------------------------------------------------------------


@EVERY
def test_w1_is_the_mean_length_of_fresh_pairs(case):
    x, y = case.pair(40_000, rng(6))
    lengths = (x - y).norm(dim=1)
    error = math.hypot(float(lengths.std()) / 200, case.w1_error)
    assert isinstance(case.w1, float) and float(lengths.mean()) == pytest.approx(case.w1, abs=5 * error + 1e-12)
    sampled = {"funnel", "ray_monotone"}
    names = {case.name, getattr(case, "base", None), getattr(getattr(case, "oracle", None), "name", None)}
    assert (case.w1_error > 0) == bool(sampled & names)


def mean_norm(laplace) -> float:
    """E‖V‖ = ∫ (1 − E exp(−s²‖V‖²)) ds / (√π s²), from the transform of ‖V‖²."""
    with mpmath.workdps(50):  # Gauss-Legendre nodes stay off 0, where the digits cancel; beyond 40, in 1/s
        near = mpmath.quad(lambda s: (1 - laplace(s)) / s**2, [0, 0.1, 0.5, 1, 3, 10, 40], method="gauss-legendre")
        far = mpmath.quad(lambda t: 1 - laplace(1 / t), [0, 1 / 40], method="gauss-legendre")
        return float((near + far) / mpmath.sqrt(mpmath.pi))


def gaussian_transform(dim: int, distance: float):
    return lambda s: (1 + 2 * s**2) ** (-mpmath.mpf(dim) / 2) * mpmath.exp(-((s * distance) ** 2) / (1 + 2 * s**2))


@pytest.mark.parametrize("dim", [*DIMS, 50])
def test_gaussian_mean_norms_by_quadrature(dim):
    truth = mean_norm(gaussian_transform(dim, 0))
    assert oracle("dilation", dim=dim, factor=3.0).w1 == pytest.approx(2 * truth, rel=1e-12)
    assert oracle("dilation", dim=dim, factor=0.25).w1 == pytest.approx(0.75 * truth, rel=1e-12)
    assert oracle("subspace", dim=dim + 7, codimension=dim).w1 == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("distance", [0.0, 1.0, 6.0])
def test_the_distance_to_an_atom_by_quadrature(dim, distance):
    truth = mean_norm(gaussian_transform(dim, distance))
    assert oracle("dirac", dim=dim, distance=distance).w1 == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("dim", [*DIMS, 200])
def test_the_distance_to_a_grid_by_quadrature(dim):
    def cube(s):
        return (mpmath.sqrt(mpmath.pi) * mpmath.erf(s / 2) / s) ** dim

    assert oracle("grid", dim=dim, cells=3).w1 == pytest.approx(mean_norm(cube) / 3, rel=1e-12)


def test_the_distance_to_a_grid_in_closed_form():
    assert oracle("grid", dim=1, cells=5).w1 == pytest.approx(1 / 20, rel=1e-13)
    plane = (math.sqrt(2) + math.asinh(1)) / 6
    assert oracle("grid", dim=2, cells=7).w1 == pytest.approx(plane / 7, rel=1e-13)


@pytest.mark.parametrize("dim, cells", [(1, 7), (2, 1), (2, 3), (3, 4)])
def test_the_potential_of_a_grid_is_the_distance_to_its_nearest_centre_everywhere(dim, cells):
    line = (torch.arange(cells).double() + 0.5) / cells
    centres = torch.cartesian_prod(*[line] * dim).reshape(-1, dim)
    z = 0.5 + torch.randn(200, dim, generator=rng()).double()  # inside the cube and outside
    nearest = (z[:, None] - centres).norm(dim=2).amin(dim=1)
    torch.testing.assert_close(oracle("grid", dim=dim, cells=cells).potential(z), nearest, rtol=0, atol=1e-14)


def chi(dim: int):
    """The distribution function of ‖N(0, I)‖."""
    return lambda r: mpmath.gammainc(mpmath.mpf(dim) / 2, 0, mpmath.mpf(r) ** 2 / 2, regularized=True)


@pytest.mark.parametrize("dim, radius", [(1, 1.0), (2, 0.1), (3, 3.0), (16, 4.0)])
def test_the_distance_to_a_ball_by_quadrature(dim, radius):
    truth = mpmath.quad(lambda r: 1 - chi(dim)(r), [radius, radius + 1, radius + 4, radius + 14])
    assert oracle("ball", dim=dim, radius=radius).w1 == pytest.approx(float(truth), rel=1e-10)


@pytest.mark.parametrize("dim, std", [(1, 1.0), (1, 0.9), (2, 1.0), (3, 0.3), (5, 3.0), (16, 0.7), (16, 1.0)])
def test_radial_w1_is_that_of_the_radii_by_quadrature(dim, std):
    radius = std * math.sqrt(dim + 2)

    def difference(r):
        return chi(dim)(r) - min((r / radius) ** dim, 1)

    def ratio(r):  # falls from its value at 0 to below 1
        return chi(dim)(r) / (r / radius) ** dim - 1

    bracket = mpmath.mpf(radius) / 1000, radius
    crosses = [mpmath.findroot(ratio, bracket, solver="anderson")] if ratio(bracket[0]) > 0 else []
    case = oracle("radial", dim=dim, std=std)
    if crosses:  # where the potential turns
        u = torch.zeros(3, dim).double()
        u[:, 0] = float(crosses[0]) + torch.tensor([-1e-9, 0.0, 1e-9]).double()
        values = case.potential(u)
        assert values[1] > max(values[0], values[2])
    splits = sorted({0, *crosses, radius, radius + 4, radius + 14})
    truth = mpmath.quad(lambda r: abs(difference(r)), splits)
    assert case.w1 == pytest.approx(float(truth), rel=1e-10)


@pytest.mark.parametrize("mean, std", [(1.0, 0.5), (-2.0, 0.7), (0.0, 3.0), (0.3, 1.1), (5.0, 2.0)])
def test_marginal_w1_is_the_area_between_the_distribution_functions(mean, std):
    turn = mean / (1 - std)
    splits = [-40, *sorted({-3.0, 0.0, mean, 3.0, mean + 3, turn}), 40]
    truth = mpmath.quad(lambda t: abs(mpmath.ncdf(t) - mpmath.ncdf((t - mean) / std)), splits)
    assert oracle("marginal", dim=4, mean=mean, std=std).w1 == pytest.approx(float(truth), rel=1e-10)


@pytest.mark.parametrize("dim", [*DIMS, 40])
def test_simplex_w1_is_the_solvers_between_the_weighted_corners(dim):
    case = oracle("simplex", dim=dim, spacing=3.0, seed=dim)
    distances = torch.pdist(case.centres)
    torch.testing.assert_close(distances, torch.full_like(distances, 3.0), rtol=1e-14, atol=0)
    p, q = case.weights
    assert case.w1 == pytest.approx(solve(case.centres, case.centres, a=p, b=q).value, rel=1e-12)


# --- the published benchmark ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dim, funnels, published", [(2, 256, 0.1336), (8, 64, 1.2593), (16, 64, 1.5536), (64, 64, 1.3173)]
)
def test_ray_monotone_w1_is_like_the_published_one(dim, funnels, published):
    """The published centres are other draws from the same law."""
    found = [oracle("ray_monotone", dim=dim, funnels=funnels, seed=seed, draws=4000).w1 for seed in range(3)]
    assert sum(found) / 3 == pytest.approx(published, abs=0.05 + 0.02 * published)


@pytest.mark.parametrize("dim, funnels", [(1, 4), (1, 64), (2, 1), (2, 256), (3, 64), (16, 16)])
def test_ray_monotone_moves_along_the_whole_ray_found_by_bisection(dim, funnels):
    case = oracle("ray_monotone", dim=dim, funnels=funnels, seed=1, power=3.0)
    x, y = case.pair(400, rng(7))
    cones_at_y = torch.cdist(y, case.centres) + case.biases
    k = cones_at_y.argmin(dim=1)
    start, apex = (y - case.centres[k]).norm(dim=1, keepdim=True), case.centres[k]
    v = (y - apex) / start
    low, high = start.clone(), torch.full_like(start, 2 * case.half_width * math.sqrt(dim))
    for _ in range(60):  # the last length at which the point is inside the cube and its own funnel is the lowest
        middle = (low + high) / 2
        point = apex + middle * v
        others = (point[:, None] - case.centres).norm(dim=2) + case.biases
        others[torch.arange(len(y)), k] = math.inf
        own = middle + case.biases[k, None]
        inside = (point.abs() <= case.half_width).all(1, keepdim=True) & (own <= others.amin(1, keepdim=True))
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    torch.testing.assert_close(x, apex + (start / low) ** 3 * low * v, rtol=0, atol=1e-9)


def test_apexes_can_lie_in_a_cube_of_their_own():
    case = oracle("ray_monotone", dim=40, funnels=30, half_width=1.2, apex_half_width=0.5)
    assert 0.48 < case.centres.abs().max() <= 0.5 < case.pair(30, rng())[1].abs().max()
    with pytest.raises(InputError, match="apex_half_width must be positive"):
        oracle("ray_monotone", apex_half_width=0.0)


@pytest.mark.parametrize("name", ["funnel", "ray_monotone"])
def test_funnels_move_points_of_any_law_optimally(name):
    case = oracle(name, dim=5, funnels=8)
    y = 0.3 * torch.randn(200, 5, generator=rng(3), dtype=torch.float64) + 0.2
    x = case.moved(y, rng(4))
    lengths = (x - y).norm(dim=1)
    assert float(lengths.min()) > 0 and solve(x, y).value == pytest.approx(float(lengths.mean()), rel=1e-10)
    single = case.moved(y.float(), rng(4))
    assert single.dtype == torch.float32 and (name == "funnel" or torch.allclose(single, x.float(), atol=1e-4))


def test_blocks_change_nothing(monkeypatch):
    case = oracle("ray_monotone", dim=3, funnels=16)
    (x, y), z = case.pair(100, rng()), torch.randn(70, 3).double()
    values, gradient, w1 = case.potential(z), case.gradient(z), case.w1
    monkeypatch.setattr(cones, "_BLOCK", 40)
    for found, expected in zip((*case.pair(100, rng()), case.potential(z), case.gradient(z)), (x, y, values, gradient)):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)  # sums of products may go in another order
    again = oracle("ray_monotone", dim=3, funnels=16, draws=100)
    assert again.w1 == pytest.approx(w1, abs=5 * again.w1_error)
    assert again.w1_error == pytest.approx(20 * case.w1_error, rel=0.3)  # of 100 draws and of 40,000


# --- laws -------------------------------------------------------------------------------------------------------------


def ks(x: torch.Tensor, y: torch.Tensor) -> float:
    """√(n/2) times the largest Kolmogorov-Smirnov distance of the norms and of five projections of n rows each."""
    directions = rotation(x.shape[1], 1, 5), *torch.randn(4, x.shape[1], 1, generator=rng(9)).double()
    worst = 0.0
    for project in (lambda z: z.norm(dim=1), *(lambda z, d=d: (z @ d)[:, 0] for d in directions)):
        a, b = project(x).sort().values, project(y).sort().values
        grid = torch.cat([a, b]) + 1e-9  # atoms, computed in two ways, are the same atoms
        gap = torch.searchsorted(a, grid, right=True) - torch.searchsorted(b, grid, right=True)
        worst = max(worst, float(gap.abs().max()) / len(a))
    return worst * math.sqrt(len(x) / 2)


def same_law(x: torch.Tensor, y: torch.Tensor) -> bool:
    return ks(x, y) < 2.4  # exceeded by equal laws with a probability of 2 exp(−2 · 2.4²) = 2e-5 for each projection


@EVERY
def test_samples_have_the_laws_of_the_pairs_and_are_independent(case):
    n = 3000
    x, y = case.sample(n, n + 1, rng(11))
    assert x.shape == (n, case.dim) and y.shape == (n + 1, case.dim)
    pairs = case.pair(n, rng(12))
    assert same_law(x, pairs[0]) and same_law(y[:n], pairs[1])
    columns = torch.stack([x[:, 0], y[:n, 0]])
    if bool((columns.std(dim=1) > 1e-9).all()):  # not atoms
        assert abs(float(torch.corrcoef(columns)[0, 1])) < 5 / math.sqrt(n)


N = 6000


def laws():
    """Both laws of an oracle, drawn apart from one another and in another way."""
    diagonal = torch.ones(3).double() / math.sqrt(3)
    z = torch.randn(8, N, 3, generator=rng(13)).double()
    u = torch.rand(4, N, 1, generator=rng(14)).double()
    cube = torch.rand(N, 3, generator=rng(15)).double()
    yield oracle("shift", dim=3, length=0.7), z[0], z[1] + 0.7 * diagonal
    yield oracle("lift", dim=3), z[0], z[1] + z[1].square().sum(1, keepdim=True) / 3 * diagonal
    scale, mean = torch.tensor([0.5, 1, 1]).double(), torch.tensor([1.0, 0, 0]).double()
    yield oracle("marginal", dim=3), z[0], mean + scale * z[1]
    in_cube = math.sqrt(5) * (2 * torch.rand(4 * N, 3, generator=rng(16)).double() - 1)
    yield oracle("radial", dim=3), in_cube[in_cube.norm(dim=1) < math.sqrt(5)][:N], z[1]
    yield oracle("dirac", dim=3), z[0], diagonal.expand(N, 3)
    yield oracle("ball", dim=3), z[0], z[1] / z[1].norm(dim=1, keepdim=True).clamp(min=1)
    yield oracle("subspace", dim=3), z[0], z[1] * torch.tensor([0, 1, 1])
    yield oracle("grid", dim=3), cube, (torch.randint(4, (N, 3), generator=rng(17)).double() + 0.5) / 4
    yield oracle("dilation", dim=3), z[0], 0.5 * z[1]
    yield oracle("contamination", dim=3), z[0], z[1] * torch.where(u[0] < 0.2, 0.5, 1.0)
    mixture = oracle("mixture_dilation", dim=3)
    k = torch.randint(4, (2, N), generator=rng(18))
    in_ball = (in_cube / math.sqrt(5))[in_cube.norm(dim=1) < math.sqrt(5)]
    balls = mixture.radius * in_ball[:N], mixture.radius * in_ball[N : 2 * N]
    yield mixture, mixture.centres[k[0]] + balls[0], mixture.centres[k[1]] + mixture.factors[k[1], None] * balls[1]
    simplex = oracle("simplex", dim=3)
    corners = [(u[i] > weights.cumsum(0)[:-1]).sum(1) for i, weights in enumerate(simplex.weights)]
    yield simplex, simplex.centres[corners[0]], simplex.centres[corners[1]]
    funnel = oracle("funnel", dim=3)
    apex = funnel.centres[(torch.cdist(z[0], funnel.centres) + funnel.biases).argmin(1)]
    yield funnel, apex + u[1] * (z[0] - apex), z[1]
    yield oracle("ray_monotone", dim=3), None, 5 * cube - 2.5


LAWS = list(laws())


def test_no_oracle_is_left_out():
    assert {case.name for case, *_ in LAWS} == set(ORACLES)


@pytest.mark.parametrize("case, p, q", LAWS, ids=[case.name for case, *_ in LAWS])
def test_both_sides_have_the_law_that_the_oracle_names(case, p, q):
    x, y = case.pair(N, rng(19))
    assert p is None or same_law(x, p[:N])
    assert same_law(y, q)


# --- new oracles from old ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(sorted(CASES)), st.integers(0, 20), st.integers(0, 2**20), st.sampled_from([1e-3, 0.5, 1.0, 1e3])
)
def test_moving_pads_rotates_shifts_and_scales(name, padding, seed, scale):
    case = CASES[name]
    size = case.dim + padding
    shift = torch.randn(size, generator=rng(seed)).double()
    image = Moved(case, isometry=rotation(size, case.dim, seed), shift=shift, scale=scale)
    assert image.dim == size and image.w1 == scale * case.w1 and image.w1_error == scale * case.w1_error
    (x, y), before = image.pair(30, rng(seed)), case.pair(30, rng(seed))
    assert torch.allclose((x - y).norm(dim=1), scale * (before[0] - before[1]).norm(dim=1), rtol=1e-9, atol=1e-12)
    centred = (x - shift).norm(dim=1), scale * before[0].norm(dim=1)
    assert torch.allclose(*centred, rtol=1e-9, atol=1e-12)
    assert torch.allclose(image.potential(x) - image.potential(y), (x - y).norm(dim=1), rtol=1e-9, atol=1e-12)


def test_moving_by_nothing_changes_nothing():
    case = oracle("ray_monotone")
    image = Moved(case)
    x, y = case.pair(20, rng())
    assert all(map(torch.equal, image.pair(20, rng()), (x, y)))
    assert torch.equal(image.gradient(x), case.gradient(x)) and torch.equal(image.potential(x), case.potential(x))


# --- manners ----------------------------------------------------------------------------------------------------------


@EVERY
def test_draws_are_fixed_by_the_generator(case):
    assert all(map(torch.equal, case.pair(5, rng(3)), case.pair(5, rng(3))))
    stream = rng(3)
    first, second = case.pair(40, stream), case.pair(40, stream)
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["mixture_dilation", "simplex", "funnel", "ray_monotone"])
def test_the_seed_fixes_the_random_parameters(name):
    first, again, other = oracle(name, seed=5), oracle(name, seed=5), oracle(name, seed=6)
    z = torch.randn(10, 2).double()
    assert first == again and first.w1 == again.w1 and torch.equal(first.potential(z), again.potential(z))
    assert first != other and first.w1 != other.w1 and not torch.equal(first.potential(z), other.potential(z))


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_oracles_are_frozen_and_carry_their_name(name):
    case = ORACLES[name](dim=5)
    assert case.name == name and case.dim == 5 and case == ORACLES[name](dim=5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        case.dim = 3


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_high_dimensions_stay_finite(name):
    case = oracle(name, dim=500)
    x, y = case.pair(20, rng())
    lengths = (x - y).norm(dim=1)
    assert math.isfinite(case.w1) and case.w1 > 0
    torch.testing.assert_close(case.potential(x) - case.potential(y), lengths, rtol=0, atol=1e-11)


def test_single_precision_and_whole_numbers_are_taken_as_points():
    case = oracle("dirac", dim=2, distance=0.0)
    for points in (torch.tensor([[3.0, 4.0]]), torch.tensor([[3, 4]])):
        assert case.potential(points).tolist() == [5.0] and case.potential(points).dtype == torch.float64
        assert case.gradient(points).tolist() == [[0.6, 0.8]]
    assert case.gradient(torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]


def test_both_laws_serve_as_sample_sources():
    case = oracle("ray_monotone", dim=3)
    p, q = case.sources(test_size=500, seed=2)
    assert isinstance(p, OracleSource) and p.dim == q.dim == 3 and p.test.shape == q.test.shape == (500, 3)
    x, y = case.pair(40, rng())
    assert torch.equal(p.sample(40, rng()), x.float()) and torch.equal(q.sample(40, rng()), y.float())
    assert not torch.equal(p.reference(9, seed=0), p.test[:9])
    aligned = float((p.test - q.test).norm(dim=1).mean())
    assert aligned > 1.3 * case.w1  # held-out samples of the two sides are independent, not pairs


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("shift", {"dim": 0}, "dim must be a whole number of at least 1, not 0."),
        ("shift", {"dim": 2.0}, "dim must be a whole number of at least 1, not 2.0."),
        ("shift", {"length": 0.0}, "length must be positive and finite, not 0.0."),
        ("lift", {"length": math.nan}, "length must be positive"),
        ("marginal", {"std": 1.0}, "Use Shift(length=mean)"),
        ("marginal", {"std": -1.0}, "std must be positive"),
        ("marginal", {"mean": math.inf}, "mean must be finite, not inf."),
        ("radial", {"std": 0.0}, "std must be positive"),
        ("dirac", {"distance": -1.0}, "distance must be positive or zero"),
        ("ball", {"radius": -1.0}, "radius must be positive"),
        ("subspace", {"codimension": 3}, "codimension must be at most dim = 2, not 3."),
        ("subspace", {"codimension": 0}, "codimension must be a whole number of at least 1"),
        ("grid", {"cells": 0}, "cells must be a whole number of at least 1"),
        ("dilation", {"factor": -1.0}, "factor must be positive or zero"),
        ("mixture_dilation", {"components": 1}, "components must be a whole number of at least 2"),
        ("mixture_dilation", {"seed": -1}, "seed must be a whole number of at least 0"),
        ("simplex", {"spacing": math.inf}, "spacing must be positive and finite"),
        ("simplex", {"seed": 0.5}, "seed must be a whole number"),
        ("funnel", {"funnels": 0}, "funnels must be a whole number of at least 1"),
        ("funnel", {"draws": 1}, "draws must be a whole number of at least 2"),
        ("ray_monotone", {"power": 0.5}, "power must be at least 1"),
        ("ray_monotone", {"half_width": 0.0}, "half_width must be positive"),
        ("contamination", {"fraction": 0.0}, "fraction must be above 0 and at most 1, not 0.0."),
        ("contamination", {"fraction": math.nan}, "fraction must be above 0"),
        ("contamination", {"base": "contamination"}, "base must be one of shift"),
    ],
)
def test_bad_arguments_are_refused(name, options, message):
    with pytest.raises(InputError) as caught:
        ORACLES[name](**options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scale": 0.0}, "scale must be positive"),
        ({"isometry": torch.eye(3)}, "isometry must have shape (D, 2), not (3, 3)."),
        ({"isometry": torch.ones(3, 2)}, "Use the Q of torch.linalg.qr"),
        ({"isometry": torch.eye(1, 2)}, "must be orthonormal"),
        ({"shift": torch.zeros(3)}, "shift must have shape (2,), not (3,)."),
        ({"shift": torch.tensor([0.0, math.nan])}, "shift must be finite"),
        ({"isometry": torch.eye(3, 2), "shift": torch.zeros(2)}, "shift must have shape (3,)"),
    ],
)
def test_bad_motions_are_refused(options, message):
    with pytest.raises(InputError) as caught:
        Moved(oracle("shift"), **options)
    assert message in str(caught.value)


def test_bad_points_and_sizes_are_refused():
    case = oracle("shift", dim=3)
    for evaluate in (case.potential, case.gradient):
        with pytest.raises(InputError, match=r"x must have shape \(n, 3\), as the oracle's points do, not \(4, 2\)."):
            evaluate(torch.zeros(4, 2))
        with pytest.raises(InputError, match="x must be finite"):
            evaluate(torch.full((1, 3), math.nan))
    for n in (0, -1, 2.5):
        with pytest.raises(InputError, match="n must be a whole number of at least 1"):
            case.pair(n, rng())
