"""Elements that differ between the tensors of many pairs, counted on their device without a wait for it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradparity.parity.on_gpu.plain import plain_counts
from gradparity.parity.on_gpu.whole_words import all_readable, is_readable, readable
from gradparity.parity.on_gpu.with_triton import launcher


def count_differences(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the number of elements that differ in each pair, as int64 [pairs] on the tensors' device.

    Elements are compared as integers of their bits, as :func:`gradparity.parity.bits.same_bits` does: +0 and -0
    differ, and a NaN equals itself. A complex number counts as two. With Triton, one launch compares all pairs whose
    elements have the same size. The result is not waited for.

    Args:
        pairs: plain dense tensors, all on one device; the two of a pair have one dtype and one shape. Tensors whose
            dimensions have the same order in memory are compared where they are; others are copied first.
    """
    if not pairs:
        return torch.empty(0, dtype=torch.int64)
    device = pairs[0][0].device
    launch = launcher(device)
    if launch is None:
        return plain_counts(pairs)
    with torch.cuda.device(device if device.type == "cuda" else -1):
        if not all_readable([tensor for pair in pairs for tensor in pair]):
            pairs = [_in_one_order(one, other) for one, other in pairs]
        counts: Tensor = launch.launched_counts(pairs)
    return counts


def _in_one_order(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return both tensors, contiguous, with their elements in one order, which need not be the logical one."""
    if is_readable(one) and is_readable(other):
        return one, other
    if one.stride() == other.stride():
        order = sorted(range(one.dim()), key=one.stride().__getitem__, reverse=True)
        one, other = one.permute(order), other.permute(order)
    return readable(one), readable(other)
