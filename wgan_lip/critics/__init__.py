"""Potentials built from layers."""

from wgan_lip.critics.base import Critic
from wgan_lip.critics.baselines import ClippedCritic, GroupSortCritic, PenalizedCritic, SpectralNormCritic
from wgan_lip.critics.combined import (
    CombinedCritic,
    MeanCritic,
    clipped,
    maximum,
    mean,
    minimum,
    mixture,
    scaled,
    shifted,
    weighted_sum,
)
from wgan_lip.critics.convolutional import ConvolutionalCritic
from wgan_lip.critics.principal import ImageCritic, PrincipalCritic
from wgan_lip.critics.resnet import FixedWidthCritic, ResNetCritic
from wgan_lip.critics.sorting import SortingCritic

__all__ = [
    "ClippedCritic",
    "CombinedCritic",
    "ConvolutionalCritic",
    "Critic",
    "FixedWidthCritic",
    "GroupSortCritic",
    "ImageCritic",
    "MeanCritic",
    "PenalizedCritic",
    "PrincipalCritic",
    "ResNetCritic",
    "SortingCritic",
    "SpectralNormCritic",
    "clipped",
    "maximum",
    "mean",
    "minimum",
    "mixture",
    "scaled",
    "shifted",
    "weighted_sum",
]
