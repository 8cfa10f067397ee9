"""Suites scaling and calls: tools agree, pieces are chosen by overrides, tables hold what was measured."""

import json

import numpy as np
import pytest

from wgan_lip.benchmarks import calls, machine, scaling
from wgan_lip.cli import main
from wgan_lip.utils.checks import InputError

TOOLS = {"POT", "POT lazy", "SciPy", "solve", "w1"}


def test_a_piece_of_the_grid_is_measured_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "SECONDS", 0.0)
    table = scaling.measure([0], tmp_path, ["dims=2,20", "sizes=20,30"])
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(row["dim"], row["n"]) for row in results["rows"]] == [(2, 20), (2, 30), (20, 20), (20, 30)]
    assert all(set(row["seconds"]) == TOOLS and row["turns"] == 3 for row in results["rows"])
    assert "'sizes=20,30'" in results["command"]
    assert table.count("\n| 2") >= 4 and "Growth in n, d = 20, from 20 to 30" in table


@pytest.mark.parametrize("override", ["dim=2", "sizes=", "dims=two", "dims=0"])
def test_other_overrides_are_refused(tmp_path, override):
    with pytest.raises(InputError, match="Overrides must be like 'dims=2,16'"):
        scaling.measure([0], tmp_path, [override])


def test_tools_that_approximate_are_told_with_their_error_and_the_faster_ones_by_name():
    exact = {"POT": 2.0, "POT lazy": 3.0, "SciPy": 0.5, "solve": 1.0, "w1": 4.0}
    row = {"dim": 3, "n": 50, "w1": 2.0, "turns": 3, "seconds": exact, "ratios": {"solve": 0.5, "w1": 2.0}}
    table = scaling._table([{**row, "approximate": {"GeomLoss": {"value": 1.5, "seconds": 0.25}}}])
    assert "| **500** |" in table and "250 ms, -25.0%" in table
    assert "SciPy is faster at (d, n) = (3, 50) by 2.00" in table


def test_many_samples_are_for_the_tools_that_take_them(monkeypatch):
    monkeypatch.setattr(scaling, "SLOW", 20)
    tools = scaling._tools(*scaling._pair(3, 21, 0))
    assert tools.keys() == {"POT", "solve", "w1", "narrow"}
    assert tools["narrow"]() == pytest.approx(tools["POT"]())
    row = {"dim": 3, "n": 21, "w1": 2.0, "turns": 3, "ratios": {"solve": 0.5, "w1": 2.0}, "approximate": {}}
    few = {**row, "n": 10, "seconds": {"POT": 1.0, "SciPy": 2.0, "solve": 0.5, "w1": 0.5}}
    table = scaling._table([few, {**row, "seconds": {"POT": 1.0, "solve": 1.0, "w1": 1.0, "narrow": 0.25}}])
    assert "| 3 | 21 | 1000 |  | 1000 | 1000 | **250** |" in table and "nowhere here" in table


def test_tools_that_are_not_installed_are_left_out(monkeypatch):
    monkeypatch.setattr(scaling, "find_spec", lambda name: None)
    assert scaling._approximate(*scaling._pair(2, 20, 0), 1.0) == {}


def test_tools_that_disagree_stop_the_suite():
    with pytest.raises(RuntimeError, match="disagree"):
        scaling._measured({"POT": lambda: 1.0, "solve": lambda: 1.001})


def test_every_call_and_the_command_get_their_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(calls, "PAIRS", ((30, 2), (20, 3)))
    monkeypatch.setattr(calls, "SECONDS", 0.0)
    monkeypatch.setattr(calls, "LIMITED", ((40, 20, 3, 5.0),))
    genuine, ran = calls._calls, []
    quick = ("ot.emd2", "SciPy's assignment", "w1", "estimate_w1", "two_sample_test", "sliced_w1")
    monkeypatch.setattr(calls, "_calls", lambda x, y: {name: genuine(x, y)[name] for name in quick})
    monkeypatch.setattr(calls, "_command", lambda x, y: ran.append(x.shape))
    table = calls.measure([0], tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    (first, second), (limited,) = results["rows"], results["limited"]
    assert limited["given"] == 5 and 0 < limited["taken"] < 60 and 0 < limited["lower"] <= limited["upper"]
    assert "| 40 | 20 | 3 | 5 |" in table
    assert set(first["seconds"]) == set(second["seconds"]) | {calls.COMMAND} and ran == [(30, 2)] * 3
    assert "| estimate_w1 |" in table and "20 + 20, d = 3" in table
    assert genuine(np.zeros((2, 1)), np.zeros((2, 1))).keys() - set(quick) == {"estimate_w1, laws=True"}


def test_the_command_that_is_timed_is_that_of_the_default_call(monkeypatch):
    def run(command, *, cwd, **settings):
        assert command[1:4] == ["-m", "wgan_lip", "estimate"] and settings["check"]
        assert main(["estimate", "--cfg=job", *command[4:]]) == 0
        assert np.load(f"{cwd}/x.npy").shape == (20, 2) and np.load(f"{cwd}/y.npy").shape == (30, 2)
        ran.append(cwd)

    ran = []
    monkeypatch.setattr(calls, "run", run)
    calls._command(np.zeros((20, 2)), np.zeros((30, 2)))
    assert ran


def test_turns_end_by_their_number_or_by_time():
    spin = {"spin": lambda: sum(range(10**5)), "rest": lambda: None}
    assert len(machine.turns_of(spin, turns=5, seconds=60.0)) == 5
    assert len(machine.turns_of(spin, turns=5, seconds=0.0)) == 3
    found = machine.in_turns(spin, turns=3, seconds=0.0)
    assert found["spin"] > found["rest"] >= 0
