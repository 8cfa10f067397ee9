"""Rigorous upper bounds on operator norms.

Note [Trust only the matrix product]
    Every bound here rests on one fact of floating-point arithmetic: a matrix product of inner dimension k, summed in
    any order, with or without fused multiply-add, errs entrywise by at most γ_k |A||B|, γ_k = k·u/(1 − k·u), u = 2⁻⁵³
    (Higham, Accuracy and stability of numerical algorithms, 2002, section 3.5). Eigenvalue and Cholesky routines are
    only asked for guesses; a guess is then checked by products, so a wrong guess can cost tightness, never validity.
    All bounds are computed on the CPU in float64 from the stored weights, which convert exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from torch import Tensor

from wgan_lip.utils.checks import InputError

__all__ = ["Norm", "gamma", "product_up", "upper_bound_norm", "upper_bound_operator_norm", "upper_bound_vector_norm"]

UNIT_ROUNDOFF = 2.0**-53
SMALLEST_NORMAL = 2.0**-1022  # underflow, gradual or flushed to zero, costs at most this much an operation


@dataclass(frozen=True)
class Norm:
    r"""The norm of a layer's input or output space: the largest Euclidean norm among consecutive blocks.

    .. math:: \|x\|_* = \max_i \|x_{B_i}\|_2

    `Norm((d,))` is the Euclidean norm, `Norm((1,) * d)` the maximum norm, and `Norm((1, 1, 1, d - 3))` the block-max
    norm of the fixed-width critics in *Approximation theory for 1-Lipschitz ResNets* (2025), Theorem 4.1.

    `Norm.euclidean()`, without blocks, is the Euclidean norm of a space of any dimension, such as that of images, whose
    size a convolution need not know.

    Arguments:
        blocks: Sizes of the blocks; they add up to the dimension.
    """

    blocks: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.blocks and min(self.blocks) < 1:
            raise InputError(f"Blocks of a norm must have size at least 1, not {self.blocks}.")

    @staticmethod
    def euclidean(dim: int | None = None) -> Norm:
        return Norm(() if dim is None else (dim,))

    def meets(self, other: Norm) -> bool:
        """Whether a map into a space with one of these norms may be followed by a map out of one with the other."""
        anonymous = not self.blocks or not other.blocks
        return self == other or (anonymous and len(self.blocks) <= 1 and len(other.blocks) <= 1)

    @property
    def dim(self) -> int:
        return sum(self.blocks)

    @property
    def slices(self) -> list[slice]:
        ends = list(accumulate(self.blocks))
        return [slice(end - size, end) for end, size in zip(ends, self.blocks)]

    def __str__(self) -> str:
        if not self.blocks:
            return "Euclidean"
        if len(self.blocks) == 1:
            return f"Euclidean({self.dim})"
        if max(self.blocks) == 1:
            return f"max({self.dim})"
        return f"block-max({'+'.join(map(str, self.blocks))})"


def gamma(operations: int) -> float:
    """γ_k = k·u/(1 − k·u): the relative error that k roundings can add up to in float64, itself rounded up."""
    ku = operations * UNIT_ROUNDOFF
    if ku >= 0.01:
        raise InputError(f"A sum of {operations} operations is too long to bound its rounding: at most 9e13.")
    return ku / (1 - ku) * (1 + 2.0**-50)


def product_up(*factors: float) -> float:
    """Multiplies non-negative numbers, rounding up: at least the real product of `factors`, and 0 if one of them is."""
    if 0.0 in factors:
        return 0.0
    product = 1.0
    for factor in factors:
        exact = product == 1.0 or factor == 1.0
        product = product * factor if exact else math.nextafter(product * factor, math.inf)
    return product


def root_up(number: float) -> float:
    """√number, rounded up; exact where the root is an integer."""
    root = math.sqrt(number)
    return root if root.is_integer() and int(root) ** 2 == number else math.nextafter(root, math.inf)


def upper_bound_norm(matrix: Tensor | np.ndarray) -> float:
    r"""Bounds the spectral norm ‖A‖ from above, by a verified Cholesky factorisation of c·I − AAᵀ.

    .. math:: \lambda_{\max}(A A^\top) \le c + \|(cI - S) - R^\top R\|_F + \text{rounding}, \qquad S \approx A A^\top

    for *any* R, since RᵀR is positive semi-definite; c is the computed largest eigenvalue of S, slightly raised, and
    R the computed Cholesky factor of c·I − S. See Note [Trust only the matrix product].

    Arguments:
        matrix: Shape (m, n), any real floating type.

    Returns:
        A float that is at least ‖A‖, by about a relative 1e-10 at size 1024, 1e-13 at size 64; at most ‖A‖_F.

    Raises:
        InputError: Not a matrix, empty, or not finite.

    Guarantee:
        Holds in real arithmetic for the stored entries, whatever the eigenvalue and Cholesky routines return.

    References:
        Verification of positive definiteness (Rump, 2006)
    """
    scaled, exponent = scaled_float64(matrix)
    if exponent is None:
        return 0.0
    if scaled.shape[0] > scaled.shape[1]:
        scaled = scaled.T
    side, inner = scaled.shape

    product = scaled @ scaled.T
    gram = np.tril(product) + np.tril(product, -1).T  # symmetric, with the entrywise error bound of `product`
    frobenius_squared = float(np.square(scaled).sum()) * (1 + gamma(side * inner + 2)) + side * inner * SMALLEST_NORMAL
    gram_error = gamma(inner) * frobenius_squared + side * inner * SMALLEST_NORMAL

    squared = _shifted_cholesky_bound(gram) + gram_error
    if not squared < frobenius_squared:  # NaN included: the guesses may be anything
        squared = frobenius_squared
    return rescaled_up(math.sqrt(squared * (1 + 2.0**-48)), exponent)


def _shifted_cholesky_bound(gram: np.ndarray) -> float:
    """Bounds the largest eigenvalue of a symmetric float64 matrix (p, p) from above; inf where no guess checks out."""
    side = gram.shape[0]
    identity = np.eye(side)
    try:
        guess = float(np.linalg.eigvalsh(gram)[-1])
    except np.linalg.LinAlgError:
        return math.inf
    if not math.isfinite(guess):
        return math.inf
    for raise_by in (8.0, 64.0, 512.0, 4096.0):
        shift = guess * (1 + raise_by * side * UNIT_ROUNDOFF)
        shifted = shift * identity - gram  # off the diagonal exact, on it one rounding each
        try:
            factor = np.linalg.cholesky(shifted)
        except np.linalg.LinAlgError:
            continue
        residual = float(np.linalg.norm(shifted - factor @ factor.T))
        size = float(np.square(factor).sum())
        slack = (
            residual * (1 + gamma(side * side + 4))
            + gamma(side) * size * (1 + gamma(side * side + 2))
            + 2 * UNIT_ROUNDOFF * float(np.abs(np.diag(shifted)).max())
            + 4 * side * side * SMALLEST_NORMAL
        )
        return shift + slack
    return math.inf


def upper_bound_vector_norm(vector: Tensor | np.ndarray) -> float:
    """Bounds the Euclidean norm of all entries of `vector` from above. Raises :class:`InputError` if not finite."""
    array = _float64(vector)
    if array.size == 0:
        return 0.0
    scaled, exponent = scaled_float64(array.reshape(1, -1))
    if exponent is None:
        return 0.0
    squared = float(np.square(scaled).sum()) * (1 + gamma(array.size + 2)) + array.size * SMALLEST_NORMAL
    return rescaled_up(math.sqrt(squared * (1 + 2.0**-50)), exponent)


def upper_bound_operator_norm(matrix: Tensor | np.ndarray, norm_in: Norm, norm_out: Norm) -> float:
    r"""Bounds the norm of a linear map between two block-max norms.

    .. math:: \|A\|_{* \to *} \le \max_i \sum_j \|A_{B_i B_j}\|_2

    which is exact for Euclidean → Euclidean, Euclidean → block-max, and whenever the output blocks are scalars.

    Arguments:
        matrix: Shape (norm_out.dim, norm_in.dim).
        norm_in: Norm of the space A acts on.
        norm_out: Norm of the space A maps to.

    Returns:
        An upper bound, rounded up. See :func:`upper_bound_norm` for tightness and errors.

    References:
        Approximation theory for 1-Lipschitz ResNets (Murari, Furuya, Schönlieb, 2025), Theorem 4.1, where the sum is
        the constraint on a row; Sorting out Lipschitz function approximation (Anil, Lucas, Grosse, 2019)
    """
    if tuple(matrix.shape) != (norm_out.dim, norm_in.dim):
        raise InputError(
            f"matrix must have shape ({norm_out.dim}, {norm_in.dim}), not {tuple(matrix.shape)}, to map between "
            "these norms."
        )
    if len(norm_in.blocks) == len(norm_out.blocks) == 1:
        return upper_bound_norm(matrix)
    scaled, exponent = scaled_float64(matrix)
    if exponent is None:
        return 0.0
    scalar = [block.start for block in norm_in.slices if block.stop - block.start == 1]
    wide = [block for block in norm_in.slices if block.stop - block.start > 1]
    single = [block.start for block in norm_out.slices if block.stop - block.start == 1]
    bound = 0.0
    step = max(1, 2**22 // scaled.shape[1])
    for start in range(0, len(single), step):  # many scalar output blocks in one go
        rows = scaled[single[start : start + step]]
        norms = [np.sqrt(_sums_up(np.square(rows[:, columns]))) for columns in wide]
        totals = _sums_up(np.column_stack((np.abs(rows[:, scalar]), *norms)))
        bound = max(bound, float(totals.max()) * _NORM_SLACK)
    for block in norm_out.slices:
        if block.stop - block.start > 1:
            # A scalar input block is a column, whose spectral norm is its Euclidean norm.
            total = float(_sums_up(np.sqrt(_sums_up(np.square(scaled[block][:, scalar].T))))) * _NORM_SLACK
            for columns in wide:
                total = math.nextafter(total + _upper_bound_block_norm(scaled[block, columns]), math.inf)
            bound = max(bound, total)
    return rescaled_up(bound + scaled.shape[1] * math.sqrt(scaled.size * SMALLEST_NORMAL), exponent)


def _upper_bound_block_norm(block: np.ndarray) -> float:
    """As :func:`upper_bound_norm`, but tight at any size, up to a few roundings, for one entry in each row and column.

    The spectral norm lies between the largest entry and the largest absolute row or column sum.
    """
    magnitudes = np.abs(block)
    sums = max(float(_sums_up(magnitudes).max()), float(_sums_up(magnitudes.T).max()))
    return sums if sums <= float(magnitudes.max()) * (1 + 2.0**-40) else min(sums, upper_bound_norm(block))


_NORM_SLACK = 1 + 4 * UNIT_ROUNDOFF  # of squares, of a square root, and of the product with it


def _sums_up(terms: np.ndarray) -> np.ndarray:
    """Sums of non-negative numbers over the last axis, rounded up: by halving, so that log2 of their number counts."""
    count = terms.shape[-1]
    if count == 0:
        return np.zeros(terms.shape[:-1])
    while (size := terms.shape[-1]) > 1:
        half = (size + 1) // 2
        folded = terms[..., :half].copy()
        folded[..., : size - half] += terms[..., half:]
        terms = folded
    return terms[..., 0] * math.nextafter(1 + gamma((count - 1).bit_length() + 1), math.inf)


def _float64(values: Tensor | np.ndarray) -> np.ndarray:
    if values.is_complex() if isinstance(values, Tensor) else np.iscomplexobj(values):
        raise InputError(f"Weights must be real, not {values.dtype}. Convert them to a real dtype.")
    if np.float32(2.0**-149).astype(np.float64) == 0:  # then subnormal weights would convert to zero
        raise InputError(
            "This processor flushes subnormal numbers to zero, so bounds could be wrong. Call "
            "torch.set_flush_denormal(False)."
        )
    return np.asarray(values.detach().cpu().double() if isinstance(values, Tensor) else values, dtype=np.float64)


def scaled_float64(matrix: Tensor | np.ndarray) -> tuple[np.ndarray, int | None]:
    """The matrix in float64 times 2^-e with its largest entry in [1/2, 1), and e; (matrix, None) if it is zero."""
    array = _float64(matrix)
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"A non-empty matrix is needed, not an array of shape {array.shape}.")
    largest = float(np.abs(array).max())
    if not math.isfinite(largest):
        raise InputError(
            "Weights must be finite, not NaN or infinity. Reload the last good checkpoint, or lower the learning rate."
        )
    if largest == 0.0:
        return array, None
    exponent = math.frexp(largest)[1]
    return np.ldexp(array, -exponent), exponent


def rescaled_up(value: float, exponent: int) -> float:
    """value · 2^exponent, rounded up."""
    try:
        return math.nextafter(math.ldexp(math.nextafter(value, math.inf), exponent), math.inf)
    except OverflowError:
        return math.inf
