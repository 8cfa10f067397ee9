"""The built wheel works from any directory, configurations included."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import TINY

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_wheel_trains_from_another_directory(tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    run("-m", "pip", "install", "--no-deps", "--no-index", "--target", site, wheel, cwd=elsewhere)
    where = run("-c", "import wgan_lip; print(wgan_lip.__file__)", cwd=elsewhere, PYTHONPATH=str(site))
    assert where.startswith(str(site))
    assert {"py.typed", "__init__.pyi"} <= {path.name for path in (site / "wgan_lip").iterdir()}
    screen = run("-m", "wgan_lip", "train", *TINY, cwd=elsewhere, PYTHONPATH=str(site), OMP_NUM_THREADS="1")
    assert "Lip(f) ≤ " in screen
    assert list((elsewhere / "outputs" / "train").glob("*/checkpoint.pt"))
