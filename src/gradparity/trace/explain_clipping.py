"""Likely causes of gradients that first differ after ``unscale_``, or when the optimizer reads them."""

import math
from collections.abc import Callable

from gradparity.parity.explanation_kinds import NOTHING, LikelyCause, Meaning
from gradparity.parity.likely_cause import cause_from_sizes, clipped_scaled, common_ratio
from gradparity.parity.lockstep import Comparison
from gradparity.parity.mismatches import Mismatch
from gradparity.parity.report import plural
from gradparity.parity.state import Part
from gradparity.trace.compare_fingerprints import are_comparable
from gradparity.trace.events import Event, Record
from gradparity.trace.fingerprint import Fingerprint
from gradparity.trace.until_difference import NAMES, Side, digest, gradient_norm, recorded_gradients, same_way, scale_of


def cause_at_unscale(found: Comparison, mismatches: list[Mismatch], ours: Side, theirs: Side) -> LikelyCause:
    """Explain gradients that were the same bits after the last backward, and differ after ``unscale_``."""
    for who, side in zip(NAMES, (ours, theirs), strict=True):
        if all(_as_before(side, m.name) for m in mismatches):
            words = f"In the {who}, unscale_ left this gradient as it was"
            held = _held(side)
            free = held and not any(m.name in held for m in mismatches)
            why = ": the optimizer does not hold the parameter" if free else ""
            return LikelyCause(Meaning.NOT_UNSCALED, f"{words}{why}.")
    cause = cause_from_sizes(mismatches)
    if cause.meaning == Meaning.ROUNDING and not same_way(ours, theirs):
        cause = NOTHING
    ratio = common_ratio(mismatches)
    if ratio is not None and ratio < 1 and found.scale > 1 and _met_scaled(ours, theirs):
        return LikelyCause(Meaning.CLIPPED_SCALED, f"{cause.words} {clipped_scaled(found.scale)}")
    clips = [Event.CLIP in side.after_first_backward() for side in (ours, theirs)]
    if clips[0] != clips[1]:
        early = NAMES[clips[1]]
        return LikelyCause(Meaning.CLIPPED_INSIDE, f"{cause.words} The {early} clips before unscale_.".strip())
    return cause


def _as_before(side: Side, name: str) -> bool:
    before, now = (digest(recorded_gradients(record).get(name)) for record in (side.before, side.record))
    return before is not None and before == now


def _held(side: Side) -> set[str]:
    """Return the names of the parameters that the optimizer holds in this step."""
    ready = (r for r in side.trace.records if r.event == Event.READY and r.step == side.step)
    values = next(ready, Record(Event.READY, 0)).parts.get(Part.OPTIMIZER, {}).items()
    return {
        member
        for name, members in values
        if name.endswith(".params") and isinstance(members, tuple) and not isinstance(members, Fingerprint)
        for member in members
    }


def _met_scaled(ours: Side, theirs: Side) -> bool:
    """Return whether the candidate clips scaled gradients: in every step, norm times scale equals the threshold.

    The threshold is the norm to which the reference clips. A different fault looks similar: gradients that are
    unscaled, then clipped, then divided by the scale again. Those are shorter in steps whose norm is below the
    threshold. So the trace must contain such a step to distinguish the two faults.
    """
    unscaled = _by_step(ours, Event.UNSCALED, gradient_norm)
    clipped = _by_step(ours, Event.READY, gradient_norm)
    shorter = [clipped[s] for s in unscaled if s in clipped and clipped[s] < 0.999 * unscaled[s]]
    if not shorter or unscaled.get(ours.step, 0.0) <= 0:
        return False
    threshold = max(shorter)
    below = [step for step, norm in unscaled.items() if norm < 0.9 * threshold]
    scales = {
        step: scale_of(Side(theirs.trace, step, None)) for step in _by_step(theirs, Event.UNSCALED, gradient_norm)
    }
    norms = {step: norm * scales[step] for step, norm in _by_step(theirs, Event.UNSCALED, gradient_norm).items()}
    exactly = [math.isclose(norm, threshold, rel_tol=2e-3) for norm in norms.values()]
    return bool(exactly) and all(exactly) and any(step in norms for step in below)


def _by_step(side: Side, event: Event, measure: Callable[[Record], float]) -> dict[int, float]:
    """Return a measure of the gradients in each step where it is finite."""
    measured = {r.step: measure(r) for r in side.trace.records if r.event == event}
    return {step: value for step, value in measured.items() if math.isfinite(value)}


def cause_of_clip_count(ours: Side, theirs: Side) -> LikelyCause | None:
    """Explain a different number of clips in this step, where both loops clip."""
    counts = [sum(r.event == Event.CLIP for r in side.here) for side in (ours, theirs)]
    if counts[0] == counts[1] or 0 in counts:
        return None
    return LikelyCause(
        Meaning.CLIPS,
        f"In this step the reference clips {plural(counts[0], 'time')}, the candidate {plural(counts[1], 'time')}.",
    )


def cause_at_clip(cause: LikelyCause, ours: Side, theirs: Side) -> LikelyCause:
    """Explain gradients that were the same bits before, and differ when the optimizer reads them."""
    before = gradient_norm(ours.before)
    if not math.isfinite(before) or ours.before is None or theirs.before is None:
        return cause
    changes = [_change(side) for side in (ours, theirs)]
    if "" in changes:
        return cause
    before_it = f"Before this phase, the norm of all gradients is {before:.4g} in both loops."
    words = f"{before_it} The reference {changes[0]}, the candidate {changes[1]}."
    return LikelyCause(Meaning.CLIP, f"{cause.words} {words}".strip())


def _change(side: Side) -> str:
    """Return words for the change of the gradients between the last look at them and the step."""
    now, before = recorded_gradients(side.record), recorded_gradients(side.before)
    if not all(are_comparable(g, before.get(name)) for name, g in now.items()):
        return ""
    if {name: digest(g) for name, g in now.items()} == {name: digest(g) for name, g in before.items()}:
        return "leaves the gradients unchanged"
    norm = gradient_norm(side.record)
    return f"changes it to {norm:.4g}" if math.isfinite(norm) else ""
