"""Suites w1 and w1_large: W1 of samples and of laws by today's tools and by this package, side by side.

Every measurement runs in a separate process, in which imports and samples are ready before the clock starts: its time
and its memory are the tool's alone, and a tool that crashes, or does not end, loses only its own row.
"""

from __future__ import annotations

import importlib
import math
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import wgan_lip
from wgan_lip.benchmarks import peers
from wgan_lip.benchmarks.machine import peak_memory, threads, write_page, write_results
from wgan_lip.benchmarks.peers import Answer, Finish, Problem
from wgan_lip.data import Digits, Gaussians8, Moons
from wgan_lip.data.oracles import Dilation, Funnel, Oracle, RayMonotone, Shift
from wgan_lip.lipschitz.certificates import evaluate
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError, one_line
from wgan_lip.utils.numbers import rounded, rounded_down, rounded_up
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.fitting import fit_critic
from wgan_lip.wasserstein.interval import kr_lower_bound

__all__ = ["measure", "measure_large"]

SAMPLES = 2000  # of each law, and as many held out
EXACT_SAMPLES, LARGE_SAMPLES, LINE_SAMPLES = 20_000, 100_000, 10_000_000
STEPS = 1500  # of every critic that is trained
SINKHORN = (0.1, 0.02)  # its regularisation, in units of W1
SINKHORN_ITERATIONS = 500
DIRECTIONS = 1000  # of sliced distances between SAMPLES; a tenth between LARGE_SAMPLES
SECONDS, LARGE_SECONDS = 30.0, {2: 60.0, 16: 600.0}  # what this package may take; on many samples by their dimension
LARGE_TOLERANCE = {2: 0.002, 16: 0.1}  # relative width with which it is content there
EXACT_SECONDS = 1200.0  # where it is to be exact
LIMIT, LARGE_LIMIT = 900.0, 1300.0  # seconds after which a measurement is stopped
LIFTED = 10**9  # iterations of the exact solver
TOLERANCE = 1e-9  # a value is above an exact one if it is so by more than rounding; relative
EXACT = 1e-6  # W1 of the samples counts as known within an interval of this relative width

CERTIFIED = "certified"

Bounds = tuple[float, float]
Truth = dict[str, Any]  # see _truth


@dataclass(frozen=True)
class Case:
    """A pair of laws, and who knows what about it.

    Attributes:
        name: In words.
        make: Draws the problem from a seed.
        laws: W1 of the laws, where it is known.
        referee: Bounds W1 of two sets of samples; without one, the intervals that the tools prove bound it.
    """

    name: str
    make: Callable[[int], Problem]
    laws: float | None = None
    referee: Callable[[Tensor, Tensor], Bounds] | None = None


@dataclass(frozen=True)
class Method:
    """A tool: its name, the modules it needs, its call, and the threads it may use."""

    name: str
    imports: tuple[str, ...]
    call: Callable[[Problem], Finish]
    threads: int = 1


Methods = Callable[[Truth], Iterator[Method]]  # what is measured on a case


def measure(seeds: list[int], out: Path) -> str:
    """Measures every tool on a few thousand samples, where exact W1 is known."""
    funnels = RayMonotone(dim=16, funnels=16, seed=1)  # of W1 1.744, that of the published pair being 1.738
    cases = [
        Case("8 Gaussians, moons", partial(_plane, SAMPLES), referee=_solved),
        Case("16 funnels", partial(_drawn, funnels, SAMPLES, SAMPLES), funnels.w1, _solved),
        Case("digits 0-4, digits 5-9", _digits, referee=_solved),
    ]
    return _measure("w1", [(case, _all_methods) for case in cases], seeds, out, LIMIT)


def measure_large(seeds: list[int], out: Path) -> str:
    """Measures the tools that reach so far on many samples."""
    work: list[tuple[Case, Methods]] = []
    for dim in (2, 16):
        funnels = Funnel(dim=dim, funnels=16)
        work.append((Case(funnels.name, partial(_drawn, funnels, EXACT_SAMPLES, SAMPLES), funnels.w1), _exact_methods))
    line = Dilation(dim=1)
    work.append((Case(line.name, partial(_drawn, line, LINE_SAMPLES, SAMPLES), line.w1, _sorted), _line_methods))
    for dim in (2, 16):
        for oracle in (Dilation(dim=dim), Funnel(dim=dim, funnels=16), Shift(dim=dim)):
            work.append((Case(oracle.name, partial(_drawn, oracle, LARGE_SAMPLES, SAMPLES), oracle.w1), _large_methods))
    return _measure("w1_large", work, seeds, out, LARGE_LIMIT)


def _plane(n: int, seed: int) -> Problem:
    """A ring of 8 Gaussians, and two moons off its centre, as they are usually drawn."""
    x = Gaussians8(radius=1.45).reference(2 * n, seed).double()
    y = Moons().reference(2 * n, seed).double() + torch.tensor([0.5, 0.25])
    return Problem(x[:n], y[:n], x[n:], y[n:])


def _digits(seed: int) -> Problem:
    source = Digits(seed=seed)
    (x, y), (x_test, y_test) = (
        (images[labels < 5].double(), images[labels >= 5].double())
        for images, labels in ((source.train, source.train_labels), (source.test, source.test_labels))
    )
    return Problem(x, y, x_test, y_test)


def _drawn(oracle: Oracle, n: int, held_out: int, seed: int) -> Problem:
    """All samples independent: none of x is the partner of one of y."""
    rng = torch.Generator().manual_seed(seed)
    return Problem(*oracle.sample(n, n, rng), *oracle.sample(held_out, held_out, rng))


def _solved(x: Tensor, y: Tensor) -> Bounds:
    solution = solve(x, y)
    return solution.lower, solution.upper


def _sorted(x: Tensor, y: Tensor) -> Bounds:
    """On the line, between equally many samples: the mean distance in order of size, in extended precision."""
    of_x, of_y = (np.sort(samples[:, 0].numpy()) for samples in (x, y))
    value = float(np.abs(of_x - of_y).mean(dtype=np.longdouble))
    return value * (1 - 1e-12), value * (1 + 1e-12)


def _all_methods(truth: Truth) -> Iterator[Method]:
    seed, (_, w1) = truth["seed"], truth["samples"]
    yield _ours(SECONDS, seed)
    yield Method(f"wgan_lip, fit_critic, {SECONDS:g} s", ("ot",), partial(_fit, seconds=SECONDS, seed=seed))
    yield Method("wgan_lip, transport.solve", ("ot",), _transport)
    yield from _pot_exact()
    for epsilon in SINKHORN:
        call = partial(peers.pot_sinkhorn, epsilon=epsilon * w1, iterations=SINKHORN_ITERATIONS)
        yield Method(f"POT, Sinkhorn, ε = {epsilon:g} W1", ("ot",), call)
    yield from _sliced(DIRECTIONS, seed)
    for debias in (True, False):
        call = partial(peers.geomloss, blur=0.05 * w1, debias=debias)
        yield Method(f"GeomLoss, {'debiased' if debias else 'raw'}, blur 0.05 W1", ("geomloss",), call)
    yield from _gradient_penalty(seed)
    yield Method("WGAN, weight clipping", (), partial(peers.weight_clipping, steps=STEPS, seed=seed))
    yield Method("deel-torchlip, KR", ("deel.torchlip",), partial(peers.torchlip, steps=STEPS, seed=seed))


def _exact_methods(truth: Truth) -> Iterator[Method]:
    yield _ours(EXACT_SECONDS, truth["seed"], threads=2)
    yield Method("POT, emd2, limit lifted", ("ot",), partial(peers.pot_exact, iterations=LIFTED))


def _large_methods(truth: Truth) -> Iterator[Method]:
    yield _ours(LARGE_SECONDS[truth["dim"]], truth["seed"], LARGE_TOLERANCE[truth["dim"]], threads=2)
    yield Method("POT, emd2, limit lifted", ("ot",), partial(peers.pot_exact, iterations=LIFTED))
    directions = max(1, DIRECTIONS // 10)
    call = partial(peers.pot_sliced, directions=directions, largest=False, seed=truth["seed"])
    yield Method(f"POT, sliced, {directions} directions", ("ot",), call)


def _line_methods(truth: Truth) -> Iterator[Method]:
    yield _ours(SECONDS, truth["seed"])
    yield Method("POT, wasserstein_1d", ("ot",), peers.pot_line)
    yield Method("SciPy, wasserstein_distance", ("scipy.stats",), peers.scipy_line)


def _ours(seconds: float, seed: int, tolerance: float = 0.0, threads: int = 1) -> Method:
    call = partial(_estimate, seconds=seconds, tolerance=tolerance, seed=seed)
    enough = f" or {100 * tolerance:g} %" if tolerance else ""
    cores = f", {threads} threads" if threads > 1 else ""
    return Method(f"wgan_lip, estimate_w1, {seconds:g} s{enough}{cores}", ("ot",), call, threads)


def _pot_exact() -> Iterator[Method]:
    yield Method("POT, emd2", ("ot",), peers.pot_exact)
    yield Method("POT, emd2, limit lifted", ("ot",), partial(peers.pot_exact, iterations=LIFTED))


def _sliced(directions: int, seed: int) -> Iterator[Method]:
    for largest in (False, True):
        call = partial(peers.pot_sliced, directions=directions, largest=largest, seed=seed)
        yield Method(f"POT, {'max-' if largest else ''}sliced, {directions} directions", ("ot",), call)


def _gradient_penalty(seed: int) -> Iterator[Method]:
    for rate in (1e-4, 1e-3):
        call = partial(peers.gradient_penalty, learning_rate=rate, steps=STEPS, seed=seed)
        yield Method(f"WGAN-GP, Adam {rate:g}", (), call)


def _estimate(problem: Problem, *, seconds: float, tolerance: float = 0.0, seed: int) -> Finish:
    """This package's estimate, from the samples alone."""
    result = wgan_lip.estimate_w1(problem.x, problem.y, laws=True, seconds=seconds, tolerance=tolerance, seed=seed)

    def finish() -> Answer:
        held_out, laws, note = _held_out(result.potential, problem), None, ""
        if (bounds := result.population) is not None:
            laws, upper = bounds.estimate, "" if bounds.upper is None else f" ≤ {rounded_up(bounds.upper)}"
            note = f"laws: {rounded_down(bounds.lower)} ≤ W1{upper} at level {bounds.level:g}"
        return Answer(result.value, CERTIFIED, result.lower, result.upper, held_out=held_out, laws=laws, note=note)

    return finish


def _fit(problem: Problem, *, seconds: float, seed: int) -> Finish:
    """This package's critic alone: trained on four fifths of the samples, chosen on the rest."""
    (x, x_validation), (y, y_validation) = (part.tensor_split([4 * len(part) // 5]) for part in (problem.x, problem.y))
    fit = fit_critic(x, y, x_validation=x_validation, y_validation=y_validation, seconds=seconds, seed=seed)

    def finish() -> Answer:
        lower = kr_lower_bound(fit.critic, problem.x, problem.y)
        note = f"chosen: {fit.name}; W1 of the samples is at least {rounded_down(lower)}"
        return Answer(lower, "certified lower bound", held_out=_held_out(fit.critic, problem), note=note)

    return finish


def _transport(problem: Problem) -> Finish:
    """This package's exact solver."""
    solution = solve(problem.x, problem.y)

    def finish() -> Answer:
        held_out = _held_out(solution.potential, problem)
        return Answer(solution.value, CERTIFIED, solution.lower, solution.upper, held_out=held_out)

    return finish


def _held_out(potential: Callable[[Tensor], Tensor], problem: Problem) -> float:
    points = torch.cat((problem.x_test, problem.y_test))
    values = evaluate(potential, points).values if isinstance(potential, nn.Module) else potential(points)
    return float(values[: len(problem.x_test)].mean() - values[len(problem.x_test) :].mean())


def _measure(suite: str, work: list[tuple[Case, Methods]], seeds: list[int], out: Path, limit: float) -> str:
    """Case by case, tool after tool; `results.json` is written after each."""
    cases: list[dict[str, Any]] = []
    for seed in seeds:
        for case, methods in work:
            truth = _truth(case, seed)
            rows: list[dict[str, Any]] = []
            cases.append({**truth, "rows": rows})
            for method in methods(truth):
                rows.append({"method": method.name, **_apart(method, partial(case.make, seed), limit)})
                rows[:] = _judged(rows, truth)
                write_results(suite, seeds, out, cases=cases)
                _check_agreement(rows, truth)
    table = _table(cases)
    title = "W1 by today's tools" if suite == "w1" else "W1 of many samples"
    how = "One thread unless a row says otherwise; every row in a process of its own, imports and samples ready."
    write_page(out, title=title, how=how, parts=[READING, table])
    return table


READING = """\
An exact solver knows the samples and nothing of the laws; a critic tells about the laws what it tells on held-out
samples."""


def _truth(case: Case, seed: int) -> Truth:
    """What is known before any tool is asked: W1 of the samples, of those held out, of the laws."""
    problem = case.make(seed)
    samples = held_out = None
    if case.referee is not None:
        samples, held_out = case.referee(problem.x, problem.y), case.referee(problem.x_test, problem.y_test)
    n, dim = problem.x.shape
    sizes = {"n": n, "m": len(problem.y), "dim": dim}
    return {"case": case.name, "seed": seed, **sizes, "samples": samples, "held_out": held_out, "laws": case.laws}


def _apart(method: Method, make: Callable[[], Problem], limit: float) -> dict[str, Any]:
    """A row of figures, measured in a process of its own; where that fails, why."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, method, make))
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(limit) else {"failed": f"stopped after {limit:g} s"}
    except EOFError:
        process.join()
        return {"failed": f"its process ended with status {process.exitcode}"}
    finally:
        receiver.close()
        process.kill()
        process.join()
        process.close()


def _child(sender: Connection, method: Method, make: Callable[[], Problem]) -> None:
    with sender:
        sender.send(_row(method, make))


def _row(method: Method, make: Callable[[], Problem]) -> dict[str, Any]:
    try:
        for name in method.imports:
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        return {"failed": f"not installed: {error.name}"}
    try:
        with threads(method.threads):
            return _measured(method.call, make())
    except InputError as error:
        return {"failed": f"refused: {error}"}
    except Exception as error:  # a tool may fail in any way; the others go on
        return {"failed": one_line(error)}


def _measured(call: Callable[[Problem], Finish], problem: Problem) -> dict[str, Any]:
    before = peak_memory(reset=True)
    wall, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finish = call(problem)
    seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    peak = peak_memory()
    memory = None if before is None or peak is None else (peak - before) / 2**20
    warned = sorted({f"warns: {str(warning.message).split('. ')[0].strip()}" for warning in caught})
    answer = asdict(finish())
    return {**answer, "note": "; ".join([*filter(None, [answer["note"]]), *warned]), **seconds, "mebibytes": memory}


def _enclosed(rows: list[dict[str, Any]], truth: Truth) -> Bounds:
    """W1 of the samples between all that is proved about it."""
    proved = [truth["samples"] or (0.0, math.inf)]
    proved += [(row["lower"], row["upper"]) for row in rows if row.get("lower") is not None]
    return max(lower for lower, _ in proved), min(upper for _, upper in proved)


def _check_agreement(rows: list[dict[str, Any]], truth: Truth) -> None:
    lower, upper = _enclosed(rows, truth)
    if lower > upper:
        raise RuntimeError(f"On '{truth['case']}', W1 is proved to be ≥ {lower!r} and ≤ {upper!r}: a bug in a proof.")


def _judged(rows: list[dict[str, Any]], truth: Truth) -> list[dict[str, Any]]:
    """The rows with relative errors, and with flags where a value is above exact W1 of the samples it is about."""
    samples, held_out = _enclosed(rows, truth), truth["held_out"] or (0.0, math.inf)
    judged = []
    for row in rows:
        if "failed" not in row:
            told = [value for value in (row["laws"], row["held_out"], row["value"]) if value is not None]
            if truth["laws"] is not None:
                about = {"laws_told": told[0], "laws_error": told[0] / truth["laws"] - 1}
            else:
                about = {"laws_told": row["held_out"], "laws_error": _error(row["held_out"], held_out)}
            above = {"above": _above(row["value"], samples), "held_out_above": _above(row["held_out"], held_out)}
            row = {**row, "error": _error(row["value"], samples), **about, **above}
        judged.append(row)
    return judged


def _error(value: float | None, bounds: Bounds) -> float | None:
    """Relative to W1, where its bounds are so close that it counts as known."""
    lower, upper = bounds
    if value is None or not upper - lower <= EXACT * upper < math.inf:
        return None
    return value / upper - 1


def _above(value: float | None, bounds: Bounds) -> bool:
    return value is not None and value > bounds[1] * (1 + TOLERANCE)


def _table(cases: list[dict[str, Any]]) -> str:
    """One table a case."""
    lines: list[str] = []
    for case in cases:
        lines += [_headline(case), "", _rows(case), ""]
    return "\n".join([*lines, _LEGEND]) + "\n"


_LEGEND = """\
One thread unless said; every row in a process of its own, imports and samples ready before the clock starts. MiB: the
peak of memory above that. ▲: above the exact W1 of the samples it is about, which no 1-Lipschitz critic and no optimal
plan can be. Of the laws: what a tool says about them, which is its value on held-out samples if it has a critic, with
the error relative to W1 of the laws where that is known, else to exact W1 of the held-out samples."""


def _headline(case: dict[str, Any]) -> str:
    lower, upper = _enclosed(case["rows"], case)
    sizes = f"d = {case['dim']}, n = {case['n']:,}, m = {case['m']:,}, seed {case['seed']}"
    known = []
    if _error(upper, (lower, upper)) is not None:
        known.append(f"of the samples {rounded(upper, 5)}")
    elif upper < math.inf:
        known.append(f"of the samples between {rounded_down(lower, 5)} and {rounded_up(upper, 5)}")
    if case["held_out"] is not None:
        known.append(f"of the held-out samples {rounded(case['held_out'][1], 5)}")
    if case["laws"] is not None:
        known.append(f"of the laws {rounded(case['laws'], 5)}")
    return f"**{case['case']}** ({sizes}). W1: {', '.join(known) or 'unknown'}."


def _rows(case: dict[str, Any]) -> str:
    heads = ["method", "value", "error", "of the laws", "error", "steepest slope", "guarantee", "s", "CPU s", "MiB"]
    lines = []
    for row in case["rows"]:
        if "failed" in row:
            lines.append([row["method"], *[""] * 5, row["failed"]])
            continue
        lines.append(
            [
                row["method"],
                rounded(row["value"], 4) + " ▲" * row["above"],
                _percent(row["error"]),
                _number(row["laws_told"], 4) + " ▲" * row["held_out_above"],
                _percent(row["laws_error"]),
                _number(row["gradient"], 3),
                _guarantee(row),
                _number(row["seconds"], 3),
                _number(row["cpu_seconds"], 3),
                "" if row["mebibytes"] is None else f"{row['mebibytes']:.0f}",
            ]
        )
    return markdown_table(heads, lines)


def _guarantee(row: dict[str, Any]) -> str:
    words = row["guarantee"]
    if row["lower"] is not None:
        width = (row["upper"] - row["lower"]) / row["upper"] if row["upper"] else 0.0
        ends = f" [{rounded_down(row['lower'])}, {rounded_up(row['upper'])}]" if width > EXACT else ""
        words += f"{ends}, width {_percent(width, sign='')}"
    return "; ".join(filter(None, [words, row["note"]]))


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else rounded(value, digits)


def _percent(share: float | None, sign: str = "+") -> str:
    if share is None:
        return ""
    return f"{100 * share:{sign}.1f} %" if abs(share) >= 1e-3 or share == 0 else f"{share:{sign}.0e}"
