"""The rule on a clip, or another change of the gradients, that comes after the step has read them."""

import math
from collections.abc import Iterator, Sequence

from gradparity.auditing.events import Schedule, StepMade, Update, ZeroGrad
from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow, is_empty, same

TOO_LATE = Rule(
    "GP301",
    "clip-after-step",
    "The gradients are clipped after the optimizer has read them, and emptied before the next step. The clip has no "
    "effect.",
    "loss.backward()\ntorch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)\noptimizer.step()",
    right_in="gradients that are rescaled only to be logged",
)


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what this rule finds."""
    yield from _too_late(windows)
    yield from _changed_too_late(windows)


def _too_late(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    found, in_time = [], 0
    for window in windows:
        for event, _ in window.clips:
            earlier = [e for e, _ in window.backwards if e.number < event.number]
            if earlier or window.previous is None or not same(event.before, window.previous.after):
                in_time += 1
            elif not window.backwards or is_empty(window.backwards[0][0].before):
                found.append((window, event))
    if len(found) < 2 or in_time:
        return
    window, event = found[0]
    yield RuleFinding(
        TOO_LATE,
        RuleVerdict.WRONG,
        f"the clip runs after the step has read the gradients, which are then emptied, {times(len(found), 'time')} of "
        f"{len(found)}: it has no effect",
        event.line,
        window.previous.line if window.previous else None,
        window.step,
        times=len(found),
    )


def _changed_too_late(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Find gradients that the loop itself changes after a step and then empties, as a clip of its own may do."""
    found, emptied = [], 0
    for window in windows:
        first = next((e for e in window.events if not isinstance(e.what, (Update, Schedule))), None)
        made = window.previous.what if window.previous is not None else None
        if first is None or not isinstance(first.what, ZeroGrad) or window.previous is None:
            continue
        if not isinstance(made, StepMade) or made.skipped:  # the scaler unscales, and leaves what it skips
            continue
        pairs = list(zip(window.previous.after, first.before, strict=False))
        emptied += 1
        if all(a and b and math.isfinite(a.norm + b.norm) for a, b in pairs) and any(a != b for a, b in pairs):
            found.append((window, first))
    if len(found) > 1 and 2 * len(found) > emptied:
        window, event = found[0]
        words = "the gradients were changed after the step had read them, and then emptied"
        line = window.previous.line if window.previous else event.line
        yield RuleFinding(
            TOO_LATE,
            RuleVerdict.UNUSUAL,
            f"{words}, in {times(len(found))}: the change has no effect",
            line,
            event.line,
            window.step,
            times=len(found),
        )
