"""Principal coordinates and energies: the map, its constant against dense eigenvalues, its start at samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from wgan_lip import ImageCritic, InputError, PrincipalCritic, certify, constrain_steps, parameter_groups, verify
from wgan_lip.lipschitz.layers import PrincipalEnergies, block_groups
from wgan_lip.lipschitz.optimizers import Muon
from wgan_lip.wasserstein.dual import ascend, kr_value


def layer(dim=6, axes=2, groups=(0, 0, 1, 1, 2, 2), **settings):
    torch.manual_seed(0)
    return PrincipalEnergies(dim, axes, groups if groups is None else torch.as_tensor(groups), **settings).double()


def test_it_gives_coordinates_as_they_are_and_the_norms_of_the_rest():
    principal = layer()
    principal.mean.data.copy_(torch.arange(6.0))
    x = torch.randn(7, 6, dtype=torch.float64)
    u = (x - principal.mean) @ principal.weight.T
    rest = (x - principal.mean) - u @ principal.weight
    norms = torch.stack([rest[:, 2 * block : 2 * block + 2].norm(dim=1) for block in range(3)], dim=1)
    assert torch.allclose(principal(x), torch.cat((u, norms), dim=1), atol=1e-5)
    assert principal.width == 5


def test_orthonormal_axes_with_one_energy_keep_every_norm():
    principal = layer(groups=None)
    x = torch.randn(50, 6, dtype=torch.float64)
    assert torch.allclose(principal(x).norm(dim=1), x.norm(dim=1), rtol=1e-4)
    assert principal.claim().lipschitz <= 1


@pytest.mark.parametrize("size", [0.3, 0.9, 1.0, 1.3, 3.0])
@pytest.mark.parametrize("share", [0.25, 1.0, 2.0])
def test_its_constant_is_the_largest_singular_value_with_shares_that_are_all_equal(size, share):
    principal = layer(groups=torch.eye(6, dtype=torch.float64) * share)
    principal.weight.data.mul_(size)
    square = principal.weight.T @ principal.weight
    rest = torch.eye(6, dtype=torch.float64) - square
    truth = torch.linalg.matrix_norm(torch.cat((principal.weight, math.sqrt(share) * rest)), 2).item()
    claimed = principal.claim().lipschitz
    assert truth * (1 - 1e-12) <= claimed  # energies of single coordinates have slopes of √share, away from zero
    if size >= 1 or share >= 1:
        assert claimed <= truth * (1 + 1e-5)
    at = 5 * torch.randn(40, 6, dtype=torch.float64)
    slopes = torch.func.vmap(torch.func.jacrev(lambda point: principal(point[None])[0]))(at)
    assert torch.linalg.matrix_norm(slopes, 2).max() <= claimed


def test_shares_of_sum_1_are_summed_exactly_and_others_are_rounded_up():
    half = torch.full((2, 6), 0.5)
    assert layer(groups=half).claim().lipschitz <= 1
    thirds = torch.full((3, 6), 1 / 3)  # three float32 thirds are more than 1
    assert 1 < layer(groups=thirds).claim().lipschitz < 1 + 1e-7
    tiny = torch.tensor([[1.0] * 6, [2.0**-70] * 6])  # more than 1 by less than float64 can add
    assert layer(groups=tiny).claim().lipschitz > 1


def test_it_starts_at_the_axes_of_the_largest_second_moments():
    rng = torch.Generator().manual_seed(0)
    spread = torch.tensor([5.0, 4.0, 3.0] + [0.1] * 57)
    turn = torch.linalg.qr(torch.randn(60, 60, generator=rng)).Q
    x, y = ((torch.randn(3000, 60, generator=rng) * spread) @ turn.T + side for side in (7.0, 7.0))
    torch.manual_seed(0)
    principal = PrincipalEnergies(60, 3)
    principal.start_at(x, y)
    assert torch.linalg.matrix_norm(principal.weight @ turn[:, :3], "nuc") > 3 - 1e-3
    assert torch.allclose(principal.mean, torch.full((60,), 7.0), atol=0.5)
    assert torch.allclose(principal(x)[:, 3], torch.full((3000,), 0.1 * math.sqrt(57)), rtol=0.5)
    assert principal.claim().lipschitz <= 1


@pytest.mark.parametrize("rows", [torch.zeros(4, 40), torch.randn(2, 40), 1e30 * torch.randn(9, 40)])
def test_it_starts_at_samples_without_enough_directions(rows):
    principal = PrincipalEnergies(40, 8)
    principal.start_at(rows, rows)
    gram = principal.weight @ principal.weight.T
    assert torch.allclose(gram, torch.eye(8), atol=1e-4) and principal.claim().lipschitz <= 1


def test_blocks_hold_all_channels_and_cover_every_pixel_once():
    groups = block_groups((2, 3, 4), 2)
    assert groups.view(2, 3, 4).tolist() == 2 * [[[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]]
    assert block_groups((1, 1, 4), 2, shift=1).tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: PrincipalEnergies(4, 5), "axes must be from 1 to 4"),
        (lambda: PrincipalEnergies(4, 1, [0, 1, 2]), "groups must be 4 integers"),
        (lambda: PrincipalEnergies(4, 1, [0, -1, 0, 0]), "integers of at least 0"),
        (lambda: PrincipalEnergies(4, 1, torch.full((2, 4), -0.5)), "not negative"),
        (lambda: PrincipalEnergies(4, 1, torch.full((2, 3), 0.5)), r"shape \(groups, 4\)"),
        (lambda: block_groups((1, 4), 2), "a size of at least 1"),
        (lambda: ImageCritic(None), "PrincipalCritic or ResNetCritic"),
        (lambda: ImageCritic((1, 4, 4), partitions=0), "partitions"),
    ],
)
def test_what_makes_no_sense_is_refused(build, says):
    with pytest.raises(InputError, match=says):
        build()


@pytest.mark.parametrize(("buffer", "value"), [("shares", -1.0), ("shares", math.nan), ("softening", -1.0)])
def test_stored_numbers_that_are_no_shares_have_no_certificate(buffer, value):
    principal = layer()
    getattr(principal, buffer).fill_(value)
    with pytest.raises(InputError, match="Reload the last good checkpoint"):
        principal.claim()


def test_a_critic_splits_into_what_stays_and_what_trains():
    torch.manual_seed(0)
    critic = PrincipalCritic(30, axes=5, depth=2)
    x, y = torch.randn(200, 30) + 1, torch.randn(200, 30)
    critic.start_at(x, y)
    frozen, rest = critic.split_frozen()
    assert [name for name, _ in frozen.named_children()] == ["flatten", "principal"]
    states = [frozen(side) for side in (x, y)]
    before = critic(x).detach().clone()
    assert torch.equal(rest(states[0]), before)
    optimizer = torch.optim.Adam(parameter_groups(critic, 0.2))
    constrain_steps(optimizer, rest)
    for _ in range(30):
        ascend(rest, optimizer, *states)
    assert (critic(x).mean() - critic(y).mean()) > before.mean() - critic(y).mean() + 0.1  # the critic is what trained
    certificate = certify(critic)
    assert certificate.lipschitz <= 1 and verify(certificate, critic)
    assert nn.Sequential(frozen, rest)(x).equal(critic(x))


def test_by_default_half_of_the_axes_are_principal_up_to_192_and_the_state_is_no_wider_than_128():
    small, large = ImageCritic((1, 8, 8)), ImageCritic((3, 16, 16))
    assert small.principal.weight.shape == (32, 64) and small.principal.width == 32 + 16
    assert not hasattr(small, "lift") and small.block_1.weight.shape == (24, 48)
    assert large.principal.weight.shape == (192, 768) and large.principal.width == 192 + 4
    assert large.lift.weight.shape == (128, 196) and large.block_1.weight.shape == (64, 128)


def test_images_come_as_images_and_as_rows_and_labels_are_energies_of_their_own():
    critic = ImageCritic((1, 4, 4), axes=3, depth=1, label_count=2)
    rows = torch.randn(5, 18)
    assert critic(rows).shape == (5,)
    plain = ImageCritic((2, 4, 4), axes=3, partitions=2)
    assert torch.equal(plain(torch.ones(3, 2, 4, 4)), plain(torch.ones(3, 32)))
    assert certify(plain).lipschitz <= 1


def test_trained_axes_find_the_subspace_that_the_laws_are_moved_towards():
    rng = torch.Generator().manual_seed(0)
    subspace = torch.linalg.qr(torch.randn(40, 3, generator=rng)).Q  # not along the largest variances

    def pairs(n):
        y = torch.randn(n, 40, generator=rng) * torch.linspace(3, 0.3, 40) + 2
        rest = y - 2 - (y - 2) @ subspace @ subspace.T
        return y - torch.rand(n, 1, generator=rng) * rest, y

    def share_of_w1(trained):
        torch.manual_seed(0)
        critic = PrincipalCritic(40, axes=6, depth=1, trained=trained)
        critic.start_at(*pairs(2000))
        optimizer = Muon(parameter_groups(critic, 0.1))
        constrain_steps(optimizer, critic)
        for step in range(400):
            for group in optimizer.param_groups:
                group["lr"] *= 1 - 1 / (400 - step)  # linearly to 0
            ascend(critic, optimizer, pairs(128)[0], pairs(128)[1])  # independent
        certificate = certify(critic)
        assert certificate.lipschitz <= 1 and verify(certificate, critic)
        x, y = pairs(20_000)
        with torch.no_grad():
            return float(kr_value(critic, x, y) / (x - y).norm(dim=1).mean())

    shares = share_of_w1(trained=True), share_of_w1(trained=False)
    assert shares[0] > 0.97 > 0.9 > shares[1], shares


def test_the_middle_trains_with_the_axes_and_only_with_them():
    names = {"principal.weight", "principal.mean"}
    for trained in (False, True):
        critic = PrincipalCritic(10, axes=2, depth=1, trained=trained)
        found = {name for name, parameter in critic.named_parameters() if parameter.requires_grad}
        assert found & names == (names if trained else set())
        front, _ = critic.split_frozen()
        assert ("principal" in dict(front.named_children())) is not trained
