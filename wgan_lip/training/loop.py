"""The training of a WGAN, as one readable loop."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip.data import Source
from wgan_lip.generators import draw_latents
from wgan_lip.lipschitz.layers import constrain_steps
from wgan_lip.lipschitz.optimizers import rescale_lengths
from wgan_lip.training.audit import Audit
from wgan_lip.training.augmentation import Augmenter
from wgan_lip.training.capturing import CAPTURES, CapturedStep, moved_by, obstacle
from wgan_lip.training.checks import check_players, method_of
from wgan_lip.training.game import Game, Record, RefutedError
from wgan_lip.training.guards import Guard, table_of_values
from wgan_lip.training.moves import average, compiled, descend, draw, playing, scheduler, settler
from wgan_lip.training.randomness import global_rng_state
from wgan_lip.training.ranks import Ranks
from wgan_lip.training.settings import Training
from wgan_lip.utils.checks import check_choice
from wgan_lip.wasserstein.dual import ascend
from wgan_lip.wasserstein.interval import InvariantViolation

__all__ = ["train_wgan"]

START = 2048  # samples of each law from which a critic is initialised


def train_wgan(
    source: Source,
    generator: nn.Module,
    critic: nn.Module,
    settings: Training = Training(),
    *,
    generator_optimizer: torch.optim.Optimizer,
    critic_optimizer: torch.optim.Optimizer,
    seed: int = 0,
    state: Mapping[str, Any] | None = None,
    pause: Callable[[int], bool] | None = None,
    first_look: bool = False,
) -> Iterator[Record]:
    r"""Trains a generator against a certified critic: the bare loop, which writes nothing.

    .. math:: \min_G \max_{\mathrm{Lip}(f) \le 1} E_P f(x) - E_z f(G(z))

    Each generator step consists of `critic_steps` critic steps, which increase the dual value on fresh samples and
    latents, and one step of the generator. A record comes every `log_every` generator steps and with every audit, which
    encloses W1 on a fixed held-out batch between the critic's certified dual value and exact transport. See
    :func:`wgan_lip.train` for training with a folder, checkpoints, scores and TensorBoard.

    If torch's process group is initialised, its processes train together: call this and iterate on all of them in the
    same way. See :class:`wgan_lip.training.ranks.Ranks`.

    Arguments:
        source: Where samples x (b, d) come from. If it keeps a position, with `state_dict` and `load_state_dict`, it
            resumes there.
        generator: Latents (b, k) → samples (b, d), with an attribute `latent_dim` = k.
        critic: Samples (b, d) → values (b,), made of layers that can be certified. For a critic with a penalty, critic
            steps maximise the dual value minus the penalty; see :class:`wgan_lip.wasserstein.dual.Penalized`.
        settings: How long, on what batches, how many critic steps, and everything else; see :class:`Training`.
        generator_optimizer: Any torch optimiser on the generator's parameters.
        critic_optimizer: Any torch optimiser on the critic's parameters, best in groups of
            :func:`wgan_lip.parameter_groups`. Its steps are constrained; see :func:`wgan_lip.constrain_steps`.
        seed: Seed of latents and of the choice of samples.
        state: The state to resume from: `record.game.state_dict()`, or a run's checkpoint as `torch.load` returns it.
            With the same networks, data and settings, training on a CPU continues bit by bit as if never stopped.
        pause: Called after every step, and every critic step of the warm-up, with the generator steps done; if it
            returns True, a record without scalars follows, at which the state can be saved.
        first_look: Whether to audit before training, in a record of step 0: an interval and pictures within seconds,
            however slow the steps are. It does not count for the best score.

    Returns:
        An iterator of :class:`Record` in order of step, except after rollbacks; the last one is audited and says why it
        is the last. Training advances as the iterator is consumed. The state is consistent at every record, and only
        there.

    Raises:
        DivergedError: A value was not finite (:class:`wgan_lip.training.NonFiniteError`) or too far from the first;
            the last good state is restored before.
        RefutedError: A certified dual value above the exact W1.
        InputError: Settings that contradict each other, networks that do not fit the data or each other, a state that
            does not fit them or is of other data, or different data on another rank.
        UncertifiableError: A critic without a proof; see :func:`wgan_lip.certify`.
    """
    # Not itself a generator, so that bad settings are refused at the call, before anything is written about the run.
    ranks = Ranks()
    ranks.check_divides(settings.batch_size, settings.accumulate)
    check_players(source, generator, critic, settings)
    data = ranks.checked_data(source)
    augment = Augmenter(settings, source.image_shape)
    loop = _Loop(settings, ranks, generator, critic, augment, seed=seed, pause=pause)
    constrain_steps(critic_optimizer, critic)
    for player in (generator, critic):
        ranks.take_over(player, parameters=True)
    game = Game(
        source,
        generator,
        critic,
        copy.deepcopy(generator).requires_grad_(False).eval(),
        generator_optimizer,
        critic_optimizer,
        scheduler(generator_optimizer, settings.generator_schedule, settings.total),
        scheduler(critic_optimizer, settings.critic_schedule, settings.total),
        latent_rng=torch.Generator(loop.device).manual_seed(seed),
        data_rng=torch.Generator().manual_seed(seed),
        data=data,
    )
    if state is not None:
        game.load_state_dict(state.get("game", state) if isinstance(state, Mapping) else state)
    audit = Audit(
        source, generator, size=settings.audit_size, scores=settings.audit_scores, batch_size=settings.batch_size,
        seed=seed, device=loop.device,
    )  # fmt: skip
    check_choice(settings.score.removeprefix("-"), audit.tags, "`score`")
    return loop.records(game, audit, goes_on=state is not None, first_look=first_look)


class _Loop:
    """The training steps and their records."""

    def __init__(
        self, settings: Training, ranks: Ranks, generator: nn.Module, critic: nn.Module, augment: Augmenter, *,
        seed: int, pause: Callable[[int], bool] | None,
    ) -> None:  # fmt: skip
        self.settings, self.ranks, self.seed, self.pause = settings, ranks, seed, pause
        self.generator, self.critic, self.augment = generator, critic, augment
        self.device = next(critic.parameters()).device
        self.start_at = method_of(critic, "start_at", "start_at_data") if settings.start_at_data else None
        self.renew = method_of(critic, "renew", "renew_every") if settings.renew_every is not None else None
        self.play = playing(compiled(generator) if settings.compile else generator, settings.precision)
        self.value = compiled(critic) if settings.compile else critic
        self.settle_critic, self.settle_generator = (
            settler(clip, ranks) for clip in (settings.critic_clip, settings.generator_clip)
        )

    def records(self, game: Game, audit: Audit, *, goes_on: bool, first_look: bool) -> Iterator[Record]:
        """Trains from the current state."""
        settings, ranks = self.settings, self.ranks
        self.prepare(game)
        if goes_on:
            game.set_global_rng(ranks.rank)
        else:
            self.begin(game)
        guard = Guard(game, divergence=settings.divergence, max_rollbacks=settings.max_rollbacks)
        begun, ended = time.monotonic() - game.seconds, self.spent(game)
        if first_look and not goes_on and ended is None:
            with _global_rng_kept(game, ranks):
                yield Record(0, self.audited(game, audit), game, audited=True)
        while game.warmed < settings.warmup_steps and ended is None:
            self.critic_step(game)
            game.warmed += 1
            paused = self.asked(game)
            if paused or game.warmed == settings.warmup_steps:
                note = guard.recover(self.table(game), logged=False)
                guard.approve()
                if paused or note is not None:
                    with _global_rng_kept(game, ranks):
                        yield Record(game.step, {}, game, note=note)
        pace = _Pace(game)
        while ended is None:
            with pace:
                self.step(game)
                seconds = time.monotonic() - begun
                game.seconds = seconds if settings.max_seconds is None else ranks.told(seconds)
                audited = game.step % settings.audit_every == 0 or self.spent(game) is not None
                logged = audited or game.step % settings.log_every == 0
                values = self.table(game) if self.asked(game) or logged else None  # waits for the device only here
            if values is None:
                continue
            if note := guard.recover(values, logged=logged):
                pace = _Pace(game)
                with _global_rng_kept(game, ranks):
                    yield Record(game.step, {}, game, note=note)
                continue
            scalars: dict[str, float] = {}
            if logged:
                value, loss = values.mean(dim=0).tolist()
                scalars = {"w1/critic": value, "generator/loss": loss, **pace.figures(settings.batch_size)}
                if game.rollbacks:
                    scalars["guard/rollbacks"] = float(game.rollbacks)
                game.values.clear()
                pace = _Pace(game)
            with _global_rng_kept(game, ranks):
                guard.approve()
                improved = False
                if audited:
                    scalars |= self.audited(game, audit)
                    score = settings.score
                    improved = game.improves(-scalars[score[1:]] if score.startswith("-") else scalars[score])
                ended = self.spent(game)
                yield Record(game.step, scalars, game, audited, improved, ended=ended)

    def prepare(self, game: Game) -> None:
        """Makes the steps, captured if that is asked for and possible."""
        capture = CAPTURES.get(self.device.type) if self.settings.capture else None
        optimizers = (game.critic_optimizer, game.generator_optimizer)
        against = obstacle(self.critic, optimizers, ranks=self.ranks.size, compiled=self.settings.compile)
        if capture is not None and against is not None:
            capture = None
            warnings.warn(f"Steps are not captured: {against}. They are taken as written.", stacklevel=2)

        def captured(step: Callable[..., Tensor], *optimizers: torch.optim.Optimizer) -> CapturedStep:
            players = (self.critic, self.generator)
            return CapturedStep(partial(step, game), partial(moved_by, players, optimizers), capture)

        self.ascent = captured(self.ascend, game.critic_optimizer)
        self.descent = captured(self.descend, game.generator_optimizer)
        self.both = captured(self.step_of_both, *optimizers)

    def begin(self, game: Game) -> None:
        """Prepares the first step."""
        if self.ranks.rank:
            torch.manual_seed(self.seed + self.ranks.rank)  # so that dropout, for example, differs between ranks
        if self.start_at is not None:
            self.adapt(game, self.start_at)
            rescale_lengths(game.critic_optimizer, self.ranks.told(getattr(self.critic, "spread", 1.0)))
            game.critic_scheduler.base_lrs = [group["initial_lr"] for group in game.critic_optimizer.param_groups]

    def step(self, game: Game) -> None:
        """One generator step, and the critic steps before it."""
        settings, batch = self.settings, self.settings.batch_size
        if self.renew is not None and settings.renew_every is not None and game.step % settings.renew_every == 0:
            self.adapt(game, self.renew)
        for _ in range(settings.at(game.step + 1) - settings.reuse_batch):
            value = self.critic_step(game)
        if settings.reuse_batch:
            values = self.both(*self.draws(game, batch, self.ranks.share)).clone()  # a replay overwrites its result
        else:
            latents = self.latents(game, batch, self.ranks.share)
            values = torch.stack((value, self.descent(latents)))
        self.ranks.take_over(self.generator, parameters=False)
        game.step += 1
        average(game.ema, self.generator, weight=settings.weight(batch, images=game.step * batch))
        game.critic_scheduler.step()
        game.generator_scheduler.step()
        game.values.append(values)

    def critic_step(self, game: Game) -> Tensor:
        """One critic step, which increases the dual value; returns that value."""
        return self.ascent(*self.draws(game, self.settings.batch_size, self.ranks.share))

    def ascend(self, game: Game, x: Tensor, latents: Tensor) -> Tensor:
        """The critic's step on samples (b, d) and latents (b, k)."""
        return ascend(
            self.value, game.critic_optimizer, x, self.generated(latents), parts=self.settings.accumulate,
            settle=self.settle_critic,
        )  # fmt: skip

    def descend(self, game: Game, latents: Tensor) -> Tensor:
        """The generator's step on latents (b, k)."""
        return descend(
            self.generator, self.critic, game.generator_optimizer, latents, play=self.generate, value=self.value,
            parts=self.settings.accumulate, settle=self.settle_generator,
        )  # fmt: skip

    def step_of_both(self, game: Game, x: Tensor, latents: Tensor) -> Tensor:
        """The critic's step and the generator's on the same latents; dual value and loss, shape (2,)."""
        if self.settings.accumulate > 1:  # the graphs of all parts would take the memory that splitting saves
            return torch.stack((self.ascend(game, x, latents), self.descend(game, latents)))
        samples = self.generate(latents)
        value = ascend(self.value, game.critic_optimizer, x, samples.detach(), settle=self.settle_critic)
        loss = descend(
            self.generator, self.critic, game.generator_optimizer, latents, play=lambda _: samples, value=self.value,
            settle=self.settle_generator,
        )  # fmt: skip
        return torch.stack((value, loss))

    def adapt(self, game: Game, method: Callable[[Tensor, Tensor], object]) -> None:
        """Shows the critic samples of both laws, as in training, to initialise it or to renew cones."""
        x, latents = self.draws(game, max(self.settings.batch_size, START), lambda whole: whole)
        method(x, self.generated(latents))
        self.ranks.take_over(self.critic, parameters=True)

    def draws(self, game: Game, size: int, share: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """This rank's share of samples (b, d), augmented, and latents (b, k)."""
        x = share(draw(game.source, size, game.data_rng, self.device))
        if self.augment.numbers:
            x = self.augment(x, share(self.augment.draw(size, game.latent_rng)))
        return x, self.latents(game, size, share)

    def latents(self, game: Game, size: int, share: Callable[[Tensor], Tensor]) -> Tensor:
        """This rank's share of latents and of the random numbers with which their samples are augmented, (b, k)."""
        latents = draw_latents(self.generator, size, game.latent_rng)
        if self.augment.numbers:
            latents = torch.cat((latents, self.augment.draw(size, game.latent_rng)), dim=1)
        return share(latents)

    def generate(self, latents: Tensor) -> Tensor:
        """Generated samples, augmented, shape (b, d), from what :meth:`latents` returns."""
        if not self.augment.numbers:
            return self.play(latents)
        latents, numbers = latents.tensor_split((latents.shape[1] - self.augment.numbers,), dim=1)
        return self.augment(self.play(latents), numbers)

    @torch.no_grad()
    def generated(self, latents: Tensor) -> Tensor:
        """Generated samples, shape (b, d)."""
        return torch.cat([self.generate(some) for some in latents.chunk(self.settings.accumulate)])

    def audited(self, game: Game, audit: Audit) -> dict[str, float]:
        """The figures of an audit, done by rank 0."""
        self.ranks.check_equal(self.critic, self.generator, game.ema)
        last = self.settings.audit_refits > 0 and self.spent(game) is not None
        refit = last or self.settings.refits_at(game.step, self.settings.total)
        try:
            return self.ranks.by_first(lambda: audit(game, refit=refit))
        except InvariantViolation as violation:
            raise RefutedError(f"At step {game.step}: {violation}", game) from violation

    def spent(self, game: Game) -> str | None:
        """Why training is over, in words; None while it is not."""
        return self.settings.spent(game.step, game.seconds, game.stale)

    def asked(self, game: Game) -> bool:
        """Whether any of the ranks asks for a pause."""
        return self.pause is not None and self.ranks.any(self.pause(game.step))

    def table(self, game: Game) -> Tensor:
        """Dual value and generator loss of every step since the last record, shape (steps, 2), averaged over ranks."""
        values = table_of_values(game)
        self.ranks.average([values])
        return values


class _Pace:
    """Measures the pace of the steps taken inside its `with` blocks."""

    def __init__(self, game: Game) -> None:
        self.game, self.first, self.seconds = game, game.step, 0.0

    def __enter__(self) -> None:
        self.begun = time.perf_counter()

    def __exit__(self, *failure: object) -> None:
        self.seconds += time.perf_counter() - self.begun

    def figures(self, batch_size: int) -> dict[str, float]:
        rate = (self.game.step - self.first) / self.seconds
        return {"perf/steps_per_second": rate, "perf/samples_per_second": rate * batch_size}


@contextmanager
def _global_rng_kept(game: Game, ranks: Ranks) -> Iterator[None]:
    """Keeps training independent of what an audit or the caller draws from the global random generators."""
    game.global_rngs = ranks.gathered(global_rng_state())
    yield
    game.set_global_rng(ranks.rank)
