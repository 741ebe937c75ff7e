"""The first difference, told to a tired engineer: where, how large, and what it looks like.

Only what was measured is used, never which candidate ran: the same words must serve a loop that nobody has seen.
"""

import math
from collections.abc import Sequence

from gradparity.parity.compare import ZEROS, Kind, Mismatch
from gradparity.parity.lockstep import ALL, END, START, STOPS, Comparison
from gradparity.parity.meaning import NOTHING, Meaning, Said
from gradparity.parity.metrics import Figures
from gradparity.parity.state import OWN, Part
from gradparity.training import Phase

ROUNDING = 1e-4
"""Below this relative norm a difference may be rounding: fp32 sums of some thousand terms."""

ROUNDING_ULP = 2048
"""Rounding moves half of the elements by less. Without it a difference of 1e-5 would be called rounding in fp64 too."""

CAUSES = ("parameters", "modes", "scaler")
"""Parts that a loss is computed from: where they differ at a forward, the loss that differs too is their effect."""


def explain(found: Comparison, later: Comparison | None = None) -> str:
    """Up to three lines on the first difference: its place, its size, and the meaning where there is evidence for one.

    Args:
        found: the first comparison with a mismatch.
        later: of the same step, after clipping, if it has been made.
    """
    first = cause_of(found)
    lines = (f"{where(found)}, {what(first)}.", size(first, found), likeness(found, later).words)
    return "\n".join(line for line in lines if line)


def cause_of(found: Comparison) -> Mismatch:
    """Return the mismatch that the others at this place may follow from."""
    if found.phase != Phase.FORWARD:
        return found.mismatches[0]
    return min(found.mismatches, key=_order)


def _order(mismatch: Mismatch) -> int:
    if mismatch.part == Part.SCALER and mismatch.name != "scale":
        return len(CAUSES)  # a counter enters no loss
    return CAUSES.index(mismatch.part) if mismatch.part in CAUSES else len(CAUSES)


def where(found: Comparison) -> str:
    """Step, microbatch and phase, as one would say it."""
    if found.step == START:
        return "Before the first step"
    if found.step == END:
        return "After the last step"
    microbatch = "" if found.microbatch is None else f", microbatch {found.microbatch}"
    return f"At step {found.step}{microbatch}, phase {found.phase.name.lower()}"


def what(mismatch: Mismatch) -> str:
    """Name the value that differs, and in what."""
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
    """How much of the tensor differs, and how far."""
    figures, others = mismatch.figures, len({(m.part, m.name) for m in found.mismatches}) - 1
    also = f" {'So does 1 more value' if others == 1 else f'So do {others} more values'} at this phase."
    also = also if others else ""
    if not figures:
        return also.strip()  # how large it is was said with what differs
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
    """Return what the difference means, as far as the comparison shows it. Traces show more, and have said it already.

    Args:
        found: the first comparison with a mismatch.
        later: of the same step, after clipping, if it has been made.
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
    """Explain two gradients that lie in the same memory in one of the two loops."""
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
    """Explain a gradient that only one of the two has."""
    if first.candidate == "None":
        cut = "it was cut off, or .grad was emptied or not set."
        return Said(Meaning.NO_GRADIENT, f"The gradient never reached this parameter: {cut}")
    if first.reference == "None" and first.candidate.startswith(ZEROS):
        moves = "weight decay and momentum move a parameter whose gradient is zero."
        return Said(Meaning.ZEROS, f"None is not zero: {moves}")
    return NOTHING


def rounded(figures: Figures) -> bool:
    """Whether a difference is no larger than rounding can make it; figures pass over what is not finite."""
    return 0 < figures.relative_norm < ROUNDING and figures.median_ulp <= ROUNDING_ULP


ROUNDED = Said(Meaning.ROUNDING, "Equal up to rounding: no larger than a different order of the same sums can make it.")


def _of_gradients(found: Comparison, later: Comparison | None) -> Said:
    mismatches = gradients_of(found)
    # Beside scaled gradients those that were left over from the step before are as small as rounding.
    hidden = found.phase == Phase.ACCUMULATED and found.microbatch == 0 and found.step > 0 and found.scale > 1
    said = of_size(mismatches)
    if said.meaning != Meaning.ROUNDING or (alone(found) and not hidden):
        ratio, after = common_ratio(mismatches), common_ratio(gradients_of(later)) if later else None
        if found.phase == Phase.UNSCALED and ratio and after and _scaled(ratio, after, found.scale):
            return Said(Meaning.CLIPPED_SCALED, f"{said.words} {clipped_scaled(found.scale)}")
        return said
    return NOTHING


def _scaled(ratio: float, after: float, scale: float) -> bool:
    """Whether clipping met scaled gradients: then it took all to 1/scale of the threshold."""
    exactly = math.isclose(after * scale, 1, rel_tol=1e-3)
    return scale > 1 and exactly and ratio < after and not math.isclose(ratio, after, rel_tol=1e-3)


def clipped_scaled(scale: float) -> str:
    """The words for it."""
    return f"It looks as if clipping met gradients that were still multiplied by the scale of {scale:g}."


def of_size(mismatches: Sequence[Mismatch]) -> Said:
    """Explain gradients that differ by their size and direction alone."""
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
    """Whether the values that differ are all of one part: a loss that differs with a buffer may follow from it."""
    return len({mismatch.part for mismatch in found.mismatches}) == 1


def _of_loss(found: Comparison, loss: Mismatch) -> Said:
    if loss.figures and rounded(loss.figures) and alone(found):
        return ROUNDED
    return of_factor(factor_of(loss), same_state(found))


def factor_of(loss: Mismatch) -> float | None:
    """Return the candidate's loss over the reference's, with its sign where that is known."""
    if loss.figures and loss.figures.elements == 1:
        return math.copysign(loss.figures.norm_ratio, loss.figures.cosine)
    return loss.norm_ratio


def of_factor(factor: float | None, same: str) -> Said:
    """Explain a loss that is ``factor`` times the reference's, with what is the same for both."""
    if factor is not None and math.isclose(factor, -1, rel_tol=1e-6):
        return Said(Meaning.SIGN, f"The loss has the opposite sign{same}.")
    if factor is None or not math.isfinite(factor) or f"{factor:.6g}" == "1":
        return Said(Meaning.LOSS, f"The loss differs{same}.") if same else NOTHING
    return Said(Meaning.LOSS, f"The loss is {short(factor)} times the reference's{same}.")


def short(factor: float) -> str:
    """A factor with three digits, or with six where it is large, or close to 1.

    >>> short(1 / 3), short(1.0001234), short(65536)
    ('0.333', '1.00012', '65536')
    """
    return f"{factor:.3g}" if abs(factor) < 1000 and f"{factor:.3g}" != "1" else f"{factor:.6g}"


def same_state(found: Comparison, random: bool | None = None) -> str:
    """What a loss is computed from and is the same bits at this place, and what is not, as the end of a sentence.

    Args:
        found: a comparison at a forward.
        random: whether the random state is the same, where ``found`` does not tell.
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
    """Words in a row.

    >>> listed(["one", "two", "three"])
    'one, two and three'
    """
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def gradients_of(found: Comparison) -> list[Mismatch]:
    """The gradients whose bits differ."""
    return [m for m in found.mismatches if m.part == Part.GRADIENTS and m.kind == Kind.BITS]


def common_ratio(mismatches: Sequence[Mismatch]) -> float | None:
    """The one factor between all candidates and their references, where there is one within 0.1%.

    Of tensors that are not at hand the lengths are compared, and their direction is not known.
    """
    ratios = [m.figures.norm_ratio if m.figures else m.norm_ratio or math.nan for m in mismatches]
    parallel = all(m.figures is None or m.figures.cosine > 1 - 1e-6 for m in mismatches)
    if not ratios or not parallel or not all(map(math.isfinite, ratios)) or max(ratios) > 1.001 * min(ratios):
        return None
    return ratios[0]
