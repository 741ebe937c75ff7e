"""Tensors on a GPU, compared there: the answers for all of them are waited for once, not each in turn."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from gradparity.parity.bits import bits, same_bits
from gradparity.parity.dense_parts import is_simple
from gradparity.parity.leaves import Value

Same: TypeAlias = Callable[[Tensor, Tensor], bool]
"""As :func:`gradparity.parity.bits.same_bits`."""


def compared_there(pairs: Iterable[tuple[Mapping[str, Value], Mapping[str, Value]]]) -> Same:
    """``same_bits``, which knows beforehand about the tensors in ``pairs`` that are on a GPU.

    Args:
        pairs: the values of two runs, part by part.
    """
    waiting: dict[tuple[int, int], Tensor] = {}
    for ours, theirs in pairs:
        for name, a in ours.items():
            b = theirs.get(name)
            if isinstance(a, Tensor) and isinstance(b, Tensor) and on_one_device(a, b) and comparable(a, b):
                waiting[id(a), id(b)] = differs(a, b)
    known = dict(zip(waiting, read_at_once(list(waiting.values())), strict=True))

    def same(a: Tensor, b: Tensor) -> bool:
        different = known.get((id(a), id(b)))
        return same_bits(a, b) if different is None else not different

    return same


def read_at_once(scalars: Sequence[Tensor]) -> list[Any]:
    """What ``scalars`` of one dtype are, with one wait for the device."""
    numbers: list[Any] = torch.stack([s.to(scalars[0].device) for s in scalars]).tolist() if scalars else []
    return numbers


def on_one_device(a: Tensor, b: Tensor) -> bool:
    """Whether both are on one, which is not the CPU: there is nothing to wait for."""
    return a.device == b.device and not a.is_cpu


def comparable(a: Tensor, b: Tensor) -> bool:
    """Whether their bits can be compared at all."""
    return is_simple(a) and is_simple(b) and a.dtype == b.dtype and a.shape == b.shape


def differs(a: Tensor, b: Tensor) -> Tensor:
    """Whether any bit differs, as a scalar on the tensors' device, which need not be known yet."""
    return (bits(a) != bits(b)).any()
