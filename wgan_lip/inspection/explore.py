"""What a critic sees: its values, slopes and gradients, as captioned pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wgan_lip import figures
from wgan_lip.data import Source
from wgan_lip.figures import Figure
from wgan_lip.lipschitz.certificates import Certificate, certify, verify
from wgan_lip.transport import Transport, solve
from wgan_lip.utils.checks import InputError, check_pair
from wgan_lip.utils.numbers import interval_text, rounded, rounded_up
from wgan_lip.utils.printing import Printed, Row
from wgan_lip.utils.slopes import gradients

__all__ = ["Exploration", "Picture", "explore"]


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure with its texts.

    Attributes:
        figure: A matplotlib figure, in light colours on white.
        title: Its heading.
        caption: What it shows, and what is good.
        alt: The same in words and numbers, for readers who cannot see it.
    """

    figure: Figure
    title: str
    caption: str
    alt: str


@dataclass(frozen=True, eq=False, repr=False)
class Exploration(Printed):
    """A critic, explored on a real and a generated sample set.

    Attributes:
        pictures: Pictures by name, in the best order to read them.
        real: Real samples, shape (n, d), on the CPU.
        generated: Generated samples, shape (n, d).
        real_values: The critic's values on the real samples, shape (n,), in its precision.
        generated_values: Its values on the generated samples, shape (n,).
        ray_slopes: Mean slope of the critic along each line of an optimal plan, shape (k,); 1 for a KR potential.
        transport: The exact solution between the two sets.
        certificate: Proof of the critic's Lipschitz constant; None if none can be proved.
    """

    pictures: Mapping[str, Picture]
    real: Tensor
    generated: Tensor
    real_values: Tensor
    generated_values: Tensor
    ray_slopes: Tensor
    transport: Transport
    certificate: Certificate | None

    def headline(self) -> str:
        real, generated = self.real.shape, self.generated.shape
        return f"A critic on {real[0]:,} real and {generated[0]:,} generated samples in dimension {real[1]:,}"

    def summary_rows(self) -> list[Row]:
        ends = self.transport.lower, self.transport.upper, self.transport.exact
        between = float(self.real_values.double().mean() - self.generated_values.double().mean())
        rows = [
            Row("Critic's difference", rounded(between, 4), "mean on real minus mean on generated samples"),
            Row("W1 of the samples", interval_text(*ends), "certified"),
            Row("Slope on rays", rounded(float(self.ray_slopes.nanmean()), 3), "on average; 1 for a KR potential"),
        ]
        if self.certificate is not None:
            rows.append(self.certificate.bound_row("Certified critic"))
        return [*rows, Row("Pictures", ", ".join(self.pictures))]

    def picture(self) -> str:
        return f'<div style="display: flex; flex-wrap: wrap">{"".join(map(_small, self.pictures.values()))}</div>'

    def save(self, directory: str | os.PathLike[str], *, dpi: float = 110) -> dict[str, Path]:
        """Writes each picture as `NAME.png` into a folder, which is created if missing. Returns the paths."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        return {
            name: figures.save(picture.figure, directory / f"{name}.png", dpi=dpi)
            for name, picture in self.pictures.items()
        }


def _small(picture: Picture) -> str:
    """HTML of a picture at half its size, or less on a narrow page."""
    drawn = figures.inline_png(picture.figure, picture.alt, dpi=90)
    drawn = drawn.replace("<img ", '<img style="max-width: 100%; height: auto" ', 1)
    return f'<figure style="margin: 0.3em; width: 22em; max-width: 100%">{drawn}</figure>'


def explore(
    critic: nn.Module,
    source: Source,
    generated: Tensor,
    *,
    certificate: Certificate | None = None,
    count: int = 500,
) -> Exploration:
    """Explores a critic on held-out real samples and generated ones.

    In every dimension: the distribution of its values, and its fall along the lines of an optimal plan. In the plane:
    its landscape, its level lines, its gradient norms with the proved constant, and the lines of the plan. On images:
    its ranking of both sets, and what a step along its gradient does to a sample.

    Arguments:
        critic: The critic f, (b, d) → (b,), on any device.
        source: Where the real samples come from; its test set is used.
        generated: Samples of the generator, shape (m, d).
        certificate: A certificate claimed for this critic; it is proved again, and refused if it does not hold. By
            default a new one is proved, if possible.
        count: Samples of each set, at most.

    Returns:
        :class:`Exploration`; its `pictures` are figures with captions and alternative texts.

    Raises:
        InputError: No samples, or samples that are not finite or have another dimension than the source's; a
            certificate that is about other weights, or was edited.

    Example:
        >>> import torch
        >>> from wgan_lip.critics import ResNetCritic
        >>> from wgan_lip.data import Moons
        >>> seen = explore(ResNetCritic(2, width=8, depth=2), Moons(), torch.randn(50, 2))
        >>> list(seen.pictures)
        ['landscape', 'level_lines', 'gradient_norm', 'rays', 'along_rays', 'values']
        >>> bool((seen.ray_slopes <= seen.certificate.lipschitz + 1e-5).all())
        True
    """
    if count < 2:
        raise InputError(f"count must be at least 2, not {count}.")
    real, generated = (cloud[:count].detach().cpu() for cloud in (source.test, generated))
    check_pair(real, generated)
    size = min(len(real), len(generated))
    real, generated = real[:size], generated[:size]
    if certificate is not None:
        certificate = verify(certificate, critic)
    else:
        with suppress(InputError):  # without a proof, or with weights that are not finite, there is no constant to show
            certificate = certify(critic)
    transport = solve(real, generated)
    plan = transport.plan
    real_values, generated_values = _values(critic, real), _values(critic, generated)
    lengths = (real[plan.rows].double() - generated[plan.columns].double()).norm(dim=1)
    falls = (real_values[plan.rows] - generated_values[plan.columns]).double()
    slopes = torch.where(lengths > 0, falls / lengths, torch.nan)
    found = Exploration({}, real, generated, real_values, generated_values, slopes, transport, certificate)
    pictures = _on_the_plane(critic, source, found) if source.dim == 2 else {}
    if source.image_shape is not None and source.image_shape[0] in (1, 3):
        pictures = _on_images(critic, source, found)
    elif source.dim == 1:
        pictures = _on_the_line(critic, found)
    elif source.dim > 2:
        pictures = {"cloud": _cloud(found)}
    pictures |= {"along_rays": _along_rays(critic, found), "values": _value_histograms(found)}
    return Exploration(pictures, real, generated, real_values, generated_values, slopes, transport, certificate)


@torch.no_grad()
def _values(critic: nn.Module, samples: Tensor) -> Tensor:
    like = next(critic.parameters(), samples)
    return critic(samples.to(like)).reshape(len(samples)).cpu()


def _gradients(critic: nn.Module, samples: Tensor) -> Tensor:
    """Shape (b, d), on the CPU."""
    return gradients(critic, samples.to(next(critic.parameters(), samples))).cpu()


def _proved(found: Exploration) -> str:
    if found.certificate is None:
        return "it has no proved constant"
    return f"no slope exceeds the certified {rounded_up(found.certificate.lipschitz, 7)}"


def _mean_slope(found: Exploration) -> float:
    mass = torch.as_tensor(found.transport.plan.mass)
    known = torch.isfinite(found.ray_slopes)
    total = float(mass[known].sum())
    return float((found.ray_slopes[known] * mass[known]).sum()) / total if total > 0 else float("nan")


def _on_the_plane(critic: nn.Module, source: Source, found: Exploration) -> dict[str, Picture]:
    real, generated, plan = found.real, found.generated, found.transport.plan
    bound = found.certificate.lipschitz if found.certificate else None
    sizes = f"{len(real)} real and {len(generated)} generated points"
    return {
        "landscape": Picture(
            figures.landscape(critic, real, generated, modes=source.modes),
            "Landscape",
            "The critic's values, lighter where higher, its gradient field, and the samples. It should be high at "
            "real samples and low at generated ones; arrows show where it sends generated samples.",
            f"The critic over the plane with its gradient arrows, {sizes}. Its mean is "
            f"{float(found.real_values.mean()):.4g} at the real ones and "
            f"{float(found.generated_values.mean()):.4g} at the generated ones.",
        ),
        "level_lines": Picture(
            figures.level_lines(critic, real, generated),
            "Level lines",
            "Lines of equal value. Where the gradient has norm 1, they are as far apart as their values differ, and "
            "a 1-Lipschitz critic never has them closer; wide gaps mean that the critic is flat.",
            f"Labelled level lines of the critic around {sizes}; its values at them range from "
            f"{float(min(found.real_values.min(), found.generated_values.min())):.4g} to "
            f"{float(max(found.real_values.max(), found.generated_values.max())):.4g}.",
        ),
        "gradient_norm": Picture(
            figures.gradient_map(critic, real, generated, bound=bound),
            "Gradient norm, with the certified bound",
            "Darker is steeper. A KR potential has norm 1 wherever mass travels, between real and generated samples; "
            "elsewhere it may be flat. The red mark on the scale is the proved constant.",
            f"A map of the gradient norm around {sizes}; {_proved(found)}.",
        ),
        "rays": Picture(
            figures.transport_lines(critic, real, generated, plan.rows, plan.columns, plan.mass),
            "Lines of an optimal plan",
            "Each line joins a real sample x to the generated sample y it is matched with, coloured by the critic's "
            "slope along it. If all were dark, slope 1, the critic would be a KR potential and the interval closed.",
            f"{len(plan.mass)} lines of an optimal plan, on which the critic's mean slope is "
            f"{_mean_slope(found):.3f}; a KR potential has 1.",
        ),
    }


def _on_the_line(critic: nn.Module, found: Exploration) -> dict[str, Picture]:
    return {
        "distributions": Picture(
            figures.cdf_pair(found.real, found.generated, potential=critic),
            "Distribution functions and critic",
            "The area between the two distribution functions is W1. Below them is the critic: it should fall at slope "
            "1 where F is above G, and rise at slope 1 where F is below G.",
            f"Distribution functions of {len(found.real)} real (x) and {len(found.generated)} generated (y) points, "
            f"with W1 {found.transport.value:.4g} between them, above the critic's graph.",
        )
    }


def _cloud(found: Exploration) -> Picture:
    return Picture(
        figures.generated_cloud(found.real, found.generated),
        "Samples",
        "Real and generated samples on the first two principal components of the real ones. They should overlap.",
        f"{len(found.real)} real and {len(found.generated)} generated points of {found.real.shape[1]} dimensions, in "
        "the plane in which the real ones spread most.",
    )


def _on_images(critic: nn.Module, source: Source, found: Exploration) -> dict[str, Picture]:
    value_range = (0.0 if source.low is None else source.low, 1.0 if source.high is None else source.high)
    look: dict[str, Any] = {"image_shape": source.image_shape, "value_range": value_range}
    real, generated, values = found.real, found.generated, (found.real_values, found.generated_values)
    above = float((found.generated_values[:, None] > found.real_values).double().mean())
    return {
        "ranking": Picture(
            figures.ranked_images(real, values[0], generated, values[1], **look),
            "Ranking",
            "Real and generated images ordered by the critic's values, highest first: those it takes for the most and "
            "the least real. Generated images with high values are good by its measure.",
            f"{len(real)} real and {len(generated)} generated images ordered by the critic. A generated image ranks "
            f"above a real one in {100 * above:.0f} % of the pairs; at 50 % the critic could not tell them apart.",
        ),
        "steps": _steps(critic, found, look),
    }


def _steps(critic: nn.Module, found: Exploration, look: dict, rows: int = 6) -> Picture:
    r"""Generated images moved along the critic's gradient, up to the distance to their real partners.

    A KR potential has :math:`x = y + \|x - y\| \nabla f(y)` for the partner x of y.
    """
    plan = found.transport.plan
    order = np.argsort(found.generated_values[plan.columns].numpy(), kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(rows, len(order))).round().astype(int)]
    x, y = found.real[plan.rows[chosen]], found.generated[plan.columns[chosen]]
    distance = (x - y).norm(dim=1, keepdim=True)
    gradient = _gradients(critic, y)
    norm = gradient.norm(dim=1, keepdim=True)
    ahead = torch.where(norm > 0, gradient / norm, 0.0)
    shares = (0.25, 0.5, 1.0)
    moved = [y + share * distance * ahead for share in shares]
    values = [_values(critic, cloud) for cloud in (y, *moved, x)]
    heads = ["generated y", "1/4 step", "1/2 step", "full step", "partner x"]
    images = [[cloud[row].numpy() for cloud in (y, *moved, x)] for row in range(len(y))]
    texts = [
        [f"f = {values[0][row]:.3g}", *(f"f + {_gained(values, row, at):.2g}" for at in range(1, 5))]
        for row in range(len(y))
    ]
    left = [float((moved[-1][row] - x[row]).norm() / distance[row].clamp_min(1e-30)) for row in range(len(y))]
    return Picture(
        figures.image_table(images, texts, heads, **look),
        "Steps along the gradient",
        "Generated images, lowest value first, moved along the critic's gradient by a share of the distance to the "
        "real image an optimal plan matches them with. The full step of a KR potential ends at that partner, and its "
        "value rises by the distance.",
        f"{len(y)} generated images, each moved along the gradient by a quarter, half and all of the distance to its "
        f"real partner. After the full step, {min(left):.2f} to {max(left):.2f} of the distance remain; the gradient "
        f"norms at the start are {float(norm.min()):.3f} to {float(norm.max()):.3f}. A KR potential has 0 and 1.",
    )


def _gained(values: list[Tensor], row: int, at: int) -> float:
    return float(values[at][row] - values[0][row])


def _along_rays(critic: nn.Module, found: Exploration) -> Picture:
    plan = found.transport.plan
    return Picture(
        figures.ray_profiles(critic, found.real, found.generated, plan.rows, plan.columns, plan.mass),
        "Fall along the lines of an optimal plan",
        "How far the critic has fallen on the way from a real sample to the generated one it is matched with. On the "
        "dashed diagonal it falls as fast as a KR potential; what is missing at the end of the lines is also missing "
        "from the lower end of the interval.",
        f"The critic along lines of an optimal plan; its mean slope over all {len(plan.mass)} is "
        f"{_mean_slope(found):.3f}; a KR potential has 1; {_proved(found)}.",
    )


def _value_histograms(found: Exploration) -> Picture:
    difference = float(found.real_values.double().mean() - found.generated_values.double().mean())
    return Picture(
        figures.value_histograms(found.real_values, found.generated_values),
        "Values on real and generated samples",
        "The difference of the two means, divided by the certified constant, is the lower end of the interval. It "
        "shrinks as the generator gets better, and also if the critic lags behind.",
        f"Histograms of the critic's values; the means differ by {difference:.4g}, W1 of these samples is "
        f"{found.transport.value:.4g}.",
    )
