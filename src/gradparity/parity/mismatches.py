"""The values of one part compared by name, whether live or from traces, and the size of what differs."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from gradparity.parity.difference_kinds import ABSENT, Kind
from gradparity.parity.difference_sums import Sums, sums_of
from gradparity.parity.figures import Figures
from gradparity.parity.other_model_state import usual
from gradparity.parity.state import Part

Measure: TypeAlias = Callable[[Tensor, Tensor], Figures]
"""Returns the size of the difference between two tensors, and adds it to that of the whole part."""


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


class Compared(NamedTuple):
    """The result of comparing the values of one part."""

    mismatches: list[Mismatch]
    figures: Figures | None
    """The size of the difference over all tensors that differ in bits."""
    unseen: list[str]
    """The names of values that cannot be compared, or only by type and shape."""


def compare_by_name(
    part: Part,
    reference: Mapping[str, Any],
    candidate: Mapping[str, Any],
    differences: Callable[[str, Any, Any, Measure], Iterator[Mismatch]],
    unreadable: Callable[[Any, Any], bool],
    names: Iterable[str] | None = None,
) -> Compared:
    """Compare the values of a part, in the reference's order; values that only the candidate has come last.

    Args:
        part: the part to which the values belong.
        reference: the reference's values by name.
        candidate: the candidate's values by name.
        differences: yields the mismatches of two values of one name, of which one may be :data:`ABSENT`.
        unreadable: returns whether two values cannot be compared, or only by type and shape.
        names: the names to compare, if the values of all others are known to be the same; by default all.
    """
    mismatches: list[Mismatch] = []
    unseen: list[str] = []
    whole: Sums | None = None

    def measure(ours: Tensor, theirs: Tensor) -> Figures:
        nonlocal whole
        sums = sums_of(ours, theirs)
        whole = sums if whole is None else whole + sums
        return sums.figures()

    for name in dict.fromkeys([*reference, *candidate]) if names is None else names:
        a, b = reference.get(name, ABSENT), candidate.get(name, ABSENT)
        if part == Part.MODES:  # ``modes`` lists only flags with unusual values
            a, b = (usual(name) if flag is ABSENT else flag for flag in (a, b))
        mismatches += differences(name, a, b, measure)
        if unreadable(a, b):
            unseen.append(name)
    return Compared(mismatches, whole.figures() if whole else None, unseen)


def figures_of(pairs: Iterable[tuple[Tensor, Tensor]]) -> Figures:
    """Return the size of the difference over all ``pairs`` together, on this rank alone."""
    return sum((sums_of(reference, candidate) for reference, candidate in pairs), Sums()).figures()
