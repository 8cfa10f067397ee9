"""wgan_lip.w1: exact values and the gradients of exact transport, in samples and in weights."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import wgan_lip
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def positive(n, seed=0):
    return torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.2


@pytest.mark.parametrize("d", [1, 2, 30])
@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradients_in_the_samples_are_those_of_pot(d, weighted):
    """POT differentiates the costs: its gradients go through torch's own distances."""
    x, y = normal(9, d).requires_grad_(), normal(7, d, seed=1).requires_grad_()
    a, b = (positive(9), positive(7, 1)) if weighted else (None, None)
    loss = wgan_lip.w1(x, y, a, b)
    mine = torch.autograd.grad(loss, (x, y))
    masses = [torch.ones(n, dtype=torch.float64) if w is None else w for n, w in ((9, a), (7, b))]
    costs = torch.linalg.vector_norm(x[:, None] - y, dim=2)
    truth = ot.emd2(*(mass / mass.sum() for mass in masses), costs)
    theirs = torch.autograd.grad(truth, (x, y))
    assert loss.shape == () and loss.item() == pytest.approx(truth.item(), rel=1e-12)
    assert all(torch.allclose(*pair, atol=1e-12) for pair in zip(mine, theirs))  # of any optimal plan, on the line too


@pytest.mark.parametrize("d", [1, 3])
def test_gradients_pass_gradcheck_in_all_four_arguments(d):
    x, y, a, b = normal(5, d), normal(4, d, seed=1), positive(5), positive(4, 1)
    assert torch.autograd.gradcheck(wgan_lip.w1, [part.requires_grad_() for part in (x, y, a, b)], atol=1e-6)


def test_weights_move_the_value_as_their_gradient_says():
    """Along a direction that keeps the total, and along the weights themselves, which change nothing."""
    x, y, a, b = normal(8, 2), normal(6, 2, seed=1) + 1, positive(8), positive(6, 1)
    slope_a, slope_b = torch.autograd.grad(wgan_lip.w1(x, y, a.requires_grad_(), b.requires_grad_()), (a, b))
    for weights, slope, call in (
        (a, slope_a, lambda w: wgan_lip.w1(x, y, w, b)),
        (b, slope_b, lambda w: wgan_lip.w1(x, y, a, w)),
    ):
        weights = weights.detach()
        way = normal(len(weights), seed=2)
        way -= way.mean()
        change = (call(weights + 1e-6 * way) - call(weights - 1e-6 * way)) / 2e-6
        assert change.item() == pytest.approx((slope @ way).item(), rel=1e-6)
        assert (slope @ weights).item() == pytest.approx(0, abs=1e-12)


def test_the_gradient_of_a_weight_of_zero_is_what_it_would_cost():
    x, y = torch.tensor([[0.0], [5.0]], dtype=torch.float64), torch.tensor([[1.0]], dtype=torch.float64)
    a = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    wgan_lip.w1(x, y, a).backward()
    assert a.grad.tolist() == pytest.approx([0.0, 3.0])  # (1 + 4 t) / (1 + t) at t = 0


def test_no_direction_between_points_that_coincide():
    x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 0.0]], requires_grad=True)
    y = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]], requires_grad=True)
    loss = wgan_lip.w1(x, y)
    loss.backward()
    assert loss.item() == pytest.approx(4 / 3)
    assert x.grad[0].tolist() == [0, 0] and x.grad.sum(0).tolist() == pytest.approx([0, -1 / 3])
    assert y.grad[:2].tolist() == [[0, 0], [0, 0]] and y.grad[2].tolist() == pytest.approx([0, 1 / 3])
    same = normal(6, 3).requires_grad_()
    loss = wgan_lip.w1(same, same.detach().flip(0))
    loss.backward()
    assert loss.item() == 0 and not same.grad.any()


@pytest.mark.parametrize("weighted", ["no", "shared", "each"])
def test_a_batch_is_its_pairs(weighted):
    x, y = normal(3, 6, 2), normal(3, 5, 2, seed=1)
    a = {"no": None, "shared": positive(6), "each": positive(18).view(3, 6)}[weighted]
    inputs = [part.requires_grad_() for part in (x, y, a) if part is not None]
    values = wgan_lip.w1(x, y, a)
    rows = [a if a is None or a.ndim == 1 else a[k] for k in range(3)]
    single = torch.stack([wgan_lip.w1(x[k], y[k], rows[k]) for k in range(3)])
    assert values.shape == (3,) and torch.equal(values, single)
    slope = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    together, alone = (torch.autograd.grad(of @ slope, inputs) for of in (values, single))
    assert all(torch.allclose(*pair, atol=1e-14) for pair in zip(together, alone))
    assert wgan_lip.w1(x[:0], y[:0]).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_numbers_keep_their_type(dtype):
    x, y = normal(6, 2).to(dtype).requires_grad_(), normal(6, 2, seed=1).to(dtype)
    loss = wgan_lip.w1(x, y)
    loss.backward()
    assert loss.dtype == x.grad.dtype == dtype
    assert loss.item() == pytest.approx(solve(x.detach(), y).value, rel=2 * torch.finfo(dtype).eps)
    assert wgan_lip.w1(x, y.double()).dtype == torch.promote_types(dtype, torch.float64)


def test_numbers_on_the_line_need_no_second_axis():
    x = torch.tensor([0.0, 1.0, 5.0], requires_grad=True)
    loss = wgan_lip.w1(x, torch.tensor([1.0, 2.0, 3.0]))
    loss.backward()
    assert loss.item() == pytest.approx(4 / 3) and x.grad.tolist() == pytest.approx([-1 / 3, -1 / 3, 1 / 3])


def test_only_what_is_asked_for_gets_a_gradient():
    x, y, a = normal(5, 2), normal(4, 2, seed=1).requires_grad_(), positive(5)
    wgan_lip.w1(x, y, a).backward()
    assert x.grad is None and a.grad is None and y.grad.any()
    assert not wgan_lip.w1(x, y.detach()).requires_grad


def test_a_second_derivative_is_refused():
    x = normal(5, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(wgan_lip.w1(x, normal(5, 2, seed=1)), x, create_graph=True)
    assert gradient.norm(dim=1).detach() == pytest.approx(0.2)
    with pytest.raises(RuntimeError, match=r"wgan_lip\.w1 has first derivatives only"):
        gradient.sum().backward()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**31 - 1))
def test_descent_along_the_gradient_follows_the_plan(n, m, d, seed):
    """Equal rows, points in common and weights of zero; the value is the gradient's by homogeneity: W1 has degree 1."""
    rng = np.random.default_rng(seed)
    x, y = (torch.tensor(rng.integers(0, 3, (k, d)), dtype=torch.float64, requires_grad=True) for k in (n, m))
    a = torch.tensor(rng.integers(0, 3, n), dtype=torch.float64)
    a[0] += 1
    loss = wgan_lip.w1(x, y, a)
    loss.backward()
    assert ((x * x.grad).sum() + (y * y.grad).sum()).item() == pytest.approx(loss.item(), abs=1e-12)
    assert not x.grad[a == 0].any()
    costs = torch.linalg.vector_norm((x[:, None] - y).detach(), dim=2).numpy()
    truth = ot.emd2(a.numpy() / a.sum().item(), np.full(m, 1 / m), costs)
    assert loss.item() == pytest.approx(truth, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 2)), torch.zeros(2, 2)), "x must be a floating-point tensor, for gradients, not a ndarray"),
        (
            (torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.int64)),
            "y must be a floating-point tensor, for gradients, not dtype",
        ),
        ((torch.zeros(2, 2), torch.zeros(2, 2, 2)), "equally many sets"),
        ((torch.zeros(2, 2, 2), torch.zeros(3, 2, 2)), "equally many sets"),
        ((torch.tensor(0.0), torch.zeros(2)), r"shape \(n, d\)"),
        ((torch.zeros(2, 2), torch.zeros(2, 3)), "same dimension"),
        ((torch.zeros(2, 2), torch.full((2, 2), torch.nan)), "y must be finite"),
        ((torch.zeros(2, 2, 2), torch.full((2, 2, 2), torch.nan)), r"In pair \[0\]: y must be finite"),
        ((torch.zeros(2, 2), torch.zeros(2, 2), [1.0]), r"a must have shape \(2,\)"),
        ((torch.zeros(2, 2), torch.zeros(2, 2), [1.0, -1.0]), "a must be finite and non-negative"),
        ((torch.zeros(2, 2), torch.zeros(2, 2), None, [0.0, 0.0]), "b must have a positive total"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, message):
    with pytest.raises(InputError, match=message):
        wgan_lip.w1(*arguments)
