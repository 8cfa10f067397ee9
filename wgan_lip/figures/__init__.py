"""Pictures of samples, critics and intervals.

Every function returns a `matplotlib.figure.Figure` of its own or an array; nothing touches pyplot or its backend.
"""

from wgan_lip.figures.clouds import generated_cloud
from wgan_lip.figures.images import real_beside_generated, sample_grid
from wgan_lip.figures.intervals import interval_history, interval_over_time
from wgan_lip.figures.line import cdf_pair
from wgan_lip.figures.plane import landscape, transport_lines
from wgan_lip.figures.scores import error_curves, score_curves, score_dots, stacked_bars
from wgan_lip.figures.style import save, to_array

__all__ = [
    "cdf_pair",
    "error_curves",
    "generated_cloud",
    "interval_history",
    "interval_over_time",
    "landscape",
    "real_beside_generated",
    "sample_grid",
    "save",
    "score_curves",
    "score_dots",
    "stacked_bars",
    "to_array",
    "transport_lines",
]
