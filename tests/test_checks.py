"""Checks of input: good arrays pass unchanged, bad ones are refused with what is wrong and what to do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from wgan_lip.utils import checks
from wgan_lip.utils.checks import InputError, UncertifiableError, check_choice, check_pair, check_samples, check_weights


def test_errors_are_value_errors_of_one_family():
    assert issubclass(InputError, ValueError)
    assert issubclass(UncertifiableError, InputError)


def test_choice_returns_the_value_or_names_all_choices():
    assert check_choice("b", ["a", "b"], "mode") == "b"
    with pytest.raises(InputError, match=r"mode must be one of a, b, not 'c'\."):
        check_choice("c", ["a", "b"], "mode")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float_tensors_pass_as_they_are(dtype):
    x = torch.randn(4, 3, dtype=dtype, requires_grad=True)
    checked = check_samples(x, "x")
    assert checked is x


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_half_precision_becomes_float32_exactly(dtype):
    x = torch.randn(5, 2).to(dtype)
    checked = check_samples(x, "x")
    assert checked.dtype == torch.float32
    assert torch.equal(checked.to(dtype).float(), x.float())


@pytest.mark.parametrize("dtype", ["i1", "i8", "u1", "u2", "u4", "u8", ">f8", ">f4", ">i4", "f2", "f4", "f8", "g"])
def test_numpy_types_keep_their_values(dtype):
    values = np.array([[0, 1], [7, 100]])
    checked = check_samples(values.astype(dtype), "x")
    assert checked.dtype in (torch.float32, torch.float64)
    assert np.array_equal(checked.numpy(), values)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_integer_tensors_become_float64(dtype):
    checked = check_samples(torch.tensor([[3, 5]], dtype=dtype), "x")
    assert checked.dtype == torch.float64
    assert checked.tolist() == [[3.0, 5.0]]


def test_integers_are_exact_up_to_2_53():
    checked = check_samples(np.array([[2**53, -(2**53) + 1]]), "x")
    assert [int(v) for v in checked[0]] == [2**53, -(2**53) + 1]
    assert int(check_samples(np.array([[2**60, 2**62]]), "x")[0, 1]) == 2**62
    for wide in (2**53 + 1, -(2**60) - 1, 2**63 + 1):
        for array in (np.array([[wide]]), np.array([[0.0, wide]], dtype="g")):
            with pytest.raises(InputError, match="numbers that float64 can represent"):
                check_samples(array, "x")


def test_arrays_are_copied_and_may_have_any_strides():
    array = np.arange(12.0).reshape(4, 3)
    checked = check_samples(array[::-1, ::2], "x")
    array[:] = -1
    assert checked.tolist() == [[9, 11], [6, 8], [3, 5], [0, 2]]


def test_flat_arrays_are_scalars():
    for flat in ([1.0, 2.0], np.array([1, 2]), torch.tensor([1.0, 2.0])):
        assert check_samples(flat, "x").tolist() == [[1.0], [2.0]]


def test_lists_are_samples():
    assert check_samples([[1, 2], [3, 4]], "x").shape == (2, 2)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(3, 2, dtype=torch.complex64), "real numbers.*complex64"),
        (torch.zeros(3, 2, dtype=torch.bool), "real numbers.*bool"),
        (torch.zeros(3, 2, device="meta"), "meta device"),
        (torch.eye(3).to_sparse(), "sparse_coo.*to_dense"),
        (np.zeros((3, 2), dtype=complex), "real numbers.*complex128"),
        (np.zeros((3, 2), dtype=bool), "real numbers.*bool"),
        (np.array([["a", "b"]]), "real numbers"),
        ([[None, 1.0]], "real numbers.*object"),
        (torch.zeros(2, 3, 4), r"shape \(n, d\), not \(2, 3, 4\).*Flatten"),
        (torch.tensor(1.0), r"shape \(n, d\), not \(\)"),
        (torch.zeros(3, 0), "at least one column"),
        (torch.zeros(0, 2), "at least one sample, not 0"),
        (torch.tensor([[1.0, 2.0], [float("nan"), 0.0], [float("inf"), 0.0]]), "2 of 3 rows.*row 1"),
        (np.array([[1.0], [-np.inf]]), "1 of 2 rows.*row 1"),
    ],
)
def test_unusable_samples_are_refused(bad, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        check_samples(bad, "x")


def test_ragged_lists_are_refused_like_all_other_input():

    with pytest.raises(InputError):
        check_samples([[1.0, 2.0], [3.0]], "x")


def test_the_minimum_is_counted_and_named():
    with pytest.raises(InputError, match="at least 3 samples, not 2"):
        check_samples(torch.zeros(2, 1), "x", minimum=3)
    assert check_samples(torch.zeros(3, 1), "x", minimum=3).shape == (3, 1)


def test_pairs_need_one_dimension_and_name_the_culprit():
    x, y = check_pair(np.zeros((2, 3)), torch.zeros(4, 3))
    assert (x.shape, y.shape) == ((2, 3), (4, 3))
    with pytest.raises(InputError, match=r"the same dimension.*\(2, 3\).*\(4, 2\)"):
        check_pair(np.zeros((2, 3)), torch.zeros(4, 2))
    with pytest.raises(InputError, match="y must be finite"):
        check_pair(torch.zeros(1, 1), torch.full((1, 1), torch.nan))
    with pytest.raises(InputError, match="y must have at least 2 samples"):
        check_pair(torch.zeros(2, 1), torch.zeros(1, 1), minimum=2)


def test_weights_pass_in_float64():
    assert check_weights(None, 3, "a") is None
    for weights in ([0, 1, 2], torch.tensor([0.0, 1.0, 2.0], requires_grad=True), np.array([0, 1, 2])):
        checked = check_weights(weights, 3, "a")
        assert checked.dtype == np.float64
        assert checked.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], r"shape \(3,\), not shape \(2,\)"),
        ([[1.0], [2.0], [3.0]], r"not shape \(3, 1\)"),
        ([1.0, -1e-300, 1.0], "position 1"),
        ([1.0, 1.0, float("nan")], "not nan at position 2"),
        ([float("inf"), 1.0, 1.0], "position 0"),
        ([0.0, 0.0, 0.0], "positive total"),
    ],
)
def test_unusable_weights_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        check_weights(weights, 3, "a")


@pytest.mark.parametrize(("need", "said"), [(math.inf, "over a trillion GiB"), (2.0**80, "over a"), (2.0**32, "4 GiB")])
def test_more_memory_than_there_is_has_a_size(monkeypatch, need, said):
    monkeypatch.setattr(checks, "available_memory", lambda: 2**30)
    with pytest.raises(
        InputError, match=f"memory for a test: {said}.* are needed, 1 GiB are available. Wait."
    ) as refusal:
        checks.check_memory(need, "a test", "Wait.")
    assert "inf" not in str(refusal.value)
    checks.check_memory(2**29, "a test", "Wait.")
