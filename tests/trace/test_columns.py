"""Fingerprints in columns are those that one call each would give, in every form and order."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradparity.parity.dense_parts import HAS_NAMES
from gradparity.trace import arrangement
from gradparity.trace.arrangement import SMALL, arrangement_if_simple
from gradparity.trace.columns import Columns, Forms, NamedColumns, in_columns, split
from gradparity.trace.digest import digest_of
from gradparity.trace.late_fingerprints import LateFingerprints, fingerprint, fingerprints_of

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool, torch.uint8, torch.int8, torch.int16,
    torch.int32, torch.int64, torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2,
)  # fmt: skip
SHAPES = ((), (0,), (1,), (3,), (2, 3), (4, 1, 2), (SMALL // 8 + 1,), (33, 40))


def made(dtype, shape, seed, layout):
    tensor = torch.randint(-9, 9, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    match layout:
        case "transposed":
            return tensor.t() if tensor.dim() == 2 else tensor
        case "every second":
            return torch.stack([tensor, tensor], -1)[..., 0] if dtype.itemsize > 1 else tensor
        case "a parameter":
            return torch.nn.Parameter(tensor) if tensor.is_floating_point() and dtype.itemsize > 1 else tensor
        case "sparse":
            return tensor.to_sparse() if tensor.dim() and dtype.itemsize > 1 else tensor
        case _:
            return tensor


TENSORS = st.builds(
    made,
    st.sampled_from(DTYPES),
    st.sampled_from(SHAPES),
    st.integers(0, 5),
    st.sampled_from(["plain", "transposed", "every second", "a parameter", "sparse"]),
)


@given(st.lists(TENSORS, max_size=8))
def test_fingerprints_of_many_are_those_of_each(tensors):
    found = fingerprints_of(tensors)
    assert list(found) == [fingerprint(tensor) for tensor in tensors]
    assert found == in_columns(list(found))
    assert list(found.between(1, 3)) == list(found)[1:3] == found[1:3]


@given(st.lists(TENSORS.filter(lambda t: t.layout == torch.strided), min_size=1, max_size=8))
def test_what_is_read_together_has_the_digest_of_what_is_read_alone(tensors):
    for one, tensor in zip(fingerprints_of(tensors), tensors, strict=True):
        alone = digest_of(tensor.detach())
        assert one.digest == alone.text
        assert one.norm == pytest.approx(alone.norm, rel=1e-6)
        assert (one.shape, one.strides) == (tuple(tensor.shape), tensor.stride())


def test_one_bit_of_one_tensor_changes_its_digest_and_no_other():
    tensors = [torch.ones(3), torch.ones(4), torch.ones(SMALL), torch.ones(5, dtype=torch.bfloat16)]
    before = fingerprints_of(tensors)
    for i, tensor in enumerate(tensors):
        tensor[-1] = torch.nextafter(tensor[-1], tensor[-1] + 1)
        after = fingerprints_of(tensors)
        assert [one != other for one, other in zip(before, after, strict=True)] == [i == k for k in range(4)]
        before = after


def test_more_small_tensors_than_one_buffer_takes(monkeypatch):
    monkeypatch.setattr(arrangement, "_AT_ONCE", 64)
    arrangement._arranged.cache_clear()
    tensors = [torch.full((n,), float(n)) for n in range(1, 20)]
    assert len(arrangement_if_simple(tensors).together) > 5
    assert list(fingerprints_of(tensors)) == [fingerprint(tensor) for tensor in tensors]
    arrangement._arranged.cache_clear()


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(2).to_sparse(),
        lambda: torch.ones(2, device="meta"),
        lambda: torch.ones(2, dtype=torch.complex64).conj(),
        lambda: torch.ones(2, dtype=torch.complex64).conj().imag,
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        lambda: torch.nn.UninitializedParameter(),
        *([lambda: torch.ones(2, names=("N",))] if HAS_NAMES else []),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:Named tensors")
def test_tensors_whose_memory_is_not_their_content_are_read_in_their_own_way(make):
    odd, plain = make(), torch.arange(4.0)
    assert arrangement_if_simple([plain, odd]) is None
    found = fingerprints_of([plain, odd])
    assert (found[0], found[1]) == (fingerprint(plain), fingerprint(odd))
    assert fingerprint(plain) == fingerprint(plain.clone())


def test_freed_memory_is_not_read():
    tensor = torch.ones(100)
    tensor.untyped_storage().resize_(0)
    assert arrangement_if_simple([tensor]) is None
    assert fingerprint(tensor).digest == "-" * 32


def test_numbers_that_have_no_square_are_no_warning():
    signalling = torch.tensor([0x7FF0000000000001, 0]).view(torch.float64)
    assert math.isnan(fingerprint(signalling).norm)
    assert fingerprint(torch.tensor([1e300, 0], dtype=torch.float64)).norm == math.inf


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1e30])
def test_the_norm_of_what_is_not_finite_is_not(number):
    one, other = fingerprints_of([torch.tensor([1.0, number]), torch.tensor(number)])
    assert one.norm == pytest.approx(digest_of(torch.tensor([1.0, number])).norm, nan_ok=True)
    assert not math.isfinite(one.norm), "the square of 1e30 is no number in fp32"
    assert other.norm == pytest.approx(number, nan_ok=True)


def test_norms_of_large_tensors_are_taken_over_where_the_content_is_the_same(monkeypatch):
    tensors = [torch.ones(5000), torch.ones(5000)]
    last = fingerprints_of(tensors)
    tensors[1][0] = 2
    given = Columns(last.forms, last.digests, [-1.0, -1.0])
    assert [one.norm for one in LateFingerprints(tensors, given).get()] == [-1.0, pytest.approx(5003**0.5)]


def test_forms_of_known_tensors_are_one_object():
    tensors = [torch.ones(2), torch.ones(3)]
    assert fingerprints_of(tensors).forms is fingerprints_of([t + 1 for t in tensors]).forms
    assert fingerprints_of(tensors).between(0, 1).forms is fingerprints_of(tensors).between(0, 1).forms
    assert fingerprints_of(tensors).forms is not fingerprints_of(tensors[::-1]).forms


def test_named_columns_are_a_mapping_in_the_order_of_their_names():
    columns = fingerprints_of([torch.ones(2), torch.zeros(3)])
    values = NamedColumns(["a", "x", "b"], ("a", "b"), columns, {"x": 3})
    assert dict(values) == values == {"a": columns[0], "x": 3, "b": columns[1]}
    assert (list(values), len(values), values.get("c"), "x" in values) == (["a", "x", "b"], 3, None, True)
    assert values == NamedColumns(["x", "a", "b"], ("a", "b"), columns, {"x": 3}), (
        "as of a dict, the order does not matter"
    )
    assert values != NamedColumns(["a", "x", "b"], ("a", "b"), columns, {"x": 4})
    assert values != NamedColumns(["a", "x", "b"], ("b", "a"), columns, {"x": 3})
    assert split(dict(values)) == (("a", "b"), columns, {"x": 3})


def test_columns_are_equal_where_forms_and_digests_are():
    columns = fingerprints_of([torch.ones(2)])
    assert columns == Columns(Forms(columns.forms.rows), columns.digests, [0.0]), "norms are never compared"
    assert columns != Columns(columns.forms, "0" * 32, columns.norms)
    assert columns != Columns(Forms((columns.forms.rows[0]._replace(strides=(2,)),)), columns.digests, columns.norms)
    assert columns != list(columns)
