"""Floating-point numbers as bits, and the distance of two of them in ULP.

``torch.equal`` on floats does not compare bits: it calls +0 and -0 equal, and a NaN unequal to itself. So bits are
compared as integers.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_INTEGER_OF_SIZE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_LARGEST = torch.iinfo(torch.int64).max

LARGE: Final = 32_768
"""Size in bytes of a tensor on the CPU from which NumPy compares faster. NumPy compares as fast as memory is read, but
takes a few microseconds longer to start. ``torch.equal`` takes as long for an element of one byte as of eight."""


def bits(tensor: Tensor) -> Tensor:
    """Return the elements of a dense tensor as integers of the same width; complex ones as ``[..., 2]``.

    Only conjugated and negated views are copied: their memory differs from their values.
    """
    tensor = tensor.detach()
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.view(_INTEGER_OF_SIZE[tensor.element_size()])


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Return whether two dense tensors of one dtype and shape hold the same bits, whatever their strides."""
    one, other = bits(a), bits(b)
    if one.device != other.device:
        one, other = one.cpu(), other.cpu()
    if one.nbytes < LARGE or not all(t.is_cpu and t.is_contiguous() for t in (one, other)):
        return torch.equal(one, other)
    return bool((_words(one) == _words(other)).all())


def _words(pattern: Tensor) -> npt.NDArray[np.signedinteger[Any]]:
    """Return a contiguous pattern, flat, in elements of eight bytes if its size is a multiple of eight."""
    words = pattern.view(-1).numpy()
    return words.view(np.int64) if words.nbytes % 8 == 0 else words


def ordered(tensor: Tensor) -> Tensor:
    """Return int64 ranks of floating-point elements: neighbours in value differ by 1, and -0 is just below +0.

    IEEE 754 numbers of one sign have the order of their bits, reversed for negative numbers. Flipping all but the
    sign bit of the negative ones gives one order: one rank for each bit pattern, with NaNs at both ends.

    >>> ordered(torch.tensor([-0.0, 0.0, 1.0, 1.0 + 2**-23])).diff().tolist()
    [1, 1065353216, 1]
    """
    pattern = bits(tensor)
    flipped = pattern ^ torch.iinfo(pattern.dtype).max
    return torch.where(pattern < 0, flipped, pattern).long()


def ulp_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the elementwise distance in ULP between floating-point tensors of one dtype and shape, as int64.

    It is 0 exactly if the bits are the same, so the distance of +0 and -0 is 1. Distances of fp64 numbers that int64
    cannot hold, from 2**63 on, are returned as 2**63 - 1.
    """
    rank_a, rank_b = ordered(a), ordered(b)
    distance = (rank_a - rank_b).abs()
    wrapped = ((rank_a < 0) != (rank_b < 0)) & ((rank_a - rank_b < 0) != (rank_a < rank_b))
    return torch.where(wrapped | (distance < 0), _LARGEST, distance)
