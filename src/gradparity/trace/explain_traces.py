"""Explanations of the first difference between two traces.

An explanation is given only if records of both traces show it.
"""

import math

from gradparity.parity.difference_kinds import Kind
from gradparity.parity.explanation_kinds import NOTHING, LikelyCause, Meaning
from gradparity.parity.likely_cause import (
    MEMORY_ORDER,
    ROUNDED,
    cause_from_factor,
    cause_of,
    cause_of_shared_memory,
    factor_in_words,
    factor_of,
    is_rounding,
    only_one_part,
    same_inputs,
)
from gradparity.parity.lockstep import ALL, Comparison
from gradparity.parity.mismatches import Mismatch
from gradparity.parity.place_in_training import END
from gradparity.parity.report import plural
from gradparity.parity.state import Part
from gradparity.trace.compare_fingerprints import are_comparable
from gradparity.trace.events import Event, Record
from gradparity.trace.explain_gradients import cause_of_backwards, cause_of_gradients
from gradparity.trace.until_difference import STEP_EVENTS, Side, digest
from gradparity.training import Phase

_SIX_DIGITS = 2e-5
"""Relative tolerance for numbers that a trace keeps with six digits, with some room for rounding."""


def likely_cause_in_traces(found: Comparison, ours: Side, theirs: Side) -> LikelyCause:
    """Explain ``found``, the first comparison of two traces that has a mismatch."""
    first = cause_of(found)
    if first.name == ALL:
        return _of_presence(ours, theirs)
    match first.part, first.kind:
        case Part.ALIASING, Kind.VALUE:
            return cause_of_shared_memory(first)
        case Part.GRADIENTS, Kind.STRIDES:
            return MEMORY_ORDER
        case Part.GRADIENTS, Kind.BITS | Kind.PRESENCE:
            return cause_of_gradients(found, ours, theirs)
        case Part.LOSS, Kind.BITS:
            return _of_loss(found, first, ours, theirs)
        case Part.PARAMETERS, Kind.BITS if found.place.phase == Phase.FORWARD or found.place == END:
            return _of_written(found, first, ours, theirs)
        case Part.PARAMETERS | Part.OPTIMIZER, _ if found.place.phase == Phase.STEPPED and found.place != END:
            return _of_update(found, ours, theirs)
        case Part.OPTIMIZER, Kind.VALUE if first.name.endswith(".lr"):
            return _of_schedule(ours, theirs) or _set_by_hand(ours, theirs)
        case Part.SCHEDULER, Kind.VALUE:
            return _of_schedule(ours, theirs) or NOTHING
        case Part.SCALER, Kind.VALUE:
            return _of_scale(ours, theirs)
        case Part.BUFFERS, Kind.BITS if found.place.phase == Phase.ACCUMULATED:
            words = "The buffers were identical when the loss was computed: something wrote to them afterwards."
            return LikelyCause(Meaning.BUFFERS, words)
        case _:
            return NOTHING


def _of_presence(ours: Side, theirs: Side) -> LikelyCause:
    """Explain a place that only one loop reaches: it makes more steps, or more backwards, than the other."""
    if ours.steps != theirs.steps and ours.step >= min(ours.steps, theirs.steps):
        words = f"The reference makes {plural(ours.steps, 'step')}, the candidate {plural(theirs.steps, 'step')}."
        return LikelyCause(Meaning.STEPS, words)
    return cause_of_backwards(ours, theirs) or NOTHING


def _of_loss(found: Comparison, first: Mismatch, ours: Side, theirs: Side) -> LikelyCause:
    """Explain a loss that differs."""
    rng = [side.record.parts.get(Part.RNG) for side in (ours, theirs) if side.record]
    if first.figures and is_rounding(first.figures) and only_one_part(found) and rng[0] == rng[1]:
        return ROUNDED
    if summed := _of_sum(ours.losses, theirs.losses):
        return summed
    factor, scale = factor_of(first), found.scale
    for power, how in ((-1, "divided by"), (1, "multiplied by")):
        if factor is not None and scale > 1 and math.isclose(factor, scale**power, rel_tol=_SIX_DIGITS):
            words = f"The candidate's loss is the reference's {how} the loss scale of {scale:g}."
            return LikelyCause(Meaning.LOSS_SCALE, words)
    same = same_inputs(found, rng[0] == rng[1] if all(rng) else None)
    if factor is not None and (count := _with_one_factor(ours.losses, theirs.losses, factor)):
        every = "Both" if count == 2 else f"All {count}"
        words = f"{every} losses of this step are {factor_in_words(factor)} times the reference's{same}."
        return LikelyCause(Meaning.LOSS_FACTOR, words)
    cause = cause_from_factor(factor, same)
    if backwards := cause_of_backwards(ours, theirs):
        return LikelyCause(Meaning.BACKWARDS, f"{cause.words} {backwards.words}".strip())
    return cause


def _of_sum(ours: list[float], theirs: list[float]) -> LikelyCause | None:
    """Explain a loss that is the sum of the several losses that the other loop differentiates in this step."""
    sizes = len(ours), len(theirs)
    if min(sizes) != 1 or max(sizes) == 1:
        return None
    several, one = (ours, theirs[0]) if len(theirs) == 1 else (theirs, ours[0])
    if not abs(sum(several) - one) <= _SIX_DIGITS * sum(map(abs, several)):
        return None
    who, whose = ("candidate", "reference") if len(theirs) == 1 else ("reference", "candidate")
    words = f"The {who}'s loss is the sum of the {whose}'s {len(several)} losses of this step."
    return LikelyCause(Meaning.SUMMED, words)


def _with_one_factor(ours: list[float], theirs: list[float], factor: float) -> int:
    """Return the number of losses of this step, if there are several and each is ``factor`` times the reference's.

    Return 0 otherwise.
    """
    if len(ours) != len(theirs) or len(ours) < 2 or not factor or math.isclose(abs(factor), 1, rel_tol=0.01):
        return 0  # a factor this close to 1 says little
    same = all(a and math.isclose(b, factor * a, rel_tol=_SIX_DIGITS) for a, b in zip(ours, theirs, strict=True))
    return len(ours) if same else 0


def _of_written(found: Comparison, first: Mismatch, ours: Side, theirs: Side) -> LikelyCause:
    """Explain parameters that differ although no step was made since they were last seen to be the same."""
    before = [side.latest(*STEP_EVENTS) for side in (ours, theirs)]
    if before == [None, None]:
        return LikelyCause(Meaning.START, "The two loops start from different weights.")
    names = [m.name for m in found.mismatches if m.part == Part.PARAMETERS and m.kind == Kind.BITS]
    wrote = [
        who
        for who, side, last in zip(("reference", "candidate"), (ours, theirs), before, strict=True)
        if last and side.record and any(_changed(name, last, side.record) for name in names)
    ]
    if not wrote or not all(before) or first.name not in names:
        return NOTHING
    when = "after the last step" if found.place == END else "between the previous step and this forward"
    who = "Both loops" if len(wrote) == 2 else f"The {wrote[0]}"
    verb = "write" if len(wrote) == 2 else "writes"
    return LikelyCause(Meaning.WRITTEN, f"{who} {verb} the parameters {when} without an optimizer step.")


def _changed(name: str, last: Record, now: Record) -> bool:
    before, after = (r.parts.get(Part.PARAMETERS, {}).get(name) for r in (last, now))
    both = None not in (digest(before), digest(after)) and are_comparable(before, after)
    return both and digest(before) != digest(after)


def _of_update(found: Comparison, ours: Side, theirs: Side) -> LikelyCause:
    """Explain different updates, where the optimizer read gradients and hyperparameters of the same bits."""
    if not ours.record or not theirs.record:
        return NOTHING
    if ours.record.event != theirs.record.event:
        skips, makes = ("reference", "candidate") if ours.record.event == Event.SKIP else ("candidate", "reference")
        words = f"The {skips} skips this step, and the {makes} makes it."
        return _past_the_scaler(ours, theirs, words) or LikelyCause(Meaning.SKIPPED, words)
    if Event.READY not in ours.since(*STEP_EVENTS) or Event.READY not in theirs.since(*STEP_EVENTS):
        return NOTHING
    parts = {m.part for m in found.mismatches}
    read = "The optimizer read the same gradients and hyperparameters"
    if Part.PARAMETERS not in parts:
        return LikelyCause(Meaning.UPDATE, f"{read}. After the step the parameters are identical, its state is not.")
    state = "and so does its state" if Part.OPTIMIZER in parts else "its state is identical"
    return LikelyCause(Meaning.UPDATE, f"{read}. After the step the parameters differ, {state}.")


def _past_the_scaler(ours: Side, theirs: Side, words: str) -> LikelyCause | None:
    """Explain the difference if only one of the two loops calls ``scaler.step``."""
    through = ["scaler_step" in side.since(*STEP_EVENTS) for side in (ours, theirs)]
    if through[0] == through[1]:
        return None
    who = "candidate" if through[0] else "reference"
    return LikelyCause(Meaning.PAST_THE_SCALER, f"{words} The {who} calls optimizer.step itself, not scaler.step.")


def _of_schedule(ours: Side, theirs: Side) -> LikelyCause | None:
    """Explain a schedule that was advanced a different number of times."""
    counts = [side.count(Event.SCHEDULE) for side in (ours, theirs)]
    if counts[0] == counts[1]:
        return None
    after_skip = [_after_skip(side) for side in (ours, theirs)]
    if after_skip[0] != after_skip[1]:
        who, other = ("candidate", "reference") if after_skip[1] else ("reference", "candidate")
        words = f"The {who} advances the schedule after a step that was skipped, the {other} does not."
        return LikelyCause(Meaning.SCHEDULE_AFTER_SKIP, words)
    words = f"The schedule was advanced {plural(counts[0], 'time')} in the reference, {counts[1]} in the candidate."
    return LikelyCause(Meaning.SCHEDULE, words)


def _set_by_hand(ours: Side, theirs: Side) -> LikelyCause:
    """Explain a learning rate that differs although the schedule is in the same state."""
    states = [Part.SCHEDULER in record.parts for side in (ours, theirs) for record in side.here]
    if not any(states):
        return NOTHING
    return LikelyCause(Meaning.RATE, "The scheduler is in the same state: something else set the learning rate.")


def _after_skip(side: Side) -> bool:
    """Return whether the last step was skipped and the schedule was advanced after it."""
    last = side.latest(*STEP_EVENTS)
    return bool(last and last.event == Event.SKIP and Event.SCHEDULE in side.since(*STEP_EVENTS))


def _of_scale(ours: Side, theirs: Side) -> LikelyCause:
    """Explain a loss scale that was updated a different number of times."""
    counts = [side.count(Event.UPDATE) for side in (ours, theirs)]
    if counts[0] == counts[1]:
        return NOTHING
    words = f"The loss scale was updated {plural(counts[0], 'time')} in the reference, {counts[1]} in the candidate."
    return LikelyCause(Meaning.SCALE, words)
