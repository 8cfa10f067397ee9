"""The suites of measurements: what they find has to agree with what is proved."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial

import pytest
import torch
from PIL import Image

from wgan_lip.benchmarks import coverage, density, layers, referee, tightness
from wgan_lip.benchmarks.browser import NAMES, browsing
from wgan_lip.cli import main
from wgan_lip.critics import FixedWidthCritic, ResNetCritic
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError
from wgan_lip.wasserstein.population import population_bounds


def measured(suite, tmp_path, capsys, *more):
    out = tmp_path / suite / "deeper"
    assert main(["benchmark", f"suite={suite}", f"out={out}", *more]) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["command"].startswith(f"wgan-lip benchmark suite={suite} seeds=")
    assert {"torch", "processor", "memory", "gpu"} <= results["machine"].keys()
    assert (out / "table.md").read_text() in capsys.readouterr().out
    return results["rows"], out


def test_no_proved_bound_is_below_the_exact_norm(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(layers, "milliseconds", lambda call: 0.0)
    rows, _ = measured("layers", tmp_path, capsys)
    proved = [row for row in rows if row["proves"] == layers.PROVED]
    assert len(proved) > 20
    assert all(row["excess"] > -1e-13 for row in proved)
    assert max(row["excess"] for row in rows if row["method"] == "verified Cholesky") < 1e-9
    assert min(row["excess"] for row in rows if row["proves"] == layers.BELOW) < -1e-4  # the reason for proofs


def test_no_slope_found_exceeds_a_proved_constant(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tightness, "SAMPLES", {"plane": 12, "digits": 6})
    monkeypatch.setattr(tightness, "STEPS", 3)
    monkeypatch.setattr(tightness, "PLANE", {"A": lambda: ResNetCritic(2, width=8, depth=2)})
    monkeypatch.setattr(tightness, "DIGITS", {"B": lambda: FixedWidthCritic(64, depth=1)})
    monkeypatch.setattr(tightness, "estimate_lipschitz", partial(tightness.estimate_lipschitz, starts=32, steps=8))
    rows, _ = measured("tightness", tmp_path, capsys, "seeds=[0,3]")
    assert len(rows) == 2 * 6
    for row in rows:
        assert row["found"] <= row["lipschitz"] <= 1
        assert row["kr_value"] <= row["exact"] * (1 + 1e-9)
        if row["critic"].startswith("compiled"):
            assert row["kr_value"] == pytest.approx(row["exact"], rel=1e-9)


def test_what_others_return_proves_no_more_than_the_exact_value(monkeypatch, tmp_path, capsys):
    for name, value in {"SAMPLES": 30, "ITERATIONS": 50, "DIRECTIONS": 5, "BATCHES": 4, "BATCH": 10}.items():
        monkeypatch.setattr(referee, name, value)
    monkeypatch.setattr(referee, "RayMonotone", partial(referee.RayMonotone, draws=1000))
    rows, _ = measured("referee", tmp_path, capsys, "seeds=[0,3]")
    assert {row["seed"] for row in rows} == {0, 3} and len({row["data"] for row in rows}) == 3
    for row in rows:
        assert row["lower"] is None or row["lower"] <= row["exact"] * (1 + 1e-12)
        assert row["upper"] is None or row["upper"] >= row["exact"] * (1 - 1e-12)
    sharpest = [row for row in rows if row["tool"] == "POT, Sinkhorn, ε = 0.02 W1"]
    assert all(row["lower"] > 0.9 * row["exact"] and row["upper"] < 1.1 * row["exact"] for row in sharpest)


def test_a_compiled_critic_is_within_twice_the_covering_radius(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(density, "GRIDS", (4, 6))
    monkeypatch.setattr(density, "WIDTHS", (4,))
    monkeypatch.setattr(density, "DEPTHS_A", (2,))
    monkeypatch.setattr(density, "DEPTHS_B", (2,))
    monkeypatch.setattr(density, "STEPS", 5)
    rows, out = measured("density", tmp_path, capsys)
    compiled = [row for row in rows if row["kind"] == "compiled"]
    assert len(compiled) == 4 and len(rows) == 6
    for row in compiled:
        assert row["error"] <= row["bound"]
        assert row["lipschitz"] <= 1
    assert compiled[0]["error"] == pytest.approx(compiled[1]["error"], abs=1e-9)  # both families hold one function
    assert (out / "density.png").read_bytes().startswith(b"\x89PNG")
    assert len(re.findall(r"^\|", (out / "table.md").read_text(), re.MULTILINE)) == 2 + 6


def test_overrides_are_refused_where_no_run_is_trained(capsys):
    assert main(["benchmark", "suite=layers", "overrides=['device=cpu']"]) == 2
    assert "suite=layers takes no overrides" in capsys.readouterr().err


def test_the_upper_bound_of_the_coverage_suite_is_that_of_the_package(monkeypatch):
    """Two laws on known supports: the suite's bound is `population_bounds`' own, and holds."""
    monkeypatch.setattr(coverage, "UPPER_REPETITIONS", 1)
    row = coverage._upper_row(dim=2, n=50, seed=3)
    rng = torch.Generator().manual_seed(3)
    x, _, y, _ = torch.rand(4, 50, 2, generator=rng, dtype=torch.float64)
    y = y + torch.tensor([1.0, 0.0])
    critic = ResNetCritic(2, width=4, depth=1)
    bounds = population_bounds(critic, x, y, clip=(-1.0, 1.0), level=coverage.LEVEL, diameters=(2**0.5, 2**0.5))
    assert row["upper"] == pytest.approx(bounds.upper, rel=1e-9) and row["coverage"] == 1.0
    assert row["triangle"] > solve(x, y).value and row["w1"] == 1.0


def test_pictures_of_pages_ask_for_chromium_before_anything_is_trained(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("wgan_lip.benchmarks.browser.shutil.which", lambda name: None)
    assert main(["benchmark", "suite=inspect", f"out={tmp_path / 'out'}"]) == 2
    assert "apt-get install chromium" in capsys.readouterr().err and not (tmp_path / "out" / "runs").exists()


@pytest.mark.skipif(not any(map(shutil.which, NAMES)), reason="needs chromium")
def test_a_browser_measures_a_page_in_its_width_and_scheme(tmp_path):
    page = "<style>@media (prefers-color-scheme: dark) { p { width: 500px } }</style><p>x</p>"
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html><meta charset=utf-8>{page}", encoding="utf-8")
    with browsing() as browser:
        found = []
        for dark in (False, True):
            browser.open((tmp_path / "page.html").as_uri(), width=400, dark=dark)
            found.append(browser.overflow())
        browser.shoot(tmp_path / "page.png")
        with pytest.raises(InputError, match="failed to evaluate nothing.of.this"):
            browser.evaluate("nothing.of.this")
    assert found[0] == 0 < 100 <= found[1]
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.size == (400, 900)
