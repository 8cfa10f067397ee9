"""The job behind `wgan-lip estimate`."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from wgan_lip import figures
from wgan_lip.cli import screens
from wgan_lip.cli.groups import estimate_groups, open_groups
from wgan_lip.cli.schema import checked
from wgan_lip.data import (
    Law,
    Opened,
    TableOptions,
    check_shapes,
    grid_pair,
    known_w1,
    law_of_rows,
    matched,
    open_samples,
    options_of,
    pooled_scaling,
    read_array,
    read_samples,
)
from wgan_lip.runs.folder import CERTIFICATE, METRICS, RESULT, create_run, failures_recorded, set_status, versions
from wgan_lip.runs.run import load_run
from wgan_lip.runs.sampling import sample_blocks
from wgan_lip.runs.tracking import ESTIMATE_CHARTS, IntervalConsole, JsonLinesTracker, TensorBoardTracker, Trackers
from wgan_lip.training.board import meanings
from wgan_lip.training.signals import StopRequests
from wgan_lip.transport import Crew
from wgan_lip.utils.checks import InputError, check_seed
from wgan_lip.utils.devices import find_device, keep_freed_memory, rank, set_threads, world_size
from wgan_lip.utils.files import write_json
from wgan_lip.utils.terminal import say
from wgan_lip.wasserstein.estimate import check_estimate, estimate_w1
from wgan_lip.wasserstein.referee import certify_plan
from wgan_lip.wasserstein.result import Progress, W1Estimate

__all__ = ["estimate"]

TABLE = {
    "header": bool | None, "index": bool | int | str | None, "columns": list, "drop": list, "delimiter": str | None,
    "decimal": str | None, "obsm": str | None, "layout": str | None,
}  # fmt: skip
"""Options of tables and arrays, for both sides or for one."""
WITNESSED, IN_PLANE = 5_000, 100_000  # most samples a side of a witness, so that its check takes minutes
CHARTED = ("w1/lower", "w1/upper", "w1/exact", "w1/critic", "certificate/lipschitz", "perf/seconds")
ROOT = {
    "x": str, "y": str | None, "a": str | None, "b": str | None, "key_x": str | None, "key_y": str | None,
    "dim": int | None, "critic": str | None, "critic_steps": int | None, "seconds": float, "tolerance": float,
    "samples": int, "stream": bool, "level": float, "method": str,
    "diameter_x": float | None, "diameter_y": float | None,
    "generator_x": float | None, "generator_y": float | None, "device": str, "threads": int | None, "seed": int,
    "trust": list, "by": int | str | None, "size": int | None, "standardise": str | None, "grid": bool,
    "spacing": float | list, "witness": str | None,
    **{f"{option}{side}": kind for option, kind in TABLE.items() for side in ("", "_x", "_y")},
}  # fmt: skip


@contextmanager
def removed_if_refused(directory: Path) -> Iterator[None]:
    """Removes the folder that Hydra made if the command is refused before anything was written."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            directory.rmdir()
        raise


def estimate(config: DictConfig) -> float:
    """Encloses W1 between two sample sets in Hydra's output folder; returns the best single number.

    With several processes, the first does so and the others price columns for it.
    """
    directory = Path(HydraConfig.get().runtime.output_dir)
    with removed_if_refused(directory):
        settings = checked(config, root=ROOT)
        set_threads(settings["threads"])
        keep_freed_memory()
        crew = Crew(find_device(settings["device"])) if world_size() > 1 else None
    if crew is None or rank() == 0:
        try:
            return _estimate(directory, settings, crew)
        finally:
            if crew is not None:
                crew.dismiss()
    directory.rmdir()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 handles it: when that ends, so do the others
    crew.serve()
    return math.nan


def _estimate(directory: Path, settings: dict[str, Any], crew: Crew | None) -> float:
    with removed_if_refused(directory):
        if settings["by"] is not None:
            if crew is not None:
                raise InputError(f"by={settings['by']} runs in one process, not {crew.size}. Leave torchrun out.")
            if settings["witness"] is not None:
                raise InputError("witness is for one pair of sample sets, and by makes many. Leave out one of them.")
            options = _table_options(settings, {"x": settings["x"]})["x"]
            groups = open_groups(settings, replace(options, by=settings["by"]))
        else:
            sides, weights = _open_grids(settings) if settings["grid"] else (open_sides(settings), None)
            if settings["standardise"] is not None:
                sides = _standardised(*sides, settings["standardise"])
            arguments = _arguments(settings, sides, weights)
            check_estimate(**arguments)
            if settings["witness"] is not None:
                _check_witnessed(arguments)
    with StopRequests("writing the result") as stop:
        create_run(directory, settings, list(HydraConfig.get().overrides.task))
        with failures_recorded(directory):
            if settings["by"] is not None:
                return estimate_groups(directory, settings, *groups)
            result = _run(directory, settings, {**arguments, "crew": crew}, sides, stop)
            set_status(directory, "interrupted" if result.stopped == "interrupted" else "finished")
    say(screens.written(directory))
    return result.value


def open_sides(settings: Mapping[str, Any]) -> tuple[Opened, Opened]:
    """Opens x and y as the keys that estimate and test share say."""
    x, y = settings["x"], settings["y"]
    if y is None:
        if not x.startswith("oracle/"):
            raise InputError("y is missing, the samples to compare x with. Give them as y=SAMPLES.")
        y = x
    openers = {"run": partial(_open_run, trust=settings["trust"])}
    options = _table_options(settings, {"x": x, "y": y})
    of_x, of_y = (
        open_samples(
            spec, key=settings[f"key_{name}"], options=options[name], side=side, dim=settings["dim"], openers=openers
        )
        for side, (name, spec) in enumerate({"x": x, "y": y}.items())
    )
    check_shapes(of_x, of_y)
    paired = all(settings[f"columns_{name}"] is not None for name in "xy")  # the user paired the columns
    return (of_x, of_y) if paired else matched(of_x, of_y)


def _standardised(x: Opened, y: Opened, by: str) -> tuple[Opened, Opened]:
    """Both sides with their columns in units of their pooled spread."""
    if x.rows is None or y.rows is None:
        drawn = x.name if x.rows is None else y.name
        raise InputError(
            f"standardise={by} needs samples in memory on both sides, but {drawn} is drawn from. Leave it out."
        )
    scaling = pooled_scaling([x.rows, y.rows], by=by, names=x.names)
    sides = []
    told: tuple[str, ...] = ()
    for side, given in ((x, x.rows), (y, y.rows)):
        rows = scaling.of(given)
        law = law_of_rows(rows, side.law.name, units=scaling.units)
        sides.append(replace(side, rows=rows, law=law, notes=(*side.notes, *told)))
        told = scaling.notes  # once, after those of both
    return sides[0], sides[1]


def _open_grids(settings: Mapping[str, Any]) -> tuple[tuple[Opened, Opened], tuple[Tensor, Tensor]]:
    """Two arrays of mass as points, and their weights."""
    if given := [key for key in ("a", "b", "standardise", "dim") if settings[key] is not None]:
        raise InputError(f"grid=true reads x and y as arrays of mass, and does not take {given[0]}. Leave it out.")
    if settings["y"] is None:
        raise InputError("grid=true compares two arrays of mass, x=FILE and y=FILE, but y is missing.")
    specs = {name: settings[name] for name in "xy"}
    options = _table_options(settings, specs)
    arrays = [read_array(spec, settings[f"key_{name}"], options[name]) for name, spec in specs.items()]
    grid = grid_pair(*arrays, spacing=settings["spacing"])
    law = law_of_rows(grid.points, units="the unit of spacing")
    x, y = (Opened(Path(spec).name, law, grid.points) for spec in specs.values())
    return (x, replace(y, notes=grid.notes)), (grid.a, grid.b)


def _table_options(settings: Mapping[str, Any], specs: Mapping[str, str]) -> dict[str, TableOptions]:
    """The options of the tables among the samples: `header_x` for one side, `header` for both, and so on."""
    taken = {name: options_of(Path(spec).expanduser()) for name, spec in specs.items()}
    given: dict[str, dict[str, Any]] = {name: {} for name in specs}
    for option in TABLE:
        if settings[option] is not None and not any(option in options for options in taken.values()):
            raise InputError(f"{option} does not apply to {' and '.join(specs.values())}. Leave it out.")
        for name, options in given.items():
            common = settings[option] if option in taken[name] else None
            of_side = settings[f"{option}_{name}"]
            options[option] = common if of_side is None else of_side
    return {name: TableOptions(**options) for name, options in given.items()}


def _open_run(directory: str, *, trust: list[str]) -> Opened:
    """A run's averaged generator, to draw from."""
    run = load_run(directory, trust=trust)

    def draw(n: int, rng: torch.Generator) -> Tensor:
        return torch.cat(list(sample_blocks(run.generator, n, rng)))

    return Opened(run.directory.name, Law(run.checkpoint["sizes"]["dim"], draw, run.units), image_shape=run.image_shape)


def _arguments(
    settings: Mapping[str, Any], sides: tuple[Opened, Opened], weights: tuple[Tensor, Tensor] | None
) -> dict[str, Any]:
    """The arguments of :func:`wgan_lip.estimate_w1`."""
    passed = ("critic", "critic_steps", "seconds", "tolerance", "samples", "level", "method")
    a, b = weights or (
        None if settings[name] is None else _weights(settings[name], side) for name, side in zip("ab", sides)
    )
    given = [side.law if side.rows is None or settings["stream"] else side.rows for side in sides]
    return {
        **{"x": given[0], "y": given[1], "a": a, "b": b},
        **{name: settings[name] for name in passed},
        "diameters": tuple(
            side.law.diameter if settings[f"diameter_{name}"] is None else settings[f"diameter_{name}"]
            for name, side in zip("xy", sides)
        ),
        "generators": (settings["generator_x"], settings["generator_y"]),
        "device": find_device(settings["device"]),
        "seed": check_seed(settings["seed"]),
    }


def _weights(path: str, side: Opened) -> Tensor:
    """The weights in a file, perhaps below a column name: as many as there are samples."""
    known = None if side.rows is None else len(side.rows)
    choices = (None, False, True) if "header" in options_of(Path(path).expanduser()) else (None,)
    read: list[Tensor] = []
    refusals: list[InputError] = []
    for header in choices:
        try:
            read.append(read_samples(path, options=TableOptions(header=header)))
        except InputError as error:
            refusals.append(error)
        if read and known in (None, len(read[-1])):
            break
    if not read:
        raise refusals[0]
    if read[-1].shape[1] != 1:
        raise InputError(f"{path} must hold one column of weights, not {read[-1].shape[1]}. Keep only the weights.")
    return read[-1][:, 0]


@dataclass(frozen=True)
class _Record:
    """A step of the estimate in the form that trackers take."""

    step: int
    scalars: Mapping[str, float]
    stage: str


def _check_witnessed(arguments: Mapping[str, Any]) -> None:
    """Refuses a witness of so many samples that checking it would take too long."""
    sides = arguments["x"], arguments["y"]
    largest = max(arguments["samples"] if isinstance(side, Law) else len(side) for side in sides)
    dim = max(side.dim if isinstance(side, Law) else side.shape[1] for side in sides)
    most = IN_PLANE if dim == 2 else WITNESSED  # in the plane most pairs are left out; see `lowest` of the checker
    if largest > most:
        raise InputError(
            f"A witness may hold at most {WITNESSED:,} samples a side ({IN_PLANE:,} in the plane), so that its check "
            f"takes minutes, not {largest:,} in dimension {dim}. Leave witness out, or give fewer samples."
        )


def _run(
    directory: Path,
    settings: Mapping[str, Any],
    arguments: dict[str, Any],
    sides: tuple[Opened, Opened],
    stop: StopRequests,
) -> W1Estimate:
    """Estimates while the trackers record, writes the result, prints it, and draws the pictures last."""
    known = known_w1(*sides)
    with Trackers(
        console := IntervalConsole(settings["seconds"]),
        JsonLinesTracker(directory / METRICS),
        board := TensorBoardTracker(directory, charts=ESTIMATE_CHARTS),
    ) as trackers:
        board.text("about/configuration", f"```yaml\n{OmegaConf.to_yaml(OmegaConf.create(dict(settings)))}```")
        board.text("about/charts", meanings(CHARTED))
        steps = count()

        def record(progress: Progress) -> None:
            scalars = {"w1/lower": progress.lower, "w1/upper": progress.upper, "perf/seconds": progress.seconds}
            if progress.critic is not None:
                scalars["w1/critic"] = progress.critic
            trackers.record(_Record(next(steps), scalars, progress.stage))

        result = estimate_w1(**arguments, on_progress=record)
        result = replace(result, notes=(*sides[0].notes, *sides[1].notes, *result.notes))
        stop.deferred = True
        last = {"w1/lower": result.lower, "w1/upper": result.upper, "perf/seconds": result.seconds}
        if result.exact is not None:
            last["w1/exact"] = result.exact
        last["certificate/lipschitz"] = result.certificate.lipschitz
        trackers.record(_Record(next(steps), last, f"stopped: {result.stopped}"))
        _write(directory, sides, result, known)
        stop.deferred = False
        console.close()  # the terminal is free for the answer
        say(screens.estimated(result, directory, (sides[0].name, sides[1].name), known))
        if (path := settings["witness"]) is not None:
            pair = result.x, result.y, result.plan, result.dual
            interval = certify_plan(*pair, a=arguments["a"], b=arguments["b"])
            interval.save_witness(path)
            say(screens.witnessed(path, f"{interval.lower!r} ≤ W1 ≤ {interval.upper!r} of these samples"))
        with suppress(KeyboardInterrupt):  # a second Ctrl-C skips the pictures: the result is already written
            if stop.asked is not None:
                stop.obey()
            drawn = _figures(result, arguments["a"], arguments["b"])
            for name, figure in drawn.items():
                board.figure(name, figures.save(figure, directory / f"{name}.png", dpi=130), 0)
            if "potential" in drawn:
                board.surface("potential", *figures.potential_surface(_potential(result), result.x, result.y), 0)
    return result


def _write(
    directory: Path, sides: tuple[Opened, Opened], result: W1Estimate, known: tuple[float, float] | None
) -> None:
    result.certificate.save(directory / CERTIFICATE)
    content = {
        **result.as_dict(),
        "x": sides[0].name,
        "y": sides[1].name,
        "units": " and ".join(dict.fromkeys(side.law.units for side in sides)),
        "known_w1_of_the_laws": None if known is None else known[0],
        "versions": versions(),
    }
    write_json(directory / RESULT, content)


def _figures(result: W1Estimate, a: Tensor | None, b: Tensor | None) -> dict[str, Any]:
    """Pictures by name: the interval over time, and the samples as their dimension allows."""
    history = result.history
    drawn = {
        "interval": figures.interval_over_time(
            [*(progress.seconds for progress in history), result.seconds],
            [*(progress.lower for progress in history), result.lower],
            [*(progress.upper for progress in history), result.upper],
            exact=result.exact,
            estimates=[*(math.nan if progress.critic is None else progress.critic for progress in history), math.nan],
        )
    }
    potential = _potential(result)
    if result.dim == 1:
        drawn["samples"] = figures.cdf_pair(result.x, result.y, a, b, potential=potential)
    elif result.dim == 2:
        plan = result.plan
        drawn["potential"] = figures.transport_lines(
            potential, result.x, result.y, plan.rows, plan.columns, plan.mass, title="potential of the lower bound"
        )
        if result.critic is not None:
            drawn["critic"] = figures.landscape(result.critic, result.x, result.y, labels=("x", "y"))
    else:
        drawn["samples"] = figures.generated_cloud(result.x, result.y, labels=("x", "y"))
    return drawn


def _potential(result: W1Estimate) -> Callable[[Tensor], Tensor]:
    """The potential of the lower bound up to a constant, which can be large and would hide the other values."""
    level = result.dual(result.x[:1])
    return lambda samples: result.dual(samples) - level
