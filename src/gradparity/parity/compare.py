"""Comparison of live values of one name. Each difference is reported with its kind: dtype, shape, bits, ..."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from gradparity.parity.aliasing import share_memory
from gradparity.parity.bits import same_bits
from gradparity.parity.dense_parts import is_readable, is_simple, layout_of, pieces, shape_of
from gradparity.parity.difference_kinds import ZEROS_WORD, Kind, TensorForm, form_in_words, kind_of_values, kinds
from gradparity.parity.flatten_values import Unseen, Value
from gradparity.parity.mismatches import Compared, Measure, Mismatch, compare_by_name
from gradparity.parity.state import Part


class SharedMemoryError(ValueError):
    """Both runs hold the same tensor, so comparing it would prove nothing."""


def compare(
    part: Part,
    reference: Mapping[str, Value],
    candidate: Mapping[str, Value],
    names: Sequence[str] | None = None,
    constants: dict[str, dict[str, Tensor]] | None = None,
) -> Compared:
    """Compare the live values of a part, in the reference's order; values that only the candidate has come last.

    Args:
        part: the part to which the values belong.
        reference: the reference's values by name.
        candidate: the candidate's values by name.
        names: the names to compare, if the values of all others are known to be the same; by default all.
        constants: copies of buffers that both runs share, kept here from one comparison to the next. Both runs may
            share a buffer that never changes; without ``constants``, they may share no tensor.

    Raises:
        SharedMemoryError: if a tensor of one run shares memory with the tensor of the same name of the other.
    """

    def mismatches(name: str, a: Value, b: Value, measure: Measure) -> Iterator[Mismatch]:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            simple = is_simple(a) and is_simple(b)
            if share_memory(a, b, simple=simple) and not (part == Part.BUFFERS and _is_constant(name, a, constants)):
                raise SharedMemoryError(f"both runs hold the same tensor as {part} {name}; give each its own copy")
            for kind, ours, theirs in _differences(a, b, simple):
                real = ours.is_floating_point() or ours.is_complex()
                figures = measure(ours, theirs) if kind == Kind.BITS and real else None
                yield Mismatch(part, name, kind, _in_words(kind, ours), _in_words(kind, theirs), figures)
        elif a is not b and not _unseen_twice(a, b) and (other := kind_of_values(a, b)):
            yield Mismatch(part, name, other, _in_words(other, a), _in_words(other, b))

    return compare_by_name(part, reference, candidate, mismatches, _unreadable, names)


def _unreadable(a: Value, b: Value) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return not (is_simple(a) and is_simple(b)) and not is_readable(a) and not is_readable(b)
    return a is not b and _unseen_twice(a, b)


def _unseen_twice(a: Value, b: Value) -> bool:
    """Return whether both are values of one type that cannot be compared, and not known to be one object."""
    return isinstance(a, Unseen) and a == b and not (isinstance(b, Unseen) and a.thing is b.thing is not None)


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


def tensor_differences(a: Tensor, b: Tensor) -> Iterator[tuple[Kind, Tensor, Tensor]]:
    """Yield the kinds in which two tensors differ, in order: tensors of different shapes have no bits to compare.

    Each kind comes with the two tensors that show it; for sparse tensors, these are their indices or values.
    """
    yield from _differences(a, b, is_simple(a) and is_simple(b))


def _differences(a: Tensor, b: Tensor, simple: bool) -> Iterator[tuple[Kind, Tensor, Tensor]]:
    inside: list[tuple[Kind, Tensor, Tensor]] = []

    def same_content() -> bool:
        if simple:
            return same_bits(a, b)
        inside.extend(_differences_inside(a, b))
        return True  # the kinds of the pieces are reported in place of one for the whole

    for kind in kinds(_form(a, simple), _form(b, simple), same_content):
        yield kind, a, b
    yield from inside


def _form(tensor: Tensor, simple: bool) -> TensorForm:
    if simple:
        return TensorForm("dense", tensor.dtype, tensor.shape, tensor.stride())
    return TensorForm(layout_of(tensor), tensor.dtype, shape_of(tensor), ())  # its pieces have strides


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
            yield from tensor_differences(ours[piece], theirs[piece])


def _in_words(kind: Kind, value: Value) -> str:
    if not isinstance(value, Tensor):
        return str(value)
    match kind:
        case Kind.LAYOUT if not is_readable(value):
            return f"{layout_of(value)}, not to be read"
        case Kind.STRIDES:
            return str(value.stride())
        case Kind.BITS if value.numel() == 1:
            return f"{value.item():.6g}"
        case Kind.PRESENCE if not value.is_sparse and not value.any():
            return f"{ZEROS_WORD} of shape {tuple(value.shape)}"
        case _:
            return form_in_words(kind, _form(value, simple=False))
