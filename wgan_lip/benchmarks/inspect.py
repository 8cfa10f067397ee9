"""Suite inspect: what a reader sees of a sweep, of an image run, of a failed and of a resumed one, in pictures.

Nothing here is a measurement of a method: the runs are short, so that the pictures can be made again in minutes.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wgan_lip.benchmarks.browser import Browser, browsing, find_chromium
from wgan_lip.benchmarks.machine import write_page, write_results
from wgan_lip.benchmarks.tensorboard import seconds_until, serving
from wgan_lip.runs.folder import METRICS
from wgan_lip.runs.run import Run
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.tables import markdown_table

__all__ = ["measure"]

SMALL = [
    "threads=1", "generator.width=64", "training.batch_size=128", "training.critic_steps=2", "training.audit_size=200",
    "training.audit_refits=0", "training.log_every=5", "evaluation.size=200", "evaluation.repeats=2",
    "evaluation.fit_steps=0", "evaluation.classifier_steps=0",
]  # fmt: skip
PLANE = ["critic.width=32", "training.steps=120", "training.audit_every=20"]
RUNS = {
    "sweep": ["--multirun", "data=gaussians8", "critic=resnet,spectral_norm", "seed=0,1,2", *PLANE],
    "digits": ["data=digits", "training.steps=120", "training.audit_every=20"],
    "failed": ["data=moons", "critic=gradient_penalty", "critic_optimizer.lr=1e6", "training.steps=120",
               "training.audit_every=10", "training.log_every=1"],
    "resumed": ["data=moons", *PLANE],
}  # fmt: skip
"""Folder → what `wgan-lip train` gets besides :data:`SMALL`; `resumed` is stopped half-way, and goes on."""
PAGES = {"compare": "sweep/compare.html", "report": "digits.html", "failed": "failed.html", "resumed": "resumed.html"}
WIDTHS = {"": 1280, "_narrow": 400}  # CSS pixels
HIGHEST = 3600  # CSS pixels of a page that a picture holds
DRAWN = {
    "time_series": "deep('scalar-card line-chart').length > 0",
    "custom_scalars": "deep('vz-line-chart2, vz-line-chart, svg path').length > 4",
    "hparams": "deep('vaadin-grid, table').length > 0",
}  # page of TensorBoard → when its parts are there
SETTLED = 20.0  # seconds until they are drawn, on a machine that is busy


def measure(seeds: list[int], out: Path) -> str:
    """Trains the runs that are not there, and takes pictures of the pages about them; `seeds` has no say."""
    find_chromium()
    runs, pages = out / "runs", out / "pages"
    pages.mkdir(parents=True, exist_ok=True)
    trained = {name: _trained(name, runs / name) for name in RUNS}
    for name in ("digits", "failed", "resumed"):
        _wgan_lip("inspect", f"run={runs / name}", f"out={(pages / f'{name}.html').resolve()}")
    _wgan_lip("compare", f"runs={runs / 'sweep'}", f"out={pages / 'sweep'}")
    rows: list[dict[str, Any]] = []
    with browsing() as browser:
        for name, page in PAGES.items():
            for size, width in WIDTHS.items():
                for dark in (False, True):
                    picture = f"{name}{size}{'_dark' if dark else ''}.png"
                    place = out if picture in SHOWN.values() else pages
                    rows.append(_page(browser, (pages / page).resolve().as_uri(), place / picture, width, dark=dark))
        rows += _board(browser, runs, out)
    for row in rows:
        shown = out / row["picture"]
        row["bytes"] = (shown if shown.exists() else pages / row["picture"]).stat().st_size
    looks = [_first_look(recipe, runs) for recipe in RECIPES]
    write_results("inspect", seeds, out, rows=rows, first_looks=looks, runs=trained)
    table = f"{_table(rows)}\n{_table_of_looks(looks)}"
    how = (
        "Short runs of `wgan-lip train`: a sweep over two critics and three seeds, an image run, one that fails by a "
        "rate that is far too high, and one that was stopped and went on. Overflow is by how many CSS pixels a page is "
        "wider than its window; letters are those of drawings of 10 points, in CSS pixels. Seconds to the first "
        "interval and picture are those of every experiment as it is, interpreter and imports included."
    )
    pictures = [f"## {name}\n\n![{name}]({file})" for name, file in SHOWN.items()]
    write_page(out, title="What a reader sees of runs", how=how, parts=[table, *pictures])
    return table


SHOWN = {
    "A sweep compared": "compare.png",
    "The same on a telephone, in the dark": "compare_narrow_dark.png",
    "The report of a run on digits": "report.png",
    "The same on a telephone": "report_narrow.png",
    "The report of a run that failed, in the dark": "failed_dark.png",
    "TensorBoard over all of these runs, as it opens": "time_series.png",
    "Custom Scalars: runs on other data, and one that failed, on one scale": "custom_scalars.png",
    "HParams: settings and scores of all runs": "hparams.png",
}
"""What the page shows, in words → the picture."""


def _trained(name: str, directory: Path) -> str:
    """Trains a run that is not there; returns the command."""
    arguments = [*RUNS[name], *SMALL]
    command = f"wgan-lip train {' '.join(arguments)}"
    if directory.is_dir():
        return command
    if name == "sweep":
        _wgan_lip("train", *arguments, f"hydra.sweep.dir={directory}")
    elif name == "failed":
        _wgan_lip("train", *arguments, f"hydra.run.dir={directory}", status=1)
    elif name == "resumed":
        _stopped_half_way(arguments, directory)
        _wgan_lip("train", f"resume={directory}")
    else:
        _wgan_lip("train", *arguments, f"hydra.run.dir={directory}")
    return command


RECIPES = ("digits", "gaussians8", "gaussians25", "moons", "swissroll", "checkerboard")


def _first_look(recipe: str, runs: Path) -> dict[str, Any]:
    """Seconds from the start of `wgan-lip train experiment=…`, as it is, to its first interval and first picture."""
    with TemporaryDirectory(dir=runs) as folder:
        directory = Path(folder) / recipe
        command = [sys.executable, "-m", "wgan_lip", "train", f"experiment={recipe}", f"hydra.run.dir={directory}"]
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = {}
        for what, file in (("interval", METRICS), ("picture", "samples.png")):
            while not (directory / file).exists() or not (directory / file).stat().st_size:
                if process.poll() is not None:
                    raise InputError(f"{' '.join(command[3:])} ended before its first {what}.")
                time.sleep(0.05)
            seconds[what] = time.monotonic() - begun
        process.kill()
        process.wait()
    return {"recipe": recipe, **seconds}


def _wgan_lip(*arguments: str, status: int = 0) -> None:
    done = subprocess.run([sys.executable, "-m", "wgan_lip", *arguments], check=False, capture_output=True, text=True)
    if done.returncode != status:
        told = done.stderr.strip()[-300:]
        raise InputError(f"{' '.join(arguments)} ended with status {done.returncode} instead of {status}: {told}")


def _stopped_half_way(arguments: Sequence[str], directory: Path) -> None:
    """Trains until there is a checkpoint of an audit, and stops as by a closed terminal."""
    shutil.rmtree(directory, ignore_errors=True)
    command = [sys.executable, "-m", "wgan_lip", "train", *arguments, f"hydra.run.dir={directory}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (directory / "best.pt").exists():
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=300)
    if Run(directory).status["state"] == "finished":
        raise InputError(f"The run in {directory} finished before it could be stopped. Try again.")


def _page(browser: Browser, address: str, picture: Path, width: int, *, dark: bool) -> dict[str, Any]:
    browser.open(address, width=width, dark=dark)
    overflow, smallest = browser.overflow(), browser.evaluate(SMALLEST)
    high = browser.evaluate("document.documentElement.scrollHeight")
    browser.resize(width, min(high, HIGHEST))
    browser.shoot(picture)
    return {"picture": picture.name, "width": width, "dark": dark, "overflow": overflow, "smallest_letters": smallest}


SMALLEST = """Math.min(99, ...[...document.querySelectorAll("svg.drawing")].map((svg) =>
  10 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width),
  ...[...document.querySelectorAll("svg.interval text")].map((text) => text.getBoundingClientRect().height / 1.2))"""
"""CSS pixels of the letters of 10 points in drawings, and of the others as they are."""


def _board(browser: Browser, runs: Path, out: Path) -> list[dict[str, Any]]:
    """TensorBoard over all runs."""
    rows = []
    with serving(runs) as (address, ask):
        seconds_until(lambda path, **query: ask(path, **query | {"run": "digits"}), _last(Run(runs / "digits")))
        for page in ("time_series", "custom_scalars", "hparams"):
            browser.open(f"{address}#{page.replace('time_series', 'timeseries')}", width=WIDTHS[""], height=1300)
            browser.wait(DRAWN[page])
            time.sleep(SETTLED)
            browser.shoot(out / f"{page}.png")
            rows.append({"picture": f"{page}.png", "width": WIDTHS[""], "dark": False})
    return rows


def _last(run: Run) -> int:
    return max(record["step"] for record in run.metrics if "w1/exact" in record)


def _table_of_looks(looks: list[dict[str, Any]]) -> str:
    heads = ["experiment", "s to the first interval", "s to the first picture"]
    cells = ([look["recipe"], f"{look['interval']:.1f}", f"{look['picture']:.1f}"] for look in looks)
    return markdown_table(heads, cells) + "\n"


def _table(rows: list[dict[str, Any]]) -> str:
    heads = ["picture", "width", "scheme", "overflow", "letters", "kB"]
    cells = (
        [row["picture"], row["width"], "dark" if row["dark"] else "light",
         row.get("overflow", "–"), f"{row['smallest_letters']:.1f}" if "smallest_letters" in row else "–",
         round(row["bytes"] / 1000)]
        for row in rows
    )  # fmt: skip
    return markdown_table(heads, cells) + "\n"
