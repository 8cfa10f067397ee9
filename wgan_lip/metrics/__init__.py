"""Scores of a generator, each with the value that real samples reach in its place.

A distance between finite samples is positive even when both come from one law, so a score says little without the
value that real samples reach: its floor. The main score, :func:`excess_over_floor`, has it subtracted.
"""

from wgan_lip.metrics.blurring import blurred
from wgan_lip.metrics.classifier import Classifier, trained_classifier
from wgan_lip.metrics.excess import Excess, Floor, Halves, Pool, excess_over_floor, halved, real_pools
from wgan_lip.metrics.features import Features, PretrainedNetwork, check_features, features_of
from wgan_lip.metrics.inception import Inception
from wgan_lip.metrics.memorisation import Memorisation, memorisation
from wgan_lip.metrics.modes import ModeCoverage, mode_coverage, spread_over_real
from wgan_lip.metrics.scores import Compared, compare, on_features
from wgan_lip.metrics.similarity import (
    Neighbourhoods,
    frechet_distance,
    kernel_distance,
    mmd,
    neighbourhoods,
    similarity,
    sliced_wasserstein,
)
from wgan_lip.metrics.wavelets import frechet_wavelet_distance, wavelet_packets

__all__ = [
    "Classifier",
    "Compared",
    "Excess",
    "Features",
    "Floor",
    "Halves",
    "Inception",
    "Memorisation",
    "ModeCoverage",
    "Neighbourhoods",
    "Pool",
    "PretrainedNetwork",
    "blurred",
    "check_features",
    "compare",
    "excess_over_floor",
    "features_of",
    "frechet_distance",
    "frechet_wavelet_distance",
    "halved",
    "kernel_distance",
    "memorisation",
    "mmd",
    "mode_coverage",
    "neighbourhoods",
    "on_features",
    "real_pools",
    "similarity",
    "sliced_wasserstein",
    "spread_over_real",
    "trained_classifier",
    "wavelet_packets",
]
