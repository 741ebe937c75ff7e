"""The hash, and the kinds of numbers in memory: constants that Triton's kernels and PyTorch's operations share.

A tensor is read as words of 8 bytes in logical order, the last one filled with zeros. The hash is two sums, modulo
2**64, over all words: each word is mixed with its index by a bijection of 64 bits, and each sum has its own. Its
number of bytes is added like one more word, with the index :data:`LENGTH`. A sum of integers does not depend on the
order in which blocks are added, so the hash repeats.
"""

from enum import IntEnum
from typing import Final, NamedTuple

import torch


class Mix(NamedTuple):
    """One bijection: ``x ^= x >> shift`` and ``x *= factor`` in turn, as MurmurHash3 and SplitMix64 end."""

    step: int
    """Multiplied by the index; added to the word in the first sum, and combined with it by XOR in the second."""
    start: int
    shifts: tuple[int, int, int]
    factors: tuple[int, int]


FIRST: Final = Mix(0x9E3779B97F4A7C15, 0x243F6A8885A308D3, (33, 33, 33), (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53))
"""https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp, ``fmix64``."""

SECOND: Final = Mix(0xD1B54A32D192ED03, 0x13198A2E03707344, (30, 27, 31), (0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
"""https://prng.di.unimi.it/splitmix64.c"""

LENGTH: Final = -1
"""The index with which the number of bytes is mixed."""

WORD: Final = 8
"""Bytes in a word."""


class Numbers(IntEnum):
    """The kinds of numbers in memory, as a norm reads them."""

    NONE = 0
    """Integers and truth values have no norm."""
    FLOAT32 = 1
    FLOAT64 = 2
    BFLOAT16 = 3
    FLOAT16 = 4
    BYTES = 5
    """Floating-point numbers of one byte; a table holds the 256 values."""


_NUMBERS: Final = {
    torch.float32: Numbers.FLOAT32,
    torch.complex64: Numbers.FLOAT32,
    torch.float64: Numbers.FLOAT64,
    torch.complex128: Numbers.FLOAT64,
    torch.bfloat16: Numbers.BFLOAT16,
    torch.float16: Numbers.FLOAT16,
    torch.complex32: Numbers.FLOAT16,
}


FLOATS_OF_A_BYTE: Final = (
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu,
)  # fmt: skip


def kind_of(dtype: torch.dtype) -> int:
    """Return how a norm reads numbers of ``dtype``: a :class:`Numbers`, and above it a number for each table."""
    if dtype in FLOATS_OF_A_BYTE:
        return Numbers.BYTES + FLOATS_OF_A_BYTE.index(dtype)
    return _NUMBERS.get(dtype, Numbers.NONE)


def values_of_bytes(kind: int) -> torch.Tensor:
    """Return the 256 values of the dtype of one byte with this kind, as fp32."""
    return torch.arange(256, dtype=torch.uint8, device="cpu").view(FLOATS_OF_A_BYTE[kind - Numbers.BYTES]).float()
