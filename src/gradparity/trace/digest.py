"""Hash and norm of the elements of one dense tensor on the CPU."""

import math
from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
import torch
import xxhash
from torch import Tensor

from gradparity.parity.bits import bits

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


def digest_of(tensor: Tensor, last: str | None = None, norm: float = math.nan) -> Digest:
    """Return the digest of a dense tensor by XXH3.

    Args:
        tensor: the tensor. If it is not on the CPU, it is copied.
        last: an earlier digest of it. If the content is still the same, the norm is not computed again.
        norm: the norm that belongs to the earlier digest.
    """
    if tensor.is_contiguous() and tensor.dtype in AS_NUMPY:  # most: NumPy reads them in place
        numbers = tensor.cpu().numpy()
        text = xxhash.xxh3_128_hexdigest(numbers.data)
        if text == last:
            return Digest(text, norm)
        return Digest(text, float(numbers.item()) if numbers.size == 1 else math.sqrt(np.vdot(numbers, numbers)))
    content, square = xxhash.xxh3_128(), 0.0
    for some in _in_order(tensor):
        content.update(bits(some).numpy().data)
        square += _square(some)
    if tensor.numel() == 1 and not tensor.is_complex():
        return Digest(content.hexdigest(), float(tensor.item()))
    return Digest(content.hexdigest(), math.sqrt(square))


def _in_order(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the elements in logical order, as contiguous CPU tensors of about :data:`_AT_ONCE` elements each."""
    if tensor.numel() <= _AT_ONCE:
        yield tensor.cpu().contiguous()
    elif tensor.is_contiguous():
        yield from (some.cpu() for some in tensor.view(-1).split(_AT_ONCE))
    elif (row := tensor[0].numel()) > _AT_ONCE:
        for rows in tensor:
            yield from _in_order(rows)
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
