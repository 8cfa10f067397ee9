"""The WGAN game, as one loop a person can read."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wgan_lip.checks import InputError, check_choice, one_line
from wgan_lip.data import Source
from wgan_lip.duality import ascend
from wgan_lip.generators import draw_latents
from wgan_lip.layers import retract_after_steps
from wgan_lip.metrics import mode_coverage
from wgan_lip.transport import solve
from wgan_lip.wasserstein import InvariantViolation, bracket, estimate_ray_gradient_norm, kr_lower_bound

__all__ = ["SCHEDULES", "Game", "NonFiniteError", "Record", "RefutedError", "StoppedError", "train_wgan"]

START = 2048  # samples of each law that a critic starts at


class StoppedError(RuntimeError):
    """The game stopped before its end; `game` holds the players as they should be kept."""

    def __init__(self, message: str, game: Game) -> None:
        super().__init__(message)
        self.game = game


class NonFiniteError(StoppedError):
    """A value stopped being finite. The message names the step and the culprit; `game` is in its last good state."""


class RefutedError(StoppedError, InvariantViolation):
    """A certified dual value above the exact W1, at an audit; `game` holds the critic that shows it."""


@dataclass
class Game:
    """The two players and all that moves while they play; what a checkpoint holds.

    Attributes:
        generator: Latents (b, k) → samples (b, d).
        critic: Samples (b, d) → values (b,).
        ema: Exponential moving average of the generator, the player to sample from.
        generator_optimizer: Minimises over the generator.
        critic_optimizer: Maximises over the critic, which is retracted after every step.
        latent_rng: Source of latents, on the players' device.
        data_rng: Source of training samples.
        step: Generator steps done.
    """

    generator: nn.Module
    critic: nn.Module
    ema: nn.Module
    generator_optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer
    latent_rng: torch.Generator
    data_rng: torch.Generator
    step: int = 0

    def state_dict(self) -> dict:
        """Everything that moves, as tensors and plain values; loads with `torch.load(weights_only=True)`."""
        parts = {name: getattr(self, name).state_dict() for name in self._modules_and_optimizers()}
        rngs = {name: getattr(self, name).get_state() for name in ("latent_rng", "data_rng")}
        return {**parts, **rngs, "step": self.step}

    def load_state_dict(self, state: Mapping) -> None:
        """Puts everything back as it was when `state` was taken."""
        for name in self._modules_and_optimizers():
            getattr(self, name).load_state_dict(state[name])
        for name in ("latent_rng", "data_rng"):
            getattr(self, name).set_state(state[name].cpu())
        self.step = state["step"]

    @staticmethod
    def _modules_and_optimizers() -> tuple[str, ...]:
        return "generator", "critic", "ema", "generator_optimizer", "critic_optimizer"


@dataclass(frozen=True)
class Record:
    """What is known after `step` generator steps.

    Attributes:
        step: Generator steps done.
        scalars: Tag → value; see `wgan_lip.tracking` for the tags.
        game: The live players, for checkpoints and pictures. It moves on when the iteration does.
        audited: Whether this record holds a bracketing by exact transport.
    """

    step: int
    scalars: Mapping[str, float]
    game: Game = field(repr=False, compare=False)
    audited: bool = False


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
    start_at_data: bool = False,
    seed: int = 0,
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
        critic_schedule: The critic's learning rate over the run, a key of :data:`SCHEDULES`.
        generator_schedule: The generator's, likewise.
        ema_half_life: Half-life of the generator's average, in generated samples.
        log_every: Generator steps between records.
        audit_every: Generator steps between audits.
        audit_size: Samples of each law in an audit, at most the size of the test set.
        start_at_data: Whether the critic first puts its folds and cones where the samples are, by
            :meth:`wgan_lip.critics.Critic.start_at`. Not for a critic that is trained already.
        seed: Seed of latents and of the choice of samples.

    Returns:
        An iterator of :class:`Record` in order of step; the last one is at `steps` and audited. The game is played
        as it is iterated.

    Raises:
        NonFiniteError: A value was not finite; the players are put back to the last good state first.
        RefutedError: A certified dual value above the exact W1.
        InputError: Settings that make no sense together, or players that do not fit the data or one another.
        UncertifiableError: A critic without a proof; see :func:`wgan_lip.certify`.
    """
    # Not itself a generator: bad settings are refused at the call, before anything is written about the run.
    _check_settings(steps, batch_size, critic_steps, log_every, audit_every, audit_size, ema_half_life)
    if warmup_steps < 0:
        raise InputError(f"Expected training.warmup_steps of at least 0. Got {warmup_steps}.")
    check_choice(critic_schedule, list(SCHEDULES), "training.critic_schedule")
    check_choice(generator_schedule, list(SCHEDULES), "training.generator_schedule")
    _check_players(source, generator, critic)
    if start_at_data and not callable(getattr(critic, "start_at", None)):
        raise InputError(
            "Expected, with training.start_at_data, a critic with a method start_at, as those of wgan_lip.critics "
            f"have. Got {type(critic).__name__}. Leave start_at_data out."
        )
    device = next(critic.parameters()).device
    retract_after_steps(critic_optimizer, critic)
    game = Game(
        generator,
        critic,
        copy.deepcopy(generator).requires_grad_(False),
        generator_optimizer,
        critic_optimizer,
        latent_rng=torch.Generator(device).manual_seed(seed),
        data_rng=torch.Generator().manual_seed(seed),
    )
    audit = _Audit(source, generator, size=audit_size, seed=seed, device=device)
    schedulers = [
        _scheduler(critic_optimizer, critic_schedule, steps),
        _scheduler(generator_optimizer, generator_schedule, steps),
    ]

    def samples(size: int) -> tuple[Tensor, Tensor]:
        x = source.sample(size, game.data_rng).to(device, non_blocking=True)  # (b, d)
        with torch.no_grad():
            return x, generator(draw_latents(generator, size, game.latent_rng))  # (b, d)

    def dual_ascent() -> Tensor:
        return ascend(critic, critic_optimizer, *samples(batch_size))

    def play() -> Iterator[Record]:
        if start_at_data:
            critic.start_at(*samples(max(batch_size, START)))
        window, last_good = _Window(), _snapshot(game)
        for _ in range(warmup_steps):
            dual_ascent()
        while game.step < steps:
            for _ in range(critic_steps):
                value = dual_ascent()
            latents = draw_latents(generator, batch_size, game.latent_rng)  # (b, k)
            loss = _descend(generator, critic, generator_optimizer, latents)
            _average(game.ema, generator, weight=1 - 0.5 ** (batch_size / ema_half_life))
            for scheduler in schedulers:
                scheduler.step()
            game.step += 1
            window.add(value, loss)

            audited = game.step % audit_every == 0 or game.step == steps
            if audited or game.step % log_every == 0:
                scalars = window.close(game, last_good, batch_size)  # the only wait for the device
                last_good = _snapshot(game)
                if audited:
                    try:
                        scalars |= audit(game)
                    except InvariantViolation as violation:
                        raise RefutedError(f"At step {game.step}: {violation}", game) from violation
                yield Record(game.step, scalars, game, audited)
                window = _Window()

    return play()


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "linear_to_tenth": lambda progress: 1.0 - 0.9 * progress,
    "late_linear": lambda progress: min(1.0, 2.0 - 2.0 * progress),
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}
"""Share of the run done → factor of the learning rate; `late_linear` holds it for the first half of the run."""


def _scheduler(optimizer: torch.optim.Optimizer, schedule: str, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, SCHEDULES[schedule](step / steps)))


def _descend(generator: nn.Module, critic: nn.Module, optimizer: torch.optim.Optimizer, latents: Tensor) -> Tensor:
    """One descent of the generator on −E f(G(z)); the critic takes no gradient. Returns the loss, detached."""
    critic.requires_grad_(False)
    optimizer.zero_grad(set_to_none=True)
    loss = -critic(generator(latents)).mean()
    loss.backward()
    optimizer.step()
    critic.requires_grad_(True)
    return loss.detach()


@torch.no_grad()
def _average(ema: nn.Module, generator: nn.Module, weight: float) -> None:
    torch._foreach_lerp_(list(ema.parameters()), list(generator.parameters()), weight)
    for averaged, current in zip(ema.buffers(), generator.buffers()):
        averaged.copy_(current)


class _Window:
    """Values of the steps since the last record, left on the device until they are read."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self.losses: list[Tensor] = []
        self.start = time.perf_counter()

    def add(self, value: Tensor, loss: Tensor) -> None:
        self.values.append(value)
        self.losses.append(loss)

    def close(self, game: Game, last_good: dict, batch_size: int) -> dict[str, float]:
        """Means over the window, once all of it is known to be finite; else puts `last_good` back and raises."""
        table = torch.stack((torch.stack(self.values), torch.stack(self.losses)), dim=1).cpu()  # (steps, 2)
        first = game.step - len(table) + 1
        bad = (~torch.isfinite(table)).nonzero()
        culprits = [f"parameter {name}" for name in _non_finite_parameters(game)]
        if len(bad) or culprits:
            step, column = (first + int(bad[0, 0]), int(bad[0, 1])) if len(bad) else (game.step, -1)
            what = ["the critic's dual value", "the generator's loss", "a parameter"][column]
            named = f"; not finite now: {', '.join(culprits[:4])}" if culprits else ""
            game.load_state_dict(last_good)
            raise NonFiniteError(
                f"Expected finite values. Got NaN or infinity in {what} at step {step}{named}. "
                f"The last good state, after step {game.step}, was kept. Lower the learning rates, or check the data.",
                game,
            )
        value, loss = table.mean(dim=0).tolist()
        rate = len(table) / (time.perf_counter() - self.start)
        return {
            "w1/critic": value,
            "generator/loss": loss,
            "perf/steps_per_second": rate,
            "perf/samples_per_second": rate * batch_size,
        }


def _non_finite_parameters(game: Game) -> list[str]:
    named = [(f"{owner}.{name}", parameter) for owner in ("generator", "critic")
             for name, parameter in getattr(game, owner).named_parameters()]  # fmt: skip
    sizes = torch.stack(torch._foreach_norm([parameter.detach() for _, parameter in named])).cpu()
    return [name for (name, _), size in zip(named, sizes.tolist()) if not math.isfinite(size)]


def _snapshot(game: Game) -> dict:
    return copy.deepcopy(game.state_dict())


class _Audit:
    """Brackets W1 between a fixed held batch and the generator at fixed latents, and scores the averaged generator."""

    def __init__(self, source: Source, generator: nn.Module, *, size: int, seed: int, device: torch.device) -> None:
        self.source = source
        self.test = source.test[:size]
        self.floor = solve(source.reference(len(self.test), seed), self.test).value
        rng = torch.Generator(device).manual_seed(seed + 1)
        self.latents = draw_latents(generator, len(self.test), rng)

    @torch.no_grad()
    def __call__(self, game: Game) -> dict[str, float]:
        generated, averaged = (player(self.latents).cpu() for player in (game.generator, game.ema))
        transport = solve(self.test, generated)
        interval = bracket(game.critic, self.test, generated, transport=transport)
        score = solve(self.test, averaged).value
        scalars = {
            "w1/lower": interval.lower,
            "w1/upper": interval.upper,
            "w1/exact": interval.exact,
            "certificate/lipschitz": interval.certificate.lipschitz,
            "critic/grad_norm": estimate_ray_gradient_norm(game.critic, self.test, generated, transport.plan),
            "eval/w1_test": score,
            "eval/w1_floor": self.floor,
            "eval/w1_over_floor": score / self.floor if self.floor > 0 else math.nan,
        }
        if self.source.modes is not None:
            coverage = mode_coverage(averaged, self.source.modes, self.source.mode_std)
            scalars |= {"eval/modes_covered": float(coverage.covered), "eval/within_3_sigma": coverage.within}
        return scalars


def _check_players(source: Source, generator: nn.Module, critic: nn.Module) -> None:
    """Refuses, before any time is spent on them, players that cannot play to the end."""
    for name, player in (("generator", generator), ("critic", critic)):
        if not isinstance(player, nn.Module):
            raise InputError(f"Expected {name} to be a torch module. Got {player!r:.60}. Build it first.")
        if next(player.parameters(), None) is None:
            raise InputError(f"Expected a {name} with parameters to train. Got {type(player).__name__} with none.")
    if not isinstance(source, Source):
        raise InputError(
            f"Expected a Source of samples. Got {source!r:.60}. "
            "Wrap tensors in wgan_lip.data.FiniteSource(train, test)."
        )
    if not isinstance(getattr(generator, "latent_dim", None), int):
        raise InputError(f"Expected a generator with latent_dim. Got {type(generator).__name__}. Set it on the module.")
    device = next(critic.parameters()).device
    test = source.test[:2]
    with torch.no_grad():
        try:
            latents = draw_latents(generator, len(test), torch.Generator(device).manual_seed(0))
            values = critic(torch.cat((test.to(device), copy.deepcopy(generator)(latents))))
        except RuntimeError as error:  # torch's, on what does not meet
            raise InputError(
                f"Expected players that fit the samples, {tuple(test.shape)}, {test.dtype}. Got: {one_line(error)}. "
                "Build them for this dimension, dtype and device."
            ) from None
    if values.shape != (2 * len(test),):
        raise InputError(
            f"Expected a critic with one value a sample. Got values {tuple(values.shape)} for {2 * len(test)} samples. "
            "Build it with heads=1; end your own with Squeeze()."
        )
    kr_lower_bound(critic, test, test)  # refuses what an audit would


def _check_settings(
    steps: int, batch: int, critic_steps: int, log_every: int, audit_every: int, audit_size: int, half_life: float
) -> None:
    positive = {"steps": steps, "batch_size": batch, "critic_steps": critic_steps, "log_every": log_every,
                "audit_every": audit_every, "ema_half_life": half_life}  # fmt: skip
    for name, value in positive.items():
        if not value > 0:  # NaN as well
            raise InputError(f"Expected training.{name} above zero. Got {value}.")
    if audit_size < 2:
        raise InputError(f"Expected training.audit_size of at least 2. Got {audit_size}.")
