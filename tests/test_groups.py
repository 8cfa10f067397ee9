"""W1 between all pairs of groups, against exact transport on each pair; labels from arrays, frames and AnnData."""

from __future__ import annotations

import csv
import io
import itertools
import math

import numpy as np
import ot
import pytest
import torch

import wgan_lip
from wgan_lip import figures
from wgan_lip.utils.checks import InputError
from wgan_lip.wasserstein.groups import PairwiseW1, pairwise_w1


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    labels = np.array(["T", "B", "NK"] * 40)
    shift = {"T": 0.0, "B": 3.0, "NK": 0.0}
    return rng.normal(size=(120, 2)) + np.array([shift[label] for label in labels])[:, None], labels


def w1(x, y) -> float:
    return ot.emd2([], [], np.linalg.norm(x[:, None] - y[None], axis=2))


def test_every_pair_is_enclosed(cells):
    samples, labels = cells
    seen = []
    found = pairwise_w1(samples, labels, on_pair=lambda done, total: seen.append((done, total)))
    assert found.names == ("B", "NK", "T") and found.sizes == found.used == (40, 40, 40)
    for i, j in itertools.combinations(range(3), 2):
        expected = w1(samples[labels == found.names[i]], samples[labels == found.names[j]])
        assert found.lower[i, j] <= expected * (1 + 1e-14) and expected <= found.upper[i, j] * (1 + 1e-14)
        assert found.exact[i, j] == pytest.approx(expected, rel=1e-12)
    for matrix in (found.lower, found.value, found.upper, found.excess):
        assert (matrix == matrix.T).all() and (np.diag(matrix) == 0).all()
    assert seen == [(1, 3), (2, 3), (3, 3)]
    apart = 3 * math.sqrt(2)  # of the laws
    assert 0.7 * apart < found.excess[0, 2] < apart and abs(found.excess[1, 2]) < 0.3  # less by the floor of few
    assert "Farthest" in str(found) and "B – " in str(found)


def test_table_csv_and_pictures_say_the_same(cells, tmp_path):
    found = pairwise_w1(*cells, excess=False)
    rows = list(csv.DictReader(io.StringIO(found.save_csv(tmp_path / "pairs.csv").read_text())))
    assert [(row["group_x"], row["group_y"]) for row in rows] == [("B", "NK"), ("B", "T"), ("NK", "T")]
    assert [float(row["exact"]) for row in rows] == [found.exact[pair] for pair in found.pairs]
    assert all(row["excess"] == "" for row in rows)
    table = found.table("upper", digits=6).splitlines()
    assert table[0] == "|  | B | NK | T |" and table[2].startswith("| B | 0")
    assert float(table[2].split("|")[3]) == pytest.approx(found.upper[0, 1], rel=1e-5)
    assert "W1 of all pairs" in found._repr_html_()
    assert figures.to_array(figures.distance_matrix(found.value, found.names)).ndim == 3
    assert found.as_dict()["value"] == found.value.tolist()
    with pytest.raises(InputError, match="'median'.*lower, exact, value, upper, excess"):
        found.table("median")


def test_a_heat_map_of_signed_values_with_gaps_is_drawn():
    values = np.array([[0, -0.1, math.nan], [-0.1, 0, 2], [math.nan, 2, 0]])
    picture = figures.to_array(figures.distance_matrix(values, ["a", "b", "c"], quantity="excess"))
    assert picture.std() > 0
    assert figures.to_array(figures.distance_matrix(np.zeros((2, 2)), ["a", "b"])).ndim == 3


def test_names_cannot_break_a_page():
    labels = ["<script>alert(1)</script>", "b\x1b[2J|c"]
    found = pairwise_w1(np.arange(4.0), [labels[0]] * 2 + [labels[1]] * 2)
    page = found._repr_html_() + found.table()
    assert "<script>alert" not in found._repr_html_() and "\x1b" not in page


def test_groups_of_a_frame_by_the_name_of_a_column(cells):
    pandas = pytest.importorskip("pandas")
    samples, labels = cells
    frame = pandas.DataFrame({"cd4": samples[:, 0], "kind": labels, "cd8": samples[:, 1]})
    expected = pairwise_w1(*cells)
    assert pairwise_w1(frame, "kind").value.tolist() == expected.value.tolist()
    frame["kind"] = pandas.Categorical(frame["kind"], categories=["T", "unseen", "NK", "B"])
    assert pairwise_w1(frame, "kind").names == ("T", "NK", "B")
    with pytest.raises(InputError, match="no column 'type'. It has cd4, kind, cd8"):
        pairwise_w1(frame, "type")


def test_groups_of_an_arrow_table(cells):
    pyarrow = pytest.importorskip("pyarrow")
    samples, labels = cells
    table = pyarrow.table({"a": samples[:, 0], "kind": labels.tolist(), "b": samples[:, 1]})
    assert pairwise_w1(table, "kind").value.tolist() == pairwise_w1(*cells).value.tolist()


def test_groups_of_anndata_by_obs(cells):
    anndata = pytest.importorskip("anndata")
    pandas = pytest.importorskip("pandas")
    samples, labels = cells
    obs = pandas.DataFrame({"cell_type": pandas.Categorical(labels)}, index=[f"c{i}" for i in range(120)])
    data = anndata.AnnData(samples, obs=obs)
    assert pairwise_w1(data, "cell_type").value.tolist() == pairwise_w1(*cells).value.tolist()
    with pytest.raises(InputError, match="obs has no column 'batch'. It has cell_type"):
        pairwise_w1(data, "batch")


def test_numbers_are_sorted_as_numbers_and_missing_labels_left_out():
    found = pairwise_w1(np.arange(9.0), [10, 10, 9, 9, math.nan, None, 2, 2, ""], excess=False)
    assert found.names == ("2", "9", "10") and "3 of 9 samples have no label" in found.notes[0]
    assert found.value[0, 2] == 6
    assert pairwise_w1(np.arange(5.0), torch.tensor([1, 1, 0, 0, 5])).notes[0].endswith("left out: 5.")


def test_large_groups_are_drawn_from_to_one_size():
    rng = np.random.default_rng(1)
    samples, labels = rng.normal(size=(330, 3)), ["a"] * 200 + ["b"] * 100 + ["c"] * 30
    found = pairwise_w1(samples, labels, size=50)
    assert found.sizes == (200, 100, 30) and found.used == (50, 50, 30)
    assert any("50 samples were drawn" in note for note in found.notes) and any(
        "30 to 50" in note for note in found.notes
    )
    again, whole = pairwise_w1(samples, labels, size=50), pairwise_w1(samples, labels, size=None)
    assert again.value.tolist() == found.value.tolist() and whole.used == (200, 100, 30)
    assert whole.value[0, 1] == pytest.approx(w1(samples[:200], samples[200:300]), rel=1e-12)


def test_in_standard_deviations(cells):
    samples, labels = cells
    found = pairwise_w1(samples * [1e-3, 1e4], labels, standardise="sd")
    means = np.stack([samples[labels == name] - samples[labels == name].mean(axis=0) for name in np.unique(labels)])
    scale = np.sqrt((means**2).sum(axis=(0, 1)) / (120 - 3))
    parts = [samples[labels == name] / scale for name in ("B", "T")]
    assert found.units == "pooled standard deviations"
    assert found.value[0, 2] == pytest.approx(w1(*parts), rel=1e-9)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["a", "b"], {}, "one label for each of 6 samples, not 2"),
        (["a"] * 6, {}, "two groups.*Found 1: a"),
        (["a"] * 5 + ["b"], {}, "two groups.*Found 1: a"),
        ([None] * 6, {}, "Found 0: none"),
        ([["a"]] * 6, {}, "single values"),
        ("kind", {}, "Only a data frame can have a column 'kind'"),
        (list("aabbcc"), {"size": 1}, "size must be an integer of at least 2.* not 1"),
        (list("aabbcc"), {"seconds": 0}, "seconds must be positive, not 0"),
        (list("aabbcc"), {"standardise": "max"}, "sd, mad"),
    ],
)
def test_bad_groups_are_refused(labels, options, message):
    with pytest.raises(InputError, match=message):
        wgan_lip.pairwise_w1(np.arange(12.0).reshape(6, 2), labels, **options)


def test_a_column_of_numbers_makes_no_groups():
    with pytest.raises(InputError, match=r"200 different labels: 0, 1, 2 and 197 more. Bin them into at most 100"):
        pairwise_w1(np.zeros((200, 2)), np.arange(200))
    assert isinstance(pairwise_w1(np.arange(4.0), [0, 0, 1, 1]), PairwiseW1)
