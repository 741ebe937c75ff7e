"""Rules on steps with several backwards: closures, perturbed weights, losses of several optimizers."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow, is_empty, same

CLOSURE = Rule(
    "GP105",
    "closure-adds-up",
    "The closure runs several times in one step and does not empty the gradients, so each run adds to those before it. "
    "The optimizer then searches along a sum of gradients at different points.",
    "def closure():\n    optimizer.zero_grad()\n    loss = criterion(model(x), y)\n    loss.backward()\n"
    "    return loss",
    reported="https://github.com/Lightning-AI/pytorch-lightning/issues/4083",
)
ASCENT_KEPT = Rule(
    "GP106",
    "gradient-before-perturbation-kept",
    "The weights are perturbed between two backwards, as sharpness-aware minimization does, and the first gradient is "
    "not emptied. The step takes the sum of both, where the method takes the second alone.",
    "loss(batch).backward()\nperturb(model)\noptimizer.zero_grad()\nloss(batch).backward()\nrestore(model)\n"
    "optimizer.step()",
    reported="https://github.com/rollovd/LookSAM/issues/3",
)
OTHERS_GRADIENT = Rule(
    "GP107",
    "gradient-of-anothers-loss",
    "A backward that another optimizer has stepped on also reaches these parameters. Its gradient was not emptied, and "
    "is part of this step.",
    "for p in discriminator.parameters():\n    p.requires_grad_(False)  # while the generator is trained\n# or\n"
    "optimizer_d.zero_grad()  # directly before the discriminator's own backward",
    right_in="a shared encoder that is trained on both losses; multi-task training with a step for each head",
    reported="https://github.com/Lightning-AI/pytorch-lightning/issues/591",
)


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what these rules find in the steps of one optimizer."""
    yield from _closure(windows)
    yield from _ascent_kept(windows)


def _closure(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    found = []
    for window in windows:
        inside = [(e, what) for e, what in window.backwards if what.inside_step and what.into_grad]
        pairs = itertools.pairwise(inside)  # at one point there may be several microbatches
        added = [b for (a, x), (b, y) in pairs if same(b.before, a.after) and x.weights != y.weights]
        if added:
            found.append((window, added))
    if not found:
        return
    window, added = found[0]
    yield RuleFinding(
        CLOSURE,
        RuleVerdict.WRONG,
        f"the closure was called {len(added) + 1} times in one step, and each backward added to the gradients of the "
        "call before",
        added[0].line,
        window.end.line if window.end else None,
        window.step,
        times=len(found),
    )


def _ascent_kept(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    found = []
    for window in windows:
        backwards = [(e, what) for e, what in window.backwards if not what.inside_step and what.into_grad]
        if window.made is None or len(backwards) < 2:
            continue
        (first, before), (last, after) = backwards[0], backwards[-1]
        perturbed = before.weights != after.weights
        restored = window.made.weights_before == before.weights
        if perturbed and restored and not is_empty(last.before) and not window.emptied_after(first):
            found.append((window, first, last))
    if len(found) < 2:
        return
    window, first, last = found[0]
    yield RuleFinding(
        ASCENT_KEPT,
        RuleVerdict.WRONG,
        f"the weights were perturbed between two backwards and restored before the step, and the gradient of the first "
        f"(at {first.line}) was not emptied, in {times(len(found))}",
        last.line,
        first.line,
        window.step,
        times=len(found),
    )


def of_several(stories: Sequence[Story], by_number: Mapping[int, Sequence[StepWindow]]) -> Iterator[RuleFinding]:
    """Yield what needs the steps of several optimizers: a gradient that another optimizer has stepped on."""
    for story in stories:
        found = []
        for window in by_number[story.number]:
            if window.end is None or window.made is None:
                continue
            own = [(e, what) for e, what in window.backwards if what.into_grad]
            for event, what in own[:-1]:
                others = what.reaches - {story.number}
                taken = [
                    step.end
                    for other in others
                    for step in by_number.get(other, ())
                    if step.end is not None and event.number < step.end.number < own[-1][0].number
                ]
                last, its = own[-1]
                if taken and (event.line, what.reaches) != (last.line, its.reaches) and not window.emptied_after(event):
                    found.append((window, event, taken[0]))
                    break
        if len(found) >= 2:
            window, event, step = found[0]
            yield RuleFinding(
                OTHERS_GRADIENT,
                RuleVerdict.UNUSUAL,
                f"this backward belongs to the step at {step.line}, and what it left here was still part of "
                f"{story.name}'s own step, {times(len(found), 'time')}",
                event.line,
                window.end.line if window.end else None,
                window.step,
                times=len(found),
            )
