"""Runs side by side: those that differ only in the seed form one setting, and settings are ranked by their means."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t as student

from wgan_lip import figures
from wgan_lip.inspection.findings import Standing
from wgan_lip.runs.folder import CONFIG
from wgan_lip.runs.run import Run
from wgan_lip.runs.targets import IN_PYTHON
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.numbers import rounded, rounded_up
from wgan_lip.utils.printing import Printed, Row
from wgan_lip.utils.tables import flat

__all__ = ["MEASURES", "RULE", "Comparison", "Entry", "Group", "Lead", "compare", "compare_runs", "find_runs"]

RULE = (
    "Settings are ranked by their mean excess over the floor, averaged over seeds, lowest first; final scores come "
    "before scores of audits, and only scores on the same data set and evaluation.size are compared. The lead over the "
    "next setting is the mean difference on the seeds they share, with a paired t-test."
)
MEASURES = (
    "score", "real", "ratio", "recall", "precision", "coverage", "lower", "exact", "upper", "proved", "floor",
    "gradient", "tightness", "lipschitz", "seconds", "samples",
)  # fmt: skip
"""The measures of a run: fields of its standing, seconds of training, and generated samples seen."""

MOST_DRAWN = 8  # most settings whose samples are shown

ASIDE = {
    "seed",
    "device",
    "threads",
    "trust",
    "resume",
    "tracking",
    "checkpoint",
}  # keys by which runs of one group may differ


@dataclass(frozen=True)
class Entry:
    """One run.

    Attributes:
        directory: Its folder, as given.
        settings: `section.key` → value, without the keys by which runs of one group may differ.
        typed: `key` → value as typed on the command line, without these keys; None if unknown.
        seed: Its seed.
        standing: Its figures; :attr:`wgan_lip.inspection.findings.Standing.final` says whether they are final scores.
        seconds: Seconds of training.
        samples: Generated samples that the generator was trained on: steps times batch size.
        course: (seconds, samples, excess over the floor) at its audits.
        league: The data and evaluation size; only runs with the same league can be compared.
        drawn: Its picture of samples as HTML; empty if there is none.
    """

    directory: Path
    settings: Mapping[str, Any]
    typed: Mapping[str, str] | None
    seed: Any
    standing: Standing
    seconds: float
    samples: float
    course: tuple[tuple[float, float, float], ...]
    league: str
    drawn: str = field(default="", repr=False, compare=False)

    def measure(self, name: str) -> float:
        """One of :data:`MEASURES`, NaN if unknown."""
        return float(getattr(self if name in ("seconds", "samples", "proved") else self.standing, name))

    @property
    def proved(self) -> float:
        """The share of W1 that is proved from below, NaN if unknown."""
        return self.standing.lower / self.standing.exact if self.standing.exact > 0 else math.nan

    def told_score(self) -> str:
        """Its excess over the floor; with a star if it comes from an audit."""
        score = self.standing.score
        known = math.isfinite(score)
        return (rounded(score, 4) if known else "–") + ("*" if known and not self.standing.final else "")


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed, and in where they ran.

    Attributes:
        label: What distinguishes the group from others, as briefly as possible.
        entries: Its runs.
    """

    label: str
    entries: tuple[Entry, ...]

    @property
    def final(self) -> bool:
        """Whether some of its runs have final scores; then only these count."""
        return any(entry.standing.final for entry in self.entries)

    def mean_and_spread(self, name: str) -> tuple[float, float]:
        """Mean and standard deviation (NaN for one run) of a measure over the runs that have it."""
        known = [value for entry in self._told() if math.isfinite(value := entry.measure(name))]
        return (fmean(known) if known else math.nan), (stdev(known) if len(known) > 1 else math.nan)

    def told(self, name: str, digits: int = 3) -> str:
        """`mean ± spread` of a measure; of Lipschitz constants the largest, rounded up; a dash if no run has it."""
        mean, spread = self.mean_and_spread(name)
        if not math.isfinite(mean):
            return "–"
        if name == "lipschitz":
            constants = (entry.measure(name) for entry in self._told())
            return rounded_up(max(filter(math.isfinite, constants)), 4)
        return rounded(mean, digits) + (f" ± {rounded(spread, 2)}" if math.isfinite(spread) else "")

    def best(self) -> Entry:
        """Its run with the lowest score; among equals the fastest."""
        scored = [entry for entry in self.entries if entry.standing.final >= self.final]
        return min(
            scored, key=lambda entry: (_last_if_unknown(entry.standing.score), _last_if_unknown(entry.seconds))
        )  # fmt: skip

    def scores(self) -> dict[Any, float]:
        """Seed → excess over the floor, averaged over runs with the same seed."""
        told: dict[Any, list[float]] = {}
        for entry in self._told():
            if math.isfinite(entry.standing.score):
                told.setdefault(entry.seed, []).append(entry.standing.score)
        return {seed: fmean(scores) for seed, scores in told.items()}

    def _told(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.standing.final) or self.entries


@dataclass(frozen=True)
class Lead:
    """The best setting on some data, by :data:`RULE`, and how far it is ahead.

    Attributes:
        first: The setting with the lowest mean score.
        run: Its run with the lowest score; among equals the fastest.
        second: The next setting; None if no other has a score.
        gap: By how much the excess of the second is larger, averaged over the shared seeds; if there are none, the
            difference of the means over all seeds; NaN without a second.
        error: The standard error of the gap over shared seeds; NaN for fewer than two.
        pvalue: The two-sided p-value of a paired t-test; NaN for fewer than two shared seeds. It does not account for
            the number of settings tried.
        shared: The number of shared seeds.
    """

    first: Group
    run: Entry
    second: Group | None = None
    gap: float = math.nan
    error: float = math.nan
    pvalue: float = math.nan
    shared: int = 0

    def verdict(self) -> str:
        """Which setting leads, by how much, and how sure that is, in a sentence or two."""
        seeds = len(self.first.scores())
        over = f"{seeds} seeds" if seeds > 1 else "one seed"
        text = f"{self.first.label}, excess over the floor {self.first.told('score')} over {over}"
        if self.second is None:
            return f"{text}. No other setting has a score."
        text += f"; ahead of {self.second.label} by {self.told_gap()}"
        if self.shared > 1:
            return f"{text} on {self.shared} shared seeds (paired t-test, {self.told_pvalue()})."
        shared = "one shared seed" if self.shared else "different seeds"
        return f"{text} on {shared}: not enough to tell them apart. Train both with the same seeds, as seed=0,1,2."

    def why(self) -> str:
        """The other scores of the two settings, in a sentence; empty without a second."""
        if self.second is None:
            return ""
        told = (
            f"{what} {ours} against {theirs}"
            for name, what in WHY.items()
            if "–" not in (ours := self.first.told(name), theirs := self.second.told(name))
        )
        return f"{'; '.join(told)}."

    def told_gap(self) -> str:
        """The gap, with its standard error if known."""
        return rounded(self.gap, 3) + (f" ± {rounded(self.error, 2)}" if math.isfinite(self.error) else "")

    def told_pvalue(self) -> str:
        """`p = …`, or a dash if unknown."""
        if not math.isfinite(self.pvalue):
            return "–"
        return f"p = {rounded(self.pvalue, 2)}" if self.pvalue >= 0.001 else "p < 0.001"


WHY = {
    "precision": "precision",
    "recall": "recall",
    "exact": "exact W1",
    "gradient": "critic's gradient norm on rays",
    "proved": "proved share of W1",
    "seconds": "seconds",
}  # measures behind a verdict, in words


@dataclass(frozen=True, repr=False)
class Comparison(Printed):
    """Runs side by side.

    Attributes:
        groups: Groups with final scores first, ordered by their mean; those without a score last.
        best: Data → the best setting on them, by :data:`RULE`.
        behind: Label of a setting with a score → the lead of the best setting on its data over it.
        differences: Key → its value in each of the groups as text, empty if a group lacks it.
    """

    groups: tuple[Group, ...]
    best: Mapping[str, Lead]
    behind: Mapping[str, Lead]
    differences: Mapping[str, tuple[str, ...]]

    def headline(self) -> str:
        return f"{len(self.entries)} runs in {len(self.groups)} settings"

    def summary_rows(self) -> list[Row]:
        leads = [Row(f"Best on {league}", lead.verdict()) for league, lead in self.best.items()]
        groups = (
            Row(
                group.label, group.told("score"), f"precision, recall {group.told('precision')}, {group.told('recall')}"
            )
            for group in self.groups
        )
        return [*leads, Row("Excess over the floor", "per setting, mean ± spread over its seeds:"), *groups]

    def picture(self) -> str:
        courses = self.courses()
        drawn = figures.inline_svg(figures.score_against(courses), self.headline(), key="courses") if courses else ""
        samples = "".join(
            f'<figure style="margin: 0.3em; width: 22em; max-width: 100%">{group.best().drawn}'
            f"<figcaption>{escape(group.label)}</figcaption></figure>"
            for group in self.groups[:MOST_DRAWN]
            if group.best().drawn
        )
        return f'<div style="max-width: 34em">{drawn}</div><div style="display: flex; flex-wrap: wrap">{samples}</div>'

    def courses(self) -> dict[str, list[tuple[tuple[float, float, float], ...]]]:
        """Label → the courses of its runs, for settings that have any."""
        drawn = {group.label: [entry.course for entry in group.entries if entry.course] for group in self.groups}
        return {label: courses for label, courses in drawn.items() if courses}

    @property
    def entries(self) -> list[tuple[Group, Entry]]:
        """All runs with their groups."""
        return [(group, entry) for group in self.groups for entry in group.entries]


def compare(*paths: str | Path) -> Comparison:
    """Puts the runs at or below paths side by side, as `wgan-lip compare` does.

    Arguments:
        paths: See :func:`find_runs`; for example the folder of a sweep.

    Returns:
        :class:`Comparison`, which prints as the ranking, and in a notebook also shows curves and samples.

    Raises:
        InputError: See :func:`find_runs` and :func:`compare_runs`.
    """
    return compare_runs(find_runs(paths))


def find_runs(paths: Sequence[str | Path]) -> list[Run]:
    """The runs at or below paths.

    Arguments:
        paths: Folders of runs, folders that contain runs up to two levels below (a sweep, `outputs/train`), or
            patterns with `*`.

    Returns:
        Each run once, in the order of the paths, then of the names.

    Raises:
        InputError: A path that is not a folder, or a folder that is not a run and contains none; a run that is not a
            training run.
    """
    found: dict[Path, Run] = {}
    for given in paths:
        path = Path(given).expanduser()
        places = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
        folders = [folder for place in places for folder in _run_folders(place)]
        if not folders:
            raise InputError(
                f"There are no runs in {given}. Give folders that `wgan-lip train` wrote, or that of a sweep under "
                "outputs/multirun."
            )
        for folder in folders:
            found.setdefault(folder.resolve(), Run(folder))
    return list(found.values())


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Puts runs side by side; their folders are only read, and no code in them is run.

    Raises:
        InputError: Fewer than two runs, or a damaged file in one.
    """
    if len(runs) < 2:
        raise InputError(
            f"compare needs at least two runs, and found {len(runs)}. Give more, or use wgan-lip inspect for one run."
        )
    groups: dict[str, list[Entry]] = {}
    for run in runs:
        entry = _entry(run)
        groups.setdefault(json.dumps(entry.settings, sort_keys=True, default=str), []).append(entry)
    members = [tuple(entries) for entries in groups.values()]
    labels = _typed_labels([entries[0].typed for entries in members])
    labels = labels or _labels([entries[0].settings for entries in members])
    told = [Group(label, entries) for label, entries in zip(labels, members, strict=True)]
    told.sort(key=_rank)
    ordered = [group.entries[0].settings for group in told]
    differences = {key: tuple(_shown(one[key]) if key in one else "" for one in ordered) for key in _differing(ordered)}
    best, behind = _best(told)
    return Comparison(tuple(told), best, behind, differences)


def _run_folders(path: Path) -> list[Path]:
    if (path / CONFIG).exists() or not path.is_dir():
        return [path] if path.is_dir() else []
    below = sorted({*path.glob(f"*/{CONFIG}"), *path.glob(f"*/*/{CONFIG}")}, key=lambda file: _natural(file.parent))
    return [file.parent for file in below]


def _natural(path: Path) -> list[tuple[int, str]]:
    """A key that sorts jobs of a sweep by their numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in path.parts]


def _entry(run: Run) -> Entry:
    every = flat(run.config)
    if "data._target_" not in every:
        raise InputError(
            f"{CONFIG} in {run.directory} does not name its data: it is damaged, or of another version. Leave this run "
            "out, or train it again."
        )
    settings = {key: value for key, value in every.items() if key.partition(".")[0] not in ASIDE}
    standing = Standing.of(run.status, run.summary, run.metrics, guarantee="unknown")
    batch = every.get("training.batch_size")
    batch = float(batch) if isinstance(batch, int) and 0 < batch < 2**63 else math.nan
    scored = [record for record in run.metrics if "eval/excess" in record]
    course = [(r.get("time", math.nan), r["step"] * batch, r["eval/excess"]) for r in scored]
    last = run.metrics[-1].get("time", math.nan) if run.metrics else math.nan
    data = [f"{key[5:]}={_shown(value)}" for key, value in every.items() if key.startswith("data.")]
    return Entry(
        directory=run.directory,
        settings=settings,
        typed=_typed(run.overrides),
        seed=every.get("seed"),
        standing=standing,
        seconds=last if run.summary is None else run.summary["training_seconds"],
        samples=standing.step * batch,
        course=tuple(course),
        league=", ".join([*data, f"evaluation.size={every.get('evaluation.size')}"]).replace("_target_=", ""),
        drawn=run.drawn_samples(),
    )


def _typed(overrides: Sequence[str]) -> dict[str, str] | None:
    if any(override.startswith("wgan_lip.train(") for override in overrides):  # a call in Python
        return None
    pairs = (override.lstrip("+").partition("=") for override in overrides)
    return {key: value for key, _, value in pairs if key.partition(".")[0] not in ASIDE}


def _rank(group: Group) -> tuple[bool, float]:
    mean = group.mean_and_spread("score")[0]
    return not (group.final and math.isfinite(mean)), _last_if_unknown(mean)


def _best(groups: Sequence[Group]) -> tuple[dict[str, Lead], dict[str, Lead]]:
    """The leads on every data set, and over each setting, from ranked groups."""
    leagues = dict.fromkeys(group.entries[0].league for group in groups)
    best: dict[str, Lead] = {}
    behind: dict[str, Lead] = {}
    for league in leagues:
        ranked = [group for group in groups if group.entries[0].league == league and group.scores()]
        if ranked:
            name = league.partition(",")[0]
            alone = sum(other.partition(",")[0] == name for other in leagues) == 1
            behind |= {group.label: _lead(ranked[0], group) for group in ranked[1:]}
            best[name if alone else league] = behind[ranked[1].label] if len(ranked) > 1 else _lead(ranked[0])
    return best, behind


def _lead(first: Group, second: Group | None = None) -> Lead:
    run = first.best()
    if second is None:
        return Lead(first, run)
    ours, theirs = first.scores(), second.scores()
    pairs = [(theirs[seed], ours[seed]) for seed in ours if seed in theirs]
    if not pairs:
        return Lead(first, run, second, fmean(theirs.values()) - fmean(ours.values()))
    gaps = [other - own for other, own in pairs]
    if len(pairs) == 1:
        return Lead(first, run, second, gaps[0], shared=1)
    error = stdev(gaps) / math.sqrt(len(gaps))
    t = abs(fmean(gaps)) / error if error else math.inf
    pvalue = 2 * float(student.sf(t, len(gaps) - 1)) if any(gaps) else 1.0
    return Lead(first, run, second, fmean(gaps), error, pvalue, len(pairs))


def _typed_labels(typed: Sequence[Mapping[str, str] | None]) -> list[str] | None:
    """What was typed for each group but not for all; None if that does not distinguish them."""
    known = [one for one in typed if one is not None]
    if len(known) < len(typed):
        return None
    keys = _differing(known)
    labels = [", ".join(f"{key}={one[key]}" for key in keys if key in one) or "defaults" for one in known]
    return labels if keys and len(set(labels)) == len(labels) else None


def _labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names that distinguish the groups: the classes that differ, then as few values as necessary."""
    differing = _differing(settings)
    chosen = [key for key in differing if key.endswith("._target_")]
    others = [key for key in differing if key not in chosen]

    def labels(keys: Sequence[str]) -> list[str]:
        return [", ".join(_named(key, group[key]) for key in keys if key in group) for group in settings]

    while len(set(labels(chosen))) < len(settings):
        chosen.append(max(others, key=lambda key: len(set(labels([*chosen, key])))))  # the first of equals
        others.remove(chosen[-1])
    return [label or "base setting" for label in labels(chosen)]


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys, in order, by which some of the groups differ."""
    keys = dict.fromkeys(key for group in settings for key in group)
    return [key for key in keys if len({_shown(group.get(key)) if key in group else "" for group in settings}) > 1]


def _named(key: str, value: Any) -> str:
    return _shown(value) if key.endswith("._target_") else f"{key}={_shown(value)}"


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text.rpartition(".")[2] if text.startswith(("wgan_lip.", "torch.", f"{IN_PYTHON}.")) else text


def _last_if_unknown(value: float) -> float:
    return value if math.isfinite(value) else math.inf
