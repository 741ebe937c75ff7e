"""Lookup in the fault dictionary: find the known fault, or the known faults, that behave exactly as a loop did.

A fault is run only until it diverges from the loop; most do so at once. What was seen of its run is remembered.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice

from gradparity.check.closest_reference import same_updates
from gradparity.check.likely_pairs import Candidate, likely_pairs, not_before, visible_at
from gradparity.check.observe import Observation, ObservedLoop, Overflow, common_prefix
from gradparity.check.parametric_faults import inferred_faults
from gradparity.check.seen_runs import SeenRun
from gradparity.check.tries import Faults, Observe, Tries, WrongMemoryError
from gradparity.faults import FAULTS, Fault, FaultKind
from gradparity.faults.fault import Divergence, Shown, Stop
from gradparity.parity.lockstep import Comparison
from gradparity.parity.state import Part
from gradparity.trace.diff import compare_traces

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
        observe: most often :func:`gradparity.check.observe.observe_reference`, with the precision of ``loop`` and
            ``reference``.
        progress: called with the number of faults and pairs tried so far, and the number to try.
        known: the faults to look for, by name.
        most_pairs: number of pairs to try; by default :data:`MOST_PAIRS`.
        alone: look for one fault only, because nothing else could explain the loop.
        unasked: parts of the state that the loop does not take, so that it cannot keep them as the reference does.
        memory: runs of this reference with faults that are remembered; those that are made here are added.
        processes: number of processes that run the reference; ``None`` for as many as there are cores.

    A fault is named only after it was run here. If that shows that ``memory`` is wrong, it is emptied.
    """
    if loop == reference:
        return Finding(Match.IDENTICAL)
    tries = Tries(loop, observe, {} if memory is None else memory, processes)
    try:
        return _look_up(tries, reference, progress, known, most_pairs, alone, unasked)
    except WrongMemoryError:
        tries.memory.clear()
        return _look_up(tries, reference, progress, known, most_pairs, alone, unasked)


def _look_up(
    tries: Tries,
    reference: ObservedLoop,
    progress: Callable[[int, int], None],
    known: Mapping[str, Fault],
    most_pairs: int | None,
    alone: bool,
    unasked: frozenset[Part],
) -> Finding:
    """Find the faults for a loop that is not identical to ``reference``."""
    loop = tries.loop
    first = next((c for c in compare_traces(reference.trace, loop.trace) if c.mismatches), None)
    if Part.PARAMETERS in unasked and same_updates(loop, reference, unasked):  # a fault may be one of updates
        return Finding(Match.SAME_UPDATES, first=first)
    candidates = []
    for done, ((fault,), agreement) in enumerate(tries.each((fault,) for fault in known.values())):
        progress(done, len(known))
        candidates.append(Candidate(fault, agreement))
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
    tried, most_pairs = 0, most_pairs or (MOST_PAIRS if base else MOST_PAIRS_AT_ONCE)
    pairs = likely_pairs(loop, reference, base, candidates)
    with closing(tries.each(islice(pairs, most_pairs))) as results:
        for tried, (pair, agreement) in enumerate(results, start=1):
            progress(len(known) + tried, len(known) + most_pairs)
            if agreement.same:
                tries.confirm(pair)
                return Finding(Match.PAIR, pair, first, tried=len(known) + tried)

    tried += len(known)
    if max((x.shared for x in candidates), default=0) > base:
        unmasked = [x for x in not_before(candidates, base) if x not in visible_at(candidates, reference, base)]
        faults, shared, whole = _add_one_by_one(loop, tries, unmasked)
        if whole:
            return Finding(Match.PAIR, faults, first, tried=tried)
        parted = loop.observations[shared] if shared < len(loop.observations) else None
        return Finding(Match.CLOSEST, faults, first, parted, tried=tried)
    also_here = tuple(x.fault for x in visible_at(candidates, reference, base))
    return Finding(Match.UNKNOWN, first=first, also_here=also_here, tried=tried)


def _first_same(tries: Tries, sets: Iterable[Faults]) -> Faults:
    """Return the first of ``sets`` with which the reference behaves as the loop does; empty if there is none."""
    with closing(tries.each(sets)) as results:
        for faults, agreement in results:
            if agreement.same:
                tries.confirm(faults)
                return faults
    return ()


def _add_one_by_one(loop: ObservedLoop, tries: Tries, candidates: Sequence[Candidate]) -> tuple[Faults, int, bool]:
    """Search for more than two faults: add one more, again and again, to those that match the loop for longest.

    Several sets are extended if they match for equally long: two faults may be alike until a partial window comes.

    Returns:
        The faults, the number of observations that the loop shares with them, and whether they match all of it.
    """
    shared = max(x.shared for x in candidates)
    furthest: list[Faults] = [(x.fault,) for x in candidates if x.shared == shared]
    others = [x.fault for x in candidates if x.fault.kind != FaultKind.ROUNDING]
    while len(furthest[0]) < _MOST_FAULTS and shared < len(loop.observations):
        where = loop.observations[shared].place
        likely = [[fault for fault in others if fault.may_show(where) == shows] for shows in (True, False)]
        ties = furthest[:_MOST_TIES]
        sets = ((*some, other) for group in likely for some in ties for other in group if other not in some)
        once = {
            frozenset(fault.name for fault in faults): faults for faults in reversed(list(islice(sets, _MOST_SETS)))
        }
        reach, further = shared, list[Faults]()
        with closing(tries.each(once.values())) as results:
            for faults, agreement in results:
                if agreement.same:
                    tries.confirm(faults)
                    return faults, len(loop.observations), True
                if agreement.shared > reach:
                    reach, further = agreement.shared, []
                if agreement.shared == reach > shared:
                    further.append(faults)
        if not further:
            break
        furthest, shared = further, reach
    return furthest[0], shared, False


def first_shown(reference: ObservedLoop, loop: ObservedLoop) -> Shown | None:
    """Return the first difference from the reference, or the end that comes before it; ``None`` if there is none."""
    found = next((c for c in compare_traces(reference.trace, loop.trace) if c.mismatches), None)
    shared = common_prefix(loop.observations, reference.observations)
    if not loop.end.finished and (found is None or len(loop.observations) == shared):
        step = loop.trace.records[-1].step if loop.trace.records else 0
        return Stop(step, loop.end.exception or loop.end.kind)
    return Divergence(found.place, found.mismatches[0].part) if found else None
