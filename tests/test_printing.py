"""What results say of themselves: true figures, bounds outward, few lines, and HTML that no name can break."""

from __future__ import annotations

import dataclasses
import html
import inspect
import math
import re
import typing
import xml.etree.ElementTree as ElementTree
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import wgan_lip
from wgan_lip import metrics
from wgan_lip.cli import screens
from wgan_lip.critics import ResNetCritic
from wgan_lip.data import Moons
from wgan_lip.data.opening import Opened
from wgan_lip.lipschitz.adversary import SteepestSlope, find_steepest_slope
from wgan_lip.lipschitz.certificates import Certificate, LayerCertificate, certify, prove
from wgan_lip.metrics.scores import Compared
from wgan_lip.runs.export import Exported
from wgan_lip.training import Record
from wgan_lip.transport import Transport, solve
from wgan_lip.utils.numbers import percent
from wgan_lip.utils.printing import CELL, LINES, Bar, Printed, Row, number_line
from wgan_lip.wasserstein.estimate import estimate_w1
from wgan_lip.wasserstein.fitting import Fit, fit_critic
from wgan_lip.wasserstein.interval import W1Interval
from wgan_lip.wasserstein.population import PopulationBounds

HOSTILE = "</table><script>alert(1)</script>&\"'\x1b[2J\x00\u202e\n  Certified critic      Lip(f) ≤ 0"
MEANT = "</table><script>alert(1)</script>&\"'\\x1b[2J\\x00\\u202e Certified critic Lip(f) ≤ 0"
NUMBER = r"(-?[0-9.]+(?:E[+-]?[0-9]+)?)"
SIZES = st.floats(0, 1e300) | st.floats(0.1, 10)
VOID = {"img", "br", "hr"}


def certificate_of(layers: int = 1, lipschitz: float = 1.0, units: str = "cm") -> Certificate:
    parts = tuple(
        LayerCertificate(f"block.{number}", "Linear(\n  rows=3\n)", "Euclidean(2)", "Euclidean(2)", 1.0, "Cholesky")
        for number in range(layers)
    )
    return Certificate(lipschitz, "Euclidean(2)", "Euclidean(1)", parts, "ab" * 32, "cd" * 32, units, "all", "ef" * 32)


def bounds(lower=0.0, upper=None, level=0.95, assumptions=("The samples are independent.",)) -> PopulationBounds:
    return PopulationBounds(lower, lower, upper, level, "betting", assumptions, 10, 12, 2)


@pytest.fixture(scope="module")
def shifted():
    """60 points of the plane, and the same three and four along: W1 is 5."""
    x = torch.rand(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, x + torch.tensor([3.0, 4.0])


@pytest.fixture(scope="module")
def estimate(shifted):
    return estimate_w1(*shifted, seconds=2, critic="resnet", critic_steps=4, diameters=(8.0, 8.0))


@pytest.fixture(scope="module")
def results(shifted, estimate):
    x, y = shifted
    critic, rows = ResNetCritic(2, width=4, depth=2), np.random.default_rng(0).random((200, 2))
    proof = prove(critic)
    found = fit_critic(x, y, x_validation=x, y_validation=y, critic="resnet", steps=2)
    many = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    law = wgan_lip.law_of_rows(rows, HOSTILE, units=HOSTILE, diameter=math.sqrt(2))
    return [
        proof, proof.certificate, wgan_lip.bracket(critic, x, y), estimate, estimate.population, estimate.plan,
        estimate.dual, solve(x, y), found, law, Opened(HOSTILE, law, names=(HOSTILE,) * 40, notes=(HOSTILE,)),
        wgan_lip.MaxMinFunction([[1.0], [-1.0]], [0.0, 2.0], [[0, 1]]),
        wgan_lip.enumerate_lipschitz(critic, -1.0, 1.0), find_steepest_slope(critic, x, starts=4, steps=2),
        metrics.excess_over_floor(many[:100], many[100:200], many[200:], size=20, draws=2),
        metrics.halved(many[:50], many[50:100], splits=2),
        metrics.memorisation(many[:50], many[:200], many[200:]), metrics.mode_coverage(many, many[:3], 0.1),
        metrics.neighbourhoods(many[:50], many[50:100]),
        Compared({HOSTILE: 0.5, "mmd": 0.1}, {HOSTILE: 0.25}, 9, HOSTILE),
        Exported(critic, nn.Linear(2, 2), certificate_of(units=HOSTILE), {}),
        certificate_of(400, units=HOSTILE), wgan_lip.explore(critic, Moons(), many[:30], count=30),
    ]  # fmt: skip


class _Tree(HTMLParser):
    """Refuses tags that are not closed in order, and keeps their names and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.text = [], set(), ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


def test_whatever_a_public_function_returns_says_what_it_is():
    asked = [getattr(room, name) for room in (wgan_lip, metrics) for name in room.__all__]
    given: set[type] = set()
    for value in filter(inspect.isfunction, asked):
        value = inspect.unwrap(value, stop=lambda inner: not inspect.isfunction(inner.__wrapped__))
        hint = eval(str(value.__annotations__.get("return")), value.__globals__)
        given |= {part for part in (hint, *typing.get_args(hint)) if inspect.isclass(part)}
    results = {kind for kind in given if dataclasses.is_dataclass(kind)} - {Record}  # whose scalars are a mapping
    assert {W1Interval, Certificate, metrics.Excess, Compared} < results
    assert [kind for kind in results if not issubclass(kind, Printed)] == []
    assert all(issubclass(kind, Printed) for kind in (Fit, Transport, SteepestSlope))


def test_each_says_it_in_a_few_lines(results):
    for result in results:
        lines = str(result).splitlines()
        assert 2 <= len(lines) <= LINES, result
        assert all(line.isprintable() and line == line.rstrip() for line in lines)
        assert max(map(len, lines)) <= 150, result
        assert all(line.startswith("  ") for line in lines[1:])
        assert "object at 0x" not in str(result)


@pytest.mark.parametrize("long", [HOSTILE * 500, "word " * 5000])
def test_no_name_and_no_number_of_notes_makes_a_result_long(estimate, long):
    many = dataclasses.replace(estimate, notes=(long,) * 40)
    for result in (many, bounds(assumptions=(long,) * 40), certificate_of(3000, units=long)):
        assert len(str(result).splitlines()) <= LINES and len(str(result)) < 150 * LINES
        assert len(result._repr_html_()) < 5 * (CELL + 600) * LINES
    assert "more lines: see its fields" in str(many)


def test_what_is_left_out_is_counted():
    class Long(Printed):
        def headline(self):
            return "Many rows"

        def summary_rows(self):
            return [Row(f"row {number}", "0", "nothing") for number in range(self.count)]

    for count in range(1, 40):
        result = Long()
        result.count = count
        lines = str(result).splitlines()
        shown = sum("row" in line and "nothing" in line for line in lines)
        left = re.search(r"… (\d+) more lines", str(result))
        assert len(lines) <= LINES and shown + (int(left[1]) if left else 0) == count
        cells = ElementTree.fromstring(result._repr_html_()).findall(".//tr")
        left = re.search(r"… (\d+) more rows", result._repr_html_())
        assert len(cells) < LINES and len(cells) - bool(left) + (int(left[1]) if left else 0) == count


def test_html_is_well_formed_and_says_the_same(results):
    for result in results:
        text = result._repr_html_()
        tree = _Tree(text)
        assert tree.tags <= {"div", "strong", "svg", "text", "rect", "path", "table", "tbody", "tr", "th", "td",
                             "figure", "img"}, result  # fmt: skip
        rows = [row.cells(CELL) for row in result.summary_rows()]
        assert all(cell.strip() in tree.text for row in rows[: LINES - 2] for cell in row)
        if "<img" not in text:  # which HTML leaves open
            ElementTree.fromstring(text)


def test_names_are_shown_as_they_are_and_steer_nothing(results):
    hostile = [result for result in results if "alert" in str(result)]
    assert {type(result).__name__ for result in hostile} == {"Law", "Opened", "Compared", "Exported", "Certificate"}
    for result in hostile:
        assert MEANT in " ".join(_Tree(result._repr_html_()).text.split())
        assert MEANT in " ".join(str(result).split())
        assert not any(line.startswith("  Certified critic      Lip(f) ≤ 0") for line in str(result).splitlines()[:2])
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", str(result) + result._repr_html_())


def test_a_repr_is_exact_or_one_short_line(results, estimate):
    exact = dict(vars(wgan_lip.wasserstein.population))
    assert eval(repr(estimate.population), exact) == estimate.population
    for result in results:
        if not dataclasses.is_dataclass(result) or "__repr__" not in vars(type(result)):
            assert repr(result).startswith(f"<{type(result).__name__}: ") and len(repr(result).splitlines()) == 1
            assert len(repr(result)) < 2 * CELL


@given(st.tuples(SIZES, SIZES, SIZES).map(sorted), SIZES)
def test_an_interval_is_printed_outward(ends, lipschitz):
    lower, exact, upper = ends
    for value in (None, exact):
        text = str(W1Interval(lower, upper, value, certificate_of(lipschitz=lipschitz), 3, 4, 2))
        middle = "" if value is None else f" = {NUMBER}"
        low, *between, high = re.search(rf"{NUMBER} ≤ W1{middle} ≤ {NUMBER}", text).groups()
        assert Fraction(low) <= Fraction(lower) and Fraction(upper) <= Fraction(high)
        assert all(Fraction(low) <= Fraction(number) <= Fraction(high) for number in between)
        assert Fraction(re.search(rf"lower end +{NUMBER}", text)[1]) <= Fraction(lower)
        assert Fraction(re.search(rf"upper end +{NUMBER}", text)[1]) >= Fraction(upper)
        assert Fraction(re.search(rf"Lip\(f\) ≤ {NUMBER}", text)[1]) >= Fraction(lipschitz)
        width = Fraction(re.search(rf"width {NUMBER} %", text)[1])
        true = 100 * (1 - Fraction(lower) / Fraction(upper)) if upper else 0
        assert float(true) * (1 - 1e-12) <= float(width) <= 100


@given(SIZES, st.none() | SIZES, st.floats(1e-6, 1, exclude_max=True))
def test_bounds_on_laws_are_printed_outward_with_their_very_level(lower, upper, level):
    text = str(bounds(lower, upper, level))
    end = "" if upper is None else f" ≤ {NUMBER}"
    low, *high = re.search(rf"{NUMBER} ≤ W1{end}", text).groups()
    assert Fraction(low) <= Fraction(lower)
    assert all(Fraction(number) >= Fraction(upper) for number in high) and len(high) == (upper is not None)
    assert float(Fraction(re.search(rf"with {NUMBER} % confidence", text)[1]) / 100) == level


def test_shares_in_percent_are_not_rounded():
    assert [percent(share) for share in (0.95, 0.5, 1.0, 0.99999999, np.float64(0.9))] == [
        "95 %", "50 %", "100 %", "99.999999 %", "90 %",
    ]  # fmt: skip


def test_what_is_said_is_true(shifted, estimate):
    text = str(estimate)
    assert text.startswith("W1 between 60 and 60 samples in dimension 2\n")
    assert re.search(r"W1 = 5(\.0+)? +exact: solved to optimality", text)
    low, high = re.search(rf"certified +{NUMBER} ≤ W1 ≤ {NUMBER}", text).groups()
    assert Fraction(low) <= 5 <= Fraction(high)
    assert repr(estimate).startswith("<W1Estimate: W1 between 60 and 60 samples in dimension 2, W1 = 5")
    critic = ResNetCritic(2, width=4, depth=3)
    proved = certify(critic, units="cm")
    kinds = [type(layer).__name__ for layer in critic]
    row = next(line for line in str(proved).splitlines() if line.startswith("  Layers"))
    assert {f"{kinds.count(kind)} {kind}" for kind in kinds} == set(re.split(", | {2,}", row)[-len(set(kinds)) :])
    assert f"weights {proved.weights_sha256[:12]}" in str(proved) and str(proved).endswith(" cm")
    assert Fraction(re.search(rf"≤ {NUMBER}", str(proved))[1]) >= Fraction(proved.lipschitz)


def test_a_screen_leaves_out_none_of_it(estimate):
    notes = tuple(f"{HOSTILE} {'and so on ' * 200} {number}." for number in range(30))
    screen = screens.estimated(dataclasses.replace(estimate, notes=notes), Path("out"), ("x", "y"), (5.0, 0.0))
    told = " ".join(screen.split())
    for sentence in (*notes, *estimate.population.assumptions):
        assert (
            " ".join(sentence.replace("\x1b", r"\x1b").replace("\x00", r"\x00").replace("\u202e", r"\u202e").split())
            in told
        )


# --- the number line --------------------------------------------------------------------------------------------------


def axis(svg: str) -> tuple[typing.Callable[[float], float], ElementTree.Element]:
    """The map from horizontal places to values, read off the ticks."""
    tree = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    marks = [(float(t.get("x")), float(t.text)) for t in tree.iter(f"{space}text") if t.get("text-anchor") == "middle"]
    (a, at_a), (b, at_b) = marks[0], marks[-1]
    assert 3 <= len(marks) <= 9 and any(value == 0 for _, value in marks)
    assert all(value == pytest.approx(at_a + (x - a) * (at_b - at_a) / (b - a), abs=2e-3 * (at_b - at_a))
               for x, value in marks)  # fmt: skip
    return lambda x: at_a + (x - a) * (at_b - at_a) / (b - a), tree


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0.5, 10), st.floats(0, 1)), min_size=1, max_size=4))
def test_bars_stand_where_their_numbers_are(intervals):
    bars = [Bar("bar", low, low + width, low + share * width) for low, width, share in intervals]
    value, tree = axis(number_line(bars, "bars"))
    close = 0.01 * (max(bar.high for bar in bars) - min(0, *(bar.low for bar in bars)) + 1)
    rects = list(tree.iter("{http://www.w3.org/2000/svg}rect"))
    marks = [path for path in tree.iter("{http://www.w3.org/2000/svg}path") if path.get("stroke-width")]
    for bar, rect, mark in zip(bars, rects, marks, strict=True):
        begin = float(rect.get("x"))
        assert value(begin) == pytest.approx(bar.low, abs=close)
        assert value(begin + float(rect.get("width"))) == pytest.approx(bar.high, abs=close)
        assert value(float(mark.get("d")[1:].split()[0])) == pytest.approx(bar.at, abs=close)


def test_what_is_not_bounded_points_on_and_beyond_every_tick():
    value, tree = axis(number_line([Bar("laws", 2.0, math.inf), Bar("samples", 0.0, 6.0)], "bars"))
    rects = list(tree.iter("{http://www.w3.org/2000/svg}rect"))
    ends = [value(float(rect.get("x")) + float(rect.get("width"))) for rect in rects]
    assert ends[0] > 6.3 and ends[1] == pytest.approx(6, abs=0.05)
    assert sum("z" in path.get("d") for path in tree.iter("{http://www.w3.org/2000/svg}path")) == 1


@given(st.lists(st.tuples(st.floats(), st.floats(), st.none() | st.floats()), max_size=3), st.text())
def test_no_number_and_no_name_breaks_the_line(numbers, name):
    svg = number_line([Bar(name, *bar) for bar in numbers], name)
    if svg:
        tree = ElementTree.fromstring(svg)
        assert not re.search("nan|inf", " ".join(value for part in tree.iter() for value in part.attrib.values()
                                                 if value != tree.get("aria-label")))  # fmt: skip


def test_a_line_says_in_words_what_it_shows():
    svg = number_line([Bar("W1", 1.0, 2.0)], '1 ≤ W1 ≤ 2 "<')
    assert ElementTree.fromstring(svg).get("aria-label") == '1 ≤ W1 ≤ 2 "<' and 'role="img"' in svg
    assert html.escape('"<') in svg
