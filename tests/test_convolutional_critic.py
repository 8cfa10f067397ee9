"""The critic for images: any size, rows or images, certified whatever an optimiser does."""

from __future__ import annotations

import copy

import pytest
import torch

from wgan_lip.critics import ConvolutionalCritic
from wgan_lip.critics.convolutional import _margin
from wgan_lip.lipschitz.certificates import certify, evaluate
from wgan_lip.lipschitz.layers import Retraction, constrain_steps
from wgan_lip.runs.targets import build
from wgan_lip.utils.checks import InputError

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 17, 9), (2, 33, 20), (4, 8, 31)]


def small(shape=(1, 8, 9), **arguments):
    return ConvolutionalCritic(shape, **{"width": 16, "depth": 2, **arguments})


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_images_of_any_size_come_as_they_are_or_as_rows(shape):
    critic = small(shape)
    x = torch.randn(3, *shape)
    assert critic(x).shape == (3,)
    assert torch.equal(critic(x), critic(x.flatten(1)))
    assert critic(x[:0]).shape == (0,)
    assert 0.99 < certify(critic).lipschitz <= 1


@pytest.mark.parametrize(
    ("shape", "patch"),
    [(shape, patch) for shape in SHAPES for patch in (2, 3, 4) if min(shape[1:]) > 2 * patch],
    ids=str,
)
def test_patches_are_an_isometry_that_reaches_every_pixel(shape, patch):
    critic = small(shape, patch=patch)
    x = torch.randn(5, *shape)
    linear = critic.patches(x) - critic.patches(torch.zeros_like(x))
    assert torch.allclose(linear.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-4)


def test_the_margin_is_the_least_with_which_patches_reach_all_pixels():
    for patch in range(1, 9):
        for pixels in range(patch, 70):
            reached = [
                margin for margin in range(2 * patch) if (pixels + 2 * margin) // patch * patch >= pixels + margin
            ]
            assert _margin(pixels, patch) == reached[0] < patch
            assert pixels % patch or reached[0] == 0


def test_the_gradient_keeps_its_norm_up_to_the_dense_state():
    critic = small((1, 8, 8), bias_scale=0.5)
    x = torch.randn(50, 64, requires_grad=True)
    state = x
    for name, layer in critic.named_children():
        if name == "gather":
            break
        state = layer(state)
    direction = torch.randn_like(state)
    (state * direction).sum().backward()
    assert torch.allclose(x.grad.norm(dim=1), direction.norm(dim=1), rtol=1e-3)


def test_every_pixel_reaches_the_value_and_patches_mix_across_their_borders():
    critic = small((1, 9, 8), patch=2, conv_depth=2, bias_scale=0.0)
    x = torch.randn(200, 72, requires_grad=True)
    critic(x).sum().backward()
    assert (x.grad.abs().amax(dim=0) > 0).all()
    layers = critic.unflatten, critic.patches, critic.conv_1, critic.conv_2
    x = torch.randn(200, 72, requires_grad=True)
    state = x
    for layer in layers:
        state = layer(state)
    state[:, :, 1, 1].sum().backward()
    seen = (x.grad.view(-1, 9, 8).abs().amax(dim=0) > 0).sum()
    assert seen > 16, "more than the pixels under one 2 × 2 window of patches"


@pytest.mark.parametrize("heads", [1, 3])
def test_random_pairs_of_images_never_differ_by_more_than_their_distance(heads):
    critic = small(heads=heads).double()
    limit = certify(critic).lipschitz
    assert limit <= 1
    x, y = torch.randn(2, 500, 72, dtype=torch.float64)
    y[:250] = x[:250] + 1e-3 * y[:250]
    gap = (critic(x) - critic(y)).abs().reshape(500, -1).amax(dim=1)
    assert (gap <= limit * (x - y).norm(dim=1) * (1 + 1e-9)).all()
    assert (gap >= 0.02 * (x - y).norm(dim=1)).any()
    assert critic(x).shape == ((500,) if heads == 1 else (500, heads))


@pytest.mark.parametrize("lr", [1e-2, 1e3])
def test_the_certificate_holds_after_every_step(lr):
    critic = small()
    optimizer = torch.optim.Adam(critic.parameters(), lr=lr)
    constrain_steps(optimizer, critic)
    for _ in range(3):
        optimizer.zero_grad()
        critic(torch.randn(16, 1, 8, 9)).sum().backward()
        optimizer.step()
        assert certify(critic).lipschitz <= 1
        assert all(parameter.isfinite().all() for parameter in critic.parameters())


def test_one_retraction_repairs_spiked_and_huge_weights():
    for disturb in (lambda p: p.mul_(1e20), lambda p: p.view(-1)[:1].fill_(1e6), lambda p: p.zero_()):
        critic = small()
        with torch.no_grad():
            for parameter in critic.parameters():
                disturb(parameter)
        Retraction(critic)()
        assert certify(critic).lipschitz <= 1


def test_training_separates_images_from_blurred_ones():
    torch.manual_seed(0)
    critic = small((1, 8, 8))
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3)
    constrain_steps(optimizer, critic)
    x = torch.rand(256, 1, 8, 8).round()
    y = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    before = (critic(x).mean() - critic(y).mean()).item()
    for _ in range(60):
        optimizer.zero_grad()
        (critic(y).mean() - critic(x).mean()).backward()
        optimizer.step()
    value = (critic(x).mean() - critic(y).mean()).item() / certify(critic).lipschitz
    assert value > 1.0 > before
    assert value <= (x - y).flatten(1).norm(dim=1).mean().item()  # the cost of moving each image to its blurred self


def test_evaluation_bounds_its_rounding():
    critic = small((1, 8, 8))
    x = torch.rand(20, 64)
    evaluation = evaluate(critic, x)
    assert torch.allclose(evaluation.values, critic(x).double(), atol=1e-5)
    assert torch.allclose(evaluation.values, copy.deepcopy(critic).double()(x.double()), atol=1e-12)
    assert 0 < evaluation.error.min() <= evaluation.error.max() < 1e-8


def test_it_is_built_from_the_shape_that_the_data_offers():
    config = {"_target_": "wgan_lip.critics.ConvolutionalCritic", "width": 8, "depth": 1}
    critic = build("critic", config, dim=64, low=0.0, high=1.0, image_shape=(1, 8, 8))
    assert critic.dim == 64
    with pytest.raises(InputError, match="not None. For samples that are not images use ResNetCritic"):
        build("critic", config, dim=2, low=None, high=None, image_shape=None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (1, 3, 8)}, "at least 5 × 5 pixels for patches of 2"),
        ({"shape": (1, 28, 7), "patch": 4}, "at least 9 × 9"),
        ({"shape": (0, 8, 8)}, "not 0"),
        ({"shape": (8, 8)}, "image_shape must be"),
        ({"patch": 0}, "patch must be at least 1"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"activation": "sine"}, "not 'sine'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        small(**arguments)
