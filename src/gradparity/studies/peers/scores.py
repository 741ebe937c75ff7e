"""Every fault: what gradparity finds, and what other libraries say of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec

from gradparity.check.lookup import Answer, first_shown, look_up
from gradparity.check.observe import Look, Observed, observe_with
from gradparity.faults import FAULTS, Fault, Kind
from gradparity.studies.peers.answers import Answers

PRECISION = "fp16"  # the scale, and the overflows, show only there
PRECISIONS = (PRECISION, "bf16", "fp32")
"""Where rounding hides a fault in one, the next is asked."""

PEERS = {"TrainParity": "trainparity", "pytest-torch": "pytest_torch"}
"""Other libraries, by name, and what they are imported as."""


@dataclass(frozen=True)
class Score:
    """What came of one fault."""

    fault: Fault
    diverged: bool
    named: bool
    """Whether the lookup answers with it, alone or with those that are the same here."""
    same: tuple[str, ...]
    """Faults that behave bit for bit as it does, so that no check under this scenario can tell them apart."""
    first: str
    """Where it was first seen."""
    peers: Mapping[str, Answers]

    @property
    def placed(self) -> bool:
        """Whether it first shows where the dictionary says, or not before if rounding can hide it."""
        return self.diverged and self.fault.may_show(self.first)


@cache
def seen(name: str | None, precision: str = PRECISION) -> Observed:
    """The reference with a fault, or without, to its end; observed once."""
    return observe_with([FAULTS[name]] if name else [], precision)


def see(faults: Iterable[Fault], expected: Iterable[Look], precision: str = PRECISION) -> Observed:
    """As a lookup asks for it; single faults of the dictionary have been seen already."""
    several = list(faults)
    if len(several) == 1 and several[0].name in FAULTS:
        return seen(several[0].name, precision)
    return observe_with(several, precision, list(expected))


def score(fault: Fault, peers: Mapping[str, Callable[[Fault | None], Answers]]) -> Score:
    """Hold gradparity, and its peers, against ``fault``."""
    asked = PRECISIONS if fault.hidden_by_rounding else ()
    precision = next((each for each in asked if seen(fault.name, each) != seen(None, each)), PRECISION)
    loop, reference = seen(fault.name, precision), seen(None, precision)
    found = look_up(loop, reference, partial(see, precision=precision))
    return Score(
        fault,
        diverged=loop != reference,
        named=found.answer == Answer.FAULT and fault in found.faults,
        same=tuple(other.name for other in found.faults if other != fault),
        first=first_shown(reference, loop),
        peers={name: ask(fault) for name, ask in peers.items()},
    )


def installed() -> dict[str, Callable[[Fault | None], Answers]]:
    """What asks each of the peers that are installed here."""
    return {
        name: import_module(f"gradparity.studies.peers.with_{module}").answers
        for name, module in PEERS.items()
        if find_spec(module)
    }


def harmless(fault: Fault) -> bool:
    """Whether a fault makes the updates that were meant, but for rounding, so that nobody need be told."""
    return fault.kind == Kind.ROUNDING
