"""Comparison of tensors on a GPU: all results are read with one wait for the device, not one each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from gradparity.parity.bits import bits, same_bits
from gradparity.parity.dense_parts import is_simple
from gradparity.parity.flatten_values import Value

Same: TypeAlias = Callable[[Tensor, Tensor], bool]
"""A function like :func:`gradparity.parity.bits.same_bits`."""


def prefetch_device_comparisons(pairs: Iterable[tuple[Mapping[str, Value], Mapping[str, Value]]]) -> Same:
    """Return a ``same_bits`` that has already compared the tensors in ``pairs`` that are on a GPU.

    Args:
        pairs: the values of two runs, part by part.
    """
    waiting: dict[tuple[int, int], Tensor] = {}
    for ours, theirs in pairs:
        for name, a in ours.items():
            b = theirs.get(name)
            if isinstance(a, Tensor) and isinstance(b, Tensor) and on_one_device(a, b) and _comparable(a, b):
                waiting[id(a), id(b)] = differs(a, b)
    known = dict(zip(waiting, read_at_once(list(waiting.values())), strict=True))

    def same(a: Tensor, b: Tensor) -> bool:
        different = known.get((id(a), id(b)))
        return same_bits(a, b) if different is None else not different

    return same


def read_at_once(scalars: Sequence[Tensor]) -> list[Any]:
    """Return the values of ``scalars`` of one dtype, with one wait for the device."""
    numbers: list[Any] = torch.stack([s.to(scalars[0].device) for s in scalars]).tolist() if scalars else []
    return numbers


def on_one_device(a: Tensor, b: Tensor) -> bool:
    """Return whether both are on one device that is not the CPU; on the CPU nothing has to wait."""
    return a.device == b.device and not a.is_cpu


def _comparable(a: Tensor, b: Tensor) -> bool:
    """Return whether the bits of both tensors can be compared at all."""
    return is_simple(a) and is_simple(b) and a.dtype == b.dtype and a.shape == b.shape


def differs(a: Tensor, b: Tensor) -> Tensor:
    """Return whether any bit differs, as a scalar on the tensors' device, without waiting for it."""
    return (bits(a) != bits(b)).any()
