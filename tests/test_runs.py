"""A run on disk: it comes back as it was, and nothing in it can run code."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import wgan_lip
from wgan_lip.critics import ResNetCritic
from wgan_lip.data import Digits, Gaussians8
from wgan_lip.lipschitz.certificates import Certificate, certify, verify
from wgan_lip.runs.checkpoints import CHECKPOINT, read_checkpoint, save_checkpoint
from wgan_lip.runs.folder import create_run, set_status
from wgan_lip.runs.run import Run, load_run
from wgan_lip.runs.targets import ROLES, build, target_class
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.files import write_whole


@pytest.fixture
def run_copy(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "copy"))


def test_another_process_gives_the_same_certificate_and_the_same_samples(tiny_run):
    script = (
        "import sys, hashlib, wgan_lip\n"
        "run = wgan_lip.load_run(sys.argv[1])\n"
        "c = wgan_lip.certify(run.critic)\n"
        "print(c.weights_sha256, repr(c.lipschitz), hashlib.sha256(run.sample(9, seed=4).numpy().tobytes()).hexdigest())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, tiny_run]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    stored = Certificate.load(tiny_run / "certificate.json")
    here = hashlib.sha256(wgan_lip.load_run(tiny_run).sample(9, seed=4).numpy().tobytes()).hexdigest()
    assert done.stdout.split() == [stored.weights_sha256, repr(stored.lipschitz), here]


def test_the_stored_certificate_verifies_for_the_stored_critic(tiny_run):
    run = load_run(tiny_run)
    stored = Certificate.load(tiny_run / "certificate.json")
    assert verify(stored, run.critic) == stored == certify(run.critic, units=run.units)
    assert "pixel" in stored.units


def test_a_run_says_what_it_is(tiny_run):
    run = wgan_lip.load_run(tiny_run)
    assert run.config["data"]["_target_"] == "wgan_lip.data.Digits"
    assert run.config["training"]["steps"] == run.step == 6
    assert run.image_shape == (1, 8, 8)
    assert run.status["state"] == "finished"
    assert [record["step"] for record in run.metrics] == [0, 3, 6]
    assert run.sample(5).shape == (5, 64)
    assert torch.equal(run.sample(5, seed=1), run.sample(5, seed=1))
    assert not torch.equal(run.sample(5, seed=1), run.sample(5, seed=2))
    assert torch.equal(run.source.test, Digits().test) and run.source.image_shape == run.image_shape
    interval = run.summary["interval"]
    assert interval["lower_as_trained"] <= interval["lower"] <= interval["exact"] <= interval["upper"]


@pytest.mark.parametrize("seed", [-1, 2**31, 10**30])
def test_seeds_that_torch_takes_for_others_are_refused(tiny_run, seed):
    with pytest.raises(InputError, match="seed must be an integer from 0 to 2"):
        load_run(tiny_run).sample(3, seed=seed)


def test_no_samples_are_refused(tiny_run):
    with pytest.raises(InputError, match="n must be a whole number of at least 1, not 0"):
        load_run(tiny_run).sample(0)


FOREIGN = [
    "os.system", "builtins.eval", "torch.hub.load", "torch.load", "torch.optim.lr_scheduler", "torch.nn.Linear",
    "wgan_lip.data.Path", "wgan_lip.data.import_torchvision", "wgan_lip.runs.run.Run", "wgan_lip.critics.nn.Linear",
    "wgan_lip.critics.", "", ".", "..", 3, None, [], {}, "wgan_lip.critics.Norm", "wgan_lip.critics.__class__",
    "wgan_lip.critics.__loader__", "wgan_lip.critics.torch.load", "wgan_lip.data.Source.__init__", "wgan_lip.cli.main",
    "wgan_lip.critics.resnet.ResNetCritic", "torch.optim.adam.Adam", "subprocess.Popen", "hydra.utils.instantiate",
    "pathlib.Path", "wgan_lip.data\n.Digits", " wgan_lip.data.Digits", "wgan_lip.data.Digits ", "WGAN_LIP.data.Digits",
]  # fmt: skip
IN_THEIR_ROLES = {
    "data": "wgan_lip.data.MNIST", "critic": "wgan_lip.critics.ResNetCritic",
    "generator": "wgan_lip.generators.MLPGenerator", "critic_optimizer": "torch.optim.Adam",
}  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_a_class_is_named_in_its_own_role_only(role, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a download"))
    others = [target for owner, target in IN_THEIR_ROLES.items() if ROLES[owner] != ROLES[role]]
    for target in [*FOREIGN, *others]:
        with pytest.raises(InputError, match=f"{role}._target_ must name a class of"):
            build(role, {"_target_": target, "root": str(tmp_path / "made"), "download": True}, dim=2)
    assert not any(tmp_path.iterdir())
    home = {owner: target for owner, target in IN_THEIR_ROLES.items() if ROLES[owner] == ROLES[role]}
    assert all(target_class(role, target).__name__ == target.split(".")[-1] for target in home.values()) and home


def test_build_offers_sizes_and_refuses_unknown_keys():
    critic = build(
        "critic", {"_target_": "wgan_lip.critics.ResNetCritic", "width": 6}, dim=3, low=0.0, image_shape=None
    )
    assert isinstance(critic, ResNetCritic) and critic.dim == 3
    assert isinstance(build("data", {"_target_": "wgan_lip.data.Gaussians8"}), Gaussians8)
    with pytest.raises(InputError, match=r"ResNetCritic has no key widht. Its keys: dim, width"):
        build("critic", {"_target_": "wgan_lip.critics.ResNetCritic", "widht": 6}, dim=3)
    with pytest.raises(InputError, match="with _target_"):
        build("critic", {"width": 6})


class Payload:
    """Unpickling this makes a folder: proof that code ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("as_torch", [True, False])
def test_a_checkpoint_that_carries_code_is_refused_and_the_code_does_not_run(run_copy, tmp_path, as_torch):
    evidence = tmp_path / "code_ran"
    payload = {"sizes": {}, "game": Payload(evidence)}
    path = run_copy / "checkpoint.pt"
    torch.save(payload, path) if as_torch else path.write_bytes(pickle.dumps(payload))
    with pytest.raises(InputError, match="checkpoint.pt in .* is damaged"):
        load_run(run_copy)
    assert not evidence.exists()


def test_a_configuration_that_carries_code_is_refused_and_the_code_does_not_run(run_copy, tmp_path):
    evidence = tmp_path / "code_ran"
    (run_copy / "config.yaml").write_text(f"critic: !!python/object/apply:os.mkdir ['{evidence}']\n")
    with pytest.raises(InputError, match="config.yaml in .* is damaged"):
        load_run(run_copy)
    assert not evidence.exists()


def test_interpolations_in_a_configuration_are_not_resolved(run_copy, monkeypatch):
    monkeypatch.setenv("SECRET", "xyz")
    path = run_copy / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: ${oc.env:SECRET}"))
    assert "xyz" not in json.dumps(load_run(run_copy).config)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("checkpoint.pt", b"", "checkpoint.pt in .* is damaged"),
        ("checkpoint.pt", b"PK\x03\x04 no archive", "checkpoint.pt in .* is damaged"),
        ("config.yaml", b"[1, 2", "config.yaml in .* is damaged"),
        ("config.yaml", b"- 1\n", "not a mapping"),
        ("config.yaml", b"data: 3\n", "no section"),
        ("config.yaml", b"\xff\xfe\x00", "config.yaml in .* is damaged"),
    ],
)
def test_a_damaged_file_is_named(run_copy, file, content, message):
    (run_copy / file).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_run(run_copy)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(run_copy, share):
    path = run_copy / "checkpoint.pt"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"checkpoint.pt in .* is damaged.*Restore it, or train again"):
        load_run(run_copy)


def test_a_checkpoint_of_another_architecture_is_refused(run_copy):
    path = run_copy / "config.yaml"
    path.write_text(path.read_text().replace("depth: 2", "depth: 3", 1))
    with pytest.raises(InputError, match="does not fit config.yaml"):
        load_run(run_copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda game: game["critic"].pop("block_1.bias"),
            "its critic does not fit config.yaml: block_1.bias is missing",
        ),
        (lambda game: game["critic"].update(old=torch.ones(2)), "config.yaml: old does not belong to this class"),
        (lambda game: game["critic"].update({"block_1.bias": torch.ones(2)}), r"bias has shape \(2,\), not \(64,\)"),
        (lambda game: game["critic"].clear(), "is missing, .* is missing, .* is missing, and [0-9]+ more"),
        (lambda game: game["critic"].update({"block_1.bias": "torn"}), "AttributeError"),
        (lambda game: game.update(critic=3), "AttributeError"),
        (lambda game: game.pop("critic"), "its weights are missing"),
        (lambda game: game.pop("step"), "KeyError: 'step'"),
        (lambda game: game["ema"].popitem(), "its generator does not fit config.yaml: layers.6.bias is missing"),
    ],
)
def test_a_checkpoint_of_an_older_state_is_refused_by_the_names_that_differ(run_copy, change, message):
    path = run_copy / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    change(content["game"])
    torch.save(content, path)
    with pytest.raises(InputError, match=message) as caught:
        load_run(run_copy)
    assert "\n" not in str(caught.value) and "Restore it, or train again" in str(caught.value)


def test_units_are_those_of_the_source_or_of_an_earlier_versions_configuration(run_copy):
    assert load_run(run_copy).units == Digits.units
    checkpoint = read_checkpoint(run_copy / CHECKPOINT)
    torch.save({**checkpoint, "game": {**checkpoint["game"], "units": "a metre"}}, run_copy / CHECKPOINT)
    assert load_run(run_copy).units == "a metre"
    del checkpoint["game"]["units"]
    torch.save(checkpoint, run_copy / CHECKPOINT)
    assert load_run(run_copy).units == Digits.units
    path = run_copy / "config.yaml"
    for data in ("data: {}", "other: {}"):
        path.write_text(data + path.read_text()[path.read_text().index("\ncritic:") :])
        with pytest.raises(InputError, match=r"data._target_ must name a class|has no section data"):
            _ = load_run(run_copy).units


def test_folders_that_are_no_runs_are_refused(tmp_path):
    with pytest.raises(InputError, match="There is no folder"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"has no config\.yaml"):
        load_run(tmp_path)
    create_run(tmp_path / "new", {"data": {}}, [])
    with pytest.raises(InputError, match=r"has no checkpoint.pt; the run is running"):
        load_run(tmp_path / "new")
    assert Run(tmp_path / "new").metrics == []


def test_a_run_is_never_written_over(tiny_run):
    before = {path.name: path.read_bytes() for path in tiny_run.iterdir()}
    with pytest.raises(InputError, match=r"already holds a run.*checkpoint\.pt"):
        create_run(tiny_run, {}, [])
    assert before == {path.name: path.read_bytes() for path in tiny_run.iterdir()}


def test_a_checkpoint_that_fails_to_write_leaves_the_old_one(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, {"step": 1}, {"dim": 2})
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path, {"step": 2}, {"dim": 2})
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fails(stream):
        stream.write(b"half")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        write_whole(path, fails)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_status_keeps_when_the_run_began(tmp_path):
    set_status(tmp_path, "running")
    began = json.loads((tmp_path / "status.json").read_text())["started"]
    set_status(tmp_path, "failed", reason="because", step=4)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["started"] == began <= status["updated"]
    assert (status["state"], status["reason"], status["step"]) == ("failed", "because", 4)
    assert "torch" in status["versions"]
