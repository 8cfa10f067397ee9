"""Suite paper: classifiers of every kind are trained and proved, and the tables say what was measured."""

import json
import time
from itertools import count

import pytest

from wgan_lip.benchmarks import paper


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(paper, "MOONS_DEPTHS", (2, 3))
    monkeypatch.setattr(paper, "MOONS_WIDTHS", (6,))
    monkeypatch.setattr(paper, "SEARCHED", 16)
    ticks = count()
    monkeypatch.setattr(time, "process_time", lambda: next(ticks) / 128)  # a step takes one
    monkeypatch.setattr(paper, "run_cases", lambda cases, out: [{**case.labels, **case.measured()} for case in cases])


def test_every_kind_is_trained_and_proved(small, tmp_path):
    table = paper.measure([0], tmp_path, ["data=moons", "seconds=1"])
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    kinds = [(row["family"], row["depth"], row["normalised"]) for row in rows]
    assert kinds == [("A", 2, True), ("A", 2, False), ("A", 3, True), ("A", 3, False), ("B", 2, True), ("B", 3, True)]
    for row in rows:
        assert row["steps"] == 127 and row["accuracy"] > 0.6 and row["slope"] <= row["lipschitz"]
        assert list(row["certified"].values()) == sorted(row["certified"].values(), reverse=True)
        assert row["lipschitz"] <= 1 or not row["normalised"]
    assert "A, growing" in table and (tmp_path / "moons.png").exists()
    assert "moons.png" in (tmp_path / "README.md").read_text()


def test_data_that_are_not_there_are_left_out_with_a_reason(small, tmp_path):
    table = paper.measure([0], tmp_path, ["data=mnist", f"root={tmp_path}"])
    assert "no MNIST/raw in" in table
