"""The referee: brackets W1 on a fixed held batch, and scores the averaged generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wgan_lip.data import Source
from wgan_lip.generators import draw_latents
from wgan_lip.metrics import mode_coverage, similarity
from wgan_lip.training.game import Game
from wgan_lip.transport import solve
from wgan_lip.wasserstein.interval import bracket, estimate_ray_gradient_norm

__all__ = ["Audit"]


class Audit:
    """Brackets W1 between a fixed held batch and the generator at fixed latents, and scores the averaged generator."""

    def __init__(
        self, source: Source, generator: nn.Module, *, size: int, scores: bool, seed: int, device: torch.device
    ) -> None:
        self.source, self.scores = source, scores
        self.test = source.test[:size]
        reference = source.reference(len(self.test), seed)
        self.floors = {"eval/w1_floor": solve(reference, self.test).value}
        if scores:
            self.floors |= {f"eval/{name}_floor": floor for name, floor in self._similarity(reference).items()}
        rng = torch.Generator(device).manual_seed(seed + 1)
        self.latents = draw_latents(generator, len(self.test), rng)

    @property
    def tags(self) -> list[str]:
        """What it measures."""
        modes = ["eval/modes_covered", "eval/within_3_sigma"] if self.source.modes is not None else []
        scores = [floor.removesuffix("_floor") for floor in self.floors if floor != "eval/w1_floor"]
        return ["w1/lower", "w1/upper", "w1/exact", "certificate/lipschitz", "critic/grad_norm", "eval/w1_test",
                "eval/w1_over_floor", *self.floors, *scores, *modes]  # fmt: skip

    @torch.no_grad()
    def __call__(self, game: Game) -> dict[str, float]:
        was_training = game.generator.training
        game.generator.eval()  # neither running statistics nor random numbers move
        generated, averaged = (player(self.latents).cpu() for player in (game.generator, game.ema))
        game.generator.train(was_training)
        transport = solve(self.test, generated)
        interval = bracket(game.critic, self.test, generated, transport=transport)
        score = solve(self.test, averaged).value
        scalars = {
            "w1/lower": interval.lower,
            "w1/upper": interval.upper,
            "w1/exact": math.nan if interval.exact is None else interval.exact,
            "certificate/lipschitz": interval.certificate.lipschitz,
            "critic/grad_norm": estimate_ray_gradient_norm(game.critic, self.test, generated, transport.plan),
            "eval/w1_test": score,
            "eval/w1_over_floor": score / floor if (floor := self.floors["eval/w1_floor"]) > 0 else math.nan,
            **self.floors,
        }
        if self.scores:
            scalars |= {f"eval/{name}": value for name, value in self._similarity(averaged).items()}
        if self.source.modes is not None and self.source.mode_std is not None:
            coverage = mode_coverage(averaged, self.source.modes, self.source.mode_std)
            scalars |= {"eval/modes_covered": float(coverage.covered), "eval/within_3_sigma": coverage.within}
        return scalars

    def _similarity(self, samples: Tensor) -> dict[str, float]:
        return similarity(samples, self.test, k=min(5, len(self.test) - 1), directions=256)
