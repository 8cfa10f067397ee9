"""Laws of conditional games: labels joined to samples, generators and critics that read them, the joint claim."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from conftest import TINY

import wgan_lip
from wgan_lip.cli import main
from wgan_lip.critics import ConvolutionalCritic, ResNetCritic
from wgan_lip.data import Digits, FakeImages, FiniteSource, ImageSource, Moons
from wgan_lip.generators import DCGANGenerator, MLPGenerator, ResNetGenerator, draw_latents
from wgan_lip.lipschitz.layers import LabelPlanes
from wgan_lip.metrics import compare, trained_classifier
from wgan_lip.runs.run import load_run
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError


def rng(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- samples ----------------------------------------------------------------------------------------------------------


def labelled(scale: float = 3.0, **options) -> ImageSource:
    """Images of which all pixels tell the label: 40, 80 or 120, and a mark that flips."""
    labels = torch.arange(30) % 3
    images = (40 * (labels + 1)).byte()[:, None, None, None].expand(30, 1, 4, 5).clone()
    images[:, :, :, 0] += 1
    return ImageSource(images, images[:7], labels, labels[:7], label_scale=scale, **options)


@pytest.mark.parametrize("options", [{}, {"flip": True, "shift": 1}], ids=["plain", "augmented"])
def test_every_row_carries_the_label_of_its_own_image(options):
    source = labelled(**options)
    assert source.dim == 23 and source.image_shape == (1, 4, 5)
    for rows in (
        source.sample(200, rng()),
        source.reference(30, 0),
        source.test,
        source.train,
        source.rows(torch.arange(9)),
    ):
        pixel, label = (rows[:, 2] * 255).round(), rows[:, 20:]
        expected = 3.0 * torch.eye(3)[((pixel - 40) // 40).long()]
        assert rows.shape[1] == 23 and torch.equal(label, expected)


def test_shares_are_those_of_the_training_labels_and_sizes_tell_players():
    source = Digits(label_scale=2.0)
    assert source.label_shares == tuple((source.train_labels.bincount().double() / 1297).tolist())
    expected = {"dim": 74, "low": 0.0, "high": 1.0, "image_shape": (1, 8, 8), "label_shares": source.label_shares,
                "label_scale": 2.0, "label_count": 10}  # fmt: skip
    assert source.sizes == expected
    assert Digits().sizes.keys() == {"dim", "low", "high", "image_shape"}


def test_data_without_labels_and_bad_scales_are_refused():
    with pytest.raises(InputError, match="label_scale conditions on labels, and this FiniteSource has none"):
        FiniteSource(torch.zeros(3, 2), torch.zeros(3, 2)).with_labels()
    with pytest.raises(InputError, match="label_scale must be positive and finite, not 0"):
        Digits(label_scale=0.0)
    with pytest.raises(InputError, match="labels are already joined"):
        Digits(label_scale=1.0).with_labels()


# --- the joint distance -----------------------------------------------------------------------------------------------


def test_joint_w1_is_the_mean_over_the_labels_from_the_stated_scale_on_and_less_below():
    """Two labels, 12 and 8 samples of each law; x in a box of diameter D."""
    counts, x, y = (12, 8), torch.rand(20, 3, generator=rng(1)), torch.rand(20, 3, generator=rng(2))
    y[:12] = 0.3 * y[:12]
    given = sum(n * solve(a, b).value for n, a, b in zip(counts, x.split(counts), y.split(counts))) / 20
    unit = torch.eye(2)[[0] * 12 + [1] * 8]

    def joint(scale: float) -> float:
        return solve(torch.cat([x, scale * unit], 1), torch.cat([y, scale * unit], 1)).value

    assert joint(math.sqrt(3) / math.sqrt(2)) == pytest.approx(given, rel=1e-6)
    assert solve(x, y).value < joint(0.05) < given * (1 - 1e-3)


# --- players ----------------------------------------------------------------------------------------------------------

LABELS = {"label_shares": [0.5, 0.2, 0.3], "label_scale": 2.5}
GENERATORS = {
    "mlp": lambda: MLPGenerator(64 + 3, low=0.0, high=1.0, latent_dim=5, width=32, **LABELS),
    "dcgan": lambda: DCGANGenerator((1, 8, 8), low=0.0, high=1.0, latent_dim=5, channels=8, **LABELS),
    "resnet": lambda: ResNetGenerator((1, 8, 8), low=0.0, high=1.0, latent_dim=5, channels=8, **LABELS),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_hands_out_its_label_and_an_image_that_depends_on_it(name):
    generator, images = GENERATORS[name](), []
    for label in range(3):
        samples = generator(draw_latents(generator, 6, rng(), labels=label))
        assert samples.shape == (6, 67) and torch.equal(samples[:, 64:], 2.5 * torch.eye(3)[[label] * 6])
        assert samples[:, :64].min() >= 0 and samples[:, :64].max() <= 1
        images.append(samples[:, :64])
    assert (images[0] - images[1]).abs().max() > 1e-3 and (images[1] - images[2]).abs().max() > 1e-3


def test_drawn_labels_have_their_shares_and_normal_latents_beside_them():
    latents = draw_latents(GENERATORS["mlp"](), 20_000, rng())
    assert latents.shape == (20_000, 8)
    assert (latents[:, 5:].mean(0) - torch.tensor([0.5, 0.2, 0.3])).abs().max() < 0.02
    assert latents[:, 5:].sum(1).eq(1).all() and latents[:, :5].std() == pytest.approx(1, abs=0.02)
    assert torch.equal(latents, draw_latents(GENERATORS["mlp"](), 20_000, rng()))


def test_labels_that_are_none_are_refused():
    with pytest.raises(InputError, match=r"Labels must be between 0 and 2, not \[3\]"):
        draw_latents(GENERATORS["mlp"](), 2, rng(), labels=3)
    with pytest.raises(InputError, match="generator was trained without labels"):
        draw_latents(MLPGenerator(2), 2, rng(), labels=1)


@pytest.mark.parametrize(
    "critic",
    [
        lambda: ConvolutionalCritic((1, 8, 8), label_count=3, width=16, depth=2),
        lambda: ConvolutionalCritic((2, 9, 16), label_count=2, channels=5, width=16, depth=2),
        lambda: ResNetCritic(67, width=16, depth=2),
    ],
)
def test_a_critic_is_1_lipschitz_in_pixels_and_label_together(critic):
    critic = critic()
    certificate = wgan_lip.certify(critic)
    assert certificate.lipschitz <= 1
    assert certificate.norm_in == f"Euclidean({critic.dim})"
    x, y = torch.rand(2, 400, critic.dim, generator=rng()).double() * 3
    critic = critic.double()
    gap = (critic(x) - critic(y)).abs()
    assert (gap <= (x - y).norm(dim=1)).all()
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x)
    assert gradient[:, -2:].norm(dim=1).min() > 0 and gradient.norm(dim=1).max() <= 1
    assert gradient.norm(dim=1).max() > 0.3


def test_values_for_two_labels_of_one_image_differ_by_at_most_the_scale_times_the_root_of_two():
    source = Digits(label_scale=0.5)
    critic = ConvolutionalCritic((1, 8, 8), label_count=10)
    image = source.test[:50, :64]
    values = torch.stack([critic(torch.cat([image, 0.5 * torch.eye(10)[[y] * 50]], 1)) for y in range(10)])
    spread = (values.amax(0) - values.amin(0)).max()
    assert 0 < spread <= 0.5 * math.sqrt(2) * (1 + 1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (1, 28, 28), (2, 64, 64)], ids=str)
def test_label_planes_keep_distances_and_never_stretch_them(shape):
    layer, dim = LabelPlanes(shape, 4), math.prod(shape)
    area = shape[1] * shape[2]
    assert 1 - 1e-6 < Fraction(layer.weight) ** 2 * area <= 1 and np.float32(layer.weight) == layer.weight
    x = torch.randn(5, dim + 4, dtype=torch.float64)
    assert torch.allclose(layer(x).flatten(1).norm(dim=1), x.norm(dim=1), rtol=1e-6)
    layer.weight *= 1.5
    assert 1.4999 < layer.claim().lipschitz < 1.5001


def test_label_planes_refuse_what_is_no_image():
    with pytest.raises(InputError, match="label_count at least 1"):
        LabelPlanes((1, 4, 4), 0)


# --- games ------------------------------------------------------------------------------------------------------------


def test_a_conditional_game_moves_each_class_to_its_place():
    """Class 0 lies at (−1, 0), class 1 at (1, 1); a generator that ignores its label is 1.1 off in both."""
    labels = torch.arange(400) % 2
    places = torch.tensor([[-1.0, 0.0], [1.0, 1.0]])
    points = places[labels] + 0.1 * torch.randn(400, 2, generator=rng())
    source = FiniteSource(points[:300], points[300:])
    source.train_labels, source.test_labels = labels[:300], labels[300:]
    source.with_labels(2.0)
    generator = MLPGenerator(4, latent_dim=2, width=32, depth=2, label_shares=source.label_shares, label_scale=2.0)
    critic = ResNetCritic(4, width=32, depth=4)
    *_, last = wgan_lip.train_wgan(
        source, generator, critic,
        wgan_lip.Training(steps=160, batch_size=64, critic_steps=2, warmup_steps=20, audit_size=100, audit_every=160,
                          audit_refits=0, ema_half_life=500.0),
        generator_optimizer=torch.optim.Adam(generator.parameters(), 3e-3, betas=(0.5, 0.9)),
        critic_optimizer=torch.optim.Adam(critic.parameters(), 1e-2, betas=(0.5, 0.9)),
    )  # fmt: skip
    for label, place in enumerate(places):
        samples = last.game.ema(draw_latents(last.game.ema, 200, rng(), labels=label))
        assert (samples[:, :2].mean(0) - place).norm() < 0.35
    assert last.scalars["certificate/lipschitz"] <= 1 and last.scalars["w1/lower"] <= last.scalars["w1/exact"]


def test_the_command_trains_scores_and_samples_with_labels(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    conditional = ["data.label_scale=4", "critic=convolutional", "critic.width=16"]
    assert main(["train", *TINY, *conditional, "hydra.run.dir=run"]) == 0
    run = load_run("run")
    samples = run.sample(40)
    assert samples.shape == (40, 74) and set(samples[:, 64:].unique().tolist()) == {0.0, 4.0}
    assert "labels are joined as vectors of length 4" in run.units
    features = run.summary["scores"]["features"]
    assert 0 <= features["values"]["as_labelled"] <= 1 and 0 <= features["floors"]["as_labelled"] <= 1
    assert main(["sample", "run=run", "n=4", "out=grid.png"]) == 0
    assert main(["sample", "run=run", "n=3", "label=7", "out=sevens.npy"]) == 0
    assert main(["sample", "run=run", "seeds=5-6", "label=7", "out=two.npy"]) == 0
    for name, n in (("sevens", 3), ("two", 2)):
        assert np.load(f"{name}.npy")[:, 64:].tolist() == [[0.0] * 7 + [4.0] + [0.0] * 2] * n
    capsys.readouterr()
    assert main(["sample", "run=run", "label=10", "out=none.npy"]) == 2
    assert "Labels must be between 0 and 9, not [10]" in capsys.readouterr().err
    assert main(["certify", "run=run"]) == 0


def test_the_share_read_as_labelled_falls_where_labels_are_wrong():
    source = Digits(label_scale=1.0)
    classifier = trained_classifier(source, steps=60)
    real = source.reference(200, 5)
    wrong = torch.cat([real[:, :64], real[:, 64:].roll(1, 1)], 1)
    good, bad = (compare(rows, source, features=classifier, draws=2)["features"] for rows in (real, wrong))
    assert good.values["as_labelled"] > 0.8 and bad.values["as_labelled"] < 0.2
    assert good.floors == bad.floors and good.values["kid"] == bad.values["kid"]
    assert "as_labelled" not in compare(Digits().test, Digits(), features=classifier, draws=2)["features"].values


def test_images_that_are_noise_and_laws_without_labels():
    assert FakeImages(count=20, test_size=5, label_scale=1.0).dim == 3082
    assert Moons().sizes["dim"] == 2
