"""Critics on laws whose truth is known: what is measured against closed forms, and suites that resume."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import time
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from wgan_lip import figures
from wgan_lip.benchmarks import cases as case_files
from wgan_lip.benchmarks import contest, funnels, oracles, rivals
from wgan_lip.benchmarks.cases import run_cases
from wgan_lip.benchmarks.contest import Case, train_and_measure
from wgan_lip.benchmarks.methods import METHODS, SOLVERS, Method
from wgan_lip.cli import config_directory, main
from wgan_lip.critics import ResNetCritic
from wgan_lip.data import Digits
from wgan_lip.data.oracles import Ball, Dilation, RayMonotone, Shift
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers import Claim, Linear, LipschitzLayer, Squeeze, cones
from wgan_lip.lipschitz.optimizers import parameter_groups
from wgan_lip.training import SCHEDULES
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError


class Falling(LipschitzLayer):
    """x ↦ −factor · min_k(‖x − a_k‖ + b_k): `factor` times the potential of funnels; it claims what it is told."""

    def __init__(self, dim, centres, biases, factor=1.0, claimed=1.0):
        super().__init__()
        self.centres, self.biases = nn.Parameter(centres.clone()), nn.Parameter(biases.clone())
        self.factor, self.claimed = factor, claimed

    def forward(self, x):
        distances = torch.cdist(x.to(self.centres), self.centres, compute_mode="donot_use_mm_for_euclid_dist")
        return -self.factor * (distances + self.biases).amin(dim=1, keepdim=True)

    def claim(self):
        return Claim(self.claimed, "told", Norm.euclidean(self.centres.shape[1]), Norm((1,)))


def falling(dim, **arguments):
    return nn.Sequential(Falling(dim, **arguments), Squeeze())


def plain(dim):
    return nn.Sequential(Linear(Norm.euclidean(dim), Norm((1,))), Squeeze())


def not_finite(dim):
    critic = plain(dim)
    nn.init.constant_(critic[0].weight, math.nan)
    return critic


def refuses(dim):
    raise InputError("Expected another dimension. Got this one.")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(contest, "CHUNK", 1024)
    monkeypatch.setattr(contest, "START", 512)
    monkeypatch.setattr(contest, "ERROR", 0.03)
    monkeypatch.setattr(contest, "estimate_lipschitz", partial(contest.estimate_lipschitz, starts=32, steps=8))


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs the cases one after the other, here, and lists their names."""
    names = []

    def outcomes(cases, workers):
        for case in cases:
            names.append(case.name)
            yield (
                case,
                train_and_measure(
                    case.method, case.pair, seconds=case.seconds, batch=case.batch, seed=case.labels["seed"]
                ),
            )

    monkeypatch.setattr(case_files, "_outcomes", outcomes)
    return names


def truth(oracle, **arguments):
    return Method(falling, {"centres": oracle.centres, "biases": oracle.biases, **arguments})


def test_the_potential_itself_is_perfect_by_every_measure():
    oracle = RayMonotone(dim=4, funnels=16, draws=200_000)
    row = train_and_measure(truth(oracle), oracle, seconds=0.0)
    assert row["cosine"] == pytest.approx(1, abs=1e-12)
    assert row["ratio"] == row["certified_ratio"] == pytest.approx(1, abs=1e-12)
    assert row["ratio_error"] < 1e-12
    assert row["ray_gradient_norm"] == pytest.approx(1, abs=1e-12)
    assert row["tightness"] == pytest.approx(1, abs=1e-9)
    assert abs(row["truth"] - oracle.w1) < 4 * math.hypot(row["truth_error"], oracle.w1_error)
    assert max(row["truth_error"], row["value_error"]) <= 0.03 * row["truth"]
    assert row["steps"] == 0 and row["lipschitz"] == 1.0
    json.dumps(row, allow_nan=False)


def test_the_truth_of_pairs_is_w1_in_closed_form(monkeypatch):
    monkeypatch.setattr(contest, "ERROR", 0.003)
    oracle = Dilation(dim=3)  # f = ‖x‖, minus the critic below
    row = train_and_measure(truth(oracle, factor=-1.0), oracle, seconds=0.0)
    assert row["cosine"] == pytest.approx(1, abs=1e-12)
    assert abs(row["value"] - oracle.w1) < 4 * row["value_error"] <= 4 * 0.003 * row["truth"]


def test_cosines_are_taken_where_the_potential_has_a_gradient():
    oracle = Ball(dim=2)  # f = (‖x‖ − 1)₊, constant where 39 % of P is

    def potential(dim):
        centre = torch.zeros(1, dim, dtype=torch.float64)
        return nn.Sequential(Falling(dim, centre, torch.tensor([-1.0]), factor=-1.0), nn.ReLU(), Squeeze())

    row = train_and_measure(Method(potential), oracle, seconds=0.0)
    assert row["cosine"] == pytest.approx(1, abs=1e-9)
    assert row["ray_gradient_norm"] == pytest.approx(1, abs=1e-9)  # of pairs that move
    assert row["ratio"] == pytest.approx(1, abs=1e-9)


def test_a_steeper_potential_is_divided_by_its_constant():
    oracle = RayMonotone(dim=2, funnels=4)
    row = train_and_measure(truth(oracle, factor=3.0, claimed=3.0), oracle, seconds=0.0)
    assert row["ratio"] == pytest.approx(3, abs=1e-9)
    assert row["certified_ratio"] == pytest.approx(1, abs=1e-9)
    assert row["ray_gradient_norm"] == pytest.approx(3, abs=1e-9)


def test_a_wrong_certificate_is_a_bug_and_no_row():
    oracle = RayMonotone(dim=2, funnels=4)
    with pytest.raises(RuntimeError, match="a bug in a proof"):
        train_and_measure(truth(oracle, factor=1.1), oracle, seconds=0.0)


def test_a_linear_critic_has_the_share_of_a_shift_that_its_cosine_says_and_learns_it_all():
    oracle, row = Shift(dim=3, length=2.0), {}
    for seconds in (0.0, 1.0):
        row[seconds] = train_and_measure(Method(plain), oracle, seconds=seconds, seed=3)
        assert row[seconds]["ratio"] == pytest.approx(row[seconds]["cosine"], abs=1e-5)  # ⟨w, −e⟩ for ‖w‖ = 1
        assert row[seconds]["truth"] == pytest.approx(2.0, abs=1e-12)
    assert row[1.0]["steps"] > 0
    assert row[0.0]["cosine"] < 0.95 < 0.99 < row[1.0]["cosine"]


def test_weights_that_are_not_finite_are_told_and_not_measured():
    row = train_and_measure(Method(not_finite), Shift(dim=2), seconds=0.0)
    assert row["failed"] == "its weights are not finite after 0 steps"
    rows = [{"dim": 2, "funnels": 4, "method": "linear", "seed": 0, **row}]
    assert "| linear | certified | 0 of 1 |" in funnels._table(rows)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_its_certificate_holds(method):
    row = train_and_measure(METHODS[method], RayMonotone(dim=2, funnels=4), seconds=0.05, batch=16)
    assert row["certified_ratio"] <= 1 + 1e-9 and row["found"] <= row["lipschitz"]
    assert row["guarantee"] in ("certified", "certified, conservative", "not certified")
    assert row["guarantee"] != "certified" or row["lipschitz"] <= 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_start_at_the_rate_and_never_rise(name):
    shares = [SCHEDULES[name](step / 10) for step in range(11)]
    assert shares[0] == 1 and shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx({"constant": 1.0, "linear_to_tenth": 0.1}.get(name, 0.0), abs=1e-12)


def test_every_group_follows_the_schedule_from_its_own_rate(monkeypatch):
    clock = iter(range(0, 100, 5))
    monkeypatch.setattr(contest.time, "process_time", lambda: next(clock))
    seen = []
    monkeypatch.setattr(
        contest,
        "ascend",
        lambda critic, optimizer, x, y: seen.append([group["lr"] for group in optimizer.param_groups]),
    )
    method, critic = Method(ResNetCritic, learning_rate=0.4, schedule="linear"), ResNetCritic(2, width=16, depth=1)
    start = [group["lr"] for group in parameter_groups(critic, 0.4)]
    assert contest._ascended(critic, method, Shift(dim=2), 20.0, 4, torch.Generator(), 0.0) == 4
    assert seen == [[pytest.approx(rate * (1 - share)) for rate in start] for share in (0, 0.25, 0.5, 0.75)]


@pytest.mark.parametrize("name", ["Adam", "NAdam", "RMSprop", "SGD"])
def test_an_optimiser_is_made_as_the_method_says(name):
    optimizer = Method(plain, learning_rate=0.5, betas=(0.3, 0.4), optimizer=name).new_optimizer(plain(2))
    assert type(optimizer).__name__ == name
    assert [group["lr"] for group in optimizer.param_groups] == [
        group["lr"] for group in parameter_groups(plain(2), 0.5)
    ]
    assert optimizer.defaults.get("betas", (0.3, 0.4)) == (0.3, 0.4) and optimizer.defaults.get("momentum", 0.3) == 0.3


def cases(names, seconds=0.01):
    return [Case({"pair": name, "method": "plain", "seed": 0}, Shift(dim=2), Method(plain), seconds) for name in names]


def test_an_interrupted_suite_runs_only_what_is_missing(in_this_process, tmp_path, monkeypatch, capsys):
    write = case_files.write_json

    def interrupted(path, content):
        if path.name.startswith("c-"):
            raise KeyboardInterrupt
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(case_files, "write_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_cases(cases("abcd"), tmp_path)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "cases").iterdir()}
    assert sorted(kept) == ["a-plain-seed0.json", "b-plain-seed0.json"]
    in_this_process.clear()
    capsys.readouterr()
    rows = run_cases(cases("abcd"), tmp_path)
    assert in_this_process == ["c-plain-seed0", "d-plain-seed0"]
    assert [row["pair"] for row in rows] == list("abcd")
    assert all((tmp_path / "cases" / name).read_bytes() == content for name, content in kept.items())
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        "[3/4] c-plain-seed0",
        "[4/4] d-plain-seed0",
    ]


def test_a_case_of_other_settings_is_refused_before_anything_runs(in_this_process, tmp_path):
    run_cases(cases("b"), tmp_path)
    in_this_process.clear()
    with pytest.raises(
        InputError, match=r"b-plain-seed0.json .*has other settings: seconds 0.01 instead of 0.02. Choose another out"
    ):
        run_cases(cases("ab", seconds=0.02), tmp_path)
    assert in_this_process == []


def test_a_damaged_case_is_refused_in_one_line(in_this_process, tmp_path):
    run_cases(cases("a"), tmp_path)
    (tmp_path / "cases" / "a-plain-seed0.json").write_text("{")
    with pytest.raises(InputError, match="is damaged: .* Delete it"):
        run_cases(cases("a"), tmp_path)


def test_processes_give_the_same_rows_and_tell_a_failure_in_one_line(tmp_path):
    """Untrained critics, so that no clock has a say."""
    good, bad = cases("a", seconds=0.0), Case({"method": "bad", "seed": 0}, Shift(dim=2), Method(refuses), 0.0)
    with pytest.raises(InputError, match="The case bad-seed0 failed: InputError: Expected another"):
        run_cases([*good, bad], tmp_path, workers=1)
    content = json.loads((tmp_path / "cases" / "a-plain-seed0.json").read_text())
    assert content["settings"] == json.loads(json.dumps(good[0].settings()))
    assert content["row"]["steps"] == 0 and content["row"]["lipschitz"] <= 1
    assert content["row"]["ratio"] == pytest.approx(content["row"]["cosine"], abs=1e-5)


@pytest.mark.parametrize(
    ("suite", "overrides", "message"),
    [
        (
            "funnels",
            ["dims"],
            "Overrides must have the form KEY=VALUE with KEY in dims, funnels, draws, methods, seconds",
        ),
        ("funnels", ["pairs=shift"], "KEY in dims, funnels, draws, methods, seconds, not 'pairs=shift'"),
        ("funnels", ["dims=3"], "dims must be among 2, 4, 8, 16, 32, 64, 128, not '3'"),
        ("funnels", ["draws=10"], "draws must be among 0, 1, .*, not '10'"),
        ("funnels", ["methods=cones,linaer"], "methods must be among cones, .*, not 'linaer'"),
        ("funnels", ["seconds=0"], "seconds must be a positive number, not '0'"),
        ("funnels", ["seconds=inf"], "seconds must be a positive number, not 'inf'"),
        ("funnels", ["seconds=soon"], "seconds must be a positive number, not 'soon'"),
        ("funnels", ["dims=2", "dims=4"], "The override dims is given twice"),
        ("oracles", ["pairs=ray_monotone"], "pairs must be among shift, .*, not 'ray_monotone'"),
    ],
)
def test_overrides_that_mean_nothing_are_refused(suite, overrides, message, tmp_path):
    measure = {"funnels": funnels.measure, "oracles": oracles.measure}[suite]
    with pytest.raises(InputError, match=message):
        measure([0], overrides, tmp_path)
    assert not list(tmp_path.iterdir())


def test_funnels_writes_table_figure_and_all_figures(in_this_process, tmp_path, capsys):
    overrides = "overrides=['dims=2','funnels=16,4','methods=linear,gradient_penalty','seconds=0.05']"
    assert main(["benchmark", "suite=funnels", "seeds=[0,1]", overrides, f"out={tmp_path}"]) == 0
    assert in_this_process == [
        f"dim2-funnels{funnels}-{method}-seed{seed}"
        for seed, funnels, method in product((0, 1), (4, 16), ("linear", "gradient_penalty"))
    ]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["command"] == f'wgan-lip benchmark suite=funnels seeds=[0,1] "{overrides}"'
    assert len(results["rows"]) == 8 and {"torch", "processor"} <= results["machine"].keys()
    assert results["published"]["settings"][0]["cosine"] == funnels.PUBLISHED[2, 4].cosine
    assert (tmp_path / "funnels.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert "| gradient_penalty | not certified | 4 |" in table
    assert table.startswith("| dimension | funnels | best published cosine | linear | best baseline trained here |\n")
    assert len(re.findall(r"^\| 2 \| (?:4|16) \| 0\.8\d+, \S+ \| ", table, re.MULTILINE)) == 2


def test_funnels_measures_several_draws_of_the_centres(in_this_process, tmp_path):
    overrides = "overrides=['dims=2','funnels=4','draws=0,2','methods=linear','seconds=0.05']"
    assert main(["benchmark", "suite=funnels", overrides, f"out={tmp_path}"]) == 0
    assert in_this_process == ["dim2-funnels4-linear-seed0", "dim2-funnels4-draw2-linear-seed0"]
    first, second = (row["certified_ratio"] for row in json.loads((tmp_path / "results.json").read_text())["rows"])
    cells = f"| 2 | 4 | linear | {100 * first:.1f} % | {100 * second:.1f} % |"
    assert first != second and cells in (tmp_path / "table.md").read_text()


def test_few_samples_start_a_critic_in_many_dimensions(monkeypatch):
    sizes = []
    monkeypatch.setattr(contest, "START_ENTRIES", 4 * 300)
    monkeypatch.setattr(ResNetCritic, "start_at", lambda critic, x, y, solver: sizes.append(len(x)))
    monkeypatch.setattr(contest, "_ascended", lambda *_: 0)
    contest.trained(Method(ResNetCritic), Shift(dim=4), seconds=1000.0, batch=8, seed=0)
    assert max(sizes) == 300


def test_oracles_writes_table_figure_and_all_figures(in_this_process, tmp_path, capsys):
    overrides = "overrides=['pairs=shift,simplex','methods=linear,clipped','seconds=0.05']"
    assert main(["benchmark", "suite=oracles", overrides, f"out={tmp_path}"]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert {row["pair"]: row["cosine"] is None for row in results["rows"]} == {"shift": False, "simplex": True}
    assert (tmp_path / "oracles.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert len(re.findall(r"^\| simplex \|", table, re.MULTILINE)) == 4


def figures_of(dim, count, method, cosine):
    shares = {"ratio": 0.9, "certified_ratio": 0.9, "lipschitz": 1.0, "tightness": 1.0, "ray_gradient_norm": 1.0}
    labels = {"dim": dim, "funnels": count, "method": method, "seed": 0}
    return {**labels, **shares, "cosine": cosine, "steps": 7, "guarantee": "not certified"}


def test_bold_is_what_is_above_the_best_published_cosine():
    best = funnels.PUBLISHED[16, 64].cosine
    rows = [
        figures_of(16, 64, "cones", best + 0.01),
        figures_of(16, 64, "linear", best - 0.01),
        figures_of(16, 64, "clipped", 0.1),
        figures_of(16, 64, "gradient_penalty", 0.2),
    ]
    table = funnels._table(rows).splitlines()
    assert table[2] == (
        f"| 16 | 64 | {best:.4f}, wgan-gp | **{best + 0.01:.4f}** | {best - 0.01:.4f} "
        "| 0.2000, gradient_penalty (not certified) | 90.0 % | 1 |"
    )
    assert "| cones | not certified | 1 | 0.7946 | 1 | 90.0 % |" in "\n".join(table)


def test_the_published_figures_agree_with_one_another():
    assert list(funnels.PUBLISHED) == list(product(funnels.DIMS, funnels.FUNNELS))
    for published in funnels.PUBLISHED.values():
        assert max(published.sort_cosine, published.penalty_cosine) <= published.cosine < 1
        if published.method in ("sort-out", "wgan-gp"):
            of = {"sort-out": published.sort_cosine, "wgan-gp": published.penalty_cosine}
            assert of[published.method] == published.cosine


@pytest.mark.parametrize("source", oracles.SOURCES)
def test_a_translation_has_the_w1_and_the_gradient_it_says(source):
    pair, rng = oracles.Translation(source, length=1.5), torch.Generator().manual_seed(0)
    x, y = pair.pair(60, rng)
    assert solve(x, y).value == pytest.approx(1.5, rel=1e-9)
    gradient = pair.gradient(x)
    torch.testing.assert_close(gradient.norm(dim=1), torch.ones(60, dtype=torch.float64))
    torch.testing.assert_close(((x - y) * gradient).sum(dim=1), torch.full((60,), 1.5, dtype=torch.float64))


def test_digits_train_on_two_halves_and_are_measured_on_neither():
    pair, rng, source = oracles.Translation("digits"), torch.Generator().manual_seed(0), Digits()
    x, y = pair.sample(2000, 2000, rng)
    held_out, _ = pair.pair(2000, rng)
    y = y - 1 / 8
    middle = len(source.train) // 2

    def rows(samples, of):
        return (torch.cdist(samples.double(), of.double()) < 1e-4).any(dim=1)

    assert rows(x, source.train[:middle]).all() and rows(y, source.train[middle:]).all()
    assert rows(held_out, source.test).all()


def test_all_oracles_but_the_funnels_of_the_other_suite_are_pairs():
    assert RayMonotone.name not in oracles.PAIRS and len(oracles.PAIRS) == 16
    for make in oracles.PAIRS.values():
        pair = make()
        x, y = pair.sample(3, 4, torch.Generator().manual_seed(0))
        assert x.shape == (3, pair.dim) and y.shape == (4, pair.dim)


def test_score_curves_hold_every_point_with_one_style_a_label_and_one_legend_outside():
    panels = {
        "dimension 2": {"best published": [(4, 0.9), (16, 0.5)], "ours": [(4, 0.95), (16, 0.7)]},
        "dimension 4": {"ours": [(16, -0.2)], "theirs": [(4, 0.3), (16, 0.2)]},
    }
    figure = figures.score_curves(panels, size="funnels", quantity="cosine", title="t")
    figures.to_array(figure)
    for axes, curves in zip(figure.axes, panels.values(), strict=True):
        assert [np.transpose(line.get_data()).tolist() for line in axes.lines] == [
            [list(map(float, point)) for point in curve] for curve in curves.values()
        ]
        assert axes.get_ylim()[0] <= min(score for curve in curves.values() for _, score in curve)
    styles = [
        [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines] for axes in figure.axes
    ]
    assert styles[0][1] == styles[1][0]
    assert len({*styles[0], *styles[1]}) == 3
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["best published", "ours", "theirs"]
    lowest = min(axes.get_tightbbox().y0 for axes in figure.axes)
    assert legend.get_window_extent().y1 <= lowest


def test_score_dots_keep_subjects_in_their_lines():
    marks = {"ours": {"shift": 0.9, "ball": 0.8}, "theirs": {"ball": 1.2}}
    figure = figures.score_dots(marks, quantity="share of W1", title="t")
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    drawn = [
        {names[round(height)]: share for share, height in np.transpose(line.get_data()).tolist()}
        for line in axes.lines[:2]
    ]
    assert drawn == list(marks.values())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(marks)


def test_an_untrained_critic_starts_from_samples_of_its_pair():
    """One seed, no step, two pairs: only the start can tell the critics apart."""
    found = {}
    for offset in (0.0, 5.0):
        torch.manual_seed(0)
        pair = oracles.Translation("gaussians8", length=1.0 + offset)
        method = Method(ResNetCritic, {"depth": 1})
        critic, _ = contest.trained(method, pair, seconds=0.0, batch=8, seed=0)
        found[offset] = critic.block_1.bias.detach()
    assert not torch.equal(found[0.0], found[5.0])


def backwards(x, y):
    """A potential that grows towards the other law."""
    ahead = (y.mean(dim=0) - x.mean(dim=0)).double()
    return lambda points: points.double() @ ahead / ahead.norm()


@pytest.mark.parametrize(("solver", "winner"), [(backwards, "samples"), (contest.SOLVERS["transport"], "transport")])
def test_the_start_with_the_greater_value_on_fresh_samples_trains_on(solver, winner, monkeypatch):
    monkeypatch.setitem(SOLVERS, "transport", solver)
    monkeypatch.setattr(contest, "START", 1024)
    arguments = {"depth": 0, "readout": "cones", "centers": 128}
    method = Method(ResNetCritic, arguments, starts=("transport", "samples"))
    row = train_and_measure(method, Shift(dim=4, length=2.0), seconds=0.0)
    assert row["start"] == winner
    assert Method(ResNetCritic, arguments).settings() != method.settings()


def test_each_start_of_several_trains_for_its_share_and_the_best_for_the_rest(monkeypatch):
    trained = []

    def ascended(critic, method, pair, seconds, *_):
        trained.append((critic, seconds))
        return 1

    monkeypatch.setattr(contest, "_ascended", ascended)
    monkeypatch.setattr(contest, "START", 256)
    method = Method(ResNetCritic, {"depth": 0, "readout": "cones", "centers": 16}, starts=("transport", "samples"))
    critic, how = contest.trained(method, Shift(dim=2), seconds=100.0, batch=8, seed=0)
    (first, a), (second, b), (third, rest) = trained
    assert a == b == 15.0 and 60 < rest < 100 and how["steps"] == 3
    assert first is not second and third is critic is (first if how["start"] == "transport" else second)


@pytest.mark.parametrize("seconds", [2.0, 20.0, 2000.0])
def test_a_start_takes_a_tenth_of_the_time_at_most(seconds, monkeypatch):
    """By a clock that the solver moves, by the cube of what it solves, and clusters, by how many points they are of."""
    now, sizes = [0.0], []

    def clusters(rows, count):
        now[0] += 1e-4 * len(rows)
        return rows[:count]

    def slow(x, y):
        sizes.append(len(x))
        now[0] += 1e-3 * (len(x) / 64) ** 3
        return lambda points: points.sum(dim=1)

    monkeypatch.setattr(contest.time, "process_time", lambda: now[0])
    monkeypatch.setitem(SOLVERS, "transport", slow)
    monkeypatch.setattr(contest, "START", 4096)
    monkeypatch.setattr(cones, "_tips", clusters)
    monkeypatch.setattr(contest, "_ascended", lambda *_: 0)
    method = Method(ResNetCritic, {"depth": 0, "readout": "cones", "centers": 8}, starts=("transport",))
    contest.trained(method, Shift(dim=2), seconds=seconds, batch=8, seed=0)
    assert 0.02 * seconds < now[0] <= 0.1 * seconds or sizes[-1] == 2048
    assert sizes == sorted(sizes)


def test_few_pairs_at_a_time_are_measured_in_many_dimensions(monkeypatch):
    monkeypatch.setattr(contest, "ENTRIES", 300)
    assert contest._chunk(Shift(dim=2)) == 150 and contest._chunk(Shift(dim=500)) == 1


def test_a_critic_that_cannot_start_at_samples_has_no_start():
    assert train_and_measure(Method(plain), Shift(dim=2), seconds=0.0)["start"] is None


def trained(directory, arguments, *, may_stop):
    assert may_stop
    if "critic=clipped" in arguments and "seed=1" in arguments:
        return {"command": "wgan-lip train", "stopped": "a value was not finite"}
    excess = 0.5 + 0.5 * ("seed=1" in arguments)
    score = {"excess": excess, "real": 0.25, "floor": 2.0, "ratio": 1 + excess / 2}
    modes = {"covered": 8, "total": 8, "within": 0.5} if "experiment=gaussians8" in arguments else None
    near = {"samples": {"values": {"recall": 0.875}, "floors": {"recall": 1.0}}}
    row = {"command": " ".join(arguments), "score": score, "scores": near, "modes": modes}
    return {**row, "guarantee": "g", "training_seconds": 7.0}


def test_rivals_train_alike_and_those_that_stop_are_counted(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(rivals, "train_case", trained)
    overrides = "overrides=['experiments=gaussians8,digits','critics=gradient_penalty,clipped','training.steps=9']"
    assert main(["benchmark", "suite=rivals", "seeds=[0,1]", overrides, f"out={tmp_path}"]) == 0
    table = (tmp_path / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert (
        "| gaussians8 | gradient_penalty | g | 0.75 ± 0.35 | 0.5 | 1 | 0.25 | 0.875 (1.000) | 1.38 | 0 of 2 | 50.0 % | 7 |"
        in table
    )
    assert "| digits | clipped | g | 0.5 | 0.5 | 0.5 | 0.25 | 0.875 (1.000) | 1.25 | 1 of 2 |  | 7 |" in table
    results = json.loads((tmp_path / "results.json").read_text())
    assert all("training.steps=9" in row["command"] for row in results["rows"] if "score" in row)
    assert results["critics"].keys() == {"gradient_penalty", "clipped"}
    assert (tmp_path / "rivals.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", rivals.CRITICS)
def test_every_rival_is_a_setting_that_composes(name):
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        config = compose("train", overrides=["experiment=gaussians8", *rivals.CRITICS[name]])
    assert config.critic_optimizer.lr > 0


def test_a_rival_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InputError, match="critics must be among .*clipped.* not 'clip'"):
        rivals.measure([0], ["critics=clip"], tmp_path)


def test_no_process_of_a_suite_outlives_a_signal(monkeypatch, tmp_path, capsys):
    ended = []

    def suite(**settings):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            ended.append("its processes, in `_outcomes`")

    monkeypatch.setattr("wgan_lip.benchmarks.benchmark", suite)
    assert main(["benchmark", "suite=oracles", f"out={tmp_path}"]) == 143 and ended
    assert "interrupted by SIGTERM" in capsys.readouterr().err
