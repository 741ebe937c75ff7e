"""The state of an optimizer by name; names are put together again only after a key or a parameter has changed."""

from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

from torch import Tensor
from torch.optim import Optimizer

from gradparity.parity.flatten_values import Value
from gradparity.parity.model_tree import identical
from gradparity.parity.state import moments

_DICT: Final = frozenset({dict})
_LEAVES: Final = frozenset({Tensor, float, bool, str, type(None)})
"""Types of values that :func:`gradparity.parity.flatten_values.flatten` leaves as they are."""


class OptimizerNames:
    """The names in the state of one optimizer, and whether its groups still have the same members."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._groups: list[list[Tensor]] = []
        self._name_of: Mapping[Tensor, str] = {}
        """The names of parameters, and below the keys of the state, for which the names in the state were found."""
        self._parameters: list[object] = []
        self._keys: list[list[object]] = []
        self._names: list[str] = []

    def has_other_members(self) -> bool:
        """Return whether the members of any group have changed since the last call."""
        groups = [list(group["params"]) for group in self._optimizer.param_groups]
        if len(groups) == len(self._groups) and all(map(identical, groups, self._groups)):
            return False
        self._groups = groups
        return True

    def moments(self, name_of: Mapping[Tensor, str]) -> dict[str, Value]:
        """Return what :func:`gradparity.parity.state.moments` yields.

        Args:
            name_of: the names of the parameters; the same object as before if they have not changed.
        """
        kept: Mapping[Any, Any] = self._optimizer.state
        if not _DICT.issuperset(map(type, kept.values())):
            return dict(moments(name_of, self._optimizer))
        parameters, keys = list(kept), list(map(list, kept.values()))
        values = [*chain.from_iterable(map(dict.values, kept.values()))]
        leaves = _LEAVES.issuperset(map(type, values))
        known = keys == self._keys and name_of is self._name_of and identical(parameters, self._parameters)
        if known and leaves:
            return dict(zip(self._names, values, strict=True))
        found = dict(moments(name_of, self._optimizer))
        if leaves:
            self._name_of, self._parameters, self._keys, self._names = name_of, parameters, keys, list(found)
        return found
