"""Layers: Jacobian spectra, exact folds, and one retraction step that lands inside the constraint from anywhere."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wgan_lip.lipschitz.bounds import Norm, gamma, upper_bound_norm, upper_bound_operator_norm
from wgan_lip.lipschitz.layers import (
    ACTIVATIONS,
    Flatten,
    GradientFlow,
    Identity,
    Linear,
    MaxMin,
    Parallel,
    Retraction,
    Squeeze,
    constrain_steps,
)
from wgan_lip.utils.checks import InputError


def set_(parameter, value):
    with torch.no_grad():
        parameter.copy_(torch.as_tensor(value, dtype=torch.float64))


def jacobians(layer, x):
    """One Jacobian a sample: (b, d) → (b, p, d)."""
    x = x.clone().requires_grad_(True)
    values = layer(x)
    rows = [torch.autograd.grad(values[:, i].sum(), x, retain_graph=True)[0] for i in range(values.shape[1])]
    return torch.stack(rows, dim=1)


def norm_of(weight):
    return torch.linalg.matrix_norm(weight.detach().double(), 2).item()


# Gradient flow


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("dim", "hidden"), [(5, 2), (3, 6), (1, 1)])
@pytest.mark.parametrize("tau", [0.0, 0.7, 2.0, 9.0])
def test_the_jacobian_is_symmetric_with_spectrum_between_1_minus_tau_norm_squared_and_1(activation, dim, hidden, tau):
    layer = GradientFlow(dim, hidden, activation=activation).double()
    set_(layer.weight, torch.randn(hidden, dim))
    set_(layer.tau, tau)
    jacobian = jacobians(layer, 3 * torch.randn(400, dim, dtype=torch.float64))
    assert torch.allclose(jacobian, jacobian.mT, atol=1e-12 * (1 + tau * norm_of(layer.weight) ** 2))
    spectrum = torch.linalg.eigvalsh(jacobian.detach())
    low = 1 - tau * norm_of(layer.weight) ** 2
    assert spectrum.max() <= 1 + 1e-10
    assert spectrum.min() >= low - 1e-10 * (1 + abs(low))
    assert spectrum.abs().max() <= layer.claim().lipschitz * (1 + 1e-12)


@pytest.mark.parametrize("tau", [-1e-300, -1e-20, -1e-16, -3e-16, -0.1, -3.0])
def test_a_negative_step_expands_and_the_claim_says_so(tau):
    layer = GradientFlow(1, 1).double()
    set_(layer.weight, 1.0)
    set_(layer.tau, tau)
    with mpmath.workdps(400):
        assert mpmath.mpf(layer.claim().lipschitz) >= 1 + abs(mpmath.mpf(tau))


@pytest.mark.parametrize(
    ("tau", "weight"), [(2.0, 1.0 + 2**-52), (3.0, 1.0), (2.0 + 2**-51, 1.0), (1e300, 1e5), (2.0, 1e30)]
)
def test_the_claim_rounds_up_where_the_step_is_too_long(tau, weight):
    layer = GradientFlow(1, 1).double()
    set_(layer.weight, weight)
    set_(layer.tau, tau)
    with mpmath.workdps(700):
        assert mpmath.mpf(layer.claim().lipschitz) >= mpmath.mpf(tau) * mpmath.mpf(weight) ** 2 - 1


def test_the_claim_is_1_exactly_where_the_step_is_short_enough():
    layer = GradientFlow(6, 3).double()
    set_(layer.weight, torch.linalg.qr(torch.randn(6, 3, dtype=torch.float64)).Q.T * 0.999)
    assert layer.claim().lipschitz == 1.0
    set_(layer.tau, 0.0)
    set_(layer.weight, 1e9)
    assert layer.claim().lipschitz == 1.0


@pytest.mark.parametrize("bad", ["weight", "bias", "tau"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_claim_is_made_about_weights_that_are_not_finite(bad, value):
    layer = GradientFlow(3, 2)
    with torch.no_grad():
        getattr(layer, bad).view(-1)[0] = value
    with pytest.raises(InputError, match="finite"):
        layer.claim()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("bad", ["weight", "bias"])
@pytest.mark.parametrize("blocks", [(2,), (1, 1)])
def test_no_claim_is_made_about_affine_maps_that_are_not_finite(bad, value, blocks):
    layer = Linear(Norm((2,)), Norm(blocks))
    with torch.no_grad():
        getattr(layer, bad).view(-1)[0] = value
    with pytest.raises(InputError, match="finite"):
        layer.claim()


def fold(dim, row):
    layer = GradientFlow(dim, 1).double()
    set_(layer.weight, torch.as_tensor(row, dtype=torch.float64)[None])
    set_(layer.bias, 0.0)
    set_(layer.tau, 2.0)
    return layer


@pytest.mark.parametrize("index", [0, 2])
def test_a_fold_along_a_coordinate_is_minus_its_absolute_value_exactly(index):
    x = torch.randn(200, 4, dtype=torch.float64)
    expected = x.clone()
    expected[:, index] = -x[:, index].abs()
    assert torch.equal(fold(4, torch.eye(4)[index])(x), expected)


def test_a_fold_along_a_difference_sorts_the_pair():
    row = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64) / math.sqrt(2)
    x = torch.randn(200, 3, dtype=torch.float64)
    expected = torch.stack((torch.maximum(x[:, 0], x[:, 2]), x[:, 1], torch.minimum(x[:, 0], x[:, 2])), dim=1)
    layer = fold(3, row)
    assert torch.allclose(layer(x), expected, rtol=0, atol=4e-15)
    # With rational numbers in place of the root it is exact: tau = 1 and w = (-1, 0, 1).
    set_(layer.weight, [[-1.0, 0.0, 1.0]])
    set_(layer.tau, 1.0)
    x = torch.randint(-1000, 1000, (200, 3), dtype=torch.float64) / 8
    expected = torch.stack((torch.maximum(x[:, 0], x[:, 2]), x[:, 1], torch.minimum(x[:, 0], x[:, 2])), dim=1)
    assert torch.equal(layer(x), expected)


def test_the_start_keeps_the_gradient_norm():
    layer = GradientFlow(6, 3).double()
    singular = torch.linalg.svdvals(jacobians(layer, torch.randn(100, 6, dtype=torch.float64)))
    assert torch.allclose(singular, torch.ones_like(singular), atol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_monotone_and_1_lipschitz(name):
    function = ACTIVATIONS[name].function
    around_20 = 20 + torch.linspace(-1e-3, 1e-3, 2001, dtype=torch.float64)
    far = torch.tensor([-1e300, -800.0, -37.0, 0.0, 1e-300, 37.0, 710.0, 1e300], dtype=torch.float64)
    for t in (torch.linspace(-50, 50, 100_001, dtype=torch.float64), around_20, far):
        value = function(t)
        assert torch.isfinite(value).all()
        rise, run = value.diff(), t.diff()
        size = torch.maximum(value.abs()[1:], value.abs()[:-1]) + t.abs()[1:] + t.abs()[:-1]
        rounding = 4 * torch.finfo(torch.float64).eps * size
        assert (rise >= -rounding).all(), "not monotone"
        assert (rise <= run + rounding).all(), "steeper than 1"
    zero = torch.zeros(1, dtype=torch.float64)
    assert abs(function(zero).item() - ACTIVATIONS[name].at_zero) < 1e-15


def test_stock_softplus_would_have_been_caught():
    t = 20 + torch.linspace(-1e-9, 1e-9, 2001, dtype=torch.float64)
    rise = torch.nn.functional.softplus(t).diff()
    assert (rise.abs() > t.diff() * 100).any()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_agree_with_50_digits(name):
    exact = {
        "relu": lambda t: max(t, mpmath.mpf(0)),
        "leaky_relu": lambda t: t if t > 0 else mpmath.mpf(0.1) * t,
        "hardtanh": lambda t: max(min(t, mpmath.mpf(1)), mpmath.mpf(-1)),
        "tanh": mpmath.tanh,
        "softplus": lambda t: mpmath.log1p(mpmath.exp(t)) if t < 200 else t,
    }[name]
    t = torch.cat((torch.linspace(-30, 30, 301, dtype=torch.float64), 10 ** torch.linspace(-12, 2, 40).double()))
    value = ACTIVATIONS[name].function(t)
    with mpmath.workdps(50):
        for point, found in zip(t.tolist(), value.tolist()):
            truth = exact(mpmath.mpf(point))
            assert abs(mpmath.mpf(found) - truth) <= ACTIVATIONS[name].roundings * mpmath.mpf(2) ** -53 * abs(truth)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_gradients_of_the_residual_layer_are_right_to_second_order(activation):
    layer = GradientFlow(3, 2, activation=activation).double()
    parameters = [p.detach().clone().requires_grad_(True) for p in layer.parameters()]
    names = [name for name, _ in layer.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(call, (x, *parameters))
    assert torch.autograd.gradgradcheck(call, (x, *parameters))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own use, in forward mode
def test_a_residual_layer_is_differentiated_forwards_and_compiled_as_one_graph():
    layer, x = GradientFlow(5, 3).double(), torch.randn(7, 5, dtype=torch.float64)
    one = lambda v: layer(v[None])[0]  # noqa: E731
    backwards = torch.func.vmap(torch.func.jacrev(one))(x)
    assert torch.allclose(backwards, jacobians(layer, x), atol=1e-14)
    assert torch.allclose(torch.func.vmap(torch.func.jacfwd(one))(x), backwards, atol=1e-14)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.allclose(jacobians(compiled, x), backwards, atol=1e-14)


def test_the_rounding_covers_weights_that_underflow_under_a_huge_bias():
    layer = GradientFlow(1, 1).double()
    tiny = 5e-324
    for parameter, value in ((layer.weight, 3 * tiny), (layer.bias, 1e300), (layer.tau, 0.5)):
        set_(parameter, value)
    rounding = layer.claim().rounding
    with mpmath.workdps(700):
        exact = -mpmath.mpf(0.5) * mpmath.mpf(3 * tiny) * mpmath.mpf(1e300)
        found = layer(torch.zeros(1, 1, dtype=torch.float64)).item()
        error = abs(found - exact)
        assert error > 1e-16 * abs(exact), "the case must underflow"
        assert error <= gamma(rounding.operations) * mpmath.mpf(rounding.offset)


# Retraction


def semi_orthogonal(weight):
    """A layer whose weight is constrained to ‖W‖ ≤ 1, holding `weight`."""
    layer = Linear(Norm((weight.shape[1],)), Norm((weight.shape[0],))).to(weight.dtype)
    if weight.shape[0] == 1:
        layer = GradientFlow(weight.shape[1], 1).to(weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def spectral_bound(layer):
    return upper_bound_norm(layer.weight)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(0, 2**32 - 1),
    st.integers(-30, 30),
    st.sampled_from(["dense", "rank one", "spiked", "zero", "ones", "graded", "orthogonal", "near root 3"]),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_one_retraction_lands_inside_from_anywhere(m, n, seed, exponent, kind, dtype):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((m, n))
    if kind == "rank one":
        weight = weight[:, :1] * weight[:1]
    elif kind == "spiked":
        weight[0, 0] *= 1e3
    elif kind == "zero":
        weight[:] = 0
    elif kind == "ones":
        weight[:] = 1
    elif kind == "graded":
        weight *= 10.0 ** rng.uniform(-8, 0, (m, n))
    elif kind == "orthogonal":
        weight = np.linalg.qr(rng.standard_normal((7, 7)))[0][:m, :n]
    elif kind == "near root 3":
        weight, exponent = weight / np.linalg.norm(weight, 2) * math.sqrt(3) * (1 + 1e-3 * rng.standard_normal()), 0
    layer = semi_orthogonal(torch.from_numpy(weight * 10.0**exponent).to(dtype))
    Retraction(layer)()
    assert torch.isfinite(layer.weight).all()
    assert spectral_bound(layer) <= (1 if dtype != torch.float64 else 1 + 1e-13)
    if kind == "zero":
        assert layer.weight.abs().max() == 0


@pytest.mark.parametrize("shape", [(64, 64), (256, 96), (3, 512), (1, 4096)])
@pytest.mark.parametrize("kind", ["dense", "ones", "rank one", "spiked", "orthogonal", "nonnegative"])
def test_one_retraction_lands_inside_at_size(shape, kind):
    weight = torch.randn(shape)
    if kind == "ones":
        weight = torch.ones(shape)
    elif kind == "rank one":
        weight = weight[:, :1] * weight[:1]
    elif kind == "spiked":
        weight[0, 0] = 1e20
    elif kind == "nonnegative":
        weight = weight.abs()
    elif kind == "orthogonal":
        weight = nn.init.orthogonal_(weight)
    layer = semi_orthogonal(weight)
    for _ in range(3):
        Retraction(layer)()
        assert spectral_bound(layer) <= 1


BLOCK_CASES = [
    ((8,), (1,)),
    ((1,) * 6, (1, 1)),
    ((1, 1, 1, 5), (1,)),
    ((1, 1, 1, 5), (1, 1, 1, 5)),
    ((2, 3), (3, 3, 1, 2)),
]


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(BLOCK_CASES),
    st.integers(0, 2**32 - 1),
    st.integers(-30, 30),
    st.sampled_from(["dense", "spiked", "zero", "zero row"]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_one_retraction_lands_inside_every_block_norm(blocks, seed, exponent, kind, dtype):

    layer = Linear(Norm(blocks[0]), Norm(blocks[1])).to(dtype)
    weight = np.random.default_rng(seed).standard_normal(layer.weight.shape)
    if kind == "spiked":
        weight[0, 0] *= 1e3
    elif kind == "zero":
        weight[:] = 0
    elif kind == "zero row":
        weight[0] = 0
    set_(layer.weight, weight * 10.0**exponent)
    Retraction(layer)()
    assert torch.isfinite(layer.weight).all()
    assert layer.claim().lipschitz <= (1 if dtype == torch.float32 else 1 + 1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-38, 1e-30, 1e-20, 1e20, 1e30, 1e38])
@pytest.mark.parametrize("norm", [Norm((8,)), Norm((1,) * 8), Norm((1, 1, 1, 5))], ids=str)
def test_rows_of_any_scale_end_with_block_norms_that_add_up_to_1(norm, scale, dtype):
    layer = Linear(norm, Norm((1, 1))).to(dtype)
    set_(layer.weight, scale * torch.randn(layer.weight.shape, dtype=torch.float64))
    given_weight = layer.weight.detach().clone()
    Retraction(layer)()
    claim = layer.claim().lipschitz
    assert claim <= 1 + 1e-13
    if given_weight.abs().max() > 10 * torch.finfo(dtype).tiny:
        assert claim == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("dim", [784, 3072, 12288])
@pytest.mark.parametrize("kind", ["ones", "nonnegative", "dense"])
@pytest.mark.parametrize("blocks", ["euclidean", "max"])
def test_long_rows_land_inside_too(dim, kind, blocks):
    norm = Norm((dim,)) if blocks == "euclidean" else Norm((1,) * dim)
    layer = Linear(norm, Norm((1,)))
    weight = torch.rand(1, dim) if kind == "nonnegative" else torch.randn(1, dim)
    set_(layer.weight, torch.ones(1, dim) if kind == "ones" else weight)
    Retraction(layer)()
    assert layer.claim().lipschitz <= 1
    assert layer.claim().lipschitz == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("level", [0.4, 0.8, 0.95])
def test_rows_as_long_as_a_photograph_land_inside(level):
    """A running sum of equal squares rounds the same way every time, here by 6e-5."""
    layer = Linear(Norm((3 * 224 * 224,)), Norm((1,)))
    set_(layer.weight, level)
    layer.weight.data[0, 0] = 1
    Retraction(layer)()
    assert 1 - 1e-5 <= layer.claim().lipschitz <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "blocks", [((512,), (512,)), ((70_000,), (1,)), ((1,) * 70_000, (1,))], ids=["square", "row", "max"]
)
def test_half_precision_lands_inside_also_where_its_sums_overflow(dtype, blocks):
    layer = Linear(*map(Norm, blocks)).to(dtype)
    set_(layer.weight, 1.0)
    Retraction(layer)()
    assert 0 < layer.claim().lipschitz <= 1
    assert layer.weight.dtype == dtype


@pytest.mark.parametrize(("m", "n"), [(6, 6), (3, 8), (8, 3)])
def test_singular_values_near_1_converge_to_1(m, n):
    u, _, v = torch.linalg.svd(torch.randn(m, n, dtype=torch.float64), full_matrices=False)
    near = 1 + 0.4 * (torch.rand(min(m, n), dtype=torch.float64) - 0.5)
    layer = semi_orthogonal(u * near @ v)
    errors = []
    for _ in range(5):
        Retraction(layer)()
        errors.append((torch.linalg.svdvals(layer.weight.detach()) - 1).abs().max().item())
    assert errors[-1] < 1e-13
    assert errors[1] <= 2 * errors[0] ** 2 + 1e-13, "not quadratic"


@pytest.mark.parametrize("scale", [1.0, 2.0, 40.0])
def test_the_retraction_keeps_singular_vectors_and_applies_its_cubic(scale):
    h = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / math.sqrt(2)
    u = torch.kron(h, h)  # flat singular vectors: large norms from small entries
    v = torch.linalg.qr(torch.randn(8, 4, dtype=torch.float64)).Q.T if scale == 1 else torch.kron(u, h)[:4]
    s = scale * torch.tensor([1.1, 0.9, 0.5, 0.1], dtype=torch.float64)
    layer = semi_orthogonal(u * s @ v)
    s = s / layer.weight.abs().max().clamp_min(1).item()  # large entries are brought to 1 first
    gram = u * s**2 @ u.T
    shrink = min(1.0, math.sqrt(2.999 / gram.abs().sum(1).max().item()))
    assert (shrink < 1) == (scale > 1)
    t = s * shrink
    Retraction(layer)()
    assert torch.allclose(layer.weight.detach(), u * (1.5 * t - 0.5 * t**3) @ v, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_equal_shapes_is_retracted_as_one_by_one(dtype):
    layers = [GradientFlow(5, 3).to(dtype) for _ in range(4)]
    for layer in layers:
        with torch.no_grad():
            layer.weight.mul_(torch.randn(()) * 3)
    alone = copy.deepcopy(layers)
    Retraction(nn.ModuleList(layers))()
    for together, single in zip(layers, alone):
        Retraction(single)()
        assert torch.allclose(together.weight, single.weight, rtol=0, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("scale", [1e17, 1e19, 1e30, 3e38])
def test_weights_whose_squares_overflow_end_inside(scale):
    layer = GradientFlow(6, 4)
    set_(layer.weight, scale * torch.rand(4, 6).sub(0.5).sign())
    Retraction(layer)()
    assert torch.isfinite(layer.weight).all()
    assert layer.claim().lipschitz == 1.0
    assert norm_of(layer.weight) > 0.1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_so_and_spoils_no_other_layer(value):
    layers = nn.ModuleList(GradientFlow(6, 4) for _ in range(3))
    with torch.no_grad():
        layers[1].weight[2, 3] = value
    others = copy.deepcopy(nn.ModuleList([layers[0], layers[2]]))
    Retraction(layers)()
    Retraction(others)()
    with pytest.raises(InputError, match="finite"):
        layers[1].claim()
    assert torch.allclose(layers[0].weight, others[0].weight, rtol=0, atol=1e-6)
    assert torch.allclose(layers[2].weight, others[1].weight, rtol=0, atol=1e-6)


def test_a_copy_is_retracted_apart_from_its_original():
    layer = GradientFlow(6, 4)
    set_(layer.weight, 3 * torch.randn(4, 6))
    before = layer.weight.detach().clone()
    Retraction(copy.deepcopy(layer))()
    assert torch.equal(layer.weight, before)


def test_the_retraction_finds_parameters_anew_after_a_move_or_a_load():
    layer = Linear(Norm((4,)), Norm((1, 3)))
    retraction = Retraction(layer)
    layer.double()
    set_(layer.weight, 100 * torch.randn(4, 4))
    retraction()
    assert layer.claim().lipschitz <= 1 + 1e-12
    state = {k: 50 * v for k, v in layer.state_dict().items()}
    layer.load_state_dict(state, assign=True)
    assert layer.claim().lipschitz > 10
    retraction()
    assert layer.claim().lipschitz <= 1 + 1e-12
    layer.weight = nn.Parameter(7 * torch.randn(4, 4))
    retraction()
    assert layer.claim().lipschitz <= 1


def test_steps_are_clamped_and_other_blocks_zeroed():
    flow = GradientFlow(3, 2)
    for start, end in ((-3.0, 0.0), (1.5, 1.5), (9.0, 2.0), (math.inf, 2.0)):
        set_(flow.tau, start)
        Retraction(flow)()
        assert flow.tau.item() == end
    layer = Linear(Norm((1, 3, 1)), Norm((3, 1)))
    set_(layer.weight, torch.randn(4, 5))
    Retraction(layer)()
    assert (layer.weight[:3, [0, 4]] == 0).all()
    assert (layer.weight[3] != 0).all()


def test_the_retraction_leaves_gradients_and_biases_alone():
    layer = GradientFlow(4, 2)
    layer(torch.randn(3, 4)).sum().backward()
    before = [p.grad.clone() for p in layer.parameters()]
    bias = layer.bias.detach().clone()
    Retraction(layer)()
    assert all(torch.equal(p.grad, g) for p, g in zip(layer.parameters(), before))
    assert torch.equal(layer.bias, bias)
    assert all(p.requires_grad and p.is_leaf for p in layer.parameters())


# Optimisers


def push(layer, optimizer):
    optimizer.zero_grad()
    (1e4 * layer(torch.randn(8, 4, dtype=layer.weight.dtype)).square().sum()).backward()
    optimizer.step()


def test_layers_added_or_replaced_after_registration_are_retracted_too():
    module = nn.Sequential(GradientFlow(4, 2))
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    constrain_steps(optimizer, module)
    module[0] = GradientFlow(4, 3)
    module.append(GradientFlow(4, 2))
    optimizer.add_param_group({"params": module[1].parameters()})
    for layer in module:
        set_(layer.weight, 10.0)
    optimizer.step()
    assert [layer.claim().lipschitz for layer in module] == [1.0, 1.0]


def test_registering_twice_does_no_harm_and_nothing_more():
    layer = GradientFlow(4, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=10.0)
    for _ in range(3):
        constrain_steps(optimizer, layer)
    assert len(optimizer._optimizer_step_post_hooks) == 1
    other = Linear(Norm((4,)), Norm((4,)))
    constrain_steps(optimizer, other)
    assert len(optimizer._optimizer_step_post_hooks) == 2
    push(layer, optimizer)
    assert layer.claim().lipschitz == 1.0


def test_without_registration_the_constant_grows_and_the_claim_says_so():
    layer = GradientFlow(4, 2)
    push(layer, torch.optim.SGD(layer.parameters(), lr=10.0))
    assert layer.claim().lipschitz > 100


def test_an_optimiser_over_some_parameters_is_enough():
    layers = nn.ModuleList([GradientFlow(4, 2), GradientFlow(4, 3)])
    optimizer = torch.optim.SGD([layers[0].weight], lr=10.0)
    constrain_steps(optimizer, layers)
    with torch.no_grad():
        layers[1].weight.mul_(100)
    push(layers[0], optimizer)
    assert all(layer.claim().lipschitz <= 1 for layer in layers)


def test_an_optimiser_with_a_closure_works():
    layer = GradientFlow(4, 2).double()
    optimizer = torch.optim.LBFGS(layer.parameters(), lr=1.0, max_iter=3)
    constrain_steps(optimizer, layer)
    x = torch.randn(8, 4, dtype=torch.float64)

    def closure():
        optimizer.zero_grad()
        loss = (layer(x) - 3 * x).square().sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
        assert layer.claim().lipschitz <= 1 + 1e-12


def test_registration_keeps_neither_alive_and_the_optimiser_copyable():
    layer = GradientFlow(4, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    constrain_steps(optimizer, layer)
    pickle.dumps(optimizer.state_dict())
    copy.deepcopy(layer)
    reference = weakref.ref(optimizer)
    module = weakref.ref(layer)
    del optimizer, layer
    gc.collect()
    assert reference() is None
    assert module() is None


# The small layers


def test_maxmin_sorts_pairs_in_descending_order():
    x = torch.randn(50, 6, dtype=torch.float64)
    expected = x.view(50, 3, 2).sort(dim=-1, descending=True).values.view(50, 6)
    assert torch.equal(MaxMin(6)(x), expected)
    assert MaxMin(6).claim().norm_in == Norm((1,) * 6)
    assert MaxMin(6, Norm((6,))).claim().norm_out == Norm((6,))


@pytest.mark.parametrize("dim", [0, 1, 3, -2])
def test_maxmin_needs_pairs(dim):
    with pytest.raises(InputError, match="MaxMin sorts pairs"):
        MaxMin(dim)


def test_maxmin_refuses_norms_it_does_not_keep():
    with pytest.raises(InputError, match="Euclidean or maximum norm"):
        MaxMin(4, Norm((1, 3)))
    with pytest.raises(InputError, match="Euclidean or maximum norm"):
        MaxMin(4, Norm((6,)))


def test_maxmin_would_expand_a_norm_that_splits_a_pair():
    """Why the refusal: with blocks (1, 2, 1) two equal pairs cross the block boundary."""
    norm = Norm((1, 2, 1))
    x, y = torch.tensor([[1.0, 0, 0, 1.0]]), torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    difference = (MaxMin(4)(torch.tensor([[0.0, 1.0, 0.0, -1.0]])) - MaxMin(4)(torch.zeros(1, 4)))[0]
    assert norm.dim == 4
    assert max(difference[block].norm().item() for block in norm.slices) == 1.0
    assert torch.equal(MaxMin(4)(x), MaxMin(4)(y))


def test_parallel_joins_blocks_and_takes_the_largest_constant():
    flow = GradientFlow(3, 2)
    set_(flow.weight, 2 * torch.eye(2, 3))
    layer = Parallel(MaxMin(2), flow, Linear(Norm((2,)), Norm((1,))))
    claim = layer.claim()
    assert claim.norm_in == Norm((1, 1, 3, 2))
    assert claim.norm_out == Norm((1, 1, 3, 1))
    assert claim.lipschitz == flow.claim().lipschitz == pytest.approx(7, rel=1e-12)
    x = torch.randn(4, 7)
    parts = [module(part) for module, part in zip(layer.layers, x.split([2, 3, 2], dim=1))]
    assert torch.equal(layer(x), torch.cat(parts, dim=1))


def test_parallel_needs_layers_that_state_their_norm():
    class Shapeless(Identity):
        def claim(self):
            return super().claim().__class__(1.0, "any norm")

    with pytest.raises(InputError, match="must state its norm"):
        Parallel(MaxMin(2), Shapeless(Norm((1,))))


def test_flatten_takes_images_to_rows_and_refuses_other_sizes():
    x = torch.randn(3, 2, 4, 5)
    assert torch.equal(Flatten(40)(x), x.reshape(3, 40))
    for bad in (torch.randn(3, 39), torch.randn(40), torch.randn(3, 2, 20, 2), torch.tensor(1.0)):
        with pytest.raises(InputError, match=r"\(b, 40\)"):
            Flatten(40)(bad)


def test_squeeze_and_identity():
    assert Squeeze()(torch.zeros(4, 1)).shape == (4,)
    x = torch.randn(2, 3)
    assert Identity(Norm((3,)))(x) is x


def test_the_affine_claim_is_its_block_norm():
    norm_in, norm_out = Norm((1, 3)), Norm((1, 1, 2))
    layer = Linear(norm_in, norm_out).double()
    set_(layer.weight, torch.randn(4, 4))
    assert layer.claim().lipschitz == upper_bound_operator_norm(layer.weight, norm_in, norm_out)
    x = torch.randn(5, 4, dtype=torch.float64)
    set_(layer.bias, torch.arange(4))
    assert torch.allclose(layer(x), x @ layer.weight.T + layer.bias)


@pytest.mark.parametrize(("dim", "hidden"), [(0, 3), (3, 0), (-1, 2)])
def test_sizes_below_1_are_refused(dim, hidden):
    with pytest.raises(InputError, match="at least 1"):
        GradientFlow(dim, hidden)


def test_unknown_activations_are_refused_with_the_legal_ones():
    with pytest.raises(InputError, match="relu, leaky_relu, hardtanh, tanh, softplus, spline, not 'gelu'"):
        GradientFlow(3, 2, activation="gelu")


def test_biases_start_in_the_given_units():
    for scale in (0.0, 0.01, 50.0):
        bias = GradientFlow(4, 400, bias_scale=scale).bias.abs().max().item()
        assert bias <= scale
        assert bias >= 0.9 * scale
