"""Blocks of tensors that one launch reads: tables on the device, kept as long as they are the right ones.

Tables depend only on numbers: addresses, sizes, dtypes. They are found again by these numbers, so a table cannot be
out of date, and tensors that have not moved since the last event need no copy to the device.
"""

from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from gradparity.parity.on_gpu.mixing import WORD

Place: TypeAlias = tuple[torch.device, int]
"""A device, and the stream on which its tables are written and read: no other stream has to wait for them."""


class Launch(NamedTuple):
    """Consecutive blocks of tensors of one kind, read by one launch."""

    kind: int
    start: int
    blocks: int


class Blocks(NamedTuple):
    """The blocks of several tensors: tensors of one kind have consecutive blocks, and every tensor has at least one."""

    sizes: Tensor
    """int64 [tensors]: the number of bytes of each."""
    firsts: Tensor
    """int64 [tensors]: the first block of each."""
    ends: Tensor
    """int64 [tensors]: the block after its last."""
    tensor_of: Tensor
    """int32 [blocks]"""
    launches: tuple[Launch, ...]


@lru_cache(maxsize=64)
def blocks_of(sizes: tuple[int, ...], kinds: tuple[int, ...], words: int, place: Place) -> Blocks:
    """Return the blocks, of ``words`` words each, of tensors with so many bytes and of these kinds."""
    size, kind = torch.tensor(sizes, device="cpu"), torch.tensor(kinds, device="cpu")  # whatever the default is
    counts = ((size // WORD + words - 1) // words).clamp(min=1)
    by_kind = kind.argsort(stable=True)
    ends = torch.empty_like(counts)
    ends[by_kind] = counts[by_kind].cumsum(0)
    tensor_of = by_kind.int().repeat_interleave(counts[by_kind])
    per_kind = [(one, int(counts[kind == one].sum())) for one in sorted(set(kinds))]
    starts = accumulate((blocks for _, blocks in per_kind), initial=0)
    launches = (Launch(one, start, blocks) for (one, blocks), start in zip(per_kind, starts, strict=False))
    size, first, end, of_block = (on_device(table, place[0]) for table in (size, ends - counts, ends, tensor_of))
    return Blocks(size, first, end, of_block, tuple(launches))


@lru_cache(maxsize=64)
def addresses_of(addresses: tuple[int, ...], place: Place) -> Tensor:
    """Return addresses as int64 on the device."""
    return on_device(torch.tensor(addresses, dtype=torch.int64, device="cpu"), place[0])


def on_device(table: Tensor, device: torch.device) -> Tensor:
    """Return a copy of a table on the device, without a wait for it."""
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table.to(device)
