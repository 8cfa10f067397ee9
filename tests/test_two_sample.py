"""Two-sample tests: p-values against enumerations, betting against its definition in exact arithmetic."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist

from wgan_lip import BettingTest, InputError, law_of_rows, two_sample_test
from wgan_lip.benchmarks import cases as case_files
from wgan_lip.benchmarks import tests as suite
from wgan_lip.cli import main
from wgan_lip.cli import test as command
from wgan_lip.transport import solve
from wgan_lip.wasserstein.two_sample import TwoSampleTest, _ranks

ALPHA = Fraction(1, 20)


def energy(x, y):
    return 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()


def mmd(x, y):
    pooled = np.concatenate((x, y))
    apart = cdist(pooled, pooled)[~np.eye(len(pooled), dtype=bool)]
    width = np.sort(apart)[(len(apart) - 1) // 2]
    kernel = [np.exp(-np.square(cdist(*pair) / width) / 2).mean() for pair in ((x, x), (y, y), (x, y))]
    return kernel[0] + kernel[1] - 2 * kernel[2]


def w1(x, y):
    return solve(x, y).value


DIRECT = {"energy": energy, "mmd": mmd, "w1": w1}


def enumerated(statistic, x, y):
    """p over all splits, by the definition."""
    pooled, n = np.concatenate((x, y)), len(x)
    values = []
    for chosen in combinations(range(len(pooled)), n):
        rest = [row for row in range(len(pooled)) if row not in chosen]
        values.append(statistic(pooled[list(chosen)], pooled[rest]))
    return np.mean(np.array(values) >= values[0] - 1e-9), len(values)


@pytest.mark.parametrize("method", DIRECT)
@pytest.mark.parametrize("dim", [1, 3, 40])  # with distances by differences, and by products
def test_a_small_sample_has_its_exact_p(method, dim):
    rng = np.random.default_rng(dim)
    for n, m in ((4, 4), (3, 5), (2, 2)):
        x, y = rng.normal(size=(n, dim)), rng.normal(size=(m, dim)) + 0.7
        p, splits = enumerated(DIRECT[method], x, y)
        found = two_sample_test(x, y, method=method)
        assert found.pvalue == pytest.approx(p, abs=1e-12) and found.permutations == splits - 1
        assert found.statistic == pytest.approx(DIRECT[method](x, y), rel=1e-9)
        assert any("exact" in note for note in found.notes)


def test_the_exact_p_on_the_line_is_that_of_scipy():
    rng = np.random.default_rng(3)
    for _ in range(5):
        x, y = rng.integers(0, 4, 4).astype(float), rng.integers(1, 6, 5).astype(float)  # with ties
        known = stats.permutation_test(
            (x, y), lambda x, y: stats.energy_distance(x, y), n_resamples=np.inf, alternative="greater"
        )
        found = two_sample_test(x, y, method="energy")
        assert found.pvalue == pytest.approx(known.pvalue, abs=1e-12)
        assert found.statistic == pytest.approx(known.statistic**2, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 5), (2, 4)])
def test_the_combined_p_is_that_of_the_product_of_ranks_among_all_splits(n, m):
    """On the line, where sliced W1 is W1: both p-values of every split by their definition, and the p of the product."""
    rng = np.random.default_rng(n)
    for _ in range(4):
        pooled = np.concatenate((rng.normal(size=n), 2 * rng.normal(size=m) + 0.5))
        splits = [(list(c), [k for k in range(n + m) if k not in c]) for c in combinations(range(n + m), n)]
        ranks = []
        for statistic in (stats.energy_distance, stats.wasserstein_distance):
            values = np.array([statistic(pooled[x], pooled[y]) for x, y in splits])
            ranks.append((values[None] >= values[:, None] - 1e-9).sum(axis=1))
        products = np.prod(ranks, axis=0)
        found = two_sample_test(pooled[:n], pooled[n:], method="combined")
        assert found.pvalue == pytest.approx((products <= products[0]).mean(), abs=1e-12)
        assert found.statistic == pytest.approx(products[0] / len(splits) ** 2)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=30), st.floats(0, 0.6))
@settings(max_examples=100, deadline=None)
def test_ranks_err_to_the_safe_side(values, error):
    """Against exact ranks of what may be meant: that of the given split is no smaller, those of others no larger."""
    means = torch.tensor(values, dtype=torch.float64)
    noise = error * torch.rand(len(values), dtype=torch.float64, generator=torch.Generator().manual_seed(len(values)))
    found = _ranks(means + noise, torch.full_like(means, error))
    exact = (means[None] >= means[:, None]).sum(dim=1)
    assert found[0] >= exact[0] and bool((found[1:] <= exact[1:]).all()) and found.min() >= 1


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=5),
    st.lists(st.integers(0, 5), min_size=2, max_size=4),
    st.sampled_from(["combined", "energy", "mmd", "w1", "sliced_w1"]),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_values_that_differ_by_rounding_are_ties(x, y, method, plane):
    """Multiples of 0.1, and of 1e6 + 0.1, have the p of the whole numbers that they stand for."""
    columns = [np.array(x, dtype=float), np.array(y, dtype=float)]
    if plane:
        columns = [np.stack((column, column[::-1]), axis=1) for column in columns]
    whole = two_sample_test(*columns, method=method)
    for scale in (0.1, 1e6 + 0.1):
        assert two_sample_test(*(scale * column for column in columns), method=method).pvalue == whole.pvalue


def test_two_pairs_have_the_excess_of_their_distances():
    x, y = np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 2.0], [1.0, 3.0]])
    expected = cdist(x, y).mean() - (1 + math.sqrt(2)) / 2
    assert two_sample_test(x, y, method="excess", permutations=9).statistic == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("method", ["combined", "energy", "w1", "excess", "sliced_w1", "mmd"])
def test_equal_and_distant_samples(method):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 2)), rng.normal(size=(25, 2))
    more = {"permutations": 39}
    assert two_sample_test(x, y + 5, method=method, **more).pvalue == 1 / 40
    same = two_sample_test(np.ones((30, 2)), np.ones((25, 2)), method=method, **more)
    nothing = 1.0 if method == "combined" else 0.0  # the product of two p-values of 1
    assert same.pvalue == 1 and same.statistic == pytest.approx(nothing, abs=1e-9) and not same.rejected


def test_sliced_w1_in_the_plane_is_the_mean_over_directions():
    """W1 along a direction of two points a distance apart is |cos|, whose mean over the circle is 2/π."""
    x, y = np.zeros((2, 2)), np.tile([3.0, 4.0], (2, 1))
    assert two_sample_test(x, y, method="sliced_w1").statistic == pytest.approx(5 * 2 / math.pi, rel=0.1)


def test_duplicates_far_from_the_origin_are_ties():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, (4, 6)).astype(float)
    x, y = rows[rng.integers(0, 4, 5)], rows[rng.integers(0, 4, 4)]
    for method in ("energy", "sliced_w1", "combined"):
        near, far = (two_sample_test(offset + x, offset + y, method=method, seed=3).pvalue for offset in (0, 2.0**30))
        assert near == far


def test_the_level_holds_by_permutation():
    rng = np.random.default_rng(1)
    rejected = sum(two_sample_test(*rng.normal(size=(2, 12, 2)), permutations=19, seed=k).rejected for k in range(400))
    assert stats.binom.cdf(rejected, 400, 0.05) < 0.999 and stats.binom.cdf(rejected, 400, 0.05) > 0.001


def test_the_level_holds_by_betting():
    rng = np.random.default_rng(2)
    rejected = sum(BettingTest(expected=40).update(*rng.normal(size=(2, 40, 2))).pvalue <= 0.05 for _ in range(25))
    assert stats.binom.cdf(rejected, 25, 0.05) < 0.999


def pair(n, dim, shift, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dim)) + shift, rng.normal(size=(n, dim))


def exact_capital(test, delta):
    """max_t K_t(δ) as the definition has it, in rational arithmetic but for the bets, which any number may be."""
    capital = most = Fraction(1)
    for values, low, bet in test._bets:
        for z in values.tolist():
            factor = 1 + Fraction(min(bet, 0.75 / (delta - low))) * (Fraction(z) - Fraction(delta))
            assert factor >= Fraction(1, 5)
            capital *= factor
            most = max(most, capital)
    return most


@pytest.mark.parametrize(("n", "dim", "shift"), [(60, 1, 1.0), (40, 2, 2.0), (60, 8, 3.0)])
def test_bound_and_p_are_those_of_the_definition(n, dim, shift):
    test = BettingTest(expected=n).update(*pair(n, dim, shift))
    delta, unit = test.w1_lower, test._unit
    assert 0 < delta < shift * math.sqrt(dim)
    assert exact_capital(test, delta / unit) >= 1 / ALPHA > exact_capital(test, delta / unit * (1 + 1e-6))
    assert test.pvalue >= 1 / exact_capital(test, 0.0) and test.pvalue <= 0.05
    assert test.pvalue == pytest.approx(float(1 / exact_capital(test, 0.0)), rel=1e-9)


def test_values_bet_on_are_no_more_than_those_of_a_linear_critic():
    """Of the kind `mean`, whose critic is a product that rational arithmetic computes without rounding."""
    x, y = (torch.from_numpy(samples) for samples in pair(30, 4, 0.5))
    test = BettingTest().update(x[:8], y[:8])
    kind = test._kinds[0]
    x, y = x[8:] / test._unit, y[8:] / test._unit
    found, low = kind.differences(x, y)
    linear = next(step.module for step in kind.proof._steps if hasattr(step.module, "weight"))
    weight, scale = list(map(Fraction, linear.weight[0].tolist())), Fraction(kind.proof.certificate.lipschitz)
    assert sum(w * w for w in weight) <= scale**2

    def clipped(row):
        value = sum(w * Fraction(entry) for w, entry in zip(weight, row.tolist()))
        return max(min(value, Fraction(kind.clip[1])), Fraction(kind.clip[0]))

    exact = [(clipped(of_x) - clipped(of_y)) / scale for of_x, of_y in zip(x, y)]
    assert all(Fraction(float(z)) <= true for z, true in zip(found, exact))
    assert found == pytest.approx([float(true) for true in exact], abs=1e-12) and min(exact) >= Fraction(low)


@pytest.mark.parametrize("dim", [1, 3, 30])
def test_every_kind_of_critic_sees_a_difference_with_a_constant_near_1(dim):
    """Where there is one of the kind: discriminants and projections are for more dimensions than one and six."""
    x, y = (torch.from_numpy(samples) for samples in pair(60, dim, 1.5))
    made = set()
    for kind in BettingTest()._kinds:
        kind.refit(x[:40], 0.2 * y[:40])
        if kind.proof is not None:
            made.add(kind.fit.__name__)
            assert kind.proof.certificate.lipschitz == pytest.approx(1, abs=1e-9)
            found, low = kind.differences(x[40:], 0.2 * y[40:])
            assert found.mean() > 0 and found.min() >= low
    wanted = {
        "_mean",
        "_radius",
        "_cones",
        *(["_discriminant"] if dim > 1 else []),
        *(["_projected_cones"] if dim > 6 else []),
    }
    assert made == wanted


def test_bets_depend_on_earlier_pairs_only():
    x, y = pair(60, 3, 1.0)
    first, second = BettingTest().update(x, y), BettingTest().update(x[:41], y[:41])
    other = pair(19, 3, -50.0, seed=9)
    second.update(*other)

    def bets(test):
        return [(value, low, bet) for values, low, bet in test._bets for value in values.tolist()]

    of_first, of_second = bets(first), bets(second)
    count = len(of_first) - 19  # pairs that both have seen
    assert count > 0 and np.allclose(of_first[:count], of_second[:count], rtol=1e-9, atol=1e-12)
    assert of_first[count][1:] == pytest.approx(of_second[count][1:])  # the bet on the first pair in which they differ


def test_a_stream_gives_what_all_at_once_gives():
    x, y = pair(70, 3, 0.8)
    at_once = BettingTest(expected=70).update(x, y)
    stream = BettingTest(expected=70)
    sizes = iter([1, 1, 1, 5, 20, 2, 40])
    start, values = 0, []
    for size in sizes:
        stream.update(x[start : start + size], torch.from_numpy(y[start : start + size]))
        values.append((stream.pvalue, stream.w1_lower))
        start += size
    assert (stream.pairs, stream.n, stream.m) == (70, 70, 70)
    assert values[-1] == pytest.approx((at_once.pvalue, at_once.w1_lower), rel=1e-9)
    assert [p for p, _ in values] == sorted((p for p, _ in values), reverse=True)
    assert [delta for _, delta in values] == sorted(delta for _, delta in values)
    assert values[0] == (1.0, 0.0) and "No bet" in str(BettingTest().update(x[:5], y[:5]))


def test_the_bound_scales_with_the_samples():
    x, y = pair(80, 2, 1.5)
    small = two_sample_test(x, y, method="betting")
    large = two_sample_test(2.0**700 * x, 2.0**700 * y, method="betting")
    assert small.w1_lower > 0.5 and large.w1_lower == 2.0**700 * small.w1_lower and large.pvalue == small.pvalue


def test_the_bound_stays_below_w1_of_the_laws():
    """But for 3 of 24 at most, at 95 %; half of them without any difference of means."""
    above = 0
    for seed in range(12):
        x, y = pair(60, 2, 1.0, seed)
        above += two_sample_test(x, y, method="betting", seed=seed).w1_lower > math.sqrt(2)
        x, y = pair(60, 2, 0.0, seed)
        above += two_sample_test(2 * x, y, method="betting", seed=seed).w1_lower > math.sqrt(math.pi / 2)
    assert above <= 3


def test_more_samples_of_one_side_take_part_in_groups():
    x, y = pair(300, 2, 1.0)
    found = two_sample_test(x, y[:60], method="betting")
    assert (found.n, found.m) == (300, 60) and found.rejected and found.w1_lower > 0.3


@pytest.mark.parametrize("samples", [np.zeros((40, 3)), np.repeat(pair(4, 3, 0.0)[0], 10, axis=0)])
def test_duplicated_rows_are_samples_like_others(samples):
    for method in ("energy", "betting"):
        found = two_sample_test(samples, samples, method=method)
        assert found.pvalue == 1 or (method == "betting" and found.pvalue > 0.05)


def test_kinds_of_samples():
    x, y = pair(40, 2, 1.0)
    known = two_sample_test(x, y, permutations=99)
    assert known.pvalue == two_sample_test(x.tolist(), torch.from_numpy(y), permutations=99).pvalue
    pandas = pytest.importorskip("pandas")
    frames = pandas.DataFrame(x, columns=["a", "b"]), pandas.DataFrame(y[:, ::-1], columns=["b", "a"])
    assert two_sample_test(*frames, permutations=99).statistic == known.statistic
    test = BettingTest().update(*frames)
    swapped = BettingTest().update(frames[0][:20], frames[1][:20]).update(frames[0][20:][["b", "a"]], frames[1][20:])
    assert swapped.statistic == pytest.approx(test.statistic, rel=1e-9)
    with pytest.raises(InputError, match="earlier samples"):
        test.update(frames[0].rename(columns={"a": "c"}), frames[1].rename(columns={"a": "c"}))
    times = np.arange(40) + 2**60
    assert "counted from" in " ".join(two_sample_test(times, times + 1, permutations=9).notes)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"x": np.zeros((1, 2))}, "at least 2 samples"),
        ({"x": np.full((5, 2), np.nan)}, "NaN"),
        ({"x": np.zeros((5, 3))}, "same dimension"),
        ({"x": law_of_rows(np.zeros((5, 2)))}, "not a law"),
        ({"x": np.full((5, 2), 1e300)}, "1e\\+280"),
        ({"a": np.ones(5)}, "weights"),
        ({"method": "ks"}, "method must be one of combined, energy"),
        ({"method": "betting", "permutations": 9}, "takes no permutations"),
        ({"permutations": 0}, "from 1 to"),
        ({"permutations": 10**12}, "from 1 to 10,000,000"),
        ({"permutations": 9.5}, "must be an integer"),
        ({"level": 1.0}, "between 0 and 1"),
        ({"effect": "yes"}, "effect"),
        ({"seed": -1}, "seed"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_what_cannot_be_tested_is_told_in_a_line(change, told):
    arguments = {"x": np.zeros((5, 2)), "y": np.zeros((6, 2)), **change}
    with pytest.raises(InputError, match=told) as error:
        two_sample_test(**arguments)
    assert "\n" not in str(error.value)


def test_a_stream_refuses_samples_of_another_dimension_and_stays_what_it_was():
    x, y = pair(10, 2, 0.0)
    test = BettingTest().update(x, y)
    for bad in ((x[:, :1], y[:, :1]), (x, y[:0]), (x * math.nan, y)):
        with pytest.raises(InputError):
            test.update(*bad)
    small = BettingTest().update(1e-200 * x, 1e-200 * y)
    with pytest.raises(InputError, match="far larger than those before"):
        small.update(1e200 * x, 1e200 * y)
    assert test.pairs == small.pairs == 10
    with pytest.raises(InputError, match="expected must be at least 1"):
        BettingTest(expected=0)


def test_memory_is_refused_before_it_is_taken(monkeypatch):
    monkeypatch.setattr("wgan_lip.utils.checks.available_memory", lambda: 10**6)
    with pytest.raises(InputError, match="random subsample"):
        two_sample_test(*pair(400, 2, 0.0))
    assert two_sample_test(*pair(400, 1, 0.0), permutations=9).n == 400  # the line needs no distances


def test_a_p_beside_a_bound_is_a_second_statement():
    x, y = pair(60, 2, 1.0)
    both, alone = two_sample_test(x, y, effect=True), two_sample_test(x, y, method="betting")
    assert both.w1_lower == alone.w1_lower > 0
    assert (both.joint_level, alone.joint_level, two_sample_test(x, y).joint_level) == (0.9, 0.95, 0.95)
    assert "90 %" in str(both) and "jointly" in str(both) and "jointly" not in str(alone)
    assert both.as_dict()["joint_level"] == 0.9 and json.loads(json.dumps(both.as_dict()))["rejected"] is True
    statistic, pvalue = both
    assert (statistic, pvalue) == (both.statistic, both.pvalue)


def test_a_p_at_the_level_rejects():
    found = TwoSampleTest(1.0, 0.1, None, "energy", 0.9, 9, 5, 5, 1)  # though 1 − 0.9 < 0.1 in floats
    assert found.rejected and "p = 0.1" in str(found) and "at 10 %" in str(found)
    assert not two_sample_test([0.0, 1.0], [5.0, 6.0]).rejected
    assert "can't be rejected" in str(two_sample_test([0.0, 1.0], [5.0, 6.0]))


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x, y = pair(60, 2, 1.0)
    np.save("x.npy", x)
    np.savetxt("y.csv", y, delimiter=",")
    assert main(["test", "x=x.npy", "y=y.csv", "effect=true", "permutations=99", "hydra.run.dir=run"]) == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    known = two_sample_test(x, y, effect=True, permutations=99)
    assert (result["pvalue"], result["w1_lower"]) == pytest.approx((known.pvalue, known.w1_lower), rel=1e-9)
    assert result["versions"]["wgan_lip"] and result["method"] == "combined" and result["x"] == "x.npy"
    shown = capsys.readouterr().out
    assert "p = 0.0100" in shown and "run/result.json" in shown and "jointly" in shown
    assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "finished"

    assert main(["test", "x=data/moons", "y=data/moons", "samples=40", "permutations=9", "hydra.run.dir=law"]) == 0
    assert json.loads((tmp_path / "law/result.json").read_text())["n"] == 40
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["x=x.npy"], "y is missing"),
        (["x=x.npy", "y=nowhere.npy"], "nowhere.npy"),
        (["x=x.npy", "y=x.npy", "level=2"], "between 0 and 1"),
        (["x=x.npy", "y=x.npy", "samples=0", "permutations=1000000000000"], "from 1 to"),
        (["x=data/moons", "y=data/moons", "samples=1000000000000"], "Lower samples"),
        (["x=x.npy", "y=x.npy", "a=w.npy"], "test has no key 'a'. Its keys are x, y"),
    ],
)
def test_the_command_tells_bad_input_in_a_line_and_leaves_nothing(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((5, 2)))
    assert main(["test", *arguments, "hydra.run.dir=run"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and told in captured.err and captured.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_help_says_what_every_key_is(capsys):
    assert main(["test", "--help"]) == 0
    text = capsys.readouterr().out
    assert main(["test", "--cfg", "job"]) == 0
    defaults = [line.replace(": ", "=") for line in capsys.readouterr().out.strip().splitlines()]
    assert len(defaults) == len(command.ROOT)
    assert [default for default in defaults[2:] if f"  {default}  " not in text and f"  {default}\n" not in text] == []
    assert max(map(len, text.splitlines())) <= 120


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(
        case_files, "_outcomes", lambda pieces, workers: ((piece, piece.measured()) for piece in pieces)
    )


def test_the_suite_writes_table_and_page(in_this_process, tmp_path, capsys):
    cases = "'draws=4','cases=level,shift,mnist,coverage',"
    arguments = ["benchmark", "suite=tests", f"overrides=[{cases}'root={tmp_path}']", f"out={tmp_path}"]
    assert main(arguments) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    rows = {(row["kind"], row["pair"]): row for row in results["rows"]}
    assert {kind for kind, _ in rows} == {"level", "level_betting", "power", "betting", "coverage"}
    assert len(rows["level", "equal"]["pvalues"]["combined"]) == 20 and "mnist" in results["skipped"]
    power = rows["power", "shift"]["pvalues"]
    assert power.keys() == {"combined", "energy", "mmd", "sliced_w1", "C2ST"}
    assert all(0 < p <= 1 for ps in power.values() for p in ps)
    page = (tmp_path / "README.md").read_text()
    assert (tmp_path / "table.md").read_text().strip() in page and "suite=tests" in page and "Left out: mnist" in page
    before = (tmp_path / "results.json").read_bytes()
    capsys.readouterr()
    assert main(arguments) == 0  # every piece is stored
    assert (tmp_path / "results.json").read_bytes() == before and "[" not in capsys.readouterr().err


def test_the_classifier_sees_a_shift_and_nothing_else():
    rng = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, 100, 3, generator=rng)
    assert suite._classifier_pvalue(x + 2, y, 0) < 1e-6
    known = [suite._classifier_pvalue(*torch.randn(2, 40, 3, generator=rng), k) for k in range(20)]
    assert sum(p <= 0.05 for p in known) <= 4 and max(known) > 0.5


@pytest.mark.parametrize("name", [name for name in suite.LAWS if name != "mnist"])
def test_laws_of_the_suite_give_samples_that_differ(name):
    draw = suite.LAWS[name]("")
    x, y = draw(50, torch.Generator().manual_seed(0))
    assert x.shape == y.shape and len(x) == 50 and not torch.equal(x, y)
    x, y = draw(1000, torch.Generator().manual_seed(1))
    assert two_sample_test(x, y, permutations=99).rejected
