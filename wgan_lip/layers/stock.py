"""Claims about modules of torch.nn, for the arguments and weights they hold."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from wgan_lip.bounds import Norm, upper_bound_norm, upper_bound_vector_norm
from wgan_lip.checks import InputError, UncertifiableError
from wgan_lip.layers.base import Claim, Rounding

__all__ = ["STOCK_CLAIMS"]


def _linear_claim(module: nn.Linear) -> Claim:
    offset = 0.0 if module.bias is None else upper_bound_vector_norm(module.bias)
    rounding = Rounding(module.in_features + 4, upper_bound_vector_norm(module.weight), offset)
    norms = Norm.euclidean(module.in_features), Norm.euclidean(module.out_features)
    return Claim(upper_bound_norm(module.weight), "spectral norm by verified Cholesky", *norms, rounding)


def _leaky_relu_claim(module: nn.LeakyReLU) -> Claim:
    if not math.isfinite(module.negative_slope):
        raise InputError(f"Expected a finite negative_slope. Got {module.negative_slope}.")
    slope = max(1.0, abs(module.negative_slope))
    return Claim(slope, "largest slope", rounding=Rounding(1, slope))


def _flatten_claim(module: nn.Flatten) -> Claim:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise UncertifiableError("Expected nn.Flatten() over all but the first axis. Got other axes. Use the default.")
    return Claim(1.0, "isometry")


STOCK_CLAIMS: dict[type[nn.Module], Callable[[nn.Module], Claim]] = {
    nn.Flatten: _flatten_claim,
    nn.Identity: lambda _: Claim(1.0, "identity"),
    nn.LeakyReLU: _leaky_relu_claim,
    nn.Linear: _linear_claim,
    nn.ReLU: lambda _: Claim(1.0, "largest slope"),
    nn.Tanh: lambda _: Claim(1.0, "largest slope", rounding=Rounding(16, 1.0)),
}
