"""Suite funnels: critics trained and measured on the 28 settings of the published ray-monotone benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from wgan_lip import figures
from wgan_lip.benchmarks.cases import (
    mean_of,
    number,
    parse_overrides,
    percent,
    positive_number,
    run_cases,
    some_of,
)
from wgan_lip.benchmarks.contest import Case, method_table
from wgan_lip.benchmarks.machine import write_page, write_results
from wgan_lip.benchmarks.methods import COMPARED, METHODS
from wgan_lip.data.oracles import RayMonotone
from wgan_lip.utils.numbers import rounded_up
from wgan_lip.utils.tables import markdown_table

__all__ = ["PUBLISHED", "SOURCE", "Published", "measure"]

DIMS = (2, 4, 8, 16, 32, 64, 128)
FUNNELS = (4, 16, 64, 256)
DRAWS = 10  # of the centres, at most
SECONDS = 15.0  # of training, for every method
DRAWN = ("cones", "linear")  # of this package, in the figure; beside all baselines


@dataclass(frozen=True)
class Published:
    """What was published about one setting.

    Attributes:
        w1: W1 of the published pair, whose apexes are others than those of ours.
        cosine: The best mean cosine.
        method: Which solver had it.
        sort_cosine, sort_w1: Cosine and W1 of the solver with sorting layers, the only one that is 1-Lipschitz.
        penalty_cosine, penalty_w1: Those of the solver with a gradient penalty.
    """

    w1: float
    cosine: float
    method: str
    sort_cosine: float
    sort_w1: float
    penalty_cosine: float
    penalty_w1: float


SOURCE = "Kantorovich Strikes Back! Wasserstein GANs are not Optimal Transport? (Korotin, Kolesov, Burnaev, 2022)"
PUBLISHED: dict[tuple[int, int], Published] = {
    (2, 4): Published(0.8174, 0.8589, "wgan-qp", 0.773, 0.7596, 0.8446, 0.8571),
    (2, 16): Published(0.4662, 0.8431, "dot", 0.6947, 0.2836, 0.6812, 0.4221),
    (2, 64): Published(0.2303, 0.717, "dot", 0.6614, 0.0854, 0.3545, 0.1268),
    (2, 256): Published(0.1336, 0.5458, "sort-out", 0.5458, 0.0352, 0.1922, 0.0412),
    (4, 4): Published(1.3853, 0.9597, "cowgan", 0.9054, 1.2657, 0.9495, 1.4473),
    (4, 16): Published(1.0035, 0.9027, "cowgan", 0.7265, 0.5574, 0.8622, 1.0558),
    (4, 64): Published(0.7098, 0.817, "wgan-lp", 0.5026, 0.2589, 0.6708, 0.5783),
    (4, 256): Published(0.4916, 0.6555, "wgan-lp", 0.3094, 0.0921, 0.3734, 0.2234),
    (8, 4): Published(1.8817, 0.966, "3p-wgan_rev", 0.8939, 1.6842, 0.9612, 1.998),
    (8, 16): Published(1.585, 0.9246, "wgan-gp", 0.7542, 1.0421, 0.9246, 1.7005),
    (8, 64): Published(1.2593, 0.8273, "wgan-lp", 0.4749, 0.5395, 0.8171, 1.1626),
    (8, 256): Published(1.008, 0.6784, "wgan-lp", 0.2555, 0.2862, 0.5887, 0.7097),
    (16, 4): Published(1.9405, 0.9706, "sort-out", 0.9706, 1.8886, 0.9642, 2.0706),
    (16, 16): Published(1.7375, 0.9212, "wgan-lp", 0.8504, 1.4609, 0.9125, 1.8133),
    (16, 64): Published(1.5536, 0.7846, "wgan-gp", 0.5692, 0.8494, 0.7846, 1.3557),
    (16, 256): Published(1.3989, 0.607, "wgan-gp", 0.3976, 0.5534, 0.607, 0.9137),
    (32, 4): Published(1.8217, 0.9831, "sort-out", 0.9831, 1.7768, 0.9547, 1.9799),
    (32, 16): Published(1.6697, 0.9406, "sort-out", 0.9406, 1.5223, 0.8978, 1.7105),
    (32, 64): Published(1.5429, 0.7395, "sort-out", 0.7395, 1.0569, 0.7283, 1.1905),
    (32, 256): Published(1.4123, 0.5626, "wgan-gp", 0.5345, 0.7331, 0.5626, 0.8707),
    (64, 4): Published(1.4113, 0.959, "sort-out", 0.959, 1.4252, 0.9182, 1.3783),
    (64, 16): Published(1.3595, 0.9465, "sort-out", 0.9465, 1.3674, 0.7503, 1.0922),
    (64, 64): Published(1.3173, 0.8341, "sort-out", 0.8341, 1.0775, 0.6059, 0.8144),
    (64, 256): Published(1.2826, 0.6561, "sort-out", 0.6561, 0.8014, 0.531, 0.6737),
    (128, 4): Published(1.1424, 0.9313, "sort-out", 0.9313, 1.0473, 0.9229, 1.1356),
    (128, 16): Published(1.072, 0.9161, "sort-out", 0.9161, 0.9752, 0.7988, 0.9195),
    (128, 64): Published(1.0448, 0.6414, "wgan-gp", 0.6374, 0.6932, 0.6414, 0.7109),
    (128, 256): Published(1.0415, 0.6125, "sort-out", 0.6125, 0.647, 0.5621, 0.6016),
}
"""By (dimension, funnels)."""


def measure(seeds: list[int], overrides: list[str], out: Path) -> str:
    """Trains every method on every setting, fresh samples each step; draws `funnels.png`.

    Arguments:
        seeds: Of critics and samples.
        overrides: `dims=2,16`, `funnels=64`, `methods=cones,linear`, `seconds=60`; all by default. `draws=0,1,2`: draws
            of the centres, `RayMonotone(dim, funnels, seed=draw)`; 0 by default.
        out: The suite's folder; see :func:`wgan_lip.benchmarks.cases.run_cases`.
    """
    legal = {
        "dims": some_of(DIMS, "dims"),
        "funnels": some_of(FUNNELS, "funnels"),
        "draws": some_of(range(DRAWS), "draws"),
        "methods": some_of(METHODS, "methods"),
        "seconds": positive_number("seconds"),
    }
    chosen: dict[str, Any] = {
        "dims": DIMS, "funnels": FUNNELS, "draws": [0], "methods": COMPARED, "seconds": SECONDS
    }  # fmt: skip
    chosen |= parse_overrides(overrides, legal)
    cases = [
        Case(
            {"dim": dim, "funnels": count, **({"draw": draw} if draw else {}), "method": method, "seed": seed},
            RayMonotone(dim=dim, funnels=count, seed=draw),
            METHODS[method],
            chosen["seconds"],
        )
        for seed, dim, count, draw, method in product(
            dict.fromkeys(seeds), chosen["dims"], chosen["funnels"], chosen["draws"], chosen["methods"]
        )
    ]
    rows = run_cases(cases, out)
    settings = [{"dim": dim, "funnels": count, **asdict(published)} for (dim, count), published in PUBLISHED.items()]
    more = {"seconds": chosen["seconds"], "published": {"source": SOURCE, "settings": settings}}
    methods = {name: METHODS[name].settings() for name in chosen["methods"]}
    write_results("funnels", seeds, out, overrides, threads=1, **more, methods=methods, rows=rows)
    _draw(rows, out)
    table = _table(rows)
    how = f"{chosen['seconds']:g} seconds of processor time a critic, one thread."
    if len(chosen["draws"]) > 1:
        table += "\n" + _by_draw(rows)
    parts = [table, "![cosine of gradients over the number of funnels](funnels.png)", _losses(rows)]
    write_page(out, title="Ray-monotone pairs, and what was published", how=how, parts=parts)
    return table


def _ours(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of our critics, without baselines."""
    return list(dict.fromkeys(row["method"] for row in rows if not METHODS[row["method"]].baseline))


def _losses(rows: Sequence[Mapping[str, Any]]) -> str:
    """Where each of our critics is behind the best published cosine, or misses W1 by more than a twentieth."""
    lines = ["**Where ours lose**", ""]
    for method in _ours(rows):
        of = _of(rows, method=method)
        behind = [f"({row['dim']}, {row['funnels']})" for row in of if not _above(row)]
        short = [f"({row['dim']}, {row['funnels']})" for row in of if row["certified_ratio"] < 0.95]
        lines.append(
            f"- {method}: behind the best published cosine in {len(behind)} of {len(of)} settings (dimension, funnels)"
            f"{': ' * bool(behind)}{', '.join(behind)}; certifies less than 95 % of W1 in {len(short)}"
            f"{': ' * bool(short)}{', '.join(short)}."
        )
    return "\n".join(lines)


def _by_draw(rows: Sequence[Mapping[str, Any]]) -> str:
    """What each critic certifies of W1, by draw of the centres; means over seeds."""
    draws = sorted({row.get("draw", 0) for row in rows})
    lines = []
    for dim, count, method in dict.fromkeys((row["dim"], row["funnels"], row["method"]) for row in rows):
        of = _of(rows, dim=dim, funnels=count, method=method)
        shares = [mean_of([row for row in of if row.get("draw", 0) == draw], "certified_ratio") for draw in draws]
        lines.append([str(dim), str(count), method, *map(percent, shares)])
    heads = ["dimension", "funnels", "certified / W1 of", *(f"draw {draw} of the centres" for draw in draws)]
    return markdown_table(heads, lines) + "\n"


def _above(row: Mapping[str, Any]) -> bool:
    """Whether the cosine is above the best published one."""
    return row["cosine"] is not None and row["cosine"] > PUBLISHED[row["dim"], row["funnels"]].cosine


def _of(rows: Sequence[Mapping[str, Any]], **labels: Any) -> list[Mapping[str, Any]]:
    return [row for row in rows if "failed" not in row and all(row[key] == value for key, value in labels.items())]


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a setting, means over seeds, and a line a method."""
    shown = [name for name in DRAWN if _of(rows, method=name)] or _ours(rows)
    with_baselines = any(METHODS[row["method"]].baseline for row in rows)
    heads = ["dimension", "funnels", "best published cosine", *shown, *["best baseline trained here"] * with_baselines]
    heads += ["value / W1, cones", "Lip ≤"] * ("cones" in shown)
    lines = []
    for dim, count in sorted({(row["dim"], row["funnels"]) for row in rows}):
        setting, published = _of(rows, dim=dim, funnels=count), PUBLISHED[dim, count]
        cells = [str(dim), str(count), f"{published.cosine:.4f}, {published.method}"]
        cells += [_cosine(_of(setting, method=method), published) for method in shown]
        cells += [_best_baseline(setting, published)] * with_baselines
        if "cones" in shown:
            ours = _of(setting, method="cones")
            cells += [percent(mean_of(ours, "ratio"))]
            cells += [rounded_up(max(row["lipschitz"] for row in ours), 7) if ours else ""]
        lines.append(cells)
    return "\n".join([markdown_table(heads, lines), "", method_table(rows, _above), "", _LEGEND]) + "\n"


_LEGEND = f"""\
Cosine: of the critic's gradient to that of the potential, mean over points of P; bold where it is above the best
published one, that of the best solver for each setting of *{SOURCE}*.
Value: E_P f − E_Q f on fresh pairs, over their mean length; certified: divided by the certified constant as well, which
bounds W1 from below. The read-out of "cones" is made of cones, as is the potential of this benchmark: it is of the
truth's own family, the linear read-out is not. "certified": its constant stays at most 1; "certified, conservative": a
valid constant that is not reached; "not certified": nothing in its training bounds it."""


def _cosine(rows: Sequence[Mapping[str, Any]], published: Published) -> str:
    cosine = mean_of(rows, "cosine")
    mark = "**" if cosine is not None and cosine > published.cosine else ""
    return f"{mark}{number(cosine, '{:.4f}')}{mark}"


def _best_baseline(rows: Sequence[Mapping[str, Any]], published: Published) -> str:
    names = {row["method"] for row in rows if METHODS[row["method"]].baseline}
    means = {name: mean_of(_of(rows, method=name), "cosine") for name in names}
    known = {name: mean for name, mean in means.items() if mean is not None}
    if not known:
        return ""
    best = max(known, key=known.__getitem__)
    of = _of(rows, method=best)
    return f"{_cosine(of, published)}, {best} ({of[0]['guarantee']})"


def _draw(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """The cosines over the number of funnels, a panel a dimension."""
    names = {"cones": "this package, cones", "linear": "this package, linear read-out"}
    names |= {name: name.replace("_", " ") for name, method in COMPARED.items() if method.baseline}
    if not any(row["method"] in names for row in rows):
        names = {name: f"this package, {name.replace('_', ' ')}" for name in _ours(rows)}

    def curves(dim: int) -> dict[str, list[tuple[float, float]]]:
        counts = sorted({row["funnels"] for row in rows if row["dim"] == dim})
        drawn = {"best published": [(float(count), PUBLISHED[dim, count].cosine) for count in counts]}
        for method, name in names.items():
            means = {count: mean_of(_of(rows, dim=dim, funnels=count, method=method), "cosine") for count in counts}
            if points := [(float(count), mean) for count, mean in means.items() if mean is not None]:
                drawn[name] = points
        return drawn

    dims = sorted({row["dim"] for row in rows})
    figure = figures.score_curves(
        {f"dimension {dim}": curves(dim) for dim in dims},
        size="funnels",
        quantity="mean cosine of gradients",
        title="Gradient of the critic against the potential's, ray-monotone pairs",
    )
    figures.save(figure, out / "funnels.png", dpi=130)
