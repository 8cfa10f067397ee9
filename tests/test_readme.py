"""The README tells the truth: its figures are the committed ones, its example runs, its files exist."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from statistics import fmean, stdev

import pytest
from test_architecture import FLOORS

from wgan_lip.benchmarks.funnels import PUBLISHED
from wgan_lip.cli import COMMANDS
from wgan_lip.lipschitz.layers.table import layer_table

ROOT = Path(__file__).resolve().parent.parent
FIRST = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "wgan_lip/guides").glob("*.md"))}
README = "\n".join([FIRST, *(text.replace("](../../", "](") for text in GUIDES.values())])  # and the guides behind it


TABLES = ["wgan", "tensorboard", "rivals"]
PAGES = [
    "referee",
    "scaling",
    "tightness",
    "layers",
    "coverage",
    "w1",
    "w1_large",
    "step_cost",
    "oracles",
    "calls",
    "tests",
]
PAGES += [
    "funnels",
    "funnels_last",
    "funnels_long",
    "funnels_variants",
    "image_funnels",
    "image_funnels_long",
    "image_rivals_cifar10",
    "image_rivals_convolutional",
    "image_rivals_optimistic",
    "paper",
    "inverse",
    "inspect",
    "witness",
    "witness_large",
    *TABLES,
]


@pytest.mark.parametrize("suite", TABLES)
def test_tables_are_the_committed_ones(suite):
    assert (ROOT / "outputs/reference" / suite / "table.md").read_text(encoding="utf-8").strip() in README


@pytest.mark.parametrize("suite", PAGES)
def test_every_page_holds_its_table_and_its_command_and_is_linked(suite):
    folder = ROOT / "outputs/reference" / suite
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert (folder / "table.md").read_text(encoding="utf-8").strip() in page and results["command"] in page
    assert all((folder / name).exists() for name in re.findall(r"!\[.*?\]\((.*?)\)", page))
    assert f"outputs/reference/{suite}/README.md" in README


@pytest.mark.parametrize("suite", [*PAGES, "density"])
def test_every_committed_result_has_its_command_in_the_text(suite):
    results = json.loads((ROOT / "outputs/reference" / suite / "results.json").read_text(encoding="utf-8"))
    assert f"suite={results.get('suite', suite)}" in README and results["machine"]["processor"]


def test_the_screen_begins_as_the_committed_one():
    (screen,) = re.findall(r"```text\n(.*?)\n```", FIRST, re.DOTALL)
    assert (ROOT / "outputs/reference/wgan/screen.txt").read_text(encoding="utf-8").startswith(screen)


def test_it_is_short():
    assert len(FIRST.splitlines()) <= 300


def test_what_is_said_of_blurred_digits_is_what_was_measured():
    """On features, the excess of W1 and KID rank every blur of MNIST below real digits, by more than three errors."""
    page = ROOT / "outputs/reference/scores"
    results = json.loads((page / "results.json").read_text(encoding="utf-8"))
    mnist = [row for row in results["rows"] if row["case"] == "mnist"]
    moved = {(row["space"], row["score"], row["damage"]): row["moved"] for row in mnist}
    for space, score in (("lite0", "excess of W1"), ("lite0", "KID"), ("classifier", "KID")):
        blurs = [moved[space, score, f"blur σ {sigma}"] for sigma in ("0.5", "1", "2")]
        assert blurs == sorted(blurs) and blurs[0] > 3
    words = " ".join(README.split())
    assert (
        "*better* W1 over floor than real ones, by ten standard errors; the excess finds them worse by eleven" in words
    )
    assert "and the excess on features by forty" in words and "outputs/reference/scores/README.md" in words
    ratio, excess = (moved["samples", score, "blur σ 1"] for score in ("W1 over floor", "excess of W1"))
    assert [round(-ratio), round(excess)] == [10, 11] and 35 < moved["lite0", "excess of W1", "blur σ 1"] < 45
    assert {row["case"] for row in results["rows"]} == {"gaussians8", "digits", "mnist", "cifar10"}
    assert results["command"] in (page / "README.md").read_text(encoding="utf-8")


def test_what_is_said_of_the_first_calls_is_what_was_measured():
    results = json.loads((ROOT / "outputs/reference/calls/results.json").read_text(encoding="utf-8"))
    seconds = next(row["seconds"] for row in results["rows"] if (row["n"], row["dim"]) == (500, 2))
    words = " ".join(README.split())
    for call, name in (
        ("ot.emd2", "`ot.emd2`"),
        ("estimate_w1", "`estimate_w1` with floor and excess"),
        ("two_sample_test", "`two_sample_test`"),
        ("estimate_w1, laws=True", "`estimate_w1(laws=True)`, which trains a critic,"),
        ("wgan-lip estimate", "`wgan-lip estimate`"),
    ):
        assert f"{name} {seconds[call]:.2g}" in words


@pytest.fixture(scope="module")
def images() -> dict[str, dict]:
    rows = json.loads((ROOT / "outputs/reference/images/results.json").read_text(encoding="utf-8"))["rows"]
    return {row["case"]: row for row in rows}


def test_the_figures_of_mnist_are_the_committed_ones(images):
    row, told = images["mnist"], " ".join(README.split())
    score, near, far = row["score"], row["scores"]["samples"], row["scores"]["features"]
    values, floors = near["values"], near["floors"]
    assert f"Excess over the floor {score['excess']:.3f} ± {score['error']:.3f}, where real images have" in told
    assert f"{score['real']:.3f} ± {score['real_error']:.3f} and real ones blurred by one pixel" in told
    assert (
        f"by one pixel {score['blurred']:.3f}; precision {values['precision']:.2f} ({floors['precision']:.2f})" in told
    )
    assert f"recall {values['recall']:.2f} ({floors['recall']:.2f}) and sliced W1 {values['sliced_w1']:.4f}" in told
    assert (
        f"({floors['sliced_w1']:.4f}) on {score['n']:,} samples; on features of a small classifier the excess" in told
    )
    assert f"excess is {far['values']['excess']:.2f} ({far['floors']['excess']:.2f})" in told
    lower, upper = row["interval"]["lower_as_trained"], row["interval"]["upper"]
    assert f"{math.floor(100 * lower) / 100:.2f} ≤ W1 ≤ {math.ceil(100 * upper) / 100:.2f}" in told
    assert f"fitted to these samples proves {math.floor(100 * row['interval']['lower']) / 100:.2f}." in told
    read, shares = far["values"]["read"], (far["values"]["rarest_class"], far["values"]["commonest_class"])
    assert f"reads {100 * read:.1f} % of the samples with a probability of at least 0.9" in told
    assert f"({100 * far['floors']['read']:.1f} % of real ones)" in told
    assert "every class has between {:.1f} % and {:.1f} %".format(*(100 * share for share in shares)) in told
    assert f"{row['training_seconds'] / 60:.0f} minutes without its scores" in told
    assert f"A {' '.join(far['extractor'].split(',')[0].split())} reads" in told
    other = row["another_classifier"]
    assert f"one of {other['accuracy']:.3f}, trained on" in told
    assert f"{100 * other['read']:.1f} % ({100 * other['read_real']:.1f} %)" in told


def test_the_figures_of_conditional_mnist_are_the_committed_ones(images):
    row, told = images["mnist_conditional"], " ".join(README.split())
    (values, floors), near = (
        (row["scores"]["features"][side] for side in ("values", "floors")),
        row["scores"]["samples"],
    )
    assert f"reads {100 * values['as_labelled']:.1f} % of the samples as the digit" in told
    assert f"({100 * floors['as_labelled']:.1f} % of real ones), and {100 * values['read']:.1f} % with" in told
    assert f"at least 0.9 ({100 * floors['read']:.1f} %). Excess over the floor {row['score']['excess']:.3f} ±" in told
    precision, recall = (near["values"][name] for name in ("precision", "recall"))
    assert f"precision {precision:.2f}, recall {recall:.2f} on {near['n']:,} samples, images" in told
    assert f"{row['training_seconds'] / 60:.0f} minutes of one CPU thread (`experiment=mnist_conditional`" in told


def test_the_figures_of_cifar10_are_the_committed_ones(images):
    row, told = images["cifar10"], " ".join(README.split())
    values, floors = (row["scores"]["samples"][side] for side in ("values", "floors"))
    assert (
        f"floor {row['score']['ratio']:.2f}, sliced W1 {values['sliced_w1']:.4f} ({floors['sliced_w1']:.4f} of" in told
    )
    for name in ("precision", "recall", "coverage"):
        assert f"{name} {values[name]:.2f} ({floors[name]:.2f})" in told
    assert row["command"].startswith("wgan-lip train experiment=cifar10")


def test_the_figures_of_the_failed_cifar10_are_the_committed_ones(images):
    row, told = images["cifar10_sorting"], " ".join(README.split())
    score, far = row["score"], row["scores"]["features"]
    assert f"excess {score['excess']:.2f} ± {score['error']:.2f}, where real images have" in told
    assert (
        f"have −{-score['real']:.2f} ± {score['real_error']:.2f} and blurred ones {score['blurred']:.2f}, KID" in told
    )
    assert f"features {far['values']['kid']:.2f} ({far['floors']['kid']:.2f}), recall" in told
    assert f"recall {far['values']['recall']:.2f} there ({far['floors']['recall']:.2f}), while" in told
    assert f"W1 over floor says {score['ratio']:.2f}" in told


def results(folder):
    return json.loads((ROOT / "outputs/reference" / folder / "results.json").read_text(encoding="utf-8"))["rows"]


def test_what_is_said_of_five_seeds_is_what_was_measured():
    beyond = {}
    for row in results("wgan"):
        score = row["score"]
        errors = math.hypot(score["error"], score["real_error"])
        beyond.setdefault(row["case"], []).append((score["excess"] - score["real"]) / errors)
    plane = [abs(one) for case, of in beyond.items() if case != "digits" for one in of]
    words = " ".join(README.split())
    assert len(plane) == 25 and max(plane) < 2 and "within two standard errors of that of real samples" in words
    ends = [f"{edge(beyond[case]):.1f}" for case in ("gaussians8", "digits") for edge in (min, max)]
    told = "in all five seeds, by {} to {} standard errors each, that of the digits by {} to {}."
    assert told.format(*ends) in words


def held_out(folder):
    """Pair and method → mean over the seeds that ended."""
    values = {}
    for row in results(folder):
        if "held_out" in row:
            values.setdefault((row["pair"], row["method"]), []).append(row["held_out"])
    return {key: sum(of) / len(of) for key, of in values.items()}


def test_what_is_said_of_real_images_is_what_was_measured():
    values, words = held_out("image_pairs"), " ".join(README.split())
    rates = ("torchlip", "torchlip_fast")
    gains = {
        pair: 100 * (values[pair, "residual"] / max(values.get((pair, rate), 0) for rate in rates) - 1)
        for pair in {pair for pair, _ in values}
    }
    told = (
        "MNIST {mnist:+.1f} %, MNIST against its Gaussian {mnist_gaussian:+.1f} %, against blurred images "
        "{mnist_blurred:+.1f} %, CIFAR-10 {cifar10:+.1f} %, CIFAR-10 against its Gaussian {cifar10_gaussian:+.1f} %, "
        "digits {digits:+.1f} %"
    )
    assert told.format(**gains).replace("-0", "−0") in words
    every = held_out("image_pairs_all")
    pairs = {pair for pair, _ in every}
    assert len(pairs) == 4
    for peer in ("gradient_penalty", "one_sided_penalty", "spectral_norm", "groupsort"):
        assert all(every[pair, peer] < every[pair, "residual"] for pair in pairs)
    lead = {pair: 100 * (every[pair, "image"] / every[pair, "residual"] - 1) for pair in pairs}
    assert [round(lead[pair]) for pair in ("mnist_gaussian", "mnist_blurred")] == [4, 14]
    assert abs(lead["mnist"]) < 1 and lead["digits"] < -1
    cifar = held_out("image_pairs_cifar")
    for peer in ("gradient_penalty", "one_sided_penalty", "spectral_norm", "groupsort", "torchlip"):
        assert all(cifar[pair, peer] < cifar[pair, "residual"] for pair in ("cifar10", "cifar10_gaussian"))
    leads = {
        method: [100 * (cifar[pair, method] / cifar[pair, "residual"] - 1) for pair in ("cifar10", "cifar10_gaussian")]
        for method in ("image", "full_sort")
    }
    assert abs(leads["image"][0]) < 1 and round(leads["image"][1]) == 32
    assert [round(lead) for lead in leads["full_sort"]] == [2, 1]


def test_the_study_on_images_chose_the_default():
    values = held_out("images_study")
    pairs = {pair for pair, _ in values}
    assert len(pairs) == 6
    assert all(values[pair, "residual"] > values[pair, "residual_adam"] for pair in pairs)


def test_what_is_said_of_other_truths_is_what_was_measured():
    shares = {}
    for row in results("oracles"):
        shares.setdefault(row["method"], []).append(100 * row["certified_ratio"])
    means = {method: sum(of) / len(of) for method, of in shares.items()}
    told = "the linear read-out certifies {linear:.1f} % of W1 on average, GroupSort {groupsort:.1f} %, cones {cones:.1f} %"
    assert told.format(**means) in " ".join(README.split())


def test_what_is_said_of_todays_tools_is_what_was_measured():
    page = (ROOT / "outputs/reference/w1/README.md").read_text(encoding="utf-8")
    digits = page[page.index("**digits 0-4") :]
    told = {name: float(re.search(rf"\| {name}.*? \| [+-].*? \| ([\d.]+) \|", digits)[1]) for name in
            ("wgan_lip, fit_critic", "WGAN-GP, Adam 0.001", "deel-torchlip")}  # fmt: skip
    w1 = float(re.search(r"of the held-out samples ([\d.]+)\.", digits)[1])
    ours, penalty, peer = (round(100 * value / w1) for value in told.values())
    words = " ".join(README.split())
    assert (ours, peer) == (66, 66) and "`fit_critic` reaches 66 % of W1 of the samples, as deel-torchlip does" in words
    assert f"gradient penalty says {penalty} % without any bound" in words


def test_what_is_said_of_tests_tightness_and_funnels_is_what_was_measured():
    words = " ".join(README.split())
    page = (ROOT / "outputs/reference/tests/README.md").read_text(encoding="utf-8")
    power = re.search(r"\| laws \| combined.*?\n\n", page, re.DOTALL)[0].splitlines()[2:]
    shares = [[float(cell.strip(" *")) for cell in line.split("|")[2:7]] for line in power if line]
    assert len(shares) == 5 and max(max(of) - of[0] for of in shares) < 0.09
    assert "the default is never more than 0.09 behind the best of five tests" in words
    assert max(row["lipschitz"] / row["found"] for row in results("tightness")) < 1.02
    assert "more than 1.02 times the steepest slope found" in words
    cones = [row for row in results("funnels_defaults") if row["method"] == "cones"]
    share = 100 * fmean(row["certified_ratio"] for row in cones)
    above = sum(row["cosine"] > PUBLISHED[row["dim"], row["funnels"]].cosine for row in cones)
    said = (
        f"certify {share:.1f} % of W1 in the mean of the 28 settings and are above the best published cosine in {above}"
    )
    assert len(cones) == 28 and said in words


def test_what_is_said_of_a_step_is_what_was_measured():
    found = {row["critic"]: row for row in results("step_cost")}
    residual, words = found["residual"], " ".join(README.split())
    low, high = residual["quartiles"]
    assert f"{residual['ratio']:.2f} for the residual critic (quartiles {low:.2f} to {high:.2f})" in words
    assert f"the projection is {residual['parts']['projection']:.2f} and the retraction" in words
    assert f"{found['convolutional']['ratio']:.2f} for the convolutional one" in words
    assert f"{found['deel-torchlip, pairs']['ratio']:.2f} for deel-torchlip" in words


def test_what_is_said_of_exact_transport_is_what_was_measured():
    words, rows = " ".join(README.split()), results("scaling")
    for name, said in (("solve", "takes {} to {} times as long"), ("w1", "`w1` {} to {} times;")):
        ratios = [row["ratios"][name] for row in rows if row["n"] >= 1000]
        assert said.format(f"{min(ratios):.2f}", f"{max(ratios):.2f}") in words
    few = [max(row["ratios"][name] for row in rows if row["n"] == 256) for name in ("solve", "w1")]
    assert f"at 256 points up to {few[0]:.2f} and {few[1]:.2f} times" in words
    assert f"256 points is up to {100 * few[0] - 100:.0f} % slower" in words
    ours = {(row["dim"], row["n"]): min(row["seconds"][name] for name in ("solve", "w1")) for row in rows}
    scipy = {(row["dim"], row["n"]): ours[row["dim"], row["n"]] / row["seconds"]["SciPy"] for row in rows}
    fast = max(scipy, key=scipy.__getitem__)
    assert fast[0] in (16, 50) and words.count(f"up to {scipy[fast]:.1f} times as fast in 16 and 50 dimensions") == 2
    (large,) = results("scaling_8000")
    assert f"{large['seconds']['POT'] / large['seconds']['narrow']:.1f} times as fast as POT solves" in words


def test_what_is_said_of_large_pairs_is_what_was_measured():
    found = {(row["pair"], row["dim"], row["n"]): row for row in results("scaling_large")}
    million, wide, exact = (found[("gaussians", *size)] for size in ((2, 10**6), (50, 10**5), (50, 20_000)))
    words = " ".join(README.split())
    widths = [math.ceil(1e4 * (1 - row["lower"] / row["upper"])) / 100 for row in (million, wide)]
    assert f"within {widths[0]:.2f} % after {million['seconds']:.0f} s in {million['mebibytes']:.0f} MiB" in words
    assert f"100,000 in 50 dimensions within {widths[1]:.2f} % after {wide['seconds']:.0f} s" in words
    assert exact["optimal"] and f"solved exactly after {exact['seconds']:.0f} (" in words


def test_what_is_said_of_the_papers_experiments_is_what_was_measured():
    def span(rows) -> str:
        found = [math.floor(1000 * row["accuracy"]) / 10 for row in rows]
        return f"{min(found):.1f} to {max(found):.1f} %"

    rows = results("paper")
    proved = {data: [row for row in rows if row["data"] == data and row["normalised"]] for data in ("moons", "mnist")}
    free = [row for row in rows if not row["normalised"]]
    worst = min(proved["moons"], key=lambda row: row["accuracy"])
    within = max(row["certified"]["0.5"] for row in proved["mnist"])
    words = " ".join(README.split())
    assert all(row["lipschitz"] <= 1 for of in proved.values() for row in of)
    assert f"answer {span(proved['moons'])} of two moons correctly" in words
    assert (worst["family"], worst["depth"]) == ("B", 64) and "64 layers of fixed width the fewest" in words
    assert f"it is {span(free)}, with constants up to {max(row['lipschitz'] for row in free):.0f}." in words
    assert f"On MNIST they answer {span(proved['mnist'])} correctly" in words
    assert f"at best {math.floor(1000 * within) / 10:.1f} % provably" in words


def test_what_is_said_of_inverse_problems_is_what_was_measured():
    words = " ".join(README.split())
    found = {(row["problem"], row["method"]): row for row in results("inverse")}

    def best(problem: str, *methods: str) -> str:
        return f"{max(found[problem, method]['psnr'] for method in methods):.1f}"

    certified, penalties = ("convolutional", "image", "residual"), ("penalty_convolutional", "penalty_dense")
    observed, image = found["denoising", "image"]["observed"], best("denoising", "image")
    assert f"from {observed:.1f} to {image} dB with the certified image critic" in words
    assert f"to {best('denoising', 'total_variation')} with total variation and to" in words
    assert f"and to {best('denoising', *penalties)} with the better of two" in words
    assert f"reaches {best('deblurring', 'total_variation')} dB with total variation" in words
    assert f"{best('deblurring', *certified)} with the best certified critic, as with a gradient penalty" in words
    assert best("deblurring", *certified) == best("deblurring", *penalties)


def excesses(rows, critic, steps=None, key="excess"):
    """Those of every seed, or another score, at the end or after some steps."""
    of = [row["along"] for row in rows if row["critic"] == critic]
    return [along[-1][key] if steps is None else next(a[key] for a in along if a["steps"] == steps) for along in of]


def test_what_is_said_of_certified_convolutions_on_mnist_is_what_was_measured():
    rows, words = results("image_rivals_convolutional"), " ".join(README.split())

    def told(critic: str, steps: int | None = None) -> str:
        values = excesses(rows, f"{critic}_optimistic", steps)
        return f"{fmean(values):.2f} ± {stdev(values):.2f}"

    def lead(steps: int | None) -> tuple[float, float]:
        sides = (excesses(rows, f"{name}_optimistic", steps) for name in ("one_sided_penalty", "convolutional"))
        leads = [theirs - ours for theirs, ours in zip(*sides, strict=True)]
        return fmean(leads), stdev(leads) / math.sqrt(len(leads))

    names = ("convolutional", "sorting", "one_sided_penalty", "gradient_penalty")
    early = "after 4,000 they have {}, full sorts {}, a one-sided penalty {}, the usual penalty {};"
    assert early.format(*(told(name, 4000) for name in names)) in words
    assert "the lead over the best penalty is {:.2f} ± {:.2f}.".format(*lead(4000)) in words
    behind, error = lead(None)
    late = f"{told('convolutional')} and {told('one_sided_penalty')}, behind by {-behind:.2f} ± {error:.2f}"
    assert late in words and 0 < -behind < 2 * error < lead(4000)[0]
    assert f"penalty has {told('gradient_penalty')}, full sorts {told('sorting')}; a step takes" in words
    assert f"the one-sided penalty ends at {told('one_sided_convolutions')}." in words
    ms = [fmean(1000 * row["seconds"] / row["steps"] for row in rows if row["critic"] == f"{name}_optimistic")
          for name in ("convolutional", "one_sided_penalty")]  # fmt: skip
    assert "a step takes {:.0f} ms with them and {:.0f} ms with the penalty".format(*ms) in words


def test_what_is_said_of_certified_convolutions_on_cifar10_is_what_was_measured():
    rows, words = results("image_rivals_cifar10"), " ".join(README.split())
    names = ("convolutional_optimistic", "gradient_penalty_optimistic", "one_sided_penalty_optimistic", "clipped")

    def told(key: str, digits: int, steps: int | None = None) -> list[str]:
        of = [excesses(rows, name, steps, key) for name in names]
        assert all(fmean(of[0]) < fmean(others) for others in of[1:])
        return [f"{fmean(values):.{digits}f} ± {stdev(values):.{digits}f}" for values in of]

    assert ("the excess is {} with certified convolutions, {} with the usual penalty, {} with a one-sided one and {} "
            "with weight clipping").format(*told("excess", 1)) in words  # fmt: skip
    assert "; KID {}, {}, {} and {}. After 500 steps".format(*told("kid", 2)) in words
    assert "After 500 steps KID is {}, {}, {} and {}.".format(*told("kid", 2, 500)) in words
    leads = []
    for steps in (None, 500):
        ours, *others = (excesses(rows, name, steps) for name in names)
        lead = [theirs - own for own, theirs in zip(ours, min(others, key=fmean), strict=True)]
        leads += [fmean(lead), stdev(lead) / math.sqrt(len(lead))]
    assert "its excess by {:.1f} ± {:.1f} less than the best penalty's at equal time and {:.1f} ± {:.1f} less".format(
        *leads
    ) in words and all(mean < 2 * error for mean, error in zip(leads[::2], leads[1::2]))
    recall = max(value for name in names for value in excesses(rows, name, None, "recall"))
    assert f"recall is at most {recall:.3f} for all" in words and not any("stopped" in row for row in rows)


def test_what_is_said_of_other_critics_on_mnist_is_what_was_measured():
    rows, words = results("image_rivals"), " ".join(README.split())
    told = ("the one-sided penalty ends at {}, the usual one at {}, residual layers at {}, spectral normalisation at {}, "
            "full sorts at {}, weight clipping far behind at {}.")  # fmt: skip
    names = ("one_sided_penalty", "gradient_penalty", "residual", "spectral_norm", "sorting", "clipped")
    of = [excesses(rows, name) for name in names]
    assert told.format(*(f"{fmean(values):.3f} ± {stdev(values):.3f}" for values in of)) in words


def test_what_is_said_of_optimistic_generators_is_what_was_measured():
    rows = results("image_rivals_optimistic")

    def excess(critic: str, steps: int | None = None) -> str:
        return f"{fmean(excesses(rows, critic, steps)):.2f}"

    ours, penalty, words = "sorting", "one_sided_penalty", " ".join(README.split())
    early = [excess(f"{name}{kind}", 4000) for name in (ours, penalty) for kind in ("_optimistic", "")]
    assert "the excess after 4,000 steps is {} with full sorts ({} without) and {} with a".format(*early) in words
    assert f"one-sided penalty ({early[3]}): certified critics lead there, by" in words
    of = {(row["critic"], row["seed"]): next(a["excess"] for a in row["along"] if a["steps"] == 4000) for row in rows}
    leads = [of[f"{penalty}_optimistic", seed] - of[f"{ours}_optimistic", seed] for seed in range(3)]
    assert f"by {fmean(leads):.2f} ± {stdev(leads) / math.sqrt(3):.2f} among the optimistic." in words
    late = [excess(f"{name}{kind}") for name in (ours, penalty) for kind in ("_optimistic", "")]
    assert "At equal time it is {} ({}) and {} ({}): the penalty wins".format(*late) in words


def test_what_is_said_of_the_last_three_settings_of_funnels_is_what_was_measured():
    of = {}
    for row in results("funnels_last"):
        of.setdefault((row["dim"], row["funnels"]), []).append(row)
    shares = {setting: [100 * row["certified_ratio"] for row in rows] for setting, rows in of.items()}
    words = " ".join(README.split())
    assert f"at least {min(shares[64, 256]):.1f} % and {min(shares[128, 64]):.1f} % of W1 certified" in words
    hardest = shares[128, 256]
    cosine = sum(row["cosine"] for row in of[128, 256]) / 3
    assert f"it is {min(hardest):.1f} % to {max(hardest):.1f} %, at a mean cosine of {cosine:.4f}:" in words


def test_what_is_said_of_images_with_known_plans_is_what_was_measured():
    words = " ".join(README.split())
    rows = {(row["method"], row["pair"]): row for row in results("image_funnels")}

    def told(key: str, method: str, form: str = "{:.1f} %", factor: float = 100.0) -> tuple[str, str]:
        one, many = (form.format(factor * rows[method, pair][key]) for pair in ("1_funnel", "16_funnels"))
        return one, many

    one, many = told("certified_ratio", "cones")
    assert f"cones certify {one} of W1 (1 funnel) and {many} (16 funnels)" in words
    assert "at cosines of {} and {}, where".format(*told("cosine", "cones", "{:.3f}", 1.0)) in words
    assert "residual layers certify {} and {}".format(*told("certified_ratio", "residual")) in words
    assert "the image critic {} and {}, while".format(*told("certified_ratio", "image")) in words
    over = [100 * rows["gradient_penalty", pair]["ratio"] - 100 for pair in ("1_funnel", "16_funnels")]
    assert f"overestimates W1 by {over[0]:.0f} and {over[1]:.0f} %" in words
    residual, image, cones = (
        100 * rows[name, "subspace"]["certified_ratio"] for name in ("residual", "image", "cones")
    )
    assert f"residual layers certify {residual:.1f} %, the image critic {image:.1f} %, and cones {cones:.1f} %" in words

    rows = {(row["method"], row["pair"], row["side"]): row for row in results("image_funnels_long")}

    def after(pair: str, method: str) -> str:
        return " and ".join(f"{100 * rows[method, pair, side]['certified_ratio']:.1f} %" for side in (32, 64))

    assert f"cones certify {after('1_funnel', 'cones')} of W1 with 1 funnel, {after('16_funnels', 'cones')}" in words
    told = [after(pair, "principal") for pair in ("1_funnel", "16_funnels")]
    assert f"certifies {told[0]}, and {told[1]}; all cosines are at least" in words
    least = min(row["cosine"] for (_, pair, _), row in rows.items() if pair != "subspace")
    assert f"all cosines are at least {math.floor(1000 * least) / 1000:.3f}." in words
    cosines = " and ".join(f"{rows['principal', 'subspace', side]['cosine']:.3f}" for side in (32, 64))
    assert f"it certifies {after('subspace', 'principal')}, at cosines of {cosines}, because" in words
    assert f"cones stay at {after('subspace', 'cones')}." in words


def test_what_is_said_of_first_pictures_is_what_was_measured():
    content = json.loads((ROOT / "outputs/reference/inspect/results.json").read_text(encoding="utf-8"))
    slowest = max(look["picture"] for look in content["first_looks"])
    assert f"there within {math.ceil(slowest)} s of the command" in " ".join(README.split())
    assert {row["overflow"] for row in content["rows"] if "overflow" in row} == {0}


def test_what_is_said_of_witnesses_is_what_was_measured():
    seconds = {row.get("n"): row["cpu_seconds"] for suite in ("witness", "witness_large") for row in results(suite)}
    assert f"10,000 points a side take {seconds[10_000]:.0f} s" in " ".join(README.split())
    assert f"100,000 take {seconds[100_000] / 60:.0f} minutes" in " ".join(README.split())


def test_what_is_said_of_the_referee_is_what_was_measured():
    rows = [row for row in results("referee") if row["tool"].startswith("POT, Sinkhorn, ε = 1 ")]
    duals, costs, proved = ([row[key] / row["exact"] for row in rows] for key in ("dual", "cost", "lower"))
    words = " ".join(README.split())
    assert f"dual value {100 * min(duals):.0f} to {100 * max(duals):.0f} % of W1" in words
    assert f"its plan costs {100 * min(costs):.0f} to {100 * max(costs):.0f} %" in words
    assert min(proved) > 0.959 and "prove at least 95.9 %" in words


def test_pictures_and_files_exist():
    for path, text in {ROOT / "README.md": FIRST, **GUIDES}.items():
        for name in re.findall(r"\]\(([^)#]+)\)", text):
            assert (path.parent / name).exists() or name.startswith("https://"), name
        for name in re.findall(r"`(outputs/reference/[^`]+)`", text):
            assert (ROOT / name).exists(), name


def test_every_command_is_told_and_every_told_command_exists():
    told = set(re.findall(r"^(?:\S*bin/)?wgan-lip (\w+)", README, re.MULTILINE))
    assert told <= COMMANDS.keys()
    assert all(f"wgan-lip {command}" in FIRST for command in COMMANDS)


def test_every_room_is_on_the_map_on_its_floor():
    table = re.search(r"^\| floor \| room .*?\n\n", FIRST, re.MULTILINE | re.DOTALL).group()
    told = [(int(floor), room) for floor, room in re.findall(r"^\| (\d) \| `(\w+)` \| ", table, re.MULTILINE)]
    assert sorted(told) == sorted((height, room) for height, rooms in enumerate(FLOORS, 1) for room in rooms)


def test_the_table_of_layers_is_what_the_layers_say_of_themselves():
    """Where it is not, put the output of `layer_table()` there."""
    assert layer_table() in README


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", FIRST, re.DOTALL))
def test_examples_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    brief = code.replace("steps=150", "steps=20").replace("audit_every=50", "audit_every=20")
    exec(compile(brief, "README.md", "exec"), {})


def test_a_custom_generator_trains_in_forty_lines():
    (loop,) = (code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "LoaderSource" in code)
    assert len([line for line in loop.splitlines() if line.strip()]) <= 40
    assert "class Curve(nn.Module)" in loop and "hydra" not in loop  # test_examples_run plays it
