"""Suite images: critics trained and measured on real images, where no potential is known."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip import figures
from wgan_lip.benchmarks.cases import (
    mean_of,
    number,
    parse_overrides,
    percent,
    positive_number,
    run_cases,
    some_of,
)
from wgan_lip.benchmarks.contest import ROUNDING, Case, trained
from wgan_lip.benchmarks.image_pairs import PAIRS, ImagePair
from wgan_lip.benchmarks.machine import write_page, write_results
from wgan_lip.benchmarks.methods import COMPARED, Method
from wgan_lip.benchmarks.peers import torchlip_critic
from wgan_lip.critics import (
    ConvolutionalCritic,
    Critic,
    FixedWidthCritic,
    ImageCritic,
    PenalizedCritic,
    ResNetCritic,
    SortingCritic,
)
from wgan_lip.lipschitz.adversary import estimate_lipschitz
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import Squeeze
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.numbers import rounded_up
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.interval import estimate_ray_gradient_norm

__all__ = ["METHODS", "ImageCase", "PenalizedConvolutions", "measure", "shaped"]

SECONDS = 60.0  # of training, for every method
ROOT = "~/.cache/wgan_lip"
BATCH = 256  # samples of each law a step
RAYS = 500  # held-out samples of each law between which an optimal plan is solved
SEARCHED = 256  # points that look for the steepest slope, each in a quarter as many moves
CHUNK = 1024  # samples of one evaluation
DRAWN = ("residual", "residual_adam", "image", "sorting", "full_sort", "cones", "torchlip", "torchlip_fast",
         "gradient_penalty", "one_sided_penalty")  # fmt: skip
"""The critics in the figure; the table has all."""


def convolutional(dim: int, *, image_shape: tuple[int, int, int], **arguments: Any) -> ConvolutionalCritic:
    """A critic for images of that shape, c·h·w = dim."""
    return ConvolutionalCritic(image_shape, **arguments)


def image(dim: int, *, image_shape: tuple[int, int, int], **arguments: Any) -> ImageCritic:
    """A critic for images of that shape, c·h·w = dim."""
    return ImageCritic(image_shape, **arguments)


class PenalizedConvolutions(PenalizedCritic):
    """A :class:`PenalizedCritic` of convolutions for images of one shape, each followed by a leaky ReLU.

    Arguments:
        dim: c·h·w.
        image_shape: (c, h, w).
        channels: Channels after each convolution.
        kernel_size: Height and width of every kernel; zeros around images keep their size before strides.
        strides: Of each convolution.
        slope: Of the leaky ReLU below 0.
        width: Width of a hidden layer after the convolutions; 0 for none.
        one_sided: As for :class:`PenalizedCritic`.
    """

    def __init__(
        self,
        dim: int,
        *,
        image_shape: tuple[int, int, int],
        channels: Sequence[int] = (16, 32),
        kernel_size: int = 4,
        strides: Sequence[int] = (2, 2),
        slope: float = 0.2,
        width: int = 0,
        one_sided: bool = False,
    ) -> None:
        super().__init__(dim, one_sided=one_sided)
        before, *size = image_shape
        padding = (kernel_size - 1) // 2
        layers: OrderedDict[str, nn.Module] = OrderedDict(unflatten=nn.Unflatten(1, image_shape))
        for index, (after, stride) in enumerate(zip(channels, strides, strict=True)):
            layers[f"convolution_{index}"] = nn.Conv2d(before, after, kernel_size, stride, padding)
            layers[f"activation_{index}"] = nn.LeakyReLU(slope)
            before, size = after, [(pixels + 2 * padding - kernel_size) // stride + 1 for pixels in size]
        layers["flatten"] = nn.Flatten()
        rows = before * math.prod(size)
        if width:
            layers["hidden"] = nn.Linear(rows, width)
            layers["activation"] = nn.LeakyReLU(slope)
        layers["readout"] = nn.Linear(width or rows, 1)
        layers["squeeze"] = Squeeze()
        self._modules.clear()
        for name, layer in layers.items():
            self.add_module(name, layer)

    @classmethod
    def examples(cls) -> Iterator[Critic]:
        yield cls(64, image_shape=(1, 8, 8), channels=(2, 3), width=4)


def shaped(method: Method, image_shape: tuple[int, int, int]) -> Method:
    """The method for images of that shape, where its critic needs to know."""
    if method.critic not in (convolutional, image, PenalizedConvolutions):
        return method
    return replace(method, arguments={**method.arguments, "image_shape": image_shape})


_COMPARED: dict[str, Method] = {
    "residual": Method(ResNetCritic, optimizer="Muon"),
    "residual_adam": Method(ResNetCritic, learning_rate=0.2),
    "sorting": Method(SortingCritic, learning_rate=0.2),
    "full_sort": Method(SortingCritic, {"width": 128, "depth": 3, "group": 128}, learning_rate=0.2),
    "cones": COMPARED["cones"],
    "image": Method(image, optimizer="Muon"),
    "convolutional": Method(convolutional, learning_rate=0.2),
    "fixed_width": Method(FixedWidthCritic, {"depth": 2}),  # of width d + 3
    "torchlip": Method(torchlip_critic, baseline=True),
    "torchlip_fast": Method(torchlip_critic, learning_rate=0.5, baseline=True),
    **{name: COMPARED[name] for name in ("gradient_penalty", "one_sided_penalty", "spectral_norm", "groupsort")},
}

_RESIDUAL, _SORTING = _COMPARED["residual_adam"], _COMPARED["sorting"]

# What else was tried, one choice turned at a time. They run where they are named.
_VARIANTS: dict[str, Method] = {
    "residual_slow": replace(_RESIDUAL, learning_rate=0.1),
    "residual_fast": replace(_RESIDUAL, learning_rate=0.4),
    "residual_narrow": replace(_RESIDUAL, arguments={"width": 64}),
    "residual_wide": replace(_RESIDUAL, arguments={"width": 256}),
    "residual_shallow": replace(_RESIDUAL, arguments={"depth": 3}),
    "residual_deep": replace(_RESIDUAL, arguments={"depth": 12}),
    "residual_leaky": replace(_RESIDUAL, arguments={"activation": "leaky_relu"}),
    "residual_constant": replace(_RESIDUAL, schedule="constant"),
    "image_adam": Method(image, learning_rate=0.2),
    "image_64": Method(image, {"axes": 64}, optimizer="Muon"),
    "image_trained": Method(image, {"axes": 64, "trained": True}, optimizer="Muon"),
    "image_narrow": Method(image, {"width": 96}, optimizer="Muon"),
    "image_shallow": Method(image, {"depth": 2}, optimizer="Muon"),
    "sorting_16": replace(_SORTING, arguments={"group": 16}),
    "sorting_muon": Method(SortingCritic, optimizer="Muon"),
    "full_sort_muon": Method(SortingCritic, {"width": 128, "depth": 3, "group": 128}, optimizer="Muon"),
}

METHODS: dict[str, Method] = {**_COMPARED, **_VARIANTS}
"""By name. Nothing here depends on the pair that a critic is trained on, but for an image's shape."""


def measure(seeds: list[int], overrides: list[str], out: Path) -> str:
    """Trains every method on every pair of image sets that is there; draws `images.png`.

    Arguments:
        seeds: Of critics and batches; the splits stay the same.
        overrides: `pairs=digits,mnist`, `methods=residual,torchlip`, `seconds=10`, `root=DIR`, the folder that holds
            the data sets, by default where configurations keep them; nothing is downloaded. `held_out=training` holds
            out a fifth of the training samples instead of the test samples: to choose settings by.
        out: The suite's folder; see :func:`wgan_lip.benchmarks.cases.run_cases`.

    Raises:
        InputError: An override that is none of these; no pair's data are there.
    """
    legal: dict[str, Callable[[str], Any]] = {
        "pairs": some_of(PAIRS, "pairs"),
        "methods": some_of(METHODS, "methods"),
        "seconds": positive_number("seconds"),
        "root": str,
        "held_out": some_of(("test", "training"), "held_out"),
    }
    chosen: dict[str, Any] = {"pairs": list(PAIRS), "methods": list(_COMPARED), "seconds": SECONDS, "root": ROOT}
    chosen |= parse_overrides(overrides, legal)
    pairs = {
        name: ImagePair(name, chosen["root"], tuning=chosen.get("held_out") == ["training"]) for name in chosen["pairs"]
    }
    absent = {f"pair {name}": told for name, pair in pairs.items() if (told := pair.absent())}
    if find_spec("deel") is None:
        peers = [method for method in chosen["methods"] if METHODS[method].critic is torchlip_critic]
        absent |= {f"method {peer}": "deel-torchlip is not installed: pip install wgan-lip[peers]" for peer in peers}
    cases = [
        ImageCase(
            {"pair": pair, "method": method, "seed": seed}, pairs[pair], METHODS[method], chosen["seconds"], BATCH
        )
        for seed, pair, method in product(dict.fromkeys(seeds), pairs, chosen["methods"])
        if not {f"pair {pair}", f"method {method}"} & absent.keys()
    ]
    if not cases:
        raise InputError(f"There are no data for any pair: {'; '.join(absent.values())}")
    rows = run_cases(cases, out)
    methods = {name: METHODS[name].settings() for name in chosen["methods"]}
    more = {"seconds": chosen["seconds"], "pairs": {name: pair.title for name, pair in pairs.items()}}
    write_results("images", seeds, out, overrides, threads=1, **more, methods=methods, skipped=absent, rows=rows)
    _draw(rows, out)
    table = _table(rows, pairs, absent)
    how = f"{chosen['seconds']:g} seconds of processor time a critic, one thread."
    parts = [table, "![held-out values over the best one of their pair](images.png)", _losses(rows)]
    write_page(out, title="Critics on real images", how=how, parts=parts)
    return table


@dataclass(frozen=True)
class ImageCase(Case[ImagePair]):
    """One critic on one pair of image sets, from one seed."""

    def measured(self) -> dict[str, Any]:
        r"""Trains the critic and measures it on samples held out, in float64, in pixels.

        .. math:: \text{held\_out} = \frac1\ell \Bigl( \frac1k \sum_i f(x_i) - \frac1l \sum_j f(y_j) \Bigr)

        with ℓ the certified constant of a critic whose training keeps it at 1, and of any other the steepest slope that
        a search finds, which is less than its constant: that favours it.

        Returns:
            The figures of :func:`wgan_lip.benchmarks.contest.trained`, `guarantee`, `held_out`, `train`, likewise on
            the training samples, what they are `over`, the constant `lipschitz` where one can be certified, the
            steepest slope `found`, `ray_gradient_norm` along rays of an optimal plan between some held-out samples, and
            `exact`, W1 of the held-out samples where these are all.

        Raises:
            RuntimeError: A slope, or a value over W1, above the certified constant: a bug in a proof.
        """
        pair, method = self.pair, shaped(self.method, self.pair.image_shape)
        critic, row = trained(method, pair, seconds=self.seconds, batch=self.batch, seed=self.labels["seed"])
        row["guarantee"] = getattr(critic, "guarantee", "not certified" if method.baseline else "certified")
        return row if "failed" in row else {**row, **_measured(critic, pair, row["guarantee"])}

    def in_words(self, row: Mapping[str, Any]) -> str:
        if "failed" in row:
            return row["failed"]
        return f"held out {row['held_out']:.4f}, train {row['train']:.4f}, over the {row['over']}, {row['steps']} steps"


def _measured(critic: nn.Module, pair: ImagePair, guarantee: str) -> dict[str, Any]:
    export = getattr(critic, "vanilla_export", None)  # deel-torchlip's, which leaves plain layers
    critic.eval()
    exact = copy.deepcopy(critic if export is None else export()).double()
    x, y, x_test, y_test = pair.scaled
    lipschitz = certify(exact).lipschitz if export is None else None
    found = estimate_lipschitz(exact, torch.cat((x_test, y_test)).double(), starts=SEARCHED, steps=SEARCHED // 4)
    certified = guarantee == "certified"
    over = lipschitz if certified else found
    held_out, train = (pair.scale * (_mean(exact, p) - _mean(exact, q)) for p, q in ((x_test, y_test), (x, y)))
    some = [rows[:RAYS].double() for rows in (x_test, y_test)]
    transport = solve(*some)
    whole = max(len(x_test), len(y_test)) <= RAYS
    w1 = pair.scale * transport.value if whole else None
    if lipschitz is not None and (found > lipschitz or (w1 is not None and held_out > lipschitz * w1 * (1 + ROUNDING))):
        raise RuntimeError(
            f"The certificate states {lipschitz}, but a search found the slope {found}, or the value {held_out} is too "
            f"large on samples with W1 {w1}: a bug in a proof."
        )
    return {
        "held_out": held_out / over if over else 0.0,
        "train": train / over if over else 0.0,
        "over": "certified constant" if certified else "steepest slope found",
        "lipschitz": lipschitz,
        "found": found,
        "ray_gradient_norm": estimate_ray_gradient_norm(exact, some[0], some[1], transport.plan),
        "exact": w1,
    }


@torch.no_grad()
def _mean(critic: nn.Module, samples: Tensor) -> float:
    return float(torch.cat([critic(rows.double()) for rows in samples.split(CHUNK)]).mean())


def _table(rows: Sequence[Mapping[str, Any]], pairs: Mapping[str, ImagePair], absent: Mapping[str, str]) -> str:
    """All pairs on one page, then a table a pair; means over seeds."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    names = list(dict.fromkeys(row["pair"] for row in rows))
    best = {
        name: max(filter(None, (_held_out(rows, name, method) for method in methods)), default=None) for name in names
    }
    cells = []
    for method in methods:
        values = {name: _held_out(rows, name, method) for name in names}
        shown = [
            f"**{number(v, '{:.3f}')}**" if v is not None and v == best[n] else number(v, "{:.3f}")
            for n, v in values.items()
        ]
        cells.append([method, _over(rows, method), *shown])
    lines = ["**Held-out value over the constant, or over the steepest slope found**", ""]
    lines += [markdown_table(["critic", "over", *names], cells), ""]
    for name in names:
        of = [row for row in rows if row["pair"] == name]
        exact = mean_of(of, "exact")
        known = "" if exact is None else f" W1 of the held-out samples: {exact:.4f}."
        lines += [f"**{name}**. {pairs[name].title}.{known}", "", _pair_table(of), ""]
    lines += [f"Left out: {what}: {why}" for what, why in absent.items()]
    return "\n".join([*lines, _LEGEND]) + "\n"


def _losses(rows: Sequence[Mapping[str, Any]]) -> str:
    """On every pair, the default critic against the best one that others made."""
    lines = ["**The default critic, `residual`, against the best of the others**", ""]
    for pair in dict.fromkeys(row["pair"] for row in rows):
        values = {name: _held_out(rows, pair, name) for name in dict.fromkeys(row["method"] for row in rows)}
        peers = {name: v for name, v in values.items() if v is not None and METHODS[name].baseline}
        ours = values.get("residual")
        if ours is None or not peers:
            continue
        best = max(peers, key=lambda name: peers[name])
        own = {name: v for name, v in values.items() if v is not None and not METHODS[name].baseline and v > ours}
        ahead = f"; of ours, {max(own, key=lambda name: own[name])} has {max(own.values()):.3f}" if own else ""
        gain = 100 * (ours / peers[best] - 1)
        word = "ahead of" if gain > 0 else "behind"
        lines.append(f"- {pair}: {ours:.3f}, {abs(gain):.1f} % {word} {best} ({peers[best]:.3f}){ahead}.")
    return "\n".join(lines) if len(lines) > 2 else ""


def _held_out(rows: Sequence[Mapping[str, Any]], pair: str, method: str) -> float | None:
    return mean_of((row for row in rows if row["pair"] == pair and row["method"] == method), "held_out")


def _over(rows: Iterable[Mapping[str, Any]], method: str) -> str:
    return next((row["over"] for row in rows if row["method"] == method and "over" in row), "")


def _pair_table(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = ["critic", "held out", "train", "of W1", "gradient norm on rays", "Lip ≤", "steepest slope", "steps"]
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        every = [row for row in rows if row["method"] == method]
        of = [row for row in every if "failed" not in row]
        if not of:
            lines.append([method, every[0]["failed"]])
            continue
        values = [row["held_out"] for row in of]
        spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
        shares = [row["held_out"] / row["exact"] for row in of if row["exact"]]
        constants = [row["lipschitz"] for row in of if row["lipschitz"] is not None]
        lines.append(
            [
                method,
                f"{fmean(values):.3f}{spread}" + f", {len(every) - len(of)} failed" * (len(of) < len(every)),
                number(mean_of(of, "train"), "{:.3f}"),
                percent(fmean(shares) if shares else None),
                number(mean_of(of, "ray_gradient_norm"), "{:.3f}"),
                rounded_up(max(constants), 7) if constants else "",
                number(max(row["found"] for row in of), "{:.4f}"),
                number(mean_of(of, "steps"), "{:,.0f}"),
                f"{1e3 * fmean(row['seconds'] / max(1, row['steps']) for row in of):.1f}",
            ]
        )
    return markdown_table([*heads, "ms a step"], lines)


_LEGEND = """\
Pixels in [0, 1]; equal processor time for all, one thread; splits and seeds are fixed in the code. Certified critics
are divided by their certified constant, others by the steepest slope that a search finds, which is less than their
constant and so favours them. Of W1: of the held-out samples, where the solver takes all of them. Gradient norm on rays:
at quarter points of an optimal plan between held-out samples, where that of a potential is 1."""


def _draw(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Held-out values of some critics, over the best one of their pair."""
    pairs, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in ("pair", "method"))
    marks: dict[str, dict[str, float]] = {}
    for pair in pairs:
        values = {method: value for method in methods if (value := _held_out(rows, pair, method)) is not None}
        for method, value in values.items():
            if method in DRAWN:
                marks.setdefault(method.replace("_", " "), {})[pair.replace("_", " ")] = value / max(values.values())
    figure = figures.score_dots(
        marks,
        quantity="held-out value over the constant, over the best one",
        title="What critics find of $W_1$ in images",
    )
    figures.save(figure, out / "images.png", dpi=130)
