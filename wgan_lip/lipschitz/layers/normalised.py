"""Affine layers of the baselines, which normalise or clip their weight in the forward pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wgan_lip.lipschitz.bounds import Norm, gamma, upper_bound_norm, upper_bound_vector_norm
from wgan_lip.lipschitz.bounds.dense import scaled_float64
from wgan_lip.lipschitz.layers.base import Claim, Kinks, LipschitzLayer, Rounding, Summary, new_bias, no_kinks
from wgan_lip.lipschitz.layers.constraints import Box, Constraint
from wgan_lip.lipschitz.layers.retraction import Retraction
from wgan_lip.lipschitz.layers.stock import STOCK_CLAIMS
from wgan_lip.utils.checks import InputError


class ClippedLinear(nn.Linear, LipschitzLayer):
    """Affine map whose weights and biases are clamped to [−clip, clip] after every step.

    Arguments:
        dim_in: Width of the input, shape (b, dim_in).
        dim_out: Width of the output, shape (b, dim_out).
        clip: Largest size of an entry.

    Guarantee:
        Constant ‖W‖, verified; up to clip·√(dim_in·dim_out), which is above 1 in wide layers.

    References:
        Wasserstein GAN (Arjovsky, Chintala, Bottou, 2017), Algorithm 1
    """

    lengths = None
    nonexpansive = False
    summary = Summary("Ax + b, entries clamped", constant="‖A‖")

    def __init__(self, dim_in: int, dim_out: int, clip: float) -> None:
        super().__init__(dim_in, dim_out)
        if not 0 < clip < math.inf:
            raise InputError(f"clip must be finite and above 0, not {clip}.")
        self.clip = clip
        Retraction(self)()

    def claim(self) -> Claim:
        return STOCK_CLAIMS[nn.Linear](self)

    def constraints(self) -> Iterator[Constraint]:
        yield Box(self.weight, -self.clip, self.clip)
        yield Box(self.bias, -self.clip, self.clip)

    def kinks(self, width: int) -> Kinks:
        return no_kinks(width)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(4, 3, 0.05), (4,)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, clip={self.clip}"


class SpectralNormLinear(nn.Linear, LipschitzLayer):
    r"""Affine map with its weight over an estimate of its norm by power iteration.

    .. math:: x \mapsto \frac{W x}{\hat\sigma} + b, \qquad \hat\sigma = \|W^\top u\| \le \|W\|,
              \qquad u \leftarrow \frac{W W^\top u}{\|W W^\top u\|}

    The gradient takes u as a constant, as in the reference; then it is that of ‖Wᵀu‖ = uᵀWv, v = Wᵀu/‖Wᵀu‖.

    Note [One step of power iteration for each step of the optimiser]
        u is a buffer that moves with the retraction (:func:`wgan_lip.constrain_steps`), after the optimiser's step,
        and nowhere else: all evaluations between two steps are of one function, in train and eval mode alike. Common
        implementations move it in every evaluation in train mode, so real and generated samples see different critics.

    Arguments:
        dim_in: Width of the input, shape (b, dim_in).
        dim_out: Width of the output, shape (b, dim_out).

    Guarantee:
        Constant B/σ̂ with B ≥ ‖W‖ verified and σ̂ bounded from below, for the stored u. Power iteration approaches ‖W‖
        from below, so the constant is above 1, near it once u has settled, and large where the optimiser's step was.
        Where σ̂ is below 1e-6 of the largest entry of W, that takes its place.

    References:
        Spectral normalization for generative adversarial networks (Miyato, Kataoka, Koyama, Yoshida, 2018), Algorithm 1
    """

    lengths = None
    nonexpansive = False
    summary = Summary("Ax/σ̂ + b, σ̂ ≤ ‖A‖ by power iteration", constant="‖A‖/σ̂")
    u: Tensor
    FLOOR: ClassVar[float] = 1e-6
    SETTLING: ClassVar[int] = 30
    """Iterations at the start."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__(dim_in, dim_out)
        self.register_buffer("u", F.normalize(torch.randn(dim_out), dim=0))
        for _ in range(self.SETTLING):
            Retraction(self)()

    def forward(self, x: Tensor) -> Tensor:
        weight = _scaled(self.weight)
        sigma = torch.linalg.vector_norm(self.u @ weight).clamp_min(self.FLOOR)
        return F.linear(x, weight / sigma, self.bias)

    def claim(self) -> Claim:
        rows, columns = self.weight.shape
        norms = Norm.euclidean(columns), Norm.euclidean(rows)
        bias = upper_bound_vector_norm(self.bias)
        length = upper_bound_vector_norm(self.u)
        if not 0.9 <= length <= 1.1:
            raise InputError(
                f"u must have length 1, not about {length:.3g}. Load the whole state, or the last good checkpoint."
            )
        scaled, exponent = scaled_float64(self.weight)
        if exponent is None:
            return Claim(0.0, "W = 0", *norms, Rounding(1, 0.0, bias))
        largest, size = float(np.abs(scaled).max()), upper_bound_vector_norm(scaled)
        # Each entry of the computed uᵀW errs by γ times the products' absolute values.
        product = self.u.detach().cpu().double().numpy() @ scaled
        estimate = float(np.linalg.norm(product)) * (1 - gamma(columns + 8)) - 1.01 * gamma(rows) * length * size
        sigma = max(estimate, self.FLOOR * largest * (1 - 2.0**-50)) - 1e-300
        bound = upper_bound_norm(scaled) / sigma * (1 + 2.0**-50)

        # The computed σ̂ errs by γ(‖u‖‖W‖_F + σ̂), the quotient W/σ̂ by that over σ̂, the product with x by γ more.
        operations = rows + columns + 16
        relative = (1.2 * size / sigma + 2) * gamma(operations)
        gain = 1.05 * size / sigma * (1.2 * size / sigma + 4) if relative < 0.01 else math.inf
        method = f"B/sigma, B by verified Cholesky, sigma = {math.ldexp(sigma, exponent):.6g}"
        return Claim(bound, method, *norms, Rounding(operations, gain, bias))

    def constraints(self) -> Iterator[Constraint]:
        yield _PowerIteration(self.u, self)

    def kinks(self, width: int) -> Kinks:
        return no_kinks(width)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(4, 3), (4,)


@dataclass(frozen=True, eq=False)
class _PowerIteration(Constraint):
    """u one step nearer to the first left singular vector of the layer's weight."""

    layer: SpectralNormLinear

    @classmethod
    def retract_together(cls, constraints: Sequence[_PowerIteration]) -> None:
        for constraint in constraints:
            u, weight = constraint.part, _scaled(constraint.layer.weight)
            after = F.normalize(weight @ F.normalize(u @ weight, dim=0), dim=0)
            u.copy_(torch.where(after.any(), after, u))  # a zero weight has no direction

    @classmethod
    def project_together(cls, constraints: Sequence[_PowerIteration], gradients: Sequence[Tensor]) -> None:
        pass


class BjorckLinear(LipschitzLayer):
    r"""Affine map whose weight is orthonormalised by Björck's iteration in each evaluation, and differentiated through.

    .. math:: x \mapsto V_K x + b, \qquad V_{k+1} = \tfrac32 V_k - \tfrac12 V_k V_k^\top V_k, \qquad
              V_0 = W / \sqrt{S}, \qquad S = \max_i \sum_j |G|_{ij} \ge \|W\|^2

    with G the smaller of WWᵀ and WᵀW. t ↦ (3t − t³)/2 takes [0, 1] into itself and its end 1 to itself, so the scaling
    by a bound leaves ‖V_k‖ ≤ 1 for every finite W and every k, and each step takes small singular values nearer to 1 by
    half of what they are.

    Arguments:
        dim_in: Width of the input, shape (b, dim_in).
        dim_out: Width of the output, shape (b, dim_out).
        iterations: Number K of steps, at most 30.
        bias_scale: The biases start uniform in [−bias_scale, bias_scale].

    Guarantee:
        Constant 1 for every finite W, in real arithmetic; the singular values may be below 1 where K is small.

    References:
        Sorting out Lipschitz function approximation (Anil, Lucas, Grosse, 2019), section 4.2
        An iterative algorithm for computing the best estimate of an orthogonal matrix (Björck, Bowie, 1971)
    """

    lengths = None
    summary = Summary("Vx + b, V orthonormalised from W by Björck's iteration", constant="1, without retraction")

    def __init__(self, dim_in: int, dim_out: int, *, iterations: int = 12, bias_scale: float = 0.1) -> None:
        super().__init__()
        if not 0 <= iterations <= 30:  # each passes on half as much rounding again
            raise InputError(f"iterations must be from 0 to 30, not {iterations}. 12 orthonormalise trained weights.")
        self.iterations = iterations
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(dim_out, dim_in)))
        self.bias = nn.Parameter(new_bias(dim_out, bias_scale))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, _bjorck(self.weight, self.iterations), self.bias)

    def claim(self) -> Claim:
        rows, columns = self.weight.shape
        upper_bound_vector_norm(self.weight)  # refuses weights that are not finite
        operations = rows + columns + 16
        drift = self._drift(gamma(operations))
        side = math.sqrt(min(rows, columns))
        gain = 1.01 * (1.01 * side + drift / gamma(operations)) if drift < 0.01 else math.inf
        rounding = Rounding(operations, gain, upper_bound_vector_norm(self.bias))
        norms = Norm.euclidean(columns), Norm.euclidean(rows)
        return Claim(1.0, f"{self.iterations} Björck steps from a norm of at most 1", *norms, rounding)

    def kinks(self, width: int) -> Kinks:
        return no_kinks(width)

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(5, 3), (5,)
        yield cls(3, 7), (3,)

    def _drift(self, unit: float) -> float:
        """A bound on ‖V̂_K − V_K‖_F for the computed V̂_K, valid where it is below 0.01.

        S has the relative error side·unit, since it is at least the longest row's square. A step passes on 3/2 of the
        error before it: it is an odd function of the singular values, and such functions have in Frobenius norm the
        Lipschitz constant of the scalar one, |3/2 (1 − t²)| ≤ 3/2. Its own error is that of two products.
        """
        side = min(self.weight.shape)
        size = 1.01 * math.sqrt(side)  # of V̂, as a vector
        drift = (side + 4) * unit * size
        for _ in range(self.iterations):
            drift = 1.5 * drift + 2 * unit * (size + size**3)
        return 1.01 * drift

    def extra_repr(self) -> str:
        rows, columns = self.weight.shape
        return f"{columns}, {rows}, iterations={self.iterations}"


def _scaled(weight: Tensor) -> Tensor:
    """The weight over its largest entry, a constant to the gradient: for maps that are the same for a weight of any
    scale, this keeps squares from over- and underflowing. Zero stays zero."""
    largest = weight.detach().abs().amax()
    return weight / largest.where(largest > 0, 1)


def _bjorck(weight: Tensor, iterations: int) -> Tensor:
    """V_K of :class:`BjorckLinear`. A function, not a method that a subclass could override under the claim."""
    weight = _scaled(weight)
    wide = weight.shape[0] <= weight.shape[1]

    def gram(matrix: Tensor) -> Tensor:
        return matrix @ matrix.mT if wide else matrix.mT @ matrix

    square = gram(weight).abs().sum(dim=1).amax()  # at least 1, the square of the largest entry, or 0
    weight = weight * square.clamp_min(0.5).rsqrt()
    for _ in range(iterations):
        left, right = (gram(weight), weight) if wide else (weight, gram(weight))
        weight = torch.addmm(weight, left, right, beta=1.5, alpha=-0.5)
    return weight
