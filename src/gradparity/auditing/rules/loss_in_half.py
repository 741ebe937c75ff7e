"""The rule on a loss that is computed in half precision, of a model in full."""

from collections.abc import Iterator, Sequence

from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow

IN_HALF = Rule(
    "GP407",
    "loss-in-half-precision",
    "The model's weights have full precision, and the loss was computed in half: its sum is rounded to three digits, "
    "and overflows early in float16.",
    "loss = F.cross_entropy(logits.float(), targets)",
)


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what this rule finds."""
    losses = [(w, e, loss) for w in windows for e, what in w.backwards for loss in what.losses]
    full = any(g is not None and g.dtype in ("float32", "float64") for _, e, _ in losses for g in e.after)
    found = [(w, e) for w, e, loss in losses if loss.half]
    if full and len(found) > 1:
        window, event = found[0]
        words = f"the loss was computed in half precision, in {times(len(found), 'backward')}"
        yield RuleFinding(IN_HALF, RuleVerdict.UNUSUAL, words, event.line, None, window.step, times=len(found))
