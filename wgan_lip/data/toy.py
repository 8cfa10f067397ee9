"""Laws in the plane with samplers in closed form."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from wgan_lip.data.sources import REFERENCE, TEST, Source, check_positive, derived_generator
from wgan_lip.utils.checks import InputError, check_memory

__all__ = ["Checkerboard", "Gaussians8", "Gaussians25", "MixtureSource", "Moons", "SwissRoll", "ToySource"]


class ToySource(Source):
    """A law in the plane with a sampler in closed form; a subclass supplies :meth:`_draw`.

    Arguments:
        test_size: The number m of held-out samples.
        seed: Fixes the held-out samples, which no generator with a seed below 2^31 draws.

    Raises:
        InputError: A size or scale that is not positive.
    """

    dim = 2

    def __init__(self, test_size: int, seed: int) -> None:
        check_positive(test_size=test_size)
        check_memory(40 * test_size, f"{test_size} held-out samples", "Lower test_size.")
        self.test = self._draw(test_size, derived_generator(seed, TEST))

    @abstractmethod
    def _draw(self, n: int, rng: torch.Generator) -> Tensor:
        """n independent samples of the law, shape (n, 2)."""

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        return self._draw(n, rng).to(self.device, non_blocking=True)

    def reference(self, n: int, seed: int) -> Tensor:
        check_positive(n=n)
        return self._draw(n, derived_generator(seed, REFERENCE))


class MixtureSource(ToySource):
    r"""The Gaussian mixture :math:`\tfrac{1}{k} \sum_j N(m_j, \sigma^2 I)` on given modes, shape (k, 2)."""

    modes: Tensor
    mode_std: float

    def __init__(self, modes: Tensor, std: float, test_size: int, seed: int) -> None:
        check_positive(std=std)
        self.modes, self.mode_std = modes, std
        super().__init__(test_size, seed)

    def _draw(self, n: int, rng: torch.Generator) -> Tensor:
        component = torch.randint(len(self.modes), (n,), generator=rng)
        return self.modes[component] + self.mode_std * torch.randn(n, 2, generator=rng)


class Gaussians8(MixtureSource):
    r"""Eight equal Gaussians on a ring: :math:`m_j = r (\cos \tfrac{j \pi}{4}, \sin \tfrac{j \pi}{4})`.

    Mean zero, covariance :math:`(r^2 / 2 + \sigma^2) I`.

    Arguments:
        radius: Radius r of the ring.
        std: Standard deviation σ of a component.
        test_size, seed: Number of held-out samples, and what fixes them.
    """

    name = "gaussians8"

    def __init__(self, radius: float = 1.5, std: float = 0.05, test_size: int = 2000, seed: int = 0) -> None:
        check_positive(radius=radius)
        angle = torch.arange(8) * (math.pi / 4)
        super().__init__(radius * torch.stack([angle.cos(), angle.sin()], dim=1), std, test_size, seed)


class Gaussians25(MixtureSource):
    r"""Twenty-five equal Gaussians on a grid: :math:`m_{ij} = s (i, j)` with i, j in {-2, …, 2}.

    Mean zero, covariance :math:`(2 s^2 + \sigma^2) I`.

    Arguments:
        spacing: Distance s between neighbouring modes.
        std: Standard deviation σ of a component.
        test_size, seed: Number of held-out samples, and what fixes them.
    """

    name = "gaussians25"

    def __init__(self, spacing: float = 0.75, std: float = 0.05, test_size: int = 2000, seed: int = 0) -> None:
        check_positive(spacing=spacing)
        line = spacing * torch.arange(-2.0, 3.0)
        super().__init__(torch.cartesian_prod(line, line), std, test_size, seed)


class SwissRoll(ToySource):
    r"""A spiral: :math:`\tfrac{r t}{4.5 \pi} (\cos t, \sin t) + \sigma \epsilon`.

    t is uniform on [1.5π, 4.5π], ε ~ N(0, I). Mean square norm :math:`\tfrac{13}{27} r^2 + 2 \sigma^2`; without noise
    the norm is uniform on [r / 3, r].

    Arguments:
        radius: Outer radius r of the roll.
        noise: Standard deviation σ of the noise.
        test_size, seed: Number of held-out samples, and what fixes them.
    """

    name = "swissroll"

    def __init__(self, radius: float = 2.0, noise: float = 0.05, test_size: int = 2000, seed: int = 0) -> None:
        check_positive(radius=radius)
        check_positive(noise=noise, or_zero=True)
        self.radius, self.noise = radius, noise
        super().__init__(test_size, seed)

    def _draw(self, n: int, rng: torch.Generator) -> Tensor:
        turn = (1 + 2 * torch.rand(n, 1, generator=rng)) / 3  # (n, 1), the norm over the radius
        angle = 4.5 * math.pi * turn
        spiral = self.radius * turn * torch.cat([angle.cos(), angle.sin()], dim=1)
        return spiral + self.noise * torch.randn(n, 2, generator=rng)


class Moons(ToySource):
    r"""Two interleaved half circles: :math:`\pm r (\cos t - \tfrac{1}{2}, \sin t - \tfrac{1}{4}) + \sigma \epsilon`.

    The sign is fair, t is uniform on [0, π], ε ~ N(0, I). Mean zero; the first coordinate has variance
    :math:`\tfrac{3}{4} r^2 + \sigma^2`, the second :math:`(\tfrac{9}{16} - \tfrac{1}{\pi}) r^2 + \sigma^2`.

    Arguments:
        radius: Radius r of the half circles.
        noise: Standard deviation σ of the noise.
        test_size, seed: Number of held-out samples, and what fixes them.
    """

    name = "moons"

    def __init__(self, radius: float = 1.0, noise: float = 0.05, test_size: int = 2000, seed: int = 0) -> None:
        check_positive(radius=radius)
        check_positive(noise=noise, or_zero=True)
        self.radius, self.noise = radius, noise
        super().__init__(test_size, seed)

    def _draw(self, n: int, rng: torch.Generator) -> Tensor:
        sign = 2.0 * torch.randint(2, (n, 1), generator=rng) - 1
        angle = math.pi * torch.rand(n, 1, generator=rng)
        circle = self.radius * sign * torch.cat([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)
        return circle + self.noise * torch.randn(n, 2, generator=rng)


class Checkerboard(ToySource):
    r"""Uniform on the dark squares of a board: density :math:`1 / (2 w^2)` where ⌊(x + w) / h⌋ + ⌊(y + w) / h⌋ is even.

    The board is [-w, w]² and has k × k squares of side h = 2w / k. Both marginals are uniform on [-w, w]; mean zero,
    variance :math:`w^2 / 3`, covariance :math:`h^2 / 4` of the two coordinates.

    Arguments:
        half_width: Half the side w of the board.
        cells: Even number k of squares along a side.
        test_size, seed: Number of held-out samples, and what fixes them.
    """

    name = "checkerboard"
    low: float
    high: float

    def __init__(self, half_width: float = 2.0, cells: int = 4, test_size: int = 2000, seed: int = 0) -> None:
        check_positive(half_width=half_width, cells=cells)
        if cells % 2:
            raise InputError(f"cells must be even, not {cells}. Use {cells + 1}.")
        self.low, self.high, self.cells = -half_width, half_width, cells
        super().__init__(test_size, seed)

    def _draw(self, n: int, rng: torch.Generator) -> Tensor:
        column = torch.randint(self.cells, (n,), generator=rng)
        row = 2 * torch.randint(self.cells // 2, (n,), generator=rng) + column % 2
        board = torch.stack([column, row], dim=1) + torch.rand(n, 2, generator=rng)  # (n, 2) in [0, k]
        return (2 * board / self.cells - 1) * self.high
