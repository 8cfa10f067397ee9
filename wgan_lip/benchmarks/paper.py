"""Suite paper: the experiments of *Approximation theory for 1-Lipschitz ResNets*, classifying two moons and MNIST.

Murari, Furuya, Schönlieb, 2025. Both families, with the constant proved for every classifier, and the steepest slope
that a search finds. Without normalisation the first and the last map are free: their norms enter the proved constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wgan_lip import figures
from wgan_lip.benchmarks.cases import Piece, parse_overrides, positive_number, run_cases, some_of
from wgan_lip.benchmarks.contest import steps_in_time
from wgan_lip.benchmarks.image_pairs import absent
from wgan_lip.benchmarks.machine import write_page, write_results
from wgan_lip.critics import Critic, FixedWidthCritic, ResNetCritic
from wgan_lip.data import MNIST
from wgan_lip.lipschitz.adversary import estimate_lipschitz
from wgan_lip.lipschitz.classification import certified_accuracy, hinge_kr
from wgan_lip.lipschitz.layers import constrain_steps
from wgan_lip.lipschitz.optimizers import parameter_groups
from wgan_lip.utils.numbers import rounded_up
from wgan_lip.utils.tables import markdown_table

__all__ = ["measure"]

MOONS_DEPTHS, MOONS_WIDTHS = (2, 4, 8, 16, 32, 64), (10, 20, 40)
MNIST_DEPTHS, MNIST_WIDTHS = (5, 10, 20), (50, 100, 200)
NOISE, MOONS = 0.3, 2000  # standard deviation of the moons, and points of them, for training and for testing each
MARGIN = {"moons": 0.2, "mnist": 1.0}  # in the units of the samples
RADII = {"moons": (0.05, 0.1, 0.2), "mnist": (0.25, 0.5, 1.0)}
RATE, BATCH = 0.1, 256
SECONDS = 10.0  # of processor time for each classifier
SEARCHED = 256  # test samples that a search for the steepest slope starts from
TITLES = {"moons": "Two moons, two classes", "mnist": "MNIST, ten classes"}
NAMES = {"A": "A, growing", "B": "B, fixed width"}


@dataclass(frozen=True)
class Classification(Piece):
    """A classifier to train.

    Attributes:
        labels: `data`, `family`, `width`, `depth`, `normalised`, `seed`.
        seconds: Of processor time.
        root: Of the data sets.
    """

    seconds: float
    root: str

    def measured(self) -> dict[str, Any]:
        data, seed = self.labels["data"], self.labels["seed"]
        x, y, x_test, y_test = _samples(data, self.root)
        torch.manual_seed(seed)
        classifier = self.built(x.shape[1], int(y.max()) + 1)
        steps = _trained(classifier, x, y, MARGIN[data], self.seconds, seed)
        found = certified_accuracy(classifier, x_test, y_test, radii=RADII[data])
        with torch.no_grad():
            train = float((classifier(x).argmax(dim=1) == y).double().mean())
        slope = estimate_lipschitz(classifier, x_test[:SEARCHED], starts=64, steps=20, seed=seed)
        return {
            "accuracy": found.correct / found.n,
            "train_accuracy": train,
            "certified": {f"{radius:g}": count / found.n for radius, count in zip(found.radii, found.certified)},
            "lipschitz": found.lipschitz,
            "slope": slope,
            "steps": steps,
            "ms_a_step": 1e3 * self.seconds / steps,
            "weights": sum(weight.numel() for weight in classifier.parameters()),
        }

    def built(self, dim: int, classes: int) -> Critic:
        depth = self.labels["depth"]
        if self.labels["family"] == "A":
            classifier: Critic = ResNetCritic(dim, width=self.labels["width"], depth=depth, heads=classes)
        else:
            classifier = FixedWidthCritic(dim, depth=depth, heads=classes)
        if not self.labels["normalised"]:
            for name in ("lift", "readout"):
                rows, columns = classifier.get_parameter(f"{name}.weight").shape
                setattr(classifier, name, nn.Linear(columns, rows))
        return classifier

    def in_words(self, row: Mapping[str, Any]) -> str:
        return f"accuracy {row['accuracy']:.2%}, Lip ≤ {rounded_up(row['lipschitz'])}, {row['steps']} steps"

    def settings(self) -> dict[str, Any]:
        data = self.labels["data"]
        return {**self.labels, "seconds": self.seconds, "margin": MARGIN[data], "rate": RATE, "batch": BATCH}


def measure(seeds: list[int], out: Path, overrides: Sequence[str] = ()) -> str:
    """Trains every classifier for the same processor time; draws `moons.png` and `mnist.png`.

    Arguments:
        seeds: Of weights and batches.
        overrides: `data=moons` or `data=mnist`, both by default; `seconds=10` for each classifier; `root=DIR` of the
            data sets.
        out: The suite's folder; see :func:`wgan_lip.benchmarks.cases.run_cases`.
    """
    legal: dict[str, Callable[[str], Any]] = {
        "data": some_of(MARGIN, "data"),
        "seconds": positive_number("seconds"),
        "root": str,
    }
    chosen = {"data": list(MARGIN), "seconds": SECONDS, "root": "data", **parse_overrides(overrides, legal)}
    left_out = [told for data in chosen["data"] if data == "mnist" and (told := absent(data, chosen["root"]))]
    cases = [
        Classification({"data": data, **shape, "seed": seed}, chosen["seconds"], chosen["root"])
        for seed, data in product(seeds, chosen["data"])
        if data == "moons" or not left_out
        for shape in _shapes(data)
    ]
    rows = run_cases(cases, out)
    write_results("paper", seeds, out, overrides, threads=1, rows=rows)
    tables, pictures = [], []
    for data in dict.fromkeys(row["data"] for row in rows):
        _draw(rows, data, out)
        tables.append(f"**{TITLES[data]}**\n\n{_table(rows, data)}")
        pictures.append(f"![accuracy and certified accuracy over the depth]({data}.png)")
    table = "\n\n".join([*tables, *left_out, _LEGEND]) + "\n"
    how = f"{chosen['seconds']:g} seconds of processor time a classifier, one thread."
    write_page(out, title="The paper's experiments, with proofs", how=how, parts=[table, *pictures])
    return table


def _shapes(data: str) -> list[dict[str, Any]]:
    """Family, width, depth, and whether it is normalised.

    B has the width of its samples, and 3, and no free maps: those are not proved in its norms.
    """
    if data == "mnist":
        grid = [("A", width, depth, True) for width, depth in product(MNIST_WIDTHS, MNIST_DEPTHS)]
    else:
        grid = [("A", *shape) for shape in product(MOONS_WIDTHS, MOONS_DEPTHS, (True, False))]
        grid += [("B", 5, depth, True) for depth in MOONS_DEPTHS]
    return [dict(zip(("family", "width", "depth", "normalised"), shape)) for shape in grid]


@lru_cache
def _samples(data: str, root: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For training x (n, d) and labels (n,), and the same held out."""
    if data == "moons":
        from sklearn.datasets import make_moons

        points, labels = make_moons(2 * MOONS, noise=NOISE, random_state=0)
        x, y = torch.from_numpy(points.astype(np.float32)), torch.from_numpy(labels)
        return x[:MOONS], y[:MOONS], x[MOONS:], y[MOONS:]
    source = MNIST(root, download=False, test_size=None)
    assert source.train_labels is not None and source.test_labels is not None
    return source.train, source.train_labels, source.test, source.test_labels


def _trained(classifier: Critic, x: Tensor, y: Tensor, margin: float, seconds: float, seed: int) -> int:
    """Trains for so much processor time, the rate falling to zero along a line; the number of steps."""
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(parameter_groups(classifier, RATE))
    constrain_steps(optimizer, classifier)
    steps = 0
    for steps in steps_in_time(optimizer, seconds, "linear"):  # noqa: B007
        some = torch.randint(len(x), (BATCH,), generator=rng)
        optimizer.zero_grad()
        hinge_kr(classifier(x[some]), y[some], margin).backward()
        optimizer.step()
    return steps


def _draw(rows: Sequence[Mapping[str, Any]], data: str, out: Path) -> None:
    """Accuracies, and those within the middle radius, over the depth; a panel a family and width; means over seeds."""
    radius = f"{RADII[data][1]:g}"

    def curves(family: str, width: int) -> dict[str, list[tuple[float, float]]]:
        drawn: dict[str, list[tuple[float, float]]] = {}
        for normalised, kind in ((True, "constant 1"), (False, "first and last map free")):
            for depth in sorted({row["depth"] for row in rows}):
                shape = {"data": data, "family": family, "width": width, "depth": depth, "normalised": normalised}
                of = [row for row in rows if shape.items() <= row.items()]
                if of:
                    drawn.setdefault(kind, []).append((depth, fmean(row["accuracy"] for row in of)))
                    within = fmean(row["certified"][radius] for row in of)
                    drawn.setdefault(f"{kind}, certified within {radius}", []).append((depth, within))
        return drawn

    panels = dict.fromkeys((row["family"], row["width"]) for row in rows if row["data"] == data)
    figure = figures.score_curves(
        {f"{NAMES[family]}, width {width}": curves(family, width) for family, width in panels},
        size="depth",
        quantity="accuracy, held out",
        title=TITLES[data],
    )
    figures.save(figure, out / f"{data}.png", dpi=130)


def _table(rows: Sequence[Mapping[str, Any]], data: str) -> str:
    radii = [f"{radius:g}" for radius in RADII[data]]
    heads = ["family", "width", "depth", "normalised", "accuracy", *(f"within {radius}" for radius in radii)]
    heads += ["Lip ≤", "steepest slope", "weights", "steps", "ms a step"]
    lines = [
        [
            NAMES[row["family"]],
            str(row["width"]),
            str(row["depth"]),
            "yes" if row["normalised"] else "no",
            f"{row['accuracy']:.1%}",
            *(f"{row['certified'][radius]:.1%}" for radius in radii),
            rounded_up(row["lipschitz"]),
            f"{row['slope']:.3f}",
            f"{row['weights']:,}",
            f"{row['steps']:,}",
            f"{row['ms_a_step']:.1f}",
        ]
        for row in rows
        if row["data"] == data
    ]
    return markdown_table(heads, lines)


_LEGEND = """\
Accuracy on held-out samples: two moons with Gaussian noise of standard deviation 0.3, and MNIST's test images, pixels
in [0, 1]. Within r: the share that is proved to be answered as labelled at every point within the Euclidean distance r.
Lip ≤: the certified constant of each score, whatever the weights of free maps came to. The loss is the hinge loss less
the KR dual values of the classes; the paper trains with others, so its accuracies compare loosely."""
