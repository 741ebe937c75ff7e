"""The rule on a clip that comes before ``unscale_``, so that it meets gradients that still carry the loss scale."""

from collections.abc import Iterator, Sequence

from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.rules.loss_scale import factor_of
from gradparity.auditing.step_windows import StepWindow, number_made, same, size

CLIP_BEFORE_UNSCALE = Rule(
    "GP201",
    "clip-before-unscale",
    "The gradients still carry the loss scale when they are clipped, so the threshold meets numbers up to 65536 times "
    "too large. scaler.step then divides the clipped gradients by the scale, and the update nearly vanishes.",
    "scaler.unscale_(optimizer)\ntorch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)\n"
    "scaler.step(optimizer)\nscaler.update()",
    right_in="a threshold that is multiplied by the scale",
    reported="https://github.com/milesial/Pytorch-UNet/issues/468",
)


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what this rule finds."""
    found = []
    for window in windows:
        scale = factor_of(window)
        if window.made is None or scale <= 1 or window.made.scaler is None:
            continue
        last = window.backwards[-1][0]
        for event, clip in window.clips:
            before = window.unscaled is None or event.number < window.unscaled.number
            finite = clip.threshold is not None and clip.threshold < scale and not _times(clip.threshold, scale)
            if before and finite and same(event.before, last.after):
                found.append((window, event, clip, scale))
                break
    if not found:
        return
    window, event, clip, scale = found[0]
    after = window.unscaled or window.end
    yield RuleFinding(
        CLIP_BEFORE_UNSCALE,
        RuleVerdict.WRONG,
        f"the gradients were clipped to {clip.threshold:g} while they still carried the loss scale of {scale:g} (their "
        f"norm was {size(event.before):.4g}), in {times(len(found))} of {number_made(windows)}",
        event.line,
        after.line if after else None,
        window.step,
        times=len(found),
    )


def _times(threshold: float, scale: float) -> bool:
    """Return whether a threshold was multiplied by the scale: divided by it, it has fewer digits, as 6.4 over 64."""
    return len(f"{threshold / scale:.10g}".strip("0.")) < len(f"{threshold:.10g}".strip("0."))
