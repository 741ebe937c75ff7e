"""Fingerprint of a tensor in a few bytes: its dtype, shape, strides and layout, and a hash of its content."""

from typing import Final, NamedTuple, TypeAlias

from gradparity.parity.flatten_values import Unseen
from gradparity.trace.digest import Hash

UNREAD: Final = "-" * 32
"""Digest of a tensor whose content cannot be read, such as a meta tensor. It says nothing about the content."""


class Fingerprint(NamedTuple):
    """Everything that a trace keeps of a tensor.

    Tensors of the same bits have the same digest, if one hash made both: there is one for CPUs and one for GPUs.
    """

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    layout: str
    """``dense``, or the layout of a sparse or quantized tensor, or the reason why there is no content."""
    digest: str
    """128 bits over the elements in logical order, independent of the strides."""
    norm: float
    """The signed value of a dense tensor of one real element; else the L2 norm, in fp32 or more precisely; 0 for
    integers and truth values.

    It shows roughly how large the tensor was. It is never compared; the digest is.
    """
    by: Hash = Hash.XXH3
    """The hash that made the digest. Digests by two hashes are not comparable."""


FingerprintValue: TypeAlias = Fingerprint | int | float | str | bool | tuple[str, ...] | Unseen | None


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
