"""Rules on clips that come too early, too often, or for some of the gradients only."""

import itertools
import math
from collections.abc import Iterator, Sequence

from gradparity.auditing.events import LoopEvent
from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow, is_empty, number_made

INSIDE = Rule(
    "GP302",
    "clip-inside-a-window",
    "The accumulated gradients are clipped after every microbatch. The earlier microbatches are clipped again and "
    "again, and count less than the later ones.",
    "if (i + 1) % k == 0:\n    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)\n    optimizer.step()\n"
    "    optimizer.zero_grad()",
    right_in="differentially private training, which clips each sample's gradient by itself",
)
SOME = Rule(
    "GP303",
    "clip-of-some-gradients",
    "The norm is taken over some of the optimizer's gradients, and the others are not clipped.",
    "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)",
    right_in="a clip for each part of the model; a part that is not clipped on purpose",
)


NOTHING = Rule(
    "GP304",
    "clip-of-nothing",
    "The clip was given no gradient, for example because it runs before the backward, or because a generator of "
    "parameters had been used up. It has no effect.",
    "parameters = list(model.parameters())\nloss.backward()\n"
    "torch.nn.utils.clip_grad_norm_(parameters, max_norm)\noptimizer.step()",
    right_in="a clip of a part that has no gradients in this step",
)
BY_PARTS = Rule(
    "GP305",
    "gradients-changed-by-several-factors",
    "Between the last backward and the step the gradients were not multiplied by one factor, so their direction "
    "changed: each part was clipped by its own norm, or something else has written to them.",
    "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)",
    right_in="clips by layer or by value, preconditioning, gradient surgery, centralization, noise, control variates, "
    "masks",
)
ENLARGED = Rule(
    "GP306",
    "gradients-enlarged",
    "A clip shortens gradients that are too long and leaves the others alone. These were lengthened.",
    "factor = min(1.0, max_norm / (norm + 1e-6))",
    right_in="normalized gradients",
)

TWICE = Rule(
    "GP307",
    "gradient-clipped-twice",
    "The clip was given one gradient twice, as of a tied weight that is listed under both names. It counts twice in "
    "the norm and is multiplied twice.",
    "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)  # lists a tied weight once",
)


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    yield from _inside(windows)
    yield from _some(windows)
    yield from _nothing(windows)
    yield from _factors(windows)
    yield from _twice(windows)


def _inside(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    found, several = [], 0
    for window in windows:
        backwards = [e for e, what in window.backwards if what.into_grad]
        if window.made is None or len(backwards) < 2:
            continue
        several += 1
        between = [
            clip
            for a, b in itertools.pairwise(backwards)
            for clip, _ in window.clips
            if a.number < clip.number < b.number and not is_empty(b.before)
        ]
        if len(between) == len(backwards) - 1:
            found.append((window, between[0], backwards[1]))
    if len(found) < 2 or len(found) < several:
        return
    window, clip, after = found[0]
    yield RuleFinding(
        INSIDE,
        RuleVerdict.WRONG,
        f"the accumulated gradients are clipped after every microbatch, in {times(len(found))} of "
        f"{number_made(windows)}, and the next microbatch is added to what was clipped",
        clip.line,
        after.line,
        window.step,
        0,
        times=len(found),
    )


def _some(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    found = []
    for window in windows:
        if window.made is None or not window.clips:
            continue
        event = window.clips[-1][0]
        covered = sum(clip.covered for _, clip in window.clips)
        present = sum(g is not None for g in event.before)
        if 0 < covered < present:
            found.append((window, event, covered, present))
    if len(found) < 2:
        return
    window, event, covered, present = found[0]
    yield RuleFinding(
        SOME,
        RuleVerdict.UNUSUAL,
        f"the clip covers {covered} of the optimizer's {present} gradients, in {times(len(found))}",
        event.line,
        None,
        window.step,
        times=len(found),
    )


def _nothing(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    early = [(w, first) for w in windows if (first := _before_the_backward(w)) is not None]
    if len(early) > 1 and len(early) == sum(bool(w.clips) for w in windows if w.backwards):
        window, event = early[0]
        words = f"the clip runs before the backward, and finds no gradient, in {times(len(early))}: it has no effect"
        after = window.backwards[0][0].line
        yield RuleFinding(NOTHING, RuleVerdict.WRONG, words, event.line, after, window.step, times=len(early))
        return
    found = [(w, e, clip) for w in windows for e, clip in w.clips if not clip.covered and w.made is not None]
    empty = [one for one in found if not any(clip.given_any for _, clip in one[0].clips)]
    others = any(clip.covered for w in windows for _, clip in w.clips)
    if len(empty) > 1:
        window, event, _ = empty[0]
        words = (
            f"the clip was given no parameter at all, such as by a generator that was used up, in {times(len(empty))}"
        )
        yield RuleFinding(NOTHING, RuleVerdict.WRONG, words, event.line, None, window.step, times=len(empty))
        return
    found = [(w, e, clip) for w, e, clip in found if not is_empty(e.before)]
    if len(found) > 1 and not others:
        window, event, _ = found[0]
        words = f"the clip was given no gradient, though the optimizer had some, in {times(len(found))}"
        yield RuleFinding(NOTHING, RuleVerdict.UNUSUAL, words, event.line, None, window.step, times=len(found))


def _before_the_backward(window: StepWindow) -> LoopEvent | None:
    """Return the first clip of a window if all its clips run on empty gradients before its first backward."""
    if window.made is None or not window.clips or not window.backwards:
        return None
    first = window.backwards[0][0].number
    early = all(event.number < first and event.before and is_empty(event.before) for event, _ in window.clips)
    return window.clips[0][0] if early else None


def _factors(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Compare each gradient's norm at the step with the one after the last backward, or after ``unscale_``."""
    several, larger = [], []
    for window in windows:
        if window.end is None or window.made is None or not window.backwards or window.made.closure:
            continue
        last = window.unscaled or window.backwards[-1][0]
        if window.backwards[-1][1].exchange is False:  # the ranks exchange them later, by the loop's own hands
            continue
        inside = [event for event, _ in window.clips if event.number < last.number]
        if inside or not window.adds_up or any(clip.by_value or len(window.clips) == 1 for _, clip in window.clips):
            continue
        factors = _of_each(last, window.end)
        if len(factors) < 2:
            continue
        if max(factors) - min(factors) > 1e-3 * max(factors):
            several.append((window, factors))
        elif max(factors) > 1 + 1e-3 and not _scaled_back(factors[0]):
            larger.append((window, factors))
    for rule, found in ((BY_PARTS, several), (ENLARGED, larger)):
        if len(found) > 1:
            window, factors = found[0]
            assert window.end is not None
            words = f"from the last backward to the step the norm of each gradient was multiplied by {min(factors):.4g}"
            if rule is BY_PARTS:
                words += f" to {max(factors):.4g}"
            line = window.clips[0][0].line if window.clips else window.end.line
            yield RuleFinding(rule, RuleVerdict.UNUSUAL, f"{words}, in {times(len(found))}", line, None, window.step)


def _of_each(one: LoopEvent, other: LoopEvent) -> list[float]:
    pairs = zip(one.after, other.before, strict=False)
    return [abs(b.norm / a.norm) for a, b in pairs if a and b and a.norm and math.isfinite(a.norm + b.norm)]


def _scaled_back(factor: float) -> bool:
    """Return whether a factor is a power of two, as a loss scale is."""
    return math.isfinite(factor) and abs(math.log2(factor) - round(math.log2(factor))) < 1e-3


def _twice(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    found = [(w, e, clip.twice) for w in windows for e, clip in w.clips if clip.twice]
    if found:
        window, event, number = found[0]
        words = f"the clip was given {times(number, 'gradient')} twice, in {times(len(found), 'clip')}"
        yield RuleFinding(TWICE, RuleVerdict.WRONG, words, event.line, None, window.step, times=len(found))
