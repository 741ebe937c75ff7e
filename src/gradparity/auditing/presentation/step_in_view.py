"""The step of a run that a picture shows, with the events of all optimizers around it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gradparity.auditing.events import Backward, LoopEvent, Schedule, StepMade, Unscale, Update
from gradparity.auditing.facts import RunFacts, Story
from gradparity.auditing.finding import RuleFinding
from gradparity.auditing.step_windows import StepWindow, windows
from gradparity.auditing.watching.user_lines import Line

MOST_LANES = 4
MOST_EVENTS = 400


@dataclass(frozen=True)
class View:
    """One step of one optimizer, and what happened to the others meanwhile."""

    main: Story
    step: int
    lanes: tuple[tuple[Story, tuple[LoopEvent, ...]], ...]
    """Each optimizer with its events in view, in the order in which they were built."""
    finding: RuleFinding | None
    """The finding that is the reason to show this step."""

    @property
    def main_events(self) -> tuple[LoopEvent, ...]:
        """Return the events of the optimizer whose step it is."""
        return next(own for story, own in self.lanes if story is self.main)

    def event_at(self, line: Line, microbatch: int | None = None) -> LoopEvent | None:
        """Return the event that ``line`` caused, in the given microbatch if one is given; the first of several."""
        if not line.number:
            return None
        backwards = [e for e in self.main_events if isinstance(e.what, Backward)]
        if microbatch is not None and microbatch < len(backwards) and backwards[microbatch].line == line:
            return backwards[microbatch]
        found = [e for own in (self.main_events, *(own for _, own in self.lanes)) for e in own if e.line == line]
        called = [e for e in found if not isinstance(e.what, Unscale)]  # scaler.step unscales, at its own line
        return next(iter(called + found), None)


def view_of(facts: RunFacts, findings: Sequence[RuleFinding]) -> View | None:
    """Return the step of the first finding whose lines caused an event, else a usual one; ``None`` without a step."""
    stories = [story for story in facts.stories if story.steps]
    if not stories:
        return None
    by_number = {story.number: windows(story) for story in stories}
    for finding in findings:
        matches = [(story, *_best(finding, by_number[story.number])) for story in stories]
        story, index, lines = max(matches, key=lambda match: match[2])
        if lines:
            return _view(story, by_number[story.number], index, stories, finding)
    story = max(stories, key=_first_step)  # of a critic and a generator, the one with which an iteration ends
    own = by_number[story.number]
    return _view(story, own, _usual(own), stories, None)


def _first_step(story: Story) -> int:
    return next(event.number for event in story.events if isinstance(event.what, StepMade))


def _best(finding: RuleFinding, own: Sequence[StepWindow]) -> tuple[int, int]:
    """Return the window that shows a finding, and how well: 0 if no event in it is of one of the finding's lines."""
    if finding.step is not None and finding.step >= len(own):
        return 0, 0
    candidates = [_usual(own), *range(len(own))] if finding.step is None else [finding.step]
    return max(((index, _matches(finding, own[index])) for index in candidates), key=lambda found: found[1])


def _matches(finding: RuleFinding, window: StepWindow) -> int:
    lines = {event.line for event in window.events}
    return 2 * (finding.line in lines) + (finding.other in lines)


def _usual(own: Sequence[StepWindow]) -> int:
    """Return the second window with the most common number of backwards, or the first."""
    lengths = Counter(len(window.backwards) for window in own if window.made is not None)
    usual = lengths.most_common(1)[0][0]
    found = [w.step for w in own if w.made is not None and len(w.backwards) == usual]
    return found[1] if len(found) > 1 else found[0]


def _opens_a_step(own: Sequence[StepWindow]) -> set[tuple[type, Line]]:
    """Return the calls before the first backward of all: a loop that begins with ``zero_grad`` makes it there."""
    return {(type(e.what), e.line) for e in _before_the_backward(own[0])}


def _before_the_backward(window: StepWindow) -> list[LoopEvent]:
    first = next((e.number for e, _ in window.backwards), None)
    return [e for e in window.events if not isinstance(e.what, StepMade) and (first is None or e.number < first)]


def _of_the_step_before(own: Sequence[StepWindow], index: int) -> list[LoopEvent]:
    """Return the events of a window that belong to the step before it, such as ``update`` and ``schedule``."""
    opening = _opens_a_step(own)
    return [e for e in _before_the_backward(own[index]) if (type(e.what), e.line) not in opening]


def _view(
    story: Story, own: Sequence[StepWindow], index: int, stories: Sequence[Story], finding: RuleFinding | None
) -> View:
    before = _of_the_step_before(own, index) if index else []
    if finding is not None and any(e.line == finding.line for e in before) and finding.step is not None:
        index -= 1  # such as a clip after the step: it stands at the end of that step
        before = _of_the_step_before(own, index) if index else []
    after = _of_the_step_before(own, index + 1) if index + 1 < len(own) else []
    events = [e for e in own[index].events if e not in before] + after
    start = index
    if start and not own[index].backwards:  # a second step on the same gradients: their backward is a step earlier
        start -= 1
        events = [e for e in own[start].events if e not in _of_the_step_before(own, start)] + events
    previous = own[start].previous
    low = 0 if previous is None else previous.number
    high = max(e.number for e in events)
    others = []
    for other in stories:
        if other is story:
            continue
        inside = [e for e in other.events if low < e.number <= high]
        while inside and isinstance(inside[0].what, (Update, Schedule)):
            inside.pop(0)
        if inside:
            others.append((other, tuple(inside[:MOST_EVENTS])))
    lanes = [(story, tuple(events[:MOST_EVENTS])), *others[: MOST_LANES - 1]]
    return View(story, index, tuple(sorted(lanes, key=lambda lane: lane[0].number)), finding)
