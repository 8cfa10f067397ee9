"""Rigorous upper bounds on operator norms."""

from wgan_lip.lipschitz.bounds.convolutions import padding_multiplicity, upper_bound_convolution_norm
from wgan_lip.lipschitz.bounds.dense import (
    Norm,
    gamma,
    product_up,
    root_up,
    upper_bound_norm,
    upper_bound_operator_norm,
    upper_bound_vector_norm,
)
from wgan_lip.lipschitz.bounds.differentiable import convolution_row_scale, gram_bound, row_scale

__all__ = [
    "Norm",
    "convolution_row_scale",
    "gamma",
    "gram_bound",
    "padding_multiplicity",
    "product_up",
    "root_up",
    "row_scale",
    "upper_bound_convolution_norm",
    "upper_bound_norm",
    "upper_bound_operator_norm",
    "upper_bound_vector_norm",
]
