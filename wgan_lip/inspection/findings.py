"""What deserves a second look in a run: each finding follows a stated rule, in plain words, with a remedy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Any

__all__ = ["RULES", "Finding", "Rule", "Standing", "audits", "find"]

Record = Mapping[str, float]

AUDIT = ("w1/lower", "w1/exact", "w1/upper")


@dataclass(frozen=True)
class Standing:
    """The figures of a run: its final scores, or those of its last audit until there are any.

    Attributes:
        state: running, finished, interrupted, failed or unknown.
        step: Generator steps done.
        final: Whether the numbers are final scores; otherwise they are from the last audit.
        lower: Certified lower end of W1(generated, test), the best available; NaN before the first audit.
        lower_as_trained: The lower end that the trained critic proves.
        exact: W1 of these samples.
        upper: Upper end.
        floor: W1(real, test) at the same sizes.
        score: The excess over the floor of the averaged generator, the headline; NaN in runs of an older version.
        score_error: Its standard error; NaN for an audit.
        real: The same for real samples in the generator's place.
        real_error: Its standard error; NaN for an audit.
        blurred: The same for blurred real images; NaN if there are none.
        ratio: W1 of the averaged generator over the floor, an older score.
        trained: Mean of the trained critic on held-out real samples minus its mean on generated ones, in its precision.
        refitted: The same for a copy refitted to fresh samples; NaN if there is none.
        refitted_error: Its standard error.
        gradient: Mean gradient norm of the critic along the rays of an optimal plan.
        lipschitz: Certified constant of the critic.
        largest_gradient: The largest gradient norm found, NaN if none was searched for.
        guarantee: What the critic's training keeps: certified; certified, conservative; not certified.
        covered: Modes of the data that are covered, None if the data have none.
        within: Share of generated samples near a mode, NaN if the data have none.
        modes: Modes of the data, None if the data have none or their number is unknown.
        spread: Mean distance between generated samples over that between real ones; NaN if not measured.
        precision: Share of generated samples in neighbourhoods of real ones, over that of real samples in their place.
        recall: Share of real samples in neighbourhoods of generated ones, over that of real samples in their place.
        density: Mean number of neighbourhoods of real samples that contain a generated one, over that for real samples
            in their place.
        coverage: Share of real samples with a generated one in their neighbourhood, over that with real ones in their
            place; see :func:`wgan_lip.metrics.neighbourhoods`.
        width: Standard deviation within the modes over that of the data; NaN if the data have none.
        copies: Share of generated samples that are closer to training samples than chance explains; see
            :func:`wgan_lip.metrics.memorisation`. NaN if not measured.
        copies_error: Its standard error.
        kid: KID on features; NaN without features.
        kid_blurred: KID of blurred real images.
        records: All records, in order.
        silent: Seconds since the run last wrote; NaN if unknown.
    """

    state: str
    step: int
    final: bool
    lower: float
    lower_as_trained: float
    exact: float
    upper: float
    floor: float
    score: float
    score_error: float
    real: float
    real_error: float
    blurred: float
    ratio: float
    trained: float
    refitted: float
    refitted_error: float
    gradient: float
    lipschitz: float
    largest_gradient: float
    guarantee: str
    covered: int | None
    within: float
    modes: int | None
    spread: float
    precision: float
    recall: float
    density: float
    coverage: float
    width: float
    copies: float
    copies_error: float
    kid: float
    kid_blurred: float
    records: Sequence[Record]
    silent: float

    @staticmethod
    def of(
        status: Mapping[str, Any], summary: Mapping[str, Any] | None, records: Sequence[Record], *,
        guarantee: str = "certified", modes: int | None = None, spread: float = math.nan, now: float | None = None,
    ) -> Standing:  # fmt: skip
        """The figures from what a run wrote.

        Arguments:
            status: The content of `status.json`.
            summary: The final scores, see :func:`wgan_lip.training.scoring.score_run`, or None.
            records: As :func:`wgan_lip.runs.tracking.read_records` returns them.
            guarantee: The critic's guarantee, if there is no summary that states it.
            modes: The number of modes of the data, if there is no summary that states it.
            spread: See the attribute.
            now: Seconds since the epoch; the clock by default.
        """
        updated = status.get("updated")
        silent = math.nan if updated is None else (time.time() if now is None else now) - updated
        common: dict[str, Any] = {
            "state": str(status["state"]), "step": int(status.get("step", 0)), "spread": spread, "records": records,
            "silent": silent,
        }  # fmt: skip
        if summary is not None:
            interval, score, modes_hit = summary["interval"], summary["score"], summary["modes"] or {}
            scores = summary.get("scores", {})
            near = scores.get("samples", {"values": {}, "floors": {}})
            features, critic = scores.get("features", {}), summary.get("critic") or {}
            copies = summary.get("memorisation") or {}
            return Standing(
                **common, final=True, lower=interval["lower"], lower_as_trained=interval["lower_as_trained"],
                exact=_known(interval, "exact"), upper=interval["upper"], floor=score["floor"],
                score=_known(score, "excess"),
                score_error=_known(score, "error"), real=_known(score, "real"), real_error=_known(score, "real_error"),
                blurred=_known(score, "blurred"), ratio=_known(score, "ratio"), trained=_known(critic, "trained"),
                refitted=_known(critic, "refitted"), refitted_error=_known(critic, "refitted_error"),
                gradient=_known(summary, "ray_gradient_norm"), lipschitz=summary["lipschitz"],
                largest_gradient=summary["largest_gradient_found"], guarantee=summary.get("guarantee", guarantee),
                covered=modes_hit.get("covered"), within=_known(modes_hit, "within"), modes=modes_hit.get("total"),
                precision=_over(near["values"], near["floors"], "precision"),
                recall=_over(near["values"], near["floors"], "recall"),
                density=_over(near["values"], near["floors"], "density"),
                coverage=_over(near["values"], near["floors"], "coverage"), width=_known(modes_hit, "width"),
                copies=_known(copies, "value"), copies_error=_known(copies, "error"),
                kid=_known(features.get("values", {}), "kid"), kid_blurred=_known(features.get("blurs", {}), "kid"),
            )  # fmt: skip
        last = next(reversed(audits(records)), {})
        refit = next((record for record in reversed(audits(records)) if "critic/refitted" in record), {})
        lower, exact, upper = (last.get(tag, math.nan) for tag in AUDIT)
        covered = last.get("eval/modes_covered", math.nan)
        return Standing(
            **common, final=False, lower=lower, lower_as_trained=lower, exact=exact, upper=upper,
            floor=_known(last, "eval/w1_floor"), score=_known(last, "eval/excess"), score_error=math.nan,
            real=_known(last, "eval/excess_real"), real_error=math.nan, blurred=math.nan,
            ratio=_known(last, "eval/w1_over_floor"), trained=_known(refit, "critic/held_out"),
            refitted=_known(refit, "critic/refitted"), refitted_error=_known(refit, "critic/refitted_error"),
            gradient=_known(last, "critic/grad_norm"), lipschitz=_known(last, "certificate/lipschitz"),
            largest_gradient=math.nan, guarantee=guarantee, covered=int(covered) if math.isfinite(covered) else None,
            within=_known(last, "eval/within_3_sigma"), modes=modes,
            precision=_over(last, last, "eval/precision", "eval/precision_floor"),
            recall=_over(last, last, "eval/recall", "eval/recall_floor"),
            density=_over(last, last, "eval/density", "eval/density_floor"),
            coverage=_over(last, last, "eval/coverage", "eval/coverage_floor"), width=_known(last, "eval/mode_width"),
            copies=math.nan, copies_error=math.nan, kid=math.nan, kid_blurred=math.nan,
        )  # fmt: skip

    @property
    def tightness(self) -> float:
        """Largest gradient found over the certified constant, at most 1; NaN if either is missing."""
        return self.largest_gradient / self.lipschitz if self.lipschitz > 0 else math.nan

    @property
    def unexplained(self) -> float:
        """The part of W1 that sampling does not explain, exact − floor.

        By the triangle inequality W1(generated, real) ≥ W1(generated, test) − W1(real, test): a critic that is a KR
        potential for generated against fresh real samples would show at least this much.
        """
        return self.exact - self.floor


@dataclass(frozen=True)
class Finding:
    """Something seen in a run.

    Attributes:
        name: The name of the rule that found it.
        text: What was seen, with its figures.
        remedy: What to do about it.
        serious: Whether the run's result suffers from it; otherwise it is just good to know.
    """

    name: str
    text: str
    remedy: str
    serious: bool


@dataclass(frozen=True)
class Rule:
    """When something is found.

    Attributes:
        name: What is found, in two or three words.
        statement: The rule, in words that a reader can check against the figures.
        seen: Standing → what was seen, or None. Comparisons with NaN are false, so nothing unknown is found.
        remedy: What to do about it.
        serious: See :class:`Finding`.
    """

    name: str
    statement: str
    seen: Callable[[Standing], str | None]
    remedy: str
    serious: bool = True


def find(standing: Standing) -> tuple[Finding, ...]:
    """What the rules find, serious findings first."""
    seen = [(rule, rule.seen(standing)) for rule in RULES]
    found = [Finding(rule.name, text, rule.remedy, rule.serious) for rule, text in seen if text is not None]
    return tuple(sorted(found, key=lambda finding: not finding.serious))


def audits(records: Sequence[Record]) -> list[Record]:
    """The records that hold a complete audit."""
    return [record for record in records if all(tag in record for tag in AUDIT)]


def _known(values: Mapping[str, Any], name: str) -> float:
    """A number, NaN if missing."""
    value = values.get(name)
    return math.nan if value is None else float(value)


def _over(values: Record, floors: Record, name: str, floor_name: str | None = None) -> float:
    """A score over its floor, NaN if either is missing."""
    floor = floors.get(floor_name or name, math.nan)
    return values.get(name, math.nan) / floor if floor > 0 else math.nan


def _stopped_writing(run: Standing) -> str | None:
    times = [record["time"] for record in run.records if "time" in record]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    patience = max(600.0, 20 * median(gaps) if gaps else 0.0)
    if run.state != "running" or not run.silent > patience:
        return None
    return f"its status is running, but it has written nothing for {run.silent / 60:.0f} minutes"


def _not_finite(run: Standing) -> str | None:
    tags = ("w1/critic", "generator/loss", "w1/lower", "w1/exact", "critic/grad_norm")
    for record in run.records:
        if broken := [tag for tag in tags if not math.isfinite(record.get(tag, 0.0))]:
            return f"{broken[0]} is not finite at step {record['step']}"
    return None


def _put_back(run: Standing) -> str | None:
    times = max((record.get("guard/rollbacks", 0.0) for record in run.records), default=0.0)
    return f"it diverged and went back to its last good state {times:g} times" if times else None


def _collapsed(run: Standing) -> str | None:
    if run.spread < 0.5:
        return f"generated samples are {run.spread:.2g} times as far apart as real ones"
    if run.coverage < 0.5 and run.precision >= 0.5:
        return (
            f"its samples look real (precision {run.precision:.2g} times that of real samples), but reach only few of "
            f"the real ones (coverage {run.coverage:.2g} times that of real samples)"
        )
    if run.covered is not None and run.modes and run.covered <= run.modes / 2 and run.within >= 0.5:
        return f"{100 * run.within:.0f} % of samples are near modes of the data, but cover {run.covered} of {run.modes}"
    return None


def _modes_missed(run: Standing) -> str | None:
    if run.covered is None or not run.modes or run.covered >= run.modes or _collapsed(run):
        return None
    return (
        f"{run.covered} of {run.modes} modes of the data are covered; {100 * run.within:.0f} % of samples are near one"
    )


def _thin(run: Standing) -> str | None:
    if not run.recall < 0.9 or _collapsed(run):
        return None
    return f"recall is {run.recall:.2g} times that of real samples in the generator's place"


def _not_covering(run: Standing) -> str | None:
    if not run.coverage < 0.9 or _collapsed(run):
        return None
    return f"coverage is {run.coverage:.2g} times that of real samples in the generator's place"


def _narrowed(run: Standing) -> str | None:
    if run.width < 0.9:
        return f"within the modes, the spread of its samples is {run.width:.2g} times that of the data"
    if run.density > 1.2 and run.recall < 0.95:
        return (
            f"density is {run.density:.2g} times, and recall {run.recall:.2g} times, that of real samples in the "
            "generator's place"
        )
    return None


def _copied(run: Standing) -> str | None:
    if not run.copies > max(0.05, 3 * run.copies_error):
        return None
    return (
        f"{100 * run.copies:.0f} ± {100 * run.copies_error:.0f} % of its samples are closer to a training sample than "
        "held-out data would be"
    )


def _worse_than_blur(run: Standing) -> str | None:
    if run.kid > run.kid_blurred:
        return f"its KID on features is {run.kid:.3g}; real images blurred by one pixel have {run.kid_blurred:.3g}"
    if math.isnan(run.kid) and run.score > run.blurred:
        return f"its excess over the floor is {run.score:.3g}; real images blurred by one pixel have {run.blurred:.3g}"
    return None


def _under_trained(run: Standing) -> str | None:
    if run.refitted > 3 * run.refitted_error and run.trained < 0.8 * run.refitted:
        return (
            f"on held-out samples the trained critic's dual value is {run.trained:.3g}, and that of a copy refitted to "
            f"fresh samples {run.refitted:.3g} ± {run.refitted_error:.1g}"
        )
    if run.guarantee != "certified" or not run.unexplained > 0.1 * run.exact:
        return None
    if not run.lower_as_trained < 0.5 * run.unexplained:
        return None
    return (
        f"the trained critic proves only W1 ≥ {run.lower_as_trained:.3g}, though W1 between generated and real samples "
        f"is at least {run.unexplained:.3g} (exact {run.exact:.3g} − floor {run.floor:.3g})"
    )


def _not_closing(run: Standing) -> str | None:
    gap = run.upper - run.lower
    if not (gap > run.floor and gap > 0.1 * run.upper):
        return None
    if not run.final:
        widths = [
            1 - record["w1/lower"] / record["w1/upper"] for record in audits(run.records) if record["w1/upper"] > 0
        ]
        half = len(widths) // 2
        if half < 2 or fmean(widths[half:]) < 0.9 * fmean(widths[:half]):
            return None
    return (
        f"the interval from {run.lower:.3g} to {run.upper:.3g} is wider than the floor, {run.floor:.3g}, that sampling "
        "explains"
    )


def _small_gradient(run: Standing) -> str | None:
    if not run.gradient < 0.5 or not run.unexplained > 0.1 * run.exact:
        return None
    return f"its mean along transport rays is {run.gradient:.2g}; a KR potential has 1"


def _loose(run: Standing) -> str | None:
    if not run.tightness < 0.5:
        return None
    return f"the proved constant is {run.lipschitz:.3g}, but the largest gradient found is {run.largest_gradient:.3g}"


def _uncertified(run: Standing) -> str | None:
    return "its training does not bound this critic's constant" if run.guarantee == "not certified" else None


def _above_one(run: Standing) -> str | None:
    if run.guarantee != "certified" or not run.lipschitz > 1.001:
        return None
    return f"the critic's proved constant is {run.lipschitz:.6g}"


def _far(run: Standing) -> str | None:
    if not run.score > max(run.floor / 2, run.real + 3 * max(run.score_error, run.real_error, 0.0)):
        return None
    return f"W1 to the test set exceeds what sampling explains by {run.score:.3g}; the floor is {run.floor:.3g}"


def _scores(run: Standing) -> list[tuple[int, float]]:
    pairs = [(int(record["step"]), record.get("eval/excess", math.nan)) for record in audits(run.records)]
    return [(step, score) for step, score in pairs if math.isfinite(score)]


def _was_better(run: Standing) -> str | None:
    scores = _scores(run)
    if len(scores) < 3:
        return None
    (best_step, best), (_, last) = min(scores, key=lambda pair: pair[1]), scores[-1]
    if not last - best > 0.25 * _audited_floor(run):
        return None
    return f"the excess over the floor was {best:.3g} at step {best_step}, but {last:.3g} at the last audit"


def _still_improving(run: Standing) -> str | None:
    scores = [score for _, score in _scores(run)]
    quarter = len(scores) // 4
    if run.state != "finished" or quarter < 1:
        return None
    before, after = fmean(scores[-2 * quarter : -quarter]), fmean(scores[-quarter:])
    if not before - after > 0.1 * _audited_floor(run):
        return None
    return f"the excess over the floor fell from {before:.3g} to {after:.3g} over the last quarter of the audits"


def _audited_floor(run: Standing) -> float:
    """The floor at the sizes of the audits."""
    return next((_known(record, "eval/w1_floor") for record in reversed(audits(run.records))), math.nan)


RULES = (
    Rule(
        "stopped writing",
        "The status is running, and nothing was written for ten minutes and for twenty times the usual interval.",
        _stopped_writing,
        "Its process was probably killed. wgan-lip train resume=DIR resumes it from the last checkpoint.",
    ),
    Rule(
        "values not finite",
        "A recorded value is NaN or infinite.",
        _not_finite,
        "Lower the learning rates, or look for extreme values in the data.",
    ),
    Rule(
        "put back",
        "It diverged, and went back to its last good state with both learning rates halved.",
        _put_back,
        "Lower the learning rates from the start, or clip gradients (training.critic_clip, training.generator_clip).",
        serious=False,
    ),
    Rule(
        "generator collapsed",
        "Generated samples are on average less than half as far apart as real ones; or their precision is at least "
        "half, and their coverage less than half, of what real samples reach in their place; or at least half of them "
        "are near modes of the data, but cover at most half of the modes.",
        _collapsed,
        "If it is early in the run, keep training; otherwise give the critic more steps (training.critic_steps), or "
        "lower the generator's learning rate.",
    ),
    Rule(
        "modes missed",
        "Fewer modes are covered than the data has, and the generator has not collapsed.",
        _modes_missed,
        "Train longer, or widen the generator.",
    ),
    Rule(
        "low recall",
        "Recall is below 0.9 times that of real samples in the generator's place, and the generator has not collapsed.",
        _thin,
        "The generator misses part of the data. Lower the learning rates, average less (training.ema_half_life), or "
        "widen the generator; the excess over the floor may look good nevertheless.",
    ),
    Rule(
        "low coverage",
        "Coverage is below 0.9 times that of real samples in the generator's place, and the generator has not "
        "collapsed.",
        _not_covering,
        "The generator is too thin where the data are dense, or misses some of them: train longer, or widen it.",
    ),
    Rule(
        "narrowed modes",
        "Within the modes of the data, generated samples have less than 0.9 times the standard deviation of real ones; "
        "or their density is above 1.2 times that of real samples in their place, and their recall below 0.95 times.",
        _narrowed,
        "Samples bunch in the middle of the modes. Train longer at lower learning rates, and use a smaller "
        "training.ema_half_life.",
    ),
    Rule(
        "copies of training data",
        "The share of samples close to training data exceeds that of held-out data by more than a twentieth, and by "
        "more than three standard errors.",
        _copied,
        "The generator repeats its training data, which no distance to the data shows. Use more data, augment them "
        "(data.flip, data.shift), or use a smaller generator.",
    ),
    Rule(
        "worse than blur",
        "Real images blurred by a Gaussian filter of one pixel are closer to the test set than generated ones: by KID "
        "on features or, without features, by the excess over the floor.",
        _worse_than_blur,
        "Look at the pictures, not at W1 over floor. Train longer, or use a larger generator.",
    ),
    Rule(
        "critic under-trained",
        "On held-out samples the trained critic reaches less than 80 % of the value of a copy refitted to fresh "
        "samples, which is more than three standard errors above zero; or it proves less than half of exact − floor, "
        "the part of W1 that sampling does not explain, while that is more than a tenth of W1.",
        _under_trained,
        "Raise training.critic_steps, training.warmup_steps or the critic's learning rate.",
    ),
    Rule(
        "interval not closing",
        "The interval is wider than the floor, which is about what a critic trained on the laws leaves open, and wider "
        "than a tenth of its upper end; during a run, also hardly narrower in the second half of its audits than in "
        "the first.",
        _not_closing,
        "Train the critic longer or use a larger one; a loose constant also keeps the lower end down.",
    ),
    Rule(
        "gradient norm far below 1",
        "The mean gradient norm along transport rays is below 1/2, while W1 exceeds its floor by more than a tenth.",
        _small_gradient,
        "The critic is not close to a KR potential yet: train it longer, or use one that preserves gradient norms.",
    ),
    Rule(
        "certificate loose",
        "The largest gradient found is less than half of the proved constant.",
        _loose,
        "The lower end loses that factor. Use a critic whose layers keep their constant at 1, such as critic=resnet.",
    ),
    Rule(
        "constant above 1",
        "A critic that training should keep 1-Lipschitz has a proved constant above 1.001.",
        _above_one,
        "Was it trained without retraction? Bounds are divided by the constant, so they still hold.",
    ),
    Rule(
        "generator far from the data",
        "The excess over the floor is more than half of the floor, and more than three standard errors above that of "
        "real samples.",
        _far,
        "Train longer, or enlarge the generator.",
    ),
    Rule(
        "generator was better before",
        "The last audit's excess is above the best one's by more than a quarter of the floor.",
        _was_better,
        "Lower the learning rates or decay them by a schedule, or stop at the best step.",
    ),
    Rule(
        "critic not certified",
        "The training of this kind of critic does not bound its constant.",
        _uncertified,
        "Its raw value is not a bound; the interval divides by the constant that can be proved, which may be far too "
        "large.",
        serious=False,
    ),
    Rule(
        "still improving",
        "The excess of the last quarter of the audits is below that of the quarter before by more than a tenth of the "
        "floor.",
        _still_improving,
        "More training.steps would help.",
        serious=False,
    ),
)
"""All rules, in the order in which they are reported."""
