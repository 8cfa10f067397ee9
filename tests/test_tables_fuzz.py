"""Random tables in many dialects: every reading is the content that was written, or refused in one clear line."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from wgan_lip.cli import main
from wgan_lip.data import VectorFile, read_file
from wgan_lip.utils.checks import InputError

DELIMITERS = {".csv": [",", ",", ",", ";", "\t", "|"], ".tsv": ["\t"], ".txt": [" ", " ", "\t", ",", ";"]}
NAMES = ["height", "weight", "Größe", "x (m)", "a,b", "p;q", 'say "so"', "V1", "gene 7", "t", "1st"]


@dataclass
class Table:
    """A table of which everything is known.

    Attributes:
        path: Where it was written.
        values: Its samples, shape (n, d).
        names: What its columns are called; None where it does not say.
        spoilt: What was broken in it, "" if nothing.
        clear: Whether a reader has no excuse to refuse it.
        text: As it was written, for the message of a test.
    """

    path: Path
    values: np.ndarray
    names: tuple[str, ...] | None
    spoilt: str = ""
    clear: bool = True
    text: str = ""
    kinds: list[str] = field(default_factory=list)


def cells_of(rng: np.random.Generator, n: int, d: int) -> tuple[list[list[str]], str]:
    """Numbers as somebody's programme writes them."""
    style = rng.choice(["repr", "round", "fixed", "e", "g", "whole", "counts", "tiny", "plus"])
    raw = rng.normal(size=(n, d)) * 10.0 ** rng.integers(-2, 4) + rng.choice([0, 0, 5])
    write = {
        "repr": lambda v: repr(float(v)),
        "round": lambda v: repr(round(float(v), 2)),
        "fixed": lambda v: f"{v:.6f}",
        "e": lambda v: f"{v:.18e}",
        "g": lambda v: f"{v:g}",
        "whole": lambda v: str(round(v)),
        "counts": lambda v: str(int(abs(v)) % 10),
        "tiny": lambda v: repr(float(v) * 1e-30),
        "plus": lambda v: f"{v:+.4f}",
    }[style]
    return [[write(v) for v in row] for row in raw], str(style)


def table(seed: int, folder: Path) -> Table:
    """A table, by its seed alone."""
    rng = np.random.default_rng([7, seed])
    pick = lambda *choices: choices[rng.integers(len(choices))]  # noqa: E731
    n, d = int(rng.integers(5, 15)), int(rng.integers(1, 7))
    cells, style = cells_of(rng, n, d)
    ending = pick(".csv", ".csv", ".csv", ".tsv", ".txt")
    delimiter = pick(*DELIMITERS[ending])
    decimal = pick(".", ".", ",") if delimiter != "," else "."
    values = np.array([[float(cell) for cell in row] for row in cells])
    header = pick(*["names"] * 6, *["none"] * 4, "from 0", "from 0", "from 1", "years", "rising")
    index = pick(
        *["none"] * 6, "unnamed", "unnamed", "shuffled", "short", "labels", "counting", "short labels", "unnamed labels"
    )
    quoting = pick(csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
    if header in ("from 1", "rising") and d < 4:  # such names can't be told from numbers
        header = "names"
    spoilt = pick(*[""] * 16, "text", "gap", "long row", "short row", "NA", "nan", "header again", "underscore")
    names: list[str] | None = {
        "names": [str(name) for name in rng.permutation(NAMES)[:d]],
        "none": None,
        "from 0": [str(i) for i in range(d)],
        "from 1": [str(i + 1) for i in range(d)],
        "years": [str(2001 + i) for i in range(d)],
        "rising": [repr(400 + 0.5 * i) for i in range(d)],
    }[header]
    if d == 1 and header == "names":
        names = ["height"]
    if delimiter == " " and quoting != csv.QUOTE_ALL:
        names = names and [name.replace(" ", "_") for name in names]
    if names is None and index == "shuffled":  # nothing tells such a column from one of whole numbers
        index = "unnamed"
    rows = [list(row) for row in cells]
    if decimal == ",":
        rows = [[cell.replace(".", ",") for cell in row] for row in rows]
    top = names and list(names)
    labels = {
        "unnamed": range(n),
        "shuffled": rng.permutation(3 * n)[:n],
        "short": range(1, n + 1),
        "labels": [f"S{i}" for i in range(n)],
        "unnamed labels": [f"S{i}" for i in range(n)],
        "counting": range(pick(0, 1), n + 2),
        "short labels": [f"S{i}" for i in range(n)],
    }.get(index)
    if labels is not None:
        rows = [[str(label), *row] for label, row in zip(labels, rows)]
        if top is not None:
            above = {
                "unnamed": [""],
                "shuffled": [""],
                "unnamed labels": [""],
                "labels": ["sample"],
                "counting": ["id"],
            }.get(index, [])
            top = [*above, *top]
    if (spoilt == "header again" and header != "names") or (spoilt == "short row" and len(rows[0]) == 1):
        spoilt = ""
    column = int(rng.integers(len(rows[0]) - d, len(rows[0])))
    row = int(rng.integers(1, n))
    if spoilt == "text":
        rows[row][column] = pick("x", "1.2.3", "12 kg", "--", "1e", "0x1F", "5%")
    elif spoilt in ("gap", "NA", "nan", "underscore"):
        rows[row][column] = {"gap": "", "NA": "NA", "nan": "nan", "underscore": "1_000"}[spoilt]
    elif spoilt == "long row":
        rows[row].append("7")
    elif spoilt == "short row":
        del rows[row][-1]
    elif spoilt == "header again":
        rows.insert(row, list(top) if top is not None else ["again"] * len(rows[0]))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=pick("\n", "\n", "\r\n"))
    if pick(0, 0, 0, 1):
        text.write("# written by a programme\n")
    writer.writerows([top] * (top is not None) + rows)
    content = text.getvalue()
    if delimiter == " " and pick(0, 1):
        content = "".join(f"  {line.replace(' ', '   ')}" for line in content.splitlines(keepends=True))
        names = names and [" ".join(name.split()) for name in names]
    if pick(0, 0, 1):
        content = content.rstrip("\r\n") + pick("", "\n\n", "\n")
    encoding = pick("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252")
    data = content.encode(encoding)
    path = folder / f"{seed}{ending}"
    if pick(0, 0, 0, 1):
        data, path = gzip.compress(data), folder / f"{seed}{ending}.gz"
    path.write_bytes(data)
    told = header == "names" and index not in ("labels", "counting")  # what is a sample, and what is none
    alone = d == 1 and index in ("none", "short") and (decimal == "," or delimiter == ",")
    alone = alone or (header == "none" and cells[0] == [str(i) for i in range(d)])  # as pandas numbers columns
    clear = not spoilt and (told or (header == index == "none")) and not alone
    kinds = [style, f"delimiter {delimiter!r}", f"decimal {decimal}", f"header {header}", f"index {index}"]
    return Table(path, values, names and tuple(names), spoilt, clear, content, kinds)


TABLES = range(1800)
BLOCKS = 12


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_table_is_read_as_it_was_written_or_refused(tmp_path, block):
    outcomes: Counter[str] = Counter()
    for seed in TABLES[block::BLOCKS]:
        known = table(seed, tmp_path)
        about = f"seed {seed}, {known.kinds}, broken: {known.spoilt!r}\n{known.text}"
        try:
            read = read_file(known.path)
        except InputError as error:
            assert "\n" not in str(error) and str(known.path) in str(error), about
            assert not known.clear, f"{error}\n{about}"
            outcomes["refused"] += 1
            continue
        assert not known.spoilt, about
        assert read.values.shape == known.values.shape and np.array_equal(read.values, known.values), about
        assert read.names in (known.names, None), about
        outcomes["read"] += 1
    assert min(outcomes["read"], outcomes["refused"]) > len(TABLES) / BLOCKS / 4


def clear_tables(folder: Path, count: int) -> list[Table]:
    tables = (table(seed, folder) for seed in itertools.count(10**6))
    return list(itertools.islice((known for known in tables if known.clear and known.names), count))


def test_w1_of_tables_is_that_of_their_numbers(tmp_path, monkeypatch):
    """Against another solver; the other side has the columns in another order, and another dialect."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wgan_lip.cli.estimate._figures", lambda *_: {})
    for number, known in enumerate(clear_tables(tmp_path, 6)):
        rng = np.random.default_rng(number)
        other = known.values[rng.permutation(len(known.values))] + rng.normal(size=known.values.shape)
        order = rng.permutation(len(known.names))
        with open(f"{number}.y.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([known.names[column] for column in order])
            writer.writerows([[repr(float(value)) for value in row] for row in other[:, order]])
        directory = tmp_path / f"run{number}"
        folder = f"hydra.run.dir={directory}"
        assert main(["estimate", f"x={known.path}", f"y={number}.y.csv", "critic=null", folder]) == 0, known.text
        costs = cdist(known.values, other)
        truth = costs[linear_sum_assignment(costs)].mean()
        result = json.loads((directory / "result.json").read_text())
        assert result["value"] == pytest.approx(truth, rel=1e-12) and result["lower"] <= truth * (1 + 1e-12), known.text


def test_training_reads_what_estimates_read(tmp_path):
    for known in clear_tables(tmp_path, 20):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = VectorFile(str(known.path))
        rows = torch.cat([source.train, source.test])
        assert sorted(rows.tolist()) == sorted(known.values.astype("f4").tolist()), known.text
