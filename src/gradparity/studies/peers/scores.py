"""Scores of the faults: for each, the results of gradparity and of other libraries."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec

from gradparity.check.lookup import Match, first_shown, look_up
from gradparity.check.observe import Observation, ObservedLoop, observe_reference
from gradparity.faults import FAULTS, Fault, FaultKind
from gradparity.faults.fault import Shown
from gradparity.studies.peers.answers import Answers

PRECISION = "fp16"  # only there do the scale and the overflows show
PRECISIONS = (PRECISION, "bf16", "fp32")
"""The order of trial for a fault that rounding can hide: if it does not show in one precision, the next is tried."""

PEERS = {"TrainParity": "trainparity", "pytest-torch": "pytest_torch"}
"""Other libraries, by name, with the names of their modules."""


@dataclass(frozen=True)
class Score:
    """The results for one fault."""

    fault: Fault
    diverged: bool
    named: bool
    """True if the lookup answers with this fault, alone or with those that are the same here."""
    same: tuple[str, ...]
    """Faults that behave bit for bit like this one, so that no check under this scenario can separate them."""
    first: Shown | None
    """The first difference, or the exception that comes before it; ``None`` if there is none."""
    peers: Mapping[str, Answers]

    @property
    def placed(self) -> bool:
        """Return whether the fault first shows at its documented place, or not before it if rounding can hide it."""
        return self.diverged and self.fault.may_show(self.first)


@cache
def seen(name: str | None, precision: str = PRECISION) -> ObservedLoop:
    """Observe the reference with a fault, or without, to its end. The result is cached."""
    return observe_reference([FAULTS[name]] if name else [], precision)


def see(faults: Iterable[Fault], expected: Iterable[Observation], precision: str = PRECISION) -> ObservedLoop:
    """Observe the reference with ``faults``, as a lookup asks for it; single faults of the dictionary are cached."""
    several = list(faults)
    if len(several) == 1 and several[0].name in FAULTS:
        return seen(several[0].name, precision)
    return observe_reference(several, precision, list(expected))


def score(fault: Fault, peers: Mapping[str, Callable[[Fault | None], Answers]]) -> Score:
    """Run gradparity and its ``peers`` on ``fault``."""
    asked = PRECISIONS if fault.hidden_by_rounding else ()
    precision = next((each for each in asked if seen(fault.name, each) != seen(None, each)), PRECISION)
    loop, reference = seen(fault.name, precision), seen(None, precision)
    found = look_up(loop, reference, partial(see, precision=precision))
    return Score(
        fault,
        diverged=loop != reference,
        named=found.match == Match.FAULT and fault in found.faults,
        same=tuple(other.name for other in found.faults if other != fault),
        first=first_shown(reference, loop),
        peers={name: ask(fault) for name, ask in peers.items()},
    )


def installed() -> dict[str, Callable[[Fault | None], Answers]]:
    """Return, for each peer installed here, the function that runs its checks."""
    return {
        name: import_module(f"gradparity.studies.peers.with_{module}").answers
        for name, module in PEERS.items()
        if find_spec(module)
    }


def harmless(fault: Fault) -> bool:
    """Return whether a fault changes updates by rounding only, so that it need not be reported."""
    return fault.kind == FaultKind.ROUNDING
