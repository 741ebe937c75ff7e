"""Lookup in the fault dictionary: find the known fault, or the known faults, that behave exactly as a loop did.

A fault is run only until it diverges from the loop. Most do so at once, so nothing is stored between lookups.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, islice
from typing import TypeAlias

from gradparity.check.observe import ENDLESS, Look, Observed, common_prefix
from gradparity.check.parametric_faults import guesses
from gradparity.faults import FAULTS, Fault, Kind
from gradparity.faults.fault import Divergence, Shown, Stop
from gradparity.faults.patching import ClashError
from gradparity.parity.lockstep import Comparison
from gradparity.parity.place import END
from gradparity.trace.diff import compare_traces

See: TypeAlias = Callable[[Sequence[Fault], Sequence[Look]], Observed]

MOST_FAULTS = 4
"""Most faults that a lookup assumes in one loop."""

MOST_TIES = 4
"""Most sets of faults that are extended, if several behave like the loop for equally long."""

MOST_PAIRS = 1200
"""Most pairs of faults that are tried, the likely ones first."""


class Answer(StrEnum):
    """The possible results of a lookup."""

    IDENTICAL = "identical"
    SAME_UPDATES = "same updates"
    """Something in between differs, but nothing that an optimizer step reads or writes."""
    ROUNDING = "rounding"
    """Like the reference, or like a fault, except for rounding that is not in the dictionary."""
    FAULT = "fault"
    PAIR = "pair"
    """Two or more faults together."""
    CLOSEST = "closest"
    """No fault behaves exactly like the loop; one does for a while."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """The result of a lookup."""

    answer: Answer
    faults: tuple[Fault, ...] = ()
    """For a fault: all that behave exactly so and cannot be distinguished. For a pair: all of it. Else the closest."""
    first: Comparison | None = None
    """The first divergence from the reference."""
    parted: Look | None = None
    """The look at which the loop diverges from the closest fault."""
    also_here: tuple[Fault, ...] = ()
    """If nothing is close: faults that first show at the same place, in a different way."""
    tried: int = 0
    """Number of loops that it was compared with."""


@dataclass(frozen=True)
class _Likeness:
    """A fault, and the number of looks that it shares with the loop."""

    fault: Fault
    seen: Observed
    shared: int


def look_up(
    loop: Observed,
    reference: Observed,
    see: See,
    tell: Callable[[int, int], None] = lambda done, of: None,
    known: Mapping[str, Fault] = FAULTS,
    most_pairs: int | None = None,
    alone: bool = False,
) -> Finding:
    """Find the faults with which the reference behaves as ``loop`` does.

    Args:
        loop: the loop as it was observed.
        reference: the reference as it was observed.
        see: observes the reference with some faults until it differs from the looks that are expected; most often
            :func:`gradparity.check.observe.observe_with`, with the precision of ``loop`` and ``reference``.
        tell: called with the number of loops tried so far, and the number to try.
        known: the faults to look for, by name.
        most_pairs: number of pairs to try; by default :data:`MOST_PAIRS`.
        alone: look for one fault only, because nothing else could explain the loop.
    """
    if loop == reference:
        return Finding(Answer.IDENTICAL)
    first = next((c for c in compare_traces(reference.trace, loop.trace) if c.mismatches), None)
    likenesses = []
    for done, fault in enumerate(known.values()):
        tell(done, len(known))
        seen = see([fault], loop.looks)
        likenesses.append(_Likeness(fault, seen, common_prefix(seen.looks, loop.looks)))
    if same := tuple(x.fault for x in likenesses if x.seen == loop):
        return Finding(Answer.FAULT, same, first, tried=len(known))
    for guess in guesses(loop, first) if first else ():
        if see([guess], loop.looks) == loop:
            return Finding(Answer.FAULT, (guess,), first, tried=len(known))
    if same_updates(loop, reference):
        return Finding(Answer.SAME_UPDATES, first=first, tried=len(known))
    if alone:
        return Finding(Answer.UNKNOWN, first=first, tried=len(known))

    base = common_prefix(loop.looks, reference.looks)
    tried, most_pairs = 0, most_pairs or MOST_PAIRS
    pairs = _pairs(loop, reference, base, likenesses)
    for tried, pair in enumerate(islice(pairs, most_pairs), start=1):
        tell(len(known) + tried, len(known) + most_pairs)
        with suppress(ClashError):
            if see(pair, loop.looks) == loop:
                return Finding(Answer.PAIR, pair, first, tried=len(known) + tried)

    tried += len(known)
    if max(x.shared for x in likenesses) > base:
        faults, shared, to_its_end = _one_after_another(loop, see, likenesses)
        if to_its_end:
            return Finding(Answer.PAIR, faults, first, tried=tried)
        parted = loop.looks[shared] if shared < len(loop.looks) else None
        return Finding(Answer.CLOSEST, faults, first, parted, tried=tried)
    also_here = tuple(x.fault for x in _visible(likenesses, reference, base))
    return Finding(Answer.UNKNOWN, first=first, also_here=also_here, tried=tried)


def _one_after_another(
    loop: Observed, see: See, likenesses: Sequence[_Likeness]
) -> tuple[tuple[Fault, ...], int, bool]:
    """Search for more than two faults: add one more, again and again, to those that match the loop for longest.

    Several sets are extended if they match for equally long: two faults may be alike until a partial window comes.

    Returns:
        The faults, the number of looks that the loop shares with them, and whether they match it to its end.
    """
    shared = max(x.shared for x in likenesses)
    furthest: list[tuple[Fault, ...]] = [(x.fault,) for x in likenesses if x.shared == shared]
    others = [x.fault for x in likenesses if x.fault.kind != Kind.ROUNDING]
    while len(furthest[0]) < MOST_FAULTS and shared < len(loop.looks):
        where = loop.looks[shared].place
        others.sort(key=lambda fault: not fault.may_show(where))
        reach, further = shared, list[tuple[Fault, ...]]()
        tried = set[frozenset[str]]()
        for faults in ((*some, other) for some in furthest[:MOST_TIES] for other in others if other not in some):
            names = frozenset(fault.name for fault in faults)
            if names in tried:
                continue
            tried.add(names)
            with suppress(ClashError):
                seen = see(faults, loop.looks)
                if seen == loop:
                    return faults, len(loop.looks), True
                reached = common_prefix(seen.looks, loop.looks)
                if reached > reach:
                    reach, further = reached, []
                if reached == reach > shared:
                    further.append(faults)
        if not further:
            break
        furthest, shared = further, reach
    return furthest[0], shared, False


def same_updates(loop: Observed, reference: Observed) -> bool:
    """Return whether all that optimizer steps read and write is the same, even if single microbatches differ."""
    ours, theirs = ([look for look in seen.looks if look.place.microbatch is None] for seen in (loop, reference))
    return ours == theirs and loop.error == reference.error


def _pairs(
    loop: Observed, reference: Observed, base: int, likenesses: Sequence[_Likeness]
) -> Iterator[tuple[Fault, Fault]]:
    """Yield pairs that may behave as the loop does, the likely ones first.

    One of the two must show where the loop diverges from the reference. If it behaves like the loop there, the other
    one shows where the loop diverges from the first. If not, both show there at once. A loop that was stopped by an
    exception has a fault that raises.
    """
    if loop.error == ENDLESS:
        return
    told = set[frozenset[str]]()
    for one, other in _by_likelihood(loop, reference, base, likenesses):
        key = frozenset((one.name, other.name))
        raises = Kind.RAISES in (one.kind, other.kind)
        if len(key) == 2 and key not in told and raises == (loop.error is not None):
            told.add(key)
            yield one, other


def _by_likelihood(
    loop: Observed, reference: Observed, base: int, likenesses: Sequence[_Likeness]
) -> Iterator[tuple[Fault, Fault]]:
    leading = sorted((x for x in likenesses if x.shared > base), key=lambda x: -x.shared)
    for x in leading:
        where = loop.looks[x.shared].place if x.shared < len(loop.looks) else END
        yield from ((x.fault, y.fault) for y in likenesses if y.fault.may_show(where))
    here = [x.fault for x in _visible(likenesses, reference, base)]
    yield from combinations(here, 2)
    for x in leading:
        yield from ((x.fault, y.fault) for y in likenesses)
    for fault in here:
        yield from ((fault, y.fault) for y in likenesses)


def _visible(likenesses: Sequence[_Likeness], reference: Observed, base: int) -> list[_Likeness]:
    """Return the faults that diverge from the reference where the loop does, in whatever way."""
    there = slice(base, base + 1)
    return [x for x in likenesses if x.shared == base and x.seen.looks[there] != reference.looks[there]]


def first_shown(reference: Observed, seen: Observed) -> Shown | None:
    """Return the first difference from the reference, or the exception that comes before it; ``None`` if none."""
    found = next((c for c in compare_traces(reference.trace, seen.trace) if c.mismatches), None)
    if seen.error and (found is None or len(seen.looks) == common_prefix(seen.looks, reference.looks)):
        return Stop(seen.trace.records[-1].step if seen.trace.records else 0, seen.error.split(":")[0])
    return Divergence(found.place, found.mismatches[0].part) if found else None
