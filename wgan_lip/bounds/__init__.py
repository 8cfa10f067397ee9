"""Operator norms, bounded from above, rigorously."""

from wgan_lip.bounds.dense import (
    Norm,
    gamma,
    product_up,
    upper_bound_norm,
    upper_bound_operator_norm,
    upper_bound_vector_norm,
)

__all__ = ["Norm", "gamma", "product_up", "upper_bound_norm", "upper_bound_operator_norm", "upper_bound_vector_norm"]
