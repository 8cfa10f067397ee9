"""Maps that move coordinates about, and layers side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wgan_lip.bounds import Norm
from wgan_lip.checks import InputError
from wgan_lip.layers.base import Claim, LipschitzLayer, Rounding

__all__ = ["Flatten", "Identity", "Parallel", "Squeeze"]


class Identity(LipschitzLayer):
    """x ↦ x on a state of the given norm."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return x

    def claim(self) -> Claim:
        return Claim(1.0, "identity", self.norm, self.norm)

    def extra_repr(self) -> str:
        return str(self.norm)


class Parallel(LipschitzLayer):
    r"""Layers side by side, each on its own blocks of the state; the constant is the largest of theirs.

    .. math:: (x_1, \ldots, x_k) \mapsto (\varphi_1(x_1), \ldots, \varphi_k(x_k))

    Guarantee:
        Constant max_i Lip(φ_i) in the block-max norm that joins the blocks of all parts. Not valid in the Euclidean
        norm of the whole state unless every part is Euclidean; it is not claimed there.
    """

    def __init__(self, *layers: LipschitzLayer) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.widths = [_concrete(layer.claim().norm_in, layer).dim for layer in layers]

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.layers, x.split(self.widths, dim=-1))
        return torch.cat([layer(part) for layer, part in parts], dim=-1)

    def __repr__(self) -> str:
        return f"Parallel({', '.join(map(repr, self.layers))})"

    def claim(self) -> Claim:
        claims = [layer.claim() for layer in self.layers]
        worst = max(claims, key=lambda claim: claim.lipschitz)
        norm_in = Norm(sum((_concrete(c.norm_in, self).blocks for c in claims), ()))
        norm_out = Norm(sum((_concrete(c.norm_out, self).blocks for c in claims), ()))
        rounding = Rounding(
            operations=max(c.rounding.operations for c in claims),
            gain=sum(c.rounding.gain for c in claims),
            offset=sum(c.rounding.offset for c in claims),
        )
        return Claim(worst.lipschitz, f"largest of {len(claims)} parts: {worst.method}", norm_in, norm_out, rounding)


class Flatten(LipschitzLayer):
    """Takes samples of any shape (b, …) with `dim` entries each to rows (b, dim); an isometry.

    Raises:
        InputError: The entries of a sample are not `dim` in number.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1) if x.ndim > 1 else x
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise InputError(
                f"Expected samples of shape (b, {self.dim}), or of {self.dim} entries each. Got {tuple(x.shape)}. "
                "Check that the critic was built for this data's dimension."
            )
        return rows

    def claim(self) -> Claim:
        return Claim(1.0, "isometry", Norm.euclidean(self.dim), Norm.euclidean(self.dim))

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Squeeze(LipschitzLayer):
    """Takes a column (b, 1) to the values of a potential (b,)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze(-1)

    def claim(self) -> Claim:
        return Claim(1.0, "isometry", Norm((1,)), Norm((1,)))


def _concrete(norm: Norm | None, layer: nn.Module) -> Norm:
    if norm is None:
        raise InputError(f"Expected a layer that states its norm. Got {layer} inside Parallel.")
    return norm
