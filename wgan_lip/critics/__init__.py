"""Potentials built from layers."""

from wgan_lip.critics.base import Critic
from wgan_lip.critics.resnet import FixedWidthCritic, ResNetCritic

__all__ = ["Critic", "FixedWidthCritic", "ResNetCritic"]
