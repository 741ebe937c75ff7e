"""Digests and norms of many tensors at once, on the device that holds them: one read of memory, and no wait."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradparity.parity.on_gpu.mixing import WORD
from gradparity.parity.on_gpu.plain import plain_rows
from gradparity.parity.on_gpu.whole_words import in_whole_words
from gradparity.parity.on_gpu.with_triton import launcher


class Sums(NamedTuple):
    """The sums over the content of one tensor."""

    digest: str
    """128 bits in hexadecimal, over the elements in logical order."""
    norm: float
    """L2 norm, in fp32, or in fp64 for fp64 numbers; 0 for integers and truth values."""
    not_finite: int
    """Count of numbers that are infinite or NaN."""
    beginning: bytes
    """The first 8 bytes of the content: all of it for a tensor of one element."""


def rows_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sums of each tensor, as int64 [tensors, 5] on the tensors' device, without a wait for it.

    The elements are read in logical order. A tensor that is not contiguous is copied on its device first, and one whose
    address is not a multiple of 8.

    Args:
        tensors: plain dense tensors of any dtype on one device, as :func:`gradparity.parity.dense_parts.pieces` gives.
            The device must have fp64 numbers, which Apple's MPS has not.
    """
    if not tensors:
        return torch.empty((0, 5), dtype=torch.int64)
    device = tensors[0].device
    launch = launcher(device)
    if launch is None:
        return plain_rows(tensors)
    rows: list[Tensor]
    with torch.cuda.device(device if device.type == "cuda" else -1):
        rows = [launch.launched_rows(some) for some in in_whole_words(tensors)]
    return torch.cat(rows) if len(rows) > 1 else rows[0]


def sums_in(rows: Tensor) -> list[Sums]:
    """Return the sums in rows that are on the CPU."""
    numbers = rows.numpy()
    digests = numbers[:, :2].astype(">i8").tobytes().hex()
    beginnings = numbers[:, 4].astype("<i8").tobytes()
    norms = rows[:, 2].view(torch.float64).sqrt().tolist()
    return [
        Sums(digests[32 * i : 32 * i + 32], norm, others, beginnings[WORD * i : WORD * i + WORD])
        for i, (norm, others) in enumerate(zip(norms, rows[:, 3].tolist(), strict=True))
    ]
