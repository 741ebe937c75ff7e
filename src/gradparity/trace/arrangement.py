"""The groups in which many dense tensors are read together. They depend on forms alone, so they are kept by form."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate
from operator import attrgetter
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradparity.parity.dense_parts import HAS_NAMES, PLAIN, stretch
from gradparity.parity.many_at_once import STACKED
from gradparity.trace.columns import Form, Forms
from gradparity.trace.digest import Group, Hash, group_of

SMALL: Final = 4096
"""Largest size in bytes of a tensor that is copied, to be read together with others."""

_AT_ONCE: Final = 1 << 20
"""Bytes that are copied at a time: so few stay in the cache and take no memory."""


Hashes: TypeAlias = tuple[Hash, ...] | None
"""The hash of each of several tensors; ``None`` for the one of its device."""


class Together(NamedTuple):
    """Small tensors on the CPU that are read together."""

    positions: npt.NDArray[np.intp]
    group: Group


class OnDevice(NamedTuple):
    """Tensors on one GPU."""

    positions: npt.NDArray[np.intp]
    single: tuple[tuple[int, torch.dtype], ...]
    """The index in ``positions``, and the dtype, of each tensor of one real element."""


@dataclass(frozen=True, eq=False)
class Arrangement:
    """The forms of many dense tensors, and the groups that are read together."""

    forms: Forms
    together: tuple[Together, ...]
    on_devices: tuple[OnDevice, ...]
    alone: tuple[int, ...]
    """Positions of the others, which are read one by one."""
    ends: tuple[int, ...]
    """For each tensor, the number of bytes from its first to its last element."""
    is_plain: bool
    """False if the memory of a tensor may not be its content: quantized, on meta, or complex and perhaps conjugated."""


def arrangement_of(tensors: Sequence[Tensor], by: Hashes = None) -> Arrangement:
    """Return the arrangement of strided tensors, to be hashed as ``by`` says.

    Raises:
        RuntimeError: for a tensor without strides, such as a sparse or nested one.
    """
    each = (
        map(attrgetter("dtype"), tensors), map(attrgetter("shape"), tensors), map(Tensor.stride, tensors),
        map(attrgetter("device"), tensors),
    )  # fmt: skip
    return _arranged(*map(tuple, each), by)


def arrangement_if_simple(tensors: Sequence[Tensor], by: Hashes = None) -> Arrangement | None:
    """Return the arrangement of tensors if each of them is :func:`gradparity.parity.dense_parts.is_simple`."""
    if not PLAIN.issuperset(map(type, tensors)) or any(map(Tensor.is_neg, tensors)):
        return None
    if HAS_NAMES and any(any(names) for names in map(attrgetter("names"), tensors)):
        return None
    try:
        found = arrangement_of(tensors, by)
        return found if found.is_plain and _have_memory(tensors, found.ends) else None
    except RuntimeError:  # a sparse or nested tensor has no strides, or no storage
        return None


def _have_memory(tensors: Sequence[Tensor], ends: Sequence[int]) -> bool:
    """Return whether each storage holds all elements: FSDP frees it, and reading it then crashes."""
    sizes = [tensor.untyped_storage().nbytes() for tensor in tensors]
    starts = map(Tensor.storage_offset, tensors)
    if not any(starts):
        return all(map(int.__ge__, sizes, ends))
    return all(
        size >= end + tensor.storage_offset() * tensor.element_size()
        for size, end, tensor in zip(sizes, ends, tensors, strict=True)
        if end
    )


@lru_cache(maxsize=256)
def _arranged(
    dtypes: tuple[torch.dtype, ...],
    shapes: tuple[torch.Size, ...],
    strides: tuple[tuple[int, ...], ...],
    devices: tuple[torch.device, ...],
    by: Hashes,
) -> Arrangement:
    groups: dict[torch.device | torch.dtype | None, list[int]] = {None: []}
    forms = []
    hashes = by or tuple(map(hash_on, devices))
    for i, (dtype, shape, steps, device) in enumerate(zip(dtypes, shapes, strides, devices, strict=True)):
        group = read_with(dtype, shape, device, hashes[i])
        groups.setdefault(group, []).append(i)
        sums = isinstance(group, torch.device) and not _is_single(dtype, shape)
        forms.append(Form(name_of(dtype), tuple(shape), steps, "dense", Hash.SUMS if sums else Hash.XXH3))
    small = {dtype: some for dtype, some in groups.items() if isinstance(dtype, torch.dtype)}
    return Arrangement(
        Forms(tuple(forms)),
        tuple(_together(some, dtype, shapes) for dtype, all_ in small.items() for some in _few(all_, dtype, shapes)),
        tuple(_on_device(some, dtypes, shapes) for there, some in groups.items() if isinstance(there, torch.device)),
        tuple(groups[None]),
        tuple(dtype.itemsize * stretch(*form) for dtype, *form in zip(dtypes, shapes, strides, strict=True)),
        all(map(_is_plain, dtypes, devices)),
    )


def hash_on(device: torch.device) -> Hash:
    """Return the hash of tensors on a device.

    Tensors on a GPU are hashed there. Of those on other devices, the CPU hashes copies: MPS, for example, has no fp64
    numbers for the norm.
    """
    return Hash.SUMS if device.type in ("cuda", "xpu") else Hash.XXH3


def read_with(
    dtype: torch.dtype, shape: torch.Size, device: torch.device, by: Hash
) -> torch.device | torch.dtype | None:
    """Return the key of the group that is read together with this tensor; ``None`` if it is read alone."""
    if by == Hash.SUMS:
        return device
    small = device.type == "cpu" and dtype in STACKED and 0 < shape.numel() * dtype.itemsize <= SMALL
    return dtype if small else None


def _is_single(dtype: torch.dtype, shape: torch.Size) -> bool:
    """Return whether a tensor is one real number, which is kept with its sign."""
    return shape.numel() == 1 and not dtype.is_complex


def _is_plain(dtype: torch.dtype, device: torch.device) -> bool:
    quantized = dtype in (torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4)
    return not (dtype.is_complex or quantized or device.type == "meta")


def _few(positions: Sequence[int], dtype: torch.dtype, shapes: Sequence[torch.Size]) -> list[list[int]]:
    """Return the positions in groups of about :data:`_AT_ONCE` bytes."""
    groups: dict[int, list[int]] = {}
    ends = accumulate(shapes[i].numel() * dtype.itemsize for i in positions)
    for i, end in zip(positions, ends, strict=True):
        groups.setdefault(end // _AT_ONCE, []).append(i)
    return list(groups.values())


def _together(positions: Sequence[int], dtype: torch.dtype, shapes: Sequence[torch.Size]) -> Together:
    return Together(np.array(positions, dtype=np.intp), group_of([shapes[i].numel() for i in positions], dtype))


def _on_device(positions: Sequence[int], dtypes: Sequence[torch.dtype], shapes: Sequence[torch.Size]) -> OnDevice:
    single = ((k, dtypes[i]) for k, i in enumerate(positions) if _is_single(dtypes[i], shapes[i]))
    return OnDevice(np.array(positions, dtype=np.intp), tuple(single))


@cache
def name_of(dtype: torch.dtype) -> str:
    """Return the name of a dtype, such as ``float32``."""
    return str(dtype).removeprefix("torch.")
