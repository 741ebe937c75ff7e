"""Fingerprints of tensors of any kind. The tensors are read now; the wait for the result comes when it is needed."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import xxhash
from torch import Tensor

from gradparity.parity.dense_parts import layout_of, pieces, shape_of
from gradparity.parity.flatten_values import Value
from gradparity.trace.arrangement import Hashes, arrangement_if_simple, arrangement_of, name_of
from gradparity.trace.columns import Columns, in_columns
from gradparity.trace.digest import Hash
from gradparity.trace.fingerprint import UNREAD, Fingerprint, FingerprintValue
from gradparity.trace.late_digests import LateDigests


def fingerprint_value(value: Value) -> FingerprintValue:
    """Return the fingerprint of ``value`` if it is a tensor, else ``value`` itself."""
    return fingerprint(value) if isinstance(value, Tensor) else value


def fingerprint(tensor: Tensor, last: Fingerprint | None = None) -> Fingerprint:
    """Return the fingerprint of a tensor of any kind; for a sharded tensor, of this rank's shard.

    The tensor is only read. If its content cannot be read, the digest is
    :data:`gradparity.trace.fingerprint.UNREAD`.

    Args:
        tensor: the tensor.
        last: an earlier fingerprint of it. If the content is still the same, the norm is not computed again.
    """
    return LateFingerprints([tensor], None if last is None else in_columns([last])).get()[0]


def fingerprints_of(tensors: Sequence[Tensor]) -> Columns:
    """Return the fingerprint of each tensor, of any kind and on any device, with one wait for all on a GPU."""
    return LateFingerprints(tensors).get()


class LateFingerprints:
    """Fingerprints of many tensors.

    Args:
        tensors: tensors of any kind, on any devices.
        last: earlier fingerprints of the same tensors, which save the norms of large ones that have not changed.
        by: the hash of each, if it is not the one of its device.
    """

    def __init__(self, tensors: Sequence[Tensor], last: Columns | None = None, by: Hashes = None) -> None:
        arrangement = arrangement_if_simple(tensors, by)
        self._whole: list[_Whole] | None = None
        if arrangement is None:  # at least one is sparse, sharded, without content, ...
            split = [_split(tensor) for tensor in tensors]
            self._whole, tensors, last = [one for one, _ in split], [part for _, some in split for part in some], None
            by = by and tuple(one for one, (_, some) in zip(by, split, strict=True) for _ in some)
            arrangement = arrangement_of(tensors, by)
        self._forms = arrangement.forms
        self.on_host = not arrangement.on_devices
        """True if nothing was ever to be waited for."""
        self._digests = LateDigests(tensors, arrangement, last)

    def ready(self) -> bool:
        """Return whether nothing has to be waited for."""
        return self._digests.ready()

    def get(self) -> Columns:
        """Return the fingerprints, after a wait for those that are not there yet."""
        found = Columns(self._forms, *self._digests.get())
        if self._whole is None:
            return found
        parts = iter(found)
        return in_columns([_joined(whole, [next(parts) for _ in whole.parts]) for whole in self._whole])


class _Whole(NamedTuple):
    """A tensor, without the dense tensors that hold its content."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    layout: str
    parts: tuple[tuple[str, bool], ...]
    """For each of them, its name, and whether it holds floating-point numbers."""


def _split(tensor: Tensor) -> tuple[_Whole, Sequence[Tensor]]:
    tensor = shard_of(tensor)
    parts = pieces(tensor)
    strides = tensor.stride() if parts is not None and "" in parts else ()
    names = tuple((name, part.is_floating_point()) for name, part in (parts or {}).items())
    whole = _Whole(name_of(tensor.dtype), shape_of(tensor) or (), strides, layout_of(tensor), names)
    return whole, list((parts or {}).values())


def _joined(whole: _Whole, parts: Sequence[Fingerprint]) -> Fingerprint:
    dtype, shape, strides, layout, names = whole
    if not parts:
        return Fingerprint(dtype, shape, strides, layout, UNREAD, math.nan)
    if not names[0][0]:
        return parts[0]._replace(dtype=dtype, shape=shape, strides=strides, layout=layout)
    content = "".join(f"{name}{one.digest}{one.shape}" for (name, _), one in zip(names, parts, strict=True))
    norm = math.hypot(*(one.norm for (_, floating), one in zip(names, parts, strict=True) if floating))
    by = Hash.SUMS if any(one.by == Hash.SUMS for one in parts) else Hash.XXH3
    return Fingerprint(dtype, shape, strides, layout, xxhash.xxh3_128_hexdigest(content.encode()), norm, by)


def shard_of(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a sharded tensor (DTensor); return any other tensor unchanged."""
    to_local = getattr(tensor, "to_local", None)
    shard: Tensor = tensor if to_local is None else to_local()
    return shard
