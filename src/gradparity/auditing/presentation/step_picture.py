"""One step of a loop as a timeline, ready to be drawn: a lane for each optimizer, a row for each kind of event.

Time runs to the right, one slot an event. A microbatch is a column: its forward stands above its backward.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from gradparity.auditing.events import (
    Backward,
    ClipCalled,
    LoopEvent,
    Schedule,
    StepMade,
    Unscale,
    Update,
    What,
    ZeroGrad,
)
from gradparity.auditing.facts import RunFacts, Story
from gradparity.auditing.finding import RuleFinding
from gradparity.auditing.presentation.picture_parts import Cell, Column, Lane, Row, StepPicture
from gradparity.auditing.presentation.step_in_view import View, view_of
from gradparity.auditing.step_windows import relative_weights

MOST_MICROBATCHES = 16
"""If there are more, those in the middle are left out, but none that breaks a rule."""

_KEPT = 6
"""Microbatches that are shown of a longer window, at each end."""

LEFT_OUT = "..."

_NARROWEST = 4


def step_picture(facts: RunFacts, findings: Sequence[RuleFinding]) -> StepPicture | None:
    """Return the step of the first finding, or else a step like most others; ``None`` if no optimizer stepped."""
    view = view_of(facts, findings)
    if view is None:
        return None
    slots = _slots(view)
    marks = _marks(view, findings)
    lanes = [
        Lane(
            named(story),
            tuple(_cells(own, slots, marks, relative_weights(own))),
            tuple(_columns(own, slots)) if story is view.main else (),
        )
        for story, own in view.lanes
    ]
    lanes, count = _shortened(lanes, max(slots.values()) + 1)
    widths = [_NARROWEST] * count
    for cell in (cell for lane in lanes for cell in lane.cells):
        widths[cell.slot] = max(widths[cell.slot], len(cell.words) + 1)
    return StepPicture(_title(view, findings), tuple(lanes), tuple(widths))


def _title(view: View, findings: Sequence[RuleFinding]) -> str:
    shown = next((f for f in findings if f is view.finding), None)
    why = f"{shown.rule.code} {shown.rule.name}" if shown else "a step like most others"
    whose = named(view.main) if len(view.lanes) > 1 else view.main.name
    return f"Step {view.step} of {whose}: {why}"


def named(story: Story) -> str:
    """Return the class of an optimizer, with the line that built it."""
    return f"{story.name} ({story.made})" if story.made.number else story.name


def _slots(view: View) -> dict[int, int]:
    """Return the slot of each event by its number: one call that two optimizers take part in has one slot."""
    slots: dict[int, int] = {}
    before: LoopEvent | None = None
    seen: set[int] = set()
    for number, event in sorted((e.number, (n, e)) for n, (_, own) in enumerate(view.lanes) for e in own):
        lane, this = event
        together = before is not None and type(before.what) is type(this.what) and before.line == this.line
        if not together or lane in seen or not this.line.number:
            slots[number], seen = (max(slots.values()) + 1 if slots else 0), set()
        else:
            slots[number] = max(slots.values())
        seen.add(lane)
        before = this
    return slots


def _marks(view: View, findings: Sequence[RuleFinding]) -> Mapping[int, tuple[RuleFinding, bool]]:
    """Return, by the number of an event, the finding that it breaks (true) or collides with (false)."""
    marks: dict[int, tuple[RuleFinding, bool]] = {}
    for finding in reversed(findings):  # the first one wins
        if finding.step not in (None, view.step) and finding is not view.finding:
            continue
        broken = view.event_at(finding.line, finding.microbatch)
        other = None if finding.other is None else view.event_at(finding.other)
        broken, other = (broken, other) if broken is not None else (other, None)
        if broken is None:
            continue
        if other is not None and other.number not in marks and other is not broken:
            marks[other.number] = finding, False
        marks[broken.number] = finding, True
    return marks


def _cells(
    own: Sequence[LoopEvent],
    slots: Mapping[int, int],
    marks: Mapping[int, tuple[RuleFinding, bool]],
    weights: Mapping[int, float],
) -> Iterator[Cell]:
    for event in own:
        row, words = _shown(event.what)
        if event.number in weights:
            weight = weights[event.number]
            words = f"{weight:.0f}" if 100 <= weight < 1e6 else f"{weight:.2g}"
        finding, breaks = marks.get(event.number, (None, False))
        cell = Cell(row, slots[event.number], words, event.line)
        if finding is not None:
            code = finding.rule.code if breaks else ""
            words = " ".join(filter(None, (code, words)))
            cell = replace(cell, words=words, code=code, verdict=finding.verdict, collides=not breaks)
        yield cell
        if isinstance(event.what, Backward) and not event.what.again:
            tokens = str(sum(loss.tokens for loss in event.what.losses)) if event.what.losses else ""
            yield Cell(Row.FORWARD, slots[event.number], tokens, event.line)


def _shown(what: What) -> tuple[Row, str]:
    """Return the row of an event, and its figure."""
    match what:
        case ZeroGrad():
            return Row.EMPTY, ""
        case Backward():
            return Row.BACKWARD, "" if what.into_grad else "grad"
        case Unscale():
            return Row.UNSCALE, _number(what.scale)
        case ClipCalled():
            return Row.CLIP, "" if what.threshold is None else f"{what.threshold:g}"
        case StepMade():
            return Row.STEP, "skipped" if what.skipped else ""
        case Update():
            return Row.UPDATE, _number(what.after)
        case Schedule():
            return Row.SCHEDULE, " ".join(dict.fromkeys(f"{rate:.3g}" for rate in what.rates[:2]))


def _number(scale: float) -> str:
    """Return a loss scale, which is a power of two as a rule: 1048576 instead of 1.04858e+06."""
    return f"{scale:.0f}" if scale < 1e8 and scale.is_integer() else f"{scale:.3g}"


def _columns(own: Sequence[LoopEvent], slots: Mapping[int, int]) -> Iterator[Column]:
    """Yield a column for each microbatch: what comes after it and before the next one belongs to it."""
    backwards = [e for e in own if isinstance(e.what, Backward)]
    for index, event in enumerate(backwards):
        first = slots[event.number]
        last = first
        if index + 1 < len(backwards):
            last = max(slots[e.number] for e in own if e.number < backwards[index + 1].number)
        yield Column(str(index), first, max(first, last))


def _shortened(lanes: Sequence[Lane], count: int) -> tuple[list[Lane], int]:
    """Leave out microbatches from the middle of a long window, except those that are marked; return the slots left."""
    columns = next((lane.columns for lane in lanes if lane.columns), ())
    if len(columns) <= MOST_MICROBATCHES:
        return list(lanes), count
    marked = {cell.slot for lane in lanes for cell in lane.cells if cell.verdict is not None}
    gone = [c for c in columns[_KEPT:-_KEPT] if marked.isdisjoint(range(c.first, c.last + 1))]
    dropped = {slot for column in gone for slot in range(column.first, column.last + 1)}
    place: dict[int, int] = {}
    new = -1
    for slot in range(count):
        new += slot not in dropped or slot - 1 not in dropped  # one slot stands for all that are left out in a row
        place[slot] = new
    kept: list[Column] = []
    for column in columns:
        if column not in gone:
            kept.append(Column(column.name, place[column.first], place[column.last]))
        elif kept[-1].name != LEFT_OUT:
            kept.append(Column(LEFT_OUT, place[column.first], place[column.last]))
    shorter = [
        replace(
            lane,
            cells=tuple(replace(c, slot=place[c.slot]) for c in lane.cells if c.slot not in dropped),
            columns=tuple(kept) if lane.columns else (),
        )
        for lane in lanes
    ]
    return shorter, new + 1
