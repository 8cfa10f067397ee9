"""W1 between real and generated samples as a metric of torchmetrics, for training and validation loops."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip.data import import_torchvision
from wgan_lip.data.sources import as_samples
from wgan_lip.metrics.excess import halved
from wgan_lip.transport import Problem, narrow_problem
from wgan_lip.utils.checks import InputError, as_tensor, check_samples

__all__ = ["W1Metric"]


def _base() -> Any:
    """torchmetrics' base class, if it is installed."""
    with suppress(ImportError):
        import_torchvision()  # which torchmetrics imports, and which not every installation can import by itself
        from torchmetrics import Metric

        return Metric
    return nn.Module


Base = _base()


class W1Metric(Base):  # type: ignore[misc, valid-type]  # whichever there is
    r"""Encloses W1 between the real and the generated samples seen so far, and gives its excess over its floor.

    .. math:: \text{lower} \le W_1(P_n, Q_m) \le \text{upper}, \qquad \text{excess} = E \Bigl[ \tfrac14 \sum_{i, j}
        W_1(x_i, y_j) - \tfrac12 \bigl( W_1(x_1, x_2) + W_1(y_1, y_2) \bigr) \Bigr]

    It is used like torchmetrics' FrechetInceptionDistance: `update(batch, real=True)` and `update(batch, real=False)`,
    then `compute()`, which returns a dictionary of four scalar tensors, float64:

    ======== ==========================================================================================
    lower    at most W1 of the samples, with proof
    exact    W1 of the samples; NaN if the two ends did not meet within `seconds`
    upper    at least W1 of the samples, with proof
    excess   W1 between halves of the two sides less W1 within them: 0 in the mean for equal laws, signed; NaN without
             four samples on either side, or with `excess=False`
    ======== ==========================================================================================

    Under DDP every rank updates with its own batches, and `compute` is about the samples of all ranks.

    Arguments:
        feature: A network or function of a batch, (b, …) → (b, d), such as an embedding, applied without gradients;
            None compares the samples themselves, flattened. W1 is in the units of its output.
        excess: Whether to compute the excess, which takes half as long again as the interval.
        seconds: Time for narrowing the interval beyond n m = 4 million pairs; up to that it is solved at once.
        reset_real_features: Whether `reset` forgets the real samples too; False keeps them from epoch to epoch.
        options: Options of `torchmetrics.Metric`.

    Raises:
        InputError: torchmetrics is not installed; `seconds` that is not positive. By `update`: a batch that is empty,
            not finite, or of another dimension than those before. By `compute`: no samples on one side.

    Guarantee:
        That of :func:`wgan_lip.transport.solve` for the samples as given (pixels of dtype uint8 divided by 255, all
        else as it is), on the CPU, in float64. All samples are kept, 8 bytes per number: it is W1 of all of them, not a
        mean over batches, which would be biased by the batch size.

        `forward` adds a batch as `update` does and returns NaN: a batch is from one side, so it has no distance.
        In many dimensions `exact` is far above W1 of the laws; for equal laws it is the floor. `excess` estimates it.

    Example:
        >>> metric = W1Metric()  # doctest: +SKIP
        >>> metric.update(torch.zeros(8, 1, 4, 4), real=True)  # doctest: +SKIP
        >>> metric.update(torch.ones(8, 1, 4, 4), real=False)  # doctest: +SKIP
        >>> float(metric.compute()["exact"])  # doctest: +SKIP
        4.0
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    plot_lower_bound = 0.0

    real: Any
    fake: Any
    width: Tensor

    def __init__(
        self,
        feature: Callable[[Tensor], Tensor] | None = None,
        *,
        excess: bool = True,
        seconds: float = 60.0,
        reset_real_features: bool = True,
        **options: Any,
    ) -> None:
        if Base is nn.Module:
            raise InputError(
                "W1Metric needs torchmetrics, which is not installed: pip install 'wgan-lip[torchmetrics]'."
            )
        if not seconds > 0:
            raise InputError(f"seconds, for narrowing the interval, must be positive, not {seconds}.")
        super().__init__(**options)
        self.feature, self.excess, self.seconds = feature, excess, seconds
        self.reset_real_features = reset_real_features
        # Flat rows of numbers, so that ranks without samples on one side have a state of the same kind as the others.
        self.add_state("real", default=[], dist_reduce_fx="cat")
        self.add_state("fake", default=[], dist_reduce_fx="cat")
        self.add_state("width", default=torch.tensor(0), dist_reduce_fx="max")

    def update(self, batch: Tensor, real: bool) -> None:
        """Adds samples of one side.

        Arguments:
            batch: Samples, shape (b, …), or the input of `feature`.
            real: Whether they are real; otherwise they are generated.
        """
        name = "the batch"
        if self.feature is not None:
            with torch.no_grad():
                batch = self.feature(batch)
            name = "the feature of the batch"
        rows = as_tensor(batch, name).detach()
        rows = as_samples(rows) if rows.ndim > 2 else rows
        rows = check_samples(rows.flatten(1) if rows.ndim > 2 else rows, name).double()
        if int(self.width) not in (0, rows.shape[1]):
            raise InputError(
                f"Samples of {name} have {rows.shape[1]} numbers each, those before {int(self.width)}. Reset the "
                "metric, or give both sides the same shape."
            )
        self.width = self.width.new_tensor(rows.shape[1])
        (self.real if real else self.fake).append(rows.flatten().to(self.device))

    def forward(self, batch: Tensor, real: bool) -> dict[str, Tensor]:
        """Adds samples as :meth:`update` does, and returns NaN, since a batch is from one side."""
        self.update(batch, real=real)
        self._forward_cache = self._scalars(math.nan, math.nan, math.nan, math.nan)
        return self._forward_cache

    def compute(self) -> dict[str, Tensor]:
        """lower, exact, upper and excess of all samples so far."""
        x, y = self._rows("fake"), self._rows("real")
        rounds = narrow_problem(Problem.of_checked(x, y), deadline=time.monotonic() + self.seconds)
        (found,) = deque(rounds, maxlen=1)
        exact = found.transport.exact if found.optimal else None
        enough = self.excess and min(len(x), len(y)) >= 4
        return self._scalars(
            found.transport.lower,
            math.nan if exact is None else exact,
            found.transport.upper,
            halved(x, y).excess if enough else math.nan,
        )

    def reset(self) -> None:
        """Forgets the samples, except the real ones with `reset_real_features=False`."""
        real, width = list(self.real), self.width  # its base empties the list itself
        super().reset()
        if not self.reset_real_features:
            self.real, self.width = real, width

    def sync(self, *arguments: Any, **options: Any) -> None:
        """Gathers the samples of all ranks, including ranks that have none on one side."""
        for name in ("real", "fake"):
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                setattr(self, name, [torch.empty(0, dtype=torch.float64, device=self.device)])
        super().sync(*arguments, **options)

    def _rows(self, side: str) -> Tensor:
        """All samples on one side, shape (n, d), on the CPU."""
        state = getattr(self, side)
        parts = [state] if isinstance(state, Tensor) else state
        if not sum(part.numel() for part in parts):
            which = "real" if side == "real" else "generated"
            raise InputError(
                f"W1Metric has seen no {which} samples: call update(batch, real={side == 'real'}) before compute()."
            )
        return torch.cat([part.cpu() for part in parts]).view(-1, int(self.width))

    def _scalars(self, lower: float, exact: float, upper: float, excess: float) -> dict[str, Tensor]:
        found = {"lower": lower, "exact": exact, "upper": upper, "excess": excess}
        return {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in found.items()}
