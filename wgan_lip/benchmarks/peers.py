"""Today's tools for W1, each behind one call, used as its documentation says.

A tool is called with a :class:`Problem`. What it returns is not its answer but a function that gives the answer, so
that whatever only serves the comparison (held-out values, slopes, bounds recomputed) stays outside the measurement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from wgan_lip.lipschitz.adversary import estimate_lipschitz
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.slopes import gradients
from wgan_lip.wasserstein.dual import kr_value
from wgan_lip.wasserstein.referee import certify_plan

__all__ = [
    "Answer",
    "Problem",
    "geomloss",
    "gradient_penalty",
    "pot_exact",
    "pot_line",
    "pot_sinkhorn",
    "pot_sliced",
    "scipy_line",
    "torchlip",
    "torchlip_critic",
    "weight_clipping",
]

BATCH, WIDTH, HIDDEN = 256, 128, 3  # samples of each law a step, and hidden layers, of every critic trained here
PENALTY = 10.0  # of squared deviations of the gradient's norm from 1
CLIP = 0.01
POT_BYTES_PER_PAIR = 40  # measured peak of the dense solver


@dataclass(frozen=True, eq=False)
class Problem:
    """Samples x, shape (n, d), of P and y, shape (m, d), of Q, and others that no tool sees; float64, on the CPU."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


@dataclass(frozen=True)
class Answer:
    """What a tool says about a problem.

    Attributes:
        value: Its W1 between the samples.
        guarantee: What it promises of that value, in words.
        lower, upper: Ends that are proved, None where none is.
        held_out: The value on the held-out samples of the potential that it found, if it gives one.
        laws: Its W1 between the laws, if it tells that apart from the others.
        gradient: The steepest slope that a search finds in its critic, if it gives one.
        note: What it says of its own failure, in words.
    """

    value: float
    guarantee: str
    lower: float | None = None
    upper: float | None = None
    held_out: float | None = None
    laws: float | None = None
    gradient: float | None = None
    note: str = ""


Finish = Callable[[], Answer]


def pot_exact(problem: Problem, *, iterations: int | None = None) -> Finish:
    """POT's `emd2`; `iterations` lifts its limit of 100,000, beyond which it warns and returns what it has."""
    import ot

    x, y = problem.x.numpy(), problem.y.numpy()
    _check_memory(POT_BYTES_PER_PAIR * len(x) * len(y))
    cost = ot.dist(x, y, metric="euclidean")
    limit = {} if iterations is None else {"numItermax": iterations}
    value = float(ot.emd2(ot.unif(len(x)), ot.unif(len(y)), cost, **limit))
    return lambda: Answer(value, "exact if it converges, not verified")


def pot_sinkhorn(problem: Problem, *, epsilon: float, iterations: int) -> Finish:
    """POT's Sinkhorn in the log domain; its potential and its plan, rounded, then give an interval with proof."""
    import ot

    x, y = problem.x.numpy(), problem.y.numpy()
    a, b = ot.unif(len(x)), ot.unif(len(y))
    cost = ot.dist(x, y, metric="euclidean")
    plan, log = ot.sinkhorn(a, b, cost, epsilon, method="sinkhorn_log", numItermax=iterations, log=True)
    value = float((plan * cost).sum())

    def finish() -> Answer:
        found = certify_plan(x, y, plan, (epsilon * log["log_u"], epsilon * log["log_v"]))
        note = f"marginals off by {log['err'][-1]:.0e} after {log['niter'] + 1} iterations"
        guarantee = "neither bound; certified here from its potential and plan"
        return Answer(value, guarantee, found.lower, found.upper, note=note)

    return finish


def pot_sliced(problem: Problem, *, directions: int, largest: bool, seed: int) -> Finish:
    """POT's mean, or largest, W1 over random directions. None is above W1 of the samples."""
    import ot

    distance = ot.max_sliced_wasserstein_distance if largest else ot.sliced_wasserstein_distance
    value = float(distance(problem.x.numpy(), problem.y.numpy(), n_projections=directions, p=1, seed=seed))
    return lambda: Answer(value, "lower bound up to rounding")


def pot_line(problem: Problem) -> Finish:
    """POT's W1 on the line, by quantiles."""
    import ot

    value = float(ot.wasserstein_1d(problem.x[:, 0].numpy(), problem.y[:, 0].numpy(), p=1))
    return lambda: Answer(value, "exact up to rounding, not verified")


def scipy_line(problem: Problem) -> Finish:
    """SciPy's W1 on the line, by distribution functions."""
    from scipy.stats import wasserstein_distance

    value = float(wasserstein_distance(problem.x[:, 0].numpy(), problem.y[:, 0].numpy()))
    return lambda: Answer(value, "exact up to rounding, not verified")


def geomloss(problem: Problem, *, blur: float, debias: bool) -> Finish:
    """GeomLoss's multi-scale Sinkhorn divergence with the distance as cost, debiased (its default) or not."""
    from geomloss import SamplesLoss

    loss = SamplesLoss("sinkhorn", p=1, blur=blur, scaling=0.9, debias=debias, backend="tensorized")
    value = float(loss(problem.x, problem.y))
    return lambda: Answer(value, "neither bound")


def gradient_penalty(problem: Problem, *, learning_rate: float, steps: int, seed: int) -> Finish:
    """A critic with the gradient penalty of *Improved training of Wasserstein GANs* (Gulrajani et al., 2017)."""
    critic = _perceptron(problem, seed)
    optimizer = torch.optim.Adam(critic.parameters(), lr=learning_rate, betas=(0.0, 0.9))
    return _trained(critic, optimizer, problem, steps, seed, "none: can exceed W1", penalty=_gradient_penalty)


def weight_clipping(problem: Problem, *, steps: int, seed: int) -> Finish:
    """A critic with the clipped weights of *Wasserstein GAN* (Arjovsky, Chintala, Bottou, 2017)."""
    critic = _perceptron(problem, seed)
    _clip_weights(critic)
    optimizer = torch.optim.RMSprop(critic.parameters(), lr=5e-5)
    return _trained(critic, optimizer, problem, steps, seed, "none: an unknown multiple", after_step=_clip_weights)


def torchlip(problem: Problem, *, steps: int, seed: int) -> Finish:
    """A critic of deel-torchlip: spectral layers with sorted pairs, trained by the KR dual alone."""
    torch.manual_seed(seed)
    critic = torchlip_critic(problem.x.shape[1])
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
    guarantee = "lower bound if its layers are 1-Lipschitz, no proof"
    return _trained(critic, optimizer, problem, steps, seed, guarantee, export=lambda: critic.eval().vanilla_export())


def torchlip_critic(dim: int, *, width: int = WIDTH, depth: int = HIDDEN) -> Any:  # deel-torchlip has no hints
    """As its documentation says; its layers normalise their weights in every pass, so there is nothing to retract."""
    from deel import torchlip as lip

    hidden = _hidden(dim, width, depth, lip.SpectralLinear, lip.GroupSort2)
    return lip.Sequential(*hidden, lip.FrobeniusLinear(width, 1), nn.Flatten(0))


def _perceptron(problem: Problem, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    hidden = _hidden(problem.x.shape[1], WIDTH, HIDDEN, nn.Linear, nn.ReLU)
    return nn.Sequential(*hidden, nn.Linear(WIDTH, 1), nn.Flatten(0))


def _hidden(
    dim: int, width: int, depth: int, linear: Callable[..., nn.Module], activation: Callable[[], nn.Module]
) -> list[nn.Module]:
    sizes = [dim, *[width] * depth]
    return [layer for i, o in pairwise(sizes) for layer in (linear(i, o), activation())]


def _trained(
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    problem: Problem,
    steps: int,
    seed: int,
    guarantee: str,
    *,
    penalty: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
    after_step: Callable[[nn.Module], Any] | None = None,
    export: Callable[[], nn.Module] | None = None,
) -> Finish:
    """Ascends the KR dual on batches of the samples, in float32."""
    x, y = problem.x.float(), problem.y.float()
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        u, v = (samples[torch.randint(len(samples), (BATCH,), generator=rng)] for samples in (x, y))  # (b, d) each
        loss = -kr_value(critic, u, v)
        if penalty is not None:
            loss = loss + penalty(critic, u, v)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if after_step is not None:
            after_step(critic)
    critic = (critic if export is None else export()).double()

    def finish() -> Answer:
        with torch.no_grad():
            value = float(kr_value(critic, problem.x, problem.y))
            held_out = float(kr_value(critic, problem.x_test, problem.y_test))
        gradient = estimate_lipschitz(critic, torch.cat((problem.x_test[:1000], problem.y_test[:1000])))
        return Answer(value, guarantee, held_out=held_out, gradient=gradient)

    return finish


def _gradient_penalty(critic: nn.Module, u: Tensor, v: Tensor) -> Tensor:
    """The mean square deviation of the gradient's norm from 1 at random points between u and v, times `PENALTY`."""
    slopes = gradients(critic, torch.lerp(u, v, torch.rand(len(u), 1)), create_graph=True)
    return PENALTY * (slopes.norm(dim=1) - 1).square().mean()


def _clip_weights(critic: nn.Module) -> None:
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.clamp_(-CLIP, CLIP)


def _check_memory(need: int) -> None:
    """Refuses what would not fit; small problems need no check."""
    if need < 2**30:
        return
    try:
        import psutil  # the extra `benchmark`
    except ImportError:
        raise InputError("psutil is needed to see the memory available. Install wgan-lip[benchmark].") from None
    available = psutil.virtual_memory().available
    if need > available:
        raise InputError(
            f"{need / 2**30:.3g} GiB of memory are needed, {available / 2**30:.3g} GiB are available. Subsample."
        )
