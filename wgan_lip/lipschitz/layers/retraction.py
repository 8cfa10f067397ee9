"""Keeping weights within their constraints in training: gradients before a step, weights after it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from wgan_lip.lipschitz.layers.base import LipschitzLayer
from wgan_lip.lipschitz.layers.constraints import Constraint
from wgan_lip.utils.devices import full_precision

__all__ = ["Retraction", "constrain_steps"]


class Retraction:
    """Takes the parameters of all layers in `module` back to their constraints; no autograd, no host synchronisation.

    :meth:`project` removes from their gradients what that would undo; see :mod:`wgan_lip.lipschitz.layers.constraints`
    for how each constraint does it. Those of one kind, such as semi-orthogonal weights of one shape, are treated
    together.

    Arguments:
        module: Any module. The constraints of its :class:`LipschitzLayer` submodules are found once, and again after it
            moved between devices or dtypes, or layers or parameters were added or replaced.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._found: _Found | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"module": self.module, "_found": None}  # a copy finds its own

    @torch.no_grad()
    @full_precision()
    def __call__(self) -> None:
        for constraints in self._together():
            type(constraints[0]).retract_together(constraints)

    @torch.no_grad()
    @full_precision()
    def project(self) -> None:
        """Projects the existing gradients, in place; see Note [Projected gradients] of the constraints."""
        for constraints in self._together():
            gradients = [_gradient(constraint.part) for constraint in constraints]
            held = [(one, gradient) for one, gradient in zip(constraints, gradients) if gradient is not None]
            if held:
                type(constraints[0]).project_together(*zip(*held))

    def _together(self) -> list[list[Constraint]]:
        if self._found is None or self._found.outdated():
            self._found = _Found(self.module)
        return self._found.together


class _Found:
    """The constraints of a module as it is now, those that are treated together in one list."""

    def __init__(self, module: nn.Module) -> None:
        self.modules = list(module.modules())
        self.structure = self._structure()
        kinds: defaultdict[Hashable, list[Constraint]] = defaultdict(list)
        for layer in self.modules:
            if isinstance(layer, LipschitzLayer):
                for constraint in layer.constraints():
                    kinds[type(constraint), constraint.kind].append(constraint)
        self.together = list(kinds.values())

    def outdated(self) -> bool:
        """Whether layers or parameters were added, replaced or moved; parts would then be views of old ones."""
        return self._structure() != self.structure

    def _structure(self) -> list[int]:
        """Identities of submodules, parameters and buffers, and the addresses of their entries.

        While this object lives, so do the modules and the tensors that parts are views of: no identity or address of
        theirs can be reused.
        """
        structure: list[int] = []
        for module in self.modules:
            structure += map(id, module._modules.values())
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None:
                    structure += id(tensor), tensor.data_ptr()
        return structure


def _gradient(part: Tensor) -> Tensor | None:
    """The view of a parameter's gradient that corresponds to `part` of the parameter; None without a gradient.

    A gradient whose strides differ from the parameter's is copied to the same layout first.
    """
    parameter = part if part._base is None else part._base
    gradient = parameter.grad
    if gradient is None:
        return None
    if gradient.stride() != parameter.stride():
        shape, stride = parameter.shape, parameter.stride()
        laid_out = torch.empty_strided(shape, stride, dtype=gradient.dtype, device=gradient.device)
        gradient = laid_out.copy_(gradient)
        parameter.grad = gradient
    start = gradient.storage_offset() + part.storage_offset() - parameter.storage_offset()
    return gradient if part is parameter else gradient.as_strided(part.shape, part.stride(), start)


_CONSTRAINED: WeakKeyDictionary[torch.optim.Optimizer, list[nn.Module]] = WeakKeyDictionary()


def constrain_steps(optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
    """Registers the :class:`Retraction` of `module` on `optimizer`: every step projects gradients, and then retracts.

    Works with any torch optimiser and any training loop, which cannot forget it. To clip gradients before the step,
    call :meth:`Retraction.project` first: otherwise a long component that moves nothing counts in the norm. A step with
    a closure retracts before each evaluation of it, and projects after. Registering twice has no further effect.

    Example:
        >>> from wgan_lip.lipschitz.layers import GradientFlow
        >>> layer = GradientFlow(4, 2)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=100.0)
        >>> constrain_steps(optimizer, layer)
        >>> layer(torch.ones(3, 4)).sum().backward()
        >>> optimizer.step()
        >>> layer.claim().lipschitz
        1.0
    """
    registered = _CONSTRAINED.setdefault(optimizer, [])
    if any(known is module for known in registered):
        return
    registered.append(module)
    retraction = Retraction(module)

    def before(_: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple | None:
        itself, *given = args
        closure = given[0] if given else kwargs.get("closure")
        if closure is None:
            retraction.project()
            return None
        constrained = _constrained(closure, retraction)
        return ((itself, constrained, *given[1:]), kwargs) if given else (args, {**kwargs, "closure": constrained})

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(lambda *_: retraction())


def _constrained(closure: Callable[[], Any], retraction: Retraction) -> Callable[[], Any]:
    """The closure, evaluated at retracted weights, with projected gradients."""

    def evaluate() -> Any:
        retraction()
        loss = closure()
        retraction.project()
        return loss

    return evaluate
