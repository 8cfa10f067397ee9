"""Laws of the generators."""

from __future__ import annotations

import math

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import wgan_lip
from wgan_lip.cli import config_directory
from wgan_lip.data import FakeImages
from wgan_lip.generators import DCGANGenerator, MLPGenerator, ResNetGenerator, draw_latents
from wgan_lip.runs.targets import build, target_class
from wgan_lip.utils.checks import InputError


def test_output_stays_in_the_known_range():
    generator = MLPGenerator(5, low=-1.0, high=3.0, latent_dim=2, width=16)
    samples = generator(1e4 * torch.randn(1000, 2))
    assert samples.shape == (1000, 5)
    assert samples.min() >= -1 and samples.max() <= 3
    assert samples.max() - samples.min() > 1


def test_output_is_unbounded_where_no_range_is_known():
    generator = MLPGenerator(2, latent_dim=2, width=16)
    assert generator(1e6 * torch.randn(1000, 2)).abs().max() > 100


def test_latents_are_standard_normal_and_fixed_by_the_generator_of_numbers():
    generator = MLPGenerator(2, latent_dim=3)
    first, second = (draw_latents(generator, 20_000, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.mean(0).abs().max() < 0.05
    assert torch.allclose(first.T.cov(), torch.eye(3), atol=0.05)


@pytest.mark.parametrize("bad", [{"dim": 0}, {"dim": 2, "width": 0}, {"dim": 2, "depth": -1}])
def test_sizes_below_one_are_refused(bad):
    with pytest.raises(InputError, match="at least 1"):
        MLPGenerator(**bad)


def test_an_unknown_activation_is_refused_naming_the_legal_ones():
    with pytest.raises(InputError, match=r"relu, leaky_relu, silu, gelu, tanh, not 'swish'"):
        MLPGenerator(2, activation="swish")


# --- images -----------------------------------------------------------------------------------------------------------

IMAGE_GENERATORS = [DCGANGenerator, ResNetGenerator]
SHAPES = [(1, 1, 1), (1, 8, 8), (3, 9, 13), (1, 28, 28), (4, 32, 32), (3, 47, 30), (3, 64, 64)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", IMAGE_GENERATORS)
def test_images_of_any_channels_and_size_end_in_the_range_of_the_data(kind, shape):
    generator = kind(shape, low=-1.0, high=3.0, latent_dim=5, channels=8)
    samples = generator(10 * torch.randn(3, 5))
    assert samples.shape == (3, math.prod(shape)) and samples.dtype == torch.float32
    assert samples.min() >= -1 and samples.max() <= 3
    samples.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in generator.parameters())


@pytest.mark.parametrize("shape", [(3, 9, 13), (1, 28, 28), (2, 47, 30)], ids=str)
@pytest.mark.parametrize("kind", IMAGE_GENERATORS)
def test_every_pixel_moves_with_the_latents_up_to_the_border(kind, shape):
    samples = kind(shape, latent_dim=5, channels=8)(torch.randn(64, 5)).detach()
    assert samples.std(dim=0).min() > 1e-3


@pytest.mark.parametrize("kind", IMAGE_GENERATORS)
def test_a_sample_depends_on_its_batch_under_batch_norm_alone_and_there_only_in_training(kind):
    latents = torch.randn(4, 6)
    for norm in ("group", "none", "batch"):
        generator = kind((1, 12, 12), latent_dim=6, channels=16, norm=norm)
        together, alone = generator(latents), generator(latents[:2])
        assert torch.allclose(together[:2], alone, atol=1e-5) == (norm != "batch")
        generator.eval()
        assert torch.allclose(generator(latents)[:2], generator(latents[:2]), atol=1e-5)


@pytest.mark.parametrize("kind", IMAGE_GENERATORS)
def test_bad_arguments_of_image_generators_are_refused_with_the_remedy(kind):
    with pytest.raises(InputError, match=r"image_shape \(c, h, w\), not None. For other samples use MLPGenerator"):
        kind(None)
    with pytest.raises(InputError, match="h must be at least 1, not 0"):
        kind((1, 0, 8))
    with pytest.raises(InputError, match="norm must be one of group, batch, none, not 'layer'"):
        kind((1, 8, 8), norm="layer")
    with pytest.raises(InputError, match="activation must be one of relu"):
        kind((1, 8, 8), activation="swish")


CRITICS = sorted(path.stem for path in (config_directory() / "critic").glob("*.yaml"))
SIDES = {"convolutional", "image"}  # critics that see more of a shape than its size


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, shape) for name in CRITICS for shape in [(1, 8, 8), (3, 17, 33)]]
    + [("fixed_width", (1, 28, 28))]
    + [(name, shape) for name in CRITICS if name in SIDES for shape in [(1, 28, 28), (3, 64, 64)]],
    ids=str,
)
def test_every_critic_takes_the_images_of_a_generator_and_is_certified(name, shape):
    """As built from its configuration, with fewer layers; width d + 3 is for d in the hundreds."""
    if name == "fixed_width" and math.prod(shape) > 1000:
        pytest.skip("a critic of width d + 3 has d² weights a layer")
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", [f"critic={name}"]).critic)
    shallow = config["of"] if name == "mean" else config
    shallow["depth"] = min(2, 2 if shallow["depth"] is None else shallow["depth"])
    critic = build("critic", config, dim=math.prod(shape), image_shape=shape)
    samples = DCGANGenerator(shape, low=0.0, high=1.0, latent_dim=3, channels=4)(torch.randn(2, 3))
    values = critic(samples)
    assert values.shape == (2,)
    (gradient,) = torch.autograd.grad(values.sum(), samples)
    assert gradient.norm(dim=1).max() <= wgan_lip.certify(critic).lipschitz * (1 + 1e-5)
    assert gradient.norm(dim=1).min() > 0


@pytest.mark.parametrize(
    "name, shape", [("mnist", (1, 28, 28)), ("fashion_mnist", (1, 28, 28)), ("cifar10", (3, 32, 32))]
)
def test_a_recipe_builds_players_that_fit_its_images(name, shape):
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", [f"experiment={name}"]))
    assert target_class("data", config["data"]["_target_"]).name == name
    c, h, w = shape
    for scale in (None, 10.0):
        source = FakeImages(channels=c, height=h, width=w, count=4, test_size=4, label_scale=scale)
        generator, critic = (build(player, config[player], **source.sizes) for player in ("generator", "critic"))
        samples = generator(draw_latents(generator, 4, torch.Generator().manual_seed(0)))
        assert samples.shape == source.test.shape and critic(samples).shape == (4,)
        assert wgan_lip.certify(critic).lipschitz <= 1
