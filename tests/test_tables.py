"""Tables as people have them: dialects, headers of numbers, row names, gaps; Parquet, .h5ad, sparse and frames."""

from __future__ import annotations

import gzip
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from wgan_lip import estimate_w1, load_run
from wgan_lip.cli import main
from wgan_lip.data import TableOptions, TensorSource, VectorFile, matched, open_samples, read_file, read_samples
from wgan_lip.utils.checks import InputError, check_pair, check_samples

MATRIX = np.array([[1.5, -2.0, 3e-7], [0.25, 4.25, 5.0], [6.0, 7.0, -8.125], [9.0, 1e6, 0.1]])


def written(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path, **options) -> str:
    """The message, one line that names the file, with which it is refused."""
    with pytest.raises(InputError) as caught:
        read_file(path, options=TableOptions(**options))
    assert "\n" not in str(caught.value) and path.name in str(caught.value)
    return str(caught.value)


# --- text: what is clear is read --------------------------------------------------------------------------------------

TWO = [[1.5, 2.0], [3.0, 4.25]]
CLEAR = {
    "comma": ("t.csv", "a,b\n1.5,2\n3,4.25\n", TWO, ("a", "b")),
    "semicolon, decimal comma": ("t.csv", "a;b\n1,5;2\n3;4,25\n", TWO, ("a", "b")),
    "semicolon, decimal comma, no names": ("t.csv", "1,5;2,0\n3,0;4,25\n", TWO, None),
    "semicolon, decimal point": ("t.csv", "a;b\n1.5;2\n3;4.25\n", TWO, ("a", "b")),
    "Excel's first line": ("t.csv", "sep=;\r\na;b\r\n1,5;2\r\n3;4,25\r\n", TWO, ("a", "b")),
    "quoted decimal commas": ("t.csv", '"a","b"\n"1,5","2,0"\n"3,0","4,25"\n', TWO, ("a", "b")),
    "tab": ("t.tsv", "a\tb\n1.5\t2\n3\t4.25\n", TWO, ("a", "b")),
    "tab in .csv": ("t.csv", "a\tb\n1,5\t2\n3\t4,25\n", TWO, ("a", "b")),
    "pipe": ("t.txt", "a|b\n1.5|2\n3|4.25\n", TWO, ("a", "b")),
    "runs of blanks": ("t.txt", "   1.5   2\n   3.0 4.25\n", TWO, None),
    "blanks, decimal comma": ("t.txt", "a b\n1,5 2,5\n3,5 4,25\n", [[1.5, 2.5], [3.5, 4.25]], ("a", "b")),
    "comma and blank": ("t.txt", "a, b\n1.5, 2\n3, 4.25\n", TWO, ("a", "b")),
    "numpy's header": ("t.txt", "# a b\n1.5e+00 2.0e+00\n3.0e+00 4.25e+00\n", TWO, ("a", "b")),
    "a comment": ("t.csv", "# of 2020, by hand\n\na,b\n1.5,2\n3,4.25\n", TWO, ("a", "b")),
    "names with delimiters": ("t.csv", '"a, 1","b\n2"\n1.5,2\n3,4.25\n', TWO, ("a, 1", "b\n2")),
    "delimiters at the ends": ("t.csv", "a,b,\n1.5,2,\n3,4.25,\n", TWO, ("a", "b")),
    "signs, bare points": ("t.csv", "+1.5,2.\n3,+4.25\n", TWO, None),
    "old Macintosh": ("t.csv", "a,b\r1.5,2\r3,4.25\r", TWO, ("a", "b")),
    "UTF-8 with a mark": ("t.csv", "\ufeffa,b\n1.5,2\n3,4.25".encode(), TWO, ("a", "b")),
    "UTF-16": ("t.csv", "ä,b\n1.5,2\n3,4.25".encode("utf-16"), TWO, ("ä", "b")),
    "UTF-16 without a mark": ("t.csv", "ä,b\n1.5,2\n3,4.25".encode("utf-16-be"), TWO, ("ä", "b")),
    "UTF-32": ("t.csv", "ä,b\n1.5,2\n3,4.25".encode("utf-32"), TWO, ("ä", "b")),
    "Latin-1": ("t.csv", "ä,b\n1.5,2\n3,4.25".encode("latin-1"), TWO, ("ä", "b")),
    "gzip": ("t.csv.gz", gzip.compress(b"a,b\n1.5,2\n3,4.25"), TWO, ("a", "b")),
    "gzip, by its content": ("t.txt", gzip.compress(b"a b\n1.5 2\n3 4.25"), TWO, ("a", "b")),
    "index of pandas": ("t.csv", ",a,b\n7,1.5,2\n3,3,4.25\n", TWO, ("a", "b")),
    "index of pandas, read and written again": ("t.csv", "Unnamed: 0,a,b\n0,1.5,2\n1,3,4.25\n", TWO, ("a", "b")),
    "dates of pandas": ("t.csv", ",a,b\n2020-01-01,1.5,2\n2020-01-02,3,4.25\n", TWO, ("a", "b")),
    "row names of R": ("t.csv", '"","a","b"\n"1",1.5,2\n"2",3,4.25\n', TWO, ("a", "b")),
    "row names of R, none above them": ("t.csv", '"a","b"\n"1",1.5,2\n"2",3,4.25\n', TWO, ("a", "b")),
    "text names rows, none above it": ("t.txt", "a b\nS1 1.5 2\nS2 3 4.25\n", TWO, ("a", "b")),
    "German row names": ("t.csv", ";a;b\nS1;1,5;2\nS2;3;4,25\n", TWO, ("a", "b")),
    "pandas numbers columns": ("t.csv", "0,1\n1.5,2.0\n3.0,4.25\n5.5,6.5\n", [*TWO, [5.5, 6.5]], ("0", "1")),
    "names in quotes, of numbers": ("t.csv", '"7","9"\n1.5,2\n3,4.25\n', TWO, ("7", "9")),
    "years, beside an index": ("t.csv", ",2019,2020\n0,1.5,2\n1,3,4.25\n", TWO, ("2019", "2020")),
    "one column": ("t.txt", "height\n1.5\n3\n", [[1.5], [3.0]], ("height",)),
    "a whole one": ("t.csv", "4\n2\n7\n", [[4.0], [2.0], [7.0]], None),
    "whole numbers": ("t.csv", "1,2\n3,4\n", [[1.0, 2.0], [3.0, 4.0]], None),
    "a grid": ("t.csv", "0,0\n0,1\n1,0\n1,1\n", [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], None),
}


@pytest.mark.parametrize("kind", CLEAR)
def test_a_clear_table_is_read(tmp_path, kind):
    name, text, values, names = CLEAR[kind]
    read = read_file(written(tmp_path, text, name))
    assert read.values.dtype == torch.float64 and read.values.tolist() == values
    assert read.names == names


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2), min_size=2),
    st.sampled_from([(",", "."), (";", ","), ("\t", ","), (" ", ".")]),
)
def test_every_float_is_read_to_the_last_bit(tmp_path_factory, rows, dialect):
    between, mark = dialect
    text = "\n".join(between.join(repr(value).replace(".", mark) for value in row) for row in rows)
    path = written(tmp_path_factory.mktemp("floats"), f"a{between}b\n{text}\n", "t.txt")
    assert np.array_equal(read_samples(path).numpy(), np.array(rows))


# --- text: what is not clear is refused, with the choice --------------------------------------------------------------

UNCLEAR = {
    "0, 1, 2 above whole numbers": (
        "0,1,2\n3,4,5\n6,7,8\n",
        "0, 1, 2, may hold names: it holds 0, 1",
        "header=true or",
    ),
    "1, 2, 3 above whole numbers": ("1,2,3\n3,4,5\n9,7,8\n", "may hold names", "header=true or header=false"),
    "a numbered column": ("0\n3\n5\n", "may hold names", "header=true or header=false"),
    "years": ("2019,2020\n12,15\n13,11\n", "2019, 2020, may hold names: it holds years", "header="),
    "one year": ("2020\n12\n15\n13\n", "may hold names: it holds years", "header="),
    "wavelengths": ("400.0,400.5,401.0,401.5\n1.5,1.25,2.5,0.5\n2.5,1.5,1.25,0.5\n", "its numbers rise", "header="),
    "identifiers": ("7157,672\n1,5\n3,4\n2,2\n7,1\n0,4\n", "lies far from all rows below", "header="),
    "another programme's numbers": ("7,3\n1.25,2.5\n3.75,4.25\n", "written in another way", "header="),
    "a named column that counts": ("id,a\n0,1.5\n1,2.5\n2,0.5\n", "The first column of", "index=true where it"),
    "row numbers in another order": (
        "3,1.5\n0,2.5\n5,0.5\n1,0.25\n4,7.5\n2,0.5\n",
        "each once of 0, 1",
        "index=false where it",
    ),
    "numbers of the rows that were kept": ("index,a\n7,1.5\n3,2.5\n12,0.5\n", "column of", "index=true where it"),
    "row numbers of R, read and written again": ("X,a\n10,1.5\n30,2.5\n20,0.5\n", ", X, holds another", "index=true"),
    "a column that counts": ("1,1.5\n2,2.5\n3,0.5\n4,0.25\n", "counts 1, 2", "index=false where it"),
    "unnamed coordinates": (",a\n0.5,1.5\n1.5,2.5\n", "has no name, though the others have", "index=true"),
    "fewer names": ("a,b\n1,5,2,5\n1,7,2,8\n", "Got 2 names above rows of 4 cells", "decimal=comma"),
    "more names": ("a,b,c\n1.5,2\n1.5,7\n", "Got 3 names above rows of 2 cells", "Repair the first line"),
    "one name above 1,75": ("height\n1,75\n1,80\n", "can be read in two ways", "delimiter=comma decimal=point, or"),
    "halves of decimals": ("-0,52\n1,05\n1,7\n", "commas in", "decimal=comma, or decimal=point"),
    "halves of long decimals": ("1,25e9\n2,71e8\n", "commas in", "decimal=comma, or decimal=point"),
    "thousands or decimals": ('"1,234","5,678"\n"2,345","6,789"\n', "set off decimals or thousands", "decimal=comma"),
    "German thousands": ("a;b\n1.234;5.678\n2.345;6.789\n", "set off decimals or thousands", "decimal=point"),
    "names repeated": (",0,1\n0,1.5,2.5\n,0,1\n1,3.5,0.5\n", "repeats the first line, 0, 1", "Leave it out"),
    "a first row of gaps": ("NA,NA\n1.5,2\n", "'NA' in column 1, line 1", "Fill gaps"),
    "an empty line in a column": ("1.5\n\n2.5\n", "'' in column 1, line 2", "Fill gaps"),
    "text": ("a,b\n1.5,2\n3,x\n", "'x' in column 2 (b), line 3", "drop="),
    "named text in front": ("sample,b\nS1,2\nS2,3\n", "'S1' in column 1 (sample), line 2", "index="),
    "text in front": ("S1,2\nS2,3\n", "'S1' in column 1, line 1", "index="),
    "grouped digits": ("1_000,2\n3,4\n", "'1_000' in column 1, line 1", "Fill gaps"),
    "long rows": ("a,b\n1.5,2\n3,4,5\n", "3 columns in line 3, 2 above it", "Fill gaps"),
    "short rows": ("a,b\n1.5,2\n3\n", "1 columns in line 3, 2 above it", "Fill gaps"),
    "nothing below names": ("a,b\n", "at least one sample", ""),
    "whole numbers beyond 2^53": ("a,b\n9007199254740993,2\n3,4\n", "9007199254740993", "common offset"),
}


@pytest.mark.parametrize("kind", UNCLEAR)
def test_what_is_not_clear_is_refused_with_the_choice(tmp_path, kind):
    text, got, remedy = UNCLEAR[kind]
    message = refusal(written(tmp_path, text))
    assert got in message and remedy in message


@pytest.mark.parametrize("ending", [".txt", ".tsv"])
def test_commas_alone_may_be_either_where_the_ending_promises_another_delimiter(tmp_path, ending):
    path = written(tmp_path, "1,5\n2,5\n", f"t{ending}")
    assert "can be read in two ways" in refusal(path)
    assert read_samples(path, options=TableOptions(decimal="comma")).tolist() == [[1.5], [2.5]]
    assert read_samples(path, options=TableOptions(delimiter="comma")).tolist() == [[1, 5], [2, 5]]


@pytest.mark.parametrize(
    "text, options, values, names",
    [
        ("0,1\n3,4\n", {"header": True}, [[3, 4]], ("0", "1")),
        ("0,1\n3,4\n", {"header": False}, [[0, 1], [3, 4]], None),
        ("id,a\n0,5\n1,6\n2,7\n", {"index": False}, [[0, 5], [1, 6], [2, 7]], ("id", "a")),
        ("id,a\n0,5\n1,6\n2,7\n", {"index": True}, [[5], [6], [7]], ("a",)),
        ("id,a\n0,5\n1,6\n2,7\n", {"index": "a"}, [[0], [1], [2]], ("id",)),
        ("a,who,b\n1,x,2\n3,y,4\n", {"index": "who"}, [[1, 2], [3, 4]], ("a", "b")),
        ("a,who,b\n1,x,2\n3,y,4\n", {"drop": ["who"]}, [[1, 2], [3, 4]], ("a", "b")),
        ("a,who,b\n1,x,2\n3,y,4\n", {"drop": 1}, [[1, 2], [3, 4]], ("a", "b")),
        ("a,who,b\n1,x,2\n3,y,4\n", {"columns": ["b", "a"]}, [[2, 1], [4, 3]], ("b", "a")),
        ("a,who,b\n1,x,2\n3,y,4\n", {"columns": [2]}, [[2], [4]], ("b",)),
        ("2019,2020\n1,2\n3,4\n", {"header": True, "columns": [2020]}, [[2], [4]], ("2020",)),
        ("1.234;5.678\n2.345;6.789\n", {"decimal": "point"}, [[1.234, 5.678], [2.345, 6.789]], None),
        ('"1,234"\n"2,345"\n', {"decimal": ","}, [[1.234], [2.345]], None),
        ("-0,52\n1,05\n", {"decimal": "point"}, [[0, 52], [1, 5]], None),
        ("-0,52\n1,05\n", {"decimal": "comma"}, [[-0.52], [1.05]], None),
        ("1:2\n3:4\n", {"delimiter": ":"}, [[1, 2], [3, 4]], None),
        ("1 \t2\n3 4\n", {"delimiter": "space"}, [[1, 2], [3, 4]], None),
    ],
)
def test_options_settle_it(tmp_path, text, options, values, names):
    read = read_file(written(tmp_path, text), options=TableOptions(**options))
    assert read.values.tolist() == values and read.names == names


def test_what_was_left_out_is_said(tmp_path):
    path = written(tmp_path, ",0,1\n5,1.5,2.5\n4,3.5,0.5\n3,4.5,2.5\n")
    read = read_file(path)
    assert [note.split(str(path))[1] for note in read.notes] == [
        ", 0, 1, was taken for names; header=false reads it as a sample.",
        " was taken for row names; index=false reads it.",
    ]
    assert read_file(written(tmp_path, "a,b\n1,2\n")).notes == ()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"header": "yes"}, "Expected header to be true or false. Got 'yes'"),
        ({"index": 0.5}, "Expected index to be a column, true or false. Got 0.5"),
        ({"columns": []}, "Expected columns to be names or numbers of columns. Got []"),
        ({"drop": [1.5]}, "Expected drop to be names or numbers of columns. Got [1.5]"),
        ({"delimiter": "::"}, "Expected delimiter to be one character or comma, semicolon, tab, pipe, space. Got '::'"),
        ({"decimal": "'"}, "Expected decimal to be point or comma. Got"),
    ],
)
def test_options_of_another_kind_are_refused(options, message):
    with pytest.raises(InputError) as caught:
        TableOptions(**options)
    assert message in str(caught.value)


def test_options_that_fit_no_column_or_no_file_are_refused(tmp_path):
    path = written(tmp_path, "a,b\n1,2\n3,4\n")
    assert "Expected a column of" in refusal(path, columns=["c"]) and "a, b. Got 'c'" in refusal(path, drop=["c"])
    assert "0 to 1. Got 'a'" in refusal(written(tmp_path, "1.5,2\n", "u.csv"), columns=["a"])
    np.save(tmp_path / "t.npy", MATRIX)
    assert "Expected no header for" in refusal(tmp_path / "t.npy", header=True)
    assert "Expected no obsm for" in refusal(path, obsm="X_pca")
    with pytest.raises(InputError, match="Expected no columns for data/moons, which is no table"):
        open_samples("data/moons", options=TableOptions(columns=[0]))


def test_a_message_holds_nothing_that_a_terminal_acts_upon(tmp_path):
    message = refusal(written(tmp_path, "a\x1b[2J,b\n1,2\n3,4\n"), columns=["c"])
    assert message.isprintable() and r"a\x1b[2J, b" in message


# --- names on two sides -----------------------------------------------------------------------------------------------


def test_columns_are_matched_by_name(tmp_path):
    x = open_samples(written(tmp_path, "a,b,c\n1,2,3\n4,5,7\n", "x.csv"))
    y = open_samples(written(tmp_path, "c;a;b\n3;1;2\n7;4;5\n", "y.csv"))
    left, right = matched(x, y)
    assert torch.equal(left.rows, right.rows) and right.names == ("a", "b", "c")
    assert torch.equal(right.law.sample(9, torch.Generator().manual_seed(0)).unique(dim=0), left.rows)
    assert right.notes == ("The columns of y.csv were put in the order of x.csv, by their names.",)
    np.save(tmp_path / "z.npy", y.rows.numpy())
    unnamed = open_samples(tmp_path / "z.npy")
    for left, right in (matched(x, unnamed), matched(unnamed, x)):  # column by column, for want of names
        assert {id(left.rows), id(right.rows)} == {id(x.rows), id(unnamed.rows)}
        assert right.notes[-1] == "z.npy does not name its columns: they were taken to be in the order of x.csv."
    assert matched(unnamed, unnamed) == (unnamed, unnamed)
    with pytest.raises(
        InputError, match="differ: b, c in x only and d, e and 4 more|differ: b, c in x only and d in y"
    ):
        matched(x, open_samples(written(tmp_path, "a,d\n1,2\n4,5\n", "d.csv")))
    with pytest.raises(InputError, match="can't be matched by name: 'a' is there twice"):
        matched(x, open_samples(written(tmp_path, "a,a,b\n1,2,3\n4,5,7\n", "e.csv")))


def test_data_frames_are_matched_by_name():
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame(MATRIX, columns=["a", "b", "c"])
    for y in (x[["c", "a", "b"]], x):
        assert torch.equal(*check_pair(x, y))
        assert estimate_w1(x, y, critic=None).exact == 0.0
    with pytest.raises(InputError, match="differ: c in x only and d in y only"):
        estimate_w1(x, x.rename(columns={"c": "d"}), critic=None)
    assert torch.equal(*check_pair(x, MATRIX))
    x = pandas.DataFrame(np.random.default_rng(0).normal(size=(9, 3)), columns=["a", "b", "c"])
    held = TensorSource(x, x[["b", "c", "a"]])
    assert torch.equal(held.test, held.train)


def frames() -> list:
    pandas = pytest.importorskip("pandas")
    import pyarrow

    frame = pandas.DataFrame({"a": [1, 2, 4], "b": [0.5, 0.25, 8.0]})
    made = [frame, frame.set_axis([7, 5, 3]), pyarrow.table({"a": [1, 2, 4], "b": [0.5, 0.25, 8.0]})]
    made.append(frame.convert_dtypes())
    try:
        import polars

        made.append(polars.from_pandas(frame))
    except ImportError:
        pass
    return made


@pytest.mark.filterwarnings("ignore:Determining the column names")
def test_a_frame_that_is_yet_to_be_computed_is_refused():
    polars = pytest.importorskip("polars")
    with pytest.raises(InputError, match="x must be a data frame in memory, not a LazyFrame. Collect it first"):
        check_samples(polars.LazyFrame({"a": [1.0, 2.0]}), "x")


def test_frames_of_all_kinds_are_samples():
    for frame in frames():
        assert check_samples(frame, "x").tolist() == [[1, 0.5], [2, 0.25], [4, 8]]
    pandas = pytest.importorskip("pandas")
    assert check_samples(pandas.Series([1.5, 2.5]), "x").tolist() == [[1.5], [2.5]]
    for column, message in (
        (["u", "v"], "column 'c' of x must hold real numbers"),
        ([True, False], "column 'c' of x must hold real numbers, not bool"),
        (pandas.to_datetime(["2020", "2021"]), "column 'c' of x must hold real numbers, not datetime64"),
        ([2**53 + 1, 0], "column 'c' of x must hold numbers that float64 can represent, not 9007199254740993"),
        ([1.0, None], "1 of 2 rows hold NaN or infinity, the first of them row 1"),
    ):
        with pytest.raises(InputError) as caught:
            check_samples(pandas.DataFrame({"a": [1.0, 2.0], "c": column}), "x")
        assert message in str(caught.value)
    with pytest.raises(InputError, match="x has a column of row numbers, 'Unnamed: 0'"):
        check_samples(pandas.DataFrame({"Unnamed: 0": [0, 1], "a": [1.5, 2.5]}), "x")
    frame = pandas.DataFrame(MATRIX, columns=["a", "b", "c"])
    with pytest.raises(InputError, match="The first column of y, 'index', counts 0, 1, … Drop it"):
        check_samples(frame.reset_index(), "y")
    assert check_samples(frame.reset_index()[["index"]], "y").tolist() == [[0.0], [1.0], [2.0], [3.0]]
    with pytest.raises(InputError, match="x has two columns named 'a'"):
        check_samples(pandas.DataFrame(MATRIX[:, :2], columns=["a", "a"]), "x")


def test_sparse_matrices_and_annotated_data_are_samples():
    counts = np.random.default_rng(0).poisson(0.4, (20, 5)).astype(float)
    for matrix in (sparse.csr_matrix(counts), sparse.coo_array(counts)):
        assert np.array_equal(check_samples(matrix, "x"), counts)
    anndata, pandas = pytest.importorskip("anndata"), pytest.importorskip("pandas")
    genes = pandas.DataFrame(index=[f"g{i}" for i in range(5)])
    x = anndata.AnnData(sparse.csr_matrix(counts), var=genes)
    assert torch.equal(*check_pair(x, x[:, ::-1]))
    assert estimate_w1(x, x[:, [2, 0, 1, 4, 3]], critic=None).exact == 0.0


# --- Parquet ----------------------------------------------------------------------------------------------------------


def parquet(path: Path, **columns) -> Path:
    import pyarrow
    from pyarrow import parquet as format

    path.parent.mkdir(parents=True, exist_ok=True)
    format.write_table(pyarrow.table(columns), path)
    return path


def test_columns_of_lists_are_embeddings(tmp_path):
    import pyarrow

    lists = MATRIX.tolist()
    for kind in (
        pyarrow.list_(pyarrow.float64()),
        pyarrow.large_list(pyarrow.float64()),
        pyarrow.list_(pyarrow.float64(), 3),
    ):
        path = parquet(tmp_path / "a.parquet", emb=pyarrow.array(lists, kind))
        read = read_file(path)
        assert np.array_equal(read.values, MATRIX) and read.names == ("emb[0]", "emb[1]", "emb[2]")
    half = parquet(tmp_path / "h.parquet", emb=pyarrow.array(lists, pyarrow.list_(pyarrow.float32())))
    assert read_samples(half).dtype == torch.float32
    for broken, message in (
        ([[1.0, 2.0], [3.0]], "Expected lists of one length in column 'emb' of"),
        ([[1.0, 2.0], None], "Expected lists of one length in column 'emb' of"),
        ([[1.0, None], [3.0, 4.0]], "row 0"),
        ([["a"], ["b"]], "Got type list<"),
    ):
        assert message in refusal(parquet(tmp_path / "b.parquet", emb=pyarrow.array(broken)))
    mixed = parquet(tmp_path / "m.parquet", file=["u", "v"], emb=[[1.0, 2.0], [3.0, 4.0]], size=[7, 9])
    assert "Got type string in column 'file'. columns=[emb] reads these alone" in refusal(mixed)
    assert read_samples(mixed, options=TableOptions(columns=["emb"])).tolist() == [[1, 2], [3, 4]]
    assert read_samples(mixed, options=TableOptions(columns=["size", "emb"])).tolist() == [[7, 1, 2], [9, 3, 4]]


def test_a_folder_of_parquet_files_is_one_table(tmp_path):
    parquet(tmp_path / "d/year=2021/b.parquet", b=[5.0, 6.0], a=[7, 8])
    parquet(tmp_path / "d/year=2020/a.parquet", a=[1, 3], b=[2.0, 4.0])
    (tmp_path / "d/_SUCCESS").touch()
    opened = open_samples(str(tmp_path / "d"))
    assert opened.rows.tolist() == [[1, 2], [3, 4], [7, 5], [8, 6]] and opened.names == ("a", "b")
    assert VectorFile(str(tmp_path / "d")).dim == 2
    parquet(tmp_path / "d/c.parquet", a=[1], c=[2.0])
    assert "Expected the columns of" in refusal(tmp_path / "d")


def test_row_names_of_parquet_are_no_samples(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0, 5.0], "b": [3.0, 4.0, 7.0]}, index=["u", "v", "w"])
    frame.to_parquet(tmp_path / "a.parquet")
    assert read_samples(tmp_path / "a.parquet").tolist() == [[1, 3], [2, 4], [5, 7]]
    frame.reset_index(drop=True).reset_index().to_parquet(tmp_path / "b.parquet")
    assert "counts 0, 1, … Say index=true" in refusal(tmp_path / "b.parquet")
    assert read_file(tmp_path / "b.parquet", options=TableOptions(index="index")).names == ("a", "b")
    assert "not 9007199254740993" in refusal(parquet(tmp_path / "c.parquet", a=[2**53 + 1, 2]))


# --- arrays: sparse, quantised, without values ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia"])
def test_sparse_matrices_of_scipy_are_read(tmp_path, kind):
    counts = np.random.default_rng(1).poisson(0.3, (20, 6)).astype(float)
    sparse.save_npz(tmp_path / "a.npz", sparse.csr_matrix(counts).asformat(kind))
    assert np.array_equal(read_samples(tmp_path / "a.npz"), counts)
    with pytest.raises(InputError, match="Expected no key"):
        read_samples(tmp_path / "a.npz", key="data")


@pytest.mark.parametrize("indices", [[0, 10**9], [0, -3]])
def test_sparse_indices_that_lie_outside_are_refused(tmp_path, indices):
    """Their conversion to a dense matrix would write there."""
    parts = {"data": np.ones(2), "indices": np.array(indices, "i4"), "indptr": np.array([0, 1, 2], "i4")}
    np.savez(tmp_path / "a.npz", format=np.array(b"csr"), shape=np.array([2, 3]), **parts)
    assert "to be a whole .npz file" in refusal(tmp_path / "a.npz")


def test_tensors_of_few_bits_are_read_and_those_without_values_refused(tmp_path):
    path = tmp_path / "a.pt"
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float16):
        torch.save(torch.tensor([[0.5, -2.0], [1.5, 4.0]]).to(dtype), path)
        assert read_samples(path).tolist() == [[0.5, -2.0], [1.5, 4.0]] and read_samples(path).dtype == torch.float32
    torch.save(torch.empty(3, 2, device="meta"), path)
    assert "on the meta device" in refusal(path) or "whole .pt file" in refusal(path)
    torch.save(torch.zeros(1).expand(10**7, 10**7), path)  # four bytes on the disk
    assert "GiB of memory" in refusal(path)
    for wide in (torch.int64, torch.uint64):
        torch.save(torch.tensor([[2**53 + 1]], dtype=torch.int64).to(wide), path)
        assert "not 9007199254740993" in refusal(path)


@pytest.mark.filterwarnings("ignore")
def test_quantised_and_nested_tensors_are_told_the_remedy(tmp_path):
    for tensor, remedy in (
        (torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8), "x.dequantize()"),
        (torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "pad or resize them"),
    ):
        torch.save(tensor, tmp_path / "a.pt")
        message = refusal(tmp_path / "a.pt")
        assert remedy in message or "whole .pt file" in message
        with pytest.raises(InputError, match=remedy):
            check_samples(tensor, "x")


# --- .h5ad ------------------------------------------------------------------------------------------------------------


def h5ad(path: Path, matrix: np.ndarray, names: list[str], kind: str = "array", **obsm: np.ndarray) -> Path:
    """What AnnData writes, of its format the parts that matter here."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        if kind == "array":
            file["X"] = matrix
        else:
            stored = sparse.csr_matrix(matrix).asformat(kind[:3])
            group = file.create_group("X")
            group.attrs.update({"encoding-type": kind, "shape": matrix.shape})
            for part in ("data", "indices", "indptr"):
                group[part] = getattr(stored, part)
        file.create_group("var").attrs["_index"] = "gene"
        file["var"]["gene"] = np.array(names, dtype=object)
        for name, values in obsm.items():
            file[f"obsm/{name}"] = values
    return path


@pytest.mark.parametrize("kind", ["array", "csr_matrix", "csc_matrix"])
def test_annotated_data_are_read(tmp_path, kind):
    counts = np.random.default_rng(2).poisson(0.5, (12, 4)).astype("f4")
    embedding = np.random.default_rng(3).normal(size=(12, 2))
    path = h5ad(tmp_path / "a.h5ad", counts, ["g1", "g2", "g3", "g4"], kind, X_pca=embedding)
    read = read_file(path)
    assert np.array_equal(read.values, counts) and read.names == ("g1", "g2", "g3", "g4")
    assert np.array_equal(read_samples(path, options=TableOptions(columns=["g3", "g1"])), counts[:, [2, 0]])
    assert np.array_equal(read_samples(path, options=TableOptions(obsm="X_pca")), embedding)
    assert "X_pca. Got 'X_umap'" in refusal(path, obsm="X_umap")
    other = h5ad(tmp_path / "b.h5ad", counts[:, ::-1], ["g4", "g3", "g2", "g1"], kind)
    assert torch.equal(*(opened.rows for opened in matched(open_samples(path), open_samples(other))))
    with pytest.raises(InputError, match="GiB of memory"):
        read_file(path, memory_limit=path.stat().st_size - 1)


def test_what_anndata_itself_writes_is_read(tmp_path):
    anndata, pandas = pytest.importorskip("anndata"), pytest.importorskip("pandas")
    counts = np.random.default_rng(2).poisson(0.5, (12, 4)).astype("f4")
    data = anndata.AnnData(
        sparse.csr_matrix(counts), var=pandas.DataFrame(index=list("wxyz")), obsm={"X_u": counts[:, :2]}
    )
    data.write_h5ad(tmp_path / "a.h5ad")
    read = read_file(tmp_path / "a.h5ad")
    assert np.array_equal(read.values, counts) and read.names == tuple("wxyz")
    assert np.array_equal(read_samples(tmp_path / "a.h5ad", options=TableOptions(obsm="X_u")), counts[:, :2])


def test_links_to_other_files_are_not_followed(tmp_path):
    h5py = pytest.importorskip("h5py")
    secret = h5ad(tmp_path / "secret.h5ad", MATRIX, ["a", "b", "c"])
    path = h5ad(tmp_path / "a.h5ad", MATRIX, ["a", "b", "c"])
    with h5py.File(path, "a") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink(str(secret), "/X")
    assert "Got a link there" in refusal(path)
    with h5py.File(path, "a") as file:
        del file["X"]
        (tmp_path / "raw").write_bytes(bytes(96))
        file.create_dataset("X", (4, 3), "f8", external=[(str(tmp_path / "raw"), 0, 96)])
    assert "Got a link to other files" in refusal(path)


# --- limits of memory count what is unpacked --------------------------------------------------------------------------


def test_limits_count_what_is_unpacked(tmp_path):
    zeros = np.zeros((200_000, 10))
    np.savez_compressed(tmp_path / "a.npz", zeros)
    parquet(tmp_path / "a.parquet", **{f"c{i}": column for i, column in enumerate(zeros.T)})
    parquet(tmp_path / "b.parquet", emb=[[0.0] * 10] * 200_000)
    sparse.save_npz(tmp_path / "b.npz", sparse.csr_matrix((10**6, 10**6)))
    written(tmp_path, gzip.compress(b"0,0,0,0\n" * 500_000), "a.csv.gz")
    written(tmp_path, b"0,0,0,0\n" * 130_000, "b.csv")  # 1 MB of text, 4 MB of numbers
    torch.save(torch.zeros(2_000_000), tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "a.pt", "w") as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name), compress_type=zipfile.ZIP_DEFLATED)
    for name in ("a.npz", "a.parquet", "b.parquet", "b.npz", "a.csv.gz", "b.csv", "a.pt"):
        path = tmp_path / name
        limit = 2_000_000
        assert path.stat().st_size < limit
        for read in (read_file, open_samples):
            with pytest.raises(InputError, match="GiB of memory. Got .* GiB. Save it as .npy"):
                read(path, memory_limit=limit)


def test_pipes_and_devices_are_refused_at_once(tmp_path):
    for name in ("a.npy", "a.csv", "a.parquet", "a.h5ad", "a.csv.gz"):
        os.mkfifo(tmp_path / name)
        assert "Got a pipe or a device" in refusal(tmp_path / name)
        with pytest.raises(InputError, match="Got a pipe or a device"):
            open_samples(tmp_path / name, memory_limit=1)
        with pytest.raises(InputError, match="Got a pipe or a device"):
            VectorFile(str(tmp_path / name))
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    assert "Got a pipe or a device" in refusal(tmp_path / "zero.csv")
    with pytest.raises(InputError, match=r"the ending of /dev/stdin must be one of \.npy"):
        open_samples("/dev/stdin")


# --- training reads with the same reader ------------------------------------------------------------------------------


def test_training_reads_as_estimates_do(tmp_path):
    values = np.random.default_rng(0).normal(size=(30, 3)).astype("f4")
    rows = "\n".join(f"{i},{','.join(map(repr, row.tolist()))}" for i, row in enumerate(values))
    path = written(tmp_path, f",0,1,2\n{rows}\n")
    with pytest.warns(UserWarning) as caught:
        source = VectorFile(str(path))
    assert [str(warning.message).split(str(path))[1].split(";")[0] for warning in caught] == [
        ", 0, 1, 2, was taken for names",
        " was taken for row names",
    ]
    assert {tuple(row) for row in torch.cat([source.train, source.test]).tolist()} == set(map(tuple, values.tolist()))
    with pytest.raises(InputError, match="header=true or header=false"):
        VectorFile(str(written(tmp_path, "0,1\n3,4\n5,6\n", "u.csv")))
    source = VectorFile(str(tmp_path / "u.csv"), header=True, columns=[1], test_fraction=0.5)
    assert sorted(torch.cat([source.train, source.test]).tolist()) == [[4], [6]]


def test_masks_wide_integers_and_scalars():
    masked = np.ma.masked_array(MATRIX, np.zeros((4, 3), bool))
    assert np.array_equal(check_samples(masked, "x"), MATRIX)
    masked[2, 1] = np.ma.masked
    for use in (lambda: check_samples(masked, "x"), lambda: TensorSource(masked), lambda: estimate_w1(masked, MATRIX)):
        with pytest.raises(InputError, match="must not have masked entries, but has 1, the first in row 2"):
            use()
    with pytest.raises(InputError, match="must not have masked entries"):
        estimate_w1(MATRIX, MATRIX, a=np.ma.masked_array([1, 1, 1, 1], [0, 1, 0, 0]), critic=None)
    assert estimate_w1([0.0, 1.0, 5.0], [1.0, 3.0, 5.5], critic=None).exact == pytest.approx(3.5 / 3, rel=1e-15)
    times = 2**60 + 3 * np.arange(30)
    for x, y in ((times, times + 1), (torch.from_numpy(times)[:, None], torch.from_numpy(times + 1)[:, None])):
        result = estimate_w1(x, y, critic=None)
        assert result.exact == pytest.approx(1, rel=1e-14) and result.lower <= 1 <= result.upper
        assert "both were counted from 1152921504606846976" in result.notes[0]
    mixed = estimate_w1(np.array([2**63 + 1, 2**63 + 2], "u8"), np.array([2**63 - 1, 2**63 - 5]), critic=None)
    assert mixed.exact == 4.5
    for x, y in ((times, times + 0.5), (times, MATRIX[:, 0]), (np.array([0, 2**62 + 1]), times)):
        with pytest.raises(InputError, match="must hold numbers that float64 can represent"):
            estimate_w1(x, y, critic=None)


def test_counts_are_divided_by_their_totals():
    x, y = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
    result = estimate_w1(x, y, a=[3, 1], b=torch.tensor([10, 30]), critic=None)
    assert result.exact == pytest.approx(1 / 2 + 3 / 4, rel=1e-14)  # F - G on (0, 1) and on (1, 2)
    assert result.notes[:2] == (
        "The weights of x were divided by their total, 4.",
        "The weights of y were divided by their total, 40.",
    )
    assert not any("total" in note for note in estimate_w1(x, y, a=[0.75, 0.25], b=[0.5, 0.5], critic=None).notes)


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def estimate(tmp_path, monkeypatch, capsys):
    """Runs `wgan-lip estimate` in a folder of its own, without pictures: the result, or the one line of a refusal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wgan_lip.cli.estimate._figures", lambda *_: {})

    def run(*arguments: str) -> dict | str:
        directory = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        status = main(["estimate", *arguments, "critic=null", f"hydra.run.dir={directory}"])
        said = capsys.readouterr()
        if status == 0:
            result = json.loads((directory / "result.json").read_text())
            assert all(note in said.out for note in result["notes"])
            return result
        assert status == 2 and len(said.err.strip().splitlines()) == 1, said.err
        return said.err

    return run


def test_estimates_of_tables(tmp_path, estimate):
    written(tmp_path, ",a,b\n0,1,5\n1,2,7\n", "x.csv")
    written(tmp_path, "b;a\n9,5;1\n11,5;2\n", "y.csv")
    result = estimate("x=x.csv", "y=y.csv")
    assert (result["exact"], result["dim"], result["n"]) == (4.5, 2, 2)
    assert [note.split(" of ")[0] for note in result["notes"][:2]] == ["The first column", "The columns"]
    written(tmp_path, "p,q\n1,9\n2,11\n", "z.csv")
    assert "differ: a, b in x only and p, q in y only" in estimate("x=x.csv", "y=z.csv")
    assert estimate("x=x.csv", "y=z.csv", "columns_x=[a,b]", "columns_y=[p,q]")["exact"] == 4.0
    assert estimate("x=x.csv", "y=y.csv", "columns=[b]")["exact"] == 4.5
    assert estimate("x=x.csv", "y=y.csv", "drop=b")["exact"] == 0.0


def test_options_are_told_of_one_side_or_of_both(tmp_path, estimate):
    written(tmp_path, "0,1\n2,3\n4,7\n", "x.csv")
    written(tmp_path, "-0,5;1,5\n2,5;3,0\n", "y.csv")
    np.save(tmp_path / "y.npy", [[2.0, 4.0], [4.0, 8.0]])
    assert "Say header=true or header=false" in estimate("x=x.csv", "y=y.npy")
    assert estimate("x=x.csv", "y=y.npy", "header=true")["exact"] == 1.0  # of both, though an array has no header
    assert estimate("x=x.csv", "y=y.npy", "header=false")["n"] == 3
    assert "Expected no header for y.npy" in estimate("x=x.csv", "y=y.npy", "header_x=true", "header_y=true")
    assert "Expected obsm with a file that takes it. Got x.csv and y.npy" in estimate(
        "x=x.csv", "y=y.npy", "obsm=X_pca"
    )
    mixed = ("x=x.csv", "y=y.csv", "header_x=false", "delimiter_y=;", "decimal_y=,", "header_y=false")
    assert estimate(*mixed)["m"] == 2
    assert "Expected decimal to be point or comma. Got 'x'" in estimate("x=x.csv", "y=y.npy", "decimal=x")
    assert "Expected header of type bool or null. Got 'perhaps'" in estimate("x=x.csv", "y=y.npy", "header=perhaps")


def test_weights_are_flat_arrays_tables_and_counts(tmp_path, estimate):
    np.save(tmp_path / "x.npy", [[0.0], [1.0]])
    np.save(tmp_path / "y.npy", [[0.0], [2.0]])
    np.save(tmp_path / "a.npy", np.array([3, 1]))
    np.save(tmp_path / "b.npy", np.array([[10], [30]]))
    result = estimate("x=x.npy", "y=y.npy", "a=a.npy", "b=b.npy")
    assert result["exact"] == pytest.approx(1.25, rel=1e-14)
    assert result["notes"][0] == "The weights of x were divided by their total, 4."
    for text in ("0\n1\n", "count\n0\n1\n", "2020\n0\n1\n", ",count\n0,0\n1,1\n"):
        written(tmp_path, text, "a.csv")  # a first 0 or 2020 may be a name: the number of samples tells
        assert estimate("x=x.npy", "y=y.npy", "a=a.csv")["exact"] == pytest.approx(1.0, rel=1e-14), text
    written(tmp_path, "0\n1\n2\n3\n", "a.csv")
    assert "weights, shape" in estimate("x=x.npy", "y=y.npy", "a=a.csv")


def test_names_that_are_not_utf8_are_read_by_every_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"B\xe4r.npy")
    try:
        np.save(name, np.random.default_rng(0).normal(size=(60, 2)))
    except OSError:
        pytest.skip("this file system takes no such name")
    small = [*TINY, "training.batch_size=4", "evaluation.size=4", "training.audit_size=4"]
    assert main(["train", *small, "data=file", f"data.path={name}", "hydra.run.dir=run"]) == 0
    assert load_run("run").config["data"]["path"] == name
    for command in (["inspect", "run=run"], ["estimate", f"x={name}", "y=run:run", "samples=20", "critic=null"]):
        assert main(command) == 0
    assert r"B\xe4r" in (page := Path("run/report.html").read_text(encoding="utf-8")) or r"B\udce4r" in page
    assert main(["train", *small, "data=file", f"data.path={name}", f"hydra.run.dir={os.fsdecode(bytes([0xE4]))}"]) == 2
    assert "run folder whose name is UTF-8" in capsys.readouterr().err
