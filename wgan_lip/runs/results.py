"""The results of a finished run: its interval, its scores, and the rows that show them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wgan_lip.utils.numbers import plus_minus, rounded, rounded_down, rounded_up
from wgan_lip.utils.printing import Bar, Printed, Row, number_line

__all__ = ["RunInterval", "RunScores", "last_audit_row", "result_rows", "score_rows"]

MARKS = {
    "certified": ("Certified critic", ""),
    "certified, conservative": ("Critic", "certified, conservative; "),
    "not certified": ("Critic", "not certified by its training; "),
}
"""A critic's guarantee → the name of its row, and the beginning of its comment."""


SCORES: dict[str, dict[str, tuple[str, ...]]] = {
    "samples": {
        "Sliced W1, W2": ("sliced_w1", "sliced_w2"),
        "MMD": ("mmd",),
        "Precision, recall": ("precision", "recall"),
        "Density, coverage": ("density", "coverage"),
        "Fréchet of wavelets": ("wavelet_frechet",),
    },
    "features": {
        "KID of features": ("kid",),
        "  excess of W1": ("excess",),
        "  sliced W2 (MIND)": ("sliced_w2",),
        "  Fréchet": ("frechet",),
        "  precision, recall": ("precision", "recall"),
        "  density, coverage": ("density", "coverage"),
        "  read with p ≥ 0.9": ("read",),
        "  rarest, top class": ("rarest_class", "commonest_class"),
        "  read as labelled": ("as_labelled",),
    },
    "inception": {"FID, KID": ("fid", "kid")},
}
"""What is scored → title of a row → the scores in it."""


@dataclass(frozen=True, repr=False)
class RunInterval(Printed):
    """The interval of a run: lower ≤ W1 ≤ upper, for W1 between n generated and n held-out samples.

    Attributes:
        lower: The dual value of a certified critic divided by its proved constant: the trained critic, or a copy fitted
            to these samples.
        exact: The cost of an optimal plan; NaN if none was computed.
        upper: The cost of a plan.
        lower_as_trained: The lower end that the critic as trained proves.
        n: Samples of each law.
        dim: Their dimension d.
    """

    lower: float
    exact: float
    upper: float
    lower_as_trained: float
    n: int
    dim: int

    def headline(self) -> str:
        return f"W1 between {self.n:,} generated and {self.n:,} held-out samples in dimension {self.dim:,}"

    def summary_rows(self) -> list[Row]:
        found = _ends(self.lower, self.exact, self.upper)
        ends = [*_lower_end(self.lower, self.lower_as_trained), _upper_end(self.upper)]
        return [Row("W1(generated, test)", found, "certified"), *ends]

    def picture(self) -> str:
        exact = None if math.isnan(self.exact) else self.exact
        return number_line([Bar("W1(generated, test)", self.lower, self.upper, exact)], self.headline())


@dataclass(frozen=True, repr=False)
class RunScores(Printed):
    """The final scores of a run's generator, beside those of real samples in its place.

    Attributes:
        excess: W1 beyond what sampling explains, the headline; see :func:`wgan_lip.metrics.excess_over_floor`.
        error: Its standard error.
        real: The excess of real samples.
        real_error: Its standard error.
        floor: W1 between real and held-out samples.
        values: All other scores, by what is scored (samples, features, inception) and by name.
        floors: The same scores of real samples.
        summary: The content of `summary.json`.
    """

    excess: float
    error: float
    real: float
    real_error: float
    floor: float
    values: Mapping[str, Mapping[str, float]]
    floors: Mapping[str, Mapping[str, float]]
    summary: Mapping[str, Any] = field(compare=False)

    @staticmethod
    def of(summary: Mapping[str, Any]) -> RunScores:
        """The scores in a run's `summary.json`; NaN for those that a run of an earlier version lacks."""
        score, scores = summary["score"], summary["scores"]
        excess, error, real, real_error = (
            score.get(name, math.nan) for name in ("excess", "error", "real", "real_error")
        )  # fmt: skip
        values, floors = ({space: dict(of[kind]) for space, of in scores.items()} for kind in ("values", "floors"))
        return RunScores(excess, error, real, real_error, score["floor"], values, floors, summary)

    def headline(self) -> str:
        return "The generator's scores, beside those of real samples in its place"

    def summary_rows(self) -> list[Row]:
        return score_rows(self.summary)


def result_rows(summary: Mapping[str, Any]) -> list[Row]:
    """The results of a finished run, in rows."""
    interval, found = summary["interval"], summary["largest_gradient_found"]
    name, mark = MARKS.get(summary["guarantee"], ("Critic", f"{summary['guarantee']}; "))
    n, dim = interval["n"], interval["dim"]
    return [
        Row(name, f"Lip(f) ≤ {rounded_up(summary['lipschitz'], 7)}", f"{mark}largest gradient found: {found:.4f}"),
        Row(
            "W1(generated, test)",
            _ends(interval["lower"], interval["exact"], interval["upper"]),
            f"{n} + {n} samples in dimension {dim}",
        ),
        *_lower_end(interval["lower"], interval["lower_as_trained"]),
        _upper_end(interval["upper"]),
        *score_rows(summary),
    ]


def score_rows(summary: Mapping[str, Any]) -> list[Row]:
    """The scores of a finished run."""
    score, modes = summary["score"], summary["modes"]
    critic, copies = summary.get("critic"), summary.get("memorisation")
    lines = [
        *_excess_rows(score),
        Row("Floor W1(real, test)", rounded(score["floor"], 4), "what sampling alone explains"),
        Row(
            "  W1 over floor",
            f"{rounded(score['ratio'], 4)} ± {rounded(score['spread'], 2)}" if score["floor"] > 0 else "none: floor 0",
            "an older score, which rewards blur",
        ),
    ]
    if critic:
        text = f"{rounded(critic['trained'], 3)}; {plus_minus(critic['refitted'], critic['refitted_error'])}"
        lines.append(Row("Critic, held out", text, "as trained; refitted to fresh samples"))
    lines += _score_rows(summary.get("scores") or {})
    if copies:
        text = plus_minus(copies["value"], copies["error"])
        lines.append(Row("Copies", text, "share of copied training samples; 0 on average without copying"))
    if modes:
        covered = f"{modes['covered']} of {modes['total']} covered"
        lines.append(Row("Modes", covered, f"{100 * modes['within']:.1f} % of samples within 3 sigma of one"))
    return lines


def _lower_end(lower: float, as_trained: float) -> list[Row]:
    trained = Row("  lower end", rounded_down(as_trained), "KR dual of the trained critic, divided by its constant")
    if lower == as_trained:  # no copy was fitted to the samples, or none was better
        return [trained]
    comment = "KR dual of a critic fitted to these samples, divided by its constant"
    fitted = Row("  lower end", rounded_down(lower), comment)
    return [fitted, Row("", rounded_down(as_trained), "KR dual of the trained critic")]


def _excess_rows(score: Mapping[str, Any]) -> list[Row]:
    """The excess over the floor; no rows for runs of a version without it."""
    if "excess" not in score:
        return []
    real = plus_minus(score["real"], score["real_error"])
    about = f"real samples: {real}; {score['draws']} draws of {score['n']}"
    lines = [Row("Excess over the floor", plus_minus(score["excess"], score["error"]), about)]
    if "blurred" in score:
        lines.append(Row("  of blurred images", rounded(score["blurred"], 3), "real images, blurred by one pixel"))
    return lines


def _score_rows(scores: Mapping[str, Any]) -> list[Row]:
    """Each score beside that of real samples in the generator's place."""
    lines = []
    for space, rows in SCORES.items():
        if space not in scores:
            continue
        values, floors = scores[space]["values"], scores[space]["floors"]
        for title, names in rows.items():
            if not set(names) <= values.keys():
                continue
            got, real = (", ".join(rounded(of[name], 3) for name in names) for of in (values, floors))
            lines.append(Row(title, got, f"real samples: {real}"))
    if "features" in scores:
        lines.append(Row("  features", "", f"of {scores['features']['extractor'].partition(', weights')[0]}"))
    if scores and "inception" not in scores:
        lines.append(Row("FID", "none", "needs the weights of Inception"))
    return lines


def last_audit_row(records: Sequence[Mapping[str, Any]]) -> Row:
    """The last audit of a run that is not finished."""
    if not records:
        return Row("Last record", "none", "nothing recorded yet")
    audits = [record for record in records if {"w1/lower", "w1/exact", "w1/upper"} <= record.keys()]
    if not audits:
        return Row("Last record", f"step {records[-1]['step']}", "no audit yet")
    last = audits[-1]
    score = f"step {last['step']}"
    if "eval/excess" in last:
        score += (
            f"; excess over the floor {rounded(last['eval/excess'], 3)}, real {plus_minus(last['eval/excess_real'])}"
        )
    return Row("Last audit", _ends(*(last[f"w1/{name}"] for name in ("lower", "exact", "upper"))), score)


def _ends(lower: float, exact: float, upper: float) -> str:
    value = "" if math.isnan(exact) else f" = {rounded(exact, 4)}"
    return f"{rounded_down(lower)} ≤ W1{value} ≤ {rounded_up(upper)}"


def _upper_end(upper: float) -> Row:
    return Row("  upper end", rounded_up(upper), "the cost of an optimal plan")
