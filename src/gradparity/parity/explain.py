"""The first difference, told to a tired engineer: where, how large, and what it looks like.

Only what was measured is used, never which candidate ran: the same words must serve a loop that nobody has seen.
"""

import math
from collections.abc import Sequence

from gradparity.parity.compare import Kind, Mismatch
from gradparity.parity.lockstep import ALL, END, START, STOPS, Comparison
from gradparity.parity.state import OWN, Part
from gradparity.training import Phase

ROUNDING = 1e-4
"""Below this relative norm a difference is taken for rounding: fp32 sums of some thousand terms."""


def explain(found: Comparison) -> str:
    """Up to three lines on the first mismatch of ``found``: where it is, its size, what it looks like."""
    first = found.mismatches[0]
    lines = (f"{where(found)}, {what(first)}.", size(first, found), likeness(found))
    return "\n".join(line for line in lines if line)


def where(found: Comparison) -> str:
    """Step, microbatch and phase, as one would say it."""
    if found.step == START:
        return "Before the first step"
    if found.step == END:
        return "After the last step"
    microbatch = "" if found.microbatch is None else f", microbatch {found.microbatch}"
    return f"At step {found.step}{microbatch}, phase {found.phase.name.lower()}"


def what(mismatch: Mismatch) -> str:
    """Which value differs, and in what."""
    if mismatch.name == ALL:
        return f"only the {'reference' if mismatch.reference == STOPS else 'candidate'} comes to this phase"
    if mismatch.part == Part.ALIASING:
        return f"{mismatch.name} has {mismatch.reference} in the reference, and {mismatch.candidate} in the candidate"
    if mismatch.part == Part.LOSS and mismatch.kind == Kind.BITS:
        return f"the loss is {mismatch.reference} in the reference and {mismatch.candidate} in the candidate"
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
    also = f" So do {others} more values at this phase." if others else ""
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


def likeness(found: Comparison) -> str:
    """What the difference looks like, or nothing where it could be anything."""
    first = found.mismatches[0]
    match first.part, first.kind:
        case Part.ALIASING, Kind.VALUE if first.reference != OWN:
            return (
                "Here it is the reference that is wrong: .backward() may keep two views of one gradient for two "
                "parameters (https://github.com/pytorch/pytorch/issues/34082), and add to both through either."
            )
        case Part.ALIASING, Kind.VALUE:
            return (
                "What accumulation or clipping writes into one of the two in place reaches the other as well. "
                "autograd.grad returns one tensor for parameters that enter as a sum: copy it before it becomes .grad."
            )
        case Part.GRADIENTS, Kind.PRESENCE if first.reference == "None":
            return "None is not zero: weight decay and momentum move a parameter whose gradient is zero."
        case Part.GRADIENTS, Kind.PRESENCE:
            return "A gradient never reached this parameter: it was cut off, or .grad was emptied or not set."
        case Part.GRADIENTS, Kind.STRIDES | Kind.LAYOUT:
            return "Fused optimizers walk parameter and gradient in memory order, and would pair the wrong elements."
        case Part.GRADIENTS, Kind.BITS:
            return _likeness_of_gradients(found)
        case Part.LOSS, Kind.BITS if first.figures and first.figures.relative_norm < ROUNDING:
            return "Equal up to rounding: the same loss, divided or summed in another order, or in another precision."
        case Part.LOSS, _:
            factor = first.figures.norm_ratio if first.figures else first.norm_ratio
            if factor is not None and found.scale > 1 and math.isclose(factor * found.scale, 1, rel_tol=0.01):
                return f"The loss was not multiplied by the scale of {found.scale:g}."
            ratio = f", by a factor of {factor:.4g}" if factor is not None else ""
            return f"The forward itself differs{ratio}: other data, weights, normalizer, precision or dropout mask."
        case Part.OPTIMIZER, Kind.VALUE if first.name.endswith(".lr"):
            return "The schedule was advanced another number of times; after a step that was skipped, it should not be."
        case Part.PARAMETERS, Kind.BITS if found.phase == Phase.FORWARD:
            return "Between two optimizer steps something else has written the parameters."
        case Part.RNG, _:
            return "The candidate has drawn another number of random values."
        case Part.SCALER | Part.SCHEDULER, _:
            return "The gradients agreed up to here: the scaler or scheduler was stepped another number of times."
        case _:
            return ""


def _likeness_of_gradients(found: Comparison) -> str:
    mismatches = [m for m in found.mismatches if m.part == Part.GRADIENTS and m.kind == Kind.BITS]
    figures = [m.figures for m in mismatches if m.figures]
    if figures and all(f.relative_norm < ROUNDING for f in figures):
        return "Equal up to rounding: the same terms, added in another order."
    ratio = common_ratio(mismatches)
    if ratio is None:
        return ""
    if not figures and abs(ratio - 1) < ROUNDING:
        return "All are of the same length: rounding, or another order; keep the tensors (full=True) to see."
    subject = "Every gradient that differs has"
    sentence = f"{subject} the right direction and {ratio:.3g} times the right length."
    if not figures:
        sentence = f"{subject} {ratio:.3g} times the right length."
    if found.phase == Phase.UNSCALED and ratio < 1 and found.scale > 1:
        sentence += (
            f" It looks as if clipping met gradients that were still multiplied by the scale of {found.scale:g}."
        )
    if found.phase == Phase.ACCUMULATED:
        sentence += " The loss was divided by another number, or a gradient was added another number of times."
    if found.phase == Phase.CLIPPED:
        sentence += " They were clipped to another threshold, by another norm, or only in one of the two."
    return sentence


def common_ratio(mismatches: Sequence[Mismatch]) -> float | None:
    """The one factor between all candidates and their references, where there is one within 0.1%.

    Of tensors that are not at hand the lengths are compared, and their direction is not known.
    """
    ratios = [m.figures.norm_ratio if m.figures else m.norm_ratio or math.nan for m in mismatches]
    parallel = all(m.figures is None or m.figures.cosine > 1 - 1e-6 for m in mismatches)
    if not ratios or not parallel or not all(map(math.isfinite, ratios)) or max(ratios) > 1.001 * min(ratios):
        return None
    return ratios[0]
