"""The kinds of differences between two values, whether live tensors or their fingerprints in a trace."""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple, Protocol


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


ABSENT: Final = "absent"

ZEROS_WORD: Final = "zeros"
"""The first word for a tensor that is zero everywhere and that only one of the two loops has."""


class HasForm(Protocol):
    """The properties of a tensor beside its content: a :class:`TensorForm`, or a fingerprint."""

    @property
    def layout(self) -> str:
        """Return how the content is stored, such as ``dense``."""

    @property
    def dtype(self) -> object:
        """Return the dtype, or its name."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Return the shape; ``None`` for a nested tensor."""

    @property
    def strides(self) -> Sequence[int]:
        """Return the strides; empty for a tensor that is not dense."""


class TensorForm(NamedTuple):
    """The form of a live tensor."""

    layout: str
    dtype: object
    shape: tuple[int, ...] | None
    strides: Sequence[int]


def kinds(a: HasForm, b: HasForm, same_content: Callable[[], bool]) -> Iterator[Kind]:
    """Yield the kinds in which two tensors differ, in order: tensors of different shapes have no bits to compare."""
    if a.layout != b.layout:
        yield Kind.LAYOUT
    elif a.dtype != b.dtype:
        yield Kind.DTYPE
    elif a.shape != b.shape:
        yield Kind.SHAPE
    else:
        if not same_content():
            yield Kind.BITS
        if a.strides != b.strides and effective_strides(a) != effective_strides(b):
            yield Kind.STRIDES


def kind_of_values(a: object, b: object) -> Kind | None:
    """Return the kind in which two values differ that are not both tensors; ``None`` if they are the same."""
    if type(a) is type(b) and repr(a) == repr(b):
        return None
    missing = any(value is None or (isinstance(value, str) and value == ABSENT) for value in (a, b))
    return Kind.PRESENCE if missing else Kind.VALUE


def effective_strides(form: HasForm) -> list[int]:
    """Return the strides of dimensions larger than 1; the stride of a dimension of size 1 is never used.

    If autograd made one gradient for two parameters, one keeps it and the other gets a copy. The order in which
    autograd reaches them decides which. The copy may differ only in strides that are never used.
    """
    shape, strides = form.shape or (), form.strides
    return [stride for size, stride in zip(shape, strides, strict=bool(strides)) if size > 1]


def form_in_words(kind: Kind, form: HasForm) -> str:
    """Return one side of a mismatch in words, as far as they do not depend on the content."""
    match kind:
        case Kind.LAYOUT:
            return form.layout
        case Kind.DTYPE:
            return str(form.dtype).removeprefix("torch.")
        case Kind.SHAPE:
            return "nested" if form.shape is None else str(form.shape)
        case Kind.STRIDES:
            return str(form.strides)
        case _:
            return f"a tensor of shape {form.shape}"
