"""The pairs of faults that may behave as a loop does, the likely ones first."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

from gradparity.check.lookup.effects import effect_of, may_be_both, may_hold
from gradparity.check.lookup.seen_runs import Agreement, hash_of
from gradparity.check.running.loop_end import EndKind
from gradparity.check.running.observe import ObservedLoop
from gradparity.faults import Fault, FaultKind
from gradparity.parity.place_in_training import END, Place

_FEW = 150
"""The number of pairs that show where the loop diverges which are tried even if their effects are not the loop's."""


@dataclass(frozen=True)
class Candidate:
    """A fault, and its agreement with the loop."""

    fault: Fault
    agreement: Agreement
    effect: bytes | None = None
    """Its effect where it first shows, from :mod:`gradparity.check.lookup.effects`; ``None`` if it does something else
    there."""

    @property
    def shared(self) -> int:
        """Return the number of observations before the fault and the loop diverge."""
        return self.agreement.shared


Pair: TypeAlias = tuple[Candidate, Candidate]


class LikelyPairs:
    """The pairs that may behave as a loop does, each at most once.

    One of the two must show where the loop diverges from the reference. If it behaves like the loop there, the other
    one shows where the loop diverges from the first. If not, both show there at once, and what the loop has there is
    the effect of both. A loop that raised an exception has a fault that raises.

    Args:
        loop: the loop as it was observed.
        reference: the reference as it was observed.
        base: the number of observations that they share.
        candidates: all known faults.
    """

    def __init__(self, loop: ObservedLoop, reference: ObservedLoop, base: int, candidates: Sequence[Candidate]) -> None:
        self.loop, self.candidates = loop, candidates
        self.leading = sorted((x for x in candidates if x.shared > base), key=lambda x: -x.shared)
        """The faults that behave like the loop where it diverges from the reference, the longest agreement first."""
        self.here = visible_at(candidates, reference, base)
        self.later = [x for x in not_before(candidates, base) if x not in self.here]
        """The faults that do not show up to there, or behave like the loop there."""
        ours, theirs = loop.observations[base : base + 1], reference.observations[base : base + 1]
        self.effect = effect_of(ours[0], theirs[0]) if ours and theirs else None
        self._leaves_out = not loop.end.finished or _places(loop) != _places(reference)
        self._yielded = set[frozenset[str]]()

    def documented(self) -> Iterator[tuple[Fault, Fault]]:
        """Yield each fault that behaves like the loop up to some place, with each that is documented to show there."""
        for x in self.leading:
            where = self.loop.observations[x.shared].place if x.shared < len(self.loop.observations) else END
            yield from self._possible((x, y) for y in self.candidates if y.fault.may_show(where))

    def others(self) -> Iterator[tuple[Fault, Fault]]:
        """Yield all other pairs."""
        yield from self._possible((x, y) for x in self.leading for y in self.here if self._may_be(x, y))
        yield from self._possible((x, y) for x in self.leading for y in self.later)
        fitting, others = list[Pair](), list[Pair]()
        for pair in combinations(self.here, 2):
            (fitting if self._may_be(*pair) else others).append(pair)
        yield from self._possible(fitting)
        if self._leaves_out:  # a fault here ends the loop or leaves out an event, so that a later one may show here
            yield from self._possible((x, y) for x in self.here if self._may_hold(x) for y in self.later)
        yield from self._possible(others[: max(0, _FEW - len(fitting))])  # a few have another effect together

    def _may_be(self, one: Candidate, other: Candidate) -> bool:
        return may_be_both(self.effect, one.effect, other.effect)

    def _may_hold(self, x: Candidate) -> bool:
        return may_hold(self.effect, x.effect)

    def _possible(self, pairs: Iterable[Pair]) -> Iterator[tuple[Fault, Fault]]:
        """Yield those of ``pairs`` that are new, and raise if the loop does."""
        for x, y in pairs:
            key = frozenset((x.fault.name, y.fault.name))
            raises = FaultKind.RAISES in (x.fault.kind, y.fault.kind)
            possible = raises != self.loop.end.finished and self.loop.end.kind != EndKind.ENDLESS
            if possible and len(key) == 2 and key not in self._yielded:
                self._yielded.add(key)
                yield x.fault, y.fault


def not_before(candidates: Sequence[Candidate], base: int) -> list[Candidate]:
    """Return the faults that do not show before the loop diverges from the reference, where the loop has none."""
    return [x for x in candidates if x.shared >= base]


def _places(loop: ObservedLoop) -> list[Place]:
    return [one.place for one in loop.observations]


def visible_at(candidates: Sequence[Candidate], reference: ObservedLoop, base: int) -> list[Candidate]:
    """Return the faults that diverge from the reference where the loop does, in whatever way."""
    there = next((hash_of(one) for one in reference.observations[base : base + 1]), None)
    return [x for x in candidates if x.shared == base and x.agreement.differing != there]
