"""Hashes and counts of many tensors, against NumPy: in PyTorch's operations, in Triton's interpreter, on a GPU.

Here they run in PyTorch's operations. One test runs this file anew in Triton's interpreter, which is chosen when Triton
is imported; ``tests/cuda`` runs it anew on a GPU.
"""

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradparity.parity.bits import same_bits
from gradparity.parity.on_gpu import whole_words, with_triton
from gradparity.parity.on_gpu.count_differences import count_differences
from gradparity.parity.on_gpu.digests import rows_of, sums_in
from gradparity.parity.on_gpu.plain import plain_counts, plain_rows

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if os.environ.get("ON_A_GPU") == "1" else "cpu"

BLOCK = 1024 if DEVICE == "cpu" else 65_536
"""Bytes that a block of a kernel reads."""

FLOATS = [
    *(torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu, torch.complex64, torch.complex128),
]
OTHERS = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint16, torch.uint32, torch.uint64),
]
DTYPES = [*FLOATS, *OTHERS]

some_examples = settings(deadline=None, max_examples=25)

if INTERPRETED:  # small blocks, so that small tensors have several: the interpreter is slow
    from gradparity.parity.on_gpu import kernels

    kernels.LANES, kernels.ROUNDS = 64, 2


@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="this is what runs")
def test_the_same_holds_in_tritons_interpreter():
    pytest.importorskip("triton")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--noconftest",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::RuntimeWarning",
        __file__,
    ]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="it is interpreted, or compiled and run")
def test_the_kernels_compile_for_a_gpu_that_is_not_here():
    pytest.importorskip("triton")
    script = Path(__file__).with_name("compile_kernels.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "11 kernels"), done.stderr


def test_the_kernels_that_are_meant_are_those_that_run():
    assert (with_triton.launcher(torch.device(DEVICE)) is not None) == (INTERPRETED or DEVICE == "cuda")


def by_numpy(content):
    """Both sums over the words of some bytes, written anew from the definition."""
    words = np.frombuffer(content + bytes(-len(content) % 8), dtype="<u8").tolist()
    words = [*enumerate(words), (2**64 - 1, len(content))]
    first = second = 0
    for index, word in words:
        x = (word + index * 0x9E3779B97F4A7C15 + 0x243F6A8885A308D3) % 2**64
        x = (x ^ x >> 33) * 0xFF51AFD7ED558CCD % 2**64
        x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53 % 2**64
        first += x ^ x >> 33
        x = word ^ (index * 0xD1B54A32D192ED03 + 0x13198A2E03707344) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        second += x ^ x >> 31
    return f"{first % 2**64:016x}{second % 2**64:016x}"


def content_of(tensor):
    """The bytes of the elements in logical order."""
    tensor = tensor.cpu().contiguous()
    tensor = tensor.as_strided((tensor.numel(),), (1,))
    return tensor.view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def numbers_of(tensor):
    tensor = tensor.cpu()
    if tensor.dtype not in FLOATS:
        return np.zeros(0)
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    numbers = tensor if tensor.dtype == torch.float64 else tensor.float()
    return numbers.double().numpy().reshape(-1)  # NumPy would warn of a signalling NaN


def random_bits(dtype, count, generator):
    content = torch.randint(0, 256, (count * dtype.itemsize,), dtype=torch.uint8, generator=generator)
    if dtype == torch.bool:
        content %= 2
    return content.view(dtype)


@st.composite
def tensors(draw):
    """Any dtype, shape and strides; any bits, among them NaN, infinities and numbers below the normal ones."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    count, generator = int(np.prod(shape)), torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    start = draw(st.integers(0, 3))
    tensor = random_bits(dtype, count + start, generator)[start:].view(shape).to(DEVICE)
    if shape and draw(st.booleans()):
        tensor = tensor.permute(draw(st.permutations(range(len(shape)))))
    if shape and draw(st.booleans()):
        tensor = tensor[:: draw(st.integers(1, 3))]
    if shape and tensor.shape[-1] and draw(st.booleans()):
        tensor = tensor[..., :1].expand((*tensor.shape[:-1], 3))
    return tensor


@some_examples
@given(st.lists(tensors(), min_size=1, max_size=6))
def test_digests_are_those_of_numpy_for_any_dtype_shape_and_strides(some):
    for tensor, sums in zip(some, sums_in(rows_of(some).cpu()), strict=True):
        content, numbers = content_of(tensor), numbers_of(tensor)
        assert sums.digest == by_numpy(content)
        assert sums.beginning == content[:8].ljust(8, b"\0")
        assert sums.not_finite == np.count_nonzero(~np.isfinite(numbers))
        with np.errstate(over="ignore", invalid="ignore"):
            wide = tensor.dtype in (torch.float64, torch.complex128)
            expected = (
                np.sqrt(np.square(numbers).sum())
                if wide
                else np.sqrt(np.square(numbers.astype(np.float32)).sum(dtype=np.float64))
            )
        np.testing.assert_allclose(sums.norm, expected, rtol=1e-5)


LARGE = [(4 * BLOCK // 2 + 3, torch.bfloat16), (2 * BLOCK // 4, torch.float32), (BLOCK + 1, torch.float8_e4m3fn)]


@pytest.mark.parametrize(("count", "dtype"), LARGE)
def test_a_tensor_of_several_blocks_has_the_digest_and_norm_of_the_plain_operations(count, dtype):
    tensor = torch.randn(count).to(dtype).to(DEVICE)
    (ours,), (plain,) = sums_in(rows_of([tensor]).cpu()), sums_in(plain_rows([tensor]).cpu())
    assert (ours.digest, ours.not_finite, ours.beginning) == (plain.digest, plain.not_finite, plain.beginning)
    assert ours.norm == pytest.approx(plain.norm, rel=1e-4)


def test_copies_of_tensors_that_are_not_contiguous_are_few_at_a_time(monkeypatch):
    monkeypatch.setattr(whole_words, "_MOST_COPIED", 100)
    some = [torch.randn(3, 5, device=DEVICE), *(torch.randn(5, 3, device=DEVICE).t() for _ in range(4))]
    assert [len(batch) for batch in whole_words.in_whole_words(some)] == [2, 1, 1, 1]
    assert [sums.digest for sums in sums_in(rows_of(some).cpu())] == [by_numpy(content_of(t)) for t in some]


def test_the_same_tensors_give_the_same_rows_again_norms_included():
    some = [torch.randn(BLOCK, device=DEVICE), torch.randn(1000, device=DEVICE).half(), torch.zeros(0, device=DEVICE)]
    assert torch.equal(rows_of(some), rows_of(some))


def test_tensors_that_have_moved_or_changed_are_read_where_they_are():
    one = [torch.ones(500, device=DEVICE), torch.zeros(7, device=DEVICE)]
    other = [torch.zeros(500, device=DEVICE), torch.ones(7, device=DEVICE)]
    before = rows_of(one)
    assert not torch.equal(rows_of(other), before)
    one[0][499] = 2
    assert not torch.equal(rows_of(one)[0], before[0])
    assert torch.equal(rows_of(one)[1], before[1])


NAN, OTHER_NAN = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
X = torch.arange(1.0, 401.0)


def swapped(x, a, b):
    other = x.clone()
    other[a], other[b] = x[b], x[a]
    return other


def changed(x, at, value):
    other = x.clone()
    other[at] = value
    return other


@pytest.mark.parametrize(
    ("what", "a", "b"),
    [
        ("two neighbours swapped", X, swapped(X, 0, 1)),
        ("two elements of two words swapped", X, swapped(X, 1, 2)),
        ("two elements of two blocks swapped, in the interpreter", X, swapped(X, 3, 399)),
        ("shifted by one", X, X.roll(1)),
        ("shifted by one word", X, X.roll(2)),
        ("shifted by a block", X, X.roll(256)),
        ("shifted after a zero", torch.cat([torch.zeros(1), X]), torch.cat([X, torch.zeros(1)])),
        ("the sign of a zero", torch.zeros(9), changed(torch.zeros(9), 8, -0.0)),
        ("one ULP at the beginning", X, changed(X, 0, torch.nextafter(X[0], X[1]))),
        ("one ULP at the end", X, changed(X, -1, torch.nextafter(X[-1], X[0]))),
        ("one ULP more and one less", X, changed(changed(X, 4, torch.nextafter(X[4], X[5])), 6, torch.nextafter(X[6], X[5]))),
        ("the payload of a NaN", NAN, OTHER_NAN),
        ("a zero appended", X, torch.cat([X, torch.zeros(1)])),
        ("a zero appended within a word", X[:3], torch.cat([X[:3], torch.zeros(1)])),
        ("a zero for nothing", torch.zeros(0), torch.zeros(1)),
        ("all signs", X, -X),
        ("reversed", X, X.flip(0)),
        ("a row for a column", X.view(20, 20), X.view(20, 20).t()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_sums_norms_or_xor_would_miss_changes_both_halves_of_the_digest(what, a, b, dtype):
    if dtype == torch.float64:
        a, b = a.double(), b.double()
        if what in ("one ULP at the beginning", "one ULP at the end", "the payload of a NaN"):
            pytest.skip("in fp32")
    one, other = (sums.digest for sums in sums_in(rows_of([a.to(DEVICE), b.to(DEVICE)]).cpu()))
    assert one[:16] != other[:16]
    assert one[16:] != other[16:]


def test_two_tensors_with_their_contents_exchanged_have_their_digests_exchanged():
    a, b = torch.randn(100, device=DEVICE), torch.randn(100, device=DEVICE)
    one, other = sums_in(rows_of([a, b]).cpu()), sums_in(rows_of([b, a]).cpu())
    assert [x.digest for x in one] == [x.digest for x in other[::-1]]
    assert one[0].digest != one[1].digest


def test_single_bits_change_about_half_of_the_digest():
    """All tensors with one bit set have different digests, which differ in 36 to 92 of 128 bits."""
    base = torch.zeros(5, dtype=torch.uint8)
    some = [base, *(changed(base, at, 1 << bit) for at in range(5) for bit in range(8))]
    digests = [int(sums.digest, 16) for sums in sums_in(rows_of([t.to(DEVICE) for t in some]).cpu())]
    assert len(set(digests)) == len(digests)
    distances = [(digests[0] ^ other).bit_count() for other in digests[1:]]
    assert min(distances) >= 36
    assert max(distances) <= 92


@some_examples
@given(tensors(), st.data())
def test_differences_are_counted_as_numpy_counts_them(one, data):
    other = one.clone(memory_format=data.draw(st.sampled_from([torch.contiguous_format, torch.preserve_format])))
    if other.numel() and data.draw(st.booleans()):
        at = tuple(data.draw(st.integers(0, size - 1)) for size in other.shape)
        other[at] = random_bits(other.dtype, 1, torch.Generator().manual_seed(1))[0]
    (count,) = count_differences([one], [other]).tolist()
    a, b = ((torch.view_as_real(t) if t.is_complex() else t).cpu().contiguous().reshape(-1) for t in (one, other))
    width = a.element_size()
    ours, theirs = (np.frombuffer(content_of(t), dtype=f"V{width}") if t.numel() else np.zeros(0) for t in (a, b))
    assert count == np.count_nonzero(ours != theirs)
    assert (count == 0) == same_bits(one, other)


def test_all_pairs_are_counted_at_once_whatever_their_dtypes_and_strides():
    def some():
        generator = torch.Generator().manual_seed(0)
        return [random_bits(dtype, count, generator).to(DEVICE) for dtype in DTYPES for count in (0, 1, 603)]

    ours, theirs = some(), some()
    assert count_differences(ours, theirs).tolist() == [0] * len(ours)
    expected = []
    for index, other in enumerate(theirs):
        raw = torch.view_as_real(other).view(-1) if other.is_complex() else other
        places = [0, len(raw) // 2, len(raw) - 1][: min(index % 4, len(raw))]
        for at in places:
            raw[at : at + 1].view(torch.uint8)[0] ^= 1
        expected.append(len(places))
    assert count_differences(ours, theirs).tolist() == plain_counts(ours, theirs).tolist() == expected


def test_dense_tensors_in_one_order_of_memory_are_compared_where_they_are(monkeypatch):
    one = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last).to(DEVICE)
    other = one.clone()
    other[1, 2, 3, 4] += 1
    other[0, 0, 0, 0] += 1
    ours, theirs = [one, one.transpose(0, 3)], [other, other.contiguous().transpose(0, 3)]
    assert count_differences(ours, theirs).tolist() == [2, 2]


def test_zeros_of_two_signs_differ_and_a_nan_is_itself():
    zeros, nans = torch.zeros(3, device=DEVICE), torch.full((3,), torch.nan, device=DEVICE)
    assert count_differences([zeros, nans], [-zeros, nans.clone()]).tolist() == [3, 0]


def test_a_default_device_changes_nothing():
    some = [torch.ones(5, device=DEVICE), torch.ones(6, device=DEVICE).to(torch.float8_e5m2)]
    with torch.device("meta"):
        rows, counts = rows_of(some), count_differences(some[:1], some[:1])
    assert sums_in(rows.cpu()) == sums_in(rows_of(some).cpu())
    assert counts.tolist() == [0]


def test_no_tensors_and_no_pairs_are_none():
    assert (rows_of([]).shape, count_differences([], []).shape) == ((0, 5), (0,))
    assert sums_in(rows_of([])) == []


def test_the_hash_is_that_of_its_definition():
    """A change of a constant would make traces of two versions differ."""
    content = struct.pack("<3f", 1.0, -2.0, 0.5)
    (sums,) = sums_in(rows_of([torch.tensor([1.0, -2.0, 0.5], device=DEVICE)]).cpu())
    assert sums.digest == by_numpy(content) == "01cba0e48178204f0a149de68ea2e0b1"
