"""Samples by a specification: files, folders of images, named sets and oracles; laws that are drawn from."""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from test_data import MATRIX, SHARED_DATA, Evil, rng, write, write_idx

from wgan_lip.data import (
    MNIST,
    ORACLES,
    Checkerboard,
    Digits,
    ImageSource,
    Law,
    Opened,
    VectorFile,
    box_diameter,
    check_shapes,
    known_w1,
    law_of_oracle,
    law_of_rows,
    law_of_source,
    named_sources,
    open_samples,
    read_samples,
)
from wgan_lip.data.tables import TableOptions
from wgan_lip.utils.checks import InputError

ELSEWHERE = ("file", "image_folder", "mnist", "fashion_mnist", "cifar10", "celeba")  # files that a test has to bring
OWN = [name for name, kind in named_sources().items() if kind.__module__.startswith("wgan_lip.")]  # others are of tests
NAMED = [f"data/{name}" for name in OWN if name not in ELSEWHERE] + [f"oracle/{name}" for name in ORACLES]


def refusal(*arguments, **options) -> str:
    """The message, one line, with which specification or law is refused."""
    with pytest.raises(InputError) as caught:
        open_samples(*arguments, **options)
    message = str(caught.value)
    assert message.endswith((".", "?")) and "\n" not in message
    return message


# --- the grammar of specifications ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        *NAMED,
        "points.npy",
        "../some-folder/x_1.csv",
        "/data/faces/",
        "run:outputs/train/2026-11-23_04-38-36-487321",
        "data/digits:0-4",
        "data/mnist:0-2+7",
        "data/digits:3",
        "data/mnist:0-4:root:/data/sets:download:false",
        "data/moons:radius:2:noise:1e-3",
        "oracle/marginal:mean:-0.5:std:2.0:dim:3",
        "oracle/contamination:base:ray_monotone",
    ],
)
def test_a_specification_passes_hydra_without_quotes(spec):
    override = OverridesParser.create().parse_override(f"x={spec}")
    assert override.value() == spec and not override.is_sweep_override()
    assert not set(spec) & set(" '\"\\$&;|<>()[]{}*?!#~`=,")  # what a shell, or Hydra, takes for its own


@pytest.mark.parametrize("spec", NAMED)
def test_every_name_opens_as_rows_or_as_a_law(spec):
    opened = open_samples(spec)
    drawn = opened.law.sample(50, rng())
    assert drawn.shape == (50, opened.law.dim) and drawn.device.type == "cpu" and drawn.isfinite().all()
    assert torch.equal(drawn, opened.law.sample(50, rng())) and opened.law.units
    assert (opened.rows is None) == (spec not in ("data/digits", "data/fake"))
    assert opened.name == spec.split("/")[1] + ", P" * (opened.oracle is not None)


def test_digits_are_all_rows_and_their_classes_a_choice_of_them():
    pixels, labels = load_digits(return_X_y=True)
    raw = {image.tobytes(): label for image, label in zip((pixels / 16).astype("f4"), labels)}
    every = open_samples("data/digits")
    assert every.rows.shape == (1797, 64) and {row.tobytes() for row in every.rows.numpy()} == set(raw)
    assert every.image_shape == (1, 8, 8) and every.law.diameter == 8.0 and every.law.units == Digits.units
    for classes, wanted in (("0-4", range(5)), ("7", [7]), ("1+5-6+9", [1, 5, 6, 9]), ("0-9", range(10))):
        chosen = open_samples(f"data/digits:{classes}")
        found = [raw[row.tobytes()] for row in chosen.rows.numpy()]
        assert sorted(found) == sorted(label for label in labels if label in wanted)
        assert chosen.name == f"digits:{classes}" and chosen.law.size == len(found)


def test_mnist_is_all_its_images(tmp_path, monkeypatch):
    spec = f"root:{write_idx(tmp_path)}:download:false"
    opened = open_samples(f"data/mnist:{spec}")
    assert sorted((opened.rows[:, 0] * 255).round().int().tolist()) == sorted([*range(12), *range(6)])
    assert opened.image_shape == (1, 28, 28) and opened.law.diameter == 28.0 and opened.law.units == MNIST.units
    two = open_samples(f"data/mnist:1-2:{spec}")
    assert sorted((two.rows[:, 0] * 255).round().int().tolist()) == [1, 1, 2, 2, 11]
    assert "Put its four idx files" in refusal(f"data/mnist:root:{tmp_path / 'gone'}:download:false")


@pytest.mark.skipif(not (SHARED_DATA / "MNIST").is_dir(), reason="no MNIST folder beside the repository")
def test_mnist_itself_has_70000_rows():
    opened = open_samples(f"data/mnist:3:root:{SHARED_DATA}:download:false")
    assert opened.rows.shape == (6131 + 1010, 784)


def test_parameters_reach_what_they_name():
    tight = open_samples("data/moons:radius:3:noise:0").law.sample(4000, rng())
    circles = tight.double() + 3 * torch.tensor([0.5, 0.25])
    assert float(circles[:, 0].min()) == pytest.approx(-3, abs=0.01) and float(circles[:, 0].max()) > 5.9
    board = open_samples("data/checkerboard:cells:2:half_width:1").law
    assert board.diameter == box_diameter(-1, 1, 2) and float(board.sample(2000, rng()).abs().max()) <= 1
    oracle = open_samples("oracle/marginal:mean:-0.5:std:2:dim:3").oracle
    assert (oracle.mean, oracle.std, oracle.dim) == (-0.5, 2.0, 3)
    assert open_samples("oracle/contamination:base:shift:fraction:0.5").oracle.w1 == 0.5
    assert open_samples("oracle/shift", dim=7).law.dim == open_samples("oracle/shift:dim:7", dim=7).law.dim == 7


@pytest.mark.parametrize(
    "spec, message",
    [
        ("data/mooons", "Did you mean data/moons?"),
        ("data/mooons", "checkerboard, cifar10, digits, fake, "),
        ("oracle/ray", "ray_monotone"),
        ("oracle/dilaton:dim:3", "Did you mean oracle/dilation?"),
        ("moons", "Did you mean data/moons?"),
        ("shift:dim:3", "Did you mean oracle/shift?"),
        ("data/file", "data/NAME, with NAME one of"),
        ("nowhere", "There are no samples 'nowhere'. Check the path, relative to"),
        ("", "There are no samples ''"),
        ("data/moons:0-4", "data/moons has no classes. Leave '0-4' out"),
        ("oracle/shift:3", "oracle/shift has no classes. Leave '3' out"),
        ("data/digits:0-12", "no classes '0-12'. Its classes are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9;"),
        ("data/digits:4-0", "as in 0, 0-9 or 0+9"),
        ("data/digits:1+", "no classes ''"),
        ("data/digits:1-2-3", "no classes '1-2-3'"),
        ("data/digits:99999999999999999999", "no classes '99999999999999999999'"),
        (
            "data/moons:radius",
            "data/moons:radius has a parameter without a value. Write data/moons:PARAMETER:VALUE, in pairs",
        ),
        ("data/moons:size:3", "data/moons has no parameter 'size'. Its parameters: radius, noise"),
        ("data/moons:seed:3", "data/moons has no parameter 'seed'. Its parameters: radius, noise"),
        ("data/digits:seed:3", "data/digits has no parameter 'seed'. Its parameters: (none)"),
        ("data/moons:radius:wide", "radius of data/moons must be of type float, not 'wide'"),
        ("data/moons:radius:nan", "radius must be positive and finite, not nan"),
        ("data/checkerboard:cells:2.5", "cells of data/checkerboard must be of type int, not '2.5'"),
        ("data/checkerboard:half_width:1e308", "diameter must be"),
        ("data/mnist:download:perhaps", "download of data/mnist must be of type bool, not 'perhaps'"),
        ("oracle/shift:length:-1", "length must be positive and finite, not -1.0"),
        ("oracle/contamination:base:nothing", "base must be one of shift, "),
    ],
)
def test_bad_names_classes_and_parameters_are_refused(spec, message):
    assert message in refusal(spec)


def test_other_refusals(tmp_path):
    assert "data/moons is not a file with arrays to choose from. Leave key='x' out" in refusal("data/moons", key="x")
    assert "oracle/shift:dim:3 has dimension 3, not dim=4" in refusal("oracle/shift:dim:3", dim=4)
    assert "has dimension 3, not dim=4" in refusal(write(tmp_path / "a.npy", MATRIX), dim=4)
    assert "side must be 0, for P, or 1, for Q, not 2" in refusal("oracle/shift", side=2)
    assert "Samples must be given as a file, a folder or a name, not as 7" in refusal(7)
    assert "run:…" in refusal("rum:outputs", openers={"run": lambda rest: None})


def test_openers_add_kinds_of_samples():
    law = Law(3, lambda n, rng: torch.rand(n, 3, generator=rng))
    asked = []

    def opener(rest: str) -> Opened:
        asked.append(rest)
        return Opened(rest, law)

    assert open_samples("run:a/b:c", openers={"run": opener}).law is law and asked == ["a/b:c"]
    assert "has dimension 3, not dim=2" in refusal("run:a", openers={"run": opener}, dim=2)


def test_a_named_set_goes_before_a_path_and_a_path_is_still_reachable(tmp_path, monkeypatch):
    (tmp_path / "data/digits").mkdir(parents=True)
    write(tmp_path / "data/x.npy", MATRIX)
    for i in range(2):
        Image.new("L", (3, 2), i).save(tmp_path / f"data/digits/{i}.png")
    monkeypatch.chdir(tmp_path)
    assert open_samples("data/x.npy").rows.shape == (4, 3)
    assert open_samples("data/digits").law.dim == 64
    assert open_samples("./data/digits").law.dim == open_samples(Path("data/digits")).law.dim == 6
    assert "There is no file data/y.npy" in refusal("data/y.npy")


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".npy", ".npz", ".pt", ".csv", ".tsv"])
def test_a_file_opens_as_its_rows(tmp_path, ending):
    opened = open_samples(str(write(tmp_path / f"points{ending}", MATRIX)))
    assert opened.name == f"points{ending}" and np.array_equal(opened.rows.numpy(), MATRIX)
    law = opened.law
    assert (law.dim, law.size, law.diameter) == (3, 4, None) and law.units == "the unit of the numbers in the file"
    drawn = law.sample(400, rng())
    assert drawn.dtype == torch.float64 and {tuple(row) for row in drawn.tolist()} == set(map(tuple, MATRIX.tolist()))


def test_a_column_of_a_table_and_a_flat_array_are_samples_on_the_line(tmp_path):
    (tmp_path / "a.csv").write_text("height\n1\n2\n3\n")
    assert open_samples(str(tmp_path / "a.csv")).rows.tolist() == [[1.0], [2.0], [3.0]]
    np.save(tmp_path / "a.npy", np.arange(3.0))
    assert open_samples(str(tmp_path / "a.npy")).rows.tolist() == [[0.0], [1.0], [2.0]]
    drawn = open_samples(tmp_path / "a.npy", memory_limit=1).law.sample(60, rng())
    assert drawn.shape == (60, 1) and set(drawn.flatten().tolist()) == {0.0, 1.0, 2.0}


BAD_ARRAYS = [
    (np.ones((4, 2, 2, 2, 2)), "Flatten each sample into one row."),
    (np.ones((4, 2, 3)), "does not show which axis holds the channels"),
    (np.ones((1, 4, 4)), "at least 2 samples, not 1."),
    (np.ones((1, 4, 4), dtype=np.uint8), "at least 2 samples, not 1."),
    (np.ones((0, 4, 4), dtype=np.uint8), "must have at least"),
    (np.ones((0, 3)), "must have at least"),
    (np.ones((1, 3)), "at least 2 samples, not 1."),
    (np.ones((3, 0)), "must have at least one column"),
    (np.array([["a"], ["b"]]), "must hold real numbers"),
    (np.ones((2, 2), dtype=complex), "must hold real numbers"),
    (np.ones((2, 2), dtype=bool), "must hold real numbers"),
    (np.array([[1, None]], dtype=object), "Python objects"),
    (np.array([[1.0], [np.nan]]), "row 1"),
    (np.array([[-np.inf], [1.0]]), "row 0"),
]


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize("array, message", BAD_ARRAYS)
def test_bad_arrays_are_refused_in_memory_and_on_disk(tmp_path, array, message, limit):
    np.save(tmp_path / "a.npy", array)
    assert message in refusal(str(tmp_path / "a.npy"), memory_limit=limit)


def test_damaged_files_are_refused_on_disk_too(tmp_path):
    whole = write(tmp_path / "a.npy", MATRIX).read_bytes()
    path = tmp_path / "b.npy"
    for content in (whole[:-40], whole[:20], b"", b"PK\3\4" + bytes(300)):
        path.write_bytes(content)
        for limit in (None, 1):
            assert f"{path} is not a complete .npy file of plain numbers" in refusal(path, memory_limit=limit)
    np.save(path, np.array([[Evil()], [Evil()]], dtype=object))
    refusal(path, memory_limit=1)
    assert not Evil.ran
    assert "does not take key=" in refusal(write(path, MATRIX), key="x", memory_limit=1)


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    path = write(tmp_path / "a.npy", MATRIX)

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "open_memmap", denied)
        assert "Permission denied. Check its permissions" in refusal(path, memory_limit=1)
    monkeypatch.setattr(Path, "stat", denied)  # as for a file in a folder that may not be entered
    assert "Permission denied. Check its permissions" in refusal(path)


@pytest.mark.parametrize("ending", [".npz", ".pt", ".csv", ".txt.gz", ".parquet", ".h5ad"])
def test_a_large_file_of_another_kind_is_told_the_remedy(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.write_bytes(bytes(200))
    assert "Save it as .npy, from which only the rows in use are read." in refusal(path, memory_limit=100)


# --- laws of rows on the disk -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, read", [("f2", "f4"), ("f4", "f4"), (">f8", "f8"), ("i2", "f8"), ("u1", "f8")])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_on_disk_are_drawn_as_they_would_be_from_memory(tmp_path, dtype, read, order):
    array = np.asarray(np.arange(60).reshape(20, 3), dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    inside, outside = (open_samples(tmp_path / "a.npy", memory_limit=limit) for limit in (None, 1))
    assert outside.rows is None and outside.law.size == 20
    drawn = outside.law.sample(500, rng())
    assert drawn.numpy().dtype == np.dtype(read) and torch.equal(drawn, inside.law.sample(500, rng()))
    counts = np.bincount(drawn[:, 0].long().numpy() // 3, minlength=20)
    assert np.array_equal(drawn, array[drawn[:, 0].long().numpy() // 3]) and counts.min() > 0


@pytest.mark.parametrize("dtype, weight", [("f2", 4), ("f4", 4), ("f8", 8), ("u1", 8)])
def test_the_limit_counts_the_bytes_that_rows_would_take(tmp_path, dtype, weight):
    np.save(tmp_path / "a.npy", np.ones((10, 3), dtype=dtype))
    assert open_samples(tmp_path / "a.npy", memory_limit=30 * weight).rows is not None
    assert open_samples(tmp_path / "a.npy", memory_limit=30 * weight - 1).rows is None


@pytest.mark.parametrize("ending", [".npy", ".npz", ".pt"])
@pytest.mark.parametrize("dtype", ["u1", "f4", ">f8", "i2"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc", "nhw"])
def test_images_in_a_file_are_those_of_a_folder(tmp_path, ending, dtype, layout):
    images = np.random.default_rng(0).integers(0, 256, (6, 1 if layout == "nhw" else 3, 4, 5))
    stored = {"nchw": images, "nhwc": images.transpose(0, 2, 3, 1), "nhw": images[:, 0]}[layout].astype(dtype)
    if ending == ".pt":
        torch.save(torch.from_numpy(stored.astype(stored.dtype.newbyteorder("="))), tmp_path / "a.pt")
    else:
        {".npy": np.save, ".npz": np.savez}[ending](tmp_path / f"a{ending}", stored)
    path, shape = tmp_path / f"a{ending}", images.shape[1:]
    expected = torch.from_numpy(images.reshape(6, -1)).float() / (255 if dtype == "u1" else 1)
    for options in (None, TableOptions(layout=layout)):
        opened = open_samples(path, options=options)
        assert opened.image_shape == shape and torch.equal(opened.rows.float(), expected)
        assert torch.equal(read_samples(path, options=options).float(), expected)
    as_pixels = (ImageSource.units, box_diameter(0, 1, expected.shape[1]))
    known = as_pixels if dtype == "u1" else (VectorFile.units, None)
    assert (opened.law.units, opened.law.diameter) == known
    source = VectorFile(str(path), layout=layout, test_fraction=0.5)
    assert source.image_shape == shape and source.units == known[0] and source._stored.dtype != torch.float64
    assert (source.low, source.high) == ((0.0, 1.0) if dtype == "u1" else (None, None))
    assert {*map(tuple, torch.cat([source.train, source.test]).tolist())} == {*map(tuple, expected.tolist())}
    if ending == ".npy":
        for options in (None, TableOptions(layout=layout)):
            outside = open_samples(path, options=options, memory_limit=1)
            assert outside.rows is None and outside.image_shape == shape and outside.law.size == 6
            assert (outside.law.units, outside.law.diameter) == known
            assert torch.equal(outside.law.sample(100, rng()), opened.law.sample(100, rng()))
    if dtype == "u1" and layout != "nhw":
        for number, image in enumerate(images.transpose(0, 2, 3, 1)):
            picture(tmp_path / "folder" / f"{number}.png", image)
        folder = open_samples(tmp_path / "folder")
        check_shapes(folder, opened)
        assert torch.equal(folder.rows, opened.rows) and folder.law.units == opened.law.units


def test_a_layout_is_for_arrays_of_images(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4, 2)))
    assert "layout=nhwc means 4 axes" in refusal(tmp_path / "a.npy", options=TableOptions(layout="nhwc"))
    (tmp_path / "a.csv").write_text("1,2\n3,4\n")
    assert "does not take layout" in refusal(tmp_path / "a.csv", options=TableOptions(layout="nhwc"))
    np.save(tmp_path / "b.npy", np.ones((4, 3, 5, 3)))
    assert "Give layout, one of nchw, nhwc, nhw." in refusal(tmp_path / "b.npy")
    for layout, shape in (("nchw", (3, 5, 3)), ("nhwc", (3, 3, 5))):
        assert open_samples(tmp_path / "b.npy", options=TableOptions(layout=layout)).image_shape == shape


def test_a_file_larger_than_any_memory_is_drawn_from(tmp_path):
    n, path = 2**36, tmp_path / "large.npy"  # a terabyte, of which nearly nothing is on the disk
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (n, 2)})
        start = file.tell()
        try:
            file.truncate(start + 16 * n)
        except OSError:
            pytest.skip("this file system holds no sparse file of a terabyte")
        index = torch.randint(n, (3,), generator=rng(5)).tolist()
        for row in index:
            file.seek(start + 16 * row)
            file.write(np.array([row, -row], dtype="<f8").tobytes())
    opened = open_samples(path)  # half of the memory there is, by default
    assert opened.rows is None and opened.law.size == n
    assert opened.law.sample(3, rng(5)).tolist() == [[row, -row] for row in index]


def test_a_row_that_is_not_finite_is_named_by_its_place_in_the_file(tmp_path):
    array = np.ones((50, 2))
    array[17, 1] = np.nan
    np.save(tmp_path / "a.npy", array)
    law = open_samples(tmp_path / "a.npy", memory_limit=1).law
    with pytest.raises(InputError, match=r"Row 17 of .*a\.npy holds NaN or infinity\."):
        law.sample(1000, rng())


def test_arrays_and_tensors_become_laws(tmp_path):
    raw = np.memmap(tmp_path / "raw", dtype="f4", mode="w+", shape=(5, 2))
    raw[:] = np.arange(10).reshape(5, 2)
    for rows in (raw, np.array(raw), torch.from_numpy(np.array(raw))):
        law = law_of_rows(rows, diameter=12.0)
        assert (law.dim, law.size, law.diameter) == (2, 5, 12.0)
        assert {tuple(row) for row in law.sample(200, rng()).tolist()} == {(2 * i, 2 * i + 1) for i in range(5)}
    for rows, message in (
        (np.float64(4), "rows must be an array or a tensor"),
        (np.ma.masked_equal(np.arange(8.0).reshape(4, 2), 5), "not a MaskedArray"),
        (torch.ones(4, 2, 2), "Flatten"),
        (torch.ones(1, 2), "at least 2 samples"),
        (torch.ones(4, 2, dtype=torch.bool), "real numbers"),
        ([[1.0], [2.0]], "rows must be an array or a tensor, not a list"),
    ):
        with pytest.raises(InputError) as caught:
            law_of_rows(rows)
        assert message in str(caught.value)
    assert law_of_rows(np.arange(4.0)).sample(99, rng()).unique().tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match="Row 3"):
        law_of_rows(torch.tensor([[0.0], [1.0], [2.0], [math.inf]])).sample(100, rng())


# --- laws in general --------------------------------------------------------------------------------------------------


def test_a_law_checks_what_it_is_given_and_what_is_drawn():
    law = Law(2, lambda n, rng: torch.rand(n, 2, generator=rng))
    assert torch.equal(law.sample(9, rng(3)), torch.rand(9, 2, generator=rng(3)))
    for n in (0, -1):
        with pytest.raises(InputError, match="n, the number of samples to draw, must be at least 1"):
            law.sample(n, rng())
    for draw, message in (
        (lambda n, rng: torch.ones(n, 3), r"draw must return shape \(4, 2\), not \(4, 3\)"),
        (lambda n, rng: torch.ones(n + 1, 2), r"not \(5, 2\)"),
        (lambda n, rng: torch.full((n, 2), math.nan), "must be finite"),
        (lambda n, rng: "text", "must hold real numbers"),
    ):
        with pytest.raises(InputError, match=message):
            Law(2, draw).sample(4, rng())
    for options in ({"dim": 0}, {"dim": 2, "diameter": math.inf}, {"dim": 2, "diameter": -1.0}):
        with pytest.raises(InputError):
            Law(draw=lambda n, rng: torch.ones(n, 2), **options)


def test_a_network_becomes_a_law_without_a_graph():
    net = torch.nn.Linear(3, 2)
    law = Law(2, lambda n, rng: net(torch.randn(n, 3, generator=rng)), "pixels")
    assert not law.sample(4, rng()).requires_grad and law.units == "pixels"


def test_a_source_becomes_a_law():
    board = Checkerboard(half_width=3.0)
    law = law_of_source(board)
    assert torch.equal(law.sample(20, rng()), board.sample(20, rng())) and law.size is None
    assert law.diameter == pytest.approx(6 * math.sqrt(2), rel=1e-15) and law.units == board.units
    digits = law_of_source(Digits())
    assert digits.size == 1297 and digits.diameter == 8.0


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(1, 10**6))
def test_a_diameter_is_rounded_up_and_no_further(low, width, dim):
    high = low + width
    square, diameter = (Fraction(high) - Fraction(low)) ** 2 * dim, box_diameter(low, high, dim)
    assert Fraction(diameter) ** 2 >= square
    unit = Fraction(5e-324)  # that of subnormal numbers, in which one rounding up is more than 1e-15 of them
    assert diameter == 0 or (Fraction(diameter) - unit) ** 2 <= square * (1 + Fraction(1, 10**15)) ** 2


@pytest.mark.parametrize("name", ORACLES)
def test_the_sides_of_an_oracle_are_its_laws_in_float64(name):
    oracle = ORACLES[name](dim=3)
    x, y = oracle.pair(40, rng())
    for side, samples in enumerate((x, y)):
        drawn = law_of_oracle(oracle, side).sample(40, rng())
        assert drawn.dtype == torch.float64 and torch.equal(drawn, samples)


def test_sides_drawn_with_generators_of_their_own_are_independent():
    x, y = (open_samples("oracle/shift:length:2", side=side).law.sample(20_000, rng(side)) for side in (0, 1))
    correlation = np.corrcoef(x.T, y.T)[:2, 2:]
    assert np.abs(correlation).max() < 5 / math.sqrt(20_000)
    assert float((y.mean(0) - x.mean(0)).norm()) == pytest.approx(2, abs=0.05)


def test_known_w1_is_that_of_two_sides_of_one_oracle():
    x, y = (open_samples("oracle/dilation:factor:0:dim:1", side=side) for side in (0, 1))
    assert known_w1(x, y) == known_w1(y, x) == (pytest.approx(math.sqrt(2 / math.pi), rel=1e-14), 0.0)
    assert known_w1(x, x) == (0.0, 0.0)
    sampled = [open_samples("oracle/funnel:draws:1000", side=side) for side in (0, 1)]
    w1, error = known_w1(*sampled)
    assert 0 < error < w1
    for other in ("oracle/dilation:factor:0:dim:2", "oracle/dilation:dim:1", "oracle/shift:dim:1", "data/moons"):
        assert known_w1(x, open_samples(other, side=1)) is None
    assert known_w1(open_samples("data/moons"), open_samples("data/moons")) is None


@pytest.mark.parametrize("name", ["shift", "dilation", "simplex", "grid", "ray_monotone"])
def test_drawn_sides_have_about_the_known_w1(name):
    sides = [open_samples(f"oracle/{name}:dim:1", side=side) for side in (0, 1)]
    x, y = (opened.law.sample(100_000, rng(opened.side)).sort(dim=0).values for opened in sides)
    assert float((x - y).abs().mean()) == pytest.approx(known_w1(*sides)[0], abs=0.02)  # exact on the line


# --- folders of images ------------------------------------------------------------------------------------------------


def picture(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels.astype(np.uint8))
    (image if mode is None else image.convert(mode)).save(path)
    return path


def test_a_folder_of_images_becomes_rows_by_name(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3))  # (n, h, w, c)
    for name, pixels in zip(("a.png", "b/c.bmp", "b/d.PNG", "e.png"), colour):
        picture(tmp_path / name, pixels)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    opened = open_samples(f"{tmp_path}/")
    expected = torch.from_numpy(colour).permute(0, 3, 1, 2).reshape(4, -1).float() / 255
    assert torch.equal(opened.rows, expected) and opened.image_shape == (3, 5, 6)
    assert opened.law.diameter == box_diameter(0, 1, 90) and opened.law.size == 4 and opened.name == tmp_path.name
    large = open_samples(tmp_path, memory_limit=4 * 4 * 90 - 1)
    assert large.rows is None and large.law.size == 4 and large.law.diameter == opened.law.diameter
    assert torch.equal(large.law.sample(60, rng()), opened.law.sample(60, rng()))


def test_kinds_of_images(tmp_path):
    grey = np.random.default_rng(1).integers(0, 256, (8, 8))
    for folder, ending, mode in (("l", "png", "L"), ("jpg", "jpg", "L"), ("webp", "webp", "RGB"), ("one", "png", "1")):
        for i in range(2):
            picture(tmp_path / folder / f"{i}.{ending}", grey, mode)
    for i in range(2):
        picture(tmp_path / "palette" / f"{i}.png", np.stack([grey // 128 * 255] * 3, axis=2), "P")
    assert np.array_equal(open_samples(tmp_path / "l").rows[0] * 255, grey.flatten())
    assert open_samples(tmp_path / "jpg").image_shape == (1, 8, 8)
    assert open_samples(tmp_path / "webp").image_shape == open_samples(tmp_path / "palette").image_shape == (3, 8, 8)
    assert set(open_samples(tmp_path / "one").rows.unique().tolist()) == {0.0, 1.0}
    assert np.array_equal(open_samples(tmp_path / "palette").rows[0, :64], (grey // 128).flatten())


def test_images_that_cannot_be_used_are_named(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"in {empty}. Check the folder." in refusal(empty)
    picture(empty / "a.png", np.ones((4, 4)))
    assert "must hold at least 2 images, and holds only a.png" in refusal(empty)
    assert "does not take key=" in refusal(empty, key="x")
    odd = tmp_path / "odd"
    for name, pixels in (("a.png", np.ones((4, 4))), ("b.png", np.ones((4, 4))), ("in/c.png", np.ones((4, 5)))):
        picture(odd / name, pixels)
    assert "but a.png has (1, 4, 4) and in/c.png has (1, 4, 5). Resize or convert" in refusal(odd)
    with pytest.raises(InputError, match="in/c.png"):
        open_samples(odd, memory_limit=1).law.sample(100, rng())
    picture(odd / "in/c.png", np.ones((4, 4, 3)))
    assert "in/c.png has (3, 4, 4)" in refusal(odd)
    picture(odd / "in/c.png", np.ones((4, 4, 4)))
    assert "in/c.png has transparent pixels. Put it on a background" in refusal(odd)
    Image.new("P", (4, 4)).save(odd / "in/c.png", transparency=0)
    assert "in/c.png has transparent" in refusal(odd)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64))
    whole = picture(odd / "in/c.png", noise).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"GIF", whole[:20]):
        (odd / "in/c.png").write_bytes(content)
        assert "in/c.png is not a complete .png image:" in refusal(odd)


# --- parquet ----------------------------------------------------------------------------------------------------------


def test_parquet_without_pyarrow_says_so(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "needs pyarrow 15 or newer" in (message := refusal(tmp_path / "a.parquet"))
    assert "which is not installed. Install it" in message


def test_parquet_tables(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "year=2020" / "a.parquet"  # a folder that data sets take for a column
    path.parent.mkdir()

    def save(metadata: dict | None = None, **columns) -> Path:
        parquet.write_table(pyarrow.table(columns).replace_schema_metadata(metadata), path)
        return path

    assert np.array_equal(read_samples(save(**{f"c{i}": column for i, column in enumerate(MATRIX.T)})), MATRIX)
    mixed = read_samples(save(a=np.array([5, 3, 4], dtype="i4"), b=np.ones(3, dtype="f4")))
    assert mixed.dtype == torch.float64 and mixed.tolist() == [[5, 1], [3, 1], [4, 1]]
    assert read_samples(save(a=np.ones(3, dtype="f4"))).dtype == torch.float32
    framed = {"pandas": '{"index_columns": ["__index_level_0__"], "columns": []}'}
    assert read_samples(save(framed, a=[1.0, 2.0], __index_level_0__=[7, 9])).tolist() == [[1.0], [2.0]]
    ranged = {"pandas": '{"index_columns": [{"kind": "range", "name": null, "start": 0, "stop": 2, "step": 1}]}'}
    assert read_samples(save(ranged, a=[1.0, 2.0])).tolist() == [[1.0], [2.0]]
    for columns, message in (
        ({"a": [1.0, 2.0], "name": ["x", "y"]}, "holds string, not numbers. Encode it, or drop it by drop=[name]"),
        ({"a": [True, False]}, "holds bool, not numbers"),
        ({"a": [[1.0], [2.0]], "b": [1.0, 2.0]}, "holds list<"),
        ({"a": [1, None]}, "row 1"),
        ({"a": [1.0, math.nan]}, "row 1"),
        ({"a": [1.0]}, "at least 2 samples, not 1"),
        ({"a": np.empty(0)}, "must have at least"),
    ):
        assert message in refusal(save(**columns))
    assert "does not take key=" in refusal(save(a=[1.0, 2.0]), key="a")
    whole = save(a=np.arange(100.0)).read_bytes()
    for content in (whole[: len(whole) // 2], whole[: len(whole) // 2] + whole[-8:], b"", b"PAR1", bytes(300)):
        path.write_bytes(content)
        assert "is not a complete .parquet file of plain numbers" in refusal(path)


def test_an_old_pyarrow_is_refused(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    monkeypatch.setattr(pyarrow, "__version__", "14.0.0")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    assert "needs pyarrow 15 or newer" in refusal(tmp_path / "a.parquet")
