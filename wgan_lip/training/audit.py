"""The referee: encloses W1 on a fixed held-out batch, and scores the averaged generator."""

from __future__ import annotations

import math
from statistics import fmean

import torch
from torch import Tensor, nn

from wgan_lip.data import Source
from wgan_lip.generators import draw_latents
from wgan_lip.metrics import Floor, mode_coverage, real_pools, similarity
from wgan_lip.training.game import Game
from wgan_lip.training.refitting import held_out_value, refitted
from wgan_lip.transport import solve
from wgan_lip.wasserstein.interval import bracket, estimate_ray_gradient_norm

__all__ = ["Audit"]


DRAWS = 2  # draws per excess of an audit; W1 of the real samples is constant, so each costs two exact solutions
REFIT = 2048  # fresh samples of each law on which a copy of the critic is refitted


class Audit:
    """Encloses W1 between a fixed held-out batch and the generator at fixed latents; scores the averaged generator.

    Arguments:
        source: The data; the held-out batch is the beginning of its test set.
        generator: The generator whose latents are drawn.
        size: Samples n of each set.
        scores: Whether to compute the scores of :func:`wgan_lip.metrics.similarity`, too.
        batch_size: Batch size of the refitting.
        seed: Seed of latents and reference samples.
        device: The device of generator and critic.
    """

    def __init__(
        self, source: Source, generator: nn.Module, *, size: int, scores: bool, batch_size: int, seed: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.source, self.scores, self.seed = source, scores, seed
        self.test = source.test[:size]
        n = len(self.test)
        self.batch_size = batch_size
        self.floor = Floor(self.test, real_pools(source, n, seed)[1], size=n, draws=DRAWS, seed=seed)
        self.floors = {"eval/w1_floor": fmean(self.floor.floors), "eval/excess_real": self.floor.real}
        if scores:
            of_real = self._similarity(source.reference(n, seed))
            self.floors |= {f"eval/{name}_floor": value for name, value in of_real.items()}
        rng = torch.Generator(device).manual_seed(seed + 1)
        self.latents = draw_latents(generator, 2 * DRAWS * n, rng).split(n)

    @property
    def tags(self) -> list[str]:
        """The tags of its figures."""
        modes = (
            ["eval/modes_covered", "eval/within_3_sigma", "eval/mode_width"] if self.source.modes is not None else []
        )
        scores = [floor.removesuffix("_floor") for floor in self.floors if floor.endswith("_floor")]
        return ["w1/lower", "w1/upper", "w1/exact", "certificate/lipschitz", "critic/grad_norm", "critic/held_out",
                "eval/excess", "eval/w1_test", "eval/w1_over_floor", *self.floors,
                *(score for score in scores if score != "eval/w1"), *modes]  # fmt: skip

    @torch.no_grad()
    def __call__(self, game: Game, *, refit: bool = False) -> dict[str, float]:
        """The figures of the current state; with `refit`, also those of a critic refitted to it."""
        was_training = game.generator.training
        game.generator.eval()  # so that neither running statistics nor random numbers advance
        generated = game.generator(self.latents[0]).cpu()
        averaged = torch.cat([game.ema(latents).cpu() for latents in self.latents])
        transport = solve(self.test, generated)
        interval = bracket(game.critic, self.test, generated, transport=transport)
        found = self.floor.excess(averaged)
        value, error = held_out_value(game.critic, self.test, generated)
        scalars = {
            "w1/lower": interval.lower,
            "w1/upper": interval.upper,
            "w1/exact": math.nan if interval.exact is None else interval.exact,
            "certificate/lipschitz": interval.certificate.lipschitz,
            "critic/grad_norm": estimate_ray_gradient_norm(game.critic, self.test, generated, transport.plan),
            "critic/held_out": value,
            "critic/held_out_error": error,
            "eval/excess": found.excess,
            "eval/w1_test": found.w1,
            "eval/w1_over_floor": found.ratio if found.floor > 0 else math.nan,
            **self.floors,
        }
        if refit:
            scalars |= self._refitted(game, generated)
        game.generator.train(was_training)
        first = averaged[: len(self.test)]
        if self.scores:
            scalars |= {f"eval/{name}": value for name, value in self._similarity(first).items()}
        if self.source.modes is not None and self.source.mode_std is not None:
            coverage = mode_coverage(first, self.source.modes, self.source.mode_std)
            scalars |= {"eval/modes_covered": float(coverage.covered), "eval/within_3_sigma": coverage.within,
                        "eval/mode_width": coverage.width}  # fmt: skip
        return scalars

    def _refitted(self, game: Game, generated: Tensor) -> dict[str, float]:
        """The held-out value of a copy of the critic, refitted to fresh samples of the current generator."""
        real = self.floor.reals.most(REFIT, self.seed)
        device = self.latents[0].device
        latents = draw_latents(game.generator, REFIT, torch.Generator(device).manual_seed(self.seed + 2))
        fresh = torch.cat([game.generator(some).cpu() for some in latents.split(len(self.test))])
        copied = refitted(game.critic, real, fresh, batch_size=self.batch_size, seed=self.seed)
        value, error = held_out_value(copied, self.test, generated)
        return {"critic/refitted": value, "critic/refitted_error": error}

    def _similarity(self, samples: Tensor) -> dict[str, float]:
        return similarity(samples, self.test, k=min(5, len(self.test) - 1), directions=256)
