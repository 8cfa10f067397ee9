"""The explorer tells about a critic what is true of it."""

import math

import pytest
import torch
from matplotlib.text import Text
from torch import nn

import wgan_lip
from wgan_lip import figures
from wgan_lip.cli import main
from wgan_lip.data import Digits, FiniteSource, Moons
from wgan_lip.inspection.explore import explore
from wgan_lip.lipschitz.layers import Squeeze
from wgan_lip.utils.checks import InputError

pytestmark = pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")


def tilt(dim, slope=1.0):
    """f(x) = slope · x₁, whose constant is known."""
    layer = nn.Linear(dim, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(slope * torch.eye(1, dim))
    return nn.Sequential(layer, Squeeze())


def shifted(dim, by=2.0, n=40):
    """A source, and its test set moved down the first axis: `tilt` is a potential between the two."""
    rows = torch.randn(2 * n, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    source = FiniteSource(rows[:n].float(), rows[n:].float())
    return source, source.test - by * torch.eye(1, dim)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_potential_has_slope_one_along_every_line(dim):
    source, generated = shifted(dim)
    seen = explore(tilt(dim), source, generated)
    assert torch.allclose(seen.ray_slopes, torch.ones(40, dtype=torch.float64), atol=1e-5)
    difference = (seen.real_values - seen.generated_values).mean()
    assert math.isclose(difference, seen.transport.value, rel_tol=1e-5)
    assert "mean slope over all 40 is 1.000" in seen.pictures["along_rays"].alt
    assert "the means differ by 2, W1 of these samples is 2." in seen.pictures["values"].alt


def test_slopes_are_those_of_the_critic_not_of_its_claim():
    source, generated = shifted(2)
    seen = explore(tilt(2, slope=0.5), source, generated)
    assert torch.allclose(seen.ray_slopes, torch.full((40,), 0.5, dtype=torch.float64), atol=1e-5)
    assert 0.5 <= seen.certificate.lipschitz < 0.501


@pytest.mark.parametrize(
    ("dim", "names"),
    [
        (1, ["distributions", "along_rays", "values"]),
        (2, ["landscape", "level_lines", "gradient_norm", "rays", "along_rays", "values"]),
        (3, ["cloud", "along_rays", "values"]),
    ],
)
def test_each_dimension_has_its_pictures_as_files(dim, names, tmp_path):
    source, generated = shifted(dim)
    seen = explore(tilt(dim), source, generated, count=20)
    assert list(seen.pictures) == names
    assert len(seen.real) == len(seen.generated) == len(seen.generated_values) == 20
    paths = seen.save(tmp_path / "new" / "critic")
    assert {name: path.read_bytes()[:4] for name, path in paths.items()} == dict.fromkeys(names, b"\x89PNG")
    for picture in seen.pictures.values():
        assert picture.title and picture.caption.endswith(".") and picture.alt.endswith(".")


def test_the_gradient_map_shows_the_proved_constant_rounded_up():
    source, generated = shifted(2)
    seen = explore(tilt(2, slope=1 / 3), source, generated)
    (bar,) = (axes for axes in seen.pictures["gradient_norm"].figure.axes if axes.get_ylabel().startswith("gradient"))
    (mark,) = (text.get_text() for text in bar.findobj(Text) if "certified" in text.get_text())
    shown = float(mark.split()[-1])
    assert seen.certificate.lipschitz <= shown < 0.3334
    (line,) = (line for line in bar.lines)
    assert line.get_ydata()[0] == seen.certificate.lipschitz
    image = seen.pictures["gradient_norm"].figure.axes[0].images[0].get_array()
    assert math.isclose(image.min(), 1 / 3, rel_tol=1e-5) and math.isclose(image.max(), 1 / 3, rel_tol=1e-5)


def test_a_constant_far_above_every_slope_is_said_to_be_off_the_scale():
    source, generated = shifted(2)
    figure = figures.gradient_map(tilt(2), source.test, generated, bound=30.0)
    assert any("≤ 30,\noff this scale" in text.get_text() for text in figure.findobj(Text))


def test_level_lines_lie_as_far_apart_as_their_values_under_slope_one():
    source, generated = shifted(2)
    figure = figures.level_lines(tilt(2), source.test, generated, lines=8)
    (contours,) = (drawn for drawn in figure.axes[0].collections if hasattr(drawn, "levels"))
    for level, path in zip(contours.levels, contours.get_paths(), strict=True):
        if len(path.vertices):
            assert path.vertices[:, 0] == pytest.approx(level, abs=1e-4)


def test_ray_profiles_end_at_the_fall_over_each_line():
    source, generated = shifted(3)
    figure = figures.ray_profiles(tilt(3, 0.5), source.test, generated, range(40), range(40), [1 / 40] * 40)
    (lines,) = (drawn for drawn in figure.axes[0].collections if hasattr(drawn, "get_segments"))
    assert len(lines.get_segments()) == 40
    for segment in lines.get_segments():
        assert segment[0] == pytest.approx([0.0, 0.0], abs=1e-6) and segment[-1] == pytest.approx([2.0, 1.0], abs=1e-5)


def test_images_are_ranked_and_moved_up_the_gradient():
    source = Digits()
    generated = source.reference(60, seed=0) * 0.5
    critic = tilt(64)
    with torch.no_grad():
        critic[0].weight.fill_(1 / 8)  # brighter is better, at slope 1
    seen = explore(critic, source, generated, count=60)
    assert list(seen.pictures) == ["ranking", "steps", "along_rays", "values"]
    first, second = seen.pictures["ranking"].figure.axes
    for axes, values in ((first, seen.real_values), (second, seen.generated_values)):
        shown = [float(label.get_text()) for label in axes.get_yticklabels()]
        assert shown == sorted(shown, reverse=True)
        assert shown[0] == pytest.approx(float(values.max()), rel=0.01)
    share = (seen.generated_values[:, None] > seen.real_values).double().mean()
    assert f"in {100 * share:.0f} % of the pairs" in seen.pictures["ranking"].alt
    assert "the gradient norms at the start are 1.000 to 1.000" in seen.pictures["steps"].alt
    gains = [text.get_text() for text in seen.pictures["steps"].figure.axes[0].texts if "f +" in text.get_text()]
    assert len(gains) == 6 * 4 and all(float(gain.split("+")[1]) > 0 for gain in gains)


def test_the_critic_and_the_samples_stay_as_they_were():
    source, generated = shifted(2)
    critic = wgan_lip.ResNetCritic(2, width=8, depth=2)
    before = [parameter.clone() for parameter in critic.parameters()]
    explore(critic, source, generated)
    assert not generated.requires_grad and not source.test.requires_grad
    assert all(parameter.grad is None for parameter in critic.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, critic.parameters(), strict=True))


def test_a_critic_without_a_proof_is_explored_and_said_to_have_none():
    class Wild(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.scale * x[:, 0] ** 2

    source, generated = shifted(2)
    seen = explore(Wild(), source, generated)
    assert seen.certificate is None and "it has no proved constant" in seen.pictures["gradient_norm"].alt


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_dead_critics_are_drawn(value):
    source, generated = shifted(2)
    critic = tilt(2, value)
    seen = explore(critic, source, generated)
    assert len(seen.pictures) == 6
    assert (seen.certificate is None) == math.isnan(value), "no constant is proved of weights that are not finite"
    with pytest.raises(InputError):
        explore(critic, source, generated, certificate=wgan_lip.certify(tilt(2)))


def test_other_samples_are_refused():
    with pytest.raises(InputError, match="x and y must have the same dimension"):
        explore(tilt(2), Moons(), torch.zeros(4, 3))
    with pytest.raises(InputError, match="count must be at least 2"):
        explore(tilt(2), Moons(), torch.zeros(4, 2), count=1)


def test_a_critic_in_double_precision_takes_samples_in_single():
    source, generated = shifted(2)
    assert explore(tilt(2).double(), source, generated).real_values.dtype == torch.float64


def test_inspect_writes_what_the_critic_sees_as_files(tiny_run, tmp_path, capsys):
    folder = tmp_path / "critic"
    assert main(["inspect", f"run={tiny_run}", "out=null", f"pictures={folder}"]) == 0
    assert f"What its critic sees  {folder}" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {"ranking.png", "steps.png", "along_rays.png", "values.png"}
    (tmp_path / "file").write_text("")
    assert main(["inspect", f"run={tiny_run}", "out=null", f"pictures={tmp_path}/file/x"]) == 2
    assert "Give pictures=FOLDER" in capsys.readouterr().err
    assert main(["inspect", f"run={tiny_run}", "out=null", "open_data=false", f"pictures={folder}"]) == 2
    assert "pictures needs the run's critic and data" in capsys.readouterr().err
