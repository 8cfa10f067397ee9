"""Suite inverse: certified critics as regularisers, denoising and deblurring MNIST.

A critic is trained between corrupted and clean images, so that it is high on corruption. Then images are recovered by
descent on a data term plus the critic, as in *Adversarial regularizers in inverse problems* (Lunz, Öktem, Schönlieb,
2018), equation 3 and Algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wgan_lip import figures
from wgan_lip.benchmarks.cases import Piece, parse_overrides, positive_number, run_cases, some_of
from wgan_lip.benchmarks.contest import steps_in_time
from wgan_lip.benchmarks.image_pairs import absent
from wgan_lip.benchmarks.images import PenalizedConvolutions
from wgan_lip.benchmarks.machine import write_page, write_results
from wgan_lip.critics import ConvolutionalCritic, Critic, ImageCritic, PenalizedCritic, ResNetCritic
from wgan_lip.data import MNIST
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import constrain_steps
from wgan_lip.lipschitz.optimizers import parameter_groups
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.numbers import rounded_up
from wgan_lip.utils.slopes import gradients
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.dual import ascend

__all__ = ["Problem", "measure", "recovered"]

SHAPE, TRAINED, TUNED, TESTED = (1, 28, 28), 20_000, 100, 200  # images, of each use
BATCH, RATE, PENALTY_RATE = 256, 0.1, 1e-3
DESCENTS, STEP, DECAY = 150, 0.25, 15  # steps of a recovery, the first one's length, and after how many it has halved
FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # of the rule's λ, tried on training images
TV_WEIGHTS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # as many
SMOOTH = 1e-4  # added to squared differences, so that their root has a slope
SECONDS = 120.0
STARTED = 2048  # images that a critic starts from
SHOWN = 4


@dataclass(frozen=True)
class Problem:
    """y = A x + noise.

    Attributes:
        blur: Standard deviation in pixels of the Gaussian by which A blurs; 0 for none. A is its own adjoint.
        noise: Standard deviation of the noise.
    """

    blur: float
    noise: float

    def forward(self, x: Tensor) -> Tensor:
        """A x of images (n, 784)."""
        if not self.blur:
            return x
        reach = math.ceil(4 * self.blur)
        weights = torch.exp(-torch.arange(-reach, reach + 1).to(x).square() / (2 * self.blur**2))
        weights = weights / weights.sum()
        images = F.conv2d(x.unflatten(1, SHAPE), weights.view(1, 1, -1, 1), padding=(reach, 0))
        return F.conv2d(images, weights.view(1, 1, 1, -1), padding=(0, reach)).flatten(1)

    def observed(self, x: Tensor, rng: torch.Generator) -> Tensor:
        return self.forward(x) + self.noise * torch.randn(x.shape, generator=rng)

    def weight(self, x: Tensor, y: Tensor) -> float:
        """The rule's λ, 2 E‖Aᵀ(A x − y)‖: with it a clean image is nearly at rest where the critic's slope is 1."""
        return 2 * float(torch.linalg.vector_norm(self.forward(self.forward(x) - y), dim=1).mean())


PROBLEMS = {"denoising": Problem(blur=0.0, noise=0.3), "deblurring": Problem(blur=1.0, noise=0.05)}


def total_variation(x: Tensor) -> Tensor:
    """The sum over the pixels of the length of the differences to the next ones, of images (n, 784): shape (n,)."""
    images = x.unflatten(1, SHAPE[1:])
    down, right = F.pad(images.diff(dim=1), (0, 0, 0, 1)), F.pad(images.diff(dim=2), (0, 1))
    return (down.square() + right.square() + SMOOTH).sqrt().sum(dim=(1, 2))


def recovered(problem: Problem, y: Tensor, regulariser: Callable[[Tensor], Tensor], weight: float) -> Tensor:
    r"""Images (n, d) from what was observed of them (n, d): descent, in shorter and shorter steps, from y.

    .. math:: \min_x \|Ax - y\|^2 + \lambda R(x)

    Arguments:
        problem: A.
        y: What was observed.
        regulariser: R, images (n, d) → (n,).
        weight: λ.
    """
    x = y
    for index in range(DESCENTS):
        slope = 2 * problem.forward(problem.forward(x) - y) + weight * gradients(regulariser, x)
        x = x - STEP / (1 + index / DECAY) * slope
    return x.clamp(0, 1)


def psnr(x: Tensor, truth: Tensor) -> float:
    """The mean peak signal-to-noise ratio of images with pixels in [0, 1], in dB."""
    return float(-10 * (x - truth).square().mean(dim=1).log10().mean())


_CONVOLUTIONS: dict[str, Any] = {
    "channels": (16, 32, 64), "kernel_size": 5, "strides": (1, 2, 2), "slope": 0.1, "width": 128
}  # fmt: skip
CRITICS: dict[str, Callable[[], Critic]] = {
    "convolutional": partial(ConvolutionalCritic, SHAPE),
    "image": partial(ImageCritic, SHAPE),
    "residual": partial(ResNetCritic, math.prod(SHAPE)),
    "penalty_convolutional": partial(PenalizedConvolutions, math.prod(SHAPE), image_shape=SHAPE, **_CONVOLUTIONS),
    "penalty_dense": partial(PenalizedCritic, math.prod(SHAPE)),
}
METHODS = ("total_variation", *CRITICS)


@dataclass(frozen=True)
class Recovery(Piece):
    """A regulariser to train, to tune and to try.

    Attributes:
        labels: `problem`, `method`, `seed`.
        seconds: Of processor time for training.
        root: Of the data sets.
    """

    seconds: float
    root: str

    def measured(self) -> dict[str, Any]:
        problem, method, seed = PROBLEMS[self.labels["problem"]], self.labels["method"], self.labels["seed"]
        train, other, tuning, test = _images(self.root)
        rng = torch.Generator().manual_seed(seed)
        corrupted, tuned, y = (problem.observed(images, rng) for images in (other, tuning, test))
        rule = problem.weight(other[:TUNED], corrupted[:TUNED])
        more: dict[str, Any] = {}
        if method in CRITICS:
            torch.manual_seed(seed)
            critic = CRITICS[method]()
            more["steps"] = _trained(critic, corrupted, train, self.seconds, rng)
            more["lipschitz"] = certify(critic).lipschitz
            regulariser: Callable[[Tensor], Tensor] = critic.requires_grad_(False).eval()
            weights = [factor * rule for factor in FACTORS]
            more["psnr_by_rule"] = psnr(recovered(problem, y, regulariser, rule), test)
        else:
            regulariser, weights = total_variation, list(TV_WEIGHTS)
        weight = max(weights, key=lambda weight: psnr(recovered(problem, tuned, regulariser, weight), tuning))
        found = recovered(problem, y, regulariser, weight)
        shown = {"observed": y, "recovered": found, "clean": test}
        more |= {"shown": {name: _bytes(images[:SHOWN]) for name, images in shown.items()}}
        return {"psnr": psnr(found, test), "observed": psnr(y.clamp(0, 1), test), "weight": weight, **more}

    def in_words(self, row: Mapping[str, Any]) -> str:
        return f"{row['psnr']:.2f} dB of {row['observed']:.2f} dB observed"

    def settings(self) -> dict[str, Any]:
        return {**self.labels, "seconds": self.seconds, "problem_settings": vars(PROBLEMS[self.labels["problem"]])}


def measure(seeds: list[int], out: Path, overrides: Sequence[str] = ()) -> str:
    """Trains, tunes and tries every regulariser on every problem; draws `denoising.png` and `deblurring.png`.

    Arguments:
        seeds: Of critics, noise and batches.
        overrides: `problems=denoising`, `methods=convolutional,residual`, `seconds=120` of training for each critic,
            `root=DIR` of the data sets.
        out: The suite's folder; see :func:`wgan_lip.benchmarks.cases.run_cases`.

    Raises:
        InputError: MNIST is not there.
    """
    legal: dict[str, Callable[[str], Any]] = {
        "problems": some_of(PROBLEMS, "problems"),
        "methods": some_of(METHODS, "methods"),
        "seconds": positive_number("seconds"),
        "root": str,
    }
    chosen: dict[str, Any] = {"problems": list(PROBLEMS), "methods": list(METHODS), "seconds": SECONDS, "root": "data"}
    chosen |= parse_overrides(overrides, legal)
    if told := absent("mnist", chosen["root"]):
        raise InputError(f"This suite needs MNIST, but there is {told}. Give its folder: overrides=[root=DIR].")
    cases = [
        Recovery({"problem": problem, "method": method, "seed": seed}, chosen["seconds"], chosen["root"])
        for seed, problem, method in product(seeds, chosen["problems"], chosen["methods"])
    ]
    rows = run_cases(cases, out)
    kept = [{key: value for key, value in row.items() if key != "shown"} for row in rows]
    write_results("inverse", seeds, out, overrides, threads=1, rows=kept)
    tables, pictures = [], []
    for problem in chosen["problems"]:
        of = [row for row in rows if row["problem"] == problem]
        _draw(problem, [row for row in of if row["seed"] == seeds[0]], out)
        tables.append(_table(problem, of))
        pictures.append(f"![clean, observed and recovered images]({problem}.png)")
    table = "\n\n".join([*tables, _LEGEND]) + "\n"
    how = f"{chosen['seconds']:g} seconds of processor time for the training of a critic, one thread."
    write_page(out, title="Critics as regularisers", how=how, parts=[table, *pictures])
    return table


@lru_cache
def _images(root: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images to train on, others to corrupt, and those to tune and to test on, pixels in [0, 1], shape (n, 784)."""
    source = MNIST(root, download=False, test_size=None)
    train, other, tuning = source.train[: 2 * TRAINED + TUNED].split((TRAINED, TRAINED, TUNED))
    return train, other, tuning, source.test[:TESTED]


def _trained(critic: Critic, x: Tensor, y: Tensor, seconds: float, rng: torch.Generator) -> int:
    """Trains a critic that is high at x (n, d) and low at y (m, d), for so much processor time; the number of steps."""
    if isinstance(critic, PenalizedCritic):
        optimizer = torch.optim.Adam(critic.parameters(), PENALTY_RATE, betas=(0.0, 0.9))
    else:
        critic.start_at(x[:STARTED], y[:STARTED])
        optimizer = torch.optim.Adam(parameter_groups(critic, RATE), betas=(0.9, 0.99))
        constrain_steps(optimizer, critic)
    steps = 0
    for steps in steps_in_time(optimizer, seconds, "linear"):  # noqa: B007
        some, others = (torch.randint(len(rows), (BATCH,), generator=rng) for rows in (x, y))
        ascend(critic, optimizer, x[some], y[others])
    return steps


def _bytes(images: Tensor) -> list[list[int]]:
    return (255 * images.clamp(0, 1)).round().int().tolist()


def _draw(problem: str, rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """A line an image, a column a method."""
    first = rows[0]["shown"]
    columns = {"clean": first["clean"], "observed": first["observed"]}
    columns |= {row["method"].replace("_", "\n"): row["shown"]["recovered"] for row in rows}
    lines = [[np.array(images[index]) / 255 for images in columns.values()] for index in range(SHOWN)]
    truth = [np.array(image) / 255 for image in first["clean"]]
    captions = [[_told(image, clean) for image in line] for line, clean in zip(lines, truth)]
    figure = figures.image_table(lines, captions, list(columns), SHAPE, title=f"{problem.capitalize()} MNIST")
    figures.save(figure, out / f"{problem}.png", dpi=130)


def _told(image: np.ndarray, clean: np.ndarray) -> str:
    error = float(np.mean((image - clean) ** 2))
    return f"{-10 * math.log10(error):.1f} dB" if error else ""


def _table(problem: str, rows: Sequence[Mapping[str, Any]]) -> str:
    heads = ["regulariser", "PSNR, dB", "by the rule for λ", "seed", "Lip ≤", "steps"]
    lines = [["none: as observed", f"{rows[0]['observed']:.2f}", "", "", "", ""]]
    for row in rows:
        certified = f"{rounded_up(row['lipschitz'])}" if "lipschitz" in row else ""
        rule = f"{row['psnr_by_rule']:.2f}" if "psnr_by_rule" in row else ""
        steps = f"{row['steps']:,}" if "steps" in row else ""
        name = row["method"].replace("penalty_", "penalty, ").replace("_", " ")
        lines.append([name, f"{row['psnr']:.2f}", rule, str(row["seed"]), certified, steps])
    settings = PROBLEMS[problem]
    blurred = f"blurred with a standard deviation of {settings.blur:g} pixel, " if settings.blur else ""
    return f"**{problem.capitalize()}**: {blurred}noise {settings.noise:g}\n\n{markdown_table(heads, lines)}"


_LEGEND = f"""\
Mean peak signal-to-noise ratio of {TESTED} test images, of which nothing was trained or tuned on. λ is the best of
{len(FACTORS)} multiples of the rule 2E‖Aᵀ(Ax − y)‖ on {TUNED} training images, and for total variation of as many
weights; then by the rule alone, without any tuning. A critic's constant bounds how far its term can move an image: no
more than λ·L/2 where A is the identity."""
