"""Laws of the generators."""

from __future__ import annotations

import pytest
import torch

from wgan_lip.checks import InputError
from wgan_lip.generators import MLPGenerator, draw_latents


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
    with pytest.raises(InputError, match=r"relu, leaky_relu, silu, gelu, tanh. Got 'swish'"):
        MLPGenerator(2, activation="swish")
