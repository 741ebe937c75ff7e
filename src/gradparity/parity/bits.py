"""Floating-point numbers as bits, and how many representable numbers lie between two of them.

``torch.equal`` is unfit here: it calls +0 and -0 equal, and a NaN unequal to itself. Bits are compared as integers.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_INTEGER_OF_SIZE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_LARGEST = torch.iinfo(torch.int64).max

LARGE: Final = 32_768
"""Bytes of a tensor on the CPU from which NumPy compares faster: as fast as memory is read, where ``torch.equal`` takes
as long for an element of one byte as for one of eight. To start, it takes a few microseconds longer."""


def bits(tensor: Tensor) -> Tensor:
    """The elements of a dense tensor as integers of the same width; complex ones as ``[..., 2]``.

    Nothing is copied but conjugated and negated views, whose memory is not what they show.
    """
    tensor = tensor.detach()
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.view(_INTEGER_OF_SIZE[tensor.element_size()])


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two dense tensors of one dtype and shape hold the same bits, strides aside."""
    one, other = bits(a), bits(b)
    if one.device != other.device:
        one, other = one.cpu(), other.cpu()
    if one.nbytes < LARGE or not all(t.is_cpu and t.is_contiguous() for t in (one, other)):
        return torch.equal(one, other)
    return bool((_words(one) == _words(other)).all())


def _words(pattern: Tensor) -> npt.NDArray[np.signedinteger[Any]]:
    """A contiguous pattern, flat, in elements of eight bytes where they fill it."""
    words = pattern.view(-1).numpy()
    return words.view(np.int64) if words.nbytes % 8 == 0 else words


def ordered(tensor: Tensor) -> Tensor:
    """int64 ranks of floating-point elements: neighbours in value differ by 1, and -0 is just below +0.

    IEEE 754 numbers of one sign are ordered as their bits are; the negative ones run backwards. Flipping all but
    their sign bit puts both halves in one line, one rank for each bit pattern, NaNs at both ends.

    >>> ordered(torch.tensor([-0.0, 0.0, 1.0, 1.0 + 2**-23])).diff().tolist()
    [1, 1065353216, 1]
    """
    pattern = bits(tensor)
    flipped = pattern ^ torch.iinfo(pattern.dtype).max
    return torch.where(pattern < 0, flipped, pattern).long()


def ulp_distance(a: Tensor, b: Tensor) -> Tensor:
    """Elementwise distance in ULP between floating-point tensors of one dtype and shape, as int64.

    It is 0 exactly where the bits are the same, so +0 and -0 are 1 apart. Distances of fp64 numbers that int64
    cannot hold, from 2**63 on, are given as 2**63 - 1.
    """
    rank_a, rank_b = ordered(a), ordered(b)
    distance = (rank_a - rank_b).abs()
    wrapped = ((rank_a < 0) != (rank_b < 0)) & ((rank_a - rank_b < 0) != (rank_a < rank_b))
    return torch.where(wrapped | (distance < 0), _LARGEST, distance)
