"""What is to be written down of tensors on a GPU has to come to the host: all of it at once, and then one wait."""

from typing import TypeAlias

import torch
from torch import Tensor

from gradparity.parity.state import Part, Value
from gradparity.trace.fingerprint import Printed, printed, shard_of
from gradparity.trace.seen import Seen

Fingerprints: TypeAlias = dict[Part, dict[str, Printed]]


def fingerprints(seen: Seen) -> Fingerprints:
    """Return what a trace keeps of ``seen``."""
    return {part: {name: printed(v) for name, v in values.items()} for part, values in on_host(seen).items()}


def frozen(seen: Seen) -> Seen:
    """Return ``seen`` with copies of its tensors, which the loop does not write."""
    return {
        part: {name: v.detach().clone() if isinstance(v, Tensor) else v for name, v in values.items()}
        for part, values in seen.items()
    }


def on_host(seen: Seen) -> Seen:
    """``seen`` with its tensors on the CPU; as it is, if they are there already."""
    elsewhere = {
        t.device for values in seen.values() for t in values.values() if isinstance(t, Tensor) and not t.is_cpu
    }
    if not elsewhere:
        return seen
    copies: Seen = {part: {name: copied(v) for name, v in values.items()} for part, values in seen.items()}
    for device in elsewhere:
        torch.accelerator.current_stream(device).synchronize()
    return copies


def copied(value: Value) -> Value:
    """A tensor on the CPU, of the same strides; a copy of one on a GPU is on its way, and not to be read yet."""
    if not isinstance(value, Tensor):
        return value
    tensor = shard_of(value.detach())
    if tensor.is_sparse:
        return tensor.to("cpu")
    # A copy of an expanded or a sliced tensor would be contiguous; so what lies between its first and last element is.
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    stretch = tensor.as_strided((last + 1 if tensor.numel() else 0,), (1,))
    there = stretch.to("cpu", non_blocking=True)  # which makes it go into pinned memory
    return there.as_strided(tensor.shape, tensor.stride())
