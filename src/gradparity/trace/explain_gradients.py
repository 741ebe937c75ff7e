"""Explanations of gradients that first differ between two traces, from the events before and from norms."""

import math
from collections.abc import Callable

import torch

from gradparity.parity.compare import Kind, Mismatch
from gradparity.parity.explain import alone, clipped_scaled, common_ratio, gradients_of, of_presence, of_size
from gradparity.parity.lockstep import Comparison
from gradparity.parity.meaning import NOTHING, Meaning, Said
from gradparity.parity.report import times
from gradparity.parity.state import Part
from gradparity.trace.events import Event, Record
from gradparity.trace.file import tensor_of
from gradparity.trace.fingerprint import Fingerprint
from gradparity.trace.until_difference import STEPS, Side, digest, gradients, scale_of, total
from gradparity.training import Phase

NAMES = ("reference", "candidate")


def of_gradients(found: Comparison, ours: Side, theirs: Side) -> Said:
    """Explain gradients of which some differ, where nothing differed before ``found``."""
    mismatches = [m for m in found.mismatches if m.part == Part.GRADIENTS and m.kind in (Kind.BITS, Kind.PRESENCE)]
    if not ours.record or not theirs.record:
        return NOTHING
    # Figures skip elements that are not finite; norms do not.
    finite = all(math.isfinite(total(side.record)) for side in (ours, theirs))
    if found.place.phase == Phase.ACCUMULATED:
        return (
            _left_over(mismatches, ours, theirs)
            or _called(Event.ZERO_GRAD, Meaning.EMPTIED, "calls zero_grad", ours, theirs)
            or _called(Event.CLIP, Meaning.CLIPPED_INSIDE, "clips", ours, theirs)
            or _of_backward(found, mismatches if finite else [], ours, theirs)
        )
    if backwards := of_backwards(ours, theirs):
        return backwards
    if emptied := _called(Event.ZERO_GRAD, Meaning.EMPTIED, "calls zero_grad", ours, theirs):
        return emptied
    if mismatches[0].kind == Kind.PRESENCE:
        return of_presence(mismatches[0])
    if not finite:
        return NOTHING
    if found.place.phase == Phase.UNSCALED:
        return _of_unscaling(found, mismatches, ours, theirs)
    if clips := _of_clips(ours, theirs):
        return clips
    said = of_size(mismatches)
    return said if said.meaning == Meaning.ROUNDING and _same_way(ours, theirs) else _of_clipping(said, ours, theirs)


def of_backwards(ours: Side, theirs: Side) -> Said | None:
    """Explain a different number of backwards in this step."""
    if ours.backwards == theirs.backwards:
        return None
    passes = f"{ours.backwards} backward pass{'' if ours.backwards == 1 else 'es'}"
    words = f"In this step the reference accumulates {passes}, the candidate {theirs.backwards}."
    return Said(Meaning.BACKWARDS, words)


def _left_over(mismatches: list[Mismatch], ours: Side, theirs: Side) -> Said | None:
    """Explain gradients that still contain the gradients of the step before, in one of the two loops."""
    if ours.after_first_backward() or theirs.after_first_backward() or not ours.latest(*STEPS):
        return None
    for who, side, other in zip(NAMES[::-1], (theirs, ours), (ours, theirs), strict=True):
        ready, now = gradients(side.latest(Event.READY)), gradients(side.record)
        kept = [
            m.name for m in mismatches if digest(now.get(m.name)) and digest(now[m.name]) == digest(ready.get(m.name))
        ]
        if kept or _remains(mismatches, side, other):
            words = f"The {who} has not emptied the gradients since the step before: they are still in .grad."
            return Said(Meaning.LEFT_OVER, words)
    emptied = [_emptied(side) for side in (ours, theirs)]
    if emptied[0] == emptied[1] or not _first_time(ours, theirs):
        return None
    did, did_not = NAMES if emptied[0] else NAMES[::-1]
    words = f"The {did} calls zero_grad between the step before and this backward, the {did_not} does not."
    return Said(Meaning.NOT_EMPTIED, words)


def _emptied(side: Side) -> bool:
    return Event.ZERO_GRAD in side.since(*STEPS)


def _first_time(ours: Side, theirs: Side) -> bool:
    """Return whether this is the first step in which only one of the two loops calls zero_grad.

    If it is not, the other loop empties its gradients in a different way.
    """
    others = {step for step in range(1, ours.step) if _called_before(ours, step) != _called_before(theirs, step)}
    return not others


def _called_before(side: Side, step: int) -> bool:
    """Return whether zero_grad was called between the step before ``step`` and the first backward of ``step``."""
    records = side.trace.records
    start = next((i for i, r in enumerate(records) if r.event in STEPS and r.step == step - 1), len(records))
    end = next((i for i, r in enumerate(records) if r.event == Event.ACCUMULATED and r.step == step), len(records))
    return any(r.event == Event.ZERO_GRAD for r in records[start:end])


def _remains(mismatches: list[Mismatch], side: Side, other: Side) -> bool:
    """Return whether the gradients differ by the gradients that ``side`` had in the step before.

    Return ``False`` if the tensors were not kept.
    """
    ready = side.latest(Event.READY)
    dot = norm = expected = 0.0
    for name in (m.name for m in mismatches if m.kind == Kind.BITS):
        kept = [_tensor(s, r, name) for s, r in ((side, side.record), (other, other.record), (side, ready))]
        if any(tensor is None for tensor in kept):
            return False
        now, without, before = (tensor.double().flatten() for tensor in kept if tensor is not None)
        apart = now - without
        dot += float(apart.dot(before))
        norm += float(apart.dot(apart))
        expected += float(before.dot(before))
    return norm > 0 and expected > 0 and dot > 0.9 * math.sqrt(norm * expected)


def _tensor(side: Side, record: Record | None, name: str) -> torch.Tensor | None:
    tensor = tensor_of(side.trace, record, Part.GRADIENTS, name) if record else None
    return tensor if tensor is not None and tensor.is_floating_point() else None


def _called(event: Event, meaning: Meaning, call: str, ours: Side, theirs: Side) -> Said | None:
    """Explain an event that only one loop has between the first backward of this step and this place."""
    did = [event in side.after_first_backward() for side in (ours, theirs)]
    if did[0] == did[1]:
        return None
    who, other = NAMES if did[0] else NAMES[::-1]
    where = f"after microbatch {_when(ours if did[0] else theirs, event)} of this step"
    return Said(meaning, f"The {who} {call} {where}, the {other} does not.")


def _when(side: Side, event: Event) -> int:
    """Return the index of the microbatch after which the last such event came in this step."""
    last = max(i for i, r in enumerate(side.here) if r.event == event)
    return sum(r.event == Event.ACCUMULATED for r in side.here[:last]) - 1


def _of_backward(found: Comparison, mismatches: list[Mismatch], ours: Side, theirs: Side) -> Said:
    """Explain gradients that differ after a backward of losses that are the same bits."""
    losses = [_losses(side) for side in (ours, theirs)]
    if mismatches and mismatches[0].kind == Kind.PRESENCE and (said := of_presence(mismatches[0])) != NOTHING:
        return said
    said = of_size([m for m in mismatches if m.kind == Kind.BITS])
    bits = gradients_of(found)
    if said.meaning in (Meaning.ROUNDING, Meaning.SIGN) and len(bits) == len(mismatches):
        # Left-over gradients are as small as rounding beside scaled ones. Buffers may be the cause too.
        hidden = found.place.microbatch == 0 and found.scale > 1 and ours.latest(*STEPS) is not None
        sure = alone(found) and not hidden and _same_way(ours, theirs)
        return said if sure or said.meaning != Meaning.ROUNDING else NOTHING
    if not losses[0] or losses[0] != losses[1]:
        return said
    same = "The losses are the same bits up to here, the gradients are not: the graph between them differs, or "
    same += "what is done to .grad."
    return Said(Meaning.BACKWARD, f"{same} {said.words}".strip())


def _losses(side: Side) -> list[tuple[str, str | None]]:
    """Return the names and hashes of all losses of this step so far."""
    looks = (r for r in side.here if r.event == Event.FORWARD)
    return [(name, digest(loss)) for r in looks for name, loss in r.parts.get(Part.LOSS, {}).items()]


def _of_unscaling(found: Comparison, mismatches: list[Mismatch], ours: Side, theirs: Side) -> Said:
    """Explain gradients that were the same bits after the last backward, and differ after ``unscale_``."""
    for who, side in zip(NAMES, (ours, theirs), strict=True):
        if all(_as_before(side, m.name) for m in mismatches):
            words = f"In the {who} unscale_ has not changed it"
            held = _held(side)
            free = held and not any(m.name in held for m in mismatches)
            why = ": the optimizer does not hold that parameter" if free else ""
            return Said(Meaning.NOT_UNSCALED, f"{words}{why}.")
    said = of_size(mismatches)
    if said.meaning == Meaning.ROUNDING and not _same_way(ours, theirs):
        said = NOTHING
    ratio = common_ratio(mismatches)
    if ratio is not None and ratio < 1 and found.scale > 1 and _met_scaled(ours, theirs):
        return Said(Meaning.CLIPPED_SCALED, f"{said.words} {clipped_scaled(found.scale)}")
    clips = [Event.CLIP in side.after_first_backward() for side in (ours, theirs)]
    if clips[0] != clips[1]:
        early = NAMES[clips[1]]
        return Said(Meaning.CLIPPED_INSIDE, f"{said.words} The {early} clips before unscale_.".strip())
    return said


def _as_before(side: Side, name: str) -> bool:
    before, now = (digest(gradients(record).get(name)) for record in (side.before, side.record))
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
    unscaled = _by_step(ours, Event.UNSCALED, total)
    clipped = _by_step(ours, Event.READY, total)
    shorter = [clipped[s] for s in unscaled if s in clipped and clipped[s] < 0.999 * unscaled[s]]
    if not shorter or unscaled.get(ours.step, 0.0) <= 0:
        return False
    threshold = max(shorter)
    below = [step for step, norm in unscaled.items() if norm < 0.9 * threshold]
    scales = {step: scale_of(Side(theirs.trace, step, None)) for step in _by_step(theirs, Event.UNSCALED, total)}
    norms = {step: norm * scales[step] for step, norm in _by_step(theirs, Event.UNSCALED, total).items()}
    exactly = [math.isclose(norm, threshold, rel_tol=2e-3) for norm in norms.values()]
    return bool(exactly) and all(exactly) and any(step in norms for step in below)


def _by_step(side: Side, event: Event, measure: Callable[[Record], float]) -> dict[int, float]:
    """Return a measure of the gradients in each step where it is finite."""
    measured = {r.step: measure(r) for r in side.trace.records if r.event == event}
    return {step: value for step, value in measured.items() if math.isfinite(value)}


def _same_way(ours: Side, theirs: Side) -> bool:
    """Return whether both loops have the same events in the same order since the first forward of this step.

    If they do not, rounding may hide a different cause.
    """
    ways = [
        [r.event for r in side.here[next((i for i, r in enumerate(side.here) if r.event == Event.FORWARD), 0) :]]
        for side in (ours, theirs)
    ]
    return ways[0] == ways[1]


def _of_clips(ours: Side, theirs: Side) -> Said | None:
    """Explain a different number of clips in this step, where both loops clip."""
    counts = [sum(r.event == Event.CLIP for r in side.here) for side in (ours, theirs)]
    if counts[0] == counts[1] or 0 in counts:
        return None
    return Said(
        Meaning.CLIPS, f"In this step the reference clips {times(counts[0], 'time')}, the candidate {counts[1]}."
    )


def _of_clipping(said: Said, ours: Side, theirs: Side) -> Said:
    """Explain gradients that were the same bits before, and differ when the optimizer reads them."""
    before = total(ours.before)
    if not math.isfinite(before) or ours.before is None or theirs.before is None:
        return said
    told = [_told(side) for side in (ours, theirs)]
    if "" in told:
        return said
    words = (
        f"Before, the norm of all gradients is {before:.4g} in both. The reference {told[0]}, the candidate {told[1]}."
    )
    return Said(Meaning.CLIP, f"{said.words} {words}".strip())


def _told(side: Side) -> str:
    """Return words for the change of the gradients between the last look at them and the step."""
    now, before = gradients(side.record), gradients(side.before)
    if {name: digest(g) for name, g in now.items()} == {name: digest(g) for name, g in before.items()}:
        return "leaves the gradients as they are"
    norm = total(side.record)
    return f"brings it to {norm:.4g}" if math.isfinite(norm) else ""
