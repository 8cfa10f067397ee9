"""Pictures of samples, critics and intervals.

Every function returns a `matplotlib.figure.Figure` of its own or an array; nothing touches pyplot or its backend.
"""

from matplotlib.figure import Figure

from wgan_lip.figures.arrays import gradient_norms
from wgan_lip.figures.clouds import generated_cloud
from wgan_lip.figures.curves import score_against, training_curves
from wgan_lip.figures.embedding import inline_png, inline_svg
from wgan_lip.figures.images import image_table, ranked_images, real_beside_generated, sample_grid
from wgan_lip.figures.intervals import interval_history, interval_over_time
from wgan_lip.figures.line import cdf_pair
from wgan_lip.figures.plane import gradient_map, landscape, level_lines, transport_lines
from wgan_lip.figures.rays import ray_profiles, value_histograms
from wgan_lip.figures.scores import error_curves, score_curves, score_dots, score_matrix, stacked_bars
from wgan_lip.figures.style import save, to_array
from wgan_lip.figures.surface import potential_surface

__all__ = [
    "Figure",
    "cdf_pair",
    "error_curves",
    "generated_cloud",
    "gradient_map",
    "gradient_norms",
    "image_table",
    "inline_png",
    "inline_svg",
    "interval_history",
    "interval_over_time",
    "landscape",
    "level_lines",
    "potential_surface",
    "ranked_images",
    "ray_profiles",
    "real_beside_generated",
    "sample_grid",
    "save",
    "score_against",
    "score_curves",
    "score_dots",
    "score_matrix",
    "stacked_bars",
    "to_array",
    "training_curves",
    "transport_lines",
    "value_histograms",
]
