"""Curves of a run, and scores of runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    StrMethodFormatter,
    SymmetricalLogLocator,
)

from wgan_lip.figures.style import BLUE, INK, MARKS, VERMILION, light, styled


@styled
def training_curves(records: Iterable[Mapping[str, float]]) -> dict[str, Figure]:
    """Draws a run against the generator steps: what the critic sees, how far the generator is, slopes, the constant.

    Arguments:
        records: As :func:`wgan_lip.runs.tracking.read_records` gives them. Values that are not finite break a curve.

    Returns:
        `value`, `score`, `slope` and `constant`, small figures of one panel each.
    """
    records = list(records)
    drawn = {name: Figure(figsize=(4.4, 3.0), layout="constrained") for name in ("value", "score", "slope", "constant")}
    value, score, slope, constant = (figure.subplots() for figure in drawn.values())
    _curve(value, records, "w1/critic", BLUE, "critic's estimate", every=True)
    _curve(value, records, "w1/exact", VERMILION, "exact $W_1$ of the held batch")
    value.set(title="What the critic sees", ylabel="data units")
    _curve(score, records, "eval/excess", BLUE, "$W_1$ in excess of the floor")
    _curve(score, records, "eval/excess_real", VERMILION, "real samples")
    score.axhline(0.0, color=INK, linestyle=(0, (5, 3)), linewidth=1, label="equal laws, in the mean: 0")
    score.set(title="How far the generator is", ylabel="data units")
    _curve(slope, records, "critic/grad_norm", BLUE, "mean along transport rays")
    slope.axhline(1.0, color=INK, linestyle=(0, (5, 3)), linewidth=1, label="a potential: 1")
    slope.set(title="How steep the critic is", ylabel="gradient norm", ylim=(0, None))
    _curve(constant, records, "certificate/lipschitz", BLUE, "certified upper bound")
    constant.axhline(1.0, color=INK, linestyle=(0, (5, 3)), linewidth=1, label="1-Lipschitz")
    constant.set(title="What is proved of it", ylabel="Lipschitz constant")
    low, high = constant.get_ylim()
    constant.set_ylim(min(low, 0.9), max(high, 1.02))  # so that differences in the sixth digit look it
    for axes in (value, score, slope, constant):
        axes.set(xlabel="generator step")
        axes.title.set(horizontalalignment="left", x=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
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


@styled
def _mean_curve(
    runs: Sequence[Sequence[tuple[float, float, float]]], column: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where all runs have scores: positions (k,), and lowest, mean and highest score there, between audits by lines."""
    curves = [
        np.array([point for point in run if point[column] > 0 and math.isfinite(point[2])]).reshape(-1, 3)
        for run in runs
    ]
    curves = [curve for curve in curves if len(curve)]
    if not curves:
        return (np.zeros(0),) * 4
    first, last = max(curve[0, column] for curve in curves), min(curve[-1, column] for curve in curves)
    at = np.unique(np.concatenate([curve[:, column] for curve in curves]))
    at = at[(at >= first) & (at <= last)]
    scores = np.array([np.interp(at, curve[:, column], curve[:, 2]) for curve in curves])
    return at, scores.min(axis=0), scores.mean(axis=0), scores.max(axis=0)


def score_against(
    runs: Mapping[str, Sequence[Sequence[tuple[float, float, float]]]], *, quantity: str = "excess over the floor"
) -> Figure:
    """Draws the scores of groups of runs against time and against generated samples.

    Times are on a logarithmic axis, and so are scores but for the smallest, of either sign, around zero.

    Arguments:
        runs: For each group, by its label, its runs: (seconds, samples, score) triples in order. A group keeps its
            colour and its line in both panels. Of several runs, the mean is drawn, and a band from the lowest to the
            highest, where all of them have scores.
        quantity: What the scores are.
    """
    known = [abs(score) for group in runs.values() for run in group for _, _, score in run if math.isfinite(score)]
    linear = max(known, default=0.0) / 30 or 1.0  # what lies below is drawn on an even scale
    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (axes, column, name) in enumerate(
        zip(panels, (0, 1), ("seconds of training", "generated samples seen"), strict=True)
    ):
        for index, (label, group) in enumerate(runs.items()):
            color, marker, line = MARKS[index % len(MARKS)]
            at, low, mean, high = _mean_curve(group, column)
            if not len(at):
                continue
            axes.plot(
                at, mean, color=color, linestyle=line, linewidth=1.4, marker=marker if len(at) <= 40 else None,
                markersize=3.5, label=label if panel == 0 else None,
            )  # fmt: skip
            if len(group) > 1:
                axes.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)
        axes.axhline(0.0, color=INK, linestyle=(0, (5, 3)), linewidth=1, zorder=0)
        axes.set(xscale="log", xlabel=name)
        axes.set_yscale("symlog", linthresh=linear, linscale=0.5)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=7))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}") if column == 0 else EngFormatter(sep=""))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=linear, subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        light(axes)
    panels[0].set_ylabel(quantity)
    handles, names = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside lower center", ncols=min(3, len(handles)), frameon=False, fontsize=9)
    return figure
