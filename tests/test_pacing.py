"""As much as the time allows: against a clock of known costs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgan_lip.utils.pacing import FARTHEST, FIRST, largest_in_time


class Machine:
    """A clock that calls of known cost move."""

    def __init__(self, seconds, power, loading=0.0):
        self.seconds, self.power, self.loading, self.now, self.sizes = seconds, power, loading, 0.0, []

    def clock(self):
        return self.now

    def call(self, size):
        self.now += self.seconds * (size / FIRST) ** self.power + self.loading * (not self.sizes)
        self.sizes.append(size)
        return f"of {size}"


@given(
    seconds=st.floats(1e-5, 1e3),
    growth=st.floats(1, 3),
    flatter=st.floats(0, 1),
    most=st.integers(1, 5000),
    allowed=st.floats(0, 1e3),
    loading=st.floats(0, 10),
)
def test_calls_take_no_longer_than_is_allowed_unless_the_smallest_do(seconds, growth, flatter, most, allowed, loading):
    power = growth * flatter
    machine = Machine(seconds, power, loading)
    size, result = largest_in_time(machine.call, most, allowed, growth=growth, clock=machine.clock)
    smallest = loading + 2 * seconds * (min(FIRST, most) / FIRST) ** power
    assert machine.now <= max(allowed, smallest) * (1 + 1e-9)
    assert result == f"of {size}" and size == machine.sizes[-1] == max(machine.sizes) <= most


@pytest.mark.parametrize("power", [1, 2, 3])
def test_much_of_the_time_is_used_where_time_grows_as_fast_as_it_may(power):
    machine = Machine(1e-3, power)
    size, _ = largest_in_time(machine.call, 10**9, 10.0, clock=machine.clock)
    assert size >= FIRST * (10.0 / 1e-3) ** (1 / 3) / 2


def test_sizes_grow_by_no_more_than_a_factor():
    machine = Machine(1e-6, 0.0)
    largest_in_time(machine.call, 10**6, 10.0, clock=machine.clock)
    assert all(larger <= FARTHEST * size for size, larger in zip(machine.sizes, machine.sizes[1:]))


def test_what_is_cheap_is_done_in_full():
    machine = Machine(1e-4, 2.0)
    assert largest_in_time(machine.call, 4096, 10.0, clock=machine.clock)[0] == 4096


def test_a_slow_first_call_does_not_count_as_a_measurement():
    machine = Machine(1e-4, 3.0, loading=5.0)
    assert largest_in_time(machine.call, 1000, 10.0, clock=machine.clock)[0] == 1000


def test_without_a_limit_there_is_one_call():
    machine = Machine(1.0, 3.0)
    assert largest_in_time(machine.call, 900, math.inf, clock=machine.clock) == (900, "of 900")
    assert machine.sizes == [900]
