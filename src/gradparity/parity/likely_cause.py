"""The likely cause of a first difference, from measurements alone: never from the name of the candidate."""

import math
from collections.abc import Sequence

from gradparity.parity.difference_kinds import ZEROS_WORD, Kind
from gradparity.parity.explanation_kinds import NOTHING, LikelyCause, Meaning
from gradparity.parity.figures import Figures
from gradparity.parity.lockstep import Comparison
from gradparity.parity.mismatches import Mismatch
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import OWN, Part
from gradparity.training import Phase

_ROUNDING = 1e-4
"""Below this relative norm, a difference may be rounding: fp32 sums of some thousand terms."""

_ROUNDING_ULP = 2048
"""Rounding moves half of the elements by less than this. Without this limit, a relative norm of 1e-5 in fp64 would
count as rounding too."""

_CAUSES = ("parameters", "modes", "scaler")
"""Parts from which a loss is computed: if one of them differs at a forward, it is the cause of a loss that differs."""


def likely_cause(found: Comparison, later: Comparison | None = None) -> LikelyCause:
    """Return the likely cause of a difference, as far as a comparison shows it; for traces, ``found`` holds it.

    Args:
        found: the first comparison with a mismatch.
        later: the comparison after clipping in the same step, if it has been made.
    """
    if found.likely_cause is not None:
        return found.likely_cause
    first = cause_of(found)
    match first.part, first.kind:
        case Part.ALIASING, Kind.VALUE:
            return cause_of_shared_memory(first)
        case Part.GRADIENTS, Kind.PRESENCE:
            return cause_of_missing_gradient(first)
        case Part.GRADIENTS, Kind.STRIDES:
            return MEMORY_ORDER
        case Part.GRADIENTS, Kind.BITS:
            return _of_gradients(found, later)
        case Part.LOSS, Kind.BITS:
            return _of_loss(found, first)
        case Part.RNG, _:
            return LikelyCause(Meaning.RANDOM, "The random stream is in a different state from here on.")
        case _:
            return NOTHING


def cause_of(found: Comparison) -> Mismatch:
    """Return the mismatch that may be the cause of the others at this place."""
    if found.place.phase != Phase.FORWARD:
        return found.mismatches[0]
    return min(found.mismatches, key=_order)


def _order(mismatch: Mismatch) -> int:
    if mismatch.part == Part.SCALER and mismatch.name != "scale":
        return len(_CAUSES)  # the loss does not depend on a counter
    return _CAUSES.index(mismatch.part) if mismatch.part in _CAUSES else len(_CAUSES)


MEMORY_ORDER = LikelyCause(
    Meaning.MEMORY_ORDER,
    "A fused optimizer walks parameter and gradient in memory order: where their strides differ, it pairs the wrong "
    "elements.",
)


def cause_of_shared_memory(first: Mismatch) -> LikelyCause:
    """Explain two gradients that share memory in one of the two loops."""
    sharing = "If accumulation or clipping writes to one of the two in place, the other changes too."
    if not all(side == OWN or side.endswith(".grad") for side in (first.reference, first.candidate)):
        return NOTHING
    if first.reference == OWN:
        copy = "autograd.grad returns one tensor for parameters that enter as a sum: copy it before assigning .grad."
        return LikelyCause(Meaning.SHARED, f"{sharing} {copy}")
    if first.candidate == OWN:
        known = ".backward() can cause this too: https://github.com/pytorch/pytorch/issues/34082."
        return LikelyCause(Meaning.SHARED_IN_REFERENCE, f"Here the reference shares memory. {sharing} {known}")
    return NOTHING


def cause_of_missing_gradient(first: Mismatch) -> LikelyCause:
    """Explain a gradient that only one of the two loops has."""
    if first.candidate == "None":
        cut = "the graph was cut, or .grad was cleared or never set."
        return LikelyCause(Meaning.NO_GRADIENT, f"No gradient reached this parameter: {cut}")
    if first.reference == "None" and first.candidate.startswith(ZEROS_WORD):
        moves = "weight decay and momentum move a parameter whose gradient is zero."
        return LikelyCause(Meaning.ZEROS, f"None is not zero: {moves}")
    return NOTHING


def is_rounding(figures: Figures) -> bool:
    """Return whether a difference is no larger than rounding can make it; elements that are not finite are left out."""
    return 0 < figures.relative_norm < _ROUNDING and figures.median_ulp <= _ROUNDING_ULP


ROUNDED = LikelyCause(
    Meaning.ROUNDING, "As small as rounding: the same sums in a different order can differ by as much."
)


def _of_gradients(found: Comparison, later: Comparison | None) -> LikelyCause:
    mismatches = gradients_of(found)
    # Gradients left over from the previous step have no loss scale: beside scaled ones they are as small as rounding.
    hidden = _first_backward(found.place) and found.place.step > 0 and found.scale > 1
    cause = cause_from_sizes(mismatches)
    if cause.meaning != Meaning.ROUNDING or (only_one_part(found) and not hidden):
        ratio, after = common_ratio(mismatches), common_ratio(gradients_of(later)) if later else None
        if found.place.phase == Phase.UNSCALED and ratio and after and _scaled(ratio, after, found.scale):
            return LikelyCause(Meaning.CLIPPED_SCALED, f"{cause.words} {clipped_scaled(found.scale)}")
        return cause
    return NOTHING


def _first_backward(place: Place) -> bool:
    return (place.phase, place.microbatch) == (Phase.ACCUMULATED, 0)


def _scaled(ratio: float, after: float, scale: float) -> bool:
    """Return whether scaled gradients were clipped, so that after unscaling their norm is 1/scale of the threshold."""
    exactly = math.isclose(after * scale, 1, rel_tol=1e-3)
    return scale > 1 and exactly and ratio < after and not math.isclose(ratio, after, rel_tol=1e-3)


def clipped_scaled(scale: float) -> str:
    """Return the sentence for gradients that were clipped while still scaled."""
    return f"The gradients were probably clipped while still multiplied by the loss scale of {scale:g}."


def cause_from_sizes(mismatches: Sequence[Mismatch]) -> LikelyCause:
    """Explain gradients that differ, from their sizes and directions."""
    figures = [m.figures for m in mismatches if m.figures]
    if not mismatches:
        return NOTHING
    if len(figures) == len(mismatches) and all(map(is_rounding, figures)):
        return ROUNDED
    if len(figures) == len(mismatches) and all(f.cosine < -1 + 1e-6 and _same_length(f) for f in figures):
        return LikelyCause(Meaning.SIGN, "Every gradient that differs has the opposite sign.")
    ratio = common_ratio(mismatches)
    if ratio is None:
        return NOTHING
    if not figures and abs(ratio - 1) < _ROUNDING:
        return LikelyCause(
            Meaning.NOTHING, "Their norms agree to within 0.01%; record with full=True to see the difference."
        )
    if factor_in_words(ratio) == "1":
        return NOTHING
    subject = "Every gradient that differs has"
    direction = "the reference's direction and " if len(figures) == len(mismatches) else ""
    length = "its length" if direction else "the reference's length"
    return LikelyCause(Meaning.LENGTH, f"{subject} {direction}{factor_in_words(ratio)} times {length}.")


def _same_length(figures: Figures) -> bool:
    return math.isclose(figures.norm_ratio, 1, rel_tol=1e-5)


def only_one_part(found: Comparison) -> bool:
    """Return whether all values that differ are of one part; if a buffer differs too, it may be the cause."""
    return len({mismatch.part for mismatch in found.mismatches}) == 1


def _of_loss(found: Comparison, loss: Mismatch) -> LikelyCause:
    if loss.figures and is_rounding(loss.figures) and only_one_part(found):
        return ROUNDED
    return cause_from_factor(factor_of(loss), same_inputs(found))


def factor_of(loss: Mismatch) -> float | None:
    """Return the candidate's loss over the reference's, with its sign if that is known."""
    if loss.figures and loss.figures.elements == 1:
        return math.copysign(loss.figures.norm_ratio, loss.figures.cosine)
    return loss.norm_ratio


def cause_from_factor(factor: float | None, same: str) -> LikelyCause:
    """Explain a loss that is ``factor`` times the reference's; ``same`` ends the sentence, see :func:`same_inputs`."""
    if factor is not None and math.isclose(factor, -1, rel_tol=1e-6):
        return LikelyCause(Meaning.SIGN, f"The loss has the opposite sign{same}.")
    if factor is None or not math.isfinite(factor) or f"{factor:.6g}" == "1":
        return LikelyCause(Meaning.LOSS, f"The loss differs{same}.") if same else NOTHING
    return LikelyCause(Meaning.LOSS, f"The loss is {factor_in_words(factor)} times the reference's{same}.")


def factor_in_words(factor: float) -> str:
    """Return a factor with three digits, or with six if it is large or close to 1.

    >>> factor_in_words(1 / 3), factor_in_words(1.0001234), factor_in_words(65536)
    ('0.333', '1.00012', '65536')
    """
    return f"{factor:.3g}" if abs(factor) < 1000 and f"{factor:.3g}" != "1" else f"{factor:.6g}"


def same_inputs(found: Comparison, random: bool | None = None) -> str:
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
