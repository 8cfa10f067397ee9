"""As large a computation as its time allows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["largest_in_time"]

FIRST = 128  # the size tried first
WORTHWHILE = 1.5  # the least growth from one size to the next for another try
FARTHEST = 4  # the largest growth from one size to the next: costs that dominate later show before they get large
Result = TypeVar("Result")


def largest_in_time(
    call: Callable[[int], Result],
    most: int,
    seconds: float,
    *,
    growth: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[int, Result]:
    """The size, up to `most`, for which a call fits into `seconds`, and what that call returned.

    Small sizes come first, 128 twice, since first calls load libraries. The next size is as large as the time left
    allows if time grows with a power of it, and at most four times the last. So if time grows no faster, all calls
    together take no longer than `seconds`, unless the smallest already do. With `seconds=math.inf` there is one call,
    with size `most`.

    Arguments:
        call: A function of a size.
        most: The largest size.
        seconds: Time for all calls, by the clock.
        growth: The power; 3 for exact solvers at worst.
        clock: A clock, such as `time.process_time`.

    Example:
        >>> largest_in_time(lambda size: 2 * size, 1000, math.inf)
        (1000, 2000)
    """
    if seconds == math.inf:
        return most, call(most)
    end = clock() + seconds
    size = min(FIRST, most)
    result = call(size)
    while True:
        began = clock()
        result = call(size)
        now = clock()
        left, took = max(0.0, end - now), max(now - began, 1e-6)
        larger = min(most, int(size * min(FARTHEST, (left / took) ** (1 / growth))))
        if larger < WORTHWHILE * size:
            return size, result
        size = larger
