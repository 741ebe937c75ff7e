"""Lookup in the fault dictionary: find the known fault, or the known faults, that behave exactly as a loop did.

A fault is run only until it diverges from the loop. Most do so at once, so nothing is stored between lookups.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations, islice
from typing import TypeAlias

from gradparity.check.closest_reference import same_updates
from gradparity.check.loop_end import EndKind
from gradparity.check.observe import Observation, ObservedLoop, Overflow, common_prefix
from gradparity.check.parametric_faults import inferred_faults
from gradparity.faults import FAULTS, Fault, FaultKind
from gradparity.faults.fault import Divergence, Shown, Stop
from gradparity.faults.patching import ClashError
from gradparity.parity.lockstep import Comparison
from gradparity.parity.place_in_training import END
from gradparity.parity.state import Part
from gradparity.trace.diff import compare_traces

Observe: TypeAlias = Callable[[Sequence[Fault], Sequence[Observation]], ObservedLoop]
"""Observes the reference with some faults, until it differs from the observations that are expected."""

_MOST_FAULTS = 4
"""Most faults that a lookup assumes in one loop."""

_MOST_TIES = 4
"""Most sets of faults that are extended, if several behave like the loop for equally long."""

_MOST_SETS = 900
"""Most sets of three faults, and of four, that are tried, the likely ones first."""
MOST_PAIRS = 500
"""Most pairs of faults that are tried, the likely ones first."""

MOST_PAIRS_AT_ONCE = 1400
"""The same for a loop that differs from the first forward on, where each try takes one forward only."""


class Match(StrEnum):
    """The possible results of a lookup."""

    IDENTICAL = "identical"
    SAME_UPDATES = "same updates"
    """Something in between differs, but nothing that an optimizer step reads or writes."""
    ROUNDING = "rounding"
    """Like the reference, or like a fault, except for rounding that is not in the dictionary."""
    FAULT = "fault"
    PAIR = "pair"
    """Like two or more faults together."""
    CLOSEST = "closest"
    """No fault behaves exactly like the loop; one does for a while."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """The result of a lookup."""

    match: Match
    faults: tuple[Fault, ...] = ()
    """For a fault: all that behave exactly the same. For a pair: both, or all of up to four. Else the closest."""
    first: Comparison | None = None
    """The first divergence from the reference."""
    parted: Observation | None = None
    """The observation at which the loop diverges from the closest fault."""
    also_here: tuple[Fault, ...] = ()
    """If nothing is close: faults that first show at the same place, but differently."""
    tried: int = 0
    """Number of faults and pairs that the loop was compared with."""
    overflow: Overflow | None = None
    """For a loop like the reference except for rounding: where only one of the two overflows."""

    @property
    def matched(self) -> bool:
        """Return whether the reference, alone or with known faults, behaves as the loop does."""
        return self.match not in (Match.CLOSEST, Match.UNKNOWN)

    def except_for_rounding(self, faults: tuple[Fault, ...]) -> "Finding":
        """Return this finding for a loop that turned out to match ``faults`` except for rounding."""
        return replace(self, match=Match.ROUNDING, faults=faults, parted=None, also_here=())


@dataclass(frozen=True)
class _Candidate:
    """A fault, and the number of observations that it shares with the loop."""

    fault: Fault
    run: ObservedLoop
    shared: int


def look_up(
    loop: ObservedLoop,
    reference: ObservedLoop,
    observe: Observe,
    progress: Callable[[int, int], None] = lambda done, total: None,
    known: Mapping[str, Fault] = FAULTS,
    most_pairs: int | None = None,
    alone: bool = False,
    unasked: frozenset[Part] = frozenset(),
) -> Finding:
    """Find the faults with which the reference behaves as ``loop`` does.

    Args:
        loop: the loop as it was observed.
        reference: the reference as it was observed.
        observe: most often :func:`gradparity.check.observe.observe_reference`, with the precision of ``loop`` and
            ``reference``.
        progress: called with the number of faults and pairs tried so far, and the number to try.
        known: the faults to look for, by name.
        most_pairs: number of pairs to try; by default :data:`MOST_PAIRS`.
        alone: look for one fault only, because nothing else could explain the loop.
        unasked: parts of the state that the loop does not take, so that it cannot keep them as the reference does.
    """
    if loop == reference:
        return Finding(Match.IDENTICAL)
    first = next((c for c in compare_traces(reference.trace, loop.trace) if c.mismatches), None)
    candidates = []
    for done, fault in enumerate(known.values()):
        progress(done, len(known))
        try:
            run = observe([fault], loop.observations)
        except ClashError:  # with what was changed of the reference, as the loop means it
            continue
        candidates.append(_Candidate(fault, run, common_prefix(run.observations, loop.observations)))
    if same := tuple(x.fault for x in candidates if x.run == loop):
        return Finding(Match.FAULT, same, first, tried=len(known))
    for guess in inferred_faults(loop, first) if first else ():
        with suppress(ClashError):
            if observe([guess], loop.observations) == loop:
                return Finding(Match.FAULT, (guess,), first, tried=len(known))
    if same_updates(loop, reference, unasked):
        return Finding(Match.SAME_UPDATES, first=first, tried=len(known))
    if alone:
        return Finding(Match.UNKNOWN, first=first, tried=len(known))

    base = common_prefix(loop.observations, reference.observations)
    tried, most_pairs = 0, most_pairs or (MOST_PAIRS if base else MOST_PAIRS_AT_ONCE)
    pairs = _pairs(loop, reference, base, candidates)
    for tried, pair in enumerate(islice(pairs, most_pairs), start=1):
        progress(len(known) + tried, len(known) + most_pairs)
        with suppress(ClashError):
            if observe(pair, loop.observations) == loop:
                return Finding(Match.PAIR, pair, first, tried=len(known) + tried)

    tried += len(known)
    if max((x.shared for x in candidates), default=0) > base:
        faults, shared, whole = _add_one_by_one(loop, observe, candidates)
        if whole:
            return Finding(Match.PAIR, faults, first, tried=tried)
        parted = loop.observations[shared] if shared < len(loop.observations) else None
        return Finding(Match.CLOSEST, faults, first, parted, tried=tried)
    also_here = tuple(x.fault for x in _visible(candidates, reference, base))
    return Finding(Match.UNKNOWN, first=first, also_here=also_here, tried=tried)


def _add_one_by_one(
    loop: ObservedLoop, observe: Observe, candidates: Sequence[_Candidate]
) -> tuple[tuple[Fault, ...], int, bool]:
    """Search for more than two faults: add one more, again and again, to those that match the loop for longest.

    Several sets are extended if they match for equally long: two faults may be alike until a partial window comes.

    Returns:
        The faults, the number of observations that the loop shares with them, and whether they match all of it.
    """
    shared = max(x.shared for x in candidates)
    furthest: list[tuple[Fault, ...]] = [(x.fault,) for x in candidates if x.shared == shared]
    others = [x.fault for x in candidates if x.fault.kind != FaultKind.ROUNDING]
    while len(furthest[0]) < _MOST_FAULTS and shared < len(loop.observations):
        where = loop.observations[shared].place
        likely = [[fault for fault in others if fault.may_show(where) == shows] for shows in (True, False)]
        reach, further = shared, list[tuple[Fault, ...]]()
        tried = set[frozenset[str]]()
        ties = furthest[:_MOST_TIES]
        sets = ((*some, other) for group in likely for some in ties for other in group if other not in some)
        for faults in islice(sets, _MOST_SETS):
            names = frozenset(fault.name for fault in faults)
            if names in tried:
                continue
            tried.add(names)
            with suppress(ClashError):
                run = observe(faults, loop.observations)
                if run == loop:
                    return faults, len(loop.observations), True
                reached = common_prefix(run.observations, loop.observations)
                if reached > reach:
                    reach, further = reached, []
                if reached == reach > shared:
                    further.append(faults)
        if not further:
            break
        furthest, shared = further, reach
    return furthest[0], shared, False


def _pairs(
    loop: ObservedLoop, reference: ObservedLoop, base: int, candidates: Sequence[_Candidate]
) -> Iterator[tuple[Fault, Fault]]:
    """Yield pairs that may behave as the loop does, the likely ones first.

    One of the two must show where the loop diverges from the reference. If it behaves like the loop there, the other
    one shows where the loop diverges from the first. If not, both show there at once. A loop that raised an exception
    has a fault that raises.
    """
    if loop.end.kind == EndKind.ENDLESS:
        return
    yielded = set[frozenset[str]]()
    for one, other in _by_likelihood(loop, reference, base, candidates):
        key = frozenset((one.name, other.name))
        raises = FaultKind.RAISES in (one.kind, other.kind)
        if len(key) == 2 and key not in yielded and raises == (not loop.end.finished):
            yielded.add(key)
            yield one, other


def _by_likelihood(
    loop: ObservedLoop, reference: ObservedLoop, base: int, candidates: Sequence[_Candidate]
) -> Iterator[tuple[Fault, Fault]]:
    leading = sorted((x for x in candidates if x.shared > base), key=lambda x: -x.shared)
    for x in leading:
        where = loop.observations[x.shared].place if x.shared < len(loop.observations) else END
        yield from ((x.fault, y.fault) for y in candidates if y.fault.may_show(where))
    yield from ((x.fault, y.fault) for x in leading[:1] for y in candidates)
    here = [x.fault for x in _visible(candidates, reference, base)]
    yield from combinations(here, 2)
    for x in leading[1:]:
        yield from ((x.fault, y.fault) for y in candidates)
    for fault in here:
        yield from ((fault, y.fault) for y in candidates)


def _visible(candidates: Sequence[_Candidate], reference: ObservedLoop, base: int) -> list[_Candidate]:
    """Return the faults that diverge from the reference where the loop does, in whatever way."""
    there = slice(base, base + 1)
    return [x for x in candidates if x.shared == base and x.run.observations[there] != reference.observations[there]]


def first_shown(reference: ObservedLoop, loop: ObservedLoop) -> Shown | None:
    """Return the first difference from the reference, or the end that comes before it; ``None`` if there is none."""
    found = next((c for c in compare_traces(reference.trace, loop.trace) if c.mismatches), None)
    shared = common_prefix(loop.observations, reference.observations)
    if not loop.end.finished and (found is None or len(loop.observations) == shared):
        step = loop.trace.records[-1].step if loop.trace.records else 0
        return Stop(step, loop.end.exception or loop.end.kind)
    return Divergence(found.place, found.mismatches[0].part) if found else None
