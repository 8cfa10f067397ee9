"""The result of an estimate of W1, and how it prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip.critics.compiled import compile_cones
from wgan_lip.lipschitz.certificates import Certificate, Proof, certify
from wgan_lip.metrics.excess import Halves
from wgan_lip.transport import Plan, Potential
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.numbers import interval_text, percent, rounded, rounded_down
from wgan_lip.utils.printing import Bar, Printed, Row, number_line
from wgan_lip.wasserstein.interval import samples_text, width_text
from wgan_lip.wasserstein.population import PopulationBounds

__all__ = ["Progress", "W1Estimate"]

ENDED = {
    "optimal": "",
    "tolerance": "; narrow enough by tolerance=",
    "time": "; more seconds= narrow it",
    "interrupted": "; interrupted",
}
"""Why an estimate stopped → what is said of its interval."""


@dataclass(frozen=True)
class Progress:
    """The progress of an estimate.

    Attributes:
        seconds: Time since it began.
        stage: The last stage, in words.
        lower: The best lower bound so far.
        upper: The best upper bound so far.
        critic: The critic's dual value on the samples that choose it, an estimate; None if there is none yet.
    """

    seconds: float
    stage: str
    lower: float
    upper: float
    critic: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class W1Estimate(Printed):
    """W1 between two sample sets, enclosed; and, if samples could be held out, W1 between their laws.

    Attributes:
        lower: At most W1 of the samples (of the weighted empirical measures P_n and Q_m), with proof.
        upper: At least that W1, with proof.
        exact: W1 of the samples if the problem was solved to optimality and `lower` and `upper` agree to a relative
            1e-9. None otherwise: if some points are very far away, rounding keeps the two apart.
        value: The best single number in [lower, upper]: `exact`, or the middle.
        halves: W1 between and within halves of the two sample sets: the floor, the part that sampling alone explains,
            and the excess over it. None with weights, for fewer than 4 samples, or if no time was left.
        pvalue: p-value of equal laws, by a permutation test of energy distance and sliced W1; None in the same cases,
            and if `laws` was not set.
        population: Confidence bounds on W1 of the laws from held-out samples. None if no critic was trained, after an
            interruption, or if nothing could be held out or the critic is constant, as `notes` then say.
        critic: The trained critic, an `nn.Module`; None if there is none.
        proof: Proof of its Lipschitz constant.
        dual: The potential of `lower`: a minimum of cones, 1-Lipschitz by definition. Its dual value is `lower`, unless
            the critic's is better.
        plan: The coupling of `upper`.
        x: The samples of P that the interval is about, shape (n, d), on the CPU: those given, or drawn from a law.
        y: The samples of Q, shape (m, d).
        seconds: Time taken.
        seed: Seed of every draw.
        stopped: optimal, tolerance, time or interrupted.
        level: Confidence of the statements about the laws.
        history: How the interval narrowed.
        notes: What the reader should know, in sentences.

    All distances are in the units of the samples. Only the excess may be negative.
    """

    lower: float
    upper: float
    exact: float | None
    value: float
    halves: Halves | None
    pvalue: float | None
    population: PopulationBounds | None
    critic: nn.Module | None
    proof: Proof | None
    dual: Potential
    plan: Plan
    x: Tensor
    y: Tensor
    seconds: float
    seed: int
    stopped: str
    level: float
    history: tuple[Progress, ...]
    notes: tuple[str, ...]

    @property
    def n(self) -> int:
        """Number of samples of P."""
        return len(self.x)

    @property
    def m(self) -> int:
        """Number of samples of Q."""
        return len(self.y)

    @property
    def dim(self) -> int:
        """Dimension of the samples."""
        return self.x.shape[1]

    @cached_property
    def potential(self) -> nn.Module:
        """A certified critic, (k, d) tensor → (k,): the trained one, or else `dual`, in float64.

        It is built from `dual` on first use; memory stays bounded without gradients. On the line, at many points,
        `dual` itself is faster.
        """
        return compile_cones(self.dual) if self.critic is None else self.critic

    @cached_property
    def certificate(self) -> Certificate:
        """Proof of the Lipschitz constant of `potential`; for `dual`, that it is a minimum of cones."""
        return certify(self.potential) if self.proof is None else self.proof.certificate

    @property
    def excess(self) -> float | None:
        """How far apart the samples are beyond what sampling alone explains; signed. See `halves`."""
        return None if self.halves is None else self.halves.excess

    @property
    def floor(self) -> float | None:
        """Mean W1 between two halves of one sample set: the part that sampling alone explains. See `halves`."""
        return None if self.halves is None else self.halves.floor

    def headline(self) -> str:
        return samples_text(self.n, self.m, self.dim)

    def __repr__(self) -> str:
        known = self._interval_rows()[0].figure
        return f"<{type(self).__name__}: {', '.join([self.headline(), known, *self._laws()])}>"

    def summary_rows(self) -> list[Row]:
        rows = [Row("The laws", "; ".join(self._laws()))] if self._laws() else []
        rows += self._interval_rows()
        if self.halves is not None:
            n = f"{self.halves.n:,}"
            rows += [
                Row("  floor", rounded(self.halves.floor, 4), f"W1 of two halves of one set, {n} samples each"),
                Row("  excess over floor", self.halves.text(), "W1 of a half of x and one of y, less the floor"),
            ]
        if self.population is not None:
            rows += self.population.summary_rows()[:-1]
        if self.proof is not None:
            rows.append(self.proof.certificate.bound_row("Certified critic"))
        rows += [Row("Note", note) for note in self.notes]
        if self.stopped == "interrupted" and self.population is None:
            rows.append(Row("Note", "It was interrupted: later stages are missing."))
        assumed = self._assumptions()
        return [*rows, Row("Assuming", " ".join(assumed))] if assumed else rows

    def _interval_rows(self) -> list[Row]:
        interval, width = interval_text(self.lower, self.upper), width_text(self.lower, self.upper)
        if self.exact is None:
            return [Row("W1 of the samples", interval, f"certified; {width}{ENDED[self.stopped]}")]
        return [
            Row("W1 of the samples", f"W1 = {rounded(self.exact, 10)}", "exact: solved to optimality"),
            Row("  certified", interval, f"{width}, by rounding"),
        ]

    def _laws(self) -> list[str]:
        """What is known of the laws, in one or two phrases; empty if nothing is."""
        rejected = self.pvalue is not None and self.pvalue <= 1 - self.level
        told = []
        if self.population is not None and self.population.lower > 0:
            confident = f"{percent(self.level)} confidence"
            told.append(f"at least {rounded_down(self.population.lower, 3)} apart ({confident})")
        if self.pvalue is None:
            return told
        p = f"p = {self.pvalue:.3g}"
        if rejected:
            unknown = self.population is not None and not told
            return [*told, f"equality rejected, {p}", *["how far apart they are is not shown"] * unknown]
        if told:
            return [*told, f"the test alone does not reject equality, {p}"]
        return [f"consistent with equal laws ({p})"]

    def _assumptions(self) -> list[str]:
        """The assumptions of the statements about the laws, in sentences."""
        told = [] if self.population is None else list(self.population.assumptions)
        if self.pvalue is None:
            return told
        test = "p is by a permutation test of energy distance and sliced W1"
        if self.population is None:
            return [*told, f"{test}, on independent samples of each law."]
        joint = percent(max(0.0, round(1 - 2 * (1 - self.level), 12)))
        return [*told, f"{test}, a separate statement: together with the bound it holds with {joint} confidence."]

    def picture(self) -> str:
        bars = [Bar("W1 of the samples", self.lower, self.upper, self.exact)]
        if self.halves is not None:
            bars += [Bar("Floor", self.halves.floor, self.halves.floor, proved=False), self.halves.bar()]
        bars += [] if self.population is None else [self.population.bar()]
        return number_line(bars, "; ".join(f"{row.name.strip()}: {row.figure}" for row in self.summary_rows()[:2]))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        r"""The cost of `plan` between samples that may have moved, differentiable in them.

        .. math:: \sum_k \pi_k \|x_{i_k} - y_{j_k}\|, \qquad \nabla_{x_i} = \sum_{k : i_k = i} \pi_k
            \frac{x_i - y_{j_k}}{\|x_i - y_{j_k}\|}

        At the samples of an exact estimate this is W1, and the gradient is that of W1 where W1 is differentiable (the
        envelope theorem). Elsewhere it is the gradient of the upper bound. The critic gives another gradient,
        :math:`\nabla f(x_i)/n`, through :func:`wgan_lip.wasserstein.dual.kr_value` at `potential`.

        Arguments:
            x: Samples of P, shape (n, d), in the order of the estimate.
            y: Samples of Q, shape (m, d).

        Returns:
            A scalar tensor. Points that coincide add no gradient.

        Raises:
            InputError: Other numbers of samples, or another dimension.
        """
        if x.shape != (self.n, self.dim) or y.shape != (self.m, self.dim):
            raise InputError(
                f"x and y must have the shapes of the estimate, {(self.n, self.dim)} and {(self.m, self.dim)}, not "
                f"{tuple(x.shape)} and {tuple(y.shape)}."
            )
        rows, columns = (torch.from_numpy(index).to(x.device) for index in (self.plan.rows, self.plan.columns))
        mass = torch.as_tensor(self.plan.mass / self.plan.mass.sum(), dtype=x.dtype, device=x.device)
        return (mass * torch.linalg.vector_norm(x[rows] - y[columns], dim=1)).sum()

    def as_dict(self) -> dict[str, Any]:
        """All that is plain data, as `result.json` holds it."""
        return {
            "lower": self.lower,
            "upper": self.upper,
            "exact": self.exact,
            "value": self.value,
            "halves": None if self.halves is None else asdict(self.halves),
            "pvalue": self.pvalue,
            "population": None if self.population is None else asdict(self.population),
            "lipschitz": self.certificate.lipschitz,
            "n": self.n,
            "m": self.m,
            "dim": self.dim,
            "seconds": round(self.seconds, 3),
            "seed": self.seed,
            "stopped": self.stopped,
            "notes": list(self.notes),
            "history": [asdict(progress) for progress in self.history],
        }
