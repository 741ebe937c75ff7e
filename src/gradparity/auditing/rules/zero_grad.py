"""Rules on gradients that were emptied too late, too early, or not at all."""

from collections.abc import Iterator, Sequence

from gradparity.auditing.events import LoopEvent, ZeroGrad
from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow, are_microbatches, is_empty, number_made, same

LEFT_OVER = Rule(
    "GP101",
    "gradients-left-over",
    "The gradients of a step are still in p.grad when the next backward adds to them. So every step repeats the "
    "gradients of the steps before it, and the model follows a sum that never ends.",
    "optimizer.step()\noptimizer.zero_grad()",
    reported="https://discuss.pytorch.org/t/why-do-we-need-to-set-the-gradients-manually-to-zero-in-pytorch/4903",
)
NEVER_STEPPED = Rule(
    "GP109",
    "last-microbatches-never-stepped",
    "The training ended with gradients in p.grad that no step has used.",
    "if (i + 1) % k == 0 or i + 1 == len(batches):\n    optimizer.step()\n    optimizer.zero_grad()",
    right_in="epochs whose short last window is dropped on purpose",
)
THROWN_AWAY = Rule(
    "GP102",
    "gradients-thrown-away",
    "A zero_grad between backward and step empties the gradients, so the step changes nothing (or only decays).",
    "optimizer.zero_grad()\nloss.backward()\noptimizer.step()",
)
EMPTIED_INSIDE = Rule(
    "GP103",
    "emptied-inside-a-window",
    "The loss is divided for accumulation, but the gradients are emptied before every microbatch. Only the last "
    "microbatch counts, and its gradient is too small by the number of microbatches.",
    "for i, batch in enumerate(batches):\n    (loss(batch) / k).backward()\n    if (i + 1) % k == 0:\n"
    "        optimizer.step()\n        optimizer.zero_grad()",
)
GIVEN_UP = Rule(
    "GP104",
    "update-given-up-but-not-its-gradients",
    "The loop goes on without a step, for example because the norm was too large, and leaves the gradients in p.grad. "
    "They enter the next update, which was meant to do without them.",
    "if not ok:\n    optimizer.zero_grad()\n    continue",
    right_in="a window that ends later than the others on purpose",
    reported="https://github.com/espnet/espnet/pull/3283",
)


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    yield from _left_over(story, windows)
    yield from _thrown_away(windows, story.by_torch)
    yield from _emptied_inside(windows)
    yield from _given_up(windows)
    yield from _never_stepped(windows)


def _left_over(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    found: list[tuple[StepWindow, LoopEvent]] = []
    emptied = 0
    for window in windows:
        own = [e for e, what in window.accumulated if what.into_grad]
        if window.previous is None or window.made is None or not own:
            continue
        first = own[0]
        earlier = (
            windows[window.step - 2].end if window.step > 1 else None
        )  # a step inside the backward comes before it
        if any(e and same(first.before, e.after) for e in (window.previous, earlier)) and not window.emptied_after(
            first
        ):
            found.append((window, first))
        elif is_empty(first.before):
            emptied += 1
    calls = [e for e in story.events if isinstance(e.what, ZeroGrad)]
    if not found or (len(found) < 2 and not emptied):
        return
    window, first = found[0]
    where = f"zero_grad is called at {calls[0].line}, but not before that" if calls else "zero_grad is never called"
    yield RuleFinding(
        LEFT_OVER,
        RuleVerdict.WRONG,
        f"the gradients of the step before were still in p.grad when this backward added to them, in "
        f"{times(len(found))} of {number_made(windows)}; {where}",
        first.line,
        window.previous.line if window.previous else None,
        window.step,
        0,
        times=len(found),
    )


def _thrown_away(windows: Sequence[StepWindow], by_torch: bool) -> Iterator[RuleFinding]:
    found = []
    for window in windows:
        if window.end is None or window.made is None or not is_empty(window.end.before):
            continue
        if any(what.inside_step for _, what in window.backwards):  # a closure, which may end with a zero_grad
            continue
        wrote = [e for e, what in window.backwards if what.into_grad and not is_empty(e.after)]
        after = wrote or [e for e, what in window.backwards if by_torch and not what.into_grad]
        later = [e for e in window.events if isinstance(e.what, ZeroGrad) and after and e.number > after[-1].number]
        # The loop itself writes gradients that a call returns: those are lost which no step has read before.
        lost = later if wrote else [e for e in later if not is_empty(e.before) and not _read_before(window, e)]
        if lost:
            found.append((window, lost[0]))
    if len(found) < 2:
        return
    window, emptier = found[0]
    yield RuleFinding(
        THROWN_AWAY,
        RuleVerdict.WRONG,
        f"zero_grad empties the gradients after the backward and before the step, in {times(len(found))} of "
        f"{len(windows)}: the step has no gradient left",
        emptier.line,
        window.end.line if window.end else None,
        window.step,
        times=len(found),
    )


def _read_before(window: StepWindow, event: LoopEvent) -> bool:
    """Return whether the gradients before an event are those that the step before has read."""
    return window.previous is not None and same(event.before, window.previous.after)


def _emptied_inside(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    found = []
    for window in windows:
        backwards = window.accumulated
        number = len(backwards)
        if window.made is None or number < 2 or not are_microbatches(backwards):
            continue
        readable = all(what.losses for _, what in backwards)
        whole = abs(sum(loss.total for _, what in backwards for loss in what.losses) - 1) < 1e-3
        emptied = any(is_empty(e.before) for e, _ in backwards[1:])
        zeroed = [e for e in window.events if isinstance(e.what, ZeroGrad) and e.number > backwards[0][0].number]
        if readable and whole and emptied and zeroed:
            found.append((window, number, zeroed[0]))
    if len(found) < 2:
        return
    window, number, first = found[0]
    yield RuleFinding(
        EMPTIED_INSIDE,
        RuleVerdict.WRONG,
        f"the weights of {number} microbatches sum to 1, so all of them are meant, but zero_grad runs between them and "
        f"throws the earlier ones away, in {times(len(found))}",
        first.line,
        window.backwards[0][0].line,
        window.step,
        1,
        times=len(found),
    )


def _given_up(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Find windows in which a clip or unscale, the last act before a step elsewhere, is followed by a backward."""
    found, usual = [], 0
    habit = {e.line for window in windows if window.made is not None for e, _ in window.clips}
    for window in windows:
        if not habit.intersection(e.line for e, _ in window.clips) or not window.backwards:
            continue
        last = window.backwards[-1][0]
        early = [e for e, _ in window.clips if e.number < last.number and e.number > window.backwards[0][0].number]
        later = [e for e, _ in window.backwards if early and e.number > early[0].number]
        if not early:
            usual += window.made is not None
        elif not any(is_empty(e.before) for e in later):
            found.append((window, early[0], later[0]))
    if not found or usual < 2 or usual <= len(found):
        return
    window, clip, after = found[0]
    yield RuleFinding(
        GIVEN_UP,
        RuleVerdict.WRONG,
        f"after the clip at {clip.line} no step was made and the gradients stayed, so this backward added to those of "
        f"the update that was given up, in {times(len(found))}; elsewhere the step follows the clip",
        after.line,
        clip.line,
        window.step,
        times=len(found),
    )


def _never_stepped(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    made = [window for window in windows if window.made is not None]
    lines = {(event.line, what.reaches) for window in windows for event, what in window.backwards}
    lengths = [len(window.backwards) for window in made]
    if not windows or len(lengths) < 2 or min(lengths) < 2 or len(lines) > 1:
        return
    last, usual = windows[-1], max(set(lengths), key=lengths.count)
    if last.made is None and last.backwards and len(last.backwards) < max(lengths):
        event = last.backwards[-1][0]
        if not is_empty(event.after) and not last.emptied_after(event):
            words = f"the last {times(len(last.backwards), 'backward')} of the training were followed by no step"
            yield RuleFinding(NEVER_STEPPED, RuleVerdict.UNUSUAL, words, event.line, None, last.step)
            return
    found = [(w, early) for w in made if usual < len(w.backwards) < 2 * usual and (early := _discarded(w, usual))]
    if found:
        window, early = found[0]
        emptied = next(e for e in window.events if isinstance(e.what, ZeroGrad) and e.number > early.number)
        number = times(len(window.backwards) - usual, "backward")
        words = f"the gradients of {number} before this zero_grad were used by no step, {times(len(found), 'time')}"
        yield RuleFinding(
            NEVER_STEPPED, RuleVerdict.UNUSUAL, words, emptied.line, early.line, window.step, times=len(found)
        )


def _discarded(window: StepWindow, usual: int) -> LoopEvent | None:
    """Return the last backward before a usual window's number of them, if its gradients were emptied after it."""
    early, after = window.backwards[-usual - 1][0], window.backwards[-usual][0]
    between = (e for e in window.events if isinstance(e.what, ZeroGrad) and early.number < e.number < after.number)
    return early if not is_empty(early.after) and any(is_empty(e.after) for e in between) else None
