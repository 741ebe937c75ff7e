"""Comparison of two traces: the comparisons of lockstep, made after the runs and from fingerprints."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from gradparity.parity.compare import ABSENT, ZEROS, Kind, Mismatch, figures_of, walk
from gradparity.parity.lockstep import ALL, STOPS, Comparison, side_by_side
from gradparity.parity.modes_and_extras import usual
from gradparity.parity.place import END, Place
from gradparity.parity.state import OWN, Part, Unseen
from gradparity.trace.events import Event, Record, Trace
from gradparity.trace.explain import meaning_of
from gradparity.trace.file import tensor_of
from gradparity.trace.fingerprint import UNREAD, Fingerprint, Printed
from gradparity.trace.matching_names import named_alike
from gradparity.trace.until_difference import is_zero, sides

UNJUDGED = Part.RNG
"""The part whose differences do not count in a comparison.

A data loader draws a seed from the global stream without any effect. A draw that matters shows in a loss.
"""

TRAINING = ".training"
"""Suffix of the flags that say whether a module is in training mode."""


def compare_traces(reference: Trace, candidate: Trace) -> Iterator[Comparison]:
    """Yield comparisons of two traces, in the order of training; the states at the end come last.

    Names are compared without the components that wrappers add. A prefix that all names of one side share is also
    dropped, such as the ``model.`` of a LightningModule that holds a model.
    """
    reference, candidate = named_alike(reference, candidate)
    explained = False
    scales = _scales(reference)
    for place, ours, theirs in _paired(reference, candidate):
        found = _compared(place, (reference, ours), (candidate, theirs), scales.get(place.step, 1.0))
        if found.mismatches and not explained:
            explained = True
            yield replace(found, said=meaning_of(found, *sides(found, (reference, ours), (candidate, theirs))))
        else:
            yield found


def _paired(reference: Trace, candidate: Trace) -> Iterator[tuple[Place, Record | None, Record | None]]:
    """Yield the records of each place, in the order of training; the states at the end come last."""
    ours, theirs = _by_step(reference), _by_step(candidate)
    for step in sorted(ours.keys() | theirs.keys()):
        yield from side_by_side(iter(ours.get(step, [])), iter(theirs.get(step, [])))
    if reference.complete and candidate.complete:
        yield END, reference.records[-1], candidate.records[-1]


def first_other_draw(reference: Trace, candidate: Trace) -> int | None:
    """Return the first step at whose last forward the global random stream is in a different state, or ``None``.

    Return ``None`` also if one loop passes through all states of the other: its stream was only seen more often.
    """
    ours, theirs = _states(reference), _states(candidate)
    if _within(ours, theirs) or _within(theirs, ours):
        return None
    at, there = dict(ours), dict(theirs)  # the last state of each step
    return next((step for step in at if step in there and at[step] != there[step]), None)


def _states(trace: Trace) -> list[tuple[int, Mapping[str, Printed]]]:
    """Return the states of the random stream in the order seen, each with its step."""
    return [(r.step, r.parts[UNJUDGED]) for r in trace.records if UNJUDGED in r.parts]


def _within(few: Sequence[tuple[int, object]], many: Sequence[tuple[int, object]]) -> bool:
    """Return whether all states of ``few`` occur in ``many``, in the same order."""
    states = [state for _, state in many]
    at = 0
    for _, state in few:
        try:
            at = states.index(state, at)
        except ValueError:
            return False
    return True


def first_other_events(reference: Trace, candidate: Trace) -> tuple[int, list[str], list[str]] | None:
    """Return the first step whose events or their order differ, with the events of each loop; or ``None``."""
    ours, theirs = _events(reference), _events(candidate)
    for step in sorted(ours.keys() | theirs.keys()):
        if ours.get(step) != theirs.get(step):
            return step, ours.get(step, []), theirs.get(step, [])
    return None


def _events(trace: Trace) -> dict[int, list[str]]:
    """Return the events of each step.

    Emptying the gradients after a step or before the next one has the same effect. Both count as before the next one.
    """
    events: dict[int, list[str]] = {}
    begun = -1
    for r in trace.records:
        late = r.event in (Event.UPDATE, Event.SCHEDULE) and begun < r.step
        step = r.step - 1 if late else r.step
        begun = r.step if r.event == Event.FORWARD else begun
        again = r.event == Event.ZERO_GRAD and events.get(step, [""])[-1] == r.event
        if r.event != Event.END and not again:
            events.setdefault(step, []).append(str(r.event))
    first = min(events, default=0)
    if events.get(first, [""])[0] == Event.ZERO_GRAD:
        del events[first][0]  # there were no gradients to empty
    return {step: done for step, done in events.items() if done != [Event.ZERO_GRAD]}


def _by_step(trace: Trace) -> dict[int, list[tuple[Place, Record]]]:
    """Return the records of each step that have a place, with it."""
    records: dict[int, list[tuple[Place, Record]]] = {}
    for r in trace.records:
        if r.place is not None and r.place != END:
            records.setdefault(r.step, []).append((r.place, r))
    return records


def _compared(
    place: Place, reference: tuple[Trace, Record | None], candidate: tuple[Trace, Record | None], scale: float
) -> Comparison:
    found = Comparison(place, None, None, {}, 0, [], {}, scale)
    ours, theirs = reference[1], candidate[1]
    if ours and theirs:
        return _filled(found, (reference[0], ours), (candidate[0], theirs))
    if place.microbatch is None:
        words = (STOPS, "does not") if ours else ("does not", STOPS)
        found.mismatches.append(Mismatch(Part.OPTIMIZER, ALL, Kind.PRESENCE, *words))
    return found


def _filled(found: Comparison, reference: tuple[Trace, Record], candidate: tuple[Trace, Record]) -> Comparison:
    numbers, unseen = 0, dict[Part, list[str]]()
    for part in Part:
        a, b = (whole(part, record) for _, record in (reference, candidate))
        if part == UNJUDGED or (part not in reference[1].parts and part not in candidate[1].parts):
            continue
        unread = [name for name in a.keys() & b.keys() if is_unread(a[name]) and is_unread(b[name])]
        found.checked[part] = len(a.keys() | b.keys()) - len(unread)
        numbers += sum(math.prod(v.shape) if isinstance(v, Fingerprint) else 1 for v in a.values() if not is_unread(v))
        pairs: list[tuple[Tensor, Tensor]] = []
        if unread:
            unseen[part] = unread
        for name in dict.fromkeys([*a, *b]):
            ours, theirs = a.get(name, ABSENT), b.get(name, ABSENT)
            if part == Part.MODES:  # lists only flags that differ from the usual value
                if name.endswith(TRAINING) and reference[0].rename is not candidate[0].rename:
                    continue  # names of modules, unlike names of parameters, are not matched
                ours, theirs = (usual(name) if flag is ABSENT else flag for flag in (ours, theirs))
            for kind in kinds(ours, theirs):
                both = None
                if kind == Kind.BITS:
                    both = kept_pair(reference, candidate, part, name)
                    pairs += both or []
                size = figures_of(both) if both else None
                ratio = _ratio(ours, theirs) if kind == Kind.BITS else None
                words = in_words(kind, ours), in_words(kind, theirs)
                found.mismatches.append(Mismatch(part, name, kind, *words, size, ratio))
        if pairs:
            found.figures[part] = figures_of(pairs)
    return replace(found, numbers=numbers, unseen=unseen)


def is_unread(value: Printed) -> bool:
    """Return whether a trace has only the type and shape of ``value``, so that equality cannot be decided."""
    return isinstance(value, Unseen) or (isinstance(value, Fingerprint) and value.digest == UNREAD)


def kinds(a: Printed, b: Printed) -> Iterator[Kind]:
    """Yield each kind of difference, as :func:`gradparity.parity.compare.differences` does for live tensors."""
    if not (isinstance(a, Fingerprint) and isinstance(b, Fingerprint)):
        if type(a) is not type(b) or repr(a) != repr(b):
            yield Kind.PRESENCE if {a, b} & {None, ABSENT} else Kind.VALUE
    elif a.layout != b.layout:
        yield Kind.LAYOUT
    elif a.dtype != b.dtype:
        yield Kind.DTYPE
    elif a.shape != b.shape:
        yield Kind.SHAPE
    else:
        if a.digest != b.digest:
            yield Kind.BITS
        if walk(a.shape, a.strides) != walk(b.shape, b.strides):
            yield Kind.STRIDES


def whole(part: Part, record: Record) -> dict[str, Printed]:
    """Return the values of a part. For memory, add the gradients that share none, which a trace leaves out."""
    values = record.parts.get(part, {})
    if part != Part.ALIASING:
        return dict(values)
    gradients = record.parts.get(Part.GRADIENTS, {})
    return {f"{name}.grad": OWN for name, g in gradients.items() if g is not None} | dict(values)


def kept_pair(
    reference: tuple[Trace, Record], candidate: tuple[Trace, Record], part: Part, name: str
) -> list[tuple[Tensor, Tensor]] | None:
    """Return the two tensors in a list, if both traces kept them and they can be paired; else ``None``.

    They can be paired if both are floating-point or complex, with the same dtype and shape.
    """
    ours, theirs = (tensor_of(trace, record, part, name) for trace, record in (reference, candidate))
    if ours is None or theirs is None or not (ours.is_floating_point() or ours.is_complex()):
        return None
    return [(ours, theirs)] if (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape) else None


def in_words(kind: Kind, value: Printed) -> str:
    """Return one side of a mismatch in words."""
    if not isinstance(value, Fingerprint):
        return str(value)
    match kind:
        case Kind.LAYOUT:
            return value.layout
        case Kind.DTYPE:
            return value.dtype
        case Kind.SHAPE:
            return str(value.shape)
        case Kind.STRIDES:
            return str(value.strides)
        case Kind.BITS if not math.isfinite(value.norm):
            return "values that are not finite" if math.prod(value.shape) != 1 else "not finite"
        case Kind.BITS if math.prod(value.shape) == 1:
            return f"{value.norm:.6g}"  # a single element's norm is its value
        case Kind.BITS:
            return f"norm {value.norm:.6g}"
        case Kind.PRESENCE if is_zero(value):
            return f"{ZEROS} of shape {value.shape}"
        case _:
            return f"a tensor of shape {value.shape}"


def _ratio(a: Printed, b: Printed) -> float | None:
    """Return the candidate's norm over the reference's, with the sign for single elements; ``None`` if not finite."""
    if isinstance(a, Fingerprint) and isinstance(b, Fingerprint) and a.norm and math.isfinite(b.norm / a.norm):
        return b.norm / a.norm
    return None


def _scales(trace: Trace) -> dict[int, float]:
    """Return the loss scale at the beginning of each step."""
    scales: dict[int, float] = {}
    for r in trace.records:
        scale = r.parts.get(Part.SCALER, {}).get("scale")
        if isinstance(scale, float):
            scales.setdefault(r.step, scale)
    return scales
