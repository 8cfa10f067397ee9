"""Suite scores: which score sees which damage, on real samples that are damaged on purpose."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

from wgan_lip import figures
from wgan_lip.benchmarks.cases import some_of
from wgan_lip.benchmarks.machine import machine, threads, write_results
from wgan_lip.data import CIFAR10, MNIST, Digits, FiniteSource, Gaussians8, ImageFolder
from wgan_lip.metrics import (
    Features,
    Floor,
    Pool,
    blurred,
    features_of,
    frechet_wavelet_distance,
    memorisation,
    mode_coverage,
    on_features,
    similarity,
)
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.files import write_whole
from wgan_lip.utils.tables import markdown_table

__all__ = ["CASES", "DAMAGES", "measure"]

CASES = ("gaussians8", "digits", "mnist", "cifar10")
DRAWS = 10  # of real samples against real ones, and of damaged ones in their place
QUERIES = 300  # samples of a draw whose nearest training sample is sought
DIRECTIONS = 256
SEEN = 3.0  # standard errors
HIGHER = ("precision", "recall", "density", "coverage", "modes covered", "within 3σ", "width of modes")  # is better
SPLITS = {"digits": (597, 600, 300), "mnist": (8000, 3000, 1000), "cifar10": (4000, 1500, 500)}
"""Case → training samples, samples on each of the other two sides, samples a draw."""


@dataclass(frozen=True)
class Case:
    """Real samples in three disjoint parts, and what they are scored on.

    Attributes:
        train: What a generator might have been trained on, shape (N, d).
        test: Held-out samples t, shape (m, d).
        fresh: Samples in the generator's place, undamaged, shape (m, d).
        labels: Of the samples in `fresh`; the modes, in the plane.
        size: Samples of a draw.
        image_shape: (c, h, w) of images.
        law: The mixture in the plane.
        features: Name → features of images.
        missing: Why features are missing, by name.
    """

    train: Tensor
    test: Tensor
    fresh: Tensor
    labels: Tensor
    size: int
    image_shape: tuple[int, int, int] | None = None
    law: Gaussians8 | None = None
    features: Mapping[str, Features] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


Damage = Callable[[Case, torch.Generator], Tensor]


def _clipped(case: Case, samples: Tensor) -> Tensor:
    return samples if case.image_shape is None else samples.clamp(0, 1)


def _shape(case: Case) -> tuple[int, int, int]:
    """(c, h, w), for what is done to images alone; see :data:`OF_IMAGES`."""
    if case.image_shape is None:
        raise InputError("This damage is for images, not for samples of the plane.")
    return case.image_shape


def _blur(sigma: float) -> Damage:
    return lambda case, rng: blurred(case.fresh, _shape(case), sigma)


def _noise(case: Case, rng: torch.Generator) -> Tensor:
    level = 0.05 if case.law is None else 0.5 * case.law.mode_std
    return _clipped(case, case.fresh + level * torch.randn(case.fresh.shape, generator=rng))


def _brighter(case: Case, rng: torch.Generator) -> Tensor:
    return _clipped(case, case.fresh + (0.05 if case.law is None else 0.5 * case.law.mode_std))


def _lost(case: Case, rng: torch.Generator) -> Tensor:
    """Half of the classes, or modes, are missing."""
    kept = (case.labels < (int(case.labels.max()) + 1) // 2).nonzero().flatten()
    return case.fresh[kept[torch.randint(len(kept), (len(case.fresh),), generator=rng)]]


def _narrowed(case: Case, rng: torch.Generator) -> Tensor:
    """Every sample moves a quarter of its way to the mean of its class, or its mode."""
    means = torch.stack([case.fresh[case.labels == label].mean(dim=0) for label in case.labels.unique()])
    return torch.lerp(case.fresh, means[case.labels], 0.25)


def _shuffled(case: Case, rng: torch.Generator) -> Tensor:
    """Four blocks to a side change places, two on images below 28 pixels."""
    c, h, w = _shape(case)
    count = 4 if min(h, w) >= 28 else 2
    blocks = case.fresh.view(-1, c, count, h // count, count, w // count).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = torch.rand(blocks.shape[:2], generator=rng).argsort(dim=1)
    blocks = blocks[torch.arange(len(blocks))[:, None], order].unflatten(1, (count, count))
    return blocks.permute(0, 3, 1, 4, 2, 5).reshape(len(blocks), -1)


def _repeated(case: Case, rng: torch.Generator) -> Tensor:
    """A tenth of the samples, each ten times."""
    some = case.fresh[torch.randperm(len(case.fresh), generator=rng)[: len(case.fresh) // 10]]
    return some.repeat(10, 1)[torch.randperm(10 * len(some), generator=rng)]


def _copies(case: Case, rng: torch.Generator) -> Tensor:
    return case.train[torch.randperm(len(case.train), generator=rng)[: len(case.fresh)]]


def _few_copies(case: Case, rng: torch.Generator) -> Tensor:
    """A fifth of the samples are those of the training set."""
    copied = torch.rand(len(case.fresh), 1, generator=rng) < 0.2
    rows = torch.randint(len(case.train), (len(case.fresh),), generator=rng)
    return torch.where(copied, case.train[rows], case.fresh)


DAMAGES: dict[str, Damage] = {
    "blur σ 0.5": _blur(0.5),
    "blur σ 1": _blur(1.0),
    "blur σ 2": _blur(2.0),
    "noise": _noise,
    "brighter": _brighter,
    "shuffled": _shuffled,
    "lost modes": _lost,
    "narrowed": _narrowed,
    "repeated": _repeated,
    "copies": _copies,
    "a fifth copies": _few_copies,
}
"""Name → damaged samples, of a case and a generator of random numbers."""
OF_IMAGES = ("blur σ 0.5", "blur σ 1", "blur σ 2", "shuffled")
PICTURED = ("real", *(name for name in DAMAGES if name not in ("copies", "a fifth copies", "repeated")))


def measure(seeds: list[int], overrides: list[str], out: Path) -> str:
    """Damages real samples and scores them in the generator's place; writes a page and pictures.

    All real samples of a case are shuffled and cut into three parts: training samples, held-out ones, and those that
    are damaged. A score's standard error is the standard deviation of its value over ten draws of undamaged samples
    against held-out ones; a damage moves the score by the difference of the means in these.

    Arguments:
        seeds: Of the cut, the draws and the damages; figures are means over them.
        overrides: `cases=digits,mnist`; all by default. `mnist=DIR`, the root of torchvision's MNIST; `cifar10=DIR`,
            that of its CIFAR-10, or a folder of images with `train/` and `test/`. Data that are not there are left
            out, and the page says so.
        out: The suite's folder.
    """
    chosen: Sequence[str] = CASES
    places = {"mnist": "~/.cache/wgan_lip", "cifar10": "~/.cache/wgan_lip"}
    for override in overrides:
        key, _, value = override.partition("=")
        if key == "cases":
            chosen = some_of(CASES, key)(value)
        elif key in places and value:
            places[key] = value
        else:
            raise InputError(f"Overrides must be cases=…, mnist=DIR or cifar10=DIR, not {override}.")
    rows: list[dict[str, Any]] = []
    absent: dict[str, str] = {}
    shown: dict[str, Case] = {}
    with threads(1):
        for name in chosen:
            for seed in dict.fromkeys(seeds):
                try:
                    case = _case(name, places, seed)
                except InputError as error:
                    absent[name] = str(error)
                    break
                absent |= {f"{name}, {features}": why for features, why in case.missing.items()}
                shown.setdefault(name, case)
                rows += [{"case": name, "seed": seed, **row} for row in _rows(case, seed)]
                write_results("scores", seeds, out, overrides, draws=DRAWS, absent=absent, rows=rows)
    if not rows:
        raise InputError(f"There are no data for any case: {'; '.join(absent.values())}")
    write_results("scores", seeds, out, overrides, draws=DRAWS, absent=absent, rows=rows)
    moved = _moved(rows)
    for name, case in shown.items():
        title = f"{name}: by how many standard errors a damage makes a score worse"
        figures.save(figures.score_matrix(moved[name], seen=SEEN, title=title), out / f"{name}.png", dpi=110)
        if case.image_shape is not None:
            figures.save(_damaged_images(case), out / f"{name}_damages.png", dpi=110)
    table = _tables(moved)
    write_whole(out / "README.md", _page(seeds, overrides, table, moved, absent, shown, rows).encode())
    return table


def _case(name: str, places: Mapping[str, str], seed: int) -> Case:
    """The samples of a case, cut anew. Raises :class:`InputError` where they are not there."""
    if name == "gaussians8":
        law = Gaussians8()
        train, test, fresh = law.reference(5000 + 10_000 + 10_000, seed).split([5000, 10_000, 10_000])
        return Case(train, test, fresh, torch.cdist(fresh, law.modes).argmin(dim=1), 1000, law=law)
    source = _source(name, places[name]) if name in places else Digits()
    if source.train_labels is None or source.test_labels is None or source.image_shape is None:
        raise InputError(f"The images of {name} in {places[name]} have no labels. Put them into one folder per class.")
    count, side, size = SPLITS[name]
    samples, labels = torch.cat([source.train, source.test]), torch.cat([source.train_labels, source.test_labels])
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    if len(order) < count + 2 * side:
        raise InputError(f"At least {count + 2 * side} images of {name} are needed; there are {len(order)}.")
    parts = order[: count + 2 * side].split([count, side, side])
    train, test, fresh = (samples[part] for part in parts)
    cut = FiniteSource(train, test)
    cut.image_shape, cut.low, cut.high = source.image_shape, 0.0, 1.0
    cut.train_labels, cut.test_labels = labels[parts[0]], labels[parts[1]]
    features: dict[str, Features] = {}
    missing: dict[str, str] = {}
    for kind in ("classifier", "lite0") if min(source.image_shape[1:]) > 8 else ("classifier",):
        try:
            if (found := features_of(kind, cut)) is not None:
                features[kind] = found
        except InputError as error:
            missing[kind] = str(error)
    return Case(train, test, fresh, labels[parts[2]], size, source.image_shape, None, features, missing)


def _source(name: str, place: str) -> FiniteSource:
    folder = Path(place).expanduser()
    if name == "cifar10" and (folder / "train").is_dir():
        return ImageFolder(str(folder / "train"), test_path=str(folder / "test"))
    return (MNIST if name == "mnist" else CIFAR10)(root=place, download=False, test_size=None)


def _rows(case: Case, seed: int) -> list[dict[str, Any]]:
    """A row for every score and damage: means, standard error, and by how many of these the damage makes it worse."""
    score = _scorer(case, seed)
    real = score(case.fresh)
    rows = []
    for name, damage in DAMAGES.items():
        if name in OF_IMAGES and case.image_shape is None:
            continue
        found = score(damage(case, torch.Generator().manual_seed(seed)))
        for (space, what), values in found.items():
            usual, error = fmean(real[space, what]), stdev(real[space, what])
            change = fmean(values) - usual
            worse = -change if what in HIGHER else change
            moved = worse / error if error > 0 else math.copysign(math.inf, worse) if worse else 0.0
            rows.append({
                "space": space, "score": what, "damage": name, "real": usual, "error": error,
                "damaged": fmean(values), "moved": max(-9999.0, min(moved, 9999.0)),
            })  # fmt: skip
    return rows


def _scorer(case: Case, seed: int) -> Callable[[Tensor], dict[tuple[str, str], list[float]]]:
    """(space, score) → its values over the draws, of samples in the generator's place."""
    n = case.size
    spaces: dict[str, Callable[[Tensor], Tensor]] = {"samples": lambda samples: samples}
    spaces |= {name: features.embedded for name, features in case.features.items()}
    tests = {space: Pool(embed(case.test)) for space, embed in spaces.items()}
    reals = {space: embed(case.train[: 3 * n]) for space, embed in spaces.items()}
    floors = {space: Floor(tests[space], reals[space], size=n // 2, draws=DRAWS, seed=seed) for space in spaces}

    def scored(samples: Tensor) -> dict[tuple[str, str], list[float]]:
        found: dict[tuple[str, str], list[float]] = {}
        for space, embed in spaces.items():
            pool = Pool(embed(samples))
            floor = floors[space]
            for k, (excess, w1) in enumerate(floor.each(pool)):
                x, y = pool.take(n, k, seed), tests[space].take(n, k, seed)
                values = {"excess of W1": excess, "W1 over floor": w1 / floor.floors[k]}
                if space == "samples":
                    values |= similarity(x, y, directions=DIRECTIONS) | _of_samples(case, x, y)
                else:
                    values |= on_features(x, y, directions=DIRECTIONS)
                for name, value in values.items():
                    found.setdefault((space, NAMES.get(name, name)), []).append(value)
        return found

    return scored


TOLD = (
    "W1 over floor", "excess of W1", "excess of W1, classifier", "excess of W1, lite0", "KID, classifier", "KID, lite0",
)  # fmt: skip
NAMES = {"kid": "KID", "mmd": "MMD", "sliced_w1": "sliced W1", "sliced_w2": "sliced W2"}


def _of_samples(case: Case, x: Tensor, y: Tensor) -> dict[str, float]:
    """Scores that only samples as they are have."""
    values = {"memorisation": memorisation(x[:QUERIES], case.train, y).value}
    if case.law is not None:
        modes = mode_coverage(x, case.law.modes, case.law.mode_std)
        values |= {"modes covered": modes.covered, "within 3σ": modes.within, "width of modes": modes.width}
    if case.image_shape is not None:
        values["Fréchet wavelet"] = frechet_wavelet_distance(x, y, case.image_shape)
    return values


def _moved(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Case → score → damage → standard errors by which it gets worse, mean over the seeds."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in rows:
        space = "" if row["space"] == "samples" else f", {row['space']}"
        scores = found.setdefault(row["case"], {}).setdefault(f"{row['score']}{space}", {})
        scores.setdefault(row["damage"], []).append(row["moved"])
    return {
        case: {score: {damage: fmean(of) for damage, of in damages.items()} for score, damages in scores.items()}
        for case, scores in found.items()
    }


def _tables(moved: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    return "\n".join(f"**{case}**\n\n{_table(scores)}\n" for case, scores in moved.items())


def _table(scores: Mapping[str, Mapping[str, float]]) -> str:
    damages = list(dict.fromkeys(damage for of in scores.values() for damage in of))
    lines = []
    for score, of in scores.items():
        blind = [damage for damage in damages if abs(of[damage]) <= SEEN]
        rewarded = [damage for damage in damages if of[damage] < -SEEN]
        lines.append([score, *(f"{of[damage]:+.{0 if abs(of[damage]) >= 10 else 1}f}" for damage in damages),
                      ", ".join(blind), ", ".join(rewarded)])  # fmt: skip
    return markdown_table(["score", *damages, "does not see", "takes for better"], lines)


def _damaged_images(case: Case) -> figures.Figure:
    damaged = {name: DAMAGES[name](case, torch.Generator().manual_seed(0)) for name in PICTURED if name in DAMAGES}
    columns = {"real": case.fresh, **damaged}
    images = [[samples[row].numpy() for samples in columns.values()] for row in range(4)]
    return figures.image_table(images, [[""] * len(columns)] * 4, list(columns), image_shape=_shape(case))


def _page(
    seeds: Sequence[int], overrides: Sequence[str], table: str, moved: Mapping[str, Mapping[str, Mapping[str, float]]],
    absent: Mapping[str, str], shown: Mapping[str, Case], rows: Sequence[Mapping[str, Any]],
) -> str:  # fmt: skip
    given = f""" "overrides=[{",".join(f"'{override}'" for override in overrides)}]\"""" if overrides else ""
    about = machine()
    sizes = "; ".join(
        f"{name}: {len(case.train)} training samples, {len(case.test)} held out, {len(case.fresh)} to be damaged, "
        f"{case.size} a draw"
        for name, case in shown.items()
    )
    pictures = "\n\n".join(
        f"![{name}: which score sees which damage]({name}.png)"
        + (f"\n\n![{name}: the damages]({name}_damages.png)" if case.image_shape is not None else "")
        for name, case in shown.items()
    )
    missing = "\n".join(f"- {name}: {why}" for name, why in absent.items())
    return f"""# Know your scores

Which score sees which damage? Real samples are damaged on purpose and scored in the place of a generator's.

    wgan-lip benchmark suite=scores seeds=[{",".join(map(str, seeds))}]{given}

{about["processor"]}, one thread, torch {about["torch"]}. {sizes}.

{pictures}

{table}
{f"Left out:{chr(10)}{chr(10)}{missing}{chr(10)}" if absent else ""}
## How to read it

A number says by how many standard errors a damage makes a score worse: +12 is twelve. The standard error is the
standard deviation of the score over {DRAWS} draws of undamaged samples against held-out ones, so it is that of *one*
evaluation at this size. Up to {SEEN:g} in size is chance: the score does not see the damage. Below −{SEEN:g} the score
takes the damage for an improvement. Copies are samples of the training set itself: only their own score is meant to
see them. The three parts of the data are cut anew from all of it, so that real samples have one law.

{DESCRIPTIONS}

## What follows

{_claims(moved, rows)}

## Where it loses

{LOSES}
"""


DESCRIPTIONS = """- blur σ: a Gaussian filter of so many pixels.
- noise: of standard deviation 0.05 in [0, 1]; in the plane half the width of a mode. brighter: by 0.05; in the
  plane, shifted by half the width of a mode.
- shuffled: four blocks a side change places, two on digits. lost modes: half of the classes are missing.
- narrowed: every sample moves a quarter of its way to the mean of its class or mode.
- repeated: a tenth of the samples, ten times each.
- copies: samples of the training set; a fifth copies: every fifth is one."""

LOSES = """- Standard deviations of ten draws are known to about a quarter, and draws from pools of a few thousand
  samples overlap.
- Damages are single and clean; a generator's are mixed. A score that sees a damage here need not rank two generators.
- W1 over floor, in the samples, is kept as a column because older tables have it. No decision rests on it.
- Copies that are shifted, mirrored or recoloured are not tried; the score of copies would not see them.
- The features lite0 know photographs; on digits they see damages, but their distances mean little to the eye."""


def _claims(moved: Mapping[str, Mapping[str, Mapping[str, float]]], rows: Sequence[Mapping[str, Any]]) -> str:
    """What the table says of the headline, of KID and of W1 over floor under blur, in sentences with their figures."""
    lines = []
    for case, scores in moved.items():
        for score in TOLD:
            blurs = {damage: of for damage, of in scores.get(score, {}).items() if damage.startswith("blur")}
            if blurs:
                told = ", ".join(f"{of:+.1f}" for of in blurs.values())
                lines.append(f"- {case}: under {', '.join(blurs)} *{score}* moves by {told} standard errors.")
        if "memorisation" in scores:
            found = scores["memorisation"]
            lines.append(
                f"- {case}: copies of training samples move *memorisation* by {found['copies']:+.0f}, "
                f"a fifth of them by {found['a fifth copies']:+.1f}; the excess by "
                f"{scores['excess of W1']['copies']:+.1f}."
            )
    return "\n".join(lines)
