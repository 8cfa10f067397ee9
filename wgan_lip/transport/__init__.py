r"""Exact optimal transport by POT: verified plans and potentials.

The solver is never trusted. It returns a plan, whose cost bounds :math:`W_1` from above, and dual values, which define
a 1-Lipschitz potential whose Kantorovich-Rubinstein value bounds :math:`W_1` from below. Both bounds are recomputed
here from the samples; a wrong answer from the solver widens the interval, but never makes it wrong.
"""

from wgan_lip.transport.costs import TransportCost, transport_cost
from wgan_lip.transport.exact import BYTES_PER_PAIR, plan_problem, solve, solve_problem
from wgan_lip.transport.narrowing import Narrowed, check_room, narrow, narrow_problem, solves_at_once
from wgan_lip.transport.plans import Plan, lower_bound_kr, upper_bound_plan_cost
from wgan_lip.transport.potentials import Potential
from wgan_lip.transport.problem import Problem, Transport, TransportError, meet
from wgan_lip.transport.sharing import Crew

__all__ = [
    "BYTES_PER_PAIR",
    "Crew",
    "Narrowed",
    "Plan",
    "Potential",
    "Problem",
    "Transport",
    "TransportCost",
    "TransportError",
    "check_room",
    "lower_bound_kr",
    "meet",
    "narrow",
    "narrow_problem",
    "plan_problem",
    "solve",
    "solve_problem",
    "solves_at_once",
    "transport_cost",
    "upper_bound_plan_cost",
]
