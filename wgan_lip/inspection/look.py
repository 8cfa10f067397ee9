"""The inspection of a run: its critic certified again, samples drawn again, and what deserves a second look."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wgan_lip.data import Source
from wgan_lip.inspection.findings import Finding, Standing, find
from wgan_lip.lipschitz.certificates import Certificate, certify
from wgan_lip.lipschitz.layers.base import kept_by_training
from wgan_lip.metrics import spread_over_real
from wgan_lip.runs.run import Run
from wgan_lip.utils.checks import InputError, one_line

__all__ = ["Inspection", "look_at"]

SAMPLES = 500  # samples of each law, for the spread and the pictures


@dataclass(frozen=True)
class Inspection:
    """The inspection of a run in any state; parts that are unavailable are None, with a reason.

    Attributes:
        run: The run.
        standing: Its figures.
        findings: What the rules of :mod:`wgan_lip.inspection.findings` find.
        certificate: The certificate, proved just now for the weights of the checkpoint.
        problem: Why there is no certificate.
        source: Its data, opened again without downloading.
        unopened: Why there is no source.
        generated: Samples of the averaged generator, shape (n, d).
    """

    run: Run
    standing: Standing
    findings: tuple[Finding, ...]
    certificate: Certificate | None
    problem: str | None
    source: Source | None
    unopened: str | None
    generated: Tensor | None


def look_at(run: Run, *, data: bool = True) -> Inspection:
    """Inspects a run in any state, as far as its folder allows.

    Arguments:
        run: The run; its folder is only read.
        data: Whether to open the data it was trained on, for what only they can show.

    Raises:
        InputError: A damaged configuration, status, summary or record. Missing or damaged checkpoints or data are not
            an error: the inspection reports them.
    """
    certificate = problem = source = generated = None
    unopened: str | None = "open_data is false"
    try:
        certificate = certify(run.critic, units=run.units)
    except InputError as error:
        problem = str(error)
    if data:
        try:
            source, unopened = run.source, None
        except (InputError, OSError) as error:
            unopened = str(error) if isinstance(error, InputError) else one_line(error)
    try:
        generated = run.sample(SAMPLES if source is None else min(SAMPLES, len(source.test)))
    except InputError as error:
        problem = problem or str(error)
    spread = math.nan
    if generated is not None and source is not None and bool(torch.isfinite(generated).all()):
        spread = spread_over_real(generated, source.test[: len(generated)])
    standing = Standing.of(
        run.status,
        run.summary,
        run.metrics,
        guarantee=_guarantee(run),
        modes=None if source is None or source.modes is None else len(source.modes),
        spread=spread,
    )
    return Inspection(run, standing, find(standing), certificate, problem, source, unopened, generated)


def _guarantee(run: Run) -> str:
    try:
        return kept_by_training(run.critic)
    except InputError:
        return "unknown"
