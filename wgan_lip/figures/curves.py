"""Curves of a run, and scores of runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullFormatter,
    StrMethodFormatter,
    SymmetricalLogLocator,
)

from wgan_lip.figures.style import BLUE, INK, MARKS, VERMILION, light, styled


@styled
def training_curves(records: Iterable[Mapping[str, float]]) -> dict[str, Figure]:
    """Draws a run against generator steps: the critic's estimate, the generator's excess, slopes, the constant.

    Arguments:
        records: As :func:`wgan_lip.runs.tracking.read_records` returns them. Values that are not finite break a curve.

    Returns:
        `value`, `score`, `slope` and `constant`, small figures of one panel each.
    """
    records = list(records)
    drawn = {name: Figure(figsize=(4.4, 3.0), layout="constrained") for name in ("value", "score", "slope", "constant")}
    value, score, slope, constant = (figure.subplots() for figure in drawn.values())
    _curve(value, records, "w1/critic", BLUE, "critic's estimate", every=True)
    _curve(value, records, "w1/exact", VERMILION, "exact $W_1$ of the held-out batch")
    value.set(title="What the critic sees", ylabel="data units")
    _curve(score, records, "eval/excess", BLUE, "$W_1$ in excess of the floor")
    _curve(score, records, "eval/excess_real", VERMILION, "real samples")
    score.axhline(0.0, color=INK, linestyle=(0, (5, 3)), linewidth=1, label="equal laws, on average: 0")
    score.set(title="How far the generator is", ylabel="data units")
    _curve(slope, records, "critic/grad_norm", BLUE, "mean along transport rays")
    slope.axhline(1.0, color=INK, linestyle=(0, (5, 3)), linewidth=1, label="KR potential: 1")
    slope.set(title="How steep the critic is", ylabel="gradient norm", ylim=(0, None))
    _curve(constant, records, "certificate/lipschitz", BLUE, "certified upper bound")
    constant.axhline(1.0, color=INK, linestyle=(0, (5, 3)), linewidth=1, label="1-Lipschitz")
    constant.set(title="What is proved about it", ylabel="Lipschitz constant")
    low, high = constant.get_ylim()
    constant.set_ylim(min(low, 0.9), max(high, 1.02))  # so that differences in the sixth digit look small
    for axes in (value, score, slope, constant):
        axes.set(xlabel="generator step")
        axes.title.set(horizontalalignment="left", x=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        light(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8.5)
    return drawn


def _curve(
    axes: Axes, records: Sequence[Mapping[str, float]], tag: str, color: str, label: str, *, every: bool = False
) -> None:
    points = [(record["step"], record[tag]) for record in records if tag in record]
    if not points:
        return
    steps, values = np.array(points, dtype=np.float64).T
    values[~np.isfinite(values)] = math.nan
    marker = "o" if len(points) <= 40 and not every else None
    axes.plot(steps, values, color=color, linewidth=1.4, marker=marker, markersize=3, label=label)


def _mean_curve(
    runs: Sequence[Sequence[tuple[float, float, float]]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean seconds, samples, and lowest, mean and highest score where all runs have scores, shape (k,) each."""
    curves = [
        np.array([point for point in run if point[0] > 0 and point[1] > 0 and math.isfinite(point[2])]).reshape(-1, 3)
        for run in runs
    ]
    curves = [curve for curve in curves if len(curve)]
    if not curves:
        return (np.zeros(0),) * 5
    first, last = max(curve[0, 1] for curve in curves), min(curve[-1, 1] for curve in curves)
    at = np.unique(np.concatenate([curve[:, 1] for curve in curves]))
    at = at[(at >= first) & (at <= last)]
    seconds, scores = (
        np.array([np.interp(at, curve[:, 1], curve[:, column]) for curve in curves]) for column in (0, 2)
    )  # fmt: skip
    return seconds.mean(axis=0), at, scores.min(axis=0), scores.mean(axis=0), scores.max(axis=0)


@styled
def score_against(
    runs: Mapping[str, Sequence[Sequence[tuple[float, float, float]]]], *, by: str = "seconds",
    quantity: str = "excess over the floor",
) -> Figure:  # fmt: skip
    """Draws the scores of groups of runs against time, or against generated samples.

    The score axis is linear around zero and, on both sides, logarithmic beyond a thirtieth of the largest score.

    Arguments:
        runs: For each group, by its label, its runs: (seconds, samples, score) triples in order. A group has the same
            colour and line against either axis. For several runs, the mean is drawn with a band from the lowest to the
            highest score, at equal numbers of samples and where all of them have scores; time is their mean time.
        by: `seconds`, or `samples`, which do not depend on the machine; on a logarithmic axis.
        quantity: What the scores are.
    """
    known = [abs(score) for group in runs.values() for run in group for _, _, score in run if math.isfinite(score)]
    linear = max(known, default=0.0) / 30 or 1.0
    figure = Figure(figsize=(4.8, 3.6 + 0.22 * len(runs)), layout="constrained")
    axes = figure.subplots()
    for index, (label, group) in enumerate(runs.items()):
        color, marker, line = MARKS[index % len(MARKS)]
        seconds, samples, low, mean, high = _mean_curve(group)
        at = seconds if by == "seconds" else samples
        if not len(at):
            continue
        axes.plot(
            at, mean, color=color, linestyle=line, linewidth=1.4, marker=marker if len(at) <= 40 else None,
            markersize=3.5, label=label if len(label) <= 52 else f"{label[:50]} …",
        )  # fmt: skip
        if len(group) > 1:
            axes.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)
    axes.axhline(0.0, color=INK, linestyle=(0, (5, 3)), linewidth=1, zorder=0)
    axes.set(xscale="log", xlabel="time of training" if by == "seconds" else "generated samples seen", ylabel=quantity)
    axes.set_yscale("symlog", linthresh=linear, linscale=0.5)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
    axes.xaxis.set_major_formatter(lambda at, _: told_time(at) if by == "seconds" else told_count(at))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=linear, subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    light(axes)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=1, frameon=False, fontsize=9)
    return figure


def told_time(seconds: float) -> str:
    """`0.5 s`, `20 s`, `10 min`, `2 h`: the label of a tick."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:g} s"


def told_count(count: float) -> str:
    """`500`, `20 k`, `5 M`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:g} {unit}"
    return f"{count:g}"
