import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradparity.parity.bits import LARGE, bits, ordered, same_bits, ulp_distance

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
any_float64 = st.integers(0, 2**64 - 1).map(lambda i: struct.unpack("<d", struct.pack("<Q", i))[0])


def one(value, dtype=torch.float32):
    return torch.tensor([value], dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_and_minus_zero_differ_by_one_ulp(dtype):
    assert torch.equal(one(0.0, dtype), one(-0.0, dtype)), "which is why torch.equal is not used"
    assert not same_bits(one(0.0, dtype), one(-0.0, dtype))
    assert ulp_distance(one(0.0, dtype), one(-0.0, dtype)).item() == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_is_the_same_as_itself_and_not_as_one_with_another_payload(dtype):
    nan = one(math.nan, dtype)
    other = (bits(nan) ^ 1).view(dtype)
    assert other.isnan().all()
    assert same_bits(nan, nan.clone())
    assert ulp_distance(nan, nan.clone()).item() == 0
    assert not same_bits(nan, other)
    assert ulp_distance(nan, other).item() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_pattern_of_16_bits_has_its_own_rank_in_the_order_of_the_values(dtype):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    ranks = ordered(every)
    assert len(ranks.unique()) == 2**16
    numbers = every[~every.isnan()]
    in_order = numbers[ordered(numbers).argsort()].double()
    assert (in_order.diff().nan_to_num(1.0) >= 0).all()


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(1, 50))
def test_distance_counts_steps_of_nextafter(value, steps):
    there = np.float32(value)
    with np.errstate(over="ignore", under="ignore"):  # nextafter warns where it leaves or enters the finite numbers
        for _ in range(steps):
            there = np.nextafter(there, np.float32(np.inf))
    crossed_zero = value < 0 <= there or (value == 0 and math.copysign(1, value) < 0)
    expected = steps + crossed_zero if np.isfinite(there) else None
    if expected is not None and not (there == 0 and math.copysign(1, there) < 0):
        assert ulp_distance(one(value), one(float(there))).item() == expected


@given(any_float64, any_float64)
def test_distance_is_a_metric_that_is_zero_only_for_the_same_bits(x, y):
    a, b = one(x, torch.float64), one(y, torch.float64)
    exact = abs(ordered(a).item() - ordered(b).item())
    assert ulp_distance(a, b).item() == ulp_distance(b, a).item() == min(exact, 2**63 - 1)
    assert (exact == 0) == same_bits(a, b)


def test_the_largest_distance_is_saturated_and_not_wrapped():
    lowest = torch.tensor([-1], dtype=torch.int64).view(torch.float64)
    highest = torch.tensor([2**63 - 1], dtype=torch.int64).view(torch.float64)
    assert ulp_distance(lowest, highest).item() == 2**63 - 1
    assert ulp_distance(one(-1.0, torch.float64), one(1.0, torch.float64)).item() == 2 * 0x3FF0000000000000 + 1


def test_complex_numbers_are_pairs():
    a = torch.tensor([1 + 2j])
    assert same_bits(a, a.clone())
    assert not same_bits(a, a.conj().resolve_conj())
    assert ulp_distance(a, torch.tensor([1 + 2.0000002384185791j])).tolist() == [[0, 1]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_integers_have_bits_too(dtype):
    assert same_bits(torch.tensor([0, 1], dtype=dtype), torch.tensor([0, 1], dtype=dtype))
    assert not same_bits(torch.tensor([0, 1], dtype=dtype), torch.tensor([1, 1], dtype=dtype))


def test_bits_are_a_view():
    t = torch.randn(4, 6)[:, ::2]
    assert bits(t).data_ptr() == t.data_ptr()


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int8, torch.complex64])
@pytest.mark.parametrize("beyond", [0, 1, 3])
def test_a_bit_anywhere_in_a_large_tensor_is_seen(dtype, beyond):
    a = torch.randn(LARGE).to(dtype)[: LARGE // dtype.itemsize + beyond]  # some fill words of eight bytes, some do not
    assert a.nbytes >= LARGE
    assert same_bits(a, a.clone())
    for place in (0, len(a) // 2, len(a) - 1):
        b = a.clone()
        bits(b).view(-1)[bits(b).numel() * place // len(b)] ^= 1
        assert not same_bits(a, b)


def test_large_tensors_keep_zeros_and_nans_apart_wherever_they_lie():
    zeros = torch.zeros(LARGE)
    assert not same_bits(zeros, -zeros)
    nans = torch.full((LARGE,), math.nan)
    assert same_bits(nans, nans.clone())
    odd = torch.randn(LARGE + 1)[1:]  # starts in the middle of a word
    assert same_bits(odd, odd.clone())
    columns = torch.randn(LARGE, 2).t()
    assert same_bits(columns, columns.contiguous())
    assert not same_bits(columns, columns.flip(1))
