"""Random critics of layers of the package and of torch, attacked by difference quotients in the norms they state."""

from __future__ import annotations

import math
import random
import re

import torch
from torch import nn

from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import (
    Absolute,
    Cones,
    Conv2d,
    ConvGradientFlow,
    Flatten,
    GradientFlow,
    GroupSort,
    Householder,
    Identity,
    L2Pool2d,
    LabelPlanes,
    Linear,
    LipschitzExtension,
    MaxMin,
    Normalize,
    Parallel,
    PixelShuffle,
    PixelUnshuffle,
    RescaledGradientFlow,
    ScaledAvgPool2d,
    Spline,
    Unflatten,
)
from wgan_lip.lipschitz.layers.normalised import BjorckLinear
from wgan_lip.utils.checks import InputError, UncertifiableError

CRITICS = 300
SHAPES = [(4,), (6,), (7,), (4, 3), (3, 5), (2, 4, 4), (4, 2, 3), (3, 5, 5)]
EUCLIDEAN = Norm.euclidean

# What may follow a state of c channels and w entries along its last axis, d entries in all.
VECTORS = [
    lambda c, w, d: Linear(EUCLIDEAN(d), EUCLIDEAN(4)),
    lambda c, w, d: Linear(EUCLIDEAN(d), Norm((1,) * 4)),
    lambda c, w, d: Linear(Norm((1,) * d), EUCLIDEAN(3)),
    lambda c, w, d: Linear(Norm((1,) * d), Norm((1,) * 4)),
    lambda c, w, d: GradientFlow(d, 3, activation=random.choice(["relu", "tanh", "softplus"])),
    lambda c, w, d: RescaledGradientFlow(d, 5),
    lambda c, w, d: BjorckLinear(d, 3, iterations=3),
    lambda c, w, d: LipschitzExtension(d, 3, heads=2),
    lambda c, w, d: Cones(d, 4, heads=2),
    lambda c, w, d: Parallel(GradientFlow(d // 2, 2), Identity(EUCLIDEAN(d - d // 2))),
    lambda c, w, d: Parallel(Linear(EUCLIDEAN(1), EUCLIDEAN(2)), Identity(Norm((1,) * (d - 1)))),
    lambda c, w, d: LabelPlanes((1, 1, d - 1), 1),
    lambda c, w, d: Unflatten((d, 1, 1)),
    lambda c, w, d: Unflatten((2, d // 2)),
    lambda c, w, d: nn.Unflatten(1, (d // 2, 2)),
]
ANY = [
    lambda c, w, d: random.choice([nn.ReLU(), nn.Tanh(), nn.GELU(), nn.SiLU(), nn.ELU(2.0), nn.LeakyReLU(-1.5)]),
    lambda c, w, d: random.choice([nn.Sigmoid(), nn.Softplus(-2.0), nn.Hardswish(), nn.Mish(), nn.CELU(0.2)]),
    lambda c, w, d: random.choice([nn.Softmax(1), nn.Softmax(-1), nn.Softmin(1)]),
    lambda c, w, d: random.choice([nn.PReLU(c, init=3.0), Absolute(), Spline(c)]),
    lambda c, w, d: random.choice([nn.Flatten(), Flatten(d)]),
    lambda c, w, d: nn.Linear(w, random.choice([2, 3, 4])),
    lambda c, w, d: random.choice([MaxMin(c), MaxMin(c, EUCLIDEAN()), MaxMin(c, EUCLIDEAN(c))]),
    lambda c, w, d: random.choice([GroupSort(c, c), GroupSort(c, c, EUCLIDEAN()), Householder(c, EUCLIDEAN())]),
    lambda c, w, d: random.choice([Identity(EUCLIDEAN(c)), Identity(Norm((1,) * c))]),
    lambda c, w, d: Normalize([0.1] * c, [random.uniform(0.3, 2) for _ in range(c)]),
    lambda c, w, d: nn.ChannelShuffle(random.choice([1, 2])),
]
SIGNALS = [
    lambda c, w, d: nn.Conv1d(c, 3, 2, random.choice([1, 2]), 1, padding_mode=random.choice(["zeros", "circular"])),
    lambda c, w, d: nn.ConvTranspose1d(c, 2, 3, 2, random.choice([0, 1])),
    lambda c, w, d: nn.AvgPool1d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    lambda c, w, d: random.choice(
        [nn.ReflectionPad1d(1), nn.Upsample(scale_factor=2, mode="linear"), nn.MaxPool1d(2, 1)]
    ),
    lambda c, w, d: nn.BatchNorm1d(c).eval(),
]
IMAGES = [
    lambda c, w, d: nn.Conv2d(c, 3, 2, (1, 2), 1, padding_mode=random.choice(["zeros", "replicate", "reflect"])),
    lambda c, w, d: nn.ConvTranspose2d(c, 2, (1, 3), 2, (0, 1), dilation=2),
    lambda c, w, d: random.choice([Conv2d(c, 2, 2, padding=1), ConvGradientFlow(c, 2, 3, stride=1, padding=1)]),
    lambda c, w, d: nn.AvgPool2d(2, 1, divisor_override=random.choice([None, 1, 3])),
    lambda c, w, d: random.choice(
        [nn.MaxPool2d(2, 1), nn.LPPool2d(2, 2, 1), L2Pool2d((1, 2)), ScaledAvgPool2d((2, 1))]
    ),
    lambda c, w, d: random.choice([PixelShuffle(2), PixelUnshuffle(2), nn.PixelUnshuffle(1)]),
    lambda c, w, d: random.choice([nn.Upsample(scale_factor=2), nn.ZeroPad2d((1, 2, -1, 0)), nn.AdaptiveAvgPool2d(1)]),
]


def random_chain(shape: tuple[int, ...]) -> nn.Sequential:
    """Takes rows to samples of a shape, then applies layers that take what the one before gives, whatever the norms."""
    layers: list[nn.Module] = [Unflatten(shape)] if len(shape) > 1 else []
    wanted = len(layers) + random.randint(1, 5)
    for _ in range(40):
        own = {1: VECTORS, 2: SIGNALS, 3: IMAGES}.get(len(shape), ANY)
        try:
            layer = random.choice(random.choice([own, ANY]))(shape[0], shape[-1], math.prod(shape)).double()
            after = layer(torch.zeros(2, *shape)).shape
        except (InputError, RuntimeError, ValueError, IndexError):  # of another number of channels, or too small
            continue
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(random.choice([1.0, 3.0]))
        layers.append(layer)
        shape = tuple(after[1:])
        if len(layers) == wanted or not shape or 0 in shape:
            break
    return nn.Sequential(*layers)


def length(x: torch.Tensor, norm: str) -> torch.Tensor:
    """The norm that a certificate names, of differences (n, …)."""
    rows = x.flatten(1)
    if norm.startswith(("Euclidean", "any")):
        return rows.norm(dim=1)
    sizes = list(map(int, re.findall(r"\d+", norm)))
    sizes = [1] * sizes[0] if norm.startswith("max(") else sizes
    return torch.stack([part.norm(dim=1) for part in rows.split(sizes, dim=1)]).amax(dim=0)


def test_no_random_critic_is_steeper_than_its_certificate():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    random.seed(0), torch.manual_seed(0)
    certified, tight = 0, 0
    try:
        while certified < CRITICS:
            shape = random.choice(SHAPES)
            critic = random_chain(shape)
            try:
                certificate = certify(critic)
            except UncertifiableError:  # norms or axes that do not meet
                continue
            certified += 1
            n, dim, steepest = 60, math.prod(shape), 0.0
            for scale in (0.1, 1.0, 30.0):
                x, step = scale * torch.randn(n, dim), torch.randn(n, dim)
                step[: n // 3] *= torch.rand(n // 3, dim) < 0.3  # along few axes
                step[n // 3 : 2 * n // 3] = step[n // 3 : 2 * n // 3].sign()  # along diagonals
                step *= 10.0 ** torch.empty(n, 1).uniform_(-3, 0.5)
                with torch.no_grad():
                    rise = length(critic(x + step) - critic(x), certificate.norm_out)
                run = length(step, certificate.norm_in)
                steepest = max(steepest, (rise / run)[run > 0].max().item())
            assert steepest <= certificate.lipschitz * (1 + 1e-9), (certificate, critic)
            tight += steepest > 0.5 * certificate.lipschitz
    finally:
        torch.set_default_dtype(before)
    assert tight > CRITICS // 5, "the attack is too weak to find anything"
