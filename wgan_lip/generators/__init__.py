"""Latent → sample."""

from wgan_lip.generators.base import Generator, draw_latents, latent_dim
from wgan_lip.generators.images import DCGANGenerator, ResNetGenerator
from wgan_lip.generators.mlp import MLPGenerator

__all__ = ["DCGANGenerator", "Generator", "MLPGenerator", "ResNetGenerator", "draw_latents", "latent_dim"]
