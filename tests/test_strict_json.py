"""Every JSON that the package writes is JSON: no NaN, no Infinity, and its readers take what stands in their place."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

import wgan_lip
from wgan_lip.cli import main
from wgan_lip.inspection.look import look_at
from wgan_lip.runs.folder import read_json
from wgan_lip.runs.run import Run
from wgan_lip.utils.files import json_text, write_json


def strictly(text: str):
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_plain_content_becomes_json_with_null_for_what_is_not_finite(content):
    def expected(part):
        if isinstance(part, float) and not math.isfinite(part):
            return None
        if isinstance(part, dict):
            return {key: expected(value) for key, value in part.items()}
        return [expected(value) for value in part] if isinstance(part, list | tuple) else part

    assert strictly(json_text(content)) == expected(content)


def test_only_one_place_writes_json():
    package = Path(wgan_lip.__file__).parent
    uses = {str(path.relative_to(package)) for path in package.rglob("*.py") if "json.dump" in path.read_text("utf-8")}
    compared = {
        "inspection/compare.py",
        "benchmarks/cases.py",
        "benchmarks/browser.py",
    }  # compared, or said to a browser, and not written
    compared |= {f"lipschitz/{name}.py" for name in ("certificates", "check_witness", "proofs")} | {
        "runs/folder.py"
    }  # hashed, or tried
    assert uses == {"utils/files.py", *compared}


def test_a_file_is_read_back_with_null_where_a_number_was_not_finite(tmp_path):
    write_json(tmp_path / "a.json", {"a": math.inf, "b": [math.nan, 1.5]})
    assert (
        strictly((tmp_path / "a.json").read_text()) == read_json(tmp_path / "a.json") == {"a": None, "b": [None, 1.5]}
    )


def test_a_run_on_equal_rows_writes_json_and_is_inspected_and_compared(tmp_path, monkeypatch, capsys):
    """The floor is 0 there, so nothing is so many times the floor; the excess over it is a number all the same."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones((60, 2)))
    assert main(["train", *TINY, "data=file", "data.path=x.npy", "hydra.run.dir=r"]) == 0
    assert "none: floor 0" in capsys.readouterr().out
    for path in Path("r").glob("*.json"):
        strictly(path.read_text())
    for line in Path("r/metrics.jsonl").read_text().splitlines():
        strictly(line)
    run = Run("r")
    assert run.summary["score"]["floor"] == 0 and math.isnan(run.summary["score"]["ratio"])
    assert run.summary["modes"] is None and run.summary["interval"]["lower"] <= run.summary["interval"]["exact"]
    assert any(math.isnan(record.get("eval/w1_over_floor", 0.0)) for record in run.metrics)
    assert look_at(run).standing.score == run.summary["score"]["excess"] > 0
    assert main(["inspect", "run=r", "--json"]) == 0
    assert strictly(capsys.readouterr().out)["summary"]["score"]["ratio"] is None
    assert main(["inspect", "run=r"]) == 0 and (Path("r") / "report.html").exists()
    capsys.readouterr()
    shutil.copytree("r", "s")
    capsys.readouterr()
    assert main(["compare", "runs=[r,s]", "--json"]) == 0
    assert [row["score"] for row in strictly(capsys.readouterr().out)["runs"]] == 2 * [run.summary["score"]["excess"]]
