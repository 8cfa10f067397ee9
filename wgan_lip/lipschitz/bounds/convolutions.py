r"""Rigorous upper bounds on the norms of convolutions.

Note [Every convolution is one on a torus]
    Padding with zeros restricts a convolution of a torus at least as long as the input and one margin; circular
    padding is the torus itself; all other padding repeats pixels before a convolution without padding, and a map that
    repeats no pixel more than r times has norm at most √r. A stride s makes the pixels of each residue mod s separate
    channels (pixel-unshuffle, an isometry), which leaves stride 1 on a grid s times coarser, and fewer taps. A dilation
    only permutes or repeats the frequencies of the torus. What is left is the largest norm of

    .. math:: \hat K(\omega) = \sum_m K_m e^{i \omega \cdot m}, \qquad m_a = 0, \ldots, T_a - 1

    over the frequencies of the torus, which is exact, or over all frequencies if no size is given. Then a grid of
    N_a > T_a − 1 points an axis is enough: by Riesz's lemma a real function f of exponential type n with
    |f| ≤ f(x0) has f(x) ≥ f(x0) cos(n(x − x0)) for n|x − x0| ≤ π, so with n_a = (T_a − 1)/2 the largest norm exceeds
    that on the grid by at most the factor Π_a 1/cos(π n_a/N_a).

References:
    The singular values of convolutional layers (Sedghi, Gupta, Long, 2019)
    Eine trigonometrische Interpolationsformel und einige Ungleichungen für Polynome (Riesz, 1914)
    Verification of positive definiteness (Rump, 2006)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wgan_lip.lipschitz.bounds.dense import (
    SMALLEST_NORMAL,
    UNIT_ROUNDOFF,
    gamma,
    product_up,
    rescaled_up,
    root_up,
    scaled_float64,
    upper_bound_norm,
)
from wgan_lip.utils.checks import InputError, check_choice

__all__ = ["padding_multiplicity", "upper_bound_convolution_norm"]

# numpy's names of torch's padding modes; zeros repeat nothing
_MODES: dict[str, Literal["constant", "wrap", "reflect", "edge"]] = {
    "zeros": "constant", "circular": "wrap", "reflect": "reflect", "replicate": "edge",
}  # fmt: skip
_COMPLEX_PRODUCT = 4 * UNIT_ROUNDOFF  # above √2 γ_2, its relative error (Higham, 2002, Lemma 3.5)
_BATCH = 2**17  # numbers in one batch of matrices, which fit a processor's cache


class _Axis(NamedTuple):
    """One spatial axis: a tap's residue mod `step` becomes a channel; the torus has `points` frequencies, or all."""

    step: int
    points: int | None
    copies: int  # how often an input or output pixel is repeated


def upper_bound_convolution_norm(
    kernel: Tensor | np.ndarray,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    size: Sequence[int] | None = None,
) -> float:
    r"""Bounds the Euclidean operator norm ‖K‖ of torch's convolutions from above, with any number of spatial axes.

    .. math:: \|K\| \le \sqrt r \max_\omega \|\hat K(\omega)\|

    r is the most copies that padding makes of a pixel. See Note [Every convolution is one on a torus]. The adjoint has
    the same norm: a transposed convolution is bounded by the convolution with the same kernel and its output's `size`.

    Arguments:
        kernel: Shape (c_out, c_in/groups, *k), any real floating type.
        stride, dilation: An integer, or one for each spatial axis.
        padding: An integer, one for each spatial axis, "valid", or "same" for stride 1.
        groups: Number of groups of channels; the norm is the largest of theirs.
        padding_mode: "zeros", "circular", "reflect" or "replicate".
        size: Spatial size of the input; None bounds the norm for every size.

    Returns:
        A float that is at least ‖K‖. Exact up to rounding (about 1e-12) where no two windows share a pixel, and for
        circular padding of half the kernel and a size that the stride divides. Larger sizes (above 64 pixels for each
        axis and tap but the first, in two dimensions) and no size cost the factor of the grid, at most 1.0024. Zero
        padding gives the norm of a slightly larger torus; other padding costs √r.

    Raises:
        InputError: Not a kernel, empty, not finite, or an argument that torch does not accept either.

    Guarantee:
        Holds in real arithmetic for the stored entries, whatever the trigonometric, eigenvalue and Cholesky routines
        return. See Note [Trust only the matrix product].
    """
    check_choice(padding_mode, list(_MODES), "padding_mode")
    shape = tuple(kernel.shape)
    if len(shape) < 3 or 0 in shape:
        raise InputError(f"kernel must have shape (c_out, c_in/groups, *k) and not be empty. Its shape is {shape}.")
    if groups < 1 or shape[0] % groups:
        raise InputError(f"groups must divide the {shape[0]} output channels; {groups} does not.")
    taps = shape[2:]
    strides = list(per_axis(stride, len(taps), "stride", 1))
    dilations = per_axis(dilation, len(taps), "dilation", 1)
    spans = [d * (k - 1) + 1 for k, d in zip(taps, dilations)]
    margins = padding_margins(padding, spans, strides)
    sizes = [None] * len(taps) if size is None else per_axis(size, len(taps), "size", 1)
    for a, n in enumerate(sizes):
        room = math.inf if n is None else n + sum(margins[a]) - spans[a]
        if room < 0:
            raise InputError(f"size with its padding must be at least {spans[a]} on axis {a}, not {n}.")
        if room < strides[a]:  # a single output, so that the stride does not matter and no pixel is seen twice
            strides[a] = dilations[a] * taps[a]

    scaled, exponent = scaled_float64(kernel.reshape(shape[0], -1))
    if exponent is None:
        return 0.0
    blocks = scaled.reshape(groups, shape[0] // groups, *shape[1:])
    geometry = list(zip(strides, dilations, spans, margins, sizes))
    if padding_mode == "zeros" or not any(map(any, margins)):
        ways = [[_zero_padded(*axis) for axis in geometry]]
    else:
        ways = [[_padded(padding_mode, *axis) for axis in geometry]]
        if padding_mode == "circular":
            ways.append([_circular(*axis) for axis in geometry])
    bounds = [product_up(root_up(math.prod(axis.copies for axis in way)), _torus_norm(blocks, way)) for way in ways]
    return rescaled_up(min(bounds), exponent)


def padding_multiplicity(
    padding_mode: str, padding: Sequence[tuple[int, int]], size: Sequence[int] | None = None
) -> int:
    """The most often that padding repeats a pixel: r, for a map of norm at most √r.

    Arguments:
        padding_mode: "zeros", "circular", "reflect" or "replicate".
        padding: (before, after) for each spatial axis; negative numbers crop.
        size: Spatial size of the input; None counts for the worst of all sizes that torch accepts.

    Raises:
        InputError: Unknown mode.
    """
    check_choice(padding_mode, list(_MODES), "padding_mode")
    sizes = [None] * len(padding) if size is None else size
    return math.prod(_copies(padding_mode, before, after, n) for (before, after), n in zip(padding, sizes))


def padding_margins(
    padding: int | Sequence[int] | str, spans: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """(before, after) for each spatial axis, for kernels that span that many pixels. Raises :class:`InputError`."""
    if isinstance(padding, str):
        if check_choice(padding, ["valid", "same"], "padding") == "valid":
            return [(0, 0)] * len(spans)
        if max(strides) > 1:
            raise InputError(f"padding 'same' needs stride 1, not {strides}. Give the padding in numbers.")
        return [((span - 1) // 2, span // 2) for span in spans]
    return [(p, p) for p in per_axis(padding, len(spans), "padding", 0)]


def per_axis(value: int | Sequence[int], axes: int, name: str, least: int) -> tuple[int, ...]:
    """The integer for each axis. Raises :class:`InputError` for other numbers of axes, and less than `least`."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * axes
    if len(values) != axes or not all(isinstance(v, int) and v >= least for v in values):
        raise InputError(f"{name} must be integers of at least {least}, for {axes} spatial axes, not {value!r}.")
    return values


def polyphase(blocks: Tensor, strides: Sequence[int], dilations: Sequence[int]) -> Tensor:
    """Makes the taps' residues mod the stride channels: (groups, rows, columns, *k) → (groups, rows, columns', *T).

    The norms of K̂ are then those of stride 1 and dilation 1: with g = gcd(s, d), the taps m that meet one residue of
    the pixels mod s are those of one residue mod s/g, d/g coarse pixels apart.
    """
    steps = [s // math.gcd(s, d) for s, d in zip(strides, dilations)]
    taps = [-(-k // step) for k, step in zip(blocks.shape[3:], steps)]
    spare = [t * step - k for t, step, k in zip(taps, steps, blocks.shape[3:])]
    whole = F.pad(blocks, [margin for after in reversed(spare) for margin in (0, after)])
    split = whole.reshape(*blocks.shape[:3], *(length for pair in zip(taps, steps) for length in pair))
    residues, quotients = range(4, split.ndim, 2), range(3, split.ndim, 2)
    return split.permute(0, 1, 2, *residues, *quotients).reshape(*blocks.shape[:2], -1, *taps)


def gram_sums(blocks: Tensor) -> Tensor:
    r"""Bounds A_ij = Σ_o |(K ⋆ K)_ij[o]| from above, differentiably, in the dtype of the taps.

    .. math:: |\hat K(\omega) \hat K(\omega)^*|_{ij} \le A_{ij} \text{ for every } \omega, \qquad \|K\|^2 \le \|A\|

    Arguments:
        blocks: Taps of stride 1, shape (groups, rows, columns, *T).

    Returns:
        A, shape (groups, rows, rows).
    """
    groups, rows, columns, first, *others = blocks.shape
    taps = blocks.reshape(groups, rows, columns, first, -1)
    windows = F.pad(blocks, [t - 1 for t in reversed(others) for _ in range(2)])
    for axis, t in enumerate(others, start=4):
        windows = windows.unfold(axis, t, 1)
    offsets = range(4, 4 + len(others))
    windows = windows.permute(0, *offsets, 1, 2, 3, *(len(others) + o for o in offsets))
    windows = windows.reshape(groups, -1, rows, columns, first, taps.shape[4])
    sums = taps.new_zeros(groups, rows, rows)
    for offset in range(first):  # along the first axis; the negative ones are transposes
        shifted = windows[..., offset:, :].flatten(3) @ taps[:, None, :, :, : first - offset].flatten(3).mT
        size = shifted.abs().sum(dim=1)
        sums = sums + (size + size.mT if offset else size)
    absolute = taps.abs().sum(dim=(3, 4))
    eps = torch.finfo(taps.dtype).eps
    rounding = (math.prod(taps.shape[2:]) + 8) * eps * (absolute @ absolute.mT)
    return (sums + rounding) * (1 + (windows.shape[1] + 2 * first + 16) * eps)


def _copies(padding_mode: str, before: int, after: int, size: int | None) -> int:
    cropped = min(before, 0) + min(after, 0)
    before, after = max(before, 0), max(after, 0)
    if padding_mode == "zeros" or before == after == 0:
        return 1
    if size is None:  # the worst size: all copies fall on one pixel
        size = {"replicate": 1, "reflect": before + after + 1, "circular": max(before, after)}[padding_mode]
    pixels = np.arange(max(size + cropped, 1))
    return int(np.bincount(np.pad(pixels, (before, after), mode=_MODES[padding_mode])).max())


def _axis(stride: int, dilation: int, length: int | None, copies: int) -> _Axis:
    """The axis of a convolution of a torus of at least `length` pixels, a multiple of the stride."""
    common = math.gcd(stride, dilation)
    if length is None:
        return _Axis(stride // common, None, copies)
    coarse = -(-length // stride)
    return _Axis(stride // common, coarse // math.gcd(dilation // common, coarse), copies)


def _zero_padded(stride: int, dilation: int, span: int, margin: tuple[int, int], size: int | None) -> _Axis:
    """The pixels beyond one margin, at most a kernel's span, wrap around into the other."""
    length = None if size is None else size + min(max(margin), span - 1)
    return _axis(stride, dilation, length, 1)


def _padded(mode: str, stride: int, dilation: int, span: int, margin: tuple[int, int], size: int | None) -> _Axis:
    """Padding first, as a separate map."""
    length = None if size is None else size + sum(margin)
    return _axis(stride, dilation, length, _copies(mode, *margin, size))


def _circular(stride: int, dilation: int, span: int, margin: tuple[int, int], size: int | None) -> _Axis:
    """The torus of the image itself; the outputs go round it more than once where the padding is wide."""
    if size is None:  # a stride need not divide the size; the smallest that torch accepts goes round most often
        least = max(*margin, span - sum(margin), 1)
        return _axis(1, dilation, None, -(-(least + sum(margin) - span + 1) // least))
    common = math.gcd(stride, size)
    outputs = (size + sum(margin) - span) // stride + 1
    return _axis(common, dilation, size, -(-outputs * common // size))


def _torus_norm(blocks: np.ndarray, way: Sequence[_Axis]) -> float:
    """Bounds the norm on the torus of `blocks`, shape (groups, rows, columns, *k), largest entry in [1/2, 1)."""
    folded = polyphase(torch.from_numpy(blocks), [axis.step for axis in way], [1] * len(way))
    taps, rows = folded.shape[3:], folded.shape[1]
    absolute = max(map(upper_bound_norm, gram_sums(folded)))
    kernels = folded.flatten(3).numpy()  # (groups, rows, columns, taps)

    # An output sees each of its pixels once, and a pixel is seen through every tap at most once.
    flat = max(upper_bound_norm(block.reshape(rows, -1)) for block in kernels)
    if math.prod(taps) == 1:
        return flat
    return min(
        _fourier_bound(kernels, taps, [axis.points for axis in way]),
        math.sqrt(absolute) * (1 + 2.0**-50),
        product_up(root_up(math.prod(taps)), flat),
        max(_sum_up(upper_bound_norm(block[..., t]) for t in range(block.shape[-1])) for block in kernels),
    )


def _fourier_bound(folded: np.ndarray, taps: Sequence[int], points: Sequence[int | None]) -> float:
    """Bounds the largest ‖K̂(ω)‖; `folded` has shape (groups, rows, columns, taps). inf where no guess checks out."""
    groups, rows, columns, total = folded.shape
    if rows > columns:  # conjugate transposes: the sign of ω
        folded, rows, columns = folded.swapaxes(1, 2), columns, rows
    dense = max(2, round(1024 ** (1 / sum(t > 1 for t in taps))))
    grid, margin = [], 1.0
    for t, count in zip(taps, points):
        enough = dense * (t - 1) if t > 1 else 1
        if t == 1 or count is None or count > 2 * enough:
            angle = math.pi * (1 + 2.0**-50) * (t - 1) / (2 * enough)
            margin *= (1 + 2.0**-50) / (1 - angle * angle / 2)  # 1/cos
            count = enough
        grid.append(count)
    phases, phase_error = _phases(taps, grid)
    if phase_error == math.inf:
        return math.inf
    frequencies = torch.from_numpy(np.stack((phases.real, phases.imag)))  # (2, f, taps)
    weights = torch.from_numpy(np.ascontiguousarray(folded.reshape(-1, total).T))  # (taps, groups·rows·columns)

    shift, slack, gram_error = 0.0, 0.0, 0.0
    for part in frequencies.split(max(16, _BATCH // (groups * rows * columns)), dim=1):
        real, imag = (part @ weights).view(2, -1, rows, columns)
        frobenius = float((real.square() + imag.square()).sum(dim=(1, 2)).max()) * (1 + gamma(2 * rows * columns + 4))
        gram_error = max(gram_error, 1.5 * gamma(2 * columns + 2) * frobenius)
        shift, slack = _raise_above(_hermitian_square(real, imag), shift, slack)
    square = shift + slack + gram_error + 4 * rows * rows * columns * SMALLEST_NORMAL
    magnitude = float(np.square(np.abs(folded).sum(axis=3)).sum(axis=(1, 2)).max())
    magnitude = math.sqrt(magnitude * (1 + gamma(2 * total + rows * columns + 8)))
    error = (phase_error + 1.01 * gamma(total + 2)) * magnitude + rows * columns * total * SMALLEST_NORMAL
    return (math.sqrt(square) + error) * margin * (1 + 2.0**-48)


def _phases(taps: Sequence[int], grid: Sequence[int]) -> tuple[np.ndarray, float]:
    """e^{iω·m} at all grid points ω up to the sign, shape (f, taps), and a bound on the entries' errors, or inf."""
    halved = int(np.argmax(grid))  # a real kernel's ‖K̂‖ is even
    phases, error = np.ones((1, 1), dtype=np.complex128), 0.0
    for axis, (t, count) in enumerate(zip(taps, grid)):
        roots, distance = _roots_of_unity(count)
        if axis != halved:
            roots = np.concatenate((roots, roots[1 : (count + 1) // 2].conj()))
        powers = [np.ones_like(roots)]
        for _ in range(t - 1):
            powers.append(powers[-1] * roots)
        product = phases[:, None, :, None] * np.stack(powers, axis=1)[None, :, None, :]
        phases = product.reshape(len(phases) * len(roots), -1)
        error += (t - 1) * distance + t * _COMPLEX_PRODUCT
    # Π(1 + ε_i) − 1 ≤ Σε_i/(1 − Σε_i)
    return phases, error / (1 - error) * (1 + 2.0**-40) if error < 0.005 else math.inf


def _roots_of_unity(count: int) -> tuple[np.ndarray, float]:
    """The roots of z^count = 1, one of each conjugate pair, and a bound on their distances from the true ones, or inf.

    Cosine and sine are guesses. Where |z^N − 1| ≤ η < 1/4, z is within 2η/N of a root; N points further apart than
    that are near all N roots.
    """
    angles = 2 * math.pi / count * np.arange(count // 2 + 1)
    roots = np.cos(angles) + 1j * np.sin(angles)
    power, square, left = np.ones_like(roots), roots, count
    with np.errstate(over="ignore", invalid="ignore"):  # guesses may be anything
        while left:
            power = power * square if left % 2 else power
            square, left = square * square, left // 2
    excess = np.max(np.abs(power.real - 1) + np.abs(power.imag)) * (1 + 2.0**-50) + 4 * gamma(4 * count)
    distance = 2.01 * float(excess) / count
    apart = (-np.diff(roots.real) > 4 * distance).all() and (roots.imag[1 : (count + 1) // 2] > 2 * distance).all()
    return roots, distance if excess < 0.25 and apart else math.inf


def _raise_above(gram: Tensor, shift: float, slack: float) -> tuple[float, float]:
    """Raises both until no eigenvalue of a batch of Hermitian matrices, shape (b, p, p), exceeds shift + slack."""
    pending = gram[_frobenius(gram) > shift]
    if len(pending) == 0:
        return shift, slack
    sizes = _power_iteration(pending)
    suspects = pending[sizes.argmax()][None] if sizes.max() > 0.9 * shift else None
    for raise_by in (8.0, 64.0, 512.0):
        shift = max(shift, _guess(suspects) * (1 + raise_by * gram.shape[1] * UNIT_ROUNDOFF))
        pending = pending[_frobenius(pending) > shift]
        residuals = _residuals(pending, shift)
        checked = residuals < math.inf  # not NaN either
        slack = max([slack, *residuals[checked].tolist()])
        suspects = pending = pending[~checked]
        if len(pending) == 0:
            return shift, slack
    return max(shift, float(_frobenius(pending).max())), slack


def _guess(suspects: Tensor | None) -> float:
    try:
        guess = 0.0 if suspects is None else float(torch.linalg.eigvalsh(suspects).max())
    except torch.linalg.LinAlgError:
        return 0.0
    return guess if math.isfinite(guess) else 0.0


def _hermitian_square(real: Tensor, imag: Tensor) -> Tensor:
    """A Aᴴ by two real products of inner dimension 2n; the imaginary part is B Aᵀ − A Bᵀ for A + iB."""
    straight = torch.cat((real, imag), dim=2)
    turned = torch.cat((imag, -real), dim=2)
    return torch.complex(straight @ straight.mT, turned @ straight.mT)


def _frobenius(matrices: Tensor) -> Tensor:
    """Bounds the Frobenius norms of complex matrices, shape (b, p, p), from above."""
    parts = torch.view_as_real(matrices).flatten(1)
    return (parts.square().sum(dim=1) * (1 + gamma(parts.shape[1] + 8)) + parts.shape[1] * SMALLEST_NORMAL).sqrt()


def _power_iteration(gram: Tensor) -> Tensor:
    """Guesses the largest eigenvalues, shape (b,), to see which matrices matter."""
    start = gram.diagonal(dim1=1, dim2=2).real.argmax(dim=1)
    vector = gram[torch.arange(len(gram), device="cpu"), :, start][..., None]
    for _ in range(8):
        length = vector.abs().square().sum(dim=1, keepdim=True).sqrt()
        vector = gram @ (vector / length.clamp_min(SMALLEST_NORMAL))
    return vector.abs().square().sum(dim=(1, 2)).sqrt().nan_to_num()


def _residuals(gram: Tensor, shift: float) -> Tensor:
    """Bounds ‖(c·I − G) − R Rᴴ‖_F, shape (b,), for a guess R: no eigenvalue of G exceeds c by more. Or inf, or NaN."""
    side = gram.shape[1]
    shifted = shift * torch.eye(side, dtype=gram.dtype, device="cpu") - gram  # one rounding on the diagonal
    factor, failed = torch.linalg.cholesky_ex(shifted)
    residual = _frobenius(shifted - _hermitian_square(factor.real, factor.imag))
    size = torch.view_as_real(factor).square().sum(dim=(1, 2, 3)) * (1 + gamma(2 * side * side + 4))
    diagonal = shifted.diagonal(dim1=1, dim2=2).real.abs().amax(dim=1)
    slack = residual + 1.5 * gamma(2 * side + 2) * size + 2 * UNIT_ROUNDOFF * (diagonal + residual)
    return torch.where(failed == 0, slack * (1 + 2.0**-48) + 4 * side**3 * SMALLEST_NORMAL, math.inf)


def _sum_up(terms: Iterable[float]) -> float:
    total = 0.0
    for term in terms:
        total = math.nextafter(total + term, math.inf)
    return total
