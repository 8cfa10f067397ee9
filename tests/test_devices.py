"""Where a command computes: what is asked for and not there, and memory that stays."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
import torch

from wgan_lip.utils.checks import InputError
from wgan_lip.utils.devices import find_device, keep_freed_memory, set_threads

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
