"""Search for tensors that share memory."""

from collections.abc import Iterator, Mapping, Sequence
from operator import add, attrgetter, le
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from gradparity.parity.dense_parts import COMPRESSED, PLAIN, is_simple, is_wrapper, stretch, wrapped_by
from gradparity.parity.known_forms import KnownForms

_Stretch: TypeAlias = tuple[int, int, int]
"""A device, -1 for the CPU, the address of the first byte, and the address after the last byte."""


def clusters(tensors: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """Yield each group of two or more tensors whose stretches of memory overlap: their names, in the order given."""
    if all_apart(list(tensors.values())):
        return
    place = {name: index for index, name in enumerate(tensors)}
    spans = [(*span, place[name], name) for name, tensor in tensors.items() for span in stretches(tensor)]
    cluster, furthest, where = dict[str, int](), 0, -2
    for device, start, end, index, name in sorted(spans):
        if device != where or start >= furthest:
            if len(cluster) > 1:
                yield sorted(cluster, key=cluster.__getitem__)
            cluster, furthest, where = {}, 0, device
        cluster[name] = index
        furthest = max(furthest, end)
    if len(cluster) > 1:
        yield sorted(cluster, key=cluster.__getitem__)


def all_apart(tensors: Sequence[Tensor]) -> bool:
    """Return whether all tensors are plain and contiguous and no two overlap: the most frequent case, found fast.

    Addresses on two devices can be the same by chance; then the answer is no.
    """
    if not PLAIN.issuperset(map(type, tensors)):
        return False
    try:
        if not all(map(Tensor.is_contiguous, tensors)):
            return False
        starts = list(map(Tensor.data_ptr, tensors))
    except (RuntimeError, NotImplementedError):  # a sparse tensor has no address
        return False
    return _do_not_overlap(starts, list(map(attrgetter("nbytes"), tensors)))


def _do_not_overlap(starts: Sequence[int], sizes: Sequence[int]) -> bool:
    ends = sorted(map(add, starts, sizes))
    # No two overlap if all that began before a tensor have ended where it begins.
    return all(map(le, ends, sorted(starts)[1:]))


class KnownApart:
    """Tensors that are known to be apart, so that the same question is answered faster the next time."""

    def __init__(self) -> None:
        self._forms = KnownForms([])
        self._sizes: list[int] = []
        self._starts: list[int] = []
        """The addresses of the last tensors of these forms that were apart."""

    def are_still(self, tensors: Sequence[Tensor]) -> bool:
        """Return whether these tensors are :func:`all_apart`, and have the forms of those in the call before.

        The first call returns false. A form is what :class:`gradparity.parity.known_forms.KnownForms` compares.
        """
        if self._forms.match(tensors):
            starts = list(map(Tensor.data_ptr, tensors))
            if starts == self._starts or _do_not_overlap(starts, self._sizes):
                self._starts = starts
                return True
        elif all_apart(tensors):
            self._forms, self._sizes = KnownForms(tensors), [tensor.nbytes for tensor in tensors]
            self._starts = list(map(Tensor.data_ptr, tensors))
        return False


def stretches(tensor: Tensor) -> list[_Stretch]:
    """Return the stretches of memory from the first to the last element of ``tensor``; none if they cannot be found."""
    if is_simple(tensor):
        start = tensor.data_ptr()
        return [(tensor.get_device(), start, start + extent(tensor))] if tensor.numel() else []
    try:
        return list(_stretches(tensor))
    except Exception:  # no storage, or an unknown class
        return []


def _stretches(tensor: Tensor) -> Iterator[_Stretch]:
    if is_lazy(tensor) or tensor.is_meta or tensor.is_mkldnn or tensor.is_nested:
        return
    if is_wrapper(tensor):
        for inner in wrapped_by(tensor).values():
            yield from stretches(inner)
    elif tensor.is_sparse:
        yield from _stretches(tensor.detach()._values())
    elif tensor.layout in COMPRESSED:
        yield from _stretches(tensor.detach().values())
    elif tensor.layout == torch.strided and tensor.numel() and (start := tensor.data_ptr()):
        yield tensor.get_device(), start, start + extent(tensor)


def extent(tensor: Tensor) -> int:
    """Return the number of bytes from the first to the last element."""
    if tensor.is_contiguous():
        return tensor.nbytes
    return stretch(tensor.shape, tensor.stride()) * tensor.element_size()


def share_memory(a: Tensor, b: Tensor, *, simple: bool = False) -> bool:
    """Return whether the memory of two tensors overlaps, so that a write to one changes, or may change, the other.

    Two stretches that overlap with different starts share elements if one of them has no gaps. If both have gaps, as
    two columns of one matrix have, they may have no element in common; then the answer is no.

    Args:
        a: a tensor of any kind.
        b: the tensor to compare with it.
        simple: both are known to be :func:`gradparity.parity.dense_parts.is_simple`.
    """
    if simple and a.is_contiguous() and b.is_contiguous():  # the most frequent case, so it must be fast
        a_start, b_start = a.data_ptr(), b.data_ptr()
        return a_start < b_start + b.nbytes and b_start < a_start + a.nbytes and a.device == b.device
    for a_device, a_start, a_end in stretches(a):
        for b_device, b_start, b_end in stretches(b):
            if a_device == b_device and a_start < b_end and b_start < a_end:
                both_have_gaps = a.nbytes < a_end - a_start and b.nbytes < b_end - b_start
                if a_start == b_start or not both_have_gaps:
                    return True
    return False
