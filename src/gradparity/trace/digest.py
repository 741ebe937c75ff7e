"""Hash and norm of the elements of a dense tensor on the CPU, and of many small ones at once."""

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import accumulate
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor

from gradparity.parity.bits import bits
from gradparity.parity.on_gpu.digests import sums_in
from gradparity.parity.on_gpu.plain import plain_rows

AS_NUMPY: Final = (torch.float32, torch.float64)
"""Dtypes that NumPy reads in place, for the hash and for the norm."""

_AT_ONCE: Final = 1 << 18
"""Number of elements copied at a time, where the hash needs a copy. So few stay in the cache and take no memory."""


class Hash(StrEnum):
    """The hash that made a digest. Digests of two different hashes say nothing about whether two contents are equal."""

    XXH3 = "xxh3"
    """128 bits of XXH3 (https://xxhash.com), everywhere but on a GPU, and for every tensor of one real element."""
    SUMS = "sums"
    """128 bits of :mod:`gradparity.parity.on_gpu`, on a GPU."""


class Digest(NamedTuple):
    """The hash of the elements of a tensor in logical order, and its norm."""

    text: str
    norm: float
    by: Hash = Hash.XXH3


def digest_of(tensor: Tensor, last: Digest | None = None) -> Digest:
    """Return the digest of a dense tensor by XXH3.

    Args:
        tensor: the tensor. If it is not on the CPU, it is copied.
        last: an earlier digest of it. If the content is still the same, the norm is not computed again.
    """
    if tensor.is_contiguous() and tensor.dtype in AS_NUMPY:  # most: NumPy reads them in place
        numbers = tensor.cpu().numpy()
        text = xxhash.xxh3_128_hexdigest(numbers.data)
        if last is not None and text == last.text:
            return last
        return Digest(text, float(numbers.item()) if numbers.size == 1 else math.sqrt(np.vdot(numbers, numbers)))
    content, square = xxhash.xxh3_128(), 0.0
    for some in in_order(tensor):
        content.update(bits(some).numpy().data)
        square += _square(some)
    if tensor.numel() == 1 and not tensor.is_complex():
        return Digest(content.hexdigest(), float(tensor.item()))
    return Digest(content.hexdigest(), math.sqrt(square))


class Group(NamedTuple):
    """Small tensors of one dtype, each with at least one element, that are copied into one buffer."""

    firsts: npt.NDArray[np.intp]
    """For each, the index of its first element in the buffer."""
    bytes_of: tuple[slice, ...]
    """For each, its bytes in the buffer."""
    single: npt.NDArray[np.bool_]
    """For each, whether it is one number, which is kept with its sign."""


def group_of(counts: Sequence[int], dtype: torch.dtype) -> Group:
    """Return the group of tensors with so many elements each."""
    firsts = [0, *accumulate(counts)][:-1]
    width = dtype.itemsize
    slices = (slice(first * width, (first + count) * width) for first, count in zip(firsts, counts, strict=True))
    return Group(np.array(firsts, dtype=np.intp), tuple(slices), np.array([count == 1 for count in counts]))


def digests_of_group(tensors: Sequence[Tensor], group: Group) -> tuple[bytes, npt.NDArray[np.float64]]:
    """Return what :func:`digest_of` returns for each of many tensors: 16 bytes each, and the norms.

    A call for each of them would take ten times as long.
    """
    flat = _flat(tensors)
    content = bits(flat).numpy().tobytes()
    digests = b"".join([xxhash.xxh3_128_digest(content[one]) for one in group.bytes_of])
    if not flat.is_floating_point():
        return digests, np.where(group.single, flat.numpy()[group.firsts], 0.0)
    numbers = (flat if flat.dtype in AS_NUMPY else flat.float()).numpy()
    with np.errstate(all="ignore"):  # numbers may be infinite or NaN, and their squares too large
        norms = np.sqrt(np.add.reduceat(np.square(numbers), group.firsts, dtype=np.float64))
        return digests, np.where(group.single, numbers[group.firsts], norms)


def buffer_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return a copy of the bits of small tensors of one dtype, one after the other, as integers."""
    return bits(_flat(tensors))


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    flat: Tensor = torch._utils._flatten_dense_tensors(tensors)
    return flat.detach()


def in_order(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the elements in logical order, as contiguous CPU tensors of about :data:`_AT_ONCE` elements each."""
    if tensor.numel() <= _AT_ONCE:
        yield tensor.cpu().contiguous()
    elif tensor.is_contiguous():
        yield from (some.cpu() for some in tensor.view(-1).split(_AT_ONCE))
    elif (row := tensor[0].numel()) > _AT_ONCE:
        for rows in tensor:
            yield from in_order(rows)
    else:
        yield from (some.cpu().contiguous() for some in tensor.split(_AT_ONCE // row))


def _square(numbers: Tensor) -> float:
    """Return the sum of the squares of floating-point or complex numbers; 0 for other dtypes."""
    if numbers.is_complex():
        numbers = torch.view_as_real(numbers)
    if not numbers.is_floating_point():
        return 0.0
    plain = (numbers if numbers.element_size() > 2 else numbers.float()).numpy()
    return float(np.vdot(plain, plain))


def digest_by(by: Hash, tensor: Tensor) -> str:
    """Return the digest of a dense tensor on the CPU by a given hash, to compare it with a digest in a trace."""
    if by == Hash.SUMS:
        return sums_in(plain_rows([tensor.contiguous()]))[0].digest
    return digest_of(tensor.detach()).text
