"""Fingerprint of a tensor in a few bytes: its dtype, shape, strides and layout, and a hash of its content."""

import math
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import torch
import xxhash
from torch import Tensor

from gradparity.parity.bits import bits
from gradparity.parity.dense_parts import is_simple, layout_of, pieces, shape_of
from gradparity.parity.flatten_values import Unseen, Value

UNREAD: Final = "-" * 32
"""Digest of a tensor whose content cannot be read, such as a meta tensor. It says nothing about the content."""

_AS_NUMPY: Final = (torch.float32, torch.float64)
"""Dtypes that NumPy reads in place, for the hash and for the norm."""

_AT_ONCE: Final = 1 << 18
"""Number of elements copied at a time, where the hash needs a copy. So few stay in the cache and take no memory."""


class Fingerprint(NamedTuple):
    """Everything that a trace keeps of a tensor. Tensors of the same bits have the same fingerprint on any device."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    layout: str
    """``dense``, or the layout of a sparse or quantized tensor, or the reason why there is no content."""
    digest: str
    """128 bits of XXH3 (https://xxhash.com) over the elements in logical order, independent of the strides."""
    norm: float
    """The signed value of a dense tensor of one real element; else the L2 norm in fp32, or in fp64 for fp64
    numbers; 0 for other dtypes.

    It shows roughly how large the tensor was. It is never compared; the digest is.
    """


FingerprintValue: TypeAlias = Fingerprint | int | float | str | bool | tuple[str, ...] | Unseen | None


def fingerprint_value(value: Value) -> FingerprintValue:
    """Return the fingerprint of ``value`` if it is a tensor, else ``value`` itself."""
    return fingerprint(value) if isinstance(value, Tensor) else value


def number_of(value: FingerprintValue) -> float:
    """Return a number, whether it was plain or in a tensor of one element, such as a learning rate.

    Raises:
        TypeError: for a value that is no number.
    """
    if isinstance(value, Fingerprint):
        return value.norm
    if isinstance(value, (int, float)):
        return float(value)
    raise TypeError(f"{value!r} is no number")


def fingerprint(tensor: Tensor, last: Fingerprint | None = None) -> Fingerprint:
    """Return the fingerprint of a tensor of any kind; for a sharded tensor, of this rank's shard.

    The tensor is only read. If its content cannot be read, the digest is :data:`UNREAD`.

    Args:
        tensor: the tensor.
        last: an earlier fingerprint of it. If the content is still the same, the norm is not computed again.
    """
    tensor = shard_of(tensor)
    dtype, layout = str(tensor.dtype).removeprefix("torch."), layout_of(tensor)
    parts = pieces(tensor)
    if parts is None:
        return Fingerprint(dtype, shape_of(tensor) or (), (), layout, UNREAD, math.nan)
    if "" in parts:
        digest, norm = _digest(parts[""], last)
        return Fingerprint(dtype, tuple(tensor.shape), tensor.stride(), layout, digest, norm)
    read = {name: (_digest(part), tuple(part.shape)) for name, part in parts.items()}
    content = "".join(f"{name}{digest}{shape}" for name, ((digest, _), shape) in read.items())
    norm = math.hypot(*(norm for name, ((_, norm), _) in read.items() if parts[name].is_floating_point()))
    digest = xxhash.xxh3_128_hexdigest(content.encode())
    return Fingerprint(dtype, shape_of(tensor) or (), (), layout, digest, norm)


def hash_of_all(tensors: Iterable[Tensor]) -> str:
    """Return one hash over the contents of several tensors, in order: faster than a fingerprint each, without norms."""
    content = xxhash.xxh3_128()
    for tensor in tensors:
        if is_simple(tensor) and tensor.is_cpu and tensor.is_contiguous() and tensor.dtype in _AS_NUMPY:
            content.update(tensor.detach().numpy().data)
        else:
            content.update(fingerprint(tensor).digest.encode())
    return content.hexdigest()


def shard_of(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a sharded tensor (DTensor); return any other tensor unchanged."""
    to_local = getattr(tensor, "to_local", None)
    shard: Tensor = tensor if to_local is None else to_local()
    return shard


def _digest(tensor: Tensor, last: Fingerprint | None = None) -> tuple[str, float]:
    """Return the hash of the elements of a dense tensor, and its norm; the last one's, if the hash is."""
    if tensor.is_contiguous() and tensor.dtype in _AS_NUMPY:  # most: NumPy reads them in place
        numbers = tensor.cpu().numpy()
        digest = xxhash.xxh3_128_hexdigest(numbers.data)
        if last is not None and digest == last.digest:
            return digest, last.norm
        return digest, float(numbers.item()) if numbers.size == 1 else math.sqrt(np.vdot(numbers, numbers))
    content, square = xxhash.xxh3_128(), 0.0
    for some in _in_order(tensor):
        content.update(bits(some).numpy().data)
        square += _square(some)
    if tensor.numel() == 1 and not tensor.is_complex():
        return content.hexdigest(), float(tensor.item())
    return content.hexdigest(), math.sqrt(square)


def _in_order(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the elements in logical order, as contiguous CPU tensors of about :data:`_AT_ONCE` elements each."""
    if tensor.numel() <= _AT_ONCE:
        yield tensor.cpu().contiguous()
    elif tensor.is_contiguous():
        yield from (some.cpu() for some in tensor.view(-1).split(_AT_ONCE))
    elif (row := tensor[0].numel()) > _AT_ONCE:
        for rows in tensor:
            yield from _in_order(rows)
    else:
        yield from (some.cpu().contiguous() for some in tensor.split(_AT_ONCE // row))


def _square(numbers: Tensor) -> float:
    """Return the sum of the squares of floating-point or complex numbers; 0 for other dtypes."""
    if numbers.is_complex():
        numbers = torch.view_as_real(numbers)
    if not numbers.is_floating_point():
        return 0.0
    plain = (numbers if numbers.element_size() > 2 else numbers.float()).numpy()
    return float(np.vdot(plain, plain))
