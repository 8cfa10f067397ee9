"""What TensorBoard shows of a training is true of it, in one light file, and one clean curve where it was resumed."""

from __future__ import annotations

import io
import shutil
import subprocess
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util import tensor_util

from wgan_lip import figures
from wgan_lip.benchmarks.tensorboard import seconds_until, served, serving
from wgan_lip.critics import ResNetCritic
from wgan_lip.data import Digits, Moons
from wgan_lip.generators import MLPGenerator
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.runs.tracking import MEANINGS, TensorBoardTracker
from wgan_lip.runs.tracking.tensorboard import TILT
from wgan_lip.training import Record, board
from wgan_lip.training.board import TrainingBoard

pytestmark = pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AUDIT = {"w1/lower": 0.4, "w1/exact": 0.5, "w1/upper": 0.5, "certificate/lipschitz": 1.0, "eval/w1_over_floor": 2.0}


def settings(steps=10, audit_every=5):
    return {
        "seed": 0, "device": "cpu", "threads": 1, "trust": [],
        "critic": {"_target_": "wgan_lip.critics.ResNetCritic", "width": 8, "heads": None},
        "training": {"steps": steps, "audit_every": audit_every},
    }  # fmt: skip


def game(source):
    torch.manual_seed(0)
    generator = MLPGenerator(source.dim, low=source.low, high=source.high, latent_dim=2, width=8)
    critic = ResNetCritic(source.dim, width=8, depth=2)
    return SimpleNamespace(critic=critic, ema=generator, latent_rng=torch.Generator())


def read(directory):
    kinds = ("scalars", "images", "histograms", "tensors")
    return EventAccumulator(str(directory), size_guidance=dict.fromkeys(kinds, 0)).Reload()


def text(events, tag):
    return events.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode()


@contextmanager
def board_in(directory, source, configuration):
    with TensorBoardTracker(directory) as tracker:
        yield TrainingBoard(tracker, source, configuration, "wgan-lip train seed=0")


def play(directory, source, steps, *, audited=(), total=10, audit_every=5, purge_step=None, offset=0.0):
    player = game(source)
    with TensorBoardTracker(directory, purge_step) as tracker:
        shown = TrainingBoard(
            tracker, source, settings(total, audit_every), "wgan-lip train seed=0", goes_on=bool(purge_step)
        )
        for step in steps:
            scalars = {"w1/critic": 0.1 * step + offset} | (AUDIT if step in audited else {})
            shown.record(Record(step, scalars, player, step in audited))
    return player


SUMMARY = {
    "score": {"excess": -0.125, "floor": 0.375}, "interval": {"exact": 0.5, "lower_as_trained": 0.25},
    "scores": {"samples": {"values": {"recall": 0.75, "precision": 0.5}}},
}  # fmt: skip


def test_2d_runs_have_landscape_rays_histograms_and_surface(tmp_path):
    source = Moons()
    player = play(tmp_path, source, [5, 10], audited=[5, 10])
    events = read(tmp_path)
    assert set(events.Tags()["images"]) == {"at_a_glance/samples", "critic/transport_rays"}
    assert set(events.Tags()["histograms"]) == {"critic/values_real", "critic/values_generated", "critic/ray_grad_norm"}
    assert [event.step for event in events.Images("at_a_glance/samples")] == [5, 10]
    with torch.no_grad():
        values = player.critic(source.test[:300])
    histogram = events.Histograms("critic/values_real")[0].histogram_value
    assert histogram.num == 300 and histogram.sum == pytest.approx(float(values.sum()), rel=1e-4)
    assert events.Histograms("critic/ray_grad_norm")[0].histogram_value.max <= certify(player.critic).lipschitz + 1e-6
    vertices = tensor_util.make_ndarray(events.Tensors("critic/potential_VERTEX")[0].tensor_proto)
    assert vertices.shape == (1, 33 * 33 + 4 * 200, 3)
    across, up, heights = (vertices[0] @ TILT).T[:, : 33 * 33]  # turned back
    assert np.ptp(across) == pytest.approx(np.ptp(up), rel=1e-5) and np.abs(heights.mean()) < 1e-5
    assert np.ptp(heights) <= np.hypot(np.ptp(across), np.ptp(up)) * certify(player.critic).lipschitz


def test_image_runs_have_the_same_latents_through_time_and_real_beside_fake(tmp_path):
    source = Digits()
    player = play(tmp_path, source, [5, 10], audited=[5, 10])
    events = read(tmp_path)
    assert {"at_a_glance/samples", "samples/real_beside_generated", "critic/transport_rays"} == set(
        events.Tags()["images"]
    )
    first, second = (event.encoded_image_string for event in events.Images("at_a_glance/samples"))
    assert first == second  # the players stood still, so their grid does
    with torch.no_grad():
        latents = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        grid = figures.sample_grid(player.ema(latents)[:64], (1, 8, 8))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(first))), grid)


def test_pictures_leave_the_players_and_every_generator_as_they_were(tmp_path):
    torch.manual_seed(3)
    source, before = Moons(), None
    player = game(source)
    latents, state = player.latent_rng.get_state(), None
    torch.manual_seed(4)
    state = torch.random.get_rng_state()
    before = [value.clone() for value in player.critic.state_dict().values()]
    with board_in(tmp_path, source, settings()) as shown:
        shown.record(Record(10, AUDIT, player, True))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(player.latent_rng.get_state(), latents)
    assert all(torch.equal(old, new) for old, new in zip(before, player.critic.state_dict().values(), strict=True))
    assert all(parameter.grad is None for parameter in player.critic.parameters())


def test_words_tell_configuration_environment_certificate_and_meanings(tmp_path):
    player = play(tmp_path, Moons(), [10], audited=[10])
    events = read(tmp_path)
    assert "audit_every: 5" in text(events, "about/configuration")
    assert "`wgan-lip train seed=0`" in text(events, "about/environment") and torch.__version__ in text(
        events, "about/environment"
    )
    certificate = certify(player.critic)
    told = text(events, "certificate/layers")
    assert f"Lip(f) ≤ {certificate.lipschitz!r}" in told and certificate.weights_sha256 in told
    assert told.count("\n| `") == len(certificate.layers)
    charts = text(events, "about/charts")
    told = {tag: meaning for tag, meaning in (MEANINGS | board.PICTURES).items() if tag != "perf/seconds"}
    assert all(f"| `{tag}` | {meaning} |" in charts for tag, meaning in told.items())
    drawn = {tag for kind in ("images", "histograms", "tensors") for tag in events.Tags()[kind]}
    drawn = {tag.removesuffix("_VERTEX").removesuffix("_FACE").removesuffix("_COLOR") for tag in drawn}
    drawn = {tag for tag in drawn if tag.startswith(("at_a_glance/", "samples/", "critic/"))}
    assert "critic/potential" in drawn and drawn <= board.PICTURES.keys()


def test_hyperparameters_and_final_scores_stand_in_the_runs_own_file(tmp_path):
    with board_in(tmp_path, Moons(), settings()) as shown:
        shown.scores(SUMMARY, 10)
    assert len(list(tmp_path.iterdir())) == 1
    events = read(tmp_path)
    scores = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    assert scores == {
        "at_a_glance/excess": -0.125, "at_a_glance/excess_share": -0.25, "at_a_glance/precision": 0.5,
        "at_a_glance/proved_share": 0.5, "at_a_glance/recall": 0.75,
    }  # fmt: skip
    assert sorted(MEANINGS)[:5] == sorted(scores)[:5]  # the columns that the page shows first
    content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["critic"].string_value == "ResNetCritic" and hparams["critic.width"].number_value == 8
    assert not {"critic.heads", "device", "threads", "trust"} & set(hparams) and "seed" in hparams


def test_one_scale_fits_runs_of_all_units(tmp_path):
    """A W1 of 1,000 beside one of 1 leaves room for both, keeps the order of the ends, and puts the floor at ½."""
    for w1, floor, expected in ((1000.0, 1.0, 0.999), (1.0, 1.0, 0.5), (3e5, 1e5, 0.75)):
        folder = tmp_path / str(w1)
        ends = {"w1/lower": 0.5 * w1, "w1/exact": w1, "w1/upper": w1, "eval/w1_floor": floor, "eval/excess": w1 - floor}
        with board_in(folder, Moons(), settings()) as shown:
            shown.record(Record(1, ends, None))
        told = {tag: read(folder).Scalars(tag)[0].value for tag in read(folder).Tags()["scalars"]}
        assert told["relative/exact"] == pytest.approx(expected, rel=1e-4)
        assert 0 < told["relative/lower"] < told["relative/exact"] <= told["relative/upper"] < 1
        assert told["at_a_glance/excess"] == w1 - floor and 0 <= told["at_a_glance/excess_share"] < 1
        assert told["at_a_glance/proved_share"] == 0.5


def test_runs_of_other_settings_share_one_table_of_all_their_keys(tmp_path):
    """What the server tells its page; an experiment declared by the first run would hide the second one's keys."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams.backend_context import Context

    for name, extra in (("a", {"lr": 0.1}), ("b", {"lr": 0.2, "cells": 3})):
        changed = settings()
        changed["critic"] |= extra
        with board_in(tmp_path / name, Moons(), changed) as shown:
            shown.scores(SUMMARY, 10)
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    assert set(multiplexer.Runs()) == {"a", "b"}
    context = Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(tmp_path))))
    request, found = RequestContext(), {}
    experiment = context.experiment_from_metadata(
        request, "", True, context.hparams_metadata(request, ""), context.hparams_from_data_provider(request, "", 100)
    )
    found = {info.name: info.differs for info in experiment.hparam_infos}
    assert found["critic.lr"] and "critic.cells" in found and not found["critic.width"]
    assert [info.name.tag for info in experiment.metric_infos][:5] == sorted(MEANINGS)[:5]


@pytest.mark.parametrize("begun", [1, 4_000_000_000], ids=["before", "after the clock was set back"])
def test_a_resumed_run_draws_one_clean_curve(tmp_path, begun):
    source = Moons()
    play(tmp_path, source, range(1, 9), audited=[5])
    (first,) = tmp_path.iterdir()
    first.rename(tmp_path / f"events.out.tfevents.{begun:010d}.first")
    play(tmp_path, source, range(6, 11), audited=[10], purge_step=6, offset=100.0)
    events = read(tmp_path)
    curve = [(event.step, round(event.value, 3)) for event in events.Scalars("w1/critic")]
    assert curve == [(step, round(0.1 * step + (100.0 if step > 5 else 0.0), 3)) for step in range(1, 11)]
    assert [event.step for event in events.Scalars("w1/exact")] == [5, 10]
    last = events.Scalars("w1/critic")[-1].wall_time
    assert last > time.time() + 1e9 if begun > 2e9 else abs(last - time.time()) < 600
    assert [event.step for event in events.Images("at_a_glance/samples")] == [5, 10]
    assert [event.step for event in events.Tensors("critic/potential_VERTEX")] == [5, 10]
    for told_once in ("custom_scalars__config__", "about/configuration/text_summary"):
        assert len(events.Tensors(told_once)) == 1


def test_thousands_of_steps_stay_light(tmp_path, monkeypatch):
    """3,000 records and 300 audits: few pictures, the last step among them; megabytes, and seconds to read."""
    source = Moons()
    monkeypatch.setattr(board, "PICTURED", 5)
    play(tmp_path, source, range(1, 3001), audited=range(10, 3001, 10), total=3000, audit_every=10)
    (file,) = tmp_path.iterdir()
    start = time.process_time()
    events = read(tmp_path)
    assert time.process_time() - start < 5
    assert len(events.Scalars("w1/critic")) == 3000
    steps = [event.step for event in events.Images("at_a_glance/samples")]
    assert len(steps) == 5 and steps[-1] == 3000 and len(set(np.diff(steps))) == 1
    assert file.stat().st_size < 2e6


def test_broken_generators_are_shown_as_far_as_they_go(tmp_path):
    source = Moons()
    player = game(source)
    with torch.no_grad():
        for parameter in player.ema.parameters():
            parameter.fill_(torch.nan)
    with board_in(tmp_path, source, settings()) as shown:
        shown.record(Record(10, AUDIT, player, True))
    assert set(read(tmp_path).Tags()["images"]) == {"at_a_glance/samples"}


def records(directory, steps):
    """A run whose exact value is 2, between ends that close in from 1 and 3."""
    with board_in(directory, Moons(), settings()) as shown:
        for step in steps:
            ends = {"w1/lower": 2 - 1 / step, "w1/exact": 2.0, "w1/upper": 2 + 1 / step, "eval/w1_floor": 1.0}
            shown.record(Record(step, {"w1/critic": 1.0} | ends, None))


def test_the_server_serves_what_the_suite_measures(tmp_path):
    """Curves with their meanings, and the interval's chart first."""
    records(tmp_path / "run", range(1, 11))
    assert all(0 < figure < 100_000 for figure in served(tmp_path, last=10).values())
    with serving(tmp_path) as (_, ask):
        seconds_until(ask, 10)
        tags = ask("scalars/tags")["run"]
        assert "certified" in tags["w1/lower"]["description"]
        assert "lower is better" in tags["w1/exact"]["description"]
        curve = ask("scalars/scalars", run="run", tag="w1/upper")
        assert [(step, value) for _, step, value in curve][:2] == [(1, 3.0), (2, 2.5)]
        (chart,) = ask("custom_scalars/layout")["category"][1]["chart"]
        interval, floor = chart["margin"]["series"]
        assert interval == {"value": "w1/exact", "lower": "w1/lower", "upper": "w1/upper"}
        assert {*floor.values()} == {"eval/w1_floor"}


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, to see the dashboard as a reader does")
@pytest.mark.parametrize("width", [1400, 480])
def test_the_dashboard_opens_on_the_interval_as_a_band(tmp_path, width):
    records(tmp_path / "logs" / "run", range(1, 11))
    picture = tmp_path / "dashboard.png"
    with serving(tmp_path / "logs") as (address, ask):
        seconds_until(ask, 10)
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--hide-scrollbars", f"--window-size={width},900",
                   f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=30000", f"--screenshot={picture}",
                   f"{address}#custom_scalars"]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)[:450, 200:]  # the first chart, beside the list of runs
    orange = np.array([255, 112, 67])  # the page's colour of the first run; the band is a pale one
    line = np.abs(pixels - orange).sum(-1) < 60
    pale = (pixels[..., 0] > 240) & (pixels[..., 1] - pixels[..., 2] > 5) & (pixels[..., 1] < 235) & ~line
    assert line.sum() > 100 and pale.sum() > 2000
