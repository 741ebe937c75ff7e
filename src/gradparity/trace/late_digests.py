"""Digests of many tensors. A GPU computes those of its own tensors, and nothing waits for it until they are read."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradparity.parity.on_gpu.digests import rows_of
from gradparity.trace.arrangement import Arrangement, OnDevice
from gradparity.trace.columns import Columns
from gradparity.trace.digest import Digest, digest_of, digests_of_group

BYTES = 16
"""Length of a digest."""


class LateDigests:
    """Digests of dense tensors. All tensors are read now, on the current stream; the result is read later.

    The kernels run between what the loop has issued before and what it issues after, so the loop cannot overwrite a
    tensor before it is read.

    Args:
        tensors: plain dense tensors on any devices, as :func:`gradparity.parity.dense_parts.pieces` gives.
        arrangement: their arrangement.
        last: earlier fingerprints of the same tensors; they save the norms of large ones on the CPU.
    """

    def __init__(self, tensors: Sequence[Tensor], arrangement: Arrangement, last: Columns | None = None) -> None:
        self._texts = np.empty((len(tensors), BYTES), dtype=np.uint8)
        self._norms = np.empty(len(tensors))
        for positions, group in arrangement.together:
            self._put(positions, *digests_of_group([tensors[i] for i in positions], group))
        for i in arrangement.alone:
            found = digest_of(tensors[i].detach(), None if last is None else last.digest(i))
            self._put(i, bytes.fromhex(found.text), found.norm)
        self._batches = [_start([tensors[i] for i in some.positions], some) for some in arrangement.on_devices]

    def _put(
        self, positions: int | npt.NDArray[np.intp], digests: bytes, norms: float | npt.NDArray[np.float64]
    ) -> None:
        self._texts[positions] = np.frombuffer(digests, dtype=np.uint8).reshape(-1, BYTES)
        self._norms[positions] = norms

    def ready(self) -> bool:
        """Return whether all digests are there, without a wait."""
        return all(batch.written is None or batch.written.query() for batch in self._batches)

    def get(self) -> tuple[str, list[float]]:
        """Return the digests, one after the other in hexadecimal, and the norms, after a wait for all of them."""
        for batch in self._batches:
            if batch.written is not None:
                batch.written.synchronize()
            rows = batch.rows.numpy()
            norms = np.sqrt(rows[:, 2].copy().view(np.float64))
            self._put(batch.tensors.positions, rows[:, :2].astype(">i8").tobytes(), norms)
            for k, dtype in batch.tensors.single:
                one = _of_one(rows[k, 4].astype("<i8").tobytes(), dtype)
                self._put(int(batch.tensors.positions[k]), bytes.fromhex(one.text), one.norm)
        self._batches = []
        return self._texts.tobytes().hex(), self._norms.tolist()


class _Batch(NamedTuple):
    """Sums of tensors on one device, on their way to the host."""

    tensors: OnDevice
    rows: Tensor
    """On the CPU; not yet written, if ``written`` has not happened."""
    written: torch.cuda.Event | None


def _start(tensors: Sequence[Tensor], which: OnDevice) -> _Batch:
    rows = rows_of(tensors)
    if not rows.is_cuda:
        return _Batch(which, rows.cpu(), None)
    stream = torch.cuda.current_stream(rows.device)
    for tensor in tensors:  # one that was made on a different stream stays until it is read
        tensor.record_stream(stream)
    written = torch.cuda.Event()
    here = rows.to("cpu", non_blocking=True)  # into pinned memory, which PyTorch keeps and uses again
    written.record(stream)
    return _Batch(which, here, written)


@lru_cache(maxsize=256)
def _of_one(content: bytes, dtype: torch.dtype) -> Digest:
    """Return the digest of a tensor of one element, which is the same on every device."""
    return digest_of(torch.frombuffer(bytearray(content[: dtype.itemsize]), dtype=torch.uint8).view(dtype))
