"""The user's own tensors and loaders as sources: equal rows, equal order, and a state that goes on exactly."""

from __future__ import annotations

import copy
import re
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset

from wgan_lip.critics import ResNetCritic
from wgan_lip.data import LoaderSource, TensorSource, VectorFile
from wgan_lip.generators import MLPGenerator
from wgan_lip.training import Training, train_wgan
from wgan_lip.utils.checks import InputError

ROWS = torch.arange(40.0).reshape(20, 2)
TEST = torch.full((7, 2), -1.0)


class Noisy(Dataset):
    """Each item is its number with torch's noise on top, as a random transform adds it."""

    def __len__(self):
        return 23

    def __getitem__(self, number):
        return torch.tensor([float(number), float(torch.rand(()))]), number % 3


class Endless(IterableDataset):
    def __iter__(self):
        return iter(ROWS)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def as_set(rows):
    return {tuple(row) for row in rows.tolist()}


def test_tensors_are_split_and_keep_their_rows():
    source = TensorSource(ROWS.double().numpy(), low=0.0, high=39.0, units="a metre", seed=3)
    assert (source.dim, source.low, source.high, source.units) == (2, 0.0, 39.0, "a metre")
    assert source.test.dtype == source.train.dtype == torch.float32 and len(source.test) == 4
    assert as_set(source.train) | as_set(source.test) == as_set(ROWS) and not as_set(source.train) & as_set(source.test)
    assert as_set(source.sample(300, rng())) == as_set(source.train)
    given = TensorSource(ROWS, TEST)
    assert torch.equal(given.train, ROWS) and torch.equal(given.test, TEST)


def test_pixels_are_scaled_and_keep_their_shape():
    pixels = torch.randint(256, (10, 3, 4, 4), dtype=torch.uint8)
    source = TensorSource(pixels, pixels[:2])
    assert (source.image_shape, source.dim, source.low, source.high) == ((3, 4, 4), 48, 0.0, 1.0)
    assert torch.equal(source.train, pixels.flatten(1).float() / 255)
    loaded = LoaderSource(DataLoader(pixels, batch_size=4), DataLoader(pixels, batch_size=3), test_size=5)
    assert (loaded.image_shape, loaded.low, loaded.high, loaded.test.shape) == ((3, 4, 4), 0.0, 1.0, (5, 48))
    assert torch.equal(loaded.sample(10, rng()), source.train)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.array([[1.0, np.nan]] * 3),), "samples must be finite"),
        ((torch.tensor(5.0),), "shape (n, d), not ()"),
        ((np.ma.masked_equal(np.arange(8.0).reshape(4, 2), 5),), "samples must not have masked entries"),
        ((torch.ones(5, 2, 2, 2, 2),), "Flatten each sample into one row"),
        (
            (torch.ones(5, 4, 3),),
            "The shape of samples, (5, 4, 3), does not show which axis holds the channels. Give layout, one of",
        ),
        (
            (torch.ones(5, 3, 4, 3),),
            "The shape of samples, (5, 3, 4, 3), does not show which axis holds the channels. Give layout, one of nchw, nhwc, nhw.",
        ),
        ((torch.ones(1, 2),), "at least 2 samples, not 1"),
        ((ROWS, torch.ones(3, 4)), "held-out samples must have shape 2, as the training samples do, not 4"),
        (
            (torch.ones(4, 1, 2, 2), torch.ones(3, 4)),
            "held-out samples must have shape (1, 2, 2), as the training samples do, not 4",
        ),
    ],
)
def test_tensors_that_make_no_source_are_refused(arguments, message):
    with pytest.raises(InputError) as caught:
        TensorSource(*arguments)
    assert message in str(caught.value)
    with pytest.raises(InputError, match="test_fraction must be between 0 and 1, not 1.5"):
        TensorSource(ROWS, test_fraction=1.5)


@pytest.mark.parametrize("as_given", [torch.from_numpy, np.array])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64, ">f4"])
@pytest.mark.parametrize("channels, h, w", [(3, 4, 5), (1, 4, 5), (3, 6, 6), (2, 5, 5), (7, 4, 4), (1, 1, 2)])
def test_images_are_the_same_rows_in_every_layout(channels, h, w, dtype, as_given):
    if as_given is torch.from_numpy and dtype == ">f4":
        pytest.skip("torch has no foreign byte order")
    images = np.random.default_rng(0).integers(0, 256, (10, channels, h, w)).astype(dtype)
    expected = torch.from_numpy(images.reshape(10, -1).astype(np.float32)) / (255 if dtype == np.uint8 else 1)
    last = images.transpose(0, 2, 3, 1)
    given = {"nchw": images, "nhwc": last, "nhw": images[:, 0]} if channels == 1 else {"nchw": images, "nhwc": last}
    for layout, array in given.items():
        tensor = as_given(array.copy()) if as_given is torch.from_numpy else array[::-1].copy()[::-1]  # other strides
        unclear = (channels, h, w) == (1, 1, 2) and layout != "nhw"
        for told in (layout,) if unclear else (layout, None):
            source = TensorSource(tensor, tensor[:3], layout=told)
            assert source.image_shape == (channels, h, w)
            assert torch.equal(source.train, expected) and torch.equal(source.test, expected[:3])
        loaded = LoaderSource([tensor[:4], tensor[4:]], tensor[:3], layout=layout)
        assert loaded.image_shape == (channels, h, w)
        assert torch.equal(loaded.sample(10, rng()), expected)


@pytest.mark.parametrize("shape", [(5, 3, 4, 1), (5, 1, 1, 1), (5, 4, 6, 8), (5, 3, 3, 3), (5, 8, 3), (5, 8, 1)])
def test_a_shape_that_tells_no_layout_is_asked_for_one(shape):
    with pytest.raises(InputError, match=r"Give layout, one of nchw, nhwc, nhw\.$"):
        TensorSource(torch.rand(shape))
    layouts = {"nhw": (1, *shape[1:])} if len(shape) == 3 else {"nchw": shape[1:], "nhwc": (shape[3], *shape[1:3])}
    for layout, expected in layouts.items():
        assert TensorSource(torch.rand(shape), layout=layout).image_shape == expected
    with pytest.raises(InputError, match="layout=nhw means 3 axes"):
        TensorSource(torch.rand(5, 2), layout="nhw")
    with pytest.raises(InputError, match="layout must be one of nchw, nhwc, nhw, not 'hwc'"):
        TensorSource(torch.rand(shape), layout="hwc")


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


LOST = {
    "far from 0": (1e8 + normal(200, 4), 1, 200, "Subtract each column's median"),
    "seconds since 1970": (1.7e9 + np.arange(1000.0)[:, None], 9, 1000, "Subtract each column's median"),
    "one column of two": (
        np.c_[1e6 * normal(300, 1), 1e8 + normal(300, 1)],
        None,
        300,
        "Subtract each column's median",
    ),
    "below the smallest float32": (1e-50 * normal(100, 1), 1, 100, "Rescale it"),
    "around 1": (1 + 1e-9 * normal(100, 1), 1, 100, "Subtract each column's median"),
    "whole numbers": (2**40 + np.arange(50)[:, None], 1, 50, "Subtract each column's median"),
}


@pytest.mark.parametrize("name", LOST)
def test_numbers_that_float32_would_merge_are_refused_with_a_remedy_that_works(tmp_path, name):
    rows, after, before, remedy = LOST[name]
    np.save(tmp_path / "x.npy", rows)
    for build in (
        lambda rows: TensorSource(rows),
        lambda rows: TensorSource(torch.from_numpy(rows), torch.from_numpy(rows)),
        lambda rows: LoaderSource([rows] * 2, rows),
        lambda rows: np.save(tmp_path / "x.npy", rows) or VectorFile(str(tmp_path / "x.npy")),
    ):
        with pytest.raises(InputError) as caught:
            build(rows)
        message = str(caught.value)
        assert remedy in message and f"{before} different values become" in message
        if after is not None:
            assert f"{before} different values become {after}," in message
            assert f"{before - after} of {before} different rows become equal to others" in message
        centred = (rows - np.median(rows, axis=0)) * (1e50 if remedy.startswith("Rescale") else 1.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the scales
            assert len(np.unique(build(centred).test.numpy(), axis=0)) > 1


@pytest.mark.parametrize(
    "rows",
    [normal(500, 3), 300 + normal(500, 3), np.full((20, 2), 1e8 + 0.3), np.c_[normal(50, 1), np.full(50, 1e9 + 0.5)],
     np.where(normal(400, 2) > 1, 1e20, normal(400, 2)), np.arange(60)[:, None], normal(30, 2).astype(np.float32) + 1e8],
)  # fmt: skip
def test_numbers_that_float32_keeps_apart_pass_in_silence(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("default", "Column ")
        source = TensorSource(rows)
    kept = np.concatenate([source.train.numpy(), source.test.numpy()])
    assert len(np.unique(kept, axis=0)) == len(np.unique(rows, axis=0))


def test_rows_that_merge_far_from_most_others_are_counted():
    """Half of them lie 10¹⁰ off: rounding moves none by a thousandth of the spread, and yet that half is one point."""
    rows = np.concatenate([normal(500, 2), 1e10 + normal(500, 2)])
    with pytest.warns(UserWarning, match="499 of 1000 different rows become equal to others in samples"):
        TensorSource(rows)


def test_columns_of_scales_far_apart_are_warned_of(tmp_path):
    rows = np.c_[normal(100, 1), np.full(100, 7.0), 1e5 * normal(100, 1)]
    ranges = rows.max(axis=0) - rows.min(axis=0)
    expected = f"Column 3 of {{}} ranges over {ranges[2]:.2g}, but column 1 only over {ranges[0]:.2g}, so"
    np.save(tmp_path / "x.npy", rows)
    for name, build in {
        "samples": lambda: TensorSource(rows),
        "test": lambda: LoaderSource([rows], rows),
        str(tmp_path / "x.npy"): lambda: VectorFile(str(tmp_path / "x.npy")),
    }.items():
        with pytest.warns(UserWarning, match=re.escape(expected.format(name))):
            build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TensorSource(rows / rows.std(axis=0).clip(1e-9))
        TensorSource(rows[:, :2])
        TensorSource(np.c_[rows, rows[:, ::-1]].reshape(100, 3, 1, 2))  # images: a pixel may hardly ever change


@pytest.mark.parametrize("batch", [1, 6, 20, 33])
def test_a_pass_of_the_loader_hands_out_every_row_once_whatever_is_asked_for(batch):
    source = LoaderSource(DataLoader(TensorDataset(ROWS), batch_size=6, shuffle=True), TEST)
    generator = rng()
    rows = torch.cat([source.sample(batch, generator) for _ in range(20)])
    passes = [as_set(part) for part in rows.split(20)]
    assert passes and all(part == as_set(ROWS) for part in passes)
    if len(passes) > 1:
        assert not torch.equal(rows[:20], rows[20:40])  # shuffled anew


LOADERS = {
    "shuffled": lambda: DataLoader(Noisy(), batch_size=5, shuffle=True),
    "generator of its own": lambda: DataLoader(Noisy(), batch_size=5, shuffle=True, generator=rng(8), drop_last=True),
    "subset": lambda: DataLoader(Noisy(), batch_size=4, sampler=SubsetRandomSampler(range(3, 20))),
    "workers": lambda: DataLoader(Noisy(), batch_size=5, shuffle=True, num_workers=1),
    "stream": lambda: DataLoader(Endless(), batch_size=3),
    "list": lambda: [ROWS[:8], [ROWS[8:], None]],
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_state_goes_on_row_by_row_and_reference_samples_disturb_nothing(name):
    torch.manual_seed(5)
    source, generator = LoaderSource(LOADERS[name](), TEST), rng(1)
    source.sample(31, generator)  # one pass and a part of another
    state, position = copy.deepcopy(source.state_dict()), generator.get_state()
    torch.manual_seed(6)
    first = source.sample(19, generator)
    floor = source.reference(9, seed=4)
    rest = source.sample(40, generator)
    other = LoaderSource(LOADERS[name](), TEST)
    other.load_state_dict(state)
    generator.set_state(position)
    torch.manual_seed(6)
    assert torch.equal(other.sample(19, generator), first)
    assert torch.equal(other.reference(9, seed=4), floor) and len(as_set(floor)) == 9
    assert torch.equal(other.sample(40, generator), rest)


def test_a_game_on_a_loader_goes_on_bit_by_bit():
    def play(steps, state=None):
        torch.manual_seed(0)
        source = LoaderSource(DataLoader(TensorDataset(ROWS / 20), batch_size=6, shuffle=True), ROWS[:6] / 20)
        critic, generator = ResNetCritic(2, width=8, depth=1), MLPGenerator(2, latent_dim=2, width=8)
        records = train_wgan(
            source, generator, critic,
            Training(steps=6, batch_size=7, critic_steps=2, warmup_steps=2, log_every=2, audit_every=6, audit_size=6,
                     audit_refits=0),
            critic_optimizer=torch.optim.Adam(critic.parameters()),
            generator_optimizer=torch.optim.Adam(generator.parameters()), state=state,
        )  # fmt: skip
        for record in records:
            if record.step == steps:
                return copy.deepcopy(record.game.state_dict())

    whole, resumed = play(6), play(6, state=play(4))
    assert whole["source"]["passes"] > 3
    for part in ("generator", "critic", "source"):
        for name, value in whole[part].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(resumed[part][name])), name


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (iter([ROWS]), "loader must allow any number of passes, as a DataLoader or a list of batches does, and a list_iterator"),
        (3, "loader must allow any number of passes"),
        ([], "loader yielded no batch"),
        (DataLoader(ROWS, batch_size=50, drop_last=True), "yielded no batch. Lower its batch_size"),
        ([{"pixels": ROWS}], "is a dict (TypeError: dict is not a tensor). Say by pick= which part of it to use"),
        ([torch.ones(3, 5)], "held-out samples must have shape 5, as the training samples do, not 2"),
        ([torch.full((3, 2), torch.nan)], "a batch of loader must be finite"),
        (DataLoader(ROWS, num_workers=1, persistent_workers=True), "Use persistent_workers=False"),
    ],
)  # fmt: skip
def test_loaders_that_make_no_source_are_refused(loader, message):
    with pytest.raises(InputError) as caught:
        LoaderSource(loader, TEST)
    assert message in str(caught.value)


def test_a_part_of_a_batch_can_be_picked_and_a_pass_has_an_end():
    source = LoaderSource([{"pixels": ROWS}], TEST, pick=lambda batch: batch["pixels"])
    assert torch.equal(source.sample(20, rng()), ROWS)
    assert torch.equal(source.reference(20, seed=0), ROWS)
    for n in (0, 21):
        with pytest.raises(InputError, match=f"not {n}"):
            source.reference(n, seed=0)
    with pytest.raises(InputError, match="is not that of a LoaderSource"):
        source.load_state_dict({"seed": 3})
    source.load_state_dict({**source.state_dict(), "taken": 9})
    with pytest.raises(InputError, match="ended after 1 batches, but 9 were used"):
        source.sample(1, rng())
