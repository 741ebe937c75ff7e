"""Rules on what happens between two backwards of one step: weights that move, gradients that are kept or lost."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from gradparity.auditing.events import Backward, LoopEvent, StepMade
from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow, WindowBackward, of_one_loss

KEPT_BY_REFERENCE = Rule(
    "GP120",
    "earlier-gradients-lost",
    "Each backward of a step has its gradients emptied before the next one, and the step reads those of the last one "
    "alone. Gradients kept as p.grad, without a copy, are one tensor, which zero_grad(set_to_none=False) empties and "
    "the next backward fills.",
    "kept.append([p.grad.clone() for p in parameters])\noptimizer.zero_grad()",
    right_in="methods that look at the first gradient and step on the last one",
    reported="https://github.com/shivram1987/diffGrad/issues/2",
)
MOVED_INSIDE = Rule(
    "GP121",
    "weights-moved-between-two-backwards",
    "The weights were written between two backwards of one step, and not restored before it. A perturbation, as of "
    "sharpness-aware minimization, then stays in the weights.",
    "loss(batch).backward()\nperturb(model)\noptimizer.zero_grad()\nloss(batch).backward()\nrestore(model)\n"
    "optimizer.step()",
    right_in="updates by hand beside those of the optimizer",
)
LEAKS = Rule(
    "GP122",
    "others-loss-trains-this-model",
    "The loss of one optimizer also reaches the parameters of another one, which steps on it, though the loop keeps "
    "the two apart the other way round. A generator is then trained to help its discriminator.",
    "fake = generator(noise)\nloss_d = criterion(discriminator(fake.detach()), zeros)",
    reported="https://github.com/alterzero/DBPN-Pytorch/issues/37",
)


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what these rules find in the steps of one optimizer."""
    several = [w for w in windows if w.made is not None and len(_outer(w)) > 1]
    lost = [(w, factor) for w in several if (factor := _factor_of_last(w)) is not None]
    if len(lost) > 2 and 2 * len(lost) > sum(w.made is not None for w in windows):
        window, factor = lost[0]
        number = len(_outer(window))
        certain = all(abs(f / len(_outer(w)) - 1) < 1e-4 for w, f in lost)
        words = f"the step read {factor:.4g} times the gradients of the last of {number} backwards, each emptied before"
        yield RuleFinding(
            KEPT_BY_REFERENCE,
            RuleVerdict.WRONG if certain else RuleVerdict.UNUSUAL,
            f"{words} the next one, in {times(len(lost))}: the others have no effect",
            _outer(window)[0][0].line,
            window.end.line if window.end else None,
            window.step,
            times=len(lost),
        )


def of_several(stories: Sequence[Story], by_number: Mapping[int, Sequence[StepWindow]]) -> Iterator[RuleFinding]:
    """Yield what needs the steps of several optimizers."""
    steps = sorted((e.number, s.number) for s in stories for e in s.events if isinstance(e.what, StepMade))
    for story in stories:
        yield from _moved_inside(by_number[story.number], [n for n, owner in steps if owner != story.number])
        yield from _leaks(story, by_number)


def _outer(window: StepWindow) -> list[WindowBackward]:
    """Return the backwards into ``p.grad`` that no closure has made."""
    return [(e, what) for e, what in window.backwards if what.into_grad and not what.inside_step]


def _factor_of_last(window: StepWindow) -> float | None:
    """Return the one factor between the last backward's gradients and those that the step read, if there is one.

    Only parameters count whose gradients are emptied before each further backward. ``None`` if the backwards are of
    several losses, or if the weights of all losses sum to 1, of which ``emptied-inside-a-window`` tells. A
    factor other than the number of backwards is returned only if all parameters have it.
    """
    backwards = _outer(window)
    if window.end is None or not of_one_loss(backwards):
        return None
    total = sum(loss.total for _, what in backwards for loss in what.losses)
    if abs(total - 1) < 1e-3 and all(what.losses for _, what in backwards):
        return None
    looks = zip(*(e.before for e, _ in backwards[1:]), strict=False)
    emptied = [all(g is None or g.norm == 0 for g in look) for look in looks]
    read = zip(emptied, backwards[0][0].after, backwards[-1][0].after, window.end.before, strict=False)
    pairs = [(last, end) for lost, first, last, end in read if lost and first is not None and first.norm]
    if any((last is None or last.norm == 0) != (end is None or end.norm == 0) for last, end in pairs):
        return None
    factors = [abs(end.norm / last.norm) for last, end in pairs if last and end and last.norm]
    if len(factors) < 2 or max(factors) - min(factors) > 1e-5 * max(factors):
        return None
    return factors[0] if all(emptied) or abs(factors[0] / len(backwards) - 1) < 1e-4 else None


def _moved_inside(windows: Sequence[StepWindow], others: Sequence[int]) -> Iterator[RuleFinding]:
    found = []
    for window in windows:
        own = [(e, what) for e, what in window.backwards if not what.inside_step]
        if window.made is None or len(own) < 2 or any(own[0][0].number < n < own[-1][0].number for n in others):
            continue
        moved = [b for (_, a), (b, after) in pairwise(own) if a.weights != after.weights]
        if moved and window.made.weights_before == own[-1][1].weights != own[0][1].weights:
            found.append((window, moved[0]))
    if len(found) > 1:
        window, event = found[0]
        words = "the weights moved since the backward before, and were not restored before the step, in "
        yield RuleFinding(
            MOVED_INSIDE,
            RuleVerdict.UNUSUAL,
            words + times(len(found)),
            event.line,
            window.end.line if window.end else None,
            window.step,
            times=len(found),
        )


def _leaks(story: Story, by_number: Mapping[int, Sequence[StepWindow]]) -> Iterator[RuleFinding]:
    """Find backwards that another optimizer steps on too, though it is kept out of this one's own loss."""
    found = []
    for window in by_number[story.number]:
        for event, what in _outer(window) if window.made is not None else ():
            owners = [n for n in what.reaches - {story.number} if _steps_on(by_number[n], event, what)]
            others = [(e, own) for e, own in _outer(window) if (e.line, own.reaches) != (event.line, what.reaches)]
            apart = [e for n in owners for e, own in others if _apart(own, e, n, by_number)]
            if apart and not window.emptied_after(event):
                found.append((window, event, apart[0]))
                break
    if len(found) > 1:
        window, event, own = found[0]
        words = (
            f"this backward belongs to another optimizer, and {story.name} steps on it too, in {times(len(found))}; "
            f"{story.name}'s own loss, at {own.line}, does not train the other one"
        )
        yield RuleFinding(LEAKS, RuleVerdict.WRONG, words, event.line, own.line, window.step, times=len(found))


def _apart(what: Backward, event: LoopEvent, other: int, by_number: Mapping[int, Sequence[StepWindow]]) -> bool:
    """Return whether a backward leaves nothing in ``other``: that one is frozen, or empties its gradients."""
    if other in what.resting:
        return True
    there = _counterpart(by_number[other], event) if other in what.reaches else None
    return there is not None and there[0].made is not None and there[0].emptied_after(there[1])


def _steps_on(windows: Sequence[StepWindow], event: LoopEvent, what: Backward) -> bool:
    """Return whether an optimizer of other parameters makes a step with what this backward has left."""
    there = _counterpart(windows, event)
    if there is None or there[0].made is None or there[0].emptied_after(there[1]):
        return False
    return isinstance(there[1].what, Backward) and there[1].what.weights != what.weights


def _counterpart(windows: Sequence[StepWindow], event: LoopEvent) -> tuple[StepWindow, LoopEvent] | None:
    """Return the event of the same backward in another optimizer's story: the nearest one of that line."""
    same = [(w, e) for w in windows for e, _ in w.backwards if e.line == event.line]
    return min(same, key=lambda one: abs(one[1].number - event.number), default=None)
