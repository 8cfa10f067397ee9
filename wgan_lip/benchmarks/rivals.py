"""Suite rivals: one generator trained against certified and usual critics, in turns, over several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from wgan_lip import figures
from wgan_lip.benchmarks.cases import percent, some_of
from wgan_lip.benchmarks.machine import write_page, write_results
from wgan_lip.benchmarks.wgan import EXCESS_HEADS, excess_of, recall_of, train_case
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.tables import markdown_table

__all__ = ["CRITICS", "EXPERIMENTS", "measure"]

EXPERIMENTS = ("gaussians8", "moons", "digits")
_BY_SHAPE = ("critic_optimizer.lr=0.05",)  # what suits them where an experiment is tuned for cones
_USUAL = ("critic_optimizer.lr=0.1",)  # for them 1e-3, see parameter_groups
CRITICS: dict[str, tuple[str, ...]] = {
    "resnet": ("critic=resnet", *_BY_SHAPE),
    "cones": ("critic=cones_plane", "training.start_at_data=true", "training.renew_every=25"),
    "sorting": ("critic=sorting", *_BY_SHAPE),
    "gradient_penalty": ("critic=gradient_penalty", *_USUAL, "critic_optimizer.betas=[0.0,0.9]"),
    "one_sided_penalty": ("critic=one_sided_penalty", *_USUAL, "critic_optimizer.betas=[0.0,0.9]"),
    "spectral_norm": ("critic=spectral_norm", *_USUAL),
    "clipped": ("critic=clipped", *_USUAL),
    "groupsort": ("critic=groupsort", *_USUAL),
}
"""Name → the settings in which it differs from the experiment: the critic, and the optimiser that suits it."""


def measure(seeds: list[int], overrides: list[str], out: Path) -> str:
    """Trains every experiment against every critic; draws `rivals.png`.

    Generator, its optimiser, batches and numbers of steps are those of the experiment. A run that stops on values
    that are not finite counts as stopped, and the suite goes on.

    Arguments:
        seeds: Each case once per seed.
        overrides: `experiments=gaussians8,moons`, `critics=clipped,groupsort`; all by default. All others are passed on
            to `wgan-lip train`.
        out: The suite's folder. Runs that finished there are not trained again.
    """
    chosen: dict[str, Sequence[str]] = {"experiments": EXPERIMENTS, "critics": tuple(CRITICS)}
    passed = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key in chosen:
            chosen[key] = some_of({"experiments": EXPERIMENTS, "critics": CRITICS}[key], key)(value)
        else:
            passed.append(override)
    rows: list[dict[str, Any]] = []
    for experiment, seed, critic in product(chosen["experiments"], dict.fromkeys(seeds), chosen["critics"]):
        arguments = [f"experiment={experiment}", f"seed={seed}", *CRITICS[critic], *passed]
        labels = {"experiment": experiment, "critic": critic, "seed": seed}
        name = f"{experiment}-{critic}-{seed}"
        rows.append({**labels, **train_case(out / name, arguments, may_stop=True)})
        critics = {name: CRITICS[name] for name in chosen["critics"]}
        write_results("rivals", seeds, out, overrides, threads=1, critics=critics, rows=rows)
    if not any("score" in row for row in rows):
        raise InputError("No run finished. See the status.json of each for the reason.")
    _draw(rows, out)
    table = _table(rows)
    parts = [table, "![excess of one generator against several critics, by seed](rivals.png)", READING]
    write_page(out, title="One generator against several critics", how="", parts=parts)
    return table


READING = """\
Generator, its optimiser, batches and numbers of steps are those of the experiment, the critic alone differs. Seconds
are those of a machine with other work beside it: they compare, and are no more."""


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = ["data", "critic", "guarantee", *EXCESS_HEADS, "W1 over floor", "stopped", "within 3σ", "seconds"]
    lines = []
    for experiment, critic in dict.fromkeys((row["experiment"], row["critic"]) for row in rows):
        of = [row for row in rows if (row["experiment"], row["critic"]) == (experiment, critic)]
        done = [row for row in of if "score" in row]
        ratios = [row["score"]["ratio"] for row in done]
        within = [row["modes"]["within"] for row in done if row["modes"]]
        cells = [experiment, critic, done[0]["guarantee"] if done else ""]
        cells += [*excess_of(done), recall_of(done)] if done else [""] * len(EXCESS_HEADS)
        cells += [f"{fmean(ratios):.2f}" if ratios else ""]
        cells += [f"{len(of) - len(done)} of {len(of)}", percent(fmean(within) if within else None)]
        cells += [f"{fmean(row['training_seconds'] for row in done):.0f}" if done else ""]
        lines.append(cells)
    return markdown_table(heads, lines) + "\n"


def _draw(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Excess as a share of the floor, a line an experiment and seed, a mark a critic."""
    marks: dict[str, dict[str, float]] = {}
    for row in rows:
        if "score" in row:
            subject = f"{row['experiment']}, seed {row['seed']}"
            marks.setdefault(row["critic"].replace("_", " "), {})[subject] = (
                row["score"]["excess"] / row["score"]["floor"]
            )
    quantity = "$W_1$ in excess of its floor, as a share of the floor"
    figure = figures.score_dots(marks, quantity=quantity, title="One generator, several critics", mark=0.0)
    figures.save(figure, out / "rivals.png", dpi=130)
