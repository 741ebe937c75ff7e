"""The first difference, explained for an engineer: its place, its size, and its likely meaning.

The explanation uses only measurements, never the name of the candidate, so it also works for an unknown loop.
"""

import math
from collections.abc import Sequence

from gradparity.parity.compare import ZEROS, Kind, Mismatch
from gradparity.parity.lockstep import ALL, STOPS, Comparison
from gradparity.parity.meaning import NOTHING, Meaning, Said
from gradparity.parity.metrics import Figures
from gradparity.parity.place import END, START, Place
from gradparity.parity.state import OWN, Part
from gradparity.training import Phase

ROUNDING = 1e-4
"""Below this relative norm, a difference may be rounding: fp32 sums of some thousand terms."""

ROUNDING_ULP = 2048
"""Rounding moves half of the elements by less than this. Without this limit, a relative norm of 1e-5 in fp64 would
count as rounding too."""

CAUSES = ("parameters", "modes", "scaler")
"""Parts from which a loss is computed: if one of them differs at a forward, it is the cause of a loss that differs."""


def explain(found: Comparison, later: Comparison | None = None) -> str:
    """Return up to three lines on the first difference: its place, its size, and its meaning if there is evidence.

    Args:
        found: the first comparison with a mismatch.
        later: the comparison after clipping in the same step, if it has been made.
    """
    first = cause_of(found)
    lines = (f"{where(found.place)}, {what(first)}.", size(first, found), likeness(found, later).words)
    return "\n".join(line for line in lines if line)


def cause_of(found: Comparison) -> Mismatch:
    """Return the mismatch that may be the cause of the others at this place."""
    if found.place.phase != Phase.FORWARD:
        return found.mismatches[0]
    return min(found.mismatches, key=_order)


def _order(mismatch: Mismatch) -> int:
    if mismatch.part == Part.SCALER and mismatch.name != "scale":
        return len(CAUSES)  # the loss does not depend on a counter
    return CAUSES.index(mismatch.part) if mismatch.part in CAUSES else len(CAUSES)


def where(place: Place) -> str:
    """Return the beginning of a sentence: at which step, microbatch and phase."""
    if place in (START, END):
        return "Before the first step" if place == START else "After the last step"
    microbatch = "" if place.microbatch is None else f", microbatch {place.microbatch}"
    return f"At step {place.step}{microbatch}, phase {place.phase.name.lower()}"


def lowered(sentence: str) -> str:
    """Return a sentence with a small first letter, to stand inside another one."""
    return sentence[:1].lower() + sentence[1:]


def what(mismatch: Mismatch) -> str:
    """Name the value that differs, and the kind of difference."""
    if mismatch.name == ALL:
        return f"only the {'reference' if mismatch.reference == STOPS else 'candidate'} comes to this phase"
    if mismatch.part == Part.ALIASING:
        return f"{mismatch.name} has {mismatch.reference} in the reference, and {mismatch.candidate} in the candidate"
    if mismatch.part == Part.LOSS and mismatch.kind == Kind.BITS and mismatch.reference == mismatch.candidate:
        return f"the {mismatch.name} of {mismatch.reference} differs in its last digits"
    if mismatch.part == Part.LOSS and mismatch.kind == Kind.BITS:
        return f"the {mismatch.name} is {mismatch.reference} in the reference and {mismatch.candidate} in the candidate"
    subject = {
        Part.GRADIENTS: f"the gradient of {mismatch.name}",
        Part.PARAMETERS: f"the parameter {mismatch.name}",
        Part.OPTIMIZER: f"the optimizer's {mismatch.name}",
    }.get(mismatch.part, f"{mismatch.part} ({mismatch.name})")
    if mismatch.figures:
        return f"{subject} differs in its bits"
    sides = f"the reference has {mismatch.reference}, the candidate {mismatch.candidate}"
    return f"{subject} differs in {mismatch.kind}: {sides}"


def size(mismatch: Mismatch, found: Comparison) -> str:
    """Return one sentence: how many elements of the tensor differ, and by how much."""
    figures, others = mismatch.figures, len({(m.part, m.name) for m in found.mismatches}) - 1
    also = f" {'So does 1 more value' if others == 1 else f'So do {others} more values'} at this phase."
    also = also if others else ""
    if not figures:
        return also.strip()  # what() has given the values
    if figures.elements == 1:
        return f"They are {figures.max_ulp:,} ULP apart (absolute {figures.max_absolute:.2g}).{also}"
    apart = f"{figures.differing:,} of {figures.elements:,} elements are up to {figures.max_ulp:,} ULP apart"
    if not math.isfinite(figures.relative_norm):
        return f"{apart}, infinite or not a number some of them.{also}"
    return (
        f"{apart} (absolute {figures.max_absolute:.2g}, relative to its norm {figures.relative_norm:.2g}, "
        f"cosine {figures.cosine:.6f}).{also}"
    )


def likeness(found: Comparison, later: Comparison | None = None) -> Said:
    """Return the meaning of the difference, as far as the comparison shows it; for traces, it is in ``found.said``.

    Args:
        found: the first comparison with a mismatch.
        later: the comparison after clipping in the same step, if it has been made.
    """
    if found.said is not None:
        return found.said
    first = cause_of(found)
    match first.part, first.kind:
        case Part.ALIASING, Kind.VALUE:
            return of_memory(first)
        case Part.GRADIENTS, Kind.PRESENCE:
            return of_presence(first)
        case Part.GRADIENTS, Kind.STRIDES:
            return MEMORY_ORDER
        case Part.GRADIENTS, Kind.BITS:
            return _of_gradients(found, later)
        case Part.LOSS, Kind.BITS:
            return _of_loss(found, first)
        case Part.RNG, _:
            return Said(Meaning.RANDOM, "The random stream is in a different state from here on.")
        case _:
            return NOTHING


MEMORY_ORDER = Said(
    Meaning.MEMORY_ORDER,
    "A fused optimizer walks parameter and gradient in memory order: where their strides differ, it pairs the wrong "
    "elements.",
)


def of_memory(first: Mismatch) -> Said:
    """Explain two gradients that share memory in one of the two loops."""
    sharing = "What accumulation or clipping writes into one of the two in place reaches the other as well."
    if not all(side == OWN or side.endswith(".grad") for side in (first.reference, first.candidate)):
        return NOTHING
    if first.reference == OWN:
        copy = "autograd.grad returns one tensor for parameters that enter as a sum: copy it before it becomes .grad."
        return Said(Meaning.SHARED, f"{sharing} {copy}")
    if first.candidate == OWN:
        known = ".backward() may leave that too: https://github.com/pytorch/pytorch/issues/34082."
        return Said(Meaning.SHARED_IN_REFERENCE, f"Here it is the reference that shares memory. {sharing} {known}")
    return NOTHING


def of_presence(first: Mismatch) -> Said:
    """Explain a gradient that only one of the two loops has."""
    if first.candidate == "None":
        cut = "it was cut off, or .grad was emptied or not set."
        return Said(Meaning.NO_GRADIENT, f"The gradient never reached this parameter: {cut}")
    if first.reference == "None" and first.candidate.startswith(ZEROS):
        moves = "weight decay and momentum move a parameter whose gradient is zero."
        return Said(Meaning.ZEROS, f"None is not zero: {moves}")
    return NOTHING


def rounded(figures: Figures) -> bool:
    """Return whether a difference is no larger than rounding can make it; elements that are not finite are left out."""
    return 0 < figures.relative_norm < ROUNDING and figures.median_ulp <= ROUNDING_ULP


ROUNDED = Said(Meaning.ROUNDING, "Equal up to rounding: no larger than a different order of the same sums can make it.")


def _of_gradients(found: Comparison, later: Comparison | None) -> Said:
    mismatches = gradients_of(found)
    # Gradients left over from the previous step have no loss scale: beside scaled ones they are as small as rounding.
    hidden = _first_backward(found.place) and found.place.step > 0 and found.scale > 1
    said = of_size(mismatches)
    if said.meaning != Meaning.ROUNDING or (alone(found) and not hidden):
        ratio, after = common_ratio(mismatches), common_ratio(gradients_of(later)) if later else None
        if found.place.phase == Phase.UNSCALED and ratio and after and _scaled(ratio, after, found.scale):
            return Said(Meaning.CLIPPED_SCALED, f"{said.words} {clipped_scaled(found.scale)}")
        return said
    return NOTHING


def _first_backward(place: Place) -> bool:
    return (place.phase, place.microbatch) == (Phase.ACCUMULATED, 0)


def _scaled(ratio: float, after: float, scale: float) -> bool:
    """Return whether scaled gradients were clipped, so that after unscaling their norm is 1/scale of the threshold."""
    exactly = math.isclose(after * scale, 1, rel_tol=1e-3)
    return scale > 1 and exactly and ratio < after and not math.isclose(ratio, after, rel_tol=1e-3)


def clipped_scaled(scale: float) -> str:
    """Return the sentence for gradients that were clipped while still scaled."""
    return f"It looks as if clipping met gradients that were still multiplied by the scale of {scale:g}."


def of_size(mismatches: Sequence[Mismatch]) -> Said:
    """Explain gradients that differ, from their sizes and directions."""
    figures = [m.figures for m in mismatches if m.figures]
    if not mismatches:
        return NOTHING
    if len(figures) == len(mismatches) and all(map(rounded, figures)):
        return ROUNDED
    if len(figures) == len(mismatches) and all(f.cosine < -1 + 1e-6 and _same_length(f) for f in figures):
        return Said(Meaning.SIGN, "Every gradient that differs has the opposite sign.")
    ratio = common_ratio(mismatches)
    if ratio is None:
        return NOTHING
    if not figures and abs(ratio - 1) < ROUNDING:
        return Said(Meaning.NOTHING, "Their norms agree to within 0.01%; record with full=True to see the difference.")
    if short(ratio) == "1":
        return NOTHING
    subject = "Every gradient that differs has"
    direction = "the right direction and " if len(figures) == len(mismatches) else ""
    return Said(Meaning.LENGTH, f"{subject} {direction}{short(ratio)} times the right length.")


def _same_length(figures: Figures) -> bool:
    return math.isclose(figures.norm_ratio, 1, rel_tol=1e-5)


def alone(found: Comparison) -> bool:
    """Return whether all values that differ are of one part; if a buffer differs too, it may be the cause."""
    return len({mismatch.part for mismatch in found.mismatches}) == 1


def _of_loss(found: Comparison, loss: Mismatch) -> Said:
    if loss.figures and rounded(loss.figures) and alone(found):
        return ROUNDED
    return of_factor(factor_of(loss), same_state(found))


def factor_of(loss: Mismatch) -> float | None:
    """Return the candidate's loss over the reference's, with its sign if that is known."""
    if loss.figures and loss.figures.elements == 1:
        return math.copysign(loss.figures.norm_ratio, loss.figures.cosine)
    return loss.norm_ratio


def of_factor(factor: float | None, same: str) -> Said:
    """Explain a loss that is ``factor`` times the reference's; ``same`` ends the sentence, see :func:`same_state`."""
    if factor is not None and math.isclose(factor, -1, rel_tol=1e-6):
        return Said(Meaning.SIGN, f"The loss has the opposite sign{same}.")
    if factor is None or not math.isfinite(factor) or f"{factor:.6g}" == "1":
        return Said(Meaning.LOSS, f"The loss differs{same}.") if same else NOTHING
    return Said(Meaning.LOSS, f"The loss is {short(factor)} times the reference's{same}.")


def short(factor: float) -> str:
    """Return a factor with three digits, or with six if it is large or close to 1.

    >>> short(1 / 3), short(1.0001234), short(65536)
    ('0.333', '1.00012', '65536')
    """
    return f"{factor:.3g}" if abs(factor) < 1000 and f"{factor:.3g}" != "1" else f"{factor:.6g}"


def same_state(found: Comparison, random: bool | None = None) -> str:
    """Return the end of a sentence: which inputs of the loss have the same bits at this place, and which differ.

    Args:
        found: a comparison at a forward.
        random: whether the random state is the same, if ``found`` does not show it.
    """
    differing = {mismatch.part for mismatch in found.mismatches}
    parts = {Part.PARAMETERS: "parameters", Part.BUFFERS: "buffers", Part.RNG: "random state"}
    sides: dict[str, bool] = {w: part not in differing for part, w in parts.items() if found.checked.get(part)}
    if random is not None:
        sides[parts[Part.RNG]] = random
    same, others = ([words for words, equal in sides.items() if equal is wanted] for wanted in (True, False))
    end = f", from the same {listed(same)}" if same else ""
    return f"{end}; the {listed(others)} differ{'s' if others == ['random state'] else ''} too" if others else end


def listed(words: Sequence[str]) -> str:
    """Join words with commas and "and".

    >>> listed(["one", "two", "three"])
    'one, two and three'
    """
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def gradients_of(found: Comparison) -> list[Mismatch]:
    """Return the gradients whose bits differ."""
    return [m for m in found.mismatches if m.part == Part.GRADIENTS and m.kind == Kind.BITS]


def common_ratio(mismatches: Sequence[Mismatch]) -> float | None:
    """Return the common factor between all candidates and their references, if there is one within 0.1%.

    If the tensors are not available, only their norms are compared, and their direction is not known.
    """
    ratios = [m.figures.norm_ratio if m.figures else m.norm_ratio or math.nan for m in mismatches]
    parallel = all(m.figures is None or m.figures.cosine > 1 - 1e-6 for m in mismatches)
    if not ratios or not parallel or not all(map(math.isfinite, ratios)) or max(ratios) > 1.001 * min(ratios):
        return None
    return ratios[0]
