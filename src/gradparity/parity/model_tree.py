"""The modules, parameters and buffers of a model by name; the model is walked again only after it has changed."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, compress
from operator import attrgetter, call, is_, itemgetter
from typing import Any, Final

from torch import nn

_TABLES: Final = attrgetter("_modules", "_parameters", "_buffers")
_WALKS: Final = ("named_modules", "named_parameters", "named_buffers")

OF_EVERY_MODULE: Final = frozenset(vars(nn.Module()))
"""Attributes that every module has: hooks, and its parameters, buffers and modules."""

SCALARS: Final = (int, float, str, bool, type(None), type)

NO_TENSORS: Final = frozenset(SCALARS)
"""Types of attributes that hold no tensor."""


class ModelTree:
    """The names in a model. Each dict is the same object for as long as the model has not changed.

    ``named_parameters`` takes longer than comparing small parameters. Reading the tables of all modules, which shows
    every change, takes a tenth of that. A model that defines its own ``named_parameters`` is walked every time.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._walk()

    def keepers(self) -> dict[str, nn.Module]:
        """Return the modules with an attribute of their own that is no number, text or tuple of these."""
        attributes = list(map(vars, self.modules.values()))
        if list(map(len, attributes)) != self._sizes:
            self._find_attributes(attributes)
        try:
            values = list(map(call, self._readers, attributes))
        except KeyError:  # one attribute was deleted, and one was added
            self._find_attributes(attributes)
            values = list(map(call, self._readers, attributes))
        if NO_TENSORS.issuperset(map(type, chain.from_iterable(values))):
            return {}
        held = zip(self.modules.items(), values, strict=True)
        return {name: module for (name, module), own in held if not all(map(_holds_no_tensor, own))}

    def _find_attributes(self, attributes: Sequence[Mapping[str, Any]]) -> None:
        self._sizes = list(map(len, attributes))
        self._readers = [_reader_of(list(each.keys() - OF_EVERY_MODULE)) for each in attributes]

    def look_again(self) -> None:
        """Walk through the model again if it has changed since the last look."""
        if self._is_special or not self._is_unchanged():
            self._walk()

    def _walk(self) -> None:
        self.modules = dict(self._model.named_modules())
        self.parameters = dict(self._model.named_parameters())
        self.buffers = dict(self._model.named_buffers())
        self._find_attributes(list(map(vars, self.modules.values())))
        self._is_special = any(map(_walks_its_own_way, self.modules.values()))
        if not self._is_special:
            self._names, self._members = self._tables()

    def _is_unchanged(self) -> bool:
        names, members = self._tables()
        return names == self._names and identical(members, self._members)

    def _tables(self) -> tuple[tuple[list[int], list[str]], list[object]]:
        """Return how many names each table of the modules known so far has, and which, and all their members."""
        tables: list[Any] = [*chain.from_iterable(map(_TABLES, self.modules.values()))]
        sizes = list(map(len, tables))
        filled = list(compress(tables, sizes))
        return (sizes, [*chain.from_iterable(filled)]), [*chain.from_iterable(map(dict.values, filled))]


def _reader_of(keys: Sequence[str]) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
    """Return a function that reads the values of some keys of a dict, as a tuple."""
    return itemgetter(keys[0], *keys) if keys else lambda _: ()  # of one key alone, itemgetter makes no tuple


def _holds_no_tensor(value: object) -> bool:
    return type(value) in NO_TENSORS or (type(value) is tuple and NO_TENSORS.issuperset(map(type, value)))


def _walks_its_own_way(module: nn.Module) -> bool:
    """Return whether the names of a module depend on more than its tables, as those of FSDP's wrapper do."""
    if not all(isinstance(table, dict) for table in _TABLES(module)):  # a module of TorchScript
        return True
    return any(walk in vars(module) or getattr(type(module), walk) is not getattr(nn.Module, walk) for walk in _WALKS)


def identical(some: Sequence[object], others: Sequence[object]) -> bool:
    """Return whether both hold the same objects in the same order."""
    return len(some) == len(others) and all(map(is_, some, others))
