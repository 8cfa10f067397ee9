"""Plans from any source, and couplings made from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from wgan_lip.transport.plans import Plan
from wgan_lip.transport.problem import Problem
from wgan_lip.transport.starts import first_bounds
from wgan_lip.utils.checks import InputError, as_tensor

__all__ = ["as_plan", "repaired"]


def as_plan(plan: Any, shape: tuple[int, int]) -> Plan:
    """A plan from a matrix (n, m), dense or sparse, from any library that NumPy reads. Raises :class:`InputError`."""
    found = tuple(plan.shape) if hasattr(plan, "shape") else np.shape(plan)
    if found != shape:
        raise InputError(f"The plan has shape {found}, but there are {shape[0]} samples x and {shape[1]} samples y.")
    if isinstance(plan, Plan):
        rows, columns, mass = plan.rows, plan.columns, plan.mass
    elif isinstance(plan, Tensor) and plan.is_sparse:
        edges = plan.detach().cpu().coalesce()
        rows, columns = edges.indices().numpy()
        mass = edges.values().double().numpy()
    elif hasattr(plan, "tocoo"):  # of SciPy
        edges = plan.tocoo()
        rows, columns, mass = edges.row, edges.col, np.asarray(edges.data, np.float64)
    else:
        matrix = as_tensor(plan, "plan").detach().cpu().double().numpy()
        rows, columns = np.nonzero(matrix)
        mass = matrix[rows, columns]
    if (unusable := np.flatnonzero(~(np.isfinite(mass) & (mass >= 0)))).size:
        at = unusable[0]
        raise InputError(
            f"A plan can't move {mass[at]} of mass, from x[{rows[at]}] to y[{columns[at]}]. If that is the rounding of "
            "a solver, give np.maximum(plan, 0)."
        )
    if not mass.any():
        raise InputError("The plan moves no mass at all. Check that the solver has converged.")
    return Plan(np.asarray(rows), np.asarray(columns), mass, shape)


def repaired(x: Tensor, y: Tensor, plan: Plan, a: np.ndarray, b: np.ndarray) -> Plan:
    """A plan of total mass 1 whose marginals are right up to rounding, close to one whose marginals may be wrong.

    Mass in excess of a point's own is taken off in proportion, first at x and then at y. What is missing on both sides
    then travels in order along an axis, the best of a few.

    Arguments:
        x: Samples (n, d), checked, float64.
        y: Samples (m, d).
        plan: A plan with any marginals.
        a: Masses of x, shape (n,), of total 1.
        b: Masses of y, shape (m,), of total 1.

    References:
        Near-linear time approximation algorithms for optimal transport via Sinkhorn iteration (Altschuler, Weed,
        Rigollet, 2017), Algorithm 2, where the missing mass travels as a product measure
    """
    mass = plan.mass / plan.mass.sum()
    for index, wanted in ((plan.rows, a), (plan.columns, b)):
        found = np.bincount(index, mass, len(wanted))
        share = np.divide(np.minimum(found, wanted), found, out=np.zeros_like(found), where=found > 0)
        mass = mass * share[index]
    lacks = [
        np.maximum(wanted - np.bincount(index, mass, len(wanted)), 0.0)
        for index, wanted in ((plan.rows, a), (plan.columns, b))
    ]
    kept = mass > 0
    parts = [(plan.rows[kept], plan.columns[kept], mass[kept])]
    if all(lack.any() for lack in lacks):
        rest = first_bounds(Problem.of_checked(x, y, *lacks)).plan
        parts.append((rest.rows, rest.columns, rest.mass * lacks[0].sum()))
    rows, columns, mass = map(np.concatenate, zip(*parts))
    return Plan(rows, columns, mass, plan.shape)
