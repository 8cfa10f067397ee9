"""Suite inverse: operators are their own adjoints, descent recovers what it should, and every regulariser is tried."""

import json
import time
from itertools import count

import pytest
import torch

from wgan_lip.benchmarks import inverse
from wgan_lip.benchmarks.inverse import PROBLEMS, Problem, recovered
from wgan_lip.utils.checks import InputError


@pytest.mark.parametrize("name", PROBLEMS)
def test_operators_are_their_own_adjoints_and_do_not_amplify(name):
    problem, (x, y) = PROBLEMS[name], torch.rand(2, 3, 784).double()
    left, right = (problem.forward(x) * y).sum(dim=1), (x * problem.forward(y)).sum(dim=1)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=0)
    assert bool((problem.forward(x).norm(dim=1) <= x.norm(dim=1)).all())


def test_without_a_regulariser_descent_inverts_the_operator():
    x = torch.rand(4, 784).double()
    problem = Problem(blur=0.3, noise=0.0)
    y = problem.forward(x)
    back = recovered(problem, y, lambda z: 0 * z.sum(dim=1), 1.0)
    assert (back - x).abs().max() < 0.1 * (y - x).abs().max()


def test_a_critic_moves_an_image_by_half_its_weight():
    """‖x − y‖² + λ⟨e, x⟩ is least at y − λe/2."""
    direction = torch.nn.functional.normalize(torch.ones(784).double(), dim=0)
    y = torch.full((1, 784), 0.5).double()
    moved = recovered(Problem(0.0, 0.1), y, lambda z: z @ direction, 2.0) - y
    torch.testing.assert_close(moved[0], -direction, rtol=1e-3, atol=0)


def test_total_variation_is_the_length_of_edges():
    image = torch.zeros(1, 28, 28).double()
    image[:, 10:20, 5:15] = 1.0
    assert inverse.total_variation(image.flatten(1)).item() == pytest.approx(40, rel=0.3)
    assert inverse.total_variation(torch.ones(1, 784).double()).item() == pytest.approx(28 * 28 * 0.01)


def test_every_regulariser_is_trained_tuned_and_told(tmp_path, monkeypatch):
    ticks, rng = count(), torch.Generator().manual_seed(0)
    images = tuple(torch.rand(n, 784, generator=rng) for n in (40, 40, 4, 5))
    monkeypatch.setattr(inverse, "_images", lambda root: images)
    monkeypatch.setattr(inverse, "absent", lambda name, root: None)
    monkeypatch.setattr(inverse, "DESCENTS", 3)
    monkeypatch.setattr(inverse, "BATCH", 8)
    monkeypatch.setattr(time, "process_time", lambda: next(ticks) / 4)  # a step takes one
    monkeypatch.setattr(inverse, "run_cases", lambda cases, out: [{**case.labels, **case.measured()} for case in cases])
    table = inverse.measure([0], tmp_path, ["problems=deblurring", "seconds=1"])
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["method"] for row in rows] == list(inverse.METHODS)
    assert [row.get("steps") for row in rows] == [None, *5 * [3]]
    assert all(row["lipschitz"] <= 1 for row in rows if row["method"] in ("convolutional", "image", "residual"))
    assert "| penalty, dense |" in table and (tmp_path / "deblurring.png").exists()


def test_without_mnist_the_suite_says_so(tmp_path):
    with pytest.raises(InputError, match="needs MNIST, but there is no MNIST/raw"):
        inverse.measure([0], tmp_path, [f"root={tmp_path}"])
