"""Rules on what is written between the last backward and the step: to gradients around a clip, and to weights."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from gradparity.auditing.events import GradientLook, StepMade
from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.rules.clipping import BY_PARTS
from gradparity.auditing.rules.loss_scale import factor_of
from gradparity.auditing.rules.scaler_handling import UNSCALED_TWICE, unscaled_again
from gradparity.auditing.step_windows import StepWindow, size

WRITTEN_BEFORE = Rule(
    "GP808",
    "weights-written-before-the-step",
    "The weights were written between the backward and the step, by a loop whose optimizer decays them too. A decay by "
    "hand comes on top of that of the optimizer, and also reaches parameters that the step leaves alone.",
    "optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay)  # and no decay beside it",
    right_in="projections and perturbations of the weights",
    reported="https://github.com/huggingface/pytorch-image-models/issues/2750",
)
ROUNDED = Rule(
    "GP707",
    "gradients-rounded-between-microbatches",
    "The gradients in p.grad were rounded to half precision before the next microbatch was added. Small ones become "
    "zero, and the sum loses digits each time.",
    "loss.backward()  # p.grad keeps the precision of its parameter",
    right_in="compressed gradients with error feedback",
)
OVERFLOW_HIDDEN = Rule(
    "GP209",
    "overflow-hidden-from-the-scaler",
    "Infinite gradients were replaced before the scaler looked for them. It makes the step with what is left, and the "
    "loss scale goes on growing.",
    "scaler.unscale_(optimizer)\nscaler.step(optimizer)  # skips a step with an overflow\nscaler.update()",
    right_in="gradients that are repaired on purpose",
)

ALIKE = 1e-3
SMALL = 1e-30
"""Gradients shorter than this are rounded coarsely."""


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    made = [w for w in windows if w.end is not None and w.made is not None and w.backwards and not w.made.closure]
    yield from _around_the_clip(made)
    yield from _weights(story, made)
    yield from _rounded(made)
    yield from _hidden(made)


def _around_the_clip(made: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Compare gradients from the last backward to the step, in windows with one clip of all of them."""
    several, again = [], []
    for window in made:
        for factors in _parts(window):
            if max(factors) - min(factors) > ALIKE * max(factors):
                several.append((window, factors))
                break
            scale = factor_of(window)
            if (
                scale > 1
                and window.unscaled is not None
                and unscaled_again(window) is None
                and abs(factors[0] * scale - 1) < 1e-2
            ):
                again.append((window, scale))
                break
    if len(several) > 1:
        window, factors = several[0]
        words = f"beside the clip, gradients were multiplied by {min(factors):.4g} to {max(factors):.4g}"
        yield _found(BY_PARTS, RuleVerdict.UNUSUAL, [w for w, _ in several], words)
    if len(again) > 1:
        words = f"the loop divided the gradients by {again[0][1]:g}, and the scaler divides them too"
        yield _found(UNSCALED_TWICE, RuleVerdict.WRONG, [w for w, _ in again], words)


def _parts(window: StepWindow) -> Iterator[list[float]]:
    """Yield, for each part of the way to the step, the factors of single gradients beside unscaling and the clip."""
    assert window.end is not None
    last = window.backwards[-1][0]
    if len(window.clips) != 1 or not window.adds_up or window.backwards[-1][1].exchange is False:
        return  # in the last case the ranks exchange the gradients later, by the loop's own hands
    clip, what = window.clips[0]
    present = sum(g is not None for g in clip.before)
    if what.by_value or what.twice or what.covered < present or clip.number < last.number or what.norm_type != 2:
        return
    shortened = 1.0
    if what.threshold is not None and math.isfinite(size(clip.before)):
        shortened = min(1.0, what.threshold / (size(clip.before) + 1e-6))
    looks: list[tuple[int, GradientLook, GradientLook]] = [(clip.number, clip.before, clip.before)]
    if window.unscaled is not None and window.unscaled.number > last.number:
        looks.append((window.unscaled.number, window.unscaled.before, window.unscaled.after))
    looks = [(last.number, (), last.after), *sorted(looks), (window.end.number, window.end.before, ())]
    for (number, _, before), (_, after, _) in pairwise(looks):
        factors = _factors(before, after)
        if number == clip.number:
            factors = [factor / shortened for factor in factors]
        if len(factors) > 1:
            yield factors


def _factors(one: GradientLook, other: GradientLook) -> list[float]:
    """Return the factor of each gradient that is finite; none in half precision, whose norms are too coarse."""
    both = [(a, b) for a, b in zip(one, other, strict=False) if a and b]
    pairs = [(a, b) for a, b in both if a.norm > SMALL and math.isfinite(a.norm + b.norm)]
    if any(a.dtype not in ("float32", "float64") for a, _ in pairs):
        return []
    return [abs(b.norm / a.norm) for a, b in pairs]


def _weights(story: Story, made: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    if not any(group.get("weight_decay") for group in story.groups):
        return
    found = []
    for window in made:
        assert window.made is not None
        known = {what.weights for _, what in window.backwards}
        before = window.previous.what if window.previous is not None else None
        left = before.weights_after if isinstance(before, StepMade) else ""
        if len(known) == 1 and window.made.weights_before not in {*known, left}:
            found.append(window)
    if len(found) > 1:
        yield _found(
            WRITTEN_BEFORE, RuleVerdict.UNUSUAL, found, "the weights were written between the backward and the step"
        )


def _rounded(made: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    found = [w for w in made if any(what.signs.rounded for _, what in w.backwards)]
    if len(found) > 1:
        [half, *_] = [what.signs.rounded for _, what in found[0].backwards if what.signs.rounded]
        yield _found(ROUNDED, RuleVerdict.UNUSUAL, found, f"the gradients were rounded to {half} between microbatches")


def _hidden(made: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    found = []
    for window in made:
        assert window.made is not None
        last = window.backwards[-1][0]
        if window.unscaled is None or window.made.skipped or window.unscaled.number < last.number:
            continue
        pairs = [(a, b) for a, b in zip(last.after, window.unscaled.before, strict=False) if a and b]
        if any(not math.isfinite(a.norm) and math.isfinite(b.norm) for a, b in pairs):
            found.append(window)
    if found:
        words = "a backward left infinite gradients, and the scaler found none"
        yield _found(OVERFLOW_HIDDEN, RuleVerdict.UNUSUAL, found, words)


def _found(rule: Rule, verdict: RuleVerdict, found: Sequence[StepWindow], words: str) -> RuleFinding:
    window = found[0]
    assert window.end is not None
    other = window.backwards[-1][0].line
    sentence = f"{words}, in {times(len(found))}"
    return RuleFinding(rule, verdict, sentence, window.end.line, other, window.step, times=len(found))
