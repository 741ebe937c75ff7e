"""Rules on the loss scale of mixed precision."""

from collections.abc import Iterator, Sequence

from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow, number_made, same

BYPASSED = Rule(
    "GP202",
    "scaler-bypassed",
    "The loss was scaled, and optimizer.step() read gradients that nobody had divided by the scale. Plain SGD makes "
    "steps that are too large by that factor. No overflow is looked for.",
    "scaler.step(optimizer)\nscaler.update()",
    right_in="loops that look for infinite gradients themselves",
)
NOT_SCALED = Rule(
    "GP203",
    "loss-not-scaled",
    "scaler.step divides the gradients by the loss scale, but this loss was not multiplied by it. The gradients are "
    "too small by that factor, and small ones underflow in half precision.",
    "scaler.scale(loss).backward()",
)
TWICE = Rule(
    "GP204",
    "loss-scaled-twice",
    "The loss was multiplied by the loss scale twice and the gradients are divided by it once.",
    "scaler.scale(loss).backward()",
)
SCALE_MOVED = Rule(
    "GP205",
    "scale-changed-inside-a-window",
    "scaler.update() ran between the microbatches of a window, so they were scaled differently, and unscale_ divides "
    "all of them by the last scale.",
    "if (i + 1) % k == 0:\n    scaler.step(optimizer)\n    scaler.update()\n    optimizer.zero_grad()",
)


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    yield from _bypassed(windows)
    yield from _not_scaled(windows)
    yield from _twice(windows)
    yield from _scale_moved(windows)


def factor_of(window: StepWindow) -> float:
    """Return the loss scale of the window's last backward; 1 without one."""
    factor = 1.0
    for scale in window.backwards[-1][1].scales if window.backwards else ():
        factor *= scale
    return factor


def _bypassed(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    found, unscaled = [], []
    for window in windows:
        if window.made is None or window.end is None or window.made.scaler is not None or factor_of(window) == 1:
            continue
        last = window.backwards[-1][0]
        if window.unscaled is not None and window.unscaled.number > last.number:
            unscaled.append(window)
        clipped = [event for event, _ in window.clips if event.number > last.number]
        read = clipped[0].before if clipped else window.end.before
        if window.unscaled is None and same(read, last.after):
            found.append((window, last))
    if len(unscaled) > 1:
        window = unscaled[0]
        assert window.end is not None
        assert window.unscaled is not None
        words = "after unscale_ the step went past the scaler, which would have skipped one with an overflow, in "
        yield RuleFinding(
            BYPASSED, RuleVerdict.UNUSUAL, f"{words}{times(len(unscaled))}", window.end.line, window.unscaled.line
        )
    if not found:
        return
    window, last = found[0]
    assert window.end is not None
    yield RuleFinding(
        BYPASSED,
        RuleVerdict.WRONG,
        f"optimizer.step() read gradients that still carried the loss scale of {factor_of(window):g}, in "
        f"{times(len(found))} of {number_made(windows)}: the loss was scaled, and the step went past the scaler",
        window.end.line,
        last.line,
        window.step,
        times=len(found),
    )


def _not_scaled(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    found, scaled = [], 0
    for window in windows:
        if window.made is None or window.made.scaler is None or not window.made.scale or window.made.scale == 1:
            continue
        for index, (event, what) in enumerate(window.backwards):
            if what.scales:
                scaled += 1
            elif what.into_grad:
                readable = what.losses and all(loss.total < window.made.scale / 2 for loss in what.losses)
                found.append((window, event, index, bool(readable)))
    if not found:
        return
    certain = [one for one in found if one[3]]
    window, event, index, _ = (certain or found)[0]
    assert window.end is not None
    verdict = RuleVerdict.WRONG if scaled or certain else RuleVerdict.UNUSUAL
    among = f"; {times(scaled, 'other backward')} had a scaled loss" if scaled else ""
    assert window.made is not None
    yield RuleFinding(
        NOT_SCALED,
        verdict,
        f"this loss was not scaled, and scaler.step divided its gradients by {window.made.scale:g}, in "
        f"{times(len(found), 'backward')}{among}",
        event.line,
        window.end.line,
        window.step,
        index,
        times=len(found),
    )


def _twice(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    for window in windows:
        for index, (event, what) in enumerate(window.backwards):
            if len(what.scales) > 1 and window.made is not None and window.made.scaler is not None:
                factors = " x ".join(f"{scale:g}" for scale in what.scales)
                sentence = f"this loss was scaled by {factors}, and the gradients are divided by the scale once"
                yield RuleFinding(TWICE, RuleVerdict.WRONG, sentence, event.line, None, window.step, index)
                return


def _scale_moved(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    for window in windows:
        scaled = [(e, what.scales[0]) for e, what in window.backwards if len(what.scales) == 1]
        different = [(e, scale) for e, scale in scaled if scale != scaled[0][1]]
        if window.made is not None and window.made.scaler is not None and different:
            event, scale = different[0]
            if same(event.before, scaled[0][0].after) or not window.emptied_after(scaled[0][0]):
                sentence = (
                    f"the microbatches of one window were scaled by {scaled[0][1]:g} and by {scale:g}, and unscale_ "
                    "divides by the last scale alone"
                )
                yield RuleFinding(SCALE_MOVED, RuleVerdict.WRONG, sentence, event.line, scaled[0][0].line, window.step)
                return
