"""Rules on a scheduler that is called at two places."""

from collections import Counter
from collections.abc import Iterator, Sequence

from gradparity.auditing.events import LoopEvent, Schedule
from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow

TWO_PLACES = Rule(
    "GP818",
    "schedule-advanced-at-two-places",
    "The scheduler runs once after every step, and now and then once more from another line, such as at the end of an "
    "epoch. The schedule is ahead of its plan by one step each time.",
    "optimizer.step()\nscheduler.step()  # here, or once an epoch, not both",
    right_in="a schedule that is meant to jump at the end of an epoch",
)


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what this rule finds."""
    lines = Counter((e.what.scheduler, e.line) for e in story.events if isinstance(e.what, Schedule))
    found = []
    for window in windows:
        calls = [(e, e.what.scheduler) for e in window.events if isinstance(e.what, Schedule)]
        for number in {number for _, number in calls}:
            own = sorted((e for e, n in calls if n == number), key=lambda e: lines[number, e.line])
            between = [e for e, _ in window.backwards if len(own) == 2 and _lies(e.number, own)]
            if len(own) == 2 and not between and 3 * lines[number, own[0].line] <= lines[number, own[1].line]:
                found.append((window, own[0], own[1]))
    if found:
        window, seldom, usual = found[0]
        words = f"the scheduler runs for every step at {usual.line}, and also here, {times(len(found), 'time')}"
        yield RuleFinding(
            TWO_PLACES, RuleVerdict.UNUSUAL, words, seldom.line, usual.line, window.step, times=len(found)
        )


def _lies(number: int, events: Sequence[LoopEvent]) -> bool:
    """Return whether an event of this number lies between two others."""
    return min(e.number for e in events) < number < max(e.number for e in events)
