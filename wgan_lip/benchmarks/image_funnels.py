"""Suite image_funnels: critics trained and measured on real images whose optimal plan is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from wgan_lip.benchmarks import images
from wgan_lip.benchmarks.cases import (
    mean_of,
    number,
    parse_overrides,
    percent,
    positive_number,
    run_cases,
    some_of,
)
from wgan_lip.benchmarks.contest import Case
from wgan_lip.benchmarks.funnels import SOURCE
from wgan_lip.benchmarks.image_pairs import absent, cifar
from wgan_lip.benchmarks.machine import write_page, write_results
from wgan_lip.benchmarks.methods import COMPARED, Method
from wgan_lip.critics import PrincipalCritic
from wgan_lip.data.oracles import RayMonotone
from wgan_lip.data.sources import derived_generator
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.numbers import rounded_up
from wgan_lip.utils.tables import markdown_table

__all__ = ["METHODS", "PUBLISHED", "ImageLaw", "MovedImages", "Subspace", "measure", "moved_images"]

SECONDS = 60.0  # of training, for every method
AIM = 0.97  # of W1, certified
BATCH = 128  # samples of each law a step
HALF_WIDTH = 1.2  # of the cube that images are clipped to
NOISE = 0.01  # standard deviation
CHANNELS, PIXELS = 3, 32
SIDES = (32, 64)  # height and width of the images
FUNNELS = {"1_funnel": (1, 10.0), "16_funnels": (16, 100.0)}  # name of a pair → number of funnels and power
SUBSPACE, SPANNED = "subspace", 64
PAIRS = {
    "1_funnel": "1 funnel",
    "16_funnels": "16 funnels",
    SUBSPACE: f"Distance to the span of {SPANNED} images",
}
"""What the potential is, in words."""
CHOICE = 2  # the purpose of the stream that chooses the images that span it


@dataclass(frozen=True)
class Published:
    """What was published about a number of funnels: the best cosine, the estimate of W1 closest to it, and those of the
    critic with a gradient penalty; estimates as shares of W1 above or below it."""

    cosine: float
    w1_of_best: float
    closest_w1: float
    penalty_w1: float


PUBLISHED: dict[str, Published] = {
    "1_funnel": Published(0.953, -0.18, 0.05, 1.23),
    "16_funnels": Published(0.926, 0.95, 0.25, 0.92),
}
"""Of CIFAR-10, by pair. There Q is the law of a generator, here that of images."""

METHODS: dict[str, Method] = {
    "cones": replace(COMPARED["cones"], arguments={"depth": 0, "readout": "cones", "centers": 64}),
    **{name: images.METHODS[name] for name in ("residual", "image", "convolutional")},
    "principal": Method(PrincipalCritic, {"trained": True}, optimizer="Muon"),
    **{name: method for name, method in COMPARED.items() if name != "cones"},
    "cones_1024": COMPARED["cones"],
}
"""By name. Nothing here depends on the pair that a critic is trained on, but for an image's shape."""
DEFAULT = ("cones", "principal", "residual", "image", "linear", "gradient_penalty")


@dataclass(frozen=True, eq=False)
class ImageLaw:
    """Images y = 2p − 1 + N(0, 0.01²), for pixels p in [0, 1] scaled to `side`, clipped to the cube of half width 1.2.

    Arguments:
        pixels: p, shape (n, c, h, w), from 0 to 255.
        side: Height and width, by bilinear interpolation.
    """

    pixels: Tensor
    side: int

    @property
    def dim(self) -> int:
        return self.pixels.shape[1] * self.side**2

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """n of the images, with replacement, each with noise of its own: shape (n, d), in float32."""
        some = self.scaled(self.pixels[torch.randint(len(self.pixels), (n,), generator=rng)])
        return some.add_(torch.randn(some.shape, generator=rng), alpha=NOISE).clamp_(-HALF_WIDTH, HALF_WIDTH)

    def scaled(self, pixels: Tensor) -> Tensor:
        """Images without noise, shape (n, d)."""
        y = pixels.float() / 127.5 - 1
        if y.shape[-1] != self.side:
            y = F.interpolate(y, size=(self.side, self.side), mode="bilinear")
        return y.flatten(1)


class Truth(Protocol):
    """A potential f, and how it moves mass."""

    def moved(self, y: Tensor, rng: torch.Generator) -> Tensor:
        """x of optimal pairs (x, y), from y of any law in the cube: shape (n, d)."""

    def gradient(self, x: Tensor) -> Tensor:
        """That of f, shape (n, d), in float64."""


@dataclass(frozen=True, eq=False)
class Subspace:
    r"""Moves images y towards the linear span V of some images: no cones.

    .. math:: f(x) = -\mathrm{dist}(x, V), \qquad x = y - \lambda (y - \pi_V y), \qquad W_1 = E\|x - y\|

    with λ uniform on [0, 1].

    Arguments:
        images: A basis of V, shape (k, d).
    """

    images: Tensor = field(repr=False)

    @cached_property
    def basis(self) -> Tensor:
        """One with orthonormal columns, shape (d, k)."""
        return torch.linalg.qr(self.images.double().T).Q

    def moved(self, y: Tensor, rng: torch.Generator) -> Tensor:
        return y - torch.rand(len(y), 1, generator=rng).to(y) * self._rest(y)

    def gradient(self, x: Tensor) -> Tensor:
        return -F.normalize(self._rest(x.double()), dim=1, eps=1e-150)

    def _rest(self, x: Tensor) -> Tensor:
        basis = self.basis.to(x)
        return x - x @ basis @ basis.T


@dataclass(frozen=True, eq=False)
class MovedImages:
    """Q is a law of images, and P what a truth makes of them: of training images to train on, of others to measure."""

    truth: Truth
    trained: ImageLaw = field(repr=False)
    held_out: ImageLaw = field(repr=False)

    @property
    def dim(self) -> int:
        return self.trained.dim

    def sample(self, n: int, m: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """n samples of P and m of Q, independent, from training images, in float32."""
        return self.truth.moved(self.trained.draw(n, rng), rng), self.trained.draw(m, rng)

    def pair(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """n optimal pairs from held-out images, in float64."""
        y = self.held_out.draw(n, rng).double()
        return self.truth.moved(y, rng), y

    def gradient(self, x: Tensor) -> Tensor:
        return self.truth.gradient(x)


def measure(seeds: list[int], overrides: list[str], out: Path) -> str:
    """Trains every method on every truth in images of 32² and 64² pixels, fresh samples each step.

    Arguments:
        seeds: Of critics and samples; truths stay the same.
        overrides: `sides=32`, `pairs=1_funnel,16_funnels,subspace`, `methods=cones,image`, `seconds=300`, `root=DIR`,
            the folder that holds the data sets, by default where configurations keep them; nothing is downloaded.
        out: The suite's folder; see :func:`wgan_lip.benchmarks.cases.run_cases`.

    Raises:
        InputError: An override that is none of these; no data.
    """
    legal: dict[str, Callable[[str], Any]] = {
        "sides": some_of(SIDES, "sides"),
        "pairs": some_of(PAIRS, "pairs"),
        "methods": some_of(METHODS, "methods"),
        "seconds": positive_number("seconds"),
        "root": str,
    }
    chosen: dict[str, Any] = {
        "sides": SIDES,
        "pairs": list(PAIRS),
        "methods": DEFAULT,
        "seconds": SECONDS,
        "root": images.ROOT,
    }
    chosen |= parse_overrides(overrides, legal)
    trained, held_out = _pixels(chosen["root"])
    pairs = {
        (side, name): moved_images(name, ImageLaw(trained, side), ImageLaw(held_out, side))
        for side, name in product(chosen["sides"], chosen["pairs"])
    }
    cases = [
        Case(
            {"side": side, "pair": name, "method": method, "seed": seed},
            pair,
            images.shaped(METHODS[method], (CHANNELS, side, side)),
            chosen["seconds"],
            BATCH,
        )
        for seed, ((side, name), pair), method in product(dict.fromkeys(seeds), pairs.items(), chosen["methods"])
    ]
    rows = run_cases(cases, out)
    settings = [{"pair": name, **asdict(published)} for name, published in PUBLISHED.items()]
    more = {"seconds": chosen["seconds"], "published": {"source": SOURCE, "settings": settings}}
    methods = {name: METHODS[name].settings() for name in chosen["methods"]}
    write_results("image_funnels", seeds, out, overrides, threads=1, **more, methods=methods, rows=rows)
    table = _table(rows)
    how = (
        f"{chosen['seconds']:g} seconds of processor time a critic, one thread; {BATCH} samples of each law a step, of "
        f"{len(trained):,} training images, measured on pairs of {len(held_out):,} others."
    )
    title = "Critics on images whose optimal plan is known, and what was published"
    write_page(out, title=title, how=how, parts=[table, _losses(rows)])
    return table


def moved_images(name: str, trained: ImageLaw, held_out: ImageLaw) -> MovedImages:
    """The pair of that name; its truth is the same whatever the seed."""
    truth: Truth
    if name == SUBSPACE:
        rows = torch.randperm(len(trained.pixels), generator=derived_generator(0, CHOICE))[:SPANNED]
        truth = Subspace(trained.scaled(trained.pixels[rows]))
    else:
        funnels, power = FUNNELS[name]
        truth = RayMonotone(dim=trained.dim, funnels=funnels, power=power, half_width=HALF_WIDTH, apex_half_width=1.0)
    return MovedImages(truth, trained, held_out)


def _pixels(root: str) -> tuple[Tensor, Tensor]:
    """CIFAR-10's training and test images, shapes (n, c, h, w), as bytes: all cases share them."""
    if told := absent("cifar10", root):
        raise InputError(f"The suite image_funnels needs CIFAR-10, but there is {told}. Give its folder: root=DIR.")
    source = cifar(Path(root).expanduser())
    train, test = (
        rows.mul(255).round().to(torch.uint8).view(-1, CHANNELS, PIXELS, PIXELS) for rows in (source.train, source.test)
    )
    return train, test


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table a size and truth, published figures first; means over seeds."""
    lines = []
    heads = ["critic", "guarantee", "cosine", "value / W1", "certified / W1", "Lip ≤", "gradient norm on rays", "steps"]
    for side, name in dict.fromkeys((row["side"], row["pair"]) for row in rows):
        of = [row for row in rows if (row["side"], row["pair"]) == (side, name)]
        w1 = number(mean_of(of, "truth"), " W1 {:.2f}.")
        lines += [f"**{PAIRS[name]}, dimension {CHANNELS * side**2:,}**.{w1}", ""]
        cells = _published(PUBLISHED[name]) if name in PUBLISHED else []
        for method in dict.fromkeys(row["method"] for row in of):
            every = [row for row in of if row["method"] == method]
            good = [row for row in every if "failed" not in row]
            if not good:
                cells.append([method, every[0]["failed"]])
                continue
            cells.append(
                [
                    method,
                    good[0]["guarantee"],
                    number(mean_of(good, "cosine"), "{:.3f}"),
                    percent(mean_of(good, "ratio")),
                    percent(mean_of(good, "certified_ratio")),
                    rounded_up(max(row["lipschitz"] for row in good), 7),
                    number(mean_of(good, "ray_gradient_norm"), "{:.3f}"),
                    number(mean_of(good, "steps"), "{:,.0f}"),
                ]
            )
        lines += [markdown_table(heads, cells), ""]
    return "\n".join([*lines, _LEGEND]) + "\n"


def _losses(rows: Sequence[Mapping[str, Any]]) -> str:
    """Where each of our critics is behind the best published cosine, or certifies less than is aimed at."""
    lines = ["**Where ours lose**", ""]
    for method in dict.fromkeys(row["method"] for row in rows if not METHODS[row["method"]].baseline):
        of = [row for row in rows if row["method"] == method and "failed" not in row]
        rated = [row for row in of if row["pair"] in PUBLISHED]
        behind = _settings(row for row in rated if row["cosine"] <= PUBLISHED[row["pair"]].cosine)
        short = _settings(row for row in of if row["certified_ratio"] < AIM)
        lines.append(
            f"- {method}: behind the best published cosine in {behind}; certifies less than {percent(AIM)} of W1 in "
            f"{short}."
        )
    return "\n".join(lines)


def _settings(rows: Iterable[Mapping[str, Any]]) -> str:
    named = [f"{PAIRS[row['pair']].lower()} ({CHANNELS * row['side'] ** 2:,})" for row in rows]
    return ", ".join(dict.fromkeys(named)) or "no setting"


def _published(best: Published) -> list[list[str]]:
    return [
        ["published, best cosine", "none", f"{best.cosine:.3f}", percent(1 + best.w1_of_best)],
        ["published, closest W1", "none", "", percent(1 + best.closest_w1)],
        ["published, gradient penalty", "none", "", percent(1 + best.penalty_w1)],
    ]


_LEGEND = f"""\
CIFAR-10's images in [−1, 1] with noise N(0, 0.01²) are Q; trained on training images, measured on pairs of test images.
Cosine: of the critic's gradient to that of the potential, mean over points of P. Value: E_P f − E_Q f over the pairs'
mean length; certified: over the certified constant as well, which bounds W1 from below. Published: of
*{SOURCE}*,
whose law Q is a generator's, in dimension 3,072: cosines compare loosely. Cones are of the funnels' own family, and
the energy in `principal`, a distance from an affine subspace that trains, is of the family of one funnel and of the
distance to a span; the linear read-outs of `residual` and `linear` are of none."""
