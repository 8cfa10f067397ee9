"""What TensorBoard shows of a training run: curves, pictures, histograms, the potential as a surface, and texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip import figures
from wgan_lip.data import Source
from wgan_lip.generators import draw_latents
from wgan_lip.lipschitz.certificates import Certificate, certify
from wgan_lip.runs.folder import versions, yaml_text
from wgan_lip.runs.resuming import FREE
from wgan_lip.runs.tracking import MEANINGS, Tracker, Trackers
from wgan_lip.training.game import Game, Record
from wgan_lip.transport import solve
from wgan_lip.utils.numbers import rounded_up
from wgan_lip.utils.tables import flat, markdown_table

__all__ = ["TrainingBoard", "meanings"]

SHOWN = 300  # samples of each law in pictures and histograms of a step
PICTURED = 20  # most audits with pictures: in long runs they are drawn less often

PICTURES = {
    "at_a_glance/samples": "The averaged generator at the same latents at every step: what it learns, and whether "
    "samples begin to look alike. In the plane, generated samples are red and real ones blue, over the critic's "
    "values, lighter where higher, and its gradient. *Values should rise from generated samples to real ones.*",
    "samples/real_beside_generated": "Held-out images on the left, generated ones on the right.",
    "critic/transport_rays": "Rays of an optimal plan between real and generated samples, coloured by the critic's "
    "slope along them. *A KR potential is dark green, slope 1, on all of them.*",
    "critic/potential": "The critic as a surface, with equal units on all axes. Green is slope 1, orange is flat; real "
    "samples are blue, generated ones red. *It should rise at 45 degrees from red to blue.*",
    "critic/values_real": "The critic's values on held-out samples. *They should lie above those on generated "
    "ones*, by W1 on average for a KR potential.",
    "critic/values_generated": "The critic's values on generated samples.",
    "critic/ray_grad_norm": "Gradient norms half-way along the rays of an optimal plan, *1 for a KR potential*; none "
    "exceeds the certified constant.",
}
"""What pictures, histograms and the surface show, and what is good, in Markdown."""
OF_ESTIMATES = ("perf/seconds",)  # tags that training does not have


@dataclass(frozen=True)
class _Scores:
    """The scores of a finished run, as a tracker takes them."""

    step: int
    scalars: Mapping[str, float]


class TrainingBoard:
    """Sends trackers, TensorBoard above all, everything there is to see of a training run.

    Every record gives scalars; at most :data:`PICTURED` evenly spread audits also give pictures of the averaged
    generator at fixed latents and of the critic, histograms, the potential as a surface if samples are points in the
    plane, and the certificate. It draws random numbers only from a separate generator.

    Arguments:
        tracker: The tracker.
        source: The data.
        settings: The run's full configuration.
        command: What started the training, in words.
        goes_on: Whether the run was begun before, and its trackers know it.
    """

    def __init__(
        self, tracker: Tracker, source: Source, settings: Mapping[str, Any], command: str, *, goes_on: bool = False
    ) -> None:
        self._tracker, self._source, self._units = tracker, source, source.units
        training = settings["training"]
        audits = math.ceil(training["steps"] / training["audit_every"])
        self._stride = training["audit_every"] * math.ceil(audits / PICTURED)
        tracker.hparams(_hyperparameters({key: value for key, value in settings.items() if key not in FREE}))
        if not goes_on:
            tracker.text("about/configuration", f"```yaml\n{yaml_text(settings)}```")
            tracker.text("about/environment", _environment(settings, command))
            tracker.text("about/charts", meanings(tag for tag in (*MEANINGS, *PICTURES) if tag not in OF_ESTIMATES))

    def record(self, record: Record, *, pictured: bool = False) -> None:
        """Shows a record before training continues; `pictured` asks for pictures even if none are due."""
        if record.scalars:
            scalars = {**record.scalars, **_at_a_glance(record.scalars), **_relative(record.scalars)}
            self._tracker.record(replace(record, scalars=scalars))
        if record.note:
            self._tracker.text("about/note", record.note, record.step)
        if pictured or (record.audited and (record.step % self._stride == 0 or record.ended is not None)):
            self._show(record.game, record.step)

    def flush(self) -> None:
        """Writes everything shown so far to disk."""
        self._tracker.flush()

    def scores(self, summary: Mapping[str, Any], step: int) -> None:
        """Writes the final scores of a run, by which the page of hyperparameters compares it with others.

        They are recorded one step after the run's last: if the run is resumed, because it was killed before it was
        finished or should take more steps, they are dropped with everything that it records again.
        """
        score, interval = summary["score"], summary["interval"]
        scalars = _at_a_glance(
            {
                **{f"eval/{name}": value for name, value in summary["scores"]["samples"]["values"].items()},
                "eval/excess": score["excess"],
                "eval/w1_floor": score["floor"],
                "w1/lower": interval["lower_as_trained"],
                "w1/exact": math.nan if interval["exact"] is None else interval["exact"],
            }
        )
        self._tracker.record(_Scores(step + 1, scalars))

    def _show(self, game: Game, step: int) -> None:
        if isinstance(self._tracker, Trackers) and not self._tracker:
            return  # nobody looks
        source, critic = self._source, game.critic
        real = source.test[:SHOWN]
        rng = torch.Generator(game.latent_rng.device).manual_seed(0)  # the same latents at every step
        with torch.no_grad():
            generated = game.ema(draw_latents(game.ema, max(64, len(real)), rng)).cpu()
        self._tracker.text("certificate/layers", _certificate(certify(critic, units=self._units)), step)
        if source.image_shape is not None and source.image_shape[0] in (1, 3):
            self._show_images(real, generated, source.image_shape, step)
        elif source.dim == 2:
            self._draw("at_a_glance/samples", _landscape(critic, source, real, generated), step)
            self._tracker.surface("critic/potential", *figures.potential_surface(critic, real, generated), step)
        else:
            self._draw("at_a_glance/samples", figures.generated_cloud(real, generated), step)
        if not bool(torch.isfinite(generated).all()):
            return
        generated = generated[: len(real)]
        plan = solve(real, generated).plan
        draw = figures.transport_lines if source.dim == 2 else figures.ray_profiles
        self._draw("critic/transport_rays", draw(critic, real, generated, plan.rows, plan.columns, plan.mass), step)
        with torch.no_grad():
            like = next(critic.parameters())
            for name, cloud in (("real", real), ("generated", generated)):
                self._tracker.histogram(f"critic/values_{name}", critic(cloud.to(like)), step)
        middle = torch.lerp(real[plan.rows], generated[plan.columns], 0.5)
        self._tracker.histogram("critic/ray_grad_norm", figures.gradient_norms(critic, middle), step)

    def _draw(self, tag: str, figure: figures.Figure, step: int) -> None:
        width, height = figure.get_size_inches()
        figure.set_size_inches(0.7 * width, 0.7 * height)  # the page's cards are about 350 pixels wide
        self._tracker.image(tag, figures.to_array(figure, dpi=80), step, colors=128)

    def _show_images(self, real: Tensor, generated: Tensor, shape: tuple[int, int, int], step: int) -> None:
        source = self._source
        shown = 0.0 if source.low is None else source.low, 1.0 if source.high is None else source.high
        grid = figures.sample_grid(generated[:64], shape, value_range=shown)
        self._tracker.image("at_a_glance/samples", grid, step)
        pair = figures.real_beside_generated(real, generated, shape, count=32, columns=4, value_range=shown)
        self._tracker.image("samples/real_beside_generated", figures.to_array(pair), step)


def _at_a_glance(scalars: Mapping[str, float]) -> dict[str, float]:
    """The key figures of a run, from an audit or from its end; unknown ones are left out."""
    excess, floor = (scalars.get(tag, math.nan) for tag in ("eval/excess", "eval/w1_floor"))
    told = {
        "excess": excess,
        "excess_share": _on_one_scale(excess, floor),
        "precision": scalars.get("eval/precision", math.nan),
        "proved_share": scalars.get("w1/lower", math.nan) / (scalars.get("w1/exact") or math.nan),
        "recall": scalars.get("eval/recall", math.nan),
    }
    return {f"at_a_glance/{name}": value for name, value in told.items() if math.isfinite(value)}


def _relative(scalars: Mapping[str, float]) -> dict[str, float]:
    """The interval on a scale that fits all runs; empty if one of its ends is unknown."""
    floor = scalars.get("eval/w1_floor", math.nan)
    ends = {end: _on_one_scale(scalars.get(f"w1/{end}", math.nan), floor) for end in ("lower", "exact", "upper")}
    known = all(map(math.isfinite, ends.values()))
    return {f"relative/{end}": value for end, value in ends.items()} if known else {}


def _on_one_scale(value: float, floor: float) -> float:
    """v / (|v| + floor); see Note [A scale for all runs]."""
    return value / (abs(value) + floor) if abs(value) + floor > 0 else math.nan


def _hyperparameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for a tracker: section.key → value; section → the name of its class."""
    return {
        key.removesuffix("._target_"): str(value).rpartition(".")[2] if key.endswith("._target_") else value
        for key, value in flat(settings).items()
    }


def _landscape(critic: nn.Module, source: Source, real: Tensor, generated: Tensor) -> figures.Figure:
    return figures.landscape(critic, real, generated, modes=source.modes, resolution=101)


def _environment(settings: Mapping[str, Any], command: str) -> str:
    rows = {**versions(), "device": settings["device"], "threads": settings["threads"], "command": f"`{command}`"}
    return markdown_table(("what", "value"), rows.items())


def meanings(tags: Iterable[str]) -> str:
    """A table of tags, their meanings, and which direction is good, in Markdown."""
    first = "**Time Series** opens on `at_a_glance`; **Custom Scalars** shows W1 as a certified band.\n\n"
    told = MEANINGS | PICTURES
    return first + markdown_table(
        ("tag", "what it means, and which direction is good"), ((f"`{tag}`", told[tag]) for tag in tags)
    )


def _certificate(certificate: Certificate) -> str:
    layers = ((f"`{x.path}`", x.layer, x.norm_out, rounded_up(x.lipschitz, 7), x.method) for x in certificate.layers)
    head = f"**Lip(f) ≤ {certificate.lipschitz!r}** from {certificate.norm_in} to {certificate.norm_out}\n\n"
    foot = f"\n\nOne unit is {certificate.units}. Weights `{certificate.weights_sha256}`. {certificate.covers}"
    return head + markdown_table(("layer", "class", "norm out", "Lip ≤", "method"), layers) + foot
