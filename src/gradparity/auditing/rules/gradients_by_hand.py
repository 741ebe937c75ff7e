"""Rules on gradients that the loop writes to p.grad itself."""

from collections.abc import Iterator, Sequence

from gradparity.auditing.events import Backward, Written
from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow, are_microbatches, is_empty

OVERWRITTEN = Rule(
    "GP701",
    "overwritten-instead-of-added",
    "autograd.grad returns gradients and adds nothing. The loop assigns them to p.grad, so each microbatch replaces "
    "the one before it, and only the last one reaches the step.",
    "for p, g in zip(parameters, torch.autograd.grad(loss, parameters)):\n"
    "    p.grad = g if p.grad is None else p.grad + g",
    right_in="gradients of one term that are meant to replace those of another",
)

SWAPPED = Rule(
    "GP702",
    "gradient-of-another-parameter",
    "A gradient was written to the .grad of a parameter that it does not belong to.",
    "for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True): ...",
)
DROPPED = Rule(
    "GP703",
    "gradient-not-written",
    "autograd.grad returned a gradient for this parameter, and the loop has not written it to p.grad.",
    "for p, g in zip(parameters, grads, strict=True):\n    if g is not None:\n        p.grad = g",
    right_in="a step that trains some of the parameters only; an optimizer that only carries a schedule",
)
OTHERWISE = Rule(
    "GP704",
    "gradient-written-otherwise",
    "p.grad holds neither the gradient that autograd.grad returned, nor its sum with what was there.",
    "p.grad = g if p.grad is None else p.grad + g",
    right_in="gradient surgery, and other methods that rewrite gradients",
)
ZEROS = Rule(
    "GP705",
    "zeros-in-the-place-of-none",
    "A parameter that took no part has a gradient of zeros instead of None. Optimizers skip None, and move and decay "
    "a parameter with zeros.",
    "if g is not None:\n    p.grad = g",
)
SHARED = Rule(
    "GP706",
    "gradients-share-memory",
    "The gradients of two parameters are one tensor. The next microbatch that adds to them in place adds twice.",
    "p.grad = g.clone()",
)


FEW = 3
"""Steps that are enough to see a habit."""


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    yield from _overwritten(windows)
    nowhere = list(_written_nowhere(windows)) if story.by_torch else []
    yield from nowhere or _written(windows)


def _overwritten(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    found = []
    for window in windows:
        grads = [(e, what) for e, what in window.backwards if not what.into_grad]
        alike = are_microbatches(grads)
        replaced = [e for e, what in grads[1:] if what.written and what.written.overwritten and not is_empty(e.after)]
        if window.made is not None and len(grads) > 1 and alike and len(replaced) == len(grads) - 1:
            found.append((window, replaced[0], len(grads)))
    if not found:
        return
    window, event, number = found[0]
    yield RuleFinding(
        OVERWRITTEN,
        RuleVerdict.WRONG,
        f"{number} microbatches were differentiated in one window, and each one's gradients replaced those of the one "
        f"before, in {times(len(found))}",
        event.line,
        window.end.line if window.end else None,
        window.step,
        1,
        times=len(found),
    )


def _written_nowhere(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Find steps with nothing in ``p.grad``, though autograd.grad has returned gradients for them."""
    made = [(w, w.end, w.made) for w in windows if w.end is not None and w.made is not None and w.backwards]
    calls = [one for one in made if not one[2].closure and not any(what.into_grad for _, what in one[0].backwards)]
    found = [(window, end) for window, end, _ in calls if all(g is None for g in end.before)]
    if len(found) >= FEW and len(found) == len(made):
        window, end = found[0]
        words = f"no gradient of this call was in p.grad when the optimizer stepped, in {times(len(found))}"
        line = window.backwards[-1][0].line
        yield RuleFinding(DROPPED, RuleVerdict.UNUSUAL, words, line, end.line, window.step, times=len(found))


def _written(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    made = [w for w in windows if w.made is not None and not _kept_aside(w)]
    grads = [(w, e, what) for w in made for e, what in w.backwards if not what.into_grad]
    several = any(len(w.backwards) > 1 for w, _, _ in grads)
    if any(what.into_grad for w in windows for _, what in w.backwards):  # these gradients may be for something else
        grads = [(w, e, what) for w, e, what in grads if _in(what).swapped]
    for rule, verdict, words, chosen in (
        (SWAPPED, RuleVerdict.WRONG, "gradients went to another parameter", [g for g in grads if _in(g[2]).swapped]),
        (DROPPED, RuleVerdict.UNUSUAL, "gradients were not written to p.grad", [g for g in grads if _in(g[2]).dropped]),
        (
            OTHERWISE,
            RuleVerdict.UNUSUAL,
            "gradients were written otherwise",
            [g for g in grads if _in(g[2]).other and not g[2].shared],
        ),
        (ZEROS, RuleVerdict.UNUSUAL, "zeros were written where there was none", [g for g in grads if _in(g[2]).zeros]),
        (SHARED, RuleVerdict.UNUSUAL, "gradients share memory", [g for g in grads if g[2].shared and several]),
    ):
        if len(chosen) > 1:
            window, event, _ = chosen[0]
            sentence = f"{words}, in {times(len(chosen), 'backward')}"
            yield RuleFinding(rule, verdict, sentence, event.line, None, window.step, times=len(chosen))


def _kept_aside(window: StepWindow) -> bool:
    """Return whether the loop keeps the gradients of a window elsewhere and writes them once, after the last one."""
    grads = [e for e, what in window.backwards if not what.into_grad]
    return len(grads) > 1 and all(e.before == e.after for e in grads[:-1])


def _in(what: Backward) -> Written:
    return what.written or Written()
