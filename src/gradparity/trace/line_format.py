"""Parser for one line of a trace, from untrusted JSON; a line of a different form is refused.

A parsed line is safe to compare, print and draw. Sizes fit into 64 bits, even when summed over a trace. Text holds no
control codes for a terminal. Every function here raises ``ValueError`` or ``KeyError`` for any other input.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, cast

from gradparity.errors import printable
from gradparity.parity.state import Part, Unseen
from gradparity.trace.columns import HEX, Columns, Form, Forms, NamedColumns
from gradparity.trace.digest import Hash
from gradparity.trace.events import Event, Record
from gradparity.trace.fingerprint import FingerprintValue

NamedForms: TypeAlias = tuple[tuple[str, ...], Forms]
"""Names of tensors, and the form of each; digests and norms come with each record."""

MOST_VALUES = 1_000_000
"""Largest number of values in one part of a record. The map in TensorBoard keeps 5 kB for each value."""

_MOST_ELEMENTS = 2**36
"""Largest number of elements of one tensor. With this many for every digest in 1 GiB, the sum is below 2**63."""

_MOST_DIMENSIONS = 64
"""Largest number of dimensions of one tensor: as many as torch can iterate over."""

T = TypeVar("T")


def parsed(text: bytes) -> dict[str, Any]:
    """Return the JSON object in a line."""
    try:
        return _a(dict, json.loads(text))
    except RecursionError:
        raise ValueError("a line that is nested deeper than Python's stack") from None


def about_in(said: object) -> dict[str, str | int]:
    """Return the facts about the run."""
    return {_text(key): value if type(value) is int else _text(value) for key, value in _a(dict, said).items()}


def note_in(sentence: object) -> str:
    """Return a sentence on something that the recording lacks."""
    return _text(sentence)


def forms_in(rows: object) -> NamedForms:
    """Return the names and forms of tensors."""
    found = [_tensor(_a(list, row)) for row in _a(list, rows)]
    return tuple(name for name, _ in found), Forms(tuple(form for _, form in found))


def record_in(line: Mapping[str, Any], forms: Sequence[NamedForms]) -> Record:
    """Return a record, whose tensors have one of ``forms``."""
    packed = _a(dict, line.get("parts", {})).items()
    microbatch, tensors = line.get("microbatch"), line.get("tensors")
    return Record(
        Event(_a(str, line["event"])),
        _whole(line["step"]),
        None if microbatch is None else _whole(microbatch),
        {Part(part): _unpacked(_a(dict, values), forms) for part, values in packed},
        None if tensors is None else _file_name(tensors),
    )


def _unpacked(packed: Mapping[str, Any], forms: Sequence[NamedForms]) -> Mapping[str, FingerprintValue]:
    values = {_text(name): _value(value) for name, value in _a(dict, packed.get("values", {})).items()}
    if "form" not in packed:
        return _few(values)
    names, of_each = forms[_whole(packed["form"], below=len(forms))]
    digests, norms = _a(str, packed["digests"]), tuple(map(float, _a(str, packed["norms"]).split()))
    _require(len(digests) == HEX * len(names) and len(norms) == len(names))
    found = NamedColumns([*values, *names], names, Columns(of_each, digests, norms), values)
    return _few(found if len({*values, *names}) == len(found) else dict(found))  # made printable, two may be the same


def _few(values: Mapping[str, FingerprintValue]) -> Mapping[str, FingerprintValue]:
    _require(len(values) <= MOST_VALUES)
    return values


def _tensor(row: list[Any]) -> tuple[str, Form]:
    name, dtype, sizes, steps, layout, *by = row  # a digest without the name of a hash is by XXH3
    _require(len(by) <= 1)
    shape, strides = _sizes(sizes), _sizes(steps)
    _require(math.prod(shape) <= _MOST_ELEMENTS and len(strides) in (0, len(shape)))  # a sparse tensor has no strides
    return _text(name), Form(_text(dtype), shape, strides, _text(layout), Hash(*by or (Hash.XXH3,)))


def _sizes(value: object) -> tuple[int, ...]:
    sizes = _a(list, value)
    _require(len(sizes) <= _MOST_DIMENSIONS)
    return tuple(map(_whole, sizes))


def _value(value: object) -> FingerprintValue:
    if isinstance(value, list):
        return tuple(map(_text, value))
    if isinstance(value, dict):
        _require(list(value) == ["unseen"])
        return Unseen(_text(value["unseen"]))
    if value is None or isinstance(value, int | float):
        return value
    return _text(value)


def _file_name(value: object) -> str:
    """Return the name of a file in the trace's own folder; refuse a path that leads out of it."""
    name = _text(value)
    _require(re.fullmatch(r"\w+\.safetensors", name) is not None)
    return name


def _whole(value: object, below: int = 2**63) -> int:
    number = _a(int, value)
    _require(0 <= number < below)
    return number


def _text(value: object) -> str:
    return printable(_a(str, value))


def _a(kind: type[T], value: object) -> T:
    """Return ``value``, which must have exactly the type ``kind``: ``True`` is not an ``int``."""
    _require(type(value) is kind)
    return cast(T, value)


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("not what a trace has at this place")
