"""The WGAN game, as one loop a person can read."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip.checks import check_choice
from wgan_lip.data import Source
from wgan_lip.duality import ascend
from wgan_lip.generators import draw_latents
from wgan_lip.layers import retract_after_steps
from wgan_lip.training.audit import Audit
from wgan_lip.training.game import Game, NonFiniteError, Record, RefutedError
from wgan_lip.training.guards import table_of_values, trouble
from wgan_lip.training.moves import average, descend, draw, scheduler
from wgan_lip.training.randomness import global_rng_state, set_global_rng_state
from wgan_lip.training.refusals import check_players, check_settings
from wgan_lip.wasserstein import InvariantViolation

__all__ = ["train_wgan"]

START = 2048  # samples of each law that a critic starts at


def train_wgan(
    source: Source,
    generator: nn.Module,
    critic: nn.Module,
    *,
    generator_optimizer: torch.optim.Optimizer,
    critic_optimizer: torch.optim.Optimizer,
    steps: int = 4000,
    batch_size: int = 256,
    critic_steps: int = 3,
    warmup_steps: int = 100,
    critic_schedule: str = "linear",
    generator_schedule: str = "linear",
    ema_half_life: float = 20_000.0,
    log_every: int = 50,
    audit_every: int = 500,
    audit_size: int = 500,
    audit_scores: bool = True,
    start_at_data: bool = False,
    score: str = "eval/w1_over_floor",
    seed: int = 0,
    state: Mapping[str, Any] | None = None,
    pause: Callable[[int], bool] | None = None,
) -> Iterator[Record]:
    r"""Trains a generator against a certified critic, yielding a record every `log_every` steps and every audit.

    .. math:: \min_G \max_{\mathrm{Lip}(f) \le 1} E_P f(x) - E_z f(G(z))

    Per generator step: `critic_steps` dual ascents on fresh samples and latents, one descent of the generator. Every
    `audit_every` steps a fixed held batch is bracketed between the critic's certified dual value and exact transport.

    Arguments:
        source: Where samples x (b, d) come from.
        generator: Latents (b, k) → samples (b, d), with an attribute `latent_dim` = k.
        critic: Samples (b, d) → values (b,), made of layers that can be certified. One with a penalty ascends the
            value less that; see :class:`wgan_lip.duality.Penalized`.
        generator_optimizer: Any torch optimiser over the generator's parameters.
        critic_optimizer: Any torch optimiser over the critic's parameters; the retraction is registered on it.
        steps: Generator steps.
        batch_size: Samples b of each law a step.
        critic_steps: Dual ascents a generator step.
        warmup_steps: Dual ascents before the first generator step.
        critic_schedule: The critic's learning rate over the run, a key of :data:`wgan_lip.training.SCHEDULES`.
        generator_schedule: The generator's, likewise.
        ema_half_life: Half-life of the generator's average, in generated samples.
        log_every: Generator steps between records.
        audit_every: Generator steps between audits.
        audit_size: Samples of each law in an audit, at most the size of the test set.
        audit_scores: Whether an audit takes the weight-free scores too; see :func:`wgan_lip.metrics.similarity`.
        start_at_data: Whether the critic first puts its folds and cones where the samples are, by
            :meth:`wgan_lip.critics.Critic.start_at`. Not for a critic that is trained already.
        score: The tag, of those of an audit, by which an audit is the best so far: the lower the better, or the higher
            with a minus before it.
        seed: Seed of latents and of the choice of samples.
        state: Where to go on: what `record.game.state_dict()` gave, or a run's checkpoint as `torch.load` gives it.
            Same players, same settings: the game then goes on, on a CPU, bit by bit as if it had never stopped.
        pause: Asked after every step, and every ascent of the warm-up, with the steps done; where it says yes, a
            record without scalars comes, at which the state can be kept.

    Returns:
        An iterator of :class:`Record` in order of step; the last one is at `steps` and audited. The game is played
        as it is iterated. Its state is that of a whole step at every record, and only there.

    Raises:
        NonFiniteError: A value was not finite; the players are put back to the last good state first.
        RefutedError: A certified dual value above the exact W1.
        InputError: Settings that make no sense together, players that do not fit the data or one another, or a state
            that is not theirs.
        UncertifiableError: A critic without a proof; see :func:`wgan_lip.certify`.
    """
    # Not itself a generator: bad settings are refused at the call, before anything is written about the run.
    check_settings(
        steps=steps, batch_size=batch_size, critic_steps=critic_steps, warmup_steps=warmup_steps,
        critic_schedule=critic_schedule, generator_schedule=generator_schedule, ema_half_life=ema_half_life,
        log_every=log_every, audit_every=audit_every, audit_size=audit_size,
    )  # fmt: skip
    check_players(source, generator, critic, start_at_data=start_at_data, batch_size=batch_size)
    device = next(critic.parameters()).device
    retract_after_steps(critic_optimizer, critic)
    game = Game(
        source,
        generator,
        critic,
        copy.deepcopy(generator).requires_grad_(False).eval(),
        generator_optimizer,
        critic_optimizer,
        scheduler(generator_optimizer, generator_schedule, steps),
        scheduler(critic_optimizer, critic_schedule, steps),
        latent_rng=torch.Generator(device).manual_seed(seed),
        data_rng=torch.Generator().manual_seed(seed),
    )
    if state is not None:
        state = state.get("game", state) if isinstance(state, Mapping) else state
        game.load_state_dict(state)
    audit = Audit(source, generator, size=audit_size, scores=audit_scores, seed=seed, device=device)
    check_choice(score.removeprefix("-"), audit.tags, "training.score")

    def samples(size: int) -> tuple[Tensor, Tensor]:
        x = draw(source, size, game.data_rng, device)  # (b, d)
        with torch.no_grad():
            return x, generator(draw_latents(generator, size, game.latent_rng))  # (b, d)

    def dual_ascent() -> Tensor:
        return ascend(critic, critic_optimizer, *samples(batch_size))

    def step() -> None:
        for _ in range(critic_steps):
            value = dual_ascent()
        latents = draw_latents(generator, batch_size, game.latent_rng)  # (b, k)
        loss = descend(generator, critic, generator_optimizer, latents)
        average(game.ema, generator, weight=1 - 0.5 ** (batch_size / ema_half_life))
        game.critic_scheduler.step()
        game.generator_scheduler.step()
        game.values.append(torch.stack((value, loss)))
        game.step += 1

    def play() -> Iterator[Record]:
        if state is not None:
            set_global_rng_state(game.global_rng)
        elif start_at_data:
            critic.start_at(*samples(max(batch_size, START)))
        last_good, since = game.snapshot(), (game.step, game.seconds)
        while game.warmed < warmup_steps:
            with _timed(game):
                dual_ascent()
            game.warmed += 1
            if pause is not None and pause(game.step):
                with _global_rng_kept(game):
                    yield Record(game.step, {}, game)
        while game.step < steps:
            with _timed(game):
                step()
                audited = game.step % audit_every == 0 or game.step == steps
                logged = audited or game.step % log_every == 0
                paused = pause is not None and pause(game.step)
                table = table_of_values(game) if logged or paused else None  # the only wait for the device
            if table is None:
                continue
            if culprit := trouble(game, table):
                game.load_state_dict(last_good)
                raise NonFiniteError(
                    f"Expected finite values. Got {culprit}. The last good state, after step {game.step}, was kept. "
                    "Lower the learning rates, or check the data.",
                    game,
                )
            scalars: dict[str, float] = {}
            if logged:
                value, loss = table.mean(dim=0).tolist()
                rate = (game.step - since[0]) / (game.seconds - since[1])
                scalars = {
                    "w1/critic": value,
                    "generator/loss": loss,
                    "perf/steps_per_second": rate,
                    "perf/samples_per_second": rate * batch_size,
                }
                game.values.clear()
                since = game.step, game.seconds
            with _global_rng_kept(game):
                last_good = game.snapshot()
                if audited:
                    try:
                        scalars |= audit(game)
                    except InvariantViolation as violation:
                        raise RefutedError(f"At step {game.step}: {violation}", game) from violation
                    improved = game.improves(-scalars[score[1:]] if score.startswith("-") else scalars[score])
                yield Record(game.step, scalars, game, audited, audited and improved)

    return play()


@contextmanager
def _timed(game: Game) -> Iterator[None]:
    """Adds what it encloses to the seconds of play."""
    begun = time.perf_counter()
    yield
    game.seconds += time.perf_counter() - begun


@contextmanager
def _global_rng_kept(game: Game) -> Iterator[None]:
    """Whatever an audit, or who iterates, draws from the process's own generators, the game does not notice."""
    game.global_rng = global_rng_state()
    yield
    set_global_rng_state(game.global_rng)
