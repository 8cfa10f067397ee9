"""Scores of a generator with their real-versus-real floor.

A distance between finite samples is positive even when both come from one law, so a score says little without the
value that real samples reach in the generator's place: its floor.
"""

from wgan_lip.metrics.classifier import Classifier, trained_classifier
from wgan_lip.metrics.floor import ModeCoverage, ScoreOverFloor, mode_coverage, spread_over_real, w1_over_floor
from wgan_lip.metrics.inception import Inception
from wgan_lip.metrics.scores import Compared, compare
from wgan_lip.metrics.similarity import (
    Neighbourhoods,
    frechet_distance,
    kernel_distance,
    mmd,
    neighbourhoods,
    similarity,
    sliced_wasserstein,
)

__all__ = [
    "Classifier",
    "Compared",
    "Inception",
    "ModeCoverage",
    "Neighbourhoods",
    "ScoreOverFloor",
    "compare",
    "frechet_distance",
    "kernel_distance",
    "mmd",
    "mode_coverage",
    "neighbourhoods",
    "similarity",
    "sliced_wasserstein",
    "spread_over_real",
    "trained_classifier",
    "w1_over_floor",
]
