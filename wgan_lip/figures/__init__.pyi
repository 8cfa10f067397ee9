"""The pictures, once: type checkers read them here, and `__init__.py` where to load each from."""

from matplotlib.figure import Figure as Figure

from wgan_lip.figures.arrays import gradient_norms as gradient_norms
from wgan_lip.figures.clouds import generated_cloud as generated_cloud
from wgan_lip.figures.curves import score_against as score_against
from wgan_lip.figures.curves import training_curves as training_curves
from wgan_lip.figures.embedding import inline_png as inline_png
from wgan_lip.figures.embedding import inline_svg as inline_svg
from wgan_lip.figures.images import image_table as image_table
from wgan_lip.figures.images import ranked_images as ranked_images
from wgan_lip.figures.images import real_beside_generated as real_beside_generated
from wgan_lip.figures.images import sample_grid as sample_grid
from wgan_lip.figures.intervals import interval_history as interval_history
from wgan_lip.figures.intervals import interval_over_time as interval_over_time
from wgan_lip.figures.line import cdf_pair as cdf_pair
from wgan_lip.figures.plane import gradient_map as gradient_map
from wgan_lip.figures.plane import landscape as landscape
from wgan_lip.figures.plane import level_lines as level_lines
from wgan_lip.figures.plane import transport_lines as transport_lines
from wgan_lip.figures.rays import ray_profiles as ray_profiles
from wgan_lip.figures.rays import value_histograms as value_histograms
from wgan_lip.figures.scores import distance_matrix as distance_matrix
from wgan_lip.figures.scores import error_curves as error_curves
from wgan_lip.figures.scores import score_curves as score_curves
from wgan_lip.figures.scores import score_dots as score_dots
from wgan_lip.figures.scores import score_matrix as score_matrix
from wgan_lip.figures.scores import stacked_bars as stacked_bars
from wgan_lip.figures.style import narrowed as narrowed
from wgan_lip.figures.style import save as save
from wgan_lip.figures.style import to_array as to_array
from wgan_lip.figures.surface import potential_surface as potential_surface
