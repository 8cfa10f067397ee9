"""Certified classification: losses against their definitions, radii against the true distance and against attacks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wgan_lip.critics import FixedWidthCritic, ResNetCritic
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.classification import certified_accuracy, hinge, hinge_kr
from wgan_lip.lipschitz.layers import Linear, constrain_steps
from wgan_lip.utils.checks import InputError, UncertifiableError
from wgan_lip.wasserstein.dual import kr_value


@given(seed=st.integers(0, 10**6), n=st.integers(1, 9), k=st.integers(2, 5), margin=st.floats(0, 3))
def test_the_hinge_is_its_definition(seed, n, k, margin):
    rng = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, k, generator=rng, dtype=torch.float64)
    labels = torch.randint(k, (n,), generator=rng)
    rows = zip(scores.tolist(), labels.tolist())
    losses = [max(0.0, margin - row[y] + max(f for j, f in enumerate(row) if j != y)) for row, y in rows]
    assert hinge(scores, labels, margin).item() == pytest.approx(sum(losses) / n, abs=1e-12)


def test_of_two_classes_the_dual_values_are_that_of_either_score():
    x, y = torch.randn(7, 2), torch.randn(5, 2) + 3
    f = nn.Linear(2, 1)
    scores = torch.cat((f(torch.cat((x, y))), -f(torch.cat((x, y)))), dim=1)
    labels = torch.cat((torch.zeros(7, dtype=torch.long), torch.ones(5, dtype=torch.long)))
    dual = kr_value(lambda z: f(z)[:, 0], x, y)
    assert hinge_kr(scores, labels, weight=0.0).item() == pytest.approx(-dual.item(), abs=1e-6)
    one = hinge_kr(scores[:7], labels[:7], weight=2.0)  # no other class: the hinge alone
    assert one.item() == pytest.approx(2 * hinge(scores[:7], labels[:7]).item())


def axes(count):
    """f_j(x) = x_j."""
    layer = Linear(Norm.euclidean(count), Norm((1,) * count))
    with torch.no_grad():
        layer.weight.copy_(torch.eye(count))
    return nn.Sequential(layer)


def test_radii_are_half_of_the_margin_whatever_the_constant():
    x = torch.tensor([[3.0, 1.0, 0.0], [1.0, 3.0, 0.0], [2.0, 2.0, 0.0], [0.0, -1.0, 0.5]])
    labels = torch.tensor([0, 0, 0, 2])
    for scale in (1.0, 0.25):
        classifier = axes(3)
        with torch.no_grad():
            classifier[0].weight *= scale
        found = certified_accuracy(classifier, x, labels, radii=[0.0, 0.2499, 0.2501, 0.999, 1.001])
        assert found.correct == 2 and found.certified == (2, 2, 1, 1, 0) and found.n == 4
        assert found.lipschitz == pytest.approx(scale, rel=1e-6)
    assert "Accuracy  " in str(found) and "50.00%" in str(found)


def test_scores_that_are_proved_together_hold_within_more():
    classifier = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        classifier[0].weight.copy_(torch.eye(2))
        classifier[0].bias.zero_()
    distance = 3 / 2**0.5  # of (3, 0) from where both scores are equal
    found = certified_accuracy(classifier, torch.tensor([[3.0, 0.0]]), torch.tensor([0]), radii=[0.999 * distance, 2.2])
    assert found.certified == (1, 0)


def trained(classifier, steps=150):
    """Three noisy blobs in the plane."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (300,), generator=rng)
    middle = torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    x = middle[labels] + 0.6 * torch.randn(300, 2, generator=rng)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=0.02)
    constrain_steps(optimizer, classifier)
    for _ in range(steps):
        optimizer.zero_grad()
        hinge_kr(classifier(x), labels, margin=1.0).backward()
        optimizer.step()
    return x, labels


@pytest.mark.parametrize("build", [ResNetCritic, FixedWidthCritic])
def test_no_attack_changes_a_certified_answer(build):
    torch.manual_seed(0)
    classifier = build(2, heads=3)
    x, labels = trained(classifier)
    found = {radius: certified_accuracy(classifier, x, labels, radii=[radius]) for radius in (0.05, 0.3, 1.0)}
    assert found[0.05].correct > 240 and found[0.05].certified[0] > 200
    for radius, told in found.items():
        broken = torch.zeros(len(x), dtype=torch.bool)
        for other in range(3):
            attacked = x.clone().requires_grad_()
            for _ in range(30):
                scores = classifier(attacked)
                gain = scores[:, other] - scores.gather(1, labels[:, None])[:, 0]
                (slope,) = torch.autograd.grad(gain.sum(), attacked)
                moved = attacked.detach() + 0.2 * radius * nn.functional.normalize(slope, dim=1)
                away = moved - x
                away *= (radius / away.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)
                attacked = (x + away).requires_grad_()
                broken |= classifier(attacked).argmax(dim=1) != labels
        assert told.certified[0] <= int((~broken).sum())


def test_what_proves_nothing_is_refused():
    x, labels = torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)
    classifier = ResNetCritic(2, heads=3)
    for wrong, told in (
        (labels[:3], "one for each sample"),
        (labels + 3, "from 0 to 2"),
        (labels.double(), "integers"),
    ):
        with pytest.raises(InputError, match=told):
            certified_accuracy(classifier, x, wrong)
    with pytest.raises(InputError, match="must be at least 0"):
        certified_accuracy(classifier, x, labels, radii=[-1.0])
    with pytest.raises(InputError, match="two scores"):
        certified_accuracy(ResNetCritic(2), x, labels)
    with pytest.raises(InputError, match="not from max"):
        certified_accuracy(nn.Sequential(Linear(Norm((1, 1)), Norm((1, 1, 1)))), x, labels)
    with pytest.raises(UncertifiableError):
        certified_accuracy(nn.Sequential(nn.Linear(2, 3), nn.Bilinear(3, 3, 3)), x, labels)
    with pytest.raises(InputError, match="finite"):
        certified_accuracy(classifier, x * torch.nan, labels)
