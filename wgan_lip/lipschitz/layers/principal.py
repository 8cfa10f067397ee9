"""Principal coordinates, and the energy of what they leave out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wgan_lip.lipschitz.bounds import Norm, product_up, root_up, upper_bound_norm, upper_bound_vector_norm
from wgan_lip.lipschitz.layers.base import Claim, LipschitzLayer, Rounding, Solver, Summary
from wgan_lip.lipschitz.layers.constraints import Constraint, SemiOrthogonal
from wgan_lip.lipschitz.layers.retraction import Retraction
from wgan_lip.utils.checks import InputError

__all__ = ["PrincipalEnergies", "block_groups"]

SOFTENING = 1e-12  # over the square of the largest coordinate: energies have a gradient where nothing is left out
STARTED_FROM = 8192  # samples, at most, whose principal axes are computed


class PrincipalEnergies(LipschitzLayer):
    r"""The first principal coordinates, and the energy of all the rest in each group of coordinates.

    .. math:: x \mapsto (u, e), \qquad u = W (x - \mu), \qquad r = (x - \mu) - W^\top u, \qquad
              e_B = \Bigl( \sum_i s_{Bi} r_i^2 + \varepsilon \Bigr)^{1/2}

    W has orthonormal rows, u and r are what they capture of x and what they leave out, and s shares each coordinate of
    r among the groups, :math:`\sum_B s_{Bi} \le 1`. It maps d numbers to a few, and still sees a change of x in any
    direction, where a projection alone is blind to most. Energies lose what moves *within* a group: signs and places.

    W, μ, s and ε do not train by default: they are set by :meth:`start_at`, and layers behind this one can be trained
    on states computed once.

    Note [Common subspaces]
        Where P is Q moved towards an affine subspace c + V, so that the laws agree along V and not across it,
        −dist(x, c + V) is a potential. With one group e is that distance, if the rows of W span V and μ is in c + V:
        W and μ that train find both. The dimension of V need not be known. A spare row w takes E (wᵀr)² from the mean
        square of e, so the spare ones turn to the directions across V with the least variance, where they cost least.

    Arguments:
        dim: Dimension d of the samples, shape (b, d).
        axes: Number k of principal coordinates, at most d.
        groups: The group of each coordinate, d integers from 0 to B − 1, as :func:`block_groups` gives them for images;
            or shares s, shape (B, d), not negative. By default all coordinates form one group.
        trained: Whether W, kept semi-orthogonal, and μ train.

    Raises:
        InputError: Sizes that do not fit; shares below zero or not finite.

    Guarantee:
        With ‖W‖ ≤ β verified and c the largest column sum of s, rounded up, the squared constant is
        max(c, β² + c(1 − β²)²), which is 1 for β ≤ 1 and c ≤ 1: it is the largest eigenvalue of
        S + c(I − S)², S = WᵀW, whose value is convex in that of S in [0, β²].

    References:
        Emergence of phase- and shift-invariant features by decomposition of natural images into independent feature
        subspaces (Hyvärinen, Hoyer, 2000), whose features are norms of projections
    """

    summary = Summary("(W(x − μ), √(s r² + ε)), r the rest of x − μ", constant="1 for ‖W‖ ≤ 1 and shares s of sum 1")
    lengths = ("mean",)
    shares: Tensor
    softening: Tensor

    def __init__(
        self, dim: int, axes: int, groups: Sequence[int] | Tensor | None = None, *, trained: bool = False
    ) -> None:
        super().__init__()
        if not 1 <= axes <= dim:
            raise InputError(f"axes must be from 1 to {dim}, the dimension of the samples, not {axes}.")
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(axes, dim)), requires_grad=trained)
        self.mean = nn.Parameter(torch.zeros(dim), requires_grad=trained)
        self.register_buffer("shares", _shares(dim, groups))
        self.register_buffer("softening", torch.tensor(SOFTENING))
        Retraction(self)()

    @property
    def width(self) -> int:
        """Coordinates of its output, k + B."""
        return len(self.weight) + len(self.shares)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - self.mean
        seen = F.linear(centred, self.weight)  # (b, k)
        rest = torch.addmm(centred, seen, self.weight, alpha=-1)  # (b, d)
        energies = (F.linear(rest.square(), self.shares) + self.softening).sqrt()  # (b, B)
        return torch.cat((seen, energies), dim=1)

    def claim(self) -> Claim:
        axes, dim = self.weight.shape
        bound, shared = upper_bound_norm(self.weight), self._largest_share()
        softening = float(self.softening)
        if not 0 <= softening < math.inf or bool((self.shares < 0).any()):
            raise InputError(
                f"Shares and softening must be finite and at least 0, not {self.shares.min():.6g} and "
                f"{softening:.6g}. Reload the last good checkpoint."
            )
        squared = product_up(bound, bound)
        apart = product_up(shared, max(1 - squared, squared - 1) ** 2 * (1 + 2.0**-50))
        largest = max(shared, math.nextafter(squared + apart, math.inf) if bound > 1 else max(1.0, shared))
        size = upper_bound_vector_norm(self.weight)
        gain = 1.1 * (1 + size) ** 2 * max(1.0, shared)
        offset = gain * (upper_bound_vector_norm(self.mean) + math.sqrt(len(self.shares) * softening)) + 1e-130
        rounding = Rounding(operations=2 * dim + axes + 16, gain=gain, offset=offset)
        method = f"|W| <= {bound:.9g} by verified Cholesky, and what W leaves out shared by at most {shared:.9g}"
        return Claim(root_up(largest), method, Norm.euclidean(dim), Norm.euclidean(self.width), rounding)

    def constraints(self) -> Iterator[Constraint]:
        yield SemiOrthogonal(self.weight)

    @torch.no_grad()
    def start_at(self, x: Tensor, y: Tensor, *, solver: Solver | None = None, keep_distances: bool = False) -> None:
        """Sets μ to the middle of all states, and W to the axes of the largest second moments about it.

        Computed from at most 8,192 states, drawn by torch's generator. Axes beyond the rank of the states stay
        orthonormal to the others.

        Arguments:
            x: States of P, shape (n, d).
            y: States of Q, shape (m, d).
            solver: Ignored.
            keep_distances: Ignored.
        """
        states = torch.cat([side[torch.randperm(len(side))[: STARTED_FROM // 2].to(side.device)] for side in (x, y)])
        self.mean.copy_(states.mean(dim=0))
        centred = states - self.mean
        size = float(centred.abs().amax()) or 1.0
        self.softening.fill_(min(SOFTENING * size**2, torch.finfo(self.softening.dtype).max))
        axes, dim = self.weight.shape
        if dim <= 2 * axes + 16:  # all axes cost no more than some
            found = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, :axes]
        else:
            found = torch.svd_lowrank(centred, q=min(*centred.shape, axes + 16), niter=2)[2][:, :axes]
        missing = torch.randn(dim, axes - found.shape[1], dtype=found.dtype, device=found.device)
        self.weight.copy_(torch.linalg.qr(torch.cat((found, missing), dim=1).double()).Q.T)
        Retraction(self)()

    @classmethod
    def examples(cls) -> Iterator[tuple[LipschitzLayer, tuple[int, ...]]]:
        yield cls(6, 2, [0, 0, 1, 1, 2, 2], trained=True), (6,)
        yield cls(5, 5, trained=True), (5,)
        yield cls(4, 1, torch.tensor([[0.5, 0.5, 0.0, 0.25], [0.5, 0.25, 1.0, 0.75]]), trained=True), (4,)

    def extra_repr(self) -> str:
        axes, dim = self.weight.shape
        return f"dim={dim}, axes={axes}, groups={len(self.shares)}"

    def _largest_share(self) -> float:
        """The largest column sum of s, rounded up; exact for multiples of 2⁻⁴⁰, such as the shares of a partition."""
        shares = self.shares.detach().cpu().double()
        if not bool(shares.isfinite().all()):
            raise InputError("Shares must be finite, not NaN or infinity. Reload the last good checkpoint.")
        whole = shares * 2.0**40
        if bool((whole == whole.round()).all()) and float(whole.sum(dim=0).max()) < 2.0**52:
            return float(whole.sum(dim=0).max()) / 2.0**40
        return max(math.nextafter(math.fsum(column), math.inf) for column in shares.T.tolist())


def block_groups(image_shape: Sequence[int], size: int, *, shift: int = 0) -> Tensor:
    """The block of each coordinate of an image, all channels together, for :class:`PrincipalEnergies`.

    Arguments:
        image_shape: (c, h, w).
        size: Height and width of the blocks in pixels; those at the edges may be smaller.
        shift: Pixels by which all blocks are moved up and to the left.

    Returns:
        Integers from 0 on, shape (c·h·w,).

    Example:
        >>> block_groups((1, 2, 4), 2).tolist()
        [0, 0, 1, 1, 0, 0, 1, 1]
    """
    if len(image_shape) != 3 or min(*image_shape, size) < 1 or not 0 <= shift < size:
        raise InputError(
            f"block_groups needs an image_shape (c, h, w), a size of at least 1 and a shift from 0 to size − 1, not "
            f"{tuple(image_shape)}, {size} and {shift}."
        )
    channels, *sides = image_shape
    rows, columns = ((torch.arange(side) + shift) // size for side in sides)
    blocks = rows[:, None] * (int(columns[-1]) + 1) + columns
    return blocks.unique(return_inverse=True)[1].expand(channels, -1, -1).flatten()


def _shares(dim: int, groups: Sequence[int] | Tensor | None) -> Tensor:
    """s, shape (B, d), from what the constructor takes."""
    given = torch.zeros(dim, dtype=torch.long) if groups is None else torch.as_tensor(groups)
    if given.ndim == 2:
        if given.shape[1] != dim or not len(given) or not bool((given >= 0).all() & given.isfinite().all()):
            raise InputError(
                f"Shares must have shape (groups, {dim}) and be finite and not negative. These have shape "
                f"{tuple(given.shape)}, and the least is {float(given.min()) if given.numel() else 'missing'}."
            )
        return given.float()
    if tuple(given.shape) != (dim,) or given.is_floating_point() or int(given.min()) < 0:
        raise InputError(
            f"groups must be {dim} integers of at least 0, one for each coordinate, not {given.dtype} of shape "
            f"{tuple(given.shape)}."
        )
    return F.one_hot(given).T.float()
