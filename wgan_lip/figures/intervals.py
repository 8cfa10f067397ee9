"""Intervals of W1 over training and time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import ArrayLike

from wgan_lip.figures.style import BLUE, INK, VERMILION, legend, light, styled
from wgan_lip.utils.checks import InputError

WIDTH_FLOOR = 1e-15  # relative widths below this are smaller than float64's rounding


@styled
def interval_history(
    records: Iterable[Mapping[str, float]], *, floor: float | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """Draws the certified interval of W1, and the exact value in it, against generator steps.

    Arguments:
        records: As :func:`wgan_lip.runs.tracking.read_records` returns them; those without an audit are skipped.
        floor: W1 between two real sample sets, what sampling alone explains.
        title: Title of the figure.
    """
    audits = [record for record in records if "w1/lower" in record or "w1/exact" in record]
    steps = np.array([record["step"] for record in audits])
    lower, exact, upper = np.array(
        [[record.get(tag, math.nan) for record in audits] for tag in ("w1/lower", "w1/exact", "w1/upper")]
    )
    upper[np.isinf(upper)] = math.nan
    marker = "o" if len(audits) <= 40 else None
    figure = Figure(figsize=(6.8, 4.0), layout="constrained")
    axes = figure.add_subplot()
    if audits:
        axes.fill_between(steps, lower, upper, color=BLUE, alpha=0.2, linewidth=0, label="certified interval")
        for bound in (lower, upper):
            axes.plot(steps, bound, color=BLUE, linewidth=0.8, marker=marker, markersize=2)
        if np.isfinite(exact).any():
            axes.plot(steps, exact, color=VERMILION, linewidth=1.6, marker=marker, markersize=3, label="exact $W_1$")
    else:
        axes.text(0.5, 0.5, "no audit was recorded", ha="center", va="center", transform=axes.transAxes)
    if floor is not None:
        axes.axhline(floor, color=INK, linestyle=(0, (5, 3)), linewidth=1, label="floor of real samples")
    axes.set(xlabel="generator step", ylabel="$W_1$ (data units)")
    axes.set_ylim(bottom=min(0.0, float(np.nanmin(lower, initial=0.0))))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    light(axes)
    legend(figure, axes, title)
    return figure


@styled
def interval_over_time(
    seconds: ArrayLike, lower: ArrayLike, upper: ArrayLike, *, exact: float | None = None,
    estimates: ArrayLike | None = None, title: str | None = None, truth: float | None = None,
) -> Figure:  # fmt: skip
    """Draws the certified interval of W1 as it narrows over time, and below it its relative width.

    Bounds stay valid: a bound is drawn from its time on, and the best one so far is shown. Time is on a logarithmic
    axis if it spans more than a factor of 30. Until there is an upper bound, the interval is unbounded and its relative
    width is 1.

    Arguments:
        seconds: Times at which the bounds were known, in order, shape (k,).
        lower: Lower bounds, shape (k,).
        upper: Upper bounds, shape (k,), possibly infinite at first.
        exact: W1 of the two sample sets, if known.
        estimates: A critic's values on held-out samples, shape (k,), NaN if there is none; they are not bounds of W1.
        title: Title of the figure.
        truth: W1 of the two laws of the samples, if known; it may be outside the interval.

    Raises:
        InputError: Arrays of other shapes, NaN among times or bounds, or times that are not finite and in order.
    """
    times, lower, upper = (np.asarray(values, dtype=np.float64) for values in (seconds, lower, upper))
    estimates = np.full(times.shape, math.nan) if estimates is None else np.asarray(estimates, dtype=np.float64)
    if times.ndim != 1 or not times.shape == lower.shape == upper.shape == estimates.shape:
        shapes = ", ".join(str(values.shape) for values in (times, lower, upper, estimates))
        raise InputError(f"seconds, lower, upper and estimates must have one shape (k,), not {shapes}.")
    if not (np.isfinite(times).all() and (np.diff(times) >= 0).all()) or np.isnan([lower, upper]).any():
        raise InputError("seconds must be finite and in order, and bounds must not be NaN. Sort the records by time.")
    figure = Figure(figsize=(6.8, 5.4), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    if len(times):
        _narrowing(axes, below, times, np.maximum.accumulate(lower), np.minimum.accumulate(upper), estimates)
    else:
        axes.text(0.5, 0.5, "no interval was recorded", ha="center", va="center", transform=axes.transAxes)
    if exact is not None:
        axes.axhline(exact, color=VERMILION, linewidth=1.4, label="exact $W_1$ of the samples")
    if truth is not None:
        axes.axhline(truth, color=INK, linestyle=(0, (5, 3)), linewidth=1, label="known $W_1$ of the two laws")
    finite = [lower, upper[upper <= 3 * upper.min(initial=math.inf)], estimates, exact, truth]
    known = np.concatenate([np.atleast_1d(values) for values in finite if values is not None])
    known = known[np.isfinite(known)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    margin = 0.06 * (high - low or abs(high) or 1.0)
    axes.set(ylim=(low - margin, high + margin), ylabel="$W_1$ (data units)")
    below.set(ylabel="relative width", xlabel="time (s)")
    for panel in (axes, below):
        light(panel)
    legend(figure, axes, title)
    return figure


def _narrowing(
    axes: Axes, below: Axes, times: np.ndarray, lower: np.ndarray, upper: np.ndarray, estimates: np.ndarray
) -> None:
    """The two panels of :func:`interval_over_time`, all arrays of shape (k,), k > 0."""
    positive = times[times > 0]
    logarithmic = len(positive) > 1 and positive[-1] > 30 * positive[0]
    if logarithmic:
        times = np.maximum(times, positive[0])  # bounds known at time 0 are drawn from the left end
        axes.set_xscale("log")
        below.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        end = times[-1] * (times[-1] / times[0]) ** 0.05
    else:
        end = times[-1] + (0.05 * float(np.ptp(times)) or 1.0)
    axes.set_xlim(times[0], end)
    until = np.append(times, end)  # the last interval is drawn up to the end
    lower, upper = np.append(lower, lower[-1]), np.append(upper, upper[-1])
    bounded = np.isfinite(upper)
    width = np.ones(len(until))
    np.divide(upper - lower, upper, out=width, where=bounded & (upper > 0))
    width[upper == 0] = 0.0

    top = np.where(bounded, upper, 1e3 * np.abs([*lower, *upper[bounded], 1.0]).max())  # off the picture
    axes.fill_between(until, lower, top, step="post", color=BLUE, alpha=0.2, linewidth=0, label="certified interval")
    for bound in (lower, np.where(bounded, upper, math.nan)):
        axes.step(until, bound, where="post", color=BLUE, linewidth=1.2)
    if np.isfinite(estimates).any():
        axes.plot(times, estimates, ".", color="#CC79A7", markersize=5, label="critic on held-out samples")
    below.step(until, np.maximum(width, WIDTH_FLOOR), where="post", color=BLUE, linewidth=1.6)
    share = f"{100 * width[-1]:.2g}" if width[-1] < 0.995 else "100"
    below.set_title(f"(upper − lower) / upper: {share} % at the end", loc="left", fontsize=10)
    narrow, wide = max(width.min(), WIDTH_FLOOR), max(width.max(), WIDTH_FLOOR)
    rounding = narrow < 1e3 * WIDTH_FLOOR
    below.set(yscale="log", ylim=(WIDTH_FLOOR / 10 if rounding else narrow / 2, 2 * wide))
    below.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if wide < 30 * narrow else (1,)))
    below.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    below.yaxis.set_minor_formatter(NullFormatter())
    if rounding:
        below.axhline(WIDTH_FLOOR, color=INK, linestyle=(0, (1, 2)), linewidth=1)
        below.annotate("rounding of float64", (times[0], WIDTH_FLOOR), (4, 3), textcoords="offset points", fontsize=9)
