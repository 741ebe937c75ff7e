"""Rules on the number of microbatches in a window."""

from collections import Counter
from collections.abc import Iterator, Sequence

from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict
from gradparity.auditing.step_windows import StepWindow

AFTER_THE_FIRST = Rule(
    "GP110",
    "step-after-the-first-microbatch",
    "The first window has one microbatch and those after it have more: the condition of the step is true for index 0. "
    "Every window of an epoch is cut one microbatch too early.",
    "if (i + 1) % k == 0:  # not i % k == 0\n    optimizer.step()\n    optimizer.zero_grad()",
    right_in="a batch size that grows",
    reported="https://github.com/EvolvingLMMs-Lab/OneVision-Encoder/issues/82",
)


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what this rule finds."""
    made = [window for window in windows if window.made is not None]
    lines = {event.line for window in made for event, _ in window.backwards}
    shared = any(len(what.reaches) > 1 for window in made for _, what in window.backwards)  # another one's too
    if len(made) < 4 or len(lines) != 1 or shared or any(w.made is not None and w.made.closure for w in made):
        return
    lengths = [len(window.backwards) for window in made]
    [(usual, often)] = Counter(lengths[1:]).most_common(1)
    if lengths[0] == 1 and usual > 1 and lengths[1] == lengths[2] == usual and often * 2 > len(lengths):
        window = made[0]
        assert window.end is not None
        words = f"the first step follows 1 backward, and the next {often} follow {usual} each"
        yield RuleFinding(
            AFTER_THE_FIRST, RuleVerdict.UNUSUAL, words, window.end.line, window.backwards[0][0].line, window.step
        )
