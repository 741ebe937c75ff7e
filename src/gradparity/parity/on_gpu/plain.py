"""The sums of Triton's kernels in plain operations of PyTorch: slower, for devices without Triton and for tests."""

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from gradparity.parity.bits import bits
from gradparity.parity.on_gpu.mixing import FIRST, LENGTH, SECOND, WORD, Mix, Numbers, kind_of

_AT_ONCE: Final = 1 << 22
"""Words that are mixed at a time: the operations need some copies of them."""


def plain_rows(tensors: Sequence[Tensor]) -> Tensor:
    """Return the rows of :func:`gradparity.parity.on_gpu.digests.rows_of`, for tensors on one device."""
    return torch.stack([_row(tensor) for tensor in tensors])


def plain_counts(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Return the counts of :func:`gradparity.parity.on_gpu.count_differences.count_differences`."""
    return torch.stack([(bits(one) != bits(other)).sum() for one, other in zip(ours, theirs, strict=True)])


def _row(tensor: Tensor) -> Tensor:
    flat = tensor.detach().contiguous().as_strided((tensor.numel(),), (1,))  # one element may have any stride
    content = flat.view(torch.uint8)
    length = torch.full((1,), content.numel(), dtype=torch.int64, device=tensor.device)
    first, second = (_mixed(length, length * 0 + LENGTH, mix).sum() for mix in (FIRST, SECOND))
    for start, words in _words(content):
        index = torch.arange(start, start + words.numel(), device=tensor.device)
        first = first + _mixed(words, index, FIRST).sum()
        second = second + _mixed(words, index, SECOND).sum()
    squares, others = _squares(flat)
    beginning = _word(content[:WORD])
    return torch.stack([first, second, squares.view(torch.int64), others, beginning])


def _words(content: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield words with the index of the first of them; the last word is filled with zeros."""
    whole = content.numel() // WORD
    if content.storage_offset() % WORD or content.data_ptr() % WORD:
        content = content.clone()
    words = content[: whole * WORD].view(torch.int64)
    for start in range(0, whole, _AT_ONCE):
        yield start, words[start : start + _AT_ONCE]
    if content.numel() % WORD:
        yield whole, _word(content[whole * WORD :]).view(1)


def _word(some: Tensor) -> Tensor:
    """Return up to 8 bytes as one word, the first byte lowest."""
    return (some.long() << torch.arange(0, 8 * some.numel(), 8, device=some.device)).sum()


def _mixed(words: Tensor, index: Tensor, mix: Mix) -> Tensor:
    at = index * _signed(mix.step) + _signed(mix.start)
    x = words + at if mix is FIRST else words ^ at
    for shift, factor in zip(mix.shifts, mix.factors, strict=False):
        x = (x ^ _shifted(x, shift)) * _signed(factor)
    return x ^ _shifted(x, mix.shifts[-1])


def _shifted(x: Tensor, shift: int) -> Tensor:
    """Return ``x`` as an unsigned number, shifted to the right; PyTorch's own shift repeats the sign."""
    return (x >> shift) & ((1 << (64 - shift)) - 1)


def _signed(constant: int) -> int:
    """Return the signed integer with the bits of an unsigned one of 64 bits."""
    return constant - (1 << 64) if constant >> 63 else constant


def _squares(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of squares, in fp64, and the count of numbers that are not finite; zeros for other dtypes."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor).reshape(-1)
    squares = torch.zeros((), dtype=torch.float64, device=tensor.device)
    others = torch.zeros((), dtype=torch.int64, device=tensor.device)
    if kind_of(tensor.dtype) != Numbers.NONE:
        for some in tensor.split(_AT_ONCE):
            numbers = some if some.dtype == torch.float64 else some.float()
            squares = squares + numbers.square().sum()
            others = others + (~numbers.isfinite()).sum()
    return squares, others
