"""Suites witness and witness_large: every witness is proved, and the time is that of the checker's own process."""

from __future__ import annotations

import pytest

from wgan_lip.benchmarks import witness
from wgan_lip.runs.folder import read_json


@pytest.mark.parametrize("suite", ["measure", "measure_large"])
def test_every_witness_is_proved_and_timed(suite, monkeypatch, tmp_path):
    monkeypatch.setattr(witness, "POINTS", (20, 50))
    monkeypatch.setattr(witness, "MANY", (60,))
    table = getattr(witness, suite)(seeds=[0], out=tmp_path)
    rows = read_json(tmp_path / "results.json")["rows"]
    assert [row.get("n") for row in rows] == ([None, None, 20, 50] if suite == "measure" else [60])
    for row in rows:
        assert row["line"].startswith("PROVED: ") and row["line"] in table
        assert row["cpu_seconds"] > 0 and row["bytes"] > 1000
    assert table in (tmp_path / "README.md").read_text(encoding="utf-8")
