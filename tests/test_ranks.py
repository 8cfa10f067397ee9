"""Several processes play one game: as one process with the same batch would, and all of them stop together."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import TINY, WATCHED, on_two_ranks, started_ranks, statuses

from wgan_lip.cli import main
from wgan_lip.cli.processes import prepared
from wgan_lip.critics import ResNetCritic
from wgan_lip.data import TensorSource
from wgan_lip.generators import MLPGenerator
from wgan_lip.runs.checkpoints import CHECKPOINT, read_checkpoint
from wgan_lip.runs.run import Run
from wgan_lip.training import OtherRankError, Ranks, Training, train_wgan
from wgan_lip.utils.checks import InputError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")
SETTINGS = [*TINY, *WATCHED, "training.steps=12", "training.log_every=2", "training.audit_every=6", "evaluation.fit_steps=0",
            "evaluation.repeats=1"]  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wgan_lip.training.session._draw", lambda *_: None)  # pictures take most of so short a run
    monkeypatch.setattr("wgan_lip.training.board.TrainingBoard._show", lambda *_: None)


def test_one_process_is_all_there_is():
    ranks, batch, player = Ranks(), torch.arange(6.0), ResNetCritic(2, width=8, depth=1)
    before = [parameter.clone() for parameter in player.parameters()]
    ranks.average([batch]), ranks.take_over(player, parameters=True), ranks.check_equal(player), ranks.leave("nothing")
    assert (ranks.rank, ranks.size) == (0, 1) and ranks.share(batch) is batch
    assert torch.equal(batch, torch.arange(6.0))
    assert all(torch.equal(one, two) for one, two in zip(before, player.parameters()))
    assert ranks.any(True) and not ranks.any(False)
    assert ranks.told(3) == ranks.by_first(lambda: 3) == 3 and ranks.gathered(3) == [3]


def test_ranks_share_average_and_tell(tmp_path):
    def work(ranks):
        share = ranks.share(torch.arange(6.0))
        means = [torch.tensor([float(ranks.rank), 3.0]), torch.full((2, 2), 4.0 * ranks.rank)]
        ranks.average(means)
        player = torch.nn.BatchNorm1d(2)
        with torch.no_grad():
            player.weight.fill_(ranks.rank + 5.0), player.running_mean.fill_(ranks.rank + 7.0)
        ranks.take_over(player, parameters=False)
        kept = player.weight[0].item()
        ranks.take_over(player, parameters=True)
        return [share.tolist(), means[0].tolist(), means[1].tolist(), kept, player.weight[0].item(),
                player.running_mean[0].item(), ranks.any(ranks.rank == 1), ranks.any(False), ranks.told(ranks.rank),
                ranks.gathered(ranks.rank), ranks.by_first(lambda: 10 + ranks.rank)]  # fmt: skip

    means = [[0.5, 3.0], [[2.0, 2.0], [2.0, 2.0]]]
    assert on_two_ranks(work, tmp_path) == [
        [[0.0, 1.0, 2.0], *means, 5.0, 5.0, 7.0, True, False, 0, [0, 1], 10],
        [[3.0, 4.0, 5.0], *means, 6.0, 5.0, 7.0, True, False, 0, [0, 1], 10],
    ]


def test_unequal_weights_on_two_ranks_are_found(tmp_path):
    def work(ranks):
        torch.manual_seed(0)
        critic, other = ResNetCritic(2, width=8, depth=2), torch.nn.Linear(2, 2)
        ranks.check_equal(critic, other)
        if ranks.rank == 1:
            with torch.no_grad():
                other.bias[0] = other.bias[0].nextafter(torch.tensor(math.inf))
        ranks.check_equal(critic, other)

    errors = on_two_ranks(work, tmp_path)
    assert all("OtherRankError: Weights or certificates on rank 1" in error for error in errors)
    assert all("differ from those on rank 0" in error for error in errors)


def test_other_data_on_another_rank_are_found_before_the_first_step(tmp_path):
    rows = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))

    def work(ranks, change):
        mine = rows.clone()
        mine[7, 1] += change * ranks.rank
        torch.manual_seed(0)
        generator, critic = MLPGenerator(2, width=8), ResNetCritic(2, width=8, depth=1)
        records = train_wgan(
            TensorSource(mine), generator, critic, Training(steps=2, batch_size=4, warmup_steps=1, audit_size=4),
            generator_optimizer=torch.optim.SGD(generator.parameters(), lr=0.01),
            critic_optimizer=torch.optim.SGD(critic.parameters(), lr=0.01),
        )  # fmt: skip
        return [record.step for record in records]

    for name, change in (("same", 0.0), ("other", 1e-6)):
        (tmp_path / name).mkdir()
        found = on_two_ranks(lambda ranks, change=change: work(ranks, change), tmp_path / name)
        if not change:
            assert found == [[2], [2]]
            continue
        data = TensorSource(rows).fingerprint()
        assert found[0].startswith(
            f"InputError: All ranks need the same data, but rank 0 has {data} and rank 1 has 32 + 8"
        )
        assert found[1] == found[0].replace("InputError", "OtherRankError")


def test_what_fails_on_rank_0_fails_on_all(tmp_path):
    def work(ranks):
        return ranks.by_first(lambda: int("zero"))

    errors = on_two_ranks(work, tmp_path)
    assert errors[0].startswith("ValueError") and errors[1].startswith(
        "OtherRankError: rank 0 stopped: invalid literal"
    )


def test_a_rank_that_stops_leaves_its_reason_and_one_that_is_killed_none(tmp_path):
    def stops(ranks):
        if ranks.rank == 1:
            ranks.leave("no more memory")
            os._exit(3)
        ranks.any(True)

    def killed(ranks):
        if ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        ranks.any(True)

    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    assert on_two_ranks(stops, tmp_path / "a")[0] == "OtherRankError: rank 1 stopped: no more memory"
    assert on_two_ranks(killed, tmp_path / "b")[0].startswith("OtherRankError: rank 1 was killed, or can't be")


def test_a_rank_that_is_stopped_is_named_when_the_others_have_waited_long_enough(tmp_path):
    def work(rank: int) -> None:
        init = f"file://{tmp_path}/meet"
        dist.init_process_group("gloo", init_method=init, rank=rank, world_size=2, timeout=timedelta(seconds=2))
        ranks = Ranks()
        ranks.average([torch.ones(3)])
        if rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        with pytest.raises(OtherRankError) as caught:
            ranks.average([torch.ones(3)])
        (tmp_path / "told").write_text(str(caught.value))

    children = []
    for rank in range(2):
        children.append(os.fork())
        if children[-1] == 0:
            try:
                work(rank)
            finally:
                os._exit(0)
    os.waitpid(children[0], 0)
    os.kill(children[1], signal.SIGKILL), os.waitpid(children[1], 0)
    assert (tmp_path / "told").read_text().startswith("rank 1 did not answer in time: it was stopped, or hangs")


def test_work_of_rank_0_may_take_longer_than_a_step(tmp_path, monkeypatch):
    def work(ranks):
        return ranks.by_first(lambda: time.sleep(3) or 7)

    real = dist.init_process_group
    monkeypatch.setattr(dist, "init_process_group", lambda *a, **k: real(*a, **k, timeout=timedelta(seconds=2)))
    assert on_two_ranks(work, tmp_path) == [7, 7]


def torchrun(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "wgan_lip"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *arguments], text=True, env=environment, capture_output=True, timeout=300)


def wait_for(condition, seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_two_processes_play_the_game_of_one(capsys):
    # Plain gradient steps: the first ones of Adam go by the sign of a gradient, and blow up its last digit.
    plain = [*SETTINGS, "optimizer@critic_optimizer=sgd", "optimizer@generator_optimizer=sgd", "data.label_scale=1",
             "training.audit_scores=true", "critic.readout=cones", "critic.centers=16", "training.start_at_data=true",
             "training.renew_every=4"]  # fmt: skip
    assert main(["train", *plain, "hydra.run.dir=alone"]) == 0
    done = torchrun("train", *plain, "training.accumulate=2")
    assert done.returncode == 0, done.stderr
    (directory,) = Path("outputs/train").iterdir()
    assert done.stdout.count("finished at step 12") == 1
    alone, together = Run("alone"), Run(directory)
    assert together.status["state"] == "finished" and len(list(directory.glob("events.out.*"))) == 1
    assert [record["step"] for record in together.metrics] == [0, 2, 4, 6, 8, 10, 12]
    for one, two in zip(alone.metrics, together.metrics):
        assert one.keys() == two.keys()
        for tag in one:
            if tag != "time" and not tag.startswith("perf/"):
                rel = 0.3 if tag.startswith("critic/refitted") else 1e-5  # a hundred steps of Adam magnify rounding
                assert two[tag] == pytest.approx(one[tag], rel=rel, abs=1e-6), tag
    assert {"w1/critic", "generator/loss", "w1/lower", "w1/exact", "eval/coverage"} <= together.metrics[-1].keys()
    states = [read_checkpoint(path / CHECKPOINT)["game"] for path in (Path("alone"), directory)]
    assert len(states[1]["global_rngs"]) == 2
    assert all(torch.equal(states[0][name], states[1][name]) for name in ("latent_rng", "data_rng"))
    for name in ("critic", "ema"):
        for entry, tensor in states[0][name].items():
            assert torch.allclose(tensor, states[1][name][entry], rtol=1e-4, atol=1e-5)
    capsys.readouterr()
    assert main(["train", f"resume={directory}", "training.accumulate=1"]) == 2  # another game, by its name
    assert "training.accumulate was 2, now 1" in capsys.readouterr().err


def test_a_rank_that_dies_stops_all_and_the_run_goes_on_alone(capsys):
    settings = [*SETTINGS, "hydra.run.dir=run", "training.steps=100000", "training.critic_schedule=constant",
                "training.generator_schedule=constant", "checkpoint.every=4"]  # fmt: skip
    children = started_ranks("train", *settings)
    wait_for(lambda: Path("run/checkpoint-4.pt").exists())
    os.kill(children[1], signal.SIGKILL)
    assert statuses(children) == [1, -signal.SIGKILL]
    assert re.search(r"wgan-lip: (rank 1|another rank) was killed, or can't be reached", Path("0.txt").read_text())
    status = Run("run").status
    assert status["state"] == "failed" and "was killed" in status["reason"]
    step = read_checkpoint(Path("run") / CHECKPOINT)["game"]["step"]
    assert step >= 4
    assert main(["train", "resume=run", "training.max_seconds=0.001"]) == 0
    assert Run("run").step >= step


def test_where_rank_0_is_killed_the_status_says_so():
    settings = [*SETTINGS, "hydra.run.dir=run", "training.steps=100000", "checkpoint.every=4"]
    children = started_ranks("train", *settings)
    wait_for(lambda: Path("run/checkpoint-4.pt").exists())
    os.kill(children[0], signal.SIGKILL)
    assert statuses(children) == [-signal.SIGKILL, 1]
    status = json.loads(Path("run/status.json").read_text())
    assert status["state"] == "failed" and re.match("(rank 0|another rank) was killed", status["reason"])
    assert status["step"] >= 4


def test_a_signal_saves_once_for_all_ranks():
    settings = [*SETTINGS, "hydra.run.dir=run", "training.steps=100000", "training.log_every=5",
                "training.audit_every=100000"]  # fmt: skip
    children, played = started_ranks("train", *settings), Path("run/metrics.jsonl")
    wait_for(lambda: played.exists() and played.stat().st_size)
    for child in children:
        os.kill(child, signal.SIGTERM)
    assert statuses(children) == [143, 143]
    status = Run("run").status
    assert (status["state"], status["reason"]) == ("interrupted", "interrupted by SIGTERM")
    assert read_checkpoint(Path("run") / CHECKPOINT)["game"]["step"] == status["step"]


def test_what_one_rank_cannot_do_stops_all_with_its_reason():
    settings = [*SETTINGS, "hydra.run.dir=/proc/run"]
    assert statuses(started_ranks("train", *settings)) == [2, 1]
    assert "can't be read or written" in Path("0.txt").read_text() and "/proc/run" in Path("0.txt").read_text()
    assert Path("1.txt").read_text() == ""


def test_what_is_for_one_process_is_refused_on_several(monkeypatch):
    assert prepared("certify", []) == []
    monkeypatch.setenv("WORLD_SIZE", "2"), monkeypatch.setenv("RANK", "1")
    with pytest.raises(InputError, match="wgan-lip runs certify in one process, not 2"):
        prepared("certify", [])
    for command in ("train", "estimate"):
        with pytest.raises(InputError, match="wgan-lip runs a sweep in one process, not 2"):
            prepared(command, ["--multirun", "seed=0,1"])
    given = prepared("train", ["seed=1", "hydra.run.dir=run"])
    assert given[0] == "seed=1" and len(given) == 2 and "wgan_lip-rank-" in given[1]
    Path(given[1].partition("=")[2]).rmdir()
    monkeypatch.setenv("RANK", "0")
    assert prepared("train", ["seed=1"]) == ["seed=1"]


def test_a_batch_that_the_ranks_do_not_divide_is_refused():
    ranks = Ranks()
    ranks.size = 4
    with pytest.raises(
        InputError,
        match=r"`batch_size` must be divisible by the number of ranks \(4\) × `accumulate` \(3\), and 16 is not",
    ):
        ranks.check_divides(16, 3)
    ranks.check_divides(24, 3)
