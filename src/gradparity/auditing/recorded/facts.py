"""The facts of a recorded trace in the form of the audit, as far as a trace goes.

A trace holds no lines, no weights of tokens, and no arguments of calls. From one backward to the next, gradients are
taken to stay as they were; after a step or a clip they are not known before the next look.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import xxhash

from gradparity.auditing.events import (
    Backward,
    ClipCalled,
    GradientLook,
    LoopEvent,
    Modes,
    Schedule,
    StepMade,
    Unscale,
    Update,
    What,
    ZeroGrad,
)
from gradparity.auditing.facts import RunFacts, Story
from gradparity.auditing.recorded.clip_threshold import clip_threshold
from gradparity.auditing.recorded.optimizer_class import UNKNOWN, optimizer_class
from gradparity.auditing.step_windows import windows
from gradparity.auditing.watching.user_lines import NOWHERE
from gradparity.parity.state import Part
from gradparity.trace.columns import Forms, split
from gradparity.trace.digest import Hash
from gradparity.trace.events import Event, Record, Trace
from gradparity.trace.fingerprint import UNREAD, Fingerprint, FingerprintValue

Values = Mapping[str, FingerprintValue]

_LARGEST = 1e300
"""Numbers of a trace from anybody that are larger than this are left out; a float has no room for them."""

_MOVED = (
    "parameters, gradients or optimizer state moved between the CPU and a GPU, which hash differently; the recording "
    "is judged up to there"
)

_COUNTER = ".num_batches_tracked"
"""The end of the name of a buffer that only batch normalization has."""


def facts_of(trace: Trace) -> RunFacts:
    """Return the facts of a trace: one optimizer, without lines."""
    reading, end = _Reading(trace), first_move(trace.records)
    for record in trace.records[:end]:
        reading.take(record)
    story = reading.story
    threshold = clip_threshold(windows(story))
    if threshold is not None:
        story.events = [
            replace(e, what=replace(e.what, threshold=threshold)) if isinstance(e.what, ClipCalled) else e
            for e in story.events
        ]
    moved = [] if end is None else [_MOVED]
    cut = not trace.complete or end is not None
    return RunFacts([story] if story.events else [], notes=moved + _notes(trace), let_go=cut, recorded=True)


def first_move(records: Sequence[Record]) -> int | None:
    """Return the index of the first record in which a tensor has moved between the CPU and a GPU; ``None`` without one.

    Such a tensor has another hash than before, which does not tell whether it has other content.
    """
    hashes: dict[tuple[Part, str], Hash] = {}
    known = set[tuple[Part, tuple[str, ...], Forms]]()
    for index, record in enumerate(records):
        for part in (Part.PARAMETERS, Part.GRADIENTS, Part.OPTIMIZER):
            names, columns, _ = split(record.parts.get(part, {}))
            if (part, names, columns.forms) in known:
                continue
            known.add((part, names, columns.forms))
            for name, form in zip(names, columns.forms.rows, strict=True):
                if hashes.setdefault((part, name), form.by) != form.by:
                    return index
    return None


def _notes(trace: Trace) -> list[str]:
    cut = [] if trace.complete else ["the recording was cut off; it is judged as far as it goes"]
    return cut + [f"the recording lacks something: {note}" for note in trace.notes]


class _Reading:
    """The facts that are known while a trace is read, record by record."""

    def __init__(self, trace: Trace) -> None:
        self.names = tuple(dict.fromkeys(name for r in trace.records for name in _members(r)))
        groups = next((found for r in trace.records if (found := _groups(r))), [])
        kind = optimizer_class(groups[0]) if groups else UNKNOWN
        frozen = next((r.parts[Part.MODES] for r in trace.records if Part.MODES in r.parts), {})
        self.story = Story(
            0, kind, NOWHERE, names=self.names, groups=tuple(groups),
            trained=tuple(f"{name}.requires_grad" not in frozen for name in self.names),
        )  # fmt: skip
        self.now: GradientLook = ()
        """The gradients, as far as they are known; empty if they are not."""
        self.weights = self.state = self.random = ""
        self.scale: float | None = None
        self.modes: Modes | None = None
        self.scale_of_step = _scales(trace.records)
        self.rates_of_step = _rates(trace.records)
        self.by_scaler_in = {r.step for r in trace.records if r.event == Event.SCALER_STEP}

    def take(self, record: Record) -> None:
        """Take up what a record says, and tell its event."""
        self._look(record)
        before = self.now
        what = self._what(record)
        if Part.GRADIENTS in record.parts:
            self.now = tuple(_tensor(record.parts[Part.GRADIENTS].get(name)) for name in self.names)
        if record.event == Event.ZERO_GRAD:
            self.now = (None,) * len(self.names)
        if what is None:
            return
        silent = isinstance(what, (Update, Schedule, ClipCalled))
        at_step = isinstance(what, StepMade)
        event = LoopEvent(
            what, len(self.story.events) + 1, NOWHERE,
            () if isinstance(what, (Update, Schedule)) else self.now if at_step else before,
            () if silent else self.now, self.random,
        )  # fmt: skip
        self.story.events.append(event)
        self.story.steps += at_step
        if at_step or isinstance(what, ClipCalled):
            self.now = ()

    def _look(self, record: Record) -> None:
        parts = record.parts
        if record.event == Event.FORWARD:
            self.random = next((v.digest for v in parts.get(Part.RNG, {}).values() if isinstance(v, Fingerprint)), "")
            self.modes = _modes(parts.get(Part.MODES, {}), parts.get(Part.BUFFERS, {}))
            self.scale = self.scale_of_step.get(record.step, self.scale)
            if Part.PARAMETERS in parts:
                self.weights = _digest(parts[Part.PARAMETERS])

    def _what(self, record: Record) -> What | None:
        match record.event:
            case Event.ZERO_GRAD:
                return ZeroGrad()
            case Event.ACCUMULATED:
                return Backward(True, self._scales(record), (), frozenset({0}), False, self.weights, self.modes)
            case Event.UNSCALED:
                return Unscale(self.scale or 1.0)
            case Event.CLIP:
                return ClipCalled(None, False, sum(g is not None for g in self.now) or len(self.names))
            case Event.STEP | Event.SKIP:
                return self._step(record)
            case Event.UPDATE:
                return Update(0, self.scale or 1.0, self.scale_of_step.get(record.step, self.scale or 1.0))
            case Event.SCHEDULE:
                return Schedule("the scheduler", rates=self.rates_of_step.get(record.step, ()))
            case _:
                return None

    def _scales(self, record: Record) -> tuple[float, ...]:
        """Return the loss scale, in a step that its scaler makes: the trace does not hold which losses were scaled."""
        return (self.scale,) if self.scale is not None and record.step in self.by_scaler_in else ()

    def _step(self, record: Record) -> StepMade:
        before, state = self.weights, self.state
        self.weights = _digest(record.parts.get(Part.PARAMETERS, {}))
        self.state = _digest(record.parts.get(Part.OPTIMIZER, {}))
        by_scaler = record.step in self.by_scaler_in
        return StepMade(
            record.event == Event.SKIP, 0 if by_scaler else None, self.scale if by_scaler else None, before,
            self.weights, self.rates_of_step.get(record.step, ()), state_before=state, state_after=self.state,
        )  # fmt: skip


def _members(record: Record) -> Iterable[str]:
    """Return the names of the parameters that the optimizer holds, group by group."""
    for group in _groups(record):
        members = group.get("params")
        yield from members if isinstance(members, tuple) else ()


def _groups(record: Record) -> list[dict[str, object]]:
    """Return the hyperparameters of each group when the optimizer reads them, and at the end; none at other moments."""
    if record.event not in (Event.READY, Event.END):
        return []
    found: dict[str, dict[str, object]] = {}
    for name, value in record.parts.get(Part.OPTIMIZER, {}).items():
        group, dot, rest = name.partition(".")
        if dot and group.startswith("group "):
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or abs(value) < _LARGEST:  # type: ignore[arg-type]  # it is an int
                found.setdefault(group, {})[rest.partition("[")[0]] = value  # betas[0] and betas[1] are one
    return list(found.values())


def _rates(records: Iterable[Record]) -> dict[int, tuple[float, ...]]:
    """Return the learning rate of each group at each step; none at all if the number of groups changes."""
    found = {}
    for record in records:
        rates = [group.get("lr") for group in _groups(record)]
        if rates:
            found[record.step] = tuple(float(rate) for rate in rates if isinstance(rate, (int, float)))
    return {step: rates for step, rates in found.items() if rates} if _alike(found.values()) else {}


def _alike(rates: Iterable[tuple[float, ...]]) -> bool:
    return len({len(one) for one in rates if one}) == 1


def _scales(records: Iterable[Record]) -> dict[int, float]:
    """Return the loss scale at the beginning of each step, of an enabled scaler."""
    found: dict[int, float] = {}
    for record in records:
        scale = record.parts.get(Part.SCALER, {}).get("scale")
        if isinstance(scale, (int, float)) and abs(scale) < _LARGEST:
            found.setdefault(record.step, float(scale))
    return found


def _modes(flags: Values, buffers: Values) -> Modes | None:
    """Return the modes of batch normalization, the only layer with a mode that a trace shows; ``None`` without one."""
    layers = [name.removesuffix(_COUNTER) for name in buffers if f".{name}".endswith(_COUNTER)]
    if not layers:
        return None
    counts = [value.norm for name in layers if (value := _tensor(buffers.get(f"{name}{_COUNTER}"))) is not None]
    still = sum(f"{name}.training" in flags for name in layers)
    return Modes("training" not in flags, still, int(sum(counts)), len(counts))


def _tensor(value: FingerprintValue) -> Fingerprint | None:
    return value if isinstance(value, Fingerprint) and value.digest != UNREAD else None


def _digest(values: Values) -> str:
    digest = xxhash.xxh3_128()
    for name, value in values.items():
        digest.update(f"{name}{value.digest if isinstance(value, Fingerprint) else value!r}".encode())
    return digest.hexdigest()
