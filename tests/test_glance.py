"""The README's results at a glance: every number is computed anew from the results file that the row links to."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from statistics import fmean, stdev

import pytest

import wgan_lip
from wgan_lip.benchmarks import image_funnels as of_images
from wgan_lip.benchmarks.funnels import PUBLISHED

ROOT = Path(wgan_lip.__file__).resolve().parents[1]


def results(folder: str) -> list[dict]:
    return json.loads((ROOT / "outputs/reference" / folder / "results.json").read_text(encoding="utf-8"))["rows"]


def funnels() -> str:
    rows = [row for row in results("funnels_defaults") if row["method"] == "cones"]
    above = sum(row["cosine"] > PUBLISHED[row["dim"], row["funnels"]].cosine for row in rows)
    share = fmean(row["certified_ratio"] for row in rows)
    return f"{share:.1%} of W1 certified; {above} of {len(rows)} above the best published cosine"


def funnels_last() -> str:
    shares: dict[tuple[int, int], list[float]] = {}
    for row in results("funnels_last"):
        shares.setdefault((row["dim"], row["funnels"]), []).append(row["certified_ratio"])
    assert all(len(draws) == 3 for draws in shares.values())
    solved = min(*shares[64, 256], *shares[128, 64])
    return f"{solved:.1%} or more of W1 certified in two, {min(shares[128, 256]):.1%} or more in the third: behind"


def image_funnels() -> str:
    rows = [row for row in results("image_funnels_long") if row["pair"] in of_images.PUBLISHED]
    assert {row["side"] ** 2 * 3 for row in rows} == {3072, 12288}
    assert all(row["seconds"] < 301 and row["cosine"] > of_images.PUBLISHED[row["pair"]].cosine for row in rows)
    cones, principal = least_certified(rows)
    return (
        f"cones certify at least {cones:.1%} of W1, trained principal energies {principal:.1%}; all cosines above the "
        "best published"
    )


def image_spans() -> str:
    cones, principal = least_certified(
        row for row in results("image_funnels_long") if row["pair"] == of_images.SUBSPACE
    )
    return f"trained principal energies certify at least {principal:.1%} of W1, cones {cones:.1%}: behind"


def least_certified(rows: Iterable[dict]) -> tuple[float, float]:
    shares: dict[str, list[float]] = {}
    for row in rows:
        shares.setdefault(row["method"], []).append(row["certified_ratio"])
    return min(shares["cones"]), min(shares["principal"])


def image_pairs() -> str:
    values: dict[tuple[str, str], list[float]] = {}
    for row in results("image_pairs"):
        if "held_out" in row:  # the others have diverged
            values.setdefault((row["pair"], row["method"]), []).append(row["held_out"])
    peers = ("torchlip", "torchlip_fast")
    ahead = [
        fmean(values[pair, "residual"]) / max(fmean(values[pair, peer]) for peer in peers if (pair, peer) in values) - 1
        for pair in {pair for pair, _ in values}
    ]
    return f"{min(ahead):+.1%} to {max(ahead):+.1%} on six pairs".replace("-", "−")


def tightness() -> str:
    return f"at most {math.ceil(100 * max(row['lipschitz'] / row['found'] for row in results('tightness'))) / 100:.2f} times"


def step_cost() -> str:
    found = {row["critic"]: row["ratio"] for row in results("step_cost")}
    return f"{found['residual']:.2f} ×; deel-torchlip {found['deel-torchlip, pairs']:.2f} ×"


def scaling() -> str:
    ratios = [row["ratios"]["w1"] for row in results("scaling") if row["n"] >= 1000]
    return f"{min(ratios):.2f} to {max(ratios):.2f} × the time of POT"


def enclosed(dim: int, n: int) -> str:
    (row,) = (row for row in results("scaling_large") if (row["pair"], row["dim"], row["n"]) == ("gaussians", dim, n))
    width = math.ceil(1e4 * (1 - row["lower"] / row["upper"])) / 100
    return f"width {width:.2f} % after {row['seconds']:.0f} s, {row['mebibytes']:.0f} MiB"


def coverage() -> str:
    betting = [row["methods"]["betting"] for row in results("coverage")]
    return f"{min(one['coverage'] for one in betting):.1%} at the least, where 95 % are claimed"


def plane() -> str:
    rows = [row for row in results("wgan") if row["case"] != "digits"]
    within = [
        abs(row["score"]["excess"] - row["score"]["real"])
        < 2 * math.hypot(row["score"]["error"], row["score"]["real_error"])
        for row in rows
    ]
    return f"{sum(within)} of {len(rows)} runs within two standard errors"


def digits() -> str:
    rows = [row["score"] for row in results("wgan") if row["case"] == "digits"]
    return f"{fmean(row['excess'] for row in rows):.3f}, real samples {fmean(row['real'] for row in rows):.3f}: behind"


def rivals() -> str:
    excess = {
        critic: fmean(row["score"]["excess"] for row in results("rivals") if row["critic"] == critic)
        for critic in ("cones", "gradient_penalty")
    }
    return f"{excess['cones']:.3f}; gradient penalty {excess['gradient_penalty']:.2f}"


def image_rivals() -> str:
    rows, told = results("image_rivals_convolutional"), []
    for when, steps in (("4,000 steps", 4000), ("3 minutes", None)):
        excess = {}
        for row in rows:
            at = row["along"][-1] if steps is None else next(at for at in row["along"] if at["steps"] == steps)
            excess.setdefault(row["critic"], []).append(at["excess"])
        ours, theirs = excess["convolutional_optimistic"], excess["one_sided_penalty_optimistic"]
        leads = [penalty - certified for certified, penalty in zip(ours, theirs, strict=True)]
        clear = abs(fmean(leads)) > 2 * stdev(leads) / math.sqrt(len(leads))
        verdict = ("ahead" if fmean(leads) > 0 else "behind") if clear else "level"
        told.append(f"{fmean(ours):.2f} after {when}, one-sided gradient penalty {fmean(theirs):.2f}: {verdict}")
    return "; ".join(told)


def referee() -> str:
    rows = [row for row in results("referee") if row["tool"].startswith("POT, Sinkhorn, ε = 1 ")]
    costs = [row["cost"] / row["exact"] for row in rows]
    proved = min(row["lower"] / row["exact"] for row in rows)
    return f"{min(costs):.0%} to {max(costs):.0%} of W1; its potentials prove {math.floor(1000 * proved) / 10:.1f} % or more"


ROWS = {
    "Published ray-monotone pairs, 28 settings, 8 s of cones": ("funnels_defaults", funnels),
    "The three of the 28 that a minute does not solve, 5 minutes, three draws each": ("funnels_last", funnels_last),
    "The same on CIFAR-10's images in 3,072 and 12,288 dimensions, 1 and 16 funnels, 5 minutes": (
        "image_funnels_long",
        image_funnels,
    ),
    "A potential of images without cones, the distance to the span of 64, 5 minutes": (
        "image_funnels_long",
        image_spans,
    ),
    "Real images, held-out dual value over that of deel-torchlip at equal time": ("image_pairs", image_pairs),
    "Certified constants over the steepest slope found": ("tightness", tightness),
    "A critic's training step over that of an unconstrained network": ("step_cost", step_cost),
    "Exact W1 with gradient, from 1,000 points on, 2 to 784 dimensions": ("scaling", scaling),
    "A million points a side in the plane, two threads": ("scaling_large", partial(enclosed, 2, 10**6)),
    "100,000 points a side in 50 dimensions, two threads": ("scaling_large", partial(enclosed, 50, 10**5)),
    "How often the bounds on W1 of the laws hold, by betting": ("coverage", coverage),
    "WGANs in the plane: excess against that of real samples": ("wgan", plane),
    "WGAN on the digits: excess over the floor": ("wgan", digits),
    "Eight Gaussians after 600 steps, five seeds: excess of cones": ("rivals", rivals),
    "A generator of MNIST, three seeds: excess on features beside certified convolutions": (
        "image_rivals_convolutional",
        image_rivals,
    ),
    "What a Sinkhorn plan at ε = W1 costs": ("referee", referee),
}


def line(claim: str) -> str:
    folder, measured = ROWS[claim]
    return f"| {claim} | {measured().replace('%', ' %').replace('  %', ' %')} | [{folder}](outputs/reference/{folder}/README.md) |"


@pytest.mark.parametrize("claim", ROWS)
def test_results_at_a_glance_are_the_committed_ones(claim):
    assert line(claim) in (ROOT / "README.md").read_text(encoding="utf-8")
