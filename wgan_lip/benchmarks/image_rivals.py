"""Suite image_rivals: one generator of images trained against certified and usual critics, scored along the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wgan_lip import figures
from wgan_lip.benchmarks.cases import (
    Piece,
    parse_overrides,
    percent,
    positive_number,
    run_cases,
    some_of,
)
from wgan_lip.benchmarks.image_pairs import absent, cifar
from wgan_lip.benchmarks.images import ROOT, PenalizedConvolutions, convolutional, image, shaped
from wgan_lip.benchmarks.machine import write_page, write_results
from wgan_lip.benchmarks.methods import Method, mean_of
from wgan_lip.critics import (
    ClippedCritic,
    Critic,
    FixedWidthCritic,
    GroupSortCritic,
    PenalizedCritic,
    ResNetCritic,
    SortingCritic,
    SpectralNormCritic,
)
from wgan_lip.data import MNIST, FiniteSource
from wgan_lip.data.images import ImageSource
from wgan_lip.generators import DCGANGenerator, draw_latents
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.optimizers import OptimisticAdam
from wgan_lip.metrics import Features, Floor, Pool, features_of, memorisation, on_features
from wgan_lip.metrics.classifier import LEARNING_RATE as CLASSIFIER_RATE
from wgan_lip.metrics.classifier import SURE, Classifier
from wgan_lip.training import DivergedError, RefutedError, Training, train_wgan
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.numbers import plus_minus, rounded, rounded_up
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.dual import kr_value

__all__ = ["RIVALS", "ImageRival", "Images", "Rival", "measure"]

SECONDS = 180.0  # of processor time, for every critic and its generator
BATCH = 64
LATENTS = 64
STEPS = tuple(500 * 2**k for k in range(12))  # generator steps after which samples are scored, for equal steps
MOMENTS = 3  # samples are also scored after 1/4 and 1/2 of the time, and at its end
SAMPLES = 4000  # generated samples that are scored
SCORED = 1000  # of each set in a score
DRAWS = 5
QUERIES = 1000  # samples whose nearest training sample is sought
SHOWN = 8  # samples that are kept for the picture
HELD_OUT = 10_000  # training images held out while settings are chosen


@dataclass(frozen=True)
class Rival:
    """A critic, how it is trained, and the learning rate of the generator beside it.

    Attributes:
        method: The critic and its optimiser; its learning rate stays constant.
        generator_rate: Of Adam, with betas (0, 0.9).
        optimistic: Whether that is :class:`~wgan_lip.lipschitz.optimizers.OptimisticAdam`.
        critic_steps: Critic steps per generator step, the last on the generator's own samples; `None` for those of the
            set of images.
        tries: Settings that were tried on held-out training images before these were chosen.
    """

    method: Method
    generator_rate: float = 3e-3
    critic_steps: int | None = None
    tries: int = 0
    optimistic: bool = False

    def settings(self) -> dict[str, Any]:
        """All that its result depends on, as JSON holds it."""
        return {
            "method": self.method.settings(),
            "generator_rate": self.generator_rate,
            "critic_steps": self.critic_steps,
            "optimistic": self.optimistic,
        }


_BETAS = (0.5, 0.9)
_PENALTY = Method(PenalizedCritic, {"width": 128}, 0.15, (0.0, 0.9), baseline=True)
_FULL = {"width": 128, "depth": 2, "group": 128}
_SMALL = {"members": 2, "width": 64, "depth": 3, "group": 64}

RIVALS: dict[str, Rival] = {
    "sorting": Rival(Method(SortingCritic, _FULL, 0.015, _BETAS), tries=8),
    "sorting_mean": Rival(Method(mean_of, _SMALL, 0.03, _BETAS), tries=19),
    "convolutional": Rival(Method(convolutional, {"depth": 2}, 0.015, _BETAS), tries=17),
    "residual": Rival(Method(ResNetCritic, {}, 0.02, _BETAS), tries=2),
    "image": Rival(Method(image, {}, 0.02, _BETAS), tries=3),
    "fixed_width": Rival(Method(FixedWidthCritic, {"depth": 2}, 0.02, _BETAS)),
    "gradient_penalty": Rival(_PENALTY, tries=6),
    "gradient_penalty_usual": Rival(replace(_PENALTY, learning_rate=0.1), 1e-3, 2),
    "one_sided_penalty": Rival(
        replace(_PENALTY, arguments={"width": 128, "one_sided": True}, learning_rate=0.3), tries=13
    ),
    "one_sided_convolutions": Rival(
        Method(PenalizedConvolutions, {"channels": (8, 16), "one_sided": True}, 0.6, _BETAS, baseline=True), tries=8
    ),
    "spectral_norm": Rival(Method(SpectralNormCritic, {}, 0.1, (0.0, 0.9), baseline=True), tries=2),
    "groupsort": Rival(Method(GroupSortCritic, {}, 1.0, (0.0, 0.9), baseline=True), tries=2),
    "clipped": Rival(Method(ClippedCritic, {}, 0.03, (0.0, 0.9), baseline=True), tries=2),
}
RIVALS |= {
    f"{name}_optimistic": replace(RIVALS[name], optimistic=True, tries=RIVALS[name].tries + 1)
    for name in (
        "sorting",
        "convolutional",
        "residual",
        "gradient_penalty",
        "one_sided_penalty",
        "one_sided_convolutions",
    )
}
"""By name."""


def _mnist(root: Path, tuning: bool) -> ImageSource:
    whole = MNIST(str(root), download=False, test_size=None)
    return _source(whole, tuning)


def _cifar10(root: Path, tuning: bool) -> ImageSource:
    return _source(cifar(root), tuning)


def _source(whole: FiniteSource, tuning: bool) -> ImageSource:
    """The images and the held-out ones; while tuning, a part of the training images in their place."""
    assert whole.image_shape is not None and whole.train_labels is not None and whole.test_labels is not None
    sides = [(whole.train, whole.train_labels), (whole.test, whole.test_labels)]
    if tuning:
        n = max(len(whole.train) * 4 // 5, len(whole.train) - HELD_OUT)
        order = torch.randperm(len(whole.train), generator=torch.Generator().manual_seed(0))
        sides = [(whole.train[rows], whole.train_labels[rows]) for rows in (order[:n], order[n:])]
    train, test = (rows.mul(255).round().to(torch.uint8).unflatten(1, whole.image_shape) for rows, _ in sides)
    return ImageSource(train, test, sides[0][1], sides[1][1], classes=whole.classes)


@dataclass(frozen=True)
class ImageSet:
    """A set of images: what reads it, and the generator and the features for it.

    Attributes:
        read: Called with the folder of data sets, and whether a part of the training images is held out.
        channels: Of the generator.
        features: Those of its scores, see :func:`wgan_lip.metrics.features_of`.
        classifier_steps: Of training, where they are a classifier's.
        critic_steps: Per generator step.
        rate: The learning rates of critics, relative to those on MNIST.
    """

    read: Callable[[Path, bool], ImageSource]
    channels: int
    features: str
    classifier_steps: int = 5000
    critic_steps: int = 1
    rate: float = 1.0


SETS: dict[str, ImageSet] = {
    "mnist": ImageSet(_mnist, 8, "classifier"),
    "cifar10": ImageSet(_cifar10, 16, "lite0", critic_steps=3, rate=2.0),
}
"""By name."""


@dataclass(frozen=True)
class Images:
    """Images for training, others to score on, and their features.

    Arguments:
        name: A key of :data:`SETS`.
        root: The folder that holds the data sets.
        tuning: Whether a part of the training images is held out in place of the test images.
    """

    name: str
    root: str = field(repr=False)
    tuning: bool = False

    @cached_property
    def source(self) -> ImageSource:
        return SETS[self.name].read(Path(self.root).expanduser(), self.tuning)

    @cached_property
    def features(self) -> Features:
        features = features_of(SETS[self.name].features, self.source, classifier_steps=SETS[self.name].classifier_steps)
        assert features is not None  # all sets have labels
        return features

    @cached_property
    def _real(self) -> tuple[Tensor, Tensor]:
        """Features of held-out images and of other real ones."""
        test, source = self.source.test[:SAMPLES], self.source
        return self.features.embedded(test), self.features.embedded(source.reference(min(SAMPLES, source.size), 0))

    @cached_property
    def floor(self) -> Floor:
        return Floor(*self._real, size=SCORED, draws=DRAWS)

    def scores(self, generated: Tensor) -> dict[str, float]:
        """Scores of generated samples on features; `excess` is in their units."""
        found = self.features.embedded(generated)
        excess = self.floor.excess(Pool(found))
        of = on_features(found[:SCORED], self._real[0][:SCORED], directions=64)
        row = {"excess": excess.excess, "w1_over_floor": excess.ratio}
        row |= {name: of[name] for name in ("kid", "precision", "recall", "coverage")}
        if isinstance(self.features, Classifier):
            row |= self.features.reading(found.float())
        return row


@dataclass(frozen=True)
class ImageRival(Piece):
    """One critic, with its generator, on one set of images, from one seed."""

    images: Images
    rival: Rival
    seconds: float
    folder: Path

    def settings(self) -> dict[str, Any]:
        of = SETS[self.images.name]
        return {
            "labels": self.labels, "images": self.images.name, "tuning": self.images.tuning,
            "features": [of.features, of.classifier_steps, CLASSIFIER_RATE],
            "rival": self.rival.settings(), "critic_steps": self.critic_steps, "rate": of.rate,
            "seconds": self.seconds, "batch": BATCH,
        }  # fmt: skip

    @property
    def critic_steps(self) -> int:
        """Per generator step."""
        return self.rival.critic_steps or SETS[self.images.name].critic_steps

    def measured(self) -> dict[str, Any]:
        """Trains, keeps samples along the way, and scores them when training is over.

        Time is processor time of training alone: drawing samples for scores is not counted.

        Returns:
            `steps`, `seconds`, `along`, scores after some of the steps and at some of the times; `final`, those at the
            end, with `memorisation`; the critic's `guarantee`, certified constant `lipschitz`, if any, and its
            value between generated samples and `train`, and `held_out` images, over that constant; `stopped`, why
            training stopped itself, if it did.
        """
        images, rival, seed = self.images, self.rival, self.labels["seed"]
        source = images.source
        torch.manual_seed(seed)
        generator = DCGANGenerator(
            source.image_shape, low=0.0, high=1.0, latent_dim=LATENTS, channels=SETS[images.name].channels
        )
        method = shaped(rival.method, source.image_shape)
        critic = method.critic(source.dim, **method.arguments)
        row: dict[str, Any] = {"guarantee": getattr(critic, "guarantee", "certified")}
        kept: list[tuple[dict[str, float], Tensor]] = []
        try:
            for step, seconds, ema in self._trained(source, generator, critic):
                kept.append(({"steps": step, "seconds": seconds}, _samples(ema)))
        except (DivergedError, RefutedError) as error:
            row["stopped"] = str(error)
        along = [{**when, **images.scores(samples)} for when, samples in kept]
        if along:
            samples = kept[-1][1]
            row |= {"steps": along[-1]["steps"], "seconds": along[-1]["seconds"], "along": along, "final": along[-1]}
            row["final"] |= {"memorisation": memorisation(samples[:QUERIES], source.train, source.test).value}
            row |= self._of_critic(critic, source, samples)
            self._keep(samples)
        return row

    def _trained(
        self, source: ImageSource, generator: nn.Module, critic: nn.Module
    ) -> Iterator[tuple[int, float, nn.Module]]:
        """Steps, seconds and the averaged generator, whenever it is to be scored; the last time at the end."""
        rival, steps, out = self.rival, list(STEPS), 0.0
        times = [self.seconds / 2**k for k in range(MOMENTS - 1, -1, -1)]

        def spent() -> float:
            return time.process_time() - began - out

        def due(step: int) -> bool:
            return step >= steps[0] or spent() >= times[0]

        settings = Training(
            steps=10**7, batch_size=BATCH, critic_steps=self.critic_steps, reuse_batch=True, warmup_steps=0,
            critic_schedule="constant", generator_schedule="constant", ema_half_life=20_000,
            start_at_data=isinstance(critic, Critic), log_every=500, audit_every=10**7, audit_size=2,
            audit_scores=False, audit_refits=0, divergence=100.0,
        )  # fmt: skip
        records = train_wgan(
            source, generator, critic, settings, seed=self.labels["seed"], pause=due,
            generator_optimizer=(OptimisticAdam if rival.optimistic else torch.optim.Adam)(
                generator.parameters(), rival.generator_rate, betas=(0.0, 0.9), fused=True
            ),
            critic_optimizer=replace(
                rival.method, learning_rate=rival.method.learning_rate * SETS[self.images.name].rate
            ).new_optimizer(critic),
        )  # fmt: skip
        began = time.process_time()
        for record in records:
            while record.step >= steps[0]:
                steps.pop(0)
            now = spent()
            if record.scalars and now < times[0] and record.step not in STEPS:
                continue
            while times and now >= times[0]:
                times.pop(0)
            yield record.step, now, record.game.ema
            if not times:
                return
            out = time.process_time() - began - now

    def _of_critic(self, critic: nn.Module, source: ImageSource, generated: Tensor) -> dict[str, Any]:
        """Its constant, and its value on images it was trained on and on others."""
        certified = getattr(critic, "guarantee", "certified") != "not certified"
        lipschitz = certify(critic).lipschitz if certified else None
        n = min(SAMPLES, len(source.test))
        with torch.no_grad():
            values = [float(kr_value(critic, real, generated)) for real in (source.reference(n, 1), source.test[:n])]
        over = lipschitz or 1.0
        return {"lipschitz": lipschitz, "train": values[0] / over, "held_out": values[1] / over}

    def _keep(self, samples: Tensor) -> None:
        pixels = samples[:SHOWN].mul(255).round().to(torch.uint8).numpy()
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{self.name}.npy").open("wb") as file:
            np.save(file, pixels)

    def in_words(self, row: Mapping[str, Any]) -> str:
        if "final" not in row:
            return row["stopped"]
        final = row["final"]
        return (
            f"{row['steps']} steps, W1 over floor {final['w1_over_floor']:.3f}, KID {final['kid']:.4f}, "
            f"precision {final['precision']:.3f}, recall {final['recall']:.3f}"
        )


@torch.no_grad()
def _samples(generator: nn.Module) -> Tensor:
    """Samples of the averaged generator, at fixed latents."""
    latents = draw_latents(generator, SAMPLES, torch.Generator().manual_seed(1))
    return torch.cat([generator(some) for some in latents.split(500)])


def measure(seeds: list[int], overrides: list[str], out: Path) -> str:
    """Trains one generator of images against every critic; draws scores along the way, and samples side by side.

    Arguments:
        seeds: Of generators, critics and batches; seed 10 was used to choose settings.
        overrides: `sets=mnist,cifar10`, `critics=sorting_mean,clipped`, `seconds=180`, `root=DIR`, the folder that
            holds the data sets, by default where configurations keep them; nothing is downloaded. `held_out=training`
            scores on a part of the training images instead of the test images: to choose settings by.
        out: The suite's folder; see :func:`wgan_lip.benchmarks.cases.run_cases`.

    Raises:
        InputError: An override that is none of these; no set of images is there, or no features for it.
    """
    legal: dict[str, Callable[[str], Any]] = {
        "sets": some_of(SETS, "sets"),
        "critics": some_of(RIVALS, "critics"),
        "seconds": positive_number("seconds"),
        "root": str,
        "held_out": some_of(("test", "training"), "held_out"),
    }
    chosen: dict[str, Any] = {"sets": list(SETS), "critics": list(RIVALS), "seconds": SECONDS, "root": ROOT}
    chosen |= parse_overrides(overrides, legal)
    tuning = chosen.get("held_out") == ["training"]
    missing = {name: told for name in chosen["sets"] if (told := absent(name, chosen["root"]))}
    sets = {name: Images(name, chosen["root"], tuning) for name in chosen["sets"] if name not in missing}
    if not sets:
        raise InputError(f"There are no images: {'; '.join(missing.values())}. Give the folder: root=DIR.")
    for images in sets.values():
        images.floor  # noqa: B018  # computed here, once, and sent to the processes of all cases
    cases = [
        ImageRival({"set": name, "critic": critic, "seed": seed}, images, RIVALS[critic], chosen["seconds"],
                   out / "samples")
        for (name, images), seed, critic in product(sets.items(), dict.fromkeys(seeds), chosen["critics"])
    ]  # fmt: skip
    rows = run_cases(cases, out)
    about = {name: {"features": images.features.description, "excess_real": images.floor.real,
                    "excess_real_error": images.floor.real_error} for name, images in sets.items()}  # fmt: skip
    rivals = {name: {**RIVALS[name].settings(), "tries": RIVALS[name].tries} for name in chosen["critics"]}
    write_results(
        "image_rivals", seeds, out, overrides, threads=1, seconds=chosen["seconds"], sets=about, skipped=missing,
        critics=rivals, rows=rows,
    )  # fmt: skip
    parts = [part for name in sets for part in _part(name, sets[name], rows, out)]
    how = (
        f"{chosen['seconds']:g} seconds of processor time a critic and its generator, one thread, {BATCH} samples of "
        "each law a step."
    )
    write_page(out, title="One generator of images against several critics", how=how, parts=[*parts, READING])
    return "\n\n".join(part for part in parts if not part.startswith("!")) + "\n"


READING = f"""\
All critics train the same generator, by Adam with betas (0, 0.9) (`_optimistic`: by
`wgan_lip.lipschitz.optimizers.OptimisticAdam`). Per generator step they take one critic step on MNIST, on the same
samples (`gradient_penalty_usual` two), and three on CIFAR-10, where every critic trails its generator with one, the
last on the same samples. Learning rates of critic and generator were chosen on held-out training images of MNIST with
seed 10, in as many tries as the table says (0: taken over from a similar critic); on CIFAR-10 every critic's is twice
as large. All stay constant. Scores are about the averaged generator, against test images: `excess` is W1(g, t) − ½
[W1(g, g′) + W1(t, r)] between sets of {SCORED:,} samples, on features of a classifier trained on the set's labels
(MNIST) or of EfficientNet-Lite0 (CIFAR-10), in their units, in brackets that of real images; KID, precision and recall
are on the same features. A lead is a mean over seeds, with its standard error from the differences seed by seed. Read:
the share of samples whose class the classifier is at least {100 * SURE:.0f} % sure of. Copies: see
`wgan_lip.metrics.memorisation`. Critic: its value between generated samples and training images, and test images;
where its constant is certified, over that constant, which is under `Lip ≤`."""


def _part(name: str, images: Images, rows: Sequence[Mapping[str, Any]], out: Path) -> Iterator[str]:
    """What the page says of one set of images."""
    of = [row for row in rows if row["set"] == name]
    done = [row for row in of if "final" in row]
    shared = {int(each["steps"]) for row in done for each in row["along"] if each["steps"] in STEPS}
    equal = max((step for step in shared if all(_at(row, step) for row in done)), default=None)
    yield f"## {name}"
    yield f"**At equal time.** Features: {images.features.description}.\n\n" + _table(of, images, _final)
    yield _lead(done, _final)
    if equal is not None:
        at = partial(_at, step=equal)
        yield f"**After {equal:,} generator steps.**\n\n" + _table(of, images, at)
        yield _lead(done, at)
    groups: dict[str, list[list[tuple[float, float, float]]]] = {}
    for row in done:
        curve = [(each["seconds"], BATCH * each["steps"], each["excess"]) for each in row["along"]]
        groups.setdefault(row["critic"].replace("_", " "), []).append(curve)
    for by in ("seconds", "samples"):
        figure = figures.score_against(groups, by=by, quantity="excess of W1 on features")
        figures.save(figure, out / f"{name}_{by}.png", dpi=130)
        yield f"![{name}: scores against {by}]({name}_{by}.png)"
    figures.save(_samples_side_by_side(name, images.source, of, out), out / f"{name}_grid.png")
    yield f"![{name}: samples of the generator beside each critic, first seed]({name}_grid.png)"


def _final(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return row.get("final")


def _at(row: Mapping[str, Any], step: int) -> Mapping[str, Any] | None:
    return next((each for each in row.get("along", ()) if each["steps"] == step), None)


When = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


def _table(rows: Sequence[Mapping[str, Any]], images: Images, when: When) -> str:
    """Means over seeds, and standard deviations."""
    read = isinstance(images.features, Classifier)
    heads = ["critic", "tries", "guarantee", "Lip ≤", "steps", "ms a step", f"excess ({images.floor.real:.3f})",
             "W1 over floor", "KID", "precision", "recall"]  # fmt: skip
    heads += ["read", "classes"] if read else []
    heads += ["copies", "critic: train / test"] if when is _final else []
    lines = []
    for critic in dict.fromkeys(row["critic"] for row in rows):
        every = [row for row in rows if row["critic"] == critic]
        of = [row for row in every if "stopped" not in row]
        found = [scores for row in every if (scores := when(row)) is not None]
        stopped = f", {len(every) - len(of)} of {len(every)} stopped" if len(of) < len(every) else ""
        if not found:
            lines.append([critic + stopped, RIVALS[critic].tries])
            continue
        constants = [row["lipschitz"] for row in every if row.get("lipschitz") is not None]
        means = {key: fmean(each[key] for each in found) for key in found[0]}
        excesses = [each["excess"] for each in found]
        line = [
            critic + stopped, RIVALS[critic].tries, every[0]["guarantee"],
            rounded_up(max(constants), 7) if constants else "",
            f"{means['steps']:,.0f}", f"{1000 * means['seconds'] / means['steps']:.1f}",
            plus_minus(fmean(excesses), stdev(excesses) if len(excesses) > 1 else math.nan),
            f"{means['w1_over_floor']:.3f}", rounded(means["kid"], 3), f"{means['precision']:.3f}",
            f"{means['recall']:.3f}",
        ]  # fmt: skip
        if read:
            least, largest = min(e["rarest_class"] for e in found), max(e["commonest_class"] for e in found)
            line += [percent(means["read"]), f"{100 * least:.0f} to {100 * largest:.0f} %"]
        if when is _final:
            line += [
                f"{means['memorisation']:.3f}",
                " / ".join(f"{fmean(r[k] for r in every if k in r):.3f}" for k in GAP),
            ]
        lines.append(line)
    return markdown_table(heads, lines)


GAP = ("train", "held_out")


def _lead(rows: Sequence[Mapping[str, Any]], when: When) -> str:
    """The best certified critic against the best of the others, in standard errors over the seeds."""
    excess: dict[str, dict[int, float]] = {}
    for row in rows:
        if (scores := when(row)) is not None:
            excess.setdefault(row["critic"], {})[row["seed"]] = scores["excess"]
    sides = [
        {name: by_seed for name, by_seed in excess.items() if RIVALS[name].method.baseline is baseline}
        for baseline in (False, True)
    ]
    if not all(sides):
        return ""
    ours, theirs = (min(side, key=lambda name: fmean(side[name].values())) for side in sides)
    leads = [excess[theirs][seed] - excess[ours][seed] for seed in excess[ours].keys() & excess[theirs].keys()]
    mean = fmean(leads) if leads else math.nan
    error = stdev(leads) / math.sqrt(len(leads)) if len(leads) > 1 else math.nan
    word = "ahead of" if mean > 0 else "behind"
    told = f"{abs(mean):.3f}" + (f" ± {error:.3f} (standard error, {len(leads)} seeds)" if error == error else "")
    return f"`{ours}` is {word} the best of the others, `{theirs}`, by an excess of {told}."


def _samples_side_by_side(
    name: str, source: ImageSource, rows: Sequence[Mapping[str, Any]], out: Path
) -> figures.Figure:
    """A column a critic, real images first."""
    columns = {"real": source.test[:SHOWN].numpy()}
    for critic in dict.fromkeys(row["critic"] for row in rows):
        first = next((row for row in rows if row["critic"] == critic and "final" in row), None)
        if first is not None:
            path = out / "samples" / f"{name}-{critic}-seed{first['seed']}.npy"
            if path.exists():  # cases that were kept may have lost it
                columns[critic.replace("_", "\n")] = np.load(path, allow_pickle=False)[:SHOWN] / np.float32(255)
    images = [[samples[row] for samples in columns.values()] for row in range(SHOWN)]
    return figures.image_table(images, [[""] * len(columns)] * SHOWN, list(columns), image_shape=source.image_shape)
