"""Figures show what they were given."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from wgan_lip import figures
from wgan_lip.checks import InputError

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
    assert lines["floor: real against real"][0][1] == 0.05
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

    monkeypatch.setattr(figures.FigureCanvasAgg, "print_figure", full_disk)
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
