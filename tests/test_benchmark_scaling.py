"""Suite scaling: its tools agree, its pieces are chosen by overrides, and its table holds them."""

import json

import pytest

from wgan_lip.benchmarks import scaling
from wgan_lip.utils.checks import InputError


def test_a_piece_of_the_grid_is_measured_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "SECONDS", 0.0)
    table = scaling.measure([0], tmp_path, ["dims=2,20", "sizes=20,30"])
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(row["dim"], row["n"]) for row in results["rows"]] == [(2, 20), (2, 30), (20, 20), (20, 30)]
    assert all(set(row["seconds"]) == {"POT", "solve", "w1"} and row["turns"] == 3 for row in results["rows"])
    assert "'sizes=20,30'" in results["command"]
    assert table.count("\n| 2") >= 4 and "Growth in n, d = 20, from 20 to 30" in table


@pytest.mark.parametrize("override", ["dim=2", "sizes=", "dims=two", "dims=0"])
def test_other_overrides_are_refused(tmp_path, override):
    with pytest.raises(InputError, match="Expected overrides like 'dims=2,16'"):
        scaling.measure([0], tmp_path, [override])


def test_tools_that_disagree_stop_the_suite():
    with pytest.raises(RuntimeError, match="disagree"):
        scaling._measured({"POT": lambda: 1.0, "solve": lambda: 1.001})
