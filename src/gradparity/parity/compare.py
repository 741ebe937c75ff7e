"""Two values of one name, held against each other: everything that can differ, told apart by its kind."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from torch import Tensor

from gradparity.parity.bits import same_bits
from gradparity.parity.metrics import Difference, Figures
from gradparity.parity.on_device import Same
from gradparity.parity.state import Part, Value


class Kind(StrEnum):
    """In what two values differ. A difference of an earlier kind leaves the later ones without meaning."""

    PRESENCE = "presence"
    """One is there and the other is not, or is ``None``."""
    VALUE = "value"
    """Of numbers and names that are no tensors."""
    LAYOUT = "layout"
    """Dense against sparse."""
    DTYPE = "dtype"
    SHAPE = "shape"
    BITS = "bits"
    STRIDES = "strides"
    """The bits agree, their order in memory does not."""


@dataclass(frozen=True)
class Mismatch:
    """One value that differs."""

    part: Part
    name: str
    kind: Kind
    reference: str
    """What the reference has, in a few words."""
    candidate: str
    figures: Figures | None = None
    """For floating-point tensors of one shape whose bits differ, if they are at hand."""
    norm_ratio: float | None = None
    """L2 norm of the candidate over that of the reference, where that is all there is."""


class SharedMemoryError(ValueError):
    """Both runs hold one and the same tensor, so comparing it would prove nothing."""


ABSENT: Final = "absent"

ZEROS: Final = "zeros"
"""How the words for a tensor begin where it is zero everywhere, and only one of the two loops has it."""


def compare(
    part: Part, reference: Mapping[str, Value], candidate: Mapping[str, Value], same: Same = same_bits
) -> tuple[list[Mismatch], Figures | None]:
    """The values of a part that differ, and the figures over all of its tensors that differ in bits.

    In the reference's order; what only the candidate has comes last.

    Raises:
        SharedMemoryError: if a tensor of one is a tensor of the other.
    """
    mismatches: list[Mismatch] = []
    metric: Difference | None = None
    for name in dict.fromkeys([*reference, *candidate]):
        a, b = reference.get(name, ABSENT), candidate.get(name, ABSENT)
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            if _start(a) == _start(b) != 0:
                raise SharedMemoryError(f"both runs hold the same tensor as {part} {name}; give each its own copy")
            for kind, ours, theirs in differences(a, b, same):
                figures = None
                if kind == Kind.BITS and (ours.is_floating_point() or ours.is_complex()):
                    metric = metric or difference()
                    figures = metric(ours, theirs)  # of these two; the metric gathers those of all
                mismatches.append(Mismatch(part, name, kind, _in_words(kind, ours), _in_words(kind, theirs), figures))
        elif a is not b and (type(a) is not type(b) or repr(a) != repr(b)):
            missing = a in (None, ABSENT) or b in (None, ABSENT)
            kind = Kind.PRESENCE if missing else Kind.VALUE
            mismatches.append(Mismatch(part, name, kind, _in_words(kind, a), _in_words(kind, b)))
    return mismatches, metric.compute() if metric else None


def difference() -> Difference:
    """A metric of this rank alone: on others there may be no difference to wait for."""
    return Difference(sync_on_compute=False)


def figures_of(pairs: Iterable[tuple[Tensor, Tensor]]) -> Figures:
    """How far the tensors of ``pairs`` are apart, taken together, on this rank alone."""
    metric = difference()
    for reference, candidate in pairs:
        metric.update(reference, candidate)
    figures: Figures = metric.compute()
    return figures


def differences(a: Tensor, b: Tensor, same: Same = same_bits) -> Iterator[tuple[Kind, Tensor, Tensor]]:
    """In what two tensors differ, first things first: between two shapes there are no bits to compare.

    ``same`` says whether two dense ones have the same bits.

    Yields the kind with the tensors that show it, which of sparse ones are their indices or values.
    """
    if a.layout != b.layout:
        yield Kind.LAYOUT, a, b
    elif a.dtype != b.dtype:
        yield Kind.DTYPE, a, b
    elif a.shape != b.shape:
        yield Kind.SHAPE, a, b
    elif a.is_sparse:
        if a.is_coalesced() != b.is_coalesced():
            yield Kind.LAYOUT, a, b
        yield from differences(a._indices(), b._indices())
        yield from differences(a._values(), b._values())
    else:
        if not same(a, b):
            yield Kind.BITS, a, b
        if a.stride() != b.stride() and walk(a.shape, a.stride()) != walk(b.shape, b.stride()):
            yield Kind.STRIDES, a, b


def walk(shape: Sequence[int], strides: Sequence[int]) -> list[int]:
    """The strides that are ever taken: a dimension of size 1 has one too, but it leads nowhere.

    Which of two parameters keeps a gradient that autograd made once for both, and which gets the copy, depends on
    the order in which autograd reaches them; between them only such strides may differ.
    """
    return [stride for size, stride in zip(shape, strides, strict=bool(strides)) if size > 1]


def _start(tensor: Tensor) -> int:
    return (tensor._values() if tensor.is_sparse else tensor).data_ptr()


def _in_words(kind: Kind, value: Value) -> str:
    if not isinstance(value, Tensor):
        return str(value)
    match kind:
        case Kind.LAYOUT if value.is_sparse:
            return "sparse, coalesced" if value.is_coalesced() else "sparse, not coalesced"
        case Kind.LAYOUT:
            return "dense"
        case Kind.DTYPE:
            return str(value.dtype).removeprefix("torch.")
        case Kind.SHAPE:
            return str(tuple(value.shape))
        case Kind.STRIDES:
            return str(value.stride())
        case Kind.BITS if value.numel() == 1:
            return f"{value.item():.6g}"
        case Kind.PRESENCE if not value.is_sparse and not value.any():
            return f"{ZEROS} of shape {tuple(value.shape)}"
        case _:
            return f"a tensor of shape {tuple(value.shape)}"
