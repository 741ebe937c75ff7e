"""A tensor in a few bytes: what it is, how it lies in memory, and a hash of its content."""

import math
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import xxhash
from torch import Tensor

from gradparity.parity.bits import bits
from gradparity.parity.state import Value


class Fingerprint(NamedTuple):
    """All that a trace keeps of a tensor. Two tensors of the same bits have the same, wherever they are."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    layout: str
    """``dense``, or how a sparse tensor is kept."""
    digest: str
    """128 bits of XXH3 (https://xxhash.com) over the elements in their logical order, whatever the strides."""
    norm: float
    """The value, with its sign, of a dense tensor of one real element; else the L2 norm in fp32; 0 for other dtypes.

    It says about how large the tensor was. It is never compared: the digest is.
    """


Printed: TypeAlias = Fingerprint | int | float | str | bool | tuple[str, ...] | None


def printed(value: Value) -> Printed:
    """``value`` if it is no tensor, else its fingerprint."""
    return fingerprint(value) if isinstance(value, Tensor) else value


def fingerprint(tensor: Tensor) -> Fingerprint:
    """The fingerprint of a dense or a sparse COO tensor, which is only read; of a sharded one, of this rank's shard."""
    tensor = shard_of(tensor.detach())
    dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
    if tensor.is_sparse:
        parts = tensor._indices(), tensor._values()
        content = "".join(_digest(part) + str(tuple(part.shape)) for part in parts)
        layout = "sparse, coalesced" if tensor.is_coalesced() else "sparse, not coalesced"
        return Fingerprint(dtype, shape, (), layout, xxhash.xxh3_128_hexdigest(content.encode()), _norm(parts[1]))
    if tensor.dtype in (torch.float32, torch.float64):  # most are, and NumPy takes half the time for small ones
        numbers = tensor.contiguous().cpu().numpy()
        digest = xxhash.xxh3_128_hexdigest(numbers.data)
        # Of infinities in vdot NumPy does not warn, as it does of those in dot.
        norm = float(numbers.item()) if numbers.size == 1 else math.sqrt(np.vdot(numbers, numbers))
        return Fingerprint(dtype, shape, tensor.stride(), "dense", digest, norm)
    one = tensor.numel() == 1 and not tensor.is_complex()
    size = float(tensor.item()) if one else _norm(tensor)
    return Fingerprint(dtype, shape, tensor.stride(), "dense", _digest(tensor), size)


def shard_of(tensor: Tensor) -> Tensor:
    """What of a sharded tensor (DTensor) is on this rank; any other as it is."""
    to_local = getattr(tensor, "to_local", None)
    shard: Tensor = tensor if to_local is None else to_local()
    return shard


def _digest(tensor: Tensor) -> str:
    return xxhash.xxh3_128_hexdigest(bits(tensor.contiguous()).cpu().numpy().data)


def _norm(tensor: Tensor) -> float:
    if not tensor.is_floating_point():
        return 0.0
    narrow = tensor.element_size() < 4
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float32 if narrow else None))
