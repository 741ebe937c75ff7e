"""Rules on parameters that took no part in a step and have zeros where they should have no gradient."""

import math
from collections.abc import Iterator, Sequence

from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow

UNUSED_MOVED = Rule(
    "GP111",
    "zeros-move-an-unused-parameter",
    "A parameter took no part in the loss of this step and has a gradient of zeros instead of None. The optimizer "
    "skips None, but it decays a parameter with zeros, and moves it by its momentum.",
    "optimizer.zero_grad(set_to_none=True)  # and no zeros in its place, as 0 * p.sum() makes them",
    right_in="models whose unused parameters are meant to decay; DDP that must not find unused parameters",
    reported="https://github.com/pytorch/pytorch/issues/42754",
)
ALWAYS_ZERO = Rule(
    "GP809",
    "gradient-always-zero",
    "The graph leads to this weight, and each of its gradients is exactly zero in every backward: a rounding, sign or "
    "argmax without a straight-through estimate, a ReLU that is never open, or a factor of zero lies in between. Two "
    "factors that both begin at zero, as of an adapter, stay there.",
    "quantized = weight + (quantize(weight) - weight).detach()  # passes the gradient on",
    right_in="parts behind a gate that stays closed for now; a loss without rewards yet, or whose weight warms up",
)

FEW = 5
"""Steps in which a weight that is to learn has got some gradient."""


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    yield from _unused_moved(story, windows)
    yield from _always_zero(story, windows)


def _always_zero(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    backwards = [(e, what) for w in windows if w.made is not None for e, what in w.backwards]
    steps = sum(w.made is not None and bool(w.backwards) for w in windows)
    if steps < FEW or not all(what.into_grad and not what.inside_step for _, what in backwards):
        return
    matrices = {i for i, shape in enumerate(story.shapes) if len(shape) > 1 and 0 not in shape}
    led = {i for _, what in backwards for i in what.signs.leaves - what.signs.touched}
    other = {i for e, _ in backwards for i, g in enumerate(e.after) if g is None or g.norm != 0}
    finite = {i for e, _ in backwards for i, g in enumerate(e.after) if g is not None and math.isfinite(g.norm)}
    found = sorted((matrices & led & finite) - other)
    if found:
        names = ", ".join(story.names[i] for i in found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        words = f"every gradient of {names} was exactly zero, in {times(len(backwards), 'backward')}"
        yield RuleFinding(ALWAYS_ZERO, RuleVerdict.UNUSUAL, words, backwards[0][0].line, times=len(backwards))


def _unused_moved(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    if not any(group.get("weight_decay") or group.get("momentum") or group.get("betas") for group in story.groups):
        return
    made = [w for w in windows if w.end is not None and w.made is not None and not w.made.skipped and w.backwards]
    by_hand = any(not what.into_grad or what.inside_step for w in made for _, what in w.backwards)
    used = {i for w in made if w.end for i, g in enumerate(w.end.before) if g is not None and g.norm != 0}
    found = [(w, unused) for w in made if (unused := _zeros(w) & used)]
    if by_hand or len(found) < 2:
        return
    window, unused = found[0]
    assert window.end is not None
    names = ", ".join(story.names[i] if i < len(story.names) else f"parameter {i}" for i in sorted(unused)[:3])
    words = f"{names} took no part in this step and has a gradient of zeros, in {times(len(found))} of {len(made)}"
    line, other = window.backwards[0][0].line, window.end.line
    yield RuleFinding(UNUSED_MOVED, RuleVerdict.UNUSUAL, words, line, other, window.step, times=len(found))


def _zeros(window: StepWindow) -> set[int]:
    """Return the positions of gradients of zeros that no backward of the window reached, but for a ``0 * p.sum()``."""
    assert window.end is not None
    signs = [what.signs for _, what in window.backwards]
    reached = {i for sign in signs for i in sign.leaves - sign.touched}
    return {i for i, g in enumerate(window.end.before) if g is not None and g.norm == 0 and i not in reached}
