"""Exported players: whole, the same values anywhere, a certificate that is proved again, and no training code."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file, save_file
from torch import nn

from wgan_lip import critics
from wgan_lip.cli import main
from wgan_lip.generators import MLPGenerator, draw_latents
from wgan_lip.lipschitz.certificates import Certificate, certify, weights_sha256
from wgan_lip.runs.export import export_players, load_exported
from wgan_lip.runs.run import load_run
from wgan_lip.utils.checks import InputError

SIZES = {"dim": 64, "low": 0.0, "high": 1.0, "image_shape": (1, 8, 8)}
SMALL = {
    "ResNetCritic": {"width": 8, "depth": 2, "readout": "cones", "centers": 4}, "SortingCritic": {"width": 8, "depth": 2},
    "ConvolutionalCritic": {"channels": 4}, "PenalizedCritic": {"width": 8}, "SpectralNormCritic": {"width": 8},
}  # fmt: skip


def players(name="ResNetCritic", **settings):
    settings = {**SMALL[name], **settings}
    kind = getattr(critics, name)
    first = SIZES["image_shape"] if name == "ConvolutionalCritic" else SIZES["dim"]
    torch.manual_seed(0)
    critic, generator = kind(first, **settings), MLPGenerator(64, low=0.0, high=1.0, latent_dim=3, width=8)
    configs = {
        "critic": {"_target_": f"wgan_lip.critics.{name}", **settings},
        "generator": {"_target_": "wgan_lip.generators.MLPGenerator", "latent_dim": 3, "width": 8},
    }
    return {"critic": critic, "generator": generator, "configs": configs, "sizes": SIZES, "units": "a pixel"}


@pytest.fixture(scope="module")
def exported_run(tiny_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "exported"
    assert main(["export", f"run={tiny_run}", f"out={out}"]) == 0
    return out


@pytest.fixture
def folder(exported_run, tmp_path):
    return Path(shutil.copytree(exported_run, tmp_path / "copy"))


def test_a_run_is_exported_whole_and_gives_the_same_values(exported_run, tiny_run):
    assert {path.name for path in exported_run.iterdir()} == {
        "certificate.json", "critic.pt2", "critic.safetensors", "export.json", "generator.pt2", "generator.safetensors",
    }  # fmt: skip
    assert [path for path in exported_run.parent.iterdir() if path.name != "exported"] == []
    run, exported = load_run(tiny_run), load_exported(exported_run)
    assert exported.certificate == certify(run.critic, units=run.units)
    assert exported.about["step"] == 6 and exported.about["units"] == run.units
    x, z = torch.rand(9, 64), torch.randn(9, run.generator.latent_dim)
    assert torch.equal(exported.critic(x), run.critic(x)) and torch.equal(exported.generator(z), run.generator(z))
    for name, content in exported.about["sha256"].items():
        assert content == hashlib.sha256((exported_run / name).read_bytes()).hexdigest()


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize(
    "settings",
    [
        ["data.label_scale=2"],
        ["data.label_scale=2", "generator=dcgan", "generator.channels=4", "critic=convolutional", "critic.channels=4"],
        ["training.precision=bfloat16", "training.compile=true"],
    ],
    ids=["conditional", "conditional images", "compiled bfloat16"],
)
def test_however_a_run_was_trained_it_is_exported_and_its_programs_give_its_values(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("wgan_lip.training.session._draw", lambda *_: None)
    monkeypatch.setattr("wgan_lip.training.board.TrainingBoard._show", lambda *_: None)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # not minutes of C++
    image = "generator=dcgan" in settings
    tiny = [setting for setting in TINY if not (image and setting.startswith(("generator.", "critic.")))]
    assert main(["train", *tiny, *settings, f"hydra.run.dir={tmp_path}/run"]) == 0
    assert main(["export", f"run={tmp_path}/run", f"out={tmp_path}/out"]) == 0
    run, exported = load_run(tmp_path / "run"), load_exported(tmp_path / "out")
    assert exported.certificate == certify(run.critic, units=run.units)
    z = draw_latents(run.generator, 5, torch.Generator().manual_seed(0))
    y = run.generator(z)
    assert torch.equal(exported.generator(z), y) and torch.equal(exported.critic(y), run.critic(y))
    for player, sample, values in (("generator", z, y), ("critic", y, run.critic(y))):
        program = torch.export.load(tmp_path / "out" / f"{player}.pt2").module()
        torch.testing.assert_close(program(sample), values)


def test_programs_run_on_torch_alone_for_any_batch(exported_run, tiny_run, tmp_path):
    run, x = load_run(tiny_run), torch.rand(300, 64)
    torch.save(x, tmp_path / "x.pt")
    script = (
        "import sys, torch\n"
        "program = torch.export.load(sys.argv[1])\n"
        "f, x = program.module(), torch.load(sys.argv[2])\n"
        "torch.save([f(x), f(x[:1]), program.state_dict], sys.argv[3])\n"
        "assert not [name for name in sys.modules if name.startswith('wgan_lip')]\n"
    )
    command = [sys.executable, "-P", "-c", script, exported_run / "critic.pt2", tmp_path / "x.pt", tmp_path / "y.pt"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    many, one, weights = torch.load(tmp_path / "y.pt", weights_only=True)
    assert torch.allclose(many, run.critic(x), atol=1e-6) and torch.allclose(one, run.critic(x[:1]), atol=1e-6)
    stored = load_file(exported_run / "critic.safetensors")
    assert all(torch.equal(weights[name], weight) for name, weight in stored.items())


def test_loading_needs_no_training_code_and_proves_the_certificate(exported_run):
    script = (
        "import sys, wgan_lip\n"
        "e = wgan_lip.load_exported(sys.argv[1])\n"
        "print(e.certificate.weights_sha256, repr(e.certificate.lipschitz), wgan_lip.lipschitz.certificates.weights_sha256(e.critic))\n"
        "unwanted = 'wgan_lip.training wgan_lip.runs.run wgan_lip.cli hydra omegaconf ot tensorboard matplotlib sklearn'.split()\n"
        "print(','.join(name for name in unwanted if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, exported_run], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    proved, loaded = done.stdout.splitlines()
    certificate = Certificate.load(exported_run / "certificate.json")
    assert proved.split() == [certificate.weights_sha256, repr(certificate.lipschitz), certificate.weights_sha256]
    assert loaded == ""


@pytest.mark.parametrize("name", SMALL)
def test_every_critic_is_exported_with_its_program(name, tmp_path):
    given = players(name)
    certificate = export_players(tmp_path / "out", **given)
    exported = load_exported(tmp_path / "out")
    assert exported.certificate == certificate and weights_sha256(exported.critic) == certificate.weights_sha256
    x = torch.rand(5, 64, requires_grad=True)
    program, critic = torch.export.load(tmp_path / "out" / "critic.pt2").module(), given["critic"].eval()
    assert torch.allclose(program(x), critic(x), atol=1e-5)
    slopes = [torch.autograd.grad(f(x).sum(), x)[0] for f in (program, critic)]
    assert torch.allclose(*slopes, atol=1e-5)
    assert torch.equal(exported.critic(x), critic(x))


def hash_again(folder: Path) -> None:
    """Makes a changed folder agree with itself, as whoever changed it would."""
    about = json.loads((folder / "export.json").read_text())
    about["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in about["sha256"]}
    (folder / "export.json").write_text(json.dumps(about))


def steeper(folder: Path) -> None:
    state = load_file(folder / "critic.safetensors")
    key = next(key for key, weight in state.items() if weight.ndim == 2)
    save_file({**state, key: 3 * state[key]}, folder / "critic.safetensors")
    hash_again(folder)


def flatter(folder: Path) -> None:
    content = json.loads((folder / "certificate.json").read_text())
    (folder / "certificate.json").write_text(json.dumps({**content, "lipschitz": 0.5}))
    hash_again(folder)


def other_target(folder: Path, target: str) -> None:
    about = json.loads((folder / "export.json").read_text())
    about["critic"]["_target_"] = target
    (folder / "export.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (steeper, "The certificate is about other weights"),
        (flatter, "The certificate was altered"),
        (lambda folder: (folder / "critic.safetensors").write_bytes(b"torn"), "critic.safetensors .* has changed since it was exported"),
        (lambda folder: ((folder / "critic.safetensors").write_bytes(b"torn"), hash_again(folder)), "SafetensorError"),
        (lambda folder: (folder / "certificate.json").unlink(), "is not a folder that .wgan-lip export. wrote.*FileNotFoundError"),
        (lambda folder: (folder / "export.json").write_text("{"), "is not a folder that .wgan-lip export. wrote.*JSONDecodeError"),
        (lambda folder: (folder / "export.json").write_text("[]"), "is not a folder that .wgan-lip export. wrote.*TypeError"),
        (lambda folder: other_target(folder, "os.system"), "critic._target_ must name a class"),
        (lambda folder: other_target(folder, "wgan_lip.critics.SortingCritic"), "SortingCritic has no key"),
        (lambda folder: other_target(folder, "own.Critic"), r"say so by trust=\[own\]"),
    ],
)  # fmt: skip
def test_a_changed_export_is_refused(folder, change, message):
    change(folder)
    with pytest.raises(InputError, match=message):
        load_exported(folder)


class Moody(MLPGenerator):
    def forward(self, latents):
        return super().forward(latents) + torch.rand(())


class Branching(MLPGenerator):
    def forward(self, latents):
        return super().forward(latents) if latents.sum() > 0 else latents


@pytest.mark.parametrize(
    ("kind", "message"),
    [(Moody, "draw random numbers"), (Branching, "torch.export can't trace the generator")],
)
def test_a_player_that_makes_no_program_is_told_and_nothing_is_left(kind, message, tmp_path):
    given = players() | {"generator": kind(64, latent_dim=3, width=8)}
    with pytest.raises(InputError, match=message):
        export_players(tmp_path / "out", **given)
    assert list(tmp_path.iterdir()) == []
    export_players(tmp_path / "out", **given, programs=False)
    assert not (tmp_path / "out" / "critic.pt2").exists()


def test_a_folder_in_use_is_not_written_to(exported_run, tiny_run, capsys):
    before = {path.name: path.read_bytes() for path in exported_run.iterdir()}
    assert main(["export", f"run={tiny_run}", f"out={exported_run}"]) == 2
    assert "exists and is not an empty folder" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in exported_run.iterdir()}


def test_the_screen_says_how_to_open_it(tiny_run, tmp_path, capsys):
    assert main(["export", f"run={tiny_run}", f"out={tmp_path / 'out'}", "programs=false"]) == 0
    screen = capsys.readouterr().out
    assert (
        "Lip(f) ≤ " in screen and f"load_exported('{tmp_path / 'out'}')" in screen and "none (programs=false)" in screen
    )


def test_players_that_are_no_modules_of_a_proof_are_refused(tmp_path):
    given = players() | {"critic": nn.Sequential(nn.Linear(64, 1), nn.BatchNorm1d(1))}
    with pytest.raises(InputError, match="has no provable constant"):
        export_players(tmp_path / "out", **given)
