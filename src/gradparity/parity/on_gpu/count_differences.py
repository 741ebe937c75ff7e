"""Elements that differ between the tensors of many pairs, counted on their device without a wait for it."""

from collections.abc import Sequence
from functools import cache, reduce
from operator import or_
from typing import NamedTuple

import torch
from torch import Tensor

from gradparity.parity.on_gpu.mixing import WORD
from gradparity.parity.on_gpu.plain import plain_counts
from gradparity.parity.on_gpu.whole_words import is_readable, readable
from gradparity.parity.on_gpu.with_triton import launcher


class PairForms(NamedTuple):
    """The sizes of pairs of tensors, one of each run. They are kept from launch to launch; addresses may change."""

    sizes: tuple[int, ...]
    """The number of bytes of each tensor of a pair."""
    widths: tuple[int, ...]
    """The number of bytes of each element; a complex number has two elements."""
    contiguous: bool
    """True if all tensors are contiguous."""


def forms_of(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> PairForms:
    """Return the forms of pairs whose two tensors have one dtype and one shape."""
    contiguous = all(map(Tensor.is_contiguous, [*ours, *theirs]))
    return PairForms(tuple(one.nbytes for one in ours), tuple(_width(one.dtype) for one in ours), contiguous)


@cache
def _width(dtype: torch.dtype) -> int:
    return dtype.itemsize // (2 if dtype.is_complex else 1)


def count_differences(ours: Sequence[Tensor], theirs: Sequence[Tensor], forms: PairForms | None = None) -> Tensor:
    """Return the number of elements that differ in each pair ``ours[i]``, ``theirs[i]``, as int64 [pairs].

    Elements are compared as integers of their bits, as :func:`gradparity.parity.bits.same_bits` does: +0 and -0
    differ, and a NaN equals itself. A complex number counts as two. With Triton, one launch compares all pairs whose
    elements have the same size. The result is not waited for.

    Args:
        ours: plain dense tensors, all on one device. Tensors whose dimensions have the same order in memory as those of
            ``theirs`` are compared where they are; others are copied first.
        theirs: as many tensors, each of the dtype and shape of its counterpart.
        forms: the result of :func:`forms_of`, if it is known.
    """
    if not ours:
        return torch.empty(0, dtype=torch.int64)
    device = ours[0].device
    launch = launcher(device)
    if launch is None:
        return plain_counts(ours, theirs)
    forms = forms or forms_of(ours, theirs)
    with torch.cuda.device(device if device.type == "cuda" else -1):
        addresses = [tuple(map(Tensor.data_ptr, side)) for side in (ours, theirs)]
        if not forms.contiguous or reduce(or_, addresses[0] + addresses[1]) % WORD:
            ours, theirs = zip(*map(_in_one_order, ours, theirs), strict=True)
            addresses = [tuple(map(Tensor.data_ptr, side)) for side in (ours, theirs)]
        counts: Tensor = launch.launched_counts(device, addresses, forms.sizes, forms.widths)
    return counts


def _in_one_order(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return both tensors, contiguous, with their elements in one order, which need not be the logical one."""
    if is_readable(one) and is_readable(other):
        return one, other
    if one.stride() == other.stride():
        order = sorted(range(one.dim()), key=one.stride().__getitem__, reverse=True)
        one, other = one.permute(order), other.permute(order)
    return readable(one), readable(other)
