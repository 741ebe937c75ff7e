"""Search for the two or more faults with which the reference behaves as a loop does, the likely sets first."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

from gradparity.check.lookup.likely_pairs import Candidate, LikelyPairs
from gradparity.check.lookup.tries import Faults, Tries
from gradparity.faults import FaultKind

_MOST_FAULTS = 4
"""Most faults that are assumed in one loop."""

_MOST_TIES = 4
"""Most sets of faults that are extended, if several behave like the loop for equally long."""

_MOST_AFTER = 150
"""Most pairs that are tried for a loop that begins like a fault, after that fault was tried with all others."""


@dataclass(frozen=True)
class Several:
    """The faults that behave like a loop for the most observations."""

    faults: Faults = ()
    """Empty if none of them shows what the loop shows first."""
    shared: int = 0
    """The number of observations until they diverge from the loop."""
    whole: bool = False
    """True if they never do."""
    pairs: int = 0
    """The number of pairs that were tried."""


def several_faults(
    tries: Tries, pairs: LikelyPairs, most: int, progress: Callable[[int], None] = lambda done: None
) -> Several:
    """Return the faults that together behave like the loop for longest.

    Args:
        tries: the comparisons of the loop.
        pairs: the pairs to try.
        most: the number of pairs to try.
        progress: called with the number of sets tried so far.
    """
    tried = done = 0

    def count_try() -> None:
        nonlocal done
        done += 1
        progress(done)

    def whole(some: Iterable[Faults], most: int) -> Faults:
        nonlocal tried
        with closing(tries.each(islice(some, most))) as results:
            for pair, agreement in results:
                tried += 1
                count_try()
                if agreement.same:
                    tries.confirm(pair)
                    return pair
        return ()

    if pair := whole(pairs.documented(), most):
        return Several(pair, whole=True, pairs=tried)
    closest = _add_one_by_one(tries, pairs.later, count_try) if pairs.leading else Several()
    if not closest.whole and (pair := whole(pairs.others(), _MOST_AFTER if pairs.leading else most)):
        return Several(pair, whole=True, pairs=tried)
    return replace(closest, pairs=tried)


def _add_one_by_one(tries: Tries, candidates: Sequence[Candidate], count_try: Callable[[], None]) -> Several:
    """Add one more of the ``candidates``, again and again, to those that match the loop for longest.

    Several sets are extended if they match for equally long: two faults may be alike until a partial window comes.
    Faults that are documented to show where a set diverges from the loop are added first, and if the set then matches
    for longer, no others.
    """
    loop = tries.loop
    shared = max(x.shared for x in candidates)
    furthest: list[Faults] = [(x.fault,) for x in candidates if x.shared == shared]
    others = [x.fault for x in candidates if x.fault.kind != FaultKind.ROUNDING]
    while len(furthest[0]) < _MOST_FAULTS and shared < len(loop.observations):
        where = loop.observations[shared].place
        longest, further = shared, list[Faults]()
        for shows in (True, False):
            if further:
                break
            group = [fault for fault in others if fault.may_show(where) == shows]
            some = furthest[:_MOST_TIES] if shows else furthest[:1]
            sets = ((*faults, other) for faults in some for other in group if other not in faults)
            once = dict[frozenset[str], Faults]()
            for faults in sets:
                once.setdefault(frozenset(fault.name for fault in faults), faults)
            with closing(tries.each(once.values())) as results:
                for faults, agreement in results:
                    count_try()
                    if agreement.same:
                        tries.confirm(faults)
                        return Several(faults, len(loop.observations), whole=True)
                    if agreement.shared > longest:
                        longest, further = agreement.shared, []
                    if agreement.shared == longest > shared:
                        further.append(faults)
        if not further:
            break
        furthest, shared = further, longest
    return Several(furthest[0], shared)
