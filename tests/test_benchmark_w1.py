"""The comparison of tools: what a row says has to agree with what is known about its samples."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import wgan_lip
from wgan_lip.benchmarks import peers, w1
from wgan_lip.critics import ResNetCritic
from wgan_lip.data.oracles import Dilation, Shift
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError

FIGURES = {"value", "lower", "upper", "held_out", "laws", "seconds", "cpu_seconds", "mebibytes", "guarantee", "error"}


def estimate(x, y, *, laws, seconds, tolerance, seed, above=1.0):
    """Stands for `wgan_lip.estimate_w1`: the exact solver, whose certified ends may be moved."""
    solution = solve(x, y)
    torch.manual_seed(seed)
    population = SimpleNamespace(estimate=0.9 * solution.value, lower=0.5, upper=None, level=0.95)
    ends = {"lower": above * solution.lower, "upper": above * solution.upper, "value": above * solution.value}
    return SimpleNamespace(**ends, potential=ResNetCritic(x.shape[1], width=8, depth=1), population=population)


@pytest.fixture
def small(monkeypatch):
    """Small sizes, no processes, and the stand-in for this package's estimate."""
    sizes = {"SAMPLES": 60, "EXACT_SAMPLES": 50, "LARGE_SAMPLES": 80, "LINE_SAMPLES": 500, "STEPS": 3, "DIRECTIONS": 20}
    digits = w1._digits
    monkeypatch.setattr(w1, "_digits", lambda seed: peers.Problem(*(rows[:50] for rows in vars(digits(seed)).values())))
    for name, size in {**sizes, "SINKHORN_ITERATIONS": 30}.items():
        monkeypatch.setattr(w1, name, size)
    monkeypatch.setattr(w1, "RayMonotone", partial(w1.RayMonotone, draws=1000))
    monkeypatch.setattr(w1, "Funnel", partial(w1.Funnel, draws=1000))
    monkeypatch.setattr(w1, "_apart", lambda method, make, limit: w1._row(method, make))
    monkeypatch.setattr(peers, "estimate_lipschitz", partial(peers.estimate_lipschitz, starts=16, steps=4))
    monkeypatch.setattr(wgan_lip, "estimate_w1", estimate)
    monkeypatch.setattr(w1, "fit_critic", partial(w1.fit_critic, steps=2, critic="cones"))


def problem(n=150, dim=2, seed=0):
    return w1._drawn(Dilation(dim=dim), n, n, seed)


def written(out):
    """The cases of results.json, strict JSON."""

    def refuse(constant):
        raise AssertionError(constant)

    return json.loads((out / "results.json").read_text(), parse_constant=refuse)["cases"]


def test_every_row_of_suite_w1_agrees_with_the_exact_solver(small, tmp_path):
    table = w1.measure([0], tmp_path)
    cases = written(tmp_path)
    assert [(case["dim"], case["laws"] is not None) for case in cases] == [(2, False), (16, True), (64, False)]
    for case in cases:
        lower, upper = case["samples"]
        rows = {row["method"]: row for row in case["rows"]}
        assert all(row["failed"].startswith("not installed") for row in rows.values() if "failed" in row)
        measured = {name: row for name, row in rows.items() if "failed" not in row}
        assert len(measured) >= 11 and all(row.keys() >= FIGURES for row in measured.values())
        for row in measured.values():
            assert row["above"] == (row["value"] > upper * (1 + w1.TOLERANCE))
            assert row["error"] == pytest.approx(row["value"] / upper - 1, abs=1e-12)
            if row["lower"] is not None:
                assert row["lower"] <= upper and row["upper"] >= lower  # certified: exact W1 is inside
        assert next(row for name, row in rows.items() if "fit_critic" in name)["value"] <= upper
        for name in ("POT, emd2", "POT, emd2, limit lifted", "wgan_lip, transport.solve"):
            assert rows[name]["value"] == pytest.approx(upper, rel=1e-9) and not rows[name]["above"]
        assert sum("Sinkhorn" in name and row["lower"] is not None for name, row in measured.items()) == 2
        for name, row in measured.items():
            if "sliced" in name:
                assert 0 < row["value"] <= upper * (1 + w1.TOLERANCE)
        assert f"d = {case['dim']}" in table
    assert table.count("| POT, emd2 |") == 3


def test_suite_w1_large_bounds_samples_by_what_is_certified(small, monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "_check_memory", lambda need: None if need < 40 * 60**2 else 1 / 0)
    w1.measure_large([1], tmp_path)
    cases = written(tmp_path)
    assert [case["n"] for case in cases] == [50] * 2 + [500] + [80] * 6
    for case in cases[:2] + cases[3:]:
        assert case["samples"] is None and case["laws"] > 0
        ours, exact, *_ = (row for row in case["rows"] if "emd2" in row["method"] or "estimate_w1" in row["method"])
        if case["n"] == 50:
            assert exact["value"] == pytest.approx(ours["value"], rel=1e-9)
            assert abs(exact["error"]) < 1e-9 and not exact["above"]
        else:
            assert exact["failed"].startswith("ZeroDivisionError")  # stands for too much memory; the others went on
        assert ours["laws_error"] == pytest.approx(0.9 * ours["value"] / case["laws"] - 1)
    for row in cases[2]["rows"]:
        assert abs(row["error"]) < 1e-11


def test_a_value_above_exact_w1_is_flagged():
    truth = {"case": "", "seed": 0, "n": 2, "m": 2, "dim": 1, "samples": (1.0, 1.0), "held_out": (2.0, 2.0)}
    row = {"method": "m", "value": 1.01, "held_out": 2.01, "laws": None, "lower": None, "upper": None, "note": ""}
    row = {**row, "guarantee": "none", "gradient": 1.2, "seconds": 1.0, "cpu_seconds": 1.0, "mebibytes": None}
    (judged,) = w1._judged([row], {**truth, "laws": None})
    assert judged["above"] and judged["held_out_above"]
    assert judged["error"] == pytest.approx(0.01) and judged["laws_error"] == pytest.approx(0.005)
    assert "1.010 ▲ | +1.0 % | 2.010 ▲ | +0.5 %" in w1._table([{**truth, "laws": None, "rows": [judged]}])
    (fair,) = w1._judged([{**row, "value": 1.0 + 1e-12, "held_out": 1.9}], {**truth, "laws": 1.0})
    assert not fair["above"] and not fair["held_out_above"]
    assert fair["laws_error"] == pytest.approx(0.9)


def test_a_gradient_penalty_critic_can_be_above_w1_and_is_then_flagged():
    """Between two points at distance 1 a slope s earns s − 10 (s − 1)², which is greatest at s = 1.05; Adam stays near it."""
    one = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    apart = peers.Problem(one[:1], one[1:], one[:1], one[1:])
    call = partial(peers.gradient_penalty, learning_rate=1e-3, steps=200, seed=0)
    row = {"method": "GP", **w1._measured(call, apart)}
    truth = w1._truth(w1.Case("two points", lambda seed: apart, referee=w1._solved), 0)
    (judged,) = w1._judged([row], truth)
    assert truth["samples"][1] == pytest.approx(1.0, rel=1e-12)
    assert 1.01 < row["value"] < 1.2
    assert row["gradient"] >= row["value"] * (1 - 1e-3)  # the mean slope between the two
    assert judged["above"] and judged["held_out_above"]


def test_certified_intervals_that_contradict_each_other_stop_the_suite(small, monkeypatch, tmp_path):
    monkeypatch.setattr(wgan_lip, "estimate_w1", partial(estimate, above=1.1))
    with pytest.raises(RuntimeError, match="a bug in a proof"):
        w1.measure([0], tmp_path)
    (case,) = written(tmp_path)  # the evidence is on the disk
    assert case["rows"][0]["lower"] > case["samples"][1]


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.5, 100), (0.05, 2)])
@pytest.mark.parametrize("m", [40, 25])
def test_sinkhorn_s_certified_interval_contains_exact_w1(epsilon, iterations, m):
    given = problem(40)
    given = peers.Problem(given.x, given.y[:m], given.x_test, given.y_test)
    row = w1._measured(partial(peers.pot_sinkhorn, epsilon=epsilon, iterations=iterations), given)
    exact = solve(given.x, given.y)
    assert row["lower"] <= exact.upper and row["upper"] >= exact.lower
    assert ("did not converge" in row["note"]) == (iterations == 2)


def test_an_exact_solver_at_its_limit_says_so():
    row = w1._measured(partial(peers.pot_exact, iterations=5), problem())
    assert "warns: numItermax reached" in row["note"]


def test_the_line_is_measured_against_sorting():
    given = problem(400, dim=1)
    lower, upper = w1._sorted(given.x, given.y)
    exact = solve(given.x, given.y)
    assert lower <= exact.upper and exact.lower <= upper
    for call in (peers.pot_line, peers.scipy_line):
        assert call(given)().value == pytest.approx(upper, rel=1e-11)


def test_a_sliced_distance_is_that_of_the_projection_it_can_see():
    """A shift along one axis: every direction sees its cosine, the largest nearly all."""
    x = torch.randn(50, 2, dtype=torch.float64)
    moved = peers.Problem(x, x + torch.tensor([3.0, 0.0]), x, x)
    mean = peers.pot_sliced(moved, directions=400, largest=False, seed=0)().value
    largest = peers.pot_sliced(moved, directions=400, largest=True, seed=0)().value
    assert mean == pytest.approx(3 * 2 / math.pi, rel=0.1)
    assert 2.99 < largest <= 3 * (1 + 1e-9)


def test_clipped_weights_stay_clipped_and_bound_the_slope():
    answer = peers.weight_clipping(problem(), steps=3, seed=0)()
    assert 0 <= answer.gradient <= peers.CLIP**4 * math.sqrt(2) * peers.WIDTH**3.5


@pytest.mark.skipif(not importlib.util.find_spec("deel"), reason="deel-torchlip is not installed")
def test_the_peer_s_critic_is_exported_as_it_was_trained():
    answer = peers.torchlip(problem(), steps=2, seed=0)()
    assert 0 < answer.gradient <= 1.01


def test_an_uninstalled_tool_and_one_that_fails_say_so_in_their_row():
    make = partial(problem, 5)
    absent = w1.Method("absent", ("no_such_module",), peers.pot_exact)
    assert w1._row(absent, make) == {"failed": "not installed: no_such_module"}
    assert w1._row(w1.Method("line", (), refusing), make) == {"failed": "refused: Expected less."}
    assert w1._row(w1.Method("broken", (), broken), make) == {"failed": "ValueError: no"}


def test_what_needs_more_memory_than_there_is_is_refused():
    pytest.importorskip("psutil")
    with pytest.raises(InputError, match="3.73e\\+06 GiB of memory are needed"):
        peers._check_memory(40 * 10**14)


def refusing(given):
    raise InputError("Expected less.")


def broken(given):
    raise ValueError("no")


def busy(given):
    """Takes 200 MiB and gives them back, and as much processor time as it takes time."""
    np.ones(25 * 2**20)
    start = time.process_time()
    while time.process_time() < start + 0.2:
        pass
    return lambda: (np.ones(50 * 2**20), peers.Answer(1.0, "none"))[1]


def crashing(given):
    os._exit(3)


def test_a_measurement_has_a_process_of_its_own():
    make = partial(w1._drawn, Shift(dim=2), 10, 10, 0)
    here = os.getpid()
    row = w1._apart(w1.Method("busy", ("scipy",), busy), make, 60.0)
    assert os.getpid() == here
    assert row["value"] == 1.0 and row["seconds"] >= 0.15 and row["cpu_seconds"] >= 0.2
    assert row["mebibytes"] is None or 195 <= row["mebibytes"] < 230  # not the 400 after the clock has stopped
    assert w1._apart(w1.Method("crash", (), crashing), make, 60.0) == {"failed": "its process ended with status 3"}
    assert w1._apart(w1.Method("slow", (), busy), make, 0.0) == {"failed": "stopped after 0 s"}
