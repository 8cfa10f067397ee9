"""Learning rates that suit what a parameter is, Muon for critics, and an Adam for games."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip.lipschitz.layers import LipschitzLayer
from wgan_lip.utils.checks import InputError

__all__ = ["LEARNING_RATE", "Muon", "OptimisticAdam", "parameter_groups", "rescale_lengths"]

LEARNING_RATE = 0.1
"""c, where none is given."""

NUMBERS, STOCK = 1 / 40, 1 / 100  # rates over c


def parameter_groups(
    module: nn.Module, lr: float = LEARNING_RATE, *, spread: float | None = None
) -> list[dict[str, Any]]:
    r"""The parameters of a critic in groups with suitable learning rates, for any torch optimiser that takes groups.

    .. math:: \frac{c}{\sqrt{\max(m, n)}} \text{ for a weight of norm 1, shape } (m, n), \qquad
              \frac{cs}{40} \text{ for lengths}, \qquad \frac{c}{40} \text{ for pure numbers}, \qquad
              \frac{c}{100} \text{ for all others}

    An optimiser such as Adam moves every entry by about its rate. The entries of a semi-orthogonal weight are about
    :math:`1/\sqrt{\max(m, n)}`, so c is the share of the weight that a step changes, whatever its size: 0.1 by default,
    0.2 when time is short. Biases, and the tips of cones without their own unit, are lengths in the units of the
    samples, whose spread is s. Step sizes, slopes of splines and the parameters of
    :class:`wgan_lip.lipschitz.layers.Cones` are pure numbers. Parameters of torch layers and of baselines, whose
    size no constraint fixes, train at the 1e-3 that is usual for them when c is 0.1.

    Arguments:
        module: The critic; parameters that need no gradient are left out.
        lr: c.
        spread: s; by default the attribute `spread` of the module, which :meth:`wgan_lip.critics.Critic.start_at`
            takes from samples, or else 1.

    Returns:
        Groups with their `lr`. The group of lengths keeps s as `spread`, for :func:`rescale_lengths`; the group of
        whole semi-orthogonal matrices is marked `semi_orthogonal`, for :class:`Muon`.

    Raises:
        InputError: A rate below zero or not finite, or no parameters.

    Example:
        >>> from wgan_lip.critics import ResNetCritic
        >>> critic = ResNetCritic(2, width=16, depth=1)
        >>> [round(group["lr"], 4) for group in parameter_groups(critic, lr=0.1)]
        [0.025, 0.0025, 0.0025, 0.025]
    """
    if not 0 <= lr < math.inf:
        raise InputError(f"lr must be finite and at least 0, not {lr}.")
    spread = getattr(module, "spread", 1.0) if spread is None else spread
    groups: dict[tuple, dict[str, Any]] = {}
    seen: set[int] = set()
    for layer in module.modules():
        shaped = _shaped(layer)
        for name, parameter in layer.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            kind: dict[str, Any] = {"lr": lr * STOCK}
            lengths = getattr(layer, "lengths", None)
            if id(parameter) in shaped and lengths is not None:
                kind = {"lr": lr / math.sqrt(max(len(parameter), parameter[0].numel()))}
                if shaped[id(parameter)] and parameter.ndim == 2:
                    kind["semi_orthogonal"] = True
            elif lengths is not None and name in lengths:
                kind = {"lr": lr * NUMBERS * spread, "spread": spread}
            elif lengths is not None:
                kind = {"lr": lr * NUMBERS}
            groups.setdefault(tuple(kind.items()), {"params": [], **kind})["params"].append(parameter)
    if not groups:
        raise InputError("The module has no parameters to train.")
    return list(groups.values())


@torch.no_grad()
def _shaped(layer: nn.Module) -> dict[int, bool]:
    """Identity of each parameter kept at norm 1 → whether all of it is one semi-orthogonal matrix."""
    if not isinstance(layer, LipschitzLayer):
        return {}
    found: dict[int, bool] = {}
    for constraint in layer.constraints():
        if constraint.of_norm_1:
            part = constraint.part
            whole = part if part._base is None else part._base
            found[id(whole)] = constraint.semi_orthogonal and part.shape == whole.shape
    return found


def rescale_lengths(optimizer: torch.optim.Optimizer, spread: float) -> None:
    """Rescales the rates of lengths, in an optimiser over :func:`parameter_groups`, to samples of another spread."""
    for group in optimizer.param_groups:
        if "spread" in group:
            for rate in ("lr", "initial_lr"):
                if rate in group:
                    group[rate] *= spread / group["spread"]
            group["spread"] = spread


class Muon(torch.optim.Optimizer):
    r"""Orthogonalised momentum for semi-orthogonal matrices, by torch's own Muon, and Adam for all other parameters.

    .. math:: W \mapsto R(W - c\, U V^\top), \qquad U \Sigma V^\top \approx B, \qquad
              B \leftarrow \mu B + (1 - \mu) G

    with R the retraction. U Vᵀ comes from five Newton–Schulz steps, the extra cost of a step; in exchange it has norm 1
    whatever the gradient, and there is little to tune. One object steps, zeroes, saves and loads both parts.

    Arguments:
        params: Groups of :func:`parameter_groups`. Those that are not `semi_orthogonal` go to Adam, at their `lr`.
        lr: The learning rate of groups without one.
        momentum: μ.
        ns_steps: Newton–Schulz steps; fewer make worse directions.
        betas, eps: Settings of Adam.

    Raises:
        InputError: No semi-orthogonal matrices.

    References:
        Muon: an optimizer for hidden layers in neural networks (Jordan et al., 2024)

    Example:
        >>> from wgan_lip.critics import ResNetCritic
        >>> critic = ResNetCritic(2, width=16, depth=1)
        >>> optimizer = Muon(parameter_groups(critic, lr=0.1))
        >>> critic(torch.ones(3, 2)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = LEARNING_RATE * STOCK,
        momentum: float = 0.95,
        ns_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ) -> None:
        # Both step groups of this object, with its state. Torch refuses optimisers without parameters.
        nothing = [torch.zeros(1, 1)]
        self._matrices = torch.optim.Muon(nothing, lr, 0.0, momentum, ns_steps=ns_steps, adjust_lr_fn="match_rms_adamw")
        self._others = torch.optim.Adam(nothing, lr, (betas[0], betas[1]), eps, fused=True)
        super().__init__(params, {})
        if not any("semi_orthogonal" in group for group in self.param_groups):
            raise InputError(
                "Muon needs semi-orthogonal matrices, in groups made by parameter_groups; there are none. Use Adam."
            )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, for Muon if it is marked `semi_orthogonal`, otherwise for Adam."""
        defaults = (self._matrices if "semi_orthogonal" in param_group else self._others).defaults
        super().add_param_group({**defaults, **param_group})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step; returns what `closure` does."""
        loss = _evaluated(closure)
        by_kind: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        for group in self.param_groups:
            by_kind["semi_orthogonal" in group].append(group)
        # Torch multiplies by 0.2 √max(m, n); the rate of the group is c/√max(m, n).
        by_kind[True] = [{**group, "lr": group["lr"] / 0.2} for group in by_kind[True]]
        for optimizer, kind in ((self._matrices, True), (self._others, False)):
            optimizer.param_groups, optimizer.state = by_kind[kind], self.state
            optimizer.step()
        return loss


class OptimisticAdam(torch.optim.Optimizer):
    r"""Adam that takes every step twice and undoes the step before: a guess at the gradient that comes next.

    .. math:: \theta_{t+1} = \theta_t + 2 \delta_t - \delta_{t-1}

    where δ_t is what Adam would add; the first step is Adam's. Where both players follow gradients, they
    circle around a solution; the difference of two steps damps that. It costs no evaluation, one vector of memory, and
    promises nothing for networks. A retraction of the critic follows the whole step.

    Arguments:
        params: Parameters, or groups of them.
        lr, betas, eps, weight_decay, fused: Settings of :class:`torch.optim.Adam`.

    References:
        Training GANs with Optimism (Daskalakis, Ilyas, Syrgkanis, Zeng, 2018), Algorithm 1

    Example:
        >>> x = torch.nn.Parameter(torch.tensor(1.0))
        >>> optimizer = OptimisticAdam([x], lr=0.1)
        >>> x.grad = torch.tensor(1.0)
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.0, 0.9),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        fused: bool = True,
    ) -> None:
        # It steps this object's groups, with its state and without its hooks. Torch refuses to make one of nothing.
        self._adam = torch.optim.Adam(
            [torch.zeros(1)], lr, (betas[0], betas[1]), eps, weight_decay=weight_decay, fused=fused
        )
        super().__init__(params, self._adam.defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step; returns what `closure` does."""
        loss = _evaluated(closure)
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        before = [parameter.clone() for parameter in parameters]
        self._adam.param_groups, self._adam.state = self.param_groups, self.state
        self._adam.step()
        for parameter, start in zip(parameters, before):
            state, delta = self.state[parameter], parameter - start
            if "delta" in state:
                parameter.add_(delta - state["delta"])
            state["delta"] = delta
        return loss


def _evaluated(closure: Callable[[], Any] | None) -> Any:
    """What `closure` returns, with gradients; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
