"""Where a command computes: what is asked for and not there, and memory that stays."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import ClassVar

import pytest
import torch

from wgan_lip import certify, constrain_steps
from wgan_lip.cli import processes
from wgan_lip.critics import ResNetCritic
from wgan_lip.lipschitz.bounds import differentiable
from wgan_lip.lipschitz.layers import GradientFlow, Retraction
from wgan_lip.lipschitz.layers.constraints import Constraint
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.devices import find_device, flushed_denormals, full_precision, keep_freed_memory, set_threads
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
    with pytest.raises(InputError, match=r"^device"):
        find_device(name)


def test_the_processor_is_always_there():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type in ("cpu", "cuda")


def test_threads_below_one_are_refused():
    with pytest.raises(InputError, match="threads must be at least 1, not 0"):
        set_threads(0)


# Products in float32 -------------------------------------------------------------------------------------------------

PRODUCTS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)


def allowed():
    return [kind.fp32_precision for kind in PRODUCTS]


@pytest.fixture
def fewer_bits():
    """Products may be of TF32 on a GPU, and of bfloat16 on a CPU."""
    before = allowed()
    torch.set_float32_matmul_precision("medium")
    yield ["tf32", "bf16"]
    torch.set_float32_matmul_precision("highest")
    for kind, old in zip(PRODUCTS, before):
        kind.fp32_precision = old


def test_products_are_whole_inside_and_as_allowed_outside(fewer_bits):
    assert allowed() == fewer_bits
    with full_precision():
        assert set(allowed()) <= {"ieee", "none"}
        with full_precision():
            pass
        assert set(allowed()) <= {"ieee", "none"}
    assert allowed() == fewer_bits
    assert torch.get_float32_matmul_precision() == "medium"


def test_what_was_allowed_comes_back_after_an_error_too(fewer_bits):
    with pytest.raises(ZeroDivisionError), full_precision():
        raise ZeroDivisionError
    assert allowed() == fewer_bits


def test_where_no_fewer_bits_are_allowed_nothing_is_touched():
    before = allowed()
    with full_precision():
        assert allowed() == before
    assert allowed() == before


def test_products_are_whole_under_autocast_which_goes_on_afterwards():
    one = torch.full((4, 4), 1 + 2.0**-20)
    with torch.autocast("cpu", torch.bfloat16):
        assert (one @ torch.eye(4)).dtype == torch.bfloat16
        with full_precision():
            assert torch.equal(one @ torch.eye(4), one)
        assert (one @ torch.eye(4)).dtype == torch.bfloat16


class Watched(Constraint):
    """Sees in which arithmetic it retracts."""

    seen: ClassVar[list[list[str]]] = []

    @classmethod
    def retract_together(cls, constraints):
        cls.seen.append(allowed())

    @classmethod
    def project_together(cls, constraints, gradients):
        pass


class WatchedLayer(GradientFlow):
    def constraints(self):
        yield Watched(self.weight)


def test_retraction_and_bounds_take_whole_products(fewer_bits, monkeypatch):
    Watched.seen.clear()
    Retraction(WatchedLayer(4, 2))()
    of_bounds = differentiable.gram_sums
    monkeypatch.setattr(
        differentiable, "gram_sums", lambda blocks: (Watched.seen.append(allowed()), of_bounds(blocks))[1]
    )
    differentiable.row_scale(torch.randn(3, 4))
    assert len(Watched.seen) >= 2
    assert all(set(seen) <= {"ieee", "none"} for seen in Watched.seen)
    assert allowed() == fewer_bits


def test_steps_under_autocast_stay_within_the_constant():
    """An optimiser that is stepped inside of autocast, as loops do by mistake: retraction is not to round to bfloat16."""
    critic = ResNetCritic(6, width=32, depth=3)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    constrain_steps(optimizer, critic)
    for _ in range(4):
        with torch.autocast("cpu", torch.bfloat16):
            ascend(critic, optimizer, torch.randn(16, 6), torch.randn(16, 6) + 1)
    assert 1 - 1e-4 < certify(critic).lipschitz <= 1


# Several processes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "backends", "own"), [(2, "cpu:gloo,cuda:nccl", [1]), (1, "cpu:gloo,cuda:nccl", []), (0, "gloo", [])]
)
def test_processes_meet_over_nccl_where_each_has_a_gpu_and_over_gloo_on_cpus(gpus, backends, own, monkeypatch):
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "x",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    met, devices = [], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda names, timeout: met.append(names))
    processes.join()
    assert met == [backends] and devices == own
    if gpus == 2:
        assert find_device("auto") == find_device("cuda") == torch.device("cuda:1")
    elif gpus == 1:
        with pytest.raises(InputError, match="device=cuda:1 is not available: torch finds 1 GPU"):
            find_device("auto")
    else:
        assert find_device("auto") == torch.device("cpu")
