"""The pairs of faults that may behave as a loop does, the likely ones first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from gradparity.check.loop_end import EndKind
from gradparity.check.observe import ObservedLoop
from gradparity.check.seen_runs import Agreement, hash_of
from gradparity.faults import Fault, FaultKind
from gradparity.parity.place_in_training import END, Place


@dataclass(frozen=True)
class Candidate:
    """A fault, and its agreement with the loop."""

    fault: Fault
    agreement: Agreement

    @property
    def shared(self) -> int:
        """Return the number of observations before the fault and the loop diverge."""
        return self.agreement.shared


def likely_pairs(
    loop: ObservedLoop, reference: ObservedLoop, base: int, candidates: Sequence[Candidate]
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
    loop: ObservedLoop, reference: ObservedLoop, base: int, candidates: Sequence[Candidate]
) -> Iterator[tuple[Fault, Fault]]:
    """Yield pairs of faults whose effects were seen where the pair needs them, the likely ones first."""
    leading = sorted((x for x in candidates if x.shared > base), key=lambda x: -x.shared)
    visible = visible_at(candidates, reference, base)
    here = [x.fault for x in visible]
    later = [x.fault for x in not_before(candidates, base) if x not in visible]
    for x in leading:
        where = loop.observations[x.shared].place if x.shared < len(loop.observations) else END
        yield from ((x.fault, y.fault) for y in candidates if y.fault.may_show(where))
    yield from ((x.fault, fault) for x in leading[:1] for fault in later)
    yield from combinations(here, 2)
    for x in leading[1:]:
        yield from ((x.fault, fault) for fault in later)
    for x in leading:
        yield from ((x.fault, fault) for fault in here)
    if not loop.end.finished or _places(loop) != _places(reference):
        for fault in here:  # it ends the loop or leaves out an event, so that a later fault may show here
            yield from ((fault, other) for other in later)


def not_before(candidates: Sequence[Candidate], base: int) -> list[Candidate]:
    """Return the faults that do not show before the loop diverges from the reference, where the loop has none."""
    return [x for x in candidates if x.shared >= base]


def _places(loop: ObservedLoop) -> list[Place]:
    return [one.place for one in loop.observations]


def visible_at(candidates: Sequence[Candidate], reference: ObservedLoop, base: int) -> list[Candidate]:
    """Return the faults that diverge from the reference where the loop does, in whatever way."""
    there = next((hash_of(one) for one in reference.observations[base : base + 1]), None)
    return [x for x in candidates if x.shared == base and x.agreement.parted != there]
