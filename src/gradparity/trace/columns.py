"""Fingerprints of many tensors in columns: an event has hundreds of them, and few are ever read one by one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, overload

from gradparity.trace.digest import Digest, Hash
from gradparity.trace.fingerprint import Fingerprint, FingerprintValue

HEX: Final = 32
"""Length of one digest in hexadecimal."""


class Form(NamedTuple):
    """The properties of a tensor that hardly ever change: all of its fingerprint but the digest and the norm."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    layout: str
    by: Hash = Hash.XXH3


class Forms:
    """The forms of several tensors. Known forms come as one object, so equality is often known by identity."""

    def __init__(self, rows: tuple[Form, ...]) -> None:
        self.rows = rows
        self._between: dict[tuple[int, int], Forms] = {}

    def between(self, start: int, stop: int) -> "Forms":
        """Return some of the forms."""
        if (start, stop) == (0, len(self.rows)):
            return self
        if (start, stop) not in self._between:
            self._between[start, stop] = Forms(self.rows[start:stop])
        return self._between[start, stop]


class Columns(Sequence[Fingerprint]):
    """Fingerprints of several tensors; they are equal if all forms and digests are.

    Args:
        forms: the form of each.
        digests: the digests, one after the other.
        norms: the norm of each.
    """

    def __init__(self, forms: Forms, digests: str, norms: Sequence[float]) -> None:
        self.forms, self.digests, self.norms = forms, digests, norms

    def between(self, start: int, stop: int) -> "Columns":
        """Return some of the fingerprints."""
        some = self.digests[HEX * start : HEX * stop]
        return Columns(self.forms.between(start, stop), some, self.norms[start:stop])

    def digest(self, index: int) -> Digest:
        """Return one digest and its norm."""
        return Digest(self.digests[HEX * index : HEX * index + HEX], self.norms[index], self.forms.rows[index].by)

    def __len__(self) -> int:
        return len(self.norms)

    @overload
    def __getitem__(self, index: int) -> Fingerprint: ...
    @overload
    def __getitem__(self, index: slice) -> list[Fingerprint]: ...
    def __getitem__(self, index: int | slice) -> Fingerprint | list[Fingerprint]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        dtype, shape, strides, layout, by = self.forms.rows[index]
        at = index % len(self) * HEX
        return Fingerprint(dtype, shape, strides, layout, self.digests[at : at + HEX], self.norms[index], by)

    def __iter__(self) -> Iterator[Fingerprint]:
        starts = range(0, HEX * len(self), HEX)
        for (dtype, shape, strides, layout, by), at, norm in zip(self.forms.rows, starts, self.norms, strict=True):
            yield Fingerprint(dtype, shape, strides, layout, self.digests[at : at + HEX], norm, by)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Columns):
            return NotImplemented
        same = self.forms is other.forms or self.forms.rows == other.forms.rows
        return same and self.digests == other.digests

    __hash__ = None  # type: ignore[assignment]  # like a list


def in_columns(fingerprints: Sequence[Fingerprint]) -> Columns:
    """Return fingerprints as columns."""
    forms = tuple(Form(dtype, shape, strides, layout, by) for dtype, shape, strides, layout, _, _, by in fingerprints)
    return Columns(Forms(forms), "".join(one.digest for one in fingerprints), [one.norm for one in fingerprints])


class NamedColumns(Mapping[str, FingerprintValue]):
    """Values of one part at an event by name; the fingerprints among them stay in columns until one is read.

    Args:
        order: the names of all values.
        names: the names of the tensors.
        columns: the fingerprint of each of these.
        others: the other values.
    """

    def __init__(
        self, order: Sequence[str], names: tuple[str, ...], columns: Columns, others: Mapping[str, FingerprintValue]
    ) -> None:
        self.order, self.names, self.columns, self.others = order, names, columns, others
        self._values: dict[str, FingerprintValue] | None = None

    def __getitem__(self, name: str) -> FingerprintValue:
        if self._values is None:
            found = {**dict(zip(self.names, self.columns, strict=True)), **self.others}
            self._values = {name: found[name] for name in self.order}
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NamedColumns):
            return super().__eq__(other)
        mine, theirs = (self.names, self.others), (other.names, other.others)
        return mine == theirs and self.columns == other.columns

    __hash__ = None  # type: ignore[assignment]  # like a dict


def split(values: Mapping[str, FingerprintValue]) -> tuple[tuple[str, ...], Columns, Mapping[str, FingerprintValue]]:
    """Return the names of the tensors in a part, their fingerprints, and the other values."""
    if isinstance(values, NamedColumns):
        return values.names, values.columns, values.others
    tensors = {name: value for name, value in values.items() if isinstance(value, Fingerprint)}
    others = {name: value for name, value in values.items() if name not in tensors}
    return tuple(tensors), in_columns(list(tensors.values())), others
