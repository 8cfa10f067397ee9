"""Where a command computes: what is asked for and not there, and memory that stays."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
import torch

from wgan_lip.critics import ResNetCritic
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.devices import find_device, flushed_denormals, keep_freed_memory, set_threads
from wgan_lip.wasserstein.dual import ascend

FAULTS = """
import resource, sys, torch
from wgan_lip.utils.devices import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()

def step():  # 48 MiB in blocks of 8 MiB, or 2,048 pages each, all freed
    return sum(block[0].item() for block in [torch.ones(2**21) for _ in range(6)])

for _ in range(10):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_blocks_are_taken_again_without_new_pages():
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("the C library is not glibc")
    found = subprocess.run([sys.executable, "-c", FAULTS, "kept"], capture_output=True, text=True, check=True)
    # Fresh pages each time would be 20 x 6 x 2,048; a few blocks at the heap's end may still move.
    assert int(found.stdout) < 20 * 6 * 2048 // 10


def test_another_c_library_changes_nothing(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_freed_memory()


def doubled(number, dtype):
    return (torch.tensor([number], dtype=dtype) * 2).item()


@pytest.fixture
def flushing():
    """Skips where the processor can't; leaves denormals as they were."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush denormals")
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(False)


def test_denormals_count_as_zero_within_and_nowhere_else(flushing):
    for number, dtype in ((1e-40, torch.float32), (1e-310, torch.float64)):
        assert doubled(number, dtype) > 0
        with flushed_denormals():
            assert doubled(number, dtype) == 0
            with flushed_denormals():
                assert doubled(number, dtype) == 0
            assert doubled(number, dtype) == 0
        assert doubled(number, dtype) > 0
        with pytest.raises(ZeroDivisionError), flushed_denormals():
            _ = 1 / int(doubled(number, dtype))
        assert doubled(number, dtype) > 0


def test_who_flushes_denormals_everywhere_still_does_afterwards(flushing):
    torch.set_flush_denormal(True)
    with flushed_denormals():
        pass
    assert doubled(1e-40, torch.float32) == 0


def test_a_training_step_flushes_denormals_and_leaves_the_thread_as_it_was(flushing):
    critic = ResNetCritic(2)
    optimizer, seen = torch.optim.SGD(critic.parameters(), lr=0.1), []
    ascend(critic, optimizer, *torch.randn(2, 4, 2), settle=lambda _: seen.append(doubled(1e-40, torch.float32)))
    assert seen == [0.0] and doubled(1e-40, torch.float32) > 0


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:999"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(InputError, match=r"^Expected .*device.* Got "):
        find_device(name)


def test_the_processor_is_always_there():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type in ("cpu", "cuda")


def test_threads_below_one_are_refused():
    with pytest.raises(InputError, match="Expected threads of at least 1. Got 0"):
        set_threads(0)
