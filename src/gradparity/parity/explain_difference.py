"""The first difference, explained for an engineer: its place, its size, and its likely meaning.

The explanation uses only measurements, never the name of the candidate, so it also works for an unknown loop.
"""

import math

from gradparity.parity.difference_kinds import ABSENT, Kind
from gradparity.parity.likely_cause import cause_of, likely_cause
from gradparity.parity.lockstep import ALL, STOPS, Comparison
from gradparity.parity.mismatches import Mismatch
from gradparity.parity.place_in_training import END, START, Place
from gradparity.parity.state import OWN, Part

VALUES = {
    Part.GRADIENTS: "the gradient of {}",
    Part.MODES: "the flag {}",
    Part.PARAMETERS: "the parameter {}",
    Part.OPTIMIZER: "the optimizer's {}",
    Part.SCALER: "the scaler's {}",
    Part.SCHEDULER: "the scheduler's {}",
    Part.BUFFERS: "the buffer {}",
    Part.RNG: "the random state of {}",
    Part.EXTRA: "the extra state {}",
}
"""The name of a value in a sentence, by its part."""


def explain(found: Comparison, later: Comparison | None = None) -> str:
    """Return up to three lines on the first difference: its place, its size, and its meaning if there is evidence.

    Args:
        found: the first comparison with a mismatch.
        later: the comparison after clipping in the same step, if it has been made.
    """
    first = cause_of(found)
    lines = (
        f"{place_in_words(found.place)}, {mismatch_in_words(first)}.",
        magnitude(first, found),
        likely_cause(found, later).words,
    )
    return "\n".join(line for line in lines if line)


def place_in_words(place: Place) -> str:
    """Return the beginning of a sentence: at which step, microbatch and phase."""
    if place in (START, END):
        return "Before the first step" if place == START else "After the last step"
    microbatch = "" if place.microbatch is None else f", microbatch {place.microbatch}"
    return f"At step {place.step}{microbatch}, phase {place.phase.name.lower()}"


def lowered(sentence: str) -> str:
    """Return a sentence with a small first letter, to stand inside another one."""
    return sentence[:1].lower() + sentence[1:]


def mismatch_in_words(mismatch: Mismatch) -> str:
    """Name the value that differs, and the kind of difference."""
    if mismatch.name == ALL:
        return f"only the {'reference' if mismatch.reference == STOPS else 'candidate'} reaches this phase"
    if mismatch.part == Part.ALIASING:
        sides = _memory(mismatch.reference), _memory(mismatch.candidate)
        return f"{mismatch.name} {sides[0]} in the reference and {sides[1]} in the candidate"
    if mismatch.part == Part.LOSS and mismatch.kind == Kind.BITS and mismatch.reference == mismatch.candidate:
        return f"the {mismatch.name} of {mismatch.reference} differs in its last digits"
    if mismatch.part == Part.LOSS and mismatch.kind == Kind.BITS:
        return f"the {mismatch.name} is {mismatch.reference} in the reference and {mismatch.candidate} in the candidate"
    value = VALUES.get(mismatch.part, "{}").format(mismatch.name)
    if mismatch.figures:
        return f"{value} differs"
    verb = "is" if mismatch.kind in (Kind.PRESENCE, Kind.VALUE) else f"differs in {mismatch.kind}:"
    return f"{value} {verb} {mismatch.reference} in the reference and {mismatch.candidate} in the candidate"


def _memory(words: str) -> str:
    return "has its own memory" if words == OWN else f"shares the {words}" if words != ABSENT else "is absent"


def magnitude(mismatch: Mismatch, found: Comparison) -> str:
    """Return one sentence: how many elements of the tensor differ, and by how much."""
    figures, others = mismatch.figures, len({(m.part, m.name) for m in found.mismatches}) - 1
    also = f" At this phase, {others} more {'value differs' if others == 1 else 'values differ'}." if others else ""
    if not figures:
        return also.strip()  # mismatch_in_words() has given the values
    if figures.elements == 1:
        return f"They are {figures.max_ulp:,} ULP apart (absolute {figures.max_absolute:.2g}).{also}"
    apart = f"{figures.differing:,} of {figures.elements:,} elements are up to {figures.max_ulp:,} ULP apart"
    if not math.isfinite(figures.relative_norm):
        return f"{apart}; some are infinite or NaN.{also}"
    return (
        f"{apart} (absolute {figures.max_absolute:.2g}, relative to its norm {figures.relative_norm:.2g}, "
        f"cosine {figures.cosine:.6f}).{also}"
    )
