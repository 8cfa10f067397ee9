"""Laws of image sets: bytes and their scale, augmentation, torchvision's sets, folders and what is wrong with them."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image

from wgan_lip.cli import main
from wgan_lip.data import (
    CIFAR10,
    CelebA,
    FakeImages,
    FashionMNIST,
    FiniteSource,
    ImageFolder,
    ImageSource,
    check_shapes,
    import_torchvision,
    open_samples,
)
from wgan_lip.data.folders import load_pixels, read_pixels
from wgan_lip.runs.run import Run
from wgan_lip.utils.checks import InputError

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def rng(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(n: int, shape=(1, 4, 5)) -> torch.Tensor:
    """Images of bytes that differ in every pixel, shape (n, c, h, w)."""
    return torch.randint(256, (n, *shape), dtype=torch.uint8, generator=rng(n))


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_bytes_stay_bytes_and_are_handed_out_between_0_and_1():
    source = FiniteSource(torch.tensor([[0, 255], [51, 102]], dtype=torch.uint8), torch.tensor([[255, 0]]).byte())
    assert source._stored.dtype == torch.uint8 and (source.size, source.dim) == (2, 2)
    expected = torch.tensor([[0.0, 1.0], [0.2, 0.4]])
    assert torch.equal(source.train, expected) and torch.equal(source.test, torch.tensor([[1.0, 0.0]]))
    assert torch.equal(source.reference(2, 0).sort(0).values, expected.sort(0).values)
    drawn = source.sample(100, rng())
    assert {tuple(row) for row in drawn.tolist()} == {tuple(row) for row in expected.tolist()}


def test_samples_in_other_types_are_handed_out_as_they_are():
    train = torch.randn(3, 2, dtype=torch.float64)
    source = FiniteSource(train, train)
    assert source.train is train and source.sample(4, rng()).dtype == torch.float64


# --- augmentation -----------------------------------------------------------------------------------------------------


def test_augmentation_is_off_by_default_and_then_draws_no_number():
    source, generator = ImageSource(numbered(6), numbered(3)), rng()
    rows = torch.randint(6, (50,), generator=rng())
    assert torch.equal(source.sample(50, generator), source.train[rows])


def test_flip_mirrors_about_half_of_the_draws_left_to_right():
    images = numbered(1, (3, 4, 5))
    source = ImageSource(images, images, flip=True)
    drawn = source.sample(2000, rng()).view(-1, 3, 4, 5)
    image = images[0].float() / 255
    mirrored = (drawn == image.flip(2)).flatten(1).all(1)
    assert ((drawn == image).flatten(1).all(1) ^ mirrored).all()
    assert abs(mirrored.double().mean() - 0.5) < 5 * 0.5 / 2000**0.5


def test_shift_moves_by_up_to_its_pixels_and_repeats_the_border():
    images = numbered(1, (2, 4, 5))
    drawn = ImageSource(images, images, shift=1).sample(900, rng())
    image = np.pad(images[0].numpy(), ((0, 0), (1, 1), (1, 1)), mode="edge") / np.float32(255)
    moved = [image[:, i : i + 4, j : j + 5].ravel() for i in range(3) for j in range(3)]
    counts = [(drawn.numpy() == one).all(axis=1).sum() for one in moved]
    assert sum(counts) == 900 and min(counts) > 60


def test_references_and_tests_are_never_augmented():
    images = numbered(8)
    plain, augmented = ImageSource(images, images), ImageSource(images, images, flip=True, shift=2)
    assert torch.equal(plain.reference(8, 3), augmented.reference(8, 3)) and torch.equal(plain.test, augmented.test)
    assert torch.equal(plain.train, augmented.train)


def test_augmented_draws_follow_the_generator():
    images = numbered(8)
    source = ImageSource(images, images, flip=True, shift=2)
    assert torch.equal(source.sample(20, rng(5)), source.sample(20, rng(5)))
    assert not torch.equal(source.sample(20, rng(5)), source.sample(20, rng(6)))


@pytest.mark.parametrize("shift", [-1, 4])
def test_a_shift_beyond_the_image_is_refused(shift):
    with pytest.raises(
        InputError, match=rf"shift must be at least 0 and smaller than the images, \(1, 4, 5\), not {shift}"
    ):
        ImageSource(numbered(2), numbered(2), shift=shift)


def test_fake_images_are_uniform_bytes_of_any_shape_fixed_by_the_seed():
    source = FakeImages(channels=2, height=5, width=7, count=300, test_size=20, label_count=4, seed=3)
    assert source.image_shape == (2, 5, 7) and source.train.shape == (300, 70) and source.test.shape == (20, 70)
    assert abs(float(source.train.mean()) - 0.5) < 0.02 and source.train.max() == 1 and source.train.min() == 0
    assert source.train_labels.unique().tolist() == [0, 1, 2, 3] and len(source.test_labels) == 20
    again = FakeImages(channels=2, height=5, width=7, count=300, test_size=20, label_count=4, seed=3)
    assert torch.equal(source.train, again.train) and not torch.equal(source.test[0], source.train[0])


# --- torchvision's sets -----------------------------------------------------------------------------------------------


def test_fashion_mnist_reads_its_own_folder(tmp_path):
    from test_data import write_idx

    write_idx(tmp_path).joinpath("MNIST").rename(tmp_path / "FashionMNIST")
    source = FashionMNIST(str(tmp_path), test_size=None)
    assert source.train.shape == (12, 784) and len(source.test) == 6 and source.size == 12
    with pytest.raises(
        InputError, match=r"FashionMNIST can't be read from .*FashionMNIST/raw: .* four idx files there or set"
    ):
        FashionMNIST(str(tmp_path / "elsewhere"), download=False)


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Two training batches and one test batch of 10 images in CIFAR-10's form, with their MD5 sums made known."""
    cifar = import_torchvision().datasets.CIFAR10
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    bytes_ = np.random.default_rng(0).integers(256, size=(3, 10, 3072), dtype=np.uint8)
    sums = {}
    for name, data in zip(("data_batch_1", "data_batch_2", "test_batch"), bytes_):
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": list(range(10))}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    monkeypatch.setattr(cifar, "train_list", [[f"data_batch_{i}", sums[f"data_batch_{i}"]] for i in (1, 2)])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": sums["batches.meta"]})
    return bytes_


def test_cifar10_reads_its_batches_as_colours_rows_columns(tmp_path, monkeypatch):
    raw = write_cifar(tmp_path, monkeypatch)
    source = CIFAR10(str(tmp_path), download=False, test_size=None)
    assert source.image_shape == (3, 32, 32) and source.classes == tuple("abcdefghij")
    assert np.array_equal((source.train.numpy() * 255).round(), raw[:2].reshape(20, 3072))
    order = source.test_labels.argsort()
    assert np.array_equal((source.test[order].numpy() * 255).round(), raw[2])
    assert source.train_labels.tolist() == [*range(10), *range(10)]


def test_a_pickle_with_another_sum_is_not_opened(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch)

    class Evil:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="CIFAR10 can't be read from .*cifar-10-batches-py: RuntimeError"):
        CIFAR10(str(tmp_path), download=False)
    assert not (tmp_path / "ran").exists()


def test_the_download_is_torchvisions_and_its_failure_is_told(tmp_path, monkeypatch):
    asked = []

    def offline(self):
        asked.append(self.root)
        raise RuntimeError("no network")

    datasets = import_torchvision().datasets
    for kind in (CIFAR10, CelebA, FashionMNIST):
        monkeypatch.setattr(getattr(datasets, kind.__name__), "download", offline)
        with pytest.raises(
            InputError, match=f"{kind.__name__} can't be read from .*RuntimeError: no network. Put .* there.$"
        ):
            kind(str(tmp_path))
    assert asked == [str(tmp_path)] * 3


def write_celeba(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five images of 20 × 24 pixels, the middle square of image i grey at 10·i: three for training, two for tests."""
    celeba = import_torchvision().datasets.CelebA
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06}.png" for i in range(5)]
    for i, name in enumerate(names):
        picture(
            folder / "img_align_celeba" / name, np.pad(np.full((20, 20), 10 * i), ((2, 2), (0, 0)), constant_values=255)
        )
    rows = {
        "list_eval_partition": [f"{name} {0 if i < 3 else 2}" for i, name in enumerate(names)],
        "identity_CelebA": [f"{name} 1" for name in names],
        "list_bbox_celeba": ["5", "x y w h", *(f"{name} 1 1 1 1" for name in names)],
        "list_landmarks_align_celeba": ["5", "x y", *(f"{name} 1 1" for name in names)],
        "list_attr_celeba": ["5", "Bald Smiling", *(f"{name} -1 {1 if i % 2 else -1}" for i, name in enumerate(names))],
    }
    for name, lines in rows.items():
        (folder / f"{name}.txt").write_text("\n".join(lines))
    sums = [(None, None, f"{name}.txt") for name in rows]
    monkeypatch.setattr(celeba, "file_list", sums)


def test_celeba_scales_the_middle_square_and_takes_an_attribute_as_label(tmp_path, monkeypatch):
    write_celeba(tmp_path, monkeypatch)
    source = CelebA(str(tmp_path), download=False, pixels=8, attribute="Smiling", test_size=None)
    assert source.image_shape == (3, 8, 8) and source.test.shape == (2, 192)
    assert torch.equal((source.train * 255).round(), 10 * torch.arange(3.0)[:, None].expand(3, 192))
    assert source.train_labels.tolist() == [0, 1, 0] and sorted(source.test_labels.tolist()) == [0, 1]
    assert CelebA(str(tmp_path), download=False, count=2, test_size=1).size == 2
    with pytest.raises(InputError, match="attribute must be one of Bald, Smiling, not 'Hat'"):
        CelebA(str(tmp_path), download=False, attribute="Hat")


# --- folders ----------------------------------------------------------------------------------------------------------


def picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def write_classes(folder: Path, per_class: int = 10, size: int = 6) -> Path:
    """Classes cat and dog, grey; the images of cat are dark."""
    for label, name in enumerate(("cat", "dog")):
        for i in range(per_class):
            picture(folder / name / f"{i}.png", np.full((size, size), 100 * label + i))
    return folder


def test_folders_below_are_classes(tmp_path):
    source = ImageFolder(str(write_classes(tmp_path)), test_fraction=0.3)
    assert (
        source.image_shape == (1, 6, 6)
        and source.classes == ("cat", "dog")
        and (source.size, len(source.test)) == (14, 6)
    )
    for rows, labels in ((source.train, source.train_labels), (source.test, source.test_labels)):
        assert torch.equal(((rows[:, 0] * 255).round() >= 100).long(), labels)


def test_images_in_the_folder_itself_have_no_labels(tmp_path):
    picture(tmp_path / "a.png", np.zeros((3, 4, 3)))
    picture(tmp_path / "b" / "c.png", np.ones((3, 4, 3)))
    source = ImageFolder(str(tmp_path))
    assert source.train_labels is None and source.classes is None and source.image_shape == (3, 3, 4)


def test_held_out_images_may_have_a_folder_of_their_own(tmp_path):
    train, test = write_classes(tmp_path / "train"), write_classes(tmp_path / "test", per_class=20)
    source = ImageFolder(str(train), str(test))
    assert (source.size, len(source.test)) == (20, 40) and source.test_labels.bincount().tolist() == [20, 20]
    assert torch.equal(((source.test[:, 0] * 255).round() >= 100).long(), source.test_labels)
    assert {0, 1} == set(source.test_labels[:10].tolist())  # audits take the first ones: not of one class alone
    assert torch.equal(source.test, ImageFolder(str(train), str(test)).test)
    assert not torch.equal(source.test, ImageFolder(str(train), str(test), seed=1).test)
    picture(test / "cow" / "1.png", np.zeros((6, 6)))
    with pytest.raises(InputError, match="must have the same classes, but only one of them has cow"):
        ImageFolder(str(train), str(test))
    with pytest.raises(InputError, match=r"one shape .* not \(1, 6, 6\) and \(1, 5, 5\). Set pixels and channels"):
        ImageFolder(str(train), str(write_classes(tmp_path / "small", size=5)))


def test_images_of_several_sizes_are_counted_and_can_be_scaled(tmp_path):
    write_classes(tmp_path)
    picture(tmp_path / "cat" / "wide.png", np.tile([0, 200, 200, 0], (2, 1)).repeat(6, 0).repeat(6, 1))
    with pytest.raises(
        InputError,
        match=r"\(1, 6, 6\) 20 times, such as .*0.png, \(1, 12, 24\) 1 times, such as .*wide.png. Set pixels",
    ):
        ImageFolder(str(tmp_path))
    source = ImageFolder(str(tmp_path), pixels=4, channels=3)
    assert source.image_shape == (3, 4, 4) and source.size + len(source.test) == 21
    both = torch.cat([source.train, source.test])
    assert (both.max(dim=1).values * 255).round().eq(200).sum() == 1  # of the wide one only its middle is left
    assert both[(both.max(dim=1).values * 255).round() == 200].min() > 0.7


def test_colours_and_greys_mixed_are_refused_with_the_remedy(tmp_path):
    picture(tmp_path / "a.png", np.zeros((4, 4)))
    picture(tmp_path / "b.png", np.full((4, 4, 3), [0, 255, 0]))
    with pytest.raises(InputError, match="channels=3 or channels=1"):
        ImageFolder(str(tmp_path))
    assert ImageFolder(str(tmp_path), channels=3).dim == 48
    grey = ImageFolder(str(tmp_path), channels=1)
    assert sorted({round(float(value), 3) for value in torch.cat([grey.train, grey.test]).flatten()}) == [
        0.0,
        round(150 / 255, 3),
    ]


# --- what a folder holds, and how an image is to be seen --------------------------------------------------------------


def both_readers(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """All rows of a folder, by training's reader and by the estimate's, in one order."""
    source = ImageFolder(str(folder))
    both = torch.cat([source.train, source.test]), open_samples(folder).rows
    return tuple(rows[np.lexsort(rows.numpy().T)] for rows in both)


def test_hidden_files_and_folders_are_left_out(tmp_path):
    """Jupyter leaves .ipynb_checkpoints beside the classes, macOS ._files beside the images."""
    folder = write_classes(tmp_path / ".private" / "data")
    expected = both_readers(folder)[0]
    for name in (".ipynb_checkpoints/0.png", "cat/.ipynb_checkpoints/0.png", ".DS_Store/a/b.png", "dog/._0.png"):
        picture(folder / name, np.full((6, 6), 77))
    assert ImageFolder(str(folder)).classes == ("cat", "dog")
    assert all(torch.equal(rows, expected) for rows in both_readers(folder))


def test_links_to_folders_and_files_are_followed_and_loops_are_not(tmp_path):
    folder = write_classes(tmp_path / "data")
    expected = both_readers(folder)[0]
    (folder / "dog").rename(tmp_path / "elsewhere")
    (folder / "dog").symlink_to("../elsewhere")
    (folder / "cat" / "3.png").rename(tmp_path / "three.png")
    (folder / "cat" / "3.png").symlink_to(tmp_path / "three.png")
    (folder / "cat" / "back").symlink_to(folder)
    (tmp_path / "elsewhere" / "here").symlink_to(".")
    assert ImageFolder(str(folder)).classes == ("cat", "dog")
    assert all(torch.equal(rows, expected) for rows in both_readers(folder))
    (folder / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    for reader in (lambda: ImageFolder(str(folder)), lambda: open_samples(folder)):
        with pytest.raises(InputError, match="gone.png"):
            reader()


TURNS = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""EXIF's orientations: what a viewer does to the stored pixels."""


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("ending, deep", [("png", False), ("png", True), ("webp", False)])
def test_the_orientation_that_a_camera_stored_is_applied(tmp_path, orientation, ending, deep):
    stored = np.random.default_rng(orientation).integers(0, 65536 if deep else 256, (4, 6) if deep else (4, 6, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(stored.astype(np.uint16 if deep else np.uint8))
    image.save(tmp_path / f"a.{ending}", exif=exif, **({"lossless": True} if ending == "webp" else {}))
    seen = np.ascontiguousarray(TURNS[orientation](stored)).astype(np.float32)
    expected = seen[None] / np.float32(65535) if deep else seen.transpose(2, 0, 1)
    assert np.array_equal(read_pixels(tmp_path / f"a.{ending}").numpy(), expected)


def deep_picture(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels.astype(np.uint16)).save(path)


def test_grey_images_of_16_bits_keep_them(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (6, 5, 4))
    for i, image in enumerate(pixels):
        deep_picture(tmp_path / f"{i}.png", image)
    expected = torch.from_numpy(pixels.reshape(6, 20)).double() / 65535
    source, opened = ImageFolder(str(tmp_path)), open_samples(tmp_path)
    assert source.image_shape == opened.image_shape == (1, 5, 4) and "65535 of 16" in source.units
    assert torch.equal(opened.rows, expected.float())
    assert all(torch.equal(rows, both_readers(tmp_path)[0]) for rows in both_readers(tmp_path))
    assert (source.low, source.high, source.train.dtype) == (0.0, 1.0, torch.float32)
    assert torch.equal(read_pixels(tmp_path / "0.png", channels=3), expected[:1].float().view(1, 5, 4).expand(3, 5, 4))
    picture(tmp_path / "8.png", np.full((5, 4), 51))  # a grey of 8 bits beside them is the same share of its range
    assert torch.equal(open_samples(tmp_path).rows[-1], torch.full((20,), 0.2))
    assert all(torch.equal(rows, both_readers(tmp_path)[0]) for rows in both_readers(tmp_path))
    picture(tmp_path / "/".join(["first", "0.png"]), np.full((5, 4), 51))
    first = load_pixels([tmp_path / "first" / "0.png", tmp_path / "0.png", tmp_path / "8.png"])[0].flatten(1)
    assert torch.equal(first[0], first[2]) and torch.equal(first[1], expected[0].float())


def test_images_of_16_bits_are_scaled_without_leaving_their_range(tmp_path):
    deep_picture(tmp_path / "a.png", np.kron([[0, 65535], [65535, 0]], np.ones((8, 8))))
    deep_picture(tmp_path / "b.png", np.full((8, 12), 12345))
    sharp = read_pixels(tmp_path / "a.png", size=11)
    assert sharp.shape == (1, 11, 11) and sharp.min() == 0 and sharp.max() == 1
    assert torch.allclose(read_pixels(tmp_path / "b.png", size=5), torch.tensor(12345 / 65535), atol=1e-6)


def png(color: int, channels: int, extra: bytes = b"") -> bytes:
    """A PNG of 4 × 4 pixels with 16 bits a channel, which Pillow cannot write in colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + bytes(range(8 * channels)) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


@pytest.mark.parametrize("color, channels", [(2, 3), (4, 2), (6, 4)])
def test_colours_of_16_bits_are_refused_with_a_remedy_that_works(tmp_path, color, channels):
    path = tmp_path / "a.png"
    path.write_bytes(png(color, channels))
    with pytest.raises(
        InputError, match=r"is in colour with 16 bits a channel, .* Save it with 8: Image.open\(path\).save\(path\)"
    ):
        read_pixels(path)
    Image.open(path).save(path)
    if channels == 3:
        assert read_pixels(path)[:, 0, 0].tolist() == [0, 2, 4]  # the first of each pair of bytes 0, 1, 2, …


def test_an_alpha_channel_without_effect_is_ignored_and_one_with_effect_refused(tmp_path):
    noise = np.random.default_rng(3)
    colour, grey = noise.integers(0, 256, (6, 5, 3)).astype(np.uint8), noise.integers(1, 256, (6, 5)).astype(np.uint8)
    colour[0, 0] = (1, 2, 3)
    palette = Image.fromarray(grey % 7).convert("P")
    whole = np.full((6, 5), 255, np.uint8)
    cases = {
        "rgba": (Image.fromarray(np.dstack([colour, whole])), {}, colour),
        "la": (Image.fromarray(np.dstack([grey, whole])), {}, grey),
        "rgb key": (Image.fromarray(colour), {"transparency": (1, 2, 4)}, colour),
        "l key": (Image.fromarray(grey), {"transparency": 0}, grey),
        "palette": (palette, {"transparency": 100}, np.array(palette.convert("RGB"))),
    }
    for name, (image, options, expected) in cases.items():
        image.save(tmp_path / f"{name}.png", **options)
        pixels = read_pixels(tmp_path / f"{name}.png").numpy()
        assert np.array_equal(pixels, expected.reshape(6, 5, -1).transpose(2, 0, 1)), name
    hole = whole.copy()
    hole[2, 2] = 254
    cases = {
        "rgba": (Image.fromarray(np.dstack([colour, hole])), {}),
        "la": (Image.fromarray(np.dstack([grey, hole])), {}),
        "rgb key": (Image.fromarray(colour), {"transparency": (1, 2, 3)}),
        "l key": (Image.fromarray(grey), {"transparency": int(grey[0, 0])}),
        "palette": (palette, {"transparency": int(grey[0, 0] % 7)}),
    }
    for name, (image, options) in cases.items():
        path = tmp_path / f"{name}.png"
        image.save(path, **options)
        with pytest.raises(InputError, match="has transparent pixels. Put it on a background") as caught:
            read_pixels(path)
        remedy = str(caught.value).partition("save that: ")[2].removesuffix(".")
        eval(remedy, {"Image": Image, "image": Image.open(path)}).save(path)
        assert read_pixels(path).shape == (3, 6, 5)
    key = struct.pack(">I", 2) + b"tRNS" + struct.pack(">H", 1)  # bytes 0, 1: the first pixel
    (tmp_path / "deep.png").write_bytes(png(0, 1, key + struct.pack(">I", zlib.crc32(key[4:]))))
    with pytest.raises(InputError, match="has transparent pixels"):
        read_pixels(tmp_path / "deep.png")
    key = key[:-1] + b"\x02"  # no pixel
    (tmp_path / "deep.png").write_bytes(png(0, 1, key + struct.pack(">I", zlib.crc32(key[4:]))))
    assert read_pixels(tmp_path / "deep.png")[0, 0].tolist() == pytest.approx([i / 65535 for i in (1, 515, 1029, 1543)])


def test_images_of_two_shapes_are_not_compared_as_vectors(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, shape in (("a", (8, 8, 3)), ("b", (16, 12)), ("c", (16, 4, 3))):
        for i in range(3):
            picture(tmp_path / name / f"{i}.png", np.random.default_rng(i).integers(0, 256, shape))
    shapes = {"a": (3, 8, 8), "b": (1, 16, 12), "c": (3, 16, 4)}
    for x, y in (("a", "b"), ("b", "a"), ("c", "a")):
        assert main(["estimate", f"x={x}", f"y={y}", "critic=null"]) == 2
        told = capsys.readouterr().err
        assert f"but {x} has {shapes[x]} and {y} has {shapes[y]}. Resize or convert one side." in told
    check_shapes(open_samples("a"), open_samples("a"))
    rows = open_samples("a").rows.numpy()
    np.save("rows.npy", rows)  # rows without a shape are compared with the images that they are
    check_shapes(open_samples("a"), open_samples("rows.npy"))


def test_a_run_on_images_in_an_array_knows_their_shape_and_units(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8))
    assert main(["train", *TINY, "data=file", "data.path=x.npy", "critic=convolutional", "hydra.run.dir=r"]) == 0
    run = Run("r")
    assert run.image_shape == (3, 8, 8) and run.units == ImageSource.units
    assert run.sample(5).min() >= 0 and run.sample(5).max() <= 1


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_a_handful_of_images_trains_or_says_what_it_lacks(tmp_path, monkeypatch, capsys, count):
    monkeypatch.chdir(tmp_path)
    for i in range(count):
        picture(tmp_path / "d" / f"{i}.png", np.random.default_rng(i).integers(0, 256, (4, 4)))
    status = main(
        ["train", *TINY, "training.batch_size=1", "data=image_folder", "data.path=d", "data.test_fraction=0.3"]
    )
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        status == 0
        if count > 4
        else status == 2 and re.search(r"[Aa]t least 2 (held-out )?samples.* (not|there are|Got) 1\.", told)
    ), told


def break_images(folder: Path) -> list[Path]:
    whole = (folder / "cat" / "0.png").read_bytes()
    broken = [folder / "cat" / "3.png", folder / "dog" / "5.png", folder / "dog" / "7.png"]
    for path, content in zip(broken, (whole[: len(whole) // 2], b"", b"not an image")):
        path.write_bytes(content)
    return broken


def test_corrupt_images_are_all_counted_and_named_and_stop_the_run(tmp_path):
    broken = break_images(write_classes(tmp_path))
    with pytest.raises(InputError) as caught:
        ImageFolder(str(tmp_path))
    message = str(caught.value)
    assert "Can't read 3 of 20 images: " in message and "leave them out by corrupt=skip" in message
    assert all(str(path) in message for path in broken) and "\n" not in message


def test_corrupt_images_are_left_out_by_choice_with_a_warning_that_names_them(tmp_path):
    broken = break_images(write_classes(tmp_path))
    with pytest.warns(UserWarning, match="Left out 3 of 20 images") as caught:
        source = ImageFolder(str(tmp_path), corrupt="skip")
    assert all(str(path) in str(caught[0].message) for path in broken)
    assert source.size + len(source.test) == 17
    left = sorted((torch.cat([source.train, source.test])[:, 0] * 255).round().int().tolist())
    assert left == sorted({*range(10), *range(100, 110)} - {3, 105, 107})


def test_many_corrupt_images_are_counted_and_ten_named(tmp_path):
    for i in range(14):
        (tmp_path / f"{i:02}.png").write_bytes(b"")
    picture(tmp_path / "whole.png", np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"Can't read 14 of 15 images: .*09\.png and 4 more"):
        ImageFolder(str(tmp_path))
    (tmp_path / "whole.png").unlink()
    with pytest.raises(InputError, match="Can't read 14 of 14"):
        ImageFolder(str(tmp_path), corrupt="skip")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda folder: (folder / "cow").mkdir(), "has class folders without images: cow. Add some"),
        (lambda folder: [path.unlink() for path in (folder / "dog").iterdir()], "without images: .*dog"),
        (lambda folder: [path.unlink() for path in folder.glob("*/*")], r"There are no images \(.*\) in"),
        (lambda folder: [path.unlink() for path in list((folder / "dog").iterdir())[1:]], "There are no (training|held-out) images of class dog"),
    ],
)  # fmt: skip
def test_missing_classes_are_named(tmp_path, change, message):
    change(write_classes(tmp_path))
    with pytest.raises(InputError, match=message):
        ImageFolder(str(tmp_path))


@pytest.mark.parametrize(
    "keywords, message",
    [
        ({"test_fraction": 1.0}, "test_fraction must be between 0 and 1"),
        ({"corrupt": "ignore"}, "corrupt must be one of stop, skip, not 'ignore'"),
        ({"pixels": 0}, "pixels must be positive"),
        ({"channels": 2}, "channels must be 1, 3 or null, not 2"),
        ({"path": "nowhere"}, "There is no folder of images at nowhere"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, keywords, message):
    with pytest.raises(InputError, match=re.escape(message)):
        ImageFolder(**{"path": str(write_classes(tmp_path)), **keywords})


@pytest.mark.skipif(not (SHARED_DATA / "cifar10_jpeg").is_dir(), reason="no CIFAR-10 images beside the repository")
def test_cifar10_as_a_folder_of_images():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = ImageFolder(str(SHARED_DATA / "cifar10_jpeg" / "test"))
    assert source.image_shape == (3, 32, 32) and len(source.classes) == 10 and source.size + len(source.test) == 2000
    assert 0.4 < float(source.train.mean()) < 0.55


def test_the_command_tells_in_one_line_which_images_it_left_out(tmp_path, monkeypatch, capsys):
    break_images(write_classes(tmp_path / "images"))
    monkeypatch.chdir(tmp_path)
    command = ["train", "data=image_folder", "data.path=images", *TINY, "critic=convolutional", "evaluation.size=2"]
    assert main([*command, "training.audit_size=2"]) == 2
    assert "3 of 20 images: images/cat/3.png" in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main([*command, "training.audit_size=2", "training.batch_size=8", "data.corrupt=skip"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "images/cat/3.png" in line]
    assert line.startswith("wgan-lip: Left out 3 of 20 images")
