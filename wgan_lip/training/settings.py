"""The settings of training: each one's meaning, default and limits, in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wgan_lip.training.augmentation import Augmentation
from wgan_lip.training.moves import PRECISIONS, SCHEDULES
from wgan_lip.utils.settings import Settings, above, at_least, one_of

__all__ = ["Audits", "Averaging", "Batches", "Budget", "CriticSteps", "Guards", "Schedules", "Training"]


@dataclass(frozen=True, kw_only=True)
class Budget(Settings):
    """When training ends: at the first of these limits; None for no such limit.

    Attributes:
        steps: Generator steps.
        max_images: Generated samples in total; learning rates are then scheduled over the steps they amount to.
        max_seconds: Wall-clock seconds in total, including those before an interruption.
        patience: Audits in a row without a better score.
    """

    steps: int = above(0, 4000)
    max_images: int | None = above(0, None)
    max_seconds: float | None = above(0, None)
    patience: int | None = above(0, None)


@dataclass(frozen=True, kw_only=True)
class Batches(Settings):
    """The batches of a training step and how they are computed.

    Attributes:
        batch_size: Samples b of each law per step, over all ranks.
        accumulate: Equal parts of a batch over which gradients are accumulated: less memory, same step.
        precision: Arithmetic inside the generator in training, a key of :data:`wgan_lip.training.PRECISIONS`. Samples,
            the critic, audits and certificates are not affected.
        compile: Whether generator and critic are compiled by `torch.compile`. Not for a critic with a penalty, which is
            differentiated twice.
        capture: Whether steps on a GPU are captured in CUDA graphs, and replayed in one launch each; if that is
            impossible, a warning says why. See Note [Captured steps] of :mod:`wgan_lip.training.capturing`.
    """

    batch_size: int = above(0, 128)
    accumulate: int = above(0, 1)
    precision: str = one_of(PRECISIONS, "float32")
    compile: bool = False
    capture: bool = False


@dataclass(frozen=True, kw_only=True)
class CriticSteps(Settings):
    """How many steps the critic takes, and where it starts.

    Attributes:
        critic_steps: Critic steps per generator step.
        reuse_batch: Whether the last of them and the generator step take the same latents. Their samples are generated
            once, unless `accumulate` splits the batch: with one critic step, half as many in all.
        warmup_steps: Critic steps before the first generator step.
        boost_steps: Critic steps in a boosted generator step, instead of `critic_steps`.
        boost_first: Number of generator steps at the start that are boosted.
        boost_every: One generator step in so many is boosted; None for none.
        start_at_data: Whether the critic is initialised at samples, where its folds and cones are placed, by
            :meth:`wgan_lip.critics.Critic.start_at`. Not for a critic that is already trained.
        renew_every: Generator steps after which cones without effect on any sample are moved to samples, by
            :meth:`wgan_lip.critics.Critic.renew`; None for never. Each time waits for the device.
    """

    critic_steps: int = above(0, 3)
    reuse_batch: bool = False
    warmup_steps: int = at_least(0, 100)
    boost_steps: int = above(0, 100)
    boost_first: int = at_least(0, 0)
    boost_every: int | None = above(0, None)
    start_at_data: bool = False
    renew_every: int | None = above(0, None)

    def at(self, step: int) -> int:
        """Critic steps in generator step number `step`, from 1 on."""
        boosted = step <= self.boost_first or (self.boost_every is not None and step % self.boost_every == 0)
        return self.boost_steps if boosted else self.critic_steps

    def in_all(self, steps: int) -> int:
        """Critic steps in the first `steps` generator steps, including the warm-up."""
        first, every = min(self.boost_first, steps), self.boost_every
        boosted = first + (0 if every is None else steps // every - first // every)
        return self.warmup_steps + (steps - boosted) * self.critic_steps + boosted * self.boost_steps


@dataclass(frozen=True, kw_only=True)
class Schedules(Settings):
    """Learning rates during training, keys of :data:`wgan_lip.training.SCHEDULES`.

    Attributes:
        critic_schedule: Schedule of the critic.
        generator_schedule: Schedule of the generator.
    """

    critic_schedule: str = one_of(SCHEDULES, "linear")
    generator_schedule: str = one_of(SCHEDULES, "linear")


@dataclass(frozen=True, kw_only=True)
class Averaging(Settings):
    """The running average of the generator's weights, from which samples are drawn.

    Attributes:
        ema_half_life: Its half-life, in generated samples.
        ema_ramp: Largest half-life at first, as a share of the samples generated so far; 0 for no such limit, with
            which the average of a short training still remembers its start.
    """

    ema_half_life: float = above(0, 20_000.0)
    ema_ramp: float = at_least(0, 0.05, most=1)

    def weight(self, batch: int, images: int) -> float:
        """The share by which the average moves to the weights after a batch, with `images` samples generated so far."""
        half_life = self.ema_half_life if self.ema_ramp == 0 else min(self.ema_half_life, self.ema_ramp * images)
        return 1 - 0.5 ** (batch / half_life)


@dataclass(frozen=True, kw_only=True)
class Guards(Settings):
    """Safeguards against divergence.

    Attributes:
        critic_clip: Largest norm of the critic's gradient: longer ones are shortened to it. None for no limit.
        generator_clip: The same for the generator's gradient.
        divergence: How many times the mean dual value of the first record a later record's may be; None for no limit.
        max_rollbacks: How often training that diverged or is not finite is put back to its last good state, with both
            learning rates halved and new draws. A record without scalars reports it in its `note`.
    """

    critic_clip: float | None = above(0, None)
    generator_clip: float | None = above(0, None)
    divergence: float | None = above(1, None)
    max_rollbacks: int = at_least(0, 0)


@dataclass(frozen=True, kw_only=True)
class Audits(Settings):
    """What is recorded, and how often.

    Attributes:
        log_every: Generator steps between records.
        audit_every: Generator steps between audits, which enclose W1 on a fixed held-out batch between the critic's
            certified dual value and exact transport.
        audit_first: Whether :func:`wgan_lip.train` also audits before the first step, to give pictures and an interval
            at once.
        audit_size: Samples of each law in an audit, at most the size of the test set.
        audit_scores: Whether audits also compute the weight-free scores; see :func:`wgan_lip.metrics.similarity`.
        audit_refits: Number of audits, evenly spread and including the last, that refit a copy of the critic to fresh
            samples, to see whether the critic keeps up; see :mod:`wgan_lip.training.refitting`. 0 for none.
        score: The tag of an audit that decides which audit is the best so far: lower is better, or with a minus in
            front, higher.
    """

    log_every: int = above(0, 50)
    audit_every: int = above(0, 500)
    audit_first: bool = True
    audit_size: int = at_least(2, 500)
    audit_scores: bool = True
    audit_refits: int = at_least(0, 3)
    score: str = "eval/excess"

    def refits_at(self, step: int, total: int) -> bool:
        """Whether the audit at `step`, of `total` steps, is one of the evenly spread ones that refit."""
        every = self.audit_every * math.ceil(math.ceil(total / self.audit_every) / max(1, self.audit_refits))
        return self.audit_refits > 0 and step > 0 and step % every == 0


@dataclass(frozen=True, kw_only=True)
class Training(Budget, Batches, CriticSteps, Schedules, Averaging, Augmentation, Guards, Audits):
    """All settings of :func:`wgan_lip.train_wgan`, by name, grouped in its base classes.

    Raises:
        InputError: A value outside its limits.

    Example:
        >>> Training(steps=200, batch_size=64).steps
        200
        >>> Training(critic_schedule="lienar")
        Traceback (most recent call last):
            ...
        wgan_lip.utils.checks.InputError: `critic_schedule` must be one of constant, linear, linear_to_tenth, \
late_linear, cosine, not 'lienar'.
    """

    @property
    def total(self) -> int:
        """The generator steps that `steps` and `max_images` allow, over which learning rates are scheduled."""
        return self.steps if self.max_images is None else min(self.steps, math.ceil(self.max_images / self.batch_size))

    def spent(self, step: int, seconds: float, stale: int) -> str | None:
        """Why training is over, in words; None while it is not.

        Arguments:
            step: Generator steps done.
            seconds: Wall-clock seconds so far.
            stale: Audits since the best one.
        """
        if step >= self.steps:
            return f"all {self.steps} steps are done"
        if step >= self.total:
            return f"{self.max_images} images were generated, the limit of max_images"
        if self.patience is not None and stale >= self.patience:
            return f"none of the last {self.patience} audits was better"
        if self.max_seconds is not None and seconds >= self.max_seconds:
            return f"{self.max_seconds:g} seconds have passed, the limit of max_seconds"
        return None
