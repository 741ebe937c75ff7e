"""The fault dictionary, looked up: which known fault, or which two of them, behave just as a loop was seen to.

A fault is run only until it parts from the loop, which most do at once, so nothing needs to be kept between lookups.
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
from gradparity.faults.patching import ClashError
from gradparity.parity.lockstep import Comparison
from gradparity.trace.diff import compare_traces
from gradparity.training import Phase

See: TypeAlias = Callable[[Sequence[Fault], Sequence[Look]], Observed]

MOST_FAULTS = 4
"""Faults that one loop is believed to have."""

MOST_TIES = 4
"""Sets of faults that are followed on, where several behave like a loop equally far."""

MOST_PAIRS = 1200
"""Pairs that are tried, the likely ones first, before two faults are given up on."""


class Answer(StrEnum):
    """What can come of a lookup."""

    IDENTICAL = "identical"
    SAME_UPDATES = "same updates"
    """Something on the way was seen to differ, but nothing that an optimizer step reads or writes."""
    ROUNDING = "rounding"
    """Like the reference, or like a fault, but for roundings that nobody has written down."""
    FAULT = "fault"
    PAIR = "pair"
    """Two faults together, or more."""
    CLOSEST = "closest"
    """No fault behaves just so; one does for a while."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """What a lookup has found."""

    answer: Answer
    faults: tuple[Fault, ...] = ()
    """Of a fault: all that behave just so, and cannot be told apart. Of a pair: both. Else the closest, if any."""
    first: Comparison | None = None
    """The first divergence from the reference."""
    parted: Look | None = None
    """Where the loop parts from the closest fault."""
    also_here: tuple[Fault, ...] = ()
    """Where nothing is close: faults that first show at the same place, in another way."""
    tried: int = 0
    """How many loops it was held against."""


@dataclass(frozen=True)
class _Likeness:
    """A fault, and how far the loop behaves like it."""

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
    """Find what behaves as ``loop`` does.

    Args:
        loop: as it was seen.
        reference: as it was seen.
        see: observes the reference with some faults, no further than it behaves as it is expected to; most often
            :func:`gradparity.check.observe.observe_with`, under the precision of both.
        tell: called with how many loops have been tried, and of how many.
        known: the faults that are looked for, by name.
        most_pairs: of them that are tried; :data:`MOST_PAIRS` if it is not said.
        alone: look for one fault only, as nothing else could explain it.
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
    """More faults than two: each with which the loop is followed furthest is given another one, and so on.

    Several are followed as long as they are equally far: two faults may be alike until a partial window comes.

    Returns:
        The faults, how far the loop behaves like the reference with them, and whether to its end.
    """
    shared = max(x.shared for x in likenesses)
    furthest: list[tuple[Fault, ...]] = [(x.fault,) for x in likenesses if x.shared == shared]
    others = [x.fault for x in likenesses if x.fault.kind != Kind.ROUNDING]
    while len(furthest[0]) < MOST_FAULTS and shared < len(loop.looks):
        where = place(loop.looks[shared])
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
    """Whether all that optimizer steps read and write is the same, whatever was seen of single microbatches."""
    ours, theirs = ([look for look in seen.looks if look.microbatch is None] for seen in (loop, reference))
    return ours == theirs and loop.error == reference.error


def _pairs(
    loop: Observed, reference: Observed, base: int, likenesses: Sequence[_Likeness]
) -> Iterator[tuple[Fault, Fault]]:
    """Pairs that may behave as the loop does, the likely ones first.

    One of the two must show where the loop parts from the reference. If it behaves like the loop there, the other one
    shows where the loop parts from it. If not, both show there at once. Who was stopped has a fault that raises.
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
        where = place(loop.looks[x.shared]) if x.shared < len(loop.looks) else "the end"
        yield from ((x.fault, y.fault) for y in likenesses if y.fault.may_show(where))
    here = [x.fault for x in _visible(likenesses, reference, base)]
    yield from combinations(here, 2)
    for x in leading:
        yield from ((x.fault, y.fault) for y in likenesses)
    for fault in here:
        yield from ((fault, y.fault) for y in likenesses)


def _visible(likenesses: Sequence[_Likeness], reference: Observed, base: int) -> list[_Likeness]:
    """The faults that part from the reference where the loop does, in whatever way."""
    there = slice(base, base + 1)
    return [x for x in likenesses if x.shared == base and x.seen.looks[there] != reference.looks[there]]


def place(at: Look | Comparison) -> str:
    """Step, microbatch and phase, in a few words."""
    if at.step < 0:
        return "the end"
    microbatch = "" if at.microbatch is None else f", microbatch {at.microbatch}"
    return f"step {at.step}{microbatch}, {Phase(at.phase).name.lower()}"


def first_shown(reference: Observed, seen: Observed) -> str:
    """Where a loop is first seen to differ from the reference, in which part of its state, or how it was stopped."""
    found = next((c for c in compare_traces(reference.trace, seen.trace) if c.mismatches), None)
    if seen.error and (found is None or len(seen.looks) == common_prefix(seen.looks, reference.looks)):
        return f"step {seen.trace.records[-1].step if seen.trace.records else 0}, {seen.error.split(':')[0]}"
    if found is None:
        return "nowhere"
    return f"{place(found)}: {found.mismatches[0].part}"
