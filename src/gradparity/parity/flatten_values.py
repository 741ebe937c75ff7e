"""Values of any type, flattened to leaves that can be compared: tensors, numbers, text, and :class:`Unseen`.

No leaf contains an address, which differs from run to run, or a shortened array, which hides differences.
"""

import dataclasses
import random
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from hashlib import blake2b
from pathlib import PurePath
from types import BuiltinFunctionType, ModuleType, NoneType, SimpleNamespace
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

import numpy as np
import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Unseen:
    """A value that cannot be compared. Two of them never count as the same, unless they are one object."""

    what: str
    """Its type, without anything that differs from run to run."""
    thing: object = dataclasses.field(default=None, compare=False, repr=False)
    """The object itself, while it is available."""

    def __str__(self) -> str:
        """Return the type."""
        return self.what


Value: TypeAlias = Tensor | int | float | str | bool | tuple[str, ...] | Unseen | None

_LONG: Final = 256
"""Length of a list of numbers above which it is kept as one digest, not element by element."""

_DEEPEST: Final = 32
"""Levels of nesting that are followed."""

_BIT_LENGTH: Final = 1024
"""Integers with more bits are kept as a digest: Python refuses to print them in decimal."""

_PRINTED = (
    *(Decimal, Fraction, date, time, timedelta, tzinfo, UUID, PurePath, range),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype),
)
"""Types whose ``repr`` shows the whole value."""

_FOLLOWED = (
    *(SimpleNamespace, partial, nn.Module),
    *(torch.Generator, random.Random, np.random.Generator, np.random.RandomState),
)
"""Types that consist of other values, which are flattened in turn."""

_NUMBERS = (bool, int, float)


def flatten(name: str, value: object) -> Iterator[tuple[str, Value]]:
    """Yield the leaves of a value of any type, each with its path as name; no name comes twice.

    Dicts, lists, tuples, deques, dataclasses and namespaces are flattened. NumPy numbers become numbers. A NumPy array,
    ``bytes``, a set, or a long list of numbers becomes one text with a digest of its content. Enums, dtypes, devices,
    dates, paths, classes and built-in functions become text. A random generator becomes its state. A function, a
    lambda, or an object of an unknown class becomes :class:`Unseen`; so does a value that raises when it is read.
    """
    leaves: list[tuple[str, Value]] = []
    _collect(name, value, (), leaves)
    if len({path for path, _ in leaves}) == len(leaves):
        yield from leaves
        return
    taken = Counter[str]()
    for path, leaf in leaves:
        taken[path] += 1
        yield path if taken[path] == 1 else f"{path} #{taken[path]}", leaf


def _collect(name: str, value: object, within: tuple[int, ...], leaves: list[tuple[str, Value]]) -> None:
    if value is None or _is_plain(value) or isinstance(value, Tensor):
        leaves.append((name, cast(Value, value)))
    elif len(within) > _DEEPEST:
        leaves.append((name, Unseen(f"{_type(value)}, nested too deep")))
    elif id(value) in within:
        leaves.append((name, f"the {_type(value)} around it"))
    else:
        start = len(leaves)
        try:
            _open(name, value, (*within, id(value)), leaves)
        except Exception as error:
            leaves[start:] = [(name, Unseen(f"{_type(value)}, which raises {type(error).__name__} when read"))]


def _is_plain(value: object) -> bool:
    """Return whether ``value`` is a number or text of a built-in type, not of a subclass."""
    return type(value) in (bool, float, str) or (type(value) is int and value.bit_length() <= _BIT_LENGTH)


def _open(name: str, value: Any, within: tuple[int, ...], leaves: list[tuple[str, Value]]) -> None:
    """Collect the leaves of a value that is not a leaf."""
    parts: Iterable[tuple[str, object]] = ()
    if isinstance(value, dict | Mapping):  # dict first, as it takes far less time
        prefix = f"{name}." if name else ""
        parts = ((prefix + _key(k, i), item) for i, (k, item) in enumerate(value.items()))
    elif isinstance(value, list | tuple | deque):
        if len(value) > _LONG and all(type(item) in _NUMBERS for item in value):
            leaves.append((name, f"{len(value)} numbers, digest {_digest(repr(list(value)).encode())}"))
        elif type(value) is tuple and {str}.issuperset(map(type, value)):
            leaves.append((name, value))
        elif all(isinstance(item, str) for item in value):
            leaves.append((name, tuple(str.__str__(item) for item in value)))
        else:
            parts = ((f"{name}[{i}]", item) for i, item in enumerate(value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        leaves.append((name, f"a {_type(value)}"))
        parts = ((f"{name}.{f.name}", getattr(value, f.name)) for f in dataclasses.fields(value))
    elif isinstance(value, _FOLLOWED):
        parts = [(name, _within(value))]
    elif isinstance(value, np.ndarray) and type(value) in (np.ndarray, np.memmap):
        whole = _array(value)
        if isinstance(whole, str):
            leaves.append((name, whole))
        else:
            _collect(name, whole, within, leaves)
    elif isinstance(value, np.generic) and not isinstance(value, np.longdouble | np.clongdouble | np.datetime64):
        parts = [(name, value.item())]
    else:
        leaves.append((name, _text(value)))
    for path, item in parts:
        _collect(path, item, within, leaves)


def _within(value: Any) -> object:
    """Return the content of an object, as a dict, a tuple or a tensor."""
    match value:
        case SimpleNamespace():
            return dict(vars(value))
        case partial():
            return {"partial of": value.func, "args": value.args, "keywords": value.keywords}
        case nn.Module():
            return {**dict(value.named_parameters()), **dict(value.named_buffers())}
        case torch.Generator():
            return value.get_state()
        case np.random.Generator():
            return value.bit_generator.state
        case np.random.RandomState():
            return value.get_state(legacy=False)
        case _:
            return value.getstate()


def _text(value: object) -> Value:
    """Return a value as one leaf."""
    if isinstance(value, Enum):
        return f"{_type(value)}.{value.name}"
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        number = int.__int__(value)
        return number if number.bit_length() <= _BIT_LENGTH else f"int, digest {_digest(hex(number).encode())}"
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, complex):
        return f"complex {complex(value)!r}"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes, digest {_digest(bytes(value))}"
    if isinstance(value, set | frozenset):
        return _set(value)
    if isinstance(value, np.longdouble | np.clongdouble | np.datetime64 | np.timedelta64):
        return f"{value.dtype} {value!s}"
    if isinstance(value, _PRINTED):
        return repr(value)
    if isinstance(value, type) or (
        isinstance(value, BuiltinFunctionType) and isinstance(value.__self__, NoneType | ModuleType | type)
    ):
        return f"{value.__module__}.{value.__qualname__}"
    return Unseen(_type(value), value)


def _set(elements: Iterable[object]) -> Value:
    """Return a set as text, sorted: Python's order differs from run to run."""
    texts = []
    for element in elements:
        leaves = list(flatten("", element))
        if any(isinstance(leaf, Tensor | Unseen) for _, leaf in leaves):
            return Unseen("set of elements that have no order")
        texts.append(repr(leaves if len(leaves) != 1 else leaves[0][1]))
    if len(texts) > _LONG:
        return f"set of {len(texts)}, digest {_digest(repr(sorted(texts)).encode())}"
    return "{" + ", ".join(sorted(texts)) + "}"


def _array(array: np.ndarray[Any, Any]) -> object:
    """Return dtype, shape and a digest of the elements; field by field or as a list if they are not plain memory."""
    if array.dtype.names:
        return {field: array[field] for field in array.dtype.names}
    # Objects are stored as pointers, and a long double has padding bytes.
    if array.dtype.hasobject or issubclass(array.dtype.type, np.longdouble | np.clongdouble):
        return array.tolist()
    content = _digest(np.ascontiguousarray(array).tobytes())
    return f"array of {array.dtype.str} {array.shape}, digest {content}"


def _key(key: object, index: int) -> str:
    """Return the key of a dict as part of a name; a key that has no text is named by its index."""
    if isinstance(key, str) and not isinstance(key, Enum):
        return str.__str__(key)
    if key is None or isinstance(key, int | float | tuple | Enum):
        leaves = [leaf for _, leaf in flatten("", key)]
        if not any(isinstance(leaf, Tensor | Unseen) for leaf in leaves):
            return ", ".join(map(str, leaves))
    text = _text(key) if not isinstance(key, Tensor | tuple) else None
    return text if isinstance(text, str) else f"{_type(key)} {index}"


def _type(value: object) -> str:
    return type(value).__qualname__


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()
