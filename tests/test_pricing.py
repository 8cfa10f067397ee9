"""The lowest cones against differences and 50 digits: near ties, outliers, all scales, products that err as they may."""

import itertools
import math
from contextlib import contextmanager

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wgan_lip.transport import Potential, Problem, narrow, pricing, rounding
from wgan_lip.transport.cells import Halving, Tree, split
from wgan_lip.transport.pricing import lowest_cones
from wgan_lip.transport.starts import Shadow, first_bounds

mpmath.mp.dps = 50
U = 2.0**-24


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@contextmanager
def constants(**values):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(pricing, name, value)
        yield patch


def by_differences(z, points, offsets):
    return torch.cdist(z, points, compute_mode="donot_use_mm_for_euclid_dist") - offsets


def exact_height(z, p, v):
    squares = ((mpmath.mpf(float(s)) - mpmath.mpf(float(t))) ** 2 for s, t in zip(z, p, strict=True))
    return mpmath.sqrt(mpmath.fsum(squares)) - mpmath.mpf(float(v))


def assert_lowest(found, z, points, offsets):
    """The first cone of each row is the lowest up to the rounding of two float64 heights, and its height is right."""
    heights = by_differences(z, points, offsets)
    least = heights.amin(1)
    rounding = (z.shape[1] + 16) * 2.0**-53 * (least.abs() + 2 * offsets.abs().max())
    assert (found.heights[:, 0] <= least + rounding).all()
    torch.testing.assert_close(found.heights, heights.gather(1, found.cones), rtol=1e-13, atol=float(rounding.max()))
    assert (found.heights.diff(dim=1) >= 0).all()
    assert all(len(set(row.tolist())) == len(row) for row in found.cones)


# --- products ---------------------------------------------------------------------------------------------------------


def sphere(count, d, width, seed):
    """Points at a distance from the origin that differs by no more than a relative `width`."""
    points = normal(count, d, seed=seed)
    radius = 1 + width * torch.rand(count, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return points / points.norm(dim=1, keepdim=True) * radius


CASES = {
    "plain": (normal(50, 5), normal(400, 5, seed=1)),
    "wide": (normal(20, 900), normal(300, 900, seed=1)),
    "one point": (normal(30, 4), torch.ones(300, 4, dtype=torch.float64)),
    "ties to 1e-7": (1e-9 * normal(20, 6), sphere(600, 6, 1e-7, 1)),
    "ties to 1e-12": (1e-13 * normal(20, 6), sphere(600, 6, 1e-12, 1)),
    "ties to the last bit": (torch.zeros(5, 6, dtype=torch.float64), sphere(600, 6, 0.0, 1)),
    "coincident": (normal(400, 5), normal(400, 5)),
    "almost coincident": (normal(400, 5), normal(400, 5) + 1e-6 * normal(400, 5, seed=2)),
    "far outlier": (normal(50, 5), torch.cat([normal(400, 5, seed=1), torch.full((1, 5), 1e9, dtype=torch.float64)])),
    "farther than float32": (
        normal(50, 5),
        torch.cat([normal(400, 5, seed=1), torch.full((1, 5), 1e60, dtype=torch.float64)]),
    ),
    "two clusters": (normal(60, 5) + 1e7 * torch.tensor([[0.0], [1.0]]).repeat(30, 1), normal(400, 5, seed=1)),
    "far from the origin": (normal(50, 5) + 1e8, normal(400, 5, seed=1) + 1e8),
    "tiny": (1e-30 * normal(50, 5), 1e-30 * normal(400, 5, seed=1)),
    "subnormal in float32": (1e-42 * normal(50, 5), 1e-42 * normal(400, 5, seed=1)),
    "tiny beside one": (1e-25 * normal(50, 5), torch.cat([1e-25 * normal(400, 5, seed=1), torch.ones(1, 5).double()])),
    "huge": (1e14 * normal(50, 5), 1e14 * normal(400, 5, seed=1)),
    "lattice": tuple(torch.cartesian_prod(*3 * [torch.arange(7.0)]).double() for _ in range(2)),
}
OFFSETS = {
    "none": lambda z, points: torch.zeros(len(points), dtype=torch.float64),
    "of a potential": lambda z, points: torch.cdist(points, z[:10]).amin(1),
    "random": lambda z, points: points.std() * normal(len(points), seed=5),
    "large": lambda z, points: 1e9 * points.std() + points.std() * normal(len(points), seed=5),
    "one that hides all": lambda z, points: (
        points.std() * 1e200 * torch.nn.functional.one_hot(torch.tensor(7), len(points))
    ),
}


@pytest.mark.parametrize("offsets", OFFSETS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("width", [1, 8])
def test_products_find_the_cones_that_differences_find(case, offsets, width):
    z, points = CASES[case]
    v = OFFSETS[offsets](z, points)
    with constants(FEWEST=0, FEW_DIMENSIONS=0):
        assert_lowest(lowest_cones(z, points, v, width, both=True), z, points, v)


@pytest.mark.parametrize("chunk", [64, 3000])
def test_blocks_and_groups_change_nothing(chunk):
    z, points = normal(150, 6), normal(1500, 6, seed=1)
    v = 0.3 * normal(1500, seed=2)
    whole = lowest_cones(z, points, v, 3, both=True)
    with constants(CHUNK=chunk, TILE=32, LEAST_ROWS=1, QUICK=4, COMPONENTS=chunk):
        blocks = lowest_cones(z, points, v, 3, both=True)
        assert_lowest(blocks, z, points, v)
    assert blocks.cones.equal(whole.cones)
    rise = by_differences(z, points, v) - whole.heights[:, :1]
    for nearest in (blocks.nearest, whole.nearest):
        torch.testing.assert_close(rise[nearest, torch.arange(1500)], rise.amin(0), rtol=0, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([1, 2, 7, 60, 800]),
    st.sampled_from([0, -8, -14, -20, -26]),
    st.sampled_from([0, 3, 20]),
    st.booleans(),
    st.sampled_from([1, 4]),
)
def test_products_may_err_by_all_that_their_bound_allows(seed, d, closeness, outlier, weigh, width):
    """Each product is replaced by the exact one, plus an error of the worst size and any sign."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    z = 10.0**closeness * draw(12, d)
    points = draw(40, d)
    points = points / points.norm(dim=1, keepdim=True) * (1 + 10.0**closeness * draw(40, 1))
    points[:3] *= 2.0**outlier
    v = (0.1 if weigh else 10.0**closeness) * draw(40)
    product = torch.mm

    def worst(left, right, out):
        exact = product(left.double(), right.double())
        reach = left[:, -1:].double().sqrt() + right[-2].double().max().sqrt()
        sign = torch.randint(0, 2, exact.shape, generator=rng) * 2.0 - 1
        return out.copy_(exact + 0.99 * (d + 4) * U * reach.square() * sign)

    with constants(FEWEST=0, FEW_DIMENSIONS=0, EXTRA=1) as patch:
        patch.setattr(torch, "mm", worst)
        found = lowest_cones(z, points, v, width)
    assert_lowest(found, z, points, v)


def test_the_bound_holds_for_sums_in_the_worst_order():
    """Terms of one sign, added one by one in float32: against rational arithmetic in 50 digits."""
    for d in (1, 3, 50, 2000):
        z, points = normal(4, d).abs() + 1, -normal(300, d, seed=1).abs() - 1
        products = pricing._Products.of(points, torch.zeros(300, dtype=torch.float64))
        left, error = products.left(z)
        terms = left[:, None].numpy() * products.right[None, :5].numpy()
        sums = np.cumsum(terms, axis=2, dtype=np.float32)[:, :, -1]
        for i in range(len(z)):
            for j in range(5):
                truth = exact_height(z[i], points[j], 0) ** 2
                assert abs(mpmath.mpf(float(sums[i, j])) - truth) <= float(error[i])
                assert float(error[i]) < 8 * (d + 10) * U * float(truth)


def test_rows_in_doubt_are_few_among_random_points_and_all_among_ties():
    for d in (4, 16, 50, 384):
        z, points = normal(300, d), normal(2000, d, seed=1)
        offsets = 0.7 * torch.cdist(points, z[:100]).amin(1)
        products = pricing._Products.of(points, offsets)
        _, doubtful = pricing._by_products(z, points, offsets, 8, True, lambda: None, products)
        assert len(doubtful) <= 15
    z, points = CASES["ties to 1e-12"]
    products = pricing._Products.of(points, torch.zeros(600, dtype=torch.float64))
    _, doubtful = pricing._by_products(z, points, torch.zeros(600).double(), 8, True, lambda: None, products)
    assert len(doubtful) == len(z)


def test_ties_are_decided_as_in_50_digits():
    z, points = CASES["ties to 1e-12"]
    found = lowest_cones(z, points, torch.zeros(600, dtype=torch.float64))
    for i in range(3):
        least = min(exact_height(z[i], p, 0) for p in points)
        assert abs(exact_height(z[i], points[found.cones[i, 0]], 0) - least) <= 1e-15


def test_offsets_that_single_precision_cannot_tell_apart_leave_doubt():
    """One cone far above all others: beside its offset those of the others are one number in float32."""
    z, points = 1e-3 * normal(50, 4), 1e-3 * normal(600, 4, seed=1)
    offsets = 1e-3 * normal(600, 1, seed=2)[:, 0]
    offsets[0] = -1e6
    with constants(EXTRA=0):
        assert_lowest(lowest_cones(z, points, offsets), z, points, offsets)


@pytest.mark.parametrize("of_backend", [False, True])
def test_products_are_whole_where_fewer_bits_are_allowed(of_backend, monkeypatch):
    """By either way to allow them; torch refuses to answer its older question about the newer one."""
    seen, mm = [], torch.mm
    products = torch.backends.cuda.matmul

    def watched(*args, **kwargs):
        seen.append(products.fp32_precision)
        return mm(*args, **kwargs)

    monkeypatch.setattr(torch, "mm", watched)
    z, points = normal(20, 6), normal(400, 6, seed=1)
    before = products.fp32_precision
    if of_backend:
        products.fp32_precision = "tf32"
    else:
        torch.set_float32_matmul_precision("high")
    try:
        assert_lowest(lowest_cones(z, points, torch.zeros(400).double()), z, points, torch.zeros(400).double())
        assert seen and set(seen) <= {"ieee", "none"}
        assert products.fp32_precision == "tf32"
    finally:
        products.fp32_precision = before
        torch.set_float32_matmul_precision("highest")


# --- cells ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 3),
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from(["normal", "lattice", "clusters", "equal", "line"]),
    st.sampled_from([0.0, 1e6]),
    st.sampled_from(["none", "potential", "random", "large"]),
    st.booleans(),
)
def test_cells_find_the_cones_that_differences_find(seed, d, k, m, kind, offset, offsets, given_cells):
    rng = np.random.default_rng(seed)
    sides = []
    for size in (k, m):
        side = rng.standard_normal((size, d))
        if kind == "lattice":
            side = np.round(2 * side)
        elif kind == "clusters":
            side += 1e4 * rng.integers(0, 3, (size, 1))
        elif kind == "equal":
            side[:] = 1
        elif kind == "line":
            side[:] = side[:, :1]
        sides.append(torch.from_numpy(side + offset))
    z, points = sides
    v = {
        "none": torch.zeros(m, dtype=torch.float64),
        "potential": torch.cdist(points, z[:20]).amin(1),
        "random": torch.from_numpy(rng.standard_normal(m)),
        "large": torch.from_numpy(1e9 * rng.standard_normal(m)),
    }[offsets]
    width = min(m, 1 + int(rng.integers(4)))
    with constants(MANY=0, CELLED=0, CHUNK=int(rng.choice([50, 10**6]))) as patch:
        patch.setattr("wgan_lip.transport.cells.LEAF", 4)
        patch.setattr("wgan_lip.transport.cells.ROOT", 64)
        patch.setattr("wgan_lip.transport.cells.BRANCHES", int(rng.integers(1, 4)))
        halving = Halving(z.numpy()) if given_cells else None
        if halving is not None:
            halving.cells(int(rng.integers(0, int(math.log2(k)) + 1)))
        found = lowest_cones(z, points, v, width, both=True, tree=lambda: Tree.of(z, halving))
    assert_lowest(found, z, points, v)
    heights = by_differences(z, points, v)
    every = heights.topk(width, largest=False).values
    torch.testing.assert_close(found.heights, every, rtol=1e-12, atol=1e-14 * float(1 + v.abs().max()))
    assert ((found.nearest >= 0) & (found.nearest < k)).all()
    lowest = found.cones[:, 0].unique()  # over those the rise is zero somewhere, and nearest says where
    rise = heights - every[:, :1]
    assert (rise[found.nearest[lowest], lowest] <= 1e-12 * (heights.abs().max() + 1 + v.abs().max())).all()


@pytest.mark.parametrize(("n", "d", "depth"), [(1, 2, 0), (7, 1, 2), (1000, 3, 7), (513, 50, 9)])
def test_cells_are_halves_of_halves(n, d, depth):
    points = normal(n, d)
    cell, halving = split(points.numpy(), depth), Halving(points.numpy())
    for halvings in range(depth + 1):
        assert np.array_equal(halving.cells(halvings), cell >> (depth - halvings))
        sizes = np.bincount(cell >> (depth - halvings), minlength=2**halvings)
        assert len(sizes) == 2**halvings and sizes.sum() == n
        assert sizes.max() - sizes.min() <= 1
    if d == 1:
        ends = [points[cell == number] for number in range(2**depth)]
        assert all(left.max() <= right.min() for left, right in itertools.pairwise(ends))


def test_balls_hold_their_cells():
    points = normal(5000, 3)
    tree = Tree.of(points)
    assert tree.order.sort().values.equal(torch.arange(5000))
    for starts, centres, radii in zip(tree.starts, tree.centres, tree.radii):
        assert starts[0] == 0 and starts[-1] == 5000
        for begin, end, centre, radius in zip(starts, starts[1:], centres, radii):
            assert (points[tree.order[begin:end]] - centre).norm(dim=1).max() <= radius * (1 + 1e-14)


# --- the first interval -----------------------------------------------------------------------------------------------


def test_on_a_line_a_shift_and_a_dilation_are_solved():
    x = normal(500, 20)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    shift = first_bounds(Problem.of(x, x + torch.linspace(0, 1, 20)))
    assert shift.lower == pytest.approx(float(torch.linspace(0, 1, 20).norm()), rel=1e-6)
    assert shift.upper == pytest.approx(shift.lower, rel=1e-6)
    x -= x.mean(0)
    dilation = first_bounds(Problem.of(x, 1.5 * x[order]))  # W1 = E ‖x‖ / 2, and f the distance from the centre
    assert dilation.lower == pytest.approx(float(x.norm(dim=1).mean()) / 2, rel=1e-9)


def test_a_spread_along_one_axis_is_found():
    x, y = normal(4000, 30), normal(4000, 30, seed=1)
    y[:, 4] *= 5
    bounds = first_bounds(Problem.of(x, y))
    truth = abs(x[:, 4].sort().values - y[:, 4].sort().values).mean()
    assert bounds.lower >= 0.97 * truth


@pytest.mark.parametrize("way", [None, torch.tensor([0.6, -0.8, 0.0], dtype=torch.float64)])
@pytest.mark.parametrize("unit", [1.0, 2.0**300, 2.0**-300])
def test_a_shadow_is_1_lipschitz_and_knows_its_rounding(way, unit):
    line = Potential(normal(20, 1), 0.1 * normal(20, seed=1))
    way = None if way is None else way * (1 - 20 * 2.0**-53)
    centre = normal(3, seed=2)
    f = Shadow(line, centre, way, unit)
    z = (normal(40, 3, seed=3) * unit).requires_grad_()
    values, error = f.with_error(z)
    for one, value in zip(z.detach() / unit, values.tolist()):
        away = [mpmath.mpf(float(s)) - mpmath.mpf(float(t)) for s, t in zip(one, centre)]
        if way is None:
            place = mpmath.sqrt(mpmath.fsum(s**2 for s in away))
        else:
            place = mpmath.fsum(s * mpmath.mpf(float(w)) for s, w in zip(away, way))
        cones = zip(line.points[:, 0].tolist(), line.offsets.tolist())
        truth = min(abs(place - mpmath.mpf(p)) - mpmath.mpf(v) for p, v in cones)
        assert abs(truth * mpmath.mpf(unit) - mpmath.mpf(value)) <= error
    assert error < 1e-13 * unit
    (gradient,) = torch.autograd.grad(values.sum(), z)
    assert (gradient.norm(dim=1) <= 1 + 1e-12).all() and (gradient.norm(dim=1) > 0.9).all()
    slopes = (values[:, None] - values).abs() / torch.cdist(z.detach() / unit, z.detach() / unit).mul(unit).clamp(
        min=1e-300
    )
    assert slopes.max() <= 1 + 1e-12
    assert f(z.detach().numpy()) == pytest.approx(values.detach().numpy(), rel=1e-12)
    assert "cones" in str(f)


# --- as on a GPU: large blocks, no cells, products in one go ------------------------------------------------------------


@contextmanager
def as_on_a_gpu():
    with constants(MANY=math.inf, TILE=2**30) as patch:
        patch.setattr(rounding, "CHUNK", rounding.GPU_CHUNK)
        yield


@pytest.mark.parametrize("d", [2, 16])
@pytest.mark.parametrize("both", [False, True])
def test_large_blocks_find_the_same_cones(d, both):
    z, points, offsets = normal(900, d), normal(5000, d, seed=1) + 0.3, 0.1 * normal(5000, seed=2)
    here = lowest_cones(z, points, offsets, 4, both=both)
    with as_on_a_gpu():
        there = lowest_cones(z, points, offsets, 4, both=both)
    assert_lowest(there, z, points, offsets)
    assert torch.allclose(here.heights[:, 0], there.heights[:, 0], rtol=1e-13, atol=1e-14)
    assert (here.cones == there.cones).double().mean() > 0.99  # beyond the first the next best will do
    if both:  # up to the error of a float32 product
        rise = by_differences(z, points, offsets)
        rise -= rise.amin(1, keepdim=True)
        assert float((rise[there.nearest, torch.arange(len(points))] - rise.amin(0)).max()) < 1e-2


@pytest.mark.parametrize("d", [2, 16])
def test_an_interval_priced_in_large_blocks_is_the_same(d):
    x, y = normal(2100, d), 0.5 + 1.5 * normal(2050, d, seed=1)
    *_, here = narrow(x, y)
    with as_on_a_gpu():
        *_, there = narrow(x, y)
    assert here.optimal and there.optimal
    for end in ("lower", "upper"):
        assert getattr(here.transport, end) == pytest.approx(getattr(there.transport, end), rel=1e-12)


def test_blocks_are_as_large_as_the_device_likes():
    assert rounding.block_entries(torch.device("cpu")) == rounding.CHUNK
    assert rounding.block_entries(torch.device("cuda", 1)) == rounding.GPU_CHUNK > 8 * rounding.CHUNK
