"""Triton's kernels called for many tensors; nothing here waits for the device."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from gradparity.parity.on_gpu import kernels
from gradparity.parity.on_gpu.blocks import Place, addresses_of, blocks_of, on_device
from gradparity.parity.on_gpu.mixing import Numbers, kind_of, values_of_bytes


def launched_rows(tensors: Sequence[Tensor]) -> Tensor:
    """Return the rows of :func:`gradparity.parity.on_gpu.digests.rows_of`, for contiguous tensors on one device.

    Each dtype takes one launch, and one more adds the sums of the blocks. The address of each tensor must be a multiple
    of 8.
    """
    place = _place(tensors[0].device)
    kinds = tuple(kind_of(tensor.dtype) for tensor in tensors)
    blocks = blocks_of(tuple(tensor.nbytes for tensor in tensors), kinds, kernels.LANES * kernels.ROUNDS, place)
    addresses = addresses_of(tuple(tensor.data_ptr() for tensor in tensors), place)
    count, device = len(blocks.tensor_of), place[0]
    count += count % 2  # else a part would begin at no multiple of 16, for which Triton compiles the kernels anew
    sums, squares, others = torch.empty(4 * count, dtype=torch.int64, device=device).split([2 * count, count, count])
    squares = squares.view(torch.float64)
    rows = torch.empty((len(tensors), 5), dtype=torch.int64, device=device)
    tables = addresses, blocks.sizes, blocks.firsts
    for kind, start, number in blocks.launches:
        kernels.sum_blocks[(number,)](
            *tables, blocks.tensor_of, start, _values(kind, place), sums, squares, others,
            NUMBERS=min(kind, int(Numbers.BYTES)), LANES=kernels.LANES, ROUNDS=kernels.ROUNDS,
        )  # fmt: skip
    kernels.sum_tensors[(len(tensors),)](*tables, blocks.ends, sums, squares, others, rows, LANES=kernels.LANES)
    return rows


def launched_counts(
    device: torch.device, addresses: Iterable[tuple[int, ...]], sizes: tuple[int, ...], widths: tuple[int, ...]
) -> Tensor:
    """Return the counts of :func:`gradparity.parity.on_gpu.count_differences.count_differences`.

    Each size of an element takes one launch. The caller keeps the tensors alive.

    Args:
        device: where all tensors are.
        addresses: those of the tensors of either side, which are contiguous; each is a multiple of 8.
        sizes: the number of bytes of each tensor of a pair.
        widths: the number of bytes of each element.
    """
    place = _place(device)
    blocks = blocks_of(sizes, widths, kernels.LANES * kernels.ROUNDS, place)
    ours, theirs = (addresses_of(side, place) for side in addresses)
    counts = torch.zeros(len(sizes), dtype=torch.int64, device=place[0])
    for width, start, number in blocks.launches:
        kernels.count_blocks[(number,)](
            ours, theirs, blocks.sizes, blocks.firsts, blocks.tensor_of, start, counts,
            WIDTH=width, LANES=kernels.LANES, ROUNDS=kernels.ROUNDS,
        )  # fmt: skip
    return counts


def _place(device: torch.device) -> Place:
    return device, torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


@lru_cache(maxsize=64)
def _values(kind: int, place: Place) -> Tensor:
    """Return the values of numbers of one byte; for other kinds, a table that is not read."""
    return on_device(values_of_bytes(max(kind, Numbers.BYTES)), place[0])
