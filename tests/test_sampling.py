"""Samples of a run: equal by seed, whole in any number, to a grid, a folder or rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wgan_lip.cli import main
from wgan_lip.generators import MLPGenerator, draw_latents
from wgan_lip.runs.run import load_run
from wgan_lip.runs.sampling import BLOCK, sample_blocks, sample_by_seeds


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rng(seed):
    return torch.Generator().manual_seed(seed)


def refused(capsys, *settings: str) -> str:
    assert main(["sample", *settings]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    return error


@pytest.mark.parametrize("n", [1, BLOCK, 2 * BLOCK + 3])
def test_blocks_hold_every_sample_once(n):
    generator = MLPGenerator(3, latent_dim=16, width=8).requires_grad_(False)
    blocks = list(sample_blocks(generator, n, rng(5)))
    assert max(map(len, blocks)) <= BLOCK
    assert torch.allclose(torch.cat(blocks), generator(draw_latents(generator, n, rng(5))), atol=1e-6)


def test_a_seed_gives_the_same_sample_in_any_company():
    generator = MLPGenerator(3, latent_dim=2, width=8).requires_grad_(False)
    seeds = [7, 2**31 - 1, *range(300)]
    rows = torch.cat(list(sample_by_seeds(generator, seeds)))
    assert len(rows) == len(seeds) and len({tuple(row) for row in rows.tolist()}) == len(seeds) - 1
    for place in (0, 1, 150, 301):
        alone = generator(draw_latents(generator, 1, rng(seeds[place])))
        assert torch.allclose(rows[place : place + 1], alone, atol=1e-6)


def test_rows_pictures_and_folders_show_the_same_samples(tiny_run, capsys):
    run = load_run(tiny_run)
    assert main(["sample", f"run={tiny_run}", "n=300", "seed=3", "out=a.npy"]) == 0
    assert np.array_equal(np.load("a.npy"), run.sample(300, seed=3).numpy())
    assert "300 samples of" in capsys.readouterr().out

    assert main(["sample", f"run={tiny_run}", "seeds=[9,0-5]", "out=pictures/", "device=cpu"]) == 0
    assert main(["sample", f"run={tiny_run}", "seeds=[9,0-5]", "out=b.npy"]) == 0
    rows = np.load("b.npy")
    assert sorted(path.name for path in Path("pictures").iterdir()) == [
        f"seed{n:04d}.png" for n in (0, 1, 2, 3, 4, 5, 9)
    ]
    for row, seed in zip(rows, (9, *range(6))):
        with Image.open(f"pictures/seed{seed:04d}.png") as picture:
            assert picture.mode == "L" and np.array_equal(np.array(picture), np.rint(255 * row.reshape(8, 8)))

    assert main(["sample", f"run={tiny_run}", "n=12", "out=many"]) == 0
    assert sorted(path.name for path in Path("many").iterdir()) == [f"{n:02d}.png" for n in range(12)]
    assert main(["sample", f"run={tiny_run}", "n=7", "out=grid.png"]) == 0
    with Image.open("grid.png") as grid:
        assert grid.size == (3 * 42 - 2, 3 * 42 - 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["run=nowhere", "out=x.npy"], "which is no folder"),
        (["out=x.jpg"], "Expected out to end in .npy or .png, or to be a folder, as in out=pictures/. Got 'x.jpg'"),
        (["out=nowhere/x.npy"], "Expected out in a folder that exists"),
        (["out=full"], "Expected a new or an empty folder for pictures. Got full"),
        (["out=full/a.png/"], "Expected a new or an empty folder for pictures. Got full/a.png"),
        (["out=x.png", "n=4097"], "Expected at most 4096 samples in a grid. Got 4097"),
        (["out=x.npy", "n=0"], "Expected at least one sample. Got n=0"),
        (["out=x.npy", "seeds=5-3"], "Expected seeds as in seeds=0-63 or seeds=[7,0-9]. Got '5-3'"),
        (["out=x.npy", "seeds=[1,x]"], "Expected seeds as in seeds=0-63 or seeds=[7,0-9]. Got 'x'"),
        (["out=x.npy", "seeds=[]"], "Expected at least one seed"),
        (["out=x.npy", "seeds=0-2147483648"], "Expected a seed of at least 0 and below 2^31. Got 2147483648"),
        (["out=x.npy", "seed=-1"], "Expected a seed of at least 0 and below 2^31. Got -1"),
        (["out=x.npy", "device=cuda:99"], "Expected a GPU for device=cuda:99"),
    ],
)
def test_what_cannot_be_sampled_is_told_in_one_line_and_nothing_is_written(settings, message, tiny_run, capsys):
    Path("full").mkdir()
    Path("full/a.png").touch()
    settings = settings if settings[0].startswith("run=") else [f"run={tiny_run}", *settings]
    assert message in refused(capsys, *settings)
    assert sorted(Path().rglob("*")) == [Path("full"), Path("full/a.png")]


def test_samples_that_are_no_images_make_no_folder_of_pictures(tiny_run, tmp_path, capsys):
    copy = shutil.copytree(tiny_run, tmp_path / "copy")
    content = torch.load(copy / "checkpoint.pt", weights_only=True)
    content["sizes"]["image_shape"] = None
    torch.save(content, copy / "checkpoint.pt")
    assert "Expected a run on images for a folder of pictures. Got one on rows of 64" in refused(
        capsys, f"run={copy}", "out=pictures/"
    )
    assert not Path("pictures").exists()


def test_the_checkpoint_of_the_best_audit_can_be_sampled(tiny_run, tmp_path, capsys):
    copy = shutil.copytree(tiny_run, tmp_path / "copy")
    content = torch.load(copy / "checkpoint.pt", weights_only=True)
    content["game"]["ema"] = {name: 2 * weight for name, weight in content["game"]["ema"].items()}
    content["game"]["step"] = 3
    torch.save(content, copy / "best.pt")
    assert main(["sample", f"run={copy}", "checkpoint=best", "out=best.npy", "n=4"]) == 0
    assert "at step 3" in capsys.readouterr().out
    assert np.array_equal(np.load("best.npy"), load_run(copy, checkpoint="best").sample(4).numpy())
    assert not np.array_equal(np.load("best.npy"), load_run(copy).sample(4).numpy())
    (copy / "best.pt").unlink()
    assert "Expected best.pt in" in refused(capsys, f"run={copy}", "checkpoint=best", "out=x.npy")
    assert "Expected checkpoint to be one of last, best. Got 'first'" in refused(
        capsys, f"run={copy}", "checkpoint=first", "out=x.npy"
    )
