"""Suite scaling_large: its intervals hold exact W1, its pairs are narrowed as far as asked, its table holds them."""

import json

import pytest
import torch

from wgan_lip.benchmarks import scaling_large
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError


def test_large_pairs_are_narrowed_as_far_as_asked_and_their_history_is_kept(tmp_path, monkeypatch):
    pairs = {"near": ("gaussians", 3, 2500, 0.5), "all": ("gaussians", 2, 300, 0.0), "rays": ("funnels", 2, 200, 0.0)}
    monkeypatch.setattr(scaling_large, "PAIRS", pairs)

    def run_cases(cases, out, *, workers):
        assert workers == 1 and len({case.name for case in cases}) == len(cases)
        json.dumps([case.settings() for case in cases])
        rows = [{**case.labels, **case.measured()} for case in cases]
        assert all("CPU s" in case.in_words(row) for case, row in zip(cases, rows))
        return rows

    monkeypatch.setattr(scaling_large, "run_cases", run_cases)
    threads = torch.get_num_threads()
    table = scaling_large.measure([3], tmp_path, ["cores=1", "seconds=100"])
    assert torch.get_num_threads() == threads
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [(row["pair"], row["dim"], row["n"]) for row in rows] == [pair[:3] for pair in pairs.values()]
    for row in rows:
        x, y = scaling_large._pair(*(row[key] for key in ("pair", "dim", "n", "seed")))
        truth = solve(x, y)
        for told in row["history"]:
            assert told["lower"] <= truth.upper and truth.lower <= told["upper"]
            assert 0 <= told["seconds"] < 100 and told["cpu_seconds"] >= 0
    assert not rows[0]["optimal"] and rows[0]["upper"] - rows[0]["lower"] <= 0.5 * rows[0]["upper"]
    assert rows[1]["optimal"] and rows[2]["optimal"] and table.count("optimal") == 2
    page = (tmp_path / "README.md").read_text()
    assert table.strip() in page and "'cores=1'" in page
    assert all(page.count(f"| {told['stage']} |") for row in rows for told in row["history"])
    assert "| gaussians | 3 | 2,500 | [" in table


@pytest.mark.parametrize("override", ["pairs=some", "seconds=0", "cores=0", "dims=2"])
def test_other_overrides_of_the_large_suite_are_refused(tmp_path, override):
    with pytest.raises(InputError):
        scaling_large.measure([0], tmp_path, [override])
