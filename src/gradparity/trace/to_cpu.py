"""Fingerprints of all values at an event, and copies of them on the host."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeGuard

import torch
from torch import Tensor, nn

from gradparity.parity.dense_parts import PLAIN, stretch
from gradparity.parity.state import Part, Value
from gradparity.trace.columns import NamedColumns
from gradparity.trace.fingerprint import Fingerprint, FingerprintValue
from gradparity.trace.late_fingerprints import LateFingerprints, shard_of
from gradparity.trace.snapshot import Snapshot

Fingerprints: TypeAlias = dict[Part, Mapping[str, FingerprintValue]]


def fingerprints(seen: Snapshot) -> Fingerprints:
    """Return the values that a trace keeps of ``seen``, with a fingerprint for each tensor."""
    return LateSnapshot(seen).get()


class LateSnapshot:
    """The values that a trace keeps of ``seen``: they are read now, and fingerprints on a GPU are waited for later."""

    def __init__(self, seen: Snapshot) -> None:
        self._parts: list[tuple[Part, Sequence[str], tuple[str, ...], dict[str, FingerprintValue]]] = []
        tensors: list[Tensor] = []
        for part, values in seen.items():
            order, others = list(values), dict[str, FingerprintValue]()
            there: Sequence[str] = order
            if not PLAIN.issuperset(map(type, values.values())):
                there = [name for name, value in values.items() if isinstance(value, Tensor)]
                others = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
            self._parts.append((part, order, tuple(there), others))
            tensors += [value for value in values.values() if isinstance(value, Tensor)]
        self._tensors = LateFingerprints(tensors)

    def ready(self) -> bool:
        """Return whether nothing has to be waited for."""
        return self._tensors.ready()

    def get(self) -> Fingerprints:
        """Return the values, after a wait for those that are not there yet."""
        columns, start, found = self._tensors.get(), 0, Fingerprints()
        for part, order, names, others in self._parts:
            mine = columns.between(start, start + len(names))
            start += len(names)
            if part == Part.SCALER:  # numbers, which are tensors only because they are on a GPU
                found[part] = {**others, **{name: _number(one) for name, one in zip(names, mine, strict=True)}}
            else:
                found[part] = NamedColumns(order, names, mine, others)
        return found


def _number(one: Fingerprint) -> FingerprintValue:
    """Return the number in a tensor of one element; any other fingerprint unchanged."""
    if math.prod(one.shape) != 1:
        return one
    return one.norm if getattr(torch, one.dtype).is_floating_point else int(one.norm)


def frozen(seen: Snapshot) -> Snapshot:
    """Return ``seen`` with copies of its tensors, which the loop cannot overwrite."""
    return {
        part: {name: v.detach().clone() if isinstance(v, Tensor) else v for name, v in values.items()}
        for part, values in seen.items()
    }


def to_cpu(seen: Snapshot) -> Snapshot:
    """Return ``seen`` with its tensors on the CPU; return it unchanged if they are there already."""
    elsewhere = {t.device for values in seen.values() for t in values.values() if _on_accelerator(t)}
    if not elsewhere:
        return seen
    copies: Snapshot = {
        part: {name: copy_to_cpu(v) if _on_accelerator(v) else v for name, v in values.items()}
        for part, values in seen.items()
    }
    for device in elsewhere:
        torch.accelerator.current_stream(device).synchronize()
    return copies


def _on_accelerator(value: Value) -> TypeGuard[Tensor]:
    """Return whether ``value`` is a tensor on a GPU or other accelerator: neither on the CPU nor on meta."""
    if not isinstance(value, Tensor):
        return False
    tensor = shard_of(value)
    return type(tensor) in (Tensor, nn.Parameter) and not tensor.is_cpu and not tensor.is_meta


def copy_to_cpu(value: Value) -> Value:
    """Return a copy on the CPU with the same strides.

    A copy from a GPU may still be in progress. Synchronize before reading it.
    """
    if not isinstance(value, Tensor):
        return value
    tensor = shard_of(value.detach())
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
        return tensor.to("cpu")
    # Copying an expanded or sliced tensor directly would make the copy contiguous. So copy all memory between its first
    # and last element.
    memory = tensor.as_strided((stretch(tensor.shape, tensor.stride()),), (1,))
    there = memory.to("cpu", non_blocking=True)  # non_blocking puts it into pinned memory
    return there.as_strided(tensor.shape, tensor.stride())
