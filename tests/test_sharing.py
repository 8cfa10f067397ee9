"""Several processes that price for one: the interval of one process, whatever becomes of the others."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import on_two_ranks, started_ranks, statuses

from wgan_lip.cli import main
from wgan_lip.transport import Crew, Problem, narrow_problem, narrowing, pricing, sharing, solve

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")
SMALL = {"DENSE": 0, "COARSEST": 8, "POINTS_PER_CELL": 3, "FIRST_EDGES": 2, "ADDED_EDGES": 2, "KEPT_EDGES": 3}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture(autouse=True)
def shared(monkeypatch, tmp_path):
    """Levels, cells, products and sharing at sizes at which none of them would be worth it."""
    monkeypatch.chdir(tmp_path)
    for name, value in SMALL.items():
        monkeypatch.setattr(narrowing, name, value)
    monkeypatch.setattr(sharing, "WORTH", 0)


def served(work):
    """What `work(crew)` gives on rank 0, while the other one prices."""

    def both(_):
        crew = Crew("cpu")
        if crew.rank:
            return crew.serve()
        try:
            return work(crew)
        finally:
            crew.dismiss()

    return both


def bounds(x, y, crew=None, **options):
    found = list(narrow_problem(Problem.of(x, y, **options), crew=crew))
    assert found[-1].optimal
    return [(one.stage, one.transport.lower, one.transport.upper) for one in found]


CASES = {
    "in the plane, by cells": (normal(150, 2), normal(130, 2, seed=1) + 1, {}),
    "in few dimensions, by differences": (normal(90, 5), normal(70, 5, seed=1), {}),
    "in many, by products": (normal(80, 40), 1.1 * normal(90, 40, seed=1), {}),
    "weights": (normal(60, 3), normal(50, 3, seed=1), {"a": np.arange(60.0)}),
    "3 beside many": (normal(3, 2), normal(200, 2, seed=1), {}),
    "1 beside many": (normal(1, 4), normal(50, 4, seed=1), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_find_the_interval_of_one(case, tmp_path, monkeypatch):
    x, y, weights = CASES[case]
    if "cells" in case:
        monkeypatch.setattr(pricing, "MANY", 0)
    monkeypatch.setattr(pricing, "FEWEST", 32)
    found = on_two_ranks(served(lambda crew: [bounds(x, y, crew, **weights), crew.size]), tmp_path)
    alone, truth = bounds(x, y, **weights), solve(x, y, **weights)
    (together, size), nothing = found
    assert size == 2 and nothing is None
    spread = float(np.ptp(np.concatenate([x, y])))
    for (_, lower, upper), (_, low, high) in zip(together[:2], alone[:2]):
        assert (lower, upper) == pytest.approx((low, high), rel=1e-12)
    _, lower, upper = together[-1]
    assert lower <= truth.upper and truth.lower <= upper and upper - lower <= 1e-11 * spread
    assert (lower, upper) == pytest.approx(alone[-1][1:], rel=1e-11)


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("d", [2, 30])
def test_shares_together_say_what_one_process_says(d, width, tmp_path, monkeypatch):
    monkeypatch.setattr(pricing, "MANY", 0)
    monkeypatch.setattr(pricing, "FEWEST", 32)
    z, points = torch.from_numpy(normal(101, d)), torch.from_numpy(normal(64, d, seed=1))
    v = torch.from_numpy(0.3 * normal(64, seed=2))

    def work(crew):
        tree = lambda: pricing.Tree.of(z)  # noqa: E731
        found = crew.lowest(z, points, v, width, both=True, left=math.inf, tree=tree)
        return [part.tolist() for part in found]

    (heights, cones, nearest), _ = on_two_ranks(served(work), tmp_path)
    every = torch.cdist(z, points, compute_mode="donot_use_mm_for_euclid_dist") - v
    least, which = every.topk(width, largest=False)
    assert torch.tensor(cones).equal(which)
    torch.testing.assert_close(torch.tensor(heights, dtype=torch.float64), least, rtol=1e-13, atol=1e-13)
    rise = every - least[:, :1]
    chosen = rise[torch.tensor(nearest), torch.arange(64)]
    seen = chosen <= rise.amin(0) + 1e-5  # cells look at some cones only; a cone that is lowest somewhere is one
    assert seen[which[:, 0].unique()].all() and (d == 2 or seen.all())


def in_one_call(monkeypatch, on_rank_1):
    """Rank 1 does something else in its second pricing."""
    real, calls = sharing.lowest_on, []

    def priced(*arguments, **options):
        calls.append(1)
        if dist.is_initialized() and dist.get_rank() and len(calls) == 2:
            on_rank_1()
        return real(*arguments, **options)

    monkeypatch.setattr(sharing, "lowest_on", priced)


def fail():
    raise MemoryError


@pytest.mark.parametrize("failure", [fail, lambda: os.kill(os.getpid(), signal.SIGKILL)], ids=["fails", "is killed"])
def test_where_the_other_fails_rank_0_goes_on_alone(failure, tmp_path, monkeypatch):
    x, y, _ = CASES["in few dimensions, by differences"]
    in_one_call(monkeypatch, failure)
    (found, size), _ = on_two_ranks(served(lambda crew: [bounds(x, y, crew), crew.size]), tmp_path)
    truth = solve(x, y)
    assert size == 1
    assert found[-1][1] <= truth.upper and truth.lower <= found[-1][2] <= truth.upper * (1 + 1e-11)


def test_where_the_other_is_late_the_interval_is_the_last_one(tmp_path, monkeypatch):
    x, y, _ = CASES["in few dimensions, by differences"]
    truth = solve(x, y)

    def late():
        raise TimeoutError

    in_one_call(monkeypatch, late)

    def work(crew):
        found = [one.transport for one in narrow_problem(Problem.of(x, y), crew=crew)]
        return [crew.size, len(found), found[-1].lower, found[-1].upper]

    (size, count, lower, upper), _ = on_two_ranks(served(work), tmp_path)
    assert size == 2 and count == 1
    assert lower <= truth.lower and truth.upper <= upper


def test_an_interruption_of_rank_0_ends_the_service(tmp_path, monkeypatch):
    x, y, _ = CASES["in few dimensions, by differences"]

    def work(crew):
        real, calls = narrowing._Scanner.check, []

        def interrupted(scanner):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            real(scanner)

        monkeypatch.setattr(narrowing._Scanner, "check", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bounds(x, y, crew)
        return crew.size

    begun = time.monotonic()
    assert on_two_ranks(served(work), tmp_path) == [1, None] and time.monotonic() - begun < 60


# --- the command ------------------------------------------------------------------------------------------------------


def estimate(*arguments):
    return ["estimate", "x=x.npy", "y=y.npy", "seconds=100", "threads=1", *arguments]


def test_the_command_gives_on_two_processes_what_it_gives_on_one(capsys, monkeypatch):
    monkeypatch.setattr("wgan_lip.cli.estimate._figures", lambda *_: {})
    x, y = normal(120, 4), normal(100, 4, seed=1) + 0.3
    np.save("x.npy", x), np.save("y.npy", y)
    assert statuses(started_ranks(*estimate("hydra.run.dir=two"))) == [0, 0]
    assert main(estimate("hydra.run.dir=one")) == 0
    two, one = (json.loads((Path(folder) / "result.json").read_text()) for folder in ("two", "one"))
    for key in ("lower", "upper", "exact", "value"):
        assert two[key] == pytest.approx(one[key], rel=1e-11)
    assert two["stopped"] == one["stopped"] == "optimal"
    assert two["lower"] <= solve(x, y).value <= two["upper"]
    assert "W1 of the samples" in Path("0.txt").read_text() and Path("1.txt").read_text() == ""
    assert sorted(path.name for path in Path().iterdir()) == ["0.txt", "1.txt", "one", "two", "x.npy", "y.npy"]


@pytest.mark.parametrize(
    ("arguments", "message"), [(("y=none.npy",), "none.npy"), (("y=null", "by=0"), "by=0 runs in one process")]
)
def test_what_rank_0_refuses_ends_both(arguments, message):
    np.save("x.npy", normal(20, 2)), np.save("y.npy", normal(20, 2))
    assert statuses(started_ranks(*estimate(*arguments))) == [2, 0]
    assert message in Path("0.txt").read_text() and Path("1.txt").read_text() == ""
