"""Records reach TensorBoard, JSON lines and the console, and come back as they were."""

import io
import json
import math
import os
import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch

from wgan_lip.checks import InputError
from wgan_lip.tracking import Console, JsonLinesTracker, TensorBoardTracker, Trackers, read_records


@dataclass(frozen=True)
class Record:
    step: int
    scalars: dict[str, float]


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
        tracker.hparams(params, ["w1/exact", "w1/upper"])
        tracker.text("config", "```yaml\nlr: 1e-3\n```")
        tracker.record(Record(1, AUDIT))
    assert [path.is_file() for path in tmp_path.iterdir()] == [True]

    events = accumulate(tmp_path)
    data = {tag: HParamsPluginData.FromString(content) for tag, content in events.PluginTagToContent("hparams").items()}
    start = data["_hparams_/session_start_info"].session_start_info.hparams
    assert {name: start[name].number_value or start[name].string_value for name in start} == {
        "lr": 1e-3, "critic": "resnet", "sizes": "[64, 64]", "ema": "True", "note": "None"
    }  # fmt: skip
    metrics = data["_hparams_/experiment"].experiment.metric_infos
    assert [metric.name.tag for metric in metrics] == ["w1/exact", "w1/upper"]
    assert "_hparams_/session_end_info" in data
    assert events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].startswith(b"```yaml")


def test_failed_run_is_no_success(tmp_path):
    with pytest.raises(RuntimeError), Trackers(TensorBoardTracker(tmp_path)) as trackers:
        trackers._trackers[0].hparams({"lr": 1.0}, [])
        raise RuntimeError
    assert list(accumulate(tmp_path).PluginTagToContent("hparams")) == [
        "_hparams_/experiment",
        "_hparams_/session_start_info",
    ]


def test_layout_names_the_interval(tmp_path):
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    TensorBoardTracker(tmp_path).close()
    (event,) = accumulate(tmp_path).Tensors("custom_scalars__config__")
    charts = Layout.FromString(event.tensor_proto.string_val[0]).category[0].chart
    margins = [series for chart in charts for series in chart.margin.series]
    assert [(series.value, series.lower, series.upper) for series in margins] == [("w1/exact", "w1/lower", "w1/upper")]
    tags = ["w1/critic", "w1/critic_raw", "w1/exact", "w1/lower", "certificate/lipschitz", "critic/grad_norm"]
    drawn = [{tag for tag in tags for regex in chart.multiline.tag if re.match(regex, tag)} for chart in charts]
    assert drawn == [set(), {"w1/critic", "w1/exact"}, {"certificate/lipschitz"}, {"critic/grad_norm"}]


def test_pictures_and_histograms_come_back(tmp_path):
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    with TensorBoardTracker(tmp_path / "events") as tracker:
        for step in range(12):
            tracker.image("samples", picture, step)
        tracker.figure("landscape", tmp_path / "picture.png", 3)
        tracker.histogram("critic/values", torch.tensor([0.0, 1.0, math.nan, 3.0], requires_grad=True), 3)
        tracker.histogram("critic/nothing", torch.full((3,), math.inf), 3)
    events = accumulate(tmp_path / "events")
    assert len(events.Images("samples")) == 12
    for event in (events.Images("samples")[0], events.Images("landscape")[0]):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(event.encoded_image_string))), picture)
    assert events.Histograms("critic/values")[0].histogram_value.num == 3
    assert events.Tags()["histograms"] == ["critic/values"]


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
    assert {tag: repr(record[tag]) for tag in values} == {tag: repr(float(value)) for tag, value in values.items()}


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
        console.record(Record(1, {"w1/lower": 0.99999, "w1/upper": 1.00001, "certificate/lipschitz": math.inf}))
        console.record(Record(10, {"w1/lower": 123456.7, "w1/upper": 1e-17}))
    assert "0.9999 ≤ W1 ≤ 1.001" in stream.getvalue() and "Lip ≤ Infinity" in stream.getvalue()
    assert "123400 ≤ W1 ≤ 1.001E-17" in stream.getvalue()


def test_ascii_stream_is_written():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    run_console([100], stream=stream)
    assert b"0.4123 <= W1 = 0.4300 <= 0.4679" in stream.buffer.getvalue()


def test_terminal_is_given_back_on_exceptions(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), Trackers(Console(10, stream)) as trackers:
        trackers.record(Record(5, AUDIT))
        raise KeyboardInterrupt
    hidden, shown = (stream.getvalue().rfind(code) for code in ("\x1b[?25l", "\x1b[?25h"))
    assert 0 <= hidden < shown
    assert "0.4123 ≤ W1 = 0.4300 ≤ 0.4679" in stream.getvalue()


# Trackers


def test_trackers_close_all_though_one_fails():
    class Probe:
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
