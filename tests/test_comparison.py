"""Runs side by side: grouped by configuration, ranked by the stated rule, told in a table, a file and a page."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import math
import re
import shutil
import statistics
from pathlib import Path

import pytest
from conftest import TINY
from omegaconf import OmegaConf
from scipy.stats import ttest_rel
from test_report import CHROMIUM, browse, check_whole_and_readable, probe

import wgan_lip
from wgan_lip.cli import main
from wgan_lip.inspection.compare import compare_runs, find_runs
from wgan_lip.inspection.pages import comparison_page
from wgan_lip.runs.run import Run
from wgan_lip.utils.checks import InputError


def forge(run: Path, to: Path, *, score: float | None = None, seconds: float | None = None, **settings) -> Path:
    """A copy of a run with other settings and another score."""
    shutil.copytree(run, to)
    config = OmegaConf.load(to / "config.yaml")
    for key, value in settings.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    OmegaConf.save(config, to / "config.yaml")
    summary = json.loads((to / "summary.json").read_text())
    summary["score"]["excess"] = summary["score"]["excess"] if score is None else score
    summary["training_seconds"] = summary["training_seconds"] if seconds is None else seconds
    (to / "summary.json").write_text(json.dumps(summary))
    return to


@pytest.fixture
def sweep(tiny_run, tmp_path) -> Path:
    """Two configurations with two seeds each, in a folder as a sweep leaves them, and a job that was cut off."""
    folder = tmp_path / "sweep"
    for job, (lr, seed, score) in enumerate([(0.1, 0, 1.5), (0.1, 1, 1.1), (0.2, 0, 1.2), (0.2, 1, 1.3)]):
        forge(tiny_run, folder / str(job), score=score, critic_optimizer__lr=lr, seed=seed)
    forge(tiny_run, folder / "10", critic_optimizer__lr=0.2, seed=2)
    (folder / "10" / "summary.json").unlink()
    return folder


def test_runs_that_differ_in_their_seed_are_one_configuration_with_mean_and_spread(sweep):
    compared = compare_runs(find_runs([sweep]))
    told = {group.label: group for group in compared.groups}
    assert set(told) == {"critic_optimizer.lr=0.1", "critic_optimizer.lr=0.2"}
    mean, spread = told["critic_optimizer.lr=0.1"].mean_and_spread("score")
    assert mean == pytest.approx(1.3) and spread == pytest.approx(statistics.stdev([1.5, 1.1]))
    assert [entry.directory.name for entry in told["critic_optimizer.lr=0.2"].entries] == ["2", "3", "10"]
    assert compared.differences == {"critic_optimizer.lr": tuple(group.label[-3:] for group in compared.groups)}


def test_the_best_setting_has_the_lowest_mean_and_a_lucky_seed_does_not_decide(sweep):
    """Means 1.3 and 1.25 of final scores, the lowest score of all in the setting of the higher mean."""
    ((league, lead),) = compare_runs(find_runs([sweep])).best.items()
    assert lead.first.label == "critic_optimizer.lr=0.2" and lead.run.directory.name == "2" and league == "Digits"
    assert lead.second.label == "critic_optimizer.lr=0.1" and lead.shared == 2
    reference = ttest_rel([1.5, 1.1], [1.2, 1.3])
    assert lead.gap == pytest.approx(0.05) and lead.error == pytest.approx(0.25)
    assert lead.pvalue == pytest.approx(reference.pvalue) and lead.gap / lead.error == pytest.approx(
        reference.statistic
    )


def test_final_scores_go_before_those_of_audits(sweep):
    (sweep / "0" / "summary.json").unlink()
    (audited,) = compare_runs([Run(sweep / "10"), Run(sweep / "0")]).best.values()
    assert not audited.run.standing.final, "no run of them has final scores"
    finals = compare_runs([Run(sweep / "10"), Run(forge(sweep / "1", sweep / "11", score=99.0, seed=9))])
    assert [lead.run.directory.name for lead in finals.best.values()] == ["11"], "a final score goes before an audit's"
    assert [group.final for group in finals.groups] == [True, False]


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ({0: 1.0}, {0: 3.0}, (2.0, math.nan, math.nan, 1)),
        ({0: 1.0, 1: 2.0}, {5: 3.5}, (2.0, math.nan, math.nan, 0)),
        ({0: 1.0, 1: 1.0, 2: 1.0}, {0: 2.0, 1: 2.0, 2: 2.0}, (1.0, 0.0, 0.0, 3)),
        ({0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0}, (0.0, 0.0, 1.0, 2)),
        ({0: 1.0}, None, (math.nan, math.nan, math.nan, 0)),
    ],
)
def test_a_lead_says_what_it_rests_on(tiny_run, tmp_path, ours, theirs, expected):
    for name, lr, scores in (("a", 0.1, ours), ("b", 0.2, theirs or {})):
        for seed, score in scores.items():
            forge(tiny_run, tmp_path / f"{name}{seed}", score=score, critic_optimizer__lr=lr, seed=seed)
    if theirs is None:
        forge(tiny_run, tmp_path / "a1", score=9.0, critic_optimizer__lr=0.1, seed=1)
    (lead,) = compare_runs(find_runs([tmp_path])).best.values()
    found = (lead.gap, lead.error, lead.pvalue, lead.shared)
    assert found == pytest.approx(expected, nan_ok=True)
    text = lead.verdict()
    assert ("Train both with the same seeds" in text) == (lead.second is not None and lead.shared < 2)
    assert ("paired t-test" in text) == (lead.shared > 1) and ("No other setting" in text) == (theirs is None)


def test_of_equal_scores_the_quicker_run_is_better_and_other_data_are_another_league(tiny_run, tmp_path):
    slow = forge(tiny_run, tmp_path / "slow", score=1.0, seconds=9.0)
    quick = forge(tiny_run, tmp_path / "quick", score=1.0, seconds=8.0, seed=1)
    other = forge(tiny_run, tmp_path / "other", score=0.5, data__test_size=99)
    compared = compare_runs(find_runs([slow, quick, other]))
    assert [lead.run.directory.name for lead in compared.best.values()] == ["other", "quick"]
    assert all(lead.second is None for lead in compared.best.values())


def test_runs_that_are_all_alike_are_one_group(tiny_run, tmp_path):
    compared = compare_runs([Run(forge(tiny_run, tmp_path / name, threads=index)) for index, name in enumerate("ab")])
    (group,) = compared.groups
    assert len(group.entries) == 2 and group.mean_and_spread("score")[1] == 0 and compared.differences == {}
    check_whole_and_readable(comparison_page(compared))


def test_a_class_that_differs_is_named_and_no_more_than_it_takes(tiny_run, tmp_path):
    a = forge(tiny_run, tmp_path / "a", critic={"_target_": "wgan_lip.critics.SortingCritic", "width": 9})
    b = forge(tiny_run, tmp_path / "b")
    assert {group.label for group in compare_runs(find_runs([a, b])).groups} == {"SortingCritic", "ResNetCritic"}


@pytest.mark.parametrize("state", ["running", "before the first record"])
def test_unfinished_runs_are_told_by_their_last_audit(tiny_run, tmp_path, state):
    half = forge(tiny_run, tmp_path / "half", seed=5)
    (half / "summary.json").unlink()
    if state != "running":
        (half / "metrics.jsonl").write_text("")
        (half / "checkpoint.pt").unlink()
    compared = compare_runs([Run(half), Run(tiny_run)])
    entry = compared.groups[0].entries[0]
    assert not entry.standing.final and math.isfinite(entry.standing.score) == (state == "running")
    text = comparison_page(compared)
    check_whole_and_readable(text)
    assert ("*</td>" in text) == (state == "running")


def test_the_command_writes_a_table_and_a_page_that_agree(sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", f"runs={sweep}"]) == 0
    screen = capsys.readouterr().out
    best = "Best on Digits: critic_optimizer.lr=0.2, excess over the floor 1.25 ± 0.071 over 2 seeds"
    assert best in " ".join(screen.split())
    assert f"best run: {sweep}/2, excess 1.2" in screen and "1.300 ± 0.28" in screen and "last audit" in screen
    assert max(map(len, screen.splitlines())) <= 120 or "pytest" in screen
    with open("outputs/compare/compare.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 and {row["seed"] for row in rows} == {"0", "1", "2"}
    assert float(next(row for row in rows if row["run"].endswith("/1"))["score"]) == 1.1
    outline = check_whole_and_readable(Path("outputs/compare/compare.html").read_text(encoding="utf-8"))
    text = " ".join(outline.text)
    assert (
        all(Path(row["run"]).name in text for row in rows)
        and str(sweep) in text
        and "Settings are ranked by their mean excess over the floor" in text
    )
    assert len(outline.all("script")) == 1 and len(outline.all("table")) == 3


def test_python_compares_as_the_command_does_and_shows_it_in_a_notebook(sweep):
    compared = wgan_lip.compare(sweep)
    lead = next(iter(compared.best.values()))
    assert lead.verdict() in " ".join(str(compared).split()) and "5 runs in 2 settings" in str(compared)
    shown = compared._repr_html_()
    assert shown.count("<svg") == 1 and shown.count("<img") == 2, "curves, and samples of each setting"
    (behind,) = compared.behind.items()
    assert behind[1].second.label == behind[0] != lead.first.label and behind[1].gap == lead.gap


def test_scripts_get_strict_json(sweep, capsys):
    assert main(["compare", f"runs={sweep}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    (best,) = told["best"]
    assert best["run"].endswith("/2") and best["score"] == pytest.approx(1.25) and len(told["runs"]) == 5
    assert best["next"] == "critic_optimizer.lr=0.1" and best["shared_seeds"] == 2 and 0 < best["pvalue"] < 1
    assert not Path("outputs/compare").exists()


def test_a_real_sweep_is_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = [*TINY, "evaluation.fit_steps=0", "data=moons"]
    assert main(["train", "--multirun", "critic=resnet,spectral_norm", *quick]) == 0
    capsys.readouterr()
    assert main(["compare", "runs=outputs/multirun", "out=null"]) == 0
    screen = capsys.readouterr().out
    assert screen.count("  critic=resnet ") == 1 and screen.count("  critic=spectral_norm ") == 1, "as it was typed"
    assert "Best on Moons: critic=" in screen and "one shared seed: not enough to tell them apart" in " ".join(
        screen.split()
    )


def test_settings_are_named_by_what_was_typed_where_that_tells_them_apart(tiny_run, tmp_path):
    a = forge(tiny_run, tmp_path / "a", critic_optimizer__lr=0.1)
    b = forge(tiny_run, tmp_path / "b", critic_optimizer__lr=0.2)

    def labels(of_a, of_b):
        for run, typed in ((a, of_a), (b, of_b)):
            (run / "overrides.json").write_text(json.dumps(typed))
        return {group.entries[0].directory.name: group.label for group in compare_runs([Run(a), Run(b)]).groups}

    typed = ["data=moons", "seed=3", "optimizer@critic_optimizer=sgd", "+extra.key=1"]
    assert labels(typed, ["data=moons", "device=cpu"]) == {
        "a": "optimizer@critic_optimizer=sgd, extra.key=1",
        "b": "defaults",
    }
    by_values = {"a": "critic_optimizer.lr=0.1", "b": "critic_optimizer.lr=0.2"}
    assert labels(["seed=1"], ["seed=2"]) == by_values, "what was typed does not tell them apart"
    assert labels(["wgan_lip.train(source)"], ["critic=cones"]) == by_values, "a call in Python types no keys"


def refused(capsys, *arguments: str) -> str:
    assert main(["compare", *arguments]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    return line


def test_what_cannot_be_compared_is_told_in_one_line(sweep, tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    empty, estimate, old = tmp_path / "empty", tmp_path / "estimate", tmp_path / "old"
    empty.mkdir()
    shutil.copytree(tiny_run, estimate)
    (estimate / "result.json").write_text("{}")
    shutil.copytree(tiny_run, old)
    (old / "summary.json").write_text('{"w1": 3}')
    assert "There are no runs in" in refused(capsys, f"runs={empty}")
    assert "There are no runs in" in refused(capsys, "runs=nowhere")
    assert "compare needs at least two runs, and found 1" in refused(capsys, f"runs={tiny_run}")
    assert "is the folder of an estimate" in refused(capsys, f"runs=[{tiny_run},{estimate}]")
    assert "summary.json" in refused(capsys, f"runs=[{tiny_run},{old}]")
    assert "runs must name folders" in refused(capsys, "runs=[3,4]")
    (sweep / "2" / "metrics.jsonl").write_text("garbage\n{}\n")
    assert "metrics.jsonl" in refused(capsys, f"runs={sweep}")
    (sweep / "2" / "metrics.jsonl").write_text("")
    (sweep / "2" / "config.yaml").write_text("")
    assert "config.yaml" in refused(capsys, f"runs={sweep}")
    Path("taken").write_text("")
    assert "Give out=FOLDER" in refused(capsys, f"runs=[{sweep}/0,{sweep}/1]", "out=taken")


def test_a_run_named_twice_is_compared_once(sweep, tiny_run):
    assert len(find_runs([sweep, sweep / "0", f"{sweep}/1*"])) == 5
    with pytest.raises(InputError, match="There are no runs in"):
        find_runs([f"{sweep}/z*"])


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, to see the page as a reader does")
def test_a_browser_shows_the_comparison_on_a_narrow_screen(sweep, tmp_path):
    found = probe(comparison_page(compare_runs(find_runs([sweep]))), tmp_path, width=380, dark=True)
    assert found["faint"] == [] and found["wide"] == [] and found["across"] <= 0


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, to click as a reader does")
def test_a_click_on_a_heading_sorts_under_the_policy_of_the_page(sweep, tmp_path):
    text = comparison_page(compare_runs(find_runs([sweep])))
    click = "document.querySelectorAll('table')[1].querySelectorAll('thead button')[4].click()"  # every run, by score
    digest = base64.b64encode(hashlib.sha256(click.encode()).digest()).decode()
    clicking = text.replace("script-src ", f"script-src 'sha256-{digest}' ").replace(
        "</body>", f"<script>{click}</script></body>"
    )
    (tmp_path / "page.html").write_text(clicking, encoding="utf-8")
    done = browse((tmp_path / "page.html").as_uri(), tmp_path, "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr
    (rows,) = re.findall(r"<caption>Every run[^<]*</caption>.*?<tbody>(.*?)</tbody>", done.stdout, re.DOTALL)
    order = [Path(run).name for run in re.findall(r'<tr><th scope="row">(.*?)</th>', rows)]
    told = {entry.directory.name: entry.standing.score for _, entry in compare_runs(find_runs([sweep])).entries}
    assert order == sorted(told, key=told.get) and 'aria-sort="ascending"' in done.stdout
