"""Comparison of two values of one name. Each difference is reported with its kind: dtype, shape, bits, ..."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from torch import Tensor

from gradparity.parity.aliasing import share_memory
from gradparity.parity.bits import same_bits
from gradparity.parity.compare_on_gpu import Same
from gradparity.parity.dense_parts import is_readable, is_simple, layout_of, pieces, shape_of
from gradparity.parity.leaves import Unseen, Value
from gradparity.parity.metrics import Difference, Figures
from gradparity.parity.modes_and_extras import usual
from gradparity.parity.state import Part


class Kind(StrEnum):
    """The kind of a difference between two values. If an earlier kind differs, the later kinds have no meaning."""

    PRESENCE = "presence"
    """One value exists, and the other is absent or ``None``."""
    VALUE = "value"
    """Numbers or names, not tensors, differ."""
    LAYOUT = "layout"
    """One is dense and the other is sparse or has no content."""
    DTYPE = "dtype"
    SHAPE = "shape"
    BITS = "bits"
    STRIDES = "strides"
    """The bits are the same, their order in memory differs."""


@dataclass(frozen=True)
class Mismatch:
    """One value that differs."""

    part: Part
    name: str
    kind: Kind
    reference: str
    """The reference's value, in a few words."""
    candidate: str
    figures: Figures | None = None
    """The size of the difference, for floating-point tensors of one shape whose bits differ, if both are available."""
    norm_ratio: float | None = None
    """L2 norm of the candidate over that of the reference, if only norms are available."""


class SharedMemoryError(ValueError):
    """Both runs hold the same tensor, so comparing it would prove nothing."""


ABSENT: Final = "absent"

ZEROS: Final = "zeros"
"""The first word for a tensor that is zero everywhere and that only one of the two loops has."""


class Compared(NamedTuple):
    """The result of comparing the values of one part."""

    mismatches: list[Mismatch]
    figures: Figures | None
    """The size of the difference over all tensors that differ in bits."""
    unseen: list[str]
    """The names of values that cannot be compared, or only by type and shape."""


def compare(
    part: Part,
    reference: Mapping[str, Value],
    candidate: Mapping[str, Value],
    same: Same = same_bits,
    constants: dict[str, dict[str, Tensor]] | None = None,
) -> Compared:
    """Compare the values of a part, in the reference's order; values that only the candidate has come last.

    Args:
        part: the part to which the values belong.
        reference: the reference's values by name.
        candidate: the candidate's values by name.
        same: returns whether two dense tensors have the same bits.
        constants: copies of buffers that both runs share, kept here from one comparison to the next. Both runs may
            share a buffer that never changes; without ``constants``, they may share no tensor.

    Raises:
        SharedMemoryError: if a tensor of one run shares memory with the tensor of the same name of the other.
    """
    mismatches: list[Mismatch] = []
    unseen: list[str] = []
    metric: Difference | None = None
    for name in dict.fromkeys([*reference, *candidate]):
        a, b = reference.get(name, ABSENT), candidate.get(name, ABSENT)
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            simple = is_simple(a) and is_simple(b)
            if share_memory(a, b, simple=simple) and not (part == Part.BUFFERS and _is_constant(name, a, constants)):
                raise SharedMemoryError(f"both runs hold the same tensor as {part} {name}; give each its own copy")
            for kind, ours, theirs in _differences(a, b, same, simple):
                figures = None
                if kind == Kind.BITS and (ours.is_floating_point() or ours.is_complex()):
                    metric = metric or difference()
                    figures = metric(ours, theirs)  # of these two; the metric accumulates over all pairs
                mismatches.append(Mismatch(part, name, kind, _in_words(kind, ours), _in_words(kind, theirs), figures))
            if not simple and not is_readable(a) and not is_readable(b):
                unseen.append(name)
        elif a is not b:
            if part == Part.MODES:  # ``modes`` lists only flags with unusual values
                a, b = (usual(name) if flag is ABSENT else flag for flag in (a, b))
            if isinstance(a, Unseen) and a == b and not (isinstance(b, Unseen) and a.thing is b.thing is not None):
                unseen.append(name)
            elif type(a) is not type(b) or repr(a) != repr(b):
                missing = a in (None, ABSENT) or b in (None, ABSENT)
                kind = Kind.PRESENCE if missing else Kind.VALUE
                mismatches.append(Mismatch(part, name, kind, _in_words(kind, a), _in_words(kind, b)))
    return Compared(mismatches, metric.compute() if metric else None, unseen)


def _is_constant(name: str, shared: Tensor, constants: dict[str, dict[str, Tensor]] | None) -> bool:
    """Return whether a tensor that both runs hold is unchanged since it was first seen."""
    content = pieces(shared)
    if constants is None or content is None:
        return False
    first = constants.setdefault(name, {piece: tensor.clone() for piece, tensor in content.items()})
    return content.keys() == first.keys() and all(
        content[piece].shape == first[piece].shape
        and content[piece].dtype == first[piece].dtype
        and same_bits(content[piece], first[piece])
        for piece in first
    )


def difference() -> Difference:
    """Return a metric that does not sync ranks: another rank may have no difference, and never join."""
    return Difference(sync_on_compute=False)


def figures_of(pairs: Iterable[tuple[Tensor, Tensor]]) -> Figures:
    """Return the size of the difference over all ``pairs`` together, on this rank alone."""
    metric = difference()
    for reference, candidate in pairs:
        metric.update(reference, candidate)
    figures: Figures = metric.compute()
    return figures


def differences(a: Tensor, b: Tensor, same: Same = same_bits) -> Iterator[tuple[Kind, Tensor, Tensor]]:
    """Yield the kinds in which two tensors differ, in order: tensors of different shapes have no bits to compare.

    ``same`` returns whether two dense tensors have the same bits. Each kind comes with the two tensors that show it;
    for sparse tensors, these are their indices or values.
    """
    yield from _differences(a, b, same, is_simple(a) and is_simple(b))


def _differences(a: Tensor, b: Tensor, same: Same, simple: bool) -> Iterator[tuple[Kind, Tensor, Tensor]]:
    if not simple and layout_of(a) != layout_of(b):
        yield Kind.LAYOUT, a, b
    elif a.dtype != b.dtype:
        yield Kind.DTYPE, a, b
    elif (a.shape != b.shape) if simple else (shape_of(a) != shape_of(b)):
        yield Kind.SHAPE, a, b
    elif simple:
        if not same(a, b):
            yield Kind.BITS, a, b
        if a.stride() != b.stride() and walk(a.shape, a.stride()) != walk(b.shape, b.stride()):
            yield Kind.STRIDES, a, b
    else:
        yield from _differences_inside(a, b)


def _differences_inside(a: Tensor, b: Tensor) -> Iterator[tuple[Kind, Tensor, Tensor]]:
    """Yield the kinds in which two tensors differ that are not plain dense memory."""
    ours, theirs = pieces(a), pieces(b)
    if ours is None or theirs is None:
        if ours is not theirs:
            yield Kind.LAYOUT, a, b
    elif ours.keys() != theirs.keys():
        yield Kind.SHAPE, a, b
    else:
        for piece in ours:
            yield from differences(ours[piece], theirs[piece])


def walk(shape: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Return the strides of dimensions larger than 1; the stride of a dimension of size 1 is never used.

    If autograd made one gradient for two parameters, one keeps it and the other gets a copy. The order in which
    autograd reaches them decides which. The copy may differ only in strides that are never used.
    """
    return [stride for size, stride in zip(shape, strides, strict=bool(strides)) if size > 1]


def _in_words(kind: Kind, value: Value) -> str:
    if not isinstance(value, Tensor):
        return str(value)
    match kind:
        case Kind.LAYOUT:
            return layout_of(value) if is_readable(value) else f"{layout_of(value)}, not to be read"
        case Kind.DTYPE:
            return str(value.dtype).removeprefix("torch.")
        case Kind.SHAPE:
            return "nested" if shape_of(value) is None else str(shape_of(value))
        case Kind.STRIDES:
            return str(value.stride())
        case Kind.BITS if value.numel() == 1:
            return f"{value.item():.6g}"
        case Kind.PRESENCE if not value.is_sparse and not value.any():
            return f"{ZEROS} of shape {tuple(value.shape)}"
        case _:
            return f"a tensor of shape {shape_of(value)}"
