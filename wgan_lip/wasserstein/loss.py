r"""W1 as a loss: a number with gradients in the samples and in their weights, from an optimal plan."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.autograd.function import FunctionCtx

from wgan_lip.transport import Problem, plan_problem, solve_problem
from wgan_lip.utils.checks import InputError, check_pair, check_weights

__all__ = ["w1"]


def w1(x: Tensor, y: Tensor, a: Tensor | ArrayLike | None = None, b: Tensor | ArrayLike | None = None) -> Tensor:
    r"""W1 between two weighted sample sets, exact and differentiable: a loss in one line.

    .. math:: W_1(x, y) = \min_\pi \sum_{ij} \pi_{ij} \|x_i - y_j\|, \qquad
        \frac{\partial W_1}{\partial x_i} = \sum_j \pi_{ij} \frac{x_i - y_j}{\|x_i - y_j\|}, \qquad
        \frac{\partial W_1}{\partial a_i} = \frac{f(x_i) - E_P f}{\sum_k a_k}

    with an optimal plan :math:`\pi`, 0 for the direction between points that coincide, and a Kantorovich potential f;
    for y and b the same with -f. Weights are divided by their total, so their gradient is that of the quotient: it has
    no component along the weights, and a step along it keeps the total to first order.

    Arguments:
        x: Samples of P, floating point, shape (n, d), or (n,) for n numbers; or a batch of k such sets, (k, n, d).
        y: Samples of Q on the same device, shape (m, d), (m,) or (k, m, d).
        a: Non-negative weights of x, of any positive total, shape (n,); in a batch also (k, n). Uniform by default.
        b: Non-negative weights of y, shape (m,) or (k, m), as for x.

    Returns:
        A scalar, in a batch shape (k,), of the wider dtype of x and y, on their device. Plans are found in float64 on
        the CPU, and only they are kept for the gradients.

    Raises:
        InputError: No floating-point tensors, shapes that don't fit, unusable samples or weights (in a batch the pair
            is named); less memory than the solver needs.
        RuntimeError: Second derivatives are asked for.

    Guarantee:
        None is computed: the value is the cost of a plan, so up to rounding it is never below W1, and as exact as the
        solver. :func:`wgan_lip.transport.solve` encloses W1 between proved bounds, as does
        :func:`wgan_lip.estimate_w1` if n m is too large for either. If several plans are optimal, W1 has a kink, and
        the gradient is that of one of them: a subgradient in the weights.

    References:
        Optimal Transport, Old and New (Villani, 2009), Theorem 5.10; Computational Optimal Transport (Peyré and Cuturi,
        2019), section 9.1

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
        >>> loss = w1(x, torch.tensor([[0.0, 2.0], [1.0, 2.0]]))
        >>> loss.backward()
        >>> loss.item(), x.grad.tolist()
        (2.0, [[0.0, -0.5], [0.0, -0.5]])
    """
    for name, samples in (("x", x), ("y", y)):
        if not isinstance(samples, Tensor) or not samples.is_floating_point():
            got = f"dtype {samples.dtype}" if isinstance(samples, Tensor) else f"a {type(samples).__name__}"
            raise InputError(f"{name} must be a floating-point tensor, for gradients, not {got}.")
        if samples.ndim not in (1, 2, 3):
            raise InputError(f"{name} must have shape (n, d), or (k, n, d) for k pairs, not {tuple(samples.shape)}.")
    if x.ndim != y.ndim or (x.ndim == 3 and len(x) != len(y)):
        raise InputError(f"x and y must hold equally many sets, not shapes {tuple(x.shape)} and {tuple(y.shape)}.")
    if x.device != y.device:
        raise InputError(f"x and y must be on one device, not {x.device} and {y.device}.")
    of_x, of_y = (samples[:, None] if samples.ndim == 1 else samples for samples in (x, y))
    if x.ndim < 3:
        of_x, of_y = of_x[None], of_y[None]
    (sets, n), m = of_x.shape[:2], of_y.shape[1]
    values = _W1.apply(of_x, of_y, _weights(a, sets, n, "a"), _weights(b, sets, m, "b"))
    return values if x.ndim == 3 else values[0]


def _weights(weights: Tensor | ArrayLike | None, k: int, n: int, name: str) -> Tensor | None:
    """One row of weights for each pair, shape (k, n); their values are checked with the pairs."""
    if weights is None:
        return None
    weights = torch.as_tensor(weights)
    if weights.shape not in {(n,), (k, n)}:
        raise InputError(f"{name} must have shape ({n},), or ({k}, {n}) in a batch, not {tuple(weights.shape)}.")
    return weights.expand(k, n)


class _W1(torch.autograd.Function):
    """x (k, n, d), y (k, m, d), weights (k, n) and (k, m) or None, to the k values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None) -> Tensor:
        edges, duals, values = [], [], []
        batch = len(x) > 1
        for k in range(len(x)):
            number = f"[{k}]" if batch else ""
            x_k, y_k = _checked(x[k], y[k], number)
            a_k, b_k = (
                None if of_set is None else check_weights(of_set[k], of_set.shape[1], name + number)
                for of_set, name in ((a, "a"), (b, "b"))
            )
            problem = Problem.of_checked(x_k, y_k, a_k, b_k)
            if any(ctx.needs_input_grad[2:]):
                transport = solve_problem(problem)
                plan = transport.plan
                duals.append([transport.potential(points.detach().cpu().double()) for points in (x_k, y_k)])
            else:
                plan = plan_problem(problem)
            rows, columns, mass = (torch.from_numpy(part).to(x.device) for part in (plan.rows, plan.columns, plan.mass))
            edges.append((rows + k * x.shape[1], columns + k * y.shape[1], mass))
            values.append(torch.dot(mass, _ways(x_k, y_k, rows, columns).norm(dim=1)))
        ctx.edges, ctx.duals = edges, duals
        ctx.save_for_backward(x, y, a, b)
        return torch.stack(values).to(torch.promote_types(x.dtype, y.dtype)) if values else x.new_empty(0)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            gradients = _gradients(ctx, slope.double())
        if torch.is_grad_enabled():
            return _FirstDerivatives.apply(*ctx.saved_tensors, *gradients)
        return gradients


def _gradients(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
    x, y, a, b = ctx.saved_tensors
    of_x, of_y = (
        torch.zeros(points.shape, dtype=torch.float64, device=points.device).flatten(0, 1) if needed else None
        for points, needed in zip((x, y), ctx.needs_input_grad)
    )
    for k, (rows, columns, mass) in enumerate(ctx.edges) if any(ctx.needs_input_grad[:2]) else ():
        ways = _ways(x.flatten(0, 1), y.flatten(0, 1), rows, columns)
        lengths = ways.norm(dim=1)
        ways *= torch.where(lengths > 0, slope[k] * mass / lengths, 0.0)[:, None]
        if of_x is not None:
            of_x.index_add_(0, rows, ways)
        if of_y is not None:
            of_y.index_add_(0, columns, ways, alpha=-1)
    gradients: list[Tensor | None] = [
        None if gradient is None else gradient.view_as(points).to(points.dtype)
        for gradient, points in ((of_x, x), (of_y, y))
    ]
    for side, (weights, sign) in enumerate(((a, 1), (b, -1))):
        if weights is None or not ctx.needs_input_grad[2 + side]:
            gradients.append(None)
            continue
        f = sign * torch.stack([values[side] for values in ctx.duals]).to(weights.device)
        masses = weights.double()
        total = masses.sum(1, keepdim=True)
        excess = f - (masses * f).sum(1, keepdim=True) / total
        gradients.append((slope[:, None].to(weights.device) * excess / total).to(weights.dtype))
    return tuple(gradients)


class _FirstDerivatives(torch.autograd.Function):
    """Passes gradients through; differentiating them raises an error."""

    @staticmethod
    def forward(ctx: FunctionCtx, *inputs: Tensor | None) -> tuple[Tensor | None, ...]:
        return inputs[4:]

    @staticmethod
    def backward(ctx: FunctionCtx, *slopes: Tensor) -> Any:
        raise RuntimeError(
            "wgan_lip.w1 has first derivatives only: its gradient can't be differentiated again, for a gradient "
            "penalty or a Hessian. Take the gradient without create_graph=True, or detach it."
        )


def _checked(x: Tensor, y: Tensor, number: str) -> tuple[Tensor, Tensor]:
    try:
        return check_pair(x, y)
    except InputError as error:
        raise InputError(f"In pair {number}: {error}" if number else str(error)) from None


def _ways(x: Tensor, y: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """x_i - y_j in float64 along edges, shape (e, d)."""
    return x.index_select(0, rows).double().sub_(y.index_select(0, columns))
