"""Rules on gradients that the loop writes to p.grad itself."""

from collections.abc import Iterator, Sequence

from gradparity.audit.events import Story
from gradparity.audit.finding import Finding, Rule, Verdict, times
from gradparity.audit.windows import Window, is_empty

OVERWRITTEN = Rule(
    "GP701",
    "overwritten-instead-of-added",
    "autograd.grad returns gradients and adds nothing. The loop assigns them to p.grad, so each microbatch replaces "
    "the one before it, and only the last one reaches the step.",
    "for p, g in zip(parameters, torch.autograd.grad(loss, parameters)):\n"
    "    p.grad = g if p.grad is None else p.grad + g",
    right_in="gradients of one term that are meant to replace those of another",
)


def of_story(story: Story, windows: Sequence[Window]) -> Iterator[Finding]:
    """Yield what these rules find."""
    found = []
    for window in windows:
        grads = [(e, what) for e, what in window.backwards if not what.into_grad]
        alike = len({(e.line, what.weights) for e, what in grads}) == 1
        replaced = [e for e, what in grads[1:] if what.overwritten and not is_empty(e.after)]
        if window.made is not None and len(grads) > 1 and alike and len(replaced) == len(grads) - 1:
            found.append((window, replaced[0], len(grads)))
    if not found:
        return
    window, event, number = found[0]
    yield Finding(
        OVERWRITTEN,
        Verdict.WRONG,
        f"{number} microbatches were differentiated in one window, and each one's gradients replaced those of the one "
        f"before, in {times(len(found))}",
        event.line,
        window.end.line if window.end else None,
        window.step,
        1,
        times=len(found),
    )
