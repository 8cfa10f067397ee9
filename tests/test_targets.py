"""Configuration → object: own modules join by trust, which the user states and no file can."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY
from omegaconf import OmegaConf

from wgan_lip.cli import main
from wgan_lip.cli.overrides import begun_anew
from wgan_lip.cli.schema import checked
from wgan_lip.runs.run import Run, load_run
from wgan_lip.runs.targets import build, check_trust, target_class
from wgan_lip.utils.checks import InputError

NETS = """
import torch
from torch import nn
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers import GradientFlow, Linear, Squeeze
from wgan_lip.data import FiniteSource


class Fold(nn.Module):
    def __init__(self, dim: int, latent_dim: int = 3, slope: float = 1.0, **extra):
        super().__init__()
        self.latent_dim, self.extra = latent_dim, extra
        self.map, self.slope = nn.Linear(latent_dim, dim), slope

    def forward(self, latents):
        return torch.sin(self.slope * self.map(latents))


class OwnCritic(nn.Sequential):
    def __init__(self, dim, width=4):
        space = Norm.euclidean(width)
        super().__init__(Linear(Norm.euclidean(dim), space), GradientFlow(width, 2), Linear(space, Norm((1,))), Squeeze())


class Wave(FiniteSource):
    name, units = "wave", "a metre"

    def __init__(self, n: int = 120):
        t = torch.linspace(0, 6, n)
        rows = torch.stack((t, t.sin()), dim=1)
        super().__init__(rows[::2], rows[1::2])


def loose(dim):
    return Fold(dim)
"""


@pytest.fixture
def own(tmp_path, monkeypatch, request):
    """A package of the user's in the current folder, of a name that no other test has imported."""
    name = "own_" + "".join(c if c.isalnum() else "_" for c in request.node.name.lower())
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    (tmp_path / name / "nets.py").write_text(NETS)
    (tmp_path / name / "broken.py").write_text("import nothing_of_this_name\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def only_run(folder: str = "outputs/train") -> Path:
    (directory,) = Path(folder).iterdir()
    return directory


def shrunk(*dropped: str) -> list[str]:
    return [setting for setting in TINY if not setting.startswith(dropped)]


def test_own_players_and_data_train_and_reload_only_by_trust_stated_anew(own, capsys):
    settings = [
        f"trust=[{own}]", f"generator._target_={own}.nets.Fold", "generator.slope=2.0", "generator.colour=red",
        f"critic._target_={own}.nets.OwnCritic", f"data._target_={own}.nets.Wave", "data.n=100",
        *shrunk("generator", "critic.", "data"),
    ]  # fmt: skip
    assert main(["train", *settings]) == 0
    assert "Certified critic" in capsys.readouterr().out  # all its parameters are those of layers with a claim
    directory = only_run()
    config = Run(directory).config
    assert config["generator"] == {"_target_": f"{own}.nets.Fold", "colour": "red", "slope": 2.0}
    assert config["data"] == {"_target_": f"{own}.nets.Wave", "n": 100}

    for command, *rest in (["certify"], ["inspect"], ["sample", "out=x.npy", "n=5"]):
        assert main([command, f"run={directory}", *rest]) == (0 if command == "inspect" else 2)
        captured = capsys.readouterr()
        assert f"say so by trust=[{own}]" in captured.out + captured.err  # though its config.yaml says trust
    for command, *rest in (["certify"], ["sample", "out=x.npy", "n=5"]):
        assert main([command, f"run={directory}", f"trust=[{own}]", *rest]) == 0
        assert "a metre" in capsys.readouterr().out or command != "certify"
    estimate = ["estimate", f"x=run:{directory}", f"y=run:{directory}", "samples=20", "seconds=1", "critic=null"]
    assert main([*estimate, f"trust=[{own}]"]) == 0
    assert main(["train", f"resume={directory}"]) == 2
    assert f"say so by trust=[{own}]" in capsys.readouterr().err
    assert main(["train", f"resume={directory}", f"trust=[{own}]"]) == 0
    assert "there is nothing left to train" in capsys.readouterr().out  # so its settings were found to be the same
    assert main(["train", "--dry-run", *settings]) == 0 and "colour: red" in capsys.readouterr().out
    run = load_run(directory, trust=[own])
    assert type(run.generator).__name__ == "Fold" and run.generator.extra == {"colour": "red"}
    assert run.sample(4).shape == (4, 2)
    with pytest.raises(InputError, match=f"trust=\\[{own}\\]"):
        load_run(directory)


def test_own_choices_join_a_group_by_a_folder(own, capsys):
    Path("mine/generator").mkdir(parents=True)
    Path("mine/generator/fold.yaml").write_text(f"_target_: {own}.nets.Fold\nslope: 3.0\n")
    assert main(["train", "--config-dir", "mine", "generator=fold", f"trust=[{own}]", "data=moons", "data.test_size=30",
                 *shrunk("generator", "data")]) == 0  # fmt: skip
    assert Run(only_run()).config["generator"]["slope"] == 3.0
    assert main(["train", "--config-dir", "mine", "generator=fold", *shrunk("generator")]) == 2
    assert f"say so by trust=[{own}]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["trust=[OWN]", "generator._target_=OWN.nets.loose"], "It must be a class of OWN.nets"),
        (["trust=[OWN]", "generator._target_=OWN.nets.Absent"], "It must be a class of OWN.nets"),
        (["trust=[OWN]", "generator._target_=OWN.absent.Fold"], "ModuleNotFoundError: No module named 'OWN.absent'"),
        (["trust=[OWN]", "generator._target_=OWN.broken.Fold"], "No module named 'nothing_of_this_name'"),
        (["trust=[OWN]", "generator._target_=OWN.nets.Wave"], "It must be a class of OWN.nets, and a torch module."),
        (["trust=[OWN]", "data._target_=OWN.nets.Fold"], "It must be a class of OWN.nets, and a wgan_lip.data.Source."),
        (["trust=[OWN]", "generator._target_=OWN.nets.Fold", "generator.latent_dim=x"], "generator.latent_dim must be of type int"),
        (["trust=[OWN]", "critic._target_=OWN.nets.OwnCritic", "critic.widht=3"], "There is no key critic.widht. Keys: critic.dim, critic.width"),
        (["trust=[OWN]", "critic._target_=OWN.nets.Fold"], "The critic fails on its input"),
        (["trust=[O]", "generator._target_=OWN.nets.Fold"], "say so by trust=[OWN]"),
        (["trust=[os]", "generator._target_=os.system"], "It must be a class of os"),
        (["trust=['a b']"], "trust must name packages, as in trust=[mypackage], not 'a b'"),
        (["trust=5"], "trust must name packages, as in trust=[mypackage], not 5"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_in_one_line(own, settings, message, capsys):
    assert main(["train", *(setting.replace("OWN", own) for setting in settings)]) == 2
    error = capsys.readouterr().err.strip()
    assert message.replace("OWN", own) in error and "\n" not in error
    assert not Path("outputs/train").exists() or not list(Path("outputs/train").iterdir())


def test_a_folder_that_is_not_trusted_is_not_imported_from(own, capsys):
    Path("json.py").write_text("raise SystemExit('a module of the folder ran')\n")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.path[:] = [p for p in sys.path if p]; "
         "from wgan_lip.cli import main; sys.exit(main())",
         "train", f"generator._target_={own}.nets.Fold"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and f"say so by trust=[{own}]" in done.stderr


def test_a_section_begins_anew_where_its_class_is_named():
    assert begun_anew(["seed=1", "critic.width=3"]) == ["seed=1", "critic.width=3"]
    assert begun_anew(["critic.width=3", "--multirun", "generator.a=1", "generator._target_=m.N", "+generator.b.c=2"]) == [
        "critic.width=3", "--multirun", "++generator.a=1", "++generator._target_=m.N", "++generator._given_=[a,b]",
        "++generator.b.c=2",
    ]  # fmt: skip
    composed = {"critic": {"_target_": "wgan_lip.critics.ResNetCritic", "width": 9, "depth": 3, "_given_": ["depth"]}}
    assert checked(OmegaConf.create(composed), root={}, built=["critic"]) == {
        "critic": {"_target_": "wgan_lip.critics.ResNetCritic", "depth": 3}
    }


def test_trust_covers_what_lies_below_a_name_and_nothing_beside_it():
    assert check_trust("torch.nn") == ("torch.nn",) and check_trust(()) == ()
    assert target_class("critic", "torch.nn.modules.linear.Linear", trust=["torch.nn"]) is torch.nn.Linear
    assert (
        build(
            "critic", {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}, trust=["torch"]
        ).out_features
        == 3
    )
    for target in ("torch.nnx.Linear", "torchvision.ops.MLP", "os.system"):
        with pytest.raises(InputError, match="critic._target_ must name a class"):
            target_class("critic", target, trust=["torch.nn", "torchvisio"])


def test_saved_trust_is_not_heard(tiny_run):
    assert yaml.safe_load((tiny_run / "config.yaml").read_text())["trust"] == []
    assert Run(tiny_run).trust == () and Run(tiny_run, trust="a.b").trust == ("a.b",)
