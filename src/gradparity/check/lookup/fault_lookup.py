"""Lookup in the fault dictionary: find the known fault, or the known faults, that behave exactly as a loop did.

A fault is run only until it diverges from the loop; most do so at once. What was seen of its run is remembered.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum

from gradparity.check.intended.closest_reference import identical, same_updates
from gradparity.check.lookup.likely_pairs import Candidate, LikelyPairs
from gradparity.check.lookup.parametric_faults import inferred_faults
from gradparity.check.lookup.seen_runs import SeenRun, name_of
from gradparity.check.lookup.several_faults import several_faults
from gradparity.check.lookup.tries import Faults, Observe, Tries, WrongMemoryError
from gradparity.check.running.observe import Observation, ObservedLoop, Overflow, common_prefix
from gradparity.check.running.uncheckable import steps_made
from gradparity.faults import FAULTS, Fault
from gradparity.faults.fault import Divergence, Shown, Stop
from gradparity.parity.lockstep import Comparison
from gradparity.parity.state import Part
from gradparity.trace.diff import first_difference

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
    diverges_at: Observation | None = None
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
        return replace(self, match=Match.ROUNDING, faults=faults, diverges_at=None, also_here=())


def look_up(
    loop: ObservedLoop,
    reference: ObservedLoop,
    observe: Observe,
    progress: Callable[[int, int], None] = lambda done, total: None,
    known: Mapping[str, Fault] = FAULTS,
    most_pairs: int | None = None,
    alone: bool = False,
    unasked: frozenset[Part] = frozenset(),
    memory: dict[str, SeenRun] | None = None,
    processes: int | None = 1,
) -> Finding:
    """Find the faults with which the reference behaves as ``loop`` does.

    Args:
        loop: the loop as it was observed.
        reference: the reference as it was observed.
        observe: most often :func:`gradparity.check.running.observe.observe_reference`, with the precision of ``loop``
            and ``reference``.
        progress: called with the number of faults and pairs tried so far, and the number to try.
        known: the faults to look for, by name.
        most_pairs: number of pairs to try; by default :data:`MOST_PAIRS`.
        alone: look for one fault only, because nothing else could explain the loop.
        unasked: parts of the state that the loop does not take, so that it cannot keep them as the reference does.
        memory: runs of this reference with faults that are remembered; those that are made here are added.
        processes: number of processes that run the reference; ``None`` for as many as there are cores.

    A fault is named only after it was run here. If that shows that ``memory`` is wrong, it is emptied.
    """
    if identical(loop, reference, unasked):
        return Finding(Match.IDENTICAL)
    tries = Tries(loop, reference, observe, {} if memory is None else memory, processes)
    try:
        return _look_up(tries, progress, known, most_pairs, alone, unasked)
    except WrongMemoryError:
        tries.memory.clear()
        return _look_up(tries, progress, known, most_pairs, alone, unasked)


def _look_up(
    tries: Tries,
    progress: Callable[[int, int], None],
    known: Mapping[str, Fault],
    most_pairs: int | None,
    alone: bool,
    unasked: frozenset[Part],
) -> Finding:
    """Find the faults for a loop that is not identical to the reference."""
    loop, reference = tries.loop, tries.reference
    first = first_difference(reference.trace, loop.trace)
    if (Part.PARAMETERS in unasked or not steps_made(loop)) and same_updates(loop, reference, unasked):
        return Finding(Match.SAME_UPDATES, first=first)  # values that no optimizer of its own touches may differ
    candidates = []
    for done, ((fault,), agreement) in enumerate(tries.each((fault,) for fault in known.values())):
        progress(done, len(known))
        candidates.append(Candidate(fault, agreement, tries.memory[name_of((fault,))].effect))
    if same := tuple(x.fault for x in candidates if x.agreement.same):
        for fault in same:
            tries.confirm((fault,))
        return Finding(Match.FAULT, same, first, tried=len(known))
    guesses = ((guess,) for guess in inferred_faults(loop, first)) if first else ()
    if guess := _first_same(tries, guesses):
        return Finding(Match.FAULT, guess, first, tried=len(known))
    if same_updates(loop, reference, unasked):
        return Finding(Match.SAME_UPDATES, first=first, tried=len(known))
    if alone:
        return Finding(Match.UNKNOWN, first=first, tried=len(known))

    base = common_prefix(loop.observations, reference.observations)
    most = most_pairs or (MOST_PAIRS if base else MOST_PAIRS_AT_ONCE)
    pairs = LikelyPairs(loop, reference, base, candidates)
    several = several_faults(tries, pairs, most, lambda done: progress(len(known) + done, len(known) + max(most, done)))
    tried = len(known) + several.pairs
    if several.whole:
        return Finding(Match.PAIR, several.faults, first, tried=tried)
    if several.faults:
        end = loop.observations[several.shared] if several.shared < len(loop.observations) else None
        return Finding(Match.CLOSEST, several.faults, first, end, tried=tried)
    return Finding(Match.UNKNOWN, first=first, also_here=tuple(x.fault for x in pairs.here), tried=tried)


def _first_same(tries: Tries, sets: Iterable[Faults]) -> Faults:
    """Return the first of ``sets`` with which the reference behaves as the loop does; empty if there is none."""
    with closing(tries.each(sets)) as results:
        for faults, agreement in results:
            if agreement.same:
                tries.confirm(faults)
                return faults
    return ()


def first_shown(reference: ObservedLoop, loop: ObservedLoop) -> Shown | None:
    """Return the first difference from the reference, or the end that comes before it; ``None`` if there is none."""
    found = first_difference(reference.trace, loop.trace)
    shared = common_prefix(loop.observations, reference.observations)
    if not loop.end.finished and (found is None or len(loop.observations) == shared):
        step = loop.trace.records[-1].step if loop.trace.records else 0
        return Stop(step, loop.end.exception or loop.end.kind)
    return Divergence(found.place, found.mismatches[0].part) if found else None
