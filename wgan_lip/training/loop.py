"""The WGAN game, as one loop a person can read."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip.data import Source
from wgan_lip.generators import draw_latents
from wgan_lip.lipschitz.layers import constrain_steps
from wgan_lip.lipschitz.optimizers import rescale_lengths
from wgan_lip.training.audit import Audit
from wgan_lip.training.budget import Budget
from wgan_lip.training.checks import SETTINGS, check_players, check_settings, method_of
from wgan_lip.training.game import Game, Record, RefutedError
from wgan_lip.training.guards import Guard, table_of_values
from wgan_lip.training.moves import average, compiled, descend, draw, half_life, playing, scheduler, settler
from wgan_lip.training.randomness import global_rng_state
from wgan_lip.training.ranks import Ranks
from wgan_lip.utils.checks import check_choice
from wgan_lip.wasserstein.dual import ascend
from wgan_lip.wasserstein.interval import InvariantViolation

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
    boost_steps: int = 100,
    boost_first: int = 0,
    boost_every: int | None = None,
    critic_schedule: str = "linear",
    generator_schedule: str = "linear",
    ema_half_life: float = 20_000.0,
    ema_ramp: float = 0.0,
    critic_clip: float | None = None,
    generator_clip: float | None = None,
    accumulate: int = 1,
    precision: str = "float32",
    compile: bool = False,
    log_every: int = 50,
    audit_every: int = 500,
    audit_size: int = 500,
    audit_scores: bool = True,
    start_at_data: bool = False,
    renew_every: int | None = None,
    audit_refits: int = 3,
    score: str = "eval/excess",
    patience: int | None = None,
    max_images: int | None = None,
    max_seconds: float | None = None,
    divergence: float | None = None,
    max_rollbacks: int = 0,
    seed: int = 0,
    state: Mapping[str, Any] | None = None,
    pause: Callable[[int], bool] | None = None,
) -> Iterator[Record]:
    r"""Trains a generator against a certified critic, yielding a record every `log_every` steps and every audit.

    .. math:: \min_G \max_{\mathrm{Lip}(f) \le 1} E_P f(x) - E_z f(G(z))

    Per generator step: `critic_steps` dual ascents on fresh samples and latents, one descent of the generator. Every
    `audit_every` steps a fixed held batch is bracketed between the critic's certified dual value and exact transport.

    Where torch's process group is initialised, its processes play one game together: call this and iterate alike on
    all of them. See :class:`wgan_lip.training.ranks.Ranks`.

    Arguments:
        source: Where samples x (b, d) come from. One that keeps a position of its own offers it by `state_dict` and
            `load_state_dict`, and goes on there.
        generator: Latents (b, k) → samples (b, d), with an attribute `latent_dim` = k.
        critic: Samples (b, d) → values (b,), made of layers that can be certified. One with a penalty ascends the
            value less that; see :class:`wgan_lip.wasserstein.dual.Penalized`.
        generator_optimizer: Any torch optimiser over the generator's parameters.
        critic_optimizer: Any torch optimiser over the critic's parameters, best in groups of
            :func:`wgan_lip.parameter_groups`. Its steps are constrained; see :func:`wgan_lip.constrain_steps`.
        steps: Generator steps.
        batch_size: Samples b of each law a step, over all ranks.
        critic_steps: Dual ascents a generator step.
        warmup_steps: Dual ascents before the first generator step.
        boost_steps: Dual ascents in a boosted generator step, instead of `critic_steps`.
        boost_first: How many generator steps at the start are boosted.
        boost_every: Every how many generator steps one is boosted; None for none.
        critic_schedule: The critic's learning rate over the run, a key of :data:`wgan_lip.training.SCHEDULES`.
        generator_schedule: The generator's, likewise.
        ema_half_life: Half-life of the generator's average, in generated samples.
        ema_ramp: Largest half-life at first, as a share of the samples generated so far; 0 for no such limit.
        critic_clip: Largest norm of the critic's gradient: longer ones are shortened to it. None for no limit.
        generator_clip: The generator's, likewise.
        accumulate: Parts of a batch from which a gradient is gathered one after another: less memory, same step.
        precision: Arithmetic inside the generator in training, a key of :data:`wgan_lip.training.PRECISIONS`. Samples,
            the critic, audits and certificates stay as they are.
        compile: Whether both players are compiled by `torch.compile`. Not for a critic with a penalty, which is
            differentiated twice.
        log_every: Generator steps between records.
        audit_every: Generator steps between audits.
        audit_size: Samples of each law in an audit, at most the size of the test set.
        audit_scores: Whether an audit takes the weight-free scores too; see :func:`wgan_lip.metrics.similarity`.
        audit_refits: At how many audits, evenly spread, the last among them, a copy of the critic is refitted to fresh
            samples, to see whether the critic keeps up; see :mod:`wgan_lip.training.refitting`. 0 for none.
        start_at_data: Whether the critic first puts its folds and cones where the samples are, by
            :meth:`wgan_lip.critics.Critic.start_at`. Not for a critic that is trained already.
        renew_every: Every how many generator steps cones that no sample feels any more move to where samples are, by
            :meth:`wgan_lip.critics.Critic.renew`; None for never. Each time waits for
            the device.
        score: The tag, of those of an audit, by which an audit is the best so far: the lower the better, or the higher
            with a minus before it.
        patience: Audits in a row without a better score, after which the game ends; None for no limit.
        max_images: Generated samples after which it ends; learning rates then move over the steps that these are.
        max_seconds: Seconds of the clock after which it ends, those before an interruption included.
        divergence: How many times the mean dual value of the first record a later record's may be; None for no limit.
        max_rollbacks: How often a game that diverged, or is not finite, is put back to its last good state, with both
            learning rates halved and new draws. A record without scalars tells of it in its `note`.
        seed: Seed of latents and of the choice of samples.
        state: Where to go on: what `record.game.state_dict()` gave, or a run's checkpoint as `torch.load` gives it.
            Same players, data and settings: the game then goes on, on a CPU, bit by bit as if it had never stopped.
        pause: Asked after every step, and every ascent of the warm-up, with the steps done; where it says yes, a
            record without scalars comes, at which the state can be kept.

    Returns:
        An iterator of :class:`Record` in order of step, but for rollbacks; the last one is audited and says why it is
        the last. The game is played as it is iterated. Its state is that of a whole step at every record, and only
        there.

    Raises:
        DivergedError: A value was not finite (:class:`wgan_lip.training.NonFiniteError`) or too far from the first;
            the players are put back to the last good state first.
        RefutedError: A certified dual value above the exact W1.
        InputError: Settings that make no sense together, players that do not fit the data or one another, a state
            that is not theirs or that is of other data, or other data on another rank.
        UncertifiableError: A critic without a proof; see :func:`wgan_lip.certify`.
    """
    # Not itself a generator: bad settings are refused at the call, before anything is written about the run.
    settings = {name: value for name, value in locals().items() if name in SETTINGS}
    check_settings(**settings)
    ranks = Ranks()
    ranks.check_divides(batch_size, accumulate)
    check_players(source, generator, critic, batch_size=batch_size, compiled=compile)
    data = ranks.checked_data(source)
    start_at = method_of(critic, "start_at", "start_at_data") if start_at_data else None
    renew = method_of(critic, "renew", "renew_every") if renew_every is not None else None
    device = next(critic.parameters()).device
    constrain_steps(critic_optimizer, critic)
    for player in (generator, critic):
        ranks.take_over(player, parameters=True)
    budget = Budget(steps, batch_size, max_images, max_seconds, patience)
    game = Game(
        source,
        generator,
        critic,
        copy.deepcopy(generator).requires_grad_(False).eval(),
        generator_optimizer,
        critic_optimizer,
        scheduler(generator_optimizer, generator_schedule, budget.total),
        scheduler(critic_optimizer, critic_schedule, budget.total),
        latent_rng=torch.Generator(device).manual_seed(seed),
        data_rng=torch.Generator().manual_seed(seed),
        data=data,
    )
    if state is not None:
        state = state.get("game", state) if isinstance(state, Mapping) else state
        game.load_state_dict(state)
    audit = Audit(source, generator, size=audit_size, scores=audit_scores, batch_size=batch_size, seed=seed,
                  device=device)  # fmt: skip
    refit_every = audit_every * math.ceil(math.ceil(budget.total / audit_every) / max(1, audit_refits))
    check_choice(score.removeprefix("-"), audit.tags, "`score`")

    generate = playing(compiled(generator) if compile else generator, precision)
    value_of = compiled(critic) if compile else critic
    settle_critic, settle_generator = settler(critic_clip, ranks), settler(generator_clip, ranks)

    def samples(size: int, share: Callable[[Tensor], Tensor] = ranks.share) -> tuple[Tensor, Tensor]:
        x = share(draw(source, size, game.data_rng, device))  # (b, d)
        latents = share(draw_latents(generator, size, game.latent_rng))  # (b, k)
        with torch.no_grad():
            return x, torch.cat([generate(some) for some in latents.chunk(accumulate)])  # (b, d)

    def dual_ascent() -> Tensor:
        x, y = samples(batch_size)
        return ascend(value_of, critic_optimizer, x, y, parts=accumulate, settle=settle_critic)

    def adapt(method: Callable[[Tensor, Tensor], object]) -> None:
        method(*samples(max(batch_size, START), share=lambda whole: whole))
        ranks.take_over(critic, parameters=True)

    def step() -> None:
        if renew is not None and renew_every is not None and game.step % renew_every == 0:
            adapt(renew)
        for _ in range(ascents(game.step + 1)):
            value = dual_ascent()
        latents = ranks.share(draw_latents(generator, batch_size, game.latent_rng))  # (b, k)
        loss = descend(generator, critic, generator_optimizer, latents,
                       play=generate, value=value_of, parts=accumulate, settle=settle_generator)  # fmt: skip
        ranks.take_over(generator, parameters=False)
        game.step += 1
        half = half_life(ema_half_life, ema_ramp, images=game.step * batch_size)
        average(game.ema, generator, weight=1 - 0.5 ** (batch_size / half))
        game.critic_scheduler.step()
        game.generator_scheduler.step()
        game.values.append(torch.stack((value, loss)))

    def ascents(step: int) -> int:
        boosted = step <= boost_first or (boost_every is not None and step % boost_every == 0)
        return boost_steps if boosted else critic_steps

    def asked() -> bool:
        return pause is not None and ranks.any(pause(game.step))

    def table() -> Tensor:
        values = table_of_values(game)  # (steps since the last record, 2)
        ranks.average([values])
        return values

    def referee() -> dict[str, float]:
        ranks.check_equal(critic, generator, game.ema)
        try:
            due = audit_refits > 0 and (game.step % refit_every == 0 or budget.spent(game) is not None)
            return ranks.by_first(lambda: audit(game, refit=due))
        except InvariantViolation as violation:
            raise RefutedError(f"At step {game.step}: {violation}", game) from violation

    def play() -> Iterator[Record]:
        if state is not None:
            game.set_global_rng(ranks.rank)
        else:
            if ranks.rank:
                torch.manual_seed(seed + ranks.rank)  # such as of dropout: not twice the same
            if start_at is not None:
                adapt(start_at)
                rescale_lengths(critic_optimizer, ranks.told(getattr(critic, "spread", 1.0)))
                game.critic_scheduler.base_lrs = [group["initial_lr"] for group in critic_optimizer.param_groups]
        guard = Guard(game, divergence=divergence, max_rollbacks=max_rollbacks)
        begun, ended = time.monotonic() - game.seconds, budget.spent(game)
        while game.warmed < warmup_steps and ended is None:
            dual_ascent()
            game.warmed += 1
            paused = asked()
            if paused or game.warmed == warmup_steps:
                note = guard.recover(table(), logged=False)
                guard.approve()
                if paused or note is not None:
                    with _global_rng_kept(game, ranks):
                        yield Record(game.step, {}, game, note=note)
        pace = _Pace(game)
        while ended is None:
            with pace:
                step()
                seconds = time.monotonic() - begun
                game.seconds = seconds if max_seconds is None else ranks.told(seconds)
                audited = game.step % audit_every == 0 or budget.spent(game) is not None
                logged = audited or game.step % log_every == 0
                values = table() if asked() or logged else None  # the only wait for the device
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
                scalars = {"w1/critic": value, "generator/loss": loss, **pace.figures(batch_size)}
                if game.rollbacks:
                    scalars["guard/rollbacks"] = float(game.rollbacks)
                game.values.clear()
                pace = _Pace(game)
            with _global_rng_kept(game, ranks):
                guard.approve()
                improved = False
                if audited:
                    scalars |= referee()
                    improved = game.improves(-scalars[score[1:]] if score.startswith("-") else scalars[score])
                ended = budget.spent(game)
                yield Record(game.step, scalars, game, audited, improved, ended=ended)

    return play()


class _Pace:
    """The pace of the steps in its blocks, since it was made."""

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
    """Whatever an audit, or who iterates, draws from the process's own generators, the game does not notice."""
    game.global_rngs = ranks.gathered(global_rng_state())
    yield
    game.set_global_rng(ranks.rank)
