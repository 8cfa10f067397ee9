"""Every rule finds what it states, in runs that show it, and nothing in runs that don't."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil

import pytest
import torch
from conftest import TINY
from omegaconf import OmegaConf

from wgan_lip.cli import main
from wgan_lip.inspection.findings import RULES, Standing, audits, find
from wgan_lip.inspection.look import look_at
from wgan_lip.metrics import spread_over_real
from wgan_lip.runs.run import Run
from wgan_lip.utils.checks import InputError

MOONS = [*TINY, "data=moons", "critic.width=32", "generator.width=32", "training.batch_size=128", "evaluation.size=100"]


def standing(**changed) -> Standing:
    """One of a run in which nothing is to be found, but for what is changed."""
    sound = Standing(
        state="finished", step=100, final=True, lower=0.9, lower_as_trained=0.85, exact=1.0, upper=1.0, floor=0.5,
        score=0.02, score_error=0.01, real=0.01, real_error=0.01, blurred=0.3, ratio=1.02, trained=0.3, refitted=0.32,
        refitted_error=0.01, gradient=0.9, lipschitz=1.0, largest_gradient=0.99, guarantee="certified", covered=8,
        within=0.98, modes=8, spread=0.95, precision=0.95, recall=0.95, density=1.0, coverage=0.95, width=0.97,
        copies=0.01, copies_error=0.01, kid=0.1, kid_blurred=0.2, records=(), silent=5.0,
    )  # fmt: skip
    return dataclasses.replace(sound, **changed)


def audit(step: int, *, score: float = 0.0, lower: float = 0.9, **more) -> dict:
    return {"step": step, "time": 1.0 * step, "w1/lower": lower, "w1/exact": 1.0, "w1/upper": 1.0,
            "eval/excess": score, "eval/w1_floor": 1.0, **more}  # fmt: skip


def scores(*values: float) -> dict:
    return {"records": tuple(audit(step, score=score) for step, score in enumerate(values))}


SEEN = {
    "stopped writing": ({"state": "running", "silent": 601.0}, {"state": "running", "silent": 599.0}),
    "values not finite": (
        {"records": (audit(1), audit(2, **{"w1/critic": math.nan}))},
        {"records": (audit(1), audit(2, **{"w1/critic": 3.0}))},
    ),
    "put back": (
        {"records": (audit(1), audit(2, **{"guard/rollbacks": 1.0}))},
        {"records": (audit(1), audit(2, **{"guard/rollbacks": 0.0}))},
    ),
    "generator collapsed": ({"spread": 0.49}, {"spread": 0.51}),
    "modes missed": ({"covered": 7}, {"covered": 8}),
    "low recall": ({"recall": 0.89}, {"recall": 0.91}),
    "low coverage": ({"coverage": 0.89}, {"coverage": 0.91}),
    "narrowed modes": ({"width": 0.89}, {"width": 0.91}),
    "copies of training data": ({"copies": 0.06}, {"copies": 0.06, "copies_error": 0.03}),
    "worse than blur": ({"kid": 0.21}, {"kid": 0.21, "kid_blurred": math.nan}),
    "critic under-trained": ({"trained": 0.25}, {"trained": 0.26}),
    "interval not closing": ({"lower": 0.49}, {"lower": 0.51}),
    "gradient norm far below 1": ({"gradient": 0.49}, {"gradient": 0.51}),
    "certificate loose": ({"largest_gradient": 0.49}, {"largest_gradient": 0.51}),
    "critic not certified": ({"guarantee": "not certified"}, {"guarantee": "certified, conservative"}),
    "constant above 1": ({"lipschitz": 1.002}, {"lipschitz": 1.002, "guarantee": "not certified", "covered": None}),
    "generator far from the data": ({"score": 0.26}, {"score": 0.26, "score_error": 0.09}),
    "generator was better before": (scores(1.0, -0.1, 0.16), scores(1.0, -0.1, 0.14)),
    "still improving": (
        scores(*(0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2)),
        scores(*(0.8, 0.7, 0.6, 0.5, 0.1, 0.1, 0.01, 0.01)),
    ),
}


def names(run: Standing) -> set[str]:
    return {finding.name for finding in find(run)}


def test_nothing_is_found_in_a_sound_run():
    assert find(standing()) == ()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_finds_what_it_states_and_no_less(rule):
    shown, hidden = SEEN[rule.name]
    (finding,) = [finding for finding in find(standing(**shown)) if finding.name == rule.name]
    assert finding.text and finding.remedy == rule.remedy and rule.statement.endswith(".")
    assert rule.name not in names(standing(**hidden))


def test_the_serious_are_told_first():
    levels = [
        finding.serious for finding in find(standing(guarantee="not certified", score=9.0, blurred=9.0, spread=0.1))
    ]
    assert levels == sorted(levels, reverse=True) and set(levels) == {True, False}


def test_half_of_the_modes_are_a_collapse_and_more_are_modes_missed():
    assert names(standing(covered=4)) == {"generator collapsed"}
    assert names(standing(covered=5)) == {"modes missed"}
    assert names(standing(covered=0, within=0.01)) == {"modes missed"}, "it lies elsewhere, not on a few of them"


def test_samples_among_real_ones_that_reach_few_of_them_are_a_collapse():
    assert names(standing(coverage=0.49)) == {"generator collapsed"}
    assert names(standing(coverage=0.49, precision=0.49)) == {"low coverage"}, "it is far off, not narrow"
    (finding,) = find(standing(coverage=0.1))
    assert "coverage 0.1 times" in finding.text


def test_what_sampling_explains_is_held_against_no_critic():
    """At the floor all of W1 is sampling: a critic that shows nothing of it is right."""
    assert names(standing(exact=1.0, floor=1.0, lower=0.2, lower_as_trained=0.1, gradient=0.1)) == set()


def test_without_features_the_excess_tells_whether_blur_is_better():
    without = {"kid": math.nan, "kid_blurred": math.nan, "floor": 2.0}
    assert names(standing(**without, score=0.31)) == {"worse than blur"}
    assert names(standing(**without, score=0.29)) == set()
    assert names(standing(score=0.31, floor=2.0)) == set(), "on features it is better than blur"


def test_dense_samples_that_reach_few_are_narrowed_where_no_modes_are_known():
    unknown = {"width": math.nan, "covered": None, "modes": None, "density": 1.3}
    assert names(standing(**unknown, recall=0.94)) == {"narrowed modes"}
    assert names(standing(**unknown, recall=0.96)) == set()


def test_a_critic_that_proves_little_of_what_sampling_leaves_is_under_trained_without_a_copy():
    unknown = {"refitted": math.nan}
    assert "critic under-trained" in names(standing(**unknown, lower_as_trained=0.24))
    assert "critic under-trained" not in names(standing(**unknown, lower_as_trained=0.26))


def test_a_critic_is_not_behind_a_copy_that_sees_nothing_either():
    assert "critic under-trained" not in names(standing(trained=0.0, refitted=0.02, refitted_error=0.01))


def test_during_a_run_an_interval_that_narrows_is_closing():
    narrowing = [audit(step, lower=lower) for step, lower in enumerate((0.1, 0.1, 0.2, 0.3))]
    level = [audit(step, lower=0.3) for step in range(4)]
    wide = {"final": False, "lower": 0.3, "floor": 0.2}
    assert "interval not closing" not in names(standing(**wide, records=narrowing))
    assert "interval not closing" in names(standing(**wide, records=level))


def test_what_is_not_known_is_not_found():
    """A run without any audit, whose data were not opened."""
    assert find(Standing.of({"state": "running", "step": 3}, None, [{"step": 3, "w1/critic": 0.2}])) == ()


def test_a_standing_is_read_off_the_summary_or_else_the_last_whole_audit(tiny_run):
    run = Run(tiny_run)
    assert {record["step"] for record in audits(run.metrics)} == {0, 3, 6}
    final, last = Standing.of(run.status, run.summary, run.metrics), Standing.of(run.status, None, run.metrics)
    score, record = run.summary["score"], run.metrics[-1]
    assert (final.final, final.exact) == (True, run.summary["interval"]["exact"])
    assert (final.score, final.real, final.ratio) == (score["excess"], score["real"], score["ratio"])
    assert (last.final, last.exact) == (False, record["w1/exact"])
    assert (last.score, last.real, last.ratio) == tuple(
        record[f"eval/{name}"] for name in ("excess", "excess_real", "w1_over_floor")
    )
    assert (final.trained, final.refitted) == (run.summary["critic"]["trained"], run.summary["critic"]["refitted"])
    assert (last.trained, last.refitted) == (record["critic/held_out"], record["critic/refitted"])
    near = run.summary["scores"]["samples"]
    assert final.coverage == near["values"]["coverage"] / near["floors"]["coverage"]
    assert last.coverage == run.metrics[-1]["eval/coverage"] / run.metrics[-1]["eval/coverage_floor"]
    assert 0 < final.tightness <= 1 and math.isnan(last.tightness)


@pytest.mark.parametrize(
    ("spread", "expected"), [(0.0, 0.0), (1.0, 1.0), (0.25, 0.25)], ids=["a point", "the same", "a quarter as wide"]
)
def test_spread_is_a_ratio_of_mean_distances(spread, expected):
    real = torch.randn(50, 3)
    assert spread_over_real(spread * real, real) == pytest.approx(expected, abs=1e-6)
    assert math.isnan(spread_over_real(real, torch.ones(5, 3)))
    with pytest.raises(InputError, match="same dimension"):
        spread_over_real(real, torch.ones(5, 2))


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """Folders of two runs on moons: with a critic that trains, and with one that hardly moves."""
    folder = tmp_path_factory.mktemp("two")
    for name, rate in (("sound", "1e-2"), ("idle", "1e-9")):
        steps = ["training.critic_steps=5", "training.warmup_steps=60", f"critic_optimizer.lr={rate}"]
        assert main(["train", *MOONS, *steps, "generator_optimizer.lr=1e-9", f"hydra.run.dir={folder / name}"]) == 0
    return folder


def test_an_idle_critic_is_found_in_a_real_run_and_a_trained_one_is_not(two_runs):
    told = {"critic under-trained", "gradient norm far below 1"}
    assert told <= {finding.name for finding in look_at(Run(two_runs / "idle")).findings}
    assert not told & {finding.name for finding in look_at(Run(two_runs / "sound")).findings}


def test_an_idle_critic_is_found_before_the_run_ends_too(two_runs, tmp_path):
    copy = shutil.copytree(two_runs / "idle", tmp_path / "copy")
    (copy / "summary.json").unlink()
    assert "critic under-trained" in {finding.name for finding in look_at(Run(copy)).findings}


def test_a_collapsed_generator_is_found_in_a_real_run(two_runs, tmp_path):
    copy = shutil.copytree(two_runs / "sound", tmp_path / "copy")
    checkpoint = torch.load(copy / "checkpoint.pt", weights_only=True)
    last = [name for name in checkpoint["game"]["ema"] if name.endswith("weight")][-1]
    checkpoint["game"]["ema"][last].mul_(1e-3)
    torch.save(checkpoint, copy / "checkpoint.pt")
    looked = look_at(Run(copy))
    assert looked.standing.spread < 0.01
    assert "generator collapsed" in {finding.name for finding in looked.findings}
    assert math.isnan(look_at(Run(copy), data=False).standing.spread)


def test_data_that_are_gone_are_told_and_everything_else_is_shown(two_runs, tmp_path):
    copy = shutil.copytree(two_runs / "sound", tmp_path / "copy")
    config = OmegaConf.load(copy / "config.yaml")
    config.data = {"_target_": "wgan_lip.data.VectorFile", "path": "gone.npy"}
    OmegaConf.save(config, copy / "config.yaml")
    looked = look_at(Run(copy))
    assert looked.source is None and "gone.npy" in looked.unopened
    assert looked.certificate is not None and len(looked.generated) == 500


def test_scripts_get_strict_json(two_runs, tmp_path, capsys):
    copy = shutil.copytree(two_runs / "idle", tmp_path / "copy")
    (copy / "summary.json").unlink()
    with (copy / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 9, "time": 2.0, "w1/critic": "NaN"}\n')
    capsys.readouterr()
    assert main(["inspect", f"run={copy}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told["last_record"]["w1/critic"] is None and told["standing"]["tightness"] is None
    assert {"values not finite", "critic under-trained"} <= {finding["name"] for finding in told["findings"]}
