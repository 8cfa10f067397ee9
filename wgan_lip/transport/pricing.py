r"""Pricing: the lowest of all cones :math:`\|z_i - p_j\| - v_j` at each of many points.

Note [Pricing in float32]
~~~~~~~~~~~~~~~~~~~~~~~~~
Float32 products pick a few candidates for each z, and float64 differences decide among them. Where the error of the
products leaves any doubt about the others, differences to all of them decide, as if there had been no products.

Let u = 2^-24 and c any centre. The squared distance of z and p is the product of (-2 (z - c), 1, |z - c|^2) with
(p - c, |p - c|^2, 1). The absolute values of its d + 2 terms add up to r^2 at most, r = |z - c| + max_j |p_j - c|. Each
term is rounded at most d + 2 times, in whatever order a library adds them, with fused products or without; the
float64 differences and squares, rounded to float32, change their sum by less than 2.1 u r^2. So the product errs by at
most

.. math:: E = 1.03 (d + 8) u r^2 + 2^{-120} (d + 8) (1 + r)

where (d + 8) u <= 0.01. The second term is more than underflow can take, gradual or to zero. Cutting off at zero brings
it no further from the truth. Then s_j, its root less v_j, errs further by the rounding of the root, of v_j and of the
difference: for a cone whose height is below some h, by less than rho = 8 u (|h| + 2 max_j |v_j| + sqrt(E)).

Let h be the height of the lowest candidate, found by differences, and a the largest s of the candidates: s_j >= a for
all the others. If the height of one of these were below h, then |z - p_j| < t = h + v_j, and

.. math:: a \leq s_j < \sqrt{t^2 + E} - v_j + \rho = h + \rho + \frac{E}{\sqrt{t^2 + E} + t}
    \leq h + \rho + \frac{E}{\sqrt{t_0^2 + E} + t_0}, \qquad t_0 = \max(0, \, h + \min_j v_j).

So where a is no less than the right-hand side, there is no such cone. rho is ample: it has room for the float64
rounding of everything here. All this holds for products in float32, whatever else torch is allowed: see
:func:`wgan_lip.utils.devices.full_precision`.

Note [Pricing by cells]
~~~~~~~~~~~~~~~~~~~~~~~
In few dimensions, let the z of a cell lie within r of its centre c, and let g be the width-th least height at c, of all
cones or of some. Heights are 1-Lipschitz, so the width-th least height at z is at most g + r, and a cone whose height
at c exceeds g + 2 r is higher than that. Such cones are dropped for this cell and all cells within it. There, g is
taken over the cones that are left, and bounds the width-th least of all from above as before. Rounding: a computed
height errs by less than 7 u (D + max_j |v_j|), u = 2^-53, where no distance exceeds D; for four of them and twice a
radius, 1e-14 of that sum is ample.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from wgan_lip.transport.cells import FEW_DIMENSIONS, Tree
from wgan_lip.transport.potentials import block_distances
from wgan_lip.transport.rounding import CHUNK, block_entries
from wgan_lip.utils.devices import full_precision

__all__ = ["Lowest", "distances_to", "lowest_cones"]

SINGLE = 2.0**-24  # rounding to nearest in float32
FEWEST = 256  # cones from which products save time
EXTRA = 4  # candidates beyond those asked for: then there is hardly ever doubt
GROUP = 16  # cones whose least is found first, at most
QUICK = 64  # numbers for each one wanted, from which topk takes a single pass
TILE = 4096  # cones in one product, whose distances stay in a CPU's cache
LEAST_ROWS = 64  # in one product: with fewer it is slower
MANY = 2**22  # pairs from which cells save time
CELLED = 512  # cones, at least: with fewer, cells take longer to find than they save
BY_DIFFERENCES = "donot_use_mm_for_euclid_dist"
COMPONENTS = 2**30  # of the differences, or terms of the products, between two looks at the clock


class Lowest(NamedTuple):
    """The lowest cones at each of k points, and the points at which each of m cones is lowest.

    Attributes:
        heights: Heights of the lowest cones, in order, shape (k, width).
        cones: Indices of these cones, shape (k, width).
        nearest: For each cone, the point at which it exceeds the lowest cone by the least, shape (m,).
    """

    heights: Tensor
    cones: Tensor
    nearest: Tensor


def lowest_cones(
    z: Tensor,
    points: Tensor,
    offsets: Tensor,
    width: int = 1,
    *,
    both: bool = False,
    check: Callable[[], None] = lambda: None,
    tree: Callable[[], Tree] | None = None,
) -> Lowest:
    """The `width` lowest of ‖z_i − p_j‖ − v_j for each z_i, in units in which squares neither overflow nor vanish.

    Arguments:
        z: The points, shape (k, d), float64.
        points: The apexes p, shape (m, d).
        offsets: v, shape (m,).
        width: How many, at most m.
        both: Whether `nearest` is wanted; otherwise it holds zeros.
        check: Called between blocks; an exception from it ends the search.
        tree: Returns the tree of z, if there is one.

    Guarantee:
        The first in each row is the lowest of all cones up to rounding of float64 differences: see Note [Pricing in
        float32] and Note [Pricing by cells]. The others in the row, and `nearest`, may be second best.
    """
    many = len(points) >= CELLED and len(z) * len(points) >= MANY
    if many and z.shape[1] <= FEW_DIMENSIONS and z.device.type == "cpu":
        return _by_cells(z, points, offsets, width, both, check, Tree.of(z) if tree is None else tree())
    products = _Products.of(points, offsets)
    if products is None or not products.reach_to(z):
        return _by_differences(z, points, offsets, width, both, check)
    found, doubtful = _by_products(z, points, offsets, width, both, check, products)
    if len(doubtful):
        again = _by_differences(z[doubtful], points, offsets, width, False, check)
        found.heights[doubtful], found.cones[doubtful] = again.heights, again.cones
    return found


def distances_to(points: Tensor, z: Tensor, which: Tensor) -> Tensor:
    """Distances by differences from each z (k, d) to some of the points (m, d), with indices `which` (k, w)."""
    rows = max(1, block_entries(z.device) // (which.shape[1] * z.shape[1]))
    parts = zip(z.split(rows), which.split(rows), strict=True)
    return torch.cat([torch.linalg.vector_norm(part[:, None] - points[j], dim=2) for part, j in parts])


def _nothing_yet(z: Tensor, offsets: Tensor, width: int) -> Lowest:
    # Allocated in advance: small results kept between large blocks would fragment the heap.
    heights = z.new_empty(len(z), width)
    return Lowest(heights, torch.empty_like(heights, dtype=torch.long), torch.zeros_like(offsets, dtype=torch.long))


def _by_differences(
    z: Tensor, points: Tensor, offsets: Tensor, width: int, both: bool, check: Callable[[], None]
) -> Lowest:
    found, least = _nothing_yet(z, offsets, width), torch.full_like(offsets, math.inf)
    start = 0
    for part in z.split(max(1, COMPONENTS // points.numel())):
        for block in block_distances(part, points):
            check()
            block -= offsets
            stop = start + len(block)
            lowest = block.topk(width, largest=False) if width > 1 else block.min(1, keepdim=True)
            found.heights[start:stop], found.cones[start:stop] = lowest
            if both:
                excess, row = block.sub_(found.heights[start:stop, :1]).min(0)
                torch.where(excess < least, row + start, found.nearest, out=found.nearest)
                torch.minimum(excess, least, out=least)
            start = stop
    return found


def _by_cells(
    z: Tensor, points: Tensor, offsets: Tensor, width: int, both: bool, check: Callable[[], None], tree: Tree
) -> Lowest:
    found, least = _nothing_yet(z, offsets, width), torch.full_like(offsets, math.inf)
    ends = torch.stack([torch.minimum(z.amin(0), points.amin(0)), torch.maximum(z.amax(0), points.amax(0))])
    margin = 1e-14 * float(torch.linalg.vector_norm(ends[1] - ends[0]) + offsets.abs().max())
    last = len(tree.starts) - 1

    def visit(level: int, begin: int, end: int, cones: Tensor) -> None:
        """Visits the cells `begin` to `end` of a level, given the cones that may be among the lowest in them."""
        apexes, v, starts = points[cones], offsets[cones], tree.starts[level]
        rows = max(1, CHUNK // len(cones))
        for first in range(begin, end, rows):
            check()
            cells = slice(first, min(first + rows, end))
            heights = torch.cdist(tree.centres[level][cells], apexes, compute_mode=BY_DIFFERENCES).sub_(v)
            highest = heights.topk(width, largest=False, sorted=False).values.amax(1)
            low = heights <= (highest + 2 * tree.radii[level][cells] + margin)[:, None]
            for cell, kept in enumerate(low, first):
                left = cones[kept]
                if level < last:
                    below = tree.starts[level + 1]
                    inside = (bisect_left(below, starts[cell]), bisect_left(below, starts[cell + 1]))
                    visit(level + 1, *inside, left)
                else:
                    look(tree.order[starts[cell] : starts[cell + 1]], left)

    def look(which: Tensor, cones: Tensor) -> None:
        """Compares cones at all the z of a cell."""
        block = torch.cdist(z[which], points[cones], compute_mode=BY_DIFFERENCES).sub_(offsets[cones])
        lowest = block.topk(width, largest=False) if width > 1 else block.min(1, keepdim=True)
        found.heights[which], found.cones[which] = lowest.values, cones[lowest.indices]
        if both:
            rise, row = block.sub_(lowest.values[:, :1]).min(0)
            lower = rise < least[cones]
            lowered = cones[lower]
            least[lowered], found.nearest[lowered] = rise[lower], which[row[lower]]

    visit(0, 0, len(tree.centres[0]), torch.arange(len(points)))
    return found


class _Products(NamedTuple):
    """What all products have in common; see Note [Pricing in float32].

    Attributes:
        centre: c, shape (d,).
        right: (p − c, |p − c|², 1) in float32, shape (m, d + 2), and rows of zeros up to a multiple of GROUP.
        offsets: v less `middle`, in float32, and −∞ for those rows: they are never low.
        middle: The mean of v.
        lowest: The least of v less `middle`.
        largest: The largest of their absolute values.
        radius: At least max_j |p_j − c|.
    """

    centre: Tensor
    right: Tensor
    offsets: Tensor
    middle: float
    lowest: float
    largest: float
    radius: float

    @staticmethod
    def of(points: Tensor, offsets: Tensor) -> _Products | None:
        """None if there are few cones, or if products would be too inaccurate."""
        m, d = points.shape
        if m < FEWEST or (d + 8) * SINGLE > 0.01:
            return None
        centre, middle = points.mean(0), float(offsets.mean())
        right = torch.zeros(m + -m % GROUP, d + 2, dtype=torch.float32, device=points.device)
        right[:m, -1] = 1
        radius = 0.0
        step = max(1, block_entries(points.device) // d)
        for start in range(0, m, step):
            part = points[start : start + step] - centre
            squares = part.square().sum(1)
            rows = right[start : start + len(part)]
            rows[:, :d], rows[:, d] = part, squares
            radius = max(radius, float(squares.max()))
        centred = offsets - middle
        padded = torch.nn.functional.pad(centred.float(), (0, len(right) - m), value=-math.inf)
        lowest, largest = float(centred.min()), float(centred.abs().max())
        return _Products(centre, right, padded, middle, lowest, largest, 1.000001 * math.sqrt(radius))

    def reach_to(self, z: Tensor) -> bool:
        """Whether all numbers stay so small that no square overflows in float32."""
        box = torch.linalg.vector_norm(torch.maximum(z.amax(0) - self.centre, self.centre - z.amin(0)))
        return all(size < 1e15 for size in (float(box), self.radius, self.largest))  # none is NaN either

    def left(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(−2 (z − c), 1, |z − c|²) in float32, shape (k, d + 2), and the bound E on the error, shape (k,)."""
        z = z - self.centre
        squares, d = z.square().sum(1), z.shape[1]
        reach = 1.000001 * squares.sqrt() + self.radius
        error = (d + 8) * (1.03 * SINGLE * reach.square() + 2.0**-120 * (1 + reach))
        return torch.cat([-2 * z, torch.ones_like(z[:, :1]), squares[:, None]], 1).float(), error


@full_precision()
def _by_products(
    z: Tensor,
    points: Tensor,
    offsets: Tensor,
    width: int,
    both: bool,
    check: Callable[[], None],
    products: _Products,
) -> tuple[Lowest, Tensor]:
    """The lowest among the candidates, and the rows in which another cone might be lower."""
    found, doubtful = _nothing_yet(z, offsets, width), []
    padded, take = len(products.right), min(width + EXTRA, len(points))
    step, group = max(LEAST_ROWS, block_entries(z.device) // 4 // padded), GROUP
    while group > 1 and padded < QUICK * take * group:
        group //= 2
    tiled = TILE if z.device.type == "cpu" else padded
    # Cones next to each other in memory are in different groups: the least of each is found fastest that way.
    members = torch.cat([tile.view(group, -1).T for tile in torch.arange(padded, device=z.device).split(tiled)])
    heights = products.right.new_empty(min(step, len(z)), padded)
    leasts = heights.new_empty(len(heights), len(members))
    least = torch.full_like(products.offsets, math.inf)
    nearest = torch.zeros_like(least, dtype=torch.long)
    for start in range(0, len(z), step):
        check()
        part = z[start : start + step]
        left, error = products.left(part)
        stop, block, of_groups = start + len(part), heights[: len(part)], leasts[: len(part)]
        tiles = block.split(tiled, 1), of_groups.split(tiled // group, 1)
        for right, v, tile, of_tile in zip(products.right.split(tiled), products.offsets.split(tiled), *tiles):
            torch.mm(left, right.T, out=tile)
            tile.clamp_(min=0).sqrt_().sub_(v)
            torch.amin(tile.view(len(part), group, -1), 1, out=of_tile)

        cones = members[of_groups.topk(take, largest=False, sorted=False).indices].flatten(1)
        guesses, order = block.gather(1, cones).topk(take, largest=False)
        cones = cones.gather(1, order)
        exact, order = (distances_to(points, part, cones) - offsets[cones]).sort(1)
        found.heights[start:stop], found.cones[start:stop] = exact[:, :width], cones.gather(1, order)[:, :width]

        height = exact[:, 0] + products.middle
        shortest = (height + products.lowest).clamp(min=0)
        slack = error / ((shortest.square() + error).sqrt() + shortest)
        slack += 8 * SINGLE * (height.abs() + 2 * products.largest + error.sqrt())
        doubtful.append(start + (~(guesses[:, -1] >= height + slack)).nonzero()[:, 0])
        if both:
            rise = block.sub_(height.float()[:, None]).amin(0)
            lower = (rise < least).nonzero()[:, 0]
            nearest[lower] = start + block.index_select(1, lower).min(0).indices
            least[lower] = rise[lower]
    found.nearest.copy_(nearest[: len(points)])
    return found, torch.cat(doubtful)
