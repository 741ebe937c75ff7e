"""A fingerprint is the same for the same bits, and for no others."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradparity.parity.bits import same_bits
from gradparity.trace.compare_fingerprints import fingerprint_kinds
from gradparity.trace.late_fingerprints import fingerprint, fingerprint_value
from gradparity.trace.late_hash import late_hash_of_all

DTYPES = [
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


@given(st.lists(st.floats(width=32), min_size=1, max_size=6), st.data())
def test_digests_are_equal_exactly_where_bits_are(values, data):
    a = torch.tensor(values)
    b = a[torch.tensor(data.draw(st.permutations(range(len(a)))))]
    assert (fingerprint(a).digest == fingerprint(b).digest) == same_bits(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 4), (2, 1, 5)])
def test_every_dtype_and_shape_has_one(dtype, shape):
    tensor = torch.ones(shape).to(dtype)
    one, other = fingerprint(tensor), fingerprint(tensor.clone())
    assert one == other
    assert (one.dtype, one.shape, len(one.digest)) == (str(dtype).removeprefix("torch."), shape, 32)
    if tensor.numel():
        changed = tensor.clone()
        changed.view(-1)[-1] = 0
        assert fingerprint(changed).digest != one.digest


NAN, OTHER_NAN = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
X = torch.arange(1.0, 7.0).view(2, 3)


@pytest.mark.parametrize(
    ("what", "a", "b", "kind"),
    [
        ("two elements swapped: the same sum, norm and XOR", X, X.flip(1), "bits"),
        ("two rows swapped", X, X.flip(0), "bits"),
        ("all signs flipped: the same norm", X, -X, "bits"),
        ("the sign of a zero", torch.zeros(3), -torch.zeros(3), "bits"),
        ("the payload of a NaN", NAN, OTHER_NAN, "bits"),
        ("one ULP", X, torch.nextafter(X, X + 1), "bits"),
        ("a transposed memory", X, X.t().contiguous().t(), "strides"),
        ("an expanded memory", torch.ones(3), torch.ones(1).expand(3), "strides"),
        ("another shape", X, X.view(3, 2), "shape"),
        ("another dtype", X, X.double(), "dtype"),
        ("sparse for dense", X, X.to_sparse(), "layout"),
        ("not coalesced", X.to_sparse(), torch.sparse_coo_tensor(X.to_sparse().indices(), X.to_sparse().values(), (2, 3), check_invariants=False), "layout"),
        ("zero for none", None, torch.zeros(3), "presence"),
        ("another number", 0.1, 0.2, "value"),
        ("an integer for a float", 1, 1.0, "value"),
    ],
)  # fmt: skip
def test_differences_that_a_sum_a_norm_or_equal_would_miss_are_seen(what, a, b, kind):
    assert [str(k) for k in fingerprint_kinds(fingerprint_value(a), fingerprint_value(b))] == [kind], what
    assert not list(fingerprint_kinds(fingerprint_value(a), fingerprint_value(a)))


def test_sparse_tensors_are_distinguished_by_indices_and_values():
    a = torch.sparse_coo_tensor([[0, 1]], [1.0, 2.0], (3,), check_invariants=False)
    b = torch.sparse_coo_tensor([[0, 2]], [1.0, 2.0], (3,), check_invariants=False)
    c = torch.sparse_coo_tensor([[0, 1]], [1.0, 3.0], (3,), check_invariants=False)
    assert len({fingerprint(t).digest for t in (a, b, c)}) == 3


def test_a_stride_that_leads_nowhere_is_no_difference():
    a, b = torch.ones(1, 3), torch.ones(3, 1).t()
    assert fingerprint(a).strides != fingerprint(b).strides
    assert not list(fingerprint_kinds(fingerprint(a), fingerprint(b)))


def test_a_norm_is_reported_and_not_compared():
    one = fingerprint(torch.tensor([3.0, 4.0]))
    assert one.norm == 5.0
    assert not list(fingerprint_kinds(one, one._replace(norm=6.0)))


@pytest.mark.parametrize(
    ("tensor", "size"),
    [
        (torch.tensor(-2.5), -2.5),
        (torch.tensor([-2.5]), -2.5),
        (torch.tensor(-2.5, dtype=torch.bfloat16), -2.5),
        (torch.tensor(7), 7.0),
        (torch.tensor([-3.0, 4.0]), 5.0),
        (torch.tensor([3, 4]), 0.0),
    ],
)
def test_one_element_is_kept_with_its_sign_and_several_by_their_norm(tensor, size):
    assert fingerprint(tensor).norm == size


@pytest.mark.parametrize("dtype", DTYPES)
def test_with_the_last_fingerprint_it_is_the_same(dtype):
    tensor = torch.ones(5).to(dtype)
    last = fingerprint(tensor)
    assert fingerprint(tensor, last) == last
    tensor[2] = 0
    assert fingerprint(tensor, last) == fingerprint(tensor) != last


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_hash_of_several_tensors_changes_with_any_element_and_with_their_order(dtype):
    def some():
        return [torch.ones(2, 2).to(dtype), torch.zeros(3).to(dtype), torch.ones(2, 2).to(dtype).t()[:1]]

    changed = some()
    changed[2][0, 1] = 0
    hashes = [late_hash_of_all(some()), late_hash_of_all(changed), late_hash_of_all(reversed(some()))]
    assert hashes[0] == late_hash_of_all(some())
    assert len(set(hashes)) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("channels", [4, 70, 300])
def test_weights_in_another_memory_format_are_not_other_weights(dtype, channels):
    weights = torch.arange(channels * 4 * 30 * 30).reshape(channels, 4, 30, 30).to(dtype)
    some = [weights, weights[:2, :, :2, :2].contiguous()]
    moved = [one.contiguous(memory_format=torch.channels_last) for one in some]
    assert late_hash_of_all(some) == late_hash_of_all(moved)
    moved[0][0, 0, 0, 1] += 1
    assert late_hash_of_all(some) != late_hash_of_all(moved)
