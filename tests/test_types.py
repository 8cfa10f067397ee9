"""What the package publishes is typed for those who use it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

USES = """
import numpy as np
import torch
import wgan_lip
from wgan_lip.data import Moons

x = np.zeros((8, 2))
result = wgan_lip.estimate_w1(x, torch.ones(8, 2), critic="resnet", seconds=3)
lower: float = result.lower
values: torch.Tensor = result.potential(torch.zeros(3, 2))
wgan_lip.estimate_w1(x, x, secnds=3)  # call-arg
wgan_lip.estimate_w1(x, x, seconds="long")  # arg-type
wgan_lip.estimate_w1(x)  # call-arg
result.lowr  # attr-defined
name: str = result.lower  # assignment

critic = wgan_lip.ResNetCritic(2, width=8)
certificate = wgan_lip.certify(critic)
constant: float = certificate.lipschitz
wgan_lip.ResNetCritic(2, widht=8)  # call-arg
wgan_lip.certify("critic")  # arg-type
certificate.lipshitz  # attr-defined
wgan_lip.certfy(critic)  # attr-defined

generator = wgan_lip.MLPGenerator(2, latent_dim=3)
ways = torch.optim.Adam(generator.parameters()), torch.optim.Adam(critic.parameters())
for record in wgan_lip.train_wgan(Moons(), generator, critic, generator_optimizer=ways[0], critic_optimizer=ways[1]):
    scalar: float = record.scalars["w1/lower"]
    record.scalers  # attr-defined
wgan_lip.train_wgan(Moons(), generator, critic)  # call-arg
wgan_lip.Training(steps=100, bach_size=3)  # call-arg
trained = wgan_lip.train(Moons(), generator, critic, out="outputs/mine", steps=100, resume="auto")
trained.sample(3).mean()
wgan_lip.train(Moons(), generator, critic, out="outputs/mine", stpes=100)  # call-arg
wgan_lip.train(Moons(), generator, critic, out="outputs/mine", resume="yes")  # arg-type
run = wgan_lip.load_run("outputs/mine")
run.sample(64).mean()
run.smaple(64)  # attr-defined
"""


def test_the_package_is_clean_and_wrong_uses_of_it_are_refused_and_no_others(tmp_path):
    uses = tmp_path / "uses.py"
    uses.write_text(USES)
    command = [sys.executable, "-m", "mypy", "--no-pretty", "--cache-dir", tmp_path / "cache", "wgan_lip", uses]
    report = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False).stdout
    found = re.findall(rf"^{re.escape(str(uses))}:(\d+): error: .*\[([a-z-]+)\]$", report, flags=re.MULTILINE)
    wrong = {(number, line.split("# ")[1]) for number, line in enumerate(USES.splitlines(), 1) if "# " in line}
    assert {(int(line), code) for line, code in found} == wrong
    assert re.findall(r"^wgan_lip/.*: error: .*$", report, flags=re.MULTILINE) == []
