"""Triton's kernels: sums over the words of many tensors, and the number of elements that differ.

This module needs Triton, which comes with PyTorch's CUDA builds. See :mod:`gradparity.parity.on_gpu.mixing` for the
hash. Tables of addresses and sizes, one entry for each tensor, are in the device's memory.
"""

import triton
import triton.language as tl

from gradparity.parity.on_gpu.mixing import FIRST, SECOND

ROUNDS = 8
"""Times that a block reads :data:`LANES` words."""

LANES = 1024

_STEP_1, _START_1 = tl.constexpr(FIRST.step), tl.constexpr(FIRST.start)
_A1, _B1, _C1 = (tl.constexpr(shift) for shift in FIRST.shifts)
_M1, _N1 = (tl.constexpr(factor) for factor in FIRST.factors)
_STEP_2, _START_2 = tl.constexpr(SECOND.step), tl.constexpr(SECOND.start)
_A2, _B2, _C2 = (tl.constexpr(shift) for shift in SECOND.shifts)
_M2, _N2 = (tl.constexpr(factor) for factor in SECOND.factors)


@triton.jit
def _first(words, index):
    """Mix words with their indices for the first sum."""
    x = words + (index.to(tl.uint64) * _STEP_1 + _START_1)
    x ^= x >> _A1
    x *= _M1
    x ^= x >> _B1
    x *= _N1
    return x ^ (x >> _C1)


@triton.jit
def _second(words, index):
    """Mix words with their indices for the second sum."""
    x = words ^ (index.to(tl.uint64) * _STEP_2 + _START_2)
    x ^= x >> _A2
    x *= _M2
    x ^= x >> _B2
    x *= _N2
    return x ^ (x >> _C2)


@triton.jit
def _square(number, squares, others):
    """Add the squares of numbers, and count those that are not finite."""
    return squares + number * number, others + (number - number != 0).to(tl.int32)


@triton.jit
def _squares(words, squares, others, table, NUMBERS: tl.constexpr):
    """Add the squares of all numbers in words, and count the numbers that are not finite."""
    if NUMBERS == 1:
        for i in tl.static_range(2):
            number = (words >> (32 * i)).to(tl.uint32).to(tl.float32, bitcast=True)
            squares, others = _square(number, squares, others)
    elif NUMBERS == 2:
        squares, others = _square(words.to(tl.float64, bitcast=True), squares, others)
    elif NUMBERS == 3:
        for i in tl.static_range(4):
            number = ((words >> (16 * i)) & 0xFFFF).to(tl.uint32) << 16
            squares, others = _square(number.to(tl.float32, bitcast=True), squares, others)
    elif NUMBERS == 4:
        for i in tl.static_range(4):
            number = (words >> (16 * i)).to(tl.uint16).to(tl.float16, bitcast=True)
            squares, others = _square(number.to(tl.float32), squares, others)
    elif NUMBERS == 5:
        for i in tl.static_range(8):
            number = tl.load(table + ((words >> (8 * i)) & 0xFF).to(tl.int32))
            squares, others = _square(number, squares, others)
    return squares, others


@triton.jit
def _last_word(address, size):
    """Return the bytes after the last whole word as 8 words, of which the first holds them all."""
    byte = tl.arange(0, 8)
    here = tl.load(address.to(tl.pointer_type(tl.uint8)) + (size // 8 * 8 + byte), mask=byte < size % 8, other=0)
    word = tl.sum(here.to(tl.uint64) << (8 * byte).to(tl.uint64), 0)
    return tl.where(byte == 0, word, tl.zeros([8], tl.uint64))


@triton.jit(do_not_specialize=["start"])
def sum_blocks(addresses, sizes, firsts, tensor_of, start, table, sums, squares, others,
               NUMBERS: tl.constexpr, LANES: tl.constexpr, ROUNDS: tl.constexpr):  # fmt: skip
    """Write the sums of one block of a tensor: both hashes, the squares of its numbers, the count of those not finite.

    Args:
        addresses: int64 address of each tensor.
        sizes: int64 number of bytes of each tensor.
        firsts: int64 number of the first block of each tensor.
        tensor_of: int32 tensor of each block.
        start: number of the first block of this launch.
        table: fp32 values of the 256 bytes, for numbers of one byte.
        sums: int64 [blocks, 2].
        squares: fp64 [blocks].
        others: int64 [blocks].
        NUMBERS: a :class:`~gradparity.parity.on_gpu.mixing.Numbers`.
        LANES: words read at a time.
        ROUNDS: number of times.
    """
    block = tl.program_id(0).to(tl.int64) + start
    tensor = tl.load(tensor_of + block)
    address, size = tl.load(addresses + tensor), tl.load(sizes + tensor)
    offset = (block - tl.load(firsts + tensor)) * (LANES * ROUNDS)
    first, second = tl.zeros([LANES], tl.uint64), tl.zeros([LANES], tl.uint64)
    if NUMBERS == 2:
        square = tl.zeros([LANES], tl.float64)
    else:
        square = tl.zeros([LANES], tl.float32)
    other = tl.zeros([LANES], tl.int32)
    words = address.to(tl.pointer_type(tl.uint64))
    for i in range(ROUNDS):
        index = offset + i * LANES + tl.arange(0, LANES)
        there = index < size // 8
        word = tl.load(words + index, mask=there, other=0)
        first += tl.where(there, _first(word, index), 0)
        second += tl.where(there, _second(word, index), 0)
        square, other = _squares(word, square, other, table, NUMBERS)
    sum_1, sum_2 = tl.sum(first, 0), tl.sum(second, 0)
    total, count = tl.sum(square.to(tl.float64), 0), tl.sum(other.to(tl.int64), 0)
    if offset == 0:  # the first block of a tensor adds its length, and its last word if that is not a whole one
        lane = tl.arange(0, 8)
        word = tl.where(lane == 1, size, 0).to(tl.uint64) + _last_word(address, size)
        index = tl.where(lane == 1, -1, size // 8)
        here = (lane == 1) | ((lane == 0) & (size % 8 != 0))
        sum_1 += tl.sum(tl.where(here, _first(word, index), 0), 0)
        sum_2 += tl.sum(tl.where(here, _second(word, index), 0), 0)
        if NUMBERS == 2:
            rest = tl.zeros([8], tl.float64)
        else:
            rest = tl.zeros([8], tl.float32)
        rest, more = _squares(_last_word(address, size), rest, tl.zeros([8], tl.int32), table, NUMBERS)
        total += tl.sum(rest.to(tl.float64), 0)
        count += tl.sum(more.to(tl.int64), 0)
    tl.store(sums + 2 * block, sum_1.to(tl.int64, bitcast=True))
    tl.store(sums + 2 * block + 1, sum_2.to(tl.int64, bitcast=True))
    tl.store(squares + block, total)
    tl.store(others + block, count)


@triton.jit
def sum_tensors(addresses, sizes, firsts, ends, sums, squares, others, rows, LANES: tl.constexpr):
    """Add the sums of all blocks of one tensor, always in the same order, and write them as one row of int64.

    Args:
        addresses: int64 address of each tensor.
        sizes: int64 number of bytes of each tensor.
        firsts: int64 number of the first block of each tensor.
        ends: int64 number of the block after its last.
        sums: int64 [blocks, 2].
        squares: fp64 [blocks].
        others: int64 [blocks].
        rows: int64 [tensors, 5]; see :mod:`gradparity.parity.on_gpu.digests`.
        LANES: blocks read at a time.
    """
    tensor = tl.program_id(0).to(tl.int64)
    first, end = tl.load(firsts + tensor), tl.load(ends + tensor)
    sum_1, sum_2 = tl.zeros([LANES], tl.int64), tl.zeros([LANES], tl.int64)
    square, other = tl.zeros([LANES], tl.float64), tl.zeros([LANES], tl.int64)
    while first < end:
        block = first + tl.arange(0, LANES)
        there = block < end
        sum_1 += tl.load(sums + 2 * block, mask=there, other=0)
        sum_2 += tl.load(sums + 2 * block + 1, mask=there, other=0)
        square += tl.load(squares + block, mask=there, other=0)
        other += tl.load(others + block, mask=there, other=0)
        first += LANES
    size = tl.load(sizes + tensor)
    byte = tl.arange(0, 8)
    beginning = tl.load(tl.load(addresses + tensor).to(tl.pointer_type(tl.uint8)) + byte, mask=byte < size, other=0)
    row = rows + 5 * tensor
    tl.store(row, tl.sum(sum_1, 0))
    tl.store(row + 1, tl.sum(sum_2, 0))
    tl.store(row + 2, tl.sum(square, 0).to(tl.int64, bitcast=True))
    tl.store(row + 3, tl.sum(other, 0))
    tl.store(row + 4, tl.sum(beginning.to(tl.uint64) << (8 * byte).to(tl.uint64), 0).to(tl.int64, bitcast=True))


@triton.jit
def _different(one, other, WIDTH: tl.constexpr):
    """Count the elements of ``WIDTH`` bytes that differ in each pair of words."""
    difference = one ^ other
    count = tl.zeros_like(difference).to(tl.int32)
    for i in tl.static_range(8 // WIDTH):
        if WIDTH == 8:
            element = difference
        else:
            element = (difference >> (8 * WIDTH * i)) & ((1 << (8 * WIDTH)) - 1)
        count += (element != 0).to(tl.int32)
    return count


@triton.jit(do_not_specialize=["start"])
def count_blocks(ours, theirs, sizes, firsts, tensor_of, start, counts,
                 WIDTH: tl.constexpr, LANES: tl.constexpr, ROUNDS: tl.constexpr):  # fmt: skip
    """Add the number of elements that differ in one block of a pair of tensors to the count of the pair.

    Args:
        ours: int64 address of the first tensor of each pair.
        theirs: int64 address of the second.
        sizes: int64 number of bytes of each.
        firsts: int64 number of the first block of each pair.
        tensor_of: int32 pair of each block.
        start: number of the first block of this launch.
        counts: int64 [pairs], zeros.
        WIDTH: bytes of an element.
        LANES: words read at a time.
        ROUNDS: number of times.
    """
    block = tl.program_id(0).to(tl.int64) + start
    pair = tl.load(tensor_of + block)
    one, other, size = tl.load(ours + pair), tl.load(theirs + pair), tl.load(sizes + pair)
    offset = (block - tl.load(firsts + pair)) * (LANES * ROUNDS)
    ours_, theirs_ = one.to(tl.pointer_type(tl.uint64)), other.to(tl.pointer_type(tl.uint64))
    count = tl.zeros([LANES], tl.int32)
    for i in range(ROUNDS):
        index = offset + i * LANES + tl.arange(0, LANES)
        there = index < size // 8
        count += _different(
            tl.load(ours_ + index, mask=there, other=0), tl.load(theirs_ + index, mask=there, other=0), WIDTH
        )
    total = tl.sum(count.to(tl.int64), 0)
    if offset == 0:
        total += tl.sum(_different(_last_word(one, size), _last_word(other, size), WIDTH).to(tl.int64), 0)
    if total > 0:
        tl.atomic_add(counts + pair, total)
