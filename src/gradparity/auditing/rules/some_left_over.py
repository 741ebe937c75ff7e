"""A rule on gradients that zero_grad does not reach, while the others of the same optimizer are emptied."""

from collections.abc import Iterator, Sequence

from gradparity.auditing.events import LoopEvent
from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow, is_empty

PARTLY_LEFT = Rule(
    "GP108",
    "some-gradients-left-over",
    "Some gradients of the optimizer are emptied after its step and others are not: those repeat earlier steps.",
    "optimizer.zero_grad()  # all of its groups, which model.zero_grad() may not know",
    right_in="parts that are trained with longer windows",
)

FEW = 3
"""Steps that are enough to see a habit."""


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what this rule finds. A gradient that is never emptied, and that each step reads, is wrong."""
    partly: list[tuple[StepWindow, LoopEvent, set[int]]] = []
    emptied = followed = 0
    for window in windows:
        own = [e for e, what in window.backwards if what.into_grad and not what.inside_step]
        if window.previous is None or window.made is None or not own:
            continue
        followed += 1
        if is_empty(own[0].before):
            emptied += 1
        elif positions := _kept(window, own[0]):
            partly.append((window, own[0], positions))
    if len(partly) < 2 or len(partly) < emptied:
        return
    window, first, positions = partly[0]
    always = set.intersection(*(each for _, _, each in partly)) if len(partly) == followed >= FEW else set()
    words = f"{len(positions)} of {len(first.before)} gradients of the step before were still there"
    named = ", ".join(story.names[i] for i in sorted(always)[:3] if i < len(story.names))
    never = f"; those of {named} are never emptied" if named else ""
    yield RuleFinding(
        PARTLY_LEFT,
        RuleVerdict.WRONG if always else RuleVerdict.UNUSUAL,
        f"{words}, in {times(len(partly))}{never}",
        first.line,
        window.zeroed.line if window.zeroed else None,
        window.step,
        0,
        times=len(partly),
    )


def _kept(window: StepWindow, first: LoopEvent) -> set[int]:
    """Return the positions of gradients of the step before that this backward adds to and that the next step reads.

    None count if no other gradient was emptied.
    """
    assert window.previous is not None
    before = window.previous.after
    looks = [e.before for e in window.events if e.number > first.number and e.before]
    there = zip(first.before, before, first.after, strict=False)
    kept = [i for i, (now, then, after) in enumerate(there) if now is not None and now.norm and now == then != after]
    gone = any((a is None or a.norm == 0) and b and b.norm != 0 for a, b in zip(first.before, before, strict=False))
    read = {i for i in kept if all(len(look) > i and (g := look[i]) is not None and g.norm != 0 for look in looks)}
    return read if gone else set()
