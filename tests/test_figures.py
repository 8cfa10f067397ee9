"""Figures show what they were given."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.text import Text
from PIL import Image
from scipy.stats import wasserstein_distance

from wgan_lip import figures
from wgan_lip.figures import curves
from wgan_lip.figures.arrays import MAX_POINTS
from wgan_lip.figures.intervals import WIDTH_FLOOR
from wgan_lip.figures.line import MAX_STEPS
from wgan_lip.figures.style import SLOPE
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError

pytestmark = pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")


def slope(points):
    """A critic that grows by 2 for each unit along the first axis."""
    return 2 * points[:, 0]


@pytest.fixture
def clouds():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(100, 2, generator=generator) + shift for shift in (0.0, 2.0))


def texts(figure):
    return {text.get_text() for text in figure.findobj(Text)}


def arrows(figure):
    (quiver,) = (collection for collection in figure.axes[0].collections if hasattr(collection, "U"))
    return quiver


# Landscape


def test_landscape_is_higher_where_the_critic_is(clouds):
    figure = figures.landscape(slope, *clouds)
    box = figure.axes[0].get_window_extent()
    picture = figures.to_array(figure).astype(float)
    rows = slice(int(picture.shape[0] - box.y1) + 20, int(picture.shape[0] - box.y0) - 20)
    left, right = (np.median(picture[rows, int(x)]) for x in (box.x0 + 8, box.x1 - 8))
    assert right > left + 60


def test_landscape_scale_spans_the_critic(clouds):
    figure = figures.landscape(slope, *clouds)
    low, high = figure.axes[0].get_xlim()
    bar = figure.axes[1].get_ylim()
    assert bar[0] <= 2 * low and bar[1] >= 2 * high
    assert bar[1] - bar[0] <= 2 * (high - low) * 1.2
    assert figure.axes[1].get_ylabel() == "critic value $f(x)$"


def test_landscape_arrows_are_the_gradient(clouds):
    quiver = arrows(figures.landscape(lambda p: (p**2).sum(1, keepdim=True) / 2, *clouds))
    assert np.allclose(np.stack([quiver.U, quiver.V], 1), quiver.get_offsets(), atol=1e-5)
    assert quiver.scale > 1


def test_landscape_shows_every_point_in_a_square(clouds):
    figure = figures.landscape(slope, *clouds, title="a title", modes=[[0.0, 0.0], [2.0, 2.0]])
    axes = figure.axes[0]
    assert np.ptp(axes.get_xlim()) == pytest.approx(np.ptp(axes.get_ylim()))
    for cloud in clouds:
        assert axes.get_xlim()[0] < cloud[:, 0].min() and cloud[:, 0].max() < axes.get_xlim()[1]
        assert axes.get_ylim()[0] < cloud[:, 1].min() and cloud[:, 1].max() < axes.get_ylim()[1]
    assert {"real", "generated", "modes", "a title", "$x_1$ (data units)"} <= texts(figure)


def test_landscape_leaves_the_critic_as_it_was(clouds):
    critic = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)).double()
    with torch.no_grad():  # as a trainer would call it
        figures.landscape(critic, *clouds)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in critic.parameters())
    assert critic.training


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_landscape_of_a_dead_critic_is_drawn(clouds, value):
    figures.to_array(figures.landscape(lambda p: p[:, 0] * 0 + value, *clouds))


def test_landscape_of_one_point_is_drawn():
    figures.to_array(figures.landscape(slope, np.zeros((1, 2)), np.full((1, 2), np.nan)))


def test_landscape_refuses_other_dimensions():
    with pytest.raises(InputError, match=r"\(n, 2\)"):
        figures.landscape(slope, np.zeros((4, 3)), np.zeros((4, 3)))


# Transport lines


def diagonal(points):
    """A critic that falls at slope 1 along (-1, -1)."""
    return points.sum(1, keepdim=True) / 2**0.5


def lines_of(figure):
    (lines,) = (c for c in figure.axes[0].collections if type(c) is LineCollection)
    return lines


def test_lines_carry_the_slope_that_the_critic_attains():
    x = torch.tensor([[1.0, 1.0], [3.0, 0.0], [0.0, 0.0]])
    y = torch.tensor([[0.0, 0.0], [3.0, 2.0]])
    figure = figures.transport_lines(diagonal, x, y, [0, 1, 2], [0, 1, 0], [0.4, 0.4, 0.2], title="a title")
    lines = lines_of(figure)
    slopes = {tuple(map(tuple, segment)): slope for segment, slope in zip(lines.get_segments(), lines.get_array())}
    assert slopes == {  # the third mass stays where it is: no line
        ((1.0, 1.0), (0.0, 0.0)): pytest.approx(1.0),
        ((3.0, 0.0), (3.0, 2.0)): pytest.approx(-(0.5**0.5)),
    }
    lines.update_scalarmappable()
    good, bad = lines.get_colors()[np.argsort(-lines.get_array())]
    assert np.allclose(good, SLOPE(1.0)) and np.allclose(bad, SLOPE(0.0))
    assert lines.norm.vmin == pytest.approx(-(0.5**0.5)) and lines.norm.vmax == pytest.approx(1.0)
    assert {"x", "y", "a title", "carried from x to y by the plan", "critic value $f(x)$"} <= texts(figure)
    assert "KR potential: 1" in figure.axes[2].get_ylabel()


@pytest.mark.parametrize("swap", [False, True])
def test_an_exact_potential_falls_at_slope_one_along_every_line(clouds, swap):
    x, y = (clouds[1], clouds[0][:60]) if swap else (clouds[0][:60], clouds[1])
    solution = solve(x, y)
    plan = solution.plan
    figure = figures.transport_lines(solution.potential, x, y, plan.rows, plan.columns, plan.mass, lines=1000)
    lines = lines_of(figure)
    assert len(lines.get_segments()) == len(plan.mass)
    assert np.allclose(lines.get_array(), 1.0, atol=1e-9)


def test_lines_are_drawn_by_mass_alike_in_every_call_and_end_in_points_that_are_shown():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 2))
    y = x + 3.0
    mass = np.where(np.arange(5000) < 2500, 0.0, 1.0)
    first, second = (
        figures.transport_lines(slope, x, y, np.arange(5000), np.arange(5000), mass, lines=50) for _ in range(2)
    )
    segments = np.array(lines_of(first).get_segments())
    assert segments.shape == (50, 2, 2) and np.array_equal(segments, lines_of(second).get_segments())
    for side, cloud in enumerate((x, y)):
        (shown,) = (c for c in first.axes[0].collections if c.get_label() == "xy"[side])
        shown = set(map(tuple, np.asarray(shown.get_offsets())))
        assert len(shown) == MAX_POINTS
        ends = set(map(tuple, segments[:, side]))
        assert len(ends) == 50 and ends <= shown and ends <= set(map(tuple, cloud[2500:]))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_lines_of_a_dead_critic_and_of_equal_samples_are_drawn(clouds, value):
    x, y = clouds
    dead = figures.transport_lines(lambda p: p[:, 0] * 0 + value, x, y, [0], [0], [1.0])
    assert lines_of(dead).get_array().tolist() == [0.0]
    figures.to_array(dead)
    figures.to_array(figures.transport_lines(slope, x, x, np.arange(100), np.arange(100), np.ones(100)))


def test_lines_leave_the_critic_as_it_was(clouds):
    critic = torch.nn.Linear(2, 1).double()
    figures.transport_lines(critic, *clouds, [0, 1], [1, 0], [0.5, 0.5])
    assert all(parameter.grad is None and parameter.requires_grad for parameter in critic.parameters())


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (([0, 1], [0], [1.0, 1.0]), "one shape"),
        (([0], [100], [1.0]), "do not fit y, which has 100 points"),
        (([-1], [0], [1.0]), "do not fit x, which has 100 points"),
        (([0.5], [0], [1.0]), "do not fit x, which has 100 points"),
        (([0], [0], [0.0]), "positive total"),
        (([], [], []), "positive total"),
    ],
)
def test_a_plan_of_other_samples_is_refused(clouds, plan, message):
    with pytest.raises(InputError, match=message):
        figures.transport_lines(slope, *clouds, *plan)


def test_lines_refuse_other_dimensions():
    with pytest.raises(InputError, match=r"\(n, 2\)"):
        figures.transport_lines(slope, np.zeros((4, 3)), np.zeros((4, 3)), [0], [0], [1.0])


# The line


def areas(axes):
    """The area between the two distribution functions as drawn."""
    f, g = (line.get_xydata() for line in axes.lines)
    assert np.array_equal(f[:, 0], g[:, 0])
    return float(np.sum(np.abs(f - g)[:-1, 1] * np.diff(f[:, 0])))


@pytest.mark.parametrize(("n", "m", "weighted"), [(1, 1, False), (7, 5, False), (300, 211, True), (1500, 2000, True)])
def test_area_between_the_distribution_functions_is_w1(n, m, weighted):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 1)), rng.normal(1.0, 2.0, size=(m, 1)).round(1)
    a, b = (rng.random(n), rng.random(m)) if weighted else (None, None)
    truth = wasserstein_distance(x[:, 0], y[:, 0], a, b)
    axes = figures.cdf_pair(x, y, a, b).axes[0]
    assert areas(axes) == pytest.approx(truth, rel=1e-9)
    assert (axes.lines[0].get_drawstyle(), axes.lines[0].get_label()) == ("steps-post", "$F$, of x")
    (band,) = axes.collections
    assert band.get_label() == "area: $W_1$"
    assert band.get_paths()[0].vertices[:, 0].min() <= min(x.min(), y.min())


@pytest.mark.parametrize("weighted", [False, True])
def test_many_samples_are_thinned_without_visible_error(weighted):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200_000, 1)), rng.normal(0.3, 1.5, size=(200_000, 1))
    x[:60_000] = 0.25  # an atom
    a = rng.random(200_000) if weighted else None
    axes = figures.cdf_pair(torch.from_numpy(x), y, a).axes[0]
    order = np.argsort(x[:, 0])
    share = np.cumsum((np.ones(200_000) if a is None else a)[order])
    exact = np.append(0.0, share / share[-1])
    at, drawn = axes.lines[0].get_data()
    assert len(at) <= 2 * (MAX_STEPS + 1) + 2
    probes = np.concatenate([np.linspace(-6, 6, 20_001), at])
    truth = exact[np.searchsorted(x[order, 0], probes, side="right")]
    shown = np.append(0.0, drawn)[np.searchsorted(at, probes, side="right")]
    assert np.abs(shown - truth).max() <= 1.01 / MAX_STEPS  # a five-hundredth of a panel 250 pixels high
    assert areas(axes) == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0], a), abs=2e-3)


def test_outliers_do_not_hide_the_others():
    x = np.append(np.linspace(-1, 1, 999), 1e9)[:, None]
    figure = figures.cdf_pair(x, x + 0.1)
    left, right = figure.axes[0].get_xlim()
    assert -3 < left < -1 and 1.1 < right < 3
    assert figure.axes[0].lines[0].get_xdata()[-1] >= 1e9  # the data are all there
    figures.to_array(figure)


def test_potential_of_the_line_falls_where_f_is_above_g():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 1)), rng.normal(1.0, 2.0, size=(150, 1))
    figure = figures.cdf_pair(x, y, potential=solve(x, y).potential, title="a title")
    above, below = figure.axes
    at, f = above.lines[0].get_data()
    g = above.lines[1].get_ydata()
    grid, values = below.lines[0].get_data()
    middles, step = (grid[1:] + grid[:-1]) / 2, grid[1] - grid[0]
    gap = (f - g)[np.searchsorted(at, middles, side="right") - 1]
    clean = np.searchsorted(at, grid[1:]) == np.searchsorted(at, grid[:-1])  # no sample within this cell
    inside = clean & (middles > at[1]) & (middles < at[-2]) & (np.abs(gap) > 1e-9)
    assert inside.sum() > 500
    assert np.allclose(np.diff(values)[inside] / step, -np.sign(gap[inside]), atol=1e-9)
    assert {"a title", "potential $f(t)$ (data units)", "$t$ (data units)"} <= texts(figure)
    figures.to_array(figure)


@pytest.mark.parametrize(
    ("x", "weights", "message"),
    [
        (np.zeros(3), None, r"\(n, 1\)"),
        (np.zeros((3, 2)), None, r"\(n, 1\)"),
        (np.zeros((0, 1)), None, r"\(n, 1\)"),
        (np.full((3, 1), np.nan), None, "finite"),
        (np.zeros((3, 1)), [1.0], "weights of x"),
    ],
)
def test_the_line_refuses_other_samples(x, weights, message):
    with pytest.raises(InputError, match=message):
        figures.cdf_pair(x, np.zeros((3, 1)), weights)


# Images


def test_grid_places_every_pixel():
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (5, 3, 4, 2))
    grid = figures.sample_grid((levels / 255).reshape(5, -1), (3, 4, 2), columns=3, scale=7, gap=2)
    assert grid.shape == (2 * 28 + 2, 3 * 14 + 4, 3) and grid.dtype == np.uint8
    seen = np.zeros(grid.shape[:2], dtype=bool)
    for index, image in enumerate(levels):
        top, left = (index // 3) * 30, (index % 3) * 16
        tile = grid[top : top + 28, left : left + 14]
        assert np.array_equal(tile, np.kron(image.transpose(1, 2, 0), np.ones((7, 7, 1))))
        seen[top : top + 28, left : left + 14] = True
    assert (grid[~seen] == 128).all()


def test_grid_of_grey_images_keeps_range_and_shows_nan():
    samples = torch.tensor([[-1.0, 0.0, 1.0, 9.0], [-9.0, float("nan"), 0.5, -0.5]])
    grid = figures.sample_grid(samples, (1, 2, 2), columns=1, scale=1, gap=0, value_range=(-1, 1))
    assert grid[:2, :, 0].tolist() == [[0, 128], [255, 255]]
    assert grid[2, 1].tolist() == [255, 0, 255] and grid[3, :, 2].tolist() == [191, 64]


@pytest.mark.parametrize(("n", "rows", "columns"), [(1, 1, 1), (9, 3, 3), (10, 3, 4), (64, 8, 8)])
def test_grid_is_nearly_square_and_digits_are_large(n, rows, columns):
    assert figures.sample_grid(np.zeros((n, 64)), (1, 8, 8)).shape == (42 * rows - 2, 42 * columns - 2, 3)


def test_grid_refuses_wrong_shapes():
    for samples, shape in [((4, 63), (1, 8, 8)), ((4, 128), (2, 8, 8)), ((0, 64), (1, 8, 8))]:
        with pytest.raises(InputError, match="image_shape"):
            figures.sample_grid(np.zeros(samples), shape)


@pytest.mark.parametrize("title", [None, "a title"])
def test_panels_hold_the_grids_pixel_for_pixel(title):
    rng = np.random.default_rng(0)
    real, generated = rng.random((70, 64)), rng.random((16, 64))
    figure = figures.real_beside_generated(real, generated, (1, 8, 8), title=title)
    picture = figures.to_array(figure)
    assert {"real", "generated"} <= texts(figure)
    for samples, left in ((real[:64], 12), (generated, 12 + 334 + 24)):
        grid = figures.sample_grid(samples, (1, 8, 8), columns=8)
        top = 60 if title else 34
        assert np.array_equal(picture[top : top + grid.shape[0], left : left + grid.shape[1]], grid)


# Intervals and clouds


def audit(step, lower, exact, upper):
    return {"step": step, "w1/lower": lower, "w1/exact": exact, "w1/upper": upper}


def test_history_draws_the_audits_only():
    records = [audit(0, -0.1, 1.0, 1.2), {"step": 5, "generator/loss": 1.0}, audit(10, 0.5, 0.6, 0.7)]
    figure = figures.interval_history(records, floor=0.05)
    axes = figure.axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["exact $W_1$"] == [[0, 1.0], [10, 0.6]]
    assert lines["floor of real samples"][0][1] == 0.05
    assert axes.get_ylim()[0] == -0.1
    (band,) = axes.collections
    assert {(0.0, -0.1), (0.0, 1.2), (10.0, 0.5), (10.0, 0.7)} <= set(map(tuple, band.get_paths()[0].vertices))


@pytest.mark.parametrize(
    "records",
    [
        [],
        [{"step": 1, "generator/loss": 1.0}],
        [{"step": 1, "w1/lower": 0.5}],
        [audit(1, 0.5, float("nan"), float("inf")), audit(2, 0.5, 0.6, 0.7)],
    ],
)
def test_history_of_odd_runs_is_drawn(records):
    figures.to_array(figures.interval_history(records))


def bounds_of(figure):
    """The steps of lower and upper bound, each with its times, and the relative widths."""
    above, below = figure.axes
    lower, upper = above.lines[:2]
    assert {line.get_drawstyle() for line in (lower, upper, below.lines[0])} == {"steps-post"}
    return lower.get_xydata(), upper.get_xydata(), below.lines[0].get_xydata()


def test_interval_over_time_holds_every_bound_until_the_next_one():
    figure = figures.interval_over_time([1.0, 2.0, 4.0], [0.0, 0.5, 0.75], [2.0, 1.5, 1.0], title="a title")
    lower, upper, width = bounds_of(figure)
    assert lower[:3].tolist() == [[1, 0], [2, 0.5], [4, 0.75]] and upper[:3].tolist() == [[1, 2], [2, 1.5], [4, 1]]
    assert np.allclose(width[:3, 1], [1, 2 / 3, 0.25])
    assert width[3].tolist() == [lower[3, 0], 0.25] and lower[3, 0] > 4  # the last one holds from then on
    above, below = figure.axes
    assert (above.get_xscale(), below.get_yscale()) == ("linear", "log")
    assert above.get_ylim()[0] < 0 and above.get_ylim()[1] > 2
    (band,) = above.collections
    assert {(2.0, 0.5), (2.0, 1.5), (4.0, 0.75), (4.0, 1.0)} <= set(map(tuple, band.get_paths()[0].vertices))
    assert {"a title", "certified interval", "(upper − lower) / upper: 25 % at the end"} <= texts(figure)


def test_interval_over_time_draws_what_is_no_bound_apart():
    figure = figures.interval_over_time(
        [1.0, 2.0], [0.5, 0.6], [0.9, 0.8], exact=0.7, estimates=[np.nan, 0.65], truth=0.4
    )
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert lines["exact $W_1$ of the samples"] == [0.7, 0.7]
    assert lines["known $W_1$ of the two laws"] == [0.4, 0.4]
    assert lines["critic on held-out samples"][1] == 0.65
    low, high = figure.axes[0].get_ylim()
    assert low < 0.4 and high > 0.9  # the truth is shown though it lies outside


def test_interval_over_time_without_an_upper_bound_is_open():
    figure = figures.interval_over_time([0.0, 1.0, 2.0], [0.0, 0.2, 0.3], [np.inf, np.inf, 0.6])
    _, upper, width = bounds_of(figure)
    assert width[:3, 1].tolist() == [1, 1, 0.5] and np.isnan(upper[:2, 1]).all()
    high = figure.axes[0].get_ylim()[1]
    assert high < 1
    (band,) = figure.axes[0].collections
    vertices = band.get_paths()[0].vertices
    assert vertices[vertices[:, 0] < 1.5, 1].max() > high  # it leaves the picture
    figures.to_array(figure)


def test_early_upper_bounds_far_away_do_not_flatten_the_last_interval():
    figure = figures.interval_over_time([0.1, 0.2, 9.0], [0.0, 0.3, 0.5], [1e6, 1.0, 0.6])
    assert 1 < figure.axes[0].get_ylim()[1] < 2
    assert figure.axes[0].get_xscale() == "log"


def test_what_was_proved_stays_proved():
    lower, upper, _ = bounds_of(figures.interval_over_time([1, 2, 3], [0.2, 0.1, 0.3], [0.9, 1.0, 0.8]))
    assert lower[:3, 1].tolist() == [0.2, 0.2, 0.3] and upper[:3, 1].tolist() == [0.9, 0.9, 0.8]


def test_a_closed_interval_is_shown_at_the_rounding_of_float64():
    figure = figures.interval_over_time([0.0, 0.01, 1.0], [0.0, 0.2, 0.5], [1.0, 0.9, 0.5], exact=0.5)
    *_, width = bounds_of(figure)
    assert width[-1, 1] == WIDTH_FLOOR
    assert figure.axes[1].get_ylim()[0] < WIDTH_FLOOR
    assert "rounding of float64" in texts(figure)
    assert width[0, 0] == 0.01 == figure.axes[0].get_xlim()[0]  # time 0 stands at the left end
    figures.to_array(figure)


@pytest.mark.parametrize(
    ("seconds", "lower", "upper"),
    [
        ([], [], []),
        ([2.0], [0.5], [np.inf]),
        ([0.0, 0.0], [0.0, 0.0], [0.0, 0.0]),
        ([1, 1e6], [1e-300] * 2, [1e300, 1]),
    ],
)
def test_odd_intervals_are_drawn(seconds, lower, upper):
    figures.to_array(figures.interval_over_time(seconds, lower, upper))


@pytest.mark.parametrize(
    ("seconds", "lower", "upper", "message"),
    [
        ([1.0, 2.0], [0.0], [1.0, 1.0], "one shape"),
        ([2.0, 1.0], [0.0, 0.0], [1.0, 1.0], "in order"),
        ([1.0, np.inf], [0.0, 0.0], [1.0, 1.0], "seconds must be finite and in order"),
        ([1.0], [np.nan], [1.0], "bounds must not be NaN"),
    ],
)
def test_intervals_that_are_none_are_refused(seconds, lower, upper, message):
    with pytest.raises(InputError, match=message):
        figures.interval_over_time(seconds, lower, upper)


def test_cloud_shows_the_widest_plane():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(300, 5)) * [0.1, 3.0, 0.1, 1.0, 0.1]
    figure = figures.generated_cloud(real, real[:50] + 1, title="a title")
    shown = np.asarray(figure.axes[0].collections[0].get_offsets())
    centred = real - real.mean(0)
    assert np.corrcoef(shown[:, 0], centred[:, 1])[0, 1] > 0.99
    assert np.corrcoef(shown[:, 1], centred[:, 3])[0, 1] > 0.99
    assert np.allclose(shown.var(0), np.sort(np.linalg.eigvalsh(np.cov(real.T, bias=True)))[:-3:-1])
    assert {"real", "generated", "a title"} <= texts(figure)


@pytest.mark.parametrize(("n", "dim"), [(40, 1), (40, 2), (1, 4), (2, 50)])
def test_cloud_of_any_dimension_is_drawn(n, dim):
    real = np.random.default_rng(0).normal(size=(n, dim))
    figures.to_array(figures.generated_cloud(real, real + 1))


# Files


def test_saved_png_has_the_expected_size(tmp_path, clouds):
    path = figures.save(figures.landscape(slope, *clouds), tmp_path / "landscape.png", dpi=50)
    with Image.open(path) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (320, 290))
    assert os.listdir(tmp_path) == ["landscape.png"]


def test_failed_save_keeps_the_old_picture(tmp_path, clouds, monkeypatch):
    path = tmp_path / "landscape.png"
    path.write_bytes(b"old")

    def full_disk(canvas, target, **options):
        target.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FigureCanvasAgg, "print_figure", full_disk)
    with pytest.raises(OSError, match="No space"):
        figures.save(figures.landscape(slope, *clouds), path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["landscape.png"]


def test_error_curves_hold_every_point_on_logarithmic_axes_with_one_colour_a_word():
    panels = {
        "width": {"compiled": [(4, 0.5), (16, 0.1)], "trained, depth 3": [(2, 1.0)], "bound 2r": [(4, 1.0), (8, 0.7)]},
        "depth": {"trained": [(1, 2.0), (8, 0.25)]},
    }
    figure = figures.error_curves(panels, quantity="largest error", title="t")
    wide, deep = figure.axes
    assert [np.transpose(line.get_data()).tolist() for line in wide.lines] == [
        [list(point) for point in curve] for curve in panels["width"].values()
    ]
    assert wide.get_xscale() == wide.get_yscale() == deep.get_xscale() == "log"
    assert wide.lines[1].get_color() == deep.lines[0].get_color() != wide.lines[0].get_color()
    assert wide.lines[2].get_linestyle() == "--" != wide.lines[0].get_linestyle()
    assert {"width", "depth", "largest error", "t"} <= texts(figure)


def test_text_is_large_enough(clouds):
    real, generated = clouds
    drawn = [
        figures.landscape(slope, real, generated, title="t"),
        figures.interval_history([audit(1, 0.0, 1.0, 2.0)], floor=0.1, title="t"),
        figures.error_curves({"width": {"trained": [(1, 1.0), (2, 0.5)]}}, quantity="error", title="t"),
        figures.generated_cloud(real, generated, title="t"),
        figures.transport_lines(slope, real, generated, [0], [0], [1.0], title="t"),
        figures.cdf_pair(real[:, :1], generated[:, :1], potential=slope, title="t"),
        figures.interval_over_time([1.0, 99.0], [0.0, 1.0], [2.0, 1.0], title="t"),
        figures.real_beside_generated(np.zeros((4, 64)), np.zeros((4, 64)), (1, 8, 8), title="t"),
    ]
    for figure in drawn:
        figures.to_array(figure)
        sizes = [text.get_fontsize() for text in figure.findobj(Text)]
        assert min(sizes) >= 9


def test_global_state_is_untouched():
    program = (
        "import sys, matplotlib as m\n"
        "state = lambda: {k: m.rcParams[k] for k in m.rcParams if k != 'backend'}  # reading that one loads pyplot\n"
        "m.rcParams['font.size'] = 7; before = state()\n"
        "from wgan_lip import figures as f\n"
        "f.to_array(f.interval_history([{'step': 1, 'w1/lower': 0.0, 'w1/upper': 1.0}]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules and state() == before\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_mean_of_several_courses_is_drawn_where_all_of_them_have_scores():
    first, second = [(1.0, 10.0, 4.0), (3.0, 30.0, 2.0)], [(5.0, 20.0, 1.0), (7.0, 40.0, 3.0)]
    seconds, samples, low, mean, high = curves._mean_curve([first, second, []])
    assert samples.tolist() == [20.0, 30.0] and low.tolist() == [1.0, 2.0] and high.tolist() == [3.0, 2.0]
    assert mean.tolist() == [2.0, 2.0] and seconds.tolist() == [3.5, 4.5]
    assert all(len(part) == 0 for part in curves._mean_curve([[], [(0.0, 0.0, 1.0)]]))
    figure = figures.score_against({"critic=resnet": [first, second], "critic=cones": [first]})
    (axes,) = figure.axes
    assert len(axes.collections) == 1, "one band, of the setting with two runs"
    ticks = {at: axes.xaxis.get_major_formatter()(at) for at in (0.5, 20, 600, 7200)}
    assert ticks == {0.5: "0.5 s", 20: "20 s", 600: "10 min", 7200: "2 h"}
    (axes,) = figures.score_against({"critic=resnet": [first]}, by="samples").axes
    assert [axes.xaxis.get_major_formatter()(at) for at in (500, 2e4)] == ["500", "20 k"]
