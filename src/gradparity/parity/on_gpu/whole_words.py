"""Tensors as memory that a kernel reads: contiguous, and from an address that is a multiple of 8."""

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import or_
from typing import Final

from torch import Tensor

from gradparity.parity.on_gpu.mixing import WORD

_MOST_COPIED: Final = 2**25
"""Bytes copied for one launch; a larger tensor is copied alone."""


def in_whole_words(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the tensors in order, in as few lists as memory for copies allows; most often all are in one."""
    if all_readable(tensors):
        yield list(tensors)
        return
    some, copied = list[Tensor](), 0
    for tensor in tensors:
        if not is_readable(tensor):
            if copied and copied + tensor.nbytes > _MOST_COPIED:
                yield some
                some, copied = [], 0
            copied += tensor.nbytes
            tensor = readable(tensor)
        some.append(tensor)
    yield some


def all_readable(tensors: Sequence[Tensor]) -> bool:
    """Return whether a kernel can read each tensor where it is, as it can most."""
    addresses = map(Tensor.data_ptr, tensors)
    return all(map(Tensor.is_contiguous, tensors)) and not reduce(or_, addresses, 0) % WORD


def is_readable(tensor: Tensor) -> bool:
    """Return whether a kernel can read the tensor where it is."""
    return tensor.is_contiguous() and not tensor.data_ptr() % WORD


def readable(tensor: Tensor) -> Tensor:
    """Return the tensor, or a copy that a kernel can read."""
    tensor = tensor.detach().contiguous()
    return tensor if is_readable(tensor) else tensor.clone()
