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
from wgan_lip.runs.sampling import BLOCK, sample_blocks, sample_by_seeds, sample_walk
from wgan_lip.utils.checks import InputError


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


def test_a_walk_passes_the_seeds_along_arcs_and_closes():
    generator = torch.nn.Linear(5, 3).requires_grad_(False)
    generator.latent_dim = 5
    rows = torch.cat(list(sample_walk(generator, [3, 4, 9], 12)))
    stops = torch.cat(list(sample_by_seeds(generator, [3, 4, 9])))
    assert torch.allclose(rows[[0, 4, 8]], stops, atol=1e-6) and len(rows) == 12
    z = [draw_latents(generator, 1, rng(seed)) for seed in (3, 4, 9)]
    halfway = [generator(0.5**0.5 * (z[i] + z[(i + 1) % 3]))[0] for i in range(3)]
    assert torch.allclose(rows[[2, 6, 10]], torch.stack(halfway), atol=1e-6)


def test_every_frame_of_a_walk_is_drawn_from_the_prior():
    """Over many pairs of seeds, latents have mean 0 and covariance I at every place of the walk."""
    generator = torch.nn.Linear(2, 2, bias=False).requires_grad_(False)
    generator.latent_dim = 2
    generator.weight.copy_(torch.eye(2))
    walks = [torch.cat(list(sample_walk(generator, [2 * k, 2 * k + 1], 8))) for k in range(3000)]
    rows = torch.stack(walks)  # (walks, frames, 2)
    assert rows.mean(dim=0).abs().max() < 5 / 3000**0.5
    spread = torch.einsum("kfi,kfj->fij", rows, rows) / 3000
    assert (spread - torch.eye(2)).abs().max() < 5 * (2 / 3000) ** 0.5


def test_frames_of_a_conditional_walk_have_the_label_of_the_nearer_seed():
    generator = torch.nn.Identity()
    generator.latent_dim, generator.label_shares = 2, torch.tensor([0.5, 0.5])
    generator.weight = torch.nn.Parameter(torch.zeros(1))
    seeds = next([a, b] for a in range(9) for b in range(9)
                 if draw_latents(generator, 1, rng(a))[0, 2] > draw_latents(generator, 1, rng(b))[0, 2])  # fmt: skip
    labels = torch.cat(list(sample_walk(generator, seeds, 8)))[:, 2:]
    assert labels[:, 0].tolist() == [1, 1, 0, 0, 0, 0, 1, 1]
    assert (torch.cat(list(sample_walk(generator, seeds, 8, label=1)))[:, 3] == 1).all()


def test_a_walk_becomes_a_film_a_strip_a_folder_and_rows(tiny_run, capsys):
    run = load_run(tiny_run)
    walk = run.walk(20, seeds=[4, 1])
    for out in ("walk.gif", "walk.png", "walk.jpg", "walk.npy", "walk/"):
        assert main(["sample", f"run={tiny_run}", "walk=20", "seeds=[4,1]", f"out={out}"]) == 0
    assert np.array_equal(np.load("walk.npy"), walk.numpy())
    with Image.open("walk.gif") as film:
        assert film.n_frames == 20 and film.info["loop"] == 0
    with Image.open("walk.png") as strip, Image.open("walk.jpg") as jpeg:
        assert strip.size == jpeg.size == (16 * 42 - 2, 2 * 42 - 2) and jpeg.format == "JPEG"
        assert np.abs(np.array(strip.convert("RGB"), float) - np.array(jpeg, float)).mean() < 12
    assert len(list(Path("walk").iterdir())) == 20
    assert main(["sample", f"run={tiny_run}", "walk=16", "out=eight.npy"]) == 0
    assert np.allclose(np.load("eight.npy")[::2], torch.cat(list(sample_by_seeds(run.generator, range(8)))), atol=1e-6)


@pytest.mark.parametrize(("frames", "seeds"), [(0, (1, 2)), (2.5, (1, 2)), (3, (1,)), (3, (1, -2))])
def test_a_walk_that_cannot_be_is_refused(tiny_run, frames, seeds):
    with pytest.raises(InputError):
        load_run(tiny_run).walk(frames, seeds=seeds)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["run=nowhere", "out=x.npy"], "There is no folder nowhere"),
        (
            ["out=x.bmp"],
            "out must end in .npy, .png or .jpg, or be a folder such as out=pictures/, not 'x.bmp'",
        ),
        (
            ["out=x.bmp", "walk=9"],
            "out must end in .npy, .png or .jpg, or in .gif for a walk, or be a folder",
        ),
        (["out=x.gif"], "out=x.gif is a film, which needs a walk. Add walk=96"),
        (["out=x.png", "n=9", "seeds=0-3"], "n=9 can't be combined with seeds. Leave out one"),
        (["out=x.png", "n=9", "walk=3"], "n=9 can't be combined with walk. Leave out one"),
        (["out=x.png", "walk=3", "seeds=5"], "A walk needs at least two seeds, not seeds=[5]"),
        (["out=x.png", "walk=0"], "walk must be at least 1, not 0"),
        (["out=nowhere/x.npy"], "there is no folder nowhere. Make it first"),
        (["out=full"], "full exists and is not an empty folder"),
        (["out=full/a.png/"], "full/a.png exists and is not an empty folder"),
        (["out=x.png", "n=4097"], "One picture holds at most 4096 samples, not 4097"),
        (["out=x.npy", "n=0"], "n must be at least 1, not 0"),
        (["out=x.npy", "seeds=5-3"], "seeds can't be read from '5-3'"),
        (["out=x.npy", "seeds=[1,x]"], "seeds can't be read from 'x'"),
        (["out=x.npy", "seeds=[]"], "seeds=[] has no seed"),
        (["out=x.npy", "seeds=0-2147483648"], "seed must be an integer from 0 to 2^31 − 1, not 2147483648"),
        (["out=x.npy", "seed=-1"], "seed must be an integer from 0 to 2^31 − 1, not -1"),
        (["out=x.npy", "device=cuda:99"], "device=cuda:99 is not available"),
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
    assert "Only images can be drawn as a folder of pictures, and " in refused(capsys, f"run={copy}", "out=pictures/")
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
    assert "has no best.pt" in refused(capsys, f"run={copy}", "checkpoint=best", "out=x.npy")
    assert "checkpoint must be one of last, best, not 'first'" in refused(
        capsys, f"run={copy}", "checkpoint=first", "out=x.npy"
    )
