"""Explanations of gradients that first differ between two traces, from the events before and from norms."""

import math

import torch

from gradparity.parity.difference_kinds import Kind
from gradparity.parity.explanation_kinds import NOTHING, LikelyCause, Meaning
from gradparity.parity.likely_cause import cause_from_sizes, cause_of_missing_gradient, gradients_of, only_one_part
from gradparity.parity.lockstep import Comparison
from gradparity.parity.mismatches import Mismatch
from gradparity.parity.state import Part
from gradparity.trace.events import Event, Record
from gradparity.trace.explain_clipping import cause_at_clip, cause_at_unscale, cause_of_clip_count
from gradparity.trace.trace_file import tensor_of
from gradparity.trace.until_difference import (
    NAMES,
    STEP_EVENTS,
    Side,
    digest,
    gradient_norm,
    recorded_gradients,
    same_way,
)
from gradparity.training import Phase


def cause_of_gradients(found: Comparison, ours: Side, theirs: Side) -> LikelyCause:
    """Explain gradients of which some differ, where nothing differed before ``found``."""
    mismatches = [m for m in found.mismatches if m.part == Part.GRADIENTS and m.kind in (Kind.BITS, Kind.PRESENCE)]
    if not ours.record or not theirs.record:
        return NOTHING
    # Figures skip elements that are not finite; norms do not.
    finite = all(math.isfinite(gradient_norm(side.record)) for side in (ours, theirs))
    if found.place.phase == Phase.ACCUMULATED:
        return (
            _left_over(mismatches, ours, theirs)
            or _called(Event.ZERO_GRAD, Meaning.EMPTIED, "calls zero_grad", ours, theirs)
            or _called(Event.CLIP, Meaning.CLIPPED_INSIDE, "clips", ours, theirs)
            or _of_backward(found, mismatches if finite else [], ours, theirs)
        )
    if backwards := cause_of_backwards(ours, theirs):
        return backwards
    if emptied := _called(Event.ZERO_GRAD, Meaning.EMPTIED, "calls zero_grad", ours, theirs):
        return emptied
    if mismatches[0].kind == Kind.PRESENCE:
        return cause_of_missing_gradient(mismatches[0])
    if not finite:
        return NOTHING
    if found.place.phase == Phase.UNSCALED:
        return cause_at_unscale(found, mismatches, ours, theirs)
    if clips := cause_of_clip_count(ours, theirs):
        return clips
    cause = cause_from_sizes(mismatches)
    return cause if cause.meaning == Meaning.ROUNDING and same_way(ours, theirs) else cause_at_clip(cause, ours, theirs)


def cause_of_backwards(ours: Side, theirs: Side) -> LikelyCause | None:
    """Explain a different number of backwards in this step."""
    if ours.backwards == theirs.backwards:
        return None
    passes = f"{ours.backwards} backward pass{'' if ours.backwards == 1 else 'es'}"
    words = f"In this step the reference accumulates {passes}, the candidate {theirs.backwards}."
    return LikelyCause(Meaning.BACKWARDS, words)


def _left_over(mismatches: list[Mismatch], ours: Side, theirs: Side) -> LikelyCause | None:
    """Explain gradients that still contain the gradients of the step before, in one of the two loops."""
    if ours.after_first_backward() or theirs.after_first_backward() or not ours.latest(*STEP_EVENTS):
        return None
    for who, side, other in zip(NAMES[::-1], (theirs, ours), (ours, theirs), strict=True):
        ready, now = recorded_gradients(side.latest(Event.READY)), recorded_gradients(side.record)
        kept = [
            m.name for m in mismatches if digest(now.get(m.name)) and digest(now[m.name]) == digest(ready.get(m.name))
        ]
        if kept or _remains(mismatches, side, other):
            words = f"The {who} has not cleared the gradients of the previous step: they are still in .grad."
            return LikelyCause(Meaning.LEFT_OVER, words)
    emptied = [_emptied(side) for side in (ours, theirs)]
    if emptied[0] == emptied[1] or not _first_time(ours, theirs):
        return None
    did, did_not = NAMES if emptied[0] else NAMES[::-1]
    words = f"The {did} calls zero_grad between the previous step and this backward, the {did_not} does not."
    return LikelyCause(Meaning.NOT_EMPTIED, words)


def _emptied(side: Side) -> bool:
    return Event.ZERO_GRAD in side.since(*STEP_EVENTS)


def _first_time(ours: Side, theirs: Side) -> bool:
    """Return whether this is the first step in which only one of the two loops calls zero_grad.

    If it is not, the other loop empties its gradients in a different way.
    """
    others = {step for step in range(1, ours.step) if _called_before(ours, step) != _called_before(theirs, step)}
    return not others


def _called_before(side: Side, step: int) -> bool:
    """Return whether zero_grad was called between the step before ``step`` and the first backward of ``step``."""
    records = side.trace.records
    start = next((i for i, r in enumerate(records) if r.event in STEP_EVENTS and r.step == step - 1), len(records))
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


def _called(event: Event, meaning: Meaning, call: str, ours: Side, theirs: Side) -> LikelyCause | None:
    """Explain an event that only one loop has between the first backward of this step and this place."""
    did = [event in side.after_first_backward() for side in (ours, theirs)]
    if did[0] == did[1]:
        return None
    who, other = NAMES if did[0] else NAMES[::-1]
    where = f"after microbatch {_when(ours if did[0] else theirs, event)} of this step"
    return LikelyCause(meaning, f"The {who} {call} {where}, the {other} does not.")


def _when(side: Side, event: Event) -> int:
    """Return the index of the microbatch after which the last such event came in this step."""
    last = max(i for i, r in enumerate(side.here) if r.event == event)
    return sum(r.event == Event.ACCUMULATED for r in side.here[:last]) - 1


def _of_backward(found: Comparison, mismatches: list[Mismatch], ours: Side, theirs: Side) -> LikelyCause:
    """Explain gradients that differ after a backward of losses that are the same bits."""
    losses = [_losses(side) for side in (ours, theirs)]
    if (
        mismatches
        and mismatches[0].kind == Kind.PRESENCE
        and (cause := cause_of_missing_gradient(mismatches[0])) != NOTHING
    ):
        return cause
    cause = cause_from_sizes([m for m in mismatches if m.kind == Kind.BITS])
    bits = gradients_of(found)
    if cause.meaning in (Meaning.ROUNDING, Meaning.SIGN) and len(bits) == len(mismatches):
        # Left-over gradients are as small as rounding beside scaled ones. Buffers may be the cause too.
        hidden = found.place.microbatch == 0 and found.scale > 1 and ours.latest(*STEP_EVENTS) is not None
        sure = only_one_part(found) and not hidden and same_way(ours, theirs)
        return cause if sure or cause.meaning != Meaning.ROUNDING else NOTHING
    if not losses[0] or losses[0] != losses[1]:
        return cause
    same = "The losses so far have the same bits, the gradients do not: the graph between them differs, or "
    same += "something else wrote to .grad."
    return LikelyCause(Meaning.BACKWARD, f"{same} {cause.words}".strip())


def _losses(side: Side) -> list[tuple[str, str | None]]:
    """Return the names and hashes of all losses of this step so far."""
    looks = (r for r in side.here if r.event == Event.FORWARD)
    return [(name, digest(loss)) for r in looks for name, loss in r.parts.get(Part.LOSS, {}).items()]
