"""The score of a fault: whether it diverges, is named by the lookup, and first shows at its documented place."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial

from gradparity.check.lookup.fault_lookup import Finding, Match, first_shown, look_up
from gradparity.check.lookup.seen_runs import SeenRun
from gradparity.check.running.observe import Observation, ObservedLoop, observe_reference
from gradparity.faults import FAULTS, Fault
from gradparity.faults.fault import Shown

PRECISION = "fp16"  # only there do the scale and the overflows show
_PRECISIONS = (PRECISION, "bf16", "fp32")
"""The order of trial for a fault that rounding can hide: if it does not show in one precision, the next is tried."""


@dataclass(frozen=True)
class Score:
    """The score of one fault."""

    fault: Fault
    diverged: bool
    named: bool
    """True if the lookup answers with this fault, alone or with those that are the same here."""
    same: tuple[str, ...]
    """Faults that behave bit for bit like this one, so that no check under this scenario can separate them."""
    first: Shown | None
    """The first difference, or the exception that comes before it; ``None`` if there is none."""

    @property
    def placed(self) -> bool:
        """Return whether the fault first shows at its documented place, or not before it if rounding can hide it."""
        return self.diverged and self.fault.may_show(self.first)


def score_of(fault: Fault, found: Finding, *, diverged: bool, first: Shown | None) -> Score:
    """Return the score of ``fault``, for which the lookup answered ``found``."""
    same = tuple(other.name for other in found.faults if other != fault)
    return Score(fault, diverged, found.match == Match.FAULT and fault in found.faults, same, first)


def score(fault: Fault) -> Score:
    """Observe ``fault`` and look it up."""
    tried = _PRECISIONS if fault.hidden_by_rounding else ()
    precision = next(
        (each for each in tried if observe_fault(fault.name, each) != observe_fault(None, each)), PRECISION
    )
    loop, reference = observe_fault(fault.name, precision), observe_fault(None, precision)
    found = look_up(loop, reference, partial(observe_faults, precision=precision), memory=memory_of(precision))
    return score_of(fault, found, diverged=loop != reference, first=first_shown(reference, loop))


@cache
def memory_of(precision: str) -> dict[str, SeenRun]:
    """Return all runs that lookups in ``precision`` have made in this process, for the next one."""
    return {}


@cache
def observe_fault(name: str | None, precision: str = PRECISION) -> ObservedLoop:
    """Observe the reference with a fault, or without, to its end. The result is cached."""
    return observe_reference([FAULTS[name]] if name else [], precision)


def observe_faults(
    faults: Iterable[Fault], expected: Iterable[Observation], precision: str = PRECISION
) -> ObservedLoop:
    """Observe the reference with ``faults``, as a lookup asks for it; single faults of the dictionary are cached."""
    several = list(faults)
    if len(several) == 1 and several[0].name in FAULTS:
        return observe_fault(several[0].name, precision)
    return observe_reference(several, precision, list(expected))
