"""W1 as a metric of torchmetrics: the numbers of the estimate, in loops, collections and on several ranks."""

from __future__ import annotations

import copy
import math
import pickle
import sys

import numpy as np
import ot
import pytest
import torch
from test_ranks import on_two_ranks

import wgan_lip
from wgan_lip.metrics.excess import halved
from wgan_lip.utils.checks import InputError


def w1(x: torch.Tensor, y: torch.Tensor) -> float:
    x, y = x.flatten(1).double().numpy(), y.flatten(1).double().numpy()
    return ot.emd2([], [], np.linalg.norm(x[:, None] - y[None], axis=2))


def test_without_torchmetrics_the_remedy_is_named():
    from wgan_lip.metrics import torchmetric

    if torchmetric.Base is not torch.nn.Module:
        pytest.skip("torchmetrics is installed")
    with pytest.raises(InputError, match=r"pip install 'wgan-lip\[torchmetrics\]'"):
        wgan_lip.W1Metric()


@pytest.fixture
def torchmetrics():
    from wgan_lip.data import import_torchvision

    import_torchvision()
    return pytest.importorskip("torchmetrics", reason="needs the extra torchmetrics")


@pytest.fixture
def batches():
    rng = torch.Generator().manual_seed(0)
    return torch.randn(4, 10, 3, 2, 2, generator=rng), 1 + torch.randn(3, 12, 3, 2, 2, generator=rng)


def test_it_is_w1_of_all_batches(torchmetrics, batches):
    metric = wgan_lip.W1Metric()
    for real, fake in zip(*batches):
        metric.update(real, real=True)
        metric.update(fake, real=False)
    found = metric.compute()
    x, y = batches[1].flatten(0, 1), batches[0][:3].flatten(0, 1)
    expected = w1(x, y)
    assert found["exact"].dtype == torch.float64 and found["exact"].shape == ()
    assert float(found["exact"]) == pytest.approx(expected, rel=1e-12)
    assert found["lower"] <= expected * (1 + 1e-14) and expected * (1 - 1e-14) <= found["upper"]
    assert found["upper"] - found["lower"] < 1e-12
    assert float(found["excess"]) == halved(x.flatten(1).double(), y.flatten(1).double()).excess
    metric.reset()
    metric.update(torch.zeros(2, 1), real=True), metric.update(torch.ones(1, 1), real=False)
    found = metric.compute()
    assert float(found["exact"]) == 1 and math.isnan(found["excess"])


def test_pixels_and_features(torchmetrics):
    zeros, ones = torch.zeros(5, 1, 4, 4, dtype=torch.uint8), torch.full((5, 1, 4, 4), 255, dtype=torch.uint8)
    metric = wgan_lip.W1Metric(excess=False)
    metric.update(zeros, real=True), metric.update(ones, real=False)
    assert float(metric.compute()["exact"]) == pytest.approx(4)
    layer = torch.nn.Linear(16, 2, bias=False)
    metric = wgan_lip.W1Metric(lambda images: layer(images.flatten(1).float() / 255))
    metric.update(zeros, real=True), metric.update(ones, real=False)
    assert float(metric.compute()["exact"]) == pytest.approx(layer.weight.sum(1).norm().item(), rel=1e-6)
    assert not metric.fake[0].requires_grad


def test_real_samples_can_be_kept(torchmetrics):
    metric = wgan_lip.W1Metric(reset_real_features=False)
    metric.update(torch.zeros(4, 2), real=True)
    for moved in (1.0, 2.0):
        metric.update(torch.full((4, 2), moved), real=False)
        assert float(metric.compute()["exact"]) == pytest.approx(moved * math.sqrt(2))
        metric.reset()
    metric = wgan_lip.W1Metric()
    metric.update(torch.zeros(4, 2), real=True), metric.reset(), metric.update(torch.zeros(4, 3), real=False)
    with pytest.raises(InputError, match="no real samples"):
        metric.compute()


def test_it_stands_in_a_collection_and_is_called(torchmetrics, batches):
    collection = torchmetrics.MetricCollection({"w1": wgan_lip.W1Metric()}, prefix="val_")
    collection.update(batches[0][0], real=True)
    given = collection(batches[1][0], real=False)
    assert set(given) == {"val_lower", "val_exact", "val_upper", "val_excess"}
    assert all(math.isnan(value) for value in given.values())
    assert float(collection.compute()["val_exact"]) == pytest.approx(w1(batches[1][0], batches[0][0]), rel=1e-12)
    pair = torchmetrics.MetricCollection(
        {"pixels": wgan_lip.W1Metric(), "means": wgan_lip.W1Metric(lambda images: images.flatten(1).mean(1))}
    )
    for _ in range(2):  # the second time with groups of equal states, if there were any
        pair.update(batches[0][0], real=True), pair.update(batches[1][0], real=False)
    found = pair.compute()
    assert len(found) == 8 and len(set(map(float, found.values()))) > 4


def test_copies_and_pickles_hold_the_samples(torchmetrics, batches):
    metric = wgan_lip.W1Metric()
    metric.update(batches[0][0], real=True), metric.update(batches[1][0], real=False)
    value = metric.compute()
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        other._computed = None
        assert other.compute() == value


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.full((2, 3), math.nan), "the batch must be finite"),
        (torch.zeros(0, 3), "at least one sample"),
        (torch.zeros(2, 4), "Samples of the batch have 4 numbers each, those before 3"),
        ("images", "real numbers"),
    ],
)
def test_bad_batches_are_refused(torchmetrics, batch, message):
    metric = wgan_lip.W1Metric()
    metric.update(torch.zeros(2, 3), real=True)
    with pytest.raises(InputError, match=message):
        metric.update(batch, real=False)


def test_one_side_alone_is_no_distance(torchmetrics):
    metric = wgan_lip.W1Metric()
    metric.update(torch.zeros(2, 3), real=True)
    with pytest.raises(InputError, match=r"no generated samples: call update\(batch, real=False\)"):
        metric.compute()
    with pytest.raises(InputError, match="must be positive, not 0"):
        wgan_lip.W1Metric(seconds=0)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("fakes", [(5, 8), (0, 13)])
def test_ranks_compute_on_the_samples_of_all(torchmetrics, tmp_path, fakes):
    """Also where one of them has seen nothing of a side."""
    real, fake = torch.randn(20, 2), 2 + torch.randn(13, 2)
    expected = w1(fake, real)

    def work(ranks):
        metric = wgan_lip.W1Metric()
        metric.update(real[12 * ranks.rank : 12 + 8 * ranks.rank], real=True)
        mine = fake[: fakes[0]] if ranks.rank == 0 else fake[fakes[0] :]
        if len(mine):
            metric.update(mine, real=False)
        first = metric.compute()
        metric.update(torch.zeros(2, 2), real=False)  # goes on after the ranks have met
        return [float(first["exact"]), float(metric.compute()["exact"])]

    found = on_two_ranks(work, tmp_path)
    later = w1(torch.cat([fake, torch.zeros(4, 2)]), real)
    assert found[0] == found[1] == pytest.approx([expected, later], rel=1e-12)
