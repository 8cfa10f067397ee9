"""`wgan-lip estimate` as a person meets it: what it reads, writes, says and refuses, and Ctrl-C at any moment."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import wgan_lip.cli.estimate as command
from wgan_lip.cli import main
from wgan_lip.data import ORACLES, named_sources
from wgan_lip.lipschitz.certificates import Certificate
from wgan_lip.runs.tracking import IntervalConsole, read_records
from wgan_lip.transport import narrowing
from wgan_lip.utils.terminal import say

PROMISED = {"lower", "upper", "exact", "value", "population", "lipschitz", "n", "m", "dim", "seconds", "seed"}
ALONE = "critic=null"  # about the samples, without a critic
QUICK = ["critic=cones", "critic_steps=2"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def unpictured(monkeypatch):
    """Leaves out the pictures, for they take most of the time of a small estimate."""
    monkeypatch.setattr(command, "_figures", lambda *_: {})


@pytest.fixture
def many(monkeypatch):
    """500 + 500 points in the plane that are too many to be solved at once, and their W1."""
    monkeypatch.setattr(narrowing, "DENSE", 100)
    monkeypatch.setattr(narrowing, "COARSEST", 32)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(500, 2)), rng.normal(size=(500, 2)) + 1
    np.save("x.npy", x)
    np.save("y.npy", y)
    return assigned(x, y)


def assigned(x: np.ndarray, y: np.ndarray) -> float:
    """W1 of as many points as points, (n, d) and (n, d), by another solver."""
    costs = cdist(x, y)
    return costs[linear_sum_assignment(costs)].mean()


def save_pair(shift: tuple[float, ...] = (3.0, 4.0), n: int = 20) -> np.ndarray:
    """x.npy and y.npy, which is x.npy moved by `shift`: W1 is its length."""
    x = np.random.default_rng(1).integers(-50, 50, size=(n, len(shift))).astype(float)
    np.save("x.npy", x)
    np.save("y.npy", x + shift)
    return x


def only_run(folder: str = "outputs/estimate") -> Path:
    (directory,) = Path(folder).iterdir()
    return directory


def estimated(*arguments: str) -> dict:
    """Runs a command that must work; returns what its only run wrote as its result."""
    assert main(["estimate", *arguments]) == 0
    text = (only_run() / "result.json").read_text()
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def refused(capsys, *arguments: str) -> str:
    """Runs a command that must be refused before it does anything; returns the one line it says."""
    assert main(["estimate", *arguments]) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("wgan-lip: "), captured.err
    assert captured.out == "" and not [path for path in Path("outputs").rglob("*") if path.parent.name == "estimate"]
    return lines[0]


def state() -> str:
    return json.loads((only_run() / "status.json").read_text())["state"]


# --- what a run leaves ------------------------------------------------------------------------------------------------


def test_a_run_leaves_everything_it_promises(capsys):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 2)), rng.normal([2, 0], size=(60, 2))
    np.save("x.npy", x)
    np.save("y.npy", y)
    result, directory = estimated("x=x.npy", "y=y.npy", *QUICK), only_run()
    truth = assigned(x, y)
    assert result.keys() > PROMISED and result["versions"].keys() >= {"wgan_lip", "torch", "python"}
    assert result["lower"] <= truth * (1 + 1e-14) and truth * (1 - 1e-14) <= result["upper"]
    assert result["value"] == result["exact"] == pytest.approx(truth, rel=1e-13)
    assert (result["n"], result["m"], result["dim"], result["seed"]) == (60, 60, 2, 0)
    assert (result["x"], result["y"], result["stopped"], state()) == ("x.npy", "y.npy", "optimal", "finished")
    assert 0 <= result["population"]["lower"] <= result["population"]["estimate"] and result["population"]["n"] == 18
    assert Certificate.load(directory / "certificate.json").lipschitz == result["lipschitz"] <= 1
    for picture in ("interval.png", "potential.png", "critic.png"):
        with Image.open(directory / picture) as image:
            assert min(image.size) > 500 and len(image.convert("L").getcolors()) > 10
    last = read_records(directory / "metrics.jsonl")[-1]
    assert (last["w1/lower"], last["w1/exact"], last["w1/upper"]) == tuple(
        result[name] for name in ("lower", "exact", "upper")
    )
    (events,) = directory.glob("events.out.tfevents.*")
    board = EventAccumulator(str(events), size_guidance={"scalars": 0, "images": 0}).Reload()
    scalars = {"w1/lower", "w1/upper", "w1/exact", "w1/critic", "certificate/lipschitz", "perf/seconds"}
    assert scalars <= set(board.Tags()["scalars"])
    assert set(board.Tags()["images"]) == {"interval", "potential", "critic"}
    assert {"potential_VERTEX", "about/charts/text_summary"} <= set(board.Tags()["tensors"])
    screen = capsys.readouterr().out
    assert result["pvalue"] == 0.001 and result["halves"]["n"] == 30 and result["halves"]["excess"] > 1
    for said in ("  The laws              ", "equality rejected, p = 0.001", "excess over floor", "x.npy against y.npy",
                 "60 and 60", "exact: solved to optimality", "95 % confidence", "Lip(f) ≤ ",
                 f"{directory}/result.json", f"{directory}/interval.png", "tensorboard --logdir"):  # fmt: skip
        assert said in screen
    without_links = [line for line in screen.splitlines() if str(directory) not in line]
    assert max(map(len, without_links)) <= 120


def test_1d_samples_get_their_distribution_functions():
    x = save_pair(shift=(2.5,))
    result = estimated("x=x.npy", "y=y.npy", *QUICK)
    assert result["exact"] == 2.5 and result["dim"] == x.shape[1] == 1
    assert {path.name for path in only_run().glob("*.png")} == {"interval.png", "samples.png"}


def test_the_result_says_what_the_screen_says(many, capsys, unpictured):
    result = estimated("x=x.npy", "y=y.npy", ALONE, "tolerance=0.5")
    screen = capsys.readouterr().out
    assert result["stopped"] == "tolerance" and result["exact"] is None and "tolerance=" in screen
    row = next(line for line in screen.splitlines() if "W1 of the samples" in line)
    low, high = float(row.split(" ≤ W1 ≤ ")[0].split()[-1]), float(row.split(" ≤ W1 ≤ ")[1].split()[0])
    assert low <= result["lower"] <= many <= result["upper"] <= high
    assert 0 < result["upper"] - result["lower"] <= 0.5 * result["upper"]
    assert result["value"] == (result["lower"] + result["upper"]) / 2


def test_time_that_is_up_leaves_an_interval(many, capsys, unpictured):
    result = estimated("x=x.npy", "y=y.npy", ALONE, "seconds=0.000001")
    assert result["stopped"] == "time" and result["exact"] is None
    assert result["lower"] <= many <= result["upper"] and "more seconds= narrow it" in capsys.readouterr().out


def test_time_closes_the_interval_on_the_exact_value(many, unpictured):
    result = estimated("x=x.npy", "y=y.npy", ALONE)
    assert result["stopped"] == "optimal" and result["exact"] == pytest.approx(many, rel=1e-11)
    widths = [step["upper"] - step["lower"] for step in result["history"]]
    assert widths == sorted(widths, reverse=True) and widths[-1] < 1e-9 * widths[0]


def test_equal_seeds_give_equal_results(unpictured):
    save_pair(n=60)
    found = []
    for seed in (0, 0, 1):
        assert main(["estimate", "x=x.npy", "y=y.npy", *QUICK, f"seed={seed}", f"hydra.run.dir=run{len(found)}"]) == 0
        result = json.loads(Path(f"run{len(found)}/result.json").read_text())
        found.append({name: result[name] for name in result.keys() - {"seconds", "history"}})
    assert found[0] == found[1] and found[0]["population"] != found[2]["population"]


def test_the_answer_is_told_first_and_the_pictures_come_last(monkeypatch, capsys):
    save_pair(n=60)
    told, drawn = [], []
    estimate, figures = command.estimate_w1, command._figures

    def watched(*, on_progress, **arguments):
        def tell(progress):
            on_progress(progress)
            told.append((progress.stage, progress.upper - progress.lower < 1e-9, capsys.readouterr().err))

        return estimate(**arguments, on_progress=tell)

    monkeypatch.setattr(command, "estimate_w1", watched)
    monkeypatch.setattr(command, "_figures", lambda *given: drawn.append(capsys.readouterr().out) or figures(*given))
    estimated("x=x.npy", "y=y.npy", *QUICK)
    settled = max(index for index, (stage, *_) in enumerate(told) if not stage.startswith(("floor", "critic", "test")))
    assert told[settled][1] and settled < len(told) - 1
    assert re.search(r"4\.999\d* ≤ W1 ≤ 5\.000\d*", told[settled][2])
    assert "exact: solved to optimality" in drawn[0] and "result.json" not in drawn[0]
    assert "interval.png" in capsys.readouterr().out


# --- what it reads ----------------------------------------------------------------------------------------------------


def write_kind(kind: str, x: np.ndarray) -> list[str]:
    """x as a file of some kind; returns the overrides that name it."""
    if kind == "npz":
        np.savez("x.npz", other=x[:3], mine=x)
        return ["x=x.npz", "key_x=mine"]
    if kind == "pt":
        torch.save(torch.from_numpy(x), "x.pt")
    elif kind == "csv":
        with open("x.csv", "w", newline="") as file:
            csv.writer(file).writerows([["height", "width"], *x.tolist()])
    elif kind == "tsv":
        np.savetxt("x.tsv", x, delimiter="\t")
    else:
        np.save("x.npy", x.astype(kind))
        return ["x=x.npy"]
    return [f"x=x.{kind}"]


@pytest.mark.parametrize("kind", ["npz", "pt", "csv", "tsv", "float16", "int32", "int8", ">f8"])
def test_files_of_every_kind_are_read_in_full(kind, unpictured):
    x = save_pair()
    result = estimated(*write_kind(kind, x), "y=y.npy", ALONE)
    assert result["exact"] == pytest.approx(5.0, rel=1e-14) and result["lower"] <= 5 <= result["upper"]


def test_weights_are_taken_and_leave_no_bounds_on_the_laws(capsys, unpictured):
    np.save("x.npy", [[0.0], [1.0]])
    np.save("y.npy", [[0.0], [3.0]])
    np.save("a.npy", [[1], [3]])
    result = estimated("x=x.npy", "y=y.npy", "a=a.npy", *QUICK)
    assert result["exact"] == 1.25  # |1/4 - 1/2| on [0, 1], 1/2 on [1, 3]
    assert result["population"] is None and "no bounds on W1 of the laws" in result["notes"][1]
    assert result["notes"][0] == "The weights of x were divided by their total, 4."
    assert all(note in capsys.readouterr().out for note in result["notes"][:1])


def test_classes_of_a_named_set(unpictured):
    result = estimated("x=data/digits:0", "y=data/digits:1+2", ALONE)
    assert (result["n"], result["m"], result["dim"]) == (178, 359, 64)
    assert (result["x"], result["y"]) == ("digits:0", "digits:1+2") and "pixel" in result["units"]


def test_both_sides_of_an_oracle(capsys, unpictured):
    result = estimated("x=oracle/shift:length:3", "dim=16", "samples=40", *QUICK)
    assert result["known_w1_of_the_laws"] == 3.0 and (result["n"], result["dim"]) == (40, 16)
    assert result["population"]["lower"] <= 3.0  # at level 0.95, for this seed
    assert "of these two laws, in closed form" in capsys.readouterr().out


def test_a_generator_against_its_data(tiny_run, unpictured):
    result = estimated(f"x=run:{tiny_run}", "y=data/digits", "samples=30", ALONE)
    assert (result["n"], result["m"], result["dim"], result["x"]) == (30, 1797, 64, tiny_run.name)


def test_a_file_larger_than_memory_is_drawn_from(monkeypatch, unpictured):
    x = save_pair(n=4000)
    monkeypatch.setattr("wgan_lip.data.opening.available_memory", lambda: 2 * x.nbytes - 2)
    result = estimated("x=x.npy", "y=y.npy", ALONE, "samples=30")
    assert (result["n"], result["m"]) == (30, 30)


def test_rows_are_drawn_on_request(unpictured):
    save_pair(n=100)
    result = estimated("x=x.npy", "y=y.npy", "stream=true", "samples=40", *QUICK)
    assert (result["n"], result["m"]) == (40, 40) and result["population"]["n"] == 40


def test_a_sweep_goes_on_after_a_job_that_is_refused(capsys, unpictured):
    save_pair()
    assert main(["estimate", "--multirun", "x=nowhere.npy,x.npy", "y=y.npy", ALONE]) == 2
    (finished,) = (path for path in Path("outputs/multirun").glob("*/*") if path.is_dir())
    assert json.loads((finished / "result.json").read_text())["exact"] == pytest.approx(5.0, rel=1e-14)
    assert "There is no file nowhere.npy" in capsys.readouterr().err


# --- what it refuses --------------------------------------------------------------------------------------------------


def damaged(name: str) -> np.ndarray:
    """Samples that cannot be used, by what is wrong with them."""
    x = np.arange(20.0).reshape(10, 2)
    if name in ("nan", "inf"):
        x[7, 1] = float(name)
    return {"flat": x[0, 0], "cube": x[None, None, None], "empty": x[:0], "single": x[:1], "complex": x + 1j,
            "bool": x > 3,
            "object": np.array([[1, "a"]], dtype=object), "wide": np.ones((10, 3))}.get(name, x)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", "1 of 10 rows hold NaN or infinity, the first of them row 7"),
        ("inf", "the first of them row 7"),
        ("wide", "same dimension, not shapes (10, 3) and (20, 2)"),
        ("empty", "at least one sample, not 0"),
        ("single", "at least 2 samples, not 1"),
        ("flat", "must have shape (n, d), not ()"),
        ("cube", "Flatten each sample into one row"),
        ("complex", "real numbers, not complex128"),
        ("bool", "real numbers, not bool"),
        ("object", "without Python objects"),
    ],
)
def test_unusable_samples_are_refused(name, message, capsys):
    save_pair()
    np.save("x.npy", damaged(name), allow_pickle=True)
    assert message in refused(capsys, "x=x.npy", "y=y.npy")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"a,b\n1,2\n3,hello\n", "has 'hello' in column 2 (b), line 3"),
        ("x.npy", b"", "is not a complete .npy file"),
        ("x.npy", b"no array at all", "is not a complete .npy file"),
        ("x.npz", b"no archive at all", "is not a complete .npz file"),
        ("x.pt", b"no tensor at all", "is not a complete .pt file"),
        ("x.xlsx", b"1 2\n", "the ending of x.xlsx must be one of .npy, .npz"),
    ],
)
def test_unreadable_files_are_refused(name, content, message, capsys):
    save_pair()
    Path(name).write_bytes(content)
    assert message in refused(capsys, f"x={name}", "y=y.npy")


def test_a_truncated_file_is_refused(capsys):
    save_pair()
    Path("x.npy").write_bytes(Path("y.npy").read_bytes()[:200])
    assert "is not a complete .npy file" in refused(capsys, "x=x.npy", "y=y.npy")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1.0]] * 19 + [[-1.0]], "non-negative, not -1.0 at position 19"),
        ([[0.0]] * 20, "positive total"),
        ([[1.0]] * 19, "shape (20,), not shape (19,)"),
        ([[1.0, 2.0]] * 20, "a.npy must hold one column of weights, not 2"),
        ([[math.nan]] * 20, "the first of them row 0"),
    ],
)
def test_unusable_weights_are_refused(weights, message, capsys):
    save_pair()
    np.save("a.npy", weights)
    assert message in refused(capsys, "x=x.npy", "y=y.npy", "a=a.npy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x=nowhere.npy"], "There is no file nowhere.npy"),
        (["x=x"], "There are no samples 'x'."),
        (["x=data/digitz"], "Did you mean data/digits?"),
        (["x=data/digits:0-40"], "no classes '0-40'. Its classes are 0, 1, 2"),
        (["x=run:nowhere"], "There is no folder nowhere"),
        (["y=null"], "y is missing, the samples to compare x with"),
        (["x=3"], "x must be of type str, not 3"),
        (["dim=3"], "x.npy has dimension 2, not dim=3"),
        (["key_x=mine"], "holds one array, and does not take key="),
        (["critic=convolutional"], "one of auto, cones, principal, resnet, sorting, fixed_width, not 'convolutional'"),
        (["critic_steps=0"], "at least 1, not 0"),
        (["seconds=0"], "positive and finite, not 0"),
        (["seconds=inf"], "positive and finite, not inf"),
        (["seconds=soon"], "seconds must be of type float, not 'soon'"),
        (["tolerance=1"], "at least 0 and below 1"),
        (["tolerance=-0.1"], "at least 0 and below 1"),
        (["level=95"], "Use 0.95 for 95 % confidence"),
        (["samples=3"], "at least 10"),
        (["samples=1e4"], "samples must be of type int, not 10000.0"),
        (["stream=yes"], "stream must be of type bool, not 'yes'"),
        (["method=bayes"], "betting, bernstein, normal, not 'bayes'"),
        (["diameter_x=-1"], "diameter"),
        (["generator_y=nan"], "generator"),
        (["device=abacus"], "device must be auto, cpu, cuda or cuda:N, not 'abacus'"),
        (["threads=0"], "threads must be at least 1, not 0"),
        (["seed=-1"], "not -1"),
        (["sede=1"], "estimate has no key sede. Did you mean seed"),
        (["x.npy"], "'x.npy' can't be read as key=value"),
        (["hydra.run.dir=x.npy/run"], "x.npy/run"),
    ],
)
def test_every_wrong_setting_is_refused_in_one_line(arguments, message, capsys):
    save_pair()
    assert message in refused(capsys, "x=x.npy", "y=y.npy", *arguments)


def test_samples_without_x_are_refused(capsys):
    assert "x must be given, as x=VALUE" in refused(capsys, "y=y.npy")


@pytest.mark.parametrize("source", ["x=x.npy", "x=oracle/shift"])
def test_more_memory_than_there_is_is_named_with_the_way_out(source, monkeypatch, capsys):
    for name in "xy":  # no two rows equal
        np.save(f"{name}.npy", np.random.default_rng(ord(name)).normal(size=(6000, 2)))
    monkeypatch.setattr("wgan_lip.utils.checks.available_memory", lambda: 2**27)
    message = refused(capsys, source, "y=y.npy", "samples=10000000")
    assert "not enough memory for" in message and "0.125 GiB are available" in message
    assert ("stream=true" if source == "x=x.npy" else "Lower samples") in message


def test_a_plan_beyond_memory_is_refused_before_anything_is_computed(monkeypatch, capsys):
    for name in "xy":
        np.save(f"{name}.npy", np.random.default_rng(ord(name)).normal(size=(1500, 2)))
    monkeypatch.setattr("wgan_lip.utils.checks.available_memory", lambda: 40 * 1500**2 - 1)
    monkeypatch.setattr("wgan_lip.transport.narrowing._narrow", lambda *_: 1 / 0)
    message = refused(capsys, "x=x.npy", "y=y.npy")
    assert "memory for an interval around W1 between 1500 and 1500 samples: 0.0838 GiB" in message


def test_a_folder_with_a_run_is_left_as_it_is(capsys, unpictured):
    save_pair()
    assert main(["estimate", "x=x.npy", "y=y.npy", ALONE, "hydra.run.dir=mine"]) == 0
    before = {path.name: path.read_bytes() for path in Path("mine").iterdir()}
    capsys.readouterr()
    assert "Choose another folder" in refused(capsys, "x=y.npy", "y=x.npy", ALONE, "hydra.run.dir=mine")
    assert {path.name: path.read_bytes() for path in Path("mine").iterdir()} == before


def test_a_full_disk_leaves_no_half_a_result(monkeypatch, capsys):
    from wgan_lip.utils.files import write_whole

    def full(path, content):
        if Path(path).name == "result.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write_whole(path, content)

    save_pair()
    monkeypatch.setattr("wgan_lip.utils.files.write_whole", full)
    assert main(["estimate", "x=x.npy", "y=y.npy", ALONE]) == 2
    captured = capsys.readouterr()
    assert "result.json can't be read or written: No space left on device" in captured.err and captured.out == ""
    assert not (only_run() / "result.json").exists() and state() == "failed"


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def interrupt_at(monkeypatch, stage: str, number: int = signal.SIGINT) -> None:
    """Sends this process a signal, by default as Ctrl-C does, when a stage of this name is told."""

    class Impatient(IntervalConsole):
        def record(self, record):
            super().record(record)
            if record.stage.startswith(stage):
                signal.raise_signal(number)

    monkeypatch.setattr(command, "IntervalConsole", Impatient)


@pytest.mark.parametrize("stage", ["on a line", "8 and 8 cells", "pricing 1"])
def test_ctrl_c_leaves_the_interval_so_far(stage, many, monkeypatch, capsys):
    interrupt_at(monkeypatch, stage)
    result = estimated("x=x.npy", "y=y.npy", ALONE)
    assert result["stopped"] == "interrupted" and state() == "interrupted"
    assert result["history"][-1]["stage"].startswith(stage) and result["exact"] is None
    assert result["lower"] <= many <= result["upper"]
    assert (only_run() / "interval.png").exists() and "interrupted" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_do_as_ctrl_c_does(number, many, monkeypatch, unpictured):
    interrupt_at(monkeypatch, "on a line", number)
    result = estimated("x=x.npy", "y=y.npy", ALONE)
    assert result["stopped"] == "interrupted" and state() == "interrupted"
    assert result["lower"] <= many <= result["upper"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_result_is_written_waits_for_it(number, monkeypatch, capfd):
    real = command._write

    def write(*arguments):
        signal.raise_signal(number)
        real(*arguments)

    monkeypatch.setattr(command, "_write", write)
    save_pair(n=60)
    assert estimated("x=x.npy", "y=y.npy", ALONE)["exact"] == pytest.approx(5.0, rel=1e-14)
    assert state() == "finished" and not (only_run() / "interval.png").exists()
    assert f"{number.name}: writing the result" in capfd.readouterr().err


def test_ctrl_c_keeps_what_was_solved_before(monkeypatch, capsys, unpictured):
    save_pair(n=60)
    interrupt_at(monkeypatch, "critic, round")
    result = estimated("x=x.npy", "y=y.npy")
    assert result["stopped"] == "interrupted" and result["exact"] == pytest.approx(5.0, rel=1e-14)
    assert result["population"] is None and result["lipschitz"] <= 1 and result["pvalue"] is not None
    screen = capsys.readouterr().out
    assert "exact: solved to optimality" in screen and "It was interrupted" in screen


def test_ctrl_c_before_anything_is_known_leaves_nothing(monkeypatch, capsys):
    save_pair()
    monkeypatch.setattr(command, "open_samples", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    assert main(["estimate", "x=x.npy", "y=y.npy"]) == 130
    captured = capsys.readouterr()
    assert captured.err == "wgan-lip: interrupted\n" and captured.out == ""
    assert not list(Path("outputs/estimate").iterdir())


def test_ctrl_c_at_the_pictures_keeps_the_result(monkeypatch, capsys):
    save_pair()
    monkeypatch.setattr("wgan_lip.figures.save", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    assert estimated("x=x.npy", "y=y.npy", ALONE)["exact"] == pytest.approx(5.0, rel=1e-14)
    assert state() == "finished" and "result.json" in capsys.readouterr().out
    assert not list(only_run().glob("*.png"))


# --- what it says -----------------------------------------------------------------------------------------------------


def test_help_explains_every_key_with_its_default_and_every_name(capsys):
    assert main(["estimate", "--help"]) == 0
    text = capsys.readouterr().out
    assert main(["estimate", "--cfg", "job"]) == 0
    defaults = [line.replace(": ", "=") for line in capsys.readouterr().out.strip().splitlines()]
    assert len(defaults) == len(command.ROOT)
    for default in defaults[2:]:
        assert f"  {default}  " in text or f"  {default}\n" in text
    own = {name for name, kind in named_sources().items() if kind.__module__.startswith("wgan_lip.")}
    assert {*ORACLES, *own} - {"file", "image_folder"} <= set(re.findall(r"\w+", text))
    assert max(map(len, text.splitlines())) <= 120


def test_a_screen_survives_an_output_without_its_signs(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    say("1.0 ≤ W1 ≤ 2.0, known: 1.5 ± 0.1, run:…")
    stream.flush()
    assert stream.buffer.getvalue() == b"1.0 <= W1 <= 2.0, known: 1.5 +- 0.1, run:?\n"


@pytest.mark.parametrize("value", ["~/a.npy", "x (1).npy", "a=b,c.npy", r'C:\new "b".npy', "end\\"])
def test_what_hydras_grammar_refuses_is_quoted_and_comes_back_as_it_was(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from wgan_lip.cli.overrides import quoted

    assert OverridesParser.create().parse_override(quoted(f"x={value}")).value() == value
    for plain in ("x=a.npy", "seed=0,1", "+x=[1,2]", "--multirun", "x='a'"):
        assert quoted(plain) == plain
