"""Records reach TensorBoard, JSON lines and the console, and come back as they were."""

import io
import json
import math
import os
import re
import time
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wgan_lip.runs.tracking import (
    ESTIMATE_CHARTS,
    MEANINGS,
    Console,
    IntervalConsole,
    JsonLinesTracker,
    TensorBoardTracker,
    Tracker,
    Trackers,
    read_records,
)
from wgan_lip.runs.tracking.tensorboard import TILT, single_precision
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.numbers import interval_digits, interval_text


@dataclass(frozen=True)
class Record:
    step: int
    scalars: dict[str, float]


@dataclass(frozen=True)
class Staged(Record):
    stage: str = "exact solver"


class Terminal(io.TextIOWrapper):
    def __init__(self, encoding="utf-8"):
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self):
        return True

    def getvalue(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")


AUDIT = {"w1/lower": 0.412345, "w1/exact": 0.43, "w1/upper": 0.467891, "certificate/lipschitz": 1.0000001}


def accumulate(directory):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kinds = ("scalars", "images", "histograms", "tensors", "compressedHistograms", "audio")
    return EventAccumulator(str(directory), size_guidance=dict.fromkeys(kinds, 0)).Reload()


# TensorBoard


def test_scalars_come_back(tmp_path):
    with TensorBoardTracker(tmp_path) as tracker:
        for step in range(1, 51):
            tracker.record(Record(step, {"w1/exact": step / 2, "critic/grad_norm": math.nan}))
    events = accumulate(tmp_path).Scalars("w1/exact")
    assert [(event.step, event.value) for event in events] == [(step, step / 2) for step in range(1, 51)]
    assert all(math.isnan(event.value) for event in accumulate(tmp_path).Scalars("critic/grad_norm"))


def test_everything_is_in_one_file(tmp_path):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    params = {"lr": 1e-3, "critic": "resnet", "sizes": [64, 64], "ema": True, "note": None}
    with TensorBoardTracker(tmp_path) as tracker:
        tracker.hparams(params)
        tracker.text("config", "```yaml\nlr: 1e-3\n```")
        tracker.record(Record(1, AUDIT))
    assert [path.is_file() for path in tmp_path.iterdir()] == [True]

    events = accumulate(tmp_path)
    data = {tag: HParamsPluginData.FromString(content) for tag, content in events.PluginTagToContent("hparams").items()}
    start = data["_hparams_/session_start_info"].session_start_info.hparams
    assert {name: start[name].number_value or start[name].string_value for name in start} == {
        "lr": 1e-3, "critic": "resnet", "sizes": "[64, 64]", "ema": "True"
    }  # fmt: skip
    assert "_hparams_/session_end_info" in data
    assert events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].startswith(b"```yaml")


def test_failed_run_is_no_success(tmp_path):
    with pytest.raises(RuntimeError), Trackers(TensorBoardTracker(tmp_path)) as trackers:
        trackers._trackers[0].hparams({"lr": 1.0})
        raise RuntimeError
    assert list(accumulate(tmp_path).PluginTagToContent("hparams")) == ["_hparams_/session_start_info"]


def layout(directory):
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    (event,) = accumulate(directory).Tensors("custom_scalars__config__")
    return Layout.FromString(event.tensor_proto.string_val[0]).category


def test_the_first_chart_is_the_interval_with_the_floor_alone(tmp_path):
    """Within a category the page shows Margin charts last."""
    TensorBoardTracker(tmp_path).close()
    first, second, rest = layout(tmp_path)
    drawn = [
        [(line.value, line.lower, line.upper) for chart in category.chart for line in chart.margin.series]
        for category in (first, second)
    ]
    assert drawn == [
        [("relative/exact", "relative/lower", "relative/upper")],
        [("w1/exact", "w1/lower", "w1/upper"), ("eval/w1_floor",) * 3],
    ]
    tags = [*MEANINGS, "w1/critic_raw", "eval/excess_raw", "critic/held_out_raw"]
    drawn = [{tag for tag in tags for regex in chart.multiline.tag if re.match(regex, tag)} for chart in rest.chart]
    slopes = {"certificate/lipschitz", "critic/grad_norm"}
    held_out = {"critic/held_out", "critic/refitted"}
    assert drawn == [slopes, {"eval/excess", "eval/excess_real"}, held_out, {"w1/critic", "w1/exact"}]


def test_estimate_chart_holds_the_interval_where_its_ends_share_their_steps(tmp_path):
    """The page draws a Margin chart of a run only if all of its tags hold the same steps, all of them finite."""
    with TensorBoardTracker(tmp_path, charts=ESTIMATE_CHARTS) as tracker:
        tracker.record(Staged(0, {"w1/lower": 0.1, "w1/upper": math.inf, "perf/seconds": 0.5}))
        tracker.record(Staged(1, {"w1/lower": 0.4, "w1/upper": 0.5, "w1/critic": -math.inf, "perf/seconds": 1e300}))
        tracker.record(Staged(2, {"w1/lower": 0.4375, "w1/upper": 0.5, "w1/exact": 0.4375}))
    events = accumulate(tmp_path)
    (margin,), (lines,) = (category.chart for category in layout(tmp_path))
    (series,) = margin.margin.series
    drawn = [[event.step for event in events.Scalars(tag)] for tag in (series.value, series.lower, series.upper)]
    assert drawn == [[1, 2]] * 3
    assert (series.lower, series.upper) == ("w1/lower", "w1/upper")
    tags = ["w1/lower", "w1/upper", "w1/exact", "w1/critic", "w1/critic_raw", "perf/seconds"]
    assert [tag for tag in tags if any(re.match(regex, tag) for regex in lines.multiline.tag)] == tags[:4]
    assert "w1/critic" not in events.Tags()["scalars"]
    assert [event.step for event in events.Scalars("perf/seconds")] == [0]


@given(st.floats(1e-30, 1e30))
def test_bounds_in_single_precision_are_bounds_and_next_to_it(value):
    assert value * (1 - 2.0**-22) <= single_precision("w1/lower", value) <= value
    assert value <= single_precision("w1/upper", value) <= value * (1 + 2.0**-22)
    assert value <= single_precision("certificate/lipschitz", value) <= value * (1 + 2.0**-22)
    assert single_precision("w1/exact", value) == float(np.float32(value))


@pytest.mark.parametrize(("constant", "told", "below"), [(0.9999965, 1.0, 3.5), (0.5, 0.5, None), (1.25, 1.25, None)])
def test_a_constant_near_1_is_told_in_digits_that_an_axis_can_tick(tmp_path, constant, told, below):
    with TensorBoardTracker(tmp_path) as tracker:
        tracker.record(Record(1, {"certificate/lipschitz": constant}))
    events = accumulate(tmp_path)
    assert events.Scalars("certificate/lipschitz")[0].value == told >= constant
    margins = events.Scalars("certificate/millionths_below_1") if below else []
    assert [margin.value for margin in margins] == ([pytest.approx(below, rel=1e-5)] if below else [])
    assert all(margin.value <= 1e6 * (1 - constant) for margin in margins)
    assert ("certificate/millionths_below_1" in events.Tags()["scalars"]) == (below is not None)


def test_each_scalar_carries_its_meaning_once_and_still_reads_as_a_scalar(tmp_path):
    with TensorBoardTracker(tmp_path) as tracker:
        for step in (1, 2, 3):
            tracker.record(Record(step, AUDIT | {"own/tag": 1.0}))
    events = accumulate(tmp_path)
    for tag in AUDIT:
        assert events.SummaryMetadata(tag).summary_description == MEANINGS[tag]
        assert [event.step for event in events.Scalars(tag)] == [1, 2, 3]
    assert (next(tmp_path.iterdir())).read_bytes().count(b"by **proof**") == 1
    assert events.SummaryMetadata("own/tag").summary_description == ""


def test_a_surface_comes_back(tmp_path):
    corners = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.5], [0.0, 1.0, 0.25]])
    with TensorBoardTracker(tmp_path) as tracker:
        tracker.surface("critic/potential", corners, np.array([[0, 1, 2]]), np.full((3, 3), 200), 7)
    from tensorboard.util import tensor_util

    events = accumulate(tmp_path)
    (vertices,), (faces,), (colors,) = (
        events.Tensors(f"critic/potential_{part}") for part in ("VERTEX", "FACE", "COLOR")
    )
    assert np.allclose(tensor_util.make_ndarray(vertices.tensor_proto)[0] @ TILT, corners, atol=1e-6)  # turned back
    assert tensor_util.make_ndarray(faces.tensor_proto).tolist() == [[[0, 1, 2]]]
    assert tensor_util.make_ndarray(colors.tensor_proto).tolist() == [[[200] * 3] * 3]
    assert vertices.step == 7


def test_pictures_and_histograms_come_back(tmp_path):
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    with TensorBoardTracker(tmp_path / "events") as tracker:
        for step in range(12):
            tracker.image("samples", picture, step)
        tracker.image("drawing", np.repeat(picture, 40, axis=0), 0, colors=16)
        tracker.figure("landscape", tmp_path / "picture.png", 3)
        tracker.histogram("critic/values", torch.tensor([0.0, 1.0, math.nan, 3.0], requires_grad=True), 3)
        tracker.histogram("critic/nothing", torch.full((3,), math.inf), 3)
    events = accumulate(tmp_path / "events")
    assert len(events.Images("samples")) == 12
    for event in (events.Images("samples")[0], events.Images("landscape")[0]):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(event.encoded_image_string))), picture)
    assert events.Histograms("critic/values")[0].histogram_value.num == 3
    assert len(events.Histograms("critic/values")[0].histogram_value.bucket) <= 42
    assert events.Tags()["histograms"] == ["critic/values"]


def test_a_palette_keeps_rare_colours(tmp_path):
    """A few marks on a smooth ground, whose colours a palette by frequency would give up."""
    from PIL import Image

    picture = np.repeat(np.linspace(90, 250, 300).astype(np.uint8)[:, None, None], 300, axis=1).repeat(3, axis=2)
    picture[150:153, 150:153] = (213, 94, 0)
    with TensorBoardTracker(tmp_path) as tracker:
        tracker.image("drawing", picture, 0, colors=64)
    (event,) = accumulate(tmp_path).Images("drawing")
    shown = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB")).astype(int)
    assert np.abs(shown - picture).max() <= 16 and event.width == event.height == 300


def test_resume_forgets_the_lost_branch(tmp_path):
    with TensorBoardTracker(tmp_path) as tracker:
        for step in range(1, 6):
            tracker.record(Record(step, {"w1/exact": 1.0}))
    (first,) = tmp_path.iterdir()
    first.rename(tmp_path / "events.out.tfevents.0000000001.first")
    with TensorBoardTracker(tmp_path, purge_step=4) as tracker:
        tracker.record(Record(4, {"w1/exact": 2.0}))
    events = accumulate(tmp_path)
    assert [(event.step, event.value) for event in events.Scalars("w1/exact")] == [(1, 1), (2, 1), (3, 1), (4, 2)]
    assert len(events.Tensors("custom_scalars__config__")) == 1


def test_closed_tracker_opens_no_second_file(tmp_path):
    tracker = TensorBoardTracker(tmp_path)
    tracker.close()
    tracker.close()
    with pytest.raises(ValueError, match="closed"):
        tracker.record(Record(1, AUDIT))
    assert len(list(tmp_path.iterdir())) == 1


# JSON lines


def write_steps(path, steps, **options):
    with JsonLinesTracker(path, **options) as tracker:
        for step in steps:
            tracker.record(Record(step, {"w1/exact": step / 3}))


def test_json_lines_round_trip_is_exact_and_strict(tmp_path):
    path = tmp_path / "metrics.jsonl"
    values = {"a/x": 1 / 3, "a/nan": math.nan, "a/inf": math.inf, "a/minus": -math.inf, "a/t": torch.tensor(0.1)}
    with JsonLinesTracker(path) as tracker:
        tracker.record(Record(7, values))
        line = path.read_text()  # on disk before the file is closed
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    (record,) = read_records(path)
    assert list(record)[:2] == ["step", "time"]
    assert record["step"] == 7 and isinstance(record["step"], int)
    assert record["time"] >= 0
    finite = {tag: float(value) if math.isfinite(value) else math.nan for tag, value in values.items()}
    assert {tag: repr(record[tag]) for tag in values} == {tag: repr(value) for tag, value in finite.items()}
    path.write_text('{"step": 7, "a/x": "-Infinity", "a/y": Infinity}\n')  # as of earlier versions
    assert read_records(path) == [{"step": 7, "a/x": -math.inf, "a/y": math.inf}]


def test_reader_survives_a_cut_at_every_byte(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, [1, 2])
    data = path.read_bytes()
    first = data.index(b"\n")
    for cut in range(first, len(data)):
        path.write_bytes(data[:cut])
        assert [record["step"] for record in read_records(path)] == ([1] if cut < len(data) - 1 else [1, 2])


def test_damage_before_the_last_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"ste\n\n{"step": 3}\n')
    with pytest.raises(InputError, match="Line 2"):
        read_records(path)


def test_resume_drops_the_lost_branch_and_the_cut_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "time": 5.0}\n{"step": 2, "time": 100.0, "a/x": "NaN"}\n{"step": 3, "time": 200.0}\n{"st'
    )
    write_steps(path, [3, 4], resume_step=3)
    records = read_records(path)
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert math.isnan(records[1]["a/x"])
    assert 100 <= records[2]["time"] < 110  # time goes on where the kept lines end
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_new_run_refuses_to_mix_with_an_old_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, [1])
    with pytest.raises(FileExistsError, match="resume"):
        JsonLinesTracker(path)
    assert len(read_records(path)) == 1


def test_failed_write_leaves_whole_lines(tmp_path):
    class FullDisk:
        """Takes half of the line, then none."""

        def __init__(self, file):
            self.file, self.seek, self.truncate, self.close = file, file.seek, file.truncate, file.close
            self.full = False

        def write(self, data):
            if self.full:
                raise OSError(28, "No space left on device")
            self.full = True
            return self.file.write(data[: len(data) // 2])

    path = tmp_path / "metrics.jsonl"
    with JsonLinesTracker(path) as tracker:
        tracker.record(Record(1, AUDIT))
        file = tracker._file
        tracker._file = FullDisk(file)
        with pytest.raises(OSError, match="No space"):
            tracker.record(Record(2, AUDIT))
        tracker._file = file
        tracker.record(Record(3, AUDIT))
    assert [record["step"] for record in read_records(path)] == [1, 3]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_device_raises():
    with JsonLinesTracker("/dev/full") as tracker, pytest.raises(OSError, match="No space"):
        tracker.record(Record(1, AUDIT))


# Console


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def run_console(steps, *, audit_every=100, seconds=1.0, stream=None, **options):
    stream, clock = stream or io.StringIO(), Clock()
    with Console(200, stream, clock=clock, **options) as console:
        for step in steps:
            clock.now += seconds
            console.record(Record(step, {"w1/critic": 0.4, **(AUDIT if step % audit_every == 0 else {})}))
    return stream


def test_plain_lines_hold_figures_and_time_left():
    lines = run_console(range(1, 201), seconds=0.5).getvalue().splitlines()
    line = next(line for line in lines if line.startswith("step 100/200"))
    assert "50.0%" in line and "elapsed 0:00:50" in line and "left 0:00:50" in line
    assert "0.4123 ≤ W1 = 0.4300 ≤ 0.4679" in line and "critic 0.4000" in line and "Lip ≤ 1.00001" in line
    assert not any("\x1b" in line or "\r" in line for line in lines)
    assert lines[-1].startswith("step 200/200  100.0%")


def test_lines_lead_with_the_excess_now_and_the_best_so_far():
    stream = io.StringIO()
    with Console(40, stream) as console:
        for step, excess in ((10, 0.5), (20, -0.0123), (30, 0.25), (40, math.nan)):
            console.record(Record(step, {**AUDIT, "eval/excess": excess}))
    told = [re.search(r"left \S+  excess (.*?)  0", line)[1] for line in stream.getvalue().splitlines()]
    assert told == ["0.5, best 0.5", "-0.0123, best -0.0123", "0.25, best -0.0123", "NaN, best -0.0123"]


def test_plain_lines_are_rare_but_show_every_audit():
    lines = run_console(range(1, 201), audit_every=99, seconds=1.0).getvalue().splitlines()
    steps = [int(line.split()[1].split("/")[0]) for line in lines]
    assert {99, 198, 200} <= set(steps)
    assert all(b - a >= 5 for a, b in pairwise(steps) if b not in (99, 198, 200))
    assert "at step 99" in lines[steps.index(99) + 1]  # an old interval says so


def test_resumed_run_counts_its_own_steps():
    line = run_console(range(151, 161), start_step=150).getvalue().splitlines()[-1]
    assert line.startswith("step 160/200") and "left 0:00:40" in line


def test_interrupted_run_prints_its_last_step():
    assert run_console([1, 2, 3], seconds=0.1).getvalue().splitlines()[-1].startswith("step 3/200")


def test_bounds_are_rounded_outward():
    stream = io.StringIO()
    with Console(10, stream) as console:
        console.record(Record(1, {"w1/lower": 0.999999, "w1/upper": 1.2340001, "certificate/lipschitz": math.inf}))
        console.record(Record(10, {"w1/lower": 123456.7, "w1/upper": 1e-17}))
    assert "0.9999 ≤ W1 ≤ 1.235" in stream.getvalue() and "Lip ≤ Infinity" in stream.getvalue()
    assert "123400 ≤ W1 ≤ 1.001E-17" in stream.getvalue()


def test_ascii_stream_is_written():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    run_console([100], stream=stream)
    assert b"0.4123 <= W1 = 0.4300 <= 0.4679" in stream.buffer.getvalue()


def test_terminal_is_given_back_on_exceptions(terminal):
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), Trackers(Console(10, stream)) as trackers:
        trackers.record(Record(5, AUDIT))
        raise KeyboardInterrupt
    hidden, shown = (stream.getvalue().rfind(code) for code in ("\x1b[?25l", "\x1b[?25h"))
    assert 0 <= hidden < shown
    assert "0.4123 ≤ W1 = 0.4300 ≤ 0.4679" in stream.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_terminal_of_any_encoding_is_written(terminal, encoding):
    stream = Terminal(encoding)
    with Console(10, stream) as console:
        console.record(Record(5, AUDIT))
    sign = "≤" if encoding == "utf-8" else "<="
    assert f"0.4123 {sign} W1 = 0.4300 {sign} 0.4679" in stream.getvalue()


# Intervals


INTERVALS = st.tuples(st.floats(0, 1e300), st.floats(0, 1e300)).map(sorted)
NARROW = st.builds(lambda v, k: (v, v * (1 + k * 2.0**-52)), st.floats(1e-300, 1e300), st.integers(0, 2**40))


@given(INTERVALS | NARROW, st.floats(0, 1))
def test_printed_intervals_contain_the_proved_ones_and_are_little_wider(ends, share):
    lower, upper = ends
    exact = min(max(lower, lower + share * (upper - lower)), upper)
    low, middle, high = re.fullmatch(r"(\S+) ≤ W1 = (\S+) ≤ (\S+)", interval_text(lower, upper, exact)).groups()
    low, middle, high = Fraction(low), Fraction(middle), Fraction(high)
    assert low <= Fraction(lower) and Fraction(upper) <= high and low <= middle <= high
    width = Fraction(upper) - Fraction(lower)
    assert high - low <= max(width * Fraction(13, 10), Fraction(upper) * Fraction(3, 10**16))
    assert low < high or lower == upper


def test_an_interval_takes_the_digits_that_its_width_asks_for():
    assert interval_text(0.412345, 0.467891) == "0.4123 ≤ W1 ≤ 0.4679"
    assert interval_text(0.412345675, 0.412347885, 0.4123468) == "0.41234567 ≤ W1 = 0.41234680 ≤ 0.41234789"
    assert interval_text(0.0, 0.0) == "0 ≤ W1 ≤ 0"
    assert interval_text(0.25, math.inf) == "0.25 ≤ W1"
    assert interval_text(2.0, 1.0) == "2 ≤ W1 ≤ 1"  # what is refuted is printed as it is
    digits = [interval_digits(1.0 - 10.0**-k, 1.0) for k in range(17)]
    assert digits == sorted(digits) and digits[0] == 4 and digits[-1] == 17


def run_estimate(records, *, seconds=1.0, limit=60.0, stream=None, **options):
    stream, clock = stream or io.StringIO(), Clock()
    with IntervalConsole(limit, stream, clock=clock, **options) as console:
        for index, (stage, scalars) in enumerate(records):
            console.record(Staged(index, scalars, stage))
            clock.now += seconds
    return stream.getvalue().splitlines()


def test_estimate_lines_hold_stage_time_interval_and_width():
    first, second = run_estimate([
        ("multi-scale 1/3", {"w1/upper": math.inf, "w1/lower": 0.0}),
        ("exact solver", {"w1/lower": 0.4, "w1/upper": 0.5, "w1/critic": 0.38}),
    ])  # fmt: skip
    assert first == "multi-scale 1/3  0:00:00 of 0:01:00  0 ≤ W1"
    assert second == "exact solver  0:00:01 of 0:01:00  0.4000 ≤ W1 ≤ 0.5  width 20 %  critic 0.3800"


def test_estimate_width_is_rounded_up():
    (line,) = run_estimate([("critic: fitting", {"w1/lower": 0.9, "w1/upper": 1.03001})])
    assert line.endswith("width 13 %")
    (line,) = run_estimate([("exact solver", {"w1/lower": 1.0, "w1/exact": 1.0, "w1/upper": 1.0 + 2.0**-51})])
    assert "1 ≤ W1 = 1 ≤ 1.000000000000000" in line and line.endswith("width 4.5E-14 %")


def test_estimate_lines_come_with_new_stages_and_else_rarely():
    rounds = [(f"pricing round {k}", {"w1/lower": k / 100, "w1/upper": 1.0}) for k in range(1, 21)]
    lines = run_estimate([("multi-scale 1/2", {}), ("multi-scale 2/2", {}), *rounds, ("critic: fitting", {})])
    stages = [line.split("  ")[0] for line in lines]
    assert stages == ["multi-scale 1/2", *(f"pricing round {k}" for k in (1, 6, 11, 16)), "critic: fitting"]


@pytest.mark.parametrize(("limit", "shown"), [(math.inf, "0:00:02"), (0.0, "0:00:02 of 0:00:00")])
def test_estimate_without_time_and_without_limit(limit, shown):
    lines = run_estimate([("exact solver", {})] * 3, limit=limit)
    assert lines == [f"exact solver  {shown.replace('2', '0', 1)}", f"exact solver  {shown.replace('2', '3', 1)}"]


def test_estimate_on_a_dumb_terminal_is_plain(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert run_estimate([("exact solver", {"w1/lower": 0.5})], stream=Terminal()) == [
        "exact solver  0:00:00 of 0:01:00  0.5 ≤ W1"
    ]


def test_estimate_on_an_ascii_stream_is_plain():
    class Ascii(Terminal):
        def isatty(self):
            return False

    (line,) = run_estimate([("scale 1 × 2", {"w1/lower": 0.4, "w1/upper": 0.5})], stream=Ascii("ascii"))
    assert line == "scale 1 ? 2  0:00:00 of 0:01:00  0.4000 <= W1 <= 0.5  width 20 %"


@pytest.mark.parametrize("limit", [60.0, 0.0, math.inf])
def test_estimate_ticks_on_a_terminal_between_records(terminal, limit):
    stream, clock = Terminal(), Clock()
    with IntervalConsole(limit, stream, clock=clock) as console:
        console.record(Staged(0, {"w1/lower": 0.4, "w1/upper": 0.5}, "exact solver [all of it]"))
        clock.now = 47.0
        give_up = time.monotonic() + 20
        while "0:00:47" not in stream.getvalue() and time.monotonic() < give_up:
            time.sleep(0.05)
        assert "exact solver [all of it]  0:00:47" in stream.getvalue()
    assert stream.getvalue().rfind("\x1b[?25l") < stream.getvalue().rfind("\x1b[?25h")  # the cursor is given back


def test_estimate_records_fit_every_tracker(tmp_path):
    records = [
        Staged(0, {"w1/lower": 0.1, "w1/upper": math.inf, "perf/seconds": 0.01}, "critic: fitting"),
        Staged(1, {"w1/lower": 0.4, "w1/upper": 0.5, "w1/exact": 0.45, "perf/seconds": 0.02}, "exact solver"),
    ]
    trackers = (
        TensorBoardTracker(tmp_path),
        JsonLinesTracker(tmp_path / "metrics.jsonl"),
        IntervalConsole(1, io.StringIO()),
    )
    with Trackers(*trackers) as all_of_them:
        for record in records:
            all_of_them.record(record)
    read = read_records(tmp_path / "metrics.jsonl")
    scalars = [{tag: value for tag, value in line.items() if "/" in tag} for line in read]
    assert math.isnan(scalars[0]["w1/upper"])  # there is none yet
    assert scalars == [{**records[0].scalars, "w1/upper": scalars[0]["w1/upper"]}, records[1].scalars]


# Trackers


def test_trackers_close_all_though_one_fails():
    class Probe(Tracker):
        def __init__(self, fails):
            self.fails, self.seen, self.closed = fails, [], 0

        def record(self, record):
            self.seen.append(record.step)

        def close(self):
            self.closed += 1
            if self.fails:
                raise OSError("disk")

    probes = [Probe(False), Probe(True), Probe(False)]
    with pytest.raises(OSError, match="disk"), Trackers(*probes) as trackers:
        trackers.record(Record(1, {}))
    trackers.close()
    assert [(probe.seen, probe.closed) for probe in probes] == [([1], 1)] * 3
