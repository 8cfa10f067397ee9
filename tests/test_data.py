"""Laws of the sample sources: moments, supports, splits, files."""

from __future__ import annotations

import inspect
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from wgan_lip.data import (
    MNIST,
    Checkerboard,
    Digits,
    Gaussians8,
    Gaussians25,
    ImageFolder,
    Moons,
    Source,
    SwissRoll,
    VectorFile,
    import_torchvision,
    named_sources,
    read_samples,
)
from wgan_lip.utils.checks import InputError

TOYS = [Gaussians8, Gaussians25, SwissRoll, Moons, Checkerboard]
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def rng(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(samples: torch.Tensor) -> set[bytes]:
    return {row.tobytes() for row in samples.numpy()}


# --- toy laws ---------------------------------------------------------------------------------------------------------


def toy_moments() -> list:
    """Each law with its covariance in closed form."""
    board = np.array([[4 / 3, 1 / 4], [1 / 4, 4 / 3]])
    moons = np.diag([3 / 4 + 0.01, 9 / 16 - 1 / math.pi + 0.01])
    moons[0, 1] = moons[1, 0] = -(1 / 2) * (2 / math.pi - 1 / 4)  # E[cos t sin t] = 0
    return [
        pytest.param(Gaussians8(radius=2.0, std=0.1), 2.01 * np.eye(2), id="gaussians8"),
        pytest.param(Gaussians25(spacing=0.5, std=0.2), 0.54 * np.eye(2), id="gaussians25"),
        pytest.param(Moons(noise=0.1), moons, id="moons"),
        pytest.param(Checkerboard(), board, id="checkerboard"),
        pytest.param(Checkerboard(half_width=3.0, cells=6), np.array([[3, 1 / 4], [1 / 4, 3]]), id="checkerboard6"),
    ]


@pytest.mark.parametrize("source, covariance", toy_moments())
def test_toy_law_has_mean_zero_and_its_covariance(source, covariance):
    samples = source.sample(200_000, rng()).double().numpy()
    np.testing.assert_allclose(samples.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(np.cov(samples.T), covariance, atol=0.03)


def test_swiss_roll_norm_is_uniform_and_follows_the_angle():
    samples = SwissRoll(radius=3.0, noise=0.0).sample(100_000, rng()).double()
    norm = samples.norm(dim=1)
    assert norm.min() > 1 - 1e-4 and norm.max() < 3 + 1e-4
    quantiles = torch.quantile(norm, torch.tensor([0.25, 0.5, 0.75]).double())
    torch.testing.assert_close(quantiles, torch.tensor([1.5, 2.0, 2.5]).double(), atol=0.02, rtol=0)
    assert norm.square().mean() == pytest.approx(9 * 13 / 27, rel=0.01)
    angle = norm / 3 * 4.5 * math.pi
    unit = torch.stack([angle.cos(), angle.sin()], dim=1)
    torch.testing.assert_close(samples, norm[:, None] * unit, atol=1e-3, rtol=0)


def test_moons_lie_on_two_half_circles():
    x, y = (Moons(noise=0.0).sample(10_000, rng()).double() + torch.tensor([0.5, 0.25])).T
    upper = ((x**2 + y**2 - 1).abs() < 1e-3) & (y > -1e-3)
    lower = (((x - 1) ** 2 + (y - 0.5) ** 2 - 1).abs() < 1e-3) & (y < 0.5 + 1e-3)
    assert bool((upper | lower).all())
    assert float(upper.double().mean()) == pytest.approx(0.5, abs=0.03)


def test_checkerboard_fills_the_dark_squares_alike():
    source = Checkerboard(half_width=1.0, cells=6)
    samples = source.sample(60_000, rng())
    assert source.low <= samples.min() and samples.max() <= source.high
    cell = ((samples.double() + 1) * 3).floor().clamp(0, 5).long()
    counts = torch.bincount(6 * cell[:, 0] + cell[:, 1], minlength=36).reshape(6, 6)
    dark = (torch.arange(6)[:, None] + torch.arange(6)) % 2 == 0
    assert counts[~dark].sum() <= 2  # float32 may round a point onto an edge
    assert (counts[dark] - 60_000 / 18).abs().max() < 5 * math.sqrt(60_000 / 18)


@pytest.mark.parametrize("source", [Gaussians8(), Gaussians25()], ids=lambda source: source.name)
def test_mixture_components_are_equally_likely_and_have_their_std(source):
    k = len(source.modes)
    samples = source.sample(50_000, rng())
    nearest = torch.cdist(samples, source.modes).argmin(dim=1)
    counts = torch.bincount(nearest, minlength=k)
    assert (counts - 50_000 / k).abs().max() < 5 * math.sqrt(50_000 / k)
    assert float((samples - source.modes[nearest]).std()) == pytest.approx(source.mode_std, rel=0.02)


@pytest.mark.parametrize("toy", TOYS)
def test_toy_draws_are_float32_rows_fixed_by_the_generator(toy):
    source = toy(test_size=50)
    samples = source.sample(7, rng())
    assert samples.dtype == torch.float32 and samples.shape == (7, source.dim) and source.test.shape == (50, 2)
    assert torch.equal(samples, source.sample(7, rng())) and not torch.equal(samples, source.sample(7, rng(2)))
    assert torch.equal(source.test, toy(test_size=50).test) and not torch.equal(source.test, toy(seed=1).test[:50])
    assert float(source.sample(5000, rng()).std()) == pytest.approx(1.0, abs=0.35)  # roughly unit scale


@pytest.mark.parametrize("toy", TOYS)
def test_toy_training_test_and_reference_never_meet(toy):
    source = toy(test_size=500, seed=3)
    held, real = rows(source.test), rows(source.reference(500, seed=3))
    assert not held & real
    assert not (held | real) & rows(source.sample(500, rng(3)))
    assert torch.equal(source.reference(20, 3), source.reference(20, 3))


# --- every source -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [*(kind for kind in named_sources().values() if kind.__module__.startswith("wgan_lip.")), VectorFile, ImageFolder],
)
def test_constructor_is_configurable(source):
    parameters = inspect.signature(source).parameters.values()
    for parameter in parameters:
        assert parameter.annotation in (
            *("int", "int | None", "float", "float | None", "str", "bool", "str | None", "bool | None"),
            *("bool | int | str | None", "Sequence[int | str] | None"),
        )
        assert f"{parameter.name}" in source.__doc__
    assert named_sources().get(source.name, source) is source and issubclass(source, Source)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Gaussians8(std=0.0), "std must be positive and finite, not 0.0."),
        (lambda: Gaussians8(radius=math.nan), "radius must be positive"),
        (lambda: Gaussians25(spacing=-1.0), "spacing must be positive"),
        (lambda: SwissRoll(noise=math.inf), "noise must be positive or zero and finite, not inf."),
        (lambda: Moons(noise=-0.1), "noise must be positive or zero"),
        (lambda: Moons(test_size=0), "test_size must be positive"),
        (lambda: Moons(seed=-1), "seed must be at least 0, not -1."),
        (lambda: Checkerboard(cells=5), "cells must be even, not 5. Use 6."),
        (lambda: Moons(test_size=5).reference(0, 0), "n must be positive"),
        (lambda: Digits(test_size=1797), "test_size must be between 1 and 1796"),
        (lambda: Digits().reference(1298, 0), "n must be between 1 and 1297"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert message in str(caught.value)


# --- images -----------------------------------------------------------------------------------------------------------


def test_digits_split_covers_the_set_without_overlap():
    source = Digits(test_size=500, seed=0)
    assert source.train.shape == (1297, 64) and source.test.shape == (500, 64)
    assert source.dim == math.prod(source.image_shape)
    assert not rows(source.train) & rows(source.test)  # the set holds no image twice
    assert source.train.min() == source.low == 0 and source.train.max() == source.high == 1
    labels = torch.cat([source.train_labels, source.test_labels])
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert torch.equal(Digits(seed=0).test, source.test) and not torch.equal(Digits(seed=1).test, source.test)


def test_finite_source_samples_its_train_rows():
    source = Digits()
    samples = source.sample(5000, rng())
    assert samples.dtype == torch.float32 and rows(samples) <= rows(source.train)
    assert len(rows(samples)) == pytest.approx(1297 * (1 - math.exp(-5000 / 1297)), rel=0.02)  # with replacement
    everything = source.reference(1297, seed=5)
    assert rows(everything) == rows(source.train) and not torch.equal(everything, source.train)
    assert torch.equal(source.reference(10, 5), everything[:10])


def test_source_moves_to_a_device():
    digits, moons = Digits().to("meta"), Moons().to("meta")
    assert digits.train.device.type == "meta" and digits.test.device.type == "cpu"
    assert digits.sample(3, rng()).device.type == moons.sample(3, rng()).device.type == "meta"


def write_idx(folder: Path, n_train: int = 12, n_test: int = 6) -> Path:
    """A folder in MNIST's form: image i of a split has all its pixels at i, and label i mod 10."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, n in (("train", n_train), ("t10k", n_test)):
        value = np.arange(n, dtype=np.uint8)
        images = np.broadcast_to(value[:, None, None], (n, 28, 28))
        head = np.array([0x0803, n, 28, 28], dtype=">u4").tobytes()
        (raw / f"{split}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = np.array([0x0801, n], dtype=">u4").tobytes()
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(head + (value % 10).tobytes())
    return folder


def test_mnist_reads_idx_files_that_are_there(tmp_path):
    source = MNIST(str(write_idx(tmp_path)), test_size=4)
    expected = torch.arange(12.0)[:, None].expand(12, 784) / 255
    assert torch.equal(source.train, expected) and source.dim == 784
    assert torch.equal((source.test[:, 0] * 255).round().long(), source.test_labels)
    assert source.train_labels.tolist() == [*range(10), 0, 1] and len(rows(source.test)) == 4


def test_mnist_refusals_name_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"MNIST can't be read from .*raw: .*Put its four idx files .*download=true"):
        MNIST(str(tmp_path), download=False)

    def offline(self):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried a mirror, got:\nno network")

    monkeypatch.setattr(import_torchvision().datasets.MNIST, "download", offline)
    with pytest.raises(InputError, match=r"RuntimeError: Error downloading .*\. Put its four idx") as caught:
        MNIST(str(tmp_path))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="test_size must be between 1 and 6.*not 7"):
        MNIST(str(write_idx(tmp_path)), test_size=7, download=False)
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03\0\0")
    with pytest.raises(InputError, match="MNIST can't be read from"):
        MNIST(str(tmp_path), download=False)
    head = np.array([0x0803, 12, 14, 14], dtype=">u4").tobytes()  # whole, yet images of another size
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").write_bytes(head + bytes(12 * 14 * 14))
    with pytest.raises(InputError, match="MNIST can't be read from"):
        MNIST(str(tmp_path), download=False)


@pytest.mark.skipif(not (SHARED_DATA / "MNIST").is_dir(), reason="no MNIST folder beside the repository")
def test_mnist_itself():
    source = MNIST(str(SHARED_DATA), download=False)
    assert source.train.shape == (60_000, 784) and source.test.shape == (2000, 784)
    assert source.train_labels.bincount()[:3].tolist() == [5923, 6742, 5958]
    assert float(source.train.mean()) == pytest.approx(0.1307, abs=1e-4)
    assert source.train.min() == 0 and source.train.max() == 1


# --- files ------------------------------------------------------------------------------------------------------------

MATRIX = np.array([[1.5, -2.0, 3e-7], [0.0, 4.25, 5.0], [6.0, 7.0, -8.125], [9.0, 1e6, 0.1]])


def write(path: Path, matrix: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, matrix)
    elif path.suffix == ".npz":
        np.savez(path, points=matrix)
    elif path.suffix == ".pt":
        torch.save(torch.from_numpy(matrix), path)
    else:
        np.savetxt(path, matrix, delimiter={".csv": ",", ".tsv": "\t"}[path.suffix], fmt="%.17g")
    return path


@pytest.mark.parametrize("ending", [".npy", ".npz", ".pt", ".csv", ".tsv"])
def test_file_round_trip_keeps_every_digit(tmp_path, ending):
    samples = read_samples(write(tmp_path / f"points{ending}", MATRIX))
    assert samples.dtype == torch.float64 and np.array_equal(samples.numpy(), MATRIX)


@pytest.mark.parametrize("ending", [".npy", ".npz", ".pt"])
@pytest.mark.parametrize("dtype, read", [("f4", "float32"), ("f2", "float32"), ("i4", "float64"), ("u1", "float64")])
def test_file_dtype(tmp_path, ending, dtype, read):
    samples = read_samples(write(tmp_path / f"points{ending}", np.ones((3, 2), dtype=dtype)))
    assert samples.dtype == getattr(torch, read) and bool((samples == 1).all())


def test_arrays_of_foreign_byte_order_or_layout(tmp_path):
    for array in (MATRIX.astype(">f8"), np.asfortranarray(MATRIX)):
        assert np.array_equal(read_samples(write(tmp_path / "a.npy", array)).numpy(), MATRIX)


def test_keys_choose_among_arrays(tmp_path):
    np.savez(tmp_path / "two.npz", x=MATRIX, y=MATRIX + 1)
    torch.save({"x": torch.from_numpy(MATRIX), "y": torch.from_numpy(MATRIX + 1)}, tmp_path / "two.pt")
    torch.save({"only": torch.from_numpy(MATRIX)}, tmp_path / "one.pt")
    for name in ("two.npz", "two.pt"):
        assert np.array_equal(read_samples(tmp_path / name, key="y").numpy(), MATRIX + 1)
        with pytest.raises(InputError, match="holds 2 arrays. Choose one by its key: x, y"):
            read_samples(tmp_path / name)
        with pytest.raises(InputError, match="has no array key='z'. Its keys: x, y"):
            read_samples(tmp_path / name, key="z")
    assert np.array_equal(read_samples(tmp_path / "one.pt").numpy(), MATRIX)
    with pytest.raises(InputError, match="does not take key="):
        read_samples(write(tmp_path / "a.npy", MATRIX), key="x")


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n3,4",
        "1,2\n3,4\n",
        "1,2\n\n3,4",
        "\ufeffa,b\r\n1,2\r\n3,4\r\n",
        '"a","b"\n"1","2"\n3,4\n',
        " 1, 2\n3,4\n",
    ],
)
def test_tables_with_and_without_header(tmp_path, text):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    assert read_samples(tmp_path / "t.csv").tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    "text, message",
    [
        ("a,name\n1,x\n", "has 'x' in column 2 (name), line 2."),
        ("name,a\n\nx,1\n", "has 'x' in column 1 (name), line 3."),
        ("1,2,oops\n3,4,5\n", "has 'oops' in column 3, line 1."),
        ("1,2\n3,\n", "has '' in column 2, line 2."),
        ("1,2\n3\n", "has 1 columns in line 2, 2 above it."),
        ("a,b\n1,2\na,b\n3,4\n", "has 'a' in column 1 (a), line 3."),
        ("1:2\n3:4\n", "has '3:4' in column 1 (1:2), line 2."),
        ("a,b\n", "at least one sample"),
        ("", "at least one sample"),
        ("1,nan\n1,2\n", "the first of them row 0"),
        ("1,2\n3,inf\n", "the first of them row 1"),
    ],
)
def test_bad_tables_are_refused_with_the_place(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_samples(tmp_path / "t.csv")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "array, message",
    [
        (np.ones((4, 2, 2, 2, 2)), "Flatten each sample into one row."),
        (np.float64(1), "shape (n, d), not ()"),
        (np.ones((0, 3)), "at least one sample"),
        (np.ones((3, 0)), "at least one column"),
        (np.array([[1.0], [np.nan]]), "the first of them row 1"),
        (np.array([["a"]]), "must hold real numbers"),
        (np.ones((2, 2), dtype=complex), "must hold real numbers"),
        (np.ones((2, 2), dtype=bool), "must hold real numbers"),
        (np.array([[1, None]], dtype=object), "Object arrays cannot be loaded"),
    ],
)
@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_bad_arrays_are_refused(tmp_path, array, message, ending):
    with pytest.raises(InputError) as caught:
        read_samples(write(tmp_path / f"a{ending}", array))
    assert message in str(caught.value)


class Evil:
    """Unpickling it sets a mark."""

    ran = False

    def __reduce__(self):
        return setattr, (Evil, "ran", True)


def test_nothing_in_a_file_is_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[Evil()]], dtype=object))
    np.savez(tmp_path / "a.npz", np.array([[Evil()]], dtype=object))
    torch.save({"x": Evil()}, tmp_path / "a.pt")
    for name in ("b.npy", "b.npz", "b.pt", "b.csv"):
        (tmp_path / name).write_bytes(pickle.dumps(Evil()))
    for path in tmp_path.iterdir():
        with pytest.raises(InputError):
            read_samples(path)
    assert not Evil.ran


@pytest.mark.parametrize("ending", [".npy", ".npz", ".pt", ".csv"])
def test_truncated_empty_or_foreign_files_are_refused(tmp_path, ending):
    whole = write(tmp_path / f"a{ending}", MATRIX).read_bytes()
    foreign = write(tmp_path / ("b.npy" if ending != ".npy" else "b.npz"), MATRIX).read_bytes()
    cut = len(whole) - 40 if ending == ".npy" else whole.rindex(b",") if ending == ".csv" else len(whole) // 2
    for content in (whole[:cut], b"", foreign, np.random.default_rng(0).bytes(300)):
        (tmp_path / f"c{ending}").write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_samples(tmp_path / f"c{ending}")
        assert "\n" not in str(caught.value) and f"c{ending}" in str(caught.value)


def test_paths_that_are_no_file_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"There is no file .*gone\.npy\. Check the path"):
        read_samples(tmp_path / "gone.npy")
    with pytest.raises(InputError, match="is a folder. Name a file"):
        read_samples(tmp_path)
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(InputError, match=r"one of \.npy, \.npz, \.pt, \.csv, .* \.parquet, \.h5ad, not '\.xlsx'"):
        read_samples(tmp_path / "a.xlsx")

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "a.npy", MATRIX)
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(InputError, match="Permission denied. Check its permissions"):
        read_samples(path)


@pytest.mark.parametrize(
    "content, message",
    [
        ([torch.ones(2, 2)], "must hold a tensor, not a list"),
        ({"x": 3.0}, "must hold a tensor, not a float"),
        (torch.eye(2).to_sparse(), "must be a dense tensor"),
        (torch.ones(2, 2, dtype=torch.complex64), "must hold real numbers"),
    ],
)
def test_bad_tensors_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError) as caught:
        read_samples(tmp_path / "a.pt")
    assert message in str(caught.value)


def test_vector_file_splits_its_rows(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(50.0)[:, None] * np.ones(3))
    source = VectorFile(str(path), test_fraction=0.3, seed=2)
    assert source.dim == 3 and source.train.dtype == torch.float32
    assert len(source.test) == 15 and len(source.train) == 35
    assert sorted([*source.test[:, 0].tolist(), *source.train[:, 0].tolist()]) == list(range(50))
    assert torch.equal(source.test, VectorFile(str(path), test_fraction=0.3, seed=2).test)
    assert len(VectorFile(str(path), test_fraction=1e-6).test) == 1


def test_vector_file_refusals(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((1, 3)))
    with pytest.raises(InputError, match="[Aa]t least 2 samples.* 1"):
        VectorFile(str(path))
    with pytest.raises(InputError, match="test_fraction must be between 0 and 1, not 1.0"):
        VectorFile(str(path), test_fraction=1.0)
    np.save(path, np.full((3, 3), 1e39))
    with pytest.raises(InputError, match=r"values above 3\.4e\+38"):
        VectorFile(str(path))
    np.save(path, np.ones((3, 3)))
    with pytest.raises(InputError, match="test_size must be between 1 and 2 for 3 samples, not 3"):
        VectorFile(str(path), test_fraction=0.9)
