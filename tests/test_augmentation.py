"""Random changes of images in training: what they do, that none is steeper than 1, and that training replays them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wgan_lip.critics import SortingCritic
from wgan_lip.data import FakeImages, Moons
from wgan_lip.generators import DCGANGenerator, draw_latents
from wgan_lip.training import Training, audit, loop, train_wgan
from wgan_lip.training.augmentation import Augmentation, Augmenter
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError

SHAPE = (2, 5, 7)
IMAGE = torch.arange(70.0).view(1, 70) + 1  # no pixel is 0
SMALL = {"channels": 1, "height": 8, "width": 8, "count": 60, "test_size": 20}
MIDDLE = [0.9, 0.5, 0.5, 0.5, 0.5, 0.5]  # nothing mirrored, moved or brightened; a square in the middle


def changed(image, numbers, shape=SHAPE, **augmentation):
    return Augmenter(Augmentation(**augmentation), shape)(image, torch.tensor([numbers])).view(shape)


def test_each_change_is_what_it_says():
    image = IMAGE.view(SHAPE)
    everything = {"augment_flip": True, "augment_shift": 2, "augment_brightness": 3.0}
    assert torch.equal(changed(IMAGE, MIDDLE, **everything), image)
    assert torch.equal(changed(IMAGE, [0.1, *MIDDLE[1:]], augment_flip=True), image.flip(2))
    moved = changed(IMAGE, [0.9, 0.0, 0.99, 0.5, 0.5, 0.5], augment_shift=2)  # down by 2, left by 2
    assert torch.equal(moved[:, 2:, :5], image[:, :3, 2:])
    assert moved[:, :2].abs().sum() == 0 == moved[:, :, 5:].abs().sum()
    covered = changed(IMAGE, MIDDLE, augment_cutout=3)
    assert torch.equal(covered == 0, torch.nn.functional.pad(torch.ones(2, 3, 3), (2, 2, 1, 1)).bool())
    assert torch.equal(covered[covered != 0], image[covered != 0])
    assert torch.allclose(changed(IMAGE, [*MIDDLE[:5], 0.75], augment_brightness=0.5), image + 0.25)


@given(
    st.booleans(), st.integers(0, 4), st.integers(0, 4), st.floats(0, 1), st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_no_change_is_steeper_than_1_and_labels_stay(flip, shift, cutout, brightness, seed):
    rng = torch.Generator().manual_seed(seed)
    augment = Augmenter(
        Augmentation(
            augment_flip=flip, augment_shift=shift, augment_cutout=cutout, augment_brightness=brightness
        ),
        SHAPE,
    )  # fmt: skip
    x, y = torch.randn(2, 8, 73, generator=rng, dtype=torch.float64)
    numbers = augment.draw(8, rng).double()
    one, other = augment(x, numbers), augment(y, numbers)
    assert torch.equal(one[:, 70:], x[:, 70:])
    assert bool(((one - other).norm(dim=1) <= (x - y).norm(dim=1) * (1 + 1e-12)).all())
    if flip and not (shift or cutout):
        assert torch.allclose((one - other).norm(dim=1), (x - y).norm(dim=1))


def test_nothing_changes_unasked():
    augment = Augmenter(Augmentation(), None)
    assert augment.numbers == 0 and augment(IMAGE, augment.draw(1, torch.Generator())) is IMAGE


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"augment_shift": 8}, "smaller than the images"), ({"augment_cutout": 9}, r"\(1, 8, 8\), not 0 and 9")],
)
def test_changes_that_leave_nothing_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        next(trained(**settings))


def test_samples_that_are_not_images_are_refused():
    with pytest.raises(InputError, match="have no image_shape"):
        Augmenter(Augmentation(augment_flip=True), Moons().image_shape)


def trained(critic=None, state=None, **settings):
    torch.manual_seed(0)
    source = FakeImages(**SMALL)
    generator = DCGANGenerator((1, 8, 8), low=0.0, high=1.0, latent_dim=3, channels=4)
    critic = SortingCritic(64, width=8, depth=1) if critic is None else critic
    chosen = {"steps": 6, "batch_size": 10, "critic_steps": 2, "warmup_steps": 1, "log_every": 3, "audit_every": 3,
              "audit_size": 10, "audit_refits": 0, **settings}  # fmt: skip
    return train_wgan(
        source, generator, critic, Training(**chosen), state=state,
        generator_optimizer=torch.optim.Adam(generator.parameters(), lr=1e-2),
        critic_optimizer=torch.optim.Adam(critic.parameters(), lr=1e-2),
    )  # fmt: skip


@pytest.mark.parametrize("reuse_batch", [False, True])
def test_training_shows_real_and_generated_images_changed_and_audits_neither(reuse_batch, monkeypatch):
    seen, alone = [], loop.ascend
    monkeypatch.setattr(loop, "ascend", lambda f, by, *xy, **more: seen.extend(xy) or alone(f, by, *xy, **more))
    *_, last = trained(augment_cutout=7, reuse_batch=reuse_batch)
    rows = torch.cat(seen)
    assert len(rows) == (6 * 2 + 1) * 2 * 10
    assert bool(((rows == 0).float().mean(dim=1) >= 0.25).all())  # at least a quarter of the square lies in the image
    latents = draw_latents(last.game.generator, 2 * audit.DRAWS * 10, torch.Generator().manual_seed(1))[:10]  # its own
    with torch.no_grad():
        exact = solve(FakeImages(**SMALL).test[:10], last.game.generator(latents)).value
    assert last.scalars["w1/exact"] == pytest.approx(exact, rel=1e-6) and last.scalars["w1/lower"] <= exact


@pytest.mark.parametrize("reuse_batch", [False, True])
def test_an_augmented_training_goes_on_bit_by_bit(reuse_batch):
    options = {"augment_flip": True, "augment_shift": 2, "augment_brightness": 0.2, "reuse_batch": reuse_batch}
    whole = next(record.game.state_dict() for record in trained(**options) if record.step == 6)
    for record in trained(**options):
        if record.step == 3:
            state = record.game.state_dict()
            break
    resumed = [record.game.state_dict() for record in trained(state=state, **options)][-1]
    for part in ("critic", "generator", "ema"):
        assert all(torch.equal(whole[part][name], value) for name, value in resumed[part].items())
