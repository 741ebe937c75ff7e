"""Fingerprint of a tensor in a few bytes: its dtype, shape, strides and layout, and a hash of its content."""

import math
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Final, NamedTuple, TypeAlias

import torch
import xxhash
from torch import Tensor

from gradparity.parity.dense_parts import is_simple, layout_of, pieces, shape_of
from gradparity.parity.flatten_values import Unseen, Value
from gradparity.parity.on_gpu.digests import sums_in
from gradparity.parity.on_gpu.plain import plain_rows
from gradparity.trace.digest import AS_NUMPY, Digest, Hash
from gradparity.trace.late_digests import LateDigests

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
    """The signed value of a dense tensor of one real element; else the L2 norm in fp32, or in fp64 for fp64
    numbers; 0 for other dtypes.

    It shows roughly how large the tensor was. It is never compared; the digest is.
    """
    by: Hash = Hash.XXH3
    """The hash that made the digest. Digests by two hashes are not comparable."""


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
    return LateFingerprints([tensor], [last]).get()[0]


def fingerprints_of(tensors: Sequence[Tensor], last: Sequence[Fingerprint | None] | None = None) -> list[Fingerprint]:
    """Return the fingerprint of each tensor, with one wait for all that are on a GPU.

    Args:
        tensors: tensors of any kind, on any devices.
        last: an earlier fingerprint of each, if there is one.
    """
    return LateFingerprints(tensors, last).get()


class LateFingerprints:
    """Fingerprints of many tensors: they are read now, and the result is waited for when it is asked for.

    Args:
        tensors: tensors of any kind, on any devices.
        last: an earlier fingerprint of each, if there is one.
    """

    def __init__(self, tensors: Sequence[Tensor], last: Sequence[Fingerprint | None] | None = None) -> None:
        self._forms: list[_Form] = []
        parts: list[Tensor] = []
        whose: list[int] = []
        for index, tensor in enumerate(tensors):
            form, of_it = _form_and_parts(tensor)
            self._forms.append(form)
            parts += of_it
            whose += [index] * len(of_it)
        self._digests = LateDigests(parts, None if last is None else lambda i: _digest_in(last[whose[i]]))

    def ready(self) -> bool:
        """Return whether nothing has to be waited for."""
        return self._digests.ready()

    def get(self) -> list[Fingerprint]:
        """Return the fingerprints, after a wait for those that are not there yet."""
        digests = iter(self._digests.get())
        return [_finished(form, [next(digests) for _ in form.parts]) for form in self._forms]


class _Form(NamedTuple):
    """The form of a tensor, and what is to be known of the dense tensors that hold its content."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    layout: str
    parts: tuple[tuple[str, tuple[int, ...], bool], ...] = (("", (), False),)
    """Name, shape, and whether it holds floating-point numbers."""


def _form_and_parts(tensor: Tensor) -> tuple[_Form, Sequence[Tensor]]:
    if _is_known_simple(tensor):  # most
        return _dense_form(tensor.dtype, tensor.shape, tensor.stride()), (tensor.detach(),)
    tensor = shard_of(tensor)
    dtype, layout = _name_of(tensor.dtype), layout_of(tensor)
    parts = pieces(tensor)
    if parts is None:
        return _Form(dtype, shape_of(tensor) or (), (), layout, ()), ()
    if "" in parts:
        return _Form(dtype, tuple(tensor.shape), tensor.stride(), layout), (parts[""],)
    of_parts = tuple((name, tuple(part.shape), part.is_floating_point()) for name, part in parts.items())
    return _Form(dtype, shape_of(tensor) or (), (), layout, of_parts), tuple(parts.values())


def _is_known_simple(tensor: Tensor) -> bool:
    """Return whether ``tensor`` is simple; an unknown class, which may raise anything, is not."""
    try:
        return is_simple(tensor)
    except Exception:
        return False


def _finished(form: _Form, digests: Sequence[Digest]) -> Fingerprint:
    dtype, shape, strides, layout, parts = form
    if not parts:
        return Fingerprint(dtype, shape, strides, layout, UNREAD, math.nan)
    if not parts[0][0]:
        return Fingerprint(dtype, shape, strides, layout, *digests[0])
    content = "".join(f"{name}{one.text}{of_it}" for (name, of_it, _), one in zip(parts, digests, strict=True))
    norm = math.hypot(*(one.norm for (_, _, floating), one in zip(parts, digests, strict=True) if floating))
    by = Hash.SUMS if any(one.by == Hash.SUMS for one in digests) else Hash.XXH3
    return Fingerprint(dtype, shape, strides, layout, xxhash.xxh3_128_hexdigest(content.encode()), norm, by)


def _digest_in(last: Fingerprint | None) -> Digest | None:
    return None if last is None else Digest(last.digest, last.norm, last.by)


@lru_cache(maxsize=4096)
def _dense_form(dtype: torch.dtype, shape: torch.Size, strides: tuple[int, ...]) -> _Form:
    return _Form(_name_of(dtype), tuple(shape), strides, "dense")


@cache
def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def digest_by(by: Hash, tensor: Tensor) -> str:
    """Return the digest of a dense tensor on the CPU by a given hash, to compare it with a digest in a trace."""
    if by == Hash.SUMS:
        return sums_in(plain_rows([tensor.contiguous()]))[0].digest
    return fingerprint(tensor).digest


class LateHash:
    """One hash over the contents of several tensors, on a GPU: whoever reads its text waits for it."""

    def __init__(self, tensors: Sequence[Tensor], more: str = "") -> None:
        self._late, self._more = LateFingerprints(tensors), more
        self._text = ""

    def ready(self) -> bool:
        """Return whether nothing has to be waited for."""
        return bool(self._text) or self._late.ready()

    def __str__(self) -> str:
        if not self._text:
            digests = "".join(one.digest for one in self._late.get())
            self._text = xxhash.xxh3_128_hexdigest(digests.encode()) + self._more
        return self._text


def late_hash_of_all(tensors: Iterable[Tensor], more: str = "") -> str | LateHash:
    """Return one hash over the contents of several tensors, in order: faster than a fingerprint each, without norms.

    ``more`` is added at its end. On a GPU, the hash is late.
    """
    content, given = xxhash.xxh3_128(), list(tensors)
    if not all(tensor.is_cpu for tensor in given):
        return LateHash(given, more)
    for tensor in given:
        if _is_known_simple(tensor) and tensor.is_contiguous() and tensor.dtype in AS_NUMPY:
            content.update(tensor.detach().numpy().data)
        else:
            content.update(fingerprint(tensor).digest.encode())
    return content.hexdigest() + more


def shard_of(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a sharded tensor (DTensor); return any other tensor unchanged."""
    to_local = getattr(tensor, "to_local", None)
    shard: Tensor = tensor if to_local is None else to_local()
    return shard
