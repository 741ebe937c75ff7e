"""Digests of many tensors, those on a GPU computed there: nothing waits for them until they are read."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from gradparity.parity.on_gpu.digests import Sums, rows_of, sums_in
from gradparity.trace.digest import Digest, Hash, digest_of


class LateDigests:
    """Digests of dense tensors. All tensors are read now, on the current stream; the result is read later.

    The kernels run between what the loop has issued before and what it issues after, so the loop cannot overwrite a
    tensor before it is read.

    Args:
        tensors: plain dense tensors on any devices, as :func:`gradparity.parity.dense_parts.pieces` gives.
        last: an earlier digest of each, if there is one; for tensors on the CPU, it saves a norm.
    """

    def __init__(self, tensors: Sequence[Tensor], last: Callable[[int], Digest | None] | None = None) -> None:
        self._found: list[Digest | None] = [None] * len(tensors)
        there: dict[torch.device, list[int]] = {}
        for index, tensor in enumerate(tensors):
            if hashed_by_sums(tensor):
                there.setdefault(tensor.device, []).append(index)
            else:
                before = last(index) if last is not None else None
                self._found[index] = (
                    digest_of(tensor) if before is None else digest_of(tensor, before.text, before.norm)
                )
        self._batches = [_start([tensors[i] for i in indices], indices) for indices in there.values()]

    def ready(self) -> bool:
        """Return whether all digests are there, without a wait."""
        return all(batch.written is None or batch.written.query() for batch in self._batches)

    def get(self) -> list[Digest]:
        """Return the digests, after a wait for those that are not there yet."""
        for batch in self._batches:
            if batch.written is not None:
                batch.written.synchronize()
            for index, dtype, sums in zip(batch.indices, batch.single, sums_in(batch.rows), strict=True):
                self._found[index] = _of_sums(sums, dtype)
        self._batches = []
        return [digest for digest in self._found if digest is not None]


def hashed_by_sums(tensor: Tensor) -> bool:
    """Return whether a tensor is hashed where it is, on a GPU.

    Of tensors on other devices, the CPU hashes copies: MPS, for example, has no fp64 numbers for the norm.
    """
    return tensor.device.type in ("cuda", "xpu")


class _Batch(NamedTuple):
    """Sums of tensors on one device, on their way to the host."""

    indices: Sequence[int]
    single: Sequence[torch.dtype | None]
    """The dtype of each tensor of one real element; ``None`` for others."""
    rows: Tensor
    """On the CPU; not yet written, if ``written`` has not happened."""
    written: torch.cuda.Event | None


def _start(tensors: Sequence[Tensor], indices: Sequence[int]) -> _Batch:
    single = [t.dtype if t.numel() == 1 and not t.is_complex() else None for t in tensors]
    rows = rows_of(tensors)
    if not rows.is_cuda:
        return _Batch(indices, single, rows.cpu(), None)
    stream = torch.cuda.current_stream(rows.device)
    for tensor in tensors:  # one that was made on a different stream stays until it is read
        tensor.record_stream(stream)
    written = torch.cuda.Event()
    here = rows.to("cpu", non_blocking=True)  # into pinned memory, which PyTorch keeps and uses again
    written.record(stream)
    return _Batch(indices, single, here, written)


def _of_sums(sums: Sums, single: torch.dtype | None) -> Digest:
    return Digest(sums.digest, sums.norm, Hash.SUMS) if single is None else _of_one(sums.beginning, single)


@lru_cache(maxsize=256)
def _of_one(content: bytes, dtype: torch.dtype) -> Digest:
    """Return the digest of a tensor of one element, which is the same on every device."""
    return digest_of(torch.frombuffer(bytearray(content[: dtype.itemsize]), dtype=torch.uint8).view(dtype))
