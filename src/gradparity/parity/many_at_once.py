"""Many pairs of values compared at once, to find the few that need a closer look: mostly none.

At every phase the form and the address of each tensor are read, and all bits are compared. Only what follows from the
forms is kept from one step to the next: the tensors that can be compared together.
"""

from collections.abc import Sequence
from itertools import accumulate, compress
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import torch
from torch import Tensor

from gradparity.parity.aliasing import extent
from gradparity.parity.bits import bits, same_bits
from gradparity.parity.dense_parts import has_memory, is_simple
from gradparity.parity.flatten_values import Value
from gradparity.parity.known_forms import KnownForms
from gradparity.parity.on_gpu.count_differences import PairForms, count_differences, forms_of

STACKED: Final = frozenset(
    (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    )
)
"""Dtypes of which small tensors on the CPU are read together, in a tenth of the time of one by one."""

_SMALL: Final = 8_192
"""Largest size in bytes of a tensor that is copied into a stack."""

_AT_ONCE: Final = 1 << 20
"""Bytes of a stack: so few stay in the cache and take no memory."""

_MOST_PLACES: Final = 20_000
"""Number of places that are kept: a training whose gradients always lie elsewhere must not fill the memory."""

_EXACT: Final = frozenset((str, tuple, int, bool))
"""Types of values that are the same if they are equal."""

_Places: TypeAlias = tuple[int, int, int]
"""The addresses of two tensors of one form, and the number of bytes from the first to the last element."""


class PairsToCheck(NamedTuple):
    """The pairs of values that need a closer look, and the size of the others."""

    doubtful: list[int]
    """Positions of the pairs that may differ in any way, or share memory. All others are the same."""
    numbers: int
    """Number of numbers in the others."""


class ManyPairs:
    """Compares the values of two runs at one phase. From step to step hardly any of them changes its form.

    Args:
        safe: places of pairs that share no memory and whose storages hold all their elements, as far as known. A
            storage that is made smaller moves, so what holds at one phase holds at the next.
    """

    def __init__(self, safe: set[_Places]) -> None:
        self._safe = safe
        self._forms: list[KnownForms] = []
        """The forms of the twins on both sides when the groups were made."""
        self._types: list[list[type]] = []
        """The types of the other values on both sides."""
        self._addresses: list[list[int]] = []
        """The addresses of the twins when they were last known to be safe."""
        self._twins: list[int] = []
        """Positions of pairs of tensors that can be compared together, group after group."""
        self._groups: list[tuple[slice, PairForms | None]] = []
        """The twins that are compared together, and their forms if they are on a device of their own."""
        self._extents: list[int] = []
        """For each of the twins, the number of bytes from the first to the last element."""
        self._numbers: dict[int, int] = {}
        """For each position of a twin, its number of elements."""
        self._all_numbers = 0
        """The number of numbers at all positions, where a pair that is no twin counts as one."""
        self._odd: list[int] = []
        """Positions of other pairs with a tensor: sparse, of two forms, or one for both runs."""
        self._others: list[int] = []
        """Positions of pairs without a tensor."""

    @torch.no_grad()
    def compare(self, ours: Sequence[Value], theirs: Sequence[Value]) -> PairsToCheck:
        """Compare ``ours[i]`` with ``theirs[i]`` for all ``i``."""
        a, b = self._known_twins(ours, theirs) or self._group(ours, theirs)
        doubtful = [i for i in self._others if not _are_one_value(ours[i], theirs[i])] + self._odd
        for some, forms in self._groups:
            different = _different(a[some], b[some], forms)
            if any(different):
                doubtful += compress(self._twins[some], different)
        return PairsToCheck(sorted(doubtful), self._all_numbers - sum(self._numbers.get(i, 1) for i in doubtful))

    def _known_twins(
        self, ours: Sequence[Value], theirs: Sequence[Value]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]] | None:
        """Return both sides of the twins; ``None`` if any value has changed its type or form, or is no longer safe."""
        if len(ours) != len(self._twins) + len(self._odd) + len(self._others) or not self._forms:
            return None
        if [self._types_of_others(ours), self._types_of_others(theirs)] != self._types:
            return None
        if any(_are_twins(ours[i], theirs[i]) for i in self._odd):
            return None
        a, b = (_at(self._twins, values) for values in (ours, theirs))
        same = all(forms.match(side) for forms, side in zip(self._forms, (a, b), strict=True))
        return (a, b) if same and self._are_safe(a, b) else None

    def _types_of_others(self, values: Sequence[Value]) -> list[type]:
        return [*map(type, _at(self._odd, values)), *map(type, _at(self._others, values))]

    def _are_safe(self, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> bool:
        """Return whether the two tensors of each pair share no memory, and their storages hold all elements."""
        addresses = [list(map(Tensor.data_ptr, side)) for side in (ours, theirs)]
        if addresses == self._addresses:
            return True
        places = list(zip(*addresses, self._extents, strict=True))
        if len(self._safe) > _MOST_PLACES:
            self._safe.clear()
        if not self._safe.issuperset(places):
            for (start, begin, size), a, b in zip(places, ours, theirs, strict=True):
                if abs(start - begin) < size or not (has_memory(a) and has_memory(b)):
                    return False
            self._safe.update(places)
        self._addresses = addresses
        return True

    def _group(self, ours: Sequence[Value], theirs: Sequence[Value]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Find the twins, and return both sides."""
        groups: dict[object, list[int]] = {}
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            if isinstance(one, Tensor) and _are_twins(one, other):
                groups.setdefault(_group_of(one, i), []).append(i)
        self._twins = [i for group in groups.values() for i in group]
        ends = list(accumulate(map(len, groups.values())))
        a, b = (_at(self._twins, values) for values in (ours, theirs))
        places = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        self._groups = [(some, _forms_on_device(a[some], b[some])) for some in places]
        self._forms, self._addresses = [KnownForms(a), KnownForms(b)], []
        self._extents = list(map(extent, a))
        self._numbers = {i: twin.numel() for i, twin in zip(self._twins, a, strict=True)}
        rest = [i for i in range(len(ours)) if i not in self._numbers]
        self._all_numbers = sum(self._numbers.values()) + len(rest)
        self._odd = [i for i in rest if isinstance(ours[i], Tensor) or isinstance(theirs[i], Tensor)]
        odd = set(self._odd)
        self._others = [i for i in rest if i not in odd]
        self._types = [self._types_of_others(ours), self._types_of_others(theirs)]
        return a, b


def _at(positions: Sequence[int], values: Sequence[Value]) -> Sequence[Any]:
    return itemgetter(*positions)(values) if len(positions) > 1 else [values[i] for i in positions]


def _are_one_value(a: Value, b: Value) -> bool:
    """Return whether two values that are no tensors are certainly the same; 0.0 and -0.0 are equal, but may differ."""
    if a is b or type(a) is not type(b):
        return a is b
    return a == b and (type(a) in _EXACT or (type(a) is float and a != 0.0))


def _are_twins(a: Any, b: Any) -> bool:
    """Return whether both are plain dense tensors of one form without memory in common."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor) and type(a) is type(b) and is_simple(a) and is_simple(b)):
        return False
    if a.is_complex() or not _are_alike(a, b):  # a complex tensor may become its conjugate in place
        return False
    return abs(a.data_ptr() - b.data_ptr()) >= extent(a)


def _are_alike(a: Tensor, b: Tensor) -> bool:
    """Return whether two strided tensors have one dtype, shape, device and strides."""
    return (a.dtype, a.shape, a.device, a.stride()) == (b.dtype, b.shape, b.device, b.stride())


def _is_on_host(tensor: Tensor) -> bool:  # tests replace it, to take the GPU's path without a GPU
    return tensor.is_cpu


def _group_of(tensor: Tensor, position: int) -> object:
    """Return what all tensors that are compared together have in common."""
    if not _is_on_host(tensor):
        return tensor.device
    small = tensor.nbytes <= _SMALL and tensor.dtype in STACKED
    return (tensor.dtype, tensor.shape) if small else position


def _forms_on_device(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> PairForms | None:
    return None if _is_on_host(ours[0]) else forms_of(ours, theirs)


def _different(ours: Sequence[Tensor], theirs: Sequence[Tensor], forms: PairForms | None) -> list[bool]:
    """Return for each pair of a group whether any bit differs.

    Args:
        ours: tensors of a group.
        theirs: their twins.
        forms: those of both, for tensors that are not on the CPU.
    """
    if forms is not None:
        counts: list[bool] = (count_differences(ours, theirs, forms) > 0).tolist()
        return counts
    if len(ours) > 1:
        return _different_in_stacks(ours, theirs)
    return [not same_bits(ours[0], theirs[0])]


def _different_in_stacks(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> list[bool]:
    """Return for each pair of small tensors of one form whether any bit differs."""
    found: list[bool] = []
    step = max(1, _AT_ONCE // max(1, ours[0].nbytes))
    for start in range(0, len(ours), step):
        one, other = (bits(torch.stack(list(side[start : start + step]))) for side in (ours, theirs))
        rows = len(one)
        found += [False] * rows if torch.equal(one, other) else (one != other).view(rows, -1).any(1).tolist()
    return found
