"""`wgan-lip estimate` with groups, histograms and columns in standard deviations."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import ot
import pytest
import torch

from wgan_lip.cli import main
from wgan_lip.data import TableOptions, open_samples, read_array
from wgan_lip.data.readers import read_file
from wgan_lip.utils.checks import InputError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def table() -> np.ndarray:
    """iris.csv: two columns of numbers about a column of text. Returns the numbers; the kinds alternate."""
    numbers = np.random.default_rng(0).normal(size=(30, 2)).round(6)
    numbers[::2] += 4
    lines = [f"{a},{'oak' if row % 2 else 'ash'},{b}" for row, (a, b) in enumerate(numbers)]
    Path("trees.csv").write_text("\n".join(["height,kind,width", *lines]) + "\n")
    return numbers


def result() -> tuple[dict, Path]:
    (directory,) = Path("outputs/estimate").iterdir()
    return json.loads((directory / "result.json").read_text()), directory


def w1(x, y) -> float:
    return ot.emd2([], [], np.linalg.norm(x[:, None] - y[None], axis=2))


def test_groups_of_a_table(table, capsys):
    assert main(["estimate", "x=trees.csv", "by=kind", "device=cpu"]) == 0
    found, directory = result()
    expected = w1(table[::2], table[1::2])
    assert found["groups"] == ["ash", "oak"] and found["sizes"] == [15, 15] and found["by"] == "kind"
    assert found["exact"][0][1] == pytest.approx(expected, rel=1e-12)
    (row,) = csv.DictReader((directory / "pairs.csv").read_text().splitlines())
    assert float(row["exact"]) == found["exact"][0][1] and float(row["excess"]) == found["excess"][0][1]
    assert {"w1.png", "excess.png", "status.json"} <= {path.name for path in directory.iterdir()}
    screen = capsys.readouterr().out
    assert "| ash | 0 |" in screen and "pairs.csv" in screen and "ash – oak" in screen


def test_what_groups_can_not_be_made_of_is_refused_before_anything_is_written(table, capsys):
    np.save("x.npy", table), np.save("h.npy", np.abs(table))
    for arguments, message in (
        (["x=trees.csv", "by=sort"], "trees.csv has no column 'sort'. Its columns: height, kind, width"),
        (["x=trees.csv", "y=trees.csv", "by=kind"], "does not take y"),
        (["x=x.npy", "by=kind"], "does not take by"),
        (["x=data/moons", "by=kind"], "data/moons is not a table, and does not take by"),
        (["x=data/digits", "by=kind"], "by=class"),
        (["x=trees.csv", "by=height"], "'ash' in column 2 (kind)"),
        (["x=data/moons", "y=data/moons", "standardise=sd"], "samples in memory on both sides"),
        (["x=x.npy", "y=x.npy", "standardise=range"], "sd, mad"),
        (["x=x.npy", "grid=true"], "y is missing"),
        (["x=x.npy", "y=x.npy", "grid=true"], "must be finite and at least 0"),
        (["x=x.npy", "y=x.npy", "grid=true", "standardise=sd"], "does not take standardise"),
        (["x=h.npy", "y=h.npy", "grid=true", "spacing=[1,2,3]"], "one for each of the 2"),
    ):
        assert main(["estimate", *arguments]) == 2, arguments
        told = capsys.readouterr().err
        assert message in told and len(told.strip().splitlines()) == 1, told
    assert not [path for path in Path("outputs").rglob("*") if path.is_file()]


def test_histograms(capsys):
    x, y = np.zeros((2, 12, 10, 2))
    x[2, 3, 0], y[8, 7, 0], y[8, 7, 1] = 4, 1, 1
    np.save("x.npy", x), np.save("y.npy", y)
    assert main(["estimate", "x=x.npy", "y=y.npy", "grid=true", "spacing=[0.5,1,2]", "critic=null"]) == 0
    found, _ = result()
    assert found["exact"] == pytest.approx((5 + np.sqrt(9 + 16 + 4)) / 2)
    assert any("4 in x and 2 in y" in note for note in found["notes"]) and found["units"] == "the unit of spacing"


def test_columns_in_standard_deviations(table):
    Path("a.csv").write_text("m,s\n" + "\n".join(f"{a / 1000},{b}" for a, b in table) + "\n")
    Path("b.csv").write_text("s,m\n" + "\n".join(f"{b},{a / 1000 + 1}" for a, b in table) + "\n")
    assert main(["estimate", "x=a.csv", "y=b.csv", "standardise=sd", "critic=null"]) == 0
    found, _ = result()
    assert found["exact"] == pytest.approx(
        1000 / np.sqrt(((table[:, 0] - table[:, 0].mean()) ** 2).sum() / 29), rel=1e-4
    )
    assert found["units"] == "pooled standard deviations" and any(
        "divided by their spread" in n for n in found["notes"]
    )


def test_labels_are_read_of_text_parquet_and_h5ad(table):
    pyarrow = pytest.importorskip("pyarrow")
    h5py = pytest.importorskip("h5py")
    from pyarrow import parquet

    kinds = ["ash", "oak"] * 15
    for by in ("kind", 1):
        read = read_file("trees.csv", options=TableOptions(by=by))
        assert read.labels == tuple(kinds) and read.names == ("height", "width")
        assert np.array_equal(read.values, table)
    columns = {"height": table[:, 0], "kind": pyarrow.array(kinds).dictionary_encode(), "width": table[:, 1]}
    parquet.write_table(pyarrow.table(columns), "trees.parquet")
    read = read_file("trees.parquet", options=TableOptions(by="kind"))
    assert read.labels == tuple(kinds) and np.array_equal(read.values, table)
    with h5py.File("trees.h5ad", "w") as file:
        file["X"] = table
        var, obs = file.create_group("var"), file.create_group("obs")
        var["_index"], obs["_index"] = ["height", "width"], [str(row) for row in range(30)]
        obs["site"] = np.arange(30) % 3
        kind = obs.create_group("kind")
        kind.attrs["encoding-type"] = "categorical"
        kind["categories"], kind["codes"] = ["ash", "oak"], np.array([-1, 1] + [0, 1] * 14)
    read = read_file("trees.h5ad", options=TableOptions(by="kind"))
    assert read.labels == (None, *kinds[1:]) and read.names == ("height", "width")
    assert read_file("trees.h5ad", options=TableOptions(by="site")).labels[:4] == (0, 1, 2, 0)
    with pytest.raises(InputError, match="obs of trees.h5ad has no column 'tree'. It has kind, site"):
        read_file("trees.h5ad", options=TableOptions(by="tree"))
    with h5py.File("trees.h5ad", "a") as file:
        file["obs/kind/codes"][3] = 7
    with pytest.raises(InputError, match="categories that are not listed"):
        read_file("trees.h5ad", options=TableOptions(by="kind"))


def test_classes_of_a_set_are_its_labels():
    digits = open_samples("data/digits:0-1")
    assert set(digits.labels) == {0, 1} and len(digits.labels) == len(digits.rows)
    ones = digits.rows[torch.tensor(digits.labels) == 1]
    assert torch.equal(ones, open_samples("data/digits:1").rows)


def test_arrays_of_any_shape_are_read():
    np.save("x.npy", np.arange(24.0).reshape(2, 3, 4))
    assert read_array("x.npy").shape == (2, 3, 4)
    Path("x.csv").write_text("1,2,3\n4,5,6.5\n")
    assert read_array("x.csv", options=TableOptions(header=False)).tolist() == [[1, 2, 3], [4, 5, 6.5]]
