"""Rules on clips that come too late, too often, or for some of the gradients only."""

import itertools
from collections.abc import Iterator, Sequence

from gradparity.audit.events import Story
from gradparity.audit.finding import Finding, Rule, Verdict, times
from gradparity.audit.windows import Window, is_empty, same

TOO_LATE = Rule(
    "GP301",
    "clip-after-step",
    "The gradients are clipped after the optimizer has read them, and emptied before the next step. The clip has no "
    "effect.",
    "loss.backward()\ntorch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)\noptimizer.step()",
)
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


def of_story(story: Story, windows: Sequence[Window]) -> Iterator[Finding]:
    """Yield what these rules find."""
    yield from _too_late(windows)
    yield from _inside(windows)
    yield from _some(windows)


def _too_late(windows: Sequence[Window]) -> Iterator[Finding]:
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
    yield Finding(
        TOO_LATE,
        Verdict.WRONG,
        f"the clip runs after the step has read the gradients, which are then emptied, {times(len(found), 'time')} of "
        f"{len(found)}: it has no effect",
        event.line,
        window.previous.line if window.previous else None,
        window.step,
        times=len(found),
    )


def _inside(windows: Sequence[Window]) -> Iterator[Finding]:
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
    yield Finding(
        INSIDE,
        Verdict.WRONG,
        f"the accumulated gradients are clipped after every microbatch, in {times(len(found))} of {len(windows)}, and "
        "the next microbatch is added to what was clipped",
        clip.line,
        after.line,
        window.step,
        0,
        times=len(found),
    )


def _some(windows: Sequence[Window]) -> Iterator[Finding]:
    found = []
    for window in windows:
        if window.made is None or not window.clips:
            continue
        event = window.clips[-1][0]
        covered = sum(clip.covered for _, clip in window.clips)
        present = sum(g is not None for g in event.before)
        if covered < present:
            found.append((window, event, covered, present))
    if len(found) < 2:
        return
    window, event, covered, present = found[0]
    yield Finding(
        SOME,
        Verdict.UNUSUAL,
        f"the clip covers {covered} of the optimizer's {present} gradients, in {times(len(found))}",
        event.line,
        None,
        window.step,
        times=len(found),
    )
